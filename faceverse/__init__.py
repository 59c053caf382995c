"""One photograph in, an editable and textured 3D head out.

    import faceverse as fv

    result = fv.fit("selfie.jpg")
    older = fv.edit(result, age=+20, expression={"mouthSmileLeft": 0.8})
    fv.export(older, "me.glb")

Arrays are NumPy, lengths are metres, axes are glTF's: `faceverse.graphics.camera` states the conventions. Errors that
users can act on derive from `FaceVerseError`.

Tables of what there is to choose from: `EXPORT_FORMATS`, `TRACK_FORMATS`, `LEVELS_OF_DETAIL`, `RENDER_MODES`,
`CLIP_MODES`, `LIGHT_PARAMETERS`, `EXPRESSION_PRESETS`, `ATTRIBUTE_REGIONS`, `EYE_COLORS`, `HAIR_STYLES`,
`HAIR_COLORS`, `BEARD_STYLES`, `SEGMENT_LABELS` and `FIT_STAGES`.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
from PIL import Image

from .detail.file import load_detail
from .edit import edit, head
from .edit_values import EYE_COLORS, attribute_limits
from .errors import FaceVerseError, ImageError, NoFaceError, ParameterError, WeightsError
from .fitting import fit
from .fitting.face_checks import choose_face
from .fitting.face_selection import FaceSelector, check_face_selector
from .fitting.progress import FIT_STAGES
from .formats.export import EXPORT_FORMATS, LEVELS_OF_DETAIL, export, load_result
from .graphics.camera import Camera
from .graphics.lighting import LIGHT_PARAMETERS
from .io.images import Photo, read_image, save_image
from .landmarks import DetectedFace, detect_faces
from .messages import Message
from .mixing import blend, random_attributes, randomize
from .model.face_model import FaceModel, FaceParams
from .model.presets import ATTRIBUTE_REGIONS, EXPRESSION_PRESETS
from .parts.beard import Beard
from .parts.beard_styles import BEARD_STYLES
from .parts.hair import Hair
from .parts.hair_choice import HAIR_COLORS
from .parts.hair_styles import HAIR_STYLES
from .parts.part import Part
from .rendering.drawing import RENDER_MODES
from .rendering.render import Rendering, overlay, overview, render, stage_pictures, turntable
from .result import FitResult, Stage
from .segmentation import LABELS as SEGMENT_LABELS
from .segmentation import Segmentation, segment_face
from .tracking import LiveTracker, Track, TrackedFrame, load_track, track
from .tracking.clips import CLIP_MODES  # this import registers tracks with `render`
from .tracking.motion import TRACK_FORMATS  # and this one with `export`
from .viewer import MeshViewer
from .weights import load_model

# `edit` is a function here although a module has the same name: importing it above, and not lazily, makes sure that the
# function wins.

__version__ = "0.1.0"

__all__ = [
    "ATTRIBUTE_REGIONS",
    "BEARD_STYLES",
    "Beard",
    "CLIP_MODES",
    "Camera",
    "DetectedFace",
    "EXPORT_FORMATS",
    "EXPRESSION_PRESETS",
    "EYE_COLORS",
    "FIT_STAGES",
    "FaceModel",
    "FaceParams",
    "FaceVerseError",
    "FitResult",
    "HAIR_COLORS",
    "HAIR_STYLES",
    "Hair",
    "ImageError",
    "LEVELS_OF_DETAIL",
    "LIGHT_PARAMETERS",
    "LiveTracker",
    "MeshViewer",
    "Message",
    "NoFaceError",
    "ParameterError",
    "Part",
    "Photo",
    "RENDER_MODES",
    "Rendering",
    "SEGMENT_LABELS",
    "Segmentation",
    "Stage",
    "TRACK_FORMATS",
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
    "segment",
    "stage_pictures",
    "track",
    "turntable",
]


def detect(source: str | os.PathLike | Image.Image | np.ndarray | Photo) -> list[DetectedFace]:
    """Detect the faces in a photograph and their 478 landmarks.

    Args:
        source: a file, a Pillow image, an array (H, W, 3) uint8 RGB, or a `Photo` from `read_image`.

    Returns:
        The faces, largest first; an empty list when there is none. Positions are in pixels of the upright photograph
        in its own size, even where `read_image` reduced it.

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


def segment(source: str | os.PathLike | Image.Image | np.ndarray | Photo, *, face: FaceSelector = 0) -> Segmentation:
    """Label the pixels around a face: hair, face, neck, clothes, accessory, beard, background.

    Args:
        source: a file, a Pillow image, an array (H, W, 3) uint8 RGB, or a `Photo` from `read_image`.
        face: which one, when there are several, as in `fit`. The other people become background.

    Returns:
        Labels of a square crop around the head; `box_px` is in pixels of the upright photograph in its own size.

    Raises:
        ImageError: the photograph cannot be read.
        NoFaceError: no face, or fewer than `face` requires.
        ParameterError: `face` selects nothing.
        WeightsError: a model of mediapipe, mediapipe itself or a system library is missing.
    """
    check_face_selector(face)
    photo = read_image(source)
    detected = detect_faces(photo.rgb)
    chosen = choose_face(photo.rgb, detected, face, photo.scale)
    others = [other for other in detected if other is not chosen]
    return segment_face(photo.rgb, chosen, others).scaled(1 / photo.scale)
