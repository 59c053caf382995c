"""The short hairs of the scalp: a shell close above the skin, with painted hairs that follow the growth direction.

The shell is the skin of the base head above the hair line and a little below it, lifted by a millimetre. Its texture is
an azimuthal map about the whorl, so that hairs grow along the radii: to the front over the forehead, down at the sides
and at the nape. Each hair is a stroke with a root, a length and a brightness of its own; the hair line is soft because
hairs there become rare, short and fine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import gaussian_filter

from ..model.face_model import FaceModel
from ..parts.binding import bind
from ..parts.hair_clearance import outward_normals
from ..parts.part import Material, Part
from .skin_fields import SkinFields, skin_fields, smoothstep
from .surface_fit import closest_points

TEXTURE_PX = 768
_LIFT_M = 0.0012
_MARGIN_M = 0.020  # of the shell outside the hair line, over which hairs reach
_WHORL = (0.0, 0.87, -0.49)  # direction of the whorl from the middle of the skull, where the map has its centre
_MIDDLE = (0.0, 0.765, 0.04)  # of the skull on the base body, metres
_RIM = np.radians(138.0)  # angle from the whorl at the rim of the map
_HAIRS = 80_000
_LENGTH_PX = (8, 18)
_WEIGHT = 0.62  # opacity of a hair
_SOFT_M = 0.015  # width of the hair line, from no hairs to all
_RAGGED_M = 0.002  # deviation of the hair line from its smooth course
_BRIGHTNESS = 0.32  # standard deviation of the logarithm from hair to hair
_ROOT_DARKNESS = 0.75
_ROUGHNESS = 0.85
_LEVELS = 32  # of grey and alpha: noise beyond them would only make the file larger


@dataclass(frozen=True)
class Shell:
    """The shell on the base head, with what its textures need.

    Attributes:
        vertices: (P, 3) metres, on the skin.
        normals: (P, 3).
        faces: (F, 3).
        uv: (P, 2).
        fields: (P,) each, of `SkinFields`, by name.
        height: (P,) metres above the eyes.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    fields: dict[str, np.ndarray]
    height: np.ndarray


def _full(shell: Shell) -> np.ndarray:
    nape = smoothstep((-0.030 - shell.height) / 0.02)  # is shaved a little higher than hair grows
    return shell.fields["hairline"] - 0.012 * nape


def _high(shell: Shell) -> np.ndarray:
    return _full(shell) - 0.012 * smoothstep((shell.height - 0.02) / 0.02)


def _receding(shell: Shell) -> np.ndarray:
    temples = shell.fields["temples"]
    line = _full(shell) - (0.006 + 0.026 * temples) * smoothstep((shell.height - 0.02) / 0.02)
    return np.minimum(line, 0.020 - 0.018 * shell.fields["crown"])


def _horseshoe(shell: Shell) -> np.ndarray:
    return np.minimum(_full(shell), 0.052 - shell.height)


def _fade(shell: Shell) -> np.ndarray:
    return np.minimum(_full(shell), 0.006 + 0.25 * (shell.height - 0.012))


HAIR_LINES: dict[str, Callable[[Shell], np.ndarray]] = {
    "full": _full, "high": _high, "receding": _receding, "horseshoe": _horseshoe, "fade": _fade,
}  # fmt: skip
"""Distance (P,) in metres from the hair line by style, positive where hair grows."""


def scalp_parts(model: FaceModel, surface: np.ndarray, coarse: np.ndarray, triangles: np.ndarray) -> list[Part]:
    """The parts for the slot "scalp", a style for each of `HAIR_LINES`.

    Args:
        model: the open model.
        surface: (V, 3) the base head on the model's mesh.
        coarse: (Vc, 3) its vertices of the coarse mesh.
        triangles: (T, 3) of the coarse mesh, the skin.
    """
    shell = scalp_shell(model, surface)
    found = closest_points(shell.vertices, coarse, triangles)
    lifted = shell.vertices + _LIFT_M * shell.normals
    binding = bind(lifted, coarse, triangles[found.triangle], found.barycentric, "surface")
    parts = []
    for style, hair_line in HAIR_LINES.items():
        material = Material(paint_hairs(shell, hair_line(shell)), _ROUGHNESS, "BLEND")
        parts.append(Part(f"scalp/{style}", binding, shell.faces, np.float32(shell.uv), shell.faces, material))
    return parts


def scalp_shell(model: FaceModel, surface: np.ndarray) -> Shell:
    """Cut the shell out of the skin of the base head (V, 3)."""
    flags = {name: np.zeros(len(surface), bool) for name in model.regions}
    for name, indices in model.regions.items():
        flags[name][indices] = True
    nothing = np.zeros(len(surface))
    fields: SkinFields = skin_fields(surface, flags, nothing, nothing, nothing)
    chosen = (fields.hairline > -_MARGIN_M) & ~flags["ears"]
    faces = model.faces[chosen[model.faces].all(axis=1)]
    used, faces = np.unique(faces, return_inverse=True)
    normals = outward_normals(surface, model.faces)[used]
    eyes = surface[np.concatenate([model.regions["eyeball_left"], model.regions["eyeball_right"]])].mean(0)
    names = ("hairline", "temples", "crown")
    return Shell(
        surface[used], normals, faces.reshape(-1, 3), _map(surface[used]),
        {name: getattr(fields, name)[used] for name in names}, surface[used, 1] - eyes[1],
    )  # fmt: skip


def _map(points: np.ndarray) -> np.ndarray:
    """Texture coordinates (P, 2) of points (P, 3) of the scalp: an azimuthal equidistant map about the whorl."""
    ray = points - _MIDDLE
    ray = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    axis = np.array(_WHORL) / np.linalg.norm(_WHORL)
    front = np.cross((1.0, 0.0, 0.0), axis)  # a unit vector: the whorl lies in the plane of symmetry
    angle = np.arccos(np.clip(ray @ axis, -1, 1))
    around = np.arctan2(ray[:, 0], ray @ front)
    return 0.5 + 0.5 * (angle / _RIM)[:, None] * np.stack([np.sin(around), np.cos(around)], axis=1)


def paint_hairs(shell: Shell, hair_line: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draw the hairs of a scalp.

    Args:
        shell: of the scalp.
        hair_line: (P,) metres, positive where hair grows.
        seed: of the hairs' places.

    Returns:
        (S, S, 4) uint8, grey and alpha; its brightness is relative.
    """
    rng, size = np.random.default_rng(seed), TEXTURE_PX
    ragged = gaussian_filter(rng.normal(size=(size, size)), 9)
    ragged *= _RAGGED_M / ragged.std()
    grid = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), axis=-1) / size
    distance = LinearNDInterpolator(shell.uv, hair_line, fill_value=-1.0)(grid) + ragged
    roots = _roots(rng, size)
    here = distance[tuple(roots.astype(int).T[::-1])]
    grown = smoothstep(0.5 + (here - 0.35 * _SOFT_M) / _SOFT_M)
    kept = rng.random(len(roots)) < grown
    roots, grown = roots[kept], grown[kept]
    length = rng.uniform(*_LENGTH_PX, len(roots)) * (0.4 + 0.6 * grown)
    brightness = np.exp(rng.normal(0, _BRIGHTNESS, len(roots)))
    weight = _WEIGHT * (0.25 + 0.75 * grown) * rng.uniform(0.6, 1.4, len(roots))
    opacity, light = _strokes(roots, rng.normal(0, 0.28, len(roots)), length, brightness, weight)
    grey = light / np.maximum(opacity, 1e-6)
    grey = np.where(opacity > 1e-6, grey, 1.0)
    alpha = 1 - np.exp(-opacity)
    level = np.clip(np.sqrt(np.clip(grey, 0, None)) / 2, 0, 1)
    packed = np.round(np.stack([level, alpha]) * (_LEVELS - 1)) * (255 / (_LEVELS - 1))
    return np.stack([packed[0]] * 3 + [packed[1]], axis=2).astype(np.uint8)


def _roots(rng: np.random.Generator, size: int) -> np.ndarray:
    """(N, 2) pixels x, y: uniform on the skull, whose rim the map stretches."""
    angle = np.arccos(1 - rng.random(_HAIRS) * (1 - np.cos(_RIM)))
    around = rng.uniform(0, 2 * np.pi, _HAIRS)
    place = 0.5 + 0.499 * (angle / _RIM)[:, None] * np.stack([np.sin(around), np.cos(around)], axis=1)
    return place * size


def _strokes(
    roots: np.ndarray, turn: np.ndarray, length: np.ndarray, brightness: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Opacity (S, S) and opacity times brightness of all hairs.

    Args:
        roots: (N, 2) pixels.
        turn: (N,) radians off the growth direction.
        length: (N,) pixels.
        brightness, weight: (N,).
    """
    size = TEXTURE_PX
    opacity, light = np.zeros(size * size), np.zeros(size * size)
    place, middle = roots.copy(), size / 2
    for step in range(int(np.ceil(length.max()))):
        along = step / length
        out = place - middle
        radius = np.linalg.norm(out, axis=1, keepdims=True)
        out = out / np.maximum(radius, 1e-6)
        swirl = turn + 0.9 * np.exp(-radius[:, 0] / 40.0)  # hairs turn about the whorl
        direction = np.stack(
            [out[:, 0] * np.cos(swirl) - out[:, 1] * np.sin(swirl),
             out[:, 0] * np.sin(swirl) + out[:, 1] * np.cos(swirl)], axis=1
        )  # fmt: skip
        place = place + direction
        amount = np.where(along < 1, weight * (1 - along**2), 0)  # hairs taper
        shade = brightness * (_ROOT_DARKNESS + (1 - _ROOT_DARKNESS) * np.minimum(along * 1.5, 1))
        corner = np.floor(place - 0.5).astype(np.int64)
        share = place - 0.5 - corner
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            x, y = np.clip(corner[:, 0] + dx, 0, size - 1), np.clip(corner[:, 1] + dy, 0, size - 1)
            part = amount * np.abs(1 - dx - share[:, 0]) * np.abs(1 - dy - share[:, 1])
            opacity += np.bincount(y * size + x, part, size * size)
            light += np.bincount(y * size + x, part * shade, size * size)
    return opacity.reshape(size, size), light.reshape(size, size)


