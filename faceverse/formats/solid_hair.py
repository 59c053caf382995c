"""Hair and beards as closed solids, for formats of surfaces without transparency: prints, meshes with plain colours.

The strands, flat strips with alpha, become a grid of distances from their opaque texels; gaps between them and down to
the skin are closed, and the surface of the grid is the solid. It overlaps the head, which programs for printing unite.

Dimensions: P vertices, N samples, V and F vertices and faces of the solid. Positions are metres.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter

from ..detail.dense import DenseMesh
from ..graphics.lighting import srgb_from_linear
from ..parts.beard import beard_colour
from ..parts.hair import mean_colour
from ..parts.part import HAIR_SLOTS, Part
from ..result import FitResult
from .surfaces import unit_normals

_CELL_M = 0.0025
_HALF_THICKNESS_M = 0.0022  # of a strip of hair
_CLOSED_M = 0.007  # gaps of twice this width are closed
_SMOOTH_CELLS = 0.8
_BARELY_INSIDE = 0.02  # value of samples that are filled so that the solid does not touch itself
_OPAQUE = 0.5  # alpha from which a texel is hair
_SINK_M = 0.003  # by which the cap of short hairs reaches into the head, so that both overlap


def solid_hair(result: FitResult) -> DenseMesh | None:
    """The hair of a head with its expression as a closed mesh; None for a bald head.

    Texture coordinates are those of a single texel: the solid has one colour, `solid_colour`.
    """
    samples = [
        hair_samples(part, result.part_vertices[slot]) for slot, part in result.parts.items() if slot in HAIR_SLOTS
    ]
    if "scalp" in result.parts:  # a second layer below the skin makes the cap thick
        part, vertices = result.parts["scalp"], result.part_vertices["scalp"]
        samples.append(hair_samples(part, vertices - _SINK_M * unit_normals(vertices, part.faces)))
    return _mesh_around(np.concatenate([np.zeros((0, 3)), *samples]))


def solid_beard(result: FitResult) -> DenseMesh | None:
    """The beard likewise, of `beard_texture`; None for a head without."""
    if "beard" not in result.parts:
        return None
    return _mesh_around(hair_samples(result.parts["beard"], result.part_vertices["beard"]))


def _mesh_around(points: np.ndarray) -> DenseMesh | None:
    """The closed mesh around samples (N, 3); None without samples."""
    if not len(points):
        return None
    vertices, faces = _solid(points)
    uv = np.full((len(vertices), 2), 0.5, np.float32)
    return DenseMesh(vertices, unit_normals(vertices, faces), faces, uv, faces, np.zeros(len(faces), np.int64))


def solid_colour(result: FitResult) -> np.ndarray:
    """(1, 1, 3) uint8 sRGB, the mean colour of the hair."""
    return _texel(mean_colour(result.params.hair))


def beard_texture(result: FitResult) -> np.ndarray:
    """(1, 1, 3) uint8 sRGB, the mean colour of the beard."""
    return _texel(beard_colour(result.params.beard, result.params.hair))


def _texel(linear: np.ndarray) -> np.ndarray:
    colour = srgb_from_linear(torch.from_numpy(np.clip(linear, 0, 1))).numpy()
    return np.round(255 * colour).astype(np.uint8).reshape(1, 1, 3)


def hair_samples(part: Part, vertices: np.ndarray) -> np.ndarray:
    """Points (N, 3) on a part's triangles where its texture is opaque, no farther apart than the cells of the grid.

    Args:
        part: of the hair.
        vertices: (P, 3) of the part.
    """
    corners, uv = vertices[part.faces].astype(np.float64), part.uv[part.uv_faces].astype(np.float64)
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    steps = np.clip(np.ceil(longest / _CELL_M).astype(int), 1, 64)
    alpha = part.material.texture[..., 3]
    height, width = alpha.shape
    found = []
    for count in np.unique(steps):
        chosen = steps == count
        weights = _barycentric(count)
        at = np.einsum("nk,fkd->fnd", weights, uv[chosen]).reshape(-1, 2)
        column, row = (np.clip(at * (width, height), 0, (width - 1, height - 1)).astype(int)).T
        points = np.einsum("nk,fkd->fnd", weights, corners[chosen]).reshape(-1, 3)
        found.append(points[alpha[row, column] >= 255 * _OPAQUE])
    return np.concatenate(found)


def _barycentric(count: int) -> np.ndarray:
    """(N, 3) coordinates of the points of a triangle whose sides are divided into `count` steps."""
    first, second = np.mgrid[: count + 1, : count + 1]
    inside = first + second <= count
    first, second = first[inside], second[inside]
    return np.stack([first, second, count - first - second], axis=1) / count


def _solid(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) float32 and faces (F, 3) of the closed surface around samples (N, 3)."""
    margin = _CLOSED_M + 3 * _CELL_M
    origin = points.min(0) - margin
    shape = np.ceil((points.max(0) + margin - origin) / _CELL_M).astype(int) + 1
    empty = np.ones(shape, bool)
    empty[tuple(np.round((points - origin) / _CELL_M).astype(int).T)] = False
    closing = (_HALF_THICKNESS_M + _CLOSED_M) / _CELL_M
    distance = distance_transform_edt(empty)
    depth = distance_transform_edt(distance <= closing)  # of the dilated hair, from its own surface
    field = gaussian_filter((depth - _CLOSED_M / _CELL_M).astype(np.float32), _SMOOTH_CELLS)
    enclosed = binary_fill_holes(field > 0)  # bubbles, which nobody sees
    vertices, faces = surface_net(without_diagonals(np.where(enclosed, np.maximum(field, _BARELY_INSIDE), field)))
    return (origin + _CELL_M * vertices).astype(np.float32), faces


def without_diagonals(field: np.ndarray) -> np.ndarray:
    """A field (X, Y, Z) like this one in which no two samples inside touch only by a diagonal of a square: there the
    surface would meet itself in an edge, and a program for printing could not tell inside from outside."""
    field = field.copy()
    while True:
        found = np.zeros(field.shape, bool)
        for axis in range(3):
            sides = [other for other in range(3) if other != axis]
            halves, corners = (slice(None, -1), slice(1, None)), []
            for first in halves:
                for second in halves:
                    cut = [slice(None)] * 3
                    cut[sides[0]], cut[sides[1]] = first, second
                    corners.append(tuple(cut))
            low, right, up, high = (field[at] > 0 for at in corners)
            crossed = (low == high) & (right == up) & (low != right)
            for at in corners:
                found[at] |= crossed
        if not found.any():
            return field
        field[found] = np.maximum(field[found], _BARELY_INSIDE)


def surface_net(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The closed surface where a field (X, Y, Z) is 0, positive inside; outside at its border.

    Returns:
        (V, 3) vertices in cells, (F, 3) int64 triangles, counter-clockwise from outside.
    Reference: Gibson, Constrained elastic surface nets, 1998, without the relaxation.
    """
    inside = field > 0
    cells = tuple(size - 1 for size in field.shape)
    total, count = np.zeros((*cells, 3)), np.zeros(cells, np.int64)
    offsets = np.array([(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    for axis in range(3):  # crossings of the twelve edges of each cell
        for start in offsets[offsets[:, axis] == 0]:
            end = start + np.eye(3, dtype=int)[axis]
            low, high = (field[tuple(slice(o, o + n) for o, n in zip(at, cells))] for at in (start, end))
            crosses = (low > 0) != (high > 0)
            share = np.where(crosses, low / np.where(crosses, low - high, 1), 0)
            point = start + share[..., None] * np.eye(3)[axis]
            total += np.where(crosses[..., None], point, 0)
            count += crosses
    active = count > 0
    number = np.full(cells, -1, np.int64)
    number[active] = np.arange(int(active.sum()))
    vertices = np.argwhere(active) + total[active] / count[active][:, None]
    faces = []
    for axis in range(3):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3, dtype=int)
        low, high = inside[_cut(axis, 0, -1)], inside[_cut(axis, 1, None)]
        for chosen, is_flipped in ((low & ~high, False), (~low & high, True)):
            at = np.argwhere(chosen)
            corners = ((1, 1), (0, 1), (0, 0), (1, 0))
            ring = [number[tuple((at - a * step[first] - b * step[second]).T)] for a, b in corners]
            if is_flipped:
                ring = ring[::-1]
            faces += [np.stack([ring[0], ring[1], ring[2]], axis=1), np.stack([ring[0], ring[2], ring[3]], axis=1)]
    return vertices, np.concatenate(faces)


def _cut(axis: int, start: int, stop: int | None) -> tuple[slice, ...]:
    return tuple(slice(start, stop) if other == axis else slice(None) for other in range(3))
