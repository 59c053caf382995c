"""Error statistics of the detector, measured on samples with known errors."""

from dataclasses import replace

import numpy as np
import pytest
from test_parameter_regressor_training import seen_samples

from faceverse.fitting.parameter_regressor import aligned_inputs
from faceverse.fitting.solver import landmark_model
from faceverse.graphics.camera import default_camera
from faceverse.training.detector_errors import ERROR_MODES, TURNS_DEG, detector_errors, errors_px
from faceverse.training.parameter_regressor import trained_network
from toy import toy_model


@pytest.fixture(scope="module")
def known():
    model, samples = toy_model(), seen_samples(150)
    return model, samples, trained_network(model, samples, seed=0)[0]


def without_errors(model, samples):
    """The samples with error-free detections."""
    return replace(samples, landmarks_px=samples.landmarks_px - errors_px(model, samples) * np.float32([1, -1]))


def test_a_detector_that_never_errs_has_no_errors(known):
    model, samples, network = known
    found = detector_errors(model, without_errors(model, samples), network)
    assert found["bias"].shape == (len(TURNS_DEG), 478, 2) and found["error_modes"].shape == (
        len(TURNS_DEG),
        ERROR_MODES,
        478,
        2,
    )
    assert np.abs(found["bias"]).max() < 1e-6 and np.abs(found["error_modes"]).max() < 1e-6


def test_an_error_that_is_always_there_is_bias(known):
    model, samples, network = known
    exact = without_errors(model, samples)
    up_px = np.array(
        [aligned_inputs(exact.face(k), tuple(exact.photo_size[k]), network.template).scale for k in range(len(exact))]
    )
    moved = exact.landmarks_px.copy()
    pair = np.flatnonzero(np.isin(network.mirrored_points, (10, network.mirrored_points[10])))  # on both sides
    moved[:, pair, 1] -= 0.003 * up_px[:, None] / float(network.unit_m[0])  # 3 mm upwards
    found = detector_errors(model, replace(exact, landmarks_px=moved.astype(np.float32)), network)
    np.testing.assert_allclose(found["bias"][:, network.mirrored_points[10], 1], 0.003, rtol=0.05)
    assert np.median(np.abs(found["bias"])) < 1e-6


def test_what_varies_is_habit_or_deviation(known):
    model, samples, network = known
    found = detector_errors(model, samples, network)
    assert found["sigma"].shape == (len(TURNS_DEG), 478) and (found["sigma"] > 0).all()
    strength = np.linalg.norm(found["error_modes"].reshape(len(TURNS_DEG), ERROR_MODES, -1), axis=2)
    assert (np.diff(strength, axis=1) <= 1e-6).all()  # the commonest first


def test_errors_of_the_other_side_are_mirrored(known):
    *_, network = known
    (bias, error_modes, sigma), (left, left_error_modes, left_sigma) = (
        network.errors_at(turn) for turn in (30.0, -30.0)
    )
    other = network.mirrored_points
    np.testing.assert_allclose(left, bias[other] * [-1, 1])
    np.testing.assert_allclose(left_error_modes, error_modes[:, other] * [-1, 1])
    np.testing.assert_array_equal(left_sigma, sigma[other])


def test_bias_between_two_turns_is_between_theirs(known):
    *_, network = known
    low, high = network.turned_deg[1:3]
    ends = [network.errors_at(turn)[0] for turn in (low, high)]
    np.testing.assert_allclose(network.errors_at((low + high) / 2)[0], np.mean(ends, axis=0), atol=1e-7)
    np.testing.assert_array_equal(network.errors_at(170.0)[0], network.bias[-1])


def test_the_fit_believes_the_points_less_the_bias(known):
    model, samples, network = known
    face, camera = samples.face(3), default_camera(tuple(samples.photo_size[3]))
    start = network.predict(face, camera)
    aligned = aligned_inputs(face, camera.image_size, network.template)
    shift = (face.landmarks_px - start.points_px) * np.array([1, -1]) * float(network.unit_m[0]) / aligned.scale
    np.testing.assert_allclose(shift, network.errors_at(aligned.yaw_deg)[0], atol=1e-6)
    lm = landmark_model(model, model.landmarks_478)
    solver = lm.with_initial_estimate(start)
    assert solver.learned and not lm.learned
    np.testing.assert_array_equal(solver.error_modes, start.error_modes)
    np.testing.assert_allclose(
        solver.resolved_identity_prior.precision @ start.covariance, np.eye(len(start.identity)), atol=1e-3
    )
    few = replace(lm, detected=np.array([33, 263, 4])).with_initial_estimate(start)
    assert few.error_modes.shape[1] == len(few.sigma) == 3


def test_mouths_are_left_to_the_detector(known):
    model, *_ = known
    prior = landmark_model(model, model.landmarks_478).prior
    sure = prior.prefers_estimate(np.full(len(prior.names), 1e-3))
    learned_names = {name for name, learned in zip(prior.names, sure, strict=True) if learned}
    assert "browInnerUp" in learned_names and not any(
        name.startswith(("mouth", "jaw", "tongue")) for name in learned_names
    )
    np.testing.assert_array_equal(prior.with_initial_estimate(np.full(len(prior.names), 9.0)).sigma, prior.sigma)
