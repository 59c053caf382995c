"""Mutations inside containers, whose checksums and lengths are mended afterwards, so that a fault gets past them."""

from __future__ import annotations

import base64
import io
import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Sequence
from random import Random

from .mutations import BINARY, INTEGERS, JSON, Mutation, change_json, mutate_document, mutated, odd_value

MOST_INFLATED = 1 << 24


# -- PNG, JPEG, TIFF, ISO media ---------------------------------------------------------------------------------------
def change_png(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Mutate, drop, repeat or rename a chunk of a PNG; its length and checksum are right."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    if not chunks:
        return data
    k = rng.randrange(len(chunks))
    name, content = chunks[k]
    match rng.randrange(5):
        case 0:
            del chunks[k]
        case 1:
            chunks.insert(rng.randrange(len(chunks)), chunks[k])
        case 2:
            chunks[k] = rng.choice((b"tRNS", b"PLTE", b"iCCP", b"eXIf", b"gAMA", b"zTXt", b"acTL", b"fcTL")), content
        case 3 if name == b"IDAT":
            chunks[k] = name, zlib.compress(mutated(_inflated(content), rng, (), BINARY))
        case _:
            chunks[k] = name, rng.choice(BINARY)(content, rng, ())
    made = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return data[:8] + b"".join(made)


def _inflated(content: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(content, MOST_INFLATED)
    except zlib.error:
        return content


def change_jpeg(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Mutate, drop or repeat a segment of a JPEG, with its right length."""
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append((data[at : at + 2], data[at + 4 : at + 2 + size]))
        at += 2 + size
    if not segments:
        return data
    k = rng.randrange(len(segments))
    marker, content = segments[k]
    match rng.randrange(6):
        case 0:
            del segments[k]
        case 1:
            segments.insert(rng.randrange(len(segments)), segments[k])
        case 2 if content[:4] == b"Exif":
            segments[k] = marker, content[:6] + change_tiff(content[6:], rng, others)
        case _:
            segments[k] = marker, rng.choice(BINARY)(content, rng, ())
    made = [m + struct.pack(">H", min(len(c), 65533) + 2) + c[:65533] for m, c in segments]
    return data[:2] + b"".join(made) + data[at:]


def change_tiff(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Change the tag, type, count or value of an entry of the first directory of a TIFF."""
    order = "<" if data[:2] == b"II" else ">"
    first = struct.unpack(order + "I", data[4:8])[0] if len(data) >= 8 else len(data)
    if first + 2 > len(data):
        return rng.choice(BINARY)(data, rng, others)
    count = struct.unpack_from(order + "H", data, first)[0]
    at = first + 2 + 12 * rng.randrange(max(1, min(count, 60)))
    if at + 12 > len(data):
        return rng.choice(BINARY)(data, rng, others)
    changed = bytearray(data)
    match rng.randrange(5):
        case 0:
            struct.pack_into(order + "H", changed, at, rng.choice((256, 257, 258, 259, 262, 273, 277, 279, 317, 34675)))
        case 1:
            struct.pack_into(order + "H", changed, at + 2, rng.randrange(15))
        case 2:
            struct.pack_into(order + "I", changed, at + 4, rng.choice(INTEGERS) % 2**32)
        case 3:
            struct.pack_into(order + "I", changed, at + 8, rng.choice(INTEGERS) % 2**32)
        case _:
            struct.pack_into(order + "H", changed, at + 8, rng.randrange(70))
    return bytes(changed)


_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"udta", b"meta", b"iprp", b"ipco", b"iinf")


def _boxes(data: bytes, start: int, end: int, depth: int = 0) -> list[tuple[int, int, int]]:
    """(start, end, depth) of the boxes of an ISO media file."""
    found = []
    while start + 8 <= end:
        size = int.from_bytes(data[start : start + 4], "big")
        if size < 8 or start + size > end:
            break
        found.append((start, start + size, depth))
        kind = data[start + 4 : start + 8]
        if kind in _PARENTS and depth < 8:
            skipped = {b"meta": 12, b"iinf": 14}.get(kind, 8)
            found += _boxes(data, start + skipped, start + size, depth + 1)
        start += size
    return found


def change_boxes(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Mutate the content, size or name of a box of an MP4, AVIF or HEIF file, or empty it."""
    boxes = _boxes(data, 0, len(data))
    if not boxes:
        return rng.choice(BINARY)(data, rng, others)
    start, end, _ = rng.choice(boxes)
    match rng.randrange(5):
        case 0:
            return data[: start + 4] + b"free" + data[start + 8 :]
        case 1:
            return data[:start] + struct.pack(">I", rng.choice(INTEGERS) % 2**32) + data[start + 4 :]
        case 2:  # an integer in a box that stays as long as it is
            at = rng.randrange(start + 8, end) if end > start + 8 else start
            return data[:at] + struct.pack(">I", rng.choice(INTEGERS) % 2**32) + data[at + 4 :]
        case 3:
            return data[: start + 8] + bytes(end - start - 8) + data[end:]
        case _:
            return data[: start + 8] + rng.randbytes(end - start - 8) + data[end:]


# -- archives ---------------------------------------------------------------------------------------------------------
def change_zip(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Mutate, drop, repeat or rename a member of a zip archive, or what its directory claims about it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(entry.filename, archive.read(entry), entry.compress_type) for entry in archive.infolist()]
    except Exception:  # an archive that earlier mutations damaged raises almost anything
        return rng.choice(BINARY)(data, rng, others)
    if not members:
        return data
    k = rng.randrange(len(members))
    name, content, kind = members[k]
    match rng.randrange(7):
        case 0:
            del members[k]
        case 1:
            members.insert(rng.randrange(len(members)), members[k])
        case 2:
            members[k] = rng.choice(("a.npy", "../a.npy", "/a", name + "x", name.upper(), "é.npy")), content, kind
        case 3 | 4 | 5:
            inner = change_npy if content.startswith(b"\x93NUMPY") and rng.random() < 0.7 else rng.choice(BINARY)
            members[k] = name, inner(content, rng, ()), rng.choice((kind, kind, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
        case _:
            return _change_claims(data, rng)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content, kind in members:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = kind
            archive.fp.seek(0, io.SEEK_END)
            archive.filelist.append(entry)  # `writestr` warns of a name that occurs twice
            archive.NameToInfo.pop(name, None)
            archive.filelist.pop()
            archive.writestr(entry, content)
    return made.getvalue()


def _change_claims(data: bytes, rng: Random) -> bytes:
    """Change a field of a member's headers: flags, method, checksum or sizes, alike in the directory and before it."""
    local = [at for at in range(len(data) - 30) if data.startswith(b"PK\x03\x04", at)]
    central = [at for at in range(len(data) - 46) if data.startswith(b"PK\x01\x02", at)]
    if not local or len(local) != len(central):
        return data
    k = rng.randrange(len(local))
    offset, size = rng.choice(((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)))
    value = (rng.choice(INTEGERS) % 256**size).to_bytes(size, "little")
    changed = bytearray(data)
    for at in ((local[k] + offset, central[k] + offset + 2), (local[k] + offset,), (central[k] + offset + 2,))[
        rng.randrange(3)
    ]:
        changed[at : at + size] = value
    return bytes(changed)


# -- arrays and weights -----------------------------------------------------------------------------------------------
_DTYPES = ("<f4", ">f8", "<i2", "|u1", "<U3", "|S5", "|O", "<c8", "|V4", "<f2", "|b1", "<M8[s]", "<i8", "[('a','<f4')]")

_SHAPES = ("()", "(0,)", "(1,)", "(-1,)", "(2, 3)", "(4294967296,)", "(9999999999, 9999999999)", "(True,)", "((1,),)")
_SHAPES += ("(3,) + (4,)", "[1]", "(1.5,)")


def change_npy(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Change type, order or shape in the header of a .npy file, or its content."""
    if not data.startswith(b"\x93NUMPY\x01") or rng.random() < 0.2:
        return rng.choice(BINARY)(data, rng, others)
    size = int.from_bytes(data[8:10], "little")
    header, content = data[10 : 10 + size].decode("latin-1"), data[10 + size :]
    match rng.randrange(5):
        case 0:
            kind, _, rest = header.partition(", 'fortran_order'")
            chosen = rng.choice(_DTYPES)
            header = "{'descr': " + (chosen if chosen.startswith("[") else repr(chosen)) + ", 'fortran_order'" + rest
        case 1:
            header = header[: header.rfind("(")] + rng.choice(_SHAPES) + ", }"
        case 2:
            header = header.replace("False", "True") if "False" in header else header.replace("True", "None")
        case 3:
            header = rng.choice(("", "{}", "[]", "{'descr': '<f4'}", "(" * 5000, header + header, "1" * 5000))
        case _:
            return data[: 10 + size] + rng.choice(BINARY)(content, rng, others)
    text = header.encode("latin-1")
    return data[:8] + len(text).to_bytes(2, "little") + text + content


def change_safetensors(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Change the header of a .safetensors file (its length is right), or the numbers after it."""
    size = int.from_bytes(data[:8], "little")
    try:
        document = json.loads(data[8 : 8 + size])
        content = data[8 + size :]
    except ValueError:
        return rng.choice(BINARY)(data, rng, others)
    metadata = document.get("__metadata__") if isinstance(document, dict) else None
    match rng.randrange(7):
        case 0 | 1:
            document = mutate_document(document, rng)
        case 2 if isinstance(metadata, dict) and metadata:  # texts of JSON inside the JSON
            key = rng.choice(list(metadata))
            metadata[key] = change_json(str(metadata[key]).encode(), rng, ()).decode("utf-8", "replace")
        case 3 if isinstance(document, dict):  # an array in another shape or type that has the same number of bytes
            key = rng.choice(list(document))
            entry = document[key]
            if isinstance(entry, dict) and isinstance(entry.get("shape"), list):
                entry["shape"] = rng.choice(([], entry["shape"][::-1], [1, *entry["shape"]], [0, *entry["shape"]]))
        case 4 if isinstance(document, dict):
            first, second = (rng.choice(list(document)) for _ in range(2))
            document[first], document[second] = document[second], document[first]
        case 5 if isinstance(document, dict):
            document.pop(rng.choice(list(document)), None)
        case _:
            content = rng.choice(BINARY)(content, rng, ())
    header = json.dumps(document).encode()
    return len(header).to_bytes(8, "little") + header + content


def change_pickle(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Drop, repeat or swap instructions of a pickle, or change what they hold; also behind the header of a .npy."""
    start = 10 + int.from_bytes(data[8:10], "little") if data.startswith(b"\x93NUMPY\x01") else 0
    try:
        starts = [
            position - start
            for _, _, position in pickletools.genops(io.BytesIO(data[start:]))
            for position in [position + start]
        ]
    except Exception:  # a pickle that earlier mutations damaged raises almost anything
        return rng.choice(BINARY)(data, rng, others)
    body = data[start:]
    parts = [body[a:b] for a, b in zip(starts, [*starts[1:], len(body)])]
    k, other = (rng.randrange(len(parts)) for _ in range(2))
    match rng.randrange(6):
        case 0:
            del parts[k]
        case 1:
            parts.insert(k, parts[k])
        case 2:
            parts[k], parts[other] = parts[other], parts[k]
        case 3:
            parts[k] = rng.choice(
                (b"N", b"K\x01", b"K\xff", b"]", b"}", b")", b"(", b"0", b"R", b"b", b"t", b"u", b"s", b".")
            )
        case 4:
            parts[k] = parts[k][:1] + rng.choice(BINARY)(parts[k][1:], rng, ())
        case _:
            parts[k] = rng.choice(
                (b"cos\nsystem\n", b"cnumpy\nndarray\n", b"cbuiltins\neval\n", b"\x8a\xff" + b"\xff" * 255)
            )
    return data[:start] + b"".join(parts)


# -- this library's own files -----------------------------------------------------------------------------------------
def change_result(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Mutate what the JSON of a head holds in base64: pictures and compressed arrays."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return rng.choice(JSON)(data, rng, others)
    found = [
        (container, key)
        for container in _dictionaries(document)
        for key, value in container.items()
        if key.endswith("base64") and isinstance(value, str)
    ]
    if not found:
        return change_json(data, rng, others)
    container, key = rng.choice(found)
    try:
        content = base64.b64decode(container[key])
    except ValueError:
        return change_json(data, rng, others)
    if content.startswith(b"\x89PNG"):
        content = rng.choice((change_png, change_png, *BINARY))(content, rng, others)
    elif rng.random() < 0.5:
        content = zlib.compress(rng.choice(BINARY)(_inflated(content), rng, ()))
    else:
        content = rng.choice((*BINARY, lambda *_: zlib.compress(bytes(1 << 26))))(content, rng, ())
    container[key] = base64.b64encode(content).decode()
    return json.dumps(document).encode()


def _dictionaries(document) -> list[dict]:
    found, open_ = [], [document]
    while open_:
        value = open_.pop()
        if isinstance(value, dict):
            found.append(value)
            open_ += value.values()
        elif isinstance(value, list):
            open_ += value
    return found


def change_journal(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Mutate the line of JSON of a journal or the records after it."""
    line, end, body = data.partition(b"\n")
    if rng.random() < 0.6:
        return change_json(line, rng, ()) + end + body
    return line + end + rng.choice(BINARY)(body, rng, ())


def change_glb(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Mutate the JSON or the binary chunk of a GLB; the lengths are right."""
    size = int.from_bytes(data[12:16], "little")
    text, rest = data[20 : 20 + size], data[28 + size :]
    if rng.random() < 0.7:
        text = change_json(text, rng, ())
        text += b" " * (-len(text) % 4)
    else:
        rest = rng.choice(BINARY)(rest, rng, ())
    chunks = struct.pack("<I", len(text)) + b"JSON" + text + struct.pack("<I", len(rest)) + b"BIN\x00" + rest
    return data[:8] + struct.pack("<I", 12 + len(chunks)) + chunks


def change_arguments(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Arguments of a call: one value becomes another one, also of another argument."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return data
    for key in rng.sample(list(document), min(len(document), rng.choice((1, 1, 2)))):
        document[key] = odd_value(rng, *document.values())
    return json.dumps(document).encode()


PNG: tuple[Mutation, ...] = (*BINARY, *(change_png,) * 12)
JPEG: tuple[Mutation, ...] = (*BINARY, *(change_jpeg,) * 12)
TIFF: tuple[Mutation, ...] = (*BINARY, *(change_tiff,) * 12)
MEDIA: tuple[Mutation, ...] = (*BINARY, *(change_boxes,) * 12)
ZIP: tuple[Mutation, ...] = (*BINARY, *(change_zip,) * 20)
NPY: tuple[Mutation, ...] = (*BINARY, *(change_npy,) * 20)
SAFETENSORS: tuple[Mutation, ...] = (*BINARY, *(change_safetensors,) * 20)
PICKLE: tuple[Mutation, ...] = (*BINARY, *(change_pickle,) * 20)
RESULT: tuple[Mutation, ...] = (*JSON, *(change_result,) * 8)
JOURNAL: tuple[Mutation, ...] = (*BINARY, *(change_journal,) * 20)
GLB: tuple[Mutation, ...] = (*BINARY, *(change_glb,) * 20)
