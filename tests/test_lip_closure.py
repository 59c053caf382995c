"""Lips that are closed in the photograph are closed on the head, and others are left alone."""

from dataclasses import replace

import numpy as np
import pytest

from faceverse.fitting.lip_closure import PAIRS, close_lips
from faceverse.fitting.solver import landmark_model, project_points
from faceverse.fitting.state import FaceState
from faceverse.graphics.camera import Camera

CAMERA = Camera(1600.0, (512.0, 512.0), (1024, 1024))
UPPER, LOWER = np.array(PAIRS).T


@pytest.fixture(scope="module")
def lm(model):
    return landmark_model(model, model.landmarks_478)


def state_of(lm, **weights):
    expression = np.zeros(len(lm.prior.names))
    for name, weight in weights.items():
        expression[lm.prior.names.index(name)] = weight
    identity = 0.5 * np.random.default_rng(3).standard_normal(len(lm.identity))
    return FaceState(
        rotation=np.eye(3), translation=np.array([0.0, 0.0, -0.7]), expression=expression, identity=identity
    )


def seen(lm, state):
    points = lm.points(state.identity, state.expression)
    return project_points(points, state.rotation, state.translation, CAMERA)


def gap_mm(lm, state):
    points = lm.points(state.identity, state.expression)
    return 1e3 * float(np.median(points[UPPER, 1] - points[LOWER, 1]))


def test_a_small_gap_is_closed_where_the_photograph_has_none(lm):
    shut, ajar = state_of(lm, browInnerUp=0.4), state_of(lm, browInnerUp=0.4, jawOpen=0.045)
    found = close_lips(lm, ajar, seen(lm, shut), CAMERA)
    assert gap_mm(lm, ajar) > gap_mm(lm, state_of(lm)) + 1
    assert abs(gap_mm(lm, found) - gap_mm(lm, state_of(lm))) < 0.3
    low, high = lm.prior.limits.T
    assert (found.expression >= low).all() and (found.expression <= high).all()
    assert np.abs(found.expression - ajar.expression).max() < 0.1
    still = [k for k, name in enumerate(lm.prior.names) if not name.startswith(("mouth", "jaw"))]
    np.testing.assert_array_equal(found.expression[still], ajar.expression[still])


def test_a_gap_that_the_photograph_shows_stays(lm):
    ajar = state_of(lm, jawOpen=0.045)
    assert close_lips(lm, ajar, seen(lm, ajar), CAMERA) is ajar


def test_an_open_mouth_stays_open(lm):
    wide = state_of(lm, jawOpen=0.5)
    assert close_lips(lm, wide, seen(lm, state_of(lm)), CAMERA) is wide


def test_models_with_other_points_are_left_alone(lm):
    ajar = state_of(lm, jawOpen=0.045)
    few = replace(lm, detected=np.arange(478))
    assert close_lips(few, ajar, seen(lm, state_of(lm)), CAMERA) is ajar
