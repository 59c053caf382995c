"""Hair from a photograph: style, outline and colour, on pictures that the tests draw."""

from dataclasses import replace

import drawn_photographs
import numpy as np
import pytest
import torch

import faceverse as fv
from faceverse.fitting.hair import HairView, fitted_hair, hair_coherence, observe_hair
from faceverse.fitting.hair_outline import OutlineSolver, agreement, draw_hair, hidden_volume, solid_faces
from faceverse.fitting.texture import bake_photo
from faceverse.graphics.camera import rotation_from_euler_deg
from faceverse.graphics.lighting import linear_from_srgb
from faceverse.model.scalp import bare_scalp, hair_share, with_short_hair
from faceverse.model.skin_texture import model_albedo
from faceverse.parts.hair import Hair
from faceverse.parts.hair_shape import CONTROL_POINTS, VOLUMES, HairOnHead, hair_vertices
from faceverse.parts.hair_styles import hair_style_of, with_hair_style
from faceverse.segmentation import LABELS


@pytest.fixture(scope="module")
def model():
    return fv.load_model()


@pytest.fixture(scope="module")
def bald(model):
    return drawn_photographs.bare_head(model)


def wearing(head, style, hair=None):
    styles = with_hair_style(head.params.styles, style)
    return head.replace(params=head.params.replace(styles=styles, hair=hair or Hair()))


def photograph(head):
    """A picture of the head and its true labels."""
    return drawn_photographs.photograph(head, wearing(head, "bald"), "hair")


@pytest.mark.parametrize("style", ["short02", "bob01"])
def test_a_style_is_found_again_with_its_colour(bald, style):
    colour = (0.45, 0.2, 0.1)
    photo, labels = photograph(wearing(bald, style, Hair(color=colour)))
    found = fitted_hair([HairView(bald, photo, labels, bald.camera)])
    assert found.styles["hair"] == style
    assert np.abs(np.array(found.hair.color) - colour).max() < 0.05


def test_a_bald_head_stays_bald(bald):
    photo, labels = photograph(bald)
    assert hair_style_of(fitted_hair([HairView(bald, photo, labels, bald.camera)]).styles) == "bald"


def test_several_photographs_agree_on_one_style(bald, model):
    worn = wearing(bald, "bob01")
    views = []
    for yaw in (0, 50):
        rotation = rotation_from_euler_deg(yaw).numpy()
        turned = [one.replace(params=one.params.replace(rotation=rotation)) for one in (bald, worn)]
        views.append(HairView(turned[0], *photograph(turned[1]), bald.camera))
    assert fitted_hair(views).styles["hair"] == "bob01"


def test_the_outline_comes_onto_the_observed_one(bald, model):
    warp = np.zeros((len(CONTROL_POINTS), 3), np.float32)
    warp[CONTROL_POINTS[:, 1] > 0.1, 1] = 0.03  # hair that stands up
    photo, labels = photograph(wearing(bald, "short02", Hair(warp=warp)))
    observed = observe_hair(HairView(bald, photo, labels, bald.camera))
    part = model.parts.get("hair", "short02")
    faces, hair, style = solid_faces(part), Hair(), HairOnHead(part, bald.neutral_vertices)
    solver = OutlineSolver(style, faces)
    before = agreement(observed, draw_hair(observed, style.vertices(hair), faces).mask)
    for _ in range(3):
        hair = solver.step(observed, draw_hair(observed, style.vertices(hair), faces), hair)
    after = agreement(observed, draw_hair(observed, style.vertices(hair), faces).mask)
    assert after > before + 0.05
    # Volume and displacements share it.
    top = style.fields.top > 0.9
    rise = (style.vertices(hair) - style.vertices(Hair()))[top, 1].mean()
    assert 0.01 < rise < 0.04


def test_directions_are_the_derivatives_of_the_vertices(bald, model):
    style, hair = HairOnHead(model.parts.get("hair", "undercut"), bald.neutral_vertices), Hair(length=1.1)
    for name, direction in zip((*VOLUMES, "length"), style.directions(hair), strict=True):
        step = 1e-3
        moved = style.vertices(hair.replace(**{name: getattr(hair, name) + step})) - style.vertices(hair)
        assert np.abs(direction).max() > 0.005
        np.testing.assert_allclose(moved / step, direction, atol=1e-6)


def test_one_wrong_label_costs_less_than_its_area(bald):
    observed = observe_hair(HairView(bald, *photograph(wearing(bald, "short02")), bald.camera))
    stranger = observed.hair.copy()
    stranger[40:100, 100:128] = True  # beside the head
    assert agreement(observed, observed.hair) == 1.0
    overlap = observed.hair.sum() / stranger.sum()
    assert overlap + 0.1 < agreement(replace(observed, hair=stranger), observed.hair) < 0.95


def test_an_unseen_scalp_is_not_bald(bald):
    photo, labels = photograph(wearing(bald, "bob01"))
    unseen = replace(labels, scalp_hair=float("nan"))
    assert hair_style_of(fitted_hair([HairView(bald, photo, unseen, bald.camera)]).styles) == "bob01"


def test_long_hair_has_the_colours_of_roots_and_tips(bald):
    worn = wearing(bald, "bob_long", Hair(color=(0.2, 0.13, 0.1), tip_color=(0.55, 0.4, 0.25)))
    hair = fitted_hair([HairView(bald, *photograph(worn), bald.camera)]).hair
    assert hair.tip_color is not None
    assert np.mean(hair.tip_color) > 1.3 * np.mean(hair.color)


def test_hair_that_the_photograph_does_not_show_is_told_from_hair_that_it_shows(bald, model):
    def hidden(style, yaw):
        head = bald.replace(params=bald.params.replace(rotation=rotation_from_euler_deg(yaw).numpy()))
        observed = observe_hair(HairView(head, *photograph(wearing(head, style)), head.camera))
        part = model.parts.get("hair", style)
        placed = hair_vertices(part, Hair(), head.neutral_vertices)
        return hidden_volume(observed, draw_hair(observed, placed, solid_faces(part)))

    tail = hidden("ponytail01", 0)
    assert tail > 0.005 and hidden("ponytail01", 180) < 0.5 * tail and hidden("short01", 0) < 0.1 * tail


def test_coherence_tells_strands_from_curls():
    rng = np.random.default_rng(0)
    hair = np.ones((128, 128), bool)
    strands = np.tile(rng.random(128), (128, 1)) * 255
    assert hair_coherence(strands, hair) > 0.9
    assert hair_coherence(rng.random((128, 128)) * 255, hair) < 0.5
    assert np.isnan(hair_coherence(strands, np.zeros_like(hair)))


def test_what_covers_the_skin_is_not_in_its_texture(bald):
    photo, labels = photograph(bald)
    painted = photo.copy()
    painted[240:280, 200:300:6] //= 2  # strands across the cheeks and the nose
    painted[240:280, 201:300:6] //= 2
    covered = labels.labels.copy()
    covered[236:284, 196:304] = LABELS.index("accessory")

    def baked(photo, labels):
        texture = bake_photo(photo, bald.model, bald.params, bald.camera, 256, labels=labels)
        return texture.rgb.astype(int)

    clean, unlabelled = baked(photo, labels), baked(painted, None)
    dark = (clean - unlabelled).max(2) > 30
    assert dark.sum() > 100
    hidden = baked(painted, replace(labels, labels=covered))
    assert np.abs(hidden - clean)[dark].mean() < 0.4 * np.abs(unlabelled - clean)[dark].mean()


def test_the_albedo_of_a_bare_scalp_is_skin(model):
    params = model.random(4)
    painted = model_albedo(replace_parts(model), params)
    bare = bare_scalp(model, painted)
    scalp = hair_share(model) > 0.8
    face = np.zeros(len(scalp), bool)
    face[model.regions["face"]] = True
    assert painted[scalp].mean() < 0.5 * painted[face].mean()
    assert bare[scalp].mean() > 0.75 * painted[face].mean()
    np.testing.assert_array_equal(bare[face & (hair_share(model) < 0.02)], painted[face & (hair_share(model) < 0.02)])


def test_unseen_hair_is_short_and_has_the_colour_of_the_scalp(model):
    params = model.random(4).replace(hair=Hair())
    worn = with_short_hair(model, params)
    assert hair_style_of(worn.styles) == "buzz"
    albedo = model.albedo(torch.from_numpy(params.albedo)[None])[0].numpy()[hair_share(model) > 0.9].mean(0)
    np.testing.assert_allclose(linear_from_srgb(torch.tensor(worn.hair.color)).numpy(), albedo, atol=0.01)
    bare = replace_parts(model)
    assert with_short_hair(bare, params) is params


def replace_parts(model):
    """The model without parts, whose albedo keeps its hair."""
    return fv.FaceModel(model.data)
