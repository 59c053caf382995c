"""Smooth interpolation of sparse values in an image."""

from __future__ import annotations

import numpy as np
import torch


def pull_push(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Pull-push interpolation of values (C, S, S) with weights (S, S): smooth values everywhere.

    Reference: Gortler, Grzeszczuk, Szeliski and Cohen 1996, "The Lumigraph".
    """
    resize = torch.nn.functional.interpolate
    w = torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32))[None, None]
    colour = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None] * w
    levels = [(colour, w)]
    while min(w.shape[-2:]) > 2:
        colour, w = (4 * torch.nn.functional.avg_pool2d(x, 2, ceil_mode=True) for x in levels[-1])
        saturation = w.clamp_min(1).reciprocal()  # weights saturate at 1
        colour, w = colour * saturation, w * saturation
        levels.append((colour, w))
    result = (colour.sum((2, 3)) / w.sum().clamp_min(1e-6))[..., None, None]
    for colour, w in reversed(levels):
        upper = resize(result, w.shape[-2:], mode="bilinear", align_corners=False)
        full = w.clamp(0, 1)
        result = colour / w.clamp_min(1e-6) * full + upper * (1 - full)
    return result[0].numpy()
