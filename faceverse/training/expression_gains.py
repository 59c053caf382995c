"""Scale expressions with the identity: gains per expression, regressed linearly on the identity coefficients.

A blink must close the eyes of each head, a smile must move the corners of its mouth proportionally. Each expression is
tied to one measure of the head; its gain is that measure relative to the mean head's.
"""

from __future__ import annotations

import numpy as np

from ..model.face_model import ARKIT_NAMES
from ..model.linear import GAIN_RANGE
from .assembly import Assembly
from .edge_loops import eye_grids, mouth_grid
from .lids import Eyelids

_RIDGE = 1e-3  # relative to the scores' variance: there are many more heads than coefficients
_CHIN_BELOW_M = (0.020, 0.045)  # range below the lip line in which the most prominent point of the chin is searched


def expression_gain(
    shapes: np.ndarray, scores: np.ndarray, mean: np.ndarray, assembly: Assembly, expressions: np.ndarray
) -> np.ndarray:
    """Learn the change (E, I) float32 of each expression's gain per unit of each identity coefficient.

    Args:
        shapes: (S, Vc, 3) training heads, metres; scores: (S, I) their coefficients of unit variance.
        mean: (Vc, 3) the head with zero coefficients.
        assembly: topology and parts.
        expressions: (E, Vc, 3) of `fit_expressions`, by ARKIT_NAMES.
    """
    measures = HeadMeasures(mean, assembly, expressions)
    ratios = measures.ratios(shapes)
    targets = np.stack([ratios[measure_of(name)] for name in ARKIT_NAMES], axis=1)
    targets = np.clip(targets, *GAIN_RANGE)
    centred = scores - scores.mean(axis=0)
    normal = centred.T @ centred + _RIDGE * len(scores) * np.eye(scores.shape[1])
    return np.linalg.solve(normal, centred.T @ (targets - targets.mean(axis=0))).T.astype(np.float32)


def measure_of(name: str) -> str:
    """Name of the measure to which an expression's gain is proportional."""
    side = "left" if name.endswith("Left") else "right"
    for start, measure in (
        ("eyeBlink", f"blink {side}"),
        ("eyeSquint", f"opening {side}"),
        ("eye", f"ball {side}"),
        ("jaw", "face height"),
        ("mouthClose", "face height"),
        ("tongue", "face height"),
        ("mouth", "mouth width"),
    ):
        if name.startswith(start):
            return measure
    return "face size"


class HeadMeasures:
    """Measures of heads relative to the mean head.

    Args:
        mean, assembly, expressions: as in `expression_gain`.
    """

    def __init__(self, mean: np.ndarray, assembly: Assembly, expressions: np.ndarray):
        head = assembly.head
        grids = eye_grids(head)
        mean = np.asarray(mean, np.float64)
        self._lids = {side: Eyelids(head, grids[side], mean, side) for side in grids}
        self._blink = {
            side: expressions[ARKIT_NAMES.index(f"eyeBlink{side.title()}")].astype(np.float64) for side in grids
        }
        grid = mouth_grid(head)
        line = head.vertices[grid.rings[grid.line + 2]]
        self._corners = grid.rings[grid.line + 2][[line[:, 0].argmax(), line[:, 0].argmin()]]
        x, y, z = head.vertices.T
        below = y[grid.rings[grid.line, 0]] - y
        chin = (head.part == "skin") & (np.abs(x) < 1e-6) & (below > _CHIN_BELOW_M[0]) & (below < _CHIN_BELOW_M[1])
        self._chin = int(np.flatnonzero(chin)[z[chin].argmax()])
        self._mean = self._measure(mean)

    def ratios(self, shapes: np.ndarray) -> dict[str, np.ndarray]:
        """Ratios to the mean head's measures for heads (S, Vc, 3), by name, each (S,)."""
        rows = [self._measure(np.asarray(shape, np.float64)) for shape in shapes]
        return {name: np.array([row[name] for row in rows]) / value for name, value in self._mean.items()}

    def _measure(self, shape: np.ndarray) -> dict[str, float]:
        centres, result = [], {}
        for side, lids in self._lids.items():
            ball = shape[lids.ball]
            centres.append(ball.mean(axis=0))
            result[f"ball {side}"] = float(np.linalg.norm(ball - centres[-1], axis=1).mean())
            result[f"opening {side}"] = float(lids.opening(shape))
            result[f"blink {side}"] = lids.weight_to_close(shape, self._blink[side])
        height = float(np.linalg.norm(np.mean(centres, axis=0) - shape[self._chin]))
        result["face height"] = height
        result["face size"] = float(np.sqrt(height * np.linalg.norm(centres[0] - centres[1])))
        result["mouth width"] = float(np.linalg.norm(np.subtract(*shape[self._corners])))
        return result
