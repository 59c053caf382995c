"""Fit round eyeballs into the lids of generated heads, and the lids onto the eyeballs.

The source's targets move lids and eyeballs apart; in reality the lids rest on the ball.
"""

from __future__ import annotations

import numpy as np

from ..graphics.mesh import subdivide_smooth, subdivision
from .edge_loops import eye_grids
from .head_regions import radius
from .sources import HeadMesh

_BALL_SIGMA, _DEPTH_SIGMA, _FIT_SIGMA = 0.04, 0.10, 0.03  # radii: priors of size and depth, residual of the lid fit
_LID_RINGS = 3  # rings from the lids' inner edge forwards, to which the ball is fitted
_EFFECTIVE_SAMPLES = 8  # effective sample count of the rim's correlated vertices
_SOCKET = 1.015  # radii: the skin behind the lids lies as close to the ball as possible, so that lids never show it
_RIM_LIMIT = 1.09  # radii: largest distance of the rim behind the lids' front from the ball's centre


def round_ball(head: HeadMesh, side: str) -> np.ndarray:
    """Vertices (B, 3) of a base-head eyeball about its centre, in radii, optimised so that the *subdivided* ball is as
    round as its quads allow; the subdivided radius is that of the base head."""
    ball = np.flatnonzero(head.part == f"eyeball_{side}")
    place = np.full(len(head.vertices), -1)
    place[ball] = np.arange(len(ball))
    quads = place[head.quads[head.part[head.quads[:, 0]] == f"eyeball_{side}"]]
    topology = subdivision(quads, len(ball))
    refine = subdivide_smooth(np.eye(len(ball)), topology)
    vertices = head.vertices[ball] - head.vertices[ball].mean(axis=0)
    vertices = vertices / radius(vertices)
    size = np.linalg.norm(refine @ vertices, axis=1).mean()
    for _ in range(5):
        fine = refine @ vertices
        wanted = fine * (size / np.linalg.norm(fine, axis=1, keepdims=True))
        vertices = vertices + np.linalg.lstsq(refine, wanted - fine, rcond=None)[0]
    return vertices


class EyeFitter:
    """Fit round eyeballs into the lids of heads with the source's topology.

    Args:
        head: the base head, whose eyes fit well.
    """

    def __init__(self, head: HeadMesh):
        self._grids = eye_grids(head)
        self._ball = {side: np.flatnonzero(head.part == f"eyeball_{side}") for side in self._grids}
        self._base = {side: round_ball(head, side) for side in self._grids}
        self._ratio = {
            side: self._distance(head.vertices, side) / radius(head.vertices[ball]) for side, ball in self._ball.items()
        }

    def _distance(self, shape: np.ndarray, side: str) -> np.ndarray:
        """(K, S) distances of the lid grid from the ball's centre."""
        return np.linalg.norm(shape[self._grids[side].rings] - shape[self._ball[side]].mean(axis=0), axis=-1)

    def fit(self, shape: np.ndarray) -> np.ndarray:
        """Fit the eyes of a head (Vc, 3): round balls of equal size that touch the lids without penetrating them.

        Each ball is a scaled copy of the base head's, shifted in depth until the lid rim has the same distance from its
        centre, in radii. The socket and the inner lid edge are then projected onto the ball, and no lid vertex comes
        closer than on the base head: all move radially.
        """
        result = shape.copy()
        fits = {side: self._fit(shape, side) for side in self._grids}
        size = np.mean([fit[0] for fit in fits.values()])
        for side, (_, centre) in fits.items():
            grid = self._grids[side]
            result[self._ball[side]] = centre + size * self._base[side]
            offset = result[grid.rings] - centre
            distance = np.linalg.norm(offset, axis=-1)
            wanted = np.clip(distance / size, *self._bounds(side))
            result[grid.rings] = centre + offset * (wanted * size / distance)[..., None]
        return result

    def _bounds(self, side: str) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound (K, S) of the grid's distance from a ball's centre, in radii."""
        line, ratio = self._grids[side].line, self._ratio[side]
        least, most = ratio.copy(), np.full_like(ratio, np.inf)
        least[line + 1 :] = ratio[line + 1 :].min(axis=1, keepdims=True)
        least[:line] = most[:line] = _SOCKET
        least[line] = most[line] = 1.0
        most[line + 1] = _RIM_LIMIT
        return least, most

    def _fit(self, shape: np.ndarray, side: str) -> tuple[float, np.ndarray]:
        """Fit a ball to the lid rim by Gauss-Newton with the head's own ball as prior: radius, centre (3,)."""
        grid, ball = self._grids[side], shape[self._ball[side]]
        rows = slice(grid.line + 1, grid.line + 1 + _LID_RINGS)
        rim, ratio = shape[grid.rings[rows]].reshape(-1, 3), self._ratio[side][rows].reshape(-1)
        middle, own = ball.mean(axis=0), radius(ball)
        prior = np.array([1 / _DEPTH_SIGMA, 1 / _BALL_SIGMA])
        change = np.zeros(2)  # of depth and relative size, in radii of the original ball
        for _ in range(4):
            offset = (rim - middle) / own - (0, 0, change[0])
            distance = np.linalg.norm(offset, axis=1)
            jacobian = np.stack([-offset[:, 2] / distance, -ratio], axis=1) / _FIT_SIGMA
            residual = (distance - ratio * (1 + change[1])) / _FIT_SIGMA
            normal = jacobian.T @ jacobian / len(rim) * _EFFECTIVE_SAMPLES + np.diag(prior**2)
            gradient = jacobian.T @ residual / len(rim) * _EFFECTIVE_SAMPLES + prior**2 * change
            change -= np.linalg.solve(normal, gradient)
        return own * (1 + change[1]), middle + (0, 0, change[0] * own)
