"""The benchmark of fitting: portraits match their ground truth, errors are zero at the truth, tables add up."""

import importlib.util
from dataclasses import replace

import bm_fit
import fit_heads
import numpy as np
import pytest
import torch

import faceverse as fv
from faceverse.graphics.camera import Camera, rotation_from_euler_deg
from faceverse.graphics.lighting import default_light


def scene(yaw_deg=0.0, seed=0):
    """A head in the middle of a square picture, half a metre away."""
    return fit_heads.Scene(
        Camera(500.0, (150.0, 150.0), (300, 300)), rotation_from_euler_deg(yaw_deg, 0, 0),
        torch.tensor([0.0, 0.0, -0.6]), default_light(), yaw_deg, noise=1.0, quality=90, seed=seed,
    )  # fmt: skip


def toy_person(model):
    vertices = model.mean_vertices
    return fit_heads.SyntheticPerson(vertices, vertices, model.mean_albedo, {"sex": "female"})


# -- pictures ---------------------------------------------------------------------------------------------------------
def test_scenes_span_what_they_promise():
    scenes = [fit_heads.random_scene(number) for number in range(200)]
    for s in scenes:
        height, width = s.camera.image_size
        focal_mm = s.camera.focal_px * fit_heads.DIAGONAL_MM / np.hypot(height, width)
        assert 23.9 < focal_mm < 85.1 and height <= 2401 and 60 <= s.quality <= 95
        assert 0.29 < -float(s.translation[2]) - fit_heads.FACE_FRONT_M < 2.51
        # The angle between the face's direction and the line of sight is yaw and pitch together.
        line_of_sight = -s.translation.double().numpy() / np.linalg.norm(s.translation)
        angle_deg = np.degrees(np.arccos(s.rotation[:, 2].double().numpy() @ line_of_sight))
        assert abs(s.yaw_deg) - 0.01 < angle_deg < abs(s.yaw_deg) + fit_heads.PITCH_DEG + 0.01
    assert max(abs(s.yaw_deg) for s in scenes) > 55
    assert np.ptp([s.camera.image_size[0] for s in scenes]) > 1000


def test_a_portrait_shows_the_head_where_its_landmarks_are(toy_model):
    portrait = fit_heads.photograph(toy_model, toy_person(toy_model), scene())
    assert portrait.rgb.shape == (300, 300, 3) and portrait.rgb.dtype == np.uint8
    right, left = portrait.landmarks_px[list(fit_heads.OUTER_EYE_CORNERS)]
    assert portrait.eyes_px == pytest.approx(np.linalg.norm(right - left), rel=1e-3)
    aside = replace(scene(), translation=torch.tensor([0.15, 0, -0.6]))
    moved = fit_heads.photograph(toy_model, toy_person(toy_model), aside)
    x, y = portrait.landmarks_px.mean(0).round().astype(int)
    changed = np.abs(portrait.rgb.astype(int) - moved.rgb).sum(-1) > 30
    assert changed[y - 5 : y + 6, x - 5 : x + 6].mean() > 0.9 and not changed[:10].any()
    np.testing.assert_allclose(moved.landmarks_px - portrait.landmarks_px, [[125, 0]] * 478, atol=40)


def test_turning_away_does_not_shorten_the_eye_distance(toy_model):
    front, turned = (fit_heads.photograph(toy_model, toy_person(toy_model), scene(yaw)) for yaw in (0, 50))
    assert turned.eyes_px == pytest.approx(front.eyes_px, rel=0.1)
    right, left = turned.landmarks_px[list(fit_heads.OUTER_EYE_CORNERS)]
    assert np.linalg.norm(right - left) < 0.8 * turned.eyes_px
    assert (front.groups["yaw"], turned.groups["yaw"], turned.groups["sex"]) == ("0-15", "30-60", "female")


def test_same_number_same_picture(toy_model):
    person = toy_person(toy_model)
    first, again, other = (fit_heads.photograph(toy_model, person, scene(seed=seed)).rgb for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


def test_skin_tones_are_named():
    tones = [fit_heads.skin_tone(np.array(c)) for c in ((0.75, 0.53, 0.42), (0.4, 0.22, 0.13), (0.06, 0.03, 0.02))]
    assert tones == ["light", "intermediate", "dark"]


def test_without_their_source_heads_are_the_models_own(model, monkeypatch):
    monkeypatch.setattr(fit_heads, "held_out_heads", lambda count: None)
    people, held_out = fit_heads.synthetic_people(model, 3)
    assert not held_out and len(people) == 3
    assert all(set(person.groups) == {"skin"} for person in people)
    assert not np.allclose(people[0].neutral, people[1].neutral)


@pytest.mark.slow
def test_groups_belong_to_their_heads(model):
    if importlib.util.find_spec("anny") is None:
        pytest.skip("held-out heads need the package anny")
    people, held_out = fit_heads.synthetic_people(model, 20)
    assert held_out
    estimate = [
        model.attributes(model.neutral().replace(identity=fit_heads.closest_identity(model, p.neutral)))["gender"]
        for p in people
    ]
    male = np.array([p.groups["sex"] == "male" for p in people])
    assert abs(np.corrcoef(estimate, male)[0, 1]) > 0.6


# -- errors -----------------------------------------------------------------------------------------------------------
def test_shape_error_ignores_similarity_and_nothing_else(toy_model):
    truth = toy_model.mean_vertices.astype(np.float64)
    rows = np.arange(len(truth))
    moved = 1.2 * truth @ rotation_from_euler_deg(20, 5, 3).double().numpy().T + 0.1
    assert fit_heads.shape_error_mm(moved, truth, rows) < 1e-4
    noise = 1e-3 * np.random.default_rng(0).standard_normal(truth.shape)
    assert fit_heads.shape_error_mm(truth + noise, truth, rows) == pytest.approx(1.6, abs=0.15)


def test_pose_error_is_the_angle(toy_model):
    truth = toy_model.mean_vertices
    rotated = truth @ rotation_from_euler_deg(7, 0, 0).numpy().T + 0.2
    assert fit_heads.pose_error_deg(rotated, truth, np.arange(len(truth))) == pytest.approx(7, abs=0.01)


def test_a_portrait_is_measured(model, monkeypatch):
    monkeypatch.setattr(fit_heads, "held_out_heads", lambda count: None)
    person = fit_heads.synthetic_people(model, 1)[0][0]
    portrait = fit_heads.photograph(model, person, scene(10))
    one, result = bm_fit.measure(model, portrait)
    assert one.failure == "" and result is not None
    assert 0 < one.figures["full fit", "shape"] < 6 and 0 < one.figures["landmarks only", "shape"] < 6
    assert one.figures["full fit", "landmarks"] < 6 and one.figures["full fit", "pose"] < 8
    assert bm_fit.colour_error(result, portrait.rgb, textured=True) < one.figures["full fit", "colour"] < 25
    assert list(one.seconds)[:3] == ["detection", "segmentation", "landmarks"]


def test_a_picture_without_a_face_is_a_failure(toy_model, model):
    flat = np.full((200, 200, 3), 120, np.uint8)
    truth = fit_heads.photograph(toy_model, toy_person(toy_model), scene())
    portrait = replace(truth, rgb=flat)
    one, result = bm_fit.measure(model, portrait)
    assert one.failure == "no face found" and one.figures == {} and result is None


# -- tables -----------------------------------------------------------------------------------------------------------
def test_tables_hold_medians_and_count_failures():
    def one(sex, shape, failure=""):
        figures = {(method, "shape"): shape * k for k, method in enumerate(("full fit", "landmarks only"), start=1)}
        figures["mean head", "shape"] = 4 * shape
        return bm_fit.Measured({} if failure else figures, {}, {"sex": sex}, failure)

    measured = [one("female", 1.0), one("female", 3.0), one("female", 9.0), one("male", 2.0), one("male", 0, "no face")]
    lines = {line.split("  ")[1]: line.split() for line in bm_fit.splits(measured).splitlines()[1:]}
    assert lines["sex: female"][2:] == ["3", "0", "12.00", "6.00", "3.00", "7.80", "0.25"]
    assert lines["sex: male"][2:] == ["2", "1", "8.00", "4.00", "2.00", "2.00", "0.25"]
    assert "2.50 / 7.20" in bm_fit.summary(measured).splitlines()[3]


def test_groups_are_in_the_order_of_their_numbers():
    groups = ["above 400", "30-60", "0-15", "below 180", "180-400", "15-30"]
    assert sorted(groups, key=bm_fit.group_order) == ["below 180", "0-15", "15-30", "30-60", "180-400", "above 400"]


def test_missing_recogniser_prints_one_line(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert bm_fit.face_descriptor() is None
    printed = capsys.readouterr().out
    assert "pip install dlib-bin face-recognition-models" in printed and printed.count("\n") == 1


def test_folder_without_photographs_is_an_error(tmp_path, toy_model):
    with pytest.raises(fv.ImageError, match="there are no photographs"):
        bm_fit.photos_part(toy_model, tmp_path)
    with pytest.raises(SystemExit) as stopped:
        bm_fit.main(["--only", "photos", "--photos", str(tmp_path)])
    assert str(stopped.value).startswith("error: there are no photographs")


def test_wrong_arguments_are_refused(capsys):
    for arguments in (["--only", "photos"], ["--heads", "0"]):
        with pytest.raises(SystemExit) as stopped:
            bm_fit.main(arguments)
        assert stopped.value.code == 2
    capsys.readouterr()
