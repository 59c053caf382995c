"""Edits of hair: styles and colours by name, random hair, blending, ageing, and hair in files."""

import json
import struct

import numpy as np
import pytest

import faceverse as fv
from faceverse.__main__ import main
from faceverse.edit_hair import blended_hair
from faceverse.formats.solid_hair import solid_hair, surface_net
from faceverse.parts.hair import mean_colour
from faceverse.parts.hair_choice import available_styles, colour_of_hex, grey_share
from faceverse.parts.hair_styles import hair_slots, hair_style_of
from faceverse.parts.part import HAIR_SLOTS


@pytest.fixture(scope="module")
def model():
    return fv.load_model()


@pytest.fixture(scope="module")
def bald(model):
    return fv.head(model.random(3, hair=False), model, texture_size=16)


def worn(result):
    return {slot: style for slot, style in result.params.styles.items() if slot in HAIR_SLOTS}


# ---------------------------------------------------------------------------------------------------------------- edits


def test_every_style_can_be_put_on_and_taken_off(model, bald):
    names = available_styles(model.parts)
    assert set(names) == set(fv.HAIR_STYLES), "the file of hair has all styles"
    for name in names:
        head = fv.edit(bald, hair=name)
        assert worn(head) == hair_slots(name) and hair_style_of(head.params.styles) == name
        assert set(hair_slots(name)) == set(head.parts) & set(HAIR_SLOTS)
    assert not worn(fv.edit(head, hair=None)) and not worn(fv.edit(head, hair="bald"))
    assert worn(fv.edit(head, age=1)) == worn(head), "other edits keep it"


@pytest.mark.parametrize("color", ["chestnut", "#5f3a24", "#5F3A24", (95, 58, 36), np.array([95, 58, 36]), "Chestnut "])
def test_colours_are_names_or_numbers(bald, color):
    grey = bald.replace(params=bald.params.replace(hair=fv.Hair(grey=0.7, tip_color=(1, 0, 0))))
    hair = fv.edit(grey, hair_color=color).params.hair
    assert np.allclose(hair.color, np.array([95, 58, 36]) / 255, atol=1e-9)
    assert hair.grey == 0 and hair.tip_color is None, "a colour that is chosen covers grey hairs"
    assert fv.edit(grey, hair_color=color, hair_grey=0.2).params.hair.grey == 0.2


def test_every_swatch_is_a_colour(bald):
    assert len(fv.HAIR_COLORS) >= 18
    for name, text in fv.HAIR_COLORS.items():
        assert fv.edit(bald, hair_color=name).params.hair.color == colour_of_hex(text)


def test_numbers_replace_those_of_the_hair(bald):
    wanted = {"length": 0.7, "fringe": 0.4, "wave": 0.5, "grey": 0.25}
    arguments = {f"hair_{name}": value for name, value in wanted.items()}
    hair = fv.edit(bald, hair_volume=1.2, hair_mirrored=True, **arguments).params.hair
    assert {name: getattr(hair, name) for name in wanted} == wanted and hair.mirrored
    assert (hair.volume_top, hair.volume_sides, hair.volume_back) == (1.2, 1.2, 1.2)
    hair = fv.edit(bald, hair_volume={"top": 1.5}).params.hair
    assert (hair.volume_top, hair.volume_sides) == (1.5, 1.0)


def test_another_style_is_as_made_but_in_the_same_colour(model, bald):
    warp = np.full_like(bald.params.hair.warp, 0.01)
    hair = fv.Hair((0.5, 0.3, 0.2), (0.6, 0.4, 0.3), 0.2, length=0.6, wave=0.4, mirrored=True, warp=warp)
    fitted = fv.edit(bald, hair="bob01")
    fitted = fitted.replace(params=fitted.params.replace(hair=hair))
    other = fv.edit(fitted, hair="short02").params.hair
    assert other == fv.Hair(hair.color, hair.tip_color, hair.grey, mirrored=True)
    assert fv.edit(fitted, hair="short02", hair_length=0.9).params.hair.length == 0.9
    assert fv.edit(fitted, hair_length=0.9).params.hair == hair.replace(length=0.9)
    copied = fv.edit(fv.edit(bald, hair="afro01"), hair_from=fitted)
    assert worn(copied) == worn(fitted) and copied.params.hair == hair
    assert not worn(fv.edit(fitted, hair_from=bald)), "a bald donor makes bald"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hair": "bob1"}, "did you mean .*bob01"),
        ({"hair": "xyz"}, "there are: bald"),
        ({"hair": 3}, "there is no hair style 3"),
        ({"hair_color": "chesnut"}, "did you mean 'chestnut'"),
        ({"hair_color": "xyz"}, "there are: black, dark brown"),
        ({"hair_color": "#12345"}, "neither a name"),
        ({"hair_color": (0, 0, 300)}, "neither a name"),
        ({"hair_length": 5}, "hair_length is 5; expected is a number from 0.2 to 2"),
        ({"hair_wave": "much"}, "hair_wave .* number"),
        ({"hair_volume": {"middle": 1}}, "no hair volume 'middle'; there are: top, sides, back"),
        ({"hair_volume": {"top": 9}}, "hair_volume is 9"),
        ({"hair_mirrored": "yes"}, "mirrored is 'yes'"),
        ({"hair_from": "other.json"}, "hair_from must be a head"),
    ],
)
def test_wrong_hair_is_refused_in_one_line(bald, change, words):
    with pytest.raises(fv.ParameterError, match=words) as refused:
        fv.edit(bald, **change)
    assert "\n" not in str(refused.value)


def test_a_model_without_hair_says_so(toy_model):
    head = fv.head(toy_model.neutral(), toy_model, texture_size=8)
    with pytest.raises(fv.ParameterError, match="has no hair"):
        fv.edit(head, hair="bob01")
    assert fv.edit(head, hair=None).params.styles == head.params.styles


# ------------------------------------------------------------------------------------------------------- age and chance


def test_hair_turns_grey_with_age_and_back(model):
    young = fv.head(model.random(3, age=30), model, texture_size=8)
    young = young.replace(params=young.params.replace(hair=fv.Hair()))
    shares = [fv.edit(young, age_years=years).params.hair.grey for years in (35, 50, 65, 80)]
    assert shares[0] < 0.05 and np.all(np.diff(shares) > 0.1) and shares[-1] > 0.8
    step = fv.edit(fv.edit(young, age_years=55), age_years=70)
    assert abs(step.params.hair.grey - fv.edit(young, age_years=70).params.hair.grey) < 0.02, "in steps as at once"
    back = fv.edit(step, age_years=30)
    assert back.params.hair.grey < 0.03
    assert fv.edit(young, age_years=70, hair_grey=0.1).params.hair.grey == 0.1
    luminance = [mean_colour(fv.Hair(grey=share)).sum() for share in (0, 0.5, 1)]
    assert luminance[0] < luminance[1] < luminance[2]
    assert grey_share(5) == grey_share(20) == 0


def test_random_people_have_hair_that_is_usual(model):
    people = [model.random(seed) for seed in range(60)]
    values = [model.attributes(person) for person in people]
    styles = [hair_style_of(person.styles) for person in people]
    assert len(set(styles)) >= 8, "many styles"
    women = [style for style, value in zip(styles, values) if value["gender"] < -0.5]
    men = [style for style, value in zip(styles, values) if value["gender"] > 0.5]
    meshes = {"bob01", "bob02", "braid01", "long01", "ponytail01", "bun", "top_bun"}
    long = {name for name, style in fv.HAIR_STYLES.items() if style.mesh in meshes}
    assert np.mean([style in long for style in women]) > 0.4 > 0.15 > np.mean([style in long for style in men])
    old = [person.hair.grey for person, value in zip(people, values) if value["age"] > 65]
    young = [person.hair.grey for person, value in zip(people, values) if value["age"] < 40]
    assert np.mean(old) > 0.3 > 0.1 > np.mean(young)
    again = model.random(7)
    assert again.hair == people[7].hair and again.styles == people[7].styles
    bald = model.random(7, hair=False)
    assert not set(bald.styles) & set(HAIR_SLOTS) and np.array_equal(bald.identity, again.identity)
    child = model.random(7, age=8)
    assert child.hair.grey == 0


def test_randomising_a_face_changes_its_hair_unless_it_is_kept(model, bald):
    head = fv.edit(bald, hair="bob01", hair_color="pink")
    changed = [fv.randomize(head, seed) for seed in range(4)]
    assert len({(*worn(one).values(), one.params.hair.color) for one in changed}) == 4
    for kept in (fv.randomize(head, 1, keep="hair"), fv.randomize(head, 1, region="nose")):
        assert worn(kept) == worn(head) and kept.params.hair.color == head.params.hair.color


def test_blended_hair_lies_between_two_heads(model, bald):
    first = fv.edit(bald, hair="bob01", hair_color=(0, 0, 0), hair_length=0.6)
    second = fv.edit(bald, hair="bob01", hair_color=(200, 100, 50), hair_length=1.0, hair_grey=0.5)
    hair = fv.blend(first, second, identity=0.25, albedo=0.5).params.hair
    assert hair.length == pytest.approx(0.7) and hair.grey == pytest.approx(0.25)
    assert np.allclose(hair.color, np.array([100, 50, 25]) / 255)
    other = fv.edit(second, hair="short02")
    nearer = fv.blend(first, other, identity=0.6, albedo=0)
    assert worn(nearer) == worn(other) and nearer.params.hair.length == 1.0
    assert nearer.params.hair.color == first.params.hair.color
    for share, one in ((0, first), (1, second)):
        assert blended_hair(first.params, second.params, share, share) == one.params.hair
    tips = first.replace(params=first.params.replace(hair=first.params.hair.replace(tip_color=(1.0, 0.0, 0.0))))
    assert np.allclose(blended_hair(tips.params, first.params, 0.5, 0.5).tip_color, (0.5, 0, 0))


# ---------------------------------------------------------------------------------------------------------------- files


def test_json_restores_edited_hair_exactly(tmp_path, model, bald):
    head = fv.edit(bald, hair="bob02", hair_color="copper", hair_length=0.81, hair_wave=1 / 3, hair_mirrored=True)
    restored = fv.load_result(fv.export(head, tmp_path / "head.json"), model)
    assert restored.params.hair == head.params.hair and restored.params.styles == head.params.styles
    assert not worn(fv.load_result(fv.export(head, tmp_path / "bald.json", hair=False), model))


def glb_json(path):
    content = path.read_bytes()
    return json.loads(content[20 : 20 + struct.unpack("<I", content[12:16])[0]])


def test_a_glb_with_hair_is_valid_and_small(tmp_path, bald, validate_gltf):
    path = fv.export(fv.edit(bald, hair="bob01", hair_color="copper"), tmp_path / "head.glb", lod="coarse")
    report = validate_gltf(path)["issues"]
    assert report["numErrors"] == report["numWarnings"] == 0, report["messages"]
    assert path.stat().st_size < 6_000_000


def test_strands_in_a_glb_are_tested_and_blended(tmp_path, model, bald):
    coarse = fv.edit(bald, hair="short04", hair_color="copper")
    document = glb_json(fv.export(coarse, tmp_path / "head.glb", lod="coarse"))
    mesh = next(mesh for mesh in document["meshes"] if mesh["name"] == "hair")
    first, second = (dict(primitive) for primitive in mesh["primitives"])
    modes = [document["materials"][primitive.pop("material")] for primitive in (first, second)]
    assert first == second, "the same triangles, which take no more space"
    assert [mode["alphaMode"] for mode in modes] == ["MASK", "BLEND"] and all(mode["doubleSided"] for mode in modes)
    pictures = [mode["pbrMetallicRoughness"]["baseColorTexture"] for mode in modes]
    assert pictures[0] == pictures[1]
    assert "extensionsUsed" not in document
    bare = glb_json(fv.export(coarse, tmp_path / "bald.glb", lod="coarse", hair=False))
    assert not {mesh["name"] for mesh in bare["meshes"]} & set(HAIR_SLOTS)


def open_edges(faces):
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    known = {tuple(edge) for edge in edges.tolist()}
    return sum((end, start) not in known for start, end in known)


def test_a_surface_net_is_closed_and_points_outward():
    x, y, z = np.mgrid[:24, :24, :24] - 11.7
    vertices, faces = surface_net((8 - np.sqrt(x**2 + y**2 + z**2)).astype(np.float32))
    assert open_edges(faces) == 0
    corners = vertices[faces]
    volume = np.einsum("fd,fd->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.02)
    assert np.abs(np.linalg.norm(vertices - 11.7, axis=1) - 8).max() < 0.25


def test_printed_hair_is_a_solid_where_the_strands_are(tmp_path, model, bald):
    head = fv.edit(bald, hair="short03")
    solid = solid_hair(head)
    assert open_edges(solid.faces) == 0
    strands = np.concatenate([head.part_vertices[slot] for slot in HAIR_SLOTS])
    low, high = solid.vertices.min(0), solid.vertices.max(0)
    assert np.all(low > strands.min(0) - 0.006) and np.all(high < strands.max(0) + 0.006)
    assert solid_hair(bald) is None
    sizes = {hair: fv.export(head, tmp_path / f"{hair}.stl", hair=hair).stat().st_size for hair in (True, False)}
    assert sizes[True] - sizes[False] == 50 * len(solid.faces)


def test_the_command_line_edits_hair(tmp_path, model, bald, capsys):
    source = fv.export(bald, tmp_path / "bald.json")
    flags = ["--hair", "bob01", "--hair-color", "#5a3825", "--hair-length", "0.7", "--hair-volume", "1.2"]
    flags += ["--hair-fringe", "0.5", "--hair-wave", "0.25", "--hair-grey", "0.1", "--hair-mirrored"]
    made = tmp_path / "head.json"
    assert main(["edit", str(source), "-o", str(made), *flags]) == 0
    head = fv.load_result(made, model)
    hair = head.params.hair
    assert worn(head) == hair_slots("bob01") and hair.mirrored and hair.volume_back == 1.2
    assert (hair.length, hair.fringe, hair.wave, hair.grey) == (0.7, 0.5, 0.25, 0.1)
    copied = tmp_path / "copied.json"
    assert main(["edit", str(source), "-o", str(copied), "--hair-from", str(made), "--no-hair-mirrored"]) == 0
    assert fv.load_result(copied, model).params.hair == hair.replace(mirrored=False)
    assert main(["edit", str(made), "-o", str(copied), "--hair-length", "7"]) == 1
    assert "hair_length is 7" in capsys.readouterr().err
    assert main(["export", str(made), str(tmp_path / "cut.json"), "--no-hair"]) == 0
    assert not worn(fv.load_result(tmp_path / "cut.json", model))
