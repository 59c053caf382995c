"""Texture loss: a differentiable sliced Wasserstein distance between batches of patches, independent of position.

Random filters project small patches to scalars, whose sorted values are compared (Heitz et al. 2021, "A Sliced
Wasserstein Loss for Neural Texture Synthesis"). Two windows of the same skin with other pores agree; smooth skin, pores
of another size, or evenly spaced ones do not. It costs a few convolutions and is informative from the first step, while
a discriminator must be trained first; structure larger than a patch is left to the discriminator.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 5
LEVELS = ((1, 3), (2, 2), (4, 1), (8, 1))  # reduction factor of the windows, and stride of the filters
FILTERS = 24  # per level; half see one channel, half all of them
CELLS = 2  # a window is divided into CELLS x CELLS, because skin is not stationary
_LEAST_SPREAD = 0.1  # relative to a filter's standard deviation over all cells: floor of the normalisation
_LEAST_DEVIATION = 0.005  # of a band, in units of the data's
_EMPTY = 0.05  # floor of the normalisation in units of the data's: empty windows then have no large distance


def texture_loss(
    made: Tensor, data: Tensor, paired: Tensor, draw: torch.Generator, *, in_bands: bool = False
) -> Tensor:
    """Distance between batches of windows, all cropped at the same position.

    Args:
        made, data: (N, C, T, T), T a multiple of 4 from 16; levels smaller than a patch are skipped.
        paired: (N,) bool, rows of `made` whose texture should match the same row of `data`; the others only match the
            batch as a whole.
        draw: generator of the filters.
        in_bands: compare each level of a Laplacian pyramid in its own standard deviations: weak bands then weigh as
            much as strong ones, which refines spectra that are roughly right already.
    Returns:
        (); about 0.1 for two batches of the same kind.
    """
    total = made.new_zeros(())
    for factor, stride in LEVELS:
        if made.shape[-1] // factor < PATCH + stride * (CELLS - 1):
            break
        small, real = (F.avg_pool2d(maps, factor) if factor > 1 else maps for maps in (made, data))
        if in_bands:
            small, real = _band(small), _band(real)
            deviation = real.std(dim=(0, 2, 3), keepdim=True).clamp_min(_LEAST_DEVIATION)
            small, real = small / deviation, real / deviation
        filters = _filters(made.shape[1], draw, coarsest=factor == LEVELS[-1][0])
        ours, theirs = (F.conv2d(maps, filters, stride=stride) for maps in (small, real))
        total = total + _distance(_in_cells(ours), _in_cells(theirs))
        if paired.any():
            total = total + _distance(_per_sample(ours[paired]), _per_sample(theirs[paired]))
    return total / (2 * len(LEVELS))


def _band(maps: Tensor) -> Tensor:
    """Band-pass: maps minus their low-pass at half the resolution."""
    halved = F.avg_pool2d(maps, 2)
    return maps - F.interpolate(halved, scale_factor=2.0, mode="bilinear", align_corners=False)


def _filters(channels: int, draw: torch.Generator, coarsest: bool) -> Tensor:
    """(FILTERS, C, PATCH, PATCH) of unit norm.

    Except at the coarsest level, filters have zero mean, so that low frequencies do not pass for pores.
    """
    filters = torch.randn(FILTERS, channels, PATCH, PATCH, generator=draw)
    if not coarsest:
        filters = filters - filters.mean((2, 3), keepdim=True)
    single = torch.arange(FILTERS) < FILTERS // 2
    chosen = F.one_hot(torch.arange(FILTERS) % channels, channels).bool()
    filters = filters * (chosen | ~single[:, None])[:, :, None, None]
    return filters / filters.flatten(1).norm(dim=1)[:, None, None, None]


def _in_cells(values: Tensor) -> Tensor:
    """(N, K, h, w) -> (K, cells, numbers) of all samples together."""
    side = min(values.shape[2:]) // CELLS
    cut = values[:, :, : side * CELLS, : side * CELLS]
    cells = cut.unflatten(3, (CELLS, side)).unflatten(2, (CELLS, side))
    return cells.permute(1, 2, 4, 0, 3, 5).flatten(3).flatten(1, 2)


def _per_sample(values: Tensor) -> Tensor:
    """(N, K, h, w) -> (K, N, numbers)."""
    return values.flatten(2).transpose(0, 1)


def _distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean difference of sorted values (K, groups, numbers), normalised by the data's standard deviation."""
    spread = theirs.std(dim=2, keepdim=True)
    floor = _LEAST_SPREAD * theirs.flatten(1).std(dim=1)[:, None, None]
    difference = ours.sort(dim=2).values - theirs.sort(dim=2).values
    return (difference.abs() / (spread + floor + _EMPTY)).mean()
