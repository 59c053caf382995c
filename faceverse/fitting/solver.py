"""Landmark fitting: a damped Gauss-Newton solve for pose, identity and expression, in NumPy.

A few hundred landmarks make a small least-squares problem with a closed-form Jacobian, so this takes milliseconds.
Expression weights are kept within their limits by an active set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import solve_triangular

from ..graphics.camera import Camera
from ..model.face_model import FaceModel, Landmarks, expression_gain
from .parameter_regressor import InitialEstimate
from .prior import ExpressionPrior, IdentityPrior, expression_prior
from .state import FaceState

# Errors of neighbouring points are correlated beyond the error modes: the effective sample count is at most this.
EFFECTIVE_POINTS = 150.0
MIN_SIGMA_M = 4e-4
DAMPING = 1e-3
FOCAL_STEP_LIMIT = 0.5  # of the logarithm, per iteration
MAX_Z_M = -0.05  # z of a head that is still before the camera


@dataclass(frozen=True)
class LandmarkModel:
    """The face model on its landmarks, as NumPy float64.

    Args:
        mean (L, 3), identity (I, L, 3), expression (E, L, 3): metres.
        normals: (L, 3) of the mean head.
        sigma: (L,) metres, standard deviation of single points.
        error_modes: (K, L, 2) metres, correlated errors of the detector; K may be 0.
        prior: of the expression weights.
        detected: (L,) which of the detector's points each one is; None: all of them, in order.
        gain: (E, I) change of each expression's size per unit of identity, or None, see `FaceModel`.
        person: of the identity; None: anybody, see `IdentityPrior.of_population`.
        learned: whether sigma and error_modes are those at this face's yaw, see `with_initial_estimate`.
    """

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    normals: np.ndarray
    sigma: np.ndarray
    error_modes: np.ndarray
    prior: ExpressionPrior
    detected: np.ndarray | None = None
    gain: np.ndarray | None = None
    person: IdentityPrior | None = None
    learned: bool = False

    @property
    def resolved_identity_prior(self) -> IdentityPrior:
        """The prior of the identity."""
        return self.person or IdentityPrior.of_population(len(self.identity))

    def select(self, landmarks_px: np.ndarray) -> np.ndarray:
        """Those (L, 2) of the detector's points (478, 2) that the model has."""
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

    def with_initial_estimate(self, start: InitialEstimate) -> LandmarkModel:
        """The model with an initial estimate of this face: the detector's error model, identity and expression priors.

        The identity of a model of one person is unchanged.
        """
        known = slice(None) if self.detected is None else self.detected
        return replace(
            self,
            sigma=np.maximum(start.sigma[known], MIN_SIGMA_M),
            error_modes=start.error_modes[:, known],
            prior=self.prior.with_initial_estimate(start.expression_sigma),
            person=IdentityPrior(start.identity, np.linalg.inv(start.covariance)) if len(self.identity) else None,
            learned=True,
        )

    def with_error_model(self, sigma: np.ndarray, error_modes: np.ndarray) -> LandmarkModel:
        """The model with the detector's error model at a yaw: standard deviations (L,), error modes (K, L, 2)."""
        return replace(self, sigma=np.maximum(sigma, MIN_SIGMA_M), error_modes=error_modes, learned=True)

    def subset(self, rows: np.ndarray) -> LandmarkModel:
        """The model on some of its landmarks, by their numbers (M,)."""
        return replace(
            self,
            mean=self.mean[rows],
            identity=np.take(self.identity, rows, axis=1),
            expression=np.take(self.expression, rows, axis=1),
            normals=self.normals[rows],
            sigma=self.sigma[rows],
            error_modes=self.error_modes[:, rows],
            detected=rows if self.detected is None else self.detected[rows],
        )

    def with_identity(self, identity: np.ndarray) -> LandmarkModel:
        """The model of one person (I,): the identity in the mean, no modes of it, expressions of that head's size."""
        identity = np.asarray(identity, np.float64)
        shape = self.mean + np.tensordot(identity, self.identity, axes=1)
        expression = self.expression_of(identity)
        return replace(self, mean=shape, identity=self.identity[:0], expression=expression, gain=None, person=None)


@dataclass(frozen=True)
class LandmarkSolution:
    """The state and the camera that explain the landmarks.

    Args:
        state: pose, identity and expression; landmarks show neither albedo nor light, which keep their defaults.
        camera: with the estimated focal length.
        history: half the weighted sum of squares after each iteration, the initial one first.
        landmark_loss, prior_loss: its two parts at the end.
        hessian: (K, K) at the end, in rotation (3), translation (3), identity (if it was fitted) and expression; the
            Schur complement of the focal length, if that was fitted.
    """

    state: FaceState
    camera: Camera
    history: tuple[float, ...] = ()
    landmark_loss: float = 0.0
    prior_loss: float = 0.0
    hessian: np.ndarray | None = None

    def with_identity(self, identity: np.ndarray) -> LandmarkSolution:
        """A solution of a person's model (`LandmarkModel.with_identity`) with that person's identity (I,)."""
        return replace(self, state=replace(self.state, identity=identity))


def landmark_model(model: FaceModel, landmarks: Landmarks) -> LandmarkModel:
    """Cuts the model down to its landmarks."""
    bases = model.landmark_bases(landmarks)
    corners = model.mean_vertices[model.faces[landmarks.triangle]].astype(np.float64)
    error_modes = np.zeros((0, len(landmarks.triangle), 2)) if landmarks.error_modes is None else landmarks.error_modes
    own = landmarks.sigma.astype(np.float64) ** 2 - (error_modes.astype(np.float64) ** 2).sum((0, 2)) / 2
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return LandmarkModel(
        *(t.numpy(force=True).astype(np.float64) for t in (bases.mean, bases.identity, bases.expression)),
        normals=normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12),
        sigma=np.sqrt(np.maximum(own, MIN_SIGMA_M**2)),
        error_modes=error_modes.astype(np.float64),
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
    """(L,) 1 / px: the inverse standard deviation of each point; points that face away are down-weighted."""
    facing = (lm.normals @ rotation.T)[:, 2]
    visible = np.clip((facing + 0.15) / 0.45, 0.03, 1.0)
    return np.sqrt(min(EFFECTIVE_POINTS / len(lm.sigma), 1.0)) * visible * depth_m / (lm.sigma * focal_px)


def error_mode_factor(lm: LandmarkModel, weight: np.ndarray, pixels_per_metre: float) -> np.ndarray:
    """Factor B (2L, K) that marginalises the error modes from weighted residuals r: the loss is r.r - |B^T r|^2.

    That is the landmark term after integrating over the modes' unit-variance coefficients (Woodbury's identity).
    """
    scaled = lm.error_modes * np.array([1.0, -1.0]) * (pixels_per_metre * weight[None, :, None])
    columns = scaled.reshape(len(lm.error_modes), 2 * len(weight)).T
    left = np.linalg.cholesky(np.eye(columns.shape[1]) + columns.T @ columns)
    return solve_triangular(left, columns.T, lower=True, check_finite=False).T


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
    start: FaceState | None = None,
    fit_identity: bool = True,
    focal_sigma: float = 0.0,
    iterations: int = 12,
) -> LandmarkSolution:
    """Minimises landmark distance + identity prior + distance of the expression to its prior.

    A wrong focal length makes noses of near faces too small or too large. The points alone say little about it, so that
    it is fitted with a prior where it is not known.

    Args:
        lm: the model on its landmarks.
        observed_px: (L, 2) detected in the picture, see `LandmarkModel.select`.
        camera: of the picture.
        expected: (E,) weights to expect, see `ExpressionPrior.mean`.
        start: state to start from (video); by default the mean head in a weak-perspective pose.
        fit_identity: False keeps the identity of `start`.
        focal_sigma: deviation of the camera's focal length as a logarithm; 0 where it is known.
        iterations: Gauss-Newton steps at most; stops when the loss falls by less than 1e-4 of itself.
    """
    if start is None:
        points = lm.points(lm.resolved_identity_prior.mean, expected)
        rotation, translation = initial_pose(points, observed_px, camera)
        identity = lm.resolved_identity_prior.mean
        start = FaceState(rotation=rotation, translation=translation, expression=expected.copy(), identity=identity)
    problem = LandmarkProblem(lm, np.asarray(observed_px, np.float64), camera, expected, fit_identity, focal_sigma)
    solution, damping = LandmarkSolution(start, camera), DAMPING
    loss = problem.loss(solution)
    history = [loss]
    for _ in range(iterations):
        candidate = problem.step(solution, damping)
        candidate_loss = problem.loss(candidate)
        if candidate_loss > loss:
            damping *= 10
            if damping > 1e3:
                break
            continue
        gain, solution, loss, damping = loss - candidate_loss, candidate, candidate_loss, max(damping / 10, 1e-6)
        history.append(loss)
        if gain < 1e-4 * loss:
            break
    landmark, prior = problem.terms(solution)
    hessian = problem.marginal_hessian(solution)
    return replace(solution, history=tuple(history), landmark_loss=landmark, prior_loss=prior, hessian=hessian)


@dataclass(frozen=True)
class LandmarkTerm:
    """Squared distance of projected and detected points in standard deviations, with the error modes marginalised.

    Args:
        lm: the model on its landmarks.
        observed_px: (L, 2) detected in the picture.
        camera: of the picture.
        weight: (L,) 1 / px, see `point_weights`.
        factor: (2L, K), see `error_mode_factor`.
    """

    lm: LandmarkModel
    observed_px: np.ndarray
    camera: Camera
    weight: np.ndarray
    factor: np.ndarray

    def residual(self, state: FaceState) -> np.ndarray:
        """(2L,) weighted distances of projected and observed points."""
        points = self.lm.points(state.identity, state.expression)
        projected = project_points(points, state.rotation, state.translation, self.camera)
        return ((projected - self.observed_px) * self.weight[:, None]).reshape(-1)

    def loss(self, state: FaceState) -> float:
        """Half the square."""
        residual = self.residual(state)
        return 0.5 * float((residual**2).sum() - ((self.factor.T @ residual) ** 2).sum())

    def normal_equations(
        self, state: FaceState, fit_identity: bool = True, fit_focal: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gauss-Newton Hessian (K, K) and gradient (K,) in turn, shift, identity (if it is fitted), expression and the
        logarithm of the focal length (if it is fitted)."""
        jacobian, residual = self._jacobian(state, fit_identity), self.residual(state)
        if fit_focal:
            found = (self.observed_px - self.camera.principal_point_px) * self.weight[:, None]
            jacobian = np.concatenate([jacobian, (residual + found.reshape(-1))[:, None]], axis=1)
        explained = self.factor.T @ jacobian
        hessian = jacobian.T @ jacobian - explained.T @ explained
        return hessian, jacobian.T @ residual - explained.T @ (self.factor.T @ residual)

    def _jacobian(self, state: FaceState, fit_identity: bool) -> np.ndarray:
        points = self.lm.points(state.identity, state.expression)
        rotated = points @ state.rotation.T
        cam = rotated + state.translation
        depth, f = -cam[:, 2], self.camera.focal_px
        # d(x_px, y_px) / d(camera-space point), rows scaled by the weights
        scale = self.weight * f / depth
        local = np.zeros((len(points), 2, 3))
        local[:, 0, 0], local[:, 0, 2] = scale, scale * cam[:, 0] / depth
        local[:, 1, 1], local[:, 1, 2] = -scale, -scale * cam[:, 1] / depth
        x, y, z = rotated.T
        spin = np.zeros((len(points), 3, 3))
        spin[:, 0, 1], spin[:, 0, 2], spin[:, 1, 0] = z, -y, -z
        spin[:, 1, 2], spin[:, 2, 0], spin[:, 2, 1] = x, y, -x
        blocks = [local @ spin, local]
        to_head = local @ state.rotation
        # How the size of an expression changes with the identity is left out: small against what both do themselves.
        expression = self.lm.expression_of(state.identity)
        for basis in (self.lm.identity, expression)[0 if fit_identity else 1 :]:
            if len(basis):
                blocks.append(to_head @ basis.transpose(1, 2, 0))
        return np.concatenate(blocks, axis=2).reshape(len(points) * 2, -1)


def landmark_term(
    lm: LandmarkModel, observed_px: np.ndarray, camera: Camera, rotation: np.ndarray, translation: np.ndarray
) -> LandmarkTerm:
    """The landmark term with the weights that the points have in a pose, which it keeps while the state changes.

    Args:
        lm: the model on its landmarks.
        observed_px: (L, 2) in pixels of the camera.
        camera: of the picture.
        rotation (3, 3), translation (3,): the pose.
    """
    depth_m = max(-float(translation[2]), 1e-3)
    weight = point_weights(lm, rotation, depth_m, camera.focal_px)
    return LandmarkTerm(lm, observed_px, camera, weight, error_mode_factor(lm, weight, camera.focal_px / depth_m))


class LandmarkProblem:
    """The landmark fit: its loss and its steps."""

    def __init__(
        self, lm: LandmarkModel, observed: np.ndarray, camera: Camera, expected: np.ndarray, identity: bool,
        focal_sigma: float = 0.0,
    ):  # fmt: skip
        self.lm, self.observed, self.camera, self.expected, self.fit_identity = lm, observed, camera, expected, identity
        self.person = lm.resolved_identity_prior
        self.expression_weight = 1 / lm.prior.sigma
        self.focal_weight = 1 / focal_sigma if focal_sigma > 0 else 0.0

    def term(self, solution: LandmarkSolution) -> LandmarkTerm:
        """The landmark term with the weights of a solution's pose."""
        pose = solution.state.rotation, solution.state.translation
        return landmark_term(self.lm, self.observed, solution.camera, *pose)

    def terms(self, solution: LandmarkSolution) -> tuple[float, float]:
        """Landmark loss and prior loss."""
        state = solution.state
        off = (state.expression - self.expected) * self.expression_weight
        prior = (off**2).sum() + (self._log_focal_ratio(solution) * self.focal_weight) ** 2
        return self.term(solution).loss(state), self.person.loss(state.identity) + 0.5 * float(prior)

    def _log_focal_ratio(self, solution: LandmarkSolution) -> float:
        """Logarithm of the solution's focal length over the expected one."""
        return float(np.log(solution.camera.focal_px / self.camera.focal_px))

    def loss(self, solution: LandmarkSolution) -> float:
        """Half the weighted sum of squares; infinite where the head would lie behind the camera."""
        translation = solution.state.translation
        if not np.isfinite(translation).all() or translation[2] > MAX_Z_M:
            return float("inf")
        return sum(self.terms(solution))

    def normal_equations(self, solution: LandmarkSolution) -> tuple[np.ndarray, np.ndarray]:
        """Hessian (K, K) and gradient (K,) of the loss, see `LandmarkTerm.normal_equations`."""
        state = solution.state
        hessian, gradient = self.term(solution).normal_equations(state, self.fit_identity, self.focal_weight > 0)
        first = 6 + self._identity_count(state)
        diagonal, last = np.einsum("ii->i", hessian), first + len(state.expression)
        diagonal[first:last] += self.expression_weight**2
        diagonal[last:] += self.focal_weight**2
        if self.fit_identity:
            hessian[6:first, 6:first] += self.person.precision
            gradient[6:first] += self.person.precision @ (state.identity - self.person.mean)
        gradient[first:last] += (state.expression - self.expected) * self.expression_weight**2
        gradient[last:] += self._log_focal_ratio(solution) * self.focal_weight**2
        return hessian, gradient

    def _identity_count(self, state: FaceState) -> int:
        return len(state.identity) if self.fit_identity else 0

    def marginal_hessian(self, solution: LandmarkSolution) -> np.ndarray:
        """The Hessian, or the Schur complement of the focal length where that is fitted too."""
        hessian, _ = self.normal_equations(solution)
        if not self.focal_weight:
            return hessian
        across = hessian[:-1, -1]
        return hessian[:-1, :-1] - np.outer(across, across) / hessian[-1, -1]

    def step(self, solution: LandmarkSolution, damping: float) -> LandmarkSolution:
        """One damped Gauss-Newton step with the expression held within its limits."""
        state, camera, limits = solution.state, solution.camera, self.lm.prior.limits
        hessian, gradient = self.normal_equations(solution)
        first = 6 + self._identity_count(state)
        last = first + len(state.expression)
        delta = damped_step(
            hessian, gradient, damping, np.arange(first, last), limits - state.expression[:, None]
        )  # fmt: skip
        if self.focal_weight:
            factor = np.exp(np.clip(delta[-1], -FOCAL_STEP_LIMIT, FOCAL_STEP_LIMIT))
            camera = replace(camera, focal_px=float(camera.focal_px * factor))
        identity = delta[6:first] if self.fit_identity else 0.0
        moved = state.updated(delta[:6], identity=identity, expression=delta[first:last], limits=limits)
        return LandmarkSolution(moved, camera)


def damped_step(
    hessian: np.ndarray, gradient: np.ndarray, damping: float, rows: np.ndarray, bounds: np.ndarray
) -> np.ndarray:
    """Newton step (K,) of which some rows have to stay within limits.

    Variables that would leave their limits are moved to the border and the rest is solved again (an active set).

    Args:
        hessian (K, K), gradient (K,): of the loss.
        damping: share by which the diagonal is raised (Levenberg and Marquardt).
        rows: (R,) indices of the limited variables.
        bounds: (R, 2) least and greatest change of each.
    """
    hessian = hessian.copy()
    np.einsum("ii->i", hessian)[...] *= 1 + damping
    delta = np.zeros(len(gradient))
    free = np.ones(len(gradient), bool)
    for _ in range(4):
        fixed = ~free
        rhs = -gradient[free] - hessian[np.ix_(free, fixed)] @ delta[fixed]
        delta[free] = np.linalg.solve(hessian[np.ix_(free, free)], rhs)
        wanted = delta[rows]
        leaving = ((wanted < bounds[:, 0] - 1e-9) | (wanted > bounds[:, 1] + 1e-9)) & free[rows]
        if not leaving.any():
            break
        delta[rows[leaving]] = np.clip(wanted, *bounds.T)[leaving]
        free[rows[leaving]] = False
    return delta
