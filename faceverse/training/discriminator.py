"""Conditional discriminators of the detail generators.

The residual discriminator of Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", narrow, with
the condition maps concatenated to the image. Letters: N batch, C image channels, K condition channels, T side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..detail.stylegan_layers import BiasAct, EqualConv, EqualLinear, ResBlock
from ..errors import ParameterError

WIDTHS = (24, 40, 64, 96, 128)
_GROUP = 4  # samples per group of the minibatch standard deviation
_LAYOUT = torch.channels_last  # faster than contiguous on a CPU


class Discriminator(nn.Module):
    """Residual discriminator; returns a logit per image, high for real data.

    Args:
        side: T, a power of two from 8.
        image_channels: C.
        condition_channels: K.
        widths: channels at T, T / 2, T / 4 ...; the last one repeats down to side 4.
    Raises:
        ParameterError: side is no power of two from 8.
    """

    def __init__(self, side: int, image_channels: int, condition_channels: int, widths: Sequence[int] = WIDTHS):
        super().__init__()
        if not isinstance(side, int) or side < 8 or side & (side - 1):
            raise ParameterError("training.discriminator_side", side=repr(side))
        steps = side.bit_length() - 3
        widths = [widths[min(step, len(widths) - 1)] for step in range(steps + 1)]
        self.first = nn.Sequential(EqualConv(image_channels + condition_channels, widths[0], 1), BiasAct(widths[0]))
        self.blocks = nn.Sequential(*(ResBlock(a, b) for a, b in zip(widths, widths[1:])))
        self.last = nn.Sequential(EqualConv(widths[-1] + 1, widths[-1], 3, padding=1), BiasAct(widths[-1]))
        self.hidden = EqualLinear(widths[-1] * 16, widths[-1], activate=True)
        self.answer = EqualLinear(widths[-1], 1)

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Logits (N,) of images (N, C, T, T) with condition maps (N, K, T, T)."""
        maps = torch.cat([image, condition], dim=1).contiguous(memory_format=_LAYOUT)
        maps = self.blocks(self.first(maps))
        maps = self.last(torch.cat([maps, _deviation(maps)], dim=1))
        return self.answer(self.hidden(maps.flatten(1)))[:, 0].float()


def _deviation(maps: Tensor) -> Tensor:
    """Minibatch standard deviation (N, 1, h, w), which exposes mode collapse (Karras et al. 2018, section 3)."""
    count = len(maps)
    group = next(size for size in range(min(_GROUP, count), 0, -1) if count % size == 0)
    members = maps.float().reshape(group, count // group, *maps.shape[1:])
    deviation = (members.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return deviation.repeat(group).reshape(count, 1, 1, 1).expand(-1, 1, *maps.shape[2:]).to(maps.dtype)


def gradient_penalty(discriminator: Discriminator, image: Tensor, condition: Tensor) -> Tensor:
    """R1 penalty: mean squared gradient of the logits for real data (Mescheder et al. 2018), a differentiable scalar.

    Args:
        image: (N, C, T, T) data.
        condition: (N, K, T, T).
    """
    image = image.detach().requires_grad_()
    logits = discriminator(image, condition)
    (slope,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    return slope.square().sum((1, 2, 3)).mean()
