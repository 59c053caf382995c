"""Figures of expressions in millimetres: how far brows, lids, nose, lips, mouth corners and chin move at weight 1.

All figures are measured on the 68 landmarks, relative to the neutral head, and compare heads of different topology.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..model.face_model import FaceModel

RIGHT, UP, FORWARD = 0, 1, 2  # axes of head space; +x points to the subject's left
MAIN_MM = 2.0  # reference figures of at least this size are main figures
SHARE_RANGE = (0.7, 1.3)  # of the reference that a main figure should reach


@dataclass(frozen=True)
class Figure:
    """A measure of the 68 landmarks.

    Args:
        points: landmarks whose mean displacement along an axis is measured, and the landmarks to subtract.
        axis: 0, 1 or 2.
        sign: of that displacement.
        pairs: instead of the points: pairs of landmarks whose mean distance is measured.
    """

    points: tuple[int, ...] = ()
    axis: int = UP
    sign: float = 1.0
    less: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()

    def value(self, neutral: np.ndarray, moved: np.ndarray) -> float:
        """Change of the measure from neutral to moved landmarks, each (68, 3), in their unit."""
        if self.pairs:
            return self._distance(moved) - self._distance(neutral)
        return float((self.gradient(moved) * (moved - neutral)).sum())

    def gradient(self, moved: np.ndarray) -> np.ndarray:
        """Derivative (68, 3) of the value by the moved landmarks (68, 3)."""
        rows = np.zeros((68, 3))
        for a, b in self.pairs:
            direction = moved[a] - moved[b]
            direction = direction / max(float(np.linalg.norm(direction)), 1e-9) / len(self.pairs)
            rows[a] += direction
            rows[b] -= direction
        for points, sign in ((self.points, self.sign), (self.less, -self.sign)):
            if points:
                rows[list(points), self.axis] += sign / len(points)
        return rows

    def _distance(self, points: np.ndarray) -> float:
        return float(np.mean([np.linalg.norm(points[a] - points[b]) for a, b in self.pairs]))


FIGURES = {
    "inner brows up": Figure((21, 22)),
    "left outer brow up": Figure((25, 26)),
    "left brow up": Figure((22, 23, 24, 25, 26)),
    "brows together": Figure((21,), RIGHT, less=(22,)),
    "left eye opening": Figure(pairs=((43, 47), (44, 46))),
    "nose wing up": Figure((31, 35)),
    "mouth width": Figure(pairs=((48, 54),)),
    "lip gap": Figure(pairs=((62, 66),)),
    "lips forward": Figure((51, 57, 62, 66), FORWARD),
    "upper lip up": Figure((50, 51, 52)),
    "lower lip down": Figure((56, 57, 58), sign=-1.0),
    "left corner out": Figure((54,), RIGHT),
    "left corner up": Figure((54,)),
    "left corner back": Figure((54,), FORWARD, -1.0),
    "mouth to the left": Figure(tuple(range(48, 68)), RIGHT),
    "chin down": Figure((8,), sign=-1.0),
    "chin forward": Figure((8,), FORWARD),
}


def landmark_points(model: FaceModel, vertices: np.ndarray) -> np.ndarray:
    """The 68 landmarks (..., 68, 3) of heads (..., V, 3)."""
    landmarks = model.landmarks_68
    corners = vertices[..., model.faces[landmarks.triangle], :]
    return (corners * landmarks.barycentric[..., None]).sum(axis=-2)


def expression_figures(model: FaceModel) -> dict[str, dict[str, float]]:
    """All figures in millimetres of each expression at weight 1 on the mean head, by expression and figure."""
    neutral = 1e3 * landmark_points(model, model.mean_vertices.astype(np.float64))
    moved = neutral + 1e3 * landmark_points(model, model.expression_modes)
    return {
        name: {key: figure.value(neutral, points) for key, figure in FIGURES.items()}
        for name, points in zip(model.expression_names, moved, strict=True)
    }


def outside(found_mm: float, reference_mm: float) -> bool:
    """Whether a main figure is not within SHARE_RANGE of its reference; smaller figures never are."""
    low, high = SHARE_RANGE
    return abs(reference_mm) >= MAIN_MM and not low <= found_mm / reference_mm <= high
