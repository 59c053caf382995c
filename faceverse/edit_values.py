"""What an edit asks for, checked and in the model's own terms: weights, coefficients and light.

Everything is measured from the same start, so that the order in which things are asked for has no say.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from .errors import ParameterError
from .graphics.lighting import LIGHT_PARAMETERS, directed_light
from .model.data import Attribute
from .model.face_model import FaceModel, FaceParams
from .model.presets import ATTRIBUTE_REGIONS, EXPRESSION_PRESETS
from .result import FitResult

_OTHER_ARGUMENTS = ("expression", "detail", "identity", "rotation", "light", "detail_seed", "detail_from")
_OTHER_ARGUMENTS += ("age_years", "targets")
_LEAST_GAIN = 0.1


# -- attributes -------------------------------------------------------------------------------------------------------
def attribute_limits(result: FitResult) -> dict[str, tuple[float, float]]:
    """How far `edit` may change each attribute of this head before it is reduced to a limit.

    Returns:
        (low, high) by name, low <= 0 <= high, in the attribute's unit. A head that the model estimates beyond an
        attribute's range has 0 on that side.
    """
    values = result.model.attributes(result.params)
    return {a.name: _limits(a, values[a.name]) for a in result.model.data.attributes}


def moved_attributes(
    model: FaceModel,
    params: FaceParams,
    amounts: Mapping[str, float],
    targets: Mapping[str, float],
    warnings: list[str],
) -> FaceParams:
    """Identity and albedo coefficients moved along the attributes' directions.

    Args:
        amounts: changes by name.
        targets: what the model is to estimate afterwards by name, for other attributes.
        warnings: sentences are added for what was reduced to a limit.
    Raises:
        ParameterError: an unknown name, not a finite number, or a name in both.
    """
    known = {attribute.name: attribute for attribute in model.data.attributes}
    for name in (*amounts, *targets):
        if name not in known:
            raise ParameterError(_unknown_attribute(model, name, known))
    if both := sorted(set(amounts) & set(targets)):
        raise ParameterError(f"{both[0]} is given as a change and as a value to reach: give one of them")
    values = model.attributes(params)
    total = np.zeros(len(params.identity) + len(params.albedo))
    for name, amount in sorted(amounts.items()):
        total += _allowed(known[name], values[name], number(name, amount), warnings) * known[name].step
    if targets:
        aimed = [known[name] for name in sorted(targets)]
        reached = [_reachable(a, values[a.name], number(a.name, targets[a.name]), warnings) for a in aimed]
        missing = [to - values[a.name] - a.estimator[:-1] @ total for a, to in zip(aimed, reached)]
        total += amounts_for(aimed, aimed, np.array(missing)) @ np.stack([a.step for a in aimed])
    if not total.any():
        return params
    identity, albedo = np.split(total, [len(params.identity)])
    return params.replace(
        identity=(params.identity + identity).astype(np.float32), albedo=(params.albedo + albedo).astype(np.float32)
    )


def amounts_for(seen: Sequence[Attribute], moved: Sequence[Attribute], changes: np.ndarray) -> np.ndarray:
    """Amounts of the `moved` attributes after which the estimates of the `seen` ones have changed so much.

    Shares of ancestry move each other and add up to one: hence equations for all at once, and least squares.
    """
    seen_ranges, moved_ranges = (np.array([a.maximum - a.minimum for a in some]) for some in (seen, moved))
    reads = np.stack([a.estimator[:-1] for a in seen]).astype(np.float64) / seen_ranges[:, None]
    steps = np.stack([a.step for a in moved]).astype(np.float64) * moved_ranges[:, None]
    return np.linalg.lstsq(reads @ steps.T, changes / seen_ranges, rcond=_LEAST_GAIN / 2)[0] * moved_ranges


def _limits(attribute: Attribute, value: float) -> tuple[float, float]:
    # A step moves the estimate by a little less than a unit where the model can only show a part of it.
    gain = max(float(attribute.estimator[:-1] @ attribute.step), _LEAST_GAIN)
    return min((attribute.minimum - value) / gain, 0.0), max((attribute.maximum - value) / gain, 0.0)


def _allowed(attribute: Attribute, value: float, amount: float, warnings: list[str]) -> float:
    """The part of the amount that keeps the estimated value in the attribute's range; never turned round."""
    allowed = float(np.clip(amount, *_limits(attribute, value)))
    if allowed != amount:
        warnings.append(
            f"{attribute.name}: changed by {allowed:+.3g} instead of {amount:+.3g}, because this head is estimated at "
            f"{value:.3g} and {_range(attribute)}"
        )
    return allowed


def _reachable(attribute: Attribute, value: float, target: float, warnings: list[str]) -> float:
    """The value to reach, within the range; a head beyond the range goes no further."""
    allowed = float(np.clip(target, min(attribute.minimum, value), max(attribute.maximum, value)))
    if allowed != target:
        warnings.append(f"{attribute.name}: set to {allowed:.3g} instead of {target:.3g}, because {_range(attribute)}")
    return allowed


def _range(attribute: Attribute) -> str:
    return f"the model's range is {attribute.minimum:g} to {attribute.maximum:g} ({attribute.unit})"


# -- expression -------------------------------------------------------------------------------------------------------
def expression_weights(model: FaceModel, present: np.ndarray, wanted, warnings: list[str]) -> np.ndarray:
    """(E,) float32 weights within their limits, see `edit`."""
    names = model.expression_names
    if isinstance(wanted, str):
        if wanted not in EXPRESSION_PRESETS:
            raise ParameterError(_unknown("expression preset", wanted, EXPRESSION_PRESETS, names, "there are"))
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
            weights[names.index(name)] = number(name, weight)
            given.append(names.index(name))
    else:
        weights = array("expression", wanted, (len(names),))
        given = range(len(names))
    for index in sorted(given):
        limits = model.expression_limits[index]
        weights[index] = _clamped(f"expression {names[index]}", weights[index], limits, warnings)
    return weights


def _mixed_presets(model: FaceModel, shares: Mapping[str, float], warnings: list[str]) -> np.ndarray:
    """(E,) float32, the sum of presets by name times their shares, within the weights' limits."""
    names = model.expression_names
    weights = np.zeros(len(names), np.float32)
    for preset, share in shares.items():
        share = _clamped(f"expression {preset}", number(preset, share), (0.0, 1.0), warnings)
        for name, weight in EXPRESSION_PRESETS[preset].items():
            if name not in names:
                raise ParameterError(
                    f"the preset {preset!r} is made of ARKit's blendshapes, and the model '{model.name}' has no {name}"
                )
            weights[names.index(name)] += share * weight
    return np.clip(weights, *model.expression_limits.T)


# -- light ------------------------------------------------------------------------------------------------------------
def light_coefficients(wanted, warnings: list[str]) -> np.ndarray:
    """(9, 3) float32 spherical harmonics, of themselves or of a direction with intensity and warmth."""
    if not isinstance(wanted, Mapping):
        return array("light", wanted, (9, 3))
    values = {}
    for name, value in wanted.items():
        if name not in LIGHT_PARAMETERS:
            raise ParameterError(_unknown("entry of light", name, LIGHT_PARAMETERS, (), "there are"))
        limits = LIGHT_PARAMETERS[name].minimum, LIGHT_PARAMETERS[name].maximum
        values[name] = _clamped(f"light {name}", number(f"light {name}", value), limits, warnings)
    return directed_light(**values).numpy()


# -- numbers and words ------------------------------------------------------------------------------------------------
def number(name: str, value) -> float:
    """The value as a float.

    Raises:
        ParameterError: not a finite number.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
        raise ParameterError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def array(name: str, value, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 copy.

    Raises:
        ParameterError: not numbers, another shape, or not finite.
    """
    try:
        values = np.array(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise ParameterError(f"{name} must be an array of numbers of shape {shape}, got {value!r}") from None
    if values.shape != shape:
        raise ParameterError(f"{name} must have shape {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ParameterError(f"{name} holds values that are not finite numbers")
    return values


def region_attributes(model: FaceModel, region: str) -> tuple[str, ...]:
    """The attributes of a region that the model has.

    Raises:
        ParameterError: there is no such region.
    """
    if region not in ATTRIBUTE_REGIONS:
        raise ParameterError(_unknown("region", region, ATTRIBUTE_REGIONS, (), "there are"))
    return tuple(name for name in ATTRIBUTE_REGIONS[region] if name in model.attribute_names)


def _clamped(what: str, value: float, limits: Sequence[float], warnings: list[str]) -> float:
    low, high = limits
    if not low <= value <= high:
        warnings.append(f"{what}: {value:.3g} is outside {low:g}..{high:g} and was clamped")
    return min(max(value, low), high)


def _unknown_attribute(model: FaceModel, name, known: Mapping[str, Attribute]) -> str:
    if known and name in ATTRIBUTE_REGIONS:
        names = ", ".join(region_attributes(model, name)) or "none"
        return f"there is no attribute {name!r}; the region of that name has: {names}"
    if known or difflib.get_close_matches(str(name), _OTHER_ARGUMENTS, n=1, cutoff=0.7):
        return _unknown("attribute", name, known, _OTHER_ARGUMENTS)
    return f"the model '{model.name}' has no attributes, so {name} cannot be changed; edit its identity instead"


def _unknown_expression(model: FaceModel, name) -> str:
    names = model.expression_names
    if model.data.named_expressions or not names:
        return _unknown("expression", name, names, EXPRESSION_PRESETS)
    return (
        f"there is no expression {name!r}: the model '{model.name}' has no named expressions; its {len(names)} "
        f"components are called {names[0]} to {names[-1]}"
    )


def _unknown(kind: str, name, known, similar=(), has: str = "this model has") -> str:
    close = difflib.get_close_matches(str(name), [*known, *similar], n=3)
    if close:
        return f"there is no {kind} {name!r}; did you mean {' or '.join(map(repr, close))}?"
    return f"there is no {kind} {name!r}; {has}: {', '.join(known) or 'none'}"
