"""Linear shape from shading: the displacement of the skin that explains its shading, in closed form.

To first order, the logarithm of a texel's luminance changes by the gradient of the light times the slope of its
displacement. Given light and base surface, the displacement is the solution of a sparse linear least-squares problem
with a Gaussian prior on its spectrum, found by conjugate gradients preconditioned in the Fourier domain.

Albedo changes the luminance as well. Wrinkles are lines, most marks of the albedo are round or irregular, so the signal
is first filtered along its local orientation and attenuated where the filtered signal is weak (a local Wiener filter).
How strong lines are on the whole face sets the prior variance of all of its displacement: skin without lines is smooth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .skin_observation import (
    MM_PER_TEXEL_AT_512,
    SkinObservation,
    gaussian_blur,
    luminance,
    shade_sensitivity,
)

HIGH_PASS_SIGMA_MM = 4.0  # coarser structure belongs to the base model
LARGEST_CHANGE = 0.5  # of the log luminance: larger ones are hairs, nostrils, highlights
GRADIENT_SIGMA_MM, ORIENTATION_SIGMA_MM = 0.6, 2.0  # of the structure tensor: derivatives, and their mean
LINE_SIGMA_MM, LINE_REACH = 1.5, 4  # Gaussian filter along the lines: sigma, and samples to each side
ENERGY_SIGMA_MM = 1.5  # window of the signal's local energy
LEAST_COHERENCE = 0.35  # below, a texel's neighbourhood has no orientation and counts as albedo
ALBEDO_SIGMA = 0.025  # standard deviation of the albedo's share of the filtered signal, in logarithms
EVIDENCE_SIGMA_MM = 2.5  # high-pass filter of the lines that are evidence; broader ones are the face's own shape
EVIDENCE_QUANTILE, EVIDENCE_RANGE = 0.75, (0.036, 0.05)  # of the lines' local amplitude: no, and certain wrinkles
LEAST_EVIDENCE = 0.08
SLOPE_PRIOR = 0.1  # variance of the noise over that of the slope
PRIOR_WIDTHS_MM = (8.0, 0.15)  # structure wider than the first or finer than the second is unlikely
ITERATIONS = 8
MIN_TEXELS = 100  # with skin; with fewer there is nothing to estimate
BORDER_TEXELS = 24


@dataclass(frozen=True)
class ShadingEstimate:
    """Displacement estimated from shading.

    Args:
        displacement: (S, S) mm.
        evidence: 0..1, how clearly the photograph shows wrinkles.
        seen: (S, S) 0..1, where the photograph determines the displacement.
        history: norm of the residual relative to that of the right-hand side, before each iteration and at the end.
    """

    displacement: Tensor
    evidence: float
    seen: Tensor
    history: tuple[float, ...]


def displacement_from_shading(view: SkinObservation, weight: Tensor | None = None) -> ShadingEstimate:
    """Estimate the displacement that the shading of a photograph shows.

    Args:
        view: the observed skin.
        weight: (S, S) 0..1 of the texels; by default `view.shading_weight`.
    """
    weight = view.shading_weight if weight is None else weight
    size = weight.shape[-1]
    if int((weight > 0.5).sum()) < MIN_TEXELS:
        nothing = torch.zeros(size, size)
        return ShadingEstimate(nothing, 0.0, nothing, ())
    box = _box(weight)
    gradient = tuple(maps[box] for maps in shading_gradient(view))
    texel_mm = MM_PER_TEXEL_AT_512 * 512 / size
    change = _high_pass(luminance(view.change)[box], weight[box], HIGH_PASS_SIGMA_MM / texel_mm)
    signal, evidence = line_signal(change, weight[box], view.plain_skin[box], size)
    solved, history = solve_displacement(signal, weight[box], gradient, texel_mm)
    displacement = torch.zeros(size, size)
    displacement[box] = solved
    return ShadingEstimate(displacement * view.frame.weight, evidence, weight, history)


def shading_gradient(view: SkinObservation) -> tuple[Tensor, Tensor]:
    """Derivatives (S, S) of the log luminance with respect to the differences of a displacement in mm from texel to
    texel, along the rows and down the columns of the map."""
    frame = view.frame
    of_u, of_v = shade_sensitivity(frame, view.light)
    sine = (1 - frame.cosine**2).clamp_min(0).sqrt().clamp_min(0.2)
    along_rows = (of_u - of_v * frame.cosine / sine) / frame.texel_u_mm
    down_columns = -of_v / sine / frame.texel_v_mm
    return along_rows * frame.weight, down_columns * frame.weight


def line_signal(change: Tensor, weight: Tensor, plain_skin: Tensor, size: int) -> tuple[Tensor, float]:
    """The share of a change of log luminance (H, W) that lines cause, and the evidence of wrinkles, 0..1.

    Args:
        change: high-pass filtered.
        weight: (H, W) 0..1 of the texels.
        plain_skin: (H, W) 0..1, below 1 at brows and lashes, which are attenuated unless the skin around is wrinkled.
        size: side of the whole map, for lengths in millimetres.
    """
    texels = size / 512 / MM_PER_TEXEL_AT_512
    change = change * weight
    direction, coherence = _orientation(change, texels)
    filtered = _along(change, direction, texels)
    fine = _high_pass(filtered, weight, EVIDENCE_SIGMA_MM * texels)
    share = gaussian_blur(weight[None], ENERGY_SIGMA_MM * texels)[0].clamp_min(0.05)
    energy, fine_energy = (
        gaussian_blur((weight * maps.square())[None], ENERGY_SIGMA_MM * texels)[0] / share for maps in (filtered, fine)
    )
    reliable = (weight > 0.5) & (plain_skin > 0.9)
    if int(reliable.sum()) < MIN_TEXELS:
        return torch.zeros_like(change), 0.0
    amplitude = float(fine_energy[reliable].sqrt().quantile(EVIDENCE_QUANTILE))
    low, high = EVIDENCE_RANGE
    part = min(max((amplitude - low) / (high - low), 0.0), 1.0)
    evidence = max(part * part * (3 - 2 * part), LEAST_EVIDENCE)
    energy = energy * (coherence / LEAST_COHERENCE).clamp(0, 1)
    gain = energy / (energy + ALBEDO_SIGMA**2)
    hairs = plain_skin + (1 - plain_skin) * evidence
    return (gain * change + (1 - gain) * filtered) * gain * evidence * hairs, evidence


def solve_displacement(
    signal: Tensor, weight: Tensor, gradient: tuple[Tensor, ...], texel_mm: float, iterations: int = ITERATIONS
) -> tuple[Tensor, tuple[float, ...]]:
    """Minimise sum w (signal - gradient . D d)^2 + prior(d) over the displacement d by conjugate gradients.

    The prior is diagonal in the Fourier domain: SLOPE_PRIOR times the squared slope, plus terms against structure
    outside PRIOR_WIDTHS_MM.

    Args:
        signal, weight: (H, W); the weight is 0 at the border.
        gradient: see `shading_gradient`.
        texel_mm: side of a texel.
        iterations: of conjugate gradients.
    Returns:
        (H, W) mm, and the history of relative residuals.
    """
    shape = signal.shape
    frequencies = torch.meshgrid(
        torch.fft.fftfreq(shape[0]), torch.fft.rfftfreq(shape[1]), indexing="ij"
    )  # fmt: skip
    forward = [(2 * torch.sin(torch.pi * f) / texel_mm).square() for f in frequencies]
    central = [(torch.sin(2 * torch.pi * f) / texel_mm).square() for f in frequencies]
    square = forward[0] + forward[1]
    wide, fine = PRIOR_WIDTHS_MM
    prior = SLOPE_PRIOR * (square + 1 / wide**2 + (fine * square).square())
    strength = sum((weight * part.square()).sum() for part in gradient) / weight.sum().clamp_min(1e-6)
    precondition = 1 / (prior + strength * texel_mm**2 / 3 * (central[0] + central[1]))

    def filtered(values: Tensor, response: Tensor) -> Tensor:
        return torch.fft.irfft2(response * torch.fft.rfft2(values), s=shape)

    def adjoint(residual: Tensor) -> Tensor:
        weighted = weight * residual
        return -_difference(gradient[0] * weighted, 1) - _difference(gradient[1] * weighted, 0)

    def normal_product(values: Tensor) -> Tensor:
        shade = gradient[0] * _difference(values, 1) + gradient[1] * _difference(values, 0)
        return adjoint(shade) + filtered(values, prior)

    residual = adjoint(signal)
    found, scale = torch.zeros(shape), residual.norm().clamp_min(1e-12)
    step = preconditioned = filtered(residual, precondition)
    product, history = (residual * preconditioned).sum(), [float(residual.norm() / scale)]
    for _ in range(iterations):
        if float(product) <= 0:
            break
        image = normal_product(step)
        rate = product / (step * image).sum()
        found, residual = found + rate * step, residual - rate * image
        preconditioned = filtered(residual, precondition)
        before, product = product, (residual * preconditioned).sum()
        step = preconditioned + product / before * step
        history.append(float(residual.norm() / scale))
    return found, tuple(history)


def _high_pass(change: Tensor, weight: Tensor, sigma: float) -> Tensor:
    """A map (H, W) minus its weighted Gaussian mean, bounded by LARGEST_CHANGE."""
    share = gaussian_blur(weight[None], sigma)[0].clamp_min(1e-3)
    mean = gaussian_blur((change * weight)[None], sigma)[0] / share
    return (change - mean).clamp(-LARGEST_CHANGE, LARGEST_CHANGE)


def _orientation(change: Tensor, texels: float) -> tuple[Tensor, Tensor]:
    """Unit vectors (2, H, W) along the lines of a map, and their coherence (H, W) 0..1, by the structure tensor."""
    smooth = gaussian_blur(change[None], GRADIENT_SIGMA_MM * texels)[0]
    x, y = _difference(smooth, 1), _difference(smooth, 0)
    xx, xy, yy = gaussian_blur(torch.stack([x * x, x * y, y * y]), ORIENTATION_SIGMA_MM * texels)
    angle = torch.atan2(2 * xy, xx - yy) / 2 + torch.pi / 2
    coherence = torch.hypot(xx - yy, 2 * xy) / (xx + yy).clamp_min(1e-9)
    return torch.stack([torch.cos(angle), torch.sin(angle)]), coherence


def _along(change: Tensor, direction: Tensor, texels: float) -> Tensor:
    """Gaussian filter of a map (H, W) along directions (2, H, W), LINE_SIGMA_MM wide."""
    height, width = change.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([columns, rows], dim=-1).float()
    unit = torch.tensor([2 / (width - 1), 2 / (height - 1)])
    step_mm = LINE_SIGMA_MM * 2 / 3
    total, mean = 0.0, torch.zeros_like(change)
    for sample in range(-LINE_REACH, LINE_REACH + 1):
        share = float(torch.exp(torch.tensor(-0.5 * (sample * step_mm / LINE_SIGMA_MM) ** 2)))
        grid = (place + sample * step_mm * texels * direction.movedim(0, -1)) * unit - 1
        mean += share * torch.nn.functional.grid_sample(change[None, None], grid[None], align_corners=True)[0, 0]
        total += share
    return mean / total


def _difference(values: Tensor, axis: int) -> Tensor:
    """Central difference of a periodic map; its adjoint is its negative."""
    return (torch.roll(values, -1, axis) - torch.roll(values, 1, axis)) / 2


def _box(weight: Tensor) -> tuple[slice, slice]:
    """Rows and columns around the texels with weight, with a border."""
    slices = []
    for axis in (1, 0):
        used = (weight > 0).any(axis).nonzero().flatten()
        first, last = int(used[0]) - BORDER_TEXELS, int(used[-1]) + 1 + BORDER_TEXELS
        slices.append(slice(max(first, 0), min(last, weight.shape[1 - axis])))
    return slices[0], slices[1]
