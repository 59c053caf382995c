"""Hair of the editing state: its values in the browser, and the hair that they mean."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import faceverse as fv

NUMBERS = {"length": (0.2, 2.0), "volume": (0.0, 3.0), "fringe": (0.0, 2.0), "wave": (0.0, 1.0), "grey": (0.0, 1.0)}
"""Least and greatest value of the sliders; `volume` is that of top, sides and back together."""
_VOLUMES = ("volume_top", "volume_sides", "volume_back")
_COLOR = re.compile("#[0-9a-f]{6}")


@dataclass(frozen=True)
class HairState:
    """Hair as the panel shows it.

    Args:
        style: of `faceverse.HAIR_STYLES`.
        color: "#rrggbb", sRGB.
        mirrored: with the parting on the other side.
        length, volume, fringe, wave, grey: see `NUMBERS`.
    """

    style: str = "bald"
    color: str = "#35241a"
    mirrored: bool = False
    length: float = 1.0
    volume: float = 1.0
    fringe: float = 1.0
    wave: float = 0.0
    grey: float = 0.0

    @classmethod
    def of(cls, result: fv.FitResult) -> HairState:
        """The values that show the hair of a head."""
        hair = result.params.hair
        numbers = {name: getattr(hair, name) for name in NUMBERS if name != "volume"}
        numbers["volume"] = float(np.mean([getattr(hair, name) for name in _VOLUMES]))
        color = "#" + bytes(round(255 * c) for c in hair.color).hex()
        rounded = {name: round(float(value), 4) for name, value in numbers.items()}
        return cls(result.hair_style, color, hair.mirrored, **rounded)

    @classmethod
    def from_json(cls, data: Any) -> HairState | None:
        """Parse what a browser sent; numbers are clamped to their ranges. None for a state without hair.

        Raises:
            ParameterError: unknown names, or values of a wrong kind; only a forged request has them.
        """
        if data is None:
            return None
        if not isinstance(data, Mapping) or not set(data) <= set(asdict(cls())):
            raise fv.ParameterError("page.forged")
        values = dict(data)
        for name, (low, high) in NUMBERS.items():
            if name in values:
                values[name] = _number(values[name], low, high)
        state = cls(**values)
        is_color = isinstance(state.color, str) and _COLOR.fullmatch(state.color)
        if not is_color or not isinstance(state.mirrored, bool) or not isinstance(state.style, str):
            raise fv.ParameterError("page.forged")
        if state.style not in fv.HAIR_STYLES:
            raise fv.ParameterError("page.forged_names", names=state.style[:80])
        return state

    @property
    def baked(self) -> dict:
        """What the files of the 3D view contain."""
        return {"style": self.style, "mirrored": self.mirrored}


def with_baked_hair(result: fv.FitResult, state: HairState | None) -> fv.FitResult:
    """The head with style and parting of a state; the browser applies the rest."""
    if state is None or not has_hair(result.model):
        return result
    shown = HairState.of(result)
    if state.style != shown.style:
        result = fv.edit(result, hair=state.style)
    return result if state.mirrored == shown.mirrored else fv.edit(result, hair_mirrored=state.mirrored)


def with_hair_numbers(result: fv.FitResult, state: HairState | None) -> fv.FitResult:
    """The head with the colour and the numbers of a state; a value that was not moved keeps its exact number."""
    if state is None or not has_hair(result.model):
        return result
    shown, wanted = HairState.of(result), {}
    for name in ("length", "fringe", "wave", "grey"):
        if getattr(state, name) != getattr(shown, name):
            wanted[f"hair_{name}"] = getattr(state, name)
    if state.volume != shown.volume:
        share, hair = state.volume / (shown.volume or 1.0), result.params.hair
        volumes = {name.removeprefix("volume_"): share * getattr(hair, name) for name in _VOLUMES}
        wanted["hair_volume"] = {side: min(volume, NUMBERS["volume"][1]) for side, volume in volumes.items()}
    if state.color != shown.color:
        wanted |= {"hair_color": state.color, "hair_grey": state.grey}
    return fv.edit(result, **wanted) if wanted else result


def random_state(result: fv.FitResult, seed: int) -> HairState:
    """Hair that is usual for age and sex of a head."""
    return HairState.of(fv.randomize(result, seed, keep=("skin", *result.model.attribute_names)))


def has_hair(model: fv.FaceModel) -> bool:
    """Whether a model has parts for hair."""
    return model.parts is not None and bool(model.parts.styles("hair"))


def base_of(result: fv.FitResult) -> dict[str, float] | None:
    """Numbers of the hair in the files of the 3D view, to which the sliders are relative; None without hair."""
    if not has_hair(result.model):
        return None
    names = ("length", "fringe", "wave", *_VOLUMES)
    return {name: float(getattr(result.params.hair, name)) for name in names}


def start_of(result: fv.FitResult) -> dict | None:
    """Values of the panel that show a head as it is; None for a model without hair."""
    return asdict(HairState.of(result)) if has_hair(result.model) else None


def _number(value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise fv.ParameterError("page.forged")
    return float(min(max(value, low), high))
