"""Displacement maps in texture space, the normals of displaced surfaces, and maps of the base mesh.

A displacement is (S, S) millimetres along the base surface's normal, + outwards, and holds structure finer than about
8 mm. Maps are square, in the UV of the model; for texel centres see texture_maps.py, for axes and units camera.py.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..errors import ParameterError
from ..graphics.mesh import vertex_normals
from ..model.face_model import FaceModel, FaceParams
from ..model.texture_maps import bake_planes, bake_vertices, uv_fragments
from ..model.warp import head_vertices

BAND_SIGMAS_MM = (3.0, 1.0)
"""Standard deviations of the Gaussians between the coarse, medium and fine bands."""
NO_DISPLACEMENT_REGIONS = ("eyeballs", "teeth", "tongue", "mouth_inside", "gums")
"""Regions whose triangles show no displacement."""
STRAIN_SIGMA_MM = 3.0
LARGEST_STRAIN = 0.6
FULL_WRINKLE_STRAIN = 0.15
_MM_PER_TEXEL_AT_512 = 0.58
_ALBEDO_CENTRE, _ALBEDO_SCALE, _POSITION_SCALE_M = 0.35, 0.25, 0.1
_LEAST_SINE = 0.2  # of the angle between the texture's axes on the surface; triangles with more skew are slivers
_LEAST_TEXEL_MM = 1e-3
_FLAT = (128, 128, 255)  # colour of an undisplaced texel in a normal map
_FALLOFF_TEXELS_AT_512 = 4  # from full displacement to none at the edge of a chart

_cache: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


# -- mesh and maps ----------------------------------------------------------------------------------------------------
def position_map(model: FaceModel, vertices: np.ndarray, size: int) -> np.ndarray:
    """Position map (size, size, 3) float32 of a mesh (V, 3): the exact surface point at each texel's centre.

    Padded like the maps of `bake_vertices`.

    Raises:
        ParameterError: vertices of another mesh, or a size as in `uv_fragments`.
    """
    return bake_vertices(model, _checked_vertices(model, vertices), size)


def vertex_values(model: FaceModel, values: np.ndarray) -> np.ndarray:
    """Sample a map at the vertices.

    Args:
        values: (S, S) or (S, S, C).
    Returns:
        (V,) or (V, C) float32, by bilinear lookup; the mean over a vertex' texture coordinates. Vertices without any
        have the value of the nearest texel to their row of `uv`.
    Raises:
        ParameterError: not a square map.
    """
    values = np.asarray(values, dtype=np.float32)
    if values.ndim not in (2, 3) or values.shape[0] != values.shape[1] or not values.size:
        raise ParameterError("detail.map_shape", shape=values.shape)
    vertex_count = len(model.mean_vertices)
    owner = np.full(len(model.uv), -1, np.int64)
    owner[: min(vertex_count, len(owner))] = np.arange(min(vertex_count, len(owner)))
    owner[model.uv_faces] = model.faces
    used = np.flatnonzero(owner >= 0)
    flat = sample_bilinear(values, model.uv[used]).reshape(len(used), -1)
    count = np.bincount(owner[used], minlength=vertex_count)
    total = np.stack([np.bincount(owner[used], column, minlength=vertex_count) for column in flat.T], axis=1)
    return (total / np.maximum(count, 1)[:, None]).astype(np.float32).reshape(vertex_count, *values.shape[2:])


def sample_bilinear(values: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear lookup: a map (S, S) or (S, S, C) at uv (K, 2) -> (K,) or (K, C)."""
    size = np.array(values.shape[1::-1])
    position = np.clip(uv * size - 0.5, 0, size - 1)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, size - 1)
    x, y = ((position - low).astype(values.dtype).T).reshape(2, -1, *[1] * (values.ndim - 2))
    top = values[low[:, 1], low[:, 0]] * (1 - x) + values[low[:, 1], high[:, 0]] * x
    bottom = values[high[:, 1], low[:, 0]] * (1 - x) + values[high[:, 1], high[:, 0]] * x
    return top * (1 - y) + bottom * y


def displacement_weight(model: FaceModel, size: int) -> np.ndarray:
    """Weight of a displacement (size, size) float32: 1 on the skin, 0 outside the charts and on eyes, teeth and inside
    the mouth, with a smooth falloff towards the charts' borders, so that no seam has a step.

    Raises:
        ParameterError: a size as in `uv_fragments`.
    """
    per_model = _cache.setdefault(model, {})
    key = ("weight", size)
    if key not in per_model:
        chart = _charts(model, size)[0]
        border = chart == 0
        border[:, 1:] |= chart[:, 1:] != chart[:, :-1]
        border[1:] |= chart[1:] != chart[:-1]
        away = distance_transform_edt(~border) if border.any() else np.full(border.shape, np.inf)
        share = np.clip((away - 0.5) / max(_FALLOFF_TEXELS_AT_512 * size / 512, 1.5), 0, 1)
        per_model[key] = np.where(border, 0, share * share * (3 - 2 * share)).astype(np.float32)
    return per_model[key].copy()


def without_displacement(model: FaceModel) -> np.ndarray:
    """(V,) bool, vertices of regions without displacement; triangles with all corners in them are not displaced."""
    smooth = np.zeros(len(model.mean_vertices), bool)
    for name in NO_DISPLACEMENT_REGIONS:
        smooth[model.regions.get(name, [])] = True
    return smooth


def split_bands(displacement: np.ndarray) -> np.ndarray:
    """Coarse, medium and fine parts (3, S, S) float32 of a displacement (S, S); their sum is the displacement.

    Gaussians of `BAND_SIGMAS_MM` separate the bands, at the face's 0.58 mm per texel of a map of 512.
    """
    displacement = np.asarray(displacement, dtype=np.float32)
    if displacement.ndim != 2 or displacement.shape[0] != displacement.shape[1]:
        raise ParameterError("detail.displacement_shape", shape=displacement.shape)
    texels_per_mm = len(displacement) / 512 / _MM_PER_TEXEL_AT_512
    wide, narrow = (gaussian_filter(displacement, sigma * texels_per_mm, mode="nearest") for sigma in BAND_SIGMAS_MM)
    return np.stack([wide, narrow - wide, displacement - narrow])


def condition_maps(model: FaceModel, params: FaceParams, size: int) -> np.ndarray:
    """Condition maps of the detail generator: (6, size, size) float32.

    Three channels of linear albedo, (albedo - 0.35) / 0.25, and three of the neutral mesh, (position - centroid of the
    mean face) / 0.1 m.
    """
    albedo = torch.from_numpy(np.array(params.albedo, np.float32, ndmin=2))
    neutral, _ = head_vertices(model, params)
    colours = model.albedo(albedo.to(model.device))[0].clamp(0, 1).numpy(force=True)
    centroid = model.mean_vertices[model.regions.get("face", slice(None))].mean(axis=0)
    values = np.concatenate([(colours - _ALBEDO_CENTRE) / _ALBEDO_SCALE, (neutral - centroid) / _POSITION_SCALE_M], 1)
    return bake_planes(model, values, size)


# -- normals ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TangentFrame:
    """Tangent frame and texel size of the surface under a map of S x S texels.

    Attributes:
        tangent_u: (3, S, S) unit vectors along u, within the surface.
        tangent_v: (3, S, S) unit vectors across tangent_u, within the surface, against v (up in the texture).
        normal: (3, S, S) unit, outwards.
        texel_u_mm: (S, S) millimetres of surface from a texel to the next along u.
        texel_v_mm: (S, S) likewise along v.
        cosine: (S, S) of the angle between the directions along u and against v on the surface; 0 without skew.
        weight: (S, S) weight of a displacement, 0..1, see `displacement_weight`.
    """

    tangent_u: Tensor
    tangent_v: Tensor
    normal: Tensor
    texel_u_mm: Tensor
    texel_v_mm: Tensor
    cosine: Tensor
    weight: Tensor

    @classmethod
    def of(cls, model: FaceModel, vertices: np.ndarray, size: int) -> TangentFrame:
        """Compute the frame of a mesh (V, 3) metres, in the space of its vertices.

        Directions are those of a glTF normal map: the mean over the triangles around each texture coordinate,
        interpolated between them.

        Raises:
            ParameterError: vertices of another mesh, or a size as in `uv_fragments`.
        """
        vertices = _checked_vertices(model, vertices)
        faces = torch.from_numpy(np.ascontiguousarray(model.faces))
        normals = vertex_normals(torch.from_numpy(np.ascontiguousarray(vertices, np.float32)), faces)
        along_u, along_v = _surface_derivatives(model, vertices)
        normal = torch.from_numpy(bake_planes(model, normals.numpy(), size))
        normal = normal / _length(normal)
        step_u = _within(_bake_corners(model, along_u / size, size), normal)
        step_up = _within(_bake_corners(model, -along_v / size, size), normal)
        length_u, length_up = _length(step_u), _length(step_up)
        tangent_u = step_u / length_u
        across = torch.linalg.cross(normal, tangent_u, dim=0)
        tangent_v = across * torch.where((across * step_up).sum(0) < 0, -1.0, 1.0)
        return cls(
            tangent_u,
            tangent_v,
            normal,
            (1000 * length_u).clamp_min(_LEAST_TEXEL_MM),
            (1000 * length_up).clamp_min(_LEAST_TEXEL_MM),
            (tangent_u * step_up).sum(0) / length_up,
            torch.from_numpy(displacement_weight(model, size)),
        )

    def to(self, target: torch.dtype | torch.device | str) -> TangentFrame:
        """Convert the frame to another floating-point type or device."""
        return TangentFrame(*(value.to(target) for value in vars(self).values()))


def surface_slopes(frame: TangentFrame, displacement: Tensor) -> tuple[Tensor, Tensor]:
    """Slope of a displacement (..., S, S) mm along tangent_u and along tangent_v, millimetres per millimetre."""
    weighted = displacement * frame.weight
    rise_u = _difference(weighted, -1) / frame.texel_u_mm
    rise_up = -_difference(weighted, -2) / frame.texel_v_mm
    sine = (1 - frame.cosine**2).clamp_min(0).sqrt().clamp_min(_LEAST_SINE)
    return rise_u, (rise_up - frame.cosine * rise_u) / sine


def detailed_normals(frame: TangentFrame, displacement: Tensor) -> Tensor:
    """Normals of the displaced surface, differentiable.

    Args:
        displacement: (N, S, S) or (S, S) mm, S as in the frame.
    Returns:
        (N, 3, S, S) unit vectors in the space of the frame's vertices, N = 1 for a single map.
    Raises:
        ParameterError: a displacement of another size.
    """
    displacement = displacement[None] if displacement.ndim == 2 else displacement
    if displacement.ndim != 3 or displacement.shape[1:] != frame.texel_u_mm.shape:
        raise ParameterError(
            "detail.displacement_frame", expected=tuple(frame.texel_u_mm.shape), shape=tuple(displacement.shape)
        )
    along_u, along_v = (slope[:, None] for slope in surface_slopes(frame, displacement))
    return torch.nn.functional.normalize(frame.normal - along_u * frame.tangent_u - along_v * frame.tangent_v, dim=1)


def normal_map(model: FaceModel, vertices: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Tangent-space normal map of a displaced mesh.

    Args:
        vertices: (V, 3) metres.
        displacement: (S, S) mm.
    Returns:
        (S, S, 3) uint8 as in glTF: red along u, green against v, blue outwards; padded around each chart.
    Raises:
        ParameterError: vertices of another mesh, or a displacement that is not a square map of finite numbers.
    """
    displacement = checked_displacement(displacement)
    size = len(displacement)
    if not displacement.any():
        _checked_vertices(model, vertices)
        return np.broadcast_to(np.array(_FLAT, np.uint8), (size, size, 3)).copy()
    frame = TangentFrame.of(model, vertices, size)
    along_u, along_v = surface_slopes(frame, torch.from_numpy(displacement))
    normals = torch.stack([-along_u, -along_v, torch.ones_like(along_u)])
    normals = normals / _length(normals)
    source = _charts(model, size)[1]
    encoded = ((normals.numpy() + 1) * 127.5).round().clip(0, 255).astype(np.uint8).reshape(3, -1)
    padded = np.where(source >= 0, encoded[:, source], np.array(_FLAT, np.uint8)[:, None])
    return np.ascontiguousarray(padded.reshape(3, size, size).transpose(1, 2, 0))


def checked_displacement(displacement: np.ndarray) -> np.ndarray:
    """Validate a displacement and convert it to float32.

    Raises:
        ParameterError: it is not a square map of finite numbers.
    """
    displacement = np.asarray(displacement, dtype=np.float32)
    if displacement.ndim != 2 or displacement.shape[0] != displacement.shape[1] or not displacement.size:
        raise ParameterError("detail.displacement_shape", shape=displacement.shape)
    if not np.isfinite(displacement).all():
        raise ParameterError("detail.displacement_not_finite")
    return np.ascontiguousarray(displacement)


# -- strain -----------------------------------------------------------------------------------------------------------
def expression_strain(model: FaceModel, params: FaceParams, size: int) -> np.ndarray:
    """Strain of the skin under the expression of a head.

    Returns:
        (3, size, size) float32: the Green strain E_uu, E_uv, E_vv between the neutral and the expressive mesh, in the
        unit frame (tangent_u, tangent_v) of the neutral one, smoothed by about 3 mm and within +-0.6. A line of skin
        along a unit vector d becomes sqrt(1 + 2 d.E.d) times as long. Zero where there is no skin.
    Raises:
        ParameterError: coefficients of another model, or a size as in `uv_fragments`.
    """
    neutral, expressive = head_vertices(model, params)
    return surface_strain(model, neutral, expressive, TangentFrame.of(model, neutral, size))


def wrinkle_gate(strain: np.ndarray) -> np.ndarray:
    """Weight (S, S) float32 0..1 of the expression generator's output, from the strain (3, S, S); 0 without strain."""
    size = np.sqrt(strain[0] ** 2 + 2 * strain[1] ** 2 + strain[2] ** 2)
    return np.minimum(size / FULL_WRINKLE_STRAIN, 1).astype(np.float32)


def surface_strain(model: FaceModel, before: np.ndarray, after: np.ndarray, frame: TangentFrame) -> np.ndarray:
    """`expression_strain` between two meshes (V, 3), in the frame of the first one."""
    size = len(frame.weight)
    tensor = _vertex_strain(model, before.astype(np.float64), after.astype(np.float64))
    weight = frame.weight.numpy(force=True)
    sigma = STRAIN_SIGMA_MM / _MM_PER_TEXEL_AT_512 * size / 512
    share = gaussian_filter(weight, sigma, mode="constant")
    baked = bake_planes(model, tensor, size)
    # Texels beyond the edge of a chart show another part of the head, and get no weight.
    smooth = [gaussian_filter(plane * weight, sigma, mode="constant") for plane in baked]
    xx, yy, zz, xy, xz, yz = np.stack(smooth) / np.maximum(share, 1e-6)
    symmetric = np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz]).reshape(3, 3, size, size)
    along_u, along_v = frame.tangent_u.numpy(force=True), frame.tangent_v.numpy(force=True)
    of_u, of_v = (np.einsum("ijab,jab->iab", symmetric, axis) for axis in (along_u, along_v))
    strain = np.stack([(along_u * of_u).sum(0), (along_u * of_v).sum(0), (along_v * of_v).sum(0)])
    return (strain.clip(-LARGEST_STRAIN, LARGEST_STRAIN) * weight).astype(np.float32)


def compression(strain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest compression of a strain (3, S, S), see `expression_strain`.

    Returns:
        magnitude: (S, S), the negated least principal strain, 0 where nothing is compressed.
        angle: (S, S) radians from tangent_u towards tangent_v, the direction in which the skin is shortened most;
            wrinkles run across it.
    """
    along_u, mixed, along_v = strain
    half = (along_u - along_v) / 2
    least = (along_u + along_v) / 2 - np.hypot(half, mixed)
    return np.maximum(-least, 0), np.arctan2(mixed, half) / 2 + np.float32(np.pi / 2)


def _vertex_strain(model: FaceModel, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Green strain at the vertices, the area-weighted mean over their triangles: (V, 6) xx, yy, zz, xy, xz, yz."""
    edges, deformed = (v[model.faces[:, 1:]] - v[model.faces[:, :1]] for v in (before, after))
    first, second = edges[:, 0], edges[:, 1]
    a, b, c = (first * first).sum(1), (first * second).sum(1), (second * second).sum(1)
    square = np.maximum(a * c - b * b, 1e-20)[:, None]  # of twice the area
    dual = (first * c[:, None] - second * b[:, None]) / square, (second * a[:, None] - first * b[:, None]) / square
    change = [
        ((deformed[:, i] * deformed[:, j]).sum(1) - (edges[:, i] * edges[:, j]).sum(1)) / 2
        for i, j in ((0, 0), (0, 1), (1, 1))
    ]
    area = np.sqrt(square[:, 0])
    rows, count = model.faces.reshape(-1), len(before)
    total = np.maximum(np.bincount(rows, np.repeat(area, 3), minlength=count), 1e-15)
    tensor = np.empty((count, 6))
    for column, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))):
        one, two = dual
        component = change[0] * one[:, i] * one[:, j] + change[2] * two[:, i] * two[:, j]
        component += change[1] * (one[:, i] * two[:, j] + two[:, i] * one[:, j])
        tensor[:, column] = np.bincount(rows, np.repeat(component * area, 3), minlength=count) / total
    return tensor


def _difference(values: Tensor, axis: int) -> Tensor:
    """Central difference (..., S, S) per texel along an axis.

    A weighted displacement is zero at the border of a chart, so that no difference mixes charts.
    """
    ahead, behind = ((-1, 1), (1, -1)) if axis == -1 else ((0, 0, -1, 1), (0, 0, 1, -1))
    return (torch.nn.functional.pad(values, ahead) - torch.nn.functional.pad(values, behind)) / 2


def _length(vectors: Tensor) -> Tensor:
    """Lengths (S, S) of vectors (3, S, S), never zero; a norm over a leading dimension is many times as slow."""
    x, y, z = vectors
    return (x * x + y * y + z * z).sqrt().clamp_min(1e-12)


def _within(vectors: Tensor, normal: Tensor) -> Tensor:
    """The part (3, S, S) of vectors that lies in the surface."""
    return vectors - normal * (vectors * normal).sum(0)


def _surface_derivatives(model: FaceModel, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dP/du and dP/dv (U, 3), means over the triangles around each texture coordinate weighted by their area in UV."""
    edges = vertices[model.faces[:, 1:]] - vertices[model.faces[:, :1]]
    du, dv = np.moveaxis(model.uv[model.uv_faces[:, 1:]] - model.uv[model.uv_faces[:, :1]], -1, 0).astype(float)
    area = du[:, 0] * dv[:, 1] - du[:, 1] * dv[:, 0]
    sign = np.sign(area)[:, None]
    along_u = sign * (edges[:, 0] * dv[:, 1:] - edges[:, 1] * dv[:, :1])
    along_v = sign * (edges[:, 1] * du[:, :1] - edges[:, 0] * du[:, 1:])
    rows, count = model.uv_faces.reshape(-1), len(model.uv)

    def scattered(per_face: np.ndarray) -> np.ndarray:
        return np.bincount(rows, np.repeat(per_face, 3), minlength=count)

    total = np.maximum(scattered(np.abs(area)), 1e-15)[:, None]
    along_u, along_v = (np.stack([scattered(column) for column in v.T], axis=1) / total for v in (along_u, along_v))
    return along_u, along_v


def _bake_corners(model: FaceModel, values: np.ndarray, size: int) -> Tensor:
    """Bake values (U, C) at the texture coordinates into a map (C, size, size); zero away from the charts."""
    per_model = _cache.setdefault(model, {})
    key = ("corners", size)
    if key not in per_model:
        fragments = uv_fragments(model, size)
        triangle = np.maximum(fragments.triangle.reshape(-1), 0)  # weights are zero where there is none
        rows = np.arange(0, 3 * size * size + 1, 3, dtype=np.int32)
        columns = model.uv_faces[triangle].astype(np.int32).reshape(-1)
        shape = size * size, len(model.uv)
        per_model[key] = csr_array((fragments.barycentric.reshape(-1), columns, rows), shape=shape)
    baked = per_model[key] @ values.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(baked.T).reshape(-1, size, size))


def _charts(model: FaceModel, size: int) -> tuple[np.ndarray, np.ndarray]:
    """UV charts, computed once per model and size.

    Returns:
        (size, size) index of each texel's chart, a connected component of the layout; 0 for none and for regions
        without displacement. (size^2,) flat index of the covered texel that each texel repeats, -1 for none.
    """
    per_model = _cache.setdefault(model, {})
    key = ("charts", size)
    if key not in per_model:
        fragments = uv_fragments(model, size)
        uv_faces = model.uv_faces
        links = np.concatenate([uv_faces[:, :2], uv_faces[:, 1:]]).T
        graph = coo_array((np.ones(links.shape[1], bool), tuple(links)), shape=(len(model.uv),) * 2)
        of_face = connected_components(graph, directed=False)[1][uv_faces[:, 0]] + 1
        of_face[without_displacement(model)[model.faces].all(axis=1)] = 0
        chart = np.where(fragments.covered, of_face[np.maximum(fragments.triangle, 0)], 0).astype(np.int64)
        nearest = distance_transform_edt(~fragments.covered, return_distances=False, return_indices=True)
        source = np.ravel_multi_index(tuple(nearest), chart.shape)
        per_model[key] = chart, np.where(fragments.triangle >= 0, source, -1).reshape(-1)
    return per_model[key]


def _checked_vertices(model: FaceModel, vertices: np.ndarray) -> np.ndarray:
    vertices = np.asarray(vertices)
    if vertices.shape != model.mean_vertices.shape:
        raise ParameterError("mesh.vertices_shape", expected=model.mean_vertices.shape, shape=vertices.shape)
    return vertices
