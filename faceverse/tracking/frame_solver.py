"""Pose, expression and light of one frame after the other, of a person who is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from ..fitting.solver import (
    MAX_Z_M,
    LandmarkModel,
    LandmarkTerm,
    apply_rotation_update,
    damped_step,
    error_mode_factor,
    initial_pose,
    point_weights,
    project_points,
)
from ..graphics.camera import Camera
from ..graphics.lighting import default_light
from .frame_observation import FrameObservation
from .person import EVERY, LandmarkObservation, LandmarkObserver, TrackedPerson, face_size, share_inside
from .skin_term import FacePicture, Pose, SkinTerm

LOST_FIT = 0.04  # error of the landmarks, in sizes of the face, that no well fitted face reaches
_POSE_STEPS, _FRESH_STEPS = 3, 10
_DAMPING = 1e-3
_LANDMARKS = 0.5  # weight of the landmarks beside the picture
_SIGMA = (0.01, 0.02)  # limits of what weights may be off from what is expected when the picture is compared
# Landmarks hardly show these, by the network's own figures, and the picture does: it may decide more about them.
_SEEN, _SEEN_SIGMA = ("mouthFunnel", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"), 0.06
# Share that a frame starts with of what the pictures said beyond the landmarks in the frame before, so that its few
# steps need not go that way again; all of it would let the head drift where a picture misleads.
_KEPT = 0.75
_AT_REST = 0.8  # of the faces at rest lie below what counts as zero: jitter is no expression
_AGREE = 0.35  # share of the skin that has to look as expected; else (covered, dark) the landmarks alone count


@dataclass(frozen=True)
class Quality:
    """How much work a frame is.

    Args:
        picture_px: side of the picture of the face.
        points: of the skin that are compared, at most.
        steps: Gauss-Newton steps with the picture.
        independent: points that the comparison counts as.
    """

    picture_px: int
    points: int
    steps: int
    independent: float


QUALITIES = {"fast": Quality(96, 600, 2, 2700.0), "high": Quality(144, 2500, 4, 4000.0)}


@dataclass(frozen=True)
class SolvedFrame:
    """One frame, solved; without a face only the time is known.

    Args:
        pose: head to camera, and weights.
        light: (9, 3).
        confidence: 0..1; 0 where no face was found.
    """

    seconds: float
    pose: Pose | None = None
    light: np.ndarray | None = None
    confidence: float = 0.0


class FrameSolver:
    """Pose, weights and light of one sight after another; each starts from the one before."""

    def __init__(self, observer: LandmarkObserver, person: TrackedPerson, quality: Quality):
        self._observer, self._quality = observer, quality
        self._light = default_light().numpy().astype(np.float64)
        self._last: Pose | None = None
        self._beyond: Pose | None = None
        names = observer.model.expression_names
        self._most_sigma = np.array([_SEEN_SIGMA if name in _SEEN else _SIGMA[1] for name in names])
        self._led_weights = np.array([not name.startswith("eyeLook") for name in names])  # the gaze jumps
        self.person = person

    @property
    def person(self) -> TrackedPerson:
        """Who is followed."""
        return self._person

    @person.setter
    def person(self, person: TrackedPerson) -> None:
        params, before = person.params, getattr(self, "_person", None)
        last, light, beyond = self._last, self._light, self._beyond
        rows = np.arange(0, len(self._observer.anybody.mean), EVERY)
        self._person = person
        self._read_as = replace(person, bias=person.bias and person.bias.subset(rows))
        if before is None or before.params is not params:
            self._landmarks = self._observer.anybody.with_identity(params.identity).subset(rows)
            self._skin = SkinTerm(self._observer.model, params, self._quality.points)
        if person.neutral_offset is None and person.neutral_frames:
            poses = [self._solved(observed)[0] for observed in person.neutral_frames]
            self._person = replace(person, neutral_offset=np.quantile([pose.expression for pose in poses], _AT_REST, axis=0))
            self._last, self._light, self._beyond = last, light, beyond

    def take_over(self, other: FrameSolver | None) -> None:
        """Starts from where another solver is."""
        if other is not None:
            wider = np.array([1, 1, self.person.camera.focal_px / other.person.camera.focal_px])
            self._last, self._beyond = (
                pose and replace(pose, translation=pose.translation * wider) for pose in (other._last, other._beyond)
            )
            self._light = other._light

    def go_on(self, row: np.void) -> None:
        """Starts from a frame that was solved earlier, a record of `journal`."""
        if row["confidence"] > 0:
            values = (row[name].astype(np.float64) for name in ("rotation", "translation", "expression"))
            self._last, self._light = Pose(*values), row["light"].astype(np.float64)

    def __call__(self, observed: FrameObservation) -> SolvedFrame:
        """The next frame."""
        if observed.face is None:
            self._last = self._beyond = None  # where the head is after a gap says the picture, not the past
            return SolvedFrame(observed.seconds)
        pose, error = self._solved(observed)
        return SolvedFrame(observed.seconds, self._from_rest(pose), self._light, _confidence(error, observed))

    def _solved(self, observed: FrameObservation) -> tuple[Pose, float]:
        """The pose of a face, and the error of its landmarks in sizes of the face."""
        camera = self._person.camera
        read = self._observer(self._landmarks, observed, self._read_as)
        placed, marks, error = self._placed(read, camera, face_size(observed.face))
        pose = self._led(placed, read) if error <= LOST_FIT else placed
        picture = self._skin.picture(observed.picture, observed.inside, observed.camera(camera), pose)
        for number in range(self._quality.steps):
            pose = self._with_picture(pose, read, marks, picture, number == 0)
        self._last, self._beyond = pose, _difference(pose, placed)
        return pose, error

    def _led(self, placed: Pose, read: LandmarkObservation) -> Pose:
        """The pose of the landmarks, with most of what the picture before said beyond its own."""
        beyond = self._beyond
        if beyond is None:
            return placed
        turn = Rotation.from_matrix(beyond.rotation).as_rotvec()
        moved = placed.translation + _KEPT * beyond.translation
        weights = read.landmarks.prior.clipped(placed.expression + self._led_weights * beyond.expression)
        return Pose(apply_rotation_update(placed.rotation, _KEPT * turn), moved, weights) if moved[2] < MAX_Z_M else placed

    def _from_rest(self, pose: Pose) -> Pose:
        """The same with weights counted from those of the face at rest."""
        if self._person.neutral_offset is None:
            return pose
        limits, neutral_offset = self._landmarks.prior.limits, self._person.neutral_offset
        wide = limits[:, 1] / np.maximum(limits[:, 1] - neutral_offset, 1e-3)
        return replace(pose, expression=np.clip((pose.expression - neutral_offset) * wide, *limits.T))

    def _placed(self, read: LandmarkObservation, camera: Camera, size_px: float) -> tuple[Pose, LandmarkTerm, float]:
        """Pose of the landmarks with the expected weights, how they count in it, and their error in sizes of the
        face."""
        shape = read.landmarks.points(np.zeros(0), read.expected)
        rigid = replace(read.landmarks, mean=shape, expression=read.landmarks.expression[:0])
        best, error = None, np.inf
        if self._last is not None:
            term = _term(rigid, read, camera, self._last.rotation, self._last.translation)
            best = _turned_to(term, self._last.rotation, self._last.translation, _POSE_STEPS)
            error = _error(shape, read, best, camera) / size_px
        if error > LOST_FIT:
            start = initial_pose(shape, read.observed_px, camera)
            fresh_term = _term(rigid, read, camera, *start)
            fresh = _turned_to(fresh_term, *start, _FRESH_STEPS)
            fresh_error = _error(shape, read, fresh, camera) / size_px
            if best is None or fresh_error < error:
                best, error, term = fresh, fresh_error, fresh_term
        return replace(best, expression=read.expected), replace(term, lm=read.landmarks), error

    def _with_picture(self, pose: Pose, read: LandmarkObservation, marks: LandmarkTerm, picture: FacePicture, first: bool) -> Pose:
        """One Gauss-Newton step on landmarks, expected weights and the colours of the skin; the first one of a frame
        finds the light."""
        skin = self._skin
        residuals = skin.evaluate(pose, picture)
        if first and (residuals.weight > 0).sum() >= 30:
            self._light = skin.light(residuals, self._light)
        hessian, gradient, agreeing = skin.normal_equations(pose, residuals, self._light, self._quality.independent)
        if agreeing < _AGREE:
            hessian, gradient = 0 * hessian, 0 * gradient
        own, slope = marks.normal_equations(_state(pose), fit_identity=False)
        hessian, gradient = hessian + _LANDMARKS * own, gradient + _LANDMARKS * slope
        precision = np.clip(read.sigma, _SIGMA[0], self._most_sigma) ** -2.0
        np.einsum("ii->i", hessian)[6:] += precision
        gradient[6:] += precision * (pose.expression - read.expected)
        bounds = read.landmarks.prior.limits - pose.expression[:, None]
        delta = damped_step(hessian, gradient, _DAMPING, np.arange(6, len(gradient)), bounds)
        moved = Pose(
            apply_rotation_update(pose.rotation, delta[:3]),
            pose.translation + delta[3:6],
            read.landmarks.prior.clipped(pose.expression + delta[6:]),
        )
        return moved if moved.translation[2] < MAX_Z_M else pose


@dataclass(frozen=True)
class _State:
    """A pose as landmark terms take it."""

    rotation: np.ndarray
    translation: np.ndarray
    expression: np.ndarray
    identity: np.ndarray


def _state(pose: Pose) -> _State:
    return _State(pose.rotation, pose.translation, pose.expression, np.zeros(0))


def _term(
    lm: LandmarkModel, read: LandmarkObservation, camera: Camera, rotation: np.ndarray, translation: np.ndarray
) -> LandmarkTerm:
    """The landmarks as they count in a pose."""
    depth_m = max(-float(translation[2]), 1e-3)
    weight = point_weights(lm, rotation, depth_m, camera.focal_px)
    return LandmarkTerm(lm, read.observed_px, camera, weight, error_mode_factor(lm, weight, camera.focal_px / depth_m))


def _turned_to(term: LandmarkTerm, rotation: np.ndarray, translation: np.ndarray, steps: int) -> Pose:
    """Turn and shift of a stiff head to its landmarks."""
    pose = Pose(rotation, translation, np.zeros(0))
    for _ in range(steps):
        hessian, gradient = term.normal_equations(_state(pose), fit_identity=False)
        np.einsum("ii->i", hessian)[...] *= 1 + _DAMPING
        delta = np.linalg.solve(hessian, -gradient)
        moved = pose.translation + delta[3:]
        if moved[2] > MAX_Z_M or not np.isfinite(delta).all():
            break
        pose = Pose(apply_rotation_update(pose.rotation, delta[:3]), moved, pose.expression)
        if np.abs(delta).max() < 1e-5:
            break
    return pose


def _error(points: np.ndarray, read: LandmarkObservation, pose: Pose, camera: Camera) -> float:
    """Root mean square distance of found and fitted landmarks in pixels."""
    off = project_points(points, pose.rotation, pose.translation, camera) - read.observed_px
    return float(np.sqrt((off**2).sum(1).mean()))


def _difference(pose: Pose, other: Pose) -> Pose:
    """What a pose has beyond another one."""
    turn, shift = pose.rotation @ other.rotation.T, pose.translation - other.translation
    return Pose(turn, shift, pose.expression - other.expression)


def _confidence(error: float, observed: FrameObservation) -> float:
    """Above 0, up to 1; 0 itself means that no face was found."""
    return max(float(np.exp(-((error / LOST_FIT) ** 2))) * share_inside(observed), 1e-3)
