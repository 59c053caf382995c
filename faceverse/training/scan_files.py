"""Read head scans (meshes, point clouds, RGB-D frames) and list them in a folder.

A scan keeps its own unit and axes; registration estimates them. Formats and folder layouts: docs/scans.md.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion, gaussian_filter

from ..graphics.camera import Camera
from ..io.archives import NPY_ERRORS, read_array
from ..io.files import check_file, open_file, read_bytes
from ..io.images import read_image
from ..io.json_text import parse_json
from .mesh_files import read_cloud, read_mesh
from .scan import LINEAR_OF_BYTE, Scan, ScanError, keep_vertices, merge_scans, reason_in_line, transformed, with_normals

MESH_SUFFIXES = (".obj", ".glb", ".gltf", ".off", ".stl", ".ply")
CLOUD_SUFFIX = ".xyz"
RGBD_SUFFIX = ".rgbd.json"
# Of several files with one stem, the first is the scan: the official dataset has a registered .ply beside each .obj.
PREFERENCE = (".obj", RGBD_SUFFIX, ".glb", ".gltf", ".off", ".stl", ".ply", CLOUD_SUFFIX)
NEUTRAL = "01"
_IDENTITY_EXPRESSION = re.compile(r"(?P<identity>\d{2,})_(?P<expression>\d{2})")

SMOOTHING_M = 0.003  # radius over which depth is smoothed before normals are computed
MOST_SMOOTHING_PX = 100.0
LARGEST_STEP = (4.0, 0.004)  # depth step between connected neighbours: this many pixel sizes plus this many metres
GRAZING = 0.25  # least cosine to the line of sight; beyond it depth cameras are unreliable
POSE_TOLERANCE = 0.05  # of the products of a pose's columns, relative to their squared length
BORDER_PX = 2  # pixels at a depth discontinuity mix foreground and background


@dataclass(frozen=True)
class ScanFile:
    """A scan file in a folder.

    Args:
        name: path inside the folder without its suffix.
        identity: from the file name if it contains one, else the name.
        expression: such as "01", or None if the file name contains none.
    """

    name: str
    path: Path
    identity: str
    expression: str | None


# -- folders ----------------------------------------------------------------------------------------------------------
def find_scans(folder: str | Path) -> list[ScanFile]:
    """List all scans in a folder, recursively, by name; of several files with one stem the first of PREFERENCE.

    Raises:
        ScanError: the folder is missing or holds no scan.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ScanError("folder.missing", folder=folder)
    found: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        suffix = RGBD_SUFFIX if path.name.lower().endswith(RGBD_SUFFIX) else path.suffix.lower()
        if suffix not in PREFERENCE or any(part.startswith(".") for part in inside.parts) or not path.is_file():
            continue
        name = inside.as_posix()[: -len(suffix)]
        found[name] = min(found.get(name, (len(PREFERENCE), path)), (PREFERENCE.index(suffix), path))
    if not found:
        raise ScanError("scan.none_in_folder", folder=folder, suffixes=" ".join(PREFERENCE))
    return [_scan_file(name, path) for name, (_, path) in sorted(found.items())]


def _scan_file(name: str, path: Path) -> ScanFile:
    match = _IDENTITY_EXPRESSION.fullmatch(Path(name).name)
    return ScanFile(name, path, match["identity"] if match else name, match["expression"] if match else None)


# -- files ------------------------------------------------------------------------------------------------------------
def load_scan(path: str | Path) -> Scan:
    """Read a mesh (.obj .ply .glb .off .stl), a point cloud (.ply .xyz) or an RGB-D recording with known poses.

    Raises:
        ScanError: the file is missing, damaged, empty or of another kind.
    """
    frames = load_frames(path)
    if len(frames) > 1:
        raise ScanError("scan.frames_without_poses", name=Path(path).name, frames=len(frames))
    return frames[0]


def load_frames(path: str | Path) -> list[Scan]:
    """Like `load_scan`; an RGB-D recording without poses gives one scan per frame, in that camera's space."""
    path = Path(path)
    check_file(path, ScanError, missing="scan.no_file")
    if not path.stat().st_size:
        raise ScanError("scan.empty_file", name=path.name)
    if path.name.lower().endswith(RGBD_SUFFIX):
        return _read_recording(path)
    suffix = path.suffix.lower()
    if suffix == CLOUD_SUFFIX:
        return [_checked(read_cloud(path), path)]
    if suffix not in MESH_SUFFIXES:
        raise ScanError("scan.suffix", name=path.name, suffixes=" ".join(PREFERENCE))
    return [_checked(read_mesh(path), path)]


def _checked(scan: Scan, path: Path) -> Scan:
    """Remove vertices that are not finite, and unreferenced ones; compute normals."""
    good = np.isfinite(scan.vertices).all(1)
    if not good.any():
        raise ScanError("scan.no_points", name=path.name)
    faces = scan.faces
    if faces is not None:
        if faces.min() < 0 or faces.max() >= len(good):
            raise ScanError("scan.missing_points", name=path.name)
        good &= np.bincount(faces[good[faces].all(1)].reshape(-1), minlength=len(good)) > 0
        if not good.any():
            raise ScanError("scan.no_triangles", name=path.name)
    return with_normals(keep_vertices(scan, good))


# -- depth ------------------------------------------------------------------------------------------------------------
def scan_from_depth(depth_m: np.ndarray, camera: Camera, rgb: np.ndarray | None = None) -> Scan:
    """Convert a depth image to a mesh in camera space (see camera.py).

    Args:
        depth_m: (H, W) metres along the view axis; 0 or not finite where nothing was measured.
        camera: the depth camera.
        rgb: (H, W, 3) uint8 sRGB from the same camera, or None.

    Raises:
        ScanError: inconsistent shapes, or no valid depth.
    """
    depth = np.asarray(depth_m, np.float64)
    if depth.ndim != 2 or depth.shape != tuple(camera.image_size):
        raise ScanError("scan.depth_size", expected=camera.image_size, shape=depth.shape)
    if rgb is not None and rgb.shape != (*depth.shape, 3):
        raise ScanError("scan.colour_size", expected=(*depth.shape, 3), shape=rgb.shape)
    cx, cy = camera.principal_point_px
    return _surface_from_depth(depth, (camera.focal_px, camera.focal_px), (cx - 0.5, cy - 0.5), rgb)


def _surface_from_depth(depth: np.ndarray, focal: tuple[float, float], centre: tuple[float, float], rgb) -> Scan:
    """As `scan_from_depth`; the centre is relative to the centre of the first pixel."""
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0.0)
    if not depth.any():
        raise ScanError("scan.depth_empty")
    row, column = np.indices(depth.shape)
    ray = np.stack([(column - centre[0]) / focal[0], (centre[1] - row) / focal[1], -np.ones(depth.shape)], axis=-1)
    joined = _connected(depth, max(focal))
    sigma_px = min(SMOOTHING_M * max(focal) / float(np.median(depth[depth > 0])), MOST_SMOOTHING_PX)
    normals, valid = _depth_normals(depth, ray, joined, sigma_px)
    valid &= -(normals * ray).sum(-1) > GRAZING * np.linalg.norm(ray, axis=-1)
    points = ray * depth[..., None]
    valid &= np.isfinite(points).all(-1) & np.isfinite(normals).all(-1)  # damaged numbers of any size
    number = np.arange(depth.size).reshape(depth.shape)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    faces = np.concatenate([np.stack([a, b, c], axis=-1)[joined], np.stack([a, c, d], axis=-1)[joined]])
    colors = None if rgb is None else LINEAR_OF_BYTE[rgb].reshape(-1, 3)
    scan = Scan(points.reshape(-1, 3), faces, normals.reshape(-1, 3), colors, unit_m=1.0)
    scan = keep_vertices(scan, valid.reshape(-1))
    if scan.faces is None or not len(scan.faces):
        raise ScanError("scan.depth_no_surface")
    return scan


def _connected(depth: np.ndarray, focal_px: float) -> np.ndarray:
    """(H - 1, W - 1) bool: squares of four neighbouring pixels on one continuous surface."""
    four = np.stack([depth[:-1, :-1], depth[1:, :-1], depth[1:, 1:], depth[:-1, 1:]])
    step = LARGEST_STEP[0] * four.max(0) / focal_px + LARGEST_STEP[1]
    return (four.min(0) > 0) & (np.ptp(four, axis=0) < step)


def _depth_normals(depth: np.ndarray, ray: np.ndarray, joined: np.ndarray, sigma_px: float):
    """Normals (H, W, 3) of the smoothed surface, facing the camera; and the pixels (H, W) with valid neighbours."""
    valid = np.zeros(depth.shape, bool)
    for rows, columns in ((slice(-1), slice(-1)), (slice(1, None), slice(-1)), (slice(1, None), slice(1, None)),
                          (slice(-1), slice(1, None))):  # fmt: skip
        valid[rows, columns] |= joined
    valid = binary_erosion(valid, iterations=BORDER_PX)
    points = ray * smooth_depth(depth, valid, sigma_px)[..., None]
    normals = np.cross(np.gradient(points, axis=0), np.gradient(points, axis=1))
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-20), valid


def smooth_depth(depth: np.ndarray, valid: np.ndarray, sigma_px: float) -> np.ndarray:
    """(H, W) depth averaged over valid neighbours with a Gaussian; 0 where undefined."""
    weight = gaussian_filter(valid.astype(np.float64), sigma_px)
    total = gaussian_filter(np.where(valid, depth, 0.0), sigma_px)
    return np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), 0.0)


@np.errstate(all="ignore")  # damaged numbers of any size
def _read_recording(path: Path) -> list[Scan]:
    """Read the frames of an .rgbd.json file; merge them if all have poses."""
    try:
        entry = parse_json(read_bytes(path, ScanError))
        focal, centre = (float(entry["fx"]), float(entry["fy"])), (float(entry["cx"]), float(entry["cy"]))
        unit, frames = float(entry.get("depth_unit_m", 0.001)), list(entry["frames"])
        poses = [np.array(frame.get("camera_to_world", np.full((4, 4), np.nan)), float) for frame in frames]
        files = [(str(frame["depth"]), frame.get("color")) for frame in frames]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ScanError("scan.no_description", name=path.name, reason=reason_in_line(error)) from error
    if not frames or not all(pose.shape == (4, 4) and _is_pose_or_none(pose) for pose in poses):
        raise ScanError("scan.description_frames", name=path.name)
    if not (np.isfinite([*focal, *centre, unit]).all() and min(*focal, unit) > 0):
        raise ScanError("scan.description_numbers", name=path.name)
    scans = []
    for depth_name, color_name in files:
        depth = _read_depth(path.parent / depth_name) * unit
        rgb = None if color_name is None else read_image(path.parent / str(color_name)).rgb
        if rgb is not None and rgb.shape[:2] != depth.shape:
            raise ScanError("scan.colour_depth_size", name=path.name, colour=color_name, depth=depth_name)
        scans.append(_surface_from_depth(depth, focal, centre, rgb))
    if not np.isfinite(poses).all():
        return scans
    flip = np.diag([1.0, -1.0, -1.0])  # the file's cameras have y down and z forward
    return [merge_scans([transformed(s, p[:3, :3] @ flip, p[:3, 3]) for s, p in zip(scans, poses, strict=True)])]


def _is_pose_or_none(matrix: np.ndarray) -> bool:
    """Whether a matrix (4, 4) rotates, perhaps also scales, and moves; one that is not finite says there is no pose."""
    if not np.isfinite(matrix).all():
        return True
    linear = matrix[:3, :3]
    gram, scale = linear.T @ linear, np.square(linear).sum() / 3
    is_similarity = 0 < scale < np.inf and np.abs(gram / scale - np.eye(3)).max() < POSE_TOLERANCE
    return bool(is_similarity and np.linalg.det(linear) > 0)


def _read_depth(path: Path) -> np.ndarray:
    try:
        with open_file(path, ScanError) as file:
            if path.suffix.lower() == ".npy":
                depth = read_array(file, path.stat().st_size)
            else:
                # From memory, because Pillow reserves the length that a chunk of a file states.
                depth = np.asarray(Image.open(io.BytesIO(file.read())))
    except (OSError, Image.DecompressionBombError, *NPY_ERRORS) as error:
        raise ScanError("scan.depth_unreadable", name=path.name, reason=reason_in_line(error)) from error
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        raise ScanError("scan.depth_channels", name=path.name, shape=depth.shape)
    return depth.astype(np.float64)
