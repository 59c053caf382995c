"""Several photographs of one person: one identity and albedo, pose, expression, light and camera for each of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..camera import euler_deg_from_rotation
from ..errors import NoFaceError
from ..images import Photo
from ..landmarks import detect_faces
from ..model import FaceModel, FaceParams
from ..result import FitResult, Stage, View
from ..texture import Texture
from ..texture_merge import merge_textures, pixel_density
from .choice import FaceChoice
from .photometric import (
    SIGMA_INTERVAL,
    STAGES,
    FitState,
    Outcome,
    PhotometricProblem,
    _detached,
    _moved,
    adam_step,
    initial_colours,
)
from .remarks import TURNED_DEG
from .solver import LandmarkModel, LandmarkSolution
from .subject import (
    STAGE_SHARE,
    Progress,
    Subject,
    bake_subject,
    find_subject,
    first_state,
    fitted_params,
    found_landmarks,
    head_result,
    own_camera,
    preview_of,
    projected_landmarks,
    solve_subject,
    spoken_warnings,
    target_of,
    texture_size,
)

SHARED = ("identity prior", "albedo prior")  # terms of the person, which count once and not per photograph
# Of `identity_distance`; photographs of one person reach 0.7, of different persons 0.9 to 1.0.
OTHER_PERSON = 0.9


def fit_several(
    photos: list[Photo],
    model: FaceModel,
    faces: list[FaceChoice],
    focals: list[float | None],
    progress: Progress,
    started: float,
) -> FitResult:
    """The joint fit to two or more photographs, see `faceverse.fit`.

    Args:
        faces, focals: one for each photograph.
        started: `time.perf_counter()` when the fit began.

    Raises:
        NoFaceError: a photograph without the face that is asked for, with its number and name.
    """
    subjects = _find_subjects(photos, model, faces, focals, progress)
    detected = Stage("detection", time.perf_counter() - started, len(photos), {}, 0.0, 0.0)
    progress("landmarks", STAGE_SHARE["detection"], None)
    begun = time.perf_counter()
    alone = [solve_subject(subject) for subject in subjects]
    identity = joint_identity(subjects[0].landmarks, alone)
    together = _with_identity(subjects, identity)
    landmarks = _landmark_stage(alone, together, identity, time.perf_counter() - begun)
    states, photometric = _fit_photometric(subjects, together, joint_curvature(alone), progress)
    begun = time.perf_counter()
    progress("texture", 1 - STAGE_SHARE["texture"], None)
    params = [fitted_params(subject, state) for subject, state in zip(subjects, states, strict=True)]
    texture = _one_texture(subjects, params, progress)
    textured = Stage("texture", time.perf_counter() - begun, len(photos), {}, 0.0, 0.0)
    iris = np.median([p.iris for p in params], axis=0).astype(np.float32)
    stages = (detected, landmarks, *photometric, textured)
    result = head_result(subjects[0], states[0], replace(params[0], iris=iris), texture, stages, started)
    pairs = list(zip(subjects, states, strict=True))
    said = [
        f"{_label(number, subject.photo)}: {text}"
        for number, (subject, state) in enumerate(pairs)
        for text in spoken_warnings(subject, state, far_side=_is_turned_alike(states))
    ]
    return result.replace(
        views=tuple(_view(subject, state) for subject, state in pairs),
        warnings=(*said, *_strangers(subjects, alone)),
    )


def _label(number: int, photo: Photo) -> str:
    """How messages call a photograph, counted from 1."""
    return f"photograph {number + 1} ({photo.name})"


def _is_turned_alike(states: list[FitState]) -> bool:
    """Whether no photograph shows the side that is far in the others."""
    yaws = [euler_deg_from_rotation(state.rotation)[0] for state in states]
    return min(yaws) > TURNED_DEG or max(yaws) < -TURNED_DEG


def _find_subjects(photos: list[Photo], model: FaceModel, faces: list, focals: list, progress: Progress):
    subjects = []
    for number, (photo, face, focal) in enumerate(zip(photos, faces, focals, strict=True)):
        progress("detection", STAGE_SHARE["detection"] * number / len(photos), None)
        try:
            subjects.append(find_subject(photo, detect_faces(photo.rgb), model, face, focal))
        except NoFaceError as error:
            raise NoFaceError(f"{_label(number, photo)}: {error}") from error
    return subjects


# -- landmarks --------------------------------------------------------------------------------------------------------
def joint_identity(lm: LandmarkModel, solutions: list[LandmarkSolution]) -> np.ndarray:
    """Identity (I,) that explains the landmarks of all photographs best.

    Each solution is a normal distribution around its identity with the curvature left when its pose and its free
    expression weights adapt; their product, with the prior counted once, is what one solve of them all would find.
    """
    count = len(lm.identity)
    left, right = np.eye(count), np.zeros(count)
    for solution in solutions:
        precision = _identity_precision(lm, solution)
        left += precision - np.eye(count)
        right += precision @ solution.identity
    return np.linalg.solve(left, right)


def _identity_precision(lm: LandmarkModel, solution: LandmarkSolution) -> np.ndarray:
    """(I, I) Schur complement of the Hessian; weights at their limits do not adapt."""
    count = len(lm.identity)
    low, high = lm.prior.limits.T
    free = (solution.expression > low + 1e-9) & (solution.expression < high - 1e-9)
    own = np.concatenate([np.arange(6), 6 + count + np.flatnonzero(free)])
    shape = 6 + np.arange(count)
    hessian = solution.hessian
    across = hessian[np.ix_(own, shape)]
    return hessian[np.ix_(shape, shape)] - across.T @ np.linalg.solve(hessian[np.ix_(own, own)], across)


def _with_identity(subjects: list[Subject], identity: np.ndarray) -> list[LandmarkSolution]:
    """Pose and expression of the known person in each photograph."""
    person = subjects[0].landmarks.of_person(identity)
    return [replace(solve_subject(subject, person), identity=identity) for subject in subjects]


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


def _strangers(subjects: list[Subject], alone: list[LandmarkSolution]) -> list[str]:
    """A warning when the photographs' own identities lie further apart than those of one person do."""
    farthest, who = 0.0, 0
    for number in range(1, len(alone)):
        distance = identity_distance(subjects[0].landmarks, alone[0], alone[number])
        if distance > farthest:
            farthest, who = distance, number
    if farthest < OTHER_PERSON:
        return []
    return [f"{_label(who, subjects[who].photo)} seems to show another person than the first; the head is a mixture"]


def identity_distance(lm: LandmarkModel, a: LandmarkSolution, b: LandmarkSolution) -> float:
    """How far two photographs' identities lie apart, in deviations: 1 is typical for what both photographs tell."""
    precision = [_identity_precision(lm, s) - np.eye(len(lm.identity)) for s in (a, b)]
    both = precision[0] @ np.linalg.solve(precision[0] + precision[1] + np.eye(len(lm.identity)), precision[1])
    difference = a.identity - b.identity
    return float(np.sqrt(difference @ both @ difference / max(np.trace(both), 1e-12)))


# -- photometric ------------------------------------------------------------------------------------------------------
def _places(number: int, photos: int, identity: int, expression: int) -> np.ndarray:
    """Where turn, shift, identity and expression of one photograph stand among the variables of all of them."""
    first = 6 * photos
    own = first + identity + expression * number
    return np.concatenate(
        [6 * number + np.arange(6), first + np.arange(identity), own + np.arange(expression)]
    )  # fmt: skip


def joint_curvature(alone: list[LandmarkSolution]) -> Tensor:
    """(K, K) Hessian of all photographs' landmarks in their poses, the identity, and their expressions."""
    photos, identity, expression = len(alone), len(alone[0].identity), len(alone[0].expression)
    size = 6 * photos + identity + expression * photos
    joint = np.zeros((size, size))
    for number, solution in enumerate(alone):
        places = _places(number, photos, identity, expression)
        joint[np.ix_(places, places)] += solution.hessian
    shared = 6 * photos + np.arange(identity)
    joint[shared, shared] -= photos - 1.0  # the prior counts once
    return torch.from_numpy(joint)


def _fit_photometric(
    subjects: list[Subject], solutions: list[LandmarkSolution], curvature: Tensor, progress: Progress
) -> tuple[list[FitState], list[Stage]]:
    """As for one photograph: colours in closed form, then all variables of all photographs, coarse to fine."""
    model = subjects[0].model
    mesh, bases = model.light_version, model.landmark_bases(model.fit_landmarks)
    states = [first_state(subject, solution) for subject, solution in zip(subjects, solutions, strict=True)]
    expressions = [state.expression for state in states]
    stages, done = [], STAGE_SHARE["detection"] + STAGE_SHARE["landmarks"]
    total = sum(s.iterations for s in STAGES)
    for number, settings in enumerate(STAGES):
        started = time.perf_counter()
        # The detector errs alike in photographs of one person, so that more of them tell less than each did alone.
        settings = replace(settings, landmarks=settings.landmarks / len(subjects) ** 0.5)
        targets = [target_of(*known, settings.size_px) for known in zip(subjects, states, expressions, strict=True)]
        if number == 0:
            states = _initial_colours(mesh, states, targets)
        share = STAGE_SHARE["photometric"] * settings.iterations / total
        problems = [PhotometricProblem(mesh, bases, target, settings) for target in targets]

        def on_step(part: float, name=settings.name, first=done, share=share) -> None:
            progress(name, first + share * part, None)

        joint = _optimise(problems, states, curvature, on_step)
        states, done, outcome = joint.states, done + share, joint.outcome
        progress(settings.name, done, preview_of(mesh, states[0], targets[0]))
        spent = time.perf_counter() - started
        stages.append(
            Stage(
                settings.name, spent, settings.iterations, outcome.terms, outcome.before, outcome.after, outcome.history
            )
        )
    return states, stages


def _initial_colours(mesh: FaceModel, states: list[FitState], targets: list) -> list[FitState]:
    """The mean of the photographs' albedos, and the light of each for it."""
    alone = [initial_colours(mesh, *pair) for pair in zip(states, targets, strict=True)]
    albedo = torch.stack([state.albedo for state in alone]).mean(0)
    lit = [
        initial_colours(mesh, replace(state, albedo=albedo), target, rounds=1)
        for state, target in zip(alone, targets, strict=True)
    ]
    return [replace(state, albedo=albedo) for state in lit]


@dataclass(frozen=True)
class _Joint:
    """States of the photographs, which share identity and albedo, and the outcome of the sum of their losses."""

    states: list[FitState]
    outcome: Outcome


def _optimise(problems: list[PhotometricProblem], states: list[FitState], curvature: Tensor, on_step) -> _Joint:
    """`photometric.optimise` for the sum of several problems over one identity and one albedo."""
    settings = problems[0].settings
    axes = torch.linalg.inv(torch.linalg.cholesky(curvature.double())).T.float()
    sizes = len(problems), len(states[0].identity), len(states[0].expression)
    places = [torch.from_numpy(_places(number, *sizes)) for number in range(len(problems))]
    lights = torch.stack([state.light for state in states])
    variables = [torch.zeros(len(axes)), states[0].albedo.clone(), lights]
    rates = (settings.shape_rate, settings.albedo_rate, settings.light_rate)
    moments = [(torch.zeros_like(v), torch.zeros_like(v)) for v in variables]
    history, best, best_terms, best_loss = [], states, {}, float("inf")
    for step in range(settings.iterations + 1):
        leaves = [(axes @ variables[0]).requires_grad_(True), *(v.requires_grad_(True) for v in variables[1:])]
        measure = step % SIGMA_INTERVAL == 0 and step <= settings.iterations // 2
        gradients, terms, current = [torch.zeros_like(v) for v in leaves], {}, []
        for number, (problem, state) in enumerate(zip(problems, states, strict=True)):
            light = leaves[2][number]
            moved = _moved(state, leaves[0][places[number]], leaves[1], light, problem.expression_limits)
            own = _own_terms(problem.terms(moved, measure), number)
            for gradient, part in zip(gradients, torch.autograd.grad(sum(own.values()), leaves), strict=True):
                gradient += part
            for name, value in own.items():
                terms[name] = terms.get(name, 0.0) + float(value.detach())
            current.append(_detached(moved))
        if measure:  # another scale, another loss: what was best before cannot be compared
            best_loss = float("inf")
        history.append(sum(terms.values()))
        if history[-1] < best_loss:
            best_loss, best, best_terms = history[-1], current, terms
        if step == settings.iterations:
            break
        gradients[0] = axes.T @ gradients[0]
        slower = 1.0 if step < settings.iterations // 2 else 0.4
        variables = [
            adam_step(v.detach(), g, m, step + 1, rate * slower)
            for v, g, m, rate in zip(variables, gradients, moments, rates, strict=True)
        ]
        on_step((step + 1) / settings.iterations)
    with torch.no_grad():
        start = zip(problems, states, strict=True)
        before = sum(float(sum(_own_terms(p.terms(state), k).values())) for k, (p, state) in enumerate(start))
    return _Joint(best, Outcome(best[0], before, best_loss, best_terms, tuple(history)))


def _own_terms(terms: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """What photograph `number` adds to the joint loss: the first one brings the priors of the person."""
    return {name: value for name, value in terms.items() if number == 0 or name not in SHARED}


# -- result -----------------------------------------------------------------------------------------------------------
def _one_texture(subjects: list[Subject], params: list[FaceParams], progress: Progress) -> Texture:
    size = max(texture_size(subject) for subject in subjects)
    textures, densities = [], []
    for number, (subject, one) in enumerate(zip(subjects, params, strict=True)):
        textures.append(bake_subject(subject, one, size))
        densities.append(pixel_density(subject.model, one, subject.camera, size))
        done = (number + 1) / (len(subjects) + 1)
        progress("texture", 1 - STAGE_SHARE["texture"] * (1 - done), None)
    merged = merge_textures(textures, densities)
    progress("texture", 1.0, None)
    return merged


def _view(subject: Subject, state: FitState) -> View:
    return View(
        source=subject.photo.name,
        camera=own_camera(subject),
        **{name: getattr(state, name).numpy() for name in ("rotation", "translation", "expression", "light")},
        landmarks_px=found_landmarks(subject),
        projected_landmarks_px=projected_landmarks(subject, state),
    )
