"""Face tracking in video: pose, expression weights and light of every frame, and one identity for all.

Shape and skin are estimated jointly from key frames. Then each frame starts from the one before, and Gauss-Newton steps
combine the detector's landmarks, the expression regressor's prediction and the colours of the skin. No frame is stored:
until the person is estimated, its landmarks and a small crop of the face stand for it. Conventions: see camera.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import ImageError, NoFaceError, ParameterError
from ..fitting import Progress
from ..graphics.camera import default_camera
from ..io.files import check_file
from ..landmarks import VideoDetector
from ..memory import return_memory
from ..model.face_model import FaceModel, FaceParams
from ..result import FitResult
from ..threads import one_thread
from ..weights import load_model
from .files import load_track
from .frame_observation import FACES, FrameObservation, observe_frames, until_face_count
from .frame_solver import QUALITIES, FrameSolver
from .frames import checked, open_source
from .journal import Journal, JournalContent, Record, state_of_record
from .live import LiveTracker, TrackedFrame
from .motion import export_track
from .person import LandmarkObserver, TrackedPerson, estimate_person
from .result import Track, check_person
from .timeline import assemble

__all__ = ["LiveTracker", "Track", "TrackedFrame", "export_track", "load_track", "track"]

# Frames with a face from which the person is estimated, at least and at most. Of a video of known length it is a share,
# because later frames are solved while the detector goes on.
PERSON_FACES, _PERSON_SHARE = (120, 240), 0.4
_WARM_UP_FRAMES = 10  # frames before the first new one that the detector sees again when a run is continued


def track(
    source: str | os.PathLike | int | Iterable,
    model: FaceModel | None = None,
    *,
    identity: FitResult | FaceParams | None = None,
    smooth: bool = True,
    quality: str = "fast",
    on_progress: Progress | None = None,
    fps: float = 30.0,
    focal_px: float | None = None,
    journal: str | os.PathLike | None = None,
    keep_journal: bool = False,
) -> Track:
    """Track the largest face of a video.

    Args:
        source: a video file, a folder of images (in the order of their names), the number of a camera, or an iterable
            of frames (H, W, 3) uint8 RGB or of pairs (seconds, frame). All frames have one size. To track a camera
            live, see `LiveTracker`.
        model: by default that of `identity`, else the open model.
        identity: the person, such as the result of `fit`; by default shape and skin are estimated together from the
            best of the first 120 to 240 frames with a face.
        smooth: False leaves out the one-euro filters.
        quality: "fast", or "high": larger crops of the face and more steps, about twice the time.
        on_progress: called per frame with ("tracking", share of the frames done, None); the share stays 0 where the
            number of frames is unknown.
        fps: frames per second of sources without times: folders and plain frames.
        focal_px: focal length; by default it is estimated with the person (`tracking.focal_length`).
        journal: file that stores the frames while a video file or a folder is tracked. After an aborted run,
            `load_track` reads it, and the same call continues after its last frame. It is deleted at the end. Where the
            disk is full, it stops with a warning, and tracking goes on.
        keep_journal: keep the complete journal: the same call then returns the track at once. Delete it when the track
            is saved.
    Raises:
        ImageError: the source cannot be read, has no frames, or frames of different sizes.
        NoFaceError: no frame shows a face.
        ParameterError: times that do not increase, an identity of another model, fps or focal_px not above 0, an
            unknown quality, a journal that cannot be written or for another source than a file or a folder.
    """
    if not all(value is None or (np.isfinite(value) and value > 0) for value in (fps, focal_px)) or fps is None:
        raise ParameterError("track.positive", fps=fps, focal_px=focal_px)
    if quality not in QUALITIES:
        raise ParameterError("track.quality", known=", ".join(QUALITIES), quality=repr(quality))
    model, known = _choose_person(model, identity)
    writer = None
    if journal is not None:
        writer = Journal(Path(journal), _journal_settings(source, model, known, quality, fps, focal_px))
    earlier = None if writer is None else writer.earlier(model)
    done = 0 if earlier is None else len(earlier.frames)
    images, total = open_source(source, fps, max(done - _WARM_UP_FRAMES, 0))
    run = _Run(LandmarkObserver(model), quality, known, focal_px, _person_faces(total))
    with one_thread(), VideoDetector(max_faces=FACES) as detector:
        frames = observe_frames(checked(images), detector, QUALITIES[quality].picture_px)
        with contextlib.closing(frames):
            new = itertools.islice(frames, min(done, _WARM_UP_FRAMES), None)
            person, record = run(_with_progress(new, on_progress, done, total), writer, earlier)
    if writer is not None:
        writer.finish(person, record.frames, keep_journal)
    result = assemble(model, person, record.frames, smooth)
    return replace(result, subject=identity) if isinstance(identity, FitResult) else result


class _Run:
    """Tracks one video from its frame observations.

    Args:
        observer: of the model.
        quality: see `track`.
        known: the person, where known.
        focal_px: focal length, where known.
        person_faces: frames with a face from which the person is estimated.
    """

    def __init__(
        self,
        observer: LandmarkObserver,
        quality: str,
        known: FaceParams | None,
        focal_px: float | None,
        person_faces: int,
    ):
        self._observer, self._quality, self._known, self._focal_px = observer, QUALITIES[quality], known, focal_px
        self._person_faces = person_faces

    def __call__(
        self, frames: Iterator[FrameObservation], journal: Journal | None, earlier: JournalContent | None
    ) -> tuple[TrackedPerson, Record]:
        """The person, and the record of all frames."""
        first: list[FrameObservation] = []
        record = Record(len(self._observer.model.expression_names))
        if earlier is None:
            first = list(until_face_count(frames, self._person_faces))
            person = self._estimate_person(first)
            return_memory()
        else:
            person = earlier.person
            record.extend(earlier.frames)
        solver = FrameSolver(self._observer, person, self._quality)
        person = solver.person
        if journal is not None:
            journal.open(person, earlier)
        last = None if earlier is None or not len(earlier.frames) else state_of_record(earlier.frames[-1])
        if last is not None:
            solver.resume(last)
        try:
            for frame in itertools.chain(first, frames):
                row = record.add(solver(frame))
                if journal is not None:
                    journal.add(row)
        finally:
            if journal is not None:
                journal.close()
        return person, record

    def _estimate_person(self, frames: list[FrameObservation]) -> TrackedPerson:
        if not frames:
            raise ImageError("track.no_frames")
        with_face = [frame for frame in frames if frame.face is not None]
        if not with_face:
            raise NoFaceError("track.no_face", frames=len(frames))
        camera = default_camera(frames[0].image_size, self._focal_px)
        return estimate_person(with_face, self._observer, camera, self._known, self._focal_px is not None)


def _person_faces(total: int | None) -> int:
    """Frames with a face from which the person is estimated, in a video of `total` frames."""
    least, most = PERSON_FACES
    return most if total is None else int(np.clip(_PERSON_SHARE * total, least, most))


def _with_progress(
    frames: Iterator[FrameObservation], on_progress: Progress | None, done: int, total: int | None
) -> Iterator[FrameObservation]:
    """The frames; progress is reported as they are taken."""
    for number, frame in enumerate(frames, start=done + 1):
        yield frame
        if on_progress is not None:
            on_progress("tracking", min(number / total, 1.0) if total else 0.0, None)


def _journal_settings(source, model: FaceModel, known: FaceParams | None, quality: str, fps: float, focal_px) -> dict:
    """What the frames of a journal depend on."""
    if not isinstance(source, (str, os.PathLike)):
        raise ParameterError("track.journal_source")
    if not os.path.isdir(source):
        check_file(source, ImageError)
    name, status = Path(source).name, os.stat(source)
    person = None
    if known is not None:
        values = np.concatenate([known.identity, known.albedo]).astype(np.float32)
        person = hashlib.sha256(values.tobytes()).hexdigest()
    file = {"name": name, "bytes": status.st_size, "changed_ns": status.st_mtime_ns}
    options = {"quality": quality, "fps": float(fps), "focal_px": focal_px and float(focal_px)}
    return file | options | {"model": model.info.get("sha256") or model.name, "person": person}


def _choose_person(model: FaceModel | None, identity) -> tuple[FaceModel, FaceParams | None]:
    """The model, and the parameters of the person where known."""
    if isinstance(identity, FitResult):
        model, identity = (identity.model if model is None else model), identity.params
    model = load_model() if model is None else model
    if identity is None:
        return model, None
    if not isinstance(identity, FaceParams):
        raise ParameterError("track.identity_type", type=type(identity).__name__)
    check_person(identity, model)
    return model, identity
