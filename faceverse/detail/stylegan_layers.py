"""Layers of the StyleGAN2 networks, with the tensor names of rosinality's stylegan2-pytorch.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN". Letters as in `faceverse.detail.stylegan`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TAPS = (1.0, 3.0, 3.0, 1.0)  # the binomial filter of all resampling
_SLOPE = 0.2
_GAIN = math.sqrt(2.0)  # restores unit variance after the leaky ReLU
_EPSILON = 1e-8


class PixelNorm(nn.Module):
    """Normalise each vector (N, D) to a mean square of one."""

    def forward(self, values: Tensor) -> Tensor:
        return values * torch.rsqrt(values.square().mean(dim=1, keepdim=True) + _EPSILON)


class BiasAct(nn.Module):
    """sqrt(2) * leaky_relu(x + bias), on axis 1."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, values: Tensor) -> Tensor:
        # A positive factor commutes with the activation; applied before it, it is part of the addition.
        bias = (self.bias * _GAIN).view(1, -1, *[1] * (values.ndim - 2))
        return F.leaky_relu(torch.add(bias, values, alpha=_GAIN), _SLOPE, inplace=True)


class EqualLinear(nn.Module):
    """A linear layer with equalised learning rate (Karras et al. 2018, section 4.1).

    The stored weights have unit variance and are scaled in the forward pass.
    """

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0, activate: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias)))
        self.scale, self.rate, self.activate = rate / math.sqrt(inputs), rate, activate

    def forward(self, values: Tensor) -> Tensor:
        values = F.linear(values, self.weight * self.scale, self.bias * self.rate)
        return F.leaky_relu(values, _SLOPE) * _GAIN if self.activate else values


class EqualConv(nn.Module):
    """A convolution (N, I, H, W) -> (N, O, H / stride, W / stride) with weights as in `EqualLinear`, without bias."""

    def __init__(self, inputs: int, outputs: int, width: int, *, stride: int = 1, padding: int = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, width, width))
        self.scale, self.stride, self.padding = 1 / math.sqrt(inputs * width**2), stride, padding

    def forward(self, maps: Tensor, inputs: slice = slice(None)) -> Tensor:
        """Convolve maps (N, I, H, W); `inputs` selects their input channels if they are not all."""
        weight = self.weight[:, inputs] * self.scale
        return F.conv2d(maps, weight, stride=self.stride, padding=self.padding)


class Resample(nn.Module):
    """Filter each channel with the binomial kernel; `gain` compensates for inserted zeros."""

    kernel: Tensor
    def __init__(self, *, gain: float = 1.0, stride: int = 1, padding: int = 0):
        super().__init__()
        self.gain, self.stride, self.padding = gain, stride, padding
        self.register_buffer("kernel", torch.empty(len(_TAPS), len(_TAPS)))
        self.reset()

    def reset(self) -> None:
        """Set the kernel to its constant value."""
        taps = torch.tensor(_TAPS) / sum(_TAPS)
        with torch.no_grad():
            self.kernel.copy_(taps[:, None] * taps * self.gain)

    def forward(self, maps: Tensor) -> Tensor:
        kernel = _per_channel(self.kernel.flip(0, 1), maps)
        return F.conv2d(maps, kernel, stride=self.stride, padding=self.padding, groups=maps.shape[1])


class Upsample(Resample):
    """(N, C, H, W) -> (N, C, 2 H, 2 W): zero insertion and filter in one step."""

    def __init__(self):
        super().__init__(gain=4.0, stride=2, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        kernel = _per_channel(self.kernel, maps)
        return F.conv_transpose2d(maps, kernel, stride=self.stride, padding=self.padding, groups=maps.shape[1])


def _per_channel(kernel: Tensor, maps: Tensor) -> Tensor:
    return kernel.expand(maps.shape[1], 1, *kernel.shape).contiguous()


class ModulatedConv(nn.Module):
    """A convolution modulated by a style and demodulated to unit variance (Karras et al. 2020, equations 1 and 3).

    With `upsample` it doubles the resolution. A batch is convolved with shared weights: scaling the input by the style
    and the output by the norm is equivalent to scaling the weights, without a separate convolution for each sample.
    """

    def __init__(self, inputs: int, outputs: int, style_dim: int, *, upsample: bool = False):
        super().__init__()
        self.scale, self.upsample = 1 / math.sqrt(inputs * 9), upsample
        if upsample:
            self.blur = Resample(gain=4.0, padding=1)
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, 3, 3))
        self.modulation = EqualLinear(style_dim, inputs, bias=1.0)

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        weight, style = self.weight[0], self.modulation(style) * self.scale
        norm = torch.rsqrt(style.square() @ weight.square().sum((2, 3)).T + _EPSILON)
        if len(style) == 1:
            # For one sample, it is cheaper to scale the weights than the large maps.
            return self._convolve(maps, weight * (norm.T * style)[:, :, None, None])
        return self._convolve(maps * style[:, :, None, None], weight) * norm[:, :, None, None]

    def _convolve(self, maps: Tensor, weight: Tensor) -> Tensor:
        if self.upsample:
            return self.blur(F.conv_transpose2d(maps, weight.transpose(0, 1), stride=2))
        return F.conv2d(maps, weight, padding=1)


class Noise(nn.Module):
    """Add a map (N or 1, 1, H, W), times one learned weight, to all channels; in place, as the maps are large."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor, noise: Tensor) -> Tensor:
        return maps.add_(self.weight * noise)


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias, activation."""

    def __init__(self, inputs: int, outputs: int, style_dim: int, *, upsample: bool = False):
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, style_dim, upsample=upsample)
        self.noise = Noise()
        self.activate = BiasAct(outputs)

    def forward(self, maps: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        return self.activate(self.noise(self.conv(maps, style), noise))


class Pointwise(nn.Module):
    """A modulated 1 x 1 convolution to few channels, not normalised."""

    def __init__(self, inputs: int, outputs: int, style_dim: int):
        super().__init__()
        self.scale = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, 1, 1))
        self.modulation = EqualLinear(style_dim, inputs, bias=1.0)

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        weight = self.weight[:, :, :, 0, 0] * (self.modulation(style) * self.scale)[:, None]
        return (weight @ maps.flatten(2)).unflatten(2, maps.shape[2:])


class ToImage(nn.Module):
    """Add a layer's contribution to the image, which is upsampled to the layer's resolution."""

    def __init__(self, inputs: int, image_channels: int, style_dim: int, *, upsample: bool = True):
        super().__init__()
        if upsample:
            self.upsample = Upsample()
        self.conv = Pointwise(inputs, image_channels, style_dim)
        self.bias = nn.Parameter(torch.zeros(1, image_channels, 1, 1))

    def forward(self, maps: Tensor, style: Tensor, image: Tensor | None = None) -> Tensor:
        added = self.conv(maps, style) + self.bias
        return added if image is None else added + self.upsample(image)


class ResBlock(nn.Module):
    """(N, I, H, W) -> (N, O, H / 2, W / 2)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Sequential(EqualConv(inputs, inputs, 3, padding=1), BiasAct(inputs))
        self.conv2 = nn.Sequential(Resample(padding=2), EqualConv(inputs, outputs, 3, stride=2), BiasAct(outputs))
        self.skip = nn.Sequential(Resample(stride=2, padding=1), EqualConv(inputs, outputs, 1))

    def forward(self, maps: Tensor) -> Tensor:
        return self.skip(maps).add_(self.conv2(self.conv1(maps))).mul_(math.sqrt(0.5))


class Join(nn.Sequential):
    """A convolution of two concatenated stacks of maps.

    It is a sum of two convolutions, so that the second stack's part is computed once for many first stacks.
    """

    def __init__(self, channels: int):
        super().__init__(EqualConv(2 * channels, channels, 3, padding=1), BiasAct(channels))
        self.channels = channels

    def part(self, second: Tensor) -> Tensor:
        return self[0](second, slice(self.channels, None))

    def forward(self, first: Tensor, part: Tensor) -> Tensor:  # type: ignore[override]  # two stacks, not one
        return self[1](self[0](first, slice(self.channels)).add_(part))


class Constant(nn.Module):
    """Learned constant input (1, C, 4, 4) of the synthesis."""

    def __init__(self, channels: int):
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))
