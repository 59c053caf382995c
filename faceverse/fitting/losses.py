"""Terms of the fitting loss; each is a scalar in squares of standard deviations, so that they can be added.

The fit writes them at samples of the skin and as quadratic forms, with derivatives (`fitting.surface`,
`fitting.photometric`); these are the plain definitions that tests hold it to.
"""

from __future__ import annotations

from torch import Tensor

ROBUST_SCALE = 2.5  # residuals beyond this many deviations lose their vote


def robust_photometric(rendered: Tensor, photo: Tensor, weight: Tensor, sigma: float) -> Tensor:
    """Geman-McClure distance of two pictures, weighted mean over pixels.

    Args:
        rendered, photo: (N, H, W, 3) sRGB in 0..1.
        weight: (N, H, W) votes per pixel, 0 where nothing is to be compared.
        sigma: deviation that is expected where the model is right.
    Returns:
        scalar, 0 for equal pictures, at most ROBUST_SCALE^2: what the model cannot explain (hair, glasses) saturates.
    """
    square = ((rendered - photo) / sigma).square().sum(-1) / 3
    saturated = square / (1 + square / ROBUST_SCALE**2)
    return (saturated * weight).sum() / weight.sum().clamp_min(1e-6)


def light_prior(light: Tensor) -> Tensor:
    """Light is nearly white and mostly even: distance of light (9, 3) from grey, and size of its directional part.

    Both are relative to its strength in `fitting.photometric.light_rows`.
    """
    grey = light.mean(-1, keepdim=True)
    chroma = (light - grey).square().sum()
    return 4.0 * chroma + 0.25 * grey[1:].square().sum()
