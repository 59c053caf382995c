"""Places on a posed head where a picture is shaded: what is seen of the opaque mesh, and hits of transparent layers.

Colours and vectors at P places are (3, P), the layout in which torch is fastest. Conventions: see camera.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..graphics.camera import Camera, project
from ..graphics.layers import Layers, barycentric_derivatives
from ..graphics.rasterize import Fragments, rasterize
from ..parts.part import EYE_SLOTS, STRAND_SLOTS
from .posed import PosedHead, PosedMesh


@dataclass(frozen=True)
class Samples:
    """P places on a mesh of a posed head.

    Attributes:
        mesh: of the head.
        vertices_px: (V, 3) of the mesh in the supersampled picture: x, y, depth in metres.
        per_pixel: number of samples along each side of a pixel.
        triangle: (P,) of the mesh.
        weights: (3, P) barycentric coordinates.
        depth: (P,) metres.
    """

    head: PosedHead
    mesh: PosedMesh
    vertices_px: Tensor = field(repr=False)
    per_pixel: int
    triangle: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)
    depth: Tensor = field(repr=False)

    def located(self) -> Tensor:
        """(2, P): coverage, which is 1, and depth."""
        return torch.stack([torch.ones_like(self.depth), self.depth])

    def interpolated(self, values: Tensor, corners: Tensor, where: Tensor | None = None) -> Tensor:
        """Vertex values (V, C) at the places, or at some of them: (C, P).

        Args:
            corners: (3, F) of the mesh or its texture.
        """
        rows = values.t().contiguous()
        triangle, weights = self.triangle, self.weights
        if where is not None:
            triangle, weights = triangle[where], weights[:, where]
        corners = corners.index_select(1, triangle)
        first, second, third = (rows.index_select(1, corners[k]) * weights[k] for k in range(3))
        return first + second + third

    @cached_property
    def on_parts(self) -> Tensor:
        """Indices of the places on parts, not on the skin."""
        first = 0 if self.mesh.parts[0] is not None else self.mesh.first[1]
        return (self.triangle >= first).nonzero().squeeze(1)

    def by_part(self) -> Iterator[tuple[int, Tensor]]:
        """Surfaces of the parts that are seen, with the indices of their places."""
        surface = self.mesh.surface_of(self.triangle[self.on_parts])
        for number, part in enumerate(self.mesh.parts):
            if part is not None and len(here := self.on_parts[surface == number]):
                yield number, here

    @cached_property
    def uv(self) -> Tensor:
        """(2, P) texture coordinates."""
        return self.interpolated(self.mesh.uv, self.mesh.uv_corners)

    @cached_property
    def albedo(self) -> Tensor:
        """(3, P) linear RGB of the textures."""
        colours = _looked_up(self.head.texture(0, self.vertices_px), self.uv)
        for surface, here in self.by_part():
            texture = self.head.texture(surface, self.vertices_px)
            colours = colours.index_copy(1, here, _looked_up(texture, self.uv[:, here]))
        return colours

    @cached_property
    def normals(self) -> Tensor:
        """(3, P) unit normals in camera space, flipped where the back of the surface is visible."""
        return self.normals_at(None)

    def normals_at(self, where: Tensor | None) -> Tensor:
        """(3, K) normals at some of the places; those of hair point out of it, whichever side of a card is seen."""
        normals = unit(self.interpolated(self.mesh.normals, self.mesh.corners, where))
        triangle = self.triangle if where is None else self.triangle[where]
        if where is None:
            clockwise = _clockwise(self.corners_px)[triangle]
        else:
            clockwise = _clockwise(self.vertices_px[self.mesh.faces[triangle]][..., :2])
        if self.mesh.strands is not None:
            clockwise &= ~self._hair_triangles[triangle]
        return torch.where(clockwise, -normals, normals)

    @cached_property
    def _hair_triangles(self) -> Tensor:
        """(F,) bool, triangles of hair."""
        hair = torch.tensor([part is not None and part.slot in STRAND_SLOTS for part in self.mesh.parts])
        return hair.repeat_interleave(self.mesh.first.diff())

    @cached_property
    def corners_px(self) -> Tensor:
        """(F, 3, 2) corners of all triangles in pixels."""
        return self.vertices_px[self.mesh.faces][..., :2]

    @cached_property
    def detailed_normals(self) -> Tensor:
        """(3, P) normals, on the skin perturbed by the tangent-space normal map if any (glTF: red along u, green
        against v)."""
        if self.head.result.normal_map is None or self.mesh is not self.head.opaque:
            return self.normals
        normals = self.normals
        offset = _looked_up(self.head.normal_map(self.vertices_px), self.uv)
        tangents = torch.nn.functional.pad(self.head.tangents, (0, 0, 0, len(self.mesh.uv) - len(self.head.tangents)))
        frame = self.interpolated(tangents, self.mesh.uv_corners)
        along_u = torch.nn.functional.normalize(frame[:3] - normals * (frame[:3] * normals).sum(0), dim=0)
        against_v = torch.linalg.cross(normals, along_u, dim=0) * torch.sign(frame[3])
        bent = torch.nn.functional.normalize(offset[0] * along_u + offset[1] * against_v + offset[2] * normals, dim=0)
        if len(self.mesh.parts) == 1:
            return bent
        return bent.index_copy(1, self.on_parts, normals[:, self.on_parts])

    def positions(self, where: Tensor) -> Tensor:
        """(3, K) metres, camera space, of some of the places."""
        return self.interpolated(self.mesh.vertices_cam, self.mesh.corners, where)

    @cached_property
    def light(self) -> Tensor | None:
        """(P,) share of the light around the head that arrives; None: all of it."""
        if self.mesh.light is None:
            return None
        light = self.interpolated(self.mesh.light[:, None], self.mesh.corners)[0]
        for surface, here in self.by_part():
            part = self.mesh.parts[surface]
            if part is not None and part.slot in EYE_SLOTS:
                points = (self.positions(here).t() - self.head.translation) @ self.head.rotation
                light[here] = torch.from_numpy(self.head.result.occlusion_at(part.slot, points.numpy()))
        return light


@dataclass(frozen=True)
class SeenSamples(Samples):
    """The samples of a picture that hit the opaque mesh.

    Attributes:
        camera: of the supersampled picture.
        fragments: the picture.
        pixels: (P,) indices into the flattened supersampled picture.
    """

    camera: Camera
    fragments: Fragments = field(repr=False)
    pixels: Tensor = field(repr=False)

    @classmethod
    def of(cls, head: PosedHead, camera: Camera, per_pixel: int) -> SeenSamples:
        height, width = camera.image_size
        camera = camera.cropped((0, 0, width, height), (height * per_pixel, width * per_pixel))
        mesh = head.opaque
        vertices_px = project(mesh.vertices_cam, camera)
        fragments = rasterize(vertices_px[None], mesh.faces, camera.image_size)
        pixels = fragments.covered
        weights = fragments.barycentric.reshape(-1, 3).movedim(1, 0)[:, pixels]
        triangle, depth = (values.reshape(-1)[pixels] for values in (fragments.triangle, fragments.depth))
        return cls(head, mesh, vertices_px, per_pixel, triangle, weights, depth, camera, fragments, pixels)


@dataclass(frozen=True)
class LayerSamples(Samples):
    """Hits of layers of the transparent mesh.

    Attributes:
        layers: the hits.
    """

    layers: Layers = field(repr=False)

    @classmethod
    def of(cls, head: PosedHead, vertices_px: Tensor, per_pixel: int, layers: Layers) -> LayerSamples:
        assert head.transparent is not None
        hits = layers.triangle, layers.weights, layers.depth
        return cls(head, head.transparent, vertices_px, per_pixel, *hits, layers)

    @cached_property
    def albedo(self) -> Tensor:
        """(3, P) linear RGB of the textures."""
        return self._colours[:3]

    @property
    def coverage(self) -> Tensor:
        """(P,) alpha in 0..1."""
        return self._colours[3]

    @cached_property
    def _colours(self) -> Tensor:
        """(4, P)."""
        changes = barycentric_derivatives(self.layers, self.vertices_px[None], self.mesh.faces)
        corners = self.mesh.uv.t().contiguous()[:, self.mesh.uv_corners.index_select(1, self.triangle)]
        right, below = ((corners * change).sum(1) for change in changes)
        colours = torch.zeros(4, len(self.triangle))
        for surface, here in self.by_part():
            part = self.mesh.parts[surface]
            assert part is not None
            # With several samples in a pixel, the border of a mask is antialiased by their number.
            rgb, alpha = part.material.prepared.sampled(
                self.uv[:, here], (right[:, here], below[:, here]), sharpen=self.per_pixel == 1
            )
            colours.index_copy_(1, here, torch.cat([rgb, alpha[None]]))
        return colours


def unit(vectors: Tensor) -> Tensor:
    """Vectors (3, P) of length 1; several times as fast as `normalize` along the first axis."""
    x, y, z = vectors
    return vectors * (x * x + y * y + z * z).clamp_min(1e-24).rsqrt()


def _clockwise(corners_px: Tensor) -> Tensor:
    """(K,) whether triangles (K, 3, 2) show their backs."""
    a, b, c = corners_px.unbind(1)
    return (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] > 0


def _looked_up(texture: Tensor, uv: Tensor) -> Tensor:
    """Texture (3, H, W) at (2, P) by bilinear interpolation: (3, P)."""
    values = torch.nn.functional.grid_sample(
        texture[None], uv.t()[None, None] * 2 - 1, align_corners=False, padding_mode="border"
    )
    return values[0, :, 0]
