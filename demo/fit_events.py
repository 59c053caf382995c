"""Page events of photographs: fits, the choice of a face, heads from files."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, replace
from typing import Any

import gradio as gr

from . import fit_jobs, heads, markup, pictures
from .edit_events import AWAY, EditEvents
from .fit_jobs import FaceChoice, FitJob, FittedHead, Progress
from .heads import EditableHead, serial_numbers
from .job_queue import MAX_WAITING, QueueEntry
from .services import Services
from .session_states import Event
from .sessions import Session
from .words import say

NOT_YET = "page.donor_too_early"


class FitEvents:
    """Event handlers of photographs; each returns {component: new value}.

    Args:
        services: shared ones.
        edits: for donors.
        detail: as in `faceverse.fit`.
    """

    def __init__(self, services: Services, edits: EditEvents, detail=True):
        self.services, self.shown = services, services.layout
        self.edits, self.detail = edits, detail

    def connect(self, quick: dict, slow: dict) -> None:
        """Connect the events; `quick` and `slow` are options of those that wait for nothing and of the others."""
        shown, outputs = self.shown, self.shown.outputs
        started = [shown.fit_ticket, *outputs]
        fits: dict[str, Any] = {"concurrency_id": "fit", "concurrency_limit": MAX_WAITING}
        # The library reads the unchanged upload with its EXIF data, so Gradio must not preprocess it.
        shown.photo.input(self.take, shown.photo, started, preprocess=False, **quick)
        shown.photo.clear(self.clear, None, [*outputs, shown.fallback, shown.donor_photo], **quick)
        shown.more_photos.upload(self.take, shown.more_photos, started, preprocess=False, **quick)
        shown.sample_gallery.pick(self.take_sample, None, started, **quick)
        shown.open_head_file.upload(self.take_saved, shown.open_head_file, outputs, preprocess=False, **slow)
        shown.donor_photo.input(self.take_donor, shown.donor_photo, started, preprocess=False, **quick)
        shown.other_face_button.click(self.ask_again, None, started, **quick)
        shown.cancel_button.click(self.cancel_fit, None, outputs, **quick)
        shown.view.choose(self.choose, None, started, **quick)
        shown.losses_tab.select(self.draw_losses, None, shown.loss_plot, **quick)
        shown.fit_ticket.change(self.fit, None, outputs, **fits, **slow)

    # -- photographs --------------------------------------------------------------------------------------------------
    def take(self, upload: dict | list | None, request: gr.Request) -> dict:
        """Copy one upload, or several of one person, into the session's folder and queue a fit."""
        session, is_list = self.services.session(request), isinstance(upload, list)
        answer = self._take(session, upload, donor=False)
        # Of several photographs none is shown, so none of an earlier head may be.
        return answer | (self.services.without_photograph() if is_list else {})

    def take_donor(self, upload: dict | None, request: gr.Request) -> dict:
        """Queue a fit of a donor, the second person to blend with."""
        session = self.services.session(request)
        if upload and (session.head is None or not session.may(Event.DONOR)):
            return self.services.error_line(session, NOT_YET)
        return self._take(session, upload, donor=True)

    def _take(self, session: Session, upload: dict | list | None, donor: bool) -> dict:
        uploads = upload if isinstance(upload, list) else [upload] if upload else []
        if not uploads:  # the photograph was cleared
            return {self.shown.message: ""}
        session.has_new_photo = session.has_new_photo or not donor
        try:
            paths = [self.services.uploaded(one) for one in uploads]
            job = fit_jobs.claim(paths, session.folder, donor=donor)
        except fit_jobs.EXPECTED as error:
            return self._end_fit(session, Event.FAILED, fit_jobs.message_of(error))
        return self._start_fit(session, job, Event.DONOR if donor else Event.PHOTOGRAPH)

    def take_sample(self, request: gr.Request, event: gr.EventData) -> dict:
        """Queue a fit of a sample photograph."""
        session = self.services.session(request)
        found = fit_jobs.samples(self.services.sessions.root)
        index = (event._data or {}).get("index")
        chosen = found[index if isinstance(index, int) and 0 <= index < len(found) else 0]
        job = replace(fit_jobs.claim([chosen], session.folder, show_s=None), is_sample=True)
        session.has_new_photo = True
        return self._start_fit(session, job, Event.PHOTOGRAPH) | {self.shown.photo: str(chosen)}

    def choose(self, request: gr.Request, event: gr.EventData) -> dict:
        """Queue a fit of the chosen face."""
        session = self.services.session(request)
        face = (event._data or {}).get("face")
        if session.fit_job is None or not isinstance(face, int) or not 0 <= face < 1000:
            return self._end_fit(session, Event.FAILED, AWAY)
        what = Event.DONOR_FACE if session.fit_job.is_donor else Event.FACE
        if not session.may(what):  # a second click
            return self.services.controls(session)
        return self._start_fit(session, replace(session.fit_job, face=face), what)

    def ask_again(self, request: gr.Request) -> dict:
        """Let the visitor choose another face of the same photograph."""
        session = self.services.session(request)
        if session.fit_job is None:
            return self._end_fit(session, Event.FAILED, AWAY)
        return self._start_fit(session, replace(session.fit_job, face=None, always_ask=True), Event.PHOTOGRAPH)

    # -- fit ----------------------------------------------------------------------------------------------------------
    def fit(self, request: gr.Request) -> Iterator[dict]:
        """Wait in the queue, run the fit and report progress.

        The fit stops when the visitor cancels it, starts another one or closes the page.
        """
        session = self.services.session(request)
        job, is_active = session.fit_job, self.services.is_active(session, session.run_id)
        fitted = None
        try:
            with self.services.enter_queue(session, is_active) as entry:
                yield from self.services.wait_for_turn(session, entry, is_active)
                if job is not None and is_active():
                    fitted = yield from self._run_fit(session, job, is_active, entry)
        except Exception as error:
            if is_active():
                yield self._end_fit(session, Event.FAILED, self.services.message_of(error))
            return
        if fitted is not None:  # what follows keeps nobody waiting
            yield from self._show_rest(session, fitted)

    def _run_fit(
        self, session: Session, job: FitJob, is_active: Callable[[], bool], entry: QueueEntry
    ) -> Generator[dict, None, FittedHead | None]:
        """Run a fit and show its events; return the final head. After the base head, jobs that wait for their first
        turn come first."""
        for event in fit_jobs.fit(job, is_active, self.detail, lambda: entry.defer(is_active)):
            if not is_active():
                return None
            if isinstance(event, Progress):
                yield self.services.step(session, replace(event, refining=event.refining or job.is_donor))
            elif isinstance(event, FaceChoice):
                session.apply(Event.FACES, text="", fraction=0.0, choose=asdict(event))
                yield self.services.controls(session)
            elif job.is_donor:
                yield from self._show_donor(session, event)
            else:
                answer = self._show_head(session, job, event, is_active)
                if answer is None:
                    return None
                yield answer
                if event.is_final:
                    return event
                yield from self._show_rest(session, event)
        return None

    def _show_head(
        self, session: Session, job: FitJob, fitted: FittedHead, is_active: Callable[[], bool]
    ) -> dict | None:
        """Show a fitted head in the 3D view; None where the job is no longer the session's.

        The visitor may be editing the base head when its detail arrives. Edits that are baked into files are applied to
        the detailed head; the browser keeps the others.
        """
        with session.lock:
            if not is_active():
                return None
            head = session.head
            is_new = head is None or head.person != fitted.person
            if head is None or is_new:
                self.services.delete_motion(session)
                head = EditableHead.of(fitted.result, fitted.person)
                session.sample_person = fitted.person if job.is_sample else 0
            else:
                head = heads.refitted(head, fitted.result)
            session.head, session.has_new_photo = head, False
            if fitted.is_final and (len(job.photos) > 1 or fitted.face_count < 2):
                session.fit_job = None
            self._report_stage(session, fitted.is_final)
            self.services.show(session, head)
        shown, language = self.shown, session.language
        return {
            **self.services.controls(session),
            shown.fit_report: markup.report(fitted.result, fitted.is_final, language),
            shown.estimates: markup.about(fitted.result, language),
            **(self.services.without_files() if is_new else {}),
        }

    @staticmethod
    def _report_stage(session: Session, is_final: bool) -> None:
        if is_final:
            session.apply(Event.FINISHED)
        elif session.may(Event.BASE_HEAD):
            session.apply(Event.BASE_HEAD, refining=True)

    def _show_rest(self, session: Session, fitted: FittedHead) -> Iterator[dict]:
        """Wrinkles and pictures of a head, as long as it is the one that is shown."""

        def is_shown() -> bool:
            return session.head is not None and session.head.person == fitted.person and not session.closed

        if is_shown():
            yield from self.services.add_wrinkles(session, fitted.person)
        if is_shown():
            yield self.services.pictures(session, fitted.result, fitted.photo_rgb)

    def draw_losses(self, request: gr.Request) -> dict:
        """Draw the loss curves when their tab is opened; Plotly cannot draw in a hidden tab."""
        session, plot = self.services.session(request), self.shown.loss_plot
        if session.head is None:
            return {plot: None}
        labels = {"step": say("page.step", session.language), "loss": say("page.loss", session.language)}
        return {plot: pictures.loss_figure(session.head.fitted, labels)}

    def _show_donor(self, session: Session, fitted: FittedHead) -> Iterator[dict]:
        """Blend with the donor once its fit is complete."""
        if fitted.is_final:
            session.apply(Event.FINISHED)
            session.fit_job = None
            name = say("page.other_photograph", session.language)
            yield self.services.controls(session) | self.edits.with_donor(session, fitted.result, name)

    # -- heads from files ---------------------------------------------------------------------------------------------
    def take_saved(self, upload: dict | None, request: gr.Request) -> Iterator[dict]:
        """Open a head that was downloaded as JSON."""
        session = self.services.session(request)
        try:
            path = self.services.uploaded(upload)
            try:
                head = heads.open_saved(path, next(serial_numbers))
            finally:
                path.unlink(missing_ok=True)
        except Exception as error:  # a running fit goes on
            yield self.services.controls(session) | self.services.error_line(session, error)
            return
        if session.fit_job is not None:
            session.fit_job.delete_photos()
        with session.lock:
            session.apply(Event.SAVED_HEAD)
            session.fit_job, session.has_new_photo = None, False
            self.services.delete_motion(session)
            session.head = head
            self.services.show(session, head)
        shown, language = self.shown, session.language
        yield {
            **self.services.controls(session),
            **self.services.without_photograph(),
            **self.services.without_files(),
            shown.message: "",
            shown.fit_report: markup.saved_report(head.fitted, language),
            shown.estimates: markup.about(head.fitted, language),
        }
        yield from self.services.add_wrinkles(session, head.person)
        if session.head is not None and session.head.person == head.person:
            yield self.services.pictures(session, head.fitted, None)

    # -- parts of answers ---------------------------------------------------------------------------------------------
    def _start_fit(self, session: Session, job: FitJob, event: Event) -> dict:
        session.fit_job = job
        shown = self.shown
        return {
            shown.fit_ticket: self.services.start(session, event, is_refining=job.is_donor),
            **self.services.controls(session),
            shown.message: "",
            **({} if job.is_donor else {shown.fit_report: ""}),
        }

    def _end_fit(self, session: Session, event: Event, message: str = "") -> dict:
        """End a fit without a new head: delete the photographs, keep an earlier head, without a photograph of another
        one beside it."""
        with session.lock:
            session.apply(event)
            if session.fit_job is not None:
                session.fit_job.delete_photos()
            session.fit_job = None
            is_earlier, session.has_new_photo = session.head is not None and session.has_new_photo, False
        shown, report = self.shown, ""
        if is_earlier:
            report = say("page.earlier_head", session.language)
        elif session.head is not None:
            report = markup.report(session.head.fitted, True, session.language)
        return {
            **self.services.controls(session),
            **self.services.error_line(session, message),
            shown.fit_report: report,
            **(self.services.without_photograph() if is_earlier else {}),
        }

    def cancel_fit(self, request: gr.Request) -> dict:
        """Cancel a running or waiting fit; the head in the 3D view stays, an earlier one or the base head."""
        return self._end_fit(self.services.session(request), Event.CANCELLED)

    def clear(self, request: gr.Request) -> dict:
        """Delete all data of the session; the X button of the photograph does so."""
        token = self.services.session(request).token
        self.services.sessions.close(request.session_hash)
        session, shown = self.services.session(request), self.shown
        session.token, session.view = token, {"kept": token}
        return {
            **self._end_fit(session, Event.CANCELLED),
            **self.services.without_photograph(),
            **self.services.without_files(),
            **dict.fromkeys((shown.stage_pictures, shown.map_pictures, shown.estimates, shown.motion_note), ""),
            shown.overlay: None,
            shown.donor_photo: None,
            shown.fallback: gr.Column(visible=False),
        }
