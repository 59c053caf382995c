"""Find regions of the base head from geometry and topology: mirror map, face, ears, lids' backs, mouth cavity.

Bounds are multiples of the interocular distance. Functions take a quad mesh and return quad indices or masks.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..errors import ParameterError

CHIN, HAIRLINE, EAR_FRONT = -1.8, 1.2, -0.95  # up or forward from the point between the eyes, in interocular distances
ON_AXIS = 1e-7  # metres


def mirror_map(vertices: np.ndarray) -> np.ndarray:
    """Index (V,) of each vertex's reflection about x = 0.

    Raises:
        ParameterError: a vertex has no reflection within 0.1 mm.
    """
    distance, index = cKDTree(vertices).query(vertices * [-1.0, 1.0, 1.0])
    if distance.max() > 1e-4 or not np.array_equal(index[index], np.arange(len(index))):
        raise ParameterError("head.asymmetric", distance_mm=1000 * distance.max())
    return index


def find_face(vertices: np.ndarray, quads: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Quad indices of the face: outward-facing skin in front of the ears, from the chin to the hairline.

    The bounds are multiples of the interocular distance. The back of the lids, the mouth cavity and the underside of
    the jaw are excluded.
    """
    middle, apart = eyes(vertices, part)
    centre = vertices[quads].mean(axis=1)
    relative = (centre - middle) / apart
    jaw = CHIN + 0.35 * (0.35 - relative[:, 2])  # the edge of the jaw rises from the chin to the ears
    chosen = (part[quads[:, 0]] == "skin") & (relative[:, 2] > EAR_FRONT)
    chosen &= (relative[:, 1] > jaw) & (relative[:, 1] < HAIRLINE)
    chosen &= ~inside_lids(vertices, quads, part)
    chosen[find_mouth_cavity(vertices, quads, part)] = False
    return np.flatnonzero(chosen)


def find_mouth_cavity(vertices: np.ndarray, quads: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Quad indices of the mouth cavity, bounded one edge loop behind the contact line of the closed lips.

    Candidates are the closed edge loops that cross the midline twice; the lips touch along the thinnest of them.

    Raises:
        ParameterError: there is no such loop.
    """
    skin = np.flatnonzero(part[quads[:, 0]] == "skin")
    mesh = quads[skin]
    straight = straight_ahead(mesh)
    on_axis = np.abs(vertices[:, 0]) < ON_AXIS
    loops: dict[tuple[int, ...], np.ndarray] = {}
    for edge in straight:
        if on_axis[edge[0]] and not on_axis[edge[1]]:
            loop = follow_loop(straight, edge)
            if loop is not None and on_axis[loop].sum() == 2:
                loops.setdefault(tuple(sorted(loop.tolist())), loop)
    if not loops:
        raise ParameterError("head.no_mouth_loop")
    thin = {key: _thickness(vertices[loop]) for key, loop in loops.items()}
    collar = np.unique(boundary_edges(mesh))
    lips = _enclosed(mesh, loops[min(thin, key=thin.__getitem__)], collar)
    within = np.unique(mesh[lips])
    deeper = [_enclosed(mesh, loop, collar) for loop in loops.values() if np.isin(loop, within).all()]
    deeper = [inside for inside in deeper if len(inside) < len(lips) and np.isin(inside, lips).all()]
    return skin[max(deeper, key=len) if deeper else lips]


def eyes(vertices: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, float]:
    """Midpoint (3,) between the eyeballs' centres and their distance."""
    left, right = (vertices[part == name].mean(axis=0) for name in ("eyeball_left", "eyeball_right"))
    return 0.5 * (left + right), float(np.linalg.norm(left - right))


def radius(eye: np.ndarray) -> float:
    return float(np.linalg.norm(eye - eye.mean(axis=0), axis=1).mean())


def quad_normals(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    a, b, c, d = (vertices[quads[:, k]] for k in range(4))
    normal = np.cross(c - a, d - b)
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)


def quad_areas(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    a, b, c, d = (vertices[quads[:, k]] for k in range(4))
    return 0.5 * (np.linalg.norm(np.cross(b - a, c - a), axis=1) + np.linalg.norm(np.cross(c - a, d - a), axis=1))


def inside_lids(vertices: np.ndarray, quads: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Mask (Q,) of the skin near an eyeball that faces the eyeball's centre."""
    centre, normal = vertices[quads].mean(axis=1), quad_normals(vertices, quads)
    mask = np.zeros(len(quads), bool)
    for name in ("eyeball_left", "eyeball_right"):
        eye = vertices[part == name]
        outward = centre - eye.mean(axis=0)
        near = np.linalg.norm(outward, axis=1) < 1.35 * radius(eye)
        mask |= near & ((normal * outward).sum(axis=1) < 0)
    return mask & (part[quads[:, 0]] == "skin")


def ears(vertices: np.ndarray, quads: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Mask (Q,) of the skin within half an interocular distance of the ears' centres in side view."""
    middle, apart = eyes(vertices, part)
    x, y, z = ((vertices[quads].mean(axis=1) - middle) / apart).T
    return (np.abs(x) > 1.0) & (np.hypot(y + 0.3, z + 1.2) < 0.5) & (part[quads[:, 0]] == "skin")


def directed_edges(quads: np.ndarray) -> np.ndarray:
    """(4Q, 2): the four sides of quad q in rows 4q .. 4q + 3."""
    return np.stack([quads, np.roll(quads, -1, axis=1)], axis=-1).reshape(-1, 2)


def boundary_edges(quads: np.ndarray) -> np.ndarray:
    """Directed sides (B, 2) that belong to one quad only."""
    sides = directed_edges(quads)
    _, inverse, count = np.unique(np.sort(sides, axis=1), axis=0, return_inverse=True, return_counts=True)
    return sides[count[inverse.reshape(-1)] == 1]


def boundary_loop(quads: np.ndarray) -> np.ndarray:
    """Vertices of the single boundary loop, with the mesh on its left.

    Raises:
        ParameterError: the mesh is not a disc.
    """
    edges = boundary_edges(quads)
    following = dict(edges.tolist())
    loop = [int(edges[0, 0])] if len(edges) else []
    while loop and following.get(loop[-1], loop[0]) != loop[0]:
        loop.append(following[loop[-1]])
    if not loop or len(loop) != len(edges):
        raise ParameterError("head.boundary_loops", found=len(loop), total=len(edges))
    return np.array(loop)


def straight_ahead(quads: np.ndarray) -> dict[tuple[int, int], tuple[int, int]]:
    """Map each directed edge to the next one straight ahead, across vertices of valence four."""
    sides = directed_edges(quads)
    turn_left = dict(zip(map(tuple, sides.tolist()), np.roll(quads, -2, axis=1).reshape(-1).tolist()))
    valence = np.bincount(np.unique(np.sort(sides, axis=1), axis=0).reshape(-1))
    return {(a, b): (b, turn_left[c, b]) for (a, b), c in turn_left.items() if valence[b] == 4 and (c, b) in turn_left}


def follow_loop(straight: dict, edge: tuple[int, int]) -> np.ndarray | None:
    """Vertices of the edge loop through a directed edge; None if it ends or crosses itself."""
    loop, seen = [], set()
    here: tuple[int, int] | None = edge
    while here is not None and here[0] not in seen:
        loop.append(here[0])
        seen.add(here[0])
        here = straight.get(here)
    return np.array(loop) if here == edge else None


def _thickness(loop: np.ndarray) -> float:
    """Enclosed area over squared length of a closed polygon (k, 3): 0.08 for a circle, 0 for a closed slit."""
    length = np.linalg.norm(np.roll(loop, -1, axis=0) - loop, axis=1).sum()
    area = 0.5 * np.linalg.norm(np.cross(loop, np.roll(loop, -1, axis=0)).sum(axis=0))
    return float(area / length**2)


def _enclosed(quads: np.ndarray, loop: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Indices of the quads on the side of a closed loop that has no vertex of `outside`."""
    edges, inverse = np.unique(np.sort(directed_edges(quads), axis=1), axis=0, return_inverse=True)
    walls = {tuple(sorted(pair)) for pair in zip(loop.tolist(), np.roll(loop, -1).tolist())}
    passable = np.array([tuple(edge) not in walls for edge in edges.tolist()])[inverse.reshape(-1)]
    owner = np.repeat(np.arange(len(quads)), 4)[passable]
    shape = (len(quads), len(edges))
    incidence = sparse.coo_matrix((np.ones(len(owner)), (owner, inverse.reshape(-1)[passable])), shape=shape).tocsr()
    _, label = connected_components(incidence @ incidence.T, directed=False)
    return np.flatnonzero(~np.isin(label, label[np.isin(quads, outside).any(axis=1)]))
