"""Pictures of heads with parts: what covers what, transparency, materials, light in the mouth and under the lids."""

import numpy as np
import pytest
import torch

import faceverse as fv
from faceverse.errors import ParameterError
from faceverse.graphics.camera import Camera
from faceverse.graphics.lighting import (
    ambient_light,
    default_light,
    directed_light,
    dominant_lamp,
    glossy_reflection,
    linear_from_srgb,
)
from faceverse.model.face_model import FaceModel
from faceverse.parts.binding import bind
from faceverse.parts.occlusion import lid_light, mouth_light
from faceverse.parts.part import SLOTS, Material, Part, PartLibrary
from faceverse.rendering import drawing, posed
from faceverse.rendering.drawing import posed_head
from faceverse.rendering.render import _pose, head_box_px, render
from faceverse.rendering.samples import SeenSamples
from faceverse.result import head_from_params

RED, GREEN, BLUE = (200, 30, 30, 255), (30, 180, 40, 255), (30, 40, 220, 255)
FRONT = 0.16  # metres: in front of the whole toy head
OUTSIDE = (0.16, 0.0)  # beside the toy head
FOCAL = 320.0
CAMERA = Camera(FOCAL, (100.0, 100.0), (200, 200))


def card(model, slot, colour, middle=(0.0, 0.0), z=FRONT, half=0.02, **material):
    """A square part that faces the camera; its texture is upright and of one colour, or given."""
    x, y = middle
    points = np.array(
        [(x - half, y + half, z), (x - half, y - half, z), (x + half, y - half, z), (x + half, y + half, z)]
    )
    vertices, faces = model.mean_vertices, model.faces[np.linspace(0, len(model.faces) - 1, 4).astype(int)]
    binding = bind(points, vertices, faces, np.full((4, 3), 1 / 3), "affine")
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    uv = np.float32([[0, 0], [0, 1], [1, 1], [1, 0]])
    texture = colour if isinstance(colour, np.ndarray) else np.tile(np.uint8(colour), (8, 8, 1))
    return Part(f"{slot}/card", binding, triangles, uv, triangles, Material(texture, **{"roughness": 0.9, **material}))


def head_with(model, *parts, **params):
    """The neutral toy head with these parts only."""
    library = PartLibrary({part.name: part for part in parts}, model.topology, {})
    owner = FaceModel(model.data, lambda _: library)
    styles = {part.slot: part.style for part in parts}
    place = {"translation": np.float32([0, 0, -0.8]), "light": ambient_light().numpy(), **params}
    return head_from_params(owner, owner.neutral().replace(styles=styles, **place), CAMERA, 64)


def colour_at(picture, middle, z=FRONT):
    """Pixel of a picture by CAMERA at a point of the head."""
    column, row = (int(100 + sign * FOCAL * place / (0.8 - z)) for sign, place in zip((1, -1), middle))
    return picture[row, column]


def linear(colour):
    return linear_from_srgb(torch.tensor(colour[:3]) / 255).numpy()


def shown(head, mode="albedo", **options):
    return render(head, mode=mode, camera=CAMERA, **options)


# ---------------------------------------------------------------------------------------------------------- visibility


@pytest.mark.parametrize("mode", drawing.RENDER_MODES)
def test_a_model_without_parts_looks_the_same_whatever_its_styles(toy_model, mode):
    bare = head_from_params(toy_model, toy_model.neutral().replace(styles={}), CAMERA, 64)
    styled = head_from_params(toy_model, toy_model.neutral(), CAMERA, 64)
    empty = head_with(toy_model, translation=bare.params.translation, light=bare.params.light)
    for other in (styled, empty):
        for name in ("rgb", "mask", "depth"):
            assert np.array_equal(getattr(shown(bare, mode), name), getattr(shown(other, mode), name))


def test_an_opaque_part_covers_the_skin_behind_it_and_is_covered_by_the_skin_in_front(toy_model):
    before = head_with(toy_model, card(toy_model, "tongue", RED))
    assert tuple(colour_at(shown(before).rgb, (0, 0))) == RED[:3]
    within = head_with(toy_model, card(toy_model, "tongue", RED, z=0.0))
    skin = head_with(toy_model)
    assert np.array_equal(shown(within).rgb, shown(skin).rgb)


def test_coverage_depth_and_default_view_include_parts(toy_model):
    head, bare = head_with(toy_model, card(toy_model, "tongue", RED, OUTSIDE, z=0.0)), head_with(toy_model)
    picture = shown(head)
    assert colour_at(picture.mask, OUTSIDE, 0.0) and not colour_at(shown(bare).mask, OUTSIDE, 0.0)
    assert colour_at(picture.depth, OUTSIDE, 0.0) == pytest.approx(0.8, abs=1e-5)
    assert head_box_px(head)[2] > 100 + FOCAL * 0.18 / 0.8 > head_box_px(bare)[2]
    for yaw in (0, 60):
        turned = render(head, 96, "albedo", rotation=(yaw, 0, 0)).mask
        assert not (turned[[0, -1]].any() or turned[:, [0, -1]].any())


def test_layers_blend_with_skin_and_background_from_near_to_far(toy_model):
    near, far = (*RED[:3], 128), (*BLUE[:3], 128)
    for slots in (("lashes", "tear_line"), ("tear_line", "lashes")):  # the order of the slots must not matter
        parts = [
            card(toy_model, slot, colour, middle, z, alpha_mode="BLEND")
            for slot, colour, middle, z in ((slots[0], near, OUTSIDE, FRONT), (slots[1], far, OUTSIDE, FRONT - 0.001))
        ]
        picture = shown(head_with(toy_model, *parts), background=(255, 255, 255)).rgb
        share = 128 / 255
        expected = share * linear(near) + (1 - share) * (share * linear(far) + (1 - share))
        assert np.abs(linear(colour_at(picture, OUTSIDE)) - expected).max() < 0.01
    behind = head_with(toy_model, card(toy_model, "lashes", near, z=0.0, alpha_mode="BLEND"))
    assert np.array_equal(shown(behind).rgb, shown(head_with(toy_model)).rgb)


def test_a_layer_over_skin_shows_the_skin_through(toy_model):
    head = head_with(toy_model, card(toy_model, "lashes", (*RED[:3], 64), alpha_mode="BLEND"))
    skin = linear(colour_at(shown(head_with(toy_model)).rgb, (0, 0)))
    expected = 64 / 255 * linear(RED) + (1 - 64 / 255) * skin
    assert np.abs(linear(colour_at(shown(head).rgb, (0, 0))) - expected).max() < 0.01


def test_a_layer_that_lies_on_an_opaque_surface_shows(toy_model):
    skin = card(toy_model, "tongue", GREEN, half=0.03)
    flush = head_with(toy_model, skin, card(toy_model, "lashes", RED, z=FRONT - 2e-4, alpha_mode="BLEND"))
    assert np.abs(colour_at(shown(flush).rgb, (0, 0)).astype(int) - RED[:3]).max() <= 1
    below = head_with(toy_model, skin, card(toy_model, "lashes", RED, z=FRONT - 2e-3, alpha_mode="BLEND"))
    assert tuple(colour_at(shown(below).rgb, (0, 0))) == GREEN[:3]


@pytest.mark.parametrize("mode", ["MASK", "BLEND"])
def test_supersampling_keeps_the_area_of_a_cut_texture(toy_model, mode):
    y, x = np.mgrid[:64, :64]
    texture = np.tile(np.uint8(RED), (64, 64, 1))
    texture[..., 3] = np.where(np.hypot(x - 32, y - 32) < 20, 255, 0)
    head = head_with(toy_model, card(toy_model, "lashes", texture, OUTSIDE, alpha_mode=mode))
    pose = posed_head(head, "albedo", *_pose(head))
    areas = [float(drawing.draw(pose, "albedo", CAMERA, count).coverage[:, 155:].sum()) for count in (1, 2, 4)]
    assert areas == pytest.approx([np.pi * (20 / 64 * 0.04 * FOCAL / 0.64) ** 2] * 3, rel=0.03)


@pytest.mark.parametrize("mode", ["color", "clay"])
def test_bands_leave_no_trace_in_parts(toy_model, mode, monkeypatch):
    parts = card(toy_model, "tongue", RED, (0.02, 0.02)), card(toy_model, "lashes", BLUE, OUTSIDE, alpha_mode="BLEND")
    head = head_with(toy_model, *parts)
    once = shown(head, mode)
    monkeypatch.setattr(drawing, "_MAX_SAMPLES", 3000)
    bands = shown(head, mode)
    assert np.array_equal(once.mask, bands.mask)
    assert np.abs(once.rgb.astype(int) - bands.rgb).max() <= 1


# --------------------------------------------------------------------------------------------------------------- modes


def test_every_mode_shows_opaque_parts_in_its_own_way(toy_model):
    head = head_with(toy_model, card(toy_model, "lashes", RED, OUTSIDE))
    at = {
        mode: colour_at(shown(head, mode, background=(9, 9, 9)).rgb, OUTSIDE).astype(int)
        for mode in drawing.RENDER_MODES
    }
    assert np.abs(at["color"] - RED[:3]).max() <= 1 and np.array_equal(at["albedo"], RED[:3])  # in even light
    assert np.ptp(at["clay"]) < 8 and at["clay"].min() > 60
    assert np.abs(at["normal"] - (128, 128, 255)).max() <= 2
    assert np.ptp(at["depth"]) == 0 and at["depth"][0] > 240  # the part is nearest
    u, v = at["uv"][:2] / 255
    assert 0.35 < u < 0.65 and 0.35 < v < 0.65
    assert np.array_equal(at["wireframe"] > 60, [True] * 3)


@pytest.mark.parametrize("slot, without", [("lashes", ("clay", "wireframe")), ("hair", ("wireframe",))])
def test_clay_has_hair_but_no_lashes_and_wireframes_have_no_layers(toy_model, slot, without):
    head = head_with(toy_model, card(toy_model, slot, RED, OUTSIDE, alpha_mode="BLEND"))
    for mode in drawing.RENDER_MODES:
        assert bool(colour_at(shown(head, mode).mask, OUTSIDE)) == (mode not in without), mode


def test_a_part_is_drawn_with_its_texture_the_right_way_round_and_reduced(toy_model):
    texture = np.tile(np.uint8(RED), (64, 64, 1))
    texture[:32, 32:] = BLUE
    picture = shown(head_with(toy_model, card(toy_model, "tongue", texture))).rgb
    assert tuple(colour_at(picture, (0.01, 0.01))) == BLUE[:3] and tuple(colour_at(picture, (-0.01, -0.01))) == RED[:3]
    checks = np.tile(np.uint8([(0, 0, 0, 255), (255, 255, 255, 255)]), (64, 32, 1)).reshape(64, 64, 4)
    grey = render(head_with(toy_model, card(toy_model, "tongue", checks)), 40, "albedo", supersample=1).rgb
    flat = render(
        head_with(toy_model, card(toy_model, "tongue", (188, 188, 188, 255))), 40, "albedo", supersample=1
    ).rgb
    assert np.abs(grey.astype(int) - flat).max() <= 2


def test_smooth_parts_have_highlights_and_the_skin_has_none(toy_model):
    light = directed_light(0, 0).numpy()
    heads = [
        head_with(toy_model, card(toy_model, "lashes", (20, 20, 20, 255), roughness=roughness), light=light)
        for roughness in (0.1, 0.25, 0.9)
    ]
    smooth, medium, matte = (shown(head, "color").rgb for head in heads)
    at = [int(colour_at(picture, (0, 0)).max()) for picture in (smooth, medium, matte)]
    assert at[0] > at[1] > at[2] + 20 and at[2] < 30
    changed = (smooth != matte).any(-1)
    assert 0 < changed.sum() <= 22**2  # pixels of the card


def test_a_clear_surface_shows_its_highlight_and_what_lies_behind(toy_model):
    clear = {"colour": (0, 0, 0, 0), "z": FRONT + 0.01, "alpha_mode": "BLEND"}
    behind = card(toy_model, "tear_line", BLUE, half=0.06)
    light = directed_light(0, 0).numpy()
    plain, matte, glass = (
        shown(head_with(toy_model, behind, *layers, light=light), "color").rgb.astype(int)
        for layers in (
            (),
            (card(toy_model, "lashes", roughness=0.9, **clear),),
            (card(toy_model, "lashes", roughness=0.03, **clear),),
        )
    )
    assert np.array_equal(plain, matte)
    assert (colour_at(glass, (0, 0), FRONT + 0.01) - colour_at(plain, (0, 0))).min() > 25  # the middle mirrors the lamp
    back = directed_light(170, 0).numpy()  # a lamp behind the head is mirrored by nothing
    layers = [card(toy_model, "lashes", roughness=roughness, **clear) for roughness in (0.9, 0.03)]
    pictures = [shown(head_with(toy_model, behind, layer, light=back), "color").rgb.astype(int) for layer in layers]
    assert np.abs(pictures[0] - pictures[1])[95:105, 95:105].max() <= 10


def test_an_unknown_part_is_named(toy_model):
    head = head_with(toy_model, card(toy_model, "tongue", RED))
    with pytest.raises(ParameterError, match="no style 'long' of tongue"):
        render(head.replace(params=head.params.replace(styles={"tongue": "long"})), 32)


# --------------------------------------------------------------------------------------------------------------- light


def test_the_dominant_lamp_is_where_a_light_comes_from():
    for yaw, pitch in ((0, 0), (50, 20), (-120, -40)):
        direction, colour = dominant_lamp(directed_light(yaw, pitch, warmth=0.4))
        across, up = np.radians(yaw), np.radians(pitch)
        expected = [np.sin(across) * np.cos(up), np.sin(up), np.cos(across) * np.cos(up)]
        assert np.abs(direction.numpy() - expected).max() < 1e-5
        tint = directed_light(yaw, pitch, warmth=0.4)[0]
        assert (colour / colour.sum()).numpy() == pytest.approx((tint / tint.sum()).numpy(), abs=1e-5)
    assert float(dominant_lamp(directed_light())[1][0]) == pytest.approx(0.7 * 0.99, abs=1e-3)
    assert dominant_lamp(ambient_light())[1].tolist() == [0, 0, 0]


def test_reflections_are_brightest_in_the_mirror_direction_and_modest():
    light, to_camera = directed_light(40, 0), torch.tensor([[0.0], [0.0], [1.0]])
    degrees = torch.arange(-80, 81, 2)
    normals = torch.stack([torch.deg2rad(degrees).sin(), torch.zeros(81), torch.deg2rad(degrees).cos()])
    rows = [glossy_reflection(normals, to_camera.expand(3, 81), r, light)[0] for r in (0.1, 0.3)]
    assert degrees[int(rows[0].argmax())] == 20
    assert 0.3 < float(rows[0].max()) < 3 and float(rows[1].max()) < float(rows[0].max()) / 2
    assert float(rows[0][degrees == 0]) < 0.08 and all(bool((row >= 0).all()) for row in rows)


def test_light_from_aside_is_mirrored_by_its_nearest_part():
    to_camera = torch.tensor([[0.0], [0.0], [1.0]]).expand(3, 91)
    degrees = torch.arange(0, 91)
    normals = torch.stack([torch.deg2rad(degrees).sin(), torch.zeros(91), torch.deg2rad(degrees).cos()])
    for yaw, brightest in ((30, 15), (75, 24), (100, 24)):
        row = glossy_reflection(normals, to_camera, 0.1, directed_light(yaw, 0))[0][:60]
        assert abs(int(row.argmax()) - brightest) <= 1, yaw


def lips(gap, width=0.05, count=11):
    """Inner edges (K, 3) of lips, open by `gap` metres in the middle."""
    x = np.linspace(-width / 2, width / 2, count)
    opening = gap / 2 * (1 - (2 * x / width) ** 2)
    return np.stack([x, opening, 0 * x], 1), np.stack([x, -opening, 0 * x], 1)


def test_the_mouth_is_dark_behind_closed_lips_and_gets_darker_towards_the_throat():
    behind = np.array([(0, 0, -depth) for depth in (0.002, 0.01, 0.03, 0.07)])
    assert mouth_light(behind, *lips(0)).max() == 0
    light = mouth_light(behind, *lips(0.03))
    assert (np.diff(light) < 0).all() and light[0] > 0.8 and light[-1] < 0.15
    assert (mouth_light(behind, *lips(0.01)) < light).all()
    assert mouth_light(np.array([(0, 0, 0.02), (0, -0.01, 0.06)]), *lips(0.03)).min() == 1  # the tip of a tongue
    beside = mouth_light(np.array([(0.04, 0, -0.004), (0, 0.03, -0.004)]), *lips(0.03))
    assert beside.max() < light[1]


def test_the_mouths_light_is_the_solid_angle_of_its_opening():
    x = np.linspace(-0.02, 0.02, 11)
    square = np.stack([x, 0 * x + 0.02, 0 * x], 1), np.stack([x, 0 * x - 0.02, 0 * x], 1)
    curve = np.log1p(-mouth_light(np.array([(0, 0, -0.02)]), *square)[0])  # a cube's face: a third of the half-space
    deeper = np.log1p(-mouth_light(np.array([(0, 0, -0.04)]), *square)[0])
    share = 4 * np.arcsin(1 / 5) / (2 * np.pi)  # of a square at its own length
    assert deeper / curve == pytest.approx(np.log(1 - share) / np.log(2 / 3), rel=1e-3)


def test_lids_shade_the_eye_beside_them():
    upper, lower = lips(0.01, 0.03)
    column = np.array([(0, y, 0.0) for y in np.linspace(0.0049, -0.0049, 9)])
    light = lid_light(column, upper, lower)
    assert light.argmax() > 4 and light[4] > 0.75 and light[0] < 0.5  # the upper lid's shadow is the stronger one
    assert light[0] < light[-1] < light[4]


# ---------------------------------------------------------------------------------------------------- the open model


def slots_seen(head, size=160):
    """Number of pixels at which each opaque part is seen."""
    posed = posed_head(head, "albedo", *_pose(head))
    box = head_box_px(head)
    samples = SeenSamples.of(posed, head.camera.cropped(box, (size, size)), 1)
    counts = torch.bincount(posed.opaque.surface_of(samples.triangle), minlength=len(posed.opaque.parts)).tolist()
    return {part.slot: count for part, count in zip(posed.opaque.parts, counts) if part is not None}


def test_closed_lips_hide_the_teeth_and_an_open_mouth_shows_them(model):
    closed = fv.head(model.neutral(), model)
    seen = slots_seen(closed)
    assert seen["teeth_upper"] == seen["teeth_lower"] == seen["tongue"] == 0
    assert min(seen["eye_left"], seen["eye_right"]) > 20
    seen = slots_seen(fv.edit(closed, expression="laugh"))
    assert seen["teeth_upper"] > 20 and seen["tongue"] + seen["teeth_lower"] > 20


def test_light_reaches_the_parts_of_an_open_mouth_only(model):
    closed = fv.edit(fv.head(model.random(3), model), hair="bald")
    opened = fv.edit(closed, expression={"jawOpen": 1.0})
    for slot in ("teeth_upper", "teeth_lower", "tongue"):
        assert closed.part_occlusion[slot].mean() < min(0.1, opened.part_occlusion[slot].mean() / 3)
    inside = model.regions["mouth_inside"]
    assert closed.skin_occlusion[inside].mean() < opened.skin_occlusion[inside].mean()
    outside = np.setdiff1d(np.arange(len(closed.vertices)), inside)
    assert (closed.skin_occlusion[outside] == 1).all()
    front, back = (opened.part_vertices["tongue"][:, 2].argmax(), opened.part_vertices["tongue"][:, 2].argmin())
    assert opened.part_occlusion["tongue"][front] > 3 * opened.part_occlusion["tongue"][back]
    assert set(opened.part_occlusion) <= set(SLOTS)


def test_lashes_show_in_colour(model):
    head = fv.head(model.neutral().replace(light=default_light().numpy()), model)
    bare = head.replace(params=head.params.replace(styles={**head.params.styles, "lashes": "03"}))
    without = head.replace(
        params=head.params.replace(styles={k: v for k, v in head.params.styles.items() if k != "lashes"})
    )
    pictures = [render(h, 300, "color").rgb.astype(int) for h in (head, bare, without)]
    assert (np.abs(pictures[0] - pictures[2]).max(-1) > 20).sum() > 30
    assert (np.abs(pictures[0] - pictures[1]).max(-1) > 20).any()
    clay = [render(h, 300, "clay").rgb for h in (head, without)]
    assert np.array_equal(*clay)


def test_the_back_of_the_mouth_s_lining_is_not_drawn(model, monkeypatch):
    """Where the lining comes through the skin it shows its back."""

    def changed():
        return (np.abs(render(through, size=200).rgb.astype(int) - plain).max(-1) > 20).sum()

    head = fv.head(model.random(3), model, texture_size=64)
    vertices = head.vertices.copy()
    vertices[model.regions["mouth_inside"]] += (0, 0, 0.012)
    through, plain = head.replace(vertices=vertices), render(head, size=200).rgb.astype(int)
    hidden = changed()
    monkeypatch.setattr(posed, "_hidden_lining", lambda head, faces, *pose: np.zeros(len(faces), bool))
    assert hidden < 0.15 * changed()
    assert np.array_equal(render(head, size=200).rgb, plain), "what the lips hide makes no difference"
