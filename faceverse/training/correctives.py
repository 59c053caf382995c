"""Build the corrective shapes of the base model: what a pair of expressions needs beyond the sum of the two.

`PAIRS` lists the pairs and the function that builds each corrective from the head that shows both expressions. To add
one, write such a function and add a row; one-sided pairs are built on the left and mirrored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..model.correctives import sparse_offsets
from ..model.face_model import ARKIT_NAMES
from .assembly import Assembly
from .edge_loops import eye_grids
from .expressions import averaging
from .head_regions import mirror_map
from .lids import Eyelids

NEGLIGIBLE_M = 1e-5
_DOUBLED = 0.35  # share of the smaller of two motions in the same direction that a corrective takes back
_ROUNDS = 12  # of smoothing of such a corrective


@dataclass(frozen=True)
class PairContext:
    """What a corrective is built from.

    Args:
        assembly: topology and regions.
        mean: (Vc, 3) the symmetric mean head, metres.
        lids: of the left eye.
        first, second: (Vc, 3) offsets of the two expressions at weight 1.
    """

    assembly: Assembly
    mean: np.ndarray
    lids: Eyelids
    first: np.ndarray
    second: np.ndarray

    @property
    def both(self) -> np.ndarray:
        """(Vc, 3) the head that shows both expressions."""
        return self.mean + self.first + self.second


def lids_meet(context: PairContext) -> np.ndarray:
    """Offsets (Vc, 3) that make closed lids meet again, where another expression moved them."""
    return context.lids.meeting(context.both)


def cheeks_once(context: PairContext) -> np.ndarray:
    """Offsets (Vc, 3) that take back a part of what both expressions do to the cheeks in the same direction."""
    first, second = context.first, context.second
    lengths = np.linalg.norm([first, second], axis=2)
    total = first + second
    direction = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
    same = np.clip((first * second).sum(axis=1) / np.maximum(lengths.prod(axis=0), 1e-12), 0, 1)
    offsets = -_DOUBLED * (same * lengths.min(axis=0))[:, None] * direction
    cheeks, head = context.assembly.regions["face"][: len(first)].copy(), context.assembly.head
    cheeks[np.unique(context.lids.grid.rings)] = False
    cheeks &= ~context.assembly.regions["lips"][: len(first)] & (head.part == "skin")
    average = averaging(head.quads, len(first))
    for _ in range(_ROUNDS):
        offsets = 0.5 * cheeks[:, None] * (offsets + average @ (cheeks[:, None] * offsets))
    return offsets


Builder = Callable[[PairContext], np.ndarray]
PAIRS: tuple[tuple[str, str, Builder], ...] = (
    ("eyeBlink", "eyeSquint", lids_meet),
    ("eyeBlink", "eyeLookDown", lids_meet),
    ("eyeBlink", "cheekSquint", lids_meet),
    ("mouthSmile", "cheekSquint", cheeks_once),
)
"""Two expressions, without a side if they have sides, and what builds the corrective of the left or central ones."""


def fit_correctives(
    mean: np.ndarray,
    assembly: Assembly,
    expressions: np.ndarray,
    table: tuple[tuple[str, str, Builder], ...] = PAIRS,
) -> dict[str, Any]:
    """Build all correctives, as the fields of `faceverse.model.file.ModelFile`.

    Args:
        mean: (Vc, 3) the mean head, metres.
        assembly: topology and regions.
        expressions: (E, Vc, 3) of `fit_expressions`, metres, by ARKIT_NAMES.
        table: the pairs.
    """
    mirror, mirrored = mirror_map(assembly.head.vertices), np.array([-1.0, 1.0, 1.0])
    mean = 0.5 * (mean + mean[mirror] * mirrored)
    lids = Eyelids(assembly.head, eye_grids(assembly.head)["left"], mean, "left")
    pairs, modes = [], []
    for first, second, build in table:
        left = [_index(name, "Left") for name in (first, second)]
        right = [_index(name, "Right") for name in (first, second)]
        shapes = (expressions[k].astype(np.float64) for k in left)
        offsets = build(PairContext(assembly, mean, lids, *shapes))
        pairs.append(left)
        modes.append(offsets)
        if right != left:
            pairs.append(right)
            modes.append(offsets[mirror] * mirrored)
    start, vertex, offset = sparse_offsets(np.array(modes).reshape(-1, *mean.shape), NEGLIGIBLE_M)
    return {
        "corrective_pairs": np.array(pairs, np.int32).reshape(-1, 2),
        "corrective_start": start,
        "corrective_vertex": vertex,
        "corrective_offset": (1e3 * offset).astype(np.float16),
    }


def _index(name: str, side: str) -> int:
    """Row of a central expression, or of one side of a one-sided one."""
    return ARKIT_NAMES.index(name if name in ARKIT_NAMES else name + side)
