"""Conversion between `FaceParams` and the coefficient vectors of the original code."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import ParameterError
from ..graphics.camera import Camera
from ..graphics.lighting import sh_basis
from ..model.face_model import FaceModel, FaceParams
from .conventions import AMBIENT, CAMERA_DISTANCE, FLIP, SH_FACTORS, angles_of, rotation_matrix, sh_signs, sh_terms
from .evaluate import CodeSpace, code_space


def params_from_coefficients(model: FaceModel, coefficients: np.ndarray) -> FaceParams:
    """Convert a coefficient vector of the original to parameters.

    Light coefficients are converted one by one, although the original multiplies sRGB colours with them and this
    library linear ones.

    Args:
        coefficients: identity, expression, texture, then angles, light and translation (versions 0 to 2: 33 more than
            the number of modes; version 3: 37 with the eyes; version 4: 37, the light before the angles).
    Raises:
        ParameterError: a vector of another length, or numbers that are not finite.
    """
    space = code_space(model)
    sizes = _sizes(model, space)
    vector = np.asarray(coefficients, dtype=np.float64).reshape(-1)
    if vector.size != sum(sizes.values()) or not np.isfinite(vector).all():
        parts = " + ".join(f"{size} {name}" for name, size in sizes.items())
        code = "official.count" if np.isfinite(vector).all() else "official.not_finite"
        raise ParameterError(code, model=model.name, expected=sum(sizes.values()), parts=parts, found=vector.size)
    value = dict(zip(sizes, np.split(vector, np.cumsum(list(sizes.values()))[:-1])))
    expression = np.zeros(len(model.expression_names))
    own = np.setdiff1d(np.arange(len(expression)), space.eyes)
    expression[own] = value["expression"]
    if len(space.eyes):
        expression[space.eyes] = value["eyes"]
    rotation, translation = _pose_of(value["angles"], value["translation"], space)
    return FaceParams(
        identity=value["identity"].astype(np.float32),
        expression=(expression / model.gain_of(value["identity"])).astype(np.float32),
        albedo=value["texture"].astype(np.float32),
        rotation=rotation.astype(np.float32),
        translation=translation.astype(np.float32),
        light=_light_of(value["light"], space, model).astype(np.float32),
    )


def coefficients_from_params(model: FaceModel, params: FaceParams) -> np.ndarray:
    """Convert parameters to the float32 vector that the original stores; inverse of `params_from_coefficients`."""
    space = code_space(model)
    expression = np.asarray(params.expression, np.float64) * model.gain_of(params.identity)
    own = np.setdiff1d(np.arange(len(expression)), space.eyes)
    angles, translation = _original_pose(params, space)
    value = {
        "identity": params.identity,
        "expression": expression[own],
        "texture": params.albedo,
        "angles": angles,
        "light": _original_light(np.asarray(params.light, np.float64), space, model),
        "translation": translation,
        "eyes": expression[space.eyes] if len(space.eyes) else np.zeros(space.convention.eyes),
    }
    return np.concatenate([np.asarray(value[name], np.float64) for name in _sizes(model, space)]).astype(np.float32)


def camera_of(model: FaceModel) -> Camera:
    """The default camera of the original, which its stored coefficients refer to."""
    convention = code_space(model).convention
    side = convention.image_size
    return Camera(convention.focal_px, (side / 2, side / 2), (side, side))


def stored_coefficients(content, where: str) -> np.ndarray:
    """Extract the vector from stored content: an array (K,) or (1, K), or version 4's dictionary with `coeffs`.

    Raises:
        ParameterError: the content is neither.
    """
    if isinstance(content, Mapping):
        content = content.get("coeffs")
    is_row = isinstance(content, np.ndarray) and content.size == max(content.shape, default=0)
    if not is_row or content.dtype.kind not in "fiu":
        raise ParameterError("official.no_coefficients", path=where)
    return content.reshape(-1)


def _sizes(model: FaceModel, space: CodeSpace) -> dict[str, int]:
    """Lengths of the parts of a coefficient vector by name, in the version's order."""
    convention = space.convention
    expressions = len(model.expression_names) - len(space.eyes)
    identities, albedos = len(model.data.identity_modes), len(model.data.albedo_modes)
    sizes = {"identity": identities, "expression": expressions, "texture": albedos}
    rest = {"light": 27, "angles": 3} if convention.light_last else {"angles": 3, "light": 27}
    return {**sizes, **rest, "translation": 3, **({"eyes": convention.eyes} if convention.eyes else {})}


def _pose_of(angles: np.ndarray, translation: np.ndarray, space: CodeSpace) -> tuple[np.ndarray, np.ndarray]:
    """Convert the original's pose to rotation (3, 3) and translation (3,) of camera.py."""
    rotation = rotation_matrix(angles).T * FLIP
    if space.convention.looks_forward:
        return FLIP[:, None] * rotation, space.unit_m * FLIP * (translation + [0, 0, CAMERA_DISTANCE])
    return rotation, space.unit_m * (translation - [0, 0, CAMERA_DISTANCE])


def _original_pose(params: FaceParams, space: CodeSpace) -> tuple[np.ndarray, np.ndarray]:
    """Convert a pose to angles (3,) and translation (3,) of the original."""
    rotation = np.asarray(params.rotation, np.float64)
    position = np.asarray(params.translation, np.float64) / space.unit_m
    if space.convention.looks_forward:
        return angles_of((FLIP[:, None] * rotation * FLIP).T, 0.0), FLIP * position - [0, 0, CAMERA_DISTANCE]
    return angles_of((rotation * FLIP).T, np.pi), position + [0, 0, CAMERA_DISTANCE]


def _light_ratio(space: CodeSpace, model: FaceModel) -> np.ndarray:
    """(9,) ratio of the original's SH light coefficients to ours: same terms, other factors and signs."""
    import torch

    normal = np.array([[0.36, 0.48, 0.8]])
    ours = sh_basis(torch.from_numpy(normal))[0].numpy() / sh_terms(normal)[0]
    axes = FLIP if space.convention.looks_forward else np.ones(3)
    inward = (model.info.get("official", {}).get("winding") == "reversed") != space.convention.reversed_normals
    return ours / (SH_FACTORS * sh_signs(-axes if inward else axes))


def _light_of(light: np.ndarray, space: CodeSpace, model: FaceModel) -> np.ndarray:
    gamma = light.reshape(9, 3).copy() if space.convention.light_last else light.reshape(3, 9).T.copy()
    gamma[0] += AMBIENT
    return gamma / _light_ratio(space, model)[:, None]


def _original_light(light: np.ndarray, space: CodeSpace, model: FaceModel) -> np.ndarray:
    gamma = light * _light_ratio(space, model)[:, None]
    gamma[0] -= AMBIENT
    return gamma.reshape(-1) if space.convention.light_last else gamma.T.reshape(-1)
