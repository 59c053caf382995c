"""The photometric stages of a fit: colours in closed form, then all variables together, coarse to fine."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from ..result import Stage
from .lips import with_closed_lips
from .pace import STAGE_SHARE, Progress
from .photometric import STAGES, Refinement, Target, initial_colours, refine
from .prior import IdentityPrior
from .solver import LandmarkSolution
from .subject import Subject, first_state, preview_of, target_of
from .surface import FitState, Surface, surface_of

GUESSED = 0.3  # weight of landmarks whose errors are only known for faces from the front, which errs on the sure side


def fit_appearance(
    subjects: list[Subject], solutions: list[LandmarkSolution], identity: IdentityPrior, progress: Progress
) -> tuple[list[FitState], list[Stage]]:
    """Refines one person's landmark solutions on the light mesh.

    Args:
        subjects, solutions: one for each photograph; all solutions have the same identity.
        identity: what is expected of the person.
        progress: as of `faceverse.fit`.
    Returns:
        A state for each photograph, all with the same identity and albedo; and what the stages did.
    """
    mesh = subjects[0].model.light_version
    surface = surface_of(mesh)
    states = [first_state(subject, solution) for subject, solution in zip(subjects, solutions, strict=True)]
    expressions = [state.expression for state in states]
    stages, done = [], STAGE_SHARE["detection"] + STAGE_SHARE["landmarks"]
    total = sum(s.iterations for s in STAGES)
    for number, settings in enumerate(STAGES):
        started = time.perf_counter()
        # The detector errs alike in photographs of one person, so that more of them tell less than each did alone.
        weight = settings.landmarks / len(subjects) ** 0.5
        settings = replace(settings, landmarks=weight if subjects[0].landmarks.learned else GUESSED * weight)
        targets = [target_of(*known, settings.size_px) for known in zip(subjects, states, expressions, strict=True)]
        if number == 0:
            states = first_colours(surface, states, targets)
        share = STAGE_SHARE["photometric"] * settings.iterations / total

        def on_step(part: float, name=settings.name, first=done, share=share) -> None:
            progress(name, first + share * part, None)

        outcome = refine(Refinement(surface, targets, settings, identity), states, on_step)
        states, done = outcome.states, done + share
        progress(settings.name, done, preview_of(mesh, states[0], targets[0]))
        spent = time.perf_counter() - started
        steps = len(outcome.history) - 1
        stages.append(Stage(settings.name, spent, steps, outcome.terms, outcome.before, outcome.after, outcome.history))
    closed = [
        with_closed_lips(subject.landmarks, state, subject.face.landmarks_px, subject.camera)
        for subject, state in zip(subjects, states, strict=True)
    ]
    return closed, stages


def first_colours(surface: Surface, states: list[FitState], targets: list[Target]) -> list[FitState]:
    """The mean of the photographs' albedos, and the light of each for it."""
    alone = [initial_colours(surface, *pair) for pair in zip(states, targets, strict=True)]
    if len(alone) == 1:
        return alone
    albedo = np.mean([state.albedo for state in alone], axis=0)
    lit = [
        initial_colours(surface, replace(state, albedo=albedo), target, rounds=1)
        for state, target in zip(alone, targets, strict=True)
    ]
    return [replace(state, albedo=albedo) for state in lit]
