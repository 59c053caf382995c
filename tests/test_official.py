"""The official files: numbers of the original code, what is refused, and the way to and from our conventions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from official_files import coefficients, expected, official

import faceverse as fv
from faceverse.fitting import fit_input
from faceverse.graphics.camera import project, transform
from faceverse.graphics.lighting import shading
from faceverse.graphics.mesh import vertex_normals
from faceverse.model.face_model import ARKIT_NAMES, FaceModel
from faceverse.official import (
    camera_of,
    coefficients_from_params,
    evaluate,
    model_data,
    npy_bytes,
    official_v2,
    params_from_coefficients,
    stored_coefficients,
)
from faceverse.official.conventions import (
    EYE_NAMES,
    KEYPOINT_OF_68,
    KEYPOINTS_66,
    display_colours,
    linear_colours,
)
from faceverse.weights import convert_model
from toy import toy_model

VERSIONS = range(5)
each_version = pytest.mark.parametrize("version", VERSIONS)
FOCAL, SIZE = 300.0, 96


def loaded(version, seed=0, **changes):
    return FaceModel(model_data({**official(version, seed), **changes}, "file"))


def relative(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def saved(path, values):
    path.write_bytes(npy_bytes(values))
    return path


# ------------------------------------------------------------------------------------------------------------- numbers
@each_version
@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_are_those_of_the_original_equations(version, seed):
    value = coefficients(version, seed)
    found = evaluate(loaded(version, seed), **value, focal_px=FOCAL, image_size=SIZE)
    wanted = expected(official(version, seed), version, value, FOCAL, SIZE)
    for name, numbers in wanted.items():
        assert found[name].shape == numbers.shape and found[name].dtype == np.float32
        assert relative(found[name], numbers) < 1e-5, name


def test_numbers_of_the_coarse_mesh():
    value, raw = coefficients(2), official(2)
    found = evaluate(loaded(2).coarse, **value, focal_px=FOCAL, image_size=SIZE)
    rows = (raw["select_id"][:, None] * 3 + np.arange(3)).reshape(-1)
    light = {key: raw[key][rows] for key in ("idBase", "exBase", "texBase")}
    light |= {key: raw[key][:, rows] for key in ("meanshape", "meantex")}
    light |= {key: raw[f"{key}_select"] for key in ("tri", "point_buf", "keypoints")}
    for name, numbers in expected(light, 2, value, FOCAL, SIZE).items():
        assert relative(found[name], numbers) < 1e-5, name


@pytest.mark.parametrize("version", [0, 1, 2])
def test_numbers_and_pictures_of_the_original_code(version, original_numbers):
    reference = np.load(original_numbers / f"faceverse_toy_v{version}_expected.npz")
    model = fv.load_model(original_numbers / f"faceverse_toy_v{version}.npy")
    names = ("identity", "expression", "texture", "angles", "gamma", "translation")
    value = {name: reference[f"in_{name}"] for name in names}
    size = int(reference["image_size"])
    found = evaluate(model, **value, focal_px=float(reference["focal_px"]), image_size=size)
    for name in ("rotation", "vertices", "normals", "vertices_camera", "albedo", "shaded", "landmarks_px"):
        assert relative(found[name], reference[name]) < 1e-5, name
    for name in ("image", "clay"):
        assert (found[name][..., 3] != reference[name][..., 3]).mean() < 0.005
        assert (np.abs(found[name] - reference[name]).max(-1) < 1).mean() > 0.995


def test_picture_shows_the_head_where_its_landmarks_are():
    raw, value = official(2), coefficients(2)
    value |= {"translation": np.array([0, 0, 5.5]), "angles": np.array([np.pi, 0, 0])}
    value |= {"identity": np.zeros(150), "expression": np.zeros(52)}
    found = evaluate(FaceModel(model_data(raw, "file")), **value, focal_px=FOCAL / 2, image_size=SIZE)
    inner = found["landmarks_px"][np.abs(found["landmarks_px"] - SIZE / 2).max(1) < 20].astype(int)
    assert len(inner) > 2 and found["image"][inner[:, 1], inner[:, 0], 3].all()
    assert not found["image"][0, 0].any() and set(np.unique(found["image"][..., 3])) == {0, 1}
    lit = found["clay"][found["clay"][..., 3] > 0][:, 0]
    assert lit.min() >= 20 - 1e-3 and lit.max() <= 210 + 1e-3 and np.ptp(lit) > 20


@pytest.mark.parametrize(
    ("name", "value"), [("gamma", np.zeros(26)), ("identity", np.full(150, np.nan)), ("eyes", None), ("focal_px", 0.0)]
)
def test_evaluate_refuses_other_arguments(name, value):
    given = coefficients(2) | {"focal_px": FOCAL, "image_size": SIZE, name: value}
    if value is None:
        assert evaluate(loaded(2), **given)["image"].shape == (SIZE, SIZE, 4)
        return
    with pytest.raises(fv.ParameterError, match=name):
        evaluate(loaded(2), **given)


# ------------------------------------------------------------------------------------------------- what a file becomes
@each_version
def test_version_is_recognised_and_conventions_become_ours(version):
    model = loaded(version)
    assert model.name == f"FaceVerse version {version}" and model.info["official"]["version"] == version
    height = np.ptp(model.mean_vertices[:, 1])
    assert 0.08 < height < 0.4, "metres"
    front = model.mean_vertices[:, 2].argmax()
    assert np.abs(model.mean_vertices[front, :2]).max() < 0.5 * height, "the face looks along +z"
    normals = vertex_normals(model.tensor("mean_vertices"), model.tensor("faces")).numpy()
    assert normals[front, 2] > 0.5, "counter-clockwise from outside"
    assert 0 < model.mean_albedo.min() and model.mean_albedo.max() < 1
    assert model.uv.min() >= 0 and model.uv.max() <= 1 and model.uv_faces.shape == model.faces.shape
    assert (model.uv_faces.max() < len(model.uv)) and model.data.named_expressions == (version in (2, 3))


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4])
def test_triangles_of_either_winding_are_turned_outwards(version):
    raw = official(version)
    turned = FaceModel(model_data({**raw, "tri": raw["tri"][:, ::-1]}, "file"))
    normals = [vertex_normals(m.tensor("mean_vertices"), m.tensor("faces")).numpy() for m in (loaded(version), turned)]
    np.testing.assert_allclose(*normals, atol=1e-5)
    value = coefficients(version)
    wanted = expected({**raw, "tri": raw["tri"][:, ::-1]}, version, value, FOCAL, SIZE)
    found = evaluate(turned, **value, focal_px=FOCAL, image_size=SIZE)
    assert relative(found["shaded"], wanted["shaded"]) < 1e-5


def test_triangles_of_a_whole_head_in_the_layout_of_a_mask_are_turned_outwards():
    model = toy_model()
    raw = {key: value for key, value in official_v2(model).items() if key != "faceverse"}
    for tri in (raw["tri"], raw["tri"][:, ::-1]):
        found = FaceModel(model_data(raw | {"tri": tri}, "file"))
        normals = vertex_normals(found.tensor("mean_vertices"), found.tensor("faces"))
        torch.testing.assert_close(normals, vertex_normals(model.tensor("mean_vertices"), model.tensor("faces")))


def test_files_may_differ_in_shape_but_not_in_order():
    raw = official(2)
    count = raw["meanshape"].size // 3
    other = {
        "meanshape": raw["meanshape"].reshape(count, 3),
        "keypoints": raw["keypoints"].reshape(66, 1),
        "idBase": raw["idBase"].reshape(count, 3, -1),
        "tri": raw["tri"].astype(np.float32),
    }
    np.testing.assert_array_equal(loaded(2, **other).identity_modes, loaded(2).identity_modes)
    with pytest.raises(fv.WeightsError, match=r"idBase must be .* shape \(507, any\), got shape \(150, 507\)"):
        loaded(2, idBase=raw["idBase"].T)


def test_landmarks_are_those_of_the_66_points():
    model = loaded(1)
    marks = model.landmarks_68
    vertices = model.faces[marks.triangle, marks.barycentric.argmax(1)]
    keypoints = official(1)["keypoints"].reshape(-1)
    np.testing.assert_array_equal(vertices[list(KEYPOINTS_66)], keypoints)
    np.testing.assert_array_equal(vertices, keypoints[list(KEYPOINT_OF_68)])
    assert vertices[48] == vertices[60] and vertices[54] == vertices[64], "corners of the mouth"
    assert model.landmarks_478 is None and model.fit_landmarks is marks and len(marks.detected) == 68
    assert len(loaded(3).landmarks_478.triangle) == 478


def test_eyeballs_turn_as_expressions():
    model, raw = loaded(3), official(3)
    assert model.expression_names[-4:] == EYE_NAMES
    np.testing.assert_allclose(model.expression_limits[-4:], [[-0.6, 0.6]] * 4)
    value = coefficients(3) | {"identity": np.zeros(150), "expression": np.zeros(52)}
    small = value | {"eyes": np.array([0.02, -0.03, 0.01, 0.02])}
    both = (value | {"eyes": np.zeros(4)}, small)
    exact = [evaluate(model, **given, focal_px=FOCAL, image_size=8)["vertices"] for given in both]
    moved_m = (exact[1] - exact[0]) * [1, -1, -1] * 0.1
    linear = np.tensordot(small["eyes"], model.expression_modes[-4:], axes=1)
    assert np.abs(moved_m).max() > 2e-4 and np.abs(moved_m - linear).max() < 2e-5
    assert set(model.regions["eyeball_left"]) == set(range(*raw["ver_inds"][:2]))


def test_teeth_of_version_4_follow_the_lip():
    count, lip, tooth = 19600, 6550, 19496
    generator = np.random.default_rng(0)
    bounds = np.array([19000, 19100, 19200, 19300, 19400, 19600])
    faces = np.stack([np.arange(count - 2), np.arange(1, count - 1), np.arange(2, count)], axis=1)
    raw = official(4) | {"meanshape": generator.normal(0, 50, (count, 3)).astype(np.float32), "ver_inds": bounds}
    raw |= {"tri": faces, "point_buf": np.zeros((count, 8), np.int64), "face_mask": np.ones(count, np.float32)}
    raw |= {key: generator.normal(size=(3 * count, 2)).astype(np.float32) for key in ("idBase", "exBase", "texBase")}
    raw["meantex"] = np.full((count, 3), 120, np.uint8)
    value = {"identity": np.array([1.0, -2]), "expression": np.array([0.5, 0.2]), "texture": np.zeros(2)}
    pose = {"angles": np.zeros(3), "gamma": np.zeros(27), "translation": np.zeros(3), "eyes": np.zeros(4)}
    found = evaluate(FaceModel(model_data(raw, "file")), **value, **pose, focal_px=FOCAL, image_size=8)["vertices"]
    mean = raw["meanshape"].astype(np.float64)
    free = mean + (raw["idBase"] @ value["identity"] + raw["exBase"] @ value["expression"]).reshape(-1, 3)
    wanted = free.copy()
    wanted[bounds[2] : bounds[5], 2] += (mean[tooth, 2] - mean[lip, 2]) - (free[tooth, 2] - free[lip, 2])
    np.testing.assert_allclose(found, wanted / 100, atol=2e-5)


def test_colours_are_carried_over_and_back():
    mean = np.random.default_rng(0).uniform(0, 255, (50, 3))
    modes = np.random.default_rng(1).normal(0, 5, (4, 50, 3))
    linear = linear_colours(mean, modes)
    back = display_colours(*linear)
    np.testing.assert_allclose(back[0], mean, atol=1e-3)
    np.testing.assert_allclose(back[1], modes, rtol=1e-4, atol=1e-4)
    step = linear_colours(mean + 1e-3 * modes[0], modes)[0].astype(np.float64) - linear[0]
    np.testing.assert_allclose(step, 1e-3 * linear[1][0], atol=2e-7)


# ------------------------------------------------------------------------------------------------------- what is wrong
@pytest.mark.parametrize("version", [0, 1, 2])
def test_everything_wrong_is_listed_at_once(version):
    raw = official(version) | {"colour": np.zeros(3), "uv": np.zeros((7, 2), np.int64)}
    del raw["texBase"]
    with pytest.raises(fv.WeightsError) as error:
        model_data(raw, "my.npy")
    text = str(error.value)
    assert text.startswith("my.npy: ") and "\n" not in text
    assert "missing keys: texBase" in text and "version does not have: colour" in text
    assert "uv must be numbers in the shape (169, 2), got shape (7, 2)" in text


def test_unknown_keys_alone_can_be_left_alone():
    raw = official(1) | {"colour": np.zeros(3)}
    with pytest.raises(fv.WeightsError, match=r"strict=False"):
        model_data(raw, "my.npy")
    assert model_data(raw, "my.npy", strict=False).info["official"]["unread_keys"] == ["colour"]
    later = official(3) | {"colour": np.zeros(3)}
    assert model_data(later, "my.npy").info["official"]["unread_keys"] == ["colour"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tri": np.array([[0, 1, 999]])}, r"tri must hold indices 0\.\.168, got 0\.\.999"),
        ({"keypoints": np.zeros(65, np.int64)}, r"keypoints must be numbers in the shape \(66\), got shape \(65,\)"),
        ({"idBase": "none"}, "idBase must be numbers .* got str"),
        ({"meantex": np.full((1, 507), np.nan, np.float32)}, "meantex has values that are not finite"),
        ({"exp_name_list": ["a"] * 52}, "exp_name_list must be 52 different names, got 1"),
        ({"select_id": np.zeros(49, np.int64)}, "select_id names a vertex twice"),
        ({"point_buf": np.zeros((169, 0))}, "point_buf"),
    ],
)
def test_misshapen_keys_are_named(changes, message):
    with pytest.raises(fv.WeightsError, match=message):
        loaded(2, **changes)


@pytest.mark.parametrize("raw", [{}, {"a": 1}, {"uvmask": np.ones(4), "uv": np.ones(4)}])
def test_other_dictionaries_are_no_base_files(raw):
    with pytest.raises(fv.WeightsError, match="no FaceVerse base file"):
        model_data(raw, "my.npy")


# ---------------------------------------------------------------------------------------------------------------- files
@each_version
def test_files_load_and_convert_without_losing_a_number(version, tmp_path):
    model = fv.load_model(saved(tmp_path / "base.npy", official(version)))
    again = fv.load_model(convert_model(model, tmp_path / "base.safetensors"))
    value = coefficients(version)
    first, second = (evaluate(m, **value, focal_px=FOCAL, image_size=SIZE) for m in (model, again))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert again.name == model.name and again.expression_names == model.expression_names
    np.testing.assert_array_equal(again.expression_limits, model.expression_limits)
    assert len(again.coarse.faces) == len(model.coarse.faces)


def test_strictness_reaches_the_file(tmp_path):
    path = saved(tmp_path / "base.npy", official(1) | {"colour": np.zeros(3)})
    with pytest.raises(fv.WeightsError, match="colour"):
        fv.load_model(path)
    assert fv.load_model(path, strict=False).name == "FaceVerse version 1"


def test_arrays_that_are_no_model_are_named(tmp_path):
    with pytest.raises(fv.WeightsError, match="restore coefficients with load_result"):
        fv.load_model(saved(tmp_path / "coefficients.npy", np.zeros(486, np.float32)))


def test_our_model_in_the_official_layout_is_the_same_model(tmp_path):
    model = toy_model()
    again = fv.load_model(convert_model(model, tmp_path / "toy.npy", to="official-v2"))
    for name in ("mean_vertices", "identity_modes", "expression_modes", "mean_albedo", "albedo_modes", "faces", "uv"):
        np.testing.assert_array_equal(getattr(again, name), getattr(model, name), err_msg=name)
    for name in ("uv_faces", "coarse_faces", "coarse_uv_faces"):
        np.testing.assert_array_equal(getattr(again.data, name), getattr(model.data, name), err_msg=name)
    for which in ("landmarks_478", "landmarks_68"):
        np.testing.assert_array_equal(getattr(again, which).triangle, getattr(model, which).triangle)
        np.testing.assert_array_equal(getattr(again, which).sigma, getattr(model, which).sigma)
    assert again.expression_names == ARKIT_NAMES and again.attribute_names == model.attribute_names
    assert {k: v.tolist() for k, v in again.regions.items()} == {k: v.tolist() for k, v in model.regions.items()}
    assert again.attributes(model.random(1)) == model.attributes(model.random(1))


def test_the_official_layout_of_our_model_is_complete():
    raw = official_v2(toy_model())
    plain = {key: value for key, value in raw.items() if key != "faceverse"}
    assert set(plain) == set(official(2)), "what the original reads, and nothing else"
    assert plain["keypoints"].shape == (1, 66) and plain["point_buf"].shape[1] >= 8
    # What the original computes from these arrays is our model, but for its units.
    value = coefficients(2) | {"identity": np.ones(8), "texture": np.ones(5)}
    model = FaceModel(model_data(raw, "file"))
    found = evaluate(model, **value, focal_px=FOCAL, image_size=SIZE)
    for name, numbers in expected(plain, 2, value, FOCAL, SIZE).items():
        assert relative(found[name], numbers) < 1e-5, name
    with pytest.raises(fv.ParameterError, match="no named expressions"):
        official_v2(loaded(1))


def test_damaged_own_keys_are_named(tmp_path):
    raw = official_v2(toy_model())
    raw["faceverse"]["arrays"]["uv"] = raw["faceverse"]["arrays"]["uv"][:5]
    with pytest.raises(fv.WeightsError, match="uv"):
        fv.load_model(saved(tmp_path / "a.npy", raw))
    with pytest.raises(fv.WeightsError, match="faceverse"):
        fv.load_model(saved(tmp_path / "b.npy", raw | {"faceverse": [1]}))


@pytest.mark.parametrize(("name", "to"), [("a.npy", "arrays"), ("a.safetensors", "official-v2"), ("a.npy", "v7")])
def test_targets_of_conversion_are_checked(name, to, tmp_path):
    with pytest.raises(fv.WeightsError, match="official-v2"):
        convert_model(toy_model(), tmp_path / name, to=to)
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------------- coefficients
def vector(version, value):
    order = ["identity", "expression", "texture", "angles", "gamma", "translation", "eyes"]
    if version == 4:
        order[3:5] = ["gamma", "angles"]
    return np.concatenate([value[name] for name in order if name in value]).astype(np.float32)


@each_version
def test_coefficients_go_both_ways(version):
    model = loaded(version)
    given = vector(version, coefficients(version))
    params = params_from_coefficients(model, given)
    np.testing.assert_allclose(coefficients_from_params(model, params), given, atol=2e-6)


@each_version
def test_our_head_stands_and_shines_as_the_original(version):
    model, value = loaded(version), coefficients(version)
    value |= {"eyes": np.zeros(4)} if version > 2 else {}
    original = evaluate(model, **value, focal_px=FOCAL, image_size=SIZE)
    params = params_from_coefficients(model, vector(version, value))
    camera = replace(camera_of(model), focal_px=FOCAL, principal_point_px=(SIZE / 2, SIZE / 2), image_size=(SIZE, SIZE))
    rows = (torch.from_numpy(x)[None] for x in (params.identity, params.expression))
    pose = torch.from_numpy(params.rotation), torch.from_numpy(params.translation)
    in_camera = transform(model.vertices(*rows)[0], *pose)
    pixels = project(in_camera, camera).numpy()[:, :2]
    offset = 0.5 if version == 4 else 0.0
    np.testing.assert_allclose(pixels[model.data.extra["keypoints"]], original["landmarks_px"] + offset, atol=2e-3)
    # The same light on the original's normals, turned into our axes.
    normals = original["normals"] @ original["rotation"]
    outward = normals * ([1, -1, -1] if version > 2 else 1) * (-1 if version == 3 else 1)
    light = shading(torch.from_numpy(np.ascontiguousarray(outward, np.float32)), torch.from_numpy(params.light))
    np.testing.assert_allclose(light.numpy(), original["shaded"] / original["albedo"], rtol=2e-3, atol=2e-4)


def test_files_of_coefficients_are_read_and_written(tmp_path):
    model = loaded(2)
    given = vector(2, coefficients(2))
    head = fv.load_result(saved(tmp_path / "00001.npy", given), model)
    assert head.source == "00001.npy" and head.camera.focal_px == 1315 and head.landmarks_px is None
    np.testing.assert_array_equal(head.params.identity, given[:150])
    path = fv.export(head, tmp_path / "again.npy")
    np.testing.assert_allclose(np.load(path), given, atol=2e-6)
    with pytest.raises(fv.ParameterError, match=r"has 486 coefficients \(150 identity \+ 52 .*got 10 numbers"):
        fv.load_result(saved(tmp_path / "short.npy", given[:10]), model)


def test_version_4_stores_its_coefficients_in_a_dictionary(tmp_path):
    given = vector(4, coefficients(4))
    stored = {"coeffs": given[None], "bbox_list": np.array([[0, 0, 10, 10]])}
    head = fv.load_result(saved(tmp_path / "00001.npy", stored), loaded(4))
    np.testing.assert_array_equal(head.params.albedo, given[333:584])
    with pytest.raises(fv.ParameterError, match="holds no coefficients"):
        stored_coefficients({"a": 1}, "x.npy")


def test_gains_are_part_of_the_stored_weights():
    gain = np.full((52, 8), 0.05, np.float32)
    model = FaceModel(replace(toy_model().data, expression_gain=gain))
    params = model.random(0).replace(expression=np.full(52, 0.5, np.float32))
    stored = coefficients_from_params(model, params)
    np.testing.assert_allclose(stored[8:60], 0.5 * model.gain_of(params.identity), rtol=1e-5)
    np.testing.assert_allclose(params_from_coefficients(model, stored).expression, 0.5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------- fitting
@pytest.mark.slow
def test_the_open_model_in_the_official_layout_fits_the_same_head(tmp_path, astronaut, monkeypatch):
    monkeypatch.setattr(fit_input, "load_parameter_regressor", lambda model: None)  # it is the open model's
    model = fv.load_model()
    again = fv.load_model(convert_model(model, tmp_path / "open.npy", to="official-v2"))
    ours, theirs = (fv.fit(astronaut, m, detail=False) for m in (model, again))
    assert np.linalg.norm(ours.vertices - theirs.vertices, axis=1).max() < 5e-5
