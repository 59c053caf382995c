"""Highlights of hair, and the shadow inside it.

Reference: Kajiya and Kay, Rendering Fur with Three Dimensional Textures, 1989; the two shifted highlights of Marschner
et al., Light Scattering from Human Hair Fibers, 2003, as approximated by Scheuermann, 2004.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..graphics.lighting import LUMINANCE, dominant_lamp, shading
from ..parts.part import STRAND_SLOTS
from .samples import Samples, unit

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
    from_inside = shading(-samples.mesh.normals, light) * samples.mesh.strands[:, 3:]
    for surface, here in samples.by_part():
        part = samples.mesh.parts[surface]
        if part is None or part.slot not in STRAND_SLOTS:
            continue
        normals, albedo = samples.normals_at(here), samples.albedo[:, here]
        inner = samples.interpolated(from_inside, samples.mesh.corners, here)
        to_camera = -unit(samples.positions(here))
        outside = _smoothstep((normals * to_camera).sum(0), *_TURNED)
        strands = unit(samples.interpolated(samples.mesh.strands[:, :3], samples.mesh.corners, here))
        halfway = unit(to_camera + to_lamp[:, None])
        mean = torch.tensor(LUMINANCE) @ albedo
        variation = (mean / mean.mean().clamp_min(1e-6) - 1).clamp(-1, 1) * _STRAND_SHIFT
        lit = _smoothstep(to_lamp @ normals, -0.3, 0.7)
        white = _WHITE * _highlight(strands, normals, halfway, _WHITE_SHIFT + variation, _WHITE_SHARPNESS)
        through = _TINTED * _highlight(strands, normals, halfway, _TINTED_SHIFT + variation, _TINTED_SHARPNESS)
        received = lit * outside * _STRENGTH[part.slot]
        if samples.light is not None:
            received = received * samples.light[here]
        shine = lamp[:, None] * (white + through * albedo) * received
        shaded = outside * colours[:, here] + (1 - outside) * albedo * inner + shine
        colours = colours.index_copy(1, here, shaded)
    return colours


def _highlight(strands: Tensor, normals: Tensor, halfway: Tensor, shift: Tensor, sharpness: float) -> Tensor:
    """(K,) highlight of strands (3, K) that are tilted towards their normals (3, K) by a shift (K,)."""
    tilted = unit(strands + shift * normals)
    along = (tilted * halfway).sum(0)
    return (1 - along**2).clamp_min(0) ** (sharpness / 2)


def _smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
