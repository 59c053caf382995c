"""Outline of a hair style against the hair in a photograph: how well they agree, and the warp that makes them agree.

A style is drawn as a mask in a small crop of the photograph, with the head before and behind it. Where the border of
that mask is off the border of the observed hair, its vertices should move along the normal of the border: an active
contour whose unknowns are the displacements of the control points of `faceverse.parts.hair_shape`.

Reference: Kass, Witkin and Terzopoulos 1988, "Snakes: Active contour models". Conventions: see camera.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter
from scipy.spatial import cKDTree

from ..graphics.camera import Camera, project
from ..graphics.rasterize import Fragments, rasterize
from ..parts.hair_shape import CONTROL_POINTS, hair_basis
from ..parts.part import Part

LEAST_COVER = 0.4  # mean alpha from which a triangle belongs to the mask of a style
# Deviations of the displacements, metres: of a point alone, from its neighbours, from its mirrored twin, and along the
# line of sight, of which a photograph says nothing.
_OWN_M, _NEIGHBOUR_M, _TWIN_M = 0.030, 0.010, 0.020
_NEIGHBOURHOOD_M = 0.11  # distance up to which control points are neighbours
_SIGMA_PX, _EFFECTIVE_POINTS = 1.5, 60.0  # deviation of a border point, and how many of them are independent
_BEYOND = 0.25  # of hair beyond the photograph's edge, relative to hidden hair: most hair goes on there
_LAYER_M, _CLOSE_M = 0.03, 0.13  # thickness of a layer of hair; distance from the skull's centre of most hair
_REACH = 0.18  # share of the crop up to which a border point looks for the other border


@dataclass(frozen=True)
class HairObservation:
    """Hair in a square crop of a photograph.

    Attributes:
        hair: (S, S) bool, pixels that show the person's hair.
        weight: (S, S) float32, how much each pixel says about the hair: 0 where hats or hands hide it and outside the
            photograph, less on clothes, before and behind which hair can hang, more on the face.
        camera: of the crop.
        rotation, translation: (3, 3) and (3,) metres, head to camera.
        head_px: (V, 3) projected vertices of the head, with depth.
        faces: (F, 3) of the head.
        coherence: of the hair's texture, 0 curls .. 1 parallel strands, or NaN.
    """

    hair: np.ndarray
    weight: np.ndarray
    camera: Camera
    rotation: np.ndarray
    translation: np.ndarray
    head_px: torch.Tensor
    faces: torch.Tensor
    coherence: float = float("nan")

    @cached_property
    def head_depth(self) -> np.ndarray:
        """(S, S) metres, infinite where the head is not."""
        depth = rasterize(self.head_px[None], self.faces, self.camera.image_size).depth[0].numpy()
        return np.where(depth > 0, depth, np.inf)

    @cached_property
    def distance(self) -> np.ndarray:
        """(S, S) pixels to the border of the hair, negative inside, a little smoothed."""
        inside, outside = distance_transform_edt(self.hair), distance_transform_edt(~self.hair)
        return gaussian_filter((outside - inside).astype(np.float32), 1.0)

    @cached_property
    def slope(self) -> np.ndarray:
        """(2, S, S) gradient of `distance` to the right and downwards."""
        down, right = np.gradient(self.distance)
        return np.stack([right, down])


@dataclass(frozen=True)
class DrawnHair:
    """A style as the photograph would show it.

    Attributes:
        mask: (S, S) bool, pixels that show hair.
        strands: (S, S) bool, those that show its mesh, not the scalp alone.
        fragments: of its mesh.
        pixel_per_metre: (P,) scale at its vertices.
    """

    mask: np.ndarray
    strands: np.ndarray
    fragments: Fragments
    pixel_per_metre: np.ndarray


def solid_faces(part: Part) -> np.ndarray:
    """(K, 3) triangles of a part that its texture covers on the whole."""
    return np.ascontiguousarray(part.faces[face_cover(part) >= LEAST_COVER])


def face_cover(part: Part) -> np.ndarray:
    """(F,) mean alpha of the texture in each triangle of a part."""
    alpha = part.material.texture[..., 3].astype(np.float32) / 255
    height, width = alpha.shape
    corners = part.uv[part.uv_faces]
    weights = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4]], np.float32)
    points = np.einsum("kc,fcd->fkd", weights / weights.sum(1, keepdims=True), corners)
    column, row = (np.clip((points[..., k] * n).astype(int), 0, n - 1) for k, n in ((0, width), (1, height)))
    return alpha[row, column].mean(1)


def draw_hair(
    observed: HairObservation, vertices: np.ndarray, faces: np.ndarray, below: np.ndarray | None = None
) -> DrawnHair:
    """Draw a style as a mask.

    Args:
        vertices: (P, 3) in head space.
        faces: (F, 3) that cover.
        below: (S, S) bool, where the short hairs on the scalp show anyhow.
    """
    posed = torch.from_numpy((vertices @ observed.rotation.T + observed.translation).astype(np.float32))
    pixels = project(posed, observed.camera)
    fragments = rasterize(pixels[None], torch.from_numpy(faces), observed.camera.image_size)
    depth = fragments.depth[0].numpy()
    strands = (depth > 0) & (depth < observed.head_depth)
    mask = strands if below is None else strands | below
    return DrawnHair(mask, strands, fragments, observed.camera.focal_px / np.maximum(pixels[:, 2].numpy(), 1e-3))


def agreement(observed: HairObservation, mask: np.ndarray) -> float:
    """Weighted intersection over union of a mask (S, S) with the observed hair; 1 if both are empty."""
    union = float(observed.weight[mask | observed.hair].sum())
    return 1.0 if union == 0 else float(observed.weight[mask & observed.hair].sum()) / union


def hidden_volume(observed: HairObservation, drawn: DrawnHair, vertices: np.ndarray, centre: np.ndarray) -> float:
    """Metres by which the vertices (P, 3) that the photograph does not show stand off the skull, on average.

    Args:
        centre: (3,) of the skull.
    """
    size = observed.camera.image_size[0]
    posed = torch.from_numpy((vertices @ observed.rotation.T + observed.translation).astype(np.float32))
    x, y, depth = project(posed, observed.camera).numpy().T
    column, row = (np.clip(values.astype(int), 0, size - 1) for values in (x, y))
    front = drawn.fragments.depth[0].numpy()[row, column]
    nearest = np.minimum(np.where(front > 0, front, np.inf), observed.head_depth[row, column])
    shown = (x >= 0) & (x < size) & (y >= 0) & (y < size) & (observed.weight[row, column] > 0)
    unseen = np.where(shown, (depth > nearest + _LAYER_M).astype(float), _BEYOND)
    away = np.maximum(np.linalg.norm(vertices - centre, axis=1) - _CLOSE_M, 0)
    return float((away * unseen).mean())


class OutlineSolver:
    """Finds the displacements of the control points (K, 3) that bring a style to the observed border.

    Args:
        part: the style.
        faces: (F, 3) that cover.
    """

    def __init__(self, part: Part, faces: np.ndarray):
        self.faces, self.basis = faces, hair_basis(part)

    def step(self, observed: HairObservation, drawn: DrawnHair, warp: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """The next displacements (K, 3).

        Args:
            drawn: with the displacements `warp` (K, 3).
            scale: size of the head relative to that on which the styles were made.
        """
        border = _border(drawn.mask, observed.weight > 0)
        border = border[self._is_own_border(observed, drawn, border)]
        if len(border) < 8:
            return warp
        rows, wanted, weights = self._equations(observed, drawn, border)
        count = len(CONTROL_POINTS)
        sigma = np.array([_OWN_M, _NEIGHBOUR_M, _TWIN_M]) * scale
        hessian = _prior(*sigma)
        precision = _EFFECTIVE_POINTS / weights.sum() / _SIGMA_PX**2
        gradient = rows.T @ (weights * (wanted + rows @ warp.reshape(-1))) * precision
        hessian = hessian + (rows.T * weights) @ rows * precision
        return np.linalg.solve(hessian, gradient).reshape(count, 3).astype(np.float32)

    def _equations(
        self, observed: HairObservation, drawn: DrawnHair, border: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (N, 3K), wanted displacements (N,) in pixels along each row's direction, and weights (N,)."""
        x, y = border.T
        normal = observed.slope[:, y, x].T.astype(np.float64)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-6)
        off = observed.distance[y, x].astype(np.float64)
        near = np.abs(off) < _REACH * observed.camera.image_size[0]
        return self._rows(observed, drawn, border, normal), -off, near.astype(np.float64)

    def _rows(
        self, observed: HairObservation, drawn: DrawnHair, border: np.ndarray, direction: np.ndarray
    ) -> np.ndarray:
        """(N, 3K) change in pixels along `direction` (N, 2) of border points (N, 2) by the displacements in metres."""
        x, y = border.T
        corners = self.faces[drawn.fragments.triangle[0, y, x].numpy()]
        weights = drawn.fragments.barycentric[0, y, x].numpy()[..., None]
        basis = (self.basis[corners] * weights).sum(1)
        scale = (drawn.pixel_per_metre[corners] * weights[..., 0]).sum(1)
        along = (direction * (1, -1)) @ observed.rotation[:2] * scale[:, None]
        return (basis[:, :, None] * along[:, None, :]).reshape(len(border), -1)

    def _is_own_border(self, observed: HairObservation, drawn: DrawnHair, border: np.ndarray) -> np.ndarray:
        """(N,) bool: where the style ends, not where the head hides it."""
        x, y = border.T
        size = observed.camera.image_size[0]
        depth, hidden = drawn.fragments.depth[0].numpy(), ~drawn.strands[y, x]
        for right, down in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            column, row = np.clip(x + right, 0, size - 1), np.clip(y + down, 0, size - 1)
            covered = depth[row, column]
            hidden |= ~drawn.mask[row, column] & (covered > 0) & (covered >= observed.head_depth[row, column])
        return ~hidden


def _border(mask: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N, 2) x, y of pixels on the inner border of a mask whose neighbours are all known."""
    inner = mask & ~binary_erosion(mask, border_value=1) & binary_erosion(known, border_value=0)
    return np.argwhere(inner)[:, ::-1]


def _prior(own: float, neighbour: float, twin: float) -> np.ndarray:
    """(3K, 3K) precision of the displacements."""
    points = CONTROL_POINTS.astype(np.float64)
    count = len(points)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    close = (distance < _NEIGHBOURHOOD_M) & ~np.eye(count, dtype=bool)
    laplacian = np.diag(close.sum(1)) - close
    smooth = np.kron(np.eye(count) / own**2 + laplacian / neighbour**2, np.eye(3))
    opposite = np.eye(count)[cKDTree(points).query(points * (-1, 1, 1))[1]]
    uneven = np.eye(3 * count) - np.kron(opposite, np.diag([-1.0, 1.0, 1.0]))
    return smooth + 0.5 * uneven.T @ uneven / twin**2
