"""Exceptions of the public interface; every message says what was wrong and what to do."""

from __future__ import annotations

from typing import Any

from .messages import Message


class FaceVerseError(Exception):
    """Base of all errors that faceverse raises on purpose.

    Args:
        code: stable name of the message, such as "image.empty_file"; or a finished message or text.
        arguments: what the message names; see `faceverse.Message`.

    Attributes:
        message: the sentence in English, as `str(error)`, which can be translated: `error.message.translated("zh")`.
    """

    def __init__(self, code: str = "", /, **arguments: Any):
        self.message = code if isinstance(code, Message) and not arguments else Message(code, **arguments)
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """Stable name of the message; "other" for a text that is in no catalog."""
        return self.message.code

    @property
    def arguments(self) -> dict[str, Any]:
        """What the message names, by name."""
        return self.message.arguments


class NoFaceError(FaceVerseError):
    """No (such) face was found in the picture."""


class ImageError(FaceVerseError):
    """The picture cannot be read or used."""


class WeightsError(FaceVerseError):
    """A model file is missing, damaged or of the wrong kind."""


class ParameterError(FaceVerseError):
    """An argument has a wrong name, type, shape or range."""
