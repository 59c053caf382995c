"""Probabilities of background, hair, skin, clothes and beard: priors by place against colours that are learned.

Colours start from seeds: hair above the face, skin on cheeks and nose with darker shades of it, clothes far below the
chin, background outside the person. They are estimated again from the result a few times, as GrabCut does, but with
five classes at once and a guided filter instead of a graph cut. Two classes depend on what is above them: hair below
the ears hangs from hair, and a beard below the chin from the beard on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import zones as place
from .colour_model import density, histogram_cells, lab_from_rgb, weighted_counts
from .guided_filter import GuidedFilter
from .head_frame import HeadFrame
from .zones import Zones, erode, head_zones

BACKGROUND, HAIR, SKIN, CLOTHES, BEARD = range(5)
_ITERATIONS = 5
_COLOUR_EXPONENTS = (0.4, 0.7, 0.7, 0.7, 0.7)  # below 1, because neighbouring pixels are no independent observations
_SHADES = {0.4: 0.1, 0.55: 0.2, 0.75: 0.5, 1.0: 1.0, 1.2: 0.5}  # weights of skin under other light (linear factor)
_SHADE_SHARE = 0.5
_FILTER_RADIUS, _FILTER_EPS = 0.06, 1e-3  # in units; variance of CIELAB / 100
_FILTER_STEP = 2
_GREY_CHROMA = 2.0  # mean |a*|, |b*| of skin in photographs without colours
_UNLIKE_SKIN = 0.3  # density of skin's colours
# Of a bare scalp: lightness and chroma relative to skin, and mean relative deviation from its blurred lightness.
_BARE_LIGHTNESS, _BARE_CHROMA, _BARE_TEXTURE, _TEXTURE_RADIUS = 0.85, (0.8, 1.25), 0.04, 0.05
_SHARED_COLOURS = (0.2, 0.5)  # of a face with clothes, and with bare shoulders
_LEAST_TOP = 0.3  # of the top of the skull has to be seen to call a head bald
_BALD_PRIOR = (0.3, 0.7, 1e-3, 1e-6)  # of hair, skin, clothes, beard on a scalp that shows more skin than hair
# A shadow covers less of the middle of a beard's region, keeps the chroma of skin, and is lighter than hair.
_LEAST_BEARD, _LEAST_PIXELS = 0.5, 20
_ASHEN_CHROMA, _BEARD_CHROMA, _BEARD_DARKNESS = 0.5, 0.85, 0.6
_LEAST_SEEDS = 0.05  # square units
_JAW_SPREAD = 0.12  # in units, by which a beard spreads beside the jaw with each iteration
_HALF_LIFE, _HALF_LIFE_ELSEWHERE, _SWAY = 2.5, 0.15, 0.05  # in units: how hair propagates downwards


@dataclass(frozen=True)
class _Scene:
    """A picture with its person and the places around a head.

    Attributes:
        lab: (H, W, 3) float32 CIELAB.
        cells: (H, W) histogram cells.
        person: (H, W) float32 probability of the person.
    """

    lab: np.ndarray
    cells: np.ndarray
    person: np.ndarray
    zones: Zones
    unit_px: float

    @classmethod
    def of(cls, rgb: np.ndarray, person: np.ndarray, unit_px: float, zones: Zones) -> _Scene:
        lab = lab_from_rgb(rgb)
        return cls(lab, histogram_cells(lab), person, zones, unit_px)

    def counts(self, weights: np.ndarray) -> np.ndarray:
        return weighted_counts(self.cells, weights)

    def density(self, counts: np.ndarray) -> np.ndarray:
        return density(counts, self.cells.size)[self.cells]

    def filter(self) -> GuidedFilter:
        return GuidedFilter(self.lab / 100, _FILTER_RADIUS * self.unit_px, _FILTER_EPS, _FILTER_STEP)


@dataclass(frozen=True)
class _Learned:
    """What one resolution hands to the next: counts (C,) of colours by class, propagated maps (H, W), baldness,
    and how likely shoulders show skin, 0..1."""

    counts: dict[int, np.ndarray]
    face_skin: np.ndarray
    hanging: np.ndarray
    beard: np.ndarray
    bald: bool
    bare_shoulders: float


def classify(rgb: np.ndarray, person: np.ndarray, frame: HeadFrame, zones: Zones) -> np.ndarray:
    """Probabilities (5, S, S) float32 of background, hair, skin, clothes and beard.

    Args:
        rgb: (S, S, 3) uint8, S even.
        person: (S, S) float32 probability that a pixel belongs to this person.
        frame: the head in this picture.
        zones: places relative to it.
    """
    import cv2

    half = (rgb.shape[1] // 2, rgb.shape[0] // 2)
    small_rgb, small_person = (cv2.resize(image, half, interpolation=cv2.INTER_AREA) for image in (rgb, person))
    small_frame = frame.moved(0.5, np.zeros(2))
    small_zones = head_zones(small_frame, cv2.resize(zones.hands.astype(np.uint8), half).astype(bool))
    learned = _learn(_Scene.of(small_rgb, small_person, small_frame.unit_px, small_zones))
    scene = _Scene.of(rgb, person, frame.unit_px, zones)
    ratio = 4.0  # of the pixels of both resolutions
    counts = {label: count * ratio for label, count in learned.counts.items()}
    hanging, beard = (cv2.resize(image, rgb.shape[1::-1]) for image in (learned.hanging, learned.beard))
    return _probabilities(
        scene,
        scene.filter(),
        _Learned(counts, learned.face_skin * ratio, hanging, beard, learned.bald, learned.bare_shoulders),
    )


def _learn(scene: _Scene) -> _Learned:
    """Estimate colours of the classes, and where hair and beard hang, from seeds."""
    zones, inside = scene.zones, scene.person > 0.5
    scalp = _scalp_seeds(zones, inside, scene.unit_px)
    nose, hair = (scene.density(scene.counts(mask) * 1e4) for mask in (zones.nose, scalp))
    seeds = zones.nose | (zones.cheeks & (nose + 0.3 > 0.5 * hair))
    shades = _shaded_counts(scene.lab[seeds])
    skin, face = scene.density(shades), scene.density(scene.counts(seeds) * 1e4)
    from_above = np.where(inside & ~zones.oval & (hair > 1), hair / (hair + skin + 1), 0)
    hanging = _propagate_down(from_above, ~zones.hanging, scene.unit_px)
    grey = bool(np.abs(scene.lab[seeds, 1:]).mean() < _GREY_CHROMA)  # no colour tells skin from clothes
    low = (
        inside
        & (zones.up < zones.chin_up - 0.8)
        & ((skin < 2) | grey)
        & ~((hair > 4) & _widened(hanging, scene.unit_px))
    )
    behind = scene.density(scene.counts(1.0 * (scene.person < 0.1)))
    weights = {
        BACKGROUND: 1.0 * (scene.person < 0.1),
        HAIR: scalp * np.where(skin < hair, 1.0, 0.1) * np.where(behind < hair, 1.0, 0.2),
        SKIN: 1.0 * seeds,
        CLOTHES: 1.0 * low,
        BEARD: zones.beard * (face < 1) + 0.02 * scalp,
    }
    near = np.clip(1 - zones.skull_distance / 0.8, 0.1, 1)  # a dark background beside dark hair is not its colour
    shoulders = _bare_shoulders(scene, inside)
    bare = _is_bare(scene, scalp, seeds, skin)
    if bare:
        weights[HAIR] = scalp * (skin < _UNLIKE_SKIN)
    beard, bald, guided = np.zeros(inside.shape, np.float32), bare, scene.filter()
    for iteration in range(_ITERATIONS):
        counts = {label: scene.counts(weight) for label, weight in weights.items()}
        face_skin = scene.counts(weights[SKIN] * zones.plain)
        counts[SKIN] += shades * (_SHADE_SHARE * counts[SKIN].sum() / max(shades.sum(), 1e-9))
        learned = _Learned(counts, face_skin, hanging, beard, bald, shoulders)
        probability = _probabilities(scene, guided, learned)
        sure = probability * (probability > 0.5)
        hanging = _propagate_down(probability[HAIR], ~zones.hanging, scene.unit_px)
        beard = _spread_beard(probability[BEARD], zones, scene.unit_px)
        top = zones.top & inside
        seen = np.count_nonzero(top) > _LEAST_TOP * np.count_nonzero(zones.top)
        bald = bare or bool(seen and probability[HAIR, top].sum() < probability[SKIN, top].sum())
        # Bare shoulders and hair before the chest must not become colours of clothes.
        doubt = (1 + (skin + hair * _widened(hanging, scene.unit_px)) / 4) ** 2
        weights = {
            BACKGROUND: sure[BACKGROUND] * (scene.person < 0.5),
            HAIR: sure[HAIR] * ~zones.oval * near,
            SKIN: sure[SKIN] * np.where(zones.oval, 1, np.minimum(2 * skin, 1)),
            CLOTHES: (sure[CLOTHES] if iteration > 1 else 1.0 * low) / doubt,
            BEARD: sure[BEARD] * zones.beard + 0.01 * sure[HAIR],
        }
    if not is_beard(probability.argmax(axis=0), scene.lab, zones):
        beard = np.zeros_like(beard)
    return _Learned(counts, face_skin, hanging, beard, bald, shoulders)


def _probabilities(scene: _Scene, guided: GuidedFilter, learned: _Learned) -> np.ndarray:
    """Combine places and colours to probabilities (5, H, W) of the classes."""
    zones = scene.zones
    colour = np.stack([scene.density(learned.counts[label]) for label in range(5)])
    # The face is lit like the seeds; darker shades of skin would take beards and fringes.
    colour[SKIN] = np.where(zones.oval, scene.density(learned.face_skin), colour[SKIN])
    within = zones.prior.copy()
    if learned.bald:
        within[:, zones.top] = np.array(_BALD_PRIOR)[:, None]
    hang = np.clip(4 * learned.hanging, 0, 1)
    # In the face a strand passes over skin, so that its prior stays.
    most = np.where(zones.oval, within[place.HAIR], 1)
    within[place.HAIR] = np.where(zones.hanging, np.minimum(0.01 + 0.9 * hang, most), within[place.HAIR])
    within[place.CLOTHES] *= np.where(zones.hanging, 1 - 0.8 * hang, 1)
    within[place.SKIN] *= np.where(zones.torso, learned.bare_shoulders, 1)
    within[place.BEARD] = np.where(zones.beard, within[place.BEARD], 1e-6 + 0.7 * learned.beard)
    within[place.SKIN] *= 1 - 0.5 * learned.beard * ~zones.beard
    outside = np.where(zones.oval, 1e-3, np.clip(1 - scene.person, 0.02, 0.98))
    prior = np.concatenate([outside[None], (1 - outside) * within / within.sum(axis=0)])
    exponents = np.array(_COLOUR_EXPONENTS)[:, None, None]
    score = (np.log(prior) + exponents * np.log(colour)).astype(np.float32)
    score = np.stack([guided(values) for values in score])
    probability = np.exp(score - score.max(axis=0))
    return probability / probability.sum(axis=0)


def is_beard(classes: np.ndarray, lab: np.ndarray, zones: Zones) -> bool:
    """Whether what looks like a beard is no shadow on the chin: classes (H, W), CIELAB (H, W, 3)."""
    beard = classes == BEARD
    middle = zones.beard & (np.abs(zones.across - zones.chin_across) < 0.3)
    skin, hair = zones.cheeks & (classes == SKIN), classes == HAIR
    seen = beard & zones.beard
    if min(np.count_nonzero(mask) for mask in (middle, skin, seen)) < _LEAST_PIXELS:
        return False
    skin_lab, beard_lab = np.median(lab[skin], axis=0), np.median(lab[seen], axis=0)
    hair_l = np.median(lab[hair, 0]) if hair.any() else 0.0
    chroma = float(np.hypot(*beard_lab[1:]) / max(np.hypot(*skin_lab[1:]), 1.0))
    darkness = float((skin_lab[0] - beard_lab[0]) / max(skin_lab[0] - hair_l, 1.0))
    differs = chroma < _ASHEN_CHROMA or (chroma < _BEARD_CHROMA and darkness > _BEARD_DARKNESS)
    return differs and beard[middle].mean() >= _LEAST_BEARD


def _bare_shoulders(scene: _Scene, inside: np.ndarray) -> float:
    """How likely shoulders show skin, 0..1, by the colours that they share with the face."""
    shoulders = inside & scene.zones.torso
    if np.count_nonzero(shoulders) < scene.unit_px**2 * _LEAST_SEEDS:
        return 1.0
    face, torso = (density(scene.counts(1.0 * mask), 1) for mask in (scene.zones.plain, shoulders))
    shared = float(np.sqrt(face * torso).mean())  # Bhattacharyya coefficient
    low, high = _SHARED_COLOURS
    return float(np.clip((shared - low) / (high - low), 0.05, 1))


def _is_bare(scene: _Scene, scalp: np.ndarray, skin: np.ndarray, skin_density: np.ndarray) -> bool:
    """Whether a scalp looks like skin: as light, as colourful, without texture."""
    import cv2

    if not (scalp.any() and skin.any()):
        return False
    lightness = np.ascontiguousarray(scene.lab[..., 0])
    size = 2 * max(1, round(_TEXTURE_RADIUS * scene.unit_px)) + 1
    texture = np.abs(lightness - cv2.blur(lightness, (size, size)))
    inner = erode(scalp, 2)
    inner = inner if inner.any() else scalp
    scalp_lab, skin_lab = np.median(scene.lab[inner], axis=0), np.median(scene.lab[skin], axis=0)
    chroma = [float(np.hypot(*colour[1:]) / (colour[0] + 16)) for colour in (scalp_lab, skin_lab)]
    return bool(
        scalp_lab[0] > _BARE_LIGHTNESS * skin_lab[0]
        and _BARE_CHROMA[0] * chroma[1] <= chroma[0] <= _BARE_CHROMA[1] * chroma[1]
        and texture[inner].mean() < _BARE_TEXTURE * (scalp_lab[0] + 16)
        and (skin_density[inner] > _UNLIKE_SKIN).mean() > 0.9
    )


def _scalp_seeds(zones: Zones, inside: np.ndarray, unit_px: float) -> np.ndarray:
    """Where hair is seen if there is any: on the skull, or around it where a photograph cuts the head."""
    for seeds in (zones.scalp & zones.skull, zones.scalp):
        if np.count_nonzero(seeds & inside) > _LEAST_SEEDS * unit_px**2:
            return seeds & inside
    return inside & ~zones.oval & ~zones.hanging & (zones.oval_distance > 0.08) & (zones.skull_distance < 0.35)


def _shaded_counts(lab: np.ndarray) -> np.ndarray:
    """Counts (C,) of skin colours (N, 3) in CIELAB under light of other strengths."""
    # A linear factor k scales XYZ, so that L* + 16, a* and b* scale by its cube root (above the linear toe).
    counts = np.zeros(0)
    for factor, weight in _SHADES.items():
        root = np.cbrt(factor)
        shaded = np.column_stack([(lab[:, 0] + 16) * root - 16, lab[:, 1:] * root])
        one = weighted_counts(histogram_cells(shaded), np.full(len(lab), weight))
        counts = counts + one if counts.size else one
    return counts


def _propagate_down(values: np.ndarray, source: np.ndarray, unit_px: float) -> np.ndarray:
    """Carry values (H, W) down the picture through high values, from where `source` is set.

    Returns:
        (H, W) float32: the values themselves in `source`; below it what arrives, which fades fast where values are low.
    """
    import cv2

    sway = 2 * max(1, round(_SWAY * unit_px)) + 1
    through, elsewhere = (0.5 ** (1 / (length * unit_px)) for length in (_HALF_LIFE, _HALF_LIFE_ELSEWHERE))
    keep = elsewhere + (through - elsewhere) * np.clip(2 * values - 0.2, 0, 1)
    out, row = np.zeros(values.shape, np.float32), np.zeros(values.shape[1], np.float32)
    for y in range(len(values)):
        carried = cv2.blur(row[None], (sway, 1))[0] * keep[y]
        row = np.where(source[y], values[y], carried).astype(np.float32)
        out[y] = row
    return out


def _spread_beard(values: np.ndarray, zones: Zones, unit_px: float) -> np.ndarray:
    """Where a beard may stand out from the face (H, W): below the beard on the chin, and beside that on the jaw."""
    import cv2

    down = _propagate_down(values, ~zones.below_chin, unit_px) * zones.below_chin
    size = 2 * max(1, round(_JAW_SPREAD * unit_px)) + 1
    aside = np.clip(2 * cv2.blur(values, (size, size)), 0, 1) * zones.beside_jaw
    return np.maximum(down, aside) * (zones.oval_distance < 0.5)


def _widened(hanging: np.ndarray, unit_px: float) -> np.ndarray:
    """Where hair may hang, with some room at both sides."""
    import cv2

    reach = np.ones((1, 2 * round(0.2 * unit_px) + 1), np.uint8)
    return cv2.dilate((hanging > 0.02).astype(np.uint8), reach).astype(bool)
