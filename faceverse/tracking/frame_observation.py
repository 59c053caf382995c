"""What is kept of a frame: landmarks, scores and a small picture of the face."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..fitting.photometric import crop_box, crop_photo
from ..graphics.camera import Camera
from ..landmarks import DetectedFace, VideoDetector, detect_faces

AHEAD = 64  # sights that the detector may be ahead of who asks for them, so that it goes on while a person is decided
FACES = 2  # that the detector looks for: of one alone it smooths its answers, which then come late
_SEARCH_S = 1.0  # so often a face is searched for that the detector does not find
_CROWD_SEARCH_S = 0.1  # and so often where the detector has turned to others: a search takes several frames' time
_SMALL = (0.14, 0.2)  # shares of the frame's long side: smaller faces are looked at in a window, larger ones no longer
_WINDOW_FACES = 3.5  # side of that window in sizes of the face
_MOST_LOST_S = 0.5  # after so long without a face whoever comes next is the one who is followed


@dataclass(frozen=True)
class FrameObservation:
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


class FaceTracker:
    """Turns frames into sights, one after the other; follows one person.

    A face that is too small for the detector in the whole frame is searched for now and then, and followed in a square
    cut out around it. So is who was hidden for a moment, while the detector turned to somebody else.

    Args:
        detector: that follows FACES faces.
        picture_px: side of the sights' pictures.
    """

    def __init__(self, detector: VideoDetector, picture_px: int):
        self._detector, self._size = detector, picture_px
        self._first_s = self._last_ms = None
        self._box: np.ndarray | None = None
        self._seen_s = self._searched_s = -np.inf
        self._window: tuple[int, int, int, int] | None = None
        self._crowded = False  # somebody else was there: the window stays, however near the face comes

    def __call__(self, seconds: float, rgb: np.ndarray) -> FrameObservation:
        """The face in the next frame, as far as there is one."""
        self._first_s = seconds if self._first_s is None else self._first_s
        milliseconds = round(1000 * (seconds - self._first_s))
        if self._last_ms is not None:
            milliseconds = max(milliseconds, self._last_ms + 1)  # frames may follow within the detector's unit of time
        self._last_ms = milliseconds
        found = self._detected(rgb, milliseconds)
        face = self._followed(found, seconds)
        searched = face is None
        if face is None and len(found) >= FACES:
            if self._searched_s + _CROWD_SEARCH_S <= seconds:
                self._crowded, self._searched_s = True, seconds
                face = self._followed(self._near_last(rgb), seconds)
        elif face is None and max(self._seen_s, self._searched_s) + _SEARCH_S <= seconds:
            self._searched_s = seconds
            face = self._followed(detect_faces(rgb, max_faces=1), seconds)
        if face is not None and (searched or self._window is not None):
            self._window = self._window_for(face, rgb.shape[:2])
        elif seconds - self._seen_s > _MOST_LOST_S:
            self._window = None
        if face is None:
            return FrameObservation(seconds, rgb.shape[:2])
        box = crop_box(face.landmarks_px)
        height, width = rgb.shape[:2]
        if box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0:
            return FrameObservation(seconds, rgb.shape[:2])
        return FrameObservation(seconds, rgb.shape[:2], face, *crop_photo(rgb, box, self._size), box)

    def _detected(self, rgb: np.ndarray, milliseconds: int) -> list[DetectedFace]:
        """Faces in the frame, or in the window where one is."""
        if self._window is None:
            return self._detector(rgb, milliseconds)
        found = self._detector(_part(rgb, self._window), milliseconds)
        return [_shifted(face, self._window) for face in found]

    def _near_last(self, rgb: np.ndarray) -> list[DetectedFace]:
        """All faces around where the one that is followed was last."""
        window = _square_around(self._box, rgb.shape[:2])
        if window is None:
            return []
        return [_shifted(face, window) for face in detect_faces(_part(rgb, window))]

    def _window_for(self, face: DetectedFace, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
        """Where to look for a face in the next frame: x0, y0, x1, y1; None: everywhere.

        It stays where it is as long as the face is well inside, so that the detector finds it where it was.
        """
        x0, y0, x1, y1 = (float(value) for value in face.box_px)
        wide = max(x1 - x0, y1 - y0)
        if wide > _SMALL[self._window is not None] * max(size) and not self._crowded:
            return None
        if self._window is not None:
            left, top, right, bottom = self._window
            bounds = 0.5 * wide
            inside = left <= max(x0 - bounds, 0) and top <= max(y0 - bounds, 0)
            inside = inside and right >= min(x1 + bounds, size[1]) and bottom >= min(y1 + bounds, size[0])
            if inside and wide > 0.6 * (right - left) / _WINDOW_FACES:
                return self._window
        return _square_around(face.box_px, size)

    def _followed(self, found: list[DetectedFace], seconds: float) -> DetectedFace | None:
        """The face that is followed: who was seen a moment ago must be near that place; later anybody is welcome."""
        if self._box is not None and seconds - self._seen_s <= _MOST_LOST_S:
            found = [face for face in found if _overlap(face.box_px, self._box) > 0.1]
        elif found:
            self._crowded = False  # whoever it is, it begins anew
        if not found:
            return None
        face = found[0] if self._box is None else max(found, key=lambda f: _overlap(f.box_px, self._box))
        self._box, self._seen_s = face.box_px, seconds
        return face


def _square_around(box_px: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The window around a face's box (4,) in a frame of (height, width): x0, y0, x1, y1 in whole pixels; None where
    nothing of it is in the frame."""
    middle, side = (box_px[:2] + box_px[2:]) / 2, _WINDOW_FACES * float(max(box_px[2:] - box_px[:2]))
    edges = [round(float(middle[k]) + sign * side / 2) for sign in (-1, 1) for k in (0, 1)]
    x0, y0, x1, y1 = (
        int(np.clip(edge, 0, limit)) for edge, limit in zip(edges, (size[1], size[0]) * 2, strict=True)
    )
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _part(rgb: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    x0, y0, x1, y1 = window
    return np.ascontiguousarray(rgb[y0:y1, x0:x1])


def _shifted(face: DetectedFace, window: tuple[int, int, int, int]) -> DetectedFace:
    """A face that was found in a window, in pixels of the frame."""
    corner = np.float32(window[:2])
    return replace(face, box_px=face.box_px + np.tile(corner, 2), landmarks_px=face.landmarks_px + corner)


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Common area of two boxes (4,) over that of both."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    both = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - common
    return common / max(both, 1e-9)


def observe_frames(
    frames: Iterator[tuple[float, np.ndarray]],
    detector: VideoDetector,
    picture_px: int,
) -> Iterator[FrameObservation]:
    """The face in each frame. The detector works in a thread of its own, a few frames ahead of who takes the sights.

    Args:
        picture_px: side of the sights' pictures.
    """
    ready: queue.Queue = queue.Queue(AHEAD)
    ended = threading.Event()
    tracker = FaceTracker(detector, picture_px)

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
                if not put(tracker(seconds, rgb)):
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


def until_known(observed_frames: Iterator[FrameObservation], faces: int) -> Iterator[FrameObservation]:
    """Sights up to the one that shows a face for the `faces`-th time."""
    count = 0
    for observed in observed_frames:
        yield observed
        count += observed.face is not None
        if count == faces:
            return
