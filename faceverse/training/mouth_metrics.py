"""Measure what of a mouth's inside lies outside the lips: the visible area in front of a sheet that spans the mouth.

The sheet joins the outer surfaces of upper and lower lip by straight lines from one corner of the mouth to the other.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from ..graphics.camera import rotation_from_euler_deg
from ..graphics.rasterize import rasterize
from ..model.face_model import FaceModel
from ..parts.part import PartLibrary
from .edge_loops import mouth_grid
from .expression_metrics import region_mask
from .sources import HeadMesh

PIXEL_M = 0.00025
YAWS_DEG = tuple(range(-90, 91, 30))
SLOTS = ("teeth_upper", "teeth_lower", "tongue")
CAVITY = "mouth_inside"  # the skin that lines the mouth
_HALF_SIDE_M, _DISTANCE_M = 0.045, 0.6
_SHEET_RING = 3  # of the lips' grid, counted from the contact line: the red of the lips
_COLUMNS, _ROWS = 33, 5


class LipSheet:
    """The sheet between the lips of heads with the base head's mesh.

    Args:
        head: topology and parts.
    """

    def __init__(self, head: HeadMesh):
        grid = mouth_grid(head)
        self._ring = grid.rings[grid.line + _SHEET_RING]
        at = head.vertices[self._ring, 0]
        left, right = int(at.argmax()), int(at.argmin())
        spokes = np.arange(len(at))
        self._upper = np.concatenate([spokes[right:], spokes[: left + 1]])  # from the right corner to the left one
        self._lower = spokes[left : right + 1][::-1]
        columns = np.arange(_COLUMNS - 1)[:, None] * _ROWS + np.arange(_ROWS - 1)
        a = columns.reshape(-1)
        corners = np.stack([a, a + 1, a + _ROWS + 1, a + _ROWS], axis=1)
        self.faces = np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]])

    def vertices(self, head: np.ndarray) -> np.ndarray:
        """Vertices (S, 3) of the sheet on a head (V, 3)."""
        ring = head[self._ring]
        upper, lower = (_evenly(ring[spokes], _COLUMNS) for spokes in (self._upper, self._lower))
        share = np.linspace(0, 1, _ROWS)[:, None]
        return (upper[:, None] * (1 - share) + lower[:, None] * share).reshape(-1, 3)


def outside_area_mm2(
    model: FaceModel,
    library: PartLibrary,
    sheet: LipSheet,
    vertices: np.ndarray,
    neutral: np.ndarray,
    *,
    slots: Iterable[str] = (CAVITY, *SLOTS),
    yaws_deg: Iterable[float] = YAWS_DEG,
) -> float:
    """Largest area, over the views, at which the inside of a mouth is seen outside the lips, in square millimetres.

    Args:
        vertices, neutral: (V, 3) a head of the model with an expression, and without.
        slots: what is measured: CAVITY and SLOTS; all of it is drawn.
        yaws_deg: of the head.
    """
    skin = ~region_mask(model, "teeth", "tongue", "eyeballs")
    faces = np.asarray(model.faces)
    lining = region_mask(model, CAVITY)[faces].all(axis=1)
    outer = skin[faces].all(axis=1) & ~lining
    meshes = [(vertices, faces[outer]), (vertices, faces[lining])]
    for slot in SLOTS:
        part = library.get(slot, library.styles(slot)[0])
        meshes.append((part.binding.follow(vertices, neutral), part.faces))
    counted = np.isin(("", CAVITY, *SLOTS), list(slots))
    centre = vertices[region_mask(model, "lips")].mean(axis=0)
    worst = 0
    for yaw in yaws_deg:
        depths = [_depth(points, triangles, centre, yaw) for points, triangles in meshes]
        front = np.argmin(depths, axis=0)
        nearest = np.min(depths, axis=0)
        gate = _depth(sheet.vertices(vertices), sheet.faces, centre, yaw)
        outside = counted[front] & np.isfinite(nearest) & ~(gate < nearest)
        worst = max(worst, int(outside.sum()))
    return worst * (1e3 * PIXEL_M) ** 2


def _depth(points: np.ndarray, triangles: np.ndarray, centre: np.ndarray, yaw_deg: float) -> np.ndarray:
    """Depth image (H, W) of a mesh turned about a point; infinite where there is nothing."""
    rotated = torch.from_numpy(np.float32(points - centre)) @ rotation_from_euler_deg(yaw_deg, 0, 0).T
    depth = _DISTANCE_M - rotated[:, 2]
    side = int(2 * _HALF_SIDE_M / PIXEL_M)
    scale = _DISTANCE_M / PIXEL_M / depth
    projected = torch.stack([side / 2 + rotated[:, 0] * scale, side / 2 - rotated[:, 1] * scale, depth], dim=1)
    hits = rasterize(projected[None], torch.from_numpy(np.ascontiguousarray(triangles)), (side, side))
    return np.where(hits.mask[0].numpy(), hits.depth[0].numpy(), np.inf)


def _evenly(curve: np.ndarray, count: int) -> np.ndarray:
    """A polyline (K, 3) resampled to `count` points at even lengths."""
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    at = np.linspace(0, along[-1], count)
    return np.stack([np.interp(at, along, curve[:, k]) for k in range(3)], axis=1)
