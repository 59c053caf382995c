"""Add growth to a model file of adults: its modes, and the path of the attribute `age` from 6 to 85 years.

Coefficients of growth are 0 for adults. The skin of children is expressed by the adults' albedo modes, as a linear
function of the growth coefficients. The estimators of the other attributes have weights on the growth coefficients
that cancel this function: growing changes no other attribute.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..model.file import ModelFile
from ..model.linear import GAIN_RANGE
from .albedo_model import SkinTask, albedo_weights, skin_population
from .appearance_traits import WHITE_HAIR, AppearanceTraits, draw_traits
from .assembly import Assembly
from .child_sizes import AGES
from .expression_gains import HeadMeasures, measure_of
from .growth import GrowthModes

OLDEST = 85.0
# Years that the linear estimate of age decreases per unit of the first growth coefficient. A large value keeps noise of
# an adult's estimated age from being taken for youth, a small one keeps noise of the growth from being taken for age.
YEARS_PER_UNIT = 4.4
# Scale of the individual features at AGES: jaws, brows and noses make adults differ more than children.
INDIVIDUAL = (0.4, 0.47, 0.6, 0.78, 0.94, 1.0)
KEPT = ("age", "gender", "weight", "african", "asian", "caucasian")  # attributes that the scaling does not change
PAINTED, FEATURED = 48, 6  # persons whose skin is painted: as children and adults; with and without features
_RIDGE = 0.03  # on albedo coefficients, in shares of the squared weights' mean variance


@dataclass(frozen=True)
class GrowthTask:
    """Inputs of `with_growth`.

    Args:
        modes: of growth.
        expressions: (E, Vc, 3) metres, of `fit_expressions`.
        skin: of the adults.
    """

    modes: GrowthModes
    expressions: np.ndarray
    skin: SkinTask


def with_growth(file: ModelFile, assembly: Assembly, task: GrowthTask) -> ModelFile:
    """Return the file of adults with growth modes after its identity modes, and with a bent path of `age`."""
    growth, adults, count = task.modes, len(file.identity_modes), len(task.modes.modes)
    painter = _Painter(file, assembly, task)
    skin, features = painter.growth(), painter.features()  # (G, A), (S, A)
    gain = growth_gain(growth, file, assembly, task.expressions)
    estimator = _widened(file.attribute_estimator, adults, -file.attribute_estimator[:, adults:-1] @ skin.T)
    names = [entry["name"] for entry in file.attributes]
    age = names.index("age")
    estimator[age, adults] -= YEARS_PER_UNIT
    paths = np.zeros((len(AGES) + 1, 2, estimator.shape[1] - 1), np.float32)
    for row, coefficients in enumerate((growth.by_age, growth.by_sex)):
        paths[:-1, row, adults : adults + count] = coefficients
        paths[:-1, row, adults + count :] = coefficients @ skin
    steps = _widened(file.attribute_step, adults, np.zeros((len(names), count)))
    paths[-1, 0] = (OLDEST - AGES[-1]) * steps[age]
    constant = AGES[-1]  # the estimate of an average adult of that age
    positions = constant + paths[:, 0].astype(np.float64) @ estimator[age, :-1]
    rows = [names.index(name) for name in KEPT]
    knots = {"values": [*AGES, OLDEST], "positions": positions.tolist(), "shares": [*INDIVIDUAL, 1.0]}
    path = knots | {"modulator": "gender"}
    attributes: list[dict[str, Any]] = [dict(entry) for entry in file.attributes]
    attributes[age] |= {"minimum": AGES[0], "maximum": OLDEST, "path": path}
    population = file.population
    return replace(
        file,
        identity_modes=np.concatenate([file.identity_modes, (growth.modes * 1e3).astype(np.float16)]),
        expression_gain=None if file.expression_gain is None else np.concatenate([file.expression_gain, gain], axis=1),
        population=None if population is None else _widened(population, adults, np.zeros((len(population), count))),
        attributes=tuple(attributes),
        attribute_step=steps,
        attribute_estimator=estimator.astype(np.float32),
        attribute_path=paths,
        attribute_path_kept=kept_by_growth(estimator[rows, :-1], steps[rows], features, adults).astype(np.float32),
    )


def kept_by_growth(estimators: np.ndarray, steps: np.ndarray, features: np.ndarray, adults: int) -> np.ndarray:
    """Projection (2, R, n) onto what children have in full measure, see `AttributePath.kept`.

    Scaled down are those combinations of the adults' shape that no global attribute estimates, and some features of the
    skin. Kept are the expectation given the global attributes, growth, and all other colours.

    Args:
        estimators, steps: (K, n) of the global attributes, n = adults + G + A.
        features: (S, A) albedo coefficients of the features of the skin.
        adults: number of identity modes of adults.
    """
    count = estimators.shape[1]
    first_colour = count - features.shape[1]
    expected = _row_space(steps)
    shapes = np.zeros((adults, count))
    shapes[:, :adults] = np.eye(adults)
    shapes = _null_space(estimators[:, :adults]) @ shapes
    skin = np.zeros((len(features), count))
    skin[:, first_colour:] = features
    seen = np.linalg.pinv(expected @ estimators.T, rcond=1e-4)  # (K, R)
    skin = skin - (skin @ estimators.T @ seen) @ expected
    rest = np.zeros((count - len(shapes) - len(skin) - len(expected), count))
    growing = first_colour - adults
    rest[:growing, adults:first_colour] = np.eye(growing)
    rest[growing:, first_colour:] = _null_space(features)
    kept = np.concatenate([expected, rest])
    measures = np.linalg.inv(np.concatenate([shapes, skin, kept]))[:, -len(kept) :].T
    return np.stack([measures, kept])


def _row_space(rows: np.ndarray) -> np.ndarray:
    """Orthonormal rows that span the same space as rows (K, n)."""
    scaled = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, singular, right = np.linalg.svd(scaled.astype(np.float64), full_matrices=False)
    return right[: int((singular > 1e-4 * singular[0]).sum())]


def _null_space(rows: np.ndarray) -> np.ndarray:
    """Orthonormal rows, orthogonal to all rows (K, n)."""
    return np.linalg.svd(rows.astype(np.float64))[2][len(_row_space(rows)) :]


def _widened(rows: np.ndarray, at: int, columns: np.ndarray) -> np.ndarray:
    """Insert columns (K, G) into rows (K, ...), before column `at`."""
    return np.concatenate([rows[:, :at], columns.astype(rows.dtype), rows[:, at:]], axis=1)


def growth_gain(growth: GrowthModes, file: ModelFile, assembly: Assembly, expressions: np.ndarray) -> np.ndarray:
    """Change (E, G) float16 of each expression's gain per unit of the growth coefficients, see `expression_gain`."""
    mean = 1e-3 * file.mean_vertices.astype(np.float64)
    paths = np.concatenate([growth.by_age + growth.by_sex, growth.by_age - growth.by_sex])
    ratios = HeadMeasures(mean, assembly, expressions).ratios(mean + np.tensordot(paths, growth.modes, axes=1))
    changes = [np.clip(ratios[measure_of(name)], *GAIN_RANGE) - 1 for name in file.expression_names]
    normal = paths.T @ paths + 1e-2 * np.eye(paths.shape[1])
    return np.linalg.solve(normal, paths.T @ np.transpose(changes)).T.astype(np.float16)


class _Painter:
    """Paints skins and expresses their differences by the file's albedo modes."""

    def __init__(self, file: ModelFile, assembly: Assembly, task: GrowthTask):
        self._task, self._population = task, skin_population(assembly, task.skin)
        modes = file.albedo_modes.astype(np.float64) * file.albedo_scale[:, None, None]
        weight = np.repeat(albedo_weights(assembly, task.skin.masks), 3)
        coarse = modes.reshape(len(modes), -1)[:, : len(weight)]
        normal = (coarse * weight) @ coarse.T
        normal += _RIDGE * np.trace(normal) / len(normal) * np.eye(len(normal))
        self._projection = np.linalg.solve(normal, coarse * weight)

    def _difference(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Albedo coefficients (A,) of the difference of two skins (V, 3)."""
        return self._projection @ (first - second).reshape(-1)[: self._projection.shape[1]]

    def growth(self) -> np.ndarray:
        """Change (G, A) of the albedo coefficients per unit of the growth coefficients, by regression."""
        settings, growth = self._task.skin.settings, self._task.modes
        rows, changes = [], []
        for number in range(min(PAINTED, len(settings.years))):
            knot = number % (len(AGES) - 1)
            painted = []
            for years in (AGES[knot], AGES[-1]):
                aged = replace(settings, years=np.full(len(settings.years), years))
                rng = np.random.default_rng((self._task.skin.seed, 4, number))
                painted.append(self._population.draw(aged, number, rng))
            rows.append(growth.by_age[knot] + (2 * settings.male[number] - 1) * growth.by_sex[knot])
            changes.append(self._difference(*painted))
        table = np.array(rows)
        return np.linalg.solve(table.T @ table + np.eye(table.shape[1]), table.T @ np.array(changes))

    def features(self) -> np.ndarray:
        """Albedo coefficients (S, A) of features that children lack: beard, grey hair, red lips, thick brows."""
        settings, changes = self._task.skin.settings, []
        adults = replace(settings, years=np.full(len(settings.years), AGES[-1]))
        for number in range(min(FEATURED, len(settings.years))):
            seed = (self._task.skin.seed, 5, number)
            traits = draw_traits(adults, number, np.random.default_rng(seed))

            def painted(changed: AppearanceTraits, seed: tuple[int, int, int] = seed) -> np.ndarray:
                rng = np.random.default_rng(seed)
                return self._population.paint(changed, np.zeros((len(self._population.patterns[0]), 3)), rng)

            pairs = [
                (replace(traits, beard=0.35, moustache=0.4), replace(traits, beard=0.0, moustache=0.0)),
                (replace(traits, hair=WHITE_HAIR, brow_hair=WHITE_HAIR), traits),
                (replace(traits, lip_blood=0.45), replace(traits, lip_blood=0.1)),
                (replace(traits, brow=0.85, brow_width=1.3), replace(traits, brow=0.4, brow_width=0.8)),
            ]
            changes.append([self._difference(painted(more), painted(less)) for more, less in pairs])
        return np.mean(changes, axis=0)
