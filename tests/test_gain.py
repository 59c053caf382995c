"""Expressions that scale with the head: one formula, and everything that applies expressions follows it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_studio import read_pack

import faceverse as fv
from demo import view_files
from faceverse.errors import ParameterError
from faceverse.fitting import solver
from faceverse.graphics.camera import Camera
from faceverse.graphics.lighting import default_light
from faceverse.model.face_model import FaceModel, FaceParams
from faceverse.model.file import read_model_file
from faceverse.model.linear import GAIN_RANGE
from faceverse.model.skin_texture import model_texture
from faceverse.result import with_params
from faceverse.tracking.frame_solver import QUALITIES, FrameSolver
from faceverse.tracking.person import LandmarkObserver, TrackedPerson, thinned_landmarks
from faceverse.tracking.skin_term import SkinTerm
from faceverse.weights import model_data
from toy import toy_file, toy_model

CAMERA = Camera(900.0, (256.0, 256.0), (512, 512))


@pytest.fixture(scope="module")
def model():
    """The toy with gains: every expression grows with the first coefficients."""
    return FaceModel(replace(toy_model().data, expression_gain=gains()))


def gains():
    gain = 0.12 * np.random.default_rng(3).standard_normal((52, 8)).astype(np.float32)
    gain[:, 0] = 0.3
    return gain


def coefficients(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 8, generator=generator), torch.rand(count, 52, generator=generator)


def person(model, seed=1):
    identity, expression = coefficients(1, seed)
    params = model.neutral().replace(identity=identity[0].numpy(), expression=expression[0].numpy())
    texture = model_texture(model, params.replace(light=default_light().numpy()), 64)
    nothing = np.zeros_like(model.mean_vertices)
    empty = fv.FitResult(model, params, CAMERA, nothing, nothing, nothing, texture.rgb, texture.confidence)
    return with_params(empty, params)


# -- the formula ------------------------------------------------------------------------------------------------------
def test_gain_is_one_plus_the_stored_change_times_the_identity_within_its_range(model):
    identity, _ = coefficients()
    expected = np.clip(1 + identity.numpy() @ gains().T, *GAIN_RANGE)
    np.testing.assert_allclose(model.gain(identity).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(model.gain_of(identity[1].numpy()), expected[1], atol=1e-6)
    far = model.gain(torch.tensor([[50.0] + 7 * [0.0], [-50.0] + 7 * [0.0]]))
    assert (far[0] == GAIN_RANGE[1]).all() and (far[1] == GAIN_RANGE[0]).all()
    np.testing.assert_array_equal(model.gain_of(np.zeros(8)), np.ones(52, np.float32))


def test_vertices_follow_the_gain(model):
    identity, expression = coefficients()
    scaled = np.clip(1 + identity.numpy() @ gains().T, *GAIN_RANGE) * expression.numpy()
    plain = toy_model().vertices(identity, torch.from_numpy(scaled)).numpy()
    np.testing.assert_allclose(model.vertices(identity, expression).numpy(), plain, atol=1e-6)
    np.testing.assert_array_equal(model.vertices(identity).numpy(), toy_model().vertices(identity).numpy())
    light = model.coarse.vertices(identity, expression).numpy()
    np.testing.assert_allclose(light, plain[:, : light.shape[1]], atol=1e-6)


def test_a_model_without_gains_is_what_it_was():
    model = toy_model()
    identity, expression = coefficients()
    np.testing.assert_array_equal(model.gain(identity).numpy(), np.ones((3, 52), np.float32))
    np.testing.assert_array_equal(model.expression_modes_of(identity[0].numpy()), model.expression_modes)
    zero = FaceModel(replace(model.data, expression_gain=np.zeros((52, 8), np.float32)))
    np.testing.assert_array_equal(zero.vertices(identity, expression), model.vertices(identity, expression))


def test_for_each_person_the_model_is_linear_in_the_expression(model):
    identity, expression = coefficients(1)
    at = [model.vertices(identity, share * expression).numpy() for share in (0, 0.5, 1)]
    np.testing.assert_allclose(at[1], 0.5 * (at[0] + at[2]), atol=1e-6)


def test_the_gain_has_a_gradient(model):
    double = FaceModel(model.data).double()
    identity = (0.3 * torch.randn(1, 8, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(double.gain, identity)


def test_points_follow_the_gain(model):
    landmarks, (identity, expression) = model.landmarks_478, coefficients()
    full = model.vertices(identity, expression).numpy()
    expected = (full[:, model.faces[landmarks.triangle]] * landmarks.barycentric[..., None]).sum(2)
    points = model.landmark_bases(landmarks).points(identity, expression).numpy()
    np.testing.assert_allclose(points, expected, atol=1e-6)


def test_gains_of_a_wrong_shape_are_refused(model):
    with pytest.raises(ParameterError, match=r"expression_gain must have shape \(52, 8\)"):
        FaceModel(replace(model.data, expression_gain=np.zeros((8, 52), np.float32)))
    with pytest.raises(ParameterError, match=r"shape \(N, 8\)"):
        model.gain(torch.zeros(1, 9))


def test_gains_are_stored_in_the_model_file(tmp_path):
    file = replace(toy_file(), expression_gain=gains().astype(np.float16))
    loaded = FaceModel(model_data(read_model_file(file.write(tmp_path / "gain.safetensors"))))
    identity, _ = coefficients()
    expected = np.clip(1 + identity.numpy() @ gains().astype(np.float16).astype(np.float32).T, *GAIN_RANGE)
    np.testing.assert_allclose(loaded.gain(identity).numpy(), expected, atol=1e-6)


# -- whoever applies expressions --------------------------------------------------------------------------------------
def test_results_and_files_follow_the_gain(model, tmp_path):
    result = person(model)
    row = [torch.from_numpy(x[None]) for x in (result.params.identity, result.params.expression)]
    np.testing.assert_allclose(result.vertices, model.vertices(*row)[0].numpy(), atol=1e-6)
    modes = model.expression_modes_of(result.params.identity)
    blended = result.neutral_vertices + np.tensordot(result.params.expression, modes, 1)
    np.testing.assert_allclose(result.vertices, blended, atol=1e-6)
    content = fv.export(result, tmp_path / "head.glb").read_bytes()
    length = int.from_bytes(content[12:16], "little")
    accessors = json.loads(content[20 : 20 + length])
    jaw = accessors["meshes"][0]["primitives"][0]["targets"][model.expression_names.index("jawOpen")]["POSITION"]
    low, high = (accessors["accessors"][jaw][key] for key in ("min", "max"))
    offsets = modes[model.expression_names.index("jawOpen")]
    np.testing.assert_allclose([low, high], [offsets.min(0), offsets.max(0)], atol=1e-6)


def test_the_browser_gets_the_sizes(model):
    pack = read_pack(view_files.head_pack(person(model)))
    np.testing.assert_array_equal(pack["gain"], model.gain_of(person(model).params.identity))


def test_landmark_solver_follows_the_gain(model):
    lm = solver.landmark_model(model, model.landmarks_478)
    identity, expression = (x[0].numpy().astype(np.float64) for x in coefficients(1, 4))
    rows = (torch.from_numpy(x[None]).float() for x in (identity, expression))
    expected = model.landmark_bases(model.landmarks_478).points(*rows)[0].numpy()
    np.testing.assert_allclose(lm.points(identity, expression), expected, atol=1e-6)
    alone = lm.with_identity(identity)
    assert alone.identity.shape[0] == 0 and alone.gain is None
    np.testing.assert_allclose(alone.points(np.zeros(0), expression), expected, atol=1e-6)


def test_solver_recovers_a_head_whose_expressions_are_large(model):
    lm = solver.landmark_model(model, model.landmarks_478)
    identity = np.array([1.5, 0.3, -0.4, 0.5, 0.2, -0.6, 0.1, 0.4])
    expression = np.zeros(52)
    jaw = model.expression_names.index("jawOpen")
    expression[jaw] = 0.6
    rotation, translation = np.eye(3), np.array([0.01, 0, -0.7])
    pixels = solver.project_points(lm.points(identity, expression), rotation, translation, CAMERA)
    found = solver.solve_landmarks(lm, pixels, CAMERA, expression, iterations=30)
    state = found.state
    again = solver.project_points(
        lm.points(state.identity, state.expression), state.rotation, state.translation, CAMERA
    )
    assert np.abs(again - pixels).max() < 1.0
    assert state.expression[jaw] == pytest.approx(0.6, abs=0.03)
    plain = solver.solve_landmarks(replace(lm, gain=None), pixels, CAMERA, expression, iterations=30)
    assert found.history[-1] < 0.9 * plain.history[-1], "without gains the head has to be bent for its mouth"


def test_tracking_follows_the_gain(model):
    identity, expression = (x[0].numpy() for x in coefficients(1, 5))
    params = FaceParams(identity, expression, np.zeros(5, np.float32))
    frames = FrameSolver(LandmarkObserver(model), TrackedPerson(params, CAMERA), QUALITIES["fast"])
    rows = (torch.from_numpy(x[None]) for x in (identity, expression))
    points = model.landmark_bases(model.landmarks_478).points(*rows)[0].numpy()
    kept = points[thinned_landmarks(solver.landmark_model(model, model.fit_landmarks))]
    np.testing.assert_allclose(frames.landmarks.points(np.zeros(0), expression), kept, atol=1e-6)
    skin = SkinTerm(model, params, 300)
    moved = skin.points + skin.modes @ expression.astype(np.float32)
    full = model.vertices(*(torch.from_numpy(x[None]) for x in (identity, expression)))[0].numpy()
    nearest = np.linalg.norm(full[None] - moved[:, None], axis=-1).min(axis=1)
    assert nearest.max() < 1e-5
