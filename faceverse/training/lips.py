"""Pose the lips of the base head: where their middle, their corners and the chin go in each shape.

A pose names displacements of a few points in millimetres. Between middle and corner the lips follow a smooth curve,
across a lip the displacement goes linearly from its inner to its outer border, and the skin around follows smoothly
(`surface_handles`). The source's own shape supplies everything else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .edge_loops import mouth_grid
from .sources import HeadMesh
from .surface_handles import SurfaceHandles

Offset = tuple[float, float, float]  # millimetres to the subject's left, up, forward
_INNER_RING, _OUTER_RING = 1, 6  # rings of the lips' inner and outer border, counted from the contact line
_MOVED_RINGS = (-1, 6)  # rings that move exactly as posed
_VESTIBULE = {
    -6: 0.35,
    -5: 0.55,
    -4: 0.8,
}  # rings between lips and gums, and their share of the lips' mean displacement
_STILL_CAVITY_RING = -7  # and deeper
_CORNER = (4, 10)  # ring and spoke of the mouth's left corner
_SIDE_BLEND = 0.9  # share of the mouth's half width over which a one-sided pose fades
# Skin that no pose of the lips moves, metres from the middle of the lips' contact line.
_STILL_ABOVE_M, _STILL_BELOW_M, _STILL_BEHIND_M = 0.046, 0.080, 0.075
_NOSE_ABOVE_M, _NOSE_AHEAD_M, _NOSE_HALF_WIDTH_M = 0.022, 0.008, 0.006  # the tip and bridge of the nose
_CHIN_BELOW_M, _CHIN_RADIUS_M = 0.040, 0.008
_WING = (0.0150, 0.0265)  # to the side of and above the contact line: where the wings of the nose meet the lip
_WING_RADIUS_M = 0.0035
# The dental arch as the parts for teeth fill it: positions across it as shares of the half width of the head's own
# teeth, and how far behind their most forward point the front of gums and crowns is, metres.
_ARCH_ACROSS = (0.0, 0.13, 0.22, 0.31, 0.40, 0.49, 0.57, 0.66, 0.75, 0.84)
_ARCH_DEPTH_M = {
    "teeth_upper": (0.0011, 0.0018, 0.0028, 0.0034, 0.0042, 0.0071, 0.0100, 0.0154, 0.0260, 0.0530),
    "teeth_lower": (-0.0004, -0.0004, 0.0006, 0.0011, 0.0026, 0.0041, 0.0076, 0.0126, 0.0190, 0.0360),
}
_CLEARANCE_M = 0.0007  # between lips and teeth on the coarse mesh, whose subdivision is a little thinner
_CLEARED_RINGS = (-4, 2)
_MOST_KEPT_OFF_M = 0.0040  # by which the inside alone moves forward, within the lip; none at the corners
_SOFTNESS_M = 0.0009  # by which a lip that meets the teeth gets thinner from ring to ring


@dataclass(frozen=True)
class LipPose:
    """Displacements in millimetres at weight 1; of both sides together for a shape that has a left and a right.

    Args:
        upper_inner, upper_outer, lower_inner, lower_outer: of the middle of the borders of the lips.
        corner: of the left corner.
        corner_right: of the right corner; by default the mirror image.
        chin: up and forward; None leaves it where the source's shape moves it.
        wings: of the nose's wings, up; None likewise.
        roundness: of the curve between middle and corner: 1 is a parabola, 2 an ellipse.
    """

    upper_inner: Offset
    upper_outer: Offset
    lower_inner: Offset
    lower_outer: Offset
    corner: Offset
    corner_right: Offset | None = None
    chin: tuple[float, float] | None = None
    wings: float | None = None
    roundness: float = 1.0


# The figures follow a model built from scans (ICT FaceKit), where the lips can stay on this side of each other.
POSES = {
    "mouthSmile": LipPose(
        (0, 5.2, -2.5), (0, 3.6, -2.5), (0, -0.6, -1.5), (0, 3.6, -1), (7.2, 10.4, -8.6), chin=(2.4, 0.5),
        wings=1.6, roundness=1.15
    ),
    "mouthFrown": LipPose(
        (0, -0.2, 0.2), (0, 0, 0.2), (0, -0.2, 0.2), (0, -0.2, 0.3), (2, -5, -1.6), chin=(0.6, 0.3)
    ),
    "mouthDimple": LipPose(
        (0, 0.2, -1), (0, 0.4, -1), (0, 0.4, -1), (0, 1.6, -0.8), (1.4, 2.7, -5.6)
    ),
    "mouthStretch": LipPose(
        (0, 0, -1.6), (0, 0.2, -1.6), (0, -0.2, -1.6), (0, 0.2, -1.4), (6.6, -3.1, -6.4)
    ),
    "mouthPress": LipPose(
        (0, 0.3, -1.2), (0, -1.6, -0.8), (0, 0.3, -1.2), (0, 3.2, 0.2), (0.2, 1.3, -1), chin=(4, 2.2)
    ),
    "mouthUpperUp": LipPose(
        (0, 7.7, 0.6), (0, 7.7, -0.6), (0, 0.2, 0), (0, 0.3, 0), (0.6, 4, -1.5), wings=5.2, roundness=1.4
    ),
    "mouthLowerDown": LipPose(
        (0, 0, 0), (0, 0, 0), (0, -7.6, 0.4), (0, -5.8, -0.6), (0.8, -1.4, -0.8), chin=(-3.2, -1.8),
        roundness=1.4
    ),
    "mouthRollUpper": LipPose(
        (0, 0.6, -8), (0, -4.8, -6.6), (0, 0.2, -0.6), (0, 0.3, -0.3), (1.5, 0.2, -1.4), wings=-2.5
    ),
    "mouthRollLower": LipPose(
        (0, -0.4, -1.4), (0, -0.6, -1), (0, 0.2, -7.2), (0, 6.6, -4.1), (0.4, 0.2, -1.4), chin=(0.4, 0)
    ),
    "mouthShrugUpper": LipPose(
        (0, 3, 1.6), (0, 4.8, 1.6), (0, 2.6, 1.2), (0, 2.2, 0.6), (-0.4, 0.6, 0.6), wings=0.9
    ),
    "mouthShrugLower": LipPose(
        (0, 4.2, 1.8), (0, 2.4, 2), (0, 4.4, 2.4), (0, 6.2, 2.6), (-0.2, 0.4, 1.6), chin=(7, 3.8)
    ),
    "cheekPuff": LipPose(
        (0, 0.4, 6.4), (0, 0.9, 6.8), (0, 0, 6.4), (0, 0, 6.4), (-2.6, 1.5, 10.6), chin=(2.2, 1.8), wings=1.6
    ),
    "mouthPucker": LipPose(
        (0, 0.4, 7.8), (0, 3.3, 7.4), (0, -0.4, 7.4), (0, -1.3, 7), (-4.7, 2, 9)
    ),
    "mouthFunnel": LipPose(
        (0, 6, 6.4), (0, 6.8, 6), (0, -7, 5.4), (0, -7, 4.4), (-3.4, 0, 7.4), chin=(-3.4, -1), wings=0.5,
        roundness=2
    ),
    "mouthLeft": LipPose(
        (12, 1, -2.4), (10.5, 1, -2.6), (12, 0.6, -2.4), (11, 0.9, -2.6), (6.6, 5.4, -4.4), (14, 0.2, 2)
    ),
}  # fmt: skip


class LipRig:
    """Applies poses to the lips of the mean head.

    Args:
        head: topology and parts.
        mean: (Vc, 3) metres, symmetric about x = 0.
    """

    def __init__(self, head: HeadMesh, mean: np.ndarray):
        self.grid, self.mean = mouth_grid(head), mean
        rings, line = self.grid.rings, self.grid.line
        at = mean[rings[line]]
        self.left, self.right = int(at[:, 0].argmax()), int(at[:, 0].argmin())
        spokes = np.arange(len(at))
        self.below = (spokes > self.left) & (spokes < self.right)
        self.across = np.clip(at[:, 0] / at[self.left, 0], -1, 1)  # (S,) -1 at the right corner, 1 at the left one
        self.middle = int(spokes[self.below].mean())  # spoke of the lower lip's middle; spoke 0 is the upper lip's
        self.centre = 0.5 * (mean[rings[line, 0]] + mean[rings[line, self.middle]])
        skin = head.part == "skin"
        self.quads = head.quads[skin[head.quads[:, 0]]]
        self.still = skin & self._still()
        deep = np.setdiff1d(np.arange(len(rings)), np.arange(line + _STILL_CAVITY_RING + 1, len(rings)))
        self.still[rings[deep]] = True
        self.chin = np.flatnonzero(skin & self._near(0.0, -_CHIN_BELOW_M, _CHIN_RADIUS_M))
        self.wings = np.flatnonzero(skin & self._near(_WING[0], _WING[1], _WING_RADIUS_M))
        self.lips = rings[line + _MOVED_RINGS[0] : line + _MOVED_RINGS[1] + 1]
        steps = (np.arange(*_MOVED_RINGS) - _INNER_RING) / (_OUTER_RING - _INNER_RING)
        self.outward = np.clip(np.append(steps, 1.0), 0, 1)  # (K,) 0 at the inner border, 1 at the outer one
        self.teeth = {name: head.part == name for name in _ARCH_DEPTH_M}
        self.surface = SurfaceHandles(mean, self.quads, self.still)

    def posed(self, pose: LipPose, shape: np.ndarray, one_sided: bool) -> np.ndarray:
        """Correction (Vc, 3) of a shape's offsets that brings the lips into a pose, for the left side if `one_sided`.

        Args:
            shape: (Vc, 3) metres, of both sides together.
        """
        lips = self._lip_offsets(pose, shape)
        vestibule, walls = self.vestibule((lips + shape[self.lips]).mean(axis=0))
        walls -= shape[vestibule]
        chin, wings = np.zeros((len(self.chin), 3)), np.zeros((len(self.wings), 3))
        if pose.chin is not None:
            chin[:] = 1e-3 * np.array([0, *pose.chin]) - shape[self.chin].mean(axis=0) * (0, 1, 1)
        if pose.wings is not None:
            wings[:, 1] = 1e-3 * pose.wings - shape[self.wings, 1].mean()
        if one_sided:
            lips *= self.share(self.across)[None, :, None]
            walls *= np.tile(self.share(self.across), len(_VESTIBULE))[:, None]
            half = self.mean[self.grid.rings[self.grid.line, self.left], 0]
            chin *= 0.5
            wings *= self.share(self.mean[self.wings, :1] / half)
        where = np.concatenate([self.lips.ravel(), vestibule, self.chin, self.wings])
        handles, first = np.unique(where, return_index=True)
        return self.surface.solve(handles, np.concatenate([lips.reshape(-1, 3), walls, chin, wings])[first])

    def vestibule(self, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (W,) between lips and gums, and their displacements (W, 3) where the lips move by `moved` (S, 3)."""
        where = self.grid.rings[[self.grid.line + ring for ring in _VESTIBULE]]
        return where.ravel(), (np.array(list(_VESTIBULE.values()))[:, None, None] * moved).reshape(-1, 3)

    def cleared(self, shape: np.ndarray) -> np.ndarray:
        """Correction (Vc, 3) that moves the lips of a head (Vc, 3) with closed jaw forward, clear of the teeth."""
        rings = self.grid.rings[self.grid.line + _CLEARED_RINGS[0] : self.grid.line + _CLEARED_RINGS[1] + 1]
        result = np.zeros_like(shape)
        for _ in range(2):
            missing = self._behind_teeth(shape + result, rings)
            push = np.zeros((*self.lips.shape, 3))
            most = np.zeros(len(self.across))
            for k, ring in enumerate(range(_MOVED_RINGS[0], _MOVED_RINGS[1] + 1)):
                most = np.maximum(most - _SOFTNESS_M, 0)
                if ring <= _CLEARED_RINGS[1]:
                    most = np.maximum(most, missing[ring - _CLEARED_RINGS[0]])
                wide = np.maximum.reduce([most, np.roll(most, 1), np.roll(most, -1)])
                push[k, :, 2] = 0.25 * np.roll(wide, 1) + 0.5 * wide + 0.25 * np.roll(wide, -1)
            result += self.surface.solve(self.lips.ravel(), push.reshape(-1, 3))
        return result

    def kept_off_teeth(self, shape: np.ndarray) -> np.ndarray:
        """A head (Vc, 3) with closed jaw whose lips and vestibule are not behind the front of the teeth."""
        rings = self.grid.rings[self.grid.line + _CLEARED_RINGS[0] : self.grid.line + _CLEARED_RINGS[1] + 1]
        result = shape.copy()
        most = _MOST_KEPT_OFF_M * (1 - self.across**2)
        result[rings, 2] += np.minimum(self._behind_teeth(shape, rings), most)
        return result

    def _behind_teeth(self, shape: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Metres, like `where`, by which vertices of a head (Vc, 3) are behind the teeth's front, at least 0."""
        x, y, z = np.moveaxis(shape[where], -1, 0)
        fronts = {}
        for name, depth in _ARCH_DEPTH_M.items():
            teeth = self.mean[self.teeth[name]]
            across = np.abs(x) / np.abs(teeth[:, 0]).max()
            fronts[name] = teeth[:, 2].max() - np.interp(across, _ARCH_ACROSS, depth)
        bite = self.mean[self.teeth["teeth_upper"], 1].min()
        return np.maximum(np.where(y > bite, fronts["teeth_upper"], fronts["teeth_lower"]) + _CLEARANCE_M - z, 0)

    @staticmethod
    def share(across: np.ndarray) -> np.ndarray:
        """Share of a two-sided displacement that the left shape makes, at positions across the mouth (-1 .. 1)."""
        t = np.clip(0.5 + 0.5 * across / _SIDE_BLEND, 0, 1)
        return t * t * (3 - 2 * t)

    def _lip_offsets(self, pose: LipPose, shape: np.ndarray) -> np.ndarray:
        """(K, S, 3) metres by which the moved rings miss the pose."""
        rings, line = self.grid.rings, self.grid.line

        def missing(offset: Offset, ring: int, spoke: int) -> np.ndarray:
            return 1e-3 * np.array(offset, float) - shape[rings[line + ring, spoke]]

        left = missing(pose.corner, *_CORNER)
        mirrored = (len(self.across) - _CORNER[1]) % len(self.across)
        other = pose.corner_right or (-pose.corner[0], *pose.corner[1:])
        right = missing(other, _CORNER[0], mirrored)
        u = self.across[:, None]
        towards = 0.5 * (left + right) + 0.5 * u * (left - right)
        bump = (1 - u**2) ** (1 / pose.roundness)
        result = np.empty((*self.lips.shape, 3))
        for chosen, inner, outer, spoke in (
            (~self.below, pose.upper_inner, pose.upper_outer, 0),
            (self.below, pose.lower_inner, pose.lower_outer, self.middle),
        ):
            ends = [missing(inner, _INNER_RING, spoke), missing(outer, _OUTER_RING, spoke)]
            for k, t in enumerate(self.outward):
                middle = (1 - t) * ends[0] + t * ends[1]
                result[k, chosen] = (towards + bump * (middle - 0.5 * (left + right)))[chosen]
        return result

    def _still(self) -> np.ndarray:
        x, y, z = (self.mean - self.centre).T
        nose = (y > _NOSE_ABOVE_M) & (z > _NOSE_AHEAD_M) & (np.abs(x) < _NOSE_HALF_WIDTH_M)
        return (y > _STILL_ABOVE_M) | (y < -_STILL_BELOW_M) | (z < -_STILL_BEHIND_M) | nose

    def _near(self, side: float, up: float, radius: float) -> np.ndarray:
        """(Vc,) skin in front, within a radius of a point beside and above the middle of the lips, in front view."""
        x, y, z = (self.mean - self.centre).T
        return (np.hypot(np.abs(x) - side, y - up) < radius) & (z > -0.02)
