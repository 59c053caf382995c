"""Injective UV parameterisation of quad meshes: Tutte embedding, then the symmetric Dirichlet energy with SLIM.

References: Tutte 1963, "How to draw a graph"; Rabinovich, Poranne, Panozzo and Sorkine-Hornung 2017, "Scalable locally
injective mappings".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import splu

from ..errors import ParameterError

SLIVER = 0.15  # minimal height over base of a rest triangle: flatter ones are widened, their shape is not worth keeping
MAX_HALVINGS = 30


@dataclass(frozen=True)
class Constraints:
    """Fixed coordinates of a parameterisation: masks (n, 2) and their values (n, 2), y up."""

    held: np.ndarray
    values: np.ndarray


def tutte(quads: np.ndarray, fan: np.ndarray, constraints: Constraints) -> np.ndarray:
    """Tutte embedding (n, 2): each free coordinate is the mean of its neighbours'.

    All quads are convex if the fixed boundary is; a chain of vertices fixed in x alone is an axis of symmetry.

    Args:
        quads: (Q, 4) indices below n.
        fan: (T, 3) triangles that close holes, (0, 3) for none.
        constraints: the fixed coordinates.
    """
    count = len(constraints.held)
    # An edge on the axis or the border belongs to one face, all others to two: the axis then acts like the interior.
    faces = np.concatenate([_sides(quads), _sides(fan)])
    weights = sparse.coo_matrix((np.ones(len(faces)), (faces[:, 0], faces[:, 1])), shape=(count, count)).tocsr()
    weights = weights + weights.T
    laplacian = (sparse.diags(np.asarray(weights.sum(axis=1)).reshape(-1)) - weights).tocsr()
    uv = np.where(constraints.held, constraints.values, 0.0)
    for axis in (0, 1):
        free = np.flatnonzero(~constraints.held[:, axis])
        uv[free, axis] = splu(laplacian[free][:, free].tocsc()).solve(-(laplacian @ uv[:, axis])[free])
    return uv


def corner_triangles(quads: np.ndarray) -> np.ndarray:
    """The four corner triangles (4Q, 3) of each quad; a quad is convex when all four areas are positive."""
    return np.stack([np.roll(quads, 1 - k, axis=1)[:, :3] for k in range(4)], axis=1).reshape(-1, 3)


def rest_gradients(points: np.ndarray, triangles: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear gradient operator (T, 3, 2) and area (T,) of each triangle, isometrically flattened and scaled.

    Args:
        points: (n, 3).
        triangles: (T, 3).
        scale: (T,) target length in the map over length in space.
    """
    a, b, c = (points[triangles[:, k]] for k in range(3))
    base = np.maximum(np.linalg.norm(b - a, axis=1), 1e-9)
    along = ((c - a) * (b - a)).sum(axis=1) / base
    height = np.sqrt(np.maximum(((c - a) ** 2).sum(axis=1) - along**2, 0.0))
    height = np.maximum(height, SLIVER * np.maximum(base, np.abs(along)))
    base, along, height = base * scale, along * scale, height * scale
    gradients = np.zeros((len(triangles), 3, 2))
    gradients[:, 1, 0] = 1 / base
    gradients[:, 1, 1] = -along / (base * height)
    gradients[:, 2, 1] = 1 / height
    gradients[:, 0] = -gradients[:, 1] - gradients[:, 2]
    return gradients, 0.5 * base * height


def minimise_distortion(
    uv: np.ndarray,
    triangles: np.ndarray,
    gradients: np.ndarray,
    weight: np.ndarray,
    held: np.ndarray,
    iterations: int,
) -> np.ndarray:
    """Minimise sum(weight * (|J|^2 + |J^-1|^2)) from an injective start; no triangle is ever inverted.

    Args:
        uv: (n, 2) start.
        triangles: (T, 3).
        gradients: (T, 3, 2) from `rest_gradients`.
        weight: (T,) positive.
        held: (n, 2) mask of fixed coordinates.
        iterations: maximum number; it stops early when a step gains less than one part in a million.
    Raises:
        ParameterError: the start has an inverted or degenerate triangle.
    """
    inverted = int((signed_areas(uv, triangles) <= 0).sum())
    if inverted:
        raise ParameterError("unwrap.inverted", found=inverted, total=len(triangles))
    free = np.flatnonzero(~held.reshape(-1))
    rows = (2 * triangles[:, :, None] + np.arange(2)).reshape(len(triangles), 6)
    row_index = np.repeat(rows, 6, axis=1).reshape(-1)
    column_index = np.tile(rows, (1, 6)).reshape(-1)
    stiffness = np.einsum("tic,tjc->tij", gradients, gradients)
    size = 2 * len(uv)
    energy = _energy(uv, triangles, gradients, weight)
    for _ in range(iterations):
        jacobian = np.einsum("tia,tic->tac", uv[triangles], gradients)
        left, sigma, right = np.linalg.svd(jacobian)
        # The quadratic proxy |W (J - R)|^2 with the energy's gradient, (s - s^-3) / (s - 1) written without the 0 / 0.
        proxy = 1 + 1 / sigma + 1 / sigma**2 + 1 / sigma**3
        metric = np.einsum("tak,tk,tbk->tab", left, proxy * 2 * weight[:, None], left)
        blocks = np.einsum("tij,tab->tiajb", stiffness, metric).reshape(-1)
        hessian = sparse.coo_matrix((blocks, (row_index, column_index)), shape=(size, size)).tocsr()
        slope = np.einsum("tak,tk,tkc->tac", left, 2 * (sigma - sigma**-3) * weight[:, None], right)
        force = np.bincount(rows.reshape(-1), np.einsum("tac,tic->tia", slope, gradients).reshape(-1), minlength=size)
        system = hessian[free][:, free].tocsc()
        system = system + sparse.identity(len(free), format="csc") * (1e-9 * system.diagonal().mean())
        step = np.zeros(size)
        step[free] = -splu(system, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(force[free])
        direction = step.reshape(-1, 2)
        length = min(1.0, 0.9 * _first_inversion(uv, direction, triangles))
        for _ in range(MAX_HALVINGS):
            trial = uv + length * direction
            lower = _energy(trial, triangles, gradients, weight)
            if lower < energy + 1e-4 * length * (force @ step):
                break
            length *= 0.5
        else:
            return uv
        gain, uv, energy = energy - lower, trial, lower
        if gain < 1e-6 * energy:
            break
    return uv


def signed_areas(uv: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Signed areas (T,) of triangles in the plane, positive for counter-clockwise with y up."""
    a, b, c = (uv[triangles[:, k]] for k in range(3))
    return 0.5 * _cross(b - a, c - a)


def _sides(faces: np.ndarray) -> np.ndarray:
    return np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _energy(uv: np.ndarray, triangles: np.ndarray, gradients: np.ndarray, weight: np.ndarray) -> float:
    jacobian = np.einsum("tia,tic->tac", uv[triangles], gradients)
    determinant = _cross(jacobian[:, 0], jacobian[:, 1])
    if determinant.min() <= 0:
        return np.inf
    return float((weight * (jacobian**2).sum(axis=(1, 2)) * (1 + 1 / determinant**2)).sum())


def _first_inversion(uv: np.ndarray, direction: np.ndarray, triangles: np.ndarray) -> float:
    """Smallest positive t at which a triangle of uv + t * direction degenerates, infinity for none."""
    a, b = (uv[triangles[:, k]] - uv[triangles[:, 0]] for k in (1, 2))
    da, db = (direction[triangles[:, k]] - direction[triangles[:, 0]] for k in (1, 2))
    constant, linear, square = _cross(a, b), _cross(a, db) + _cross(da, b), _cross(da, db)
    # Written for s = 1 / t: constant s^2 + linear s + square = 0, whose largest positive root is the first inversion.
    root = np.sqrt(np.maximum(linear**2 - 4 * constant * square, 0.0))
    exists = linear**2 >= 4 * constant * square
    largest = np.where(exists, (-linear + root) / (2 * constant), 0.0).max()
    return 1 / largest if largest > 0 else np.inf
