"""Heads whose sizes are those of people: means and deviations of measures follow published anthropometry.

The sculpted targets know no millimetres. For each measure that surveys give by sex and ancestry
(`faceverse.training.anthropometry`), the population's means are moved and its deviations scaled. The change of a head
is the most likely one in the population's own principal components that has the wanted effect on all measures.
"""

from __future__ import annotations

import numpy as np

from .anthropometry import PUBLISHED, measure
from .basis import principal_scores
from .sources import ANCESTRIES, HeadMesh

COMPONENTS = 100
DEVIATION_RATIOS = (0.7, 1.4)  # limits of the factor on a measure's deviation
ROUNDS = 2  # measures are not quite linear
TOLERANCE = 0.3  # deviations: how far a measure may stay from what is wanted, against how unlikely the change is
# The back of the head and the ears are seen by few photographs; surveys measure hair and press the calipers.
NOT_USED = ("ear_protrusion",)


def calibrate(heads: np.ndarray, head: HeadMesh, male: np.ndarray, ancestry: np.ndarray) -> np.ndarray:
    """Heads with means and deviations of the surveys.

    Args:
        heads: (S, Vc, 3) metres, aligned to each other; some hundred, because sizes are set right for all together.
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
    names, means, deviations = wanted(male, ancestry)
    effect = (_table(mean + modes, head, names) - _table(mean - modes, head, names)) / 2
    scale = 1 / deviations.mean(axis=0)
    effect = effect * scale
    inverse = np.linalg.solve(effect.T @ effect + TOLERANCE**2 * np.eye(len(names)), effect.T)  # (K, I)
    target = None
    for _ in range(ROUNDS):
        present = _table(heads, head, names)
        if target is None:
            target = _moved(present, male, ancestry, means, deviations)
        change = ((target - present) * scale) @ inverse
        heads += np.tensordot(change.astype(np.float32), modes.astype(np.float32), axes=1)
    return heads


def wanted(male: np.ndarray, ancestry: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the measures used, and the surveys' means and deviations (S, K) in millimetres for people of given sex
    and ancestry; sources are averaged, and mixed people lie between the groups."""
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


def _table(heads: np.ndarray, head: HeadMesh, names: list[str]) -> np.ndarray:
    """(S, K) millimetres."""
    measures = measure(heads, head)
    return np.stack([measures[name] for name in names], axis=1)


def _moved(
    present: np.ndarray, male: np.ndarray, ancestry: np.ndarray, means: np.ndarray, deviations: np.ndarray
) -> np.ndarray:
    """The measures (S, K) with the means of the surveys and deviations nearer to theirs."""
    design = np.concatenate([ancestry * male[:, None], ancestry * (1 - male)[:, None]], axis=1)
    expected = design @ np.linalg.lstsq(design, present, rcond=None)[0]
    rest = present - expected
    ratio = np.clip(deviations.mean(axis=0) / np.maximum(rest.std(axis=0), 1e-6), *DEVIATION_RATIOS)
    return means + rest * ratio
