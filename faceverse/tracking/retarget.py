"""Expression weights of one head on another, perhaps of another model."""

from __future__ import annotations

import numpy as np

from ..errors import ParameterError
from ..messages import Message
from ..model.face_model import FaceModel

_REST_PERCENTILE = 10  # a weight is at rest in this share of the frames of nearly any clip
_MOST_REST = 0.5  # of a weight's range: a person who keeps the eyes shut for most of a clip does not rest that way


def rest_weights(expression: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Weights (E,) of a face that does nothing, from weights (T, E) over time with limits (E, 2).

    A weight that only grows from 0 is at rest where it is low, one of both signs where it is most of the time.
    """
    low = np.percentile(expression, _REST_PERCENTILE, axis=0)
    return np.where(limits[:, 0] < 0, np.median(expression, axis=0), low).astype(np.float32)


def without_rest(expression: np.ndarray, rest: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Weights (T, E) less those at rest (E,), within limits (E, 2).

    Of weights that grow from 0, what is left of the range is stretched to the whole: full weights stay full.
    """
    low, high = limits.T
    rest = np.where(low < 0, rest, np.minimum(rest, _MOST_REST * high))
    stretch = np.where(low < 0, 1, high / np.maximum(high - rest, 1e-6))
    return np.clip((expression - rest) * stretch, low, high).astype(np.float32)


def same_named(names: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """For each wanted name its place in `names` (K,) int64, without regard to case; -1 where there is none."""
    places = {name.lower(): place for place, name in enumerate(names)}
    return np.array([places.get(name.lower(), -1) for name in wanted], dtype=np.int64)


def retargeted(
    weights: np.ndarray, names: tuple[str, ...], model: FaceModel, columns: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Weights (T, K) of `names` as the model's own (T, E), and a warning about names that it does not have.

    Args:
        columns: (E,) from `same_named`; weights that are not given are 0.
    Raises:
        ParameterError: the model has none of the names.
    """
    if (columns < 0).all():
        few = ", ".join(names[:3]) or Message("word.none")
        raise ParameterError("track.no_expressions", model=model.name, names=few)
    padded = np.concatenate([weights, np.zeros((len(weights), 1), weights.dtype)], axis=1)
    expression = np.clip(padded[:, columns], *model.expression_limits.T).astype(np.float32)
    lost = [name for place, name in enumerate(names) if place not in columns]
    if not lost:
        return expression, ()
    return expression, (Message("track.expressions_left_out", model=model.name, names=", ".join(lost)),)
