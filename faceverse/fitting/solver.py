"""Landmark fitting: MAP estimate of pose, identity and expression by damped Gauss-Newton steps, in NumPy.

The loss is the squared reprojection error of the landmarks in standard deviations, plus normal priors on identity,
expression and, where it is unknown, the logarithm of the focal length. The detector's errors are correlated: their
principal modes have unit-variance coefficients, which are marginalised in closed form (Woodbury's identity, see
`error_mode_factor`). Steps solve the normal equations with Levenberg-Marquardt damping; an active set keeps expression
weights within their box bounds (`damped_step`). With a few hundred landmarks and a closed-form Jacobian a solve takes
milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.linalg import solve_triangular

from ..graphics.camera import Camera
from ..model.face_model import FaceModel, Landmarks, expression_gain
from .damped_step import damped_step
from .landmark_pairs import LandmarkPairs
from .parameter_regressor import InitialEstimate
from .prior import ExpressionPrior, IdentityPrior, expression_prior
from .state import FaceState

# Effective sample count: errors of neighbouring points are correlated beyond the error modes, so that more points than
# this are down-weighted to count as this many.
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
        sigma: (L,) metres, standard deviation of each point's independent error.
        error_modes: (K, L, 2) metres, modes of the detector's correlated errors, with unit-variance coefficients; K may
            be 0.
        prior: of the expression weights.
        detected: (L,) index of each landmark among the detector's points; None: all of them, in order.
        gain: (E, I) change of each expression's size per unit of identity, or None, see `FaceModel`.
        person: prior of the identity; None: the population's, see `IdentityPrior.of_population`.
        pairs: landmarks whose differences are observed as well.
        learned: whether sigma and error_modes are those at the yaw of this face, see `with_initial_estimate`.
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
    pairs: LandmarkPairs = field(default_factory=LandmarkPairs.none)
    learned: bool = False

    @property
    def resolved_identity_prior(self) -> IdentityPrior:
        """The prior of the identity."""
        return self.person or IdentityPrior.of_population(len(self.identity))

    def select(self, landmarks_px: np.ndarray) -> np.ndarray:
        """Select the model's landmarks (L, 2) from the detector's points (478, 2)."""
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
        """Replace the priors and the error model by those that the parameter regressor estimates for a face.

        A model of one person has no identity modes and keeps its identity.
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
        """Replace the detector's error model: standard deviations (L,) and modes (K, L, 2) at the yaw of a face."""
        return replace(self, sigma=np.maximum(sigma, MIN_SIGMA_M), error_modes=error_modes, learned=True)

    def subset(self, rows: np.ndarray) -> LandmarkModel:
        """Restrict the model to some of its landmarks, by index (M,)."""
        return replace(
            self,
            mean=self.mean[rows],
            identity=np.take(self.identity, rows, axis=1),
            expression=np.take(self.expression, rows, axis=1),
            normals=self.normals[rows],
            sigma=self.sigma[rows],
            error_modes=self.error_modes[:, rows],
            pairs=self.pairs.subset(rows),
            detected=rows if self.detected is None else self.detected[rows],
        )

    def with_identity(self, identity: np.ndarray) -> LandmarkModel:
        """Fix the identity (I,): it becomes the mean shape, without identity modes; expressions get its gain."""
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
    """Restrict a face model to its landmarks."""
    bases = model.landmark_bases(landmarks)
    corners = model.mean_vertices[model.faces[landmarks.triangle]].astype(np.float64)
    error_modes = np.zeros((0, len(landmarks.triangle), 2)) if landmarks.error_modes is None else landmarks.error_modes
    variance = landmarks.sigma.astype(np.float64) ** 2 - (error_modes.astype(np.float64) ** 2).sum((0, 2)) / 2
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    mean = bases.mean.numpy(force=True).astype(np.float64)
    return LandmarkModel(
        mean=mean,
        identity=bases.identity.numpy(force=True).astype(np.float64),
        expression=bases.expression.numpy(force=True).astype(np.float64),
        normals=normals,
        sigma=np.sqrt(np.maximum(variance, MIN_SIGMA_M**2)),
        error_modes=error_modes.astype(np.float64),
        prior=expression_prior(model),
        detected=landmarks.detected,
        gain=None if bases.gain is None else bases.gain.numpy(force=True).astype(np.float64),
        pairs=LandmarkPairs.none() if landmarks.detected is not None else LandmarkPairs.of_detector(mean, normals),
    )


def project_points(points: np.ndarray, rotation: np.ndarray, translation: np.ndarray, camera: Camera) -> np.ndarray:
    """Project head-space points (L, 3) to pixels (L, 2)."""
    cam = points @ rotation.T + translation
    scale = camera.focal_px / -cam[:, 2]
    cx, cy = camera.principal_point_px
    return np.stack([cx + scale * cam[:, 0], cy - scale * cam[:, 1]], axis=1)


def point_weights(lm: LandmarkModel, rotation: np.ndarray, depth_m: float, focal_px: float) -> np.ndarray:
    """(L,) 1 / px: inverse standard deviation of each point; points that face away are down-weighted as guesses."""
    facing = (lm.normals @ rotation.T)[:, 2]
    visible = np.clip((facing + 0.15) / 0.45, 0.03, 1.0)
    return np.sqrt(min(EFFECTIVE_POINTS / len(lm.sigma), 1.0)) * visible * depth_m / (lm.sigma * focal_px)


def error_mode_factor(lm: LandmarkModel, weight: np.ndarray, pixels_per_metre: float) -> np.ndarray:
    """Factor B (2L, K) that marginalises the detector's error modes: weighted residuals r cost r.r - |B^T r|^2.

    With modes C (2L, K) in weighted pixels and unit-variance coefficients, the residuals have the covariance
    I + C C^T. By Woodbury's identity its inverse is I - B B^T with B = C L^-T and L the Cholesky factor of I + C^T C.
    """
    scaled = lm.error_modes * np.array([1.0, -1.0]) * (pixels_per_metre * weight[None, :, None])
    columns = scaled.reshape(len(lm.error_modes), 2 * len(weight)).T
    cholesky = np.linalg.cholesky(np.eye(columns.shape[1]) + columns.T @ columns)
    return solve_triangular(cholesky, columns.T, lower=True, check_finite=False).T


def initial_pose(points: np.ndarray, observed_px: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Estimate rotation (3, 3) and translation (3,) by a weak-perspective fit of points (L, 3) to pixels (L, 2).

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
    centre_cam = np.array(
        [(target[0] - cx) * depth / camera.focal_px, (cy - target[1]) * depth / camera.focal_px, -depth]
    )
    return rotation, centre_cam - rotation @ centre


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
    """Find the MAP estimate of pose, identity and expression for landmarks, by Levenberg-Marquardt.

    A wrong focal length makes noses of near faces too small or too large. Landmarks constrain it weakly, so it is
    fitted with a prior where it is unknown.

    Args:
        lm: the model on its landmarks.
        observed_px: (L, 2) detected landmarks, see `LandmarkModel.select`.
        camera: of the picture.
        expected: (E,) prior mean of the expression weights, see `ExpressionPrior.mean`.
        start: initial state (video); by default the mean head in a weak-perspective pose.
        fit_identity: False keeps the identity of `start`.
        focal_sigma: prior standard deviation of the logarithm of the focal length; 0 where it is known.
        iterations: Gauss-Newton steps at most; stops at a relative decrease of the loss below 1e-4.
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
    """Squared reprojection error of the landmarks in standard deviations, with correlated error modes marginalised.

    Args:
        lm: the model on its landmarks.
        observed_px: (L, 2) detected landmarks.
        camera: of the picture.
        weight: (L,) 1 / px, see `point_weights`.
        factor: (2L, K), see `error_mode_factor`.
        pair_weight: (M,) 1 / px, see `LandmarkPairs.weight`; None ignores the pairs.
    """

    lm: LandmarkModel
    observed_px: np.ndarray
    camera: Camera
    weight: np.ndarray
    factor: np.ndarray
    pair_weight: np.ndarray | None = None

    def residual(self, state: FaceState) -> np.ndarray:
        """(2L,) weighted distances of projected and observed points."""
        points = self.lm.points(state.identity, state.expression)
        projected = project_points(points, state.rotation, state.translation, self.camera)
        return ((projected - self.observed_px) * self.weight[:, None]).reshape(-1)

    def loss(self, state: FaceState) -> float:
        """Half the squared residual, error modes marginalised, plus half that of the paired points' differences."""
        residual = self.residual(state)
        explained, differences = self.factor.T @ residual, self._differences(residual)
        return 0.5 * float((residual**2).sum() - (explained**2).sum() + (differences**2).sum())

    def _differences(self, rows: np.ndarray) -> np.ndarray:
        """(2M, ...) weighted differences of paired points, from rows (2L, ...) of `residual` or of its Jacobian."""
        if self.pair_weight is None:
            return np.zeros((0, *rows.shape[1:]))
        points = rows.reshape(len(self.weight), 2, -1)
        first, second = (points[ends] / self.weight[ends, None, None] for ends in self.lm.pairs.index.T)
        return ((first - second) * self.pair_weight[:, None, None]).reshape(-1, *rows.shape[1:])

    def normal_equations(
        self, state: FaceState, fit_identity: bool = True, fit_focal: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gauss-Newton Hessian (K, K) and gradient (K,).

        Order of the unknowns: rotation (3), translation (3), identity (if it is fitted), expression, logarithm of the
        focal length (if it is fitted).
        """
        jacobian, residual = self._jacobian(state, fit_identity), self.residual(state)
        if fit_focal:
            centred = (self.observed_px - self.camera.principal_point_px) * self.weight[:, None]
            jacobian = np.concatenate([jacobian, (residual + centred.reshape(-1))[:, None]], axis=1)
        explained, differences = self.factor.T @ jacobian, self._differences(jacobian)
        hessian = jacobian.T @ jacobian - explained.T @ explained + differences.T @ differences
        gradient = jacobian.T @ residual - explained.T @ (self.factor.T @ residual)
        return hessian, gradient + differences.T @ self._differences(residual)

    def _jacobian(self, state: FaceState, fit_identity: bool) -> np.ndarray:
        """(2L, K) of `residual`; order as in `normal_equations`, without the focal length."""
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
        # The derivative of the expression gain with respect to the identity is neglected: it is small.
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
    weight, scale = point_weights(lm, rotation, depth_m, camera.focal_px), camera.focal_px / depth_m
    factor = error_mode_factor(lm, weight, scale)
    return LandmarkTerm(lm, observed_px, camera, weight, factor, lm.pairs.weight(rotation, scale))


class LandmarkProblem:
    """Loss, normal equations and steps of the landmark fit."""

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
        """One damped Gauss-Newton step within the box bounds of the expression."""
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
