"""Beards: cards that follow the skin, colour and shape as a value, brows of a style, and the file that holds them."""

import json
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree

import faceverse as fv
from faceverse.__main__ import main
from faceverse.formats.solid_hair import beard_texture, solid_beard
from faceverse.graphics.camera import Camera
from faceverse.parts.beard import (
    CONTROL_POINTS,
    Beard,
    beard_colour,
    beard_entry,
    beard_of_file,
    coverage_basis,
    shaped,
)
from faceverse.parts.beard_layout import CARD_VERTICES, ROWS, card_faces, card_uv, is_undercoat, roots_of
from faceverse.parts.beard_styles import BEARD_STYLES, with_beard_style
from faceverse.parts.hair import Hair
from faceverse.parts.occlusion import INNER_LIPS
from faceverse.result import head_from_params
from faceverse.weights import BEARD_FILE, find_companion_file

GROWN = [name for name, style in BEARD_STYLES.items() if style is not None]


def head_with(model, style, seed=1, **changes):
    params = model.random(seed)
    params = params.replace(styles=with_beard_style(params.styles, style), **changes)
    return head_from_params(model, params, Camera(900, (128, 128), (256, 256)), texture_size=64)


@pytest.fixture(scope="module")
def full(model):
    return model.parts.get("beard", "full")


def cards(part, vertices=None):
    """(C, ROWS, 2, 3)"""
    return (part.binding.made if vertices is None else vertices).reshape(-1, ROWS, 2, 3)


# --------------------------------------------------------------------------------------------------------------- value


def test_a_beard_comes_back_from_json_exactly():
    coverage = np.random.default_rng(0).random(len(CONTROL_POINTS)).astype(np.float32)
    beard = Beard((0.1, 1 / 3, 0.9), 0.2, 0.7, 0.6, coverage, (0.5, 0.25, 0.0))
    assert beard_of_file(json.loads(json.dumps(beard_entry(beard)))) == beard
    assert beard_of_file(json.loads(json.dumps(beard_entry(Beard())))) == Beard() == beard_of_file(None)
    assert beard.replace(length=0.9) != beard and beard.replace(coverage=coverage[::-1]) != beard


@pytest.mark.parametrize(
    "change, message",
    [
        ({"color": (0.5, 0.5)}, "color of the beard is .* three numbers"),
        ({"brow_color": "black"}, "brow_color of the beard is .* three numbers"),
        ({"length": 9.0}, "length of the beard is 9.0; expected is a number from 0.1 to 3.0"),
        ({"density": float("nan")}, "density of the beard is nan"),
        ({"grey": True}, "grey of the beard is True"),
        ({"coverage": np.ones(3)}, "coverage of the beard has the shape"),
        ({"coverage": np.full(len(CONTROL_POINTS), 1.5)}, "coverage of the beard .* numbers from 0 to 1"),
    ],
)
def test_a_wrong_beard_is_refused_in_one_line(change, message):
    with pytest.raises(fv.ParameterError, match=message):
        Beard(**change)
    with pytest.raises(ValueError):
        beard_of_file(beard_entry(Beard()) | {key: np.asarray(value).tolist() for key, value in change.items()})


@pytest.mark.parametrize("entry", [[], {"colour": 1}, {"length": None}, {"coverage": "x"}])
def test_a_damaged_entry_is_refused(entry):
    with pytest.raises(ValueError):
        beard_of_file(entry)


def test_a_beard_has_the_colour_of_the_hair_or_its_own():
    hair = Hair((0.4, 0.2, 0.1), grey=0.3)
    assert np.allclose(beard_colour(Beard(), hair), beard_colour(Beard((0.4, 0.2, 0.1), grey=0.3), Hair((1, 1, 1))))
    assert (beard_colour(Beard(grey=1.0), hair) > beard_colour(Beard(), hair)).all()


def test_every_field_of_a_beard_is_described():
    assert all(f.name in Beard.__doc__ for f in fields(Beard))


# --------------------------------------------------------------------------------------------------------------- cards


def test_cards_face_one_way_and_show_their_tile_from_root_to_tip():
    assert card_faces(3).shape == (3 * 2 * (ROWS - 1), 3) and card_faces(3).max() == 3 * CARD_VERTICES - 1
    uv = card_uv(np.array([0, 9]), np.array([True, False])).reshape(2, ROWS, 2, 2)
    assert (np.diff(uv[..., 1], axis=1) > 0).all() and (uv[0, ..., 1] < 0.25).all() and (uv[1, ..., 1] > 0.25).all()
    assert (uv[0, :, 0, 0] < uv[0, :, 1, 0]).all() and (uv[1, :, 0, 0] > uv[1, :, 1, 0]).all()
    flat = np.stack([*np.meshgrid([0.0, 1.0], -np.arange(ROWS, dtype=float)), np.zeros((ROWS, 2))], axis=2)
    corners = flat.reshape(-1, 3)[card_faces(1)]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[:, 2] > 0).all()


def test_styles_are_parts_of_one_mesh_and_nobody_is_born_with_one(model, full):
    assert "beard" not in model.neutral().styles
    for name in GROWN:
        part = model.parts.get("beard", name)
        assert part.material.texture is full.material.texture and 8 < len(roots_of(part)) <= len(roots_of(full))
    assert with_beard_style({"beard": "full", "hair": "bob01"}, "shaved") == {"hair": "bob01"}


def test_styles_grow_where_their_names_say(model):
    def places(name):
        return roots_of(model.parts.get("beard", name)) * 1e3

    mouth = -68  # mm, of the mean head
    assert (places("moustache")[:, 1] > mouth - 4).all()
    assert (np.abs(places("goatee")[:, 0]) < 36).all()
    assert (places("soul_patch")[:, 1] < mouth).all() and (np.abs(places("soul_patch")[:, 0]) < 9).all()
    strap, chops = places("chinstrap"), places("chops")
    assert not ((strap[:, 2] > 80) & (strap[:, 1] > -95)).any()
    assert not ((np.abs(chops[:, 0]) < 18) & (chops[:, 1] < mouth - 8)).any()
    lowest = {name: model.parts.get("beard", name).binding.made[:, 1].min() for name in GROWN}
    assert lowest["full_long"] < lowest["full"] - 0.02 < lowest["full_short"] - 0.02 < lowest["stubble_long"]


def test_the_file_is_small_and_tells_how_it_was_made(model):
    assert find_companion_file(BEARD_FILE).stat().st_size < 4_000_000
    assert "CC0" in model.parts.info["beard_licence"] and sum(model.parts.info["beard_cards"]) > 1500


@pytest.mark.slow
def test_the_same_model_gives_the_same_file(model, tmp_path):
    from faceverse.training.beard import train_beard

    made = train_beard(tmp_path / "beard.safetensors", model)
    assert made.read_bytes() == find_companion_file(BEARD_FILE).read_bytes()


# --------------------------------------------------------------------------------------------------------------- shape


def test_length_scales_the_hairs_out_of_the_skin(full):
    coat = ~is_undercoat(full)

    def lengths(length):
        middle = cards(shaped(full, Beard(length=length)))[coat].mean(axis=2)
        return np.linalg.norm(middle[:, -1] - middle[:, 0], axis=1)

    made = lengths(1.0)
    assert 0.25 < np.median(lengths(0.3) / made) < 0.5
    assert 1.3 < np.median(lengths(2.0) / made) < 2.0
    short, long = (roots_of(shaped(full, Beard(length=length))) for length in (0.3, 2.0))
    assert np.allclose(short, long, atol=1e-6)
    chin = roots_of(full)[coat][:, 1] < -0.1
    assert np.median((lengths(2.0) / made)[chin]) > np.median((lengths(2.0) / made)[~chin])


def test_density_drops_the_same_cards_each_time_and_evenly(full):
    count = len(roots_of(full))
    half = shaped(full, Beard(density=0.5))
    assert 0.4 < len(roots_of(half)) / count < 0.65
    assert np.array_equal(half.binding.offset, shaped(full, Beard(density=0.5)).binding.offset)
    gap = cKDTree(roots_of(half)).query(roots_of(full))[0]
    assert np.percentile(gap, 99) < 0.006
    assert len(shaped(full, Beard(density=0.0)).faces) > 0
    assert shaped(full, Beard()) is full


def test_coverage_takes_hairs_away_where_it_is_zero(full):
    left = CONTROL_POINTS[:, 0] > 0.001
    one_sided = roots_of(shaped(full, Beard(coverage=np.where(left, 1.0, 0.0))))
    assert (one_sided[:, 0] > -0.012).all() and (one_sided[:, 0] > 0.02).sum() > 500
    basis = coverage_basis(roots_of(full))
    assert np.abs(basis.sum(1) - 1).max() < 1e-9 and (basis.max(axis=0) > 0.25).all()
    counts = [len(roots_of(shaped(full, Beard(coverage=np.full(len(CONTROL_POINTS), c))))) for c in (0.2, 0.5, 0.8)]
    assert counts == sorted(counts) and counts[0] < 0.35 * len(roots_of(full))


@pytest.mark.parametrize("expression", [{"jawOpen": 1.0}, "smile", {"mouthPucker": 1.0}])
def test_a_beard_follows_jaw_and_mouth(model, expression):
    still = head_with(model, "full")
    moving = fv.edit(still, expression=expression)
    distance = []
    for head in (still, moving):
        middle = cards(head.parts["beard"], head.part_vertices["beard"])[:, 0].mean(axis=1)
        distance.append(cKDTree(head.vertices).query(middle)[0])
    assert np.percentile(distance[0], 99) < 0.004 and np.percentile(distance[1] - distance[0], 99) < 0.0025
    chin = roots_of(still.parts["beard"])[:, 1] < -0.09
    moved = np.linalg.norm(moving.part_vertices["beard"] - still.part_vertices["beard"], axis=1)
    if expression == {"jawOpen": 1.0}:
        assert moved.reshape(-1, CARD_VERTICES)[chin].mean() > 0.015


@pytest.mark.parametrize("style", ["full", "full_long", "moustache"])
def test_no_hair_hangs_before_the_open_mouth(model, style):
    for seed in (1, 3):
        head = fv.edit(head_with(model, style, seed), expression={"jawOpen": 1.0})
        marks = model.landmarks_478
        points = np.einsum("lk,lkd->ld", marks.barycentric, head.vertices[model.faces[marks.triangle]])
        outline = points[[*INNER_LIPS[0], *reversed(INNER_LIPS[1])], :2]
        low = outline.min(0) - 0.005
        picture = Image.new("L", (300, 300))
        ImageDraw.Draw(picture).polygon([tuple(p) for p in (outline - low) * 4000], fill=255)
        inside = np.asarray(picture)
        place = ((head.part_vertices["beard"][:, :2] - low) * 4000).astype(int)
        seen = ((place >= 0) & (place < 300)).all(axis=1) & (head.part_vertices["beard"][:, 2] > 0.03)
        assert inside.any() and np.mean(inside[place[seen, 1], place[seen, 0]] > 0) < 0.004


# --------------------------------------------------------------------------------------------------------------- light


def test_a_beard_is_lit_as_a_volume_and_shades_the_skin_below(model):
    bare, head = head_with(model, "shaved"), head_with(model, "full")
    frame, placed = head.hair_frames["beard"], head.part_vertices["beard"]
    assert np.allclose(np.linalg.norm(frame.normals, axis=1), 1, atol=1e-5)
    away = placed - placed.mean(0) - (0, 0, -0.06)
    assert ((frame.normals * away).sum(1) > 0).mean() > 0.8
    card = cards(head.parts["beard"], placed).mean(axis=2)
    along = (card[:, -1] - card[:, 0]) / np.linalg.norm(card[:, -1] - card[:, 0], axis=1, keepdims=True)
    assert (frame.tangents.reshape(-1, ROWS, 2, 3)[:, 2, 0] * along).sum(1).min() > 0.5
    chin = cKDTree(head.vertices).query(roots_of(head.parts["beard"]))[1]
    assert head.skin_occlusion[chin].mean() < 0.8 * bare.skin_occlusion[chin].mean()
    light = head.part_occlusion["beard"].reshape(-1, ROWS, 2)[~is_undercoat(head.parts["beard"])].mean(axis=2)
    assert light[:, -1].mean() > 1.1 * light[:, 0].mean()


# ---------------------------------------------------------------------------------------------------------------- edit


def test_edit_gives_a_beard_and_takes_it_away(model):
    bare = head_with(model, "shaved")
    head = fv.edit(bare, beard="full", beard_length=0.3, beard_color="#804020", beard_density=0.8)
    assert head.params.styles["beard"] == "full" and head.params.beard.length == 0.3
    assert head.params.beard.color == (128 / 255, 64 / 255, 32 / 255) and head.params.beard.density == 0.8
    texture = head.parts["beard"].material.texture.astype(float)
    linear = np.where(texture <= 10, texture / 255 / 12.92, ((texture / 255 + 0.055) / 1.055) ** 2.4)
    weight = texture[..., 3:] / 255
    mean = (linear[..., :3] * weight).sum((0, 1)) / weight.sum()
    assert np.abs(mean / beard_colour(head.params.beard, head.params.hair) - 1).max() < 0.06
    assert fv.edit(head, age=1).params.beard == head.params.beard
    assert fv.edit(head, beard_color="hair").params.beard.color is None
    assert "beard" not in fv.edit(head, beard="shaved").parts


def test_brows_of_a_style_take_a_colour(model):
    bare = head_with(model, "shaved")
    dark = fv.edit(bare, brows="03", brow_color=(40, 20, 10))
    light = fv.edit(dark, brow_color="#e0c080")
    pixels = [head.parts["brows"].material.texture for head in (dark, light)]
    means = [np.average(seen[..., :3].mean(axis=2), weights=seen[..., 3]) for seen in pixels]
    assert means[0] + 60 < means[1]
    assert "brows" not in fv.edit(dark, brows="painted").parts


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"beard": "ful"}, "no style of beard called 'ful'; did you mean 'full'"),
        ({"beard": 3}, "no style of beard called '?3'?; known are: shaved, "),
        ({"brows": "99"}, "no style of brows called '99'"),
        ({"beard_color": "blu"}, "no hair colour 'blu'; did you mean 'blue'"),
        ({"brow_color": (1, 2)}, "the hair colour .* is neither"),
        ({"beard_length": 7}, "length of the beard is 7"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(model, wrong, message):
    with pytest.raises(fv.ParameterError, match=message) as caught:
        fv.edit(head_with(model, "full"), **wrong)
    assert "\n" not in str(caught.value)


def test_a_model_without_parts_says_what_is_missing(toy_model):
    head = fv.head(toy_model.neutral(), toy_model, texture_size=16)
    with pytest.raises(fv.ParameterError, match="open parts for beard are not installed"):
        fv.edit(head, beard="full")


def test_a_beard_is_stored_with_a_head_and_the_command_gives_one(model, tmp_path, capsys):
    coverage = np.linspace(0, 1, len(CONTROL_POINTS), dtype=np.float32)
    head = head_with(model, "goatee", beard=Beard((0.6, 0.5, 0.3), length=0.8, coverage=coverage))
    fv.export(head, tmp_path / "head.json")
    again = fv.load_result(tmp_path / "head.json")
    assert again.params.beard == head.params.beard and again.params.styles == head.params.styles
    assert np.array_equal(again.part_vertices["beard"], head.part_vertices["beard"])
    files = [str(tmp_path / "head.json"), "-o", str(tmp_path / "b.json")]
    arguments = ["edit", *files, "--beard", "full", "--brows", "02"]
    assert main([*arguments, "--beard-length", "0.5", "--beard-color", "#102030"]) == 0
    edited = fv.load_result(tmp_path / "b.json")
    assert edited.params.styles["beard"] == "full" and edited.params.styles["brows"] == "02"
    assert edited.params.beard.length == 0.5 and np.array_equal(edited.params.beard.coverage, coverage)


def test_a_glb_has_the_beard_as_tested_and_blended_hairs_that_move(model, tmp_path):
    head = head_with(model, "moustache")
    fv.export(head, tmp_path / "head.glb")
    content = (tmp_path / "head.glb").read_bytes()
    document = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    mesh = next(mesh for mesh in document["meshes"] if mesh["name"].startswith("beard"))
    materials = [document["materials"][primitive["material"]] for primitive in mesh["primitives"]]
    assert [material["alphaMode"] for material in materials] == ["MASK", "BLEND"]
    assert all(material["doubleSided"] for material in materials)
    assert mesh["primitives"][0]["targets"] and all(set(t) == {"POSITION"} for t in mesh["primitives"][0]["targets"])


def test_a_blend_has_the_beard_of_the_nearer_head(model):
    one, two = head_with(model, "shaved"), head_with(model, "full", 2, beard=Beard(length=0.5))
    for share, nearer in ((0.3, one), (0.7, two)):
        mixed = fv.blend(one, two, identity=share)
        assert mixed.params.beard == nearer.params.beard and mixed.params.styles == nearer.params.styles


def test_a_printed_beard_is_a_closed_solid_where_its_hairs_are(model, tmp_path):
    head = head_with(model, "goatee", beard=Beard((0.6, 0.5, 0.3)))
    solid = solid_beard(head)
    corners = np.sort(np.concatenate([solid.faces[:, [0, 1]], solid.faces[:, [1, 2]], solid.faces[:, [2, 0]]]), axis=1)
    assert (np.unique(corners, axis=0, return_counts=True)[1] % 2 == 0).all()
    hairs = head.part_vertices["beard"]
    assert np.all(solid.vertices.min(0) > hairs.min(0) - 0.006) and np.all(solid.vertices.max(0) < hairs.max(0) + 0.006)
    assert np.abs(beard_texture(head)[0, 0] / 255.0 - (0.6, 0.5, 0.3)).max() < 0.01
    bare = head_with(model, "shaved")
    assert solid_beard(bare) is None
    sizes = [fv.export(one, tmp_path / f"{k}.stl").stat().st_size for k, one in enumerate((head, bare))]
    assert sizes[0] - sizes[1] == 50 * len(solid.faces)
