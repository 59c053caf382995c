"""The focal length of a camera that nobody knows, from several pictures that it took of one person.

A wrong one makes noses and turned cheeks too near or too far, for which turns and shape are then bent. Shape, skin and
poses adapt to each focal length (`photometric.refine`), and a Gauss-Newton step says in which direction they would like
another one: the unknowns of all pictures and the logarithm of the focal length in one system of equations.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..fitting.photometric import PhotometricTarget, Refinement, StageSettings, refine
from ..fitting.prior import IdentityPrior
from ..fitting.surface import FaceState, SurfaceSamples

SIGMA = 0.3  # of an unknown focal length, as a logarithm, about that of a usual lens
_MOST, _LONGEST = 0.8, 0.2  # of that logarithm, in all and in one step
_FIRST, _FOLLOWING = 3, 2  # iterations of the refinement with the usual focal length and with each that is tried
_STEPS = 5
_DAMPING = 1e-8  # distance and focal length together hardly change a picture: more would hold both
_NEAR = 0.02  # a smaller step is none


def refine_focal_length(
    surface: SurfaceSamples, targets: list[PhotometricTarget], settings: StageSettings, prior: IdentityPrior, states: list[FaceState]
) -> tuple[list[FaceState], float]:
    """Refines states as `photometric.refine` does, and the focal length that is common to all pictures.

    Args:
        targets: whose cameras have the usual focal length.
    Returns:
        The states, and the factor on the focal length with which they were found.
    """

    def tried(lens: float, start: list[FaceState], iterations: int) -> tuple[float, float, Refinement, list[FaceState]]:
        """Loss, logarithm of the factor, problem and states."""
        moved = [zoomed(target, float(np.exp(lens))) for target in targets]
        problem = Refinement(surface, moved, replace(settings, iterations=iterations), prior)
        outcome = refine(problem, start)
        return outcome.after + 0.5 * (lens / SIGMA) ** 2, lens, problem, outcome.states

    best = tried(0.0, states, _FIRST)
    for _ in range(_STEPS):
        loss, lens, problem, found = best
        step, start = _step(problem, found, lens)
        if abs(step) < _NEAR:
            break
        following = tried(lens + step, start, _FOLLOWING)
        if following[0] > loss:
            break
        best = following
    return best[3], float(np.exp(best[1]))


def zoomed(target: PhotometricTarget, factor: float) -> PhotometricTarget:
    """The same picture, taken with another focal length."""
    camera = replace(target.camera, focal_px=target.camera.focal_px * factor)
    return replace(target, camera=camera, landmarks=replace(target.landmarks, camera=camera))


def _step(problem: Refinement, states: list[FaceState], lens: float) -> tuple[float, list[FaceState]]:
    """By how much the logarithm of the focal length changes, and the states that go with it.

    Args:
        lens: that logarithm, over the usual one.
    """
    hessian, gradient = problem.normal_equations(states, problem.evaluate(states), fit_focal=True)
    own, slope, across = hessian[:-1, :-1], gradient[:-1], hessian[:-1, -1]
    damped = own + _DAMPING * np.diag(np.diag(own))
    solved = np.linalg.solve(damped, np.stack([slope, across], axis=1))
    stiffness = hessian[-1, -1] + SIGMA**-2.0 - across @ solved[:, 1]
    pull = gradient[-1] + lens * SIGMA**-2.0 - across @ solved[:, 0]
    step = float(np.clip(-pull / max(stiffness, 1e-9), -_LONGEST, _LONGEST))
    step = float(np.clip(lens + step, -_MOST, _MOST)) - lens
    moved = problem.step(states, (own, slope + step * across), _DAMPING)
    return step, [_in_front(after, before) for after, before in zip(moved, states, strict=True)]


def _in_front(after: FaceState, before: FaceState) -> FaceState:
    """A state with its distance changed by a factor, as a focal length changes, not by a difference."""
    near, far = before.translation[2], after.translation[2]
    distance = near * np.exp(np.clip(far / near - 1, -1, 1))
    return replace(after, translation=np.append(after.translation[:2], distance))
