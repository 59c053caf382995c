"""Separate the light that spherical harmonics leave in a texture from the skin's own colour.

What remains after dividing by the fitted shading is skin times cast shadows, highlights, reflections of surroundings
and errors of the shape. Skin changes colour within millimetres (moles, lips, brows, pores) or hardly at all: what
changes slowly is mostly light. So the logarithm of the ratio to the model's albedo is split into the tone of the whole
skin, a smooth field, most of which is taken for light, and the detail. Highlights are found by their colour: light that
is reflected at the surface has the light's own colour, not the skin's.

References: Barrow and Tenenbaum 1978, "Recovering intrinsic scene characteristics from images"; Shafer 1985, "Using
color to separate reflection components" (dichromatic reflection).
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ..graphics.lighting import LUMINANCE
from ..graphics.pull_push import pull_push
from ..model.face_model import FaceModel
from ..model.skin_texture import smoothstep
from ..model.texture_maps import bake_planes

LOW_SIZE = 256  # of the maps of smooth fields
MEDIAN_TEXELS, SMOOTH_TEXELS = 5, 1.5  # of LOW_SIZE: windows of the smooth field, about 6 mm
# Share of the smooth field that belongs to the skin, by lightness and hue: what is wider than BROAD_TEXELS is light,
# except for a blush or the shadow of a beard; of narrower structures (lines, bags under the eyes) more is the skin's.
KEPT_BROAD, KEPT_NARROW = (0.45, 0.4), (1.0, 0.8)
KEPT_TONE = (1.0, 0.65)  # the same of the tone's difference from the model's albedo, which knows what skins there are
MOST_KEPT = (0.6, 0.2)  # in logarithms: skin varies less than light does
BROAD_TEXELS = 9.0  # of LOW_SIZE: Gaussian sigma
SHADOW = (0.7, 0.6)  # log luminance of the smooth field from which detail is unreliable, and range of the transition
FEATURES = ("lips", "eyelids", "eyebrows", "eyeballs", "eye_sockets", "mouth_inside", "teeth", "tongue")
FEATURE_BLUR = 1.5  # texels of LOW_SIZE
MIN_SKIN = 0.004  # share of the map that has to show plain skin
MIN_CONTRAST = 0.12  # of skin and light, red against blue, below which highlights cannot be told
# Hair on forehead and temples that no label tells of: contrast of strands, darkness, difference in hue from the skin
# below the brows, in logarithms. Each alone is enough; wrinkles reach half of the contrast.
FRINGE_CONTRAST, FRINGE_DARKNESS, FRINGE_HUE = 0.22, 0.5, 0.6
BEARD_TEXELS, BEARD_DARKNESS = 6.0, 0.4  # of LOW_SIZE: reach beyond the label; log luminance below the skin's
STRAND_TEXELS = 4.0  # of LOW_SIZE: Gaussian sigma of the window in which contrast is measured
BROW_MARGIN_M = (0.004, 0.010)  # height above the brows where the forehead begins
SIDE_FADE_M, SIDES_BELOW_M = 0.008, 0.07  # beside the brows hair hangs down to the mouth
HIGHLIGHT_FLOOR = 0.04  # log luminance above the skin around from which texels may be highlights
_LUMINANCE = np.array(LUMINANCE, np.float32)

_cache: weakref.WeakKeyDictionary[FaceModel, np.ndarray] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class EvenSkin:
    """Parts of the log ratio (3, S, S) of the observed to the model's albedo: tone + uneven + detail.

    Attributes:
        tone: (3, 1, 1) of the whole skin.
        uneven: (3, S, S) the smooth field.
        kept: (3, S, S) the part of tone and smooth field that belongs to the skin.
        reliability: (S, S) 0..1 of the detail, low in deep shadow, in bright light and under hair.
    """

    tone: np.ndarray
    uneven: np.ndarray
    kept: np.ndarray
    reliability: np.ndarray


def even_skin(
    model: FaceModel, change: np.ndarray, skin: np.ndarray, beard: np.ndarray | None = None
) -> EvenSkin:
    """Split the log ratio of the observed to the model's albedo.

    Args:
        model: whose lips, brows and eyes are no plain skin.
        change: (3, S, S) the ratio's logarithm.
        skin: (S, S) 0..1 confidence of seen skin.
        beard: (L, L) 0..1 at LOW_SIZE, or at S where that is smaller.
    """
    side = min(change.shape[-1], LOW_SIZE)
    beard = np.zeros((side, side), np.float32) if beard is None else beard
    weight = _shrunk(skin, side) * (1 - beard) * plain_skin(model, side)
    values = _shrunk(change * skin, side) / np.maximum(_shrunk(skin, side), 1e-6)
    upper = fringe_zone(model, side)
    seen = (weight > 0.3) & (upper < 0.5)
    if seen.mean() < MIN_SKIN:
        zero = np.zeros_like(change)
        return EvenSkin(np.zeros((3, 1, 1), np.float32), zero, zero, np.ones_like(change[0]))
    tone = np.median(values[:, seen], axis=1)[:, None, None].astype(np.float32)
    covered = upper * _fringe(values - tone, weight)
    # Dark skin beside a beard is more of it.
    stubble = smoothstep(gaussian_filter(beard, BEARD_TEXELS) / 0.05)
    stubble = stubble * smoothstep(-np.tensordot(_LUMINANCE, values - tone, 1) / BEARD_DARKNESS)
    field = _smooth_field(values - tone, weight * (1 - np.maximum(covered, stubble)))
    broad = np.stack([gaussian_filter(plane, BROAD_TEXELS) for plane in field])
    kept = _shares(tone, KEPT_TONE) + _limited(broad, KEPT_BROAD) + _limited(field - broad, KEPT_NARROW)
    depth = np.abs(np.tensordot(_LUMINANCE, field, 1))
    reliable = (1 - smoothstep((depth - SHADOW[0]) / SHADOW[1])) * (1 - covered)
    size = change.shape[-1]
    return EvenSkin(tone, enlarged(field, size), enlarged(kept, size), enlarged(reliable[None], size)[0])


def _shares(field: np.ndarray, shares: tuple[float, float]) -> np.ndarray:
    """Shares of the lightness and of the hue of a logarithm (3, ...)."""
    grey = np.tensordot(_LUMINANCE, field, 1)[None]
    return shares[0] * grey + shares[1] * (field - grey)


def _limited(field: np.ndarray, shares: tuple[float, float]) -> np.ndarray:
    """The same, less of what exceeds MOST_KEPT."""
    lightness, hue = _shares(field, (shares[0], 0.0)), _shares(field, (0.0, shares[1]))
    return lightness / (1 + np.abs(lightness) / MOST_KEPT[0]) + hue / (1 + np.abs(hue) / MOST_KEPT[1])


def _fringe(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(L, L) 0..1, where differences (3, L, L) from the skin's tone look like hair."""
    grey, seen = np.tensordot(_LUMINANCE, values, 1), (weight > 0.3).astype(np.float32)
    share = np.maximum(gaussian_filter(seen, STRAND_TEXELS), 1e-3)
    differs = np.abs(values - grey).max(0)
    local, hue = (gaussian_filter(plane * seen, STRAND_TEXELS) / share for plane in (grey, differs))
    strands = gaussian_filter(((grey - local) * seen) ** 2, STRAND_TEXELS) / share / FRINGE_CONTRAST**2
    score = strands + (np.minimum(local, 0) / FRINGE_DARKNESS) ** 2 + (hue / FRINGE_HUE) ** 2
    fringe = smoothstep(score - 1)
    return np.maximum(fringe, smoothstep(2 * gaussian_filter(fringe, STRAND_TEXELS) - 0.3))


def fringe_zone(model: FaceModel, side: int) -> np.ndarray:
    """(side, side) 0..1, 1 above the brows and on the sides of the face above the mouth."""
    brows = model.regions.get("eyebrows", np.zeros(0, np.int64))
    if not len(brows):
        return np.zeros((side, side), np.float32)
    top, half_width = model.mean_vertices[brows, 1].max(), np.abs(model.mean_vertices[brows, 0]).max()
    across, up = np.abs(model.mean_vertices[:, :1]), model.mean_vertices[:, 1:2] - top
    above = smoothstep((up - BROW_MARGIN_M[0]) / np.diff(BROW_MARGIN_M))
    beside = smoothstep((across - half_width) / SIDE_FADE_M) * smoothstep((up + SIDES_BELOW_M) / 0.01)
    return bake_planes(model, np.maximum(above, beside), side)[0]


def plain_skin(model: FaceModel, side: int) -> np.ndarray:
    """(side, side) 0..1, 0 on and close to lips, brows, lids and eyes."""
    if model not in _cache or _cache[model].shape[0] != side:
        feature = np.zeros((len(model.mean_vertices), 1), np.float32)
        for name in FEATURES:
            feature[model.regions.get(name, np.zeros(0, np.int64))] = 1
        blurred = gaussian_filter(bake_planes(model, feature, side)[0], FEATURE_BLUR * side / LOW_SIZE)
        _cache[model] = 1 - smoothstep(blurred / 0.3)
    return _cache[model]


def without_highlights(
    colour: np.ndarray, diffuse: np.ndarray, light: np.ndarray, inside: np.ndarray
) -> np.ndarray:
    """Subtract light reflected at the surface of the skin from colours (3, S, S), linear.

    A colour is `m * diffuse + s * light` with unknown m and s; red and blue determine both. Where the reflection covers
    everything (saturated pixels) the diffuse colour itself is left.

    Args:
        diffuse: (3, S, S) the smooth colour of the skin there.
        light: (3, S, S) shading, whose colour is the reflection's.
        inside: (S, S) 0..1, plain skin, where there may be highlights.
    """
    hue = light / np.maximum(light.mean(0), 1e-4)
    denominator = hue[2] * diffuse[0] - hue[0] * diffuse[2]
    contrast = denominator / np.maximum(diffuse[0] * hue[2], 1e-5)
    amount = (colour[2] * diffuse[0] - colour[0] * diffuse[2]) / np.maximum(denominator, 1e-4)
    brighter = np.log(np.maximum(colour, 1e-4) / np.maximum(diffuse, 1e-4)).mean(0)
    amount = np.maximum(amount, 0) * smoothstep((brighter - HIGHLIGHT_FLOOR) / 0.1)
    amount *= inside * smoothstep((contrast - MIN_CONTRAST) / 0.1)
    amount = gaussian_filter(amount, 0.8 * colour.shape[-1] / 1024)
    return np.maximum(colour - amount * hue, np.minimum(colour, diffuse))


def _smooth_field(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Smooth field (3, L, L) of values with weights, continued where they are 0; shadows keep their edges."""
    import cv2

    filled = pull_push(values, weight)
    filled = np.stack([cv2.medianBlur(np.ascontiguousarray(plane, np.float32), MEDIAN_TEXELS) for plane in filled])
    field = pull_push(filled, weight)
    return np.stack([gaussian_filter(plane, SMOOTH_TEXELS) for plane in field])


def _shrunk(maps: np.ndarray, side: int) -> np.ndarray:
    """Area average of maps (..., S, S) at side x side."""
    step = maps.shape[-1] // side
    if step <= 1:
        return maps
    planes = torch.from_numpy(np.ascontiguousarray(maps)).reshape(1, -1, *maps.shape[-2:])
    return torch.nn.functional.avg_pool2d(planes, step)[0].numpy().reshape(*maps.shape[:-2], side, side)


def enlarged(maps: np.ndarray, size: int) -> np.ndarray:
    """Maps (C, L, L) at size x size, bilinear."""
    if maps.shape[-1] == size:
        return maps
    planes = torch.from_numpy(np.ascontiguousarray(maps, np.float32))[None]
    return torch.nn.functional.interpolate(planes, (size, size), mode="bilinear", align_corners=False)[0].numpy()
