"""Eyes have the person's colour: painted irises, and their colour in a photograph."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial import cKDTree

import faceverse as fv
from faceverse.__main__ import main
from faceverse.fitting.iris import _EYES, IRIS_LUMINANCE_RANGE, eye_colours, iris_colour
from faceverse.graphics.camera import project
from faceverse.graphics.lighting import sh_basis
from faceverse.graphics.rasterize import rasterize
from faceverse.parts.eyes import COLOURED_IRIS, IRIS_MM, eye_radii, paint_iris, with_iris
from faceverse.parts.part import DEFAULT_STYLES, IRIS_UV
from faceverse.result import skin_faces
from faceverse.training.eye_parts import CORNEA_DEG, CORNEA_RISE
from faceverse.weights import load_parts

BROWN, BLUE, GREY = np.array([0.04, 0.02, 0.01]), np.array([0.05, 0.09, 0.14]), np.array([0.1, 0.1, 0.1])


def linear(pixels):
    value = np.asarray(pixels, float) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


@pytest.fixture(scope="module")
def library(model):
    found = load_parts(model)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def eye(library):
    return library.get("eye_left", "natural")


# --------------------------------------------------------------------------------------------------------------- irises


@pytest.mark.parametrize("colour", [BROWN, BLUE, GREY])
@pytest.mark.parametrize("pupil_mm", [2.5, 3.8, 6.0])
def test_the_iris_has_the_colour_that_was_given(eye, colour, pupil_mm):
    painted = linear(paint_iris(eye.material.texture, colour, pupil_mm)[..., :3])
    radius = eye_radii(len(painted))
    iris = (radius > pupil_mm / IRIS_MM + 0.05) & (radius < COLOURED_IRIS)
    assert np.abs(painted[iris].mean(0) / colour - 1).max() < 0.02
    assert painted[radius < pupil_mm / IRIS_MM - 0.05].max() < 0.006, "the pupil is black"
    ring = (radius > 0.92) & (radius < 0.97)
    assert painted[ring].mean() < 0.85 * painted[iris].mean(), "a dark ring surrounds the iris"
    inner, outer = (
        painted[iris & (radius > a) & (radius < a + 0.1)].mean(0) for a in (pupil_mm / IRIS_MM + 0.05, 0.76)
    )
    assert inner[0] / inner[2] > 1.1 * outer[0] / outer[2], "warmer around the pupil"


def test_pale_irises_show_their_fibres_and_dark_ones_hide_them(eye):
    radius = eye_radii(512)
    middle = (radius > 0.6) & (radius < 0.8)
    contrast = []
    for colour in (BROWN, BLUE):
        painted = linear(paint_iris(eye.material.texture, colour)[..., :3])[middle].mean(-1)
        contrast.append(painted.std() / painted.mean())
    assert 0.05 < contrast[0] < 0.8 * contrast[1] < 0.5


def test_the_sclera_keeps_its_colour_and_is_no_lamp(eye):
    neutral, painted = eye.material.texture, paint_iris(eye.material.texture, BLUE)
    radius = eye_radii(512)
    assert np.array_equal(painted[radius > 1.13], neutral[radius > 1.13])
    front, corner = (linear(neutral[(radius > a) & (radius < b), :3]).mean(0) for a, b in ((1.15, 1.4), (1.7, 1.9)))
    assert 0.25 < front.mean() < 0.45 and 0.86 < front[2] / front[0] < 1
    assert corner.mean() < 0.95 * front.mean() and corner[2] / corner[0] < front[2] / front[0]


def test_heads_have_eyes_of_their_own_colour_and_alike_colours_share_a_texture(model):
    head = fv.head(model.neutral().replace(iris=np.float32(BLUE)), model, texture_size=16)
    other = head.replace(params=head.params.replace(iris=np.float32(BROWN)))
    again = head.replace(params=head.params.replace(rotation=np.eye(3, dtype=np.float32)))
    slots, heads = ("eye_left", "eye_right"), (head, other, again)
    textures = [[result.parts[slot].material.texture for slot in slots] for result in heads]
    assert textures[0][0] is textures[0][1] is textures[2][0] and not textures[0][0].flags.writeable
    assert np.abs(textures[0][0].astype(int) - textures[1][0]).max() > 50
    pixel = linear(textures[0][0][256, 256 + int(0.7 * IRIS_UV * 512), :3])
    assert pixel[2] > pixel[0]


def test_irises_have_the_size_of_people_s(eye, model):
    rim = np.abs(np.linalg.norm(eye.uv - 0.5, axis=1) - IRIS_UV) < 1e-4
    assert rim.sum() == 40
    placed = (eye.binding.place(posed(model, seed)[0]) for seed in range(20))
    assert 11.0e-3 < np.median([np.ptp(points[rim], axis=0)[:2].mean() for points in placed]) < 13.0e-3


@pytest.mark.parametrize(
    ("iris", "pupil_mm", "words"),
    [
        ((0.1, 0.1), 3.8, "three numbers"),
        ((0.1, 0.1, np.nan), 3.8, "three numbers"),
        ((0.1, 0.1, 1.5), 3.8, "three numbers"),
        ((0.1, 0.1, 0.1), 11.0, "1.5 to 9.0 mm"),
        ((0.1, 0.1, 0.1), np.nan, "1.5 to 9.0 mm"),
    ],
)
def test_colours_and_pupils_that_no_eye_has_are_refused(eye, iris, pupil_mm, words):
    with pytest.raises(fv.ParameterError, match=words):
        with_iris(eye, np.array(iris), pupil_mm)


def test_the_painted_eye_keeps_its_mesh(eye):
    painted = with_iris(eye, BLUE)
    assert painted.binding is eye.binding and painted.uv is eye.uv
    assert replace(painted.material, texture=0) == replace(eye.material, texture=0)


# --------------------------------------------------------------------------------------------------------------- cornea


def test_corneas_rise_over_the_irises_and_move_with_the_eyes(model):
    head = fv.head(model.random(3), model, texture_size=16)
    looking = fv.edit(head, expression={"eyeLookOutLeft": 1.0, "eyeLookUpLeft": 0.5})
    for result in (head, looking):
        eye, cornea = result.part_vertices["eye_left"].astype(float), result.part_vertices["cornea_left"].astype(float)
        part = result.parts["eye_left"]
        back, pole = eye[-1], eye[0]
        gaze = (pole - back) / np.linalg.norm(pole - back)
        ball = result.vertices[model.regions["eyeball_left"]].astype(float)
        centre = 0.5 * (ball.min(0) + ball.max(0))
        ball = eye[np.linalg.norm(part.uv - 0.5, axis=1) > IRIS_UV + 1e-4]
        radius = np.linalg.norm(ball - centre, axis=1).mean()
        height = np.linalg.norm(cornea - centre, axis=1) - radius
        assert 0.5e-3 < height.max() < 1.2e-3 and height.min() > 0
        assert (cornea - centre)[height.argmax()] @ gaze > 0.999 * np.linalg.norm((cornea - centre)[height.argmax()])
        assert 1e-3 < (cornea[0] - pole) @ gaze < 4e-3, "a chamber before the iris"
    assert looking.parts["cornea_left"].material.alpha_mode == "BLEND"
    assert head.parts["cornea_left"].material.texture[..., 3].max() < 40


def posed(model, seed, **weights):
    """Neutral and expressive vertices (V, 3) of a random head."""
    names, identity = list(model.expression_names), torch.from_numpy(model.random(seed).identity)[None]
    expression = torch.zeros(1, len(names))
    for name, weight in weights.items():
        expression[0, names.index(name)] = weight
    both = model.vertices(identity), model.vertices(identity, expression)
    return tuple(vertices[0].numpy().astype(np.float64) for vertices in both)


def sphere_of(model, vertices, side):
    """Centre (3,) and radius of an eyeball of the model's mesh."""
    ball = vertices[model.regions[f"eyeball_{side}"]]
    return 0.5 * (ball.min(0) + ball.max(0)), np.ptp(ball, axis=0).mean() / 2


def skin_clearance(model, vertices, faces, side):
    """Distances (P,) from the eyeball's surface to the first skin seen from its centre, within the cornea's reach."""
    size = 96
    centre, radius = sphere_of(model, vertices, side)
    from_centre = (vertices - centre) * (-1, 1, -1)  # the camera looks along the gaze
    faces = np.ascontiguousarray(faces[(from_centre[faces][:, :, 2] < -0.2 * radius).all(1)])
    focal = size / 2 / np.tan(np.radians(CORNEA_DEG))
    camera = fv.Camera(focal, (size / 2, size / 2), (size, size))
    seen = rasterize(project(torch.tensor(np.float32(from_centre)), camera)[None], torch.tensor(faces), (size, size))
    y, x = (np.mgrid[:size, :size] + 0.5 - size / 2) / focal
    angle = np.degrees(np.arctan(np.hypot(x, y)))
    inside = (angle < CORNEA_DEG) & seen.mask[0].numpy()
    return (seen.depth[0].numpy() * np.sqrt(1 + x * x + y * y) - radius)[inside], angle[inside], radius


def test_closed_lids_cover_the_corneas(model):
    uncovered, faces = [], model.faces[skin_faces(model, DEFAULT_STYLES)]
    for seed in range(40):
        _, closed = posed(model, seed, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
        clearance, angle, radius = skin_clearance(model, closed, faces, ("left", "right")[seed % 2])
        assert len(clearance) > 5000, "the lids are closed"
        cornea = CORNEA_RISE * radius * (1 - (angle / CORNEA_DEG) ** 2).clip(0) ** 2
        uncovered.append(float((cornea > clearance).mean()))
    assert np.mean(uncovered) < 0.01 and max(uncovered) < 0.1


# ------------------------------------------------------------------------------------------------------------- wet line


def test_the_wet_line_lies_between_lids_and_eyes_and_follows_the_lids(library, model):
    part = library.get("tear_line", "base")
    assert part.material.alpha_mode == "BLEND"
    for seed in range(8):
        for expression in ({}, {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5}, {"eyeLookOutLeft": 1.0}):
            neutral, vertices = posed(model, seed, **expression)
            line = part.binding.follow(vertices, neutral)
            across = np.tile(np.arange(5), len(line) // 5)
            for side in ("left", "right"):
                centre, radius = sphere_of(model, vertices, side)
                mine = (line[:, 0] > 0) == (side == "left")
                height = np.linalg.norm(line - centre, axis=1) - radius
                at_ball, at_lid = height[mine & (across == 4)], height[mine & (across == 0)]
                assert np.abs(np.median(at_ball)) < 0.4e-3, (seed, expression)
                assert np.quantile(np.abs(at_ball), 0.9) < 1.5e-3, (seed, expression)
                assert np.median(at_lid) > 0.5e-3
            lids = cKDTree(vertices[model.regions["eyelids"]])
            assert lids.query(line[across == 0])[0].max() < 1.5e-3, (seed, expression)


def test_the_caruncle_is_pink_and_in_the_inner_corners(library, model):
    part = library.get("tear_line", "base")
    points = part.binding.place(model.mean_vertices.astype(float))
    height, width = part.material.texture.shape[:2]
    texels = np.minimum((part.uv * (width, height)).astype(int), (width - 1, height - 1))
    alpha = part.material.texture[texels[:, 1], texels[:, 0], 3]
    vertex = np.zeros(len(part.uv), int)
    vertex[part.uv_faces.ravel()] = part.faces.ravel()
    solid = points[vertex[alpha > 180]]
    balls = [model.mean_vertices[model.regions[f"eyeball_{side}"]].mean(0) for side in ("left", "right")]
    inner = [solid[(solid[:, 0] > 0) == (ball[0] > 0)] for ball in balls]
    assert all(len(some) and np.abs(some[:, 0]).max() < abs(ball[0]) - 8e-3 for some, ball in zip(inner, balls))
    red, _, blue, _ = part.material.texture[height // 2, 0].astype(float)
    assert red > 1.3 * blue


# --------------------------------------------------------------------------------------------------------------- edited


def test_eyes_get_another_colour(model):
    head = fv.head(model.random(2), model, texture_size=8)
    green = fv.edit(head, eye_color="green")
    assert np.abs(green.params.iris - linear(fv.EYE_COLORS["green"])).max() < 1e-6
    assert green.parts["eye_left"].material.texture is not head.parts["eye_left"].material.texture
    for same in ("#566446", (86, 100, 70), np.array([86, 100, 70])):
        assert np.array_equal(fv.edit(head, eye_color=same).params.iris, green.params.iris)
    assert np.array_equal(fv.edit(head, eye_color="gray").params.iris, fv.edit(head, eye_color="Grey ").params.iris)
    assert np.array_equal(green.texture, head.texture) and np.array_equal(green.vertices, head.vertices)
    assert np.array_equal(fv.edit(green, age=5).params.iris, green.params.iris), "other edits keep it"


@pytest.mark.parametrize(
    ("color", "words"),
    [
        ("gren", "did you mean 'green'"),
        ("xyz", "there are: dark brown, brown"),
        ("#12345", "neither a name"),
        ("#1234567890", "neither a name"),
        ((1, 2), "neither a name"),
        ((0, 0, 300), "neither a name"),
        ((0, 0, float("nan")), "neither a name"),
        (7, "neither a name"),
        ([10**400, 0, 0], "neither a name"),
    ],
)
def test_what_is_no_eye_colour_is_refused(toy_model, color, words):
    head = fv.head(toy_model.neutral(), toy_model, texture_size=8)
    with pytest.raises(fv.ParameterError, match=words):
        fv.edit(head, eye_color=color)


def test_eyes_that_are_no_parts_are_painted_into_the_texture(model):
    bare = model.neutral().replace(styles={}, iris=np.float32(BROWN))
    head = fv.head(bare, model, texture_size=256)
    blue = fv.edit(head, eye_color="blue")
    expected = fv.head(bare.replace(iris=blue.params.iris), model, texture_size=256)
    assert (blue.texture != head.texture).any()
    assert np.abs(blue.texture.astype(int) - expected.texture).max() <= 1


def test_the_command_line_changes_the_colour(model, tmp_path):
    head = fv.head(model.random(2), model, texture_size=8)
    fv.export(head, tmp_path / "head.json")
    assert (
        main(["edit", str(tmp_path / "head.json"), "-o", str(tmp_path / "blue.json"), "--eye-color", "light blue"]) == 0
    )
    assert np.abs(fv.load_result(tmp_path / "blue.json").params.iris - linear(fv.EYE_COLORS["light blue"])).max() < 1e-6


# ------------------------------------------------------------------------------------------------------------- training


def test_eyes_are_made_from_a_drawing_and_fit_the_shipped_ones(library, source):
    from faceverse.training.eye_parts import eye_parts

    y, x = np.mgrid[:512, :512]
    radius = np.hypot(x - 149.3, y - 359.1)
    drawn = np.where(radius < 16, 5, np.where(radius < 57, 120 + 40 * np.sin(x / 2), 170))
    drawing = io.BytesIO()
    Image.fromarray(np.repeat(drawn[..., None], 3, axis=-1).astype(np.uint8)).save(drawing, "PNG")
    made = {part.name: part for part in eye_parts(drawing.getvalue(), source.head)}
    assert sorted(made) == sorted(name for name in library.parts if name.split("_")[0] in ("eye", "cornea", "tear"))
    for name, part in made.items():
        shipped = library.parts[name]
        assert np.array_equal(part.faces, shipped.faces) and np.array_equal(part.uv_faces, shipped.uv_faces)
        assert np.abs(part.binding.offset - shipped.binding.offset).max() < 1e-6
        assert np.abs(part.uv - shipped.uv).max() < 1e-6
        a, b, c = part.binding.made[part.faces].transpose(1, 0, 2)
        outwards = np.cross(b - a, c - a)
        if not name.startswith("tear"):
            assert (outwards * (a - part.binding.made.mean(0))).sum(1).mean() > 0
    texture = linear(made["eye_left/natural"].material.texture[..., :3])
    ring = np.abs(eye_radii(512) - 0.6) < 0.2
    assert 0.1 < texture[ring].std() / texture[ring].mean() < 1, "the drawing's fibres"


# ------------------------------------------------------------------------------------------------------- in photographs


def portrait(iris=(60, 90, 140), white=(200, 195, 190), skin=(190, 140, 120), opening=11, radius=12, gain=(1, 1, 1)):
    """Photograph of two eyes (100, 200, 3) and its landmarks, in light of a colour."""
    y, x = np.mgrid[:100, :200]
    photo = np.tile(np.array(skin, float), (100, 200, 1))
    landmarks = np.zeros((478, 2), np.float32)
    for middle, centre in (((60, 50), 468), ((140, 50), 473)):
        turn = -np.pi + np.arange(16) * (np.pi / 8)
        landmarks[list(_EYES[centre])] = np.stack([30 * np.cos(turn), opening * np.sin(turn)], -1) + middle
        distance = np.hypot(x - middle[0], y - middle[1])
        is_open = ((x - middle[0]) / 30) ** 2 + ((y - middle[1]) / opening) ** 2 < 1
        photo[is_open] = white
        photo[is_open & (distance < radius)] = iris
        photo[is_open & (distance < 0.3 * radius)] = 5
        photo[is_open & (np.hypot(x - middle[0] - 6, y - middle[1] + 2) < 2)] = 255  # a reflection
        landmarks[centre] = middle
        landmarks[centre + 1 : centre + 5] = np.array(middle) + radius * np.array([[1, 0], [0, -1], [-1, 0], [0, 1]])
    lit = linear(photo) * gain
    encoded = np.where(lit <= 0.0031308, 12.92 * lit, 1.055 * np.clip(lit, 0, 1) ** (1 / 2.4) - 0.055)
    return (encoded * 255 + 0.5).astype(np.uint8), landmarks


def measured(photo, landmarks, shade):
    """Colour of the irises in light from all sides that gives surfaces this shading (3,)."""
    light = np.zeros((9, 3))
    light[0] = shade / float(sh_basis(torch.tensor([0.0, 0.0, 1.0]))[0])
    return iris_colour(eye_colours(photo, landmarks), light)


def test_the_colour_of_the_iris_is_measured():
    for colour in ((60, 90, 140), (80, 50, 35), (110, 120, 90)):
        found = measured(*portrait(colour), np.ones(3))
        assert found.dtype == np.float32
        expected = linear(colour)
        assert np.abs(found / found.sum() - expected / expected.sum()).max() < 0.03
        assert 0.75 < found.sum() / expected.sum() < 1.35


def test_colour_of_the_light_and_shadow_on_the_eyes_are_taken_out_by_the_white():
    plain = measured(*portrait(), np.ones(3))
    warm = measured(*portrait(gain=(0.5, 0.35, 0.25)), np.ones(3))  # the fit saw neither shadow nor cast
    raw = linear((60, 90, 140)) * (0.5, 0.35, 0.25)
    hue = [value / value.sum() for value in (plain, warm, raw)]
    assert np.abs(hue[1] - hue[0]).max() < 0.6 * np.abs(hue[2] - hue[0]).max()
    assert warm.sum() > 1.3 * raw.sum()
    known = measured(*portrait(gain=(0.5, 0.35, 0.25)), np.array([0.5, 0.35, 0.25]))
    assert np.abs(known / plain - 1).max() < 0.12, "light that the fit knows is taken out whole"


def test_black_eyes_get_no_hue_from_noise():
    photo, landmarks = portrait(iris=(6, 2, 2))
    found = measured(photo, landmarks, np.ones(3))
    assert found.max() < 3 * found.min()
    assert IRIS_LUMINANCE_RANGE[0] - 1e-6 <= found @ (0.2126, 0.7152, 0.0722) <= IRIS_LUMINANCE_RANGE[1]


def test_one_good_eye_is_enough_and_no_eye_is_none():
    photo, landmarks = portrait()
    both = measured(photo, landmarks, np.ones(3))
    landmarks[list(_EYES[468])] = landmarks[468]  # closed
    assert np.abs(measured(photo, landmarks, np.ones(3)) / both - 1).max() < 0.05
    landmarks[list(_EYES[473])] += (0, 500)
    landmarks[473:478] += (0, 500)  # outside the picture
    assert measured(photo, landmarks, np.ones(3)) is None
    assert measured(*portrait(radius=2), np.ones(3)) is None, "too small"
