"""Render a head: differentiable image formation for optimisation, and finished pictures.

Conventions (axes, pixels, colours): see camera.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, singledispatch
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..errors import ParameterError
from ..graphics.camera import Camera, project, rotation_from_euler_deg, transform
from ..graphics.lighting import linear_from_srgb, shading, srgb_from_linear
from ..graphics.mesh import vertex_normals
from ..graphics.rasterize import Fragments, interpolate, rasterize
from ..result import FitResult
from .drawing import draw, posed_head
from .posed import LINEAR_OF_BYTE, as_tensor

MAX_SIZE = 8192
OVERLAY_LONG_SIDE_PX = 1024
_FRAME_MARGIN = 1.08  # side of the default picture over the side of the head in it

# ---------------------------------------------------------------------------------------------------- for optimisation


@dataclass(frozen=True)
class Shaded:
    """A batch of differentiable renderings.

    Attributes:
        rgb: (N, H, W, 3) linear light, 0 outside the head; not clipped.
        fragments: which triangle is seen where.
        vertex_normals_cam: (N, V, 3) unit normals, camera space.
        faces: (F, 3).
    """

    rgb: Tensor
    fragments: Fragments
    vertex_normals_cam: Tensor
    faces: Tensor

    @property
    def mask(self) -> Tensor:
        """(N, H, W) bool, True on the head."""
        return self.fragments.mask

    @property
    def depth(self) -> Tensor:
        """(N, H, W) metres, 0 outside the head."""
        return self.fragments.depth

    @cached_property
    def normals_cam(self) -> Tensor:
        """(N, H, W, 3) unit normals, camera space, 0 outside the head."""
        normals = interpolate(self.fragments, self.vertex_normals_cam, self.faces)
        return torch.nn.functional.normalize(normals, dim=-1)


def render_head(
    vertices: Tensor,
    albedo: Tensor,
    faces: Tensor,
    rotation: Tensor,
    translation: Tensor,
    light: Tensor,
    camera: Camera,
    *,
    backend: str = "auto",
) -> Shaded:
    """Render posed and lit heads differentiably (Wang et al. 2022, section 3.3).

    Gouraud shading: second-order harmonics are smooth enough to be evaluated at the vertices and interpolated with the
    albedo. Gradients reach every tensor argument except through visibility, which is discrete at silhouettes.

    Args:
        vertices: (N, V, 3) metres, head space.
        albedo: (N, V, 3) or (1, V, 3) linear RGB.
        faces: (F, 3) int64.
        rotation, translation: (N, 3, 3) and (N, 3), head to camera.
        light: (N, 9, 3) or (1, 9, 3) spherical harmonics.
        camera: one for the whole batch.
        backend: see `rasterize`.
    """
    vertices_cam = transform(vertices, rotation, translation)
    normals = vertex_normals(vertices_cam, faces)
    fragments = rasterize(project(vertices_cam, camera), faces, camera.image_size, backend=backend)
    rgb = interpolate(fragments, albedo * shading(normals, light), faces)
    return Shaded(rgb, fragments, normals, faces)


# --------------------------------------------------------------------------------------------------- finished pictures


@dataclass(frozen=True)
class Rendering:
    """A finished picture.

    Attributes:
        rgb: (H, W, 3) uint8 sRGB.
        mask: (H, W) bool, True where the head covers at least half of the pixel.
        depth: (H, W) float32 metres, 0 outside the mask.
    """

    rgb: np.ndarray
    mask: np.ndarray
    depth: np.ndarray


@singledispatch
def render(
    result: FitResult | Any,  # Any: types that other modules register
    size: int | tuple[int, int] = 512,
    mode: str = "color",
    *,
    camera: Camera | None = None,
    rotation=None,
    background: tuple[float, float, float] = (255, 255, 255),
    supersample: int = 2,
) -> Rendering:
    """Render a picture of a head.

    Without `camera` the view is that of the photograph, framed around the head. With `rotation` and no `camera` the
    head rotates about the centre of the picture, at the photograph's distance, framed so that every rotation fits.

    Args:
        result: the head, with its expression.
        size: pixels, one number for a square or (height, width), each 1..8192; ignored with `camera`.
        mode: a name in `RENDER_MODES`: "color" (texture in the fitted light), "albedo" (texture alone), "clay",
            "normal" (camera space), "depth" (near is bright), "uv" (texture coordinates), "wireframe" (of the coarse
            mesh).
        camera: renders with this camera, in a picture of its `image_size`.
        rotation: head to camera instead of the fitted one: (yaw, pitch, roll) in degrees or a matrix (3, 3).
        background: sRGB, 0..255.
        supersample: 1..4, samples per pixel in each direction.
    Returns:
        Rendering. A tangent-space `result.normal_map` shows in "color" and "clay".
    Raises:
        ParameterError: unknown mode, or a size, rotation, background or supersample outside its range.
    """
    ground = _check_background(background)
    if isinstance(supersample, bool) or supersample not in (1, 2, 3, 4):
        raise ParameterError("render.supersample", supersample=repr(supersample))
    height, width = _check_size(camera.image_size if camera is not None else size)
    pose, translation = _pose(result)
    if rotation is not None:
        centre, radius = _bounding_sphere(result)
        centre_cam = pose @ centre + translation
        if camera is None:
            distance = max(float(-centre_cam[2]), 2 * radius)
            centre_cam = np.array([0, 0, -distance])
            half = result.camera.focal_px * radius / np.sqrt(distance**2 - radius**2)
            x, y = result.camera.principal_point_px
            camera = _framed(result.camera, (x - half, y - half, x + half, y + half), (height, width))
        pose = rotation_matrix(rotation)
        translation = centre_cam - pose @ centre
    if camera is None:
        camera = _framed(result.camera, head_box_px(result), (height, width))
    drawn = draw(posed_head(result, mode, pose, translation), mode, camera, supersample)
    rgb = _encode(drawn.rgb + (1 - drawn.coverage)[..., None] * ground)
    mask = drawn.coverage >= 0.5
    return Rendering(rgb, mask.numpy(), torch.where(mask, drawn.depth, 0).numpy())


def overlay(photo_rgb: np.ndarray, result: FitResult, mode: str = "color", alpha: float = 1.0) -> np.ndarray:
    """Render the head over its photograph.

    Args:
        photo_rgb: (H, W, 3) uint8 sRGB, the picture that `result.camera` belongs to, in any resolution.
        mode: see `render`.
        alpha: opacity of the head, 0..1.
    Returns:
        (h, w, 3) uint8, the photograph scaled down to at most 1024 pixels on its long side.
    Raises:
        ParameterError: a photograph of another shape or aspect ratio, unknown mode, alpha outside 0..1.
    """
    photo = _check_photo(photo_rgb, result)
    factor = min(1.0, OVERLAY_LONG_SIDE_PX / max(photo.shape[:2]))
    height, width = (max(1, round(side * factor)) for side in photo.shape[:2])
    if factor < 1:
        photo = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))
    frame = (0, 0, result.camera.image_size[1], result.camera.image_size[0])
    return _over(photo, result, result.camera.cropped(frame, (height, width)), mode, alpha)


def overview(photo_rgb: np.ndarray, result: FitResult, size: int = 512) -> np.ndarray:
    """Photograph, overlay, clay and texture side by side, the first three cropped to one square around the head.

    Args:
        photo_rgb: (H, W, 3) uint8 sRGB, the picture that `result.camera` belongs to, in any resolution.
        size: 1..8192, height of the picture.
    Returns:
        (size, 4 * size, 3) uint8.
    Raises:
        ParameterError: as in `overlay` and `render`.
    """
    size = _check_size(size)[0]
    crop, camera, _ = _around_head(_check_photo(photo_rgb, result), result, size)
    over = _over(crop, result, camera, "color", 1.0)
    clay = render(result, mode="clay", camera=camera).rgb
    texture = np.asarray(Image.fromarray(result.texture).resize((size, size), Image.Resampling.LANCZOS))
    return np.concatenate([crop, over, clay, texture], axis=1)


def stage_pictures(photo_rgb: np.ndarray, result: FitResult, size: int = 512) -> dict[str, np.ndarray]:
    """Pictures of the stages from photograph to head, cropped to one square around it (Wang et al. 2022, figure 1).

    Args:
        photo_rgb: (H, W, 3) uint8 sRGB, the picture that `result.camera` belongs to, in any resolution.
        size: 1..8192 pixels, of each picture.
    Returns:
        (size, size, 3) uint8 by name, in order: "photo"; "landmarks", the detected points on the photograph, if there
        are any; "base", the fitted shape; "detail", the shape with its displacement, if it has any; "final", the
        textured head over the photograph.
    Raises:
        ParameterError: as in `overlay` and `render`.
    """
    size = _check_size(size)[0]
    crop, camera, box = _around_head(_check_photo(photo_rgb, result), result, size)
    pictures = {"photo": crop}
    if result.landmarks_px is not None:
        points = (result.landmarks_px - box[:2]) * (size / (box[2] - box[0]))
        pictures["landmarks"] = _with_points(crop, points)
    smooth = result.replace(normal_map=None, displacement=None)
    pictures["base"] = render(smooth, mode="clay", camera=camera).rgb
    if result.normal_map is not None:
        pictures["detail"] = render(result, mode="clay", camera=camera).rgb
    return pictures | {"final": _over(crop, result, camera, "color", 1.0)}


def turntable(result: FitResult, size: int = 256, yaws_deg=(-60, -30, 0, 30, 60), mode: str = "color") -> np.ndarray:
    """Render views from several yaw angles side by side: (size, len(yaws_deg) * size, 3) uint8."""
    return np.concatenate([render(result, size, mode, rotation=(yaw, 0, 0)).rgb for yaw in yaws_deg], axis=1)


def head_box_px(result: FitResult) -> tuple[float, float, float, float]:
    """Square (x0, y0, x1, y1) around the head in its photograph, with a margin; may extend beyond the picture."""
    pose, translation = _pose(result)
    points = project(as_tensor(_all_vertices(result) @ pose.T + translation), result.camera).numpy()
    points = points[(points[:, 2] > 1e-3) & np.isfinite(points).all(1), :2]
    if not len(points):
        height, width = result.camera.image_size
        points = np.array([[0, 0], [width, height]])
    low, high = points.min(0), points.max(0)
    x, y = (float(c) for c in (low + high) / 2)
    half = max(float((high - low).max()) / 2 * _FRAME_MARGIN, 0.5)
    return x - half, y - half, x + half, y + half


def rotation_matrix(rotation) -> np.ndarray:
    """Rotation (3, 3) float32 from (yaw, pitch, roll) in degrees, see `rotation_from_euler_deg`, or from a matrix.

    Raises:
        ParameterError: neither three finite numbers nor a proper rotation.
    """
    try:
        values = np.array(rotation, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.empty(0)
    if values.shape == (3,) and np.isfinite(values).all():
        return rotation_from_euler_deg(*values.tolist()).numpy()
    if values.shape == (3, 3) and np.abs(values).max() < 2:  # a comparison with NaN is false
        if np.abs(values @ values.T - np.eye(3)).max() < 1e-3 and np.linalg.det(values) > 0:
            return values.astype(np.float32)
    raise ParameterError("render.rotation", rotation=repr(rotation))


# ------------------------------------------------------------------------------------------------- photographs, checks


def _over(photo: np.ndarray, result: FitResult, camera: Camera, mode: str, alpha: float) -> np.ndarray:
    """The head over a photograph (H, W, 3) uint8 that `camera` took."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.number)) or not 0 <= alpha <= 1:
        raise ParameterError("render.alpha", alpha=repr(alpha))
    drawn = draw(posed_head(result, mode, *_pose(result)), mode, camera, 2)
    ground = LINEAR_OF_BYTE[torch.from_numpy(np.array(photo)).long()]
    return _encode(alpha * drawn.rgb + (1 - alpha * drawn.coverage)[..., None] * ground)


def _around_head(photo: np.ndarray, result: FitResult, size: int):
    """Crop of the photograph around the head (size, size, 3), its camera, and its box in the photograph that
    `result.camera` belongs to."""
    box = head_box_px(result)
    scale = photo.shape[0] / result.camera.image_size[0]
    crop = _crop(photo, tuple(edge * scale for edge in box), size)
    return crop, _framed(result.camera, box, (size, size)), box


def _with_points(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Dots (N, 2) in pixels on a darkened picture (H, W, 3) uint8."""
    image = Image.fromarray(picture // 2 + 16)
    pen, radius = ImageDraw.Draw(image), picture.shape[0] / 330
    for x, y in points:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(96, 220, 255))
    return np.asarray(image)


def _crop(photo: np.ndarray, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    """The square box of a photograph scaled to (size, size, 3); white where it extends beyond the picture."""
    margin = int(max(0, -min(box[:2]), box[2] - photo.shape[1], box[3] - photo.shape[0])) + 1
    padded = np.pad(photo, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)
    left, top, right, bottom = (edge + margin for edge in box)
    shifted = (left, top, right, bottom)
    return np.asarray(Image.fromarray(padded).resize((size, size), Image.Resampling.LANCZOS, box=shifted))


def _framed(camera: Camera, box: tuple[float, float, float, float], size: tuple[int, int]) -> Camera:
    """The camera of a picture of any aspect ratio with the square box in its middle."""
    x0, y0, x1, y1 = box
    half, short = (x1 - x0) / 2, min(size)
    x, y, half_y, half_x = (x0 + x1) / 2, (y0 + y1) / 2, half * size[0] / short, half * size[1] / short
    return camera.cropped((x - half_x, y - half_y, x + half_x, y + half_y), size)


def _pose(result: FitResult) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(result.params.rotation), np.asarray(result.params.translation)


def _bounding_sphere(result: FitResult) -> tuple[np.ndarray, float]:
    vertices = _all_vertices(result)
    centre = (vertices.min(0) + vertices.max(0)) / 2
    return centre, float(np.linalg.norm(vertices - centre, axis=1).max()) * 1.02


def _all_vertices(result: FitResult) -> np.ndarray:
    """Vertices of the head and its parts, metres, head space."""
    return np.concatenate([result.vertices, *result.part_vertices.values()]) if result.parts else result.vertices


def _encode(linear: Tensor) -> np.ndarray:
    return (srgb_from_linear(linear) * 255 + 0.5).to(torch.uint8).numpy()


def _check_size(size) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, (int, np.integer)) and not isinstance(size, bool) else size
    try:
        height, width = sides
        valid = all(1 <= side <= MAX_SIZE and side == int(side) for side in (height, width))
    except (TypeError, ValueError, OverflowError):
        valid = False
    if not valid:
        raise ParameterError("render.size", most=MAX_SIZE, size=repr(size))
    return int(height), int(width)


def _check_background(background) -> Tensor:
    try:
        colour = np.array(background, dtype=np.float32)
    except (TypeError, ValueError):
        colour = np.empty(0, np.float32)
    if colour.shape != (3,) or not ((colour >= 0) & (colour <= 255)).all():
        raise ParameterError("render.background", background=repr(background))
    return linear_from_srgb(torch.from_numpy(colour / 255))


def _check_photo(photo_rgb: np.ndarray, result: FitResult) -> np.ndarray:
    photo = np.asarray(photo_rgb)
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
        raise ParameterError("render.photo", shape=photo.shape, dtype=photo.dtype)
    height, width = result.camera.image_size
    if abs(photo.shape[0] * width - photo.shape[1] * height) > 0.01 * photo.shape[0] * width + width + height:
        raise ParameterError(
            "render.photo_size", found_width=photo.shape[1], found_height=photo.shape[0], width=width, height=height
        )
    return photo
