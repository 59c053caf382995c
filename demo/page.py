"""The page: fits of photographs, heads from files, and the wiring of all events."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gradio as gr

from . import api, fit_jobs, heads, markup, pictures
from .edit_events import AWAY, PARALLEL_EDITS
from .fit_jobs import FaceChoice, FitJob, FittedHead, Progress
from .heads import EditableHead, serial_numbers
from .job_queue import MAX_WAITING, QueueEntry
from .layout import ASSETS, THREE_JS, launch_options
from .sessions import Session, Sessions
from .tracking_events import START_DOWNLOAD
from .view_files import file_url
from .webcam_events import WebcamEvents
from .words import say, sentence

__all__ = ["Page", "build", "launch_options"]

QUEUE_LENGTH = 40
NOT_YET = "page.donor_too_early"
SEND_STATE = "(state, ...settings) => [JSON.stringify(window.faceverse?.state() ?? {}), ...settings]"

_log = logging.getLogger(__name__)


def build(root: Path | None = None, detail=True) -> Page:
    """Build the page; its `demo` is the Gradio app, ready to launch.

    Args:
        root: folder of the sessions, inside Gradio's upload folder (GRADIO_TEMP_DIR); by default a subfolder of that.
        detail: as in `faceverse.fit`; False saves a slow server the time.
    """
    gr.set_static_paths([ASSETS, THREE_JS.parent])
    return Page(Sessions(root or Path(gr.utils.get_upload_folder()) / "faceverse"), detail)


class Page(WebcamEvents):
    """The whole page: event handlers of fits, besides those of `WebcamEvents`, `TrackingEvents` and `EditEvents`."""

    def __init__(self, sessions: Sessions, detail=True):
        self.detail = detail
        atexit.register(sessions.close_all)
        super().__init__(sessions)
        with self.demo:
            api.connect(self.sessions, self.queue, self.detail)  # first: Gradio adds numbers to repeated names
            self._connect()
        self.demo.queue(max_size=QUEUE_LENGTH, default_concurrency_limit=4)

    def warm_up(self) -> None:
        """Load the models and compile the kernels in the background, so that the first visitor does not wait for it."""

        def work() -> None:
            try:
                fit_jobs.warm_up_fit(self.sessions.root, self.model_file, self.detail)
            except Exception as error:
                _log.error("the warm-up failed", exc_info=error)

        threading.Thread(target=work, daemon=True).start()

    # -- events -------------------------------------------------------------------------------------------------------
    def _connect(self) -> None:
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        slow: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        started = [
            self.fit_ticket,
            self.message,
            self.cancel_button,
            self.other_face_button,
            self.fit_report,
            self.view,
        ]
        moving = [self.motion_box, self.cancel_tracking_button, self.track_again_button]
        shown = [*started[1:], self.results, self.download_link, self.donor_note, *self.picture_outputs, *moving]
        self.demo.load(self.load_model_file, None, self.view, **quick)
        self.demo.unload(self.close_session)
        # The library reads the unchanged upload with its EXIF data, so Gradio must not preprocess it.
        self.photo.input(self.take, self.photo, started, preprocess=False, **quick)
        self.photo.clear(self.clear, None, [*shown, self.fallback], **quick)
        self.more_photos.upload(self.take, self.more_photos, [*started, self.more_photos], preprocess=False, **quick)
        self.sample_gallery.pick(self.take_sample, None, [self.photo, *started], **quick)
        self.open_head_file.upload(self.take_saved, self.open_head_file, shown, preprocess=False, **slow)
        self.donor_photo.input(self.take_donor, self.donor_photo, started, preprocess=False, **quick)
        self.random_donor_button.click(self.take_random_donor, None, shown, concurrency_id="edit", **slow)
        self.donor_file.upload(self.take_saved_donor, self.donor_file, shown, preprocess=False, **slow)
        self.other_face_button.click(self.ask_again, None, started, **quick)
        self.cancel_button.click(self.cancel_fit, None, started, **quick)
        self.view.choose(self.choose, None, started, **quick)
        changed = [self.view, self.message, self.estimates]
        for event, answer in ((self.view.edit, self.change), (self.view.randomise, self.randomise)):
            event(answer, None, changed, concurrency_id="edit", concurrency_limit=PARALLEL_EDITS, **slow)
        self.losses_tab.select(self.draw_losses, None, self.loss_plot, **quick)
        self.view.fallback(self.show_fallback, None, [self.fallback, self.simple_viewer, self.turntable], **slow)
        self.fit_ticket.change(self.fit, None, shown, concurrency_id="fit", concurrency_limit=MAX_WAITING, **slow)
        for kind, button in self.download_buttons.items():
            saving = button.click(
                self.download_handler(kind),
                [self.edit_state, self.lod_choice, self.named_files],
                self.download_link,
                js=SEND_STATE,
                **slow,
            )
            saving.then(None, self.download_link, None, js=START_DOWNLOAD)
        self._connect_tracking(quick, slow)
        self._connect_webcam(quick, slow)

    def load_model_file(self) -> dict:
        """Let the browser fetch the pack of the face model while the visitor chooses a photograph."""
        return {self.view: heads.model_view(self.model_file)}

    def close_session(self, request: gr.Request) -> None:
        """End the session when the tab is closed or reloaded."""
        self.sessions.close(request.session_hash)

    # -- photographs --------------------------------------------------------------------------------------------------
    def take(self, upload: dict | list | None, request: gr.Request) -> dict:
        """Copy one upload, or several of one person, into the session's folder and queue a fit."""
        return self._take(upload, request)

    def take_donor(self, upload: dict | None, request: gr.Request) -> dict:
        """Queue a fit of a donor, the second person to blend with."""
        return self._take(upload, request, donor=True)

    def _take(self, upload: dict | list | None, request: gr.Request, donor: bool = False) -> dict:
        session = self._session(request)
        uploads = upload if isinstance(upload, list) else [upload] if upload else []
        if not uploads:  # the photograph was cleared
            return {self.message: ""}
        if donor and (session.head is None or session.status is not None):
            return {self.message: markup.error_line(say(NOT_YET, session.language))}
        try:
            paths = [self._uploaded(one) for one in uploads]
            job = fit_jobs.claim(paths, session.folder, donor=donor)
        except fit_jobs.EXPECTED as error:
            return self._end_fit(session, fit_jobs.message_of(error))
        return self._start_fit(session, job) | ({self.more_photos: None} if isinstance(upload, list) else {})

    def take_sample(self, request: gr.Request, event: gr.EventData) -> dict:
        """Queue a fit of a sample photograph."""
        session = self._session(request)
        found = fit_jobs.samples(self.sessions.root)
        index = (event._data or {}).get("index")
        shown = found[index if isinstance(index, int) and 0 <= index < len(found) else 0]
        job = replace(fit_jobs.claim([shown], session.folder, show_s=None), is_sample=True)
        return self._start_fit(session, job) | {self.photo: str(shown)}

    def choose(self, request: gr.Request, event: gr.EventData) -> dict:
        """Queue a fit of the chosen face."""
        session = self._session(request)
        face = (event._data or {}).get("face")
        if session.fit_job is None or not isinstance(face, int) or not 0 <= face < 1000:
            return self._end_fit(session, AWAY)
        return self._start_fit(session, replace(session.fit_job, face=face))

    def ask_again(self, request: gr.Request) -> dict:
        """Let the visitor choose another face of the same photograph."""
        session = self._session(request)
        if session.fit_job is None:
            return self._end_fit(session, AWAY)
        return self._start_fit(session, replace(session.fit_job, face=None, always_ask=True))

    # -- fit ----------------------------------------------------------------------------------------------------------
    def fit(self, request: gr.Request) -> Iterator[dict]:
        """Wait in the queue, run the fit and report progress.

        The fit stops when the visitor cancels it, starts another one or closes the page.
        """
        session = self._session(request)
        run, job = session.run_id, session.fit_job

        def is_active() -> bool:
            return session.run_id == run and not session.closed

        try:
            with self.queue.enter() as entry:
                yield from self._wait_for_turn(session, entry, is_active)
                yield from self._run_fit(session, job, is_active, entry)
        except Exception as error:
            if is_active():
                yield self._end_fit(session, self._message_of(error))
                return
        if session.run_id in (0, run):
            session.status = session.status if session.status and session.status.get("choose") else None
        yield {self.message: ""}

    def _run_fit(
        self, session: Session, job: FitJob | None, is_active: Callable[[], bool], entry: QueueEntry
    ) -> Iterator[dict]:
        """Run a fit and show its events. After the base head, jobs that wait for their first turn come first."""
        if job is None or not is_active():
            return
        for event in fit_jobs.fit(job, is_active, self.detail, lambda: entry.defer(is_active)):
            if not is_active():
                return
            if isinstance(event, Progress):
                session.status = {**asdict(event), "text": say(event.text, session.language)}
                session.status["refining"] |= job.is_donor
                yield {self.view: {**session.view, "status": session.status}}
            elif isinstance(event, FaceChoice):
                yield self._ask_face(session, event)
            elif job.is_donor:
                yield from self._show_donor(session, event)
            else:
                yield from self._show_head(session, job, event)

    def _ask_face(self, session: Session, choice: FaceChoice) -> dict:
        session.run_id = 0
        session.status = {"text": "", "fraction": 0.0, "choose": asdict(choice)}
        return {self.view: {**session.view, "status": session.status}, self.cancel_button: gr.Button(visible=False)}

    def _show_head(self, session: Session, job: FitJob, fitted: FittedHead) -> Iterator[dict]:
        """Show a fitted head: the 3D view first, then wrinkles and pictures.

        The visitor may be editing the base head when its detail arrives. Edits that are baked into files are applied to
        the detailed head; the browser keeps the others.
        """
        with session.lock:
            head = session.head
            is_new = head is None or head.person != fitted.person
            if head is None or is_new:
                self._delete_motion(session)
                head = EditableHead.of(fitted.result, fitted.person)
                session.sample_person = fitted.person if job.is_sample else 0
            else:
                head = heads.refitted(head, fitted.result)
            session.head = head
            session.status = None if fitted.is_final else session.status and session.status | {"refining": True}
            shown = self._show(session, head)
        if fitted.is_final and (len(job.photos) > 1 or fitted.face_count < 2):
            session.fit_job = None
        yield {
            self.view: shown,
            self.cancel_button: gr.Button(visible=not fitted.is_final),
            self.results: gr.Column(visible=True),
            self.other_face_button: gr.Button(visible=fitted.is_final and session.fit_job is not None),
            self.fit_report: markup.report(fitted.result, fitted.is_final, session.language),
            self.estimates: markup.about(fitted.result, session.language),
            **({self.download_link: "", self.donor_note: ""} | self._without_motion() if is_new else {}),
        }
        yield from self._add_wrinkles(session, fitted.person)
        yield self._pictures(session, fitted.result, fitted.photo_rgb)

    def draw_losses(self, request: gr.Request) -> dict:
        """Draw the loss curves when their tab is opened; Plotly cannot draw in a hidden tab."""
        session = self._session(request)
        if session.head is None:
            return {self.loss_plot: None}
        labels = {"step": say("page.step", session.language), "loss": say("page.loss", session.language)}
        return {self.loss_plot: pictures.loss_figure(session.head.fitted, labels)}

    def _show_donor(self, session: Session, fitted: FittedHead) -> Iterator[dict]:
        """Blend with the donor once its fit is complete."""
        if fitted.is_final:
            session.run_id, session.status, session.fit_job = 0, None, None
            name = say("page.other_photograph", session.language)
            yield self._with_donor(session, fitted.result, name) | {self.cancel_button: gr.Button(visible=False)}

    # -- heads from files ---------------------------------------------------------------------------------------------
    def take_saved(self, upload: dict | None, request: gr.Request) -> Iterator[dict]:
        """Open a head that was downloaded as JSON."""
        session = self._session(request)
        try:
            path = self._uploaded(upload)
            try:
                head = heads.open_saved(path, next(serial_numbers))
            finally:
                path.unlink(missing_ok=True)
        except Exception as error:
            yield self._end_fit(session, self._message_of(error))
            return
        if session.fit_job is not None:
            session.fit_job.delete_photos()
        session.run_id, session.status, session.fit_job = 0, None, None
        self._delete_motion(session)
        with session.lock:
            session.head = head
            shown = self._show(session, head)
        yield {
            self.view: shown,
            self.message: "",
            self.cancel_button: gr.Button(visible=False),
            self.results: gr.Column(visible=True),
            self.other_face_button: gr.Button(visible=False),
            self.fit_report: markup.report(head.fitted, True, session.language),
            self.estimates: markup.about(head.fitted, session.language),
            self.download_link: "",
            self.donor_note: "",
        } | self._without_motion()
        yield from self._add_wrinkles(session, head.person)
        yield self._pictures(session, head.fitted, None)

    # -- parts of answers ---------------------------------------------------------------------------------------------
    def _start_fit(self, session: Session, job: FitJob) -> dict:
        session.fit_job = job
        step = Progress(say("page.waiting", session.language), 0.0, refining=job.is_donor)
        session.run_id, session.status = next(self._runs), None
        return {
            self.fit_ticket: session.run_id,
            self.message: "",
            self.cancel_button: gr.Button(visible=True),
            self.other_face_button: gr.Button(visible=False),
            self.view: {**session.view, "status": asdict(step)},
            **({} if job.is_donor else {self.fit_report: ""}),
        }

    def _end_fit(self, session: Session, message: str) -> dict:
        """End a fit without a new head: delete the photographs, keep an earlier head."""
        session.run_id, session.status = 0, None
        if session.fit_job is not None:
            session.fit_job.delete_photos()
        session.fit_job = None
        head, language = session.head, session.language
        return {
            self.message: markup.error_line(sentence(message, language)),
            self.cancel_button: gr.Button(visible=False),
            self.other_face_button: gr.Button(visible=False),
            self.fit_report: "" if head is None else markup.report(head.fitted, True, language),
            self.view: {"model": file_url(self.model_file), **session.view, "status": None},
        }

    def cancel_fit(self, request: gr.Request) -> dict:
        """Cancel a running or waiting fit; the head in the 3D view stays, an earlier one or the base head."""
        return self._end_fit(self._session(request), "")

    def clear(self, request: gr.Request) -> dict:
        """Delete all data of the session; the X button of the photograph does so."""
        self.sessions.close(request.session_hash)
        return (
            self._end_fit(self._session(request), "")
            | {
                self.results: gr.Column(visible=False),
                self.fallback: gr.Column(visible=False),
            }
            | self._without_motion()
        )

    def _without_motion(self) -> dict:
        """Components of a head without motion."""
        hidden = gr.Button(visible=False)
        return {
            self.motion_box: gr.Column(visible=False),
            self.cancel_tracking_button: hidden,
            self.track_again_button: hidden,
        }
