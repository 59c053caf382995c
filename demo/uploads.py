"""Limits of heads and motions that are uploaded as files, checked before they are parsed.

Python parses JSON in one go, in which no other visitor gets an answer; the time grows with the number of values, not
with the length of the texts in which a head holds its pictures.
"""

from __future__ import annotations

from pathlib import Path

import faceverse as fv

MAX_HEAD_BYTES, MAX_HEAD_VALUES = 10_000_000, 200_000  # a head has 1 to 4 MB and some thousand values
MAX_MOTION_BYTES, MAX_MOTION_VALUES = 20_000_000, 2_500_000
_MAX_NESTS = 400_000  # lists and objects, which take ten times as long as numbers


def check_head(path: Path) -> None:
    """Check a saved head.

    Raises:
        ParameterError: it is larger than heads are; the file was not parsed.
    """
    _check(path, MAX_HEAD_BYTES, MAX_HEAD_VALUES)


def check_motion(path: Path) -> None:
    """Check a motion; see `check_head`."""
    _check(path, MAX_MOTION_BYTES, MAX_MOTION_VALUES)


def _check(path: Path, most_bytes: int, most_values: int) -> None:
    try:
        size = path.stat().st_size
    except OSError:  # the reader reports it
        return
    if size > most_bytes:
        raise fv.ParameterError("upload.large_file", name=path.name, megabytes=size / 1e6, most=most_bytes / 1e6)
    if path.suffix.lower() != ".json":
        return
    content = path.read_bytes()
    nests = content.count(b"[") + content.count(b"{")
    if nests > min(_MAX_NESTS, most_values) or content.count(b",") > most_values:
        raise fv.ParameterError("upload.many_values", name=path.name)
