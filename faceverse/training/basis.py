"""Principal component analysis (PCA) with per-vertex weights."""

from __future__ import annotations

import numpy as np


def shape_basis(shapes: np.ndarray, weights: np.ndarray, count: int):
    """Compute the weighted PCA of shapes (S, Vc, 3).

    Returns:
        mean (Vc, 3), modes (count, Vc, 3) per unit of a unit-variance coefficient, scores (S, count), and the share of
        the weighted variance kept. The modes are regressed on the scores, so that they are accurate even where the
        weights are small.
    """
    mean = shapes.mean(0)
    centred = (shapes - mean).reshape(len(shapes), -1)
    weighted = centred * np.repeat(np.sqrt(weights), 3).astype(np.float32)
    scores, kept = principal_scores(weighted, count)
    modes = (scores.T @ centred) / len(shapes)
    return mean, modes.reshape(len(modes), *mean.shape), scores, kept


def principal_scores(data: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Unit-variance, uncorrelated scores (S, count) of centred data (S, D), and the share of variance they explain."""
    gram = data.astype(np.float64) @ data.T.astype(np.float64)
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1], vectors[:, ::-1]
    count = min(count, int((values > 1e-9 * values[0]).sum()))
    # The sign of an eigenvector is arbitrary: the largest score is made positive, so that the result is reproducible.
    chosen = vectors[:, :count]
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(0), np.arange(count)])
    return (chosen * np.sqrt(len(data))).astype(np.float32), float(values[:count].sum() / values.clip(0).sum())
