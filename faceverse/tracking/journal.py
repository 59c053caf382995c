"""Solved frames on their way into a track: in memory, a few hundred bytes each, and as a file that survives a stop.

A journal is a line of JSON, which says what is tracked and who was found, and one record of fixed size for each frame.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ParameterError
from ..graphics.camera import Camera
from ..io.files import write_atomically
from ..messages import Message, entries_of, reason_of, with_codes
from ..model.face_model import FaceModel
from .frame_solver import SolvedFrame
from .person import PersonBias, TrackedPerson

MAGIC, JOURNAL_SUFFIX = "faceverse-journal", ".fvtrack"
VERSION = 2
_PIECE = 1024  # records
_FLUSH_FRAMES = 30  # records that a stop may lose
_PERSON = ("identity", "albedo", "iris")


def record_type(expressions: int) -> np.dtype:
    """A frame's record; the pose is single precision, as in a track."""
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


class Record:
    """The frames so far, in pieces, so that none is ever copied; one without a face keeps zeros and confidence 0."""

    def __init__(self, expressions: int):
        self._kind, self._pieces, self._count = record_type(expressions), [], 0

    def __len__(self) -> int:
        return self._count

    def add(self, state: SolvedFrame) -> np.void:
        """One more frame; its record."""
        place = self._count % _PIECE
        if place == 0:
            self._pieces.append(np.zeros(_PIECE, self._kind))
        row = self._pieces[-1][place]
        row["seconds"], row["confidence"] = state.seconds, state.confidence
        if state.pose is not None:
            row["rotation"], row["translation"] = state.pose.rotation, state.pose.translation
            row["expression"], row["light"] = state.pose.expression, state.light
        self._count += 1
        return row

    def extend(self, frames: np.ndarray) -> None:
        """Frames of an earlier run, before any is added."""
        whole = np.zeros(-(-len(frames) // _PIECE) * _PIECE, self._kind)
        whole[: len(frames)] = frames
        self._pieces, self._count = np.split(whole, len(whole) // _PIECE) if len(frames) else [], len(frames)

    def widen(self, factor: float) -> None:
        """The same heads as another focal length shows them: `factor` times as far away."""
        for piece in self._pieces:
            piece["translation"][:, 2] *= factor

    @property
    def frames(self) -> np.ndarray:
        """(T,) records."""
        return np.concatenate([*self._pieces, np.zeros(0, self._kind)])[: self._count]


@dataclass(frozen=True)
class Found:
    """What a journal holds: the line about the run, who was found, and the frames (T,)."""

    about: dict
    person: TrackedPerson
    frames: np.ndarray


class Journal:
    """Writes frames to a file as they are solved.

    Args:
        path: of the file; an older one that tells of the same run is continued, any other is replaced.
        about: what the frames depend on: the source, the model, settings. JSON values.
    """

    def __init__(self, path: Path, about: dict):
        self.path, self._about, self._file, self._waiting = path, about, None, 0

    def earlier(self, model: FaceModel) -> Found | None:
        """What an earlier run with the same settings left, if there is such a file."""
        if not self.path.is_file():
            return None
        try:
            found = read_journal(self.path, model)
        except ParameterError:
            return None
        return found if found.about == self._about else None

    def open(self, person: TrackedPerson, earlier: Found | None) -> None:
        """Begins the file, or goes on behind the whole records of an earlier run."""
        line = _line(self._about, person)
        kept = b"" if earlier is None else earlier.frames.tobytes()
        write_atomically(self.path, line + kept, ParameterError)
        try:
            self._file = open(self.path, "ab")
        except OSError as error:
            raise ParameterError("file.unwritable", path=self.path, reason=reason_of(error)) from error

    def add(self, record: np.void) -> None:
        """One more frame."""
        self._file.write(record.tobytes())
        self._waiting += 1
        if self._waiting >= _FLUSH_FRAMES:
            self._file.flush()
            self._waiting = 0

    def close(self, whole: bool) -> None:
        """The end: a journal of a track that is whole is not needed any more."""
        if self._file is not None:
            self._file.close()
            self._file = None
            if whole:
                self.path.unlink(missing_ok=True)


def _line(about: dict, person: TrackedPerson) -> bytes:
    camera = person.camera
    document = {
        "format": MAGIC,
        "version": VERSION,
        "about": about,
        "camera": [camera.focal_px, *camera.principal_point_px, *camera.image_size],
        "warnings": list(person.warnings),
        "warning_codes": entries_of(person.warnings),
        "rest": None if person.rest is None else person.rest.tolist(),
        "zero": None if person.neutral_offset is None else person.neutral_offset.tolist(),
        "habits": person.bias and {"yaw_deg": person.bias.yaw_deg.tolist(), "shift": person.bias.shift.tolist()},
        **{name: getattr(person.params, name).tolist() for name in _PERSON},
    }
    return json.dumps(document).encode() + b"\n"


def read_journal(path: str | os.PathLike, model: FaceModel) -> Found:
    """What a journal holds; a record that was cut short is left out.

    Raises:
        ParameterError: the file is missing, damaged, or of another model.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            line, body = file.readline(), file.read()
        document = json.loads(line)
        if document["format"] != MAGIC or document["version"] != VERSION:
            raise ValueError(Message("journal.kind"))
        neutral = model.neutral()
        person = {name: np.array(document[name], np.float32) for name in _PERSON}
        if any(person[name].shape != np.shape(getattr(neutral, name)) for name in _PERSON):
            raise ValueError(Message("journal.model", model=model.name))
        kind = record_type(len(model.expression_names))
        frames = np.frombuffer(body[: len(body) // kind.itemsize * kind.itemsize], kind)
        focal_px, x, y, height, width = document["camera"]
        rest, offset, bias = document["rest"], document["zero"], document["habits"]
        found = TrackedPerson(
            neutral.replace(**person),
            Camera(focal_px, (x, y), (int(height), int(width))),
            None if rest is None else np.array(rest, np.float32),
            bias and PersonBias(np.array(bias["yaw_deg"]), np.array(bias["shift"])),
            with_codes(document["warnings"], document.get("warning_codes")),
            None if offset is None else np.array(offset, np.float64),
        )
        return Found(document["about"], found, frames)
    except OSError as error:
        raise ParameterError("file.unreadable", path=path, reason=reason_of(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ParameterError("journal.unreadable", name=path.name, reason=reason_of(error)) from error


