"""Where hair, skin, clothes and beard may be: masks and prior probabilities by place, from the pose of the head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..landmarks import CHIN, FOREHEAD, LEFT_EYE, NOSE_BASE, RIGHT_EYE
from .head_frame import (
    BROWS,
    EYES,
    FACE_OVAL,
    LEFT_CHEEK,
    NOSE,
    OUTER_LIPS,
    RIGHT_CHEEK,
    TRAGUS,
    HeadFrame,
)

HAIR, SKIN, CLOTHES, BEARD = range(4)  # rows of a prior
_NEVER, _HARDLY = 1e-6, 1e-3


@dataclass(frozen=True)
class Zones:
    """Places in a picture (H, W), relative to a head.

    Attributes:
        prior: (4, H, W) float32 probabilities of hair, skin, clothes and beard inside the person, by place alone.
        oval: inside the outline of the face, which ends on the forehead.
        scalp: where hair grows and skin does not show unless the head is bald.
        top: the skull above the brows, outside the oval.
        skull: inside the outline of the bald head.
        skull_distance: outside that outline, in units.
        oval_distance: outside the face's outline, in units.
        cheeks: parts of the cheeks that are skin unless hair, hand or glasses cover them.
        nose: the ridge of the nose.
        plain: the face without eyes, brows and the region of a beard.
        beard: the part of the oval where a beard grows.
        hanging: below the ears, and in the face below the brows: hair there has to come from above.
        torso: below and beside the neck.
        hands: palms and fingers.
        below_chin: where a beard has to come from above.
        beside_jaw: beside the lower face, where a beard may stand out from it.
        across, up: coordinates in units, see `HeadFrame.upright`.
        chin_across, chin_up: the chin in these coordinates.
    """

    prior: np.ndarray
    oval: np.ndarray
    scalp: np.ndarray
    top: np.ndarray
    skull: np.ndarray
    skull_distance: np.ndarray
    oval_distance: np.ndarray
    cheeks: np.ndarray
    nose: np.ndarray
    plain: np.ndarray
    beard: np.ndarray
    hanging: np.ndarray
    below_chin: np.ndarray
    beside_jaw: np.ndarray
    torso: np.ndarray
    hands: np.ndarray
    across: np.ndarray
    up: np.ndarray
    chin_across: float
    chin_up: float


@dataclass(frozen=True)
class _Levels:
    """Heights in units above the middle between the eyes, from the landmarks."""

    forehead: float
    brows: float
    eyes: float
    nose_base: float
    ears: float  # lower ends of the ears
    chin: float
    chin_across: float


def head_zones(frame: HeadFrame, hands: np.ndarray) -> Zones:
    """Places relative to a head in a picture whose hands (H, W) are known."""
    shape = hands.shape
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    across, up = np.moveaxis(frame.upright(np.stack([columns, rows], axis=-1) + 0.5), -1, 0)
    level = _levels(frame)

    def patch(landmarks: tuple[int, ...]) -> np.ndarray:
        return polygon_mask(frame.points_px[list(landmarks)], shape)

    oval, skull, lips = patch(FACE_OVAL), polygon_mask(frame.skull_outline_px(), shape), patch(OUTER_LIPS)
    oval_distance, skull_distance = (distance_outside(mask) / frame.unit_px for mask in (oval, skull))
    eyes = dilate(patch(EYES[0]) | patch(EYES[1]), 1)
    brows = dilate(patch(BROWS[:5]) | patch(BROWS[5:]), 1)
    beard = oval & (up < level.nose_base) & ~lips & ~hands
    prior = np.zeros((4, *shape), np.float32)
    _outside_the_face(prior, across, up, level)
    neck = (up < level.ears) & (np.abs(across - level.chin_across) < 0.75) & (up > level.chin - 0.9)
    prior[SKIN, neck] = 0.7
    prior[CLOTHES, neck] = (0.05 + 0.25 * np.clip((level.chin - up) / 0.9, 0, 1))[neck]
    strip = ~oval & (up > level.brows) & (oval_distance < 0.3) & skull  # from the oval's top to the hair line
    prior[:, strip] = np.array([0.6, 0.4, 0.0, 0.0])[:, None]
    for ear in _ear_masks(frame, across, up):
        prior[:, ear & ~oval] = np.array([0.5, 0.5, 0.0, 0.0])[:, None]
    depth = distance_outside(~oval) / frame.unit_px
    _inside_the_face(prior, oval, depth, up, level)
    prior[HAIR, brows & oval] = 0.1
    prior[HAIR, eyes & oval] = _HARDLY
    prior[BEARD, beard], prior[HAIR, beard] = 1.0, 0.02  # as likely as skin
    prior[:, hands] = np.array([0.02, 0.98, 0.0, 0.0])[:, None]
    return Zones(
        prior=np.maximum(prior, _NEVER),
        oval=oval,
        scalp=~oval & (oval_distance > 0.25) & (up > 0.45 * level.forehead) & (skull_distance < 0.25),
        top=skull & ~oval & (up > level.brows),
        skull=skull,
        skull_distance=skull_distance,
        oval_distance=oval_distance,
        cheeks=(patch(RIGHT_CHEEK) | patch(LEFT_CHEEK)) & ~hands,
        nose=patch(NOSE),
        plain=(depth > 0.12)
        & ~dilate(eyes | brows, round(0.12 * frame.unit_px))
        & (up >= level.nose_base + 0.1)
        & ~hands,
        beard=beard,
        hanging=np.where(oval, up < level.brows, up < level.ears),
        below_chin=up < level.chin + 0.1,
        beside_jaw=~oval & (up < level.nose_base) & (oval_distance < 0.3) & ~hands,
        torso=(up < level.chin - 0.3) & ~neck,
        hands=hands,
        across=across,
        up=up,
        chin_across=level.chin_across,
        chin_up=level.chin,
    )


def _levels(frame: HeadFrame) -> _Levels:
    def height(*landmarks: int) -> np.ndarray:
        return frame.upright(frame.points_px[list(landmarks)])[:, 1]

    return _Levels(
        forehead=float(height(FOREHEAD)[0]),
        brows=max(float(height(*BROWS).max()), 0.2),
        eyes=float(height(*RIGHT_EYE, *LEFT_EYE).mean()),
        nose_base=float(height(NOSE_BASE)[0]),
        ears=float(height(*TRAGUS).mean()) - 0.25,
        chin=float(height(CHIN)[0]),
        chin_across=float(frame.upright(frame.points_px[[CHIN]])[0, 0]),
    )


def _outside_the_face(prior: np.ndarray, across: np.ndarray, up: np.ndarray, level: _Levels) -> None:
    """Priors around and below the face, as if there were none."""
    above_ears = up > level.ears
    below_chin = np.clip((level.chin - up) / 1.2, 0, 1)
    from_ears = np.clip((level.ears - up) / max(level.ears - level.chin, 0.1), 0, 1)
    lower_clothes = np.where(up > level.chin, 0.15 * from_ears, 0.3 + 0.6 * below_chin)
    prior[HAIR] = np.where(above_ears, 0.85, 0.02)
    prior[SKIN] = np.where(above_ears, 0.13, 0.15)
    prior[CLOTHES] = np.where(above_ears, 0.02, lower_clothes)


def _inside_the_face(prior: np.ndarray, oval: np.ndarray, depth: np.ndarray, up: np.ndarray, level: _Levels) -> None:
    """Priors inside the oval; `depth` is the distance from its outline in units."""
    rim = np.clip(1 - depth / 0.4, 0, 1) * np.clip((up - level.nose_base) / 0.2, 0, 1)
    above_eyes = np.clip((up - level.eyes) / max(level.brows - level.eyes, 0.1), 0, 1)
    hair = np.where(up > level.brows, 0.3, np.maximum(0.03 + 0.17 * rim, 0.25 * above_eyes))
    prior[HAIR, oval] = hair[oval]
    prior[SKIN, oval] = 1 - hair[oval]
    prior[CLOTHES, oval] = _HARDLY


def _ear_masks(frame: HeadFrame, across: np.ndarray, up: np.ndarray) -> list[np.ndarray]:
    centres = frame.upright(frame.points_px[list(TRAGUS)])
    outward = np.sign(centres[:, 0] - centres[:, 0].mean())
    return [
        ((across - x - 0.12 * side) / 0.3) ** 2 + ((up - y) / 0.45) ** 2 < 1
        for (x, y), side in zip(centres, outward, strict=True)
    ]


def polygon_mask(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Mask (H, W) of the inside of a polygon (P, 2) in pixels."""
    import cv2

    mask = np.zeros(shape, np.uint8)
    bounded = np.clip(points, -2 * max(shape), 3 * max(shape))
    cv2.fillPoly(mask, [np.round((bounded - 0.5) * 16).astype(np.int32)], 1, shift=4)
    return mask.astype(bool)


def distance_outside(mask: np.ndarray) -> np.ndarray:
    """Distance (H, W) float32 in pixels to the nearest pixel of a mask."""
    import cv2

    if not mask.any():
        return np.full(mask.shape, float(sum(mask.shape)), np.float32)
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilate a mask (H, W) by a disk."""
    import cv2

    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(mask.astype(np.uint8), disk).astype(bool)


def erode(mask: np.ndarray, radius: int) -> np.ndarray:
    """Erode a mask (H, W) by a disk; the picture's border does not count."""
    return ~dilate(~mask, radius)
