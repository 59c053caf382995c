"""Photometric term of one person: predicted and observed colours at points of the skin, and their derivatives.

The same residuals as in `fitting.surface`, made for speed: the person is fixed, so that only pose and expression move,
and the normals are linear in the expression around the neutral face. Conventions: see camera.py.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from ..fitting.losses import ROBUST_SCALE, SIGMA_PER_MAD, cauchy_weight, geman_mcclure_row_scale
from ..fitting.self_occlusion import MIN_FACING, visible_points
from ..fitting.state import FaceState
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
_SAMPLES = 1000  # of the surface that a person is estimated with
_LIGHT_PRIOR_POINTS = 5.0  # how many skin points the light of the last frame counts for
_POINT_WEIGHT = (0.35 * 0.28) ** 2  # of one point in the normal equations: albedo times the constant harmonic
_LIGHT_SCALE = 0.05  # linear; larger residuals (hair, glasses, beards) are down-weighted as outliers


@dataclass(frozen=True)
class FacePicture:
    """A frame's crop of the face.

    Args:
        values: (S, S, 10) float32: sRGB in 0..1, its derivatives to the right and downwards, and whether the pixel is
            in the frame.
        camera: of the crop.
        visible: (K,) whether no other part of the head occludes each point.
    """

    values: np.ndarray
    camera: Camera
    visible: np.ndarray


@dataclass(frozen=True)
class CoarseSurface:
    """The part of a model's coarse mesh that tracking needs; much smaller than the mesh itself.

    Args:
        vertices: (W,) indices of its vertices in the model.
        faces: (G, 3) indices into these.
        weights: (W,), see `vertex_weights`.
        expression: (E, W, 3) metres.
        surface: samples for estimating a person.
    """

    vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    expression: np.ndarray
    surface: SurfaceSamples


_coarse: weakref.WeakKeyDictionary[FaceModel, CoarseSurface] = weakref.WeakKeyDictionary()


def coarse_surface(model: FaceModel) -> CoarseSurface:
    """The coarse surface of a model, computed once; the coarse mesh is freed unless the model holds it anyway."""
    if model not in _coarse:
        data = model.data
        if data.coarse_faces is None or "coarse" in vars(model):
            mesh = model.coarse
        else:
            mesh = FaceModel(on_coarse_mesh(data))
        kept = data.coarse_vertices
        if kept is None or data.coarse_faces is None:
            kept = np.arange(len(data.mean_vertices))
        expression = mesh.tensor("expression_modes").numpy(force=True).copy()
        surface = subsample_surface(sample_surface(mesh), _SAMPLES)
        _coarse[model] = CoarseSurface(kept, mesh.faces.copy(), vertex_weights(mesh), expression, surface)
        del mesh
        return_memory()
    return _coarse[model]


class SkinTerm:
    """Photometric term at points of one person's skin.

    Args:
        model: the face model.
        person: its identity and albedo are used.
        points: number of points, at most.
    """

    def __init__(self, model: FaceModel, person: FaceParams, points: int):
        mesh = coarse_surface(model)
        with torch.no_grad():
            shape, skin = (
                evaluate(mean[torch.from_numpy(mesh.vertices)], (model.modes_at(name, mesh.vertices), row))[0]
                for mean, name, row in (
                    (model.tensor("mean_vertices"), "identity_modes", _row(person.identity, model)),
                    (model.tensor("mean_albedo"), "albedo_modes", _row(person.albedo, model)),
                )
            )
            neutral, albedo = shape.numpy(force=True), skin.clamp_min(MIN_ALBEDO).numpy(force=True)
        modes = mesh.expression * model.gain_of(person.identity)[:, None, None]
        weights = mesh.weights
        index = np.flatnonzero((weights >= _MIN_WEIGHT) & np.isin(np.arange(len(weights)), mesh.faces))
        index = index[np.linspace(0, len(index) - 1, min(points, len(index))).astype(np.int64)]
        self._neutral = neutral.astype(np.float32)
        self.weights, self.albedo = weights[index].astype(np.float32), albedo[index].astype(np.float32)
        self.points = neutral[index].astype(np.float32)
        self.modes = np.ascontiguousarray(modes[:, index].transpose(1, 2, 0), np.float32)  # (K, 3, E)
        self.normals, self.normal_modes = _normals(neutral, modes, mesh.faces, index)
        self.sigma = SIGMA_LIMITS[1]

    def picture(self, rgb: np.ndarray, inside: np.ndarray, camera: Camera, state: FaceState) -> FacePicture:
        """A face crop with its image gradients, and the points that a state shows in it.

        Args:
            rgb: (S, S, 3) uint8.
            inside: (S, S) bool, where the crop shows the frame.
            camera: of the crop.
        """
        values = rgb.astype(np.float32) / np.float32(255)
        down, across = np.gradient(values, axis=(0, 1))
        stacked = np.concatenate([values, across, down, inside[..., None]], axis=-1, dtype=np.float32)
        return FacePicture(stacked, camera, self._visible(state, camera))

    def _visible(self, state: FaceState, camera: Camera) -> np.ndarray:
        """(K,) whether no part of the head, in its neutral shape, occludes each point."""
        rotated, normals = self._rotated(state)
        translation = state.translation.astype(np.float32)
        head = self._neutral @ state.rotation.astype(np.float32).T + translation
        return visible_points(rotated + translation, normals, head, camera)

    def _rotated(self, state: FaceState) -> tuple[np.ndarray, np.ndarray]:
        """Points and unit normals (K, 3), rotated but not translated."""
        rotation, weights = state.rotation.astype(np.float32), state.expression.astype(np.float32)
        points = (self.points + self.modes @ weights) @ rotation.T
        normals = self.normals + self.normal_modes @ weights
        return points, (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)) @ rotation.T

    def evaluate(self, state: FaceState, picture: FacePicture) -> SkinResiduals:
        """Project the points of a state into a crop and sample it there."""
        rotated, normals = self._rotated(state)
        points = rotated + state.translation.astype(np.float32)
        depth = np.maximum(-points[:, 2], 1e-3)
        camera, size = picture.camera, len(picture.values)
        scale = np.float32(camera.focal_px) / depth
        x = camera.principal_point_px[0] + scale * points[:, 0]
        y = camera.principal_point_px[1] - scale * points[:, 1]
        observed = sample_picture(picture.values, x, y)
        facing = -(normals * points).sum(1) / np.linalg.norm(points, axis=1)
        within = (x > 1) & (x < size - 1) & (y > 1) & (y < size - 1) & (observed[:, 9] > 0.99)
        used = within & (facing > MIN_FACING) & picture.visible
        basis = sh_basis(torch.from_numpy(normals)).numpy()
        return SkinResiduals(rotated, normals, points, scale, observed[:, :9], self.weights * used * facing, basis)

    def estimate_light(self, residuals: SkinResiduals, previous: np.ndarray) -> np.ndarray:
        """Light (9, 3): robust least squares over the visible points, with a prior around that of the last frame."""
        used = residuals.weight > 0
        linear = linear_from_srgb(torch.from_numpy(residuals.observed[used, :3])).numpy().astype(np.float64)
        basis, albedo = residuals.basis[used].astype(np.float64), self.albedo[used].astype(np.float64)
        rows = albedo.T[..., None] * basis  # (3, K, 9)
        prior = _LIGHT_PRIOR_POINTS * _POINT_WEIGHT * np.eye(basis.shape[1])
        off = (linear - albedo * (basis @ previous)).T[..., None]
        light, weight = previous, np.ones(len(basis))
        for _ in range(2):
            weighted = (rows * weight[:, None]).transpose(0, 2, 1)
            light = previous + np.linalg.solve(weighted @ rows + prior, weighted @ off)[..., 0].T
            residual = (albedo * (basis @ light) - linear).mean(1)
            weight = cauchy_weight(residual, _LIGHT_SCALE)
        return light

    def shading(self, state: FaceState, residuals: SkinResiduals) -> np.ndarray:
        """Linear RGB (K, 3) that the points have in the state's light."""
        return self.albedo * (residuals.basis @ state.light.astype(np.float32))

    def normal_equations(
        self, state: FaceState, residuals: SkinResiduals, effective_points: float
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Gauss-Newton Hessian (6 + E, 6 + E) and gradient of the robust loss in rotation, translation and expression,
        and the share of inliers.

        Args:
            effective_points: effective sample count of the comparison, see `surface.PhotometricTerm`.
        """
        linear = self.shading(state, residuals)
        residual = srgb_from_linear(torch.from_numpy(linear)).numpy() - residuals.observed[:, :3]
        square = (residual**2).mean(1)
        used = residuals.weight > 0
        if used.sum() < 30:
            count = 6 + self.modes.shape[2]
            return np.zeros((count, count)), np.zeros(count), 0.0
        self.sigma = float(np.clip(SIGMA_PER_MAD * np.sqrt(np.median(square[used])), *SIGMA_LIMITS))
        square = square / self.sigma**2
        count = effective_points * SIGMA_LIMITS[0] / self.sigma
        weight = residuals.weight * (count / (3 * self.sigma**2 * residuals.weight.sum()))
        root = geman_mcclure_row_scale(square, weight)
        rows = np.flatnonzero(root > 0)
        jacobian = self.jacobian(state, residuals, linear, root.astype(np.float32), rows)
        flat = (residual * root[:, None])[rows].reshape(-1).astype(np.float32)
        inliers = float((residuals.weight * (square < ROBUST_SCALE**2)).sum() / residuals.weight.sum())
        return (jacobian.T @ jacobian).astype(np.float64), (jacobian.T @ flat).astype(np.float64), inliers

    def jacobian(
        self, state: FaceState, residuals: SkinResiduals, linear: np.ndarray, root: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Jacobian (3R, 6 + E) of the residuals, sRGB of the shading minus the observed sRGB, at R of the points.

        Columns: rotation update and translation in camera space, expression weights.

        Args:
            linear: (K, 3), see `shading`.
            root: (K,) factor of each point's rows.
            rows: (R,) indices of points.
        """
        root, normals, observed = root[rows], residuals.normals[rows], residuals.observed[rows]
        scaled = (root * residuals.scale[rows])[:, None]
        across, down = observed[:, 3:6] * scaled, observed[:, 6:9] * scaled
        points = residuals.points[rows]
        depth = np.maximum(-points[:, 2:], 1e-3)
        along = down * (points[:, 1:2] / depth) - across * (points[:, :1] / depth)
        by_position = np.stack([-across, down, along], axis=-1)  # (R, 3 channels, 3)
        slope = srgb_slope(torch.from_numpy(linear[rows])).numpy() * root[:, None] * self.albedo[rows]
        gradient = sh_basis_gradient(torch.from_numpy(normals)).numpy()
        by_normal = (state.light.T.astype(np.float32) @ gradient) * slope[..., None]
        by_normal = by_normal - (by_normal * normals[:, None]).sum(-1, keepdims=True) * normals[:, None]
        by_rotation = np.cross(residuals.rotated[rows, None], by_position) + np.cross(normals[:, None], by_normal)
        rotation = state.rotation.astype(np.float32)
        by_expression = (by_position @ rotation) @ self.modes[rows] + (by_normal @ rotation) @ self.normal_modes[rows]
        jacobian = np.concatenate([by_rotation, by_position, by_expression], axis=2)
        return jacobian.reshape(-1, jacobian.shape[2])


@dataclass(frozen=True)
class SkinResiduals:
    """The K skin points projected into a crop. NumPy float32, camera space.

    Args:
        rotated: (K, 3) rotated but not translated.
        normals: (K, 3); points: (K, 3) metres; scale: (K,) pixels per metre.
        observed: (K, 9) sRGB of the crop and its derivatives to the right and downwards.
        weight: (K,) 0 where a point is not compared.
        basis: (K, 9) spherical harmonics at the normals.
    """

    rotated: np.ndarray
    normals: np.ndarray
    points: np.ndarray
    scale: np.ndarray
    observed: np.ndarray
    weight: np.ndarray
    basis: np.ndarray


def _normals(neutral: np.ndarray, modes: np.ndarray, faces: np.ndarray, index: np.ndarray):
    """Unit normals (K, 3) of the neutral face at vertices (K,), and their derivatives by the weights (K, 3, E)."""
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
