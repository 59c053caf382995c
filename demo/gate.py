"""The gate before Gradio's routes: it bounds requests and answers those that no endpoint understands, in one sentence.

Gradio parses the body of a request in the event loop, where a long one holds up every other visitor; it answers an
unknown endpoint with an internal error, and arguments that it cannot take with names of folders or of its own objects.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

import faceverse as fv

from .words import language_of, sentence

ENDPOINTS = ("fit", "edit", "render", "export")
MAX_BODY_BYTES = 1_000_000
_API = "/gradio_api/"
_OWN_LIMIT = ("upload", "live")  # files go to disk in chunks, frames of a webcam are bounded by their own route
_NAMED, _DIRECT = ("call/v2/", "call/"), ("run/", "api/")
_PAGE = "predict"  # the browser sends its events to this name, with their numbers in the body

_log = logging.getLogger(__name__)


class RequestGate:
    """ASGI middleware, see above.

    Args:
        app: the application behind it.
        most_bytes: largest body of a request, files apart.
    """

    def __init__(self, app: Callable, most_bytes: int = MAX_BODY_BYTES):
        self.app, self.most_bytes = app, most_bytes

    async def __call__(self, scope: dict, receive: Callable[[], Awaitable[dict]], send: Callable) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        path = scope["path"].partition(_API)[2]
        if (path or scope["path"].lstrip("/")).split("/")[0] in _OWN_LIMIT:
            await self.app(scope, receive, send)
            return
        language = language_of(Headers(scope=scope).get("accept-language"))
        name = _endpoint_of(path)
        if name is not None and name not in ENDPOINTS:
            known = ", ".join(f"/{each}" for each in ENDPOINTS)
            message = fv.Message("api.unknown_endpoint", name=repr(name[:40]), known=known)
            await _refusal(message, 404, language)(scope, receive, send)
            return
        body = await self._body(scope, receive)
        if body is None:
            message = fv.Message("api.large_request", most=self.most_bytes / 1e6)
            await _refusal(message, 413, language)(scope, receive, send)
            return
        is_queued = name is not None or path == "queue/join"
        sender = _InOwnWords(send, language).send if is_queued else send
        await self.app(scope, _replayed(body, receive), sender)

    async def _body(self, scope: dict, receive: Callable[[], Awaitable[dict]]) -> bytes | None:
        """Body of a request; None where it is too long, which its header may say before it arrives."""
        stated = Headers(scope=scope).get("content-length", "")
        if stated.isdigit() and int(stated) > self.most_bytes:
            return None
        chunks, size, is_open = [], 0, True
        while is_open:
            event = await receive()
            chunks.append(event.get("body", b""))
            size += len(chunks[-1])
            if size > self.most_bytes:
                return None
            is_open = event["type"] == "http.request" and event.get("more_body", False)
        return b"".join(chunks)


class _InOwnWords:
    """Sends an answer on, and in place of Gradio's text of a refused request a sentence for its sender."""

    def __init__(self, send: Callable, language: str):
        self._send, self._language, self._content = send, language, b""
        self._is_refusal = False

    async def send(self, event: dict) -> None:
        if event["type"] == "http.response.start" and event["status"] == 400:
            self._is_refusal = True
        elif not self._is_refusal:
            await self._send(event)
        else:
            self._content += event.get("body", b"")
            if not event.get("more_body", False):
                await self._answer()

    async def _answer(self) -> None:
        try:
            detail = json.loads(self._content)["detail"]
        except (ValueError, KeyError, TypeError):
            detail = self._content
        _log.info("a request was refused: %s", detail)
        is_foreign = isinstance(detail, str) and detail.startswith("Cannot move")
        message = fv.Message("api.not_yours" if is_foreign else "api.request")
        await _refusal(message, 400, self._language)({"type": "http"}, _nothing, self._send)


def _endpoint_of(path: str) -> str | None:
    """The endpoint that a path below gradio_api/ names; None where it names none."""
    for start in (*_NAMED, *_DIRECT):
        if path.startswith(start):
            name = path.removeprefix(start).strip("/")
            return None if start in _DIRECT and name == _PAGE else name
    return None


def _refusal(message: fv.Message, status: int, language: str) -> JSONResponse:
    content = {"detail": sentence(message, language), "code": message.code}
    return JSONResponse(content, status)


def _replayed(body: bytes, receive: Callable[[], Awaitable[dict]]) -> Callable[[], Awaitable[dict]]:
    """A `receive` that hands over a body that was read already, and then what follows it, such as the disconnection."""
    pending: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_event() -> dict:
        return pending.pop() if pending else await receive()

    return next_event


async def _nothing() -> dict:
    return {"type": "http.disconnect"}
