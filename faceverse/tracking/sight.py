"""What is kept of a frame: landmarks, scores and a small picture of the face."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..camera import Camera
from ..fitting.photometric import crop_box, cut
from ..landmarks import DetectedFace, VideoDetector

AHEAD = 64  # sights that the detector may be ahead of who asks for them, so that it goes on while a person is decided
_MOST_LOST_S = 0.5  # after so long without a face whoever comes next is the one who is followed


@dataclass(frozen=True)
class Sight:
    """What is kept of a frame: the square of it (S, S, 3) uint8 that shows the face, and where it lies in pixels."""

    seconds: float
    image_size: tuple[int, int]
    face: DetectedFace | None = None
    picture: np.ndarray | None = None
    inside: np.ndarray | None = None
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    def camera(self, camera: Camera) -> Camera:
        """The camera of the picture, from that of the frame."""
        return camera.cropped(self.box, self.picture.shape[:2])


class Watch:
    """Turns frames into sights, one after the other; follows one person.

    Args:
        detector: that follows faces.
        picture_px: side of the sights' pictures.
    """

    def __init__(self, detector: VideoDetector, picture_px: int):
        self._detector, self._size = detector, picture_px
        self._first_s = self._last_ms = None
        self._box: np.ndarray | None = None
        self._seen_s = -np.inf

    def __call__(self, seconds: float, rgb: np.ndarray) -> Sight:
        """The face in the next frame, as far as there is one."""
        self._first_s = seconds if self._first_s is None else self._first_s
        milliseconds = round(1000 * (seconds - self._first_s))
        if self._last_ms is not None:
            milliseconds = max(milliseconds, self._last_ms + 1)  # frames may follow within the detector's unit of time
        self._last_ms = milliseconds
        face = self._followed(self._detector(rgb, milliseconds), seconds)
        if face is None:
            return Sight(seconds, rgb.shape[:2])
        box = crop_box(face.landmarks_px)
        height, width = rgb.shape[:2]
        if box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0:
            return Sight(seconds, rgb.shape[:2])
        return Sight(seconds, rgb.shape[:2], face, *cut(rgb, box, self._size), box)

    def _followed(self, found: list[DetectedFace], seconds: float) -> DetectedFace | None:
        """The face that is followed: who was seen a moment ago must be near that place; later anybody is welcome."""
        if self._box is not None and seconds - self._seen_s <= _MOST_LOST_S:
            found = [face for face in found if _overlap(face.box_px, self._box) > 0.1]
        if not found:
            return None
        face = found[0] if self._box is None else max(found, key=lambda f: _overlap(f.box_px, self._box))
        self._box, self._seen_s = face.box_px, seconds
        return face


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Common area of two boxes (4,) over that of both."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    both = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - common
    return common / max(both, 1e-9)


def sights_of(
    frames: Iterator[tuple[float, np.ndarray]],
    detector: VideoDetector,
    picture_px: int,
) -> Iterator[Sight]:
    """The face in each frame. The detector works in a thread of its own, a few frames ahead of who takes the sights.

    Args:
        picture_px: side of the sights' pictures.
    """
    ready: queue.Queue = queue.Queue(AHEAD)
    ended = threading.Event()
    watch = Watch(detector, picture_px)

    def put(item) -> bool:
        while not ended.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for seconds, rgb in frames:
                if not put(watch(seconds, rgb)):
                    return
            put(None)
        except BaseException as error:  # whoever takes the sights has to hear of it
            put(error)

    worker = threading.Thread(target=work, name="faceverse-detector", daemon=True)
    worker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
        worker.join()  # the detector and the file must not be closed under it
        close = getattr(frames, "close", None)
        if close is not None:
            close()


def until_known(sights: Iterator[Sight], faces: int) -> Iterator[Sight]:
    """Sights up to the one that shows a face for the `faces`-th time."""
    count = 0
    for sight in sights:
        yield sight
        count += sight.face is not None
        if count == faces:
            return
