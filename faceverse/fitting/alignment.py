"""Exact alignment: lips, lids, brows, nose and jaw of a fitted head are brought onto those of the photograph.

The landmark term of the other stages marginalises the detector's correlated errors, so that these do not become a wrong
shape of the head; the head's features lie a millimetre or two beside the photograph's then. Here pose, expression
weights and the person's own deformation (`model.warp`) explain the landmarks as they were detected. The prior of the
deformation is a Gaussian process: smooth, rather symmetric than not, and without an opening of closed lips and lids,
which belongs to the expression. Nothing is known about depth from one photograph, so the deformation stays in the plane
of the image; several photographs of one person share it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..model.data import modes_at
from ..model.face_model import FaceModel
from ..model.warp import LID_EDGES, SCALES_M, WarpBasis, kernel, warp_basis
from .damped_step import damped_step
from .fit_input import FitInput
from .landmark_pairs import GROUPS
from .solver import LandmarkModel, LandmarkTerm, landmark_term
from .state import FaceState

_ITERATIONS = 3
_SYMMETRIC_SHARE = 0.75  # of the deformation's variance
# Standard deviations in metres of the landmarks of a frontal face, and MediaPipe's indices. Those of a turned face grow
# with the square of the detector's error there, because its share of what the fit leaves grows.
_LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
)  # fmt: skip
_BROWS = (46, 53, 52, 65, 55, 70, 63, 105, 66, 107, 276, 283, 282, 295, 285, 300, 293, 334, 296, 336)
_NOSE = (1, 2, 4, 5, 19, 94, 98, 97, 326, 327, 48, 278, 64, 294, 129, 358, 219, 439, 6, 197, 195, 168)
_OUTLINE = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
_VAGUE_M = 4e-3  # of other landmarks
_SIGMAS_M = (
    (0.7e-3, (*_LIPS, *LID_EDGES["eyeball_right"], *LID_EDGES["eyeball_left"])),
    (1.5e-3, (*_BROWS, *_NOSE)),
    (8e-3, _OUTLINE),  # slides along the surface as the head turns
)
_OPENING_SIGMA_M = {"inner lips": 1.5e-4, "lids": 2e-4}  # of the deformation's difference across a closed opening
_FRONTAL_ERROR_M = 1.8e-3  # median of the detector's standard deviations in frontal renderings
_EXPRESSION_SIGMA = 0.3  # of the weights around those of the photometric stages
_ROTATION_SIGMA, _SHIFT_SIGMA_M = 0.01, (0.01, 0.01, 0.002)  # radians, and metres across and along the view


@dataclass(frozen=True)
class Alignment:
    """Outcome of the alignment.

    Args:
        states: one for each photograph, with the same deformation.
        before, after: loss before the first step and after the last one.
        terms: of the loss after the last step.
        steps: number of steps.
    """

    states: list[FaceState]
    before: float
    after: float
    terms: dict[str, float]
    steps: int


def align(fit_inputs: list[FitInput], states: list[FaceState]) -> Alignment | None:
    """Align one person's head with their photographs.

    Args:
        fit_inputs, states: one for each photograph; all states have the same identity.
    Returns:
        The aligned states; None for a model without a deformation (`model.warp.warp_basis`).
    """
    basis = warp_basis(fit_inputs[0].model)
    if basis is None:
        return None
    problem = _Problem(basis, fit_inputs, states)
    before = sum(problem.terms(states).values())
    for _ in range(_ITERATIONS):
        states = problem.step(states)
    terms = problem.terms(states)
    return Alignment(states, before, sum(terms.values()), terms, _ITERATIONS)


class _Problem:
    """Least-squares problem of the warp, shared by all photographs, and the pose and expression in each."""

    def __init__(self, basis: WarpBasis, fit_inputs: list[FitInput], states: list[FaceState]):
        model = fit_inputs[0].model
        self.shapes = [_LandmarkShape.of(fit_input, basis, states[0].identity) for fit_input in fit_inputs]
        self.precision = _warp_precision(basis, _at_landmarks(model, basis.weights))
        self.fit_inputs, self.fitted, self.size = fit_inputs, states, basis.controls.size
        self.pose_precision = np.array([_ROTATION_SIGMA] * 3 + list(_SHIFT_SIGMA_M)) ** -2.0

    def terms(self, states: list[FaceState]) -> dict[str, float]:
        """Terms of the loss, each half a weighted sum of squares."""
        warp = _flat_warp(states[0], self.size)
        total = {"landmarks": 0.0, "expression prior": 0.0, "pose prior": 0.0}
        for shape, fit_input, state, fitted in zip(self.shapes, self.fit_inputs, states, self.fitted, strict=True):
            term, bent = shape.term(fit_input, state)
            change, weights = _pose_change(state, fitted), state.expression - fitted.expression
            total["landmarks"] += term.loss(bent)
            total["expression prior"] += 0.5 * float(weights @ weights) / _EXPRESSION_SIGMA**2
            total["pose prior"] += 0.5 * float(self.pose_precision @ change**2)
        return total | {"warp prior": 0.5 * float(warp @ self.precision @ warp)}

    def step(self, states: list[FaceState]) -> list[FaceState]:
        """One Gauss-Newton step within the bounds of the expressions."""
        count = len(states[0].expression)
        own = 6 + count
        total = self.size + own * len(states)
        hessian, gradient, bounds, rows = np.zeros((total, total)), np.zeros(total), [], []
        warp, shared = _flat_warp(states[0], self.size), np.arange(self.size)
        hessian[: self.size, : self.size] = self.precision
        gradient[: self.size] = self.precision @ warp
        known = zip(self.shapes, self.fit_inputs, states, self.fitted, strict=True)
        for number, (shape, fit_input, state, fitted) in enumerate(known):
            places = self.size + number * own + np.arange(own)
            pose, weights = places[:6], places[6:]
            term, bent = shape.term(fit_input, state)
            part, slope = term.normal_equations(bent)
            order = np.concatenate([pose, shared, weights])
            hessian[np.ix_(order, order)] += part
            gradient[order] += slope
            hessian[pose, pose] += self.pose_precision
            gradient[pose] += self.pose_precision * _pose_change(state, fitted)
            hessian[weights, weights] += _EXPRESSION_SIGMA**-2
            gradient[weights] += (state.expression - fitted.expression) * _EXPRESSION_SIGMA**-2
            bounds.append(shape.limits - state.expression[:, None])
            rows.append(weights)
        delta = damped_step(hessian, gradient, 0.0, np.concatenate(rows), np.concatenate(bounds))
        moved = (warp + delta[: self.size]).reshape(-1, 3)
        steps = delta[self.size :].reshape(len(states), own)
        return [
            replace(state.updated(change[:6], expression=change[6:], limits=shape.limits), warp=moved)
            for shape, state, change in zip(self.shapes, states, steps, strict=True)
        ]


@dataclass(frozen=True)
class _LandmarkShape:
    """The landmarks of one person: linear in the warp, and in the expression but for correctives.

    Args:
        lm: landmark model whose "identity" is the warp, see `_LandmarkShape.term`.
        corrective: (C, L, 3) metres.
        pairs: (C, 2) expressions of each corrective.
        gain: (E,) size of each expression.
    """

    lm: LandmarkModel
    corrective: np.ndarray
    pairs: np.ndarray
    gain: np.ndarray

    @classmethod
    def of(cls, fit_input: FitInput, basis: WarpBasis, identity: np.ndarray) -> _LandmarkShape:
        """The shape of a person with coefficients (I,) in a photograph."""
        model, lm = fit_input.model, fit_input.landmarks.with_identity(identity)
        weights = _at_landmarks(model, basis.weights)
        modes = np.einsum("lk,ij->kilj", weights, np.eye(3)).reshape(-1, len(weights), 3)
        sigma = np.full(len(weights), _VAGUE_M)
        for value, members in _SIGMAS_M:
            sigma[list(members)] = value
        error = np.median(np.sqrt(lm.sigma**2 + (lm.error_modes**2).sum((0, 2)) / 2))
        sigma *= max(1.0, (error / _FRONTAL_ERROR_M) ** 2)
        lm = replace(lm, identity=modes, sigma=sigma, error_modes=lm.error_modes[:0])
        pairs, correctives = model.data.corrective_pairs, model.data.corrective_modes
        if pairs is None or correctives is None:
            return cls(lm, np.zeros((0, len(weights), 3)), np.zeros((0, 2), np.int64), model.gain_of(identity))
        used, place = np.unique(model.faces[model.fit_landmarks.triangle], return_inverse=True)
        corners = modes_at(correctives, used)[:, place.reshape(-1, 3)].astype(np.float64)
        found = (corners * model.fit_landmarks.barycentric[..., None]).sum(2)
        return cls(lm, found, pairs, model.gain_of(identity).astype(np.float64))

    @property
    def limits(self) -> np.ndarray:
        """(E, 2) bounds of the expression weights."""
        return self.lm.prior.limits

    def term(self, fit_input: FitInput, state: FaceState) -> tuple[LandmarkTerm, FaceState]:
        """The landmark term with correctives linearised about a state, and the state with the warp for identity."""
        weights = np.maximum(state.expression, 0)
        size = np.sqrt(self.gain[self.pairs].prod(1))
        first, second = self.pairs.T
        change = np.zeros_like(self.lm.expression)
        np.add.at(change, first, (weights[second] * size)[:, None, None] * self.corrective)
        np.add.at(change, second, (weights[first] * size)[:, None, None] * self.corrective)
        present = np.tensordot(weights[first] * weights[second] * size, self.corrective, 1)
        mean = self.lm.mean + present - np.tensordot(state.expression, change, 1)
        lm = replace(self.lm, mean=mean, expression=self.lm.expression + change)
        observed = fit_input.face.landmarks_px.astype(np.float64)
        bent = replace(state, identity=_flat_warp(state, len(lm.identity)))
        return landmark_term(lm, observed, fit_input.camera, state.rotation, state.translation), bent


def _flat_warp(state: FaceState, size: int) -> np.ndarray:
    return state.warp.reshape(-1) if state.warp.size else np.zeros(size)


def _pose_change(state: FaceState, fitted: FaceState) -> np.ndarray:
    """(6,) small rotation and shift of a state from another one, as in `FaceState.updated`."""
    turn = state.rotation @ fitted.rotation.T
    axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2
    return np.concatenate([axis, state.translation - fitted.translation])


def _at_landmarks(model: FaceModel, values: np.ndarray) -> np.ndarray:
    """Values (L, ...) at the landmarks from those at the vertices (V, ...)."""
    marks = model.fit_landmarks
    corners = values[model.faces[marks.triangle]].astype(np.float64)
    return (corners * marks.barycentric[..., None]).sum(1)


def _warp_precision(basis: WarpBasis, weights: np.ndarray) -> np.ndarray:
    """Inverse covariance (3K, 3K) of the control points' displacements.

    Args:
        weights: (L, K) of the basis at the landmarks.
    """
    mirror = np.array([-1.0, 1.0, 1.0])
    same, across = kernel(basis.controls, basis.controls), kernel(basis.controls, basis.controls * mirror)
    across = (across + across.T) / 2
    covariance = np.kron(same, np.eye(3)) + (2 * _SYMMETRIC_SHARE - 1) * np.kron(across, np.diag(mirror))
    smallest = min(sigma for sigma, _ in SCALES_M)
    precision = np.linalg.inv(covariance + (1e-3 * smallest) ** 2 * np.eye(len(covariance)))
    for name, sigma in _OPENING_SIGMA_M.items():
        first, second = np.array(GROUPS[name][1]).T
        differences = np.kron(weights[first] - weights[second], np.eye(3)) / (sigma * len(first) ** 0.5)
        precision += differences.T @ differences
    return precision
