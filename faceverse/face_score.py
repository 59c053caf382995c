"""How much a detected face looks like an upright human face, and faces of which no landmarks are found.

MediaPipe's landmark network fits its points to anything that passed its face detector: dogs, knots in wood, a chin that
it takes for a forehead. The detector itself grades what it sees, but its one grade depends on the crop. The mean over
crops of several sizes, each turned so that the landmarks stand upright, tells people from animals, and faces from
faces that are upside down.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import WeightsError
from .mediapipe_tasks import SharedTask, import_mediapipe

LANDMARKER_FILE, LANDMARKER_VARIABLE = "face_landmarker.task", "FACEVERSE_LANDMARKER"
_DETECTOR_FILE = "face_detector.tflite"  # inside it
_INPUT_PX = 128  # of the detector
_MIN_SCORE = 0.05  # lower scores are not returned
_CROP_SCALES = (1.3, 1.6, 2.0, 3.2)  # sides of the crops over the size of the face
_GREY = (128, 128, 128)

# Landmarks 33, 263 are the outer corners of the eyes, 10 is the top of the forehead, 152 the chin.
_EYES, _FOREHEAD, _CHIN = (33, 263), 10, 152

# Photographs of people score 0.84 to 0.95, animals that pass for faces 0.60 to 0.80, people upside down 0.45 to 0.75;
# people with a mask over the mouth 0.63 to 0.83, in strong noise 0.65 to 0.90.
HUMAN_SCORE = 0.81
_SURE_SCORE = 0.89  # no mirror image is needed
# Of faces without landmarks: rendered profiles 0.50 to 0.85, pictures without people up to 0.72, none like a profile.
_GLIMPSE_SCORE, _PROFILE_SCORE = 0.75, 0.62
_MIN_GLIMPSE = 0.3  # of a detection that is worth a closer look
_PROFILE_OFFSET = 0.75  # of the nose from the middle of the eyes, in distances of the eyes; 45 degrees: 0.5


@dataclass(frozen=True)
class Glimpse:
    """A face that the detector sees without landmarks.

    Attributes:
        score: as `face_score`.
        is_profile: whether its nose lies beside both eyes.
    """

    score: float
    is_profile: bool


def face_score(rgb: np.ndarray, landmarks_px: np.ndarray) -> float:
    """Score 0..1 of a face: how sure the detector is of it, upright and at several scales.

    Args:
        rgb: (H, W, 3) uint8.
        landmarks_px: (478, 2).

    Raises:
        WeightsError: the model, mediapipe or a system library is missing.
    """
    points = np.asarray(landmarks_px, np.float64)
    across, down = points[_EYES[1]] - points[_EYES[0]], points[_CHIN] - points[_FOREHEAD]
    # The two axes of a face in the picture are at right angles; their mean is less noisy than one of them.
    right = across / max(np.linalg.norm(across), 1e-9) + np.array([down[1], -down[0]]) / max(np.linalg.norm(down), 1e-9)
    return _mean_score(rgb, points, np.arctan2(right[1], right[0]))


def glimpse_face(rgb: np.ndarray) -> Glimpse | None:
    """The surest face that the detector sees in a picture (H, W, 3) uint8, if it may be one.

    Raises:
        WeightsError: the model, mediapipe or a system library is missing.
    """
    found = [*_glimpses(rgb), *_glimpses(np.ascontiguousarray(rgb[:, ::-1]))]  # profiles are seen better on one side
    best = max(found, key=lambda glimpse: glimpse.score, default=None)
    return best if best and best.score >= (_PROFILE_SCORE if best.is_profile else _GLIMPSE_SCORE) else None


def _glimpses(rgb: np.ndarray) -> list[Glimpse]:
    side = max(rgb.shape[:2])
    middle = np.array(rgb.shape[1::-1]) / 2
    window = upright_crop(rgb, middle, side, 0.0, 4 * _INPUT_PX)
    corner, scale = middle - side / 2, side / len(window)
    found = []
    for detection in _detector(window).detections:
        if detection.categories[0].score < _MIN_GLIMPSE:
            continue
        right, left, nose = (point.x for point in detection.keypoints[:3])
        is_profile = abs(nose - (right + left) / 2) > _PROFILE_OFFSET * abs(left - right)
        box = detection.bounding_box
        edges = np.array([[box.origin_x, box.origin_y], [box.origin_x + box.width, box.origin_y + box.height]])
        found.append(Glimpse(_mean_score(rgb, corner + edges * scale, 0.0), is_profile))
    return found


def _mean_score(rgb: np.ndarray, points: np.ndarray, roll: float) -> float:
    """Mean of the detector's scores on crops around points (N, 2), turned by `roll` radians."""
    axes = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    face_px = float(np.ptp(points @ axes.T, axis=0).max())
    largest = _CROP_SCALES[-1]
    whole = upright_crop(rgb, centre, largest * face_px, roll, 4 * _INPUT_PX)
    crops = [_middle(whole, scale / largest) for scale in _CROP_SCALES]
    score = float(np.mean([_best_score(crop) for crop in crops]))
    if score > _SURE_SCORE:
        return score
    return (score + float(np.mean([_best_score(np.fliplr(crop)) for crop in crops]))) / 2


def _best_score(crop: np.ndarray) -> float:
    return max((float(found.categories[0].score) for found in _detector(crop).detections), default=0.0)


def _middle(crop: np.ndarray, share: float) -> np.ndarray:
    """The middle of a square picture, `share` of its side wide, in the detector's size."""
    import cv2

    border = round(len(crop) * (1 - share) / 2)
    inner = crop[border : len(crop) - border, border : len(crop) - border]
    return cv2.resize(inner, (_INPUT_PX, _INPUT_PX), interpolation=cv2.INTER_AREA)


def upright_crop(rgb: np.ndarray, centre: np.ndarray, side: float, roll: float, size: int) -> np.ndarray:
    """A square crop (size, size, 3) around a point, turned by `roll` radians; grey outside the picture."""
    import cv2

    step = side / size
    axes = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]]) * step
    # Only what the crop covers is filtered, because photographs are large.
    reach = side * (abs(np.cos(roll)) + abs(np.sin(roll))) / 2 + 2
    low = np.clip(np.floor(centre - reach), 0, [rgb.shape[1] - 1, rgb.shape[0] - 1]).astype(int)
    high = np.clip(np.ceil(centre + reach), low + 1, [rgb.shape[1], rgb.shape[0]]).astype(int)
    part = np.ascontiguousarray(rgb[low[1] : high[1], low[0] : high[0]])
    shrink = np.ones(2)
    if step > 1:  # an area filter first avoids aliasing
        reduced = np.maximum(1, np.round((high - low) / step)).astype(int)
        part = cv2.resize(part, tuple(int(v) for v in reduced), interpolation=cv2.INTER_AREA)
        shrink = reduced / (high - low)
    start = (centre - low - axes @ np.full(2, size / 2)) * shrink
    matrix = np.column_stack([axes * shrink[:, None], start])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, matrix, (size, size), flags=flags, borderValue=_GREY)


def _create_detector(vision: Any, base_options: Any) -> Any:
    path = Path(base_options.model_asset_path)
    try:
        with zipfile.ZipFile(path) as bundle:
            content = bundle.read(_DETECTOR_FILE)
    except (KeyError, zipfile.BadZipFile) as error:
        raise WeightsError("mediapipe.other_model", path=path, reason=f"it holds no {_DETECTOR_FILE}") from error
    options = vision.FaceDetectorOptions(
        base_options=import_mediapipe()[2].BaseOptions(model_asset_buffer=content),
        min_detection_confidence=_MIN_SCORE,
    )
    return vision.FaceDetector.create_from_options(options)


_detector = SharedTask(LANDMARKER_FILE, LANDMARKER_VARIABLE, _create_detector, "detect")
