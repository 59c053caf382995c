"""The texture loss, and the network that estimates displacement from shading."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import faceverse as fv
from faceverse.detail.displacement_regressor import DisplacementRegressor, regressor_from_state
from faceverse.detail.module import DisplacementCode
from faceverse.errors import ParameterError, WeightsError
from faceverse.training import detail_weights
from faceverse.training.detail_data import DataShape, DetailSample, draw_data
from faceverse.training.displacement_regressor import train_displacement_regressor
from faceverse.training.generator_plans import detail_plan
from faceverse.training.generators import TrainingBudget
from faceverse.training.texture_loss import texture_loss

SIZE = 128


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def textures(count, seed, *, width=1, size=64):
    """(N, 2, S, S) noise of unit deviation with grains of some width."""
    grains = torch.randn(count, 2, size // width, size // width, generator=draw(seed))
    return grains.repeat_interleave(width, 2).repeat_interleave(width, 3)


def test_texture_is_what_is_alike_whatever_lies_where():
    data, paired = textures(4, 1), torch.ones(4, dtype=torch.bool)
    same = texture_loss(textures(4, 2), data, paired, draw())
    coarser = texture_loss(textures(4, 2, width=2), data, paired, draw())
    weaker = texture_loss(0.5 * textures(4, 2), data, paired, draw())
    flat = texture_loss(torch.zeros(4, 2, 64, 64), data, paired, draw())
    assert 0 < float(same) < 0.15
    assert float(coarser) > 2 * float(same) and float(weaker) > 2 * float(same) and float(flat) > 4 * float(same)
    assert float(texture_loss(data, data, paired, draw())) == 0


def test_pairs_have_their_own_texture():
    strong, weak = textures(4, 1), 0.3 * textures(4, 2)
    data, mixed_up = torch.cat([strong, weak]), torch.cat([weak, strong])
    alone = texture_loss(mixed_up, data, torch.zeros(8, dtype=torch.bool), draw())
    paired = texture_loss(mixed_up, data, torch.ones(8, dtype=torch.bool), draw())
    assert float(alone) < 0.05 and float(paired) > 0.3


def test_texture_loss_leads_to_the_right_strength():
    strength = torch.tensor(0.1, requires_grad=True)
    optimizer = torch.optim.Adam([strength], 0.05)
    for step in range(60):
        loss = texture_loss(strength * textures(4, 100 + step), textures(4, 1), torch.ones(4, dtype=torch.bool), draw())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(float(strength.detach()) - 1) < 0.15


def ridge(index):
    """A sample with a horizontal crease whose depth is z[0], at a place that depends on nothing."""
    random = np.random.default_rng(index)
    z = random.standard_normal(4).astype(np.float32)
    image = np.zeros((6, SIZE, SIZE), np.float32)
    rows = np.arange(SIZE)[:, None]
    for place in range(30, 100, 10):
        image[4] -= (3 + z[0]) * np.exp(-0.5 * ((rows - place - random.uniform(-3, 3)) / 1.5) ** 2)
    return DetailSample(np.zeros((6, SIZE, SIZE), np.float32), image, z)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    shape = DataShape(SIZE, SIZE, 64, image_channels=6, condition_channels=6, style_dim=4)
    return draw_data(partial(ridge), shape, Path(tmp_path_factory.mktemp("ridges")), 32, workers=0, progress=str)


def test_a_short_training_reads_creases(data):
    found, figures = train_displacement_regressor(
        fv.load_model(), DisplacementCode(), data, steps=30, seed=1, progress=str
    )
    assert figures["steps"] == 30 and figures["displacement_correlation"] > 0.3
    assert found.of_marks.abs().max() > 0, "random vectors are read as well"
    with pytest.raises(ParameterError, match="give the minutes or steps"):
        train_displacement_regressor(fv.load_model(), DisplacementCode(), data)


def test_inputs_and_files_of_the_displacement_regressor_are_validated():
    regressor = DisplacementRegressor(4).eval()
    given = torch.zeros(2, 3, SIZE, SIZE), torch.ones(2, 1, SIZE, SIZE), torch.zeros(2, 2, SIZE, SIZE)
    bands, z = regressor(*given)
    assert bands.shape == (2, 3, SIZE, SIZE) and z.shape == (2, 4)
    with pytest.raises(ParameterError, match="must be square with a side that 64 divides"):
        regressor(torch.zeros(1, 3, 100, 100), torch.ones(1, 1, 100, 100), torch.zeros(1, 2, 100, 100))
    assert not z.any(), "what was never learned is the mean"
    regressor.of_marks.normal_(generator=draw())
    bands, z = regressor(*given)
    assert z.abs().min() > 0 and not regressor(given[0], torch.zeros_like(given[1]), given[2])[1].any(), (
        "unseen: the mean"
    )
    state = regressor.state_dict()
    torch.testing.assert_close(regressor_from_state(state, "a file")(*given)[0], bands, rtol=1e-3, atol=1e-4)
    with pytest.raises(WeightsError, match="a file does not fit the encoder of skin detail"):
        regressor_from_state({k: v for k, v in state.items() if k != "last.bias"}, "a file")
    with pytest.raises(WeightsError, match="values that are not finite"):
        regressor_from_state(state | {"last.bias": torch.full((3,), torch.nan)}, "a file")


def test_files_of_detail_and_displacement_regressor_load_together(tmp_path, monkeypatch):
    """One work folder lends its samples to both, and what they write loads as one module."""
    plan = detail_plan(128, 8)
    monkeypatch.setattr(detail_weights, "detail_plan", lambda: plan)
    monkeypatch.setattr(detail_weights, "SyntheticDetail", lambda *given: partial(flat_sample, plan.shape))
    model, work = fv.load_model(), tmp_path / "work"
    budget = TrainingBudget(steps=2, samples=32, workers=0)
    given = {"work": work, "budget": budget, "progress": str}
    detail_weights.make_reader_file(model, tmp_path / "reader.safetensors", **given)
    drawn = {path: path.stat().st_mtime_ns for path in (work / "samples").iterdir()}
    detail_weights.make_detail_file(model, tmp_path / "detail.safetensors", **given)
    assert drawn == {path: path.stat().st_mtime_ns for path in (work / "samples").iterdir()}
    module = fv.load_detail(tmp_path / "detail.safetensors", tmp_path / "reader.safetensors")
    assert module.name == "open" and module.regressor is not None and module.detail.size == 128
    assert {"detail", "reader", "licence", "sources"} <= set(module.info)


def flat_sample(shape, index):
    random = np.random.default_rng(index)
    image = random.normal(size=(6, shape.size, shape.size)).astype(np.float32)
    condition = np.zeros((6, shape.condition_size, shape.condition_size), np.float32)
    return DetailSample(condition, image, random.standard_normal(shape.style_dim).astype(np.float32))
