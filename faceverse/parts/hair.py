"""Hair of a head: colour and shape as a value, and hair parts in the person's colour.

Two slots hold hair. "scalp" is a shell close above the skin with short hairs and a soft hair line; "hair" are the
strands of a style, as cards. The textures in the file are grey: luminance about a mean, to be tinted here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ..errors import ParameterError
from ..graphics.lighting import linear_from_srgb, srgb_from_linear
from ..messages import Message
from .hair_shape import CONTROL_POINTS, hair_fields, mirrored_part
from .identity import Same
from .part import HAIR_SLOTS, Part

MEAN_LUMINANCE = 0.25
"""Mean linear luminance of a hair texture in the file, where it covers; tinting makes it the colour asked for."""

RANGES: Mapping[str, tuple[float, float]] = {
    "grey": (0.0, 1.0),
    "length": (0.2, 2.0),
    "volume_top": (0.0, 3.0),
    "volume_sides": (0.0, 3.0),
    "volume_back": (0.0, 3.0),
    "fringe": (0.0, 2.0),
    "wave": (0.0, 1.0),
}
"""Least and greatest value of each number of `Hair`."""

_GREY_HAIR = (0.78, 0.77, 0.75)  # sRGB of hair without pigment
_SCALP_DARKNESS = 0.75  # short hairs show their roots and the skin's shade between them
_GREY_CONTRAST = 1.0  # how much more bright strands are grey than dark ones
_CACHED_TEXTURES = 16


@dataclass(frozen=True)
class Hair:
    """Colour and shape of the hair, relative to its style as made.

    Args:
        color: sRGB in 0..1, three numbers: the mean colour.
        tip_color: likewise for the tips; None: as `color`.
        grey: share 0..1 of grey hairs.
        length: factor of the length, 0.2..2.
        volume_top, volume_sides, volume_back: factors of the distance from the skull, 0..3.
        fringe: factor of the length of the hair before the forehead, 0..2.
        wave: 0 as made .. 1 curly.
        mirrored: with the parting on the other side.
        warp: (K, 3) float32 metres, displacements of `CONTROL_POINTS`.

    Raises:
        ParameterError: values outside these ranges.
    """

    color: tuple[float, float, float] = (0.23, 0.15, 0.10)
    tip_color: tuple[float, float, float] | None = None
    grey: float = 0.0
    length: float = 1.0
    volume_top: float = 1.0
    volume_sides: float = 1.0
    volume_back: float = 1.0
    fringe: float = 1.0
    wave: float = 0.0
    mirrored: bool = False
    warp: np.ndarray = field(default_factory=lambda: np.zeros((len(CONTROL_POINTS), 3), np.float32))

    def __post_init__(self) -> None:
        for name in ("color", "tip_color"):
            value = getattr(self, name)
            if name == "color" or value is not None:
                object.__setattr__(self, name, _colour(name, value))
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not _is_number(value) or not low <= value <= high:
                raise ParameterError("hair.range", name=name, low=low, high=high, value=repr(value)[:80])
        try:
            warp = np.asarray(self.warp, np.float32)
        except (TypeError, ValueError):
            warp = np.zeros(0, np.float32)
        if warp.shape != (len(CONTROL_POINTS), 3) or not np.isfinite(warp).all():
            raise ParameterError("hair.warp", count=len(CONTROL_POINTS), shape=warp.shape)
        object.__setattr__(self, "warp", warp)
        if not isinstance(self.mirrored, bool):
            raise ParameterError("hair.mirrored", value=repr(self.mirrored)[:80])

    def replace(self, **changes: Any) -> Hair:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def on(self, shape: Mapping[str, float]) -> Hair:
        """The hair on a style that changes its mesh itself: factors multiply, waves add up, limits hold.

        Args:
            shape: of the part, see `Part.shape`.
        """
        values: dict[str, Any] = {}
        for name, value in shape.items():
            low, high = RANGES[name]
            own = getattr(self, name)
            values[name] = float(np.clip(own + value if name == "wave" else own * value, low, high))
        return self.replace(**values) if values else self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hair) and all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]


def hair_entry(hair: Hair) -> dict[str, Any]:
    """Hair as a JSON file holds it, restored exactly by `hair_of_file`."""
    entry = {f.name: getattr(hair, f.name) for f in fields(hair)}
    return entry | {"warp": [float(value) for value in hair.warp.reshape(-1)] if hair.warp.any() else None}


def hair_of_file(entry: Any) -> Hair:
    """Hair as a file holds it.

    Args:
        entry: what `hair_entry` gave; None for a file from before heads had hair.

    Raises:
        ValueError: not a dictionary, or with wrong values.
    """
    if entry is None:
        return Hair()
    names = {f.name for f in fields(Hair)}
    if not isinstance(entry, dict) or not set(entry) <= names:
        raise ValueError(Message("hair.entry", found=str(entry)[:200]))
    values = dict(entry)
    warp = values.pop("warp", None)
    try:
        if warp is not None:
            values["warp"] = np.array(warp, np.float32).reshape(-1, 3)
        return Hair(**values)
    except ParameterError as error:
        raise ValueError(error.message) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(Message("hair.entry", found=str(entry)[:200])) from error


def with_hair(parts: Mapping[str, Part], hair: Hair) -> dict[str, Part]:
    """The parts by slot, with hair in the colour of a person and the parting on the chosen side.

    Args:
        parts: slot -> part.
        hair: colour and shape; shape is applied by `hair_shape.hair_vertices`.
    """
    result = dict(parts)
    for slot in HAIR_SLOTS:
        if slot not in result:
            continue
        part, tips = result[slot], None
        if slot == "hair":
            tips = hair.tip_color
            part = mirrored_part(part) if hair.mirrored else part
        share = None if tips is None else Same(tip_share(result[slot]))
        darkness = _SCALP_DARKNESS if slot == "scalp" else 1.0
        colours = (_scaled(hair.color, darkness), _scaled(tips or hair.color, darkness))
        texture = _tinted(Same(part.material.texture), colours, _scaled(_GREY_HAIR, darkness), hair.grey, share)
        result[slot] = replace(part, material=replace(part.material, texture=texture))
    return result


def mean_colour(hair: Hair) -> np.ndarray:
    """(3,) mean linear RGB of the hair at its roots: pigmented and grey hairs together."""
    colour, grey = _linear(hair.color), _linear(_GREY_HAIR)
    return colour + hair.grey * (grey - colour)


def tinted(neutral: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Give a grey hair texture (H, W, 4) uint8 a colour; equal arguments share one read-only texture.

    Args:
        neutral: with a mean luminance of `MEAN_LUMINANCE`.
        colour: (3,) linear RGB, the mean of the result.
    """
    red, green, blue = (float(c) for c in colour)
    return _tinted(Same(neutral), ((red, green, blue),) * 2, (red, green, blue), 0.0, None)


def tip_share(part: Part) -> np.ndarray:
    """(H, W) float32: how near to the tips of the hair the texels of a hair part are, 0 root .. 1 tip."""
    mesh = (Same(values) for values in (part.binding, part.uv, part.uv_faces, part.faces))
    return _tip_share(*mesh, part.material.texture.shape)


@lru_cache(maxsize=_CACHED_TEXTURES)
def _tip_share(binding: Same, uv: Same, uv_faces: Same, faces: Same, shape: tuple[int, ...]) -> np.ndarray:
    along = hair_fields(binding.value).along[faces.value].ravel()
    height, width = shape[:2]
    place = (uv.value[uv_faces.value].reshape(-1, 2) * (width, height)).astype(int)
    texel = np.clip(place[:, 1], 0, height - 1) * width + np.clip(place[:, 0], 0, width - 1)
    weights = along, np.ones(len(along))
    sums = [np.bincount(texel, weight, height * width).reshape(height, width) for weight in weights]
    total = np.full((2, height, width), 1e-12)
    for scale, weight in ((4.0, 1.0), (12.0, 1e-3), (40.0, 1e-6)):  # near vertices count, far ones only between them
        total += [weight * gaussian_filter(values, scale) for values in sums]
    share = np.float32(np.clip(total[0] / total[1], 0, 1))
    share.setflags(write=False)
    return share


@lru_cache(maxsize=_CACHED_TEXTURES)
def _tinted(
    neutral: Same[np.ndarray],
    colours: tuple[tuple[float, float, float], tuple[float, float, float]],
    white: tuple[float, float, float],
    grey: float,
    share: Same[np.ndarray] | None,
) -> np.ndarray:
    """A texture with colours (linear RGB) of roots and tips, and a share of grey hairs; `share` of the tips at each
    texel."""
    pixels = neutral.value
    relative = linear_from_srgb(torch.arange(256, dtype=torch.float64) / 255).numpy()[:, None] / MEAN_LUMINANCE
    # Bright strands are grey first.
    amount = np.clip(grey + _GREY_CONTRAST * grey * (1 - grey) * (relative - 1), 0, 1)
    roots, tips = (relative * (np.array(colour) + amount * (np.array(white) - colour)) for colour in colours)
    result = np.empty_like(pixels)
    if share is None:
        result[..., :3] = _encoded(roots)[pixels[..., 0]]
    else:
        levels, along = pixels[..., 0], share.value[..., None]
        result[..., :3] = _encoded(roots[levels] + along * (tips - roots)[levels])
    result[..., 3] = pixels[..., 3]
    result.setflags(write=False)  # many heads share it
    return result


def _linear(srgb: tuple[float, float, float]) -> np.ndarray:
    return linear_from_srgb(torch.tensor(srgb, dtype=torch.float64)).numpy()


def _scaled(srgb: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    """Linear RGB of a colour, times a factor."""
    red, green, blue = (factor * _linear(srgb)).tolist()
    return red, green, blue


def _encoded(linear: np.ndarray) -> np.ndarray:
    srgb = srgb_from_linear(torch.from_numpy(np.clip(linear, 0, 1)))
    return (srgb * 255 + 0.5).to(torch.uint8).numpy()


def _colour(name: str, value: Any) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(c) for c in value)
    except (TypeError, ValueError):
        red = green = blue = math.nan
    if not all(0 <= c <= 1 for c in (red, green, blue)):
        raise ParameterError("hair.color", name=name, value=repr(value)[:80])
    return red, green, blue


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
