"""Skin below a beard: where a photograph shows a beard, the texture of the skin shows it as well.

Dimensions: V vertices of a model, C cards of its mesh of beards, S side of a texture.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree

from ..graphics.lighting import linear_from_srgb
from ..graphics.pull_push import pull_push
from ..parts.beard import shaped
from ..parts.beard_layout import roots_of
from .face_model import FaceModel, FaceParams
from .skin_texture import DARKEST_ALBEDO, encode_srgb, model_albedo, smoothstep
from .texture_maps import bake_planes

_BELOW_M = (0.012, 0.007)  # distance to the next hair from which the skin shows, and up to which it does not
_AROUND_M = 0.05  # from whose skin that below a beard is continued
_MOUTH = ("lips", "mouth_inside", "teeth", "tongue")


def skin_below_beard(model: FaceModel, params: FaceParams) -> np.ndarray:
    """Share (V,) in 0..1 by which the beard of a head hides the skin; 0 for a head without."""
    if model.parts is None or "beard" not in params.styles:
        return np.zeros(len(model.mean_vertices), np.float32)
    part = shaped(model.parts.choose({"beard": params.styles["beard"]})["beard"], params.beard)
    distance = cKDTree(roots_of(part)).query(model.mean_vertices, distance_upper_bound=_BELOW_M[0])[0]
    below = smoothstep((_BELOW_M[0] - distance) / (_BELOW_M[0] - _BELOW_M[1]))
    for name in _MOUTH:
        below[model.regions.get(name, np.zeros(0, np.int64))] = 0
    return below.astype(np.float32)


def texture_without_beard(model: FaceModel, params: FaceParams, texture: np.ndarray) -> np.ndarray:
    """The texture (S, S, 3) uint8 of a head with skin where its beard is: that around it, continued.

    The ratio of the texture to the model's albedo is interpolated, as where a photograph shows no skin.

    Args:
        params: with the beard.
        texture: sRGB.
    """
    below = skin_below_beard(model, params)
    if not below.any():
        return texture
    size = len(texture)
    beard = model.mean_vertices[below > 0]
    around = cKDTree(beard).query(model.mean_vertices, distance_upper_bound=_AROUND_M)[0] < np.inf
    is_skin = around.astype(np.float32)
    for name in (*_MOUTH, "eyeballs", "eye_sockets", "scalp", "ears"):
        is_skin[model.regions.get(name, np.zeros(0, np.int64))] = 0
    values = np.column_stack([model_albedo(model, params), below, is_skin])
    baked = bake_planes(model, values, size)
    base, hidden, source = np.maximum(baked[:3], DARKEST_ALBEDO), baked[3], baked[4]
    table = linear_from_srgb(torch.arange(256, dtype=torch.float64) / 255).numpy().astype(np.float32)
    change = np.log(np.maximum(np.moveaxis(table[texture], 2, 0), DARKEST_ALBEDO)) - np.log(base)
    continued = base * np.exp(pull_push(change, np.where(hidden > 0, 0, source)))
    mixed = encode_srgb(np.ascontiguousarray(np.moveaxis(continued, 0, 2))) * hidden[..., None]
    return (mixed + texture * (1 - hidden[..., None]) + 0.5).astype(np.uint8)
