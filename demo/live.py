"""Cameras of visitors: a frame comes in, what the face does in it goes back at once.

Each camera has a tracker, and a thread in which alone it is used. Frames are read in memory and forgotten. They come by
a route of their own beside Gradio's, because its events cost more than the tracking.
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

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import faceverse as fv

from .viewer import motion_row

IDLE_S = 20.0
MAX_RECORDED_S = 120
MAX_FRAME_BYTES = 1_000_000
MAX_FRAME_PX = 1280
PLACE = "live"
_FORGET_AFTER = 300  # frames that nobody records
_IN_FLIGHT = 2
_GONE = "this camera is not followed any more; start it again"


_log = logging.getLogger(__name__)


class Closed(Exception):  # noqa: N818 (not a mistake of anybody)
    """The camera is not followed any more."""


class Camera:
    """One visitor's camera; it closes itself when no frame comes for a while.

    Args:
        make: () -> tracker, called in the camera's thread with the first frame.
        is_wanted: asked with every frame; False closes the camera.
        on_close: called once, at the end.
        idle_s: seconds without a frame after which it closes.
    """

    def __init__(self, make: Callable, is_wanted: Callable[[], bool], on_close: Callable, idle_s: float = IDLE_S):
        self.token = secrets.token_urlsafe(24)
        self._make, self._is_wanted, self._on_close, self._idle_s = make, is_wanted, on_close, idle_s
        self._tasks: queue.SimpleQueue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._tracker = None
        self._is_recording = False
        self._kept = 0  # frames since the tracker last forgot them
        threading.Thread(target=self._work, name="faceverse-camera", daemon=True).start()

    def frame(self, jpeg: bytes, seconds: float) -> Future:
        """Future of the row (8 + E,) float32 as bytes, see `viewer.motion_row`."""
        return self._ask(lambda: self._step(jpeg, seconds))

    def calibrate(self) -> Future:
        """The face counts as at rest."""
        return self._ask(lambda: self._tracker and self._tracker.calibrate())

    def record(self) -> Future:
        """Frames are kept from now on."""
        return self._ask(self._start_recording)

    def recorded(self) -> Future:
        """Future of the Track since `record`.

        Raises (the future): ParameterError: it shows no face, or nothing was recorded.
        """
        return self._ask(self._recording)

    def close(self) -> None:
        """The camera is not followed any more."""
        with self._lock:
            self._closed = True
            self._tasks.put(None)

    def _ask(self, work: Callable) -> Future:
        future: Future = Future()
        with self._lock:
            if self._closed or self._tasks.qsize() > _IN_FLIGHT:
                future.set_exception(Closed(_GONE))
            else:
                self._tasks.put((work, future))
        return future

    def _work(self) -> None:
        try:
            while (task := self._tasks.get(timeout=self._idle_s)) is not None and self._is_wanted():
                work, future = task
                if not future.set_running_or_notify_cancel():  # nobody waits for the answer any more
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
                task[1].set_exception(Closed(_GONE))
        if self._tracker is not None:
            self._tracker.close()
        self._tracker = None
        self._on_close(self)

    # -- in the camera's thread ---------------------------------------------------------------------------------------
    def _step(self, jpeg: bytes, seconds: float) -> bytes:
        rgb = _decoded(jpeg)
        if self._tracker is None:
            self._tracker = self._make()
        row = motion_row(self._tracker(rgb, seconds))
        self._kept += 1
        if self._kept > (_FORGET_AFTER if not self._is_recording else 60 * MAX_RECORDED_S):
            self._forget()
        return row.tobytes()

    def _start_recording(self) -> None:
        self._forget()
        self._is_recording = True

    def _recording(self) -> fv.Track:
        if self._tracker is None or not self._is_recording:
            raise fv.ParameterError("nothing has been recorded; press the red button first")
        self._is_recording = False
        return self._tracker.track()

    def _forget(self) -> None:
        self._kept, self._is_recording = 0, False
        if self._tracker is not None:
            self._tracker.clear()


class Live:
    """The cameras that are followed.

    Args:
        most: so many at a time.
        tracker: (identity) -> tracker, as `faceverse.LiveTracker`.
        idle_s: see `Camera`.
    """

    def __init__(self, most: int, tracker: Callable | None = None, idle_s: float = IDLE_S):
        self.most, self._idle_s = most, idle_s
        self._tracker = tracker or (lambda identity: fv.LiveTracker(identity=identity))
        self._cameras: dict[str, Camera] = {}
        self._lock = threading.Lock()

    def open(self, head: fv.FitResult | None, is_wanted: Callable[[], bool]) -> Camera:
        """A place for a camera.

        Args:
            head: whose face it is, None where that is to be found.
        Raises:
            FaceVerseError: all places are taken.
        """
        with self._lock:
            if len(self._cameras) >= self.most:
                raise fv.FaceVerseError(
                    f"all {self.most} places for cameras are taken on this server; try again in a minute"
                )
            camera = Camera(lambda: self._tracker(head), is_wanted, self._forget, self._idle_s)
            self._cameras[camera.token] = camera
        return camera

    def __len__(self) -> int:
        return len(self._cameras)

    def _forget(self, camera: Camera) -> None:
        with self._lock:
            self._cameras.pop(camera.token, None)

    # -- routes -------------------------------------------------------------------------------------------------------
    def routes(self) -> list[Route]:
        """For the server beside Gradio's: POST live/TOKEN?t=SECONDS with a JPEG gives a row, POST live/TOKEN/ACTION
        does what `Camera` can."""
        return [
            Route(f"/{PLACE}/{{token}}", self._answer_frame, methods=["POST"]),
            Route(f"/{PLACE}/{{token}}/{{action}}", self._answer_action, methods=["POST"]),
        ]

    async def _answer_frame(self, request: Request) -> Response:
        camera = self._cameras.get(request.path_params["token"])
        if camera is None:
            return PlainTextResponse(_GONE, 410)
        start_s = time.perf_counter()
        try:
            seconds = float(request.query_params.get("t", "nan"))
            row = await asyncio.wrap_future(camera.frame(await _body(request), seconds))
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
        camera = self._cameras.get(request.path_params["token"])
        action = request.path_params["action"]
        if camera is None or action not in ("calibrate", "record", "close"):
            return PlainTextResponse(_GONE, 410)
        if action == "close":
            camera.close()
            return Response(status_code=204)
        try:
            await asyncio.wrap_future(camera.calibrate() if action == "calibrate" else camera.record())
        except Closed as error:
            return PlainTextResponse(str(error), 410)
        return Response(status_code=204)


async def _body(request: Request) -> bytes:
    """The body of a request, not more of it than a frame may have.

    Raises:
        ImageError: it is larger.
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_FRAME_BYTES:
            raise fv.ImageError(f"a frame has more than {MAX_FRAME_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _decoded(jpeg: bytes) -> np.ndarray:
    """(H, W, 3) uint8.

    Raises:
        ImageError: it is no JPEG, or too large.
    """
    try:
        image = Image.open(io.BytesIO(jpeg), formats=["JPEG"])
        if max(image.size) > MAX_FRAME_PX:
            raise fv.ImageError(f"a frame has {image.width} x {image.height} pixels, more than {MAX_FRAME_PX}")
        return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise fv.ImageError("a frame is no JPEG that can be read") from error
