"""Make the file of beards: cards with hairs, grown from the skin of the open model's mean head.

Roots are scattered evenly over the skin where beards grow. Direction, length and angle to the skin of the hairs are
interpolated between places of the face (`GROWTH`): down the cheeks, sideways in the moustache, forward under the chin.
Every card of the coat is bound to the triangle at its root, so that jaw and lips take it along without bending it; the
cards of the undercoat are bound to the skin on which they lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from ..errors import WeightsError
from ..model.face_model import FaceModel
from ..parts.beard_layout import CARD_VERTICES, ROWS, TILES, card_faces, card_uv
from ..parts.beard_styles import above_mouth, mirrored_mm
from ..parts.binding import bind
from ..parts.brows import grey_texture
from ..parts.file import write_parts
from ..parts.part import Material, Part, PartLibrary
from .beard_texture import paint_beard
from .parts import LICENCE
from .skin_fields import skin_fields, smoothstep
from .surface_fit import closest_points, mesh_normals

GROWTH = (  # place in mm on the mean head, left half; direction; length of a full beard in mm; elevation in degrees
    ((66, -12, 34), (0.0, -1.0, 0.10), 8, 22),  # sideburn
    ((64, -40, 33), (0.0, -1.0, 0.12), 10, 22),
    ((52, -50, 55), (-0.1, -1.0, 0.0), 9, 24),  # cheek
    ((55, -78, 37), (0.05, -1.0, 0.0), 16, 30),  # angle of the jaw
    ((38, -72, 68), (0.1, -1.0, 0.0), 12, 26),  # beside the mouth
    ((30, -62, 76), (0.35, -1.0, 0.0), 13, 24),
    ((40, -95, 55), (0.0, -1.0, 0.05), 20, 36),  # jaw
    ((22, -98, 73), (0.05, -1.0, 0.1), 24, 38),
    ((0, -100, 83), (0.0, -1.0, 0.25), 27, 42),  # chin
    ((0, -110, 72), (0.0, -1.0, 0.5), 27, 45),
    ((14, -84, 82), (0.2, -1.0, 0.0), 11, 26),
    ((0, -86, 82), (0.0, -1.0, 0.0), 11, 28),  # below the lip
    ((2, -53, 94), (0.8, -0.8, 0.0), 9, 24),  # moustache
    ((10, -53, 91), (1.0, -0.6, -0.1), 13, 24),
    ((20, -56, 86), (0.8, -0.8, -0.2), 16, 24),
    ((27, -68, 79), (0.25, -1.0, 0.0), 15, 24),
    ((0, -114, 50), (0.0, -0.7, 0.7), 20, 40),  # throat
    ((28, -106, 45), (0.0, -0.8, 0.5), 18, 38),
    ((45, -98, 25), (0.0, -1.0, 0.3), 13, 30),
)  # fmt: skip
_REACH_M = 0.011  # standard deviation of a place's weight
_COAT_M, _MOUSTACHE_M, _UNDERCOAT_M = 0.0021, 0.0020, 0.0036  # distance between roots
_COAT_WIDTH_M, _UNDERCOAT_SIZE_M = (0.0030, 0.0046), (0.0095, 0.0085)
_EDGE_M = 0.011  # over which hairs get rare and short towards the border of the beard
_RAGGED_M = 0.0018
_SUNK_M = 0.0009  # of roots below the skin
_LIP_MARGIN_M = 0.0020  # by which hairs may reach over the border of the lips
_NEAR_M = 0.05
_ROUGHNESS = 0.8
_SEED = 1


@dataclass(frozen=True)
class BeardSkin:
    """The mean head, on which beards are grown.

    Attributes:
        vertices, normals: (V, 3) metres.
        faces: (F, 3) of the skin.
        coarse: (T, 3) of the coarse mesh, to which cards are bound.
        beard: (V,) metres, positive where hair grows.
        lips: (V,) metres from the border of the lips, positive on the lips.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    coarse: np.ndarray
    beard: np.ndarray
    lips: np.ndarray


@dataclass(frozen=True)
class Roots:
    """C places on the skin from which cards grow.

    Attributes:
        points, normals, directions: (C, 3); directions are tangents of the skin.
        length: (C,) metres, of a full beard.
        elevation: (C,) radians.
        edge: (C,) 0 at the border of the beard .. 1.
    """

    points: np.ndarray
    normals: np.ndarray
    directions: np.ndarray
    length: np.ndarray
    elevation: np.ndarray
    edge: np.ndarray


def train_beard(output: Path, model: FaceModel, report: Callable[[str], None] = lambda line: None) -> Path:
    """Grow beards on the open model's mean head and write the file of beards.

    Args:
        output: new `.safetensors` file.
        model: the open model.
        report: called with a line for each kind of cards.

    Raises:
        WeightsError: the model has no coarse mesh, or the file cannot be written.
    """
    if model.data.coarse_faces is None or model.data.landmarks_478 is None:
        raise WeightsError("parts.other_mesh", name=model.data.name)
    rng = np.random.default_rng(_SEED)
    skin = beard_skin(model)
    under = scattered_roots(skin, _UNDERCOAT_M, rng)
    under_points = undercoat(skin, under, rng)
    report(f"undercoat: {len(under_points)} cards")
    roots = joined(scattered_roots(skin, _COAT_M, rng), scattered_roots(skin, _MOUSTACHE_M, rng, above_mouth))
    coat_points = coat(skin, roots, rng)
    report(f"coat: {len(coat_points)} cards")
    points = np.concatenate([under_points, coat_points])
    is_under = np.arange(len(points)) < len(under_points)
    tile = np.concatenate([_tiles(under, rng), _tiles(roots, rng)])
    # Cards of the coat turn with the skin at their roots; those of the undercoat lie on the skin everywhere.
    at_root = np.repeat(points[:, :1].mean(axis=2, keepdims=True), ROWS, axis=1).repeat(2, axis=2)
    places = np.where(is_under[:, None, None, None], points, at_root).reshape(-1, 3)
    found = closest_points(places, skin.vertices, skin.coarse)
    flat = points.reshape(-1, 3)
    binding = bind(flat, skin.vertices, skin.coarse[found.triangle], found.barycentric, "surface")
    faces, uv = card_faces(len(points)), card_uv(tile, is_under)
    material = Material(grey_texture(paint_beard(_SEED)), _ROUGHNESS, "BLEND")
    part = Part("beard/full", binding, faces, uv, faces, material)
    info = {"beard_licence": LICENCE, "beard_seed": _SEED, "beard_cards": [int(is_under.sum()), int((~is_under).sum())]}
    return write_parts(PartLibrary({part.name: part}, model.topology, info), output)


def beard_skin(model: FaceModel) -> BeardSkin:
    """Find where beards grow on the mean head of the open model."""
    vertices = model.mean_vertices.astype(np.float64)
    flags = {name: np.zeros(len(vertices), bool) for name in model.regions}
    for name, indices in model.regions.items():
        flags[name][indices] = True
    nothing = np.zeros(len(vertices))
    found = skin_fields(vertices, flags, nothing, nothing, nothing)
    is_skin = (found.skin > 0) & ~flags["ears"]
    on_lips = flags["lips"] | flags["mouth_inside"]
    outside, inside = cKDTree(vertices[is_skin & ~on_lips]), cKDTree(vertices[on_lips])
    lips = np.where(on_lips, outside.query(vertices)[0], -inside.query(vertices)[0])
    beard = np.where(is_skin, np.minimum(found.beard, -lips - 0.0006), -0.1)
    assert model.data.coarse_vertices is not None and model.data.coarse_faces is not None
    coarse = model.data.coarse_vertices[model.data.coarse_faces]
    is_skin &= cKDTree(vertices[beard > 0]).query(vertices)[0] < _NEAR_M  # the rest of the head is out of reach
    return BeardSkin(
        vertices, mesh_normals(vertices, model.faces), model.faces[is_skin[model.faces].all(axis=1)],
        coarse[is_skin[coarse].all(axis=1)], beard, lips,
    )  # fmt: skip


def scattered_roots(
    skin: BeardSkin, apart_m: float, rng: np.random.Generator, where: Callable[[np.ndarray], np.ndarray] | None = None
) -> Roots:
    """Scatter roots over the skin where beards grow, at least this far apart, the lowest first.

    Args:
        apart_m: metres.
        rng: of places, lengths and directions.
        where: share of roots (C,) to keep at places (C, 3) in mm, x >= 0; None: everywhere.
    """
    faces = skin.faces[(skin.beard[skin.faces] > 0).any(axis=1)]
    corners = skin.vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    count = int(12 * area.sum() / apart_m**2)
    triangle = rng.choice(len(faces), count, p=area / area.sum())
    weights = rng.dirichlet((1, 1, 1), count)

    def at(values: np.ndarray) -> np.ndarray:
        return np.einsum("pk,pk...->p...", weights, values[faces[triangle]])

    points = at(skin.vertices)
    inside = at(skin.beard) + rng.normal(0, _RAGGED_M, count)
    near_nose = np.exp(-0.5 * np.square(points[:, 0] / 0.02)) * smoothstep((points[:, 1] + 0.075) / 0.01)
    edge = smoothstep(inside / (_EDGE_M - 0.007 * near_nose))
    near_lips = smoothstep((-at(skin.lips) - 0.0005) / 0.004)  # the border at the lips is sharper than on the cheek
    edge = np.where(inside > 0, np.maximum(edge, np.where(at(skin.lips) > -0.012, near_lips, 0)), 0)
    allowed = (inside > 0) & (rng.random(count) < 0.25 + 0.75 * edge)
    if where is not None:
        allowed &= where(mirrored_mm(points)) > 0.5
    kept = _apart(points, apart_m, allowed)
    kept = kept[np.argsort(points[kept, 1], kind="stable")]
    normals = at(skin.normals)[kept]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    directions, length, elevation = _growth(points[kept], normals)
    length = length * (0.35 + 0.65 * edge[kept]) * rng.uniform(0.75, 1.2, len(kept))
    elevation = elevation * (0.6 + 0.4 * edge[kept]) * rng.uniform(0.7, 1.3, len(kept))
    return Roots(points[kept], normals, directions, length, elevation, edge[kept])


def joined(*roots: Roots) -> Roots:
    """Several sets of roots as one, the lowest first."""
    order = np.argsort(np.concatenate([each.points for each in roots])[:, 1], kind="stable")
    return Roots(*(np.concatenate([getattr(each, f.name) for each in roots])[order] for f in fields(Roots)))


def _apart(points: np.ndarray, distance: float, allowed: np.ndarray) -> np.ndarray:
    """Indices of points (P, 3) that keep a distance from all earlier ones."""
    neighbours = cKDTree(points).query_ball_point(points, distance)
    free, kept = allowed.copy(), []
    for index in range(len(points)):
        if free[index]:
            kept.append(index)
            free[neighbours[index]] = False
    return np.array(kept)


def _growth(points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Direction (C, 3), length (C,) in metres and elevation (C,) in radians of hairs at points of the mean head."""
    flip = np.array([-1.0, 1.0, 1.0])
    places, directions = (np.array([row[column] for row in GROWTH], np.float64) for column in (0, 1))
    numbers = np.array([row[2:] for row in GROWTH]) * (1e-3, np.pi / 180)
    places, directions = np.concatenate([places, places * flip]) / 1e3, np.concatenate([directions, directions * flip])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    squared = np.square(points[:, None] - places).sum(2)
    weight = np.exp(-(squared - squared.min(axis=1, keepdims=True)) / (2 * _REACH_M**2))
    weight /= weight.sum(axis=1, keepdims=True)
    length, elevation = (weight @ np.concatenate([numbers, numbers])).T
    return _tangent(weight @ directions, normals), length, elevation


def _tangent(vectors: np.ndarray, normals: np.ndarray) -> np.ndarray:
    return _unit(vectors - np.einsum("pd,pd->p", vectors, normals)[:, None] * normals)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)


def coat(skin: BeardSkin, roots: Roots, rng: np.random.Generator) -> np.ndarray:
    """Grow the long hairs: cards (C, `ROWS`, 2, 3), metres, which stay off the skin and clear of the lips."""
    roots = replace(roots, directions=_turned(roots, rng.normal(0, 0.16, len(roots.length))))
    length = roots.length.copy()
    for _ in range(12):
        line = _grown(skin, roots, length)
        over = _on_lips(skin, line).max(axis=1) > _LIP_MARGIN_M
        if not over.any():
            break
        length[over] *= 0.85
    along = _unit(np.gradient(line, axis=1))
    away = np.repeat(roots.normals[:, None], ROWS, axis=1)
    across = _unit(np.cross(along, away))
    # Cards lie on the skin, at an angle, or stand: from every side some of them show their hairs.
    roll = rng.normal(0, 0.5, len(line)) + np.where(rng.random(len(line)) < 0.3, np.pi / 2, 0)
    twist = roll[:, None] + rng.normal(0, 0.35, len(line))[:, None] * np.linspace(0, 1, ROWS)
    up = np.cross(across, along)
    side = np.cos(twist)[..., None] * across + np.sin(twist)[..., None] * up
    width = rng.uniform(*_COAT_WIDTH_M, len(line)) * (0.6 + 0.4 * np.clip(length / 0.014, 0, 1))
    half = 0.5 * width[:, None] * np.interp(np.linspace(0, 1, ROWS), (0, 0.4, 0.7, 1), (0.75, 1.05, 1.05, 0.8))
    return np.stack([line - half[..., None] * side, line + half[..., None] * side], axis=2)


def _turned(roots: Roots, angle: np.ndarray) -> np.ndarray:
    """The directions turned about the normals by angles (C,)."""
    aside = np.cross(roots.normals, roots.directions)
    return np.cos(angle)[:, None] * roots.directions + np.sin(angle)[:, None] * aside


def _grown(skin: BeardSkin, roots: Roots, length: np.ndarray) -> np.ndarray:
    """Middle lines (C, `ROWS`, 3) of cards that rise from the skin and bend down."""
    rise = np.cos(roots.elevation)[:, None] * roots.directions + np.sin(roots.elevation)[:, None] * roots.normals
    fall = _unit(roots.directions + (0.0, -0.5, 0.0) + 0.10 * roots.normals)
    points = [roots.points - _SUNK_M * roots.normals]
    step = (length + _SUNK_M) / (ROWS - 1)
    for row in range(1, ROWS):
        bend = smoothstep((row - 0.5) / (ROWS - 1))
        point = points[-1] + step[:, None] * _unit((1 - bend) * rise + bend * fall)
        found = closest_points(point, skin.vertices, skin.faces)
        least = 0.0003 + 0.0022 * row / (ROWS - 1) * np.clip(length / 0.015, 0.4, 1.5)
        lift = np.where(found.distance < 0.02, np.clip(least - found.offset, 0, 0.01), 0)
        points.append(point + lift[:, None] * found.normals)
    return np.stack(points, axis=1)


def _on_lips(skin: BeardSkin, line: np.ndarray) -> np.ndarray:
    """Metres (C, R) by which points (C, R, 3) lie over the lips, negative outside."""
    found = closest_points(line.reshape(-1, 3), skin.vertices, skin.faces)
    values = np.einsum("pk,pk->p", found.barycentric, skin.lips[skin.faces[found.triangle]])
    return np.where(found.distance < 0.008, values, -0.1).reshape(line.shape[:2])


def undercoat(skin: BeardSkin, roots: Roots, rng: np.random.Generator) -> np.ndarray:
    """Lay short hairs on the skin: cards (C, `ROWS`, 2, 3), metres."""
    turned = _turned(roots, rng.normal(0, 0.12, len(roots.length)))
    length = _UNDERCOAT_SIZE_M[0] * (0.6 + 0.4 * roots.edge) * rng.uniform(0.9, 1.1, len(turned))
    width = _UNDERCOAT_SIZE_M[1] * (0.6 + 0.4 * roots.edge) * rng.uniform(0.9, 1.1, len(turned))
    aside = np.cross(roots.normals, turned)
    along = np.linspace(-0.3, 0.7, ROWS)
    lift = rng.uniform(0.0003, 0.0008, len(turned))
    for _ in range(12):
        line = roots.points[:, None] + (length[:, None] * along)[..., None] * turned[:, None]
        card = np.stack([line - (0.5 * width)[:, None, None] * aside[:, None],
                         line + (0.5 * width)[:, None, None] * aside[:, None]], axis=2)  # fmt: skip
        flat = card.reshape(-1, 3)
        found = closest_points(flat, skin.vertices, skin.faces)
        flat = flat - (found.offset - np.repeat(lift, CARD_VERTICES))[:, None] * found.normals
        card = flat.reshape(card.shape)
        over = _on_lips(skin, card.reshape(len(card), -1, 3)).max(axis=1) > _LIP_MARGIN_M
        if not over.any():
            break
        length[over] *= 0.88
        width[over] *= 0.88
    return card


def _tiles(roots: Roots, rng: np.random.Generator) -> np.ndarray:
    """Tiles (C,): thin ones towards the border of the beard."""
    thin = np.clip((1 - roots.edge) * 0.7 + rng.random(len(roots.edge)) * 0.4, 0, 0.999)
    return (thin * TILES).astype(np.int64) + TILES * rng.integers(0, 2, len(thin))
