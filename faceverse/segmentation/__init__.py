"""Labels of the pixels around a face: hair, face, neck, clothes, beard, accessories, background."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import ParameterError
from ..landmarks import DetectedFace
from .classes import BACKGROUND, HAIR, classify
from .cleaning import LABELS, clean_labels
from .colour_model import lab_from_rgb
from .hands import hand_mask
from .head_frame import HeadFrame, head_frame
from .outline import outline_person
from .zones import dilate, head_zones

SIZE = 512  # of the crop, in pixels
_CROP_SIDE, _CROP_ABOVE = 5.9, 2.3  # of the crop and of its part above the eyes, in units of `head_frame`
_MIN_UNIT_PX = 4.0
_SOFT_PX = 4
_OUTSIDE_GREY = np.uint8(128)
_HANDS_CROP = (0.14, 0.1, 0.72)  # left, top and side of the search for hands, in sides of the crop


@dataclass(frozen=True)
class Segmentation:
    """Labels of a square crop around a head.

    Attributes:
        labels: (S, S) uint8 indices into LABELS; 0 outside the photograph.
        person: (S, S) float32 in 0..1, how much of a pixel the person covers.
        hair: (S, S) float32 in 0..1, how much of a pixel hair covers.
        inside: (S, S) bool, whether a pixel lies inside the photograph.
        box_px: (4,) float64 x0, y0, x1, y1 of the crop in pixels of the photograph; may extend beyond it.
        scalp_hair: share of the visible scalp that hair covers, 0..1; NaN if no scalp is visible.
    """

    labels: np.ndarray
    person: np.ndarray
    hair: np.ndarray
    inside: np.ndarray
    box_px: np.ndarray
    scalp_hair: float

    def mask(self, *names: str) -> np.ndarray:
        """Mask (S, S) bool of the pixels with one of these labels.

        Raises:
            ParameterError: there is no such label.
        """
        for name in names:
            if name not in LABELS:
                raise ParameterError("segment.label", name=repr(name), labels=", ".join(LABELS))
        return np.isin(self.labels, [LABELS.index(name) for name in names])

    @property
    def is_bald(self) -> bool:
        """Whether less than a third of the visible scalp has hair."""
        return self.scalp_hair < 1 / 3

    def to_photo(self, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Values (S, S) of the crop at the pixels of the photograph, (H, W) of the same type; 0 outside the crop.

        Args:
            values: such as `labels`, `person` or `mask("hair")`. Numbers with a fraction are interpolated.
            shape: (H, W) of the photograph that `box_px` refers to.
        """
        import cv2

        continuous = np.issubdtype(values.dtype, np.floating)
        scale = (self.box_px[2] - self.box_px[0]) / len(values)
        # From pixel centres of the crop to those of the photograph.
        left, top = self.box_px[:2] + 0.5 * scale - 0.5
        matrix = np.array([[scale, 0, left], [0, scale, top]])
        flags = cv2.INTER_LINEAR if continuous else cv2.INTER_NEAREST
        source = values if continuous else values.astype(np.uint8)
        return cv2.warpAffine(source, matrix, (shape[1], shape[0]), flags=flags).astype(values.dtype)

    def turned_back(self, width: int) -> Segmentation:
        """The same labels for the photograph, `width` pixels wide, of which `np.rot90` made the labelled one."""
        arrays = {name: np.rot90(getattr(self, name), -1).copy() for name in ("labels", "person", "hair", "inside")}
        x0, y0, x1, y1 = self.box_px
        return replace(self, **arrays, box_px=np.array([width - y1, x0, width - y0, x1]))

    def scaled(self, factor: float) -> Segmentation:
        """The same labels for a photograph that is `factor` times as large."""
        return replace(self, box_px=self.box_px * factor)


def segment_face(rgb: np.ndarray, face: DetectedFace, others: list[DetectedFace] | None = None) -> Segmentation:
    """Label the pixels around a detected face; deterministic.

    Args:
        rgb: (H, W, 3) uint8 sRGB; heads may be tilted or upside down.
        face: the person to label, in pixels of `rgb`.
        others: further faces of the photograph, whose pixels become background.

    Raises:
        WeightsError: the segmenter's model, mediapipe or a system library is missing.
    """
    others = others or []
    if head_frame(face).quarter_turns:
        # The network and the priors expect hair above a face.
        turned = [_turned(one, rgb.shape[1]) for one in (face, *others)]
        return segment_face(np.rot90(rgb), turned[0], turned[1:]).turned_back(rgb.shape[1])
    head = head_frame(face)
    side = _CROP_SIDE * max(head.unit_px, _MIN_UNIT_PX)
    corner = head.origin_px - np.array([side / 2, _CROP_ABOVE / _CROP_SIDE * side])
    crop, inside = _crop(rgb, corner, side)
    scale = SIZE / side

    def in_crop(one: HeadFrame) -> HeadFrame:
        return one.moved(scale, -corner * scale)

    frame = in_crop(head)
    person = outline_person(crop, inside, frame, [in_crop(head_frame(other)) for other in others])
    zones = head_zones(frame, _hands_near_head(crop, inside))
    probability = classify(crop, person, frame, zones)
    probability[:, ~inside] = np.eye(len(probability), dtype=np.float32)[BACKGROUND][:, None]
    labels, scalp_hair = clean_labels(probability, lab_from_rgb(crop), zones, frame.unit_px)
    return Segmentation(
        labels=labels,
        # Without the people that cleaning removed; wider than the labels, for the soft edges.
        person=(1 - probability[BACKGROUND]) * dilate(labels > 0, _SOFT_PX),
        hair=probability[HAIR] * dilate(labels == LABELS.index("hair"), _SOFT_PX),
        inside=inside,
        box_px=np.array([*corner, *(corner + side)]),
        scalp_hair=scalp_hair,
    )


def _turned(face: DetectedFace, width: int) -> DetectedFace:
    """A face in the photograph that `np.rot90` makes of one of a width."""
    x, y = face.landmarks_px.T
    return replace(face, landmarks_px=np.stack([y, width - x], axis=-1))


def _hands_near_head(crop: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Mask (S, S) of the hands in the middle of the crop, where they may cover face and hair."""
    left, top, side = (round(share * SIZE) for share in _HANDS_CROP)
    mask = np.zeros(crop.shape[:2], bool)
    part = (slice(top, top + side), slice(left, left + side))
    # Streaks beyond the photograph hide hands from the detector; grey does not.
    mask[part] = hand_mask(np.where(inside[part][..., None], crop[part], _OUTSIDE_GREY))
    return mask & inside


def _crop(rgb: np.ndarray, corner: np.ndarray, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Crop and resample a square: (S, S, 3) uint8, continued at the photograph's borders, and (S, S) bool inside it."""
    import cv2

    (height, width), scale = rgb.shape[:2], SIZE / side
    left, top = np.clip(np.floor(corner - 1), 0, [width - 1, height - 1]).astype(int)
    right, bottom = np.clip(np.ceil(corner + side + 1), [left + 1, top + 1], [width, height]).astype(int)
    part = np.ascontiguousarray(rgb[top:bottom, left:right])
    if scale < 1:  # an area filter first avoids aliasing
        size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    shrink = np.array(part.shape[1::-1]) / (right - left, bottom - top)
    # From pixel centres of the crop to those of the part.
    step = shrink * side / SIZE
    start = (corner - (left, top)) * shrink + 0.5 * step - 0.5
    matrix = np.array([[step[0], 0, start[0]], [0, step[1], start[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(part, matrix, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    centres = corner + (np.arange(SIZE)[:, None] + 0.5) * (side / SIZE)
    inside = (centres >= 0) & (centres < (width, height))
    return crop, inside[:, 1][:, None] & inside[:, 0][None]
