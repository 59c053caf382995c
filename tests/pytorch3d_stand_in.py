"""A slow stand-in for the two names of pytorch3d that faceverse uses, written to pytorch3d's documented conventions.

With it, machines without pytorch3d test that faceverse speaks those conventions; machines with pytorch3d also test that
the stand-in answers like the real one (test_rasterize.py).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_AREA = 1e-8
"""pytorch3d leaves out triangles of at most this area (twice, in screen units)."""


@dataclass
class Meshes:
    """Lists of vertices (V, 3) and faces (F, 3), one pair per mesh."""

    verts: list[Tensor]
    faces: list[Tensor]


def rasterize_meshes(
    meshes: Meshes,
    image_size: tuple[int, int],
    blur_radius: float = 0.0,
    faces_per_pixel: int = 8,
    bin_size: int | None = None,
    max_faces_per_bin: int | None = None,
    perspective_correct: bool = False,
    clip_barycentric_coords: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The nearest triangles at each pixel.

    The screen has +x to the left and +y up; the shorter side of the picture spans -1..1; depth is positive in front.
    Pixels outside a triangle count as hit up to the squared distance `blur_radius`. There are no bins here.

    Returns:
        Triangle (N, H, W, K), depth (N, H, W, K), barycentric weights (N, H, W, K, 3) and squared distance to the
        outline (N, H, W, K), which is negative inside; all of them -1 where there is no K-th triangle.
    """
    assert perspective_correct and clip_barycentric_coords, "only what faceverse uses"
    assert bin_size is None and max_faces_per_bin >= max(len(faces) for faces in meshes.faces), "bins would overflow"
    pictures = [
        _nearest(vertices[faces], image_size, blur_radius, faces_per_pixel)
        for vertices, faces in zip(meshes.verts, meshes.faces)
    ]
    return tuple(torch.stack(images) for images in zip(*pictures))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _squared_distance(point: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Of points to line segments, squared."""
    along = end - start
    share = (((point - start) * along).sum(-1) / (along * along).sum(-1).clamp(min=1e-30)).clamp(0, 1)
    return (point - start - share[..., None] * along).square().sum(-1)


def _nearest(corners: Tensor, image_size: tuple[int, int], blur_radius: float, count: int) -> tuple[Tensor, ...]:
    """The `count` nearest triangles (F, 3, 3) at each pixel of one picture."""
    height, width = image_size
    up, left = ((size - 1 - 2 * torch.arange(size)) / min(image_size) for size in image_size)
    y, x = torch.meshgrid(up, left, indexing="ij")
    point = torch.stack((x, y), -1)  # (H, W, 2)
    flat, depths = corners[:, None, None, :, :2], corners[:, None, None, :, 2]  # (F, 1, 1, 3, ...)
    a, b, c = flat.unbind(-2)
    area = _cross(b - a, c - a)
    areas = torch.stack((_cross(b - point, c - point), _cross(c - point, a - point), _cross(a - point, b - point)), -1)
    weights = areas / area[..., None] / depths
    weights = weights / weights.sum(-1, keepdim=True)
    inside = (weights > 0).all(-1)
    squared = torch.stack([_squared_distance(point, *ends) for ends in ((a, b), (b, c), (c, a))]).amin(0)
    weights = weights.clamp(min=0) / weights.clamp(min=0).sum(-1, keepdim=True)
    depth = (weights * depths).sum(-1)
    hit = (inside | (squared < blur_radius)) & (area.abs() > MIN_AREA) & (depths.amin(-1) > 0) & (depth >= 0)

    # A stable sort keeps the lower index first among equal depths.
    order = torch.where(hit, depth, torch.inf).sort(dim=0, stable=True).indices[:count]
    hit, depth, squared, inside = (image.gather(0, order) for image in (hit, depth, squared, inside))
    weights = weights.gather(0, order[..., None].expand(*order.shape, 3))
    squared = torch.where(inside, -squared, squared)
    missing = count - len(order)
    pictures = (
        torch.where(hit, order, -1), torch.where(hit, depth, -1),
        torch.where(hit[..., None], weights, -1), torch.where(hit, squared, -1),
    )  # fmt: skip
    padded = (torch.cat((images, images.new_full((missing, *images.shape[1:]), -1))) for images in pictures)
    return tuple(images.movedim(0, 2) for images in padded)
