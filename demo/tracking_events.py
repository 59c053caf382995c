"""Page events of tracking: videos, recorded motions, the head drawn over a video."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import count
from typing import Any

import gradio as gr

import faceverse as fv

from . import fit_jobs, heads, markup, tracking_jobs
from .edit_events import AWAY, EditEvents
from .edit_state import EditState
from .fit_jobs import Progress
from .heads import EditableHead, serial_numbers
from .job_queue import MAX_WAITING, POLL_S, JobQueue, QueueEntry
from .sessions import Session, Sessions
from .tracking_jobs import Motion, TrackingJob
from .view_files import file_url
from .words import say, sentence

BUSY = "page.busy"
NO_VIDEO = "page.no_video"
START_DOWNLOAD = """(status) => {
    const link = new DOMParser().parseFromString(status, "text/html").querySelector("a[download]");
    if (link) { document.body.append(link); link.click(); link.remove(); }
}"""
SEND_STATE = "() => [JSON.stringify(window.faceverse?.state() ?? {})]"


class TrackingEvents(EditEvents):
    """Event handlers for motions; each returns {component: new value}."""

    def __init__(self, sessions: Sessions):
        self.queue = JobQueue()
        self._runs = count(1)
        super().__init__(sessions)

    def _connect_tracking(self, quick: dict, slow: dict) -> None:
        fits: dict[str, Any] = {"concurrency_id": "fit", "concurrency_limit": MAX_WAITING}
        motion_outputs = [
            self.view,
            self.message,
            self.cancel_tracking_button,
            self.track_again_button,
            self.motion_box,
            self.motion_note,
        ]
        motion_outputs += [self.motion_download_link, self.overlay_video, self.draw_overlay_button]
        self.head_outputs = headed = [
            *motion_outputs,
            self.results,
            self.fit_report,
            self.download_link,
            self.donor_note,
            *self.picture_outputs,
        ]
        settings = [self.subject, self.quality]
        started = [self.track_ticket, self.video_upload, *motion_outputs]
        self.video_upload.upload(self.take_video, [self.video_upload, *settings], started, preprocess=False, **quick)
        self.track_again_button.click(self.track_again, settings, started, **quick)
        self.track_ticket.change(self.track, None, headed, **fits, **slow)
        self.cancel_tracking_button.click(self.cancel_tracking, None, motion_outputs, **quick)
        self.open_motion_file.upload(self.take_motion, self.open_motion_file, headed, preprocess=False, **slow)
        self.draw_overlay_button.click(
            self.draw_overlay, self.edit_state, motion_outputs, js=SEND_STATE, **fits, **slow
        )
        self.play_button.click(None, None, None, js="() => { window.faceverse?.play(); }")
        for kind, button in self.motion_download_buttons.items():
            saving = button.click(
                self.motion_download_handler(kind), self.edit_state, self.motion_download_link, js=SEND_STATE, **slow
            )
            saving.then(None, self.motion_download_link, None, js=START_DOWNLOAD)

    # -- videos -------------------------------------------------------------------------------------------------------
    def take_video(self, upload: dict | None, subject: str, quality: str, request: gr.Request) -> dict:
        """Copy a video into the session's folder and queue it for tracking."""
        session = self._session(request)
        upload = upload[0] if isinstance(upload, list) and upload else upload
        if not upload:
            return {self.video_upload: None}
        if self._is_fitting(session):
            fit_jobs.delete_later(self._uploaded(upload), 0)
            return {self.message: markup.error_line(say(BUSY, session.language)), self.video_upload: None}
        try:
            video = tracking_jobs.claim(self._uploaded(upload), session.folder)
        except fit_jobs.EXPECTED as error:
            return self._end_tracking(session, fit_jobs.message_of(error)) | {self.video_upload: None}
        session.tracking_job = TrackingJob(video)
        return self._track_started(session, subject, quality) | {self.video_upload: None}

    def track_again(self, subject: str, quality: str, request: gr.Request) -> dict:
        """Track the same video with other settings."""
        return self._track_started(self._session(request), subject, quality)

    def _track_started(self, session: Session, subject: str, quality: str) -> dict:
        if session.tracking_job is None or not session.tracking_job.video.path.exists():
            return self._end_tracking(session, NO_VIDEO)
        if self._is_fitting(session):
            return {self.message: markup.error_line(say(BUSY, session.language))}
        head = self.visitor_head(session) if subject == "current" else None
        brings_head = subject == "video" or session.head is None or session.head.person == session.average_person
        session.tracking_job = TrackingJob(
            session.tracking_job.video, head, brings_head, "high" if quality == "high" else "fast"
        )
        self.set_motion(session, None)
        session.run_id = session.tracking_run = next(self._runs)
        session.status = asdict(Progress(say("page.waiting", session.language), 0.0, refining=True))
        return {
            self.track_ticket: session.run_id,
            self.message: "",
            self.cancel_tracking_button: gr.Button(visible=True),
            self.track_again_button: gr.Button(visible=False),
            self.motion_box: gr.Column(visible=False),
            self.view: self._view_value(session),
        }

    def track(self, request: gr.Request) -> Iterator[dict]:
        """Wait in the queue, track the video and report progress; at the end the head in the 3D view moves."""
        session = self._session(request)
        run, task = session.run_id, session.tracking_job

        def is_active() -> bool:
            return session.run_id == run and not session.closed

        try:
            with self.queue.enter(is_deferred=True) as entry:
                yield from self._wait_for_turn(session, entry, is_active)
                if task is not None and is_active():
                    for event in tracking_jobs.track_video(
                        task, is_active, lambda: self._let_first_runs_pass(entry, is_active)
                    ):
                        if not is_active():
                            break
                        if isinstance(event, Progress):
                            yield self._step(session, event)
                        else:
                            yield from self._show_track(session, task, event)
        except Exception as error:
            if is_active():
                yield self._end_tracking(session, self._message_of(error))
                return
        if session.motion is None and (
            session.tracking_job is task or session.tracking_job is None
        ):  # another job has replaced this one
            if task is not None:
                task.video.delete()
            session.tracking_job = None
        yield {self.cancel_tracking_button: gr.Button(visible=False)}

    def _show_track(self, session: Session, task: TrackingJob, track) -> Iterator[dict]:
        session.run_id, session.status = 0, None
        motion = Motion.of(track, task.video.path.name, session.folder, task.video)
        yield from self._show_motion(
            session, motion, tracking_jobs.neutral_head_of(track) if task.brings_head else None
        )

    def draw_overlay(self, state: str, request: gr.Request) -> Iterator[dict]:
        """Render the edited head over the frames of its video, as an MP4."""
        session = self._session(request)
        head, motion = session.head, session.motion
        if head is None or motion is None or motion.video is None or not motion.video.path.exists():
            yield {self.message: markup.error_line(say(NO_VIDEO, session.language))}
            return
        if session.status is not None:
            yield {self.message: markup.error_line(say(BUSY, session.language))}
            return
        session.run_id = session.tracking_run = run = next(self._runs)

        def is_active() -> bool:
            return session.run_id == run and session.motion is motion and not session.closed

        yield {self.cancel_tracking_button: gr.Button(visible=True), self.message: ""} | self._step(
            session, Progress(fv.Message("page.waiting"), 0.0, refining=True)
        )
        try:
            with self.queue.enter(is_deferred=True) as entry:
                yield from self._wait_for_turn(session, entry, is_active)
                shown = heads.with_state(head, self._changes(state, head))
                work = tracking_jobs.overlay(
                    motion, shown, session.folder, is_active, lambda: self._let_first_runs_pass(entry, is_active)
                )
                for event in work if is_active() else ():
                    if isinstance(event, Progress):
                        yield self._step(session, event)
                    else:
                        yield {self.overlay_video: markup.video(event, session.language)}
        except Exception as error:
            if is_active():
                yield {self.message: markup.error_line(self._explained(error, session.language))}
        if session.run_id in (0, run):
            session.run_id, session.status = 0, None
            yield {self.view: self._view_value(session), self.cancel_tracking_button: gr.Button(visible=False)}

    def cancel_tracking(self, request: gr.Request) -> dict:
        """Cancel the running or waiting job. A video that is not tracked yet is deleted."""
        session = self._session(request)
        if session.tracking_run != session.run_id:  # it has ended
            return {self.cancel_tracking_button: gr.Button(visible=False)}
        if session.motion is None:
            return self._end_tracking(session, "")
        session.run_id, session.status = 0, None
        return {
            self.view: self._view_value(session),
            self.cancel_tracking_button: gr.Button(visible=False),
            self.message: "",
        }

    # -- motions from files -------------------------------------------------------------------------------------------
    def take_motion(self, upload: dict | None, request: gr.Request) -> Iterator[dict]:
        """Apply a motion from a file to the head in the 3D view, or to the average head."""
        session = self._session(request)
        try:
            path = self._uploaded(upload)
            try:
                if self._is_fitting(session):
                    yield {self.message: markup.error_line(say(BUSY, session.language))}
                    return
                head = session.head.fitted if session.head else tracking_jobs.average_head()
                track = tracking_jobs.load_motion(path, head)
            finally:
                path.unlink(missing_ok=True)
            is_new = session.head is None
            for answer in self._adopt_track(session, track, path.name, head):
                if is_new and session.head is not None:
                    session.average_person = session.head.person
                yield answer
        except Exception as error:
            yield {self.message: markup.error_line(self._explained(error, session.language))}

    def _adopt_track(self, session: Session, track, name: str, head) -> Iterator[dict]:
        """Show a track that has no video, on a given head."""
        self._delete_motion(session)
        session.run_id, session.status = 0, None
        yield from self._show_motion(session, Motion.of(track, name, session.folder), None if session.head else head)

    def _show_motion(self, session: Session, motion: Motion, head) -> Iterator[dict]:
        """Show a motion, and the head that comes with it, if any."""
        with session.lock:
            if head is not None:
                session.head, session.fit_job = EditableHead.of(head, next(serial_numbers)), None
                self._show(session, session.head)
            self.set_motion(session, motion)
        yield self._motion_answer(session, motion) | (self._new_head_answer(session, head) if head is not None else {})
        if head is not None:
            yield self._pictures(session, head, None)

    def motion_download_handler(self, kind: str):
        def save(state: str, request: gr.Request) -> str:
            session = self._session(request)
            head, motion = session.head, session.motion
            if head is None or motion is None:
                return markup.error_line(say(AWAY, session.language))
            try:
                shown = heads.with_state(head, self._changes(state, head))
                path = tracking_jobs.save(motion, kind, shown, session.folder)
            except Exception as error:
                return markup.error_line(self._explained(error, session.language))
            return markup.file_line(path)

        return save

    @staticmethod
    def _changes(state: str, head: EditableHead) -> EditState:
        """Parse the slider values that the browser sent."""
        return EditState.from_json(json.loads(state or "{}"), head.neutral.model)

    # -- parts of answers ---------------------------------------------------------------------------------------------
    def _wait_for_turn(self, session: Session, entry: QueueEntry, is_active: Callable[[], bool]) -> Iterator[dict]:
        """Wait for the job's turn or its end, and report the number of jobs ahead."""
        reported = 0
        while is_active() and not entry.wait(0 if reported == 0 else POLL_S):
            ahead = entry.ahead
            if ahead not in (0, reported):
                reported = ahead
                text = say("page.waiting_behind", session.language, ahead=ahead)
                session.status = (session.status or {}) | {"text": text, "fraction": 0.0}
                yield {self.view: self._view_value(session)}

    @staticmethod
    def _let_first_runs_pass(entry: QueueEntry, is_active: Callable[[], bool]) -> None:
        """Defer this job where another one waits for its first turn."""
        if entry.blocks_first_run:
            entry.defer(is_active)

    def _view_value(self, session: Session) -> dict:
        """Current value of the 3D view."""
        return {"model": file_url(self.model_file), **session.view, "status": session.status}

    @staticmethod
    def set_motion(session: Session, motion: Motion | None) -> None:
        """Set the motion that animates the head in the 3D view; None removes it."""
        session.motion = motion
        session.view = {**session.view, "motion": motion and motion.shown}

    @staticmethod
    def visitor_head(session: Session):
        """The visitor's own head; None where there is none, or only a sample or the average head."""
        if session.head is None or session.head.person in (session.average_person, session.sample_person):
            return None
        return session.head.fitted

    @staticmethod
    def _is_fitting(session: Session) -> bool:
        """Whether a fit runs or waits."""
        return session.status is not None and session.tracking_run != session.run_id

    def _step(self, session: Session, step: Progress) -> dict:
        session.status = {**asdict(step), "text": say(step.text, session.language)}
        return {self.view: self._view_value(session)}

    def _motion_answer(self, session: Session, motion: Motion) -> dict:
        """Components that show a new motion."""
        return {
            self.view: self._view_value(session),
            self.message: "",
            self.cancel_tracking_button: gr.Button(visible=False),
            self.track_again_button: gr.Button(visible=motion.video is not None),
            self.motion_box: gr.Column(visible=True),
            self.motion_note: markup.motion(motion, session.language),
            self.motion_download_link: "",
            self.overlay_video: "",
            self.draw_overlay_button: gr.Button(visible=motion.video is not None),
        }

    def _new_head_answer(self, session: Session, head: fv.FitResult) -> dict:
        """Components that show a head which came with a motion."""
        return {
            self.results: gr.Column(visible=True),
            self.fit_report: "",
            self.estimates: markup.about(head, session.language),
            self.download_link: "",
            self.donor_note: "",
        }

    def _end_tracking(self, session: Session, message: str) -> dict:
        """End tracking without a motion: delete the video, keep the head."""
        session.run_id, session.status = 0, None
        self._delete_motion(session)
        return {
            self.message: markup.error_line(sentence(message, session.language)),
            self.cancel_tracking_button: gr.Button(visible=False),
            self.track_again_button: gr.Button(visible=False),
            self.motion_box: gr.Column(visible=False),
            self.view: self._view_value(session),
        }

    def _delete_motion(self, session: Session) -> None:
        """Delete the motion and its video, because the head changes."""
        session.tracking_job = None
        self.set_motion(session, None)
        tracking_jobs.delete_videos(session.folder)
