"""Which points of a head nothing of the same head is before, judged without a renderer. Conventions: see camera.py."""

from __future__ import annotations

import numpy as np

from ..graphics.camera import Camera

MIN_FACING = 0.15  # cosine to the line of sight; skin seen from aside is blurred and dimly lit
OCCLUSION_TOLERANCE_M = 0.004  # behind what is nearest at its place
_GRID = 48  # cells along a picture in place of a depth buffer


def visible_points(points: np.ndarray, normals: np.ndarray, others: np.ndarray, camera: Camera) -> np.ndarray:
    """Which surface points (K,) nothing of the head is before, judged without a renderer by a coarse grid.

    A point is clear if it is nearer than all that falls into its cell, or little farther: OCCLUSION_TOLERANCE_M, and as far as its
    own tilt lets the depth change within the cell.

    Args:
        points, normals: (K, 3) camera space, float32.
        others: (M, 3) more points of the head, densely.
        camera: of a square picture.
    """
    cells = np.full(_GRID**2, np.inf, np.float32)
    for places in (others, points):
        np.minimum.at(cells, _cell(places, camera), -places[:, 2])
    facing = np.abs((normals * points).sum(1) / np.linalg.norm(points, axis=1)).clip(MIN_FACING, 1)
    cell_m = camera.image_size[0] / _GRID * -points[:, 2] / camera.focal_px
    bounds = OCCLUSION_TOLERANCE_M + cell_m * np.sqrt(1 - facing**2) / facing
    return -points[:, 2] <= cells[_cell(points, camera)] + bounds


def _cell(points: np.ndarray, camera: Camera) -> np.ndarray:
    """(K,) the cell in which each camera-space point lies; what is outside of the picture counts to its edge."""
    per_pixel = _GRID / camera.image_size[0]
    scale = camera.focal_px * per_pixel / np.maximum(-points[:, 2], 1e-3)
    middle_x, middle_y = (value * per_pixel for value in camera.principal_point_px)
    x, y = middle_x + scale * points[:, 0], middle_y - scale * points[:, 1]
    x, y = (np.clip(value, 0, _GRID - 1).astype(np.int64) for value in (x, y))
    return y * _GRID + x
