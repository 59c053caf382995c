"""Coordinate systems of the facial crease families (forehead, crow's feet, nasolabial, ...) on a UV map of skin.

Each family has its own coordinates: `s` along the lines and `t` across them, in millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .skin_fields import smoothstep
from .skin_surface import MIDLINE, SkinSurface


@dataclass(frozen=True)
class CreaseFamily:
    """Texels on which the lines of one family may lie.

    Args:
        at: (N,) flat indices into the map.
        s, t: (N,) float32 millimetres along and across the lines.
        inside: (N,) 0..1, weight of displacement at the texel.
        least_mm: (N,) narrowest line that the texels resolve.
    """

    at: np.ndarray
    s: np.ndarray
    t: np.ndarray
    inside: np.ndarray
    least_mm: np.ndarray

    @classmethod
    def of(cls, surface: SkinSurface, where: np.ndarray, s: np.ndarray, t: np.ndarray, half: int = 0) -> CreaseFamily:
        """Select texels; `half`: -1 or 1 restricts them to the subject's right or left half."""
        where = where & (surface.inside > 0)
        if half:
            where = where & ((surface.x - MIDLINE) * half > 0)
        at = np.flatnonzero(where)

        def kept(values: np.ndarray) -> np.ndarray:
            return np.broadcast_to(values, where.shape).reshape(-1)[at].astype(np.float32)

        return cls(at, kept(s), kept(t), kept(surface.inside), 0.55 / kept(surface.texels_per_mm))


@dataclass(frozen=True)
class CreaseFields:
    """All families of a surface by name; paired ones end in _right and _left."""

    size: int
    families: dict[str, CreaseFamily]

    @classmethod
    def of(cls, surface: SkinSurface) -> CreaseFields:
        families = {**_middle_families(surface)}
        for half, name in ((-1, "right"), (1, "left")):
            families |= {f"{key}_{name}": family for key, family in _side_families(surface, half).items()}
        return cls(surface.size, families)


def _middle_families(surface: SkinSurface) -> dict[str, CreaseFamily]:
    x, y, side, places = surface.x - np.float32(MIDLINE), surface.y, surface.side, surface.places
    mm = float(np.median(surface.mm[(surface.forehead > 0.5) & (surface.bare > 0.5)]))
    brow = places[107][1] - 3
    # Forehead lines dip in the middle and fall off to the temples.
    arch = -3.5 * sum(np.exp(-0.5 * ((x + at) / 24) ** 2) for at in (-38, 38)) + 12 * smoothstep((side - 50) / 65)
    families = {
        "forehead": CreaseFamily.of(
            surface, (side < 110) & (y < brow + 14) & (surface.bare > 0.02), x * mm, (brow + arch - y) * mm
        ),
        "frown": CreaseFamily.of(
            surface, (side < 45) & (y > brow - 50) & (y < places[168][1] + 12), (brow + 8 - y) * mm, x * mm
        ),
        "root": CreaseFamily.of(
            surface,
            (side < 26) & (np.abs(y - places[168][1]) < 22),
            x * mm,
            (places[168][1] - y + 0.006 * side**2) * mm,
        ),
    }
    sulcus = places[18][1] + 1 + 0.006 * side**2
    mm = float(surface.mm[int(places[199][1] * surface.size / 512), surface.size // 2])
    families["chin"] = CreaseFamily.of(surface, (side < 60) & (np.abs(y - sulcus) < 26), x * mm, (sulcus - y) * mm)
    lip = np.array([places[i] for i in (0, 37, 39, 40, 185, 61)])
    upper = np.interp(side, lip[:, 0], lip[:, 1])
    lip = np.array([places[i] for i in (17, 84, 181, 91, 146, 61)])
    lower = np.interp(side, lip[:, 0], lip[:, 1])
    above = (upper - y) * mm
    families["above_lip"] = CreaseFamily.of(
        surface, (above > -3) & (above < 14) & (side < 62), above, x * mm * (1 + 0.008 * np.maximum(above, 0))
    )
    below = (y - lower) * mm
    families["below_lip"] = CreaseFamily.of(
        surface, (below > -3) & (below < 10) & (side < 55), below, x * mm * (1 + 0.006 * np.maximum(below, 0))
    )
    middle = (places[13][1] + places[14][1]) / 2
    spread = 1 + 0.10 * np.abs(y - middle) / 25
    families["lips"] = CreaseFamily.of(surface, surface.lips > 0.02, (y - middle) * mm, x * mm / spread)
    height, across = surface.position_mm[1], surface.position_mm[0]
    row = np.flatnonzero(surface.neck[:, surface.size // 2] > 0.5)[0]
    below = height - height[row, surface.size // 2]
    throat = (surface.neck > 0.05) & (surface.position_mm[2] > -50) & (below < 4)
    neck = CreaseFamily.of(surface, throat, across, below + 0.003 * across**2)
    weight = surface.neck * smoothstep((surface.position_mm[2] + 50) / 25) * smoothstep((4 - below) / 6)
    families["neck"] = replace(neck, inside=neck.inside * weight.reshape(-1)[neck.at].astype(np.float32))
    return families


def _side_families(surface: SkinSurface, half: int) -> dict[str, CreaseFamily]:
    side, y, places = surface.side, surface.y, surface.places
    families = {}
    # Crow's feet: rays from a point inside the outer corner; t is an angle, converted to millimetres when drawn.
    corner = places[33]
    mm = 0.55
    dx, dy = (side - corner[0] + 14) * mm, (y - corner[1]) * mm
    radius, angle = np.hypot(dx, dy), np.arctan2(-dy, dx)
    families["crow"] = CreaseFamily.of(
        surface, (radius < 46) & (np.abs(angle) < 1.3) & (side > corner[0] - 6), radius, angle, half
    )
    rim = np.array([places[i] for i in (133, 155, 154, 153, 145, 144, 163, 7, 33)])
    order = np.argsort(rim[:, 0])
    rim = rim[order]
    lid = _smooth_line(side, rim, corner)
    below = (y - lid) * mm
    along = (side - rim[0, 0]) * mm
    families["under_eye"] = CreaseFamily.of(
        surface, (below > 0.2) & (below < 26) & (along > -10) & (along < 38), along, below, half
    )
    top = places[159]
    up = (top[1] - 1.5 - y + 0.009 * (side - top[0]) ** 2) * mm
    families["upper_lid"] = CreaseFamily.of(
        surface, (up > -1) & (up < 9) & (side > rim[0, 0] - 4) & (side < corner[0] + 6), along, up, half
    )
    wrinkle = [places[129] - (1, 13), places[129] + (2, -3), places[203], places[206], places[216], places[212]]
    end = places[212] * (1, 1) + (2, 22)
    families["nasolabial"] = _curve_family(surface, np.array([*wrinkle, end]), 30, half)
    line = [places[61] + (2, -1), places[61] + (6, 8), (places[204] + places[211]) / 2 - (2, 3), places[211] + (2, 14)]
    families["marionette"] = _curve_family(surface, np.array(line), 12, half)
    start = places[168] + (10, 6)
    dx, dy = (side - start[0]) * mm, (y - start[1]) * mm
    slope = 0.62
    families["bunny"] = CreaseFamily.of(
        surface,
        (np.abs(dx - 2) < 12) & (dy > -6) & (dy < 20),
        (dx + slope * dy) * 0.85,
        (slope * dx - dy) * 0.85,
        half,
    )
    return families


def _smooth_line(side: np.ndarray, points: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """y of a lower eyelid; its parabola is extended linearly past both corners."""
    degree = np.polynomial.Polynomial.fit(points[:, 0], points[:, 1], 2)
    ends = points[0, 0] - 2, corner[0] + 2
    return degree(np.clip(side, *ends)) + 0.12 * np.maximum(side - ends[1], 0) + 0.5 * np.maximum(ends[0] - side, 0)


def _curve_family(surface: SkinSurface, points: np.ndarray, reach_mm: float, half: int) -> CreaseFamily:
    """Coordinates along and across a curve through points (P, 2); t is positive on the lateral side."""
    knots = np.linspace(0, 1, len(points))
    share = np.linspace(0, 1, 60)
    curve = np.stack([_spline(knots, points[:, k], share) for k in (0, 1)], axis=1)
    step = np.diff(curve, axis=0)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(step, axis=1))])
    tangent = np.gradient(curve, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    low, high = curve.min(0) - reach_mm / 0.5, curve.max(0) + reach_mm / 0.5
    side, y = surface.side, surface.y
    box = (side > low[0]) & (side < high[0]) & (y > low[1]) & (y < high[1]) & ((surface.x - MIDLINE) * half > 0)
    at = np.flatnonzero(box)
    place = np.stack([side.reshape(-1)[at], y.reshape(-1)[at]], axis=1)
    nearest = ((place[:, None] - curve[None]) ** 2).sum(-1).argmin(1)
    offset = place - curve[nearest]
    along = length[nearest] + (offset * tangent[nearest]).sum(1)
    across = offset[:, 0] * tangent[nearest, 1] - offset[:, 1] * tangent[nearest, 0]
    s, t = np.zeros(box.size, np.float32), np.full(box.size, 99, np.float32)
    s[at], t[at] = along * 0.56, across * 0.56
    s, t = s.reshape(box.shape), t.reshape(box.shape)
    return CreaseFamily.of(surface, box & (np.abs(t) < reach_mm) & (s > -12) & (s < length[-1] * 0.56 + 12), s, t, half)


def _spline(knots: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.polynomial.Polynomial.fit(knots, values, min(4, len(knots) - 1))(at)
