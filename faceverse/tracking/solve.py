"""Identity from several frames, then pose and expression of each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..camera import Camera
from ..fitting.solver import (
    LandmarkModel,
    LandmarkSolution,
    initial_pose,
    project_points,
    solve_landmarks,
)
from ..fitting.start import load_start
from ..landmarks import DetectedFace
from ..lighting import default_light
from ..model import FaceModel, FaceParams
from .light import Skin
from .sight import Sight

_IDENTITY_FRAMES = 8
_ITERATIONS = 3  # a start from the frame before has converged by then
_LOST_FIT = 0.04  # error of the landmarks, in sizes of the face, that no well fitted face reaches


@dataclass(frozen=True)
class Reading:
    """What the landmarks of one frame are taken for.

    Args:
        landmarks: the model on its landmarks, with the detector's errors as they are in a face turned like this one.
        observed_px: (L, 2) where the detector is believed to have seen them.
        expected: (E,) weights to expect.
    """

    landmarks: LandmarkModel
    observed_px: np.ndarray
    expected: np.ndarray


class Reader:
    """Reads landmarks: with the model's learned start where it has one, as the detector says them where not."""

    def __init__(self, model: FaceModel, camera: Camera):
        self._network, self._camera = load_start(model), camera

    def __call__(self, landmarks: LandmarkModel, face: DetectedFace) -> Reading:
        """Of the model on its landmarks, for anybody or for one person."""
        expected = landmarks.prior.mean(face.blendshapes)
        if self._network is None:
            return Reading(landmarks, landmarks.found(face.landmarks_px), expected)
        start = self._network.predict(face, self._camera)
        surer = landmarks.prior.surer(start.expression_sigma)
        read = landmarks.with_start(start)
        return Reading(read, read.found(start.points_px), np.where(surer, start.expression, expected))


def identify(seen: list[Sight], landmarks: LandmarkModel, camera: Camera, reader: Reader) -> np.ndarray:
    """Identity (I,): weighted mean of the solutions of the best frame of each part of the sights."""
    solutions, weights = [], []
    for part in np.array_split(np.arange(len(seen)), min(_IDENTITY_FRAMES, len(seen))):
        best = max((seen[i] for i in part), key=_portrait_quality)
        read = reader(landmarks, best.face)
        solution = solve_landmarks(read.landmarks, read.observed_px, camera, read.expected)
        solutions.append(solution.identity)
        weights.append(_portrait_quality(best) * _confidence(_fit_error(read, solution, best.face, camera), best))
    return np.average(solutions, axis=0, weights=np.maximum(weights, 1e-9)).astype(np.float32)


def _portrait_quality(sight: Sight) -> float:
    """How well a frame shows a shape, above 0: frontal, large, mouth closed, inside the frame."""
    face = sight.face
    frontal = 1.0 if face.rotation is None else float(np.clip(face.rotation[2, 2], 0.05, 1.0))
    calm = 1 - 0.7 * max(face.blendshapes[name] for name in ("jawOpen", "mouthFunnel", "mouthPucker", "cheekPuff"))
    return frontal**2 * _face_size(face) * calm * max(_share_inside(sight), 0.01)


def _share_inside(sight: Sight) -> float:
    height, width = sight.image_size
    points = sight.face.landmarks_px
    return float(((points >= 0) & (points < (width, height))).all(1).mean())


def _face_size(face: DetectedFace) -> float:
    """Pixels: square root of the area of the box."""
    return float(np.sqrt(np.prod(np.maximum(face.box_px[2:] - face.box_px[:2], 1.0))))


def _fit_error(read: Reading, solution: LandmarkSolution, face: DetectedFace, camera: Camera) -> float:
    """Root mean square distance of found and fitted landmarks, in sizes of the face."""
    points = read.landmarks.points(solution.identity, solution.expression)
    distance = project_points(points, solution.rotation, solution.translation, camera)
    distance -= read.observed_px
    return float(np.sqrt((distance**2).sum(1).mean())) / _face_size(face)


def _confidence(error: float, sight: Sight) -> float:
    """Above 0, up to 1; 0 itself means that no face was found."""
    return max(float(np.exp(-((error / _LOST_FIT) ** 2))) * _share_inside(sight), 1e-3)


@dataclass(frozen=True)
class State:
    """One frame, solved; without a face only the time is known."""

    seconds: float
    solution: LandmarkSolution | None = None
    light: np.ndarray | None = None
    confidence: float = 0.0


class FrameSolver:
    """Pose, weights and light of one sight after another; each starts from the one before."""

    def __init__(
        self, model: FaceModel, landmarks: LandmarkModel, person: FaceParams, camera: Camera, reader: Reader
    ):
        # With the identity in the mean, and no modes of it, the solver has nothing but pose and weights to find.
        self._landmarks = landmarks.of_person(person.identity)
        self._camera, self._reader = camera, reader
        self._skin = Skin(model, person)
        self._light = default_light().numpy().astype(np.float64)
        self._last: LandmarkSolution | None = None

    def __call__(self, sight: Sight) -> State:
        if sight.face is None:
            self._last = None  # where the head is after a gap says the picture, not the past
            return State(sight.seconds)
        self._last, error = self._solve(sight.face)
        self._light = self._skin.light(sight, self._last, self._camera, self._light)
        return State(sight.seconds, self._last, self._light, _confidence(error, sight))

    def _solve(self, face: DetectedFace) -> tuple[LandmarkSolution, float]:
        """The better of a warm start and, where that fails, a fresh one."""
        read = self._reader(self._landmarks, face)
        best, error = None, np.inf
        if self._last is not None:
            best = self._refine(read, self._last, _ITERATIONS)
            error = _fit_error(read, best, face, self._camera)
        if error > _LOST_FIT:
            points = self._landmarks.points(np.zeros(0), read.expected)
            pose = initial_pose(points, read.observed_px.astype(np.float64), self._camera)
            fresh = LandmarkSolution(*pose, np.zeros(0), read.expected, ())
            fresh = self._refine(read, fresh, 4 * _ITERATIONS)
            fresh_error = _fit_error(read, fresh, face, self._camera)
            if fresh_error < error or best is None:
                best, error = fresh, fresh_error
        return best, error

    def _refine(self, read: Reading, start: LandmarkSolution, steps: int) -> LandmarkSolution:
        return solve_landmarks(
            read.landmarks, read.observed_px, self._camera, read.expected, start=start, iterations=steps
        )
