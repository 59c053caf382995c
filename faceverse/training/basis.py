"""Linear bases from examples: principal components in which some vertices count more than others."""

from __future__ import annotations

import numpy as np

SIDEWAYS_SHARE = 0.5  # of a shift along the surface in the measure: it moves features, but not the surface


def shape_basis(
    shapes: np.ndarray,
    weights: np.ndarray,
    count: int,
    *,
    normals: np.ndarray | None = None,
    room: np.ndarray | None = None,
):
    """Weighted principal components of shapes (S, Vc, 3).

    Args:
        weights: (Vc,) how much each vertex counts.
        count: modes wanted.
        normals: (Vc, 3) of the mean; where given, shifts along the surface count SIDEWAYS_SHARE.
        room: (E, Vc, 3) offsets whose covariance is added to that of the shapes, so that the modes have room for what
            no shape shows.

    Returns:
        mean (Vc, 3), modes (count, Vc, 3) per unit of a coefficient of unit variance (in shapes and room together),
        scores (S, count) of the shapes, and the share of the weighted variance kept. Modes are regressed on the scores,
        so that they are right where weights are small.
    """
    mean = shapes.mean(0)
    rows = shapes - mean
    if room is not None:
        rows = np.concatenate([rows, room * np.float32(np.sqrt(len(shapes) / len(room)))])
    root = np.sqrt(weights).astype(np.float32)[:, None]
    weighted = rows * root
    if normals is not None:
        outward = (weighted * normals).sum(axis=2, keepdims=True) * normals.astype(np.float32)
        weighted = SIDEWAYS_SHARE * weighted + (1 - SIDEWAYS_SHARE) * outward
    scores, kept = principal_scores(weighted.reshape(len(rows), -1), count)
    scores = scores * np.float32(np.sqrt(len(shapes) / len(rows)))
    modes = (scores.T @ rows.reshape(len(rows), -1)) / len(shapes)
    return mean, modes.reshape(len(modes), *mean.shape), scores[: len(shapes)], kept


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
