"""The skin against a photograph: derivatives against differences, weights, self-occlusion, and cost of outliers."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from faceverse.fitting import losses
from faceverse.fitting import surface as module
from faceverse.fitting.state import FaceState, apply_rotation_update
from faceverse.fitting.surface import SIGMA_LIMITS, PhotometricTerm, surface_samples, vertex_weights
from faceverse.graphics.camera import Camera, project, rotation_from_euler_deg
from faceverse.graphics.lighting import default_light, srgb_from_linear
from faceverse.model.face_model import FaceModel
from faceverse.rendering.render import render_head

SIZE = 160
CAMERA = Camera(400.0, (80.0, 80.0), (SIZE, SIZE))
EVERYWHERE = np.ones((SIZE, SIZE), bool)
BLOCKS = ("turn", "shift", "identity", "expression", "albedo", "light")
# Half a pixel, or what changes a colour by some shades: float32 inside allows no less.
STEPS = {"turn": 3e-3, "shift": 1e-3, "identity": 0.05, "expression": 0.05, "albedo": 0.05, "light": 0.02}


def state_of(model, seed=2, yaw_deg=8.0):
    """A random head before the camera, with a little of every expression."""
    rng = np.random.default_rng(seed)
    return FaceState(
        identity=0.5 * rng.standard_normal(len(model.tensor("identity_modes"))),
        expression=rng.uniform(0, 0.2, len(model.tensor("expression_modes"))),
        albedo=0.5 * rng.standard_normal(len(model.tensor("albedo_modes"))),
        rotation=rotation_from_euler_deg(yaw_deg, 3, 2).double().numpy(),
        translation=np.array([0.0, 0.0, -0.6]),
        light=default_light().double().numpy(),
    )


def drawn(model, state):
    """The state as a picture (S, S, 3) before black."""
    shaded = render_head(
        model.vertices(state.tensor("identity"), state.tensor("expression")),
        model.albedo(state.tensor("albedo")).clamp_min(module.MIN_ALBEDO),
        model.tensor("faces"), state.tensor("rotation"), state.tensor("translation"), state.tensor("light"), CAMERA,
    )  # fmt: skip
    return srgb_from_linear(shaded.rgb[0]).numpy()


def smooth_picture():
    """Slow waves (S, S, 3): so smooth that what lies between pixels, and how it changes, is known almost exactly."""
    y, x = np.indices((SIZE, SIZE)) / SIZE * 2 * np.pi
    waves = [np.sin(x + 0.5 * y), np.cos(1.2 * y - 0.3), np.sin(0.8 * x - y + 1)]
    return (0.5 + 0.15 * np.stack(waves, -1)).astype(np.float32)


def comparison(model, picture, inside=EVERYWHERE, effective_samples=1000.0):
    return PhotometricTerm(surface_samples(model), picture, inside, CAMERA, effective_samples)


def moved_by(state, delta, sizes):
    """The state after a change (T,) in the order of `BlockSizes`."""
    pose, identity, expression, albedo, light = sizes.blocks
    return FaceState(
        identity=state.identity + delta[identity],
        expression=state.expression + delta[expression],
        albedo=state.albedo + delta[albedo],
        rotation=apply_rotation_update(state.rotation, delta[pose][:3]),
        translation=state.translation + delta[pose][3:],
        light=state.light + delta[light].reshape(9, 3),
    )


def places_of(sizes):
    """The unknowns of each block, by name."""
    pose, *others = (np.arange(sizes.total)[block] for block in sizes.blocks)
    return dict(zip(BLOCKS, (pose[:3], pose[3:], *others), strict=True))


@pytest.fixture(scope="module")
def growing(toy_model):
    """The toy with expressions whose size depends on the head."""
    shape = len(toy_model.data.expression_modes), len(toy_model.data.identity_modes)
    gain = np.random.default_rng(5).normal(0, 0.1, shape)
    return FaceModel(replace(toy_model.data, expression_gain=gain.astype(np.float32)))


@pytest.fixture(scope="module")
def scene(toy_model):
    """A state, the picture that shows it, and their comparison."""
    state = state_of(toy_model)
    picture = drawn(toy_model, state)
    return state, picture, comparison(toy_model, picture)


# -- derivatives ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "block"),
    # How an expression's size changes with the identity is left out on purpose.
    [("plain", block) for block in BLOCKS] + [("growing", "turn"), ("growing", "expression")],
)
def test_jacobian_is_the_derivative(toy_model, growing, kind, block):
    model = toy_model if kind == "plain" else growing
    state, compared = state_of(model), comparison(model, smooth_picture())
    sizes, residuals = compared.surface.sizes, compared.evaluate(state)
    # Well within the outline: at the border samples come and go, and normals are those of slivers.
    facing = -(residuals.normals * residuals.points).sum(1) / np.linalg.norm(residuals.points, axis=1)
    rows = np.flatnonzero((residuals.weight > 0) & (facing > 0.4))
    assert len(rows) > 100
    jacobian = compared.jacobian(state, residuals, np.ones(len(residuals.weight), np.float32), rows)
    for column in places_of(sizes)[block][:12]:
        step = np.zeros(sizes.total)
        step[column] = STEPS[block]
        ahead, behind = (compared.evaluate(moved_by(state, sign * step, sizes)).difference[rows] for sign in (1, -1))
        numeric = ((ahead - behind) / (2 * STEPS[block])).T.reshape(-1)
        if np.abs(numeric).max() < 1e-4:  # a mode of what is not seen
            assert np.abs(jacobian[:, column]).max() < 1e-4
            continue
        error = np.linalg.norm(jacobian[:, column] - numeric) / np.linalg.norm(numeric)
        assert error < 0.03, f"column {column}"


@pytest.mark.parametrize("block", BLOCKS)
def test_gradient_is_that_of_the_loss_with_these_weights(toy_model, block):
    state, compared = state_of(toy_model), comparison(toy_model, smooth_picture())
    compared.sigma = 0.2  # so that residuals lie on the bend of the saturating loss
    residuals, sizes = compared.evaluate(state), compared.surface.sizes
    _, gradient = compared.normal_equations(state, residuals)
    places = places_of(sizes)[block]
    numeric = []
    for column in places:
        step = np.zeros(sizes.total)
        step[column] = STEPS[block]
        around = [compared.evaluate(moved_by(state, sign * step, sizes)) for sign in (1, -1)]
        ahead, behind = (compared.loss(replace(one, weight=residuals.weight)) for one in around)
        numeric.append((ahead - behind) / (2 * STEPS[block]))
    assert np.linalg.norm(gradient[places] - numeric) < 0.03 * np.linalg.norm(numeric)


def test_hessian_is_symmetric_and_never_negative(scene):
    state, _, compared = scene
    hessian, _ = compared.normal_equations(state, compared.evaluate(state))
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-5 * np.abs(hessian).max())
    assert np.linalg.eigvalsh(hessian).min() > -1e-4 * np.abs(hessian).max()


# -- what is compared -------------------------------------------------------------------------------------------------
def test_a_rendering_of_the_state_leaves_nothing(scene):
    state, _, compared = scene
    residuals = compared.evaluate(state)
    used = residuals.weight > 0
    difference = np.abs(residuals.difference[used]).max(1)
    assert used.sum() > 150 and np.median(difference) < 0.01 and np.quantile(difference, 0.9) < 0.04
    compared.update_noise_level(residuals)
    assert compared.sigma < 1.5 * SIGMA_LIMITS[0]
    other = replace(state, light=1.3 * state.light)
    assert compared.loss(compared.evaluate(other)) > 20 * compared.loss(residuals)


def test_colours_are_read_where_the_camera_sees_the_samples(toy_model):
    """Of a picture that holds its own pixel coordinates, samples read their projections; see camera.py."""
    y, x = (np.indices((SIZE, SIZE)) + 0.5) / SIZE
    picture = np.stack([x, y, np.zeros_like(x)], -1).astype(np.float32)
    residuals = comparison(toy_model, picture).evaluate(state_of(toy_model))
    expected = project(torch.from_numpy(residuals.points), CAMERA)[:, :2].numpy() / SIZE
    seen = residuals.weight > 0
    np.testing.assert_allclose(residuals.observed[seen, :2], expected[seen], atol=1e-5)
    slopes = residuals.observed[seen, 3:].reshape(-1, 2, 3) * SIZE
    np.testing.assert_allclose(slopes, np.broadcast_to([[1, 0, 0], [0, 1, 0]], slopes.shape), atol=1e-4)
    np.testing.assert_allclose(residuals.scale, CAMERA.focal_px / -residuals.points[:, 2], rtol=1e-6)


def test_where_nothing_is_seen_nothing_pulls(scene):
    state, _, compared = scene
    gone = replace(state, translation=np.array([3.0, 0.0, -0.6]))
    residuals = compared.evaluate(gone)
    hessian, gradient = compared.normal_equations(gone, residuals)
    assert compared.loss(residuals) == 0 and not hessian.any() and not gradient.any()
    assert hessian.shape == (compared.surface.sizes.total,) * 2


def test_what_faces_away_has_no_weight(toy_model, scene):
    state, _, compared = scene
    residuals = compared.evaluate(state)
    cosine = -(residuals.normals * residuals.points).sum(1) / np.linalg.norm(residuals.points, axis=1)
    assert (cosine < 0).sum() > 50 and not residuals.weight[cosine < module.MIN_FACING].any()
    back = replace(state, rotation=apply_rotation_update(state.rotation, np.array([0, 0.5, 0])))
    face = np.isin(np.flatnonzero(vertex_weights(toy_model) > 0), toy_model.regions["face"])
    assert 0 < (compared.evaluate(back).weight[face] > 0).sum() < (residuals.weight[face] > 0).sum()


def test_what_lies_behind_the_nose_has_no_weight(toy_model):
    """Rays decide what the nose and the cheek of a turned head hide, although it faces the camera."""
    state = state_of(toy_model, yaw_deg=50.0)
    compared = comparison(toy_model, smooth_picture())
    residuals = compared.evaluate(state)
    one = {name: state.tensor(name) for name in ("identity", "expression", "rotation", "translation")}
    posed = toy_model.vertices(one["identity"], one["expression"])[0] @ one["rotation"][0].T + one["translation"][0]
    vertices = posed.double().numpy()[np.flatnonzero(vertex_weights(toy_model) > 0)]
    corners = posed.double().numpy()[toy_model.faces]
    hidden = np.array([is_hidden(point, corners) for point in vertices])
    cosine = -(residuals.normals * residuals.points).sum(1) / np.linalg.norm(residuals.points, axis=1)
    behind = hidden & (cosine > module.MIN_FACING)
    assert behind.sum() >= 5
    assert not residuals.weight[behind].any()
    right, up, back = residuals.points.T
    within = np.maximum(np.abs(right), np.abs(up)) * CAMERA.focal_px / -back < SIZE / 2 - 2
    clear = ~hidden & within & (cosine > 0.4)
    assert clear.sum() > 100 and (residuals.weight[clear] > 0).mean() > 0.97


def is_hidden(point, corners, least_m=0.008):
    """Whether a triangle (F, 3, 3) lies between the camera and a point, well before it (Moeller and Trumbore)."""
    origin, one, two = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    across = np.cross(point, two)
    size = (one * across).sum(1)
    size = np.where(np.abs(size) < 1e-15, np.inf, size)
    u = -(origin * across).sum(1) / size
    along = np.cross(-origin, one)
    v, distance = along @ point / size, (two * along).sum(1) / size
    hit = (u > 0) & (v > 0) & (u + v < 1) & (distance > 0) & (distance < 1 - least_m / np.linalg.norm(point))
    return bool(hit.any())


def test_beyond_the_picture_there_is_no_weight(toy_model, scene):
    state, picture, compared = scene
    x = 80 + compared.evaluate(state).scale * compared.evaluate(state).points[:, 0]
    inside = EVERYWHERE.copy()
    inside[:, :70] = False
    cut = comparison(toy_model, picture, inside).evaluate(state).weight
    assert not cut[x < 69].any() and (cut[x > 72] == compared.evaluate(state).weight[x > 72]).all()
    aside = replace(state, translation=state.translation + [0.07, 0, 0])
    residuals = compared.evaluate(aside)
    x = 80 + residuals.scale * residuals.points[:, 0]
    assert (x > SIZE).sum() > 20 and not residuals.weight[x > SIZE - 1].any() and residuals.weight.any()


# -- weights ----------------------------------------------------------------------------------------------------------
def test_regions_have_their_weights(toy_model):
    weights, regions = vertex_weights(toy_model), toy_model.regions
    for name, weight in module.REGION_WEIGHT.items():
        if name in regions:
            assert (weights[regions[name]] <= max(weight, 0) + 1e-6).mean() > 0.9, name
    assert (weights[regions["face"]] == 1).mean() > 0.9
    bare = FaceModel(replace(toy_model.data, regions={}, attributes=()))
    assert (vertex_weights(bare) == 1).all()


def test_the_forehead_fades_above_the_brows(toy_model):
    height = toy_model.mean_vertices[:, 1]
    brows = np.flatnonzero((np.abs(height - 0.03) < 0.006) & (toy_model.mean_vertices[:, 2] > 0.05))
    assert len(brows)
    model = FaceModel(replace(toy_model.data, regions=toy_model.regions | {"eyebrows": brows}))
    weights, plain = vertex_weights(model), vertex_weights(toy_model)
    above, skin = height - height[brows].max(), plain == 1
    np.testing.assert_array_equal(weights[above <= 0], plain[above <= 0])
    top = skin & (above > module.FOREHEAD_FADE_M)
    assert top.any()
    np.testing.assert_allclose(weights[top], module.FOREHEAD_WEIGHT)


def test_what_has_no_vote_is_not_sampled_and_others_count_by_it(toy_model, scene):
    state, _, compared = scene
    weights = vertex_weights(toy_model)
    assert len(compared.surface.weights) == (weights > 0).sum() < len(weights)
    np.testing.assert_array_equal(compared.surface.weights, weights[weights > 0])
    residuals = compared.evaluate(state)
    halved = replace(compared.surface, weights=compared.surface.weights / 2)
    again = PhotometricTerm(halved, smooth_picture(), EVERYWHERE, CAMERA, 1.0).evaluate(state)
    np.testing.assert_allclose(again.weight, residuals.weight / 2, rtol=1e-6)


# -- samples ----------------------------------------------------------------------------------------------------------
def test_samples_are_the_models_vertices(growing):
    """Places and normals of the samples are those of the whole mesh, the coarse mesh included."""
    state = state_of(growing)
    residuals = comparison(growing, smooth_picture()).evaluate(state)
    samples = np.flatnonzero(vertex_weights(growing) > 0)
    vertices = growing.vertices(state.tensor("identity"), state.tensor("expression"))[0].numpy()
    posed = vertices @ state.rotation.T + state.translation
    np.testing.assert_allclose(residuals.points, posed[samples], atol=1e-6)
    corners = posed[growing.faces]
    normals = np.zeros_like(posed)
    for k in range(3):
        np.add.at(normals, growing.faces[:, k], np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    normals = normals[samples] / np.linalg.norm(normals[samples], axis=1, keepdims=True)
    np.testing.assert_allclose(residuals.normals, normals, atol=1e-4)
    albedo = growing.albedo(state.tensor("albedo"))[0].numpy()[samples]
    np.testing.assert_allclose(residuals.albedo, albedo.clip(module.MIN_ALBEDO), atol=1e-6)


def test_fine_meshes_are_thinned(toy_model, monkeypatch):
    every = surface_samples(toy_model)
    monkeypatch.setattr(module, "MAX_SAMPLES", 100)
    some = module.sample_surface(toy_model)
    assert 50 < len(some.weights) <= 100 < len(every.weights)
    assert some.sizes == every.sizes and len(some.mean) < len(every.mean)
    state, picture = state_of(toy_model), smooth_picture()
    few, all_of_them = (PhotometricTerm(s, picture, EVERYWHERE, CAMERA, 80.0) for s in (some, every))
    loss = [one.loss(one.evaluate(state)) for one in (few, all_of_them)]
    assert loss[0] == pytest.approx(loss[1], rel=0.1)  # a mean, so that it does not grow with the samples


def test_the_surface_is_made_once_and_freed_with_its_model(toy_model, monkeypatch):
    made = []
    sample_surface = module.sample_surface
    monkeypatch.setattr(module, "sample_surface", lambda mesh: made.append(1) or sample_surface(mesh))
    model = FaceModel(toy_model.data)
    first, second = surface_samples(model), surface_samples(model)
    assert made == [1] and first.identity is second.identity and first.mesh is second.mesh is model
    gone = weakref.ref(model), weakref.ref(first.identity)
    del model, first, second
    gc.collect()
    assert [one() for one in gone] == [None, None]


# -- noise level of a picture ------------------------------------------------------------------------------------------
def test_deviation_grows_with_noise_within_its_limits(toy_model, scene):
    state, picture, _ = scene
    noise = np.random.default_rng(0).standard_normal(picture.shape).astype(np.float32)
    found = []
    for deviation in (0.0, 0.4, 0.65, 10.0):
        noisy = comparison(toy_model, picture + deviation * np.float32(SIGMA_LIMITS[1]) * noise)
        noisy.update_noise_level(noisy.evaluate(state))
        found.append(noisy.sigma)
        assert noisy.effective_count == pytest.approx(noisy.effective_samples * SIGMA_LIMITS[0] / noisy.sigma)
    assert found == sorted(found) and found[0] < found[1] < found[2]
    assert SIGMA_LIMITS[0] - 1e-6 < found[0] and found[-1] == pytest.approx(SIGMA_LIMITS[1])


def test_a_minority_does_not_change_the_deviation_and_nothing_seen_leaves_it(toy_model, scene):
    state, picture, compared = scene
    compared.update_noise_level(compared.evaluate(state))
    covered = picture.copy()
    covered[:62] = 1.0  # a hat
    with_hat = comparison(toy_model, covered)
    with_hat.update_noise_level(with_hat.evaluate(state))
    assert with_hat.sigma < 2.5 * compared.sigma
    before = with_hat.sigma
    with_hat.update_noise_level(with_hat.evaluate(replace(state, translation=np.array([3.0, 0.0, -0.6]))))
    assert with_hat.sigma == before


def test_an_occluding_patch_costs_a_bounded_amount_and_pulls_at_nothing(toy_model, scene):
    state, picture, clean = scene
    clean.sigma = 0.03
    x = 80 + clean.evaluate(state).scale * clean.evaluate(state).points[:, 0]
    weight = clean.evaluate(state).weight
    share = weight[x < 80].sum() / weight.sum()
    patched = []
    for grey in (1.0, 3.0):
        covered = picture.copy()
        covered[:, :80] = grey
        one = comparison(toy_model, covered)
        one.sigma = 0.03
        residuals = one.evaluate(state)
        patched.append(one.loss(residuals) - clean.loss(clean.evaluate(state)))
        assert patched[-1] <= 0.5 * one.effective_count * losses.ROBUST_SCALE**2 * share * 1.05
    assert 0 < patched[0] <= patched[1] < 1.2 * patched[0]
    hidden, seen = replace(residuals, weight=weight * (x < 78)), replace(residuals, weight=weight * (x > 82))
    pull = [np.abs(np.diag(one.normal_equations(state, each)[0])).sum() for each in (hidden, seen)]
    assert pull[0] < 0.01 * pull[1]


def robust_photometric(rendered, photo, weight, sigma):
    """Oracle: weighted mean of the Geman-McClure distance of colours (K, 3), in squares of sigma, in float64."""
    square = (((rendered.astype(float) - photo) / sigma) ** 2).sum(-1) / 3
    return (weight * square / (1 + square / losses.ROBUST_SCALE**2)).sum() / weight.sum()


def test_loss_is_half_the_robust_distance_of_colours_times_the_effective_count(scene):
    state, _, compared = scene
    compared.sigma = 0.03
    residuals = compared.evaluate(replace(state, light=1.2 * state.light))
    photo = residuals.observed[:, :3]
    predicted = photo + residuals.difference
    for weight in ((residuals.weight > 0).astype(np.float32), residuals.weight):
        expected = 0.5 * compared.effective_count * robust_photometric(predicted, photo, weight, compared.sigma)
        assert compared.loss(replace(residuals, weight=weight)) == pytest.approx(expected, rel=1e-4)
