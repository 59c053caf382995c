"""What tracking returns, and its files."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..camera import Camera, euler_deg_from_rotation
from ..errors import ParameterError
from ..files import write_whole
from ..model import FaceModel, FaceParams


@dataclass(frozen=True)
class Track:
    """One face over time: T frames, E expression weights. Arrays are NumPy float32 unless noted.

    Args:
        model: the face model that all parameters belong to.
        identity: the person; its pose, expression and light are those of the first frame with a face.
        camera: of the video, the same for all frames.
        times_s: (T,) float64 seconds, increasing.
        rotation: (T, 3, 3) head to camera; translation: (T, 3) metres.
        expression: (T, E) in 0..1 (or `FaceModel.expression_limits`), columns as in `expression_names`.
        light: (T, 9, 3) spherical harmonics, relative to the identity's albedo.
        confidence: (T,) 0..1, falls with the distance between landmarks and model; 0 where no face was found: such a
            frame repeats the values of the last one with a face, frames before the first face those of the first.
        expression_names: E names, ARKit's in the open model.
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

    def __len__(self) -> int:
        return len(self.times_s)

    def __repr__(self) -> str:
        seen = np.count_nonzero(self.confidence)
        return f"Track({len(self)} frames, {seen} with a face, {self.times_s[-1] - self.times_s[0]:.2f} s)"

    def params(self, index: int) -> FaceParams:
        """Parameters of one frame; a negative index counts from the end.

        Raises:
            ParameterError: there is no such frame.
        """
        if not -len(self) <= index < len(self):
            raise ParameterError(f"this track has frames 0..{len(self) - 1}, got {index}")
        return self.identity.replace(
            rotation=self.rotation[index].copy(),
            translation=self.translation[index].copy(),
            expression=self.expression[index].copy(),
            light=self.light[index].copy(),
        )

    def euler_deg(self) -> np.ndarray:
        """(T, 3) yaw, pitch, roll in degrees, see `camera.rotation_from_euler_deg`."""
        return np.array([euler_deg_from_rotation(torch.from_numpy(r)) for r in self.rotation])

    def save(self, path: str | os.PathLike) -> Path:
        """Write the track; the file appears complete or not at all.

        Args:
            path: .csv (a row per frame: time, confidence, yaw, pitch, roll, translation, weights by name), .json (the
                same with identity, camera and light) or .npz (all arrays by the names of this class).
        Raises:
            ParameterError: another suffix, or the file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in _WRITERS:
            raise ParameterError(f"cannot write {path.name}: the name must end in one of {' '.join(_WRITERS)}")
        return write_whole(path, _WRITERS[suffix](self), ParameterError)


def _csv(track: Track) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_CSV_COLUMNS, *track.expression_names])
    angles = track.euler_deg()
    for i, seconds in enumerate(track.times_s):
        row = (track.confidence[i], *angles[i], *track.translation[i], *track.expression[i])
        writer.writerow([f"{seconds:.6f}", *(f"{value:.6g}" for value in row)])
    return stream.getvalue().encode()


def _json(track: Track) -> bytes:
    document = {
        "format": "faceverse-track",
        "version": 1,
        "model": track.model.name,
        "camera": {
            "focal_px": track.camera.focal_px,
            "principal_point_px": list(track.camera.principal_point_px),
            "image_size": list(track.camera.image_size),
        },
        "identity": track.identity.identity.tolist(),
        "albedo": track.identity.albedo.tolist(),
        "expression_names": list(track.expression_names),
        **{key: getattr(track, key).tolist() for key in _PER_FRAME},
    }
    return json.dumps(document).encode()


def _npz(track: Track) -> bytes:
    stream = io.BytesIO()
    camera = np.array([track.camera.focal_px, *track.camera.principal_point_px, *track.camera.image_size])
    np.savez_compressed(
        stream,
        identity=track.identity.identity,
        albedo=track.identity.albedo,
        camera=camera,
        expression_names=np.array(track.expression_names),
        **{key: getattr(track, key) for key in _PER_FRAME},
    )
    return stream.getvalue()


_PER_FRAME = ("times_s", "confidence", "rotation", "translation", "expression", "light")
_CSV_COLUMNS = ("time_s", "confidence", "yaw_deg", "pitch_deg", "roll_deg", "x_m", "y_m", "z_m")
_WRITERS = {".csv": _csv, ".json": _json, ".npz": _npz}
