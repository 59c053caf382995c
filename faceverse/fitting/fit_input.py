"""Input of a fit, one detected face in one photograph, and the conversion of fitted states to results."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..detail.displacement import normal_map
from ..detail.latents import multiplied, resized
from ..detail.module import DetailModule
from ..graphics.camera import Camera, default_camera, euler_deg_from_rotation, project, transform
from ..graphics.lighting import srgb_from_linear
from ..io.images import Photo
from ..landmarks import DetectedFace
from ..messages import Message
from ..model.face_model import FaceModel, FaceParams
from ..model.warp import head_vertices
from ..rendering.render import render_head
from ..result import FitResult, Stage
from ..segmentation import Segmentation, segment_face
from .beard import fitted_beard
from .detail_stage import FittedDetail
from .face_checks import choose_face
from .face_selection import FaceSelector, count_comparable_faces, is_point
from .hair import HairView, fitted_hair
from .iris import eye_colours, iris_colour
from .parameter_regressor import load_parameter_regressor
from .photometric import PhotometricTarget, crop_box, crop_photo
from .quality_checks import CROP_PX, QualityInput, quality_warnings
from .solver import LandmarkModel, LandmarkSolution, landmark_model, landmark_term, solve_landmarks
from .state import FaceState
from .surface import MIN_ALBEDO
from .texture import SkinTexture, bake_photo
from .visible_skin import SHAPE_LABELS, visible_skin

FOCAL_SIGMA = 0.25  # prior standard deviation of the logarithm of an unknown focal length
TEXTURE_SIZES = ((260, 1024), (0, 512))  # least face height in pixels, and the texture's size from there on


@dataclass(frozen=True)
class FitInput:
    """Input of a fit: model, photograph, detected face, camera, and priors of the face.

    Args:
        face_count: number of faces of comparable size if none was selected; else 1.
        points_px: (L, 2) the model's landmarks as detected, minus the detector's bias where it is known.
        expected: (E,) prior mean of the expression weights.
        focal_known: whether the camera's focal length was given or stored in the file.
        labels: what the pixels around the face show; None: all of the head is taken for skin.
        others: the other detected faces.
        quarter_turns: `photo` is `np.rot90` of the given photograph by this count, so that the head is upright; all
            other fields belong to `photo`. `orientation.in_given_photos` turns a result back.
    """

    model: FaceModel
    photo: Photo
    face: DetectedFace
    camera: Camera
    landmarks: LandmarkModel
    points_px: np.ndarray
    expected: np.ndarray
    face_count: int = 1
    focal_known: bool = True
    labels: Segmentation | None = None
    others: tuple[DetectedFace, ...] = ()
    quarter_turns: int = 0

    def segmented(self) -> FitInput:
        """A copy with labels of the photograph, if the model has hair that can be fitted."""
        if self.model.parts is None or not self.model.parts.styles("hair"):
            return self
        return replace(self, labels=segment_face(self.photo.rgb, self.face, list(self.others)))


def prepare_fit_input(
    photo: Photo, found: list[DetectedFace], model: FaceModel, face: FaceSelector, focal_px: float | None
) -> FitInput:
    """Select a face and prepare its fit: upright photograph, camera, landmark model, priors.

    Args:
        photo: as read.
        found: the detected faces, largest first.
        face: see `face_selection.select_face`.
        focal_px: in pixels of the photograph's original size, or None.

    Raises:
        NoFaceError: no face, fewer than `face` requires, or a face that is not human.
    """
    chosen = choose_face(photo.rgb, found, face, photo.scale)
    others = tuple(other for other in found if other is not chosen)
    turns, size = chosen.quarter_turns, photo.rgb.shape[:2]
    if turns:
        # Priors and crops expect heads to be upright.
        photo = replace(photo, rgb=np.ascontiguousarray(np.rot90(photo.rgb, turns)))
        chosen = chosen.quarter_turned(turns, size)
        others = tuple(other.quarter_turned(turns, size) for other in others)
    if focal_px is not None:
        focal_px = focal_px * photo.scale
    known = focal_px or photo.focal_px
    camera = default_camera(photo.rgb.shape[:2], known)
    face_count = 1 if isinstance(face, str) or is_point(face) or face != 0 else count_comparable_faces(found)
    lm = landmark_model(model, model.fit_landmarks)
    points_px, expected = chosen.landmarks_px, lm.prior.mean(chosen.blendshapes)
    network = load_parameter_regressor(model)
    if network is not None:
        start = network.predict(chosen, camera)
        expected = np.where(lm.prior.prefers_estimate(start.expression_sigma), start.expression, expected)
        lm, points_px = lm.with_initial_estimate(start), start.points_px
    return FitInput(
        model, photo, chosen, camera, lm, lm.select(points_px), expected, face_count, known is not None,
        others=others, quarter_turns=turns,
    )  # fmt: skip


def fit_landmarks(fit_input: FitInput, landmarks: LandmarkModel | None = None) -> LandmarkSolution:
    """Estimate pose, identity and expression from the landmarks; pose and expression for a model of one person."""
    lm, focal_sigma = landmarks or fit_input.landmarks, 0.0 if fit_input.focal_known else FOCAL_SIGMA
    return solve_landmarks(lm, fit_input.points_px, fit_input.camera, fit_input.expected, focal_sigma=focal_sigma)


def initial_state(fit_input: FitInput, solution: LandmarkSolution) -> FaceState:
    """Initial state of the photometric stages: the landmark solution, mean albedo and default light."""
    return replace(solution.state, albedo=np.zeros(len(fit_input.model.data.albedo_modes)))


def photometric_target(fit_input: FitInput, state: FaceState, expression: np.ndarray, size: int) -> PhotometricTarget:
    """Crop and scale a photograph and its landmark term for a photometric stage.

    Args:
        expression: (E,) prior mean: the weights of the landmark stage.
        size: side in pixels.
    """
    box = crop_box(fit_input.face.landmarks_px)
    pixels, inside = crop_photo(fit_input.photo.rgb, box, size)
    if fit_input.labels is not None:
        centre = (np.arange(size) + 0.5) * (box[3] - box[1]) / size
        places = np.stack(np.meshgrid(centre + box[0], centre + box[1]))
        inside = inside & (visible_skin(fit_input.labels, SHAPE_LABELS, places) > 0.5)
    camera = fit_input.camera.cropped(box, (size, size))
    observed = (fit_input.points_px.astype(np.float64) - box[:2]) * size / (box[3] - box[1])
    term = landmark_term(fit_input.landmarks, observed, camera, state.rotation, state.translation)
    return PhotometricTarget(pixels.astype(np.float32) / 255, inside, camera, term, expression)


def render_preview(mesh: FaceModel, state: FaceState, target: PhotometricTarget) -> np.ndarray:
    """Small picture of the current head over the crop: (S, S, 3) uint8."""
    with torch.no_grad():
        shaded = render_head(
            mesh.vertices(state.tensor("identity"), state.tensor("expression")),
            mesh.albedo(state.tensor("albedo")).clamp_min(MIN_ALBEDO),
            mesh.tensor("faces"), state.tensor("rotation"), state.tensor("translation"), state.tensor("light"),
            target.camera,
        )  # fmt: skip
        crop = torch.from_numpy(target.crop)
        picture = torch.where(shaded.mask[0, ..., None], srgb_from_linear(shaded.rgb[0]), crop)
    return (picture * 255 + 0.5).to(torch.uint8).numpy()


def fitted_params(fit_input: FitInput, state: FaceState) -> FaceParams:
    """Convert a state to parameters, with the iris colour measured in the photograph where the eyes are visible."""
    params = state.to_params()
    iris = iris_colour(eye_colours(fit_input.photo.rgb, fit_input.face.landmarks_px), state.light)
    return params if iris is None else replace(params, iris=iris)


def with_hair(fit_inputs: list[FitInput], states: list[FaceState], params: list[FaceParams]) -> list[FaceParams]:
    """The parameters of one person in each photograph, with the hair and the beard that explain all of them best.

    Args:
        fit_inputs, states, params: one for each photograph; both are fitted to those that have labels.
    """
    bare = SkinTexture(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))
    views = [
        HairView(head_result(*known, bare, (), (), 0.0), known[0].photo.rgb, known[0].labels, known[0].camera)
        for known in zip(fit_inputs, states, params, strict=True)
        if known[0].labels is not None
    ]
    if not views:
        return params
    worn = fitted_beard(views, fitted_hair(views))
    return [replace(one, styles=worn.styles, hair=worn.hair, beard=worn.beard) for one in params]


def texture_size(fit_input: FitInput) -> int:
    """Side of the texture in pixels that matches the photograph's resolution, see TEXTURE_SIZES."""
    height = float(np.ptp(fit_input.face.landmarks_px[:, 1]))
    return next(size for least, size in TEXTURE_SIZES if height >= least)


def bake_input_texture(
    fit_input: FitInput, params: FaceParams, size: int, skin: FittedDetail | None = None
) -> SkinTexture:
    """Bake the photograph into a texture of size x size, without the shading of the displacement map."""
    displacement = None if skin is None else skin.displacement
    return bake_photo(
        fit_input.photo.rgb, fit_input.model, params, fit_input.camera, size, displacement, fit_input.labels
    )


def with_detail(result: FitResult, module: DetailModule | None, skin: FittedDetail | None) -> FitResult:
    """Add fitted detail to a result; its albedo is applied only where the photograph does not cover the texture."""
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


def projected_landmarks(fit_input: FitInput, state: FaceState) -> np.ndarray:
    """(L, 2) projections of the fitted landmarks, in pixels of the photograph's original size."""
    model, landmarks = fit_input.model, fit_input.model.fit_landmarks
    with torch.no_grad():
        _, vertices = head_vertices(model, state.to_params())
        corners = vertices[model.faces[landmarks.triangle]]  # with corrective shapes, which landmark bases leave out
        points = torch.from_numpy((corners * landmarks.barycentric[..., None]).sum(axis=1))
        posed = transform(points, state.tensor("rotation")[0], state.tensor("translation")[0])
        projected = project(posed, fit_input.camera)[:, :2]
    return projected.numpy() / np.float32(fit_input.photo.scale)


def original_landmarks_px(fit_input: FitInput) -> np.ndarray:
    """(478, 2) detected landmarks in pixels of the photograph's original size."""
    return fit_input.face.landmarks_px / np.float32(fit_input.photo.scale)


def original_camera(fit_input: FitInput) -> Camera:
    """The camera in pixels of the photograph's original size."""
    return _camera_of_original(fit_input.camera, fit_input.photo.scale)


def head_result(
    fit_input: FitInput,
    state: FaceState,
    params: FaceParams,
    texture: SkinTexture,
    stages: tuple[Stage, ...],
    warnings: tuple[str, ...],
    started: float,
) -> FitResult:
    """Assemble the FitResult of a fitted state.

    Args:
        warnings: see `fit_warnings`.
        started: `time.perf_counter()` when the fit began.
    """
    model = fit_input.model
    neutral, vertices = head_vertices(model, state.to_params())
    with torch.no_grad():
        albedo = model.albedo(state.tensor("albedo"))[0].clamp(0, 1)
    return FitResult(
        model=model,
        params=params,
        camera=original_camera(fit_input),
        vertices=vertices,
        neutral_vertices=neutral,
        albedo=albedo.numpy(),
        texture=texture.rgb,
        texture_confidence=texture.confidence,
        landmarks_px=original_landmarks_px(fit_input),
        projected_landmarks_px=projected_landmarks(fit_input, state),
        stages=stages,
        warnings=warnings,
        seconds=time.perf_counter() - started,
        source=fit_input.photo.name,
        blendshape_scores=dict(fit_input.face.blendshapes),
    )


def fit_warnings(fit_input: FitInput, state: FaceState, far_side: bool = True) -> tuple[str, ...]:
    """Warnings about the file, and quality checks of a fitted state, see `quality_checks.quality_warnings`."""
    target = photometric_target(fit_input, state, state.expression, CROP_PX)
    checked = QualityInput(
        photo=fit_input.photo,
        face=fit_input.face,
        yaw_deg=euler_deg_from_rotation(state.tensor("rotation")[0])[0],
        matched_px=fit_input.points_px,
        projected_px=projected_landmarks(fit_input, state) * np.float32(fit_input.photo.scale),
        rendered=render_preview(fit_input.model.coarse, state, target),
        face_count=fit_input.face_count,
    )
    turns = fit_input.quarter_turns
    rolled = [Message("quality.upside_down" if turns == 2 else "quality.sideways")] if turns else []
    return (*fit_input.photo.warnings, *rolled, *quality_warnings(checked, far_side))


def _camera_of_original(camera: Camera, scale: float) -> Camera:
    """Convert the camera of a photograph that was reduced by `scale` to pixels of its original size."""
    if scale == 1:
        return camera
    height, width = camera.image_size
    original = round(height / scale), round(width / scale)
    return replace(camera.cropped((0, 0, width, height), original), image_size=original)
