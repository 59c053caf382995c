"""Outline of a hair style against the hair in a photograph: how well they agree, and the warp that makes them agree.

A style is drawn as a mask in a small crop of the photograph, with the head before and behind it. Where the border of
that mask is off the border of the observed hair, its vertices should move along the normal of the border: an active
contour. Its unknowns are the volumes and the length of the style, which change all sides alike, and small displacements
of the control points of `faceverse.parts.hair_shape` for the rest.

Reference: Kass, Witkin and Terzopoulos 1988, "Snakes: Active contour models". Conventions: see camera.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from scipy.linalg import block_diag
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter
from scipy.spatial import cKDTree

from ..graphics.camera import Camera, project
from ..graphics.rasterize import Fragments, rasterize
from ..parts.hair import Hair
from ..parts.hair_shape import CONTROL_POINTS, VOLUMES, HairOnHead
from ..parts.identity import Same
from ..parts.part import Part

LEAST_COVER = 0.4  # mean alpha from which a triangle belongs to the mask of a style
# Deviations of the displacements, metres: of a point alone, from its neighbours, from its mirrored twin.
_OWN_M, _NEIGHBOUR_M, _TWIN_M = 0.012, 0.006, 0.012
_MOST_M = 0.025  # longest displacement
_SHAPE = (*VOLUMES, "length")
_SHAPE_SIGMA = (0.4, 0.4, 0.3, 0.35)  # deviations of these from 1
_SHAPE_LIMITS = ((0.5, 2.2), (0.4, 1.9), (0.5, 1.6), (0.45, 1.7))
_LEAST_SHORT = 0.75  # least length of styles that lie on the head
_NEIGHBOURHOOD_M = 0.11  # distance up to which control points are neighbours
_SIGMA_PX, _EFFECTIVE_POINTS = 1.5, 60.0  # deviation of a border point, and how many of them are independent
_BEYOND = 0.25  # of hair beyond the photograph's edge, relative to hidden hair: most hair goes on there
_LAYER_M, _CLOSE_M = 0.03, 0.13  # thickness of a layer of hair; distance from the skull's centre of most hair
_AROUND = 0.15  # width of the surroundings of a head, relative to the root of its area
_SECTOR_ENDS_DEG = (50.0, 100.0)  # from the top of the head to its sides, and from there to what hangs
_NORMAL_PX = 1.5  # blur of the mask whose gradient is the normal of its border
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
        centre: (3,) of the skull, in head space.
        sector: (S, S) int, places around the skull, see `sectors`.
        coherence: of the hair's texture, 0 curls .. 1 parallel strands, or NaN.
    """

    hair: np.ndarray
    weight: np.ndarray
    camera: Camera
    rotation: np.ndarray
    translation: np.ndarray
    head_px: torch.Tensor
    faces: torch.Tensor
    centre: np.ndarray
    sector: np.ndarray
    coherence: float = float("nan")

    @cached_property
    def head_depth(self) -> np.ndarray:
        """(S, S) metres, infinite where the head is not."""
        depth = rasterize(self.head_px[None], self.faces, self.camera.image_size).depth[0].numpy()
        return np.where(depth > 0, depth, np.inf)

    @cached_property
    def known(self) -> float:
        """Share 0..1 of the surroundings of the head that the photograph shows."""
        head = np.isfinite(self.head_depth)
        reach = max(1, round(_AROUND * np.sqrt(np.count_nonzero(head))))
        around = binary_dilation(head, iterations=reach) & ~head
        return float((self.weight[around] > 0).mean()) if around.any() else 1.0


@dataclass(frozen=True)
class DrawnHair:
    """A style as the photograph would show it.

    Attributes:
        mask: (S, S) bool, pixels that show hair.
        strands: (S, S) bool, those that show its mesh, not the scalp alone.
        fragments: of its mesh.
        vertices: (P, 3) of its mesh in head space.
        vertices_px: (P, 3) projected, with depth.
        faces: (F, 3) that were drawn.
    """

    mask: np.ndarray
    strands: np.ndarray
    fragments: Fragments
    vertices: np.ndarray
    vertices_px: np.ndarray
    faces: np.ndarray


def sectors(size: int, centre_px: np.ndarray, up_px: np.ndarray) -> np.ndarray:
    """(S, S) sectors of the pixels around a skull: top, side and below, each on the left and on the right.

    Args:
        centre_px: (2,) of the skull.
        up_px: (2,) direction of its top.
    """
    x, y = np.meshgrid(np.arange(size) + 0.5 - centre_px[0], np.arange(size) + 0.5 - centre_px[1])
    angle = np.degrees(np.arctan2(x * -up_px[1] + y * up_px[0], x * up_px[0] + y * up_px[1]))
    return 2 * np.digitize(np.abs(angle), _SECTOR_ENDS_DEG) + (angle > 0)


def solid_faces(part: Part) -> np.ndarray:
    """(K, 3) triangles of a part that its texture covers on the whole; equal parts share one array."""
    return _solid_faces(*(Same(values) for values in (part.material.texture, part.uv, part.uv_faces, part.faces)))


@lru_cache(maxsize=64)
def _solid_faces(texture: Same, uv: Same, uv_faces: Same, faces: Same) -> np.ndarray:
    return np.ascontiguousarray(faces.value[_cover(texture.value, uv.value[uv_faces.value]) >= LEAST_COVER])


def face_cover(part: Part) -> np.ndarray:
    """(F,) mean alpha of the texture in each triangle of a part."""
    return _cover(part.material.texture, part.uv[part.uv_faces])


def _cover(texture: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(F,) mean alpha of a texture (H, W, 4) in triangles (F, 3, 2) of it."""
    alpha = texture[..., 3].astype(np.float32) / 255
    height, width = alpha.shape
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
    return DrawnHair(mask, strands, fragments, vertices, pixels.numpy(), faces)


def agreement(observed: HairObservation, mask: np.ndarray) -> float:
    """How well a mask (S, S) agrees with the observed hair, 0..1; 1 if both are empty.

    The weighted intersection over union in each sector, averaged with the root of the union as weight: wrong labels in
    one place, such as a bystander's hair, do not outvote the others.
    """
    sector = observed.sector.ravel()
    union, common = (
        np.bincount(sector, (observed.weight * chosen).ravel(), 6)
        for chosen in (mask | observed.hair, mask & observed.hair)
    )
    weight = np.sqrt(union)
    if not weight.any():
        return 1.0
    return float((weight * common / np.maximum(union, 1e-9)).sum() / weight.sum())


def hidden_volume(observed: HairObservation, drawn: DrawnHair) -> float:
    """Metres by which the vertices (P, 3) that the photograph does not show stand off the skull, on average."""
    size = observed.camera.image_size[0]
    x, y, depth = drawn.vertices_px.T
    column, row = (np.clip(values.astype(int), 0, size - 1) for values in (x, y))
    front = drawn.fragments.depth[0].numpy()[row, column]
    nearest = np.minimum(np.where(front > 0, front, np.inf), observed.head_depth[row, column])
    shown = (x >= 0) & (x < size) & (y >= 0) & (y < size) & (observed.weight[row, column] > 0)
    unseen = np.where(shown, (depth > nearest + _LAYER_M).astype(float), _BEYOND)
    away = np.maximum(np.linalg.norm(drawn.vertices - observed.centre, axis=1) - _CLOSE_M, 0)
    return float((away * unseen).mean())


class OutlineSolver:
    """Finds the shape that brings a style to the observed border.

    Args:
        style: on the head.
        faces: (F, 3) that cover.
    """

    def __init__(self, style: HairOnHead, faces: np.ndarray):
        self.style, self.faces = style, faces

    def step(self, observed: HairObservation, drawn: DrawnHair, hair: Hair) -> Hair:
        """The hair with its next shape.

        Args:
            drawn: with the shape of `hair`.
        """
        border = _border(drawn.mask, observed.weight > 0)
        border = border[self._is_own_border(observed, drawn, border)]
        if len(border) < 8:
            return hair
        rows, wanted, weights = self._equations(observed, drawn, border, hair)
        shape = np.array([getattr(hair, name) for name in _SHAPE]) - 1
        now = np.concatenate([shape, hair.warp.reshape(-1).astype(np.float64)])
        precision = _EFFECTIVE_POINTS / max(weights.sum(), 1e-9) / _SIGMA_PX**2
        gradient = rows.T @ (weights * (wanted + rows @ now)) * precision
        hessian = _prior(self.style.scale) + (rows.T * weights) @ rows * precision
        found = np.linalg.solve(hessian, gradient)
        values = {
            name: float(np.clip(1 + value, *limits))
            for name, value, limits in zip(_SHAPE, found, _SHAPE_LIMITS, strict=False)
        }
        if self.style.fields.shortness > 0.5:
            values["length"] = max(values["length"], _LEAST_SHORT)
        warp = found[len(_SHAPE):].reshape(-1, 3)
        warp *= np.minimum(1, _MOST_M / np.linalg.norm(warp, axis=1, keepdims=True).clip(1e-9))
        return hair.replace(**values, warp=np.float32(warp))

    def _equations(
        self, observed: HairObservation, drawn: DrawnHair, border: np.ndarray, hair: Hair
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (N, 4 + 3K), wanted displacements (N,) in pixels along each row's direction, and weights (N,)."""
        down, right = np.gradient(gaussian_filter(drawn.mask.astype(np.float32), _NORMAL_PX))
        x, y = border.T
        outward = -np.stack([right[y, x], down[y, x]], axis=1).astype(np.float64)
        outward /= np.linalg.norm(outward, axis=1, keepdims=True).clip(1e-6)
        wanted, is_found = _border_along(observed, border, outward)
        weights = is_found * np.minimum(observed.weight[y, x], 1.0).astype(np.float64)
        return self._rows(observed, drawn, border, outward, hair), wanted, weights

    def _rows(
        self, observed: HairObservation, drawn: DrawnHair, border: np.ndarray, direction: np.ndarray, hair: Hair
    ) -> np.ndarray:
        """(N, 4 + 3K) change in pixels along `direction` (N, 2) of border points (N, 2) by the unknowns."""
        x, y = border.T
        corners = self.faces[drawn.fragments.triangle[0, y, x].numpy()]
        weights = drawn.fragments.barycentric[0, y, x].numpy()
        scale = observed.camera.focal_px / np.maximum(drawn.vertices_px[corners, 2] * weights, 1e-3).sum(1)
        along = (direction * (1, -1)) @ observed.rotation[:2] * scale[:, None]
        basis = (self.style.fields.basis[corners] * weights[..., None]).sum(1)
        warp = (basis[:, :, None] * along[:, None, :]).reshape(len(border), -1)
        shape = np.einsum("knmd,nm,nd->nk", self.style.directions(hair)[:, corners], weights, along)
        return np.concatenate([shape, warp], axis=1)

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


def _border_along(
    observed: HairObservation, border: np.ndarray, outward: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N,) from border points (N, 2) along outward directions (N, 2) to where the observed hair ends, and
    whether it does (N,): outward from hair, inward from what is none."""
    size = observed.camera.image_size[0]
    reach = round(_REACH * size)
    steps = np.arange(-reach, reach + 1)
    places = np.rint(border[:, None] + steps[:, None] * outward[:, None]).astype(int)
    is_inside = ((places >= 0) & (places < size)).all(axis=2)
    x, y = np.clip(places, 0, size - 1).transpose(2, 0, 1)
    hair, known = observed.hair[y, x] & is_inside, (observed.weight[y, x] > 0) & is_inside
    here = hair[:, reach]
    ends, begins = ~hair[:, reach + 1:], hair[:, :reach][:, ::-1]
    out, back = ends.argmax(1), begins.argmax(1)
    rows = np.arange(len(border))
    is_found = np.where(here, ends.any(1) & known[rows, reach + 1 + out], begins.any(1))
    # Without any hair inward the style has to retreat.
    is_found |= ~here & known[:, :reach].all(1)
    return np.where(here, out + 0.5, -np.where(begins.any(1), back, reach) - 0.5), is_found


@lru_cache(maxsize=8)
def _displacement_precision() -> np.ndarray:
    """(3K, 3K) precision of the displacements on the head on which the styles were made."""
    points = CONTROL_POINTS.astype(np.float64)
    count = len(points)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    close = (distance < _NEIGHBOURHOOD_M) & ~np.eye(count, dtype=bool)
    laplacian = np.diag(close.sum(1)) - close
    smooth = np.kron(np.eye(count) / _OWN_M**2 + laplacian / _NEIGHBOUR_M**2, np.eye(3))
    opposite = np.eye(count)[cKDTree(points).query(points * (-1, 1, 1))[1]]
    uneven = np.eye(3 * count) - np.kron(opposite, np.diag([-1.0, 1.0, 1.0]))
    return smooth + 0.5 * uneven.T @ uneven / _TWIN_M**2


def _prior(scale: float) -> np.ndarray:
    """(4 + 3K, 4 + 3K) precision of the unknowns on a head `scale` times as large as that of the styles."""
    return block_diag(np.diag(1 / np.square(_SHAPE_SIGMA)), _displacement_precision() / scale**2)
