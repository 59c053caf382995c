"""Focal length of an unknown camera, from several images that it took of one person.

A wrong focal length puts noses and turned cheeks too near or too far, and bends pose and shape to compensate. Shape,
skin and poses are refined for one focal length after another (`photometric.refine`). The next one comes from a
Gauss-Newton step in the unknowns of all images and the logarithm of the focal length.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..fitting.photometric import PhotometricTarget, Refinement, StageSettings, refine
from ..fitting.prior import IdentityPrior
from ..fitting.state import FaceState
from ..fitting.surface import SurfaceSamples

LOG_SIGMA = 0.3  # prior on the logarithm of the focal length around the default one
_LOG_LIMIT, _LOG_STEP_LIMIT = 0.8, 0.2  # of that logarithm, in all and in one step
_LOG_TOLERANCE = 0.02  # a smaller step ends the search
_FIRST_ITERATIONS, _NEXT_ITERATIONS = 3, 2  # of the refinement, with the default focal length and with each later one
_STEPS = 5
_DAMPING = 1e-8  # distance and focal length together hardly change an image: more damping would hold both


def refine_focal_length(
    surface: SurfaceSamples,
    targets: list[PhotometricTarget],
    settings: StageSettings,
    prior: IdentityPrior,
    states: list[FaceState],
) -> tuple[list[FaceState], float]:
    """Refine states as `photometric.refine` does, and with them the focal length that all images share.

    Args:
        surface: of the model.
        targets: images, whose cameras have the default focal length.
        settings: of the refinement; its number of iterations is not used.
        prior: of the identity.
        states: initial ones, one for each image.
    Returns:
        The states, and the factor on the focal length.
    """

    def refined(
        log_factor: float, initial: list[FaceState], iterations: int
    ) -> tuple[float, float, Refinement, list[FaceState]]:
        """Loss, logarithm of the factor, problem and states."""
        zoomed = [with_focal_factor(target, float(np.exp(log_factor))) for target in targets]
        problem = Refinement(surface, zoomed, replace(settings, iterations=iterations), prior)
        outcome = refine(problem, initial)
        return outcome.after + 0.5 * (log_factor / LOG_SIGMA) ** 2, log_factor, problem, outcome.states

    best = refined(0.0, states, _FIRST_ITERATIONS)
    for _ in range(_STEPS):
        loss, log_factor, problem, current = best
        step, initial = _step(problem, current, log_factor)
        if abs(step) < _LOG_TOLERANCE:
            break
        candidate = refined(log_factor + step, initial, _NEXT_ITERATIONS)
        if candidate[0] > loss:
            break
        best = candidate
    return best[3], float(np.exp(best[1]))


def with_focal_factor(target: PhotometricTarget, factor: float) -> PhotometricTarget:
    """The same image, taken to have another focal length."""
    camera = replace(target.camera, focal_px=target.camera.focal_px * factor)
    return replace(target, camera=camera, landmarks=replace(target.landmarks, camera=camera))


def _step(problem: Refinement, states: list[FaceState], log_factor: float) -> tuple[float, list[FaceState]]:
    """Gauss-Newton step of the logarithm of the focal length, and the states that go with it.

    Args:
        log_factor: logarithm of the focal length over the default one.
    """
    hessian, gradient = problem.normal_equations(states, problem.evaluate(states), fit_focal=True)
    own, slope, across = hessian[:-1, :-1], gradient[:-1], hessian[:-1, -1]
    damped = own + _DAMPING * np.diag(np.diag(own))
    solved = np.linalg.solve(damped, np.stack([slope, across], axis=1))
    curvature = hessian[-1, -1] + LOG_SIGMA**-2.0 - across @ solved[:, 1]
    reduced_gradient = gradient[-1] + log_factor * LOG_SIGMA**-2.0 - across @ solved[:, 0]
    step = float(np.clip(-reduced_gradient / max(curvature, 1e-9), -_LOG_STEP_LIMIT, _LOG_STEP_LIMIT))
    step = float(np.clip(log_factor + step, -_LOG_LIMIT, _LOG_LIMIT)) - log_factor
    moved = problem.step(states, (own, slope + step * across), _DAMPING)
    return step, [_with_scaled_distance(after, before) for after, before in zip(moved, states, strict=True)]


def _with_scaled_distance(after: FaceState, before: FaceState) -> FaceState:
    """A state whose distance changes by a factor, as the focal length does, not by a difference."""
    near, far = before.translation[2], after.translation[2]
    distance = near * np.exp(np.clip(far / near - 1, -1, 1))
    return replace(after, translation=np.append(after.translation[:2], distance))
