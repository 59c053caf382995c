"""Beards as light meets them: normals of the skin below the hairs, and directions along the cards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .beard_layout import ROWS
from .hair_clearance import outward_normals
from .hair_frame import HairDensity, HairFrame
from .part import Part

_LAYERS = 0.85  # of hair that a card counts for: it shows a few fine hairs
_SKIN_SHARE = 0.8  # of the skin's normal in those of a beard, which is lit as the volume that it fills


def beard_frame(part: Part, placed: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> HairFrame:
    """The frame of a beard on a head.

    Args:
        part: the beard.
        placed: (P, 3) its vertices on the head, metres.
        vertices, faces: (V, 3) and (F, 3) of the model.
    """
    binding = part.binding
    corners = outward_normals(vertices.astype(np.float64), faces)[binding.triangle]
    skin = _unit(np.einsum("pk,pkd->pd", binding.weights, corners))
    card = outward_normals(placed, part.faces)
    card *= np.where((card * skin).sum(1, keepdims=True) < 0, -1, 1)
    line = placed.reshape(-1, ROWS, 2, 3).mean(axis=2)
    along = np.repeat(_unit(np.gradient(line, axis=1))[:, :, None], 2, axis=2).reshape(-1, 3)
    return HairFrame(np.float32(_unit(_SKIN_SHARE * skin + (1 - _SKIN_SHARE) * card)), np.float32(along))


def beard_density(part: Part, placed: np.ndarray, skin: np.ndarray, skin_normals: np.ndarray) -> HairDensity:
    """Amount of hair of a beard at its vertices (P, 3) on a head; arguments as for `HairDensity.of`."""
    density = HairDensity.of(part, placed, skin, skin_normals)
    values = _LAYERS * density.values
    # A beard is thinner than the voxels, which would blur the head into it.
    return replace(density, values=values, solid=values)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-9)
