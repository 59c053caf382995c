"""Fitting: the landmark solver and the photometric stage on the toy model, whole fits on the shipped one."""

import numpy as np
import pytest
import torch
from skimage.data import coffee

import faceverse as fv
from faceverse.camera import Camera, default_camera, rotation_from_euler_deg
from faceverse.fitting import photometric, solver
from faceverse.lighting import default_light, srgb_from_linear
from faceverse.render import render_head

CAMERA = Camera(900.0, (256.0, 256.0), (512, 512))


@pytest.fixture(scope="module")
def toy_landmarks(toy_model):
    return solver.landmark_model(toy_model, toy_model.landmarks_478)


def toy_truth(lm, seed=0):
    """Pose, coefficients and exact pixels of a random toy head."""
    rng = np.random.default_rng(seed)
    rotation = rotation_from_euler_deg(*rng.uniform(-25, 25, 3)).double().numpy()
    translation = np.array([0.02, -0.01, -0.7])
    identity = 0.7 * rng.standard_normal(len(lm.identity))
    expression = np.zeros(len(lm.expression))
    expression[rng.choice(len(expression), 3, replace=False)] = rng.uniform(0.2, 0.9, 3)
    points = lm.mean + np.tensordot(identity, lm.identity, 1) + np.tensordot(expression, lm.expression, 1)
    pixels = solver.project_points(points, rotation, translation, CAMERA)
    return rotation, translation, identity, expression, pixels


def degrees_between(a, b):
    return np.degrees(np.arccos(np.clip((np.trace(np.asarray(a) @ np.asarray(b).T) - 1) / 2, -1, 1)))


# -- landmarks --------------------------------------------------------------------------------------------------------
def test_initial_pose_is_close(toy_landmarks):
    rotation, translation, *_ = toy_truth(toy_landmarks)
    pixels = solver.project_points(toy_landmarks.mean, rotation, translation, CAMERA)
    found_rotation, found_translation = solver.initial_pose(toy_landmarks.mean, pixels, CAMERA)
    assert degrees_between(found_rotation, rotation) < 6
    assert np.linalg.det(found_rotation) == pytest.approx(1)
    np.testing.assert_allclose(found_translation, translation, atol=0.06)


def test_jacobian_is_the_derivative(toy_landmarks):
    rotation, translation, identity, expression, pixels = toy_truth(toy_landmarks)
    state = solver.LandmarkSolution(rotation, translation, identity, np.clip(expression + 0.1, 0, 1), ())
    problem = solver._Problem(toy_landmarks, pixels + 3, CAMERA, expression, True)
    jacobian, residual = problem._jacobian(state)
    weight = np.repeat(problem.weights(state), 2)
    step = 1e-6
    for column, change in ((0, "turn"), (4, "shift"), (7, "identity"), (6 + len(identity) + 5, "expression")):
        moved = state
        if change == "turn":
            moved = solver.replace(state, rotation=solver._rotation(np.array([step, 0, 0])) @ rotation)
        elif change == "shift":
            moved = solver.replace(state, translation=translation + np.array([0, step, 0]))
        else:
            values = getattr(state, change).copy()
            values[column - 6 - (len(identity) if change == "expression" else 0)] += step
            moved = solver.replace(state, **{change: values})
        after = solver.project_points(problem.points(moved), moved.rotation, moved.translation, CAMERA)
        numeric = ((after - pixels - 3).reshape(-1) * weight - residual) / step
        np.testing.assert_allclose(jacobian[:, column], numeric, atol=2e-3 * np.abs(numeric).max())


def test_exact_landmarks_are_explained(toy_landmarks):
    rotation, translation, _, expression, pixels = toy_truth(toy_landmarks, seed=3)
    found = solver.solve_landmarks(toy_landmarks, pixels, CAMERA, expression, iterations=30)
    points = toy_landmarks.mean + np.tensordot(found.identity, toy_landmarks.identity, 1)
    points = points + np.tensordot(found.expression, toy_landmarks.expression, 1)
    again = solver.project_points(points, found.rotation, found.translation, CAMERA)
    assert np.linalg.norm(again - pixels, axis=1).mean() < 0.01 * np.linalg.norm(pixels[33] - pixels[263])
    assert degrees_between(found.rotation, rotation) < 2
    assert list(found.history) == sorted(found.history, reverse=True)
    assert found.history[-1] == pytest.approx(found.landmark_loss + found.prior_loss)


def test_expression_stays_in_range_and_identity_can_be_kept(toy_landmarks):
    *_, expression, pixels = toy_truth(toy_landmarks, seed=5)
    noisy = pixels + np.random.default_rng(0).normal(0, 6, pixels.shape)
    start = solver.solve_landmarks(toy_landmarks, noisy, CAMERA, expression)
    assert start.expression.min() >= 0 and start.expression.max() <= 1
    again = solver.solve_landmarks(toy_landmarks, pixels, CAMERA, expression, start=start, fit_identity=False)
    np.testing.assert_array_equal(again.identity, start.identity)
    assert not np.allclose(again.translation, start.translation)


# -- photometric ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def toy_scene(toy_model):
    """A rendered toy head: its state and the target that shows it."""
    rng = np.random.default_rng(2)
    state = photometric.FitState(
        torch.from_numpy(0.5 * rng.standard_normal(len(toy_model.identity_basis))).float(),
        torch.zeros(len(toy_model.expression_basis)),
        torch.from_numpy(0.5 * rng.standard_normal(len(toy_model.albedo_basis))).float(),
        rotation_from_euler_deg(8, 3, 2),
        torch.tensor([0.0, 0.0, -0.6]),
        default_light(),
    )
    camera = Camera(300.0, (64.0, 64.0), (128, 128))
    with torch.no_grad():
        shaded = render_head(
            toy_model.vertices(state.identity[None], state.expression[None]),
            toy_model.albedo(state.albedo[None]).clamp_min(0.005),
            toy_model.face_index, state.rotation[None], state.translation[None], state.light[None], camera,
        )  # fmt: skip
        bases = toy_model.landmark_bases(toy_model.landmarks_478)
        points = bases.points(state.identity[None], state.expression[None])[0]
        cam = points @ state.rotation.T + state.translation
        landmarks = torch.stack([64 - 300 * cam[:, 0] / cam[:, 2], 64 + 300 * cam[:, 1] / cam[:, 2]], -1)
    target = photometric.Target(
        srgb_from_linear(shaded.rgb),
        camera,
        landmarks,
        torch.full((478,), 0.15),
        torch.zeros(956, 0),
        state.expression,
        torch.ones(1, 128, 128),
    )
    return state, target, bases


def test_truth_has_no_photometric_or_landmark_loss(toy_model, toy_scene):
    state, target, bases = toy_scene
    problem = photometric.PhotometricProblem(toy_model, bases, target, photometric.STAGES[0])
    terms = problem.terms(state)
    assert float(terms["photometric"]) < 1e-3 and float(terms["landmarks"]) < 1e-3


def test_light_and_albedo_are_found_for_a_known_shape(toy_model, toy_scene):
    state, target, _ = toy_scene
    start = photometric.replace(state, albedo=torch.zeros_like(state.albedo), light=2 * default_light())
    found = photometric.initial_colours(toy_model, start, target)
    colour = (toy_model.albedo(found.albedo[None]).mean() * found.light[0].mean()) / (
        toy_model.albedo(state.albedo[None]).mean() * state.light[0].mean()
    )
    assert float(colour) == pytest.approx(1, abs=0.15)


def test_optimiser_comes_closer_to_the_truth(toy_model, toy_scene):
    state, target, bases = toy_scene
    start = photometric.replace(
        state,
        identity=torch.zeros_like(state.identity),
        albedo=torch.zeros_like(state.albedo),
        rotation=rotation_from_euler_deg(10, 1, 2),
    )
    problem = photometric.PhotometricProblem(toy_model, bases, target, photometric.STAGES[0])
    modes = len(state.identity), len(state.expression)
    curvature = torch.cat([torch.full((n,), v) for n, v in zip((3, 3, *modes), (400, 1e4, 1, 25), strict=True)])
    outcome = photometric.optimise(problem, start, torch.diag(curvature))
    before = toy_model.vertices(start.identity[None]) - toy_model.vertices(state.identity[None])
    after = toy_model.vertices(outcome.state.identity[None]) - toy_model.vertices(state.identity[None])
    assert after.norm() < 0.7 * before.norm()
    assert degrees_between(outcome.state.rotation, state.rotation) < degrees_between(start.rotation, state.rotation)
    assert outcome.after == pytest.approx(sum(outcome.terms.values()), rel=1e-5)
    assert not outcome.state.identity.requires_grad


def test_cut_is_consistent_with_the_cropped_camera():
    """A point keeps its place in the picture: what lies at (x, y) lies at ((x - x0) * s, (y - y0) * s) in the crop."""
    photo = np.zeros((200, 300, 3), np.uint8)
    photo[80:88, 120:128] = 255  # centre (124, 84)
    pixels, inside = photometric.cut(photo, (100, 60, 160, 120), 120)
    rows, columns = np.nonzero(pixels[..., 0] > 128)
    assert rows.mean() + 0.5 == pytest.approx((84 - 60) * 2, abs=0.6)
    assert columns.mean() + 0.5 == pytest.approx((124 - 100) * 2, abs=0.6)
    assert inside.all()
    _, inside = photometric.cut(photo, (-30, 60, 30, 120), 120)
    assert not inside[:, :58].any() and inside[:, 62:].all()


# -- whole fits -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def astronaut_fit(model):
    from skimage.data import astronaut

    progress = []
    result = fv.fit(astronaut(), model, on_progress=lambda *event: progress.append(event))
    return result, progress


def test_overlay_sits_on_the_face(astronaut_fit):
    result, _ = astronaut_fit
    eyes = np.linalg.norm(result.landmarks_px[33] - result.landmarks_px[263])
    error = np.linalg.norm(result.landmarks_px - result.projected_landmarks_px, axis=1).mean()
    assert error < 0.03 * eyes


def test_nobody_becomes_a_monster(astronaut_fit):
    result, _ = astronaut_fit
    assert np.sqrt((result.params.identity**2).mean()) < 1.2 and np.abs(result.params.identity).max() < 4
    assert result.params.expression.min() >= 0 and result.params.expression.max() <= 1
    smile = [result.model.expression_names.index(f"mouthSmile{side}") for side in ("Left", "Right")]
    assert result.params.expression[smile].mean() > 0.3


def test_result_is_complete(astronaut_fit):
    result, progress = astronaut_fit
    vertex_count = len(result.model.mean_vertices)
    assert result.vertices.shape == result.neutral_vertices.shape == result.albedo.shape == (vertex_count, 3)
    assert result.landmarks_px.shape == result.projected_landmarks_px.shape == (478, 2)
    assert result.texture.dtype == np.uint8 and result.texture.shape[2] == 3
    assert result.texture_confidence.shape == result.texture.shape[:2]
    assert [s.name for s in result.stages][:2] == ["detection", "landmarks"] and result.stages[-1].name == "texture"
    assert all(s.after <= s.before for s in result.stages if s.name == "landmarks")
    assert result.seconds > 0 and result.camera.image_size == (512, 512)
    fractions = [fraction for _, fraction, _ in progress]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    previews = [preview for *_, preview in progress if preview is not None]
    assert previews and all(p.dtype == np.uint8 and p.ndim == 3 for p in previews)


def test_texture_shows_the_photograph(astronaut_fit, astronaut):
    """Seen by the photograph's camera, the textured head has the photograph's colours on the face."""
    result, _ = astronaut_fit
    picture = fv.render(result, camera=result.camera)
    cheeks = result.landmarks_px[[50, 280, 101, 330, 4, 9]].round().astype(int)
    seen = np.array([astronaut[y - 3 : y + 4, x - 3 : x + 4].mean((0, 1)) for x, y in cheeks])
    drawn = np.array([picture.rgb[y - 3 : y + 4, x - 3 : x + 4].mean((0, 1)) for x, y in cheeks])
    assert np.abs(seen - drawn).mean() < 14


def test_same_photograph_same_result(astronaut_fit, astronaut, model):
    again = fv.fit(astronaut, model, seed=0)
    for name in ("identity", "expression", "albedo", "rotation", "translation", "light", "iris"):
        np.testing.assert_array_equal(getattr(again.params, name), getattr(astronaut_fit[0].params, name))
    np.testing.assert_array_equal(again.texture, astronaut_fit[0].texture)


def test_heads_of_the_model_are_found_again(model):
    from benchmarks.bm_fit import draw_head, shape_error_mm

    better, turned = [], []
    for number in range(4):
        truth = draw_head(model, number)
        result = fv.fit(truth["picture"], model, focal_px=truth["focal_px"])
        mean = shape_error_mm(model.mean_vertices, truth["neutral"], model.regions["face"])
        better.append(shape_error_mm(result.neutral_vertices, truth["neutral"], model.regions["face"]) / mean)
        turned.append(degrees_between(result.params.rotation, truth["rotation"]))
    assert np.median(better) < 0.85
    assert np.median(turned) < 3


def test_large_photographs_give_results_in_their_own_pixels(astronaut_fit, astronaut, model):
    from PIL import Image

    large = np.asarray(Image.fromarray(astronaut).resize((4608, 4608)))  # above the 4096 px that the fit works on
    result = fv.fit(large, model)
    assert result.camera.image_size == (4608, 4608)
    distance = np.linalg.norm(result.landmarks_px / 9 - astronaut_fit[0].landmarks_px, axis=1)
    eyes = np.linalg.norm(astronaut_fit[0].landmarks_px[33] - astronaut_fit[0].landmarks_px[263])
    assert distance.mean() < 0.03 * eyes
    assert result.camera.focal_px == pytest.approx(default_camera((4608, 4608)).focal_px)
    assert result.texture.shape == (1024, 1024, 3)


def test_no_face_is_said(model):
    with pytest.raises(fv.NoFaceError, match="no face was found"):
        fv.fit(coffee(), model)


def test_missing_second_face_is_said(model, astronaut):
    with pytest.raises(fv.NoFaceError, match="1 face was found, so face=5 does not exist"):
        fv.fit(astronaut, model, face=5)


@pytest.mark.parametrize(
    "arguments",
    [{"face": -1}, {"face": True}, {"face": 0.5}, {"seed": "a"}, {"focal_px": 0}, {"focal_px": float("nan")}],
)
def test_wrong_arguments_are_refused(arguments, astronaut, model):
    with pytest.raises(fv.ParameterError, match=next(iter(arguments))):
        fv.fit(astronaut, model, **arguments)


@pytest.mark.parametrize("name", ["obama", "obama2", "biden", "obama_partial_face", "two_people"])
def test_photographs_of_people(name, shared, model):
    result = fv.fit(shared / "faces" / f"{name}.jpg", model)
    eyes = np.linalg.norm(result.landmarks_px[33] - result.landmarks_px[263])
    error = np.linalg.norm(result.landmarks_px - result.projected_landmarks_px, axis=1).mean()
    assert error < 0.03 * eyes
    assert np.abs(result.params.identity).max() < 4
    if name == "obama_partial_face":
        assert any("outside the picture" in warning for warning in result.warnings)


def test_second_face_is_another_person(shared, model):
    first, second = (fv.fit(shared / "faces/two_people.jpg", model, face=i) for i in (0, 1))
    assert np.abs(first.landmarks_px.mean(0) - second.landmarks_px.mean(0)).max() > 50
