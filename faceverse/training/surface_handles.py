"""Deform a surface smoothly so that chosen vertices move by given amounts: biharmonic displacements.

Reference: Botsch and Kobbelt 2004, "An intuitive framework for real-time freeform modeling".
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import splu

from ..graphics.mesh import triangles_from_quads

_LEAST_COTANGENT, _MOST_COTANGENT = 0.05, 10.0  # keeps slivers from dominating


class SurfaceHandles:
    """Displacements of a surface at rest that minimise the integral of their squared Laplacian.

    Args:
        vertices: (V, 3) at rest.
        quads: (Q, 4); vertices in no quad never move.
        still: (V,) bool, vertices that never move.
    """

    def __init__(self, vertices: np.ndarray, quads: np.ndarray, still: np.ndarray):
        laplacian, mass = _laplacian(vertices, triangles_from_quads(quads))
        self._energy = (laplacian.T @ sparse.diags(1 / mass) @ laplacian).tocsr()
        used = np.zeros(len(vertices), bool)
        used[quads] = True
        self._free = used & ~still
        self._factors: dict[bytes, tuple] = {}

    def solve(self, handles: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Displacements (V, D) that equal `offsets` (H, D) at the vertices `handles` (H,) and are smooth elsewhere."""
        key = handles.tobytes()
        if key not in self._factors:
            free = self._free.copy()
            free[handles] = False
            inside = np.flatnonzero(free)
            rows = self._energy[inside]
            self._factors[key] = inside, splu(rows[:, inside].tocsc()), rows[:, handles]
        inside, factor, coupling = self._factors[key]
        result = np.zeros((len(self._free), offsets.shape[1]))
        result[handles] = offsets
        result[inside] = factor.solve(-(coupling @ offsets))
        return result


def _laplacian(vertices: np.ndarray, triangles: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Cotangent Laplacian (V, V) and the area (V,) that belongs to each vertex."""
    count, rows, columns, values = len(vertices), [], [], []
    for k in range(3):
        i, j, o = triangles[:, k], triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]
        a, b = vertices[i] - vertices[o], vertices[j] - vertices[o]
        cotangent = (a * b).sum(1) / np.maximum(np.linalg.norm(np.cross(a, b), axis=1), 1e-12)
        weight = 0.5 * np.clip(cotangent, _LEAST_COTANGENT, _MOST_COTANGENT)
        rows += [i, j]
        columns += [j, i]
        values += [weight, weight]
    links = sparse.coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (count, count))
    sides = vertices[triangles]
    area = 0.5 * np.linalg.norm(np.cross(sides[:, 1] - sides[:, 0], sides[:, 2] - sides[:, 0]), axis=1)
    mass = np.bincount(triangles.ravel(), np.repeat(area / 3, 3), count)
    total = np.asarray(links.sum(axis=1)).ravel()
    return (sparse.diags(total) - links.tocsr()), np.maximum(mass, 1e-9)
