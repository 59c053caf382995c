"""Learned shape from shading: a small network that estimates skin displacement and latents of the detail generator.

It gives the initial estimate of a fit's detail stage. Its input is the photograph's residual at each texel, its output
the displacement that explains the residual and the random vector z for which the detail generator produces similar
detail. It is a U-Net (Ronneberger et al. 2015) followed by a linear regression on summary features. Plain torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ParameterError, WeightsError

INPUTS = 6  # residual (3), weight (1), sensitivity to slopes along u and v (2)
RESIDUAL_SCALE = 0.15
WIDTHS = (12, 24, 48, 64, 96, 128, 128)
_SLOPE = 0.1
FEATURES, GRID = 6, 32  # features per cell of a coarse grid over the map: strength of lines, grain and spots


class DisplacementRegressor(nn.Module):
    """`bands, z = regressor(residual, weight, sensitivity)`.

    Args:
        style_dim: D, length of the random vector.
    """

    typical: Tensor
    of_marks: Tensor

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
        # Names in weight files: the features' means, and the regression matrix.
        self.register_buffer("typical", torch.zeros(FEATURES, GRID, GRID))
        self.register_buffer("of_marks", torch.zeros(style_dim, FEATURES, GRID, GRID))

    def forward(self, residual: Tensor, weight: Tensor, sensitivity: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate displacement bands and random vector.

        Args:
            residual: (N, 3, S, S) logarithm of observed over predicted colour; S a multiple of 64, at least 512 / 8.
            weight: (N, 1, S, S) 0..1, confidence of the residual.
            sensitivity: (N, 2, S, S) derivative of the logarithm of the shading's luminance with respect to the slope
                along tangent_u and tangent_v (see `displacement.TangentFrame`).
        Returns:
            (N, 3, S, S) in the unit of the generators' bands; (N, D).
        Raises:
            ParameterError: another size.
        """
        size = residual.shape[-1]
        if size % (1 << len(self.down)) or residual.shape[-2] != size:
            raise ParameterError("detail.maps_square", shape=tuple(residual.shape))
        axis = torch.linspace(-1, 1, size, dtype=residual.dtype)
        position = torch.stack([axis.expand(size, size), axis[:, None].expand(size, size)])
        position = position.expand(len(residual), -1, -1, -1)
        inputs = torch.cat([residual * weight / RESIDUAL_SCALE, weight, sensitivity * weight, position], 1)
        maps = F.leaky_relu(self.first(inputs.contiguous(memory_format=torch.channels_last)), _SLOPE)
        levels = [maps]
        for layer in self.down:
            levels.append(layer(levels[-1]))
        maps = levels.pop()
        for layer, skip in zip(reversed(self.up), reversed(levels)):
            maps = layer(torch.cat([F.interpolate(maps, scale_factor=2.0, mode="nearest"), skip], 1))
        bands = self.last(maps)
        return bands, self.regress_vector(summary_features(bands, residual, weight), weight)

    def regress_vector(self, features: Tensor, weight: Tensor) -> Tensor:
        """Random vectors (N, D) from `summary_features` by linear regression; unweighted texels do not contribute."""
        deviation = features - self.typical * _grid_mean(weight)
        return torch.einsum("dmij,nmij->nd", self.of_marks, deviation)


def summary_features(bands: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
    """(N, FEATURES, GRID, GRID): coarse displacement, magnitudes of three bands, redness and darkness of spots."""
    spots = torch.stack([residual[:, 0] - residual[:, 1], residual.mean(1)], 1) / RESIDUAL_SCALE
    return _grid_mean(torch.cat([bands[:, :1], bands.abs(), spots], 1) * weight)


def _grid_mean(maps: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(maps.float(), GRID)


def regressor_from_state(state: Mapping[str, Tensor], name: str) -> DisplacementRegressor:
    """Build the network from a state dict, frozen; half precision becomes float32.

    Args:
        name: of the file, for messages.
    Raises:
        WeightsError: missing, unexpected or misshapen tensors, or values that are not finite.
    """
    last = state.get("of_marks")
    regressor = DisplacementRegressor(1 if last is None else max(1, len(last)))
    values = {key: value.float() for key, value in state.items()}
    try:
        regressor.load_state_dict(values)
    except RuntimeError as error:
        raise WeightsError("detail.encoder_unfit", name=name, reason=" ".join(str(error).split())[:300]) from error
    if not all(value.isfinite().all() for value in values.values()):
        raise WeightsError("detail.encoder_not_finite", name=name)
    convert: Any = regressor.to  # its type stub leaves out memory_format
    return convert(memory_format=torch.channels_last).requires_grad_(False).eval()
