"""Random smooth deformations of the head from a Gaussian process, which add variation the sculpted targets lack.

Reference: Luethi et al. 2018, "Gaussian Process Morphable Models". The deformations are mostly along the outward
direction, because tangential displacement changes no shape, and mostly symmetric, because people are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .head_regions import find_mouth_cavity, inside_lids, mirror_map, quad_areas, quad_normals, radius
from .sources import HeadMesh

SYMMETRIC_SHARE = 0.85  # of the variance
OUTWARD_BLUR_M = 0.015  # radius of the average over outward directions, so that wrinkles move as one
_EYE_REACH = 1.2  # radii from the eyeball's surface to where the process has its full strength


@dataclass(frozen=True)
class KernelParameters:
    """Parameters of one squared-exponential kernel.

    Args:
        length: metres, length scale.
        outward, along: metres, standard deviation along the outward direction, and per tangential axis.
        near_eyes: factor on both at the eyeballs, which are round and covered by lids.
    """

    length: float
    outward: float
    along: float
    near_eyes: float


KERNELS = (
    KernelParameters(0.050, 0.0015, 0.0004, 1.0),
    KernelParameters(0.025, 0.0011, 0.0002, 0.5),
    KernelParameters(0.012, 0.0006, 0.0001, 0.2),
)


class SmoothDeformation:
    """Draw random deformations of a base head that is symmetric about x = 0.

    Args:
        head: the base head.
        kernels: the kernels whose fields are summed.
    """

    def __init__(self, head: HeadMesh, kernels: tuple[KernelParameters, ...] = KERNELS):
        self._mirror = mirror_map(head.vertices)
        self._outward = outward_directions(head)
        distance = _eye_distance(head)
        self._terms = []
        for p in kernels:
            strength = p.near_eyes + (1 - p.near_eyes) * np.clip(distance / _EYE_REACH, 0, 1)
            self._terms.append((p, smooth_modes(head, p.length, 1.0), strength[:, None]))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Offsets (Vc, 3) in metres."""
        offsets = np.zeros_like(self._outward)
        a, b = np.sqrt(SYMMETRIC_SHARE), np.sqrt(1 - SYMMETRIC_SHARE)
        for kernel, modes, strength in self._terms:
            field = modes @ rng.standard_normal((modes.shape[1], 4))
            same = (field + field[self._mirror]) / np.sqrt(2)
            opposite = (field - field[self._mirror]) / np.sqrt(2)
            field, lateral = a * same + b * opposite, a * opposite + b * same  # a mirror image flips the x component
            along = np.stack([lateral[:, 1], field[:, 2], field[:, 3]], axis=1)
            offsets += strength * (kernel.outward * field[:, :1] * self._outward + kernel.along * along)
        return offsets


def smooth_modes(head: HeadMesh, length: float, sigma: float, rank: int = 300) -> np.ndarray:
    """Low-rank factor (Vc, rank) of a Gaussian process on the vertices.

    Squared-exponential kernel of the given length scale; Nystroem approximation from 700 anchors.
    """
    stride = np.linspace(0, len(head.vertices) - 1, 700).astype(int)
    anchors = head.vertices[stride]
    values, vectors = np.linalg.eigh(_kernel(anchors, anchors, length))
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    keep = values > 1e-6 * values[0]
    return sigma * _kernel(head.vertices, anchors, length) @ (vectors[:, keep] / np.sqrt(values[keep]))


def outward_directions(head: HeadMesh) -> np.ndarray:
    """Unit outward vectors (Vc, 3): normals of the visible skin, averaged over 15 mm.

    Interior parts (back of the lids, mouth, eyes, teeth) take the direction of the nearby skin and move with it.
    """
    vertices, quads = head.vertices, head.quads
    interior = inside_lids(vertices, quads, head.part) | (head.part[quads[:, 0]] != "skin")
    interior[find_mouth_cavity(vertices, quads, head.part)] = True
    visible = quads[~interior]
    centre, normal = (
        vertices[visible].mean(axis=1),
        quad_normals(vertices, visible) * quad_areas(vertices, visible)[:, None],
    )
    directions = np.concatenate(
        [_kernel(block, centre, OUTWARD_BLUR_M) @ normal for block in np.array_split(vertices, 10)]
    )
    return directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)


def _kernel(a: np.ndarray, b: np.ndarray, length: float) -> np.ndarray:
    return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * length**2))


def _eye_distance(head: HeadMesh) -> np.ndarray:
    """(Vc,) signed distance from the nearer eyeball's surface in radii, negative inside."""
    distance = np.full(len(head.vertices), np.inf)
    for side in ("left", "right"):
        ball = head.vertices[head.part == f"eyeball_{side}"]
        distance = np.minimum(distance, np.linalg.norm(head.vertices - ball.mean(axis=0), axis=1) / radius(ball) - 1)
    return distance
