"""Change an expression as little and as smoothly as possible, so that it reaches given figures.

The figures (see `expression_figures`) are linear in the offsets of a few vertices, or nearly so. The smallest smooth
change that reaches them minimises the integral of |u|^2 + length^4 |Laplacian u|^2 over the skin under linear
constraints: one sparse factorisation, and a small dense system for the multipliers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import splu

from ..errors import ParameterError
from ..graphics.mesh import Subdivision
from .expression_figures import FIGURES, FORWARD, RIGHT, Figure
from .figure_landmarks import OPPOSITE, landmark_matrix
from .head_regions import mirror_map
from .sources import HeadMesh
from .surface_fit import require_igl

LENGTH_M = 0.012  # over which a change fades where nothing else is prescribed
_FIXED = 1e-3  # mobility below which a vertex is held
_STIFFNESS = 4.0  # of a vertex with half mobility, relative to the unweighted skin
_ROUNDS = 4  # linearisations of figures that are distances
_SOFTNESS = 1e-9  # relative regularisation of the multipliers: contradictory targets are met in between
_MIRRORED = np.array([-1.0, 1.0, 1.0])

# Figures of one side that the reference does not list, for shapes of which it lists the mean of both sides.
SIDE_FIGURES = {
    "left inner brow up": Figure((22,)),
    "left inner brow in": Figure((22,), RIGHT, -1.0),
    "left brow in": Figure((22, 23, 24, 25, 26), RIGHT, -1.0),
    "left brow forward": Figure((22, 23, 24, 25, 26), FORWARD),
    "left wing up": Figure((35,)),
    "right wing up": Figure((31,)),
    "left wing out": Figure((35,), RIGHT),
    "left lower lid up": Figure((46, 47)),
    "left upper lid up": Figure((43, 44)),
    "left upper lip up": Figure((51, 52, 53)),
    "left lower lip down": Figure((55, 56, 57), sign=-1.0),
    "chin to the left": Figure((8,), RIGHT),
    "upper lip forward": Figure((50, 51, 52, 62), FORWARD),
    "lower lip forward": Figure((56, 57, 58, 66), FORWARD),
}
ALL_FIGURES = FIGURES | SIDE_FIGURES


@dataclass(frozen=True)
class _Rows:
    """Linearised constraints: gradients (K, 68, 3), and what is missing (K,) in metres."""

    gradient: np.ndarray
    missing: np.ndarray


class ShapeSolver:
    """Smallest smooth changes of shapes on a symmetric head.

    Args:
        head: the base head, for its topology and parts.
        topology: its subdivision.
        mean: (Vc, 3) metres, the symmetric head that the shapes are built on.
    """

    def __init__(self, head: HeadMesh, topology: Subdivision, mean: np.ndarray):
        self.mean, self.mirror = np.asarray(mean, np.float64), mirror_map(head.vertices)
        self.landmarks = landmark_matrix(topology, self.mirror)
        self.neutral = self.landmarks @ self.mean
        self.skin = head.part == "skin"
        self._bending, self._area = _bending(self.mean, head.quads[self.skin[head.quads[:, 0]]])

    def figures(self, offsets: np.ndarray) -> dict[str, float]:
        """All figures of a shape (Vc, 3) in millimetres."""
        moved = self.neutral + self.landmarks @ offsets
        return {name: 1e3 * figure.value(self.neutral, moved) for name, figure in ALL_FIGURES.items()}

    def reach(
        self,
        offsets: np.ndarray,
        targets_mm: Mapping[str, float],
        mobility: np.ndarray,
        *,
        symmetric: bool = False,
        length_m: float = LENGTH_M,
    ) -> np.ndarray:
        """Return a shape (Vc, 3) whose figures have the given values, as similar to `offsets` as possible.

        Args:
            offsets: (Vc, 3) metres.
            targets_mm: by name of ALL_FIGURES; a figure with the shape's own value keeps it.
            mobility: (Vc,) 0 where nothing may change .. 1; only skin ever changes.
            symmetric: of a central expression: the right side gets the mirrored targets, and the change is symmetric.
            length_m: length over which the change fades.

        Raises:
            ParameterError: an unknown figure, or no landmark of a figure can move.
        """
        unknown = sorted(set(targets_mm) - set(ALL_FIGURES))
        if unknown:
            raise ParameterError("expression.figures_unknown", names=", ".join(unknown))
        free = np.flatnonzero(self.skin & (mobility > _FIXED))
        factor = self._factorise(free, mobility[free], length_m)
        rows = self.landmarks[:, free]
        result = np.asarray(offsets, np.float64).copy()
        for _ in range(_ROUNDS):
            now = self._linearised(result, targets_mm, symmetric)
            constraint = np.einsum("kla,lv->kva", now.gradient, rows.toarray())
            if len(free) == 0 or (np.abs(constraint).sum(axis=(1, 2)) < 1e-6).any():
                raise ParameterError("expression.figures_fixed", names=", ".join(targets_mm))
            response = factor.solve(np.ascontiguousarray(constraint.transpose(1, 0, 2).reshape(len(free), -1)))
            response = response.reshape(len(free), -1, 3)
            system = np.einsum("kva,vja->kj", constraint, response)
            system += _SOFTNESS * np.trace(system) / len(system) * np.eye(len(system))
            change = np.zeros_like(result)
            change[free] = np.einsum("vka,k->va", response, np.linalg.solve(system, now.missing))
            result += self.symmetrised(change) if symmetric else change
        return result

    def symmetrised(self, offsets: np.ndarray) -> np.ndarray:
        """The mean of a shape (Vc, 3) and its mirror image."""
        return 0.5 * (offsets + offsets[self.mirror] * _MIRRORED)

    def _factorise(self, free: np.ndarray, mobility: np.ndarray, length_m: float):
        stiffness = 1 + _STIFFNESS * (1 / mobility - 1)
        matrix = length_m**4 * self._bending[free][:, free] + sparse.diags(self._area[free] * stiffness)
        return splu(matrix.tocsc())

    def _linearised(self, offsets: np.ndarray, targets_mm: Mapping[str, float], symmetric: bool) -> _Rows:
        moved = self.neutral + self.landmarks @ offsets
        gradient: list[np.ndarray] = []
        missing: list[float] = []
        for name, target in targets_mm.items():
            row = ALL_FIGURES[name].gradient(moved)
            short = 1e-3 * target - ALL_FIGURES[name].value(self.neutral, moved)
            for each in [row, row[OPPOSITE] * _MIRRORED] if symmetric else [row]:
                if not any(np.allclose(each, other) for other in gradient):
                    gradient.append(each)
                    missing.append(short)
        return _Rows(np.array(gradient), np.array(missing))


def _bending(vertices: np.ndarray, quads: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Bi-Laplacian (Vc, Vc) of the quads' surface, and the area (Vc,) of each vertex; both mirror-symmetric, because
    each quad is split along both of its diagonals. Vertices of no quad have an area of 0."""
    halves = [quads[:, [0, 1, 2]], quads[:, [0, 2, 3]], quads[:, [0, 1, 3]], quads[:, [1, 2, 3]]]
    faces, igl = np.ascontiguousarray(np.concatenate(halves), np.int64), require_igl()
    laplacian = 0.5 * igl.cotmatrix(vertices, faces)
    area = 0.5 * np.asarray(igl.massmatrix(vertices, faces, igl.MASSMATRIX_TYPE_BARYCENTRIC).diagonal())
    area = np.pad(area, (0, len(vertices) - len(area)))
    laplacian.resize((len(vertices), len(vertices)))
    inverse = sparse.diags(np.divide(1, area, out=np.zeros_like(area), where=area > 0))
    return (laplacian.T @ inverse @ laplacian).tocsr(), area
