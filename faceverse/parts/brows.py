"""Brows of a style in the colour of a person. Heads have painted brows where no style is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from ..graphics.lighting import LUMINANCE, linear_from_srgb, srgb_from_linear
from .hair import MEAN_LUMINANCE, tinted
from .identity import Same
from .part import Part

_DARKNESS = 0.7  # brows are finer and lie closer than the hairs of the head, and shade each other
_CACHED_TEXTURES = 16


def with_brows(parts: Mapping[str, Part], colour: np.ndarray) -> dict[str, Part]:
    """The parts by slot, with brows, if there are any, in a colour (3,), linear RGB."""
    result = dict(parts)
    if "brows" in result:
        part = result["brows"]
        texture = tinted(_grey(Same(part.material.texture)), colour * _DARKNESS)
        result["brows"] = replace(part, material=replace(part.material, texture=texture))
    return result


def grey_texture(pixels: np.ndarray) -> np.ndarray:
    """A texture of hairs (H, W, 4) uint8 without colour, with a mean luminance of `hair.MEAN_LUMINANCE` where it
    covers."""
    linear = linear_from_srgb(torch.from_numpy(pixels[..., :3] / 255.0)).numpy()
    luminance, weight = linear @ np.array(LUMINANCE), pixels[..., 3] / 255.0
    luminance *= MEAN_LUMINANCE * weight.sum() / np.maximum((luminance * weight).sum(), 1e-9)
    grey = srgb_from_linear(torch.from_numpy(np.clip(luminance, 0, 1))).numpy()
    level = (grey * 255 + 0.5).astype(np.uint8)
    return np.concatenate([np.repeat(level[..., None], 3, axis=2), pixels[..., 3:]], axis=2)


@lru_cache(maxsize=_CACHED_TEXTURES)
def _grey(key: Same[np.ndarray]) -> np.ndarray:
    return grey_texture(key.value)
