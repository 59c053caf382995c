"""Published sizes of children's heads, as shares of the adult values by age and sex; random ages.

No open survey lists all measures of `faceverse.training.anthropometry` for children, so this table is compiled. Fixed
points, from the abstracts of the studies:

* Ferrario et al. 1998 (1,347 Caucasians of 6 years to adulthood, three-dimensional): from 6 years to adulthood the
  lower third of the face grows by 23 % (male) and 17 % (female), the middle third by 18 % and 13 %.
* Farkas, Posnick and Hreczko 1992 (1,594 North American Caucasians of 1 to 18 years): the intercanthal width has 93 %
  of the adult value at 5 years and matures at 11 (male) and 8 years (female), the biocular width 88 %, 15 and 13 years;
  head length matures at 14 (189.2 mm) and 10 years (182.7 mm), head width at 15 and 14 years, the heights of head,
  face and mandible and the width of the face at 15 and 12 to 13 years.
* Interpupillary distance: 51 mm at 5 years (Lewis and Tran 1993; adults 63 mm), mature at 15 and 13 years (Wang, Zhao
  and Ai 2001).

Values between the fixed points follow smooth growth curves; those of nose, mouth, ears and jaw width, for which only
curves without a table were at hand, are the least certain (about 2 % of the adult value). `eye_fissure_height`, the
opening of the eyes, has no published source: none of the studies reports it, and its shares (9 and 6 % above the adult
value at 6 years) are an assumption. All groups share the table:
surveys of children by ancestry are missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..model.face_model import FaceModel

CHILDREN = 0.15  # share of persons below the last of AGES in training data
AGES = (6.0, 8.0, 11.0, 14.0, 17.0, 20.0)
"""Years of the table's columns; at the last the head is adult."""

# Percent of the adult value at AGES without the last: boys, then girls.
_PERCENT = {
    "head_length": ((92, 93.5, 95.5, 98.5, 99.8), (93.5, 95.5, 98, 99.5, 100)),
    "head_breadth": ((93, 94, 96, 98.5, 99.8), (94, 95.5, 97.5, 99.5, 100)),
    "tragion_to_top": ((93, 94.5, 97, 99, 99.8), (94, 95.5, 98.5, 99.8, 100)),
    "minimum_frontal_breadth": ((91, 93, 95.5, 98, 99.6), (92.5, 94.5, 97.5, 99.3, 100)),
    "bizygomatic_breadth": ((85, 88, 92, 97, 99.5), (87, 90, 95, 99, 100)),
    "bigonial_breadth": ((84, 87, 91, 96, 99.3), (87, 90, 94, 98.5, 100)),
    "face_height": ((81.5, 85, 89.5, 95.5, 99.3), (85.5, 88.5, 93.5, 98.5, 100)),
    "upper_face_height": ((81, 84.5, 89, 95.5, 99.3), (85, 88, 93.5, 98.5, 100)),
    "lower_face_height": ((81.3, 84.5, 88.8, 95, 99.2), (85.5, 88.5, 93, 98, 100)),
    "nose_length": ((80, 84, 89, 95.5, 99.3), (83.5, 87, 93, 98.5, 100)),
    "nose_breadth": ((82, 85, 90, 96, 99.3), (87, 90, 94.5, 98.5, 100)),
    "nose_protrusion": ((75, 80, 87, 95, 99.2), (79, 83, 91, 98, 100)),
    "nasal_root_breadth": ((93, 95, 97, 99, 99.8), (94, 96, 98, 99.5, 100)),
    "mouth_breadth": ((80, 83.5, 88.5, 95, 99.2), (83, 86.5, 92, 97.5, 100)),
    "interpupillary_distance": ((82.5, 85.5, 90.5, 96.5, 99.6), (84.5, 87.5, 93.5, 98.8, 100)),
    "intercanthal_breadth": ((94, 96, 99, 100, 100), (95.5, 99, 100, 100, 100)),
    "biocular_breadth": ((88.5, 90.5, 94, 98.5, 99.8), (89.5, 92, 96.5, 99.7, 100)),
    "eye_fissure_length": ((86, 88, 92, 97.5, 99.7), (87, 89.5, 95, 99.5, 100)),
    "eye_fissure_height": ((109, 108, 106, 103, 100.5), (106, 105, 103, 101, 100)),
    "ear_length": ((87, 89.5, 93.5, 97.5, 99.5), (89, 91.5, 95, 98.5, 100)),
    "ear_breadth": ((95, 96, 97.5, 99, 99.8), (95.5, 96.5, 98.5, 99.5, 100)),
}
MEASURES = tuple(_PERCENT)
"""Names of the measures in the table, as in `faceverse.training.anthropometry.measure`."""


def adult_share(years: float, male: float) -> np.ndarray:
    """Shares (K,) of the adult value that MEASURES have at an age of 6 years or more, for male 0..1."""
    boys, girls = ([np.interp(years, AGES, (*row[sex], 100)) for row in _PERCENT.values()] for sex in (0, 1))
    return (male * np.array(boys) + (1 - male) * np.array(girls)) / 100


def random_age(model: FaceModel, rng: np.random.Generator) -> float | None:
    """Age in years of a child or adolescent in CHILDREN of the cases, else None; always None for a model of adults."""
    youngest = [a.minimum for a in model.data.attributes if a.name == "age" and a.path is not None]
    if not youngest or rng.random() >= CHILDREN:
        return None
    return float(rng.uniform(youngest[0], AGES[-1]))
