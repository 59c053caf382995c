"""How the mesh and the texture of beards are laid out, for what makes the file and for what shapes beards from it.

A beard is made of cards: strips of hairs with `ROWS` rows of two vertices, from the root to the tips. Vertices of a
card follow each other, and so do the cards. Cards of the undercoat come first: they lie on the skin and hide it between
the longer hairs of the coat. Both show tiles of one texture, those of the undercoat its upper band.
"""

from __future__ import annotations

import numpy as np

from .part import Part

ROWS = 4
CARD_VERTICES = 2 * ROWS
CARD_FACES = 2 * (ROWS - 1)
UNDERCOAT_BAND = 0.25
"""Share of the texture's height with the tiles of the undercoat."""
TILES = 8
"""Tiles beside each other, in the undercoat's band and below it."""
_GOLDEN_RATIO = (np.sqrt(5) - 1) / 2


def card_faces(count: int) -> np.ndarray:
    """Triangles (F, 3) int64 of so many cards."""
    row = np.arange(ROWS - 1)[:, None] * 2
    quads = np.stack([row + (0, 2, 3), row + (0, 3, 1)], axis=1).reshape(-1, 3)
    return (np.arange(count)[:, None, None] * CARD_VERTICES + quads).reshape(-1, 3)


def card_uv(tile: np.ndarray, is_undercoat: np.ndarray) -> np.ndarray:
    """Texture coordinates (P, 2) float32 of cards with these tiles (C,), half of them mirrored by a negative number.

    Args:
        tile: (C,) 0..2 * `TILES` - 1; the second half shows the same tiles mirrored.
        is_undercoat: (C,).
    """
    inset = 0.5 / 128
    left = (tile % TILES)[:, None] + np.where(tile >= TILES, 1 - inset, inset)[:, None]
    right = (tile % TILES)[:, None] + np.where(tile >= TILES, inset, 1 - inset)[:, None]
    top = np.where(is_undercoat, 0.0, UNDERCOAT_BAND)[:, None]
    height = np.where(is_undercoat, UNDERCOAT_BAND, 1 - UNDERCOAT_BAND)[:, None]
    v = top + height * np.linspace(0.01, 0.99, ROWS)
    u = np.stack(np.broadcast_arrays(left, right), axis=2) / TILES
    uv = np.stack([np.repeat(u, ROWS, axis=1), np.repeat(v[..., None], 2, axis=2)], axis=3)
    return uv.reshape(-1, 2).astype(np.float32)


def roots_of(part: Part) -> np.ndarray:
    """(C, 3) metres, roots of the cards on the head on which the part was made."""
    return part.binding.made.reshape(-1, ROWS, 2, 3)[:, 0].mean(axis=1)


def is_undercoat(part: Part) -> np.ndarray:
    """(C,) whether cards belong to the undercoat."""
    return part.uv[::CARD_VERTICES, 1] < UNDERCOAT_BAND


def card_order(count: int) -> np.ndarray:
    """(C,) numbers in 0..1, even among neighbours: a card is kept where its number is below the share to keep."""
    return np.mod(np.arange(count) * _GOLDEN_RATIO, 1.0)
