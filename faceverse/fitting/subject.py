"""One face in one photograph: what is known of it before a fit, and what a fit makes of it afterwards."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..detail.latents import multiplied, resized
from ..detail.module import DetailModule
from ..detail.relief import normal_map
from ..graphics.camera import Camera, default_camera, euler_deg_from_rotation, project, transform
from ..graphics.lighting import default_light, sh_basis, srgb_from_linear
from ..io.images import Photo
from ..landmarks import DetectedFace
from ..model.face_model import FaceModel, FaceParams
from ..rendering.render import render_head
from ..result import FitResult, Stage
from .choice import FaceChoice, choose_face, is_point, rivals
from .photometric import Target, crop_box, cut
from .remarks import CROP_PX, Evidence, remarks
from .skin_stage import FittedSkin
from .solver import (
    LandmarkModel,
    LandmarkSolution,
    LandmarkTerm,
    habit_factor,
    landmark_model,
    point_weights,
    solve_landmarks,
)
from .start import load_start
from .surface import DARKEST, FitState
from .texture import Texture, bake_photo, iris_colour

FOCAL_SIGMA = 0.25  # of an unknown focal length, as a logarithm
TEXTURE_SIZES = ((260, 1024), (0, 512))  # face height in pixels from which a texture size is worth it


@dataclass(frozen=True)
class Subject:
    """What is known before the fit: the model, the photograph, the face in it, its camera.

    Args:
        unclear: how many faces could have been meant, where nobody said which one; else 1.
        points_px: (L, 2) the model's landmarks as far as the detector is believed.
        expected: (E,) weights of the expression to expect.
        lens_known: whether the camera's focal length was given or stored in the file.
    """

    model: FaceModel
    photo: Photo
    face: DetectedFace
    camera: Camera
    landmarks: LandmarkModel
    points_px: np.ndarray
    expected: np.ndarray
    unclear: int = 1
    lens_known: bool = True


def find_subject(
    photo: Photo, found: list[DetectedFace], model: FaceModel, face: FaceChoice, focal_px: float | None
) -> Subject:
    """The face that is asked for, ready for the fit.

    Args:
        photo: as read.
        found: the faces in it, largest first.
        face: see `choice.choose_face`.
        focal_px: in pixels of the photograph's own size, or None.

    Raises:
        NoFaceError: no face, or fewer than `face` asks for.
    """
    chosen = choose_face(found, face, photo.scale)
    if focal_px is not None:
        focal_px = focal_px * photo.scale
    known = focal_px or photo.focal_px
    camera = default_camera(photo.rgb.shape[:2], known)
    unclear = 1 if isinstance(face, str) or is_point(face) or face != 0 else rivals(found)
    lm = landmark_model(model, model.fit_landmarks)
    points_px, expected = chosen.landmarks_px, lm.prior.mean(chosen.blendshapes)
    network = load_start(model)
    if network is not None:
        start = network.predict(chosen, camera)
        expected = np.where(lm.prior.surer(start.expression_sigma), start.expression, expected)
        lm, points_px = lm.with_start(start), start.points_px
    return Subject(model, photo, chosen, camera, lm, lm.found(points_px), expected, unclear, known is not None)


def solve_subject(subject: Subject, landmarks: LandmarkModel | None = None) -> LandmarkSolution:
    """Pose, identity and expression from the landmarks; with those of a known person, pose and expression only."""
    lm, focal_sigma = landmarks or subject.landmarks, 0.0 if subject.lens_known else FOCAL_SIGMA
    return solve_landmarks(lm, subject.points_px, subject.camera, subject.expected, focal_sigma=focal_sigma)


def first_state(subject: Subject, solution: LandmarkSolution) -> FitState:
    """Where the photometric stages start: the landmarks' shape and pose, the model's mean albedo, even light."""
    return FitState(
        identity=solution.identity,
        expression=solution.expression,
        albedo=np.zeros(len(subject.model.data.albedo_modes)),
        rotation=solution.rotation,
        translation=solution.translation,
        light=default_light().double().numpy(),
    )


def target_of(subject: Subject, state: FitState, expression: np.ndarray, size: int) -> Target:
    """The photograph cut and scaled around the face.

    Args:
        expression: (E,) of the landmark stage, to stay close to.
        size: side in pixels.
    """
    box = crop_box(subject.face.landmarks_px)
    pixels, inside = cut(subject.photo.rgb, box, size)
    camera = subject.camera.cropped(box, (size, size))
    lm = subject.landmarks
    observed = (subject.points_px.astype(np.float64) - box[:2]) * size / (box[3] - box[1])
    depth_m = -float(state.translation[2])
    weight = point_weights(lm, state.rotation, depth_m, camera.focal_px)
    factor = habit_factor(lm, weight, camera.focal_px / depth_m)
    term = LandmarkTerm(lm, observed, camera, weight, factor)
    return Target(pixels.astype(np.float32) / 255, inside, camera, term, expression)


def preview_of(mesh: FaceModel, state: FitState, target: Target) -> np.ndarray:
    """Small picture of the current head over the crop: (S, S, 3) uint8."""
    with torch.no_grad():
        shaded = render_head(
            mesh.vertices(state.tensor("identity"), state.tensor("expression")),
            mesh.albedo(state.tensor("albedo")).clamp_min(DARKEST),
            mesh.face_index, state.tensor("rotation"), state.tensor("translation"), state.tensor("light"),
            target.camera,
        )  # fmt: skip
        crop = torch.from_numpy(target.crop)
        picture = torch.where(shaded.mask[0, ..., None], srgb_from_linear(shaded.rgb[0]), crop)
    return (picture * 255 + 0.5).to(torch.uint8).numpy()


def fitted_params(subject: Subject, state: FitState) -> FaceParams:
    """The state as parameters, with the colour of the irises where the photograph shows it."""
    params = FaceParams(**{name: state.tensor(name)[0].numpy() for name in FitState.__dataclass_fields__})
    front = (sh_basis(torch.tensor([0.0, 0.0, 1.0])) @ state.tensor("light")[0]).numpy()
    iris = iris_colour(subject.photo.rgb, subject.face.landmarks_px, front)
    return params if iris is None else replace(params, iris=iris)


def texture_size(subject: Subject) -> int:
    """The size of texture that this photograph can fill."""
    height = float(np.ptp(subject.face.landmarks_px[:, 1]))
    return next(size for least, size in TEXTURE_SIZES if height >= least)


def bake_subject(subject: Subject, params: FaceParams, size: int, skin: FittedSkin | None = None) -> Texture:
    """The photograph as a texture of size x size, without the shading of the skin's relief."""
    relief = None if skin is None else skin.displacement
    return bake_photo(subject.photo.rgb, subject.model, params, subject.camera, size, relief)


def with_skin(result: FitResult, module: DetailModule | None, skin: FittedSkin | None) -> FitResult:
    """The head with its skin's detail, whose colours are added where the photograph did not show them."""
    if skin is None:
        return result
    unseen = resized(torch.from_numpy(1 - result.texture_confidence / np.float32(255)), len(skin.albedo_log))
    return result.replace(
        params=result.params.replace(detail=skin.latents),
        detail_module=module,
        displacement=skin.displacement,
        normal_map=normal_map(result.model, result.vertices, skin.displacement),
        texture=multiplied(result.texture, skin.albedo_log * unseen[..., None].numpy()),
    )


def projected_landmarks(subject: Subject, state: FitState) -> np.ndarray:
    """(L, 2) the fitted points in pixels of the photograph's own size."""
    model = subject.model
    with torch.no_grad():
        bases = model.landmark_bases(model.fit_landmarks)
        points = bases.points(state.tensor("identity"), state.tensor("expression"))[0]
        posed = transform(points, state.tensor("rotation")[0], state.tensor("translation")[0])
        projected = project(posed, subject.camera)[:, :2]
    return projected.numpy() / np.float32(subject.photo.scale)


def found_landmarks(subject: Subject) -> np.ndarray:
    """(478, 2) the detector's points in pixels of the photograph's own size."""
    return subject.face.landmarks_px / np.float32(subject.photo.scale)


def own_camera(subject: Subject) -> Camera:
    """The camera in pixels of the photograph's own size."""
    return _camera_of_original(subject.camera, subject.photo.scale)


def head_result(
    subject: Subject,
    state: FitState,
    params: FaceParams,
    texture: Texture,
    stages: tuple[Stage, ...],
    warnings: tuple[str, ...],
    started: float,
) -> FitResult:
    """The head as `fit` returns it.

    Args:
        warnings: see `spoken_warnings`.
        started: `time.perf_counter()` when the fit began.
    """
    model = subject.model
    with torch.no_grad():
        vertices = model.vertices(state.tensor("identity"), state.tensor("expression"))[0]
        neutral = model.vertices(state.tensor("identity"))[0]
        albedo = model.albedo(state.tensor("albedo"))[0].clamp(0, 1)
    return FitResult(
        model=model,
        params=params,
        camera=own_camera(subject),
        vertices=vertices.numpy(),
        neutral_vertices=neutral.numpy(),
        albedo=albedo.numpy(),
        texture=texture.rgb,
        texture_confidence=texture.confidence,
        landmarks_px=found_landmarks(subject),
        projected_landmarks_px=projected_landmarks(subject, state),
        stages=stages,
        warnings=warnings,
        seconds=time.perf_counter() - started,
        source=subject.photo.name,
        blendshape_scores=dict(subject.face.blendshapes),
    )


def spoken_warnings(subject: Subject, state: FitState, far_side: bool = True) -> tuple[str, ...]:
    """What a user should know about the quality of the result, in words; see `remarks.remarks`."""
    target = target_of(subject, state, state.expression, CROP_PX)
    seen = Evidence(
        photo=subject.photo,
        face=subject.face,
        yaw_deg=euler_deg_from_rotation(state.tensor("rotation")[0])[0],
        matched_px=subject.points_px,
        projected_px=projected_landmarks(subject, state) * np.float32(subject.photo.scale),
        drawn=preview_of(subject.model.light_version, state, target),
        unclear=subject.unclear,
    )
    return remarks(seen, far_side)


def _camera_of_original(camera: Camera, scale: float) -> Camera:
    """The camera of a photograph that was reduced by `scale` before the fit, in its own pixels."""
    if scale == 1:
        return camera
    height, width = camera.image_size
    original = round(height / scale), round(width / scale)
    return replace(camera.cropped((0, 0, width, height), original), image_size=original)
