"""A person's own deformation of the mesh, and the stage that aligns a head with the landmarks of its photographs."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import faceverse as fv
from faceverse.fitting.alignment import align
from faceverse.fitting.fit_input import FitInput
from faceverse.fitting.lip_closure import PAIRS
from faceverse.fitting.solver import landmark_model, project_points
from faceverse.fitting.state import FaceState
from faceverse.graphics.camera import Camera
from faceverse.landmarks import DetectedFace
from faceverse.model.face_model import FaceModel
from faceverse.model.warp import CONTROL_POINTS, head_vertices, warp_basis
from faceverse.result import head_from_params, with_params

CAMERA = Camera(1600.0, (512.0, 512.0), (1024, 1024))
UPPER, LOWER = np.array(PAIRS).T
SMALL_MM = 0.15


@pytest.fixture(scope="module")
def basis(model):
    return warp_basis(model)


@pytest.fixture(scope="module")
def other_model(toy_model):
    """A model without the detector's 478 points."""
    return FaceModel(replace(toy_model.data, landmarks_478=None))


def landmarks(model, vertices):
    marks = model.landmarks_478
    return (vertices[model.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)


def smooth_warp(basis, seed):
    """A smooth random deformation of the middle of the face, (K, 3) float32 metres, up to two millimetres."""
    centre = basis.controls.mean(0)
    near = np.exp(-((np.linalg.norm(basis.controls - centre, axis=1) / 0.05) ** 2))
    direction = np.random.default_rng(seed).standard_normal(3) * [0.3, 0.3, 0.0] + [0, 1, 0]
    return (0.002 * near[:, None] * direction / np.linalg.norm(direction)).astype(np.float32)


def state_of(model, yaw_deg=0.0, **weights):
    expression = np.zeros(len(model.expression_names))
    for name, weight in weights.items():
        expression[model.expression_names.index(name)] = weight
    identity = 0.5 * np.random.default_rng(3).standard_normal(len(model.data.identity_modes))
    return FaceState(
        rotation=Rotation.from_euler("y", yaw_deg, degrees=True).as_matrix(),
        translation=np.array([0.0, 0.0, -0.7]),
        expression=expression,
        identity=identity,
    )


def projected(model, state):
    _, vertices = head_vertices(model, state.to_params())
    points = landmarks(model, vertices.astype(np.float64))
    return project_points(points, state.rotation, state.translation, CAMERA)


def seen_as(model, points_px):
    """Input of a fit whose detected landmarks are these (478, 2); there is no photograph."""
    face = DetectedFace(np.zeros(4), points_px, np.zeros(478), {}, None)
    lm = landmark_model(model, model.landmarks_478)
    lm = replace(lm, sigma=np.full(478, 1e-3), error_modes=lm.error_modes[:0])
    return FitInput(model, None, face, CAMERA, lm, points_px, np.zeros(len(model.expression_names)))


def millimetres(model, state, points_px):
    error_px = np.linalg.norm(projected(model, state) - points_px, axis=1)
    return 1e3 * error_px * -state.translation[2] / CAMERA.focal_px


# -- the deformation --------------------------------------------------------------------------------------------------
def test_control_points_move_by_their_displacements(model, basis):
    warp = smooth_warp(basis, 0)
    params = model.neutral()
    plain, bent = (head_vertices(model, params.replace(warp=w))[0] for w in (params.warp, warp))
    moved = landmarks(model, bent - plain)[list(CONTROL_POINTS)]
    np.testing.assert_allclose(moved, warp, atol=5e-5)
    np.testing.assert_allclose(bent - plain, basis.weights @ warp, atol=1e-6)


def test_a_lip_moves_without_the_other_one_and_the_skull_stays(model, basis):
    warp = np.zeros((len(CONTROL_POINTS), 3), np.float32)
    lower = [k for k, point in enumerate(CONTROL_POINTS) if point in (17, 84, 314, 87, 317, 181, 405)]
    warp[lower, 1] = -0.002
    params = model.neutral()
    moved = head_vertices(model, params.replace(warp=warp))[0] - head_vertices(model, params)[0]
    at = landmarks(model, moved)
    assert at[14, 1] < -0.0012 and np.abs(at[13]).max() < 4e-4  # they touch without expression
    assert np.abs(moved[model.regions["scalp"]]).max() < 1e-4


@pytest.mark.parametrize("region", ["eyeball_left", "eyeball_right"])
def test_eyeballs_keep_their_shape(model, basis, region):
    warp = 1e-3 * np.random.default_rng(5).standard_normal((len(CONTROL_POINTS), 3)).astype(np.float32)
    params = model.neutral()
    moved = head_vertices(model, params.replace(warp=warp))[0] - head_vertices(model, params)[0]
    ball = moved[model.regions[region]]
    assert np.ptp(ball, axis=0).max() < 1e-6 and np.abs(ball).max() > 1e-5


def test_expressions_add_to_the_deformation(model, basis):
    warp, state = smooth_warp(basis, 1), state_of(model, jawOpen=0.5, mouthSmileLeft=0.7)
    plain = head_vertices(model, state.to_params())
    bent = head_vertices(model, replace(state, warp=warp).to_params())
    np.testing.assert_allclose(bent[1] - bent[0], plain[1] - plain[0], atol=1e-6)


def test_a_wrong_warp_is_refused(model, other_model):
    with pytest.raises(fv.ParameterError, match=rf"\({len(CONTROL_POINTS)}, 3\)"):
        head_vertices(model, model.neutral().replace(warp=np.zeros((5, 3), np.float32)))
    params = other_model.neutral().replace(warp=np.zeros((len(CONTROL_POINTS), 3), np.float32))
    with pytest.raises(fv.ParameterError, match="no control points"):
        head_vertices(other_model, params)


# -- the stage --------------------------------------------------------------------------------------------------------
def test_a_head_is_brought_onto_its_landmarks(model, basis):
    fitted = state_of(model, mouthSmileLeft=0.3, mouthSmileRight=0.3)
    truth = replace(fitted, warp=smooth_warp(basis, 2))
    seen = projected(model, truth)
    aligned = align([seen_as(model, seen)], [fitted])
    before, after = (millimetres(model, state, seen)[[*UPPER, *LOWER]] for state in (fitted, aligned.states[0]))
    assert before.mean() > 0.8 and after.mean() < 0.2
    assert aligned.after < 0.2 * aligned.before and aligned.after == pytest.approx(sum(aligned.terms.values()))


def test_an_opening_of_the_mouth_is_an_expression(model):
    fitted = state_of(model)
    seen = projected(model, state_of(model, jawOpen=0.3))
    state = align([seen_as(model, seen)], [fitted]).states[0]
    assert millimetres(model, state, seen)[[*UPPER, *LOWER]].mean() < 0.5
    neutral = replace(state, expression=np.zeros_like(state.expression)).to_params()
    points = landmarks(model, head_vertices(model, neutral)[0])
    closed = landmarks(model, head_vertices(model, neutral.replace(warp=neutral.warp[:0]))[0])
    opening = (points[UPPER] - points[LOWER]) - (closed[UPPER] - closed[LOWER])
    assert 1e3 * np.abs(opening).max() < SMALL_MM


def test_one_photograph_tells_nothing_about_depth(model, basis):
    fitted = state_of(model, yaw_deg=20)
    seen = projected(model, replace(fitted, warp=smooth_warp(basis, 4)))
    state = align([seen_as(model, seen)], [fitted]).states[0]
    in_view = np.abs(state.warp @ state.rotation.T).mean(0)
    assert in_view[2] < 0.5 * in_view[1]


def test_photographs_of_one_person_share_the_deformation(model, basis):
    warp = smooth_warp(basis, 6)
    fitted = [state_of(model, yaw, browInnerUp=up) for yaw, up in ((-20, 0.2), (20, 0.0))]
    seen = [projected(model, replace(state, warp=warp)) for state in fitted]
    aligned = align([seen_as(model, points) for points in seen], fitted).states
    np.testing.assert_array_equal(aligned[0].warp, aligned[1].warp)
    for state, start, points in zip(aligned, fitted, seen, strict=True):
        assert millimetres(model, state, points).mean() < 0.35 * millimetres(model, start, points).mean()


def test_exact_landmarks_change_nothing(model):
    fitted = state_of(model, jawOpen=0.2)
    state = align([seen_as(model, projected(model, fitted))], [fitted]).states[0]
    assert 1e3 * np.abs(state.warp).max() < 0.01 and np.abs(state.expression - fitted.expression).max() < 1e-3


def test_models_without_the_detectors_points_stay_as_they_are(other_model):
    neutral = FaceState.from_params(other_model.neutral())
    lm = landmark_model(other_model, other_model.fit_landmarks)
    seen = FitInput(other_model, None, None, CAMERA, lm, np.zeros((68, 2)), np.zeros(len(other_model.expression_names)))
    assert warp_basis(other_model) is None and align([seen], [neutral]) is None


# -- results ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def bent(model, basis):
    params = model.random(4, hair=False).replace(warp=smooth_warp(basis, 7))
    return head_from_params(model, params, CAMERA, 64)


def test_a_result_is_restored_exactly(model, bent, tmp_path):
    path = tmp_path / "head.json"
    fv.export(bent, path)
    again = fv.load_result(path, model)
    np.testing.assert_array_equal(again.params.warp, bent.params.warp)
    np.testing.assert_array_equal(again.vertices, bent.vertices)


def test_edits_keep_the_deformation(bent, basis):
    for edited in (fv.edit(bent, expression="smile"), fv.edit(bent, age=20), fv.edit(bent, nose_width=1)):
        np.testing.assert_array_equal(edited.params.warp, bent.params.warp)
        without = with_params(edited, edited.params.replace(warp=edited.params.warp[:0]))
        moved = edited.vertices - without.vertices
        np.testing.assert_allclose(moved, basis.weights @ bent.params.warp, atol=1e-6)


def test_blends_and_variations(model, bent):
    other = head_from_params(model, model.random(5, hair=False), CAMERA, 64)
    np.testing.assert_allclose(fv.blend(bent, other, identity=0.25).params.warp, 0.75 * bent.params.warp, rtol=1e-5)
    np.testing.assert_array_equal(fv.blend(other, bent, identity=1.0).params.warp, bent.params.warp)
    assert not fv.blend(other, other).params.warp.any()
    half = fv.randomize(bent, 1, strength=0.5, keep=("hair",))
    np.testing.assert_allclose(half.params.warp, 0.5 * bent.params.warp, rtol=1e-6)
    np.testing.assert_array_equal(fv.randomize(bent, 1, region="nose").params.warp, bent.params.warp)

