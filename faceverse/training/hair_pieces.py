"""Hair meshes made from those of the assets: pulled-back hair without its tail, and buns.

Positions are metres on the base body, +y up, +z out of the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

_TAIL_M = 0.60  # height below which a connected piece of the ponytail hangs
_STRAND_UV = (0.472, 0.514, 0.58, 0.86)  # of the ponytail's texture: a strip of strands along v, opaque
_COILS = 3  # how often the strip repeats along a coil
_TWIST = 2.0  # turns of the strands about their coil
_SEGMENTS, _SIDES = 48, 14


@dataclass(frozen=True)
class HairMesh:
    """A mesh of hair: vertices (P, 3), uv (U, 2), faces and uv_faces (F, 3)."""

    vertices: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    uv_faces: np.ndarray


def without_tail(ponytail: HairMesh) -> HairMesh:
    """Pulled-back hair: the pieces of the ponytail that do not hang."""
    faces, count = ponytail.faces, len(ponytail.vertices)
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    piece = connected_components(coo_matrix((np.ones(len(ends)), ends.T), shape=(count, count)), directed=False)[1]
    lowest = np.full(piece.max() + 1, np.inf)
    np.minimum.at(lowest, piece, ponytail.vertices[:, 1])
    kept = lowest[piece[faces[:, 0]]] > _TAIL_M
    used, new = np.unique(faces[kept], return_inverse=True)
    uv_used, uv_new = np.unique(ponytail.uv_faces[kept], return_inverse=True)
    return HairMesh(ponytail.vertices[used], ponytail.uv[uv_used], new.reshape(-1, 3), uv_new.reshape(-1, 3))


def bun(centre: np.ndarray, axis: np.ndarray, radius: float) -> HairMesh:
    """A bun of coiled hair: a large coil on the head, and a smaller one on top of it.

    Args:
        centre: (3,) on the head.
        axis: (3,) direction away from the head.
        radius: metres, of the bun.
    """
    outer = _coil(centre + 0.40 * radius * axis, axis, 0.56 * radius, 0.46 * radius)
    inner = _coil(centre + 0.78 * radius * axis, axis, 0.20 * radius, 0.34 * radius)
    return joined(outer, inner)


def joined(first: HairMesh, second: HairMesh) -> HairMesh:
    """Two meshes as one."""
    return HairMesh(
        np.concatenate([first.vertices, second.vertices]),
        np.concatenate([first.uv, second.uv]),
        np.concatenate([first.faces, second.faces + len(first.vertices)]),
        np.concatenate([first.uv_faces, second.uv_faces + len(first.uv)]),
    )


def _coil(centre: np.ndarray, axis: np.ndarray, ring: float, tube: float) -> HairMesh:
    """A torus of strands that run along it and wind about it."""
    axis = axis / np.linalg.norm(axis)
    across = np.cross(axis, (1.0, 0.0, 0.0))
    across /= np.linalg.norm(across)
    aside = np.cross(across, axis)
    along, around = np.meshgrid(np.linspace(0, 2 * np.pi, _SEGMENTS + 1), np.linspace(0, 2 * np.pi, _SIDES + 1))
    around = around.T + _TWIST * along.T
    along = along.T
    out = np.cos(along)[..., None] * across + np.sin(along)[..., None] * aside
    lumps = 1 + 0.07 * np.cos(3 * around)[..., None]
    place = centre + ring * out + tube * lumps * (np.cos(around)[..., None] * out + np.sin(around)[..., None] * axis)
    low_u, high_u, low_v, high_v = _STRAND_UV
    side = np.abs(2 * ((np.arange(_SIDES + 1) / _SIDES) % 1.0) - 1)  # there and back: no seam
    run = np.abs(2 * ((_COILS * np.arange(_SEGMENTS + 1) / _SEGMENTS) % 1.0) - 1)
    u, v = np.meshgrid(low_u + (high_u - low_u) * side, low_v + (high_v - low_v) * run)
    row = np.arange(_SEGMENTS)[:, None] * (_SIDES + 1) + np.arange(_SIDES)
    a, b, c, d = (corner.ravel() for corner in (row, row + _SIDES + 1, row + _SIDES + 2, row + 1))
    faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
    uv = np.stack([u, v], axis=-1).reshape(-1, 2)
    return HairMesh(place.reshape(-1, 3), uv, faces, faces)
