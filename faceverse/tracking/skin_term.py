"""One person's skin against a small picture of a frame: colours predicted and found, and how they change.

The same comparison as `fitting.surface`, made for speed: the person is known, so only turn, shift and weights move, and
how the normals change with the weights is taken from the resting face. Conventions: see camera.py.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from ..fitting.losses import ROBUST_SCALE, SIGMA_PER_MAD, cauchy_weight, geman_mcclure_row_scale
from ..fitting.self_occlusion import MIN_FACING, visible_points
from ..fitting.surface import (
    MIN_ALBEDO,
    SIGMA_LIMITS,
    SurfaceSamples,
    sample_picture,
    sample_surface,
    subsample_surface,
    vertex_weights,
)
from ..graphics.camera import Camera
from ..graphics.lighting import linear_from_srgb, sh_basis, sh_basis_gradient, srgb_from_linear, srgb_slope
from ..memory import return_memory
from ..model.data import on_coarse_mesh
from ..model.face_model import FaceModel, FaceParams, evaluate

_MIN_WEIGHT = 0.2
_SAMPLES = 1000  # of the surface that a person is fitted with
_PRIOR_POINTS = 5.0  # how many points of skin the light of the frame before counts for
_POINT_WEIGHT = (0.35 * 0.28) ** 2  # of one point in the normal equations: albedo times the constant harmonic
_NOISE = 0.05  # linear; larger misfits (hair, glasses, beards) lose their influence


@dataclass(frozen=True)
class Pose:
    """What moves in a frame. NumPy float64: rotation (3, 3), translation (3,), expression (E,)."""

    rotation: np.ndarray
    translation: np.ndarray
    expression: np.ndarray


@dataclass(frozen=True)
class FacePicture:
    """A frame's picture of the face.

    Args:
        values: (S, S, 10) float32: sRGB in 0..1, its change to the right and downwards, and whether it is in the frame.
        camera: of the picture.
        clear: (K,) whether no other part of the head is before each point.
    """

    values: np.ndarray
    camera: Camera
    clear: np.ndarray


@dataclass(frozen=True)
class CoarseSurface:
    """What tracking needs of a model's light mesh; much smaller than the mesh itself.

    Args:
        vertices: (W,) its vertices, as numbers of the model's.
        faces: (G, 3) into these; votes: (W,), see `vertex_weights`.
        expression: (E, W, 3) metres.
        surface: samples for fitting a person.
    """

    vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    expression: np.ndarray
    surface: SurfaceSamples


_coarse: weakref.WeakKeyDictionary[FaceModel, CoarseSurface] = weakref.WeakKeyDictionary()


def coarse_surface(model: FaceModel) -> CoarseSurface:
    """Of a model, computed once. The light mesh is let go of where nobody else has asked for it."""
    if model not in _coarse:
        data = model.data
        if data.coarse_faces is None or "coarse" in vars(model):
            mesh = model.coarse
        else:
            mesh = FaceModel(on_coarse_mesh(data))
        kept = np.arange(len(data.mean_vertices)) if data.coarse_faces is None else data.coarse_vertices
        expression = mesh.tensor("expression_modes").numpy(force=True).copy()
        surface = subsample_surface(sample_surface(mesh), _SAMPLES)
        _coarse[model] = CoarseSurface(kept, mesh.faces.copy(), vertex_weights(mesh), expression, surface)
        del mesh
        return_memory()
    return _coarse[model]


class SkinTerm:
    """Points of one person's skin.

    Args:
        model: the face model.
        person: whose identity and albedo count.
        points: number of points at most.
    """

    def __init__(self, model: FaceModel, person: FaceParams, points: int):
        mesh = coarse_surface(model)
        with torch.no_grad():
            neutral, albedo = (
                evaluate(mean[torch.from_numpy(mesh.vertices)], (model.modes_at(name, mesh.vertices), row))[0]
                for mean, name, row in (
                    (model.tensor("mean_vertices"), "identity_modes", _row(person.identity, model)),
                    (model.tensor("mean_albedo"), "albedo_modes", _row(person.albedo, model)),
                )
            )
            neutral, albedo = neutral.numpy(force=True), albedo.clamp_min(MIN_ALBEDO).numpy(force=True)
        modes = mesh.expression * model.gain_of(person.identity)[:, None, None]
        weights = mesh.weights
        index = np.flatnonzero((weights >= _MIN_WEIGHT) & np.isin(np.arange(len(weights)), mesh.faces))
        index = index[np.linspace(0, len(index) - 1, min(points, len(index))).astype(np.int64)]
        self._resting = neutral.astype(np.float32)
        self.weights, self.albedo = weights[index].astype(np.float32), albedo[index].astype(np.float32)
        self.points = neutral[index].astype(np.float32)
        self.modes = np.ascontiguousarray(modes[:, index].transpose(1, 2, 0), np.float32)  # (K, 3, E)
        self.normals, self.normal_modes = _normals(neutral, modes, mesh.faces, index)
        self.sigma = SIGMA_LIMITS[1]

    def picture(self, rgb: np.ndarray, inside: np.ndarray, camera: Camera, pose: Pose) -> FacePicture:
        """A frame's picture (S, S, 3) uint8, and which of the points are to be seen in it."""
        values = rgb.astype(np.float32) / np.float32(255)
        down, across = np.gradient(values, axis=(0, 1))
        stacked = np.concatenate([values, across, down, inside[..., None]], axis=-1, dtype=np.float32)
        return FacePicture(stacked, camera, self._clear(pose, camera))

    def _clear(self, pose: Pose, camera: Camera) -> np.ndarray:
        """(K,) whether nothing of the head, which is otherwise at rest, is before each point."""
        rotated, normals = self._turned(pose)
        shift = pose.translation.astype(np.float32)
        others = self._resting @ pose.rotation.astype(np.float32).T + shift
        return visible_points(rotated + shift, normals, others, camera)

    def _turned(self, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        """Points and unit normals (K, 3), rotated but not shifted."""
        rotation, weights = pose.rotation.astype(np.float32), pose.expression.astype(np.float32)
        rotated = (self.points + self.modes @ weights) @ rotation.T
        normals = self.normals + self.normal_modes @ weights
        return rotated, (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)) @ rotation.T

    def evaluate(self, pose: Pose, picture: FacePicture) -> SkinResiduals:
        """Where the points are in a picture, and what is found there."""
        rotated, normals = self._turned(pose)
        points = rotated + pose.translation.astype(np.float32)
        depth = np.maximum(-points[:, 2], 1e-3)
        camera, size = picture.camera, len(picture.values)
        scale = np.float32(camera.focal_px) / depth
        x = camera.principal_point_px[0] + scale * points[:, 0]
        y = camera.principal_point_px[1] - scale * points[:, 1]
        found = sample_picture(picture.values, x, y)
        facing = -(normals * points).sum(1) / np.linalg.norm(points, axis=1)
        within = (x > 1) & (x < size - 1) & (y > 1) & (y < size - 1) & (found[:, 9] > 0.99)
        seen = within & (facing > MIN_FACING) & picture.clear
        basis = sh_basis(torch.from_numpy(normals)).numpy()
        return SkinResiduals(rotated, normals, points, scale, found[:, :9], self.weights * seen * facing, basis)

    def light(self, residuals: SkinResiduals, last: np.ndarray) -> np.ndarray:
        """Coefficients (9, 3): robust least squares over points that are seen, held to those of the frame before."""
        use = residuals.weight > 0
        linear = linear_from_srgb(torch.from_numpy(residuals.observed[use, :3])).numpy().astype(np.float64)
        basis, albedo = residuals.basis[use].astype(np.float64), self.albedo[use].astype(np.float64)
        rows = albedo.T[..., None] * basis  # (3, K, 9)
        hold = _PRIOR_POINTS * _POINT_WEIGHT * np.eye(basis.shape[1])
        off = (linear - albedo * (basis @ last)).T[..., None]
        light, trust = last, np.ones(len(basis))
        for _ in range(2):
            weighted = (rows * trust[:, None]).transpose(0, 2, 1)
            light = last + np.linalg.solve(weighted @ rows + hold, weighted @ off)[..., 0].T
            misfit = (albedo * (basis @ light) - linear).mean(1)
            trust = cauchy_weight(misfit, _NOISE)
        return light

    def normal_equations(
        self, pose: Pose, residuals: SkinResiduals, light: np.ndarray, independent: float
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Gauss-Newton Hessian (6 + E, 6 + E) and gradient of the colours' robust loss in turn, shift and weights, and
        the share of the points that agree.

        Args:
            independent: number of independent points that the comparison counts as, see `surface.Comparison`.
        """
        linear = self.albedo * (residuals.basis @ light.astype(np.float32))
        residual = srgb_from_linear(torch.from_numpy(linear)).numpy() - residuals.observed[:, :3]
        square = (residual**2).mean(1)
        used = residuals.weight > 0
        if used.sum() < 30:
            count = 6 + self.modes.shape[2]
            return np.zeros((count, count)), np.zeros(count), 0.0
        self.sigma = float(np.clip(SIGMA_PER_MAD * np.sqrt(np.median(square[used])), *SIGMA_LIMITS))
        square = square / self.sigma**2
        trust = independent * SIGMA_LIMITS[0] / self.sigma
        weight = residuals.weight * (trust / (3 * self.sigma**2 * residuals.weight.sum()))
        root = geman_mcclure_row_scale(square, weight)
        rows = np.flatnonzero(root > 0)
        jacobian = self._jacobian(pose, residuals, light, linear, root.astype(np.float32), rows)
        flat = (residual * root[:, None])[rows].reshape(-1).astype(np.float32)
        agreeing = float((residuals.weight * (square < ROBUST_SCALE**2)).sum() / residuals.weight.sum())
        return (jacobian.T @ jacobian).astype(np.float64), (jacobian.T @ flat).astype(np.float64), agreeing

    def _jacobian(self, pose: Pose, residuals: SkinResiduals, light, linear, root: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(3R, 6 + E) of the residuals at R of the points, times root (K,)."""
        root, normals, seen = root[rows], residuals.normals[rows], residuals.observed[rows]
        scaled = (root * residuals.scale[rows])[:, None]
        across, down = seen[:, 3:6] * scaled, seen[:, 6:9] * scaled
        points = residuals.points[rows]
        depth = np.maximum(-points[:, 2:], 1e-3)
        along = down * (points[:, 1:2] / depth) - across * (points[:, :1] / depth)
        moved = np.stack([-across, down, along], axis=-1)  # (R, 3 channels, 3)
        slope = srgb_slope(torch.from_numpy(linear[rows])).numpy() * root[:, None] * self.albedo[rows]
        gradient = sh_basis_gradient(torch.from_numpy(normals)).numpy()
        bend = (light.T.astype(np.float32) @ gradient) * slope[..., None]
        bend = bend - (bend * normals[:, None]).sum(-1, keepdims=True) * normals[:, None]
        turn = np.cross(residuals.rotated[rows, None], moved) + np.cross(normals[:, None], bend)
        rotation = pose.rotation.astype(np.float32)
        expressed = (moved @ rotation) @ self.modes[rows] + (bend @ rotation) @ self.normal_modes[rows]
        jacobian = np.concatenate([turn, moved, expressed], axis=2)
        return jacobian.reshape(-1, jacobian.shape[2])


@dataclass(frozen=True)
class SkinResiduals:
    """The K points in a picture. NumPy float32, camera space.

    Args:
        turned: (K, 3) rotated but not shifted; normals, points: (K, 3); scale: (K,) pixels per metre.
        observed: (K, 9) the picture's sRGB and its derivatives to the right and downwards.
        weight: (K,) 0 where nothing is to be compared.
        basis: (K, 9) of the light.
    """

    rotated: np.ndarray
    normals: np.ndarray
    points: np.ndarray
    scale: np.ndarray
    observed: np.ndarray
    weight: np.ndarray
    basis: np.ndarray


def _normals(neutral: np.ndarray, modes: np.ndarray, faces: np.ndarray, index: np.ndarray):
    """Unit normals (K, 3) of the resting face at vertices (K,), and their change with the weights (K, 3, E)."""
    number = np.full(len(neutral), -1)
    number[index] = np.arange(len(index))
    around = faces[(number[faces] >= 0).any(1)]
    corner = number[around]
    own = corner >= 0
    triangles = np.repeat(np.arange(len(around))[:, None], 3, axis=1)[own]
    sums = sparse.csr_matrix((np.ones(own.sum()), (corner[own], triangles)), shape=(len(index), len(around)))

    def edges(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return values[around[:, 1]] - values[around[:, 0]], values[around[:, 2]] - values[around[:, 0]]

    one, two = edges(neutral.astype(np.float64))
    summed = sums @ np.cross(one, two)
    length = np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-20)
    changes = []
    for mode in modes.astype(np.float64):
        first, second = edges(mode)
        changes.append(sums @ (np.cross(first, two) + np.cross(one, second)) / length)
    return (summed / length).astype(np.float32), np.ascontiguousarray(np.stack(changes, axis=-1), np.float32)


def _row(values: np.ndarray, model: FaceModel) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32, ndmin=2)).to(model.device)
