"""Format of the file of parts: one `.safetensors` file with meshes, textures as PNG, and a table of the parts.

Arrays are named `mesh/NAME/FIELD` and `texture/NAME`; the metadata's `parts` is a JSON list of dictionaries with the
keys name, mesh, texture, roughness, alpha_mode and alpha_cutoff. Parts share meshes (eyes of several colours) and
textures (teeth of several shapes).
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import WeightsError
from ..graphics.alpha_texture import ALPHA_MODES
from ..io.files import check_file, sorted_header, write_atomically
from ..io.json_text import parse_json
from ..messages import Message, joined, reason_of
from .binding import BINDING_KINDS, Binding, BindingKind
from .part import SLOTS, Material, Part, PartLibrary

FORMAT, FORMAT_VERSION = "faceverse-parts", "1"
_MESH_FIELDS = {
    "triangle": ("int32", 3),
    "weights": ("float32", 3),
    "offset": ("float32", 3),
    "reference_m": ("float32", 3),
    "faces": ("int32", 3),
    "uv": ("float32", 2),
    "uv_faces": ("int32", 3),
}
_REFERENCE = "reference"  # int32 (R, 1), where a mesh follows more vertices than those of its triangles
_PART_KEYS = {"name": str, "mesh": str, "texture": str, "roughness": float, "alpha_mode": str, "alpha_cutoff": float}
_MAX_TEXTURE_PX = 4096


def write_parts(library: PartLibrary, path: str | os.PathLike) -> Path:
    """Write a library of parts atomically; parts that share a mesh or a texture share it in the file.

    Raises:
        WeightsError: the file cannot be written.
    """
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    names: dict[bytes, str] = {}
    meshes: dict[str, str] = {}
    rows = []
    for part in library.parts.values():
        binding = part.binding
        fields = (
            binding.triangle, binding.weights, binding.offset, binding.reference_m, part.faces, part.uv, part.uv_faces
        )  # fmt: skip
        content = b"".join(np.ascontiguousarray(field).tobytes() for field in fields)
        mesh = names.setdefault(content, f"mesh/{part.name.replace('/', '_')}")
        meshes[mesh] = binding.kind
        for (field, (dtype, _)), value in zip(_MESH_FIELDS.items(), fields, strict=True):
            arrays[f"{mesh}/{field}"] = np.ascontiguousarray(value, dtype=dtype)
        if not np.array_equal(binding.reference, np.unique(binding.triangle)):
            arrays[f"{mesh}/{_REFERENCE}"] = np.ascontiguousarray(binding.reference[:, None], dtype=np.int32)
        pixels = part.material.texture
        texture = names.setdefault(pixels.tobytes(), f"texture/{part.name.replace('/', '_')}")
        arrays[texture] = _png(pixels)
        row = {"name": part.name, "mesh": mesh, "texture": texture}
        rows.append(row | {key: getattr(part.material, key) for key in ("roughness", "alpha_mode", "alpha_cutoff")})
    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, "topology": library.topology}
    metadata |= {"parts": json.dumps(rows), "meshes": json.dumps(meshes), "info": json.dumps(library.info)}
    return write_atomically(Path(path), sorted_header(save(arrays, metadata)), WeightsError)


def read_parts(path: str | os.PathLike) -> PartLibrary:
    """Read and check a library of parts.

    Raises:
        WeightsError: missing, damaged, of another kind, or inconsistent.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    check_file(path, WeightsError, missing="file.no_model")
    try:
        with safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            arrays = {key: opened.get_tensor(key) for key in opened.keys()}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise WeightsError("file.damaged_safetensors", path=path, reason=reason_of(error)) from error
    if (metadata.get("format"), metadata.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise WeightsError("weights.kind", path=path, expected=f"{FORMAT} {FORMAT_VERSION}")
    tables = {}
    for key, kind in (("parts", list), ("meshes", dict), ("info", dict)):
        try:
            tables[key] = parse_json(metadata.get(key, ""))
        except ValueError:
            tables[key] = None
        if not isinstance(tables[key], kind):
            raise WeightsError("file.metadata_kind", path=path, key=key, kind=kind.__name__)
    if problems := _problems(arrays, tables["parts"], tables["meshes"]):
        raise WeightsError("file.problems", path=path, problems=joined(problems))
    textures = {row["texture"]: _pixels(arrays[row["texture"]], path) for row in tables["parts"]}
    parts = [_part(arrays, row, tables["meshes"][row["mesh"]], textures[row["texture"]]) for row in tables["parts"]]
    return PartLibrary({part.name: part for part in parts}, metadata.get("topology", ""), tables["info"])


def _part(arrays: dict[str, np.ndarray], row: dict, kind: BindingKind, texture: np.ndarray) -> Part:
    triangle, *bound, faces, uv, uv_faces = (arrays[f"{row['mesh']}/{field}"] for field in _MESH_FIELDS)
    weights, offset, reference_m = bound
    reference = _reference(arrays, row["mesh"])
    binding = Binding(kind, triangle.astype(np.int64), weights, offset, reference, reference_m)
    material = Material(texture, float(row["roughness"]), row["alpha_mode"], float(row["alpha_cutoff"]))
    return Part(row["name"], binding, faces.astype(np.int64), uv, uv_faces.astype(np.int64), material)


def _reference(arrays: dict[str, np.ndarray], mesh: str) -> np.ndarray:
    """(R,) int64, the vertices that a mesh follows."""
    stored = arrays.get(f"{mesh}/{_REFERENCE}")
    found = np.unique(arrays[f"{mesh}/triangle"]) if stored is None else stored[:, 0]
    return found.astype(np.int64)


def _problems(arrays: dict[str, np.ndarray], rows: list, meshes: dict) -> list[Message]:
    """What is wrong with the table and the arrays that it names."""
    problems: list[Message] = []
    for row in rows:
        if not _has_keys(row, _PART_KEYS) or meshes.get(row["mesh"]) not in BINDING_KINDS:
            return [Message("parts.entry", found=str(row)[:200])]
        slot, _, style = row["name"].partition("/")
        is_known = slot in SLOTS and style and row["alpha_mode"] in ALPHA_MODES
        texture = arrays.get(row["texture"])
        if not is_known or texture is None or texture.dtype != np.uint8 or texture.ndim != 1:
            return [Message("parts.entry", found=str(row)[:200])]
    for mesh in sorted({row["mesh"] for row in rows}):
        problems += _mesh_problems(arrays, mesh)
    return problems


def _mesh_problems(arrays: dict[str, np.ndarray], mesh: str) -> list[Message]:
    values: dict[str, np.ndarray] = {}
    for field, (dtype, width) in _MESH_FIELDS.items():
        key = f"{mesh}/{field}"
        value = arrays.get(key)
        if value is None or value.dtype != dtype or value.ndim != 2 or value.shape[1] != width or not len(value):
            found = "-" if value is None else f"{value.dtype} {value.shape}"
            return [Message("array.type", key=key, dtype=dtype, expected=f"(n, {width})", found=found)]
        if not np.isfinite(value).all():
            return [Message("array.not_finite", key=key)]
        values[field] = value
    count = len(values["triangle"])
    for field, limit in (("triangle", 1 << 30), ("faces", count), ("uv_faces", len(values["uv"]))):
        low, high = int(values[field].min()), int(values[field].max())
        if low < 0 or high >= limit:
            return [Message("array.index_found", key=f"{mesh}/{field}", last=limit - 1, low=low, high=high)]
    stored = arrays.get(f"{mesh}/{_REFERENCE}")
    if stored is not None and not _holds(stored, values["triangle"]):
        return [Message("parts.reference", mesh=mesh)]
    lengths = (count, count, len(_reference(arrays, mesh)), len(values["faces"]))
    if lengths != tuple(len(values[field]) for field in ("weights", "offset", "reference_m", "uv_faces")):
        return [Message("parts.lengths", mesh=mesh)]
    return []


def _holds(reference: np.ndarray, triangle: np.ndarray) -> bool:
    """Whether stored reference vertices are increasing numbers of at least 0 that include those of the triangles."""
    if reference.dtype != np.int32 or reference.ndim != 2 or reference.shape[1] != 1 or not len(reference):
        return False
    increases = reference[0, 0] >= 0 and (np.diff(reference[:, 0].astype(np.int64)) > 0).all()
    return bool(increases and np.isin(triangle, reference).all())


def _has_keys(entry: Any, kinds: dict[str, type]) -> bool:
    def fits(value: Any, kind: type) -> bool:
        # Roughness and cutoff are in 0..1; a comparison with NaN is false.
        return type(value) in (int, float) and 0 <= value <= 1 if kind is float else type(value) is kind

    return isinstance(entry, dict) and all(fits(entry.get(key), kind) for key, kind in kinds.items())


def _png(pixels: np.ndarray) -> np.ndarray:
    content = io.BytesIO()
    if (pixels[..., :3] == pixels[..., :1]).all():
        pixels = np.ascontiguousarray(pixels[..., [0, 3]])  # grey and alpha
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    return np.frombuffer(content.getvalue(), np.uint8)


def _pixels(content: np.ndarray, path: Path) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content.tobytes()), formats=["PNG"]) as image:
            if max(image.size) > _MAX_TEXTURE_PX:
                raise ValueError(f"{image.size[0]} x {image.size[1]}")
            return np.asarray(image.convert("RGBA"))
    except Exception as error:  # a damaged PNG makes Pillow raise almost anything
        raise WeightsError("parts.texture", path=path, reason=reason_of(error)) from error
