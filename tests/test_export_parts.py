"""Files of heads with parts: nodes, pivots, materials, morph targets and animation in a GLB; OBJ, PLY and STL."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from PIL import Image
from test_export import Glb, normals_of, read_glb

import faceverse as fv
from faceverse.formats.export import EXPORT_FORMATS, companions_of, export
from faceverse.formats.glb import glb_bytes
from faceverse.formats.gltf import write_glb
from faceverse.formats.gltf_scene import GltfAnimation, GltfCamera, GltfMaterial, GltfMesh, MorphTarget
from faceverse.formats.rig import sphere_centre
from faceverse.formats.surfaces import padded_texture
from faceverse.graphics.camera import default_camera
from faceverse.model.face_model import ARKIT_NAMES, FaceModel
from faceverse.parts.binding import bind
from faceverse.parts.part import Material, Part, PartLibrary
from faceverse.result import head_from_params, with_params

STYLES = {
    "teeth_upper": "base", "teeth_lower": "base", "tongue": "base", "eye_left": "own", "eye_right": "own",
    "lashes": "thin",
}  # fmt: skip
EYES = {"eye_left": np.array([0.03, 0.02, 0.09]), "eye_right": np.array([-0.03, 0.02, 0.09])}
RADIUS_M = 0.012


def ball(centre, columns=8, rings=6):
    """A sphere: vertices (P, 3), faces (F, 3), and an unused vertex at the end."""
    azimuth, polar = np.meshgrid(2 * np.pi * np.arange(columns) / columns, np.pi * np.arange(rings + 1) / rings)
    unit = np.stack([np.sin(polar) * np.cos(azimuth), np.cos(polar), np.sin(polar) * np.sin(azimuth)], -1)
    row, column = np.indices((rings, columns)).reshape(2, -1)
    after = (column + 1) % columns
    a, b = row * columns + column, row * columns + after
    faces = np.concatenate([np.stack([a, b, b + columns], 1), np.stack([a, b + columns, a + columns], 1)])
    return np.concatenate([centre + RADIUS_M * unit.reshape(-1, 3), [[9.0, 9.0, 9.0]]]), faces


def strip(centre, width=0.02):
    """Two triangles that face +z."""
    corners = np.array([[-1, 1, 0], [-1, -1, 0], [1, -1, 0], [1, 1, 0]]) * width + centre
    return corners, np.array([[0, 1, 2], [0, 2, 3]])


def made(model, name, mesh, kind, region, material):
    """A part bound to the triangles of a region of the coarse mesh."""
    points, faces = mesh
    coarse = model.coarse
    triangles = coarse.faces[np.isin(coarse.faces, coarse.regions[region]).any(1)]
    triangle = triangles[np.arange(len(points)) % len(triangles)]
    binding = bind(points, coarse.mean_vertices, triangle, np.full((len(points), 3), 1 / 3), kind)
    uv = np.random.default_rng(len(points)).random((len(points) + 3, 2)).astype(np.float32)
    uv_faces = np.where(np.arange(len(faces))[:, None] == 0, faces.max() + [[1, 2, 3]], faces)
    return Part(name, binding, faces, uv, uv_faces, material)


def texture(seed, alpha=255):
    pixels = np.random.default_rng(seed).integers(40, 256, (16, 16, 4), dtype=np.uint8)
    pixels[..., 3] = alpha
    return pixels


@pytest.fixture(scope="module")
def model(toy_model):
    """The toy model with a library of parts; no expression moves the back of the head, on which upper teeth hang."""
    x = toy_model.mean_vertices[:, 0]
    balls = toy_model.regions["eyeballs"]
    sides = {"eyeball_left": balls[x[balls] > 0], "eyeball_right": balls[x[balls] < 0]}
    back = np.flatnonzero(toy_model.mean_vertices[:, 2] < -0.06)
    data = replace(toy_model.data, regions={**toy_model.regions, **sides, "back": back})
    base = FaceModel(data)
    eye, teeth = Material(texture(1), 0.1), Material(texture(2), 0.25)
    soft = texture(3, alpha=0)
    soft[4:8, 4:8, 3], soft[8:12, 4:8, 3] = 255, 90
    parts = [
        made(base, "teeth_upper/base", strip([0, -0.03, 0.08]), "affine", "back", teeth),
        made(base, "teeth_lower/base", strip([0, -0.05, 0.08]), "affine", "face", teeth),
        made(base, "tongue/base", strip([0, -0.05, 0.07], 0.01), "surface", "tongue", Material(texture(4), 0.4)),
        *(
            made(base, f"{slot}/own", ball(centre), "rigid", slot.replace("eye", "eyeball"), eye)
            for slot, centre in EYES.items()
        ),
        made(base, "eye_right/other", ball(EYES["eye_right"]), "rigid", "eyeball_right", Material(texture(5), 0.1)),
        made(base, "cornea_left/clear", ball(EYES["eye_left"]), "rigid", "eyeball_left",
             Material(texture(6, alpha=14), 0.05, "BLEND")),
        made(base, "lashes/thin", strip([0, 0.03, 0.1]), "surface", "eyelids", Material(soft, 0.8, "BLEND", 0.3)),
        made(base, "brows/cut", strip([0, 0.05, 0.1]), "surface", "face", Material(soft, 0.9, "MASK", 0.25)),
    ]  # fmt: skip
    return FaceModel(data, lambda _: PartLibrary({part.name: part for part in parts}, "", {}))


def head_of(model, **styles):
    expression = np.random.default_rng(3).random(len(ARKIT_NAMES)).astype(np.float32)
    params = model.random(1).replace(expression=expression, styles={**STYLES, **styles})
    return head_from_params(model, params, default_camera((90, 120)), 64)


@pytest.fixture(scope="module")
def head(model):
    return head_of(model)


def nodes_of(glb):
    """Node and mesh by name of the node, and the node of each part."""
    document = glb.document
    return {node["name"]: (node, document["meshes"][node["mesh"]]) for node in document["nodes"] if "mesh" in node}


def part_glb(glb, name):
    """The reader of a file, looking at the mesh of one node."""
    glb.mesh = nodes_of(glb)[name][1]
    glb.primitive = glb.mesh["primitives"][0]
    return glb


# ----------------------------------------------------------------------------------------------------------------- glb


@pytest.mark.parametrize("lod", ["coarse", "standard"])
def test_each_part_is_a_child_node_in_its_place(head, tmp_path, lod):
    glb = read_glb(export(head, tmp_path / "me.glb", lod=lod))
    nodes = nodes_of(glb)
    assert list(nodes) == ["head", *STYLES] and glb.document["scenes"][0]["nodes"] == [0]
    assert [glb.document["nodes"][child]["name"] for child in nodes["head"][0]["children"]] == list(STYLES)
    for slot, part in head.parts.items():
        pivot = np.array(nodes[slot][0].get("translation", [0, 0, 0]))
        reader = part_glb(glb, slot)
        corners = reader.corners()
        wanted = head.neutral_part_vertices[slot][part.faces.reshape(-1)]
        assert np.abs(reader.attribute("POSITION")[corners] + pivot - wanted).max() < 1e-6
        assert np.array_equal(reader.attribute("TEXCOORD_0")[corners], part.uv[part.uv_faces.reshape(-1)])
        assert np.allclose(np.linalg.norm(reader.attribute("NORMAL"), axis=1), 1, atol=1e-5)
        assert np.abs(reader.attribute("POSITION")).max() < 1  # without the vertex that no triangle has
        assert nodes[slot][1]["name"] == slot
        material = glb.document["materials"][reader.primitive["material"]]
        assert material["name"] == slot


def test_eyes_turn_about_their_centres(head, tmp_path):
    nodes = nodes_of(read_glb(export(head, tmp_path / "me.glb")))
    for slot in STYLES:
        if slot not in EYES:
            assert "translation" not in nodes[slot][0]
            continue
        points = head.neutral_part_vertices[slot][:-1]
        middle = (points.min(0) + points.max(0)) / 2
        assert np.abs(nodes[slot][0]["translation"] - middle).max() < 1e-6


def test_corneas_turn_with_their_eyes(model, tmp_path):
    head = head_of(model, cornea_left="clear")
    glb = read_glb(export(head, tmp_path / "me.glb"))
    nodes = nodes_of(glb)
    (child,) = nodes["eye_left"][0]["children"]
    assert glb.document["nodes"][child] is nodes["cornea_left"][0] and "translation" not in nodes["cornea_left"][0]
    assert len(nodes["head"][0]["children"]) == len(STYLES)
    reader = part_glb(glb, "cornea_left")
    placed = reader.attribute("POSITION")[reader.corners()] + nodes["eye_left"][0]["translation"]
    faces = head.parts["cornea_left"].faces
    assert np.abs(placed - head.neutral_part_vertices["cornea_left"][faces.reshape(-1)]).max() < 1e-6
    assert np.abs(reader.targets("POSITION")).max() > 1e-3
    surface = glb.document["materials"][reader.primitive["material"]]
    assert surface["alphaMode"] == "BLEND" and "doubleSided" not in surface
    assert surface["pbrMetallicRoughness"] == {
        "baseColorFactor": [1, 1, 1, 0.04], "metallicFactor": 1, "roughnessFactor": 0.05
    }  # fmt: skip
    alone = head.replace(params=head.params.replace(styles={"cornea_left": "clear"}))
    assert list(nodes_of(read_glb(export(alone, tmp_path / "alone.glb")))) == ["head", "cornea_left"]


def test_the_centre_of_an_eyeball_ignores_iris_and_cornea():
    points, _ = ball(np.array([0.03, 0.01, 0.06]), 24, 20)
    points = points[:-1]
    away = points - (0.03, 0.01, 0.06)
    front = away[:, 2] > 0.85 * RADIUS_M
    assert 20 < front.sum() < 0.1 * len(points)
    for factor in (0.86, 1.08):
        eye = np.where(front[:, None], (0.03, 0.01, 0.06) + factor * away, points)
        assert np.abs(sphere_centre(np.float32(eye)) - (0.03, 0.01, 0.06)).max() < 1e-4


def test_the_skin_leaves_out_what_parts_replace(head, tmp_path):
    glb = read_glb(export(head, tmp_path / "me.glb"))
    kept = head.faces[head.is_skin]
    assert 0.9 * len(head.faces) > len(kept)
    assert np.array_equal(glb.attribute("POSITION")[glb.corners()], head.neutral_vertices[kept.reshape(-1)])
    assert set(glb.corners()) == set(range(len(glb.attribute("POSITION"))))
    assert np.array_equal(glb.attribute("TEXCOORD_0")[glb.corners()], head.uv[head.uv_faces[head.is_skin].reshape(-1)])


@pytest.mark.parametrize("slot", [slot for slot in STYLES if slot != "teeth_upper"])
def test_morph_targets_move_parts_as_their_bindings_do(head, tmp_path, slot):
    glb = part_glb(read_glb(export(head, tmp_path / "me.glb")), slot)
    assert glb.mesh["extras"]["targetNames"] == list(ARKIT_NAMES)
    assert np.array_equal(np.float32(glb.mesh["weights"]), head.params.expression)
    part, corners = head.parts[slot], glb.corners()
    moved = 0
    for offset, written in zip(head.model.expression_modes_of(head.params.identity), glb.targets("POSITION")):
        expressive = part.binding.follow(head.neutral_vertices + offset, head.neutral_vertices)
        wanted = (expressive - head.neutral_part_vertices[slot])[part.faces.reshape(-1)]
        assert np.abs(written[corners] - wanted).max() < 5.1e-5
        moved += np.abs(wanted).max() > 5e-4
    assert moved


def test_morph_normals_turn_with_the_part(head, tmp_path):
    glb = part_glb(read_glb(export(head, tmp_path / "me.glb")), "lashes")
    part, neutral, corners = head.parts["lashes"], head.neutral_vertices, glb.corners()
    before = glb.attribute("NORMAL")
    turned = 0
    for offset, change in zip(head.model.expression_modes_of(head.params.identity), glb.targets("NORMAL")):
        wanted = normals_of(part.binding.follow(neutral + offset, neutral).astype(np.float32), part.faces)
        assert np.abs((before + change)[corners] - wanted[part.faces.reshape(-1)]).max() < 1e-2
        turned = max(turned, np.abs(change).max())
    assert turned > 0.04


def test_a_part_that_nothing_moves_has_no_targets(head, tmp_path):
    mesh = nodes_of(read_glb(export(head, tmp_path / "me.glb")))["teeth_upper"][1]
    assert not {"weights", "extras"} & set(mesh) and "targets" not in mesh["primitives"][0]


def test_targets_that_do_not_move_a_part_share_their_data(head, tmp_path):
    glb = part_glb(read_glb(export(head, tmp_path / "me.glb")), "tongue")
    still = [target for target, values in zip(glb.primitive["targets"], glb.targets("POSITION")) if not values.any()]
    assert len(still) > 5 and len({tuple(target.items()) for target in still}) == 1
    assert {*still[0].values()} == {still[0]["POSITION"]}


def test_materials_are_those_of_the_parts(model, tmp_path):
    head = head_of(model, brows="cut")
    glb = read_glb(export(head, tmp_path / "me.glb"))
    materials = {material["name"]: material for material in glb.document["materials"]}
    kinds = {}
    for slot, part in head.parts.items():
        surface = materials[slot]["pbrMetallicRoughness"]
        assert surface["roughnessFactor"] == part.material.roughness and surface["metallicFactor"] == 0
        assert "metallicRoughnessTexture" not in surface
        kinds[slot], pixels = glb.picture(surface["baseColorTexture"])
        wanted = padded_texture(part.material)
        if part.material.alpha_mode == "OPAQUE":
            assert pixels.shape == (16, 16, 3)
            assert np.abs(pixels.astype(int) - wanted[..., :3]).mean() < 4
        else:
            assert np.array_equal(pixels, wanted)
    assert {slot for slot, kind in kinds.items() if kind == "image/png"} == {"lashes", "brows"}
    modes = {name: (material.get("alphaMode"), material.get("alphaCutoff"), material.get("doubleSided"))
             for name, material in materials.items()}  # fmt: skip
    assert modes.pop("lashes") == ("BLEND", None, True) and modes.pop("brows") == ("MASK", 0.25, True)
    assert set(modes.values()) == {(None, None, None)}


def test_textures_are_shared_by_their_pixels_not_by_their_names(model, tmp_path):
    def textures(**styles):
        glb = read_glb(export(head_of(model, **styles), tmp_path / "me.glb"))
        return {material["name"]: material["pbrMetallicRoughness"]["baseColorTexture"]["index"]
                for material in glb.document["materials"]}, glb.document["images"]  # fmt: skip

    shared, images = textures()
    assert shared["teeth_upper"] == shared["teeth_lower"] and shared["eye_left"] == shared["eye_right"]
    assert [image["name"] for image in images] == ["color", "roughness", "teeth_upper", "tongue", "eye_left", "lashes"]
    other, images = textures(eye_right="other")
    assert other["eye_left"] != other["eye_right"] and images[-2]["name"] == "eye_right"


def test_colours_reach_beyond_the_edges_of_textures():
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[1, 1], pixels[2, 4] = (200, 100, 50, 255), (10, 220, 30, 90)
    hairs = padded_texture(Material(pixels, alpha_mode="BLEND"))
    assert np.array_equal(hairs[..., 3], pixels[..., 3])
    assert tuple(hairs[0, 0, :3]) == (200, 100, 50) and tuple(hairs[3, 5, :3]) == (10, 220, 30)
    teeth = padded_texture(Material(pixels))  # half-transparent texels of an opaque part are not of the part
    assert (teeth[..., :3] == (200, 100, 50)).all()
    whole = texture(1)
    assert padded_texture(Material(whole)) is whole


def test_light_of_the_open_mouth_is_in_the_colours_of_the_vertices(head, tmp_path):
    glb = read_glb(export(head, tmp_path / "me.glb"))
    expression = np.float32([0.6 * (name == "jawOpen") for name in ARKIT_NAMES])
    opened = with_params(head, head.params.replace(expression=expression))
    light = {"head": opened.skin_occlusion, **opened.part_occlusion}
    faces = {"head": head.faces[head.is_skin], **{slot: part.faces for slot, part in head.parts.items()}}
    darkest = {}
    for name in nodes_of(glb):
        reader = part_glb(glb, name)
        if "COLOR_0" in reader.primitive["attributes"]:
            written = reader.attribute("COLOR_0")[reader.corners()]
            wanted = light[name][faces[name].reshape(-1)]
            assert np.abs(written[:, :3] / 255 - wanted[:, None]).max() < 0.51 / 255 and (written[:, 3] == 255).all()
            darkest[name] = wanted.min()
    assert set(darkest) == {"head", "teeth_upper", "teeth_lower", "tongue", "eye_left", "eye_right"}
    assert darkest["tongue"] < 0.5 and darkest["head"] < 0.5
    bare = head.replace(params=head.params.replace(styles={}))
    assert "COLOR_0" not in read_glb(export(bare, tmp_path / "bare.glb")).primitive["attributes"]


def animation_of(head, keys=4):
    draw = np.random.default_rng(8)
    turn = draw.normal(0, 0.1, (keys, 4)) + (0, 0, 0, 1)
    turn = (turn / np.linalg.norm(turn, axis=1, keepdims=True)).astype(np.float32)
    weights = draw.random((keys, len(ARKIT_NAMES))).astype(np.float32)
    return GltfAnimation("moves", np.arange(keys, dtype=np.float32) / 25, weights, turn, turn[:, :3])


def test_an_animation_moves_the_weights_of_all_parts_and_turns_the_head(head):
    animation = animation_of(head)
    glb = Glb(glb_bytes(head, animation, GltfCamera(np.zeros(3), 0.5, 1.0)))
    assert glb.document["scenes"][0]["nodes"] == [0, 1] and glb.document["nodes"][1]["name"] == "camera"
    (entry,) = glb.document["animations"]
    names = [node["name"] for node in glb.document["nodes"]]
    moved = {}
    for channel in entry["channels"]:
        target = channel["target"]
        moved.setdefault(target["path"], {})[names[target["node"]]] = channel["sampler"]
    assert set(moved["weights"]) == {"head", *STYLES} - {"teeth_upper"}
    assert set(moved["rotation"]) == set(moved["translation"]) == {"head"}
    assert len({*moved["weights"].values()}) == 1 and len(entry["samplers"]) == 3
    output = entry["samplers"][moved["weights"]["tongue"]]["output"]
    assert np.array_equal(glb.values(output).reshape(-1, len(ARKIT_NAMES)), animation.weights)
    for name in moved["weights"]:
        assert np.array_equal(np.float32(nodes_of(glb)[name][1]["weights"]), animation.weights[0])


@pytest.mark.parametrize("case", ["coarse", "standard", "animated", "own textures"])
def test_parts_pass_the_khronos_validator(model, head, tmp_path, validate_gltf, case):
    path = tmp_path / "me.glb"
    if case == "animated":
        path.write_bytes(glb_bytes(head, animation_of(head), GltfCamera(np.zeros(3), 0.5, 1.0)))
    elif case == "own textures":
        bumps = np.full((16, 16, 3), (128, 128, 255), np.uint8)
        export(head_of(model, brows="cut", eye_right="other", cornea_left="clear").replace(normal_map=bumps), path)
    else:
        export(head, path, lod=case)
    report = validate_gltf(path)
    assert report["issues"]["messages"] == []
    assert report["info"]["hasMorphTargets"] and report["info"]["drawCallCount"] == 7 + 2 * (case == "own textures")


def test_files_without_parts_are_what_they_always_were(model, tmp_path):
    """The bytes of a small file, as the first edition wrote them; and no trace of parts in files of heads."""
    positions = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    offset = np.zeros_like(positions)
    offset[2] = (0.25, 0, 0.5)
    targets = (MorphTarget("smile", offset, offset), MorphTarget("frown", 0 * offset, 0 * offset))
    faces, up = np.array([[0, 1, 2], [0, 2, 3]]), np.tile(np.float32([0, 0, 1]), (4, 1))
    mesh = GltfMesh("head", positions, up, positions[:, :2], faces, targets, np.float32([0.5, 0]))
    turn = np.float32([[0, 0, 0, 1], [0, 1, 0, 0]])
    animation = GltfAnimation("turn", np.float32([0, 1]), np.float32([[0.5, 0], [1, 0]]), turn, np.zeros((2, 3)))
    camera = GltfCamera(np.float32([0, 0, 0.5]), 0.5, 1.5)
    material = GltfMaterial("head", b"\x89PNG color", b"\x89PNG roughness")
    content = write_glb(mesh, material, "test", animation=animation, camera=camera)
    assert hashlib.sha256(content).hexdigest() == "dc8f7f2c78c60e06485018fd4a2a0672ee560ae8ff7a2b39c77e8adab5e484dd"
    for suffix in ("glb", "obj", "ply", "stl"):
        files = []
        for made_by in (FaceModel(model.data), model):
            head = fv.head(made_by.random(2).replace(styles={}), made_by, texture_size=64)
            folder = tmp_path / made_by.parts.__class__.__name__
            folder.mkdir(exist_ok=True)
            export(head, folder / f"me.{suffix}")
            files.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert files[0] == files[1]


# ------------------------------------------------------------------------------------------------------- obj, ply, stl


def test_an_obj_has_an_object_a_material_and_a_texture_for_each_part(head, tmp_path):
    path = export(head, tmp_path / "my face.obj")
    names = {"teeth_upper", "tongue", "eye_left", "lashes", "lashes_alpha", "texture"}
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "my_face.mtl", *(f"my_face_{n}.png" for n in names)}
    assert {p for p in tmp_path.iterdir() if p != path} <= set(companions_of(path))
    objects = [line[2:] for line in path.read_text().splitlines() if line.startswith("o ")]
    assert objects == ["head", *STYLES]
    scene = trimesh.load_scene(path, process=False, split_object=True)
    for slot, part in head.parts.items():
        (mesh,) = (mesh for name, mesh in scene.geometry.items() if name.startswith(slot))
        corners = head.part_vertices[slot][part.faces]
        assert np.abs(np.sort(mesh.triangles, axis=0) - np.sort(corners, axis=0)).max() < 2e-6
        uv = part.uv[part.uv_faces] * (1, -1) + (0, 1)
        written = mesh.visual.uv[mesh.faces]
        assert np.abs(np.sort(written, axis=0) - np.sort(uv, axis=0)).max() < 2e-6
        assert mesh.visual.material.name == slot
    skin = sum(len(mesh.faces) for mesh in scene.geometry.values()) - sum(len(p.faces) for p in head.parts.values())
    assert skin == head.is_skin.sum()


def test_materials_of_an_obj_name_their_pictures(head, tmp_path):
    path = export(head, tmp_path / "me.obj")
    entries = {}
    for line in path.with_suffix(".mtl").read_text().splitlines():
        word, _, value = line.partition(" ")
        if word == "newmtl":
            entry = entries.setdefault(value, {})
        elif word.startswith("map_"):
            entry[word] = value
    assert "eyes" not in entries and entries["skin"] == {"map_Kd": "me_texture.png"}
    assert entries["teeth_lower"] == entries["teeth_upper"] == {"map_Kd": "me_teeth_upper.png"}
    assert entries["lashes"] == {"map_Kd": "me_lashes.png", "map_d": "me_lashes_alpha.png"}
    alpha = np.asarray(Image.open(tmp_path / "me_lashes_alpha.png"))
    assert (alpha == head.parts["lashes"].material.texture[..., 3:]).all() and alpha.shape == (16, 16, 4)
    colour = np.asarray(Image.open(tmp_path / "me_tongue.png"))
    assert np.array_equal(colour, head.parts["tongue"].material.texture[..., :3])


def test_a_ply_has_the_opaque_parts_with_their_colours(head, tmp_path):
    mesh = trimesh.load(export(head, tmp_path / "me.ply"), process=False)
    opaque = [slot for slot in STYLES if slot != "lashes"]
    counts = [len(np.unique(head.faces[head.is_skin])), *(len(np.unique(head.parts[s].faces)) for s in opaque)]
    assert len(mesh.vertices) == sum(counts)
    assert len(mesh.faces) == head.is_skin.sum() + sum(len(head.parts[slot].faces) for slot in opaque)
    first = sum(counts[: 1 + opaque.index("tongue")])
    part = head.parts["tongue"]
    assert np.abs(mesh.vertices[first : first + 4] - head.part_vertices["tongue"]).max() < 1e-6
    column, row = np.clip(part.uv[2] * 16 - 0.5, 0, 15)  # a vertex off the seam
    low, high = int(np.floor(column)), min(int(np.floor(column)) + 1, 15)
    pixels = part.material.texture[..., :3].astype(float)
    rows = pixels[int(np.floor(row))], pixels[min(int(np.floor(row)) + 1, 15)]
    across = [line[low] + (line[high] - line[low]) * (column - low) for line in rows]
    expected = across[0] + (across[1] - across[0]) * (row - np.floor(row))
    shown = np.array([mesh.visual.vertex_colors[first + vertex, :3] for vertex in range(4)]).astype(float)
    assert np.abs(shown - expected).max(axis=1).min() <= 1


def test_an_stl_is_the_head_with_eyes_and_teeth_and_without_hairs(head, tmp_path):
    mesh = trimesh.load(export(head, tmp_path / "me.stl"), process=False)
    opaque = [slot for slot in STYLES if slot != "lashes"]
    shown = head.is_skin.sum() + sum(len(head.parts[slot].faces) for slot in opaque)
    assert shown < len(mesh.faces) < 1.5 * shown
    written = np.round(mesh.triangles.reshape(-1, 9), 2)
    for slot in ("eye_right", "teeth_lower"):
        wanted = np.round(1000 * head.part_vertices[slot][head.parts[slot].faces].reshape(-1, 9), 2)
        found = np.abs(written[None] - wanted[:, None]).max(axis=2).min(axis=1) < 0.02
        assert found.mean() > 0.6  # the toy's eyeballs have poles of no width, which become points


@pytest.mark.parametrize("suffix", ["obj", "ply"])
def test_dense_files_have_the_parts_too(head, tmp_path, suffix):
    bumpy = head.replace(displacement=np.full((64, 64), 0.1, np.float32))
    counts = []
    for result in (bumpy, bumpy.replace(params=bumpy.params.replace(styles={}))):
        scene = trimesh.load_scene(export(result, tmp_path / f"me.{suffix}", lod="dense"), process=False)
        counts.append(sum(len(mesh.faces) for mesh in scene.geometry.values()))
    parts = sum(len(part.faces) for slot, part in head.parts.items() if suffix == "obj" or slot != "lashes")
    replaced = (~head.is_skin).sum()  # eyes, teeth and tongue of the mesh are not refined
    lining = replaced  # of the lids, which is refined: several faces for one
    assert counts[1] + parts - replaced - lining <= counts[0] <= counts[1] + parts - replaced


def test_formats_list_all_files_that_they_write(model, tmp_path):
    head = head_of(model, brows="cut", eye_right="other")
    for name, entry in EXPORT_FORMATS.items():
        if name == "npy":
            continue
        folder = tmp_path / name
        folder.mkdir()
        export(head, folder / f"me.{name}")
        beside = {path.name.removeprefix("me") for path in folder.iterdir()} - {f".{name}"}
        assert beside <= set(entry.companions) and (len(beside) > 6) == (name == "obj")
