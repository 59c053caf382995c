"""Non-rigid ICP: register a fitted head to a scan with a smooth coarse deformation, then normal displacement.

The unknowns are the coarse control vertices; the correspondences lie on the subdivided surface. Stiffness is a length:
narrower features of the deformation are smoothed away. It decreases from step to step (optimal-step ICP, Amberg et al.
2007, with the bending energy of the deformation in place of their affine maps).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags, eye, hstack, kron
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from ..graphics.mesh import subdivision, subdivision_matrix, unique_edges
from ..model.face_model import FaceModel
from .surface_fit import ModelSurface, SurfacePoints, closest_points, mesh_normals, require_igl, subsample

STIFFNESS_M = (0.030, 0.016, 0.009, 0.006, 0.0045)
REACH_M = (0.008, 0.006, 0.005, 0.004, 0.004)
DISPLACEMENT_STIFFNESS_M = 0.0020
LARGEST_DISPLACEMENT_M = 0.002
DAMPING = 1e-4  # Tikhonov weight against sliding along the surface, relative to the data
POINTS = 40_000
FULL_DENSITY = 0.5  # point density at a vertex, relative to the scan's own, from which it counts as fully observed
PART_NEIGHBOURS = 60


@dataclass(frozen=True)
class NonrigidResult:
    """Result of the non-rigid registration.

    Args:
        displacement: (Vc, 3) metres, of the coarse control mesh beyond the model's own shape.
        vertices: (V, 3) metres, the subdivided surface with normal displacement.
        weights: (V,) 0..1, how well the scan observes the surface there.
    """

    displacement: np.ndarray
    vertices: np.ndarray
    weights: np.ndarray


class NonrigidSolver:
    """Topology-dependent operators of a model for `fit_nonrigid`; built once, used for many scans."""

    def __init__(self, model: FaceModel):
        self.model, self.surface = model, ModelSurface(model)
        data = model.data
        if data.coarse_faces is None:
            self.coarse_faces, self.matrix = model.faces, eye(len(model.mean_vertices), format="csr")
        else:
            halves = data.coarse_faces.reshape(-1, 2, 3)
            quads = np.concatenate([halves[:, 0], halves[:, 1, 2:]], axis=1)
            self.coarse_faces = data.coarse_faces
            assert data.coarse_vertices is not None
            self.matrix = subdivision_matrix(subdivision(quads, len(data.coarse_vertices)))

    @property
    def coarse_count(self) -> int:
        """Vc."""
        return self.matrix.shape[1]

    @cached_property
    def _neighbourhood(self) -> csr_matrix:
        """(V, V) number of paths of up to two edges between two vertices."""
        edges = unique_edges(self.model.faces)
        links = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(self.model.mean_vertices),) * 2)
        near = (links + links.T + eye(links.shape[0])).tocsr()
        return near @ near

    def spread(self, seen: np.ndarray, area: np.ndarray) -> np.ndarray:
        """Average shares (V,) 0..1 over vertex neighbourhoods, because small vertices may lack correspondences."""
        return (self._neighbourhood @ (seen * area)) / (self._neighbourhood @ area)

    @cached_property
    def parts(self) -> np.ndarray:
        """(Vc,) label of the connected component of the coarse mesh; 0 is the skin."""
        faces = self.coarse_faces
        sides = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).T
        links = coo_matrix((np.ones(sides.shape[1]), sides), shape=(self.coarse_count,) * 2)
        label = connected_components(links, directed=False)[1]
        face = np.flatnonzero(self.surface.face_vertices[: self.coarse_count])
        skin = np.bincount(label[face]).argmax()
        return np.where(label == skin, 0, np.where(label == 0, skin, label))

    @cached_property
    def bending(self) -> csr_matrix:
        """(Vc, Vc) bending energy of a coarse deformation, per m^2."""
        mean = np.ascontiguousarray(self.model.mean_vertices[: self.coarse_count], np.float64)
        return bending_energy(mean, self.coarse_faces)

    @cached_property
    def fine_bending(self) -> csr_matrix:
        """(V, V) bending energy on the fine mesh."""
        return bending_energy(np.ascontiguousarray(self.model.mean_vertices, np.float64), self.model.faces)


def bending_energy(vertices: np.ndarray, faces: np.ndarray) -> csr_matrix:
    """Bending energy L^T M^-1 L of the cotangent Laplacian: a function's squared Laplacian, integrated over a mesh."""
    laplacian = require_igl().cotmatrix(vertices, np.ascontiguousarray(faces, np.int64))
    return (laplacian.T @ diags(1 / vertex_areas(vertices, faces)) @ laplacian).tocsr()


def vertex_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) m^2, a third of the triangles around each vertex; bounded away from zero."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return np.maximum(np.bincount(faces.reshape(-1), np.repeat(area / 3, 3), len(vertices)), 1e-10)


# -- bending ----------------------------------------------------------------------------------------------------------
def fit_nonrigid(
    solver: NonrigidSolver, vertices: np.ndarray, points: SurfacePoints, finest_m: float = 0.0
) -> NonrigidResult:
    """Register a fitted head to a scan non-rigidly.

    Args:
        vertices: (V, 3) metres, head space, the model's fit to the scan; its first Vc vertices are not the control
            mesh.
        points: of the scan, head space, evenly sampled.
        finest_m: narrower features are treated as noise.
    """
    coarse = np.zeros((solver.coarse_count, 3))
    start = vertices.astype(np.float64)
    for stiffness, reach in zip(STIFFNESS_M, REACH_M, strict=True):
        now = start + solver.matrix @ coarse
        seen, offset = vertex_residuals(solver.surface, now, subsample(points, POINTS), reach)
        coarse = _solve(solver, now, (seen, offset), coarse, max(stiffness, finest_m))
    coarse = with_parts(solver, coarse)
    now = start + solver.matrix @ coarse
    seen, offset = vertex_residuals(solver.surface, now, points, REACH_M[-1])
    vertices = now + _displacement(solver, now, (seen, offset), max(DISPLACEMENT_STIFFNESS_M, finest_m))
    return NonrigidResult(coarse, vertices, solver.spread(seen, vertex_areas(now, solver.model.faces)))


def vertex_residuals(surface: ModelSurface, vertices: np.ndarray, points: SurfacePoints, reach_m: float):
    """Average the scan's point-to-plane residuals at each vertex of a head.

    Returns:
        (V,) 0..1 observed share of the surface around a vertex (times the weight of its region), and (V,) metres along
        the normal from the vertex to the scan.
    """
    contact = closest_points(points.points, vertices, surface.faces)
    weight = surface.weights(contact, points.normals, reach_m)
    inner = (weight > 0) & surface.face_triangles[contact.triangle]
    spread = 1.4826 * np.median(np.abs(contact.offset[inner])) if inner.any() else reach_m
    weight = weight * np.clip(1 - (contact.offset / max(5 * spread, 1e-3)) ** 2, 0, None) ** 2
    corners = surface.faces[contact.triangle]
    share = weight[:, None] * contact.barycentric
    count = len(vertices)
    total = np.bincount(corners.reshape(-1), share.reshape(-1), count)
    offset = np.bincount(corners.reshape(-1), (share * contact.offset[:, None]).reshape(-1), count)
    density = total / vertex_areas(vertices, surface.faces)
    face = surface.face_vertices & (density > 0)
    full = FULL_DENSITY * total[face].sum() / vertex_areas(vertices, surface.faces)[face].sum() if face.any() else 1.0
    seen = np.clip(density / full, 0, 1) * np.minimum(1.0, surface.vertex_weights)
    return seen, offset / np.maximum(total, 1e-12)


def _solve(solver: NonrigidSolver, vertices: np.ndarray, data, coarse: np.ndarray, stiffness_m: float) -> np.ndarray:
    """Solve for the deformation (Vc, 3) of the coarse mesh, smooth over stiffness_m, that fits the measured offsets."""
    seen, offset = data
    normals = mesh_normals(vertices, solver.model.faces)
    area = vertex_areas(vertices, solver.model.faces)
    skin = np.flatnonzero(solver.parts == 0)
    used = np.flatnonzero(seen > 0)
    rule = solver.matrix[used][:, skin]
    rows = hstack([diags(normals[used, axis]) @ rule for axis in range(3)]).tocsr()
    weight = seen[used] * area[used]
    target = offset[used] + (normals[used] * (solver.matrix[used] @ coarse)).sum(1)
    smooth = stiffness_m**4 * solver.bending[skin][:, skin] + DAMPING * diags(np.full(len(skin), area.mean()))
    system = rows.T @ diags(weight) @ rows + kron(eye(3), smooth)
    solution = _solve_definite(system, rows.T @ (weight * target))
    result = coarse.copy()
    result[skin] = solution.reshape(3, -1).T
    return result


def _solve_definite(system: csr_matrix, right: np.ndarray) -> np.ndarray:
    """Solve a symmetric positive definite system without pivoting."""
    options = {"SymmetricMode": True}
    return splu(system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).solve(right)


def with_parts(solver: NonrigidSolver, coarse: np.ndarray) -> np.ndarray:
    """Extend the deformation (Vc, 3) to eyeballs, teeth and tongue, each translated with the skin around it."""
    mean = solver.model.mean_vertices[: solver.coarse_count]
    near_skin = np.flatnonzero((solver.parts == 0) & solver.surface.face_vertices[: solver.coarse_count])
    tree = cKDTree(mean[near_skin])
    result = coarse.copy()
    for part in np.setdiff1d(np.unique(solver.parts), [0]):
        rows = np.flatnonzero(solver.parts == part)
        _, neighbours = tree.query(mean[rows].mean(0), k=min(PART_NEIGHBOURS, len(near_skin)))
        result[rows] = coarse[near_skin[neighbours]].mean(0)
    return result


def _displacement(solver: NonrigidSolver, vertices: np.ndarray, data, stiffness_m: float) -> np.ndarray:
    """(V, 3) displacement of the fine mesh along its normals: the residual of the coarse deformation."""
    seen, offset = data
    area = vertex_areas(vertices, solver.model.faces)
    weight = seen * area
    system = diags(weight + DAMPING * area.mean()) + stiffness_m**4 * solver.fine_bending
    height = _solve_definite(system, weight * offset)
    height = np.clip(height, -LARGEST_DISPLACEMENT_M, LARGEST_DISPLACEMENT_M)
    return mesh_normals(vertices, solver.model.faces) * height[:, None]
