"""The outline of one person: the segmenter's probabilities on two crops, without bystanders."""

from __future__ import annotations

import numpy as np

from .head_frame import FACE_OVAL, HeadFrame
from .person import segment_person
from .zones import dilate, distance_outside, erode, polygon_mask

# Left, top and side of tighter crops around the head, in sides of the crop. Bystanders and dark backgrounds differ from
# crop to crop, the person does not: the median counts.
_TIGHTER_CROPS = ((0.1, 0.04, 0.8), (0.2, 0.06, 0.6))
_FEATHER = 0.04  # of a tighter crop's side
_LEAST_NECK = 0.1  # in units: whoever is joined to the person by less than twice this is somebody else


def outline_person(rgb: np.ndarray, inside: np.ndarray, frame: HeadFrame, others: list[HeadFrame]) -> np.ndarray:
    """Probability (S, S) float32 that a pixel shows the person of a face.

    Args:
        rgb: (S, S, 3) uint8 crop around the head.
        inside: (S, S) whether a pixel lies inside the photograph.
        frame: the head in this crop.
        others: further heads in this crop.
    """
    whole = segment_person(rgb)
    masks = [whole]
    for shares in _TIGHTER_CROPS:
        left, top, side = (round(share * len(rgb)) for share in shares)
        tight = (slice(top, top + side), slice(left, left + side))
        mask = whole.copy()
        mask[tight] += _feather(side) * (segment_person(np.ascontiguousarray(rgb[tight])) - whole[tight])
        masks.append(mask)
    person = np.median(masks, axis=0).astype(np.float32) * inside
    oval = polygon_mask(frame.points_px[list(FACE_OVAL)], person.shape)
    for other in others:
        person[_nearer_to(other, frame, person.shape) & ~oval] = 0
    person[_not_joined_to(oval, person > 0.5, frame.unit_px)] = 0
    return person


def _feather(side: int) -> np.ndarray:
    """Weights (side, side) that fall to zero at the border."""
    ramp = np.clip(np.minimum(np.arange(side), np.arange(side)[::-1]) / (_FEATHER * side), 0, 1)
    return np.minimum(ramp[:, None], ramp[None]).astype(np.float32)


def _nearer_to(other: HeadFrame, frame: HeadFrame, shape: tuple[int, int]) -> np.ndarray:
    """Mask (H, W) of what is nearer to another head than to this one, in units of each."""
    distances = []
    for head in (other, frame):
        mask = polygon_mask(head.skull_outline_px(), shape) | polygon_mask(head.points_px[list(FACE_OVAL)], shape)
        distances.append(distance_outside(mask) / head.unit_px)
    return distances[0] < distances[1]


def _not_joined_to(oval: np.ndarray, person: np.ndarray, unit_px: float) -> np.ndarray:
    """Parts (H, W) of a mask that are joined to the face by narrow bridges or not at all."""
    import cv2

    radius = max(1, round(_LEAST_NECK * unit_px))
    count, parts = cv2.connectedComponents(erode(person, radius).astype(np.uint8))
    shares = np.bincount(parts[oval], minlength=count)
    shares[0] = 0
    if not shares.any():
        return np.zeros(person.shape, bool)
    return person & ~dilate(parts == shares.argmax(), radius + 3)
