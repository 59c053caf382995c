"""Irises in the colour of a person: recolour the neutral texture of the eyes.

The texture of the eye parts is an azimuthal map of the eyeball: its centre lies in front of the pupil, the iris ends at
the radius `IRIS_UV`, the back of the ball lies at the rim. The file holds it with a grey iris, whose variation (fibres,
crypts) is kept when the iris takes a colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from ..errors import ParameterError
from ..graphics.lighting import LUMINANCE, linear_from_srgb, srgb_from_linear
from .identity import Same
from .part import EYE_SLOTS, IRIS_UV, Part

PAINTED_STYLE = "natural"
"""Style of the eyes whose irises take the colour of the person."""

IRIS_MM, PUPIL_MM = 11.7, 3.8  # diameters: the horizontal visible iris of adults, a pupil in indoor light
PUPIL_RANGE_MM = (1.5, 9.0)
NEUTRAL_PUPIL = 0.29  # radius of the pupil in the neutral texture, in radii of the iris
INNER_IRIS, OUTER_SCLERA = 0.94, 1.11  # radii, in those of the iris, between which its border disturbs both
COLOURED_IRIS = 0.86  # radius to which the mean is the colour of the iris: from there on its border is darker

_BORDER = (0.95, 1.09)  # radii between which the iris gives way to the sclera
_LIMBUS_RADIUS, _LIMBUS_WIDTH, _LIMBUS_DEPTH = 0.95, 0.085, 0.68  # dark ring at the border
_PUPIL_EDGE = 0.05  # radii over which the pupil's margin is soft
_PUPIL = 0.004  # linear
_PALE = (0.03, 0.09)  # luminance of an iris from which its fibres begin to stand out, and at which they do fully
_DARK_CONTRAST = 0.55  # contrast of the fibres of a dark iris, whose pigment covers them
# Around the pupil the iris is warmer and lighter: gains of linear RGB for pale and dark irises.
_PALE_COLLARETTE, _DARK_COLLARETTE = (1.45, 1.15, 0.75), (1.5, 1.3, 1.1)
_COLLARETTE_WIDTH = 0.30  # of the iris between pupil and border
_CACHED_TEXTURES = 16


def with_irises(parts: Mapping[str, Part], iris: np.ndarray) -> dict[str, Part]:
    """The parts by slot, with eyes of style `PAINTED_STYLE` in the colour of a person.

    Args:
        parts: slot -> part.
        iris: (3,) linear RGB.
    """
    return {
        slot: with_iris(part, iris) if slot in EYE_SLOTS and part.style == PAINTED_STYLE else part
        for slot, part in parts.items()
    }


def with_iris(eye: Part, iris: np.ndarray, pupil_mm: float = PUPIL_MM) -> Part:
    """An eye whose iris has this colour; equal arguments share one read-only texture.

    Args:
        eye: a part with the neutral texture.
        iris: (3,) linear RGB, see `paint_iris`.
        pupil_mm: diameter of the pupil, on an iris of `IRIS_MM`.

    Raises:
        ParameterError: as for `paint_iris`.
    """
    colour = tuple(np.asarray(iris, np.float32).reshape(-1).tolist())
    texture = _painted(Same(eye.material.texture), colour, float(pupil_mm))
    return replace(eye, material=replace(eye.material, texture=texture))


def paint_iris(neutral: np.ndarray, iris: np.ndarray, pupil_mm: float = PUPIL_MM) -> np.ndarray:
    """Give the iris of an eye's neutral texture (S, S, 4) uint8 a colour; the sclera keeps its own.

    Args:
        neutral: with the layout of this module.
        iris: (3,) linear RGB: the mean from the pupil's margin to `COLOURED_IRIS`.
        pupil_mm: diameter of the pupil, `PUPIL_RANGE_MM`, on an iris of `IRIS_MM`.

    Returns:
        (S, S, 4) uint8 sRGB.

    Raises:
        ParameterError: a colour that is not three numbers in 0..1, or a pupil of another size.
    """
    iris = np.asarray(iris, np.float64)
    if iris.shape != (3,) or not ((iris >= 0) & (iris <= 1)).all():
        raise ParameterError("parts.iris", iris=np.array2string(iris, precision=3))
    if not PUPIL_RANGE_MM[0] <= pupil_mm <= PUPIL_RANGE_MM[1]:
        low, high = PUPIL_RANGE_MM
        raise ParameterError("parts.pupil", pupil=pupil_mm, low=low, high=high)
    box, radius, unit = _iris_box(neutral.shape[0])
    pupil = pupil_mm / IRIS_MM
    inside = np.clip((radius - pupil) / (1 - pupil), 0, 1)  # 0 at the pupil's margin, 1 at the border
    fibres = _fibres(neutral, NEUTRAL_PUPIL + inside * (1 - NEUTRAL_PUPIL), unit)
    colour = _iris_colours(iris, fibres, inside)
    colour *= 1 - _LIMBUS_DEPTH * np.exp(-(((radius - _LIMBUS_RADIUS) / _LIMBUS_WIDTH) ** 2))[..., None]
    is_iris = (radius > pupil + _PUPIL_EDGE) & (radius < COLOURED_IRIS)
    colour *= iris / np.maximum(colour[is_iris].mean(axis=0), 1e-6)
    colour = _blend(np.full(3, _PUPIL), colour, _step(radius, pupil - _PUPIL_EDGE, pupil + _PUPIL_EDGE))
    sclera = _sampled(neutral, np.maximum(radius, OUTER_SCLERA), unit)
    painted = neutral.copy()
    painted[box][..., :3] = _encoded(_blend(colour, sclera, _step(radius, *_BORDER)))
    return painted


def wet_share(eye: Part, uv: np.ndarray) -> np.ndarray:
    """Share (P,) float32 of the reflections at texture coordinates (2, P) of an eye that its own surface shows: all on
    the sclera, none on the iris of a style that lies behind a cornea."""
    if eye.style != PAINTED_STYLE:
        return np.ones(uv.shape[1], np.float32)
    radius = np.hypot(uv[0] - 0.5, uv[1] - 0.5) / IRIS_UV
    return np.float32(_step(radius, *_BORDER))


def eye_radii(size: int) -> np.ndarray:
    """(S, S) distance of the texture's pixels from its centre, in radii of the iris."""
    y, x = np.mgrid[:size, :size] + (0.5 - size / 2)
    return np.hypot(x, y) / (IRIS_UV * size)


def _iris_box(size: int) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The part of the texture that the iris and its border take, its radii (h, w), and its directions (2, h, w)."""
    reach = int(np.ceil(OUTER_SCLERA * IRIS_UV * size)) + 1
    side = slice(size // 2 - reach, size // 2 + reach)
    y, x = np.mgrid[side, side] + (0.5 - size / 2)
    length = np.hypot(x, y)
    return (side, side), length / (IRIS_UV * size), np.stack([y, x]) / length


def _sampled(neutral: np.ndarray, radius: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Linear RGB (h, w, 3) of the texture at radii (h, w) in directions (2, h, w)."""
    size = neutral.shape[0]
    places = unit * (radius * IRIS_UV * size) + (size / 2 - 0.5)
    linear = linear_from_srgb(torch.from_numpy(neutral[..., :3] / np.float64(255))).numpy()
    return np.stack([map_coordinates(linear[..., c], places, order=1, mode="nearest") for c in range(3)], axis=-1)


def _fibres(neutral: np.ndarray, radius: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Variation (h, w) of the iris about 1, of the grey iris at these radii."""
    least, most = NEUTRAL_PUPIL + _PUPIL_EDGE, INNER_IRIS
    grey = _sampled(neutral, np.clip(radius, least, most), unit) @ np.array(LUMINANCE)
    return np.maximum(grey / grey[(radius > least) & (radius < most)].mean(), 1e-3)


def _iris_colours(iris: np.ndarray, fibres: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Linear RGB (h, w, 3) of an iris without its dark border, up to a factor for each channel."""
    pale = _step(float(iris @ np.array(LUMINANCE)), *_PALE)
    contrast = _DARK_CONTRAST + (1 - _DARK_CONTRAST) * pale
    collarette = np.exp(-((inside / _COLLARETTE_WIDTH) ** 2))[..., None]
    warmth = pale * np.log(_PALE_COLLARETTE) + (1 - pale) * np.log(_DARK_COLLARETTE)
    return iris * (fibres**contrast)[..., None] * np.exp(collarette * warmth)


def _blend(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return first + share[..., None] * (second - first)


def _step(x, low: float, high: float):
    """Cubic Hermite step from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _encoded(linear: np.ndarray) -> np.ndarray:
    srgb = srgb_from_linear(torch.from_numpy(np.clip(linear, 0, 1)))
    return (srgb * 255 + 0.5).to(torch.uint8).numpy()


@lru_cache(maxsize=_CACHED_TEXTURES)
def _painted(neutral: Same[np.ndarray], iris: tuple[float, ...], pupil_mm: float) -> np.ndarray:
    texture = paint_iris(neutral.value, np.array(iris), pupil_mm)
    texture.setflags(write=False)  # many heads share it
    return texture
