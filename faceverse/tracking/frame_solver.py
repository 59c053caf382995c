"""Pose, expression and light of each frame of a known person: rigid alignment, then photometric Gauss-Newton steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from ..fitting.damped_step import damped_step
from ..fitting.landmark_pairs import LandmarkPairs
from ..fitting.solver import MAX_Z_M, LandmarkTerm, initial_pose, landmark_term, project_points
from ..fitting.state import FaceState
from ..graphics.camera import Camera
from ..graphics.lighting import default_light
from .frame_observation import FrameObservation
from .person import (
    LandmarkObservation,
    LandmarkObserver,
    TrackedPerson,
    face_size,
    share_inside,
    thinned_landmarks,
)
from .skin_term import FacePicture, SkinTerm

LOST_ERROR = 0.04  # RMS landmark error in face sizes that no well aligned face reaches
_WARM_STEPS, _COLD_STEPS = 3, 10  # Gauss-Newton steps of the rigid alignment, from the frame before and from scratch
_DAMPING = 1e-3
_LANDMARK_WEIGHT = 0.5  # of the landmark term beside the photometric term
_SIGMA_LIMITS = (0.01, 0.02)  # of the expression prior in the photometric steps
# Landmarks hardly show these expressions, by the regressor's own deviations, and the skin does: a wider limit lets the
# photometric term decide more about them.
_PHOTOMETRIC_NAMES = ("mouthFunnel", "browInnerUp", "browOuterUpLeft", "browOuterUpRight")
_PHOTOMETRIC_SIGMA = 0.06
# Share of the last frame's photometric correction to the pose that the next frame starts with, so that its few steps
# need not repeat it; all of it would let the head drift where an image is misleading.
_CORRECTION_SHARE = 0.75
_NEUTRAL_QUANTILE = 0.8  # of the weights in neutral frames is the neutral offset: jitter is no expression
_MIN_INLIER_SHARE = 0.35  # of the skin; with fewer inliers (occluded, dark) only the landmarks count


@dataclass(frozen=True)
class Quality:
    """How much work is done for a frame.

    Args:
        picture_px: side of the face crop.
        points: compared skin points, at most.
        steps: photometric Gauss-Newton steps.
        effective_points: effective sample count of the photometric term.
    """

    picture_px: int
    points: int
    steps: int
    effective_points: float


QUALITIES = {"fast": Quality(96, 600, 2, 2700.0), "high": Quality(144, 2500, 4, 4000.0)}


@dataclass(frozen=True)
class SolvedFrame:
    """The estimate for one frame.

    Args:
        seconds: time of the frame.
        state: pose, expression and light of the person; None without a face.
        confidence: 0..1; 0 without a face.
    """

    seconds: float
    state: FaceState | None = None
    confidence: float = 0.0


@dataclass(frozen=True)
class _Correction:
    """What the photometric steps changed in the state that the landmarks gave: pose (6,), see `FaceState.updated`, and
    expression (E,)."""

    pose: np.ndarray
    expression: np.ndarray

    @classmethod
    def between(cls, before: FaceState, after: FaceState) -> _Correction:
        """The change from one state to another."""
        rotation = Rotation.from_matrix(after.rotation @ before.rotation.T).as_rotvec()
        pose = np.concatenate([rotation, after.translation - before.translation])
        return cls(pose, after.expression - before.expression)


class FrameSolver:
    """Estimates one frame after another; each starts from the one before.

    Args:
        observer: of the model.
        person: whose head it is.
        quality: see QUALITIES.
    """

    def __init__(self, observer: LandmarkObserver, person: TrackedPerson, quality: Quality):
        self._observer, self._quality = observer, quality
        self._light = default_light().numpy().astype(np.float64)
        self._last: FaceState | None = None
        self._correction: _Correction | None = None
        names = observer.model.expression_names
        self._sigma_max = np.array([_PHOTOMETRIC_SIGMA if n in _PHOTOMETRIC_NAMES else _SIGMA_LIMITS[1] for n in names])
        self._is_carried = np.array([not name.startswith("eyeLook") for name in names])  # the gaze jumps
        self._follow(person, None)

    @property
    def person(self) -> TrackedPerson:
        """Whose head it is; setting it computes the neutral offset from the person's neutral frames."""
        return self._person

    @person.setter
    def person(self, person: TrackedPerson) -> None:
        self._follow(person, self._person)

    def _follow(self, person: TrackedPerson, before: TrackedPerson | None) -> None:
        """Set the person; `before` is the one so far."""
        params = person.params
        rows = thinned_landmarks(self._observer.generic)
        self._person: TrackedPerson = person
        self._person_on_rows = replace(person, bias=person.bias and person.bias.subset(rows))
        if before is None or before.params is not params:
            self.landmarks = self._observer.generic.with_identity(params.identity).subset(rows)
            self._skin = SkinTerm(self._observer.model, params, self._quality.points)
        if person.neutral_offset is None and person.neutral_frames:
            kept = self._last, self._light, self._correction
            weights = [self._solve(frame)[0].expression for frame in person.neutral_frames]
            self._person = replace(person, neutral_offset=np.quantile(weights, _NEUTRAL_QUANTILE, axis=0))
            self._last, self._light, self._correction = kept

    def continue_from(self, other: FrameSolver) -> None:
        """Start from the last frame of another solver; the distance follows this solver's focal length."""
        factor = np.array([1, 1, self.person.camera.focal_px / other.person.camera.focal_px])
        last, correction = other._last, other._correction
        self._last = last and replace(last, translation=last.translation * factor)
        self._correction = correction and replace(correction, pose=correction.pose * [1, 1, 1, *factor])
        self._light = other._light

    def resume(self, state: FaceState) -> None:
        """Start from a frame that was estimated earlier."""
        self._last, self._light = state, state.light

    def __call__(self, frame: FrameObservation) -> SolvedFrame:
        """Estimate the next frame."""
        if frame.face is None:
            self._last = self._correction = None  # after a gap, the next image decides where the head is
            return SolvedFrame(frame.seconds)
        state, error = self._solve(frame)
        if self._person.neutral_offset is not None:
            state = subtract_neutral(state, self._person.neutral_offset, self.landmarks.prior.limits)
        return SolvedFrame(frame.seconds, state, _confidence(error, frame))

    def _solve(self, frame: FrameObservation) -> tuple[FaceState, float]:
        """The state of a face, and its RMS landmark error in face sizes."""
        camera = self._person.camera
        observation = self._observer.observe(self.landmarks, frame, self._person_on_rows)
        aligned, term, error = self._align(observation, camera, face_size(frame.detected))
        state = self._corrected(aligned) if error <= LOST_ERROR else aligned
        picture = self._skin.picture(*frame.crop, frame.camera(camera), state)
        for number in range(self._quality.steps):
            state = self._photometric_step(state, observation, term, picture, estimate_light=number == 0)
        self._last, self._light, self._correction = state, state.light, _Correction.between(aligned, state)
        return state, error

    def _align(
        self, observation: LandmarkObservation, camera: Camera, size_px: float
    ) -> tuple[FaceState, LandmarkTerm, float]:
        """Rigid alignment of the expected expression to the landmarks: the state, the landmark term in its pose, and
        the RMS error in face sizes."""
        lm, observed_px = observation.landmarks, observation.observed_px
        shape = lm.points(np.zeros(0), observation.expected)
        # The distances of pairs tell expressions apart; the pose is that of all points.
        rigid = replace(lm, mean=shape, expression=lm.expression[:0], pairs=LandmarkPairs.none())

        def align(rotation: np.ndarray, translation: np.ndarray, steps: int) -> tuple[FaceState, LandmarkTerm, float]:
            term = landmark_term(rigid, observed_px, camera, rotation, translation)
            start = FaceState(rotation=rotation, translation=translation, expression=np.zeros(0), light=self._light)
            state = _refine_pose(term, start, steps)
            return state, term, _rms_error_px(shape, observed_px, state, camera) / size_px

        best = None
        if self._last is not None:
            best = align(self._last.rotation, self._last.translation, _WARM_STEPS)
        if best is None or best[2] > LOST_ERROR:
            fresh = align(*initial_pose(shape, observed_px, camera), _COLD_STEPS)
            best = fresh if best is None or fresh[2] < best[2] else best
        state, term, error = best
        pair_weight = lm.pairs.weight(state.rotation, camera.focal_px / -state.translation[2])
        term = replace(term, lm=lm, pair_weight=pair_weight)
        return replace(state, expression=observation.expected), term, error

    def _corrected(self, aligned: FaceState) -> FaceState:
        """The state with most of the last frame's photometric correction, the gaze's excepted."""
        if self._correction is None:
            return aligned
        state = aligned.updated(
            _CORRECTION_SHARE * self._correction.pose,
            expression=self._is_carried * self._correction.expression,
            limits=self.landmarks.prior.limits,
        )
        return state if state.translation[2] < MAX_Z_M else aligned

    def _photometric_step(
        self,
        state: FaceState,
        observation: LandmarkObservation,
        term: LandmarkTerm,
        picture: FacePicture,
        estimate_light: bool,
    ) -> FaceState:
        """One Gauss-Newton step on landmarks, expression prior and skin colours."""
        residuals = self._skin.evaluate(state, picture)
        if estimate_light and (residuals.weight > 0).sum() >= 30:
            state = replace(state, light=self._skin.estimate_light(residuals, state.light))
        hessian, gradient, inlier_share = self._skin.normal_equations(state, residuals, self._quality.effective_points)
        if inlier_share < _MIN_INLIER_SHARE:
            hessian, gradient = 0 * hessian, 0 * gradient
        landmark_hessian, landmark_gradient = term.normal_equations(state, fit_identity=False)
        hessian = hessian + _LANDMARK_WEIGHT * landmark_hessian
        gradient = gradient + _LANDMARK_WEIGHT * landmark_gradient
        precision = np.clip(observation.sigma, _SIGMA_LIMITS[0], self._sigma_max) ** -2.0
        np.einsum("ii->i", hessian)[6:] += precision
        gradient[6:] += precision * (state.expression - observation.expected)
        limits = observation.landmarks.prior.limits
        bounds = limits - state.expression[:, None]
        delta = damped_step(hessian, gradient, _DAMPING, np.arange(6, len(gradient)), bounds)
        moved = state.updated(delta[:6], expression=delta[6:], limits=limits)
        return moved if moved.translation[2] < MAX_Z_M else state


def subtract_neutral(state: FaceState, neutral_offset: np.ndarray, limits: np.ndarray) -> FaceState:
    """The state with weights counted from the person's neutral face.

    The rest of each weight's range is stretched, so that full weights stay full.

    Args:
        neutral_offset: (E,) weights that count as 0.
        limits: (E, 2) of the weights.
    """
    stretch = limits[:, 1] / np.maximum(limits[:, 1] - neutral_offset, 1e-3)
    return replace(state, expression=np.clip((state.expression - neutral_offset) * stretch, *limits.T))


def _refine_pose(term: LandmarkTerm, state: FaceState, steps: int) -> FaceState:
    """Gauss-Newton on the pose of a rigid head: rotation and translation that bring it onto its landmarks."""
    for _ in range(steps):
        hessian, gradient = term.normal_equations(state, fit_identity=False)
        np.einsum("ii->i", hessian)[...] *= 1 + _DAMPING
        delta = np.linalg.solve(hessian, -gradient)
        if not np.isfinite(delta).all() or state.translation[2] + delta[5] > MAX_Z_M:
            break
        state = state.updated(delta)
        if np.abs(delta).max() < 1e-5:
            break
    return state


def _rms_error_px(points: np.ndarray, observed_px: np.ndarray, state: FaceState, camera: Camera) -> float:
    """Root mean square distance of observed and projected landmarks."""
    off = project_points(points, state.rotation, state.translation, camera) - observed_px
    return float(np.sqrt((off**2).sum(1).mean()))


def _confidence(error: float, frame: FrameObservation) -> float:
    """Above 0, up to 1; 0 itself means that there is no face.

    Args:
        error: RMS landmark error in face sizes.
    """
    return max(float(np.exp(-((error / LOST_ERROR) ** 2))) * share_inside(frame), 1e-3)
