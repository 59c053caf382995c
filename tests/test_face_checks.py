"""What is fitted and what is refused: heads upside down, profiles, far away, half seen, masked, animals."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

import faceverse as fv
from faceverse.face_score import HUMAN_SCORE
from faceverse.fitting.face_checks import choose_face
from faceverse.graphics.camera import Camera, project, quarter_turn_matrix, transform, turned_points
from faceverse.graphics.lighting import rotated_light, shading
from faceverse.landmarks import detect_faces, eye_spread_percent

GREY = (120, 130, 140)


@pytest.fixture(scope="module")
def portrait():
    """The sample photograph and the face in it."""
    rgb = pytest.importorskip("skimage.data").astronaut()
    return rgb, detect_faces(rgb)[0]


def painted_bear(seed):
    """A bear's face with fur, eyes, muzzle and ears, (400, 400, 3) uint8."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (400, 400), (120, 150, 110))
    draw = ImageDraw.Draw(picture)
    fur = rng.uniform([110, 70, 40], [200, 160, 120])
    dark, light = (tuple(np.minimum(255, fur * k).astype(int).tolist()) for k in (1.0, 1.35))
    size = rng.uniform(110, 140)

    def ellipse(x, y, across, down, color):
        draw.ellipse([200 + size * v for v in (x - across, y - down, x + across, y + down)], fill=color)

    def arc(x0, y0, x1, y1, start, end, color):
        draw.arc([200 + size * v for v in (x0, y0, x1, y1)], start, end, fill=color, width=6)

    for side in (-1, 1):
        ellipse(0.75 * side, -0.9, 0.33, 0.33, dark)
        ellipse(0.75 * side, -0.9, 0.18, 0.18, light)
    ellipse(0, 0, 1, rng.uniform(0.95, 1.1), dark)
    for side in (-1, 1):
        x = side * rng.uniform(0.33, 0.42)
        ellipse(x, -0.22, 0.13, 0.12, (240, 235, 225))
        ellipse(x, -0.22, 0.09, 0.09, (30, 18, 10))
        arc(x - 0.2, -0.55, x + 0.2, -0.2, 200, 340, (40, 25, 15))
    ellipse(0, 0.42, 0.5, 0.38, light)
    ellipse(0, 0.25, 0.17, 0.12, (25, 20, 20))
    arc(-0.3, 0.3, 0.3, 0.62, 20, 160, (70, 30, 30))
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(2)), np.float64)
    hairs = gaussian_filter(rng.normal(0, 1, pixels.shape[:2]), 1)
    return np.clip(pixels + 25 * hairs[..., None], 0, 255).astype(np.uint8)


def masked(rgb, face):
    """The photograph with a white mask over mouth and nose."""
    picture = Image.fromarray(rgb)
    points = face.landmarks_px[[93, 116, 6, 345, 323, 288, 365, 152, 136, 58]]
    ImageDraw.Draw(picture).polygon([tuple(map(float, point)) for point in points], fill=(225, 235, 240))
    return np.asarray(picture)


# -- orientation ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_photographs_show_the_same_face(portrait, turns):
    rgb, face = portrait
    found = detect_faces(np.ascontiguousarray(np.rot90(rgb, turns)))
    expected = face.quarter_turned(turns, rgb.shape[:2])
    assert len(found) == 1 and found[0].quarter_turns == -turns % 4 and face.quarter_turns == 0
    np.testing.assert_allclose(found[0].landmarks_px, expected.landmarks_px, atol=0.01)
    np.testing.assert_allclose(found[0].box_px, expected.box_px, atol=0.01)
    np.testing.assert_allclose(found[0].rotation, expected.rotation, atol=1e-5)


def test_turned_points_follow_the_pixels():
    image = np.zeros((5, 9), np.uint8)
    image[1, 6] = 1
    for turns in range(-1, 5):
        ((row, column),) = np.argwhere(np.rot90(image, turns))
        point = turned_points(np.array([[6.5, 1.5]]), turns, image.shape)[0]
        np.testing.assert_array_equal(point, [column + 0.5, row + 0.5])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_cameras_and_light_see_turned_heads(turns):
    rng = np.random.default_rng(turns)
    points, turn = rng.normal(0, 0.1, (20, 3)) - (0, 0, 1), quarter_turn_matrix(turns)
    camera = Camera(700.0, (250.0, 180.0), (360, 512))
    before = project(torch.from_numpy(points), camera)[:, :2].numpy()
    after = project(torch.from_numpy(points @ turn.T), camera.quarter_turned(turns))[:, :2].numpy()
    np.testing.assert_allclose(after, turned_points(before, turns, camera.image_size))
    light, normals = rng.normal(0, 1, (9, 3)), points / np.linalg.norm(points, axis=1, keepdims=True)
    shaded = (
        shading(torch.from_numpy(n), torch.from_numpy(coefficients)).numpy()
        for n, coefficients in ((normals, light), (normals @ turn.T, rotated_light(light, turn)))
    )
    np.testing.assert_allclose(*shaded, atol=1e-12)


def test_a_photograph_upside_down_gives_the_same_head_in_its_own_pixels(portrait, model):
    rgb, _ = portrait
    turned = np.ascontiguousarray(np.rot90(rgb, 2))
    upright, result = fv.fit(rgb, model, detail=False), fv.fit(turned, model, detail=False)
    np.testing.assert_allclose(result.neutral_vertices, upright.neutral_vertices, atol=1e-5)
    assert result.params.styles == upright.params.styles
    assert [warning.code for warning in result.warnings] == ["quality.upside_down"]
    pose = (result.vertices, result.params.rotation, result.params.translation)
    posed = transform(*(torch.from_numpy(values) for values in pose))
    triangles, weights = model.fit_landmarks.triangle, model.fit_landmarks.barycentric
    projected = project(posed, result.camera)[:, :2].numpy()[model.faces[triangles]]
    np.testing.assert_allclose((projected * weights[..., None]).sum(axis=1), result.projected_landmarks_px, atol=0.2)
    drawn = fv.overlay(turned, result).astype(int)
    assert np.abs(drawn - np.rot90(fv.overlay(rgb, upright), 2)).mean() < 0.05


def test_a_face_far_away_in_a_panorama(portrait):
    rgb, face = portrait
    picture = Image.new("RGB", (4000, 700), GREY)
    picture.paste(Image.fromarray(rgb[0:300, 100:400]).resize((160, 160), Image.Resampling.LANCZOS), (2900, 330))
    found = detect_faces(np.asarray(picture))  # the face is 48 pixels wide
    expected = (face.landmarks_px - (100, 0)) * 160 / 300 + (2900, 330)
    assert len(found) == 1 and np.linalg.norm(found[0].landmarks_px - expected, axis=1).mean() < 2


# -- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", [0, 5, 6, 9])
def test_animals_are_refused(seed):
    bear = painted_bear(seed)
    found = detect_faces(bear)
    assert found and found[0].score < HUMAN_SCORE and eye_spread_percent(bear, found[0]) > 1
    for call in (fv.fit, fv.segment):
        with pytest.raises(fv.NoFaceError, match="does not look human"):
            call(bear)


@pytest.mark.parametrize("amounts", [{"age": -36, "african": 0.8}, {"asian": 0.8, "weight": 2}, {"age": 40}])
def test_people_of_all_kinds_are_not_refused(astronaut_fit, amounts):
    head = fv.edit(astronaut_fit[0], **amounts, expression={"jawOpen": 0.7, "mouthFunnel": 0.5})
    for yaw in (0, 40):
        picture = fv.render(head, size=260, rotation=(yaw, 10, 0), background=GREY).rgb
        found = detect_faces(picture)
        assert found[0].score > HUMAN_SCORE and choose_face(picture, found, 0) is found[0]


def test_a_masked_face_is_not_taken_for_an_animal(portrait):
    rgb = masked(*portrait)
    found = detect_faces(rgb)
    assert found[0].score < HUMAN_SCORE  # its eyes decide
    assert choose_face(rgb, found, 0) is found[0]


@pytest.mark.parametrize("part", ["left", "right", "top"])
def test_half_a_face_is_not_taken_for_an_animal(portrait, part):
    rgb, face = portrait
    x, y = face.landmarks_px[4].astype(int)
    half = {"left": rgb[:, : x + 8], "right": rgb[:, x - 8 :], "top": rgb[: y + 20]}[part]
    half = np.ascontiguousarray(half)
    found = detect_faces(half)
    if found:
        assert choose_face(half, found, 0) is found[0]
    else:
        with pytest.raises(fv.NoFaceError, match="cannot be made out|no face was found"):
            choose_face(half, found, 0)


@pytest.mark.parametrize("mirrored", [False, True])
def test_profiles_are_named(astronaut_fit, mirrored):
    picture = fv.render(astronaut_fit[0], size=300, rotation=(78, 0, 0), background=GREY).rgb
    with pytest.raises(fv.NoFaceError, match="seen from the side"):
        fv.fit(np.ascontiguousarray(picture[:, ::-1]) if mirrored else picture)


def test_pictures_without_people_are_not_said_to_show_one():
    data = pytest.importorskip("skimage.data")
    for picture in (data.chelsea(), data.coffee(), data.rocket()):
        with pytest.raises(fv.NoFaceError, match="no face was found"):
            choose_face(picture, detect_faces(picture), 0)


def test_real_inputs(shared):
    for name in ("photos/dog.jpg", "photos/monkey.jpg"):
        with pytest.raises(fv.NoFaceError, match="does not look human"):
            fv.segment(shared / "real" / name)
    with pytest.raises(fv.NoFaceError, match="seen from the side"):
        fv.segment(shared / "real" / "failing" / "profile_no_face.jpg")
    (face,) = fv.detect(shared / "real" / "failing" / "upside_down.jpg")
    assert face.quarter_turns == 2 and face.score > HUMAN_SCORE
    assert len(fv.detect(shared / "real" / "failing" / "pano_face_234px.jpg")) == 1
