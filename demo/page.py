"""The page: its components, the controllers of its events, and the HTTP interface."""

from __future__ import annotations

import atexit
import logging
import threading
from pathlib import Path
from typing import Any

import gradio as gr

from . import api, fit_jobs, heads
from .edit_events import EditEvents
from .fit_events import FitEvents
from .layout import ASSETS, THREE_JS, Layout, launch_options
from .services import Services
from .sessions import Sessions
from .tracking_events import TrackingEvents
from .visit_events import VisitEvents
from .webcam import WebcamStreams
from .webcam_events import WebcamEvents

__all__ = ["Page", "build", "launch_options"]

QUEUE_LENGTH = 40

_log = logging.getLogger(__name__)


def build(root: Path | None = None, detail=True) -> Page:
    """Build the page; its `demo` is the Gradio app, ready to launch.

    Args:
        root: folder of the sessions, inside Gradio's upload folder (GRADIO_TEMP_DIR); by default a subfolder of that.
        detail: as in `faceverse.fit`; False saves a slow server the time.
    """
    gr.set_static_paths([ASSETS, THREE_JS.parent])
    return Page(Sessions(root or Path(gr.utils.get_upload_folder()) / "faceverse"), detail)


class Page:
    """The whole page, composed of controllers over one layout.

    Args:
        sessions: of the visitors.
        detail: see `build`.
    """

    def __init__(self, sessions: Sessions, detail=True):
        atexit.register(sessions.close_all)
        self.sessions, self.layout = sessions, Layout(sessions.root)
        self.services = Services(self.layout, sessions)
        self.edits = EditEvents(self.services)
        self.fits = FitEvents(self.services, self.edits, detail)
        self.tracking = TrackingEvents(self.services)
        self.filming = WebcamEvents(self.services, self.tracking)
        self.visits = VisitEvents(self.services)
        self.demo = self.layout.demo
        with self.demo:
            api.connect(sessions, self.services.queue, detail)  # first: Gradio adds numbers to repeated names
            self._connect()
        self.demo.queue(max_size=QUEUE_LENGTH, default_concurrency_limit=4)

    @property
    def webcams(self) -> WebcamStreams:
        """Streams of the visitors' cameras."""
        return self.filming.webcams

    def warm_up(self) -> None:
        """Load the models and compile the kernels in the background, so that the first visitor does not wait for it."""

        def work() -> None:
            try:
                fit_jobs.warm_up_fit(self.sessions.root, self.services.model_file, self.fits.detail)
            except Exception as error:
                _log.error("the warm-up failed", exc_info=error)

        threading.Thread(target=work, daemon=True).start()

    def _connect(self) -> None:
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        slow: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        self.demo.load(self.load_model_file, None, self.layout.view, **quick)
        self.demo.unload(self.close_session)
        for controller in (self.fits, self.edits, self.tracking, self.filming, self.visits):
            controller.connect(quick, slow)

    def load_model_file(self) -> dict:
        """Let the browser fetch the pack of the face model while the visitor chooses a photograph."""
        return {self.layout.view: heads.model_view(self.services.model_file)}

    def close_session(self, request: gr.Request) -> None:
        """End the session when the tab is closed or reloaded."""
        self.sessions.leave(request.session_hash)
