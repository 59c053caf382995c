"""Edit a head: age and other attributes, expression, identity, detail, hair, pose and light.

Conventions (axes, units, colours): see camera.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from .detail.ageing import aged
from .detail.blending import mixed
from .detail.file import load_detail
from .detail.latents import check_latents, check_open, random_detail, shown_albedo, with_detail
from .edit_hair import KEEP_HAIR, HairChanges, with_aged_hair, with_hair_changes
from .edit_styles import KEEP_BEARD, with_facial_hair
from .edit_values import array, expression_weights, iris_of, light_coefficients, move_attributes, number
from .errors import ParameterError
from .graphics.camera import Camera
from .graphics.lighting import linear_from_srgb, srgb_from_linear
from .messages import Message
from .model.beard_skin import texture_without_beard
from .model.face_model import FaceModel, FaceParams
from .model.skin_texture import albedo_without_hair, encode_srgb, paint_irises
from .model.texture_maps import bake_vertices
from .rendering.render import rotation_matrix
from .result import DetailModuleLike, FitResult, head_from_params, with_params
from .weights import load_model

MAX_DETAIL = 3.0
HEAD_VIEW_PX = 512  # picture size of the camera of a head without a photograph
DETAIL_LAYERS = {"all": slice(None), "coarse": slice(0, -3), "fine": slice(-3, None)}
"""Layers of the detail generator's latents, see `edit`: "fine" are those of the full resolution."""
# Added to numerator and denominator of the albedo ratio: the plain ratio would tint hair and pupils, where the model is
# nearly black.
_RATIO_SOFTENING = 0.03


def head(params: FaceParams, model: FaceModel | None = None, *, texture_size: int = 512) -> FitResult:
    """Make a head from parameters, such as `model.random(seed)`: a result like that of `fit`, without a photograph.

    Args:
        params: identity, expression, albedo, pose and light.
        model: from `load_model`; by default the open model.
        texture_size: width and height of the texture in pixels; it holds the model's albedo.
    Raises:
        ParameterError: the parameters do not belong to this model, or a size below 1.
    """
    model = load_model() if model is None else model
    expected = model.neutral()
    for name in ("identity", "expression", "albedo"):
        wanted, given = getattr(expected, name).shape, np.shape(getattr(params, name))
        if wanted != given:
            raise ParameterError("edit.params_shape", name=name, expected=wanted, model=model.name, shape=given)
    camera = Camera(1.6 * HEAD_VIEW_PX, (HEAD_VIEW_PX / 2, HEAD_VIEW_PX / 2), (HEAD_VIEW_PX, HEAD_VIEW_PX))
    return head_from_params(model, params, camera, texture_size)


def edit(
    result: FitResult,
    *,
    age: float | None = None,
    gender: float | None = None,
    expression: str | Mapping[str, float] | np.ndarray | None = None,
    detail: float | None = None,
    identity: np.ndarray | None = None,
    rotation=None,
    light: Mapping[str, float] | np.ndarray | None = None,
    detail_seed: int | None = None,
    detail_from: FitResult | None = None,
    detail_layers: str = "all",
    age_years: float | None = None,
    targets: Mapping[str, float] | None = None,
    eye_color: str | Sequence[float] | None = None,
    beard: str | None = KEEP_BEARD,
    beard_length: float | None = None,
    beard_color: str | Sequence[float] | None = None,
    beard_density: float | None = None,
    brows: str | None = None,
    brow_color: str | Sequence[float] | None = None,
    hair: str | None = KEEP_HAIR,
    hair_color: str | Sequence[float] | None = None,
    hair_length: float | None = None,
    hair_volume: float | Mapping[str, float] | None = None,
    hair_fringe: float | None = None,
    hair_wave: float | None = None,
    hair_grey: float | None = None,
    hair_mirrored: bool | None = None,
    hair_from: FitResult | None = None,
    **attributes: float | None,
) -> FitResult:
    """Edit a head and return a new one; the given head is not modified.

    Attributes are changes, so successive edits add up; `age_years` and `targets` are values to reach. All are relative
    to the given head, as the model estimates it (`model.attributes`), so the order of arguments does not matter. A
    change that would leave an attribute's range (`model.data.attributes`: minimum, maximum) is clamped, with a warning
    in the result. The texture is multiplied by the change of the model's albedo.

    Args:
        result: the head to edit.
        age: years to add: +20 is twenty years older than the head is now; its skin ages too.
        gender: change in the attribute's unit, from female to male: +0.3 is more male than the head is now.
        expression: weights by name, the others keep their values; or all of them, (E,); or the name of a whole
            expression (`EXPRESSION_PRESETS`), which replaces the present one. A mapping may contain presets with a
            weight in 0..1: their sum replaces the present expression, and single weights override it. Values outside
            the model's limits (`FaceModel.expression_limits`, 0..1 for blendshapes) are clamped.
        detail: strength of the skin detail, 0..3: 0 is smooth, 1 as fitted or sampled. Where the detail is a
            displacement without latents, it is a factor on the present depth.
        identity: (I,) coefficients that replace the present ones before attribute changes are added.
        rotation: head to camera: (yaw, pitch, roll) in degrees or a rotation matrix (3, 3).
        light: (9, 3) spherical harmonics; or a mapping of `LIGHT_PARAMETERS`: "yaw" and "pitch", the direction of a
            lamp in degrees (0, 0 at the camera, +yaw to the left of a subject who faces it, +pitch above), "intensity"
            relative to the default light, and "warmth" from blue sky to candle. Missing entries have their defaults.
        detail_seed: samples new skin detail for the head's age and sex; 0 to 2^24 - 1.
        detail_from: takes the skin detail of this head.
        detail_layers: layers taken from `detail_from`: "all", "coarse" (creases; pores are kept) or "fine" (pores;
            creases are kept).
        age_years: the age to reach; the skin ages too.
        targets: values to reach by attribute, such as {"gender": -0.5, "nose_width": 3}.
        eye_color: of both irises: a name of `EYE_COLORS`, "#rrggbb", or (red, green, blue), sRGB, 0..255.
        beard: a style of `BEARD_STYLES`; "shaved" or None takes the beard off, and the skin around it is continued.
        beard_length: factor of the style's length, 0.1..3.
        beard_color: mean colour, like `hair_color`; "hair" for that of the hair.
        beard_density: share of the hairs, 0..1.
        brows: a style of the model's parts, such as "03"; "painted" leaves those that are painted on the skin.
        brow_color: of brows of a style, like `beard_color`.
        hair: a style of `HAIR_STYLES`, as made, in the present colour; "bald" or None takes the hair off.
        hair_color: a name of `HAIR_COLORS`, "#rrggbb", or (red, green, blue), sRGB, 0..255, without grey hairs.
        hair_length: factor of the style's length, 0.2..2.
        hair_volume: factor of the style's volume, 0..3; or a mapping with "top", "sides", "back".
        hair_fringe: factor of the length of the hair before the forehead, 0..2.
        hair_wave: 0 as made .. 1 curly.
        hair_grey: share of grey hairs, 0..1. Ageing turns hair grey, too.
        hair_mirrored: whether left and right of the style are exchanged.
        hair_from: takes style, shape and colour of the hair of this head, before the other changes of hair.
        **attributes: changes of the model's other attributes by name; `model.attribute_names` lists all.
    Raises:
        ParameterError: an unknown name or colour, a value that is not a finite number, a wrong shape, both a change and
            a target of one attribute, `detail` for a head without detail, or new detail where the detail modules of
            the heads are missing or differ.
        WeightsError: `detail_seed` for a head without a detail module where the open detail weights are missing.
    """
    original, result = result, _with_new_detail(result, detail_seed, detail_from, detail_layers)
    model, params = result.model, result.params
    warnings: list[str] = []
    if identity is not None:
        params = params.replace(identity=array("identity", identity, (len(params.identity),)))
    if expression is not None:
        params = params.replace(expression=expression_weights(model, params.expression, expression, warnings))
    if rotation is not None:
        params = params.replace(rotation=rotation_matrix(rotation))
    if light is not None:
        params = params.replace(light=light_coefficients(light, warnings))
    if eye_color is not None:
        params = params.replace(iris=iris_of(eye_color))
    facial = {"beard": beard, "beard_length": beard_length, "beard_color": beard_color, "beard_density": beard_density}
    params = with_facial_hair(params, model.parts, facial | {"brows": brows, "brow_color": brow_color})
    hair_numbers = (hair_length, hair_volume, hair_fringe, hair_wave, hair_grey)
    changes = HairChanges(hair, hair_color, *hair_numbers, hair_mirrored, hair_from)
    params = with_hair_changes(model, params, changes)
    given = {"age": age, "gender": gender, **attributes}
    amounts = {name: amount for name, amount in given.items() if amount is not None}
    targets = _targets(targets, age_years)
    params = move_attributes(model, params, amounts, targets, warnings)
    known = result.detail_module is not None
    if ages := "age" in amounts or "age" in targets:
        params = params if hair_grey is not None else with_aged_hair(model, result.params, params)
    if ages and params.detail and known:
        years = (model.attributes(p)["age"] for p in (result.params, params))
        params = params.replace(detail=aged(check_open(result.detail_module, model), params.detail, *years))
    if detail is not None and params.detail:
        params = params.replace(detail=params.detail | {"strength": np.float32(_strength(detail))})
    edited = with_params(result, params)
    texture = result.texture
    if result.params.beard.in_skin and not params.beard.in_skin:
        texture = texture_without_beard(model, result.params, texture)
    if not np.array_equal(params.albedo, result.params.albedo):
        texture = _recolored(model, texture, result.params.albedo, params.albedo)
    if eye_color is not None:
        texture = _with_irises(edited, texture)
    edited = edited.replace(texture=texture, warnings=result.warnings + tuple(warnings))
    if params.detail and known:
        return with_detail(edited, shown_albedo(original)) if _changes_detail(original.params, params) else edited
    if detail is None:
        return edited
    before = float(result.params.detail.get("strength", 1.0))
    if not before:
        raise ParameterError("edit.detail_turned_off", reason=Message("edit.no_module"))
    return _with_factor(edited, _strength(detail) / before)


def _targets(targets: Mapping[str, float] | None, age_years: float | None) -> dict[str, float]:
    """Target values by attribute."""
    if targets is not None and not isinstance(targets, Mapping):
        raise ParameterError("edit.targets", targets=repr(targets))
    targets = dict(targets or {})
    if age_years is None:
        return targets
    if "age" in targets:
        raise ParameterError("edit.age_twice")
    return targets | {"age": age_years}


def _with_new_detail(result: FitResult, seed: int | None, other: FitResult | None, layers: str) -> FitResult:
    """The head with sampled or transferred detail latents; texture and maps still show the previous detail."""
    if not isinstance(layers, str) or layers not in DETAIL_LAYERS:
        raise ParameterError("edit.detail_layers", known=", ".join(DETAIL_LAYERS), layers=repr(layers))
    if seed is None and other is None:
        return result
    if seed is not None and other is not None:
        raise ParameterError("edit.two_details")
    module = _module_for_both(result, other)
    mine = result.params.detail
    if other is None:
        assert seed is not None
        latents = random_detail(check_open(module, result.model), result.model, result.params, seed)
        latents |= {"strength": mine.get("strength", latents["strength"])}
    elif layers == "all":
        latents = other.params.detail | {"strength": mine.get("strength", np.float32(1))}
    elif not mine:
        raise ParameterError("edit.no_layers")
    else:
        for latents in (mine, other.params.detail):
            check_latents(check_open(module, result.model), latents)
        latents = mixed(mine, other.params.detail, DETAIL_LAYERS[layers])
    return result.replace(params=result.params.replace(detail=latents), detail_module=module)


def _module_for_both(result: FitResult, other: FitResult | None) -> DetailModuleLike:
    """The detail module of a head and its donor, which also generates the new detail.

    Raises:
        ParameterError: the donor has no detail, a head lacks its module, or the modules differ.
        WeightsError: neither head has a module, and the open one is not installed.
    """
    # The texture contains the present detail's albedo, which only the same module can remove.
    if result.params.detail and result.detail_module is None:
        raise ParameterError("edit.detail_fixed", reason=Message("edit.no_module"))
    if other is None:
        return result.detail_module or load_detail()
    if not isinstance(other, FitResult):
        raise ParameterError("edit.detail_from_type", type=type(other).__name__)
    if not other.params.detail:
        raise ParameterError("edit.detail_from_empty")
    if other.detail_module is None:
        raise ParameterError("edit.detail_from_fixed", reason=Message("edit.no_module"))
    mine = result.detail_module
    if result.params.detail and mine is not None and not other.detail_module.is_same(mine):
        raise ParameterError(
            "edit.other_module",
            module=mine.name,
            digest=mine.digest[:8],
            other=other.detail_module.name,
            other_digest=other.detail_module.digest[:8],
        )
    return other.detail_module


def _changes_detail(before: FaceParams, after: FaceParams) -> bool:
    """Whether the detail maps have to be regenerated."""
    same = all(np.array_equal(getattr(before, n), getattr(after, n)) for n in ("identity", "expression", "albedo"))
    return not (same and before.detail is after.detail)


def _recolored(model: FaceModel, texture: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Multiply the texture (H, W, 3) uint8 by the ratio of the model's albedos, in linear light, clipped."""
    rows = torch.from_numpy(np.stack([before, after]).astype(np.float32)).to(model.device)
    albedos = model.albedo(rows).clamp(0, 1).numpy(force=True)
    old, new = (albedo_without_hair(model, albedo) + _RATIO_SOFTENING for albedo in albedos)
    height, width = texture.shape[:2]
    baked = torch.from_numpy(bake_vertices(model, new / old, max(height, width)))
    if height != width:
        resized = torch.nn.functional.interpolate(baked.movedim(2, 0)[None], (height, width), mode="area")
        baked = resized[0].movedim(0, 2)
    linear_of_byte = linear_from_srgb(torch.arange(256) / 255)
    linear = linear_of_byte[torch.from_numpy(np.array(texture)).long()] * baked
    return (srgb_from_linear(linear) * 255).round().to(torch.uint8).numpy()


def _with_irises(result: FitResult, texture: np.ndarray) -> np.ndarray:
    """Paint the irises of eyes that are no parts into the texture (H, W, 3) uint8."""
    if {"eye_left", "eye_right"} <= set(result.parts) or texture.shape[0] != texture.shape[1]:
        return texture
    linear = linear_from_srgb(torch.arange(256) / 255)[torch.from_numpy(np.array(texture)).long()]
    return encode_srgb(paint_irises(result.model, linear.numpy(), result.params.iris))


def _strength(detail: float) -> float:
    strength = number("detail", detail)
    if not 0 <= strength <= MAX_DETAIL:
        raise ParameterError("edit.detail_strength", most=MAX_DETAIL, strength=strength)
    return strength


def _with_factor(result: FitResult, factor: float) -> FitResult:
    """Scale the displacement and the slope of the normal map by a factor."""
    if result.displacement is None and result.normal_map is None:
        raise ParameterError("edit.no_detail")
    displacement, normal_map = result.displacement, result.normal_map
    if displacement is not None:
        displacement = (displacement * factor).astype(np.float32)
    if normal_map is not None:
        normals = normal_map.astype(np.float32) / 127.5 - 1
        # Zero slope is 127.5, which is no byte value: without this, flat texels would tilt further with every edit.
        normals[..., :2][np.isin(normal_map[..., :2], (127, 128))] = 0
        normals[..., :2] *= factor
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
        normal_map = np.clip(np.round((normals + 1) * 127.5), 0, 255).astype(np.uint8)
    return result.replace(displacement=displacement, normal_map=normal_map)
