"""Which photographs cannot be fitted: no face, a profile, a face that cannot be made out, an animal."""

from __future__ import annotations

import numpy as np

from ..errors import NoFaceError
from ..face_score import HUMAN_SCORE, glimpse_face
from ..landmarks import DetectedFace, eye_spread_percent
from .face_selection import FaceSelector, select_face
from .photometric import crop_box, crop_photo
from .quality_checks import (
    BLUR_PERCENT,
    CROP_PX,
    OUTSIDE_SHARE,
    WHITE_SHARE,
    blur_px,
    eye_distance,
    face_masks,
    outside_share,
    white_share,
)

FIRM_EYES_PERCENT = 1.0  # see `eye_spread_percent`


def choose_face(rgb: np.ndarray, found: list[DetectedFace], face: FaceSelector, scale: float = 1.0) -> DetectedFace:
    """Select a face that can be fitted.

    Args:
        rgb: (H, W, 3) uint8 photograph.
        found: faces detected in it, largest first.
        face, scale: see `face_selection.select_face`.

    Raises:
        NoFaceError: no face, fewer than `face` requires, or a face that is not human.
    """
    if not found:
        glimpse = glimpse_face(rgb)
        if glimpse is None:
            raise NoFaceError("face.none")
        raise NoFaceError("face.profile" if glimpse.is_profile else "face.unclear")
    chosen = select_face(found, face, scale)
    if not _is_human(rgb, chosen):
        raise NoFaceError("face.not_human")
    return chosen


def _is_human(rgb: np.ndarray, face: DetectedFace) -> bool:
    """Whether a face may be that of a person; False only where it is certain.

    A mask over the mouth lowers the score and leaves the eyes' landmarks firm; a profile does the opposite.
    """
    doubtful = face.score < HUMAN_SCORE  # never without a score
    return not doubtful or _is_flawed(rgb, face) or eye_spread_percent(rgb, face) < FIRM_EYES_PERCENT


def _is_flawed(rgb: np.ndarray, face: DetectedFace) -> bool:
    """Whether a face is blurred, overexposed or partly outside the picture, so that nothing about it is certain."""
    points = face.landmarks_px
    if outside_share(points, rgb.shape[:2]) > OUTSIDE_SHARE:
        return True
    box = crop_box(points)
    crop, inside = crop_photo(rgb, box, CROP_PX)
    scale = CROP_PX / (box[2] - box[0])
    whole, skin = face_masks((points - np.array(box[:2])) * scale, CROP_PX)
    blurred = 100 * blur_px(crop, whole & inside) > BLUR_PERCENT * eye_distance(points) * scale
    return blurred or white_share(crop, skin & inside) > WHITE_SHARE
