"""What the page says, in the visitor's language: labels, steps, captions, and the messages of errors and warnings.

The sentences are in the catalogs of `messages/` and of the library, see `faceverse.Message`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import faceverse as fv

fv.Message.add_catalogs(Path(__file__).parent / "messages")


def _family(prefix: str, **arguments: str) -> dict[str, dict[str, str]]:
    """Texts by language and name, of all messages whose code starts with a prefix."""
    codes = [code for code in fv.Message.codes() if code.startswith(prefix)]
    messages = {code.removeprefix(prefix): fv.Message(code, **arguments) for code in codes}
    return {language: {k: v.translated(language) for k, v in messages.items()} for language in fv.Message.languages()}


LABELS = _family("label.")
"""Labels of the components, by language and name."""

STUDIO_TEXTS = _family("studio.", value="{}")
"""Texts of the 3D view and its panel, by language and key; the browser puts values in the place of {}."""

# Messages of the library that name arguments of its functions, and what the page says in their place.
_FOR_VISITORS = {
    "quality.several_faces": "page.several_faces",
    "store.other_model": "page.other_model",
} | dict.fromkeys(
    ("detail.other_module", "edit.no_module", "edit.no_layers", "mix.no_module", "mix.no_latents"),
    "page.foreign_detail",
)


def language_of(accept_language: str | None) -> str:
    """The language with catalogs that a browser prefers; "en" where it names none of them.

    Args:
        accept_language: header of its requests, such as "zh-CN,zh;q=0.9,en;q=0.8".
    """
    known, likings = fv.Message.languages(), []
    for number, entry in enumerate((accept_language or "").split(",")):
        tag, _, options = entry.strip().partition(";")
        found = re.fullmatch(r"\s*q\s*=\s*([\d.]+)\s*", options)
        try:
            liking = float(found[1]) if found else 1.0
        except ValueError:
            liking = 0.0
        language = tag.strip().lower().partition("-")[0]
        if language in known and liking > 0:
            likings.append((-liking, number, language))
    return min(likings)[2] if likings else "en"


def say(message: str, language: str, /, **arguments: Any) -> str:
    """A message in a language.

    Args:
        message: a message, or the code of one; other text stays as it is. What the library says to programmers is said
            in the page's own words.
        arguments: of the code.
    """
    if not isinstance(message, fv.Message):
        message = fv.Message(message, **arguments)
    elif message.code in _FOR_VISITORS:
        message = fv.Message(_FOR_VISITORS[message.code], **message.arguments)
    return message.translated(language)


def sentence(message: str, language: str) -> str:
    """`say` with a capital letter at the start and a stop at the end; messages of the library have neither."""
    text = say(message, language).strip()
    if not text:
        return ""
    start = text[:1].upper() if text.split(" ")[0].isalpha() else text[:1]  # not the name of a file
    stop = "" if text.endswith(tuple(".!?。！？")) else fv.Message("page.full_stop").translated(language)
    return start + text[1:] + stop


def term(code: str, name: str, language: str) -> str:
    """The translation of a name, which stays as it is where the catalogs lack it."""
    message = fv.Message(code.replace(" ", "_"))
    return name if message.code == "other" else message.translated(language)
