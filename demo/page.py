"""The page: its layout, and what each event of it does with the handlers and the visitor's state."""

from __future__ import annotations

import atexit
import html
import importlib.util
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path

import gradio as gr

from . import handlers
from .handlers import DOWNLOADS, EXPRESSIONS, MAX_STRENGTH, Changes, Fitted, Head, Step
from .viewer import file_address
from .visits import Visit, Visits

ASSETS = Path(__file__).parent / "assets"
THREE_JS = Path(importlib.util.find_spec("jupyter_threejs_sage").origin).parent / "static" / "r130" / "three.min.js"
QUEUE_LENGTH = 30
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
MONO_FONTS = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]

TITLE = """# FaceVerse
One photograph in, a 3D head out: turn it, change its expression, take it with you."""
PRIVACY = (
    "Your photograph is deleted right after the fit (if it shows several faces, with your next one); the head and its "
    "pictures when you leave, at the latest after an idle hour. Nothing is used for anything else."
)
AWAY = "This head was deleted after an hour without use. Choose the photograph again."

MOVE_EXPRESSION = "(weight) => { window.faceverse?.setExpression(%s, weight); }"
MOVE_STRENGTH = "(strength) => { window.faceverse?.setStrength(strength); }"
START_DOWNLOAD = """(status) => {
    const link = new DOMParser().parseFromString(status, "text/html").querySelector("a[download]");
    if (link) { document.body.append(link); link.click(); link.remove(); }
}"""
MOUNT_VIEWER = "import(new URL(props.module_url, document.baseURI)).then((m) => m.mount(element, props, watch));"

_log = logging.getLogger(__name__)


def launch_options() -> dict:
    """Keyword arguments of `launch` that belong to the page; host and port come from GRADIO_SERVER_NAME and _PORT."""
    return {
        "theme": _theme(),
        "css_paths": [ASSETS / "page.css"],
        "run_history": False,
        "footer_links": [],
        "max_file_size": "40mb",
        "ssr_mode": False,
    }


def _theme() -> gr.themes.Base:
    """Fonts of the visitor's system, because others would be fetched from elsewhere; quiet labels."""
    theme = gr.themes.Soft(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONO_FONTS)
    quiet = {}
    for mode in ("", "_dark"):
        quiet |= {
            f"block_title_background_fill{mode}": "none",
            f"block_title_text_color{mode}": "*body_text_color",
            f"block_label_background_fill{mode}": "*background_fill_primary",
            f"block_label_text_color{mode}": "*body_text_color",
        }
    return theme.set(
        **quiet, block_title_padding="0", block_title_text_weight="500", block_label_text_weight="500",
        block_border_width="1px", block_border_color="*border_color_primary", block_shadow="none",
    )  # fmt: skip


def build(root: Path | None = None, detail=True) -> Page:
    """The page; its `demo` is the app, ready to launch.

    Args:
        root: for the visitors' files, inside Gradio's upload folder (GRADIO_TEMP_DIR); by default a folder there.
        detail: of the skin, as in `faceverse.fit`; False spares a slow server the time.
    """
    gr.set_static_paths([ASSETS, THREE_JS.parent])
    return Page(Visits(root or Path(gr.utils.get_upload_folder()) / "faceverse"), detail)


class Page:
    """Components and events. Methods that answer events return {component: new value}."""

    def __init__(self, visits: Visits, detail=True):
        self.visits = visits
        self.detail = detail
        self._runs = count(1)
        self._model_lock = threading.Lock()
        self._model_file: Path | None = None
        atexit.register(visits.close)
        with gr.Blocks(title="FaceVerse", analytics_enabled=False, delete_cache=(600, 3600)) as self.demo:
            gr.Markdown(TITLE, elem_id="fv-title")
            with gr.Row(equal_height=False):
                with gr.Column(scale=4, min_width=300):
                    self._lay_out_input()
                with gr.Column(scale=7, min_width=320):
                    self._lay_out_result()
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

    # -- layout -------------------------------------------------------------------------------------------------------
    def _lay_out_input(self) -> None:
        self.photo = gr.Image(
            label="Photograph", type="filepath", sources=["upload", "webcam", "clipboard"], height=330, image_mode=None,
            buttons=[], webcam_options=gr.WebcamOptions(mirror=False), elem_id="fv-photo",
        )  # fmt: skip
        self.ticket = gr.Number(0, visible="hidden")  # a new number starts a fit
        self.message = gr.HTML(elem_id="fv-message")
        self.sample = gr.Button("Use the sample photograph", elem_id="fv-sample")
        self.cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="fv-cancel")
        self.face = gr.Radio([("1 (largest)", 0)], value=0, label="Which face", visible=False, elem_id="fv-face")
        self.report = gr.Markdown(elem_id="fv-report")
        gr.Markdown(PRIVACY, elem_id="fv-privacy")

    def _lay_out_result(self) -> None:
        self.view = gr.HTML(
            {},
            html_template=(ASSETS / "viewer.html").read_text(encoding="utf-8"),
            css_template=(ASSETS / "viewer.css").read_text(encoding="utf-8"),
            js_on_load=MOUNT_VIEWER,
            module_url=file_address(ASSETS / "viewer.js"),
            three_url=file_address(THREE_JS),
            elem_id="fv-view",
        )
        with gr.Column(visible=False, elem_id="fv-results") as self.results:
            with gr.Group(), gr.Row(elem_id="fv-expressions"):
                self.expressions = {
                    label: gr.Slider(0, 1, 0, step=0.01, label=label, min_width=200, buttons=[])
                    for label in EXPRESSIONS
                }
            with gr.Group(), gr.Row(elem_id="fv-attributes"):
                self.age = gr.Slider(
                    -40, 40, 0, step=1, label="Age", info="years younger or older", min_width=200, buttons=[],
                    elem_id="fv-age",
                )  # fmt: skip
                self.gender = gr.Slider(
                    -1, 1, 0, step=0.05, label="Gender", info="more feminine or more masculine", min_width=200,
                    buttons=[], elem_id="fv-gender",
                )  # fmt: skip
            with gr.Group(visible=False, elem_id="fv-detail") as self.skin, gr.Row(equal_height=True):
                self.strength = gr.Slider(
                    0, MAX_STRENGTH, 1, step=0.05, label="Skin detail", info="0 is smooth, 1 as in the photograph",
                    min_width=200, buttons=[], elem_id="fv-strength",
                )  # fmt: skip
                with gr.Column(min_width=200, elem_id="fv-skins"):
                    self.other_skin = gr.Button("Other skin", size="sm", elem_id="fv-other-skin")
                    self.own_skin = gr.Button("Skin of the photograph", size="sm", interactive=False)
            gr.Markdown("**Download** the head as the sliders show it:", elem_id="fv-download-title")
            with gr.Row(elem_id="fv-downloads"):
                self.downloads = {
                    kind: gr.Button(label, size="sm", min_width=80, elem_id=f"fv-download-{kind}")
                    for label, kind in DOWNLOADS.items()
                }
            self.saved = gr.HTML(elem_id="fv-saved")
            with gr.Row():
                self.overlay = gr.ImageSlider(
                    label="Photograph | fitted head", interactive=False, buttons=["fullscreen"], slider_position=50,
                    min_width=300, scale=2, elem_id="fv-overlay",
                )  # fmt: skip
                with gr.Column(scale=1, min_width=150):
                    self.clay = gr.Image(label="Shape", interactive=False, buttons=["fullscreen"])
                    self.texture = gr.Image(label="Texture", interactive=False, buttons=["fullscreen"])

    # -- events -------------------------------------------------------------------------------------------------------
    def _connect(self) -> None:
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        lively = {"trigger_mode": "always_last", "show_progress": "hidden", "api_visibility": "private"}
        sliders = [*self.expressions.values(), self.age, self.gender]
        started = [self.ticket, self.message, self.sample, self.cancel, self.face, self.report, self.view]
        skin = [self.skin, self.strength, self.own_skin]
        changed = [self.view, self.message, self.own_skin]
        shown = [*started[1:], self.results, self.overlay, self.clay, self.texture, self.saved, *sliders, *skin]
        self.demo.load(self.greet, None, self.view, **quick)
        self.demo.unload(self.leave)
        # The file as it was uploaded, EXIF data and all, is for the library to read, not for Gradio.
        self.photo.input(self.take, self.photo, started, preprocess=False, **quick)
        self.photo.clear(self.clear, None, shown, **quick)
        self.sample.click(self.take_sample, None, [self.photo, *started], **quick)
        self.face.input(self.begin, None, started, **quick)
        self.cancel.click(self.give_up, None, started, **quick)
        self.ticket.change(
            self.fit, self.face, shown, concurrency_id="fit", concurrency_limit=1, show_progress="hidden",
            api_visibility="private",
        )  # fmt: skip
        for label, slider in self.expressions.items():
            slider.input(None, slider, None, js=MOVE_EXPRESSION % json.dumps(EXPRESSIONS[label]))
        for slider in (self.age, self.gender):
            slider.input(self.change, [self.age, self.gender], changed, **lively)
        self.strength.input(None, self.strength, None, js=MOVE_STRENGTH)
        for button, answer in ((self.other_skin, self.change_skin), (self.own_skin, self.restore_skin)):
            button.click(answer, None, changed, **lively)
        for kind, button in self.downloads.items():
            saving = button.click(
                self._saver(kind), [self.strength, *self.expressions.values()], self.saved, show_progress="hidden",
                api_visibility="private",
            )  # fmt: skip
            saving.then(None, self.saved, None, js=START_DOWNLOAD)

    def greet(self) -> dict:
        """The 3D view fetches what all heads share while the visitor looks for a photograph."""
        return {self.view: {"model": file_address(self.model_file)}}

    def leave(self, request: gr.Request) -> None:
        """The tab was closed or reloaded."""
        self.visits.leave(request.session_hash)

    def take(self, upload: dict | None, request: gr.Request) -> dict:
        """An upload goes into the visitor's folder before it waits for its turn."""
        visit = self.visits.of(request.session_hash)
        if upload is None:  # the photograph was cleared
            return {self.message: ""}
        path = Path(upload["path"]).resolve()
        if path.is_relative_to(self.visits.root.resolve()):  # a forged request: that is no upload
            return self._ended(visit, handlers.explain(PermissionError(path)))
        try:
            visit.photo = handlers.claim(path, visit.folder)
        except handlers.EXPECTED as error:
            return self._ended(visit, handlers.explain(error))
        return self._started(visit) | {self.face: gr.Radio(value=0, visible=False)}

    def take_sample(self, request: gr.Request) -> dict:
        """The sample photograph takes the way of an upload."""
        visit = self.visits.of(request.session_hash)
        shown = handlers.sample_photo(self.visits.root)
        visit.photo = handlers.claim(shown, visit.folder, show_s=None)
        return self._started(visit) | {self.photo: str(shown), self.face: gr.Radio(value=0, visible=False)}

    def begin(self, request: gr.Request) -> dict:
        """Another face of the same photograph."""
        visit = self.visits.of(request.session_hash)
        return self._ended(visit, AWAY) if visit.photo is None else self._started(visit)

    def fit(self, face: int | None, request: gr.Request) -> Iterator[dict]:
        """Runs the fit and shows how far it is. It stops when the visitor cancels it, starts another one or leaves."""
        visit = self.visits.of(request.session_hash)
        run = visit.run

        def is_wanted() -> bool:
            return visit.run == run and not visit.gone

        try:
            person = 0
            for event in handlers.fit(visit.photo, face or 0, is_wanted, self.detail) if visit.photo else ():
                if not is_wanted():
                    break
                if isinstance(event, Step):
                    visit.status = asdict(event)
                    yield {self.view: {**visit.view, "status": visit.status}}
                else:
                    yield from self._arrived(visit, event, is_new=event.head.person != person)
                    person = event.head.person
        except Exception as error:
            if is_wanted():
                yield self._ended(visit, self._complaint(error))
                return
        if visit.run in (0, run):
            visit.status = None
        yield {self.message: ""}

    def _arrived(self, visit: Visit, fitted: Fitted, is_new: bool) -> Iterator[dict]:
        """The 3D view first, because it is what the visitor waits for; then the pictures.

        Detail arrives on a head that he may be using. What he changed on the server in the meantime is done again to
        the detailed head; what he moved in the browser stays there, as no slider is set a second time.
        """
        with visit.changing:
            changes = Changes() if is_new else visit.head.changes
            head = visit.head = handlers.edit(fitted.head, changes)
            visit.photo = head.photo if fitted.whole else visit.photo
            visit.status = None if fitted.whole else visit.status and visit.status | {"refining": True}
            visit.view = handlers.view(head, visit.folder, self.model_file)
            shown = {**visit.view, "status": visit.status}
        choices = [(f"{number + 1}" if number else "1 (largest)", number) for number in range(head.face_count)]
        yield {
            self.view: shown,
            self.sample: gr.Button(visible=fitted.whole),
            self.cancel: gr.Button(visible=not fitted.whole),
            self.results: gr.Column(visible=True),
            self.face: gr.Radio(choices=choices, visible=head.face_count > 1),
            self.report: handlers.summary(head.fitted, fitted.whole),
            self.skin: gr.Group(visible=head.has_detail),
            **(self._sliders_of(head) if is_new else {}),
        }
        files = handlers.pictures(head, fitted.photo_rgb, visit.folder)
        yield {
            self.overlay: (str(files.photo), str(files.overlay)),
            self.clay: str(files.clay),
            self.texture: str(files.texture),
        }

    def _sliders_of(self, head: Head) -> dict:
        """Everything that a visitor can move, as it stands for a new head."""
        values, usable = handlers.slider_values(head.fitted), handlers.usable_sliders(head.fitted.model)
        return {
            self.saved: "",
            **{
                slider: gr.Slider(value=values[label], visible=label in usable)
                for label, slider in self.expressions.items()
            },
            self.age: gr.Slider(value=0, visible="age" in usable),
            self.gender: gr.Slider(value=0, visible="gender" in usable),
            self.strength: gr.Slider(value=1),
            self.own_skin: gr.Button(interactive=False),
        }

    def give_up(self, request: gr.Request) -> dict:
        """The visitor cancels a fit that runs or waits; the head that is there stays, be it an older or the base one.
        """
        return self._ended(self.visits.of(request.session_hash), "")

    def clear(self, request: gr.Request) -> dict:
        """The cross on the photograph deletes everything of the visitor."""
        self.visits.leave(request.session_hash)
        return self._ended(self.visits.of(request.session_hash), "") | {
            self.results: gr.Column(visible=False),
        }

    def change(self, age: float, gender: float, request: gr.Request) -> dict:
        """Age and gender change shape and texture on the server; the expression stays with the 3D view."""
        return self._change(request, lambda present: replace(present, age=age, gender=gender))

    def change_skin(self, request: gr.Request) -> dict:
        """The next one of other people's skins, of the age and sex of this head."""
        return self._change(request, lambda present: replace(present, skin=present.skin + 1))

    def restore_skin(self, request: gr.Request) -> dict:
        """The skin of the photograph."""
        return self._change(request, lambda present: replace(present, skin=0))

    def _change(self, request: gr.Request, changed: Callable[[Changes], Changes]) -> dict:
        visit = self.visits.of(request.session_hash)
        with visit.changing:
            if visit.head is None:
                return {self.message: _error_line(AWAY)}
            try:
                visit.head = handlers.edit(visit.head, changed(visit.head.changes))
                visit.view = handlers.view(visit.head, visit.folder, self.model_file)
            except Exception as error:
                return {self.message: _error_line(self._complaint(error))}
            shown = {**visit.view, "status": visit.status}
            is_other = visit.head.changes.skin > 0
        return {self.view: shown, self.message: "", self.own_skin: gr.Button(interactive=is_other)}

    def _saver(self, kind: str):
        def save(request: gr.Request, strength: float, *values: float) -> str:
            visit = self.visits.of(request.session_hash)
            if visit.head is None:
                return _error_line(AWAY)
            try:
                moved = dict(zip(self.expressions, values))
                path = handlers.download(visit.head, kind, moved, visit.folder, strength)
            except Exception as error:
                return _error_line(self._complaint(error))
            link = f'<a href="{html.escape(file_address(path))}" download="{path.name}">{path.name}</a>'
            return f"<p>{link} ({path.stat().st_size / 1e6:.1f} MB)</p>"

        return save

    # -- parts of answers ---------------------------------------------------------------------------------------------
    def _started(self, visit: Visit) -> dict:
        step = Step("Waiting for a free place", 0.0)
        visit.run, visit.status = next(self._runs), None
        return {
            self.ticket: visit.run,
            self.message: "",
            self.report: "",
            self.sample: gr.Button(visible=False),
            self.cancel: gr.Button(visible=True),
            self.view: {**visit.view, "status": asdict(step)},
        }

    def _ended(self, visit: Visit, complaint: str) -> dict:
        """Without a new head: the photograph goes, an older head stays."""
        visit.run, visit.status = 0, None
        if visit.photo is not None:
            visit.photo.unlink(missing_ok=True)
        visit.photo = None
        return {
            self.message: _error_line(complaint),
            self.sample: gr.Button(visible=True),
            self.cancel: gr.Button(visible=False),
            self.face: gr.Radio(visible=False),
            self.report: "" if visit.head is None else handlers.summary(visit.head.fitted),
            self.view: {"model": file_address(self.model_file), **visit.view, "status": None},
        }

    def _complaint(self, error: Exception) -> str:
        if not isinstance(error, handlers.EXPECTED):
            _log.error("a request failed", exc_info=error)
        return handlers.explain(error)

    @property
    def model_file(self) -> Path:
        """Pack of the face model for the 3D view, written when it is first needed."""
        with self._model_lock:
            if self._model_file is None or not self._model_file.exists():
                self._model_file = handlers.model_file(self.visits.root)
            return self._model_file


def _error_line(text: str) -> str:
    return f'<p class="fv-error" role="alert">{html.escape(text)}</p>' if text else ""
