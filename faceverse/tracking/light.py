"""The light of a frame, from the colours of the skin."""

from __future__ import annotations

import numpy as np
import torch

from ..camera import Camera
from ..fitting.solver import LandmarkSolution, project_points
from ..lighting import linear_from_srgb, sh_basis
from ..mesh import vertex_normals
from ..model import FaceModel, FaceParams
from .sight import Sight

_POINTS = 300
_PRIOR_POINTS = 5.0  # how many points of skin the light of the frame before counts for
_POINT_WEIGHT = (0.35 * 0.28) ** 2  # of one point in the normal equations: albedo times the constant harmonic
_NOISE = 0.05  # linear; larger misfits (hair, glasses, beards) lose their influence
_LINEAR_OF_BYTE = linear_from_srgb(torch.arange(256, dtype=torch.float64) / 255).numpy()


class Skin:
    """Points of the skin with their albedo, from whose colours the light of a frame is estimated."""

    def __init__(self, model: FaceModel, person: FaceParams):
        index = _skin_vertices(model)
        with torch.no_grad():
            neutral = model.vertices(_row(person.identity, model))[0]
            normals = vertex_normals(neutral, model.face_index)[index]
            albedo = model.albedo(_row(person.albedo, model))[0, index].clamp(0.02, 1.0)
            modes = model.expression_basis[:, index] * model.gain(_row(person.identity, model))[0, :, None, None]
        self._neutral, self._normals, self._albedo, self._modes = (
            tensor.numpy(force=True).astype(np.float64) for tensor in (neutral[index], normals, albedo, modes)
        )

    def light(self, sight: Sight, solution: LandmarkSolution, camera: Camera, last: np.ndarray) -> np.ndarray:
        """Coefficients (9, 3): robust least squares over visible skin, held to those of the frame before."""
        if sight.picture is None:
            return last
        points = self._neutral + np.tensordot(solution.expression, self._modes, axes=1)
        normals = self._normals @ solution.rotation.T
        points_cam = points @ solution.rotation.T + solution.translation
        colours, inside = sight.colours(project_points(points, solution.rotation, solution.translation, camera))
        facing = -(normals * points_cam).sum(1) / np.linalg.norm(points_cam, axis=1)
        use = inside & (facing > 0.3)
        basis = sh_basis(torch.from_numpy(normals[use])).numpy()
        linear, albedo = _LINEAR_OF_BYTE[colours[use]], self._albedo[use]
        light, trust = last, np.ones(len(basis))
        for _ in range(2):
            channels = (_ridge(basis * a[:, None], c, trust, p) for a, c, p in zip(albedo.T, linear.T, last.T))
            light = np.stack(list(channels), axis=1)
            misfit = (albedo * (basis @ light) - linear).mean(1)
            trust = 1 / (1 + (misfit / _NOISE) ** 2)
        return light


def _ridge(rows: np.ndarray, values: np.ndarray, trust: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Weighted least squares rows @ x = values, where x stays near the prior."""
    weighted = rows * trust[:, None]
    hold = _PRIOR_POINTS * _POINT_WEIGHT * np.eye(rows.shape[1])
    return prior + np.linalg.solve(rows.T @ weighted + hold, weighted.T @ (values - rows @ prior))


def _skin_vertices(model: FaceModel) -> np.ndarray:
    """Evenly chosen vertices of bare skin."""
    skin = model.regions.get("face", np.unique(model.faces[model.fit_landmarks.triangle]))
    for name in ("lips", "eyelids", "eyebrows", "eyeballs", "eye_sockets", "mouth_inside", "teeth", "tongue", "scalp"):
        skin = np.setdiff1d(skin, model.regions.get(name, ()))
    return skin[np.linspace(0, len(skin) - 1, min(_POINTS, len(skin))).astype(np.int64)]


def _row(values: np.ndarray, model: FaceModel) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32, ndmin=2)).to(model.mean.device)
