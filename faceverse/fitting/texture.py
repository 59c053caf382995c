"""Albedo texture from a photograph: project, remove shading, complete unobserved texels.

The texture is baked in four steps. `observe_texels` projects each texel into the photograph and rates its confidence:
grazing angle, self-occlusion, outlines, region, exposure. The observed colour is divided by the spherical-harmonics
shading of the fitted light. The logarithm of the ratio to the model's albedo is split into the tone of the skin, a
smooth field, most of which is light, and detail (`even_skin`). Tone and field go on where nothing is observed, so that
there is no seam; `complete_albedo` extends the detail from the mirrored side of the face.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

from ..detail.displacement import TangentFrame, detailed_normals
from ..graphics.camera import Camera, project, transform
from ..graphics.lighting import linear_from_srgb, sh_basis
from ..graphics.mesh import vertex_normals
from ..graphics.rasterize import rasterize
from ..graphics.sampling import sample_planes
from ..model.face_model import FaceModel, FaceParams
from ..model.skin_texture import DARKEST_ALBEDO, SkinTexture, encode_srgb, model_albedo, paint_irises, smoothstep
from ..model.texture_maps import bake_planes
from ..model.warp import head_vertices
from ..segmentation import Segmentation
from .even_skin import LOW_SIZE, enlarged, even_skin, plain_skin, without_highlights
from .visible_skin import TEXTURE_LABELS, visible_skin

MIN_SHADE = 0.18  # lower bound on shading, relative to frontal shading; darker pixels hold noise rather than colour
DEPTH_TOLERANCE_M = 0.004
GRAZING = (0.22, 0.60)  # cosine of normal and view direction: confidence 0 below the first, 1 above the second
SCALP_GRAZING = (0.45, 0.70)
EDGE_MARGIN = 0.012  # distance to depth discontinuities from which texels count, share of the head's projected size
HAIRLINE = 0.012  # Gaussian sigma of the transition between skin and hair, share of the texture's size
# Confidence by region: occluded, specular or clothed parts keep the model's own colour.
REGION_CONFIDENCE = {"eyeballs": 0.0, "teeth": 0.0, "tongue": 0.0, "mouth_inside": 0.0, "eye_sockets": 0.0, "neck": 0.0}
MIRROR_CONFIDENCE = 0.45  # of a texel's colour on the mirrored texel
MIRROR_TOLERANCE_M = 0.01  # of mirrored texels' positions on the mean head
_SAMPLE_MARGIN_PX = 8
_EVERY = 61  # texel that is looked at where a few tell enough; a prime, so that no column repeats
_LINEAR_OF_BYTE = linear_from_srgb(torch.arange(256, dtype=torch.float64) / 255).numpy().astype(np.float32)
MAX_HAIR_GAIN = np.log(12.0)  # log ratio of hair to the model's, which is dark; less clips the blue of fair hair

_regions: weakref.WeakKeyDictionary[FaceModel, dict[int, _TexelRegions]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class TexelObservations:
    """Projection of a photograph into the texture of a fitted head: maps with channels first.

    Attributes:
        vertices_cam: (V, 3) the posed head.
        base: (3, S, S) the fitted model's albedo, linear, at least DARKEST_ALBEDO.
        normal: (3, S, S) unit, camera space.
        facing: (S, S) cosine between normal and view direction.
        position_px: (2, S, S) projection of the texel into the photograph.
        colour: (3, S, S) its colour there, linear RGB.
        confidence: (S, S) 0..1, low at grazing angles, near outlines, where occluded, underexposed or in an excluded
            region (REGION_CONFIDENCE).
        scalp, ears, skin: (S, S) 0..1, membership in these regions.
        mirrored: (S, S) whether the mean head and the texture layout are mirror-symmetric at the texel.
    """

    vertices_cam: torch.Tensor
    base: np.ndarray
    normal: np.ndarray
    facing: np.ndarray
    position_px: np.ndarray
    colour: np.ndarray
    confidence: np.ndarray
    scalp: np.ndarray
    ears: np.ndarray
    skin: np.ndarray
    mirrored: np.ndarray


def observe_texels(
    photo: np.ndarray,
    model: FaceModel,
    params: FaceParams,
    camera: Camera,
    size: int,
    labels: Segmentation | None = None,
) -> TexelObservations:
    """Project every texel of a (size, size) map into the photograph; arguments as of `bake_photo`."""
    vertices = _posed(model, params)
    normals = vertex_normals(vertices, model.tensor("faces"))
    pixels = project(vertices, camera)
    values = [model_albedo(model, params), pixels.numpy(), normals.numpy(), vertices.numpy()]
    # Channels first: operations on single channels are several times faster this way.
    baked = bake_planes(model, np.concatenate(values, axis=1), size)
    position_px, depth, normal, point = baked[3:5], baked[5], baked[6:9], baked[9:12]
    normal = normal / np.maximum(_length(normal), 1e-6)
    facing = -np.einsum("cij,cij->ij", normal, point) / np.maximum(_length(point), 1e-6)
    confidence = smoothstep((facing - GRAZING[0]) / (GRAZING[1] - GRAZING[0]))
    confidence *= _visibility(photo.shape[:2], pixels, model, position_px, depth)
    regions = _texel_regions(model, size)
    confidence *= regions.confidence
    if labels is not None:
        confidence *= visible_skin(labels, TEXTURE_LABELS, position_px)
    colour = _sample(photo, position_px)
    confidence *= smoothstep((colour.max(0) - 0.004) / 0.012)  # underexposed
    base = np.maximum(baked[:3], DARKEST_ALBEDO)
    return TexelObservations(
        vertices, base, normal, facing, position_px, colour, confidence,
        regions.scalp, regions.ears, regions.skin, regions.mirrored,
    )  # fmt: skip


def bake_photo(
    photo: np.ndarray,
    model: FaceModel,
    params: FaceParams,
    camera: Camera,
    size: int = 1024,
    displacement: np.ndarray | None = None,
    labels: Segmentation | None = None,
) -> SkinTexture:
    """Bake the albedo texture of a fitted head from its photograph.

    Args:
        photo: (H, W, 3) uint8 sRGB.
        params: as fitted; the colour is divided by the shading of its light.
        camera: of the photograph.
        size: width and height of the texture.
        displacement: (S, S) mm, in any resolution: the shading that the fitted displacement causes is removed too.
        labels: of the photograph; where they tell of no skin, the texture is completed from what is seen.
    """
    observed = observe_texels(photo, model, params, camera, size, labels)
    base, skin, hair = observed.base, observed.skin, observed.scalp
    normal = observed.normal
    if displacement is not None:
        planes = torch.from_numpy(np.array(displacement, np.float32))[None, None]
        planes = torch.nn.functional.interpolate(planes, (size, size), mode="bicubic", align_corners=False)
        frame = TangentFrame.of(model, observed.vertices_cam.numpy(), size)
        normal = detailed_normals(frame, planes[0, 0])[0].numpy()
    shade = _shade(normal, params.light)
    log_base = np.log(base)
    change = np.log(np.maximum(observed.colour / shade, DARKEST_ALBEDO)) - log_base
    # The scalp region counts as skin where its albedo is as bright as the skin's: at the nape and the temples.
    skin_tone = np.median(base[:, (skin > 0.5) & (hair < 0.5)][:, ::_EVERY], axis=1)
    log_darkening = np.log(skin_tone).mean() - log_base.mean(0)
    hair = hair * smoothstep(log_darkening / 0.9)
    if hair.any():  # of models whose hair is no part
        hair = gaussian_filter(hair, HAIRLINE * size, truncate=2.5)
    # Near the outline of the scalp a photograph shows protruding hair or the background.
    scalp_outline = 1 - smoothstep((observed.facing - SCALP_GRAZING[0]) / (SCALP_GRAZING[1] - SCALP_GRAZING[0]))
    confidence = observed.confidence * (1 - hair * scalp_outline)
    ambiguous = np.maximum(1 - smoothstep((observed.facing - 0.65) / 0.2), observed.ears)
    confidence = _without_background(change, confidence, hair, ambiguous).astype(np.float32)
    beard = None
    side = min(size, LOW_SIZE)
    if labels is not None:
        centres = slice(size // side // 2, None, size // side)
        beard = visible_skin(labels, ("beard",), observed.position_px[:, centres, centres], outside=0.0)
    even = even_skin(model, change, confidence * (1 - hair), beard)
    smooth = base * shade * np.exp(even.tone + even.uneven)
    inside = enlarged(plain_skin(model, side)[None], size)[0]
    colour = without_highlights(observed.colour, smooth, shade, inside)
    detail = np.log(np.maximum(colour, DARKEST_ALBEDO)) - np.log(np.maximum(smooth, DARKEST_ALBEDO))
    confidence = confidence * even.reliability
    detail = complete_albedo(detail, confidence, hair, skin * observed.mirrored)
    linear = base * np.exp((even.kept + detail) * skin)
    linear = paint_irises(model, np.ascontiguousarray(np.moveaxis(linear, 0, 2)), params.iris)
    return SkinTexture(encode_srgb(linear), (255 * confidence + 0.5).astype(np.uint8))


def _posed(model: FaceModel, params: FaceParams) -> torch.Tensor:
    """Vertices (V, 3) in camera space."""
    with torch.no_grad():
        vertices = torch.from_numpy(head_vertices(model, params)[1])
        return transform(vertices, torch.from_numpy(params.rotation), torch.from_numpy(params.translation))


@dataclass(frozen=True)
class _TexelRegions:
    """Maps (S, S) of a model: REGION_CONFIDENCE, and the fields of the same names of TexelObservations."""

    confidence: np.ndarray
    scalp: np.ndarray
    ears: np.ndarray
    skin: np.ndarray
    mirrored: np.ndarray


def _texel_regions(model: FaceModel, size: int) -> _TexelRegions:
    """The maps of a model, computed once per model and size."""
    per_model = _regions.setdefault(model, {})
    if size not in per_model:
        flags = [_region_confidence(model), _in_region(model, "scalp"), _in_region(model, "ears"), _is_skin(model)]
        baked = bake_planes(model, np.concatenate([*flags, model.mean_vertices], axis=1), size)
        confidence, scalp, ears, skin = (plane.copy() for plane in baked[:4])
        per_model[size] = _TexelRegions(confidence, scalp, ears, skin, _is_mirrored(baked[4:7]))
    return per_model[size]


def _region_confidence(model: FaceModel) -> np.ndarray:
    """(V, 1) REGION_CONFIDENCE of each vertex, 1 in other regions."""
    confidence = np.ones((len(model.mean_vertices), 1), np.float32)
    for name, value in REGION_CONFIDENCE.items():
        confidence[model.regions.get(name, np.zeros(0, np.int64))] = value
    return confidence


def _in_region(model: FaceModel, name: str) -> np.ndarray:
    """(V, 1) 1 for vertices of a region, else 0."""
    member = np.zeros((len(model.mean_vertices), 1), np.float32)
    member[model.regions.get(name, np.zeros(0, np.int64))] = 1
    return member


def _is_skin(model: FaceModel) -> np.ndarray:
    """(V, 1) 0 for vertices of eyes, teeth, tongue and mouth cavity, else 1."""
    skin = np.ones((len(model.mean_vertices), 1), np.float32)
    for name in ("eyeballs", "teeth", "tongue", "mouth_inside"):
        skin[model.regions.get(name, np.zeros(0, np.int64))] = 0
    return skin


def _visibility(
    shape: tuple[int, int], pixels: torch.Tensor, model: FaceModel, position_px: np.ndarray, depth: np.ndarray
):
    """Visibility (S, S) 0..1 of texels: inside the picture, not self-occluded, away from depth discontinuities.

    Args:
        shape: height and width of the photograph.
        pixels: (V, 3) projected vertices and their depth.
        position_px: (2, S, S); depth: (S, S) metres, of the texels.
    """
    low, high = pixels[:, :2].min(0).values, pixels[:, :2].max(0).values
    span = float((high - low).max())
    size = 512
    scale = size / (span * 1.02)
    scaled = pixels.clone()
    scaled[:, :2] = (pixels[:, :2] - low + 0.01 * span) * scale
    fragments = rasterize(scaled[None], model.tensor("faces"), (size, size))
    depth_buffer = fragments.depth[0].numpy().copy()
    mask = fragments.mask[0].numpy()
    depth_buffer[~mask] = np.inf
    edges = np.zeros_like(mask)
    filled = np.where(mask, depth_buffer, depth_buffer[mask].max() + 1)
    for axis in (0, 1):
        jump = np.abs(np.diff(filled, axis=axis)) > 0.012
        edges |= np.pad(jump, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
        edges |= np.pad(jump, [(1, 0) if a == axis else (0, 0) for a in (0, 1)])
    away_from_edges = np.clip(distance_transform_edt(~edges) / (EDGE_MARGIN * size) - 0.5, 0, 1)
    offset = low.numpy() - 0.01 * span
    column, row = (np.clip(((position_px[k] - offset[k]) * scale).astype(int), 0, size - 1) for k in (0, 1))
    visible = depth < depth_buffer[row, column] + DEPTH_TOLERANCE_M
    x, y = position_px
    inside = (x > 1) & (x < shape[1] - 1) & (y > 1) & (y < shape[0] - 1)
    return visible * inside * away_from_edges[row, column]


def _sample(photo: np.ndarray, position_px: np.ndarray) -> np.ndarray:
    """Bilinear samples (3, S, S) of a photograph (H, W, 3) uint8 at pixels (2, S, S), linear RGB.

    The photograph is cropped to the head first, and downsampled where its pixels are finer than the texels.
    """
    limit = np.array([photo.shape[1], photo.shape[0]])
    flat = position_px.reshape(2, -1)
    low, high = np.percentile(flat[:, ::_EVERY], (2, 98), axis=1)
    first = np.clip(np.floor(flat.min(1)) - _SAMPLE_MARGIN_PX, 0, limit - 1).astype(int)
    last = np.clip(np.ceil(flat.max(1)) + _SAMPLE_MARGIN_PX, first + 1, limit).astype(int)
    photo = photo[first[1] : last[1], first[0] : last[0]]
    extent = last - first
    texels = 0.75 * position_px.shape[1]
    shrink = min(1.0, texels / max(float((high - low).max()), 1.0))
    size = np.maximum(np.round(extent * shrink), 1).astype(int) if shrink < 0.7 else extent
    if shrink < 0.7:
        photo = np.asarray(Image.fromarray(photo).resize(tuple(size.tolist()), Image.Resampling.BOX))
    ratio = (size / extent).astype(np.float32)
    places = np.stack([(position_px[k] - first[k]) * ratio[k] - np.float32(0.5) for k in (0, 1)])
    return sample_planes(np.moveaxis(_LINEAR_OF_BYTE[photo], 2, 0), places)


def _shade(normal: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Spherical-harmonics shading (3, S, S) by light (9, 3) of normals (3, S, S), with the lower bound MIN_SHADE."""
    basis = sh_basis(torch.from_numpy(normal).flatten(1).T)
    shade = (torch.from_numpy(light).T @ basis.T).numpy().reshape(normal.shape)
    front = (sh_basis(torch.tensor([0.0, 0.0, 1.0])) @ torch.from_numpy(light)).numpy()
    return np.maximum(shade, (MIN_SHADE * np.maximum(front, 0.05))[:, None, None])


def _without_background(
    change: np.ndarray, confidence: np.ndarray, hair: np.ndarray, ambiguous: np.ndarray
) -> np.ndarray:
    """Confidence (S, S) without ambiguous skin texels whose colour is an outlier of the skin: background, clothes.

    Args:
        change: (3, S, S) log ratio of the observed to the model's albedo.
        confidence, hair, ambiguous: (S, S) 0..1.
    """
    skin = (confidence > 0.5) & (hair < 0.1) & (ambiguous < 0.1)
    if skin.sum() < 100:
        return confidence
    distance = np.abs(change - np.median(change[:, skin], axis=1)[:, None, None]).max(0)
    outlier = smoothstep((distance - 0.45) / 0.4) * (1 - hair)
    return confidence * (1 - outlier * ambiguous)


def _is_mirrored(position: np.ndarray) -> np.ndarray:
    """(S, S) bool, whether mirroring at u = 0.5 in the texture mirrors the position (3, S, S) on the mean head."""
    opposite = position[:, :, ::-1] * np.array([-1, 1, 1], np.float32)[:, None, None]
    return _length(opposite - position) < MIRROR_TOLERANCE_M


def complete_albedo(change: np.ndarray, confidence: np.ndarray, hair: np.ndarray, symmetric: np.ndarray) -> np.ndarray:
    """Complete a log ratio (3, S, S) of the observed to the expected albedo where its confidence (S, S) is low.

    Sources, in this order: the mirrored texel, where head and layout are `symmetric` (S, S); nothing within the skin,
    which then shows what is expected; one median ratio for all hair.
    """
    mirrored, mirrored_confidence = change[:, :, ::-1], confidence[:, ::-1] * MIRROR_CONFIDENCE * (1 - confidence)
    mirrored_confidence = mirrored_confidence * symmetric
    total = confidence + mirrored_confidence
    both = (change * confidence + mirrored * mirrored_confidence) / np.maximum(total, 1e-6)
    smooth = hair * _median_change(both, total * hair) if hair.any() else 0.0
    total = np.clip(total, 0, 1)
    return total * both + (1 - total) * smooth


def _median_change(change: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Median log ratio (3, 1, 1) of the hair, 0 where none is observed.

    A photograph shows little of the scalp, and that with strands, gaps and background: too uneven to be extrapolated
    to the back of the head.
    """
    observed = weight > 0.3
    if not observed.any():
        return np.zeros((3, 1, 1), np.float32)
    median = np.median(change[:, observed], axis=1)[:, None, None]
    return np.clip(median, -MAX_HAIR_GAIN, MAX_HAIR_GAIN).astype(np.float32)


def _length(vectors: np.ndarray) -> np.ndarray:
    """Lengths (S, S) of vectors (3, S, S)."""
    return np.sqrt(np.einsum("cij,cij->ij", vectors, vectors))
