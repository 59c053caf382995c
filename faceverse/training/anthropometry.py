"""Anthropometric landmarks and measures of the coarse head mesh, with published survey values to compare against.

Landmarks are vertices of the source's base.obj, chosen on the mean head; a landmark between vertices is the mean of
several. Measures follow the definitions of the surveys: straight distances in millimetres, angles in degrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .sources import ANCESTRIES, HeadMesh

MIDLINE = {
    "vertex": (881,),
    "trichion": (983,),  # a bald head has no hairline: its usual position, 5 cm above the glabella
    "glabella": (234,),
    "sellion": (132,),
    "rhinion": (131, 5063),  # the middle of the bridge
    "pronasale": (5054,),
    "subnasale": (343,),
    "labiale_superius": (455,),
    "stomion": (468, 493),
    "labiale_inferius": (496,),
    "sublabiale": (724,),
    "pogonion": (5162,),
    "gnathion": (5171,),
    "menton": (5296,),
    "opisthocranion": (5389,),
}
PAIRED = {  # the subject's left side; the right side is the mirror image
    "euryon": (7577,),
    "frontotemporale": (10412,),
    "brow_medial": (6983,),
    "superciliare": (6979, 6980),
    "brow_lateral": (6999, 6981),
    "forehead_side": (11923, 7598),  # 2 cm above the brow
    "temple": (7034, 11809),
    "maxillofrontale": (6893, 6899),  # beside the sellion, half-way back to the corner of the eye
    "nasal_side": (11864, 6974),  # flank of the bridge, where it turns backwards
    "tip_side": (7046, 11668),
    "alar_crease": (11669,),
    "endocanthion": (6848,),
    "exocanthion": (6805,),
    "palpebrale_superius": (6785,),
    "palpebrale_inferius": (13370,),
    "orbitale": (11829,),
    "lateral_orbit": (6970, 6991),
    "malare": (11793, 11706, 11790),  # the most prominent point of the cheekbone
    "zygion": (7572,),
    "bucca": (11767, 11768),  # the middle of the cheek
    "alare": (11672,),
    "cheilion": (10404,),
    "gonion": (7597,),
    "jaw_body": (7617,),  # lower edge of the jaw, half-way to the chin
    "chin_side": (11821, 11784),
    "neck_side": (7473, 7537),
    "helix": (12043, 12038, 12044, 12040),
    "tragion": (12067,),
    "superaurale": (12012,),
    "subaurale": (12027,),
    "preaurale": (12045,),
    "postaurale": (12040,),
}
# Candidate vertices of a breadth taken at the widest position, or of a length taken to the farthest point.
WIDEST_HEAD = (7577, 7565, 12002, 11998, 7675, 7660, 7701)
WIDEST_CHEEK = (7572, 12010, 7573, 7564, 11845, 11844, 7037)
WIDEST_JAW = (7597, 7459, 7596)
WIDEST_NOSE = (11672, 7101, 7080, 11746)
BACK_OF_HEAD = (969, 5379, 962, 5389, 955, 948)
HELIX = (12037, 12043, 12038, 12044, 12040, 12039, 12061)
MASTOID = (7648, 7642)


def mirror(head: HeadMesh) -> np.ndarray:
    """Index (Vc,) of each vertex's mirror image; the base head is exactly symmetric."""
    return cKDTree(head.vertices).query(head.vertices * [-1, 1, 1])[1]


def coarse_index(head: HeadMesh, source_index: tuple[int, ...]) -> np.ndarray:
    """Coarse vertices (K,) that correspond to vertices of base.obj."""
    return np.searchsorted(head.source_index, source_index)


def landmarks(heads: np.ndarray, head: HeadMesh) -> dict[str, np.ndarray]:
    """Named landmark positions (S, 3) of heads (S, Vc, 3), in the unit of the heads.

    The names are those of MIDLINE, those of PAIRED with the suffix `_left` or `_right` (the subject's side), and
    `pupil_left`, `pupil_right` (the centres of the eyeballs).
    """
    partner = mirror(head)
    places = {name: coarse_index(head, index) for name, index in MIDLINE.items()}
    for name, index in PAIRED.items():
        left = coarse_index(head, index)
        places |= {f"{name}_left": left, f"{name}_right": partner[left]}
    for side in ("left", "right"):
        places[f"pupil_{side}"] = np.flatnonzero(head.part == f"eyeball_{side}")
    return {name: heads[:, index].mean(1) for name, index in places.items()}


# -- measures ---------------------------------------------------------------------------------------------------------
def measure(heads: np.ndarray, head: HeadMesh) -> dict[str, np.ndarray]:
    """Measures (S,) by name of upright heads (S, Vc, 3) in metres; the results are millimetres and degrees."""
    heads = np.asarray(heads, dtype=np.float64) * 1e3
    p = landmarks(heads, head)

    def apart(first: str, second: str) -> np.ndarray:
        return np.linalg.norm(p[first] - p[second], axis=-1)

    def across(name: str) -> np.ndarray:
        return apart(f"{name}_left", f"{name}_right")

    def both(first: str, second: str) -> np.ndarray:
        return (apart(f"{first}_left", f"{second}_left") + apart(f"{first}_right", f"{second}_right")) / 2

    back = heads[:, coarse_index(head, BACK_OF_HEAD)]
    tragion_y = (p["tragion_left"][:, 1] + p["tragion_right"][:, 1]) / 2
    return {
        "head_length": np.linalg.norm(back - p["glabella"][:, None], axis=-1).max(1),
        "head_breadth": _widest(heads, head, WIDEST_HEAD),
        "tragion_to_top": heads[:, head.part == "skin", 1].max(1) - tragion_y,
        "minimum_frontal_breadth": across("frontotemporale"),
        "bizygomatic_breadth": _widest(heads, head, WIDEST_CHEEK),
        "bigonial_breadth": _widest(heads, head, WIDEST_JAW),
        "face_height": apart("sellion", "menton"),
        "upper_face_height": apart("sellion", "stomion"),
        "lower_face_height": apart("subnasale", "menton"),
        "forehead_height": apart("trichion", "sellion"),
        "interpupillary_distance": across("pupil"),
        "intercanthal_breadth": across("endocanthion"),
        "biocular_breadth": across("exocanthion"),
        "eye_fissure_length": both("endocanthion", "exocanthion"),
        "eye_fissure_height": both("palpebrale_superius", "palpebrale_inferius"),
        "eye_fissure_angle": _eye_angle(p),
        "nose_breadth": _widest(heads, head, WIDEST_NOSE),
        "nose_length": apart("sellion", "subnasale"),
        "nose_protrusion": apart("subnasale", "pronasale"),
        "nasal_root_breadth": across("maxillofrontale"),
        "nasolabial_angle": angle(p["pronasale"], p["subnasale"], p["labiale_superius"]),
        "philtrum_length": apart("subnasale", "labiale_superius"),
        "mouth_breadth": across("cheilion"),
        "upper_lip_height": apart("labiale_superius", "stomion"),
        "lower_lip_height": apart("stomion", "labiale_inferius"),
        "chin_height": apart("sublabiale", "menton"),
        "ear_length": both("superaurale", "subaurale"),
        "ear_breadth": both("preaurale", "postaurale"),
        "ear_protrusion": (_widest(heads, head, HELIX) - _widest(heads, head, MASTOID)) / 2,
    }


def angle(first: np.ndarray, corner: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angle (S,) in degrees at `corner` between the directions to `first` and to `second`, each (S, 3)."""
    a, b = first - corner, second - corner
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def _eye_angle(p: dict[str, np.ndarray]) -> np.ndarray:
    """Inclination of the palpebral fissures in degrees, positive where the outer corners are higher; mean of both."""
    slopes = []
    for side in ("left", "right"):
        out = p[f"exocanthion_{side}"] - p[f"endocanthion_{side}"]
        slopes.append(np.degrees(np.arctan2(out[:, 1], np.abs(out[:, 0]))))
    return np.mean(slopes, axis=0)


def _widest(heads: np.ndarray, head: HeadMesh, places: tuple[int, ...]) -> np.ndarray:
    """Largest distance (S,) between one of the left candidate vertices and its mirror image."""
    left = coarse_index(head, places)
    return np.linalg.norm(heads[:, left] - heads[:, mirror(head)[left]], axis=-1).max(1)


# -- published values -------------------------------------------------------------------------------------------------
NIOSH = (
    "NIOSH 2003: survey of 3,997 US respirator users, from the public records of the persons (Zhuang and Bradtmiller "
    "2005; Zhuang et al. 2010); asian is their group 'other', mostly Asian-American"
)
ANSUR = "ANSUR II: US Army 2012, from the public records of 6,068 persons (Gordon et al. 2014)"
FARKAS = "Farkas et al. 2005: North American whites of 18 to 30 years"
BOUHADANA = "Bouhadana et al. 2022: pooled analysis of 67 studies, deviation between cohorts"

_GROUPS = ("all", "caucasian", "african", "asian")
# Mean and standard deviation in millimetres of the groups in the order of _GROUPS; men first, then women.
_SURVEYS = {
    NIOSH: {
        "head_length": (((197.4, 7.5), (198.1, 7.1), (199.1, 7.2), (193.7, 7.6)),
                        ((187.6, 7.6), (188.3, 6.8), (190.0, 6.9), (181.1, 7.3))),
        "head_breadth": (((153.1, 6.0), (152.8, 5.8), (153.3, 6.1), (154.0, 6.5)),
                         ((147.0, 5.8), (146.5, 5.5), (146.7, 5.7), (149.1, 6.3))),
        "bizygomatic_breadth": (((143.9, 6.9), (142.9, 6.7), (144.6, 6.8), (144.7, 7.1)),
                                ((136.2, 6.5), (133.8, 6.2), (137.5, 6.2), (137.8, 6.4))),
        "bigonial_breadth": (((120.7, 10.7), (119.9, 10.0), (120.8, 11.4), (120.0, 9.8)),
                             ((111.6, 9.3), (108.5, 8.2), (113.8, 9.3), (112.4, 8.5))),
        "minimum_frontal_breadth": (((105.7, 5.8), (105.5, 5.6), (106.6, 5.8), (104.8, 5.7)),
                                    ((103.2, 5.5), (102.9, 5.3), (104.7, 5.4), (100.7, 5.5))),
        "face_height": (((123.2, 7.2), (122.6, 6.9), (125.4, 7.3), (120.8, 7.3)),
                        ((114.2, 6.5), (113.0, 5.8), (116.5, 6.4), (110.8, 6.1))),
        "nose_length": (((51.9, 4.1), (52.3, 4.0), (50.8, 4.1), (51.3, 4.4)),
                        ((47.7, 3.8), (48.6, 3.7), (47.4, 3.7), (46.2, 3.7))),
        "nose_breadth": (((37.8, 4.8), (35.3, 3.2), (43.4, 3.9), (38.3, 4.1)),
                         ((35.8, 4.9), (31.6, 2.6), (40.1, 3.5), (35.0, 3.5))),
        "nasal_root_breadth": (((16.7, 2.3), (16.5, 2.2), (17.3, 2.4), (16.1, 2.2)),
                               ((16.6, 2.0), (16.1, 2.0), (17.2, 2.1), (16.5, 1.7))),
        "nose_protrusion": (((20.8, 2.7), (21.7, 2.6), (19.3, 2.4), (20.0, 2.8)),
                            ((18.9, 2.7), (20.4, 2.6), (18.2, 2.3), (17.3, 2.3))),
        "mouth_breadth": (((51.7, 4.3), (50.7, 4.0), (54.4, 3.9), (50.6, 4.5)),
                          ((49.2, 4.5), (47.1, 3.5), (51.9, 3.9), (46.8, 4.2))),
        "interpupillary_distance": (((65.1, 3.8), (64.0, 3.4), (67.7, 3.6), (64.9, 3.9)),
                                    ((63.1, 4.0), (61.2, 3.1), (65.5, 3.8), (62.0, 3.4))),
    },
    ANSUR: {
        "head_length": (((199.5, 7.0), (199.9, 6.7), (201.1, 6.8), (192.3, 7.7)),
                        ((189.8, 7.4), (188.8, 6.6), (193.2, 7.2), (183.7, 7.7))),
        "head_breadth": (((154.3, 5.5), (154.0, 5.3), (154.6, 5.8), (158.2, 6.7)),
                         ((147.8, 5.2), (147.1, 4.7), (148.0, 5.4), (151.9, 5.3))),
        "tragion_to_top": (((131.1, 6.2), (131.3, 6.0), (129.9, 6.4), (132.0, 6.6)),
                           ((126.5, 6.5), (126.1, 6.2), (126.5, 6.9), (129.0, 6.8))),
        "bizygomatic_breadth": (((142.6, 6.2), (141.9, 6.0), (143.6, 6.4), (146.7, 6.4)),
                                ((133.8, 5.6), (132.3, 5.0), (134.9, 5.4), (139.2, 6.1))),
        "face_height": (((122.6, 6.7), (122.3, 6.7), (124.2, 6.7), (121.7, 6.8)),
                        ((113.1, 6.1), (112.4, 6.0), (114.0, 6.1), (111.6, 5.5))),
        "interpupillary_distance": (((64.0, 3.4), (63.3, 3.1), (66.9, 3.5), (64.2, 3.2)),
                                    ((61.7, 3.6), (60.2, 3.2), (64.0, 3.3), (61.7, 2.9))),
        "ear_length": (((64.2, 4.5), (64.4, 4.4), (62.1, 4.4), (64.6, 4.6)),
                       ((59.4, 3.9), (59.6, 3.8), (58.7, 3.9), (59.1, 4.1))),
        "ear_breadth": (((36.1, 3.0), (36.1, 3.0), (36.1, 3.3), (35.1, 3.2)),
                        ((33.2, 2.8), (33.1, 2.6), (33.6, 2.9), (32.2, 2.6))),
        "ear_protrusion": (((23.2, 3.0), (23.3, 3.0), (22.0, 2.8), (24.3, 3.1)),
                           ((20.4, 2.7), (20.7, 2.6), (19.6, 2.4), (20.8, 2.9))),
    },
}  # fmt: skip
_SINGLE = (
    ("intercanthal_breadth", "male", "caucasian", 33.3, 2.7, FARKAS),
    ("intercanthal_breadth", "female", "caucasian", 31.8, 2.3, FARKAS),
    ("biocular_breadth", "male", "caucasian", 91.2, 3.0, FARKAS),
    ("biocular_breadth", "female", "caucasian", 87.8, 3.2, FARKAS),
    ("eye_fissure_length", "male", "caucasian", 31.3, 1.3, FARKAS),
    ("intercanthal_breadth", "all", "caucasian", 31.4, 2.5, BOUHADANA),
    ("intercanthal_breadth", "all", "african", 38.5, 3.2, BOUHADANA),
    ("intercanthal_breadth", "all", "asian", 36.4, 1.6, BOUHADANA),
)


@dataclass(frozen=True)
class PublishedStatistic:
    """Mean and standard deviation of a measure in a survey, in millimetres.

    Args:
        name: a measure of `measure`.
        sex: "male", "female" or "all".
        group: one of ANCESTRIES, or "all".
        mean, deviation: over the people of the survey.
        source: the reference to cite.
    """

    name: str
    sex: str
    group: str
    mean: float
    deviation: float
    source: str


PUBLISHED = tuple(
    PublishedStatistic(name, sex, group, *value, source)
    for source, table in _SURVEYS.items()
    for name, sexes in table.items()
    for sex, values in zip(("male", "female"), sexes, strict=True)
    for group, value in zip(_GROUPS, values, strict=True)
) + tuple(PublishedStatistic(*row) for row in _SINGLE)


@dataclass(frozen=True)
class MeasureComparison:
    """A published value beside the statistics of our heads of the same sex and group (`count` of them), in mm."""

    published: PublishedStatistic
    mean: float
    deviation: float
    count: int


def compare_measures(
    measures: dict[str, np.ndarray], male: np.ndarray, ancestry: np.ndarray | None = None, *, least_share: float = 0.6
) -> list[MeasureComparison]:
    """Compare the measures of our heads with the published values.

    Args:
        measures: of `measure`, each (S,).
        male: (S,) 0 female .. 1 male, thresholded at 0.5.
        ancestry: (S, 3) shares in the order of ANCESTRIES; without them only groups "all" are compared.
        least_share: the share from which a head belongs to a group.
    Returns:
        a row for each published value with at least two heads of ours, ordered by measure, sex and group.
    """
    everybody = np.ones(len(male), bool)
    sexes = {"all": everybody, "male": np.asarray(male) > 0.5, "female": np.asarray(male) <= 0.5}
    groups = {"all": everybody}
    if ancestry is not None:
        groups |= {name: ancestry[:, k] >= least_share for k, name in enumerate(ANCESTRIES)}
    order = list(measures)
    rows = []
    for row in sorted(PUBLISHED, key=lambda r: (order.index(r.name) if r.name in order else -1, r.sex, r.group)):
        if row.name not in measures or row.group not in groups:
            continue
        chosen = measures[row.name][sexes[row.sex] & groups[row.group]]
        if len(chosen) >= 2:
            rows.append(MeasureComparison(row, float(chosen.mean()), float(chosen.std(ddof=1)), len(chosen)))
    return rows


def comparison_table(rows: list[MeasureComparison]) -> str:
    """Format the rows as text, with the offset of our mean in units of the published standard deviation."""
    lines = [f"{'measure':24s} {'sex':6s} {'group':10s} {'ours':>13s} {'published':>13s} {'shift':>6s}  source"]
    for row in rows:
        p = row.published
        lines.append(
            f"{p.name:24s} {p.sex:6s} {p.group:10s} {row.mean:7.1f} {row.deviation:5.1f} {p.mean:7.1f} "
            f"{p.deviation:5.1f} {(row.mean - p.mean) / p.deviation:+6.2f}  {p.source.split(':')[0]}"
        )
    return "\n".join(lines)
