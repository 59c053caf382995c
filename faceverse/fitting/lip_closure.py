"""Lips that are closed in the photograph are closed on the head.

A fit leaves gaps of a millimetre or two, in which teeth shine: skin is compared, not what lies between the lips, and
single points are not that sure. But how far the lips are apart is seen better than where each of them is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..graphics.camera import Camera
from .solver import LandmarkModel, damped_step, project_points
from .surface import FaceState

PAIRS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))  # MediaPipe: middle of the inner lips, above and below
SEEN_M = 0.0006  # further apart in the photograph than closed lips would be: they are open
FITTED_M = 0.0025  # further apart on the head: the points and the skin agree that they are open
TOUCH_M = 1.5e-4  # how closely the lips meet; against this, expression weights move as little as they can
GROUPS = ("mouth", "jaw")


def close_lips(lm: LandmarkModel, state: FaceState, points_px: np.ndarray, camera: Camera) -> FaceState:
    """The state with lips that meet as they do without expression, if they are closed in the photograph.

    Args:
        lm: the model on all 478 landmarks; states of models with fewer, or without named expressions, stay as they are.
        points_px: (478, 2) as detected.
    """
    movable = np.array([k for k, name in enumerate(lm.prior.names) if name.startswith(GROUPS) and lm.prior.scored[k]])
    if lm.detected is not None or not len(movable):
        return state
    upper, lower = np.array(PAIRS).T
    modes = lm.expression_of(state.identity)[movable]
    apart = (modes[:, upper, 1] - modes[:, lower, 1]).T  # (P, M) metres per unit of weight
    gap = apart @ state.expression[movable]
    if not 0 < np.median(gap) < FITTED_M:
        return state
    precision = lm.prior.refined_sigma[movable] ** -2.0
    bounds = lm.prior.limits[movable] - state.expression[movable, None]
    hessian = apart.T @ apart / TOUCH_M**2 + np.diag(precision)
    change = damped_step(hessian, apart.T @ gap / TOUCH_M**2, 0.0, np.arange(len(movable)), bounds)
    expression = state.expression.copy()
    expression[movable] += change
    closed = replace(state, expression=expression)
    pixels = project_points(lm.points(state.identity, expression), state.rotation, state.translation, camera)
    wide_px = np.median(_distance(points_px, upper, lower) - _distance(pixels, upper, lower))
    metres_per_px = -state.translation[2] / camera.focal_px
    return closed if wide_px * metres_per_px < SEEN_M else state


def _distance(pixels: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    return np.linalg.norm(pixels[upper] - pixels[lower], axis=1)
