"""Retargeting: expression weights of one head on another one, of the same or another model."""

from __future__ import annotations

import numpy as np

from ..errors import ParameterError
from ..messages import Message
from ..model.face_model import FaceModel

_NEUTRAL_PERCENTILE = 10  # each weight is neutral in at least this share of the frames of nearly any clip
_MAX_NEUTRAL = 0.5  # of a weight's range: eyes that are shut for most of a clip are not neutral


def estimate_neutral_weights(expression: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Weights (E,) of the neutral face, from weights (T, E) over time with limits (E, 2).

    A low percentile of weights that start at 0, the median of those with both signs.
    """
    low = np.percentile(expression, _NEUTRAL_PERCENTILE, axis=0)
    return np.where(limits[:, 0] < 0, np.median(expression, axis=0), low).astype(np.float32)


def subtract_neutral_weights(expression: np.ndarray, neutral: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Weights (T, E) less those of the neutral face (E,), within limits (E, 2).

    The rest of the range of weights that start at 0 is stretched, so that full weights stay full.
    """
    low, high = limits.T
    neutral = np.where(low < 0, neutral, np.minimum(neutral, _MAX_NEUTRAL * high))
    stretch = np.where(low < 0, 1, high / np.maximum(high - neutral, 1e-6))
    return np.clip((expression - neutral) * stretch, low, high).astype(np.float32)


def matching_columns(names: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Index in `names` of each wanted name (K,) int64, case-insensitive; -1 for missing ones."""
    indices = {name.lower(): index for index, name in enumerate(names)}
    return np.array([indices.get(name.lower(), -1) for name in wanted], dtype=np.int64)


def retarget_weights(
    weights: np.ndarray, names: tuple[str, ...], model: FaceModel, columns: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Map weights (T, K) of `names` to the model's own (T, E), with a warning about names that it does not have.

    Args:
        columns: (E,) from `matching_columns`; missing weights are 0.
    Raises:
        ParameterError: the model has none of the names.
    """
    if (columns < 0).all():
        few = ", ".join(names[:3]) or Message("word.none")
        raise ParameterError("track.no_expressions", model=model.name, names=few)
    padded = np.concatenate([weights, np.zeros((len(weights), 1), weights.dtype)], axis=1)
    expression = np.clip(padded[:, columns], *model.expression_limits.T).astype(np.float32)
    lost = [name for index, name in enumerate(names) if index not in columns]
    if not lost:
        return expression, ()
    return expression, (Message("track.expressions_left_out", model=model.name, names=", ".join(lost)),)
