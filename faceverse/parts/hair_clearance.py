"""Where hair may not be: inside the head, and before the eyes.

Dimensions: V vertices of a model, N of them where hair can touch the skin, P vertices of hair. Positions are metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

CLEARANCE_M = 0.002
"""Least distance of hair from the skin."""

_TOUCHED = ("scalp", "face", "neck")  # regions of a model that hair can touch
_APART = ("ears", "lips", "eyelids", "mouth_inside", "eyeballs", "teeth", "tongue", "eye_sockets")
_REACH_M = 0.03  # hair farther from the skin than this is not inside it, wherever the plane of the closest vertex lies
_PASSES = 3
_BESIDE_EYE_M, _ABOVE_BROW_M = 0.022, 0.002  # free space beside the centre of an eye, and above the brows
_BELOW_EYE_M = 0.03  # the middle of the free space
_HAIR_LINE = 0.52  # height of the hair line, from the brows to the top of the head
_TEMPLE_M = 0.012  # half of what the free space widens by where no fringe is left
_FRONT_M = (-0.035, -0.012)  # before the eyes' centres, between which hair begins to hang before the face
_GAP_INSIDE = 0.85  # greatest distance of that point from the middle, in radii
_EAR_M = (0.046, 0.040)  # half height and half depth of an ear, over which hair lies that covers it
_PIVOT = 0.75  # from the eyes back to the point about which hair is moved off the face, of the height above the brows
_PILED = 0.5  # width of the rim into which hair is moved, of the free space


@dataclass(frozen=True)
class HeadSurface:
    """The skin of a neutral head, as far as hair touches it.

    Attributes:
        points, normals: (N, 3).
        touched: (N,) indices of the model's vertices.
        tree: of the points.
        eyes: (2, 3) centres of the eyes; None if the model does not tell them.
        ears: (2, 3) greatest distance from the plane of symmetry, height and depth of the middle of left and right
            ear; None likewise.
        brow: height of the brows' upper edge.
        top: height of the head.
    """

    points: np.ndarray
    normals: np.ndarray
    touched: np.ndarray
    tree: cKDTree
    eyes: np.ndarray | None
    ears: np.ndarray | None
    brow: float
    top: float

    @classmethod
    def of(cls, vertices: np.ndarray, faces: np.ndarray, regions: Mapping[str, np.ndarray]) -> HeadSurface | None:
        """The surface of a head; None if the model does not tell where its scalp is.

        Args:
            vertices: (V, 3), neutral.
            faces: (F, 3).
            regions: of the model, name -> vertex indices.
        """
        if not len(regions.get("scalp", ())):
            return None
        vertices = vertices.astype(np.float64)
        touched = np.zeros(len(vertices), bool)
        for name in _TOUCHED:
            touched[regions.get(name, np.zeros(0, np.int64))] = True
        for name in _APART:
            touched[regions.get(name, np.zeros(0, np.int64))] = False
        points, normals = vertices[touched], outward_normals(vertices, faces)[touched]
        balls = [regions.get(f"eyeball_{side}", ()) for side in ("left", "right")]
        known = all(len(ball) for ball in balls) and len(regions.get("eyebrows", ()))
        eyes = np.array([vertices[ball].mean(0) for ball in balls]) if known else None
        brow = float(vertices[regions["eyebrows"], 1].max()) if known else 0.0
        ears = vertices[regions["ears"]] if len(regions.get("ears", ())) else None
        if ears is not None:
            ears = np.array([_extent(ears[ears[:, 0] * side > 0]) for side in (1, -1)])
        top = float(points[:, 1].max())
        return cls(points, normals, np.flatnonzero(touched), cKDTree(points), eyes, ears, brow, top)

    def cleared(self, hair: np.ndarray, fringe: float, gap: np.ndarray, over_ears: np.ndarray) -> np.ndarray:
        """Hair (P, 3) moved off the eyes and out of the head.

        Args:
            fringe: 0: off the forehead, 1: off brows and eyes, 2: wherever it is.
            gap: (2,) x and y of a point of the face that the style leaves free, away from which hair is moved.
            over_ears: (P,) share 0..1 by which hair stays outside of the ears.
        """
        return self.pushed_out(self.uncovered(hair, fringe, gap, over_ears))

    def uncovered(self, hair: np.ndarray, fringe: float, gap: np.ndarray, over_ears: np.ndarray) -> np.ndarray:
        """Hair (P, 3) moved off the eyes and the ears, but not out of the head; arguments as for `cleared`."""
        return self._outside_ears(self._off_the_eyes(hair, fringe, gap), over_ears)

    def _outside_ears(self, hair: np.ndarray, over_ears: np.ndarray) -> np.ndarray:
        """Move hair aside, where it would lie inside an ear that it covers."""
        if self.ears is None:
            return hair
        hair = hair.copy()
        for side, (width, height, depth) in zip((1, -1), self.ears):
            lack = width + CLEARANCE_M - side * hair[:, 0]
            moves = np.flatnonzero((lack > 0) & (side * hair[:, 0] > 0) & (over_ears > 0))
            offset = (hair[moves, 1:] - (height, depth)) / _EAR_M
            beside = np.exp(-np.square(offset).sum(1) ** 3)  # flat over the ear, 0 beyond
            hair[moves, 0] += side * lack[moves] * beside * over_ears[moves]
        return hair

    def distance(self, points: np.ndarray) -> np.ndarray:
        """(P,) distances of points (P, 3) from the skin, negative inside; accurate near it."""
        away, nearest = self.tree.query(points)
        along = np.einsum("pd,pd->p", points - self.points[nearest], self.normals[nearest])
        return np.where(away < _REACH_M, along, away)

    def pushed_out(self, points: np.ndarray) -> np.ndarray:
        """Points (P, 3), those closer to the skin than `CLEARANCE_M` or inside moved along its normal."""
        points, rows = points.copy(), np.arange(len(points))
        for _ in range(_PASSES):
            away, nearest = self.tree.query(points[rows], distance_upper_bound=_REACH_M)
            rows, nearest = rows[away < _REACH_M], nearest[away < _REACH_M]
            normal = self.normals[nearest]
            lack = CLEARANCE_M - np.einsum("pd,pd->p", points[rows] - self.points[nearest], normal)
            inside = lack > 0
            rows = rows[inside]  # what a pass does not move stays where it is in the next one
            points[rows] += lack[inside, None] * normal[inside]
        return points

    def _off_the_eyes(self, hair: np.ndarray, fringe: float, gap: np.ndarray) -> np.ndarray:
        """Move hair before the face out of an ellipse around the eyes, away from a point of the face that is free."""
        if self.eyes is None or fringe >= 2:
            return hair
        middle = self.eyes.mean(0) - (0, _BELOW_EYE_M, 0)
        short, long = max(1 - fringe, 0.0), max(fringe - 1, 0.0)
        half_width = np.abs(self.eyes[:, 0] - middle[0]).max() + _BESIDE_EYE_M + short * _TEMPLE_M
        hair_line = self.brow + _HAIR_LINE * (self.top - self.brow)
        height = self.brow + _ABOVE_BROW_M + short * (hair_line - self.brow) - middle[1]
        free = np.array([half_width, height]) * (1 - long)
        # In units of the ellipse: from the gap, out to its border and beyond.
        start = (gap - middle[:2]) / np.array([half_width, height])
        start *= min(1.0, _GAP_INSIDE / max(float(np.linalg.norm(start)), 1e-6))
        depth = float(self.eyes[:, 2].mean())
        rows = np.flatnonzero(hair[:, 2] > depth + _FRONT_M[0])
        old = hair[rows]
        away = (old[:, :2] - middle[:2]) / free - start
        length = np.linalg.norm(away, axis=1).clip(1e-6)
        along = (away @ start) / length
        border = -along + np.sqrt(along**2 + 1 - start @ start)
        share = length / border
        piled = (1 + share * _PILED / (1 + _PILED)) / share
        gain = smoothstep(old[:, 2] - depth, *_FRONT_M) * np.where(share < 1 + _PILED, piled - 1, 0.0)
        new = old.copy()
        new[:, :2] += gain[:, None] * away * free
        # It keeps its distance from the middle of the skull: hair that rises from the forehead lies down on the head.
        pivot = np.array([middle[0], self.brow, depth - _PIVOT * (self.top - self.brow)])
        ahead = np.square(old - pivot).sum(1) - np.square(new[:, :2] - pivot[:2]).sum(1)
        lying = np.minimum(old[:, 2], pivot[2] + np.sqrt(np.maximum(ahead, 0)))
        new[:, 2] = np.where(gain > 0, lying, old[:, 2])
        moved = hair.copy()
        moved[rows] = new
        return moved


def _extent(ear: np.ndarray) -> tuple[float, float, float]:
    """Greatest distance from the plane of symmetry, height and depth of the middle of an ear (N, 3)."""
    low, high = ear.min(0), ear.max(0)
    return float(np.abs(ear[:, 0]).max()), float(low[1] + high[1]) / 2, float(low[2] + high[2]) / 2


def outward_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, weighted by area, in the precision of the vertices.

    `graphics.mesh.vertex_normals` sums in another order; files that were made with these would change.
    """
    a, b, c = vertices[faces].swapaxes(0, 1)
    cross = np.cross(b - a, c - a)
    total = np.stack(
        [np.bincount(faces.ravel(), np.repeat(cross[:, d], 3), minlength=len(vertices)) for d in range(3)], axis=1
    )
    return total / np.linalg.norm(total, axis=1, keepdims=True).clip(1e-12)


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Cubic Hermite step from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
