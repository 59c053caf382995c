"""Register a scan to the model's topology and check the quality of the result.

Steps: the face is detected in renderings (scan_landmarks), the model is fitted to the surface (surface_fit), the fitted
head is deformed to it (nonrigid), colours are sampled. A scan that fails the checks raises ScanError with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ..messages import Message
from ..model.face_model import FaceModel, FaceParams
from .nonrigid import NonrigidResult, NonrigidSolver, fit_nonrigid
from .scan_files import Scan, ScanError, merge_scans, transformed
from .scan_landmarks import FaceInScan, find_face
from .surface_fit import FitTask, ModelSurface, SurfaceFit, SurfacePoints, closest_points, face_distances, fit_model

HEAD_RADIUS_M = 0.20  # points farther from the head's origin are ignored
SAMPLES = 60_000
FEWEST_POINTS = 1000  # on a head; with fewer, the model's prior would dominate the face
# Expressions that a neutral scan may contain by accident; the others cannot be separated from identity.
ACCIDENTAL_EXPRESSIONS = ("eyeBlinkLeft", "eyeBlinkRight", "jawOpen")
EXPRESSION_SIGMA = 0.15  # prior deviation of a weight from the detector's score
FRAME_ROUNDS = 5
# Rejection thresholds.
LARGEST_MODEL_MM, LARGEST_MEAN_MM, SMALLEST_COVERAGE = 3.0, 1.0, 0.4
NOISE_SHARE = 1.0  # tolerance for noisy scans, in standard deviations of their noise
TARGET_NOISE_M = 1.5e-4  # noise is averaged over enough points to fall below this
PLANE_M = 0.0035
COLOR_REACH_M = 0.002
LEAST_COLOR_WEIGHT = 0.3


@dataclass(frozen=True)
class RegistrationReport:
    """Quality metrics of a registration; distances in millimetres from the scan's face points to the surface.

    Args:
        mean_mm, median_mm, p95_mm: of the registered head.
        model_mm: mean, of the model fit before the non-rigid step.
        landmark_mm: median distance of the landmarks to the mean head's after alignment.
        noise_mm: standard deviation of the scan's points from their own smoothed surface.
        coverage: 0..1, share of the face's vertices that the scan observes.
        unit_m: metres per unit of the scan; 0 for an unusual unit, whose scale was estimated.
        points: number of the scan's points on the head.
        frames: number of frames used.
        largest_expression: weight 0..1 of the strongest estimated expression.
        seconds: run time.
    """

    mean_mm: float
    median_mm: float
    p95_mm: float
    model_mm: float
    landmark_mm: float
    noise_mm: float
    coverage: float
    unit_m: float
    points: int
    frames: int
    largest_expression: float
    seconds: float

    def row(self) -> dict[str, str]:
        """The metrics as text, by name."""
        return {f.name: f"{getattr(self, f.name):.4g}" for f in fields(self)}


@dataclass(frozen=True)
class Registration:
    """A scan in the model's topology, head space.

    Args:
        vertices: (V, 3) float32 metres.
        displacement: (Vc, 3) float32 metres, of the coarse control mesh beyond `params`; without normal displacement.
        params: identity and expression of the fitted model.
        matrix, translation: scan to head space, metres: head = scan @ matrix.T + translation (scaled rotation).
        albedo: (V, 3) float32 linear RGB, NaN where the scan does not show skin; None without colours.
        weights: (V,) float32 0..1, how well the scan observes the surface there.
        report: quality metrics.
    """

    vertices: np.ndarray
    displacement: np.ndarray
    params: FaceParams
    matrix: np.ndarray
    translation: np.ndarray
    albedo: np.ndarray | None
    weights: np.ndarray
    report: RegistrationReport


@lru_cache(maxsize=2)
def solver_of(model: FaceModel) -> NonrigidSolver:
    """The model's `NonrigidSolver`, cached for the next scan."""
    return NonrigidSolver(model)


def register(scan: Scan | Sequence[Scan], model: FaceModel, *, neutral: bool = True) -> Registration:
    """Register a scan to the model's topology.

    Args:
        scan: of any unit and orientation; or several frames of one head with unknown poses.
        model: the face model.
        neutral: assume a neutral face: only closed lids and an open jaw are estimated as expressions, everything else
            is attributed to identity.

    Raises:
        ScanError: there is no face, or the result fails the quality checks; the message is the reason.
    """
    started = time.perf_counter()
    frames = [scan] if isinstance(scan, Scan) else list(scan)
    if sum(len(frame.vertices) for frame in frames) < FEWEST_POINTS:
        count = sum(len(frame.vertices) for frame in frames)
        raise ScanError("scan.few_points", found=count, fewest=FEWEST_POINTS)
    solver = solver_of(model)
    used, scan, found = _merge_frames(frames, model, solver.surface)
    head = transformed(scan, found.matrix, found.translation)
    points = head_points(head)
    noise, spacing = roughness(head)
    task = replace(_task(model, found, neutral), noise_m=noise)
    fit = fit_model(solver.surface, points, np.eye(3), np.zeros(3), task)
    head, points = transformed(head, fit.matrix, fit.translation), points.transformed(fit.matrix, fit.translation)
    deformed = fit_nonrigid(solver, fit.vertices, points, finest_m=spacing * noise / TARGET_NOISE_M)
    report = _report(solver.surface, points, fit, deformed)
    report = replace(
        report,
        landmark_mm=1e3 * found.error_m,
        noise_mm=1e3 * noise,
        unit_m=found.unit_m or 0.0,
        points=len(head.vertices),
        frames=used,
        seconds=time.perf_counter() - started,
    )
    check_quality(report)
    params = model.neutral().replace(identity=_float(fit.identity), expression=_float(fit.expression))
    return Registration(
        vertices=_float(deformed.vertices),
        displacement=_float(deformed.displacement),
        params=params,
        matrix=fit.matrix @ found.matrix,
        translation=fit.matrix @ found.translation + fit.translation,
        albedo=read_albedo(solver.surface, head, deformed) if scan.has_color else None,
        weights=_float(deformed.weights),
        report=report,
    )


def _float(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)


def _task(model: FaceModel, found: FaceInScan, neutral: bool) -> FitTask:
    """Settings of the model fit, with a prior on expressions from the detector's scores."""
    names = model.expression_names
    free = np.array([not neutral or name in ACCIDENTAL_EXPRESSIONS for name in names])
    scores = np.array([found.blendshapes.get(name, 0.0) for name in names])
    landmarks = found.landmarks @ found.matrix.T + found.translation
    return FitTask(scores * free, EXPRESSION_SIGMA * free, scale=found.unit_m is None, landmarks=landmarks)


# -- points -----------------------------------------------------------------------------------------------------------
def head_points(head: Scan, count: int = SAMPLES) -> SurfacePoints:
    """Sample at most `count` points evenly over a scan in head space, deterministically.

    Triangles at the border of a scan are excluded, because they are least reliable.

    Raises:
        ScanError: too little of it is a head.
    """
    near = np.linalg.norm(head.vertices, axis=1) < HEAD_RADIUS_M
    if near.sum() < FEWEST_POINTS:
        raise ScanError("scan.few_head_points", found=near.sum(), fewest=FEWEST_POINTS)
    rng = np.random.default_rng(0)
    if head.faces is None:
        rows = rng.permutation(np.flatnonzero(near))[:count]
        return SurfacePoints(head.vertices[rows])
    faces = head.faces[near[head.faces].all(1)]
    faces = faces[~_border(faces, len(near))[faces].any(1)]
    a, b, c = (head.vertices[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not len(faces) or area.sum() <= 0:
        raise ScanError("scan.no_surface")
    # Evenly spaced positions along the cumulative area instead of random ones: no clumps.
    places = (np.arange(count) + 0.5) / count * area.sum()
    triangle = np.searchsorted(area.cumsum(), places).clip(0, len(faces) - 1)
    u, v = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1 - u, u * (1 - v), u * v], axis=1)[..., None]
    assert head.normals is not None
    normals = (head.normals[faces[triangle]] * weights).sum(1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    points = SurfacePoints((head.vertices[faces[triangle]] * weights).sum(1), normals)
    # The orientation of triangles varies between files: normals must point away from the head.
    return points if (points.normals * points.points).sum() > 0 else SurfacePoints(points.points, -normals)


def _border(faces: np.ndarray, count: int) -> np.ndarray:
    """(N,) bool: vertices on an edge that belongs to one triangle only."""
    sides = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    code, times = np.unique(sides[:, 0] * np.int64(count) + sides[:, 1], return_counts=True)
    border = np.zeros(count, bool)
    border[code[times == 1] // count] = True
    border[code[times == 1] % count] = True
    return border


def roughness(head: Scan, samples: int = 3000) -> tuple[float, float]:
    """Estimate the noise of a scan near the face from local planes, and the spacing of its points.

    Both in metres. Curvature within a few millimetres also counts as noise, hence the median over the face.
    """
    vertices = head.vertices[(np.linalg.norm(head.vertices, axis=1) < HEAD_RADIUS_M) & (head.vertices[:, 2] > 0.02)]
    tree = cKDTree(vertices)
    chosen = vertices[np.random.default_rng(0).permutation(len(vertices))[:samples]]
    # Neighbours within a few millimetres: wide against the noise, narrow against the curvature of a face.
    neighbours = int(np.clip(np.median(tree.query_ball_point(chosen, PLANE_M, return_length=True)), 16, 200))
    distance, index = tree.query(chosen, k=min(neighbours, len(vertices)))
    around = vertices[index] - vertices[index].mean(1, keepdims=True)
    smallest = np.linalg.eigvalsh(np.einsum("pki,pkj->pij", around, around) / max(index.shape[1] - 3, 1))[:, 0]
    radius = np.median(distance[:, -1])
    return float(np.sqrt(np.median(smallest.clip(0)))), float(radius * np.sqrt(np.pi / index.shape[1]))


# -- frames -----------------------------------------------------------------------------------------------------------
def _merge_frames(frames: list[Scan], model: FaceModel, surface: ModelSurface) -> tuple[int, Scan, FaceInScan]:
    """Number of frames used, the frames merged into one scan, and its detected face."""
    if len(frames) == 1:
        return 1, frames[0], find_face(frames[0], model)
    placed, reason = [], ""
    first: FaceInScan | None = None
    for frame in frames:
        try:
            found = find_face(frame, model)
        except ScanError as error:
            reason = error.message
            continue
        first = first or found
        placed.append(transformed(frame, found.matrix, found.translation))
    if first is None:
        raise ScanError("scan.no_frames", frames=len(frames), reason=reason)
    landmarks = first.landmarks @ first.matrix.T + first.translation
    whole = replace(first, matrix=np.eye(3), translation=np.zeros(3), landmarks=landmarks)
    return len(placed), merge_scans(_align_frames(placed, model, surface, whole)), whole


def _align_frames(frames: list[Scan], model: FaceModel, surface: ModelSurface, found: FaceInScan) -> list[Scan]:
    """Rigidly align frames (roughly in head space) to each other by fitting one head to all of them."""
    task = replace(_task(model, found, True), iterations=5, landmarks=None, scale=False)
    for _ in range(FRAME_ROUNDS):
        points = [head_points(frame, SAMPLES // len(frames)) for frame in frames]
        everything = SurfacePoints(
            *(np.concatenate([getattr(p, key) for p in points]) for key in ("points", "normals"))
        )
        fit = fit_model(surface, everything, np.eye(3), np.zeros(3), task)
        for k, frame in enumerate(frames):
            rotation, translation = align_to_head(
                surface, points[k].transformed(fit.matrix, fit.translation), fit.vertices
            )
            frames[k] = transformed(frame, rotation @ fit.matrix, rotation @ fit.translation + translation)
    return frames


def align_to_head(surface: ModelSurface, points: SurfacePoints, vertices: np.ndarray, rounds: int = 4):
    """Rotation (3, 3) and translation (3,) that align points to a fixed head (V, 3) by point-to-plane ICP."""
    rotation, translation = np.eye(3), np.zeros(3)
    for _ in range(rounds):
        now = points.transformed(rotation, translation)
        contact = closest_points(now.points, vertices, surface.faces)
        weight = surface.weights(contact, now.normals, 0.006)
        used = weight > 0
        x, normals, offset = now.points[used], contact.normals[used], contact.offset[used]
        jacobian = np.concatenate([np.cross(x, normals), normals], axis=1) * weight[used, None]
        motion = np.linalg.lstsq(jacobian, -weight[used] * offset, rcond=None)[0]
        turn = Rotation.from_rotvec(motion[:3]).as_matrix()
        rotation, translation = turn @ rotation, turn @ translation + motion[3:]
    return rotation, translation


# -- quality checks and colour ----------------------------------------------------------------------------------------
def _report(
    surface: ModelSurface, points: SurfacePoints, fit: SurfaceFit, deformed: NonrigidResult
) -> RegistrationReport:
    """Distance metrics; the caller fills in the others."""
    model_mm = 1e3 * face_distances(surface, points, fit.vertices, 0.01)
    distance = 1e3 * face_distances(surface, points, deformed.vertices, 0.01)
    if not len(distance):
        raise ScanError("scan.not_on_face")
    return RegistrationReport(
        mean_mm=float(distance.mean()),
        median_mm=float(np.median(distance)),
        p95_mm=float(np.quantile(distance, 0.95)),
        model_mm=float(model_mm.mean()) if len(model_mm) else np.inf,
        coverage=float((deformed.weights[surface.face_vertices] > 0.5).mean()),
        largest_expression=float(fit.expression.max(initial=0.0)),
        landmark_mm=0.0, noise_mm=0.0, unit_m=0.0, points=0, frames=1, seconds=0.0,
    )  # fmt: skip


def check_quality(report: RegistrationReport) -> None:
    """Raise ScanError with the reason when the metrics exceed the rejection thresholds."""
    if report.coverage < SMALLEST_COVERAGE:
        raise ScanError("scan.coverage", share=100 * report.coverage, needed=100 * SMALLEST_COVERAGE)
    allowed = NOISE_SHARE * report.noise_mm
    for what, value, limit in (
        (Message("scan.fitted_model"), report.model_mm, LARGEST_MODEL_MM + allowed),
        (Message("scan.registered_head"), report.mean_mm, LARGEST_MEAN_MM + allowed),
    ):
        if value > limit:
            raise ScanError("scan.distance", what=what, distance_mm=value, limit_mm=limit)


def read_albedo(surface: ModelSurface, head: Scan, deformed: NonrigidResult) -> np.ndarray:
    """Sample the colours (V, 3) of a scan (head space) at a registered head, linear RGB; NaN where it shows no skin.

    Each vertex takes the mean of the scan's colour there and at the centroids of the triangles around it.
    """
    faces, vertices = surface.faces, deformed.vertices
    places = np.concatenate([vertices, vertices[faces].mean(1)])
    colour, good = _colors_near(head, places)
    owner = np.concatenate([np.arange(len(vertices)), faces.reshape(-1)])
    source = np.concatenate([np.arange(len(vertices)), np.repeat(len(vertices) + np.arange(len(faces)), 3)])
    share = good[source].astype(np.float64)
    total = np.bincount(owner, share, len(vertices))
    mixed = np.stack([np.bincount(owner, share * colour[source, c], len(vertices)) for c in range(3)], axis=1)
    shown = (total > 0) & (deformed.weights > LEAST_COLOR_WEIGHT * np.minimum(1, surface.vertex_weights))
    shown &= surface.vertex_weights > 0
    return np.where(shown[:, None], mixed / np.maximum(total, 1e-9)[:, None], np.nan).astype(np.float32)


def _colors_near(head: Scan, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scan's linear RGB (P, 3) nearest to points (P, 3), and whether it is near enough (P,)."""
    if head.faces is None:
        distance, index = cKDTree(head.vertices).query(places, k=4)
        return head.color_at(index, np.full(index.shape, 0.25)), distance[:, -1] < 2 * COLOR_REACH_M
    near = np.linalg.norm(head.vertices, axis=1) < HEAD_RADIUS_M
    faces = head.faces[near[head.faces].all(1)]
    contact = closest_points(places, head.vertices, faces)
    return head.color_at(faces[contact.triangle], contact.barycentric), contact.distance < COLOR_REACH_M


def fill_albedo(model: FaceModel, albedo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fill the gaps (NaN) of an albedo (V, 3) with the model's albedo of the most similar tint.

    Returns:
        (V, 3) float32 linear RGB, and the fitted albedo coefficients (A,).
    """
    known = np.isfinite(albedo).all(1)
    modes = model.albedo_modes[:, known].reshape(len(model.albedo_modes), -1).astype(np.float64)
    difference = np.where(known[:, None], albedo - model.mean_albedo, 0)[known].reshape(-1).astype(np.float64)
    noise = 0.05**2 * max(known.sum() / 300, 1)  # neighbouring vertices are correlated: effective sample count 300
    coefficients = np.linalg.solve(modes @ modes.T + noise * np.eye(len(modes)), modes @ difference)
    own = model.albedo(torch.from_numpy(coefficients.astype(np.float32))[None])[0].numpy()
    return np.where(known[:, None], albedo, own).clip(0, 1).astype(np.float32), coefficients.astype(np.float32)
