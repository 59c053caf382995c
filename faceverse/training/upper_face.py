"""Brows, nose and cheeks: how far they move, and how the skin slides over the bone below.

The targets are the figures of ICT FaceKit's mean head (https://github.com/ICT-VGL/ICT-FaceKit, MIT), measured at weight
1 on the same 68 landmarks; a figure of both sides is split between the sides. The source's shapes reach a third to a
half of most of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .assembly import Assembly
from .edge_loops import LoopGrid
from .shape_solver import ShapeSolver
from .surface_fit import closest_points


@dataclass(frozen=True)
class _Target:
    """Figures of a shape in millimetres, and how it is changed to reach them.

    Args:
        figures: by name of `shape_solver.ALL_FIGURES`.
        start: factor on the source's shape.
        length_m: over which the change fades.
        slides: the skin of the forehead slides over the bone, instead of lifting off it.
        down_to: height above the middle of the eyes, in eye distances, down to which the skin moves.
        lids_deg: rotation of upper and lower lid, up.
    """

    figures: Mapping[str, float]
    start: float = 1.0
    length_m: float = 0.016
    slides: bool = False
    down_to: float = -0.45
    lids_deg: tuple[float, float] = (0.0, 0.0)


TARGETS = {
    "browInnerUp": _Target(
        {"inner brows up": 5.6, "left outer brow up": 1.3, "left brow up": 3.3}, length_m=0.020, slides=True
    ),
    "browOuterUp": _Target(
        {"left inner brow up": 2.2, "left outer brow up": 6.3, "left brow up": 5.4, "left inner brow in": 0.0},
        length_m=0.020, slides=True,
    ),
    "browDown": _Target(
        {"left inner brow up": -2.4, "left outer brow up": -1.7, "left brow up": -2.5, "brows together": 2.1},
        start=0.7, length_m=0.018, slides=True,
    ),
    "cheekSquint": _Target(
        {"left eye opening": -2.2}, down_to=-0.8, lids_deg=(-1.5, 7.0)
    ),
    "eyeSquint": _Target({"left eye opening": -2.1, "left brow up": -0.3}, length_m=0.010),
    "noseSneer": _Target(
        {
            "left wing up": 5.2, "right wing up": 0.5, "upper lip up": 3.0, "left corner up": 4.6, "lip gap": 2.4,
            "left inner brow up": -2.3, "left brow up": -1.7, "brows together": 1.0, "left eye opening": -0.8,
        },
        length_m=0.014, down_to=-2.0,
    ),
}  # fmt: skip
_SLIDES = 2  # rounds of moving the skin back onto the bone and reaching the figures again
_LID_MOBILITY = 0.05  # of the margins of the lids, which rest on the eyeball
# Heights above the middle of the eyes in eye distances: from where the forehead resists, and the hair line.
_FOREHEAD, _HAIRLINE = 0.45, 1.15
_FADE = 0.3  # eye distances over which the skin becomes free above the lowest place that moves
_BROW_BAND = (0.05, 0.30)  # in eye distances: below, skin is free; above, it slides over the bone
_OTHER_SIDE_M = (-0.022, 0.004)  # positions from which a one-sided shape is held, and at which it is free
_BACK_M = (0.000, 0.030)  # positions forward of the origin between which the temples become free


class UpperFace:
    """Shapes of brows, nose and cheeks of the symmetric mean head.

    Args:
        solver: for that head.
        assembly: topology and regions.
        grids: of the lids, by side.
    """

    def __init__(self, solver: ShapeSolver, assembly: Assembly, grids: dict[str, LoopGrid]):
        self._solver, mean = solver, solver.mean
        head = assembly.head
        balls = [mean[head.part == f"eyeball_{side}"].mean(axis=0) for side in ("left", "right")]
        apart = float(np.linalg.norm(balls[0] - balls[1]))
        height = (mean[:, 1] - balls[0][1]) / apart
        free = (head.part == "skin").astype(np.float64)
        free *= 1 - _ramp(height, _FOREHEAD, _HAIRLINE)
        free *= _ramp(mean[:, 2], *_BACK_M)
        for name in ("ears", "neck"):
            free[assembly.regions[name][: len(mean)]] = 0
        for grid in grids.values():
            outside = np.clip((np.arange(len(grid.rings)) - grid.line - 4) / 7, _LID_MOBILITY, 1)
            np.minimum.at(free, grid.rings, np.broadcast_to(outside[:, None], grid.rings.shape))
        self._height = height
        self._free, self._one_side = free, _ramp(mean[:, 0], *_OTHER_SIDE_M)
        self._on_bone = (_ramp(height, *_BROW_BAND) * (free > 0))[:, None]
        quads = head.quads[(head.part == "skin")[head.quads[:, 0]]]
        self._surface = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])

    def reach(self, base: str, offsets: np.ndarray, *, symmetric: bool) -> np.ndarray:
        """Shape (Vc, 3) that reaches the figures of TARGETS[base] and resembles `offsets` (Vc, 3) otherwise.

        Args:
            base: name of the shape without its side.
            offsets: of the central or left shape.
            symmetric: whether the shape is central.
        """
        target = TARGETS[base]
        mobility = self._free * _ramp(self._height, target.down_to, target.down_to + _FADE)
        mobility *= 1 if symmetric else self._one_side
        result = offsets
        for _ in range(_SLIDES + 1 if target.slides else 1):
            if target.slides:
                result = self._slid(result)
                result = self._solver.symmetrised(result) if symmetric else result
            result = self._solver.reach(
                result, target.figures, mobility, symmetric=symmetric, length_m=target.length_m
            )
        return result

    def _slid(self, offsets: np.ndarray) -> np.ndarray:
        """Move the forehead's skin back to the surface of the neutral head."""
        moved = self._solver.mean + offsets
        found = closest_points(moved, self._solver.mean, self._surface)
        corners = self._solver.mean[self._surface[found.triangle]]
        nearest = (corners * found.barycentric[..., None]).sum(axis=1)
        return offsets + self._on_bone * (nearest - moved)


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smooth step from 0 at `low` to 1 at `high`."""
    share = np.clip((values - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)
