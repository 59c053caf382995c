"""Page events of the webcam that animates the head; its frames go through the routes of `webcam`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

import faceverse as fv

from . import fit_jobs, hosting, tracking_jobs
from .edit_events import PARALLEL_EDITS
from .heads import EditableHead, serial_numbers
from .services import BUSY, Services
from .session_states import Event
from .sessions import Session
from .tracking_events import TrackingEvents
from .webcam import ROUTE, Closed, WebcamStreams
from .words import sentence

ANSWER_S = 20.0  # limit for the frames that are still in the stream


class WebcamEvents:
    """Event handlers for the webcam; each returns {component: new value}.

    Args:
        services: shared ones.
        tracking: for recordings.
    """

    def __init__(self, services: Services, tracking: TrackingEvents):
        self.services, self.shown, self.tracking = services, services.layout, tracking
        self.webcams = WebcamStreams(hosting.webcam_limit())

    def connect(self, quick: dict, slow: dict) -> None:
        """Connect the events, see `FitEvents.connect`."""
        shown = self.shown
        shown.open_webcam.click(None, None, None, js="() => { window.faceverse?.openWebcam(); }")
        some: dict[str, Any] = {"concurrency_id": "edit", "concurrency_limit": PARALLEL_EDITS}
        shown.view.webcam(self.answer_webcam, shown.subject, shown.outputs, trigger_mode="multiple", **some, **slow)

    def answer_webcam(self, subject: str, request: gr.Request, event: gr.EventData) -> Iterator[dict]:
        """Open a stream for the browser's webcam, or turn its recording into a motion."""
        session = self.services.session(request)
        action = (event._data or {}).get("do")
        try:
            if action == "start":
                yield from self._start_webcam(session, subject)
            elif action == "keep":
                yield from self._keep_recording(session)
        except Exception as error:
            message = self.services.message_of(error)
            if action == "start":
                yield self._webcam_answer(session, {"error": sentence(message, session.language)})
            else:
                yield self.services.error_line(session, message)

    def _start_webcam(self, session: Session, subject: str) -> Iterator[dict]:
        if not session.may(Event.MOTION):
            raise fv.FaceVerseError(BUSY)

        def is_active() -> bool:
            session.last_seen_s = time.monotonic()
            return not session.closed

        if session.webcam is not None:
            session.webcam.close()
            session.webcam = None
        head = session.head
        is_new = head is None
        session.webcam = self.webcams.open(
            self.tracking.visitor_head(session) if subject == "current" else None, is_active
        )
        if head is None:
            with session.lock:
                session.head = head = EditableHead.of(tracking_jobs.average_head(), next(serial_numbers))
                session.average_person = head.person
                self.services.show(session, head)
        answer = self._webcam_answer(session, {"address": f"{ROUTE}/{session.webcam.token}", "person": head.person})
        yield (
            {self.shown.message: ""} | answer | (self.tracking.new_head_answer(session, head.fitted) if is_new else {})
        )
        if is_new:
            yield self.services.pictures(session, head.fitted, None)

    def _webcam_answer(self, session: Session, answer: dict) -> dict:
        """Answer to the browser's request: the address of the stream, or an error."""
        session.view = {**session.view, "webcam": {"number": next(serial_numbers)} | answer}
        return {self.shown.view: self.services.view_value(session)}

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
        yield from self.tracking.adopt_track(session, track, "camera", session.head.fitted)
