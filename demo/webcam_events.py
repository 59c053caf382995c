"""Page events of the webcam that animates the head; its frames go through the routes of `webcam`."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gradio as gr

import faceverse as fv

from . import fit_jobs, hosting, markup, tracking_jobs
from .edit_events import PARALLEL_EDITS
from .heads import EditableHead, serial_numbers
from .sessions import Session, Sessions
from .tracking_events import BUSY, TrackingEvents
from .webcam import ROUTE, Closed, WebcamStreams

ANSWER_S = 20.0  # limit for the frames that are still in the stream


class WebcamEvents(TrackingEvents):
    """Event handlers for the webcam; each returns {component: new value}."""

    def __init__(self, sessions: Sessions):
        self.webcams = WebcamStreams(hosting.webcam_limit())
        super().__init__(sessions)

    def _connect_webcam(self, quick: dict, slow: dict) -> None:
        self.open_webcam.click(None, None, None, js="() => { window.faceverse?.openWebcam(); }")
        some = {"concurrency_id": "edit", "concurrency_limit": PARALLEL_EDITS}
        self.view.webcam(self.answer_webcam, self.subject, self.head_outputs, trigger_mode="multiple", **some, **slow)

    def answer_webcam(self, subject: str, request: gr.Request, event: gr.EventData) -> Iterator[dict]:
        """Open a stream for the browser's webcam, or turn its recording into a motion."""
        session = self._session(request)
        action = (event._data or {}).get("do")
        try:
            if action == "start":
                yield from self._start_webcam(session, subject)
            elif action == "keep":
                yield from self._keep_recording(session)
        except Exception as error:
            message = self._explained(error, session.language)
            if action == "start":
                yield self._webcam_answer(session, {"error": message})
            else:
                yield {self.message: markup.error_line(message)}

    def _start_webcam(self, session: Session, subject: str) -> Iterator[dict]:
        if self._is_fitting(session):
            raise fv.FaceVerseError(BUSY)

        def is_active() -> bool:
            session.last_seen_s = time.monotonic()
            return not session.closed

        if session.webcam is not None:
            session.webcam.close()
            session.webcam = None
        head = session.head
        is_new = head is None
        session.webcam = self.webcams.open(self.visitor_head(session) if subject == "current" else None, is_active)
        if head is None:
            with session.lock:
                session.head = head = EditableHead.of(tracking_jobs.average_head(), next(serial_numbers))
                session.average_person = head.person
                self._show(session, head)
        answer = self._webcam_answer(session, {"address": f"{ROUTE}/{session.webcam.token}", "person": head.person})
        yield {self.message: ""} | answer | (self._new_head_answer(session, head.fitted) if is_new else {})
        if is_new:
            yield self._pictures(session, head.fitted, None)

    def _webcam_answer(self, session: Session, answer: dict) -> dict:
        """Answer to the browser's request: the address of the stream, or an error."""
        session.view = {**session.view, "webcam": {"number": next(serial_numbers)} | answer}
        return {self.view: self._view_value(session)}

    def _keep_recording(self, session: Session) -> Iterator[dict]:
        stream, session.webcam = session.webcam, None
        if stream is None:
            raise fv.FaceVerseError("webcam.gone")
        try:
            track = stream.recorded().result(ANSWER_S)
        except Closed as error:
            raise fv.FaceVerseError("webcam.gone") from error
        finally:
            stream.close()
        if session.head is None:
            raise fit_jobs.Stopped
        yield from self._adopt_track(session, track, "camera", session.head.fitted)
