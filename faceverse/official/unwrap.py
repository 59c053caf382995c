"""A texture layout for the whole heads of versions 3 and 4, whose files carry none that a texture could use."""

from __future__ import annotations

import numpy as np

_HEAD = (0.01, 0.01, 0.99, 0.86)  # left, top, right, bottom of the head's chart
_PARTS = (0.01, 0.875, 0.99, 0.99)  # strip of the charts of eyeballs, teeth and tongue
_GAP = 0.01


def unwrap_head(vertices: np.ndarray, faces: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cylinder for the head, cut at the back; the other parts seen from the front, each from its own middle.

    Surfaces behind each other on the same ray (inside of the mouth, back of the ears) share texels.

    Args:
        vertices: (V, 3) metres, head space.
        faces: (F, 3).
        parts: where further parts begin and end, (P,) rising; vertices before the first are the head. May be empty.
    Returns:
        uv (U, 2) with origin top left, its first V rows in the order of the vertices; uv_faces (F, 3).
    """
    count = len(vertices)
    head = slice(0, int(parts[0]) if len(parts) else count)
    uv = np.zeros((count, 2))
    middle = vertices[head].mean(0)
    angle = np.arctan2(vertices[:, 0] - middle[0], vertices[:, 2] - middle[2])
    uv[head, 0], uv[head, 1] = angle[head], -vertices[head, 1]
    is_head = np.zeros(count, bool)
    is_head[head] = True
    uv, uv_faces = _cut_at_the_back(uv, faces, angle, is_head)
    of_head = np.concatenate([is_head, np.ones(len(uv) - count, bool)])
    uv[of_head] = _fitted(uv[of_head], _HEAD)
    bounds = [*map(int, parts), count] if len(parts) else []
    charts = [slice(a, b) for a, b in zip(bounds, bounds[1:]) if b > a]
    width = (_PARTS[2] - _PARTS[0]) / max(len(charts), 1)
    for number, chart in enumerate(charts):
        left = _PARTS[0] + number * width
        # Square cells keep eyeballs round.
        side = min(width - _GAP, _PARTS[3] - _PARTS[1])
        uv[chart] = _fitted(_from_the_middle(vertices[chart]), (left, _PARTS[1], left + side, _PARTS[1] + side))
    return uv.astype(np.float32), uv_faces


def _cut_at_the_back(uv: np.ndarray, faces: np.ndarray, angle: np.ndarray, is_head: np.ndarray):
    """Triangles that reach over the back get copies of their vertices from the other side, one turn further."""
    corners = angle[faces]
    across = (np.ptp(corners, axis=1) > np.pi) & is_head[faces].all(1)
    far = across[:, None] & (corners < 0)
    wanted = np.unique(faces[far])
    kept = np.unique(faces[~far])
    moved = np.setdiff1d(wanted, kept)  # needed on the other side only: no copy
    uv = uv.copy()
    uv[moved, 0] += 2 * np.pi
    copied = np.intersect1d(wanted, kept)
    place = np.arange(len(uv))
    place[copied] = len(uv) + np.arange(len(copied))
    uv_faces = np.where(far, place[faces], faces)
    return np.concatenate([uv, uv[copied] + np.array([2 * np.pi, 0])]), uv_faces


def _from_the_middle(points: np.ndarray) -> np.ndarray:
    """Azimuthal equidistant projection (K, 2) of points (K, 3) around their centre, the front in the middle."""
    direction = points - points.mean(0)
    direction = direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-12)
    reach = np.arccos(np.clip(direction[:, 2], -1, 1))
    around = np.arctan2(-direction[:, 1], direction[:, 0])
    return np.stack([reach * np.cos(around), reach * np.sin(around)], axis=1)


def _fitted(points: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Points (K, 2) stretched to a box."""
    low, size = points.min(0), np.maximum(np.ptp(points, axis=0), 1e-12)
    return np.array(box[:2]) + (points - low) / size * (np.array(box[2:]) - np.array(box[:2]))
