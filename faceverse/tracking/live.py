"""Following a face as it is filmed: one frame in, its pose and expression out."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ParameterError
from ..fitting.solver import solve_landmarks
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

ESTIMATE_AFTER_FACES = (45, 300)  # frames with a face after which the person is estimated from all of them, and once again
_KEPT = 300  # of the sights from which that is done


@dataclass(frozen=True)
class TrackedFrame:
    """What a face does in one frame. NumPy float32.

    Args:
        seconds: of the frame.
        confidence: 0..1; 0 where no face was found: the values are those of the last frame with a face.
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
    """Follows one face frame by frame; a context manager. Not to be called by two threads at a time.

    The person is guessed from the first frame with a face, estimated in the background once some seconds have been
    seen, and once more later; the answers never wait for that.

    Args:
        model: by default that of `identity`, else the open model.
        identity: the person, where he is known.
        smooth: False leaves out the filter, which sees only the past and so lags by a frame at most.
        focal_px: focal length; by default it is found with the person, and until then `camera.default_camera`'s.
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
        self._meeting: threading.Thread | None = None
        self._estimate_person: FrameSolver | None = None
        self._observed_frames: list[FrameObservation] = []
        self._count = self._faces = 0
        self._last_s, self._shape, self._closed = None, None, False
        self._calibrated: tuple[FrameObservation, ...] = ()
        self._newest: SolvedFrame | None = None
        self.clear()

    def __enter__(self) -> LiveTracker:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def __call__(self, rgb: np.ndarray, seconds: float) -> TrackedFrame:
        """The next frame.

        Args:
            rgb: (H, W, 3) uint8, of the same size each time.
            seconds: later than that of the frame before.
        Raises:
            ImageError: the frame is no picture, or has another size.
            ParameterError: time does not increase, or the tracker is closed.
        """
        if self._closed:
            raise ParameterError("live.closed")
        checked_frame(self._count, seconds, rgb, self._last_s, self._shape)
        self._last_s, self._shape, self._count = seconds, rgb.shape, self._count + 1
        observed = self._face_tracker(seconds, rgb)
        with one_thread():
            state = self._solved(observed)
        if state.pose is not None and self._smooth:
            state = replace(state, pose=self._filter(state.pose, seconds, self.model.expression_limits))
        elif state.pose is None:
            self._filter.forget()
        self._record.add(state)
        self._newest = state if state.pose is not None else self._newest
        return self._answer(state)

    def _solved(self, observed: FrameObservation) -> SolvedFrame:
        if observed.face is not None:
            self._faces += 1
            self._observed_frames = [*self._observed_frames[-_KEPT + 1 :], observed]
            if self._solver is None:
                self._solver = FrameSolver(self._observer, self._guess(observed), self._quality)
            if self._faces in ESTIMATE_AFTER_FACES and (self._meeting is None or not self._meeting.is_alive()):
                self._meeting = threading.Thread(target=self._meet, args=(list(self._observed_frames),), daemon=True)
                self._meeting.start()
        if self._estimate_person is not None:
            self._estimate_person.take_over(self._solver)
            self._record.widen(self._estimate_person.person.camera.focal_px / self._solver.person.camera.focal_px)
            self._filter.forget()
            self._solver, self._estimate_person = self._estimate_person, None
            if self._calibrated:
                self._solver.person = self._solver.person.with_neutral_frames(self._calibrated, self._observer)
        return SolvedFrame(observed.seconds) if self._solver is None else self._solver(observed)

    def _guess(self, observed: FrameObservation) -> TrackedPerson:
        """The person, from one frame."""
        camera = default_camera(observed.image_size, self._focal_px)
        if self._known is not None:
            return TrackedPerson(self._known, camera)
        read = self._observer(self._observer.anybody, observed)
        found = solve_landmarks(read.landmarks, read.observed_px, camera, read.expected)
        return TrackedPerson(self.model.neutral().replace(identity=found.identity.astype(np.float32)), camera)

    def _meet(self, observed_frames: list[FrameObservation]) -> None:
        """In the background: the person, from all that was seen."""
        camera = default_camera(observed_frames[0].image_size, self._focal_px)
        with one_thread():
            person = estimate_person(observed_frames, self._observer, camera, self._known, self._focal_px is not None)
            self._estimate_person = FrameSolver(self._observer, person, self._quality)

    def _answer(self, state: SolvedFrame) -> TrackedFrame:
        shown = state if state.pose is not None else self._newest
        if shown is None:
            neutral = self.model.neutral()
            values = (neutral.rotation, neutral.translation, neutral.expression, neutral.light)
        else:
            values = (shown.pose.rotation, shown.pose.translation, shown.pose.expression, shown.light)
        rotation, translation, expression, light = (np.asarray(value, np.float32) for value in values)
        gaze = gaze_deg(expression[None], self.model.expression_names)[0]
        return TrackedFrame(state.seconds, state.confidence, rotation, translation, expression, gaze, light)

    def calibrate(self) -> None:
        """The face at this moment counts as at rest from now on; nothing happens while no face is seen."""
        if self._observed_frames and self._solver is not None and self._observer.network is not None:
            self._calibrated = tuple(self._observed_frames[-5:])
            self._solver.person = self._solver.person.with_neutral_frames(self._calibrated, self._observer)

    def track(self) -> Track:
        """All frames since the start, or since `clear`.

        Raises:
            ParameterError: none of them shows a face.
        """
        if self._solver is None or not (self._record.frames["confidence"] > 0).any():
            raise ParameterError("live.no_face")
        found = assemble(self.model, self._solver.person, self._record.frames, smooth=False)
        return found if self._subject is None else replace(found, subject=self._subject)

    def clear(self) -> None:
        """Forgets the recorded frames; the person stays known."""
        self._record = Record(len(self.model.expression_names))

    def close(self) -> None:
        """Lets go of the detector; called twice it does nothing."""
        if not self._closed:
            self._closed = True
            if self._meeting is not None:
                self._meeting.join()
            self._detector.close()
