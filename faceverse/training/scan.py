"""A scan: a measured surface of triangles or points, with colours or a texture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..errors import FaceVerseError
from ..graphics.lighting import linear_from_srgb
from ..messages import Message
from .surface_fit import mesh_normals


class ScanError(FaceVerseError):
    """A scan cannot be read or used; the message is the reason."""


@dataclass(frozen=True)
class ScanTexture:
    """A texture image on a mesh.

    Args:
        uv: (N, 2) of the scan's vertices, origin top left, in 0..1.
        rgb: (H, W, 3) uint8 sRGB.
    """

    uv: np.ndarray
    rgb: np.ndarray


@dataclass(frozen=True)
class Scan:
    """A measured surface.

    Args:
        vertices: (N, 3) float64 in the scan's own unit and axes.
        faces: (F, 3) int64, or None for a point cloud.
        normals: (N, 3) unit length, or None for a point cloud.
        colors: (N, 3) float32 linear RGB, or None.
        texture: has precedence over the colours; or None.
        unit_m: metres per unit if the file specifies it, else None.
    """

    vertices: np.ndarray
    faces: np.ndarray | None = None
    normals: np.ndarray | None = None
    colors: np.ndarray | None = None
    texture: ScanTexture | None = None
    unit_m: float | None = None

    @property
    def has_color(self) -> bool:
        """Whether the surface has colours."""
        return self.colors is not None or self.texture is not None

    def color_at(self, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Linear RGB (P, 3) at combinations of vertices: corners (P, K) with weights (P, K) that sum to 1."""
        if self.texture is None:
            assert self.colors is not None
            return (self.colors[corners] * weights[..., None]).sum(1)
        height, width = self.texture.rgb.shape[:2]
        place = np.nan_to_num((self.texture.uv[corners] * weights[..., None]).sum(1), posinf=0.0, neginf=0.0)
        place = np.where((place < 0) | (place > 1), place % 1.0, place)  # textures repeat outside 0..1
        column = np.minimum((place[:, 0] * width).astype(int), width - 1)
        row = np.minimum((place[:, 1] * height).astype(int), height - 1)
        return LINEAR_OF_BYTE[self.texture.rgb[row, column]]


LINEAR_OF_BYTE = linear_from_srgb(torch.arange(256) / 255).numpy()


# -- handling ---------------------------------------------------------------------------------------------------------
def with_normals(scan: Scan) -> Scan:
    """Add area-weighted normals to a mesh that has none."""
    if scan.faces is None or scan.normals is not None:
        return scan
    return replace(scan, normals=mesh_normals(scan.vertices, scan.faces))


def keep_vertices(scan: Scan, keep: np.ndarray) -> Scan:
    """Keep the vertices where keep (N,) is true, and the triangles whose corners are all kept."""
    if keep.all():
        return scan
    number = np.cumsum(keep) - 1
    return replace(
        scan,
        vertices=scan.vertices[keep],
        faces=None if scan.faces is None else number[scan.faces[keep[scan.faces].all(1)]],
        normals=None if scan.normals is None else scan.normals[keep],
        colors=None if scan.colors is None else scan.colors[keep],
        texture=None if scan.texture is None else replace(scan.texture, uv=scan.texture.uv[keep]),
    )


def transformed(scan: Scan, matrix: np.ndarray, translation: np.ndarray) -> Scan:
    """Transform all points x to matrix @ x + translation; the matrix (3, 3) is a scaled rotation."""
    rotation = matrix / np.cbrt(np.linalg.det(matrix))
    normals = None if scan.normals is None else scan.normals @ rotation.T
    return replace(scan, vertices=scan.vertices @ matrix.T + translation, normals=normals)


def merge_scans(scans: list[Scan]) -> Scan:
    """Merge scans of one space; textures are converted to vertex colours."""
    start = np.cumsum([0, *(len(scan.vertices) for scan in scans)])
    has_faces = all(scan.faces is not None for scan in scans)
    colors = None
    if all(scan.has_color for scan in scans):
        own = [np.arange(len(scan.vertices))[:, None] for scan in scans]
        colors = np.concatenate([s.color_at(i, np.ones(i.shape)) for s, i in zip(scans, own)]).astype(np.float32)
    return Scan(
        np.concatenate([scan.vertices for scan in scans]),
        np.concatenate([scan.faces + k for scan, k in zip(scans, start)]) if has_faces else None,
        np.concatenate([s.normals for s in scans]) if all(s.normals is not None for s in scans) else None,
        colors,
        unit_m=scans[0].unit_m,
    )


def reason_in_line(error: Exception) -> str:
    """The first line of what other code says about an error, or its message."""
    if error.args and isinstance(error.args[0], Message):
        return error.args[0]
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
