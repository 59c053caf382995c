"""UV unwrapping of the whole heads of versions 3 and 4, whose files have no usable texture layout."""

from __future__ import annotations

import numpy as np
import torch

from ..graphics.rasterize import rasterize

_OUTSIDE = (0.01, 0.01, 0.99, 0.72)  # left, top, right, bottom of the chart of the outer surface
_INSIDE = (0.01, 0.735, 0.99, 0.87)  # inside of mouth and nostrils, skin behind the ears
_PARTS = (0.01, 0.885, 0.99, 0.99)  # eyeballs, teeth, tongue
_GAP = 0.01
_GRID = 1536
_OVERHANG_RAD = 0.35  # how far triangles may extend beyond the seam at the back
_MIN_VISIBLE = 0.5  # share of a triangle that must be visible from outside


def unwrap_head(vertices: np.ndarray, faces: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unwrap a whole head: a cylinder with a spherical top, with its seam at the back, for the outer surface.

    Occluded surface of the head has a chart of its own; each other part is projected around its centre from the front.

    Args:
        vertices: (V, 3) metres, head space.
        faces: (F, 3).
        parts: (P,) ascending vertex indices that bound the further parts; vertices before the first are the head. May
            be empty.
    Returns:
        uv (U, 2) with origin top left, its first V rows in the order of the vertices; uv_faces (F, 3).
    """
    count = len(vertices)
    end = int(parts[0]) if len(parts) else count
    of_head = (faces < end).all(1)
    around, radius = _around(vertices, vertices[:end])
    corners = around[faces].astype(np.float64)
    across = of_head & (np.ptp(corners[..., 0], axis=1) > np.pi)
    corners[..., 0] += 2 * np.pi * (across[:, None] & (corners[..., 0] < 0))
    corners[..., 0] = corners[..., 0].clip(max=np.pi + _OVERHANG_RAD)
    place = np.zeros((len(faces), 3, 2))
    place[of_head] = _fitted(corners[of_head], _OUTSIDE)
    outside = of_head.copy()
    outside[of_head] = _visible(place[of_head], radius[faces[of_head]])
    inside = of_head & ~outside
    if inside.any():
        place[inside] = _fitted(corners[inside], _INSIDE)
    bounds = [*map(int, parts), count] if len(parts) else []
    charts = [(a, b) for a, b in zip(bounds, bounds[1:]) if b > a]
    width = (_PARTS[2] - _PARTS[0]) / max(len(charts), 1)
    side = min(width - _GAP, _PARTS[3] - _PARTS[1])  # square cells keep eyeballs round
    for number, (first, last) in enumerate(charts):
        chosen = ~of_head & (faces >= first).all(1) & (faces < last).all(1)
        left = _PARTS[0] + number * width
        flat = _fitted(_azimuthal(vertices[first:last]), (left, _PARTS[1], left + side, _PARTS[1] + side))
        place[chosen] = flat[faces[chosen] - first]
    return _numbered(faces, place, count)


def _around(vertices: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cylindrical angle and downward angle (V, 2) in radians, and radius (V,) for the visibility test."""
    middle = (head.min(0) + head.max(0)) / 2
    x, y, z = (vertices - middle).T
    flat = np.hypot(x, z)
    girth = float(np.median(np.hypot(*(head - middle)[:, [0, 2]].T)))
    down = np.where(y > 0, -np.arctan2(y, flat), -y / girth)
    return np.stack([np.arctan2(x, z), down], axis=1), np.where(y > 0, np.hypot(flat, y), flat)


def _visible(place: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """(F,) triangles that are mostly visible from outside, by a z-buffer over their chart corners (F, 3, 2)."""
    count = len(place)
    depth = 1 + radius.max() - radius
    pixels = np.concatenate([place * _GRID, depth[..., None]], axis=2).reshape(1, -1, 3)
    hits = rasterize(torch.from_numpy(pixels), torch.arange(3 * count).reshape(-1, 3), (_GRID, _GRID))
    visible = hits.triangle[hits.triangle >= 0].numpy()
    a, b = place[:, 1] - place[:, 0], place[:, 2] - place[:, 0]
    area = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2 * _GRID**2
    return np.bincount(visible, minlength=count) > _MIN_VISIBLE * area


def _azimuthal(points: np.ndarray) -> np.ndarray:
    """Azimuthal equidistant projection (K, 2) of points (K, 3) around their centre, with the front at the origin."""
    direction = points - points.mean(0)
    direction = direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-12)
    reach = np.arccos(np.clip(direction[:, 2], -1, 1))
    around = np.arctan2(-direction[:, 1], direction[:, 0])
    return np.stack([reach * np.cos(around), reach * np.sin(around)], axis=1)


def _fitted(points: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Stretch points (..., 2) to a box."""
    flat = points.reshape(-1, 2)
    low, size = flat.min(0), np.maximum(np.ptp(flat, axis=0), 1e-12)
    return np.array(box[:2]) + (points - low) / size * (np.array(box[2:]) - np.array(box[:2]))


def _numbered(faces: np.ndarray, place: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Index corners (F, 3, 2) as uv (U, 2): a vertex' first place in its own row, those across seams at the end."""
    keys = np.concatenate([faces.reshape(-1, 1), np.round(place.reshape(-1, 2) * 1e6).astype(np.int64)], axis=1)
    places, first, corner = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    is_own = np.diff(places[:, 0], prepend=-1) > 0
    row = np.where(is_own, places[:, 0], count + np.cumsum(~is_own) - 1)
    uv = np.full((count + int((~is_own).sum()), 2), 0.5, np.float32)
    uv[row] = place.reshape(-1, 2)[first]
    return uv, row[corner.reshape(-1)].reshape(faces.shape)
