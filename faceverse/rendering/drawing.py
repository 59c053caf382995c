"""Shade a posed head sample by sample: the modes of `faceverse.render`, and supersampling.

`RENDER_MODES` is the one list of modes; `render`, video clips, the command line and the web page read it.

Conventions (axes, pixels, colours): see camera.py. Colours and vectors at the P samples that hit the head are (3, P),
the layout in which torch is fastest.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..errors import ParameterError
from ..graphics.camera import Camera, project
from ..graphics.compositing import composite_layers
from ..graphics.layers import Layers
from ..graphics.lighting import LUMINANCE, glossy_reflection, linear_from_srgb, shading
from ..parts.eyes import wet_share
from ..parts.part import EYE_SLOTS, STRAND_SLOTS
from ..result import FitResult
from .hair import with_strands
from .posed import PosedHead, as_tensor
from .samples import LayerSamples, Samples, SeenSamples

_MAX_SAMPLES = 1 << 21  # larger pictures are drawn in bands, which bounds the memory
_CLAY = (0.58, 0.565, 0.55)
_CLAY_LIGHTS = (  # direction to the light, camera space; strength of diffuse and of glossy reflection
    ((-0.55, 0.60, 0.58), 0.86, 0.12),
    ((0.85, 0.05, 0.52), 0.22, 0.03),
    ((0.10, 0.75, -0.65), 0.30, 0.05),
)
_HAIR_CLAY = 0.68  # of hair relative to skin, that the hair line shows
_GRAIN = (0.45, 1.3)  # range of the brightness of hairs relative to their mean
_WIRE = (0.02, 0.05, 0.12)
_WIRE_HALF_WIDTH_PX = 0.45
_WIRE_FADE_PX = 10.0
_FLUSH_M = 4e-4  # brows lie on the skin: a layer this far behind it, by the error of its mesh, still counts as in front
_GLOSSY = 0.35  # least roughness without a highlight


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


def posed_head(result: FitResult, mode: str, pose: np.ndarray, translation: np.ndarray) -> PosedHead:
    """Pose a head for a mode.

    Args:
        mode: of `RENDER_MODES`.
        pose, translation: (3, 3) and (3,) metres, head to camera.

    Raises:
        ParameterError: unknown mode, or the head has a part that the model's library does not have.
    """
    if not isinstance(mode, str) or mode not in RENDER_MODES:
        close, known = difflib.get_close_matches(str(mode), RENDER_MODES, n=1), ", ".join(RENDER_MODES)
        if close:
            raise ParameterError("render.similar_mode", mode=repr(mode), close=repr(close[0]), known=known)
        raise ParameterError("render.mode", mode=repr(mode), known=known)
    return PosedHead.of(result, pose, translation, is_coarse=RENDER_MODES[mode].is_coarse)


def draw(head: PosedHead, mode: str, camera: Camera, supersample: int) -> Drawn:
    """Draw a head with supersampling, only in the rectangle that it can cover, band by band.

    Args:
        mode: of `RENDER_MODES`, for which the head was posed.
        supersample: samples per pixel in each direction.
    """
    height, width = camera.image_size
    drawn = Drawn(torch.zeros(height, width, 3), torch.zeros(height, width), torch.zeros(height, width))
    box = _box_px(head.points(camera), (height, width))
    if box is None:
        return drawn
    x0, y0, x1, y1 = box
    band = max(1, _MAX_SAMPLES // ((x1 - x0) * supersample**2))
    for top in range(y0, y1, band):
        bottom = min(top + band, y1)
        samples = SeenSamples.of(head, camera.cropped((x0, top, x1, bottom), (bottom - top, x1 - x0)), supersample)
        rgb, gloss = RENDER_MODES[mode].shade(samples), RENDER_MODES[mode].gloss(samples)
        rgb = rgb if gloss is None else rgb.clamp_min(0) + gloss
        shaded = torch.cat([rgb.clamp(0, 1), samples.located()])
        image = shaded.new_zeros(5, samples.fragments.triangle.numel()).index_copy_(1, samples.pixels, shaded)
        image = _with_layers(image.view(5, *samples.camera.image_size), samples, RENDER_MODES[mode])
        image = torch.nn.functional.avg_pool2d(image, supersample) if supersample > 1 else image
        drawn.rgb[top:bottom, x0:x1] = image[:3].movedim(0, 2)
        drawn.coverage[top:bottom, x0:x1] = image[3]
        drawn.depth[top:bottom, x0:x1] = image[4] / image[3].clamp_min(1e-6)
    return drawn


def _with_layers(image: Tensor, seen: SeenSamples, mode: RenderMode) -> Tensor:
    """Composite the head's transparent parts over a supersampled picture (5, H, W): RGB, coverage, depth."""
    head, mesh = seen.head, seen.head.transparent
    if mesh is None:
        return image
    slots = [part.slot if part is not None else None for part in mesh.parts]
    shown = torch.tensor([mode.layers is None or slot in mode.layers for slot in slots])
    if not shown.any():
        return image
    points = project(mesh.vertices_cam, seen.camera)
    box = _box_px(points[(points[:, 2] > 0) & torch.isfinite(points).all(1), :2], seen.camera.image_size)
    if box is None:
        return image
    x0, y0, x1, y1 = box
    camera = seen.camera.cropped(box, (y1 - y0, x1 - x0))
    vertices_px = project(mesh.vertices_cam, camera)
    depth = seen.fragments.depth[:, y0:y1, x0:x1]

    def shade(layers: Layers) -> tuple[Tensor, Tensor]:
        samples = LayerSamples.of(head, vertices_px, seen.per_pixel, layers)
        colours, alphas, gloss = mode.shade(samples).clamp(0, 1), samples.coverage, mode.gloss(samples)
        if mode.layers is not None:
            alphas = torch.where(shown[mesh.surface_of(samples.triangle)], alphas, 0)
        if gloss is not None:  # clear surfaces such as corneas reflect light all the same
            gloss = gloss.clamp(0, 1)
            opaque = alphas + (1 - alphas) * gloss.amax(0)
            colours, alphas = ((colours * alphas + gloss) / opaque.clamp_min(1e-6)).clamp(0, 1), opaque
        return torch.cat([colours, samples.located()]), alphas

    background = image[:, None, y0:y1, x0:x1]
    in_front_of = torch.where(depth > 0, depth + _FLUSH_M, 0)
    image[:, y0:y1, x0:x1] = composite_layers(
        vertices_px[None], mesh.faces, shade, background, in_front_of=in_front_of
    )[:, 0]
    return image


def _box_px(points: Tensor, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Whole pixels (x0, y0, x1, y1) of a picture (H, W) around points (P, 2); None if they all lie outside."""
    if not len(points):
        return None
    limit = torch.tensor([size[1], size[0]], dtype=torch.float32)
    low = points.amin(0).clamp(min=torch.zeros(2), max=limit).floor().long().tolist()
    high = points.amax(0).clamp(min=torch.zeros(2), max=limit).ceil().long().tolist()
    (x0, y0), (x1, y1) = low, high
    return None if x0 == x1 or y0 == y1 else (x0, y0, x1, y1)


def _color(samples: Samples) -> Tensor:
    light = as_tensor(samples.head.result.params.light)
    is_smooth = samples.head.result.normal_map is None and samples.mesh is samples.head.opaque
    if is_smooth:
        shade = samples.interpolated(shading(samples.mesh.normals, light), samples.mesh.corners)
    else:
        shade = shading(samples.detailed_normals.t(), light).t()
    if samples.light is not None:
        shade = shade * samples.light
    return with_strands(samples, samples.albedo * shade, light)


def _gloss(samples: Samples) -> Tensor | None:
    """(3, P) reflections of smooth parts, such as eyes and teeth; None if none are seen."""
    gloss, light = None, as_tensor(samples.head.result.params.light)
    for surface, here in samples.by_part():
        part = samples.mesh.parts[surface]
        if part is None or part.material.roughness >= _GLOSSY:
            continue
        to_camera = -torch.nn.functional.normalize(samples.positions(here), dim=0)
        reflected = glossy_reflection(samples.normals_at(here), to_camera, part.material.roughness, light)
        if samples.light is not None:
            reflected = reflected * samples.light[here]
        if part.slot in EYE_SLOTS:
            reflected = reflected * torch.from_numpy(wet_share(part, samples.uv[:, here].numpy()))
        gloss = torch.zeros(3, len(samples.triangle)) if gloss is None else gloss
        gloss = gloss.index_add(1, here, reflected)
    return gloss


def _albedo(samples: Samples) -> Tensor:
    return samples.albedo


def _clay(samples: Samples) -> Tensor:
    normals = samples.detailed_normals
    diffuse = 0.14 + 0.06 * normals[1]
    gloss = torch.zeros_like(diffuse)
    for direction, strength, shine in _CLAY_LIGHTS:
        to_light = torch.nn.functional.normalize(torch.tensor(direction), dim=0)
        halfway = torch.nn.functional.normalize(to_light + torch.tensor([0.0, 0.0, 1.0]), dim=0)
        diffuse = diffuse + strength * (to_light @ normals).clamp_min(0)
        gloss = gloss + shine * (halfway @ normals).clamp_min(0) ** 24
    clay = torch.tensor(_CLAY)[:, None] * diffuse + gloss
    for surface, here in samples.by_part():
        part = samples.mesh.parts[surface]
        if part is not None and part.slot in STRAND_SLOTS:
            clay[:, here] = _with_grain(clay[:, here], samples.albedo[:, here])
    return clay if samples.light is None else clay * samples.light


def _with_grain(clay: Tensor, albedo: Tensor) -> Tensor:
    """Clay (3, K) that shows which hairs are bright and which are dark, whatever their colour."""
    brightness = torch.tensor(LUMINANCE) @ albedo
    grain = (brightness / brightness.mean().clamp_min(1e-6)).clamp(*_GRAIN)
    return clay * _HAIR_CLAY * grain


def _normal(samples: Samples) -> Tensor:
    return linear_from_srgb(samples.detailed_normals * 0.5 + 0.5)


def _depth(samples: Samples) -> Tensor:
    # The range is the whole head's, not the visible part's: the same surface has the same grey in every crop.
    near, far = (-samples.head.opaque.vertices_cam[:, 2]).aminmax()
    grey = 0.1 + 0.9 * (1 - (samples.depth - near) / (far - near).clamp_min(1e-6)).clamp(0, 1) ** 1.5
    return linear_from_srgb(grey).expand(3, -1)


def _uv(samples: Samples) -> Tensor:
    u, v = samples.uv
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
    first = samples.mesh.first.tolist()
    sizes_px = [float(area[a:b].nan_to_num().mean()) ** 0.5 / samples.per_pixel for a, b in pairwise(first)]
    strength = torch.tensor([min(max(size / _WIRE_FADE_PX, 0.2), 1) for size in sizes_px])
    line = line * strength[samples.mesh.surface_of(samples.triangle)]
    return _clay(samples) * (1 - line) + torch.tensor(_WIRE)[:, None] * line


@dataclass(frozen=True)
class RenderMode:
    """What a picture of a head shows.

    Attributes:
        description: in a few words, for help texts.
        shade: linear RGB (3, P) of the samples; values are clamped to 0..1 afterwards.
        gloss: linear RGB (3, P) that smooth surfaces reflect, also those that one sees through; None for no samples.
        layers: slots of the transparent parts that show; None for all.
        is_coarse: the head has the faces of the coarse mesh.
    """

    description: str
    shade: Callable[[Samples], Tensor]
    gloss: Callable[[Samples], Tensor | None] = lambda samples: None
    layers: tuple[str, ...] | None = None
    is_coarse: bool = False


RENDER_MODES: dict[str, RenderMode] = {
    "color": RenderMode("texture in the fitted light", _color, _gloss),
    "albedo": RenderMode("texture without light", _albedo),
    "clay": RenderMode("grey clay under studio lights", _clay, layers=STRAND_SLOTS),
    "normal": RenderMode("normals in camera space", _normal),
    "depth": RenderMode("depth, near is bright", _depth),
    "uv": RenderMode("texture coordinates", _uv),
    "wireframe": RenderMode("edges of the coarse mesh", _wireframe, layers=(), is_coarse=True),
}
"""Modes of `render` by name."""
