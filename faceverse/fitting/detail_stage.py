"""Detail stages of a fit: what the photograph shows is read from its shading, the generators complete the rest.

The displacement of the observed skin is estimated in closed form (`shape_from_shading`). The detail generator, with
latents that a small network predicts (`detail.displacement_regressor`), gives the displacement and the albedo of the
skin that the photograph does not show. Its depth is scaled by the evidence of wrinkles: a photograph of smooth skin
gets shallow detail everywhere. Wrinkles where the expression compresses the skin are stored as part of the expression:
they fade when the face comes to rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..detail.file import has_open_detail, load_detail
from ..detail.latents import (
    check_open,
    compression_ratio,
    generated_wrinkles,
    known_factors,
    layout_digest,
    maps_of,
    open_parts,
    quantised_residual,
    random_detail,
    wrinkle_compression,
)
from ..detail.module import DetailModule
from ..errors import ParameterError
from ..graphics.camera import Camera
from ..model.face_model import FaceModel, FaceParams
from ..result import Stage
from ..segmentation import Segmentation
from .progress import Progress
from .shape_from_shading import displacement_from_shading
from .skin_observation import MM_PER_TEXEL_AT_512, SkinObservation, gaussian_blur, observe_skin, shade_sensitivity

MIN_TEXEL_SHARE = 0.02  # share of the map that has to show skin; below, the detail is random
MAX_BLUR_TEXELS = 3.0  # of 512: standard deviation of the photograph's blur above which it shows no detail
PHOTO_SHARE = 0.5  # by which generated skin is reduced where the photograph shows it: shading does not tell all of it
LEAST_DEPTH = 0.25  # of the generated detail beside smooth skin
EXPRESSION_SHARE = 0.85  # of the wrinkles in fully compressed skin that fade with the expression
FULL_COMPRESSION = 0.12  # strain
BORDER_SIGMA_MM = 2.0  # of the transition between observed and generated skin


@dataclass(frozen=True)
class FittedDetail:
    """Latents for `FaceParams.detail`, and the maps that they generate.

    Args:
        latents: see `detail.latents`.
        displacement: (S, S) mm, expression wrinkles included.
        albedo_log: (S, S, 3) change of the logarithm of the albedo.
        stages: of the fit, for reports.
        from_photo: whether the detail was fitted to the photograph. False: it is sampled for the person's age and sex
            because the photograph shows too little skin or is too blurred.
    """

    latents: dict[str, np.ndarray]
    displacement: np.ndarray
    albedo_log: np.ndarray
    stages: tuple[Stage, ...]
    from_photo: bool


def select_detail_module(detail: bool | DetailModule, model: FaceModel) -> DetailModule | None:
    """Resolve the argument `detail` of `faceverse.fit` to a module, or to None for no detail.

    Raises:
        ParameterError: a module for another model, or a value of another type.
    """
    if isinstance(detail, DetailModule):
        return check_open(detail, model)
    if not isinstance(detail, (bool, np.bool_)):
        raise ParameterError("fit.detail_type", detail=repr(detail))
    if not detail or not has_open_detail():
        return None
    module = load_detail()
    return module if module.code is not None and module.code.layout in ("", layout_digest(model)) else None


def run_detail_stage(fit_input, params: FaceParams, module: DetailModule | None, seed: int, progress: Progress):
    """`fit_detail_maps` of a `FitInput`, or None without a module."""
    if module is None:
        return None
    progress("detail", 0.0, None)
    photo, model, camera = fit_input.photo.rgb, fit_input.model, fit_input.camera
    return fit_detail_maps(
        photo, model, params, camera, module, seed, lambda share: progress("detail", share, None), fit_input.labels
    )


def fit_detail_maps(
    photo: np.ndarray,
    model: FaceModel,
    params: FaceParams,
    camera: Camera,
    module: DetailModule,
    seed: int = 0,
    on_step: Callable[[float], None] = lambda share: None,
    labels: Segmentation | None = None,
) -> FittedDetail:
    """Fit the skin detail of a head to its photograph.

    Args:
        photo: (H, W, 3) uint8 sRGB.
        model: the face model.
        params: the fitted head.
        camera: of the photograph.
        module: an open detail module.
        seed: of the sampled detail where the photograph shows none.
        on_step: called with the fraction done, 0..1.
        labels: of the photograph; None: all of the head is taken for skin.
    Raises:
        ParameterError: the module is not an open one, or the seed is out of range.
    """
    latents = random_detail(module, model, params, seed)
    size = open_parts(module)[0].size
    view = observe_skin(photo, model, params, camera, size, labels)
    too_blurred = view.blur_texels * 512 / size > MAX_BLUR_TEXELS
    if too_blurred or float((view.weight > 0.5).float().mean()) < MIN_TEXEL_SHARE:
        maps = maps_of(module, model, params.replace(detail=latents))
        return FittedDetail(latents, maps.displacement, maps.albedo_log, (), False)
    on_step(0.2)
    return _fit(module, model, params, latents, view, on_step)


@torch.no_grad()
def _fit(
    module: DetailModule,
    model: FaceModel,
    params: FaceParams,
    latents: dict[str, np.ndarray],
    view: SkinObservation,
    on_step: Callable[[float], None],
) -> FittedDetail:
    """`fit_detail_maps` from sampled latents and an observation."""
    started = time.perf_counter()
    latents = latents | predicted_latents(module, model, params, view)
    on_step(0.4)
    estimate = displacement_from_shading(view)
    on_step(0.6)
    bare = maps_of(module, model, params.replace(detail=latents, expression=np.zeros_like(params.expression)))
    on_step(0.8)
    seen, size = PHOTO_SHARE * _smooth_share(estimate.seen).numpy(), len(bare.displacement)
    depth = max(estimate.evidence, LEAST_DEPTH)
    latents = latents | {"depth": np.float32(depth), "wrinkle_depth": np.float32(depth)}
    shown: np.ndarray = estimate.displacement.numpy()
    of_expression: np.ndarray = np.zeros_like(shown)
    has_wrinkles = module.expression is not None and bool(params.expression.any())
    if has_wrinkles:
        compressed = wrinkle_compression(model, params, size)
        of_expression = shown * (EXPRESSION_SHARE * np.clip(compressed / FULL_COMPRESSION, 0, 1))
    residual = _stored((shown - of_expression) / depth - seen * bare.displacement)
    latents = latents | {"residual_displacement": residual.ravel()}
    displacement = depth * (bare.displacement + residual * view.frame.weight.numpy())
    before, after = view.error(0.0), view.error(view.predicted(torch.zeros(3, 1, 1), estimate.displacement))
    fitted = Stage(
        "detail", time.perf_counter() - started, max(len(estimate.history) - 1, 0), {"shading": after}, before, after,
        estimate.history,
    )  # fmt: skip
    stages = [fitted]
    if has_wrinkles:
        started = time.perf_counter()
        posed = params.replace(detail=latents)
        generated = depth * generated_wrinkles(module, model, posed, displacement)
        added = _stored(of_expression - seen * generated)
        latents = latents | {"expression_residual": added.ravel(), "fitted_expression": params.expression.copy()}
        displacement = displacement + (generated + compression_ratio(compressed, compressed) * added)
        stages.append(Stage("expression detail", time.perf_counter() - started, 1, {}, after, after))
    on_step(1.0)
    return FittedDetail(latents, displacement, bare.albedo_log, tuple(stages), True)


def predicted_latents(
    module: DetailModule, model: FaceModel, params: FaceParams, view: SkinObservation
) -> dict[str, np.ndarray]:
    """Latents of the detail generator that the module's regressor predicts from a photograph; empty without one.

    They sample the skin that the photograph does not show. Age and sex are those of the head.
    """
    if module.regressor is None:
        return {}
    generator, code = open_parts(module)
    inputs = view.residual, view.weight[None], shade_sensitivity(view.frame, view.light)
    _, z = module.regressor(*(maps[None] for maps in inputs))
    for name, value in known_factors(code, model, params).items():
        z[0, code.factors.index(name)] = value
    return {"w": generator.mapping(z)[0].numpy()}


def _smooth_share(weight: Tensor) -> Tensor:
    """Share (S, S) of the photograph in the displacement, without a step at the border of the observed skin."""
    return gaussian_blur(weight[None], BORDER_SIGMA_MM * weight.shape[-1] / 512 / MM_PER_TEXEL_AT_512)[0]


def _stored(displacement: np.ndarray) -> np.ndarray:
    """A displacement as files restore it."""
    return quantised_residual(torch.from_numpy(np.ascontiguousarray(displacement, np.float32))).numpy()
