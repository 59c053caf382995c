"""Format of the open model's file: contents, reading, writing, validation.

One `.safetensors` file on a coarse quad mesh; `faceverse.weights` finds such files and builds models from them.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WeightsError
from ..graphics.mesh import unique_edges
from ..io.files import check_file, sorted_header, write_atomically
from ..io.json_text import parse_json
from ..messages import Message, joined, reason_of
from .arrays import is_path, packed, path_length, unpacked
from .correctives import pair_problems
from .data import ModelData

FORMAT, FORMAT_VERSION = "faceverse-model", "2"
ARRAYS_FORMAT, ARRAYS_VERSION = "faceverse-arrays", "1"

MOST_MAGNITUDE = 1e6  # of any number of a model: a kilometre in millimetres; sums of larger ones may overflow

_JSON_KEYS = {"expression_names": list, "region_names": list, "attributes": list, "info": dict}
_QUAD_KEYS, _TRIANGLE_KEYS = ("quads", "uv_quads"), ("faces", "uv_faces")
_CORRECTIVE_KEYS = ("corrective_pairs", "corrective_start", "corrective_vertex", "corrective_offset")
_PATH_KEYS = ("attribute_path", "attribute_path_kept")
_OPTIONAL_KEYS = ("population", "landmarks_478_error_modes", "expression_gain", *_CORRECTIVE_KEYS, *_PATH_KEYS)


@dataclass(frozen=True)
class ModelFile:
    """Contents of a model file.

    Dimensions: Vc coarse vertices, Q quads, V fine vertices (Vc + edges + Q, in the order of
    `faceverse.graphics.mesh.subdivision`), I identity, E expression, A albedo modes, K attributes. Without subdivision
    (`faces` and `uv_faces` in place of `quads` and `uv_quads`) all arrays are defined on the V = Vc vertices.

    Args:
        mean_vertices: (Vc, 3) float32 millimetres, head space.
        identity_modes: (I, Vc, 3) float16 millimetres per unit of a unit-variance coefficient.
        expression_modes: (E, Vc, 3) float16 millimetres at weight 1.
        uv: (Uc, 2) float32, origin top left; row v belongs to vertex v, copies for seams follow.
        mean_albedo: (V, 3) float16 linear RGB.
        albedo_modes: (A, V, 3) int8, in steps of albedo_scale (see `pack_albedo`).
        albedo_scale: (A,) float32 linear RGB per step, for a unit of a unit-variance coefficient.
        region_bits: (V,) uint16; bit k is set for vertices of the region region_names[k].
        landmarks_478_triangle, landmarks_68_triangle: (L,) int32 fine triangles
            (`triangles_from_quads` of the subdivided quads).
        landmarks_478_barycentric, landmarks_68_barycentric: (L, 3) float32, each row adds up to 1.
        landmarks_478_sigma, landmarks_68_sigma: (L,) float32 metres.
        attribute_step: (K, I + A) float32, see `faceverse.model.data.Attribute`.
        attribute_estimator: (K, I + A + 1) float32.
        attribute_path: (T, 2, I + A) float32, offsets and modulated offsets at the knots of the attributes with a path,
            in their order, see `faceverse.model.data.AttributePath`; only where there are such attributes.
        attribute_path_kept: (2, R, I + A) float32, `kept` of these paths.
        quads, uv_quads: (Q, 4) int32 indices of the coarse vertices and of `uv`, corner by corner.
        faces, uv_faces: (F, 3) int32, instead of the quads.
        landmarks_478_error_modes: (K, 478, 2) float16 millimetres, see `faceverse.model.data.Landmarks`; optional.
        expression_gain: (E, I) float16, see `faceverse.model.data.ModelData`; optional.
        corrective_pairs: (C, 2) int32 expressions whose product of weights is a corrective's weight; optional, as are:
        corrective_start: (C + 1,) int32, first row of each corrective in the next two.
        corrective_vertex: (R,) int32 coarse vertices, ascending in each corrective.
        corrective_offset: (R, 3) float16 millimetres at weight 1 of both expressions.
        population: (P, I + A) float16, coefficients of heads in the training set; optional.
        name: of the model.
        expression_names: E names.
        region_names: at most 16 names.
        attributes: K dictionaries with the keys name, unit, minimum, maximum, and for one with a path also path: a
            dictionary with values, positions and shares (lists of T numbers) and modulator (the name of an attribute).
        info: sources, licence, seeds, figures; anything that JSON can hold.
    """

    mean_vertices: np.ndarray
    identity_modes: np.ndarray
    expression_modes: np.ndarray
    uv: np.ndarray
    mean_albedo: np.ndarray
    albedo_modes: np.ndarray
    albedo_scale: np.ndarray
    region_bits: np.ndarray
    landmarks_478_triangle: np.ndarray
    landmarks_478_barycentric: np.ndarray
    landmarks_478_sigma: np.ndarray
    landmarks_68_triangle: np.ndarray
    landmarks_68_barycentric: np.ndarray
    landmarks_68_sigma: np.ndarray
    attribute_step: np.ndarray
    attribute_estimator: np.ndarray
    quads: np.ndarray | None = None
    uv_quads: np.ndarray | None = None
    faces: np.ndarray | None = None
    uv_faces: np.ndarray | None = None
    landmarks_478_error_modes: np.ndarray | None = None
    expression_gain: np.ndarray | None = None
    population: np.ndarray | None = None
    corrective_pairs: np.ndarray | None = None
    corrective_start: np.ndarray | None = None
    corrective_vertex: np.ndarray | None = None
    corrective_offset: np.ndarray | None = None
    attribute_path: np.ndarray | None = None
    attribute_path_kept: np.ndarray | None = None
    name: str = "unnamed"
    expression_names: tuple[str, ...] = ()
    region_names: tuple[str, ...] = ()
    attributes: tuple[dict, ...] = ()
    info: dict = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, without those that are None."""
        values = {key: getattr(self, key) for key in _ARRAY_KEYS}
        return {key: value for key, value in values.items() if value is not None}

    def write(self, path: str | os.PathLike) -> Path:
        """Write the file atomically.

        Raises:
            WeightsError: invalid arrays (all faults in one message), or the folder cannot be written.
        """
        from safetensors.numpy import save

        _check(self, str(path))
        metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, "name": self.name}
        metadata |= {key: json.dumps(getattr(self, key)) for key in _JSON_KEYS}
        arrays = {_STORED_NAMES.get(key, key): np.ascontiguousarray(value) for key, value in self.arrays().items()}
        content = sorted_header(save(arrays, metadata))
        return write_atomically(Path(path), content, WeightsError)


# Name in files, as in the first version of the format.
_STORED_NAMES = {"landmarks_478_error_modes": "landmarks_478_habits"}
_NAMES_OF_STORED = {stored: name for name, stored in _STORED_NAMES.items()}
_NOT_ARRAYS = ("name", *_JSON_KEYS)
_ARRAY_KEYS = tuple(f.name for f in fields(ModelFile) if f.name not in _NOT_ARRAYS)


def pack_albedo(modes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantise modes (A, V, 3) to int8 with one scale per mode (A,).

    That is half the size of float16, with errors below 0.4 % of a mode's largest value.
    """
    scale = np.maximum(np.abs(modes).max(axis=(1, 2)), 1e-8).astype(np.float32) / np.float32(127)
    return np.round(modes / scale[:, None, None]).astype(np.int8), scale


# -- reading and validation -------------------------------------------------------------------------------------------
def read_model_file(path: str | os.PathLike) -> ModelFile:
    """Read and validate a model file.

    Raises:
        WeightsError: missing, truncated, not a model of this format, or inconsistent arrays.
    """
    path = Path(path)
    arrays, metadata = _read(path)
    return _model_file(arrays, metadata, path)


def read_stored_model(path: str | os.PathLike) -> ModelFile | ModelData:
    """Read a .safetensors file: a `ModelFile`, or the `ModelData` that `write_model_data` wrote.

    Raises:
        WeightsError: as in `read_model_file`.
    """
    path = Path(path)
    arrays, metadata = _read(path)
    if metadata.get("format") == ARRAYS_FORMAT:
        return unpacked(arrays, metadata, str(path))
    return _model_file(arrays, metadata, path)


def write_model_data(data: ModelData, path: str | os.PathLike) -> Path:
    """Write any model losslessly and atomically.

    Raises:
        WeightsError: the folder cannot be written.
    """
    from safetensors.numpy import save

    arrays, text = packed(data)
    content = save(arrays, {"format": ARRAYS_FORMAT, "format_version": ARRAYS_VERSION, **text})
    return write_atomically(Path(path), sorted_header(content), WeightsError)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a .safetensors file."""
    from safetensors import SafetensorError, safe_open

    check_file(path, WeightsError, missing="file.no_model")
    try:
        with safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            _check_format(metadata, path)
            return {key: opened.get_tensor(key) for key in opened.keys()}, metadata
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise WeightsError("file.damaged_safetensors", path=path, reason=reason_of(error)) from error


def _model_file(arrays: dict[str, np.ndarray], metadata: dict[str, str], path: Path) -> ModelFile:
    _check_format(metadata, path, (FORMAT,))
    values: dict[str, Any] = {_NAMES_OF_STORED.get(key, key): array for key, array in arrays.items()}
    _check_keys(values, path)
    file = ModelFile(**values, name=metadata.get("name", path.stem), **_read_json(metadata, path))
    _check(file, str(path))
    return file


def content_hash(path: str | os.PathLike) -> str:
    """SHA-256 of a file in hexadecimal, which identifies the weights behind a result."""
    digest = hashlib.sha256()
    with open(path, "rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_format(metadata: dict[str, str], path: Path, formats: tuple[str, ...] = (FORMAT, ARRAYS_FORMAT)) -> None:
    found = metadata.get("format")
    if found not in formats:
        raise WeightsError("model.format", path=path, found=repr(found), expected=FORMAT)
    version = ARRAYS_VERSION if found == ARRAYS_FORMAT else FORMAT_VERSION
    if metadata.get("format_version") != version:
        raise WeightsError("file.version", path=path, found=repr(metadata.get("format_version")), expected=version)


def _check_keys(arrays: dict[str, np.ndarray], path: Path) -> None:
    topology = _TRIANGLE_KEYS if "faces" in arrays and "quads" not in arrays else _QUAD_KEYS
    expected = {k for k in _ARRAY_KEYS if k not in _QUAD_KEYS + _TRIANGLE_KEYS} | set(topology)
    missing, extra = sorted(expected - set(arrays) - set(_OPTIONAL_KEYS)), sorted(set(arrays) - expected)
    if missing or extra:
        raise WeightsError(
            "model.no_arrays",
            path=path,
            missing=", ".join(missing) or Message("word.none"),
            extra=", ".join(extra) or Message("word.none"),
        )


def _read_json(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, kind in _JSON_KEYS.items():
        try:
            value = parse_json(metadata.get(key, ""))
        except ValueError:
            value = None
        if not isinstance(value, kind):
            raise WeightsError("file.metadata_kind", path=path, key=key, kind=kind.__name__)
        values[key] = tuple(value) if kind is list else value
    return values


def _check(file: ModelFile, where: str) -> None:
    """Raise one WeightsError that names every array with a wrong dtype, shape, index or value."""
    arrays = file.arrays()
    with np.errstate(all="ignore"):  # numbers may be anything before they are checked
        problems = _shape_problems(file, arrays) or _value_problems(file, arrays)
    if problems:
        raise WeightsError("file.problems", path=where, problems=joined(problems))


def _shape_problems(file: ModelFile, arrays: dict[str, np.ndarray]) -> list[Message]:
    has_quads = file.quads is not None
    polygons, uv_polygons = _topology_keys(file)
    if {*_QUAD_KEYS, *_TRIANGLE_KEYS} & set(arrays) != {polygons, uv_polygons}:
        return [Message("array.quads_or_faces")]
    if 0 < len(set(_CORRECTIVE_KEYS) & set(arrays)) < len(_CORRECTIVE_KEYS):
        return [Message("array.correctives")]
    count = {key: value.shape[0] if value.ndim else 0 for key, value in arrays.items()}
    coarse, corners = count["mean_vertices"], 4 if has_quads else 3
    fine = coarse
    if file.quads is not None and file.quads.ndim == 2 and file.quads.shape[1] == 4:
        fine = coarse + len(unique_edges(file.quads)) + len(file.quads)
    modes, attributes = count["identity_modes"] + count["albedo_modes"], len(file.attributes)
    expected = {
        "population": ("float16", (count.get("population"), modes)),
        "landmarks_478_error_modes": ("float16", (count.get("landmarks_478_error_modes"), 478, 2)),
        "mean_vertices": ("float32", (coarse, 3)),
        "identity_modes": ("float16", (count["identity_modes"], coarse, 3)),
        "expression_modes": ("float16", (len(file.expression_names), coarse, 3)),
        "uv": ("float32", (count["uv"], 2)),
        "mean_albedo": ("float16", (fine, 3)),
        "albedo_modes": ("int8", (count["albedo_modes"], fine, 3)),
        "albedo_scale": ("float32", (count["albedo_modes"],)),
        "expression_gain": ("float16", (len(file.expression_names), count["identity_modes"])),
        "corrective_pairs": ("int32", (count.get("corrective_pairs"), 2)),
        "corrective_start": ("int32", (count.get("corrective_pairs", 0) + 1,)),
        "corrective_vertex": ("int32", (count.get("corrective_vertex"),)),
        "corrective_offset": ("float16", (count.get("corrective_vertex"), 3)),
        "region_bits": ("uint16", (fine,)),
        "attribute_step": ("float32", (attributes, modes)),
        "attribute_estimator": ("float32", (attributes, modes + 1)),
        "attribute_path": ("float32", (path_length(file.attributes), 2, modes)),
        "attribute_path_kept": ("float32", (2, _second(file.attribute_path_kept), modes)),
        polygons: ("int32", (count[polygons], corners)),
        uv_polygons: ("int32", (count[polygons], corners)),
    }
    for number in (478, 68):
        expected[f"landmarks_{number}_triangle"] = ("int32", (number,))
        expected[f"landmarks_{number}_barycentric"] = ("float32", (number, 3))
        expected[f"landmarks_{number}_sigma"] = ("float32", (number,))
    return [
        Message("array.type", key=key, dtype=dtype, expected=shape, found=f"{arrays[key].dtype} {arrays[key].shape}")
        for key, (dtype, shape) in expected.items()
        if key in arrays and (arrays[key].dtype != dtype or arrays[key].shape != shape)
    ]


def _value_problems(file: ModelFile, arrays: dict[str, np.ndarray]) -> list[Message]:
    problems = [Message("array.empty", key=k) for k in ("mean_vertices", *_topology_keys(file)) if not len(arrays[k])]
    problems += [Message("array.not_finite", key=k) for k, v in arrays.items() if not np.isfinite(v).all()]
    floats = {k: v for k, v in arrays.items() if v.dtype.kind == "f" and v.size}
    problems += [Message("array.huge", key=k) for k, v in floats.items() if np.abs(v).max() > MOST_MAGNITUDE]
    polygons, uv_polygons = (arrays[key] for key in _topology_keys(file))
    vertex_count, triangle_count = len(file.mean_vertices), len(polygons) * (8 if file.quads is not None else 1)
    limits = (vertex_count, len(file.uv), triangle_count, triangle_count)
    keys = (*_topology_keys(file), "landmarks_478_triangle", "landmarks_68_triangle")
    for key, limit in zip(keys, limits, strict=True):
        index = arrays[key]
        if index.size and not (index.min() >= 0 and index.max() < limit):
            problems.append(Message("array.index_found", key=key, last=limit - 1, low=index.min(), high=index.max()))
    problems += _corrective_problems(file)
    if len(file.uv) < vertex_count or ((uv_polygons < vertex_count) & (uv_polygons != polygons)).any():
        problems.append(Message("array.uv_rows"))
    elif not np.isin(polygons, uv_polygons[uv_polygons == polygons]).all():
        problems.append(Message("array.uv_own_row"))
    for number in (478, 68):
        weights = arrays[f"landmarks_{number}_barycentric"]
        if (np.abs(weights.sum(1) - 1) > 1e-3).any() or (weights < -1e-3).any():
            problems.append(Message("array.barycentric", number=number))
    if len(file.region_names) > 16 or (file.region_bits >> len(file.region_names)).any():
        problems.append(Message("array.region_bits", names=len(file.region_names)))
    for key in ("expression_names", "region_names"):
        names = getattr(file, key)
        if any(not isinstance(name, str) for name in names) or len(set(names)) < len(names):
            problems.append(Message("array.different_strings", key=key))
    problems += [Message("array.attribute_entry", found=a) for a in file.attributes if not _is_attribute(a, file)]
    return problems


def _corrective_problems(file: ModelFile) -> list[Message]:
    pairs, start, vertex = file.corrective_pairs, file.corrective_start, file.corrective_vertex
    if pairs is None or start is None or vertex is None:
        return []
    problems = pair_problems(pairs, len(file.expression_names))
    if start[0] != 0 or start[-1] != len(vertex) or (np.diff(start) < 0).any():
        problems.append(Message("array.corrective_rows", rows=len(vertex)))
    last = len(file.mean_vertices) - 1
    if vertex.size and not (vertex.min() >= 0 and vertex.max() <= last):
        found = {"low": vertex.min(), "high": vertex.max()}
        problems.append(Message("array.index_found", key="corrective_vertex", last=last, **found))
    return problems


def _is_attribute(entry: Any, file: ModelFile) -> bool:
    """Whether an entry of the metadata describes an attribute."""
    kinds: dict[str, Any] = {"name": str, "unit": str, "minimum": (int, float), "maximum": (int, float)}
    if not isinstance(entry, dict) or set(entry) - {"path"} != set(kinds):
        return False
    if any(not isinstance(entry[key], kind) for key, kind in kinds.items()):
        return False
    has_arrays = file.attribute_path is not None and file.attribute_path_kept is not None
    return "path" not in entry or (has_arrays and is_path(entry["path"], file.attributes))


def _second(array: np.ndarray | None) -> int | None:
    """Length of the second dimension, where there is one."""
    return array.shape[1] if array is not None and array.ndim > 1 else None


def _topology_keys(file: ModelFile) -> tuple[str, str]:
    return _QUAD_KEYS if file.quads is not None else _TRIANGLE_KEYS
