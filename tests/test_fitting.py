"""Fitting: the landmark solver and the photometric stage on the toy model, whole fits on the shipped one."""

import dataclasses

import numpy as np
import pytest
from skimage.data import coffee

import faceverse as fv
from faceverse.fitting import photometric, solver
from faceverse.fitting.prior import IdentityPrior
from faceverse.fitting.state import FaceState
from faceverse.fitting.surface import surface_samples
from faceverse.graphics.camera import Camera, default_camera, rotation_from_euler_deg
from faceverse.graphics.lighting import default_light, srgb_from_linear
from faceverse.rendering.render import render_head

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


def moved_by(state, delta, fit_identity=True):
    """The state after a change in turn, shift, identity (if it is fitted), expression and perhaps focal length."""
    count = len(state.identity) if fit_identity else 0
    identity, expression, longer = np.split(delta[6:], [count, count + len(state.expression)])
    moved = state.updated(delta[:6], identity=identity if fit_identity else 0.0, expression=expression)
    camera = dataclasses.replace(CAMERA, focal_px=CAMERA.focal_px * float(np.exp(longer.sum())))
    return moved, camera


@pytest.mark.parametrize("fit_focal", [False, True])
@pytest.mark.parametrize("fit_identity", [False, True])
@pytest.mark.parametrize("error_modes", [False, True])
def test_equations_are_the_derivatives_of_the_landmark_term(toy_landmarks, fit_identity, fit_focal, error_modes):
    rotation, translation, identity, expression, pixels = toy_truth(toy_landmarks)
    state = FaceState(
        rotation=rotation, translation=translation, expression=np.clip(expression + 0.1, 0, 1), identity=identity
    )
    lm = toy_landmarks
    if error_modes:
        lm = dataclasses.replace(lm, error_modes=np.random.default_rng(1).normal(0, 1e-3, (3, len(lm.sigma), 2)))
    term = solver.landmark_term(lm, pixels + 3, CAMERA, rotation, translation)
    hessian, gradient = term.normal_equations(state, fit_identity, fit_focal)
    assert len(gradient) == 6 + fit_identity * len(identity) + len(expression) + fit_focal
    slopes, losses = [], []
    for step in 1e-6 * np.eye(len(gradient)):
        ends = []
        for sign in (1, -1):
            moved, camera = moved_by(state, sign * step, fit_identity)
            there = dataclasses.replace(term, camera=camera)
            ends.append((there.residual(moved), there.loss(moved)))
        slopes.append((ends[0][0] - ends[1][0]) / 2e-6)
        losses.append((ends[0][1] - ends[1][1]) / 2e-6)
    jacobian = np.stack(slopes, axis=1)
    explained, pairs = term.factor.T @ jacobian, term.lm.pairs.index
    unweighted = jacobian.reshape(len(lm.sigma), 2, -1) / term.weight[:, None, None]
    apart = (unweighted[pairs[:, 0]] - unweighted[pairs[:, 1]]) * term.pair_weight[:, None, None]
    apart = apart.reshape(-1, len(gradient))
    expected = jacobian.T @ jacobian - explained.T @ explained + apart.T @ apart
    np.testing.assert_allclose(hessian, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(gradient, losses, atol=1e-5 * np.abs(gradient).max())


def test_error_modes_of_the_detector_are_marginalised(toy_landmarks):
    """A shift of all points costs almost nothing along an error mode of large variance; moving them apart does."""
    rotation, translation, identity, expression, pixels = toy_truth(toy_landmarks)
    state = FaceState(rotation=rotation, translation=translation, expression=expression, identity=identity)
    error_mode = np.zeros((1, len(pixels), 2))
    error_mode[..., 0] = 0.01
    lm = dataclasses.replace(toy_landmarks, error_modes=error_mode)
    weight = np.full(len(pixels), 0.5)
    factor = solver.error_mode_factor(lm, weight, CAMERA.focal_px / -translation[2])
    aside = np.tile([[2.0, 0.0]], (len(pixels), 1))
    apart = aside * np.where(np.arange(len(pixels)) % 2, 1, -1)[:, None]
    terms = (solver.LandmarkTerm(lm, pixels + wrong, CAMERA, weight, factor) for wrong in (aside, apart))
    together, separate = (term.loss(state) for term in terms)
    assert separate == pytest.approx(0.5 * len(pixels)) and together < 0.01 * separate
    plain = solver.LandmarkTerm(lm, pixels + aside, CAMERA, weight, factor[:, :0])
    assert plain.loss(state) == pytest.approx(0.5 * len(pixels))


def test_damped_step_solves_what_has_no_limits():
    rng = np.random.default_rng(0)
    root, gradient = rng.normal(size=(9, 6)), rng.normal(size=6)
    hessian, nobody = root.T @ root, np.zeros(0, int)
    step = solver.damped_step(hessian, gradient, 0.0, nobody, np.zeros((0, 2)))
    np.testing.assert_allclose(hessian @ step, -gradient, atol=1e-9)
    damped = solver.damped_step(hessian, gradient, 10.0, nobody, np.zeros((0, 2)))
    np.testing.assert_allclose((hessian + 10 * np.diag(np.diag(hessian))) @ damped, -gradient, atol=1e-9)
    wide = solver.damped_step(hessian, gradient, 0.0, np.arange(6), np.tile([-1e6, 1e6], (6, 1)))
    np.testing.assert_allclose(wide, step)


def test_damped_step_keeps_its_limits_and_solves_the_rest():
    rng = np.random.default_rng(3)
    for _ in range(20):
        root, gradient = rng.normal(size=(12, 8)), 5 * rng.normal(size=8)
        hessian, rows = root.T @ root, np.array([1, 4, 6, 7])
        kept = hessian.copy()
        room = np.stack([-rng.uniform(0, 0.3, 4), rng.uniform(0, 0.3, 4)], axis=1)
        step = solver.damped_step(hessian, gradient, 0.0, rows, room)
        assert (step[rows] >= room[:, 0] - 1e-9).all() and (step[rows] <= room[:, 1] + 1e-9).all()
        at_limit = np.isclose(step[rows, None], room, atol=1e-9).any(1)
        free = np.setdiff1d(np.arange(8), rows[at_limit])
        np.testing.assert_allclose((hessian @ step + gradient)[free], 0, atol=1e-8)
        assert at_limit.any()
        np.testing.assert_array_equal(hessian, kept)


# -- focal length -----------------------------------------------------------------------------------------------------
NEAR = Camera(480.0, (256.0, 256.0), (512, 512))  # the true camera; CAMERA is the assumed one


@pytest.fixture(scope="module")
def near_face(toy_landmarks):
    """Identity and exact pixels of a face a third of a metre before a wide lens."""
    identity = 0.7 * np.random.default_rng(4).standard_normal(len(toy_landmarks.identity))
    points = toy_landmarks.points(identity, np.zeros(len(toy_landmarks.expression)))
    rotation = rotation_from_euler_deg(20, -8, 3).double().numpy()
    return identity, solver.project_points(points, rotation, np.array([0.01, 0, -0.34]), NEAR)


def test_focal_length_is_found_where_it_is_unknown(toy_landmarks, near_face):
    identity, pixels = near_face
    expected = np.zeros(len(toy_landmarks.expression))
    fixed, fitted = (
        solver.solve_landmarks(toy_landmarks, pixels, CAMERA, expected, focal_sigma=sigma, iterations=40)
        for sigma in (0.0, 0.5)
    )
    assert fixed.camera == CAMERA
    assert abs(np.log(fitted.camera.focal_px / NEAR.focal_px)) < 0.25 * np.log(CAMERA.focal_px / NEAR.focal_px)
    assert fitted.camera == dataclasses.replace(CAMERA, focal_px=fitted.camera.focal_px)
    assert fitted.landmark_loss < 0.5 * fixed.landmark_loss
    assert np.linalg.norm(fitted.state.identity - identity) < np.linalg.norm(fixed.state.identity - identity)
    assert list(fitted.history) == sorted(fitted.history, reverse=True)
    assert fitted.history[-1] == pytest.approx(fitted.landmark_loss + fitted.prior_loss)


def test_a_surer_focal_length_moves_less(toy_landmarks, near_face):
    expected = np.zeros(len(toy_landmarks.expression))
    found = [
        solver.solve_landmarks(toy_landmarks, near_face[1], CAMERA, expected, focal_sigma=sigma, iterations=40)
        for sigma in (1e-3, 0.1, 0.5)
    ]
    lengths = [one.camera.focal_px for one in found]
    assert CAMERA.focal_px > lengths[0] > lengths[1] > lengths[2] > 0.9 * NEAR.focal_px
    assert lengths[0] == pytest.approx(CAMERA.focal_px, rel=0.01)


def test_focal_prior_pulls_back_to_what_is_expected(toy_landmarks, near_face):
    expected = np.zeros(len(toy_landmarks.expression))
    start = solver.solve_landmarks(toy_landmarks, near_face[1], CAMERA, expected)
    longer = dataclasses.replace(CAMERA, focal_px=CAMERA.focal_px * np.exp(0.1))
    moved = dataclasses.replace(start, camera=longer)
    sure, unsure = (
        solver.LandmarkProblem(toy_landmarks, near_face[1], CAMERA, expected, True, sigma) for sigma in (0.05, 1e6)
    )
    (hessian, gradient), (free_hessian, free_gradient) = (p.normal_equations(moved) for p in (sure, unsure))
    assert gradient[-1] - free_gradient[-1] == pytest.approx(0.1 / 0.05**2)
    assert hessian[-1, -1] - free_hessian[-1, -1] == pytest.approx(1 / 0.05**2)
    assert sure.terms(moved)[1] - unsure.terms(moved)[1] == pytest.approx(0.5 * (0.1 / 0.05) ** 2)


def test_marginal_hessian_is_without_the_focal_length_and_less_for_it(toy_landmarks, near_face):
    """What adapts cannot hold the rest in place: the curvature left is never above that with a known lens."""
    expected = np.zeros(len(toy_landmarks.expression))
    start = solver.solve_landmarks(toy_landmarks, near_face[1], NEAR, expected, iterations=40)
    known, unknown = (
        solver.LandmarkProblem(toy_landmarks, near_face[1], NEAR, expected, True, sigma).marginal_hessian(start)
        for sigma in (0.0, 0.25)
    )
    assert known.shape == unknown.shape == (6 + len(start.state.identity) + len(expected),) * 2
    left = np.linalg.eigvalsh(known - unknown)
    assert left.min() > -1e-8 * left.max() and left.max() > 1


def test_exact_landmarks_are_explained(toy_landmarks):
    rotation, translation, _, expression, pixels = toy_truth(toy_landmarks, seed=3)
    found = solver.solve_landmarks(toy_landmarks, pixels, CAMERA, expression, iterations=30)
    state = found.state
    points = toy_landmarks.mean + np.tensordot(state.identity, toy_landmarks.identity, 1)
    points = points + np.tensordot(state.expression, toy_landmarks.expression, 1)
    again = solver.project_points(points, state.rotation, state.translation, CAMERA)
    assert np.linalg.norm(again - pixels, axis=1).mean() < 0.01 * np.linalg.norm(pixels[33] - pixels[263])
    assert degrees_between(state.rotation, rotation) < 2
    assert list(found.history) == sorted(found.history, reverse=True)
    assert found.history[-1] == pytest.approx(found.landmark_loss + found.prior_loss)


def test_expression_stays_in_range_and_identity_can_be_kept(toy_landmarks):
    *_, expression, pixels = toy_truth(toy_landmarks, seed=5)
    noisy = pixels + np.random.default_rng(0).normal(0, 6, pixels.shape)
    start = solver.solve_landmarks(toy_landmarks, noisy, CAMERA, expression).state
    assert start.expression.min() >= 0 and start.expression.max() <= 1
    again = solver.solve_landmarks(toy_landmarks, pixels, CAMERA, expression, start=start, fit_identity=False)
    np.testing.assert_array_equal(again.state.identity, start.identity)
    assert not np.allclose(again.state.translation, start.translation)


# -- photometric ------------------------------------------------------------------------------------------------------
# The toy has few vertices: no more than this many of them are seen at a time, and none of them twice.
TOY = photometric.StageSettings("toy", 128, 10, effective_samples=200.0)


def toy_state(model, seed=2):
    rng = np.random.default_rng(seed)
    return FaceState(
        identity=0.5 * rng.standard_normal(len(model.tensor("identity_modes"))),
        expression=np.zeros(len(model.tensor("expression_modes"))),
        albedo=0.5 * rng.standard_normal(len(model.tensor("albedo_modes"))),
        rotation=rotation_from_euler_deg(8, 3, 2).double().numpy(),
        translation=np.array([0.0, 0.0, -0.6]),
        light=default_light().double().numpy(),
    )


@pytest.fixture(scope="module")
def toy_scene(toy_model, toy_landmarks):
    """A rendered toy head: its state and the target that shows it."""
    state = toy_state(toy_model)
    return state, target_showing(toy_model, toy_landmarks, state)


def target_showing(model, lm, state):
    """A picture of the state, with exact landmarks."""
    camera = Camera(300.0, (64.0, 64.0), (128, 128))
    shaded = render_head(
        model.vertices(state.tensor("identity"), state.tensor("expression")),
        model.albedo(state.tensor("albedo")).clamp_min(0.005),
        model.tensor("faces"), state.tensor("rotation"), state.tensor("translation"), state.tensor("light"), camera,
    )  # fmt: skip
    points = lm.points(state.identity, state.expression)
    pixels = solver.project_points(points, state.rotation, state.translation, camera)
    term = solver.LandmarkTerm(lm, pixels, camera, np.full(len(pixels), 0.15), np.zeros((2 * len(pixels), 0)))
    picture = srgb_from_linear(shaded.rgb[0]).numpy()
    return photometric.PhotometricTarget(picture, np.ones((128, 128), bool), camera, term, state.expression)


def refinement(model, targets):
    prior = IdentityPrior.of_population(len(model.tensor("identity_modes")))
    return photometric.Refinement(surface_samples(model), targets, TOY, prior)


def test_truth_has_no_photometric_or_landmark_loss(toy_model, toy_scene):
    state, target = toy_scene
    problem = refinement(toy_model, [target])
    residuals = problem.evaluate([state])
    problem.update_noise_levels(residuals)
    terms = problem.terms([state], residuals)
    darker = dataclasses.replace(state, light=0.7 * state.light)
    assert terms["photometric"] < 0.05 * problem.terms([darker], problem.evaluate([darker]))["photometric"]
    assert terms["landmarks"] < 1e-6 and terms["expression prior"] == 0
    assert terms["identity prior"] == pytest.approx(0.5 * (state.identity**2).sum())
    assert terms["albedo prior"] == pytest.approx(0.5 * (state.albedo**2).sum())


def test_light_and_albedo_are_found_for_a_known_shape(toy_model, toy_scene):
    state, target = toy_scene
    start = dataclasses.replace(state, albedo=np.zeros_like(state.albedo), light=2 * state.light)
    found = photometric.estimate_light_and_albedo(surface_samples(toy_model), start, target)
    colour = (toy_model.albedo(found.tensor("albedo")).mean() * found.light[0].mean()) / (
        toy_model.albedo(state.tensor("albedo")).mean() * state.light[0].mean()
    )
    assert float(colour) == pytest.approx(1, abs=0.15)
    np.testing.assert_array_equal(found.rotation, start.rotation)


def test_colours_of_a_face_that_is_not_in_the_picture_stay(toy_model, toy_scene):
    state, target = toy_scene
    aside = dataclasses.replace(state, translation=np.array([5.0, 0.0, -0.6]))
    assert photometric.estimate_light_and_albedo(surface_samples(toy_model), aside, target) is aside


def wrong_start(state):
    return dataclasses.replace(
        state,
        identity=np.zeros_like(state.identity),
        albedo=np.zeros_like(state.albedo),
        rotation=rotation_from_euler_deg(10, 1, 2).double().numpy(),
    )


def shape_error(model, found, truth):
    return float((model.vertices(found.tensor("identity")) - model.vertices(truth.tensor("identity"))).norm())


def test_refinement_comes_closer_to_the_truth(toy_model, toy_landmarks):
    """Half of the difference in shape is along what one picture shows badly, so that several heads are counted."""
    shape, turn = [], []
    for seed in range(4):
        state, steps = toy_state(toy_model, seed), []
        start, target = wrong_start(state), target_showing(toy_model, toy_landmarks, state)
        outcome = photometric.refine(refinement(toy_model, [target]), [start], steps.append)
        (found,) = outcome.states
        shape.append([shape_error(toy_model, one, state) for one in (start, found)])
        turn.append([degrees_between(one.rotation, state.rotation) for one in (start, found)])
        assert outcome.after < outcome.before and outcome.after == pytest.approx(sum(outcome.terms.values()), rel=1e-9)
        assert 1 < len(outcome.history) <= TOY.iterations + 1
        assert steps == sorted(steps) and steps[-1] == 1
        assert np.linalg.det(found.rotation) == pytest.approx(1) and not start.identity.any()
    before, after = np.sum(shape, axis=0)
    assert after < 0.8 * before
    before, after = np.sum(turn, axis=0)
    assert after < 0.75 * before


def test_a_stage_that_starts_at_the_best_stays_there(toy_model, toy_scene):
    """What a stage reports as its best is not improved by running it once more."""
    state, target = toy_scene
    settings = dataclasses.replace(TOY, iterations=30, tolerance=1e-6)
    problem = refinement(toy_model, [target])
    problem.settings = settings
    first = photometric.refine(problem, [state])
    again = photometric.refine(problem, first.states)
    assert again.after <= first.after and again.before == pytest.approx(first.after, rel=1e-9)
    assert first.after - again.after < 0.1 * (first.before - first.after)


def test_equations_are_the_derivatives_of_all_terms_but_the_picture(toy_model, toy_scene):
    """The picture's own are tested in test_surface.py; here nothing is compared, because all of it is hidden."""
    state, target = toy_scene
    target = dataclasses.replace(target, inside=np.zeros((128, 128), bool))
    states = [wrong_start(state), dataclasses.replace(wrong_start(state), expression=state.expression + 0.1)]
    states = [dataclasses.replace(s, identity=0.3 + s.identity, albedo=s.albedo - 0.2) for s in states]
    problem = refinement(toy_model, [target, target])
    residuals = problem.evaluate(states)
    assert not any(residuals.weight.any() for residuals in residuals)
    hessian, gradient = problem.normal_equations(states, residuals)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-9 * np.abs(hessian).max())
    for direction in np.random.default_rng(0).normal(size=(8, len(gradient))):
        direction *= 1e-5 / np.linalg.norm(direction)
        ends = []
        for sign in (1, -1):
            moved = [shifted(problem, s, sign * direction[problem.unknowns_of(k)]) for k, s in enumerate(states)]
            ends.append(sum(problem.terms(moved, residuals).values()))
        assert (ends[0] - ends[1]) / 2 == pytest.approx(gradient @ direction, rel=1e-3, abs=1e-6)


def shifted(problem, state, change):
    """One photograph's state after a change in the order of `BlockSizes`."""
    pose, identity, expression, albedo, light = problem.sizes.blocks
    return state.updated(
        change[pose],
        identity=change[identity],
        expression=change[expression],
        albedo=change[albedo],
        light=change[light].reshape(9, 3),
    )


def light_prior(light):
    """Oracle: squared distance of light (9, 3) from grey, and size of its directional part, relative to its level."""
    light = light / (light[0].mean() / photometric.REFERENCE_AMBIENT)
    grey = light.mean(-1, keepdims=True)
    return 4 * ((light - grey) ** 2).sum() + 0.25 * (grey[1:] ** 2).sum()


@pytest.mark.parametrize("seed", range(3))
def test_light_prior_residuals_are_squared_chroma_and_direction_relative_to_the_level(seed):
    light = np.random.default_rng(seed).normal(size=(9, 3))
    light[0] += 3
    residual, _ = photometric.light_prior_residuals(light)
    assert (residual[:-1] ** 2).sum() == pytest.approx(light_prior(light))
    brighter, _ = photometric.light_prior_residuals(2 * light)
    np.testing.assert_allclose(brighter[:-1], residual[:-1])
    assert brighter[-1] - residual[-1] == pytest.approx(photometric.EXPOSURE_WEIGHT * np.log(2))


def test_light_prior_prefers_white_and_even_light():
    even = np.zeros((9, 3))
    even[0] = 3.0
    tinted, directed = even.copy(), even.copy()
    tinted[0, 0] += 0.5
    directed[3] += 0.5
    cost = [(photometric.light_prior_residuals(light)[0][:-1] ** 2).sum() for light in (even, tinted, directed)]
    assert cost[0] == pytest.approx(0, abs=1e-20) and min(cost[1:]) > 1e-3


@pytest.mark.parametrize("even", [3.0, 0.3, 0.1, -1.0])
def test_light_prior_residuals_have_the_jacobian_that_they_claim(even):
    """In the dark too, where the level is held constant."""
    light = 0.2 * np.random.default_rng(0).normal(size=(9, 3))
    light[0] = even
    residual, jacobian = photometric.light_prior_residuals(light)
    assert residual.shape == (36,) and jacobian.shape == (36, 27) and np.isfinite(residual).all()
    steps = 1e-6 * np.eye(27).reshape(27, 9, 3)
    ahead, behind = ([photometric.light_prior_residuals(light + sign * s)[0] for s in steps] for sign in (1, -1))
    numeric = [(one - other) / 2e-6 for one, other in zip(ahead, behind, strict=True)]
    np.testing.assert_allclose(jacobian, np.transpose(numeric), atol=1e-6 * np.abs(jacobian).max())


def test_crop_is_consistent_with_the_cropped_camera():
    """A point keeps its place in the picture: what lies at (x, y) lies at ((x - x0) * s, (y - y0) * s) in the crop."""
    photo = np.zeros((200, 300, 3), np.uint8)
    photo[80:88, 120:128] = 255  # centre (124, 84)
    pixels, inside = photometric.crop_photo(photo, (100, 60, 160, 120), 120)
    rows, columns = np.nonzero(pixels[..., 0] > 128)
    assert rows.mean() + 0.5 == pytest.approx((84 - 60) * 2, abs=0.6)
    assert columns.mean() + 0.5 == pytest.approx((124 - 100) * 2, abs=0.6)
    assert inside.all()
    _, inside = photometric.crop_photo(photo, (-30, 60, 30, 120), 120)
    assert not inside[:, :58].any() and inside[:, 62:].all()


# -- whole fits -------------------------------------------------------------------------------------------------------
def test_overlay_sits_on_the_face(astronaut_fit):
    result, _ = astronaut_fit
    eyes = np.linalg.norm(result.landmarks_px[33] - result.landmarks_px[263])
    error = np.linalg.norm(result.landmarks_px - result.projected_landmarks_px, axis=1).mean()
    assert error < 0.035 * eyes  # the points themselves err by as much


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
    names = [stage.name for stage in result.stages]
    assert names[:3] == ["detection", "segmentation", "landmarks"] and names[-1] == "texture"
    assert all(s.after <= s.before for s in result.stages if s.name == "landmarks")
    assert result.seconds > 0 and result.camera.image_size == (512, 512)
    assert {s.name for s in result.stages} | {stage for stage, *_ in progress} <= set(fv.FIT_STAGES)
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
    assert again.params.detail.keys() == astronaut_fit[0].params.detail.keys()
    for name, latents in again.params.detail.items():
        np.testing.assert_array_equal(latents, astronaut_fit[0].params.detail[name], err_msg=name)
    np.testing.assert_array_equal(again.texture, astronaut_fit[0].texture)


def test_heads_of_the_model_are_found_again(model):
    from benchmarks.bm_fit import draw_head, shape_error_mm

    better, turned = [], []
    for number in range(4):
        truth = draw_head(model, number)
        result = fv.fit(truth["picture"], model, detail=False, focal_px=truth["focal_px"])
        mean = shape_error_mm(model.mean_vertices, truth["neutral"], model.regions["face"])
        better.append(shape_error_mm(result.neutral_vertices, truth["neutral"], model.regions["face"]) / mean)
        turned.append(degrees_between(result.params.rotation, truth["rotation"]))
    assert np.median(better) < 0.85
    assert np.median(turned) < 3


def test_large_photographs_give_results_in_their_own_pixels(astronaut_fit, astronaut, model):
    from PIL import Image

    large = np.asarray(Image.fromarray(astronaut).resize((4608, 4608)))  # above the 4096 px that the fit works on
    result = fv.fit(large, model, detail=False)
    assert result.camera.image_size == (4608, 4608)
    distance = np.linalg.norm(result.landmarks_px / 9 - astronaut_fit[0].landmarks_px, axis=1)
    eyes = np.linalg.norm(astronaut_fit[0].landmarks_px[33] - astronaut_fit[0].landmarks_px[263])
    assert distance.mean() < 0.03 * eyes
    # The points of an enlarged picture are not quite the same, and they say little about the lens.
    assert result.camera.focal_px == pytest.approx(9 * astronaut_fit[0].camera.focal_px, rel=0.15)
    assert result.texture.shape == (1024, 1024, 3)


def test_a_given_focal_length_is_kept_and_an_unknown_one_stays_plausible(astronaut_fit, astronaut, model):
    given = fv.fit(astronaut, model, detail=False, focal_px=700.0)
    assert given.camera.focal_px == 700
    guess = default_camera(astronaut.shape[:2]).focal_px
    assert 0.5 < astronaut_fit[0].camera.focal_px / guess < 2


def test_no_face_is_said(model):
    with pytest.raises(fv.NoFaceError, match="no face was found"):
        fv.fit(coffee(), model, detail=False)


def test_missing_second_face_is_said(model, astronaut):
    with pytest.raises(fv.NoFaceError, match="1 face was found, so face=5 does not exist"):
        fv.fit(astronaut, model, face=5, detail=False)


@pytest.mark.parametrize(
    "arguments",
    [
        *({"face": value} for value in (-1, True, 0.5)),
        *({"seed": value} for value in ("a", True, -1, 2**24)),
        *({"focal_px": value} for value in (0, float("nan"))),
    ],
)
def test_wrong_arguments_are_refused(arguments, model):
    """Before any work: the photograph does not even exist."""
    with pytest.raises(fv.ParameterError, match=next(iter(arguments))):
        fv.fit("there-is-no-such.jpg", model, **arguments)


@pytest.mark.parametrize("name", ["obama", "obama2", "biden", "obama_partial_face", "two_people"])
def test_photographs_of_people(name, shared, model):
    result = fv.fit(shared / "faces" / f"{name}.jpg", model, detail=False)
    eyes = np.linalg.norm(result.landmarks_px[33] - result.landmarks_px[263])
    error = np.linalg.norm(result.landmarks_px - result.projected_landmarks_px, axis=1).mean()
    assert error < 0.035 * eyes  # the points themselves err by as much
    assert np.abs(result.params.identity).max() < 4
    if name == "obama_partial_face":
        assert any("outside the picture" in warning for warning in result.warnings)


def test_second_face_is_another_person(shared, model):
    first, second = (fv.fit(shared / "faces/two_people.jpg", model, face=i, detail=False) for i in (0, 1))
    assert np.abs(first.landmarks_px.mean(0) - second.landmarks_px.mean(0)).max() > 50
