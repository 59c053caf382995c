"""Mix the skin detail of two heads: style mixing, and interpolation of latents."""

from __future__ import annotations

import math

import numpy as np
import torch

from .displacement import split_bands
from .latents import check_latents, noise_maps, open_parts, quantised_noise, quantised_residual
from .module import DetailModule
from .stylegan import ConditionalGenerator


def mixed(mine: dict[str, np.ndarray], other: dict[str, np.ndarray], layers: slice) -> dict[str, np.ndarray]:
    """Style mixing: replace some rows of w by those of another skin; the first rows control creases, the last pores.

    Depth and two bands of the residual displacement go with the first rows, the finest band with the last. Noise and
    the expression's latents are kept.
    """
    w = mine["w"].copy()
    w[layers] = other["w"][layers]
    mine = mine | {"depth": other.get("depth", np.float32(1))} if layers.start in (None, 0) else mine
    bands = slice(0, 2) if layers.start in (None, 0) else slice(2, 3)
    if "residual_displacement" not in mine and "residual_displacement" not in other:
        return mine | {"w": w}
    ours, theirs = (_displacement_bands(latents) for latents in (mine, other))
    ours = np.zeros_like(theirs) if ours is None else ours
    ours[bands] = 0 if theirs is None else theirs[bands]
    return mine | {"w": w, "residual_displacement": ours.sum(0).ravel()}


def blended(
    module: DetailModule, mine: dict[str, np.ndarray], other: dict[str, np.ndarray], share: float
) -> dict[str, np.ndarray]:
    """Interpolate latents, with a share in 0..1 of the other's; exact at both ends.

    Texel noise (noise maps, the finest band of the residual displacement) is interpolated with the square roots of the
    shares, which keeps its variance, everything else linearly. Empty latents count as strength 0. The wrinkles' noise
    is that of the larger share.

    Raises:
        ParameterError: latents of another module.
    """
    for latents in (mine, other):
        if latents:
            check_latents(module, latents)
    if share in (0, 1):
        return dict(other if share else mine)
    if not mine or not other:
        latents, part = (mine, 1 - share) if mine else (other, share)
        return latents | {"strength": np.float32(part * latents["strength"])}
    mixture = dict(mine) | {key: value for key, value in other.items() if key not in mine or share > 0.5}
    mixture["noise_seed"] = mine["noise_seed"]
    for key in ("w", "expression_w"):
        if key in mine and key in other:
            mixture[key] = ((1 - share) * mine[key] + share * other[key]).astype(np.float32)
    for key in ("depth", "wrinkle_depth", "strength"):
        if key in mixture:
            mixture[key] = np.float32((1 - share) * mine.get(key, 1.0) + share * other.get(key, 1.0))
    if "expression_residual" in mixture:  # of one head: the other's belongs to another expression
        of_other = "expression_residual" not in mine or ("expression_residual" in other and share > 0.5)
        owner, part = (other, share) if of_other else (mine, 1 - share)
        residual = torch.from_numpy(np.array(owner["expression_residual"], np.float32))
        mixture["expression_residual"] = quantised_residual(part * residual).numpy()
        mixture["fitted_expression"] = owner["fitted_expression"]
    mixture["noise"] = _blended_noise(open_parts(module)[0], mine, other, share)
    if "residual_displacement" in mixture:
        parts = [(_displacement_bands(latents), part) for latents, part in ((mine, 1 - share), (other, share))]
        weights = ((b, np.array([part, part, math.sqrt(part)], np.float32)) for b, part in parts if b is not None)
        displacement = np.sum([np.einsum("bij,b->ij", bands, weight) for bands, weight in weights], axis=0)
        mixture["residual_displacement"] = quantised_residual(torch.from_numpy(displacement.ravel())).numpy()
    return mixture


def _blended_noise(
    generator: ConditionalGenerator, mine: dict[str, np.ndarray], other: dict[str, np.ndarray], share: float
) -> np.ndarray:
    """Correction (P,) of the first one's random noise that gives the interpolation of both."""
    drawn = torch.cat([values.flatten() for values in generator.make_noise(int(mine["noise_seed"]))])
    one, two = (torch.cat([v.flatten() for v in noise_maps(generator, latents)]) for latents in (mine, other))
    return quantised_noise(math.sqrt(1 - share) * one + math.sqrt(share) * two - drawn).numpy()


def _displacement_bands(latents: dict[str, np.ndarray]) -> np.ndarray | None:
    if "residual_displacement" not in latents:
        return None
    side = math.isqrt(np.size(latents["residual_displacement"]))
    return split_bands(np.array(latents["residual_displacement"], np.float32).reshape(side, side))
