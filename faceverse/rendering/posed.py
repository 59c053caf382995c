"""Posed heads, ready to be drawn: the skin with its opaque parts as one mesh, the transparent parts as another.

Conventions (axes, pixels, colours): see camera.py.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..graphics.camera import Camera, project
from ..graphics.lighting import linear_from_srgb
from ..graphics.mesh import tangents, vertex_normals
from ..parts.part import EYE_SLOTS, Part
from ..result import FitResult, replaced_vertices

# Decoding a byte is a look-up: a million texels take milliseconds instead of a power each.
LINEAR_OF_BYTE = linear_from_srgb(torch.arange(256) / 255)

# Pixels of the last skin, a copy by which changes are noticed, how often it was halved, and the texture.
_last_texture: tuple[weakref.ref[np.ndarray], np.ndarray, int, Tensor] | None = None


@dataclass(frozen=True)
class PosedMesh:
    """Meshes in camera space, one after the other: S surfaces.

    Attributes:
        vertices_cam: (V, 3) metres.
        faces, uv_faces: (F, 3) int64.
        uv: (U, 2).
        normals: (V, 3) unit length.
        strands: (V, 4) unit vectors along the hairs, camera space, and the light on the inside of the hair, see
            `FitResult.inner_occlusion`; 0 for what is no hair. None: there is no hair.
        light: (V,) share of the light around the head that arrives, but for the shadows of lids, see
            `FitResult.part_occlusion`; None: all of it.
        first: (S + 1,) int64, first face of each surface, and the number of faces.
        parts: of the surfaces; None for the skin.
    """

    vertices_cam: Tensor
    faces: Tensor
    uv: Tensor
    uv_faces: Tensor
    normals: Tensor
    strands: Tensor | None
    light: Tensor | None
    first: Tensor
    parts: tuple[Part | None, ...]

    @classmethod
    def joined(cls, pieces: list[_Piece]) -> PosedMesh:
        """The surfaces in this order."""
        vertices_cam = torch.cat([piece.vertices_cam for piece in pieces])
        counts = np.cumsum([[0, 0, 0], *((len(p.vertices_cam), len(p.uv), len(p.faces)) for p in pieces)], axis=0)
        faces = torch.cat([piece.faces + int(count[0]) for piece, count in zip(pieces, counts)])
        uv_faces = torch.cat([piece.uv_faces + int(count[1]) for piece, count in zip(pieces, counts)])
        light = None if pieces[0].light is None else torch.cat([p.light for p in pieces if p.light is not None])
        normals, strands = vertex_normals(vertices_cam, faces), None
        if any(piece.frame is not None for piece in pieces):
            strands = torch.zeros(len(normals), 4)
            for piece, count in zip(pieces, counts):
                if piece.frame is not None:
                    own = slice(int(count[0]), int(count[0]) + len(piece.vertices_cam))
                    normals[own], strands[own] = piece.frame
        return cls(
            vertices_cam, faces, torch.cat([piece.uv for piece in pieces]), uv_faces,
            normals, strands, light, torch.from_numpy(counts[:, 2].copy()),
            tuple(piece.part for piece in pieces),
        )  # fmt: skip

    @cached_property
    def corners(self) -> Tensor:
        """(3, F) faces, in the layout in which samples are interpolated."""
        return self.faces.t().contiguous()

    @cached_property
    def uv_corners(self) -> Tensor:
        """(3, F) like `corners`, for the texture."""
        return self.uv_faces.t().contiguous()

    def surface_of(self, triangle: Tensor) -> Tensor:
        """Surfaces (P,) to which triangles (P,) belong."""
        return torch.searchsorted(self.first[1:], triangle, right=True)

    def texels_per_sample(self, surface: int, texture_size: tuple[int, ...], vertices_px: Tensor) -> float:
        """Area of a texture (H, W) of a surface over its area in a picture, where it faces the camera.

        Args:
            vertices_px: (V, 3) of the mesh.
        """
        own = slice(int(self.first[surface]), int(self.first[surface + 1]))
        a, b, c = vertices_px[self.faces[own]].unbind(1)
        on_screen = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
        scale = torch.tensor([texture_size[1], texture_size[0]])
        a, b, c = (self.uv[self.uv_faces[own]] * scale).unbind(1)
        on_texture = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs()
        front = (on_screen < 0) & torch.isfinite(on_screen)
        return float(on_texture[front].sum() / (-on_screen[front]).sum().clamp_min(1e-6))


@dataclass(frozen=True)
class _Piece:
    """One surface, see `PosedMesh`; hair has its normals and strands as its frame."""

    vertices_cam: Tensor
    faces: Tensor
    uv: Tensor
    uv_faces: Tensor
    light: Tensor | None
    part: Part | None
    frame: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class PosedHead:
    """A posed head, ready to be drawn.

    Attributes:
        rotation, translation: (3, 3) and (3,) metres, head to camera.
        opaque: the skin, which is surface 0, and the opaque parts.
        transparent: parts that are tested or blended; None if there are none.
    """

    result: FitResult
    rotation: Tensor
    translation: Tensor
    opaque: PosedMesh
    transparent: PosedMesh | None

    @classmethod
    def of(cls, result: FitResult, pose: np.ndarray, translation: np.ndarray, *, is_coarse: bool = False) -> PosedHead:
        """Pose a head.

        Args:
            pose, translation: (3, 3) and (3,) metres, head to camera.
            is_coarse: with the faces of the coarse mesh, if the model has one.

        Raises:
            ParameterError: the head has a part that the model's library does not have.
        """
        data, parts = result.model.data, result.parts
        faces, uv_faces = result.faces, result.uv_faces
        if is_coarse and data.coarse_faces is not None:
            assert data.coarse_vertices is not None and data.coarse_uv_faces is not None
            faces, uv_faces = data.coarse_vertices[data.coarse_faces], data.coarse_uv_faces
        if parts:
            kept = ~replaced_vertices(result.model, parts)[faces].all(axis=1)
            kept &= ~_hidden_lining(result, faces, pose, translation)
            faces, uv_faces = faces[kept], uv_faces[kept]

        def piece(vertices, faces, uv, uv_faces, light, part, frame=None) -> _Piece:
            return _Piece(
                as_tensor(vertices @ pose.T + translation), _indices(faces), as_tensor(uv), _indices(uv_faces),
                None if light is None else as_tensor(light), part, frame,
            )  # fmt: skip

        def piece_of(slot: str, part: Part) -> _Piece:
            vertices = result.part_vertices[slot]
            # The shadow of a lid is narrower than the triangles of an eye: it is computed at each sample.
            light = np.ones(len(vertices)) if slot in EYE_SLOTS else result.part_occlusion[slot]
            frame = None
            if (hair := result.hair_frames.get(slot)) is not None:
                strands = np.column_stack([hair.tangents @ pose.T, result.inner_occlusion[slot]])
                frame = as_tensor(hair.normals @ pose.T), as_tensor(strands)
            return piece(vertices, part.faces, part.uv, part.uv_faces, light, part, frame)

        light = result.skin_occlusion if parts else None
        skin = piece(result.vertices, faces, result.uv, uv_faces, light, None)
        clear = [slot for slot, part in parts.items() if part.material.alpha_mode != "OPAQUE"]
        opaque = [skin, *(piece_of(slot, part) for slot, part in parts.items() if slot not in clear)]
        layers = [piece_of(slot, parts[slot]) for slot in clear]
        place = as_tensor(pose), as_tensor(translation)
        return cls(result, *place, PosedMesh.joined(opaque), PosedMesh.joined(layers) if layers else None)

    def points(self, camera: Camera) -> Tensor:
        """(P, 2) vertices in front of the camera, in pixels."""
        meshes = [self.opaque.vertices_cam]
        if self.transparent is not None:
            meshes.append(self.transparent.vertices_cam)
        points = project(torch.cat(meshes), camera)
        return points[(points[:, 2] > 0) & torch.isfinite(points).all(1), :2]

    def texture(self, surface: int, vertices_px: Tensor) -> Tensor:
        """Texture (3, H, W) of an opaque surface in linear light, halved until a texel is about as large as a sample
        (a mipmap level) of the picture in which the opaque mesh has `vertices_px` (V, 3)."""
        part = self.opaque.parts[surface]
        if part is None:
            return _skin_texture(self.result.texture, self._halvings(self.result.texture.shape[:2], vertices_px))
        levels = part.material.prepared.levels
        ratio = self.opaque.texels_per_sample(surface, levels[0].shape[1:], vertices_px)
        level = int(np.ceil(np.log2(max(ratio / 2, 1)) / 2))
        return levels[min(level, len(levels) - 1)][:3]

    def normal_map(self, vertices_px: Tensor) -> Tensor:
        """Tangent-space vectors (3, H, W) of the skin, halved like the texture; shorter than 1 where normals were
        averaged."""
        pixels = self.result.normal_map
        assert pixels is not None
        vectors = torch.tensor(pixels).float().movedim(2, 0) / 127.5 - 1
        return _halved(vectors, self._halvings(pixels.shape[:2], vertices_px))

    @cached_property
    def tangents(self) -> Tensor:
        """Tangent frame (U, 4) of the skin's normal map at each texture coordinate, camera space, see
        `mesh.tangents`."""
        mesh, count = self.opaque, int(self.opaque.first[1])
        owner = torch.zeros(len(self.result.uv), dtype=torch.int64)
        uv_faces = mesh.uv_faces[:count]
        owner[uv_faces.reshape(-1)] = mesh.faces[:count].reshape(-1)
        corners = (mesh.vertices_cam[owner], mesh.normals[owner], mesh.uv[: len(owner)], uv_faces)
        return torch.from_numpy(tangents(*(values.numpy() for values in corners)))

    def _halvings(self, size: tuple[int, ...], vertices_px: Tensor) -> int:
        """How often a texture (H, W) of the skin is halved."""
        ratio, count = self.opaque.texels_per_sample(0, size, vertices_px), 0
        while ratio > 2 and min(size) >> count > 1:
            ratio, count = ratio / 4, count + 1
        return count


def _hidden_lining(result: FitResult, faces: np.ndarray, pose: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(F,) bool: faces (F, 3) of the mouth's lining that show the camera their back.

    Through the lips one sees the front of the lining. Its back is seen only where it comes through the skin, as it does
    on a few heads beside a pursed mouth; viewers of GLB files do not draw it either.
    """
    inside = np.zeros(len(result.vertices), bool)
    inside[result.model.regions.get("mouth_inside", np.zeros(0, np.int64))] = True
    hidden = inside[faces].all(axis=1)
    a, b, c = (result.vertices[faces[hidden]] @ pose.T + translation).transpose(1, 0, 2)
    hidden[hidden] = (np.cross(b - a, c - a) * a).sum(axis=1) > 0
    return hidden


def _halved(texture: Tensor, count: int) -> Tensor:
    for _ in range(count):
        texture = torch.nn.functional.avg_pool2d(texture, 2)
    return texture


def _skin_texture(pixels: np.ndarray, halvings: int) -> Tensor:
    """Texture (3, h, w) in linear light, halved; the last one is kept for the next frame of a video."""
    global _last_texture
    last = _last_texture
    if last is not None and last[0]() is pixels and last[2] == halvings and np.array_equal(last[1], pixels):
        return last[3]
    texture = _halved(LINEAR_OF_BYTE[torch.tensor(pixels).long()].movedim(2, 0), halvings)
    _last_texture = weakref.ref(pixels, _forget), pixels.copy(), halvings, texture
    return texture


def _forget(reference: weakref.ref) -> None:
    global _last_texture
    if _last_texture is not None and _last_texture[0] is reference:
        _last_texture = None


def as_tensor(array: np.ndarray) -> Tensor:
    """A float32 copy."""
    return torch.from_numpy(np.array(array, dtype=np.float32))


def _indices(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
