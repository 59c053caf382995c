"""Pairs of landmarks: their distances are observed more accurately than the points."""

from dataclasses import replace

import numpy as np
import pytest

import faceverse as fv
from faceverse.fitting.landmark_pairs import GROUPS, LandmarkPairs
from faceverse.fitting.solver import landmark_model, landmark_term, project_points
from faceverse.fitting.state import FaceState

CAMERA = fv.Camera(900.0, (320.0, 320.0), (640, 640))
POSE = np.eye(3), np.array([0.0, 0.0, -0.6])


@pytest.fixture(scope="module")
def lm(model):
    return landmark_model(model, model.fit_landmarks)


def loss_without_modes(lm, wrong_px):
    """Loss of the pairs alone when the observed points are `wrong_px` (L, 2) away from the projected ones."""
    identity, expression = np.zeros(len(lm.identity)), np.zeros(len(lm.expression))
    state = FaceState(rotation=POSE[0], translation=POSE[1], identity=identity, expression=expression)
    points = project_points(lm.points(state.identity, state.expression), *POSE, CAMERA)
    term = landmark_term(lm, points + wrong_px, CAMERA, *POSE)
    return term.loss(state) - replace(term, pair_weight=None).loss(state)


def test_points_that_err_together_cost_the_pairs_nothing(lm):
    assert loss_without_modes(lm, np.full((478, 2), 7.0)) == pytest.approx(0, abs=1e-9)


def test_a_wrong_distance_costs_its_squared_standard_deviations(lm):
    wrong = np.zeros((478, 2))
    millimetre = 1e-3 * CAMERA.focal_px / 0.6
    wrong[61] = (millimetre, 0)
    pair = [tuple(pair) for pair in lm.pairs.index.tolist()].index((61, 291))
    expected = 0.5 * (1e-3 / lm.pairs.sigma[pair]) ** 2
    assert loss_without_modes(lm, wrong) == pytest.approx(expected, rel=1e-6)


def test_all_distances_of_a_group_together_have_its_standard_deviation(lm):
    for sigma, members in GROUPS.values():
        rows = [[tuple(pair) for pair in lm.pairs.index.tolist()].index(pair) for pair in members]
        assert (lm.pairs.sigma[rows] ** -2.0).sum() ** -0.5 == pytest.approx(sigma)


def test_pairs_on_the_far_side_count_little_in_profile(lm):
    profile = fv.graphics.camera.rotation_from_euler_deg(75, 0, 0).numpy()
    front, side = (lm.pairs.weight(rotation, 1000.0) for rotation in (np.eye(3), profile))
    left = np.array([lm.mean[pair, 0].min() > 0.01 for pair in lm.pairs.index])
    right = np.array([lm.mean[pair, 0].max() < -0.01 for pair in lm.pairs.index])
    assert left.sum() == right.sum() > 4
    ratios = side / front
    assert min(ratios[left].max(), ratios[right].max()) < 0.1 < 0.7 < max(ratios[left].min(), ratios[right].min())


def test_subsets_keep_the_pairs_that_are_complete():
    points = np.random.default_rng(0).normal(0, 0.05, (478, 3))
    every = LandmarkPairs.of_detector(points, np.tile([0.0, 0.0, 1.0], (478, 1)))
    rows = np.array([13, 14, 61, 159, 145])
    some = every.subset(rows)
    assert sorted(map(tuple, rows[some.index].tolist())) == [(13, 14), (159, 145)]
    assert len(every.subset(np.arange(478)).index) == len(every.index)
    assert len(LandmarkPairs.none().subset(rows).index) == 0


def test_models_with_other_landmarks_have_no_pairs(toy_model):
    few = replace(toy_model.data.landmarks_68, detected=np.arange(68))
    assert len(landmark_model(toy_model, few).pairs.index) == 0
