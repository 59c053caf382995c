"""Joint fit to several photographs of one person: shared identity and albedo; pose, expression, light, camera each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..detail.module import DetailModule
from ..errors import NoFaceError
from ..graphics.camera import euler_deg_from_rotation
from ..io.images import Photo
from ..landmarks import detect_faces
from ..messages import Message
from ..model.face_model import FaceModel, FaceParams
from ..result import FitResult, FittedView, Stage
from .appearance import fit_appearance
from .detail_stage import FittedDetail, run_detail_stage
from .face_selection import FaceSelector
from .fit_input import (
    FitInput,
    bake_input_texture,
    fit_landmarks,
    fit_warnings,
    fitted_params,
    head_result,
    original_camera,
    original_landmarks_px,
    prepare_fit_input,
    projected_landmarks,
    texture_size,
    with_detail,
    with_hair,
)
from .orientation import in_given_photos
from .prior import IdentityPrior
from .progress import FIT_STAGES, Progress
from .quality_checks import TURNED_DEG
from .solver import LandmarkModel, LandmarkSolution
from .state import FaceState
from .texture import SkinTexture
from .texture_merge import merge_textures, pixel_density

DENSITY_MAP_SIZE = 128  # side of the map in which the photographs' resolution is compared


def fit_photos(
    photos: list[Photo],
    model: FaceModel,
    choices: tuple[list[FaceSelector], list[float | None]],
    module: DetailModule | None,
    seed: int,
    progress: Progress,
    on_base: Callable[[FitResult], None] | None,
    started: float,
) -> FitResult:
    """The joint fit to two or more photographs, see `faceverse.fit`.

    Args:
        choices: faces and focal lengths, one for each photograph.
        module: detail module, or None.
        seed: of the sampled detail.
        on_base: called with the head before the detail stages, if there are any.
        started: `time.perf_counter()` when the fit began.

    Raises:
        NoFaceError: a photograph lacks the selected face; the message has its number and name.
    """
    fit_inputs = _prepare_fit_inputs(photos, model, *choices, progress)
    detected = Stage("detection", time.perf_counter() - started, len(photos), {}, 0.0, 0.0)
    begun = time.perf_counter()
    progress("segmentation", FIT_STAGES["detection"].share, None)
    fit_inputs = [fit_input.segmented() for fit_input in fit_inputs]
    segmented = Stage("segmentation", time.perf_counter() - begun, len(photos), {}, 0.0, 0.0)
    progress("landmarks", FIT_STAGES["detection"].share + FIT_STAGES["segmentation"].share, None)
    begun = time.perf_counter()
    # The regressed identity depends on the same landmarks, whose errors are correlated between photographs.
    alone = [fit_landmarks(fit_input, replace(fit_input.landmarks, person=None)) for fit_input in fit_inputs]
    identity = joint_identity(fit_inputs[0].landmarks, alone)
    together = _with_identity(fit_inputs, identity)
    fit_inputs = [
        replace(fit_input, camera=solution.camera) for fit_input, solution in zip(fit_inputs, together, strict=True)
    ]
    landmarks = _landmark_stage(alone, together, identity, time.perf_counter() - begun)
    prior = IdentityPrior.of_population(len(identity))
    states, photometric = fit_appearance(fit_inputs, together, prior, progress)
    begun = time.perf_counter()
    progress("hair", 1 - FIT_STAGES["texture"].share - FIT_STAGES["hair"].share, None)
    params = [fitted_params(fit_input, state) for fit_input, state in zip(fit_inputs, states, strict=True)]
    params = with_hair(fit_inputs, states, params)
    hair = Stage("hair", time.perf_counter() - begun, len(photos), {}, 0.0, 0.0)
    iris = np.median([p.iris for p in params], axis=0).astype(np.float32)
    stages = (detected, segmented, landmarks, *photometric, hair)
    pairs = list(zip(fit_inputs, states, strict=True))
    warnings = tuple(
        _about_photo(number, fit_input.photo, text)
        for number, (fit_input, state) in enumerate(pairs)
        for text in fit_warnings(fit_input, state, far_side=_is_turned_alike(states))
    )

    def textured(skin: FittedDetail | None, on_progress: Progress) -> FitResult:
        begun = time.perf_counter()
        texture = _merged_texture(fit_inputs, params, skin, on_progress)
        baked = Stage("texture", time.perf_counter() - begun, len(photos), {}, 0.0, 0.0)
        all_stages = (*stages, *(skin.stages if skin else ()), baked)
        first = replace(params[0], iris=iris)
        result = head_result(fit_inputs[0], states[0], first, texture, all_stages, warnings, started)
        result = with_detail(result, module, skin).replace(views=tuple(_view(*pair) for pair in pairs))
        return in_given_photos(result, [fit_input.quarter_turns for fit_input in fit_inputs])

    if module is not None and on_base is not None:
        on_base(textured(None, lambda stage, fraction, preview: None))
    finest = max(range(len(fit_inputs)), key=lambda k: _resolution(fit_inputs[k], params[k]))
    skin = run_detail_stage(fit_inputs[finest], params[finest], module, seed, progress)
    progress("texture", 1 - FIT_STAGES["texture"].share, None)
    return textured(skin, progress).replace(seconds=time.perf_counter() - started)


def _resolution(fit_input: FitInput, params: FaceParams) -> float:
    """Resolution of the skin in a photograph: mean squared pixel density over the texture."""
    return float((pixel_density(fit_input.model, params, fit_input.camera, DENSITY_MAP_SIZE) ** 2).mean())


def _about_photo(number: int, photo: Photo, message: str) -> Message:
    """Prefix a message with the number, counted from 1, and name of its photograph."""
    return Message("fit.about_photo", number=number + 1, name=photo.name, message=message)


def _is_turned_alike(states: list[FaceState]) -> bool:
    """Whether all heads are turned far to the same side, so that no photograph shows the other side."""
    yaws = [euler_deg_from_rotation(state.tensor("rotation")[0])[0] for state in states]
    return min(yaws) > TURNED_DEG or max(yaws) < -TURNED_DEG


def _prepare_fit_inputs(
    photos: list[Photo], model: FaceModel, faces: list, focals: list, progress: Progress
) -> list[FitInput]:
    fit_inputs = []
    for number, (photo, face, focal) in enumerate(zip(photos, faces, focals, strict=True)):
        progress("detection", FIT_STAGES["detection"].share * number / len(photos), None)
        try:
            fit_inputs.append(prepare_fit_input(photo, detect_faces(photo.rgb), model, face, focal))
        except NoFaceError as error:
            raise NoFaceError(_about_photo(number, photo, error.message)) from error
    return fit_inputs


# -- landmarks --------------------------------------------------------------------------------------------------------
def joint_identity(lm: LandmarkModel, solutions: list[LandmarkSolution]) -> np.ndarray:
    """Fuse the landmark solutions of several photographs into one identity (I,).

    Each solution gives a normal distribution of the identity with the Schur complement of pose and free expression
    weights as precision. The product of these distributions, with the prior counted once, approximates a joint solve.
    """
    count = len(lm.identity)
    left, right = np.eye(count), np.zeros(count)
    for solution in solutions:
        precision = _identity_precision(lm, solution)
        left += precision - np.eye(count)
        right += precision @ solution.state.identity
    return np.linalg.solve(left, right)


def _identity_precision(lm: LandmarkModel, solution: LandmarkSolution) -> np.ndarray:
    """(I, I) Schur complement of pose and expression in the Hessian; weights at their bounds are held fixed."""
    count = len(lm.identity)
    low, high = lm.prior.limits.T
    expression = solution.state.expression
    free = (expression > low + 1e-9) & (expression < high - 1e-9)
    own = np.concatenate([np.arange(6), 6 + count + np.flatnonzero(free)])
    shape = 6 + np.arange(count)
    hessian = solution.hessian
    assert hessian is not None
    across = hessian[np.ix_(own, shape)]
    return hessian[np.ix_(shape, shape)] - across.T @ np.linalg.solve(hessian[np.ix_(own, own)], across)


def _with_identity(fit_inputs: list[FitInput], identity: np.ndarray) -> list[LandmarkSolution]:
    """Estimate pose and expression in each photograph with the identity fixed."""
    people = [fit_input.landmarks.with_identity(identity) for fit_input in fit_inputs]
    solved = [fit_landmarks(*pair) for pair in zip(fit_inputs, people, strict=True)]
    return [solution.with_identity(identity) for solution in solved]


def _landmark_stage(
    alone: list[LandmarkSolution], together: list[LandmarkSolution], identity: np.ndarray, seconds: float
) -> Stage:
    terms = {
        "landmarks": sum(s.landmark_loss for s in together),
        "priors": sum(s.prior_loss for s in together) + 0.5 * float((identity**2).sum()),
    }
    before = sum(s.history[0] for s in alone)
    steps = sum(len(s.history) - 1 for s in (*alone, *together))
    return Stage("landmarks", seconds, steps, terms, before, sum(terms.values()))


# -- result -----------------------------------------------------------------------------------------------------------
def _merged_texture(
    fit_inputs: list[FitInput], params: list[FaceParams], skin: FittedDetail | None, progress: Progress
) -> SkinTexture:
    size = max(texture_size(fit_input) for fit_input in fit_inputs)
    textures, densities = [], []
    for number, (fit_input, head) in enumerate(zip(fit_inputs, params, strict=True)):
        textures.append(bake_input_texture(fit_input, head, size, skin))
        densities.append(pixel_density(fit_input.model, head, fit_input.camera, size))
        done = (number + 1) / (len(fit_inputs) + 1)
        progress("texture", 1 - FIT_STAGES["texture"].share * (1 - done), None)
    merged = merge_textures(textures, densities)
    progress("texture", 1.0, None)
    return merged


def _view(fit_input: FitInput, state: FaceState) -> FittedView:
    return FittedView(
        source=fit_input.photo.name,
        camera=original_camera(fit_input),
        **state.per_image(),
        landmarks_px=original_landmarks_px(fit_input),
        projected_landmarks_px=projected_landmarks(fit_input, state),
    )
