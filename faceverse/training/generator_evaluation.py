"""Evaluate a detail generator on held-out data: patch distances, diversity, and image sheets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..detail.stylegan import ConditionalGenerator
from . import synthetic_skin
from .detail_data import DetailData
from .generator_plans import GeneratorPlan
from .patch_distance import PatchDistance, diversity, patch_distance

MEASURED = 32  # held-out samples for evaluation, half of them for the noise floor
SHEET_PEOPLE, PANE = 4, 256
_AT_ONCE = 4  # full images per batch
FACE_MAP_MM = 297.0  # side of the maps on the face
_SHADE = 1.2  # grey level (0..1) of a slope of 45 degrees


@dataclass(frozen=True)
class GeneratorMetrics:
    """Metrics of generated maps against held-out data, all at full size.

    Args:
        distance: patch distance between maps generated for half of the held-out samples and the other half.
        floor: patch distance between the two halves.
        ratio: distance / floor, of the means over groups and levels.
        diversity: of maps generated for many heads, relative to the data's.
        noise: standard deviation due to noise alone, in standard deviations of the data.
    """

    distance: PatchDistance
    floor: PatchDistance
    ratio: float
    diversity: float
    noise: float


@torch.no_grad()
def synthesise(generator: ConditionalGenerator, condition: Tensor, z: Tensor, seed: int) -> Tensor:
    """Synthesise full images (N, C, S, S) from conditions (N, K, T, T) and z (N, D), with seeded noise."""
    parts = []
    for first in range(0, len(z), _AT_ONCE):
        rows = slice(first, first + _AT_ONCE)
        noise = generator.make_noise(seed + first, len(z[rows]))
        parts.append(generator.synthesis(generator.mapping(z[rows]), condition[rows], noise))
    return torch.cat(parts)


def evaluate_generator(
    generator: ConditionalGenerator, data: DetailData, plan: GeneratorPlan, count: int = MEASURED
) -> GeneratorMetrics:
    """Evaluate a generator on held-out data.

    Args:
        count: number of samples, at most as many as are held out.
    """
    numbers = np.array(data.held_out)
    half = min(count, len(numbers)) // 2
    ours, theirs = data.batch(numbers[:half]), data.batch(numbers[half : 2 * half])
    drawn = torch.randn(ours.z.shape, generator=torch.Generator().manual_seed(1))
    z = torch.where(ours.known[:, None], ours.z, drawn)
    maps = synthesise(generator, ours.condition, z, seed=0) * ours.window_seen
    distance = patch_distance(maps, theirs.window, plan.groups, data.region)
    floor = patch_distance(ours.window, theirs.window, plan.groups, data.region)
    two = slice(0, 2)
    again = synthesise(generator, ours.condition[two], z[two], seed=1000) * ours.window_seen[two]
    # The difference of two independent draws has twice the variance of one.
    noise = ((again - maps[two]) / data.spread).square().mean() / (2 * data.region.mean())
    return GeneratorMetrics(
        distance,
        floor,
        distance.mean / max(floor.mean, 1e-9),
        diversity(maps, data.spread, data.region) / max(diversity(ours.window, data.spread, data.region), 1e-9),
        float(noise.sqrt()),
    )


# -- sheets -----------------------------------------------------------------------------------------------------------
def image_sheet(generator: ConditionalGenerator, data: DetailData, plan: GeneratorPlan) -> Image.Image:
    """Image sheet with two rows for each of some held-out samples: the whole map and its centre at full size.

    Columns: the condition's first three channels; the data; the generator with the data's z; with other noise; with two
    other z. Each map is shown as shaded displacement beside its albedo.
    """
    numbers = np.array(data.held_out)[:SHEET_PEOPLE]
    batch = data.batch(numbers)
    drawn = torch.randn(2, *batch.z.shape, generator=torch.Generator().manual_seed(2))
    own = torch.where(batch.known[:, None], batch.z, drawn[0])
    given = [(own, 0), (own, 500), (drawn[0], 0), (drawn[1], 0)]
    pictures = [batch.window, *(synthesise(generator, batch.condition, z, seed) for z, seed in given)]
    rows = []
    for person in range(len(numbers)):
        panels = [_condition_panel(batch.condition[person], plan.shape.size)]
        for maps in pictures:
            panels += [_panel(maps[person], data.spread, plan, group) for group in reversed(plan.groups)]
        rows += [torch.cat([part(panel) for panel in panels], dim=2) for part in (_whole, _middle)]
    return Image.fromarray((255 * torch.cat(rows, dim=1)).byte().permute(1, 2, 0).numpy())


def _condition_panel(condition: Tensor, size: int) -> Tensor:
    first = 0.5 + 0.25 * condition[None, :3]
    first = F.pad(first, (0, 0, 0, 0, 0, 3 - first.shape[1]))
    return F.interpolate(first, size=(size, size))[0].clamp(0, 1)


def _panel(maps: Tensor, spread: Tensor, plan: GeneratorPlan, group: str) -> Tensor:
    """(3, S, S) in 0..1 from maps (C, S, S): slopes for displacement, else normalised values."""
    channels = list(plan.groups[group])
    if group != "displacement":
        return (0.5 + 0.15 * maps[channels] / spread[channels]).clamp(0, 1)
    height_mm = (maps[channels] * torch.tensor(synthetic_skin.CODE.band_scales_mm).view(-1, 1, 1)).sum(0)
    slope = (height_mm[1:] - height_mm[:-1]) * maps.shape[-1] / FACE_MAP_MM
    return (0.5 + _SHADE * F.pad(slope, (0, 0, 0, 1))).clamp(0, 1).expand(3, -1, -1)


def _whole(panel: Tensor) -> Tensor:
    return F.interpolate(panel[None], size=(PANE, PANE), mode="area")[0]


def _middle(panel: Tensor) -> Tensor:
    side = min(PANE, panel.shape[-1])
    start = (panel.shape[-1] - side) // 2
    cut = panel[:, start : start + side, start : start + side]
    return F.interpolate(cut[None], size=(PANE, PANE))[0]
