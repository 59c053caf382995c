"""Live tracking: one frame in, its pose and expression out."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ParameterError
from ..fitting.solver import solve_landmarks
from ..fitting.state import FaceState
from ..graphics.camera import default_camera
from ..landmarks import VideoDetector
from ..model.face_model import FaceModel, FaceParams
from ..result import FitResult
from ..threads import one_thread
from ..weights import load_model
from .frame_observation import FACES, FaceTracker, FrameObservation
from .frame_solver import QUALITIES, FrameSolver, SolvedFrame
from .frames import checked_frame
from .journal import Record
from .person import LandmarkObserver, TrackedPerson, estimate_person
from .result import Track, check_person, gaze_deg
from .smoothing import LiveFilter
from .timeline import ROTATION_FILTER, TRANSLATION_FILTER, WEIGHT_FILTER, assemble

ESTIMATE_AFTER_FACES = (45, 300)  # frames with a face after which the person is estimated from the last ones
_MAX_STORED_FRAMES = 300  # of which that is done
_CALIBRATION_FRAMES = 5


@dataclass(frozen=True)
class TrackedFrame:
    """Pose, expression and light of one frame. NumPy float32.

    Args:
        seconds: time of the frame.
        confidence: 0..1; 0 without a face: the values are then those of the last frame with a face.
        rotation: (3, 3) head to camera; translation: (3,) metres.
        expression: (E,) in the order of `FaceModel.expression_names`.
        gaze: (2,) degrees: yaw to the subject's left, pitch up.
        light: (9, 3).
    """

    seconds: float
    confidence: float
    rotation: np.ndarray
    translation: np.ndarray
    expression: np.ndarray
    gaze: np.ndarray
    light: np.ndarray


class LiveTracker:
    """Tracks one face frame by frame; a context manager. Not thread-safe.

    The first frame with a face gives an initial estimate of the person. After a few seconds, and once more later, the
    person is estimated in the background; no frame waits for that.

    Args:
        model: by default that of `identity`, else the open model.
        identity: the person, where known.
        smooth: False leaves out the causal filter, which lags by a frame at most.
        focal_px: focal length; by default it is estimated with the person, and until then `camera.default_camera`'s.
    Raises:
        ParameterError: an identity of another model, or focal_px not above 0.
    """

    def __init__(
        self,
        model: FaceModel | None = None,
        *,
        identity: FitResult | FaceParams | None = None,
        smooth: bool = True,
        focal_px: float | None = None,
    ):
        if focal_px is not None and not (np.isfinite(focal_px) and focal_px > 0):
            raise ParameterError("track.focal_px", focal_px=focal_px)
        self._subject = identity if isinstance(identity, FitResult) else None
        if self._subject is not None:
            model, identity = model or self._subject.model, self._subject.params
        self.model = load_model() if model is None else model
        if identity is not None:
            if not isinstance(identity, FaceParams):
                raise ParameterError("track.identity_type", type=type(identity).__name__)
            check_person(identity, self.model)
        self._known, self._focal_px, self._smooth = identity, focal_px, smooth
        self._observer, self._quality = LandmarkObserver(self.model), QUALITIES["fast"]
        self._detector = VideoDetector(max_faces=FACES)
        self._face_tracker = FaceTracker(self._detector, self._quality.picture_px)
        self._filter = LiveFilter(ROTATION_FILTER, TRANSLATION_FILTER, WEIGHT_FILTER)
        self._solver: FrameSolver | None = None
        self._estimation_thread: threading.Thread | None = None
        self._next_solver: FrameSolver | None = None  # with the person that the thread has estimated
        self._face_frames: list[FrameObservation] = []
        self._count = self._face_count = 0
        self._last_s: float | None = None
        self._shape: tuple[int, ...] | None = None
        self._closed = False
        self._calibration_frames: tuple[FrameObservation, ...] = ()
        self._last_state: FaceState | None = None
        self.clear()

    def __enter__(self) -> LiveTracker:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def __call__(self, rgb: np.ndarray, seconds: float) -> TrackedFrame:
        """Track the next frame.

        Args:
            rgb: (H, W, 3) uint8, of the same size each time.
            seconds: time of the frame, later than that of the last one.
        Raises:
            ImageError: the frame is no picture, or has another size.
            ParameterError: time does not increase, or the tracker is closed.
        """
        if self._closed:
            raise ParameterError("live.closed")
        checked_frame(self._count, seconds, rgb, self._last_s, self._shape)
        self._last_s, self._shape, self._count = seconds, rgb.shape, self._count + 1
        frame = self._face_tracker(seconds, rgb)
        with one_thread():
            solved = self._solve(frame)
        if solved.state is None:
            self._filter.reset()
        elif self._smooth:
            solved = replace(solved, state=self._filter(solved.state, seconds, self.model.expression_limits))
        self._record.add(solved)
        self._last_state = solved.state or self._last_state
        state = self._last_state or FaceState.from_params(self.model.neutral())
        return _tracked_frame(solved, state, self.model)

    def _solve(self, frame: FrameObservation) -> SolvedFrame:
        if frame.face is not None:
            self._face_count += 1
            self._face_frames = [*self._face_frames[-_MAX_STORED_FRAMES + 1 :], frame]
            if self._solver is None:
                self._solver = FrameSolver(self._observer, self._initial_person(frame), self._quality)
            self._start_estimation()
        if self._next_solver is not None:
            assert self._solver is not None
            self._next_solver.continue_from(self._solver)
            self._record.scale_distance(self._next_solver.person.camera.focal_px / self._solver.person.camera.focal_px)
            self._filter.reset()
            self._solver, self._next_solver = self._next_solver, None
            if self._calibration_frames:
                self._set_neutral_frames()
        return SolvedFrame(frame.seconds) if self._solver is None else self._solver(frame)

    def _initial_person(self, frame: FrameObservation) -> TrackedPerson:
        """The person, from one frame."""
        camera = default_camera(frame.image_size, self._focal_px)
        if self._known is not None:
            return TrackedPerson(self._known, camera)
        observation = self._observer.observe(self._observer.generic, frame)
        solution = solve_landmarks(observation.landmarks, observation.observed_px, camera, observation.expected)
        identity = solution.state.identity.astype(np.float32)
        return TrackedPerson(self.model.neutral().replace(identity=identity), camera)

    def _start_estimation(self) -> None:
        """Estimate the person in the background, after certain numbers of frames with a face."""
        thread = self._estimation_thread
        if self._face_count in ESTIMATE_AFTER_FACES and (thread is None or not thread.is_alive()):
            frames = list(self._face_frames)
            self._estimation_thread = threading.Thread(target=self._estimate_person, args=(frames,), daemon=True)
            self._estimation_thread.start()

    def _estimate_person(self, frames: list[FrameObservation]) -> None:
        """Estimate the person from frames with a face."""
        camera = default_camera(frames[0].image_size, self._focal_px)
        with one_thread():
            person = estimate_person(frames, self._observer, camera, self._known, self._focal_px is not None)
            self._next_solver = FrameSolver(self._observer, person, self._quality)

    def calibrate(self) -> None:
        """Take the face in the last frames as neutral from now on; nothing happens before the first face."""
        if self._face_frames and self._solver is not None and self._observer.expression_regressor is not None:
            self._calibration_frames = tuple(self._face_frames[-_CALIBRATION_FRAMES:])
            self._set_neutral_frames()

    def _set_neutral_frames(self) -> None:
        assert self._solver is not None
        self._solver.person = self._solver.person.with_neutral_frames(self._calibration_frames, self._observer)

    def track(self) -> Track:
        """The track of all frames since the first, or since `clear`.

        Raises:
            ParameterError: none of them shows a face.
        """
        if self._solver is None or not (self._record.frames["confidence"] > 0).any():
            raise ParameterError("live.no_face")
        track = assemble(self.model, self._solver.person, self._record.frames, smooth=False)
        return track if self._subject is None else replace(track, subject=self._subject)

    def clear(self) -> None:
        """Delete the recorded frames; the person is kept."""
        self._record = Record(len(self.model.expression_names))

    def close(self) -> None:
        """Release the detector; a second call does nothing."""
        if not self._closed:
            self._closed = True
            if self._estimation_thread is not None:
                self._estimation_thread.join()
            self._detector.close()


def _tracked_frame(solved: SolvedFrame, state: FaceState, model: FaceModel) -> TrackedFrame:
    """A solved frame with the state to show for it, which is an earlier one where it has no face."""
    values = state.per_image()
    gaze = gaze_deg(values["expression"][None], model.expression_names)[0]
    return TrackedFrame(solved.seconds, solved.confidence, gaze=gaze, **values)
