"""Outline of a person by MediaPipe's selfie segmenter, on square crops around the head.

The network works on 256 x 256 pixels, so that an outline is as sharp as the crop is tight. It outlines everybody in a
crop; `labels` keeps the person whose face it is.
"""

from __future__ import annotations

import atexit
import os
from typing import Any

import numpy as np

from ..mediapipe_tasks import close_task, mediapipe_image, model_path, open_task, startup_lock, suppressed_startup_logs

_MODEL_VARIABLE = "FACEVERSE_SEGMENTER"

_segmenters: dict[int, Any] = {}  # by process id: a segmenter's threads do not survive a fork
_lock = startup_lock  # the first call redirects stderr


def segment_person(rgb: np.ndarray) -> np.ndarray:
    """Probability (S, S) float32 that a pixel of a square crop (S, S, 3) uint8 shows a person.

    Raises:
        WeightsError: the segmenter's model, mediapipe or a system library is missing.
    """
    with _lock:
        masks = _shared_segmenter().segment(mediapipe_image(rgb)).confidence_masks
        return masks[0].numpy_view().reshape(rgb.shape[:2]).copy()


def close_segmenter() -> None:
    """Release the segmenter that segment_person caches; the next call opens a new one."""
    with _lock:
        segmenter = _segmenters.pop(os.getpid(), None)
        if segmenter is not None:
            close_task(segmenter)


def _shared_segmenter() -> Any:
    """The process's segmenter, opened on first use; the caller holds _lock."""
    pid = os.getpid()
    if pid not in _segmenters:
        _segmenters[pid] = open_task(model_path("selfie_segmenter.tflite", _MODEL_VARIABLE), _create)
        with suppressed_startup_logs():
            _segmenters[pid].segment(mediapipe_image(np.zeros((64, 64, 3), np.uint8)))
    return _segmenters[pid]


def _create(vision: Any, base_options: Any) -> Any:
    options = vision.ImageSegmenterOptions(
        base_options=base_options,
        running_mode=vision.RunningMode.IMAGE,
        output_confidence_masks=True,
        output_category_mask=False,
    )
    return vision.ImageSegmenter.create_from_options(options)


atexit.register(close_segmenter)
