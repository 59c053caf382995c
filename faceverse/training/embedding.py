"""Embed a detector's landmarks on the mesh by running it on renderings of the model.

Every detector has its own convention of where a contour lies. Many heads are rendered in many poses; for each
landmark, the surface point whose projections agree best with all detections in the least-squares sense is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..graphics.camera import Camera, project, rotation_from_euler_deg, transform
from ..graphics.lighting import default_light, srgb_from_linear
from ..landmarks import detect_faces
from ..messages import Message
from ..model.face_model import FaceModel, Landmarks
from ..rendering.render import render_head

SIZE = 384
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
IRIS = tuple(range(468, 478))
ERROR_MODES = 48  # number of error modes kept


@dataclass(frozen=True)
class RenderedViews:
    """R renderings with detected landmarks.

    Args:
        points_px: (R, V, 2) projected vertices.
        detected_px: (R, 478, 2) detected landmarks.
        metres_per_px: (R,) at the depth of the face.
        yaw_deg: (R,).
    """

    points_px: np.ndarray
    detected_px: np.ndarray
    metres_per_px: np.ndarray
    yaw_deg: np.ndarray


def detect_in_renderings(
    model: FaceModel, count: int, seed: int, progress: Callable[[str], None] = lambda _: None
) -> RenderedViews:
    """Render `count` random heads with yaw up to 40 degrees, neutral or not, and run the detector on them."""
    rng = np.random.default_rng(seed)
    camera = Camera(SIZE * 1.7, (SIZE / 2, SIZE / 2), (SIZE, SIZE))
    points, detections, scale, yaws = [], [], [], []
    for number in range(count):
        params = model.random(int(rng.integers(1 << 30)), scale=0.7, similar_tone=False, hair=False)
        expression = torch.from_numpy(_random_expression(model, rng))
        yaw, pitch = float(rng.uniform(-40, 40)) * (number % 3 > 0), float(rng.uniform(-15, 15))
        rotation = rotation_from_euler_deg(yaw, pitch, float(rng.uniform(-8, 8)))
        translation = torch.tensor([*(0.01 * rng.standard_normal(2)), -0.62], dtype=torch.float32)
        with torch.no_grad():
            vertices = model.vertices(torch.from_numpy(params.identity)[None], expression[None])
            albedo = model.albedo(torch.from_numpy(params.albedo)[None]).clamp(0.003, 1)
            shaded = render_head(
                vertices,
                albedo,
                model.tensor("faces"),
                rotation[None],
                translation[None],
                default_light()[None],
                camera,
            )
            background = torch.tensor(rng.uniform(0.2, 0.8, 3), dtype=torch.float32)
            picture = torch.where(shaded.mask[0, ..., None], srgb_from_linear(shaded.rgb[0]), background)
            projected = project(transform(vertices[0], rotation, translation), camera).numpy()
        faces = detect_faces((picture.numpy() * 255 + 0.5).astype(np.uint8), max_faces=1)
        if faces:
            points.append(projected[:, :2].astype(np.float32))
            detections.append(faces[0].landmarks_px)
            scale.append(float(np.median(projected[:, 2])) / camera.focal_px)
            yaws.append(yaw)
        if number % 50 == 49:
            progress(f"{number + 1} of {count} renderings, faces detected in {len(points)}")
    return RenderedViews(np.stack(points), np.stack(detections), np.array(scale), np.array(yaws))


def _random_expression(model: FaceModel, rng: np.random.Generator) -> np.ndarray:
    """Random weights: a few expressions (the jaw among them) in two thirds of the faces, neutral in one third."""
    weights = np.zeros(len(model.expression_names), np.float32)
    if rng.random() < 0.67:
        chosen = rng.choice(len(weights), size=4, replace=False)
        weights[chosen] = rng.uniform(0.1, 0.7, 4)
        for name in ("jawOpen", "tongueOut"):
            if name in model.expression_names:
                weights[model.expression_names.index(name)] = rng.uniform(0, 0.5) if name == "jawOpen" else 0
    return weights


def embed(model: FaceModel, views: RenderedViews) -> Landmarks:
    """Fit surface points to all 478 landmarks, with the standard deviation of the detections around them.

    Raises:
        ValueError: fewer than 12 detections.
    """
    if len(views.detected_px) < 12:
        raise ValueError(Message("training.few_renderings", found=len(views.detected_px)))
    count = views.detected_px.shape[1]
    weight = _view_weights(views, count)
    candidates = {False: _skin_candidates(model), True: np.asarray(model.regions["eyeballs"])}
    cost = _mean_squared_distances(views, weight)
    triangle, barycentric, sigma = (
        np.zeros(count, np.int64),
        np.zeros((count, 3), np.float32),
        np.zeros(count, np.float32),
    )
    for landmark in range(count):
        allowed = candidates[landmark in IRIS]
        best = allowed[cost[landmark, allowed].argmin()]
        triangle[landmark], barycentric[landmark], value = _refine(model, views, weight[:, landmark], landmark, best)
        sigma[landmark] = np.sqrt(max(value, 0) / 2)
    return Landmarks(triangle, barycentric, sigma, _error_modes(model, views, triangle, barycentric))


def _mean_squared_distances(views: RenderedViews, weight: np.ndarray) -> np.ndarray:
    """(L, V) mean squared distance in metres^2 between detections and projected vertices, weighted by view (R, L)."""
    scale = views.metres_per_px[:, None, None]
    points, detections = views.points_px * scale, views.detected_px * scale
    # |a - p|^2 = |a|^2 - 2 a.p + |p|^2, each summed over the views in one matrix product.
    weighted = weight[..., None] * detections
    cost = (weighted * detections).sum((0, 2))[:, None] + weight.T @ (points**2).sum(2)
    for axis in range(2):
        cost -= 2 * weighted[..., axis].T @ points[..., axis]
    return cost / weight.sum(0)[:, None]


def _error_modes(model: FaceModel, views: RenderedViews, triangle: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """(K, L, 2) principal components (about zero) of the detection errors, metres, y up."""
    corners = views.points_px[:, model.faces[triangle]]
    errors = views.detected_px - (corners * barycentric[None, ..., None]).sum(2)
    errors = errors * views.metres_per_px[:, None, None] * np.array([1.0, -1.0])
    _, values, modes = np.linalg.svd(errors.reshape(len(errors), -1), full_matrices=False)
    modes = modes[:ERROR_MODES] * (values[:ERROR_MODES, None] / np.sqrt(len(errors)))
    modes *= np.sign(modes[np.arange(len(modes)), np.abs(modes).argmax(1)])[:, None]
    return modes.reshape(len(modes), -1, 2).astype(np.float32)


def _skin_candidates(model: FaceModel) -> np.ndarray:
    """Vertices that are candidates for a facial landmark."""
    interior = np.zeros(len(model.mean_vertices), bool)
    for name in ("eyeballs", "teeth", "tongue", "mouth_inside", "eye_sockets"):
        interior[model.regions.get(name, np.zeros(0, np.int64))] = True
    return np.flatnonzero(~interior)


def _view_weights(views: RenderedViews, count: int) -> np.ndarray:
    """(R, L): landmarks of the face oval weigh little in turned views, where they follow the silhouette."""
    weight = np.ones((len(views.yaw_deg), count))
    rotated = np.abs(views.yaw_deg) > 12
    weight[np.ix_(rotated, FACE_OVAL)] = 0.02
    return weight


def _refine(model: FaceModel, views: RenderedViews, weight: np.ndarray, landmark: int, vertex: int):
    """Best point in the triangles around a vertex: (triangle, barycentric (3,), mean squared error in metres^2)."""
    around = np.flatnonzero((model.faces == vertex).any(axis=1))
    steps = np.linspace(0, 1, 9)
    grid = np.array([(1 - u - v, u, v) for u in steps for v in steps if u + v <= 1 + 1e-9])
    best = (np.inf, int(around[0]), grid[0])
    target = views.detected_px[:, landmark] * views.metres_per_px[:, None]
    for triangle in around:
        corners = views.points_px[:, model.faces[triangle]] * views.metres_per_px[:, None, None]
        error = ((np.einsum("gk,rkc->rgc", grid, corners) - target[:, None]) ** 2).sum(-1)
        value = (weight[:, None] * error).sum(0) / weight.sum()
        if value.min() < best[0]:
            best = (float(value.min()), int(triangle), grid[value.argmin()])
    return best[1], best[2].astype(np.float32), best[0]
