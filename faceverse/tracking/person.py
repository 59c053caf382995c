"""Who is followed: shape and skin, jointly from the frames that show them best; how the detector sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..fitting.appearance import first_colours
from ..fitting.lens import refine_lens
from ..fitting.movement import MovementNetwork, load_movement
from ..fitting.photometric import Refinement, StageSettings, Target, refine
from ..fitting.prior import IdentityPrior
from ..fitting.several import joint_identity
from ..fitting.solver import (
    LandmarkModel,
    LandmarkSolution,
    LandmarkTerm,
    habit_factor,
    landmark_model,
    point_weights,
    project_points,
    solve_landmarks,
)
from ..fitting.start import Inputs, StartNetwork, aligned_inputs, load_start
from ..fitting.surface import FitState
from ..graphics.camera import Camera
from ..graphics.lighting import default_light
from ..landmarks import DetectedFace
from ..model.face_model import FaceModel, FaceParams
from .sight import Sight
from .skin import coarse_of

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
class Reading:
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
class Habits:
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

    def only(self, rows: np.ndarray) -> Habits:
        """Those of some landmarks, by their numbers (M,)."""
        return replace(self, shift=self.shift[:, rows])


@dataclass(frozen=True)
class Person:
    """Whom a tracker follows.

    Args:
        params: identity, albedo; pose, expression and light are those of a key frame.
        camera: of the frames.
        rest: (1434 + P,) values of the face at rest for the network that reads movements; None: not known.
        habits: of the detector with this person; None: not known.
        warnings: in words.
        zero: (E,) weights that most faces at rest do not reach, and so mean 0; None: not known.
        calm: sights of the face at rest, from which `solve.FrameSolver` finds `zero`.
    """

    params: FaceParams
    camera: Camera
    rest: np.ndarray | None = None
    habits: Habits | None = None
    warnings: tuple[str, ...] = ()
    zero: np.ndarray | None = None
    calm: tuple[Sight, ...] = ()

    def at_rest(self, calm: tuple[Sight, ...], reader: Reader) -> Person:
        """The person, who is at rest in some sights."""
        rest = np.median([reader.look(sight).values for sight in calm], axis=0)
        return replace(self, rest=rest, calm=tuple(calm), zero=None)


class Reader:
    """Reads landmarks: with the model's learned networks where it has them, as the detector says them where not."""

    def __init__(self, model: FaceModel):
        self.model, self.anybody = model, landmark_model(model, model.fit_landmarks)
        self.start, self.network = load_start(model), load_movement(model)
        coarse_of(model)  # while there is time

    def look(self, sight: Sight) -> Inputs | None:
        """A face as the networks take it; None where there are none."""
        network = self.network or self.start
        return None if network is None else _look(network, sight)

    def __call__(self, landmarks: LandmarkModel, sight: Sight, person: Person | None = None) -> Reading:
        """Of the model on its landmarks, for anybody or for one person.

        Args:
            person: who is seen, where that is known; with habits on the same landmarks.
        """
        face, look = sight.face, self.look(sight)
        observed, prior = landmarks.found(face.landmarks_px).astype(np.float64), landmarks.prior
        expected, sigma = prior.mean(face.blendshapes), prior.sigma
        if self.start is not None:
            # The network of the start is asked for the detector's errors alone: who this is, many frames tell better.
            bias, habits, spread = self.start.errors_at(look.yaw_deg)
            known = slice(None) if landmarks.detected is None else landmarks.detected
            shift_px = bias * np.float32([1, -1]) * (look.scale / float(self.start.unit_m[0]))
            observed = observed - shift_px[known]
            landmarks = landmarks.with_errors(spread[known].astype(np.float64), habits[:, known].astype(np.float64))
        if self.network is not None:
            rest = self.network.usual_rest if person is None or person.rest is None else person.rest
            expected, sigma = self.network.predict(look, rest)
            unseen = np.array([name in _UNSEEN for name in prior.names])
            expected, sigma = np.where(unseen, 0.0, expected), np.where(unseen, prior.sigma, sigma)
        if person is not None and person.habits is not None:
            pixels = look.scale / float(self.start.unit_m[0]) if self.start is not None else _pixels(face)
            observed = observed - pixels * person.habits.at(_yaw(look, face))
        return Reading(landmarks, observed, expected, sigma)


_UNSEEN = ("tongueOut",)  # the detector does not see it


def meet(
    sights: list[Sight], reader: Reader, camera: Camera, known: FaceParams | None, lens_known: bool
) -> Person:
    """A person from sights that all show a face.

    Args:
        camera: of the frames.
        lens_known: whether its focal length is; else it is found with the person.
        known: identity and albedo, where they are known.
    """
    model = reader.model
    calm, warnings = _at_rest(sights, reader)
    person = Person(model.neutral() if known is None else known, camera, warnings=warnings)
    person = person.at_rest(calm, reader) if calm else person
    keys = _key_frames(sights, reader)
    surface = coarse_of(model).surface
    solutions = _solved(keys, reader, person, known)
    identity = solutions[0].identity
    readings = [reader(reader.anybody.of_person(identity), key, person) for key in keys]
    albedo = np.zeros(surface.sizes.albedo) if known is None else np.asarray(known.albedo, np.float64)
    whole = [reader.anybody.with_errors(r.landmarks.sigma, r.landmarks.habits) for r in readings]
    targets = [
        _target(key, replace(reading, landmarks=lm), camera, solution)
        for key, reading, lm, solution in zip(keys, readings, whole, solutions, strict=True)
    ]
    states = [_state(solution, reading.expected, albedo) for solution, reading in zip(solutions, readings, strict=True)]
    if known is None:
        states = first_colours(surface, states, targets)
    prior = IdentityPrior.of_anybody(len(identity))
    if known is not None:  # held fast
        prior = IdentityPrior(identity, _KNOWN * prior.precision)
    settings = replace(_STAGE, landmarks=_STAGE.landmarks / len(targets) ** 0.5)
    if lens_known:
        states = refine(Refinement(surface, targets, settings, prior), states).states
    else:
        states, factor = refine_lens(surface, targets, settings, prior, states)
        camera = replace(camera, focal_px=camera.focal_px * factor)
    found = FaceParams(**{name: states[0].tensor(name)[0].numpy() for name in FitState.__dataclass_fields__})
    if known is not None:
        found = known.replace(**{name: getattr(found, name) for name in ("rotation", "translation", "light")})
    params = replace(person.params, **{name: getattr(found, name) for name in FitState.__dataclass_fields__})
    lm = reader.anybody.of_person(params.identity)
    return replace(person, params=params, camera=camera, habits=_habits(keys, readings, states, lm, camera, reader))


# -- the face at rest -------------------------------------------------------------------------------------------------
def _at_rest(sights: list[Sight], reader: Reader) -> tuple[tuple[Sight, ...], tuple[str, ...]]:
    """The faces at rest, and a warning if there are none; none without the network that tells them."""
    network = reader.network
    if network is None:
        return (), ()
    looks = [reader.look(sight) for sight in sights]
    ahead = [k for k, look in enumerate(looks) if abs(look.yaw_deg) < _CALM_TURN_DEG]
    if not ahead:
        return (), ("the face never looks at the camera: its expressions are measured from an average face",)
    reach = np.sqrt((reader.anybody.expression**2).sum(-1).mean(-1))  # metres per unit of each weight
    reach[[k for k, name in enumerate(reader.anybody.prior.names) if name.startswith("eyeLook")]] = 0
    weights = np.array([network.predict(looks[k], network.usual_rest)[0] for k in ahead])
    seconds = np.array([sights[k].seconds for k in ahead])
    weights = np.array([weights[np.abs(seconds - own) <= _CALM_MEAN_S].mean(0) for own in seconds])
    movement, count = weights @ reach, int(np.clip(_CALM_SHARE * len(ahead), *_CALM_FRAMES))
    # A face at rest moves little, and it is the same face again and again.
    apart = np.array([np.sort(np.abs(weights - one) @ reach)[1 : count + 1].sum() / count for one in weights])
    calm = np.argsort(movement + _ALIKE * apart, kind="stable")[:count]
    if movement[calm].mean() > _RESTLESS_M:
        return (), ("the face is never at rest: its expressions are measured from an average face",)
    return tuple(sights[ahead[k]] for k in sorted(calm)), ()


# -- the person's shape and skin --------------------------------------------------------------------------------------
def _key_frames(sights: list[Sight], reader: Reader) -> list[Sight]:
    """The best frames, each turned otherwise; of a face that never turns the best ones over time."""
    looks = [reader.look(sight) for sight in sights]
    yaws = np.array([_yaw(look, sight.face) for look, sight in zip(looks, sights, strict=True)])
    quality = np.array([portrait_quality(sight) for sight in sights])
    order, chosen = np.argsort(-quality, kind="stable"), []
    for index in order:
        if all(abs(yaws[index] - yaws[k]) >= _KEY_TURN_DEG for k in chosen):
            chosen.append(int(index))
    parts = np.array_split(np.arange(len(sights)), min(3, len(sights)))
    chosen += [best for best in (int(part[quality[part].argmax()]) for part in parts) if best not in chosen]
    return [sights[k] for k in chosen[:_KEY_FRAMES]]


def portrait_quality(sight: Sight) -> float:
    """How well a frame shows a shape, above 0: frontal, large, mouth closed, inside the frame."""
    face = sight.face
    frontal = 1.0 if face.rotation is None else float(np.clip(face.rotation[2, 2], 0.05, 1.0))
    calm = 1 - 0.7 * max(face.blendshapes[name] for name in ("jawOpen", "mouthFunnel", "mouthPucker", "cheekPuff"))
    return frontal**2 * face_size(face) * calm * max(share_inside(sight), 0.01)


def share_inside(sight: Sight) -> float:
    """How much of the face is in the frame."""
    height, width = sight.image_size
    points = sight.face.landmarks_px
    return float(((points >= 0) & (points < (width, height))).all(1).mean())


def face_size(face: DetectedFace) -> float:
    """Pixels: square root of the area of the box."""
    return float(np.sqrt(np.prod(np.maximum(face.box_px[2:] - face.box_px[:2], 1.0))))


def _solved(
    keys: list[Sight], reader: Reader, person: Person, known: FaceParams | None
) -> list[LandmarkSolution]:
    """Landmark solutions of the key frames with one identity."""

    def solve(lm: LandmarkModel, key: Sight) -> LandmarkSolution:
        read = reader(lm, key, person)
        lm = replace(read.landmarks, prior=replace(read.landmarks.prior, sigma=read.sigma))
        return solve_landmarks(lm, read.observed_px, person.camera, read.expected)

    some = reader.anybody.only(np.arange(0, len(reader.anybody.mean), EVERY))
    if known is not None:
        identity = np.asarray(known.identity, np.float64)
    else:
        identity = joint_identity(some, [solve(some, key) for key in keys])
    lm = some.of_person(identity)
    return [replace(solve(lm, key), identity=identity) for key in keys]


def _state(solution: LandmarkSolution, expression: np.ndarray, albedo: np.ndarray) -> FitState:
    light = default_light().double().numpy()
    return FitState(solution.identity, expression, albedo, solution.rotation, solution.translation, light)


def _target(key: Sight, reading: Reading, camera: Camera, solution: LandmarkSolution) -> Target:
    """A key frame as the photometric stage takes it."""
    own, size = key.camera(camera), len(key.picture)
    observed = (reading.observed_px - key.box[:2]) * size / (key.box[2] - key.box[0])
    depth_m = -float(solution.translation[2])
    weight = point_weights(reading.landmarks, solution.rotation, depth_m, own.focal_px)
    factor = habit_factor(reading.landmarks, weight, own.focal_px / depth_m)
    term = LandmarkTerm(reading.landmarks, observed, own, weight, factor)
    return Target(key.picture.astype(np.float32) / 255, key.inside, own, term, reading.expected)


def _habits(
    keys: list[Sight], readings: list[Reading], states: list[FitState], lm: LandmarkModel, camera: Camera,
    reader: Reader,
) -> Habits:  # fmt: skip
    """What is left between landmarks and model once the pictures have been compared."""
    yaws, shifts = [], []
    for key, reading, state in zip(keys, readings, states, strict=True):
        points = lm.points(np.zeros(len(lm.identity)), state.expression)
        off = reading.observed_px - project_points(points, state.rotation, state.translation, camera)
        shifts.append(off * (-float(state.translation[2]) / camera.focal_px))
        yaws.append(_yaw(reader.look(key), key.face))
    return Habits(np.array(yaws), np.array(shifts))


# -- how a face is turned ---------------------------------------------------------------------------------------------
def _look(network: MovementNetwork | StartNetwork, sight: Sight) -> Inputs:
    return aligned_inputs(sight.face, sight.image_size, network.template)


def _yaw(look: Inputs | None, face: DetectedFace) -> float:
    """Degrees, by the detector's own depth or its own rotation."""
    if look is not None:
        return look.yaw_deg
    return 0.0 if face.rotation is None else float(np.degrees(np.arcsin(np.clip(-face.rotation[2, 0], -1, 1))))


def _pixels(face: DetectedFace) -> float:
    """Pixels per metre, by the usual height of a face."""
    return face_size(face) / 0.15
