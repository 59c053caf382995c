"""Skin detail observed in texture space: log ratio of each texel's colour in the photograph to that of the fitted head.

The detail stage compares images in texture space. Each texel is projected into the photograph once; its predicted
colour is then a closed formula of albedo, normal and light (Wang et al. 2022, equation 5), so that an optimization step
needs no rasterization. Low frequencies belong to the base model and are removed by a high-pass filter.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..detail.displacement import TangentFrame, detailed_normals, displacement_weight
from ..graphics.camera import Camera
from ..graphics.lighting import LUMINANCE, shading
from ..model.face_model import FaceModel, FaceParams
from ..model.skin_texture import DARKEST_ALBEDO
from ..model.texture_maps import bake_planes
from ..segmentation import Segmentation
from .texture import observe_texels
from .visible_skin import SHAPE_LABELS, away_from_hair, visible_skin

TONE_MM = 8.0  # window of the high-pass filter: coarser structure belongs to the base model
HELD_OUT_TEXELS, HELD_OUT_SHARE = 4, 0.1  # validation blocks: side in texels of 512, and share of the map
LIP_MARGIN_MM, EYELID_MARGIN_MM, SCALP_MARGIN_MM = 2.0, 3.0, 10.0
# Margins of texels whose shading tells their displacement, and the widths over which their weight grows, millimetres.
SHADING_MARGINS_MM = {
    "eyelids": (1.0, 1.0),
    "eyeballs": (2.0, 1.0),
    "lips": (1.5, 1.0),
    "scalp": (6.0, 4.0),
    "ears": (0.0, 1.0),
}
HAIR_MARGINS_MM = {"eyebrows": (1.0, 5.0), "eyelids": (1.0, 4.0)}
SHADING_GAIN = 2.5  # of the confidence: grazing texels are poor for colours, but their shading is strong
TINT_TEXELS = 2.0  # Gaussian sigma with which the validation error carries colour over from fitted texels
MAX_ERROR = 0.5  # bound on a texel's error, in logarithms
MIN_SHADE = 0.05  # linear
SLOPE_STEP = 0.1  # of finite differences
MM_PER_TEXEL_AT_512 = 0.58

_cache: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class SkinObservation:
    """The skin of a photograph in a map of S x S texels.

    Attributes:
        residual: (3, S, S) high-pass filtered log ratio of observed to predicted colour, predicted without detail.
        weight: (S, S) 0..1 confidence of the texel; 0 where no skin is observed.
        held_out: (S, S) bool, validation texels, excluded from the optimization.
        frame: tangent frames of the posed head, camera space.
        light: (9, 3).
        plain_shade: (3, S, S) log shading without detail.
        change: (3, S, S) as `residual`, before the high-pass filter.
        shading_weight: (S, S) 0..1, where shading tells the displacement: nearer to lids and outlines than `weight`,
            and not in a beard.
        plain_skin: (S, S) 0..1, below 1 at brows and lashes, and where eyes are made up.
        blur_texels: standard deviation of the photograph's blur, in texels.
    """

    residual: Tensor
    weight: Tensor
    held_out: Tensor
    frame: TangentFrame
    light: Tensor
    plain_shade: Tensor
    change: Tensor
    shading_weight: Tensor
    plain_skin: Tensor
    blur_texels: float

    @property
    def fitted(self) -> Tensor:
        """(S, S) weight of the texels that are optimized, 0 on the validation texels."""
        return self.weight * ~self.held_out

    def predicted(self, albedo_log: Tensor, displacement: Tensor) -> Tensor:
        """Predict `residual` (3, S, S) for detail: albedo_log (3, S, S), displacement (S, S) mm."""
        change = albedo_log + self.log_shade_of(displacement) - self.plain_shade
        change = high_pass(change, self.weight)
        return gaussian_blur(change, self.blur_texels)

    def log_shade_of(self, displacement: Tensor) -> Tensor:
        """(3, S, S) log shading of the displaced skin."""
        normals = detailed_normals(self.frame, displacement)[0]
        return log_shade(normals, self.light)

    def error(self, predicted: Tensor | float) -> float:
        """Validation error: root mean square of `residual` minus its prediction on the held-out texels, in logarithms.

        Colour is carried over from neighbouring fitted texels, as the texture does, so that displacement only helps
        where it explains more than colour. Errors are clamped to MAX_ERROR: single texels may show a hair or an edge.
        """
        error, weight = self.residual - predicted, self.fitted
        tint = gaussian_blur(error * weight, TINT_TEXELS) / gaussian_blur(weight[None], TINT_TEXELS).clamp_min(1e-3)
        chosen = self.weight * self.held_out
        square = (error - tint).clamp(-MAX_ERROR, MAX_ERROR).square().mean(0)
        return float(((square * chosen).sum() / chosen.sum().clamp_min(1e-6)).sqrt())


def observe_skin(
    photo: np.ndarray,
    model: FaceModel,
    params: FaceParams,
    camera: Camera,
    size: int,
    labels: Segmentation | None = None,
) -> SkinObservation:
    """Observe the skin of a fitted head in its photograph.

    Args:
        photo: (H, W, 3) uint8 sRGB.
        params: as fitted.
        camera: of the photograph.
        size: S, side of the maps in texels.
        labels: of the photograph; None: all of the head is taken for skin.
    """
    texels = observe_texels(photo, model, params, camera, size, labels)
    frame = TangentFrame.of(model, texels.vertices_cam.numpy(), size)
    light = torch.from_numpy(np.array(params.light))
    plain_shade = log_shade(frame.normal, light)
    observed = torch.from_numpy(np.maximum(texels.colour, DARKEST_ALBEDO)).log()
    change = observed - torch.from_numpy(texels.base).log() - plain_shade
    weight = torch.from_numpy((texels.confidence * clear_skin(model, size)).astype(np.float32))
    weight = weight * _inlier_weight(change, weight)
    shading_margin, plain_skin = shading_margins(model, size)
    shading_weight = np.minimum(SHADING_GAIN * texels.confidence, 1) * shading_margin
    if labels is not None:
        shading_weight = shading_weight * visible_skin(labels, SHAPE_LABELS, texels.position_px)
        shading_weight *= away_from_hair(labels, texels.position_px)
    footprint = _pixels_per_texel(texels.position_px, weight.numpy())
    return SkinObservation(
        residual=high_pass(change, weight),
        weight=weight,
        held_out=torch.from_numpy(_validation_blocks(size)),
        frame=frame,
        light=light,
        plain_shade=plain_shade,
        change=change,
        shading_weight=torch.from_numpy(shading_weight.astype(np.float32)),
        plain_skin=torch.from_numpy(plain_skin),
        blur_texels=0.5 / max(footprint, 1e-3),
    )


def clear_skin(model: FaceModel, size: int) -> np.ndarray:
    """Mask (size, size) 0..1 of facial and neck skin, away from lips, lids and hair, whose edges mimic displacement."""
    margins = {"lips": LIP_MARGIN_MM, "eyelids": EYELID_MARGIN_MM, "eyeballs": EYELID_MARGIN_MM}
    margins |= {"scalp": SCALP_MARGIN_MM, "ears": 0.0}
    return _outside(model, size, {name: (margin, 2.0) for name, margin in margins.items()})


def shading_margins(model: FaceModel, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks (size, size) 0..1: of skin whose shading tells its displacement, and of skin without brows and lashes."""
    return _outside(model, size, SHADING_MARGINS_MM), _outside(model, size, HAIR_MARGINS_MM)


def _outside(model: FaceModel, size: int, margins: dict[str, tuple[float, float]]) -> np.ndarray:
    """Mask (size, size) 0..1 of displaced skin outside regions: 0 up to a margin around each, growing over a width,
    both in millimetres."""
    per_model = _cache.setdefault(model, {})
    key = size, tuple(margins.items())
    if key not in per_model:
        mask = displacement_weight(model, size)
        mm_per_texel = MM_PER_TEXEL_AT_512 * 512 / size
        for name, (margin, width) in margins.items():
            region = _region_mask(model, name, size)
            if region.any():
                mask = mask * np.clip((distance_transform_edt(~region) * mm_per_texel - margin) / width, 0, 1)
        per_model[key] = mask.astype(np.float32)
    return per_model[key]


def _region_mask(model: FaceModel, name: str, size: int) -> np.ndarray:
    """(size, size) bool, the texels of a region."""
    member = np.zeros((len(model.mean_vertices), 1), np.float32)
    member[model.regions.get(name, np.zeros(0, np.int64))] = 1
    return bake_planes(model, member, size)[0] > 0.5


def high_pass(change: Tensor, weight: Tensor) -> Tensor:
    """High-pass filter: maps (3, S, S) minus their weighted local mean over `TONE_MM`."""
    return change - low_pass(change * weight, change.shape[-1]) / low_pass(weight[None], change.shape[-1]).clamp_min(
        1e-4
    )


def low_pass(maps: Tensor, size: int) -> Tensor:
    """Low-pass filter of maps (C, S, S) with a window of about `TONE_MM`.

    Two box filters on a downsampled copy approximate the Gaussian, which would cost more than the rest of a step.
    """
    step = max(1, size // 128)
    small = torch.nn.functional.avg_pool2d(maps[None], step)
    width = 2 * round(TONE_MM / MM_PER_TEXEL_AT_512 * size / 512 / step / 2) + 1
    for _ in range(2):
        small = torch.nn.functional.avg_pool2d(small, width, 1, width // 2, count_include_pad=False)
    return torch.nn.functional.interpolate(small, (size, size), mode="bilinear", align_corners=False)[0]


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of maps (C, S, S)."""
    if sigma < 0.25:
        return maps
    reach = max(1, int(np.ceil(2.5 * sigma)))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    taps = (taps / taps.sum()).to(maps)
    maps = torch.nn.functional.conv2d(maps[:, None], taps.view(1, 1, 1, -1), padding=(0, reach))
    return torch.nn.functional.conv2d(maps, taps.view(1, 1, -1, 1), padding=(reach, 0))[:, 0]


def shade_sensitivity(frame: TangentFrame, light: Tensor) -> Tensor:
    """(2, S, S) derivative of the log luminance with respect to the slope along tangent_u and tangent_v."""
    plain = luminance(log_shade(frame.normal, light))
    changes = []
    for tangent in (frame.tangent_u, frame.tangent_v):
        tilted = (frame.normal - SLOPE_STEP * tangent) / (1 + SLOPE_STEP**2) ** 0.5
        changes.append((luminance(log_shade(tilted, light)) - plain) / SLOPE_STEP)
    return torch.stack(changes)


def luminance(maps: Tensor) -> Tensor:
    """Luminance (S, S) of maps (3, S, S)."""
    return torch.einsum("cij,c->ij", maps, maps.new_tensor(LUMINANCE))


def log_shade(normals: Tensor, light: Tensor) -> Tensor:
    """Log shading (3, S, S) of unit normals (3, S, S) by light (9, 3), with the lower bound MIN_SHADE."""
    shade = shading(normals.flatten(1).T, light).T.view_as(normals)
    return shade.clamp_min(MIN_SHADE).log()


def _inlier_weight(change: Tensor, weight: Tensor) -> Tensor:
    """(S, S) 0..1, low for outliers of the log ratio (3, S, S): hair, glasses, hands, cast shadows."""
    reliable = weight > 0.5
    if int(reliable.sum()) < 100:
        return torch.zeros_like(weight)
    median = change[:, reliable].median(dim=1).values
    distance = (change - median[:, None, None]).abs().amax(0)
    return ((1.9 - distance) / 0.6).clamp(0, 1)


def _pixels_per_texel(position_px: np.ndarray, weight: np.ndarray) -> float:
    """Median distance in pixels of the projections of neighbouring texels."""
    steps = np.hypot(*(np.diff(position_px, axis=2)[:, :-1])), np.hypot(*(np.diff(position_px, axis=1)[:, :, :-1]))
    inside = weight[:-1, :-1] > 0.5
    if not inside.any():
        return 0.0
    return float(np.median(np.sqrt(steps[0] * steps[1])[inside]))


def _validation_blocks(size: int) -> np.ndarray:
    """(size, size) bool, randomly chosen square blocks, the same in every call."""
    side = max(1, HELD_OUT_TEXELS * size // 512)
    count = size // side
    chosen = np.random.default_rng(0).random((count, count)) < HELD_OUT_SHARE
    return np.kron(chosen, np.ones((side, side), bool))[:size, :size]
