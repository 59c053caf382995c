"""Read mesh files with trimesh, and rows of points; formats differ in what their colours mean."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..io.files import read_bytes
from ..messages import Message, reason_of
from .cloud_text import parse_cloud
from .mesh_headers import check_off, checked_stl, in_utf8, ply_announces_faces, triangulated_ply
from .obj_text import color_scale, plain_obj
from .scan import LINEAR_OF_BYTE, Scan, ScanError, ScanTexture, merge_scans, reason_in_line
from .scan_materials import MaterialFiles, is_stand_in, rgb_of_picture

_PLY_COLORS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_COMPRESSIONS = ("KHR_draco_mesh_compression", "EXT_meshopt_compression")  # of glTF
_SRGB_GENERATOR = "trimesh"  # writes vertex colours in sRGB into glTF, where the standard wants linear ones
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_COMPONENT_BYTES, _LARGEST_BYTES = 4, 1 << 29
_GLB_HEADER, _GLB_CHUNK = 12, struct.Struct("<I4s")  # bytes; the length and kind of a chunk


def read_cloud(path: Path) -> Scan:
    """Read rows of points, see `cloud_text`.

    Raises:
        ScanError: the file cannot be read, is damaged or has rows of another kind.
    """
    try:
        points, colors = parse_cloud(read_bytes(path, ScanError).decode("utf-8", errors="replace"))
    except ValueError as error:
        raise ScanError("scan.damaged_cloud", name=path.name, reason=reason_in_line(error)) from error
    return Scan(points, colors=None if colors is None else LINEAR_OF_BYTE[colors])


@np.errstate(all="ignore")  # damaged numbers of any size
def read_mesh(path: Path) -> Scan:
    """Read a mesh or a point cloud in one of trimesh's formats; its parts become one scan.

    Raises:
        ScanError: trimesh is missing; the file cannot be read, is damaged, cut short, empty or compressed.
    """
    try:
        import trimesh  # noqa: F401
    except ImportError as error:
        raise ScanError("scan.no_trimesh", reason=reason_of(error)) from error
    suffix = path.suffix.lower()
    content = read_bytes(path, ScanError)
    linear = suffix in (".glb", ".gltf") and _has_linear_colors(path, content)
    try:
        with _quiet():
            parts = _load(path, suffix, content).dump()
    except ScanError:
        raise
    except Exception as error:  # trimesh raises many kinds of exceptions for damaged files
        raise ScanError("scan.damaged_mesh", name=path.name, reason=reason_in_line(error)) from error
    filled = [part for part in parts if len(getattr(part, "vertices", ()))]
    if not filled:
        raise ScanError("scan.no_points", name=path.name)
    if not any(len(getattr(part, "faces", ())) for part in filled) and (
        not all(hasattr(part, "colors") for part in filled) or (suffix == ".ply" and ply_announces_faces(content))
    ):
        raise ScanError("scan.damaged_mesh", name=path.name, reason=Message("scan.faces_missing"))
    with _quiet():
        scans = [_from_trimesh(part, path, linear) for part in filled]
    return scans[0] if len(scans) == 1 else merge_scans(scans)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what trimesh logs from the terminal: what matters of it is said by errors here."""
    logger = logging.getLogger("trimesh.util")  # of all its modules

    def none(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(none)
    try:
        yield
    finally:
        logger.removeFilter(none)


def _load(path: Path, suffix: str, content: bytes) -> Any:
    """The scene of trimesh."""
    import trimesh

    resolver: Any = MaterialFiles(path)
    if suffix == ".obj":
        # Comments and names may have any encoding; trimesh would need a package to detect it.
        obj = plain_obj(content.decode("utf-8", errors="replace"))
        files: Any = MaterialFiles(path, obj.libraries)
        scene = trimesh.load_scene(io.StringIO(obj.text), file_type="obj", resolver=files, process=False)
        if files.unreadable is not None:
            picture, reason = files.unreadable
            raise ScanError("scan.texture", name=path.name, picture=picture, reason=reason)
        return scene
    if suffix in (".glb", ".gltf"):
        return trimesh.load_scene(io.BytesIO(content), file_type=suffix[1:], resolver=resolver, process=False)
    if suffix == ".off":
        check_off(content)
        content = in_utf8(content)
    elif suffix == ".stl":
        content = checked_stl(content)
    else:
        content = in_utf8(content, b"end_header")
    options: Any = {"file_type": suffix[1:], "resolver": resolver, "process": False}
    try:
        return trimesh.load_scene(io.BytesIO(content), **options)
    except Exception:  # see above
        if suffix != ".ply":
            raise
        try:
            content = triangulated_ply(content)
        except (ValueError, KeyError, IndexError, struct.error):
            content = b""
        if not content:
            raise
        return trimesh.load_scene(io.BytesIO(content), **options)


def _from_trimesh(part: Any, path: Path, linear: bool) -> Scan:
    vertices = np.asarray(part.vertices, np.float64)
    visual: Any = getattr(part, "visual", None)
    faces = np.asarray(part.faces, np.int64) if len(getattr(part, "faces", ())) else None
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ScanError("scan.no_points", name=path.name)
    if faces is not None and getattr(visual, "kind", None) == "texture":
        texture = _texture(visual, len(vertices), path)
        if texture is not None:
            return Scan(vertices, faces, texture=texture)
    return Scan(vertices, faces, colors=_colors(part, path.name, faces is not None, linear))


def _texture(visual: Any, count: int, path: Path) -> ScanTexture | None:
    material = visual.material
    image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    if not isinstance(image, Image.Image) or is_stand_in(image) or visual.uv is None or len(visual.uv) != count:
        return None
    uv = np.asarray(visual.uv, np.float64)
    if uv.shape != (count, 2):
        raise ScanError(
            "scan.damaged_mesh",
            name=path.name,
            reason=Message("array.shape", key="uv", expected=(count, 2), shape=uv.shape),
        )
    uv = uv * (1, -1) + (0, 1)  # trimesh has its origin at the bottom left
    try:
        return ScanTexture(uv, rgb_of_picture(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        picture, reason = image.info.get("file_path", ""), reason_in_line(error)
        raise ScanError("scan.texture", name=path.name, picture=picture, reason=reason) from error


def _colors(part: Any, name: str, is_mesh: bool, linear: bool) -> np.ndarray | None:
    """(N, 3) float32 linear RGB of the vertices, or None."""
    visual: Any = getattr(part, "visual", None)
    kind, count = getattr(visual, "kind", None), len(part.vertices)
    try:
        own = _ply_colors(part)
    except (ValueError, TypeError, KeyError) as error:  # rows of several lengths
        raise ScanError("scan.damaged_mesh", name=name, reason=reason_in_line(error)) from error
    if own is None and kind == "texture":
        own = getattr(visual, "vertex_attributes", {}).get("color")  # beside a glTF material
    if own is not None and len(own) == count:
        values = _unit(own[:, :3])
        if linear:
            return values.astype(np.float32)
        return LINEAR_OF_BYTE[np.round(values * 255).astype(np.uint8)]
    colors: Any = (visual.vertex_colors if kind in ("vertex", "face") else None) if is_mesh else part.colors
    if colors is None or np.shape(colors)[:1] != (count,):
        return None
    found = np.asarray(colors)[:, :3].astype(np.uint8)
    return (found / np.float32(255)).astype(np.float32) if linear else LINEAR_OF_BYTE[found]


def _unit(colors: np.ndarray) -> np.ndarray:
    """Colours (N, 3) in 0..1, from integers by their type, from other numbers by the largest."""
    values = np.nan_to_num(np.asarray(colors, np.float64), posinf=0.0, neginf=0.0)
    largest = float(values.max(initial=0))
    scale = float(np.iinfo(colors.dtype).max) if colors.dtype in (np.uint8, np.uint16) else color_scale(largest)
    if colors.dtype.kind in "iu" and colors.dtype.itemsize > 2:
        scale = color_scale(max(largest, 2.0))
    return np.clip(values / scale, 0, 1)


def _ply_colors(part: Any) -> np.ndarray | None:
    """(N, 3) colours in the type of a PLY file; trimesh reads one of their names, as bytes or 0..1 only."""
    element = (getattr(part, "metadata", None) or {}).get("_ply_raw", {}).get("vertex", {})
    for names in _PLY_COLORS:
        if all(name in element.get("properties", ()) for name in names):
            columns = [np.asarray(element["data"][name]).reshape(-1) for name in names]
            colors = np.stack(columns, axis=1)
            return colors if colors.dtype.kind in "fiu" else colors.astype(np.float64)
    return None


def _accessor_bytes(accessor: dict) -> int:
    """What trimesh takes for an array of a glTF file, as its entry announces it."""
    return abs(int(accessor["count"])) * _COMPONENTS.get(accessor["type"], 1) * _COMPONENT_BYTES


def _has_linear_colors(path: Path, content: bytes) -> bool:
    """Whether the vertex colours of a glTF file are linear, as its standard says.

    Raises:
        ScanError: the file announces too much, or is compressed in a way that cannot be undone here.
    """
    if content.startswith(b"glTF"):
        place, sizes = _GLB_HEADER, list[int]()
        while place + _GLB_CHUNK.size <= len(content):
            sizes.append(_GLB_CHUNK.unpack_from(content, place)[0])
            place += _GLB_CHUNK.size + sizes[-1]
        if place > len(content):
            raise ScanError("scan.damaged_mesh", name=path.name, reason=Message("scan.fewer_bytes"))
        content = content[_GLB_HEADER + _GLB_CHUNK.size :][: sizes[0] if sizes else 0]
    try:
        document = json.loads(content)
        used, generator = document.get("extensionsRequired", ()), document.get("asset", {}).get("generator", "")
        size = sum(_accessor_bytes(accessor) for accessor in document.get("accessors") or ())
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError, OverflowError):
        return True  # trimesh says what is wrong
    if size > _LARGEST_BYTES:
        raise ScanError("scan.too_large", name=path.name, most_mb=_LARGEST_BYTES >> 20)
    for name in _COMPRESSIONS:
        if name in (used or ()):
            raise ScanError("scan.compressed", name=path.name, compression=name)
    return _SRGB_GENERATOR not in str(generator)
