"""Textures of one person from several photographs as one: each place from the photograph that sees it best."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ..graphics.camera import Camera, project, transform
from ..graphics.lighting import linear_from_srgb, srgb_from_linear
from ..model.face_model import FaceModel, FaceParams
from ..model.skin_texture import DARKEST_ALBEDO, SkinTexture
from ..model.texture_maps import uv_fragments

MIN_CONFIDENCE = 0.8  # confidence from which a texel's colour may say how two photographs differ
MIN_OVERLAP = 0.002  # share of the texture; smaller overlaps say nothing about colours
PREFERENCE = 4.0  # how decidedly the finer picture wins
DETAIL_BLEND, TONE_BLEND = 0.008, 0.05  # widths of the transitions, share of the texture: pores and edges, tones
MAX_LOG_GAIN = np.log(1.6)


def pixel_density(model: FaceModel, params: FaceParams, camera: Camera, size: int) -> np.ndarray:
    """How finely a photograph shows the surface: (size, size) float32 pixels per millimetre, 0 where it faces away.

    Args:
        params: identity, expression and pose in that photograph.
        camera: of the photograph.
    """
    with torch.no_grad():
        identity, expression = (torch.from_numpy(v)[None] for v in (params.identity, params.expression))
        head = model.vertices(identity, expression)[0]
        posed = transform(head, torch.from_numpy(params.rotation), torch.from_numpy(params.translation))
        pixels = project(posed, camera)[:, :2].numpy().astype(np.float64)
    a, b, c = (posed.numpy().astype(np.float64)[model.faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    a, b, c = (pixels[model.faces[:, k]] for k in range(3))
    u, v = b - a, c - a
    shown = -(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])  # rows run downwards, so what faces the camera turns the other way
    fine = np.sqrt(np.maximum(shown, 0) / np.maximum(area, 1e-14)) / 1000
    triangle = uv_fragments(model, size).triangle
    return np.where(triangle >= 0, fine[triangle], 0).astype(np.float32)


def merge_textures(textures: list[SkinTexture], densities: list[np.ndarray]) -> SkinTexture:
    """One texture in the colours of the first one.

    Colours are matched by a gain per channel where photographs overlap. Tones and details are blended apart: tones
    over wide transitions, so that no seam shows, details over narrow ones, so that nothing is doubled. What nobody saw
    keeps the first texture's completion.

    Args:
        textures: N of the same size; their confidence says where each photograph was seen well.
        densities: N times (S, S), see `pixel_density`.
    """
    size = textures[0].confidence.shape[0]
    confidence = np.stack([texture.confidence for texture in textures]).astype(np.float32) / 255
    colours = np.stack([_log_albedo(texture.rgb) for texture in textures])
    colours -= _colour_gains(colours, confidence)[:, None, None]
    quality = confidence * np.stack(densities) ** PREFERENCE
    tones = np.stack([_local_tone(c, t, TONE_BLEND * size) for c, t in zip(colours, confidence, strict=True)])
    wide, narrow = (_blend_weights(quality, confidence, width * size) for width in (TONE_BLEND, DETAIL_BLEND))
    merged = (wide[..., None] * tones).sum(0) + (narrow[..., None] * (colours - tones)).sum(0)
    seen = confidence.max(0)
    share = gaussian_filter(seen, DETAIL_BLEND * size / 2)[..., None]
    share = np.minimum(share, seen[..., None])
    linear = np.exp(share * merged + (1 - share) * colours[0])
    rgb = srgb_from_linear(torch.from_numpy(linear.astype(np.float32)).clamp(0, 1)) * 255 + 0.5
    return SkinTexture(rgb.to(torch.uint8).numpy(), (255 * seen + 0.5).astype(np.uint8))


def _log_albedo(rgb: np.ndarray) -> np.ndarray:
    linear = linear_from_srgb(torch.from_numpy(rgb.astype(np.float32) / 255)).numpy()
    return np.log(np.maximum(linear, DARKEST_ALBEDO))


def _colour_gains(colours: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """(N, 3) how much brighter, in logarithms, each texture is than the first one; least squares over the overlaps."""
    count = len(colours)
    left, right = np.eye(count) * 1e-6, np.zeros((count, 3))
    for i in range(count):
        for j in range(i):
            both = (confidence[i] > MIN_CONFIDENCE) & (confidence[j] > MIN_CONFIDENCE)
            share = both.mean()
            if share < MIN_OVERLAP:
                continue
            difference = np.median(colours[i][both] - colours[j][both], axis=0)
            left[[i, j, i, j], [i, j, j, i]] += share * np.array([1, 1, -1, -1])
            right[i] += share * difference
            right[j] -= share * difference
    gains = np.linalg.solve(left, right)
    return np.clip(gains - gains[0], -MAX_LOG_GAIN, MAX_LOG_GAIN).astype(np.float32)


def _local_tone(colour: np.ndarray, confidence: np.ndarray, width: float) -> np.ndarray:
    """Smooth part (S, S, 3) of what was seen; completed texels count a little, so that it is defined everywhere."""
    weight = (confidence + 1e-3)[..., None]
    return np.divide(*(_blurred(v, width) for v in (colour * weight, weight)))


def _blend_weights(quality: np.ndarray, confidence: np.ndarray, width: float) -> np.ndarray:
    """(N, S, S) shares that add up to 1: the best texture's, with transitions of this width, none where untrusted."""
    best = quality >= quality.max(0)
    softened = np.stack([_blurred(one[..., None].astype(np.float32), width)[..., 0] for one in best])
    share = (softened + 1e-4) * np.maximum(confidence, 1e-4)
    return share / share.sum(0)


def _blurred(values: np.ndarray, width: float) -> np.ndarray:
    """Gaussian blur of (S, S, C); wide ones on a smaller copy, which looks the same and takes less time."""
    step = max(1, int(width / 4))
    planes = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]
    small = torch.nn.functional.avg_pool2d(planes, step, ceil_mode=True, count_include_pad=False)[0].numpy()
    soft = torch.from_numpy(gaussian_filter(small, (0, width / step, width / step), truncate=3))[None]
    full = [step * length for length in soft.shape[-2:]]
    soft = torch.nn.functional.interpolate(soft, full, mode="bilinear", align_corners=False)[0]
    return soft[:, : values.shape[0], : values.shape[1]].permute(1, 2, 0).numpy()
