"""Catalogs of sentences: one gettext file (.po) for each language, with a message's code in the place of its text.

An entry's `msgid` is the code ("image.empty_file"), its `msgstr` the sentence, with the arguments' names in braces as
`str.format` takes them. An entry with plural forms chooses among them by the argument `count`. A language is added by
adding a file, named after it, beside those of this folder, or in another folder that `add_folder` makes known.
"""

from __future__ import annotations

import functools
import gettext
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCE_LANGUAGE = "en"
"""The language of `str(message)`, and of messages that another language lacks."""

_FOLDERS = [Path(__file__).parent]


@dataclass(frozen=True)
class Catalog:
    """The sentences of one language.

    Attributes:
        sentences: by code; several where there are plural forms.
        plural_rule: gettext's expression in C for the index of the form for a count n.
    """

    sentences: Mapping[str, tuple[str, ...]]
    plural_rule: str

    @functools.cached_property
    def plural(self) -> Callable[[int], int]:
        """Index of the form for a count."""
        return gettext.c2py(self.plural_rule)

    def sentence(self, code: str, arguments: Mapping) -> str | None:
        """The sentence with its placeholders, in the form for `arguments["count"]`; None if it is missing."""
        forms = self.sentences.get(code)
        if forms is None:
            return None
        return forms[0] if len(forms) == 1 else forms[self.plural(int(arguments["count"]))]


def add_folder(folder: str | os.PathLike) -> None:
    """Make the catalogs of a folder known, beside this package's; of two entries of one code the later counts."""
    folder = Path(folder)
    if folder not in _FOLDERS:
        _FOLDERS.append(folder)
    catalog.cache_clear()


def remove_folder(folder: str | os.PathLike) -> None:
    """Undo `add_folder`."""
    if Path(folder) in _FOLDERS[1:]:
        _FOLDERS.remove(Path(folder))
    catalog.cache_clear()


def languages() -> tuple[str, ...]:
    """Languages with a catalog, as their files are named: ("en", "zh")."""
    return tuple(sorted({path.stem for folder in _FOLDERS for path in folder.glob("*.po")}))


@functools.lru_cache(maxsize=16)
def catalog(language: str) -> Catalog:
    """All sentences of a language; an empty catalog for one that has none."""
    sentences: dict[str, tuple[str, ...]] = {}
    plural_rule = "0"
    for folder in _FOLDERS:
        path = folder / f"{language}.po"
        if path.is_file():
            own = read_catalog(path)
            sentences |= own.sentences
            plural_rule = own.plural_rule
    return Catalog(sentences, plural_rule)


def read_catalog(path: Path) -> Catalog:
    """The finished entries of one file; those marked "fuzzy" are left out, as gettext does."""
    from babel.messages.pofile import read_po

    with open(path, "rb") as file:
        content = read_po(file, abort_invalid=True)
    sentences = {}
    for entry in content:
        if entry.id and not entry.fuzzy:
            code = entry.id if isinstance(entry.id, str) else entry.id[0]
            forms = (entry.string,) if isinstance(entry.string, str) else tuple(entry.string or ("",))
            if all(forms):
                sentences[code] = forms
    return Catalog(sentences, content.plural_expr)
