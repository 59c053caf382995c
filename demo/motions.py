"""What the page does with videos and recorded motions, as plain functions."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import faceverse as fv

from .handlers import Step, Stopped, delete_later
from .heads import forget_older, numbers
from .viewer import file_address, motion_pack

FORMATS = {"CSV": "csv", "JSON": "json", "NPZ": "npz", "Animated GLB": "glb"}
MAX_VIDEO_S = 60
MAX_VIDEO_BYTES = 200_000_000
MAX_MOTION_FRAMES = 20_000
MAX_VIDEO_PX = 4096
OVERLAY_PX = 720
_MAX_FPS = 120
_TELL_S = 0.25  # between two words about the progress
# How MP4 and QuickTime, Matroska and WebM begin; lists of other files, which FFmpeg would follow, do not.
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_MATROSKA = b"\x1aE\xdf\xa3"
_NO_VIDEO = "{} is not a video that can be read; try an MP4 with H.264"


@dataclass(frozen=True)
class Video:
    """A video in the visitor's folder.

    Args:
        frames: how many there are, None where the file does not say.
    """

    path: Path
    frames: int | None

    def forget(self) -> None:
        """Deletes it."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


@dataclass(frozen=True)
class Task:
    """What is to be tracked.

    Args:
        head: who is seen in the video; None finds out.
        brings_head: whoever is found comes onto the stage.
        quality: as in `faceverse.track`.
    """

    video: Video
    head: fv.FitResult | None = None
    brings_head: bool = False
    quality: str = "fast"


@dataclass(frozen=True)
class Motion:
    """What moves the head on the stage.

    Args:
        name: of the file it came from.
        shown: of the 3D view: number and address of the pack.
        video: the frames, while the head may still be drawn over them.
    """

    track: fv.Track
    name: str
    shown: dict
    video: Video | None = None

    @classmethod
    def of(cls, track: fv.Track, name: str, folder: Path, video: Video | None = None) -> Motion:
        """A motion, its pack for the 3D view written."""
        number = next(numbers)
        path = folder / f"motion-{number}.bin"
        path.write_bytes(motion_pack(track))
        forget_older(folder, "motion-*.bin", {path})
        return cls(track, name, {"number": number, "address": file_address(path)}, video)

    @property
    def seconds(self) -> float:
        """From the first frame to the last."""
        return float(self.track.times_s[-1] - self.track.times_s[0])


# -- videos -----------------------------------------------------------------------------------------------------------
def claim(upload: str | Path, folder: Path, show_s: float = 5) -> Video:
    """Takes an upload into the visitor's folder, where nobody else finds it; earlier videos are deleted.

    Args:
        show_s: the upload itself is deleted after this time.
    Raises:
        ImageError: it is gone, no video, too long or too large.
    """
    upload = Path(upload)
    forget_videos(folder)
    place = folder / f"video-{next(numbers)}"
    place.mkdir(mode=0o700)
    path = place / upload.name
    try:
        try:
            os.link(upload, path)
        except OSError:  # a file system without links, or no file
            shutil.copyfile(upload, path)
        delete_later(upload, show_s)
        return Video(path, _checked(path))
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise fv.ImageError("the upload was deleted in the meantime; choose the video again") from error
    except fv.FaceVerseError:
        shutil.rmtree(place, ignore_errors=True)
        raise


def forget_videos(folder: Path) -> None:
    """Deletes the videos of a visitor, and those with a head drawn over them."""
    for older in folder.glob("video-*/"):
        shutil.rmtree(older, ignore_errors=True)
    for drawn in folder.glob("overlay-*.mp4"):
        drawn.unlink(missing_ok=True)


def _checked(path: Path) -> int | None:
    """Number of frames of a video, None where its file does not say."""
    size = path.stat().st_size
    if size > MAX_VIDEO_BYTES:
        raise fv.ImageError(
            f"{path.name} has {size / 1e6:.0f} MB, more than {MAX_VIDEO_BYTES / 1e6:.0f}; cut it, or film it smaller"
        )
    with open(path, "rb") as file:
        start = file.read(8)
    if start[4:8] not in _BOXES and start[:4] != _MATROSKA:
        raise fv.ImageError(_NO_VIDEO.format(path.name))
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong is said in one line
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened() or not capture.grab():
            raise fv.ImageError(_NO_VIDEO.format(path.name))
        frames, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    finally:
        capture.release()
    if max(width, height) > MAX_VIDEO_PX:
        raise fv.ImageError(f"{path.name} has {width} x {height} pixels, more than {MAX_VIDEO_PX}; film it smaller")
    if not (frames > 0 and np.isfinite(rate) and rate > 0):
        return None
    if frames / rate > MAX_VIDEO_S + 1 or frames > MAX_VIDEO_S * _MAX_FPS:
        raise fv.ImageError(
            f"{path.name} is {frames / rate:.0f} seconds long, more than {MAX_VIDEO_S}; cut the part that you want"
        )
    return int(frames)


def follow(
    task: Task, is_wanted: Callable[[], bool] = lambda: True, let_pass: Callable[[], None] = lambda: None
) -> Iterator[Step | fv.Track]:
    """Tracks a video.

    Args:
        is_wanted: asked again and again; False stops the work.
        let_pass: called between frames; may wait there.

    Yields:
        Step while it runs; the Track at the end.
    Raises:
        FaceVerseError: what went wrong, in words.
        Stopped: `is_wanted` said no.
    """
    total, done = task.video.frames, 0

    def say(fraction: float) -> str:
        nonlocal done
        done += 1
        if done > MAX_VIDEO_S * _MAX_FPS:
            raise fv.ImageError(f"{task.video.path.name} is longer than {MAX_VIDEO_S} seconds; cut the part you want")
        if not total:
            return f"Following the face: {done} frames"
        if done >= total:
            return f"Working out shape and movement from {done} frames"
        return f"Following the face: {done} of {max(total, done)} frames"

    def work(on_progress) -> fv.Track:
        return fv.track(task.video.path, identity=task.head, quality=task.quality, on_progress=on_progress)

    yield from _in_steps(work, say, is_wanted, let_pass)


def overlay(
    motion: Motion, head: fv.FitResult, folder: Path, is_wanted: Callable[[], bool], let_pass: Callable[[], None]
) -> Iterator[Step | Path]:
    """Draws a head over the frames of the motion's video, in their light; see `follow`. The Path of an MP4 comes at
    the end."""
    track = motion.track.apply_to(head, light=True)
    path = folder / f"overlay-{next(numbers)}.mp4"
    size = min(max(motion.track.camera.image_size), OVERLAY_PX)

    def work(on_progress) -> Path:
        return fv.render(track, path, mode="overlay", source=motion.video.path, size=size, on_progress=on_progress)

    yield from _in_steps(
        work, lambda share: f"Drawing the head over the video: {100 * share:.0f} %", is_wanted, let_pass
    )
    forget_older(folder, "overlay-*.mp4", {path})


def _in_steps(
    work: Callable, say: Callable[[float], str], is_wanted: Callable[[], bool], let_pass: Callable[[], None]
) -> Iterator:
    """Runs work(on_progress) in a thread; tells how far it is, and what it returns."""
    events: queue.SimpleQueue = queue.SimpleQueue()
    stopped = threading.Event()
    told_s = 0.0

    def on_progress(stage: str, fraction: float, preview) -> None:
        nonlocal told_s
        if stopped.is_set() or not is_wanted():
            raise Stopped
        text, now_s = say(fraction), time.monotonic()
        if now_s - told_s > _TELL_S or fraction == 1:
            told_s = now_s
            events.put(Step(text, fraction, refining=True))
            let_pass()

    def run() -> None:
        try:
            events.put(work(on_progress))
        except Exception as error:
            events.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        while True:
            event = events.get()
            if isinstance(event, Exception):
                raise event
            yield event
            if not isinstance(event, Step):
                return
    finally:
        stopped.set()


# -- motions ----------------------------------------------------------------------------------------------------------
def person_of(track: fv.Track) -> fv.FitResult:
    """Who was found in a video, with a neutral face."""
    best = track.result(int(np.argmax(track.confidence)))
    return fv.edit(best, expression=np.zeros_like(best.params.expression))


def average_head() -> fv.FitResult:
    """The head that moves where a visitor has none of his own."""
    model = fv.load_model()
    return fv.head(model.neutral(), model)


def opened(path: Path, head: fv.FitResult) -> fv.Track:
    """A motion from a file, on a head.

    Raises:
        ParameterError: the file is no motion, or holds too many frames.
    """
    if path.suffix.lower() == ".csv":
        track = fv.load_track(path, identity=head)
    else:
        track = fv.load_track(path, head.model).apply_to(head)
    if len(track) > MAX_MOTION_FRAMES:
        raise fv.ParameterError(f"{path.name} has {len(track)} frames, more than {MAX_MOTION_FRAMES}; cut it")
    return track


def save(motion: Motion, kind: str, head: fv.FitResult, folder: Path) -> Path:
    """Writes a motion; the animated GLB is of `head`, the one on the stage as it stands on the sliders."""
    track = motion.track.apply_to(head) if kind == "glb" else motion.track
    path = folder / f"motion.{kind}"
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return fv.export(track, path)
