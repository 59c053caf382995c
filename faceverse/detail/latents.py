"""Skin detail of a head from the latents of an open detail module: displacement and change of albedo.

`FaceParams.detail` holds the latents, all of them float32 arrays:

    "w"                      (L, D)    of the detail generator, one row per layer
    "noise_seed"             ()        integer, seed of the generator's noise maps
    "noise"                  (P,)      correction of these maps fitted to a photograph, concatenated; optional
    "depth"                  ()        fitted factor on all of its displacement; 1 by default
    "residual_displacement"  (S * S,)  millimetres fitted to a photograph on top of the generator's, in rows; optional
    "expression_w"           (M, D)    of the expression generator
    "expression_seed"        ()        integer, seed of its noise maps
    "wrinkle_depth"          ()        fitted factor on its displacement; 1 by default
    "expression_residual"    (S * S,)  millimetres fitted to a photograph that belong to its expression; optional
    "fitted_expression"      (E,)      weights of that expression
    "strength"               ()        user's factor on everything, 1 by default

Maps are square, in the UV of the model; displacements are millimetres along the base surface's normal (see
displacement.py).
"""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ParameterError
from ..graphics.lighting import linear_from_srgb, srgb_from_linear
from ..messages import Message
from ..model.face_model import FaceModel, FaceParams
from ..result import DetailModuleLike, FitResult
from .displacement import (
    compression,
    condition_maps,
    displacement_weight,
    expression_strain,
    normal_map,
    split_bands,
    wrinkle_gate,
)
from .module import DetailModule, DisplacementCode, dequantise, quantise
from .stylegan import ConditionalGenerator

AGES, MOST_MASCULINE = (18.0, 80.0), 1.5  # range of the generators' training data
_DIRECTION_SAMPLES, _DIRECTION_SEED = 512, 0
MOST_COMPRESSION_RATIO = 1.3  # deepest wrinkles of a photograph, in their depth there
_LEAST_COMPRESSION = 0.02  # below, skin counts as not compressed
_STRAIN_SIZE = 256  # strain is smooth
_SEED_LIMIT = 2**24  # integers below are exact in float32
_CACHE_SIZE = 4

_NEUTRAL_LATENTS = ("w", "noise_seed", "noise", "residual_displacement", "depth")

_maps: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_LAYOUT_BLOCKS, _LAYOUT_STEP = 64, 0.004  # runs of texture coordinates, and steps of their means
_layouts: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class DetailMaps:
    """Displacement and albedo maps of a head's detail.

    Args:
        displacement: (S, S) float32 mm.
        albedo_log: (S, S, 3) float32, natural logarithm of detailed over base albedo, linear RGB.
        seen: (S, S) bool, texels for which a real scan has data; None: all.
    """

    displacement: np.ndarray
    albedo_log: np.ndarray
    seen: np.ndarray | None = None


# -- output of the generators -----------------------------------------------------------------------------------------
def picture_of_maps(code: DisplacementCode, maps: DetailMaps) -> np.ndarray:
    """Encode maps as an output of the detail generator: (6, S, S) float32, three channels of albedo, three bands."""
    scales = np.array(code.band_scales_mm, np.float32)[:, None, None]
    bands = split_bands(maps.displacement) / scales
    albedo = np.moveaxis(maps.albedo_log, 2, 0) / np.float32(code.albedo_scale)
    return np.concatenate([albedo, bands]).astype(np.float32)


def read_picture(code: DisplacementCode, picture: Tensor) -> tuple[Tensor, Tensor]:
    """Decode generator outputs (N, 6, S, S): log albedo change (N, 3, S, S), displacement (N, S, S) mm."""
    return picture[:, :3] * code.albedo_scale, read_bands(code, picture[:, 3:])


def read_bands(code: DisplacementCode, bands: Tensor) -> Tensor:
    """Sum three displacement bands (N, 3, S, S) to millimetres (N, S, S)."""
    return torch.einsum("ncij,c->nij", bands, bands.new_tensor(code.band_scales_mm))


# -- latents ----------------------------------------------------------------------------------------------------------
def check_open(module: DetailModuleLike | None, model: FaceModel) -> DetailModule:
    """Check that a module is open and was trained for the model's UV layout, and return it.

    Raises:
        ParameterError: it has no detail generator, uses the conventions of the official files, or belongs to a model
            with another UV layout.
    """
    if not isinstance(module, DetailModule) or module.code is None or module.detail is None:
        name = Message("word.none") if module is None else f"'{module.name}'"
        raise ParameterError("detail.not_for_heads", name=name)
    if module.code.layout not in ("", layout_digest(model)):
        raise ParameterError("detail.other_layout", module=module.name, model=model.name)
    return module


def open_parts(module: DetailModule) -> tuple[ConditionalGenerator, DisplacementCode]:
    """Detail generator and code of a module that `check_open` has accepted."""
    assert module.detail is not None and module.code is not None
    return module.detail, module.code


def layout_digest(model: FaceModel) -> str:
    """16 hexadecimal digits that identify a model's UV layout.

    They cover which texture coordinates each face has, and roughly where these are: the last bits of coordinates differ
    from machine to machine.
    """
    cached = _layouts.get(model)
    if cached is None:
        blocks = np.array_split(model.uv.astype(np.float64), _LAYOUT_BLOCKS)
        places = np.array([block.mean(axis=0) for block in blocks if len(block)])
        digest = hashlib.blake2b(digest_size=8)
        for array in (model.uv_faces, np.round(places / _LAYOUT_STEP)):
            digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
        cached = _layouts[model] = digest.hexdigest()
    return cached


def check_seed(seed: int) -> None:
    """Raise ParameterError for a seed that is no integer which float32 latents represent exactly."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < _SEED_LIMIT:
        raise ParameterError("detail.seed", largest=_SEED_LIMIT - 1, seed=repr(seed))


def random_detail(module: DetailModule, model: FaceModel, params: FaceParams, seed: int) -> dict[str, np.ndarray]:
    """Sample latents of skin detail, conditioned on the head's apparent age and sex.

    Args:
        seed: 0 to 2^24 - 1.
    Returns:
        For `FaceParams.detail`.
    Raises:
        ParameterError: an invalid seed, or not an open module.
    """
    generator, code = open_parts(check_open(module, model))
    check_seed(seed)
    draw = np.random.default_rng(int(seed))
    z = draw.standard_normal(generator.style_dim).astype(np.float32)
    for name, value in known_factors(code, model, params).items():
        z[code.factors.index(name)] = value
    latents = {"w": _style(generator, z), "noise_seed": np.float32(seed), "strength": np.float32(1)}
    return latents | expression_latents(module, z, seed)


def expression_latents(module: DetailModule, z: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Latents of the expression generator for a random vector (D,); empty without such a generator."""
    if module.expression is None:
        return {}
    return {"expression_w": _style(module.expression, z), "expression_seed": np.float32(seed)}


def known_factors(code: DisplacementCode, model: FaceModel, params: FaceParams) -> dict[str, float]:
    """Factors of z estimated from the base model's head: "age" and "masculinity", where code and model have them."""
    years, male = age_and_masculinity(model, params)
    estimates = {"age": (years - code.age[0]) / code.age[1], "masculinity": male}
    attribute = {"age": "age", "masculinity": "gender"}
    names = [name for name in estimates if name in code.factors and attribute[name] in model.attribute_names]
    return {name: estimates[name] for name in names}


def age_and_masculinity(model: FaceModel, params: FaceParams) -> tuple[float, float]:
    """The model's estimates of age, clamped to `AGES`, and of masculinity in -1.5..1.5; 45 and 0 without attributes."""
    estimates = model.attributes(params)
    years, male = estimates.get("age", DisplacementCode.age[0]), estimates.get("gender", 0.0)
    return float(np.clip(years, *AGES)), float(np.clip(male, -MOST_MASCULINE, MOST_MASCULINE))


@torch.no_grad()
def factor_direction(generator: ConditionalGenerator, index: int) -> np.ndarray:
    """Mean change (D,) of a row of w per unit of the factor `index` of z."""
    draw = torch.Generator().manual_seed(_DIRECTION_SEED)
    z = torch.randn(_DIRECTION_SAMPLES, generator.style_dim, generator=draw).to(generator.input.input)
    step = torch.zeros_like(z)
    step[:, index] = 0.5
    return (generator.style(z + step) - generator.style(z - step)).mean(0).numpy(force=True)


def quantised_noise(noise: Tensor) -> Tensor:
    """Latents "noise" after quantisation, as files restore them."""
    return _quantised(noise, "noise")


def quantised_residual(displacement: Tensor) -> Tensor:
    """Latents "residual_displacement" after quantisation, as files restore them."""
    return _quantised(displacement, "residual_displacement")


def _quantised(values: Tensor, what: str) -> Tensor:
    return torch.from_numpy(dequantise(*quantise(values.numpy(force=True), what)))


def check_latents(module: DetailModule, latents: dict[str, np.ndarray]) -> None:
    """Raise ParameterError for latents without the keys and shapes that a module needs."""
    generators = {"w": module.detail, "expression_w": module.expression}
    fit = {"w", "noise_seed", "strength"} <= set(latents) and all(
        np.shape(latents[name]) == (generator.latent_count, generator.style_dim)
        for name, generator in generators.items()
        if generator is not None and name in latents
    )
    if not fit:
        raise ParameterError("detail.other_module", module=module.name)


# -- maps -------------------------------------------------------------------------------------------------------------
def noise_maps(generator: ConditionalGenerator, latents: dict[str, np.ndarray]) -> list[Tensor]:
    """Noise maps of the detail generator, (1, 1, s, s) each.

    Raises:
        ParameterError: stored noise of another generator.
    """
    noise = generator.make_noise(int(latents["noise_seed"]))
    stored = latents.get("noise")
    if stored is None:
        return noise
    lengths = [values.numel() for values in noise]
    if len(stored) != sum(lengths):
        raise ParameterError("detail.noise_count", found=len(stored), expected=sum(lengths))
    parts = torch.from_numpy(np.array(stored, np.float32)).split(lengths)
    return [values + part.view_as(values) for values, part in zip(noise, parts)]


def neutral_maps(module: DetailModule, model: FaceModel, params: FaceParams) -> DetailMaps:
    """Detail of the neutral face at strength 1; cached, because successive edits need the same maps."""
    check_latents(check_open(module, model), params.detail)
    digest = hashlib.blake2b()
    values = [params.detail[key] for key in _NEUTRAL_LATENTS if key in params.detail]
    for array in (*values, params.identity, params.albedo):
        digest.update(np.ascontiguousarray(array, dtype=np.float32).tobytes())
    key = (id(model), digest.digest())
    cached = _maps.setdefault(module, {})
    if key not in cached:
        while len(cached) >= _CACHE_SIZE:
            cached.pop(next(iter(cached)))
        cached[key] = _neutral_maps(module, model, params)
    cached[key] = cached.pop(key)  # least recently used first
    return cached[key]


@torch.no_grad()
def _neutral_maps(module: DetailModule, model: FaceModel, params: FaceParams) -> DetailMaps:
    (generator, code), latents = open_parts(module), params.detail
    condition = torch.from_numpy(condition_maps(model, params, generator.condition_size))[None]
    w = torch.from_numpy(np.array(latents["w"], np.float32))[None]
    picture = generator.synthesis(w, condition, noise_maps(generator, latents))
    albedo_log, displacement = read_picture(code, picture)
    mask = torch.from_numpy(displacement_weight(model, generator.size))
    if "residual_displacement" in latents:
        displacement = displacement + _square(latents["residual_displacement"], generator.size)
    displacement = displacement * float(latents.get("depth", 1.0))
    return DetailMaps((displacement[0] * mask).numpy(), (albedo_log[0] * mask).movedim(0, 2).contiguous().numpy())


def wrinkles(module: DetailModule, model: FaceModel, params: FaceParams, displacement: np.ndarray) -> np.ndarray:
    """Displacement (S, S) mm that the expression adds to the neutral face's; zero where the skin is not strained.

    Wrinkles that a photograph shows come and go with the compression of the skin, relative to that in the photograph.
    """
    latents = params.detail
    if module.expression is None or "expression_w" not in latents or not params.expression.any():
        return np.zeros_like(displacement)
    added = float(latents.get("wrinkle_depth", 1.0)) * generated_wrinkles(module, model, params, displacement)
    if "expression_residual" in latents:
        size = len(displacement)
        shown = wrinkle_compression(model, params.replace(expression=latents["fitted_expression"]), size)
        share = compression_ratio(wrinkle_compression(model, params, size), shown)
        added = added + share * _square(latents["expression_residual"], size).numpy()
    return added


def compression_ratio(present: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Factor on the wrinkles of a photograph, from the compression of the skin now and in the photograph."""
    return np.minimum(present / np.maximum(shown, _LEAST_COMPRESSION), MOST_COMPRESSION_RATIO)


@torch.no_grad()
def generated_wrinkles(
    module: DetailModule, model: FaceModel, params: FaceParams, displacement: np.ndarray
) -> np.ndarray:
    """Displacement (S, S) mm that the expression generator adds to the neutral face's."""
    generator = module.expression
    assert generator is not None
    condition, gate = wrinkle_condition(module, model, params, displacement)
    w = torch.from_numpy(np.array(params.detail["expression_w"], np.float32))[None]
    noise = generator.make_noise(int(params.detail["expression_seed"]))
    added = read_bands(open_parts(module)[1], generator.synthesis(w, condition, noise)) * gate
    return resized(added[0], len(displacement)).numpy()


def wrinkle_compression(model: FaceModel, params: FaceParams, size: int) -> np.ndarray:
    """(size, size) how much the expression compresses the skin, see `displacement.compression`."""
    return resized(torch.from_numpy(compression(expression_strain(model, params, _STRAIN_SIZE))[0]), size).numpy()


def wrinkle_condition(
    module: DetailModule, model: FaceModel, params: FaceParams, displacement: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Condition maps of the expression generator (1, 6, T, T), and the weight of its output (T, T) in 0..1."""
    code = open_parts(module)[1]
    assert module.expression is not None
    size = module.expression.size
    strain = expression_strain(model, params, size)
    scales = np.array(code.band_scales_mm, np.float32)[:, None, None]
    bands = split_bands(resized(torch.from_numpy(np.array(displacement)), size).numpy()) / scales
    condition = np.concatenate([bands, strain / np.float32(code.strain_scale)]).astype(np.float32)
    return torch.from_numpy(condition)[None], torch.from_numpy(wrinkle_gate(strain) * displacement_weight(model, size))


def resized(maps: Tensor, size: int) -> Tensor:
    """Resize maps (..., S, S): area averages to smaller ones, bicubic to larger ones."""
    if maps.shape[-1] == size:
        return maps
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    how: dict[str, Any] = {"mode": "area"} if size < maps.shape[-1] else {"mode": "bicubic", "align_corners": False}
    return torch.nn.functional.interpolate(flat, (size, size), **how).reshape(*maps.shape[:-2], size, size)


def maps_of(module: DetailModule, model: FaceModel, params: FaceParams) -> DetailMaps:
    """Detail of the face with its expression, scaled by the latent "strength"."""
    strength = np.float32(params.detail["strength"])
    if not strength:
        check_latents(check_open(module, model), params.detail)
        size = open_parts(module)[0].size
        return DetailMaps(np.zeros((size, size), np.float32), np.zeros((size, size, 3), np.float32))
    neutral = neutral_maps(module, model, params)
    displacement = neutral.displacement + wrinkles(module, model, params, neutral.displacement)
    return DetailMaps(strength * displacement, strength * neutral.albedo_log)


# -- heads ------------------------------------------------------------------------------------------------------------
def _square(displacement: np.ndarray, size: int) -> Tensor:
    """Reshape a stored displacement to a map (size, size); raises ParameterError if it has another size."""
    if np.size(displacement) != size * size:
        raise ParameterError("detail.texel_count", found=np.size(displacement), size=size)
    return torch.from_numpy(np.array(displacement, np.float32).reshape(size, size))


def with_detail(result: FitResult, shown: np.ndarray | None = None) -> FitResult:
    """Update displacement, normal map and texture of a head from its latents.

    Args:
        result: with latents in `params.detail`, and their module.
        shown: (S, S, 3) log albedo change that its texture already includes; None: none.
    """
    maps = maps_of(check_open(result.detail_module, result.model), result.model, result.params)
    return result.replace(
        displacement=maps.displacement,
        normal_map=normal_map(result.model, result.vertices, maps.displacement),
        texture=multiplied(result.texture, maps.albedo_log if shown is None else maps.albedo_log - shown),
    )


def shown_albedo(result: FitResult) -> np.ndarray | None:
    """(S, S, 3) log albedo change that the texture of a head includes; None without detail."""
    if not result.params.detail or not result.params.detail.get("strength", 1.0):
        return None
    maps = neutral_maps(check_open(result.detail_module, result.model), result.model, result.params)
    return np.float32(result.params.detail["strength"]) * maps.albedo_log


def multiplied(texture: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Multiply a texture (H, W, 3) uint8 by exp(change (S, S, 3)) in linear RGB."""
    return showing(_linear(texture), change) if change.any() else texture


def bare_texture(result: FitResult) -> Tensor:
    """Texture (H, W, 3) of a head in linear RGB, with its detail's albedo change removed; may exceed 1."""
    shown = shown_albedo(result)
    linear = _linear(result.texture)
    return linear if shown is None else linear * _factor(-shown, linear)


def showing(linear: Tensor, change: np.ndarray | None) -> np.ndarray:
    """Multiply a linear texture (H, W, 3) by exp(change (S, S, 3)), or not if None, and encode it as uint8 sRGB."""
    if change is not None:
        linear = linear * _factor(change, linear)
    return (srgb_from_linear(linear) * 255 + 0.5).to(torch.uint8).numpy()


def _linear(texture: np.ndarray) -> Tensor:
    return linear_from_srgb(torch.from_numpy(np.array(texture)).float() / 255)


def _factor(change: np.ndarray, texture: Tensor) -> Tensor:
    """exp(change) resized to a texture."""
    return resized(torch.from_numpy(np.ascontiguousarray(np.moveaxis(change, 2, 0))), len(texture)).exp().movedim(0, 2)


def _style(generator: ConditionalGenerator, z: np.ndarray) -> np.ndarray:
    """Rows of w (L, D) for a random vector z (D,)."""
    with torch.no_grad():
        return generator.mapping(torch.from_numpy(np.array(z, np.float32))[None])[0].numpy()
