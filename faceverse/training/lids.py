"""Construct the gaze and lid expressions on a given head: eyeballs rotate, lids slide over them.

Each lid rotates about an axis through the eyeball's centre, parallel to the line between the eye corners. A blendshape
moves along the chord, which cuts through the ball; a lid therefore ends slightly farther out than it began, by the
amount that keeps it outside at half weight.
"""

from __future__ import annotations

import numpy as np

from .edge_loops import LoopGrid
from .head_regions import radius
from .sources import HeadMesh

# Degrees away from the nose and up at weight 1: comfortable gaze without head movement; the physical limit is about 45.
GAZE_DEG = {"eyeLookIn": (-25.0, 0.0), "eyeLookOut": (25.0, 0.0), "eyeLookUp": (0.0, 20.0), "eyeLookDown": (0.0, -25.0)}
# Rotation of upper and lower lid at the middle of the eye, degrees: with the gaze, and in a wide stare.
LID_DEG = {"eyeLookUp": (12.0, 4.0), "eyeLookDown": (-18.0, -6.0), "eyeWide": (9.5, -2.0)}
# Share of the opening that the lower lid closes in a blink, in the middle and at the corners: closed lids meet in a
# curve that is flatter than the lower lid.
LOWER_LID_SHARE, LOWER_LID_SHARE_BESIDE = 0.12, 0.55
OVERLAP_M = 0.0005  # overlap of closed lids, so that subdivision leaves no slit
MEETING_M = 0.0010  # the same where a corrective closes lids that two expressions have moved
CLOSED_M = 0.0002  # overlap of the coarse lids above which the subdivided ones show no slit
_PLACES = np.linspace(0.12, 0.88, 9)  # positions along the eye at which the lids must meet
_MARGIN_RINGS = 3  # rings of the lid margin, from its inner edge to the front
# How far skin follows the margin, ring by ring from the margin outwards, and from the inner edge into the socket.
_OUTWARDS = (1.0, 1.0, 0.98, 0.93, 0.83, 0.66, 0.44, 0.20, 0.06)
_INWARDS = (0.95, 0.88, 0.78, 0.66, 0.54, 0.42, 0.30, 0.18, 0.08, 0.0)
# The upper lid rolls out from under the fold below the brow: the skin between its margin and the fold stretches, the
# skin above hardly moves. Ring of the fold, counted from the inner edge, the share of the margin's rotation that
# reaches it, and the share of that which the rings above follow.
_FOLD_RING, _FOLD_SHARE, _ABOVE_FOLD = 9, 0.03, 0.3
_ROLL_POWER = 1.15  # above 1, more of the stretch lies near the fold
_HALFWAY = (1.0, 1.02, 1.05, 1.06, 1.07)  # radii: least distance from the ball's centre at half weight, ring by ring
_LID = 1.125  # radii: distance of the closed lid's skin from the ball's centre
_LID_POWER = 2.2  # above 1, the closed lid follows the ball farther up before it rises to the fold


class Eyelids:
    """The upper and lower lid of one eye.

    Args:
        head: the base head, for its parts.
        grid: ring grid of this eye's lids.
        vertices: (Vc, 3) the head that the expressions are built on, in metres.
        side: "left" or "right".
    """

    def __init__(self, head: HeadMesh, grid: LoopGrid, vertices: np.ndarray, side: str):
        self.vertices, self.grid = vertices, grid
        self.outward = 1.0 if side == "left" else -1.0
        self.ball = np.flatnonzero(head.part == f"eyeball_{side}")
        self.centre = vertices[self.ball].mean(axis=0)
        self.radius = radius(vertices[self.ball])
        offset = vertices[grid.rings] - self.centre
        corner = self.outward * offset[grid.line + 1, :, 0]
        self.inner, self.outer = int(corner.argmin()), int(corner.argmax())
        axis = offset[grid.line + 1, self.outer] - offset[grid.line + 1, self.inner]
        axis *= self.outward  # points left for both eyes: a positive rotation lowers the lid
        self.axis = axis / np.linalg.norm(axis)
        self.along = self._along(offset)
        self.is_upper = self._upper_spokes(offset)
        self.offset = offset

    def _upper_spokes(self, offset: np.ndarray) -> np.ndarray:
        """(S,) bool: spokes of the upper lid, between the corners."""
        spokes = np.arange(offset.shape[1])
        between = (spokes - self.inner) % len(spokes) < (self.outer - self.inner) % len(spokes)
        height = offset[self.grid.line + 2, :, 1]
        upper = between if height[between].mean() > height[~between].mean() else ~between
        upper[[self.inner, self.outer]] = False
        return upper

    def _along(self, offset: np.ndarray) -> np.ndarray:
        """Places of points (..., 3) about the ball's centre along the axis of the lids, metres."""
        return offset @ self.axis

    def _elevation(self, offset: np.ndarray) -> np.ndarray:
        """Angles of points (..., 3) above the horizontal, about the axis of the lids, radians."""
        forward = np.array([0.0, 0.0, 1.0]) - self.axis[2] * self.axis
        forward /= np.linalg.norm(forward)
        return np.arctan2(offset @ np.cross(forward, self.axis), offset @ forward)

    # -- shapes: offsets (Vc, 3) of the whole head ---------------------------------------------------------------------
    def gaze(self, right_deg: float, up_deg: float) -> np.ndarray:
        """Rotate the ball away from the nose and up by the given angles."""
        yaw, pitch = np.radians(self.outward * right_deg), np.radians(-up_deg)
        about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        result = np.zeros_like(self.vertices)
        ball = self.vertices[self.ball] - self.centre
        result[self.ball] = ball @ (about_y @ about_x).T - ball
        return result

    def blink(self) -> np.ndarray:
        """Rotate both lids until they meet near the lower one."""
        upper, lower = self._curves()
        opening = upper - lower
        slack = OVERLAP_M / self.radius
        lower_share = LOWER_LID_SHARE + (LOWER_LID_SHARE_BESIDE - LOWER_LID_SHARE) * np.abs(self._from_middle()) ** 3
        angle = np.where(self.is_upper, -(1 - lower_share) * opening - slack, lower_share * opening + slack)
        angle[:, [self.inner, self.outer]] = 0
        return self._moved(angle, drawn=True)

    def follow(self, upper_deg: float, lower_deg: float) -> np.ndarray:
        """Rotate the lids up by the given angles in the middle of the eye, less towards its corners."""
        upper, lower = self._curves()
        share = (upper - lower) / (upper - lower).max(axis=1, keepdims=True)
        angle = np.radians(np.where(self.is_upper, upper_deg, lower_deg)) * share
        angle[:, [self.inner, self.outer]] = 0
        return self._moved(angle, drawn=False)

    def clear(self, offsets: np.ndarray) -> np.ndarray:
        """Push offsets (Vc, 3) outwards where they would bring a lid into the ball at weight 0.5 or 1."""
        result = offsets.copy()
        least = np.minimum(np.linalg.norm(self.offset, axis=-1), self._least())
        for share in (0.5, 1.0):
            now = self.offset + share * result[self.grid.rings]
            distance = np.linalg.norm(now, axis=-1)
            push = np.maximum(least - distance, 0) / share
            result[self.grid.rings] += now * (push / distance)[..., None]
        return result

    def meeting(self, vertices: np.ndarray) -> np.ndarray:
        """Offsets (Vc, 3) that make the upper lid of a head (Vc, 3) with closed eyes meet the lower one as in a blink,
        wherever other expressions have moved the two."""
        offset = vertices[self.grid.rings] - self.centre
        upper, lower = self._curves_of(offset)
        angle = np.where(self.is_upper, lower - upper - MEETING_M / self.radius, 0)
        angle[:, [self.inner, self.outer]] = 0
        angle = angle * self._follows()
        distance = np.linalg.norm(offset, axis=-1)
        blinking = np.linalg.norm(self.offset + self.blink()[self.grid.rings], axis=-1)
        wanted = np.where(self.is_upper & (self._way_to_fold() < 1), blinking, distance)
        result = np.zeros_like(vertices)
        result[self.grid.rings] = _rotate(offset, self.axis, -angle) * (wanted / distance)[..., None] - offset
        return result

    def opening(self, vertices: np.ndarray) -> np.ndarray:
        """Lid opening in the middle of the eye, metres: heads (..., Vc, 3) -> (...)."""
        ring = self.grid.rings[self.grid.line + 1]
        middle = 0.5 * (self.along[self.grid.line + 1, self.inner] + self.along[self.grid.line + 1, self.outer])
        nearness = np.abs(self.along[self.grid.line + 1] - middle)
        heights = []
        for lid in (self.is_upper, ~self.is_upper):
            chosen = np.flatnonzero(lid)[np.argsort(nearness[lid])[:3]]
            heights.append(vertices[..., ring[chosen], 1].mean(axis=-1))
        return heights[0] - heights[1]

    def gaps(self, vertices: np.ndarray) -> np.ndarray:
        """Vertical gap (R, C) between upper and lower lid at positions from corner to corner, metres, negative for
        overlap; one row per ring from the lids' inner edge to the front."""
        rows = []
        for ring in self.grid.rings[self.grid.line : self.grid.line + _MARGIN_RINGS]:
            points = vertices[ring]
            along = (points - points[self.inner]) @ self.axis
            along = along / along[self.outer]
            curves = []
            for lid in (self.is_upper, ~self.is_upper):
                lid = np.union1d(np.flatnonzero(lid), (self.inner, self.outer))
                lid = lid[np.argsort(along[lid])]
                curves.append(np.interp(_PLACES, along[lid], points[lid, 1]))
            rows.append(curves[0] - curves[1])
        return np.array(rows)

    def weight_to_close(self, vertices: np.ndarray, blink: np.ndarray) -> float:
        """Weight of the blink offsets (Vc, 3) at which the lids of a head (Vc, 3) are closed everywhere."""
        gap = self.gaps(vertices)
        closing = np.maximum(gap - self.gaps(vertices + blink), 1e-5)
        return float(((gap + CLOSED_M) / closing).min(axis=0).max())

    # -- construction --------------------------------------------------------------------------------------------------
    def _curves(self) -> tuple[np.ndarray, np.ndarray]:
        """The curves of the neutral lids, see `_curves_of`."""
        return self._curves_of(self.offset)

    def _curves_of(self, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Elevation angles of the upper and the lower lid (K, S) at the horizontal position of each spoke, on each ring
        of lids (K, S, 3) about the ball's centre; rings without an opening take those of the nearest that has one."""
        along, elevation = self._along(offset), self._elevation(offset)
        upper, lower = np.empty_like(along), np.empty_like(along)
        first, last = self.grid.line, self.grid.line + _MARGIN_RINGS
        for k in range(len(self.along)):
            ring = min(max(k, first), last)
            for target, lid in ((upper, self.is_upper), (lower, ~self.is_upper)):
                lid = lid.copy()
                lid[[self.inner, self.outer]] = True
                order = np.argsort(along[ring, lid])
                target[k] = np.interp(along[ring], along[ring, lid][order], elevation[ring, lid][order])
        return upper, lower

    def _from_middle(self) -> np.ndarray:
        """(K, S) horizontal place of each vertex, -1 at the inner corner, 1 at the outer one, and within these."""
        front = self.along[self.grid.line + 1]
        ends = front[[self.inner, self.outer]]
        return np.clip((2 * self.along - ends.sum()) / (ends[1] - ends[0]), -1, 1)

    def _follows(self) -> np.ndarray:
        """(K, S) share of the margin's rotation that the skin follows."""
        line, count = self.grid.line, len(self.grid.rings)
        follows = np.zeros(count)
        follows[line : line + _MARGIN_RINGS + 1] = 1
        outwards = follows[line + _MARGIN_RINGS + 1 :]
        outwards[: len(_OUTWARDS)] = _OUTWARDS[: len(outwards)]
        inwards = follows[:line][::-1]
        inwards[: len(_INWARDS)] = _INWARDS[: len(inwards)]
        follows = np.repeat(follows[:, None], self.offset.shape[1], axis=1)
        roll = (1 - _FOLD_SHARE) * (1 - self._way_to_fold() ** _ROLL_POWER) + _FOLD_SHARE
        roll[line + _FOLD_RING + 1 :] *= _ABOVE_FOLD
        follows[line:, self.is_upper] = roll[line:, self.is_upper]
        return follows

    def _outside(self) -> np.ndarray:
        """(K, 1) bool: rings of the visible skin, from the front of the margin outwards."""
        return np.arange(len(self.offset))[:, None] > self.grid.line

    def _way_to_fold(self) -> np.ndarray:
        """(K, S) place of each vertex between the front of the lid's margin, 0, and the fold, 1, along the skin."""
        first, last = self.grid.line + 2, self.grid.line + _FOLD_RING
        steps = np.linalg.norm(np.diff(self.offset, axis=0), axis=-1)
        way = np.concatenate([np.zeros((1, steps.shape[1])), np.cumsum(steps, axis=0)])
        return np.clip((way - way[first]) / (way[last] - way[first]), 0, 1)

    def _least(self) -> np.ndarray:
        """(K, S) least distance of the lids from the ball's centre at half weight, metres."""
        least = np.full(self.along.shape, _HALFWAY[-1])
        least[: self.grid.line + 1] = _HALFWAY[0]
        least[self.grid.line : self.grid.line + len(_HALFWAY)] = np.array(_HALFWAY)[:, None]
        return least * self.radius

    def _moved(self, angle: np.ndarray, *, drawn: bool) -> np.ndarray:
        """Offsets (Vc, 3) of lids rotated up by (K, S) radians at their margin."""
        margin = np.abs(angle[self.grid.line + 2])
        angle = angle * self._follows()
        rotated = _rotate(self.offset, self.axis, -angle)
        distance = np.linalg.norm(self.offset, axis=-1)
        wanted = distance.copy()
        if drawn:
            way, fold = self._way_to_fold(), distance[self.grid.line + _FOLD_RING]
            lid = np.minimum(distance, self.radius * _LID)
            hugging = lid + (np.maximum(fold, lid) - lid) * way**_LID_POWER
            share = np.where(self.is_upper, margin / margin.max(), 0) ** 0.5
            wanted += np.where(self._outside() & (way < 1), share * (hugging - wanted), 0)
        least = np.minimum(self._least(), distance)
        # |d + w n| / 2 = least, for the neutral offset d and the unit direction n of the end position.
        root = np.sqrt(np.maximum(4 * least**2 - (distance * np.sin(angle)) ** 2, 0))
        wanted = np.maximum(wanted, root - distance * np.cos(angle))
        result = np.zeros_like(self.vertices)
        result[self.grid.rings] = rotated * (wanted / distance)[..., None] - self.offset
        return result


def _rotate(points: np.ndarray, axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotate points (..., 3) about a unit axis by (...) radians (Rodrigues)."""
    cosine, sine = np.cos(angle)[..., None], np.sin(angle)[..., None]
    return points * cosine + np.cross(axis, points) * sine + axis * (points @ axis)[..., None] * (1 - cosine)
