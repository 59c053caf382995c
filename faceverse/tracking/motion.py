"""A track as an animated model file for other programs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import ParameterError
from ..formats.export import coarse_head, export, glb_bytes
from ..formats.gltf import GltfAnimation, GltfCamera
from ..io.files import write_atomically
from .result import Track

_OWN_FILES = (".csv", ".json", ".npz")


@export.register(Track)
def export_track(track: Track, path: str | os.PathLike, *, mesh: str = "light") -> Path:
    """Write a track to a file whose suffix says what it holds.

    The animation's time 0 is the track's first frame. Its keys are the frames with a face; viewers fill the gaps
    between them evenly. The axes are those of the video's camera (+x right, +y up, +z towards it), the origin is where
    the head is in the first key, and a camera node stands where the video's camera stood, with its field of view.

    Args:
        path: in a folder that exists; an older file of that name is replaced.
            .glb: the head with its texture, all expressions as morph targets, and one animation of their weights and
            of the head's rotation and translation. .csv, .json, .npz: as `Track.save` writes them.
        mesh: of the .glb: "light", the model's coarse one, which players draw fast, or "full".
    Returns:
        `path` as a Path.
    Raises:
        ParameterError: another suffix or mesh, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in _OWN_FILES:
        return track.save(path)
    if suffix != ".glb":
        raise ParameterError(
            f"cannot write {path.name}: the name of a track's file must end in one of .glb {' '.join(_OWN_FILES)}; "
            f"for one frame in another format, export track.result(index)"
        )
    if mesh not in ("light", "full"):
        raise ParameterError(f"mesh must be 'light' or 'full', got {mesh!r}")
    keys = _keys(track)
    head = track.result(int(keys[0]))
    head = coarse_head(head) if mesh == "light" else head
    animation = _animation(track, keys, path.stem)
    return write_atomically(path, glb_bytes(head, animation, _camera(track, keys)), ParameterError)


def _keys(track: Track) -> np.ndarray:
    """Frames that show a face, at times that differ as float32 too; all of them where none does."""
    seen = np.flatnonzero(track.confidence > 0)
    keys = seen if len(seen) else np.arange(len(track))
    times = (track.times_s[keys] - track.times_s[0]).astype(np.float32)
    return keys[np.concatenate([[True], np.diff(times) > 0])]


def _animation(track: Track, keys: np.ndarray, name: str) -> GltfAnimation:
    quaternions = Rotation.from_matrix(track.rotation[keys].astype(np.float64)).as_quat()
    # Either sign is the same rotation, but a player that mixes neighbours of opposite signs turns the long way round.
    flips = np.cumprod(np.where((quaternions[1:] * quaternions[:-1]).sum(1) < 0, -1, 1))
    quaternions[1:] *= flips[:, None]
    return GltfAnimation(
        name=name,
        times_s=(track.times_s[keys] - track.times_s[0]).astype(np.float32),
        weights=track.expression[keys],
        rotation=quaternions.astype(np.float32),
        translation=track.translation[keys] - track.translation[keys[0]],
    )


def _camera(track: Track, keys: np.ndarray) -> GltfCamera:
    height, width = track.camera.image_size
    return GltfCamera(
        position=-track.translation[keys[0]],
        yfov=2 * np.arctan2(height / 2, track.camera.focal_px),
        aspect=width / height,
    )
