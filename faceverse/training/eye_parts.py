"""Make the eyes of the file of parts: eyeballs with a neutral iris and corneas.

The eyeball is a sphere of the size of the head's own, into which the lids are fitted, with a shallow dish for the iris;
the cornea is a clear dome over it. Only the drawing of iris and sclera comes from the source's textures.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from ..graphics.lighting import LUMINANCE, linear_from_srgb, srgb_from_linear
from ..graphics.mesh import subdivide_smooth, subdivision, triangles_from_quads
from ..parts.binding import Binding, bind
from ..parts.eyes import INNER_IRIS, IRIS_UV, NEUTRAL_PUPIL, PAINTED_STYLE, eye_radii
from ..parts.part import Material, Part
from .eyes import EyeFitter
from .sources import HeadMesh

IRIS_DRAWING = "grey_eye.png"  # of the source's eyes: the one with the least colour of its own
TEXTURE_PX = 512
# Angle at the ball's centre between the gaze and the border of the iris: 11.7 mm on the balls of 27.9 mm that heads
# fitted to photographs have.
IRIS_DEG = 24.8
CORNEA_DEG, CORNEA_RISE = 27.0, 0.055  # where the dome ends, and its height over the ball in radii of the ball
_DISH_DEPTH = 0.03  # radii of the ball: of the iris at the pupil below its border
_CORNEA_LIFT = 0.004  # radii: the rim of the dome lies over the sclera

# Drawing of the source, pixels of 512: centre (column, row) and radius of the iris, share that the pupil takes, and
# the radii between which the sclera is drawn.
_CENTRE_PX, _IRIS_PX, _DRAWN_PUPIL, _SCLERA_PX = (149.8, 359.6), 57.5, 0.277, (65.0, 126.0)
_SCLERA_END_DEG = 115.0  # angle to the gaze at which the drawn sclera ends
_SCLERA = (0.375, 0.355, 0.345)  # linear RGB: dull white, never brighter than the skin in the light
_CORNER_DEG, _CORNER_GAIN = (35.0, 95.0), (0.80, 0.62, 0.60)  # redder and darker towards the corners of the lids
_BLUR_PX = 12.0  # of the source's drawing of the sclera: its own light and shade are coarser than that
_IRIS_GREY = 0.2  # linear

_SEGMENTS = 40
_IRIS_RINGS = (0.15, 0.32, 0.5, 0.68, 0.84, 1.0)  # radii of the iris
_BALL_RINGS_DEG = (26.0, 28.5, 32.0, 36.5, 42.0, 48.5, 56.0, 64.5, 74.0, 85.0, 98.0, 114.0, 134.0, 156.0, 180.0)
_CORNEA_RINGS = (0.12, 0.25, 0.38, 0.5, 0.62, 0.73, 0.83, 0.92, 1.0)  # of CORNEA_DEG
_EYE_ROUGHNESS, _CORNEA_ROUGHNESS = 0.3, 0.03
_CORNEA_RGBA = (10, 12, 14, 14)  # nearly clear; dark, because a viewer that shades it would make the pupil milky


def eye_parts(drawing: bytes, head: HeadMesh) -> list[Part]:
    """Eyeballs and corneas, both sides.

    Args:
        drawing: content of the source's texture `IRIS_DRAWING`.
        head: the base head.
    """
    surface = fitted_surface(head)
    eye = Material(neutral_texture(drawing), _EYE_ROUGHNESS, "OPAQUE")
    clear = Material(np.full((4, 4, 4), _CORNEA_RGBA, np.uint8), _CORNEA_ROUGHNESS, "BLEND")
    parts = []
    for slot, style, mesh, material in (("eye", PAINTED_STYLE, _ball(), eye), ("cornea", "base", _cornea(), clear)):
        for side in ("left", "right"):
            points, faces, uv = mesh
            if side == "right":
                uv = uv * (-1, 1) + (1, 0)  # the eyes mirror each other, and so do their vessels
            binding = _bound(points, surface, head, f"eyeball_{side}")
            parts.append(Part(f"{slot}_{side}/{style}", binding, faces, np.float32(uv), faces, material))
    return parts


def fitted_surface(head: HeadMesh) -> np.ndarray:
    """(Vc, 3) vertices of the base head on its smooth surface, with round eyeballs fitted into the lids."""
    fitted = EyeFitter(head).fit(head.vertices)
    return subdivide_smooth(fitted, subdivision(head.quads, len(fitted)))[: len(fitted)]


# -- meshes -----------------------------------------------------------------------------------------------------------
def _ball() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eyeball of radius 1 that looks along +z: vertices (P, 3), triangles (F, 3), texture coordinates (P, 2)."""
    rim, front = np.sin(np.radians(IRIS_DEG)), np.cos(np.radians(IRIS_DEG))
    share = np.array((0.0, *_IRIS_RINGS))
    degrees = np.array(_BALL_RINGS_DEG)
    across = np.concatenate([share * rim, np.sin(np.radians(degrees))])
    along = np.concatenate([front - _DISH_DEPTH * (1 - share**2), np.cos(np.radians(degrees))])
    return _revolved(across, along, np.concatenate([share * IRIS_UV, _sclera_uv(degrees)]))


def _cornea() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dome over the iris of a ball of radius 1: vertices, triangles, texture coordinates as those of `_ball`."""
    share = np.array((0.0, *_CORNEA_RINGS))
    angle = np.radians(share * CORNEA_DEG)
    distance = 1 + _CORNEA_LIFT + (CORNEA_RISE - _CORNEA_LIFT) * (1 - share**2) ** 2
    return _revolved(distance * np.sin(angle), distance * np.cos(angle), 0.5 * share)


def _revolved(across: np.ndarray, along: np.ndarray, uv_radius: np.ndarray):
    """Surface of revolution about +z from a pole outwards, K profile points: the first is the pole."""
    around = np.arange(_SEGMENTS) * (2 * np.pi / _SEGMENTS)
    unit = np.stack([np.cos(around), np.sin(around)], axis=-1)
    rings = across[1:, None, None] * unit
    height = np.broadcast_to(along[1:, None, None], (len(rings), _SEGMENTS, 1))
    points = np.concatenate([[[0, 0, along[0]]], np.concatenate([rings, height], axis=-1).reshape(-1, 3)])
    flat = np.concatenate([[[0, 0]], (uv_radius[1:, None, None] * unit).reshape(-1, 2)])
    index = 1 + np.arange(len(rings) * _SEGMENTS).reshape(len(rings), _SEGMENTS)
    after = np.roll(index, -1, axis=1)
    fan = np.stack([np.zeros(_SEGMENTS, np.int64), index[0], after[0]], axis=1)
    quads = np.stack([index[:-1], index[1:], after[1:], after[:-1]], axis=-1).reshape(-1, 4)
    faces = np.concatenate([fan, triangles_from_quads(quads)])
    return points, faces, 0.5 + flat * (1, -1)


def _sclera_uv(degrees: np.ndarray) -> np.ndarray:
    """Radius in the texture, of its side, at an angle to the gaze: finer in front, where the eye is seen."""
    share = np.clip((degrees - IRIS_DEG) / (180 - IRIS_DEG), 0, 1)
    return IRIS_UV + (0.495 - IRIS_UV) * share**0.7


def _bound(points: np.ndarray, surface: np.ndarray, head: HeadMesh, part: str) -> Binding:
    """Bind points in radii of a ball about its centre to all vertices of that ball, so that parts of one ball move
    alike."""
    triangles = triangles_from_quads(head.quads)
    anchors = triangles[(head.part[triangles] == part).all(axis=1)]
    middle, radius = _sphere(surface, head, part)
    chosen = anchors[np.arange(len(points)) % len(anchors)]
    weights = np.full((len(points), 3), 1 / 3)
    return bind(middle + radius * points, surface, chosen, weights, "rigid")


def _sphere(surface: np.ndarray, head: HeadMesh, part: str) -> tuple[np.ndarray, float]:
    """Centre (3,) and radius of an eyeball, metres."""
    ball = surface[head.part == part]
    middle = ball.mean(axis=0)
    return middle, float(np.linalg.norm(ball - middle, axis=1).mean())


# -- texture ----------------------------------------------------------------------------------------------------------
def neutral_texture(drawing: bytes) -> np.ndarray:
    """Texture (S, S, 4) uint8 of an eye with a grey iris, in the layout of `faceverse.parts.eyes`."""
    image = np.asarray(Image.open(io.BytesIO(drawing)).convert("RGB"))
    source = linear_from_srgb(torch.from_numpy(image / 255.0)).numpy()
    radius = eye_radii(TEXTURE_PX)
    y, x = np.mgrid[:TEXTURE_PX, :TEXTURE_PX] + (0.5 - TEXTURE_PX / 2)
    unit = np.stack([y, x]) / np.hypot(x, y)
    inside = (np.clip(radius, NEUTRAL_PUPIL, INNER_IRIS) - NEUTRAL_PUPIL) / (1 - NEUTRAL_PUPIL)
    drawn = _drawn(source @ np.array(LUMINANCE), unit, _IRIS_PX * (_DRAWN_PUPIL + inside * (1 - _DRAWN_PUPIL)))
    iris = np.repeat(_IRIS_GREY * (drawn / np.median(drawn[radius < 1]))[..., None], 3, axis=-1)
    iris[radius < NEUTRAL_PUPIL] = 0
    linear = np.where(radius[..., None] < 1, iris, _sclera(source, radius, unit))
    pixels = (srgb_from_linear(torch.from_numpy(linear.clip(0, 1))) * 255 + 0.5).to(torch.uint8).numpy()
    return np.concatenate([pixels, np.full((TEXTURE_PX, TEXTURE_PX, 1), 255, np.uint8)], axis=-1)


def _sclera(source: np.ndarray, radius: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Linear RGB (S, S, 3) of the sclera: the drawing's vessels on a smooth white."""
    share = np.clip((radius * IRIS_UV - IRIS_UV) / (0.495 - IRIS_UV), 0, 1) ** (1 / 0.7)
    degrees = IRIS_DEG + share * (180 - IRIS_DEG)
    first, last = _SCLERA_PX
    at_px = first + (last - first) * np.clip((degrees - IRIS_DEG) / (_SCLERA_END_DEG - IRIS_DEG), 0, 1)
    smooth = np.stack([gaussian_filter(source[..., c], _BLUR_PX) for c in range(3)], axis=-1)
    vessels = np.stack([_drawn((source / smooth)[..., c], unit, at_px) for c in range(3)], axis=-1)
    corner = np.clip((degrees - _CORNER_DEG[0]) / (_CORNER_DEG[1] - _CORNER_DEG[0]), 0, 1)[..., None]
    return np.array(_SCLERA) * np.array(_CORNER_GAIN) ** corner * vessels


def _drawn(plane: np.ndarray, unit: np.ndarray, radius_px: np.ndarray) -> np.ndarray:
    """Sample a plane (512, 512) of the source at radii (S, S) in directions (2, S, S) from the drawn pupil."""
    column, row = _CENTRE_PX
    places = unit * radius_px + np.array([row - 0.5, column - 0.5])[:, None, None]
    return map_coordinates(plane, places, order=3, mode="nearest")
