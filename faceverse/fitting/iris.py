"""Colour of a person's irises in a photograph.

The eyes lie in a shadow of their own (brows, lids, lashes) and often in light of another colour than the fitted one,
whose colour cannot be told from the skin's. The white of the eye beside the iris shows both: it is about as white in
everybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from ..graphics.lighting import LUMINANCE, linear_from_srgb, sh_basis
from ..parts.eyes import COLOURED_IRIS

# Detected points: the centre of each iris, the four points after it on its border, and the rim of the lids in order.
_EYES = {
    468: (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    473: (362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382),
}
_UPPER, _LOWER = 4, 12  # rows of the rim in the middle of the upper and the lower lid
_LEAST_RADIUS_PX, _LEAST_OPENING = 3.0, 0.8  # of the iris; of the lids, in its radii
_SHRUNK, _LOWERED = (0.92, 0.80), 0.04  # of the opening, away from lashes and the shadow of the upper lid
_IRIS_RING, _SCLERA_RING = (0.45, COLOURED_IRIS), (1.2, 2.4)  # radii: without pupil and border; without skin
_IRIS_LUMINANCE = (0.5, 2.0)  # of the median: lashes are darker, reflections brighter
_WHITEST = 0.7  # quantile of blue from which texels beside the iris are the white of the eye; skin has less
_LEAST_TEXELS = (12, 8)  # of the iris, of the white
_SCLERA_ALBEDO = (0.45, 0.385, 0.355)  # with the vessels and the lids' red that photographs mix into it
# Share of the white's difference from its albedo that is corrected, brightness and colour: it is measured with errors,
# and the renderings have less shadow on the eyes than photographs.
_SHADOW_SHARE, _CAST_SHARE = 0.5, 0.55
_SHADOW_RANGE, _MAX_CAST = (-1.4, 0.0), 0.5  # logarithms
_UNSEEN_SHADOW = -0.5  # where no white is seen
# Brown irises have one hue, melanin's, which reflections and compression change. Linear RGB of luminance 1.
_BROWN, _BROWN_SHARE = (1.73, 0.87, 0.43), 0.4
_BLACK = 0.002  # added to the colour, so that noise gives no hue to what is nearly black
IRIS_LUMINANCE_RANGE = (0.014, 0.22)
"""Least and greatest luminance of irises, linear."""


@dataclass(frozen=True)
class EyeColours:
    """Linear RGB (3,) of iris and white (None where it is hidden) and the number of the iris's texels."""

    iris: np.ndarray
    white: np.ndarray | None
    count: int


def eye_colours(photo: np.ndarray, landmarks_px: np.ndarray) -> tuple[EyeColours, ...]:
    """Measure the eyes of a face that are open and large enough.

    Args:
        photo: (H, W, 3) uint8.
        landmarks_px: (478, 2) as detected.
    """
    measured = (_measure(photo, landmarks_px, centre) for centre in _EYES)
    return tuple(eye for eye in measured if eye is not None)


def iris_colour(eyes: Iterable[EyeColours], light: np.ndarray) -> np.ndarray | None:
    """Estimate the linear RGB (3,) of the irises from the eyes of a picture; None without eyes.

    Both irises get one colour: between the two eyes of a photograph, light and reflections differ far more than the
    irises of nearly all people.

    Args:
        eyes: as measured by `eye_colours`.
        light: (9, 3) spherical-harmonics coefficients as fitted; the front of the face has its shading.
    """
    front = sh_basis(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)).numpy() @ np.asarray(light, np.float64)
    shade = np.maximum(front, 0.05)
    colours, weights = [], []
    for seen in eyes:
        colours.append(np.log(_albedo(seen, shade)))
        weights.append(seen.count * np.sqrt(seen.iris.mean()))  # the eye in the light shows more than the other
    if not colours:
        return None
    colour = np.exp(np.average(colours, axis=0, weights=weights))
    luminance = float(colour @ np.array(LUMINANCE))
    likely = _BROWN_SHARE * np.clip(np.log(colour[0] / colour[1]) / np.log(_BROWN[0] / _BROWN[1]), 0, 1)
    colour = colour ** (1 - likely) * (luminance * np.array(_BROWN)) ** likely
    luminance = float(colour @ np.array(LUMINANCE))
    return np.clip(colour * (np.clip(luminance, *IRIS_LUMINANCE_RANGE) / luminance), 0, 1).astype(np.float32)


def _albedo(seen: EyeColours, shade: np.ndarray) -> np.ndarray:
    """Linear RGB (3,) of one iris without light, shadow and colour cast."""
    shadow, cast = _UNSEEN_SHADOW, np.zeros(3)
    if seen.white is not None:
        difference = np.log(np.maximum(seen.white, 1e-3) / (shade * _SCLERA_ALBEDO))
        shadow = float(difference @ np.array(LUMINANCE))
        cast = np.clip(difference - shadow, -_MAX_CAST, _MAX_CAST)
    correction = _SHADOW_SHARE * np.clip(shadow, *_SHADOW_RANGE) + _CAST_SHARE * cast
    return (seen.iris + _BLACK) / shade * np.exp(-correction)


def _measure(photo: np.ndarray, landmarks_px: np.ndarray, centre: int) -> EyeColours | None:
    """Colours of the eye around detected point `centre`; None where too little of it is seen."""
    rim = landmarks_px[list(_EYES[centre])].astype(np.float64)
    middle = landmarks_px[centre]
    radius = float(np.linalg.norm(landmarks_px[centre + 1 : centre + 5] - middle, axis=1).mean())
    if radius < _LEAST_RADIUS_PX or rim[_LOWER, 1] - rim[_UPPER, 1] < _LEAST_OPENING * radius:
        return None
    first = np.maximum(np.floor(rim.min(0)).astype(int), 0)
    last = np.minimum(np.ceil(rim.max(0)).astype(int) + 1, photo.shape[1::-1])
    if (last <= first).any():
        return None
    row, column = np.mgrid[first[1] : last[1], first[0] : last[0]]
    linear = linear_from_srgb(torch.from_numpy(photo[row, column] / 255.0)).numpy()
    opening = rim.mean(0) + (rim - rim.mean(0)) * _SHRUNK + (0, _LOWERED * radius)
    is_open = _is_inside(opening, column + 0.5, row + 0.5)
    ring = np.hypot(column + 0.5 - middle[0], row + 0.5 - middle[1]) / radius
    iris, white = (linear[is_open & (ring > a) & (ring < b)] for a, b in (_IRIS_RING, _SCLERA_RING))
    if len(iris) < _LEAST_TEXELS[0]:
        return None
    luminance = iris @ np.array(LUMINANCE)
    low, high = np.multiply(np.median(luminance), _IRIS_LUMINANCE)
    chosen = iris[(luminance >= low) & (luminance <= high)]
    bright = None
    if len(white) >= _LEAST_TEXELS[1]:
        bright = np.median(white[white[:, 2] >= np.quantile(white[:, 2], _WHITEST)], axis=0)
    return EyeColours(np.median(chosen, axis=0), bright, len(chosen))


def _is_inside(polygon: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points lie in a polygon (K, 2), by the even-odd rule."""
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0)):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (x1 - x0) * (y - y0) / (y1 - y0))
    return inside
