"""Choosing a face, several photographs of one person, and textures merged from them."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from skimage.data import coffee

import faceverse as fv
from faceverse.fitting import multi_photo, photometric, quality_checks, solver
from faceverse.fitting.face_selection import count_comparable_faces, select_face
from faceverse.fitting.prior import IdentityPrior
from faceverse.fitting.state import FaceState
from faceverse.fitting.surface import surface_samples
from faceverse.fitting.texture_merge import merge_textures, pixel_density
from faceverse.graphics.camera import Camera, euler_deg_from_rotation, rotation_from_euler_deg, transform
from faceverse.graphics.lighting import default_light
from faceverse.landmarks import DetectedFace
from faceverse.model.skin_texture import SkinTexture
from faceverse.result import FittedView, head_from_params, with_params

CAMERA = Camera(900.0, (256.0, 256.0), (512, 512))
YAWS_DEG = (0, 32, -32)


# -- choosing a face --------------------------------------------------------------------------------------------------
def face_at(x0, y0, x1, y1):
    return DetectedFace(np.float32([x0, y0, x1, y1]), np.zeros((478, 2), np.float32), np.zeros(478), {}, None)


FOUND = [face_at(0, 0, 100, 100), face_at(80, 80, 170, 170), face_at(300, 0, 330, 30)]


@pytest.mark.parametrize(
    ("face", "chosen"),
    [
        (0, 0),
        (np.int64(2), 2),
        ("largest", 0),
        ((40, 40), 0),
        ((82, 84), 0),  # in both boxes: nearer to the centre of the first
        ((98, 98), 1),
        ((160, 10), 0),  # in none: 60 pixels from the first, 70 from the second
        ((1000.0, -5.0), 2),
        (np.array([310, 10]), 2),
    ],
)
def test_face_by_index_size_and_place(face, chosen):
    assert select_face(FOUND, face) is FOUND[chosen]


def test_points_are_in_pixels_of_the_photograph_itself():
    assert select_face(FOUND, (600, 20), scale=0.5) is FOUND[2]


def test_only_faces_of_similar_size_could_be_meant():
    assert count_comparable_faces(FOUND) == 2 and count_comparable_faces(FOUND[:1]) == 1


@pytest.mark.parametrize("face", ["left", (1, 2, 3), (1,), (float("nan"), 3), (True, 2), None, ("1", "2"), -1, 1.5])
def test_what_names_no_face_is_refused(face, astronaut, model):
    with pytest.raises(fv.ParameterError, match="face must be 0"):
        fv.fit(astronaut, model, face=face)


# -- arguments --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"face": [0]}, "face is a list of 1 for 2 photographs"),
        ({"focal_px": [900.0, 900.0, 900.0]}, "focal_px is a list of 3 for 2 photographs"),
        ({"face": [0, "left"]}, "face must be 0"),
        ({"focal_px": [900.0, 0]}, "focal_px must be a positive"),
    ],
)
def test_lists_need_an_entry_for_each_photograph(arguments, message, astronaut, model):
    with pytest.raises(fv.ParameterError, match=message):
        fv.fit([astronaut, astronaut], model, **arguments)


def test_an_empty_list_is_refused(model):
    with pytest.raises(fv.ParameterError, match="no photograph"):
        fv.fit([], model)


def test_the_photograph_without_a_face_is_named(astronaut, model):
    with pytest.raises(fv.NoFaceError, match=r"photograph 2 \(photo\): no face was found"):
        fv.fit([astronaut, coffee()], model, detail=False)
    with pytest.raises(fv.NoFaceError, match=r"photograph 1 \(photo\): 1 face was found, so face=3 does not exist"):
        fv.fit((astronaut, astronaut), model, face=[3, 0], detail=False)


# -- landmarks of several photographs ---------------------------------------------------------------------------------
def solutions_of_a_toy(lm, seed, views=3, noise_px=3.0):
    """Solutions of single pictures of one toy head, with noisy landmarks, and its identity."""
    rng = np.random.default_rng(seed)
    identity = 0.8 * rng.standard_normal(len(lm.identity))
    none = np.zeros(len(lm.expression))
    found = []
    for yaw in (0, 30, -30)[:views]:
        rotation = rotation_from_euler_deg(yaw, 4, 2).double().numpy()
        pixels = solver.project_points(lm.points(identity, none), rotation, np.array([0, 0, -0.7]), CAMERA)
        noisy = pixels + rng.normal(0, noise_px, pixels.shape)
        found.append(solver.solve_landmarks(lm, noisy, CAMERA, none))
    return found, identity


@pytest.fixture(scope="module")
def toy_landmarks(toy_model):
    return solver.landmark_model(toy_model, toy_model.landmarks_478)


def test_joint_identity_is_closer_than_those_of_single_photographs(toy_landmarks):
    single, joint = [], []
    for seed in range(6):
        found, truth = solutions_of_a_toy(toy_landmarks, seed)
        single.append(np.mean([np.linalg.norm(one.state.identity - truth) for one in found]))
        joint.append(np.linalg.norm(multi_photo.joint_identity(toy_landmarks, found) - truth))
    assert np.mean(joint) < 0.85 * np.mean(single)


def test_joint_identity_of_one_photograph_is_its_own(toy_landmarks):
    found, _ = solutions_of_a_toy(toy_landmarks, 0, views=1)
    np.testing.assert_allclose(multi_photo.joint_identity(toy_landmarks, found), found[0].state.identity, atol=1e-8)


def toy_photographs(model, lm, yaws=(0, 30)):
    """States of one person with expressions and lights of their own, and targets that show smooth waves."""
    rng = np.random.default_rng(1)
    identity = 0.5 * rng.standard_normal(len(lm.identity))
    albedo = 0.3 * rng.standard_normal(len(model.data.albedo_modes))
    camera = Camera(300.0, (64.0, 64.0), (128, 128))
    y, x = np.indices((128, 128)) / 20
    picture = (0.5 + 0.1 * np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1)).astype(np.float32)
    states, targets = [], []
    for yaw in yaws:
        expression = rng.uniform(0.1, 0.3, len(lm.expression))
        rotation = rotation_from_euler_deg(yaw, 4, 2).double().numpy()
        light = default_light().double().numpy() * rng.uniform(0.8, 1.2)
        translation = np.array([0, 0, -0.6])
        state = FaceState(
            rotation=rotation, translation=translation, expression=expression, identity=identity, albedo=albedo,
            light=light,
        )  # fmt: skip
        states.append(state)
        pixels = solver.project_points(lm.points(identity, expression), rotation, translation, camera) + 1
        term = solver.LandmarkTerm(lm, pixels, camera, np.full(len(pixels), 0.3), np.zeros((2 * len(pixels), 0)))
        inside = np.ones((128, 128), bool)
        targets.append(photometric.PhotometricTarget(picture, inside, camera, term, expression - 0.05))
    return states, targets


def refinement(model, targets):
    prior = IdentityPrior.of_population(len(model.tensor("identity_modes")))
    return photometric.Refinement(surface_samples(model), targets, photometric.STAGES[0], prior)


def test_places_of_one_photograph_are_all_and_two_share_the_person(toy_model, toy_landmarks):
    _, targets = toy_photographs(toy_model, toy_landmarks)
    one, two = refinement(toy_model, targets[:1]), refinement(toy_model, targets)
    total = one.sizes.total
    assert sorted(one.unknowns_of(0)) == list(range(total))
    first, second = two.unknowns_of(0), two.unknowns_of(1)
    person = len(toy_model.tensor("identity_modes")) + len(toy_model.tensor("albedo_modes"))
    assert sorted(set(first) | set(second)) == list(range(2 * total - person))
    _, identity, _, albedo, _ = two.sizes.blocks
    shared = np.zeros(total, bool)
    shared[identity] = shared[albedo] = True
    np.testing.assert_array_equal(first[shared], second[shared])
    assert set(first) & set(second) == set(first[shared])


def test_equations_of_two_photographs_are_those_of_each_with_the_person_counted_once(toy_model, toy_landmarks):
    states, targets = toy_photographs(toy_model, toy_landmarks)
    both = refinement(toy_model, targets)
    hessian, gradient = both.normal_equations(states, both.evaluate(states))
    _, identity, _, albedo, _ = both.sizes.blocks
    expected, slope = np.zeros_like(hessian), np.zeros_like(gradient)
    for number, (state, target) in enumerate(zip(states, targets, strict=True)):
        alone, places = refinement(toy_model, [target]), both.unknowns_of(number)
        own_hessian, own_gradient = alone.normal_equations([state], alone.evaluate([state]))
        order = alone.unknowns_of(0)
        expected[np.ix_(places, places)] += own_hessian[np.ix_(order, order)]
        slope[places] += own_gradient[order]
    for block, value in ((identity, states[0].identity), (albedo, states[0].albedo)):
        rows = both.unknowns_of(0)[block]
        expected[rows, rows] -= 1  # the unit prior, which each of them has
        slope[rows] -= value
    np.testing.assert_allclose(hessian, expected, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(gradient, slope, atol=1e-9 * np.abs(slope).max())
    # What is a photograph's own meets nothing of the other's.
    apart = [np.setdiff1d(both.unknowns_of(k), both.unknowns_of(1 - k)) for k in (0, 1)]
    assert not hessian[np.ix_(*apart)].any() and hessian[np.ix_(apart[0], apart[0])].any()


def test_one_step_keeps_the_person_common_and_expressions_within_limits(toy_model, toy_landmarks):
    states, targets = toy_photographs(toy_model, toy_landmarks)
    states = [dataclasses.replace(s, expression=0.01 * s.expression) for s in states]
    targets = [dataclasses.replace(t, expression=np.zeros_like(t.expression)) for t in targets]
    problem = refinement(toy_model, targets)
    moved = problem.step(states, problem.normal_equations(states, problem.evaluate(states)), 1e-3)
    for name in ("identity", "albedo"):
        np.testing.assert_array_equal(getattr(moved[0], name), getattr(moved[1], name))
        assert not np.allclose(getattr(moved[0], name), getattr(states[0], name))
    for name in ("rotation", "translation", "light", "expression"):
        change = [getattr(after, name) - getattr(before, name) for after, before in zip(moved, states, strict=True)]
        assert change[0].any() and not np.allclose(*change)
    assert min(s.expression.min() for s in moved) >= 0 and max(s.expression.max() for s in moved) <= 1
    assert any((s.expression < 1e-9).any() for s in moved)


# -- merged textures --------------------------------------------------------------------------------------------------
def flat(colour, confidence):
    rgb = np.broadcast_to(np.uint8(colour), (*confidence.shape, 3)).copy()
    return SkinTexture(rgb, (255 * confidence).astype(np.uint8))


def halves(size=128, overlap=30):
    """Confidence of two photographs, each of which sees one half and a strip of the other."""
    x = np.broadcast_to(np.arange(size), (size, size))
    return (x < size // 2 + overlap).astype(float), (x >= size // 2 - overlap).astype(float)


def test_photographs_of_other_brightness_leave_no_seam():
    left, right = halves()
    merged = merge_textures([flat((180, 140, 120), left), flat((150, 125, 110), right)], [left, right])
    assert np.abs(merged.rgb.astype(int) - (180, 140, 120)).max() <= 1
    assert (merged.confidence == 255).all()


def test_each_place_shows_the_photograph_that_sees_it_best():
    left, right = halves()
    stripes = flat((170, 140, 120), left)
    stripes.rgb[::2] += 12
    plain = flat((176, 146, 126), right)
    density = np.broadcast_to(np.linspace(1, 0.2, 128, dtype=np.float32), (128, 128))
    merged = merge_textures([stripes, plain], [density, density[:, ::-1]]).rgb.astype(float)
    contrast = np.abs(np.diff(merged[..., 0], axis=0)).mean(0)
    assert contrast[:58].min() > 10 and contrast[70:].max() < 1


def test_what_nobody_saw_keeps_the_first_completion():
    left, right = halves()
    left[80:] = right[80:] = 0
    first, second = flat((180, 140, 120), left), flat((180, 140, 120), right)
    first.rgb[90:], second.rgb[90:] = (60, 40, 30), (0, 255, 0)
    merged = merge_textures([first, second], [left, right])
    assert np.abs(merged.rgb[90:].astype(int) - (60, 40, 30)).max() <= 1
    assert (merged.confidence[80:] == 0).all()


def test_pixel_density_is_that_of_the_picture(toy_model):
    """A head at distance d shows focal_px / d pixels per metre where it faces the camera, none at its back."""
    params = toy_model.neutral().replace(translation=np.float32([0, 0, -2.0]))
    camera = Camera(4000.0, (256.0, 256.0), (512, 512))
    density = pixel_density(toy_model, params, camera, 128)
    assert density.max() == pytest.approx(4000 / 2 / 1000, rel=0.06)
    back = params.replace(rotation=rotation_from_euler_deg(180, 0, 0).numpy())
    assert ((density > 0) & (pixel_density(toy_model, back, camera, 128) > 0)).mean() < 0.02


# -- whole fits -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def person(model):
    """A random head in three poses under three lights: pictures, focal length, and the head."""
    truth = model.random(7002)
    pictures, camera = [], Camera(1150.0, (256.0, 256.0), (512, 512))
    head = head_from_params(model, truth.replace(translation=np.float32([0, 0, -0.7])), camera)
    for number, yaw in enumerate(YAWS_DEG):
        light = default_light().numpy() * (0.9 + 0.1 * number)
        light[1] += (-0.2, 0.2, 0.0)[number]
        pose = head.params.replace(rotation=rotation_from_euler_deg(yaw, 3, 0).numpy(), light=light.astype(np.float32))
        pictures.append(fv.render(with_params(head, pose), camera=camera, background=(90, 110, 130)).rgb)
    return pictures, camera.focal_px, head


@pytest.fixture(scope="module")
def together(person, model):
    pictures, focal_px, _ = person
    events = []
    result = fv.fit(pictures, model, detail=False, focal_px=focal_px, on_progress=lambda *event: events.append(event))
    return result, events


def shape_error_mm(found, truth, region):
    """Mean distance of vertices after the best rigid motion and scale."""
    a, b = (v[region].astype(np.float64) - v[region].mean(0) for v in (found, truth))
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1, 1, np.linalg.det(u @ vt)])
    moved = a @ ((u * sign) @ vt).T * ((s * sign).sum() / (a**2).sum())
    return 1000 * np.linalg.norm(moved - b, axis=1).mean()


def test_three_photographs_find_the_head_better_than_one(person, together, model):
    pictures, focal_px, head = person
    face = model.regions["face"]
    alone = [fv.fit(picture, model, detail=False, focal_px=focal_px) for picture in pictures]
    errors = [shape_error_mm(one.neutral_vertices, head.neutral_vertices, face) for one in alone]
    assert shape_error_mm(together[0].neutral_vertices, head.neutral_vertices, face) < np.mean(errors)
    seen = [(one.texture_confidence > 128).sum() for one in (*alone, together[0])]
    assert seen[-1] > 1.2 * max(seen[:-1])


def test_there_is_a_view_for_each_photograph(together):
    result, _ = together
    assert len(result.views) == 3
    yaws = [euler_deg_from_rotation(torch.from_numpy(view.rotation))[0] for view in result.views]
    np.testing.assert_allclose(yaws, YAWS_DEG, atol=4)
    first = result.views[0]
    for name in ("rotation", "translation", "expression", "light"):
        np.testing.assert_array_equal(getattr(first, name), getattr(result.params, name))
    np.testing.assert_array_equal(first.projected_landmarks_px, result.projected_landmarks_px)
    for view in result.views:
        eyes = np.linalg.norm(view.landmarks_px[33] - view.landmarks_px[263])
        assert np.linalg.norm(view.landmarks_px - view.projected_landmarks_px, axis=1).mean() < 0.04 * eyes
        head = result.model.vertices(*(torch.from_numpy(v)[None] for v in (result.params.identity, view.expression)))
        posed = transform(head[0], torch.from_numpy(view.rotation), torch.from_numpy(view.translation))
        assert posed[:, 2].max() < -0.3 and view.camera == result.camera


def test_progress_and_stages_cover_all_photographs(together):
    result, events = together
    fractions = [fraction for _, fraction, _ in events]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    photometric = ["photometric coarse", "photometric fine"]
    names = ["detection", "segmentation", "landmarks", *photometric, "alignment", "hair", "texture"]
    assert [stage.name for stage in result.stages] == names
    for stage in result.stages[2:6]:
        assert stage.after < stage.before and stage.after == pytest.approx(sum(stage.loss_terms.values()), rel=1e-4)
    assert result.warnings == ()


def test_one_photograph_in_a_list_is_a_single_fit(astronaut, model):
    single = fv.fit(astronaut, model, detail=False)
    listed = fv.fit([astronaut], model, face=["largest"], detail=False)
    np.testing.assert_array_equal(single.params.identity, listed.params.identity)
    np.testing.assert_array_equal(single.texture, listed.texture)
    assert listed.views == () == single.views


def test_views_survive_a_file(together, tmp_path, model):
    result, _ = together
    path = fv.export(result, tmp_path / "me.json")
    again = fv.load_result(path, model)
    assert len(again.views) == 3
    for before, after in zip(result.views, again.views, strict=True):
        assert (before.source, before.camera) == (after.source, after.camera)
        for name in FittedView.__dataclass_fields__.keys() - {"source", "camera"}:
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    document = json.loads(path.read_text(encoding="utf-8"))
    document["views"][1]["light"] = [[0.5]]
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(fv.ParameterError, match=r"light should have shape \(9, 3\)"):
        fv.load_result(path, model)
    del document["views"]  # as files of a single photograph are
    path.write_text(json.dumps(document), encoding="utf-8")
    assert fv.load_result(path, model).views == ()


def test_warnings_name_the_photograph(person, model, monkeypatch):
    pictures, focal_px, _ = person
    monkeypatch.setattr(quality_checks, "SMALL_FACE_PX", 500)
    warnings = fv.fit(pictures[:2], model, detail=False, focal_px=focal_px).warnings
    assert sum("(photo): the face is small" in text for text in warnings) == 2


def test_photographs_of_one_person_are_fitted_together(shared, model):
    faces = shared / "faces"
    result = fv.fit([faces / "obama.jpg", faces / "obama2.jpg"], model, detail=False)
    assert result.warnings == () and [view.source for view in result.views] == ["obama", "obama2"]


def test_two_people_need_a_choice(shared, model):
    path = shared / "faces/two_people.jpg"
    boxes = [face.box_px for face in fv.detect(path)]
    unsaid = fv.fit(path, model, detail=False)
    assert any("2 faces were found" in text for text in unsaid.warnings)
    middle = tuple(float(v) for v in (boxes[1][:2] + boxes[1][2:]) / 2)
    asked = fv.fit(path, model, face=middle, detail=False)
    np.testing.assert_allclose(asked.landmarks_px.min(0), boxes[1][:2], atol=1)
    assert not any("faces were found" in text for text in asked.warnings)
