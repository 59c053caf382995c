"""Procedural skin microstructure: pores, fine lines, hairs, spots and scars at random positions.

The factors z set the amount of each; see `creases.FACTORS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from .creases import SkinFactors
from .skin_fields import smoothstep
from .skin_surface import GRID, SkinSurface

# Change of log albedo per channel for one unit of pigment: melanin darkens blue most, blood takes green away.
MELANIN = np.array([-0.62, -0.86, -1.05], np.float32)
BLOOD = np.array([-0.06, -0.52, -0.42], np.float32)
DARK = np.array([-1.0, -0.97, -0.92], np.float32)
CROSSING_DEG = 38.0  # between the two families of fine lines and the skin tension lines
COURSE_TEXELS = 4


@dataclass(frozen=True)
class GrainFields:
    """Surface-dependent inputs of `grain`, computed once.

    Args:
        at: (N,) flat indices of the texels with microstructure.
        courses: four (2 * COURSE_TEXELS + 1, N) int32, texels along the streamlines of the two crossing families, the
            tension lines, and the brow hairs.
        pore_size, pore_share: (S, S) 0..1, size and density of pores.
    """

    at: np.ndarray
    courses: tuple[np.ndarray, ...]
    pore_size: np.ndarray
    pore_share: np.ndarray

    @classmethod
    def of(cls, surface: SkinSurface) -> GrainFields:
        at = np.flatnonzero(surface.bare.reshape(-1) > 0.01)
        angle = np.arctan2(surface.tension[1], surface.tension[0])
        sign = np.where(surface.x < GRID / 2, -1.0, 1.0)
        # Brow hairs point up at the nose and outwards at the temple.
        hair = np.arctan2(-np.interp(surface.brow_along, (0, 0.25, 0.6, 1), (1.6, 0.7, 0.25, -0.35)), sign)
        turns = (angle + np.radians(CROSSING_DEG), angle - np.radians(CROSSING_DEG), angle, hair)
        courses = tuple(_course(turn, at, surface.size) for turn in turns)
        smooth = (1 - surface.lips) * (1 - 0.9 * surface.eyelids) * (1 - 0.7 * surface.under_eye)
        size = 0.22 + 0.20 * surface.forehead + 0.85 * surface.nose + 0.65 * surface.cheeks + 0.25 * surface.chin
        size = np.clip(size, 0, 1) * smooth * (1 - 0.6 * surface.neck)
        return cls(at, courses, size.astype(np.float32), (smooth * surface.bare).astype(np.float32))


def _course(angle: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    """Trace streamlines of a direction field both ways: flat texel indices (2 * COURSE_TEXELS + 1, N)."""
    right, down = np.cos(angle).reshape(-1), np.sin(angle).reshape(-1)
    rows = [at]
    for way in (-1.0, 1.0):
        y, x = (at // size).astype(np.float64), (at % size).astype(np.float64)
        heading = np.full(len(at), way)
        here, found = at, []
        for _ in range(COURSE_TEXELS):
            new_x, new_y = right[here], down[here]
            x, y = x + heading * new_x, y + heading * new_y
            there = np.rint(y).clip(0, size - 1).astype(int) * size + np.rint(x).clip(0, size - 1).astype(int)
            # A line has no sign: keep going the same way where the direction field flips.
            heading = heading * np.where(right[there] * new_x + down[there] * new_y < 0, -1.0, 1.0)
            here = there
            found.append(here)
        rows = found[::-1] + rows if way < 0 else rows + found
    return np.stack(rows).astype(np.int32)


def grain(
    surface: SkinSurface, fields: GrainFields, z: np.ndarray, rng: np.random.Generator, tone: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw displacement (S, S) in millimetres and log albedo change (3, S, S), float32.

    Args:
        z: (64,).
        tone: mean luminance of the albedo, 0..1: freckles, redness and spots are weaker on dark skin.
    """
    factors = SkinFactors(z)
    pale = float(smoothstep((tone - 0.04) / 0.30))
    displacement = np.zeros((surface.size, surface.size), np.float32)
    albedo = np.zeros((3, surface.size, surface.size), np.float32)
    for draw in (_pores, _fine_lines, _orange_peel, _brow_hairs, _stubble, _tones, _freckles, _blemishes):
        draw(surface, fields, factors, rng, pale, displacement, albedo)
    return displacement, albedo


# --------------------------------------------------------------------------------------------------------------- tools


def smooth_noise(rng: np.random.Generator, size: int, sigma: float) -> np.ndarray:
    """Smooth unit-variance noise (size, size) float32; `sigma` in texels of this map."""
    step = max(1, int(sigma / 1.6))
    while size % step:
        step -= 1
    small = rng.standard_normal((size // step, size // step), dtype=np.float32)
    small = gaussian_filter(small, sigma / step, mode="wrap")
    small /= small.std() + 1e-9
    return small if step == 1 else zoom(small, step, order=1, mode="grid-wrap", grid_mode=True)


def scattered(rng: np.random.Generator, surface: SkinSurface, spacing_mm: float, share: np.ndarray):
    """Jittered grid of positions (P, 2) row, column in texels of this map, about `spacing_mm` apart, thinned by the
    probability `share`; and their flat indices (P,)."""
    size = surface.size
    step = spacing_mm / 0.58 * size / GRID
    count = int(size / step)
    cell = np.stack(np.meshgrid(np.arange(count), np.arange(count), indexing="ij"), -1).reshape(-1, 2)
    # Alternate rows are offset by half a step, so that no columns show.
    shifted = cell + 0.5 + np.stack([np.zeros(len(cell)), 0.5 * (cell[:, 0] % 2)], 1)
    place = (shifted + rng.uniform(-0.42, 0.42, cell.shape)) * (size / count)
    place = np.clip(place, 0, size - 1.001)
    flat = place.astype(int) @ (size, 1)
    kept = rng.random(len(flat)) < share.reshape(-1)[flat]
    return place[kept], flat[kept]


def splat(size: int, place: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Splat amounts at positions (P, 2) bilinearly onto a map (size, size) float32."""
    place = np.clip(place - 0.5, 0, size - 1.001)
    corner = place.astype(int)
    part = place - corner
    index, weight = [], []
    for down in (0, 1):
        for right in (0, 1):
            index.append(
                (np.minimum(corner[:, 0] + down, size - 1)) * size + np.minimum(corner[:, 1] + right, size - 1)
            )
            weight.append(amount * np.abs(1 - down - part[:, 0]) * np.abs(1 - right - part[:, 1]))
    total = np.bincount(np.concatenate(index), np.concatenate(weight), minlength=size * size)
    return total.reshape(size, size).astype(np.float32)


def dots(size: int, place: np.ndarray, depth: np.ndarray, sigma_texels: float) -> np.ndarray:
    """Gaussian dots of height `depth` (P,) at positions (P, 2); dots below the resolution keep their volume."""
    # Splatting blurs a point by 0.42 texels; at 512 the resulting peak is `depth`.
    spread = np.hypot(sigma_texels, 0.42 * size / GRID)
    amount = splat(size, place, depth * (2 * np.pi * spread**2))
    return gaussian_filter(amount, max(sigma_texels, 0.3), mode="nearest", truncate=3)


def _along(course: np.ndarray, values: np.ndarray, length: int = COURSE_TEXELS) -> np.ndarray:
    """(N,) line integral of values (S * S,) along streamlines, `length` texels both ways; unit variance for noise."""
    kept = course[COURSE_TEXELS - length : COURSE_TEXELS + length + 1]
    weight = np.hanning(len(kept) + 2)[1:-1].astype(np.float32)
    total = np.zeros(kept.shape[1], np.float32)
    for w, index in zip(weight / np.sqrt((weight**2).sum()), kept):
        total += w * values[index]
    return total


# ---------------------------------------------------------------------------------------------------------- structures


def _pores(surface, fields, factors, rng, pale, displacement, albedo) -> None:
    depth = 0.060 * factors.varied("pore_depth", 0.4) * (1 + 0.25 * np.clip(factors["masculinity"], -1, 1))
    depth *= 0.60 + 0.38 * factors.grown(15, 60)
    extent = factors.varied("pore_extent", 0.25)
    size = np.clip(fields.pore_size * extent, 0, 1.3)
    slack = 0.5 * float(smoothstep((factors.years - 35) / 35))
    texel = surface.size / GRID
    pits = np.zeros_like(displacement)
    for spacing, sigma, low, high in ((1.25, 0.50, 0.0, 0.75), (1.9, 0.80, 0.45, 1.2)):
        share = fields.pore_share * smoothstep((size - low + 0.15) / 0.3) * smoothstep((high + 0.2 - size) / 0.3)
        place, flat = scattered(rng, surface, spacing, 0.9 * share)
        own = depth * np.exp(0.45 * rng.standard_normal(len(flat))) * (0.35 + size.reshape(-1)[flat]) * sigma / 0.65
        # Pores of slack skin are elongated along the tension lines.
        way = np.stack([surface.tension[1].reshape(-1)[flat], surface.tension[0].reshape(-1)[flat]], 1)
        out = (0.25 + slack) * texel * way
        both = np.concatenate([place + out, place - out])
        pits += dots(surface.size, both, np.concatenate([own, own]) * 0.55, sigma * texel)
    pits *= fields.pore_share
    displacement -= pits
    albedo += (0.9 * pits) * (0.5 * MELANIN + 0.7 * pale * BLOOD + 0.25 * DARK)[:, None, None]


def _fine_lines(surface, fields, factors, rng, pale, displacement, albedo) -> None:
    size = surface.size
    texel = size / GRID
    place = np.clip(
        0.55 + 0.9 * surface.eye_corner + 0.55 * surface.neck + 0.25 * surface.cheeks - 0.35 * surface.nose, 0.1, 2
    ) * (1 - 0.75 * surface.lips)
    old = factors.grown(40, 70, 6.0)
    size_mm = (0.011 + 0.017 * old) * factors.varied("fine_lines", 0.4)
    wide = (0.004 + 0.030 * old) * factors.varied("fine_lines", 0.4)
    net = np.zeros(len(fields.at), np.float32)
    for course in fields.courses[:2]:
        white = rng.standard_normal(size * size, dtype=np.float32)
        line = _along(course, white)
        net -= np.maximum(line - 0.55, 0) * size_mm
    sigma = 1.15 * texel
    for course, share in zip(fields.courses[:3], (0.8, 0.8, 0.9)):
        band = smooth_noise(rng, size, sigma) - 0.7 * smooth_noise(rng, size, 3 * sigma)
        line = _along(course, band.reshape(-1)) / 2.2
        net -= np.maximum(line - 0.35, 0) * wide * share
    # Old skin has longer lines between the creases, along the tension lines.
    long = np.zeros(size * size, np.float32)
    long[fields.at] = _along(fields.courses[2], (smooth_noise(rng, size, 1.5 * texel)).reshape(-1))
    line = _along(fields.courses[2], long) / 5.5
    depth = 0.050 * factors.grown(50, 74, 6.0) * factors.varied("fine_lines", 0.5)
    net -= (
        np.maximum(line - 0.4, 0) * depth * (0.4 + 0.8 * (surface.cheeks + surface.eye_corner)).reshape(-1)[fields.at]
    )
    net *= (place * surface.bare).reshape(-1)[fields.at]
    displacement.reshape(-1)[fields.at] += net
    albedo.reshape(3, -1)[:, fields.at] += (1.2 * net) * -(0.5 * MELANIN + 0.4 * pale * BLOOD)[:, None]


def _orange_peel(surface, fields, factors, rng, pale, displacement, albedo) -> None:
    texel = surface.size / GRID
    strength = (0.013 + 0.010 * factors.grown(35, 70)) * factors.varied("roughness", 0.35)
    where = surface.bare * (1 - 0.8 * surface.lips) * (0.6 + 0.5 * surface.cheeks + 0.4 * surface.nose)
    displacement += (
        strength
        * where
        * (smooth_noise(rng, surface.size, 1.9 * texel) + 0.8 * smooth_noise(rng, surface.size, 3.6 * texel))
    )
    displacement += 0.6 * strength * where * rng.standard_normal(displacement.shape, dtype=np.float32) * 0.5
    dimpled = 0.05 * max(0.0, factors["chin_texture"]) * factors.grown(30, 60)
    displacement += dimpled * surface.chin * smooth_noise(rng, surface.size, 2.8 * texel)


def _brow_hairs(surface, fields, factors, rng, pale, displacement, albedo) -> None:
    weight = surface.brows.reshape(-1)[fields.at]
    here = weight > 0.01
    course = fields.courses[3][:, here]
    white = rng.standard_normal(surface.size**2, dtype=np.float32)
    hairs = np.maximum(_along(course, white) + 0.1, 0) * weight[here]
    displacement.reshape(-1)[fields.at[here]] += (
        0.07 * factors.varied("brow_relief", 0.35) * (hairs - 0.5 * weight[here])
    )
    shade = 0.30 * factors.varied("brow_relief", 0.25) * (0.5 * weight[here] - hairs)
    albedo.reshape(3, -1)[:, fields.at[here]] += shade[None] * -DARK[:, None] * 0.9


def _stubble(surface, fields, factors, rng, pale, displacement, albedo) -> None:
    amount = float(smoothstep((factors["masculinity"] + 0.15 + 0.25 * factors["stubble"]) / 0.7))
    amount *= factors.varied("stubble", 0.5)
    if amount < 0.02:
        return
    texel = surface.size / GRID
    place, flat = scattered(rng, surface, 1.0, surface.beard * surface.bare * min(0.85, 0.5 + 0.3 * amount))
    own = np.exp(0.4 * rng.standard_normal(len(flat)))
    hair = dots(surface.size, place, own, 0.5 * texel)
    displacement += 0.018 * min(amount, 1.5) * hair
    albedo += 0.16 * min(amount, 1.8) * hair * DARK[:, None, None]


def _tones(surface, fields, factors, rng, pale, displacement, albedo) -> None:
    """Mottled pigment, redness, dark circles under the eyes."""
    texel = surface.size / GRID
    uneven = (0.015 + 0.017 * factors.grown(35, 70)) * factors.varied("mottling", 0.4)
    skin = surface.bare * (1 - surface.lips)
    cloud = smooth_noise(rng, surface.size, 3.0 * texel) + 0.9 * smooth_noise(rng, surface.size, 8.0 * texel)
    melanin = uneven * skin * cloud
    flush = factors["redness"]
    place = 0.55 * surface.nose + 0.5 * surface.cheeks + 0.25 * surface.chin
    veins = np.maximum(
        smooth_noise(rng, surface.size, 2.2 * texel) + 0.5 * smooth_noise(rng, surface.size, 1.0 * texel), -1
    )
    blood = skin * (0.10 * flush * place + (0.035 + 0.035 * max(flush, 0)) * (place + 0.25) * veins)
    blood += 0.03 * skin * smooth_noise(rng, surface.size, 5.0 * texel)
    ring = 0.07 * factors["dark_circles"] + 0.06 * factors.grown(40, 70)
    melanin += ring * surface.under_eye * (0.7 + 0.3 * (1 - pale))
    albedo += melanin * MELANIN[:, None, None] + blood * (pale * 0.8 + 0.2) * BLOOD[:, None, None]
    albedo += 0.02 * skin * rng.standard_normal(displacement.shape, dtype=np.float32)


def _freckles(surface, fields, factors, rng, pale, displacement, albedo) -> None:
    """Freckles cluster over nose and cheeks, at continuously varying strength."""
    amount = float(smoothstep((factors["freckles"] - 0.2) / 2.2)) * pale
    texel = surface.size / GRID
    place = np.clip(0.10 + 1.0 * surface.nose + 0.9 * surface.cheeks + 0.12 * surface.forehead, 0, 1)
    cloud = smoothstep((smooth_noise(rng, surface.size, 9 * texel) + 1.6 - 0.8 * place) / 2.2)
    share = place * cloud * surface.bare * (1 - surface.lips) * (1 - surface.eyelids)
    for spacing, sigma, chance in ((1.7, 0.65, 0.55), (2.6, 0.95, 0.40), (4.4, 1.4, 0.25)):
        spots, flat = scattered(rng, surface, spacing, share * chance * (0.05 * pale + amount))
        own = (0.05 + 0.20 * amount) * np.exp(0.6 * rng.standard_normal(len(flat)))
        albedo += dots(surface.size, spots, own, sigma * texel) * MELANIN[:, None, None]


def _blemishes(surface, fields, factors, rng, pale, displacement, albedo) -> None:
    """Moles, age spots and acne scars, placed one by one."""

    def put(where: np.ndarray, radius_mm: float, ragged: float, height_mm: float, colour: np.ndarray) -> None:
        rows, columns, soft = _spot(surface, rng, where, radius_mm, ragged)
        displacement[rows, columns] += np.float32(height_mm) * soft**1.5
        albedo[:, rows, columns] += soft * colour.astype(np.float32)[:, None, None]

    skin = surface.bare * (1 - surface.lips) * (1 - surface.eyelids)
    shown = 0.35 + 0.65 * pale
    for _ in range(rng.poisson(3.0 * factors.varied("moles", 0.7))):
        radius = 0.55 * np.exp(0.35 * rng.standard_normal())
        raised = 0.10 * max(0.0, rng.standard_normal() * radius)
        put(skin, radius, 0.25, raised, rng.uniform(0.35, 0.9) * shown * MELANIN)
    spots = 14 * factors.grown(52, 74, 8.0) * factors.varied("age_spots", 0.7) * (0.3 + 0.7 * pale)
    where = skin * np.clip(0.35 + 0.7 * surface.forehead + 0.7 * surface.cheeks, 0, 1)
    for _ in range(rng.poisson(min(spots, 60.0))):
        radius = 1.5 * np.exp(0.45 * rng.standard_normal())
        put(where, radius, 0.55, 0.0, rng.uniform(0.10, 0.32) * shown * MELANIN)
    scars = 45 * float(smoothstep((factors["acne_scars"] - 0.7) / 1.8))
    where = skin * np.clip(surface.cheeks + 0.35 * surface.chin + 0.2 * surface.forehead, 0, 1)
    for _ in range(rng.poisson(scars)):
        radius = 0.75 * np.exp(0.35 * rng.standard_normal())
        put(where, radius, 0.5, -0.14 * np.exp(0.4 * rng.standard_normal()), rng.uniform(0, 0.12) * pale * BLOOD)


def _spot(surface, rng, where: np.ndarray, radius_mm: float, ragged: float):
    """Rows, columns and mask 0..1 of a spot with an irregular border at a position drawn from a mask (S, S)."""
    size = surface.size
    total = np.cumsum(where.sum(1))
    row = int(np.searchsorted(total, rng.random() * total[-1]))
    along = np.cumsum(where[row])
    column = int(np.searchsorted(along, rng.random() * along[-1]))
    radius = radius_mm * surface.texels_per_mm[row, column]
    reach = int(2.2 * radius + 3)
    rows = slice(max(0, row - reach), min(size, row + reach + 1))
    columns = slice(max(0, column - reach), min(size, column + reach + 1))
    down, right = np.mgrid[rows, columns] - np.array([row, column])[:, None, None]
    turn = np.arctan2(down, right)
    edge = 1 + ragged * sum(np.sin(k * turn + rng.uniform(0, 7)) * rng.uniform(0.1, 0.5) / k for k in (1, 2, 3, 5))
    soft = smoothstep(1.15 - 0.5 * np.hypot(down, right) / (radius * np.maximum(edge, 0.4)))
    return rows, columns, (soft * (where[rows, columns] > 0)).astype(np.float32)
