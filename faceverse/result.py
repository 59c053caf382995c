"""What a fit returns: a value, complete in itself, that can be edited, rendered, exported and stored."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .graphics.camera import Camera
from .model.face_model import FaceModel, FaceParams, evaluate
from .model.skin_texture import model_texture


@dataclass(frozen=True)
class Stage:
    """What one stage of the fit did.

    Args:
        name: such as "landmarks" or "photometric".
        seconds: wall-clock time.
        iterations: solver steps taken.
        loss_terms: weighted loss by term at the end.
        before, after: total loss at the start and at the end (same terms, same weights).
        history: total loss per iteration; photometric stages weigh pixels anew now and then, where it may step.
    """

    name: str
    seconds: float
    iterations: int
    loss_terms: dict[str, float]
    before: float
    after: float
    history: tuple[float, ...] = ()


class DetailModuleLike(Protocol):
    """What a head knows of its detail module, see `faceverse.detail.module.DetailModule`."""

    name: str
    info: dict

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that identify modules which generate the same detail from the same latents."""
        ...

    def is_same(self, other: DetailModuleLike | None) -> bool:
        """Whether latents mean the same in both."""
        ...


@dataclass(frozen=True)
class FittedView:
    """One of several photographs of a person, as fitted. NumPy float32; conventions in camera.py.

    Args:
        source: name of the photograph.
        camera: of the photograph, in its own pixels.
        rotation: (3, 3); translation: (3,) metres: pose of the head.
        expression: (E,) weights.
        light: (9, 3), see lighting.py.
        landmarks_px: (478, 2) as found in the photograph.
        projected_landmarks_px: (L, 2) as fitted, see `FitResult`.
    """

    source: str
    camera: Camera
    rotation: np.ndarray
    translation: np.ndarray
    expression: np.ndarray
    light: np.ndarray
    landmarks_px: np.ndarray
    projected_landmarks_px: np.ndarray


@dataclass(frozen=True)
class FitResult:
    """A person's head, as fitted to a photograph or to several. Arrays are NumPy; conventions in camera.py.

    Args:
        model: the face model that `params` belong to.
        params: identity, expression, albedo, pose, light.
        camera: of the photograph.
        vertices: (V, 3) metres, head space, with expression.
        neutral_vertices: (V, 3) without expression.
        albedo: (V, 3) linear RGB of the model (not of the texture).
        texture: (H, W, 3) uint8 sRGB, the photograph's light divided out.
        texture_confidence: (H, W) uint8, 255 where the photograph was seen well, 0 where the model filled in.
        normal_map: (H, W, 3) uint8 tangent space, or None without detail.
        displacement: (H, W) float32 millimetres along the normal, or None without detail.
        landmarks_px: (478, 2) as found in the photograph, or None for heads that come from no photograph.
        projected_landmarks_px: (L, 2) as fitted, a row for each point of `model.fit_landmarks` (478, or 68 and fewer
            for models that know no more), None likewise. `matched_landmarks_px` are the same points as found.
        stages: what happened, in order.
        warnings: in words.
        seconds: from photograph to result.
        views: pose, expression and light in each of several photographs, the first one (whose pose, expression and
            light `params` has) included; empty for a fit to one photograph.
    """

    model: FaceModel
    params: FaceParams
    camera: Camera
    vertices: np.ndarray
    neutral_vertices: np.ndarray
    albedo: np.ndarray
    texture: np.ndarray
    texture_confidence: np.ndarray
    normal_map: np.ndarray | None = None
    displacement: np.ndarray | None = None
    landmarks_px: np.ndarray | None = None
    projected_landmarks_px: np.ndarray | None = None
    stages: tuple[Stage, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    source: str = ""
    blendshape_scores: dict[str, float] = field(default_factory=dict)
    views: tuple[FittedView, ...] = ()
    detail_module: DetailModuleLike | None = None

    @property
    def faces(self) -> np.ndarray:
        """(F, 3) vertex indices."""
        return self.model.faces

    @property
    def uv(self) -> np.ndarray:
        """(U, 2), see `FaceModel.uv`."""
        return self.model.uv

    @property
    def uv_faces(self) -> np.ndarray:
        """(F, 3) indices into `uv`."""
        return self.model.uv_faces

    @property
    def matched_landmarks_px(self) -> np.ndarray | None:
        """(L, 2) the rows of `landmarks_px` that `projected_landmarks_px` was fitted to, in its order."""
        detected = self.model.fit_landmarks.detected
        return self.landmarks_px if self.landmarks_px is None or detected is None else self.landmarks_px[detected]

    def replace(self, **changes) -> FitResult:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def __repr__(self) -> str:
        height, width = self.texture.shape[:2]
        return (
            f"FitResult({self.source or 'no photograph'}: {len(self.vertices)} vertices, texture {width} x {height}, "
            f"{len(self.stages)} stages, {self.seconds:.2f} s)"
        )


def with_params(result: FitResult, params: FaceParams) -> FitResult:
    """The same head with other parameters: vertices, neutral_vertices and albedo (clipped to 0..1) follow them.

    Texture and normal map stay as they are; landmarks, stages and warnings go on telling about the fit.

    Raises:
        ParameterError: coefficients of the wrong length for `result.model`.
    """
    model = result.model

    def row(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(values, dtype=np.float32, ndmin=2)).to(model.device)

    neutral = model.vertices(row(params.identity))[0]
    weights = model.gain(row(params.identity)) * row(params.expression)
    return result.replace(
        params=params,
        vertices=evaluate(neutral, (model.tensor("expression_modes"), weights))[0].numpy(force=True),
        neutral_vertices=neutral.numpy(force=True),
        albedo=model.albedo(row(params.albedo))[0].clamp(0, 1).numpy(force=True),
    )


def head_from_params(
    model: FaceModel, params: FaceParams, camera: Camera, texture_size: int = 512, source: str = ""
) -> FitResult:
    """The head of given parameters as `fit` returns heads, with the model's own albedo as its texture."""
    skin = model_texture(model, params, texture_size)
    empty = np.zeros_like(model.mean_vertices)
    bare = FitResult(model, params, camera, empty, empty, empty, skin.rgb, skin.confidence, source=source)
    return with_params(bare, params)
