"""Following one face through a video: pose, expression weights and light of every frame, one identity for all.

Shape and skin are found jointly from the frames that show them best. Then each frame starts from the one before:
the detector's landmarks, what a learned network says of the movement, and the colours of the skin decide in a
Gauss-Newton step. No frame is kept: until the person is known, a frame waits as its landmarks and a small picture of
the face. Conventions: see camera.py.
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
from ..landmarks import VideoDetector
from ..memory import return_memory
from ..model.face_model import FaceModel, FaceParams
from ..result import FitResult
from ..threads import one_thread
from ..weights import load_model
from .files import load_track
from .frame_observation import FACES, FrameObservation, observe_frames, until_known
from .frame_solver import QUALITIES, FrameSolver
from .frames import checked, open_source
from .journal import Found, Journal, Record
from .live import LiveTracker, TrackedFrame
from .motion import export_track
from .person import LandmarkObserver, TrackedPerson, estimate_person
from .result import Track, check_person
from .timeline import assemble

__all__ = ["LiveTracker", "Track", "TrackedFrame", "export_track", "load_track", "track"]

# So many frames with a face are seen before the person is decided, at least and at most; of a video of known length a
# share, because what follows is solved while the detector goes on.
WAITING_FACES, _WAITING_SHARE = (120, 240), 0.4
_REPEATED = 10  # frames that are seen again after a stop, so that the detector finds its way


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
) -> Track:
    """Follow the largest face of a video.

    Args:
        source: a video file, a folder of pictures (in the order of their names), the number of a camera, or an iterable
            of frames (H, W, 3) uint8 RGB or of pairs (seconds, frame). All frames have one size. For a camera that is
            to be followed as it films see `LiveTracker`.
        model: by default that of `identity`, else the open model.
        identity: the person, such as `fit` finds from a photograph; by default shape and skin are estimated
            together from the best of the first 120 to 240 frames with a face.
        smooth: False leaves out the one-euro filters.
        quality: "fast", or "high": larger pictures of the face and more steps, about twice the time.
        on_progress: called per frame with ("tracking", share of the frames done, None); the share stays 0 where the
            number of frames is unknown.
        fps: frames per second where the source does not tell: folders and frames without a time.
        focal_px: focal length; by default it is found with the person (`tracking.focal_length`).
        journal: file in which frames are kept while a video file or a folder is tracked, for a run that is stopped:
            `load_track` reads it, and the same call goes on behind its last frame. It is deleted at the end.
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
    book = None if journal is None else Journal(Path(journal), _about(source, model, known, quality, fps, focal_px))
    earlier = None if book is None else book.earlier(model)
    done = 0 if earlier is None else len(earlier.frames)
    frames, total = open_source(source, fps, max(done - _REPEATED, 0))
    run = _Run(LandmarkObserver(model), quality, known, focal_px, _waiting(total))
    with one_thread(), VideoDetector(max_faces=FACES) as detector:
        observed_frames = observe_frames(checked(frames), detector, QUALITIES[quality].picture_px)
        with contextlib.closing(observed_frames):
            fresh = itertools.islice(observed_frames, min(done, _REPEATED), None)
            person, record = run(_told(fresh, on_progress, done, total), book, earlier)
    found = assemble(model, person, record.frames, smooth)
    return replace(found, subject=identity) if isinstance(identity, FitResult) else found


class _Run:
    """One video from its sights.

    Args:
        observer: of the model.
        quality: see `track`.
        known: the person, where he is.
        focal_px: focal length, where it is known.
        waiting: frames with a face that decide who it is.
    """

    def __init__(
        self, observer: LandmarkObserver, quality: str, known: FaceParams | None, focal_px: float | None, waiting: int
    ):  # fmt: skip
        self._observer, self._quality, self._known, self._focal_px = observer, QUALITIES[quality], known, focal_px
        self._waiting = waiting

    def __call__(self, observed_frames: Iterator[FrameObservation], book: Journal | None, earlier: Found | None) -> tuple[TrackedPerson, Record]:
        """Who is seen, and all frames."""
        waiting: list[FrameObservation] = []
        record = Record(len(self._observer.model.expression_names))
        if earlier is None:
            waiting = list(until_known(observed_frames, self._waiting))
            person = self._estimate_person(waiting)
            return_memory()
        else:
            person = earlier.person
            record.extend(earlier.frames)
        solver = FrameSolver(self._observer, person, self._quality)
        person = solver.person
        if book is not None:
            book.open(person, earlier)
        if earlier is not None and len(earlier.frames):
            solver.go_on(earlier.frames[-1])
        whole = False
        try:
            for observed in itertools.chain(waiting, observed_frames):
                row = record.add(solver(observed))
                if book is not None:
                    book.add(row)
            whole = True
        finally:
            if book is not None:
                book.close(whole)
        return person, record

    def _estimate_person(self, waiting: list[FrameObservation]) -> TrackedPerson:
        if not waiting:
            raise ImageError("track.no_frames")
        seen = [observed for observed in waiting if observed.face is not None]
        if not seen:
            raise NoFaceError("track.no_face", frames=len(waiting))
        camera = default_camera(waiting[0].image_size, self._focal_px)
        return estimate_person(seen, self._observer, camera, self._known, self._focal_px is not None)


def _waiting(total: int | None) -> int:
    """Frames with a face that decide who it is, of a video with so many frames."""
    least, most = WAITING_FACES
    return most if total is None else int(np.clip(_WAITING_SHARE * total, least, most))


def _told(
    observed_frames: Iterator[FrameObservation], on_progress: Progress | None, done: int, total: int | None
) -> Iterator[FrameObservation]:
    """The sights; how far they are is told as they are taken."""
    for number, observed in enumerate(observed_frames, start=done + 1):
        yield observed
        if on_progress is not None:
            on_progress("tracking", min(number / total, 1.0) if total else 0.0, None)


def _about(source, model: FaceModel, known: FaceParams | None, quality: str, fps: float, focal_px) -> dict:
    """What the frames of a journal depend on."""
    if not isinstance(source, (str, os.PathLike)):
        raise ParameterError("track.journal_source")
    try:
        place, state = Path(source), os.stat(source)
    except OSError as error:
        raise ImageError("file.missing", path=source) from error
    person = None
    if known is not None:
        values = np.concatenate([known.identity, known.albedo]).astype(np.float32)
        person = hashlib.sha256(values.tobytes()).hexdigest()
    sizes = {"name": place.name, "bytes": state.st_size, "changed_ns": state.st_mtime_ns}
    settings = {"quality": quality, "fps": float(fps), "focal_px": focal_px and float(focal_px)}
    return sizes | settings | {"model": model.info.get("sha256") or model.name, "person": person}


def _choose_person(model: FaceModel | None, identity) -> tuple[FaceModel, FaceParams | None]:
    """The model, and the parameters of the person where they are known."""
    if isinstance(identity, FitResult):
        model, identity = (identity.model if model is None else model), identity.params
    model = load_model() if model is None else model
    if identity is None:
        return model, None
    if not isinstance(identity, FaceParams):
        raise ParameterError("track.identity_type", type=type(identity).__name__)
    check_person(identity, model)
    return model, identity
