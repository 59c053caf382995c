"""Complete PNG files that are cut short, and take out of them what is too large for Pillow."""

from __future__ import annotations

import struct
import zlib

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_MAX_BYTES = 2**29  # of all rows
_MAX_PROFILE_BYTES = 2**24
_TEXT = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def complete_png(content: bytes) -> tuple[bytes, float] | None:
    """Add what a file lacks at its end: rows of zeros and the last chunk.

    Args:
        content: a file that begins with PNG_SIGNATURE.

    Returns:
        The completed file, and the share of its rows that were there. None if the file has its end, or is of a kind
        whose rows do not follow each other (interlaced), or has no rows at all.
    """
    at, before = len(PNG_SIGNATURE), b""
    data: list[bytes] = []
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"IEND" or (data and kind not in (b"IDAT", b"fdAT", b"fcTL") and at + 12 + length <= len(content)):
            return None
        if kind == b"IDAT":
            before = before or content[:at]
            data.append(content[at + 8 : at + 8 + length])
        at += 12 + length
    if not data or len(before) < 33:
        return None
    width, height, depth, colour_type, interlaced = struct.unpack_from(">IIBB2xB", before, 16)
    row_bytes = 1 + (width * depth * _CHANNELS.get(colour_type, 0) + 7) // 8
    if interlaced or colour_type not in _CHANNELS or not 0 < row_bytes * height <= _MAX_BYTES:
        return None
    rows = _decompress(data, row_bytes * height)
    present = len(rows) // row_bytes
    rows = rows[: present * row_bytes].ljust(row_bytes * height, b"\0")
    return before + _chunk(b"IDAT", zlib.compress(rows, 1)) + _chunk(b"IEND", b""), present / height


def without_texts(content: bytes) -> tuple[bytes, bytes | None]:
    """Take texts and colour profile out of a file: Pillow refuses files with more than 1 MB of either.

    Returns:
        The rest of the file, and the profile.
    """
    at, kept, profile = len(PNG_SIGNATURE), [PNG_SIGNATURE], None
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"iCCP":
            _, _, packed = content[at + 8 : at + 8 + length].partition(b"\0")
            profile = _decompress([packed[1:]], _MAX_PROFILE_BYTES)
        if kind not in _TEXT:
            kept.append(content[at : at + 12 + length])
        at += 12 + length
    return b"".join(kept), profile


def _decompress(parts: list[bytes], size: int) -> bytes:
    """As much as can be decompressed, at most `size` bytes."""
    stream, found, missing = zlib.decompressobj(), [], size
    try:
        for part in parts:
            if missing:
                found.append(stream.decompress(part, missing))
                missing -= len(found[-1])
    except zlib.error:
        pass  # what came before the fault stays
    return b"".join(found)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
