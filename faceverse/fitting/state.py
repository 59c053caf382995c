"""State of a posed head: the unknowns of a fit or a track, and their Gauss-Newton update."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch

from ..graphics.lighting import default_light
from ..model.face_model import FaceParams

PER_IMAGE = ("rotation", "translation", "expression", "light")  # values that differ between images of one person
ROTATION_STEP_LIMIT = 0.5  # radians per update


def _empty() -> np.ndarray:
    return np.zeros(0)


def _default_light() -> np.ndarray:
    return default_light().double().numpy()


@dataclass(frozen=True, kw_only=True)
class FaceState:
    """A head in one image: shape, colour, pose and light. NumPy float64; shapes and units as in `FaceParams`.

    Where the person is fixed, identity and albedo are part of the model (`LandmarkModel.with_identity`, `SkinTerm`) and
    have length 0 here.
    """

    rotation: np.ndarray
    translation: np.ndarray
    expression: np.ndarray
    identity: np.ndarray = field(default_factory=_empty)
    albedo: np.ndarray = field(default_factory=_empty)
    light: np.ndarray = field(default_factory=_default_light)
    warp: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))

    @classmethod
    def from_params(cls, params: FaceParams) -> FaceState:
        """Convert parameters to a state."""
        return cls(**{f.name: np.asarray(getattr(params, f.name), np.float64) for f in fields(cls)})

    def to_params(self, person: FaceParams | None = None) -> FaceParams:
        """Convert the state to parameters.

        Args:
            person: source of identity and albedo if the state has none, and of iris colour and detail.
        """
        values = {f.name: getattr(self, f.name).astype(np.float32) for f in fields(self)}
        if person is None:
            return FaceParams(**values)
        return person.replace(**{name: array for name, array in values.items() if len(array)})

    def per_image(self) -> dict[str, np.ndarray]:
        """The values named in PER_IMAGE as float32, the precision of parameters, views and tracks."""
        return {name: getattr(self, name).astype(np.float32) for name in PER_IMAGE}

    def tensor(self, name: str) -> torch.Tensor:
        """One of the values as a batch of one, float32."""
        return torch.from_numpy(np.asarray(getattr(self, name), np.float32))[None]

    def updated(
        self,
        pose: np.ndarray,
        *,
        identity: np.ndarray | float = 0.0,
        expression: np.ndarray | float = 0.0,
        albedo: np.ndarray | float = 0.0,
        light: np.ndarray | float = 0.0,
        limits: np.ndarray | None = None,
    ) -> FaceState:
        """Apply a Gauss-Newton step: multiply the rotation from the left, add the other changes.

        Args:
            pose: (6,) axis-angle rotation in camera space, see `apply_rotation_update`, and translation in metres.
            identity (I,), expression (E,), albedo (A,), light (9, 3): changes, in the units of each.
            limits: (E, 2) bounds to which the expression is clipped; None: no clipping.
        """
        weights = self.expression + expression
        return replace(
            self,
            rotation=apply_rotation_update(self.rotation, pose[:3]),
            translation=self.translation + pose[3:],
            expression=weights if limits is None else np.clip(weights, limits[:, 0], limits[:, 1]),
            identity=self.identity + identity,
            albedo=self.albedo + albedo,
            light=self.light + light,
        )


def apply_rotation_update(rotation: np.ndarray, axis_angle: np.ndarray) -> np.ndarray:
    """Left-multiply a rotation (3, 3) by an axis-angle rotation (3,) in camera space, at most ROTATION_STEP_LIMIT."""
    limited = axis_angle * min(1.0, ROTATION_STEP_LIMIT / max(float(np.linalg.norm(axis_angle)), 1e-12))
    return _rotation_from_axis_angle(limited) @ rotation


def _rotation_from_axis_angle(axis_angle: np.ndarray) -> np.ndarray:
    """Rodrigues' formula in float64; see camera.rotation_from_axis_angle."""
    angle = np.linalg.norm(axis_angle)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = axis_angle / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)
