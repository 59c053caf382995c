"""One photograph in, an editable and textured 3D head out.

    import faceverse as fv

    result = fv.fit("selfie.jpg")
    older = fv.edit(result, age=+20, expression={"mouthSmileLeft": 0.8})
    fv.export(older, "me.glb")

Arrays are NumPy, lengths are metres, axes are glTF's: `faceverse.camera` states the conventions. All errors that are
raised on purpose derive from `FaceVerseError`.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
from PIL import Image

from .detail.file import load_detail
from .edit import edit, head
from .edit_values import attribute_limits
from .errors import FaceVerseError, ImageError, NoFaceError, ParameterError, WeightsError
from .fitting import fit
from .formats.export import export, load_result
from .graphics.camera import Camera
from .io.images import Photo, read_image, save_image
from .landmarks import DetectedFace, detect_faces
from .mixing import blend, random_attributes, randomize
from .model.face_model import FaceModel, FaceParams
from .model.presets import ATTRIBUTE_REGIONS, EXPRESSION_PRESETS
from .rendering.render import Rendering, overlay, overview, render, stage_pictures, turntable
from .result import FitResult, Stage
from .tracking import LiveTracker, Track, TrackedFrame, load_track, track
from .tracking import clips as _clips  # noqa: F401 - teaches `render` to draw tracks
from .viewer import MeshViewer
from .weights import load_model

# The names `edit`, `export` and `render` are functions here although modules have the same names: importing them above,
# and not on first use, makes sure that the functions win.

__version__ = "0.1.0"

__all__ = [
    "ATTRIBUTE_REGIONS",
    "Camera",
    "DetectedFace",
    "EXPRESSION_PRESETS",
    "FaceModel",
    "FaceParams",
    "FaceVerseError",
    "FitResult",
    "ImageError",
    "LiveTracker",
    "MeshViewer",
    "NoFaceError",
    "ParameterError",
    "Photo",
    "Rendering",
    "Stage",
    "Track",
    "TrackedFrame",
    "WeightsError",
    "__version__",
    "attribute_limits",
    "blend",
    "detect",
    "edit",
    "export",
    "fit",
    "head",
    "load_detail",
    "load_model",
    "load_result",
    "load_track",
    "overlay",
    "overview",
    "random_attributes",
    "randomize",
    "read_image",
    "render",
    "save_image",
    "stage_pictures",
    "track",
    "turntable",
]


def detect(source: str | os.PathLike | Image.Image | np.ndarray | Photo) -> list[DetectedFace]:
    """The faces in a photograph, largest first; an empty list when there is none.

    Args:
        source: a file, a Pillow image, an array (H, W, 3) uint8 RGB, or what `read_image` returned.

    Returns:
        Positions are in pixels of the upright photograph in its own size, also where `read_image` reduced it.

    Raises:
        ImageError: the photograph cannot be read.
        WeightsError: the landmark model, mediapipe or a system library is missing.
    """
    photo = read_image(source)
    return [
        replace(
            face,
            box_px=face.box_px / photo.scale,
            landmarks_px=face.landmarks_px / photo.scale,
            landmarks_depth=face.landmarks_depth / photo.scale,
        )
        for face in detect_faces(photo.rgb)
    ]
