"""Training of the learned start, on the toy head and a detector that only adds noise."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from faceverse.__main__ import main
from faceverse.errors import ParameterError, WeightsError
from faceverse.fitting.parameter_regressor import STORED_NAMES, ParameterRegressor
from faceverse.graphics.camera import rotation_from_euler_deg
from faceverse.landmarks import BLENDSHAPE_NAMES
from faceverse.model.face_model import ARKIT_NAMES
from faceverse.training import parameter_regressor
from faceverse.training.parameter_regressor import (
    error_metric,
    make_table,
    mirrored_identity,
    train_parameter_regressor,
    trained_network,
)
from faceverse.training.portraits import PortraitSamples
from toy import toy_model


def seen_samples(count, seed=0, model=None):
    """Samples of (toy) heads whose landmarks lie where they are, up to half a pixel."""
    model, rng = model or toy_model(), np.random.default_rng(seed)
    marks = model.landmarks_478
    identity = rng.standard_normal((count, len(model.identity_modes))).astype(np.float32)
    expression = np.zeros((count, len(ARKIT_NAMES)), np.float32)
    expression[:, ARKIT_NAMES.index("jawOpen")] = rng.uniform(0, 0.8, count)
    heads = model.vertices(torch.from_numpy(identity), torch.from_numpy(expression)).numpy()
    points = (heads[:, model.faces[marks.triangle]] * marks.barycentric[..., None]).sum(2)
    turns = np.stack([rotation_from_euler_deg(rng.uniform(-40, 40), rng.uniform(-10, 10)) for _ in range(count)])
    shift = np.tile(np.float32([0, 0, -0.7]), (count, 1))
    posed = points @ turns.transpose(0, 2, 1) + shift[:, None]
    focal = 700.0
    pixels = np.array([300, 400]) + focal * posed[..., :2] / -posed[..., 2:] * (1, -1)
    scores = np.zeros((count, len(BLENDSHAPE_NAMES)), np.float32)
    scores[:, BLENDSHAPE_NAMES.index("jawOpen")] = 0.7 * expression[:, ARKIT_NAMES.index("jawOpen")]
    return PortraitSamples(
        person=np.arange(count) // 2,
        identity=identity,
        expression=expression,
        landmarks_px=(pixels + 0.5 * rng.standard_normal(pixels.shape)).astype(np.float32),
        depth_px=(-posed[..., 2] * focal / 0.7).astype(np.float32),
        scores=scores,
        photo_size=np.tile([800, 600], (count, 1)),
        focal_px=np.full(count, focal, np.float32),
        rotation=turns.astype(np.float32),
        translation=shift,
    )


@pytest.fixture(scope="module")
def trained():
    return trained_network(toy_model(), seen_samples(400), seed=1)


def test_training_beats_the_mean_head_and_no_expression(trained):
    _, figures = trained
    for row in figures.values():
        assert row["faces"] > 5
        assert row["identity_mm"] < 0.75 * row["mean_head_mm"]
        assert row["expression_mm"] < 0.5 * row["no_expression_mm"]


def test_people_held_back_are_measured(trained):
    _, figures = trained
    kept = sum(
        person % parameter_regressor.HELD_OUT == parameter_regressor.HELD_OUT - 1 for person in np.arange(400) // 2
    )
    assert sum(row["faces"] for row in figures.values()) == kept


def test_the_spread_is_that_of_the_errors(trained):
    network, _ = trained
    samples = seen_samples(120, seed=9)
    table = make_table(samples, network)
    outputs = network.evaluate(table.values)
    identity, _ = network.mean_of_both(outputs[:120], outputs[120:])
    place = network.bin_of(table.yaw_deg[:120])
    errors = identity - samples.identity
    squares = [error @ np.linalg.solve(network.covariance[k], error) for error, k in zip(errors, place, strict=True)]
    assert 0.6 < np.mean(squares) / errors.shape[1] < 1.6
    assert all(np.linalg.eigvalsh(matrix).min() > 0 for matrix in network.covariance)
    assert (network.expression_sigma > 0).all()


def test_same_seed_same_network():
    first, figures = trained_network(toy_model(), seen_samples(40), seed=3)
    again, _ = trained_network(toy_model(), seen_samples(40), seed=3)
    other, _ = trained_network(toy_model(), seen_samples(40), seed=4)
    for name in ParameterRegressor.__dataclass_fields__:
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert not np.array_equal(first.hidden, other.hidden)
    assert figures


def test_training_leaves_the_random_numbers_of_others_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    trained_network(toy_model(), seen_samples(12), seed=0)
    assert torch.rand(1) == expected


def test_twice_mirrored_is_the_head_itself(model):
    matrix, offset = mirrored_identity(model)
    identity = np.random.default_rng(0).standard_normal(len(offset))
    change = matrix @ (matrix @ identity + offset) + offset - identity
    gram = error_metric(model).identity
    once = matrix @ identity + offset - identity
    assert np.sqrt(change @ gram @ change) < 0.15 < 0.3 < np.sqrt(once @ gram @ once)


def test_mirrored_samples_are_the_mirror_image(model):
    network = parameter_regressor.untrained_regressor(model)
    table = make_table(seen_samples(3, model=model), network)
    assert table.values.shape[0] == table.targets.shape[0] == 6
    assert np.allclose(table.yaw_deg[:3], -table.yaw_deg[3:], atol=1)
    assert np.array_equal(table.person[:3], table.person[3:])
    own, reflected = (table.values[k, : network.template.size].reshape(-1, 3) for k in (0, 3))
    assert np.allclose(reflected, own[network.mirrored_points] * [-1, 1, 1], atol=0.02)
    jaw = len(model.identity_modes) + model.expression_names.index("jawOpen")
    assert np.allclose(table.targets[:3, jaw], table.targets[3:, jaw])


def test_motion_of_the_whole_head_costs_nothing():
    model = toy_model()
    measures = error_metric(model)
    one = np.eye(len(model.identity_modes))[0]
    plain = 1e3 * np.sqrt((model.identity_modes[0][parameter_regressor.face_vertices(model)] ** 2).sum(1).mean())
    assert 0 < np.sqrt(one @ measures.identity @ one) <= plain + 1e-6
    assert np.linalg.eigvalsh(measures.expression).min() > -1e-9


def test_the_file_says_what_it_was_made_from(tmp_path, monkeypatch):
    model = toy_model()
    monkeypatch.setitem(model.data.info, "sha256", "abc")
    monkeypatch.setattr(parameter_regressor, "collect_samples", lambda *arguments: seen_samples(24))
    lines = []
    path = train_parameter_regressor(
        tmp_path / "start.safetensors", samples=24, seed=2, model=model, progress=lines.append
    )
    with safe_open(path, framework="numpy") as opened:
        metadata = opened.metadata()
        names = {STORED_NAMES.get(name, name) for name in ParameterRegressor.__dataclass_fields__}
        assert set(opened.keys()) == names
        assert opened.get_tensor("components").dtype == np.float16
    info = json.loads(metadata["info"])
    assert metadata["format"] == "faceverse-start" and metadata["model_sha256"] == "abc"
    assert info["seed"] == 2 and info["samples"] == 24 and info["people"] == 12 and info["figures"]
    assert any("trained network" in line for line in lines)


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="must end in .safetensors, got start.npz"):
        train_parameter_regressor(tmp_path / "start.npz", model=toy_model())


def test_the_command_passes_its_options(tmp_path, monkeypatch, capsys):
    given = {}

    def train(output, **options):
        given.update(options, output=output)
        return output

    monkeypatch.setattr("faceverse.training.parameter_regressor.train_parameter_regressor", train)
    out, cache = tmp_path / "new" / "start.safetensors", tmp_path / "cache"
    words = ["train", "regressor", "-o", out, "--samples", 5, "--seed", 3, "--cache", cache]
    assert main([str(word) for word in words]) == 0
    assert given.pop("progress") is not None
    assert given == {"output": out, "samples": 5, "seed": 3, "cache": cache}
    assert str(out) in capsys.readouterr().out


def test_a_model_without_a_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="loaded from a file"):
        train_parameter_regressor(tmp_path / "start.safetensors", samples=2, model=toy_model())


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    model = toy_model()
    monkeypatch.setitem(model.data.info, "sha256", "abc")
    monkeypatch.setattr(parameter_regressor, "collect_samples", lambda *arguments: seen_samples(12))
    with pytest.raises(WeightsError, match="cannot write"):
        train_parameter_regressor(
            tmp_path / "none" / "start.safetensors", samples=12, model=model, progress=lambda line: None
        )
