"""Compositing of layers in front of an opaque picture: the "over" operator in linear light.

Porter and Duff 1984, "Compositing digital images": colours times alpha add up, each weighted by the light that the
layers before it let through. Layers that pass through each other come out right, because `rasterize_layers` sorts them
at each pixel; the order of meshes and triangles does not matter.

Pictures are (C, N, H, W): any channels that blend like colours. A channel of ones gives coverage, a channel of depth
the depth times coverage.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import ParameterError
from .layers import Layers, rasterize_layers
from .rasterize import NEAR_M

LEAST_TRANSMITTANCE = 1e-4
"""Pixels that let through less are finished: a white light behind changes black by a third of an 8-bit sRGB step."""
MAX_HITS = 1 << 20
"""Longer lists are shaded in parts, which bounds the memory."""


def composite(layers: Layers, colours: Tensor, alphas: Tensor, background: Tensor) -> Tensor:
    """Composite the layers of a list over a background.

    Args:
        layers: from `rasterize_layers`; layers that it leaves out stay out of the picture.
        colours: (C, P) at the hits, linear light, not premultiplied.
        alphas: (P,) in 0..1: opacity of the hits, or the share of the pixel that they cover.
        background: (C, N, H, W) linear light; premultiplied where it is itself covered in part.

    Returns:
        (C, N, H, W), differentiable in all three.

    Raises:
        ParameterError: shapes that do not belong together.
    """
    _check(layers, colours, alphas, background)
    return _Front(layers, background).add(layers, colours, alphas).over(background)


def composite_layers(
    vertices_px: Tensor,
    faces: Tensor,
    shade: Callable[[Layers], tuple[Tensor, Tensor]],
    background: Tensor,
    *,
    in_front_of: Tensor | None = None,
    layers: int = 8,
    backend: str = "auto",
    cull_backfaces: bool = False,
) -> Tensor:
    """Rasterize, shade and composite all layers, however many there are.

    The nearest ``layers`` of each pixel come first. Where triangles are left and light still comes through, further
    ones follow, twice as many each time, so that hidden layers are never shaded and the picture is exact.

    Args:
        vertices_px, faces, in_front_of, backend, cull_backfaces: as for `rasterize_layers`.
        shade: computes (C, P) colours in linear light, not premultiplied, and (P,) alphas in 0..1 at the hits of a
            list, which holds about `MAX_HITS` of them at most.
        background: (C, N, H, W), see `composite`.
        layers: number of layers of the first pass.

    Returns:
        (C, N, H, W), differentiable in the background and, as far as ``shade`` is, in the vertices.

    Raises:
        ParameterError: as for `rasterize_layers` and `composite`.
    """
    skip, front = 0, None
    while True:
        hits = rasterize_layers(
            vertices_px, faces, (background.shape[-2], background.shape[-1]), layers=layers, skip=skip,
            in_front_of=in_front_of, backend=backend, cull_backfaces=cull_backfaces,
        )  # fmt: skip
        front = front or _Front(hits, background)
        for part in hits.parts(MAX_HITS):
            colours, alphas = shade(part)
            _check(part, colours, alphas, background)
            front.add(part, colours, alphas)
        open_pixels = front.covered[front.transmittance >= LEAST_TRANSMITTANCE]
        open_pixels = open_pixels[hits.incomplete.reshape(-1)[open_pixels]]
        if not len(open_pixels):
            return front.over(background)
        if in_front_of is None:
            in_front_of = background.new_zeros(hits.hits.shape)
        # Nothing lies in front of the near plane: finished pixels get no further hits.
        finished = torch.full_like(in_front_of, NEAR_M).reshape(-1)
        in_front_of = finished.index_copy(0, open_pixels, in_front_of.reshape(-1)[open_pixels]).reshape(hits.hits.shape)
        skip, layers = skip + layers, 2 * layers


class _Front:
    """What the layers composited so far show of Q pixels: (C, Q) premultiplied colours, (Q,) transmittance."""

    def __init__(self, layers: Layers, background: Tensor) -> None:
        self.covered = layers.covered
        self.colours = background.new_zeros(len(background), len(self.covered))
        self.transmittance = background.new_ones(len(self.covered))

    def add(self, layers: Layers, colours: Tensor, alphas: Tensor) -> _Front:
        """Add layers that lie behind those so far."""
        rows = torch.searchsorted(self.covered, layers.covered)
        for k in range(int(layers.counts.max()) if len(rows) else 0):
            deep = (layers.counts > k).nonzero().squeeze(1)
            hits, pixels = layers.starts[deep] + k, rows[deep]
            light, alpha = self.transmittance[pixels], alphas[hits].to(self.colours.dtype)
            seen = colours[:, hits].to(self.colours.dtype) * (light * alpha)
            self.colours = self.colours.index_add(1, pixels, seen)
            self.transmittance = self.transmittance.index_copy(0, pixels, light * (1 - alpha))
        return self

    def over(self, background: Tensor) -> Tensor:
        """Composite over the background (C, N, H, W)."""
        flat = background.reshape(len(background), -1)
        seen = self.colours + flat[:, self.covered] * self.transmittance
        return flat.index_copy(1, self.covered, seen).reshape(background.shape)


def _check(layers: Layers, colours: Tensor, alphas: Tensor, background: Tensor) -> None:
    """Raise ParameterError for shapes that do not belong together."""
    count, images = len(layers.pixel), tuple(layers.hits.shape)
    expected = (len(background), count), (count,), (len(background), *images)
    found = tuple(colours.shape), tuple(alphas.shape), tuple(background.shape)
    if found != expected:
        raise ParameterError("raster.composite_shapes", found=found, expected=expected)
