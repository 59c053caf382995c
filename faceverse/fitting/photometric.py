"""Photometric refinement: pose, shape, expression, skin and light move until the head looks like the photographs.

Damped Gauss-Newton steps on the colours of the visible skin (`surface`), the landmarks and the priors, coarse to fine,
for one photograph or several of one person at once: identity and albedo are shared, all else is each photograph's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from ..graphics.camera import Camera
from ..graphics.lighting import linear_from_srgb
from .losses import cauchy_weight
from .prior import IdentityPrior
from .solver import DAMPING, MAX_Z_M, LandmarkTerm, damped_step
from .state import FaceState
from .surface import LIGHT_COEFFICIENTS, PhotometricResiduals, PhotometricTerm, SurfaceSamples

CROP_MARGIN = 1.30  # side of the compared square over the larger side of the landmarks' box
NOISE_UPDATE_STEPS = 3  # after so many steps of a stage, what a photograph's colours are trusted with stays as it is
REFERENCE_AMBIENT = 2.55  # first coefficient of the default light: the prior is in its measure
EXPOSURE_WEIGHT, EXPOSURE_MEAN = 1.0, 1.1  # deviation about an eighth with the stages' weight; share of REFERENCE_AMBIENT
MIN_RELATIVE_AMBIENT = 0.1  # of that, below which no measure is taken
MAX_DAMPING_TRIES = 4  # with more and more damping, before a stage gives up


@dataclass(frozen=True)
class PhotometricTarget:
    """A photograph as the photometric stage sees it.

    Args:
        crop: (S, S, 3) float32 sRGB in 0..1.
        inside: (S, S) bool, True where the crop shows the photograph, False beyond its edge.
        camera: of the crop.
        landmarks: the points in the crop.
        expression: (E,) weights to stay close to, from the landmark stage.
    """

    crop: np.ndarray
    inside: np.ndarray
    camera: Camera
    landmarks: LandmarkTerm
    expression: np.ndarray


@dataclass(frozen=True)
class StageSettings:
    """One run of the solver.

    Args:
        name: for people.
        size_px: side of the crop that is compared.
        iterations: Gauss-Newton steps at most.
        independent: of samples, see `surface.PhotometricTerm`.
        landmarks: weight of the landmark term.
        light: weight of the prior on light.
        tolerance: the stage ends when the loss falls by less than this share of itself.
    """

    name: str
    size_px: int
    iterations: int
    effective_samples: float = 2000.0
    landmarks: float = 0.5
    light: float = 60.0
    tolerance: float = 1e-3


STAGES = (
    StageSettings("photometric coarse", 96, 6),
    StageSettings("photometric fine", 192, 6),
)


@dataclass(frozen=True)
class RefinementResult:
    """States of the photographs after a stage; total loss before and after and its terms, as the photographs' colours
    are trusted at the end; and the total per step as they were trusted then (so the history may step).
    """

    states: list[FaceState]
    before: float
    after: float
    terms: dict[str, float]
    history: tuple[float, ...]


def crop_box(landmarks_px: np.ndarray) -> tuple[float, float, float, float]:
    """Square (x0, y0, x1, y1) around the landmarks, with room for the forehead."""
    low, high = landmarks_px.min(0), landmarks_px.max(0)
    centre, side = (low + high) / 2, float((high - low).max()) * CROP_MARGIN
    return tuple(float(x) for x in (*(centre - side / 2), *(centre + side / 2)))


def crop_photo(photo: np.ndarray, box: tuple[float, float, float, float], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Resampled square of a photograph: (size, size, 3) uint8, and (size, size) bool where the picture has pixels."""
    x0, y0, x1, y1 = box
    height, width = photo.shape[:2]
    left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
    right, bottom = min(width, int(np.ceil(x1))), min(height, int(np.ceil(y1)))
    part = Image.fromarray(photo[top:bottom, left:right])
    scale = size / (x1 - x0)
    # Shrinking with an area filter first keeps fine texture from turning into noise.
    shrink = min(1.0, scale)
    small = (max(1, round(part.width * shrink)), max(1, round(part.height * shrink)))
    part = part.resize(small, Image.Resampling.BOX) if small != part.size else part
    fx, fy = small[0] / (right - left), small[1] / (bottom - top)
    matrix = ((x1 - x0) / size * fx, 0, (x0 - left) * fx, 0, (y1 - y0) / size * fy, (y0 - top) * fy)
    pixels = part.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    centre = (np.arange(size) + 0.5) / scale
    across = (centre + x0 >= 0) & (centre + x0 < width)
    down = (centre + y0 >= 0) & (centre + y0 < height)
    return np.asarray(pixels), down[:, None] & across[None]


def estimate_light_and_albedo(surface: SurfaceSamples, state: FaceState, target: PhotometricTarget, rounds: int = 3) -> FaceState:
    """Light and albedo for a given shape: alternating linear least squares on the visible samples' colours."""
    residuals = PhotometricTerm(surface, target.crop, target.inside, target.camera, 1.0).evaluate(state)
    chosen = np.flatnonzero((surface.weights > 0.5) & (residuals.weight > 0))
    if len(chosen) < 50:
        return state
    colour = linear_from_srgb(torch.from_numpy(residuals.observed[chosen, :3])).numpy()
    basis, mean, modes = residuals.basis[chosen], surface.albedo_mean[chosen], surface.albedo[chosen]
    light, albedo = state.light, state.albedo
    trust = np.ones((len(chosen), 3))
    for _ in range(rounds):
        skin = np.maximum(mean + modes @ albedo, 0.01)
        light = np.stack([_solve_light(basis * skin[:, c : c + 1], colour[:, c], trust[:, c]) for c in range(3)], -1)
        shade = np.maximum(basis @ light, 0.05)
        albedo = _solve_albedo(modes, colour / shade - mean, trust * shade)
        residual = np.abs(skin * shade - colour).max(-1, keepdims=True)
        trust = np.repeat(cauchy_weight(residual, 0.06), 3, axis=1)
    return replace(state, light=light, albedo=albedo)


def _solve_light(rows: np.ndarray, colour: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Ridge solution (9,) of rows (K, 9) @ light = colour (K,); directional light is damped, the constant is free."""
    damping = 0.004 * len(rows) * np.array([1e-4, 1, 1, 1, 4, 4, 4, 4, 4]) * (rows[:, 0] ** 2).mean()
    weighted = (rows * trust[:, None]).T
    return np.linalg.solve(weighted @ rows + np.diag(damping), weighted @ colour)


def _solve_albedo(modes: np.ndarray, wanted: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """MAP coefficients (A,) with unit prior for modes (K, 3, A) to reproduce wanted (K, 3)."""
    independent = 300.0 / len(wanted)  # neighbouring vertices repeat each other
    precision = independent / 0.05**2
    flat, weight = modes.reshape(-1, modes.shape[2]), trust.reshape(-1) ** 2 * precision
    left = (flat.T * weight) @ flat + np.eye(flat.shape[1])
    return np.linalg.solve(left, (flat.T * weight) @ wanted.reshape(-1))


def light_prior_residuals(light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The prior of light as residuals (36,) and their Jacobian (36, 27): light (9, 3) is nearly white and mostly even.

    That is relative to the even part: an absolute prior would be cheapest in the dark, with skin as bright as snow. How
    strong light is comes last, as a logarithm: exposure aims at skin and white walls that are bright but not white.
    """
    grey, even = np.full((1, 3), 1 / 3), np.zeros(LIGHT_COEFFICIENTS)
    even[:3] = 1 / (3 * REFERENCE_AMBIENT)
    chroma = 2.0 * np.kron(np.eye(9), np.eye(3) - 1 / 3)
    directed = 0.5 * np.kron(np.eye(9)[1:], grey)
    rows, values = np.concatenate([chroma, directed]), light.reshape(-1)
    level = even @ values
    if level < MIN_RELATIVE_AMBIENT:
        level, even = MIN_RELATIVE_AMBIENT, np.zeros(LIGHT_COEFFICIENTS)
    residual = rows @ values / level
    jacobian = rows / level - np.outer(residual, even) / level
    strength = EXPOSURE_WEIGHT * np.log(level / EXPOSURE_MEAN)
    return np.append(residual, strength), np.vstack([jacobian, EXPOSURE_WEIGHT * even / level])


class Refinement:
    """The loss of several photographs' states over one identity and one albedo.

    Args:
        surface: of the model.
        targets: one for each of P photographs.
        settings: weights.
        identity: what is expected of the person.
    """

    def __init__(self, surface: SurfaceSamples, targets: list[PhotometricTarget], settings: StageSettings, identity: IdentityPrior):
        self.sizes, self.targets, self.settings, self.identity = surface.sizes, targets, settings, identity
        self.photometric_terms = [
            PhotometricTerm(surface, t.crop, t.inside, t.camera, settings.effective_samples) for t in targets
        ]  # fmt: skip

    def evaluate(self, states: list[FaceState]) -> list[PhotometricResiduals]:
        """All photographs' colours."""
        return [term.evaluate(state) for term, state in zip(self.photometric_terms, states, strict=True)]

    def update_noise_levels(self, evaluated: list[PhotometricResiduals]) -> bool:
        """Sets how far each photograph is trusted by what is seen at present; whether anything changed."""
        before = [term.sigma for term in self.photometric_terms]
        for term, residuals in zip(self.photometric_terms, evaluated, strict=True):
            term.update_noise_level(residuals)
        return before != [term.sigma for term in self.photometric_terms]

    def terms(
        self,
        states: list[FaceState],
        evaluated: list[PhotometricResiduals],
        weighted_by: list[PhotometricResiduals] | None = None,
    ) -> dict[str, float]:
        """Weighted loss terms by name, each half a sum of squares.

        Args:
            evaluated: residuals of the states.
            weighted_by: residuals whose weights count, see `PhotometricTerm.loss`; by default `evaluated` themselves.
        """
        terms = dict.fromkeys(("photometric", "landmarks", "expression prior", "light prior"), 0.0)
        known = zip(self.targets, self.photometric_terms, states, evaluated, weighted_by or evaluated, strict=True)
        for target, term, state, residuals, before in known:
            off = (state.expression - target.expression) / target.landmarks.lm.prior.refined_sigma
            light, _ = light_prior_residuals(state.light)
            terms["photometric"] += term.loss(residuals, before.weight)
            terms["landmarks"] += self.settings.landmarks * target.landmarks.loss(state)
            terms["expression prior"] += 0.5 * float((off**2).sum())
            terms["light prior"] += 0.5 * self.settings.light * float(light @ light)
        terms["identity prior"] = self.identity.loss(states[0].identity)
        terms["albedo prior"] = 0.5 * float((states[0].albedo ** 2).sum())
        return terms

    def normal_equations(
        self, states: list[FaceState], evaluated: list[PhotometricResiduals], fit_focal: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gauss-Newton Hessian (K, K) and gradient (K,); for the places of the unknowns see `unknowns_of`. The logarithm of
        the cameras' common focal length (if it is fitted) stands behind them, without a prior."""
        count = self.sizes.identity + self.sizes.albedo + len(states) * self._per_photo + fit_focal
        hessian, gradient = np.zeros((count, count)), np.zeros(count)
        for number, known in enumerate(zip(self.targets, self.photometric_terms, states, evaluated, strict=True)):
            places = np.append(self.unknowns_of(number), [count - 1] * fit_focal).astype(np.int64)
            own_hessian, own_gradient = self._photo_equations(*known, fit_focal)
            hessian[np.ix_(places, places)] += own_hessian
            gradient[places] += own_gradient
        person = slice(0, self.sizes.identity)
        hessian[person, person] += self.identity.precision
        gradient[person] += self.identity.precision @ (states[0].identity - self.identity.mean)
        skin = np.arange(self.sizes.identity, self.sizes.identity + self.sizes.albedo)
        hessian[skin, skin] += 1.0
        gradient[skin] += states[0].albedo
        return hessian, gradient

    def _photo_equations(
        self,
        target: PhotometricTarget,
        term: PhotometricTerm,
        state: FaceState,
        residuals: PhotometricResiduals,
        fit_focal: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What one photograph adds, in the order of `BlockSizes`, without the priors of the person."""
        hessian, gradient = term.normal_equations(state, residuals, fit_focal)
        _, _, expression, _, light = self.sizes.blocks
        shape = np.append(np.arange(expression.stop), [self.sizes.total] * fit_focal).astype(np.int64)
        landmark_hessian, landmark_gradient = target.landmarks.normal_equations(state, fit_focal=fit_focal)
        hessian[np.ix_(shape, shape)] += self.settings.landmarks * landmark_hessian
        gradient[shape] += self.settings.landmarks * landmark_gradient
        precision = target.landmarks.lm.prior.refined_sigma ** -2.0
        hessian[expression, expression] += np.diag(precision)
        gradient[expression] += precision * (state.expression - target.expression)
        residual, jacobian = light_prior_residuals(state.light)
        hessian[light, light] += self.settings.light * jacobian.T @ jacobian
        gradient[light] += self.settings.light * jacobian.T @ residual
        return hessian, gradient

    @property
    def _per_photo(self) -> int:
        return 6 + self.sizes.expression + LIGHT_COEFFICIENTS

    def unknowns_of(self, number: int) -> np.ndarray:
        """Where one photograph's unknowns, in the order of `BlockSizes`, stand among those of all: the person's identity and
        albedo first, then turn, shift, expression and light of each photograph."""
        person = self.sizes.identity + self.sizes.albedo
        own = person + number * self._per_photo + np.arange(self._per_photo)
        pose, expression, light = np.split(own, np.cumsum([6, self.sizes.expression]))
        identity, albedo = np.split(np.arange(person), [self.sizes.identity])
        return np.concatenate([pose, identity, expression, albedo, light])

    def step(self, states: list[FaceState], normal_equations: tuple[np.ndarray, np.ndarray], damping: float) -> list[FaceState]:
        """All states after one damped step, expressions within their limits."""
        pose, identity, expression, albedo, light = self.sizes.blocks
        places = [self.unknowns_of(number) for number in range(len(states))]
        limits = [t.landmarks.lm.prior.limits for t in self.targets]
        bounds = [limit - state.expression[:, None] for limit, state in zip(limits, states, strict=True)]
        rows = np.concatenate([own[expression] for own in places])
        delta = damped_step(*normal_equations, damping, rows, np.concatenate(bounds))
        moved = []
        for state, own, limit in zip(states, places, limits, strict=True):
            change = delta[own]
            moved.append(
                state.updated(
                    change[pose],
                    identity=change[identity],
                    expression=change[expression],
                    albedo=change[albedo],
                    light=change[light].reshape(9, 3),
                    limits=limit,
                )
            )
        return moved


def refine(
    problem: Refinement, states: list[FaceState], on_step: Callable[[float], None] = lambda done: None
) -> RefinementResult:
    """Gauss-Newton with Levenberg and Marquardt's damping until nothing improves.

    Args:
        states: one for each photograph, with the same identity and albedo.
        on_step: called with the fraction done after each step.
    """
    first, settings, damping = states, problem.settings, DAMPING
    evaluated = first_evaluated = problem.evaluate(states)
    problem.update_noise_levels(evaluated)
    loss = sum(problem.terms(states, evaluated).values())
    history = [loss]
    for number in range(settings.iterations):
        equations = problem.normal_equations(states, evaluated)
        for _ in range(MAX_DAMPING_TRIES):
            moved = problem.step(states, equations, damping)
            if all(state.translation[2] < MAX_Z_M for state in moved):
                seen = problem.evaluate(moved)
                gain = loss - sum(problem.terms(moved, seen, evaluated).values())
                if gain > 0:
                    break
            damping = max(10 * damping, 1e-2)
        else:
            break
        history.append(loss - gain)
        on_step((number + 1) / settings.iterations)
        states, evaluated, damping = moved, seen, max(damping / 10, 1e-4)
        measured = number < NOISE_UPDATE_STEPS and problem.update_noise_levels(evaluated)
        if not measured and gain < settings.tolerance * loss:
            break
        loss = sum(problem.terms(states, evaluated).values())
    on_step(1.0)
    terms = problem.terms(states, evaluated)
    before = sum(problem.terms(first, first_evaluated).values())
    return RefinementResult(states, before, sum(terms.values()), terms, tuple(history))
