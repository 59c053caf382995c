"""Edge-preserving smoothing of maps, guided by a colour picture.

References: He, Sun, Tang, Guided image filtering, TPAMI 2013, equations 14 to 16; He, Sun, Fast guided filter, 2015.
"""

from __future__ import annotations

import numpy as np

_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


class GuidedFilter:
    """Smooth maps without crossing the edges of a picture.

    Args:
        guide: (H, W, 3) float32.
        radius: half the window's side in pixels of `guide`.
        eps: variance of `guide` below which a window counts as even.
        step: the coefficients are computed at every step-th pixel, which costs 1 / step^2 of the time.
    """

    def __init__(self, guide: np.ndarray, radius: float, eps: float, step: int = 1):
        self._shape = guide.shape[:2]
        self._full = [np.ascontiguousarray(guide[..., c]) for c in range(3)]
        self._small_size = (max(1, self._shape[1] // step), max(1, self._shape[0] // step))
        self._radius = max(1, round(radius / step))
        self._guide = [self._reduced(plane) for plane in self._full]
        self._mean = [self._box(plane) for plane in self._guide]
        covariance = [self._box(self._guide[i] * self._guide[j]) - self._mean[i] * self._mean[j] for i, j in _PAIRS]
        for diagonal in (0, 3, 5):
            covariance[diagonal] += eps
        self._inverse = _inverse(covariance)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Smooth a map (H, W) float32."""
        small = self._reduced(values)
        mean = self._box(small)
        covariance = [
            self._box(plane * small) - plane_mean * mean
            for plane, plane_mean in zip(self._guide, self._mean, strict=True)
        ]
        slopes = [sum(self._inverse[i][j] * covariance[j] for j in range(3)) for i in range(3)]
        offset = mean - sum(slope * plane_mean for slope, plane_mean in zip(slopes, self._mean, strict=True))
        out = self._enlarged(self._box(offset))
        for slope, plane in zip(slopes, self._full, strict=True):
            out += self._enlarged(self._box(slope)) * plane
        return out

    def _box(self, values: np.ndarray) -> np.ndarray:
        import cv2

        size = 2 * self._radius + 1
        return cv2.boxFilter(values, -1, (size, size), borderType=cv2.BORDER_REFLECT)

    def _reduced(self, values: np.ndarray) -> np.ndarray:
        import cv2

        return cv2.resize(values, self._small_size, interpolation=cv2.INTER_AREA)

    def _enlarged(self, values: np.ndarray) -> np.ndarray:
        import cv2

        return cv2.resize(values, self._shape[::-1], interpolation=cv2.INTER_LINEAR)


def _inverse(m: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Inverse of symmetric 3 x 3 matrices, given and returned as maps of their entries."""
    xx, xy, xz, yy, yz, zz = m
    a, b, c = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    scale = 1 / (xx * a + xy * b + xz * c)
    a, b, c = a * scale, b * scale, c * scale
    d, e, f = (xx * zz - xz * xz) * scale, (xy * xz - xx * yz) * scale, (xx * yy - xy * xy) * scale
    return [[a, b, c], [b, d, e], [c, e, f]]
