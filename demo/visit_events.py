"""Page events of a visit: a head that comes back after a reload, or after Back, where the visitor wants it kept."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import gradio as gr

from . import markup
from .services import Services


class VisitEvents:
    """Event handlers; each returns {component: new value}.

    Args:
        services: shared ones.
    """

    def __init__(self, services: Services):
        self.services, self.shown = services, services.layout

    def connect(self, quick: dict, slow: dict) -> None:
        """Connect the events, see `FitEvents.connect`."""
        shown = self.shown
        shown.keep_head.input(self.keep, shown.keep_head, shown.view, **quick)
        shown.view.resume(self.resume, None, [*shown.outputs, shown.keep_head], **slow)

    def keep(self, is_kept: bool, request: gr.Request) -> dict:
        """Keep the session for the visitor's return, or no longer. Their browser remembers the token for this tab."""
        session = self.services.session(request)
        session.token = secrets.token_urlsafe(24) if is_kept else ""
        session.view = {**session.view, "kept": session.token}
        return {self.shown.view: self.services.view_value(session)}

    def resume(self, request: gr.Request, event: gr.EventData) -> Iterator[dict]:
        """Bring back the session that the browser has a token of."""
        token, name = (event._data or {}).get("token"), str(request.session_hash)
        session = self.services.sessions.resume(token, name) if isinstance(token, str) else None
        if session is None:  # the browser forgets its token
            session = self.services.session(request)
            session.view = {**session.view, "kept": ""}
            yield {self.shown.view: self.services.view_value(session)}
            return
        head, language = session.head, session.language
        session.view = {**session.view, "kept": session.token}
        answer = self.services.controls(session) | {self.shown.keep_head: True}
        if head is None:
            yield answer
            return
        yield answer | {
            self.shown.fit_report: markup.report(head.fitted, True, language),
            self.shown.estimates: markup.about(head.edited, language),
            self.shown.motion_note: "" if session.motion is None else markup.motion(session.motion, language),
        }
        yield self.services.pictures(session, head.fitted, None)
