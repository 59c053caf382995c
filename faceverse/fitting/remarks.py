"""What a user should know about a fit, in words: each remark says what it means for the result and what to do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..images import Photo
from ..landmarks import DetectedFace

EYE_CORNERS = (33, 263)  # MediaPipe: outer corners of the right and the left eye
SMALL_FACE_PX = 40
TURNED_DEG = 40
OUTSIDE_SHARE = 0.02  # of the detected points
DARK_LEVEL = 45


@dataclass(frozen=True)
class Evidence:
    """What the remarks are made from.

    Args:
        photo: as it was fitted.
        face: the face in it.
        yaw_deg: how far the fitted head is turned.
        unclear: how many faces could have been meant, where nobody said which one; else 1.
    """

    photo: Photo
    face: DetectedFace
    yaw_deg: float
    unclear: int = 1


def remarks(seen: Evidence, far_side: bool = True) -> tuple[str, ...]:
    """What may make the result worse than usual, in words; nothing for an ordinary good photograph.

    Args:
        far_side: whether nothing else shows the side of a turned face that is hidden in this photograph.
    """
    said = []
    if seen.unclear > 1:
        said.append(f"{seen.unclear} faces were found and the largest was taken; face= chooses another")
    height, width = seen.photo.rgb.shape[:2]
    points = seen.face.landmarks_px
    eyes = float(np.linalg.norm(points[EYE_CORNERS[0]] - points[EYE_CORNERS[1]]))
    if eyes < SMALL_FACE_PX:
        said.append(
            f"the face is small: {eyes:.0f} px between the outer eye corners, {SMALL_FACE_PX} or more work best"
        )
    if far_side and abs(seen.yaw_deg) > TURNED_DEG:
        said.append(f"the face is turned {abs(seen.yaw_deg):.0f} degrees; its far side is guessed")
    outside = (points < 0).any(1) | (points[:, 0] > width) | (points[:, 1] > height)
    if outside.mean() > OUTSIDE_SHARE:
        said.append("part of the face lies outside the picture; it is guessed")
    x0, y0, x1, y1 = (
        int(np.clip(v, 0, limit)) for v, limit in zip(seen.face.box_px, (width, height) * 2, strict=True)
    )
    if x1 > x0 and y1 > y0 and seen.photo.rgb[y0:y1, x0:x1].mean() < DARK_LEVEL:
        said.append("the face is very dark; colours are uncertain")
    return tuple(said)
