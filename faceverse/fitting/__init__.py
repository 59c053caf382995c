"""Fitting: from one photograph to a head. Stages are data; one loop runs them and reports what each did."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..camera import Camera, default_camera, euler_deg_from_rotation, project, transform
from ..errors import NoFaceError, ParameterError
from ..images import Photo, read_image
from ..landmarks import DetectedFace, detect_faces
from ..lighting import default_light, sh_basis, srgb_from_linear
from ..model import FaceModel, FaceParams
from ..render import render_head
from ..result import FitResult, Stage
from ..texture import bake_photo, iris_colour
from ..weights import load_model
from .photometric import STAGES, FitState, PhotometricProblem, Target, crop_box, cut, initial_colours, optimise
from .solver import (
    LandmarkModel,
    LandmarkSolution,
    habit_factor,
    landmark_model,
    point_weights,
    solve_landmarks,
)

EYE_CORNERS = (33, 263)  # MediaPipe: outer corners of the right and the left eye
SMALL_FACE_PX = 40
TURNED_DEG = 40
DARK_LEVEL = 45
TEXTURE_SIZES = ((260, 1024), (0, 512))  # face height in pixels from which a texture size is worth it
STAGE_SHARE = {"detection": 0.06, "landmarks": 0.12, "photometric": 0.62, "texture": 0.20}  # of the progress bar

Progress = Callable[[str, float, np.ndarray | None], None]


@dataclass(frozen=True)
class _Subject:
    """What is known before the fit: the model, the photograph, the face in it, its camera."""

    model: FaceModel
    photo: Photo
    face: DetectedFace
    camera: Camera
    landmarks: LandmarkModel
    progress: Progress


def fit(
    source,
    model: FaceModel | None = None,
    *,
    face: int = 0,
    detail: bool = True,
    seed: int = 0,
    focal_px: float | None = None,
    on_progress: Progress | None = None,
) -> FitResult:
    """Fits the face model to one photograph.

    Args:
        source: path, PIL image or (H, W, 3) uint8 RGB array.
        model: from `load_model`; by default the open model.
        face: which one, when there are several; 0 is the largest.
        detail: fit the detail module as well, where its weights are installed. This edition ships none, so the head
            carries the base model's shape and the photograph's texture.
        seed: of everything random. The stages of this edition draw nothing, so the result does not depend on it: same
            photograph and versions, same result.
        focal_px: focal length in pixels of the photograph; by default from EXIF, else that of a 40 mm lens.
        on_progress: called with (stage, fraction done of the whole, preview (H, W, 3) uint8 or None).
    Returns:
        FitResult.
    Raises:
        ImageError: the picture cannot be read.
        NoFaceError: no face, or fewer than `face` asks for.
        ParameterError: an argument is out of range.
    """
    started = time.perf_counter()
    _check_arguments(face, seed, focal_px)
    model = load_model() if model is None else model
    progress = on_progress or (lambda stage, fraction, preview: None)
    photo = read_image(source)
    progress("detection", 0.0, None)
    found = detect_faces(photo.rgb)
    if len(found) <= face:
        raise NoFaceError(_missing_face(len(found), face))
    chosen = found[face]
    progress("landmarks", STAGE_SHARE["detection"], None)
    if focal_px is not None:
        focal_px = focal_px * photo.scale
    camera = default_camera(photo.rgb.shape[:2], focal_px or photo.focal_px)
    subject = _Subject(model, photo, chosen, camera, landmark_model(model, model.fit_landmarks), progress)
    detected = Stage("detection", time.perf_counter() - started, 1, {}, 0.0, 0.0)
    solution, landmark_stage = _fit_landmarks(subject)
    state, photometric_stages = _fit_photometric(subject, solution)
    return _finish(subject, state, (detected, landmark_stage, *photometric_stages), started)


def _check_arguments(face: int, seed: int, focal_px: float | None) -> None:
    if isinstance(face, bool) or not isinstance(face, (int, np.integer)) or face < 0:
        raise ParameterError(f"face must be 0 (the largest), 1, 2 ..., got {face!r}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ParameterError(f"seed must be an integer, got {seed!r}")
    if focal_px is not None and not (np.isfinite(focal_px) and focal_px > 0):
        raise ParameterError(f"focal_px must be a positive number of pixels, got {focal_px!r}")


def _missing_face(count: int, face: int) -> str:
    if count == 0:
        return "no face was found; use a photograph in which the face is well lit and at least 60 pixels wide"
    were = "1 face was" if count == 1 else f"{count} faces were"
    return f"{were} found, so face={face} does not exist; use face=0{f' to face={count - 1}' if count > 1 else ''}"


def _fit_landmarks(subject: _Subject) -> tuple[LandmarkSolution, Stage]:
    started = time.perf_counter()
    lm, face = subject.landmarks, subject.face
    solution = solve_landmarks(lm, lm.found(face.landmarks_px), subject.camera, lm.prior.mean(face.blendshapes))
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


def _fit_photometric(subject: _Subject, solution: LandmarkSolution) -> tuple[FitState, list[Stage]]:
    """Albedo and light in closed form, then all variables together, coarse to fine, on the light mesh."""
    mesh = subject.model.light_version
    bases = subject.model.landmark_bases(subject.model.fit_landmarks)
    state = FitState(
        *(torch.from_numpy(np.asarray(x, np.float32)) for x in (solution.identity, solution.expression)),
        torch.zeros(len(subject.model.albedo_basis)),
        *(torch.from_numpy(np.asarray(x, np.float32)) for x in (solution.rotation, solution.translation)),
        default_light(),
    )
    curvature, expression = torch.from_numpy(solution.hessian), state.expression
    stages, done = [], STAGE_SHARE["detection"] + STAGE_SHARE["landmarks"]
    total = sum(s.iterations for s in STAGES)
    for number, settings in enumerate(STAGES):
        started = time.perf_counter()
        target = _target(subject, state, expression, settings.size_px)
        if number == 0:
            state = initial_colours(mesh, state, target)
        share = STAGE_SHARE["photometric"] * settings.iterations / total
        outcome = optimise(
            PhotometricProblem(mesh, bases, target, settings),
            state,
            curvature,
            lambda part, name=settings.name, first=done, share=share: subject.progress(
                name, first + share * part, None
            ),
        )
        state, done = outcome.state, done + share
        subject.progress(settings.name, done, _preview(mesh, state, target))
        stages.append(
            Stage(
                settings.name,
                time.perf_counter() - started,
                settings.iterations,
                outcome.terms,
                outcome.before,
                outcome.after,
                outcome.history,
            )  # fmt: skip
        )
    return state, stages


def _target(subject: _Subject, state: FitState, expression: torch.Tensor, size: int) -> Target:
    """The photograph cut and scaled around the face; the expression of the landmark stage is its prior."""
    box = crop_box(subject.face.landmarks_px)
    pixels, inside = cut(subject.photo.rgb, box, size)
    camera = subject.camera.cropped(box, (size, size))
    scale = size / (box[3] - box[1])
    landmarks = (subject.landmarks.found(subject.face.landmarks_px) - np.array(box[:2])) * scale
    depth_m = -float(state.translation[2])
    weight = point_weights(subject.landmarks, state.rotation.double().numpy(), depth_m, camera.focal_px)
    factor = habit_factor(subject.landmarks, weight, camera.focal_px / depth_m)
    return Target(
        torch.from_numpy(pixels.astype(np.float32) / 255)[None],
        camera,
        torch.from_numpy(landmarks.astype(np.float32)),
        torch.from_numpy(weight.astype(np.float32)),
        torch.from_numpy(factor.astype(np.float32)),
        expression,
        torch.from_numpy(inside.astype(np.float32))[None],
    )


def _preview(mesh: FaceModel, state: FitState, target: Target) -> np.ndarray:
    """Small picture of the current head over the crop: (S, S, 3) uint8."""
    with torch.no_grad():
        shaded = render_head(
            mesh.vertices(state.identity[None], state.expression[None]),
            mesh.albedo(state.albedo[None]).clamp_min(0.005),
            mesh.face_index, state.rotation[None], state.translation[None], state.light[None], target.camera,
        )  # fmt: skip
        picture = torch.where(shaded.mask[0, ..., None], srgb_from_linear(shaded.rgb[0]), target.crop[0])
    return (picture * 255 + 0.5).to(torch.uint8).numpy()


def _finish(subject: _Subject, state: FitState, stages: tuple[Stage, ...], started: float) -> FitResult:
    """Texture, arrays, warnings."""
    begun = time.perf_counter()
    subject.progress("texture", 1 - STAGE_SHARE["texture"], None)
    values = {name: getattr(state, name).numpy() for name in FitState.__dataclass_fields__}
    params = FaceParams(**values)
    landmarks_px = subject.face.landmarks_px
    front = (sh_basis(torch.tensor([0.0, 0.0, 1.0])) @ state.light).numpy()
    iris = iris_colour(subject.photo.rgb, landmarks_px, front)
    params = params if iris is None else replace(params, iris=iris)
    height = float(np.ptp(landmarks_px[:, 1]))
    size = next(size for least, size in TEXTURE_SIZES if height >= least)
    texture = bake_photo(subject.photo.rgb, subject.model, params, subject.camera, size)
    model = subject.model
    with torch.no_grad():
        vertices = model.vertices(state.identity[None], state.expression[None])[0]
        neutral = model.vertices(state.identity[None])[0]
        points = model.landmark_bases(model.fit_landmarks).points(state.identity[None], state.expression[None])[0]
        projected = project(transform(points, state.rotation, state.translation), subject.camera)[:, :2]
        albedo = model.albedo(state.albedo[None])[0].clamp(0, 1)
    textured = Stage("texture", time.perf_counter() - begun, 1, {}, 0.0, 0.0)
    subject.progress("texture", 1.0, None)
    reduced = subject.photo.scale  # results are in pixels of the photograph's own size
    return FitResult(
        model=model,
        params=params,
        camera=_camera_of_original(subject.camera, reduced),
        vertices=vertices.numpy(),
        neutral_vertices=neutral.numpy(),
        albedo=albedo.numpy(),
        texture=texture.rgb,
        texture_confidence=texture.confidence,
        landmarks_px=landmarks_px / np.float32(reduced),
        projected_landmarks_px=projected.numpy() / np.float32(reduced),
        stages=(*stages, textured),
        warnings=_warnings(subject, state),
        seconds=time.perf_counter() - started,
        source=subject.photo.name,
        blendshape_scores=dict(subject.face.blendshapes),
    )


def _camera_of_original(camera: Camera, scale: float) -> Camera:
    """The camera of a photograph that was reduced by `scale` before the fit, in its own pixels."""
    if scale == 1:
        return camera
    height, width = camera.image_size
    original = round(height / scale), round(width / scale)
    return replace(camera.cropped((0, 0, width, height), original), image_size=original)


def _warnings(subject: _Subject, state: FitState) -> tuple[str, ...]:
    """What a user should know about the quality of the result, in words."""
    said = []
    height, width = subject.photo.rgb.shape[:2]
    points = subject.face.landmarks_px
    eyes = float(np.linalg.norm(points[EYE_CORNERS[0]] - points[EYE_CORNERS[1]]))
    if eyes < SMALL_FACE_PX:
        said.append(
            f"the face is small: {eyes:.0f} px between the outer eye corners, {SMALL_FACE_PX} or more work best"
        )
    yaw = euler_deg_from_rotation(state.rotation)[0]
    if abs(yaw) > TURNED_DEG:
        said.append(f"the face is turned {abs(yaw):.0f} degrees; its far side is guessed")
    outside = (points < 0).any(1) | (points[:, 0] > width) | (points[:, 1] > height)
    if outside.mean() > 0.02:
        said.append("part of the face lies outside the picture; it is guessed")
    x0, y0, x1, y1 = (
        int(np.clip(v, 0, limit)) for v, limit in zip(subject.face.box_px, (width, height) * 2, strict=True)
    )
    if x1 > x0 and y1 > y0 and subject.photo.rgb[y0:y1, x0:x1].mean() < DARK_LEVEL:
        said.append("the face is very dark; colours are uncertain")
    return tuple(said)
