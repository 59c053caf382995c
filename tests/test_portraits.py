"""Random portraits: people, faces, pictures, detections, and the cache."""

import numpy as np
import pytest
import torch
from PIL import Image

from faceverse.errors import ParameterError, WeightsError
from faceverse.graphics.camera import Camera, project, transform
from faceverse.training import occluders, portraits
from faceverse.training.occluders import HeadPose
from faceverse.training.portraits import (
    PortraitSamples,
    collect_samples,
    draw_samples,
    random_expression,
    random_person,
    random_view,
    render_portrait,
)
from toy import toy_model


@pytest.fixture(scope="module")
def samples(model):
    return draw_samples(model, range(2), seed=5, views=2)


def first_picture(model, seed):
    rng = np.random.default_rng(seed)
    person, expression, view = random_person(model, rng), random_expression(model, rng), random_view(rng)
    return render_portrait(model, person, expression, view, rng)


def test_people_are_as_pronounced_as_people():
    model = toy_model()
    spread = [np.sqrt((random_person(model, np.random.default_rng(seed)).identity ** 2).mean()) for seed in range(60)]
    assert 0.7 < np.median(spread) < 1.6
    assert max(spread) > 1.4 > 0.9 > min(spread)


def test_what_lies_beyond_the_model_is_not_in_its_coefficients(model):
    rows, projection = portraits.identity_projection(model)
    person = random_person(model, np.random.default_rng(1))
    beyond = person.beyond[rows]
    left = np.tensordot(projection @ beyond.reshape(-1), model.identity_modes[:, rows], 1)
    assert np.linalg.norm(beyond, axis=1).max() > 2e-4
    assert np.linalg.norm(left) < 0.4 * np.linalg.norm(beyond)  # the ridge leaves some


def test_faces_are_made_as_people_make_them(model):
    names = np.array(model.expression_names)
    drawn = np.stack([random_expression(model, np.random.default_rng(seed)) for seed in range(300)])
    moved = drawn[:, [not name.startswith("eyeLook") for name in names]]
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert 0.25 < (moved.max(1) == 0).mean() < 0.45
    often = {name: float((drawn[:, k] > 0.05).mean()) for k, name in enumerate(names)}
    assert often["jawOpen"] > 2 * often["cheekPuff"] and often["mouthSmileLeft"] > 2 * often["noseSneerLeft"]
    assert often["tongueOut"] == 0
    left, right = (drawn[:, names == f"mouthSmile{side}"] for side in ("Left", "Right"))
    assert np.corrcoef(left[:, 0], right[:, 0])[0, 1] > 0.8


def test_views_show_the_face(model):
    marks = model.landmarks_478
    points = (model.mean_vertices[model.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)
    heights, turns = [], []
    for seed in range(80):
        view = random_view(np.random.default_rng(seed))
        posed = transform(torch.from_numpy(points.astype(np.float32)), view.rotation, view.translation)
        pixels = project(posed, view.camera)[:, :2].numpy()
        size = np.array(view.camera.image_size[::-1])
        assert ((pixels > -0.1 * size) & (pixels < 1.1 * size)).all()
        heights.append(np.ptp(pixels[:, 1]))
        turns.append(abs(np.degrees(np.arcsin(-view.rotation[2, 0].item()))))
    assert min(heights) < 80 and max(heights) > 180
    assert np.median(turns) < 30 and max(turns) > 50


def test_pictures_follow_their_seed(model):
    first, _ = first_picture(model, 3)
    again, _ = first_picture(model, 3)
    other, _ = first_picture(model, 4)
    assert first.dtype == np.uint8 and first.shape[0] == first.shape[1] and first.shape[2] == 3
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
    assert first.std() > 10


@pytest.mark.parametrize("draw", ["_shadow", "_glasses", "_hand"])
def test_occluders_change_a_part_of_the_picture(model, draw):
    plain, pose = first_picture(model, 3)
    changed = np.asarray(getattr(occluders, draw)(Image.fromarray(plain), pose, np.random.default_rng(0)))
    share = (np.abs(changed.astype(int) - plain).max(-1) > 3).mean()
    assert changed.shape == plain.shape
    assert 0.005 < share < 0.95


def test_hair_hangs_where_it_was_told(model):
    plain, pose = first_picture(model, 3)
    rng = np.random.default_rng(0)
    polygon = occluders.fringe_polygon(pose, rng)
    changed = occluders.draw_hair(Image.fromarray(plain), polygon, pose, np.array([10.0, 250.0, 10.0]), rng)
    difference = np.abs(np.asarray(changed, int) - plain).max(-1) > 20
    rows = np.flatnonzero(difference.any(1))
    chin = pose.pixels(pose.points[[152]])[0, 1]
    assert difference.any() and rows.max() < chin


def test_grooming_leaves_the_middle_of_the_face(model):
    person = random_person(model, np.random.default_rng(0))
    head = model.mean_vertices
    moved = False
    for seed in range(8):
        vertices, albedo = occluders.add_hair(model, head, person.albedo, person.hair, np.random.default_rng(seed))
        shift = np.linalg.norm(vertices - head, axis=1)
        assert shift[model.regions["eyelids"]].max() == 0
        assert shift.max() < 0.06 and albedo.min() > 0
        moved = moved or shift[model.regions["scalp"]].max() > 0.003
    assert moved


def test_pose_is_the_camera_of_the_head():
    points = np.random.default_rng(0).normal(size=(478, 3)).astype(np.float32) * 0.05
    camera = Camera(500.0, (100.0, 90.0), (200, 200))
    pose = HeadPose(torch.eye(3), torch.tensor([0.0, 0.0, -0.5]), camera, points)
    assert np.allclose(pose.pixels(np.zeros((1, 3))), [[100, 90]])
    assert pose.eyes_px == pytest.approx(500 * np.linalg.norm(points[33] - points[263]) / 0.5)


def test_samples_tell_the_truth(model, samples):
    assert 2 <= len(samples) <= 4
    marks = model.landmarks_478
    for k in range(len(samples)):
        head = model.vertices(torch.from_numpy(samples.identity[[k]]), torch.from_numpy(samples.expression[[k]]))[0]
        points = (head.numpy()[model.faces[marks.triangle]] * marks.barycentric[..., None]).sum(1)
        posed = points @ samples.rotation[k].T + samples.translation[k]
        height, width = samples.photo_size[k]
        scale = samples.focal_px[k] / -posed[:, 2:]
        expected = np.array([width / 2, height / 2]) + scale * posed[:, :2] * (1, -1)
        eyes = np.linalg.norm(expected[33] - expected[263])
        distance = np.linalg.norm(expected - samples.landmarks_px[k], axis=1).mean()
        assert distance < 0.25 * samples.focal_px[k] * 0.09 / -samples.translation[k, 2] + 0.05 * eyes
    face = samples.face(0)
    assert face.landmarks_px.shape == (478, 2) and len(face.blendshapes) == 51
    assert np.allclose(face.box_px[:2], face.landmarks_px.min(0))


def test_cached_samples_are_not_drawn_again(model, tmp_path, monkeypatch):
    lines = []
    first = collect_samples(model, 2, seed=5, cache=tmp_path / "new", report=lines.append)
    monkeypatch.setattr(portraits, "draw_samples", None)
    again = collect_samples(model, 2, seed=5, cache=tmp_path / "new")
    assert len(first) == 2 and lines
    for name in PortraitSamples.__dataclass_fields__:
        assert np.array_equal(getattr(first, name), getattr(again, name))


def test_a_cache_of_another_model_is_refused(model, tmp_path):
    collect_samples(model, 1, seed=5, cache=tmp_path)
    with pytest.raises(WeightsError, match="made for another model; name an empty folder"):
        collect_samples(toy_model(), 1, seed=5, cache=tmp_path)


def test_a_cache_that_is_a_file_is_refused(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot make the folder"):
        collect_samples(model, 1, seed=5, cache=tmp_path / "file")


def test_at_least_one_sample(model):
    with pytest.raises(ParameterError, match="samples must be 1 or more"):
        collect_samples(model, 0, seed=0)


def test_a_head_nobody_recognises_is_refused(monkeypatch):
    monkeypatch.setattr(portraits, "detect_faces", lambda rgb, max_faces: [])
    with pytest.raises(ParameterError, match="finds no face"):
        collect_samples(toy_model(), 1, seed=0)
