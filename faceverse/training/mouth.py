"""Correct the mouths of generated heads: touching lips, teeth behind them, the tongue on the floor of the mouth.

The source's targets move upper and lower lip apart or through each other, and place teeth and tongue where opening lips
would not show them.
"""

from __future__ import annotations

import numpy as np

from ..graphics.mesh import subdivide_smooth, subdivision
from .edge_loops import mouth_grid
from .sources import HeadMesh

LIP_OVERLAP_M = 0.0013  # of closed lips on the subdivided mesh: enough for heads that the basis only approximates
# Edges of the front teeth below the lip line, and their front behind the inside of the lips, metres.
UPPER_TEETH_BELOW_M, LOWER_TEETH_BELOW_M = 0.0026, -0.0004
UPPER_TEETH_BEHIND_M, LOWER_TEETH_BEHIND_M = 0.0008, 0.0062
# Width of the dental arches and of the tongue relative to the mouth: molars stay behind the corners of an open mouth.
TEETH_WIDTH, TONGUE_WIDTH = 1.45, 0.95
TONGUE_BELOW_M, TONGUE_BEHIND_M = 0.0125, 0.0110  # its tip, from the edge and the back of the lower front teeth
OVERJET_M = (-0.0010, 0.0035)  # range of the upper lip's lowest points in front of the lower lip's highest
LIP_THICKNESS_M = 0.0055  # thickness between mouth cavity and face in the middle; zero at the corners
COLUMNS = 15  # positions along the mouth at which the lips meet
_DEPTHS = 24  # samples from the back to the front of the lips for their distance
_TOUCHING_RINGS = (-2, 6)  # of the grid about its line: the lip surfaces that can touch
_FADE_RINGS = 7  # over which the displacement of the lips fades into the face


class LipContact:
    """Contact line of upper and lower lip on the subdivided surface of heads with the base head's topology.

    Args:
        head: the base head.
    """

    def __init__(self, head: HeadMesh):
        self.grid = mouth_grid(head)
        self.patch = np.unique(self.grid.rings)
        self._refine = _refined_rings(head, self.grid.rings, self.patch)
        at = head.vertices[self.grid.rings[self.grid.line]]
        spokes = np.arange(len(at))
        left, right = int(at[:, 0].argmax()), int(at[:, 0].argmin())
        self.upper = (spokes <= left) | (spokes >= right)
        self.lower = (spokes >= left) & (spokes <= right)
        self.corners = (left, right)

    def contact(self, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns from the right corner to the left: x (C,); the gap (C,), the least vertical distance between the two
        surfaces, negative for overlap; and the height (C,) of the contact. All metres."""
        x, upper, lower = self._profiles(shape)
        depth = np.concatenate([upper, lower], axis=1)[..., 1]
        z = np.linspace(depth.min(axis=1), depth.max(axis=1), _DEPTHS, axis=1)
        above, below = -_envelope(upper * (-1, 1), z), _envelope(lower, z)
        apart = ~(np.isfinite(above) & np.isfinite(below)).any(axis=1)  # one lip wholly behind the other
        above[apart], below[apart] = upper[apart, :, 0].min(1)[:, None], lower[apart, :, 0].max(1)[:, None]
        nearest = (above - below).argmin(axis=1)
        column = np.arange(len(x))
        above, below = above[column, nearest], below[column, nearest]
        return x, above - below, 0.5 * (above + below)

    def overjet(self, shape: np.ndarray) -> np.ndarray:
        """(C,) metres by which the upper lip's lowest points are in front of the lower lip's highest."""
        _, upper, lower = self._profiles(shape)
        column = np.arange(len(upper))
        return upper[column, upper[..., 0].argmin(axis=1), 1] - lower[column, lower[..., 0].argmax(axis=1), 1]

    def _profiles(self, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x of the columns (C,), and y and z (C, K, 2) of the upper and the lower lip's surface there."""
        low, high = (2 * (self.grid.line + k) for k in _TOUCHING_RINGS)
        rings = np.einsum("kso,od->ksd", self._refine[low:high], shape[self.patch])
        ends = rings[:, list(self.corners), 0].mean(axis=0)
        x = np.linspace(ends[1], ends[0], COLUMNS + 2)[1:-1]
        upper = np.stack([_at(ring[self.upper], x) for ring in rings], axis=1)
        return x, upper, np.stack([_at(ring[self.lower], x) for ring in rings], axis=1)


class MouthCorrector:
    """Corrects the mouths of heads with the source's topology.

    Args:
        head: the base head.
    """

    def __init__(self, head: HeadMesh):
        self.lips = LipContact(head)
        self._part = {name: head.part == name for name in ("teeth_upper", "teeth_lower", "tongue")}
        self._refine = {name: _refined_part(head, name) for name in ("teeth_upper", "teeth_lower")}
        self._fade = np.zeros(self.lips.grid.rings.shape)
        steps = np.abs(np.arange(len(self._fade)) - self.lips.grid.line) / _FADE_RINGS
        self._fade += (np.clip(1 - steps, 0, 1) ** 0.7)[:, None]

    def correct(self, shape: np.ndarray) -> np.ndarray:
        """Close the lips of a head (Vc, 3) and place teeth and tongue behind them."""
        result = self.with_thickness(self._one_above_the_other(shape))
        result = self.with_gap(result, -LIP_OVERLAP_M)
        self._place(result)
        return result

    def with_gap(self, shape: np.ndarray, gap: float | np.ndarray, upper_share: float = 0.5) -> np.ndarray:
        """Move the lips vertically until they are `gap` metres apart, () or (C,) from the right corner to the left.

        The displacement fades over the surrounding rings and towards the corners; the upper lip makes `upper_share` of
        it.
        """
        rings = self.lips.grid.rings
        result = shape.copy()
        for _ in range(4):
            _, now, _ = self.lips.contact(result)
            share = np.where(self.lips.upper, -upper_share, 1 - upper_share)
            result[rings, 1] += share * self._faded(result, now - gap)
        return result

    def _one_above_the_other(self, shape: np.ndarray) -> np.ndarray:
        """Move the lips forwards or backwards where they would miss each other."""
        overjet = self.lips.overjet(shape)
        excess = overjet - np.clip(overjet, *OVERJET_M)
        result = shape.copy()
        share = np.where(self.lips.upper, -0.3, 0.7)
        result[self.lips.grid.rings, 2] += share * self._faded(shape, excess)
        return result

    def _faded(self, shape: np.ndarray, way: np.ndarray) -> np.ndarray:
        """Displacements (C,) of the columns, smoothed along the mouth, extended to all grid vertices (K, S)."""
        rings, corners = self.lips.grid.rings, list(self.lips.corners)
        ends = shape[rings[self.lips.grid.line, corners], 0]
        x = np.linspace(ends[1], ends[0], COLUMNS + 2)
        longer = np.pad(way, 1, mode="edge")
        smooth = 0.25 * longer[:-2] + 0.5 * way + 0.25 * longer[2:]
        faded = np.interp(np.clip(shape[rings, 0], ends[1], ends[0]), x, [0, *smooth, 0]) * self._fade
        faded[:, corners] = 0
        return faded

    def with_thickness(self, shape: np.ndarray) -> np.ndarray:
        """Move the inside of the lips back where they are thinner than LIP_FLESH_M, so that it does not show below a
        curled lip."""
        rings, line = self.lips.grid.rings, self.lips.grid.line
        result = shape.copy()
        ends = shape[rings[line, list(self.lips.corners)], 0]
        for spoke in range(rings.shape[1]):
            inside, outside = shape[rings[:line, spoke]], shape[rings[line + 1 :, spoke]]
            order = np.argsort(outside[:, 1])
            front = np.interp(inside[:, 1], outside[order, 1], outside[order, 2], left=np.inf, right=np.inf)
            from_middle = (2 * inside[:, 0] - ends.sum()) / (ends[0] - ends[1])
            least = LIP_THICKNESS_M * np.clip(1.5 * (1 - np.abs(from_middle)), 0, 1)
            result[rings[:line, spoke], 2] -= np.maximum(inside[:, 2] + least - front, 0)
        return result

    def _place(self, shape: np.ndarray) -> None:
        _, _, height = self.lips.contact(shape)
        line = np.median(height[COLUMNS // 3 : -(COLUMNS // 3)])
        width = np.ptp(shape[self.lips.grid.rings[self.lips.grid.line, list(self.lips.corners)], 0])
        rings, inside = self.lips.grid.rings, self.lips.grid.line - 2
        middle = len(self.lips.upper) // 2  # of the lower lip; spoke 0 is the middle of the upper one
        behind = min(shape[rings[inside, 0], 2], shape[rings[inside, middle], 2])
        for name, below, back, edge in (
            ("teeth_upper", UPPER_TEETH_BELOW_M, UPPER_TEETH_BEHIND_M, np.min),
            ("teeth_lower", LOWER_TEETH_BELOW_M, LOWER_TEETH_BEHIND_M, np.max),
        ):
            teeth = shape[self._part[name]]
            fine = self._refine[name] @ teeth
            front = fine[fine[:, 2] > fine[:, 2].max() - 0.004]
            teeth += (0, line - below - edge(front[:, 1]), behind - back - front[:, 2].max())
            teeth[:, 0] *= TEETH_WIDTH * width / np.ptp(teeth[:, 0])
            shape[self._part[name]] = teeth
        tongue = shape[self._part["tongue"]]
        tip = tongue[tongue[:, 2].argmax()]
        goal = (line - LOWER_TEETH_BELOW_M - TONGUE_BELOW_M, behind - LOWER_TEETH_BEHIND_M - TONGUE_BEHIND_M)
        tongue += (0, goal[0] - tip[1], goal[1] - tip[2])
        tongue[:, 0] *= TONGUE_WIDTH * width / np.ptp(tongue[:, 0])
        shape[self._part["tongue"]] = tongue


def _envelope(profile: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Highest y (C, D) of polylines (C, K, 2) of y and z at depths z (C, D), minus infinity where undefined."""
    start, end, at = profile[:, :-1, None], profile[:, 1:, None], z[:, None]
    run = end[..., 1] - start[..., 1]
    share = (at - start[..., 1]) / np.where(np.abs(run) < 1e-9, 1e-9, run)
    y = start[..., 0] + share * (end[..., 0] - start[..., 0])
    return np.where((share >= 0) & (share <= 1), y, -np.inf).max(axis=1)


def _at(ring: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y and z (C, 2) of a curve (S, 3) across the mouth at positions x (C,)."""
    ring = ring[np.argsort(ring[:, 0], kind="stable")]
    return np.stack([np.interp(x, ring[:, 0], ring[:, k]) for k in (1, 2)], axis=1)


def _refined_part(head: HeadMesh, name: str) -> np.ndarray:
    """Subdivision weights (F, P) of a part's vertices."""
    part = np.flatnonzero(head.part == name)
    place = np.full(len(head.vertices), -1)
    place[part] = np.arange(len(part))
    quads = place[head.quads[head.part[head.quads[:, 0]] == name]]
    return subdivide_smooth(np.eye(len(part)), subdivision(quads, len(part)))


def _refined_rings(head: HeadMesh, rings: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """Subdivision weights (2K - 1, S, P) of the patch's vertices for the rings (rows 0, 2, ...) and for points halfway
    between them."""
    place = np.full(len(head.vertices), -1)
    place[patch] = np.arange(len(patch))
    quads = place[head.quads]
    quads = quads[(quads >= 0).all(axis=1)]
    topology = subdivision(quads, len(patch))
    weights = subdivide_smooth(np.eye(len(patch)), topology)
    number = {tuple(edge): len(patch) + k for k, edge in enumerate(topology.edges.tolist())}
    local = place[rings]
    rows = []
    for k, ring in enumerate(local):
        rows.append(ring)
        if k + 1 < len(local):
            rows.append([number[tuple(sorted(pair))] for pair in zip(ring.tolist(), local[k + 1].tolist())])
    return weights[np.array(rows)]
