"""Coordinate, lighting and colour conventions of the original FaceVerse code, for each version of its files.

"Code space" is the space of the original's vertices after its own loading, in whose unit its coefficients and cameras
are given. Its x axis is that of camera.py; y points down and z into the head, so that `ours = unit_m * code * FLIP` (a
rotation by 180 degrees about x).
Versions 0 to 2 (model/FaceVerseModel.py): `v_cam = v @ R + t` with `R = (Rz Ry Rx)^T`; the camera at z = 10 looks along
-z with y up, and a frontal face has an x angle of pi. Versions 3 (faceversev3_jittor) and 4: the camera at z = -10
looks along +z with y down, and a frontal face has no rotation.
Colours are sRGB values 0..255, which the light multiplies directly. Ours are linear, so the albedo model is linearised
at the mean colour (`linear_colours`), which is invertible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLIP = np.array([1.0, -1.0, -1.0])
CAMERA_DISTANCE = 10.0
LANDMARK_SPREAD_M = 0.0566
"""RMS distance of an adult's 66 landmarks from their centre (of the open model's mean head)."""
AMBIENT = 0.8
"""Added to the constant coefficient of the light."""

# Rows of the 68 iBUG landmarks among the original's 66, which are those of OpenSeeFace: these lack the outer corners of
# the mouth (48, 54), and have the inner corners between the lips.
KEYPOINT_OF_68 = (*range(48), 58, *range(48, 53), 62, *range(53, 58), 58, *range(59, 62), 62, *range(63, 66))
KEYPOINTS_66 = (*range(48), *range(49, 54), *range(55, 60), *range(60, 68))

OWN_KEY = "faceverse"
"""Key of a dictionary with the data of our models that the official layout lacks; the original code ignores it."""

EYE_NAMES = ("eyeballLeftPitch", "eyeballLeftYaw", "eyeballRightPitch", "eyeballRightYaw")
EYE_LIMIT_RAD = 0.6


@dataclass(frozen=True)
class Convention:
    """Conventions of one version.

    Args:
        version: 0 to 4.
        unit_m: metres per unit of code space; None if unknown (versions 0 to 2).
        file_scale: factor from file units to code space.
        file_flipped: y and z of the file point up and out of the face; the original's loader negates them.
        looks_forward: the camera looks along +z with y down (versions 3 and 4).
        reversed_normals: normals are computed from triangles in reversed order.
        eyes: number of eye angles, 0 or 4, at the end of the coefficients.
        light_last: the 27 light coefficients are (9, 3) and precede the angles, else (3, 9) and follow them.
        pixel_offset: offset from the original's landmark pixels to those of camera.py.
        focal_px, image_size: of the original's default camera, which stored coefficients refer to.
        eye_shift: added to eyeball vertices after their rotation; eye_depth: added to the z of an eyeball's centre.
    """

    version: int
    unit_m: float | None = None
    file_scale: float = 1.0
    file_flipped: bool = False
    looks_forward: bool = False
    reversed_normals: bool = False
    eyes: int = 0
    light_last: bool = False
    pixel_offset: float = 0.0
    focal_px: float = 1315.0
    image_size: int = 1024
    eye_shift: float = 0.0
    eye_depth: float = 0.0


CONVENTIONS = {
    0: Convention(0),
    1: Convention(1),
    2: Convention(2),
    3: Convention(
        3, 0.1, 0.01, True, True, True, 4, focal_px=1315.0, image_size=512, eye_shift=0.01, eye_depth=0.005
    ),
    4: Convention(4, 0.1, 0.01, False, True, False, 4, True, 0.5, focal_px=1000.0, image_size=256),
}


def rotation_matrix(angles: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) for `v @ R` from angles (3,) in radians: the transpose of Rz Ry Rx."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return (z @ y @ x).T


def angles_of(rotation: np.ndarray, centre: float) -> np.ndarray:
    """Inverse of `rotation_matrix`: (3,) radians, the first within pi of `centre`, the second in -pi/2..pi/2."""
    matrix = rotation.T
    x = np.arctan2(matrix[2, 1], matrix[2, 2])
    y = np.arcsin(np.clip(-matrix[2, 0], -1, 1))
    return np.array([centre + (x - centre + np.pi) % (2 * np.pi) - np.pi, y, np.arctan2(matrix[1, 0], matrix[0, 0])])


# -- light ------------------------------------------------------------------------------------------------------------
_A1, _A2 = 2 * np.pi / np.sqrt(3), 2 * np.pi / np.sqrt(8)
_C0, _C1, _C2 = 1 / np.sqrt(4 * np.pi), np.sqrt(3) / np.sqrt(4 * np.pi), 3 * np.sqrt(5) / np.sqrt(12 * np.pi)
SH_FACTORS = np.array(
    [
        np.pi * _C0, -_A1 * _C1, _A1 * _C1, -_A1 * _C1, _A2 * _C2, -_A2 * _C2, _A2 * _C2 * 0.5 / np.sqrt(3),
        -_A2 * _C2, _A2 * _C2 * 0.5,
    ]
)  # fmt: skip
"""Factors of the SH terms 1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2 (order as in `lighting.sh_basis`)."""


def sh_terms(normals: np.ndarray) -> np.ndarray:
    """Unscaled SH terms 1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2 of normals (V, 3): (V, 9)."""
    x, y, z = normals.T
    return np.stack([np.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y], axis=1)


def sh_signs(axes: np.ndarray) -> np.ndarray:
    """(9,) signs that `sh_terms` acquire when the normals are multiplied by `axes` (3,) of +-1."""
    x, y, z = axes
    return np.array([1, y, z, x, x * y, y * z, 1, x * z, 1], dtype=np.float64)


# -- colours ----------------------------------------------------------------------------------------------------------
def linear_of_display(display: np.ndarray) -> np.ndarray:
    """sRGB decoding (see lighting.py), continued beyond 0..1."""
    return np.where(display <= 0.04045, display / 12.92, ((np.maximum(display, 0.04045) + 0.055) / 1.055) ** 2.4)


def display_of_linear(linear: np.ndarray) -> np.ndarray:
    """Inverse of `linear_of_display`."""
    edge = 0.04045 / 12.92
    return np.where(linear <= edge, linear * 12.92, 1.055 * np.maximum(linear, edge) ** (1 / 2.4) - 0.055)


def display_slope(display: np.ndarray) -> np.ndarray:
    """Derivative of `linear_of_display`, at least 1 / 12.92."""
    curved = 2.4 / 1.055 * ((np.maximum(display, 0.04045) + 0.055) / 1.055) ** 1.4
    return np.where(display <= 0.04045, 1 / 12.92, curved)


def linear_colours(mean: np.ndarray, modes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linearise mean (V, 3) and modes (A, V, 3) of sRGB colours 0..255 at the mean: an albedo model in linear RGB."""
    display = np.asarray(mean, np.float64) / 255
    slope = (display_slope(display) / 255).astype(modes.dtype)
    return linear_of_display(display).astype(np.float32), (modes * slope).astype(np.float32)


def display_colours(mean: np.ndarray, modes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of `linear_colours`; double precision if the modes are."""
    display = display_of_linear(np.asarray(mean, np.float64))
    return display * 255, modes * (255 / display_slope(display)).astype(modes.dtype)
