"""Names of result files: distinct, and short enough for the file system."""

from __future__ import annotations

import hashlib
import itertools
import os
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ..formats.meshes import companion_stem

MAX_BYTES = 255  # of a file's name, on nearly all file systems
_MARK_DIGITS = 8


def longest_name(folder: Path, endings: Collection[str]) -> int:
    """Bytes that a name in a folder may have before one of `endings` is added to it."""
    try:
        most = os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # not a POSIX system, or a file system that does not say
        most = MAX_BYTES
    return most - max((len(os.fsencode(ending)) for ending in endings), default=0)


def shortened(name: str, most_bytes: int) -> str:
    """The name, or its beginning and a mark that distinguishes it from other names with the same beginning."""
    if len(os.fsencode(name)) <= most_bytes:
        return name
    mark = "~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:_MARK_DIGITS]
    kept = name[:most_bytes]
    while len(os.fsencode(kept)) > most_bytes - len(mark):
        kept = kept[:-1]
    return kept.rstrip() + mark


def distinct_names(
    sources: Sequence[Path | str], endings: Collection[str] = ("",), most_bytes: int = MAX_BYTES
) -> list[str]:
    """Distinct names for the results: me.jpg gives me, then me.png gives me_png and trip/me.jpg gives trip_me.

    Args:
        sources: photographs.
        endings: what is added to a name for each file: no two of all files have the same name, not even where case
            makes no difference, blanks became underscores or letters with accents are written in another way.
        most_bytes: see `longest_name`.
    """
    names: list[str] = []
    taken: set[str] = set()
    seen: set[str] = set()
    for path in map(Path, sources):
        candidates = (shortened(one, most_bytes) for one in _candidates(path, path.name.lower() in seen))
        names.append(next(one for one in candidates if not _files(one, endings) & taken))
        taken |= _files(names[-1], endings)
        seen.add(path.name.lower())
    return names


def _candidates(path: Path, is_elsewhere_too: bool) -> Iterator[str]:
    yield path.stem
    if is_elsewhere_too and path.parent.name:
        yield f"{path.parent.name}_{path.stem}"
    plain = "_".join(filter(None, (path.stem, path.suffix[1:])))
    yield plain
    yield from (f"{plain}_{number}" for number in itertools.count(2))


def _files(name: str, endings: Collection[str]) -> set[str]:
    """Names of the files in a form that is equal where file systems or formats make them equal."""
    plain = unicodedata.normalize("NFC", companion_stem(name))
    return {(plain + ending).casefold() for ending in endings}
