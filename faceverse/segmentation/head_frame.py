"""Where the parts of a head lie in a photograph, from the landmarks of its face alone.

Lengths are in units of the distance between the outer corners of the eyes in space, about 9 cm in adults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..landmarks import CHIN, FOREHEAD, OUTER_EYE_CORNERS, DetectedFace

# MediaPipe's landmarks around the face, clockwise in the image from the middle of the forehead.
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
RIGHT_CHEEK = (117, 118, 119, 100, 142, 203, 206, 207, 187, 147, 123)
LEFT_CHEEK = (346, 347, 348, 329, 371, 423, 426, 427, 411, 376, 352)
NOSE = (6, 196, 198, 209, 1, 429, 420, 419)
OUTER_LIPS = (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91)
EYES = ((33, 161, 159, 157, 133, 154, 145, 163), (362, 384, 386, 388, 263, 390, 374, 381))
TRAGUS = (234, 454)  # in front of the right and the left ear

# Of the skull without hair, in head axes (left, up, forward) from the middle between the eyes.
_SKULL_CENTRE = np.array([0.0, 0.36, -0.95])
_SKULL_RADII = np.array([0.86, 0.98, 1.08])


@dataclass(frozen=True)
class HeadFrame:
    """Pose and scale of a head in a picture.

    Attributes:
        origin_px: (2,) middle between the outer corners of the eyes.
        axes: (3, 2) what one unit to the subject's left, up and forward is in pixels (orthographic).
        unit_px: length of a unit parallel to the picture.
        points_px: (478, 2) landmarks.
    """

    origin_px: np.ndarray
    axes: np.ndarray
    unit_px: float
    points_px: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of points (..., 3) in units: left, up, forward from the origin."""
        return self.origin_px + points @ self.axes

    @property
    def quarter_turns(self) -> int:
        """Counter-clockwise quarter turns of the picture, 0..3, that bring the top of the head up."""
        right, down = self.axes[1]
        return round(float(np.arctan2(right, -down)) / (np.pi / 2)) % 4

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """Coordinates (..., 2) in units across and up of pixels (..., 2), in the plane of the picture, without roll."""
        up = self.axes[1] / np.linalg.norm(self.axes[1])
        across = np.array([-up[1], up[0]])
        offset = pixels - self.origin_px
        return np.stack([offset @ across, offset @ up], axis=-1) / self.unit_px

    def moved(self, scale: float, offset: np.ndarray) -> HeadFrame:
        """The same head in a picture whose pixels are `pixels * scale + offset`."""
        points, origin = self.points_px * scale + offset, self.origin_px * scale + offset
        return HeadFrame(origin, self.axes * scale, self.unit_px * scale, points)

    def skull_outline_px(self, count: int = 48) -> np.ndarray:
        """Outline (count, 2) of the skull without hair."""
        # The silhouette of an ellipsoid under a linear map A is the ellipse A D D' A'.
        mapped = self.axes.T * _SKULL_RADII
        values, vectors = np.linalg.eigh(mapped @ mapped.T)
        turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
        circle = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
        return self.project(_SKULL_CENTRE) + circle * np.sqrt(values) @ vectors.T


def head_frame(face: DetectedFace) -> HeadFrame:
    """Pose and scale of a detected face."""
    points = np.column_stack([face.landmarks_px, face.landmarks_depth]).astype(np.float64)
    right, left = points[list(OUTER_EYE_CORNERS)]
    across = left - right
    unit = float(np.linalg.norm(across))
    across = across / unit
    up = points[FOREHEAD] - points[CHIN]
    up = up - across * (up @ across)
    up = up / np.linalg.norm(up)
    # Image axes are right, down, away; the subject's left is the image's right.
    forward = np.cross(across, up)
    forward = forward * -np.sign(forward[2]) if forward[2] else forward
    axes = np.stack([across, up, forward])[:, :2] * unit
    return HeadFrame((right[:2] + left[:2]) / 2, axes, unit, points[:, :2])
