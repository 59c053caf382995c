"""The learned start at work: inputs, answers, mirror images, and the file that holds it."""

from dataclasses import fields, replace

import numpy as np
import pytest
from test_parameter_regressor_training import seen_samples

from faceverse.errors import WeightsError
from faceverse.fitting.parameter_regressor import SHARP_PX, ParameterRegressor, aligned_inputs, load_parameter_regressor
from faceverse.graphics.camera import default_camera
from faceverse.training.parameter_regressor import save_network, trained_network
from faceverse.weights import PARAMETER_REGRESSOR_FILE
from toy import toy_model


@pytest.fixture(scope="module")
def network():
    return trained_network(toy_model(), seen_samples(200), seed=0)[0]


@pytest.fixture
def toy_with_hash(monkeypatch):
    model = toy_model()
    monkeypatch.setitem(model.data.info, "sha256", "abc")
    return model


def test_answers_have_the_models_sizes(network):
    start = network.predict(seen_samples(1).face(0), default_camera((800, 600)))
    model = toy_model()
    count, expressions = len(model.identity_modes), len(model.expression_names)
    assert start.identity.shape == (count,) and start.covariance.shape == (count, count)
    assert start.expression.shape == start.expression_sigma.shape == (expressions,)
    assert start.expression.min() >= 0 and start.expression.max() <= 1
    assert np.allclose(start.covariance, start.covariance.T)


def test_answers_are_near_the_truth(network):
    samples = seen_samples(60, seed=4)
    camera = default_camera((800, 600))
    found = np.stack([network.predict(samples.face(k), camera).identity for k in range(60)])
    truth = samples.identity
    assert np.sqrt(((found - truth) ** 2).mean()) < 0.8 * np.sqrt((truth**2).mean())


def test_a_mirrored_photograph_gives_the_mirrored_head(model):
    network, camera = load_parameter_regressor(model), default_camera((800, 600))
    face = seen_samples(1, model=model).face(0)
    own = network.predict(face, camera)
    other = network.predict(network.mirrored(face, 600.0), camera)
    expected = network.mirrored_identity @ own.identity + network.mirrored_offset
    assert np.linalg.norm(other.identity - expected) < 0.3 * np.linalg.norm(own.identity)
    assert np.allclose(other.expression, own.expression[network.mirrored_expression], atol=0.05)


def test_turned_faces_are_less_sure(network):
    wider = network.covariance.copy()
    wider[-1] *= 4
    turned = replace(network, covariance=wider)
    places = turned.bin_of(np.array([0.0, 14.9, 15.0, -40.0, 80.0]))
    assert places.tolist() == [0, 0, 1, 2, 2]


def test_inputs_do_not_depend_on_place_roll_and_resolution(network):
    face, size = seen_samples(1).face(0), (800, 600)
    template = network.template
    plain = aligned_inputs(face, size, template)
    larger = replace(face, landmarks_px=3 * face.landmarks_px, landmarks_depth=3 * face.landmarks_depth)
    scaled = aligned_inputs(larger, (2400, 1800), template)
    count = template.size
    assert np.allclose(plain.values[:count], scaled.values[:count], atol=1e-4)
    assert plain.values[count + 12] == pytest.approx(scaled.values[count + 12], abs=1e-4)
    assert scaled.values[count + 13] == pytest.approx(np.log(SHARP_PX))
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    rolled = aligned_inputs(replace(face, landmarks_px=face.landmarks_px @ turn), size, template)
    assert np.allclose(plain.values[:count], rolled.values[:count], atol=1e-4)
    assert np.allclose(rolled.rotation @ rolled.rotation.T, np.eye(3), atol=1e-6)


def test_a_saved_network_answers_the_same(network, toy_with_hash, tmp_path, monkeypatch):
    save_network(network, tmp_path / PARAMETER_REGRESSOR_FILE, "abc", {})
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(tmp_path))
    loaded = load_parameter_regressor(toy_with_hash)
    assert all(getattr(loaded, field.name).shape == getattr(network, field.name).shape for field in fields(loaded))
    face, camera = seen_samples(1).face(0), default_camera((800, 600))
    expected, answer = network.predict(face, camera), loaded.predict(face, camera)
    assert np.allclose(answer.identity, expected.identity, atol=1e-5)


def test_another_model_has_no_start(network, toy_with_hash, tmp_path, monkeypatch):
    save_network(network, tmp_path / PARAMETER_REGRESSOR_FILE, "of another model", {})
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(tmp_path))
    assert load_parameter_regressor(toy_with_hash) is None


def test_a_model_without_a_file_has_no_start():
    assert load_parameter_regressor(toy_model()) is None


@pytest.mark.parametrize(
    ("content", "message"), [(b"nothing", "damaged, cut short"), (b"other", "no file of format")]
)
def test_a_damaged_file_is_named(content, message, toy_with_hash, tmp_path, monkeypatch):
    from safetensors.numpy import save

    (tmp_path / PARAMETER_REGRESSOR_FILE).write_bytes(content if content == b"nothing" else save({"a": np.zeros(1)}))
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=message):
        load_parameter_regressor(toy_with_hash)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("hidden"), "missing: hidden"),
        (lambda a: a.update(hidden=a["hidden"].T.copy()), r"hidden must have shape"),
        (lambda a: a.update(covariance=a["covariance"][:, :-1].copy()), r"covariance must have shape \(\d, 8, 8\)"),
        (lambda a: a.update(template=a["template"] * np.float32(np.nan)), "template has values that are not finite"),
        (lambda a: a.update(mirrored_points=a["mirrored_points"] + 1), r"mirrored_points must index 0\.\.477"),
        (lambda a: a.update(mirrored_scores=a["mirrored_scores"].astype(np.float32)), r"mirrored_scores must index"),
        (lambda a: a.update(bias=a["bias"].astype(np.int32)), "bias must be float"),
    ],
)
def test_arrays_that_do_not_fit_are_named(change, message, network, toy_with_hash, tmp_path, monkeypatch):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    path = save_network(network, tmp_path / PARAMETER_REGRESSOR_FILE, "abc", {})
    with safe_open(path, "np") as opened:
        arrays, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()
    change(arrays)
    save_file(arrays, path, metadata)
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=message):
        load_parameter_regressor(toy_with_hash)


def test_the_open_model_has_a_start(model):
    network = load_parameter_regressor(model)
    assert isinstance(network, ParameterRegressor)
    assert network.covariance.shape[1:] == (len(model.identity_modes),) * 2
    for matrix in network.covariance:
        assert np.linalg.eigvalsh(matrix).min() > 0
        assert 0.2 < np.diag(matrix).mean() < 3
