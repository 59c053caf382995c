"""The linear model: one formula, its subsets, its coarse mesh; and the toy head that other tests rely on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from faceverse.errors import ParameterError
from faceverse.graphics.mesh import vertex_normals
from faceverse.model.data import closest_barycentric, modes_at
from faceverse.model.face_model import ARKIT_NAMES, TENSORS, FaceModel, FaceParams, evaluate
from toy import POINTS_68, REGIONS, toy_file, toy_model

MODES = ("identity_modes", "expression_modes", "albedo_modes")


def coefficients(model, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    identity = torch.randn(count, len(model.identity_modes), generator=generator)
    expression = torch.rand(count, len(model.expression_modes), generator=generator)
    return identity, expression


def surface_points(model, landmarks, vertices):
    return (vertices[model.faces[landmarks.triangle]] * landmarks.barycentric[..., None]).sum(1)


# -- modes that are made when they are asked for -----------------------------------------------------------------------
def test_parts_of_the_modes_do_not_make_all_of_them(monkeypatch):
    made, tensor = [], FaceModel.tensor
    monkeypatch.setattr(FaceModel, "tensor", lambda self, name: made.append((self, name)) or tensor(self, name))
    model = FaceModel(toy_model().data)
    model.landmark_bases(model.landmarks_68), model.coarse.mean_vertices, model.neutral(), model.random(1)
    model.expression_limits, model.gain_of(np.zeros(len(model.data.identity_modes)))
    assert made and not any(one is model and name in MODES for one, name in made)
    for name in MODES:
        assert model.tensor(name) is model.tensor(name)


@pytest.mark.parametrize("name", MODES)
def test_modes_of_some_vertices_are_those_of_all(name):
    model, some = FaceModel(toy_model().data), np.array([7, 0, 50, 7])
    before = model.modes_at(name, some)
    whole = getattr(model, name)
    for found in (before, model.modes_at(name, some), modes_at(whole, some)):
        np.testing.assert_array_equal(found, whole[:, some])
        assert found.dtype in (torch.float32, np.float32)


def test_modes_are_made_with_the_type_that_the_model_has_by_then():
    early, late = (FaceModel(toy_model().data) for _ in range(2))
    assert early.tensor("identity_modes").dtype == torch.float32
    for model in (early, late):
        assert model.double().tensor("identity_modes").dtype == torch.float64
    torch.testing.assert_close(early.tensor("identity_modes"), late.tensor("identity_modes"))
    assert late.modes_at("albedo_modes", np.arange(3)).dtype == torch.float64


def test_an_unknown_name_is_no_attribute_of_a_model():
    model = toy_model()
    with pytest.raises(ParameterError, match="no array 'texture_modes'"):
        model.tensor("texture_modes")
    assert not hasattr(model, "texture_modes")


# -- the formula ------------------------------------------------------------------------------------------------------
def test_vertices_are_mean_plus_modes_times_coefficients():
    model = toy_model()
    identity, expression = coefficients(model)
    expected = (
        model.mean_vertices
        + np.einsum("ni,ivc->nvc", identity.numpy(), model.identity_modes)
        + np.einsum("ne,evc->nvc", expression.numpy(), model.expression_modes)
    )
    np.testing.assert_allclose(model.vertices(identity, expression).numpy(), expected, atol=1e-6)
    neutral = model.mean_vertices + np.einsum("ni,ivc->nvc", identity.numpy(), model.identity_modes)
    np.testing.assert_allclose(model.vertices(identity).numpy(), neutral, atol=1e-6)


def test_albedo_is_mean_plus_modes_times_coefficients():
    model = toy_model()
    weights = torch.tensor([[0.0] * 5, [1.0, -2.0, 0.5, 0.0, 3.0]])
    expected = model.mean_albedo + np.einsum("na,avc->nvc", weights.numpy(), model.albedo_modes)
    np.testing.assert_allclose(model.albedo(weights).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("which", ["landmarks_478", "landmarks_68"])
def test_landmarks_are_the_same_formula_on_a_subset(which):
    model = toy_model()
    landmarks = getattr(model, which)
    bases = model.landmark_bases(landmarks)
    identity, expression = coefficients(model)
    for mix in (expression, None):
        full = model.vertices(identity, mix).numpy()
        expected = np.stack([surface_points(model, landmarks, v) for v in full])
        np.testing.assert_allclose(bases.points(identity, mix).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 7), (8,), (1, 9), (2, 1, 8)])
def test_coefficients_of_a_wrong_shape_are_refused(shape):
    with pytest.raises(ParameterError, match=r"expected coefficients of shape \(N, 8\), got"):
        toy_model().vertices(torch.zeros(shape))


def test_modes_of_a_wrong_shape_are_refused():
    data = toy_model().data
    with pytest.raises(ParameterError, match=r"identity_modes must have shape \(K, 673, 3\), got \(8, 672, 3\)"):
        FaceModel(replace(data, identity_modes=data.identity_modes[:, 1:]))


def test_the_formula_has_the_right_gradient():
    generator = torch.Generator().manual_seed(0)
    mean, modes, weights = (
        torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((4, 3), (2, 4, 3), (3, 2))
    )
    assert torch.autograd.gradcheck(lambda m, b, c: evaluate(m, (b, c)), (mean, modes, weights))


# -- what the model holds ---------------------------------------------------------------------------------------------
def test_nothing_on_the_model_can_be_optimised():
    model = toy_model()
    model.coarse  # noqa: B018  must not register itself as a submodule
    assert list(model.parameters()) == [] and list(model.children()) == []
    present = [name for name in TENSORS if getattr(model.data, name) is not None]
    assert not any(model.tensor(name).requires_grad for name in present)
    assert np.shares_memory(model.identity_modes, model.tensor("identity_modes").numpy())


def test_neutral_is_the_mean_head():
    model = toy_model()
    params = model.neutral()
    vertices = model.vertices(torch.from_numpy(params.identity)[None], torch.from_numpy(params.expression)[None])
    np.testing.assert_array_equal(vertices[0].numpy(), model.mean_vertices)
    np.testing.assert_array_equal(params.rotation, np.eye(3))
    assert params.light.shape == (9, 3) and params.translation[2] < -0.3


def test_the_same_seed_draws_the_same_person():
    model = toy_model()
    first, again, other = model.random(4), model.random(4), model.random(5)
    np.testing.assert_array_equal(first.identity, again.identity)
    np.testing.assert_array_equal(first.albedo, again.albedo)
    assert np.abs(first.identity - other.identity).max() > 0.1
    np.testing.assert_allclose(model.random(4, scale=0.5).identity, first.identity * 0.5)
    assert first.identity.dtype == first.albedo.dtype == np.float32
    assert not first.expression.any()


def test_random_people_have_unit_variance():
    drawn = np.concatenate([toy_model().random(seed).identity for seed in range(300)])
    assert abs(drawn.mean()) < 0.1 and drawn.std() == pytest.approx(1, abs=0.05)


def test_people_drawn_from_a_population_look_like_it():
    population = np.random.default_rng(1).normal(size=(400, 13)).astype(np.float32)
    population[:, 8:] = np.abs(population[:, 8:]) + np.linspace(0, 3, 400)[:, None]
    model = FaceModel(replace(toy_model().data, population=population))
    drawn = [model.random(seed) for seed in range(400)]
    np.testing.assert_array_equal(drawn[3].identity, model.random(3).identity)
    albedo = np.stack([p.albedo for p in drawn])
    assert (albedo >= population[:, 8:].min(0)).all() and (albedo <= population[:, 8:].max(0)).all()
    identity = np.stack([p.identity for p in drawn])
    assert identity.std() == pytest.approx(1, abs=0.1) and identity.dtype == albedo.dtype == np.float32


def test_skins_are_mixed_with_skins_of_their_own_tone():
    """Any two skins mixed are closer to the middle than people are; the same people, otherwise."""
    rng = np.random.default_rng(2)
    model = toy_model()
    population = rng.normal(size=(200, 13)).astype(np.float32)
    model = FaceModel(replace(model.data, population=population))

    def tones(coefficients):
        face = model.albedo(torch.from_numpy(np.stack(coefficients)))[:, model.regions["face"]]
        return face.mean(1).numpy() @ np.array([0.2126, 0.7152, 0.0722])

    known = tones(population[:, 8:])
    drawn, mixed = ([model.random(seed, similar_tone=similar) for seed in range(1000)] for similar in (True, False))
    for first, second in zip(drawn[:20], mixed[:20], strict=True):
        np.testing.assert_array_equal(first.identity, second.identity)
    spread = [tones([person.albedo for person in people]).std() / known.std() for people in (drawn, mixed)]
    assert spread[0] == pytest.approx(1, abs=0.06) and spread[1] < 0.93
    dark = [(tones([p.albedo for p in people]) < np.quantile(known, 0.05)).mean() for people in (drawn, mixed)]
    assert dark[0] > 0.03 > dark[1]
    with pytest.warns(DeprecationWarning, match="similar_tone"):
        np.testing.assert_array_equal(model.random(0, alike=False).albedo, mixed[0].albedo)


def test_replace_leaves_the_original_alone():
    params = toy_model().neutral()
    changed = params.replace(identity=np.ones(8, np.float32))
    assert isinstance(changed, FaceParams) and not params.identity.any() and changed.identity.all()
    with pytest.raises(AttributeError):
        params.identity = changed.identity


def test_a_step_along_an_attribute_changes_its_estimate_by_one_unit():
    model = toy_model()
    params = model.random(0)
    before = model.attributes(params)
    assert set(before) == set(model.attribute_names) == {"age", "gender"}
    age = model.data.attributes[0]
    step = 10 * age.step
    after = model.attributes(
        params.replace(identity=params.identity + step[:8], albedo=params.albedo + step[8:])
    )
    assert after["age"] - before["age"] == pytest.approx(10, abs=1e-3)
    assert after["gender"] == pytest.approx(before["gender"], abs=1e-3)
    assert model.attributes(model.neutral()) == pytest.approx({"age": 40, "gender": 0.5})


# -- the coarse mesh ------------------------------------------------------------------------------------------------
def test_light_vertices_are_the_first_of_the_full_model():
    model = toy_model()
    light = model.coarse
    identity, expression = coefficients(model)
    full, coarse = model.vertices(identity, expression), light.vertices(identity, expression)
    assert coarse.shape[1] == len(model.data.coarse_vertices) < full.shape[1]
    torch.testing.assert_close(coarse, full[:, : coarse.shape[1]])
    albedo = torch.ones(1, 5)
    torch.testing.assert_close(light.albedo(albedo), model.albedo(albedo)[:, : coarse.shape[1]])
    assert light.faces.max() < coarse.shape[1]
    assert light.coarse is light and model.coarse is light
    for name, index in light.regions.items():
        assert set(index) <= set(model.regions[name])


def test_light_landmarks_stay_close_to_the_full_ones():
    model = toy_model()
    light = model.coarse
    identity, expression = coefficients(model, 1)
    for which in ("landmarks_478", "landmarks_68"):
        full = surface_points(model, getattr(model, which), model.vertices(identity, expression)[0].numpy())
        coarse = surface_points(light, getattr(light, which), light.vertices(identity, expression)[0].numpy())
        distance_mm = np.linalg.norm(full - coarse, axis=1) * 1000
        # The toy's quads are 2 to 4 cm wide, so its chords cut deep; the landmarks themselves may slide very little.
        assert distance_mm.mean() < 2 and distance_mm.max() < 8


def test_light_landmarks_are_the_closest_points_of_the_coarse_mesh():
    model = toy_model()
    light = model.coarse
    wanted = surface_points(model, model.landmarks_478, model.mean_vertices)
    found = surface_points(light, light.landmarks_478, light.mean_vertices)
    corners = light.mean_vertices[light.faces]
    for point, given in zip(wanted[::7], found[::7], strict=True):
        weights = closest_barycentric(np.tile(point, (len(corners), 1)), corners)
        least = np.linalg.norm((corners * weights[..., None]).sum(1) - point, axis=1).min()
        assert np.linalg.norm(given - point) < least + 1e-6


def test_a_model_without_a_coarse_mesh_is_its_own_light_version():
    model = FaceModel(replace(toy_model().data, coarse_vertices=None, coarse_faces=None, coarse_uv_faces=None))
    assert model.coarse is model


def test_barycentric_coordinates_rebuild_points_of_the_triangle_and_stay_inside_it():
    generator = np.random.default_rng(0)
    corners = generator.normal(size=(200, 3, 3))
    weights = generator.dirichlet(np.ones(3), size=200)
    points = (corners * weights[..., None]).sum(1)
    np.testing.assert_allclose(closest_barycentric(points, corners), weights, atol=1e-6)
    outside = closest_barycentric(points + generator.normal(size=(200, 3)) * 3, corners)
    assert outside.min() >= 0
    np.testing.assert_allclose(outside.sum(1), 1)


# -- the toy head -----------------------------------------------------------------------------------------------------
def test_the_toy_is_a_head_in_our_axes():
    model = toy_model()
    assert np.ptp(model.mean_vertices, axis=0)[1] == pytest.approx(0.23, abs=1e-5)
    assert model.expression_names == ARKIT_NAMES and len(set(ARKIT_NAMES)) == 52
    assert set(model.regions) == set(REGIONS) and all(map(len, model.regions.values()))
    points = surface_points(model, model.landmarks_478, model.mean_vertices)
    right_eye, left_eye, chin, forehead = points[[33, 263, 152, 66]]
    assert right_eye[0] < -0.02 and left_eye[0] > 0.02 and chin[1] < right_eye[1] < forehead[1]
    assert points[:, 2].min() > 0
    np.testing.assert_array_equal(model.landmarks_68.triangle, model.landmarks_478.triangle[POINTS_68])
    assert 1e-3 < np.abs(model.expression_modes).max((1, 2)).min()


def test_the_toys_triangles_face_outward():
    model = toy_model()
    normals = vertex_normals(torch.from_numpy(model.mean_vertices.copy()), torch.from_numpy(model.faces.copy())).numpy()
    face = model.regions["face"]
    assert np.median(normals[face, 2]) > 0.5
    for name in ("eyeballs", "teeth", "tongue"):
        index = model.regions[name]
        index = index[model.mean_vertices[index, 0] > 0] if name == "eyeballs" else index
        centred = model.mean_vertices[index] - model.mean_vertices[index].mean(0)
        assert ((centred * normals[index]).sum(1) > 0).all()


def test_the_toys_uv_covers_no_place_twice():
    model = toy_model()
    a, b, c = (model.uv[model.uv_faces[:, k]].astype(float) for k in range(3))
    points = np.random.default_rng(0).random((3000, 1, 2))

    def side(p, q):
        return (q - p)[..., 0] * (points - p)[..., 1] - (q - p)[..., 1] * (points - p)[..., 0]

    sides = np.stack([side(a, b), side(b, c), side(c, a)])
    covered = ((sides < -1e-9).all(0) | (sides > 1e-9).all(0)).sum(1)
    assert covered.max() == 1 and covered.mean() > 0.6
    assert model.uv.min() >= 0 and model.uv.max() <= 1
    assert len(model.uv) > len(model.mean_vertices) and len(toy_file().uv) > len(toy_file().mean_vertices)


def test_random_people_have_irises_of_human_colours_and_dark_skin_has_dark_ones(toy_model):
    people = [toy_model.random(seed) for seed in range(60)]
    irises = np.stack([person.iris for person in people])
    assert irises.dtype == np.float32 and irises.shape == (60, 3)
    assert 0 < irises.min() and irises.max() < 0.25
    np.testing.assert_array_equal(people[3].iris, toy_model.random(3).iris)
    dark = FaceModel(replace(toy_model.data, mean_albedo=np.full_like(toy_model.mean_albedo, 0.05)))
    browns = np.stack([dark.random(seed, scale=0.0).iris for seed in range(60)])
    assert (browns[:, 0] > browns[:, 2]).all() and len(np.unique(browns[:, 0])) > 10
    light = FaceModel(replace(toy_model.data, mean_albedo=np.full_like(toy_model.mean_albedo, 0.7)))
    blue = np.stack([light.random(seed, scale=0.0).iris for seed in range(60)])
    assert 3 < (blue[:, 2] > blue[:, 0]).sum() < 30
