"""Fit the face model to photographs: detection, landmarks, photometric stages, skin detail, texture."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..detail.latents import check_seed
from ..detail.module import DetailModule
from ..errors import ParameterError
from ..io.images import read_image
from ..landmarks import detect_faces
from ..messages import Message
from ..model.face_model import FaceModel
from ..result import FitResult, Stage
from ..threads import one_thread
from ..weights import load_model
from .appearance import fit_appearance
from .detail_stage import FittedDetail, run_detail_stage, select_detail_module
from .face_selection import FaceSelector, check_face_selector
from .fit_input import (
    FitInput,
    bake_input_texture,
    fit_landmarks,
    fit_warnings,
    fitted_params,
    head_result,
    prepare_fit_input,
    texture_size,
    with_detail,
    with_hair,
)
from .multi_photo import fit_photos
from .orientation import in_given_photos
from .prior import IdentityPrior
from .progress import FIT_STAGES, Progress, with_detail_share
from .solver import LandmarkSolution


@one_thread()
def fit(
    source,
    model: FaceModel | None = None,
    *,
    face: FaceSelector | list[FaceSelector] = 0,
    detail: bool | DetailModule = True,
    seed: int = 0,
    focal_px: float | list[float | None] | None = None,
    on_progress: Progress | None = None,
    on_base: Callable[[FitResult], None] | None = None,
) -> FitResult:
    """Fit the face model to one photograph, or to several of one person.

    Several photographs give one identity, one albedo and one texture, each part of which comes from the photograph
    with the best view of it. Pose, expression, light and camera are estimated for each photograph
    (`FitResult.views`); the result has those of the first one. A head may be upside down or on its side: it is fitted
    as if it were upright, and the result's pose, camera and landmarks are those of the photograph as it is.

    Args:
        source: path, PIL image or (H, W, 3) uint8 RGB array; or a list or tuple of them.
        model: from `load_model`; by default the open model.
        face: which one, when there are several: 0 or "largest" for the largest, 1, 2 ... for the next ones, or a point
            (x, y) in pixels of the photograph's own size: the face there, or the nearest to it. A list selects a face
            in each photograph.
        detail: fit the skin's detail as well: wrinkles, pores, moles. True: with the open detail module, if it is
            installed and was trained for this model's texture layout; False: the base model's shape alone, in a
            fraction of the time; or a module from `load_detail`. With several photographs, the detail is fitted to the
            one with the highest resolution of the skin.
        seed: of the detail that the photograph does not show, the only random part: same photograph, seed and
            versions, same result. 0 to 2^24 - 1.
        focal_px: focal length in pixels of the photograph; by default from EXIF, else fitted, with a prior at a 40 mm
            lens (35 mm equivalent). A list has one, or None, for each photograph.
        on_progress: called with (stage, fraction done of the whole, preview (H, W, 3) uint8 or None).
        on_base: called once with the textured FitResult of the base model before the detail stages begin; not called
            if no detail is fitted.
    Returns:
        FitResult.
    Raises:
        ImageError: a picture cannot be read.
        NoFaceError: no face, fewer than `face` requires, or the face of an animal; with several photographs, the
            message names the one.
        ParameterError: an argument is out of range.
    """
    started = time.perf_counter()
    sources = list(source) if isinstance(source, (list, tuple)) else [source]
    if not sources:
        raise ParameterError("fit.no_photos")
    faces, focals = (_one_each(v, len(sources), n) for v, n in ((face, "face"), (focal_px, "focal_px")))
    for selector, focal in zip(faces, focals, strict=True):
        _check_arguments(selector, seed, focal)
    model = load_model() if model is None else model
    module = select_detail_module(detail, model)
    progress = with_detail_share(on_progress or (lambda stage, fraction, preview: None), module is not None)
    if len(sources) > 1:
        photos = [read_image(item) for item in sources]
        return fit_photos(photos, model, (faces, focals), module, seed, progress, on_base, started)
    photo = read_image(sources[0])
    progress("detection", 0.0, None)
    fit_input = prepare_fit_input(photo, detect_faces(photo.rgb), model, faces[0], focals[0])
    progress("segmentation", FIT_STAGES["detection"].share, None)
    detected = Stage("detection", time.perf_counter() - started, 1, {}, 0.0, 0.0)
    begun = time.perf_counter()
    fit_input = fit_input.segmented()
    segmented = Stage("segmentation", time.perf_counter() - begun, 1, {}, 0.0, 0.0)
    progress("landmarks", FIT_STAGES["detection"].share + FIT_STAGES["segmentation"].share, None)
    solution, landmark_stage = _fit_landmarks(fit_input)
    fit_input = replace(fit_input, camera=solution.camera)
    prior = IdentityPrior.of_population(len(solution.state.identity))
    (state,), photometric_stages = fit_appearance([fit_input], [solution], prior, progress)
    begun = time.perf_counter()
    progress("hair", 1 - FIT_STAGES["texture"].share - FIT_STAGES["hair"].share, None)
    (params,) = with_hair([fit_input], [state], [fitted_params(fit_input, state)])
    hair = Stage("hair", time.perf_counter() - begun, 1, {}, 0.0, 0.0)
    stages = (detected, segmented, landmark_stage, *photometric_stages, hair)
    warnings = fit_warnings(fit_input, state)

    def textured(skin: FittedDetail | None) -> FitResult:
        begun = time.perf_counter()
        texture = bake_input_texture(fit_input, params, texture_size(fit_input), skin)
        baked = Stage("texture", time.perf_counter() - begun, 1, {}, 0.0, 0.0)
        all_stages = (*stages, *(skin.stages if skin else ()), baked)
        head = head_result(fit_input, state, params, texture, all_stages, warnings, started)
        return in_given_photos(with_detail(head, module, skin), [fit_input.quarter_turns])

    if module is not None and on_base is not None:
        on_base(textured(None))
    skin = run_detail_stage(fit_input, params, module, seed, progress)
    progress("texture", 1 - FIT_STAGES["texture"].share, None)
    result = textured(skin)
    progress("texture", 1.0, None)
    return result.replace(seconds=time.perf_counter() - started)


def _one_each(value, count: int, name: str) -> list:
    """A list of one value per photograph, from such a list or from one value for all."""
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        photographs = Message("count.photographs", count=count)
        raise ParameterError("fit.list_length", name=name, found=len(value), photographs=photographs)
    return value


def _check_arguments(face: FaceSelector, seed: int, focal_px: float | None) -> None:
    check_face_selector(face)
    check_seed(seed)
    if focal_px is not None and not (np.isfinite(focal_px) and focal_px > 0):
        raise ParameterError("fit.focal_px", focal_px=repr(focal_px))


def _fit_landmarks(fit_input: FitInput) -> tuple[LandmarkSolution, Stage]:
    started = time.perf_counter()
    solution = fit_landmarks(fit_input)
    stage = Stage(
        "landmarks",
        time.perf_counter() - started,
        len(solution.history) - 1,
        {"landmarks": solution.landmark_loss, "priors": solution.prior_loss},
        solution.history[0],
        solution.history[-1],
        solution.history,
    )
    return solution, stage
