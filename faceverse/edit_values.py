"""Validate the arguments of `edit` and convert them to coefficients: attributes, expression weights, light.

All changes are relative to the same head, so that their order does not matter.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch

from .errors import ParameterError
from .graphics.lighting import LIGHT_PARAMETERS, directed_light, linear_from_srgb
from .messages import Message
from .model.data import Attribute
from .model.face_model import FaceModel, FaceParams
from .model.presets import ATTRIBUTE_REGIONS, EXPRESSION_PRESETS
from .result import FitResult

_OTHER_ARGUMENTS: tuple[str, ...] = ("expression", "detail", "identity", "rotation", "light", "detail_seed")
_OTHER_ARGUMENTS += ("detail_from", "age_years", "targets", "eye_color")
_OTHER_ARGUMENTS += ("beard", "beard_length", "beard_color", "beard_density", "brows", "brow_color")
_OTHER_ARGUMENTS += ("detail_from", "age_years", "targets", "eye_color", "hair", "hair_color", "hair_length")
_OTHER_ARGUMENTS += ("hair_volume", "hair_fringe", "hair_wave", "hair_grey", "hair_mirrored", "hair_from")
_LEAST_GAIN = 0.1
_FLOAT32 = np.finfo(np.float32)

_WRONG_COLOUR = {"eye_color": "eye_color.value", "hair_color": "hair_color.value"}
EYE_COLORS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "dark brown": (48, 33, 25), "brown": (72, 50, 34), "amber": (112, 80, 40), "hazel": (94, 80, 50),
        "green": (86, 100, 70), "grey": (98, 104, 108), "blue": (74, 100, 128), "light blue": (108, 136, 158),
    }
)  # fmt: skip
"""Colours of irises by name: mean sRGB, 0..255, of the iris without its reflections."""


# -- attributes -------------------------------------------------------------------------------------------------------
def attribute_limits(result: FitResult) -> dict[str, tuple[float, float]]:
    """Limits of the change of each attribute that `edit` makes without clamping.

    Returns:
        (low, high) by name, low <= 0 <= high, in the attribute's unit. 0 on the side where the head's estimate lies
        beyond the attribute's range.
    """
    values = result.model.attributes(result.params)
    return {a.name: _limits(a, values[a.name]) for a in result.model.data.attributes}


def move_attributes(
    model: FaceModel,
    params: FaceParams,
    amounts: Mapping[str, float],
    targets: Mapping[str, float],
    warnings: list[str],
) -> FaceParams:
    """Move identity and albedo coefficients along the attributes' directions.

    Args:
        amounts: changes by name.
        targets: values to reach by name, for other attributes.
        warnings: receives a message for each clamped value.
    Raises:
        ParameterError: an unknown name, not a finite number, or a name in both.
    """
    known = {attribute.name: attribute for attribute in model.data.attributes}
    for name in (*amounts, *targets):
        if name not in known:
            raise ParameterError(_unknown_attribute(model, name, known))
    if both := sorted(set(amounts) & set(targets)):
        raise ParameterError("attribute.twice", name=both[0])
    values = model.attributes(params)
    total = np.zeros(len(params.identity) + len(params.albedo))
    reached = dict(values)  # values of the attributes with a path, which changes no other attribute
    for name, amount in sorted(amounts.items()):
        allowed = _clamped_amount(known[name], values[name], number(name, amount), warnings)
        if known[name].path is None:
            total += allowed * known[name].step
        else:
            reached[name] += allowed
    goals = {n: _clamped_target(known[n], values[n], number(n, targets[n]), warnings) for n in sorted(targets)}
    reached |= {name: value for name, value in goals.items() if known[name].path is not None}
    if aimed := [known[name] for name in goals if known[name].path is None]:
        missing = [goals[a.name] - values[a.name] - a.estimator[:-1] @ total for a in aimed]
        total += solve_amounts(aimed, aimed, np.array(missing)) @ np.stack([a.step for a in aimed])
    total += _along_paths(np.concatenate([params.identity, params.albedo]), known, values, reached, total)
    if not total.any():
        return params
    identity, albedo = np.split(total, [len(params.identity)])
    return params.replace(
        identity=(params.identity + identity).astype(np.float32), albedo=(params.albedo + albedo).astype(np.float32)
    )


def _along_paths(
    coefficients: np.ndarray,
    known: Mapping[str, Attribute],
    values: Mapping[str, float],
    reached: Mapping[str, float],
    total: np.ndarray,
) -> np.ndarray:
    """Change of the coefficients (I + A,) by the attributes with a path.

    Args:
        coefficients: (I + A,) of the head before.
        known: attributes by name.
        values, reached: values by name before and after.
        total: (I + A,) change by the other attributes, which may change the modulators.
    """
    change = np.zeros_like(total)
    for name, attribute in known.items():
        if attribute.path is not None:
            modulator = known.get(attribute.path.modulator)
            before = 0.0 if modulator is None else values[modulator.name]
            after = before if modulator is None else before + float(modulator.estimator[:-1] @ total)
            change += attribute.change(coefficients, values[name], reached[name], (before, after))
    return change


def solve_amounts(estimated: Sequence[Attribute], moved: Sequence[Attribute], changes: np.ndarray) -> np.ndarray:
    """Solve for the amounts of the `moved` attributes that change the estimates of the `estimated` ones by `changes`.

    Ancestry shares depend on each other and add up to one, so all are solved jointly by least squares.
    """
    estimated_ranges, moved_ranges = (np.array([a.maximum - a.minimum for a in some]) for some in (estimated, moved))
    estimators = np.stack([a.estimator[:-1] for a in estimated]).astype(np.float64) / estimated_ranges[:, None]
    steps = np.stack([a.step for a in moved]).astype(np.float64) * moved_ranges[:, None]
    return np.linalg.lstsq(estimators @ steps.T, changes / estimated_ranges, rcond=_LEAST_GAIN / 2)[0] * moved_ranges


def _limits(attribute: Attribute, value: float) -> tuple[float, float]:
    if attribute.path is not None:
        return min(attribute.minimum - value, 0.0), max(attribute.maximum - value, 0.0)
    # A unit step changes the estimate by less than one unit where the model can represent only part of the change.
    gain = max(float(attribute.estimator[:-1] @ attribute.step), _LEAST_GAIN)
    return min((attribute.minimum - value) / gain, 0.0), max((attribute.maximum - value) / gain, 0.0)


def _clamped_amount(attribute: Attribute, value: float, amount: float, warnings: list[str]) -> float:
    """Clamp an amount so that the estimate stays in the attribute's range; its sign never changes."""
    allowed = float(np.clip(amount, *_limits(attribute, value)))
    if allowed != amount:
        warnings.append(
            Message(
                "attribute.limited_change",
                attribute=_term(f"attribute.name.{attribute.name}", attribute.name),
                change=allowed,
                wanted=amount,
                estimate=value,
                **_range(attribute),
            )
        )
    return allowed


def _clamped_target(attribute: Attribute, value: float, target: float, warnings: list[str]) -> float:
    """Clamp a target to the attribute's range, or to the present value where that lies beyond the range."""
    allowed = float(np.clip(target, min(attribute.minimum, value), max(attribute.maximum, value)))
    if allowed != target:
        name = _term(f"attribute.name.{attribute.name}", attribute.name)
        warnings.append(
            Message("attribute.limited_target", attribute=name, value=allowed, wanted=target, **_range(attribute))
        )
    return allowed


def _range(attribute: Attribute) -> dict[str, float | str]:
    unit = attribute.unit
    code = f"unit.{unit}" if unit.isidentifier() else f"unit.{attribute.name}"
    return {"low": attribute.minimum, "high": attribute.maximum, "unit": _term(code, unit)}


def _term(code: str, text: str) -> str:
    """A model's own word, which can be translated where the catalogs have that very word."""
    known = Message(code)
    return known if known == text else text


# -- expression -------------------------------------------------------------------------------------------------------
def expression_weights(model: FaceModel, present: np.ndarray, wanted, warnings: list[str]) -> np.ndarray:
    """(E,) float32 weights within their limits, see `edit`."""
    names = model.expression_names
    if isinstance(wanted, str):
        if wanted not in EXPRESSION_PRESETS:
            raise ParameterError(unknown("expression_preset", wanted, EXPRESSION_PRESETS, names))
        wanted = {wanted: 1.0}
    if isinstance(wanted, Mapping):
        weights = np.array(present, dtype=np.float32)
        presets = [name for name in wanted if name in EXPRESSION_PRESETS and name not in names]
        if presets:
            weights = _mixed_presets(model, {name: wanted[name] for name in presets}, warnings)
        given = []
        for name, weight in wanted.items():
            if name in presets:
                continue
            if name not in names:
                raise ParameterError(_unknown_expression(model, name))
            weights[names.index(name)] = np.clip(number(name, weight), _FLOAT32.min, _FLOAT32.max)
            given.append(names.index(name))
    else:
        weights = array("expression", wanted, (len(names),))
        given = list(range(len(names)))
    for index in sorted(given):
        limits = model.expression_limits[index]
        weights[index] = _clamped(Message("value.expression", name=names[index]), weights[index], limits, warnings)
    return weights


def _mixed_presets(model: FaceModel, shares: Mapping[str, float], warnings: list[str]) -> np.ndarray:
    """(E,) float32, the weighted sum of presets, clamped to the weights' limits."""
    names = model.expression_names
    weights = np.zeros(len(names), np.float32)
    for preset, share in shares.items():
        share = _clamped(Message("value.expression", name=preset), number(preset, share), (0.0, 1.0), warnings)
        for name, weight in EXPRESSION_PRESETS[preset].items():
            if name not in names:
                raise ParameterError("expression.preset_needs_arkit", preset=repr(preset), model=model.name, name=name)
            weights[names.index(name)] += share * weight
    return np.clip(weights, *model.expression_limits.T)


# -- light ------------------------------------------------------------------------------------------------------------
def light_coefficients(wanted, warnings: list[str]) -> np.ndarray:
    """(9, 3) float32 spherical harmonics, given as such or by `LIGHT_PARAMETERS`."""
    if not isinstance(wanted, Mapping):
        return array("light", wanted, (9, 3))
    values = {}
    for name, value in wanted.items():
        if name not in LIGHT_PARAMETERS:
            raise ParameterError(unknown("light", name, LIGHT_PARAMETERS))
        limits = LIGHT_PARAMETERS[name].minimum, LIGHT_PARAMETERS[name].maximum
        what = Message("value.light", name=name)
        values[name] = _clamped(what, number(what, value), limits, warnings)
    return directed_light(**values).numpy()


# -- validation -------------------------------------------------------------------------------------------------------
def number(name: str, value) -> float:
    """The value as a float.

    Raises:
        ParameterError: not a finite number.
    """
    try:
        converted = math.nan if isinstance(value, (bool, np.bool_, str)) else float(value)
    except (TypeError, ValueError, OverflowError):
        converted = math.nan
    if not isinstance(value, (int, float, np.number)) or not math.isfinite(converted):
        raise ParameterError("value.finite_number", name=name, value=repr(value))
    return converted


def array(name: str, value, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 copy.

    Raises:
        ParameterError: not numbers, another shape, or not finite.
    """
    try:
        with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
            values = np.array(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise ParameterError("value.array_type", name=name, shape=shape, value=repr(value)) from None
    if values.shape != shape:
        raise ParameterError("value.array_shape", name=name, expected=shape, shape=values.shape)
    if not np.isfinite(values).all():
        raise ParameterError("value.array_not_finite", name=name)
    return values


def region_attributes(model: FaceModel, region: str) -> tuple[str, ...]:
    """The attributes of a region that the model has.

    Raises:
        ParameterError: there is no such region.
    """
    if region not in ATTRIBUTE_REGIONS:
        raise ParameterError(unknown("region", region, ATTRIBUTE_REGIONS))
    return tuple(name for name in ATTRIBUTE_REGIONS[region] if name in model.attribute_names)


# -- colours ----------------------------------------------------------------------------------------------------------
def iris_of(color) -> np.ndarray:
    """Linear RGB (3,) float32 of an eye colour, see `edit`.

    Raises:
        ParameterError: an unknown name, or neither a name nor a colour.
    """
    srgb = torch.from_numpy(colour_of("eye_color", color, EYE_COLORS) / 255)
    return linear_from_srgb(srgb).numpy().astype(np.float32)


def colour_of(kind: str, color, known: Mapping[str, Sequence[float]]) -> np.ndarray:
    """sRGB (3,) float64, 0..255, of a colour.

    Args:
        kind: what it is the colour of, a key of the messages.
        color: a name, "#rrggbb" or three numbers 0..255.
        known: colours by name.

    Raises:
        ParameterError: an unknown name, or neither a name nor a colour.
    """
    srgb = color
    if isinstance(color, str):
        name = color.strip().lower().replace("_", " ").replace("gray", "grey")
        if not name.startswith("#") and name not in known:
            raise ParameterError(unknown(kind, color, known))
        srgb = _hexadecimal(name) if name.startswith("#") else known[name]
    try:
        values = np.asarray(srgb, np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.zeros(0)
    if values.shape != (3,) or not ((values >= 0) & (values <= 255)).all():
        raise ParameterError(_WRONG_COLOUR[kind], color=repr(color))
    return values


def _hexadecimal(name: str) -> tuple[int, ...]:
    try:
        return tuple(bytes.fromhex(name[1:]))
    except ValueError:
        return ()


def _clamped(what: str, value: float, limits: Sequence[float], warnings: list[str]) -> float:
    low, high = limits
    if not low <= value <= high:
        warnings.append(Message("value.clamped", what=what, value=value, low=low, high=high))
    return min(max(value, low), high)


def _unknown_attribute(model: FaceModel, name, known: Mapping[str, Attribute]) -> Message:
    if known and name in ATTRIBUTE_REGIONS:
        names = ", ".join(region_attributes(model, name)) or Message("word.none")
        return Message("attribute.is_region", name=repr(name), known=names)
    if known or difflib.get_close_matches(str(name), _OTHER_ARGUMENTS, n=1, cutoff=0.7):
        return unknown("attribute", name, known, _OTHER_ARGUMENTS)
    return Message("attribute.none_in_model", model=model.name, name=name)


def _unknown_expression(model: FaceModel, name) -> Message:
    names = model.expression_names
    if model.data.named_expressions or not names:
        return unknown("expression", name, names, EXPRESSION_PRESETS)
    return Message(
        "expression.unnamed",
        name=repr(name),
        model=model.name,
        components=len(names),
        first=names[0],
        last=names[-1],
    )


_UNKNOWN = {
    "attribute": ("attribute.unknown", "attribute.similar"),
    "eye_color": ("eye_color.unknown", "eye_color.similar"),
    "expression": ("expression.unknown", "expression.similar"),
    "expression_preset": ("expression.unknown_preset", "expression.similar_preset"),
    "hair_color": ("hair_color.unknown", "hair_color.similar"),
    "hair_style": ("hair_style.unknown", "hair_style.similar"),
    "light": ("light.unknown", "light.similar"),
    "region": ("region.unknown", "region.similar"),
}


def unknown(kind: str, name, known, similar=()) -> Message:
    """There is no such name: what it may stand for, or else all that there are."""
    unknown, guessed = _UNKNOWN[kind]
    close = difflib.get_close_matches(str(name), [*known, *similar], n=3)
    if close:
        return Message(guessed, name=repr(name), close=" or ".join(map(repr, close)))
    return Message(unknown, name=repr(name), known=", ".join(known) or Message("word.none"))
