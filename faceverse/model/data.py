"""The arrays of a face model, and their restriction to the coarse mesh. Dimensions: see face_model.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Landmarks:
    """Surface points that a landmark detector localises in images.

    Args:
        triangle: (L,) int64 indices into `faces`.
        barycentric: (L, 3).
        sigma: (L,) metres, standard deviation per axis of the detector's error.
        error_modes: (K, L, 2) metres right and up in the image, correlated errors of the detector over many points, per
            unit of a unit-variance coefficient; included in sigma. None where they were not measured.
        detected: (L,) int64 index of each point among the detector's 478; None: all of them, in order.
    """

    triangle: np.ndarray
    barycentric: np.ndarray
    sigma: np.ndarray
    error_modes: np.ndarray | None = None
    detected: np.ndarray | None = None


@dataclass(frozen=True)
class AttributePath:
    """A bent path through the space of identity and albedo coefficients, piecewise linear in the attribute's value.
    The first and the last part continue beyond the knots.

    Growth and ageing change a head in different ways. A head at another place of the space moves parallel to the path,
    and its individual features are scaled: those of children are less pronounced. The scaling and the path change no
    estimate of an attribute that is kept, so moving there and back restores the head.

    Args:
        values: (T,) ascending values of the attribute at the knots, such as years.
        positions: (T,) ascending results of the attribute's estimator at the knots.
        offsets: (T, I + A) coefficients at the knots.
        modulator: name of another attribute, which the path does not change.
        modulated: (T, I + A) what is added per unit of the modulator.
        shares: (T,) positive, scale of the individual features.
        kept: (2, R, I + A), what the scaling keeps, as a projection: rows that measure it, and rows that it is rebuilt
            from; kept[0] @ kept[1].T = 1. The individual features are the rest.
    """

    values: np.ndarray
    positions: np.ndarray
    offsets: np.ndarray
    modulator: str
    modulated: np.ndarray
    shares: np.ndarray
    kept: np.ndarray

    def offset(self, value: float, modulator: float) -> np.ndarray:
        """Coefficients (I + A,) at a value, for a value of the modulator; float64."""
        knot, share = _part(self.values, value)
        rows = self.offsets[knot : knot + 2].astype(np.float64) + modulator * self.modulated[knot : knot + 2]
        return (1 - share) * rows[0] + share * rows[1]

    def individual(self, coefficients: np.ndarray) -> np.ndarray:
        """Individual features (I + A,) of a head with these coefficients (I + A,); float64."""
        measured = self.kept[0].astype(np.float64) @ coefficients
        return coefficients - measured @ self.kept[1].astype(np.float64)

    def scale(self, before: float, after: float) -> float:
        """Ratio of the individual features at two values."""
        return float(np.divide(*np.interp((after, before), self.values, self.shares)))

    def value(self, position: float) -> float:
        """The attribute's value for a result of its estimator."""
        knot, share = _part(self.positions, position)
        return float((1 - share) * self.values[knot] + share * self.values[knot + 1])


def _part(knots: np.ndarray, value: float) -> tuple[int, float]:
    """First knot of the part of a path that a value lies in, and the share of the way to the next knot."""
    knot = min(max(int(np.searchsorted(knots, value, side="right")) - 1, 0), len(knots) - 2)
    return knot, (value - float(knots[knot])) / float(knots[knot + 1] - knots[knot])


@dataclass(frozen=True)
class Attribute:
    """A semantic direction in the space of identity and albedo coefficients.

    Args:
        name, unit: such as "age" in "years".
        minimum, maximum: range in which an edited head stays plausible.
        step: (I + A,) change of identity and albedo coefficients per unit.
        estimator: (I + A + 1,) weights, the last is the constant: value = estimator . (identity, albedo, 1).
        path: for an attribute whose direction changes with its value, see `AttributePath`; `step` is then its last
            part, and the estimator's result a position on the path.
    """

    name: str
    unit: str
    minimum: float
    maximum: float
    step: np.ndarray
    estimator: np.ndarray
    path: AttributePath | None = None

    def value(self, coefficients: np.ndarray) -> float:
        """Estimate the attribute of a head with identity and albedo coefficients (I + A,)."""
        estimate = float(self.estimator[:-1] @ coefficients) + float(self.estimator[-1])
        return estimate if self.path is None else self.path.value(estimate)

    def change(self, coefficients: np.ndarray, before: float, after: float, modulators=(0.0, 0.0)) -> np.ndarray:
        """Change (I + A,) of a head's coefficients between two values, for values of the path's modulator; float64."""
        if self.path is None:
            return (after - before) * self.step.astype(np.float64)
        own = (self.path.scale(before, after) - 1) * self.path.individual(coefficients)
        return own + self.path.offset(after, modulators[1]) - self.path.offset(before, modulators[0])


class LazyModes:
    """Modes (K, V, 3) float32 that are computed on access, because they are large and often not needed.

    They convert to a NumPy array and can be indexed like one; each access computes them again.

    Args:
        shape: (K, V, 3).
        make: computes the modes (K, n, 3) of some vertices, given by a slice or by indices (n,).
    """

    ndim, dtype = 3, np.dtype(np.float32)

    def __init__(self, shape: tuple[int, int, int], make: Callable[[slice | np.ndarray], np.ndarray]):
        self.shape, self._make = shape, make

    def __len__(self) -> int:
        return self.shape[0]

    def at(self, vertices: slice | np.ndarray) -> np.ndarray:
        """Modes (K, n, 3) of some vertices."""
        return self._make(vertices)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return self._make(slice(None)).astype(dtype or self.dtype, copy=False)

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.asarray(self)[key]


def modes_at(modes: np.ndarray | LazyModes, vertices: np.ndarray) -> np.ndarray:
    """Modes (K, n, 3) of some vertices, by their indices (n,); contiguous."""
    return modes.at(vertices) if isinstance(modes, LazyModes) else np.ascontiguousarray(modes[:, vertices])


@dataclass(frozen=True)
class ModelData:
    """The arrays of a face model as stored by `faceverse.weights` (float32 / int64; metres; linear RGB)."""

    mean_vertices: np.ndarray  # (V, 3)
    identity_modes: np.ndarray | LazyModes  # (I, V, 3)
    expression_modes: np.ndarray | LazyModes  # (E, V, 3)
    mean_albedo: np.ndarray  # (V, 3)
    albedo_modes: np.ndarray | LazyModes  # (A, V, 3)
    faces: np.ndarray  # (F, 3)
    uv: np.ndarray  # (U, 2)
    uv_faces: np.ndarray  # (F, 3)
    expression_names: tuple[str, ...]
    regions: dict[str, np.ndarray]
    landmarks_478: Landmarks | None
    landmarks_68: Landmarks
    attributes: tuple[Attribute, ...] = ()
    expression_gain: np.ndarray | None = None  # (E, I) change of each expression's size per unit of identity
    population: np.ndarray | None = None  # (P, I + A) coefficients of heads in the training set
    name: str = "unnamed"
    info: dict = field(default_factory=dict)
    coarse_vertices: np.ndarray | None = None  # (V_coarse,) indices of the coarse mesh's vertices
    coarse_faces: np.ndarray | None = None  # (F_coarse, 3) indices into coarse_vertices
    coarse_uv_faces: np.ndarray | None = None  # (F_coarse, 3) indices into uv
    expression_limits: np.ndarray | None = None  # (E, 2) least and greatest weight; None: 0 and 1
    corrective_pairs: np.ndarray | None = None  # (C, 2) indices of expressions, see correctives.py
    corrective_modes: np.ndarray | LazyModes | None = None  # (C, V, 3) at weight 1 of both expressions of a pair
    named_expressions: bool = True  # False: principal components, whose names are only numbers
    # Arrays of the file that only `faceverse.official` reads; those of the coarse mesh begin with "light_".
    extra: dict[str, np.ndarray] = field(default_factory=dict)


def on_coarse_mesh(data: ModelData) -> ModelData:
    """Restrict a model to its coarse mesh; `coarse_faces` must not be None."""
    keep, faces, uv_faces = data.coarse_vertices, data.coarse_faces, data.coarse_uv_faces
    assert keep is not None and faces is not None and uv_faces is not None
    coarse_index = np.full(len(data.mean_vertices), -1, np.int64)
    coarse_index[keep] = np.arange(len(keep))
    uv_order = np.concatenate([keep, np.setdiff1d(np.arange(len(data.uv)), keep)])
    uv_index = np.empty(len(data.uv), np.int64)
    uv_index[uv_order] = np.arange(len(data.uv))
    regions = {name: coarse_index[index] for name, index in data.regions.items()}
    coarse = replace(
        data,
        mean_vertices=data.mean_vertices[keep],
        identity_modes=modes_at(data.identity_modes, keep),
        expression_modes=modes_at(data.expression_modes, keep),
        mean_albedo=data.mean_albedo[keep],
        albedo_modes=modes_at(data.albedo_modes, keep),
        corrective_modes=None if data.corrective_modes is None else modes_at(data.corrective_modes, keep),
        faces=faces,
        uv=data.uv[uv_order],
        uv_faces=uv_index[uv_faces],
        regions={name: np.sort(index[index >= 0]) for name, index in regions.items()},
        name=f"{data.name} (coarse)",
        coarse_vertices=None,
        coarse_faces=None,
        coarse_uv_faces=None,
        extra={key.removeprefix("light_"): value for key, value in data.extra.items() if key.startswith("light_")},
    )
    many, few = data.landmarks_478, data.landmarks_68
    return replace(
        coarse,
        landmarks_478=None if many is None else _transfer_landmarks(data, coarse, many),
        landmarks_68=_transfer_landmarks(data, coarse, few),
    )


_CANDIDATES = 24  # triangles with the nearest centroids, which are searched for the closest point


def _transfer_landmarks(source: ModelData, target: ModelData, landmarks: Landmarks) -> Landmarks:
    """Transfer landmarks to the closest points of another mesh, on the mean head."""
    points = (source.mean_vertices[source.faces[landmarks.triangle]] * landmarks.barycentric[..., None]).sum(1)
    corners = target.mean_vertices[target.faces]
    near = cKDTree(corners.mean(1)).query(points, k=min(_CANDIDATES, len(corners)))[1].reshape(len(points), -1)
    candidates = corners[near.reshape(-1)]
    repeated = np.repeat(points, near.shape[1], axis=0)
    weights = closest_barycentric(repeated, candidates)
    distance = np.linalg.norm((candidates * weights[..., None]).sum(1) - repeated, axis=1).reshape(near.shape)
    best = distance.argmin(1)
    row = np.arange(len(points))
    closest = weights.reshape(*near.shape, 3)[row, best]
    return replace(landmarks, triangle=near[row, best].astype(np.int64), barycentric=closest.astype(np.float32))


def closest_barycentric(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentric coordinates (L, 3) of points (L, 3) in triangles (L, 3, 3), clamped to the triangle."""
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p = points - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (p * ab).sum(1), (p * ac).sum(1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-20)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    weights = np.clip(np.stack([1 - v - w, v, w], axis=1), 0, None)
    return weights / weights.sum(1, keepdims=True)
