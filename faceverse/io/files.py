"""Writing files so that they appear complete or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from ..errors import FaceVerseError


def write_whole(path: Path, content: bytes | Iterable[bytes], error: type[FaceVerseError]) -> Path:
    """Writes beside the target and moves; what was there before stays until the new file is complete.

    Args:
        content: as a whole, or in pieces.
        error: raised, with one sentence, when the place cannot be written.
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
        raise error(f"cannot write {path}: {problem.strerror or problem}") from problem
    finally:
        # A parent that is no folder cannot hold a rest either.
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)
    return path
