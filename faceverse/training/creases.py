"""Procedural facial creases: the 64 named factors, and the displacement map of the lines that they control.

A line is a smooth function t(s) in the coordinates of its family (see crease_fields.py) with a strength that varies
along it, so that the displacement is smooth in the factors z.
"""

from __future__ import annotations

import numpy as np

from ..detail.module import DisplacementCode
from .crease_fields import CreaseFamily, CreaseFields
from .skin_fields import smoothstep

Z_DIM = 64
FACTORS = (  # these names are stored in the weight files
    "age", "masculinity", "photoageing",
    "forehead_depth", "forehead_count", "forehead_height", "forehead_wave", "forehead_asymmetry", "forehead_phase",
    "frown_depth", "frown_number", "frown_tilt",
    "crow_left", "crow_right", "crow_spread", "crow_phase",
    "under_eye_left", "under_eye_right", "eye_bags", "dark_circles",
    "nasolabial_left", "nasolabial_right", "nasolabial_length", "marionette_left", "marionette_right",
    "chin_crease", "chin_texture", "upper_lip_lines", "lip_creases", "lip_phase", "cheek_lines",
    "neck_lines", "neck_phase", "nose_lines",
    "fine_lines", "pore_depth", "pore_extent", "roughness",
    "freckles", "age_spots", "moles", "redness", "acne_scars", "stubble",
    "brow_relief", "mottling", "eyelid_lines",
)  # fmt: skip
AGE_MEAN, AGE_SPREAD = DisplacementCode.age
_HASH = np.random.default_rng(20).uniform(0, 2 * np.pi, (96, 8))  # phases of the lines, the same for all people


class SkinFactors:
    """Named access to a factor vector z (64,), with the effects of age."""

    def __init__(self, z: np.ndarray):
        self.z = np.asarray(z, dtype=np.float64)
        self.years = AGE_MEAN + AGE_SPREAD * self["age"]

    def __getitem__(self, name: str) -> float:
        return float(self.z[FACTORS.index(name)])

    def grown(self, onset: float, full: float, photoageing: float = 4.0) -> float:
        """Ageing curve: about 0 well before the age `onset`, 1.2 at `full`, still increasing after.

        Photoageing adds `photoageing` years per standard deviation.
        """
        years = self.years + photoageing * self["photoageing"]

        def ramp(at: float) -> float:
            return np.logaddexp(0, (at - onset) / 7)

        share = float(ramp(years) / ramp(full))
        return share * (1 + 0.2 * min(share, 1.0))

    def varied(self, name: str, spread: float = 0.4) -> float:
        """Log-normal factor around 1, controlled by the factor `name`."""
        return float(np.exp(spread * np.clip(self[name], -3, 3)))

    @property
    def male(self) -> float:
        """Depth factor of lines by sex, around 1."""
        return float(np.exp(0.13 * np.clip(self["masculinity"], -1.5, 1.5)))


# ------------------------------------------------------------------------------------------------------------ the lines


def profile(t: np.ndarray, shoulders: float = 0.35) -> np.ndarray:
    """Cross section of a crease of depth 1 and unit half width: a narrow rounded valley between raised shoulders."""
    near = np.exp(-0.5 * t * t)
    wide = np.exp(-0.5 * (t / 2.4) ** 2)
    rise = np.exp(-0.5 * ((np.abs(t) - 3.6) / 1.7) ** 2)
    return -0.62 * near - 0.38 * wide + shoulders * rise


def wander(
    s: np.ndarray, line: int, phase: float, wavelengths=(43.0, 17.0, 7.5), sizes=(1.0, 0.42, 0.10)
) -> np.ndarray:
    """Smooth pseudo-random function along a line, with a standard deviation of about 0.8."""
    total = np.zeros_like(s)
    for k, (wavelength, size) in enumerate(zip(wavelengths, sizes)):
        angle = np.float32(_HASH[line % 96, k] + (0.8 + 0.35 * k) * phase)
        total += np.float32(size) * np.sin(np.float32(2 * np.pi / wavelength) * s + angle)
    return total


def window(s: np.ndarray, start: float, end: float, soft: float) -> np.ndarray:
    """1 between start and end, with smooth tapers of length `soft` outside."""
    return smoothstep((s - start) / soft + 1) * smoothstep((end - s) / soft + 1)


def _line(
    family: CreaseFamily, t: np.ndarray, strength: np.ndarray, width_mm: float, shoulders: float = 0.35
) -> np.ndarray:
    """Heights (N,) of one line: t (N,) is the distance from it, `strength` its depth in mm (a number or (N,))."""
    width = np.hypot(np.float32(width_mm), family.least_mm)
    return (strength * (np.float32(width_mm) / width) ** 0.5) * profile(t / width, shoulders)


def _broken(s: np.ndarray, line: int, phase: float, gap: float = 0.35) -> np.ndarray:
    """Modulation 0..1 along a line, with gaps near 0."""
    return smoothstep((wander(s, line + 31, phase, (29.0, 11.0, 5.0), (1, 0.6, 0.3)) + 1.3 - 2 * gap) / 1.2)


def crease_displacement(fields: CreaseFields, z: np.ndarray, warp_mm: np.ndarray | None = None) -> np.ndarray:
    """Compute the displacement of all creases.

    Args:
        z: (64,), see FACTORS.
        warp_mm: (S, S) small offsets across the lines that make them less regular; None draws the plain lines.
    Returns:
        (S, S) float32 millimetres outwards.
    """
    factors = SkinFactors(z)
    out = np.zeros(fields.size * fields.size, np.float32)
    shift = None if warp_mm is None else warp_mm.reshape(-1)

    def add(name: str, draw, *numbers) -> None:
        family = fields.families[name]
        t = family.t if shift is None or name.startswith("crow") else family.t + shift[family.at]
        out[family.at] += family.inside * draw(family, family.s, t, factors, *numbers)

    for name, draw in (
        ("forehead", _forehead), ("frown", _frown), ("root", _root), ("chin", _chin), ("above_lip", _above_lip),
        ("below_lip", _below_lip), ("lips", _lips), ("neck", _neck),
    ):  # fmt: skip
        add(name, draw)
    for half, key in (("right", 0), ("left", 48)):
        for name, draw_half in (
            ("crow", _crow), ("under_eye", _under_eye), ("upper_lid", _upper_lid), ("nasolabial", _nasolabial),
            ("marionette", _marionette), ("bunny", _bunny),
        ):  # fmt: skip
            add(f"{name}_{half}", draw_half, half, key)
    return out.reshape(fields.size, fields.size)


def _forehead(family: CreaseFamily, s, t, factors: SkinFactors) -> np.ndarray:
    phase = 1.3 * factors["forehead_phase"]
    depth = 0.34 * factors.grown(37, 66) * factors.varied("forehead_depth", 0.5) * factors.male
    count = 3.4 + 0.9 * factors["forehead_count"]
    lowest = 9.5 + 1.6 * factors["forehead_height"]
    spacing = 6.6 + 0.35 * factors["forehead_height"] - 0.25 * factors["forehead_count"]
    waves = 0.55 * factors.varied("forehead_wave", 0.4)
    lean = smoothstep(0.5 + s / 60) - 0.5
    side = np.exp(0.5 * factors["forehead_asymmetry"] * lean)
    out = np.zeros_like(t)
    for k in range(7):
        present = float(smoothstep(count - k + 0.5))
        if present < 0.01:
            continue
        height = lowest + spacing * k + 0.7 * np.sin(_HASH[k, 6] + phase) + 0.7 * factors["forehead_asymmetry"] * lean
        reach = 29 - 2.0 * k + 7 * np.sin(_HASH[k, 7] + phase)
        ends = window(s, -reach + 9 * np.sin(_HASH[k, 5] + 2 * phase), reach, 20)
        line = height + waves * wander(s, k, phase)
        strength = present * depth * (0.72 + 0.38 * np.sin(_HASH[k, 4] + 1.7 * phase)) * side
        out += _line(family, t - line, strength * ends * (0.5 + 0.5 * _broken(s, k, phase)), 0.74, 0.5)
        # A fine secondary line that branches off and rejoins.
        beside = line + 2.3 * np.sin(_HASH[k, 3] + s / 15 + phase) + 0.5
        fine = 0.38 * strength * ends * _broken(s, k + 10, phase, 0.75)
        out += _line(family, t - beside - 0.3 * wander(s, k + 20, phase), fine, 0.38, 0.2)
    return out


def _frown(family: CreaseFamily, s, t, factors: SkinFactors) -> np.ndarray:
    depth = 0.36 * factors.grown(36, 62) * factors.varied("frown_depth", 0.5) * factors.male
    number = 1.9 + 0.6 * factors["frown_number"]
    tilt = 0.05 + 0.08 * factors["frown_tilt"]
    phase = 1.2 * factors["frown_tilt"] + 0.9 * factors["frown_number"]
    both = float(smoothstep((number - 1) / 0.9))
    middle = 0.6 * float(smoothstep(1.75 - number)) + 0.5 * float(smoothstep(number - 2.0))
    out = np.zeros_like(t)
    for sign, k in ((-1, 40), (1, 41)):
        place = sign * (6.4 + 0.9 * np.sin(_HASH[k, 3] + phase)) + sign * (tilt * (s - 4) - 0.012 * (s - 4) ** 2)
        strength = depth * (0.25 + 0.75 * both) * (0.85 + 0.25 * np.sin(_HASH[k, 4] + phase))
        line = place + 0.55 * wander(s, k, phase, (25.0, 11.0, 6.0))
        top = 3 + 3.5 * np.sin(_HASH[k, 5] + 1.5 * phase)
        out += _line(family, t - line, strength * window(s, -3, top, 8), 0.74, 0.5)
        line = line + sign * (2.8 + 0.06 * s)
        out += _line(family, t - line, 0.3 * strength * window(s, 0, 6, 7) * _broken(s, k, phase, 0.5), 0.4, 0.2)
    line = 0.8 * np.sin(phase) + 0.5 * wander(s, 42, phase, (25.0, 11.0, 6.0))
    return out + _line(family, t - line, middle * depth * window(s, -1, 10, 8), 0.55, 0.4)


def _root(family: CreaseFamily, s, t, factors: SkinFactors) -> np.ndarray:
    depth = 0.20 * factors.grown(42, 68) * factors.varied("nose_lines", 0.6)
    phase = factors["nose_lines"]
    out = np.zeros_like(t)
    for k, height in ((43, 1.5), (44, -2.4)):
        line = height + 0.5 * wander(s, k, phase, (23.0, 9.0, 5.0))
        strength = depth * (1 if height > 0 else 0.5) * window(s, -6, 6, 5)
        out += _line(family, t - line, strength, 0.6, 0.35)
    return out


def _chin(family: CreaseFamily, s, t, factors: SkinFactors) -> np.ndarray:
    depth = (0.06 + 0.22 * factors.grown(38, 68)) * factors.varied("chin_crease", 0.5) * factors.male
    phase = 0.8 * factors["chin_crease"]
    line = 0.5 * wander(s, 45, phase, (41.0, 19.0, 9.0))
    out = _line(family, t - line, depth * window(s, -11, 11, 10), 1.25, 0.3)
    return out + _line(family, t - line - 2.6, 0.3 * depth * window(s, -7, 8, 7) * _broken(s, 46, phase), 0.5, 0.2)


def _above_lip(family: CreaseFamily, s, t, factors: SkinFactors) -> np.ndarray:
    depth = 0.25 * factors.grown(52, 76, 6.0) * factors.varied("upper_lip_lines", 0.55)
    depth *= float(np.exp(-0.35 * np.clip(factors["masculinity"], -1.5, 1.5)))
    return _comb(family, t, depth, 0.8 * factors["lip_phase"], 3.3, 12, 6.5, 50)


def _below_lip(family: CreaseFamily, s, t, factors: SkinFactors) -> np.ndarray:
    depth = 0.10 * factors.grown(56, 78, 6.0) * factors.varied("upper_lip_lines", 0.5)
    return _comb(family, t, depth, 0.8 * factors["lip_phase"] + 1, 4.1, 7, 4.0, 66)


def _comb(family: CreaseFamily, t, depth: float, phase: float, spacing: float, count: int, length: float, key: int):
    """Short parallel lines with individual length and depth; s is the distance from the lip, t the position along."""
    s, out = family.s, np.zeros_like(t)
    for k in range(-count // 2, count // 2 + 1):
        table = _HASH[(key + k) % 96]
        place = spacing * (k + 0.5) + 0.9 * np.sin(table[0] + phase)
        # Few lines cross the philtrum.
        own = (0.55 + 0.45 * np.sin(table[1] + 0.7 * phase)) * (1 - 0.75 * np.exp(-0.5 * (place / 2.5) ** 2))
        reach = length * (0.7 + 0.3 * np.sin(table[2] + phase))
        line = place + 0.35 * wander(s, key + k, phase, (17.0, 8.0, 4.0)) + 0.05 * s * np.sin(table[3] + phase)
        near = np.abs(t - line) < 5
        out[near] += _part(family, near, (t - line), depth * own * window(s, -0.5, reach, 3.2), 0.48, 0.35)
    return out


def _part(family: CreaseFamily, near: np.ndarray, t: np.ndarray, strength: np.ndarray, width: float, shoulders: float):
    least = family.least_mm[near]
    wide = np.hypot(np.float32(width), least)
    return strength[near] * (width / wide) ** 0.5 * profile(t[near] / wide, shoulders)


def _lips(family: CreaseFamily, s, t, factors: SkinFactors) -> np.ndarray:
    """Wrinkles across the lips, finest in the middle and fading towards the skin."""
    depth = (0.055 + 0.05 * factors.grown(40, 75)) * factors.varied("lip_creases", 0.35)
    phase = 0.8 * factors["lip_phase"]
    bend = t + 0.5 * wander(s + 0.3 * t, 81, phase, (19.0, 9.0, 5.0)) + np.where(s > 0, 0.9, 0.0)
    upper = smoothstep(0.5 + s / 1.5)
    wrinkles = np.zeros_like(t)
    for k, (wavelength, size) in enumerate(((2.1, 1.0), (3.4, 0.8), (1.45, 0.5), (5.9, 0.6))):
        wrinkles += size * np.sin(2 * np.pi * bend / wavelength + _HASH[82 + k, 0] + _HASH[82 + k, 1] * upper + phase)
    wrinkles = -np.abs(wrinkles - 0.4) + 0.9
    middle = 0.5 + 0.5 * np.exp(-0.5 * (t / 11) ** 2)
    return depth * middle * np.clip(wrinkles, -1.6, 0.9) * (0.7 + 0.3 * wander(s + t, 86, phase, (7.0, 5.0, 3.0)))


def _neck(family: CreaseFamily, s, t, factors: SkinFactors) -> np.ndarray:
    depth = (0.08 + 0.34 * factors.grown(40, 68)) * factors.varied("neck_lines", 0.45)
    phase = factors["neck_phase"]
    out = np.zeros_like(t)
    for k, height in enumerate((-5.0, -15.0, -27.0)):
        line = height + 2.5 * np.sin(_HASH[88 + k, 0] + phase) + 1.6 * wander(s, 88 + k, phase, (61.0, 27.0, 12.0))
        strength = depth * (0.75 + 0.35 * np.sin(_HASH[88 + k, 1] + phase)) * window(s, -38, 38, 16)
        out += _line(family, t - line, strength * (0.5 + 0.5 * _broken(s, 88 + k, phase)), 0.9, 0.3)
    return out


def _crow(family: CreaseFamily, s, t, factors: SkinFactors, half: str, key: int) -> np.ndarray:
    """s is the distance from the corner's centre, t the angle upwards."""
    phase = 1.1 * factors["crow_phase"] + (0.4 if half == "left" else 0.0)
    depth = 0.28 * factors.grown(36, 64, 6.0) * factors.varied(f"crow_{half}", 0.4) * factors.male
    spread = 0.92 + 0.13 * factors["crow_spread"]
    out = np.zeros_like(t)
    for k, angle in enumerate((0.78, 0.52, 0.28, 0.06, -0.17, -0.40, -0.64, -0.88)):
        table = _HASH[(key + k + 3) % 96]
        start = 10.5 + 1.5 * np.sin(table[1] + phase) + 3 * abs(angle)
        reach = start + 9 + 4.5 * np.sin(table[2] + phase) + 6 * float(np.tanh(depth / 0.2))
        # Lines above the corner rise, lines below it curve down over the cheek.
        bend = spread * angle * (1 + 0.010 * (s - 12)) + 0.07 * np.sin(table[0] + phase)
        away = (t - bend) * s - 0.45 * wander(s, key + k, phase, (23.0, 9.0, 5.0))
        # Lines that rise to the brow are shallow.
        own = (0.62 + 0.38 * np.sin(table[3] + 1.3 * phase)) * (0.6 if angle > 0.6 else 1.0)
        strength = depth * own * window(s, start, reach, 8)
        near = np.abs(away) < 6
        out[near] += _part(family, near, away, strength * (0.55 + 0.45 * _broken(s, key + k, phase)), 0.5, 0.42)
        fine = away - 1.5 - 0.9 * np.sin(table[4] + phase + s / 9)
        near = np.abs(fine) < 4
        strength = 0.4 * strength * _broken(s, key + k + 7, phase, 0.6)
        out[near] += _part(family, near, fine, strength, 0.36, 0.25)
    return out


def _under_eye(family: CreaseFamily, s, t, factors: SkinFactors, half: str, key: int) -> np.ndarray:
    """s runs from the inner corner outwards, t is the distance below the lid's rim."""
    own = factors.varied(f"under_eye_{half}", 0.4)
    phase = 0.7 * factors["crow_phase"] + 0.5 * factors["eye_bags"] + (0.3 if half == "left" else 0.0)
    depth = 0.15 * factors.grown(36, 68, 6.0) * own
    out = np.zeros_like(t)
    for k, (below, first, last, size) in enumerate(
        ((2.6, 5, 23, 0.55), (4.8, 3, 27, 1.0), (7.2, 7, 30, 0.7), (9.6, 10, 31, 0.6), (12.0, 13, 31, 0.4))
    ):
        line = below + 0.05 * (s - 12) + 0.35 * wander(s, key + 60 + k, phase, (21.0, 10.0, 5.0))
        strength = size * depth * window(s, first, last, 6) * (0.4 + 0.6 * _broken(s, key + 60 + k, phase, 0.45))
        out += _line(family, t - line, strength, 0.42, 0.4)
    # The lower border of the bag runs from the inner corner down and outwards.
    bag = (0.05 + 0.26 * factors.grown(42, 70)) * factors.varied("eye_bags", 0.5) * own**0.5
    border = 6.0 + 7.5 * smoothstep((s + 4) / 20) - 2.2 * smoothstep((s - 14) / 16) + 0.4 * wander(s, key + 67, phase)
    return out + _line(family, t - border, bag * window(s, 3, 17, 6), 1.25, 0.45)


def _upper_lid(family: CreaseFamily, s, t, factors: SkinFactors, half: str, key: int) -> np.ndarray:
    depth = (0.03 + 0.10 * factors.grown(40, 68)) * factors.varied("eyelid_lines", 0.5)
    phase = factors["eyelid_lines"]
    out = np.zeros_like(t)
    for k, (height, size) in enumerate(((2.2, 0.6), (4.2, 1.0), (6.0, 0.6))):
        line = height + 0.3 * wander(s, key + 70 + k, phase, (19.0, 9.0, 5.0))
        out += _line(family, t - line, size * depth * window(s, 3, 22, 6) * window(t, 0.8, 6.5, 1.5), 0.4, 0.3)
    return out


def _nasolabial(family: CreaseFamily, s, t, factors: SkinFactors, half: str, key: int) -> np.ndarray:
    own = factors.varied(f"nasolabial_{half}", 0.4)
    depth = (0.08 + 0.46 * factors.grown(38, 68)) * own * factors.male**0.5
    phase = 0.8 * factors["nasolabial_length"] + (0.5 if half == "left" else 0.0)
    length = 41 + 4 * factors["nasolabial_length"] + 7 * float(np.tanh(depth))
    line = 0.75 * wander(s, key + 20, phase, (47.0, 21.0, 9.0), (1.0, 0.4, 0.1))
    strength = depth * window(s, 5, length - 9, 13) * (0.85 + 0.15 * wander(s, key + 21, phase))
    # The cheek hangs over the fold: a soft valley with a sharp bottom and a full shoulder on its outer side.
    away = t - line
    out = -0.55 * strength * np.exp(-0.5 * (away / np.where(away > 0, 3.0, 2.2)) ** 2)
    out += 0.40 * strength * np.exp(-0.5 * ((away - 6.5) / 2.8) ** 2)
    sharp = 0.55 * strength * (0.45 + 0.55 * _broken(s, key + 23, phase, 0.2))
    out += _line(family, away, sharp, 0.70, 0.2)
    fine = strength * _broken(s, key + 22, phase, 0.65)
    out += _line(family, away + 1.9 - 0.03 * s, 0.20 * fine, 0.42, 0.2)
    out += _line(family, away - 2.6 - 0.9 * np.sin(s / 9 + phase), 0.18 * fine, 0.42, 0.2)
    return out + _cheek(family, s, t, factors, phase, key + 25)


def _cheek(family: CreaseFamily, s, t, factors: SkinFactors, phase: float, key: int) -> np.ndarray:
    """Short curved cheek lines with individual ends and courses."""
    depth = 0.13 * factors.grown(52, 74, 6.0) * factors.varied("cheek_lines", 0.7)
    phase = phase + factors["cheek_lines"]
    out = np.zeros_like(t)
    for k, (place, first, last, size) in enumerate(
        ((8.0, 13, 21, 0.8), (10.5, 25, 37, 1.0), (14.5, 17, 31, 0.9), (18.5, 27, 40, 0.7), (22.0, 15, 28, 0.6))
    ):
        table = _HASH[key + k]
        first, last = first + 3 * np.sin(table[5] + phase), last + 3 * np.sin(table[6] + phase)
        lean = (0.10 + 0.10 * np.sin(table[7] + phase)) * (s - first) - 0.010 * (s - first) ** 2
        bowed = place + lean + 0.6 * wander(s, key + k, phase, (31.0, 13.0, 7.0))
        strength = size * depth * window(s, first, last, 8) * (0.3 + 0.7 * _broken(s, key + k, phase, 0.45))
        out += _line(family, t - bowed, strength, 0.6, 0.45)
    return out


def _marionette(family: CreaseFamily, s, t, factors: SkinFactors, half: str, key: int) -> np.ndarray:
    depth = 0.34 * factors.grown(46, 70) * factors.varied(f"marionette_{half}", 0.45)
    phase = 0.8 * factors["nasolabial_length"] + (0.8 if half == "left" else 0.0)
    line = 0.7 * wander(s, key + 30, phase, (31.0, 13.0, 7.0), (1.0, 0.5, 0.15))
    reach = 11 + 7 * float(np.tanh(depth / 0.3))
    strength = depth * window(s, 1, reach, 7)
    away = t - line
    out = -0.4 * strength * np.exp(-0.5 * (away / 2.2) ** 2) + 0.2 * strength * np.exp(-0.5 * ((away - 4.5) / 2) ** 2)
    out += _line(family, away, 0.6 * strength * (0.4 + 0.6 * _broken(s, key + 32, phase)), 0.75, 0.35)
    beside = away - 2.4 - 0.8 * np.sin(s / 6 + phase)
    return out + _line(family, beside, 0.18 * strength * _broken(s, key + 31, phase, 0.6), 0.5, 0.2)


def _bunny(family: CreaseFamily, s, t, factors: SkinFactors, half: str, key: int) -> np.ndarray:
    depth = 0.10 * factors.grown(42, 68) * factors.varied("nose_lines", 0.6)
    out = np.zeros_like(t)
    for k, place in enumerate((0.0, -3.4, -6.4)):
        line = place + 0.35 * wander(s, key + 35 + k, factors["nose_lines"], (17.0, 8.0, 5.0))
        out += _line(family, t - line, depth * (1, 0.8, 0.5)[k] * window(s, 0, 7, 5), 0.5, 0.35)
    return out
