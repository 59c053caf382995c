"""Who is followed: shape and skin, jointly from the frames that show them best; how the detector sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..fitting.appearance import initial_appearance
from ..fitting.multi_photo import joint_identity
from ..fitting.parameter_regressor import AlignedInputs, ParameterRegressor, aligned_inputs, load_parameter_regressor
from ..fitting.photometric import PhotometricTarget, Refinement, StageSettings, refine
from ..fitting.prior import IdentityPrior
from ..fitting.solver import (
    LandmarkModel,
    LandmarkSolution,
    LandmarkTerm,
    error_mode_factor,
    landmark_model,
    point_weights,
    project_points,
    solve_landmarks,
)
from ..fitting.surface import FaceState
from ..graphics.camera import Camera
from ..graphics.lighting import default_light
from ..landmarks import DetectedFace
from ..messages import Message
from ..model.face_model import FaceModel, FaceParams
from ..tracking.expression_regressor import ExpressionRegressor, load_expression_regressor
from ..tracking.focal_length import refine_focal_length
from .frame_observation import FrameObservation
from .skin_term import coarse_surface

EVERY = 2  # of the landmarks are enough to place a head; neighbours say the same
_KEY_FRAMES, _KEY_TURN_DEG = 5, 15.0  # how many frames decide, and how far their turns are apart at least
_CALM_SHARE, _CALM_FRAMES = 0.1, (3, 15)  # of the frames the calmest are the face at rest; so many at least, at most
_CALM_TURN_DEG = 25.0  # from farther aside nobody can tell
_CALM_MEAN_S = 0.07  # jitter is not movement: means over so long before and after
_ALIKE = 4.0  # how much more the distance to faces alike counts than the movement itself
# Movement of the calmest frames from which none counts as a face at rest: that of a broad smile, not of a stern look.
_RESTLESS_M = 0.007
_STAGE = StageSettings("person", 0, 7, tolerance=2e-3)  # in the size of the sights' pictures
_KNOWN = 1e6  # precision of an identity that is known
_NEAR_DEG, _TRUST = 12.0, 0.3  # key frames turned so far apart share what the detector errs by; and its prior


@dataclass(frozen=True)
class LandmarkObservation:
    """What the landmarks of one frame are taken for.

    Args:
        landmarks: the model on its landmarks, with the detector's errors as they are in a face turned like this one.
        observed_px: (L, 2) where the detector is believed to have seen them.
        expected (E,), sigma (E,): weights to expect, and how far they may be off.
    """

    landmarks: LandmarkModel
    observed_px: np.ndarray
    expected: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True)
class PersonBias:
    """Where the detector sees one person's landmarks beside where they are, in K key frames.

    Args:
        yaw_deg: (K,) turns of the head; shift: (K, L, 2) metres, y down.
    """

    yaw_deg: np.ndarray
    shift: np.ndarray

    def at(self, yaw_deg: float) -> np.ndarray:
        """(L, 2) metres: mean of the key frames that are turned alike, nothing where there are none."""
        near = np.exp(-0.5 * ((self.yaw_deg - yaw_deg) / _NEAR_DEG) ** 2)
        return np.tensordot(near, self.shift, axes=1) / (near.sum() + _TRUST)

    def subset(self, rows: np.ndarray) -> PersonBias:
        """Those of some landmarks, by their numbers (M,)."""
        return replace(self, shift=self.shift[:, rows])


@dataclass(frozen=True)
class TrackedPerson:
    """Whom a tracker follows.

    Args:
        params: identity, albedo; pose, expression and light are those of a key frame.
        camera: of the frames.
        rest: (1434 + P,) values of the face at rest for the network that reads movements; None: not known.
        bias: of the detector with this person; None: not known.
        warnings: in words.
        neutral_offset: (E,) weights that most faces at rest do not reach, and so mean 0; None: not known.
        neutral_frames: sights of the face at rest, from which `solve.FrameSolver` finds `neutral_offset`.
    """

    params: FaceParams
    camera: Camera
    rest: np.ndarray | None = None
    bias: PersonBias | None = None
    warnings: tuple[str, ...] = ()
    neutral_offset: np.ndarray | None = None
    neutral_frames: tuple[FrameObservation, ...] = ()

    def with_neutral_frames(self, neutral_frames: tuple[FrameObservation, ...], observer: LandmarkObserver) -> TrackedPerson:
        """The person, who is at rest in some sights."""
        rest = np.median([observer.inputs_from(observed).values for observed in neutral_frames], axis=0)
        return replace(self, rest=rest, neutral_frames=tuple(neutral_frames), neutral_offset=None)


class LandmarkObserver:
    """Reads landmarks: with the model's learned networks where it has them, as the detector says them where not."""

    def __init__(self, model: FaceModel):
        self.model, self.anybody = model, landmark_model(model, model.fit_landmarks)
        self.start, self.network = load_parameter_regressor(model), load_expression_regressor(model)
        coarse_surface(model)  # while there is time

    def inputs_from(self, observed: FrameObservation) -> AlignedInputs | None:
        """A face as the networks take it; None where there are none."""
        network = self.network or self.start
        return None if network is None else _inputs_from(network, observed)

    def __call__(self, landmarks: LandmarkModel, frame: FrameObservation, person: TrackedPerson | None = None) -> LandmarkObservation:
        """Of the model on its landmarks, for anybody or for one person.

        Args:
            person: who is seen, where that is known; with habits on the same landmarks.
        """
        face, inputs = frame.face, self.inputs_from(frame)
        observed, prior = landmarks.select(face.landmarks_px).astype(np.float64), landmarks.prior
        expected, sigma = prior.mean(face.blendshapes), prior.sigma
        if self.start is not None:
            # The network of the start is asked for the detector's errors alone: who this is, many frames tell better.
            bias, error_modes, spread = self.start.errors_at(inputs.yaw_deg)
            known = slice(None) if landmarks.detected is None else landmarks.detected
            shift_px = bias * np.float32([1, -1]) * (inputs.scale / float(self.start.unit_m[0]))
            observed = observed - shift_px[known]
            landmarks = landmarks.with_error_model(spread[known].astype(np.float64), error_modes[:, known].astype(np.float64))
        if self.network is not None:
            rest = self.network.usual_rest if person is None or person.rest is None else person.rest
            expected, sigma = self.network.predict(inputs, rest)
            unseen = np.array([name in _UNSEEN for name in prior.names])
            expected, sigma = np.where(unseen, 0.0, expected), np.where(unseen, prior.sigma, sigma)
        if person is not None and person.bias is not None:
            pixels = inputs.scale / float(self.start.unit_m[0]) if self.start is not None else _pixels(face)
            observed = observed - pixels * person.bias.at(_yaw(inputs, face))
        return LandmarkObservation(landmarks, observed, expected, sigma)


_UNSEEN = ("tongueOut",)  # the detector does not see it


def estimate_person(
    observed_frames: list[FrameObservation], observer: LandmarkObserver, camera: Camera, known: FaceParams | None, lens_known: bool
) -> TrackedPerson:
    """A person from sights that all show a face.

    Args:
        camera: of the frames.
        lens_known: whether its focal length is; else it is found with the person.
        known: identity and albedo, where they are known.
    """
    model = observer.model
    neutral_frames, warnings = _find_neutral_frames(observed_frames, observer)
    person = TrackedPerson(model.neutral() if known is None else known, camera, warnings=warnings)
    person = person.with_neutral_frames(neutral_frames, observer) if neutral_frames else person
    keys = _key_frames(observed_frames, observer)
    surface = coarse_surface(model).surface
    solutions = _solved(keys, observer, person, known)
    identity = solutions[0].identity
    readings = [observer(observer.anybody.with_identity(identity), key, person) for key in keys]
    albedo = np.zeros(surface.sizes.albedo) if known is None else np.asarray(known.albedo, np.float64)
    whole = [observer.anybody.with_error_model(r.landmarks.sigma, r.landmarks.error_modes) for r in readings]
    targets = [
        _target(key, replace(reading, landmarks=lm), camera, solution)
        for key, reading, lm, solution in zip(keys, readings, whole, solutions, strict=True)
    ]
    states = [_state(solution, reading.expected, albedo) for solution, reading in zip(solutions, readings, strict=True)]
    if known is None:
        states = initial_appearance(surface, states, targets)
    prior = IdentityPrior.of_population(len(identity))
    if known is not None:  # held fast
        prior = IdentityPrior(identity, _KNOWN * prior.precision)
    settings = replace(_STAGE, landmarks=_STAGE.landmarks / len(targets) ** 0.5)
    if lens_known:
        states = refine(Refinement(surface, targets, settings, prior), states).states
    else:
        states, factor = refine_focal_length(surface, targets, settings, prior, states)
        camera = replace(camera, focal_px=camera.focal_px * factor)
    found = FaceParams(**{name: states[0].tensor(name)[0].numpy() for name in FaceState.__dataclass_fields__})
    if known is not None:
        found = known.replace(**{name: getattr(found, name) for name in ("rotation", "translation", "light")})
    params = replace(person.params, **{name: getattr(found, name) for name in FaceState.__dataclass_fields__})
    lm = observer.anybody.with_identity(params.identity)
    return replace(person, params=params, camera=camera, bias=_person_bias(keys, readings, states, lm, camera, observer))


# -- the face at rest -------------------------------------------------------------------------------------------------
def _find_neutral_frames(observed_frames: list[FrameObservation], observer: LandmarkObserver) -> tuple[tuple[FrameObservation, ...], tuple[str, ...]]:
    """The faces at rest, and a warning if there are none; none without the network that tells them."""
    network = observer.network
    if network is None:
        return (), ()
    inputs = [observer.inputs_from(observed) for observed in observed_frames]
    ahead = [k for k, inputs in enumerate(inputs) if abs(inputs.yaw_deg) < _CALM_TURN_DEG]
    if not ahead:
        return (), (Message("track.never_frontal"),)
    reach = np.sqrt((observer.anybody.expression**2).sum(-1).mean(-1))  # metres per unit of each weight
    reach[[k for k, name in enumerate(observer.anybody.prior.names) if name.startswith("eyeLook")]] = 0
    weights = np.array([network.predict(inputs[k], network.usual_rest)[0] for k in ahead])
    seconds = np.array([observed_frames[k].seconds for k in ahead])
    weights = np.array([weights[np.abs(seconds - own) <= _CALM_MEAN_S].mean(0) for own in seconds])
    movement, count = weights @ reach, int(np.clip(_CALM_SHARE * len(ahead), *_CALM_FRAMES))
    # A face at rest moves little, and it is the same face again and again.
    apart = np.array([np.sort(np.abs(weights - one) @ reach)[1 : count + 1].sum() / count for one in weights])
    neutral_frames = np.argsort(movement + _ALIKE * apart, kind="stable")[:count]
    if movement[neutral_frames].mean() > _RESTLESS_M:
        return (), (Message("track.never_neutral"),)
    return tuple(observed_frames[ahead[k]] for k in sorted(neutral_frames)), ()


# -- the person's shape and skin --------------------------------------------------------------------------------------
def _key_frames(observed_frames: list[FrameObservation], observer: LandmarkObserver) -> list[FrameObservation]:
    """The best frames, each turned otherwise; of a face that never turns the best ones over time."""
    inputs = [observer.inputs_from(observed) for observed in observed_frames]
    yaws = np.array([_yaw(inputs, observed.face) for inputs, observed in zip(inputs, observed_frames, strict=True)])
    quality = np.array([portrait_quality(observed) for observed in observed_frames])
    order, chosen = np.argsort(-quality, kind="stable"), []
    for index in order:
        if all(abs(yaws[index] - yaws[k]) >= _KEY_TURN_DEG for k in chosen):
            chosen.append(int(index))
    parts = np.array_split(np.arange(len(observed_frames)), min(3, len(observed_frames)))
    chosen += [best for best in (int(part[quality[part].argmax()]) for part in parts) if best not in chosen]
    return [observed_frames[k] for k in chosen[:_KEY_FRAMES]]


def portrait_quality(observed: FrameObservation) -> float:
    """How well a frame shows a shape, above 0: frontal, large, mouth closed, inside the frame."""
    face = observed.face
    frontal = 1.0 if face.rotation is None else float(np.clip(face.rotation[2, 2], 0.05, 1.0))
    neutral_frames = 1 - 0.7 * max(face.blendshapes[name] for name in ("jawOpen", "mouthFunnel", "mouthPucker", "cheekPuff"))
    return frontal**2 * face_size(face) * neutral_frames * max(share_inside(observed), 0.01)


def share_inside(observed: FrameObservation) -> float:
    """How much of the face is in the frame."""
    height, width = observed.image_size
    points = observed.face.landmarks_px
    return float(((points >= 0) & (points < (width, height))).all(1).mean())


def face_size(face: DetectedFace) -> float:
    """Pixels: square root of the area of the box."""
    return float(np.sqrt(np.prod(np.maximum(face.box_px[2:] - face.box_px[:2], 1.0))))


def _solved(
    keys: list[FrameObservation], observer: LandmarkObserver, person: TrackedPerson, known: FaceParams | None
) -> list[LandmarkSolution]:
    """Landmark solutions of the key frames with one identity."""

    def solve(lm: LandmarkModel, key: FrameObservation) -> LandmarkSolution:
        read = observer(lm, key, person)
        lm = replace(read.landmarks, prior=replace(read.landmarks.prior, sigma=read.sigma))
        return solve_landmarks(lm, read.observed_px, person.camera, read.expected)

    some = observer.anybody.subset(np.arange(0, len(observer.anybody.mean), EVERY))
    if known is not None:
        identity = np.asarray(known.identity, np.float64)
    else:
        identity = joint_identity(some, [solve(some, key) for key in keys])
    lm = some.with_identity(identity)
    return [replace(solve(lm, key), identity=identity) for key in keys]


def _state(solution: LandmarkSolution, expression: np.ndarray, albedo: np.ndarray) -> FaceState:
    light = default_light().double().numpy()
    return FaceState(solution.identity, expression, albedo, solution.rotation, solution.translation, light)


def _target(key: FrameObservation, reading: LandmarkObservation, camera: Camera, solution: LandmarkSolution) -> PhotometricTarget:
    """A key frame as the photometric stage takes it."""
    own, size = key.camera(camera), len(key.picture)
    observed = (reading.observed_px - key.box[:2]) * size / (key.box[2] - key.box[0])
    depth_m = -float(solution.translation[2])
    weight = point_weights(reading.landmarks, solution.rotation, depth_m, own.focal_px)
    factor = error_mode_factor(reading.landmarks, weight, own.focal_px / depth_m)
    term = LandmarkTerm(reading.landmarks, observed, own, weight, factor)
    return PhotometricTarget(key.picture.astype(np.float32) / 255, key.inside, own, term, reading.expected)


def _person_bias(
    keys: list[FrameObservation], readings: list[LandmarkObservation], states: list[FaceState], lm: LandmarkModel, camera: Camera,
    observer: LandmarkObserver,
) -> PersonBias:  # fmt: skip
    """What is left between landmarks and model once the pictures have been compared."""
    yaws, shifts = [], []
    for key, reading, state in zip(keys, readings, states, strict=True):
        points = lm.points(np.zeros(len(lm.identity)), state.expression)
        off = reading.observed_px - project_points(points, state.rotation, state.translation, camera)
        shifts.append(off * (-float(state.translation[2]) / camera.focal_px))
        yaws.append(_yaw(observer.inputs_from(key), key.face))
    return PersonBias(np.array(yaws), np.array(shifts))


# -- how a face is turned ---------------------------------------------------------------------------------------------
def _inputs_from(network: ExpressionRegressor | ParameterRegressor, observed: FrameObservation) -> AlignedInputs:
    return aligned_inputs(observed.face, observed.image_size, network.template)


def _yaw(inputs: AlignedInputs | None, face: DetectedFace) -> float:
    """Degrees, by the detector's own depth or its own rotation."""
    if inputs is not None:
        return inputs.yaw_deg
    return 0.0 if face.rotation is None else float(np.degrees(np.arcsin(np.clip(-face.rotation[2, 0], -1, 1))))


def _pixels(face: DetectedFace) -> float:
    """Pixels per metre, by the usual height of a face."""
    return face_size(face) / 0.15
