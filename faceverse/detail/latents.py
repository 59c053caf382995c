"""Skin detail of a head by an open detail module: latents in, displacement and change of albedo out.

`FaceParams.detail` holds the latents, all of them float32 arrays:

    "w"                (L, D)   of the detail generator, one row per layer
    "noise_seed"       ()       whole number; draws the generator's noise maps
    "noise"            (P,)     what a photograph added to these maps, one after the other; absent where there was none
    "depth"            ()       factor on the displacement of all of it, as the photograph asks for; 1 without
    "relief"           (S * S,) millimetres that a photograph showed beyond what the generator made of it, row by row;
                                absent where there was none
    "expression_w"     (M, D)   of the expression generator
    "expression_seed"  ()       draws its noise maps
    "fold_depth"       ()       factor on what it makes, as the photograph asks for; 1 without
    "strength"         ()       factor on everything, 1 as made

Maps are square, in the UV of the model; displacements are millimetres along the base surface's normal (see displacement.py).
"""

from __future__ import annotations

import hashlib
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import ParameterError
from ..graphics.lighting import linear_from_srgb, srgb_from_linear
from ..messages import Message
from ..model.face_model import FaceModel, FaceParams
from ..result import FitResult
from .displacement import condition_maps, displacement_weight, expression_strain, normal_map, split_bands, wrinkle_gate
from .module import DetailModule, DisplacementCode, of_steps, whole_steps

AGES, MOST_MASCULINE = (18.0, 80.0), 1.5  # of the people that detail is made for
FULL_DEPTH_YEARS = 40.0  # an edit by so many makes shallow skin as deep as anybody's of that age
_DIRECTION_SAMPLES, _DIRECTION_SEED = 512, 0
_LARGEST_SEED = 2**24  # whole numbers that float32 can hold
_REMEMBERED = 4

_maps: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_layouts: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class DetailMaps:
    """What detail adds to a head.

    Args:
        displacement: (S, S) float32 mm.
        albedo_log: (S, S, 3) float32, natural logarithm of detailed over plain albedo, linear light.
        seen: (S, S) bool, where a real scan had data; None: everywhere.
    """

    displacement: np.ndarray
    albedo_log: np.ndarray
    seen: np.ndarray | None = None


# -- pictures of the generators ---------------------------------------------------------------------------------------
def picture_of_maps(code: DisplacementCode, maps: DetailMaps) -> np.ndarray:
    """(6, S, S) float32: what the detail generator should make, three channels of albedo and three of displacement."""
    scales = np.float32(code.band_scales_mm)[:, None, None]
    bands = split_bands(maps.displacement) / scales
    albedo = np.moveaxis(maps.albedo_log, 2, 0) / np.float32(code.albedo_scale)
    return np.concatenate([albedo, bands]).astype(np.float32)


def read_picture(code: DisplacementCode, picture: Tensor) -> tuple[Tensor, Tensor]:
    """Change of albedo (N, 3, S, S), logarithms, and displacement (N, S, S) mm of pictures (N, 6, S, S)."""
    return picture[:, :3] * code.albedo_scale, read_bands(code, picture[:, 3:])


def read_bands(code: DisplacementCode, bands: Tensor) -> Tensor:
    """Displacement (N, S, S) mm of three bands (N, 3, S, S)."""
    return torch.einsum("ncij,c->nij", bands, bands.new_tensor(code.band_scales_mm))


# -- latents ----------------------------------------------------------------------------------------------------------
def check_open(module: DetailModule | None, model: FaceModel) -> DetailModule:
    """The module.

    Raises:
        ParameterError: it has no detail generator, has the conventions of the official files, or belongs to a model
            with another texture layout.
    """
    if module is None or module.code is None or module.detail is None:
        name = Message("word.none") if module is None else f"'{module.name}'"
        raise ParameterError("detail.not_for_heads", name=name)
    if module.code.layout not in ("", layout_digest(model)):
        raise ParameterError("detail.other_layout", module=module.name, model=model.name)
    return module


def layout_digest(model: FaceModel) -> str:
    """What tells one texture layout from another."""
    known = _layouts.get(model)
    if known is None:
        digest = hashlib.blake2b(digest_size=8)
        for array in (model.uv.astype(np.float32), model.uv_faces.astype(np.int64)):
            digest.update(np.ascontiguousarray(array).tobytes())
        known = _layouts[model] = digest.hexdigest()
    return known


def check_seed(seed: int) -> None:
    """Raises:
    ParameterError: not a whole number that latents can hold exactly.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < _LARGEST_SEED:
        raise ParameterError("detail.seed", largest=_LARGEST_SEED - 1, seed=repr(seed))


def random_detail(module: DetailModule, model: FaceModel, params: FaceParams, seed: int) -> dict[str, np.ndarray]:
    """Latents of somebody's skin: random, but of the age and sex that the head looks like.

    Args:
        seed: 0 to 2^24 - 1; another seed, another skin.
    Returns:
        For `FaceParams.detail`.
    Raises:
        ParameterError: not such a seed, or the module is not an open one.
    """
    check_open(module, model)
    check_seed(seed)
    draw = np.random.default_rng(int(seed))
    z = draw.standard_normal(module.detail.style_dim).astype(np.float32)
    for name, value in known_factors(module.code, model, params).items():
        z[module.code.factors.index(name)] = value
    latents = {"w": _mapped(module.detail, z), "noise_seed": np.float32(seed), "strength": np.float32(1)}
    return latents | expression_latents(module, z, seed)


def expression_latents(module: DetailModule, z: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Those of the expression generator for a random vector (D,); none where the module has no such generator."""
    if module.expression is None:
        return {}
    return {"expression_w": _mapped(module.expression, z), "expression_seed": np.float32(seed)}


def known_factors(code: DisplacementCode, model: FaceModel, params: FaceParams) -> dict[str, float]:
    """Factors of z that can be told from the base model's head: "age" and "masculinity", where both know them."""
    years, male = age_and_masculinity(model, params)
    told = {"age": (years - code.age[0]) / code.age[1], "masculinity": male}
    names = {"age": "age", "masculinity": "gender"}
    return {key: value for key, value in told.items() if key in code.factors and names[key] in model.attribute_names}


def age_and_masculinity(model: FaceModel, params: FaceParams) -> tuple[float, float]:
    """Years within `AGES`, and -1.5 (female) to 1.5 (male), as the model estimates them; 45 and 0 where it cannot."""
    known = model.attributes(params)
    years, male = known.get("age", DisplacementCode.age[0]), known.get("gender", 0.0)
    return float(np.clip(years, *AGES)), float(np.clip(male, -MOST_MASCULINE, MOST_MASCULINE))


@torch.no_grad()
def factor_direction(generator, index: int) -> np.ndarray:
    """Mean change (D,) of a latent row where factor `index` of z grows by one."""
    draw = torch.Generator().manual_seed(_DIRECTION_SEED)
    z = torch.randn(_DIRECTION_SAMPLES, generator.style_dim, generator=draw).to(generator.input.input)
    step = torch.zeros_like(z)
    step[:, index] = 0.5
    return (generator.style(z + step) - generator.style(z - step)).mean(0).numpy(force=True)


def aged(module: DetailModule, latents: dict[str, np.ndarray], years: float) -> dict[str, np.ndarray]:
    """Latents of the same skin some years later, or earlier where negative."""
    if not latents or "age" not in module.code.factors or not years:
        return latents
    index, steps = module.code.factors.index("age"), np.float32(years / module.code.age[1])
    moved = {"w": latents["w"] + steps * factor_direction(module.detail, index)}
    if "depth" in latents and years > 0:
        # A photograph of smooth skin says nothing of what it will be like in forty years.
        share = np.float32(min(years / FULL_DEPTH_YEARS, 1.0))
        moved["depth"] = latents["depth"] + share * (1 - latents["depth"])
    if "expression_w" in latents and module.expression is not None:
        moved["expression_w"] = latents["expression_w"] + steps * factor_direction(module.expression, index)
    return latents | moved


def mixed(mine: dict[str, np.ndarray], other: dict[str, np.ndarray], layers: slice) -> dict[str, np.ndarray]:
    """Latents with some rows of somebody else's detail generator: the first ones hold creases, the last ones pores.
    Depth and two bands of the displacement go with the first rows, the finest band with the last. Noise and the expression's
    latents stay.
    """
    w = mine["w"].copy()
    w[layers] = other["w"][layers]
    mine = mine | {"depth": other.get("depth", np.float32(1))} if layers.start in (None, 0) else mine
    bands = slice(0, 2) if layers.start in (None, 0) else slice(2, 3)
    if "relief" not in mine and "relief" not in other:
        return mine | {"w": w}
    ours, theirs = (_displacement_bands(latents) for latents in (mine, other))
    ours = np.zeros_like(theirs) if ours is None else ours
    ours[bands] = 0 if theirs is None else theirs[bands]
    return mine | {"w": w, "relief": ours.sum(0).ravel()}


def blended(
    module: DetailModule, mine: dict[str, np.ndarray], other: dict[str, np.ndarray], share: float
) -> dict[str, np.ndarray]:
    """Latents between two, with a share in 0..1 of the other's; the ends are exact.

    What is random from texel to texel (noise, the finest band of the displacement) is mixed by the roots of the shares, so
    that skin between two skins is as rough as they are; all else by the shares. No latents count as strength 0. The
    wrinkles' noise is that of the larger share.

    Raises:
        ParameterError: latents of another module.
    """
    for latents in (mine, other):
        if latents:
            check_latents(module, latents)
    if share in (0, 1):
        return dict(other if share else mine)
    if not mine or not other:
        latents, part = (mine, 1 - share) if mine else (other, share)
        return latents | {"strength": np.float32(part * latents["strength"])}
    mixture = dict(mine) | {key: value for key, value in other.items() if key not in mine or share > 0.5}
    mixture["noise_seed"] = mine["noise_seed"]
    for key in ("w", "expression_w"):
        if key in mine and key in other:
            mixture[key] = np.float32((1 - share) * mine[key] + share * other[key])
    for key in ("depth", "fold_depth", "strength"):
        if key in mixture:
            mixture[key] = np.float32((1 - share) * mine.get(key, 1.0) + share * other.get(key, 1.0))
    mixture["noise"] = _blended_noise(module.detail, mine, other, share)
    if "relief" in mixture:
        parts = [(_displacement_bands(latents), part) for latents, part in ((mine, 1 - share), (other, share))]
        weights = ((bands, np.float32([part, part, math.sqrt(part)])) for bands, part in parts if bands is not None)
        displacement = sum(np.einsum("bij,b->ij", bands, weight) for bands, weight in weights)
        mixture["relief"] = as_stored_residual(torch.from_numpy(displacement.ravel())).numpy()
    return mixture


def _blended_noise(generator, mine: dict[str, np.ndarray], other: dict[str, np.ndarray], share: float) -> np.ndarray:
    """What has to be added to the first one's drawn noise (P,) to have a mixture of both."""
    drawn = torch.cat([values.flatten() for values in generator.make_noise(int(mine["noise_seed"]))])
    one, two = (torch.cat([v.flatten() for v in noise_maps(generator, latents)]) for latents in (mine, other))
    return as_stored_noise(math.sqrt(1 - share) * one + math.sqrt(share) * two - drawn).numpy()


def _displacement_bands(latents: dict[str, np.ndarray]) -> np.ndarray | None:
    if "relief" not in latents:
        return None
    side = math.isqrt(np.size(latents["relief"]))
    return split_bands(np.array(latents["relief"], np.float32).reshape(side, side))


def as_stored_noise(noise: Tensor) -> Tensor:
    """Latents "noise" as files give them back."""
    return _as_stored(noise, "noise")


def as_stored_residual(displacement: Tensor) -> Tensor:
    """Latents "relief" as files give them back."""
    return _as_stored(displacement, "relief")


def _as_stored(values: Tensor, what: str) -> Tensor:
    return torch.from_numpy(of_steps(*whole_steps(values.numpy(force=True), what)))


def check_latents(module: DetailModule, latents: dict[str, np.ndarray]) -> None:
    """Raises:
    ParameterError: latents of generators of other sizes, or of another kind.
    """
    generators = {"w": module.detail, "expression_w": module.expression}
    fit = {"w", "noise_seed", "strength"} <= set(latents) and all(
        np.shape(latents[name]) == (generator.latent_count, generator.style_dim)
        for name, generator in generators.items()
        if generator is not None and name in latents
    )
    if not fit:
        raise ParameterError("detail.other_module", module=module.name)


# -- maps -------------------------------------------------------------------------------------------------------------
def noise_maps(generator, latents: dict[str, np.ndarray]) -> list[Tensor]:
    """The detail generator's noise maps, (1, 1, s, s) each.

    Raises:
        ParameterError: a stored noise that belongs to another generator.
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
    """Detail of the face at rest, of full strength; the last few are remembered, because edits ask for them again."""
    check_latents(check_open(module, model), params.detail)
    digest = hashlib.blake2b()
    values = (
        *(params.detail[key] for key in ("w", "noise_seed", "noise", "relief", "depth") if key in params.detail),
        params.identity,
    )
    for array in (*values, params.albedo):
        digest.update(np.ascontiguousarray(array, dtype=np.float32).tobytes())
    key = (id(model), digest.digest())
    remembered = _maps.setdefault(module, {})
    if key not in remembered:
        while len(remembered) >= _REMEMBERED:
            remembered.pop(next(iter(remembered)))
        remembered[key] = _neutral_maps(module, model, params)
    remembered[key] = remembered.pop(key)  # the last one used is the last to go
    return remembered[key]


@torch.no_grad()
def _neutral_maps(module: DetailModule, model: FaceModel, params: FaceParams) -> DetailMaps:
    generator, latents = module.detail, params.detail
    condition = torch.from_numpy(condition_maps(model, params, generator.condition_size))[None]
    w = torch.from_numpy(np.array(latents["w"], np.float32))[None]
    picture = generator.synthesis(w, condition, noise_maps(generator, latents))
    albedo_log, displacement = read_picture(module.code, picture)
    mask = torch.from_numpy(displacement_weight(model, generator.size))
    if "relief" in latents:
        displacement = displacement + _square(latents["relief"], generator.size)
    displacement = displacement * float(latents.get("depth", 1.0))
    return DetailMaps((displacement[0] * mask).numpy(), (albedo_log[0] * mask).movedim(0, 2).contiguous().numpy())


@torch.no_grad()
def wrinkles(module: DetailModule, model: FaceModel, params: FaceParams, displacement: np.ndarray) -> np.ndarray:
    """What the expression adds to a displacement (S, S) mm of the face at rest; zero where the skin is not strained."""
    generator = module.expression
    if generator is None or "expression_w" not in params.detail or not params.expression.any():
        return np.zeros_like(displacement)
    condition, gate = wrinkle_condition(module, model, params, displacement)
    w = torch.from_numpy(np.array(params.detail["expression_w"], np.float32))[None]
    noise = generator.make_noise(int(params.detail["expression_seed"]))
    added = read_bands(module.code, generator.synthesis(w, condition, noise)) * gate
    return float(params.detail.get("fold_depth", 1.0)) * resized(added[0], len(displacement)).numpy()


def wrinkle_condition(
    module: DetailModule, model: FaceModel, params: FaceParams, displacement: np.ndarray
) -> tuple[Tensor, Tensor]:
    """What the expression generator is told, (1, 6, T, T), and where its answer counts, (T, T) in 0..1."""
    size = module.expression.size
    strain = expression_strain(model, params, size)
    scales = np.float32(module.code.band_scales_mm)[:, None, None]
    bands = split_bands(resized(torch.from_numpy(np.array(displacement)), size).numpy()) / scales
    condition = np.concatenate([bands, strain / np.float32(module.code.strain_scale)]).astype(np.float32)
    return torch.from_numpy(condition)[None], torch.from_numpy(wrinkle_gate(strain) * displacement_weight(model, size))


def resized(maps: Tensor, size: int) -> Tensor:
    """Maps (..., S, S) in another resolution: areas averaged to smaller ones, bicubic to larger ones."""
    if maps.shape[-1] == size:
        return maps
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    how = {"mode": "area"} if size < maps.shape[-1] else {"mode": "bicubic", "align_corners": False}
    return torch.nn.functional.interpolate(flat, (size, size), **how).reshape(*maps.shape[:-2], size, size)


def maps_of(module: DetailModule, model: FaceModel, params: FaceParams) -> DetailMaps:
    """Detail of the face with its expression, times `strength`."""
    strength = np.float32(params.detail["strength"])
    if not strength:
        check_latents(check_open(module, model), params.detail)
        size = module.detail.size
        return DetailMaps(np.zeros((size, size), np.float32), np.zeros((size, size, 3), np.float32))
    rest = neutral_maps(module, model, params)
    whole = rest.displacement + wrinkles(module, model, params, rest.displacement)
    return DetailMaps(strength * whole, strength * rest.albedo_log)


# -- heads ------------------------------------------------------------------------------------------------------------
def _square(displacement: np.ndarray, size: int) -> Tensor:
    """The stored displacement as a map (size, size).

    Raises:
        ParameterError: it has another size.
    """
    if np.size(displacement) != size * size:
        raise ParameterError("detail.texel_count", found=np.size(displacement), size=size)
    return torch.from_numpy(np.array(displacement, np.float32).reshape(size, size))


def with_detail(result: FitResult, shown: np.ndarray | None = None) -> FitResult:
    """The head with the maps that its latents describe: displacement, normal map, and a texture that follows.

    Args:
        result: with latents in `params.detail`, and their module.
        shown: (S, S, 3) change of albedo, logarithms, that its texture shows already; None: none.
    """
    maps = maps_of(check_open(result.detail_module, result.model), result.model, result.params)
    return result.replace(
        displacement=maps.displacement,
        normal_map=normal_map(result.model, result.vertices, maps.displacement),
        texture=multiplied(result.texture, maps.albedo_log if shown is None else maps.albedo_log - shown),
    )


def shown_albedo(result: FitResult) -> np.ndarray | None:
    """(S, S, 3) the change of albedo that the latents of a head stand for; None for a head whose texture shows none."""
    if not result.params.detail or not result.params.detail.get("strength", 1.0):
        return None
    maps = neutral_maps(check_open(result.detail_module, result.model), result.model, result.params)
    return np.float32(result.params.detail["strength"]) * maps.albedo_log


def multiplied(texture: np.ndarray, change: np.ndarray) -> np.ndarray:
    """A texture (H, W, 3) uint8 times exp(change (S, S, 3)) in linear light."""
    return showing(_linear(texture), change) if change.any() else texture


def bare_texture(result: FitResult) -> Tensor:
    """The texture (H, W, 3) of a head in linear light, without the colours of its detail; it may exceed 1."""
    shown = shown_albedo(result)
    linear = _linear(result.texture)
    return linear if shown is None else linear * _factor(-shown, linear)


def showing(linear: Tensor, change: np.ndarray | None) -> np.ndarray:
    """(H, W, 3) uint8 of a texture (H, W, 3) in linear light times exp(change (S, S, 3)); None: as it is."""
    if change is not None:
        linear = linear * _factor(change, linear)
    return (srgb_from_linear(linear) * 255 + 0.5).to(torch.uint8).numpy()


def _linear(texture: np.ndarray) -> Tensor:
    return linear_from_srgb(torch.from_numpy(np.array(texture)).float() / 255)


def _factor(change: np.ndarray, texture: Tensor) -> Tensor:
    """exp(change) in the size of a texture."""
    return resized(torch.from_numpy(np.ascontiguousarray(np.moveaxis(change, 2, 0))), len(texture)).exp().movedim(0, 2)


def _mapped(generator, z: Sequence[float]) -> np.ndarray:
    with torch.no_grad():
        return generator.mapping(torch.from_numpy(np.array(z, np.float32))[None])[0].numpy()
