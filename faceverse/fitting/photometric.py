"""Photometric refinement: joint MAP estimate of pose, identity, expression, albedo and light, coarse to fine.

Light (spherical harmonics) and albedo are initialised by alternating least squares for the shape of the landmark stage.
Then Levenberg-Marquardt steps minimise the robust photometric term (`surface`), the landmark term (`solver`) and the
priors, for one photograph or several of one person: identity and albedo are shared, all else is per photograph.

Reference: Blanz and Vetter 2003, "Face recognition based on fitting a 3D morphable model".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from ..graphics.camera import Camera
from ..graphics.lighting import linear_from_srgb
from .damped_step import damped_step
from .losses import cauchy_weight
from .prior import IdentityPrior
from .solver import DAMPING, MAX_Z_M, LandmarkTerm
from .state import FaceState
from .surface import LIGHT_COEFFICIENTS, PhotometricResiduals, PhotometricTerm, SurfaceSamples

CROP_MARGIN = 1.30  # side of the square crop over the larger side of the landmarks' box
NOISE_UPDATE_STEPS = 3  # steps of a stage after which the noise levels are updated; then they stay fixed
REFERENCE_AMBIENT = 2.55  # first coefficient of the default light: unit of the prior on light
# Prior on the log of the ambient light: a standard deviation of about 1/8 with the stages' weight; mean as a share of
# REFERENCE_AMBIENT.
EXPOSURE_WEIGHT, EXPOSURE_MEAN = 1.0, 1.1
MIN_RELATIVE_AMBIENT = 0.1  # share of REFERENCE_AMBIENT; darker light is not normalised further
MAX_DAMPING_TRIES = 4  # steps with increasing damping before a stage ends


@dataclass(frozen=True)
class PhotometricTarget:
    """A photograph, cropped for a photometric stage.

    Args:
        crop: (S, S, 3) float32 sRGB in 0..1.
        inside: (S, S) bool, True where the crop shows the photograph, False beyond its edge.
        camera: of the crop.
        landmarks: the landmark term in pixels of the crop.
        expression: (E,) prior mean of the weights: those of the landmark stage.
    """

    crop: np.ndarray
    inside: np.ndarray
    camera: Camera
    landmarks: LandmarkTerm
    expression: np.ndarray


@dataclass(frozen=True)
class StageSettings:
    """Settings of one photometric stage.

    Args:
        name: in reports.
        size_px: side of the crop.
        iterations: Gauss-Newton steps at most.
        effective_samples: effective sample count, see `surface.PhotometricTerm`.
        landmarks: weight of the landmark term.
        light: weight of the prior on light.
        tolerance: relative decrease of the loss below which the stage ends.
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
    """Outcome of a stage.

    Args:
        states: one for each photograph.
        before, after: total loss at the final noise levels.
        terms: of the loss after the stage.
        history: total loss after each step at the noise levels of that step, so that it may jump where they change.
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
    x0, y0, x1, y1 = (float(x) for x in (*(centre - side / 2), *(centre + side / 2)))
    return x0, y0, x1, y1


def crop_photo(photo: np.ndarray, box: tuple[float, float, float, float], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Crop and resample a square of a photograph: (size, size, 3) uint8, and (size, size) bool where it has pixels."""
    x0, y0, x1, y1 = box
    height, width = photo.shape[:2]
    left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
    right, bottom = min(width, int(np.ceil(x1))), min(height, int(np.ceil(y1)))
    part = Image.fromarray(photo[top:bottom, left:right])
    scale = size / (x1 - x0)
    # Downsampling with an area filter first avoids aliasing.
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


def estimate_light_and_albedo(
    surface: SurfaceSamples, state: FaceState, target: PhotometricTarget, rounds: int = 3
) -> FaceState:
    """Estimate light and albedo for a given shape by alternating least squares on the visible samples' colours.

    Each round solves for light (ridge regression), then for albedo (MAP), then reweights the samples (Cauchy loss).
    """
    residuals = PhotometricTerm(surface, target.crop, target.inside, target.camera, 1.0).evaluate(state)
    chosen = np.flatnonzero((surface.weights > 0.5) & (residuals.weight > 0))
    if len(chosen) < 50:
        return state
    colour = linear_from_srgb(torch.from_numpy(residuals.observed[chosen, :3])).numpy()
    basis, mean, modes = residuals.basis[chosen], surface.albedo_mean[chosen], surface.albedo[chosen]
    light, albedo = state.light, state.albedo
    robust_weight = np.ones((len(chosen), 3))
    for _ in range(rounds):
        skin = np.maximum(mean + modes @ albedo, 0.01)
        light = np.stack(
            [_solve_light(basis * skin[:, c : c + 1], colour[:, c], robust_weight[:, c]) for c in range(3)], -1
        )
        shade = np.maximum(basis @ light, 0.05)
        albedo = solve_albedo(modes, colour / shade - mean, robust_weight * shade)
        residual = np.abs(skin * shade - colour).max(-1, keepdims=True)
        robust_weight = np.repeat(cauchy_weight(residual, 0.06), 3, axis=1)
    return replace(state, light=light, albedo=albedo)


def _solve_light(rows: np.ndarray, colour: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Ridge regression (9,) of rows (K, 9) @ light = colour (K,); the constant harmonic is hardly regularised."""
    damping = 0.004 * len(rows) * np.array([1e-4, 1, 1, 1, 4, 4, 4, 4, 4]) * (rows[:, 0] ** 2).mean()
    weighted = (rows * weight[:, None]).T
    return np.linalg.solve(weighted @ rows + np.diag(damping), weighted @ colour)


def solve_albedo(modes: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """MAP coefficients (A,) with a unit normal prior: modes (K, 3, A) @ coefficients = target (K, 3)."""
    effective_share = 300.0 / len(target)  # residuals of neighbouring vertices are correlated
    precision = effective_share / 0.05**2
    flat, precisions = modes.reshape(-1, modes.shape[2]), weight.reshape(-1) ** 2 * precision
    hessian = (flat.T * precisions) @ flat + np.eye(flat.shape[1])
    return np.linalg.solve(hessian, (flat.T * precisions) @ target.reshape(-1))


def light_prior_residuals(light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prior on light (9, 3), nearly white and mostly ambient: residuals (36,) and their Jacobian (36, 27).

    Chroma (27) and directional intensity (8) are relative to the ambient coefficient; an absolute prior would favour
    dim light with overly bright albedo. The last residual is the logarithm of the ambient light: cameras expose so that
    skin is bright, but not white.
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
    """Least-squares problem of several photographs with a shared identity and albedo.

    Args:
        surface: samples of the model.
        targets: one for each of P photographs.
        settings: of the stage.
        identity: prior of the person's identity.
    """

    def __init__(
        self,
        surface: SurfaceSamples,
        targets: list[PhotometricTarget],
        settings: StageSettings,
        identity: IdentityPrior,
    ):
        self.sizes, self.targets, self.settings, self.identity = surface.sizes, targets, settings, identity
        self.photometric_terms = [
            PhotometricTerm(surface, t.crop, t.inside, t.camera, settings.effective_samples) for t in targets
        ]  # fmt: skip

    def evaluate(self, states: list[FaceState]) -> list[PhotometricResiduals]:
        """Evaluate the colour residuals of all photographs."""
        return [term.evaluate(state) for term, state in zip(self.photometric_terms, states, strict=True)]

    def update_noise_levels(self, evaluated: list[PhotometricResiduals]) -> bool:
        """Update the noise level of each photograph from its residuals; return whether any changed."""
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
        """Gauss-Newton Hessian (K, K) and gradient (K,); for the order of the unknowns see `unknowns_of`.

        The logarithm of the cameras' common focal length (if it is fitted) comes last, without a prior.
        """
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
        """Normal equations of one photograph, in the order of `BlockSizes`, without priors on identity and albedo."""
        hessian, gradient = term.normal_equations(state, residuals, fit_focal)
        _, _, expression, _, light = self.sizes.blocks
        shape = np.append(np.arange(expression.stop), [self.sizes.total] * fit_focal).astype(np.int64)
        landmark_hessian, landmark_gradient = target.landmarks.normal_equations(state, fit_focal=fit_focal)
        hessian[np.ix_(shape, shape)] += self.settings.landmarks * landmark_hessian
        gradient[shape] += self.settings.landmarks * landmark_gradient
        precision = target.landmarks.lm.prior.refined_sigma**-2.0
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
        """Indices of one photograph's unknowns, in the order of `BlockSizes`, among those of the joint problem.

        The joint order is: identity, albedo, then rotation, translation, expression and light of each photograph.
        """
        person = self.sizes.identity + self.sizes.albedo
        own = person + number * self._per_photo + np.arange(self._per_photo)
        pose, expression, light = np.split(own, np.cumsum([6, self.sizes.expression]))
        identity, albedo = np.split(np.arange(person), [self.sizes.identity])
        return np.concatenate([pose, identity, expression, albedo, light])

    def step(
        self, states: list[FaceState], normal_equations: tuple[np.ndarray, np.ndarray], damping: float
    ) -> list[FaceState]:
        """States after one damped step within the bounds of the expressions."""
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
    """Minimise the joint loss by Levenberg-Marquardt until the tolerance or the iteration limit is reached.

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
