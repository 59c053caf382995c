"""Records of tracked frames: in memory, a few hundred bytes each, and in a journal file that outlives an aborted run.

A journal is a line of JSON with the settings and the person, followed by one record of fixed size for each frame.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ParameterError
from ..fitting.state import PER_IMAGE, FaceState
from ..graphics.camera import Camera
from ..io.files import check_writable, read_bytes, remove_files, write_atomically
from ..io.json_text import parse_json
from ..messages import Message, entries_of, reason_of, with_codes
from ..model.face_model import FaceModel, with_growth
from ..parts.beard import beard_entry, beard_of_file
from ..parts.hair import hair_entry, hair_of_file
from ..parts.part import styles_of_file
from .frame_solver import SolvedFrame
from .journal_repair import recover_frames
from .person import PersonBias, TrackedPerson

MAGIC, JOURNAL_SUFFIX = "faceverse-journal", ".fvtrack"
VERSION = 2
_CHUNK = 1024  # records
_PERSON = ("identity", "albedo", "iris")
_LARGEST_SIDE_PX = 1 << 16


def record_type(expressions: int) -> np.dtype:
    """The record of a frame; single precision, as in a track."""
    return np.dtype(
        [
            ("seconds", "<f8"),
            ("confidence", "<f4"),
            ("rotation", "<f4", (3, 3)),
            ("translation", "<f4", (3,)),
            ("expression", "<f4", (expressions,)),
            ("light", "<f4", (9, 3)),
        ]
    )


def state_of_record(record: np.void) -> FaceState | None:
    """The state of a record; None without a face."""
    if not record["confidence"] > 0:
        return None
    return FaceState(**{name: record[name].astype(np.float64) for name in PER_IMAGE})


class Record:
    """The frames so far, in chunks that are never copied; those without a face hold zeros and confidence 0."""

    def __init__(self, expressions: int):
        self._dtype, self._count = record_type(expressions), 0
        self._chunks: list[np.ndarray] = []

    def __len__(self) -> int:
        return self._count

    def add(self, solved: SolvedFrame) -> np.void:
        """Append a frame, and return its record."""
        index = self._count % _CHUNK
        if index == 0:
            self._chunks.append(np.zeros(_CHUNK, self._dtype))
        record = self._chunks[-1][index]
        record["seconds"], record["confidence"] = solved.seconds, solved.confidence
        if solved.state is not None:
            for name, values in solved.state.per_image().items():
                record[name] = values
        self._count += 1
        return record

    def extend(self, frames: np.ndarray) -> None:
        """Take the frames of an earlier run; the record is still empty."""
        padded = np.zeros(-(-len(frames) // _CHUNK) * _CHUNK, self._dtype)
        padded[: len(frames)] = frames
        self._chunks, self._count = np.split(padded, len(padded) // _CHUNK) if len(frames) else [], len(frames)

    def scale_distance(self, factor: float) -> None:
        """Adapt all frames to a focal length that is `factor` times as long: heads are as much further away."""
        for chunk in self._chunks:
            chunk["translation"][:, 2] *= factor

    @property
    def frames(self) -> np.ndarray:
        """(T,) records."""
        return np.concatenate([*self._chunks, np.zeros(0, self._dtype)])[: self._count]


@dataclass(frozen=True)
class JournalContent:
    """What a journal holds.

    Args:
        settings: of the run.
        person: whom it follows.
        frames: (T,) records, see `record_type`; damaged ones have no face, and times between their neighbours'.
        damaged: (T,) bool.
        intact: number of frames before the first damage.
    """

    settings: dict
    person: TrackedPerson
    frames: np.ndarray
    damaged: np.ndarray
    intact: int


class Journal:
    """Writes frames to a file while they are tracked.

    A fault of the disk during the run does not end it: the journal stops with a warning.

    Args:
        path: of the file; an older one with the same settings is continued, any other is replaced.
        settings: what the frames depend on: source, model, options. JSON values.
    Raises:
        ParameterError: the file cannot be written.
    """

    def __init__(self, path: Path, settings: dict):
        check_writable(path, ParameterError)
        self.path, self._settings = path, settings
        self._file: FileIO | None = None
        self._has_stopped = False

    def earlier(self, model: FaceModel) -> JournalContent | None:
        """What an aborted run with the same settings left before the first damaged frame, if there is such a file."""
        if not self.path.is_file():
            return None
        try:
            content = read_journal(self.path, model)
        except ParameterError:
            return None
        if content.settings != self._settings:
            return None
        return replace(content, frames=content.frames[: content.intact], damaged=content.damaged[: content.intact])

    def open(self, person: TrackedPerson, earlier: JournalContent | None) -> None:
        """Begin the file, or continue it after the complete records of an earlier run."""
        try:
            self._write(person, b"" if earlier is None else earlier.frames.tobytes())
            self._file = open(self.path, "ab", buffering=0)  # an aborted run loses no frame
        except (OSError, ParameterError) as error:
            self._stop(error)

    def _write(self, person: TrackedPerson, frames: bytes) -> None:
        write_atomically(self.path, _header(self._settings, person) + frames, ParameterError)

    def add(self, record: np.void) -> None:
        """Append a frame."""
        if self._file is None:
            return
        content = record.tobytes()
        try:
            if self._file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:  # the reader leaves an incomplete record out
            self._stop(error)

    def _stop(self, error: OSError | ParameterError) -> None:
        self.close()
        self._has_stopped = True
        reason = reason_of(error.__cause__ or error)
        warnings.warn(Message("journal.stopped", path=self.path, reason=reason), stacklevel=2)

    def close(self) -> None:
        """Close the file, which stays."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # some file systems report a full disk only now
                self._file.close()
            self._file = None

    def finish(self, person: TrackedPerson, frames: np.ndarray, keep: bool) -> None:
        """Close the file of a complete run.

        Args:
            person, frames: the whole run; they complete a journal that stopped, if the disk has space again.
            keep: whether the file stays.
        """
        self.close()
        if not keep:
            remove_files([self.path])
        elif self._has_stopped:
            with contextlib.suppress(ParameterError):  # the warning has been given
                self._write(person, frames.tobytes())


def _header(settings: dict, person: TrackedPerson) -> bytes:
    camera = person.camera
    document = {
        "format": MAGIC,
        "version": VERSION,
        "about": settings,
        "camera": [camera.focal_px, *camera.principal_point_px, *camera.image_size],
        "warnings": list(person.warnings),
        "warning_codes": entries_of(person.warnings),
        "rest": None if person.neutral_inputs is None else person.neutral_inputs.tolist(),
        "zero": None if person.neutral_offset is None else person.neutral_offset.tolist(),
        "habits": person.bias and {"yaw_deg": person.bias.yaw_deg.tolist(), "shift": person.bias.shift.tolist()},
        "styles": dict(person.params.styles),
        "hair": hair_entry(person.params.hair),
        "beard": beard_entry(person.params.beard),
        **{name: getattr(person.params, name).tolist() for name in _PERSON},
    }
    return json.dumps(document).encode() + b"\n"


def read_journal(path: str | os.PathLike, model: FaceModel) -> JournalContent:
    """Read a journal; an incomplete last record is left out, damaged ones become frames without a face.

    Raises:
        ParameterError: the file is missing, damaged, or of another model.
    """
    path = Path(path)
    line, _, body = read_bytes(path, ParameterError).partition(b"\n")
    try:
        document = parse_json(line)
        if document["format"] != MAGIC or document["version"] != VERSION:
            raise ValueError(Message("journal.kind"))
        person = _stored_person(document, model)
        recovered = recover_frames(body, record_type(len(model.expression_names)))
        if len(recovered.frames) and recovered.damaged.all():
            raise ValueError(Message("journal.damaged"))
        return JournalContent(document["about"], person, **vars(recovered))
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise ParameterError("journal.unreadable", name=path.name, reason=reason_of(error)) from error


def _stored_person(document: dict, model: FaceModel) -> TrackedPerson:
    neutral = model.neutral()
    person = {name: _finite(document[name], name, np.float32) for name in _PERSON}
    person["identity"] = with_growth(person["identity"], model)
    if any(person[name].shape != np.shape(getattr(neutral, name)) for name in _PERSON):
        raise ValueError(Message("journal.model", model=model.name))
    inputs, offset, bias = document["rest"], document["zero"], document["habits"]
    if bias is not None:
        bias = PersonBias(_finite(bias["yaw_deg"], "habits"), _finite(bias["shift"], "habits"))
        if bias.yaw_deg.ndim != 1 or bias.shift.shape[::2] != (len(bias.yaw_deg), 2):
            raise ValueError(
                Message("trackfile.shape", key="habits", shape=bias.shift.shape, expected=(len(bias.yaw_deg), "...", 2))
            )
    if offset is not None and np.shape(offset) != (len(model.expression_names),):
        raise ValueError(Message("journal.model", model=model.name))
    return TrackedPerson(
        neutral.replace(
            **person,
            styles=styles_of_file(document.get("styles"), model.parts),
            hair=hair_of_file(document.get("hair")),
            beard=beard_of_file(document.get("beard")),
        ),
        camera_of_numbers(document["camera"]),
        None if inputs is None else _finite(inputs, "rest", np.float32),
        bias,
        with_codes(document["warnings"], document.get("warning_codes")),
        None if offset is None else _finite(offset, "zero"),
    )


def camera_of_numbers(numbers: Sequence[float]) -> Camera:
    """A camera as files hold it: focal length, principal point x and y, height and width of the image, in pixels.

    Raises:
        ValueError: other than five numbers, or no camera has them.
    """
    focal_px, x, y, height, width = _finite(numbers, "camera").tolist()
    if max(height, width) > _LARGEST_SIDE_PX:
        raise ValueError(Message("trackfile.camera", most=_LARGEST_SIDE_PX))
    try:
        return Camera(focal_px, (x, y), (int(height), int(width)))
    except ParameterError as error:
        raise ValueError(error.message) from error


def _finite(values: Any, key: str, dtype: Any = np.float64) -> np.ndarray:
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
        array = np.array(values, dtype)
    if not np.isfinite(array).all():
        raise ValueError(Message("array.not_finite", key=key))
    return array
