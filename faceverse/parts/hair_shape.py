"""Shape of the hair: smooth functions of the vertices of a style in the frame of the skull.

Hair follows the skull from person to person: an affine motion of the whole style, plus, near the skull, the smooth rest
of the skull's own shape. It does not follow expressions. No vertex ends inside the head.

Dimensions: P vertices of the part, K control points, V vertices of the model. Positions are metres.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from .binding import Binding, bind, rigid_motion
from .part import Part

if TYPE_CHECKING:
    from .hair import Hair

CLEARANCE_M = 0.002
"""Least distance of hair from the skull."""

_RINGS = (  # height above the skull's centre, radius, number of control points
    (0.125, 0.0, 1), (0.105, 0.07, 6), (0.06, 0.115, 8), (0.0, 0.13, 10), (-0.06, 0.13, 8), (-0.14, 0.12, 6),
    (-0.28, 0.12, 6),
)  # fmt: skip


def _control_points() -> np.ndarray:
    points = []
    for height, radius, count in _RINGS:
        angle = 2 * np.pi * np.arange(count) / count
        points.append(np.stack([radius * np.sin(angle), np.full(count, height), radius * np.cos(angle)], axis=1))
    return np.float32(np.concatenate(points))


CONTROL_POINTS = _control_points()
"""(K, 3) metres from the centre of the skull on which the styles were made: a sphere, and rings for hanging hair."""

_REACH_M = 0.04  # standard deviation of a control point's weight
_RESIDUAL_REACH_M = 0.05  # distance from the skull over which hair follows the skull's own shape


def skull_centre(binding: Binding) -> np.ndarray:
    """(3,) centre of the skull on which the part was made."""
    low, high = binding.reference_m.min(0), binding.reference_m.max(0)
    return (0.5 * (low + high)).astype(np.float64)


def hair_basis(part: Part) -> np.ndarray:
    """(P, K) float32, weights of the control points at the vertices as made: smooth, each row adds up to 1."""
    return _fields(_Same(part.binding))


@lru_cache(maxsize=64)
def _fields(key: _Same) -> np.ndarray:
    binding = key.value
    away = (binding.made - skull_centre(binding))[:, None] - CONTROL_POINTS
    logit = -np.square(away).sum(2) / (2 * _REACH_M**2)
    weight = np.exp(logit - logit.max(axis=1, keepdims=True))
    return np.float32(weight / weight.sum(axis=1, keepdims=True))


def hair_vertices(part: Part, hair: Hair, neutral: np.ndarray) -> np.ndarray:
    """Vertices (P, 3) of a hair part on a neutral head, with the shape that `hair` asks for.

    Args:
        part: in the slot "hair", made for the model.
        hair: shape.
        neutral: (V, 3) of the model.

    Raises:
        ParameterError: fewer vertices than the part needs.
    """
    binding = part.binding
    placed = _conformed(binding, neutral)
    return placed + hair_basis(part) @ hair.warp.astype(np.float64)


def follow_head(binding: Binding, placed: np.ndarray, vertices: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Vertices (P, 3) of a hair part on the head with an expression: the rigid motion of the skull.

    Args:
        placed: (P, 3) of `hair_vertices`.
        vertices, neutral: (V, 3) of the model with its expression, and without.
    """
    reference = binding.reference
    rotation, translation = rigid_motion(neutral[reference], vertices[reference])
    return placed @ rotation.T + translation


def _conformed(binding: Binding, neutral: np.ndarray) -> np.ndarray:
    """The style on a head: the affine motion of the skull, and near it the rest of its shape."""
    placed = binding.place(neutral)
    made = binding.reference_m.astype(np.float64)
    target = neutral[binding.reference].astype(np.float64)
    linear = np.linalg.lstsq(made - made.mean(0), target - target.mean(0), rcond=None)[0]
    rest = target - target.mean(0) - (made - made.mean(0)) @ linear
    corner = np.searchsorted(binding.reference, binding.triangle)
    moved = np.einsum("pk,pkd->pd", binding.weights, rest[corner])
    distance = np.linalg.norm(binding.offset, axis=1, keepdims=True)
    return placed + moved * np.exp(-np.square(distance / _RESIDUAL_REACH_M))


@lru_cache(maxsize=16)
def _mirrored_binding(key: _Same) -> Binding:
    binding = key.value
    flip = np.array([-1.0, 1.0, 1.0])
    twin = cKDTree(binding.reference_m).query(binding.reference_m * flip)[1]
    corner = twin[np.searchsorted(binding.reference, binding.triangle)]
    vertices = np.zeros((int(binding.reference[-1]) + 1, 3))
    vertices[binding.reference] = binding.reference_m
    mirrored = bind(binding.made * flip, vertices, binding.reference[corner], binding.weights, binding.kind)
    return replace(mirrored, reference=binding.reference, reference_m=binding.reference_m)


def mirrored_part(part: Part) -> Part:
    """The part with left and right exchanged."""
    binding = _mirrored_binding(_Same(part.binding))
    return replace(part, binding=binding, faces=part.faces[:, ::-1], uv_faces=part.uv_faces[:, ::-1])


class _Same:
    """A binding as the key of a cache: equal where it is the same object."""

    def __init__(self, value: Binding):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)
