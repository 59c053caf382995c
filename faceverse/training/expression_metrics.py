"""Quality metrics of a model's expressions: closed eyes and mouth, eyeball rotation, left-right symmetry.

All metrics use the full mesh of a FaceModel; areas are those visible to a camera.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from ..graphics.camera import rotation_from_euler_deg
from ..graphics.rasterize import rasterize
from ..model.face_model import FaceModel

PIXEL_M = 0.00015
_HALF_SIDE_M = 0.075  # of the rendered square, centred on the facial features
_DISTANCE_M = 0.6
# Viewing directions for closed eyes and mouths: yaw and pitch of the head in degrees.
VIEWS_DEG = ((0, 0), (-35, 0), (35, 0), (0, 15), (0, -15))
# Regions that a closed mouth and closed lids must cover.
MOUTH_PARTS, EYE_PARTS = ("teeth", "tongue", "mouth_inside"), ("eyeballs",)


def posed(model: FaceModel, weights: dict[str, float], identity: np.ndarray | None = None) -> np.ndarray:
    """Vertices (V, 3) of a head with identity (I,), by default the mean one, and expression weights by name.

    A name without its side, such as "eyeBlink", sets both sides.
    """
    names = model.expression_names
    expression = np.zeros(len(names), np.float32)
    for name, weight in weights.items():
        for full in [name] if name in names else [f"{name}Left", f"{name}Right"]:
            expression[names.index(full)] = weight
    identity = model.neutral().identity if identity is None else identity
    row = torch.from_numpy(np.array(identity, np.float32, ndmin=2))
    return model.vertices(row, torch.from_numpy(expression[None]))[0].numpy(force=True)


def region_mask(model: FaceModel, *names: str) -> np.ndarray:
    """(V,) bool: vertices that belong to any of the regions."""
    chosen = np.zeros(len(model.mean_vertices), bool)
    for name in names:
        chosen[model.regions[name]] = True
    return chosen


def visible_area_mm2(
    model: FaceModel, vertices: np.ndarray, parts: Iterable[str], views_deg: Iterable[tuple] = VIEWS_DEG
) -> float:
    """Largest area, over the views, at which parts of a head (V, 3) are visible, in square millimetres."""
    flags = torch.from_numpy(region_mask(model, *parts))
    faces = model.tensor("faces").cpu()
    inside = flags[faces].all(dim=1)
    eyes = vertices[region_mask(model, "eyeballs")].mean(axis=0)
    lips = vertices[region_mask(model, "lips")].mean(axis=0)
    centre = torch.from_numpy(0.5 * (eyes + lips)).float()
    side = int(2 * _HALF_SIDE_M / PIXEL_M)
    counts = []
    for yaw, pitch in views_deg:
        rotated = (torch.from_numpy(vertices).float() - centre) @ rotation_from_euler_deg(yaw, pitch, 0).T
        depth = _DISTANCE_M - rotated[:, 2]
        scale = _DISTANCE_M / PIXEL_M / depth
        projected = torch.stack([side / 2 + rotated[:, 0] * scale, side / 2 - rotated[:, 1] * scale, depth], dim=1)
        hits = rasterize(projected[None], faces, (side, side))
        counts.append(int(inside[hits.triangle[0][hits.mask[0]]].sum()))
    return max(counts) * (1e3 * PIXEL_M) ** 2


def lid_clearance_mm(model: FaceModel, vertices: np.ndarray) -> float:
    """Smallest distance between the skin and the eyeballs of a head (V, 3); negative if the skin enters a ball.

    Each ball is approximated by a sphere about its centroid through its farthest vertex.
    """
    skin = ~region_mask(model, "eyeballs", "teeth", "tongue")
    least = []
    for side in ("left", "right"):
        ball = vertices[region_mask(model, f"eyeball_{side}")]
        centre = ball.mean(axis=0)
        size = np.linalg.norm(ball - centre, axis=1).max()
        least.append(np.linalg.norm(vertices[skin] - centre, axis=1).min() - size)
    return float(1e3 * min(least))


def eye_rotation(model: FaceModel, name: str) -> tuple[float, float]:
    """Rotation angle of the eyeball in degrees under an expression, and its largest departure from a rigid sphere in
    millimetres (change of a vertex's distance from the neutral centroid)."""
    side = "left" if name.endswith("Left") else "right"
    ball = region_mask(model, f"eyeball_{side}")
    rest = model.mean_vertices[ball].astype(np.float64)
    centre = rest.mean(axis=0)
    before = rest - centre
    after = before + model.expression_modes[model.expression_names.index(name)][ball]
    change = np.abs(np.linalg.norm(after, axis=1) - np.linalg.norm(before, axis=1)).max()
    u, _, vt = np.linalg.svd(after.T @ before)
    cosine = (np.trace(u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))), float(1e3 * change)


def mirror_error_mm(model: FaceModel, mirror: np.ndarray) -> dict[str, float]:
    """Largest distance between each left expression and the mirror image of its right one, keyed by the left name.

    Args:
        mirror: (Vc,) reflection of each coarse vertex, `head_regions.mirror_map` of the base head.
    """
    coarse, errors = model.coarse, {}
    for name in (name for name in coarse.expression_names if name.endswith("Left")):
        pair = (coarse.expression_names.index(name), coarse.expression_names.index(name[:-4] + "Right"))
        left, right = coarse.expression_modes[list(pair)]
        errors[name] = float(1e3 * np.abs(left - right[mirror] * np.array([-1, 1, 1], np.float32)).max())
    return errors
