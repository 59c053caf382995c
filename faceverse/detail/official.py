"""Load the official generators (checkpoints of versions 0, 1) and their UV layouts (`faceverse_detail_v*.npy`)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import ParameterError, WeightsError
from ..io.files import check_file, plain_path
from ..io.pickles import read_checkpoint, read_npy
from ..messages import Message, joined, reason_of
from .module import CHANNELS, DetailLayout
from .stylegan import ConditionalGenerator, generator_from_state

MAP_SIDE, KEYPOINT_COUNT, FACES_AROUND = 1024, 66, 8

_SUFFIXES = (".pt", ".pth", ".safetensors")


def load_generator(source: str | os.PathLike | Mapping) -> ConditionalGenerator:
    """Load a generator, to be called as `image, latents = generator(z, condition, noise)`.

    Its weights are frozen (`generator.requires_grad_(True)` unfreezes them), so that only z, condition and noise get
    gradients. See `ConditionalGenerator`.

    Args:
        source: a checkpoint (.pt), whose "g_ema" is used if it has one; a .safetensors file; or the dictionary of
            either.
    Raises:
        WeightsError: the file is missing or damaged, would run code, or its tensors are not those of one generator.
    """
    if isinstance(source, Mapping):
        return built(generator_state(source, "the state dict"), "the state dict")
    path = _path(source)
    if path.suffix.lower() not in _SUFFIXES:
        raise WeightsError("detail.checkpoint", suffix=_SUFFIXES[0], path=path)
    if path.suffix.lower() == ".safetensors":
        return built(_only_generator(read_tensors(path)[0], str(path)), str(path))
    return built(generator_state(read_checkpoint(path), str(path)), str(path))


def load_detail_layout(source: str | os.PathLike | Mapping) -> DetailLayout:
    """Load the UV layout of the maps from `faceverse_detail_v0.npy` or `_v1.npy`, or from such a file's dictionary.

    Raises:
        WeightsError: the file is missing or damaged, or would run code; or its arrays are missing, unknown or
            misshapen, all of them in one message.
    """
    if isinstance(source, Mapping):
        return detail_layout(source, "the dictionary")
    path = _path(source)
    content = read_npy(path)
    if not isinstance(content, dict):
        raise WeightsError("detail.layout_is_array", path=path, shape=content.shape)
    return detail_layout(content, str(path))


# -- generators -------------------------------------------------------------------------------------------------------
def generator_state(content: Mapping, name: str) -> Mapping[str, Tensor]:
    """The averaged generator of a training checkpoint, or the content itself if it is a plain state dict."""
    state = content.get("g_ema", content)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(map(str, list(content)[:8])) or Message("word.nothing")
        raise WeightsError("detail.no_generator", name=name, keys=keys)
    return state


def built(state: Mapping[str, Tensor], name: str) -> ConditionalGenerator:
    """Build the frozen generator of a state dict."""
    return generator_from_state(state, name).requires_grad_(False).eval()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a .safetensors file.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    check_file(path, WeightsError, missing="file.no_model")
    try:
        with plain_path(path, WeightsError) as name, safe_open(name, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise WeightsError("file.damaged_safetensors", path=path, reason=reason_of(error)) from error


def split_by_kind(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group tensors "detail.NAME" and so on, as `faceverse.detail.file` stores them, by the prefix before the dot."""
    kinds: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        kinds.setdefault(kind, {})[rest] = value
    return kinds


def _only_generator(tensors: Mapping[str, Tensor], name: str) -> Mapping[str, Tensor]:
    kinds = split_by_kind(tensors)
    stored = [kind for kind in CHANNELS if kind in kinds]
    if len(stored) > 1:
        raise WeightsError("detail.several_generators", name=name, kinds=" and ".join(stored))
    return kinds[stored[0]] if stored else generator_state(tensors, name)


def _path(source: str | os.PathLike) -> Path:
    if not isinstance(source, str | os.PathLike):
        raise ParameterError("detail.path_type", type=type(source).__name__)
    return Path(os.path.expanduser(source))


# -- layout -----------------------------------------------------------------------------------------------------------
def detail_layout(
    raw: Mapping, name: str, *, side: int = MAP_SIDE, keypoint_count: int = KEYPOINT_COUNT
) -> DetailLayout:
    """Validate and convert a dictionary with the official keys; `name` is for messages."""
    shapes = {
        "uv": (None, 2),
        "uvmask": (side, side),
        "tri": (None, 3),
        "point_buf": (None, FACES_AROUND),
        "keypoints": (keypoint_count,),
    }
    missing = [key for key in shapes if key not in raw]
    extra = [str(key) for key in raw if key not in shapes]
    problems = [Message("array.missing", keys=", ".join(missing))] if missing else []
    problems += [Message("array.extra", keys=", ".join(extra[:8]))] if extra else []
    arrays = {}
    for key in (key for key in shapes if key in raw):
        value = _array(raw[key])
        shape = _fitted(value, shapes[key])
        if shape is None or value.dtype.kind not in "biuf" or not np.isfinite(value).all():
            wanted = ", ".join("any" if length is None else str(length) for length in shapes[key])
            problems.append(
                Message("array.finite_numbers", key=key, expected=wanted, dtype=value.dtype, shape=value.shape)
            )
        else:
            arrays[key] = value.reshape(shape)
    problems += _index_problems(arrays)
    if problems:
        raise WeightsError("detail.layout_unfit", name=name, problems=joined(problems))
    return DetailLayout(
        uv_texels=arrays["uv"].astype(np.int64),  # the texel that contains a point, as in the original
        mask=np.ascontiguousarray(arrays["uvmask"], dtype=np.float32),
        faces=arrays["tri"].astype(np.int64),
        point_faces=arrays["point_buf"].astype(np.int64),
        keypoints=arrays["keypoints"].astype(np.int64),
    )


def _array(value: object) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:  # lists of unequal lengths
        return np.empty(0, dtype=object)


def _fitted(value: np.ndarray, shape: tuple[int | None, ...]) -> tuple[int, ...] | None:
    """The shape with its free length filled in; None if the array has another shape, axes of length 1 apart.

    Flat arrays of the right size fit as well.
    """
    known = math.prod(length for length in shape if length is not None)
    if not value.size or value.size % known:
        return None
    lengths = tuple(value.size // known if length is None else length for length in shape)
    same = [length for length in value.shape if length > 1] == [length for length in lengths if length > 1]
    fits = math.prod(lengths) == value.size and (same or value.ndim == 1)
    return lengths if fits else None


def _index_problems(arrays: Mapping[str, np.ndarray]) -> list[Message]:
    vertices, faces = (len(arrays[key]) if key in arrays else None for key in ("uv", "tri"))
    side = len(arrays["uvmask"]) if "uvmask" in arrays else None
    limits = {"uv": side, "tri": vertices, "point_buf": faces, "keypoints": vertices}
    problems = [
        Message("array.index_found", key=key, last=limit - 1, low=arrays[key].min(), high=arrays[key].max())
        for key, limit in limits.items()
        if key in arrays and limit is not None and not (arrays[key].min() >= 0 and arrays[key].max() < limit)
    ]
    problems += [
        Message("array.whole", key=key)
        for key in ("tri", "point_buf", "keypoints")
        if key in arrays and (arrays[key] % 1).any()
    ]
    if "point_buf" in arrays and vertices is not None and len(arrays["point_buf"]) != vertices:
        problems.append(Message("array.point_buf_rows", vertices=vertices, found=len(arrays["point_buf"])))
    return problems
