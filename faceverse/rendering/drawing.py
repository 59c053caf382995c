"""Shade a posed head sample by sample: the modes of `faceverse.render`, and supersampling.

`RENDER_MODES` is the one list of modes; `render`, video clips, the command line and the web page read it.

Conventions (axes, pixels, colours): see camera.py. Colours and vectors at the P samples that hit the head are (3, P),
the layout in which torch is fastest.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..errors import ParameterError
from ..graphics.camera import Camera, project
from ..graphics.lighting import linear_from_srgb, shading
from ..graphics.mesh import tangents, vertex_normals
from ..graphics.rasterize import Fragments, rasterize
from ..result import FitResult

_MAX_SAMPLES = 1 << 21  # larger pictures are drawn in bands, which bounds the memory
_CLAY = (0.58, 0.565, 0.55)
_CLAY_LIGHTS = (  # direction to the light, camera space; strength of diffuse and of glossy reflection
    ((-0.55, 0.60, 0.58), 0.86, 0.12),
    ((0.85, 0.05, 0.52), 0.22, 0.03),
    ((0.10, 0.75, -0.65), 0.30, 0.05),
)
_WIRE = (0.02, 0.05, 0.12)
_WIRE_HALF_WIDTH_PX = 0.45
_WIRE_FADE_PX = 10.0

# Decoding a byte is a look-up: a million texels take milliseconds instead of a power each.
LINEAR_OF_BYTE = linear_from_srgb(torch.arange(256) / 255)


@dataclass(frozen=True)
class Drawn:
    """A drawn picture.

    Attributes:
        rgb: (H, W, 3) linear light times coverage.
        coverage: (H, W) in 0..1, share of the pixel's samples that hit the head.
        depth: (H, W) metres, mean of the samples that hit the head.
    """

    rgb: Tensor
    coverage: Tensor
    depth: Tensor


def draw(head: PosedHead, camera: Camera, supersample: int) -> Drawn:
    """Draw a head with supersampling, only in the rectangle that it can cover, band by band."""
    height, width = camera.image_size
    drawn = Drawn(torch.zeros(height, width, 3), torch.zeros(height, width), torch.zeros(height, width))
    points = project(head.vertices_cam, camera)
    points = points[(points[:, 2] > 0) & torch.isfinite(points).all(1), :2]
    if not len(points):
        return drawn
    limit = torch.tensor([width, height], dtype=torch.float32)
    low = points.amin(0).clamp(min=torch.zeros(2), max=limit).floor().long().tolist()
    high = points.amax(0).clamp(min=torch.zeros(2), max=limit).ceil().long().tolist()
    (x0, y0), (x1, y1) = low, high
    if x0 == x1 or y0 == y1:
        return drawn
    band = max(1, _MAX_SAMPLES // ((x1 - x0) * supersample**2))
    for top in range(y0, y1, band):
        bottom = min(top + band, y1)
        samples = Samples.of(head, camera.cropped((x0, top, x1, bottom), (bottom - top, x1 - x0)), supersample)
        shaded = torch.cat([RENDER_MODES[head.mode].shade(samples).clamp(0, 1), samples.located()])
        image = shaded.new_zeros(5, samples.fragments.triangle.numel()).index_copy_(1, samples.pixels, shaded)
        image = torch.nn.functional.avg_pool2d(image.view(5, *samples.camera.image_size), supersample)
        drawn.rgb[top:bottom, x0:x1] = image[:3].movedim(0, 2)
        drawn.coverage[top:bottom, x0:x1] = image[3]
        drawn.depth[top:bottom, x0:x1] = image[4] / image[3].clamp_min(1e-6)
    return drawn


@dataclass(frozen=True)
class PosedHead:
    """A posed head, ready to be drawn.

    Attributes:
        mode: of `RENDER_MODES`; "wireframe" has the faces of the coarse mesh.
        vertices_cam: (V, 3) metres, camera space.
        faces, uv_faces: (F, 3) int64.
        uv: (U, 2).
        normals: (V, 3) unit length, camera space.
    """

    result: FitResult
    mode: str
    vertices_cam: Tensor
    faces: Tensor
    uv: Tensor
    uv_faces: Tensor
    normals: Tensor

    @classmethod
    def of(cls, result: FitResult, mode: str, pose: np.ndarray, translation: np.ndarray) -> PosedHead:
        if not isinstance(mode, str) or mode not in RENDER_MODES:
            close = difflib.get_close_matches(str(mode), RENDER_MODES, n=1)
            known = ", ".join(RENDER_MODES)
            if close:
                raise ParameterError("render.similar_mode", mode=repr(mode), close=repr(close[0]), known=known)
            raise ParameterError("render.mode", mode=repr(mode), known=known)
        vertices, faces, uv_faces = result.vertices, result.faces, result.uv_faces
        data = result.model.data
        if mode == "wireframe" and data.coarse_faces is not None:
            assert data.coarse_vertices is not None and data.coarse_uv_faces is not None
            faces, uv_faces = data.coarse_vertices[data.coarse_faces], data.coarse_uv_faces
        vertices_cam = as_tensor(vertices @ pose.T + translation)
        corners, uv_corners = (torch.from_numpy(np.ascontiguousarray(f, dtype=np.int64)) for f in (faces, uv_faces))
        normals = vertex_normals(vertices_cam, corners)
        return cls(result, mode, vertices_cam, corners, as_tensor(result.uv), uv_corners, normals)

    def texture(self, camera: Camera) -> Tensor:
        """Texture (3, H, W) in linear light, halved until a texel is about as large as a sample (a mipmap level)."""
        return self._reduced(LINEAR_OF_BYTE[torch.tensor(self.result.texture).long()].movedim(2, 0), camera)

    def normal_map(self, camera: Camera) -> Tensor:
        """Tangent-space vectors (3, H, W), halved like the texture; shorter than 1 where normals were averaged."""
        return self._reduced(torch.tensor(self.result.normal_map).float().movedim(2, 0) / 127.5 - 1, camera)

    @cached_property
    def tangents(self) -> Tensor:
        """Tangent frame (U, 4) of the normal map at each texture coordinate, camera space, see `mesh.tangents`."""
        owner = torch.zeros(len(self.uv), dtype=torch.int64)
        owner[self.uv_faces.reshape(-1)] = self.faces.reshape(-1)
        corners = (self.vertices_cam[owner], self.normals[owner], self.uv, self.uv_faces)
        return torch.from_numpy(tangents(*(values.numpy() for values in corners)))

    def _reduced(self, texture: Tensor, camera: Camera) -> Tensor:
        a, b, c = project(self.vertices_cam, camera)[self.faces].unbind(1)
        on_screen = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
        a, b, c = (self.uv * torch.tensor([texture.shape[2], texture.shape[1]]))[self.uv_faces].unbind(1)
        on_texture = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs()
        front = (on_screen < 0) & torch.isfinite(on_screen)
        ratio = float(on_texture[front].sum() / (-on_screen[front]).sum().clamp_min(1e-6))
        while ratio > 2 and min(texture.shape[1:]) > 1:
            texture = torch.nn.functional.avg_pool2d(texture, 2)
            ratio /= 4
        return texture


@dataclass(frozen=True)
class Samples:
    """The P samples of a picture that hit the head.

    Attributes:
        camera: of the supersampled picture, `per_pixel` samples along each side of a pixel.
        pixels: (P,) indices into the flattened supersampled picture.
        triangle: (P,) visible triangles.
        weights: (3, P) barycentric coordinates.
    """

    head: PosedHead
    camera: Camera
    per_pixel: int
    fragments: Fragments
    pixels: Tensor = field(repr=False)
    triangle: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)

    @classmethod
    def of(cls, head: PosedHead, camera: Camera, per_pixel: int) -> Samples:
        height, width = camera.image_size
        camera = camera.cropped((0, 0, width, height), (height * per_pixel, width * per_pixel))
        fragments = rasterize(project(head.vertices_cam, camera)[None], head.faces, camera.image_size)
        pixels = fragments.covered
        weights = fragments.barycentric.reshape(-1, 3).movedim(1, 0)[:, pixels]
        return cls(head, camera, per_pixel, fragments, pixels, fragments.triangle.reshape(-1)[pixels], weights)

    def located(self) -> Tensor:
        """(2, P): coverage, which is 1, and depth."""
        depth = self.fragments.depth.reshape(-1)[self.pixels]
        return torch.stack([torch.ones_like(depth), depth])

    def interpolated(self, values: Tensor, faces: Tensor) -> Tensor:
        """Vertex values (V, C) at the samples: (C, P)."""
        rows, corners = values.t().contiguous(), faces.t().contiguous().index_select(1, self.triangle)
        first, second, third = (rows.index_select(1, corners[k]) * self.weights[k] for k in range(3))
        return first + second + third

    def sampled(self, texture: Tensor) -> Tensor:
        """Texture (3, H, W) at the samples by bilinear interpolation: (3, P)."""
        uv = self.interpolated(self.head.uv, self.head.uv_faces).t()
        values = torch.nn.functional.grid_sample(
            texture[None], uv[None, None] * 2 - 1, align_corners=False, padding_mode="border"
        )
        return values[0, :, 0]

    @cached_property
    def normals(self) -> Tensor:
        """(3, P) unit normals in camera space, flipped where the back of the surface is visible."""
        normals = torch.nn.functional.normalize(self.interpolated(self.head.normals, self.head.faces), dim=0)
        a, b, c = self.corners_px.unbind(1)
        clockwise = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] > 0
        return torch.where(clockwise[self.triangle], -normals, normals)

    @cached_property
    def corners_px(self) -> Tensor:
        """(F, 3, 2) corners of all triangles in pixels."""
        return project(self.head.vertices_cam, self.camera)[self.head.faces][..., :2]

    @cached_property
    def detailed_normals(self) -> Tensor:
        """(3, P) normals, perturbed by the tangent-space normal map if any (glTF: red along u, green against v)."""
        if self.head.result.normal_map is None:
            return self.normals
        offset = self.sampled(self.head.normal_map(self.camera))
        frame = self.interpolated(self.head.tangents, self.head.uv_faces)
        normals = self.normals
        along_u = torch.nn.functional.normalize(frame[:3] - normals * (frame[:3] * normals).sum(0), dim=0)
        against_v = torch.linalg.cross(normals, along_u, dim=0) * torch.sign(frame[3])
        return torch.nn.functional.normalize(offset[0] * along_u + offset[1] * against_v + offset[2] * normals, dim=0)


def _color(samples: Samples) -> Tensor:
    head = samples.head
    light = as_tensor(head.result.params.light)
    if head.result.normal_map is None:
        shade = samples.interpolated(shading(head.normals, light), head.faces)
    else:
        shade = shading(samples.detailed_normals.t(), light).t()
    return _albedo(samples) * shade


def _albedo(samples: Samples) -> Tensor:
    return samples.sampled(samples.head.texture(samples.camera))


def _clay(samples: Samples) -> Tensor:
    normals = samples.detailed_normals
    diffuse = 0.14 + 0.06 * normals[1]
    gloss = torch.zeros_like(diffuse)
    for direction, strength, shine in _CLAY_LIGHTS:
        to_light = torch.nn.functional.normalize(torch.tensor(direction), dim=0)
        halfway = torch.nn.functional.normalize(to_light + torch.tensor([0.0, 0.0, 1.0]), dim=0)
        diffuse = diffuse + strength * (to_light @ normals).clamp_min(0)
        gloss = gloss + shine * (halfway @ normals).clamp_min(0) ** 24
    return torch.tensor(_CLAY)[:, None] * diffuse + gloss


def _normal(samples: Samples) -> Tensor:
    return linear_from_srgb(samples.detailed_normals * 0.5 + 0.5)


def _depth(samples: Samples) -> Tensor:
    # The range is the whole head's, not the visible part's: the same surface has the same grey in every crop.
    near, far = (-samples.head.vertices_cam[:, 2]).aminmax()
    depth = samples.located()[1]
    grey = 0.1 + 0.9 * (1 - (depth - near) / (far - near).clamp_min(1e-6)).clamp(0, 1) ** 1.5
    return linear_from_srgb(grey).expand(3, -1)


def _uv(samples: Samples) -> Tensor:
    u, v = samples.interpolated(samples.head.uv, samples.head.uv_faces)
    odd = ((u * 32).floor() + (v * 32).floor()).long() % 2
    return linear_from_srgb(torch.stack([u, v, torch.full_like(u, 0.4)]).clamp(0, 1) * (1 - 0.25 * odd))


def _wireframe(samples: Samples) -> Tensor:
    corners = samples.corners_px
    edges = corners[:, (2, 0, 1)] - corners[:, (1, 2, 0)]
    area = (edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]).abs()
    heights = area[:, None] / edges.norm(dim=-1).clamp_min(1e-6)
    distance = (samples.weights * heights.index_select(0, samples.triangle).t()).amin(0)
    line = (_WIRE_HALF_WIDTH_PX * samples.per_pixel + 0.5 - distance).clamp(0, 1)
    # Where triangles are hardly larger than a line, opaque lines would blacken the picture.
    triangle_px = float(area.nan_to_num().mean()) ** 0.5 / samples.per_pixel
    line = line * min(max(triangle_px / _WIRE_FADE_PX, 0.2), 1)
    return _clay(samples) * (1 - line) + torch.tensor(_WIRE)[:, None] * line


@dataclass(frozen=True)
class RenderMode:
    """What a picture of a head shows.

    Attributes:
        description: in a few words, for help texts.
        shade: linear RGB (3, P) of the samples; values are clamped to 0..1 afterwards.
    """

    description: str
    shade: Callable[[Samples], Tensor]


RENDER_MODES: dict[str, RenderMode] = {
    "color": RenderMode("texture in the fitted light", _color),
    "albedo": RenderMode("texture without light", _albedo),
    "clay": RenderMode("grey clay under studio lights", _clay),
    "normal": RenderMode("normals in camera space", _normal),
    "depth": RenderMode("depth, near is bright", _depth),
    "uv": RenderMode("texture coordinates", _uv),
    "wireframe": RenderMode("edges of the coarse mesh", _wireframe),
}
"""Modes of `render` by name."""


def as_tensor(array: np.ndarray) -> Tensor:
    """A float32 copy."""
    return torch.from_numpy(np.array(array, dtype=np.float32))
