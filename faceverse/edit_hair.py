"""Validate the arguments of `edit` about hair and apply them; blend the hair of two heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .edit_values import colour_of, number, unknown
from .errors import ParameterError
from .model.face_model import FaceModel, FaceParams
from .parts.hair import RANGES, Hair
from .parts.hair_choice import HAIR_COLORS, aged_hair, available_styles, colour_of_hex
from .parts.hair_styles import BALD, with_hair_style
from .parts.part import HAIR_SLOTS
from .result import FitResult

KEEP_HAIR = "keep"
"""Value of `edit(hair=)` that changes nothing: None takes the hair off."""
_VOLUMES = ("top", "sides", "back")


@dataclass(frozen=True)
class HairChanges:
    """The arguments of `edit` about hair, see there; None keeps what is."""

    hair: str | None = KEEP_HAIR
    hair_color: str | Sequence[float] | None = None
    hair_length: float | None = None
    hair_volume: float | Mapping[str, float] | None = None
    hair_fringe: float | None = None
    hair_wave: float | None = None
    hair_grey: float | None = None
    hair_mirrored: bool | None = None
    hair_from: FitResult | None = None


def with_hair_changes(model: FaceModel, params: FaceParams, changes: HairChanges) -> FaceParams:
    """Parameters with changed hair.

    Raises:
        ParameterError: an unknown style or colour, a number out of range, or a model without hair.
    """
    params = _with_hair_of(params, changes.hair_from)
    if changes.hair != KEEP_HAIR:
        params = with_style(model, params, BALD if changes.hair is None else changes.hair)
    wanted: dict[str, Any] = {}
    if changes.hair_color is not None:
        wanted = {"color": hair_color(changes.hair_color), "tip_color": None, "grey": 0.0}
    for name in ("length", "fringe", "wave", "grey"):
        value = getattr(changes, f"hair_{name}")
        if value is not None:
            wanted[name] = _in_range(name, f"hair_{name}", value)
    if changes.hair_volume is not None:
        wanted |= _volumes(changes.hair_volume)
    if changes.hair_mirrored is not None:
        wanted["mirrored"] = changes.hair_mirrored
    return params.replace(hair=params.hair.replace(**wanted)) if wanted else params


def with_style(model: FaceModel, params: FaceParams, style: str) -> FaceParams:
    """Parameters with another hair style, as made: its length, volume and outline are not those of the style before.

    Raises:
        ParameterError: the model has no such style.
    """
    known = available_styles(model.parts)
    if style != BALD and not known:
        raise ParameterError("hair.none_in_model", model=model.name)
    if not isinstance(style, str) or style not in (BALD, *known):
        raise ParameterError(unknown("hair_style", style, known))
    kept = {name: getattr(params.hair, name) for name in ("color", "tip_color", "grey", "mirrored")}
    return params.replace(styles=with_hair_style(params.styles, style), hair=Hair(**kept))


def hair_color(color: str | Sequence[float]) -> tuple[float, float, float]:
    """sRGB 0..1 of a colour of hair: a name of `HAIR_COLORS`, "#rrggbb", or three numbers 0..255.

    Raises:
        ParameterError: an unknown name, or no colour.
    """
    named = {name: tuple(255 * c for c in colour_of_hex(text)) for name, text in HAIR_COLORS.items()}
    red, green, blue = (colour_of("hair_color", color, named) / 255).tolist()
    return red, green, blue


def with_aged_hair(model: FaceModel, before: FaceParams, after: FaceParams) -> FaceParams:
    """Parameters whose hair is as grey as the change of age from `before` makes it."""
    years = (model.attributes(params)["age"] for params in (before, after))
    return after.replace(hair=aged_hair(after.hair, *years))


def blended_hair(one: FaceParams, two: FaceParams, shape: float, colour: float) -> Hair:
    """Hair between two heads: numbers and colours are interpolated.

    Args:
        one, two: parameters.
        shape: share 0..1 of the second head in the shape; where the styles differ, the shape is that of the nearer one,
            because it is relative to the style.
        colour: share of the second head in the colour.
    """
    first, second = one.hair, two.hair
    same = all(one.styles.get(slot) == two.styles.get(slot) for slot in HAIR_SLOTS)
    same = same and first.mirrored == second.mirrored
    if not same:
        shape = float(shape > 0.5)
    tips = [hair.color if hair.tip_color is None else hair.tip_color for hair in (first, second)]
    has_tips = any(hair.tip_color is not None for hair in (first, second))
    values: dict[str, Any] = {
        "color": _between(first.color, second.color, colour),
        "tip_color": _between(tips[0], tips[1], colour) if has_tips else None,
        "grey": _between(first.grey, second.grey, colour),
        "mirrored": (second if shape > 0.5 else first).mirrored,
    }
    for name in (field.name for field in fields(Hair) if field.name not in values):
        values[name] = _between(getattr(first, name), getattr(second, name), shape)
    return Hair(**values)


def _between(one: Any, two: Any, share: float) -> Any:
    """Linear interpolation of numbers, triplets and arrays; exact at both ends."""
    if share in (0, 1):
        return two if share else one
    mixed = (1 - share) * np.asarray(one, np.float64) + share * np.asarray(two, np.float64)
    return float(mixed) if mixed.ndim == 0 else tuple(mixed.tolist()) if mixed.ndim == 1 else mixed


def _with_hair_of(params: FaceParams, other: FitResult | None) -> FaceParams:
    """Parameters with style, shape and colour of the hair of another head."""
    if other is None:
        return params
    if not isinstance(other, FitResult):
        raise ParameterError("edit.hair_from_type", type=type(other).__name__)
    bald = with_hair_style(params.styles, BALD)
    worn = {slot: style for slot, style in other.params.styles.items() if slot in HAIR_SLOTS}
    return params.replace(styles=bald | worn, hair=other.params.hair)


def _volumes(volume: float | Mapping[str, float]) -> dict[str, float]:
    if not isinstance(volume, Mapping):
        return {f"volume_{side}": _in_range(f"volume_{side}", "hair_volume", volume) for side in _VOLUMES}
    wrong = next((side for side in volume if side not in _VOLUMES), None)
    if wrong is not None:
        raise ParameterError("hair.volume", name=repr(wrong), known=", ".join(_VOLUMES))
    return {f"volume_{side}": _in_range(f"volume_{side}", "hair_volume", volume[side]) for side in volume}


def _in_range(name: str, argument: str, value: Any) -> float:
    low, high = RANGES[name]
    checked = number(argument, value)
    if not low <= checked <= high:
        raise ParameterError("edit.hair_range", name=argument, low=low, high=high, value=checked)
    return checked
