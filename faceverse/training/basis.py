"""Linear bases from examples: principal components in which some vertices count more than others."""

from __future__ import annotations

import numpy as np


def shape_basis(shapes: np.ndarray, weights: np.ndarray, count: int):
    """Weighted principal components of shapes (S, Vc, 3).

    Returns:
        mean (Vc, 3), modes (count, Vc, 3) per unit of a unit-variance coefficient, scores (S, count), and the share of
        the weighted variance kept. Modes are regressed on the scores, so that they are right where weights are small.
    """
    mean = shapes.mean(0)
    centred = (shapes - mean).reshape(len(shapes), -1)
    weighted = centred * np.repeat(np.sqrt(weights), 3).astype(np.float32)
    scores, kept = principal_scores(weighted, count)
    modes = (scores.T @ centred) / len(shapes)
    return mean, modes.reshape(len(modes), *mean.shape), scores, kept


def principal_scores(data: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Unit-variance, uncorrelated scores (S, count) of centred data (S, D), and the share of variance they carry."""
    gram = data.astype(np.float64) @ data.T.astype(np.float64)
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1], vectors[:, ::-1]
    count = min(count, int((values > 1e-9 * values[0]).sum()))
    # The sign of an eigenvector is arbitrary: the largest score is made positive, so that rebuilding gives the same.
    chosen = vectors[:, :count]
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(0), np.arange(count)])
    return (chosen * np.sqrt(len(data))).astype(np.float32), float(values[:count].sum() / values.clip(0).sum())
