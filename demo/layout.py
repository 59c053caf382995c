"""Layout: the components of the page; `page` connects their events."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

import faceverse as fv

from . import fit_jobs, hosting, markup
from .gate import RequestGate
from .hair_state import NUMBERS
from .heads import VIEW_LIGHT, download_labels
from .job_queue import MAX_WAITING
from .tracking_jobs import MAX_VIDEO_BYTES
from .view_files import file_url
from .webcam import WebcamStreams
from .words import LABELS, STUDIO_TEXTS

ASSETS = Path(__file__).parent / "assets"
_THREE_JS_PACKAGE = importlib.util.find_spec("jupyter_threejs_sage")
assert _THREE_JS_PACKAGE is not None and _THREE_JS_PACKAGE.origin is not None  # the page requires it
THREE_JS = Path(_THREE_JS_PACKAGE.origin).parent / "static" / "r130" / "three.min.js"
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Noto Sans CJK SC", "sans-serif"]
MONO_FONTS = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]

WORDS: Any = gr.I18n(**LABELS)  # Any: some of Gradio's annotations allow only str as a label

# Gradio reads the names of the component's custom events, in quotes, from this text.
MOUNT_STUDIO = """
const names = ["edit", "choose", "randomise", "fallback", "webcam", "resume"];
const send = (name, data) => { if (names.includes(name)) trigger(name, data); };
import(new URL(props.module_url, document.baseURI)).then((m) => m.mount(element, props, watch, send));
"""
PICK_SAMPLE = """
element.addEventListener("click", (event) => {
    const button = event.target.closest("[data-sample]");
    if (button) trigger("pick", { index: Number(button.dataset.sample) });
});
"""
# Sections of the panel. It omits names that the model lacks, and appends those that no section names.
EXPRESSION_GROUPS = (
    ("brows", ("browInnerUp", "browDownLeft", "browDownRight", "browOuterUpLeft", "browOuterUpRight")),
    ("eyes", tuple(
        f"eye{kind}{side}" for kind in ("Blink", "Squint", "Wide", "LookUp", "LookDown", "LookIn", "LookOut")
        for side in ("Left", "Right")
    )),
    ("cheeks", ("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight")),
    ("jaw", ("jawOpen", "jawForward", "jawLeft", "jawRight")),
    ("mouth", (
        "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft",
        "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight", "mouthPucker", "mouthFunnel", "mouthClose",
        "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight",
        "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "mouthLeft",
        "mouthRight",
    )),
    ("tongue", ("tongueOut",)),
)  # fmt: skip


def launch_options(webcams: WebcamStreams | None = None) -> dict:
    """Keyword arguments of `launch`; Gradio takes host and port from GRADIO_SERVER_NAME and GRADIO_SERVER_PORT.

    Args:
        webcams: streams of the page, whose routes are added to the server.
    """
    return {
        "app_kwargs": {
            "routes": [] if webcams is None else webcams.routes(),
            "middleware": [Middleware(RequestGate)],
        },
        "theme": _theme(),
        "css_paths": [ASSETS / "page.css"],
        "i18n": WORDS,
        "run_history": False,
        "footer_links": [],
        "max_file_size": MAX_VIDEO_BYTES,
        "ssr_mode": False,
        "max_threads": 2 * MAX_WAITING,  # waiting fits must not block edits
    }


def _theme() -> gr.themes.Base:
    """Theme with system fonts, because web fonts would be fetched from other servers, and plain labels."""
    chosen = gr.themes.Soft(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONO_FONTS)
    quiet: dict[str, Any] = {}
    for mode in ("", "_dark"):
        quiet |= {
            f"block_title_background_fill{mode}": "none",
            f"block_title_text_color{mode}": "*body_text_color",
            f"block_label_background_fill{mode}": "*background_fill_primary",
            f"block_label_text_color{mode}": "*body_text_color",
            # 3:1 and more on both themes
            f"checkbox_border_color{mode}": "*neutral_400" if mode else "*neutral_500",
        }
    return chosen.set(
        **quiet, block_title_padding="0", block_title_text_weight="500", block_label_text_weight="500",
        checkbox_border_width="1px", checkbox_border_color_selected_dark="*neutral_300", block_border_width="1px",
        block_border_color="*border_color_primary", block_shadow="none",
    )  # fmt: skip


def light_sliders() -> list[dict]:
    """Name, range, initial value and unit of each slider of the light, for the 3D view."""
    return [
        {"name": name, "range": list(entry.slider), "start": VIEW_LIGHT[name], "unit": entry.unit}
        for name, entry in fv.LIGHT_PARAMETERS.items()
    ]


def hair_choices() -> dict:
    """Styles with the addresses of their pictures, colours and ranges of the sliders of the hair, for the panel."""
    pictures = {name: ASSETS / "hair" / f"{name}.webp" for name in fv.HAIR_STYLES}
    return {
        "styles": [[name, file_url(path) if path.exists() else None] for name, path in pictures.items()],
        "colors": dict(fv.HAIR_COLORS),
        "numbers": {name: list(limits) for name, limits in NUMBERS.items()},
    }


class Layout:
    """The components, as attributes.

    Args:
        root: folder for the sample photographs.
    """

    def __init__(self, root: Path):
        self._root = root
        options: dict[str, Any] = {"analytics_enabled": False, "delete_cache": (600, 3600), "fill_width": True}
        with gr.Blocks(title="FaceVerse", **options) as self.demo:
            gr.Markdown(WORDS("title"), elem_id="fv-title")
            with gr.Row(equal_height=False, elem_id="fv-columns"):
                with gr.Column(scale=3, min_width=280, elem_id="fv-input"):
                    self.fit_ticket = gr.Number(0, visible="hidden")  # a new number starts a fit job
                    self.track_ticket = gr.Number(0, visible="hidden")  # a new number starts a tracking job
                    self.message = gr.HTML(elem_id="fv-message")
                    with gr.Tabs(elem_id="fv-sources"):
                        with gr.Tab(WORDS("photograph"), elem_id="fv-photo-tab"):
                            self._lay_out_input()
                        with gr.Tab(WORDS("video_tab"), elem_id="fv-video-tab"):
                            self._lay_out_video()
                    self.keep_head = gr.Checkbox(False, label=WORDS("keep_head"), container=False, elem_id="fv-keep")
                    gr.Markdown(WORDS("privacy"), elem_id="fv-privacy")
                with gr.Column(scale=10, min_width=320):
                    self._lay_out_result()

    def _lay_out_input(self) -> None:
        self.photo = gr.Image(
            label=WORDS("photograph"), type="filepath", sources=["upload", "webcam", "clipboard"], height=300,
            image_mode=None, buttons=[], webcam_options=gr.WebcamOptions(mirror=False), elem_id="fv-photo",
        )  # fmt: skip
        self.cancel_button = gr.Button(WORDS("cancel"), variant="stop", visible=False, elem_id="fv-cancel")
        gr.Markdown(WORDS("samples"), elem_id="fv-samples-title")
        self.sample_gallery = gr.HTML(
            markup.samples(fit_jobs.samples(self._root)),
            js_on_load=PICK_SAMPLE,
            apply_default_css=False,
            elem_id="fv-samples",
        )
        self.other_face_button = gr.Button(WORDS("other_face"), size="sm", visible=False, elem_id="fv-other-face")
        self.fit_report = gr.Markdown(elem_id="fv-report")
        with gr.Accordion(WORDS("more_photographs"), open=False, elem_id="fv-more"):
            gr.Markdown(WORDS("more_help"))
            self.more_photos = gr.File(
                label=WORDS("photographs"),
                file_count="multiple",
                file_types=["image"],
                height=110,
                elem_id="fv-several",
            )
        self.open_head_file = gr.UploadButton(
            WORDS("open_saved"), file_types=[".json"], size="sm", variant="secondary", elem_id="fv-open"
        )

    def _lay_out_video(self) -> None:
        gr.Markdown(WORDS("video_help"), elem_id="fv-video-help")
        self.subject = gr.Radio(
            [(WORDS("whose_stage"), "current"), (WORDS("whose_other"), "other"), (WORDS("whose_video"), "video")],
            value="current", label=WORDS("whose"), elem_id="fv-subject",
        )  # fmt: skip
        self.quality = gr.Radio(
            [(WORDS("quality_fast"), "fast"), (WORDS("quality_high"), "high")], value="fast", label=WORDS("quality"),
            elem_id="fv-quality",
        )  # fmt: skip
        self.video_upload = gr.File(
            label=WORDS("video_file"), file_count="single", file_types=["video"], height=180, elem_id="fv-video-upload"
        )
        self.cancel_tracking_button = gr.Button(
            WORDS("cancel"), variant="stop", visible=False, elem_id="fv-stop-tracking"
        )
        self.track_again_button = gr.Button(WORDS("track_again"), size="sm", visible=False, elem_id="fv-again")
        allows_webcams = hosting.webcam_limit() > 0
        gr.Markdown(WORDS("film_help"), elem_id="fv-webcam-help", visible=allows_webcams)
        self.open_webcam = gr.Button(WORDS("film"), elem_id="fv-open-webcam", visible=allows_webcams)
        self.open_motion_file = gr.UploadButton(
            WORDS("open_motion"), file_types=[".csv", ".json", ".npz", ".fvtrack"], size="sm", variant="secondary",
            elem_id="fv-open-motion",
        )  # fmt: skip

    def _lay_out_result(self) -> None:
        self.view = gr.HTML(
            {},
            html_template=(ASSETS / "studio.html").read_text(encoding="utf-8"),
            css_template=(ASSETS / "studio.css").read_text(encoding="utf-8"),
            js_on_load=MOUNT_STUDIO,
            module_url=file_url(ASSETS / "studio.js"),
            three_url=file_url(THREE_JS),
            texts=STUDIO_TEXTS,
            presets={name: dict(weights) for name, weights in fv.EXPRESSION_PRESETS.items()},
            groups={
                "expressions": [[section, list(names)] for section, names in EXPRESSION_GROUPS],
                "attributes": [[region, list(names)] for region, names in fv.ATTRIBUTE_REGIONS.items()],
            },
            light=light_sliders(),
            hair=hair_choices(),
            elem_id="fv-view",
        )
        with gr.Column(visible=False, elem_id="fv-fallback") as self.fallback:
            self.turntable = gr.HTML(apply_default_css=False)
            self.simple_viewer = gr.Model3D(label=WORDS("simple_view"), interactive=False, height=420)
        with gr.Column(visible=False, elem_id="fv-motion") as self.motion_box:
            self._lay_out_motion()
        with gr.Column(visible=False, elem_id="fv-results") as self.results:
            self._lay_out_downloads()
            with gr.Tabs(elem_id="fv-tabs"):
                self._lay_out_tabs()

    @property
    def outputs(self) -> list:
        """The components that depend on head, motion and progress."""
        return [
            self.view, self.message, self.photo, self.more_photos, self.cancel_button, self.other_face_button,
            self.fit_report, self.results, self.download_link, self.donor_note, self.overlay, self.stage_pictures,
            self.map_pictures, self.estimates, self.cancel_tracking_button, self.track_again_button, self.motion_box,
            self.motion_note, self.motion_download_link, self.overlay_video, self.draw_overlay_button,
        ]  # fmt: skip

    def _lay_out_motion(self) -> None:
        self.motion_note = gr.Markdown(elem_id="fv-motion-note")
        with gr.Row(elem_id="fv-motion-downloads"):
            self.play_button = gr.Button(WORDS("play_motion"), min_width=70, elem_id="fv-play-motion")
            self.motion_download_buttons = {
                kind: gr.Button(entry.label, min_width=70, elem_id=f"fv-motion-{kind}")
                for kind, entry in fv.TRACK_FORMATS.items()
            }
            self.draw_overlay_button = gr.Button(WORDS("draw_over"), min_width=190, scale=2, elem_id="fv-draw-overlay")
        self.motion_download_link = gr.HTML(elem_id="fv-motion-saved")
        self.overlay_video = gr.HTML(apply_default_css=False, elem_id="fv-overlay-clip")

    def _lay_out_downloads(self) -> None:
        with gr.Row(elem_id="fv-downloads", equal_height=True):
            self.lod_choice = gr.Dropdown(
                [(WORDS(f"lod_{name}"), name) for name in fv.LEVELS_OF_DETAIL], value="standard", label=WORDS("mesh"),
                min_width=150, scale=2, elem_id="fv-mesh",
            )  # fmt: skip
            self.download_buttons = {
                kind: gr.Button(label, min_width=70, elem_id=f"fv-download-{kind}")
                for kind, label in download_labels().items()
            }
        self.named_files = gr.Checkbox(False, label=WORDS("named_files"), container=False, elem_id="fv-named")
        self.edit_state = gr.Textbox(
            elem_classes="fv-hidden", container=False
        )  # the browser fills it with the slider values when it submits an event
        self.download_link = gr.HTML(elem_id="fv-saved")

    def _lay_out_tabs(self) -> None:
        with gr.Tab(WORDS("overlay")):
            self.overlay = gr.ImageSlider(
                label=WORDS("overlay_label"), interactive=False, buttons=["fullscreen"], slider_position=50,
                elem_id="fv-overlay", max_height=620,
            )  # fmt: skip
        with gr.Tab(WORDS("stages")):
            self.stage_pictures = gr.HTML(apply_default_css=False, elem_id="fv-stages")
        with gr.Tab(WORDS("maps")):
            self.map_pictures = gr.HTML(apply_default_css=False, elem_id="fv-maps")
        with gr.Tab(WORDS("losses")) as self.losses_tab:
            self.loss_plot = gr.Plot(show_label=False, elem_id="fv-losses")
        with gr.Tab(WORDS("about")):
            self.estimates = gr.HTML(apply_default_css=False, elem_id="fv-about")
        with gr.Tab(WORDS("other_person"), elem_id="fv-other-tab"):
            gr.Markdown(WORDS("other_help"))
            with gr.Row():
                self.donor_photo = gr.Image(
                    label=WORDS("other_photograph"), type="filepath", sources=["upload", "clipboard"], height=220,
                    image_mode=None, buttons=[], elem_id="fv-donor",
                )  # fmt: skip
                with gr.Column():
                    self.random_donor_button = gr.Button(WORDS("random_donor"), elem_id="fv-random-donor")
                    self.donor_file = gr.UploadButton(
                        WORDS("open_saved"), file_types=[".json"], elem_id="fv-donor-open"
                    )
            self.donor_note = gr.Markdown(elem_id="fv-donor-note")
