"""Places on a posed head where a picture is shaded: what is seen of the opaque mesh, and hits of transparent layers.

Colours and vectors at P places are (3, P), the layout in which torch is fastest. Conventions: see camera.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..graphics.camera import Camera, project
from ..graphics.layers import Layers, barycentric_derivatives
from ..graphics.rasterize import Fragments, rasterize
from ..parts.part import EYE_SLOTS
from .posed import PosedHead, PosedMesh


@dataclass(frozen=True)
class Samples:
    """P places on a mesh of a posed head.

    Attributes:
        mesh: of the head.
        camera: of the supersampled picture, `per_pixel` samples along each side of a pixel.
        triangle: (P,) of the mesh.
        weights: (3, P) barycentric coordinates.
        depth: (P,) metres.
    """

    head: PosedHead
    mesh: PosedMesh
    camera: Camera
    per_pixel: int
    triangle: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)
    depth: Tensor = field(repr=False)

    def located(self) -> Tensor:
        """(2, P): coverage, which is 1, and depth."""
        return torch.stack([torch.ones_like(self.depth), self.depth])

    def interpolated(self, values: Tensor, faces: Tensor, where: Tensor | None = None) -> Tensor:
        """Vertex values (V, C) at the places, or at some of them: (C, P)."""
        rows, corners = values.t().contiguous(), faces.t().contiguous()
        triangle, weights = self.triangle, self.weights
        if where is not None:
            triangle, weights = triangle[where], weights[:, where]
        corners = corners.index_select(1, triangle)
        first, second, third = (rows.index_select(1, corners[k]) * weights[k] for k in range(3))
        return first + second + third

    @cached_property
    def surface(self) -> Tensor:
        """(P,) surface of the mesh that is seen."""
        return self.mesh.surface_of(self.triangle)

    def on(self, surface: int) -> Tensor | None:
        """Indices of the places on a surface; None: all of them."""
        return None if len(self.mesh.materials) == 1 else (self.surface == surface).nonzero().squeeze(1)

    @cached_property
    def uv(self) -> Tensor:
        """(2, P) texture coordinates."""
        return self.interpolated(self.mesh.uv, self.mesh.uv_faces)

    @cached_property
    def albedo(self) -> Tensor:
        """(3, P) linear RGB of the textures."""
        if len(self.mesh.materials) == 1:
            return _looked_up(self.head.texture(0, self.camera), self.uv)
        colours = torch.zeros(3, len(self.triangle))
        for surface in self.surface.unique().tolist():
            here = self.on(surface)
            assert here is not None
            values = _looked_up(self.head.texture(surface, self.camera), self.uv[:, here])
            colours = colours.index_copy_(1, here, values)
        return colours

    @cached_property
    def normals(self) -> Tensor:
        """(3, P) unit normals in camera space, flipped where the back of the surface is visible."""
        normals = torch.nn.functional.normalize(self.interpolated(self.mesh.normals, self.mesh.faces), dim=0)
        a, b, c = self.corners_px.unbind(1)
        clockwise = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] > 0
        return torch.where(clockwise[self.triangle], -normals, normals)

    @cached_property
    def corners_px(self) -> Tensor:
        """(F, 3, 2) corners of all triangles in pixels."""
        return project(self.mesh.vertices_cam, self.camera)[self.mesh.faces][..., :2]

    @cached_property
    def detailed_normals(self) -> Tensor:
        """(3, P) normals, on the skin perturbed by the tangent-space normal map if any (glTF: red along u, green
        against v)."""
        if self.head.result.normal_map is None or self.mesh is not self.head.opaque:
            return self.normals
        skin = self.on(0)
        uv, normals = (self.uv, self.normals) if skin is None else (self.uv[:, skin], self.normals[:, skin])
        offset = _looked_up(self.head.normal_map(self.camera), uv)
        frame = self.interpolated(self.head.tangents, self.mesh.uv_faces, skin)
        along_u = torch.nn.functional.normalize(frame[:3] - normals * (frame[:3] * normals).sum(0), dim=0)
        against_v = torch.linalg.cross(normals, along_u, dim=0) * torch.sign(frame[3])
        bent = torch.nn.functional.normalize(offset[0] * along_u + offset[1] * against_v + offset[2] * normals, dim=0)
        return bent if skin is None else self.normals.index_copy(1, skin, bent)

    def positions(self, where: Tensor) -> Tensor:
        """(3, K) metres, camera space, of some of the places."""
        return self.interpolated(self.mesh.vertices_cam, self.mesh.faces, where)

    @cached_property
    def light(self) -> Tensor | None:
        """(P,) share of the light around the head that arrives; None: all of it."""
        if self.mesh.light is None:
            return None
        light = self.interpolated(self.mesh.light[:, None], self.mesh.faces)[0]
        for surface, slot in enumerate(self.mesh.slots):
            here = self.on(surface) if slot in EYE_SLOTS else None
            if slot is not None and here is not None and len(here):
                # The shadow of a lid is narrower than the triangles of the eye.
                points = (self.positions(here).t() - self.head.translation) @ self.head.rotation
                light[here] = torch.from_numpy(self.head.result.occlusion_at(slot, points.numpy()))
        return light


@dataclass(frozen=True)
class SeenSamples(Samples):
    """The samples of a picture that hit the opaque mesh.

    Attributes:
        fragments: the picture.
        pixels: (P,) indices into the flattened supersampled picture.
    """

    fragments: Fragments = field(repr=False)
    pixels: Tensor = field(repr=False)

    @classmethod
    def of(cls, head: PosedHead, camera: Camera, per_pixel: int) -> SeenSamples:
        height, width = camera.image_size
        camera = camera.cropped((0, 0, width, height), (height * per_pixel, width * per_pixel))
        mesh = head.opaque
        fragments = rasterize(project(mesh.vertices_cam, camera)[None], mesh.faces, camera.image_size)
        pixels = fragments.covered
        weights = fragments.barycentric.reshape(-1, 3).movedim(1, 0)[:, pixels]
        triangle, depth = (values.reshape(-1)[pixels] for values in (fragments.triangle, fragments.depth))
        return cls(head, mesh, camera, per_pixel, triangle, weights, depth, fragments, pixels)


@dataclass(frozen=True)
class LayerSamples(Samples):
    """Hits of layers of the transparent mesh.

    Attributes:
        layers: the hits.
        vertices_px: (V, 3) of the mesh.
    """

    layers: Layers = field(repr=False)
    vertices_px: Tensor = field(repr=False)

    @classmethod
    def of(cls, head: PosedHead, camera: Camera, per_pixel: int, layers: Layers, vertices_px: Tensor) -> LayerSamples:
        assert head.transparent is not None
        hits = layers.triangle, layers.weights, layers.depth
        return cls(head, head.transparent, camera, per_pixel, *hits, layers, vertices_px)

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
        corners = self.mesh.uv.t().contiguous()[:, self.mesh.uv_faces.t().contiguous().index_select(1, self.triangle)]
        right, below = ((corners * change).sum(1) for change in changes)
        colours = torch.zeros(4, len(self.triangle))
        for surface in self.surface.unique().tolist():
            here = (self.surface == surface).nonzero().squeeze(1)
            material = self.mesh.materials[surface]
            assert material is not None
            # With several samples in a pixel, the border of a mask is antialiased by their number.
            rgb, alpha = material.prepared.sampled(
                self.uv[:, here], (right[:, here], below[:, here]), sharpen=self.per_pixel == 1
            )
            colours = colours.index_copy_(1, here, torch.cat([rgb, alpha[None]]))
        return colours


def _looked_up(texture: Tensor, uv: Tensor) -> Tensor:
    """Texture (3, H, W) at (2, P) by bilinear interpolation: (3, P)."""
    values = torch.nn.functional.grid_sample(
        texture[None], uv.t()[None, None] * 2 - 1, align_corners=False, padding_mode="border"
    )
    return values[0, :, 0]
