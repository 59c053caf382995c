"""Photometric term: colour residuals at visible surface samples, with a closed-form Jacobian for Gauss-Newton.

Each visible vertex of the coarse mesh predicts an sRGB colour, its albedo times the spherical-harmonics shading at its
normal, and is compared with the photograph at its projection. The Jacobian with respect to pose, identity, expression,
albedo and light is analytic; the derivative through the image uses image gradients. So a step needs no differentiable
renderer, only a depth buffer for self-occlusion. Residuals enter the robust Geman-McClure loss (`losses`) at a noise
level estimated from their median (MAD scale); correlated errors are accounted for by an effective sample count.

Reference: Romdhani and Vetter 2005, "Estimating 3D shape and texture using pixel intensity, edges, specular highlights,
texture constraints and a prior". Conventions: see camera.py.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse

from ..graphics.camera import Camera, project, transform
from ..graphics.lighting import sh_basis, sh_basis_gradient, srgb_from_linear, srgb_slope
from ..graphics.rasterize import rasterize
from ..model.face_model import FaceModel, expression_gain
from . import losses
from .self_occlusion import MIN_FACING, OCCLUSION_TOLERANCE_M, visible_points
from .state import FaceState

# Noise level: standard deviation of sRGB residuals, estimated in each fit within these limits. Photographs that the
# model explains well get the lower limit; hair, make-up and wrinkles raise it.
SIGMA_LIMITS = (0.010, 0.050)
# Weights of regions whose appearance the model does not describe: hair, clothes, specular or occluded parts.
REGION_WEIGHT = {"scalp": 0.0, "neck": 0.05, "ears": 0.1, "mouth_inside": 0.0, "teeth": 0.0, "tongue": 0.0,
               "eyeballs": 0.25, "eye_sockets": 0.0}  # fmt: skip
FOREHEAD_WEIGHT, FOREHEAD_FADE_M = 0.25, 0.025  # fringes: weight, and height above the brows where it is reached
MAX_SAMPLES = 4000  # per mesh; residuals of neighbouring vertices are correlated
MIN_ALBEDO = 0.005  # linear
LIGHT_COEFFICIENTS = 27  # 9 spherical harmonics x 3 channels


@dataclass(frozen=True)
class BlockSizes:
    """Sizes and slices of the blocks of one photograph's unknowns.

    Order: rotation (3), translation (3), identity, expression, albedo, light (9 x 3, row by row).
    """

    identity: int
    expression: int
    albedo: int

    @property
    def total(self) -> int:
        """Number of unknowns."""
        return 6 + self.identity + self.expression + self.albedo + LIGHT_COEFFICIENTS

    @property
    def blocks(self) -> tuple[slice, ...]:
        """Pose (6), identity, expression, albedo and light."""
        ends = np.cumsum([0, 6, self.identity, self.expression, self.albedo, LIGHT_COEFFICIENTS])
        return tuple(slice(int(a), int(b)) for a, b in zip(ends[:-1], ends[1:], strict=True))


@dataclass(frozen=True)
class SurfaceSamples:
    """The model at K sample vertices and at the U vertices of their one-rings. NumPy, float32 and int64.

    Args:
        mesh: the model, for a depth buffer; None in the cache, and where `visible_points` estimates self-occlusion.
        weights: (K,) weight of each sample, above 0 and at most 1.
        sample_index: (K,) index of each sample among the U vertices.
        corners: (P, 3) triangles around the samples, the sample's own corner first, as indices into the U vertices.
        triangle_sum: (K, P) sparse incidence: 1 where a triangle belongs to a sample.
        mean: (U, 3); identity: (3U, I); expression: (3U, E) metres.
        albedo_mean: (K, 3); albedo: (K, 3, A) linear RGB.
        gain: (E, I) or None, see `FaceModel`.
        rows, columns: (K + 3P,) sample and vertex of each block of the geometry's Jacobian, positions first.
    """

    mesh: FaceModel | None
    weights: np.ndarray
    sample_index: np.ndarray
    corners: np.ndarray
    triangle_sum: sparse.csr_matrix
    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    albedo_mean: np.ndarray
    albedo: np.ndarray
    gain: np.ndarray | None
    rows: np.ndarray
    columns: np.ndarray

    @property
    def sizes(self) -> BlockSizes:
        """Numbers of coefficients."""
        return BlockSizes(self.identity.shape[1], self.expression.shape[1], self.albedo.shape[2])

    def gains(self, identity: np.ndarray) -> np.ndarray:
        """(E,) factors on the expressions of a head (I,)."""
        if self.gain is None:
            return np.ones(self.expression.shape[1], np.float32)
        coefficients = torch.from_numpy(np.asarray(identity, np.float32))[None]
        return expression_gain(torch.from_numpy(self.gain), coefficients).numpy()[0]

    def colours(self, albedo: np.ndarray) -> np.ndarray:
        """(K, 3) albedo of the samples for coefficients (A,)."""
        return np.maximum(self.albedo_mean + self.albedo @ albedo.astype(np.float32), MIN_ALBEDO)


_surfaces: weakref.WeakKeyDictionary[FaceModel, SurfaceSamples] = weakref.WeakKeyDictionary()


def surface_samples(mesh: FaceModel) -> SurfaceSamples:
    """The samples of a mesh, cached."""
    if mesh not in _surfaces:
        # A cached value must not reference its key, which would then never be freed.
        _surfaces[mesh] = replace(sample_surface(mesh), mesh=None)
    return replace(_surfaces[mesh], mesh=mesh)


def subsample_surface(surface: SurfaceSamples, count: int) -> SurfaceSamples:
    """Subsample a surface evenly to at most `count` samples; the result has no mesh."""
    count = min(count, len(surface.weights))
    kept = np.linspace(0, len(surface.weights) - 1, count).astype(np.int64)
    number = np.full(len(surface.weights), -1)
    number[kept] = np.arange(count)
    own = number[surface.rows[len(surface.weights) :][: len(surface.corners)]]
    pairs = np.flatnonzero(own >= 0)
    own = own[pairs]
    all_places = np.concatenate([surface.sample_index[kept], surface.corners[pairs].reshape(-1)])
    used, index = np.unique(all_places, return_inverse=True)
    index = index.reshape(-1)
    place, corners = index[:count], index[count:].reshape(-1, 3)
    rows = (3 * used[:, None] + np.arange(3)).reshape(-1)
    sums = sparse.csr_matrix((np.ones(len(pairs), np.float32), (own, np.arange(len(pairs)))), shape=(count, len(pairs)))
    return replace(
        surface,
        mesh=None,
        weights=surface.weights[kept],
        sample_index=place,
        corners=corners,
        triangle_sum=sums,
        mean=surface.mean[used],
        identity=np.ascontiguousarray(surface.identity[rows]),
        expression=np.ascontiguousarray(surface.expression[rows]),
        albedo_mean=surface.albedo_mean[kept],
        albedo=surface.albedo[kept],
        rows=np.concatenate([np.arange(count), own, own, own]),
        columns=np.concatenate([place, corners[:, 0], corners[:, 1], corners[:, 2]]),
    )


def vertex_weights(model: FaceModel) -> np.ndarray:
    """(V,) weight of each vertex in the photometric term, 0..1."""
    weights = np.ones(len(model.mean_vertices), np.float32)
    for name, weight in REGION_WEIGHT.items():
        if name in model.regions:
            weights[np.asarray(model.regions[name])] = weight
    if len(model.regions.get("eyebrows", ())):
        above = model.mean_vertices[:, 1] - model.mean_vertices[model.regions["eyebrows"], 1].max()
        weights *= 1 - (1 - FOREHEAD_WEIGHT) * np.clip(above / FOREHEAD_FADE_M, 0, 1)
    return weights


def sample_surface(mesh: FaceModel) -> SurfaceSamples:
    """Choose the samples of a mesh and gather the model's arrays at them."""
    weights = vertex_weights(mesh)
    samples = np.flatnonzero((weights > 0) & np.isin(np.arange(len(weights)), mesh.faces))
    samples = samples[:: -(-len(samples) // MAX_SAMPLES)]
    number = np.full(len(weights), -1)
    number[samples] = np.arange(len(samples))
    rotated = np.concatenate([np.roll(mesh.faces, -k, axis=1) for k in range(3)]).astype(np.int64)
    rotated = rotated[number[rotated[:, 0]] >= 0]
    own = number[rotated[:, 0]]
    used, corners = np.unique(rotated, return_inverse=True)
    corners = corners.reshape(-1, 3)
    pairs, place = len(corners), np.searchsorted(used, samples)
    identity, expression = (
        np.ascontiguousarray(basis.numpy(force=True)[:, used].reshape(len(basis), -1).T)
        for basis in (mesh.tensor("identity_modes"), mesh.tensor("expression_modes"))
    )
    return SurfaceSamples(
        mesh=mesh,
        weights=weights[samples],
        sample_index=place,
        corners=corners,
        triangle_sum=sparse.csr_matrix(
            (np.ones(pairs, np.float32), (own, np.arange(pairs))), shape=(len(samples), pairs)
        ),
        mean=mesh.mean_vertices[used].astype(np.float32),
        identity=identity,
        expression=expression,
        albedo_mean=mesh.tensor("mean_albedo").numpy(force=True)[samples],
        albedo=np.ascontiguousarray(mesh.tensor("albedo_modes").numpy(force=True)[:, samples].transpose(1, 2, 0)),
        gain=None if mesh.data.expression_gain is None else mesh.data.expression_gain.astype(np.float32),
        rows=np.concatenate([np.arange(len(samples)), own, own, own]),
        columns=np.concatenate([place, corners[:, 0], corners[:, 1], corners[:, 2]]),
    )


@dataclass(frozen=True)
class PhotometricResiduals:
    """Colour residuals of a state at the K samples, and what their Jacobian needs. NumPy float32, camera space.

    Args:
        rotated: (U, 3) the vertices after rotation, before translation.
        edges: two (P, 3), from each triangle's first corner to its second and third.
        area: (K,) length of the summed face normals; normals: (K, 3) unit.
        points: (K, 3); scale: (K,) pixels per metre there.
        observed: (K, 9) the photograph's sRGB and its image gradients to the right and downwards.
        weight: (K,) the samples' weights times their projected area, 0 where not visible.
        albedo, shade, linear: (K, 3); basis: (K, 9) of the light; linear is albedo times shade.
        difference: (K, 3) predicted minus observed sRGB.
    """

    rotated: np.ndarray
    edges: tuple[np.ndarray, np.ndarray]
    area: np.ndarray
    normals: np.ndarray
    points: np.ndarray
    scale: np.ndarray
    observed: np.ndarray
    weight: np.ndarray
    albedo: np.ndarray
    shade: np.ndarray
    linear: np.ndarray
    basis: np.ndarray
    difference: np.ndarray


class PhotometricTerm:
    """A surface against one photograph.

    Args:
        surface: of the model.
        crop: (S, S, 3) float32 sRGB in 0..1.
        inside: (S, S) bool, where the crop shows the photograph.
        camera: of the crop.
        effective_samples: effective sample count at the noise level SIGMA_LIMITS[0], at most the number of samples. At
            higher noise levels residuals are correlated over larger patches, and the count falls (`effective_count`).
    """

    def __init__(
        self, surface: SurfaceSamples, crop: np.ndarray, inside: np.ndarray, camera: Camera, effective_samples: float
    ):
        self.surface, self.camera = surface, camera
        self.effective_samples = min(effective_samples, float(len(surface.weights)))
        down, across = np.gradient(crop, axis=(0, 1))
        self.picture = np.concatenate([crop, across, down, inside[..., None]], axis=-1, dtype=np.float32)
        self.sigma = SIGMA_LIMITS[1]

    def evaluate(self, state: FaceState) -> PhotometricResiduals:
        """Predict the colours of all samples and sample the photograph at their projections."""
        s, c, size = self.surface, self.camera, self.camera.image_size[0]
        rotation, light = state.rotation.astype(np.float32), state.light.astype(np.float32)
        weights = (s.gains(state.identity) * state.expression).astype(np.float32)
        shape = s.mean + (s.identity @ state.identity.astype(np.float32) + s.expression @ weights).reshape(-1, 3)
        rotated = shape @ rotation.T
        placed = rotated + state.translation.astype(np.float32)
        first, second, third = (placed[s.corners[:, k]] for k in range(3))
        edges = second - first, third - first
        summed = s.triangle_sum @ np.cross(*edges)
        area = np.maximum(np.linalg.norm(summed, axis=1), 1e-20)
        normals, points = summed / area[:, None], placed[s.sample_index]
        depth = np.maximum(-points[:, 2], 1e-3)
        scale = c.focal_px / depth
        x = c.principal_point_px[0] + scale * points[:, 0]
        y = c.principal_point_px[1] - scale * points[:, 1]
        found = sample_picture(self.picture, x, y)
        facing = -(normals * points).sum(1) / np.linalg.norm(points, axis=1)
        within = (x > 1) & (x < size - 1) & (y > 1) & (y < size - 1) & (found[:, 9] > 0.99)
        if s.mesh is None:
            clear = visible_points(points, normals, placed, c)
        else:
            clear = depth < self._depth_at(state, x, y) + OCCLUSION_TOLERANCE_M
        seen = within & (facing > MIN_FACING) & clear
        albedo, basis = s.colours(state.albedo), sh_basis(torch.from_numpy(normals)).numpy()
        shade = basis @ light
        linear = albedo * shade
        predicted = srgb_from_linear(torch.from_numpy(linear)).numpy()
        return PhotometricResiduals(
            rotated, edges, area, normals, points, scale, found[:, :9], s.weights * seen * area * facing * scale**2,
            albedo, shade, linear, basis, predicted - found[:, :3],
        )  # fmt: skip

    def _depth_at(self, state: FaceState, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(K,) metres, depth buffer at pixels; infinite where the head is not."""
        mesh, size = self.surface.mesh, self.camera.image_size[0]
        assert mesh is not None
        with torch.no_grad():
            vertices = mesh.vertices(state.tensor("identity"), state.tensor("expression"))
            posed = transform(vertices, state.tensor("rotation"), state.tensor("translation"))
            buffer = (
                rasterize(project(posed, self.camera), mesh.tensor("faces"), self.camera.image_size).depth[0].numpy()
            )
        depth = buffer[np.clip(y.astype(int), 0, size - 1), np.clip(x.astype(int), 0, size - 1)]
        return np.where(depth > 0, depth, np.inf)

    def update_noise_level(self, residuals: PhotometricResiduals) -> None:
        """Estimate the noise level `sigma`: 1.48 times the residuals' weighted median (MAD), within SIGMA_LIMITS."""
        used = residuals.weight > 0
        if used.sum() < 30:
            return
        difference, weight = np.sqrt((residuals.difference[used] ** 2).mean(1)), residuals.weight[used]
        self.sigma = float(np.clip(losses.SIGMA_PER_MAD * losses.weighted_median(difference, weight), *SIGMA_LIMITS))

    @property
    def effective_count(self) -> float:
        """Effective sample count at the estimated noise level."""
        return self.effective_samples * SIGMA_LIMITS[0] / self.sigma

    def loss(self, residuals: PhotometricResiduals, weight: np.ndarray | None = None) -> float:
        """Half the weighted mean of the Geman-McClure loss over the samples, times `effective_count`.

        Args:
            weight: (K,) in place of the residuals' own weights; samples with weight that are no longer visible count as
                outliers. Candidate steps are evaluated with the weights of the state they start from: otherwise the
                loss could fall by turning badly explained samples away from the camera.
        """
        square = (residuals.difference**2).mean(1) / self.sigma**2
        saturated = losses.geman_mcclure(square)
        if weight is None:
            weight = residuals.weight
        saturated[residuals.weight == 0] = losses.ROBUST_SCALE**2
        return 0.5 * self.effective_count * float((weight * saturated).sum() / max(weight.sum(), 1e-9))

    def normal_equations(
        self, state: FaceState, residuals: PhotometricResiduals, fit_focal: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gauss-Newton Hessian (T, T) and gradient (T,) of the loss.

        The unknowns are those of `BlockSizes`, then the logarithm of the focal length (if it is fitted).

        The derivative of the expression gain with respect to the identity is neglected: it is a small term.
        """
        square = (residuals.difference**2).mean(1) / self.sigma**2
        weight = residuals.weight * self.effective_count / (3 * self.sigma**2 * max(residuals.weight.sum(), 1e-9))
        root = losses.geman_mcclure_row_scale(square, weight).astype(np.float32)
        rows = np.flatnonzero(root > 0)
        jacobian = self.jacobian(state, residuals, root, rows)
        if fit_focal:  # projections move radially away from the principal point
            zoom = (_position_derivative(residuals, root)[..., :2] * residuals.points[:, :2]).sum(-1)[:, rows]
            jacobian = np.concatenate([jacobian, zoom.reshape(-1, 1)], axis=1)
        residual = (residuals.difference * root[:, None])[rows].T.reshape(-1).astype(np.float32)
        return (jacobian.T @ jacobian).astype(np.float64), (jacobian.T @ residual).astype(np.float64)

    def jacobian(
        self, state: FaceState, residuals: PhotometricResiduals, root: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """(3R, T) of the residuals at R of the samples, times root (K,); red first, then green and blue."""
        s, slope = self.surface, srgb_slope(torch.from_numpy(residuals.linear)).numpy() * root[:, None]
        shape, turn, shift = self._geometry_derivative(state, residuals, slope * residuals.albedo, root, rows)
        identity, expression, albedo, light = self.surface.sizes.blocks[1:]
        jacobian = np.zeros((3, len(rows), s.sizes.total), np.float32)
        jacobian[..., 0:3], jacobian[..., 3:6] = turn[:, rows], shift[:, rows]
        jacobian[..., identity] = (shape @ s.identity).reshape(3, len(rows), s.sizes.identity)
        expressed = (shape @ s.expression).reshape(3, len(rows), s.sizes.expression)
        jacobian[..., expression] = expressed * s.gains(state.identity)
        for channel in range(3):
            jacobian[channel, :, albedo] = (slope * residuals.shade)[rows, channel, None] * s.albedo[rows, channel]
            lit = (slope * residuals.albedo)[rows, channel, None] * residuals.basis[rows]
            jacobian[channel, :, light][:, channel::3] = lit
        return jacobian.reshape(3 * len(rows), s.sizes.total)

    def _geometry_derivative(
        self, state: FaceState, residuals: PhotometricResiduals, factor: np.ndarray, root: np.ndarray, rows: np.ndarray
    ):
        """Derivatives of the residuals: by head-space vertices (3R, 3U) sparse, by rotation and translation (3, K, 3).

        Args:
            factor: (K, 3) derivative of a residual by the shading of its channel.
        """
        s, count = self.surface, len(residuals.points)
        # A moving point samples the photograph at another pixel; a rotating normal changes the shading.
        moved = _position_derivative(residuals, root)
        bend = np.einsum("kbd,bc->ckd", sh_basis_gradient(torch.from_numpy(residuals.normals)).numpy(), state.light)
        bend = bend.astype(np.float32) * factor.T[..., None]
        bend = (bend - (bend * residuals.normals).sum(-1, keepdims=True) * residuals.normals) / residuals.area[:, None]
        own = s.rows[count : count + len(s.corners)]
        one, two = residuals.edges
        of_second, of_third = np.cross(two, bend[:, own]), np.cross(bend[:, own], one)
        blocks = np.concatenate([moved, -(of_second + of_third), of_second, of_third], axis=1)
        turn = np.cross(residuals.rotated[s.columns], blocks)
        turn = np.stack([_sum_per_sample(s, channel) for channel in turn])
        values = blocks @ state.rotation.astype(np.float32)
        columns = (3 * s.columns[:, None] + np.arange(3)).reshape(-1)
        first = np.repeat(s.rows, 3)
        matrix = sparse.csr_matrix(
            (values.reshape(-1), (np.concatenate([first + k * count for k in range(3)]), np.tile(columns, 3))),
            shape=(3 * count, s.mean.size),
        )
        return matrix[np.concatenate([rows + k * count for k in range(3)])], turn, moved


def _sum_per_sample(surface: SurfaceSamples, blocks: np.ndarray) -> np.ndarray:
    """Sum rows (K + 3P, 3) per sample (K, 3)."""
    count, pairs = len(surface.sample_index), len(surface.corners)
    triangles = blocks[count:].reshape(3, pairs, 3).sum(0)
    return blocks[:count] + surface.triangle_sum @ triangles


def _position_derivative(residuals: PhotometricResiduals, root: np.ndarray) -> np.ndarray:
    """(3 channels, K, 3) derivative of the residuals by the samples' camera-space positions, times root (K,)."""
    scaled = root * residuals.scale
    across, down = (residuals.observed[:, 3:6] * scaled[:, None]).T, (residuals.observed[:, 6:9] * scaled[:, None]).T
    depth = np.maximum(-residuals.points[:, 2], 1e-3)
    along = down * (residuals.points[:, 1] / depth) - across * (residuals.points[:, 0] / depth)
    return np.stack([-across, down, along], axis=-1)


def sample_picture(picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(K, C) bilinear samples of a picture (H, W, C) at pixel coordinates (K,), clamped to its border."""
    height, width = picture.shape[:2]
    x, y = np.clip(x - 0.5, 0, width - 1.001), np.clip(y - 0.5, 0, height - 1.001)
    left, top = x.astype(int), y.astype(int)
    right, low = (x - left)[:, None].astype(np.float32), (y - top)[:, None].astype(np.float32)
    upper = picture[top, left] * (1 - right) + picture[top, left + 1] * right
    lower = picture[top + 1, left] * (1 - right) + picture[top + 1, left + 1] * right
    return upper * (1 - low) + lower * low
