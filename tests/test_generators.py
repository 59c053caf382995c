"""Training of generators on a toy: blobs at places that the condition shows, whose texture is noise and depth is z."""

import csv
from functools import partial

import numpy as np
import pytest
import torch

from faceverse.detail.stylegan import ConditionalGenerator, generator_from_state
from faceverse.errors import ParameterError
from faceverse.threads import one_thread
from faceverse.training import expression_wrinkles, generators, synthetic_skin
from faceverse.training.detail_data import (
    DataShape,
    DetailSample,
    area_average,
    condition_window,
    draw_data,
    from_bytes,
    to_bytes,
)
from faceverse.training.discriminator import Discriminator, gradient_penalty
from faceverse.training.generator_evaluation import evaluate_generator, synthesise
from faceverse.training.generator_plans import GeneratorPlan, detail_plan, expression_plan
from faceverse.training.generator_step import GeneratorTrainer, TrainingSettings, scaled_to_units
from faceverse.training.generators import (
    TrainingBudget,
    train_detail,
    train_expression,
    train_generator,
)
from faceverse.training.patch_distance import diversity, patch_distance
from toy import toy_model

SHAPE = DataShape(32, 16, 16, image_channels=3, condition_channels=2, style_dim=4)
PLAN = GeneratorPlan(
    "expression", SHAPE, {4: 16, 8: 16, 16: 16, 32: 12}, 16, {"displacement": (0, 1, 2)}, 2, (12, 16), places=(16,)
)
QUICK = TrainingSettings(batch=8, warm_up=0.3, adversarial=0.3, average=500, first_noise=0.4, bfloat16=False)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def blobs(number: int, known: bool = True, seed: int = 0) -> DetailSample:
    rng = np.random.default_rng([seed, number])
    row, column = np.mgrid[:32, :32]
    condition, image, z = np.zeros((2, 16, 16)), np.zeros((3, 32, 32)), rng.standard_normal(4)
    for channel in range(2):
        place = rng.uniform(8, 24, 2)
        blob = np.exp(-((row - place[0]) ** 2 + (column - place[1]) ** 2) / 30)
        condition[channel] = blob.reshape(16, 2, 16, 2).mean((1, 3))
        image[channel] = blob * (1 + 0.4 * z[channel])
        image[2] += 0.5 * blob * rng.standard_normal((32, 32))
    image[np.abs(image) < 0.01] = 0
    return DetailSample(condition.astype(np.float32), image.astype(np.float32), z.astype(np.float32) if known else None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_data(blobs, SHAPE, tmp_path_factory.mktemp("blobs"), 400, workers=0, progress=lambda _: None)


def trained(data, steps: int, settings: TrainingSettings = QUICK) -> GeneratorTrainer:
    training = GeneratorTrainer(PLAN, settings, data, seed=3)
    for step in range(steps):
        training.step(step / steps)
    return training


# -- samples ----------------------------------------------------------------------------------------------------------
def test_stored_samples_are_the_drawn_ones(data):
    sample, batch = blobs(5), data.batch(np.array([5, 6]))
    step = np.abs(sample.image).max((1, 2), keepdims=True) / 127
    assert (np.abs(batch.window[0].numpy() - sample.image) <= step).all()
    torch.testing.assert_close(batch.whole[0], area_average(torch.from_numpy(sample.image), 16), atol=2e-3, rtol=0)
    torch.testing.assert_close(batch.z[0], torch.from_numpy(sample.z))
    window = data.batch(np.array([5, 6]), (4, 10), 16).window
    assert torch.equal(window, batch.window[:, :, 4:20, 10:26])


def test_bytes_are_fine_where_values_are_small():
    values = np.array([[[-1.0, -0.01, 0.0, 0.001, 0.5]]], np.float32)
    back = from_bytes(*to_bytes(values))
    assert np.abs(back - values)[0, 0] == pytest.approx([0, 0, 0, 0, 0], abs=6e-3)
    assert np.abs(back - values)[0, 0, 1:4].max() < 1e-3 and back[0, 0, 2] == 0


def test_folder_is_resumed_extended_and_never_mixed(tmp_path):
    drawn = []

    def counted(number):
        drawn.append(number)
        return blobs(number)

    quiet = {"workers": 0, "progress": lambda _: None}
    draw_data(counted, SHAPE, tmp_path, 32, **quiet)
    more = draw_data(counted, SHAPE, tmp_path, 40, **quiet)
    assert drawn == list(range(48)) and len(more) == 48
    assert set(more.training).isdisjoint(more.held_out) and len(more.held_out) == 16
    with pytest.raises(ParameterError, match="made with other settings"):
        draw_data(counted, SHAPE, tmp_path, 32, made_for="another seed", **quiet)
    with pytest.raises(ParameterError, match="at least 32 samples, got"):
        draw_data(counted, SHAPE, tmp_path, 8, **quiet)
    wrong = DataShape(64, 16, 16, image_channels=3, condition_channels=2, style_dim=4)
    with pytest.raises(ParameterError, match="sample's image must be"):
        draw_data(counted, wrong, tmp_path / "wrong", 32, **quiet)


def test_other_processes_draw_the_same(data, tmp_path):
    apart = draw_data(partial(blobs, known=True), SHAPE, tmp_path, 32, workers=1, progress=lambda _: None)
    numbers = np.arange(32)
    assert torch.equal(apart.batch(numbers).window, data.batch(numbers).window)


@pytest.mark.parametrize(("small", "corner"), [(16, (0, 24)), (8, (8, 16)), (64, (3, 5))])
def test_window_of_the_condition_is_cut_from_the_enlarged_one(small, corner):
    condition = torch.randn(2, 3, small, small, generator=torch.Generator().manual_seed(0))
    full = torch.nn.functional.interpolate(condition, size=(64, 64), mode="bilinear", align_corners=False)
    expected = full[..., corner[0] : corner[0] + 32, corner[1] : corner[1] + 32]
    torch.testing.assert_close(condition_window(condition, 64, corner, 32), expected)


def test_windows_show_the_region(data):
    training = GeneratorTrainer(PLAN, QUICK, data)
    corners = np.array([training.random_corner(np.random.default_rng(seed)) for seed in range(50)])
    assert (corners % 2 == 0).all() and corners.min() >= 0 and corners.max() <= 16
    assert len(np.unique(corners[:, 0])) > 3


# -- discriminators ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("side", [8, 16, 64])
def test_discriminator_answers_each_picture(side):
    image, condition = torch.randn(6, 3, side, side), torch.randn(6, 2, side, side)
    critic = Discriminator(side, 3, 2, widths=(8, 12))
    logits = critic(image, condition)
    assert logits.shape == (6,)
    logits.sum().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in critic.parameters())
    assert not torch.equal(critic(image, condition.flip(0)), logits)


def test_discriminator_sees_that_all_pictures_are_the_same():
    critic = Discriminator(16, 3, 2, widths=(8, 12))
    image, condition = torch.randn(4, 3, 16, 16), torch.zeros(4, 2, 16, 16)
    alone = critic(image[:1].repeat(4, 1, 1, 1), condition)[0]
    assert (critic(image, condition)[0] - alone).abs().item() > 1e-5


def test_discriminator_refuses_other_sides():
    with pytest.raises(ParameterError, match="power of two"):
        Discriminator(24, 3, 2)


def test_penalty_is_the_squared_slope():
    critic = Discriminator(8, 1, 1, widths=(8,)).double()
    image, condition = torch.randn(2, 1, 8, 8).double(), torch.zeros(2, 1, 8, 8).double()
    penalty = gradient_penalty(critic, image, condition)
    penalty.backward()
    assert all(part.grad is not None for part in critic.first.parameters())
    penalty = penalty.item()
    step = torch.zeros_like(image)
    slopes = []
    for place in range(64):
        step.zero_()[:, 0, place // 8, place % 8] = 1e-5
        slopes.append(((critic(image + step, condition) - critic(image - step, condition)).sum() / 2e-5).item())
    assert penalty > 0
    # Moving both samples at once adds their slopes; a bound from them is what two samples allow.
    assert float(np.square(slopes).sum()) <= 2 * 2 * penalty * 1.001


# -- distances --------------------------------------------------------------------------------------------------------
def test_distance_is_zero_for_the_same_and_grows_with_blur(data):
    maps, groups = data.batch(np.arange(32)).window, PLAN.groups
    other = data.batch(np.arange(32, 64)).window
    assert patch_distance(maps, maps, groups, data.region).mean == 0
    floor = patch_distance(other, maps, groups, data.region)
    blurred = [torch.nn.functional.avg_pool2d(maps, side, 1, side // 2) for side in (3, 7)]
    distances = [patch_distance(found, maps, groups, data.region) for found in blurred]
    assert floor.level(32) < distances[0].level(32) < distances[1].level(32)
    assert distances[0].mean == patch_distance(blurred[0], maps, groups, data.region).mean
    with pytest.raises(ParameterError, match="equally many maps"):
        patch_distance(maps[:4], maps, groups)


def test_diversity_counts_deviations():
    maps = torch.randn(16, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    region = np.zeros((8, 8), bool)
    region[2:5] = True
    assert diversity(3 * maps, torch.full((2, 1, 1), 3.0), region) == pytest.approx(2**0.5, rel=0.02)
    assert diversity(maps[:1].repeat(4, 1, 1, 1), torch.ones(2, 1, 1)) == 0


# -- training ---------------------------------------------------------------------------------------------------------
def test_training_brings_generated_maps_closer_to_the_data(data):
    training = GeneratorTrainer(PLAN, QUICK, data, seed=3)
    before = evaluate_generator(training.result(), data, PLAN)
    for step in range(300):
        training.step(step / 300)
    after = evaluate_generator(training.result(), data, PLAN)
    assert after.distance.mean < 0.6 * before.distance.mean
    assert after.noise > 0.005  # the texture comes from the noise alone
    batch = data.batch(np.array(data.held_out))

    def error(z):
        return (synthesise(training.result(), batch.condition, z, 0) - batch.window)[:, :2].abs().mean()

    assert error(batch.z) < 0.6 * batch.window[:, :2].abs().mean()  # the places are the condition's
    assert error(batch.z) < 0.85 * error(-batch.z)  # the depth is a function of z


def test_generator_in_units_makes_scaled_pictures(data):
    generator, spread = trained(data, 1).average, torch.tensor([2.0, 0.1, 30.0]).view(3, 1, 1)
    batch = data.batch(np.arange(2))
    pictures = [
        synthesise(given, batch.condition, batch.z, 0) for given in (generator, scaled_to_units(generator, spread))
    ]
    torch.testing.assert_close(pictures[0] * spread, pictures[1], rtol=1e-4, atol=1e-5)


def test_resumed_run_has_the_numbers_of_an_uninterrupted_one(data):
    whole, first, second = trained(data, 0), trained(data, 0), trained(data, 0)
    for step in range(12):
        whole.step(step / 12)
    for step in range(5):
        first.step(step / 12)
    second.load(first.state())
    for step in range(5, 12):
        second.step(step / 12)
    for ours, theirs in ((whole.average, second.average), (whole.critics, second.critics)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters()))
    with pytest.raises(ParameterError, match="other settings"):
        GeneratorTrainer(PLAN, QUICK, data, seed=4).load(first.state())


def test_scans_without_z_train_by_the_discriminators_alone(tmp_path):
    scans = draw_data(partial(blobs, known=False), SHAPE, tmp_path, 32, workers=0, progress=lambda _: None)
    training = GeneratorTrainer(PLAN, QUICK, scans)
    before = [part.clone() for part in training.generator.parameters()]
    assert np.isnan(training.step(0.0).matching)
    losses = training.step(0.5)
    assert np.isnan(losses.matching) and losses.critic > 0 and losses.adversarial > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, training.generator.parameters()))


def test_unseen_parts_of_a_scan_are_not_learned_from(tmp_path):
    mask = np.zeros((32, 32), bool)
    mask[:, :16] = True

    def half(number):
        sample = blobs(number)
        return DetailSample(sample.condition, sample.image, sample.z, mask)

    data = draw_data(half, SHAPE, tmp_path, 32, workers=0, progress=lambda _: None)
    batch = data.batch(np.arange(2))
    assert (batch.window[..., 16:] == 0).all() and (batch.whole_seen[..., 8:] == 0).all()
    assert (batch.window_seen[..., :16] == 1).all()


def test_run_in_bfloat16_writes_log_sheets_and_a_loadable_state(tmp_path):
    lines = []
    arguments = PLAN, blobs, tmp_path
    settings = TrainingSettings(batch=4, warm_up=0.2, bfloat16=True)
    budget = TrainingBudget(steps=4, samples=32, workers=0, threads=1)
    state, info = train_generator(*arguments, budget, settings=settings, progress=lines.append)
    assert (tmp_path / "sheet_000004.png").stat().st_size > 1000
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert rows[-1]["step"] == "4" and float(rows[-1]["distance"]) > 0 and float(rows[-1]["critic"]) > 0
    assert info["steps"] == 4 and info["figures"]["ratio"] > 0 and info["kind"] == "expression"

    generator = generator_from_state(state, "toy")
    assert isinstance(generator, ConditionalGenerator) and generator.condition_size == 16
    assert all(value.dtype == torch.float16 for value in state.values())
    again, info = train_generator(
        *arguments, TrainingBudget(steps=6, samples=32, workers=0, threads=1), settings=settings, progress=lines.append
    )
    assert info["steps"] == 6 and any("resumed from step 4" in line for line in lines)
    with pytest.raises(ParameterError, match="minutes or steps"):
        TrainingBudget()


def test_plans_fit_their_generators():
    for plan in (detail_plan(64, narrower=8), expression_plan(64, narrower=8)):
        assert plan.generator().size == 64
        assert len(plan.critics()) == 2
    assert detail_plan().channels[512] == 16 and detail_plan().shape.whole == 128
    with pytest.raises(ParameterError, match="power of two from 32"):
        detail_plan(48)


@pytest.mark.parametrize("trainer", [train_detail, train_expression])
def test_synthetic_people_are_the_samples(trainer, monkeypatch, tmp_path):
    """Smaller plans learn from the area means of the full maps."""
    full = {train_detail: detail_plan, train_expression: expression_plan}[trainer]().shape
    rng = np.random.default_rng(0)
    condition = rng.standard_normal((full.condition_channels, *[full.condition_size] * 2), np.float32)
    image = rng.standard_normal((full.image_channels, *[full.size] * 2), np.float32)
    numbers = []

    def drawn(model, surface, number, seed):
        numbers.append((number, seed))
        return DetailSample(condition, image, np.ones(64, np.float32))

    for source in (synthetic_skin, expression_wrinkles):
        monkeypatch.setattr(source, "training_sample", drawn)
    for name in ("_detail_surface", "_wrinkle_surface"):
        monkeypatch.setattr(generators, name, lambda model: None)
    plan = {train_detail: detail_plan, train_expression: expression_plan}[trainer](32, narrower=16)
    budget = TrainingBudget(steps=1, samples=32, workers=0, threads=1)
    _, info = trainer(toy_model(), tmp_path, budget, plan=plan, seed=7, progress=lambda _: None)
    assert numbers == [(number, 7) for number in range(32)] and "seed 7" in info["samples_made_for"]
    stored = np.load(tmp_path / "samples" / "samples_00000.npy")[0]
    expected = image.reshape(full.image_channels, 32, full.size // 32, 32, full.size // 32).mean((2, 4))
    assert from_bytes(stored["image"], stored["largest"]) == pytest.approx(
        expected, abs=0.02 * float(np.abs(expected).max())
    )
