"""Random variations of a head, and interpolation between two heads."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch

from .detail.blending import blended
from .detail.displacement import normal_map
from .detail.latents import bare_texture, check_open, check_seed, maps_of, showing
from .detail.module import DetailModule
from .edit import edit
from .edit_hair import blended_hair
from .edit_values import attribute_limits, number, region_attributes, solve_amounts
from .errors import ParameterError
from .model.arrays import BASES
from .model.face_model import FaceModel
from .model.hair import with_random_hair
from .model.presets import ATTRIBUTE_REGIONS
from .result import FitResult, with_params

SKIN, HAIR = "skin", "hair"
"""In `keep`: the head keeps its detail, or its hair."""
MAX_STRENGTH = 2.0
_PERSON_SHARE = 0.6  # share of the way to the sampled age, sex, weight and ancestry
_MOST_DEVIATIONS = 2.0  # of an attribute that is drawn: one person in twenty is further from the mean
_SHARES = ("african", "asian", "caucasian")
_NOISE = 1e-3  # of an attribute's variance: keeps the covariance invertible where some attributes determine others

_spreads: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


# -- random heads -----------------------------------------------------------------------------------------------------
def random_attributes(
    result: FitResult,
    seed: int,
    *,
    region: str | Iterable[str] | None = None,
    keep: Iterable[str] = (),
    strength: float = 1.0,
) -> dict[str, float]:
    """Sample attribute changes for `edit` from the model's population.

    The changing attributes are sampled conditionally on the kept ones: a random nose suits the rest of the face. Age,
    sex, weight and ancestry move 0.6 of the way to those of the sampled person, and ancestries remain shares.

    Args:
        seed: 0 to 2^24 - 1; another seed, another face.
        region: name or names of `ATTRIBUTE_REGIONS`, everything else is kept; None: the whole face.
        keep: attributes or regions that keep their value. "skin" and "hair" are accepted and have no effect here.
        strength: 0..2: 1 is a face from the population, at most 2 standard deviations from its mean in any attribute;
            less is closer to this face, 2 doubles the deviation from the mean.
    Returns:
        Changes by name for the attributes that change, within `attribute_limits`.
    Raises:
        ParameterError: an unknown region or attribute, or a number out of range.
    """
    check_seed(seed)
    strength = number("strength", strength)
    if not 0 <= strength <= MAX_STRENGTH:
        raise ParameterError("mix.strength", most=MAX_STRENGTH, strength=strength)
    model = result.model
    free = _free_attributes(model, region, keep)
    if not free or not strength:
        return {}
    attributes = model.data.attributes
    names = [attribute.name for attribute in attributes]
    present = np.array(list(model.attributes(result.params).values()))
    is_free = np.isin(names, free)
    drawn = _drawn(model, present, is_free, np.random.default_rng(int(seed)), max(strength, 1.0))
    person = np.isin(names, ATTRIBUTE_REGIONS["person"])
    wanted = np.where(is_free, min(strength, 1.0) * np.where(person, _PERSON_SHARE, 1.0) * (drawn - present), 0.0)
    ends = [(min(a.minimum, v), max(a.maximum, v)) for a, v in zip(attributes, present)]
    wanted = np.clip(present + wanted, *np.transpose(ends)) - present
    wanted = _as_shares(names, present, wanted, is_free)
    limits = attribute_limits(result)
    moved = [attribute for attribute, moves in zip(attributes, is_free) if moves]
    amounts = zip(moved, solve_amounts(attributes, moved, wanted))
    return {attribute.name: float(np.clip(amount, *limits[attribute.name])) for attribute, amount in amounts}


def randomize(
    result: FitResult,
    seed: int,
    *,
    region: str | Iterable[str] | None = None,
    keep: Iterable[str] = (),
    strength: float = 1.0,
) -> FitResult:
    """Make a random variation of a head; arguments and errors as in `random_attributes`.

    A whole face also gets sampled skin detail (`edit(detail_seed=seed)`), if it has detail with its module and "skin"
    is not in `keep`, and hair that is usual for the age and sex that it gets, unless "hair" is in `keep`. Expression,
    pose and light stay the same.
    """
    keep = _names("keep", keep)
    amounts: dict[str, Any] = random_attributes(result, seed, region=region, keep=keep, strength=strength)
    is_whole = region is None and bool(strength)
    with_detail = is_whole and SKIN not in keep
    skin = seed if with_detail and result.params.detail and result.detail_module is not None else None
    person = edit(result, detail_seed=skin, **amounts)
    if is_whole and person.params.warp.any():  # another person's face is deformed in another way
        share = np.float32(1 - min(strength, 1.0))
        person = with_params(person, person.params.replace(warp=share * person.params.warp))
    if not is_whole or HAIR in keep:
        return person
    return person.replace(params=with_random_hair(person.model, person.params, int(seed)))


def _names(what: str, given: str | Iterable[str]) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(name, str) for name in names):
        raise ParameterError("mix.names", what=what, found=repr(given))
    return names


def _free_attributes(model: FaceModel, region, keep) -> list[str]:
    """Names of the attributes that may change, in the model's order."""
    locked = set()
    for name in _names("keep", keep):
        if name in model.attribute_names:
            locked.add(name)
        elif name not in (SKIN, HAIR):
            locked.update(region_attributes(model, name))
    chosen = set(model.attribute_names)
    if region is not None:
        chosen = {name for part in _names("region", region) for name in region_attributes(model, part)}
    return [name for name in model.attribute_names if name in chosen - locked]


def _spread(model: FaceModel) -> tuple[np.ndarray, np.ndarray]:
    """Mean (A,) and covariance (A, A) of the attributes' estimates over the population; cached per model."""
    if model not in _spreads:
        estimators = np.stack([a.estimator for a in model.data.attributes]).astype(np.float64)
        weights, constants = estimators[:, :-1], estimators[:, -1]
        population = model.data.population
        if population is None or len(population) < 2:
            _spreads[model] = constants, weights @ weights.T
        else:
            values = population @ weights.T + constants
            _spreads[model] = values.mean(0), np.atleast_2d(np.cov(values.T))
    return _spreads[model]


def _drawn(
    model: FaceModel, present: np.ndarray, is_free: np.ndarray, draw: np.random.Generator, scale: float
) -> np.ndarray:
    """Sample attribute values (A,) of a person, conditioned on the present values of those that are not free."""
    mean, covariance = _spread(model)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    correlation = covariance / np.outer(deviation, deviation) + _NOISE * np.eye(len(mean))
    person = np.linalg.cholesky(correlation) @ draw.standard_normal(len(mean)) * scale
    kept = ~is_free
    if kept.any():
        # Matheron's rule: an unconditional sample plus a correction for the kept values is a conditional sample.
        missing = (present - mean)[kept] / deviation[kept] - person[kept]
        person += correlation[:, kept] @ np.linalg.solve(correlation[np.ix_(kept, kept)], missing)
    within = _MOST_DEVIATIONS * scale
    return mean + np.where(is_free, np.clip(person, -within, within), person) * deviation


def _as_shares(names: list[str], present: np.ndarray, wanted: np.ndarray, is_free: np.ndarray) -> np.ndarray:
    """Adjust the changes of ancestries so that the sum of their shares stays the same."""
    rows = [names.index(name) for name in _SHARES if name in names]
    movable = [row for row in rows if is_free[row]]
    if len(rows) < len(_SHARES) or not movable:
        return wanted
    wanted = wanted.copy()
    value = np.clip((present + wanted)[movable], 0, 1)
    # A negative estimate of a kept share makes the others add up to more than one.
    total = max(1 - sum(float(present[row]) for row in rows if row not in movable), 0.0)
    value = value * total / value.sum() if value.sum() > 0 else np.full(len(movable), total / len(movable))
    wanted[movable] = value - present[movable]
    return wanted


# -- between two people -----------------------------------------------------------------------------------------------
def blend(
    first: FitResult,
    second: FitResult,
    *,
    identity: float = 0.5,
    expression: float = 0.5,
    albedo: float = 0.5,
    detail: float = 0.5,
) -> FitResult:
    """Interpolate between two heads of one model.

    Args:
        first, second: heads; pose, camera, light, source and the record of the fit are those of the first.
        identity, expression, albedo, detail: 0..1 each, weight of the second head: 0 is the first head, 1 the second.
            Texture and irises follow `albedo`; texels are blended in linear light without the detail's albedo, and the
            blended detail is applied afterwards. A head without detail counts as smooth. The styles of the parts, hair
            included, and the beard are those of the head that is nearer in `identity`; length and volume of the hair
            follow `identity` where both heads have the same style, and its colour follows `albedo`.
    Raises:
        ParameterError: not a head, heads of different models, a number outside 0..1, or detail that cannot be blended:
            of different detail modules, without its module, or a displacement without latents.
    """
    shares = {"identity": identity, "expression": expression, "albedo": albedo, "detail": detail}
    for name, share in shares.items():
        if not 0 <= number(name, share) <= 1:
            raise ParameterError("mix.share", name=name, share=share)
    _check_one_model(first, second)
    one, two = first.params, second.params

    def between(name: str, share: float) -> np.ndarray:
        return _between(getattr(one, name), getattr(two, name), share)

    count = max(len(one.warp), len(two.warp))
    warps = [head.warp if len(head.warp) else np.zeros((count, 3), np.float32) for head in (one, two)]
    params = one.replace(
        identity=between("identity", identity),
        expression=between("expression", expression),
        albedo=between("albedo", albedo),
        warp=_between(warps[0], warps[1], identity),
        iris=between("iris", albedo),
        styles=(two if identity > 0.5 else one).styles,
        hair=blended_hair(one, two, identity, albedo),
        beard=(two if identity > 0.5 else one).beard,
    )
    mixed = with_params(first, params)
    if not (albedo or detail) and first.detail_module is None:
        return mixed
    if not (one.detail or two.detail):
        return _with_bare_detail(_with_texture(mixed, first, second, albedo), first, second, detail)
    module = _module(first, second)
    for head in (first, second):
        if not head.params.detail and head.displacement is not None:
            raise ParameterError("mix.bare_displacement")
    latents = blended(module, one.detail, two.detail, detail)
    mixed = mixed.replace(params=params.replace(detail=latents), detail_module=module if latents else None)
    if not latents:
        return _with_texture(mixed.replace(displacement=None, normal_map=None), first, second, albedo)
    maps = maps_of(module, mixed.model, mixed.params)
    return _with_texture(mixed, first, second, albedo, maps.albedo_log).replace(
        displacement=maps.displacement, normal_map=normal_map(mixed.model, mixed.vertices, maps.displacement)
    )


def _between(one: np.ndarray, two: np.ndarray, share: float) -> np.ndarray:
    """Linear interpolation, exact at both ends."""
    if share in (0, 1):
        return (two if share else one).copy()
    return ((1 - share) * one.astype(np.float64) + share * two).astype(one.dtype)


def _check_one_model(first: FitResult, second: FitResult) -> None:
    for head in (first, second):
        if not isinstance(head, FitResult):
            raise ParameterError("mix.type", type=type(head).__name__)
    one, two = first.model, second.model
    if one is not two and not all(torch.equal(one.tensor(name), two.tensor(name)) for name in BASES):
        raise ParameterError("mix.models", one=one.name, two=two.name)


def _module(first: FitResult, second: FitResult) -> DetailModule:
    """The detail module of both heads."""
    for head in (first, second):
        if head.params.detail and head.detail_module is None:
            raise ParameterError("mix.no_module")
    heads = [head for head in (first, second) if head.params.detail]
    modules = [head.detail_module for head in heads if head.detail_module is not None]
    if not modules[0].is_same(modules[-1]):
        raise ParameterError(
            "mix.modules",
            one=modules[0].name,
            one_digest=modules[0].digest[:8],
            two=modules[-1].name,
            two_digest=modules[-1].digest[:8],
        )
    return check_open(modules[0], first.model)


def _with_bare_detail(mixed: FitResult, first: FitResult, second: FitResult, share: float) -> FitResult:
    """The head with the detail maps of either head, where the detail has no latents."""
    if not share:
        return mixed
    maps = {"displacement": second.displacement, "normal_map": second.normal_map}
    present = (first.displacement, first.normal_map, *maps.values())
    if share < 1 and any(values is not None for values in present):
        raise ParameterError("mix.no_latents")
    return mixed.replace(**maps)


def _with_texture(
    mixed: FitResult, first: FitResult, second: FitResult, share: float, change: np.ndarray | None = None
) -> FitResult:
    """The head with both textures blended, times a detail albedo (S, S, 3), given as logarithms.

    Textures of different sizes are scaled to the larger one.
    """
    size = max((first.texture.shape[:2], second.texture.shape[:2]))
    parts = []
    for head, weight in ((first, 1 - share), (second, share)):
        if weight:
            same = size if 0 < share < 1 else head.texture.shape[:2]
            confidence = torch.from_numpy(head.texture_confidence.astype(np.float32))
            parts.append((weight, _sized(bare_texture(head), same), _sized(confidence[..., None], same)))
    texture = cast(torch.Tensor, sum(weight * texture for weight, texture, _ in parts))
    shown = cast(torch.Tensor, sum(weight * values for weight, _, values in parts))[..., 0]
    return mixed.replace(
        texture=showing(texture, change),
        texture_confidence=shown.round().to(torch.uint8).numpy(),
    )


def _sized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """An image (H, W, C) resized bilinearly."""
    if tuple(image.shape[:2]) == tuple(size):
        return image
    planes = image.movedim(2, 0)[None]
    return torch.nn.functional.interpolate(planes, tuple(size), mode="bilinear", align_corners=False)[0].movedim(0, 2)
