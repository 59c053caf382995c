"""Growth of the head from 6 years to adulthood: modes of their own beside the adults' identity modes.

The mean head and the identity modes are those of adults, whose coefficients of growth are 0; a child is the adult of
the same coefficients plus an offset along the growth modes. The offset depends on age and sex. It comes from the
source's targets of children; the sizes at each age come from published growth (`faceverse.training.child_sizes`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..model.face_model import AGE_MODES, SEX_MODES
from .anthropometry import landmarks, measure
from .child_sizes import AGES, MEASURES, adult_share
from .eyes import EyeFitter
from .mouth import MouthCorrector
from .shape_population import PopulationSettings, facial_skin, rigid_fit
from .sources import ANCESTRIES, HeadMesh, ShapeSource

# Share of a population; sets the standard deviation of the modes. With more, small adults are fitted as children.
CHILDREN = 0.02
TARGET_SHARE = 0.9  # of the source's child in its own shape; the rest is its change from adult to child, added to ours
PLUMP = 0.35  # share of the targets of heavy children: cheeks of children are full
STRONGEST = 1.2  # of the child's targets, which show about 8 years
TOLERANCE = 0.4  # residual of a measure in standard deviations, traded against the prior on the change
ROUNDS = 3
_NECK_RAMP = 0.5  # of the way from the chin down to the collar, over which the neck becomes a scaled adult's
_SLIM_NECK = 0.9  # breadth of a child's neck relative to a scaled adult's


@dataclass(frozen=True)
class AdultBasis:
    """Mean head (Vc, 3) and modes (I, Vc, 3) of adults in metres, and the scores (S, I) of a population."""

    mean: np.ndarray
    modes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class GrowthModes:
    """Modes of growth, and the path of an average head along them.

    Args:
        modes: (G, Vc, 3) metres per unit of a unit-variance coefficient; the first AGE_MODES depend on age alone.
        by_age: (T, G) coefficients at AGES, averaged over both sexes; zeros at the last.
        by_sex: (T, G) what a man (gender 1) has in addition; a woman (-1) has the opposite.
    """

    modes: np.ndarray
    by_age: np.ndarray
    by_sex: np.ndarray


def growth_modes(
    source: ShapeSource, origin: np.ndarray, basis: AdultBasis, settings: PopulationSettings, weights: np.ndarray
) -> GrowthModes:
    """Compute the growth modes.

    Args:
        source: base mesh and targets.
        origin: (3,) of the basis in the source's coordinates.
        basis: of the adults.
        settings: parameters of the heads that `basis.scores` belong to.
        weights: (Vc,) of the vertices, as in `shape_basis`.
    """
    adults = adult_heads(basis, settings) + origin
    grower = HeadGrower(source, basis)
    male, female = (grower.offsets(adults[sex], sex) for sex in (1, 0))
    root = np.sqrt(weights)[:, None]
    modes, columns = [], []
    for offsets, count in (((male + female) / 2, AGE_MODES), ((male - female) / 2, SEX_MODES)):
        scores, singular, _ = np.linalg.svd((root * offsets).reshape(len(AGES) - 1, -1), full_matrices=False)
        path = scores[:, :count] * singular[:count]
        path *= np.sign(path[0])
        scale = np.sqrt(CHILDREN * _mean_square(path))
        path = path / scale
        modes.append(np.linalg.lstsq(path, offsets.reshape(len(path), -1), rcond=None)[0])
        columns.append(np.concatenate([path, np.zeros((1, count))]))
    by_age = np.concatenate([columns[0], np.zeros_like(columns[1])], axis=1)
    by_sex = np.concatenate([np.zeros_like(columns[0]), columns[1]], axis=1)
    return GrowthModes(np.concatenate(modes).reshape(-1, *basis.mean.shape), by_age, by_sex)


def _mean_square(path: np.ndarray) -> np.ndarray:
    """Mean square (G,) of coefficients (T - 1, G) at AGES without the last, over ages from the first to the last."""
    years = np.linspace(AGES[0], AGES[-1], 200)
    values = [np.interp(years, AGES, (*column, 0.0)) for column in path.T]
    return np.square(values).mean(axis=1)


def adult_heads(basis: AdultBasis, settings: PopulationSettings) -> np.ndarray:
    """Mean heads (2, Vc, 3) of women and men of the last of AGES, of average build, over all ancestries equally."""
    male = settings.male
    columns = [1 - male, male, settings.years - AGES[-1], settings.weight - 0.5, settings.muscle - 0.5]
    columns += list((settings.ancestry[:, 1:] - 1 / len(ANCESTRIES)).T)
    coefficients = np.linalg.lstsq(np.stack(columns, axis=1), basis.scores.astype(np.float64), rcond=None)[0][:2]
    return basis.mean + np.tensordot(coefficients, basis.modes.astype(np.float64), axes=1)


class HeadGrower:
    """Computes the heads of children from adult heads.

    Args:
        source: base mesh and targets.
        basis: of the adults; its modes are combined to give a child's head its sizes.
    """

    def __init__(self, source: ShapeSource, basis: AdultBasis):
        self._source, self._head = source, source.head
        self._eyes, self._mouth = EyeFitter(self._head), MouthCorrector(self._head)
        self._modes = basis.modes.astype(np.float64)
        self._deviations = self._measured(basis.mean + np.einsum("si,ivc->svc", basis.scores[:200], basis.modes)).std(0)

    def offsets(self, adult: np.ndarray, male: float) -> np.ndarray:
        """Offsets (T - 1, Vc, 3) in metres from an adult head (Vc, 3) in the source's coordinates to its childhood, at
        AGES without the last.

        The middle between the eyes stays where it is.
        """
        towards = self._child_target(adult, male)
        size, grown = self._measured(np.stack([adult, adult + towards])) / self._deviations
        heads = []
        for years in AGES[:-1]:
            wanted = size * adult_share(years, male)
            amount = np.clip((grown - size) @ (wanted - size) / ((grown - size) @ (grown - size)), 0, STRONGEST)
            child = self._with_sizes(adult + amount * towards, wanted)
            heads.append(placed(self._mouth.correct(self._eyes.fit(child)), adult, self._head))
        return np.stack(heads) - adult

    def _child_target(self, adult: np.ndarray, male: float) -> np.ndarray:
        """Offsets (Vc, 3) from an adult head to the source's child of about 8 years."""
        young, child = (placed(self._macro(age, male), adult, self._head) for age in ("young", "child"))
        towards = TARGET_SHARE * (child - adult) + (1 - TARGET_SHARE) * (child - young)
        return towards + self._neck(adult, adult + towards)

    def _macro(self, age: str, male: float) -> np.ndarray:
        """The source's head of an age class and average build, over all ancestries: (Vc, 3)."""
        shape = self._head.vertices.copy()
        for sex, share in (("male", male), ("female", 1 - male)):
            for name in ANCESTRIES:
                shape += share / len(ANCESTRIES) * self._source.target("macrodetails", f"{name}-{sex}-{age}")
            for weight, part in (("average", 1 - PLUMP), ("max", PLUMP)) if age == "child" else (("average", 1.0),):
                name = f"universal-{sex}-{age}-averagemuscle-{weight}weight"
                shape += share * part * self._source.target("macrodetails", name)
        return shape

    def _neck(self, adult: np.ndarray, child: np.ndarray) -> np.ndarray:
        """Offsets (Vc, 3) that replace the child's neck, which the source's short body deforms, by the adult's scaled
        neck."""
        skin = self._head.part == "skin"
        chin = float(landmarks(adult[None], self._head)["menton"][0, 1])
        above = skin & (adult[:, 1] > chin)
        rotation, shift = rigid_fit(adult[above], child[above], scale=True)
        scaled = adult @ rotation.T + shift
        ramp = np.clip((chin - adult[:, 1]) / (_NECK_RAMP * (chin - adult[skin, 1].min())), 0, 1) * skin
        ramp = (ramp**2 * (3 - 2 * ramp))[:, None]
        middle = np.median(scaled[ramp[:, 0] > 0.5], axis=0) * (0, 0, 1)
        axes = np.array([1, 0, 1]) * (1 - _SLIM_NECK) * ramp
        return ramp * (scaled - axes * (scaled - middle) - child)

    def _with_sizes(self, shape: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Change a head (Vc, 3) by the most probable combination of the modes that gives it the sizes (K,) wanted, in
        standard deviations."""
        step = 0.2
        ends = [self._measured(shape + sign * step * self._modes) for sign in (1, -1)]
        effect = (ends[0] - ends[1]) / (2 * step * self._deviations)
        normal = effect.T @ effect + TOLERANCE**2 * np.eye(effect.shape[1])
        for _ in range(ROUNDS):
            missing = wanted - self._measured(shape[None])[0] / self._deviations
            shape = shape + np.tensordot(effect @ np.linalg.solve(normal, missing), self._modes, axes=1)
        return shape

    def _measured(self, heads: np.ndarray) -> np.ndarray:
        """Measures (S, K) in the order of MEASURES, millimetres."""
        measures = measure(heads, self._head)
        return np.stack([measures[name] for name in MEASURES], axis=1)


def placed(shape: np.ndarray, other: np.ndarray, head: HeadMesh) -> np.ndarray:
    """Align a head (Vc, 3) to another one without scaling: rotated by the face, moved by the middle of the eyes."""
    face = facial_skin(head)
    rotation, _ = rigid_fit(shape[face], other[face])
    turned = shape @ rotation.T
    eyes = [np.flatnonzero(head.part == f"eyeball_{side}") for side in ("left", "right")]
    return turned + np.mean([other[eye].mean(axis=0) - turned[eye].mean(axis=0) for eye in eyes], axis=0)
