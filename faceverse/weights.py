"""Find and load models: the only module that opens model files or connects to the hub.

An open model is one `.safetensors` file on a coarse quad mesh. Subdivision is linear: the mean is subdivided when the
file is loaded, the modes lazily. `model_data` converts the file's arrays; `load_model` finds the file and caches loaded
models. Reading itself is in `faceverse.model.file` and `faceverse.io.pickles`.
"""

from __future__ import annotations

import functools
import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

import numpy as np
from scipy.sparse import csr_matrix

from .errors import WeightsError
from .graphics.mesh import Subdivision, subdivide_flat, subdivision, subdivision_matrix, triangles_from_quads
from .io.arrays import Shape, array_problems
from .io.files import check_file, write_atomically
from .io.pickles import read_npy
from .landmarks import LANDMARKS_68_FROM_478
from .memory import return_memory
from .messages import Message, joined, reason_of
from .model.arrays import joined_attributes
from .model.correctives import dense_offsets
from .model.data import Landmarks, LazyModes, ModelData
from .model.face_model import FaceModel
from .model.file import ModelFile, content_hash, read_stored_model, write_model_data
from .official import model_data as official_model_data
from .official import npy_bytes, official_v2
from .parts.beard_styles import with_beard_styles
from .parts.file import read_parts
from .parts.hair_styles import with_styles
from .parts.part import PartLibrary, merged

OPEN_FILE, PARAMETER_REGRESSOR_FILE = "open_base.safetensors", "open_parameter_regressor.safetensors"
PARAMETER_REGRESSOR_FORMAT, PARAMETER_REGRESSOR_VERSION = "faceverse-start", "1"
EXPRESSION_REGRESSOR_FILE = "open_expression_regressor.safetensors"
PARTS_FILE, HAIR_FILE = "open_parts.safetensors", "open_hair.safetensors"
BEARD_FILE = "open_beard.safetensors"
EXPRESSION_REGRESSOR_FORMAT, EXPRESSION_REGRESSOR_VERSION = "faceverse-movement", "1"
_SUFFIXES = (".safetensors", ".npy")
WEIGHTS_VARIABLE, HUB_VARIABLE = "FACEVERSE_WEIGHTS", "FACEVERSE_HUB"

_PACKAGE = Path(__file__).resolve().parent
_HUB_NAME = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?")
_LOADING = threading.Lock()


# -- from file arrays to model arrays ---------------------------------------------------------------------------------
def model_data(file: ModelFile) -> ModelData:
    """Convert a model file to the arrays of a FaceModel: subdivided once (if it has quads), metres, float32, int64."""
    rule: csr_matrix | None = None
    mesh: dict[str, Any] = {"uv": file.uv}
    if file.quads is None:
        mesh |= {key: getattr(file, key).astype(np.int64) for key in ("faces", "uv_faces")}
    else:
        topology = subdivision(file.quads, len(file.mean_vertices))
        rule, mesh = subdivision_matrix(topology).astype(np.float32), _refined_mesh(file, topology)
    paths = file.attribute_path, file.attribute_path_kept
    attributes = joined_attributes(file.attributes, file.attribute_step, file.attribute_estimator, *paths)
    return ModelData(
        mean_vertices=np.asarray(_refined(file.mean_vertices[None], rule))[0],
        identity_modes=_refined(file.identity_modes, rule),
        expression_modes=_refined(file.expression_modes, rule),
        mean_albedo=file.mean_albedo.astype(np.float32),
        albedo_modes=_unpacked_albedo(file.albedo_modes, file.albedo_scale),
        expression_names=tuple(file.expression_names),
        regions={name: np.flatnonzero(file.region_bits >> bit & 1) for bit, name in enumerate(file.region_names)},
        attributes=attributes,
        population=_float32(file.population),
        expression_gain=_float32(file.expression_gain),
        **_correctives(file, rule),
        name=file.name,
        info=dict(file.info),
        landmarks_478=_landmarks(file, 478),
        landmarks_68=_landmarks(file, 68),
        **mesh,
    )


def _correctives(file: ModelFile, rule: csr_matrix | None) -> dict[str, Any]:
    """Pairs and modes of the corrective shapes, if the file has them."""
    if file.corrective_pairs is None or file.corrective_offset is None:
        return {}
    sparse = (file.corrective_start, file.corrective_vertex, file.corrective_offset)
    modes = dense_offsets(*sparse, len(file.mean_vertices))  # type: ignore[arg-type]  # all or none are there
    return {"corrective_pairs": file.corrective_pairs.astype(np.int64), "corrective_modes": _refined(modes, rule)}


def _float32(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else values.astype(np.float32)


def _landmarks(file: ModelFile, number: int) -> Landmarks:
    triangle, barycentric, sigma = (
        getattr(file, f"landmarks_{number}_{key}") for key in ("triangle", "barycentric", "sigma")
    )
    error_modes = getattr(file, f"landmarks_{number}_error_modes", None)
    error_modes = None if error_modes is None else error_modes * np.float32(1e-3)
    detected = np.array(LANDMARKS_68_FROM_478) if number == 68 else None
    return Landmarks(triangle.astype(np.int64), barycentric, sigma, error_modes, detected)


def _refined(modes_mm: np.ndarray, rule: csr_matrix | None) -> LazyModes:
    """Subdivide modes lazily: (K, Vc, 3) in millimetres -> (K, V, 3) in metres.

    Args:
        modes_mm: (K, Vc, 3).
        rule: (V, Vc) subdivision matrix; None only converts the unit.
    """

    def make(vertices: slice | np.ndarray) -> np.ndarray:
        if rule is None:
            return modes_mm[:, vertices].astype(np.float32) * np.float32(1e-3)
        count, coarse = modes_mm.shape[:2]
        columns = modes_mm.transpose(1, 0, 2).reshape(coarse, -1).astype(np.float32) * np.float32(1e-3)
        fine = rule[vertices] @ columns
        return np.ascontiguousarray(fine.reshape(-1, count, 3).transpose(1, 0, 2))

    fine_count = modes_mm.shape[1] if rule is None else rule.shape[0]
    return LazyModes((len(modes_mm), fine_count, 3), make)


def _unpacked_albedo(modes: np.ndarray, scale: np.ndarray) -> LazyModes:
    """Inverse of `faceverse.model.file.pack_albedo`, evaluated lazily."""
    return LazyModes(modes.shape, lambda vertices: modes[:, vertices] * scale[:, None, None])


def _refined_mesh(file: ModelFile, topology: Subdivision) -> dict[str, np.ndarray]:
    """Triangles and UV of the subdivided mesh and of the coarse mesh.

    The UV charts are subdivided as a separate mesh. Both subdivisions keep the order of quads and corners, so corner c
    of fine quad q is the same point in both, which assigns every fine vertex its first UV.
    """
    assert file.uv_quads is not None
    vertex_count = topology.vertex_count
    uv_topology = subdivision(file.uv_quads, len(file.uv))
    uv = subdivide_flat(file.uv, uv_topology)

    own = np.arange(vertex_count + len(topology.edges) + len(topology.coarse_quads))
    corners, first = np.unique(topology.quads, return_index=True)
    own[corners] = uv_topology.quads.reshape(-1)[first]
    own[:vertex_count] = np.arange(vertex_count)
    order = np.concatenate([own, np.setdiff1d(np.arange(len(uv)), own)])
    place = np.empty(len(uv), dtype=np.int64)
    place[order] = np.arange(len(uv))
    return {
        "faces": triangles_from_quads(topology.quads),
        "uv": uv[order],
        "uv_faces": triangles_from_quads(place[uv_topology.quads]),
        "coarse_vertices": np.arange(vertex_count),
        "coarse_faces": triangles_from_quads(topology.coarse_quads),
        "coarse_uv_faces": triangles_from_quads(place[uv_topology.coarse_quads]),
    }


# -- search and loading -----------------------------------------------------------------------------------------------
def load_model(source: str | os.PathLike = "open", *, strict: bool = True) -> FaceModel:
    """Load a face model; loading an unchanged file again returns the same object.

    Args:
        source: "open" for the open model, which is searched for in the file or folder named by the environment variable
            FACEVERSE_WEIGHTS, the repository's `weights/`, the installed package, and the hub repository named by
            FACEVERSE_HUB; or the path of a `.safetensors` file or of an official base file (`.npy`, versions 0 to 4,
            recognised by content; its code is never executed); or "hf://owner/repo@revision", followed by "/file" if
            the file is not `open_base.safetensors` (read from the local cache if possible, else from the network).
        strict: reject official files of versions 0 to 2 with keys that their version does not define.

    Raises:
        WeightsError: no model file (the message lists all places tried), or the file is damaged or of another kind.
    """
    path = find_weights(source)
    check_file(path, WeightsError, missing="file.no_model")
    stat = path.stat()
    with _LOADING:
        return _load(path.resolve(), strict, stat.st_mtime_ns, stat.st_size)


def find_weights(source: str | os.PathLike = "open") -> Path:
    """Path of the model file that `load_model(source)` reads, without reading it."""
    text = os.fspath(source)
    if text == "open":
        return _find_open()
    if text.startswith("hf://"):
        return _download(text)
    path = Path(os.path.expanduser(text))
    if path.suffix.lower() not in _SUFFIXES:
        raise WeightsError("weights.source", found=text)
    return path


@functools.lru_cache(maxsize=4)
def _load(path: Path, strict: bool, mtime_ns: int, size: int) -> FaceModel:
    """Load a file; modification time and size are part of the cache key, so that a changed file is loaded again."""
    data = _read(path, strict)
    data.info["sha256"] = content_hash(path)
    model = FaceModel(data, load_parts)
    return_memory()
    return model


def _read(path: Path, strict: bool) -> ModelData:
    if path.suffix.lower() == ".npy":
        content = read_npy(path)
        if not isinstance(content, dict):
            code = "official.coefficients" if content.dtype.kind == "f" else "official.is_array"
            raise WeightsError(code, path=path, shape=content.shape)
        return official_model_data(content, str(path), strict=strict)
    stored = read_stored_model(path)
    return model_data(stored) if isinstance(stored, ModelFile) else stored


def convert_model(model: FaceModel, path: str | os.PathLike, *, to: str = "arrays") -> Path:
    """Write a loaded model to a new file, which `load_model` reads.

    Args:
        path: ends in .safetensors for "arrays", in .npy for "official-v2".
        to: "arrays" is lossless; "official-v2" is the layout of the original's version 2, for its scripts.
    Raises:
        WeightsError: another target or suffix, or a folder that cannot be written.
        ParameterError: the model has no named expressions, which "official-v2" needs.
    """
    path = Path(path)
    suffix = {"arrays": ".safetensors", "official-v2": ".npy"}.get(to)
    if suffix is None or path.suffix.lower() != suffix:
        kinds = '"arrays" (.safetensors) or "official-v2" (.npy)'
        raise WeightsError("weights.convert", kinds=kinds, target=to, name=path.name)
    if to == "arrays":
        return write_model_data(model.data, path)
    return write_atomically(path, npy_bytes(official_v2(model)), WeightsError)


def _find_open() -> Path:
    tried = []
    chosen = os.environ.get(WEIGHTS_VARIABLE)
    if chosen:
        path = Path(os.path.expanduser(chosen))
        path = path / OPEN_FILE if path.is_dir() else path
        if path.is_file():
            return path
        tried.append(Message("weights.tried_variable", variable=WEIGHTS_VARIABLE, value=chosen))
    else:
        tried.append(Message("weights.tried_unset", variable=WEIGHTS_VARIABLE))
    for path in (_PACKAGE.parent / "weights" / OPEN_FILE, _PACKAGE / "_weights" / OPEN_FILE):
        if path.is_file():
            if chosen:
                warnings.warn(Message("weights.using_instead", tried=tried[0], path=path), stacklevel=4)
            return path
        tried.append(Message("weights.tried_path", path=path))
    hub = os.environ.get(HUB_VARIABLE)
    if hub:
        try:
            return _download(hub if hub.startswith("hf://") else f"hf://{hub}")
        except WeightsError as error:
            tried.append(Message("weights.tried_hub", variable=HUB_VARIABLE, value=hub, reason=error.message))
    else:
        tried.append(Message("weights.tried_unset", variable=HUB_VARIABLE))
    raise WeightsError("weights.open_missing", tried=joined(tried))


# -- learned networks -------------------------------------------------------------------------------------------------
def read_parameter_regressor(
    model_sha256: str | None, shapes: Mapping[str, Shape], lengths: Mapping[str, int], indices: Sequence[str]
) -> Mapping[str, np.ndarray] | None:
    """Weights of the parameter regressor (`faceverse.fitting.parameter_regressor`) for the model file with this hash.

    The search covers the open model's places: the folder that FACEVERSE_WEIGHTS names, the repository's `weights/` and
    the installed package.

    Args:
        model_sha256: of the model's file.
        shapes, lengths, indices: of the arrays, see `io.arrays.array_problems`.

    Returns:
        arrays by name; None if no file is installed, or only one for another model.
    Raises:
        WeightsError: the file is damaged or of another kind.
    """
    kind = PARAMETER_REGRESSOR_FORMAT, PARAMETER_REGRESSOR_VERSION
    return _read_companion(PARAMETER_REGRESSOR_FILE, kind, model_sha256, (shapes, lengths, indices))


def read_expression_regressor(
    model_sha256: str | None, shapes: Mapping[str, Shape], lengths: Mapping[str, int], indices: Sequence[str]
) -> Mapping[str, np.ndarray] | None:
    """Weights of the expression regressor (`faceverse.tracking`); see `read_parameter_regressor`."""
    kind = EXPRESSION_REGRESSOR_FORMAT, EXPRESSION_REGRESSOR_VERSION
    return _read_companion(EXPRESSION_REGRESSOR_FILE, kind, model_sha256, (shapes, lengths, indices))


def load_parts(model: FaceModel) -> PartLibrary | None:
    """The parts that ship with the open model: teeth, tongue, eyes, lashes, brows, hair, beards; see `faceverse.parts`.

    Returns:
        None if no file is installed, or the model's mesh is another; without hair or beards where
            their files are missing.
    Raises:
        WeightsError: a file is damaged or of another kind.
    """
    names = (PARTS_FILE, HAIR_FILE, BEARD_FILE)
    found = [library for name in names if (library := _library(name, model.topology)) is not None]
    return with_beard_styles(with_styles(merged(found))) if found else None


def _library(name: str, topology: str) -> PartLibrary | None:
    """The first installed file of this name that fits a mesh."""
    for path in _installed_paths(name):
        stat = path.stat()
        library = _read_parts(path.resolve(), stat.st_mtime_ns, stat.st_size)
        if library.topology == topology:
            return library
    return None


@functools.lru_cache(maxsize=3)
def _read_parts(path: Path, mtime_ns: int, size: int) -> PartLibrary:
    """Read a file of parts; cached as in `_load`."""
    return read_parts(path)


def _read_companion(
    name: str, kind: tuple[str, str], model_sha256: str | None, expected: tuple
) -> Mapping[str, np.ndarray] | None:
    for path in _installed_paths(name):
        stat = path.stat()
        trained_for, arrays = _read_arrays(path.resolve(), kind, stat.st_mtime_ns, stat.st_size)
        if trained_for == model_sha256:
            if problems := array_problems(arrays, *expected):
                raise WeightsError("file.problems", path=path, problems=joined(problems))
            return arrays
    return None


def find_companion_file(name: str) -> Path | None:
    """Path of a file that ships with the open model, None if it is not installed; see `read_parameter_regressor`."""
    return next(_installed_paths(name), None)


def _installed_paths(name: str) -> Iterator[Path]:
    chosen = Path(os.path.expanduser(os.environ.get(WEIGHTS_VARIABLE) or _PACKAGE / "_weights"))
    folders = (chosen if chosen.is_dir() else chosen.parent, _PACKAGE.parent / "weights", _PACKAGE / "_weights")
    return (folder / name for folder in folders if (folder / name).is_file())


@functools.lru_cache(maxsize=4)
def _read_arrays(path: Path, kind: tuple[str, str], mtime_ns: int, size: int) -> tuple[str, Mapping[str, np.ndarray]]:
    """Read a network's file: SHA-256 of the model it was trained for, and its arrays; cached as in `_load`.

    Args:
        kind: expected format and version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            text = opened.metadata() or {}
            arrays = {key: opened.get_tensor(key) for key in opened.keys()}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise WeightsError("file.damaged_safetensors", path=path, reason=reason_of(error)) from error
    if (text.get("format"), text.get("version")) != kind:
        raise WeightsError("weights.kind", path=path, expected=" ".join(kind))
    return text.get("model_sha256", ""), MappingProxyType(arrays)


def _download(address: str) -> Path:
    """Path of a hub file: from the local cache if possible, else downloaded."""
    match = _HUB_NAME.fullmatch(address)
    if not match:
        raise WeightsError("weights.address", address=address)
    file = match["file"] or OPEN_FILE
    if not file.endswith(_SUFFIXES):
        raise WeightsError("weights.address_suffix", address=address)
    try:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
    except ImportError as error:
        raise WeightsError("weights.no_hub", address=address, reason=reason_of(error)) from error
    revision = unquote(match["revision"]) if match["revision"] else None
    try:
        # Not hf_hub_download(local_files_only=True): it contacts a server before it looks into the cache.
        cached = try_to_load_from_cache(match["repo"], file, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        return Path(hf_hub_download(match["repo"], file, revision=revision))
    except Exception as error:  # the hub's client raises its own, its HTTP library's and the system's errors
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise WeightsError(
            "weights.download", file=file, address=address, type=type(error).__name__, reason=reason
        ) from error
