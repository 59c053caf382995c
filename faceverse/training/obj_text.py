"""Rewrite Wavefront OBJ text in the plain form that trimesh reads rightly, and find what is wrong with it.

Plain means: absolute indices, one space between words, no comments, three coordinates, colours in 0..1, every polygon
begun at a corner whose fan of triangles covers it. A plain file is left as it is, number by number.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field

import numpy as np

from ..messages import Message

LIBRARIES = "mtllib"  # name of all material libraries together, in the plain form
UNUSED_SHARE = 0.1  # of the points of a file without a last line end: more means that faces are missing
_KEPT = ("usemtl", "o", "g", "s")  # beside points and faces
_COMMENT = re.compile(r"(?:^|\s)#.*")  # not the sign in 1.#QNAN
_PLAIN_TRIANGLE = re.compile(
    r"[1-9]\d{0,15}(?:(/[1-9]\d{0,15})(/[1-9]\d{0,15})?(?: [1-9]\d{0,15}/[1-9]\d{0,15}(?(2)/[1-9]\d{0,15})){2}"
    r"|(?: [1-9]\d{0,15}){2})"
)
_NOT_FINITE = re.compile(r"[-+]?(?:1\.#|nan|inf|ind)", re.IGNORECASE)


@dataclass(frozen=True)
class PlainObj:
    """An OBJ file in the plain form.

    Args:
        text: of the file.
        libraries: names of its material libraries, as written.
    """

    text: str
    libraries: tuple[str, ...]


def color_scale(largest: float) -> float:
    """What 1 means in colours whose largest value is this: 1, 255 or 65535."""
    return next((scale for scale in (1.0, 255.0) if largest <= scale), 65535.0)


def plain_obj(text: str) -> PlainObj:
    """Rewrite an OBJ file.

    Raises:
        ValueError: with a `Message`: the file is cut short, has no faces, or a line or an index is wrong.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\\\n", " ").split("\n")
    obj = _Obj()
    for number, line in enumerate(lines, start=1):
        obj.unfinished = number == len(lines)  # what ends with a line end is followed by an empty line
        words = (_COMMENT.sub("", line) if "#" in line else line).split()
        read = _READERS.get(words[0]) if words else None
        try:
            if read is not None:
                read(obj, words[1:])
            elif words and words[0] in _KEPT:
                obj.lines.append(line.strip())
            elif words and words[0] == "mtllib":
                obj.libraries.append(line.strip().removeprefix("mtllib").strip())
        except (ValueError, IndexError, OverflowError) as error:
            if obj.unfinished:
                raise ValueError(Message("scan.cut_line")) from error
            raise ValueError(Message("scan.line", line=number, text=repr(line.strip()[:40]))) from error
    _check(obj, unfinished=bool(lines[-1].strip()))
    _scale_colors(obj)
    _order_corners(obj)
    _unify_forms(obj)
    _drop_materials(obj)
    names = (f"mtllib {LIBRARIES}",) if obj.libraries else ()
    return PlainObj("\n".join([*names, *obj.lines, ""]), tuple(obj.libraries))


@dataclass
class _Obj:
    """A file in the making.

    Args:
        lines: of the plain file.
        libraries: of materials.
        coordinates: three for each point so far.
        uv, normals: how many there are so far.
        colored, colors: places in `lines` of points with a colour, and three numbers for each.
        polygons: by number of corners, more than three: places in `lines`, and corners as written.
        forms: which of uv (t) and normals (n) the faces name.
        referenced: indices from 0 of the points of all faces.
        unfinished: the present line has no end.
    """

    lines: list[str] = field(default_factory=list)
    libraries: list[str] = field(default_factory=list)
    coordinates: array = field(default_factory=lambda: array("d"))
    uv: int = 0
    normals: int = 0
    colored: array = field(default_factory=lambda: array("q"))
    colors: array = field(default_factory=lambda: array("d"))
    polygons: dict[int, list[tuple[int, list[str]]]] = field(default_factory=dict)
    forms: set[str] = field(default_factory=set)
    referenced: array = field(default_factory=lambda: array("q"))
    unfinished: bool = False

    @property
    def points(self) -> int:
        """How many there are so far."""
        return len(self.coordinates) // 3


# -- lines -------------------------------------------------------------------------------------------------------------
def _point(obj: _Obj, words: list[str]) -> None:
    """Three coordinates, perhaps a weight of curves, or a colour."""
    values, words = _numbers(words)
    x, y, z = values[:3]
    obj.coordinates.extend((x, y, z))
    if len(values) >= 6:
        obj.colored.append(len(obj.lines))
        obj.colors.extend(values[3:6])
    obj.lines.append("v " + " ".join(words[: 6 if len(values) >= 6 else 3]))


def _uv(obj: _Obj, words: list[str]) -> None:
    u, *others = _numbers(words)[1]
    obj.uv += 1
    obj.lines.append(f"vt {u} {others[0] if others else 0}")


def _normal(obj: _Obj, words: list[str]) -> None:
    x, y, z = _numbers(words[:3])[1]
    obj.normals += 1
    obj.lines.append(f"vn {x} {y} {z}")


def _face(obj: _Obj, words: list[str]) -> None:
    if plain := _PLAIN_TRIANGLE.fullmatch(" ".join(words)):  # most lines of most files
        obj.referenced.extend(int(word.partition("/")[0]) - 1 for word in words)
        obj.forms.add("tn" if plain[2] else "t" if plain[1] else "")
        obj.lines.append("f " + plain[0])
        return
    counts, references = (obj.points, obj.uv, obj.normals), []
    for word in words:
        parts = word.split("/")
        references.append([_absolute(part, count) for part, count in zip(parts + ["", ""], counts)])
    forms = {("t" if uv else "") + ("n" if normal else "") for _, uv, normal in references}
    if len(references) < 3 or len(forms) > 1:
        if obj.unfinished:
            raise ValueError(words)
        if len(references) < 3:
            return  # lines and points that are written as faces
        references, forms = [[point, 0, 0] for point, _, _ in references], {""}
    obj.referenced.extend(point - 1 for point, _, _ in references)
    if not all(point for point, _, _ in references):
        raise ValueError(words)
    corners = [_corner(*reference) for reference in references]
    obj.forms |= forms
    if len(corners) > 3:
        obj.polygons.setdefault(len(corners), []).append((len(obj.lines), corners))
    obj.lines.append("f " + " ".join(corners))


def _corner(point: int, uv: int, normal: int) -> str:
    return f"{point}/{uv or ''}/{normal}" if normal else f"{point}/{uv}" if uv else f"{point}"


def _absolute(word: str, count: int) -> int:
    """Index from 1 of a reference; a negative one counts from the last element read so far. 0 for none."""
    if not word:
        return 0
    index = int(word)
    absolute = index if index > 0 else count + 1 + index
    if index == 0 or absolute < 1:
        raise ValueError(word)
    return absolute


def _numbers(words: list[str]) -> tuple[list[float], list[str]]:
    """The values of numbers, and the numbers as trimesh reads them; a decimal comma becomes a point."""
    try:
        return list(map(float, words)), words
    except ValueError:
        words = ["nan" if _NOT_FINITE.match(word) else word.replace(",", ".", 1) for word in words]
        return list(map(float, words)), words


_READERS = {"v": _point, "vt": _uv, "vn": _normal, "f": _face}


# -- the whole file ----------------------------------------------------------------------------------------------------
def _check(obj: _Obj, unfinished: bool) -> None:
    if not obj.points:
        return  # a file that holds nothing is refused later
    if not obj.referenced:
        raise ValueError(Message("scan.no_faces"))
    used = np.unique(np.array(obj.referenced))
    if used[-1] >= obj.points:
        raise ValueError(Message("scan.missing_index", index=used[-1] + 1, points=obj.points))
    if unfinished and len(used) < (1 - UNUSED_SHARE) * obj.points:
        raise ValueError(Message("scan.unused_points", unused=obj.points - len(used), points=obj.points))


def _scale_colors(obj: _Obj) -> None:
    """Bring colours to 0..1; what is negative is no colour, and colours of some points only are left out."""
    colors = np.array(obj.colors).reshape(-1, 3)
    finite = colors[np.isfinite(colors)]
    scale = color_scale(float(finite.max(initial=0)))
    keeps = len(colors) == obj.points and finite.min(initial=0) >= 0
    if keeps and scale == 1:
        return
    for place, color in zip(obj.colored, (colors / scale).tolist()):
        words = obj.lines[place].split(" ")[:4]
        obj.lines[place] = " ".join([*words, *(map(repr, color) if keeps else ())])


def _drop_materials(obj: _Obj) -> None:
    """Leave out materials where points have colours and no face has a texture: trimesh would prefer the materials."""
    if len(obj.colored) == obj.points and not any("t" in form for form in obj.forms):
        obj.libraries.clear()
        obj.lines = [line for line in obj.lines if not line.startswith("usemtl")]


def _order_corners(obj: _Obj) -> None:
    """Begin polygons at a corner from which a fan of triangles covers them; divide those without such a corner."""
    points = np.array(obj.coordinates).reshape(-1, 3)
    for polygons in obj.polygons.values():
        index = np.array([[int(corner.partition("/")[0]) - 1 for corner in corners] for _, corners in polygons])
        at = points[index]
        for number in np.flatnonzero(~_fan_covers(at)):
            place, corners = polygons[number]
            shifts = np.stack([np.roll(at[number], -first, axis=0) for first in range(len(corners))])
            good = np.flatnonzero(_fan_covers(shifts))
            if len(good):
                obj.lines[place] = "f " + " ".join(corners[good[0] :] + corners[: good[0]])
            else:
                parts = [[corners[k] for k in part] for part in _ears(at[number])]
                obj.lines[place] = "\n".join("f " + " ".join(part) for part in parts)


def _area(at: np.ndarray) -> np.ndarray:
    """Twice the area of polygons (..., K, 3) along their normals, (..., 3)."""
    sides = at[..., 1:, :] - at[..., :1, :]
    return np.cross(sides[..., :-1, :], sides[..., 1:, :]).sum(-2)


def _fan_covers(at: np.ndarray) -> np.ndarray:
    """(Q,) bool: whether no triangle of the fan from the first corner is turned over, for polygons (Q, K, 3)."""
    sides = at[:, 1:] - at[:, :1]
    area = _area(at)
    signed = (np.cross(sides[:, :-1], sides[:, 1:]) * area[:, None]).sum(-1)
    return ~(signed < -1e-9 * (area * area).sum(-1)[:, None]).any(1)


def _ears(at: np.ndarray) -> list[tuple[int, int, int]]:
    """Triangles of a polygon (K, 3), by cutting off corners whose triangle holds no other corner."""
    area, left, triangles = _area(at), list(range(len(at))), list[tuple[int, int, int]]()
    while len(left) > 3:
        for k in range(len(left)):
            a, b, c = left[k - 1], left[k], left[(k + 1) % len(left)]
            others = at[[i for i in left if i not in (a, b, c)]]
            sides = ((a, b), (b, c), (c, a))
            inside = np.all([np.cross(at[j] - at[i], others - at[i]) @ area >= 0 for i, j in sides], axis=0)
            if np.cross(at[b] - at[a], at[c] - at[b]) @ area > 0 and not inside.any():
                break
        else:
            k, a, b, c = 1, left[0], left[1], left[2]  # a polygon that crosses itself has no such corner
        triangles.append((a, b, c))
        del left[k]
    return [*triangles, (left[0], left[1], left[2])]


def _unify_forms(obj: _Obj) -> None:
    """Leave out normals where not all faces have them.

    trimesh tells point/uv and point//normal apart by the first face only; normals are computed anyway.
    """
    if len(obj.forms) < 2:
        return
    for place, line in enumerate(obj.lines):
        if line.startswith("f "):
            faces = (" ".join("/".join(c.split("/")[:2]).rstrip("/") for c in f.split(" ")) for f in line.split("\n"))
            obj.lines[place] = "\n".join(faces)
