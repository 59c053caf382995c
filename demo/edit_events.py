"""Page events of the head in the 3D view: edits, blending with a second person, downloads."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

import faceverse as fv

from . import heads, markup, pictures
from .edit_state import EditState
from .heads import EditableHead, serial_numbers
from .services import Services
from .sessions import Session
from .words import say

AWAY = "page.head_deleted"

PARALLEL_EDITS = 2
SEND_STATE = "(state, ...settings) => [JSON.stringify(window.faceverse?.state() ?? {}), ...settings]"
START_DOWNLOAD = """(status) => {
    for (const id of ["fv-saved", "fv-motion-saved"]) document.getElementById(id)?.removeAttribute("data-stale");
    const link = new DOMParser().parseFromString(status, "text/html").querySelector("a[download]");
    if (link) { document.body.append(link); link.click(); link.remove(); }
}"""


class EditEvents:
    """Event handlers for edits; each returns {component: new value}.

    Args:
        services: shared ones.
    """

    def __init__(self, services: Services):
        self.services, self.shown = services, services.layout

    def connect(self, quick: dict, slow: dict) -> None:
        """Connect the events, see `FitEvents.connect`."""
        shown = self.shown
        changed = [shown.view, shown.message, shown.estimates]
        joined = [shown.view, shown.message, shown.donor_note]
        some: dict[str, Any] = {"concurrency_id": "edit", "concurrency_limit": PARALLEL_EDITS}
        for event, answer in ((shown.view.edit, self.change), (shown.view.randomise, self.randomise)):
            event(answer, None, changed, **some, **slow)
        shown.random_donor_button.click(self.take_random_donor, None, joined, **some, **slow)
        shown.donor_file.upload(self.take_saved_donor, shown.donor_file, joined, preprocess=False, **slow)
        plain = [shown.fallback, shown.simple_viewer, shown.turntable]
        shown.view.fallback(self.show_fallback, None, plain, **slow)
        for kind, button in shown.download_buttons.items():
            given = [shown.edit_state, shown.lod_choice, shown.named_files]
            saving = button.click(self.download_handler(kind), given, shown.download_link, js=SEND_STATE, **slow)
            saving.then(None, shown.download_link, None, js=START_DOWNLOAD)

    # -- edits --------------------------------------------------------------------------------------------------------
    def change(self, request: gr.Request, event: gr.EventData) -> Iterator[dict]:
        """Apply the changes that only new files can show: albedo, skin, blending. The browser applies the rest."""
        session = self.services.session(request)
        before = session.head and session.head.state

        def make_state(head: EditableHead) -> tuple[EditState, tuple[str, ...]]:
            changes = EditState.from_json((event._data or {}).get("state"), head.neutral.model)
            if changes.mix.expression == head.state.mix.expression:
                return changes, ()
            return replace(changes, expression=heads.mixed_expression(head, changes.mix.expression)), ("expression",)

        yield self._change(session, make_state)
        if session.head and before and (before.skin, before.mix) != (session.head.state.skin, session.head.state.mix):
            yield from self.services.add_wrinkles(session, session.head.person)

    def randomise(self, request: gr.Request, event: gr.EventData) -> Iterator[dict]:
        """Draw the attributes of a region at random, or all of them."""
        session, data = self.services.session(request), event._data or {}

        def make_state(head: EditableHead) -> tuple[EditState, tuple[str, ...]]:
            present = EditState.from_json(data.get("state"), head.neutral.model)
            keep = tuple(str(name) for name in data.get("keep") or ())
            seed = secrets.randbelow(2**24 - 1) + 1
            drawn = heads.random_changes(head, present, data.get("region"), keep, seed, data.get("wild") is True)
            return drawn, ("attributes", "skin", "hair")

        yield self._change(session, make_state)
        if session.head and data.get("region") is None:
            yield from self.services.add_wrinkles(session, session.head.person)

    def _change(
        self, session: Session, make_state: Callable[[EditableHead], tuple[EditState, tuple[str, ...]]]
    ) -> dict:
        """Apply an edit. `make_state` returns the new state, and the parts of it that the browser has to adopt."""
        with session.lock:
            if session.head is None:
                return self.services.error_line(session, AWAY)
            try:
                changes, adopted = make_state(session.head)
                session.head = heads.edit(session.head, changes)
                shown = self.services.show(session, session.head)
            except Exception as error:
                # The browser keeps what it shows, but it waits for an answer.
                answer = self.services.error_line(session, error)
                return answer | {self.shown.view: self.services.view_value(session)}
            if adopted:
                state = changes.to_json()
                shown["adopt"] = {"number": next(serial_numbers), "state": {part: state[part] for part in adopted}}
            about = markup.about(session.head.edited, session.language)
        return {self.shown.view: shown, self.shown.message: "", self.shown.estimates: about}

    def show_fallback(self, request: gr.Request) -> dict:
        """Without WebGL in the browser: show a simple viewer and a turntable."""
        session = self.services.session(request)
        if session.head is None:
            return {self.shown.fallback: gr.Column(visible=False)}
        try:
            model = heads.download(session.head, "glb", session.head.state, session.folder)
            sides = pictures.turntable(session.head.edited, session.folder)
        except Exception as error:
            return {self.shown.turntable: self.services.explained(session, error)}
        return {
            self.shown.fallback: gr.Column(visible=True),
            self.shown.simple_viewer: str(model),
            self.shown.turntable: markup.figures({"sides": sides}, {"sides": "page.all_sides"}, session.language),
        }

    def download_handler(self, kind: str):
        def save(state: str, lod: str, is_named: bool, request: gr.Request) -> str:
            session = self.services.session(request)
            head = session.head
            if head is None:
                return self.services.explained(session, AWAY)
            try:
                changes = EditState.from_json(json.loads(state or "{}"), head.neutral.model)
                stem = heads.file_stem(head, is_named)
                path = heads.download(head, kind, changes, session.folder, lod, stem)
            except Exception as error:
                return self.services.explained(session, error)
            return markup.download(path, kind, head.edited, lod, session.language)

        return save

    # -- donor, the second person --------------------------------------------------------------------------------------
    def take_saved_donor(self, upload: dict | None, request: gr.Request) -> dict:
        """Open a donor from a JSON file."""
        session = self.services.session(request)
        try:
            path = self.services.uploaded(upload)
            try:
                donor = heads.load(path)
            finally:
                path.unlink(missing_ok=True)
            return self.with_donor(session, donor, path.stem)
        except Exception as error:
            return self.services.error_line(session, error)

    def take_random_donor(self, request: gr.Request) -> dict:
        """Draw a random donor from the model."""
        session, seed = self.services.session(request), secrets.randbelow(10_000)
        if session.head is None:
            return self.services.error_line(session, AWAY)
        model = session.head.neutral.model
        random_donor = fv.head(model.random(seed), model)
        if session.head.has_detail:
            random_donor = fv.edit(random_donor, detail_seed=seed)
        answer = self.with_donor(session, random_donor, say("page.random_person", session.language, number=seed))
        if self.shown.view in answer:  # half way to that person, so that the visitor sees what the sliders do
            mix = {**session.head.state.to_json()["mix"], "identity": 0.5, "albedo": 0.5}
            answer[self.shown.view]["adopt"] = {"number": next(serial_numbers), "state": {"mix": mix}}
        return answer

    def with_donor(self, session: Session, donor: fv.FitResult, name: str) -> dict:
        """Make a head the second person of the session's head."""
        with session.lock:
            if session.head is None:
                return self.services.error_line(session, AWAY)
            session.head = heads.with_donor(session.head, donor, name)
            shown = self.services.show(session, session.head)
        note = say("page.mixing", session.language, name=name)
        return {self.shown.view: shown, self.shown.message: "", self.shown.donor_note: note}
