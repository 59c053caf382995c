"""Quality checks of a fit: warnings about the photograph, each with its consequence and what to do.

Thresholds lie well above the values of good photographs, because users ignore warnings that are often wrong. Occlusions
of the skin's colour, or as dark as a shadow, are not detected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from ..io.images import Photo
from ..landmarks import OUTER_EYE_CORNERS, DetectedFace
from ..messages import Message
from .photometric import crop_box, crop_photo

# MediaPipe's points around the face from the brows down, and around holes in its skin: both eyes and the open mouth.
FACE_OUTLINE = (
    *(356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127),
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
)
HOLES = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95),
)

SMALL_FACE_PX = 40
TURNED_DEG = 40
OUTSIDE_SHARE = 0.02  # of the detected points
DARK_LEVEL = 45
WHITE_LEVEL, WHITE_SHARE = 250, 0.05
# Good photographs and drawn heads that are turned less than that: 1.5 to 3.1; stretched, upside down or half hidden:
# 4.3 to 5. Of heads turned further the detector guesses the far side: up to 5.4 without anything being wrong.
MISFIT_PERCENT = 4.0
# Good photographs, also with cast shadows: at most 0.05; black beards: 0.15; a third of a face covered: 0.2 to 0.4.
UNEXPLAINED_LEVELS, UNEXPLAINED_SHARE = 51, 0.20
# Sharp photographs: 0.6 to 1.4; blurred by 4 % of the eye distance: 2.8 to 3.5, by 6 %: 4.1 to 4.8.
BLUR_PERCENT = 3.5
CROP_PX = 176  # side of the pictures in which the head is compared with the photograph
REBLUR_PX = 2.0


@dataclass(frozen=True)
class QualityInput:
    """Photograph, face and fitted head that are checked.

    Args:
        photo: as it was fitted.
        face: the face in it.
        yaw_deg: of the fitted head.
        matched_px, projected_px: (L, 2) detected and fitted landmarks, in pixels of `photo`.
        rendered: (S, S, 3) uint8, the fitted head rendered over the square `crop_box` of the photograph.
        face_count: number of faces of comparable size if none was selected; else 1.
    """

    photo: Photo
    face: DetectedFace
    yaw_deg: float
    matched_px: np.ndarray
    projected_px: np.ndarray
    rendered: np.ndarray
    face_count: int = 1


def quality_warnings(checked: QualityInput, far_side: bool = True) -> tuple[str, ...]:
    """What may make the result worse than usual, in words; nothing for an ordinary good photograph.

    Args:
        far_side: whether nothing else shows the side of a turned face that is hidden in this photograph.
    """
    warnings = []
    if checked.face_count > 1:
        warnings.append(Message("quality.several_faces", count=checked.face_count))
    eyes = eye_distance(checked.face.landmarks_px)
    small = eyes < SMALL_FACE_PX
    if small:
        warnings.append(Message("quality.small", pixels=eyes, wanted=SMALL_FACE_PX))
    if far_side and abs(checked.yaw_deg) > TURNED_DEG:
        warnings.append(Message("quality.turned", degrees=abs(checked.yaw_deg)))
    if outside_share(checked.face.landmarks_px, checked.photo.rgb.shape[:2]) > OUTSIDE_SHARE:
        warnings.append(Message("quality.cut_off"))
    misfit = misfit_percent(checked)
    if abs(checked.yaw_deg) <= TURNED_DEG and misfit > MISFIT_PERCENT:
        warnings.append(Message("quality.misfit", percent=misfit))
    return (*warnings, *_pixel_warnings(checked, small))


def _pixel_warnings(checked: QualityInput, small: bool) -> list[str]:
    """Warnings about exposure, occlusion and sharpness; a small face is not checked for sharpness."""
    warnings: list[str] = []
    points, size = checked.face.landmarks_px, len(checked.rendered)
    box = crop_box(points)
    crop, inside = crop_photo(checked.photo.rgb, box, size)
    face, skin = face_masks((points - np.array(box[:2])) * size / (box[2] - box[0]), size)
    face, skin = face & inside, skin & inside
    if _is_dark(checked):
        warnings.append(Message("quality.dark"))
    white = white_share(crop, skin)
    if white > WHITE_SHARE:
        warnings.append(Message("quality.overexposed", share=white))
    unexplained = unexplained_share(crop, checked.rendered, skin)
    if unexplained > UNEXPLAINED_SHARE:
        warnings.append(Message("quality.covered", share=unexplained))
    if not small and 100 * blur_px(crop, face) > BLUR_PERCENT * eye_distance(points) * size / (box[2] - box[0]):
        warnings.append(Message("quality.blurred"))
    return warnings


# -- measures ---------------------------------------------------------------------------------------------------------
def eye_distance(points_px: np.ndarray) -> float:
    """Pixels between the outer eye corners of the detector's points (478, 2)."""
    return float(np.linalg.norm(points_px[OUTER_EYE_CORNERS[0]] - points_px[OUTER_EYE_CORNERS[1]]))


def outside_share(points_px: np.ndarray, image_size: tuple[int, int]) -> float:
    """Share 0..1 of the points (L, 2) that lie outside a picture of (height, width)."""
    height, width = image_size
    return float(((points_px < 0).any(1) | (points_px[:, 0] > width) | (points_px[:, 1] > height)).mean())


def misfit_percent(checked: QualityInput) -> float:
    """Mean distance between fitted and detected landmarks, in % of the eye distance in a frontal view."""
    eyes = eye_distance(checked.face.landmarks_px) / np.cos(np.radians(checked.yaw_deg))
    return 100 * float(np.linalg.norm(checked.matched_px - checked.projected_px, axis=1).mean()) / max(eyes, 1e-6)


def face_masks(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Two masks (size, size) bool: the face from the brows down, and without eyes and mouth; points (478, 2)."""

    def inside(*outlines: tuple[int, ...]) -> np.ndarray:
        picture = Image.new("1", (size, size))
        for outline in outlines:
            ImageDraw.Draw(picture).polygon([tuple(map(float, points[row])) for row in outline], fill=1)
        return np.array(picture)

    face = inside(FACE_OUTLINE)
    return face, face & ~inside(*HOLES)


def white_share(crop: np.ndarray, skin: np.ndarray) -> float:
    """Share 0..1 of the pixels in a mask (S, S) that are clipped white in a picture (S, S, 3) uint8."""
    return float((crop[skin] >= WHITE_LEVEL).all(-1).mean()) if skin.any() else 0.0


def unexplained_share(crop: np.ndarray, rendered: np.ndarray, skin: np.ndarray) -> float:
    """Share 0..1 of a mask's pixels (S, S) where head and photograph differ by more than UNEXPLAINED_LEVELS.

    Args:
        crop, rendered: (S, S, 3) uint8 photograph, and head with fitted colour and light.
    """
    difference = np.sqrt(((crop[skin].astype(np.float32) - rendered[skin]) ** 2).mean(-1))
    return float((difference > UNEXPLAINED_LEVELS).mean()) if skin.any() else 0.0


def blur_px(crop: np.ndarray, face: np.ndarray) -> float:
    """Estimate the standard deviation in pixels of the blur of the sharpest edges, by blurring again.

    The sum of squared gradients over an edge of width s is proportional to 1 / s. A second blur by r widens the edge to
    sqrt(s^2 + r^2), so s follows from the ratio of the two sums. Noise counts as sharp.

    Args:
        crop: (S, S, 3) uint8.
        face: (S, S) bool, where the gradients are summed.
    """

    def energy(grey: np.ndarray) -> float:
        down, across = np.gradient(grey)
        return float((down**2 + across**2)[face].sum())

    grey = crop.astype(np.float32).mean(-1)
    before = energy(grey)
    if before == 0:
        return 0.0
    ratio = min(energy(gaussian_filter(grey, REBLUR_PX)) / before, 0.999)
    return REBLUR_PX * ratio / float(np.sqrt(1 - ratio**2))


def _is_dark(checked: QualityInput) -> bool:
    height, width = checked.photo.rgb.shape[:2]
    x0, y0, x1, y1 = (
        int(np.clip(v, 0, limit)) for v, limit in zip(checked.face.box_px, (width, height) * 2, strict=True)
    )
    return x1 > x0 and y1 > y0 and checked.photo.rgb[y0:y1, x0:x1].mean() < DARK_LEVEL
