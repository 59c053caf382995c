"""Atomic writing of files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from ..errors import FaceVerseError
from ..messages import reason_of


def write_atomically(path: Path, content: bytes | Iterable[bytes], error: type[FaceVerseError]) -> Path:
    """Write a file through a temporary file beside it and a rename: an existing file stays valid until then.

    Args:
        path: of the file.
        content: all of it, or its parts in order.
        error: raised, with one sentence, when the file cannot be written.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            with open(temporary, "wb") as file:
                file.writelines(content)
        os.replace(temporary, path)
    except OSError as problem:
        raise error("file.unwritable", path=path, reason=reason_of(problem)) from problem
    finally:
        # A parent that is no folder cannot hold the temporary file either.
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)
    return path
