"""Landmark fitting: a damped Gauss-Newton solve for pose, identity and expression, in NumPy.

A few hundred landmarks make a small least-squares problem with a closed-form Jacobian, so this takes milliseconds.
Expression weights are kept within their limits by an active set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..camera import Camera
from ..model import FaceModel, Landmarks, expression_gain
from .prior import ExpressionPrior, expression_prior

# What is left after the detector's habits still repeats in neighbours: more points count as this many independent ones.
INDEPENDENT_POINTS = 150.0
SMALLEST_SIGMA_M = 4e-4
POSE_STEP_LIMIT = 0.5  # radians per iteration
DAMPING = 1e-3


@dataclass(frozen=True)
class LandmarkModel:
    """The face model on its landmarks, as NumPy float64.

    Args:
        mean (L, 3), identity (I, L, 3), expression (E, L, 3): metres.
        normals: (L, 3) of the mean head.
        sigma: (L,) metres, deviation of single points.
        habits: (K, L, 2) metres, ways in which the detector errs with many points at once; K may be 0.
        prior: of the expression weights.
        detected: (L,) which of the detector's points each one is; None: all of them, in order.
        gain: (E, I) change of each expression's size per unit of identity, or None, see `FaceModel`.
    """

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    normals: np.ndarray
    sigma: np.ndarray
    habits: np.ndarray
    prior: ExpressionPrior
    detected: np.ndarray | None = None
    gain: np.ndarray | None = None

    def found(self, landmarks_px: np.ndarray) -> np.ndarray:
        """Those (L, 2) of the detector's points (478, 2) that the model knows."""
        return landmarks_px if self.detected is None else landmarks_px[self.detected]

    def expression_of(self, identity: np.ndarray) -> np.ndarray:
        """The expression modes (E, L, 3) on the head with coefficients (I,)."""
        if self.gain is None:
            return self.expression
        gain = expression_gain(torch.from_numpy(self.gain), torch.from_numpy(identity[None])).numpy()[0]
        return self.expression * gain[:, None, None]

    def points(self, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """Head-space points (L, 3): identity (I,), expression (E,)."""
        shape = self.mean + np.tensordot(identity, self.identity, axes=1)
        return shape + np.tensordot(expression, self.expression_of(identity), axes=1)

    def of_person(self, identity: np.ndarray) -> LandmarkModel:
        """The model of one person (I,): the identity in the mean, no modes of it, expressions of that head's size."""
        identity = np.asarray(identity, np.float64)
        shape = self.mean + np.tensordot(identity, self.identity, axes=1)
        expression = self.expression_of(identity)
        return replace(self, mean=shape, identity=self.identity[:0], expression=expression, gain=None)


@dataclass(frozen=True)
class LandmarkSolution:
    """Pose, identity and expression that explain the landmarks.

    Args:
        rotation: (3, 3); translation: (3,) metres; identity: (I,); expression: (E,).
        history: half the weighted sum of squares after each iteration, the start first.
        landmark_loss, prior_loss: its two parts at the end.
        hessian: (K, K) curvature at the end, in turn (3), shift (3), identity (if it was fitted) and expression.
    """

    rotation: np.ndarray
    translation: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    history: tuple[float, ...]
    landmark_loss: float = 0.0
    prior_loss: float = 0.0
    hessian: np.ndarray | None = None


def landmark_model(model: FaceModel, landmarks: Landmarks) -> LandmarkModel:
    """Cuts the model down to its landmarks."""
    bases = model.landmark_bases(landmarks)
    corners = model.mean_vertices[model.faces[landmarks.triangle]].astype(np.float64)
    habits = np.zeros((0, len(landmarks.triangle), 2)) if landmarks.habits is None else landmarks.habits
    own = landmarks.sigma.astype(np.float64) ** 2 - (habits.astype(np.float64) ** 2).sum((0, 2)) / 2
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return LandmarkModel(
        *(t.numpy(force=True).astype(np.float64) for t in (bases.mean, bases.identity, bases.expression)),
        normals=normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12),
        sigma=np.sqrt(np.maximum(own, SMALLEST_SIGMA_M**2)),
        habits=habits.astype(np.float64),
        prior=expression_prior(model),
        detected=landmarks.detected,
        gain=None if bases.gain is None else bases.gain.numpy(force=True).astype(np.float64),
    )


def project_points(points: np.ndarray, rotation: np.ndarray, translation: np.ndarray, camera: Camera) -> np.ndarray:
    """Head-space points (L, 3) to pixels (L, 2)."""
    cam = points @ rotation.T + translation
    scale = camera.focal_px / -cam[:, 2]
    cx, cy = camera.principal_point_px
    return np.stack([cx + scale * cam[:, 0], cy - scale * cam[:, 1]], axis=1)


def point_weights(lm: LandmarkModel, rotation: np.ndarray, depth_m: float, focal_px: float) -> np.ndarray:
    """(L,) 1 / px: the inverse deviation of each point; what faces away counts little, because there it is guessed."""
    facing = (lm.normals @ rotation.T)[:, 2]
    visible = np.clip((facing + 0.15) / 0.45, 0.03, 1.0)
    return np.sqrt(min(INDEPENDENT_POINTS / len(lm.sigma), 1.0)) * visible * depth_m / (lm.sigma * focal_px)


def habit_factor(lm: LandmarkModel, weight: np.ndarray, pixels_per_metre: float) -> np.ndarray:
    """Factor B (2L, K) of what the detector's habits explain away of weighted residuals r: the loss is r.r - |B^T r|^2.

    That is the landmark term after integrating over the habits' unit-variance coefficients (Woodbury's identity).
    """
    scaled = lm.habits * np.array([1.0, -1.0]) * (pixels_per_metre * weight[None, :, None])
    columns = scaled.reshape(len(lm.habits), 2 * len(weight)).T
    left = np.linalg.cholesky(np.eye(columns.shape[1]) + columns.T @ columns)
    return np.linalg.solve(left, columns.T).T


def initial_pose(points: np.ndarray, observed_px: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and translation (3,) from a weak-perspective fit of points (L, 3) to pixels (L, 2).

    Reference: DeMenthon and Davis 1995, "Model-based object pose in 25 lines of code".
    """
    centre, target = points.mean(0), observed_px.mean(0)
    affine, *_ = np.linalg.lstsq(points - centre, (observed_px - target) * (1.0, -1.0), rcond=None)
    rows = affine.T
    scale = np.sqrt(np.linalg.norm(rows[0]) * np.linalg.norm(rows[1]))
    u, _, vt = np.linalg.svd(np.stack([rows[0], rows[1], np.cross(rows[0], rows[1]) / scale]) / scale)
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    depth = camera.focal_px / scale
    cx, cy = camera.principal_point_px
    place = np.array([(target[0] - cx) * depth / camera.focal_px, (cy - target[1]) * depth / camera.focal_px, -depth])
    return rotation, place - rotation @ centre


def solve_landmarks(
    lm: LandmarkModel,
    observed_px: np.ndarray,
    camera: Camera,
    expected: np.ndarray,
    *,
    start: LandmarkSolution | None = None,
    fit_identity: bool = True,
    iterations: int = 12,
) -> LandmarkSolution:
    """Minimises landmark distance + identity prior + distance of the expression to its prior.

    Args:
        lm: the model on its landmarks.
        observed_px: (L, 2) found in the picture, see `LandmarkModel.found`.
        camera: of the picture.
        expected: (E,) weights to expect, see `ExpressionPrior.mean`.
        start: solution to start from (video); by default the mean head in a weak-perspective pose.
        fit_identity: False keeps the identity of `start`.
        iterations: Gauss-Newton steps at most; stops when the loss falls by less than 1e-4 of itself.
    """
    if start is None:
        points = lm.mean + np.tensordot(expected, lm.expression, axes=1)
        rotation, translation = initial_pose(points, observed_px, camera)
        start = LandmarkSolution(rotation, translation, np.zeros(len(lm.identity)), expected.copy(), ())
    problem = _Problem(lm, np.asarray(observed_px, np.float64), camera, expected, fit_identity)
    state, damping = start, DAMPING
    loss = problem.loss(state)
    history = [loss]
    for _ in range(iterations):
        candidate = problem.step(state, damping)
        candidate_loss = problem.loss(candidate)
        if candidate_loss > loss:
            damping *= 10
            if damping > 1e3:
                break
            continue
        gain, state, loss, damping = loss - candidate_loss, candidate, candidate_loss, max(damping / 10, 1e-6)
        history.append(loss)
        if gain < 1e-4 * loss:
            break
    landmark, prior = problem.terms(state)
    hessian, _ = problem.normal_equations(state)
    return replace(state, history=tuple(history), landmark_loss=landmark, prior_loss=prior, hessian=hessian)


class _Problem:
    """Residuals and Jacobian of the landmark fit."""

    def __init__(self, lm: LandmarkModel, observed: np.ndarray, camera: Camera, expected: np.ndarray, identity: bool):
        self.lm, self.observed, self.camera, self.expected, self.fit_identity = lm, observed, camera, expected, identity
        self.expression_weight = 1 / lm.prior.sigma

    def points(self, state: LandmarkSolution) -> np.ndarray:
        return self.lm.points(state.identity, state.expression)

    def weights(self, state: LandmarkSolution) -> np.ndarray:
        """(L,) per pixel, see `point_weights`."""
        return point_weights(self.lm, state.rotation, max(-state.translation[2], 1e-3), self.camera.focal_px)

    def factor(self, state: LandmarkSolution) -> np.ndarray:
        """(2L, K), see `habit_factor`."""
        return habit_factor(self.lm, self.weights(state), self.camera.focal_px / max(-state.translation[2], 1e-3))

    def terms(self, state: LandmarkSolution) -> tuple[float, float]:
        """Landmark loss and prior loss."""
        projected = project_points(self.points(state), state.rotation, state.translation, self.camera)
        residual = ((projected - self.observed) * self.weights(state)[:, None]).reshape(-1)
        landmarks = (residual**2).sum() - ((self.factor(state).T @ residual) ** 2).sum()
        prior = (state.identity**2).sum() + (((state.expression - self.expected) * self.expression_weight) ** 2).sum()
        return 0.5 * float(landmarks), 0.5 * float(prior)

    def loss(self, state: LandmarkSolution) -> float:
        """Half the weighted sum of squares; infinite when the head would lie behind the camera."""
        if not np.isfinite(state.translation).all() or state.translation[2] > -0.05:
            return float("inf")
        return sum(self.terms(state))

    def normal_equations(self, state: LandmarkSolution) -> tuple[np.ndarray, np.ndarray]:
        """Hessian (K, K) and gradient (K,) of the loss in turn, shift, identity (if it is fitted) and expression."""
        jacobian, residual = self._jacobian(state)
        factor = self.factor(state)
        explained = factor.T @ jacobian
        hessian = jacobian.T @ jacobian - explained.T @ explained
        gradient = jacobian.T @ residual - explained.T @ (factor.T @ residual)
        identity_count = len(state.identity) if self.fit_identity else 0
        first = 6 + identity_count
        diagonal = np.einsum("ii->i", hessian)
        diagonal[6:first] += 1.0
        diagonal[first:] += self.expression_weight**2
        gradient[6:first] += state.identity[:identity_count]
        gradient[first:] += (state.expression - self.expected) * self.expression_weight**2
        return hessian, gradient

    def step(self, state: LandmarkSolution, damping: float) -> LandmarkSolution:
        """One damped Gauss-Newton step with the expression held within its limits."""
        hessian, gradient = self.normal_equations(state)
        np.einsum("ii->i", hessian)[...] *= 1 + damping
        first = len(gradient) - len(state.expression)
        delta = self._solve_in_box(hessian, gradient, state.expression, first)
        turn = delta[:3] * min(1.0, POSE_STEP_LIMIT / max(np.linalg.norm(delta[:3]), 1e-12))
        identity = state.identity + delta[6:first] if self.fit_identity else state.identity
        return LandmarkSolution(
            _rotation(turn) @ state.rotation,
            state.translation + delta[3:6],
            identity,
            self.lm.prior.clipped(state.expression + delta[first:]),
            (),
        )

    def _solve_in_box(
        self, hessian: np.ndarray, gradient: np.ndarray, expression: np.ndarray, first: int
    ) -> np.ndarray:
        """Newton step; weights that would leave their limits are moved to the border and the rest is solved again."""
        low, high = self.lm.prior.limits.T
        delta = np.zeros(len(gradient))
        free = np.ones(len(gradient), bool)
        for _ in range(4):
            fixed = ~free
            rhs = -gradient[free] - hessian[np.ix_(free, fixed)] @ delta[fixed]
            delta[free] = np.linalg.solve(hessian[np.ix_(free, free)], rhs)
            target = expression + delta[first:]
            leaving = np.zeros(len(gradient), bool)
            leaving[first:] = ((target < low - 1e-9) | (target > high + 1e-9)) & free[first:]
            if not leaving.any():
                break
            delta[first:][leaving[first:]] = (np.clip(target, low, high) - expression)[leaving[first:]]
            free &= ~leaving
        return delta

    def _jacobian(self, state: LandmarkSolution) -> tuple[np.ndarray, np.ndarray]:
        points = self.points(state)
        turned = points @ state.rotation.T
        cam = turned + state.translation
        depth, f = -cam[:, 2], self.camera.focal_px
        weight = self.weights(state)
        # d(x_px, y_px) / d(camera-space point), rows scaled by the weights
        local = np.zeros((len(points), 2, 3))
        local[:, 0, 0], local[:, 0, 2] = f / depth, f * cam[:, 0] / depth**2
        local[:, 1, 1], local[:, 1, 2] = -f / depth, -f * cam[:, 1] / depth**2
        local *= weight[:, None, None]
        spin = np.stack([np.cross(axis, turned) for axis in np.eye(3)], axis=-1)
        to_head = local @ state.rotation
        blocks = [local @ spin, local]
        # How the size of an expression changes with the identity is left out: small against what both do themselves.
        expression = self.lm.expression_of(state.identity)
        for basis in (self.lm.identity, expression)[0 if self.fit_identity else 1 :]:
            blocks.append(np.einsum("lij,klj->lik", to_head, basis, optimize=True))
        jacobian = np.concatenate(blocks, axis=2).reshape(len(points) * 2, -1)
        projected = project_points(points, state.rotation, state.translation, self.camera)
        return jacobian, ((projected - self.observed) * weight[:, None]).reshape(-1)


def _rotation(axis_angle: np.ndarray) -> np.ndarray:
    """Rodrigues' formula in float64; see camera.rotation_from_axis_angle."""
    angle = np.linalg.norm(axis_angle)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = axis_angle / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)
