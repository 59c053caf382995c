"""What PLY, STL and OFF files announce, checked before trimesh reads them; text that it can decode; PLY triangles."""

from __future__ import annotations

import re
import struct

import numpy as np

from ..messages import Message

_PLY_TYPES = {
    **dict(zip(("char", "uchar", "short", "ushort", "int", "uint", "float", "double"), "bBhHiIfd")),
    **dict(zip(("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"), "bBhHiIfd")),
}
_PLY_FACES = re.compile(rb"^element\s+(?:face|tristrips)\s+0*[1-9]", re.MULTILINE)
_PLY_INDICES = ("vertex_indices", "vertex_index")
_STL_HEAD, _STL_TRIANGLE = 84, 50  # bytes


def in_utf8(content: bytes, mark: bytes = b"") -> bytes:
    """A file whose text, up to a mark, is in UTF-8: trimesh would need a package to detect another encoding."""
    head, end, rest = content.partition(mark) if mark else (content, b"", b"")
    try:
        head.decode()
    except UnicodeDecodeError:
        head = head.decode("cp1252", errors="replace").encode()
    return head + end + rest


def ply_announces_faces(content: bytes) -> bool:
    """Whether the header of a PLY file has faces or strips of triangles."""
    return _PLY_FACES.search(content.partition(b"end_header")[0].replace(b"\r", b"\n")) is not None


def triangulated_ply(content: bytes) -> bytes:
    """A binary PLY file with its faces as triangles: trimesh reads binary faces of one number of corners only.

    Polygons become fans; all that follows the faces, and other properties of faces, are left out.

    Raises:
        ValueError: it is no such file, or cut short.
        struct.error: it is cut short.
    """
    head, mark, body = content.partition(b"end_header\n")
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(head.split(b"\n")[1].split()[1].decode())
    elements: list[tuple[list[str], list[list[str]]]] = []
    for line in head.decode("latin1").split("\n"):
        words = line.split()
        if words[:1] == ["element"]:
            elements.append((words, []))
        elif words[:1] == ["property"]:
            elements[-1][1].append(words[1:])
    names = [words[1] for words, _ in elements]
    if not mark or order is None or names[:2] != ["vertex", "face"]:
        raise ValueError(names)
    (_, _, points), of_points = elements[0]
    start = int(points) * struct.calcsize("<" + "".join(_PLY_TYPES[kind] for kind, _ in of_points))
    triangles = _triangles(body, start, int(elements[1][0][2]), elements[1][1], order)
    faces = np.zeros(len(triangles), [("count", "u1"), ("index", order + "i4", 3)])
    faces["count"], faces["index"] = 3, triangles
    kept = head[: re.search(rb"^element\s+face\s", head, re.MULTILINE).start()]  # type: ignore[union-attr]
    own = f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n".encode()
    return kept + own + body[:start] + faces.tobytes()


def _triangles(body: bytes, offset: int, count: int, properties: list[list[str]], order: str) -> np.ndarray:
    """(F, 3) indices of the points of a face element's polygons, as fans."""
    triangles = []
    for _ in range(count):
        for kind, *rest in properties:
            if kind != "list":
                offset += struct.calcsize(_PLY_TYPES[kind])
                continue
            of_count, of_items, name = rest
            (length,) = struct.unpack_from(order + _PLY_TYPES[of_count], body, offset)
            items = f"{order}{length}{_PLY_TYPES[of_items]}"
            offset += struct.calcsize(_PLY_TYPES[of_count])
            if name in _PLY_INDICES:
                corners = struct.unpack_from(items, body, offset)
                triangles += [(corners[0], *pair) for pair in zip(corners[1:], corners[2:])]
            offset += struct.calcsize(items)
    return np.array(triangles, np.int64).reshape(-1, 3)


def checked_stl(content: bytes) -> bytes:
    """An STL file without bytes after its last triangle.

    Raises:
        ValueError: with a `Message`: the file is cut short.
    """
    if content[:1000].lstrip().startswith(b"solid") and b"facet" in content[:2000]:
        if b"endsolid" not in content[-2000:]:
            raise ValueError(Message("scan.cut_line"))
        return in_utf8(content)
    if len(content) < _STL_HEAD:
        raise ValueError(Message("scan.cut_line"))
    (announced,) = struct.unpack_from("<I", content, _STL_HEAD - 4)
    found = (len(content) - _STL_HEAD) // _STL_TRIANGLE
    if announced > found:
        raise ValueError(Message("scan.fewer_triangles", announced=announced, found=found))
    return content[: _STL_HEAD + _STL_TRIANGLE * announced]


def check_off(content: bytes) -> None:
    """Check that an OFF file has the points and faces that it announces.

    Raises:
        ValueError: with a `Message`: it has fewer, or the last one is cut short.
    """
    rows = [row.partition(b"#")[0].split() for row in re.split(rb"[\r\n]+", content)]
    words = [row for row in rows if row]
    if not words or not words[0][0].endswith(b"OFF") or b"BINARY" in words[0]:
        return  # trimesh says what is wrong
    header = words[0][1:] or (words[1] if len(words) > 1 else [])
    first = 1 if words[0][1:] else 2
    points, faces = (int(word) for word in header[:2])
    of_faces = words[first + points : first + points + faces]
    if len(of_faces) < faces or any(len(row) <= int(row[0]) for row in of_faces):
        raise ValueError(Message("scan.fewer_faces", points=points, faces=faces))
