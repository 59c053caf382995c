"""Reading NumPy's files, .npz archives and .npy arrays: damage is one sentence, and sizes are checked before use.

`numpy.load` believes what a file says: a damaged zip header raises one of a dozen kinds of exceptions, and a few bytes
can announce an array of terabytes, which is allocated before the first number is read.
"""

from __future__ import annotations

import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from ..messages import Message, reason_of

LARGEST_ARCHIVE_BYTES = 1 << 30  # of all arrays together; an hour of tracking at 60 frames a second takes 80 MB
_SUFFIX = ".npy"
_ENCRYPTED = 0x1  # flag bit of an entry

NPY_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError, RecursionError,
    SyntaxError, EOFError, struct.error, tokenize.TokenError,
)  # fmt: skip
"""What NumPy's parser of .npy headers raises for damaged files."""
# A RuntimeError is a password or a method of compression that zipfile lacks.
_ZIP_ERRORS = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, RuntimeError)


def read_npz(content: bytes) -> dict[str, np.ndarray]:
    """Read all arrays of a .npz archive.

    Args:
        content: of the file.

    Returns:
        The arrays by name, as `numpy.load` gives them.

    Raises:
        ValueError: with a `Message`: the archive is damaged, encrypted, or larger than LARGEST_ARCHIVE_BYTES when
            unpacked, or an array holds Python objects.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if any(entry.flag_bits & _ENCRYPTED for entry in entries):
                raise ValueError(Message("archive.encrypted"))
            if sum(entry.file_size for entry in entries) > LARGEST_ARCHIVE_BYTES:
                raise ValueError(Message("archive.size", most_mb=LARGEST_ARCHIVE_BYTES >> 20))
            arrays = [entry for entry in entries if entry.filename.endswith(_SUFFIX)]
            return {entry.filename.removesuffix(_SUFFIX): _array(archive, entry) for entry in arrays}
    except (OSError, *_ZIP_ERRORS, *NPY_ERRORS) as error:
        reason = reason_of(error)
        if reason.code.startswith(("archive.", "npy.")):
            raise ValueError(reason) from error
        raise ValueError(Message("archive.damaged", reason=reason)) from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as file:
        # With a size, no more is unpacked than the entry announces, whatever a crafted one contains.
        content = file.read(entry.file_size)
        if file.read(1) or len(content) != entry.file_size:
            raise ValueError(Message("archive.entry", name=entry.filename))
    return read_array(io.BytesIO(content), len(content))


def read_array(file: BinaryIO, file_bytes: int) -> np.ndarray:
    """Read an array in the .npy format, see `check_length`; the file can seek."""
    check_length(file, file_bytes)
    file.seek(0)
    array = npy_format.read_array(file, allow_pickle=False)
    check_text(array.dtype, array.tobytes() if array.dtype.kind == "U" else b"")
    return array


def check_text(dtype: np.dtype, content: bytes) -> None:
    """Check the characters of an array of text: NumPy takes any number for one, and Python then fails at any use.

    Raises:
        ValueError: with a `Message`: a number that is no character.
    """
    if dtype.kind == "U":
        codes = np.frombuffer(content, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if (codes > 0x10FFFF).any():
            raise ValueError(Message("npy.text"))


def check_length(file: BinaryIO, file_bytes: int) -> None:
    """Check that the header of a .npy file announces as many numbers as there are.

    Args:
        file: at its beginning.
        file_bytes: its length.

    Raises:
        ValueError: with a `Message`: an unknown version, another length, or Python objects. Damaged headers make
            NumPy raise all of NPY_ERRORS.
    """
    shape, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError(Message("npy.objects"))
    expected, found = math.prod(shape) * dtype.itemsize, file_bytes - file.tell()
    if expected != found or (dtype.itemsize == 0 and math.prod(shape) > 1):
        raise ValueError(Message("npy.length", found=found, expected=expected))


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of the .npy file that begins here.

    Raises:
        ValueError: with a `Message`: an unknown version; without one: a damaged header.
    """
    version = npy_format.read_magic(file)
    if version not in [(1, 0), (2, 0), (3, 0)]:
        raise ValueError(Message("npy.version", major=version[0], minor=version[1]))
    # Versions 2 and 3 differ only in how names of fields are encoded.
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
