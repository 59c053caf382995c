"""What is kept of a frame: landmarks, scores and a small picture of the face."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..fitting import Progress
from ..landmarks import DetectedFace, VideoDetector

_WAITING_FACES = 60  # so many frames with a face are seen before the identity is decided
_FACE_PICTURE_PX = 64


@dataclass(frozen=True)
class Sight:
    """What is kept of a frame: picture (h, w, 3) uint8 shows the face from pixel (x0, y0) on, reduced by step."""

    seconds: float
    image_size: tuple[int, int]
    face: DetectedFace | None = None
    picture: np.ndarray | None = None
    x0: int = 0
    y0: int = 0
    step: int = 1

    def colours(self, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colours (K, 3) uint8 at points (K, 2), and which of the points lie in the picture (K,) bool."""
        column, row = ((points_px - (self.x0, self.y0)) // self.step).astype(np.int64).T
        height, width = self.picture.shape[:2]
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        return self.picture[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)], inside


def sights_of(
    frames: Iterator[tuple[float, np.ndarray]],
    detector: VideoDetector,
    total: int | None,
    on_progress: Progress | None,
) -> Iterator[Sight]:
    """The face in each frame, as far as there is one."""
    first_s = last_ms = None
    for index, (seconds, rgb) in enumerate(frames):
        first_s = seconds if first_s is None else first_s
        milliseconds = round(1000 * (seconds - first_s))
        if last_ms is not None:
            milliseconds = max(milliseconds, last_ms + 1)  # frames may follow within the detector's unit of time
        last_ms = milliseconds
        found = detector(rgb, milliseconds)
        yield _sight(seconds, rgb, found[0]) if found else Sight(seconds, rgb.shape[:2])
        if on_progress is not None:
            on_progress("tracking", min((index + 1) / total, 1.0) if total else 0.0, None)


def _sight(seconds: float, rgb: np.ndarray, face: DetectedFace) -> Sight:
    height, width = rgb.shape[:2]
    x0, y0, x1, y1 = (int(edge) for edge in np.clip(face.box_px, 0, (width, height, width, height)))
    if x1 <= x0 or y1 <= y0:
        return Sight(seconds, (height, width), face)
    step = max(1, max(x1 - x0, y1 - y0) // _FACE_PICTURE_PX)
    picture = np.asarray(Image.fromarray(np.ascontiguousarray(rgb[y0:y1, x0:x1])).reduce(step))
    return Sight(seconds, (height, width), face, picture, x0, y0, step)


def until_known(sights: Iterator[Sight]) -> Iterator[Sight]:
    """Sights up to the one that completes what the identity is estimated from."""
    count = 0
    for sight in sights:
        yield sight
        count += sight.face is not None
        if count == _WAITING_FACES:
            return
