"""Find triangles of a mesh that cut through each other.

Reference: Moeller and Trumbore 1997 for the test of an edge against a triangle.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

_BLOCK = 200_000  # candidate pairs that are tested at once
_INSIDE = 1e-6  # margin of the barycentric coordinates: triangles that only touch do not count


def intersecting_pairs(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Pairs (K, 2) of faces (F, 3) that cut each other, rows of `faces`, the smaller first; faces that share a vertex
    do not count. Vertices (V, 3); a few very large triangles among small ones make it slow.

    Two triangles cut each other if an edge of one passes through the other; coplanar ones are not found.
    """
    corners = vertices[faces].astype(np.float64)
    centre = corners.mean(axis=1)
    reach = np.linalg.norm(corners - centre[:, None], axis=2).max(axis=1)
    found = [np.zeros((0, 2), np.int64)]
    pairs = _near(centre, reach)
    for block in np.array_split(pairs, len(pairs) // _BLOCK + 1):
        a, b = block.T
        apart = ~(faces[a][:, :, None] == faces[b][:, None, :]).any(axis=(1, 2))
        apart &= (corners[a].min(1) <= corners[b].max(1)).all(1) & (corners[b].min(1) <= corners[a].max(1)).all(1)
        block = block[apart]
        one, other = corners[block[:, 0]], corners[block[:, 1]]
        found.append(block[_cuts(one, other) | _cuts(other, one)])
    return np.sort(np.concatenate(found), axis=1)


def _near(centre: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Pairs (K, 2) of balls with these centres (F, 3) and radii (F,) that may overlap.

    The balls are sorted into classes of radius, so that few large ones do not make the search wide for all.
    """
    if len(centre) < 2:
        return np.zeros((0, 2), np.int64)
    level = np.floor(np.log2(np.maximum(reach, 1e-9))).astype(int)
    members = [np.flatnonzero(level == k) for k in np.unique(level)]
    trees = [cKDTree(centre[index]) for index in members]
    pairs = [np.zeros((0, 2), np.int64)]
    for i, (index, tree) in enumerate(zip(members, trees)):
        for j, (others, other) in enumerate(zip(members[: i + 1], trees)):
            radius = reach[index].max() + reach[others].max()
            if i == j:
                pairs.append(index[tree.query_pairs(radius, output_type="ndarray")])
            else:
                near = tree.sparse_distance_matrix(other, radius, output_type="coo_matrix")
                pairs.append(np.stack([index[near.row], others[near.col]], axis=1))
    result = np.concatenate(pairs)
    distance = np.linalg.norm(centre[result[:, 0]] - centre[result[:, 1]], axis=1)
    return result[distance <= reach[result].sum(axis=1)]


def _cuts(edges_of: np.ndarray, triangle: np.ndarray) -> np.ndarray:
    """(K,) bool: an edge of the first triangle (K, 3, 3) passes through the second (K, 3, 3)."""
    origin = triangle[:, 0]
    u, v = triangle[:, 1] - origin, triangle[:, 2] - origin
    result = np.zeros(len(triangle), bool)
    for k in range(3):
        start, way = edges_of[:, k], edges_of[:, (k + 1) % 3] - edges_of[:, k]
        across, toward = np.cross(way, v), start - origin
        scale = (u * across).sum(axis=1)
        scale = np.where(np.abs(scale) < 1e-18, np.inf, scale)
        first = (toward * across).sum(axis=1) / scale
        turned = np.cross(toward, u)
        second = (way * turned).sum(axis=1) / scale
        along = (v * turned).sum(axis=1) / scale
        inside = (first > _INSIDE) & (second > _INSIDE) & (first + second < 1 - _INSIDE)
        result |= np.isfinite(scale) & inside & (along > 0) & (along < 1)
    return result
