"""The arrays of a face model, and its landmarks on other meshes. Dimensions: see model.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Landmarks:
    """Points on the surface that a detector finds in pictures.

    Args:
        triangle: (L,) int64 indices into `faces`.
        barycentric: (L, 3).
        sigma: (L,) metres, deviation per axis of the detector's answers from the point.
        error_modes: (K, L, 2) metres right and up in the picture, ways in which the detector errs with many points at once
            (per unit of a unit-variance coefficient); part of sigma. None where they were not measured.
        detected: (L,) int64, which of the detector's 478 points each one is; None: all of them, in order.
    """

    triangle: np.ndarray
    barycentric: np.ndarray
    sigma: np.ndarray
    error_modes: np.ndarray | None = None
    detected: np.ndarray | None = None


@dataclass(frozen=True)
class Attribute:
    """A direction of change with a meaning.

    Args:
        name, unit: such as "age" in "years".
        minimum, maximum: the range in which an edit stays a plausible head.
        step: (I + A,) change of identity and albedo coefficients for one unit.
        estimator: (I + A + 1,) weights, the last is the constant: value = estimator . (identity, albedo, 1).
    """

    name: str
    unit: str
    minimum: float
    maximum: float
    step: np.ndarray
    estimator: np.ndarray


class Modes:
    """Modes (K, V, 3) float32 that are made when they are asked for, because they are large and many never ask.

    NumPy's functions and indices take them for an array; each use makes it anew.

    Args:
        shape: (K, V, 3).
        make: makes the modes (K, n, 3) of some vertices, given by a slice or their numbers (n,).
    """

    ndim, dtype = 3, np.dtype(np.float32)

    def __init__(self, shape: tuple[int, int, int], make: Callable[[slice | np.ndarray], np.ndarray]):
        self.shape, self._make = shape, make

    def __len__(self) -> int:
        return self.shape[0]

    def at(self, vertices: slice | np.ndarray) -> np.ndarray:
        """Those of some vertices (K, n, 3)."""
        return self._make(vertices)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self._make(slice(None)).astype(dtype or self.dtype, copy=False)

    def __getitem__(self, key) -> np.ndarray:
        return np.asarray(self)[key]


def modes_at(modes: np.ndarray | Modes, vertices: np.ndarray) -> np.ndarray:
    """Modes (K, n, 3) of some vertices, by their numbers (n,); contiguous."""
    return modes.at(vertices) if isinstance(modes, Modes) else np.ascontiguousarray(modes[:, vertices])


@dataclass(frozen=True)
class ModelData:
    """The arrays of a face model as stored by `faceverse.weights` (float32 / int64; metres; linear RGB)."""

    mean_vertices: np.ndarray  # (V, 3)
    identity_modes: np.ndarray | Modes  # (I, V, 3)
    expression_modes: np.ndarray | Modes  # (E, V, 3)
    mean_albedo: np.ndarray  # (V, 3)
    albedo_modes: np.ndarray | Modes  # (A, V, 3)
    faces: np.ndarray  # (F, 3)
    uv: np.ndarray  # (U, 2)
    uv_faces: np.ndarray  # (F, 3)
    expression_names: tuple[str, ...]
    regions: dict[str, np.ndarray]
    landmarks_478: Landmarks | None
    landmarks_68: Landmarks
    attributes: tuple[Attribute, ...] = ()
    expression_gain: np.ndarray | None = None  # (E, I) change of each expression's size per unit of identity
    population: np.ndarray | None = None  # (P, I + A) coefficients of heads the model was trained on
    name: str = "unnamed"
    info: dict = field(default_factory=dict)
    coarse_vertices: np.ndarray | None = None  # (V_light,) the vertices that are the coarse mesh
    coarse_faces: np.ndarray | None = None  # (F_light, 3) indices into coarse_vertices
    coarse_uv_faces: np.ndarray | None = None  # (F_light, 3) indices into uv
    expression_limits: np.ndarray | None = None  # (E, 2) least and greatest weight; None: 0 and 1
    named_expressions: bool = True  # False: components of a statistic, whose names are only numbers
    # Arrays of the file that only `faceverse.official` reads; those of the coarse mesh begin with "light_".
    extra: dict[str, np.ndarray] = field(default_factory=dict)


def on_coarse_mesh(data: ModelData) -> ModelData:
    """The arrays of the coarse mesh alone; `coarse_faces` must be there."""
    keep = data.coarse_vertices
    number = np.full(len(data.mean_vertices), -1, np.int64)
    number[keep] = np.arange(len(keep))
    order = np.concatenate([keep, np.setdiff1d(np.arange(len(data.uv)), keep)])
    place = np.empty(len(data.uv), np.int64)
    place[order] = np.arange(len(data.uv))
    light = replace(
        data,
        mean_vertices=data.mean_vertices[keep],
        identity_modes=modes_at(data.identity_modes, keep),
        expression_modes=modes_at(data.expression_modes, keep),
        mean_albedo=data.mean_albedo[keep],
        albedo_modes=modes_at(data.albedo_modes, keep),
        faces=data.coarse_faces,
        uv=data.uv[order],
        uv_faces=place[data.coarse_uv_faces],
        regions={name: np.sort(number[index][number[index] >= 0]) for name, index in data.regions.items()},
        name=f"{data.name} (light)",
        coarse_vertices=None,
        coarse_faces=None,
        coarse_uv_faces=None,
        extra={key.removeprefix("light_"): value for key, value in data.extra.items() if key.startswith("light_")},
    )
    moved = {"landmarks_68": _moved(data, light, data.landmarks_68)}
    if data.landmarks_478 is not None:
        moved["landmarks_478"] = _moved(data, light, data.landmarks_478)
    return replace(light, **moved)


_CANDIDATES = 24  # triangles with the nearest centres, among which the closest point is looked for


def _moved(data: ModelData, light: ModelData, landmarks: Landmarks) -> Landmarks:
    """Landmarks of one mesh at the closest points of the other, on the mean head."""
    points = (data.mean_vertices[data.faces[landmarks.triangle]] * landmarks.barycentric[..., None]).sum(1)
    corners = light.mean_vertices[light.faces]
    near = cKDTree(corners.mean(1)).query(points, k=min(_CANDIDATES, len(corners)))[1].reshape(len(points), -1)
    candidates = corners[near.reshape(-1)]
    repeated = np.repeat(points, near.shape[1], axis=0)
    weights = closest_barycentric(repeated, candidates)
    distance = np.linalg.norm((candidates * weights[..., None]).sum(1) - repeated, axis=1).reshape(near.shape)
    best = distance.argmin(1)
    row = np.arange(len(points))
    chosen = weights.reshape(*near.shape, 3)[row, best]
    return replace(landmarks, triangle=near[row, best].astype(np.int64), barycentric=chosen.astype(np.float32))


def closest_barycentric(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentric coordinates (L, 3) of the points (L, 3) in triangles (L, 3, 3), clipped into the triangle."""
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p = points - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (p * ab).sum(1), (p * ac).sum(1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-20)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    weights = np.clip(np.stack([1 - v - w, v, w], axis=1), 0, None)
    return weights / weights.sum(1, keepdims=True)
