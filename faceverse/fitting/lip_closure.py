"""Lip closure: expression weights that close the lips of the head where they are closed in the photograph.

The photometric term compares skin, not the line between the lips, and single landmarks are not accurate enough, so a
fit leaves gaps of one or two millimetres in which teeth show. The distance of two opposite lip points is detected more
accurately than either point. The correction is a linear least-squares problem with a quadratic prior around the fitted
weights and box bounds, solved by an active set (`damped_step`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..graphics.camera import Camera
from .damped_step import damped_step
from .solver import LandmarkModel, project_points
from .state import FaceState

PAIRS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))  # MediaPipe: inner lips, upper and lower point
MAX_EXCESS_M = 0.0006  # lips whose detected gap exceeds that of closed lips by more are open
MAX_FITTED_GAP_M = 0.0025  # a wider fitted gap is an open mouth: landmarks and colours agree on it
GAP_SIGMA_M = 1.5e-4  # standard deviation of the closed gap, against the prior on the change of weights
GROUPS = ("mouth", "jaw")


def close_lips(lm: LandmarkModel, state: FaceState, points_px: np.ndarray, camera: Camera) -> FaceState:
    """Close the lips of a fitted head, to their distance without expression, if the photograph shows them closed.

    Args:
        lm: the model on all 478 landmarks. With fewer landmarks or without named expressions the state is returned
            unchanged.
        state: as fitted.
        points_px: (478, 2) detected landmarks, in pixels of the camera's picture.
        camera: of the photograph.
    Returns:
        The state with closed lips, or the unchanged state.
    """
    movable = np.array([k for k, name in enumerate(lm.prior.names) if name.startswith(GROUPS) and lm.prior.scored[k]])
    if lm.detected is not None or not len(movable):
        return state
    upper, lower = np.array(PAIRS).T
    modes = lm.expression_of(state.identity)[movable]
    gap_modes = (modes[:, upper, 1] - modes[:, lower, 1]).T  # (P, M) metres per unit of weight
    gap = gap_modes @ state.expression[movable]
    if not 0 < np.median(gap) < MAX_FITTED_GAP_M:
        return state
    precision = lm.prior.refined_sigma[movable] ** -2.0
    bounds = lm.prior.limits[movable] - state.expression[movable, None]
    hessian = gap_modes.T @ gap_modes / GAP_SIGMA_M**2 + np.diag(precision)
    change = damped_step(hessian, gap_modes.T @ gap / GAP_SIGMA_M**2, 0.0, np.arange(len(movable)), bounds)
    expression = state.expression.copy()
    expression[movable] += change
    closed = replace(state, expression=expression)
    pixels = project_points(lm.points(state.identity, expression), state.rotation, state.translation, camera)
    excess_px = np.median(_distance(points_px, upper, lower) - _distance(pixels, upper, lower))
    metres_per_px = -state.translation[2] / camera.focal_px
    return closed if excess_px * metres_per_px < MAX_EXCESS_M else state


def _distance(pixels: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    return np.linalg.norm(pixels[upper] - pixels[lower], axis=1)
