"""Rasterization of several layers: the nearest triangles at each pixel, sorted, for surfaces that one sees through.

`rasterize_layers` finds them in front of an opaque surface, by the rules of `rasterize`: it skips the same triangles,
covers the same pixel centres, and orders equal depths by triangle index. Its nearest layer is what `rasterize` finds.
`faceverse.graphics.compositing` blends the layers.

Few pixels of a picture show hair or lashes, and few of those all layers. So layers are a list of hits, sorted by pixel
and from near to far, with as many elements as there are hits (an A-buffer: Carpenter 1984, "The A-buffer, an
antialiased hidden surface method"). Values at the P hits are (C, P), the layout in which torch is fastest on a CPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..errors import ParameterError
from .rasterize import (
    DEPTH_TIE,
    FLOAT32_TIE,
    LIMITS,
    VARIABLE,
    Fragments,
    check_attributes,
    check_backend,
    check_geometry,
    choose_backend,
    gather_columns,
    hit_test,
    import_kernels,
    locate_points,
    usable_triangles,
)


@dataclass(frozen=True)
class Layers:
    """The P hits of the nearest triangles at each pixel of N images.

    Attributes:
        hits: (N, H, W) int64, number of all triangles that cover the pixel in front of the opaque surface.
        first, last: the list holds layers ``first`` to ``last - 1`` of each pixel, 0 being the nearest.
        pixel: (P,) int64, positions in the flattened (N * H * W) images, ascending; from near to far within a pixel.
        triangle: (P,) int64.
        weights: (3, P) perspective-correct barycentric coordinates, sum 1.
        depth: (P,) metres along the view axis.
    """

    hits: Tensor
    first: int
    last: int
    pixel: Tensor
    triangle: Tensor
    weights: Tensor
    depth: Tensor

    @cached_property
    def incomplete(self) -> Tensor:
        """(N, H, W) bool, True where more triangles lie behind the last layer of the list."""
        return self.hits > self.last

    @cached_property
    def covered(self) -> Tensor:
        """(Q,) int64, positions of the pixels that occur in the list, ascending."""
        return self._runs[0]

    @cached_property
    def counts(self) -> Tensor:
        """(Q,) int64, number of hits in the list at each covered pixel."""
        return self._runs[1]

    @cached_property
    def starts(self) -> Tensor:
        """(Q,) int64, place in the list of the nearest hit at each covered pixel."""
        return self.counts.cumsum(0) - self.counts

    @cached_property
    def _runs(self) -> tuple[Tensor, Tensor]:
        covered, counts = torch.unique_consecutive(self.pixel, return_counts=True)
        return covered, counts

    @cached_property
    def layer(self) -> Tensor:
        """(P,) int64 in first..last-1, layer of each hit."""
        within = torch.arange(len(self.pixel), device=self.pixel.device) - self.starts.repeat_interleave(self.counts)
        return self.first + within

    def parts(self, size: int) -> Iterator[Layers]:
        """Lists of about ``size`` hits that together are this one; a pixel's hits stay together."""
        bucket = self.starts // size
        cuts = self.starts[1:][bucket[1:] != bucket[:-1]].tolist()
        for start, end in pairwise([0, *cuts, len(self.pixel)]):
            here = slice(start, end)
            yield replace(
                self, pixel=self.pixel[here], triangle=self.triangle[here], weights=self.weights[:, here],
                depth=self.depth[here],
            )  # fmt: skip

    def images(self) -> Fragments:
        """The layers as images: Fragments of shape (N, K, H, W) with K = last - first, from near to far."""
        count, height, width = self.hits.shape
        depth = self.last - self.first
        image, position = self.pixel // (height * width), self.pixel % (height * width)
        place = (image * depth + self.layer - self.first) * height * width + position
        shape = (count, depth, height, width)
        triangle = self.triangle.new_full((count * depth * height * width,), -1).index_copy(0, place, self.triangle)
        located = self.depth.new_zeros(4, len(triangle))
        located = located.index_copy(1, place, torch.cat((self.weights, self.depth[None])))
        return Fragments(
            triangle.reshape(shape), located[:3].reshape(3, *shape).movedim(0, -1), located[3].reshape(shape)
        )


def rasterize_layers(
    vertices_px: Tensor,
    faces: Tensor,
    image_size: tuple[int, int],
    *,
    layers: int = 8,
    skip: int = 0,
    in_front_of: Tensor | None = None,
    backend: str = "auto",
    cull_backfaces: bool = False,
) -> Layers:
    """Find the nearest triangles at every pixel centre, their barycentric coordinates and depths.

    Nothing is lost: ``hits`` counts all triangles, and ``skip=layers`` finds those behind the first ``layers``.

    Args:
        vertices_px, faces, image_size, cull_backfaces: as for `rasterize`.
        layers: largest number of triangles at a pixel, 1 or more.
        skip: number of nearest triangles at each pixel that are left out.
        in_front_of: (N, H, W) depth in metres of an opaque surface, 0 where there is none. Triangles that are not
            nearer are left out, those at its very depth (by float32's precision, if it is float32) among them.
        backend: "numba", "naive" (a slow reference), or "auto": the one that the environment variable
            FACEVERSE_RASTERIZER names, and "numba" where it names one that has no layers. Both find the same triangles.

    Returns:
        Layers on the device and in the dtype of ``vertices_px``; ``weights`` and ``depth`` are differentiable with
        respect to it.

    Raises:
        ParameterError: a wrong shape, dtype, index or number, an unknown backend, or one that is not installed.
    """
    height, width = check_geometry(vertices_px, faces, image_size)
    shape = (len(vertices_px), height, width)
    if layers < 1 or skip < 0:
        raise ParameterError("raster.layers_count", layers=layers, skip=skip)
    if in_front_of is not None and (tuple(in_front_of.shape) != shape or not in_front_of.is_floating_point()):
        raise ParameterError(
            "raster.in_front_of", shape=tuple(in_front_of.shape), dtype=in_front_of.dtype, expected=shape
        )
    if backend == "auto":
        backend = choose_backend("cpu", os.environ.get(VARIABLE, ""), lambda kind: False)
        backend = backend if backend in LAYER_BACKENDS else "numba"
    check_backend(backend, "backend", LAYER_BACKENDS)
    with torch.no_grad():
        least = _least_inverse_depth(in_front_of, shape)
        hits, triangle = LAYER_BACKENDS[backend](vertices_px.detach(), faces, least, skip + layers, cull_backfaces)
        counts = hits.clamp(max=skip + layers).reshape(-1)
        covered = counts.nonzero().squeeze(1)
        counts = counts[covered]
        pixel = covered.repeat_interleave(counts)
        if skip:
            within = torch.arange(len(pixel), device="cpu") - (counts.cumsum(0) - counts).repeat_interleave(counts)
            pixel, triangle = pixel[within >= skip], triangle[within >= skip]
        hits, pixel, triangle = (values.to(vertices_px.device) for values in (hits, pixel, triangle))
    located = _locate(vertices_px, faces, shape, pixel, triangle)
    return Layers(hits, skip, skip + layers, pixel, triangle, located[:3], located[3])


def interpolate_layers(layers: Layers, attributes: Tensor, faces: Tensor, weights: Tensor | None = None) -> Tensor:
    """Interpolate vertex attributes at the hits.

    Args:
        layers: from `rasterize_layers`.
        attributes: (N, V, C) or (1, V, C), one row per vertex.
        faces: (F, 3) integers into the V rows; may differ from the rasterized array if the rows correspond
            (``uv_faces``).
        weights: (3, P) other weights of the corners, such as derivatives; default: the barycentric coordinates.

    Returns:
        (C, P), differentiable in ``attributes`` and the weights.

    Raises:
        ParameterError: ``attributes`` or ``faces`` has a wrong shape or batch size.
    """
    check_attributes(attributes, faces, len(layers.hits), layers.triangle)
    stride = attributes.shape[1] if len(attributes) > 1 else 0
    corners = _corner_rows(layers.hits.shape, faces.to(attributes.device), layers.pixel, layers.triangle, stride)
    values = gather_columns(attributes.movedim(2, 0).reshape(attributes.shape[2], -1), corners)
    return (values * (layers.weights if weights is None else weights).to(attributes.dtype)).sum(1)


def barycentric_derivatives(layers: Layers, vertices_px: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Change of the barycentric coordinates per pixel to the right, and per pixel down.

    With `interpolate_layers` they give the derivatives of any attribute, such as the area of a texture that a pixel
    covers: `interpolate_layers(layers, uv, uv_faces, along_x)`.

    Args:
        layers: from `rasterize_layers` of ``vertices_px`` (N, V, 3) and ``faces`` (F, 3).

    Returns:
        Two tensors (3, P).
    """
    rows, stride = vertices_px.movedim(2, 0).reshape(3, -1), vertices_px.shape[1]
    corners = _corner_rows(layers.hits.shape, faces.to(rows.device), layers.pixel, layers.triangle, stride)
    x, y, depth = gather_columns(rows, corners)
    # The weights of `locate_points` before their division by their sum are areas / depth, and areas are linear in x, y.
    (x0, x1, x2), (y0, y1, y2) = x.unbind(), y.unbind()
    changes = torch.stack((y1 - y2, y2 - y0, y0 - y1)) / depth, torch.stack((x2 - x1, x0 - x2, x1 - x0)) / depth
    scale = layers.depth / (x0 * (y1 - y2) + x1 * (y2 - y0) + x2 * (y0 - y1))
    along_x, along_y = ((change - layers.weights * change.sum(0)) * scale for change in changes)
    return along_x, along_y


def _least_inverse_depth(in_front_of: Tensor | None, shape: tuple[int, int, int]) -> Tensor:
    """(N, H, W) float64 on the CPU: the inverse depth that hits must exceed, 0 where any will do."""
    if in_front_of is None:
        return torch.zeros(shape, dtype=torch.float64, device="cpu")
    tie = DEPTH_TIE if in_front_of.dtype == torch.float64 else FLOAT32_TIE
    depth = in_front_of.detach().cpu().double()
    return torch.where(depth > 0, (1 + tie) / depth, 0)


def _corner_rows(shape: torch.Size, faces: Tensor, pixel: Tensor, triangle: Tensor, stride: int) -> Tensor:
    """(3, P) corners of the hits as rows of a flattened (N * stride, C) array; stride 0: shared rows."""
    corners = faces.index_select(0, triangle.to(faces.device)).t().long().contiguous()
    if shape[0] > 1 and stride:
        corners = corners + pixel.to(faces.device) // (shape[1] * shape[2]) * stride
    return corners


def _locate(vertices_px: Tensor, faces: Tensor, shape: tuple[int, int, int], pixel: Tensor, triangle: Tensor) -> Tensor:
    """(4, P) perspective-correct barycentric weights and depth of the hits."""
    if vertices_px.device.type == "cpu" and not (torch.is_grad_enabled() and vertices_px.requires_grad):
        located = vertices_px.new_empty(4, len(pixel))
        import_kernels().locate_layers(
            vertices_px.detach().contiguous().numpy(), faces.cpu().contiguous().numpy(), shape[1:], pixel.numpy(),
            triangle.numpy(), located.numpy(),
        )  # fmt: skip
        return located
    rows = vertices_px.movedim(2, 0).reshape(3, -1)
    corners = _corner_rows(torch.Size(shape), faces.to(rows.device), pixel, triangle, vertices_px.shape[1])
    x, y, depth = gather_columns(rows, corners)
    column, row = pixel % shape[2], pixel // shape[2] % shape[1]
    # Relative to the pixel centre all coordinates are small, which preserves float32 precision.
    return locate_points(x - (column + 0.5), y - (row + 0.5), depth)


def _numba_layers(
    vertices_px: Tensor, faces: Tensor, least: Tensor, layers: int, cull_backfaces: bool
) -> tuple[Tensor, Tensor]:
    """All hits (N, H, W), and the nearest triangles (P,) sorted by pixel and depth, by the compiled kernel.

    The first call counts hits, the second one fills lists of the right lengths.
    """
    arrays = vertices_px.cpu().contiguous().numpy(), faces.cpu().contiguous().numpy(), LIMITS, cull_backfaces
    fill_triangles = import_kernels().fill_triangles
    starts, hits = np.zeros(least.numel() + 1, np.int64), np.zeros(least.shape, np.int64)
    fill_triangles(*arrays, least.numpy(), hits, (starts, np.zeros(0), np.zeros(0, np.int64)))
    np.minimum(hits.reshape(-1), layers, out=starts[1:])
    np.cumsum(starts, out=starts)
    triangle = np.zeros(starts[-1], np.int64)
    if len(triangle):
        lists = starts, np.zeros(len(triangle)), triangle
        fill_triangles(*arrays, least.numpy(), np.zeros(hits.shape, np.int64), lists)
    return torch.from_numpy(hits), torch.from_numpy(triangle)


def _naive_layers(
    vertices_px: Tensor, faces: Tensor, least: Tensor, layers: int, cull_backfaces: bool
) -> tuple[Tensor, Tensor]:
    """All hits and the nearest triangles, by testing every triangle at every pixel and inserting it into a list."""
    vertices_px, faces = vertices_px.cpu().double(), faces.cpu().long()
    rows, columns = (torch.arange(length, dtype=torch.float64, device="cpu") + 0.5 for length in least.shape[1:])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    found: list[list[tuple[float, int]]] = [[] for _ in range(least.numel())]
    for n, corners in enumerate(vertices_px[:, faces]):
        for f in usable_triangles(corners, cull_backfaces).nonzero().squeeze(1).tolist():
            inside, inverse_depth = hit_test(corners[f], x, y)
            for i, j in (inside & (inverse_depth > least[n] * (1 + DEPTH_TIE))).nonzero().tolist():
                value, pixel = float(inverse_depth[i, j]), found[(n * least.shape[1] + i) * least.shape[2] + j]
                farther = (k for k, (other, _) in enumerate(pixel) if value > other * (1 + DEPTH_TIE))
                pixel.insert(next(farther, len(pixel)), (value, f))
    hits = torch.tensor([len(pixel) for pixel in found], dtype=torch.int64, device="cpu").reshape(least.shape)
    triangles = [f for pixel in found for _, f in pixel[:layers]]
    return hits, torch.tensor(triangles, dtype=torch.int64, device="cpu")


LAYER_BACKENDS = {"numba": _numba_layers, "naive": _naive_layers}
