"""The 52 expressions of the base model: the source's ARKit shapes, adapted to the mean head."""

from __future__ import annotations

import numpy as np

from ..model import ARKIT_NAMES
from .assembly import Assembly
from .heads import PART_SHIFTS, rigid_fit, sphere_centre
from .sources import HeadMesh, ShapeSource


def fit_expressions(source: ShapeSource, mean: np.ndarray, assembly: Assembly) -> np.ndarray:
    """The 52 expressions (E, Vc, 3), adapted to the mean head and to its mouth, which is not quite the source's."""
    expressions = turn_eyes(np.stack([source.expression(name) for name in ARKIT_NAMES]), source.head, mean)
    tongue_out = ARKIT_NAMES.index("tongueOut")
    tongue = source.head.part == "tongue"
    expressions[tongue_out, tongue] -= PART_SHIFTS["tongue"]  # put out, it lies where the source has it
    hidden = assembly.regions["mouth_inside"][: len(mean)]
    upper = [k for k, name in enumerate(ARKIT_NAMES) if name.startswith(("brow", "eye"))]
    expressions[np.ix_(upper, np.flatnonzero(hidden))] = 0
    return expressions


def turn_eyes(expressions: np.ndarray, head: HeadMesh, mean: np.ndarray) -> np.ndarray:
    """Expressions (E, Vc, 3) with eyeballs that turn about the mean head's eyes; the source's lie elsewhere.

    Args:
        mean: (Vc, 3) the mean head.
    """
    turned = expressions.copy()
    for side in ("left", "right"):
        ball = np.flatnonzero(head.part == f"eyeball_{side}")
        source, centre = head.vertices[ball], sphere_centre(mean[ball])
        for k in np.flatnonzero(np.abs(expressions[:, ball]).max(axis=(1, 2)) > 1e-4):
            rotation, _ = rigid_fit(source, source + expressions[k, ball])
            turned[k, ball] = (mean[ball] - centre) @ rotation.T + centre - mean[ball]
    return turned
