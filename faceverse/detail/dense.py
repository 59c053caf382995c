"""Dense mesh of a head: adaptive edge bisection down to the size of a texel, then displacement of the vertices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..errors import ParameterError
from ..graphics.mesh import vertex_normals
from ..result import FitResult
from .displacement import checked_displacement, displacement_weight, sample_bilinear, without_displacement

MAX_DENSE_FACES = 600_000
_EDGE_TEXELS = 1.5  # longer edges are bisected
_AREA_PER_FACE = 0.085  # mean area of the resulting triangles over the square of the longest edge allowed


@dataclass(frozen=True, eq=False)
class DenseMesh:
    """A head with its displacement applied to a fine mesh.

    Attributes:
        vertices: (K, 3) float32 metres; the first V are those of the source mesh, displaced.
        normals: (K, 3) float32 unit.
        faces: (F, 3) int64; watertight wherever the source mesh is.
        uv: (U, 2) float32 texture coordinates.
        uv_faces: (F, 3) int64 indices into `uv`.
        source_face: (F,) int64, source triangle that contains each triangle.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    source_face: np.ndarray

    @property
    def vertex_uv(self) -> np.ndarray:
        """(K, 2) one texture coordinate per vertex."""
        place = np.full(len(self.vertices), len(self.uv), np.int64)
        np.minimum.at(place, self.faces, self.uv_faces)
        return self.uv[np.where(place < len(self.uv), place, 0)]


def dense_mesh(result: FitResult, size: int = 512) -> DenseMesh:
    """Apply the displacement of a head, with its expression, to a finer mesh.

    Edges are bisected until they are about a texel long in a map of `size`, or somewhat longer to stay below about
    `MAX_DENSE_FACES` triangles. Eyeballs, teeth and the inside of the mouth are not refined.

    Raises:
        ParameterError: no displacement, or one that is not a square map of finite numbers.
    """
    if result.displacement is None:
        raise ParameterError("dense.no_displacement")
    model = result.model
    displacement = checked_displacement(result.displacement)
    displacement = displacement * displacement_weight(model, len(displacement))
    faces = np.ascontiguousarray(model.faces)
    vertices = np.ascontiguousarray(result.vertices, dtype=np.float64)
    normals = vertex_normals(torch.from_numpy(vertices), torch.from_numpy(faces)).numpy()
    smooth = without_displacement(model)[faces].all(axis=1)
    mesh = _Mesh(vertices, normals, faces, model.uv.astype(np.float64), model.uv_faces, np.arange(len(faces)))
    limit = _longest_edge(mesh, smooth, size)
    while (finer := _bisect_edges(mesh, smooth, limit)) is not mesh:
        mesh = finer
    # Both sides of a UV seam are displaced by their mean, so that no crack opens.
    place, corner = np.unique(np.stack([mesh.faces, mesh.uv_faces], axis=-1).reshape(-1, 2), axis=0).T
    count = np.maximum(np.bincount(place, minlength=len(mesh.vertices)), 1)
    offset_mm = np.bincount(place, sample_bilinear(displacement, mesh.uv[corner]), minlength=len(mesh.vertices)) / count
    displaced = torch.from_numpy(mesh.vertices + 1e-3 * offset_mm[:, None] * mesh.normals)
    displaced_normals = vertex_normals(displaced, torch.from_numpy(mesh.faces))
    return DenseMesh(
        displaced.numpy().astype(np.float32),
        displaced_normals.numpy().astype(np.float32),
        mesh.faces,
        mesh.uv.astype(np.float32),
        mesh.uv_faces,
        mesh.source_face,
    )


_Mesh = DenseMesh  # during bisection: double precision, without displacement


def _longest_edge(mesh: _Mesh, smooth: np.ndarray, size: int) -> float:
    """Length in UV above which edges are bisected: `_EDGE_TEXELS`, or the value that gives about `MAX_DENSE_FACES`."""
    a, b, c = mesh.uv[mesh.uv_faces].transpose(1, 0, 2)
    area = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    limit = _EDGE_TEXELS / size
    while np.where(smooth, 1, np.maximum(area / (_AREA_PER_FACE * limit**2), 1)).sum() > MAX_DENSE_FACES:
        limit *= 1.1
    return limit


def _bisect_edges(mesh: _Mesh, smooth: np.ndarray, limit: float) -> _Mesh:
    """Bisect all edges longer than `limit` in UV; returns the same object if there are none."""
    sides = mesh.faces[:, [[0, 1], [1, 2], [2, 0]]]
    edges, edge = _unique_edges(sides)
    uv_sides = mesh.uv_faces[:, [[0, 1], [1, 2], [2, 0]]]
    length = np.linalg.norm(mesh.uv[uv_sides[..., 0]] - mesh.uv[uv_sides[..., 1]], axis=-1)
    long = np.zeros(len(edges), bool)
    long[edge[(length > limit) & ~smooth[mesh.source_face][:, None]]] = True
    if not long.any():
        return mesh
    uv_edges, uv_edge = _unique_edges(uv_sides)
    long_uv = np.zeros(len(uv_edges), bool)
    long_uv[uv_edge[long[edge]]] = True
    middle = len(mesh.vertices) - 1 + np.cumsum(long)
    uv_middle = len(mesh.uv) - 1 + np.cumsum(long_uv)
    corners = np.concatenate([mesh.faces, np.where(long[edge], middle[edge], -1)], axis=1)
    uv_corners = np.concatenate([mesh.uv_faces, np.where(long[edge], uv_middle[uv_edge], -1)], axis=1)
    parts, uv_parts, sources = [], [], []
    for marked, pieces in _PIECES.items():
        rows = np.flatnonzero((long[edge] == marked).all(axis=1))
        for piece in pieces:
            parts.append(corners[rows][:, piece])
            uv_parts.append(uv_corners[rows][:, piece])
            sources.append(mesh.source_face[rows])
    points, normals = _phong_midpoints(mesh.vertices, mesh.normals, edges[long])
    return replace(
        mesh,
        vertices=np.concatenate([mesh.vertices, points]),
        normals=np.concatenate([mesh.normals, normals]),
        faces=np.concatenate(parts),
        uv=np.concatenate([mesh.uv, mesh.uv[uv_edges[long_uv]].mean(axis=1)]),
        uv_faces=np.concatenate(uv_parts),
        source_face=np.concatenate(sources),
    )


# Which of the sides 01, 12, 20 are bisected -> triangles of corners 0, 1, 2 and midpoints 3, 4, 5.
_PIECES = {
    (False, False, False): ((0, 1, 2),),
    (True, False, False): ((0, 3, 2), (3, 1, 2)),
    (False, True, False): ((1, 4, 0), (4, 2, 0)),
    (False, False, True): ((2, 5, 1), (5, 0, 1)),
    (True, True, False): ((3, 1, 4), (0, 3, 4), (0, 4, 2)),
    (False, True, True): ((4, 2, 5), (1, 4, 5), (1, 5, 0)),
    (True, False, True): ((5, 0, 3), (2, 5, 3), (2, 3, 1)),
    (True, True, True): ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)),
}


def _unique_edges(sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undirected edges (E, 2) of sides (F, 3, 2), and the index of each side's edge (F, 3)."""
    low, high = sides.min(axis=-1), sides.max(axis=-1)
    keys, number = np.unique(low << 32 | high, return_inverse=True)
    return np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1), number.reshape(low.shape)


def _phong_midpoints(vertices: np.ndarray, normals: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Midpoints (E, 3) of the arcs that are tangential to the surface at both ends of each edge, and their normals.

    Linear midpoints would show the facets of the coarser mesh. A projection onto the tangent planes of the ends
    (Boubekeur and Alexa, "Phong tessellation", 2008) with weight 1/2 follows an arc of constant curvature.
    """
    one, two = vertices[edges].transpose(1, 0, 2)
    normal_one, normal_two = normals[edges].transpose(1, 0, 2)
    half = (two - one) / 2
    # No arc across a sharp crease, such as the rim of an eyelid.
    share = 0.25 * np.maximum((normal_one * normal_two).sum(1, keepdims=True), 0) ** 2
    above_one = (half * normal_one).sum(1, keepdims=True) * normal_one
    above_two = (-half * normal_two).sum(1, keepdims=True) * normal_two
    middle = normal_one + normal_two
    length = np.linalg.norm(middle, axis=1, keepdims=True)
    middle = np.where(length > 1e-6, middle / np.maximum(length, 1e-6), normal_one)
    return one + half - share * (above_one + above_two), middle
