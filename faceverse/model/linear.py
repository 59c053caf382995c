"""The arithmetic of a linear face model: a mean plus modes times coefficients. Dimensions: see face_model.py."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import ParameterError

GAIN_RANGE = (0.5, 2.0)


@dataclass(frozen=True)
class LandmarkBases:
    """The model on L surface points: mean (L, 3), identity (I, L, 3), expression (E, L, 3), gain (E, I) or None."""

    mean: Tensor
    identity: Tensor
    expression: Tensor
    gain: Tensor | None = None

    def points(self, identity: Tensor, expression: Tensor | None = None) -> Tensor:
        """Head-space points: identity (N, I), expression (N, E) or None -> (N, L, 3) metres."""
        expression = scaled(expression, identity, self.gain)
        return evaluate(self.mean, (self.identity, identity), (self.expression, expression))


def expression_gain(gain: Tensor, identity: Tensor) -> Tensor:
    """Gains (N, E) of heads (N, I) from the change of the gain per unit of identity (E, I).

    Raises:
        ParameterError: coefficients of the wrong length.
    """
    if identity.ndim != 2 or identity.shape[1] != gain.shape[1]:
        raise ParameterError("model.coefficients", expected=gain.shape[1], shape=tuple(identity.shape))
    return (1 + identity @ gain.T).clamp(*GAIN_RANGE)


def scaled(expression: Tensor | None, identity: Tensor, gain: Tensor | None) -> Tensor | None:
    """Expression weights (N, E) times the gains of heads (N, I); unchanged without gains (E, I)."""
    if expression is None or gain is None:
        return expression
    return expression_gain(gain, identity) * expression


def evaluate(mean: Tensor, *terms: tuple[Tensor, Tensor | None]) -> Tensor:
    """Evaluate the linear model: mean (K, 3) + sum of modes (M, K, 3) @ coefficients (N, M).

    Raises:
        ParameterError: coefficients of the wrong length.
    """
    result = mean.unsqueeze(0)
    for modes, coefficients in terms:
        if coefficients is None:
            continue
        if coefficients.ndim != 2 or coefficients.shape[1] != modes.shape[0]:
            raise ParameterError("model.coefficients", expected=modes.shape[0], shape=tuple(coefficients.shape))
        result = result + (coefficients @ modes.flatten(1)).unflatten(1, mean.shape)
    return result
