"""Synthetic high-resolution skin detail by age and sex, and the training samples of the detail generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, zoom

from ..detail.displacement import condition_maps
from ..detail.latents import AGES, MOST_MASCULINE, DetailMaps, age_and_masculinity, picture_of_maps
from ..detail.module import DisplacementCode
from ..errors import ParameterError
from ..graphics.lighting import LUMINANCE, srgb_from_linear
from ..model.face_model import FaceModel, FaceParams
from .crease_fields import CreaseFields
from .creases import AGE_MEAN, AGE_SPREAD, FACTORS, Z_DIM, crease_displacement
from .detail_data import DetailSample
from .skin_microstructure import BLOOD, MELANIN, GrainFields, grain, smooth_noise
from .skin_surface import GRID, SkinSurface

DISPLACEMENT_RANGE_MM = (-0.8, 0.5)
ALBEDO_LOG_RANGE = (-1.2, 0.4)
COARSEST_MM = 8.0  # standard deviation of the Gaussian high-pass: coarser shape belongs to the base model
FACE_MM_PER_TEXEL = 0.58  # of a map of GRID texels
CODE = DisplacementCode(tuple(FACTORS))
"""Units and channels of the sample images."""
CONDITION_SIZE, IMAGE_SIZE = 128, 512
PAIRED = 0.7  # correlation between left and right factors


@dataclass(frozen=True)
class DetailSurface:
    """A model's surface prepared for maps of `size` x `size` texels; computed once and used for every sample."""

    skin: SkinSurface
    creases: CreaseFields
    grain: GrainFields

    @classmethod
    def of(cls, model: FaceModel, size: int = IMAGE_SIZE) -> DetailSurface:
        """Prepare the surface of a model.

        Raises:
            ParameterError: the model lacks landmarks or regions, or a size outside 64..2048.
        """
        skin = SkinSurface.of(model, size)
        return cls(skin, CreaseFields.of(skin), GrainFields.of(skin))

    @property
    def size(self) -> int:
        """Side in texels."""
        return self.skin.size


def random_z(rng: np.random.Generator, age_years: float, masculinity: float) -> np.ndarray:
    """Draw the latent (64,) float32 of random skin of an age and sex (-1 female .. 1 male).

    All but the first two entries have unit variance; left and right factors are correlated.
    """
    z = rng.standard_normal(Z_DIM)
    z[0], z[1] = (age_years - AGE_MEAN) / AGE_SPREAD, masculinity
    for name in FACTORS:
        if name.endswith("_left"):
            left, right = FACTORS.index(name), FACTORS.index(name.replace("_left", "_right"))
            z[left] = PAIRED * z[right] + np.sqrt(1 - PAIRED**2) * z[left]
    return z.astype(np.float32)


def synthetic_detail(surface: DetailSurface, z: np.ndarray, seed: int, tone: float = 0.35) -> DetailMaps:
    """Draw the skin detail described by z.

    Creases are a smooth function of z; the seed sets the positions of pores, hairs, spots and fine lines.

    Args:
        z: (64,), see `creases.FACTORS`.
        tone: mean luminance of the base albedo, linear 0..1; freckles and redness are weaker on dark skin.
    Raises:
        ParameterError: z has another shape or is not finite.
    """
    z = np.asarray(z, dtype=np.float64)
    if z.shape != (Z_DIM,) or not np.isfinite(z).all():
        raise ParameterError("training.z", expected=Z_DIM, shape=z.shape)
    rng = np.random.default_rng([int(seed) & 0xFFFFFFFF, 8])
    size, inside = surface.size, surface.skin.inside
    texel_mm = FACE_MM_PER_TEXEL * GRID / size
    warp = 0.12 * smooth_noise(rng, size, 2.4 / texel_mm)
    depth = 1 + 0.14 * smooth_noise(rng, size, 2.5 / texel_mm)
    creases = crease_displacement(surface.creases, z, warp) * depth
    displacement, albedo = grain(surface.skin, surface.grain, z, rng, float(tone))
    valley = np.minimum(creases, 0)
    pale = min(1.0, float(tone) / 0.3)
    albedo += valley * -(0.24 * MELANIN + 0.22 * pale * BLOOD)[:, None, None]
    displacement = without_coarse(displacement + creases, inside) * inside
    displacement = _soft_clip(displacement, *DISPLACEMENT_RANGE_MM)
    albedo = _soft_clip(albedo * inside, *ALBEDO_LOG_RANGE)
    return DetailMaps(displacement, np.ascontiguousarray(albedo.transpose(1, 2, 0)))


def without_coarse(displacement: np.ndarray, weight: np.ndarray, coarsest_mm: float = COARSEST_MM) -> np.ndarray:
    """High-pass a map (S, S): subtract its Gaussian of width `coarsest_mm`, normalised within weight (S, S)."""
    size = len(displacement)
    step = max(1, size // GRID * 4)
    sigma = coarsest_mm / FACE_MM_PER_TEXEL * size / GRID / step

    def reduced(values: np.ndarray) -> np.ndarray:
        return values.reshape(size // step, step, size // step, step).mean((1, 3))

    total = gaussian_filter(reduced(displacement * weight), sigma)
    coarse = total / np.maximum(gaussian_filter(reduced(weight), sigma), 1e-3)
    if step > 1:
        coarse = zoom(coarse, step, order=1, mode="nearest", grid_mode=True)
    return (displacement - coarse).astype(np.float32)


def _soft_clip(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Soft clipping to low..high, unchanged near 0."""
    bound = np.where(values < 0, np.float32(-low), np.float32(high))
    return (bound * np.tanh(values / bound)).astype(np.float32)


def training_sample(model: FaceModel, surface: DetailSurface, index: int, seed: int) -> DetailSample:
    """Draw sample number `index`: a random person of the model with skin of the person's age and sex.

    Args:
        surface: of the same model, usually 512 texels a side, which is also the size of the image.
    Returns:
    """
    rng = np.random.default_rng([int(seed) & 0xFFFFFFFF, int(index), 3])
    params = model.random(int(rng.integers(2**31)), hair=False)
    z = random_z(rng, *likely_age_and_masculinity(model, params, rng))
    maps = synthetic_detail(surface, z, int(rng.integers(2**31)), albedo_tone(model, params))
    return DetailSample(condition_maps(model, params, CONDITION_SIZE), picture_of_maps(CODE, maps), z)


def likely_age_and_masculinity(model: FaceModel, params: FaceParams, rng: np.random.Generator) -> tuple[float, float]:
    """Age and masculinity estimated from a head, with noise: skin does not match the skull to the year."""
    years, male = age_and_masculinity(model, params)
    years, male = years + 3 * rng.standard_normal(), male + 0.15 * rng.standard_normal()
    return float(np.clip(years, *AGES)), float(np.clip(male, -MOST_MASCULINE, MOST_MASCULINE))


def albedo_tone(model: FaceModel, params: FaceParams) -> float:
    """Mean luminance of the face's albedo, linear."""
    albedo = model.albedo(torch.from_numpy(np.array(params.albedo, np.float32, ndmin=2)).to(model.device))[0]
    skin = model.regions.get("face", slice(None))
    return float(np.clip(albedo.numpy(force=True)[skin], 0, 1).mean(0) @ np.array(LUMINANCE))


def detail_sheet(maps: list[DetailMaps]) -> np.ndarray:
    """Contact sheet (H, W, 3) uint8 of maps: displacement above, albedo change below."""
    displacements = [np.clip(128 + 350 * m.displacement, 0, 255)[..., None].repeat(3, 2) for m in maps]
    linear = [torch.from_numpy(0.3 * np.exp(m.albedo_log)).clamp(0, 1) for m in maps]
    colours = [255 * srgb_from_linear(colour).numpy() for colour in linear]
    return (
        np.concatenate([np.concatenate(row, axis=1) for row in (displacements, colours)]).clip(0, 255).astype(np.uint8)
    )
