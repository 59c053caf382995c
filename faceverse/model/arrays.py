"""Serialise any face model losslessly as named arrays and JSON texts, and read it back with every array validated.

Converted models are stored in this form; exports to the official layout use it for what that layout lacks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from ..errors import WeightsError
from ..messages import Message, joined, reason_of
from .correctives import pair_problems
from .data import Attribute, AttributePath, Landmarks, ModelData

BASES = ("mean_vertices", "identity_modes", "expression_modes", "mean_albedo", "albedo_modes")
TOPOLOGY = ("faces", "coarse_vertices", "coarse_faces")
_PLAIN = (*BASES, "uv", "expression_gain", "population", "expression_limits", "corrective_modes")
_INDICES = (*TOPOLOGY, "uv_faces", "coarse_uv_faces", "corrective_pairs")
_LANDMARKS = ("landmarks_478", "landmarks_68")
_REQUIRED = {*BASES, "faces", "uv", "uv_faces", "landmarks_68.triangle"}
_TEXT = ("name", "info", "expression_names", "named_expressions", "attributes")
_ATTRIBUTE_TEXT = ("name", "unit", "minimum", "maximum")
_KNOTS = ("values", "positions", "shares")  # of a path, lists of T numbers each
# Names in files, as in the first version of the format.
_STORED_NAMES = {
    "coarse_vertices": "light_vertices",
    "coarse_faces": "light_faces",
    "coarse_uv_faces": "light_uv_faces",
    "error_modes": "habits",
}
_NAMES_OF_STORED = {stored: name for name, stored in _STORED_NAMES.items()}


def _renamed(arrays: Mapping[str, np.ndarray], names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Replace the last part of the keys, except for regions and extras, which are named freely."""

    def renamed(key: str) -> str:
        group, dot, name = key.rpartition(".")
        return key if group in ("regions", "extra") else group + dot + names.get(name, name)

    return {renamed(key): values for key, values in arrays.items()}


def packed(data: ModelData) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays of a model by name ("regions.lips", "landmarks_68.sigma", "extra.point_buf"), and JSON texts by name."""
    arrays = {key: getattr(data, key) for key in (*_PLAIN, *_INDICES)}
    for key in _LANDMARKS:
        points = getattr(data, key)
        arrays |= {} if points is None else {f"{key}.{name}": value for name, value in vars(points).items()}
    arrays |= {f"regions.{name}": index for name, index in data.regions.items()}
    arrays |= {f"extra.{name}": array for name, array in data.extra.items()}
    if data.attributes:
        arrays["attributes.step"] = np.stack([a.step for a in data.attributes])
        arrays["attributes.estimator"] = np.stack([a.estimator for a in data.attributes])
        paths = [np.stack([a.path.offsets, a.path.modulated], axis=1) for a in data.attributes if a.path is not None]
        if paths:
            kept = next(a.path.kept for a in data.attributes if a.path is not None)
            arrays |= {"attributes.path": np.concatenate(paths), "attributes.path_kept": kept}
    text = {key: getattr(data, key) for key in _TEXT if key != "attributes"}
    text["attributes"] = [_described(a) for a in data.attributes]
    present = {key: np.ascontiguousarray(value) for key, value in arrays.items() if value is not None}
    return _renamed(present, _STORED_NAMES), {key: json.dumps(value) for key, value in text.items()}


def unpacked(arrays: Mapping[str, np.ndarray], text: Mapping[str, str], where: str) -> ModelData:
    """Inverse of `packed`.

    Args:
        arrays, text: as from `packed`.
        where: name of the file, for messages.

    Raises:
        WeightsError: missing, unknown or inconsistent arrays, all in one message.
    """
    arrays = _renamed(arrays, _NAMES_OF_STORED)
    known = {f.name for f in fields(Landmarks)}
    allowed = {*_PLAIN, *_INDICES, "attributes.step", "attributes.estimator"}
    allowed |= {"attributes.path", "attributes.path_kept"}
    allowed |= {f"{key}.{name}" for key in _LANDMARKS for name in known}
    missing = sorted((_REQUIRED - set(arrays)) | (set(_TEXT) - set(text)))
    unknown = sorted(key for key in arrays if key not in allowed and key.partition(".")[0] not in ("regions", "extra"))
    if missing or unknown:
        gone, added = (", ".join(keys) or Message("word.nothing") for keys in (missing, unknown))
        raise WeightsError("model.arrays_differ", path=where, missing=gone, extra=added)
    try:
        values = {key: json.loads(text[key]) for key in _TEXT}
        data = _assembled(dict(arrays), values)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError("model.damaged", path=where, reason=reason_of(error)) from error
    if problems := _problems(data):
        raise WeightsError("file.problems", path=where, problems=joined(problems))
    return data


def _assembled(arrays: dict[str, np.ndarray], text: dict) -> ModelData:
    def group(prefix: str) -> dict[str, np.ndarray]:
        return {key.partition(".")[2]: value for key, value in arrays.items() if key.startswith(f"{prefix}.")}

    values: dict[str, Any] = {key: arrays[key].astype(np.float32, copy=False) for key in _PLAIN if key in arrays}
    values |= {key: arrays[key].astype(np.int64, casting="safe", copy=False) for key in _INDICES if key in arrays}
    values |= {key: Landmarks(**stored) if (stored := group(key)) else None for key in _LANDMARKS}
    attributes: tuple[Attribute, ...] = ()
    if text["attributes"]:
        step, estimator = arrays["attributes.step"], arrays["attributes.estimator"]
        paths = arrays.get("attributes.path"), arrays.get("attributes.path_kept")
        attributes = joined_attributes(text["attributes"], step, estimator, *paths)
    if not isinstance(text["info"], dict) or not isinstance(text["expression_names"], list):
        raise ValueError(Message("model.info_kind"))
    return ModelData(
        **values,
        attributes=attributes,
        regions={name: index.astype(np.int64, casting="safe") for name, index in group("regions").items()},
        extra=group("extra"),
        name=str(text["name"]),
        info=text["info"],
        expression_names=tuple(map(str, text["expression_names"])),
        named_expressions=bool(text["named_expressions"]),
    )


# -- attributes -------------------------------------------------------------------------------------------------------
def _described(attribute: Attribute) -> dict[str, Any]:
    """What JSON holds of an attribute."""
    entry: dict[str, Any] = {key: getattr(attribute, key) for key in _ATTRIBUTE_TEXT}
    if path := attribute.path:
        entry["path"] = {key: getattr(path, key).tolist() for key in _KNOTS} | {"modulator": path.modulator}
    return entry


def joined_attributes(
    entries: Sequence[Mapping[str, Any]],
    steps: np.ndarray,
    estimators: np.ndarray,
    paths: np.ndarray | None,
    kept: np.ndarray | None,
) -> tuple[Attribute, ...]:
    """Attributes from their JSON entries and their arrays; those with a path share the rows of `paths` (T, 2, I + A)
    and have the same `kept` (2, R, I + A).

    Raises:
        ValueError, KeyError, TypeError: the entries do not belong to the arrays.
    """
    if path_length(entries) != (0 if paths is None else len(paths)) or (paths is None) != (kept is None):
        raise ValueError(Message("array.path_entry"))
    attributes, start = [], 0
    for entry, step, estimator in zip(entries, steps, estimators, strict=True):
        path = None
        if "path" in entry:
            values, positions, shares = (np.array(entry["path"][key], np.float64) for key in _KNOTS)
            assert paths is not None and kept is not None  # the length of the entries is that of the array
            offsets, modulated = np.moveaxis(paths[start : start + len(values)], 1, 0)
            path = AttributePath(values, positions, offsets, entry["path"]["modulator"], modulated, shares, kept)
            start += len(values)
        text = {key: entry[key] for key in _ATTRIBUTE_TEXT}
        attributes.append(Attribute(**text, step=step, estimator=estimator, path=path))
    return tuple(attributes)


def _is_projection(kept: np.ndarray) -> bool:
    """Whether (2, R, I + A) rows describe a projection."""
    if kept.ndim != 3 or len(kept) != 2:
        return False
    return bool(np.abs(kept[0].astype(np.float64) @ kept[1].T - np.eye(kept.shape[1])).max(initial=0) < 1e-2)


def path_length(entries: Sequence[Any]) -> int:
    """Number T of knots of all paths; entries without a valid path count as 0."""
    return sum(len(e["path"]["values"]) for e in entries if isinstance(e, Mapping) and is_path(e.get("path"), entries))


def is_path(entry: Any, entries: Sequence[Any]) -> bool:
    """Whether a JSON entry describes the path of an attribute, modulated by another one of the entries without a
    path."""
    if not isinstance(entry, Mapping) or set(entry) != {*_KNOTS, "modulator"}:
        return False
    knots = [entry[key] for key in _KNOTS]
    if not all(isinstance(k, list) and len(k) > 1 and all(isinstance(v, (int, float)) for v in k) for k in knots):
        return False
    if len({len(k) for k in knots}) > 1 or not np.isfinite(knots).all():
        return False
    straight = [e.get("name") for e in entries if isinstance(e, Mapping) and "path" not in e]
    return bool((np.diff(knots[:2]) > 0).all() and min(knots[2]) > 0) and entry["modulator"] in straight


def _problems(data: ModelData) -> list[Message]:
    """Inconsistencies between the arrays of a model, in words."""
    vertices, faces, uv = len(data.mean_vertices), len(data.faces), len(data.uv)
    identity, expression, albedo = (len(getattr(data, key)) for key in BASES if key.endswith("modes"))
    shapes = {
        "mean_vertices": (vertices, 3),
        "identity_modes": (identity, vertices, 3),
        "expression_modes": (len(data.expression_names), vertices, 3),
        "mean_albedo": (vertices, 3),
        "albedo_modes": (albedo, vertices, 3),
        "uv": (max(uv, vertices), 2),
        "expression_gain": (expression, identity),
        "expression_limits": (expression, 2),
        "population": (None, identity + albedo),
        "corrective_pairs": (None, 2),
        "corrective_modes": (0 if data.corrective_pairs is None else len(data.corrective_pairs), vertices, 3),
    }
    problems = [
        Message("array.shape", key=key, expected=shape, shape=value.shape)
        for key, shape in shapes.items()
        if (value := getattr(data, key)) is not None and not _has_shape(value, shape)
    ]
    problems += [
        Message("array.not_finite", key=key)
        for key in shapes
        if (value := getattr(data, key)) is not None and not np.isfinite(value).all()
    ]
    coarse = 0 if data.coarse_vertices is None else len(data.coarse_vertices)
    indices: dict[str, tuple[np.ndarray | None, int]] = {}
    indices |= {"faces": (data.faces, vertices), "uv_faces": (data.uv_faces, uv)}
    if coarse:
        indices |= {"coarse_vertices": (data.coarse_vertices, vertices), "coarse_faces": (data.coarse_faces, coarse)}
        indices["coarse_uv_faces"] = (data.coarse_uv_faces, uv)
    indices |= {f"regions.{name}": (index, vertices) for name, index in data.regions.items()}
    for number, points in ((478, data.landmarks_478), (68, data.landmarks_68)):
        if points is not None:
            problems += _landmark_problems(points, number)
            indices[f"landmarks_{number}.triangle"] = (points.triangle, faces)
            indices[f"landmarks_{number}.detected"] = (np.zeros(0) if points.detected is None else points.detected, 478)
    for name, (index, limit) in indices.items():
        if index is None or (index.size and not (index.min() >= 0 and index.max() < limit)):
            problems.append(Message("array.index", name=name, last=limit - 1))
    if data.corrective_pairs is not None:
        problems += pair_problems(data.corrective_pairs, expression)
        if data.corrective_modes is None:
            problems.append(Message("array.correctives"))
    if data.faces.shape != data.uv_faces.shape or data.faces.shape[1:] != (3,):
        problems.append(Message("array.faces_shape", shape=data.faces.shape, uv_shape=data.uv_faces.shape))
    count = identity + albedo
    shaped = all(a.step.shape == (count,) and a.estimator.shape == (count + 1,) for a in data.attributes)
    paths = [a.path for a in data.attributes if a.path is not None]
    if not shaped or any(p.offsets.shape != (len(p.values), count) or not _is_projection(p.kept) for p in paths):
        problems.append(Message("array.attributes", expected=count))
    return problems


def _landmark_problems(points: Landmarks, number: int) -> list[Message]:
    shapes = {"triangle": (number,), "barycentric": (number, 3), "sigma": (number,), "error_modes": (None, number, 2)}
    return [
        Message("array.landmarks_shape", key=f"landmarks_{number}.{key}", expected=shape)
        for key, shape in shapes.items()
        if (value := getattr(points, key)) is not None and not _has_shape(value, shape)
    ]


def _has_shape(value: np.ndarray, shape: tuple[int | None, ...]) -> bool:
    return value.ndim == len(shape) and all(n is None or size == n for size, n in zip(value.shape, shape))
