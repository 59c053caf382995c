"""Tracking jobs, as plain functions without Gradio: take over videos, track them, draw heads over them."""

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
from typing import cast

import cv2
import numpy as np

import faceverse as fv

from . import uploads
from .fit_jobs import Progress, Stopped, delete_later
from .heads import delete_older, serial_numbers
from .view_files import file_url, motion_pack

MAX_VIDEO_S = 60
MAX_VIDEO_BYTES = 200_000_000
MAX_MOTION_FRAMES = 20_000
MAX_VIDEO_PX = 4096
OVERLAY_PX = 720
_MAX_FPS = 120
_TELL_S = 0.25  # least time between two progress reports
# First bytes of MP4 and QuickTime, Matroska and WebM. Playlists, whose entries FFmpeg would open, start differently.
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_MATROSKA = b"\x1aE\xdf\xa3"


@dataclass(frozen=True)
class UploadedVideo:
    """A video in the session's folder.

    Args:
        path: of the file.
        frames: number of frames, None where the file does not state it.
    """

    path: Path
    frames: int | None

    def delete(self) -> None:
        """Delete the video."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


@dataclass(frozen=True)
class TrackingJob:
    """A video to track.

    Args:
        video: the file.
        head: the person in the video; None estimates it from the video.
        brings_head: the estimated head replaces the one in the 3D view.
        quality: as in `faceverse.track`.
    """

    video: UploadedVideo
    head: fv.FitResult | None = None
    brings_head: bool = False
    quality: str = "fast"


@dataclass(frozen=True)
class Motion:
    """A track that animates the head in the 3D view.

    Args:
        track: the motion.
        name: of the file that it came from.
        shown: for the 3D view: number and URL of its pack.
        video: the frames, as long as the head can be drawn over them.
    """

    track: fv.Track
    name: str
    shown: dict
    video: UploadedVideo | None = None

    @classmethod
    def of(cls, track: fv.Track, name: str, folder: Path, video: UploadedVideo | None = None) -> Motion:
        """Create a motion and write its pack for the 3D view."""
        number = next(serial_numbers)
        path = folder / f"motion-{number}.bin"
        path.write_bytes(motion_pack(track))
        delete_older(folder, "motion-*.bin", {path})
        return cls(track, name, {"number": number, "address": file_url(path)}, video)

    @property
    def seconds(self) -> float:
        """Duration from the first frame to the last."""
        return float(self.track.times_s[-1] - self.track.times_s[0])


# -- videos -----------------------------------------------------------------------------------------------------------
def claim(upload: str | Path, folder: Path, show_s: float = 5) -> UploadedVideo:
    """Link or copy an upload into the session's folder, which no other visitor can guess; delete earlier videos there.

    Args:
        upload: the file.
        folder: of the session.
        show_s: delay in seconds after which the upload itself is deleted.

    Raises:
        ImageError: the file was deleted, is no video, too long or too large.
    """
    upload = Path(upload)
    delete_videos(folder)
    target = folder / f"video-{next(serial_numbers)}"
    path = target / upload.name
    try:
        target.mkdir(mode=0o700)
        try:
            os.link(upload, path)
        except OSError:  # a file system without links, or no file
            shutil.copyfile(upload, path)
        delete_later(upload, show_s)
        return UploadedVideo(path, _checked(path))
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise fv.ImageError("upload.video_deleted") from error
    except fv.FaceVerseError:
        shutil.rmtree(target, ignore_errors=True)
        raise


def delete_videos(folder: Path) -> None:
    """Delete the videos of a session, and those with a head drawn over them."""
    for older in folder.glob("video-*/"):
        shutil.rmtree(older, ignore_errors=True)
    for drawn in folder.glob("overlay-*.mp4"):
        drawn.unlink(missing_ok=True)


def _checked(path: Path) -> int | None:
    """Validate a video; return its number of frames, None where the file does not state it."""
    size = path.stat().st_size
    if size > MAX_VIDEO_BYTES:
        raise fv.ImageError(
            "upload.large_video", name=path.name, megabytes=size / 1e6, most=MAX_VIDEO_BYTES / 1e6
        )
    with open(path, "rb") as file:
        start = file.read(8)
    if start[4:8] not in _BOXES and start[:4] != _MATROSKA:
        raise fv.ImageError("video.unreadable", name=path.name)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # the exceptions below replace its log
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened() or not capture.grab():
            raise fv.ImageError("video.unreadable", name=path.name)
        frames, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    finally:
        capture.release()
    if max(width, height) > MAX_VIDEO_PX:
        raise fv.ImageError("upload.wide_video", name=path.name, width=width, height=height, most=MAX_VIDEO_PX)
    if not (frames > 0 and np.isfinite(rate) and rate > 0):
        return None
    if frames / rate > MAX_VIDEO_S + 1 or frames > MAX_VIDEO_S * _MAX_FPS:
        raise fv.ImageError("upload.long_video", name=path.name, seconds=frames / rate, most=MAX_VIDEO_S)
    return int(frames)


def track_video(
    task: TrackingJob, is_active: Callable[[], bool] = lambda: True, let_others_pass: Callable[[], None] = lambda: None
) -> Iterator[Progress | fv.Track]:
    """Track a face through a video.

    Args:
        task: the video and the settings.
        is_active: polled with every progress report; False stops the job.
        let_others_pass: called between frames; may block.

    Yields:
        Progress; the Track at the end.

    Raises:
        FaceVerseError: tracking is impossible; the message is for the visitor.
        Stopped: `is_active` returned False.
    """
    total, done = task.video.frames, 0

    def message(fraction: float) -> fv.Message:
        nonlocal done
        done += 1
        if done > MAX_VIDEO_S * _MAX_FPS:
            raise fv.ImageError("upload.endless_video", name=task.video.path.name, most=MAX_VIDEO_S)
        if not total:
            return fv.Message("step.tracking_frames", frames=done)
        if done >= total:
            return fv.Message("step.solving_frames", frames=done)
        return fv.Message("step.tracking", frames=done, total=total)

    def work(on_progress) -> fv.Track:
        return fv.track(task.video.path, identity=task.head, quality=task.quality, on_progress=on_progress)

    yield from _with_progress(work, message, is_active, let_others_pass)


def overlay(
    motion: Motion, head: fv.FitResult, folder: Path, is_active: Callable[[], bool], let_others_pass: Callable[[], None]
) -> Iterator[Progress | Path]:
    """Draw a head over the frames of the motion's video, in their light.

    Yields:
        Progress; the Path of the MP4 at the end. Arguments and exceptions are those of `track_video`.
    """
    track = motion.track.apply_to(head, light=True)
    path = folder / f"overlay-{next(serial_numbers)}.mp4"
    size = min(max(motion.track.camera.image_size), OVERLAY_PX)

    def work(on_progress) -> Path:
        assert motion.video is not None  # see `Motion.video`: the caller has checked it
        render = cast(Callable[..., Path], fv.render)  # dispatches on its first argument; mypy sees FitResult only
        return render(track, path, mode="overlay", source=motion.video.path, size=size, on_progress=on_progress)

    yield from _with_progress(
        work, lambda share: fv.Message("step.overlay", percent=100 * share), is_active, let_others_pass
    )
    delete_older(folder, "overlay-*.mp4", {path})


def _with_progress(
    work: Callable,
    message: Callable[[float], fv.Message],
    is_active: Callable[[], bool],
    let_others_pass: Callable[[], None],
) -> Iterator:
    """Run work(on_progress) in a thread; yield Progress and, at the end, its result."""
    events: queue.SimpleQueue = queue.SimpleQueue()
    stopped = threading.Event()
    reported_s = 0.0

    def on_progress(stage: str, fraction: float, preview) -> None:
        nonlocal reported_s
        if stopped.is_set() or not is_active():
            raise Stopped
        text, now_s = message(fraction), time.monotonic()
        if now_s - reported_s > _TELL_S or fraction == 1:
            reported_s = now_s
            events.put(Progress(text, fraction, refining=True))
            let_others_pass()

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
            if not isinstance(event, Progress):
                return
    finally:
        stopped.set()


# -- motions ----------------------------------------------------------------------------------------------------------
def neutral_head_of(track: fv.Track) -> fv.FitResult:
    """The person of a track, with a neutral expression."""
    best = track.result(int(np.argmax(track.confidence)))
    return fv.edit(best, expression=np.zeros_like(best.params.expression))


def average_head() -> fv.FitResult:
    """The mean head of the model, which a motion animates where there is no other head."""
    model = fv.load_model()
    return fv.head(model.neutral(), model)


def load_motion(path: Path, head: fv.FitResult) -> fv.Track:
    """Load a motion from a file and apply it to a head.

    Raises:
        ParameterError: the file holds no motion, or too many frames.
    """
    uploads.check_motion(path)
    if path.suffix.lower() == ".csv":
        track = fv.load_track(path, identity=head)
    else:
        track = fv.load_track(path, head.model).apply_to(head)
    if len(track) > MAX_MOTION_FRAMES:
        raise fv.ParameterError("upload.long_motion", name=path.name, frames=len(track), most=MAX_MOTION_FRAMES)
    return track


def save(motion: Motion, kind: str, head: fv.FitResult, folder: Path) -> Path:
    """Write a motion to a file; an animated GLB shows `head`, the edited one."""
    track = motion.track.apply_to(head) if kind == "glb" else motion.track
    path = folder / f"motion.{kind}"
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return cast(Callable[..., Path], fv.export)(track, path)  # dispatches as `render` does
