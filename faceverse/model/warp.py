"""A person's own smooth deformation of the mesh: what identity and expression modes do not say about their face.

Displacements of control points, landmarks of the detector, are interpolated over the surface by a Gaussian process. Its
kernel is evaluated on the mean head with open mouth and wide eyes, so that lips and lids move independently of the ones
they touch. The deformation is that of the head without expression, and expressions add to it.

Reference: Luethi et al. 2018, "Gaussian process morphable models".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ..errors import ParameterError
from .face_model import FaceModel, FaceParams
from .linear import evaluate

# MediaPipe's indices. Chosen by farthest-point sampling, in mirrored pairs, with twice the density on lips and lids.
CONTROL_POINTS = (
    0, 5, 6, 8, 10, 13, 17, 19, 21, 37, 40, 47, 50, 54, 58, 63, 66, 67, 70, 78, 81, 82, 84, 87, 88, 93, 101, 102, 103,
    105, 107, 109, 111, 132, 133, 134, 136, 139, 145, 146, 147, 149, 152, 158, 161, 163, 181, 191, 202, 207, 208, 211,
    214, 234, 251, 267, 270, 277, 280, 284, 288, 293, 296, 297, 300, 308, 311, 312, 314, 317, 318, 323, 330, 331, 332,
    334, 336, 338, 340, 361, 362, 363, 365, 368, 374, 375, 376, 378, 385, 388, 390, 405, 415, 422, 427, 428, 431, 434,
    454,
)  # fmt: skip
# Scales of the deformation: standard deviation of a displacement per axis, and length of its correlation; metres.
SCALES_M = ((1.2e-3, 0.015), (0.6e-3, 0.007))
_OPEN = ("jawOpen", "mouthLowerDown", "mouthUpperUp", "eyeWide")  # expressions that separate lips and lids
_JITTER_M = 2e-5  # standard deviation of the control points' own error, for a well-conditioned inverse
LID_EDGES = {
    "eyeball_right": (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    "eyeball_left": (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
}  # landmarks around the openings with which the eyeballs move


@dataclass(frozen=True)
class WarpBasis:
    """Interpolation of control points' displacements over a mesh.

    Args:
        controls: (K, 3) float64 metres, the control points on the mean head with open mouth and wide eyes.
        weights: (V, K) float32; vertices move by `weights @ displacements`.
    """

    controls: np.ndarray
    weights: np.ndarray

    @cached_property
    def tensor(self) -> Tensor:
        """The weights as a tensor."""
        return torch.from_numpy(self.weights)

    def checked(self, warp: np.ndarray) -> np.ndarray:
        """Displacements (K, 3) float32; raises ParameterError for another shape."""
        warp = np.asarray(warp, np.float32)
        if warp.shape != self.controls.shape:
            raise ParameterError("model.warp", count=len(self.controls), shape=warp.shape)
        return warp


_bases: WeakKeyDictionary[FaceModel, WarpBasis | None] = WeakKeyDictionary()


def warp_basis(model: FaceModel) -> WarpBasis | None:
    """The basis of a model's warps, cached; None without the detector's 478 points or ARKit's expressions."""
    if model not in _bases:
        _bases[model] = _made(model)
    return _bases[model]


def kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Covariance (N, M) of a displacement along one axis at points (N, 3) and (M, 3), square metres."""
    squared = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    return sum(sigma**2 * np.exp(squared.clip(0) / (-2 * length**2)) for sigma, length in SCALES_M)


def head_vertices(model: FaceModel, params: FaceParams) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of a head with its own deformation, without and with expression: (V, 3) float32 each, metres.

    Raises:
        ParameterError: coefficients of another model.
    """
    identity, expression = (
        torch.from_numpy(np.array(values, np.float32, ndmin=2)).to(model.device)
        for values in (params.identity, params.expression)
    )
    with torch.no_grad():
        neutral = model.vertices(identity)[0]
        if params.warp.size:
            basis = warp_basis(model)
            if basis is None:
                raise ParameterError("model.no_warp", model=model.name)
            moved = basis.tensor @ torch.from_numpy(basis.checked(params.warp))
            neutral = neutral + moved.to(neutral)
        vertices = evaluate(neutral, *model.expression_terms(identity, expression))[0]
    return neutral.numpy(force=True), vertices.numpy(force=True)


def _made(model: FaceModel) -> WarpBasis | None:
    marks = model.landmarks_478
    opening = [k for k, name in enumerate(model.expression_names) if name.startswith(_OPEN)]
    if marks is None or marks.detected is not None or not model.data.named_expressions or not opening:
        return None
    opened = (model.mean_vertices + model.expression_modes[opening].sum(0)).astype(np.float64)
    points = (opened[model.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)
    controls = points[list(CONTROL_POINTS)]
    covariance = kernel(controls, controls) + _JITTER_M**2 * np.eye(len(controls))
    inverse = np.linalg.inv(covariance)
    weights = kernel(opened, controls) @ inverse
    for region, edge in LID_EDGES.items():
        weights[model.regions.get(region, [])] = (kernel(points[list(edge)], controls) @ inverse).mean(0)
    _move_rigidly(model, weights)
    return WarpBasis(controls, weights.astype(np.float32))


def _move_rigidly(model: FaceModel, weights: np.ndarray) -> None:
    """Give the teeth of each jaw, and the tongue with the lower ones, one displacement; changes the weights (V, K)."""
    jaw = np.linalg.norm(model.expression_modes[model.expression_names.index("jawOpen")], axis=1)
    teeth = model.regions.get("teeth", np.zeros(0, np.int64))
    if not len(teeth):
        return
    is_lower = jaw[teeth] > jaw[teeth].max() / 2
    upper, lower = teeth[~is_lower], teeth[is_lower]
    weights[upper] = weights[upper].mean(0)
    weights[np.concatenate([lower, model.regions.get("tongue", lower[:0])])] = weights[lower].mean(0)
