"""Triangle rasterization: visible triangle, barycentric coordinates, depth per pixel; differentiable in the vertices.

A triangle covers a pixel when it contains the pixel's centre (see camera.py); a centre on a shared edge belongs to
exactly one of the two triangles (top-left rule). The triangle of least depth is visible; equal depths go to the lowest
triangle index. Visibility is a discrete choice without gradient; torch recomputes barycentric coordinates and depth at
the covered pixels, and these carry the gradients.

Several backends compute visibility, with equal results; docs/backends.md compares them.
"""

import importlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from faceverse.errors import ParameterError
from faceverse.messages import reason_of

NEAR_M = 1e-3
"""Triangles with a vertex at this depth or nearer are skipped (they are not clipped)."""
MIN_SHAPE = 1e-6
"""Triangles with a height below this fraction of their longest edge are degenerate for float32, and skipped."""
DEPTH_TIE = 1e-9
"""Relative difference of inverse depth below which two surfaces count as equally near."""
LIMITS = (NEAR_M, MIN_SHAPE, DEPTH_TIE)
VARIABLE = "FACEVERSE_RASTERIZER"
"""The environment variable that names the backend of "auto"."""
CANDIDATES = 8
"""Triangles per pixel requested of pytorch3d (its default): more than one where a centre lies on an edge."""
FLOAT32_TIE = 1e-5
"""Relative difference of depths below which float64 decides the order of two triangles, not pytorch3d's float32."""
MAX_EXTENT_PX = 1e15
"""Triangles of this extent are not passed to pytorch3d, where their area would overflow."""


@dataclass(frozen=True)
class Fragments:
    """Visible surface at each pixel of N images.

    Attributes:
        triangle: (N, H, W) int64, index of the visible triangle, -1 where nothing is hit.
        barycentric: (N, H, W, 3) perspective-correct weights of its three corners, sum 1 on hits, 0 elsewhere.
        depth: (N, H, W) metres along the view axis, 0 where nothing is hit.
    """

    triangle: Tensor
    barycentric: Tensor
    depth: Tensor

    @cached_property
    def mask(self) -> Tensor:
        """(N, H, W) bool, True where a triangle is hit."""
        return self.triangle >= 0

    @cached_property
    def covered(self) -> Tensor:
        """(P,) int64, positions of the hit pixels in the flattened (N * H * W) images."""
        return self.mask.reshape(-1).nonzero().squeeze(1)


def rasterize(
    vertices_px: Tensor,
    faces: Tensor,
    image_size: tuple[int, int],
    *,
    backend: str = "auto",
    cull_backfaces: bool = False,
) -> Fragments:
    """Find the visible triangle, its barycentric coordinates and its depth at every pixel centre.

    Triangles with a vertex at depth <= NEAR_M, non-finite triangles and degenerate ones are skipped.

    Args:
        vertices_px: (N, V, 3) float32 or float64: x_px, y_px, depth in metres, positive in front of the camera.
        faces: (F, 3) integers, indices into the vertices; counter-clockwise on the screen when seen from outside.
        image_size: (H, W) in pixels.
        backend: "numba", "naive" (a slow reference), "pytorch3d" (if installed), or "auto": the one that the
            environment variable FACEVERSE_RASTERIZER names, else "pytorch3d" for vertices outside the CPU where it
            works, else "numba". All find the same triangles.
        cull_backfaces: skip triangles that are clockwise on the screen.

    Returns:
        Fragments on the device and in the dtype of ``vertices_px``; ``barycentric`` and ``depth`` are differentiable
        with respect to it.

    Raises:
        ParameterError: a wrong shape, dtype, index or image size, an unknown backend, or one that is not installed.
    """
    height, width = check_geometry(vertices_px, faces, image_size)
    if backend != "auto":
        check_backend(backend, "backend", BACKENDS)
    else:
        backend = choose_backend(vertices_px.device.type, os.environ.get(VARIABLE, ""), pytorch3d_works_on)
    with torch.no_grad():
        triangle = BACKENDS[backend](vertices_px.detach(), faces, (height, width), cull_backfaces)
    triangle = triangle.to(vertices_px.device)
    wants_gradient = torch.is_grad_enabled() and vertices_px.requires_grad
    if backend == "numba" and not wants_gradient and vertices_px.device.type == "cpu":
        return Fragments(triangle, *_numba_locate(vertices_px.detach(), faces, triangle))
    barycentric, depth = _locate(vertices_px, faces.to(vertices_px.device), triangle)
    return Fragments(triangle, barycentric, depth)


def choose_backend(device_type: str, variable: str, pytorch3d_works: Callable[[str], bool]) -> str:
    """Resolve the backend "auto".

    Args:
        device_type: of the vertices' device, "cpu" for example.
        variable: value of FACEVERSE_RASTERIZER; empty and "auto" choose by the device.
        pytorch3d_works: tests a device type; never called for the CPU, where numba is a thousand times faster.

    Raises:
        ParameterError: the variable names no backend.
    """
    variable = variable.strip()
    if variable not in ("", "auto"):
        check_backend(variable, f"The environment variable {VARIABLE}", BACKENDS)
        return variable
    return "pytorch3d" if device_type != "cpu" and pytorch3d_works(device_type) else "numba"


@cache
def pytorch3d_works_on(device_type: str) -> bool:
    """Whether pytorch3d is installed, loads and was built for this kind of device; tested on one triangle."""
    try:
        vertices = torch.tensor([[[0.2, 0.2, 1.0], [0.3, 2.9, 1.0], [2.9, 0.4, 1.0]]], device=device_type)
        faces = torch.tensor([[0, 1, 2]], device=device_type)
        return bool((_pytorch3d_triangles(vertices, faces, (2, 2), False) == 0).any())
    except (ParameterError, RuntimeError, TypeError):  # a TypeError comes from devices without float64
        return False


def interpolate(fragments: Fragments, attributes: Tensor, faces: Tensor) -> Tensor:
    """Interpolate vertex attributes over the visible surface.

    Args:
        fragments: the visible surface, from :func:`rasterize`.
        attributes: (N, V, C) or (1, V, C), one row per vertex.
        faces: (F, 3) integers into the V rows; may differ from the rasterized array if the rows correspond
            (``uv_faces``).

    Returns:
        (N, H, W, C), zero in the background; differentiable in ``attributes`` and ``fragments.barycentric``.

    Raises:
        ParameterError: ``attributes`` or ``faces`` has a wrong shape or batch size.
    """
    check_attributes(attributes, faces, len(fragments.triangle), fragments.triangle)
    stride = attributes.shape[1] if len(attributes) > 1 else 0
    rows = attributes.movedim(2, 0).reshape(attributes.shape[2], -1)
    values = gather_columns(rows, _corner_rows(fragments, faces.to(attributes.device), stride))
    weights = fragments.barycentric.movedim(3, 0).reshape(3, -1).index_select(1, fragments.covered)
    values = (values * weights.to(attributes.dtype)).sum(1)
    return _scatter(values, fragments.covered, fragments.triangle.shape)


def check_geometry(vertices_px: Tensor, faces: Tensor, image_size: tuple[int, int]) -> tuple[int, int]:
    """Validate the arguments of `rasterize` and return (H, W)."""
    if vertices_px.ndim != 3 or vertices_px.shape[2] != 3:
        raise ParameterError("raster.vertices_shape", shape=tuple(vertices_px.shape))
    if vertices_px.dtype not in (torch.float32, torch.float64):
        raise ParameterError("raster.vertices_dtype", dtype=vertices_px.dtype)
    try:
        height, width = (int(size) for size in image_size)
    except (TypeError, ValueError):
        raise ParameterError("raster.image_size", image_size=repr(image_size)) from None
    if height < 1 or width < 1:
        raise ParameterError("raster.image_empty", image_size=repr(image_size))
    check_faces(faces, vertices_px.shape[1])
    return height, width


def check_backend(name: str, what: str, known: Iterable[str]) -> None:
    """Raise ParameterError for a backend that is not among the known; `what` says where the name comes from."""
    if name not in known:
        names = ", ".join(map(repr, ("auto", *known)))
        raise ParameterError("raster.backend", what=what, name=repr(name), names=names)


def check_faces(faces: Tensor, vertex_count: int) -> None:
    """Raise ParameterError for indices that would make the kernel read out of bounds."""
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ParameterError("raster.faces_shape", shape=tuple(faces.shape))
    if faces.dtype not in (torch.int64, torch.int32):
        raise ParameterError("raster.faces_dtype", dtype=faces.dtype)
    if faces.numel():
        low, high = (int(bound) for bound in faces.aminmax())
        if low < 0 or high >= vertex_count:
            raise ParameterError("raster.faces_index", low=low, high=high, vertex_count=vertex_count)


def check_attributes(attributes: Tensor, faces: Tensor, count: int, triangle: Tensor) -> None:
    """Validate vertex attributes and faces that are interpolated at visible triangles of `count` images."""
    if attributes.ndim != 3 or attributes.shape[0] not in (1, count):
        raise ParameterError("raster.attributes_shape", shape=tuple(attributes.shape), batch=count)
    check_faces(faces, attributes.shape[1])
    if triangle.numel() and int(triangle.max()) >= len(faces):
        raise ParameterError("raster.faces_count", found=len(faces), needed=int(triangle.max()) + 1)


# Below, pixels are the last axis: on a CPU, torch is several times faster with (C, P) than with (P, C).


def gather_columns(rows: Tensor, corners: Tensor) -> Tensor:
    """Columns of (C, R) at (3, P) indices -> (C, 3, P)."""
    return rows.index_select(1, corners.reshape(-1)).reshape(len(rows), *corners.shape)


def _scatter(values: Tensor, covered: Tensor, shape: torch.Size) -> Tensor:
    """Scatter (C, P) values to the covered pixels of images (N, H, W) -> (N, H, W, C), zero elsewhere."""
    images = values.new_zeros(len(values), shape.numel()).index_copy_(1, covered, values)
    return images.reshape(len(values), *shape).movedim(0, 3)


def _corner_rows(fragments: Fragments, faces: Tensor, stride: int) -> Tensor:
    """(3, P) corners at the covered pixels as rows of a flattened (N * stride, C) array; stride 0: shared rows."""
    count, height, width = fragments.triangle.shape
    triangle = fragments.triangle.reshape(-1).index_select(0, fragments.covered)
    corners = faces.index_select(0, triangle).t().long().contiguous()
    if count > 1 and stride:
        corners = corners + fragments.covered // (height * width) * stride
    return corners


def _locate(vertices_px: Tensor, faces: Tensor, triangle: Tensor) -> tuple[Tensor, Tensor]:
    """Perspective-correct barycentric weights (N, H, W, 3) and depth (N, H, W) of the visible triangles."""
    count, height, width = triangle.shape
    hits = Fragments(triangle, vertices_px, vertices_px)
    rows = vertices_px.movedim(2, 0).reshape(3, -1)
    x, y, depth = gather_columns(rows, _corner_rows(hits, faces, vertices_px.shape[1]))
    # Relative to the pixel centre all coordinates are small, which preserves float32 precision.
    column, row = (torch.arange(size, dtype=rows.dtype, device=rows.device) + 0.5 for size in (width, height))
    x = x - column.expand(triangle.shape).reshape(-1).index_select(0, hits.covered)
    y = y - row.unsqueeze(1).expand(triangle.shape).reshape(-1).index_select(0, hits.covered)
    located = _scatter(locate_points(x, y, depth), hits.covered, triangle.shape)
    return located[..., :3], located[..., 3]


def locate_points(x: Tensor, y: Tensor, depth: Tensor) -> Tensor:
    """Perspective-correct weights of three corners at the origin, and the depth there.

    Args:
        x, y, depth: (3, P) of the corners, in pixels from the point and in metres.

    Returns:
        (4, P).
    """
    (x0, x1, x2), (y0, y1, y2) = x.unbind(), y.unbind()
    areas = torch.stack((x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1))
    weights = areas / depth
    total = weights.sum(0, keepdim=True)
    return torch.cat((weights, areas.sum(0, keepdim=True))) / total


def import_kernels() -> ModuleType:
    """The compiled kernels, or an error that says what to install."""
    try:
        return importlib.import_module("faceverse.graphics._raster_kernel")
    except ImportError as error:
        raise ParameterError("raster.no_numba", reason=reason_of(error)) from error


def _numba_triangles(vertices_px: Tensor, faces: Tensor, size: tuple[int, int], cull_backfaces: bool) -> Tensor:
    """(N, H, W) visible triangles by the compiled kernel, on one core."""
    kernels = import_kernels()
    triangle = np.full((len(vertices_px), *size), -1, dtype=np.int64)
    inverse_depth = np.zeros(triangle.shape)
    vertices, corners = vertices_px.cpu().contiguous().numpy(), faces.cpu().contiguous().numpy()
    kernels.fill_triangles(vertices, corners, LIMITS, cull_backfaces, inverse_depth, triangle)
    return torch.from_numpy(triangle)


def _numba_locate(vertices_px: Tensor, faces: Tensor, triangle: Tensor) -> tuple[Tensor, Tensor]:
    """`_locate` without gradients, by the compiled kernel."""
    barycentric = vertices_px.new_empty((*triangle.shape, 3))
    depth = vertices_px.new_empty(triangle.shape)
    import_kernels().locate_triangles(
        vertices_px.contiguous().numpy(), faces.cpu().contiguous().numpy(), triangle.numpy(),
        barycentric.numpy(), depth.numpy(),
    )  # fmt: skip
    return barycentric, depth


def usable_triangles(corners: Tensor, cull_backfaces: bool) -> Tensor:
    """(F,) bool: triangles (F, 3, 3) in front of the near plane, finite and not degenerate."""
    edges = corners[:, (1, 2, 0), :2] - corners[:, :, :2]
    area = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    usable = (corners[:, :, 2] > NEAR_M).all(1) & torch.isfinite(corners).all((1, 2)) & torch.isfinite(area)
    usable &= area.abs() > MIN_SHAPE * (edges**2).sum(2).amax(1)
    return usable & (area < 0) if cull_backfaces else usable


def hit_test(corners: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Whether points lie in triangles by the top-left rule, and 1 / depth of the triangles there.

    Args:
        corners: (..., 3, 3) float64, three points (x_px, y_px, depth) per triangle.
        x, y: float64, of a shape that broadcasts with the triangles'.
    """
    points = corners.unbind(-2)
    (ax, ay), (bx, by), (cx, cy) = (point[..., :2].unbind(-1) for point in points)
    clockwise = ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax) > 0).unsqueeze(-1)
    inside, areas = torch.ones_like(clockwise.squeeze(-1)), []
    for i, j in ((1, 2), (2, 0), (0, 1)):
        start = torch.where(clockwise, points[i], points[j])[..., :2]
        end = torch.where(clockwise, points[j], points[i])[..., :2]
        dx, dy = (end - start).unbind(-1)
        # Edge values are relative to the lexicographically smaller end: exactly opposite in the two triangles.
        start_is_less = (start[..., 0] < end[..., 0]) | ((start[..., 0] == end[..., 0]) & (start[..., 1] < end[..., 1]))
        base_x, base_y = torch.where(start_is_less.unsqueeze(-1), start, end).unbind(-1)
        area = dx * (y - base_y) - dy * (x - base_x)
        top_left = (dy < 0) | ((dy == 0) & (dx > 0))
        inside = inside & ((area > 0) | (top_left & (area == 0)))
        areas.append(area)
    first, second, third = areas
    weighted = first / points[0][..., 2] + second / points[1][..., 2] + third / points[2][..., 2]
    return inside, weighted / (first + second + third)


def _naive_triangles(vertices_px: Tensor, faces: Tensor, size: tuple[int, int], cull_backfaces: bool) -> Tensor:
    """(N, H, W) visible triangles by testing every triangle at every pixel."""
    vertices_px, faces = vertices_px.cpu().double(), faces.cpu().long()
    rows, columns = (torch.arange(length, dtype=torch.float64, device="cpu") + 0.5 for length in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    triangle = torch.full((len(vertices_px), *size), -1, device="cpu")
    for n, corners in enumerate(vertices_px[:, faces]):
        nearest = torch.zeros_like(x)
        for f in usable_triangles(corners, cull_backfaces).nonzero().squeeze(1).tolist():
            inside, inverse_depth = hit_test(corners[f], x, y)
            wins = inside & (inverse_depth > nearest * (1 + DEPTH_TIE))
            nearest[wins], triangle[n][wins] = inverse_depth[wins], f
    return triangle


def _import_pytorch3d() -> tuple:
    """(rasterize_meshes, Meshes) of pytorch3d, or an error that says what to install."""
    try:
        from pytorch3d.renderer import rasterize_meshes
        from pytorch3d.structures import Meshes
    except (ImportError, OSError) as error:
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("pytorch3d")
        code = "raster.no_pytorch3d" if missing else "raster.pytorch3d_broken"
        raise ParameterError(code, reason=" ".join(str(error).split())) from error
    return rasterize_meshes, Meshes


def _pytorch3d_triangles(vertices_px: Tensor, faces: Tensor, size: tuple[int, int], cull_backfaces: bool) -> Tensor:
    """(N, H, W) visible triangles by pytorch3d: it finds the nearest candidates, float64 decides between close ones.

    Its float32 test leaves pixels empty whose centre lies on an edge, and defines no order among equal depths.
    """
    rasterize_meshes, meshes = _import_pytorch3d()
    faces = faces.to(vertices_px.device).long()
    triangle = torch.full((len(vertices_px), *size), -1, device=vertices_px.device)
    for n, vertices in enumerate(vertices_px):
        corners = vertices[faces].double()
        rows = _on_picture(corners, size, cull_backfaces).nonzero().squeeze(1)
        if not len(rows):
            continue
        # Its screen has +x left, +y up, and -1 and 1 at the borders of the shorter side.
        extent = vertices.new_tensor([size[1], size[0]])
        screen = torch.cat(((extent - 2 * vertices[:, :2]) / min(size), vertices[:, 2:]), 1).float().nan_to_num()
        # Points outside by less than float32's precision count as inside, up to a pixel.
        reach = min(2**-21 * max(1.0, float(screen[faces[rows], :2].abs().max())), 2 / min(size))
        try:
            index, depth, _, distance = rasterize_meshes(
                meshes(verts=[screen], faces=[faces[rows]]), size, blur_radius=reach**2, faces_per_pixel=CANDIDATES,
                max_faces_per_bin=len(rows),  # with fewer, bins overflow on some devices and drop triangles
                perspective_correct=True, clip_barycentric_coords=True,
            )  # fmt: skip
        except RuntimeError as error:
            if "Not compiled" not in str(error):
                raise
            raise ParameterError("raster.pytorch3d_device", device=vertices.device) from error
        index, depth, distance = index[0], depth[0], distance[0, :, :, 0]
        candidates = torch.where(index >= 0, rows[index.clamp(min=0)], index)
        triangle[n] = candidates[:, :, 0]
        close = (candidates[:, :, 1] >= 0) & (depth[:, :, 1] <= depth[:, :, 0] * (1 + FLOAT32_TIE))
        doubtful = (candidates[:, :, 0] >= 0) & (close | (distance.abs() < reach**2))
        triangle[n][doubtful] = _visible_candidate(corners, candidates[doubtful], doubtful.nonzero())
    return triangle


def _on_picture(corners: Tensor, size: tuple[int, int], cull_backfaces: bool) -> Tensor:
    """(F,) bool: usable triangles (F, 3, 3) whose bounding box overlaps the pixel centres."""
    low, high = corners[:, :, :2].amin(1), corners[:, :, :2].amax(1)
    last = corners.new_tensor([size[1], size[0]]) - 0.5
    meets = (high >= 0.5).all(1) & (low <= last).all(1)
    return usable_triangles(corners, cull_backfaces) & meets & (high - low < MAX_EXTENT_PX).all(1)


def _visible_candidate(corners: Tensor, candidates: Tensor, pixels: Tensor) -> Tensor:
    """(P,) the visible triangle among the candidates at each pixel in float64, -1 for none.

    Args:
        corners: (F, 3, 3) float64.
        candidates: (P, K) triangles from near to far, padded with -1.
        pixels: (P, 2) row and column.
    """
    y, x = (pixels.double() + 0.5).unsqueeze(-1).unbind(1)
    inside, inverse_depth = hit_test(corners[candidates.clamp(min=0)], x, y)
    inverse_depth = torch.where(inside & (candidates >= 0), inverse_depth, 0)
    nearest = inverse_depth.amax(1, keepdim=True)
    wins = (nearest > 0) & (inverse_depth * (1 + DEPTH_TIE) >= nearest)
    lowest = torch.where(wins, candidates, len(corners)).amin(1)
    # With all K candidates taken, the covering triangle may be missing: then the nearest one, its neighbour.
    unknown = torch.where(candidates[:, -1] >= 0, candidates[:, 0], -1)
    return torch.where(wins.any(1), lowest, unknown)


BACKENDS = {
    "numba": _numba_triangles,
    "naive": _naive_triangles,
    "pytorch3d": _pytorch3d_triangles,
}
