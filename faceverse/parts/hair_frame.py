"""What light does in hair: directions of the strands, smooth normals, and how deep in the hair a place lies.

Cards of hair are flat, hair is not: it is lit as the volume that it fills, with normals that point away from the head,
and its highlights follow the strands. Light that reaches a place in the hair or on the skin below falls with the amount
of hair above it.

Dimensions: P vertices of hair, N places. Positions are metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from .hair_clearance import outward_normals
from .identity import Same
from .part import Part

_ROUNDNESS = 0.75  # share of the head's outward direction in the normals of hair
_UPRIGHT = 0.35  # of the height in that direction below the middle of the skull, where hair hangs
_STRAND_PX = 7.0  # scale over which the direction of strands in a texture is averaged
_VOXEL_M, _BLUR_VOXELS = 0.008, 1.5
_REACH_M = (0.006, 0.016, 0.026, 0.036)  # distances from a place, at which hair above it is counted
_OPACITY = 0.55  # share of the light that a layer of hair above takes, as an extinction per layer
_OWN_LAYERS = 0.7  # layers that a place in the hair counts of its own card and those beside it
_DEEPEST = 0.30  # least light in the hair
_HEAD_LAYERS, _HEAD_DEPTH_M = 6.0, 0.010  # the head takes light as so many layers of hair so deep below its skin do
_SKIN_OPACITY, _SKIN_DEEPEST = 0.30, 0.55


@dataclass(frozen=True)
class HairFrame:
    """Hair as light meets it.

    Attributes:
        normals: (P, 3) unit vectors out of the hair.
        tangents: (P, 3) unit vectors along the strands, of either sign.
    """

    normals: np.ndarray
    tangents: np.ndarray

    @classmethod
    def of(cls, part: Part, placed: np.ndarray, middle: np.ndarray) -> HairFrame:
        """The frame of a hair part at its vertices (P, 3) on a head.

        Args:
            middle: (3,) of the skull.
        """
        is_scalp = part.slot == "scalp"
        normals = outward_normals(placed, part.faces) if is_scalp else hair_normals(placed, part.faces, middle)
        return cls(np.float32(normals), np.float32(_tangents(part, placed, middle)))


def hair_normals(placed: np.ndarray, faces: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """(P, 3) unit vectors out of the hair at vertices (P, 3) of cards with faces (F, 3).

    Args:
        middle: (3,) of the skull.
    """
    card = outward_normals(placed, faces)
    away = placed - middle
    away[:, 1] = np.where(away[:, 1] < 0, _UPRIGHT * away[:, 1], away[:, 1])
    away = _unit(away)
    card = card * np.where((card * away).sum(1, keepdims=True) < 0, -1, 1)
    return _unit(_ROUNDNESS * away + (1 - _ROUNDNESS) * card)


@dataclass(frozen=True)
class HairDensity:
    """Amount of hair in space.

    Attributes:
        values: (X, Y, Z) layers of hair per metre, smooth.
        solid: (X, Y, Z) likewise, with the head counted as hair.
        origin: (3,) metres, of the first voxel's middle.
    """

    values: np.ndarray
    solid: np.ndarray
    origin: np.ndarray

    @classmethod
    def of(cls, part: Part, placed: np.ndarray, skin: np.ndarray, skin_normals: np.ndarray) -> HairDensity:
        """The density of a hair part at its vertices (P, 3), on a head with vertices and unit normals (V, 3)."""
        corners = placed[part.faces].astype(np.float64)
        area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        area = area * _face_alpha(part)
        margin = (4 * _BLUR_VOXELS + 1) * _VOXEL_M
        origin = placed.min(0) - margin
        size = np.ceil((placed.max(0) + margin - origin) / _VOXEL_M).astype(int) + 1
        total = np.zeros(tuple(size))
        for share in ((2 / 3, 1 / 6, 1 / 6), (1 / 6, 2 / 3, 1 / 6), (1 / 6, 1 / 6, 2 / 3)):
            voxel = np.rint((np.einsum("fkd,k->fd", corners, share) - origin) / _VOXEL_M).astype(int)
            np.add.at(total, tuple(voxel.T), area / 3)
        voxel = np.rint((skin - _HEAD_DEPTH_M * skin_normals - origin) / _VOXEL_M).astype(int)
        voxel = voxel[((voxel >= 0) & (voxel < size)).all(axis=1)]
        head = np.zeros_like(total)
        head[tuple(voxel.T)] = _HEAD_LAYERS * _VOXEL_M**2
        values, head = (gaussian_filter(grid, _BLUR_VOXELS, mode="constant") / _VOXEL_M**3 for grid in (total, head))
        return cls(values, values + head, origin)

    def layers(self, points: np.ndarray, directions: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Layers (N,) of hair above points (N, 3) in unit directions (N, 3); of a grid, by default `values`."""
        values = self.values if values is None else values
        step = _REACH_M[1] - _REACH_M[0]
        total = np.zeros(len(points))
        for reach in _REACH_M:
            place = (points + reach * directions - self.origin) / _VOXEL_M
            total += map_coordinates(values, place.T, order=1, mode="constant") * step
        return total

    def light_in_hair(self, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Share (N,) float32 of the light that arrives at points (N, 3) in the hair; directions as in `layers`."""
        above = np.maximum(self.layers(points, directions, self.solid) - _OWN_LAYERS, 0)
        return np.float32(np.maximum(np.exp(-_OPACITY * above), _DEEPEST))

    def light_below(self, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Share (N,) float32 of the light that arrives at points (N, 3) of the skin below the hair."""
        return np.float32(np.maximum(np.exp(-_SKIN_OPACITY * self.layers(points, directions)), _SKIN_DEEPEST))


def _tangents(part: Part, placed: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """(P, 3) unit vectors along the strands that the texture shows, away from the crown."""
    along = _strand_directions(Same(part.material.texture), Same(part.uv))[part.uv_faces].mean(1)
    edges = placed[part.faces[:, 1:]] - placed[part.faces[:, :1]]
    corners = part.uv[part.uv_faces].astype(np.float64)
    (du1, dv1), (du2, dv2) = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
    determinant = du1 * dv2 - du2 * dv1
    determinant = np.where(np.abs(determinant) < 1e-12, 1e-12, determinant)
    first, second = (along[:, 0] * dv2 - along[:, 1] * du2), (along[:, 1] * du1 - along[:, 0] * dv1)
    direction = _unit((first / determinant)[:, None] * edges[:, 0] + (second / determinant)[:, None] * edges[:, 1])
    outward = placed[part.faces].mean(1) - (middle + (0, 0.09, -0.03))
    direction *= np.where((direction * outward).sum(1, keepdims=True) < 0, -1, 1)
    total = np.stack(
        [np.bincount(part.faces.ravel(), np.repeat(direction[:, d], 3), len(placed)) for d in range(3)], axis=1
    )
    return _unit(total)


@lru_cache(maxsize=64)
def _strand_directions(texture: Same[np.ndarray], uv: Same[np.ndarray]) -> np.ndarray:
    """(U, 2) directions of the strands at texture coordinates, of either sign, from the texture's structure tensor.

    Reference: Bigün and Granlund, Optimal Orientation Detection of Linear Symmetry, 1987.
    """
    pixels = texture.value
    grey = pixels[..., :3].mean(2) * (pixels[..., 3] > 0)
    down, across = np.gradient(gaussian_filter(grey, 1.0))
    tensor = [gaussian_filter(product, _STRAND_PX) for product in (across * across, across * down, down * down)]
    size = np.array([pixels.shape[1], pixels.shape[0]])
    place = (uv.value * size - 0.5).T[::-1]
    xx, xy, yy = (map_coordinates(values, place, order=1, mode="nearest") for values in tensor)
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2  # across the gradient
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) / size * size.max()


def _face_alpha(part: Part) -> np.ndarray:
    """(F,) alpha of the texture in the middle of each triangle."""
    alpha = part.material.texture[..., 3]
    place = part.uv[part.uv_faces].mean(1) * (alpha.shape[1], alpha.shape[0])
    column, row = np.clip(place.astype(int), 0, np.array(alpha.shape[::-1]) - 1).T
    return alpha[row, column] / 255.0


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-9)
