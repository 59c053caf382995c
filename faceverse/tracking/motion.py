"""Export a track: an animated .glb for other programs, or the track's own files.

`TRACK_FORMATS` is the one list of formats; `export`, the command line and the web page read it.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import ParameterError
from ..formats.export import ExportFormat, chosen_options, coarse_head, export
from ..formats.glb import glb_bytes
from ..formats.gltf_scene import GltfAnimation, GltfCamera
from ..formats.gltf_skin import continuous_rotations
from ..io.files import write_atomically
from .result import OWN_FORMATS, Track


@export.register(Track)
def export_track(
    track: Track, path: str | os.PathLike, *, lod: str = "coarse", rig: bool = False, mesh: str | None = None
) -> Path:
    """Write a track in the format that the file's suffix names.

    The animation's time 0 is the track's first frame. Its keys are the frames with a face; viewers interpolate between
    them linearly. The axes are those of the video's camera (+x right, +y up, +z towards it), the origin is where
    the head is in the first key, and a camera node stands where the video's camera stood, with its field of view.

    Args:
        path: in a folder that exists; an older file of that name is replaced.
            .glb: the head with its parts, all expressions as morph targets, and one animation of their weights and
            of the head's rotation and translation. .csv, .json, .npz: as `Track.save` writes them.
        lod: level of detail of the mesh in the .glb: "coarse", the model's coarse mesh, which players draw fast, or
            "standard", the model's own.
        rig: for a .glb: a skeleton that moves all meshes, as in `faceverse.export`. The animation turns the joints of
            neck, head and eyes and moves the neck, instead of the node of the head and the targets of the eyes.
        mesh: deprecated; "light" is lod="coarse", "full" is lod="standard".
    Returns:
        `path` as a Path.
    Raises:
        ParameterError: another suffix or level of detail, a rig for another format or a model without the expression
            `jawOpen`, or the file cannot be written.
    """
    path = Path(path)
    if mesh is not None:
        if mesh not in _MESHES:
            raise ParameterError("track.mesh", mesh=repr(mesh))
        lod = _MESHES[mesh]
        text = f"export(mesh={mesh!r}) is deprecated, use lod={lod!r}"
        warnings.warn(text, DeprecationWarning, stacklevel=3)  # past the wrapper of singledispatch
    known = TRACK_FORMATS.get(path.suffix.lower().removeprefix("."))
    if known is None:
        suffixes = " ".join(f".{name}" for name in TRACK_FORMATS)
        raise ParameterError("track.export_suffix", name=path.name, suffixes=suffixes)
    if known.levels_of_detail and lod not in known.levels_of_detail:
        raise ParameterError("track.lod", known=", ".join(known.levels_of_detail), lod=repr(lod))
    given = chosen_options(known, path, TRACK_FORMATS, {"rig": rig or None})
    for file, content in known.content(track, path, lod, **given).items():
        write_atomically(file, content, ParameterError)
    return path


def _animated_glb(track: Track, path: Path, lod: str, rig: bool = False) -> dict[Path, bytes]:
    keys = _keys(track)
    head = track.result(int(keys[0]))
    head = coarse_head(head) if lod == "coarse" else head
    name = path.stem.encode("utf-8", "replace").decode()  # JSON holds no bytes that are no text
    animation = _animation(track, keys, name)
    return {path: glb_bytes(head, animation, _camera(track, keys), rig=rig)}


def _keys(track: Track) -> np.ndarray:
    """Frames that show a face, at times that differ as float32 too; all of them where none does."""
    seen = np.flatnonzero(track.confidence > 0)
    keys = seen if len(seen) else np.arange(len(track))
    times = (track.times_s[keys] - track.times_s[0]).astype(np.float32)
    return keys[np.concatenate([[True], np.diff(times) > 0])]


def _animation(track: Track, keys: np.ndarray, name: str) -> GltfAnimation:
    quaternions = Rotation.from_matrix(track.rotation[keys].astype(np.float64)).as_quat()
    return GltfAnimation(
        name=name,
        times_s=(track.times_s[keys] - track.times_s[0]).astype(np.float32),
        weights=track.expression[keys],
        rotation=continuous_rotations(quaternions),
        translation=track.translation[keys] - track.translation[keys[0]],
    )


def _camera(track: Track, keys: np.ndarray) -> GltfCamera:
    height, width = track.camera.image_size
    return GltfCamera(
        position=-track.translation[keys[0]],
        yfov=2 * np.arctan2(height / 2, track.camera.focal_px),
        aspect=width / height,
    )


_MESHES = {"light": "coarse", "full": "standard"}  # values of the deprecated argument `mesh`
TRACK_FORMATS: dict[str, ExportFormat] = {
    **OWN_FORMATS,
    "glb": ExportFormat(
        "Animated GLB",
        "an animated head with its texture and all expressions as morph targets",
        _animated_glb,
        levels_of_detail=("coarse", "standard"),
        options=("rig",),
    ),
}
"""Formats of tracks by suffix: what `export` writes, and what the command line and the web page offer."""
