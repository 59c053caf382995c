"""Visemes, presets of VRM and further morph targets: the mouths that they make, and the files that hold them."""

import json

import numpy as np
import pytest
from test_export import read_glb
from test_track_files import make_track, other_model

import faceverse as fv
from faceverse.__main__ import main
from faceverse.errors import ParameterError
from faceverse.formats.export import coarse_head
from faceverse.model.face_model import ARKIT_NAMES
from faceverse.model.visemes import MORPH_RECIPES, SIDE_NAMES, sided_name

VISEMES = "sil PP FF TH DD kk CH SS nn RR aa E I O U".split()
VRM = "happy angry sad relaxed surprised aa ih ou ee oh blink blinkLeft blinkRight"
VRM += " lookUp lookDown lookLeft lookRight neutral"
INNER_UPPER, INNER_LOWER, CORNERS, LIDS = 13, 14, (78, 308), {"Left": (386, 374), "Right": (159, 145)}


@pytest.fixture(scope="module")
def head(model):
    return coarse_head(fv.head(model.random(3), model, texture_size=64))


@pytest.fixture(scope="module")
def shown(head):
    """Function (recipe) -> head with that expression and nothing else."""
    neutral = head.replace(params=head.params.replace(expression=np.zeros_like(head.params.expression)))
    return lambda recipe: fv.edit(neutral, expression=dict(recipe))


def points(head):
    """The 478 landmarks (478, 3) of a head."""
    landmarks = head.model.data.landmarks_478
    corners = head.vertices[head.faces[landmarks.triangle]]
    return (corners * landmarks.barycentric[..., None]).sum(1)


def mouth_mm(head):
    """Gap between the lips, and width of the mouth, in millimetres."""
    found = points(head) * 1000
    return (
        float(np.linalg.norm(found[INNER_UPPER] - found[INNER_LOWER])),
        float(np.linalg.norm(found[CORNERS[0]] - found[CORNERS[1]])),
    )


# -------------------------------------------------------------------------------------------------------------- recipes


def test_the_names_are_those_of_the_programs():
    assert list(MORPH_RECIPES["oculus"]) == [f"viseme_{name}" for name in VISEMES]
    assert list(MORPH_RECIPES["vrm"]) == VRM.split()
    assert list(MORPH_RECIPES["talkinghead"]) == ["mouthOpen", "mouthSmile", "eyesClosed", "eyesLookUp", "eyesLookDown"]


def test_recipes_are_weights_of_arkit():
    for recipes in MORPH_RECIPES.values():
        assert not set(recipes) & set(ARKIT_NAMES)
        for name, recipe in recipes.items():
            assert set(recipe) <= set(ARKIT_NAMES) and all(0 < weight <= 1 for weight in recipe.values()), name
            with pytest.raises(TypeError):
                recipe["jawOpen"] = 1


def test_mouths_of_the_visemes(shown):
    found = {name: mouth_mm(shown(MORPH_RECIPES["oculus"][f"viseme_{name}"])) for name in VISEMES}
    gap, width = ({name: values[side] for name, values in found.items()} for side in (0, 1))
    assert gap["PP"] < gap["sil"] < 4  # the landmarks lie on the red of the lips, a little apart
    assert max(gap, key=gap.get) == "aa" and 20 < gap["aa"] < 35
    assert gap["aa"] > gap["O"] > gap["U"] > gap["PP"] and gap["aa"] > gap["E"] > gap["I"]
    assert all(gap["sil"] + 5 < gap[name] < 20 for name in ("TH", "DD", "kk", "CH", "SS", "nn", "RR", "I", "U"))
    assert min(width, key=width.get) == "U" and max(width, key=width.get) == "I"
    assert width["I"] > width["sil"] + 4 > width["O"] + 8 and width["CH"] < width["SS"] - 5


def test_the_lower_lip_meets_the_upper_teeth(shown):
    """In f and v the lower lip goes up to the edge of the upper incisors; in p it lies before them."""
    distances = {}
    for name in ("sil", "FF", "aa"):
        head = shown(MORPH_RECIPES["oculus"][f"viseme_{name}"])
        teeth, lip = head.part_vertices["teeth_upper"], points(head)[INNER_LOWER]
        front = teeth[(np.abs(teeth[:, 0] - lip[0]) < 0.004) & (teeth[:, 2] > teeth[:, 2].max() - 0.006)]
        distances[name] = front[:, 1].min() - lip[1]
    assert -0.004 < distances["FF"] < 0.002 and distances["aa"] > 0.01


def test_the_tongue_comes_between_the_teeth(shown):
    tip = {name: shown(MORPH_RECIPES["oculus"][f"viseme_{name}"]) for name in ("nn", "TH")}
    reach = {name: head.part_vertices["tongue"][:, 2].max() - head.part_vertices["teeth_upper"][:, 2].max()
             for name, head in tip.items()}  # fmt: skip
    assert reach["TH"] > -0.004 and reach["TH"] > reach["nn"] + 0.004


def test_vowels_of_vrm_are_those_of_the_visemes():
    pairs = {"aa": "aa", "ih": "I", "ou": "U", "ee": "E", "oh": "O"}
    assert all(MORPH_RECIPES["vrm"][a] == MORPH_RECIPES["oculus"][f"viseme_{b}"] for a, b in pairs.items())


def test_blinks_close_the_eye_of_their_side(shown):
    def gaps(recipe):
        found = points(shown(recipe))
        return {side: float(np.linalg.norm(found[upper] - found[lower])) for side, (upper, lower) in LIDS.items()}

    rest, left = gaps({}), gaps(MORPH_RECIPES["vrm"]["blinkLeft"])
    assert left["Left"] < 0.3 * rest["Left"] and left["Right"] == pytest.approx(rest["Right"], rel=0.02)
    both = gaps(MORPH_RECIPES["talkinghead"]["eyesClosed"])
    assert all(both[side] < 0.3 * rest[side] for side in rest)


def test_looks_turn_both_eyes_to_one_side(shown):
    for name, axis, sign in (("lookLeft", 0, 1), ("lookRight", 0, -1), ("lookUp", 1, 1), ("lookDown", 1, -1)):
        before, after = shown({}), shown(MORPH_RECIPES["vrm"][name])
        for slot in ("eye_left", "eye_right"):
            front = before.part_vertices[slot][:, 2].argmax()
            moved = (after.part_vertices[slot] - before.part_vertices[slot])[front]
            assert sign * moved[axis] > 0.003, (name, slot)


# ---------------------------------------------------------------------------------------------------------------- files


def test_files_hold_the_sets_in_order(head, tmp_path):
    path = fv.export(head, tmp_path / "me.glb", morphs="arkit+oculus+talkinghead")
    glb = read_glb(path)
    names = [*head.model.expression_names, *MORPH_RECIPES["oculus"], *MORPH_RECIPES["talkinghead"]]
    moving = [mesh for mesh in glb.document["meshes"] if "targets" in mesh["primitives"][0]]
    assert len(moving) > 5 and all(mesh["extras"]["targetNames"] == names for mesh in moving)
    assert all(len(mesh["weights"]) == len(names) for mesh in moving)
    stored = json.loads((tmp_path / "me_morphs.json").read_text())
    assert stored["targets"] == names and stored["recipes"]["viseme_O"] == MORPH_RECIPES["oculus"]["viseme_O"]


@pytest.mark.parametrize(("chosen", "name"), [("oculus", "viseme_E"), ("vrm", "happy"), ("talkinghead", "eyesClosed")])
def test_a_target_is_the_expression_that_it_combines(head, shown, tmp_path, chosen, name):
    glb = read_glb(fv.export(head, tmp_path / "me.glb", morphs=chosen))
    place = glb.mesh["extras"]["targetNames"].index(name)
    reached = glb.attribute("POSITION") + glb.targets("POSITION")[place]
    wanted = shown(MORPH_RECIPES[chosen][name]).vertices[head.faces[head.is_skin].reshape(-1)]
    assert np.abs(reached[glb.corners()] - wanted).max() < 2.1e-5  # targets leave out what nobody sees
    assert np.abs(glb.targets("POSITION")[place]).max() > 0.002 and not any(glb.mesh["weights"])


def test_names_of_one_side(head, tmp_path):
    glb = read_glb(fv.export(head, tmp_path / "me.glb", sides="_L/_R", morphs="arkit+vrm"))
    names = glb.mesh["extras"]["targetNames"]
    assert {"eyeBlink_L", "eyeBlink_R", "mouthLeft", "jawRight", "jawOpen", "blinkLeft"} <= set(names)
    assert sum(name.endswith("_L") for name in names) == sum(name.endswith("_R") for name in names) == 18
    recipe = json.loads((tmp_path / "me_morphs.json").read_text())["recipes"]["blinkLeft"]
    assert recipe == {"eyeBlink_L": 1.0}
    assert [sided_name(name, "Left/Right") for name in ARKIT_NAMES] == list(ARKIT_NAMES)


def test_files_without_the_options_are_as_before(toy_result, tmp_path):
    fv.export(toy_result, tmp_path / "plain.glb")
    fv.export(toy_result, tmp_path / "named.glb", morphs="arkit", sides="Left/Right")
    assert {path.name for path in tmp_path.iterdir()} == {"plain.glb", "named.glb", "named_morphs.json"}
    assert (tmp_path / "plain.glb").read_bytes() == (tmp_path / "named.glb").read_bytes()


def test_the_khronos_validator_has_no_complaints(head, tmp_path, validate_gltf):
    report = validate_gltf(fv.export(head, tmp_path / "me.glb", morphs="arkit+oculus+vrm+talkinghead"))
    assert [message for message in report["issues"]["messages"] if message["severity"] < 2] == []


# --------------------------------------------------------------------------------------------------- refusals, commands


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"morphs": "arkit+visage"}, r"several of arkit, oculus, vrm, talkinghead, joined by \+, got 'arkit\+visage'"),
        ({"morphs": ""}, "morphs must be one or several"),
        ({"morphs": 52}, "morphs must be one or several"),
        ({"sides": "links/rechts"}, "sides must be one of Left/Right, _L/_R, got 'links/rechts'"),
    ],
)
def test_unknown_values_are_refused(toy_result, tmp_path, options, words):
    with pytest.raises(ParameterError, match=words):
        fv.export(toy_result, tmp_path / "me.glb", **options)
    assert list(tmp_path.iterdir()) == []


def test_models_with_other_expressions_have_no_visemes(tmp_path):
    names = tuple(f"expression_{k}" for k in range(len(ARKIT_NAMES)))
    model = other_model(expression_names=names, named_expressions=False)
    head = fv.head(model.random(0), model, texture_size=32)
    with pytest.raises(ParameterError, match=r"no expressions by ARKit's names \(.*\), of which the targets of oculus"):
        fv.export(head, tmp_path / "me.glb", morphs="oculus")
    assert fv.export(head, tmp_path / "me.glb", morphs="arkit").is_file()


def test_other_formats_refuse_morphs(toy_result, tmp_path):
    for options in ({"morphs": "vrm"}, {"sides": "_L/_R"}):
        with pytest.raises(ParameterError, match=r"me\.ply cannot have (morphs|sides); write one of \.glb"):
            fv.export(toy_result, tmp_path / "me.ply", **options)
    with pytest.raises(TypeError):
        fv.export(make_track(toy_result.model), tmp_path / "me.glb", morphs="vrm")


def test_the_command_takes_sets_and_names(toy_commands, toy_result, tmp_path, capsys):
    stored, path = fv.export(toy_result, tmp_path / "me.json"), tmp_path / "you.glb"
    assert main(["export", str(stored), str(path), "--morphs", "arkit+oculus", "--sides", "_L/_R"]) == 0
    names = read_glb(path).mesh["extras"]["targetNames"]
    assert len(names) == 52 + 15 and "browDown_L" in names
    assert main(["export", str(stored), str(path), "--morphs", "all"]) == 1
    assert "morphs must be" in capsys.readouterr().err
    assert SIDE_NAMES["_L/_R"] == ("_L", "_R")
