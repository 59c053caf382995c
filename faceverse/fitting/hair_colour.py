"""Colour of the hair in a photograph, in the light of the fitted head."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_erosion

from ..graphics.lighting import LUMINANCE, dominant_lamp, linear_from_srgb, shading, srgb_from_linear
from ..parts.hair import Hair
from ..parts.hair_frame import hair_normals
from ..result import FitResult
from .hair_candidates import FittedHair
from .hair_outline import HairObservation

LEAST_PX = 30  # pixels that tell a colour
# Light that drawn hair sends back, relative to its colour in the same light on a surface: long hair, which shades
# itself, and what short hair adds; and its white highlights, relative to the dominant lamp.
RETURNED, RETURNED_SHORT, HIGHLIGHT = 0.68, 0.27, 0.012
LEAST_SHARE = 0.6  # of the seen light that comes from below the highlights
ALBEDO = (0.002, 0.95)
# Dark hair returns little but reflections of its surroundings: its hue is drawn to that of dark hair, the more the
# darker it is, half at this luminance.
DARK_HUE, DARK = (1.15, 0.97, 0.84), 0.004
# No hair is bluer or greener than grey unless it is dyed, and then its pixels are so too: else the light is misjudged.
GREY_HUE, LEAST_RED = (1.02, 1.0, 0.96), 0.85  # red of undyed hair's pixels over their brightest channel
LEAST_LIT = 0.3  # of the mean light around the head: less is an error of the shape or of the light
TIPS, ROOTS, LEAST_ENDS_PX = 0.6, 0.3, 40  # places along the hair, and pixels of both that tell them apart
TIP_RATIO = (0.8, 2.5)  # luminance of the tips over that of the roots: darker ones are in shadow


def with_seen_colour(fitted: FittedHair, observed: HairObservation, seen: np.ndarray, head: FitResult) -> Hair:
    """The fitted hair in the colours with which it is drawn as bright and as tinted as in the photograph.

    Args:
        fitted: to the photograph.
        observed: its hair.
        seen: (S, S, 3) uint8 sRGB, the same crop.
        head: in that photograph.
    """
    hair, rotation = fitted.hair, head.params.rotation
    known = observed.hair & (observed.weight > 0)
    both = known if fitted.drawn is None else known & fitted.drawn.strands
    inner = binary_erosion(both)
    both = inner if inner.sum() >= LEAST_PX else both
    if both.sum() < LEAST_PX:
        return hair
    light = torch.from_numpy(np.asarray(head.params.light, np.float32))
    white = HIGHLIGHT * dominant_lamp(light)[1].numpy()
    pixels = linear_from_srgb(torch.from_numpy(seen[both] / 255.0)).numpy()
    if fitted.drawn is None or fitted.on_head is None:  # short hairs: in the mean light on the scalp
        scalp = head.vertices[head.model.regions["scalp"]]
        away = (scalp - scalp.mean(0)) @ rotation.T
        facing = torch.from_numpy(away[away[:, 2] > 0] / np.linalg.norm(away[away[:, 2] > 0], axis=1, keepdims=True))
        shade = np.broadcast_to(shading(facing, light).mean(0).numpy(), pixels.shape)
        return hair.replace(color=_colour(pixels, shade, white, RETURNED + RETURNED_SHORT))
    corners = fitted.drawn.faces[fitted.drawn.fragments.triangle[0].numpy()[both]]
    weights = fitted.drawn.fragments.barycentric[0].numpy()[both][..., None]
    normals = hair_normals(fitted.drawn.vertices, fitted.drawn.faces, observed.centre) @ rotation.T
    values = shading(torch.from_numpy(np.float32(normals)), light).numpy()
    shade = np.maximum((values[corners] * weights).sum(1), LEAST_LIT * values.mean(0))
    returned = RETURNED + RETURNED_SHORT * fitted.on_head.fields.shortness
    hair = hair.replace(color=_colour(pixels, shade, white, returned))
    along = (fitted.on_head.fields.along[corners] * weights[..., 0]).sum(1)
    ends = [along < ROOTS, along > TIPS]
    if fitted.on_head.fields.shortness > 0.5 or min(end.sum() for end in ends) < LEAST_ENDS_PX:
        return hair
    roots, tips = (_linear(_colour(pixels[end], shade[end], white, returned)) for end in ends)
    ratio = float(tips @ LUMINANCE) / max(float(roots @ LUMINANCE), 1e-6)
    tips = _within_range(tips * np.clip(ratio, *TIP_RATIO) / max(ratio, 1e-6))
    return hair.replace(color=_srgb(roots), tip_color=_srgb(tips))


def _colour(
    pixels: np.ndarray, shade: np.ndarray, white: np.ndarray, returned: float
) -> tuple[float, float, float]:
    """sRGB of hair whose pixels (N, 3) in linear light are lit with (N, 3) and have white highlights (3,)."""
    seen, lit = pixels.mean(0), np.maximum(shade.mean(0), 1e-3)
    albedo = np.maximum(seen - white, LEAST_SHARE * seen) / (returned * lit)
    luminance = float(albedo @ LUMINANCE)
    if albedo[0] < albedo.max() and seen[0] > LEAST_RED * seen.max():
        albedo = luminance * np.array(GREY_HUE)
    certain = luminance / (luminance + DARK)
    return _srgb(_within_range(certain * albedo + (1 - certain) * luminance * np.array(DARK_HUE)))


def _within_range(albedo: np.ndarray) -> np.ndarray:
    """Albedo (3,), scaled down where a channel is brighter than hair can be: clipping would change the hue."""
    return np.maximum(albedo * min(1.0, ALBEDO[1] / float(albedo.max())), ALBEDO[0])


def _linear(srgb: tuple[float, float, float]) -> np.ndarray:
    return linear_from_srgb(torch.tensor(srgb, dtype=torch.float64)).numpy()


def _srgb(linear: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in srgb_from_linear(torch.from_numpy(np.asarray(linear, np.float64))))
    return red, green, blue
