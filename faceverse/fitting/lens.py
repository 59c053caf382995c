"""The focal length of a camera that nobody knows, from several pictures that it took of one person.

A wrong one makes noses and turned cheeks too near or too far, for which turns and shape are then bent. Shape, skin and
poses adapt to each focal length (`photometric.refine`), and a Gauss-Newton step says in which direction they would like
another one: the unknowns of all pictures and the logarithm of the focal length in one system of equations.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .photometric import Refinement, StageSettings, Target, refine
from .prior import IdentityPrior
from .surface import FitState, Surface

SIGMA = 0.3  # of an unknown focal length, as a logarithm, about that of a usual lens
_MOST, _LONGEST = 0.8, 0.2  # of that logarithm, in all and in one step
_ITERATIONS = (3, 2, 2, 2, 2, 2)  # of the refinement with each focal length that is tried
_DAMPING = 1e-8  # distance and focal length together hardly change a picture: more would hold both
_NEAR = 0.02  # a smaller step is none


def refine_lens(
    surface: Surface, targets: list[Target], settings: StageSettings, prior: IdentityPrior, states: list[FitState]
) -> tuple[list[FitState], float]:
    """Refines states as `photometric.refine` does, and the focal length that is common to all pictures.

    Args:
        targets: whose cameras have the usual focal length.
    Returns:
        The states, and the factor on the focal length with which they were found.
    """
    lens, least, best = 0.0, np.inf, (states, 0.0)
    for iterations in _ITERATIONS:
        moved = [zoomed(target, float(np.exp(lens))) for target in targets]
        problem = Refinement(surface, moved, replace(settings, iterations=iterations), prior)
        outcome = refine(problem, states)
        loss = outcome.after + 0.5 * (lens / SIGMA) ** 2
        if loss > least:
            break
        least, best = loss, (outcome.states, lens)
        step, states = _step(problem, outcome.states, lens)
        if abs(step) < _NEAR:
            break
        lens += step
    return best[0], float(np.exp(best[1]))


def zoomed(target: Target, factor: float) -> Target:
    """The same picture, taken with another focal length."""
    camera = replace(target.camera, focal_px=target.camera.focal_px * factor)
    return replace(target, camera=camera, landmarks=replace(target.landmarks, camera=camera))


def lens_equations(problem: Refinement, states: list[FitState]) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Newton Hessian (K + 1, K + 1) and gradient (K + 1,) of a refinement's loss without its prior of the focal
    length, whose logarithm comes last."""
    looks = problem.looks(states)
    hessian, gradient = (np.pad(values, (0, 1)) for values in problem.equations(states, looks))
    pose, identity, expression, _, _ = problem.sizes.blocks
    shape = np.r_[pose, identity, expression]
    for number, known in enumerate(zip(problem.targets, problem.comparisons, states, looks, strict=True)):
        target, comparison, state, look = known
        places = problem.places(number)
        jacobian, residual, zoom = comparison.rows(state, look)
        points, slope = target.landmarks.equations(state, fit_focal=True)
        across = (jacobian.T @ zoom).astype(np.float64)
        across[shape] += problem.settings.landmarks * points[:-1, -1]
        hessian[places, -1] += across
        hessian[-1, places] += across
        hessian[-1, -1] += float(zoom @ zoom) + problem.settings.landmarks * points[-1, -1]
        gradient[-1] += float(zoom @ residual) + problem.settings.landmarks * slope[-1]
    return hessian, gradient


def _step(problem: Refinement, states: list[FitState], lens: float) -> tuple[float, list[FitState]]:
    """By how much the logarithm of the focal length changes, and the states that go with it.

    Args:
        lens: that logarithm, over the usual one.
    """
    hessian, gradient = lens_equations(problem, states)
    own, slope, across = hessian[:-1, :-1], gradient[:-1], hessian[:-1, -1]
    damped = own + _DAMPING * np.diag(np.diag(own))
    solved = np.linalg.solve(damped, np.stack([slope, across], axis=1))
    stiffness = hessian[-1, -1] + SIGMA**-2.0 - across @ solved[:, 1]
    pull = gradient[-1] + lens * SIGMA**-2.0 - across @ solved[:, 0]
    step = float(np.clip(-pull / max(stiffness, 1e-9), -_LONGEST, _LONGEST))
    moved = problem.step(states, (own, slope + step * across), _DAMPING)
    return step, [_in_front(after, before) for after, before in zip(moved, states, strict=True)]


def _in_front(after: FitState, before: FitState) -> FitState:
    """A state with its distance changed by a factor, as a focal length changes, not by a difference."""
    near, far = before.translation[2], after.translation[2]
    distance = near * np.exp(np.clip(far / near - 1, -_MOST, _MOST))
    return replace(after, translation=np.append(after.translation[:2], distance))
