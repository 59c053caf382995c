"""Distance between generated and real maps: sliced Wasserstein distance of patches (SWD), and diversity.

Karras et al. 2018, "Progressive Growing of GANs", section 5: patches of 7 x 7 texels from each level of a Laplacian
pyramid, compared along random directions. Unlike there, both sets are divided by the standard deviation of the
reference, so that oversmoothed maps also have a large distance. Letters: N maps, C channels, S size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ParameterError

PATCH = 7
PATCHES = 128  # from each map and level
DIRECTIONS = 256
SMALLEST = 16  # side of the coarsest level
_SEED = 20180


@dataclass(frozen=True)
class PatchDistance:
    """Distances by channel group and level.

    Args:
        values: group -> side of the level -> distance; 0: equal patches, about 0.8: constants against data.
    """

    values: Mapping[str, Mapping[int, float]]

    @property
    def mean(self) -> float:
        """Over all groups and levels."""
        return float(np.mean([value for levels in self.values.values() for value in levels.values()]))

    def group(self, name: str) -> float:
        """Mean over the levels of one group."""
        return float(np.mean(list(self.values[name].values())))

    def level(self, side: int) -> float:
        """Mean over the groups at one level."""
        return float(np.mean([levels[side] for levels in self.values.values()]))


def patch_distance(
    maps: Tensor, reference: Tensor, groups: Mapping[str, Sequence[int]], region: np.ndarray | None = None
) -> PatchDistance:
    """Compute the sliced Wasserstein distance of two sets of maps; the order of the maps does not matter.

    Args:
        maps: (N, C, S, S).
        reference: (N, C, S, S) data; its standard deviation is the unit.
        groups: name -> channels that are compared together.
        region: (w, w) bool with w dividing S, which must contain the patch centres; None: everywhere.
    Raises:
        ParameterError: shapes differ, or the maps are too small.
    """
    if maps.ndim != 4 or maps.shape != reference.shape or maps.shape[-1] < SMALLEST:
        raise ParameterError(
            "training.patch_sets", fewest=SMALLEST, shape=tuple(maps.shape), other_shape=tuple(reference.shape)
        )
    pairs = list(zip(_pyramid(maps.float()), _pyramid(reference.float())))
    values: dict[str, dict[int, float]] = {name: {} for name in groups}
    for level, (ours, theirs) in enumerate(pairs):
        rows, columns = _places(ours.shape[-1], len(ours), region, level)
        deviation = theirs.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
        ours, theirs = (_patches(found / deviation, rows, columns) for found in (ours, theirs))
        for name, channels in groups.items():
            values[name][pairs[level][0].shape[-1]] = _sliced(ours[:, list(channels)], theirs[:, list(channels)])
    return PatchDistance(values)


def diversity(maps: Tensor, spread: Tensor, region: np.ndarray | None = None) -> float:
    """Mean pairwise distance of maps: RMS over channels and texels, in standard deviations of the data.

    Args:
        maps: (N, C, S, S), synthesised from one condition (or from many, then compare with many).
        spread: (C, 1, 1) standard deviation of the data's channels.
        region: (w, w) bool with w dividing S, the texels that count; None: all.
    """
    values = (maps / spread).flatten(2)
    if region is not None:
        full = np.kron(region, np.ones([maps.shape[-1] // len(region)] * 2)).astype(bool)
        values = values[..., torch.from_numpy(full).flatten()]
    flat = values.flatten(1)
    distance = torch.pdist(flat) / flat.shape[1] ** 0.5
    return float(distance.mean())


# -- parts ------------------------------------------------------------------------------------------------------------
def _pyramid(maps: Tensor) -> list[Tensor]:
    """Laplacian pyramid: differences between successive resolutions, and the coarsest level."""
    levels = []
    while maps.shape[-1] > SMALLEST:
        smaller = F.avg_pool2d(maps, 2)
        levels.append(maps - F.interpolate(smaller, scale_factor=2, mode="bilinear", align_corners=False))
        maps = smaller
    return [*levels, maps]


def _places(side: int, count: int, region: np.ndarray | None, level: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, PATCHES) first rows and columns of patches; identical for all sets of one size and region."""
    allowed = np.ones((side - PATCH + 1, side - PATCH + 1), bool)
    if region is not None:
        share = torch.from_numpy(np.asarray(region, np.float32))[None, None]
        here = F.interpolate(share, size=(side, side), mode="area")[0, 0].numpy() > 0.5
        middle = PATCH // 2
        inside = here[middle : side - middle, middle : side - middle]
        allowed = inside if inside.any() else allowed
    rows, columns = np.nonzero(allowed)
    chosen = np.random.default_rng([_SEED, level]).integers(0, len(rows), (count, PATCHES))
    return rows[chosen], columns[chosen]


def _patches(maps: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """(N * PATCHES, C, 49) of maps (N, C, s, s)."""
    inner = np.arange(PATCH)
    rows, columns = rows[:, :, None, None] + inner[:, None], columns[:, :, None, None] + inner
    which = np.arange(len(maps))[:, None, None, None]
    found = maps.permute(0, 2, 3, 1)[which, rows, columns]  # (N, PATCHES, 7, 7, C)
    return found.flatten(0, 1).flatten(1, 2).transpose(1, 2)


def _sliced(ours: Tensor, theirs: Tensor) -> float:
    """Mean over directions of the Wasserstein-1 distance between sorted projections."""
    ours, theirs = ours.flatten(1), theirs.flatten(1)
    generator = torch.Generator().manual_seed(_SEED)
    directions = F.normalize(torch.randn(ours.shape[1], DIRECTIONS, generator=generator), dim=0)
    ours, theirs = ((found @ directions).sort(0).values for found in (ours, theirs))
    return float((ours - theirs).abs().mean())
