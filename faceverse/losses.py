"""Terms of the fitting loss; each is a scalar in squares of standard deviations, so that they can be added."""

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


def residual_sigma(rendered: Tensor, photo: Tensor, weight: Tensor) -> float:
    """Robust deviation of two pictures where votes are cast: how well the model explains this photograph at present.

    Args:
        rendered, photo: (N, H, W, 3); weight: (N, H, W).
    Returns:
        1.48 times the median difference (root mean square over channels) of the pixels that vote at least one half.
    """
    difference = (rendered - photo).square().mean(-1).sqrt()[weight > 0.5]
    return 1.4826 * float(difference.median()) if len(difference) else float("inf")


def landmark(projected_px: Tensor, observed_px: Tensor, weight: Tensor, factor: Tensor | None = None) -> Tensor:
    """Sum of squared distances in deviations, less what the detector's habits explain.

    Args:
        projected_px, observed_px: (L, 2).
        weight: (L,) 1 / px.
        factor: (2L, K) from `faceverse.fitting.solver.habit_factor`.
    """
    residual = ((projected_px - observed_px) * weight[:, None]).reshape(-1)
    loss = residual.square().sum()
    return loss if factor is None else loss - (factor.T @ residual).square().sum()


def gaussian_prior(coefficients: Tensor, mean: Tensor | float = 0.0, sigma: Tensor | float = 1.0) -> Tensor:
    """Sum of ((coefficients - mean) / sigma)^2."""
    return ((coefficients - mean) / sigma).square().sum()


def light_prior(light: Tensor) -> Tensor:
    """Light is nearly white and mostly even: distance of light (9, 3) from grey, and size of its directional part."""
    grey = light.mean(-1, keepdim=True)
    chroma = (light - grey).square().sum()
    return 4.0 * chroma + 0.25 * grey[1:].square().sum()
