"""Attributes with a bent path: estimates, edits there and back, files, random people of an age, the page's pack."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

import faceverse as fv
from faceverse.errors import ParameterError, WeightsError
from faceverse.model.arrays import packed, unpacked
from faceverse.model.data import AttributePath
from faceverse.model.face_model import FaceModel
from faceverse.model.file import read_model_file
from faceverse.training.growth_path import kept_by_growth
from faceverse.weights import model_data
from toy import ALBEDO, IDENTITY, toy_file, toy_model

GROWTH, BOYS = 6, 7  # identity coefficients of growth, which the toy's adults do not use
YEARS = (6.0, 12.0, 20.0, 85.0)


def grown_file():
    """The toy head with growth below 20 years: one coefficient by age, and one more for boys (gender 1)."""
    file, count = toy_file(), IDENTITY + ALBEDO
    step = file.attribute_step.astype(np.float64)
    step[:, [GROWTH, BOYS]] = 0
    weights = np.linalg.pinv(step).T
    weights[0, GROWTH] = -10.0
    constants = [20.0, 0.5]
    paths = np.zeros((len(YEARS), 2, count), np.float32)
    paths[:, 0, GROWTH] = (4, 2.5, 0, 0)
    paths[:, 1, BOYS] = (1, 0.8, 0, 0)
    paths[-1, 0] = 65 * step[0]
    positions = 20 + paths[:, 0].astype(np.float64) @ weights[0]
    knots = {"values": list(YEARS), "positions": positions.tolist(), "shares": [0.5, 0.7, 1.0, 1.0]}
    path = knots | {"modulator": "gender"}
    kept = kept_by_growth(weights, step, np.eye(1, ALBEDO), GROWTH)
    ages, gender = file.attributes
    population = np.random.default_rng(0).standard_normal((20, count)).astype(np.float16)
    population[:, [GROWTH, BOYS]] = 0
    return replace(
        file,
        attributes=(ages | {"minimum": 6.0, "maximum": 85.0, "path": path}, gender),
        attribute_step=step.astype(np.float32),
        attribute_estimator=np.column_stack([weights, constants]).astype(np.float32),
        attribute_path=paths,
        attribute_path_kept=kept.astype(np.float32),
        population=population,
    )


@pytest.fixture(scope="module")
def model():
    return FaceModel(model_data(grown_file()))


@pytest.fixture
def head(model):
    return fv.head(model.random(4), model, texture_size=16)


def values(head):
    return head.model.attributes(head.params)


# -- the path ---------------------------------------------------------------------------------------------------------
def test_a_path_is_linear_between_its_knots_and_beyond_them():
    offsets = np.array([[4.0, 0], [2, 0], [0, 0], [0, 6]])
    values, positions, shares = np.array([[6.0, 10, 20, 80], [-20, 0, 20, 80], [0.5, 0.7, 1, 1]])
    kept = np.array([[[0.6, 0.8]], [[1.0, 0.5]]])
    assert kept[0] @ kept[1].T == 1
    path = AttributePath(values, positions, offsets, "gender", 0.5 * offsets, shares, kept)
    np.testing.assert_allclose(path.individual(np.array([2.0, 1.0])), [0, 0], atol=1e-12)
    np.testing.assert_allclose(path.individual(np.array([4.0, -3.0])), [4, -3])
    assert path.scale(90, 8) == pytest.approx(0.6) and path.scale(6, 2) == 1 and path.scale(6, 10) == 1.4
    np.testing.assert_allclose(path.offset(8, 0), [3, 0])
    np.testing.assert_allclose(path.offset(8, 2), [6, 0])
    np.testing.assert_allclose(path.offset(90, 0), [0, 7])
    np.testing.assert_allclose(path.offset(4, 0), [5, 0])
    for position, value in ((-10, 8), (0, 10), (50, 50), (90, 90), (-30, 4)):
        assert path.value(position) == pytest.approx(value)


def test_ages_are_reached_and_nothing_else_changes(head):
    for years in (6, 7.5, 12, 19, 20, 33, 85):
        aged = fv.edit(head, age_years=years)
        assert values(aged)["age"] == pytest.approx(years, abs=1e-3)
        assert values(aged)["gender"] == pytest.approx(values(head)["gender"], abs=1e-5)
        assert aged.params.identity[GROWTH] == pytest.approx(np.interp(years, YEARS, (4, 2.5, 0, 0)), abs=1e-5)


def test_individual_features_are_weaker_in_children_but_the_kept_attributes_stay(head, model):
    path = model.data.attributes[0].path
    own = path.individual(np.concatenate([head.params.identity, head.params.albedo]))
    assert np.linalg.norm(own) > 0.5 and not own[[GROWTH, BOYS]].any()
    np.testing.assert_allclose(path.individual(own), own, atol=1e-6)
    assert np.abs([attribute.estimator[:-1] @ own for attribute in model.data.attributes]).max() < 1e-4
    for years, share in ((6, 0.5), (12, 0.7), (60, 1.0)):
        aged = fv.edit(head, age_years=years).params
        scaled = path.individual(np.concatenate([aged.identity, aged.albedo]))
        np.testing.assert_allclose(scaled, share * own, atol=1e-5)


def test_growing_up_and_ageing_are_different_directions(head):
    def change(first, second):
        moved = fv.edit(head, age_years=second).vertices - fv.edit(head, age_years=first).vertices
        return moved.ravel() / np.linalg.norm(moved)

    assert abs(change(6, 12) @ change(40, 80)) < 0.9
    assert change(25, 50) @ change(50, 80) == pytest.approx(1, abs=1e-4)


def test_there_and_back_is_the_same_head(head):
    start = values(head)["age"]
    for detour in ([8], [8, 70, 6], [70, 12]):
        moved = head
        for years in detour:
            moved = fv.edit(moved, age_years=years)
        assert np.abs(moved.vertices - head.vertices).max() > 1e-3
        back = fv.edit(moved, age_years=start)
        np.testing.assert_allclose(back.vertices, head.vertices, atol=1e-7)
        np.testing.assert_allclose(back.params.albedo, head.params.albedo, atol=1e-5)


def test_boys_grow_in_another_way_than_girls_whatever_the_order(head):
    boy = fv.edit(head, age_years=8, targets={"gender": 1.0})
    girl = fv.edit(fv.edit(head, age_years=8), targets={"gender": 0.0})
    at_eight = np.interp(8, YEARS, (1, 0.8, 0, 0))
    assert boy.params.identity[BOYS] - girl.params.identity[BOYS] == pytest.approx(at_eight, abs=1e-4)
    first = fv.edit(fv.edit(head, targets={"gender": 1.0}), age_years=8)
    np.testing.assert_allclose(first.params.identity[GROWTH:], boy.params.identity[GROWTH:], atol=1e-5)
    adult = fv.edit(head, targets={"gender": 1.0, "age": 30})
    assert adult.params.identity[BOYS] == pytest.approx(head.params.identity[BOYS], abs=1e-6)


def test_relative_changes_follow_the_path_and_stop_at_its_ends(head):
    start = values(head)["age"]
    np.testing.assert_allclose(
        fv.edit(head, age=9 - start).params.identity, fv.edit(head, age_years=9).params.identity, atol=1e-5
    )
    for amount, limit in ((-500, 6), (500, 85)):
        edited = fv.edit(head, age=amount)
        assert values(edited)["age"] == pytest.approx(limit, abs=0.01)
        assert any("6 to 85" in warning for warning in edited.warnings)
    low, high = fv.attribute_limits(head)["age"]
    assert (low, high) == pytest.approx((6 - start, 85 - start), abs=1e-4)


# -- random people ----------------------------------------------------------------------------------------------------
def test_random_people_are_adults_unless_an_age_is_given(model):
    for seed in range(20):
        adult = model.random(seed)
        assert not adult.identity[[GROWTH, BOYS]].any() and adult.identity.any()
    child = model.random(3, age=8)
    assert model.attributes(child)["age"] == pytest.approx(8, abs=1e-3)
    np.testing.assert_allclose(child.identity[:GROWTH], fv.edit(fv.head(model.random(3), model, texture_size=4),
                               age_years=8).params.identity[:GROWTH], atol=1e-5)  # fmt: skip
    with pytest.raises(ParameterError, match="from 6.0 to 85.0, got 3"):
        model.random(3, age=3)
    with pytest.raises(ParameterError, match="age"):
        FaceModel(replace(model.data, attributes=())).random(1, age=30)


def test_random_variations_keep_within_the_ages(head):
    for seed in range(6):
        changed = fv.randomize(head, seed)
        assert 6 <= values(changed)["age"] <= 85
        assert changed.params.identity[GROWTH] >= -1e-6


# -- files ------------------------------------------------------------------------------------------------------------
def test_both_formats_keep_the_path(tmp_path, model):
    stored = read_model_file(grown_file().write(tmp_path / "model.safetensors"))
    arrays, text = packed(model.data)
    for data in (model_data(stored), unpacked(arrays, text, "somewhere")):
        path, expected = data.attributes[0].path, model.data.attributes[0].path
        assert path.modulator == "gender" and data.attributes[1].path is None
        for name in ("values", "positions", "offsets", "modulated", "shares", "kept"):
            np.testing.assert_array_equal(getattr(path, name), getattr(expected, name))


def test_files_without_paths_stay_as_they_were(tmp_path):
    arrays, text = packed(toy_model().data)
    assert "attributes.path" not in arrays and "path" not in text["attributes"]
    assert "attribute_path" not in toy_file().arrays()


def changed_path(**changes):
    file = grown_file()
    age, gender = file.attributes
    return replace(file, attributes=(age | {"path": age["path"] | changes}, gender))


@pytest.mark.parametrize(
    "file",
    [
        changed_path(values=[6, 12, 20]),
        changed_path(values=[6, 20, 12, 85]),
        changed_path(positions=[1, 1, 2, 3]),
        changed_path(positions="abcd"),
        changed_path(values=[6, 12, 20, float("inf")]),
        changed_path(modulator="age"),
        changed_path(shares=[0, 0.5, 1, 1]),
        replace(grown_file(), attribute_path_kept=None),
        replace(grown_file(), attribute_path_kept=np.zeros((2, 3), np.float32)),
        changed_path(modulator=[]),
        changed_path(extra=1),
        replace(grown_file(), attribute_path=None),
        replace(toy_file(), attribute_path=np.zeros((2, 2, IDENTITY + ALBEDO), np.float32)),
    ],
)
def test_paths_that_do_not_fit_are_refused(tmp_path, file):
    with pytest.raises(WeightsError):
        file.write(tmp_path / "bad.safetensors")
    assert not (tmp_path / "bad.safetensors").exists()


def test_stored_models_with_paths_that_do_not_fit_are_refused(model):
    arrays, text = packed(model.data)
    with pytest.raises(WeightsError):
        unpacked({key: value for key, value in arrays.items() if key != "attributes.path"}, text, "somewhere")
    short = arrays | {"attributes.path": arrays["attributes.path"][..., :-1]}
    with pytest.raises(WeightsError):
        unpacked(short, text, "somewhere")


# -- the page ---------------------------------------------------------------------------------------------------------
def test_the_pack_holds_few_directions_that_span_the_path(model):
    view_files = pytest.importorskip("demo.view_files")
    content = gzip.decompress(view_files.model_pack(model))
    header = json.loads(content[4 : 4 + int.from_bytes(content[:4], "little")])
    age, gender = header["values"]["attributes"]
    assert (age["first"], gender["first"], len(header["values"]["directions"])) == (0, 3, 4)
    assert age["path"]["values"] == list(YEARS) and age["path"]["modulator"] == "gender"
    assert np.abs(age["path"]["offsets"]).max() <= 1.0001 and len(age["path"]["modulated"]) == len(YEARS)
