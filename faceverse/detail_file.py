"""Files of detail modules: finding out what each file holds, and one .safetensors file for all of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from .detail import CHANNELS, DetailLayout, DetailModule
from .errors import ParameterError, WeightsError
from .files import write_whole
from .official.generators import built, detail_layout, generator_state, read_tensors, split_by_kind
from .pickles import read_checkpoint, read_npy
from .stylegan import ConditionalGenerator

FORMAT, FORMAT_VERSION = "faceverse-detail", "1"

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
    """A part that was found and not yet built: one of "detail", "expression", "layout"; "" is anything else."""

    kind: str
    path: Path
    content: Mapping
    what: str = ""  # in words, for messages
    metadata: Mapping[str, str] = field(default_factory=dict)


# -- reading ----------------------------------------------------------------------------------------------------------
def load_detail(*sources: str | os.PathLike) -> DetailModule:
    """The generators and the mesh for detail that a linear model cannot express.

        fv.load_detail("faceverse_ckpt_detail_v1_124000.pt", "faceverse_detail_v1.npy")

    Args:
        sources: official checkpoints and `faceverse_detail_v*.npy`, files of `save_detail`, or folders, of which all
            files are taken that are parts of a detail module. What a file is, its content says: a generator of 6 image
            channels refines albedo and geometry, one of 3 the expression. No code in a file is run.
    Returns:
        The module, with None for parts that no source has; the generators' weights are frozen.
    Raises:
        WeightsError: no such file, a damaged one, one that holds nothing of a detail module, two of one kind, parts
            that do not fit together, or no source at all: no open detail weights exist yet.
    """
    if not sources or "open" in sources:
        raise WeightsError(
            "no open detail weights ship with faceverse yet: pass the official checkpoints (.pt) and "
            "faceverse_detail_v*.npy, a folder with them, or a .safetensors file written by save_detail"
        )
    parts: dict[str, _Part] = {}
    for part in (part for source in sources for part in _recognised(source)):
        if part.kind in parts:
            paths = f"{parts[part.kind].path} and {part.path}"
            raise WeightsError(f"two parts of one kind, {part.kind}: {paths}; pass the files to use, one of each kind")
        parts[part.kind] = part
    name, info = _origin(parts)
    built_parts = {kind: _built(part) for kind, part in parts.items()}
    try:
        return DetailModule(**built_parts, name=name, info=info)
    except ParameterError as error:
        raise WeightsError(f"{', '.join(str(part.path) for part in parts.values())}: {error}") from error


def _recognised(source: str | os.PathLike) -> list[_Part]:
    """The parts in a file or folder, at least one."""
    if not isinstance(source, str | os.PathLike):
        raise ParameterError(f"sources are paths of files or folders, got {type(source).__name__}")
    path, files = Path(source).expanduser(), []
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    elif path.suffix.lower() in _SUFFIXES:
        files = [path]
    found = [part for file in files for part in _parts(file)]
    if recognised := [part for part in found if part.kind]:
        return recognised
    listed = "; ".join(f"{part.path.name}: {part.what}" for part in found[:8])
    raise WeightsError(
        f"{path} holds no part of a detail module, which are a generator with 6 or 3 image channels and the dictionary "
        f"of a layout ({', '.join(_SUFFIXES)}). Found: {listed or 'no such file'}"
    )


def _parts(path: Path) -> list[_Part]:
    """What is in a file; the suffix says how to read it, the content what it is."""
    if path.suffix.lower() == ".npy":
        content = read_npy(path)
        if not isinstance(content, dict):
            return [_Part("", path, {}, f"an array of shape {content.shape}")]
        return [_Part("layout" if "uvmask" in content else "", path, content, f"a dictionary with {_some(content)}")]
    if path.suffix.lower() != ".safetensors":
        return [_generator_part(path, read_checkpoint(path))]
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        return [_generator_part(path, tensors)]
    if metadata.get("format_version") != FORMAT_VERSION:
        raise WeightsError(
            f"{path} has format version {metadata.get('format_version')!r}, this edition reads version "
            f"{FORMAT_VERSION}: install the edition of faceverse that the file was made for"
        )
    kinds = split_by_kind(tensors)
    if strange := set(kinds) - {*CHANNELS, "layout"}:
        raise WeightsError(f"{path} holds parts that a detail module does not have: {_some(sorted(strange))}")
    return [_Part(kind, path, content, metadata=metadata) for kind, content in kinds.items()]


def _generator_part(path: Path, content: Mapping) -> _Part:
    try:
        state = generator_state(content, str(path))
    except WeightsError:
        return _Part("", path, {}, f"a dictionary with {_some(content)}")
    channels = {
        value.shape[1]
        for key, value in state.items()
        if str(key).startswith("to_rgb") and str(key).endswith(".bias") and value.ndim == 4
    }
    kind = "".join(kind for kind, (_, image) in CHANNELS.items() if channels == {image})
    made = f"a generator with {_some(sorted(channels))} image channels" if channels else f"tensors {_some(state)}"
    return _Part(kind, path, state, made)


def _built(part: _Part) -> ConditionalGenerator | DetailLayout:
    if part.kind != "layout":
        return built(part.content, str(part.path))
    if part.metadata.get("format") != FORMAT:
        return detail_layout(part.content, str(part.path))
    numbers = {key: value.float() if value.is_floating_point() else value for key, value in part.content.items()}
    raw = {_LAYOUT_KEYS.get(key, key): value.numpy() for key, value in numbers.items()}
    lengths = {"side": "uvmask", "keypoint_count": "keypoints"}
    lengths = {name: len(raw[key]) for name, key in lengths.items() if key in raw and raw[key].ndim}
    return detail_layout(raw, str(part.path), **lengths)


def _origin(parts: Mapping[str, _Part]) -> tuple[str, dict]:
    """Name and info of a module: the stored ones where it comes from one file of `save_detail`."""
    first = next(iter(parts.values()))
    if len({part.path for part in parts.values()}) > 1 or "info" not in first.metadata:
        return first.path.stem, {"files": {kind: part.path.name for kind, part in parts.items()}}
    try:
        info = json.loads(first.metadata["info"])
    except ValueError:
        info = None
    if not isinstance(info, dict):
        raise WeightsError(f"{first.path}: its metadata entry info is not a JSON dictionary")
    return first.metadata.get("name", first.path.stem), info


def _some(names: Iterable[object]) -> str:
    names = [str(name) for name in names]
    return (", ".join(names[:5]) + (" ..." if len(names) > 5 else "")) or "nothing"


# -- writing ----------------------------------------------------------------------------------------------------------
def save_detail(module: DetailModule, path: str | os.PathLike) -> Path:
    """Write all parts to one .safetensors file, number for number; it appears complete or not at all.

    Raises:
        ParameterError: the module is empty.
        WeightsError: another suffix, or the folder cannot be written.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise WeightsError(f"a detail module is written to a .safetensors file, not to {path.name}")
    tensors = {}
    for kind in CHANNELS:
        generator = getattr(module, kind)
        if generator is not None:
            tensors |= {f"{kind}.{key}": value.contiguous() for key, value in generator.state_dict().items()}
    if module.layout is not None:
        arrays = {key: np.ascontiguousarray(getattr(module.layout, key)) for key in _LAYOUT_KEYS}
        tensors |= {f"layout.{key}": torch.from_numpy(value) for key, value in arrays.items()}
    if not tensors:
        raise ParameterError("this detail module has no parts: there is nothing to save")
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": module.name,
        "info": json.dumps(module.info),
    }
    return write_whole(path, save(tensors, metadata), WeightsError)
