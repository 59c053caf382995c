"""Events of a camera that moves the head on the stage; its frames take the way of `live`."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gradio as gr

import faceverse as fv

from . import handlers, hosting, markup, motions
from .editing import PARALLEL_EDITS
from .heads import Head, numbers
from .live import PLACE, Closed, Live
from .moving import BUSY, Moving
from .visits import Visit, Visits

ANSWER_S = 20.0  # a camera has a frame in work at most


class Filming(Moving):
    """Answers {component: new value} to what a visitor does with his camera."""

    def __init__(self, visits: Visits):
        self.live = Live(hosting.live_cameras())
        super().__init__(visits)

    def _connect_camera(self, quick: dict, slow: dict) -> None:
        self.film.click(None, None, None, js="() => { window.faceverse?.film(); }")
        some = {"concurrency_id": "edit", "concurrency_limit": PARALLEL_EDITS}
        self.view.film(self.answer_camera, self.whose, self.headed, trigger_mode="multiple", **some, **slow)

    def answer_camera(self, whose: str, request: gr.Request, event: gr.EventData) -> Iterator[dict]:
        """The browser has a camera and wants a place for it; or a recording has come to its end."""
        visit = self._visit(request)
        wish = (event._data or {}).get("do")
        try:
            if wish == "start":
                yield from self._film(visit, whose)
            elif wish == "keep":
                yield from self._keep(visit)
        except Exception as error:
            complaint = self._complaint(error, visit.language)
            if wish == "start":
                yield self._told(visit, {"error": complaint})
            else:
                yield {self.message: markup.error_line(complaint)}

    def _film(self, visit: Visit, whose: str) -> Iterator[dict]:
        if self._is_fitting(visit):
            raise fv.FaceVerseError(BUSY)

        def is_wanted() -> bool:
            visit.last_seen_s = time.monotonic()
            return not visit.gone

        if visit.camera is not None:
            visit.camera.close()
            visit.camera = None
        is_new = visit.head is None
        visit.camera = self.live.open(self._person(visit) if whose == "stage" else None, is_wanted)
        if is_new:
            with visit.changing:
                visit.head = Head.of(motions.average_head(), next(numbers))
                visit.stand_in = visit.head.person
                self._show(visit)
        told = self._told(visit, {"address": f"{PLACE}/{visit.camera.token}", "person": visit.head.person})
        yield {self.message: ""} | told | (self._greeting(visit) if is_new else {})
        if is_new:
            yield self._pictures(visit, visit.head.fitted, None)

    def _told(self, visit: Visit, film: dict) -> dict:
        """What the browser is told of its wish."""
        visit.view = {**visit.view, "film": {"number": next(numbers)} | film}
        return {self.view: self._value(visit)}

    def _keep(self, visit: Visit) -> Iterator[dict]:
        camera, visit.camera = visit.camera, None
        if camera is None:
            raise fv.FaceVerseError("this camera is not followed any more; start it again")
        try:
            track = camera.recorded().result(ANSWER_S)
        except Closed as error:
            raise fv.FaceVerseError(str(error)) from error
        finally:
            camera.close()
        if visit.head is None:
            raise handlers.Stopped
        yield from self._taken(visit, track, "camera", visit.head.fitted)
