"""Learn semantic attribute directions (age, gender, nose width, ...) in the coefficient space of the model.

Global attributes (age, gender, weight, ancestries) are learned from the known parameters of the population. The step
of a global attribute is the multiple regression of the coefficients on the parameters. Its estimator is the best
linear unbiased one, so that a step changes its own estimate by one unit and the other estimates by zero.

Local attributes are measures of a facial feature (`LOCAL_ATTRIBUTES`) in millimetres or degrees, linearised at the
mean head, minus their expectation given the estimated global attributes: 0 is typical for such a person, +3 means 3 mm
more. Making a head older therefore leaves its local values unchanged. The step of a local attribute is the smallest
change (in the Mahalanobis norm of the population, with a penalty on displacement elsewhere on the head) that changes
its own estimate by one unit and no other estimate; it leaves the albedo unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from ..model.file import ModelFile
from .anthropometry import landmarks
from .shape_population import PopulationSettings
from .sources import ANCESTRIES, HeadMesh

Points = dict[str, np.ndarray]  # landmarks (S, 3) in millimetres

ESTIMATION_NOISE = 0.1  # variance of a fitted coefficient's error, added to the residual covariance
LOCALITY = 40.0  # penalty on the mean squared displacement elsewhere (mm^2), relative to squared coefficients
FREE_MM, BOUND_MM = 12.0, 35.0  # distance from the feature's landmarks: no penalty below, full penalty above
LARGEST_STEP = 4.0  # norm of the coefficients for one standard deviation of the attribute; longer ones are no slider
RANGE_DEVIATIONS = 2.5


@dataclass(frozen=True)
class LocalAttribute:
    """A measure of one facial feature.

    Args:
        name: the keyword of `faceverse.edit`.
        unit: "mm" or "degrees".
        measure: landmarks of S heads -> (S,).
        places: names of the landmarks around which the head may change.
    """

    name: str
    unit: str
    measure: Callable[[Points], np.ndarray]
    places: tuple[str, ...]


# -- measures of features ---------------------------------------------------------------------------------------------
def _across(*names: str) -> Callable[[Points], np.ndarray]:
    """Distance from left to right, averaged over the named pairs."""
    return lambda p: np.mean([_length(p[f"{n}_left"] - p[f"{n}_right"]) for n in names], axis=0)


def _between(first: str, second: str) -> Callable[[Points], np.ndarray]:
    return lambda p: np.mean([_length(a - b) for a, b in zip(_sides(p, first), _sides(p, second), strict=True)], axis=0)


def _along(axis: int, plus: str, minus: str) -> Callable[[Points], np.ndarray]:
    """Difference of two landmarks along an axis, averaged over both sides."""
    return lambda p: _middle(p, plus)[:, axis] - _middle(p, minus)[:, axis]


def _farther_out(outer: str, inner: str) -> Callable[[Points], np.ndarray]:
    """Difference of two landmarks' distances from the median plane, averaged over both sides."""
    return lambda p: (_across(outer)(p) - _across(inner)(p)) / 2


def _sides(p: Points, name: str) -> list[np.ndarray]:
    return [p[name]] if name in p else [p[f"{name}_left"], p[f"{name}_right"]]


def _middle(p: Points, name: str) -> np.ndarray:
    return np.mean(_sides(p, name), axis=0)


def _length(vector: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vector, axis=-1)


def _slope(rise: np.ndarray, run: np.ndarray) -> np.ndarray:
    return np.degrees(np.arctan2(rise, run))


def _side_slope(inner: str, outer: str) -> Callable[[Points], np.ndarray]:
    """Angle in degrees by which the outer landmark is higher than the inner one, averaged over both sides."""

    def measure(p: Points) -> np.ndarray:
        out = [b - a for a, b in zip(_sides(p, inner), _sides(p, outer), strict=True)]
        return np.mean([_slope(d[:, 1], np.abs(d[:, 0])) for d in out], axis=0)

    return measure


def _over(place: str, first: str, second: str, sideways: float) -> Callable[[Points], np.ndarray]:
    """Prominence of a landmark relative to the mean of two others, along a direction between forward and sideways."""

    def out(p: Points, name: str) -> np.ndarray:
        return sideways * _across(name)(p) / 2 + np.sqrt(1 - sideways**2) * _middle(p, name)[:, 2]

    return lambda p: out(p, place) - (out(p, first) + out(p, second)) / 2


LIPS_AT = 0.45  # of the way from the base of the nose down to the chin


def _nose_hump(p: Points) -> np.ndarray:
    """Distance of the nasal bridge in front of the line from root to tip."""
    chord, bridge = (p[name] - p["sellion"] for name in ("pronasale", "rhinion"))
    return (bridge[:, 1] * chord[:, 2] - bridge[:, 2] * chord[:, 1]) / _length(chord[:, 1:])


def _lip_protrusion(p: Points) -> np.ndarray:
    """Distance of the lips in front of the line from the base of the nose to the chin, at relative height LIPS_AT."""
    lips = (p["labiale_superius"] + p["labiale_inferius"]) / 2
    return (lips - (1 - LIPS_AT) * p["subnasale"] - LIPS_AT * p["pogonion"])[:, 2]


def _jaw_angle(p: Points) -> np.ndarray:
    """Angle at which the lower edge of the jaw falls towards the chin."""
    fall = _middle(p, "gonion") - p["gnathion"]
    return _slope(fall[:, 1], -fall[:, 2])


def _forehead_slope(p: Points) -> np.ndarray:
    rise = p["trichion"] - p["glabella"]
    return _slope(-rise[:, 2], rise[:, 1])


def _eye_depth(p: Points) -> np.ndarray:
    rim = (_middle(p, "superciliare") + _middle(p, "orbitale") + _middle(p, "lateral_orbit")) / 3
    return rim[:, 2] - _middle(p, "pupil")[:, 2]


EYE = ("endocanthion", "exocanthion", "palpebrale_superius", "palpebrale_inferius", "pupil")
LOCAL_ATTRIBUTES = (
    LocalAttribute("forehead_height", "mm", _along(1, "trichion", "glabella"), ("trichion", "vertex", "forehead_side")),
    LocalAttribute("forehead_width", "mm", _across("frontotemporale"), ("frontotemporale", "forehead_side", "temple")),
    LocalAttribute("forehead_slope", "degrees", _forehead_slope, ("trichion", "glabella", "vertex", "forehead_side")),
    LocalAttribute("temple_width", "mm", _across("temple"), ("temple",)),
    LocalAttribute(
        "brow_ridge", "mm", _along(2, "superciliare", "forehead_side"), ("superciliare", "glabella", "brow_lateral")
    ),
    LocalAttribute(
        "brow_height", "mm", _along(1, "superciliare", "pupil"), ("superciliare", "brow_lateral", "brow_medial")
    ),
    LocalAttribute(
        "brow_angle", "degrees", _side_slope("brow_medial", "brow_lateral"), ("brow_medial", "brow_lateral")
    ),
    LocalAttribute("eye_size", "mm", _between("palpebrale_superius", "palpebrale_inferius"), EYE),
    LocalAttribute("eye_width", "mm", _between("endocanthion", "exocanthion"), EYE),
    LocalAttribute("eye_spacing", "mm", _across("pupil"), EYE),
    LocalAttribute("eye_tilt", "mm", _along(1, "exocanthion", "endocanthion"), EYE),
    LocalAttribute("eye_depth", "mm", _eye_depth, EYE),
    LocalAttribute("nose_width", "mm", _across("alare"), ("alare", "alar_crease")),
    LocalAttribute("nose_length", "mm", _along(1, "sellion", "subnasale"), ("subnasale", "alare", "pronasale")),
    LocalAttribute(
        "nose_protrusion", "mm", _along(2, "pronasale", "alar_crease"), ("pronasale", "rhinion", "subnasale")
    ),
    LocalAttribute("nose_hump", "mm", _nose_hump, ("rhinion", "nasal_side")),
    LocalAttribute(
        "nose_tip_height", "mm", _along(1, "pronasale", "subnasale"), ("pronasale", "subnasale", "tip_side")
    ),
    LocalAttribute(
        "nose_bridge_width", "mm", _across("nasal_side", "maxillofrontale"), ("nasal_side", "maxillofrontale")
    ),
    LocalAttribute("cheekbone_width", "mm", _across("zygion"), ("zygion", "malare")),
    LocalAttribute("cheekbone_prominence", "mm", _over("malare", "lateral_orbit", "bucca", 0.6), ("malare",)),
    LocalAttribute("cheek_fullness", "mm", _over("bucca", "malare", "jaw_body", 0.8), ("bucca",)),
    LocalAttribute(
        "philtrum_length", "mm", _along(1, "subnasale", "labiale_superius"), ("labiale_superius", "subnasale")
    ),
    LocalAttribute(
        "upper_lip_fullness", "mm", _along(1, "labiale_superius", "stomion"), ("labiale_superius", "stomion")
    ),
    LocalAttribute(
        "lower_lip_fullness", "mm", _along(1, "stomion", "labiale_inferius"), ("labiale_inferius", "stomion")
    ),
    LocalAttribute("lip_protrusion", "mm", _lip_protrusion, ("labiale_superius", "labiale_inferius", "cheilion")),
    LocalAttribute("mouth_width", "mm", _across("cheilion"), ("cheilion",)),
    LocalAttribute("lip_corner_height", "mm", _along(1, "cheilion", "stomion"), ("cheilion",)),
    LocalAttribute("jaw_width", "mm", _across("gonion"), ("gonion", "jaw_body")),
    LocalAttribute("jaw_angle", "degrees", _jaw_angle, ("gonion", "jaw_body")),
    LocalAttribute("chin_height", "mm", _along(1, "labiale_inferius", "menton"), ("menton", "pogonion", "chin_side")),
    LocalAttribute("chin_prominence", "mm", _along(2, "pogonion", "subnasale"), ("pogonion", "menton", "sublabiale")),
    LocalAttribute("chin_width", "mm", _across("chin_side"), ("chin_side",)),
    LocalAttribute(
        "ear_size", "mm", _between("superaurale", "subaurale"), ("superaurale", "subaurale", "tragion", "helix")
    ),
    LocalAttribute("ear_protrusion", "mm", _farther_out("helix", "tragion"), ("helix", "superaurale", "subaurale")),
    LocalAttribute("neck_width", "mm", _across("neck_side"), ("neck_side",)),
)


def local_values(heads: np.ndarray, head: HeadMesh) -> dict[str, np.ndarray]:
    """Raw measures of LOCALS, each (S,), of heads (S, Vc, 3) in metres: millimetres and degrees."""
    p = landmarks(1e3 * np.asarray(heads, dtype=np.float64), head)
    return {local.name: local.measure(p) for local in LOCAL_ATTRIBUTES}


# -- the file ---------------------------------------------------------------------------------------------------------
def with_attributes(
    file: ModelFile, coefficients: np.ndarray, settings: PopulationSettings, head: HeadMesh
) -> ModelFile:
    """Return the model file with its attributes learned.

    Args:
        file: with its shape basis; the mean head and the modes are measured.
        coefficients: (S, I + A) of S heads with known parameters.
        settings: the parameters of these heads.
        head: the mesh of the file's coarse vertices.
    """
    modes = file.identity_modes.astype(np.float64)
    mean = file.mean_vertices.astype(np.float64)
    coefficients = coefficients.astype(np.float64)
    global_attributes = learn_globals(coefficients, settings)
    gradients = measure_gradients(mean, modes, head)
    costs = ChangeCosts(modes, place_distances(mean, head), vertex_areas(mean, head.quads))
    features = learn_locals(gradients, global_attributes, coefficients, costs)
    learned = LearnedAttributes.joined(global_attributes, features)
    return replace(
        file,
        attributes=learned.descriptions,
        attribute_step=learned.steps.astype(np.float32),
        attribute_estimator=learned.estimators.astype(np.float32),
    )


@dataclass(frozen=True)
class LearnedAttributes:
    """Attributes in the form in which a model file stores them.

    Args:
        descriptions: K dictionaries with name, unit, minimum, maximum.
        steps: (K, I + A) change of the coefficients per unit of the attribute.
        estimators: (K, I + A + 1), the last column is the constant.
    """

    descriptions: tuple[dict, ...]
    steps: np.ndarray
    estimators: np.ndarray

    @staticmethod
    def joined(first: LearnedAttributes, second: LearnedAttributes) -> LearnedAttributes:
        return LearnedAttributes(
            first.descriptions + second.descriptions,
            np.concatenate([first.steps, second.steps]),
            np.concatenate([first.estimators, second.estimators]),
        )


# -- globals ----------------------------------------------------------------------------------------------------------
def learn_globals(coefficients: np.ndarray, settings: PopulationSettings) -> LearnedAttributes:
    """Learn age, gender, weight and ancestry from coefficients (S, I + A) of heads with known parameters.

    The steps are a multiple regression of the coefficients on the parameters. With S the residual covariance, the
    estimator is the best linear unbiased one, E = (G S^-1 G^T)^-1 G S^-1 for steps G, hence E G^T = 1.
    The ancestry shares sum to one: they are learned as two contrasts, and a step towards one reduces the others
    equally. Skin tone is a covariate that is held constant: every ancestry has all tones, and the path from light to
    dark skin is not straight in linear RGB.
    """
    contrasts = np.linalg.svd(np.ones((1, 3)))[2][1:]  # (2, 3), orthonormal
    columns = [settings.years, 2 * settings.male - 1, 2 * settings.weight - 1, *(contrasts @ settings.ancestry.T)]
    values = np.stack([*columns, settings.tone], axis=1)
    centre, middle = coefficients.mean(0), values.mean(0)
    steps = np.linalg.lstsq(values - middle, coefficients - centre, rcond=None)[0]
    left = coefficients - centre - (values - middle) @ steps
    noise = left.T @ left / len(left) + ESTIMATION_NOISE * np.eye(left.shape[1])
    weighted = np.linalg.solve(noise, steps.T)  # S^-1 G^T
    estimators = np.linalg.pinv(steps @ weighted, rcond=1e-9, hermitian=True) @ weighted.T
    constants = middle - estimators @ centre
    shares = slice(3, 5)
    steps = np.concatenate([steps[:3], 1.5 * contrasts.T @ steps[shares]])  # +1, and -1/2 for each of the others
    constants = np.concatenate([constants[:3], 1 / 3 + contrasts.T @ constants[shares]])
    estimators = np.concatenate([estimators[:3], contrasts.T @ estimators[shares]])
    descriptions = (
        _description("age", "years", 18.0, 80.0),
        _description("gender", "-1 female .. 1 male", -1.3, 1.3),
        _description("weight", "-1 light .. 1 heavy", -1.3, 1.3),
        *(_description(name, "share", 0.0, 1.0) for name in ANCESTRIES),
    )
    return LearnedAttributes(descriptions, steps, np.concatenate([estimators, constants[:, None]], axis=1))


def _description(name: str, unit: str, minimum: float, maximum: float) -> dict:
    return {"name": name, "unit": unit, "minimum": minimum, "maximum": maximum}


# -- locals -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ChangeCosts:
    """Quadratic cost of an identity change for each local attribute.

    Args:
        modes: (I, Vc, 3) millimetres per unit of a unit-variance coefficient.
        distances: (K, Vc) millimetres from the landmarks of each local attribute.
        areas: (Vc,) shares of the surface.
    """

    modes: np.ndarray
    distances: np.ndarray
    areas: np.ndarray

    def inverse(self, which: int) -> np.ndarray:
        """Inverse (I, I) of M = 1 + LOCALITY * sum over vertices of weight * |displacement|^2."""
        ramp = np.clip((self.distances[which] - FREE_MM) / (BOUND_MM - FREE_MM), 0, 1)
        weights = self.areas * ramp**2 * (3 - 2 * ramp)
        moved = (self.modes * np.sqrt(weights)[:, None]).reshape(len(self.modes), -1)
        return np.linalg.inv(np.eye(len(moved)) + LOCALITY * moved @ moved.T)


def measure_gradients(mean: np.ndarray, modes: np.ndarray, head: HeadMesh) -> np.ndarray:
    """Gradient (K, I) of the local measures with respect to identity, by central differences at the mean head.

    Args:
        mean: (Vc, 3) millimetres.
        modes: (I, Vc, 3) millimetres.
    """
    step = 0.1  # a tenth of a standard deviation: small against a head, large against rounding
    ends = [local_values(1e-3 * (mean + sign * step * modes), head) for sign in (1, -1)]
    return np.stack([(ends[0][local.name] - ends[1][local.name]) / (2 * step) for local in LOCAL_ATTRIBUTES])


def place_distances(mean: np.ndarray, head: HeadMesh) -> np.ndarray:
    """(K, Vc) millimetres from each vertex of the mean head (Vc, 3) to the nearest landmark of each local attribute."""
    p = landmarks(mean[None], head)
    trees = [
        cKDTree(np.concatenate([s for place in local.places for s in _sides(p, place)])) for local in LOCAL_ATTRIBUTES
    ]
    return np.stack([tree.query(mean)[0] for tree in trees])


def vertex_areas(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(Vc,) share of the surface area that belongs to each vertex."""
    a, b = vertices[quads[:, 2]] - vertices[quads[:, 0]], vertices[quads[:, 3]] - vertices[quads[:, 1]]
    area = np.bincount(quads.reshape(-1), np.repeat(_length(np.cross(a, b)), 4), len(vertices))
    return area / area.sum()


def learn_locals(
    gradients: np.ndarray, global_attributes: LearnedAttributes, coefficients: np.ndarray, costs: ChangeCosts
) -> LearnedAttributes:
    """Learn the local attributes that can be changed independently; those with too long a step are dropped.

    Args:
        gradients: (K, I) of the measures of LOCALS.
        global_attributes: the global attributes.
        coefficients: (S, I + A) of the population, for the standard deviation of the values.
        costs: of a change of identity.
    """
    count = gradients.shape[1]
    measures = np.concatenate([gradients, np.zeros((len(gradients), coefficients.shape[1] - count))], axis=1)
    fixed = global_attributes.estimators[:, :-1]
    # Expectation given the estimated globals; a pseudo-inverse, because the three ancestry shares have rank two.
    expected = global_attributes.steps.T @ np.linalg.pinv(fixed @ global_attributes.steps.T, rcond=1e-6) @ fixed
    estimators = measures - measures @ expected
    constants = -estimators @ coefficients.mean(0)
    spread = (coefficients @ estimators.T).std(0)
    inverses = [costs.inverse(k) for k in range(len(gradients))]
    fixed = fixed[:, :count] / (coefficients @ fixed.T).std(0)[:, None]
    kept = list(range(len(gradients)))
    while True:
        bound = np.concatenate([estimators[kept, :count] / spread[kept, None], fixed])
        steps = np.stack([constrained_step(inverses[k], bound, row) for row, k in enumerate(kept)])
        missed = np.abs(steps @ bound.T - np.eye(len(kept), len(bound))).max(1)
        badness = np.where(missed < 0.01, np.linalg.norm(steps, axis=1), np.inf)
        if badness.max(initial=0) <= LARGEST_STEP:
            break
        kept.pop(int(badness.argmax()))
    albedo = np.zeros((len(kept), coefficients.shape[1] - count))
    return LearnedAttributes(
        tuple(_local_description(LOCAL_ATTRIBUTES[k], spread[k]) for k in kept),
        np.concatenate([steps / spread[kept, None], albedo], axis=1),
        np.concatenate([estimators[kept], constants[kept, None]], axis=1),
    )


def constrained_step(inverse: np.ndarray, bound: np.ndarray, which: int) -> np.ndarray:
    """Solve min x^T M x subject to bound (K, I) @ x = e_which: x = M^-1 B^T (B M^-1 B^T)^-1 e."""
    spanned = inverse @ bound.T
    return spanned @ np.linalg.pinv(bound @ spanned, rcond=1e-9, hermitian=True)[:, which]


def _local_description(local: LocalAttribute, spread: float) -> dict:
    """The range is plus and minus RANGE_DEVIATIONS, rounded to a number of one or two digits."""
    limit = RANGE_DEVIATIONS * spread
    power = 10.0 ** np.floor(np.log10(limit))
    limit = float(
        power * min((1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10), key=lambda digit: abs(np.log(limit / power / digit)))
    )
    return _description(local.name, local.unit, -limit, limit)
