"""Perspective camera and rigid pose, and the library's conventions of axes, pixels and colours.

Head space: metres, right-handed, +x to the subject's left, +y up, +z out of the face (glTF's convention).
Camera space: the camera sits at the origin and looks down -z; +x is right in the picture, +y is up.
Points are row vectors: `vertices_cam = vertices @ rotation.T + translation`. A head that looks straight into the
camera has the identity as its rotation and a translation of about (0, 0, -0.6).
Images: x to the right, y down; the pixel in row i, column j covers [j, j + 1) x [i, i + 1), its centre is
(j + 0.5, i + 0.5). Depth is -z, positive in front of the camera.
Colours: albedo and shading are linear-light RGB, 1 is a perfect white diffuser; photographs, textures and renderings
are sRGB uint8. UV: origin at the top left of the texture, u to the right, v down (glTF).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import ParameterError

# 35 mm equivalent without EXIF data: between a phone's selfie camera (about 26 mm) and a portrait lens (85 mm).
DEFAULT_FOCAL_35MM = 40.0


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    Args:
        focal_px: focal length in pixels, above 0.
        principal_point_px: (x, y) where the optical axis meets the image.
        image_size: (height, width) in pixels.
    """

    focal_px: float
    principal_point_px: tuple[float, float]
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        if not 0 < self.focal_px < math.inf or min(self.image_size) < 1:
            raise ParameterError("camera.size", focal_px=self.focal_px, image_size=self.image_size)

    def cropped(self, box_px: tuple[float, float, float, float], size: tuple[int, int]) -> Camera:
        """Camera of the image cropped to box_px (x0, y0, x1, y1) and scaled to size (height, width).

        The scale is taken from the height, so box and size must have the same aspect ratio.
        """
        x0, y0, _, y1 = box_px
        scale = size[0] / (y1 - y0)
        cx, cy = self.principal_point_px
        return replace(
            self,
            focal_px=self.focal_px * scale,
            principal_point_px=((cx - x0) * scale, (cy - y0) * scale),
            image_size=size,
        )

    def quarter_turned(self, quarter_turns: int) -> Camera:
        """Camera of `np.rot90(image, quarter_turns)`, whose camera space is turned alike."""
        x, y = turned_points(np.array([self.principal_point_px], np.float64), quarter_turns, self.image_size)[0]
        size = self.image_size if quarter_turns % 2 == 0 else self.image_size[::-1]
        return replace(self, principal_point_px=(float(x), float(y)), image_size=size)


def turned_points(points_px: np.ndarray, quarter_turns: int, image_size: tuple[int, int]) -> np.ndarray:
    """Where points (N, 2) of an image of (height, width) lie in `np.rot90(image, quarter_turns)`."""
    height, width = image_size
    for _ in range(quarter_turns % 4):
        points_px = np.stack([points_px[:, 1], width - points_px[:, 0]], axis=-1)
        height, width = width, height
    return points_px


def quarter_turn_matrix(count: int) -> np.ndarray:
    """Rotation (3, 3) float64 of camera space that corresponds to `np.rot90(image, count)`."""
    cosine, sine = (1, 0, -1, 0)[count % 4], (0, 1, 0, -1)[count % 4]
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], np.float64)


def default_camera(image_size: tuple[int, int], focal_px: float | None = None) -> Camera:
    """Camera of a photograph: principal point in the centre; focal length as given, or `DEFAULT_FOCAL_35MM`."""
    height, width = image_size
    if focal_px is None:
        focal_px = DEFAULT_FOCAL_35MM / 36.0 * max(height, width)
    return Camera(float(focal_px), (width / 2, height / 2), (height, width))


def transform(vertices: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Head space to camera space: vertices (..., V, 3), rotation (..., 3, 3), translation (..., 3) -> (..., V, 3)."""
    return vertices @ rotation.transpose(-1, -2) + translation.unsqueeze(-2)


def project(vertices_cam: Tensor, camera: Camera) -> Tensor:
    """Camera space (..., V, 3) to (..., V, 3): x_px, y_px and depth in metres."""
    depth = -vertices_cam[..., 2]
    safe = torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
    cx, cy = camera.principal_point_px
    x = cx + camera.focal_px * vertices_cam[..., 0] / safe
    y = cy - camera.focal_px * vertices_cam[..., 1] / safe
    return torch.stack([x, y, depth], dim=-1)


def skew(vector: Tensor) -> Tensor:
    """Cross-product matrix (..., 3, 3) of a vector (..., 3)."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*vector.shape[:-1], 3, 3)


def rotation_from_axis_angle(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula: axis times angle in radians (..., 3) -> rotation matrix (..., 3, 3); smooth at zero."""
    angle2 = (axis_angle * axis_angle).sum(-1)[..., None, None]
    small = angle2 < 1e-8
    angle = torch.where(small, torch.ones_like(angle2), angle2).sqrt()
    first = torch.where(small, 1 - angle2 / 6, torch.sin(angle) / angle)
    second = torch.where(small, 0.5 - angle2 / 24, (1 - torch.cos(angle)) / (angle * angle))
    cross = skew(axis_angle)
    return torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device) + first * cross + second * (cross @ cross)


def rotation_from_euler_deg(yaw_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> Tensor:
    """Head rotation (3, 3) from Euler angles.

    Args:
        yaw_deg: positive turns the face to the right edge of the image (the subject's left).
        pitch_deg: positive looks up.
        roll_deg: positive tilts the head counter-clockwise in the image.
    """
    angles = torch.deg2rad(torch.tensor([-pitch_deg, yaw_deg, roll_deg], dtype=torch.float32))
    x, y, z = (rotation_from_axis_angle(angles[i] * torch.eye(3)[i]) for i in range(3))
    return z @ y @ x


def euler_deg_from_rotation(rotation: Tensor) -> tuple[float, float, float]:
    """Inverse of `rotation_from_euler_deg`: (yaw_deg, pitch_deg, roll_deg) of a rotation (3, 3)."""
    r = rotation.detach().double()
    yaw = torch.asin((-r[2, 0]).clamp(-1, 1))
    pitch = -torch.atan2(r[2, 1], r[2, 2])
    roll = torch.atan2(r[1, 0], r[0, 0])
    return float(torch.rad2deg(yaw)), float(torch.rad2deg(pitch)), float(torch.rad2deg(roll))
