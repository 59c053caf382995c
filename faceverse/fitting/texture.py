"""The photograph as a texture: baked where the surface is seen well, completed elsewhere, light divided out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from ..detail.displacement import TangentFrame, detailed_normals
from ..graphics.camera import Camera, project, transform
from ..graphics.lighting import linear_from_srgb, sh_basis
from ..graphics.mesh import vertex_normals
from ..graphics.rasterize import rasterize
from ..model.face_model import FaceModel, FaceParams
from ..model.skin_texture import DARKEST_ALBEDO, SkinTexture, encode_srgb, model_albedo, paint_irises, smoothstep
from ..model.texture_maps import bake_planes

MIN_SHADE = 0.18  # below this share of the head's mean light a photograph holds noise rather than colour
DEPTH_TOLERANCE_M = 0.004
GRAZING = (0.22, 0.60)  # cosine between surface and view: no confidence below the first, full confidence above the second
SCALP_GRAZING = (0.45, 0.70)
EDGE_MARGIN = 0.012  # share of the head's size in the picture that is kept clear of outlines
HAIRLINE = 0.012  # width of the transition between skin and hair, share of the texture
# Trust in a photograph by region: hidden, shiny or dressed parts keep the model's own colour.
REGION_CONFIDENCE = {"eyeballs": 0.0, "teeth": 0.0, "tongue": 0.0, "mouth_inside": 0.0, "eye_sockets": 0.0, "neck": 0.0}
MIRROR_CONFIDENCE = 0.45
MIRROR_TOLERANCE_M = 0.01
_SAMPLE_MARGIN_PX = 8
_LINEAR_OF_BYTE = linear_from_srgb(torch.arange(256, dtype=torch.float64) / 255).numpy().astype(np.float32)
MAX_SKIN_GAIN = np.log(3.0)  # how far completed skin may be from the model's albedo
MAX_HAIR_GAIN = np.log(12.0)  # likewise hair: the model's is dark, and less would give fair hair its red and no blue


@dataclass(frozen=True)
class TexelObservations:
    """What a photograph shows of each texel of a fitted head, in maps with their channels first.

    Attributes:
        vertices_cam: (V, 3) the posed head.
        base: (3, S, S) the model's own albedo, linear, not black.
        normal: (3, S, S) unit, camera space.
        facing: (S, S) cosine between surface and view.
        position_px: (2, S, S) where the texel lies in the photograph.
        colour: (3, S, S) its colour there, linear RGB.
        confidence: (S, S) 0..1: well seen, nothing before it, neither black nor of a part that photographs do not show.
        scalp, ears, skin, mirrored: (S, S) 0..1, what the texel belongs to, and whether head and layout are symmetric
            about it.
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


def observe_texels(photo: np.ndarray, model: FaceModel, params: FaceParams, camera: Camera, size: int) -> TexelObservations:
    """Looks up each texel of a map of size x size in the photograph; for the arguments see `bake_photo`."""
    vertices = _posed(model, params)
    normals = vertex_normals(vertices, model.tensor("faces"))
    pixels = project(vertices, camera)
    flags = [_region_confidence(model), _in_region(model, "scalp"), _in_region(model, "ears"), _is_skin(model)]
    values = [model_albedo(model, params), pixels.numpy(), normals.numpy(), vertices.numpy(), *flags]
    values.append(model.mean_vertices)
    # Maps have their channels first: what is done channel by channel is several times faster so.
    baked = bake_planes(model, np.concatenate(values, axis=1), size)
    position_px, depth, normal, point = baked[3:5], baked[5], baked[6:9], baked[9:12]
    normal = normal / np.maximum(_length(normal), 1e-6)
    facing = -np.einsum("cij,cij->ij", normal, point) / np.maximum(_length(point), 1e-6)
    confidence = smoothstep((facing - GRAZING[0]) / (GRAZING[1] - GRAZING[0]))
    confidence *= _visibility(photo.shape[:2], pixels, model, position_px, depth)
    confidence *= baked[12]
    seen = _sample(photo, position_px)
    confidence *= smoothstep((seen.max(0) - 0.004) / 0.012)  # black is no colour
    base = np.maximum(baked[:3], DARKEST_ALBEDO)
    return TexelObservations(vertices, base, normal, facing, position_px, seen, confidence, *baked[13:16], _is_mirrored(baked[16:19]))


def bake_photo(
    photo: np.ndarray,
    model: FaceModel,
    params: FaceParams,
    camera: Camera,
    size: int = 1024,
    displacement: np.ndarray | None = None,
) -> SkinTexture:
    """Texture of a fitted head.

    Args:
        photo: (H, W, 3) uint8 sRGB.
        params: as fitted; its light is divided out.
        camera: of the photograph.
        size: width and height of the texture.
        displacement: (S, S) mm, the fitted displacement, whose shading is divided out as well; in any resolution.
    """
    observed = observe_texels(photo, model, params, camera, size)
    base, skin, hair = observed.base, observed.skin, observed.scalp
    normal = observed.normal
    if displacement is not None:
        displacement = torch.from_numpy(np.array(displacement, np.float32))[None, None]
        displacement = torch.nn.functional.interpolate(displacement, (size, size), mode="bicubic", align_corners=False)[0, 0]
        frame = TangentFrame.of(model, observed.vertices_cam.numpy(), size)
        normal = detailed_normals(frame, displacement)[0].numpy()
    shade = _shade(normal, params.light)
    log_base = np.log(base)
    change = np.log(np.maximum(observed.colour / shade, DARKEST_ALBEDO)) - log_base
    # Where the model's scalp is as light as its skin, at the nape and the temples, there is skin.
    tone = np.median(base[:, (skin > 0.5) & (hair < 0.5)], axis=1)
    darker = (np.log(tone)[:, None, None] - log_base).mean(0)
    hair = gaussian_filter(hair * smoothstep(darker / 0.9), HAIRLINE * size, truncate=2.5)
    # Near the outline of the scalp a photograph shows hair that stands off, or what is behind it.
    outline = 1 - smoothstep((observed.facing - SCALP_GRAZING[0]) / (SCALP_GRAZING[1] - SCALP_GRAZING[0]))
    confidence = observed.confidence * (1 - hair * outline)
    doubtful = np.maximum(1 - smoothstep((observed.facing - 0.65) / 0.2), observed.ears)
    confidence = _without_background(change, confidence, hair, doubtful).astype(np.float32)
    linear = base * np.exp(complete_albedo(change, confidence, hair, skin * observed.mirrored) * skin)
    linear = paint_irises(model, np.ascontiguousarray(np.moveaxis(linear, 0, 2)), params.iris)
    return SkinTexture(encode_srgb(linear), (255 * confidence + 0.5).astype(np.uint8))


def iris_colour(photo: np.ndarray, landmarks_px: np.ndarray, shade: np.ndarray) -> np.ndarray | None:
    """Linear RGB (3,) of the irises, or None when they are too small or the eyes too narrow to tell.

    Args:
        photo: (H, W, 3) uint8.
        landmarks_px: (478, 2); 468 and 473 are the irises' centres, the four points after each lie on its border.
        shade: (3,) light on the eyes, divided out.
    """
    found = []
    for centre, upper, lower in ((468, 159, 145), (473, 386, 374)):
        middle = landmarks_px[centre]
        radius = np.linalg.norm(landmarks_px[centre + 1 : centre + 5] - middle, axis=1).mean()
        opening = landmarks_px[lower, 1] - landmarks_px[upper, 1]
        if radius < 3 or opening < 0.8 * radius:
            continue
        reach = int(np.ceil(radius))
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        ring = np.hypot(x, y) / radius
        # The upper part lies in the lid's shade, the middle is the pupil or its highlight.
        chosen = (ring > 0.45) & (ring < 0.85) & (y > -0.2 * radius) & (y < 0.6 * radius)
        rows = np.round(middle[1] + y[chosen]).astype(int)
        columns = np.round(middle[0] + x[chosen]).astype(int)
        ok = (rows >= 0) & (rows < photo.shape[0]) & (columns >= 0) & (columns < photo.shape[1])
        if ok.sum() > 12:
            colours = linear_from_srgb(torch.from_numpy(photo[rows[ok], columns[ok]] / 255.0)).numpy()
            found.append(np.median(colours, axis=0))
    if not found:
        return None
    return np.clip(np.mean(found, axis=0) / np.maximum(shade, 0.05), 0.008, 0.30).astype(np.float32)


def _posed(model: FaceModel, params: FaceParams) -> torch.Tensor:
    with torch.no_grad():
        vertices = model.vertices(torch.from_numpy(params.identity)[None], torch.from_numpy(params.expression)[None])
        return transform(vertices[0], torch.from_numpy(params.rotation), torch.from_numpy(params.translation))


def _region_confidence(model: FaceModel) -> np.ndarray:
    confidence = np.ones((len(model.mean_vertices), 1), np.float32)
    for name, value in REGION_CONFIDENCE.items():
        confidence[model.regions.get(name, np.zeros(0, np.int64))] = value
    return confidence


def _in_region(model: FaceModel, name: str) -> np.ndarray:
    member = np.zeros((len(model.mean_vertices), 1), np.float32)
    member[model.regions.get(name, np.zeros(0, np.int64))] = 1
    return member


def _is_skin(model: FaceModel) -> np.ndarray:
    skin = np.ones((len(model.mean_vertices), 1), np.float32)
    for name in ("eyeballs", "teeth", "tongue", "mouth_inside"):
        skin[model.regions.get(name, np.zeros(0, np.int64))] = 0
    return skin


def _visibility(shape: tuple[int, int], pixels: torch.Tensor, model: FaceModel, position_px: np.ndarray, depth: np.ndarray):
    """(S, S) 0..1: the texel lies inside the picture, nothing of the head hides it, and no outline is near."""
    low, high = pixels[:, :2].min(0).values, pixels[:, :2].max(0).values
    span = float((high - low).max())
    size = 512
    scale = size / (span * 1.02)
    moved = pixels.clone()
    moved[:, :2] = (pixels[:, :2] - low + 0.01 * span) * scale
    fragments = rasterize(moved[None], model.tensor("faces"), (size, size))
    nearest = fragments.depth[0].numpy().copy()
    mask = fragments.mask[0].numpy()
    nearest[~mask] = np.inf
    step = np.zeros_like(mask)
    filled = np.where(mask, nearest, nearest[mask].max() + 1)
    for axis in (0, 1):
        jump = np.abs(np.diff(filled, axis=axis)) > 0.012
        step |= np.pad(jump, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
        step |= np.pad(jump, [(1, 0) if a == axis else (0, 0) for a in (0, 1)])
    clear = np.clip(distance_transform_edt(~step) / (EDGE_MARGIN * size) - 0.5, 0, 1)
    offset = low.numpy() - 0.01 * span
    column, row = (np.clip(((position_px[k] - offset[k]) * scale).astype(int), 0, size - 1) for k in (0, 1))
    visible = depth < nearest[row, column] + DEPTH_TOLERANCE_M
    x, y = position_px
    inside = (x > 1) & (x < shape[1] - 1) & (y > 1) & (y < shape[0] - 1)
    return visible * inside * clear[row, column]


def _sample(photo: np.ndarray, position_px: np.ndarray) -> np.ndarray:
    """Bilinear samples (3, S, S), linear light; the photograph is cut to the head, and shrunk where it is finer than
    the texels."""
    limit = np.array([photo.shape[1], photo.shape[0]])
    flat = position_px.reshape(2, -1)
    low, high = np.percentile(flat, (2, 98), axis=1)
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
    x, y = ((position_px[k] - first[k]) * ratio[k] - np.float32(0.5) for k in (0, 1))
    decoded = (np.take(_LINEAR_OF_BYTE, photo[..., c]) for c in range(3))
    return np.stack([map_coordinates(plane, [y, x], order=1, mode="nearest") for plane in decoded])


def _shade(normal: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Light (3, S, S) on the surface of normals (3, S, S), kept from falling into noise."""
    basis = sh_basis(torch.from_numpy(normal).flatten(1).T)
    shade = (torch.from_numpy(light).T @ basis.T).numpy().reshape(normal.shape)
    front = (sh_basis(torch.tensor([0.0, 0.0, 1.0])) @ torch.from_numpy(light)).numpy()
    return np.maximum(shade, (MIN_SHADE * np.maximum(front, 0.05))[:, None, None])


def _without_background(change: np.ndarray, confidence: np.ndarray, hair: np.ndarray, doubtful: np.ndarray) -> np.ndarray:
    """Trust (S, S) without the skin's texels that, at doubtful places, look unlike the rest: background, clothes."""
    skin = (confidence > 0.5) & (hair < 0.1) & (doubtful < 0.1)
    if skin.sum() < 100:
        return confidence
    distance = np.abs(change - np.median(change[:, skin], axis=1)[:, None, None]).max(0)
    unlike = smoothstep((distance - 0.45) / 0.4) * (1 - hair)
    return confidence * (1 - unlike * doubtful)


def _is_mirrored(position: np.ndarray) -> np.ndarray:
    """(S, S) where the texel opposite of u = 0.5 shows the same place on the other side of the mean head (3, S, S)."""
    opposite = position[:, :, ::-1] * np.float32([-1, 1, 1])[:, None, None]
    return _length(opposite - position) < MIRROR_TOLERANCE_M


def complete_albedo(change: np.ndarray, confidence: np.ndarray, hair: np.ndarray, symmetric: np.ndarray) -> np.ndarray:
    """Extends the photograph's change of albedo (3, S, S), in logarithms, from where it is trusted to everywhere.

    First the other half of the face where head and layout are `symmetric` (S, S) about u = 0.5, then a smooth membrane
    through the skin, so that there is no seam, and one change for all hair, so that neither stains the other.
    """
    mirrored, mirrored_confidence = change[:, :, ::-1], confidence[:, ::-1] * MIRROR_CONFIDENCE * (1 - confidence)
    mirrored_confidence = mirrored_confidence * symmetric
    total = confidence + mirrored_confidence
    both = (change * confidence + mirrored * mirrored_confidence) / np.maximum(total, 1e-6)
    skin_part, hair_part = (_downweight_outliers(both, total * share) for share in (1 - hair, hair))
    skin_change = np.clip(pull_push(both, skin_part), -MAX_SKIN_GAIN, MAX_SKIN_GAIN)
    smooth = (1 - hair) * skin_change + hair * _median_change(both, hair_part)
    total = np.clip(total, 0, 1)
    return total * both + (1 - total) * smooth


def _median_change(change: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The usual change (3, 1, 1) of hair, none where none is seen: what little of a scalp a photograph shows is too
    uneven, with strands, gaps and what lies behind, to be continued to the back of the head."""
    seen = weight > 0.3
    if not seen.any():
        return np.zeros((3, 1, 1), np.float32)
    usual = np.median(change[:, seen], axis=1)[:, None, None]
    return np.clip(usual, -MAX_HAIR_GAIN, MAX_HAIR_GAIN).astype(np.float32)


def _downweight_outliers(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weights (S, S) without values (3, S, S) far from their median: a fringe must not colour the neck."""
    sure = weight > 0.5
    if not sure.any():
        return weight
    distance = np.abs(values - np.median(values[:, sure], axis=1)[:, None, None]).max(0)
    return weight * (1 - smoothstep((distance - 0.4) / 0.4))


def pull_push(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Pull-push interpolation (Gortler et al. 1996): smooth values everywhere from weighted ones (C, S, S)."""
    resize = torch.nn.functional.interpolate
    w = torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32))[None, None]
    colour = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None] * w
    levels = [(colour, w)]
    while min(w.shape[-2:]) > 2:
        colour, w = (4 * torch.nn.functional.avg_pool2d(x, 2, ceil_mode=True) for x in levels[-1])
        keep = w.clamp_min(1).reciprocal()  # a texel that is full counts once
        colour, w = colour * keep, w * keep
        levels.append((colour, w))
    result = (colour.sum((2, 3)) / w.sum().clamp_min(1e-6))[..., None, None]
    for colour, w in reversed(levels):
        upper = resize(result, w.shape[-2:], mode="bilinear", align_corners=False)
        full = w.clamp(0, 1)
        result = colour / w.clamp_min(1e-6) * full + upper * (1 - full)
    return result[0].numpy()


def _length(vectors: np.ndarray) -> np.ndarray:
    """(S, S) of vectors (3, S, S)."""
    return np.sqrt(np.einsum("cij,cij->ij", vectors, vectors))
