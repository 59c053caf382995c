"""Detect the face in a scan of unknown unit and axes by running the landmark detector on renderings.

The scan is first rendered from many directions until a face is detected, then from several directions in front of that
face; the depth buffers lift the detected landmarks onto the scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ..errors import ParameterError
from ..graphics.camera import Camera, project, rotation_from_euler_deg
from ..graphics.lighting import srgb_from_linear
from ..graphics.rasterize import rasterize
from ..landmarks import LANDMARK_COUNT, DetectedFace, detect_faces
from ..model.face_model import FaceModel
from .embedding import FACE_OVAL, IRIS
from .scan_files import Scan, ScanError, keep_vertices, smooth_depth
from .surface_fit import align_landmarks

UNITS_M = {"millimetres": 0.001, "centimetres": 0.01, "inches": 0.0254, "decimetres": 0.1, "metres": 1.0}
UNIT_TOLERANCE = 1.2  # adult heads vary less in size, and any two of these units differ more
LARGEST_ERROR_M = 0.008  # largest median distance of the landmarks to the mean head's after alignment for a valid face
CONFIDENT_ERROR_M = 0.0045  # above it other views are tried too: an upside-down face also looks like a face
SAME_ROTATION_DEG, SAME_PLACE_M = 20.0, 0.02  # alignments closer than this belong to the same face
SEARCH_SIZES_PX = (256, 512)
SEARCH_TRIANGLES = 60_000
SOLID_POINTS = 200_000
CLOSE_SIZE_PX, CLOSE_FOCAL, CLOSE_DISTANCE_M = 512, 1.9, 0.62
CLOSE_VIEWS_DEG = ((0, 0), (-22, 0), (22, 0), (0, 14), (0, -14))  # yaw, pitch
CLAY = np.array([0.60, 0.42, 0.34])
SURFACE_POINTS = np.setdiff1d(np.arange(LANDMARK_COUNT), [*FACE_OVAL, *IRIS])  # the oval depends on the viewpoint


@dataclass(frozen=True)
class FaceInScan:
    """The detected face of a scan.

    Args:
        matrix, translation: scan to head space, metres: head = scan @ matrix.T + translation (scaled rotation).
        unit_m: metres per unit of the scan, or None if it is none of UNITS_M; the scale is then an estimate.
        landmarks: (478, 3) in the scan's space; not finite where undetected.
        blendshapes: the detector's scores in the frontal view.
        error_m: median distance of the landmarks to the mean head's.
    """

    matrix: np.ndarray
    translation: np.ndarray
    unit_m: float | None
    landmarks: np.ndarray
    blendshapes: dict[str, float]
    error_m: float


@dataclass(frozen=True)
class ScanRendering:
    """A rendering of a scan: rgb (H, W, 3) uint8, depth (H, W) metres, 0 in the background."""

    rgb: np.ndarray
    depth: np.ndarray


def find_face(scan: Scan, model: FaceModel) -> FaceInScan:
    """Detect the face in a scan of any unit and orientation.

    Raises:
        ScanError: no face was detected from any direction.
    """
    scan = _as_mesh(scan)
    coarse = _simplified(scan, SEARCH_TRIANGLES)
    best = None
    for matrix, translation, size in candidate_views(coarse):
        if best is not None and size != SEARCH_SIZES_PX[0]:
            break
        camera = Camera(size * 1.9, (size / 2, size / 2), (size, size))
        picture = render_scan(coarse, matrix, translation, camera)
        for face in detect_faces(picture.rgb, max_faces=2) if picture.depth.any() else ():
            points = _lifted(face, picture, camera, matrix, translation)
            try:
                first, shift, error = align_landmarks(model, points, SURFACE_POINTS)
            except ParameterError:
                continue
            if error > LARGEST_ERROR_M or (best is not None and is_same_pose(best, first, shift)):
                continue
            found = refine_detection(scan, model, first, shift)
            if found is not None and (best is None or found.error_m < best.error_m):
                best = found
            if best is not None and best.error_m < CONFIDENT_ERROR_M:
                return best
    if best is None:
        raise ScanError("scan.no_face")
    return best


def is_same_pose(found: FaceInScan, matrix: np.ndarray, translation: np.ndarray) -> bool:
    """Whether a rough alignment belongs to the face already detected, with the same orientation."""
    relative = matrix @ np.linalg.inv(found.matrix)
    turn = Rotation.from_matrix(relative / np.cbrt(np.linalg.det(relative)))
    apart = np.linalg.norm(translation - relative @ found.translation)
    return bool(np.rad2deg(turn.magnitude()) < SAME_ROTATION_DEG and apart < SAME_PLACE_M)


def candidate_views(scan: Scan) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Scan-to-camera matrix, translation and image size of the views to try, the likely ones first."""
    middle = np.median(scan.vertices, axis=0)
    radius = float(np.quantile(np.linalg.norm(scan.vertices - middle, axis=1), 0.97)) * 1.05
    middle = (scan.vertices.min(0) + scan.vertices.max(0)) / 2 if radius == 0 else middle
    upright = Rotation.create_group("O")  # axis conventions of files: every choice of up and forward
    upright = upright[np.argsort(upright.magnitude(), kind="stable")]
    tilted = Rotation.from_euler("yx", (20, 15), degrees=True) * Rotation.create_group("I")
    for size, rotations in zip(SEARCH_SIZES_PX, (Rotation.concatenate([upright, tilted]), upright)):
        for rotation in rotations.as_matrix():
            matrix = rotation * (0.15 / max(radius, 1e-12))
            yield matrix, np.array([0, 0, -0.62]) - matrix @ middle, size


def refine_detection(scan: Scan, model: FaceModel, matrix: np.ndarray, translation: np.ndarray) -> FaceInScan | None:
    """Refine the face from views in front of it, or return None if it is not detected there."""
    camera = Camera(CLOSE_SIZE_PX * CLOSE_FOCAL, (CLOSE_SIZE_PX / 2,) * 2, (CLOSE_SIZE_PX,) * 2)
    near = np.linalg.norm(scan.vertices @ matrix.T + translation, axis=1) < 0.25
    scan = keep_vertices(scan, near)
    for _ in range(2):
        seen = _landmarks_of_views(scan, matrix, translation, camera)
        if seen is None:
            return None
        landmarks, blendshapes = seen
        try:
            matrix, translation, error = align_landmarks(model, landmarks, SURFACE_POINTS)
        except ParameterError:
            return None
    if error > LARGEST_ERROR_M:
        return None
    unit = scan.unit_m or _unit(np.cbrt(np.linalg.det(matrix)))
    if unit is not None:
        rigid, offset, error = align_landmarks(model, landmarks * unit, SURFACE_POINTS, scale=False)
        matrix, translation = rigid * unit, offset
    return FaceInScan(matrix, translation, unit, landmarks, blendshapes, error)


def _landmarks_of_views(scan: Scan, matrix: np.ndarray, translation: np.ndarray, camera: Camera):
    """Median landmarks (478, 3) over several views in the scan's space, and the scores of the first view; or None."""
    found, blendshapes = np.full((len(CLOSE_VIEWS_DEG), LANDMARK_COUNT, 3), np.nan), None
    for points, (yaw, pitch) in zip(found, CLOSE_VIEWS_DEG):
        turn = rotation_from_euler_deg(yaw, pitch).numpy().astype(np.float64)
        to_camera = turn @ matrix
        offset = turn @ translation + (0, 0, -CLOSE_DISTANCE_M)
        picture = render_scan(scan, to_camera, offset, camera)
        faces = detect_faces(picture.rgb, max_faces=1)
        if not faces and not (yaw or pitch):
            return None
        if faces:
            blendshapes = blendshapes or faces[0].blendshapes
            points[:] = _lifted(faces[0], picture, camera, to_camera, offset)
    # The median and not the mean: in a single view a landmark may have been lifted through a hole.
    middle = np.full((LANDMARK_COUNT, 3), np.nan)
    seen = np.isfinite(found).all(2).sum(0) >= 2
    middle[seen] = np.nanmedian(found[:, seen], axis=0)
    return middle, blendshapes


def _unit(scale: float) -> float | None:
    """The unit closest to the scale, if one is within the tolerance."""
    unit = min(UNITS_M.values(), key=lambda value: abs(np.log(value / scale)))
    return unit if abs(np.log(unit / scale)) < np.log(UNIT_TOLERANCE) else None


def _lifted(face: DetectedFace, picture: ScanRendering, camera: Camera, matrix, translation) -> np.ndarray:
    """Lift the detected landmarks onto the surface (478, 3), in the scan's space; NaN where there is none."""
    height, width = picture.depth.shape
    column, row = np.floor(face.landmarks_px).astype(int).T
    inside = (column >= 1) & (column < width - 1) & (row >= 1) & (row < height - 1)
    near = np.stack([
        picture.depth[np.clip(row + i, 0, height - 1), np.clip(column + j, 0, width - 1)]
        for i in (-1, 0, 1) for j in (-1, 0, 1)
    ])  # fmt: skip
    depth = np.where(inside & (near > 0).all(0), np.median(near, axis=0), np.nan)
    x, y = ((face.landmarks_px - camera.principal_point_px) / camera.focal_px).T
    cam = np.stack([x * depth, -y * depth, -depth], axis=1)
    return (cam - translation) @ np.linalg.inv(matrix).T


# -- pictures ---------------------------------------------------------------------------------------------------------
def render_scan(scan: Scan, matrix: np.ndarray, translation: np.ndarray, camera: Camera) -> ScanRendering:
    """Render the scan: unlit with its own colours if it has any, else as clay lit from the front.

    Args:
        scan: with triangles.
        matrix, translation: scan to camera space, metres.
    """
    px = project(torch.from_numpy(scan.vertices @ matrix.T + translation), camera)[None]
    hits = rasterize(px, torch.from_numpy(scan.faces), camera.image_size)
    depth, mask = hits.depth[0].numpy(), hits.mask[0].numpy()
    rgb = np.full((*depth.shape, 3), 0.5)
    assert scan.faces is not None
    if scan.has_color:
        corners = scan.faces[hits.triangle[0].numpy()[mask]]
        rgb[mask] = scan.color_at(corners, hits.barycentric[0].numpy()[mask])
    elif mask.any():
        rgb[mask] = _clay(depth, mask, camera)[mask]
    encoded = srgb_from_linear(torch.from_numpy(rgb)).numpy()
    return ScanRendering((encoded.clip(0, 1) * 255 + 0.5).astype(np.uint8), depth)


def _clay(depth: np.ndarray, mask: np.ndarray, camera: Camera) -> np.ndarray:
    """(H, W, 3) linear RGB of a matte surface from its depth, smoothed in proportion to its noise."""
    pixel_m = float(np.median(depth[mask])) / camera.focal_px
    rough = np.abs(depth - smooth_depth(depth, mask, 1.5))[mask]
    sigma = float(np.clip(4.0 * np.median(rough) / pixel_m, 0.8, 5.0))
    smooth = np.where(mask, smooth_depth(depth, mask, sigma), np.nan)
    down, right = (np.nan_to_num(slope) / pixel_m for slope in np.gradient(smooth))
    normal = np.stack([right, -down, np.ones_like(depth)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    light = np.array([0.25, 0.55, 0.80]) / np.linalg.norm([0.25, 0.55, 0.80])
    shade = 0.30 + 0.70 * np.clip(normal @ light, 0, None)
    return CLAY * gaussian_filter(shade, 0.6)[..., None]


def _as_mesh(scan: Scan) -> Scan:
    """Convert a point cloud to a mesh for rendering: overlapping squares in the local tangent planes."""
    if scan.faces is not None:
        return scan
    scan = _subsampled(scan, SOLID_POINTS)
    points = scan.vertices
    distance, index = cKDTree(points).query(points, k=min(8, len(points)))
    around = points[index] - points[index].mean(1, keepdims=True)
    _, axes = np.linalg.eigh(np.einsum("pki,pkj->pij", around, around))
    along, across = (1.5 * distance[:, 4:5] * axes[:, :, k] for k in (2, 1))
    corners = np.stack([points - along, points - across, points + along, points + across], axis=1)
    first = 4 * np.arange(len(points))[:, None]
    faces = np.concatenate([first + [0, 1, 2], first + [0, 2, 3]])
    colors = None if scan.colors is None else np.repeat(scan.colors, 4, axis=0)
    return Scan(corners.reshape(-1, 3), faces, colors=colors, unit_m=scan.unit_m)


def _subsampled(scan: Scan, count: int) -> Scan:
    keep = np.zeros(len(scan.vertices), bool)
    keep[np.random.default_rng(0).permutation(len(keep))[:count]] = True
    return keep_vertices(scan, keep)


def _simplified(scan: Scan, triangles: int) -> Scan:
    """Simplify a mesh by vertex clustering on a grid."""
    assert scan.faces is not None
    if len(scan.faces) <= triangles:
        return scan
    low, high = np.quantile(scan.vertices, (0.01, 0.99), axis=0)
    cell = float(np.linalg.norm(high - low)) / np.sqrt(triangles)
    _, first, number = np.unique(
        np.round((scan.vertices - low) / cell).astype(np.int64), axis=0, return_index=True, return_inverse=True
    )
    faces = number.reshape(-1)[scan.faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(1)]
    colors = None
    if scan.has_color:
        colors = scan.color_at(first[:, None], np.ones((len(first), 1)))
    return Scan(scan.vertices[first], faces, colors=colors, unit_m=scan.unit_m)
