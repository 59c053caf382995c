"""Everybody in a picture, by MediaPipe's selfie segmenter.

The network works on 256 x 256 pixels, so that an outline is as sharp as the crop is tight.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..mediapipe_tasks import SharedTask


def segment_person(rgb: np.ndarray) -> np.ndarray:
    """Probability (S, S) float32 that a pixel of a square crop (S, S, 3) uint8 shows a person.

    Raises:
        WeightsError: the segmenter's model, mediapipe or a system library is missing.
    """
    return segmenter(rgb).confidence_masks[0].numpy_view().reshape(rgb.shape[:2]).copy()


def _create(vision: Any, base_options: Any) -> Any:
    options = vision.ImageSegmenterOptions(
        base_options=base_options,
        running_mode=vision.RunningMode.IMAGE,
        output_confidence_masks=True,
        output_category_mask=False,
    )
    return vision.ImageSegmenter.create_from_options(options)


segmenter = SharedTask("selfie_segmenter.tflite", "FACEVERSE_SEGMENTER", _create, "segment")
