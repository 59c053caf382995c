"""A population of skins: colour per vertex, in linear light.

The twenty textures are taken apart in optical density (minus the logarithm of reflectance, in which pigments add):
a pattern (lips, age, blotches, shaved hair) and a tone. Patterns are mixed, tones drawn anew along a ramp over all
human skin, and what the textures lack is painted: brows, lash lines, redness that varies slowly over the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..lighting import linear_from_srgb
from .heads import Settings
from .sources import ANCESTRIES, Skin

# Skin tones (sRGB, from very light to very dark) that the ramp passes through; chosen by eye to follow ITA 60 .. -50.
TONE_RAMP_SRGB = (
    (238, 206, 187),
    (226, 184, 156),
    (205, 156, 122),
    (171, 120, 87),
    (124, 83, 60),
    (86, 57, 44),
    (58, 40, 33),
)
HAIR_SRGB = {"black": (22, 18, 17), "brown": (58, 40, 28), "blond": (148, 116, 78), "grey": (140, 136, 132)}
HAEMOGLOBIN = np.array([0.12, 1.0, 0.72])  # density per channel: blood absorbs green most
MELANIN = np.array([0.62, 0.80, 1.0])
DARKEST = 0.004
PART_COLOURS = {  # linear RGB of what is not skin
    "sclera": (0.66, 0.62, 0.60),
    "iris": (0.09, 0.045, 0.02),
    "pupil": (0.006, 0.006, 0.006),
    "teeth": (0.62, 0.56, 0.45),
    "tongue": (0.36, 0.12, 0.11),
    "mouth_inside": (0.085, 0.022, 0.020),
}


@dataclass(frozen=True)
class SkinMasks:
    """Where skins are painted, on V fine vertices, each (V,) in 0..1.

    Args:
        skin: everything but eyes, teeth, tongue and the mouth's inside.
        face: the face without hair.
        scalp: where the textures show shaved hair.
        lips, lids, brows: as they say.
    """

    skin: np.ndarray
    face: np.ndarray
    scalp: np.ndarray
    lips: np.ndarray
    lids: np.ndarray
    brows: np.ndarray


def density(srgb: np.ndarray) -> np.ndarray:
    """Optical density of sRGB colours in 0..1 (any shape)."""
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


def tone_density(tone: np.ndarray) -> np.ndarray:
    """Density (..., 3) of a plain skin of given tone in 0 (very light) .. 1 (very dark)."""
    ramp = density(np.array(TONE_RAMP_SRGB) / 255.0)
    position = np.asarray(tone, dtype=np.float64) * (len(ramp) - 1)
    return np.stack([np.interp(position, np.arange(len(ramp)), ramp[:, c]) for c in range(3)], axis=-1)


class SkinPopulation:
    """Draws albedos (V, 3).

    Args:
        skins: the source textures.
        uv: (V, 2) of the fine vertices in the sources' texture space.
        masks: where what is painted.
        smooth_modes: (V, K) slowly varying unit-variance fields, for redness.
        fixed: (V, 3) linear colour of everything that is not skin.
    """

    def __init__(
        self, skins: list[Skin], uv: np.ndarray, masks: SkinMasks, smooth_modes: np.ndarray, fixed: np.ndarray
    ):
        self.skins, self.masks, self.smooth, self.fixed = skins, masks, smooth_modes, fixed
        plain = masks.face * (1 - masks.lips) * (1 - masks.lids)
        self.patterns = []
        for skin in skins:
            d = density(sample_texture(skin.pixels, uv) / 255.0)
            self.patterns.append(d - (plain[:, None] * d).sum(0) / plain.sum())
        self.patterns = np.stack(self.patterns)

    def draw(self, settings: Settings, index: int, rng: np.random.Generator) -> np.ndarray:
        """Albedo (V, 3), linear RGB, of person `index`."""
        m, years = self.masks, settings.years[index]
        pattern = np.tensordot(self._mixture(settings, index, rng), self.patterns, axes=1) * rng.uniform(0.75, 1.25)
        base = tone_density(settings.tone[index]) + 0.05 * rng.standard_normal() * HAEMOGLOBIN
        base = base + 0.05 * rng.standard_normal() * np.array([0.0, 0.1, 1.0])
        d = base + pattern
        flush = 0.05 * self.smooth @ rng.standard_normal(self.smooth.shape[1])
        blotch = 0.03 * self.smooth @ rng.standard_normal(self.smooth.shape[1])
        d += (m.face * flush)[:, None] * HAEMOGLOBIN + (m.face * blotch)[:, None] * MELANIN
        d += m.lips[:, None] * (0.16 * rng.standard_normal() * HAEMOGLOBIN + 0.10 * rng.standard_normal())
        d += m.lids[:, None] * rng.uniform(0.3, 0.9)
        hair = self._hair(settings, index, rng)
        brow = (m.brows * rng.uniform(0.35, 0.95) * (0.8 if years > 60 else 1.0))[:, None]
        d += brow * (hair - d)
        scalp = (m.scalp * rng.uniform(0.3, 0.8))[:, None]
        d += scalp * (0.5 * hair + 0.5 * d - d)
        skin = m.skin[:, None]
        return (skin * np.exp(-np.maximum(d, 0.02)) + (1 - skin) * self.fixed).astype(np.float32)

    def _mixture(self, settings: Settings, index: int, rng: np.random.Generator) -> np.ndarray:
        """Shares of the source skins that resemble the person's age, sex and ancestry; few, so that it stays sharp."""
        years = np.array([s.years for s in self.skins])
        male = np.array([float(s.male) for s in self.skins])
        kin = np.array([settings.ancestry[index][ANCESTRIES.index(s.ancestry)] for s in self.skins])
        fit = np.exp(-(((years - settings.years[index]) / 16) ** 2) / 2) + 1e-4
        fit *= 0.02 + np.where(male > 0.5, settings.male[index], 1 - settings.male[index])
        fit *= 0.05 + kin
        shares = fit * rng.gamma(0.6, size=len(fit))
        return shares / shares.sum()

    def _hair(self, settings: Settings, index: int, rng: np.random.Generator) -> np.ndarray:
        """Density (3,) of the hair: black to blond by ancestry and chance, grey with age."""
        d = {name: density(np.array(colour) / 255.0) for name, colour in HAIR_SRGB.items()}
        light = settings.ancestry[index][2] * rng.random()
        hair = (
            d["black"]
            + (d["brown"] - d["black"]) * min(1, 2 * light)
            + (d["blond"] - d["brown"]) * max(0, 2 * light - 1)
        )
        grey = np.clip((settings.years[index] - 42) / 35 + 0.15 * rng.standard_normal(), 0, 1)
        return hair + grey * (d["grey"] - hair)


def eyeball_colours(vertices: np.ndarray, centre: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Linear colours (K, 3) of eyeball vertices (K, 3): pupil, iris and white by the angle to the gaze axis."""
    direction = vertices - centre
    cosine = direction @ axis / np.linalg.norm(direction, axis=1)
    degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    white = np.clip((degrees - 22) / 6, 0, 1)[:, None]
    pupil = np.clip((11 - degrees) / 4, 0, 1)[:, None]
    colour = {k: np.array(v) for k, v in PART_COLOURS.items()}
    return (1 - pupil) * ((1 - white) * colour["iris"] + white * colour["sclera"]) + pupil * colour["pupil"]
