"""Bind the vertices of a part to the surface of a model, so that it follows every identity and expression.

Each vertex of a part belongs to one triangle of the model: a point of that triangle plus an offset in the triangle's
own frame, which grows with the head ("wrap deformer"). Teeth and eyes must not bend: they move as a whole, with the
motion of all model vertices to which they are bound.

Dimensions: P vertices of the part, R reference vertices of the model. Positions are metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ..errors import ParameterError

BindingKind = Literal["surface", "affine", "rigid"]
BINDING_KINDS: tuple[BindingKind, ...] = ("surface", "affine", "rigid")
_LEAST_LENGTH_M = 1e-9


@dataclass(frozen=True)
class Binding:
    """How a part follows the vertices of a model.

    Attributes:
        kind: "surface": each vertex follows its triangle. "affine": the part follows the affine motion of its reference
            vertices from person to person, and their rigid motion with an expression, as teeth do. "rigid": it is also
            only scaled, moved and turned from person to person, as eyeballs are.
        triangle: (P, 3) int64, indices of model vertices.
        weights: (P, 3) float32, of the triangle's corners; each row adds up to 1.
        offset: (P, 3) float32 metres from the weighted corners, on the head on which the part was made: along the first
            edge, across it in the plane, and along the normal of the triangle.
        reference: (R,) int64, sorted indices of all model vertices in `triangle`.
        reference_m: (R, 3) float32, their positions on the head on which the part was made.
    """

    kind: BindingKind
    triangle: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    reference: np.ndarray
    reference_m: np.ndarray

    def place(self, vertices: np.ndarray) -> np.ndarray:
        """Vertices (P, 3) of the part on the neutral head.

        Args:
            vertices: (V, 3) of the model, neutral.

        Raises:
            ParameterError: fewer vertices than the part needs.
        """
        self._check(vertices)
        target = vertices[self.reference].astype(np.float64)
        if self.kind == "surface":
            return self._attach(vertices, _spread(target) / _spread(self.reference_m))
        linear, translation = self._motion(target)
        return self.made @ linear.T + translation

    def follow(self, vertices: np.ndarray, neutral: np.ndarray) -> np.ndarray:
        """Vertices (P, 3) of the part on the head with an expression.

        Args:
            vertices: (V, 3) of the model with its expression.
            neutral: (V, 3) of the same head without.

        Raises:
            ParameterError: as for `place`, or the two have different shapes.
        """
        self._check(vertices)
        if vertices.shape != neutral.shape:
            raise ParameterError("parts.vertex_count", found=len(neutral), expected=len(vertices))
        if self.kind == "surface":
            return self._attach(vertices, _spread(neutral[self.reference]) / _spread(self.reference_m))
        rotation, translation = rigid_motion(neutral[self.reference], vertices[self.reference])
        return self.place(neutral) @ rotation.T + translation

    @cached_property
    def made(self) -> np.ndarray:
        """(P, 3) metres, the part on the head on which it was made."""
        corners = self.reference_m.astype(np.float64)[np.searchsorted(self.reference, self.triangle)]
        return _attached(corners, self.weights, self.offset)

    def _motion(self, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The linear map (3, 3) and translation (3,) from the reference vertices as made to `target` (R, 3)."""
        source = self.reference_m.astype(np.float64)
        if self.kind == "rigid":
            scale = _spread(target) / _spread(source)
            rotation, _ = rigid_motion(source, target)
            linear = scale * rotation
        else:
            linear = np.linalg.lstsq(source - source.mean(0), target - target.mean(0), rcond=None)[0].T
        return linear, target.mean(0) - linear @ source.mean(0)

    def _attach(self, vertices: np.ndarray, scale: float) -> np.ndarray:
        return _attached(vertices[self.triangle].astype(np.float64), self.weights, self.offset * scale)

    def _check(self, vertices: np.ndarray) -> None:
        if vertices.ndim != 2 or vertices.shape[1] != 3 or len(vertices) <= self.reference[-1]:
            raise ParameterError("parts.vertex_count", found=len(vertices), expected=int(self.reference[-1]) + 1)


def bind(
    points: np.ndarray, vertices: np.ndarray, triangle: np.ndarray, weights: np.ndarray, kind: BindingKind
) -> Binding:
    """Bind a part to given points on the surface of a model.

    Args:
        points: (P, 3) vertices of the part.
        vertices: (V, 3) of the neutral head on which the part was made.
        triangle: (P, 3) the model vertices to which each point is bound.
        weights: (P, 3) barycentric coordinates of the closest point of that triangle.
        kind: see `Binding`.
    """
    corners = vertices[triangle].astype(np.float64)
    away = points - np.einsum("pk,pkd->pd", weights, corners)
    offset = np.einsum("pkd,pd->pk", _frames(corners), away)
    reference = np.unique(triangle)
    return Binding(
        kind, triangle.astype(np.int64), np.float32(weights), np.float32(offset), reference.astype(np.int64),
        np.float32(vertices[reference]),
    )  # fmt: skip


def rigid_motion(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and translation (3,) that move `source` (R, 3) to `target` (R, 3) with least squared error.

    Reference: Kabsch, A solution for the best rotation to relate two sets of vectors, 1976.
    """
    middle, aim = source.mean(0, dtype=np.float64), target.mean(0, dtype=np.float64)
    left, _, right = np.linalg.svd((source - middle).T @ (target - aim))
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left @ flip @ right).T
    return rotation, aim - rotation @ middle


def _attached(corners: np.ndarray, weights: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Points (P, 3) at `weights` (P, 3) of triangles (P, 3, 3), and `offset` (P, 3) away in their frames."""
    return np.einsum("pk,pkd->pd", weights, corners) + np.einsum("pkd,pk->pd", _frames(corners), offset)


def _spread(points: np.ndarray) -> float:
    """Root mean square distance of points (R, 3) from their mean."""
    return float(np.sqrt(np.square(points - points.mean(0, dtype=np.float64)).sum(1).mean()))


def _frames(corners: np.ndarray) -> np.ndarray:
    """(P, 3, 3): the unit vectors of each triangle (P, 3, 3): its first edge, across it in the plane, its normal."""
    edge = _unit(corners[:, 1] - corners[:, 0])
    normal = _unit(np.cross(edge, corners[:, 2] - corners[:, 0]))
    return np.stack([edge, np.cross(normal, edge), normal], axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(_LEAST_LENGTH_M)
