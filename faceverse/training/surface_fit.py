"""Fit the linear model to surface points: pose, identity and expression, by point-to-plane ICP.

Correspondences run from each scan point to the closest point of the model, not the other way round: holes then give no
correspondences, noise averages out over all points, and point clouds need neither triangles nor normals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial.transform import Rotation

from ..errors import FaceVerseError, ParameterError
from ..messages import reason_of
from ..model.data import closest_barycentric
from ..model.face_model import FaceModel
from .shape_population import rigid_fit

# Weight of a correspondence by region; hair, collars and the specular surface of the eyes are no skin.
REGION_WEIGHTS = {"face": 1.0, "lips": 1.0, "eyelids": 1.0, "ears": 0.5, "neck": 0.25, "scalp": 0.15}
FACE_REGIONS = ("face", "lips", "eyelids")
SMALLEST_SIGMA_M = 2e-4
# Residuals of neighbouring scan points are correlated through the model's limited span: effective sample count. A
# larger one brings the surfaces closer, a smaller one keeps vertices at their anatomical positions.
EFFECTIVE_POINTS, POINTS_FOR_REACH = 1200.0, 4000.0
NORMAL_AGREEMENT = 0.5  # least cosine between the normals of corresponding points
LANDMARK_SIGMA_M = 4e-3  # of landmarks detected in renderings
EFFECTIVE_LANDMARKS = 60.0  # effective sample count of the landmarks
SIZE_SIGMA = 0.05  # relative scale error of the initial landmark alignment


@dataclass(frozen=True)
class SurfacePoints:
    """P points sampled from a surface.

    Args:
        points: (P, 3) metres.
        normals: (P, 3) unit length, outward; None if unknown.
    """

    points: np.ndarray
    normals: np.ndarray | None = None

    def transformed(self, matrix: np.ndarray, translation: np.ndarray) -> SurfacePoints:
        """Transform all points x to matrix @ x + translation; the matrix (3, 3) is a scaled rotation."""
        scale = np.cbrt(np.linalg.det(matrix))
        normals = None if self.normals is None else self.normals @ (matrix / scale).T
        return SurfacePoints(self.points @ matrix.T + translation, normals)

    def select(self, rows: np.ndarray) -> SurfacePoints:
        """Select points by index or mask."""
        return SurfacePoints(self.points[rows], None if self.normals is None else self.normals[rows])


@dataclass(frozen=True)
class ClosestPoints:
    """Closest points of P points on a mesh.

    Args:
        triangle: (P,) the closest triangle.
        barycentric: (P, 3) coordinates in it.
        normals: (P, 3) interpolated mesh normals there, unit length.
        offset: (P,) metres from the mesh to the points along the normals.
        distance: (P,) metres.
    """

    triangle: np.ndarray
    barycentric: np.ndarray
    normals: np.ndarray
    offset: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class SurfaceFit:
    """The model fitted to a scan.

    Args:
        identity: (I,); expression: (E,).
        matrix, translation: (3, 3) scaled rotation and (3,): head space = scan @ matrix.T + translation.
        vertices: (V, 3) metres, head space.
        sigma: metres, robust standard deviation of the scan's points from the model.
        size: of the scan in head space, relative to the initial alignment.
    """

    identity: np.ndarray
    expression: np.ndarray
    matrix: np.ndarray
    translation: np.ndarray
    vertices: np.ndarray
    sigma: float
    size: float = 1.0


@dataclass(frozen=True)
class FitTask:
    """Settings of `fit_model`.

    Args:
        expression: (E,) 0..1, prior mean of the weights.
        expression_sigma: (E,) prior standard deviation; 0 fixes a weight.
        scale: whether to estimate the scan's scale.
        reach_m: correspondence distance limit at the first and the last iteration.
        iterations: number of point-to-plane steps.
        points: number of the scan's points used.
        effective_points: effective sample count of the model error, see EFFECTIVE_POINTS.
        noise_m: standard deviation of the scan's noise, which is independent between points.
        landmarks: (L, 3) detected in the scan, in the order of the model's 478; not finite where undetected.
    """

    expression: np.ndarray
    expression_sigma: np.ndarray
    scale: bool = False
    reach_m: tuple[float, float] = (0.02, 0.006)
    iterations: int = 18
    points: int = 8000
    effective_points: float = EFFECTIVE_POINTS
    noise_m: float = 0.0
    landmarks: np.ndarray | None = None


# -- meshes -----------------------------------------------------------------------------------------------------------
def require_igl():
    """Import the package igl, which computes closest points on a mesh.

    Raises:
        FaceVerseError: it is not installed.
    """
    try:
        import igl
    except ImportError as error:
        raise FaceVerseError("scan.no_libigl", reason=reason_of(error)) from error
    return igl


def mesh_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) area-weighted unit normals, float64."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    total = np.stack(
        [np.bincount(faces.reshape(-1), np.repeat(normal[:, k], 3), len(vertices)) for k in range(3)], axis=1
    )
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-20)


def closest_points(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> ClosestPoints:
    """Find the closest points on a mesh (V, 3), (F, 3) for points (P, 3)."""
    squared, triangle, closest = require_igl().point_mesh_squared_distance(
        np.ascontiguousarray(points, np.float64),
        np.ascontiguousarray(vertices, np.float64),
        np.ascontiguousarray(faces, np.int64),
    )
    corners = faces[triangle]
    barycentric = closest_barycentric(closest, vertices[corners].astype(np.float64))
    normals = (mesh_normals(vertices, faces)[corners] * barycentric[..., None]).sum(1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    offset = ((points - closest) * normals).sum(1)
    return ClosestPoints(triangle, barycentric, normals, offset, np.sqrt(squared))


def subsample(points: SurfacePoints, count: int) -> SurfacePoints:
    """Subsample at most `count` of the points, deterministically."""
    if len(points.points) <= count:
        return points
    return points.select(np.random.default_rng(0).permutation(len(points.points))[:count])


class ModelSurface:
    """The parts of a model's surface that scans show, with correspondence weights."""

    def __init__(self, model: FaceModel):
        self.model = model
        self.faces = model.faces
        count = len(model.mean_vertices)
        vertex_weights, face = np.zeros(count), np.zeros(count, bool)
        for name, value in REGION_WEIGHTS.items():
            vertex_weights[model.regions[name]] = value
        for name in FACE_REGIONS:
            face[model.regions[name]] = True
        self.vertex_weights, self.face_vertices = vertex_weights, face
        self.triangle_weights = vertex_weights[self.faces].min(1)
        self.face_triangles = face[self.faces].all(1)
        sides = np.sort(self.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        edges, times = np.unique(sides, axis=0, return_counts=True)
        border = np.zeros(count, bool)
        border[edges[times == 1]] = True
        self.triangle_weights[border[self.faces].any(1)] = (
            0  # the rim is the closest point of everything beyond the collar
        )

    def weights(self, contact: ClosestPoints, normals: np.ndarray | None, reach_m: float) -> np.ndarray:
        """(P,) 0..1: weight of each correspondence, 0 for incompatible surfaces."""
        weight = self.triangle_weights[contact.triangle] * (contact.distance < reach_m)
        if normals is not None:
            weight = weight * ((normals * contact.normals).sum(1) > NORMAL_AGREEMENT)
        return weight


# -- the fit ----------------------------------------------------------------------------------------------------------
def fit_model(
    surface: ModelSurface, points: SurfacePoints, matrix: np.ndarray, translation: np.ndarray, task: FitTask
) -> SurfaceFit:
    """Fit pose, identity and expression of the model to a roughly aligned scan.

    Args:
        points: of the scan, in its own space.
        matrix, translation: initial scan to head space: head = scan @ matrix.T + translation.
    """
    points = subsample(points, task.points)
    model = surface.model
    modes = np.concatenate([model.identity_modes, model.expression_modes]).astype(np.float64)
    modes = np.ascontiguousarray(modes.transpose(1, 0, 2)).reshape(len(model.mean_vertices), -1)
    state = SurfaceFit(
        np.zeros(len(model.identity_modes)), task.expression.astype(np.float64), matrix, translation,
        _vertices(model, modes, np.zeros(len(model.identity_modes)), task.expression), task.reach_m[0] / 3,
    )  # fmt: skip
    for reach in np.geomspace(*task.reach_m, task.iterations):
        state = _step(surface, points, modes, state, task, reach * state.size)
    return state


def _vertices(model: FaceModel, modes: np.ndarray, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """(V, 3) float64: the same model as `FaceModel.vertices`, on modes (V, (I + E) * 3)."""
    coefficients = np.concatenate([identity, model.gain_of(identity) * expression])
    return model.mean_vertices + modes @ np.kron(coefficients[:, None], np.eye(3))


def _step(
    surface: ModelSurface, points: SurfacePoints, modes: np.ndarray, state: SurfaceFit, task: FitTask, reach: float
) -> SurfaceFit:
    """One point-to-plane Gauss-Newton step in rotation, translation, scale, identity and expression."""
    transformed = points.transformed(state.matrix, state.translation)
    contact = closest_points(transformed.points, state.vertices, surface.faces)
    weight = surface.weights(contact, transformed.normals, reach)
    used = weight > 0
    if used.sum() < 50:
        raise ParameterError("scan.far_from_face")
    offset, robust_weight = contact.offset[used], weight[used]
    inner = offset[robust_weight >= 1] if (robust_weight >= 1).any() else offset
    sigma = max(1.4826 * float(np.median(np.abs(inner))), SMALLEST_SIGMA_M * state.size)
    robust_weight = robust_weight * np.clip(1 - (offset / (4.0 * sigma)) ** 2, 0, None) ** 2  # Tukey's biweight
    root = np.sqrt(robust_weight / used.sum() / _variance_of_mean(sigma, int(used.sum()), task))
    normals = contact.normals[used]
    gain = np.concatenate([np.ones(len(state.identity)), surface.model.gain_of(state.identity)])
    columns = _columns(surface, modes, contact, used) * gain
    x = transformed.points[used]
    centre = x.mean(0)
    # The derivative of the distance at the scan's own scale: otherwise shrinking both surfaces would lower the error.
    turn, size = np.cross(x - centre, normals), (((x - centre) * normals).sum(1) - offset)[:, None]
    # A residual is normal . (scan point - model point): moving the scan adds, moving the model subtracts.
    jacobian = np.concatenate([turn, normals, size, -columns], axis=1) * root[:, None]
    hessian, gradient = jacobian.T @ jacobian, jacobian.T @ (root * offset)
    if task.landmarks is not None:
        _add_landmarks(surface, (modes, gain), state, task, centre, (hessian, gradient))
    return _solve(surface.model, modes, state, task, (hessian, gradient, centre, sigma))


def _variance_of_mean(sigma: float, count: int, task: FitTask) -> float:
    """m^2: variance of the mean of `count` offsets of deviation sigma, from model error and from noise."""
    lacking = max(sigma**2 - task.noise_m**2, (0.3 * sigma) ** 2)
    return lacking / min(task.effective_points, count) + min(task.noise_m, sigma) ** 2 / count


def _columns(surface: ModelSurface, modes: np.ndarray, contact: ClosestPoints, used: np.ndarray) -> np.ndarray:
    """(P, I + E) metres by which each mode moves the model's closest points along the normal."""
    corners, weights = surface.faces[contact.triangle[used]], contact.barycentric[used]
    rows = np.repeat(np.arange(len(corners)), 3)
    gather = csr_matrix((weights.reshape(-1), (rows, corners.reshape(-1))), shape=(len(corners), len(modes)))
    at_points = (gather @ modes).reshape(len(corners), -1, 3)
    return np.matmul(at_points, contact.normals[used][:, :, None])[..., 0]


def _add_landmarks(surface: ModelSurface, basis, state: SurfaceFit, task: FitTask, centre, system) -> None:
    """Add point-to-point landmark residuals, along all three axes, to the normal equations."""
    (modes, gain), (hessian, gradient) = basis, system
    places = surface.model.landmarks_478
    assert places is not None and task.landmarks is not None
    found = np.isfinite(task.landmarks).all(1)
    corners, weights = surface.faces[places.triangle[found]], places.barycentric[found].astype(np.float64)
    on_model = (state.vertices[corners] * weights[..., None]).sum(1)
    x = task.landmarks[found] @ state.matrix.T + state.translation
    residual = x - on_model
    root = np.sqrt(EFFECTIVE_LANDMARKS / max(found.sum(), 1)) / np.hypot(LANDMARK_SIGMA_M, places.sigma[found])
    root = root / np.sqrt(1 + (np.linalg.norm(residual, axis=1) * root / root.max() / 0.01) ** 2)
    at_points = np.einsum("lc,lckx->lkx", weights, modes.reshape(len(modes), -1, 3)[corners], optimize=True)
    for axis in range(3):
        unit = np.eye(3)[axis]
        turn = np.cross(x - centre, np.tile(unit, (len(x), 1)))
        jacobian = np.concatenate(
            [turn, np.tile(unit, (len(x), 1)), (on_model - centre)[:, [axis]], -at_points[:, :, axis] * gain], axis=1
        )
        jacobian *= root[:, None]
        hessian += jacobian.T @ jacobian
        gradient += jacobian.T @ (root * residual[:, axis])


def _solve(model: FaceModel, modes: np.ndarray, state: SurfaceFit, task: FitTask, system) -> SurfaceFit:
    """Solve the regularised normal equations with expression weights bounded to 0..1 (active set)."""
    hessian, gradient, centre, sigma = system
    count = len(state.identity)
    first = 7 + count
    diagonal = np.einsum("ii->i", hessian)
    diagonal[:7] += 1e-9
    diagonal[6] += 1 / SIZE_SIGMA**2
    gradient[6] += np.log(state.size) / SIZE_SIGMA**2
    diagonal[7:first] += 1.0
    gradient[7:first] += state.identity
    free = np.ones(len(gradient), bool)
    free[6] = task.scale
    loose = task.expression_sigma > 0
    free[first:] = loose
    strength = np.where(loose, 1 / np.maximum(task.expression_sigma, 1e-6) ** 2, 0.0)
    diagonal[first:] += strength
    gradient[first:] += strength * (state.expression - task.expression)
    delta = np.zeros(len(gradient))
    for _ in range(4):
        fixed = ~free
        rhs = -gradient[free] - hessian[np.ix_(free, fixed)] @ delta[fixed]
        delta[free] = np.linalg.solve(hessian[np.ix_(free, free)], rhs)
        target = state.expression + delta[first:]
        leaving = ((target < -1e-9) | (target > 1 + 1e-9)) & free[first:]
        if not leaving.any():
            break
        delta[first:][leaving] = (np.clip(target, 0, 1) - state.expression)[leaving]
        free[first:] &= ~leaving
    motion = (1 + delta[6]) * Rotation.from_rotvec(delta[:3]).as_matrix()
    identity, expression = state.identity + delta[7:first], np.clip(state.expression + delta[first:], 0, 1)
    return replace(
        state,
        identity=identity,
        expression=expression,
        matrix=motion @ state.matrix,
        size=(1 + delta[6]) * state.size,
        translation=motion @ (state.translation - centre) + centre + delta[3:6],
        vertices=_vertices(model, modes, identity, expression),
        sigma=sigma,
    )


# -- representation error ---------------------------------------------------------------------------------------------
def fit_to_surface(
    model: FaceModel,
    vertices: np.ndarray,
    faces: np.ndarray | None,
    matrix: np.ndarray | None = None,
    translation: np.ndarray | None = None,
    *,
    scale: bool = True,
) -> tuple[np.ndarray, float]:
    """Fit the closest neutral head of the model to a scan: identity and a similarity transform only.

    Args:
        vertices: (S, 3) of the scan, in any unit; unreferenced vertices are ignored if there are triangles.
        faces: (F, 3), or None for a point cloud.
        matrix, translation: rough alignment, head space in metres = scan @ matrix.T + translation; by default the
            scan already lies in head space.
        scale: whether to estimate the scale.

    Returns:
        The fitted head (V, 3) in the space of the scan, and the mean distance in metres, at the scale of the initial
        alignment, of the scan's face points to its surface: those whose closest point on the model lies in the face.
    """
    surface = ModelSurface(model)
    vertices = np.asarray(vertices, np.float64)
    normals = None
    if faces is not None:
        used = np.unique(faces)
        normals = mesh_normals(vertices, np.asarray(faces))[used]
        vertices = vertices[used]
    points = SurfacePoints(vertices, normals)
    nothing = np.zeros(len(model.expression_modes))
    task = FitTask(nothing, nothing, scale=scale, iterations=25, points=12000, effective_points=POINTS_FOR_REACH)
    matrix = np.eye(3) if matrix is None else np.asarray(matrix, np.float64)
    translation = np.zeros(3) if translation is None else np.asarray(translation, np.float64)
    fit = fit_model(surface, points, matrix, translation, task)
    reach = task.reach_m[1] * fit.size
    distance = face_distances(surface, points.transformed(fit.matrix, fit.translation), fit.vertices, reach)
    back = np.linalg.inv(fit.matrix)
    return (fit.vertices - fit.translation) @ back.T, float(distance.mean()) / fit.size


def face_distances(
    surface: ModelSurface, points: SurfacePoints, vertices: np.ndarray, reach_m: float = np.inf
) -> np.ndarray:
    """(K,) metres: distances of the scan's face points (head space) to the corresponding head (V, 3)."""
    contact = closest_points(points.points, vertices, surface.faces)
    weight = surface.weights(contact, points.normals, reach_m)
    return contact.distance[(weight > 0) & surface.face_triangles[contact.triangle]]


def align_landmarks(model: FaceModel, landmarks: np.ndarray, rows: np.ndarray, *, scale: bool = True):
    """Align a scan's landmarks (478, 3) to the mean head's with a similarity: matrix (3, 3), translation (3,).

    Also returns the residual median distance in metres. Only `rows` are used, and the worst third of them is excluded
    as outliers after the first round, because single landmarks may lie on hair or in holes.
    """
    places = model.landmarks_478
    assert places is not None
    target = (model.mean_vertices[model.faces[places.triangle]] * places.barycentric[..., None]).sum(1)
    rows = rows[np.isfinite(landmarks[rows]).all(1)]
    if len(rows) < 20:
        raise ParameterError("scan.few_landmarks", found=len(rows))
    chosen = rows
    for _ in range(3):
        matrix, translation = rigid_fit(landmarks[chosen], target[chosen].astype(np.float64), scale=scale)
        distance = np.linalg.norm(landmarks[rows] @ matrix.T + translation - target[rows], axis=1)
        chosen = rows[distance <= np.quantile(distance, 0.67)]
    return matrix, translation, float(np.median(distance))
