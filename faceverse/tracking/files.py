"""Read tracks: files of `Track.save`, journals, and tables of ARKit weights from other programs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import ParameterError
from ..fitting.state import PER_IMAGE
from ..graphics.camera import Camera
from ..io.archives import read_npz
from ..io.files import read_bytes
from ..io.json_text import parse_json
from ..messages import Message, reason_of, with_codes
from ..model.face_model import FaceModel, FaceParams
from ..parts.beard import beard_of_file
from ..parts.hair import hair_of_file
from ..parts.part import styles_of_file
from ..result import FitResult
from ..weights import load_model
from .journal import JOURNAL_SUFFIX, camera_of_numbers, read_journal
from .result import CSV_COLUMNS, FORMAT, PER_FRAME, VERSION, Track, check_person
from .retarget import matching_columns, retarget_weights
from .tables import FACE_COUNT, HEAD_ANGLES, fractions_of_weights, radians_of_head, read_table
from .timeline import assemble

# Columns of Live Link Face that are neither weights nor the head's rotation; the eyes' are in the weights too.
_UNUSED = (FACE_COUNT, *(f"{side}eye{axis}" for side in ("left", "right") for axis in ("yaw", "pitch", "roll")))
_VIEW_PX = 512  # image of the default camera of a table


def load_track(
    path: str | os.PathLike, model: FaceModel | None = None, *, identity: FitResult | FaceParams | None = None
) -> Track:
    """Load a track, or make one from a table of expression weights.

    Args:
        path: .npz or .json as `Track.save` writes them: everything but texture and displacement of the subject.
            .csv as `Track.save` writes it, or as the Live Link Face app does (Timecode HH:MM:SS:FF.sss, at 60 frames
            a second unless its steps show another rate; weights such as EyeBlinkLeft; HeadYaw, HeadPitch and HeadRoll
            in radians, yaw to the subject's left and pitch upwards; a BlendShapeCount of 0 for frames without a face):
            columns are matched by name, case-insensitively; missing weights are 0, and `warnings` name unknown
            columns. Tables that a spreadsheet saved are read too: semicolons or tabs, decimal commas, UTF-16,
            percentages, degrees.
            .fvtrack: the journal of an aborted run, see `track`; without filters.
        model: the face model; by default that of `identity`, else the open one.
        identity: the person whom a .csv animates: a head, or parameters; by default the mean head. It gives what the
            table lacks: light, position, and the camera of a head. Other files have their own person; to animate
            another one, use `Track.apply_to`.
    Raises:
        ParameterError: the file is missing, damaged, of another kind or of another model; `identity` for another file
            than a .csv, or of another model.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (*_READERS, ".csv", JOURNAL_SUFFIX):
        kinds = f".csv, .json, .npz or {JOURNAL_SUFFIX}"
        raise ParameterError("trackfile.suffix", name=path.name, known=kinds)
    if identity is not None and suffix != ".csv":
        raise ParameterError("trackfile.has_person", name=path.name)
    if suffix == JOURNAL_SUFFIX:
        model = load_model() if model is None else model
        journal = read_journal(path, model)
        if not (journal.frames["confidence"] > 0).any():
            raise ParameterError("trackfile.no_face", name=path.name)
        track = assemble(model, journal.person, journal.frames, smooth=False)
        if journal.intact < len(track):
            lost = np.count_nonzero(journal.damaged)
            warning = Message("journal.damaged_frames", first=journal.intact, lost=lost, frames=len(track))
            track = replace(track, warnings=(*track.warnings, warning))
        return track
    content = read_bytes(path, ParameterError)
    try:
        if suffix == ".csv":
            return _from_table(content, model, identity, path.name)
        return _restored(_READERS[suffix](content), load_model() if model is None else model)
    except _DAMAGE as error:
        raise ParameterError("trackfile.unreadable", name=path.name, reason=reason_of(error)) from error


# -- files of `Track.save` ---------------------------------------------------------------------------------------------
def _json_document(content: bytes) -> dict:
    document = parse_json(content)
    if not isinstance(document, dict):
        raise ValueError(Message("trackfile.no_track"))
    if document.get("format") == FORMAT:
        camera = document["camera"]
        document["camera"] = [camera["focal_px"], *camera["principal_point_px"], *camera["image_size"]]
    return document


def _npz_document(content: bytes) -> dict:
    if not content.startswith(b"PK"):
        raise ValueError(Message("trackfile.no_archive"))
    document = read_npz(content)
    texts = {name: values.tolist() for name, values in document.items() if values.dtype.kind == "U"}
    for key in {"styles", "hair", "beard"} & set(texts):
        texts[key] = parse_json(texts[key])
    return {**document, **texts}


# What a document with entries of wrong kinds raises.
_DAMAGE = (KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError)
_READERS = {".json": _json_document, ".npz": _npz_document}


def _restored(document: dict, model: FaceModel) -> Track:
    if document.get("format") != FORMAT:
        raise ValueError(Message("store.format", format=FORMAT))
    if int(document["version"]) != VERSION:
        raise ValueError(Message("store.version", found=int(document["version"]), expected=VERSION))
    _check_model(document, model)
    names, neutral = tuple(document["expression_names"]), model.neutral()
    if names != model.expression_names:
        raise ValueError(Message("trackfile.expressions", model=model.name))
    count = len(document["times_s"])
    shapes = {"rotation": (3, 3), "translation": (3,), "expression": (len(names),), "light": (9, 3)}
    frames: dict[str, Any] = {key: _array(document, key, (count, *shapes.get(key, ()))) for key in PER_FRAME}
    _check_motion(frames)
    person: dict[str, Any] = {
        key: _array(document, key, np.shape(getattr(neutral, key))) for key in ("identity", "albedo", "iris")
    }
    person["styles"] = styles_of_file(document.get("styles"), model.parts)
    person["hair"] = hair_of_file(document.get("hair"))
    person["beard"] = beard_of_file(document.get("beard"))
    camera = camera_of_numbers(_array(document, "camera", (5,), np.float64).tolist())
    return Track(
        model=model,
        identity=neutral.replace(**person, **{key: frames[key][0].copy() for key in shapes}),
        camera=camera,
        expression_names=names,
        warnings=with_codes(document.get("warnings", ()), document.get("warning_codes")),
        **frames,
    )


def _check_model(document: dict, model: FaceModel) -> None:
    digest, own_digest = document.get("model_sha256"), model.info.get("sha256")
    if document["model"] != model.name or (digest and own_digest and digest != own_digest):
        theirs, ours = (f"'{name}' (sha256 {str(d)[:12]})" for name, d in
                        ((document["model"], digest), (model.name, own_digest)))  # fmt: skip
        raise ValueError(Message("trackfile.other_model", wanted=theirs, model=ours))


def _array(document: dict, key: str, shape: tuple[int, ...], dtype=np.float32) -> np.ndarray:
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
        values = np.array(document[key], dtype=np.float64 if key == "times_s" else dtype)
    if values.shape != shape:
        raise ValueError(Message("trackfile.shape", key=key, shape=values.shape, expected=shape))
    if not np.isfinite(values).all():
        raise ValueError(Message("array.not_finite", key=key))
    return values


def _check_motion(frames: dict[str, np.ndarray]) -> None:
    if not len(frames["times_s"]):
        raise ValueError(Message("trackfile.no_frames"))
    if (np.diff(frames["times_s"]) <= 0).any():
        raise ValueError(Message("trackfile.times"))
    rotation = frames["rotation"].astype(np.float64)
    square = rotation @ rotation.swapaxes(1, 2)
    if np.abs(square - np.eye(3)).max() > 1e-3 or (np.linalg.det(rotation) < 0).any():
        raise ValueError(Message("trackfile.rotations"))
    if frames["confidence"].min() < 0 or frames["confidence"].max() > 1:
        raise ValueError(Message("trackfile.confidence"))


# -- tables ------------------------------------------------------------------------------------------------------------
def _from_table(content: bytes, model: FaceModel | None, identity, name: str) -> Track:
    subject = identity if isinstance(identity, FitResult) else None
    if subject is not None:
        model, identity = model or subject.model, subject.params
    model = load_model() if model is None else model
    person = model.neutral() if identity is None else identity
    if not isinstance(person, FaceParams):
        raise ParameterError("track.identity_type", type=type(person).__name__)
    check_person(person, model)
    table = read_table(content)
    columns, warnings = dict(table.columns), list(table.warnings)
    pose = {"translation": person.translation, "rotation": person.rotation}
    confidence = table.has_face.astype(np.float64)
    if "time_s" in columns:
        times = columns.pop("time_s")
        stored = {column: columns.pop(column, None) for column in CSV_COLUMNS[1:]}
        found, *angles, x, y, z = (np.zeros(len(times)) if v is None else v for v in stored.values())
        pose = {"rotation": _rotations(*angles), "translation": np.stack([x, y, z], axis=1)}
        confidence = confidence if stored["confidence"] is None else found
    else:
        times = columns.pop("timecode")
        if any(column in columns for column in HEAD_ANGLES):
            angles, degrees = radians_of_head(columns)
            warnings += degrees
            pose["rotation"] = _rotations(*np.degrees(angles))
        for column in _UNUSED:
            columns.pop(column, None)
    expression, unknown = _weights(columns, model, len(times))
    return _assembled(model, person, subject, times, pose, confidence, expression, (*warnings, *unknown))


def _assembled(
    model: FaceModel,
    person: FaceParams,
    subject: FitResult | None,
    times: np.ndarray,
    pose: dict[str, np.ndarray],
    confidence: np.ndarray,
    expression: np.ndarray,
    warnings: tuple[str, ...],
) -> Track:
    """The track of a table; what the table lacks is the person's.

    Args:
        pose: rotation and translation, (T, ...) or the same for all frames.
    """
    frames = {
        "times_s": times,
        "confidence": confidence.astype(np.float32),
        "expression": expression,
        "light": np.broadcast_to(person.light, (len(times), 9, 3)),
        **{key: np.broadcast_to(v, (len(times), *np.shape(getattr(person, key)))) for key, v in pose.items()},
    }
    frames = {k: np.array(v, dtype=np.float64 if k == "times_s" else np.float32) for k, v in frames.items()}
    _check_motion(frames)
    first = {key: frames[key][0].copy() for key in PER_IMAGE}
    view = Camera(1.6 * _VIEW_PX, (_VIEW_PX / 2, _VIEW_PX / 2), (_VIEW_PX, _VIEW_PX))
    return Track(
        model=model,
        identity=person.replace(**first),
        camera=view if subject is None else subject.camera,
        expression_names=model.expression_names,
        subject=subject,
        warnings=warnings,
        **frames,
    )


def _rotations(yaw_deg: np.ndarray, pitch_deg: np.ndarray, roll_deg: np.ndarray) -> np.ndarray:
    """`camera.rotation_from_euler_deg` for (T,) angles -> (T, 3, 3)."""
    return Rotation.from_euler("xyz", np.stack([-pitch_deg, yaw_deg, roll_deg], axis=1), degrees=True).as_matrix()


def _weights(columns: dict[str, np.ndarray], model: FaceModel, count: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """(T, E) weights of the model, and warnings about percentages and unknown columns."""
    names = tuple(columns)
    values = np.stack([*columns.values()], axis=1) if columns else np.zeros((count, 0))
    places = matching_columns(names, model.expression_names)
    known = places >= 0
    fractions, percent = fractions_of_weights(values[:, places[known]], model.expression_limits[known, 1])
    values[:, places[known]] = fractions
    expression, unknown = retarget_weights(values, names, model, places)
    return expression, (*percent, *unknown)
