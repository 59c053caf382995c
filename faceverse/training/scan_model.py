"""Build a model from registered scans: new mean and modes in the base model's file, everything else carried over.

The base model counts as BASE_HEADS heads beside the scans: means and covariances are pooled in that proportion. A few
scans shift the base model towards them, hundreds replace it, with a smooth transition; directions that no scan
informs stay as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..graphics.mesh import triangles_from_quads
from ..model.face_model import FaceModel
from ..model.file import ModelFile, pack_albedo
from ..model.linear import GAIN_RANGE
from ..weights import model_data
from .assembly import REGION_WEIGHT
from .basis import principal_scores
from .nonrigid import vertex_areas
from .registration import Registration, fill_albedo

BASE_HEADS = 30.0
EXTRA_TINTS = 10  # additional albedo modes: scans have colours outside the base model's span
SHAPE_TOLERANCE_MM, COLOR_TOLERANCE = 0.01, 0.0005  # ridge: differences treated as zero when coefficients are converted


@dataclass(frozen=True)
class MergedBasis:
    """A basis pooled from examples and another basis, with conversions of the coefficients.

    Args:
        mean: (K, 3); modes: (M, K, 3) per unit of a unit-variance coefficient.
        to_merged: (M, M0), forth_offset: (M,): new coefficients = forth @ old ones + forth_offset.
        from_merged: (M0, M), back_offset: (M0,): old coefficients = back @ new ones + back_offset.
    """

    mean: np.ndarray
    modes: np.ndarray
    to_merged: np.ndarray
    to_merged_offset: np.ndarray
    from_merged: np.ndarray
    from_merged_offset: np.ndarray


def merge_basis(
    examples: np.ndarray, base: tuple[np.ndarray, np.ndarray], weights: np.ndarray, count: int, tolerance: float
) -> MergedBasis:
    """Weighted PCA of examples (S, K, 3) pooled with a base model that counts as BASE_HEADS examples.

    Args:
        base: its mean (K, 3) and modes (M0, K, 3).
        weights: (K,) that sum to 1.
        count: number of modes.
        tolerance: difference (root of the weighted mean square) treated as zero between the two bases.
    """
    mean0, modes0 = (values.astype(np.float64) for values in base)
    number, total = len(examples), len(examples) + BASE_HEADS
    own = examples.mean(0, dtype=np.float64)
    mean = (number * own + BASE_HEADS * mean0) / total
    rows = np.concatenate([
        (examples - own) / np.sqrt(total),
        modes0 * np.sqrt(BASE_HEADS / total),
        (own - mean0)[None] * np.sqrt(number * BASE_HEADS) / total,
    ]).reshape(number + len(modes0) + 1, -1)  # fmt: skip
    root = np.repeat(np.sqrt(weights), 3)
    scores, _ = principal_scores(rows * root, count)  # with len(rows) rows of equal weight
    modes = (scores.T.astype(np.float64) @ rows / np.sqrt(len(rows))).reshape(-1, *mean.shape)
    flat, flat0 = (m.reshape(len(m), -1) * root for m in (modes, modes0))
    shift = ((mean - mean0).reshape(-1)) * root
    into_new = np.linalg.solve(flat @ flat.T + tolerance**2 * np.eye(len(flat)), flat)
    into_old = np.linalg.solve(flat0 @ flat0.T + tolerance**2 * np.eye(len(flat0)), flat0)
    return MergedBasis(mean, modes, into_new @ flat0.T, -into_new @ shift, into_old @ flat.T, into_old @ shift)


def model_from_scans(base: ModelFile, registered: Sequence[Registration], modes: int | None = None) -> ModelFile:
    """Build a model file from the base model and registered neutral heads.

    Args:
        registered: heads registered to `base`.
        modes: identity modes of the new model; by default as many as the base model has.
    """
    shapes = np.stack([neutral_control(base, head) for head in registered])
    shape = merge_basis(
        shapes, (base.mean_vertices, base.identity_modes), _shape_weights(base), modes or len(base.identity_modes),
        SHAPE_TOLERANCE_MM,
    )  # fmt: skip
    model = FaceModel(model_data(base))
    albedos = [fill_albedo(model, head.albedo)[0] for head in registered if head.albedo is not None]
    color = _merge_color(model, albedos) if albedos else None
    file = replace(
        base,
        mean_vertices=shape.mean.astype(np.float32),
        identity_modes=shape.modes.astype(np.float16),
        **_converted(base, shape, color),
    )
    if color is None:
        return file
    packed, scale = pack_albedo(color.modes)
    return replace(file, mean_albedo=color.mean.clip(0, 1).astype(np.float16), albedo_modes=packed, albedo_scale=scale)


def neutral_control(base: ModelFile, head: Registration) -> np.ndarray:
    """(Vc, 3) millimetres: the control mesh of a registered head with its expression removed."""
    identity = head.params.identity.astype(np.float64)
    moved = np.tensordot(identity, base.identity_modes.astype(np.float64), axes=1)
    return base.mean_vertices + moved + 1e3 * head.displacement


def _shape_weights(base: ModelFile) -> np.ndarray:
    """(Vc,) weights of the control vertices: area times region weight, as in the training of the base model."""
    faces = base.faces if base.quads is None else triangles_from_quads(base.quads)
    assert faces is not None
    weights = vertex_areas(base.mean_vertices.astype(np.float64), faces.astype(np.int64))
    for bit, name in enumerate(base.region_names):
        inside = (base.region_bits[: len(weights)] >> bit & 1).astype(bool)
        weights[inside] *= REGION_WEIGHT.get(name, 1.0)
    return weights / weights.sum()


def _merge_color(model: FaceModel, albedos: list[np.ndarray]) -> MergedBasis:
    """Pool the albedo basis, with vertices weighted by area."""
    weights = vertex_areas(model.mean_vertices.astype(np.float64), model.faces)
    base = (model.mean_albedo, model.albedo_modes)
    count = len(model.albedo_modes) + min(len(albedos), EXTRA_TINTS)
    return merge_basis(np.stack(albedos), base, weights / weights.sum(), count, COLOR_TOLERANCE)


def _identity_basis(modes: np.ndarray) -> MergedBasis:
    """A basis with identity conversions."""
    same, nothing = np.eye(len(modes)), np.zeros(len(modes))
    return MergedBasis(np.zeros(modes.shape[1:]), modes, same, nothing, same, nothing)


def _converted(base: ModelFile, shape: MergedBasis, color: MergedBasis | None) -> dict[str, Any]:
    """Attributes, population and gains of the base model, converted to the new coefficients."""
    count, tints = len(base.identity_modes), len(base.albedo_modes)
    if color is None:
        color = _identity_basis(base.albedo_modes)

    def to_merged(rows: np.ndarray, offset: bool) -> np.ndarray:
        parts = [rows[:, :count] @ shape.to_merged.T, rows[:, count : count + tints] @ color.to_merged.T]
        offsets = (shape.to_merged_offset, color.to_merged_offset)
        return np.concatenate([p + o * offset for p, o in zip(parts, offsets, strict=True)], axis=1)

    estimator = base.attribute_estimator.astype(np.float64)
    constant = (
        estimator[:, -1]
        + estimator[:, :count] @ shape.from_merged_offset
        + estimator[:, count:-1] @ color.from_merged_offset
    )
    estimators = [
        estimator[:, :count] @ shape.from_merged,
        estimator[:, count:-1] @ color.from_merged,
        constant[:, None],
    ]
    carried = {
        "attribute_step": to_merged(base.attribute_step.astype(np.float64), False).astype(np.float32),
        "attribute_estimator": np.concatenate(estimators, axis=1).astype(np.float32),
    }
    if base.attribute_path is not None:
        rows = base.attribute_path.astype(np.float64)
        flat = to_merged(rows.reshape(-1, rows.shape[2]), False)
        carried["attribute_path"] = flat.reshape(*rows.shape[:2], -1).astype(np.float32)
        # What is individual is defined in the coefficients of the base model. Everything is kept: a mere offset.
        everything = np.eye(flat.shape[1], dtype=np.float32)
        carried["attribute_path_kept"] = np.stack([everything, everything])
    if base.population is not None:
        carried["population"] = to_merged(base.population.astype(np.float64), True).astype(np.float16)
    if base.expression_gain is not None:
        gain = base.expression_gain.astype(np.float64)
        at_mean = np.clip(1 + gain @ shape.from_merged_offset, *GAIN_RANGE)
        carried["expression_gain"] = (gain @ shape.from_merged / at_mean[:, None]).astype(np.float16)
        carried["expression_modes"] = (base.expression_modes * at_mean[:, None, None]).astype(np.float16)
    return carried
