"""Selection of one detected face: by index, the largest, or the nearest to a point of the photograph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import TypeGuard, cast

import numpy as np

from ..errors import NoFaceError, ParameterError
from ..landmarks import DetectedFace

LARGEST = "largest"
COMPARABLE_SIZE = 0.6  # of the largest face's size: smaller faces are people in the background

FaceSelector = int | str | tuple[float, float]


def check_face_selector(face) -> None:
    """Check that a value selects a face.

    Raises:
        ParameterError: neither an index from 0 on, nor "largest", nor a point (x, y).
    """
    is_index = isinstance(face, (int, np.integer)) and not isinstance(face, bool) and face >= 0
    if not (is_index or isinstance(face, str) and face == LARGEST or is_point(face)):
        raise ParameterError("face.selector", face=repr(face))


def is_point(face) -> TypeGuard[tuple[float, float]]:
    """Whether a value is a point of a photograph: two finite numbers."""
    if not isinstance(face, (Sequence, np.ndarray)) or isinstance(face, str) or len(face) != 2:
        return False
    return all(isinstance(v, Real) and not isinstance(v, bool) and math.isfinite(v) for v in face)


def select_face(detected: list[DetectedFace], face: FaceSelector, scale: float = 1.0) -> DetectedFace:
    """Return the selected face.

    Args:
        detected: largest first, in pixels of the picture that the detector searched.
        face: index into `detected`; "largest"; or a point (x, y) in pixels of the photograph's original size: the face
            whose box contains it, the one with the nearest centre where several do, else the one with the nearest box.
        scale: size of the searched picture relative to the original size.

    Raises:
        NoFaceError: no face was detected, or fewer than the index requires.
    """
    if not detected:
        raise NoFaceError("face.none")
    if is_point(face):
        point = np.array([float(v) for v in face]) * scale
        return min(detected, key=lambda one: _distances(one, point))
    index = 0 if isinstance(face, str) else int(cast(int, face))
    if index >= len(detected):
        raise NoFaceError("face.fewer", count=len(detected), index=index, last=len(detected) - 1)
    return detected[index]


def count_comparable_faces(detected: list[DetectedFace]) -> int:
    """Number of faces of a size comparable to the largest one, which is included."""
    sizes = [math.sqrt(float(np.prod(np.maximum(one.box_px[2:] - one.box_px[:2], 0)))) for one in detected]
    return sum(size >= COMPARABLE_SIZE * sizes[0] for size in sizes)


def _distances(one: DetectedFace, point: np.ndarray) -> tuple[float, float]:
    """Distances in pixels from a point (2,) to a face's box, 0 inside it, and to the centre of the box."""
    low, high = one.box_px[:2].astype(np.float64), one.box_px[2:].astype(np.float64)
    outside = np.maximum(np.maximum(low - point, point - high), 0)
    return float(np.linalg.norm(outside)), float(np.linalg.norm((low + high) / 2 - point))
