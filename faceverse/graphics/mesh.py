"""Mesh operations: normals, tangents, Catmull-Clark subdivision. Free functions on arrays and tensors."""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix, diags, eye, vstack
from torch import Tensor


def face_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unnormalised face normals (..., F, 3): twice the area long, outward for counter-clockwise faces."""
    a, b, c = (vertices[..., faces[:, k], :] for k in range(3))
    return torch.cross(b - a, c - a, dim=-1)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted unit normals: vertices (..., V, 3), faces (F, 3) -> (..., V, 3)."""
    # Incident corners are worth their search only where gradients are computed again and again.
    incidence = _incident_corners(faces, vertices.shape[-2]) if vertices.requires_grad else None
    if incidence is None:
        per_face = face_normals(vertices, faces)
        total = torch.zeros_like(vertices)
        for k in range(3):
            total = total.index_add(-2, faces[:, k], per_face)
    else:
        total = _SumOfFaceNormals.apply(vertices, *incidence)
    return torch.nn.functional.normalize(total, dim=-1, eps=1e-12)


class _SumOfFaceNormals(torch.autograd.Function):
    """Sum of the face normals around each vertex as a gather: a scatter-add was the slowest operation of a fit.

    Arguments: vertices (..., V, 3), corners (3F,) and slots (K * V,) of `_incident_corners`.
    """

    @staticmethod
    def forward(ctx: Any, vertices: Tensor, corners: Tensor, slots: Tensor) -> Tensor:
        first, second, third = vertices.index_select(-2, corners).chunk(3, dim=-2)
        one, two = second - first, third - first
        ctx.save_for_backward(one, two, corners, slots)
        normals = torch.cross(one, two, dim=-1)
        # Three copies, because a slot is the index of a corner.
        return _gather_sum(torch.cat([normals] * 3, dim=-2), slots, vertices.shape[-2])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        one, two, corners, slots = ctx.saved_tensors
        at_first, at_second, at_third = gradient.index_select(-2, corners).chunk(3, dim=-2)
        per_face = at_first + at_second + at_third
        of_one, of_two = torch.cross(two, per_face, dim=-1), torch.cross(per_face, one, dim=-1)
        per_corner = torch.cat([-(of_one + of_two), of_one, of_two], dim=-2)
        return _gather_sum(per_corner, slots, gradient.shape[-2]), None, None


def _gather_sum(per_corner: Tensor, slots: Tensor, vertex_count: int) -> Tensor:
    """Sum corner values (..., 3F, 3) at their vertices: (..., V, 3)."""
    padded = torch.nn.functional.pad(per_corner, (0, 0, 0, 1))
    return padded.index_select(-2, slots).unflatten(-2, (-1, vertex_count)).sum(-3)


MAX_VALENCE = 16  # triangles around a vertex; with more, most slots would be padding
_incidence_cache: dict[tuple[int, int, int], tuple[weakref.ref, tuple[Tensor, Tensor] | None]] = {}


def _incident_corners(faces: Tensor, vertex_count: int) -> tuple[Tensor, Tensor] | None:
    """Corner-vertex incidence of a mesh, computed once per faces (F, 3).

    Returns:
        corners (3F,), the vertex of each corner, first corners first, and slots (K * V,), the corners around each
        vertex, padded with 3F; None where a vertex has more than MAX_VALENCE triangles.
    """
    key = (id(faces), faces._version, vertex_count)
    cached = _incidence_cache.get(key)
    if cached is not None and cached[0]() is faces:
        return cached[1]
    incidence = _find_incident_corners(faces, vertex_count)
    _incidence_cache[key] = weakref.ref(faces, lambda _: _incidence_cache.pop(key, None)), incidence
    return incidence


def _find_incident_corners(faces: Tensor, vertex_count: int) -> tuple[Tensor, Tensor] | None:
    corners = faces.t().reshape(-1).long()
    count = torch.bincount(corners, minlength=vertex_count)
    widest = int(count.max()) if len(corners) else 0
    if not 0 < widest <= MAX_VALENCE:
        return None
    column = torch.arange(widest, device=faces.device)[:, None]
    place = (count.cumsum(0) - count + column).clamp_max(len(corners) - 1)
    slots = torch.argsort(corners, stable=True)[place]
    return corners, torch.where(column < count, slots, len(corners)).reshape(-1)


def triangles_from_quads(quads: np.ndarray) -> np.ndarray:
    """Split quads (Q, 4) along their first diagonal: (2Q, 3), the two halves of quad q in rows 2q and 2q + 1."""
    return np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], axis=1).reshape(-1, 3)


@dataclass(frozen=True)
class Subdivision:
    """Topology of one Catmull-Clark step on a quad mesh: new vertices are corners, then edges, then faces.

    Args:
        quads: (4Q, 4) of the subdivided mesh; quad q of the coarse mesh becomes rows 4q .. 4q + 3.
        coarse_quads: (Q, 4).
        edges: (E, 2) corner indices.
        edge_faces: (E, 2) indices of the adjacent quads, the second is -1 on the border.
        vertex_count: number of coarse vertices.
    """

    quads: np.ndarray
    coarse_quads: np.ndarray
    edges: np.ndarray
    edge_faces: np.ndarray
    vertex_count: int


def subdivision(quads: np.ndarray, vertex_count: int) -> Subdivision:
    """Topology of one Catmull-Clark step on a manifold quad mesh (Q, 4)."""
    quads = np.asarray(quads, dtype=np.int64)
    count = len(quads)
    sides = np.stack([quads, np.roll(quads, -1, axis=1)], axis=-1).reshape(-1, 2)
    edges, inverse = np.unique(np.sort(sides, axis=1), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    edge_faces = np.full((len(edges), 2), -1, dtype=np.int64)
    owner = np.repeat(np.arange(count), 4)
    order = np.argsort(inverse, kind="stable")
    first = np.searchsorted(inverse[order], np.arange(len(edges)))
    edge_faces[:, 0] = owner[order[first]]
    shared = np.bincount(inverse, minlength=len(edges)) > 1
    edge_faces[shared, 1] = owner[order[first[shared] + 1]]
    side_edge = vertex_count + inverse.reshape(count, 4)
    centre = vertex_count + len(edges) + np.arange(count)
    fine = [np.stack([quads[:, k], side_edge[:, k], centre, side_edge[:, k - 1]], axis=1) for k in range(4)]
    return Subdivision(np.stack(fine, axis=1).reshape(-1, 4), quads, edges, edge_faces, vertex_count)


def subdivision_matrix(topology: Subdivision) -> csr_matrix:
    """Catmull-Clark subdivision as a matrix (V + E + Q, V), float64.

    Reference: Catmull and Clark 1978; border edges and corners follow the cubic B-spline rule.
    """
    t, count = topology, topology.vertex_count
    quads, edges, border = t.coarse_quads, t.edges, t.edge_faces[:, 1] < 0

    def spread(index: np.ndarray) -> csr_matrix:
        """Indicator matrix (K, N) of the indices in the rows of (K, M)."""
        rows = np.repeat(np.arange(len(index)), index.shape[1])
        return csr_matrix((np.ones(index.size), (rows, index.reshape(-1))), shape=(len(index), count))

    face_points, middles = spread(quads) / 4, spread(edges) / 2
    inner = np.flatnonzero(~border)
    to_faces = coo_matrix(
        (np.full(2 * len(inner), 0.25), (np.repeat(inner, 2), t.edge_faces[inner].reshape(-1))),
        shape=(len(edges), len(quads)),
    ).tocsr()
    edge_points = diags(np.where(border, 1.0, 0.5)) @ middles + to_faces @ face_points
    valence = np.bincount(quads.reshape(-1), minlength=count)
    degree = np.bincount(edges.reshape(-1), minlength=count)
    around, ends = spread(quads).T @ face_points, spread(edges).T @ middles
    n = np.maximum(valence, 1).astype(np.float64)
    inside = diags(1 / n**2) @ around + diags(2 / (n * np.maximum(degree, 1))) @ ends + diags((n - 3) / n)
    rim = edges[border]
    rim_degree = np.bincount(rim.reshape(-1), minlength=count)
    on_rim = diags(0.5 / np.maximum(rim_degree, 1)) @ (spread(rim).T @ middles[border]) + 0.5 * eye(count)
    rule = np.where(valence == 0, 2, np.where(rim_degree > 0, 1, 0))
    points = sum(diags((rule == k).astype(float)) @ part for k, part in enumerate((inside, on_rim, eye(count))))
    return vstack([points, edge_points, face_points]).tocsr()


def subdivide_smooth(values: np.ndarray, topology: Subdivision) -> np.ndarray:
    """Catmull-Clark subdivision, see `subdivision_matrix`: values (V, C) on the coarse mesh -> (V + E + Q, C)."""
    return subdivision_matrix(topology).astype(values.dtype) @ values


def subdivide_flat(values: np.ndarray, topology: Subdivision) -> np.ndarray:
    """Midpoint subdivision without smoothing, for UV coordinates and masks: (V, C) -> (V + E + Q, C)."""
    t = topology
    return np.concatenate([values, values[t.edges].mean(axis=1), values[t.coarse_quads].mean(axis=1)])


def unique_edges(faces: np.ndarray) -> np.ndarray:
    """Undirected edges (E, 2) of triangles (F, 3) or quads (F, 4), each once, sorted."""
    sides = np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2)
    low, high = np.minimum(*sides.T).astype(np.int64), np.maximum(*sides.T).astype(np.int64)
    base = int(high.max(initial=0)) + 1
    codes = np.unique(low * base + high)  # numbers are sorted much faster than rows
    return np.stack([codes // base, codes % base], axis=1).astype(faces.dtype)


def tangents(positions: np.ndarray, normals: np.ndarray, uv: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Tangents of a normal map (V, 4): unit vectors along u, and the sign of the bitangent.

    The bitangent is sign * cross(normal, tangent) and points up in the texture (glTF: +1 where UV is not mirrored).
    Arguments as in `GltfMesh`.
    """
    edges = positions[faces[:, 1:]] - positions[faces[:, :1]]
    du, dv = np.moveaxis(uv[faces[:, 1:]] - uv[faces[:, :1]], -1, 0)
    along_u = edges[:, 0] * dv[:, 1:] - edges[:, 1] * dv[:, :1]
    along_v = edges[:, 1] * du[:, :1] - edges[:, 0] * du[:, 1:]
    mirrored = np.sign(du[:, 0] * dv[:, 1] - du[:, 1] * dv[:, 0])[:, None]
    sums = np.zeros((2, *positions.shape))
    for corner in range(3):
        np.add.at(sums[0], faces[:, corner], along_u * mirrored)
        np.add.at(sums[1], faces[:, corner], along_v * mirrored)
    tangent = sums[0] - normals * (sums[0] * normals).sum(1, keepdims=True)
    # Where UV is degenerate, any direction in the tangent plane will do.
    degenerate = np.linalg.norm(tangent, axis=1) < 1e-12
    tangent[degenerate] = np.cross(normals[degenerate], np.eye(3)[np.abs(normals[degenerate]).argmin(axis=1)])
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    sign = np.where((np.cross(normals, tangent) * -sums[1]).sum(1) < 0, -1.0, 1.0)
    return np.column_stack([tangent, sign]).astype(np.float32)


def topology_hash(vertex_count: int, faces: np.ndarray) -> str:
    """SHA-256 of a mesh: the number of its vertices, and its triangles (F, 3)."""
    digest = hashlib.sha256(np.int64(vertex_count).tobytes())
    digest.update(np.ascontiguousarray(faces, dtype=np.int64).tobytes())
    return digest.hexdigest()
