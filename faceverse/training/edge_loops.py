"""Edge-loop grids around the eye and mouth openings of the base head.

A grid (K, S) of vertex indices: each of its K rings is a closed edge loop around the opening, from the inside outwards;
each of its S spokes is a line across the lid or the lip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ParameterError
from .head_regions import find_mouth_cavity, follow_loop, mirror_map, radius, straight_ahead
from .sources import HeadMesh

_NEAR_EYE, _AROUND_EYE = 1.6, 2.0  # in eyeball radii: range of candidate loops, and of the rings
_LIP_RINGS = 9  # on either side of the contact line of the lips


@dataclass(frozen=True)
class LoopGrid:
    """Concentric edge loops around an opening.

    Args:
        rings: (K, S) vertex indices, inside first.
        line: index of the ring at the visible border: the lids' inner edge, or the contact line of the lips.
    """

    rings: np.ndarray
    line: int


def eye_grids(head: HeadMesh) -> dict[str, LoopGrid]:
    """Grids of the base head's lids, "left" and "right", which mirror each other spoke by spoke.

    Raises:
        ParameterError: no closed edge loops lead from the eye socket over the lids to the outside.
    """
    quads = head.quads[head.part[head.quads[:, 0]] == "skin"]
    ball = head.vertices[head.part == "eyeball_left"]
    size, centre = radius(ball), ball.mean(axis=0)
    distance = np.linalg.norm(head.vertices - centre, axis=1) / size
    start = _first_loop(quads, distance < _NEAR_EYE)
    rings = [ring for ring in _march_both_ways(quads, start) if distance[ring].mean() < _AROUND_EYE]
    depth = [head.vertices[ring, 2].mean() for ring in rings]
    grid = np.array(rings if depth[0] < depth[-1] else rings[::-1])
    line = int(np.median(distance[grid], axis=1).argmin())
    return {"left": LoopGrid(grid, line), "right": LoopGrid(mirror_map(head.vertices)[grid], line)}


def mouth_grid(head: HeadMesh) -> LoopGrid:
    """Grid of the base head's lips; spoke 0 is the middle of the upper lip, the next ones follow to the left.

    Raises:
        ParameterError: the rim of the mouth cavity is not a closed edge loop with rings around it.
    """
    skin = head.quads[head.part[head.quads[:, 0]] == "skin"]
    inside = np.unique(head.quads[find_mouth_cavity(head.vertices, head.quads, head.part)])
    within = np.zeros(len(head.vertices), bool)
    within[inside] = True
    rim = within.copy()
    rim[np.setdiff1d(inside, skin[~within[skin].all(axis=1)])] = False
    rings = _march_both_ways(skin, _first_loop(skin, rim))
    if within[rings[-1]].all():
        rings = rings[::-1]
    grid = np.array(rings)
    line = int(np.flatnonzero(~within[grid].all(axis=1))[0])
    grid = grid[max(line - _LIP_RINGS, 0) : line + _LIP_RINGS]
    line = min(line, _LIP_RINGS)
    at = head.vertices[grid[line]]
    axis = np.flatnonzero(np.abs(at[:, 0]) < 1e-7)
    first = axis[at[axis, 1].argmax()]
    grid = np.roll(grid, -first, axis=1)
    if head.vertices[grid[line, 1], 0] < 0:
        grid = np.roll(grid[:, ::-1], 1, axis=1)
    return LoopGrid(grid, line)


def _first_loop(quads: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The shortest closed edge loop with all vertices in `where` (Vc,) bool; ties go to the smallest indices."""
    chosen = quads[where[quads].any(axis=1)]
    straight = straight_ahead(chosen)
    followed = [follow_loop(straight, edge) for edge in sorted(straight) if where[list(edge)].all()]
    loops = [loop for loop in followed if loop is not None and where[loop].all() and len(loop) > 8]
    if not loops:
        raise ParameterError("head.no_opening_loop")
    return min(loops, key=lambda loop: (len(loop), sorted(loop.tolist())))


def _march_both_ways(quads: np.ndarray, loop: np.ndarray) -> list[np.ndarray]:
    """All rings parallel to a closed loop, in order, with aligned spokes."""
    across = {}
    for quad in quads.tolist():
        for k in range(4):
            across[quad[k], quad[k - 3]] = (quad[k - 1], quad[k - 2])
    left, right = _march(across, loop), _march(across, loop[::-1])
    return [ring[::-1] for ring in right[::-1]] + [loop] + left


def _march(across: dict, loop: np.ndarray) -> list[np.ndarray]:
    """The rings to the left of a loop, up to a border, a pole or a self-intersection."""
    rings: list[np.ndarray] = []
    seen, here = set(loop.tolist()), loop
    while True:
        edges = list(zip(here.tolist(), np.roll(here, -1).tolist()))
        steps = [across[edge] for edge in edges if edge in across]
        if len(steps) < len(edges) or any(step[1] != after[0] for step, after in zip(steps, steps[1:] + steps[:1])):
            return rings
        here = np.array([step[0] for step in steps])
        if seen & set(here.tolist()) or len(set(here.tolist())) < len(here):
            return rings
        seen.update(here.tolist())
        rings.append(here)
