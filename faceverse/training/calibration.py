"""Calibrate the sizes of generated heads to published anthropometric means and standard deviations.

The sculpted targets have no metric scale. For each measure that surveys give by sex and ancestry
(`faceverse.training.anthropometry`), the means of the population are shifted and its deviations rescaled. Each head is
changed by the most probable combination of the population's principal components that has the desired effect on all
measures.
"""

from __future__ import annotations

import numpy as np

from .anthropometry import PUBLISHED, measure
from .basis import principal_scores
from .sources import ANCESTRIES, HeadMesh

COMPONENTS = 100
DEVIATION_RATIOS = (0.7, 1.4)  # limits of the factor on a measure's deviation
ROUNDS = 2  # the measures are slightly non-linear
TOLERANCE = 0.3  # allowed residual in standard deviations of a measure, traded against the prior on the change
# Few photographs show the back of the head and the ears; surveys include hair and press the calipers.
NOT_USED = ("ear_protrusion",)


def calibrate(heads: np.ndarray, head: HeadMesh, male: np.ndarray, ancestry: np.ndarray) -> np.ndarray:
    """Adjust heads to the means and standard deviations of the surveys.

    Args:
        heads: (S, Vc, 3) metres, aligned to each other; some hundred, because they are calibrated jointly.
        head: the base head.
        male: (S,) 0 female .. 1 male.
        ancestry: (S, 3) shares in the order of ANCESTRIES.
    Returns:
        (S, Vc, 3) float32.
    """
    heads = np.array(heads, dtype=np.float32)
    mean = heads.mean(axis=0)
    centred = (heads - mean).reshape(len(heads), -1)
    scores, _ = principal_scores(centred, min(COMPONENTS, max(1, len(heads) // 4)))
    modes = ((scores.T @ centred) / len(heads)).reshape(-1, *mean.shape)
    names, means, deviations = survey_statistics(male, ancestry)
    effect = (_measure_table(mean + modes, head, names) - _measure_table(mean - modes, head, names)) / 2
    scale = 1 / deviations.mean(axis=0)
    effect = effect * scale
    inverse = np.linalg.solve(effect.T @ effect + TOLERANCE**2 * np.eye(len(names)), effect.T)  # (K, I)
    target = None
    for _ in range(ROUNDS):
        present = _measure_table(heads, head, names)
        if target is None:
            target = _target_measures(present, male, ancestry, means, deviations)
        change = ((target - present) * scale) @ inverse
        heads += np.tensordot(change.astype(np.float32), modes.astype(np.float32), axes=1)
    return heads


def survey_statistics(male: np.ndarray, ancestry: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the measures used, and the surveys' means and deviations (S, K) in millimetres given sex and ancestry.

    Several sources of a value are averaged; mixed ancestries interpolate between the groups.
    """
    names = sorted({p.name for p in PUBLISHED if {"male", "female"} <= _sexes(p.name)} - set(NOT_USED))
    sex = np.stack([male, 1 - male], axis=1)
    values = np.empty((2, len(names), 2, len(ANCESTRIES)))
    for k, name in enumerate(names):
        for s, sex_name in enumerate(("male", "female")):
            for a, group in enumerate(ANCESTRIES):
                rows = [p for p in PUBLISHED if (p.name, p.sex, p.group) == (name, sex_name, group)]
                rows = rows or [p for p in PUBLISHED if (p.name, p.sex) == (name, sex_name)]
                values[:, k, s, a] = np.mean([(p.mean, p.deviation) for p in rows], axis=0)
    means, deviations = np.einsum("vksa,ns,na->vnk", values, sex, ancestry)
    return names, means, deviations


def _sexes(name: str) -> set[str]:
    return {p.sex for p in PUBLISHED if p.name == name}


def _measure_table(heads: np.ndarray, head: HeadMesh, names: list[str]) -> np.ndarray:
    """Measures (S, K) in millimetres."""
    measures = measure(heads, head)
    return np.stack([measures[name] for name in names], axis=1)


def _target_measures(
    present: np.ndarray, male: np.ndarray, ancestry: np.ndarray, means: np.ndarray, deviations: np.ndarray
) -> np.ndarray:
    """Target measures (S, K): the means of the surveys, and deviations scaled towards theirs."""
    design = np.concatenate([ancestry * male[:, None], ancestry * (1 - male)[:, None]], axis=1)
    expected = design @ np.linalg.lstsq(design, present, rcond=None)[0]
    rest = present - expected
    ratio = np.clip(deviations.mean(axis=0) / np.maximum(rest.std(axis=0), 1e-6), *DEVIATION_RATIOS)
    return means + rest * ratio
