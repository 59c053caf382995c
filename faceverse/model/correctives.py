"""Corrective shapes: offsets that appear when two expressions are active together.

A blink that is added to a squint closes the eyes too far; a corrective of the pair takes it back. Its weight is the
product of the two weights, so that it vanishes with either of them, times the geometric mean of their gains.
Dimensions: see face_model.py; C correctives.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..messages import Message


def corrective_weights(pairs: np.ndarray, expression: Tensor, gain: Tensor | None) -> Tensor:
    """Weights (N, C) of correctives, never negative.

    Args:
        pairs: (C, 2) indices of expressions.
        expression: (N, E) weights, without gains.
        gain: (N, E), or None for gains of 1.
    """
    first, second = torch.from_numpy(pairs).to(expression.device).T
    positive = expression.clamp(min=0)
    weights = positive[:, first] * positive[:, second]
    return weights if gain is None else weights * (gain[:, first] * gain[:, second]).sqrt()


def sparse_offsets(modes: np.ndarray, negligible: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets that are not negligible: modes (C, Vc, 3) -> first row of each mode (C + 1,) int32, vertex of each row
    (R,) int32, and its offset (R, 3)."""
    mode, vertex = np.nonzero(np.abs(modes).max(axis=2) > negligible)
    start = np.searchsorted(mode, np.arange(len(modes) + 1)).astype(np.int32)
    return start, vertex.astype(np.int32), modes[mode, vertex]


def dense_offsets(start: np.ndarray, vertex: np.ndarray, offset: np.ndarray, vertex_count: int) -> np.ndarray:
    """Inverse of `sparse_offsets`: (C, Vc, 3)."""
    modes = np.zeros((len(start) - 1, vertex_count, 3), offset.dtype)
    modes[np.repeat(np.arange(len(start) - 1), np.diff(start)), vertex] = offset
    return modes


def pair_problems(pairs: np.ndarray, expression_count: int) -> list[Message]:
    """What is wrong with pairs (C, 2) of expressions, in words."""
    inside = not pairs.size or (pairs.min() >= 0 and pairs.max() < expression_count)
    return [] if inside else [Message("array.index", name="corrective_pairs", last=expression_count - 1)]
