"""Shape of the hair: smooth functions of the vertices of a style in the frame of the skull.

Hair follows the skull from person to person: an affine motion of the whole style, plus, near the skull, what the affine
motion leaves of the skull's shape. Length, volume, waves and displacements of control points come on top; at the end no
vertex is inside the head or before the eyes, see `hair_clearance`. Hair does not follow expressions.

Dimensions: P vertices of the part, K control points, V vertices of the model. Positions are metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from .binding import Binding, bind, rigid_motion
from .hair_clearance import HeadSurface, smoothstep
from .identity import Same
from .part import Part

if TYPE_CHECKING:
    from .hair import Hair

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

VOLUMES = ("volume_top", "volume_sides", "volume_back")
"""Numbers of `faceverse.parts.hair.Hair` that scale the distance from the skull."""

_REACH_M = 0.04  # standard deviation of a control point's weight
_RESIDUAL_REACH_M = 0.05  # distance from the skull over which hair follows the skull's own shape
_HANGS_M = -0.015  # height above the skull's centre below which hair hangs
_HANGING_BEND_M = 0.02  # over which hair begins to hang
_SHORT_M = 0.09  # a style that hangs no lower is cut shorter all around, not at its lower end only
_TOP = (0.25, 0.80)  # upward component of the direction from the skull's centre between which sides become top
_WAVE_START_M, _WAVE_FULL_M = 0.05, 0.16  # distance from the crown
_WAVE_M, _WAVELENGTH_M, _CURL_M = 0.011, 0.075, 0.040  # amplitude; wavelength of slight waves and of curls
_EAR_M, _EAR_HALF_M = (-0.055, 0.0), 0.024  # height and depth of an ear from the skull's centre, and half its size
_COVERED_M = (0.078, 0.086)  # middle distance from the plane of symmetry of hair at the ears, from which it covers them
# Distances from that plane between which hair comes to lie outside of an ear, in other styles and in those.
_OVER_EAR_M, _OVER_COVERED_M = (0.068, 0.080), (0.045, 0.052)
_FACE_M = (0.035, (-0.13, -0.06), 0.055)  # half width, heights and least depth of the face, from the skull's mean
_FREE_M, _FLAT_WAVE = (0.004, 0.030), 0.35  # distances from the skull over which waves grow, and their least share
_ROOT_TO_TIP = (35, 98)  # percentiles of the length between which the colour of the roots becomes that of the tips
_CROWN = (0.0, 0.075, -0.03)  # from the skull's centre


@dataclass(frozen=True)
class HairFields:
    """What the shape functions need to know of a style as made.

    Attributes:
        basis: (P, K) weights of the control points, rows add up to 1.
        top, sides, back: (P,) weights of the volumes, at most 1 together.
        hang: (P,) metres below the height at which hair begins to hang, smoothly 0 above it.
        shortness: 0 for a style that hangs .. 1 for one that lies on the head.
        wave: (P,) strength of waves, 0 near the crown .. 1.
        phase: (P,) of the waves, equal for neighbouring hairs of a lock.
        along: (P,) 0 near the roots .. 1 at the tips.
        over_ears: (P,) 1 for hair outside of the ears .. 0 for hair between ear and head.
        gap: (2,) metres, x and y from the mean of the skull to the place of the face that is farthest from hair.
    """

    basis: np.ndarray
    top: np.ndarray
    sides: np.ndarray
    back: np.ndarray
    hang: np.ndarray
    shortness: float
    wave: np.ndarray
    phase: np.ndarray
    along: np.ndarray
    over_ears: np.ndarray
    gap: np.ndarray


def skull_centre(binding: Binding) -> np.ndarray:
    """(3,) centre of the skull on which the part was made."""
    low, high = binding.reference_m.min(0), binding.reference_m.max(0)
    return (0.5 * (low + high)).astype(np.float64)


def hair_basis(part: Part) -> np.ndarray:
    """(P, K) float32, weights of the control points at the vertices as made: smooth, each row adds up to 1."""
    return hair_fields(part.binding).basis


def hair_fields(binding: Binding) -> HairFields:
    """Fields of a style as made, computed once."""
    return _fields(Same(binding))


@lru_cache(maxsize=64)
def _fields(key: Same[Binding]) -> HairFields:
    binding = key.value
    from_centre = binding.made - skull_centre(binding)
    logit = -np.square(from_centre[:, None] - CONTROL_POINTS).sum(2) / (2 * _REACH_M**2)
    weight = np.exp(logit - logit.max(axis=1, keepdims=True))
    unit = from_centre / np.linalg.norm(from_centre, axis=1, keepdims=True)
    top = smoothstep(unit[:, 1], *_TOP)
    aside, behind = unit[:, 0] ** 2, np.where(unit[:, 2] < 0, unit[:, 2] ** 2, 0)
    rest = (1 - top) / np.maximum(unit[:, 0] ** 2 + unit[:, 2] ** 2, 1e-9)
    below = _HANGS_M - from_centre[:, 1]
    hang = 0.5 * (below + np.hypot(below, _HANGING_BEND_M)) - 0.5 * _HANGING_BEND_M
    lowest = float(np.percentile(below, 95))
    from_crown = np.linalg.norm(from_centre - _CROWN, axis=1)
    free = smoothstep(np.linalg.norm(binding.offset, axis=1), *_FREE_M)
    azimuth = np.arctan2(unit[:, 0], unit[:, 2])
    return HairFields(
        basis=np.float32(weight / weight.sum(axis=1, keepdims=True)),
        top=top,
        sides=rest * aside,
        back=rest * behind,
        hang=np.maximum(hang, 0),
        shortness=float(np.clip(1.5 - lowest / _SHORT_M, 0, 1)),
        wave=smoothstep(from_crown, _WAVE_START_M, _WAVE_FULL_M) * (_FLAT_WAVE + (1 - _FLAT_WAVE) * free),
        phase=2.6 * np.sin(8 * azimuth + 0.7) + 1.9 * np.sin(17 * azimuth + 2.0) + 1.2 * np.sin(3 * azimuth),
        along=_along(np.linalg.norm(binding.offset, axis=1) + np.maximum(below, 0) + 0.4 * from_crown),
        over_ears=_over_ears(from_centre),
        gap=_gap(binding.made - binding.reference_m.mean(0)),
    )


def _over_ears(from_centre: np.ndarray) -> np.ndarray:
    """(P,) share of hair (P, 3), relative to the skull's centre, that lies outside of the ears."""
    aside = np.abs(from_centre[:, 0])
    beside = (np.abs(from_centre[:, 1:] - _EAR_M) < _EAR_HALF_M).all(axis=1) & (aside > _OVER_COVERED_M[1])
    middle = float(np.median(aside[beside])) if beside.any() else 0.0
    covered = smoothstep(np.array(middle), *_COVERED_M)
    return (1 - covered) * smoothstep(aside, *_OVER_EAR_M) + covered * smoothstep(aside, *_OVER_COVERED_M)


def _along(length: np.ndarray) -> np.ndarray:
    """(P,) share of the way from the roots to the tips, from a distance (P,) that grows with it."""
    low, high = np.percentile(length, _ROOT_TO_TIP)
    return smoothstep(length, float(low), float(max(high, low + 1e-6)))


def _gap(hair: np.ndarray) -> np.ndarray:
    """(2,) x and y of the place of the face that is farthest from hair (P, 3); metres from the skull's mean."""
    before = hair[hair[:, 2] > _FACE_M[2]][:, :2]
    x, y = np.meshgrid(np.linspace(-_FACE_M[0], _FACE_M[0], 13), np.linspace(*_FACE_M[1], 13))
    places = np.stack([x, y], axis=-1).reshape(-1, 2)
    if not len(before):
        return places[len(places) // 2]
    return places[cKDTree(before).query(places)[0].argmax()]


class HairOnHead:
    """A hair style on a neutral head, to be shaped again and again.

    Args:
        part: in the slot "hair", made for the model.
        neutral: (V, 3) of the model.

    Raises:
        ParameterError: fewer vertices than the part needs.
    """

    def __init__(self, part: Part, neutral: np.ndarray):
        binding = part.binding
        self.shape, self.fields = part.shape, hair_fields(binding)
        self.placed, root = _conformed(binding, neutral)
        self.scale = _spread(neutral[binding.reference]) / _spread(binding.reference_m)
        self.gap = neutral[binding.reference].mean(0)[:2] + self.scale * self.fields.gap
        self.outward = self.placed - root
        self.outward[:, 1] = np.maximum(self.outward[:, 1], 0)  # hanging hair has its volume aside, its length below

    def with_shape(self, shape: Mapping[str, float]) -> HairOnHead:
        """The same mesh for a style with another shape, see `Part.shape`."""
        result = copy(self)
        result.shape = shape
        return result

    def vertices(self, hair: Hair, surface: HeadSurface | None = None, *, is_exact: bool = True) -> np.ndarray:
        """Vertices (P, 3) with the shape that `hair` asks for.

        Args:
            hair: shape.
            surface: of the neutral head, out of which the hair stays; None for hair that may enter it.
            is_exact: if not, hair only stays off the eyes and outside of the ears, which is faster.
        """
        fields, hair = self.fields, hair.on(self.shape)
        volume = 1 + sum(getattr(fields, name[7:]) * (getattr(hair, name) - 1) for name in VOLUMES)
        factor = volume * (1 + fields.shortness * (hair.length - 1))
        placed = self.placed + (factor - 1)[:, None] * self.outward
        placed[:, 1] -= (hair.length - 1) * fields.hang * self.scale
        if hair.wave:
            placed = placed + self.scale * _waves(fields, hair.wave, placed / self.scale, self.outward)
        if hair.warp.any():
            placed = placed + fields.basis @ hair.warp.astype(np.float64)
        if surface is None:
            return placed
        clear = surface.cleared if is_exact else surface.uncovered
        return clear(placed, hair.fringe, self.gap, fields.over_ears)

    def directions(self, hair: Hair) -> np.ndarray:
        """(4, P, 3) change of the vertices with each of `VOLUMES` and with the length of `hair`, without waves."""
        fields, own, hair = self.fields, self.shape, hair.on(self.shape)
        weights = np.stack([getattr(fields, name[7:]) for name in VOLUMES])
        volume = 1 + (np.array([getattr(hair, name) for name in VOLUMES]) - 1) @ weights
        factors = np.array([own.get(name, 1.0) for name in VOLUMES])[:, None] * weights
        factors = factors * (1 + fields.shortness * (hair.length - 1))
        along = (fields.shortness * volume)[:, None] * self.outward
        along[:, 1] -= fields.hang * self.scale
        return np.concatenate([factors[..., None] * self.outward, own.get("length", 1.0) * along[None]])


def hair_vertices(part: Part, hair: Hair, neutral: np.ndarray, surface: HeadSurface | None = None) -> np.ndarray:
    """Vertices (P, 3) of a hair part on a neutral head, with the shape that `hair` asks for, see `HairOnHead`."""
    return HairOnHead(part, neutral).vertices(hair, surface)


def _waves(fields: HairFields, wave: float, points: np.ndarray, outward: np.ndarray) -> np.ndarray:
    """Displacements (P, 3) of a helix along the length of the hair: sideways, and from the head."""
    away = outward * (1, 0, 1)
    away = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6)
    aside = np.cross((0.0, 1.0, 0.0), away)
    wavelength = _WAVELENGTH_M + wave * (_CURL_M - _WAVELENGTH_M)
    angle = 2 * np.pi * points[:, 1] / wavelength + fields.phase
    size = (_WAVE_M * wave * fields.wave)[:, None]
    return size * (np.cos(angle)[:, None] * away + np.sin(angle)[:, None] * aside)


def follow_head(binding: Binding, placed: np.ndarray, vertices: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Vertices (P, 3) of a hair part on the head with an expression: the rigid motion of the skull.

    Args:
        placed: (P, 3) of `hair_vertices`.
        vertices, neutral: (V, 3) of the model with its expression, and without.
    """
    reference = binding.reference
    rotation, translation = rigid_motion(neutral[reference], vertices[reference])
    return placed @ rotation.T + translation


def _conformed(binding: Binding, neutral: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The style (P, 3) on a head, and the closest point (P, 3) of the skull to each vertex."""
    placed = binding.place(neutral)
    made = binding.reference_m.astype(np.float64)
    target = neutral[binding.reference].astype(np.float64)
    linear = np.linalg.lstsq(made - made.mean(0), target - target.mean(0), rcond=None)[0]
    rest = target - target.mean(0) - (made - made.mean(0)) @ linear
    corner = np.searchsorted(binding.reference, binding.triangle)
    moved, root = (np.einsum("pk,pkd->pd", binding.weights, values[corner]) for values in (rest, target))
    distance = np.linalg.norm(binding.offset, axis=1, keepdims=True)
    return placed + moved * np.exp(-np.square(distance / _RESIDUAL_REACH_M)), root


def _spread(points: np.ndarray) -> float:
    return float(np.sqrt(np.square(points - points.mean(0, dtype=np.float64)).sum(1).mean()))


@lru_cache(maxsize=16)
def _mirrored_binding(key: Same[Binding]) -> Binding:
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
    binding = _mirrored_binding(Same(part.binding))
    return replace(part, binding=binding, faces=part.faces[:, ::-1], uv_faces=part.uv_faces[:, ::-1])
