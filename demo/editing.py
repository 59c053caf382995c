"""Events of a head that is there: edits, second persons to mix with, files to take away."""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gradio as gr

import faceverse as fv

from . import handlers, heads, markup, pictures
from .changes import Changes
from .heads import Head, numbers
from .layout import Layout
from .visits import Visit, Visits
from .words import language_of, say

AWAY = "This head was deleted after an hour without use. Choose the photograph again."

PARALLEL_EDITS = 2

_log = logging.getLogger(__name__)


class Editing(Layout):
    """Answers {component: new value} to what a visitor does with his head."""

    def __init__(self, visits: Visits):
        self.visits = visits
        self._model_lock = threading.Lock()
        self._model_file: Path | None = None
        super().__init__(visits.root)

    # -- edits --------------------------------------------------------------------------------------------------------
    def change(self, request: gr.Request, event: gr.EventData) -> Iterator[dict]:
        """What files show has changed: attributes that move colours, skin, mixture. The rest stays in the browser."""
        visit = self._visit(request)
        before = visit.head and visit.head.changes

        def wanted(head: Head) -> tuple[Changes, tuple[str, ...]]:
            changes = Changes.read((event._data or {}).get("state"), head.rest.model)
            if changes.mix.expression == head.changes.mix.expression:
                return changes, ()
            return replace(changes, expression=heads.mixed_expression(head, changes.mix.expression)), ("expression",)

        yield self._change(visit, wanted)
        if visit.head and before and (before.skin, before.mix) != (visit.head.changes.skin, visit.head.changes.mix):
            yield from self._folded(visit, visit.head.person)

    def randomise(self, request: gr.Request, event: gr.EventData) -> Iterator[dict]:
        """A region's attributes, or all of them, are drawn anew."""
        visit, data = self._visit(request), event._data or {}

        def wanted(head: Head) -> tuple[Changes, tuple[str, ...]]:
            present = Changes.read(data.get("state"), head.rest.model)
            keep = tuple(str(name) for name in data.get("keep") or ())
            seed = secrets.randbelow(2**24 - 1) + 1
            return heads.random_changes(head, present, data.get("region"), keep, seed), ("attributes", "skin")

        yield self._change(visit, wanted)
        if visit.head and data.get("region") is None:
            yield from self._folded(visit, visit.head.person)

    def _change(self, visit: Visit, wanted: Callable[[Head], tuple[Changes, tuple[str, ...]]]) -> dict:
        """The answer to a change; `wanted` says what, and which parts of the state the browser has to adopt."""
        with visit.changing:
            if visit.head is None:
                return {self.message: markup.error_line(say(AWAY, visit.language))}
            try:
                changes, adopted = wanted(visit.head)
                visit.head = heads.edit(visit.head, changes)
                shown = self._show(visit)
            except Exception as error:
                # The browser goes on with what it shows; without an answer it would wait for one.
                complaint = markup.error_line(self._complaint(error, visit.language))
                return {self.message: complaint, self.view: {**visit.view, "status": visit.status}}
            if adopted:
                state = changes.to_json()
                shown["adopt"] = {"number": next(numbers), "state": {part: state[part] for part in adopted}}
            about = markup.about(visit.head.edited, visit.language)
        return {self.view: shown, self.message: "", self.about: about}

    def fall_back(self, request: gr.Request) -> dict:
        """No WebGL in this browser: a simple viewer, and pictures from all sides."""
        visit = self._visit(request)
        if visit.head is None:
            return {self.fallback: gr.Column(visible=False)}
        try:
            model = heads.download(visit.head, "glb", visit.head.changes, visit.folder)
            sides = pictures.sides(visit.head.edited, visit.folder)
        except Exception as error:
            return {self.sides: markup.error_line(self._complaint(error, visit.language))}
        return {
            self.fallback: gr.Column(visible=True),
            self.simple: str(model),
            self.sides: markup.figures({"sides": sides}, {"sides": "The head from all sides"}, visit.language),
        }

    def _saver(self, kind: str):
        def save(state: str, mesh: str, request: gr.Request) -> str:
            visit = self._visit(request)
            head = visit.head
            if head is None:
                return markup.error_line(say(AWAY, visit.language))
            try:
                changes = Changes.read(json.loads(state or "{}"), head.rest.model)
                path = heads.download(head, kind, changes, visit.folder, mesh)
            except Exception as error:
                return markup.error_line(self._complaint(error, visit.language))
            return markup.download(path, head.edited, mesh, visit.language)

        return save

    # -- a second person ----------------------------------------------------------------------------------------------
    def take_saved_donor(self, upload: dict | None, request: gr.Request) -> dict:
        """A second person from a JSON file."""
        visit = self._visit(request)
        try:
            path = self._uploaded(upload)
            try:
                donor = fv.load_result(path)
            finally:
                path.unlink(missing_ok=True)
            return self._with_donor(visit, donor, path.stem)
        except Exception as error:
            return {self.message: markup.error_line(self._complaint(error, visit.language))}

    def take_stranger(self, request: gr.Request) -> dict:
        """A second person who does not exist."""
        visit, seed = self._visit(request), secrets.randbelow(10_000)
        if visit.head is None:
            return {self.message: markup.error_line(say(AWAY, visit.language))}
        model = visit.head.rest.model
        stranger = fv.head(model.random(seed), model)
        if visit.head.has_detail:
            stranger = fv.edit(stranger, detail_seed=seed)
        return self._with_donor(visit, stranger, say(f"random person {seed}", visit.language))

    def _with_donor(self, visit: Visit, donor: fv.FitResult, name: str) -> dict:
        with visit.changing:
            if visit.head is None:
                return {self.message: markup.error_line(say(AWAY, visit.language))}
            visit.head = heads.with_donor(visit.head, donor, name)
            shown = self._show(visit)
        note = say(f"Mixing with {name}: the sliders are under Mix, beside the 3D head.", visit.language)
        return {self.view: shown, self.message: "", self.donor_note: note}

    # -- parts of answers ---------------------------------------------------------------------------------------------
    def _visit(self, request: gr.Request) -> Visit:
        visit = self.visits.of(request.session_hash)
        visit.language = language_of(request.headers.get("accept-language", ""))
        return visit

    def _uploaded(self, upload: dict) -> Path:
        """Path of an upload; a forged request names a file that is none.

        Raises:
            ParameterError: the file belongs to a visitor.
        """
        path = Path(upload["path"]).resolve()
        if path.is_relative_to(self.visits.root.resolve()):
            raise fv.ParameterError("this file is not an upload of yours; choose the photograph again")
        return path

    def _show(self, visit: Visit) -> dict:
        """Writes the head's files; the value of the 3D view that shows them."""
        kept = {name: visit.view.get(name) for name in ("motion", "film")}
        visit.view = heads.view(visit.head, visit.folder, self.model_file) | kept
        return {**visit.view, "status": visit.status}

    def _folded(self, visit: Visit, person: int) -> Iterator[dict]:
        """Wrinkles of expressions, which take longer than the head; not if the head has changed in the meantime."""
        head = visit.head
        if head is None or head.person != person or not head.has_detail:
            return
        folded = heads.with_wrinkles(head, visit.folder)
        with visit.changing:
            if visit.head is not head:
                return
            visit.head = folded
            visit.view = {**visit.view, "wrinkles": folded.wrinkles}
            shown = {**visit.view, "status": visit.status}
        yield {self.view: shown}

    def _pictures(self, visit: Visit, result, photo_rgb) -> dict:
        """What is drawn of a head below the 3D view, beside its photograph where that is there."""
        files, language = pictures.of_fit(result, photo_rgb, visit.folder), visit.language
        return {
            self.overlay: (str(files.photo), str(files.overlay)) if files.photo else None,
            self.stages: markup.figures(files.stages, markup.STAGES, language) + markup.stage_times(result, language),
            self.maps: markup.figures(files.maps, markup.MAPS, language),
        }

    def _complaint(self, error: Exception, language: str = "en") -> str:
        if not isinstance(error, handlers.EXPECTED):
            _log.error("a request failed", exc_info=error)
        return say(handlers.explain(error), language)

    @property
    def model_file(self) -> Path:
        """Pack of the face model for the 3D view, written when it is first needed."""
        with self._model_lock:
            if self._model_file is None or not self._model_file.exists():
                self._model_file = heads.model_file(self.visits.root)
            return self._model_file
