"""Generate a population of synthetic head shapes from the open MakeHuman targets.

Every head has known parameters (sex, age, weight, ancestry), from which semantic directions can be learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .calibration import calibrate
from .deformation import KERNELS, KernelParameters, SmoothDeformation
from .eyes import EyeFitter
from .mouth import MouthCorrector
from .sources import ANCESTRIES, HeadMesh, ShapeSource

LOCAL_GROUPS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "chin", "cheek", "ears", "neck", "asym")
# Targets that move the whole head, or change what only a body has: rigid motion is not identity.
SKIPPED = ("head-trans", "head-age", "asymm-", "neck-double", "mouth-trans-backward")
# Standard deviations of the targets' weights, as shares of their full weight: the ends of the sliders are caricatures.
LOCAL_SIGMA = 0.18
GROUP_SIGMA = {"head": 0.09, "ears": 0.16, "neck": 0.12, "forehead": 0.15}
SINGLE_SIGMA = 0.10
SIDE_SIGMA = 0.05  # left against right
ASYMMETRY_SIGMA = 0.12
SIZE_MEAN, SIZE_SIGMA = 1.03, 0.025  # of a head's size relative to the base head
SIZE_SHARE = 0.35  # share of the targets' own size variation that is kept: it is twice that of adults
WEIGHT_FACTOR = 1.6  # amplification: the targets' body weight changes the face less than real weight does
OPPOSITES = {
    "decr": "incr",
    "down": "up",
    "in": "out",
    "backward": "forward",
    "concave": "convex",
    "compress": "uncompress",
}


@dataclass(frozen=True)
class PopulationSettings:
    """Demographic parameters of S heads.

    Args:
        years: (S,) 20..80.
        male: (S,) 0 female .. 1 male.
        weight, muscle: (S,) 0..1, 0.5 is average.
        ancestry: (S, 3) shares that sum to 1, in the order of ANCESTRIES.
        tone: (S,) skin tone, 0 very light .. 1 very dark.
    """

    years: np.ndarray
    male: np.ndarray
    weight: np.ndarray
    muscle: np.ndarray
    ancestry: np.ndarray
    tone: np.ndarray


def draw_settings(count: int, rng: np.random.Generator) -> PopulationSettings:
    """Draw adults of both sexes, with mixtures of three ancestries and all skin tones."""
    ancestry = rng.dirichlet((0.45, 0.45, 0.45), size=count)
    male = np.clip(np.where(rng.random(count) < 0.5, 0.06, 0.94) + 0.09 * rng.standard_normal(count), 0, 1)
    centre = ancestry @ np.array([0.74, 0.36, 0.24])
    return PopulationSettings(
        years=rng.uniform(20, 80, count),
        male=male,
        weight=rng.beta(2.6, 2.6, count),
        muscle=rng.beta(3.5, 3.0, count),
        ancestry=ancestry,
        tone=np.clip(centre + 0.15 * rng.standard_normal(count), 0, 1),
    )


def _levels(value: float, names: tuple[str, str, str]) -> dict[str, float]:
    """Weights of three classes for a value: piecewise linear in 0..1, extrapolated beyond."""
    end = names[0] if value < 0.5 else names[2]
    share = abs(2 * value - 1)
    return {end: share, names[1]: 1 - share}


def old_weight(years: float) -> float:
    """Weight of the "old" targets; MakeHuman's young adult is 25, its old person 90."""
    return float(np.clip((years - 25.0) / 65.0, 0.0, 1.0))


class ShapePopulation:
    """Draws head shapes (Vc, 3) in metres from a ShapeSource.

    Args:
        source: base mesh and targets.
        local_sigma: standard deviation of the local targets' weights.
        kernels: Gaussian-process deformations to add; empty for the range of the targets alone.
        calibrated: adjust sizes to published anthropometry, see `faceverse.training.calibration`.
    """

    def __init__(
        self,
        source: ShapeSource,
        *,
        local_sigma: float = LOCAL_SIGMA,
        kernels: tuple[KernelParameters, ...] = KERNELS,
        calibrated: bool = True,
    ):
        self.source = source
        self.head = source.head
        self.local_sigma = local_sigma
        self._macro: dict[str, np.ndarray] = {}
        self._eyes, self._mouth = EyeFitter(self.head), MouthCorrector(self.head)
        self.pairs, self.singles = _pair_targets(source)
        self._deformation = SmoothDeformation(self.head, kernels)
        self._calibrated = calibrated

    def macro(self, years: float, male: float, weight: float, muscle: float, ancestry: np.ndarray) -> np.ndarray:
        """Mean head of a given sex, age, build and ancestry, without individual features: (Vc, 3) metres."""
        old = old_weight(years)
        weight = 0.5 + WEIGHT_FACTOR * (weight - 0.5)
        shape = self.head.vertices.copy()
        for sex, sex_weight in (("female", 1 - male), ("male", male)):
            for age, age_weight in (("young", 1 - old), ("old", old)):
                share = sex_weight * age_weight
                if share < 1e-6:
                    continue
                for name, a in zip(ANCESTRIES, ancestry, strict=True):
                    shape += share * a * self._macro_target(f"{name}-{sex}-{age}")
                for m, mw in _levels(muscle, ("minmuscle", "averagemuscle", "maxmuscle")).items():
                    for w, ww in _levels(weight, ("minweight", "averageweight", "maxweight")).items():
                        shape += share * mw * ww * self._macro_target(f"universal-{sex}-{age}-{m}-{w}")
        return shape

    def _macro_target(self, name: str) -> np.ndarray:
        if name not in self._macro:
            self._macro[name] = self.source.target("macrodetails", name)
        return self._macro[name]

    def individual(self, rng: np.random.Generator) -> np.ndarray:
        """Individual features: offsets (Vc, 3) from local targets and a Gaussian-process deformation."""
        offsets = np.zeros_like(self.head.vertices)
        for (low, high), sigma, mirror in self.pairs:
            value = rng.standard_normal() * sigma * self.local_sigma / LOCAL_SIGMA
            values = [value] if mirror is None else value + SIDE_SIGMA * rng.standard_normal(2)
            for v, (a, b) in zip(values, [(low, high)] if mirror is None else [(low, high), mirror], strict=True):
                v = float(np.clip(v, -1, 1))
                offsets += abs(v) * (b if v > 0 else a)
        for target in self.singles:
            offsets += min(abs(rng.standard_normal()) * SINGLE_SIGMA, 0.8) * self.local_sigma / LOCAL_SIGMA * target
        return offsets + self._deformation.draw(rng)

    def draw(self, settings: PopulationSettings, rng: np.random.Generator) -> np.ndarray:
        """Draw heads (S, Vc, 3) float32 in metres, rigidly aligned to the base head, with fitted eyes and mouths."""
        heads = np.empty((len(settings.years), *self.head.vertices.shape), dtype=np.float32)
        for i in range(len(heads)):
            shape = self.macro(
                settings.years[i], settings.male[i], settings.weight[i], settings.muscle[i], settings.ancestry[i]
            )
            shape += self.individual(rng)
            heads[i] = shape * self._scale(shape, rng)
        heads = align(heads, self.head)
        if self._calibrated:
            heads = calibrate(heads, self.head, settings.male, settings.ancestry)
        for i in range(len(heads)):
            heads[i] = self._mouth.correct(self._eyes.fit(heads[i].astype(np.float64)))
        return align(heads, self.head)

    def _scale(self, shape: np.ndarray, rng: np.random.Generator) -> float:
        """Scale factor to adult size, which removes most of the targets' own size variation."""
        skin = self.head.part == "skin"
        size = [np.linalg.norm(s[skin] - s[skin].mean(0)) for s in (shape, self.head.vertices)]
        return (SIZE_MEAN + SIZE_SIGMA * rng.standard_normal()) * (size[1] / size[0]) ** (1 - SIZE_SHARE)


def _pair_targets(source: ShapeSource):
    """Group the local targets: ((low, high), sigma, mirrored pair or None), and those without an opposite."""
    pairs: list[tuple[tuple[np.ndarray, np.ndarray], float, tuple[np.ndarray, ...] | None]] = []
    singles: list[np.ndarray] = []
    done: set[str] = set()
    for group in LOCAL_GROUPS:
        names = source.target_names(group)
        for name in names:
            if name in done or any(name.startswith(s) for s in SKIPPED):
                continue
            stem, _, ending = name.rpartition("-")
            other = f"{stem}-{OPPOSITES.get(ending, '')}"
            if group == "asym" and name.endswith("-l"):
                done.update((name, f"{stem}-r"))
                pairs.append(((source.target(group, name), source.target(group, f"{stem}-r")), ASYMMETRY_SIGMA, None))
                continue
            if ending in OPPOSITES.values():
                continue  # handled with its opposite
            if other not in names:
                singles.append(source.target(group, name))
                continue
            sigma = GROUP_SIGMA.get(group, LOCAL_SIGMA)
            pair = (source.target(group, name), source.target(group, other))
            mirror = None
            if name.startswith("l-"):
                right = ("r-" + name[2:], "r-" + other[2:])
                mirror = tuple(source.target(group, r) for r in right)
                done.update(right)
            elif name.startswith("r-"):
                continue
            pairs.append((pair, sigma, mirror))
    return pairs, singles


def align(heads: np.ndarray, head: HeadMesh, rounds: int = 2) -> np.ndarray:
    """Rigidly align heads (S, Vc, 3) to their mean on the facial skin; no scaling, because size is part of identity."""
    face = facial_skin(head)
    target = head.vertices[face]
    for _ in range(rounds):
        for i in range(len(heads)):
            rotation, translation = rigid_fit(heads[i][face].astype(np.float64), target)
            heads[i] = heads[i] @ rotation.T + translation
        target = heads[:, face].mean(0).astype(np.float64)
    return heads


def facial_skin(head: HeadMesh) -> np.ndarray:
    """Indices of the vertices of the face, by which heads are aligned."""
    return np.flatnonzero((head.part == "skin") & (head.vertices[:, 2] > 0.08) & (head.vertices[:, 1] > 0.64))


def rigid_fit(source: np.ndarray, target: np.ndarray, *, scale: bool = False):
    """Least-squares rotation (3, 3), optionally scaled, and translation: source @ R.T + t = target (Umeyama 1991)."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, singular, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    if scale:
        rotation = rotation * ((singular * sign).sum() / (a**2).sum())
    return rotation, target.mean(0) - source.mean(0) @ rotation.T
