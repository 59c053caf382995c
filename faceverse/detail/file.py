"""Files of detail modules: recognise and load their parts, and write all parts to one .safetensors file."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ParameterError, WeightsError
from ..io.files import write_atomically
from ..io.json_text import parse_json
from ..io.pickles import read_checkpoint, read_npy
from ..messages import Message, joined, reason_of
from ..weights import find_companion_file
from .displacement_regressor import DisplacementRegressor, regressor_from_state
from .module import CHANNELS, DetailLayout, DetailModule, DisplacementCode
from .official import built, detail_layout, generator_state, read_tensors, split_by_kind
from .stylegan import ConditionalGenerator

FORMAT, FORMAT_VERSION = "faceverse-detail", "1"
STORED_REGRESSOR = "reader"  # name of the displacement regressor's tensors in files
OPEN_FILES = ("open_detail.safetensors", "open_expression.safetensors", "open_reader.safetensors")

_SUFFIXES = (".pt", ".pth", ".npy", ".safetensors")
_LAYOUT_KEYS = {
    "uv_texels": "uv",
    "mask": "uvmask",
    "faces": "tri",
    "point_faces": "point_buf",
    "keypoints": "keypoints",
}  # a layout is stored under its own names and checked under the official ones


@dataclass(frozen=True)
class _Part:
    """A part in a file, not yet built: "detail", "expression", "regressor", "layout", or "" for anything else."""

    kind: str
    path: Path
    content: Mapping
    what: str = ""  # in words, for messages
    metadata: Mapping[str, str] = field(default_factory=dict)


# -- reading ----------------------------------------------------------------------------------------------------------
def load_detail(*sources: str | os.PathLike) -> DetailModule:
    """Load a detail module: generators and mesh for detail that a linear model cannot represent.

        fv.load_detail()                                                                # the open ones
        fv.load_detail("faceverse_ckpt_detail_v1_124000.pt", "faceverse_detail_v1.npy")

    Args:
        sources: none, or "open", for the open generators that come with faceverse; else official checkpoints and
            `faceverse_detail_v*.npy`, files of `save_detail`, or folders, which are searched for parts of a detail
            module. Files are recognised by content: a generator with 6 image channels refines albedo and geometry, one
            with 3 the expression. No code in a file is executed.
    Returns:
        The module, with None for parts that no source has; the generators' weights are frozen.
    Raises:
        WeightsError: no such file, a damaged one, one without any part of a detail module, two parts of one kind,
            incompatible parts, or the open files are not installed.
    """
    if not sources or sources == ("open",):
        return _loaded(tuple((path, path.stat().st_mtime_ns) for path in _open_files()))
    return _load(sources)


def has_open_detail() -> bool:
    """Whether the open generators are installed."""
    return find_companion_file(OPEN_FILES[0]) is not None


def _open_files() -> list[Path]:
    found = {name: find_companion_file(name) for name in OPEN_FILES}
    if found[OPEN_FILES[0]] is None:
        raise WeightsError("detail.not_installed", name=OPEN_FILES[0])
    return [path for path in found.values() if path is not None]


@functools.lru_cache(maxsize=2)
def _loaded(files: tuple[tuple[Path, int], ...]) -> DetailModule:
    """Load the open module once; modification times are part of the cache key, so that changed files load again."""
    return _load(tuple(path for path, _ in files))


def _load(sources: Iterable[str | os.PathLike]) -> DetailModule:
    parts: dict[str, _Part] = {}
    for part in (part for source in sources for part in _recognised(source)):
        if part.kind in parts:
            paths = f"{parts[part.kind].path} and {part.path}"
            raise WeightsError("detail.part_twice", kind=part.kind, paths=paths)
        parts[part.kind] = part
    name, info = _origin(parts)
    built_parts: dict[str, Any] = {kind: _built(part) for kind, part in parts.items()}
    try:
        return DetailModule(**built_parts, code=_code(parts.values()), name=name, info=info)
    except ParameterError as error:
        raise WeightsError(
            "file.in", path=", ".join(str(part.path) for part in parts.values()), reason=reason_of(error)
        ) from error


def _recognised(source: str | os.PathLike) -> list[_Part]:
    """The parts in a file or folder, at least one."""
    if not isinstance(source, str | os.PathLike):
        raise ParameterError("detail.source_type", type=type(source).__name__)
    path, files = Path(os.path.expanduser(source)), []
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    elif path.suffix.lower() in _SUFFIXES:
        files = [path]
    found = [part for file in files for part in _parts(file)]
    if recognised := [part for part in found if part.kind]:
        return recognised
    listed = [Message("file.in", path=part.path.name, reason=part.what) for part in found[:8]]
    what = joined(listed or [Message("reason.no_file")])
    raise WeightsError("detail.no_part", path=path, suffixes=", ".join(_SUFFIXES), found=what)


def _parts(path: Path) -> list[_Part]:
    """Parts in a file, which is read by its suffix and recognised by its content."""
    if path.suffix.lower() == ".npy":
        content = read_npy(path)
        if not isinstance(content, dict):
            return [_Part("", path, {}, Message("detail.found_array", shape=content.shape))]
        made = Message("detail.found_dictionary", keys=_some(content))
        return [_Part("layout" if "uvmask" in content else "", path, content, made)]
    if path.suffix.lower() != ".safetensors":
        return [_generator_part(path, read_checkpoint(path))]
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        return [_generator_part(path, tensors)]
    if metadata.get("format_version") != FORMAT_VERSION:
        raise WeightsError(
            "file.version", path=path, found=repr(metadata.get("format_version")), expected=FORMAT_VERSION
        )
    kinds = split_by_kind(tensors)
    if unknown := set(kinds) - {*CHANNELS, "layout", STORED_REGRESSOR}:
        raise WeightsError("detail.unknown_parts", path=path, parts=_some(sorted(unknown)))
    names = {STORED_REGRESSOR: "regressor"}
    return [_Part(names.get(kind, kind), path, content, metadata=metadata) for kind, content in kinds.items()]


def _generator_part(path: Path, content: Mapping) -> _Part:
    try:
        state = generator_state(content, str(path))
    except WeightsError:
        return _Part("", path, {}, Message("detail.found_dictionary", keys=_some(content)))
    channels = {
        value.shape[1]
        for key, value in state.items()
        if str(key).startswith("to_rgb") and str(key).endswith(".bias") and value.ndim == 4
    }
    kind = "".join(kind for kind, (_, image) in CHANNELS.items() if channels == {image})
    if not channels:
        return _Part(kind, path, state, Message("detail.found_tensors", keys=_some(state)))
    return _Part(kind, path, state, Message("detail.found_generator", channels=_some(sorted(channels))))


def _built(part: _Part) -> ConditionalGenerator | DetailLayout | DisplacementRegressor:
    if part.kind == "regressor":
        return regressor_from_state(part.content, str(part.path))
    if part.kind != "layout":
        return built(part.content, str(part.path))
    if part.metadata.get("format") != FORMAT:
        return detail_layout(part.content, str(part.path))
    numbers = {key: value.float() if value.is_floating_point() else value for key, value in part.content.items()}
    raw = {_LAYOUT_KEYS.get(key, key): value.numpy() for key, value in numbers.items()}
    measured = {"side": "uvmask", "keypoint_count": "keypoints"}
    lengths = {name: len(raw[key]) for name, key in measured.items() if key in raw and raw[key].ndim}
    return detail_layout(raw, str(part.path), **lengths)


def _code(parts: Iterable[_Part]) -> DisplacementCode | None:
    """The code of an open module, which all its parts must share; None for official parts."""
    texts = {part.metadata["code"] if "code" in part.metadata else "" for part in parts if part.kind != "layout"}
    if texts <= {""}:
        return None
    if len(texts) > 1:
        listed = ", ".join(str(part.path) for part in parts)
        raise WeightsError("detail.parts_differ", paths=listed)
    try:
        stored: dict[str, Any] = parse_json(texts.pop())
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()}
        return DisplacementCode(**values)
    except (ValueError, TypeError, AttributeError) as error:
        path = next(iter(parts)).path
        raise WeightsError("file.metadata_damaged", path=path, key="code", reason=reason_of(error)) from error


def _origin(parts: Mapping[str, _Part]) -> tuple[str, dict]:
    """Name and info of a module: the stored ones if all parts come from files of `save_detail` with the same name."""
    first = next(iter(parts.values()))
    names = {part.metadata.get("name", part.path.stem) for part in parts.values()}
    if len(names) > 1 or not all("info" in part.metadata for part in parts.values()):
        return first.path.stem, {"files": {kind: part.path.name for kind, part in parts.items()}}
    stored = [_info(part) for part in parts.values()]
    return names.pop(), {key: value for info in stored for key, value in info.items()}


def _info(part: _Part) -> dict:
    try:
        info = parse_json(part.metadata["info"])
    except ValueError:
        info = None
    if not isinstance(info, dict):
        raise WeightsError("file.metadata_kind", path=part.path, key="info", kind="dict")
    return info


def _some(names: Iterable[object]) -> str:
    texts = [str(name) for name in names]
    return (", ".join(texts[:5]) + (" ..." if len(texts) > 5 else "")) or "nothing"


# -- writing ----------------------------------------------------------------------------------------------------------
def save_detail(module: DetailModule, path: str | os.PathLike, *, compact: bool = False) -> Path:
    """Write all parts to one .safetensors file, losslessly and atomically.

    Args:
        compact: convert to float16 and leave out the generators' stored noise (loading draws it from a fixed seed), for
            generators that always receive their noise.
    Raises:
        ParameterError: the module is empty.
        WeightsError: another suffix, or the folder cannot be written.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise WeightsError("detail.file_suffix", name=path.name)
    tensors: dict[str, torch.Tensor] = {}
    networks = {kind: getattr(module, kind) for kind in CHANNELS} | {STORED_REGRESSOR: module.regressor}
    for kind, network in networks.items():
        if network is not None:
            state = network.state_dict()
            if compact:
                state = {key: value.half() for key, value in state.items() if not key.startswith("noises.")}
            tensors |= {f"{kind}.{key}": value.contiguous() for key, value in state.items()}
    if module.layout is not None:
        arrays = {key: np.ascontiguousarray(getattr(module.layout, key)) for key in _LAYOUT_KEYS}
        tensors |= {f"layout.{key}": torch.from_numpy(value) for key, value in arrays.items()}
    if not tensors:
        raise ParameterError("detail.nothing_to_save")
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": module.name,
        "info": json.dumps(module.info),
    }
    if module.code is not None:
        metadata["code"] = json.dumps(asdict(module.code))
    return write_atomically(path, save(tensors, metadata), WeightsError)
