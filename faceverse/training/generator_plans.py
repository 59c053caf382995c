"""Architectures of the open detail generators: sizes and channel widths."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..detail.stylegan import ConditionalGenerator
from ..errors import ParameterError
from .detail_data import DataShape
from .discriminator import WIDTHS, Discriminator


@dataclass(frozen=True)
class GeneratorPlan:
    """Architecture of one generator and its discriminators.

    Args:
        kind: "detail" or "expression".
        shape: sizes of conditions, images and z.
        channels: width by resolution, see `ConditionalGenerator`.
        window: T, side of the crops for the second discriminator.
        groups: name -> channels of one kind.
        mapping_layers: of the mapping network.
        critic_widths: of the discriminators, see `Discriminator`.
        places: see `ConditionalGenerator`.
        tied: number of leading entries of z that belong to the condition (age and sex) and are never resampled.
    """

    kind: str
    shape: DataShape
    channels: dict[int, int]
    window: int
    groups: dict[str, tuple[int, ...]]
    mapping_layers: int = 4
    critic_widths: tuple[int, ...] = WIDTHS
    places: tuple[int, ...] = ()
    tied: int = 0

    def generator(self) -> ConditionalGenerator:
        """Create the generator with fresh weights."""
        return ConditionalGenerator(
            self.shape.size,
            style_dim=self.shape.style_dim,
            mapping_layers=self.mapping_layers,
            image_channels=self.shape.image_channels,
            condition_channels=self.shape.condition_channels,
            channels=self.channels,
            condition_size=self.shape.condition_size,
            places=self.places,
        )

    def critics(self) -> torch.nn.ModuleList:
        """Create the discriminators of whole images and of windows with fresh weights."""
        counts = self.shape.image_channels, self.shape.condition_channels, self.critic_widths
        return torch.nn.ModuleList(Discriminator(side, *counts) for side in (self.shape.whole, self.window))


_PLACES = (64, 128, 256)
_DETAIL_WIDTHS = {4: 96, 8: 96, 16: 96, 32: 96, 64: 64, 128: 32, 256: 24, 512: 16}
_EXPRESSION_WIDTHS = {4: 96, 8: 96, 16: 96, 32: 96, 64: 64, 128: 32, 256: 16}


def detail_plan(size: int = 512, narrower: int = 1) -> GeneratorPlan:
    """Generator of albedo and displacement, conditioned on a head's albedo and shape.

    Args:
        size: of the maps, 32 to 512.
        narrower: divisor of all channel widths.
    """
    condition = min(128, size)
    shape = DataShape(size, condition, _whole(size, 4), image_channels=6, condition_channels=6, style_dim=64)
    groups: dict[str, tuple[int, ...]] = {"albedo": (0, 1, 2), "displacement": (3, 4, 5)}
    return _plan("detail", shape, _DETAIL_WIDTHS, narrower, groups)


def expression_plan(size: int = 256, narrower: int = 1) -> GeneratorPlan:
    """Generator of the displacement that an expression adds, conditioned on the neutral displacement and the strain.

    Args:
        size: of the maps, 32 to 256.
        narrower: divisor of all channel widths.
    """
    shape = DataShape(size, size, _whole(size, 2), image_channels=3, condition_channels=6, style_dim=64)
    return _plan("expression", shape, _EXPRESSION_WIDTHS, narrower, {"displacement": (0, 1, 2)})


def _plan(
    kind: str, shape: DataShape, widths: dict[int, int], narrower: int, groups: dict[str, tuple[int, ...]]
) -> GeneratorPlan:
    return GeneratorPlan(
        kind,
        shape,
        _widths(widths, shape.size, narrower),
        min(128, shape.size),
        groups,
        critic_widths=tuple(max(8, width // narrower) for width in WIDTHS),
        places=tuple(side for side in _PLACES if side <= shape.size),
        tied=2,
    )


def _whole(size: int, factor: int) -> int:
    return max(size // factor, min(32, size // 2))


def _widths(widths: dict[int, int], size: int, narrower: int) -> dict[int, int]:
    if size not in widths or size < 32 or not isinstance(narrower, int) or narrower < 1:
        raise ParameterError("training.plan", most=max(widths), size=repr(size), narrower=repr(narrower))
    return {side: max(8, width // narrower) for side, width in widths.items() if side <= size}
