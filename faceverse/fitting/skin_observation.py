"""What a photograph says of the skin, texel by texel: how much brighter or darker each one is than the fitted head.

Detail is fitted in texture space. Each texel sees one place of the photograph, and its colour is a closed formula of
albedo, normal and light (Wang et al. 2022, equation 5), so that a step costs no rasterizing.
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
from .texture import observe_texels

TONE_MM = 8.0  # structure larger than this is the base model's business
HELD_OUT_TEXELS, HELD_OUT_SHARE = 4, 0.1  # side of the blocks that no step sees, and how many of them there are
CLEAR_OF_LIPS_MM, CLEAR_OF_LIDS_MM, CLEAR_OF_SCALP_MM = 2.0, 3.0, 10.0
EDGE_PASSAGE_MM = 6.0
TINT_TEXELS = 2.0
MAX_ERROR = 0.5
MIN_SHADE = 0.05
SLOPE_STEP = 0.1
_MM_PER_TEXEL_AT_512 = 0.58

_cache: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class SkinObservation:
    """A photograph's skin in a map of S x S texels.

    Attributes:
        residual: (3, S, S) logarithm of seen over predicted colour without detail, without its smooth part.
        weight: (S, S) 0..1, how far the texel is believed; 0 where no skin is seen well.
        held_out: (S, S) bool, texels that no step may look at: they tell whether detail helps.
        frame: of the posed head, camera space.
        light: (9, 3).
        plain_shade: (3, S, S) logarithm of the shading without detail.
        blur_texels: standard deviation of the photograph's own blur.
    """

    residual: Tensor
    weight: Tensor
    held_out: Tensor
    frame: TangentFrame
    light: Tensor
    plain_shade: Tensor
    blur_texels: float

    @property
    def fitted(self) -> Tensor:
        """(S, S) weight of the texels that steps look at."""
        return self.weight * ~self.held_out

    def predicted(self, albedo_log: Tensor, displacement: Tensor) -> Tensor:
        """What `residual` would be, (3, S, S), for detail: albedo_log (3, S, S), displacement (S, S) mm."""
        change = albedo_log + self.log_shade_of(displacement) - self.plain_shade
        change = without_tone(change, self.weight)
        return blurred(change, self.blur_texels)

    def log_shade_of(self, displacement: Tensor) -> Tensor:
        """(3, S, S) logarithm of the light on the displaced skin."""
        normals = detailed_normals(self.frame, displacement)[0]
        return log_shade(normals, self.light)

    def error(self, predicted: Tensor | float) -> float:
        """Root mean square, in logarithms, of what a prediction of `residual` leaves of the held-out skin.

        Colour is carried over from the texels around, as the texture does, so that displacement has to explain more than
        colour can. Single texels count up to a bound: they may be hair or the edge of something.
        """
        left, weight = self.residual - predicted, self.fitted
        around = blurred(left * weight, TINT_TEXELS) / blurred(weight[None], TINT_TEXELS).clamp_min(1e-3)
        chosen = self.weight * self.held_out
        square = (left - around).clamp(-MAX_ERROR, MAX_ERROR).square().mean(0)
        return float(((square * chosen).sum() / chosen.sum().clamp_min(1e-6)).sqrt())


def observe_skin(photo: np.ndarray, model: FaceModel, params: FaceParams, camera: Camera, size: int) -> SkinObservation:
    """The skin in a photograph.

    Args:
        photo: (H, W, 3) uint8 sRGB.
        params: as fitted.
        camera: of the photograph.
        size: S.
    """
    texels = observe_texels(photo, model, params, camera, size)
    frame = TangentFrame.of(model, texels.vertices_cam.numpy(), size)
    light = torch.from_numpy(np.array(params.light))
    plain_shade = log_shade(frame.normal, light)
    seen = torch.from_numpy(np.maximum(texels.colour, DARKEST_ALBEDO)).log()
    change = seen - torch.from_numpy(texels.base).log() - plain_shade
    weight = torch.from_numpy((texels.confidence * clear_skin(model, size)).astype(np.float32))
    weight = weight * _inlier_weight(change, weight)
    footprint = _pixels_per_texel(texels.position_px, weight.numpy())
    return SkinObservation(
        residual=without_tone(change, weight),
        weight=weight,
        held_out=torch.from_numpy(_blocks(size)),
        frame=frame,
        light=light,
        plain_shade=plain_shade,
        blur_texels=0.5 / max(footprint, 1e-3),
    )


def clear_skin(model: FaceModel, size: int) -> np.ndarray:
    """(size, size) 0..1: the face's and neck's skin, clear of lips, lids and hair, whose edges look like displacement."""
    per_model = _cache.setdefault(model, {})
    if size not in per_model:
        mask = displacement_weight(model, size)
        texels_per_mm = size / 512 / _MM_PER_TEXEL_AT_512
        margins = {"lips": CLEAR_OF_LIPS_MM, "eyelids": CLEAR_OF_LIDS_MM, "eyeballs": CLEAR_OF_LIDS_MM}
        for name, margin in (margins | {"scalp": CLEAR_OF_SCALP_MM, "ears": 0.0}).items():
            away = distance_transform_edt(~_region_mask(model, name, size))
            mask = mask * np.clip((away - margin * texels_per_mm) / (2 * texels_per_mm), 0, 1)
        per_model[size] = mask.astype(np.float32)
    return per_model[size]


def inner_weight(weight: Tensor, passage_mm: float = EDGE_PASSAGE_MM) -> Tensor:
    """(S, S) 0..1, the weight, falling to zero towards the edges of what is seen: what ends there is no displacement."""
    size = weight.shape[-1]
    away = distance_transform_edt((weight > 0.3).numpy()) * _MM_PER_TEXEL_AT_512 * 512 / size
    share = torch.from_numpy(np.clip((away - 1.0) / passage_mm, 0, 1).astype(np.float32))
    return weight * share * share * (3 - 2 * share)


def _region_mask(model: FaceModel, name: str, size: int) -> np.ndarray:
    """(size, size) bool, texels of a region."""
    member = np.zeros((len(model.mean_vertices), 1), np.float32)
    member[model.regions.get(name, np.zeros(0, np.int64))] = 1
    return bake_planes(model, member, size)[0] > 0.5


def without_tone(change: Tensor, weight: Tensor) -> Tensor:
    """Maps (3, S, S) minus their weighted mean around each texel, over `TONE_MM`."""
    return change - smooth(change * weight, change.shape[-1]) / smooth(weight[None], change.shape[-1]).clamp_min(1e-4)


def smooth(maps: Tensor, size: int) -> Tensor:
    """Blur of maps (C, S, S) with a window of about `TONE_MM`: box filters in each direction, twice, on a smaller
    copy, because a wide Gaussian costs more than all the rest of a step."""
    step = max(1, size // 128)
    small = torch.nn.functional.avg_pool2d(maps[None], step)
    width = 2 * round(TONE_MM / _MM_PER_TEXEL_AT_512 * size / 512 / step / 2) + 1
    for _ in range(2):
        small = torch.nn.functional.avg_pool2d(small, width, 1, width // 2, count_include_pad=False)
    return torch.nn.functional.interpolate(small, (size, size), mode="bilinear", align_corners=False)[0]


def blurred(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of maps (C, S, S)."""
    if sigma < 0.25:
        return maps
    reach = max(1, int(np.ceil(2.5 * sigma)))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    taps = (taps / taps.sum()).to(maps)
    maps = torch.nn.functional.conv2d(maps[:, None], taps.view(1, 1, 1, -1), padding=(0, reach))
    return torch.nn.functional.conv2d(maps, taps.view(1, 1, -1, 1), padding=(reach, 0))[:, 0]


def shade_sensitivity(frame: TangentFrame, light: Tensor) -> Tensor:
    """(2, S, S) change of the logarithm of the luminance with the slope along tangent_u and along tangent_v."""
    plain = luminance(log_shade(frame.normal, light))
    changes = []
    for tangent in (frame.tangent_u, frame.tangent_v):
        tilted = torch.nn.functional.normalize(frame.normal - SLOPE_STEP * tangent, dim=0)
        changes.append((luminance(log_shade(tilted, light)) - plain) / SLOPE_STEP)
    return torch.stack(changes)


def luminance(maps: Tensor) -> Tensor:
    """(S, S) of maps (3, S, S)."""
    return torch.einsum("cij,c->ij", maps, maps.new_tensor(LUMINANCE))


def log_shade(normals: Tensor, light: Tensor) -> Tensor:
    """Logarithm (3, S, S) of the light (9, 3) on unit normals (3, S, S), kept from falling into noise."""
    shade = shading(normals.flatten(1).T, light).T.view_as(normals)
    return shade.clamp_min(MIN_SHADE).log()


def _inlier_weight(change: Tensor, weight: Tensor) -> Tensor:
    """(S, S) 0..1, less where the colour has little to do with the model's: hair, glasses, hands, hard shadows."""
    sure = weight > 0.5
    if int(sure.sum()) < 100:
        return torch.zeros_like(weight)
    middle = change[:, sure].median(dim=1).values
    away = (change - middle[:, None, None]).abs().amax(0)
    return ((1.9 - away) / 0.6).clamp(0, 1)


def _pixels_per_texel(position_px: np.ndarray, weight: np.ndarray) -> float:
    """Median distance in the photograph between texels that are neighbours on the skin."""
    steps = np.hypot(*(np.diff(position_px, axis=2)[:, :-1])), np.hypot(*(np.diff(position_px, axis=1)[:, :, :-1]))
    inside = weight[:-1, :-1] > 0.5
    if not inside.any():
        return 0.0
    return float(np.median(np.sqrt(steps[0] * steps[1])[inside]))


def _blocks(size: int) -> np.ndarray:
    """(size, size) bool, scattered square blocks; the same each time."""
    side = max(1, HELD_OUT_TEXELS * size // 512)
    count = size // side
    chosen = np.random.default_rng(0).random((count, count)) < HELD_OUT_SHARE
    return np.kron(chosen, np.ones((side, side), bool))[:size, :size]
