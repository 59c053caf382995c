"""Highlights of hair, and the shadow inside it.

Reference: Kajiya and Kay, Rendering Fur with Three Dimensional Textures, 1989; the two shifted highlights of Marschner
et al., Light Scattering from Human Hair Fibers, 2003, as approximated by Scheuermann, 2004.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..graphics.lighting import LUMINANCE, dominant_lamp, shading
from ..parts.part import STRAND_SLOTS
from .samples import Samples

_STRENGTH = {"hair": 1.0, "scalp": 0.35, "beard": 0.8}
_WHITE, _WHITE_SHIFT, _WHITE_SHARPNESS = 0.035, 0.10, 60.0  # reflected at the surface of the hairs, towards the roots
_TINTED, _TINTED_SHIFT, _TINTED_SHARPNESS = 0.35, -0.16, 14.0  # through the hairs: a share of their colour, to the tips
_STRAND_SHIFT = 0.12  # by which the brightness of a strand moves its highlight: strands differ
_TURNED = (-0.30, 0.15)  # cosine to the viewer between which the inside becomes the outside


def with_strands(samples: Samples, colours: Tensor, light: Tensor) -> Tensor:
    """Shaded colours (3, P) of samples, lit from both sides and with highlights where they are on hair.

    Args:
        light: (9, 3) spherical harmonics.
    """
    if samples.mesh.strands is None:
        return colours
    to_lamp, lamp = dominant_lamp(light)
    at_vertices = _at_vertices(samples.mesh.vertices_cam, samples.mesh.normals, samples.mesh.strands, to_lamp, light)
    for surface, here in samples.by_part():
        part = samples.mesh.parts[surface]
        if part is None or part.slot not in STRAND_SLOTS:
            continue
        values = samples.interpolated(at_vertices, samples.mesh.corners, here)
        (along, above, facing, lit), inner = values[:4], values[4:]
        outside, albedo = _smoothstep(facing, *_TURNED), samples.albedo[:, here]
        mean = torch.tensor(LUMINANCE) @ albedo
        variation = (mean / mean.mean().clamp_min(1e-6) - 1).clamp(-1, 1) * _STRAND_SHIFT
        white = _WHITE * _highlight(along, above, _WHITE_SHIFT + variation, _WHITE_SHARPNESS)
        through = _TINTED * _highlight(along, above, _TINTED_SHIFT + variation, _TINTED_SHARPNESS)
        received = _smoothstep(lit, -0.3, 0.7) * outside * _STRENGTH[part.slot]
        if samples.light is not None:
            received = received * samples.light[here]
        shine = lamp[:, None] * (white + through * albedo) * received
        shaded = outside * colours[:, here] + (1 - outside) * albedo * inner + shine
        colours = colours.index_copy(1, here, shaded)
    return colours


def _at_vertices(vertices_cam: Tensor, normals: Tensor, strands: Tensor, to_lamp: Tensor, light: Tensor) -> Tensor:
    """(V, 7) what samples need of the vertices, because interpolating cosines costs less than vectors: cosines of the
    halfway vector to strand and normal, of the normal to camera and lamp; then the light (3) on the inside."""
    to_camera = -torch.nn.functional.normalize(vertices_cam, dim=1)
    halfway = torch.nn.functional.normalize(to_camera + to_lamp, dim=1)
    along, inner = strands[:, :3], strands[:, 3:]
    cosines = [(along * halfway).sum(1), (normals * halfway).sum(1), (normals * to_camera).sum(1), normals @ to_lamp]
    return torch.cat([torch.stack(cosines, dim=1), shading(-normals, light) * inner], dim=1)


def _highlight(along: Tensor, above: Tensor, shift: Tensor, sharpness: float) -> Tensor:
    """(K,) highlight of strands that are tilted towards their normals by a shift (K,).

    Args:
        along, above: (K,) cosines of the halfway vector to strand and normal.
    """
    square = (along + shift * above) ** 2 / (1 + shift**2)
    return (1 - square).clamp_min(0) ** (sharpness / 2)


def _smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
