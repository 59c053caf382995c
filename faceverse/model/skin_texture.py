"""Texture of the model's albedo, with procedural irises."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..graphics.lighting import srgb_from_linear
from .face_model import FaceModel, FaceParams
from .scalp import bare_scalp
from .texture_maps import bake_vertices, uv_fragments

DARKEST_ALBEDO = 0.004
EYE_SOCKET_ALBEDO = (0.26, 0.12, 0.10)  # linear RGB; visible where a moving lid opens a gap
IRIS_DEG, PUPIL_DEG, BLEND_DEG = 25.0, 8.5, 2.0  # angles to the gaze axis as seen from the eyeball's centre


@dataclass(frozen=True)
class SkinTexture:
    """Albedo map of a head.

    Args:
        rgb: (S, S, 3) uint8 sRGB.
        confidence: (S, S) uint8, 255 where the photograph shows the skin well, 0 where the model completes it.
    """

    rgb: np.ndarray
    confidence: np.ndarray


def model_texture(model: FaceModel, params: FaceParams, size: int = 512) -> SkinTexture:
    """Bake the model's albedo with painted irises, for heads that come from no photograph."""
    linear = bake_vertices(model, model_albedo(model, params), size)
    linear = paint_irises(model, linear, params.iris)
    return SkinTexture(encode_srgb(linear), np.zeros((size, size), np.uint8))


def paint_irises(model: FaceModel, linear: np.ndarray, iris: np.ndarray) -> np.ndarray:
    """Paint pupil, iris and limbus on both eyeballs of a copy of a linear texture (S, S, 3)."""
    linear, size = linear.copy(), linear.shape[0]
    fragments = uv_fragments(model, size)
    corners = model.faces[fragments.triangle]
    for name in ("eyeball_left", "eyeball_right"):
        index = model.regions.get(name, np.zeros(0, np.int64))
        if not len(index):
            continue
        member = np.zeros(len(model.mean_vertices), bool)
        member[index] = True
        rows, columns = np.nonzero(member[corners].all(-1) & (fragments.triangle >= 0))
        weights = fragments.barycentric[rows, columns]
        points = (model.mean_vertices[corners[rows, columns]] * weights[..., None]).sum(1)
        direction = points - model.mean_vertices[index].mean(0)
        degrees = np.degrees(np.arccos(np.clip(direction[:, 2] / np.linalg.norm(direction, axis=1), -1, 1)))
        linear[rows, columns] = _eye_colour(degrees, np.arctan2(direction[:, 1], direction[:, 0]), iris)
    return linear


def _eye_colour(degrees: np.ndarray, around: np.ndarray, iris: np.ndarray) -> np.ndarray:
    """Linear colours (K, 3) of the eye by angle to the gaze axis and angle around it."""
    sclera = np.array([0.50, 0.455, 0.44])
    # Incommensurate waves look as irregular as real fibres, without random numbers.
    fibres = 1 + 0.16 * np.sin(23 * around + 3 * np.sin(5 * around)) + 0.10 * np.sin(41 * around + 1.3)
    ring = np.clip((degrees - PUPIL_DEG) / (IRIS_DEG - PUPIL_DEG), 0, 1)
    shading = (1.25 - 0.55 * ring**3) * fibres
    colour = np.asarray(iris)[None] * shading[:, None]
    limbus = np.exp(-(((degrees - IRIS_DEG) / 2.2) ** 2))[:, None]
    white = smoothstep((degrees - IRIS_DEG) / BLEND_DEG + 0.5)[:, None]
    redness = 1 - np.clip((degrees - 35) / 60, 0, 1)[:, None] * np.array([0.05, 0.22, 0.22])
    eye = (1 - white) * colour + white * sclera * redness
    eye = eye * (1 - 0.55 * limbus)
    pupil = smoothstep((PUPIL_DEG - degrees) / BLEND_DEG + 0.5)[:, None]
    return (1 - pupil) * eye + pupil * 0.004


def model_albedo(model: FaceModel, params: FaceParams) -> np.ndarray:
    """Albedo (V, 3) linear RGB of the model, bounded to DARKEST_ALBEDO..1, with the eye sockets in their own colour."""
    with torch.no_grad():
        albedo = model.albedo(torch.from_numpy(params.albedo)[None])[0].clamp(DARKEST_ALBEDO, 1).numpy()
    albedo = albedo_without_hair(model, albedo)
    albedo[model.regions.get("eye_sockets", np.zeros(0, np.int64))] = EYE_SOCKET_ALBEDO
    return albedo


def albedo_without_hair(model: FaceModel, albedo: np.ndarray) -> np.ndarray:
    """The albedo (V, 3) with skin on the scalp, of models whose hair is a part."""
    has_hair = model.parts is not None and bool(model.parts.styles("scalp"))
    return bare_scalp(model, albedo) if has_hair else albedo


def smoothstep(x: float | np.ndarray) -> np.ndarray:
    """Cubic Hermite step from 0 at x <= 0 to 1 at x >= 1."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear RGB to uint8 sRGB."""
    return (srgb_from_linear(torch.from_numpy(linear.astype(np.float32))) * 255 + 0.5).to(torch.uint8).numpy()
