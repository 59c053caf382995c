"""Hands in a picture, by MediaPipe's hand landmarker: they have the colours of a face, but are none of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..mediapipe_tasks import SharedTask
from .zones import polygon_mask

MAX_HANDS = 3
_MIN_DETECTION = 0.6
_WRIST, _PALM = 0, (0, 1, 5, 9, 13, 17)
_FINGERS = ((1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
_FINGER_WIDTH = 0.22  # of the length of the palm


def hand_mask(rgb: np.ndarray) -> np.ndarray:
    """Mask (S, S) bool of the hands in a square crop (S, S, 3) uint8: palm and fingers of a usual thickness.

    Raises:
        WeightsError: the landmarker's model, mediapipe or a system library is missing.
    """
    import cv2

    size = len(rgb)
    mask = np.zeros((size, size), np.uint8)
    for hand in hand_landmarker(rgb).hand_landmarks:
        points = np.array([(point.x, point.y) for point in hand]) * size
        palm = float(np.linalg.norm(points[9] - points[_WRIST]))
        width = max(1, round(_FINGER_WIDTH * palm))
        mask |= polygon_mask(points[list(_PALM)], (size, size))
        outline = [points[list(finger)] for finger in _FINGERS] + [points[[*_PALM, _WRIST]]]
        cv2.polylines(mask, [np.round(line).astype(np.int32) for line in outline], False, 1, width)
    return mask.astype(bool)


def _create(vision: Any, base_options: Any) -> Any:
    options = vision.HandLandmarkerOptions(
        base_options=base_options,
        running_mode=vision.RunningMode.IMAGE,
        num_hands=MAX_HANDS,
        min_hand_detection_confidence=_MIN_DETECTION,
        min_hand_presence_confidence=_MIN_DETECTION,
    )
    return vision.HandLandmarker.create_from_options(options)


hand_landmarker = SharedTask("hand_landmarker.task", "FACEVERSE_HAND_LANDMARKER", _create, "detect")
