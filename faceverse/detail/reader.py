"""A small network that reads displacement off the shading of skin: shape from shading, learned.

It is the start of the detail stage of a fit: what a photograph shows of each texel goes in, the displacement that
would explain it and the random vector of a generator that would make something alike come out. A U-Net (Ronneberger et
al. 2015), and a linear regression on what it finds. Plain torch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ParameterError, WeightsError

INPUTS = 6  # residual (3), weight, sensitivity to slopes along u and v
RESIDUAL_SCALE = 0.15
WIDTHS = (12, 24, 48, 64, 96, 128, 128)
_SLOPE = 0.1
MARKS, GRID = 6, 32  # how strongly lines, grain and spots show, in squares of the map


class DisplacementReader(nn.Module):
    """`bands, z = reader(residual, weight, sensitivity)`.

    Args:
        style_dim: D, length of the random vector.
    """

    def __init__(self, style_dim: int = 64):
        super().__init__()
        first, *others = WIDTHS
        self.style_dim = style_dim
        self.first = nn.Conv2d(INPUTS + 2, first, 3, padding=1)
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, stride=2, padding=1), nn.LeakyReLU(_SLOPE),
                nn.Conv2d(b, b, 3, padding=1), nn.LeakyReLU(_SLOPE),
            )
            for a, b in zip(WIDTHS, others)
        )  # fmt: skip
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a + b, b, 3, padding=1), nn.LeakyReLU(_SLOPE)) for b, a in zip(WIDTHS, others)
        )
        self.last = nn.Conv2d(first, 3, 3, padding=1)
        self.register_buffer("typical", torch.zeros(MARKS, GRID, GRID))
        self.register_buffer("of_marks", torch.zeros(style_dim, MARKS, GRID, GRID))

    def forward(self, residual: Tensor, weight: Tensor, sensitivity: Tensor) -> tuple[Tensor, Tensor]:
        """Displacement bands and random vector.

        Args:
            residual: (N, 3, S, S) logarithm of seen over expected colour; S a multiple of 64, and at least 512 / 8.
            weight: (N, 1, S, S) 0..1, how far it is believed.
            sensitivity: (N, 2, S, S) change of the logarithm of the light's luminance with the slope along tangent_u
                and tangent_v (see `displacement.TangentFrame`).
        Returns:
            (N, 3, S, S) in the unit of the generators' bands; (N, D).
        Raises:
            ParameterError: another size.
        """
        size = residual.shape[-1]
        if size % (1 << len(self.down)) or residual.shape[-2] != size:
            raise ParameterError("detail.maps_square", shape=tuple(residual.shape))
        axis = torch.linspace(-1, 1, size, dtype=residual.dtype)
        place = torch.stack([axis.expand(size, size), axis[:, None].expand(size, size)]).expand(
            len(residual), -1, -1, -1
        )
        known = torch.cat([residual * weight / RESIDUAL_SCALE, weight, sensitivity * weight, place], 1)
        maps = F.leaky_relu(self.first(known.contiguous(memory_format=torch.channels_last)), _SLOPE)
        levels = [maps]
        for layer in self.down:
            levels.append(layer(levels[-1]))
        maps = levels.pop()
        for layer, skip in zip(reversed(self.up), reversed(levels)):
            maps = layer(torch.cat([F.interpolate(maps, scale_factor=2.0, mode="nearest"), skip], 1))
        bands = self.last(maps)
        return bands, self.vector(marks(bands, residual, weight), weight)

    def vector(self, found: Tensor, weight: Tensor) -> Tensor:
        """Random vectors (N, D) of `marks`: a linear regression, in which what is not seen says nothing."""
        away = found - self.typical * _in_squares(weight)
        return torch.einsum("dmij,nmij->nd", self.of_marks, away)


def marks(bands: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
    """(N, MARKS, GRID, GRID): coarse displacement, strengths of three bands, and how much redder and darker spots are."""
    spots = torch.stack([residual[:, 0] - residual[:, 1], residual.mean(1)], 1) / RESIDUAL_SCALE
    return _in_squares(torch.cat([bands[:, :1], bands.abs(), spots], 1) * weight)


def _in_squares(maps: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(maps.float(), GRID)


def reader_from_state(state: Mapping[str, Tensor], name: str) -> DisplacementReader:
    """The network whose state dict this is, frozen; half precision becomes float32.

    Args:
        name: of the file, for messages.
    Raises:
        WeightsError: missing, unexpected or misshapen tensors, or values that are not finite.
    """
    last = state.get("of_marks")
    reader = DisplacementReader(1 if last is None else max(1, len(last)))
    values = {key: value.float() for key, value in state.items()}
    try:
        reader.load_state_dict(values)
    except RuntimeError as error:
        raise WeightsError("detail.encoder_unfit", name=name, reason=" ".join(str(error).split())[:300]) from error
    if not all(value.isfinite().all() for value in values.values()):
        raise WeightsError("detail.encoder_not_finite", name=name)
    return reader.to(memory_format=torch.channels_last).requires_grad_(False).eval()
