"""Make the eyes of the file of parts: eyeballs with a neutral iris, corneas, and the wet line along the lids.

The eyeball is a sphere of the size of the head's own, into which the lids are fitted, with a shallow dish for the iris;
the cornea is a clear shell over its front that rises over the iris. The wet line fills the groove between ball and
lids and is the caruncle in the inner corner; it is bound to the lids and slides over the ball with them. Only the
drawing of iris and sclera comes from the source's textures.
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
from ..parts.eyes import INNER_IRIS, NEUTRAL_PUPIL, PAINTED_STYLE, eye_radii
from ..parts.part import IRIS_UV, Material, Part
from .edge_loops import LoopGrid, eye_grids
from .eyes import EyeFitter
from .sources import HeadMesh

IRIS_DRAWING = "grey_eye.png"  # of the source's eyes: the one with the least colour of its own
TEXTURE_PX = 512
# Angle at the ball's centre between the gaze and the border of the iris: 11.7 mm on the balls of 27.9 mm that heads
# fitted to photographs have.
IRIS_DEG = 24.8
CORNEA_DEG, CORNEA_RISE = 27.0, 0.055  # where the dome over the iris ends, and its height over the ball, in radii of it
_DISH_DEPTH = 0.03  # radii of the ball: of the iris at the pupil below its border
_SHELL_LIFT = 0.004  # radii: of the film of tears that continues the dome over the front of the ball

# Drawing of the source, pixels of 512: centre (column, row) and radius of the iris, share that the pupil takes, and
# the radii between which the sclera is drawn.
_CENTRE_PX, _IRIS_PX, _DRAWN_PUPIL, _SCLERA_PX = (149.8, 359.6), 57.5, 0.277, (65.0, 126.0)
_SCLERA_END_DEG = 115.0  # angle to the gaze at which the drawn sclera ends
_SCLERA = (0.33, 0.31, 0.30)  # linear RGB: dull white, never brighter than the skin in the light
_CORNER_DEG, _CORNER_GAIN = (35.0, 95.0), (0.80, 0.62, 0.60)  # redder and darker towards the corners of the lids
_BLUR_PX = 12.0  # of the source's drawing of the sclera: its own light and shade are coarser than that
_IRIS_GREY = 0.2  # linear

_SEGMENTS = 40
_IRIS_RINGS = (0.15, 0.32, 0.5, 0.68, 0.84, 1.0)  # radii of the iris
_BALL_RINGS_DEG = (26.0, 28.5, 32.0, 36.5, 42.0, 48.5, 56.0, 64.5, 74.0, 85.0, 98.0, 114.0, 134.0, 156.0, 180.0)
_CORNEA_RINGS = (0.12, 0.25, 0.38, 0.5, 0.62, 0.73, 0.83, 0.92, 1.0, 1.2, 1.45, 1.75, 2.1, 2.5, 3.0)  # of CORNEA_DEG
_EYE_ROUGHNESS, _CORNEA_ROUGHNESS = 0.4, 0.03  # what glistens is the shell
_CORNEA_RGBA = (10, 12, 14, 14)  # nearly clear; dark, because a viewer that shades it would make the pupil milky

# The wet line, from the lid (0) to the ball (1) and around the eye: 0 inner corner, 0.5 outer corner, lower lid first.
_ACROSS = (0.0, 0.25, 0.5, 0.75, 1.0)
_LID_RING, _FRAME_RING = 1, 3  # rings outwards from the lids' inner edge: where it begins, and to which it is bound
_CARUNCLE = 0.07  # share of the way around on either side of the inner corner
_HOLLOW_M, _CARUNCLE_RISE_M, _CARUNCLE_REACH_M = -0.00012, 0.0005, 0.0011  # of the middle, and over the ball
_TEAR_TEXTURE_PX = (16, 128)
_TEAR_RGB = {"caruncle": (172, 104, 94), "wet": (196, 152, 140), "outer": (172, 118, 106)}
_TEAR_ALPHA = {"caruncle": 0.85, "lower": 0.28, "outer": 0.45, "upper": 0.1}
_TEAR_ROUGHNESS = 0.08


def eye_parts(drawing: bytes, head: HeadMesh) -> list[Part]:
    """Eyeballs, corneas and wet lines, both sides.

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
    return [*parts, _tear_line(surface, head)]


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
    """Shell over the front of a ball of radius 1: vertices, triangles, texture coordinates as those of `_ball`."""
    share = np.array((0.0, *_CORNEA_RINGS))
    angle = np.radians(share * CORNEA_DEG)
    distance = 1 + _SHELL_LIFT + (CORNEA_RISE - _SHELL_LIFT) * np.clip(1 - share**2, 0, 1) ** 2
    return _revolved(distance * np.sin(angle), distance * np.cos(angle), 0.5 * share / share[-1])


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


# -- wet line ---------------------------------------------------------------------------------------------------------
def _tear_line(surface: np.ndarray, head: HeadMesh) -> Part:
    """The wet line of both eyes."""
    points: list[np.ndarray] = []
    uv: list[np.ndarray] = []
    triangles, faces, uv_faces = [], [], []
    for side, grid in eye_grids(head).items():
        rings, around = _around_the_eye(grid, surface, 1.0 if side == "left" else -1.0)
        rows = _strip(rings, surface, _sphere(surface, head, f"eyeball_{side}"), grid.line, around[:-1])
        anchors = np.stack([_anchors(rings, grid.line, share) for share in _ACROSS], axis=1)
        count, spokes = len(_ACROSS), rings.shape[1]
        first, last = np.arange(spokes), (np.arange(spokes) + 1) % spokes
        quads, uv_quads = (
            np.stack([a * count + k, b * count + k, b * count + k + 1, a * count + k + 1], axis=-1)
            for k in [np.arange(count - 1)[:, None]]
            for a, b in ((first, last), (first, first + 1))
        )
        order = [0, 1, 2, 3] if side == "left" else [3, 2, 1, 0]
        at, uv_at = sum(len(some) for some in points), sum(len(some) for some in uv)
        faces.append(at + triangles_from_quads(quads.reshape(-1, 4)[:, order]))
        uv_faces.append(uv_at + triangles_from_quads(uv_quads.reshape(-1, 4)[:, order]))
        points.append(rows.reshape(-1, 3))
        triangles.append(anchors.reshape(-1, 3))
        uv.append(np.stack(np.meshgrid(around, _ACROSS, indexing="ij"), axis=-1).reshape(-1, 2))
    place = np.concatenate(points)
    weights = np.broadcast_to((0.6, 0.0, 0.4), place.shape)
    binding = bind(place, surface, np.concatenate(triangles), weights, "surface")
    material = Material(_tear_texture(), _TEAR_ROUGHNESS, "BLEND")
    flat = np.concatenate(uv).astype(np.float32)
    return Part("tear_line/base", binding, np.concatenate(faces), flat, np.concatenate(uv_faces), material)


def _anchors(rings: np.ndarray, line: int, share: float) -> np.ndarray:
    """(S, 3) vertices of the lids to which points of the wet line are bound: near the lid to its front, near the ball
    to its inner edge, which lies on the ball of every head."""
    near, far = (line + _LID_RING, line + _FRAME_RING) if share < 0.5 else (line, line + _LID_RING)
    return np.stack([rings[near], np.roll(rings[near], -1), rings[far]], axis=-1)


def _around_the_eye(grid: LoopGrid, surface: np.ndarray, outward: float) -> tuple[np.ndarray, np.ndarray]:
    """Rings (K, S) of an eye from the inner corner over the lower lid to the outer corner and back over the upper, and
    the way around (S + 1,), 0.5 at the outer corner.

    Args:
        outward: 1 for the left eye, -1 for the right.
    """
    rim = surface[grid.rings[grid.line + _LID_RING]]
    rings = np.roll(grid.rings, -int((outward * rim[:, 0]).argmin()), axis=1)
    rim = surface[rings[grid.line + _LID_RING]]
    outer = int((outward * rim[:, 0]).argmax())
    if rim[1:outer, 1].mean() > rim[outer + 1 :, 1].mean():
        rings = np.roll(rings[:, ::-1], 1, axis=1)
        rim, outer = surface[rings[grid.line + _LID_RING]], rim.shape[0] - outer
    steps = np.linalg.norm(np.roll(rim, -1, axis=0) - rim, axis=1)
    way = np.concatenate([[0], np.cumsum(steps)])
    return rings, np.interp(way, way[[0, outer, -1]], (0, 0.5, 1))


def _strip(
    rings: np.ndarray, surface: np.ndarray, ball: tuple[np.ndarray, float], line: int, around: np.ndarray
) -> np.ndarray:
    """Points (S, 5, 3) of the wet line from lid to ball.

    Args:
        rings: (K, S) around the eye, see `_around_the_eye`.
        ball: centre (3,) and radius.
        line: index of the ring of the lids' inner edge.
        around: (S,) way around the eye.
    """
    middle, radius = ball
    lid = 0.85 * surface[rings[line + _LID_RING]] + 0.15 * surface[rings[line]] - middle
    caruncle = _near(around, 0.0)[:, None]
    towards = lid.mean(axis=0) - lid
    towards -= lid * ((towards * lid).sum(1) / (lid * lid).sum(1))[:, None]
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    inside = lid + _CARUNCLE_REACH_M * caruncle * towards
    end = inside * (radius * (1 + _SHELL_LIFT) / np.linalg.norm(inside, axis=1, keepdims=True))
    rise = _HOLLOW_M + (_CARUNCLE_RISE_M - _HOLLOW_M) * caruncle
    outwards = (lid + end) / np.linalg.norm(lid + end, axis=1, keepdims=True)
    share = np.array(_ACROSS)[None, :, None]
    arc = 4 * share * (1 - share)
    return middle + lid[:, None] + share * (end - lid)[:, None] + arc * (rise * outwards)[:, None]


def _tear_texture() -> np.ndarray:
    """Texture (H, W, 4) uint8: u around the eye, v from the lid to the ball."""
    height, width = _TEAR_TEXTURE_PX
    around, across = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    caruncle, outer = _near(around, 0.0), 0.7 * _near(around, 0.5)
    is_lower = np.clip((0.5 - np.abs(around - 0.25) * 2) * 8, 0, 1)
    colour = np.zeros((width, 3)) + _TEAR_RGB["wet"]
    alpha = _TEAR_ALPHA["upper"] + (_TEAR_ALPHA["lower"] - _TEAR_ALPHA["upper"]) * is_lower
    for name, share in (("outer", outer), ("caruncle", caruncle)):
        colour += share[:, None] * (np.array(_TEAR_RGB[name]) - colour)
        alpha += share * (_TEAR_ALPHA[name] - alpha)
    fade = np.clip(across / 0.15, 0, 1) * np.clip((1 - across) / 0.4, 0, 1)
    pixels = np.empty((height, width, 4))
    pixels[..., :3] = colour
    pixels[..., 3] = 255 * fade[:, None] * alpha
    return (pixels + 0.5).astype(np.uint8)


def _near(around: np.ndarray, corner: float) -> np.ndarray:
    """1 at a corner of the eye, 0 from _CARUNCLE away."""
    away = np.abs((around - corner + 0.5) % 1 - 0.5) / _CARUNCLE
    return np.clip(1 - away, 0, 1) ** 2 * (1 + 2 * np.clip(away, 0, 1))


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
