"""Merge textures of one person from several photographs: colour matching, then two-band blending by view quality.

Low frequencies are blended over wide transitions, which hides seams, and high frequencies over narrow ones, which
avoids double images.

Reference: Brown and Lowe 2007, "Automatic panoramic image stitching using invariant features" (gain compensation and
multi-band blending).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ..graphics.camera import Camera, project, transform
from ..graphics.lighting import linear_from_srgb, srgb_from_linear
from ..model.face_model import FaceModel, FaceParams
from ..model.skin_texture import DARKEST_ALBEDO, SkinTexture
from ..model.texture_maps import uv_fragments
from ..model.warp import head_vertices

MIN_CONFIDENCE = 0.8  # of texels that take part in matching the colours of two photographs
MIN_OVERLAP = 0.002  # share of the texture; smaller overlaps are ignored
DENSITY_EXPONENT = 4.0  # of the pixel density in a photograph's quality: prefers the finer picture
DETAIL_BLEND, TONE_BLEND = 0.008, 0.05  # Gaussian sigma of the transitions of both bands, share of the texture's size
MAX_LOG_GAIN = np.log(1.6)  # of a photograph's colours


def pixel_density(model: FaceModel, params: FaceParams, camera: Camera, size: int) -> np.ndarray:
    """Resolution of a photograph on the surface: (size, size) float32 pixels per millimetre, 0 where it faces away.

    Args:
        params: identity, expression and pose in that photograph.
        camera: of the photograph.
    """
    with torch.no_grad():
        head = torch.from_numpy(head_vertices(model, params)[1])
        posed = transform(head, torch.from_numpy(params.rotation), torch.from_numpy(params.translation))
        pixels = project(posed, camera)[:, :2].numpy().astype(np.float64)
    a, b, c = (posed.numpy().astype(np.float64)[model.faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    a, b, c = (pixels[model.faces[:, k]] for k in range(3))
    u, v = b - a, c - a
    # Twice the area; image rows run downwards, so the signed area of front faces is negative.
    projected_area = -(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
    density = np.sqrt(np.maximum(projected_area, 0) / np.maximum(area, 1e-14)) / 1000
    triangle = uv_fragments(model, size).triangle
    return np.where(triangle >= 0, density[triangle], 0).astype(np.float32)


def merge_textures(textures: list[SkinTexture], densities: list[np.ndarray]) -> SkinTexture:
    """Merge textures into one with the colours of the first.

    A gain per channel matches the colours where photographs overlap. The low-frequency band (tones) is blended over
    wide transitions and the high-frequency band (details) over narrow ones, both in the logarithm of the linear
    colour. Texels that no photograph observes keep the first texture's completion.

    Args:
        textures: N of the same size S; their confidence is high where the photograph observes the texel well.
        densities: N arrays (S, S), see `pixel_density`.
    """
    size = textures[0].confidence.shape[0]
    confidence = np.stack([texture.confidence for texture in textures]).astype(np.float32) / 255
    colours = np.stack([_log_albedo(texture.rgb) for texture in textures])
    colours -= _colour_gains(colours, confidence)[:, None, None]
    quality = confidence * np.stack(densities) ** DENSITY_EXPONENT
    tones = np.stack([_local_tone(c, t, TONE_BLEND * size) for c, t in zip(colours, confidence, strict=True)])
    widths = TONE_BLEND * size, DETAIL_BLEND * size
    wide_weights, narrow_weights = (_blend_weights(quality, confidence, width) for width in widths)
    merged = (wide_weights[..., None] * tones).sum(0) + (narrow_weights[..., None] * (colours - tones)).sum(0)
    merged_confidence = confidence.max(0)
    alpha = gaussian_filter(merged_confidence, DETAIL_BLEND * size / 2)[..., None]
    alpha = np.minimum(alpha, merged_confidence[..., None])
    linear = np.exp(alpha * merged + (1 - alpha) * colours[0])
    rgb = srgb_from_linear(torch.from_numpy(linear.astype(np.float32)).clamp(0, 1)) * 255 + 0.5
    return SkinTexture(rgb.to(torch.uint8).numpy(), (255 * merged_confidence + 0.5).astype(np.uint8))


def _log_albedo(rgb: np.ndarray) -> np.ndarray:
    """Natural logarithm (S, S, 3) of the linear colours of sRGB (S, S, 3) uint8."""
    linear = linear_from_srgb(torch.from_numpy(rgb.astype(np.float32) / 255)).numpy()
    return np.log(np.maximum(linear, DARKEST_ALBEDO))


def _colour_gains(colours: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """(N, 3) log gains of the textures relative to the first, by linear least squares over all pairwise overlaps."""
    count = len(colours)
    normal_matrix, rhs = np.eye(count) * 1e-6, np.zeros((count, 3))
    for i in range(count):
        for j in range(i):
            overlap = (confidence[i] > MIN_CONFIDENCE) & (confidence[j] > MIN_CONFIDENCE)
            share = overlap.mean()
            if share < MIN_OVERLAP:
                continue
            difference = np.median(colours[i][overlap] - colours[j][overlap], axis=0)
            normal_matrix[[i, j, i, j], [i, j, j, i]] += share * np.array([1, 1, -1, -1])
            rhs[i] += share * difference
            rhs[j] -= share * difference
    gains = np.linalg.solve(normal_matrix, rhs)
    return np.clip(gains - gains[0], -MAX_LOG_GAIN, MAX_LOG_GAIN).astype(np.float32)


def _local_tone(colour: np.ndarray, confidence: np.ndarray, width: float) -> np.ndarray:
    """Low-frequency band (S, S, 3): normalised convolution with the confidence; completed texels get a small weight."""
    weight = (confidence + 1e-3)[..., None]
    return np.divide(*(_blurred(v, width) for v in (colour * weight, weight)))


def _blend_weights(quality: np.ndarray, confidence: np.ndarray, width: float) -> np.ndarray:
    """(N, S, S) weights that sum to 1: blurred winner-takes-all masks of the quality, times the confidence."""
    best = quality >= quality.max(0)
    blurred_masks = np.stack([_blurred(one[..., None].astype(np.float32), width)[..., 0] for one in best])
    weights = (blurred_masks + 1e-4) * np.maximum(confidence, 1e-4)
    return weights / weights.sum(0)


def _blurred(values: np.ndarray, width: float) -> np.ndarray:
    """Gaussian blur of (S, S, C) with sigma `width` in texels; wide ones run on a downsampled copy, which is faster."""
    step = max(1, int(width / 4))
    planes = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]
    small = torch.nn.functional.avg_pool2d(planes, step, ceil_mode=True, count_include_pad=False)[0].numpy()
    soft = torch.from_numpy(gaussian_filter(small, (0, width / step, width / step), truncate=3))[None]
    full = [step * length for length in soft.shape[-2:]]
    soft = torch.nn.functional.interpolate(soft, full, mode="bilinear", align_corners=False)[0]
    return soft[:, : values.shape[0], : values.shape[1]].permute(1, 2, 0).numpy()
