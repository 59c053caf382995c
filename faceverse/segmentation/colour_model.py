"""Colour distributions of the classes of a picture: smoothed histograms in CIELAB."""

from __future__ import annotations

import numpy as np

_BINS = np.array([20, 24, 24])  # of L*, a*, b*
_WIDTHS = np.array([5.5, 4.0, 4.0])  # in CIELAB units; chroma beyond +-48 goes to the outer bins
_SIGMA_BINS = 1.0
_UNIFORM_SHARE = 0.01  # of a picture's pixels: weight of the uniform distribution that every histogram starts from


def lab_from_rgb(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (..., 3) float32 of sRGB (..., 3) uint8."""
    import cv2

    flat = (rgb.reshape(1, -1, 3) / 255.0).astype(np.float32)
    return cv2.cvtColor(flat, cv2.COLOR_RGB2LAB).reshape(rgb.shape)


def histogram_cells(lab: np.ndarray) -> np.ndarray:
    """Flat index (...,) of the histogram cell of each CIELAB colour (..., 3)."""
    cells = np.floor(lab / _WIDTHS + [0.0, _BINS[1] / 2, _BINS[2] / 2]).astype(np.int64)
    return np.ravel_multi_index(tuple(np.moveaxis(np.clip(cells, 0, _BINS - 1), -1, 0)), tuple(_BINS))


def weighted_counts(cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum of weights (C,) in each histogram cell."""
    return np.bincount(cells.ravel(), weights.ravel().astype(np.float64), int(_BINS.prod()))


def density(counts: np.ndarray, pixel_count: int) -> np.ndarray:
    """Density (C,) float32 of colours relative to a uniform distribution, from weighted counts.

    Args:
        counts: from `weighted_counts`.
        pixel_count: of the picture. Few observations stay near the uniform distribution.
    """
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(counts.reshape(_BINS), _SIGMA_BINS, mode="nearest").ravel()
    doubt = _UNIFORM_SHARE * pixel_count
    return ((smooth * smooth.size + doubt) / (smooth.sum() + doubt)).astype(np.float32)
