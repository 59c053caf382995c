"""Frames and their times from video files, folders, cameras and iterables."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Generator, Iterable, Iterator, Sized
from pathlib import Path

import numpy as np

from ..errors import ImageError, ParameterError
from ..io.files import check_file, files_in, plain_path
from ..io.images import read_image
from ..messages import reason_of

_NUMBER = re.compile(r"%\d*d")  # FFmpeg's place of a number in the name of a series of pictures
_Frames = Generator[tuple[float, np.ndarray], None, None]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")
MAX_FRAME_MEGAPIXELS = 100  # of a video; 12K footage has 97
_MOST_FRAMES = 100_000_000  # a file that states more, months of video, is damaged


def open_source(source, fps: float, skip: int = 0) -> tuple[_Frames, int | None]:
    """Frames (H, W, 3) uint8 with their times in seconds, and their number where known.

    Args:
        source: see `tracking.track`.
        fps: of sources without times.
        skip: frames to skip at the beginning of a video or a folder.
    """
    if isinstance(source, (int, np.integer)) and not isinstance(source, bool):
        return _open_camera(int(source)), None
    if isinstance(source, (str, os.PathLike)):
        if pictures := _pictures(source):
            timed = ((index / fps, read_image(path).rgb) for index, path in enumerate(pictures) if index >= skip)
            return timed, len(pictures)
        return _open_video(Path(source), fps, skip)
    if not isinstance(source, Iterable):
        raise ImageError("video.source_type", type=type(source).__name__)
    total = len(source) if isinstance(source, Sized) else None
    return (_timed(item, index / fps) for index, item in enumerate(source)), total


def _timed(item, seconds: float) -> tuple[float, np.ndarray]:
    """(seconds, frame) from an item of an iterable, which may be such a pair itself."""
    if isinstance(item, (tuple, list)) and len(item) == 2 and np.ndim(item[0]) == 0:
        return float(item[0]), item[1]
    return seconds, item


def _pictures(source: str | os.PathLike) -> list[Path]:
    """The pictures of a folder in natural order; a picture alone; none of a video.

    Raises:
        ImageError: there is no such file or folder, or a folder without pictures.
    """
    path = Path(source)
    if not os.path.isdir(path):
        check_file(source, ImageError)
        return [path] if path.suffix.lower() in PICTURE_SUFFIXES else []
    found = [one for one in files_in(path, ImageError) if one.suffix.lower() in PICTURE_SUFFIXES]
    found = [one for one in found if not one.name.startswith(".")]
    if not found:
        raise ImageError("video.no_pictures", folder=path, suffixes=" ".join(PICTURE_SUFFIXES))
    return sorted(found, key=_natural_order)


def _natural_order(path: Path) -> list:
    """Sort key in natural order: frame_2 before frame_10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", path.name))]


def _open_video(path: Path, fps: float, skip: int) -> tuple[_Frames, int | None]:
    cv2 = _opencv()
    with plain_path(path, ImageError, _NUMBER) as name:
        capture = _open_capture(cv2, name, cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise ImageError("video.unreadable", name=path.name)
    width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_FRAME_MEGAPIXELS * 1e6:
        capture.release()
        raise ImageError(
            "video.too_many_pixels", name=path.name, width=width, height=height, megapixels=MAX_FRAME_MEGAPIXELS
        )
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return _decode(capture, cv2, fps, skip), count if 0 < count < _MOST_FRAMES else None


def _open_camera(number: int) -> _Frames:
    """Frames of a camera with the seconds since the first, until they stop coming."""
    cv2 = _opencv()
    capture = _open_capture(cv2, number, cv2.CAP_ANY)
    if not capture.isOpened():
        raise ImageError("video.camera", number=number)
    return _read_camera(capture, cv2)


def _read_camera(capture, cv2) -> _Frames:
    first = None
    try:
        while (result := capture.read())[0]:
            now = time.monotonic()
            first = now if first is None else first
            yield now - first, cv2.cvtColor(result[1], cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def _opencv():
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: errors are reported in one line
    try:
        import cv2
    except ImportError as error:
        raise ImageError("video.no_opencv", reason=reason_of(error)) from error
    return cv2


def _open_capture(cv2, source: str | int, backend: int):
    """OpenCV's reader of a file or a camera, with its own log messages silenced."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(source, backend)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _decode(capture, cv2, fps: float, skip: int) -> _Frames:
    """Frames of an opened video, upright; times are the file's, or follow its frame rate where they do not increase."""
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if np.isfinite(rate) and rate > 0 else fps
    last, index = None, 0
    try:
        while capture.grab():
            seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if last is not None and not seconds > last:
                seconds = last + 1 / rate
            last, index = seconds, index + 1
            if index <= skip:
                continue
            success, bgr = capture.retrieve()
            if not success:
                return
            yield seconds, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def checked(frames: Iterator[tuple[float, np.ndarray]]) -> _Frames:
    """The frames, checked by `checked_frame`."""
    last = shape = None
    for index, (seconds, rgb) in enumerate(frames):
        checked_frame(index, seconds, rgb, last, shape)
        last, shape = seconds, rgb.shape
        yield seconds, rgb


def checked_frame(index: int, seconds: float, rgb, last_s: float | None, shape: tuple | None) -> None:
    """Check a frame against the previous one, at `last_s` and of `shape`.

    Raises:
        ImageError: it is no image, or has another size.
        ParameterError: it is not later.
    """
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        got = f"{rgb.shape} {rgb.dtype}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise ImageError("video.frame_array", index=index, found=got)
    if shape is not None and rgb.shape != shape:
        (height, width), (first_height, first_width) = rgb.shape[:2], shape[:2]
        raise ImageError(
            "video.frame_size",
            index=index,
            width=width,
            height=height,
            first_width=first_width,
            first_height=first_height,
        )
    if not np.isfinite(seconds) or (last_s is not None and not seconds > last_s):
        raise ParameterError("video.times", index=index, seconds=seconds, last_s=last_s)
