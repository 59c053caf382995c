"""Damped Newton step with box bounds, shared by the landmark fit, the photometric fit and tracking."""

from __future__ import annotations

import numpy as np


def damped_step(
    hessian: np.ndarray, gradient: np.ndarray, damping: float, rows: np.ndarray, bounds: np.ndarray
) -> np.ndarray:
    """Newton step (K,) with Levenberg-Marquardt damping and box bounds on some of the unknowns.

    Active set: unknowns that would leave their bounds are fixed at the bound, and the remaining system is solved again.

    Args:
        hessian (K, K), gradient (K,): of the loss.
        damping: relative increase of the diagonal.
        rows: (R,) indices of the bounded unknowns.
        bounds: (R, 2) least and greatest change of each.

    Reference: Nocedal and Wright 2006, "Numerical Optimization", sections 10.3 (Levenberg-Marquardt) and 16.5 (active
    sets).
    """
    hessian = hessian.copy()
    np.einsum("ii->i", hessian)[...] *= 1 + damping
    delta = np.zeros(len(gradient))
    free = np.ones(len(gradient), bool)
    for _ in range(4):
        fixed = ~free
        rhs = -gradient[free] - hessian[np.ix_(free, fixed)] @ delta[fixed]
        delta[free] = np.linalg.solve(hessian[np.ix_(free, free)], rhs)
        proposed = delta[rows]
        leaving = ((proposed < bounds[:, 0] - 1e-9) | (proposed > bounds[:, 1] + 1e-9)) & free[rows]
        if not leaving.any():
            break
        delta[rows[leaving]] = np.clip(proposed, *bounds.T)[leaving]
        free[rows[leaving]] = False
    return delta
