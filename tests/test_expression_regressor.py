"""The expression regressor: training on toy clips, mirror images, the file, and the shipped network."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors import safe_open
from test_parameter_regressor_training import seen_samples

from faceverse.__main__ import main
from faceverse.errors import ParameterError, WeightsError
from faceverse.model.face_model import ARKIT_NAMES
from faceverse.threads import one_thread
from faceverse.tracking.expression_regressor import ExpressionRegressor, load_expression_regressor
from faceverse.training import expression_regressor
from faceverse.training.synthetic_clips import draw_clips, random_motion
from faceverse.weights import EXPRESSION_REGRESSOR_FILE
from toy import toy_model

FRAMES = 6
JAW = ARKIT_NAMES.index("jawOpen")


def seen_clips(count, seed=0):
    """Clips of toy heads whose first frame is neutral; identities as in that frame."""
    drawn = seen_samples(FRAMES * count, seed)
    first = np.arange(len(drawn)) // FRAMES * FRAMES
    model = toy_model()
    still = seen_samples(FRAMES * count, seed).rows(first)
    moved = drawn.landmarks_px - seen_identity_px(model, drawn) + seen_identity_px(model, still)
    neutral = np.arange(len(drawn)) == first
    jaw = np.where(neutral, 0, drawn.expression[:, JAW])
    expression, scores = np.zeros_like(drawn.expression), np.zeros_like(drawn.scores)
    expression[:, JAW] = jaw
    points = np.where(neutral[:, None, None], seen_identity_px(model, still, drawn), moved)
    return dataclasses.replace(
        drawn, person=first // FRAMES, expression=expression, scores=scores, landmarks_px=points.astype(np.float32)
    )


def seen_identity_px(model, samples, pose=None):
    """(N, 478, 2) landmarks of neutral heads, in the pose of `pose` or their own."""
    import torch

    pose, marks = pose or samples, model.landmarks_478
    heads = model.vertices(torch.from_numpy(samples.identity)).numpy()
    points = (heads[:, model.faces[marks.triangle]] * marks.barycentric[..., None]).sum(2)
    posed = points @ pose.rotation.transpose(0, 2, 1) + pose.translation[:, None]
    return np.array([300, 400]) + pose.focal_px[:, None, None] * posed[..., :2] / -posed[..., 2:] * (1, -1)


def quickly_trained(clips, seed):
    with one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(expression_regressor, "SETTINGS", dataclasses.replace(expression_regressor.SETTINGS, epochs=8))
        patch.setattr(expression_regressor, "MEMBERS", 1)
        return expression_regressor.trained_network(toy_model(), clips, seed)


@pytest.fixture(scope="module")
def trained():
    return quickly_trained(seen_clips(80), 1)


@pytest.fixture
def toy_with_hash(monkeypatch):
    model = toy_model()
    monkeypatch.setitem(model.data.info, "sha256", "abc")
    return model


def test_movements_are_predicted_from_the_neutral_face(trained):
    network, figures = trained
    clips = seen_clips(20, seed=5)
    table = expression_regressor.make_table(clips, network)
    found = []
    for number in range(len(clips)):
        inputs = network.inputs_of(clips.face(number), tuple(clips.photo_size[number]))
        weights, sigma = network.predict(inputs, table.neutral[number])
        assert weights.shape == sigma.shape == (len(ARKIT_NAMES),) and weights.min() >= 0 and weights.max() <= 1
        found.append(weights[JAW])
    truth = clips.expression[:, JAW]
    assert np.corrcoef(found, truth)[0, 1] > 0.8
    assert figures["correlation"]["jawOpen"] > 0.7
    assert all(row["weights_rms"] < row["weights_alone_rms"] for name, row in figures.items() if name != "correlation")


def test_the_same_face_has_not_moved(trained):
    network, _ = trained
    clips = seen_clips(10, seed=6)
    for number in range(0, len(clips), FRAMES):
        inputs = network.inputs_of(clips.face(number), tuple(clips.photo_size[number]))
        assert network.predict(inputs, inputs.values)[0].max() < 0.25


def test_a_mirrored_face_moves_as_the_mirror_image(model):
    network, faces = load_expression_regressor(model), seen_samples(2, seed=7, model=model)
    inputs, neutral = (network.inputs_of(faces.face(number), tuple(faces.photo_size[number])) for number in (1, 0))
    own, _ = network.predict(inputs, neutral.values)
    turned = inputs.rotation * np.outer([-1, 1, 1], [-1, 1, 1])
    mirrored = dataclasses.replace(inputs, values=network.mirrored(inputs.values), rotation=turned)
    other, _ = network.predict(mirrored, network.mirrored(neutral.values))
    np.testing.assert_allclose(other, own[network.mirrored_expression], atol=5e-3)
    assert own.max() > 0.01


def test_same_seed_same_network():
    first, again, other = (quickly_trained(seen_clips(8), seed)[0] for seed in (0, 0, 1))
    assert all(np.array_equal(getattr(first, f.name), getattr(again, f.name)) for f in dataclasses.fields(first))
    assert not np.array_equal(first.hidden, other.hidden)


def test_the_file_stores_its_provenance(toy_with_hash, tmp_path, monkeypatch):
    monkeypatch.setattr(expression_regressor, "collect_clips", lambda *arguments: seen_clips(8))
    monkeypatch.setattr(expression_regressor, "SETTINGS", dataclasses.replace(expression_regressor.SETTINGS, epochs=1))
    lines = []
    path = expression_regressor.train_expression_regressor(
        tmp_path / EXPRESSION_REGRESSOR_FILE, clips=8, model=toy_with_hash, progress=lines.append
    )
    with safe_open(path, framework="numpy") as opened:
        info = json.loads(opened.metadata()["info"])
    assert info["clips"] == 8 and info["frames"] == 8 * FRAMES and "correlation" in info["figures"]
    assert any("trained network 3 of 3" in line for line in lines)


def test_a_saved_network_predicts_the_same(trained, toy_with_hash, tmp_path, monkeypatch):
    network, clips = trained[0], seen_clips(1, seed=3)
    expression_regressor.save_network(network, tmp_path / EXPRESSION_REGRESSOR_FILE, "abc", {})
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(tmp_path))
    inputs = network.inputs_of(clips.face(2), tuple(clips.photo_size[2]))
    for loaded, expected in zip(load_expression_regressor(toy_with_hash).predict(inputs, network.neutral_inputs_mean),
                                network.predict(inputs, network.neutral_inputs_mean), strict=True):  # fmt: skip
        np.testing.assert_allclose(loaded, expected, atol=1e-6)


def test_another_model_has_no_network(toy_with_hash, trained, tmp_path, monkeypatch):
    expression_regressor.save_network(trained[0], tmp_path / EXPRESSION_REGRESSOR_FILE, "of another model", {})
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(tmp_path))
    assert load_expression_regressor(toy_with_hash) is None and load_expression_regressor(toy_model()) is None


def test_a_damaged_file_is_named(toy_with_hash, tmp_path, monkeypatch):
    (tmp_path / EXPRESSION_REGRESSOR_FILE).write_bytes(b"nothing")
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="damaged, cut short"):
        load_expression_regressor(toy_with_hash)


def test_arrays_that_do_not_fit_are_named(toy_with_hash, trained, tmp_path, monkeypatch):
    cut = dataclasses.replace(trained[0], hidden=trained[0].hidden[:-1])
    expression_regressor.save_network(cut, tmp_path / EXPRESSION_REGRESSOR_FILE, "abc", {})
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"hidden must have shape"):
        load_expression_regressor(toy_with_hash)


def test_wrong_requests(tmp_path, toy_with_hash, monkeypatch):
    with pytest.raises(ParameterError, match="must end in .safetensors, got m.npz"):
        expression_regressor.train_expression_regressor(tmp_path / "m.npz", model=toy_with_hash)
    with pytest.raises(ParameterError, match="clips must be 1 or more"):
        expression_regressor.train_expression_regressor(tmp_path / "m.safetensors", clips=0, model=toy_with_hash)
    with pytest.raises(ParameterError, match="no face was found in any of 2 clips"):
        expression_regressor.train_expression_regressor(
            tmp_path / "m.safetensors", clips=2, model=toy_with_hash, progress=str
        )
    monkeypatch.delitem(toy_with_hash.data.info, "sha256")
    with pytest.raises(WeightsError, match="loaded from a file"):
        expression_regressor.train_expression_regressor(tmp_path / "m.safetensors", clips=2, model=toy_with_hash)


def test_the_command_passes_its_options(tmp_path, monkeypatch, capsys):
    given = {}

    def train(output, **options):
        given.update(options, output=output)
        return output

    monkeypatch.setattr("faceverse.training.expression_regressor.train_expression_regressor", train)
    out, cache = tmp_path / "new" / "m.safetensors", tmp_path / "cache"
    words = ["train", "movement", "-o", out, "--clips", 5, "--seed", 3, "--cache", cache]
    assert main([str(word) for word in words]) == 0
    assert given.pop("progress") is not None
    assert given == {"output": out, "clips": 5, "seed": 3, "cache": cache}
    assert str(out) in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------ with the model


def test_moments_are_of_many_kinds(model):
    rng = np.random.default_rng(0)
    moments = np.stack([random_motion(model, rng) for _ in range(200)])
    assert moments.min() >= 0 and moments.max() <= 1
    assert 10 < (moments.max(1) == 0).sum() < 80
    assert (moments.max(0) > 0.3).sum() > 35


def test_drawn_clips_are_one_person_who_starts_neutral(model):
    drawn = draw_clips(model, range(2), seed=4)
    again = draw_clips(model, range(1, 2), seed=4)
    assert set(drawn.person) == {0, 1} and len(drawn) >= FRAMES
    for number in (0, 1):
        rows = drawn.person == number
        assert np.ptp(drawn.identity[rows], axis=0).max() == 0 and drawn.expression[rows][0].max() == 0
    assert np.array_equal(drawn.expression[drawn.person == 1], again.expression)


def test_the_open_model_has_a_network(model):
    network = load_expression_regressor(model)
    assert isinstance(network, ExpressionRegressor)
    assert network.sigma.shape == (len(network.yaw_deg), len(model.expression_names))
    assert 0 < network.sigma.min() and network.sigma.max() < 0.5
