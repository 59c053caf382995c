"""Focal length of a camera from several images of one person."""

from dataclasses import replace

import numpy as np
import pytest

from faceverse.fitting.photometric import PhotometricTarget, Refinement, StageSettings
from faceverse.fitting.prior import IdentityPrior
from faceverse.fitting.solver import LandmarkTerm, landmark_model, project_points
from faceverse.fitting.state import FaceState
from faceverse.fitting.surface import surface_samples
from faceverse.graphics.camera import Camera, rotation_from_euler_deg
from faceverse.graphics.lighting import default_light, srgb_from_linear
from faceverse.rendering.render import render_head
from faceverse.tracking.focal_length import LOG_SIGMA, refine_focal_length, with_focal_factor

SIDE, NEAR_M = 128, -0.35
SETTINGS = StageSettings("toy", SIDE, 10, effective_samples=200.0)
YAWS = (-35.0, 0.0, 35.0)


@pytest.fixture(scope="module")
def pictures(toy_model):
    """Three states of one person, and what a camera that stands near shows of them."""
    lm, camera = landmark_model(toy_model, toy_model.landmarks_478), Camera(180.0, (64.0, 64.0), (SIDE, SIDE))
    identity = 0.7 * np.random.default_rng(3).standard_normal(len(toy_model.data.identity_modes))
    expression, albedo = (np.zeros(len(x)) for x in (toy_model.expression_names, toy_model.data.albedo_modes))
    place, light = np.array([0, 0, NEAR_M]), default_light().double().numpy()
    turns = [rotation_from_euler_deg(yaw, 3, 2).double().numpy() for yaw in YAWS]
    person = {"identity": identity, "expression": expression, "albedo": albedo}
    states = [FaceState(rotation=turn, translation=place, light=light, **person) for turn in turns]
    return states, [shown(toy_model, lm, camera, state) for state in states]


def shown(model, lm, camera, state):
    drawn = render_head(
        model.vertices(state.tensor("identity"), state.tensor("expression")), model.albedo(state.tensor("albedo")),
        model.tensor("faces"), state.tensor("rotation"), state.tensor("translation"), state.tensor("light"), camera,
    )  # fmt: skip
    pixels = project_points(lm.points(state.identity, state.expression), state.rotation, state.translation, camera)
    term = LandmarkTerm(lm, pixels, camera, np.full(len(pixels), 0.3), np.zeros((2 * len(pixels), 0)))
    crop, inside = srgb_from_linear(drawn.rgb[0]).numpy(), np.ones((SIDE, SIDE), bool)
    return PhotometricTarget(crop, inside, camera, term, state.expression)


def refinement(model, targets):
    prior = IdentityPrior.of_population(len(model.data.identity_modes))
    return Refinement(surface_samples(model), targets, SETTINGS, prior)


def test_equations_are_the_derivatives_of_the_loss(toy_model, pictures):
    states, targets = pictures
    states = [replace(state, translation=state.translation + [0.002, -0.001, -0.01]) for state in states]
    problem = refinement(toy_model, targets)
    evaluated, step = problem.evaluate(states), 1e-4
    losses = []
    for sign in (1, -1):
        moved = refinement(toy_model, [with_focal_factor(target, np.exp(sign * step)) for target in targets])
        losses.append(sum(moved.terms(states, moved.evaluate(states), evaluated).values()))
    hessian, gradient = problem.normal_equations(states, evaluated, fit_focal=True)
    assert abs(gradient[-1]) > 1
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(gradient[-1], rel=0.02)
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-9)
    inner, slope = problem.normal_equations(states, evaluated)
    np.testing.assert_allclose(hessian[:-1, :-1], inner, rtol=1e-4, atol=1e-5 * np.abs(inner).max())
    np.testing.assert_allclose(gradient[:-1], slope, rtol=1e-4, atol=1e-5 * np.abs(slope).max())


@pytest.mark.parametrize("wrong", [0.75, 1.35])
def test_a_wrong_focal_length_is_corrected(toy_model, pictures, wrong):
    states, targets = pictures
    usual = [with_focal_factor(target, wrong) for target in targets]
    start = [replace(s, identity=0 * s.identity, translation=s.translation * (1, 1, wrong)) for s in states]
    prior = refinement(toy_model, targets).identity
    found, factor = refine_focal_length(surface_samples(toy_model), usual, SETTINGS, prior, start)
    assert abs(np.log(factor * wrong)) < 0.6 * abs(np.log(wrong))
    distance = np.array([state.translation[2] for state in found])
    assert (np.abs(np.log(distance / NEAR_M)) < 0.8 * abs(np.log(wrong))).all()
    assert abs(np.log(factor)) < 2 * LOG_SIGMA


def test_the_right_focal_length_stays(toy_model, pictures):
    states, targets = pictures
    prior = refinement(toy_model, targets).identity
    _, factor = refine_focal_length(surface_samples(toy_model), targets, SETTINGS, prior, states)
    assert factor == pytest.approx(1, abs=0.08)
