"""Move the jaw of the base head about its joint, with the lips, the floor of the mouth and the skin that follow it.

The joint is in front of the ear. An opening jaw turns about it and glides forwards and down; lower teeth and tongue go
with it as a rigid body. Open lips form an oval: their length is spread evenly along it, so that its corners are round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .lips import LipPose, LipRig
from .sources import HeadMesh

# The joint, metres from the middle between the eyes: below them and behind them.
_JOINT_BELOW_M, _JOINT_BEHIND_M = 0.022, 0.047
_ROOF_BELOW_M, _FLOOR_BELOW_M = -0.010, 0.014  # heights about the lip line between which the cavity's walls stretch
_CHIN_HALF_WIDTH_M, _CHIN_TOP_M, _CHIN_BACK_M = 0.026, 0.020, 0.030  # the front of the jaw, from the middle of the lips
_CLOSE_CHIN_TOP_M = 0.027  # of the part of the chin that does not follow the lips of an open jaw that close
_CHEEK_SHARE = {-4: 0.85, -5: 0.7, -6: 0.45}  # rings of the cavity's walls, and their share of the lips' motion
_DEEP_RING = -7  # of the lips' grid, and deeper: the walls of the cavity


@dataclass(frozen=True)
class JawMotion:
    """A rigid motion of the jaw at weight 1.

    Args:
        open_deg: rotation about the axis through both joints, positive opens.
        aside_deg: rotation about the vertical axis through the middle between the joints, positive to the left.
        glide: millimetres to the subject's left, up, forward.
    """

    open_deg: float = 0.0
    aside_deg: float = 0.0
    glide: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class MouthOpening:
    """The lips of a jaw that opens, millimetres at weight 1.

    Args:
        corner: of the left corner: to the left, up, forward.
        upper: of the middle of the upper lip.
        turn: shares of the jaw's rotation by which the middle of the upper and of the lower lip turn.
    """

    corner: tuple[float, float, float]
    upper: tuple[float, float, float]
    turn: tuple[float, float]


OPEN = JawMotion(open_deg=23.0, glide=(0, -7.0, 9.0))
OPEN_LIPS = MouthOpening(corner=(-3.4, -12.5, -10.5), upper=(0, -1.2, -1.2), turn=(-0.10, 0.85))
OPEN_WINGS = -2.1  # millimetres by which the upper lip draws the nose's wings up
MOTIONS = {
    "jawForward": JawMotion(glide=(0, -1.8, 9.6)),
    "jawLeft": JawMotion(aside_deg=3.0, glide=(4.0, -1.5, 0.3)),
}
LIPS = {  # of shapes that move the jaw and keep the lips closed; the chin follows the jaw
    "jawForward": LipPose((0, -0.2, 2), (0, 0, 1.2), (0, -0.4, 8), (0, -1, 8.6), (-0.3, -0.6, 4.4)),
    "jawLeft": LipPose(
        (2.6, -0.2, 0.2), (1.6, 0, 0.1), (7, -0.6, 0.4), (7.6, -0.9, 0.4), (4.6, -0.2, 0.4), (4.3, -0.3, 0.2)
    ),
}
CLOSE_LIPS = LipPose(  # the lips of an open jaw with mouthClose, relative to the neutral head
    (0, -2.9, -1.6), (0, -2.8, -1.4), (0, -2.6, -2.2), (0, 1.6, -2.6), (-1.4, 0.6, -3.0)
)
# Rings of the vestibule's walls: their share of the lips' motion, and millimetres by which those of the lower lip go
# back, because the lower teeth stay down.
CLOSE_WALLS = {-5: (0.10, 1.0), -4: (0.25, 4.0), -3: (0.50, 4.5)}
# Millimetres by which mouthClose moves the chin of an open jaw: up, and forward at its top and its bottom, where the
# stretched skin slides over the lower teeth.
CLOSE_CHIN_UP, CLOSE_CHIN_FORWARD = 3.4, (7.0, 1.6)


class Jaw:
    """The jaw of the mean head.

    Args:
        head: topology and parts.
        rig: the lips.
    """

    def __init__(self, head: HeadMesh, rig: LipRig):
        self.rig, self.mean = rig, rig.mean
        eyes = np.mean([self.mean[head.part == f"eyeball_{side}"].mean(axis=0) for side in ("left", "right")], axis=0)
        self.joint = eyes - (0, _JOINT_BELOW_M, _JOINT_BEHIND_M)
        self.joint[0] = 0.0
        self.bones = (head.part == "teeth_lower") | (head.part == "tongue")
        skin = np.zeros(len(self.mean), bool)
        skin[rig.quads] = True
        x, y, z = (self.mean - rig.centre).T
        chin = (np.abs(x) < _CHIN_HALF_WIDTH_M) & (y < -_CHIN_TOP_M) & (z > -_CHIN_BACK_M)
        self.chin = np.flatnonzero(skin & chin & ~self._inside() & (y > -0.047))
        self.cavity = np.flatnonzero(self._inside(_DEEP_RING))
        t = np.clip((-_ROOF_BELOW_M - y[self.cavity]) / (_FLOOR_BELOW_M - _ROOF_BELOW_M), 0, 1)
        self.floor = (t * t * (3 - 2 * t))[:, None]  # share of the jaw's motion

    def offsets(self, motion: JawMotion, points: np.ndarray) -> np.ndarray:
        """Displacements (..., 3) in metres of points (..., 3) that are part of the jaw."""
        about_x, about_y = np.radians(motion.open_deg), np.radians(motion.aside_deg)
        c, s = np.cos(about_x), np.sin(about_x)
        pitch = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        c, s = np.cos(about_y), np.sin(about_y)
        yaw = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        moved = (points - self.joint) @ (yaw @ pitch).T + self.joint + 1e-3 * np.array(motion.glide)
        return moved - points

    def opened(self, shape: np.ndarray) -> np.ndarray:
        """The shape jawOpen (Vc, 3), from the source's."""
        lips = self._oval(OPEN, OPEN_LIPS)
        wings = shape[self.rig.wings]
        wings[:, 1] += 1e-3 * OPEN_WINGS - wings[:, 1].mean()
        at = np.concatenate([self.rig.lips.ravel(), self.rig.wings])
        return self._followed(OPEN, shape, at, np.concatenate([lips.reshape(-1, 3), wings]))

    def closed(self, name: str, shape: np.ndarray) -> np.ndarray:
        """A shape (Vc, 3) that moves the jaw with closed lips, from the source's."""
        lips = shape + self.rig.posed(LIPS[name], shape, one_sided=False)
        at = self.rig.lips.ravel()
        return self._followed(MOTIONS[name], shape, at, lips[at])

    def closing(self, opened: np.ndarray) -> np.ndarray:
        """The shape mouthClose (Vc, 3): closes the lips of the shape jawOpen, `opened` (Vc, 3)."""
        lips = self.rig.lips.ravel()
        goal = self.rig.posed(CLOSE_LIPS, np.zeros_like(opened), one_sided=False)[lips]
        moved = (goal - opened[lips]).reshape(*self.rig.lips.shape, 3)
        grid, low = self.rig.grid, self.rig.below * np.cos(0.5 * np.pi * self.rig.across)
        walls, rings = [], []
        for ring, (share, back) in CLOSE_WALLS.items():
            rings.append(grid.rings[grid.line + ring])
            walls.append(share * moved.mean(axis=0) - 1e-3 * back * low[:, None] * (0, 0, 1))
        below = self.rig.centre[1] - self.mean[self.chin, 1]
        chin, below = self.chin[below > _CLOSE_CHIN_TOP_M], below[below > _CLOSE_CHIN_TOP_M]
        forward = np.interp(below, (below.min(), below.max()), CLOSE_CHIN_FORWARD)
        slide = np.stack([np.zeros_like(below), np.full_like(below, CLOSE_CHIN_UP), forward], axis=1)
        return self._solved(
            [lips, np.concatenate(rings), chin, self.cavity],
            [moved.reshape(-1, 3), np.concatenate(walls), 1e-3 * slide, np.zeros((len(self.cavity), 3))],
        )

    def _followed(self, motion: JawMotion, shape: np.ndarray, lips: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """A shape with the lips (L,) at `offsets` (L, 3), chin, teeth, tongue and cavity with the jaw, skin smooth."""
        walls = self.floor * self.offsets(motion, self.mean[self.cavity])
        rings, cheeks = self._cheeks(motion, offsets[: self.rig.lips.size])
        chin = self.offsets(motion, self.mean[self.chin])
        result = shape + self._solved(
            [rings, lips, self.chin, self.cavity],
            [cheeks - shape[rings], offsets - shape[lips], chin - shape[self.chin], walls - shape[self.cavity]],
        )
        result[self.bones] = self.offsets(motion, self.mean[self.bones])
        return result

    def _cheeks(self, motion: JawMotion, lips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (W,) of the cavity's walls behind lips and cheeks, their displacements (W, 3): below with the jaw,
        above and at the sides with the lips, which move by `lips` (K * S, 3)."""
        rig = self.rig
        moved = lips.reshape(*rig.lips.shape, 3).mean(axis=0)
        jaw = (rig.below * np.cos(0.5 * np.pi * rig.across))[:, None]
        rings = np.stack([rig.grid.rings[rig.grid.line + ring] for ring in _CHEEK_SHARE])
        shares = np.array(list(_CHEEK_SHARE.values()))[:, None, None]
        cheeks = jaw * self.offsets(motion, self.mean[rings]) + (1 - jaw) * shares * moved
        return rings.ravel(), cheeks.reshape(-1, 3)

    def _solved(self, handles: list[np.ndarray], offsets: list[np.ndarray]) -> np.ndarray:
        where, first = np.unique(np.concatenate(handles), return_index=True)
        return self.rig.surface.solve(where, np.concatenate(offsets)[first])

    def _oval(self, motion: JawMotion, opening: MouthOpening) -> np.ndarray:
        """(K, S, 3) displacements of the moved rings of the lips: each spoke goes to the oval and turns."""
        rig, rings, line = self.rig, self.rig.grid.rings, self.rig.grid.line
        at = self.mean[rings[line]]
        angle = 0.5 * np.pi * rig.across
        tall, wide = np.cos(angle)[:, None], np.sin(angle)
        corner, upper = 1e-3 * np.array(opening.corner), 1e-3 * np.array(opening.upper)
        end = at[rig.left] + corner
        lower = at[rig.middle] + self.offsets(motion, at[rig.middle])
        goal = np.where(rig.below[:, None], lower, at[0] + upper) * tall + end * (1 - tall)
        goal[:, 0] = end[0] * wide
        follow = np.where(rig.below[:, None], self.offsets(motion, at), upper) * tall + corner * (1 - tall)
        goal[:, 2] = (at + follow)[:, 2]
        turn = np.radians(motion.open_deg) * np.where(rig.below, opening.turn[1], opening.turn[0]) * tall[:, 0]
        arm = self.mean[rig.lips] - at
        y, z = arm[..., 1], arm[..., 2]
        turned = np.stack([arm[..., 0], y * np.cos(turn) - z * np.sin(turn), y * np.sin(turn) + z * np.cos(turn)], -1)
        return goal + turned - self.mean[rig.lips]

    def _inside(self, ring: int = 0) -> np.ndarray:
        """(Vc,) the mouth cavity from a ring of the lips' grid inwards."""
        rig = self.rig
        wall = np.zeros(len(self.mean), bool)
        wall[rig.grid.rings[: rig.grid.line + ring + 1]] = True
        while True:  # flood from the deepest ring, away from the lips
            touched = wall[rig.quads].sum(axis=1)
            border = np.zeros(len(self.mean), bool)
            border[rig.grid.rings[rig.grid.line + ring + 1 :]] = True
            grown = rig.quads[(touched > 0) & ~border[rig.quads].any(axis=1)]
            before = wall.sum()
            wall[grown] = True
            if wall.sum() == before:
                return wall
