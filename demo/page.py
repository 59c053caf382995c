"""The page: from a photograph, or a saved head, to what the visitor sees; and which event does what."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import gradio as gr

from . import api, handlers, heads, markup, pictures
from .editing import AWAY, PARALLEL_EDITS
from .filming import Filming
from .handlers import Choice, Fitted, Job, Step
from .heads import Head, numbers
from .layout import ASSETS, THREE_JS, launch_options
from .line import MAX_WAITING, Place
from .moving import START_DOWNLOAD
from .viewer import file_address
from .visits import Visit, Visits
from .words import say

__all__ = ["Page", "build", "launch_options"]

QUEUE_LENGTH = 40
NOT_YET = "First a head of your own, with its detail; then choose the other photograph again."
SEND_STATE = "(state, mesh) => [JSON.stringify(window.faceverse?.state() ?? {}), mesh]"

_log = logging.getLogger(__name__)


def build(root: Path | None = None, detail=True) -> Page:
    """The page; its `demo` is the app, ready to launch.

    Args:
        root: for the visitors' files, inside Gradio's upload folder (GRADIO_TEMP_DIR); by default a folder there.
        detail: of the skin, as in `faceverse.fit`; False spares a slow server the time.
    """
    gr.set_static_paths([ASSETS, THREE_JS.parent])
    return Page(Visits(root or Path(gr.utils.get_upload_folder()) / "faceverse"), detail)


class Page(Filming):
    """The whole page: how a head comes, and all that `Filming`, `Moving` and `Editing` answer."""

    def __init__(self, visits: Visits, detail=True):
        self.detail = detail
        atexit.register(visits.close)
        super().__init__(visits)
        with self.demo:
            api.connect(self.visits, self.line, self.detail)  # first: Gradio numbers names that come a second time
            self._connect()
        self.demo.queue(max_size=QUEUE_LENGTH, default_concurrency_limit=4)

    def warm_up(self) -> None:
        """Loads the models and compiles the kernels in the background, so that the first visitor need not wait."""

        def work() -> None:
            try:
                handlers.rehearse(self.visits.root, self.model_file, self.detail)
            except Exception as error:
                _log.error("the rehearsal failed", exc_info=error)

        threading.Thread(target=work, daemon=True).start()

    # -- events -------------------------------------------------------------------------------------------------------
    def _connect(self) -> None:
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        slow = {"show_progress": "hidden", "api_visibility": "private"}
        started = [self.ticket, self.message, self.cancel, self.other_face, self.report, self.view]
        moving = [self.motion_box, self.stop_tracking, self.again]
        shown = [*started[1:], self.results, self.saved, self.donor_note, *self.drawn, *moving]
        self.demo.load(self.greet, None, self.view, **quick)
        self.demo.unload(self.leave)
        # The file as it was uploaded, EXIF data and all, is for the library to read, not for Gradio.
        self.photo.input(self.take, self.photo, started, preprocess=False, **quick)
        self.photo.clear(self.clear, None, [*shown, self.fallback], **quick)
        self.several.upload(self.take, self.several, [*started, self.several], preprocess=False, **quick)
        self.samples.pick(self.take_sample, None, [self.photo, *started], **quick)
        self.open_saved.upload(self.take_saved, self.open_saved, shown, preprocess=False, **slow)
        self.donor.input(self.take_donor, self.donor, started, preprocess=False, **quick)
        self.stranger.click(self.take_stranger, None, shown, concurrency_id="edit", **slow)
        self.donor_saved.upload(self.take_saved_donor, self.donor_saved, shown, preprocess=False, **slow)
        self.other_face.click(self.ask_again, None, started, **quick)
        self.cancel.click(self.give_up, None, started, **quick)
        self.view.choose(self.choose, None, started, **quick)
        changed = [self.view, self.message, self.about]
        for event, answer in ((self.view.edit, self.change), (self.view.randomise, self.randomise)):
            event(answer, None, changed, concurrency_id="edit", concurrency_limit=PARALLEL_EDITS, **slow)
        self.losses_tab.select(self.draw_losses, None, self.losses, **quick)
        self.view.fallback(self.fall_back, None, [self.fallback, self.simple, self.sides], **slow)
        self.ticket.change(self.fit, None, shown, concurrency_id="fit", concurrency_limit=MAX_WAITING, **slow)
        for kind, button in self.downloads.items():
            saving = button.click(self._saver(kind), [self.state, self.mesh], self.saved, js=SEND_STATE, **slow)
            saving.then(None, self.saved, None, js=START_DOWNLOAD)
        self._connect_motions(quick, slow)
        self._connect_camera(quick, slow)

    def greet(self) -> dict:
        """The 3D view fetches what all heads share while the visitor looks for a photograph."""
        return {self.view: {"model": file_address(self.model_file)}}

    def leave(self, request: gr.Request) -> None:
        """The tab was closed or reloaded."""
        self.visits.leave(request.session_hash)

    # -- photographs --------------------------------------------------------------------------------------------------
    def take(self, upload: dict | list | None, request: gr.Request) -> dict:
        """One upload, or several of one person, go into the visitor's folder before they wait for their turn."""
        return self._take(upload, request)

    def take_donor(self, upload: dict | None, request: gr.Request) -> dict:
        """A second person, to mix with."""
        return self._take(upload, request, donor=True)

    def _take(self, upload: dict | list | None, request: gr.Request, donor: bool = False) -> dict:
        visit = self._visit(request)
        uploads = upload if isinstance(upload, list) else [upload] if upload else []
        if not uploads:  # the photograph was cleared
            return {self.message: ""}
        if donor and (visit.head is None or visit.status is not None):
            return {self.message: markup.error_line(say(NOT_YET, visit.language))}
        try:
            paths = [self._uploaded(one) for one in uploads]
            visit.job = handlers.claim(paths, visit.folder, donor=donor)
        except handlers.EXPECTED as error:
            return self._ended(visit, handlers.explain(error))
        return self._started(visit) | ({self.several: None} if isinstance(upload, list) else {})

    def take_sample(self, request: gr.Request, event: gr.EventData) -> dict:
        """A picture to try takes the way of an upload."""
        visit = self._visit(request)
        found = handlers.samples(self.visits.root)
        index = (event._data or {}).get("index")
        shown = found[index if isinstance(index, int) and 0 <= index < len(found) else 0]
        visit.job = replace(handlers.claim([shown], visit.folder, show_s=None), is_sample=True)
        return self._started(visit) | {self.photo: str(shown)}

    def choose(self, request: gr.Request, event: gr.EventData) -> dict:
        """The visitor has clicked a face."""
        visit = self._visit(request)
        face = (event._data or {}).get("face")
        if visit.job is None or not isinstance(face, int) or not 0 <= face < 1000:
            return self._ended(visit, AWAY)
        visit.job = replace(visit.job, face=face)
        return self._started(visit)

    def ask_again(self, request: gr.Request) -> dict:
        """Another face of the same photograph."""
        visit = self._visit(request)
        if visit.job is None:
            return self._ended(visit, AWAY)
        visit.job = replace(visit.job, face=None, asks=True)
        return self._started(visit)

    # -- fit ----------------------------------------------------------------------------------------------------------
    def fit(self, request: gr.Request) -> Iterator[dict]:
        """Waits for its turn, runs the fit and shows how far it is. It stops when the visitor cancels it, starts
        another one or leaves."""
        visit = self._visit(request)
        run, job = visit.run, visit.job

        def is_wanted() -> bool:
            return visit.run == run and not visit.gone

        try:
            with self.line.place() as place:
                yield from self._waited(visit, place, is_wanted)
                yield from self._fitted(visit, job, is_wanted, place)
        except Exception as error:
            if is_wanted():
                yield self._ended(visit, self._complaint(error))
                return
        if visit.run in (0, run):
            visit.status = visit.status if visit.status and visit.status.get("choose") else None
        yield {self.message: ""}

    def _fitted(self, visit: Visit, job: Job | None, is_wanted: Callable[[], bool], place: Place) -> Iterator[dict]:
        """What the fit tells. With the base head he lets those pass who wait for theirs."""
        if job is None or not is_wanted():
            return
        for event in handlers.fit(job, is_wanted, self.detail, lambda: place.step_aside(is_wanted)):
            if not is_wanted():
                return
            if isinstance(event, Step):
                visit.status = {**asdict(event), "text": say(event.text, visit.language)}
                visit.status["refining"] |= job.as_donor
                yield {self.view: {**visit.view, "status": visit.status}}
            elif isinstance(event, Choice):
                yield self._asked(visit, event)
            elif job.as_donor:
                yield from self._joined(visit, event)
            else:
                yield from self._arrived(visit, event)

    def _asked(self, visit: Visit, choice: Choice) -> dict:
        visit.run = 0
        visit.status = {"text": "", "fraction": 0.0, "choose": asdict(choice)}
        return {self.view: {**visit.view, "status": visit.status}, self.cancel: gr.Button(visible=False)}

    def _arrived(self, visit: Visit, fitted: Fitted) -> Iterator[dict]:
        """The 3D view first, because it is what the visitor waits for; then wrinkles and pictures.

        Detail arrives on a head that he may be using. What he changed on the server in the meantime is done again to
        the detailed head; what he moved in the browser stays there.
        """
        with visit.changing:
            is_new = visit.head is None or visit.head.person != fitted.person
            if is_new:
                self._forget_motion(visit)
                visit.head = Head.of(fitted.result, fitted.person)
                visit.stranger = fitted.person if visit.job.is_sample else 0
            else:
                visit.head = heads.with_person(visit.head, fitted.result)
            visit.status = None if fitted.whole else visit.status and visit.status | {"refining": True}
            shown = self._show(visit)
        if fitted.whole and (len(visit.job.photos) > 1 or fitted.face_count < 2):
            visit.job = None
        yield {
            self.view: shown,
            self.cancel: gr.Button(visible=not fitted.whole),
            self.results: gr.Column(visible=True),
            self.other_face: gr.Button(visible=fitted.whole and visit.job is not None),
            self.report: markup.report(fitted.result, fitted.whole, visit.language, handlers.explain),
            self.about: markup.about(fitted.result, visit.language),
            **({self.saved: "", self.donor_note: ""} | self._still() if is_new else {}),
        }
        yield from self._folded(visit, fitted.person)
        yield self._pictures(visit, fitted.result, fitted.photo_rgb)

    def draw_losses(self, request: gr.Request) -> dict:
        """Curves for who wants to see them; a plot that comes while its tab is hidden is never drawn."""
        visit = self._visit(request)
        if visit.head is None:
            return {self.losses: None}
        labels = {"step": say("Step", visit.language), "loss": say("Loss, of where it began", visit.language)}
        return {self.losses: pictures.loss_figure(visit.head.fitted, labels)}

    def _joined(self, visit: Visit, fitted: Fitted) -> Iterator[dict]:
        """The second person is there."""
        if fitted.whole:
            visit.run, visit.status, visit.job = 0, None, None
            name = say("the other photograph", visit.language)
            yield self._with_donor(visit, fitted.result, name) | {self.cancel: gr.Button(visible=False)}

    # -- heads from elsewhere -----------------------------------------------------------------------------------------
    def take_saved(self, upload: dict | None, request: gr.Request) -> Iterator[dict]:
        """A head that was taken away as JSON comes back."""
        visit = self._visit(request)
        try:
            path = self._uploaded(upload)
            try:
                head = heads.open_saved(path, next(numbers))
            finally:
                path.unlink(missing_ok=True)
        except Exception as error:
            yield self._ended(visit, self._complaint(error))
            return
        if visit.job is not None:
            visit.job.forget()
        visit.run, visit.status, visit.job = 0, None, None
        self._forget_motion(visit)
        with visit.changing:
            visit.head = head
            shown = self._show(visit)
        yield {
            self.view: shown,
            self.message: "",
            self.cancel: gr.Button(visible=False),
            self.results: gr.Column(visible=True),
            self.other_face: gr.Button(visible=False),
            self.report: markup.report(head.fitted, True, visit.language, handlers.explain),
            self.about: markup.about(head.fitted, visit.language),
            self.saved: "",
            self.donor_note: "",
        } | self._still()
        yield from self._folded(visit, head.person)
        yield self._pictures(visit, head.fitted, None)

    # -- parts of answers ---------------------------------------------------------------------------------------------
    def _started(self, visit: Visit) -> dict:
        step = Step(say("Waiting for a free place", visit.language), 0.0, refining=visit.job.as_donor)
        visit.run, visit.status = next(self._runs), None
        return {
            self.ticket: visit.run,
            self.message: "",
            self.cancel: gr.Button(visible=True),
            self.other_face: gr.Button(visible=False),
            self.view: {**visit.view, "status": asdict(step)},
            **({} if visit.job.as_donor else {self.report: ""}),
        }

    def _ended(self, visit: Visit, complaint: str) -> dict:
        """Without a new head: the photographs go, an older head stays."""
        visit.run, visit.status = 0, None
        if visit.job is not None:
            visit.job.forget()
        visit.job = None
        head, language = visit.head, visit.language
        return {
            self.message: markup.error_line(say(complaint, language)),
            self.cancel: gr.Button(visible=False),
            self.other_face: gr.Button(visible=False),
            self.report: "" if head is None else markup.report(head.fitted, True, language, handlers.explain),
            self.view: {"model": file_address(self.model_file), **visit.view, "status": None},
        }

    def give_up(self, request: gr.Request) -> dict:
        """The visitor cancels a fit that runs or waits; the head that is there stays, an older one or the base one."""
        return self._ended(self._visit(request), "")

    def clear(self, request: gr.Request) -> dict:
        """The cross on the photograph deletes everything of the visitor."""
        self.visits.leave(request.session_hash)
        return self._ended(self._visit(request), "") | {
            self.results: gr.Column(visible=False),
            self.fallback: gr.Column(visible=False),
        } | self._still()

    def _still(self) -> dict:
        """Nothing moves the head any more."""
        hidden = gr.Button(visible=False)
        return {self.motion_box: gr.Column(visible=False), self.stop_tracking: hidden, self.again: hidden}
