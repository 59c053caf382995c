"""Webcam streams: a JPEG frame comes in, pose and expression weights go back at once.

Each stream has a tracker, which only the stream's own thread uses. Frames are decoded in memory and never stored. They
have HTTP routes of their own, because an event of Gradio costs more time than the tracking.
"""

from __future__ import annotations

import asyncio
import io
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import faceverse as fv

from .view_files import motion_row

IDLE_S = 20.0
MAX_RECORDED_S = 120
MAX_FRAME_BYTES = 1_000_000
MAX_FRAME_PX = 1280
ROUTE = "live"
_MAX_UNRECORDED = 300  # frames, while nothing is recorded
_IN_FLIGHT = 2


_log = logging.getLogger(__name__)


class Closed(Exception):  # noqa: N818 (no error)
    """The stream has been closed."""


class WebcamStream:
    """Stream of one webcam. It closes itself when no frame arrives for `idle_s`.

    Args:
        make_tracker: () -> tracker, called in the stream's thread with the first frame.
        is_active: polled with every frame; False closes the stream.
        on_close: called once, at the end.
        idle_s: seconds without a frame after which the stream closes.
    """

    def __init__(
        self, make_tracker: Callable, is_active: Callable[[], bool], on_close: Callable, idle_s: float = IDLE_S
    ):
        self.token = secrets.token_urlsafe(24)
        self._make_tracker, self._is_active, self._on_close, self._idle_s = make_tracker, is_active, on_close, idle_s
        self._tasks: queue.SimpleQueue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._tracker: Any = None  # that of make_tracker
        self._is_recording = False
        self._frame_count = 0  # in the tracker, since it was last cleared
        threading.Thread(target=self._work, name="faceverse-webcam", daemon=True).start()

    def frame(self, jpeg: bytes, seconds: float) -> Future:
        """Track one frame.

        Returns:
            Future of a row (8 + E,) float32 as bytes, see `view_files.motion_row`.
        """
        return self._submit(lambda: self._step(jpeg, seconds))

    def calibrate(self) -> Future:
        """Take the current expression as the neutral one."""
        return self._submit(lambda: self._tracker and self._tracker.calibrate())

    def record(self) -> Future:
        """Start a recording."""
        return self._submit(self._start_recording)

    def recorded(self) -> Future:
        """Future of the Track since `record`.

        The future raises ParameterError where the recording shows no face or was never started.
        """
        return self._submit(self._recording)

    def close(self) -> None:
        """Close the stream."""
        with self._lock:
            self._closed = True
            self._tasks.put(None)

    def _submit(self, work: Callable) -> Future:
        future: Future = Future()
        with self._lock:
            if self._closed or self._tasks.qsize() > _IN_FLIGHT:
                future.set_exception(Closed(fv.Message("webcam.gone")))
            else:
                self._tasks.put((work, future))
        return future

    def _work(self) -> None:
        try:
            while (task := self._tasks.get(timeout=self._idle_s)) is not None and self._is_active():
                work, future = task
                if not future.set_running_or_notify_cancel():  # the caller has cancelled the request
                    continue
                try:
                    future.set_result(work())
                except Exception as error:
                    future.set_exception(error)
        except queue.Empty:
            pass
        with self._lock:
            self._closed = True
        while not self._tasks.empty():
            if (task := self._tasks.get()) is not None:
                task[1].set_exception(Closed(fv.Message("webcam.gone")))
        if self._tracker is not None:
            self._tracker.close()
        self._tracker = None
        self._on_close(self)

    # -- in the stream's thread ---------------------------------------------------------------------------------------
    def _step(self, jpeg: bytes, seconds: float) -> bytes:
        rgb = decode_frame(jpeg)
        if self._tracker is None:
            self._tracker = self._make_tracker()
        row = motion_row(self._tracker(rgb, seconds))
        self._frame_count += 1
        if self._frame_count > (_MAX_UNRECORDED if not self._is_recording else 60 * MAX_RECORDED_S):
            self._clear()
        return row.tobytes()

    def _start_recording(self) -> None:
        self._clear()
        self._is_recording = True

    def _recording(self) -> fv.Track:
        if self._tracker is None or not self._is_recording:
            raise fv.ParameterError("webcam.not_recorded")
        self._is_recording = False
        return self._tracker.track()

    def _clear(self) -> None:
        self._frame_count, self._is_recording = 0, False
        if self._tracker is not None:
            self._tracker.clear()


class WebcamStreams:
    """All open webcam streams, and their HTTP routes.

    Args:
        limit: largest number of simultaneous streams.
        tracker: (identity) -> tracker, such as `faceverse.LiveTracker`.
        idle_s: see `WebcamStream`.
    """

    def __init__(self, limit: int, tracker: Callable | None = None, idle_s: float = IDLE_S):
        self.limit, self._idle_s = limit, idle_s
        self._tracker = tracker or (lambda identity: fv.LiveTracker(identity=identity))
        self._streams: dict[str, WebcamStream] = {}
        self._lock = threading.Lock()

    def open(self, head: fv.FitResult | None, is_active: Callable[[], bool]) -> WebcamStream:
        """Open a stream.

        Args:
            head: the person in front of the webcam; None estimates it.
            is_active: see `WebcamStream`.

        Raises:
            FaceVerseError: all streams are in use.
        """
        with self._lock:
            if len(self._streams) >= self.limit:
                raise fv.FaceVerseError("webcam.all_taken", places=self.limit)
            stream = WebcamStream(lambda: self._tracker(head), is_active, self._remove, self._idle_s)
            self._streams[stream.token] = stream
        return stream

    def __len__(self) -> int:
        return len(self._streams)

    def _remove(self, stream: WebcamStream) -> None:
        with self._lock:
            self._streams.pop(stream.token, None)

    # -- routes -------------------------------------------------------------------------------------------------------
    def routes(self) -> list[Route]:
        """Routes to add to Gradio's server.

        POST live/TOKEN?t=SECONDS with a JPEG answers with a row; POST live/TOKEN/ACTION calls `calibrate`, `record` or
        `close` of the stream.
        """
        return [
            Route(f"/{ROUTE}/{{token}}", self._answer_frame, methods=["POST"]),
            Route(f"/{ROUTE}/{{token}}/{{action}}", self._answer_action, methods=["POST"]),
        ]

    async def _answer_frame(self, request: Request) -> Response:
        stream = self._streams.get(request.path_params["token"])
        if stream is None:
            return PlainTextResponse(fv.Message("webcam.gone"), 410)
        start_s = time.perf_counter()
        try:
            seconds = float(request.query_params.get("t", "nan"))
            row = await asyncio.wrap_future(stream.frame(await _body(request), seconds))
        except Closed as error:
            return PlainTextResponse(str(error), 410)
        except (fv.FaceVerseError, ValueError) as error:
            return PlainTextResponse(str(error), 400)
        except Exception as error:
            _log.error("a frame failed", exc_info=error)
            return PlainTextResponse("something went wrong on the server", 500)
        took = f"frame;dur={1000 * (time.perf_counter() - start_s):.1f}"
        headers = {"Server-Timing": took, "Cache-Control": "no-store"}
        return Response(row, media_type="application/octet-stream", headers=headers)

    async def _answer_action(self, request: Request) -> Response:
        stream = self._streams.get(request.path_params["token"])
        action = request.path_params["action"]
        if stream is None or action not in ("calibrate", "record", "close"):
            return PlainTextResponse(fv.Message("webcam.gone"), 410)
        if action == "close":
            stream.close()
            return Response(status_code=204)
        try:
            await asyncio.wrap_future(stream.calibrate() if action == "calibrate" else stream.record())
        except Closed as error:
            return PlainTextResponse(str(error), 410)
        return Response(status_code=204)


async def _body(request: Request) -> bytes:
    """Read the body of a request, up to MAX_FRAME_BYTES.

    Raises:
        ImageError: the body is larger.
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_FRAME_BYTES:
            raise fv.ImageError("webcam.large_frame", most=MAX_FRAME_BYTES)
        chunks.append(chunk)
    return b"".join(chunks)


def decode_frame(jpeg: bytes) -> np.ndarray:
    """Decode a frame to (H, W, 3) uint8.

    Raises:
        ImageError: the frame is no JPEG, or too large.
    """
    try:
        image = Image.open(io.BytesIO(jpeg), formats=["JPEG"])
        if max(image.size) > MAX_FRAME_PX:
            raise fv.ImageError("webcam.wide_frame", width=image.width, height=image.height, most=MAX_FRAME_PX)
        return np.asarray(image.convert("RGB"))
    except fv.ImageError:
        raise
    except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
        raise fv.ImageError("webcam.no_jpeg") from error
