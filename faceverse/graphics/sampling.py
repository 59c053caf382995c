"""Bilinear samples of many points of a picture."""

from __future__ import annotations

import numpy as np


def sample_planes(planes: np.ndarray, places: np.ndarray, outside: float | None = None) -> np.ndarray:
    """Bilinear samples (C, ...) float32 of planes (C, H, W).

    Args:
        planes: float32.
        places: (2, ...) column and row; integers are the centres of pixels. One or two dimensions beside the first.
        outside: value beyond the borders; None: that of the closest pixel.
    """
    import cv2

    x, y = (np.atleast_2d(np.ascontiguousarray(values, np.float32)) for values in places)
    border = cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT
    found = [
        cv2.remap(np.ascontiguousarray(plane, np.float32), x, y, cv2.INTER_LINEAR, None, border, outside or 0.0)
        for plane in planes
    ]
    return np.stack(found).reshape(len(planes), *places.shape[1:])
