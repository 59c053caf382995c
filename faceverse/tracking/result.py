"""Tracks: the result of tracking, its retargeting and its files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ..errors import ParameterError
from ..fitting.state import PER_IMAGE
from ..formats.export import ExportFormat
from ..graphics.camera import Camera, euler_deg_from_rotation
from ..io.files import write_atomically
from ..messages import entries_of
from ..model.face_model import FaceModel, FaceParams
from ..parts.beard import beard_entry
from ..parts.hair import hair_entry
from ..result import FitResult, head_from_params, with_params
from .retarget import estimate_neutral_weights, matching_columns, retarget_weights, subtract_neutral_weights


@dataclass(frozen=True)
class Track:
    """Pose, expression and light of one face over time: T frames, E weights. Arrays are NumPy float32 unless noted.

    Args:
        model: the face model that all parameters belong to.
        identity: the person; its pose, expression and light are those of the first frame with a face.
        camera: of the video, the same for all frames.
        times_s: (T,) float64 seconds, increasing.
        rotation: (T, 3, 3) head to camera; translation: (T, 3) metres.
        expression: (T, E) in 0..1 (or `FaceModel.expression_limits`), columns as in `expression_names`.
        light: (T, 9, 3) spherical harmonics, relative to the identity's albedo.
        confidence: (T,) 0..1, decreases with the landmark error; 0 without a face. Such a frame is interpolated in
            short gaps; else it repeats the last frame with a face, or the first one before that.
        expression_names: E names, ARKit's in the open model.
        subject: the head that `identity` was taken from, if it has a texture; not stored in files.
        warnings: in words.
    """

    model: FaceModel
    identity: FaceParams
    camera: Camera
    times_s: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    expression: np.ndarray
    light: np.ndarray
    confidence: np.ndarray
    expression_names: tuple[str, ...]
    subject: FitResult | None = None
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.times_s)

    def __repr__(self) -> str:
        count = np.count_nonzero(self.confidence)
        return f"Track({len(self)} frames, {count} with a face, {self.times_s[-1] - self.times_s[0]:.2f} s)"

    def params(self, index: int) -> FaceParams:
        """Parameters of one frame; negative indices count from the end.

        Raises:
            ParameterError: there is no such frame.
        """
        if not -len(self) <= index < len(self):
            raise ParameterError("track.index", last=len(self) - 1, index=index)
        return self.identity.replace(**{name: getattr(self, name)[index].copy() for name in PER_IMAGE})

    def result(self, index: int) -> FitResult:
        """The head of one frame, to render, edit or export, in the frame's pose, expression and light.

        Texture and displacement are those of `subject` and independent of the expression; without a subject the texture
        shows the model's albedo.

        Raises:
            ParameterError: there is no such frame.
        """
        return with_params(self._head, self.params(index))

    @cached_property
    def _head(self) -> FitResult:
        """The head that all frames share: its texture is large, and baked once."""
        if self.subject is None:
            return head_from_params(self.model, self.identity, self.camera)
        return self.subject.replace(
            model=self.model,
            camera=self.camera,
            landmarks_px=None,
            projected_landmarks_px=None,
            stages=(),
            views=(),
            blendshape_scores={},
        )

    def apply_to(
        self,
        result: FitResult | FaceParams,
        *,
        pose: bool = True,
        light: bool = False,
        neutral: int | str | None = None,
    ) -> Track:
        """Retarget the motion to another head, of this model or of another one, by the names of the weights.

        Args:
            result: the other person: a head, whose texture is kept, or parameters of this model.
            pose: use the pose and camera of this track; False keeps the pose of `result`.
            light: use the light of this track, not that of `result`.
            neutral: the neutral face of this track's person, to be subtracted from the weights: a frame's index, or
                "auto", the tenth percentile of each weight. The rest of each weight's range is stretched, so that eyes
                still close.
        Returns:
            A track; its `warnings` name expressions that the other model does not have.
        Raises:
            ParameterError: no common expression, parameters of another model, no such frame.
        """
        subject = result if isinstance(result, FitResult) else None
        if isinstance(result, FitResult):
            model, params = result.model, result.params
        elif isinstance(result, FaceParams):
            model, params = self.model, result
        else:
            raise ParameterError("track.target_type", type=type(result).__name__)
        check_person(params, model)
        weights, limits = self.expression, self.model.expression_limits
        if neutral is not None:
            weights = subtract_neutral_weights(weights, self._neutral_weights(neutral), limits)
        columns = matching_columns(self.expression_names, model.expression_names)
        expression, warnings = retarget_weights(weights, self.expression_names, model, columns)
        count = len(self)
        motion = {"expression": expression, "light": self.light if light else _repeated(params.light, count)}
        if not pose:
            motion |= {key: _repeated(getattr(params, key), count) for key in ("rotation", "translation")}
        motion = {"rotation": self.rotation, "translation": self.translation} | motion
        return Track(
            model=model,
            identity=params.replace(**{key: values[0].copy() for key, values in motion.items()}),
            camera=self.camera if pose or subject is None else subject.camera,
            times_s=self.times_s,
            confidence=self.confidence,
            expression_names=model.expression_names,
            subject=subject,
            warnings=self.warnings + warnings,
            **motion,
        )

    def _neutral_weights(self, neutral: int | str) -> np.ndarray:
        """(E,) weights of the neutral face."""
        if neutral == "auto":
            has_face = self.confidence > 0
            weights = self.expression[has_face] if has_face.any() else self.expression
            return estimate_neutral_weights(weights, self.model.expression_limits)
        if isinstance(neutral, bool) or not isinstance(neutral, (int, np.integer)):
            raise ParameterError("track.neutral", neutral=repr(neutral))
        return self.params(neutral).expression

    @cached_property
    def gaze(self) -> np.ndarray:
        """(T, 2) float32 degrees in the head: yaw to the subject's left, pitch up; the mean of both eyes."""
        return gaze_deg(self.expression, self.expression_names)

    def euler_deg(self) -> np.ndarray:
        """(T, 3) yaw, pitch, roll in degrees, see `camera.rotation_from_euler_deg`."""
        return np.array([euler_deg_from_rotation(torch.from_numpy(r)) for r in self.rotation])

    def save(self, path: str | os.PathLike) -> Path:
        """Write the track to a file, atomically.

        Args:
            path: .csv (a row per frame: time, confidence, yaw, pitch, roll, translation, weights by name), .json (the
                same with identity, camera and light) or .npz (all arrays by the names of this class). `load_track`
                reads all of them; none holds texture and displacement of the subject.
        Raises:
            ParameterError: another suffix, or the file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        known = OWN_FORMATS.get(suffix.removeprefix("."))
        if known is None:
            suffixes = " ".join(f".{name}" for name in OWN_FORMATS)
            raise ParameterError("file.write_suffix", name=path.name, suffixes=suffixes)
        ((_, content),) = known.content(self, path, "").items()
        return write_atomically(path, content, ParameterError)


def gaze_deg(expression: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Gaze (T, 2) float32 degrees from weights (T, E): yaw to the subject's left, pitch up; 0 for models without gaze.

    At weight 1 the open model's eyes turn by GAZE_DEG.
    """
    columns = {name: expression[:, k] for k, name in enumerate(names) if name.startswith("eyeLook")}
    none = np.zeros(len(expression), np.float32)

    def both(*signed: tuple[float, str]) -> np.ndarray:
        return np.asarray(sum(sign * columns.get(f"eyeLook{name}", none) for sign, name in signed)) / 2

    across, up, down = GAZE_DEG
    yaw = across * both((1, "OutLeft"), (-1, "InLeft"), (1, "InRight"), (-1, "OutRight"))
    pitch = up * both((1, "UpLeft"), (1, "UpRight")) - down * both((1, "DownLeft"), (1, "DownRight"))
    return np.stack([yaw, pitch], axis=1).astype(np.float32)


GAZE_DEG = (25.0, 20.0, 25.0)  # to either side, up, down


def check_person(params: FaceParams, model: FaceModel) -> None:
    """Check the number of coefficients.

    Raises:
        ParameterError: identity or albedo does not fit the model.
    """
    neutral = model.neutral()
    for name in ("identity", "albedo"):
        given, expected = np.shape(getattr(params, name)), getattr(neutral, name).shape
        if given != expected:
            raise ParameterError("track.identity_shape", name=name, shape=given, model=model.name, expected=expected)


def _repeated(values: np.ndarray, count: int) -> np.ndarray:
    return np.repeat(np.asarray(values, dtype=np.float32)[None], count, axis=0)


# -- files: `load_track` reads them ------------------------------------------------------------------------------------
def _csv(track: Track) -> Iterator[bytes]:
    head = io.StringIO(newline="")
    csv.writer(head, lineterminator="\n").writerow([*CSV_COLUMNS, *track.expression_names])
    yield head.getvalue().encode()
    for chunk in _chunks(len(track)):
        angles = np.array([euler_deg_from_rotation(torch.from_numpy(r)) for r in track.rotation[chunk]])
        values = (track.confidence[chunk, None], angles, track.translation[chunk], track.expression[chunk])
        rows = np.concatenate(values, axis=1)
        line = ",".join(["%.6f", *["%.6g"] * rows.shape[1]]) + "\n"
        yield "".join(line % (t, *row) for t, row in zip(track.times_s[chunk], rows.tolist(), strict=True)).encode()


def _json(track: Track) -> Iterator[bytes]:
    document = {
        "format": FORMAT,
        "version": VERSION,
        "model": track.model.name,
        "model_sha256": track.model.info.get("sha256"),
        "camera": {
            "focal_px": track.camera.focal_px,
            "principal_point_px": list(track.camera.principal_point_px),
            "image_size": list(track.camera.image_size),
        },
        "identity": track.identity.identity.tolist(),
        "albedo": track.identity.albedo.tolist(),
        "iris": track.identity.iris.tolist(),
        "styles": dict(track.identity.styles),
        "hair": hair_entry(track.identity.hair),
        "beard": beard_entry(track.identity.beard),
        "expression_names": list(track.expression_names),
        "warnings": list(track.warnings),
        "warning_codes": entries_of(track.warnings),
    }
    yield json.dumps(document).encode().removesuffix(b"}")
    for key in PER_FRAME:
        yield f', "{key}": ['.encode()
        values = getattr(track, key)
        pattern = _pattern(values.shape[1:], "%.9g" if values.dtype == np.float32 else "%.17g")
        for chunk in _chunks(len(track)):
            rows = values[chunk].reshape(chunk.stop - chunk.start, -1).tolist()
            text = ", ".join(pattern % tuple(row) for row in rows)
            yield (", " if chunk.start else "").encode() + text.encode()
        yield b"]"
    yield b"}"


def _chunks(count: int) -> Iterator[slice]:
    """Chunks of frames: the text of an hour is large."""
    return (slice(first, min(first + _ROWS, count)) for first in range(0, count, _ROWS))


def _pattern(shape: tuple[int, ...], number: str) -> str:
    """JSON of an array of this shape, with a number's format in each place."""
    return "[" + ", ".join([_pattern(shape[1:], number)] * shape[0]) + "]" if shape else number


def _npz(track: Track) -> bytes:
    stream = io.BytesIO()
    camera = np.array([track.camera.focal_px, *track.camera.principal_point_px, *track.camera.image_size])
    np.savez_compressed(
        stream,
        format=np.array(FORMAT),
        version=np.array(VERSION),
        model=np.array(track.model.name),
        model_sha256=np.array(track.model.info.get("sha256") or ""),
        identity=track.identity.identity,
        albedo=track.identity.albedo,
        iris=track.identity.iris,
        styles=np.array(json.dumps(dict(track.identity.styles))),
        hair=np.array(json.dumps(hair_entry(track.identity.hair))),
        beard=np.array(json.dumps(beard_entry(track.identity.beard))),
        camera=camera,
        expression_names=np.array(track.expression_names),
        warnings=np.array(track.warnings, dtype=np.str_),
        warning_codes=np.array([json.dumps(entry) for entry in entries_of(track.warnings)], dtype=np.str_),
        **{key: getattr(track, key) for key in PER_FRAME},
    )
    return stream.getvalue()


def _content_by(write: Callable[[Track], bytes | Iterator[bytes]]) -> Callable:
    return lambda track, path, lod: {path: write(track)}


FORMAT, VERSION = "faceverse-track", 1
_ROWS = 1024
PER_FRAME = ("times_s", "confidence", *PER_IMAGE)
CSV_COLUMNS = ("time_s", "confidence", "yaw_deg", "pitch_deg", "roll_deg", "x_m", "y_m", "z_m")
OWN_FORMATS: dict[str, ExportFormat] = {
    name: ExportFormat(name.upper(), text, _content_by(write), levels_of_detail=())
    for name, text, write in (
        ("csv", "a row per frame: time, confidence, pose, expression weights", _csv),
        ("json", "the same with identity, camera and light", _json),
        ("npz", "all arrays, for NumPy", _npz),
    )
}
"""Formats of `Track.save` by suffix; `load_track` reads them."""
