"""Photometric stages of a fit: initial light and albedo in closed form, then joint refinement, coarse to fine."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from ..result import Stage
from .alignment import align
from .fit_input import FitInput, initial_state, photometric_target, render_preview
from .lip_closure import close_lips
from .photometric import STAGES, PhotometricTarget, Refinement, estimate_light_and_albedo, refine
from .prior import IdentityPrior
from .progress import FIT_STAGES, Progress
from .skin_tone import calibrate_tone
from .solver import LandmarkSolution
from .state import FaceState
from .surface import SurfaceSamples, surface_samples

# Factor on the landmark weight without a yaw-dependent error model: that of frontal faces underestimates the errors.
UNCALIBRATED_WEIGHT = 0.3


def fit_appearance(
    fit_inputs: list[FitInput], solutions: list[LandmarkSolution], identity: IdentityPrior, progress: Progress
) -> tuple[list[FaceState], list[Stage]]:
    """Refine one person's landmark solutions on the coarse mesh.

    Args:
        fit_inputs, solutions: one for each photograph; all solutions have the same identity.
        identity: prior of the person's identity.
        progress: as of `faceverse.fit`.
    Returns:
        A state for each photograph, all with the same identity and albedo; and the reports of the stages.
    """
    mesh = fit_inputs[0].model.coarse
    surface = surface_samples(mesh)
    states = [initial_state(fit_input, solution) for fit_input, solution in zip(fit_inputs, solutions, strict=True)]
    expressions = [state.expression for state in states]
    stages, done = [], sum(FIT_STAGES[name].share for name in ("detection", "segmentation", "landmarks"))
    for number, settings in enumerate(STAGES):
        started = time.perf_counter()
        # The detector's errors are correlated between photographs of one person, so each photograph counts less.
        weight = settings.landmarks / len(fit_inputs) ** 0.5
        settings = replace(
            settings, landmarks=weight if fit_inputs[0].landmarks.learned else UNCALIBRATED_WEIGHT * weight
        )
        targets = [
            photometric_target(*known, settings.size_px) for known in zip(fit_inputs, states, expressions, strict=True)
        ]
        if number == 0:
            states = initial_appearance(surface, states, targets)
        share = FIT_STAGES[settings.name].share

        def on_step(part: float, name=settings.name, first=done, share=share) -> None:
            progress(name, first + share * part, None)

        outcome = refine(Refinement(surface, targets, settings, identity), states, on_step)
        states, done = outcome.states, done + share
        progress(settings.name, done, render_preview(mesh, states[0], targets[0]))
        spent = time.perf_counter() - started
        steps = len(outcome.history) - 1
        stages.append(Stage(settings.name, spent, steps, outcome.terms, outcome.before, outcome.after, outcome.history))
    states = calibrate_tone(surface, states, targets)
    started = time.perf_counter()
    progress("alignment", done, None)
    if aligned := align(fit_inputs, states):
        states, spent = aligned.states, time.perf_counter() - started
        stages.append(Stage("alignment", spent, aligned.steps, aligned.terms, aligned.before, aligned.after))
    closed = [
        close_lips(fit_input.landmarks, state, fit_input.face.landmarks_px, fit_input.camera)
        for fit_input, state in zip(fit_inputs, states, strict=True)
    ]
    return closed, stages


def initial_appearance(
    surface: SurfaceSamples, states: list[FaceState], targets: list[PhotometricTarget]
) -> list[FaceState]:
    """Initial light and albedo: the mean of the photographs' albedos, and the light of each for that albedo."""
    alone = [estimate_light_and_albedo(surface, *pair) for pair in zip(states, targets, strict=True)]
    if len(alone) == 1:
        return alone
    albedo = np.mean([state.albedo for state in alone], axis=0)
    lit = [
        estimate_light_and_albedo(surface, replace(state, albedo=albedo), target, rounds=1)
        for state, target in zip(alone, targets, strict=True)
    ]
    return [replace(state, albedo=albedo) for state in lit]
