"""Self-occlusion of surface points, estimated on a coarse grid in place of a depth buffer. Axes: see camera.py."""

from __future__ import annotations

import numpy as np

from ..graphics.camera import Camera

MIN_FACING = 0.15  # cosine of normal and view direction; skin at grazing angles is blurred and dimly lit
OCCLUSION_TOLERANCE_M = 0.004  # behind the nearest surface of the same pixel or cell
_GRID = 48  # cells along each side of the picture


def visible_points(points: np.ndarray, normals: np.ndarray, others: np.ndarray, camera: Camera) -> np.ndarray:
    """Estimate which surface points (K,) bool are not occluded by other parts of the head.

    Every point is binned into a cell of a coarse grid over the picture. A point is visible if its depth exceeds the
    least depth of its cell by at most OCCLUSION_TOLERANCE_M plus the change of depth that its own slope allows within
    one cell.

    Args:
        points, normals: (K, 3) camera space, float32, metres and unit length.
        others: (M, 3) camera space, dense samples of the whole head that may occlude.
        camera: of a square picture.
    """
    cells = np.full(_GRID**2, np.inf, np.float32)
    for samples in (others, points):
        np.minimum.at(cells, _cell(samples, camera), -samples[:, 2])
    facing = np.abs((normals * points).sum(1) / np.linalg.norm(points, axis=1)).clip(MIN_FACING, 1)
    cell_m = camera.image_size[0] / _GRID * -points[:, 2] / camera.focal_px
    tolerance_m = OCCLUSION_TOLERANCE_M + cell_m * np.sqrt(1 - facing**2) / facing
    return -points[:, 2] <= cells[_cell(points, camera)] + tolerance_m


def _cell(points: np.ndarray, camera: Camera) -> np.ndarray:
    """(K,) index of the cell that each camera-space point projects to; points outside the picture go to its border."""
    per_pixel = _GRID / camera.image_size[0]
    scale = camera.focal_px * per_pixel / np.maximum(-points[:, 2], 1e-3)
    middle_x, middle_y = (value * per_pixel for value in camera.principal_point_px)
    x, y = middle_x + scale * points[:, 0], middle_y - scale * points[:, 1]
    x, y = (np.clip(value, 0, _GRID - 1).astype(np.int64) for value in (x, y))
    return y * _GRID + x
