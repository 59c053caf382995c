"""UV layout of the base head: one island centred on the face, and a strip of cells for the interior parts.

The head is symmetric about x = 0, so only its +x half is parameterised and the other half is its reflection. The seam
runs down the back of the head; the mouth cavity is cut off behind the lips and forms an island of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ParameterError
from .flatten import Constraints, corner_triangles, minimise_distortion, rest_gradients, tutte
from .head_regions import (
    CHIN,
    ON_AXIS,
    boundary_loop,
    ears,
    eyes,
    find_face,
    find_mouth_cavity,
    inside_lids,
    mirror_map,
    quad_areas,
    radius,
)

CELLS = {  # left, top, right, bottom on the map
    "head": (0.01, 0.01, 0.99, 0.88),
    "eyeball_right": (0.01, 0.89, 0.11, 0.99),
    "eyeball_left": (0.12, 0.89, 0.22, 0.99),
    "eyeball_right_back": (0.23, 0.89, 0.275, 0.935),
    "eyeball_left_back": (0.23, 0.945, 0.275, 0.99),
    "mouth": (0.285, 0.89, 0.385, 0.99),
    "tongue": (0.395, 0.89, 0.515, 0.99),
    "teeth_upper": (0.525, 0.89, 0.75, 0.99),
    "teeth_lower": (0.76, 0.89, 0.985, 0.99),
}
# Target scale on the map (relative to the face) and energy weight, by region of the head.
REGIONS = {
    "face": (1.0, 1.0),
    "around": (0.30, 0.03),
    "neck": (0.30, 0.2),
    "ears": (0.38, 0.5),
    "inside": (0.20, 0.02),
}
SCALE_SMOOTHING = 6  # averaging passes over the target scale
FAN_WEIGHT = 0.01  # of the triangles that keep the mouth slit open
COLLAR_BULGE = 0.03  # relative to the frame's height
ITERATIONS = 80


@dataclass(frozen=True)
class Unwrap:
    """Texture coordinates of a quad mesh.

    Args:
        uv: (Uc, 2) float32 in 0..1, origin at the top left, v down; uv[:Vc] is valid for vertex i, the other sides of
            seams follow.
        uv_quads: (Q, 4) int32 indices into uv, parallel to the mesh's quads.
        islands: name -> indices of its quads; "head" is the skin without the mouth cavity.
        mouth_inside: vertex indices of the mouth cavity including its rim at the lips.
        face: indices of the quads of the face, see `find_face`.
    """

    uv: np.ndarray
    uv_quads: np.ndarray
    islands: dict[str, np.ndarray]
    mouth_inside: np.ndarray
    face: np.ndarray


def unwrap(vertices: np.ndarray, quads: np.ndarray, part: np.ndarray) -> Unwrap:
    """Lay out skin, eyes, teeth and tongue in one UV map; deterministic.

    Args:
        vertices: (Vc, 3) metres, symmetric about x = 0.
        quads: (Q, 4) vertex indices, counter-clockwise from outside, symmetric about x = 0.
        part: (Vc,) "skin", "eyeball_left", "eyeball_right", "teeth_upper", "teeth_lower" or "tongue".
    Raises:
        ParameterError: the mesh is not symmetric, or a part does not have the expected shape.
    """
    vertices, quads, part = np.asarray(vertices, np.float64), np.asarray(quads, np.int64), np.asarray(part)
    mirror = mirror_map(vertices)
    quad_part = part[quads[:, 0]]
    cavity = find_mouth_cavity(vertices, quads, part)
    face = find_face(vertices, quads, part)
    islands = {"head": np.setdiff1d(np.flatnonzero(quad_part == "skin"), cavity), "mouth": cavity}
    for name in ("teeth_upper", "teeth_lower", "tongue"):
        islands[name] = np.flatnonzero(quad_part == name)
    scale, weight = _targets(vertices, quads, part, face)
    corners = {}
    for name, chosen in islands.items():
        half = chosen[vertices[quads[chosen]].mean(axis=1)[:, 0] > 0]
        if name == "head":
            flat = _flatten_head(vertices, quads[half], scale[half], weight[half])
        else:
            flat = _flatten_part(vertices, quads[half])
        both = flat[quads[chosen]]
        reflected = ~np.isin(chosen, half)
        both[reflected] = flat[mirror[quads[chosen[reflected]]]] * [-1.0, 1.0]
        corners[name] = both
    for name in ("eyeball_right", "eyeball_left"):
        eye = vertices[part == name]
        chosen = np.flatnonzero(quad_part == name)
        points = vertices[quads[chosen]] - eye.mean(axis=0)
        front = points.mean(axis=1)[:, 2] > -0.2 * radius(eye)
        islands[name], corners[name] = chosen[front], _azimuthal(points[front])
        islands[name + "_back"], corners[name + "_back"] = chosen[~front], _azimuthal(points[~front] * [-1, 1, -1])
    placed = {name: _place(corners[name], name) for name in islands}
    uv, uv_quads = _index_corners(quads, islands, placed, len(vertices))
    return Unwrap(uv, uv_quads, islands, np.unique(quads[cavity]), face)


def _targets(
    vertices: np.ndarray, quads: np.ndarray, part: np.ndarray, face: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Target scale and weight (Q,) of each quad of the head, with smooth transitions between regions."""
    middle, apart = eyes(vertices, part)
    table = np.tile(np.array(REGIONS["around"]), (len(quads), 1))
    table[vertices[quads].mean(axis=1)[:, 1] < middle[1] + CHIN * apart] = REGIONS["neck"]
    table[ears(vertices, quads, part)] = REGIONS["ears"]
    table[face] = REGIONS["face"]
    table[inside_lids(vertices, quads, part)] = REGIONS["inside"]
    table = np.log(table)
    share = np.maximum(np.bincount(quads.reshape(-1), minlength=len(vertices)), 1)
    for _ in range(SCALE_SMOOTHING):
        at_vertex = np.stack(
            [np.bincount(quads.reshape(-1), np.repeat(column, 4), len(vertices)) / share for column in table.T], axis=1
        )
        table = at_vertex[quads].mean(axis=1)
    return tuple(np.exp(table).T)


@dataclass(frozen=True)
class _HeadRim:
    """Boundary chains of the skin's +x half, counter-clockwise from outside: collar (front to nape), seam (nape to
    crown), slit (upper lip to lower lip), and all midline vertices that are not on the seam."""

    collar: np.ndarray
    seam: np.ndarray
    slit: np.ndarray
    axis: np.ndarray


def _head_rim(vertices: np.ndarray, half: np.ndarray) -> _HeadRim:
    loop = boundary_loop(half)
    on_axis = np.abs(vertices[loop, 0]) < ON_AXIS
    leaves = np.flatnonzero(on_axis & ~np.roll(on_axis, -1))
    if len(leaves) != 2:
        raise ParameterError("unwrap.boundary", found=len(leaves))
    front = leaves[np.argmin(vertices[loop[leaves], 1])]
    loop, on_axis = np.roll(loop, -front), np.roll(on_axis, -front)
    nape = 1 + int(np.argmax(on_axis[1:]))
    crown = nape + int(np.argmax(vertices[loop[nape:], 1]))
    upper_lip = nape + int(np.argmin(on_axis[nape:])) - 1
    lower_lip = upper_lip + 1 + int(np.argmax(on_axis[upper_lip + 1 :]))
    top = crown - 1  # the seam ends behind the crown, where it is least visible on a bald head
    if top <= nape:
        raise ParameterError("unwrap.midline")
    return _HeadRim(
        loop[: nape + 1],
        loop[nape : top + 1],
        loop[upper_lip : lower_lip + 1],
        np.concatenate([loop[top : upper_lip + 1], loop[lower_lip:], loop[:1]]),
    )


def _flatten_head(vertices: np.ndarray, half: np.ndarray, scale: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Positions (V, 2) of the +x half of the skin, y up, the midline at 0.

    The seam slides along the frame's side and top, the collar sideways along a shallow arc at the bottom; triangles
    across the mouth slit keep it open.
    """
    rim = _head_rim(vertices, half)
    left, above, right, below = CELLS["head"]
    width, height = 0.5 * (right - left), below - above
    count = len(vertices) + 1  # the last one is a point in the middle of the slit
    held, values = np.zeros((count, 2), bool), np.zeros((count, 2))
    held[rim.axis, 0] = held[-1, 0] = True
    along = _arc(vertices[rim.seam]) * (width + height)
    corner = int(np.argmin(np.abs(along - height)))
    side, top = rim.seam[: corner + 1], rim.seam[corner:]
    values[side] = np.stack([np.full(len(side), width), height * along[: corner + 1] / along[corner]], axis=1)
    values[top, 0] = width * (along[-1] - along[corner:]) / (along[-1] - along[corner])
    values[top, 1] = height
    turn = np.linspace(0, 0.5 * np.pi, len(rim.collar))
    values[rim.collar, 0] = width * _arc(vertices[rim.collar])
    values[rim.collar, 1] = -COLLAR_BULGE * height * np.cos(turn)
    held[side, 0] = held[top, 1] = held[rim.collar, 1] = held[rim.collar[-1], 0] = True
    fixed = held.copy()
    fixed[np.concatenate([rim.collar, rim.seam])] = True
    fan = np.stack([rim.slit[1:], rim.slit[:-1], np.full(len(rim.slit) - 1, count - 1)], axis=1)
    points = np.concatenate([vertices, vertices[rim.slit].mean(axis=0, keepdims=True) * [0.0, 1.0, 1.0]])
    fit = np.sqrt(width * height / (quad_areas(vertices, half) * scale**2).sum())
    start = Constraints(fixed, values)
    return _descend(points, half, start, Constraints(held, values), fit * scale, weight, fan)[:-1]


def _flatten_part(vertices: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Positions (V, 2) of the +x half of a sheet, or of a closed part, which is cut along its lower midline."""
    loop = boundary_loop(half)
    on_axis = np.abs(vertices[loop, 0]) < ON_AXIS
    if on_axis.all():
        loop = np.roll(loop, -np.argmax(vertices[loop, 2]))
        back = int(np.argmin(vertices[loop, 2]))
        chains = [loop[: back + 1], np.append(loop[back:], loop[0])]
        axis = max(chains, key=lambda chain: vertices[chain, 1].mean())
    else:
        arrives = np.flatnonzero(on_axis & ~np.roll(on_axis, 1))
        if len(arrives) != 1:
            raise ParameterError("unwrap.chains", found=len(arrives))
        loop = np.roll(loop, -arrives[0])
        axis = loop[: on_axis.sum()]
    loop = np.roll(loop, -int(np.flatnonzero(loop == axis[-1])[0]))
    rim = np.append(loop[: len(loop) - len(axis) + 1], axis[0])
    held = np.zeros((len(vertices), 2), bool)
    held[axis, 0] = True
    fixed, values = held.copy(), np.zeros((len(vertices), 2))
    turn = np.pi * (_arc(vertices[rim]) - 0.5)
    values[rim] = np.sqrt(quad_areas(vertices, half).sum() / np.pi) * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    fixed[rim] = True
    ones = np.ones(len(half))
    no_fan = np.zeros((0, 3), dtype=np.int64)
    return _descend(vertices, half, Constraints(fixed, values), Constraints(held, values), ones, ones, no_fan)


def _descend(
    points: np.ndarray,
    quads: np.ndarray,
    start: Constraints,
    during: Constraints,
    scale: np.ndarray,
    weight: np.ndarray,
    fan: np.ndarray,
) -> np.ndarray:
    """Positions (n, 2): Tutte embedding under `start`, then minimal distortion under `during`."""
    used, local = np.unique(np.concatenate([quads.reshape(-1), fan.reshape(-1)]), return_inverse=True)
    local_quads, local_fan = local[: quads.size].reshape(-1, 4), local[quads.size :].reshape(-1, 3)
    flat = tutte(local_quads, local_fan, Constraints(start.held[used], start.values[used]))
    triangles = np.concatenate([corner_triangles(local_quads), local_fan])
    stretch = np.concatenate([np.repeat(scale, 4), np.full(len(fan), scale.mean())])
    gradients, area = rest_gradients(points[used], triangles, stretch)
    share = np.concatenate([np.repeat(weight, 4) / 2, np.full(len(fan), FAN_WEIGHT)])
    moved = minimise_distortion(flat, triangles, gradients, area * share, during.held[used], ITERATIONS)
    positions = np.zeros((len(points), 2))
    positions[used] = moved
    return positions


def _arc(points: np.ndarray) -> np.ndarray:
    """Normalised arc length along a polyline (k, 3), 0 at the first and 1 at the last point."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return length / length[-1]


def _azimuthal(points: np.ndarray) -> np.ndarray:
    """Azimuthal equidistant projection (..., 2) of directions (..., 3) from +z, in radians from the centre, y up."""
    across = np.linalg.norm(points[..., :2], axis=-1)
    angle = np.arctan2(across, points[..., 2])
    return points[..., :2] * (angle / np.maximum(across, 1e-12))[..., None]


def _place(corners: np.ndarray, name: str) -> np.ndarray:
    """Fit corners (n, 4, 2), y up and symmetric about x = 0, into the cell of an island, v down, as large as possible.

    The head fills its cell in both directions, the others keep their aspect; an eye's origin becomes the cell's centre.
    """
    left, top, right, bottom = CELLS[name]
    reach, low, high = np.abs(corners[..., 0]).max(), corners[..., 1].min(), corners[..., 1].max()
    if name.startswith("eyeball"):
        high = np.abs(corners[..., 1]).max()
        low = -high
    scale = np.array([(right - left) / (2 * reach), (bottom - top) / (high - low)])
    if name != "head":
        scale[:] = scale.min()
    placed = (corners - [0.0, 0.5 * (low + high)]) * scale * [1.0, -1.0]
    return placed + [0.5 * (left + right), 0.5 * (top + bottom)]


def _index_corners(
    quads: np.ndarray, islands: dict[str, np.ndarray], corners: dict[str, np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Merge equal corners: uv (Uc, 2) float32 whose first rows follow the vertices, and uv_quads (Q, 4) int32."""
    order = np.concatenate(list(islands.values()))
    vertex = quads[order].reshape(-1)
    position = np.concatenate(list(corners.values())).reshape(-1, 2).astype(np.float32)
    key = np.concatenate([vertex[:, None], np.round(position.astype(np.float64) * 1e6).astype(np.int64)], axis=1)
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    by_appearance = np.argsort(first, kind="stable")
    owner = vertex[first]
    slot = np.empty(len(first), dtype=np.int64)
    taken = np.zeros(count, bool)
    free = count
    for row in by_appearance:
        if taken[owner[row]]:
            slot[row], free = free, free + 1
        else:
            slot[row], taken[owner[row]] = owner[row], True
    uv = np.zeros((free, 2), np.float32)
    uv[slot] = position[first]
    uv_quads = np.empty((len(quads), 4), np.int32)
    uv_quads[order] = slot[inverse.reshape(-1)].reshape(-1, 4)
    return uv, uv_quads
