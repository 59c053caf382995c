"""Page events of tracking: videos, recorded motions, the head drawn over a video."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

import faceverse as fv

from . import fit_jobs, heads, markup, tracking_jobs
from .edit_events import AWAY, SEND_STATE, START_DOWNLOAD
from .edit_state import EditState
from .fit_jobs import Progress
from .heads import EditableHead, serial_numbers
from .job_queue import MAX_WAITING, QueueEntry
from .services import BUSY, Services
from .session_states import VIDEOS, Event
from .sessions import Session
from .tracking_jobs import Motion, TrackingJob

NO_VIDEO = "page.no_video"


class TrackingEvents:
    """Event handlers for motions; each returns {component: new value}.

    Args:
        services: shared ones.
    """

    def __init__(self, services: Services):
        self.services, self.shown = services, services.layout

    def connect(self, quick: dict, slow: dict) -> None:
        """Connect the events, see `FitEvents.connect`."""
        fits: dict[str, Any] = {"concurrency_id": "fit", "concurrency_limit": MAX_WAITING}
        shown, outputs = self.shown, self.shown.outputs
        settings, started = [shown.subject, shown.quality], [shown.track_ticket, shown.video_upload, *outputs]
        videos = [shown.video_upload, *settings]
        shown.video_upload.upload(self.take_video, videos, started, preprocess=False, **quick)
        shown.track_again_button.click(self.track_again, settings, started, **quick)
        shown.track_ticket.change(self.track, None, outputs, **fits, **slow)
        shown.cancel_tracking_button.click(self.cancel_tracking, None, outputs, **quick)
        shown.open_motion_file.upload(self.take_motion, shown.open_motion_file, outputs, preprocess=False, **slow)
        drawn = [shown.edit_state]
        shown.draw_overlay_button.click(self.draw_overlay, drawn, outputs, js=SEND_STATE, **fits, **slow)
        shown.play_button.click(None, None, None, js="() => { window.faceverse?.play(); }")
        for kind, button in shown.motion_download_buttons.items():
            handler, link = self.motion_download_handler(kind), shown.motion_download_link
            button.click(handler, shown.edit_state, link, js=SEND_STATE, **slow).then(
                None, link, None, js=START_DOWNLOAD
            )

    # -- videos -------------------------------------------------------------------------------------------------------
    def take_video(self, upload: dict | None, subject: str, quality: str, request: gr.Request) -> dict:
        """Copy a video into the session's folder and queue it for tracking."""
        session = self.services.session(request)
        upload = upload[0] if isinstance(upload, list) and upload else upload
        if not upload:
            return {self.shown.video_upload: None}
        if not session.may(Event.VIDEO):
            fit_jobs.delete_later(self.services.uploaded(upload), 0)
            return self.services.error_line(session, BUSY) | {self.shown.video_upload: None}
        try:
            video = tracking_jobs.claim(self.services.uploaded(upload), session.folder)
        except fit_jobs.EXPECTED as error:
            return self._end_tracking(session, Event.FAILED, fit_jobs.message_of(error)) | {
                self.shown.video_upload: None
            }
        session.tracking_job = TrackingJob(video)
        return self._track_started(session, subject, quality) | {self.shown.video_upload: None}

    def track_again(self, subject: str, quality: str, request: gr.Request) -> dict:
        """Track the same video with other settings."""
        return self._track_started(self.services.session(request), subject, quality)

    def _track_started(self, session: Session, subject: str, quality: str) -> dict:
        if session.tracking_job is None or not session.tracking_job.video.path.exists():
            return self._end_tracking(session, Event.FAILED, NO_VIDEO)
        if not session.may(Event.VIDEO):
            return self.services.error_line(session, BUSY)
        head = self.visitor_head(session) if subject == "current" else None
        brings_head = subject == "video" or session.head is None or session.head.person == session.average_person
        session.tracking_job = TrackingJob(
            session.tracking_job.video, head, brings_head, "high" if quality == "high" else "fast"
        )
        self.services.set_motion(session, None)
        return {
            self.shown.track_ticket: self.services.start(session, Event.VIDEO, is_refining=True),
            **self.services.controls(session),
            self.shown.message: "",
        }

    def track(self, request: gr.Request) -> Iterator[dict]:
        """Wait in the queue, track the video and report progress; at the end the head in the 3D view moves."""
        session = self.services.session(request)
        task, is_active = session.tracking_job, self.services.is_active(session, session.run_id)
        try:
            with self.services.enter_queue(session, is_active, is_deferred=True) as entry:
                yield from self.services.wait_for_turn(session, entry, is_active)
                if task is not None and is_active():
                    for event in tracking_jobs.track_video(
                        task, is_active, lambda: self._let_first_runs_pass(entry, is_active)
                    ):
                        if not is_active():
                            break
                        if isinstance(event, Progress):
                            yield self.services.step(session, event)
                        else:
                            yield from self._show_track(session, task, event)
        except Exception as error:
            if is_active():
                yield self._end_tracking(session, Event.FAILED, self.services.message_of(error))
                return
        if session.motion is None and (
            session.tracking_job is task or session.tracking_job is None
        ):  # another job has replaced this one
            if task is not None:
                task.video.delete()
            session.tracking_job = None

    def _show_track(self, session: Session, task: TrackingJob, track) -> Iterator[dict]:
        session.apply(Event.FINISHED)
        motion = Motion.of(track, task.video.path.name, session.folder, task.video)
        yield from self._show_motion(
            session, motion, tracking_jobs.neutral_head_of(track) if task.brings_head else None
        )

    def draw_overlay(self, state: str, request: gr.Request) -> Iterator[dict]:
        """Render the edited head over the frames of its video, as an MP4."""
        session = self.services.session(request)
        head, motion = session.head, session.motion
        if head is None or motion is None or motion.video is None or not motion.video.path.exists():
            yield self.services.error_line(session, NO_VIDEO)
            return
        if not session.may(Event.OVERLAY):
            yield self.services.error_line(session, BUSY)
            return
        is_job = self.services.is_active(session, self.services.start(session, Event.OVERLAY, is_refining=True))

        def is_active() -> bool:
            return session.motion is motion and is_job()

        yield self.services.controls(session) | {self.shown.message: ""}
        try:
            with self.services.enter_queue(session, is_active, is_deferred=True) as entry:
                yield from self.services.wait_for_turn(session, entry, is_active)
                shown = heads.with_state(head, self._changes(state, head))
                work = tracking_jobs.overlay(
                    motion, shown, session.folder, is_active, lambda: self._let_first_runs_pass(entry, is_active)
                )
                for event in work if is_active() else ():
                    if isinstance(event, Progress):
                        yield self.services.step(session, event)
                    else:
                        yield {self.shown.overlay_video: markup.video(event, session.language)}
        except Exception as error:
            if is_job():
                yield self.services.error_line(session, error)
        if is_job():
            session.apply(Event.FINISHED)
            yield self.services.controls(session)

    def cancel_tracking(self, request: gr.Request) -> dict:
        """Cancel the running or waiting job. A video that is not tracked yet is deleted."""
        session = self.services.session(request)
        if session.phase not in VIDEOS:  # it has ended
            return self.services.controls(session)
        if session.motion is None:
            return self._end_tracking(session, Event.CANCELLED)
        session.apply(Event.CANCELLED)
        return self.services.controls(session) | {self.shown.message: ""}

    # -- motions from files -------------------------------------------------------------------------------------------
    def take_motion(self, upload: dict | None, request: gr.Request) -> Iterator[dict]:
        """Apply a motion from a file to the head in the 3D view, or to the average head."""
        session = self.services.session(request)
        try:
            path = self.services.uploaded(upload)
            try:
                if not session.may(Event.MOTION):
                    yield self.services.error_line(session, BUSY)
                    return
                head = session.head.fitted if session.head else tracking_jobs.average_head()
                track = tracking_jobs.load_motion(path, head)
            finally:
                path.unlink(missing_ok=True)
            is_new = session.head is None
            for answer in self.adopt_track(session, track, path.name, head):
                if is_new and session.head is not None:
                    session.average_person = session.head.person
                yield answer
        except Exception as error:
            yield self.services.error_line(session, error)

    def adopt_track(self, session: Session, track, name: str, head) -> Iterator[dict]:
        """Show a track that has no video, on a given head; a fit that began in the meantime ends."""
        self.services.delete_motion(session)
        session.apply(Event.MOTION if session.may(Event.MOTION) else Event.CANCELLED)
        yield from self._show_motion(session, Motion.of(track, name, session.folder), None if session.head else head)

    def _show_motion(self, session: Session, motion: Motion, head) -> Iterator[dict]:
        """Show a motion, and the head that comes with it, if any."""
        with session.lock:
            if head is not None:
                session.head, session.fit_job = EditableHead.of(head, next(serial_numbers)), None
                self.services.show(session, session.head)
            self.services.set_motion(session, motion)
        yield self._motion_answer(session, motion) | (self.new_head_answer(session, head) if head is not None else {})
        if head is not None:
            yield self.services.pictures(session, head, None)

    def motion_download_handler(self, kind: str):
        def save(state: str, request: gr.Request) -> str:
            session = self.services.session(request)
            head, motion = session.head, session.motion
            if head is None or motion is None:
                return self.services.explained(session, AWAY)
            try:
                shown = heads.with_state(head, self._changes(state, head))
                path = tracking_jobs.save(motion, kind, shown, session.folder)
            except Exception as error:
                return self.services.explained(session, error)
            return markup.file_line(path)

        return save

    @staticmethod
    def _changes(state: str, head: EditableHead) -> EditState:
        """Parse the slider values that the browser sent."""
        return EditState.from_json(json.loads(state or "{}"), head.neutral.model)

    # -- parts of answers ---------------------------------------------------------------------------------------------
    @staticmethod
    def visitor_head(session: Session):
        """The visitor's own head; None where there is none, or only a sample or the average head."""
        if session.head is None or session.head.person in (session.average_person, session.sample_person):
            return None
        return session.head.fitted

    @staticmethod
    def _let_first_runs_pass(entry: QueueEntry, is_active: Callable[[], bool]) -> None:
        """Defer this job where another one waits for its first turn."""
        if entry.blocks_first_run:
            entry.defer(is_active)

    def _motion_answer(self, session: Session, motion: Motion) -> dict:
        """Components that show a new motion."""
        shown = self.shown
        return {
            **self.services.controls(session),
            **dict.fromkeys((shown.message, shown.motion_download_link, shown.overlay_video), ""),
            shown.motion_note: markup.motion(motion, session.language),
        }

    def new_head_answer(self, session: Session, head: fv.FitResult) -> dict:
        """Components that show a head which came with a motion, and no photograph of another one."""
        shown = self.shown
        return {
            **self.services.controls(session),
            **self.services.without_photograph(),
            **dict.fromkeys((shown.fit_report, shown.download_link, shown.donor_note), ""),
            shown.estimates: markup.about(head, session.language),
        }

    def _end_tracking(self, session: Session, event: Event, message: str = "") -> dict:
        """End tracking without a motion: delete the video, keep the head."""
        session.apply(event)
        self.services.delete_motion(session)
        return self.services.controls(session) | self.services.error_line(session, message)
