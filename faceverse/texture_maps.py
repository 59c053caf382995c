"""Maps in texture space: which point of the surface each texel shows, and vertex values painted into a texture.

Texel (row i, column j) has its centre at u = (j + 0.5) / size, v = (i + 0.5) / size; see camera.py for UV.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from .errors import ParameterError
from .model import FaceModel
from .rasterize import rasterize

PADDING_TEXELS = 8
"""Width of the rim around each chart that repeats the chart's border, enough for three mip levels."""
MAX_SIZE = 8192

_cache: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class UvFragments:
    """The surface point of every texel of a square map. Read-only arrays.

    Attributes:
        triangle: (size, size) int64, index into `faces` and `uv_faces`; texels up to `PADDING_TEXELS` outside a chart
            repeat the nearest texel inside, so that whatever is computed from here is padded; -1 further away.
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
        raise ParameterError(f"a texture map's size must be an integer in 1..{MAX_SIZE}, got {size!r}")
    per_model = _cache.setdefault(model, {})
    if size not in per_model:
        per_model[size] = _rasterize_uv(model, int(size))
    return per_model[size]


def uv_coverage(model: FaceModel, size: int) -> np.ndarray:
    """(size, size) bool, True where a texel's centre lies on the surface."""
    return uv_fragments(model, size).covered


def bake_vertices(model: FaceModel, values: np.ndarray, size: int) -> np.ndarray:
    """Paints vertex values into texture space.

    Args:
        values: (V, C) of any number type.
        size: width and height of the map in texels.
    Returns:
        (size, size, C) float32: interpolated on the surface, repeated around it for `PADDING_TEXELS`, and the mean of
        the covered texels elsewhere, so that neither bilinear lookup nor a smaller mip level shows a seam.
    Raises:
        ParameterError: wrong shape of `values`, or a size as in `uv_fragments`.
    """
    values = np.asarray(values)
    if values.ndim != 2 or len(values) != len(model.mean_vertices):
        raise ParameterError(f"values must have shape ({len(model.mean_vertices)}, C), got {values.shape}")
    fragments = uv_fragments(model, size)
    values = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    shown = fragments.triangle >= 0
    corners = torch.from_numpy(model.faces[fragments.triangle[shown]])
    weights = torch.from_numpy(fragments.barycentric[shown])
    baked = sum(values[corners[:, k]] * weights[:, k : k + 1] for k in range(3))
    on_surface = torch.from_numpy(fragments.covered[shown])
    average = baked[on_surface].mean(0) if on_surface.any() else values.mean(0)
    image = average.repeat(size, size, 1)
    image[torch.from_numpy(shown)] = baked
    return image.numpy()


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
