"""Skeletons of exported heads: joints and skin weights, the file's skin, and animations that turn joints.

The reader below skins vertices as the specification of glTF says, so that the tests see what a viewer shows.
"""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_export import Glb, read_glb
from test_track_files import make_track, other_model

import faceverse as fv
from faceverse.__main__ import main
from faceverse.errors import ParameterError
from faceverse.formats.export import coarse_head
from faceverse.formats.gltf_skin import strongest_influences
from faceverse.formats.rig import HEAD, JAW, JOINT_NAMES, LEFT_EYE, NECK, head_rig, sphere_centre
from faceverse.tracking.result import Track


@pytest.fixture(scope="module")
def head(model):
    """A young man with a beard on the coarse mesh of the open model."""
    person = fv.edit(fv.head(model.random(3), model, texture_size=64), beard="goatee")
    return coarse_head(person)


@pytest.fixture(scope="module")
def rigged(head, tmp_path_factory):
    return Skinned(fv.export(head, tmp_path_factory.mktemp("rig") / "me.glb", rig=True).read_bytes())


class Skinned(Glb):
    """A reader of skinned files: transforms of nodes, and vertices where the joints take them."""

    def __init__(self, content):
        super().__init__(content)
        self.nodes = {node["name"]: node for node in self.document["nodes"]}
        self.parent = {
            child: number for number, node in enumerate(self.document["nodes"]) for child in node.get("children", ())
        }
        (self.skin,) = self.document["skins"]
        self.joints = [self.document["nodes"][joint]["name"] for joint in self.skin["joints"]]
        self.inverse_bind = self.matrices(self.skin["inverseBindMatrices"])

    def matrices(self, accessor):
        view = self.document["accessors"][accessor]
        values = np.frombuffer(self.bytes_of(view["bufferView"]), "<f4").reshape(-1, 4, 4)
        return values.transpose(0, 2, 1)  # column by column

    def transform(self, number, turns):
        """World transform (4, 4) of a node, with other rotations and translations by name."""
        node = self.document["nodes"][number]
        values = {**node, **turns.get(node["name"], {})}
        local = np.eye(4)
        local[:3, :3] = Rotation.from_quat(values.get("rotation", (0, 0, 0, 1))).as_matrix()
        local[:3, 3] = values.get("translation", (0, 0, 0))
        return self.transform(self.parent[number], turns) @ local if number in self.parent else local

    def vertices(self, name, weights=None, **turns):
        """Corners (N, 3) of the triangles of a mesh, with weights of targets and rotations of joints."""
        self.mesh = self.document["meshes"][self.nodes[name]["mesh"]]
        self.primitive = self.mesh["primitives"][0]
        points = self.attribute("POSITION").astype(np.float64)
        if weights is not None and "targets" in self.primitive:
            points = points + np.tensordot(weights, self.targets("POSITION"), 1)
        shares = self.attribute("WEIGHTS_0") / 65535
        joints = np.stack([self.transform(joint, turns) for joint in self.skin["joints"]]) @ self.inverse_bind
        moved = np.einsum("jab,vb->vja", joints[:, :3], np.column_stack([points, np.ones(len(points))]))
        moved = np.take_along_axis(moved, self.attribute("JOINTS_0").astype(int)[..., None], 1)
        return (shares[..., None] * moved).sum(1)[self.corners()]

    def animated(self, key):
        """Rotations and translations by node, and weights, at one key of the animation."""
        turns, weights = {}, None
        (animation,) = self.document["animations"]
        for channel in animation["channels"]:
            values = self.values(animation["samplers"][channel["sampler"]]["output"])
            node, path = self.document["nodes"][channel["target"]["node"]]["name"], channel["target"]["path"]
            if path == "weights":
                weights = values.reshape(-1, 52)[key]
            else:
                turns.setdefault(node, {})[path] = values[key]
        return turns, weights


def joint_at(joint, *rotvec):
    return {joint: {"rotation": Rotation.from_rotvec(rotvec).as_quat()}}


# --------------------------------------------------------------------------------------------------- joints and weights


def test_joints_are_where_anatomy_has_them(head):
    rig = head_rig(head)
    place = dict(zip(JOINT_NAMES, rig.pivots, strict=True))
    ears, eyes = head.neutral_vertices[head.model.regions["ears"]], head.neutral_vertices
    assert ears[:, 2].min() - 0.02 < place["Jaw"][2] < ears[:, 2].max() + 0.03
    assert ears[:, 1].min() - 0.02 < place["Jaw"][1] < ears[:, 1].max()
    assert place["Neck"][1] < place["Head"][1] < ears[:, 1].max() and abs(place["Head"][0]) < 0.003
    for joint, region in (("LeftEye", "eyeball_left"), ("RightEye", "eyeball_right")):
        ball = eyes[head.model.regions[region]]
        assert np.linalg.norm(place[joint] - sphere_centre(ball)) < 0.002
    assert place["LeftEye"][0] > 0.02 and place["RightEye"][0] < -0.02
    assert np.degrees(rig.jaw_open_rad) == pytest.approx(23, abs=4)


@pytest.mark.parametrize("age", [8, 70])
def test_joints_follow_the_head(model, head, age):
    other = coarse_head(fv.head(model.random(5, age=age), model, texture_size=64))
    rig, before = head_rig(other), head_rig(head)
    assert np.abs(rig.pivots - before.pivots).max() > 0.003
    lips = other.neutral_vertices[other.model.regions["lips"]].mean(0)
    assert rig.pivots[HEAD][1] - rig.pivots[NECK][1] > 0.06 and rig.pivots[JAW][2] < lips[2] - 0.05


def test_weights_are_shares(head):
    weights = head_rig(head).weights
    assert weights.min() >= 0 and np.abs(weights.sum(1) - 1).max() < 1e-5
    regions, top = head.model.regions, head.neutral_vertices[:, 1] > 0.02
    assert (weights[top][:, HEAD] > 0.999).mean() > 0.94 and weights[regions["eyeball_left"]][:, LEFT_EYE].min() == 1
    collar = head.neutral_vertices[:, 1] < head.neutral_vertices[:, 1].min() + 0.01
    assert weights[collar][:, NECK].min() > 0.95
    assert weights[regions["ears"]][:, NECK].max() == 0
    step = np.abs(weights[head.faces] - weights[np.roll(head.faces, 1, axis=1)])[..., NECK]
    assert step[np.isin(head.faces, regions["neck"]).all(1)].max() < 0.4  # no crease where the neck begins


def test_jaw_bone_and_jaw_open_agree(head):
    """The bone cannot round the corners of the mouth; teeth, tongue and chin go where the target takes them."""
    rig, model = head_rig(head), head.model
    offset = model.expression_modes_of(head.params.identity)[model.expression_names.index("jawOpen")]
    away = head.neutral_vertices - rig.pivots[JAW]
    moved = rig.weights[:, [JAW]] * (Rotation.from_rotvec([rig.jaw_open_rad, 0, 0]).apply(away) - away)
    error = np.linalg.norm(moved - offset, axis=1)
    teeth = head.parts["teeth_lower"].binding.reference
    assert np.linalg.norm(offset[teeth], axis=1).min() > 0.015 and error[teeth].max() < 8e-4
    face = model.regions["face"]
    assert np.linalg.norm(offset[face], axis=1).max() > 0.03
    assert np.median(error[face]) < 5e-4 and error.max() < 0.2 * np.linalg.norm(offset, axis=1).max()
    assert error[model.regions["tongue"]].max() < 3e-3


def test_a_jaw_that_does_not_turn_has_a_hinge_below_the_ear():
    """A model whose jawOpen only shifts: its bone must not lie far away."""
    toy = other_model()
    modes = np.array(toy.expression_modes)
    row = toy.expression_names.index("jawOpen")
    low = toy.mean_vertices[:, 1] < -0.03
    modes[row] = np.where(low[:, None], np.float32([0, -0.02, 0]), 0)
    still = other_model(expression_modes=modes)
    rig = head_rig(fv.head(still.random(0), still, texture_size=32))
    assert abs(rig.jaw_open_rad) < 0.05 and np.abs(rig.pivots[JAW]).max() < 0.12


def test_parts_move_with_the_skin_on_which_they_lie(head):
    rig = head_rig(head)
    for slot, part in head.parts.items():
        weights = rig.part_weights(slot, part)
        assert weights.shape == (len(part.binding.triangle), len(JOINT_NAMES))
        assert np.abs(weights.sum(1) - 1).max() < 1e-5 and weights.min() >= 0
    whole = {"teeth_upper": HEAD, "teeth_lower": JAW, "eye_left": LEFT_EYE, "cornea_left": LEFT_EYE, "hair": HEAD}
    for slot, joint in whole.items():
        assert rig.part_weights(slot, head.parts[slot])[:, joint].min() == 1
    beard = rig.part_weights("beard", head.parts["beard"])
    assert beard[:, JAW].max() > 0.9 and beard[:, JAW].min() < 0.1
    lashes = rig.part_weights("lashes", head.parts["lashes"])
    assert lashes[:, HEAD].min() > 0.99


# ---------------------------------------------------------------------------------------------------------------- files


def test_all_meshes_hang_in_one_armature(head, rigged):
    document = rigged.document
    (root,) = document["scenes"][0]["nodes"]
    armature = document["nodes"][root]
    children = [document["nodes"][child]["name"] for child in armature["children"]]
    assert armature["name"] == "Armature" and children == ["Neck", "head", *head.parts]
    assert rigged.joints == list(JOINT_NAMES)
    assert document["nodes"][rigged.skin["skeleton"]]["name"] == "Neck"
    meshes = [node for node in document["nodes"] if "mesh" in node]
    assert all(node["skin"] == 0 and "translation" not in node for node in meshes)
    carried = {name: document["nodes"][rigged.parent[document["nodes"].index(rigged.nodes[name])]]["name"]
               for name in JOINT_NAMES}  # fmt: skip
    assert carried == {"Neck": "Armature", "Head": "Neck", "Jaw": "Head", "LeftEye": "Head", "RightEye": "Head"}


def test_at_rest_the_file_is_the_head(head, rigged):
    assert np.abs(rigged.vertices("head") - head.neutral_vertices[head.faces[head.is_skin].reshape(-1)]).max() < 1e-6
    for slot, part in head.parts.items():
        wanted = head.neutral_part_vertices[slot][part.faces.reshape(-1)]
        assert np.abs(rigged.vertices(slot) - wanted).max() < 1e-6


def test_joints_turn_what_they_carry(head, rigged):
    rig = head_rig(head)
    gaze = joint_at("LeftEye", 0, 0.4, 0)
    moved = rigged.vertices("eye_left", **gaze) - rig.pivots[LEFT_EYE]
    wanted = Rotation.from_rotvec([0, 0.4, 0]).apply(rigged.vertices("eye_left") - rig.pivots[LEFT_EYE])
    assert np.abs(moved - wanted).max() < 1e-5
    assert np.abs(rigged.vertices("eye_right", **gaze) - rigged.vertices("eye_right")).max() < 1e-6
    opened = joint_at("Jaw", rig.jaw_open_rad, 0, 0)
    weights = np.float64([name == "jawOpen" for name in head.model.expression_names])
    for slot, limit_m in (("teeth_lower", 1e-3), ("tongue", 4e-3), ("beard", 8e-3)):
        difference = rigged.vertices(slot, **opened) - rigged.vertices(slot, weights)
        assert np.abs(rigged.vertices(slot, **opened) - rigged.vertices(slot)).max() > 0.015
        assert np.percentile(np.linalg.norm(difference, axis=1), 95 if slot == "beard" else 100) < limit_m
    nod = joint_at("Head", 0.4, 0, 0)
    hair, still = (rigged.vertices("hair", **turns) - rig.pivots[HEAD] for turns in (nod, {}))
    assert np.abs(hair - Rotation.from_rotvec([0.4, 0, 0]).apply(still)).max() < 1e-5


def test_targets_are_those_of_a_file_without_a_skeleton(head, rigged, tmp_path):
    plain = read_glb(fv.export(head, tmp_path / "plain.glb"))
    for first, second in zip(plain.document["meshes"], rigged.document["meshes"], strict=True):
        assert first["name"] == second["name"] and first.get("extras") == second.get("extras")
        plain.primitive, rigged.primitive = first["primitives"][0], second["primitives"][0]
        if "targets" in plain.primitive:
            assert np.abs(plain.targets("POSITION") - rigged.targets("POSITION")).max() < 1e-6


def test_strongest_influences_add_up():
    weights = np.random.default_rng(0).random((50, 6)) ** 4
    joints, stored = strongest_influences(weights)
    assert joints.dtype == np.uint8 and stored.dtype == np.uint16 and (stored.sum(1, dtype=np.int64) == 65535).all()
    kept = np.sort(weights, axis=1)[:, :1:-1]
    assert np.abs(stored / 65535 - kept / kept.sum(1, keepdims=True)).max() < 2e-4
    alone, whole = strongest_influences(np.eye(5)[[3, 0]])
    assert alone.tolist() == [[3, 0, 0, 0], [0, 0, 0, 0]] and whole[:, 0].tolist() == [65535, 65535]


@pytest.mark.parametrize("kind", ["still", "track"])
def test_the_khronos_validator_has_no_errors(kind, head, tmp_path, validate_gltf):
    subject = head if kind == "still" else make_track(head.model, head)
    report = validate_gltf(fv.export(subject, tmp_path / "me.glb", rig=True, lod="coarse"))
    messages = report["issues"]["messages"]
    # Blender, too, writes skinned meshes below the armature; the armature has no transform that could be lost.
    assert [m for m in messages if m["code"] != "NODE_SKINNED_MESH_NON_ROOT" and m["severity"] < 2] == []
    assert report["info"]["hasSkins"] and report["info"]["hasMorphTargets"]


# ----------------------------------------------------------------------------------------------------------- animations


@pytest.fixture(scope="module")
def track(head) -> Track:
    return make_track(head.model, head)


@pytest.fixture(scope="module")
def animated(track, tmp_path_factory):
    return Skinned(fv.export(track, tmp_path_factory.mktemp("track") / "me.glb", rig=True).read_bytes())


def test_a_track_moves_the_skull_as_without_a_skeleton(track, animated, tmp_path):
    plain = Glb(fv.export(track, tmp_path / "plain.glb").read_bytes())
    (entry,) = plain.document["animations"]
    values = {c["target"]["path"]: plain.values(entry["samplers"][c["sampler"]]["output"]) for c in entry["channels"]}
    person = track.result(0)
    hair = coarse_head(person).neutral_part_vertices["hair"]
    for key in (0, 3, len(values["rotation"]) - 1):
        turns, weights = animated.animated(key)
        assert np.array_equal(weights, values["weights"].reshape(-1, 52)[key])
        pose = Rotation.from_quat(values["rotation"][key])
        wanted = pose.apply(hair[person.parts["hair"].faces.reshape(-1)]) + values["translation"][key]
        assert np.abs(animated.vertices("hair", **turns) - wanted).max() < 1e-5


def test_the_neck_takes_half_of_a_turn(animated):
    for key in (0, 8):
        turns, _ = animated.animated(key)
        neck, whole = (Rotation.from_quat(turns[name]["rotation"]).magnitude() for name in ("Neck", "Head"))
        assert neck == pytest.approx(whole, abs=1e-4) and set(turns["Neck"]) == {"rotation", "translation"}


def test_joints_turn_the_eyes_and_targets_only_the_lids(track, animated):
    turns, weights = animated.animated(3)
    eyes = [node for node in animated.document["nodes"] if node["name"].startswith(("eye_", "cornea_"))]
    assert len(eyes) == 4
    for node in eyes:
        assert "targets" not in animated.document["meshes"][node["mesh"]]["primitives"][0]
    names = track.model.expression_names
    gaze = {name: weights[names.index(name)] for name in names if name.startswith("eyeLook")}
    left = Rotation.from_quat(turns["LeftEye"]["rotation"]).as_rotvec(degrees=True)
    assert left[0] == pytest.approx(25 * gaze["eyeLookDownLeft"] - 20 * gaze["eyeLookUpLeft"], abs=1)
    assert left[1] == pytest.approx(25 * (gaze["eyeLookOutLeft"] - gaze["eyeLookInLeft"]), abs=1)


def test_neighbouring_keys_turn_the_shorter_way(animated):
    (entry,) = animated.document["animations"]
    for channel in entry["channels"]:
        if channel["target"]["path"] == "rotation":
            values = animated.values(entry["samplers"][channel["sampler"]]["output"])
            assert (values[1:] * values[:-1]).sum(1).min() > 0
            assert np.abs(np.linalg.norm(values, axis=1) - 1).max() < 1e-5


# --------------------------------------------------------------------------------------------------- refusals, commands


def test_other_formats_refuse_a_skeleton(toy_result, tmp_path):
    with pytest.raises(ParameterError, match=r"me\.obj cannot have rig; write one of \.glb"):
        fv.export(toy_result, tmp_path / "me.obj", rig=True)
    with pytest.raises(ParameterError, match=r"me\.csv cannot have rig; write one of \.glb"):
        fv.export(make_track(toy_result.model), tmp_path / "me.csv", rig=True)
    assert list(tmp_path.iterdir()) == []


def test_models_without_the_expression_have_no_skeleton(tmp_path):
    names = tuple("open" if name == "jawOpen" else name for name in other_model().expression_names)
    model = other_model(expression_names=names, named_expressions=False)
    with pytest.raises(ParameterError, match="jawOpen, which the model toy does not have"):
        fv.export(fv.head(model.random(0), model, texture_size=32), tmp_path / "me.glb", rig=True)


def test_commands_write_a_skeleton(toy_commands, toy_result, tmp_path):
    stored = fv.export(toy_result, tmp_path / "me.json")
    assert main(["export", str(stored), str(tmp_path / "me.glb"), "--rig"]) == 0
    assert read_glb(tmp_path / "me.glb").document["skins"]
