"""Beard of a head: colour and shape as a value, and the beard of a style as the person wears it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from ..errors import ParameterError
from ..messages import Message
from .beard_layout import card_order, is_undercoat, roots_of
from .beard_styles import above_mouth, mirrored_mm, on_chin, scaled
from .brows import with_brows
from .hair import Hair, mean_colour, tinted
from .part import Part

RANGES: Mapping[str, tuple[float, float]] = {"grey": (0.0, 1.0), "length": (0.1, 3.0), "density": (0.0, 1.0)}
"""Least and greatest value of each number of `Beard`."""

_HALF = (  # mm on the mean head: sideburn to jaw, cheek, beside the mouth, moustache, chin, throat
    (66, -14, 33), (64, -32, 33), (63, -50, 32), (56, -78, 37), (52, -56, 52), (42, -66, 63), (44, -92, 50),
    (32, -80, 70), (30, -66, 76), (22, -58, 84), (11, -53, 91), (27, -98, 68), (14, -85, 82), (14, -103, 77),
    (27, -106, 45), (45, -98, 25),
)  # fmt: skip
_MIDDLE = ((0, -53, 94), (0, -86, 82), (0, -102, 82), (0, -113, 55))


def _control_points() -> np.ndarray:
    half = np.array(_HALF, np.float32)
    return np.concatenate([half, half * np.array([-1, 1, 1], np.float32), np.array(_MIDDLE, np.float32)]) / 1e3


CONTROL_POINTS = _control_points()
"""(K, 3) metres, places of the mean head where `Beard.coverage` is given."""
_REACH_M = 0.009  # standard deviation of a control point's weight
_UNDERCOAT_FROM = 0.45  # share of the hairs from which there are cards of the undercoat
_RAMP = 0.12  # change of the coverage over which a card grows from nothing to its length


@dataclass(frozen=True)
class Beard:
    """Colour and shape of the beard, relative to its style as made.

    Args:
        color: sRGB in 0..1, three numbers: the mean colour; None: that of the hair.
        grey: share 0..1 of grey hairs, beside those of the hair where `color` is None.
        length: factor of the length, 0.1..3; longest on the chin, hardly more than as made above the lips.
        density: share 0..1 of the hairs.
        coverage: (K,) float32 in 0..1 at `CONTROL_POINTS`: where the beard grows.
        brow_color: sRGB of brows of a style; None: that of the hair.
        in_skin: whether the texture of the skin shows the beard as well, as it does where a photograph showed it.

    Raises:
        ParameterError: values outside these ranges.
    """

    color: tuple[float, float, float] | None = None
    grey: float = 0.0
    length: float = 1.0
    density: float = 1.0
    coverage: np.ndarray = field(default_factory=lambda: np.ones(len(CONTROL_POINTS), np.float32))
    brow_color: tuple[float, float, float] | None = None
    in_skin: bool = False

    def __post_init__(self) -> None:
        for name in ("color", "brow_color"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _colour(name, value))
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not is_number or not low <= value <= high:
                raise ParameterError("beard.range", name=name, low=low, high=high, value=repr(value)[:80])
        if not isinstance(self.in_skin, (bool, np.bool_)):
            raise ParameterError("beard.in_skin", value=repr(self.in_skin)[:80])
        try:
            coverage = np.asarray(self.coverage, np.float32)
        except (TypeError, ValueError):
            coverage = np.zeros(0, np.float32)
        if coverage.shape != (len(CONTROL_POINTS),) or not ((coverage >= 0) & (coverage <= 1)).all():
            raise ParameterError("beard.coverage", count=len(CONTROL_POINTS), shape=coverage.shape)
        object.__setattr__(self, "coverage", coverage)

    def replace(self, **changes: Any) -> Beard:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Beard) and all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]


def beard_entry(beard: Beard) -> dict[str, Any]:
    """The beard as a JSON file holds it, restored exactly by `beard_of_file`."""
    entry = {f.name: getattr(beard, f.name) for f in fields(beard)}
    is_full = bool((beard.coverage == 1).all())
    return entry | {"coverage": None if is_full else [float(value) for value in beard.coverage]}


def beard_of_file(entry: Any) -> Beard:
    """The beard as a file holds it.

    Args:
        entry: what `beard_entry` gave; None for a file from before heads had beards.

    Raises:
        ValueError: not a dictionary, or with wrong values.
    """
    if entry is None:
        return Beard()
    if not isinstance(entry, dict) or not set(entry) <= {f.name for f in fields(Beard)}:
        raise ValueError(Message("beard.entry", found=str(entry)[:200]))
    values = {key: value for key, value in entry.items() if key != "coverage" or value is not None}
    try:
        return Beard(**values)
    except ParameterError as error:
        raise ValueError(error.message) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(Message("beard.entry", found=str(entry)[:200])) from error


def with_beard(parts: Mapping[str, Part], beard: Beard, hair: Hair) -> dict[str, Part]:
    """The parts by slot, with the beard as a person wears it, and brows of a style in their colour.

    Args:
        parts: slot -> part.
        beard: colour and shape.
        hair: gives the colours that the beard and the brows have not of their own.
    """
    result = dict(parts)
    if "beard" in result:
        part = shaped(result["beard"], beard)
        texture = tinted(part.material.texture, beard_colour(beard, hair))
        result["beard"] = replace(part, material=replace(part.material, texture=texture))
    brows = hair if beard.brow_color is None else hair.replace(color=beard.brow_color, grey=0.0)
    return with_brows(result, mean_colour(brows))


def beard_colour(beard: Beard, hair: Hair) -> np.ndarray:
    """(3,) mean linear RGB of the beard."""
    own = hair if beard.color is None else hair.replace(color=beard.color, grey=0.0)
    grey = own.grey + beard.grey * (1 - own.grey)
    return mean_colour(own.replace(grey=grey))


def shaped(part: Part, beard: Beard) -> Part:
    """A beard with the length, density and coverage of a person; parts without cards left keep one."""
    scale = card_scale(part, beard)
    if not (scale > 0).any():
        scale = np.where(np.arange(len(scale)) == 0, 1e-3, 0)  # a part has at least a triangle
    return scaled(part, scale)


def card_scale(part: Part, beard: Beard) -> np.ndarray:
    """Factors (C,) of the lengths of a part's cards, 0 for those that are left out."""
    longer = length_scale(part, beard.length)
    if beard.density == 1 and (beard.coverage == 1).all():
        return longer
    return longer * cover_scale(part, beard.coverage, beard.density)


def length_scale(part: Part, length: float) -> np.ndarray:
    """Factors (C,) of the lengths of a part's cards for a factor of the whole beard."""
    mm = mirrored_mm(roots_of(part))
    freedom = 0.45 + 0.55 * on_chin(mm) - 0.3 * above_mouth(mm)
    return np.broadcast_to(1 + (length - 1) * (freedom if length > 1 else 1.0), len(mm))


def cover_scale(part: Part, coverage: np.ndarray, density: float = 1.0) -> np.ndarray:
    """Factors (C,) of the lengths of a part's cards, 0 for those that are left out, by coverage (K,) and density."""
    place = roots_of(part)
    order, covered = card_order(len(place)), coverage_basis(place) @ coverage
    grown = np.clip(((1 + _RAMP) * density * covered - order) / _RAMP, 0, 1)
    # A card of the undercoat is wide: alone on the skin it is a spot.
    is_sparse = order >= (density * covered - _UNDERCOAT_FROM) / (1 - _UNDERCOAT_FROM)
    return np.where(is_undercoat(part) & is_sparse, 0, grown * (0.5 + 0.5 * covered))


def coverage_basis(points: np.ndarray) -> np.ndarray:
    """Weights (C, K) of the control points at places (C, 3) of the mean head, metres: smooth, rows add up to 1."""
    logit = -np.square(points[:, None] - CONTROL_POINTS).sum(2) / (2 * _REACH_M**2)
    weight = np.exp(logit - logit.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def _colour(name: str, value: Any) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(c) for c in value)
    except (TypeError, ValueError):
        red = green = blue = np.nan
    if not all(0 <= c <= 1 for c in (red, green, blue)):
        raise ParameterError("beard.color", name=name, value=repr(value)[:80])
    return red, green, blue
