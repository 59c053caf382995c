"""State of the editing sliders, as the browser sends it: validated and typed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import faceverse as fv

from .hair_state import HairState

MAX_STRENGTH = 2.0  # scale of the displacement; 1 is as fitted
MAX_SKIN = 2**24 - 1
_POSE_DEG = {"yaw": 180.0, "pitch": 90.0, "roll": 180.0}
_LIGHT = {name: (entry.minimum, entry.maximum) for name, entry in fv.LIGHT_PARAMETERS.items()}
_UNBOUNDED = 10.0  # limit for expression weights that the model leaves unbounded


@dataclass(frozen=True)
class BlendWeights:
    """Share of the second person in each part of the head, 0..1."""

    identity: float = 0.0
    expression: float = 0.0
    albedo: float = 0.0
    detail: float = 0.0


@dataclass(frozen=True)
class EditState:
    """Values of all sliders. The browser owns them; no Gradio component stores them.

    Args:
        expression: weights by ARKit name; missing names stay as fitted.
        attributes: changes relative to the photograph, in the attributes' units.
        skin: seed of sampled detail; 0 is the detail of the photograph.
        strength: scale of the displacement, 0..2.
        pose: yaw, pitch and roll in degrees; empty keeps the pose of the photograph.
        light: yaw, pitch, intensity and warmth as in `faceverse.edit`; empty keeps the light of the photograph.
        mix: shares of the second person.
        hair: style, colour and shape of the hair; None keeps that of the photograph.
    """

    expression: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, float] = field(default_factory=dict)
    skin: int = 0
    strength: float = 1.0
    pose: Mapping[str, float] = field(default_factory=dict)
    light: Mapping[str, float] = field(default_factory=dict)
    mix: BlendWeights = BlendWeights()
    hair: HairState | None = None

    @classmethod
    def from_json(cls, data, model: fv.FaceModel) -> EditState:
        """Parse and validate the state that a browser sent; values are clamped to their ranges.

        Raises:
            ParameterError: unknown names, or values that are no numbers; only a forged request has them.
        """
        data = _mapping(data)
        return cls(
            expression=_numbers(data.get("expression"), expression_limits(model)),
            attributes={
                name: amount
                for name, amount in _numbers(
                    data.get("attributes"), dict.fromkeys(model.attribute_names, (-1e3, 1e3))
                ).items()
                if amount
            },
            skin=int(_number(data.get("skin", 0), 0, MAX_SKIN)),
            strength=_number(data.get("strength", 1.0), 0.0, MAX_STRENGTH),
            pose=_numbers(data.get("pose"), {name: (-limit, limit) for name, limit in _POSE_DEG.items()}),
            light=_numbers(data.get("light"), _LIGHT),
            mix=BlendWeights(**_numbers(data.get("mix"), {part.name: (0.0, 1.0) for part in fields(BlendWeights)})),
            hair=HairState.from_json(data.get("hair")),
        )

    @property
    def baked(self) -> dict:
        """The part of the state that is baked into the files of the 3D view; the browser applies the rest itself."""
        hair = None if self.hair is None else self.hair.baked
        return {"attributes": dict(self.attributes), "skin": self.skin, "mix": dict(vars(self.mix)), "hair": hair}

    def to_json(self) -> dict:
        """The state in the form that the browser sends."""
        state = {part.name: getattr(self, part.name) for part in fields(self)}
        return state | {"mix": dict(vars(self.mix)), "hair": None if self.hair is None else dict(vars(self.hair))}


def expression_limits(model: fv.FaceModel) -> dict[str, tuple[float, float]]:
    """Lower and upper limit of each weight by name: 0..1 for blendshapes, others for angles and unnamed components."""
    pairs = zip(model.expression_names, model.expression_limits, strict=True)
    return {name: (max(float(low), -_UNBOUNDED), min(float(high), _UNBOUNDED)) for name, (low, high) in pairs}


def _mapping(data) -> Mapping:
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise fv.ParameterError("page.forged")
    return data


def _numbers(data, limits: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Numbers by name, clamped to their limits."""
    data = _mapping(data)
    if unknown := set(data) - set(limits):
        raise fv.ParameterError("page.forged_names", names=", ".join(sorted(map(str, unknown)))[:80])
    return {name: _number(value, *limits[name]) for name, value in data.items()}


def _number(value, low: float, high: float) -> float:
    # An integer is clamped before it becomes a float, which has no room for a very large one.
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))):
        raise fv.ParameterError("page.forged")
    return float(min(max(value, low), high))
