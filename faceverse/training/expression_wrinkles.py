"""Procedural expression wrinkles driven by skin strain, and the training samples of the expression generator.

The lines are those of `creases`: skin wrinkles first where a person has a crease in the neutral face. The compression
across each line sets the depth of its wrinkle; between the lines, strongly compressed skin forms small wrinkles
perpendicular to its direction of compression. Without strain there is no wrinkle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter

from ..detail.displacement import (
    TangentFrame,
    compression,
    expression_strain,
    split_bands,
    surface_slopes,
    wrinkle_gate,
)
from ..model.face_model import FaceModel
from .crease_fields import CreaseFamily, CreaseFields
from .creases import FACTORS, crease_displacement
from .detail_data import DetailSample
from .skin_fields import smoothstep
from .synthetic_skin import CODE, DetailSurface, albedo_tone, likely_age_and_masculinity, random_z, synthetic_detail

LEAST_GATE = 0.15
WRINKLE_SIZE = 256
FACE_MM_PER_TEXEL = 297.0 / WRINKLE_SIZE
LARGEST_WRINKLE_MM = (-1.1, 0.7)
TAUT = 0.4  # compression per perpendicular stretch that causes no wrinkle: taut skin contracts sideways
_FULL_AGE = 1.4  # age factor at which `creases` draws full lines; depth by age is modelled here instead


@dataclass(frozen=True)
class WrinkleResponse:
    """Response of the skin of one crease family to compression.

    Args:
        from_strain: compression across the lines at which wrinkling starts.
        full_strain: compression above that at which a wrinkle is nearly at full depth.
        depth: full depth relative to the family's full neutral crease.
        reach_mm: length along the skin over which compression is averaged.
    """

    from_strain: float = 0.03
    full_strain: float = 0.14
    depth: float = 1.6
    reach_mm: float = 4.0


_RESPONSES = {
    "forehead": WrinkleResponse(0.01, 0.08, 2.6, 14.0),
    "frown": WrinkleResponse(0.02, 0.14, 1.3, 4.0),
    "root": WrinkleResponse(0.01, 0.08, 2.2, 5.0),
    "chin": WrinkleResponse(0.03, 0.15, 1.6, 4.0),
    "above_lip": WrinkleResponse(0.03, 0.12, 1.2, 3.0),
    "below_lip": WrinkleResponse(0.03, 0.12, 1.8, 3.0),
    "lips": WrinkleResponse(0.03, 0.15, 1.3, 3.0),
    "neck": WrinkleResponse(0.04, 0.20, 1.4, 8.0),
    "crow": WrinkleResponse(0.03, 0.14, 1.7, 6.0),
    "under_eye": WrinkleResponse(0.04, 0.15, 1.7, 4.0),
    "upper_lid": WrinkleResponse(0.05, 0.20, 1.2, 3.0),
    "nasolabial": WrinkleResponse(0.02, 0.15, 1.7, 9.0),
    "marionette": WrinkleResponse(0.03, 0.15, 1.5, 4.0),
    "bunny": WrinkleResponse(0.02, 0.08, 3.2, 4.0),
}


@dataclass(frozen=True)
class WrinkleSurface:
    """A model's surface prepared for wrinkles; computed once and used for every sample.

    Args:
        detail: of `WRINKLE_SIZE`, with the lines and the masks.
        frame: tangent frame of the mean head, with weight 1 at all texels.
        across: by family, (2, N) unit vectors (tangent_u, tangent_v) across its lines at its texels.
        waves: (O, 2, S, S) float32 unit-variance noise in O orientations, wavelength 4 to 7 mm; two fields for
            each, which a person mixes.
        dimples: (2, S, S) likewise, isotropic.
    """

    detail: DetailSurface
    frame: TangentFrame
    across: dict[str, np.ndarray]
    waves: np.ndarray
    dimples: np.ndarray

    @classmethod
    def of(cls, model: FaceModel) -> WrinkleSurface:
        """The surface of a model.

        Raises:
            ParameterError: the model lacks landmarks or regions.
        """
        detail = DetailSurface.of(model, WRINKLE_SIZE)
        frame = TangentFrame.of(model, model.mean_vertices, WRINKLE_SIZE)
        frame = replace(frame, weight=torch.ones_like(frame.weight))
        across = {name: _across(frame, family) for name, family in detail.creases.families.items()}
        rng = np.random.default_rng(11)
        waves = np.stack([[_wave(rng, angle) for _ in range(2)] for angle in _ORIENTATIONS])
        dimples = np.stack([_unit(_band(rng.standard_normal((WRINKLE_SIZE,) * 2), 1.1, 2.6)) for _ in range(2)])
        return cls(detail, frame, across, waves.astype(np.float32), dimples.astype(np.float32))


_WRINKLING = (
    "browDown",
    "browInnerUp",
    "browOuterUp",
    "cheekSquint",
    "eyeSquint",
    "mouthPucker",
    "mouthSmile",
    "noseSneer",
)
_WRINKLING_ODDS = 3.0  # relative probability of these; the others wrinkle the skin little
_ORIENTATIONS = np.arange(8) * np.pi / 8


def wrinkle_displacement(
    surface: WrinkleSurface, strain: np.ndarray, z: np.ndarray, seed: int, detail: np.ndarray | None = None
) -> np.ndarray:
    """Compute the displacement that an expression adds to the neutral displacement.

    Args:
        strain: (3, S, S) of the expression, see `displacement.expression_strain`; S is `WRINKLE_SIZE`.
        z: (64,) the person, see `creases.FACTORS`; the first one, age, deepens the wrinkles. Smooth in z.
        seed: of small unpredictable irregularities.
        detail: (S, S) mm neutral displacement; its creases flatten where the skin is stretched across them.
    Returns:
        (S, S) float32 mm, exactly zero for no strain; wrinkles extend slightly beyond the strained skin.
    """
    z = np.asarray(z, np.float64)
    rng = np.random.default_rng([int(seed) & 0xFFFFFFFF, 17])
    wrinkles = (
        _crease_wrinkles(surface, strain, z, rng)
        + _small_wrinkles(surface, strain, z)
        + _dimpled_chin(surface, strain, z)
    )
    low, high = LARGEST_WRINKLE_MM
    bound = np.where(wrinkles < 0, -low, high)
    wrinkles = bound * np.tanh(wrinkles / bound)
    if detail is not None:
        wrinkles = wrinkles - _flattened(surface, detail, strain)
    return (wrinkles * surface.detail.skin.inside).astype(np.float32)


def training_sample(model: FaceModel, surface: WrinkleSurface, index: int, seed: int) -> DetailSample:
    """Draw sample number `index`: a random person of the model with a random expression.

    Returns:
        condition (6, 256, 256): the bands of the neutral displacement, and the strain, in the units of
        `synthetic_skin.CODE`.
        image (3, 256, 256): the bands of the added displacement divided by the strain's gate
        (`displacement.wrinkle_gate`), that is, at full wrinkling; mask: where the gate is large enough to divide by.
        z (64,): of `creases.FACTORS`.
    """
    rng = np.random.default_rng([int(seed) & 0xFFFFFFFF, int(index), 5])
    params = model.random(int(rng.integers(2**31)), hair=False)
    params = params.replace(expression=random_expression(model, rng))
    z = random_z(rng, *likely_age_and_masculinity(model, params, rng))
    tone = albedo_tone(model, params)
    neutral = synthetic_detail(surface.detail, z, int(rng.integers(2**31)), tone).displacement
    strain = expression_strain(model, params, WRINKLE_SIZE)
    added = wrinkle_displacement(surface, strain, z, int(rng.integers(2**31)), neutral)
    scales = np.array(CODE.band_scales_mm, np.float32)[:, None, None]
    gate = wrinkle_gate(strain)
    wrinkled = gate > LEAST_GATE
    image = split_bands(added) / scales / np.where(wrinkled, gate, 1) * wrinkled
    condition = np.concatenate([split_bands(neutral) / scales, strain / np.float32(CODE.strain_scale)])
    return DetailSample(condition, image, z, wrinkled)


def random_expression(model: FaceModel, rng: np.random.Generator) -> np.ndarray:
    """Weights (E,) float32 of one to four expressions, both sides mostly alike; one face in eight is neutral."""
    names = model.expression_names
    weights = np.zeros(len(names), np.float32)
    if rng.random() < 1 / 8:
        return weights
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(name.removesuffix("Left").removesuffix("Right"), []).append(index)
    kinds = sorted(kind for kind in groups if not kind.startswith(("eyeLook", "tongue")))
    share = np.array([_WRINKLING_ODDS if kind in _WRINKLING else 1.0 for kind in kinds])
    for kind in rng.choice(kinds, size=rng.integers(1, 5), replace=False, p=share / share.sum()):
        amount = rng.uniform(0.25, 1.0)
        for index in groups[kind]:
            own = rng.normal(1, 0.12) if rng.random() < 0.9 else 0.0
            weights[index] = np.clip(amount * own, *model.expression_limits[index])
    return weights


# -- how deep ---------------------------------------------------------------------------------------------------------
def _depth_by_age(z: np.ndarray) -> float:
    """Depth factor by age: 1 at the mean age, larger for old skin."""
    return float(np.exp(0.36 * np.clip(z[0], -2, 2)))


def _crease_wrinkles(
    surface: WrinkleSurface, strain: np.ndarray, z: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Displacement of the person's creases, each scaled by the compression across it."""
    grown = z.copy()
    grown[FACTORS.index("age")] = _FULL_AGE
    size = WRINKLE_SIZE
    uneven = gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), 7 / FACE_MM_PER_TEXEL)
    uneven = (1 + 0.25 * uneven / uneven.std()).clip(0.3, 1.7).reshape(-1)
    families = {}
    for name, family in surface.detail.creases.families.items():
        response = _RESPONSES[name.removesuffix("_left").removesuffix("_right")]
        wrinkled = _wrinkle_depth(family, surface.across[name], strain, response)
        families[name] = replace(family, inside=family.inside * wrinkled * uneven[family.at])
    warp = gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), 3 / FACE_MM_PER_TEXEL)
    displacement = crease_displacement(CreaseFields(size, families), grown, 0.12 * warp / warp.std())
    return _depth_by_age(z) * displacement


def _wrinkle_depth(
    family: CreaseFamily, across: np.ndarray, strain: np.ndarray, response: WrinkleResponse
) -> np.ndarray:
    """(N,) depth of the wrinkles relative to the full crease."""
    along_u, mixed, along_v = strain.reshape(3, -1)[:, family.at]
    u, v = across
    squeezed = np.zeros(WRINKLE_SIZE * WRINKLE_SIZE, np.float32)
    across_lines = along_u * u * u + 2 * mixed * u * v + along_v * v * v
    taut = TAUT * np.maximum(along_u + along_v - across_lines, 0)
    squeezed[family.at] = np.maximum(-across_lines - taut - response.from_strain, 0)
    if not squeezed.any():
        return squeezed[family.at]
    sigma = response.reach_mm / FACE_MM_PER_TEXEL
    spread = gaussian_filter(squeezed.reshape(WRINKLE_SIZE, -1), sigma, mode="constant").reshape(-1)[family.at]
    return response.depth * (1 - np.exp(-spread / (0.5 * response.full_strain)))


def _small_wrinkles(surface: WrinkleSurface, strain: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(S, S) mm, small wrinkles perpendicular to the direction of strong compression."""
    squeezed, angle = compression(strain)
    # Under isotropic compression wrinkles have no preferred direction.
    stretched = strain[0] + strain[2] + squeezed
    one_way = np.clip(1 - np.maximum(-stretched, 0) / np.maximum(squeezed, 1e-6), 0.3, 1)
    one_way *= 1 - 0.6 * surface.detail.skin.forehead
    wrinkled = np.maximum(squeezed - TAUT * np.maximum(stretched, 0) - 0.06, 0)
    strength = _depth_by_age(z) * one_way * 0.15 * (1 - np.exp(-wrinkled / 0.20))
    in_map = _angle_in_map(surface.frame, angle)
    total = np.zeros_like(squeezed)
    for k, orientation in enumerate(_ORIENTATIONS):
        share = np.maximum(np.cos(2 * (in_map - orientation)), 0) ** 3
        phase = 0.9 * z[48 + k]
        total += share * (np.cos(phase) * surface.waves[k, 0] + np.sin(phase) * surface.waves[k, 1])
    return strength * _valleys(total) * (1 - surface.detail.skin.lips)


def _dimpled_chin(surface: WrinkleSurface, strain: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(S, S) mm, the dimpled chin of a contracted mentalis muscle."""
    squeezed = compression(strain)[0]
    stretched = strain[0] + strain[2] + squeezed
    squeezed = (squeezed - TAUT * np.maximum(stretched - 0.1, 0)) * surface.detail.skin.chin
    phase = 0.9 * z[FACTORS.index("chin_texture")]
    field = np.cos(phase) * surface.dimples[0] + np.sin(phase) * surface.dimples[1]
    strength = 0.22 * _depth_by_age(z) ** 0.5 * smoothstep((squeezed - 0.01) / 0.08)
    return strength * _valleys(field)


def _valleys(field: np.ndarray) -> np.ndarray:
    """Map a unit-variance field to narrow valleys and broad ridges, mean about zero."""
    return 0.5 - 1.25 * np.logaddexp(0, 1.8 * (field - 0.35)) / 1.8


def _flattened(surface: WrinkleSurface, detail: np.ndarray, strain: np.ndarray) -> np.ndarray:
    """(S, S) mm, the part of the neutral creases that stretching across them removes, in the coarse and medium band."""
    broad = split_bands(detail)[:2].sum(0)
    right, up = (slope.numpy() for slope in surface_slopes(surface.frame, torch.from_numpy(broad)))
    sigma = 2 / FACE_MM_PER_TEXEL
    uu, uv, vv = (gaussian_filter(product, sigma) for product in (right * right, right * up, up * up))
    angle = np.arctan2(2 * uv, uu - vv) / 2
    u, v = np.cos(angle), np.sin(angle)
    stretch = strain[0] * u * u + 2 * strain[1] * u * v + strain[2] * v * v
    return 0.75 * (1 - np.exp(-np.maximum(stretch - 0.02, 0) / 0.12)) * broad


def _angle_in_map(frame: TangentFrame, angle: np.ndarray) -> np.ndarray:
    """Direction (S, S) in the map, from u towards up, along which waves must run to follow `angle` on the skin."""
    cosine = frame.cosine.numpy()
    along_up = np.cos(angle) * cosine + np.sin(angle) * np.sqrt(np.maximum(1 - cosine**2, 0))
    return np.arctan2(along_up * frame.texel_v_mm.numpy(), np.cos(angle) * frame.texel_u_mm.numpy())


# -- prepared once ----------------------------------------------------------------------------------------------------
def _across(frame: TangentFrame, family: CreaseFamily) -> np.ndarray:
    """(2, N) unit vectors of increasing t of the family, in the surface's orthonormal tangent frame."""
    size = WRINKLE_SIZE
    known = np.zeros(size * size, bool)
    known[family.at] = True
    values = np.zeros(size * size, np.float32)
    values[family.at] = family.t
    nearest = distance_transform_edt(~known.reshape(size, size), return_distances=False, return_indices=True)
    filled = gaussian_filter(values.reshape(size, size)[tuple(nearest)], 1.5)
    slopes = torch.stack(surface_slopes(frame, torch.from_numpy(filled))).numpy().reshape(2, -1)[:, family.at]
    return slopes / np.maximum(np.linalg.norm(slopes, axis=0), 1e-9)


def _wave(rng: np.random.Generator, angle: float) -> np.ndarray:
    """Unit-variance noise (S, S) whose wave vector has the direction `angle` (from u towards up)."""
    size = WRINKLE_SIZE
    up, right = np.meshgrid(-np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    per_mm = np.hypot(up, right) / FACE_MM_PER_TEXEL
    aligned = np.cos(2 * (np.arctan2(up, right) - angle))
    kept = np.exp(-0.5 * ((per_mm - 1 / 5.5) / 0.05) ** 2) * np.exp((aligned - 1) / 0.12)
    return _unit(np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * kept).real)


def _band(noise: np.ndarray, fine_mm: float, coarse_mm: float) -> np.ndarray:
    narrow, wide = (gaussian_filter(noise, mm / FACE_MM_PER_TEXEL, mode="wrap") for mm in (fine_mm, coarse_mm))
    return narrow / narrow.std() - wide / wide.std() * 0.5


def _unit(noise: np.ndarray) -> np.ndarray:
    return (noise - noise.mean()) / noise.std()
