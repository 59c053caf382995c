"""Textures with transparency: glTF's alpha modes, filtered without bleeding, at any distance.

Colours are filtered premultiplied by alpha (Porter and Duff 1984, "Compositing digital images"), so that the colour of
transparent texels, which is often arbitrary, never shows. A chain of halved textures (mipmap) holds what a pixel sees
of many texels.

Coverage survives halving. With the mode "MASK" an averaged alpha would fall below the cutoff where lashes are thinner
than a texel, and they would vanish with distance. Castaño (2010, "Computing alpha mipmaps") scales each level so that
a test of its texels passes on the same area. Here a hit can be covered in part, so that the levels hold the tested
area itself: the share of each texel that passes the test in the full texture.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ParameterError
from .lighting import linear_from_srgb

AlphaMode = Literal["OPAQUE", "MASK", "BLEND"]
ALPHA_MODES: tuple[AlphaMode, ...] = ("OPAQUE", "MASK", "BLEND")
"""Names of glTF 2.0: alpha ignored; tested against a cutoff; blended."""
DEFAULT_CUTOFF = 0.5  # of glTF
_ROUNDING = 1e-5  # of interpolated alpha, well below the step of a byte
_LEAST_ALPHA = 1e-12

# Prepared textures by the identity of their pixels, as long as these exist: comparing megabytes would be slower.
_shared: dict[tuple[int, str, float], tuple[weakref.ref[np.ndarray], AlphaTexture]] = {}


@dataclass(frozen=True)
class AlphaTexture:
    """A texture with its alpha mode, ready for look-ups.

    Attributes:
        levels: (4, H, W) each, halved from one to the next: linear RGB times alpha, and alpha; for "MASK", from the
            second one on, times the share of the texel that passes the test.
        alpha_mode: of `ALPHA_MODES`.
        alpha_cutoff: least alpha that passes the test of "MASK".
    """

    levels: tuple[Tensor, ...]
    alpha_mode: AlphaMode
    alpha_cutoff: float

    @classmethod
    def of(
        cls, pixels: np.ndarray, alpha_mode: AlphaMode = "OPAQUE", alpha_cutoff: float = DEFAULT_CUTOFF
    ) -> AlphaTexture:
        """Prepare a texture.

        Args:
            pixels: (H, W, 4) uint8, sRGB and alpha, not premultiplied, or (H, W, 3) with alpha 255.
            alpha_mode: "OPAQUE", "MASK" or "BLEND".
            alpha_cutoff: for "MASK": texels of at least this alpha, 0..1, are opaque, the others transparent.

        Raises:
            ParameterError: a wrong shape or dtype, an unknown mode, a cutoff that is negative or not a number.
        """
        if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or 0 in pixels.shape or pixels.dtype != np.uint8:
            raise ParameterError("alpha.texture", shape=pixels.shape, dtype=str(pixels.dtype))
        if alpha_mode not in ALPHA_MODES:
            raise ParameterError("alpha.mode", mode=repr(alpha_mode), modes=", ".join(map(repr, ALPHA_MODES)))
        if not 0 <= alpha_cutoff < math.inf:
            raise ParameterError("alpha.cutoff", cutoff=alpha_cutoff)
        values = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float() / 255
        colour, alpha = linear_from_srgb(values[:3]), values[3:]
        if alpha_mode == "OPAQUE" or not len(alpha) or (alpha_mode == "MASK" and alpha_cutoff <= _ROUNDING):
            alpha = torch.ones_like(colour[:1])
        level = torch.cat((colour * alpha, alpha))
        levels = [level]
        if alpha_mode == "MASK":
            level = _tested(level, alpha_cutoff)
        while max(level.shape[1:]) > 1:
            half = max(1, level.shape[1] // 2), max(1, level.shape[2] // 2)
            level = functional.interpolate(level[None], half, mode="area")[0]
            levels.append(level)
        return cls(tuple(levels), alpha_mode, float(alpha_cutoff))

    def sampled(self, uv: Tensor, per_pixel: tuple[Tensor, Tensor], sharpen: bool = False) -> tuple[Tensor, Tensor]:
        """Look up colour and coverage, as large an area of the texture as a pixel sees.

        Args:
            uv: (2, P) texture coordinates, origin at the top left; the border is continued outside 0..1.
            per_pixel: change (2, P) of ``uv`` per pixel to the right, and per pixel down.
            sharpen: for "MASK" where the texture is magnified: grade the coverage over one pixel at the border of the
                mask, as alpha-to-coverage does, instead of testing yes or no. For pictures without supersampling.

        Returns:
            (3, P) linear RGB, not premultiplied, 0 where nothing is covered, and (P,) coverage in 0..1.
        """
        height, width = self.levels[0].shape[1:]
        # Twenty times as fast as a norm along the first axis.
        right, below = (torch.hypot(change[0] * width, change[1] * height) for change in per_pixel)
        footprint = torch.maximum(right, below)
        level = footprint.clamp(min=1).log2().clamp(max=len(self.levels) - 1)
        total = uv.new_zeros(4, uv.shape[1])
        for k, texture in enumerate(self.levels):
            near = ((level - k).abs() < 1).nonzero().squeeze(1)
            if not len(near):
                continue
            values = _bilinear(texture, uv[:, near])
            if k == 0 and self.alpha_mode == "MASK":
                slope = self._alpha_slope(uv[:, near], [change[:, near] for change in per_pixel]) if sharpen else None
                values = _straight(values) * self._test(values[3], slope)
            total = total.index_add(1, near, values * (1 - (level[near] - k).abs()))
        return _straight(total)[:3], total[3].clamp(0, 1)

    def _test(self, alpha: Tensor, slope: Tensor | None) -> Tensor:
        """(P,) coverage of the alpha test, graded over a pixel if alpha's change per pixel is given."""
        if slope is None:
            return (alpha >= self.alpha_cutoff - _ROUNDING).to(alpha.dtype)
        return ((alpha - self.alpha_cutoff) / slope.clamp(min=_ROUNDING) + 0.5).clamp(0, 1)

    def _alpha_slope(self, uv: Tensor, per_pixel: list[Tensor]) -> Tensor:
        """(P,) length of the gradient of alpha per pixel, by differences across the pixel."""
        alpha = self.levels[0][3:]
        right, below = (_bilinear(alpha, uv + change / 2) - _bilinear(alpha, uv - change / 2) for change in per_pixel)
        return torch.hypot(right[0], below[0])


def shared_texture(pixels: np.ndarray, alpha_mode: AlphaMode, alpha_cutoff: float) -> AlphaTexture:
    """`AlphaTexture.of`, once for each array of pixels, which must not change."""
    key = id(pixels), alpha_mode, alpha_cutoff
    found = _shared.get(key)
    if found is not None and found[0]() is pixels:
        return found[1]
    prepared = AlphaTexture.of(pixels, alpha_mode, alpha_cutoff)
    _shared[key] = weakref.ref(pixels, lambda _: _shared.pop(key, None)), prepared
    return prepared


def _straight(values: Tensor) -> Tensor:
    """(4, P) from premultiplied to plain colours, and ones."""
    return values / values[3].clamp(min=_LEAST_ALPHA)


def _bilinear(texture: Tensor, uv: Tensor) -> Tensor:
    """Texture (C, H, W) at (2, P): (C, P)."""
    grid = uv.t()[None, None].to(texture.dtype) * 2 - 1
    sampled = functional.grid_sample(texture[None], grid, align_corners=False, padding_mode="border")
    return sampled[0, :, 0].to(uv.dtype)


def _tested(level: Tensor, cutoff: float) -> Tensor:
    """Premultiplied texture (4, H, W) with the share of each texel that passes the test as its alpha."""
    fine = functional.interpolate(level[None], scale_factor=2, mode="bilinear", align_corners=False)[0]
    passed = (fine[3] >= cutoff - _ROUNDING).to(fine.dtype)
    return functional.avg_pool2d(_straight(fine) * passed, 2)
