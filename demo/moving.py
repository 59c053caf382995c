"""Events of motions: videos that are tracked, files of motions, the head drawn over a video."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import count

import gradio as gr

from . import handlers, heads, markup, motions
from .changes import Changes
from .editing import AWAY, Editing
from .handlers import Step
from .heads import Head, numbers
from .line import LOOK_S, MAX_WAITING, Line, Place
from .motions import Motion, Task
from .viewer import file_address
from .visits import Visit, Visits
from .words import say

BUSY = "One thing after the other: wait until the head is there with its detail, or cancel it."
NO_VIDEO = "There is no video any more. Choose it again."
START_DOWNLOAD = """(status) => {
    const link = new DOMParser().parseFromString(status, "text/html").querySelector("a[download]");
    if (link) { document.body.append(link); link.click(); link.remove(); }
}"""
SEND_STATE = "() => [JSON.stringify(window.faceverse?.state() ?? {})]"


class Moving(Editing):
    """Answers {component: new value} to what a visitor does with motions."""

    def __init__(self, visits: Visits):
        self.line = Line()
        self._runs = count(1)
        super().__init__(visits)

    def _connect_motions(self, quick: dict, slow: dict) -> None:
        fits = {"concurrency_id": "fit", "concurrency_limit": MAX_WAITING}
        moved = [self.view, self.message, self.stop_tracking, self.again, self.motion_box, self.motion_note]
        moved += [self.motion_saved, self.overlay_clip, self.draw_over]
        self.headed = headed = [*moved, self.results, self.report, self.saved, self.donor_note, *self.drawn]
        asked = [self.whose, self.quality]
        started = [self.track_ticket, self.clip, *moved]
        self.clip.upload(self.take_video, [self.clip, *asked], started, preprocess=False, **quick)
        self.again.click(self.track_again, asked, started, **quick)
        self.track_ticket.change(self.track, None, headed, **fits, **slow)
        self.stop_tracking.click(self.give_up_motion, None, moved, **quick)
        self.open_motion.upload(self.take_motion, self.open_motion, headed, preprocess=False, **slow)
        self.draw_over.click(self.draw_overlay, self.state, moved, js=SEND_STATE, **fits, **slow)
        self.play.click(None, None, None, js="() => { window.faceverse?.play(); }")
        for kind, button in self.motion_downloads.items():
            saving = button.click(self._motion_saver(kind), self.state, self.motion_saved, js=SEND_STATE, **slow)
            saving.then(None, self.motion_saved, None, js=START_DOWNLOAD)

    # -- videos -------------------------------------------------------------------------------------------------------
    def take_video(self, upload: dict | None, whose: str, quality: str, request: gr.Request) -> dict:
        """A video goes into the visitor's folder before it waits for its turn."""
        visit = self._visit(request)
        upload = upload[0] if isinstance(upload, list) and upload else upload
        if not upload:
            return {self.clip: None}
        if self._is_fitting(visit):
            handlers.delete_later(self._uploaded(upload), 0)
            return {self.message: markup.error_line(say(BUSY, visit.language)), self.clip: None}
        try:
            video = motions.claim(self._uploaded(upload), visit.folder)
        except handlers.EXPECTED as error:
            return self._unmoved(visit, handlers.explain(error)) | {self.clip: None}
        visit.task = Task(video)
        return self._track_started(visit, whose, quality) | {self.clip: None}

    def track_again(self, whose: str, quality: str, request: gr.Request) -> dict:
        """The same video with other settings."""
        return self._track_started(self._visit(request), whose, quality)

    def _track_started(self, visit: Visit, whose: str, quality: str) -> dict:
        if visit.task is None or not visit.task.video.path.exists():
            return self._unmoved(visit, NO_VIDEO)
        if self._is_fitting(visit):
            return {self.message: markup.error_line(say(BUSY, visit.language))}
        head = self._person(visit) if whose == "stage" else None
        brings_head = whose == "video" or visit.head is None or visit.head.person == visit.stand_in
        visit.task = Task(visit.task.video, head, brings_head, "high" if quality == "high" else "fast")
        self._move(visit, None)
        visit.run = visit.tracking = next(self._runs)
        visit.status = asdict(Step(say("Waiting for a free place", visit.language), 0.0, refining=True))
        return {
            self.track_ticket: visit.run,
            self.message: "",
            self.stop_tracking: gr.Button(visible=True),
            self.again: gr.Button(visible=False),
            self.motion_box: gr.Column(visible=False),
            self.view: self._value(visit),
        }

    def track(self, request: gr.Request) -> Iterator[dict]:
        """Waits for its turn, follows the face and shows how far it is; the head on the stage moves at the end."""
        visit = self._visit(request)
        run, task = visit.run, visit.task

        def is_wanted() -> bool:
            return visit.run == run and not visit.gone

        try:
            with self.line.place(is_aside=True) as place:
                yield from self._waited(visit, place, is_wanted)
                if task is not None and is_wanted():
                    for event in motions.follow(task, is_wanted, lambda: self._let_pass(place, is_wanted)):
                        if not is_wanted():
                            break
                        if isinstance(event, Step):
                            yield self._step(visit, event)
                        else:
                            yield from self._tracked(visit, task, event)
        except Exception as error:
            if is_wanted():
                yield self._unmoved(visit, self._complaint(error))
                return
        if visit.motion is None and (visit.task is task or visit.task is None):  # overtaken by something else
            if task is not None:
                task.video.forget()
            visit.task = None
        yield {self.stop_tracking: gr.Button(visible=False)}

    def _tracked(self, visit: Visit, task: Task, track) -> Iterator[dict]:
        visit.run, visit.status = 0, None
        motion = Motion.of(track, task.video.path.name, visit.folder, task.video)
        yield from self._arrive(visit, motion, motions.person_of(track) if task.brings_head else None)

    def draw_overlay(self, state: str, request: gr.Request) -> Iterator[dict]:
        """The head as it stands on the sliders over the frames of its video, as a video."""
        visit = self._visit(request)
        head, motion = visit.head, visit.motion
        if head is None or motion is None or motion.video is None or not motion.video.path.exists():
            yield {self.message: markup.error_line(say(NO_VIDEO, visit.language))}
            return
        if visit.status is not None:
            yield {self.message: markup.error_line(say(BUSY, visit.language))}
            return
        visit.run = visit.tracking = run = next(self._runs)

        def is_wanted() -> bool:
            return visit.run == run and visit.motion is motion and not visit.gone

        yield {self.stop_tracking: gr.Button(visible=True), self.message: ""} | self._step(
            visit, Step("Waiting for a free place", 0.0, refining=True)
        )
        try:
            with self.line.place(is_aside=True) as place:
                yield from self._waited(visit, place, is_wanted)
                shown = heads.as_shown(head, self._changes(state, head))
                work = motions.overlay(motion, shown, visit.folder, is_wanted, lambda: self._let_pass(place, is_wanted))
                for event in work if is_wanted() else ():
                    if isinstance(event, Step):
                        yield self._step(visit, event)
                    else:
                        yield {self.overlay_clip: markup.video(event, visit.language)}
        except Exception as error:
            if is_wanted():
                yield {self.message: markup.error_line(self._complaint(error, visit.language))}
        if visit.run in (0, run):
            visit.run, visit.status = 0, None
            yield {self.view: self._value(visit), self.stop_tracking: gr.Button(visible=False)}

    def give_up_motion(self, request: gr.Request) -> dict:
        """The visitor cancels what runs or waits. A video that is not tracked yet is deleted."""
        visit = self._visit(request)
        if visit.tracking != visit.run:  # it has ended
            return {self.stop_tracking: gr.Button(visible=False)}
        if visit.motion is None:
            return self._unmoved(visit, "")
        visit.run, visit.status = 0, None
        return {self.view: self._value(visit), self.stop_tracking: gr.Button(visible=False), self.message: ""}

    # -- motions from files -------------------------------------------------------------------------------------------
    def take_motion(self, upload: dict | None, request: gr.Request) -> Iterator[dict]:
        """A recorded motion moves the head on the stage, or the average one."""
        visit = self._visit(request)
        try:
            path = self._uploaded(upload)
            try:
                if self._is_fitting(visit):
                    yield {self.message: markup.error_line(say(BUSY, visit.language))}
                    return
                head = visit.head.fitted if visit.head else motions.average_head()
                track = motions.opened(path, head)
            finally:
                path.unlink(missing_ok=True)
            is_new = visit.head is None
            for answer in self._taken(visit, track, path.name, head):
                if is_new:
                    visit.stand_in = visit.head.person
                yield answer
        except Exception as error:
            yield {self.message: markup.error_line(self._complaint(error, visit.language))}

    def _taken(self, visit: Visit, track, name: str, head) -> Iterator[dict]:
        """A motion without a video is there, for this head."""
        self._forget_motion(visit)
        visit.run, visit.status = 0, None
        yield from self._arrive(visit, Motion.of(track, name, visit.folder), None if visit.head else head)

    def _arrive(self, visit: Visit, motion: Motion, head) -> Iterator[dict]:
        """A motion, and the head that comes with it, if one does."""
        with visit.changing:
            if head is not None:
                visit.head, visit.job = Head.of(head, next(numbers)), None
                self._show(visit)
            self._move(visit, motion)
        yield self._moving(visit) | (self._greeting(visit) if head is not None else {})
        if head is not None:
            yield self._pictures(visit, head, None)

    def _motion_saver(self, kind: str):
        def save(state: str, request: gr.Request) -> str:
            visit = self._visit(request)
            head, motion = visit.head, visit.motion
            if head is None or motion is None:
                return markup.error_line(say(AWAY, visit.language))
            try:
                shown = heads.as_shown(head, self._changes(state, head))
                path = motions.save(motion, kind, shown, visit.folder)
            except Exception as error:
                return markup.error_line(self._complaint(error, visit.language))
            return markup.file_line(path)

        return save

    @staticmethod
    def _changes(state: str, head: Head) -> Changes:
        """The sliders as the browser sent them."""
        return Changes.read(json.loads(state or "{}"), head.rest.model)

    # -- parts of answers ---------------------------------------------------------------------------------------------
    def _waited(self, visit: Visit, place: Place, is_wanted: Callable[[], bool]) -> Iterator[dict]:
        """Until it is his turn, or he gives up: how many come before."""
        told = 0
        while is_wanted() and not place.wait(0 if told == 0 else LOOK_S):
            ahead = place.ahead
            if ahead not in (0, told):
                told = ahead
                text = say(f"Waiting for a free place: {ahead} before you", visit.language)
                visit.status = (visit.status or {}) | {"text": text, "fraction": 0.0}
                yield {self.view: self._value(visit)}

    @staticmethod
    def _let_pass(place: Place, is_wanted: Callable[[], bool]) -> None:
        """Who waits for a first head does not wait for the videos of others."""
        if place.is_waited_for:
            place.step_aside(is_wanted)

    def _value(self, visit: Visit) -> dict:
        """Value of the 3D view as things stand."""
        return {"model": file_address(self.model_file), **visit.view, "status": visit.status}

    @staticmethod
    def _move(visit: Visit, motion: Motion | None) -> None:
        """The motion of the head on the stage."""
        visit.motion = motion
        visit.view = {**visit.view, "motion": motion and motion.shown}

    @staticmethod
    def _person(visit: Visit):
        """His head, None where he has none, or one of somebody who is not here."""
        if visit.head is None or visit.head.person in (visit.stand_in, visit.stranger):
            return None
        return visit.head.fitted

    @staticmethod
    def _is_fitting(visit: Visit) -> bool:
        """Whether a head is on its way."""
        return visit.status is not None and visit.tracking != visit.run

    def _step(self, visit: Visit, step: Step) -> dict:
        visit.status = {**asdict(step), "text": say(step.text, visit.language)}
        return {self.view: self._value(visit)}

    def _moving(self, visit: Visit) -> dict:
        """What is said of a motion that has come."""
        return {
            self.view: self._value(visit),
            self.message: "",
            self.stop_tracking: gr.Button(visible=False),
            self.again: gr.Button(visible=visit.motion.video is not None),
            self.motion_box: gr.Column(visible=True),
            self.motion_note: markup.motion(visit.motion, visit.language, handlers.explain),
            self.motion_saved: "",
            self.overlay_clip: "",
            self.draw_over: gr.Button(visible=visit.motion.video is not None),
        }

    def _greeting(self, visit: Visit) -> dict:
        """What is said of a head that comes with a motion."""
        return {
            self.results: gr.Column(visible=True),
            self.report: "",
            self.about: markup.about(visit.head.fitted, visit.language),
            self.saved: "",
            self.donor_note: "",
        }

    def _unmoved(self, visit: Visit, complaint: str) -> dict:
        """Without a motion: the video goes, the head on the stage stays."""
        visit.run, visit.status = 0, None
        self._forget_motion(visit)
        return {
            self.message: markup.error_line(say(complaint, visit.language)),
            self.stop_tracking: gr.Button(visible=False),
            self.again: gr.Button(visible=False),
            self.motion_box: gr.Column(visible=False),
            self.view: self._value(visit),
        }

    def _forget_motion(self, visit: Visit) -> None:
        """Another head, or none: its motion and the video go."""
        visit.task = None
        self._move(visit, None)
        motions.forget_videos(visit.folder)
