"""Render tracks as video files: MP4 with H.264, encoded by FFmpeg.

Frames are streamed to the encoder, so that memory does not grow with the length of a clip.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from ..errors import ImageError, ParameterError
from ..fitting import Progress
from ..graphics.camera import Camera
from ..graphics.lighting import srgb_from_linear
from ..io.files import staged_file
from ..messages import reason_of
from ..rendering.drawing import RENDER_MODES, Drawn, draw, posed_head
from ..rendering.posed import LINEAR_OF_BYTE
from ..rendering.render import render
from . import Track
from .frames import checked, open_source


@dataclass(frozen=True)
class ClipMode:
    """What a video of a track shows.

    Attributes:
        description: in a few words, for help texts.
        render_mode: how the head is drawn, of `RENDER_MODES`.
        needs_frames: whether the frames of the video show as well; without a detected face they show alone.
        is_beside: the head stands beside the frame, not over it.
    """

    description: str
    render_mode: str
    needs_frames: bool = False
    is_beside: bool = False


CLIP_MODES: dict[str, ClipMode] = {
    **{name: ClipMode(mode.description, name) for name, mode in RENDER_MODES.items()},
    "overlay": ClipMode("textured head over the frames", "color", needs_frames=True),
    "side": ClipMode("frame and clay head side by side", "clay", needs_frames=True, is_beside=True),
}
"""Modes of a video of a track by name: those of `render`, and two that show the frames as well."""

_MAX_PX = 4096
_MAX_FPS = 240.0
_BACKGROUND = (242, 242, 242)  # sRGB
_SUPERSAMPLE_UP_TO_PX = 720  # aliasing is less visible in larger pictures, and supersampling takes 2 to 4 times as long
# BT.709, the colour matrix that players expect, stated in the file; all browsers play yuv420p.
_H264 = ["-c:v", "libx264", "-crf", "18", "-preset", "veryfast", "-pix_fmt", "yuv420p"]
_H264 += ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-color_primaries", "bt709", "-color_trc", "bt709"]
_H264 += ["-colorspace", "bt709", "-movflags", "+faststart"]


@render.register(Track)
def render_track(
    track: Track,
    path: str | os.PathLike,
    *,
    mode: str = "clay",
    source=None,
    size: int | None = None,
    fps: float | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Write a track as a video that browsers play: MP4 with H.264, no sound.

    Args:
        path: .mp4 in a folder that exists; written atomically.
        mode: "clay", "color" or another mode of `render`: the head alone, as the video's camera saw it; in gaps, its
            last pose. "overlay": the textured head over the frames. "side": frame and clay head side by side. These two
            show no head in frames without a face.
        source: the frames that were tracked, as `track` takes them; needed for "overlay" and "side" only.
        size: longer side of the picture in pixels (of each half in "side"), 16..4096; by default that of the camera.
        fps: frames per second of the video, up to 240; by default those of the track. Each shows the frame nearest in
            time.
        on_progress: called per frame with ("rendering", share of the frames done, None).
    Returns:
        `path` as a Path.
    Raises:
        ParameterError: another suffix, an unknown mode, size or fps outside its range, `source` missing or shorter
            than the track, or the file cannot be written.
        ImageError: the source cannot be read, or its frames have another shape than those of the track.
    """
    path = Path(path)
    _check(path, mode, size, fps)
    if CLIP_MODES[mode].needs_frames and source is None:
        raise ParameterError("clip.needs_source", mode=repr(mode))
    interval = float(np.median(np.diff(track.times_s))) if len(track) > 1 else 1 / 30
    fps = min(1 / interval, _MAX_FPS) if fps is None else float(fps)
    painter = _Painter(track, mode, _scaled(track.camera, size))
    times_s = np.arange(int((track.times_s[-1] - track.times_s[0]) * fps + 0.5) + 1) / fps + interval / 2
    shown = np.searchsorted(track.times_s - track.times_s[0], times_s, side="right") - 1
    with (
        staged_file(path, ParameterError) as part,
        _Encoder(path, part, painter.size, fps) as encoder,
        contextlib.ExitStack() as stack,
    ):
        frames: Iterator[tuple[float, np.ndarray]] = iter(())
        if painter.needs_frames:
            frames, _ = open_source(source, 1 / interval)
            stack.callback(getattr(frames, "close", lambda: None))  # closes the file
        pictures = _pictures(painter, checked(frames), shown)
        for number, picture in enumerate(pictures, start=1):
            encoder.add(picture)
            if on_progress is not None:
                on_progress("rendering", number / len(shown), None)
    return path


def _check(path: Path, mode: str, size, fps) -> None:
    if path.suffix.lower() != ".mp4":
        raise ParameterError("clip.name", name=path.name)
    if mode not in CLIP_MODES:
        raise ParameterError("clip.mode", mode=repr(mode), known=", ".join(CLIP_MODES))
    if size is not None and not (isinstance(size, (int, np.integer)) and 16 <= size <= _MAX_PX):
        raise ParameterError("clip.size", most=_MAX_PX, size=repr(size))
    if fps is not None and not (isinstance(fps, (int, float, np.number)) and 0 < fps <= _MAX_FPS):
        raise ParameterError("clip.fps", most=_MAX_FPS, fps=repr(fps))


def _scaled(camera: Camera, size: int | None) -> Camera:
    """The camera of pictures whose longer side is `size`; both sides are even, as yuv420p requires."""
    height, width = camera.image_size
    factor = min(size or max(height, width), _MAX_PX) / max(height, width)
    even_height, even_width = (max(2, 2 * round(side * factor / 2)) for side in (height, width))
    return camera.cropped((0, 0, width, height), (even_height, even_width))


def _pictures(painter: _Painter, frames: Iterator[tuple[float, np.ndarray]], shown: np.ndarray) -> Iterator[np.ndarray]:
    """Pictures of the track's frames `shown` (K,), in ascending order; each is painted once."""
    frame = picture = None
    read_count, last = 0, -1
    for index in shown:
        while painter.needs_frames and read_count <= index:
            _, frame = next(frames, (None, None))
            if frame is None:
                raise ParameterError("clip.source_ends", frames=read_count, wanted=len(painter.track))
            read_count += 1
        if picture is None or index != last:
            picture, last = painter(int(index), frame), index
        yield picture


class _Painter:
    """Paints frames of a track."""

    def __init__(self, track: Track, mode: str, camera: Camera):
        shown = CLIP_MODES[mode]
        self.track, self.needs_frames = track, shown.needs_frames
        self._mode, self._beside, self._camera = shown.render_mode, shown.is_beside, camera
        self._samples = 2 if max(camera.image_size) <= _SUPERSAMPLE_UP_TO_PX else 1
        self._background = np.full((*camera.image_size, 3), _BACKGROUND, np.uint8)
        height, width = camera.image_size
        self.size = (height, width * (2 if self._beside else 1))

    def __call__(self, index: int, frame: np.ndarray | None) -> np.ndarray:
        """(H, W, 3) uint8, of `size`."""
        photo = None if frame is None else self._resized(frame)
        picture = self._background.copy() if photo is None or self._beside else photo.copy()
        if self.track.confidence[index] > 0 or not self.needs_frames:
            head = self.track.result(index)
            posed = posed_head(head, self._mode, head.params.rotation, head.params.translation)
            _composite(draw(posed, self._mode, self._camera, self._samples), picture)
        return np.concatenate([photo, picture], axis=1) if self._beside else picture

    def _resized(self, frame: np.ndarray) -> np.ndarray:
        """The frame in the size of the camera's picture."""
        height, width = self.track.camera.image_size
        if abs(frame.shape[0] * width - frame.shape[1] * height) > 0.01 * frame.shape[0] * width:
            found = {"width": frame.shape[1], "height": frame.shape[0]}
            raise ImageError("clip.source_size", **found, wanted_width=width, wanted_height=height)
        size = self._camera.image_size
        if frame.shape[:2] == size:
            return frame
        return np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.LANCZOS, reducing_gap=3.0))


def _composite(drawn: Drawn, picture: np.ndarray) -> None:
    """Composite a drawing over a picture (H, W, 3) uint8, in place and in linear light, where it covers anything."""
    covered = drawn.coverage.numpy() > 0
    rows, columns = (np.flatnonzero(covered.any(axis)) for axis in (1, 0))
    if not len(rows):
        return
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    behind = LINEAR_OF_BYTE[torch.from_numpy(picture[box]).long()]
    linear = drawn.rgb[box] + (1 - drawn.coverage[box])[..., None] * behind
    picture[box] = (srgb_from_linear(linear) * 255 + 0.5).to(torch.uint8).numpy()


class _Encoder:
    """Encodes a video with FFmpeg.

    Args:
        path: what messages name.
        part: the file that is written.
        size: height and width.
    """

    def __init__(self, path: Path, part: Path, size: tuple[int, int], fps: float):
        self._path = path
        rate = Fraction(fps).limit_denominator(10_000)
        picture = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[1]}x{size[0]}", "-r", str(rate)]
        self._arguments = ["-loglevel", "error", "-y", *picture, "-i", "-", *_H264]
        # FFmpeg takes a relative name for an option or a protocol when it starts with a hyphen or has a colon.
        self._arguments += ["-f", "mp4", os.path.join(os.getcwd(), part)]

    def __enter__(self) -> _Encoder:
        self._log: BinaryIO = io.BytesIO()
        try:
            self._log = tempfile.TemporaryFile()
            self._process = subprocess.Popen(
                [_ffmpeg(), *self._arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._log
            )
        except OSError as error:
            self._log.close()
            raise ParameterError("clip.encoder_start", path=self._path, reason=reason_of(error)) from error
        assert self._process.stdin is not None
        self._input = self._process.stdin
        return self

    def add(self, picture: np.ndarray) -> None:
        try:
            self._input.write(np.ascontiguousarray(picture).data)
        except OSError:
            raise self._failure() from None

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._process.kill()
            with contextlib.suppress(OSError):
                self._input.close()
            self._process.wait()
            self._log.close()

    def _finish(self) -> None:
        try:
            self._input.close()
        except OSError:
            raise self._failure() from None
        if self._process.wait():
            raise self._failure()

    def _failure(self) -> ParameterError:
        """The encoder's first message; later ones are consequences of it."""
        self._process.wait()
        self._log.seek(0)
        text = self._log.read(4000).decode(errors="replace").strip()
        for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
            if os.strerror(code) in text:
                return ParameterError("file.unwritable", path=self._path, reason=reason_of(OSError(code, text)))
        reason = text.splitlines()[0].strip() if text else f"exit code {self._process.returncode}"
        return ParameterError("clip.encoder_stopped", path=self._path, reason=reason)


def _ffmpeg() -> str:
    """Path of the FFmpeg executable."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        found = shutil.which("ffmpeg")
    if found is None:
        raise ParameterError("clip.no_ffmpeg")
    return found
