"""Texture-space maps: the surface point of each texel, and baking of vertex values.

Texel (row i, column j) has its centre at u = (j + 0.5) / size, v = (i + 0.5) / size; see camera.py for UV.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_array

from ..errors import ParameterError
from ..graphics.rasterize import rasterize
from .face_model import FaceModel

PADDING_TEXELS = 8
"""Width of the rim around each chart that repeats the chart's border, enough for three mip levels."""
MAX_SIZE = 8192

_cache: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class UvFragments:
    """The surface point of every texel of a square map. Read-only arrays.

    Attributes:
        triangle: (size, size) int64, index into `faces` and `uv_faces`; texels up to `PADDING_TEXELS` outside a chart
            repeat the nearest texel inside, so that every map computed from it is padded; -1 further away.
        barycentric: (size, size, 3) float32, weights of the triangle's corners; 0 where triangle is -1.
        covered: (size, size) bool, True where the texel's centre lies in a triangle (padding excluded).
    """

    triangle: np.ndarray
    barycentric: np.ndarray
    covered: np.ndarray


def uv_fragments(model: FaceModel, size: int) -> UvFragments:
    """The surface point of every texel of a map of size x size; computed once per model and size.

    Raises:
        ParameterError: size is not an integer in 1..MAX_SIZE.
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not 1 <= size <= MAX_SIZE:
        raise ParameterError("texture.size", most=MAX_SIZE, size=repr(size))
    per_model = _cache.setdefault(model, {})
    if size not in per_model:
        per_model[size] = _rasterize_uv(model, int(size))
    return per_model[size]


def uv_coverage(model: FaceModel, size: int) -> np.ndarray:
    """(size, size) bool, True where a texel's centre lies on the surface."""
    return uv_fragments(model, size).covered


def bake_vertices(model: FaceModel, values: np.ndarray, size: int) -> np.ndarray:
    """Bake vertex values into a texture-space map.

    Args:
        values: (V, C) of any number type.
        size: width and height of the map in texels.
    Returns:
        (size, size, C) float32: interpolated on the surface, padded by `PADDING_TEXELS`, and the mean of the covered
        texels elsewhere, so that neither bilinear lookup nor a smaller mip level shows a seam.
    Raises:
        ParameterError: wrong shape of `values`, or a size as in `uv_fragments`.
    """
    return np.ascontiguousarray(np.moveaxis(bake_planes(model, values, size), 0, 2))


def bake_planes(model: FaceModel, values: np.ndarray, size: int) -> np.ndarray:
    """`bake_vertices` with the channels first, (C, size, size), which is faster to compute and to process."""
    values = np.asarray(values)
    if values.ndim != 2 or len(values) != len(model.mean_vertices):
        raise ParameterError("texture.values_shape", vertices=len(model.mean_vertices), shape=values.shape)
    fragments = uv_fragments(model, size)
    shown, on_surface, matrix = _baking_matrix(model, fragments, size)
    image = np.empty((values.shape[1], size * size), np.float32)
    for plane, column in zip(image, np.asarray(values, dtype=np.float32).T):
        baked = matrix @ np.ascontiguousarray(column)
        plane[:] = baked[on_surface].mean() if on_surface.any() else column.mean()
        plane[shown] = baked
    return image.reshape(-1, size, size)


def _baking_matrix(model: FaceModel, fragments: UvFragments, size: int) -> tuple[np.ndarray, np.ndarray, csr_array]:
    """Interpolation from vertices to texels, computed once per model and size.

    Returns:
        flat indices (P,) of the texels of the surface and its padding; (P,) bool, False for padding; matrix (P, V).
    """
    per_model = _cache.setdefault(model, {})
    key = ("baking", size)
    if key not in per_model:
        shown = np.flatnonzero(fragments.triangle.reshape(-1) >= 0)
        corners = model.faces[fragments.triangle.reshape(-1)[shown]].astype(np.int32)
        weights = fragments.barycentric.reshape(-1, 3)[shown].astype(np.float32)
        rows = np.arange(0, 3 * len(shown) + 1, 3, dtype=np.int32)
        shape = len(shown), len(model.mean_vertices)
        matrix = csr_array((weights.reshape(-1), corners.reshape(-1), rows), shape=shape)
        per_model[key] = shown, fragments.covered.reshape(-1)[shown], matrix
    return per_model[key]


def _rasterize_uv(model: FaceModel, size: int) -> UvFragments:
    corners = np.concatenate([model.uv * np.float32(size), np.ones((len(model.uv), 1), np.float32)], axis=1)
    faces = torch.from_numpy(np.ascontiguousarray(model.uv_faces, dtype=np.int64))
    hits = rasterize(torch.from_numpy(corners.astype(np.float32))[None], faces, (size, size))
    triangle, covered = hits.triangle[0].numpy(), hits.mask[0].numpy()
    source = _nearest_covered(covered, PADDING_TEXELS)
    shown = source >= 0
    padded = np.full(source.shape, -1, np.int64)
    padded[shown] = triangle.reshape(-1)[source[shown]]
    barycentric = np.zeros((*source.shape, 3), np.float32)
    barycentric[shown] = hits.barycentric[0].numpy().reshape(-1, 3)[source[shown]]
    for array in (padded, barycentric, covered):
        array.flags.writeable = False
    return UvFragments(padded, barycentric, covered)


def _nearest_covered(covered: np.ndarray, distance: int) -> np.ndarray:
    """(size, size) int64, flat index of the closest covered texel within `distance` texels, else -1."""
    if not covered.any():
        return np.full(covered.shape, -1, np.int64)
    away, nearest = distance_transform_edt(~covered, return_indices=True)
    return np.where(away <= distance, np.ravel_multi_index(tuple(nearest), covered.shape), -1)
