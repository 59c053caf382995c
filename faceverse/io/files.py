"""Open files to read, and write files atomically: what all readers and writers of the library have in common.

Every fault of the file system becomes an error of one line. Only regular files are read: a pipe or a device may never
deliver anything, or never end.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from ..errors import FaceVerseError
from ..messages import Message, reason_of

MAX_BYTES = 2**31  # of a file that is read into memory as a whole; an hour of tracking takes a twentieth of it

_KINDS = {stat.S_IFIFO: "file.kind_pipe", stat.S_IFSOCK: "file.kind_socket"}
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/+(.*)", re.DOTALL)  # two letters or more: C:/ is a drive


# -- reading -----------------------------------------------------------------------------------------------------------
def open_file(path: str | os.PathLike, error: type[FaceVerseError], *, missing: str = "file.missing") -> BinaryIO:
    """Open a regular file to read.

    Args:
        path: of the file.
        error: raised, with one sentence, when there is no such file, or it is a folder, a pipe, a socket or a device,
            or may not be read.
        missing: code of the sentence about a file that does not exist; its argument is `path`.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind == stat.S_IFREG:
            return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError) as problem:
        if address := _ADDRESS.fullmatch(os.fspath(path)):  # a Path has lost one of the slashes
            raise error("file.address", address=f"{address[1]}//{address[2]}") from problem
        raise error(missing, path=path) from problem
    except (OSError, ValueError) as problem:
        raise error("file.unreadable", path=path, reason=_reason(problem)) from problem
    if kind == stat.S_IFDIR:
        raise error("file.is_folder", path=path)
    raise error("file.not_regular", path=path, kind=Message(_KINDS.get(kind, "file.kind_device")))


def check_file(path: str | os.PathLike, error: type[FaceVerseError], *, missing: str = "file.missing") -> None:
    """Check a file that other code opens by its path; see `open_file`."""
    open_file(path, error, missing=missing).close()


def read_bytes(
    path: str | os.PathLike, error: type[FaceVerseError], *, missing: str = "file.missing", limit: int = MAX_BYTES
) -> bytes:
    """Read a regular file of at most `limit` bytes; see `open_file`."""
    with open_file(path, error, missing=missing) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise error("file.too_large", path=path, size=size / 2**20, limit=limit / 2**20)
        try:
            return file.read()
        except OSError as problem:
            raise error("file.unreadable", path=path, reason=reason_of(problem)) from problem


@contextlib.contextmanager
def plain_path(
    path: str | os.PathLike, error: type[FaceVerseError], ambiguous: re.Pattern | None = None
) -> Iterator[str]:
    """An absolute path of a file, for libraries that only take text in UTF-8 as a name, or see more in it.

    A temporary link stands for a name that is no text; names on POSIX systems are bytes. Where a library sees an option
    or a protocol in a relative name, it sees none in an absolute one.

    Args:
        error: raised, with one sentence, when the link cannot be made.
        ambiguous: a link also stands for paths in which this is found, on systems where everybody may make links.
    """
    name = os.path.join(os.getcwd(), path)
    is_text = not any("\ud800" <= letter <= "\udfff" for letter in name)
    if is_text and not (ambiguous and ambiguous.search(name)):
        yield name
        return
    suffix = Path(name).suffix
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            link = os.path.join(folder, "file" + (suffix if suffix[1:].isalnum() else ""))
            os.symlink(name, link)
        except OSError as problem:
            if not is_text:
                raise error("file.unreadable", path=path, reason=reason_of(problem)) from problem
            link = name
        yield link


def files_in(folder: str | os.PathLike, error: type[FaceVerseError]) -> list[Path]:
    """The regular files in a folder, not in folders inside it, sorted by name.

    Args:
        error: raised, with one sentence, when the folder is missing or cannot be listed.
    """
    try:
        return sorted(path for path in Path(folder).iterdir() if path.is_file())
    except (OSError, ValueError) as problem:
        raise error("folder.unreadable", folder=folder, reason=_reason(problem)) from problem


# -- writing -----------------------------------------------------------------------------------------------------------
def write_atomically(path: Path, content: bytes | Iterable[bytes], error: type[FaceVerseError]) -> Path:
    """Write a file through a temporary file beside it and a rename: an existing file stays valid until then.

    Args:
        path: of the file. A symbolic link of that name is replaced, not followed.
        content: all of it, or its parts in order.
        error: raised, with one sentence, when the file cannot be written.
    """
    write_all({path: content}, error)
    return path


def write_all(files: Mapping[Path, bytes | Iterable[bytes]], error: type[FaceVerseError]) -> None:
    """Write files that belong together, each as in `write_atomically`; if one fails, none of the new ones remains."""
    staged: dict[Path, Path] = {}
    placed: list[Path] = []
    path, complete = Path(), False
    try:
        for path, content in files.items():
            _check_target(path)
            temporary = _temporary(path)
            with open(temporary, "xb") as file:
                staged[temporary] = path
                file.writelines([content] if isinstance(content, bytes) else content)
        for temporary, path in staged.items():
            is_new = not os.path.lexists(path)
            os.replace(temporary, path)
            placed += [path] * is_new
        complete = True
    except OSError as problem:
        raise error("file.unwritable", path=path, reason=reason_of(problem)) from problem
    finally:
        remove_files([*staged, *([] if complete else placed)])


@contextlib.contextmanager
def staged_file(path: Path, error: type[FaceVerseError]) -> Iterator[Path]:
    """An empty temporary file beside `path`, for another program to fill; without an exception it becomes `path`.

    Args:
        path, error: see `write_atomically`.
    """
    temporary = _new_temporary(path, error)
    try:
        yield temporary
        try:
            os.replace(temporary, path)
        except OSError as problem:
            raise error("file.unwritable", path=path, reason=reason_of(problem)) from problem
    finally:
        remove_files([temporary])


def check_writable(path: Path, error: type[FaceVerseError]) -> None:
    """Check that a file can be written, before work that would be lost otherwise; see `write_atomically`."""
    remove_files([_new_temporary(path, error)])


def _new_temporary(path: Path, error: type[FaceVerseError]) -> Path:
    """An empty temporary file beside `path`."""
    try:
        _check_target(path)
        temporary = _temporary(path)
        open(temporary, "xb").close()
    except OSError as problem:
        raise error("file.unwritable", path=path, reason=reason_of(problem)) from problem
    return temporary


def _temporary(path: Path) -> Path:
    return path.with_name(f".{uuid.uuid4().hex}.part")


def _check_target(path: Path) -> None:
    """Raise an OSError, with a reason in words, where no file can be put."""
    kind = stat.S_IFREG
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except ValueError as problem:
        raise OSError(errno.EINVAL, _reason(problem)) from problem
    except OSError as problem:
        if problem.errno != errno.ELOOP:  # a link that leads to itself is replaced like any other
            raise
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, Message("reason.name_is_folder"))
    if kind != stat.S_IFREG:
        what = Message(_KINDS.get(kind, "file.kind_device"))
        raise OSError(errno.EINVAL, Message("reason.name_is_special", kind=what))
    if not os.path.isdir(path.parent):
        raise NotADirectoryError(errno.ENOTDIR, Message("reason.no_folder"))


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files where that is possible: a file system that has become read-only keeps them."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _reason(problem: OSError | ValueError) -> Message:
    """Of a fault of the file system; a ValueError is a name that no file can have, such as one with a zero byte."""
    return reason_of(problem) if isinstance(problem, OSError) else Message("reason.name_impossible")


def sorted_header(content: bytes) -> bytes:
    """Sort the header of a safetensors file, so that equal models are equal byte by byte."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]
