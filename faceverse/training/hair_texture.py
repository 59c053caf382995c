"""Grey hair textures from painted ones: without colour, baked highlights and shadows, watermarks and dark borders.

Paintings of hair contain light: a bright ring around the head, dark roots. A renderer adds its own, and a tint must
give the colour asked for. What is left is the variation from strand to strand about a mean.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from ..graphics.lighting import LUMINANCE, linear_from_srgb, srgb_from_linear
from ..parts.hair import MEAN_LUMINANCE

_FLAT_PX = 8.0  # scale above which differences in brightness are light, not strands
_FLATNESS = 0.85  # share of these differences that is removed, in the logarithm
_CONTRAST = 1.0  # exponent of the variation that is kept
_VARIATION = (0.30, 2.4)  # least and greatest luminance, of the mean
_BORDER_PX = 4  # by which triangles reach beyond their texels
_ALPHA = (0.06, 0.90)  # of the painting, what becomes transparent and opaque
_SOLID_ALPHA = 0.4  # texels of less alpha have the brightness of those beside them: painted borders are dark


def grey_texture(pixels: np.ndarray, flatness: float = _FLATNESS) -> np.ndarray:
    """A hair texture without colour and light.

    Args:
        pixels: (H, W, 4) uint8 sRGB and alpha.
        flatness: share of the large differences in brightness that is removed.

    Returns:
        (H, W, 4) uint8, grey, with a mean luminance of `MEAN_LUMINANCE` where it covers.
    """
    linear = linear_from_srgb(torch.from_numpy(pixels[..., :3] / 255.0)).numpy()
    alpha = pixels[..., 3] / 255.0
    luminance = np.log(linear @ np.array(LUMINANCE) + 1e-3)
    solid = np.where(alpha >= _SOLID_ALPHA, alpha, 0)
    near, light = (_local_mean(luminance, solid, scale) for scale in (2.0, _FLAT_PX))
    detail = np.where(solid > 0, luminance, near) - flatness * light
    mean = (detail * solid).sum() / max(solid.sum(), 1e-9)
    level = np.clip(np.exp(_CONTRAST * (detail - mean)), *_VARIATION)
    level *= MEAN_LUMINANCE * alpha.sum() / max((level * alpha).sum(), 1e-9)
    grey = srgb_from_linear(torch.from_numpy(np.clip(level, 0, 1))).numpy()
    return _packed(grey, alpha)


def clean_alpha(pixels: np.ndarray, uv: np.ndarray, uv_faces: np.ndarray) -> np.ndarray:
    """A painting (H, W, 4) uint8 that is transparent where no triangle reaches, as at a watermark, with a firm alpha.

    Args:
        uv: (U, 2), uv_faces: (F, 3), see `Part`.
    """
    height, width = pixels.shape[:2]
    reached = Image.new("L", (width, height))
    pen = ImageDraw.Draw(reached)
    for corners in (uv * (width, height))[uv_faces]:
        points = [tuple(corner) for corner in corners.tolist()]
        pen.polygon(points, fill=255)
        pen.line([*points, points[0]], fill=255, width=2 * _BORDER_PX)
    low, high = _ALPHA
    alpha = np.clip((pixels[..., 3] / 255.0 - low) / (high - low), 0, 1) * (np.asarray(reached) > 0)
    return np.concatenate([pixels[..., :3], np.uint8(np.round(alpha * 255))[..., None]], axis=2)


def _local_mean(values: np.ndarray, weight: np.ndarray, scale: float) -> np.ndarray:
    """Weighted mean (H, W) of the neighbourhood; far from all weight, the mean of all."""
    mean = (values * weight).sum() / max(weight.sum(), 1e-9)
    total = gaussian_filter(weight, scale)
    return (gaussian_filter(values * weight, scale) + 1e-4 * mean) / (total + 1e-4)


def _packed(grey: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    levels = np.uint8(np.round(np.stack([grey, alpha], axis=2) * 255))
    return np.ascontiguousarray(levels[..., [0, 0, 0, 1]])
