"""Frame observations: the tracked face of each frame, as landmarks, scores and a small crop of the image.

Frames are large; only their observations are stored until the person is estimated.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..fitting.iris import EyeColours, eye_colours
from ..fitting.photometric import crop_box, crop_photo
from ..graphics.camera import Camera
from ..landmarks import DetectedFace, VideoDetector, detect_faces

_QUEUE_SIZE = 64  # observations by which the detector may run ahead, so that it works while a person is estimated
FACES = 2  # that the detector looks for: a single one it smooths over time, which adds latency
_SEARCH_INTERVAL_S = 1.0  # between searches of the whole frame for a face that the detector does not find
_CROWD_SEARCH_INTERVAL_S = 0.1  # while the detector follows other faces; a search takes several frames' time
# Shares of the frame's long side: below the first a face is tracked in a window, from the second no longer.
_SMALL_FACE = (0.14, 0.2)
_WINDOW_FACES = 3.5  # side of that window in face sizes
_REACQUIRE_S = 0.5  # within this time the target must reappear near its last place; afterwards any face becomes it
_EYES_INTERVAL_S = 0.15  # between frames in which the colour of the eyes is measured, which takes over a millisecond
_MIN_OVERLAP = 0.1  # of boxes (intersection over union) of one face in successive frames


@dataclass(frozen=True)
class FrameObservation:
    """The face in one frame.

    Args:
        seconds: time of the frame.
        image_size: (height, width) of the frame.
        face: in pixels of the frame; None: no face, and none of the following.
        picture: (S, S, 3) uint8, crop of the face.
        inside: (S, S) bool, where the crop shows the frame.
        box: (x0, y0, x1, y1) of the crop in pixels of the frame.
        eyes: colours of the open eyes in some of the frames; from the frame, because in the crop irises have two
            pixels.
    """

    seconds: float
    image_size: tuple[int, int]
    face: DetectedFace | None = None
    picture: np.ndarray | None = None
    inside: np.ndarray | None = None
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    eyes: tuple[EyeColours, ...] = ()

    @property
    def detected(self) -> DetectedFace:
        """The face of a frame that has one."""
        assert self.face is not None
        return self.face

    @property
    def crop(self) -> tuple[np.ndarray, np.ndarray]:
        """`picture` and `inside` of a frame with a face."""
        assert self.picture is not None and self.inside is not None
        return self.picture, self.inside

    def camera(self, camera: Camera) -> Camera:
        """The camera of the crop, from that of the frame."""
        return camera.cropped(self.box, self.crop[0].shape[:2])


class FaceTracker:
    """Tracks one face, the target, from frame to frame.

    A face that is too small for the detector in the whole frame is searched for at intervals, and then tracked in a
    window around it. The same goes for a target that was occluded while the detector switched to other faces.

    Args:
        detector: that tracks FACES faces.
        picture_px: side of the crops.
    """

    def __init__(self, detector: VideoDetector, picture_px: int):
        self._detector, self._picture_px = detector, picture_px
        self._first_s: float | None = None
        self._last_ms: int | None = None
        self._box: np.ndarray | None = None  # of the target, where it was last seen
        self._seen_s = self._searched_s = self._eyes_s = -np.inf
        self._window: tuple[int, int, int, int] | None = None
        self._crowded = False  # other faces took the target's place: the window stays, whatever the target's size

    def __call__(self, seconds: float, rgb: np.ndarray) -> FrameObservation:
        """Observe the next frame (H, W, 3) uint8."""
        self._first_s = seconds if self._first_s is None else self._first_s
        milliseconds = round(1000 * (seconds - self._first_s))
        if self._last_ms is not None:
            milliseconds = max(milliseconds, self._last_ms + 1)  # frames may follow within the detector's unit of time
        self._last_ms = milliseconds
        detected = self._detect(rgb, milliseconds)
        face = self._match(detected, seconds)
        searched = face is None
        if face is None and len(detected) >= FACES:
            if self._searched_s + _CROWD_SEARCH_INTERVAL_S <= seconds:
                self._crowded, self._searched_s = True, seconds
                face = self._match(self._search_near_target(rgb), seconds)
        elif face is None and max(self._seen_s, self._searched_s) + _SEARCH_INTERVAL_S <= seconds:
            self._searched_s = seconds
            face = self._match(detect_faces(rgb, max_faces=1), seconds)
        if face is not None and (searched or self._window is not None):
            self._window = self._window_for(face, rgb.shape[:2])
        elif seconds - self._seen_s > _REACQUIRE_S:
            self._window = None
        if face is None:
            return FrameObservation(seconds, rgb.shape[:2])
        box = crop_box(face.landmarks_px)
        height, width = rgb.shape[:2]
        if box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0:
            return FrameObservation(seconds, rgb.shape[:2])
        picture, inside = crop_photo(rgb, box, self._picture_px)
        eyes: tuple[EyeColours, ...] = ()
        if self._eyes_s + _EYES_INTERVAL_S <= seconds and (eyes := eye_colours(rgb, face.landmarks_px)):
            self._eyes_s = seconds
        return FrameObservation(seconds, rgb.shape[:2], face, picture, inside, box, eyes)

    def _detect(self, rgb: np.ndarray, milliseconds: int) -> list[DetectedFace]:
        """Faces in the frame, or in the window if there is one."""
        if self._window is None:
            return self._detector(rgb, milliseconds)
        detected = self._detector(_crop(rgb, self._window), milliseconds)
        return [_translated(face, self._window) for face in detected]

    def _search_near_target(self, rgb: np.ndarray) -> list[DetectedFace]:
        """All faces around the target's last place."""
        assert self._box is not None
        window = _square_around(self._box, rgb.shape[:2])
        if window is None:
            return []
        return [_translated(face, window) for face in detect_faces(_crop(rgb, window))]

    def _window_for(self, face: DetectedFace, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
        """Window (x0, y0, x1, y1) in which the next frame is searched for a face; None: the whole frame.

        The window stays in place while the face is well inside it, because the detector tracks in its pixels.
        """
        x0, y0, x1, y1 = (float(value) for value in face.box_px)
        face_px = max(x1 - x0, y1 - y0)
        if face_px > _SMALL_FACE[self._window is not None] * max(size) and not self._crowded:
            return None
        if self._window is not None:
            left, top, right, bottom = self._window
            margin = 0.5 * face_px
            inside = left <= max(x0 - margin, 0) and top <= max(y0 - margin, 0)
            inside = inside and right >= min(x1 + margin, size[1]) and bottom >= min(y1 + margin, size[0])
            if inside and face_px > 0.6 * (right - left) / _WINDOW_FACES:
                return self._window
        return _square_around(face.box_px, size)

    def _match(self, detected: list[DetectedFace], seconds: float) -> DetectedFace | None:
        """The target among detected faces: near its last place for _REACQUIRE_S, afterwards any face."""
        last = self._box
        if last is not None and seconds - self._seen_s <= _REACQUIRE_S:
            detected = [face for face in detected if _overlap(face.box_px, last) > _MIN_OVERLAP]
        elif detected:
            self._crowded = False
        if not detected:
            return None
        face = detected[0] if last is None else max(detected, key=lambda f: _overlap(f.box_px, last))
        self._box, self._seen_s = face.box_px, seconds
        return face


def _square_around(box_px: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Window (x0, y0, x1, y1) in whole pixels around a face's box (4,) in a frame of (height, width); None where it
    lies outside the frame."""
    centre, side = (box_px[:2] + box_px[2:]) / 2, _WINDOW_FACES * float(max(box_px[2:] - box_px[:2]))
    edges = [round(float(centre[k]) + sign * side / 2) for sign in (-1, 1) for k in (0, 1)]
    x0, y0, x1, y1 = (int(np.clip(edge, 0, limit)) for edge, limit in zip(edges, (size[1], size[0]) * 2, strict=True))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _crop(rgb: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    x0, y0, x1, y1 = window
    return np.ascontiguousarray(rgb[y0:y1, x0:x1])


def _translated(face: DetectedFace, window: tuple[int, int, int, int]) -> DetectedFace:
    """A face detected in a window, in pixels of the frame."""
    corner = np.array(window[:2], np.float32)
    return replace(face, box_px=face.box_px + np.tile(corner, 2), landmarks_px=face.landmarks_px + corner)


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes (4,)."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    intersection = float(np.prod(np.maximum(sides, 0)))
    union = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - intersection
    return intersection / max(union, 1e-9)


def observe_frames(
    frames: Iterator[tuple[float, np.ndarray]],
    detector: VideoDetector,
    picture_px: int,
) -> Generator[FrameObservation, None, None]:
    """Observe all frames; the detector works ahead in a thread of its own.

    Args:
        frames: pairs of seconds and (H, W, 3) uint8.
        detector: that tracks FACES faces.
        picture_px: side of the crops.
    """
    ready: queue.Queue = queue.Queue(_QUEUE_SIZE)
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
        except BaseException as error:  # raised again in the thread that takes the observations
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
        worker.join()  # it must not use the detector and the file once they are closed
        close = getattr(frames, "close", None)
        if close is not None:
            close()


def until_face_count(frames: Iterator[FrameObservation], faces: int) -> Iterator[FrameObservation]:
    """Frames up to the one that shows a face for the `faces`-th time."""
    count = 0
    for frame in frames:
        yield frame
        count += frame.face is not None
        if count == faces:
            return
