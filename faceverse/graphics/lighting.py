"""Spherical-harmonics lighting of a diffuse surface, and the sRGB transfer function."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Real spherical harmonics up to order 2, times the Lambertian transfer A_l / pi (1, 2/3, 1/4); constants of
# Ramamoorthi and Hanrahan 2001, "An Efficient Representation for Irradiance Environment Maps", equations 2, 3 and 8.
_C0 = 0.282095
_C1 = 0.488603 * 2 / 3
_C2 = 1.092548 / 4
_C3 = 0.315392 / 4
_C4 = 0.546274 / 4

LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear sRGB (Rec. ITU-R BT.709-6, item 3.2)
# Linear sRGB of black bodies at 3800 K, a candle after half a white balance, and at 10000 K.
_CANDLE, _BLUE_SKY = (1.0, 0.60, 0.32), (0.60, 0.71, 1.0)
_LAMP = math.pi * 16 / 17  # radiance of a distant lamp that lights a surface which faces it by 1, see `directed_light`
_SOURCE_ALPHA = 0.06  # windows and lamps are no points: their size widens the lobe of a smooth surface
_REFLECTANCE = 0.04  # of enamel, tears and most other dielectrics at normal incidence
_SURROUNDINGS = 0.15  # radiance beside the lamp, in that of an even light which shades a surface as brightly
_WIDEST_DEG = 48.0  # angle to the view axis within which a wide light is mirrored
_GRAZING = 0.3  # of a surface that is rough and surrounded by skin, at grazing angles
_AMBIENT_SHARE = 0.3  # of the light of `directed_light`
_DEFAULT_PEAK = 0.99  # shading where the default light is brightest


def sh_basis(normals: Tensor) -> Tensor:
    """Second-order basis of unit normals (..., 3) in camera space -> (..., 9).

    Order: constant; y, z, x; xy, yz, 3z^2 - 1, xz, x^2 - y^2.
    """
    x, y, z = normals.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, _C0),
            _C1 * y,
            _C1 * z,
            _C1 * x,
            _C2 * x * y,
            _C2 * y * z,
            _C3 * (3 * z * z - 1),
            _C2 * x * z,
            _C4 * (x * x - y * y),
        ],
        dim=-1,
    )


def rotated_light(light: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Light (9, 3) after a rotation (3, 3) of camera space: `shading(n @ rotation.T)` by it is that of n before."""
    golden = math.pi * (3 - math.sqrt(5))
    heights = np.linspace(-0.95, 0.95, 32)
    angles, radii = golden * np.arange(32), np.sqrt(1 - heights**2)
    normals = torch.from_numpy(np.stack([radii * np.cos(angles), heights, radii * np.sin(angles)], axis=-1))
    # A rotation maps harmonics of an order to harmonics of that order, so the solution is exact.
    before, after = (sh_basis(points).numpy() for points in (normals, normals @ torch.from_numpy(rotation).T))
    return np.linalg.lstsq(after, before @ np.asarray(light, np.float64), rcond=None)[0].astype(light.dtype)


def sh_basis_gradient(normals: Tensor) -> Tensor:
    """Derivative (..., 9, 3) of `sh_basis` with respect to the components of the normals (..., 3)."""
    x, y, z = normals.unbind(-1)
    o, i = torch.zeros_like(x), torch.ones_like(x)
    rows = (
        (o, o, o),
        (o, _C1 * i, o),
        (o, o, _C1 * i),
        (_C1 * i, o, o),
        (_C2 * y, _C2 * x, o),
        (o, _C2 * z, _C2 * y),
        (o, o, 6 * _C3 * z),
        (_C2 * z, o, _C2 * x),
        (2 * _C4 * x, -2 * _C4 * y, o),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def shading(normals: Tensor, light: Tensor) -> Tensor:
    """Shading of a white Lambertian surface (radiance over albedo) by its normals.

    Args:
        normals: (..., V, 3), unit length, camera space (the light does not follow the head's rotation).
        light: (..., 9, 3) spherical-harmonics coefficients, RGB, linear.
    Returns:
        (..., V, 3), linear RGB; may be negative where the truncated series undershoots.
    """
    return sh_basis(normals) @ light


def ambient_light(level: float = 1.0) -> Tensor:
    """Coefficients (9, 3) of uniform white light: shading is `level` for every normal."""
    light = torch.zeros(9, 3)
    light[0] = level / _C0
    return light


def default_light() -> Tensor:
    """Coefficients (9, 3) of a soft studio light: mostly ambient, brighter from the front, above and the left."""
    light = ambient_light(0.72)
    light[1] = 0.30
    light[2] = 0.75
    light[3] = -0.18
    return light


@dataclass(frozen=True)
class LightParameter:
    """One parameter of `directed_light`.

    Attributes:
        description: in a few words, for help texts.
        minimum, maximum: range; values outside are clamped to it.
        default: where none is given.
        slider: (low, high), the part of the range that a slider covers.
        unit: "degrees", or "" for a factor or a position on a scale.
    """

    description: str
    minimum: float
    maximum: float
    default: float
    slider: tuple[float, float]
    unit: str = ""


LIGHT_PARAMETERS: dict[str, LightParameter] = {
    "yaw": LightParameter(
        "direction the light comes from, positive from the picture's right",
        -180.0,
        180.0,
        0.0,
        (-150.0, 150.0),
        "degrees",
    ),
    "pitch": LightParameter(
        "direction the light comes from, positive from above", -90.0, 90.0, 0.0, (-80.0, 80.0), "degrees"
    ),
    "intensity": LightParameter("1 is as bright as the default light", 0.0, 3.0, 1.0, (0.0, 2.0)),
    "warmth": LightParameter("-1 blue sky, 0 white, 1 candle", -1.0, 1.0, 0.0, (-1.0, 1.0)),
}
"""Parameters of a light given by its direction, by name: arguments of `directed_light`, of the command line, the web
page and its HTTP interface."""


def directed_light(yaw: float = 0.0, pitch: float = 0.0, intensity: float = 1.0, warmth: float = 0.0) -> Tensor:
    """Coefficients (9, 3) of a distant lamp with some ambient light.

    Args:
        yaw, pitch: degrees, direction of the lamp in camera space: 0, 0 from the camera, +yaw from the image's right
            (the left of a subject who faces the camera), +pitch from above.
        intensity: 1 makes a surface that faces the lamp as bright as the default light does.
        warmth: -1 a blue sky, 0 white, 1 a candle, all of the same luminance.
    """
    across, up = math.radians(yaw), math.radians(pitch)
    direction = torch.tensor(
        [math.sin(across) * math.cos(up), math.sin(up), math.cos(across) * math.cos(up)], dtype=torch.float32
    )
    # A distant lamp is the basis at its direction, without the Lambertian transfer that `sh_basis` has.
    lamp = sh_basis(direction) / torch.tensor([1.0, *[2 / 3] * 3, *[1 / 4] * 5])
    # Constants have the squared length of the unit sphere's harmonics: a lamp of pi lights what faces it by 17 / 16.
    light = ambient_light(_AMBIENT_SHARE)[:, 0] + lamp * (1 - _AMBIENT_SHARE) * math.pi * 16 / 17
    tint = torch.tensor(_CANDLE if warmth > 0 else _BLUE_SKY).log() * abs(warmth)
    tint = tint.exp() / (tint.exp() @ torch.tensor(LUMINANCE))
    return intensity * _DEFAULT_PEAK * light[:, None] * tint


def dominant_lamp(light: Tensor) -> tuple[Tensor, Tensor]:
    """The distant lamp that is most of a light: its direction (3,), and the shading (3,) of a surface that faces it.

    Args:
        light: (9, 3) spherical-harmonics coefficients.

    Reference: Sloan, Stupid Spherical Harmonics Tricks, 2008: direction and strength of the linear band.
    """
    linear = light[[3, 1, 2]]
    direction = torch.nn.functional.normalize(linear @ torch.tensor(LUMINANCE).to(light), dim=0)
    # No lamp has a greater linear band than its constant one allows.
    most = light[0] / (_C0 * _LAMP)
    return direction, torch.minimum(direction @ linear / (1.5 * _C1 * _LAMP), most).clamp_min(0)


def glossy_reflection(normals: Tensor, to_camera: Tensor, roughness: float, light: Tensor) -> Tensor:
    """Light that smooth dielectrics such as eyes and teeth reflect: a highlight of the dominant lamp, and a sheen of
    the rest.

    Args:
        normals, to_camera: (3, P) unit vectors, camera space.
        roughness: 0 mirror .. 1 matte.
        light: (9, 3) spherical-harmonics coefficients.

    Returns:
        (3, P) linear RGB, 0 or more.

    Reference: Walter et al., Microfacet Models for Refraction through Rough Surfaces, 2007 (GGX); the mask of Kelemen
    and Szirmay-Kalos 2001; Schlick's Fresnel term, 1994.
    """
    to_lamp, lamp = _nearest_part(*dominant_lamp(light))
    halfway = torch.nn.functional.normalize(to_camera + to_lamp[:, None], dim=0)
    seen, lit = (normals * to_camera).sum(0).clamp(1e-3, 1), (to_lamp @ normals).clamp(0, 1)
    to_half, turned = (normals * halfway).sum(0).clamp(0, 1), (to_camera * halfway).sum(0).clamp(1e-3, 1)
    square = (roughness**2 + _SOURCE_ALPHA) ** 2
    lobe = square / (math.pi * (to_half**2 * (square - 1) + 1) ** 2)
    highlight = lobe / (4 * turned**2) * _fresnel(turned) * lit * math.pi
    mirrored = 2 * seen * normals - to_camera
    sheen = _SURROUNDINGS * shading(mirrored.t(), light).t().clamp_min(0) * _fresnel(seen)
    return lamp[:, None] * highlight + sheen


def _nearest_part(to_lamp: Tensor, lamp: Tensor) -> tuple[Tensor, Tensor]:
    """The part of a light about a direction (3,) that is seen reflected, and its strength (3,).

    Windows and the sky are wide, and so is the lobe that spherical harmonics know of them: what eyes and teeth mirror
    to the camera is the part that lies next to it, within `_WIDEST_DEG` of the view axis."""
    angle, widest = to_lamp[2].clamp(-1, 1).acos(), math.radians(_WIDEST_DEG)
    if float(angle) <= widest:
        return to_lamp, lamp
    aside = torch.nn.functional.normalize(
        to_lamp * torch.tensor([1.0, 1.0, 0.0]) + torch.tensor([0.0, 1e-3, 0.0]), dim=0
    )
    part = aside * math.sin(widest) + torch.tensor([0.0, 0.0, math.cos(widest)])
    return part, lamp * (angle - widest).cos().clamp_min(0)


def _fresnel(cosine: Tensor) -> Tensor:
    """Share of light that is reflected."""
    return _REFLECTANCE + (_GRAZING - _REFLECTANCE) * (1 - cosine) ** 5


def linear_from_srgb(srgb: Tensor) -> Tensor:
    """IEC 61966-2-1 decoding: sRGB in 0..1 to linear RGB in 0..1."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(linear: Tensor) -> Tensor:
    """IEC 61966-2-1 encoding: linear RGB to sRGB, clipped to 0..1; the gradient stays finite at zero."""
    clipped = linear.clamp(0, 1)
    return torch.where(clipped <= 0.0031308, clipped * 12.92, 1.055 * clipped.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def srgb_slope(linear: Tensor) -> Tensor:
    """Derivative of `srgb_from_linear`; 0 where it clips."""
    inside = (linear > 0) & (linear < 1)
    curve = 1.055 / 2.4 * linear.clamp_min(0.0031308) ** (1 / 2.4 - 1)
    return torch.where(linear <= 0.0031308, torch.full_like(linear, 12.92), curve) * inside
