"""Random appearance traits of a person: pigments, hair, eyebrows, beard, lips, freckles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .skin_fields import smoothstep
from .skin_reflectance import melanin_of_ita
from .sources import ANCESTRIES

if TYPE_CHECKING:
    from .shape_population import PopulationSettings

# Hair from black over brown to blond, and red and white; linear RGB at a distance.
HAIR_RAMP = np.array(
    [(0.010, 0.008, 0.007), (0.022, 0.013, 0.008), (0.060, 0.032, 0.016), (0.18, 0.11, 0.055), (0.36, 0.25, 0.13)]
)
RED_HAIR = np.array([0.17, 0.058, 0.018])
LIGHTER_WOMEN_DEG = 4.0  # at equal ancestry women are slightly lighter everywhere (Jablonski and Chaplin 2000)
WHITE_HAIR = np.array([0.34, 0.315, 0.28])


@dataclass(frozen=True)
class AppearanceTraits:
    """Appearance traits of a person.

    Args:
        melanin, blood: volume shares of the plain skin.
        pheomelanin: share of the melanin.
        flush: (5,) changes of log blood in cheeks, nose, ears, chin, forehead.
        shadows: (2,) changes of the melanin index in the orbit and under the eyes.
        freckles, spots: strength of small patches, 0 is none.
        lip_blood: strength of the lips' redness; lip_melanin: change of their melanin index.
        hair: (3,) linear RGB of the scalp hair; brow_hair, beard_hair: likewise.
        scalp: share of the scalp covered by hair; recession: (3,) of the hairline at the front and the temples in
            metres, and of the top 0..1; thin_crown: 0..1.
        brow: share covered; brow_width: in half heights of the average brow; brow_arch, brow_shift: likewise;
            brow_tail: position of its end, 1 is average.
        beard, moustache: shares covered.
        lashes: shares covered at the upper and the lower lid.
    """

    melanin: float
    blood: float
    pheomelanin: float
    flush: np.ndarray
    shadows: np.ndarray
    freckles: float
    spots: float
    lip_blood: float
    lip_melanin: float
    hair: np.ndarray
    brow_hair: np.ndarray
    beard_hair: np.ndarray
    scalp: float
    recession: np.ndarray
    thin_crown: float
    brow: float
    brow_width: float
    brow_arch: float
    brow_shift: float
    brow_tail: float
    beard: float
    moustache: float
    lashes: np.ndarray


def maturity(years: float) -> float:
    """0 for a child of 10 years or less .. 1 from 19 years on: of beard, brows and the unevenness of the skin."""
    return float(smoothstep((years - 10) / 9))


def tone_ita_deg(tone: np.ndarray) -> np.ndarray:
    """Individual typology angle of a tone in 0 .. 1: 63 (very light) .. -62 degrees (very dark)."""
    tone = np.asarray(tone, dtype=np.float64)
    return 63 - 50 * tone - 75 * tone**2


def draw_traits(settings: PopulationSettings, index: int, rng: np.random.Generator) -> AppearanceTraits:
    """Draw traits of person `index`: beard, baldness and brows depend on sex, grey hair, baldness and spots on age.

    Children have no beard, finer brows, fewer shadows and more colour.
    """
    years, male = settings.years[index], settings.male[index]
    young = 1 - maturity(years)
    man = float(smoothstep((male - 0.5) / 0.3))
    old = float(np.clip((years - 40) / 40, 0, 1))
    degrees = float(tone_ita_deg(settings.tone[index])) + LIGHTER_WOMEN_DEG * (0.5 - man)
    pale = float(smoothstep((degrees - 15) / 30)) * settings.ancestry[index][ANCESTRIES.index("caucasian")]
    pheomelanin = float(np.clip(0.08 + 0.10 * pale + 0.07 * rng.standard_normal(), 0, 0.5))
    blood = float(np.clip(0.034 * np.exp(0.22 * rng.standard_normal() + 0.08 * man), 0.02, 0.07))
    hair, red = _hair(pale, rng)
    grey = 1 / (1 + np.exp(-(years - 53 + 8 * rng.standard_normal()) / 5.5))
    dark = 1 - float(smoothstep((degrees - 10) / 40))
    deep = float(smoothstep((-10 - degrees) / 40))
    lips = 0.37 + 0.09 * rng.standard_normal() + 0.08 * (1 - man) - 0.10 * old - 0.2 * young - 0.08 * dark - 0.14 * deep
    beard, moustache = ((1 - young) * share for share in _beard(man, rng))
    return AppearanceTraits(
        melanin=float(melanin_of_ita(degrees, blood, pheomelanin)),
        blood=blood,
        pheomelanin=pheomelanin,
        flush=np.array([0.10, 0.08, 0.18, 0.04, -0.04])
        + young * np.array([0.08, 0.04, 0.04, 0.0, 0.0])
        + np.array([0.16, 0.16, 0.12, 0.10, 0.08]) * rng.standard_normal(5),
        shadows=np.array([0.02, 0.02])
        + (0.05 + 0.04 * dark) * (1 - 0.5 * young) * np.abs(rng.standard_normal(2))
        + (0.03 * old, 0.07 * old),
        freckles=(0.10 + 0.35 * rng.random()) * float(rng.random() < 0.15 + 0.6 * red) * pale,
        spots=0.13 * rng.random() * float(np.clip((years - 42) / 35, 0, 1)),
        lip_blood=max(0.05, lips),
        lip_melanin=0.05 * rng.standard_normal() + 0.05 * dark,
        hair=hair + 0.96 * grey * (WHITE_HAIR - hair),
        brow_hair=_darker(hair) + grey * (0.2 + 0.5 * rng.random()) * (WHITE_HAIR - _darker(hair)),
        beard_hair=hair + 0.7 * grey * (WHITE_HAIR - hair),
        scalp=_scalp(man, rng),
        recession=_recession(man * (1 - young), years, rng),
        thin_crown=float(man * (1 - young) * np.clip((years - 20) / 60 + 0.45 * rng.standard_normal() - 0.35, 0, 1)),
        brow=float(np.clip(0.62 + 0.06 * man - 0.20 * young + 0.13 * rng.standard_normal(), 0.3 - 0.1 * young, 0.88)),
        brow_width=float(
            np.clip(0.95 + 0.25 * man * (1 - young) - 0.12 * young + 0.16 * rng.standard_normal(), 0.6, 1.6)
        ),
        brow_arch=float(0.35 * (1 - man) + 0.25 * rng.standard_normal()),
        brow_shift=float(0.12 * rng.standard_normal()),
        brow_tail=float(1 + 0.06 * rng.standard_normal()),
        beard=beard,
        moustache=moustache,
        lashes=np.array([0.62, 0.30]) + np.array([0.14, 0.08]) * (rng.standard_normal() + 1 - man - old),
    )


def _hair(pale: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Linear RGB (3,) of hair without grey, and 1 if it is red, else 0."""
    place = (0.9 * rng.random() + pale * 3.4 * rng.beta(1.5, 1.9)) / 4 * (len(HAIR_RAMP) - 1)
    hair = np.array([np.interp(place, np.arange(len(HAIR_RAMP)), HAIR_RAMP[:, c]) for c in range(3)])
    red = float(rng.random() < 0.08 * pale)
    return hair + red * 0.8 * (RED_HAIR - hair), red


def _darker(hair: np.ndarray) -> np.ndarray:
    """Brow colour: darker than light hair."""
    return np.minimum(hair, 0.45 * hair + 0.02)


def _beard(man: float, rng: np.random.Generator) -> tuple[float, float]:
    """Shares of skin covered by beard and moustache: clean-shaven, stubble, or short hair."""
    kind = rng.random()
    if kind < 0.30:
        share = 0.08 * rng.random()
    elif kind < 0.80:
        share = 0.10 + 0.20 * rng.random()
    else:
        share = 0.35 + 0.30 * rng.random()
    return man * share, man * share * (0.95 + 0.4 * rng.random())


def _scalp(man: float, rng: np.random.Generator) -> float:
    """Share of the scalp covered by short hair; few heads are shaved."""
    shaved = rng.random() < 0.02 + 0.07 * man
    return float(
        0.10 * rng.random() + 0.03 if shaved else np.clip(0.94 - 0.10 * man + 0.06 * rng.standard_normal(), 0.5, 0.97)
    )


def _recession(man: float, years: float, rng: np.random.Generator) -> np.ndarray:
    """(3,) metres at the front and the temples, and 0..1 on the top: Hamilton-Norwood pattern."""
    score = man * float(np.clip((years - 26) / 85 + 0.28 * rng.standard_normal(), 0, 1))
    front = 0.005 * rng.standard_normal() + 0.016 * score
    temples = 0.003 * man + 0.022 * float(smoothstep(score / 0.6)) + 0.003 * rng.standard_normal()
    return np.array([front, temples, float(smoothstep((score - 0.55) / 0.3))])
