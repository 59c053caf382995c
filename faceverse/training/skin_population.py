"""A population of facial albedos: linear RGB per vertex.

The photographic skin textures are decomposed into melanin, blood and shade (see `skin_reflectance`). Slow variation of
the shade is attributed to illumination and removed. Patterns of a few textures that match a person in age, sex and
ancestry are blended, each mirrored or not, and combined with melanin and blood drawn over the full human range. Hair on
scalp, brows and chin, lashes, lips, redness and freckles are painted from random traits; their traces in the textures
are removed first. Hair coverage is an area mixture and therefore blended in linear RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..graphics.lighting import linear_from_srgb, sh_basis
from .appearance_traits import AppearanceTraits, draw_traits, maturity
from .skin_fields import SkinFields, smoothstep
from .skin_reflectance import melanin_index, pigment_table, unmix
from .sources import ANCESTRIES, SkinTexture

if TYPE_CHECKING:
    from .shape_population import PopulationSettings

DARKEST = 0.004
SLOW_FIELDS = 24  # leading smooth fields by which people differ; the albedo modes cannot represent more
PATTERN_SIGMA = (0.10, 0.22, 0.07)  # limits for melanin index, log blood and shade; stronger patterns are damped
LIGHT_SIGMA = 3.0  # prior scale of the illumination harmonics against the slow variation of the shade
LIP_PATTERN = 0.8  # share of the textures' variation kept within the lips
SHADE_KEPT = 0.7  # share of the fine shade kept: wrinkles and pores look flat without it
# Density per channel of the blood in lips, which have no horny layer to hide it (blood absorbs green most).
LIP_BLOOD = np.array([0.32, 0.84, 0.68])
SEAM = np.array([0.22, 0.42, 0.40])  # density of the wet rims where the lips touch
NOSTRIL = np.array([1.0, 1.35, 1.4])
CHILD_EVENNESS = 0.5  # share of the adults' pattern that a child's skin lacks
LASHES = np.array([0.020, 0.014, 0.011])


def density(srgb: np.ndarray) -> np.ndarray:
    """Optical density, minus the logarithm of linear RGB, of sRGB colours in 0..1 (any shape)."""
    linear = linear_from_srgb(torch.from_numpy(np.asarray(srgb, dtype=np.float64))).numpy()
    return -np.log(np.maximum(linear, DARKEST))


def sample_texture(pixels: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear samples (V, C) of pixels (H, W, C) at uv (V, 2), origin at the bottom left as in the sources."""
    height, width = pixels.shape[:2]
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1.001)
    y = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1.001)
    x0, y0 = x.astype(int), y.astype(int)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    p = pixels.reshape(height, width, -1).astype(np.float64)
    top = p[y0, x0] * (1 - fx) + p[y0, x0 + 1] * fx
    bottom = p[y0 + 1, x0] * (1 - fx) + p[y0 + 1, x0 + 1] * fx
    return top * (1 - fy) + bottom * fy


@dataclass(frozen=True)
class PaintSurface:
    """The surface that skins are painted on, V vertices.

    Args:
        uv: (V, 2) in the sources' texture space.
        mirror: (V,) index of the vertex on the other side of the face.
        fields: painting masks.
        normals: (V, 3) of unit length.
        smooth: (V, K) slowly varying unit-variance fields, strongest first.
        fine: (V, F) unit-variance fields that vary over millimetres.
        fixed: (V, 3) linear RGB of everything but skin.
    """

    uv: np.ndarray
    mirror: np.ndarray
    fields: SkinFields
    normals: np.ndarray
    smooth: np.ndarray
    fine: np.ndarray
    fixed: np.ndarray


def patterns(skins: list[SkinTexture], surface: PaintSurface) -> np.ndarray:
    """(S, V, 3) melanin index, log blood and shade of each texture relative to its plain skin, with the features
    removed that are painted separately."""
    f = surface.fields
    own = f.skin * (1 - smoothstep((f.hairline + 0.020) / 0.014)) * (1 - 0.85 * f.lid_margin) * (1 - f.lips)
    plain = (own * (1 - f.ears) * (1 - f.orbit) * smoothstep((0.045 - np.abs(f.hairline + 0.05)) / 0.02)) > 0.5
    # Illumination varies slowly over the face, and with the normal.
    directions = sh_basis(torch.from_numpy(surface.normals)).numpy()
    lit = np.concatenate([surface.smooth, LIGHT_SIGMA * directions], axis=1)
    result = []
    for skin in skins:
        d = density(sample_texture(skin.pixels, surface.uv) / 255.0)
        parts = unmix(d, np.median(d[plain], axis=0))
        # Lips keep their own variation but not their colour; brows of the textures would double the painted ones.
        lips = parts - (f.lips[:, None] * parts).sum(0) / f.lips.sum()
        parts = parts - (plain[:, None] * parts).sum(0) / plain.sum()
        slow = _slow(parts, surface.smooth, own)
        parts[:, 2] = SHADE_KEPT * (parts[:, 2] - _slow(parts[:, 2], lit, own))
        slow[:, 2] = 0
        parts *= 1 - f.brow_smear[:, None] * (0.6, 0.3, 0.9)
        parts = slow + own[:, None] * (parts - slow)
        parts += f.lips[:, None] * (LIP_PATTERN * lips - parts)
        parts *= np.minimum(1, PATTERN_SIGMA / np.maximum(parts[plain].std(0), 1e-6))
        result.append(np.clip(parts, *(np.array(PATTERN_SIGMA) * np.array([[-3], [3]]))) * f.skin[:, None])
    return np.stack(result)


def _slow(values: np.ndarray, smooth: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Slowly varying part (V, ...) of values where the weight (V,) is 1, extrapolated to where it is 0.

    Regression on a Gaussian process with the factor `smooth` (V, K); the extrapolation decays with distance.
    """
    weighted = smooth * weight[:, None]
    normal = weighted.T @ smooth + 1e-3 * len(smooth) * np.eye(smooth.shape[1])
    return smooth @ np.linalg.solve(normal, weighted.T @ values)


class SkinPopulation:
    """Draws facial albedos (V, 3).

    Args:
        skins: the source textures.
        surface: the surface.
    """

    def __init__(self, skins: list[SkinTexture], surface: PaintSurface):
        self.skins, self.surface = skins, surface
        self.patterns = patterns(skins, surface).astype(np.float32)
        f = surface.fields
        patches = smoothstep((surface.fine - 0.9) / 0.9)
        half = surface.fine.shape[1] // 2
        sunny = np.clip(f.cheeks + f.nose + 0.4 * smoothstep((f.brows.across > 0) * (0.06 + f.hairline) / 0.03), 0, 1)
        self.freckles = patches[:, :half] * np.clip(1.3 * f.cheeks + f.nose, 0, 1)[:, None]
        self.spots = patches[:, half:] * (f.skin * (1 - f.lips) * (0.35 + 0.65 * sunny))[:, None]
        self.forehead = np.exp(-0.5 * ((f.hairline + 0.03) / 0.015) ** 2) * (1 - f.cheeks)
        self.own = f.skin * (1 - smoothstep((f.hairline + 0.01) / 0.02))

    def draw(self, settings: PopulationSettings, index: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the albedo (V, 3), linear RGB, of person `index`."""
        traits = draw_traits(settings, index, rng)
        return self.paint(traits, self._pattern(settings, index, rng), rng)

    def paint(self, traits: AppearanceTraits, pattern: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Paint traits on a pattern (V, 3) of melanin index, log blood and shade: albedo (V, 3), linear RGB.

        `rng` draws slow pigment variation and the patches of freckles and spots.
        """
        f = self.surface.fields
        index, log_blood = self._pigments(traits, pattern, rng)
        d = pigment_table(traits.pheomelanin)(index, log_blood) + pattern[:, 2:]
        d += (f.lips * traits.lip_blood)[:, None] * LIP_BLOOD
        d += f.seam[:, None] * SEAM + f.nostrils[:, None] * NOSTRIL
        linear = np.exp(-np.maximum(d, 0.02))
        for share, colour in self._hairs(traits, rng):
            linear += share[:, None] * (colour - linear)
        skin = f.skin[:, None]
        return (skin * linear + (1 - skin) * self.surface.fixed).astype(np.float32)

    def _pigments(
        self, traits: AppearanceTraits, pattern: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Melanin index and log blood, each (V,)."""
        f, slow = self.surface.fields, self.surface.smooth[:, :SLOW_FIELDS]
        slow = slow @ (rng.standard_normal((slow.shape[1], 2)) * (0.05, 0.10))
        index = melanin_index(traits.melanin) + pattern[:, 0] + slow[:, 0] * self.own
        index = index + traits.shadows[0] * f.orbit + traits.shadows[1] * f.under_eye
        index = index + self.freckles @ (traits.freckles * rng.gamma(2, 0.5, self.freckles.shape[1]))
        index = index + self.spots @ (traits.spots * rng.gamma(1, 1, self.spots.shape[1]))
        # Lips hold less melanin than the surrounding skin, the lower one much less.
        lighter = f.lips * (0.13 - 0.10 * f.upper)
        index = index + lighter * (melanin_index(0.012) - index) + f.lips * traits.lip_melanin
        flush = np.stack([f.cheeks, f.nose, f.ears, f.chin, self.forehead], axis=1) @ traits.flush
        log_blood = np.log(traits.blood) + pattern[:, 1] + slow[:, 1] * self.own + flush
        return index, log_blood + 1.5 * traits.shadows[1] * f.under_eye + 0.6 * f.lips

    def _hairs(self, t: AppearanceTraits, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """Coverage (V,) by each kind of hair, and its colour (3,), in painting order."""
        f, slow = self.surface.fields, self.surface.smooth[:, :SLOW_FIELDS]
        ragged = 0.0025 * slow[:, :12] @ rng.standard_normal(min(12, slow.shape[1]))
        front, temples, top = t.recession
        line = f.hairline - front * (1 - f.temples) - temples * f.temples + ragged
        scalp = t.scalp * smoothstep(0.5 + line / 0.021) * (1 - top * f.top) * (1 - 0.8 * t.thin_crown * f.crown)
        beard = (t.beard + (t.moustache - t.beard) * f.moustache) * (0.6 + 0.4 * f.moustache)
        beard = beard * smoothstep(0.5 + (f.beard + ragged) / 0.016) * (1 - f.lips) ** 2
        lashes = f.lid_margin**1.5 * (t.lashes[1] + (t.lashes[0] - t.lashes[1]) * f.upper)
        covers = ((beard, t.beard_hair), (scalp, t.hair), (self.brow_share(t), t.brow_hair), (lashes, LASHES))
        return [(np.clip(share, 0, 0.95) * f.skin, colour) for share, colour in covers]

    def brow_share(self, t: AppearanceTraits) -> np.ndarray:
        """(V,) coverage by the eyebrows: bushy at the nose, arched, thin at the tail."""
        along, across = self.surface.fields.brows.along, self.surface.fields.brows.across
        middle = t.brow_shift + t.brow_arch * (np.exp(-0.5 * ((along - 0.62) / 0.2) ** 2) - 0.4)
        half = t.brow_width * np.interp(along, (0, 0.12, 0.6, 1), (0.8, 1.0, 0.95, 0.5))
        inside = smoothstep(0.5 + (half - np.abs(across - middle)) / 1.1)
        ends = smoothstep(0.35 + along / 0.14) * smoothstep((1.02 * t.brow_tail - along) / 0.25)
        return t.brow * inside * ends

    def _pattern(self, settings: PopulationSettings, index: int, rng: np.random.Generator) -> np.ndarray:
        """Blend (V, 3) of the few source textures that match the person best, so that it stays sharp.

        Each is mirrored or not at random, so that no asymmetry is systematic.
        """
        years = np.array([s.years for s in self.skins])
        male = np.array([float(s.male) for s in self.skins])
        kin = np.array([settings.ancestry[index][ANCESTRIES.index(s.ancestry)] for s in self.skins])
        fit = np.exp(-(((years - settings.years[index]) / 16) ** 2) / 2) + 1e-4
        fit *= 0.02 + np.where(male > 0.5, settings.male[index], 1 - settings.male[index])
        fit *= 0.15 + kin
        shares = fit * rng.gamma(0.6, size=len(fit))
        shares *= rng.uniform(0.9, 1.4) / shares.sum()
        mirrored = rng.random(len(shares)) < 0.5
        shares *= 1 - CHILD_EVENNESS * (1 - maturity(settings.years[index]))
        plain = np.tensordot(np.where(mirrored, 0, shares), self.patterns, axes=1)
        return plain + np.tensordot(np.where(mirrored, shares, 0), self.patterns, axes=1)[self.surface.mirror]
