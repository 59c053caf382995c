"""Pairs of landmarks whose distance is detected more accurately than either point.

The detector's errors are correlated: where it places a lip or a lid a little too high, it places the opposite one too
high as well. The landmark term marginalises these errors as they occur on renderings, where they are larger than on
photographs, and so loses the distances that expressions are made of: the opening of mouth and eyes, the width of the
mouth, the height of the brows. They enter the term as observations of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Landmarks of MediaPipe, and the standard deviation of a group's distances together, metres. Chosen on photographs of
# five people and confirmed on others, see docs/fitting.md.
GROUPS: dict[str, tuple[float, tuple[tuple[int, int], ...]]] = {
    "inner lips": (0.4e-3, ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))),
    "corners of the mouth": (1.0e-3, ((61, 291), (78, 308))),
    "lids": (0.4e-3, ((159, 145), (158, 153), (160, 144), (386, 374), (385, 380), (387, 373))),
    "brows": (0.35e-3, ((105, 159), (334, 386), (66, 159), (296, 386), (107, 133), (336, 362))),
}
DETECTED_POINTS = 478
_SURROUND_M = 0.02  # radius about a landmark in which the surface decides whether it faces the camera
_TURNED_AWAY = (0.0, 0.45)  # cosines between which a pair's weight grows from its least to one
_LEAST_VISIBLE = 0.03


@dataclass(frozen=True)
class LandmarkPairs:
    """Pairs of a landmark model's points.

    Args:
        index: (M, 2) int64 into the model's landmarks.
        sigma: (M,) metres, standard deviation of the detected difference per axis.
        normals: (M, 2, 3) unit, of the surface about both points of the mean head; a lid's own edge faces anywhere.
    """

    index: np.ndarray
    sigma: np.ndarray
    normals: np.ndarray

    @classmethod
    def none(cls) -> LandmarkPairs:
        """No pairs."""
        return cls(np.zeros((0, 2), np.int64), np.zeros(0), np.zeros((0, 2, 3)))

    @classmethod
    def of_detector(cls, points: np.ndarray, normals: np.ndarray) -> LandmarkPairs:
        """The pairs of `GROUPS` for a model with the detector's landmarks: points (478, 3), normals (478, 3).

        Other numbers of landmarks are those of other detectors, which have no pairs.
        """
        if len(points) != DETECTED_POINTS:
            return cls.none()
        index = np.array([pair for _, members in GROUPS.values() for pair in members])
        # Distances of a group err together: as many as there are count as one.
        sigma = [value * len(members) ** 0.5 for value, members in GROUPS.values() for _ in members]
        near = np.linalg.norm(points[index][:, :, None] - points, axis=-1) < _SURROUND_M
        surface = near @ normals
        return cls(index, np.array(sigma), surface / np.linalg.norm(surface, axis=-1, keepdims=True).clip(1e-12))

    def subset(self, rows: np.ndarray) -> LandmarkPairs:
        """The pairs both of whose landmarks are among `rows` (K,), as indices into `rows`."""
        place = np.full(max(self.index.max(initial=0), rows.max(initial=0)) + 1, -1)
        place[rows] = np.arange(len(rows))
        index = place[self.index]
        kept = (index >= 0).all(axis=1)
        return LandmarkPairs(index[kept], self.sigma[kept], self.normals[kept])

    def weight(self, rotation: np.ndarray, pixels_per_metre: float) -> np.ndarray:
        """(M,) 1 / px: inverse standard deviations under a rotation (3, 3), less where a point faces away."""
        low, high = _TURNED_AWAY
        facing = (self.normals @ rotation.T)[..., 2].min(axis=1)
        visible = np.clip((facing - low) / (high - low), _LEAST_VISIBLE, 1.0)
        return visible / (self.sigma * pixels_per_metre)
