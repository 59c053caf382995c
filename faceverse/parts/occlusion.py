"""Ambient occlusion of parts: how much of the light around a head reaches teeth, tongue, cavity and eyes.

The inside of the mouth is lit through the opening between the lips. The share of light at a point is the solid angle
of that opening; behind closed lips it is zero. Eyes lie in the shadow of their lids, which fades with the distance
from the lids' edges. Both are smooth, cheap, and depend on nothing but positions, so that programs that animate a head
can compute them too.

Values are those of glTF's occlusion: 1 where all light arrives, 0 where none does.
"""

from __future__ import annotations

import numpy as np

# MediaPipe's landmarks from the corner at the subject's right to the one at the left; those of the upper and the lower
# lip lie above each other.
INNER_LIPS = (
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
    (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
)
LID_EDGES = {  # by slot; upper and lower
    "eye_left": ((362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263)),
    "eye_right": ((33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133)),
}

_MOUTH_CURVE = 3.0  # light is reflected between lips, teeth and cavity: more arrives than comes in straight
_LID_SHADOWS = ((0.72, 3.4e-3), (0.4, 1.6e-3))  # of the upper and lower lid: strength at the edge, reach in metres


def mouth_light(points: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Compute the share of light that reaches points through the opening of the mouth.

    Args:
        points: (P, 3) metres, head space.
        upper, lower: (K, 3) inner edges of the lips, from the subject's right corner to the left one.

    Returns:
        (P,) float32, 0 dark .. 1 lit; 1 in front of the opening.

    Reference: van Oosterom and Strackee, The solid angle of a plane triangle, 1983.
    """
    count = len(upper)
    right, left = np.arange(count - 1), np.arange(1, count)
    triangles = np.concatenate(
        [np.stack([right, right + count, left + count], 1), np.stack([right, left + count, left], 1)]
    )
    angle = _solid_angle(points, np.concatenate([upper, lower]), triangles)
    in_front = (angle < 0) & (points[:, 2] > (upper[:, 2].mean() + lower[:, 2].mean()) / 2)
    share = np.where(in_front, 1, np.clip(angle / (2 * np.pi), 0, 1))
    return np.float32(1 - (1 - share) ** _MOUTH_CURVE)


def lid_light(points: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Compute the share of light that reaches points of an eyeball beside its lids.

    Args:
        points: (P, 3) metres, head space.
        upper, lower: (K, 3) edges of the lids.

    Returns:
        (P,) float32, 0 dark .. 1 lit.
    """
    light = np.ones(len(points), np.float32)
    for edge, (strength, reach) in zip((upper, lower), _LID_SHADOWS, strict=True):
        light *= 1 - strength * np.exp(-((_distance(points, edge) / reach) ** 1.5))
    return light


def _solid_angle(points: np.ndarray, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Solid angle (P,) of triangles (T, 3) of vertices (K, 3) that show points (P, 3) their backs, less that of those
    that show their fronts; at most 2 pi each."""
    x, y, z = (np.float32(vertices[:, None, axis] - points[:, axis]) for axis in range(3))  # (K, P)
    length = np.sqrt(x * x + y * y + z * z)

    def dot(one: int, two: int) -> np.ndarray:
        return x[one] * x[two] + y[one] * y[two] + z[one] * z[two]

    total = np.zeros(len(points), np.float32)
    for one, two, three in triangles.tolist():
        volume = x[one] * (y[two] * z[three] - z[two] * y[three])
        volume += y[one] * (z[two] * x[three] - x[two] * z[three])
        volume += z[one] * (x[two] * y[three] - y[two] * x[three])
        edges = dot(one, two) * length[three] + dot(two, three) * length[one] + dot(three, one) * length[two]
        total += 2 * np.arctan2(volume, length[one] * length[two] * length[three] + edges)
    return total


def _distance(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Distance (P,) of points (P, 3) to a polyline (K, 3)."""
    start, along = line[:-1], np.diff(line, axis=0)
    share = np.einsum("pkd,kd->pk", points[:, None] - start, along) / np.square(along).sum(1).clip(1e-12)
    nearest = start + share.clip(0, 1)[..., None] * along
    return np.sqrt(np.square(points[:, None] - nearest).sum(-1).min(1))
