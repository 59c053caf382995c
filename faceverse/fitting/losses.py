"""Robust loss of the photometric terms: Geman and McClure's function, its weight, and robust scales of residuals.

Squared errors listen most to what the model explains least: hair, glasses, hands, make-up. With the loss rho(s) =
s / (1 + s / c^2) of squared standardised residuals s, such outliers saturate at c^2. Gauss-Newton minimises it as
iteratively reweighted least squares: each residual counts with the weight d rho / d s = (1 + s / c^2)^-2.
`fitting.surface` (fit of a photograph) and `tracking.skin_term` (fit of a frame) use these functions on NumPy arrays.

The notebook notebooks/03_fitting_losses.ipynb builds every term of a fit by hand, draws these weights over a photograph
and shows what the fit does without them.

References: Geman and McClure 1987, "Statistical methods for tomographic image reconstruction"; Black and Rangarajan
1996, "On the unification of line processes, outlier rejection, and robust statistics with applications in early
vision"; Huber 1981, "Robust Statistics" (median absolute deviation).
"""

from __future__ import annotations

import numpy as np

ROBUST_SCALE = 2.5  # c, in standard deviations: residuals beyond it are down-weighted as outliers
SIGMA_PER_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


def geman_mcclure(square: np.ndarray) -> np.ndarray:
    """Geman-McClure loss rho(s) of squared standardised residuals s (...), 0 at s = 0, below ROBUST_SCALE^2."""
    return square / (1 + square / ROBUST_SCALE**2)


def geman_mcclure_row_scale(square: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Factor (...) on residuals and rows of their Jacobian that makes least squares out of the weighted robust loss.

    It is the square root of the prior weight times that of the robust weight d rho / d s.

    Args:
        square: (...) squared standardised residuals s.
        weight: (...) weight of each residual without regard to its size, at least 0.
    """
    return np.sqrt(weight) / (1 + square / ROBUST_SCALE**2)


def cauchy_weight(residual: np.ndarray, scale: float) -> np.ndarray:
    """Weight 1 / (1 + (r / scale)^2) of residuals r (...) in reweighted least squares: Cauchy's loss."""
    return 1 / (1 + (residual / scale) ** 2)


def weighted_median(values: np.ndarray, weight: np.ndarray) -> float:
    """Least of the values (K,) at which the cumulative weight (K,) reaches half of the total."""
    order = np.argsort(values)
    cumulative = np.cumsum(weight[order])
    return values[order][np.searchsorted(cumulative, cumulative[-1] / 2)]
