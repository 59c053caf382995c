"""Edge-preserving smoothing of maps, guided by a colour picture.

Reference: He, Sun, Tang, Guided image filtering, TPAMI 2013, equations 14 to 16.
"""

from __future__ import annotations

import numpy as np


class GuidedFilter:
    """Smooth maps without crossing the edges of a picture.

    Args:
        guide: (H, W, 3) float32.
        radius: half the window's side in pixels.
        eps: variance of `guide` below which a window counts as even.
    """

    def __init__(self, guide: np.ndarray, radius: int, eps: float):
        self._guide, self._radius = guide, radius
        self._mean = self._box(guide)
        products = self._box((guide[..., :, None] * guide[..., None, :]).reshape(*guide.shape[:2], 9))
        covariance = products.reshape(*guide.shape[:2], 3, 3) - self._mean[..., :, None] * self._mean[..., None, :]
        self._inverse = np.linalg.inv(covariance + eps * np.eye(3, dtype=np.float32)).astype(np.float32)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Smooth a map (H, W) float32."""
        mean = self._box(values)
        covariance = self._box(self._guide * values[..., None]) - self._mean * mean[..., None]
        slope = np.einsum("hwij,hwj->hwi", self._inverse, covariance)
        offset = mean - (slope * self._mean).sum(axis=-1)
        return (self._box(slope) * self._guide).sum(axis=-1) + self._box(offset)

    def _box(self, values: np.ndarray) -> np.ndarray:
        import cv2

        size = 2 * self._radius + 1
        if values.ndim == 2 or values.shape[2] <= 4:
            return cv2.boxFilter(values, -1, (size, size), borderType=cv2.BORDER_REFLECT)
        return np.dstack([self._box(np.ascontiguousarray(values[..., c])) for c in range(values.shape[2])])
