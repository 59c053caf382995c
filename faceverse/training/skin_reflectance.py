"""Skin colour from melanin and haemoglobin: a layered spectral reflectance model, converted to linear sRGB.

Light passes the stratum corneum, which scatters and holds no pigment, and the epidermis, which holds melanin; the
dermis, which scatters and holds blood, reflects it. Each layer follows Kubelka and Munk; the pigments' absorption
is published (the structure of the model is that of Krishnaswamy and Baranoski 2004, "A Biophysically-Based Spectral
Model of Light Interaction with Human Skin", and Alotaibi and Smith 2017, "A Biophysical 3D Morphable Model of Face
Appearance"). Four constants that publications leave open (CALIBRATED) were fitted so that mixtures reproduce the light
and the dark skin patch of the ColorChecker, and a skin half way between them (L* 57, a* 13, b* 20).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

WAVELENGTHS_NM = np.arange(400.0, 701.0, 10.0)
# CIE 1931 standard observer, 2 degrees: x, y, z at WAVELENGTHS_NM.
OBSERVER = np.array("""
    .0143 .0004 .0679   .0435 .0012 .2074   .1344 .0040 .6456   .2839 .0116 1.3856  .3483 .0230 1.7471
    .3362 .0380 1.7721  .2908 .0600 1.6692  .1954 .0910 1.2876  .0956 .1390 .8130   .0320 .2080 .4652
    .0049 .3230 .2720   .0093 .5030 .1582   .0633 .7100 .0782   .1655 .8620 .0422   .2904 .9540 .0203
    .4334 .9950 .0087   .5945 .9950 .0039   .7621 .9520 .0021   .9163 .8700 .0017   1.0263 .7570 .0011
    1.0622 .6310 .0008  1.0026 .5030 .0003  .8544 .3810 .0002   .6424 .2650 .0000   .4479 .1750 .0000
    .2835 .1070 .0000   .1649 .0610 .0000   .0874 .0320 .0000   .0468 .0170 .0000   .0227 .0082 .0000
    .0114 .0041 .0000""".split(), dtype=np.float64).reshape(-1, 3)  # fmt: skip
DAYLIGHT = np.array(
    """
    82.75 91.49 93.43 86.68 104.86 117.01 117.81 114.86 115.92 108.81 109.35 107.80 104.79 107.69 104.41 104.05 100.00
    96.33 95.79 88.69 90.01 89.60 87.70 83.29 83.70 80.03 80.21 82.28 78.28 69.72 71.61""".split(),
    dtype=np.float64,
)
"""CIE standard illuminant D65, relative power."""
# Molar extinction, cm^-1 / (mol / l): oxygenated and deoxygenated haemoglobin (Gratzer and Kollias, compiled by Prahl).
OXYGENATED = np.array(
    """
    266232 466840 480360 246072 102580 62816 44480 33209.2 26629.2 23684.4 20932.8 20035.2 24202.4 39956.8 53236 43016
    32613.2 44496 50104 14400.8 3200 1506 942 610 442 368 319.6 294 277.6 276 290""".split(),
    dtype=np.float64,
)
DEOXYGENATED = np.array("""
    223296 303956 407560 528600 413280 103292 23388.8 16156.4 14550 16684 20862 25773.6 31589.6 39036.4 46592 53412
    53788 45072 37020 28324.4 14677.2 9443.6 6509.6 5148.8 4345.2 3750.12 3226.56 2795.12 2407.92 2051.96
    1794.28""".split(), dtype=np.float64)  # fmt: skip
HAEMOGLOBIN_G_PER_L, HAEMOGLOBIN_G_PER_MOL, OXYGEN_SATURATION = 150.0, 64500.0, 0.75
XYZ_FROM_RGB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # IEC 61966-2-1

# CALIBRATED: thickness of both layers above the dermis (cm), their reduced scattering at 500 nm (1/cm), and the factor
# on the published baseline absorption of skin.
HORNY_CM, EPIDERMIS_CM, EPIDERMIS_SCATTERING, PALE_SHARE = 0.0014, 0.0078, 27.0, 0.9
DERMIS_SCATTERING, SCATTERING_POWER = 46.0, 1.421  # 1/cm at 500 nm; skin in Jacques 2013, table 1

MELANIN_RANGE = (0.002, 0.43)  # volume share of melanosomes in the epidermis: 1.3 % pale .. 43 % very dark (Jacques)
BLOOD_RANGE = (0.004, 0.30)  # volume share of blood in the dermis: 2 .. 7 % in skin, more in lips
PHEOMELANIN_RANGE = (0.0, 0.6)  # share of the red pigment in the melanin
# Equal steps of log(share + 0.03) look about equally large on every skin; equal steps of the share do so on light skin
# only, those of its logarithm on dark skin only.
EVEN_MELANIN = 0.03
_STEPS = (80, 48)


def absorption(pheomelanin: float = 0.0) -> dict[str, np.ndarray]:
    """Absorption coefficients (31,) in 1/cm at WAVELENGTHS_NM of pure pigments and of unpigmented skin.

    Melanosomes as in Jacques 2013 (eumelanin) and Donner and Jensen 2006 (pheomelanin), pale skin as in Saidi 1992.
    """
    eumelanin = 6.6e11 * WAVELENGTHS_NM**-3.33
    red = 2.9e15 * WAVELENGTHS_NM**-4.75
    extinction = OXYGEN_SATURATION * OXYGENATED + (1 - OXYGEN_SATURATION) * DEOXYGENATED
    return {
        "melanin": (1 - pheomelanin) * eumelanin + pheomelanin * red,
        "blood": np.log(10) * extinction * HAEMOGLOBIN_G_PER_L / HAEMOGLOBIN_G_PER_MOL,
        "pale": PALE_SHARE * (0.244 + 85.3 * np.exp(-(WAVELENGTHS_NM - 154) / 66.2)),
    }


def reflectance(melanin: np.ndarray, blood: np.ndarray, pheomelanin: float = 0.0) -> np.ndarray:
    """Diffuse reflectance (..., 31) of skin at WAVELENGTHS_NM.

    Args:
        melanin, blood: (...) volume shares, see MELANIN_RANGE and BLOOD_RANGE.
        pheomelanin: share of the melanin, see PHEOMELANIN_RANGE.
    """
    melanin, blood = (np.asarray(x, dtype=np.float64)[..., None] for x in (melanin, blood))
    mu = absorption(pheomelanin)
    falling = 0.75 * (WAVELENGTHS_NM / 500) ** -SCATTERING_POWER
    horny = _layer(2 * mu["pale"], EPIDERMIS_SCATTERING * falling, HORNY_CM)
    pigmented = 2 * (melanin * mu["melanin"] + (1 - melanin) * mu["pale"])
    epidermis = _layer(pigmented, EPIDERMIS_SCATTERING * falling, EPIDERMIS_CM)
    ratio = 2 * (blood * mu["blood"] + (1 - blood) * mu["pale"]) / (DERMIS_SCATTERING * falling)
    below = 1 + ratio - np.sqrt(ratio**2 + 2 * ratio)  # a semi-infinite layer
    for reflected, passed in (epidermis, horny):
        below = reflected + passed**2 * below / (1 - reflected * below)
    return below


def _layer(absorbing: np.ndarray, scattering: np.ndarray, thickness_cm: float) -> tuple[np.ndarray, np.ndarray]:
    """Reflectance and transmittance of a layer for diffuse light (Kubelka and Munk 1931)."""
    a = 1 + absorbing / scattering
    b = np.sqrt(a**2 - 1)
    x = b * scattering * thickness_cm
    denominator = a * np.sinh(x) + b * np.cosh(x)
    return np.sinh(x) / denominator, b / denominator


def linear_rgb(spectrum: np.ndarray) -> np.ndarray:
    """Linear sRGB (..., 3) of reflectances (..., 31) under D65; a white surface is (1, 1, 1)."""
    weights = OBSERVER * DAYLIGHT[:, None]
    weights = weights / weights.sum(0) * XYZ_FROM_RGB.sum(1)
    return spectrum @ weights @ np.linalg.inv(XYZ_FROM_RGB).T


def lab(linear: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (..., 3), white D65, of linear sRGB (..., 3)."""
    share = np.maximum(linear @ XYZ_FROM_RGB.T / XYZ_FROM_RGB.sum(1), 0)
    f = np.where(share > (6 / 29) ** 3, np.cbrt(share), share * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def ita_deg(linear: np.ndarray) -> np.ndarray:
    """Individual typology angle (...) in degrees from linear sRGB (..., 3): above 55 very light, below -30 dark."""
    colour = lab(linear)
    return np.degrees(np.arctan2(colour[..., 0] - 50, colour[..., 2]))


def melanin_index(share: float | np.ndarray) -> np.ndarray:
    """Perceptually even melanin scale: log(share + EVEN_MELANIN)."""
    return np.log(np.asarray(share) + EVEN_MELANIN)


INDEX_RANGE = tuple(melanin_index(np.array(MELANIN_RANGE)))
LOG_BLOOD_RANGE = tuple(np.log(BLOOD_RANGE))


@dataclass(frozen=True)
class PigmentTable:
    """Look-up table of optical density (minus the logarithm of linear RGB) over melanin and blood.

    Args:
        density: (M, B, 3), axes even in the melanin index over INDEX_RANGE and log blood over LOG_BLOOD_RANGE.
    """

    density: np.ndarray

    def __call__(self, index: np.ndarray, log_blood: np.ndarray) -> np.ndarray:
        """Density (K, 3) for (K,) melanin indices and natural logarithms of blood; clipped to the ranges."""
        rows, columns = self.density.shape[:2]
        i, u = _place(index, INDEX_RANGE, rows)
        j, w = _place(log_blood, LOG_BLOOD_RANGE, columns)
        flat, corner = self.density.reshape(-1, 3), i * columns + j
        u, w = u[:, None], w[:, None]
        return (1 - u) * ((1 - w) * flat[corner] + w * flat[corner + 1]) + u * (
            (1 - w) * flat[corner + columns] + w * flat[corner + columns + 1]
        )


def _place(value: np.ndarray, ends: tuple[float, float], count: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = ends
    position = np.clip((value - low) / (high - low), 0, 1) * (count - 1)
    cell = np.minimum(position.astype(np.int64), count - 2)
    return cell, position - cell


@lru_cache(maxsize=4)
def _end_tables() -> tuple[np.ndarray, np.ndarray]:
    ranges = zip((INDEX_RANGE, LOG_BLOOD_RANGE), _STEPS, strict=True)
    index, log_blood = (np.linspace(low, high, n) for (low, high), n in ranges)
    melanin, blood = np.meshgrid(np.exp(index) - EVEN_MELANIN, np.exp(log_blood), indexing="ij")
    brown, red = (-np.log(linear_rgb(reflectance(melanin, blood, share))) for share in PHEOMELANIN_RANGE)
    return brown, red


def pigment_table(pheomelanin: float = 0.1) -> PigmentTable:
    """Table for a share of pheomelanin, interpolated between the ends of PHEOMELANIN_RANGE."""
    low, high = PHEOMELANIN_RANGE
    share = float(np.clip((pheomelanin - low) / (high - low), 0, 1))
    brown, red = _end_tables()
    return PigmentTable((1 - share) * brown + share * red)


def melanin_of_ita(degrees: float | np.ndarray, blood: float = 0.035, pheomelanin: float = 0.1) -> np.ndarray:
    """Volume share of melanin at which plain skin has the given individual typology angle; clipped to MELANIN_RANGE."""
    low, high = np.log(MELANIN_RANGE)
    melanin = np.exp(np.linspace(low, high, 400))
    angles = ita_deg(linear_rgb(reflectance(melanin, np.full(400, blood), pheomelanin)))
    return np.exp(np.interp(-np.asarray(degrees), -angles, np.log(melanin)))


# Prior standard deviations of a texture's variation around the plain skin: melanin index, log blood, shade; and the
# noise of a texture's density, which grows with darkness because of quantisation.
PRIOR_SIGMA, NOISE_SIGMA = (0.25, 0.5, 0.25), 0.03
PLAIN_MELANIN, PLAIN_BLOOD = (0.008, 0.09), (0.02, 0.07)


def unmix(density: np.ndarray, plain: np.ndarray, rounds: int = 6) -> np.ndarray:
    """Decompose skin into pigments: density = table(melanin index, log blood) + shade, by regularised least squares.

    Args:
        density: (K, 3) of the skin.
        plain: (3,) density of the same person's plain skin. Its residual, for example a camera's colour cast, is
            assumed to be constant.
    Returns:
        (K, 3): deviations of melanin index, log blood and shade from the plain skin.
    """
    table = pigment_table()
    start = _closest(table, plain)
    offset = plain - table(*start[:, None])[0]
    noise = NOISE_SIGMA * np.exp(max(0.0, 0.45 * float(plain.mean() - 1)))
    x = np.zeros_like(density)
    step, ridge = 0.02, (noise / np.array(PRIOR_SIGMA)) ** 2
    for _ in range(rounds):
        m, b = start[0] + x[:, 0], start[1] + x[:, 1]
        here = table(m, b)
        slopes = np.stack(
            [(table(m + step, b) - here) / step, (table(m, b + step) - here) / step, np.ones_like(here)], 1
        )
        error = density - offset - here - x[:, 2:]
        normal = slopes @ slopes.transpose(0, 2, 1) + np.diag(ridge)
        gradient = (slopes @ error[..., None])[..., 0] - ridge * x
        x = np.clip(x + np.linalg.solve(normal, gradient[..., None])[..., 0], -2, 2)
    return x


def _closest(table: PigmentTable, density: np.ndarray) -> np.ndarray:
    """Melanin index and log blood (2,) of the table's colour nearest to a density (3,), in a well-conditioned range."""
    (least, most), (low, high) = melanin_index(np.array(PLAIN_MELANIN)), np.log(PLAIN_BLOOD)
    index, blood = np.linspace(least, most, 60), np.linspace(low, high, 60)
    grid = np.stack(np.meshgrid(index, blood, indexing="ij"), axis=-1).reshape(-1, 2)
    distance = ((table(grid[:, 0], grid[:, 1]) - density) ** 2).sum(1)
    return grid[distance.argmin()]
