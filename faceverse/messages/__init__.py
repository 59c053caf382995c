"""Messages as data: a stable code with arguments, from which the sentence is made in any language with a catalog.

    >>> message = Message("image.empty_file", name="me.jpg")
    >>> message
    'me.jpg is empty (0 bytes); copy or download it again'
    >>> message.code, message.arguments
    ('image.empty_file', {'name': 'me.jpg'})
    >>> message.translated("zh")
    'me.jpg 是空文件（0 字节），请重新复制或下载'

Codes are part of the public interface: they stay when a sentence is improved. See `catalogs` for the files.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from . import catalogs

FREE_TEXT = "other"
"""Code of a text that is in no catalog, such as one that other code raises."""

_SYSTEM_REASONS = {
    errno.EACCES: "reason.permission",
    errno.EDQUOT: "reason.quota",
    errno.EEXIST: "reason.name_is_file",
    errno.EFBIG: "reason.file_limit",
    errno.EIO: "reason.device_fault",
    errno.EISDIR: "reason.name_is_folder",
    errno.ELOOP: "reason.link_loop",
    errno.ENAMETOOLONG: "reason.name_too_long",
    errno.ENOENT: "reason.not_found",
    errno.ENOSPC: "reason.disk_full",
    errno.ENOTDIR: "reason.not_folder",
    errno.EPERM: "reason.permission",
    errno.EROFS: "reason.read_only",
}
LONGEST_ARGUMENT = 400  # characters of a text within a sentence
_JOINERS = "\u200c\u200d"  # not printable by themselves, but part of words and emoji
_CLASS = re.compile(r"<class '(?:builtins\.)?([\w.]+)'>")
_OBJECT = re.compile(r"<(?:\w+\.)*(\w+) object at 0x[0-9a-fA-F]+>")


class Message(str):
    """A sentence for the user: a `str` with the English text, which also knows its code and arguments.

    Args:
        code: an entry of the catalogs, such as "image.empty_file"; or any other text, which becomes the sentence.
        arguments: what the sentence names. Numbers, text and other messages are kept, all else becomes text.

    Attributes:
        code: stable; "other" for a text that is in no catalog.
        arguments: by name, as plain values.

    A sentence stays one line of readable length whatever a file or a request contains: it shows long texts shortened,
    and control characters as question marks. `arguments` have them as they are.

    Raises:
        KeyError: arguments are given, and no catalog has the code; or the sentence names an argument that is missing.
    """

    code: str
    arguments: dict[str, Any]

    def __new__(cls, code: str, /, **arguments: Any) -> Message:
        values = {name: _plain(value) for name, value in arguments.items()}
        sentence = catalogs.catalog(catalogs.SOURCE_LANGUAGE).sentence(code, values)
        if sentence is None and values:
            raise KeyError(f"no catalog has the message {code!r}")
        shown = {name: _shown(value) for name, value in values.items()}
        message = super().__new__(cls, code if sentence is None else sentence.format(**shown))
        message.code = FREE_TEXT if sentence is None else code
        message.arguments = values
        return message

    def translated(self, language: str) -> str:
        """The sentence in another language, with the messages among its arguments; English where it fails.

        Args:
            language: one of `languages`.
        """
        sentence = catalogs.catalog(language).sentence(self.code, self.arguments)
        if sentence is None:
            return str(self)
        values = self.arguments.items()
        try:
            shown = {k: v.translated(language) if isinstance(v, Message) else _shown(v) for k, v in values}
            return sentence.format(**shown)
        except (KeyError, ValueError, IndexError, AttributeError):  # a catalog of somebody's own may have mistakes
            return str(self)

    def to_dict(self) -> dict[str, Any]:
        """Code and arguments, ready for JSON: {"code": ..., "arguments": {...}}; of a free text {"code", "text"}."""
        if self.code == FREE_TEXT:
            return {"code": FREE_TEXT, "text": str(self)}
        return {"code": self.code, "arguments": {name: _for_json(value) for name, value in self.arguments.items()}}

    @classmethod
    def from_dict(cls, entry: Any, text: str) -> Message:
        """Inverse of `to_dict`.

        Args:
            entry: what `to_dict` returned, perhaps of another version of the library, or None.
            text: the sentence, which is kept where the entry does not describe a message of the catalogs.
        """
        try:
            message = _restored(entry)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError):
            return cls._free(text)
        return message if isinstance(message, Message) and message.code != FREE_TEXT else cls._free(text)

    @classmethod
    def _free(cls, text: str) -> Message:
        message = super().__new__(cls, text)
        message.code, message.arguments = FREE_TEXT, {}
        return message

    def __reduce__(self):
        return _unpickled, (str(self), self.code, self.arguments)

    @staticmethod
    def languages() -> tuple[str, ...]:
        """Languages that messages can be translated to: ("en", "zh"), and those that `add_catalogs` brings."""
        return catalogs.languages()

    @staticmethod
    def codes() -> tuple[str, ...]:
        """Codes of all messages, in the order of the alphabet."""
        return tuple(sorted(catalogs.catalog(catalogs.SOURCE_LANGUAGE).sentences))

    @staticmethod
    def add_catalogs(folder: str | os.PathLike) -> None:
        """Make further catalogs known: the .po files of a folder, named after their languages.

        They hold an application's own messages, or those of this library in another language.
        """
        catalogs.add_folder(folder)


def joined(messages: Iterable[str]) -> Message:
    """One message of one or more, in their order: "first; second; third"."""
    parts = [one if isinstance(one, Message) else Message(one) for one in messages]
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return Message("list.pair", first=joined(parts[:middle]), second=joined(parts[middle:]))


def entries_of(messages: Iterable[str]) -> list[dict[str, Any]]:
    """`Message.to_dict` of each, as files keep it beside the texts."""
    return [(one if isinstance(one, Message) else Message(one)).to_dict() for one in messages]


def with_codes(texts: Iterable[str], entries: Any) -> tuple[Message, ...]:
    """Messages from texts and `entries_of` them, or from texts alone where a file has no such entries.

    Args:
        entries: as a file holds them: dictionaries, their JSON text, or anything else, which is passed over.
    """
    texts = [str(text) for text in texts]
    entries = list(entries) if isinstance(entries, list | tuple) and len(entries) == len(texts) else [None] * len(texts)
    return tuple(Message.from_dict(_parsed(entry), text) for entry, text in zip(entries, texts, strict=True))


def _parsed(entry: Any) -> Any:
    if not isinstance(entry, str):
        return entry
    try:
        return json.loads(entry)
    except (ValueError, RecursionError):
        return None


def reason_of(error: BaseException) -> Message:
    """The message of an error in one line, for use within another message."""
    reason = error.args[0] if error.args else ""
    if isinstance(reason, Message):
        return reason
    if isinstance(error, KeyError):
        return Message("reason.no_entry", key=repr(reason))
    if isinstance(error, OSError) and error.strerror:
        if isinstance(error.strerror, Message):
            return error.strerror
        return Message(_SYSTEM_REASONS.get(error.errno or 0, error.strerror))
    lines = str(error).strip().splitlines()
    return Message(_shown(lines[0]) if lines else type(error).__name__)


def _plain(value: Any) -> Any:
    """A value that JSON and pickle take: NumPy's numbers become Python's, what is neither number nor text its text."""
    if value is None or isinstance(value, Message | bool) or type(value) in (str, int, float):
        return value
    number = value.item() if hasattr(value, "item") and not getattr(value, "shape", ()) else None
    return number if isinstance(number, int | float) else str(value)


def _shown(value: Any) -> Any:
    """A value as a sentence shows it: text in one line, shortened in the middle where it is long; of Python's
    descriptions of classes and objects the name alone."""
    if isinstance(value, Message) or not isinstance(value, str):
        return value
    if "<" in value:
        value = _OBJECT.sub(r"\1", _CLASS.sub(r"\1", value))
    if not value.isprintable():
        value = "".join(c if c.isprintable() or c in _JOINERS else " " if c.isspace() else "?" for c in value)
    half = LONGEST_ARGUMENT // 2
    return value if len(value) <= LONGEST_ARGUMENT else f"{value[:half]} ... {value[-half:]}"


def _for_json(value: Any) -> Any:
    if isinstance(value, Message):
        return value.to_dict()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _restored(value: Any) -> Any:
    if isinstance(value, Mapping):
        if value["code"] == FREE_TEXT:
            return Message._free(str(value["text"]))
        return Message(value["code"], **{name: _restored(inner) for name, inner in value["arguments"].items()})
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{type(value).__name__} is no argument of a message")


def _unpickled(text: str, code: str, arguments: dict[str, Any]) -> Message:
    message = Message._free(text)
    message.code, message.arguments = code, arguments
    return message
