"""Directions of change with a meaning, learned from the known settings of the population."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..model_file import ModelFile
from .heads import Settings


def with_attributes(file: ModelFile, coefficients: np.ndarray, settings: Settings) -> ModelFile:
    """The file with its attributes, learned from coefficients (S, I + A) of S heads of known settings."""
    descriptions, steps, estimators = learn_attributes(coefficients.astype(np.float64), settings)
    return replace(file, attributes=descriptions, attribute_step=steps, attribute_estimator=estimators)


def learn_attributes(coefficients: np.ndarray, settings: Settings):
    """Directions with a meaning: regression of coefficients (S, I + A) on the known settings, and back.

    Returns:
        descriptions, steps (K, I + A), estimators (K, I + A + 1), see `faceverse.model.Attribute`.
    """
    table = {
        "age": (settings.years, "years", 18.0, 90.0),
        "gender": (2 * settings.male - 1, "-1 female .. 1 male", -1.3, 1.3),
        "weight": (2 * settings.weight - 1, "-1 light .. 1 heavy", -1.3, 1.3),
        "african": (settings.ancestry[:, 0], "share", 0.0, 1.0),
        "asian": (settings.ancestry[:, 1], "share", 0.0, 1.0),
        "caucasian": (settings.ancestry[:, 2], "share", 0.0, 1.0),
    }
    values = np.stack([column for column, *_ in table.values()], axis=1)
    centred = values - values.mean(0)
    # The three shares add up to one, so the system has no unique answer; the pseudo-inverse takes the smallest.
    steps = np.linalg.pinv(centred, rcond=1e-6) @ (coefficients - coefficients.mean(0))
    design = np.concatenate([coefficients, np.ones((len(coefficients), 1))], axis=1)
    ridge = 1e-3 * len(design) * np.eye(design.shape[1])
    estimators = np.linalg.solve(design.T @ design + ridge, design.T @ values).T
    descriptions = tuple(
        {"name": name, "unit": unit, "minimum": low, "maximum": high} for name, (_, unit, low, high) in table.items()
    )
    return descriptions, steps.astype(np.float32), estimators.astype(np.float32)
