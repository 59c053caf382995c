"""The result of a fit: an immutable value that can be edited, rendered, exported and stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from .graphics.camera import Camera
from .model.face_model import FaceModel, FaceParams
from .model.skin_texture import model_texture
from .model.warp import head_vertices
from .parts.beard import with_beard
from .parts.beard_frame import beard_density, beard_frame
from .parts.eyes import with_irises
from .parts.hair import with_hair
from .parts.hair_clearance import HeadSurface, outward_normals
from .parts.hair_frame import HairDensity, HairFrame
from .parts.hair_shape import HairFields, follow_head, hair_fields, hair_vertices
from .parts.hair_styles import hair_style_of
from .parts.occlusion import INNER_LIPS, LID_EDGES, lid_light, mouth_light
from .parts.part import EYE_SLOTS, EYEBALLS, MOUTH_SLOTS, REPLACED_REGIONS, STRAND_SLOTS, Part

_LINING_RADII = 1.05  # of an eyeball: distance from its centre up to which skin lines a lid


@dataclass(frozen=True)
class Stage:
    """Report of one stage of the fit.

    Args:
        name: such as "landmarks" or "photometric".
        seconds: wall-clock time.
        iterations: solver steps taken.
        loss_terms: weighted loss by term at the end.
        before, after: total loss at the start and at the end (same terms, same weights).
        history: total loss per iteration; it may jump where a photometric stage updates its pixel weights.
    """

    name: str
    seconds: float
    iterations: int
    loss_terms: dict[str, float]
    before: float
    after: float
    history: tuple[float, ...] = ()


class DetailModuleLike(Protocol):
    """Interface of a detail module to the heads that use it, see `faceverse.detail.module.DetailModule`."""

    @property
    def name(self) -> str:
        """For messages and files."""
        ...

    @property
    def info(self) -> dict:
        """Provenance of the module."""
        ...

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for modules that generate the same detail from the same latents."""
        ...

    def is_same(self, other: DetailModuleLike | None) -> bool:
        """Whether both generate the same detail from the same latents."""
        ...


@dataclass(frozen=True)
class FittedView:
    """Pose, expression and light fitted to one of several photographs. NumPy float32; conventions in camera.py.

    Args:
        source: name of the photograph.
        camera: of the photograph, in pixels of that photograph.
        rotation: (3, 3); translation: (3,) metres: pose of the head.
        expression: (E,) weights.
        light: (9, 3), see lighting.py.
        landmarks_px: (478, 2) as detected in the photograph.
        projected_landmarks_px: (L, 2) as fitted, see `FitResult`.
    """

    source: str
    camera: Camera
    rotation: np.ndarray
    translation: np.ndarray
    expression: np.ndarray
    light: np.ndarray
    landmarks_px: np.ndarray
    projected_landmarks_px: np.ndarray


@dataclass(frozen=True)
class FitResult:
    """A person's head, fitted to one photograph or several. Arrays are NumPy; conventions in camera.py.

    Args:
        model: the face model that `params` belong to.
        params: identity, expression, albedo, pose, light.
        camera: of the photograph.
        vertices: (V, 3) metres, head space, with expression.
        neutral_vertices: (V, 3) without expression.
        albedo: (V, 3) linear RGB of the model (not of the texture).
        texture: (H, W, 3) uint8 sRGB albedo, the photograph's shading divided out.
        texture_confidence: (H, W) uint8, 255 where the photograph shows the skin well, 0 where the model completes it.
        normal_map: (H, W, 3) uint8 tangent space, or None without detail.
        displacement: (H, W) float32 millimetres along the normal, or None without detail.
        landmarks_px: (478, 2) as detected in the photograph, or None for heads that come from no photograph.
        projected_landmarks_px: (L, 2) as fitted, a row for each point of `model.fit_landmarks` (478, or 68 and fewer
            for models without them), None likewise. `matched_landmarks_px` are the same points as detected.
        stages: reports of the stages, in order.
        warnings: in words.
        seconds: from photograph to result.
        views: pose, expression and light in each of several photographs, including the first, whose values are those
            of `params`; empty for a fit to one photograph.
    """

    model: FaceModel
    params: FaceParams
    camera: Camera
    vertices: np.ndarray
    neutral_vertices: np.ndarray
    albedo: np.ndarray
    texture: np.ndarray
    texture_confidence: np.ndarray
    normal_map: np.ndarray | None = None
    displacement: np.ndarray | None = None
    landmarks_px: np.ndarray | None = None
    projected_landmarks_px: np.ndarray | None = None
    stages: tuple[Stage, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    source: str = ""
    blendshape_scores: dict[str, float] = field(default_factory=dict)
    views: tuple[FittedView, ...] = ()
    detail_module: DetailModuleLike | None = None

    @property
    def faces(self) -> np.ndarray:
        """(F, 3) vertex indices."""
        return self.model.faces

    @property
    def uv(self) -> np.ndarray:
        """(U, 2), see `FaceModel.uv`."""
        return self.model.uv

    @property
    def uv_faces(self) -> np.ndarray:
        """(F, 3) indices into `uv`."""
        return self.model.uv_faces

    @property
    def matched_landmarks_px(self) -> np.ndarray | None:
        """(L, 2) rows of `landmarks_px` that correspond to those of `projected_landmarks_px`."""
        detected = self.model.fit_landmarks.detected
        return self.landmarks_px if self.landmarks_px is None or detected is None else self.landmarks_px[detected]

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """Parts of the head by slot: teeth, tongue, eyes, lashes, brows, hair; empty for models without parts.

        Eyes of style "natural" have irises of the person's colour, `params.iris`, hair has that of `params.hair`.

        Raises:
            ParameterError: `params.styles` names a part that the model's library does not have.
        """
        if self.model.parts is None:
            return {}
        parts = with_irises(self.model.parts.choose(self.params.styles), self.params.iris)
        return with_hair(with_beard(parts, self.params.beard, self.params.hair), self.params.hair)

    @cached_property
    def part_vertices(self) -> Mapping[str, np.ndarray]:
        """Vertices (P, 3) float32 of each part by slot, metres, head space, with expression."""
        return {slot: self.part_vertices_on(slot, self.vertices) for slot in self.parts}

    @cached_property
    def neutral_part_vertices(self) -> Mapping[str, np.ndarray]:
        """Vertices (P, 3) float32 of each part by slot, without expression."""
        placed = {}
        for slot, part in self.parts.items():
            if slot == "hair":
                placed[slot] = hair_vertices(part, self.params.hair, self.neutral_vertices, self.hair_surface)
                placed[slot] = placed[slot].astype(np.float32)
            else:
                placed[slot] = part.binding.place(self.neutral_vertices).astype(np.float32)
        return placed

    @cached_property
    def hair_surface(self) -> HeadSurface | None:
        """The skin out of which hair stays, without expression; None if the model does not tell where its scalp is."""
        return HeadSurface.of(self.neutral_vertices, self.faces, self.model.regions)

    def part_vertices_on(self, slot: str, vertices: np.ndarray) -> np.ndarray:
        """Vertices (P, 3) float32 of the part in a slot where the head has other vertices (V, 3) than without
        expression; metres, head space."""
        binding = self.parts[slot].binding
        if slot == "hair":
            placed = self.neutral_part_vertices[slot]
            return follow_head(binding, placed, vertices, self.neutral_vertices).astype(np.float32)
        return binding.follow(vertices, self.neutral_vertices).astype(np.float32)

    @cached_property
    def is_skin(self) -> np.ndarray:
        """(F,) bool: `faces` that remain beside the parts, which replace eyeballs, teeth and tongue of the mesh."""
        return skin_faces(self.model, self.parts)

    @cached_property
    def part_occlusion(self) -> Mapping[str, np.ndarray]:
        """Share (P,) float32 of the light around the head that reaches the vertices of each part, by slot, with
        expression: 1 lit .. 0 occluded, see `faceverse.parts.occlusion`."""
        found = {slot: self.occlusion_at(slot, vertices) for slot, vertices in self.part_vertices.items()}
        for dense, density in self._hair_densities.items():
            for slot, frame in self.hair_frames.items():
                light = density.light_in_hair if slot == dense else density.light_below
                found[slot] = found[slot] * light(self.part_vertices[slot].astype(np.float64), frame.normals)
        return found

    @cached_property
    def hair_frames(self) -> Mapping[str, HairFrame]:
        """Directions of normals and strands at the vertices of the hair parts by slot, with expression."""
        frames = {}
        for slot in STRAND_SLOTS:
            if slot not in self.parts:
                continue
            part, placed = self.parts[slot], self.part_vertices[slot].astype(np.float64)
            if slot == "beard":
                frames[slot] = beard_frame(part, placed, self.vertices, self.faces)
            else:
                middle = self.vertices[part.binding.reference].astype(np.float64).mean(0)
                frames[slot] = HairFrame.of(part, placed, middle)
        return frames

    @property
    def hair_style(self) -> str:
        """Name of the style of the hair, of `faceverse.HAIR_STYLES`."""
        return hair_style_of(self.params.styles)

    @property
    def hair_fields(self) -> HairFields | None:
        """What the shape of the hair depends on besides `params.hair`, see `faceverse.parts.hair_shape`; None for a
        head without strands."""
        return hair_fields(self.parts["hair"].binding) if "hair" in self.parts else None

    @cached_property
    def _hair_densities(self) -> Mapping[str, HairDensity]:
        """Amount of hair in space, by slot."""
        made = {"hair": HairDensity.of, "beard": beard_density}
        if not set(made) & set(self.parts):
            return {}
        skin = self.vertices.astype(np.float64)
        normals = outward_normals(skin, self.faces)
        return {
            slot: density(self.parts[slot], self.part_vertices[slot].astype(np.float64), skin, normals)
            for slot, density in made.items() if slot in self.parts
        }  # fmt: skip

    @cached_property
    def inner_occlusion(self) -> Mapping[str, np.ndarray]:
        """Like `part_occlusion` for the inside of the hair parts by slot, the side that their normals point away from.
        """
        found = {slot: np.ones(len(frame.normals), np.float32) for slot, frame in self.hair_frames.items()}
        for slot, density in self._hair_densities.items():
            points, normals = self.part_vertices[slot].astype(np.float64), self.hair_frames[slot].normals
            found[slot] = density.light_in_hair(points, -normals)
        return found

    def occlusion_at(self, slot: str, points: np.ndarray) -> np.ndarray:
        """Like `part_occlusion` at points (P, 3) of the part in a slot; metres, head space, with expression."""
        if slot in MOUTH_SLOTS and (edges := self._edges("mouth")) is not None:
            return mouth_light(points, *edges)
        slot = slot.replace("cornea_", "eye_")  # in the shadow of the same lids
        if slot in EYE_SLOTS and (edges := self._edges(slot)) is not None:
            return lid_light(points, *edges)
        return np.ones(len(points), np.float32)

    @cached_property
    def skin_occlusion(self) -> np.ndarray:
        """(V,) float32, like `part_occlusion` for the vertices of the mesh: below 1 inside the mouth and under hair.
        All 1 for models without parts, whose colours contain it."""
        light, inside = np.ones(len(self.vertices), np.float32), self.model.regions.get("mouth_inside")
        if self.parts and inside is not None and (edges := self._edges("mouth")) is not None:
            light[inside] = mouth_light(self.vertices[inside], *edges)
        if densities := self._hair_densities.values():
            vertices = self.vertices.astype(np.float64)
            normals = outward_normals(vertices, self.faces)
            for density in densities:
                light *= density.light_below(vertices, normals)
        return light

    @cached_property
    def light_edges(self) -> Mapping[str, np.ndarray]:
        """Landmarks (2, K), rows of `model.fit_landmarks`, on the upper and lower edge of the openings through which
        light reaches parts: "mouth", "eye_left", "eye_right". Openings of which the model knows fewer than three points
        on an edge are missing."""
        detected = self.model.fit_landmarks.detected
        known = range(478) if detected is None else detected.tolist()
        place = {index: row for row, index in enumerate(known)}
        found = {}
        for name, edges in {"mouth": INNER_LIPS, **LID_EDGES}.items():
            rows = [[place[index] for index in edge if index in place] for edge in edges]
            if len(rows[0]) == len(rows[1]) >= 3:
                found[name] = np.array(rows, np.int64)
        return found

    def _edges(self, name: str) -> list[np.ndarray] | None:
        """Points (K, 3) of the upper and lower edge of an opening, or None, see `light_edges`."""
        if name not in self.light_edges:
            return None
        landmarks, rows = self.model.fit_landmarks, self.light_edges[name]
        corners = self.vertices[self.faces[landmarks.triangle[rows]]]
        return list((corners * landmarks.barycentric[rows][..., None]).sum(2))

    def replace(self, **changes: Any) -> FitResult:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def __repr__(self) -> str:
        height, width = self.texture.shape[:2]
        return (
            f"FitResult({self.source or 'no photograph'}: {len(self.vertices)} vertices, texture {width} x {height}, "
            f"{len(self.stages)} stages, {self.seconds:.2f} s)"
        )


def skin_faces(model: FaceModel, slots: Collection[str]) -> np.ndarray:
    """(F,) bool: faces of a model that remain where parts take these slots."""
    return ~replaced_vertices(model, slots)[model.faces].all(axis=1)


def replaced_vertices(model: FaceModel, slots: Collection[str]) -> np.ndarray:
    """(V,) bool: vertices of a model that parts in these slots replace or hide."""
    replaced = np.zeros(len(model.data.mean_vertices), bool)
    for region, needed in REPLACED_REGIONS.items():
        if all(slot in slots for slot in needed):
            replaced[model.regions.get(region, np.zeros(0, np.int64))] = True
    for slot, region in EYEBALLS.items():
        if slot in slots and len(ball := model.regions.get(region, ())):
            replaced |= _lining(model.mean_vertices, np.asarray(ball))
    return replaced


def _lining(vertices: np.ndarray, ball: np.ndarray) -> np.ndarray:
    """(V,) bool: vertices of the skin behind the lids, which lies on an eyeball (K,) of a mesh (V, 3).

    Nobody sees it, but in a blink it can come through the lid before it.
    """
    distance = np.linalg.norm(vertices - vertices[ball].mean(axis=0), axis=1)
    return distance <= _LINING_RADII * distance[ball].max()


def with_params(result: FitResult, params: FaceParams) -> FitResult:
    """Replace the parameters of a head and recompute vertices, neutral_vertices and albedo (clipped to 0..1).

    Texture and normal map are kept; landmarks, stages and warnings still describe the fit.

    Raises:
        ParameterError: coefficients of the wrong length for `result.model`.
    """
    model = result.model
    neutral, vertices = head_vertices(model, params)
    albedo = model.albedo(torch.from_numpy(np.array(params.albedo, dtype=np.float32, ndmin=2)).to(model.device))
    return result.replace(
        params=params,
        vertices=vertices,
        neutral_vertices=neutral,
        albedo=albedo[0].clamp(0, 1).numpy(force=True),
    )


def head_from_params(
    model: FaceModel, params: FaceParams, camera: Camera, texture_size: int = 512, source: str = ""
) -> FitResult:
    """Build a head from parameters, with the model's albedo as its texture."""
    skin = model_texture(model, params, texture_size)
    empty = np.zeros_like(model.mean_vertices)
    bare = FitResult(model, params, camera, empty, empty, empty, skin.rgb, skin.confidence, source=source)
    return with_params(bare, params)
