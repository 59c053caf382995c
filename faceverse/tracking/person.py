"""The tracked person: shape and skin, estimated jointly from key frames; neutral face and detector bias.

`LandmarkObserver` turns a detected face into what the solvers use: landmarks less the detector's bias, and the expected
expression.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..fitting.appearance import initial_appearance
from ..fitting.iris import iris_colour
from ..fitting.multi_photo import joint_identity
from ..fitting.parameter_regressor import AlignedInputs, ParameterRegressor, aligned_inputs, load_parameter_regressor
from ..fitting.photometric import PhotometricTarget, Refinement, StageSettings, refine
from ..fitting.prior import IdentityPrior
from ..fitting.solver import (
    LandmarkModel,
    LandmarkSolution,
    landmark_model,
    landmark_term,
    project_points,
    solve_landmarks,
)
from ..fitting.state import FaceState
from ..graphics.camera import Camera
from ..landmarks import DetectedFace
from ..messages import Message
from ..model.face_model import FaceModel, FaceParams
from ..model.scalp import with_short_hair
from .expression_regressor import ExpressionRegressor, load_expression_regressor
from .focal_length import refine_focal_length
from .frame_observation import FrameObservation
from .skin_term import coarse_surface

LANDMARK_STRIDE = 2  # every second landmark is enough for a pose: the errors of neighbours are correlated
_KEY_FRAMES, _KEY_YAW_DEG = 5, 15.0  # number of key frames, and the least difference of their yaws
_NEUTRAL_SHARE, _NEUTRAL_COUNT = 0.1, (3, 15)  # share of the frames taken as neutral; at least and at most
_NEUTRAL_YAW_DEG = 25.0  # in faces turned further, the expression is too uncertain
_NEUTRAL_WINDOW_S = 0.07  # half width of the moving average that keeps jitter from counting as movement
_REPEATABILITY_WEIGHT = 4.0  # of the distance to similar faces, against that of the movement itself
# Mean movement of the calmest frames from which none counts as neutral: that of a broad smile, not of a stern look.
_NEUTRAL_MOVEMENT_M = 0.007
_STAGE = StageSettings("person", 0, 7, tolerance=2e-3)  # in the size of the face crops
_FIXED_PRECISION = 1e6  # factor on the prior's precision that fixes a known identity
_BIAS_WIDTH_DEG, _BIAS_PRIOR = 12.0, 0.3  # kernel width in yaw, and weight of the prior that there is no bias
_UNDETECTED_NAMES = ("tongueOut",)  # expressions that the detector does not see
_USUAL_FACE_M = 0.15  # size of a face where no regressor estimates its scale


@dataclass(frozen=True)
class LandmarkObservation:
    """The landmarks of one frame, and the expression to expect with them.

    Args:
        landmarks: the model on its landmarks, with the error model of a face at this yaw.
        observed_px: (L, 2) detected points less the detector's bias.
        expected (E,), sigma (E,): mean and deviation of the weights.
    """

    landmarks: LandmarkModel
    observed_px: np.ndarray
    expected: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True)
class PersonBias:
    """Bias of the detector's landmarks for one person, measured in K key frames.

    Args:
        yaw_deg: (K,) of the head.
        shift: (K, L, 2) metres, y down.
    """

    yaw_deg: np.ndarray
    shift: np.ndarray

    def at(self, yaw_deg: float) -> np.ndarray:
        """(L, 2) metres: kernel-weighted mean of the key frames with a similar yaw; 0 where there are none."""
        weights = np.exp(-0.5 * ((self.yaw_deg - yaw_deg) / _BIAS_WIDTH_DEG) ** 2)
        return np.tensordot(weights, self.shift, axes=1) / (weights.sum() + _BIAS_PRIOR)

    def subset(self, rows: np.ndarray) -> PersonBias:
        """The bias of some landmarks, by their indices (M,)."""
        return replace(self, shift=self.shift[:, rows])


@dataclass(frozen=True)
class TrackedPerson:
    """The person that a tracker follows.

    Args:
        params: identity and albedo; pose, expression and light are those of a key frame.
        camera: of the frames.
        neutral_inputs: (1434 + P,) inputs of the expression regressor for the neutral face; None: unknown.
        bias: of the detector for this person; None: unknown.
        warnings: in words.
        neutral_offset: (E,) weights that most neutral frames do not exceed, and that therefore count as 0; None:
            unknown.
        neutral_frames: from which `FrameSolver` estimates `neutral_offset`.
    """

    params: FaceParams
    camera: Camera
    neutral_inputs: np.ndarray | None = None
    bias: PersonBias | None = None
    warnings: tuple[str, ...] = ()
    neutral_offset: np.ndarray | None = None
    neutral_frames: tuple[FrameObservation, ...] = ()

    def with_neutral_frames(self, frames: tuple[FrameObservation, ...], observer: LandmarkObserver) -> TrackedPerson:
        """The person with the neutral face that some frames show."""
        regressor = observer.expression_regressor
        assert regressor is not None
        inputs = np.median([_inputs_of(regressor, frame).values for frame in frames], axis=0)
        return replace(self, neutral_inputs=inputs, neutral_frames=tuple(frames), neutral_offset=None)


class LandmarkObserver:
    """Corrects detected landmarks and predicts expressions, with the regressors that were trained for a model.

    Of models without them, the detector's own landmarks and scores are used.
    """

    def __init__(self, model: FaceModel):
        self.model, self.generic = model, landmark_model(model, model.fit_landmarks)
        self.parameter_regressor = load_parameter_regressor(model)
        self.expression_regressor = load_expression_regressor(model)
        coarse_surface(model)  # computed here, before frames wait for it

    def inputs_of(self, frame: FrameObservation) -> AlignedInputs | None:
        """Inputs of the regressors for a face; None where the model has none."""
        regressor = self.expression_regressor or self.parameter_regressor
        return None if regressor is None else _inputs_of(regressor, frame)

    def observe(
        self, landmarks: LandmarkModel, frame: FrameObservation, person: TrackedPerson | None = None
    ) -> LandmarkObservation:
        """The landmarks of a frame for a landmark model, generic or of one person.

        Args:
            landmarks: the model on its landmarks.
            frame: with a face.
            person: the person, where known; the bias is of the same landmarks.
        """
        face, inputs, regressor = frame.detected, self.inputs_of(frame), self.parameter_regressor
        observed_px, prior = landmarks.select(face.landmarks_px).astype(np.float64), landmarks.prior
        expected, sigma = prior.mean(face.blendshapes), prior.sigma
        if regressor is not None and inputs is not None:
            # Only the detector's errors are taken from it: many frames determine the identity better.
            bias, error_modes, spread = regressor.errors_at(inputs.yaw_deg)
            known = slice(None) if landmarks.detected is None else landmarks.detected
            bias_px = bias * np.array([1, -1], np.float32) * (inputs.scale / float(regressor.unit_m[0]))
            observed_px = observed_px - bias_px[known]
            landmarks = landmarks.with_error_model(
                spread[known].astype(np.float64), error_modes[:, known].astype(np.float64)
            )
        if self.expression_regressor is not None and inputs is not None:
            neutral = None if person is None else person.neutral_inputs
            neutral = self.expression_regressor.neutral_inputs_mean if neutral is None else neutral
            expected, sigma = self.expression_regressor.predict(inputs, neutral)
            undetected = np.array([name in _UNDETECTED_NAMES for name in prior.names])
            expected, sigma = np.where(undetected, 0.0, expected), np.where(undetected, prior.sigma, sigma)
        if person is not None and person.bias is not None:
            px_per_m = face_size(face) / _USUAL_FACE_M
            if regressor is not None and inputs is not None:
                px_per_m = inputs.scale / float(regressor.unit_m[0])
            observed_px = observed_px - px_per_m * person.bias.at(_yaw_deg(inputs, face))
        return LandmarkObservation(landmarks, observed_px, expected, sigma)


def estimate_person(
    frames: list[FrameObservation],
    observer: LandmarkObserver,
    camera: Camera,
    known: FaceParams | None,
    focal_known: bool,
) -> TrackedPerson:
    """Estimate a person's shape, skin and neutral face, and the camera's focal length.

    Args:
        frames: all with a face.
        observer: of the model.
        camera: of the frames.
        known: identity and albedo, where these are known.
        focal_known: whether the camera's focal length is; else it is estimated too.
    """
    model = observer.model
    neutral_frames, warnings = _find_neutral_frames(frames, observer)
    person = TrackedPerson(model.neutral() if known is None else known, camera, warnings=warnings)
    person = person.with_neutral_frames(neutral_frames, observer) if neutral_frames else person
    key_frames = _select_key_frames(frames, observer)
    surface = coarse_surface(model).surface
    solutions = _solve_key_frames(key_frames, observer, person, known)
    identity = solutions[0].state.identity
    albedo = np.zeros(surface.sizes.albedo) if known is None else np.asarray(known.albedo, np.float64)
    observations = [observer.observe(observer.generic.with_identity(identity), frame, person) for frame in key_frames]
    states, targets = [], []
    for frame, observation, solution in zip(key_frames, observations, solutions, strict=True):
        errors = observation.landmarks.sigma, observation.landmarks.error_modes
        whole = replace(observation, landmarks=observer.generic.with_error_model(*errors))
        targets.append(_photometric_target(frame, whole, camera, solution.state))
        states.append(replace(solution.state, expression=observation.expected, albedo=albedo))
    if known is None:
        states = initial_appearance(surface, states, targets)
    prior = IdentityPrior.of_population(len(identity))
    if known is not None:
        prior = IdentityPrior(identity, _FIXED_PRECISION * prior.precision)
    settings = replace(_STAGE, landmarks=_STAGE.landmarks / len(targets) ** 0.5)
    if focal_known:
        states = refine(Refinement(surface, targets, settings, prior), states).states
    else:
        states, factor = refine_focal_length(surface, targets, settings, prior, states)
        camera = replace(camera, focal_px=camera.focal_px * factor)
    first = states[0] if known is None else replace(states[0], identity=np.zeros(0), albedo=np.zeros(0))
    params = first.to_params(person.params)
    if known is None:
        params = with_short_hair(observer.model, _with_iris_colour(params, frames))
    lm = observer.generic.with_identity(params.identity)
    yaws = [_yaw_deg(observer.inputs_of(frame), frame.detected) for frame in key_frames]
    bias = PersonBias(np.array(yaws), _landmark_residuals_m(observations, states, lm, camera))
    return replace(person, params=params, camera=camera, bias=bias)


# -- neutral face -----------------------------------------------------------------------------------------------------
def _find_neutral_frames(
    frames: list[FrameObservation], observer: LandmarkObserver
) -> tuple[tuple[FrameObservation, ...], tuple[str, ...]]:
    """Frames with a neutral face, and a warning if there are none; none without an expression regressor."""
    regressor = observer.expression_regressor
    if regressor is None:
        return (), ()
    inputs = [_inputs_of(regressor, frame) for frame in frames]
    frontal = [k for k, one in enumerate(inputs) if abs(one.yaw_deg) < _NEUTRAL_YAW_DEG]
    if not frontal:
        return (), (Message("track.never_frontal"),)
    reach = np.sqrt((observer.generic.expression**2).sum(-1).mean(-1))  # metres per unit of each weight
    reach[[k for k, name in enumerate(observer.generic.prior.names) if name.startswith("eyeLook")]] = 0
    weights = np.array([regressor.predict(inputs[k], regressor.neutral_inputs_mean)[0] for k in frontal])
    seconds = np.array([frames[k].seconds for k in frontal])
    weights = np.array([weights[np.abs(seconds - own) <= _NEUTRAL_WINDOW_S].mean(0) for own in seconds])
    movement, count = weights @ reach, int(np.clip(_NEUTRAL_SHARE * len(frontal), *_NEUTRAL_COUNT))
    # A neutral face moves little, and it comes back: its nearest neighbours among the frames are near.
    apart = np.array([np.sort(np.abs(weights - one) @ reach)[1 : count + 1].sum() / count for one in weights])
    chosen = np.argsort(movement + _REPEATABILITY_WEIGHT * apart, kind="stable")[:count]
    if movement[chosen].mean() > _NEUTRAL_MOVEMENT_M:
        return (), (Message("track.never_neutral"),)
    return tuple(frames[frontal[k]] for k in sorted(chosen)), ()


# -- shape and skin ---------------------------------------------------------------------------------------------------
def _select_key_frames(frames: list[FrameObservation], observer: LandmarkObserver) -> list[FrameObservation]:
    """The best frames with different yaws; of a face that never turns, the best ones over time."""
    yaws = np.array([_yaw_deg(observer.inputs_of(frame), frame.detected) for frame in frames])
    quality = np.array([portrait_quality(frame) for frame in frames])
    chosen: list[int] = []
    for index in np.argsort(-quality, kind="stable"):
        if all(abs(yaws[index] - yaws[k]) >= _KEY_YAW_DEG for k in chosen):
            chosen.append(int(index))
    parts = np.array_split(np.arange(len(frames)), min(3, len(frames)))
    chosen += [best for best in (int(part[quality[part].argmax()]) for part in parts) if best not in chosen]
    return [frames[k] for k in chosen[:_KEY_FRAMES]]


def portrait_quality(frame: FrameObservation) -> float:
    """How well a frame shows a shape, above 0: frontal, large, mouth closed, inside the frame."""
    face = frame.detected
    frontal = 1.0 if face.rotation is None else float(np.clip(face.rotation[2, 2], 0.05, 1.0))
    mouth = max(face.blendshapes[name] for name in ("jawOpen", "mouthFunnel", "mouthPucker", "cheekPuff"))
    return frontal**2 * face_size(face) * (1 - 0.7 * mouth) * max(share_inside(frame), 0.01)


def share_inside(frame: FrameObservation) -> float:
    """Share of the landmarks, 0..1, that lie inside the frame."""
    height, width = frame.image_size
    points = frame.detected.landmarks_px
    return float(((points >= 0) & (points < (width, height))).all(1).mean())


def face_size(face: DetectedFace) -> float:
    """Pixels: square root of the area of the box."""
    return float(np.sqrt(np.prod(np.maximum(face.box_px[2:] - face.box_px[:2], 1.0))))


def _solve_key_frames(
    key_frames: list[FrameObservation], observer: LandmarkObserver, person: TrackedPerson, known: FaceParams | None
) -> list[LandmarkSolution]:
    """Landmark solutions of the key frames with one identity."""

    def solve(lm: LandmarkModel, frame: FrameObservation) -> LandmarkSolution:
        observation = observer.observe(lm, frame, person)
        lm = observation.landmarks
        lm = replace(lm, prior=replace(lm.prior, sigma=observation.sigma))
        return solve_landmarks(lm, observation.observed_px, person.camera, observation.expected)

    subset = observer.generic.subset(thinned_landmarks(observer.generic))
    if known is not None:
        identity = np.asarray(known.identity, np.float64)
    else:
        identity = joint_identity(subset, [solve(subset, frame) for frame in key_frames])
    lm = subset.with_identity(identity)
    return [solve(lm, frame).with_identity(identity) for frame in key_frames]


def _with_iris_colour(params: FaceParams, frames: list[FrameObservation]) -> FaceParams:
    """The parameters with the median of the irises' colour over all frames that show an eye."""
    measured = [iris_colour(frame.eyes, params.light) for frame in frames]
    colours = [colour for colour in measured if colour is not None]
    return params.replace(iris=np.median(colours, axis=0).astype(np.float32)) if colours else params


def thinned_landmarks(lm: LandmarkModel) -> np.ndarray:
    """Indices of every `LANDMARK_STRIDE`-th landmark and of all paired ones, sorted."""
    return np.union1d(np.arange(0, len(lm.mean), LANDMARK_STRIDE), lm.pairs.index)


def _photometric_target(
    frame: FrameObservation, observation: LandmarkObservation, camera: Camera, state: FaceState
) -> PhotometricTarget:
    """A key frame as the photometric stage takes it."""
    picture, inside = frame.crop
    crop_camera, size = frame.camera(camera), len(picture)
    observed_px = (observation.observed_px - frame.box[:2]) * size / (frame.box[2] - frame.box[0])
    term = landmark_term(observation.landmarks, observed_px, crop_camera, state.rotation, state.translation)
    crop = picture.astype(np.float32) / 255
    return PhotometricTarget(crop, inside, crop_camera, term, observation.expected)


def _landmark_residuals_m(
    observations: list[LandmarkObservation], states: list[FaceState], lm: LandmarkModel, camera: Camera
) -> np.ndarray:
    """(K, L, 2) metres from projected to observed landmarks after the photometric stage."""
    residuals = []
    for observation, state in zip(observations, states, strict=True):
        points = lm.points(np.zeros(len(lm.identity)), state.expression)
        off = observation.observed_px - project_points(points, state.rotation, state.translation, camera)
        residuals.append(off * (-float(state.translation[2]) / camera.focal_px))
    return np.array(residuals)


# -- head orientation -------------------------------------------------------------------------------------------------
def _inputs_of(regressor: ExpressionRegressor | ParameterRegressor, frame: FrameObservation) -> AlignedInputs:
    return aligned_inputs(frame.detected, frame.image_size, regressor.template)


def _yaw_deg(inputs: AlignedInputs | None, face: DetectedFace) -> float:
    """Yaw by the detector's depth, or by its rotation without regressor inputs."""
    if inputs is not None:
        return inputs.yaw_deg
    return 0.0 if face.rotation is None else float(np.degrees(np.arcsin(np.clip(-face.rotation[2, 0], -1, 1))))
