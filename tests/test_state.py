"""The state of a posed head: parameters and back, updates, and what is made from it."""

from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from faceverse.fitting import solver
from faceverse.fitting.state import PER_IMAGE, ROTATION_STEP_LIMIT, FaceState, apply_rotation_update
from faceverse.graphics.camera import Camera
from faceverse.graphics.lighting import default_light
from faceverse.model.face_model import FaceParams
from faceverse.result import FittedView
from faceverse.tracking import TrackedFrame
from faceverse.tracking.frame_solver import SolvedFrame
from faceverse.tracking.journal import Record, state_of_record

NAMES = [field.name for field in fields(FaceState)]


def random_state(identity=4, expression=3, albedo=5, seed=0):
    rng = np.random.default_rng(seed)
    return FaceState(
        rotation=Rotation.from_rotvec([0.1, -0.2, 0.05]).as_matrix(),
        translation=np.array([0.02, -0.01, -0.6]),
        expression=rng.uniform(0.1, 0.9, expression),
        identity=rng.standard_normal(identity),
        albedo=rng.standard_normal(albedo),
        light=rng.standard_normal((9, 3)),
    )


def test_params_and_back():
    state = random_state()
    params = state.to_params()
    again = FaceState.from_params(params)
    for name in NAMES:
        assert getattr(params, name).dtype == np.float32 and getattr(again, name).dtype == np.float64
        np.testing.assert_allclose(getattr(again, name), getattr(state, name), rtol=1e-6)
    assert not np.shares_memory(params.expression, state.expression)


def test_a_fixed_person_keeps_identity_albedo_iris_and_detail():
    person = FaceParams(*(np.full(count, 0.5, np.float32) for count in (4, 3, 5)), iris=np.float32([0.1, 0.2, 0.3]))
    person = person.replace(detail={"wrinkles": np.ones(2, np.float32)})
    state = replace(random_state(), identity=np.zeros(0), albedo=np.zeros(0))
    params = state.to_params(person)
    assert params.identity is person.identity and params.albedo is person.albedo and params.iris is person.iris
    assert params.detail is person.detail
    for name in PER_IMAGE:
        np.testing.assert_allclose(getattr(params, name), getattr(state, name), rtol=1e-6)


def test_defaults_are_a_fixed_person_in_the_default_light():
    state = FaceState(rotation=np.eye(3), translation=np.zeros(3), expression=np.zeros(2))
    assert len(state.identity) == len(state.albedo) == 0
    np.testing.assert_array_equal(state.light, default_light().double().numpy())


def test_update_adds_rotates_from_the_left_and_clips():
    state, rng = random_state(), np.random.default_rng(1)
    pose = np.array([0.1, 0.02, -0.3, 0.01, 0.02, 0.03])
    light, limits = rng.standard_normal((9, 3)), np.tile([0.0, 1.0], (3, 1))
    moved = state.updated(
        pose, identity=np.ones(4), expression=np.array([2.0, -2.0, 0.05]), albedo=np.full(5, 2.0), light=light,
        limits=limits,
    )  # fmt: skip
    np.testing.assert_allclose(moved.rotation, Rotation.from_rotvec(pose[:3]).as_matrix() @ state.rotation)
    np.testing.assert_allclose(moved.translation - state.translation, pose[3:])
    np.testing.assert_allclose(moved.expression, [1, 0, state.expression[2] + 0.05])
    np.testing.assert_allclose(moved.identity - state.identity, 1)
    np.testing.assert_allclose(moved.albedo - state.albedo, 2)
    np.testing.assert_allclose(moved.light - state.light, light)
    still = state.updated(np.zeros(6))
    assert all(np.array_equal(getattr(still, name), getattr(state, name)) for name in NAMES)
    free = state.updated(np.zeros(6), expression=np.full(3, 5.0))
    np.testing.assert_allclose(free.expression, state.expression + 5)


@pytest.mark.parametrize("angle", [0.0, 0.3, ROTATION_STEP_LIMIT, 2.0])
def test_rotation_updates_are_limited(angle):
    rotation = apply_rotation_update(np.eye(3), np.array([0, angle, 0]))
    assert Rotation.from_matrix(rotation).magnitude() == pytest.approx(min(angle, ROTATION_STEP_LIMIT))


def test_values_of_an_image_fit_views_frames_and_records():
    values, state = random_state().per_image(), random_state()
    assert all(array.dtype == np.float32 for array in values.values())
    for kind in (FittedView, TrackedFrame):
        assert set(PER_IMAGE) <= {field.name for field in fields(kind)}
    record = Record(len(state.expression))
    row = record.add(SolvedFrame(1.5, state, 0.8))
    restored = state_of_record(row)
    for name in PER_IMAGE:
        np.testing.assert_array_equal(getattr(restored, name), values[name])
    assert row["seconds"] == 1.5 and state_of_record(record.add(SolvedFrame(2.0))) is None


def test_landmark_term_has_the_weights_of_its_pose(toy_model):
    lm = solver.landmark_model(toy_model, toy_model.landmarks_478)
    rng, camera = np.random.default_rng(1), Camera(900.0, (256.0, 256.0), (512, 512))
    lm = replace(lm, error_modes=rng.normal(0, 1e-3, (3, len(lm.sigma), 2)))
    state = random_state(len(lm.identity), len(lm.expression))
    pixels = solver.project_points(
        lm.points(state.identity, state.expression), state.rotation, state.translation, camera
    )
    term = solver.landmark_term(lm, pixels, camera, state.rotation, state.translation)
    weight = solver.point_weights(lm, state.rotation, 0.6, 900.0)
    np.testing.assert_allclose(term.weight, weight)
    np.testing.assert_allclose(term.factor, solver.error_mode_factor(lm, weight, 900.0 / 0.6))
    assert term.loss(state) == pytest.approx(0, abs=1e-12) and (term.weight > 0).all()
