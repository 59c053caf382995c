"""Page events of the head in the 3D view: edits, blending with a second person, downloads."""

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

from . import fit_jobs, heads, markup, pictures
from .edit_state import EditState
from .heads import EditableHead, serial_numbers
from .layout import Layout
from .sessions import Session, Sessions
from .words import language_of, say, sentence

AWAY = "page.head_deleted"

PARALLEL_EDITS = 2

_log = logging.getLogger(__name__)


class EditEvents(Layout):
    """Event handlers for edits; each returns {component: new value}."""

    def __init__(self, sessions: Sessions):
        self.sessions = sessions
        self._model_lock = threading.Lock()
        self._model_file: Path | None = None
        super().__init__(sessions.root)

    # -- edits --------------------------------------------------------------------------------------------------------
    def change(self, request: gr.Request, event: gr.EventData) -> Iterator[dict]:
        """Apply the changes that only new files can show: albedo, skin, blending. The browser applies the rest."""
        session = self._session(request)
        before = session.head and session.head.state

        def make_state(head: EditableHead) -> tuple[EditState, tuple[str, ...]]:
            changes = EditState.from_json((event._data or {}).get("state"), head.neutral.model)
            if changes.mix.expression == head.state.mix.expression:
                return changes, ()
            return replace(changes, expression=heads.mixed_expression(head, changes.mix.expression)), ("expression",)

        yield self._change(session, make_state)
        if session.head and before and (before.skin, before.mix) != (session.head.state.skin, session.head.state.mix):
            yield from self._add_wrinkles(session, session.head.person)

    def randomise(self, request: gr.Request, event: gr.EventData) -> Iterator[dict]:
        """Draw the attributes of a region at random, or all of them."""
        session, data = self._session(request), event._data or {}

        def make_state(head: EditableHead) -> tuple[EditState, tuple[str, ...]]:
            present = EditState.from_json(data.get("state"), head.neutral.model)
            keep = tuple(str(name) for name in data.get("keep") or ())
            seed = secrets.randbelow(2**24 - 1) + 1
            return heads.random_changes(head, present, data.get("region"), keep, seed), ("attributes", "skin", "hair")

        yield self._change(session, make_state)
        if session.head and data.get("region") is None:
            yield from self._add_wrinkles(session, session.head.person)

    def _change(
        self, session: Session, make_state: Callable[[EditableHead], tuple[EditState, tuple[str, ...]]]
    ) -> dict:
        """Apply an edit. `make_state` returns the new state, and the parts of it that the browser has to adopt."""
        with session.lock:
            if session.head is None:
                return {self.message: markup.error_line(say(AWAY, session.language))}
            try:
                changes, adopted = make_state(session.head)
                session.head = heads.edit(session.head, changes)
                shown = self._show(session, session.head)
            except Exception as error:
                # The browser keeps what it shows, but it waits for an answer.
                message = markup.error_line(self._explained(error, session.language))
                return {self.message: message, self.view: {**session.view, "status": session.status}}
            if adopted:
                state = changes.to_json()
                shown["adopt"] = {"number": next(serial_numbers), "state": {part: state[part] for part in adopted}}
            about = markup.about(session.head.edited, session.language)
        return {self.view: shown, self.message: "", self.estimates: about}

    def show_fallback(self, request: gr.Request) -> dict:
        """Without WebGL in the browser: show a simple viewer and a turntable."""
        session = self._session(request)
        if session.head is None:
            return {self.fallback: gr.Column(visible=False)}
        try:
            model = heads.download(session.head, "glb", session.head.state, session.folder)
            sides = pictures.turntable(session.head.edited, session.folder)
        except Exception as error:
            return {self.turntable: markup.error_line(self._explained(error, session.language))}
        return {
            self.fallback: gr.Column(visible=True),
            self.simple_viewer: str(model),
            self.turntable: markup.figures({"sides": sides}, {"sides": "page.all_sides"}, session.language),
        }

    def download_handler(self, kind: str):
        def save(state: str, lod: str, is_named: bool, request: gr.Request) -> str:
            session = self._session(request)
            head = session.head
            if head is None:
                return markup.error_line(say(AWAY, session.language))
            try:
                changes = EditState.from_json(json.loads(state or "{}"), head.neutral.model)
                stem = heads.file_stem(head, is_named)
                path = heads.download(head, kind, changes, session.folder, lod, stem)
            except Exception as error:
                return markup.error_line(self._explained(error, session.language))
            return markup.download(path, kind, head.edited, lod, session.language)

        return save

    # -- donor, the second person --------------------------------------------------------------------------------------
    def take_saved_donor(self, upload: dict | None, request: gr.Request) -> dict:
        """Open a donor from a JSON file."""
        session = self._session(request)
        try:
            path = self._uploaded(upload)
            try:
                donor = heads.load(path)
            finally:
                path.unlink(missing_ok=True)
            return self._with_donor(session, donor, path.stem)
        except Exception as error:
            return {self.message: markup.error_line(self._explained(error, session.language))}

    def take_random_donor(self, request: gr.Request) -> dict:
        """Draw a random donor from the model."""
        session, seed = self._session(request), secrets.randbelow(10_000)
        if session.head is None:
            return {self.message: markup.error_line(say(AWAY, session.language))}
        model = session.head.neutral.model
        random_donor = fv.head(model.random(seed), model)
        if session.head.has_detail:
            random_donor = fv.edit(random_donor, detail_seed=seed)
        return self._with_donor(session, random_donor, say("page.random_person", session.language, number=seed))

    def _with_donor(self, session: Session, donor: fv.FitResult, name: str) -> dict:
        with session.lock:
            if session.head is None:
                return {self.message: markup.error_line(say(AWAY, session.language))}
            session.head = heads.with_donor(session.head, donor, name)
            shown = self._show(session, session.head)
        note = say("page.mixing", session.language, name=name)
        return {self.view: shown, self.message: "", self.donor_note: note}

    # -- parts of answers ---------------------------------------------------------------------------------------------
    def _session(self, request: gr.Request) -> Session:
        assert request.session_hash is not None  # every event of a page has one
        session = self.sessions.of(request.session_hash)
        session.language = language_of(request.headers.get("accept-language", ""))
        return session

    def _uploaded(self, upload: dict | None) -> Path:
        """Path of an upload. A forged request may name another file.

        Raises:
            ParameterError: the file lies in a session's folder.
        """
        assert upload is not None  # Gradio sends an upload's event with its file
        path = Path(upload["path"]).resolve()
        if path.is_relative_to(self.sessions.root.resolve()):
            raise fv.ParameterError("upload.not_yours")
        return path

    def _show(self, session: Session, head: EditableHead) -> dict:
        """Write the files of the session's head and return the value of the 3D view."""
        kept = {name: session.view.get(name) for name in ("motion", "webcam")}
        session.view = heads.view(head, session.folder, self.model_file) | kept
        return {**session.view, "status": session.status}

    def _add_wrinkles(self, session: Session, person: int) -> Iterator[dict]:
        """Add expression wrinkles, which take longer than the head; nothing if the head has changed in the meantime."""
        head = session.head
        if head is None or head.person != person or not head.has_detail:
            return
        wrinkled = heads.with_wrinkles(head, session.folder)
        with session.lock:
            if session.head is not head:
                return
            session.head = wrinkled
            session.view = {**session.view, "wrinkles": wrinkled.wrinkles}
            shown = {**session.view, "status": session.status}
        yield {self.view: shown}

    def _pictures(self, session: Session, result, photo_rgb) -> dict:
        """Pictures of a head below the 3D view, beside its photograph if there is one."""
        files, language = pictures.of_fit(result, photo_rgb, session.folder), session.language
        return {
            self.overlay: (str(files.photo), str(files.overlay)) if files.photo else None,
            self.stage_pictures: markup.figures(files.stages, markup.STAGES, language)
            + markup.stage_times(result, language),
            self.map_pictures: markup.figures(files.maps, markup.MAPS, language),
        }

    def _message_of(self, error: Exception) -> fv.Message:
        if not isinstance(error, fit_jobs.EXPECTED):
            _log.error("a request failed", exc_info=error)
        return fit_jobs.message_of(error)

    def _explained(self, error: Exception, language: str) -> str:
        return sentence(self._message_of(error), language)

    @property
    def model_file(self) -> Path:
        """Pack of the face model for the 3D view, written lazily."""
        with self._model_lock:
            if self._model_file is None or not self._model_file.exists():
                self._model_file = heads.model_file(self.sessions.root)
            return self._model_file
