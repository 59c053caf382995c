"""Named attributes: what is learned of known settings, what features measure, and sliders that do not meddle."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import faceverse as fv
from faceverse.errors import WeightsError
from faceverse.model.file import read_model_file
from faceverse.training import attributes
from faceverse.training.attributes import (
    LARGEST_STEP,
    LOCAL_ATTRIBUTES,
    RANGE_DEVIATIONS,
    ChangeCosts,
    learn_globals,
    learn_locals,
    local_values,
    measure_gradients,
    vertex_areas,
    with_attributes,
)
from faceverse.training.shape_population import draw_settings
from faceverse.training.sources import ANCESTRIES
from faceverse.weights import find_weights

IDENTITY, ALBEDO, PEOPLE, VERTICES = 110, 12, 600, 80


@pytest.fixture(scope="module")
def model():
    """The open model, if it is one with local attributes."""
    try:
        found = fv.load_model()
    except WeightsError as error:
        pytest.skip(str(error))
    if "nose_width" not in found.attribute_names:
        pytest.skip("the model file has no local attributes")
    return found


@pytest.fixture(scope="module")
def people():
    """Settings of people and coefficients that follow from them, with individual differences."""
    rng = np.random.default_rng(9)
    settings = draw_settings(PEOPLE, rng)
    columns = [settings.years / 20, 2 * settings.male - 1, 2 * settings.weight - 1, *settings.ancestry.T, settings.tone]
    directions = 0.4 * rng.standard_normal((len(columns), IDENTITY + ALBEDO))
    coefficients = np.stack(columns, axis=1) @ directions
    coefficients += 0.8 * rng.standard_normal(coefficients.shape)
    return settings, coefficients, directions


@pytest.fixture(scope="module")
def learned(people):
    """Globals and locals of made-up features on a made-up surface."""
    settings, coefficients, _ = people
    rng = np.random.default_rng(4)
    everybody = learn_globals(coefficients, settings)
    gradients = rng.standard_normal((len(LOCAL_ATTRIBUTES), IDENTITY))
    costs = ChangeCosts(
        0.3 * rng.standard_normal((IDENTITY, VERTICES, 3)),
        rng.uniform(0, 60, (len(LOCAL_ATTRIBUTES), VERTICES)),
        np.full(VERTICES, 1 / VERTICES),
    )
    return everybody, learn_locals(gradients, everybody, coefficients, costs), gradients, costs


# ------------------------------------------------------------------------------------------------------------- globals


def test_globals_recover_known_directions(people):
    settings, coefficients, directions = people
    found = learn_globals(coefficients, settings)
    assert [d["name"] for d in found.descriptions] == ["age", "gender", "weight", *ANCESTRIES]
    assert (found.descriptions[0]["minimum"], found.descriptions[0]["maximum"]) == (18, 80)
    np.testing.assert_allclose(20 * found.steps[0], directions[0], atol=0.15)
    np.testing.assert_allclose(found.steps[1], directions[1], atol=0.2)
    # A share more of one ancestry is half a share less of each of the others.
    expected = directions[3] - (directions[4] + directions[5]) / 2
    np.testing.assert_allclose(found.steps[3], expected, atol=0.6)
    assert np.corrcoef(found.steps[3], expected)[0, 1] > 0.95
    np.testing.assert_allclose(found.steps[3:].sum(0), 0, atol=1e-9)


def test_globals_are_estimated(people):
    settings, coefficients, _ = people
    found = learn_globals(coefficients, settings)
    estimates = coefficients @ found.estimators[:, :-1].T + found.estimators[:, -1]
    assert np.abs(estimates[:, 0] - settings.years).mean() < 5
    assert np.abs(estimates[:, 1] - (2 * settings.male - 1)).mean() < 0.25
    assert np.abs(estimates[:, 3:] - settings.ancestry).mean() < 0.12
    np.testing.assert_allclose(estimates[:, 3:].sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(estimates.mean(0)[:3], [settings.years.mean(), (2 * settings.male - 1).mean(),
                                                     (2 * settings.weight - 1).mean()], atol=1e-6)  # fmt: skip


def test_moving_a_global_moves_its_own_estimate_only(people):
    settings, coefficients, _ = people
    found = learn_globals(coefficients, settings)
    moved = found.steps @ found.estimators[:, :-1].T
    np.testing.assert_allclose(moved[:3, :3], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(moved[:3, 3:], 0, atol=1e-9)
    np.testing.assert_allclose(moved[3:, :3] / [20, 1, 1], 0, atol=1e-9)
    np.testing.assert_allclose(moved[3:, 3:], 1.5 * np.eye(3) - 0.5, atol=1e-9)


def test_ancestry_leaves_the_skin_tone_alone(people):
    """Tone and ancestry go together in the settings; the steps of ancestry must not carry the tone."""
    settings, coefficients, _ = people
    only_tone = np.zeros_like(coefficients)
    only_tone[:, 0] = settings.tone
    only_tone += 0.02 * np.random.default_rng(0).standard_normal(coefficients.shape)
    assert np.corrcoef(settings.tone, settings.ancestry[:, 0])[0, 1] > 0.4
    found = learn_globals(only_tone, settings)
    assert np.abs(found.steps[3:]).max() < 0.02


# -------------------------------------------------------------------------------------------------------------- locals


def test_locals_move_one_by_one(learned):
    everybody, features, _, _ = learned
    assert len(features.descriptions) == len(LOCAL_ATTRIBUTES)
    np.testing.assert_allclose(features.steps @ features.estimators[:, :-1].T, np.eye(len(LOCAL_ATTRIBUTES)), atol=1e-6)
    np.testing.assert_allclose(features.steps @ everybody.estimators[:, :-1].T / [20, 1, 1, 1, 1, 1], 0, atol=1e-6)
    assert not features.steps[:, IDENTITY:].any(), "skin stays as it is"


def test_globals_leave_the_locals_alone_and_typical_is_zero(learned, people):
    everybody, features, _, _ = learned
    np.testing.assert_allclose(everybody.steps @ features.estimators[:, :-1].T, 0, atol=1e-8)
    values = people[1] @ features.estimators[:, :-1].T + features.estimators[:, -1]
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-8)


def test_local_value_is_the_measure_without_what_the_globals_explain(learned, people):
    everybody, features, gradients, _ = learned
    _, coefficients, _ = people
    values = coefficients @ features.estimators[:, :-1].T
    measured = coefficients[:, :IDENTITY] @ gradients.T
    explained = coefficients @ everybody.estimators[:, :-1].T
    design = np.concatenate([explained - explained.mean(0), np.ones((PEOPLE, 1))], axis=1)
    left = measured - values - design @ np.linalg.lstsq(design, measured - values, rcond=None)[0]
    np.testing.assert_allclose(left, 0, atol=1e-7)


def test_ranges_are_round_and_as_wide_as_the_population(learned, people):
    _, features, _, _ = learned
    spread = (people[1] @ features.estimators[:, :-1].T).std(0)
    for description, deviation in zip(features.descriptions, spread, strict=True):
        assert description["minimum"] == -description["maximum"]
        assert 0.8 < description["maximum"] / (RANGE_DEVIATIONS * deviation) < 1.25
        assert len(f"{description['maximum']:g}".strip("0.").replace(".", "")) <= 2


def test_features_that_say_the_same_are_left_out(learned, people):
    everybody, _, gradients, costs = learned
    doubled = gradients.copy()
    doubled[5] = 2 * doubled[4] + 1e-4 * doubled[6]
    found = learn_locals(doubled, everybody, people[1], costs)
    names = {d["name"] for d in found.descriptions}
    left_out = {local.name for local in LOCAL_ATTRIBUTES} - names
    assert len(left_out) == 1 and left_out <= {LOCAL_ATTRIBUTES[4].name, LOCAL_ATTRIBUTES[5].name}
    spread = (people[1] @ found.estimators[:, :-1].T).std(0)
    assert (np.linalg.norm(found.steps, axis=1) * spread).max() <= LARGEST_STEP


def test_a_small_model_keeps_what_it_can_move(learned, people):
    everybody, _, gradients, costs = learned
    few = slice(0, 20)
    settings, coefficients, _ = people
    small = np.concatenate([coefficients[:, few], coefficients[:, IDENTITY:]], axis=1)
    found = learn_locals(
        gradients[:, few], learn_globals(small, settings), small, replace(costs, modes=costs.modes[few])
    )
    assert 0 < len(found.descriptions) <= 15
    np.testing.assert_allclose(found.steps @ found.estimators[:, :-1].T, np.eye(len(found.steps)), atol=0.02)


def test_the_way_that_moves_less_elsewhere_is_taken():
    """Two modes widen the feature alike; the second moves a far vertex too."""
    modes = np.zeros((2, 2, 3))
    modes[:, 0, 0] = 1  # near
    modes[1, 1, 0] = 1  # far
    costs = ChangeCosts(modes, np.array([[0.0, 100.0]]), np.array([0.5, 0.5]))
    step = attributes.constrained_step(costs.inverse(0), np.array([[1.0, 1.0]]), 0)
    assert step.sum() == pytest.approx(1)
    assert step[0] > 0.9
    everywhere = ChangeCosts(modes, np.array([[0.0, 0.0]]), np.array([0.5, 0.5]))
    np.testing.assert_allclose(attributes.constrained_step(everywhere.inverse(0), np.array([[1.0, 1.0]]), 0), 0.5)


def test_areas_of_vertices():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [3, 0, 0], [3, 1, 0]], float)
    areas = vertex_areas(vertices, np.array([[0, 1, 2, 3], [1, 4, 5, 2]]))
    np.testing.assert_allclose(areas, np.array([1, 3, 3, 1, 2, 2]) / 12)


# --------------------------------------------------------------------------------------------- features of real heads


@pytest.mark.parametrize(
    ("group", "target", "name"),
    [
        ("nose", "nose-width3-incr", "nose_width"),
        ("nose", "nose-width2-incr", "nose_bridge_width"),
        ("nose", "nose-hump-incr", "nose_hump"),
        ("nose", "nose-point-up", "nose_tip_height"),
        ("nose", "nose-scale-depth-incr", "nose_protrusion"),
        ("eyes", "l-eye-height2-incr", "eye_size"),
        ("eyes", "l-eye-push1-out", "eye_width"),
        ("eyes", "l-eye-trans-out", "eye_spacing"),
        ("eyes", "l-eye-corner1-up", "eye_tilt"),
        ("eyebrows", "eyebrows-trans-up", "brow_height"),
        ("mouth", "mouth-angles-up", "lip_corner_height"),
        ("mouth", "mouth-scale-horiz-incr", "mouth_width"),
        ("mouth", "mouth-upperlip-height-incr", "upper_lip_fullness"),
        ("mouth", "mouth-lowerlip-height-incr", "lower_lip_fullness"),
        ("mouth", "mouth-scale-depth-incr", "lip_protrusion"),
        ("chin", "chin-width-incr", "chin_width"),
        ("chin", "chin-prominent-incr", "chin_prominence"),
        ("chin", "chin-height-incr", "chin_height"),
        ("cheek", "l-cheek-volume-incr", "cheek_fullness"),
        ("ears", "l-ear-flap-incr", "ear_protrusion"),
        ("ears", "l-ear-scale-vert-incr", "ear_size"),
        ("forehead", "forehead-temple-incr", "temple_width"),
    ],
)
def test_features_measure_what_their_names_say(source, group, target, name):
    """A sculptor's target of that name makes the measure larger, and hardly any other as much."""
    offsets = source.target(group, target)
    if target.startswith("l-"):
        offsets = offsets + source.target(group, "r-" + target[2:])
    before, after = (local_values(source.head.vertices[None] + share * offsets, source.head) for share in (0, 1))
    change = {key: float((after[key] - before[key])[0]) for key in before}
    assert change[name] > 0.5
    assert change[name] >= 0.5 * max(abs(value) for value in change.values())


def test_features_do_not_depend_on_where_the_head_is(source):
    base = source.head.vertices[None]
    moved = local_values(base + [0.3, -0.1, 0.2], source.head)
    for name, value in local_values(base, source.head).items():
        np.testing.assert_allclose(moved[name], value, atol=1e-9, err_msg=name)


def test_gradients_are_derivatives(source):
    rng = np.random.default_rng(3)
    mean = 1e3 * source.head.vertices
    modes = np.stack([rng.standard_normal(mean.shape) * 0.2, np.broadcast_to([1.0, 2.0, 3.0], mean.shape)])
    gradients = measure_gradients(mean, modes, source.head)
    before, after = (local_values(1e-3 * (mean + share * modes[0])[None], source.head) for share in (-0.05, 0.05))
    change = np.array([(after[local.name] - before[local.name])[0] / 0.1 for local in LOCAL_ATTRIBUTES])
    np.testing.assert_allclose(gradients[:, 0], change, atol=1e-2)
    np.testing.assert_allclose(gradients[:, 1], 0, atol=1e-9)


def test_names_units_and_places_of_the_features(source):
    assert len(LOCAL_ATTRIBUTES) >= 24 and len({local.name for local in LOCAL_ATTRIBUTES}) == len(LOCAL_ATTRIBUTES)
    assert {local.unit for local in LOCAL_ATTRIBUTES} == {"mm", "degrees"}
    assert all(local.name.isidentifier() and local.name == local.name.lower() for local in LOCAL_ATTRIBUTES)
    values = local_values(source.head.vertices[None], source.head)
    assert list(values) == [local.name for local in LOCAL_ATTRIBUTES]


# ------------------------------------------------------------------------------------------------------- the open model


def test_the_attributes_fit_a_model_file(source, model, tmp_path):
    file = replace(read_model_file(find_weights("open")), attribute_path=None, attribute_path_kept=None)
    settings = draw_settings(len(file.population), np.random.default_rng(0))
    again = with_attributes(file, file.population.astype(np.float64), settings, source.head)
    known = {"age", "gender", "weight", *ANCESTRIES, *(local.name for local in LOCAL_ATTRIBUTES)}
    assert {attribute["name"] for attribute in again.attributes} <= known
    assert read_model_file(again.write(tmp_path / "again.safetensors")).attributes == again.attributes


def test_open_model_moves_a_feature_and_no_other(source, model):
    light, people = model.coarse, [model.random(seed) for seed in range(8)]
    spread = {a.name: a.maximum / RANGE_DEVIATIONS for a in light.data.attributes}
    identity = np.stack([p.identity for p in people])

    def measured(values):
        return local_values(light.vertices(torch.from_numpy(values.astype(np.float32))).numpy(), source.head)

    before = measured(identity)
    for attribute in light.data.attributes:
        if attribute.name not in before:
            continue
        step = attribute.step[: identity.shape[1]] * spread[attribute.name]
        after = measured(identity + step)
        for name in before:
            if name not in spread:
                continue
            change = (after[name] - before[name]) / spread[name]
            if name == attribute.name:
                assert change.mean() == pytest.approx(1, abs=0.1), name
                assert change.min() > 0.7, name
            else:
                assert np.abs(change).mean() < 0.1, f"{attribute.name} moves {name}"


def test_open_model_has_enough_attributes(model):
    local = set(model.attribute_names) & {m.name for m in LOCAL_ATTRIBUTES}
    assert len(local) >= 24
    assert {"age", "gender", "weight", *ANCESTRIES} <= set(model.attribute_names)
    for attribute in model.data.attributes:
        assert attribute.minimum < attribute.maximum and attribute.unit
        assert attribute.estimator[:-1] @ attribute.step == pytest.approx(1, abs=0.02)
