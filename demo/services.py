"""What the page's event handlers share: the session of a request, answers that follow from its state, and the queue."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import gradio as gr

import faceverse as fv

from . import fit_jobs, heads, markup, pictures, tracking_jobs
from .fit_jobs import Progress
from .heads import EditableHead
from .job_queue import POLL_S, JobQueue, QueueEntry
from .layout import Layout
from .session_states import FITS, VIDEOS, Event, Phase
from .sessions import Session, Sessions
from .tracking_jobs import Motion
from .view_files import file_url
from .words import language_of, say, sentence

BUSY = "page.busy"
_log = logging.getLogger(__name__)


class Services:
    """Shared by the controllers of the page.

    Args:
        layout: the components.
        sessions: of the visitors.
    """

    def __init__(self, layout: Layout, sessions: Sessions):
        self.layout, self.sessions, self.queue = layout, sessions, JobQueue()
        self._model_lock = threading.Lock()
        self._model_file: Path | None = None

    # -- requests -----------------------------------------------------------------------------------------------------
    def session(self, request: gr.Request) -> Session:
        """The visitor's session."""
        assert request.session_hash is not None  # every event of a page has one
        session = self.sessions.of(request.session_hash)
        session.language = language_of(request.headers.get("accept-language", ""))
        return session

    def uploaded(self, upload: dict | None) -> Path:
        """Path of an upload. A forged request may name another file.

        Raises:
            ParameterError: the file lies in a session's folder.
        """
        assert upload is not None  # Gradio sends an upload's event with its file
        path = Path(upload["path"]).resolve()
        if path.is_relative_to(self.sessions.root.resolve()):
            raise fv.ParameterError("upload.not_yours")
        return path

    def message_of(self, error: Exception) -> fv.Message:
        """The message of an error; faults of the program are logged."""
        if not isinstance(error, fit_jobs.EXPECTED):
            _log.error("a request failed", exc_info=error)
        return fit_jobs.message_of(error)

    def explained(self, session: Session, message: str | Exception) -> str:
        """A message or an error as HTML; nothing for an empty message."""
        if isinstance(message, Exception):
            message = self.message_of(message)
        return markup.error_line(sentence(message, session.language))

    def error_line(self, session: Session, message: str | Exception) -> dict:
        """An answer that changes nothing but the message."""
        return {self.layout.message: self.explained(session, message)}

    # -- answers ------------------------------------------------------------------------------------------------------
    def controls(self, session: Session) -> dict:
        """The components that follow from a session's state: the 3D view, and which buttons and parts are there."""
        shown, phase, motion = self.layout, session.phase, session.motion
        has_video = motion is not None and motion.video is not None
        return {
            shown.view: self.view_value(session),
            shown.cancel_button: gr.Button(visible=phase in FITS),
            shown.cancel_tracking_button: gr.Button(visible=phase in VIDEOS),
            shown.other_face_button: gr.Button(visible=phase is Phase.IDLE and session.fit_job is not None),
            shown.track_again_button: gr.Button(visible=phase not in VIDEOS and has_video),
            shown.draw_overlay_button: gr.Button(visible=has_video),
            shown.motion_box: gr.Column(visible=motion is not None),
            shown.results: gr.Column(visible=session.head is not None),
        }

    def without_photograph(self) -> dict:
        """Components of a head that is not the one of the photograph shown beside it."""
        return {self.layout.photo: None, self.layout.more_photos: None}

    def without_files(self) -> dict:
        """Components of a new head, for which nothing has been saved or mixed."""
        shown = self.layout
        return dict.fromkeys(
            (shown.download_link, shown.donor_note, shown.motion_download_link, shown.overlay_video), ""
        )

    def view_value(self, session: Session) -> dict:
        """Current value of the 3D view."""
        return {"model": file_url(self.model_file), **session.view, "status": session.status}

    def show(self, session: Session, head: EditableHead) -> dict:
        """Write the files of the session's head and return the value of the 3D view."""
        kept = {name: session.view.get(name) for name in ("motion", "webcam", "kept")}
        session.view = heads.view(head, session.folder, self.model_file) | kept
        return self.view_value(session)

    def step(self, session: Session, step: Progress) -> dict:
        """Report the progress of the session's job."""
        text = say(step.text, session.language)
        session.progress = session.progress | {**asdict(step), "text": text}
        return {self.layout.view: self.view_value(session)}

    def add_wrinkles(self, session: Session, person: int) -> Iterator[dict]:
        """Add expression wrinkles, which take longer than the head; nothing if the head has changed in the meantime."""
        head = session.head
        if head is None or head.person != person or not head.has_detail:
            return
        wrinkled = heads.with_wrinkles(head, session.folder)
        with session.lock:
            if session.head is not head:
                return
            session.head = wrinkled
            session.view = {**session.view, "wrinkles": wrinkled.wrinkles}
            shown = self.view_value(session)
        yield {self.layout.view: shown}

    def pictures(self, session: Session, result, photo_rgb) -> dict:
        """Pictures of a head below the 3D view, beside its photograph if there is one."""
        files, language = pictures.of_fit(result, photo_rgb, session.folder), session.language
        return {
            self.layout.overlay: (str(files.photo), str(files.overlay)) if files.photo else None,
            self.layout.stage_pictures: markup.figures(files.stages, markup.STAGES, language)
            + markup.stage_times(result, language),
            self.layout.map_pictures: markup.figures(files.maps, markup.MAPS, language),
        }

    # -- jobs ---------------------------------------------------------------------------------------------------------
    def start(self, session: Session, event: Event, is_refining: bool) -> int:
        """Start the job of an event; return its number."""
        step = Progress(say("page.waiting", session.language), 0.0, refining=is_refining)
        return session.apply(event, **asdict(step))

    @staticmethod
    def is_active(session: Session, run: int) -> Callable[[], bool]:
        """() -> whether a job still is the session's."""
        return lambda: session.run_id == run and not session.closed

    @contextmanager
    def enter_queue(
        self, session: Session, is_active: Callable[[], bool], is_deferred: bool = False
    ) -> Iterator[QueueEntry]:
        """Context manager: the place of the session's job in the queue; one that is no longer active has none."""
        with self.queue.enter(is_deferred) as entry:
            if is_active():
                session.queue_entry = entry
            else:
                entry.leave()
            yield entry

    def wait_for_turn(self, session: Session, entry: QueueEntry, is_active: Callable[[], bool]) -> Iterator[dict]:
        """Wait for the job's turn or its end, and report the number of jobs ahead."""
        reported = 0
        while is_active() and not entry.wait(0 if reported == 0 else POLL_S):
            ahead = entry.ahead
            if ahead not in (0, reported):
                reported = ahead
                text = say("page.waiting_behind", session.language, ahead=ahead)
                session.progress = session.progress | {"text": text, "fraction": 0.0}
                yield {self.layout.view: self.view_value(session)}

    # -- motions ------------------------------------------------------------------------------------------------------
    @staticmethod
    def set_motion(session: Session, motion: Motion | None) -> None:
        """Set the motion that animates the head in the 3D view; None removes it."""
        session.motion = motion
        session.view = {**session.view, "motion": motion and motion.shown}

    def delete_motion(self, session: Session) -> None:
        """Delete the motion and its video, because the head changes."""
        session.tracking_job = None
        self.set_motion(session, None)
        tracking_jobs.delete_videos(session.folder)

    @property
    def model_file(self) -> Path:
        """Pack of the face model for the 3D view, written lazily."""
        with self._model_lock:
            if self._model_file is None or not self._model_file.exists():
                self._model_file = heads.model_file(self.sessions.root)
            return self._model_file
