"""Paint the texture of beards: tiles with hairs from the root at the top to the tips at the bottom, grey with alpha."""

from __future__ import annotations

import numpy as np

from ..parts.beard_layout import TILES, UNDERCOAT_BAND
from .skin_fields import smoothstep

SIZE_PX = (512, 1024)  # height, width
_SPREAD = 0.38  # standard deviation of the logarithm of brightness from hair to hair
_ROOT_SHADE, _TIP_SHADE = 0.55, 1.2
_LEVELS = 32  # of grey and alpha: noise beyond them would only make the file larger


def paint_beard(seed: int = 0) -> np.ndarray:
    """Draw all tiles.

    Args:
        seed: of the hairs' places.

    Returns:
        (H, W, 4) uint8, grey and alpha; its brightness is relative.
    """
    rng, (height, width) = np.random.default_rng(seed), SIZE_PX
    band, tile = round(height * UNDERCOAT_BAND), width // TILES
    opacity, light = np.zeros((2, height, width))
    for number in range(TILES):
        across = slice(number * tile, (number + 1) * tile)
        drawn = _undercoat(rng, (band, tile), number / (TILES - 1))
        opacity[:band, across], light[:band, across] = drawn
        drawn = _coat(rng, (height - band, tile), number / (TILES - 1))
        opacity[band:, across], light[band:, across] = drawn
    alpha = 1 - np.exp(-opacity)
    # Texels without hairs take the shade of their row, which filtered look-ups reach at the hairs' borders.
    shade = np.where(opacity > 1e-3, light / np.maximum(opacity, 1e-3), 0.8)
    level = np.clip(np.sqrt(np.clip(shade, 0, None)) / 2, 0, 1)
    packed = np.round(np.stack([level, alpha]) * (_LEVELS - 1)) * (255 / (_LEVELS - 1))
    return np.stack([packed[0]] * 3 + [packed[1]], axis=2).astype(np.uint8)


def _coat(rng: np.random.Generator, size: tuple[int, int], sparseness: float) -> np.ndarray:
    """A tile (2, H, W), opacity and opacity times brightness, of long hairs that gather to locks towards the tips."""
    height, width = size
    count = round(18 - 12 * sparseness)
    start = (np.arange(count) + rng.uniform(0.1, 0.9, count)) / count * 0.84 + 0.08
    locks = rng.uniform(0.2, 0.8, 3)
    aim = locks[np.abs(start[:, None] - locks).argmin(axis=1)]
    gathered = rng.uniform(0.2, 0.65, count)
    end = rng.beta(3.0, 1.3, count) * 0.62 + 0.36
    wave, phase = rng.normal(0, 0.03, count), rng.uniform(0, 2 * np.pi, count)
    begin = rng.uniform(0.0, 0.22, count)[:, None]  # roots are staggered, so that cards have no upper edge
    t = (np.arange(height * 2) + 0.5)[None] / (height * 2)
    x = start[:, None] + (aim - start)[:, None] * gathered[:, None] * t**1.3
    x = x + wave[:, None] * np.sin(phase[:, None] + 5.0 * t) * t
    x = np.clip(x, 0.04, 0.96)
    along = (t - begin) / (end[:, None] - begin)
    amount = np.where(along < 1, rng.uniform(0.65, 1.0, count)[:, None], 0) * (1 - along.clip(0, 1) ** 3)
    amount = amount * smoothstep(along / 0.04)
    bright = np.exp(rng.normal(0, _SPREAD, count))[:, None] * (
        _ROOT_SHADE + (_TIP_SHADE - _ROOT_SHADE) * smoothstep(along / 0.5)
    )
    hair_px = (1.9 + 0.9 * rng.random(count))[:, None] * (1.1 - 0.65 * along.clip(0, 1))
    return _splat(x * width, np.broadcast_to(t * height, x.shape), amount, bright, hair_px, size)


def _undercoat(rng: np.random.Generator, size: tuple[int, int], sparseness: float) -> np.ndarray:
    """A tile (2, H, W) of short hairs whose number fades to the borders."""
    height, width = size
    count = round(230 - 190 * sparseness)
    root = np.stack([rng.uniform(0.04, 0.96, count), rng.uniform(0.0, 0.78, count)], axis=1)
    t = np.linspace(0, 1, 48)[None]
    length, turn = rng.uniform(0.20, 0.40, count)[:, None], rng.normal(0, 0.28, count)[:, None]
    x = np.clip(root[:, :1] + length * t * np.sin(turn), 0.02, 0.98)
    y = root[:, 1:] + length * t * np.cos(turn)
    fade = smoothstep((0.5 - np.abs(root[:, :1] - 0.5)) / 0.2) * smoothstep(y / 0.1) * smoothstep((1 - y) / 0.15)
    amount = 0.75 * rng.uniform(0.6, 1.2, count)[:, None] * (1 - t**2) * fade
    bright = np.exp(rng.normal(0, _SPREAD, count))[:, None] * (0.45 + 0.35 * sparseness + 0.25 * t)
    hair_px = np.full_like(x, 1.3)
    return _splat(x * width, y * height, amount, bright, hair_px, size)


def _splat(
    x: np.ndarray, y: np.ndarray, amount: np.ndarray, bright: np.ndarray, hair_px: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Opacity and opacity times brightness (2, H, W) of dots (N, T) with Gaussian profiles across x.

    Args:
        x, y: pixels.
        amount, bright: of the dots.
        hair_px: half width of the hairs.
        size: (H, W).
    """
    height, width = size
    total = np.zeros((2, height * width))
    row = np.clip(y, 0, height - 1).astype(np.int64)
    per_row = np.maximum(np.abs(np.gradient(y, axis=1)), 1e-6)
    for offset in range(-4, 5):
        column = np.floor(x).astype(np.int64) + offset
        weight = 2.2 * amount * per_row.clip(max=1.0) * np.exp(-0.5 * np.square((column + 0.5 - x) / (0.6 * hair_px)))
        weight = np.where((column >= 0) & (column < width), weight, 0).ravel()
        place = (row * width + column.clip(0, width - 1)).ravel()
        total[0] += np.bincount(place, weight, height * width)
        total[1] += np.bincount(place, weight * np.broadcast_to(bright, x.shape).ravel(), height * width)
    return total.reshape(2, height, width)
