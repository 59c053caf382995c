"""Files of a head, read back by other readers, and the JSON that restores it."""

import base64
import importlib
import io
import json
import os
import struct
import warnings
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from faceverse.detail.dense import dense_mesh
from faceverse.detail.displacement import TangentFrame, detailed_normals, normal_map
from faceverse.errors import FaceVerseError, ParameterError, WeightsError
from faceverse.formats.export import EXPORT_FORMATS, export, load_result
from faceverse.formats.gltf import write_glb
from faceverse.formats.gltf_scene import GltfMaterial, GltfMesh, MorphTarget
from faceverse.graphics.camera import Camera
from faceverse.graphics.mesh import tangents, vertex_normals
from faceverse.model.face_model import ARKIT_NAMES, FaceModel
from faceverse.model.texture_maps import uv_fragments
from faceverse.result import FitResult, Stage, with_params

SUFFIXES = (".glb", ".obj", ".ply", ".stl", ".json")
COMPONENT_TYPES = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}


@pytest.fixture
def result(toy_model):
    """A random person with every expression at some weight and a random texture."""
    generator = np.random.default_rng(3)
    expression = generator.random(len(toy_model.expression_names)).astype(np.float32)
    params = toy_model.random(1).replace(expression=expression, detail={"z": generator.random((2, 3), np.float32)})
    blank = FitResult(
        model=toy_model,
        params=params,
        camera=Camera(812.3456789, (320.25, 239.5), (480, 640)),
        vertices=toy_model.mean_vertices,
        neutral_vertices=toy_model.mean_vertices,
        albedo=toy_model.mean_albedo,
        texture=generator.integers(0, 256, (64, 64, 3), dtype=np.uint8),
        texture_confidence=generator.integers(0, 256, (64, 64), dtype=np.uint8),
        landmarks_px=generator.random((478, 2), dtype=np.float32) * 400,
        stages=(Stage("landmarks", 0.1, 3, {"points": 1.5, "prior": float("nan")}, 4.0, 2.0, (4.0, 2.0)),),
        warnings=("the photo is small",),
        seconds=1.25,
        source="a/private/folder/Jürgen.jpg",
        blendshape_scores={"jawOpen": 0.25},
    )
    return with_params(blank, params)


def with_other_texture(result, size):
    ramp = np.linspace(0, 255, size)
    texture = np.stack([*np.meshgrid(ramp, ramp), np.full((size, size), 90)], axis=-1)
    return result.replace(texture=texture.astype(np.uint8), texture_confidence=np.zeros((size, size), np.uint8))


def with_displacement(result, size):
    """With waves in u and v as displacement, and their normal map on the neutral head."""
    wave = np.sin(np.arange(size) * 2 * np.pi / 16)
    displacement = (0.8 * (wave[:, None] + wave[None])).astype(np.float32)
    bent = normal_map(result.model, result.neutral_vertices, displacement)
    return result.replace(displacement=displacement, normal_map=bent)


class Glb:
    """A reader for tests, written from the specification and independent of the writer."""

    def __init__(self, content):
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        size, kind = struct.unpack_from("<I4s", content, 12)
        assert kind == b"JSON"
        self.document = json.loads(content[20 : 20 + size])
        size_of_rest, kind = struct.unpack_from("<I4s", content, 20 + size)
        assert kind == b"BIN\0"
        self.binary = content[28 + size :]
        assert size_of_rest == len(self.binary)
        self.mesh = self.document["meshes"][0]
        self.primitive = self.mesh["primitives"][0]

    def bytes_of(self, view):
        entry = self.document["bufferViews"][view]
        return self.binary[entry["byteOffset"] : entry["byteOffset"] + entry["byteLength"]]

    def values(self, accessor):
        entry = self.document["accessors"][accessor]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[entry["type"]]
        kind = COMPONENT_TYPES[entry["componentType"]]
        if "bufferView" in entry:
            array = np.frombuffer(self.bytes_of(entry["bufferView"]), kind).reshape(-1, width).copy()
        else:
            array = np.zeros((entry["count"], width), kind)
        if "sparse" in entry:
            sparse = entry["sparse"]
            rows = np.frombuffer(
                self.bytes_of(sparse["indices"]["bufferView"]), COMPONENT_TYPES[sparse["indices"]["componentType"]]
            )
            assert len(rows) == sparse["count"] and (np.diff(rows.astype(int)) > 0).all()
            array[rows] = np.frombuffer(self.bytes_of(sparse["values"]["bufferView"]), kind).reshape(-1, width)
        assert len(array) == entry["count"]
        if "min" in entry:
            assert entry["min"] == array.min(0).tolist() and entry["max"] == array.max(0).tolist()
        return array

    def attribute(self, name):
        return self.values(self.primitive["attributes"][name])

    def targets(self, name):
        return np.stack([self.values(target[name]) for target in self.primitive["targets"]])

    def corners(self):
        return self.values(self.primitive["indices"])[:, 0]

    def picture(self, texture):
        image = self.document["images"][self.document["textures"][texture["index"]]["source"]]
        return image["mimeType"], np.array(Image.open(io.BytesIO(self.bytes_of(image["bufferView"]))))


def read_glb(path):
    return Glb(path.read_bytes())


def normals_of(vertices, faces):
    return vertex_normals(torch.tensor(vertices), torch.tensor(faces)).numpy()


# ------------------------------------------------------------------------------------------------------------------ glb


@pytest.mark.parametrize("lod", ["standard", "coarse"])
def test_glb_targets_with_their_weights_give_the_fitted_head(result, tmp_path, lod):
    glb = read_glb(export(result, tmp_path / "me.glb", lod=lod))
    model = result.model.coarse if lod == "coarse" else result.model
    count = len(model.mean_vertices)
    assert count < len(result.vertices) or lod == "standard"
    assert glb.mesh["extras"]["targetNames"] == list(ARKIT_NAMES)
    weights = np.array(glb.mesh["weights"])
    assert np.array_equal(weights.astype(np.float32), result.params.expression)
    base, corners = glb.attribute("POSITION"), glb.corners()
    assert np.array_equal(base[corners], result.neutral_vertices[:count][model.faces.reshape(-1)])
    fitted = base + np.tensordot(weights, glb.targets("POSITION"), 1)
    expected = result.vertices[:count][model.faces.reshape(-1)]
    assert np.abs(expected - base[corners]).max() > 1e-3
    assert np.abs(fitted[corners] - expected).max() < 1e-4  # movements below 20 micrometres are left out
    assert np.array_equal(glb.attribute("TEXCOORD_0")[corners], model.uv[model.uv_faces.reshape(-1)])


def test_glb_splits_vertices_at_seams_only_and_keeps_their_normals_whole(result, tmp_path):
    model = result.model
    glb = read_glb(export(result, tmp_path / "me.glb"))
    pairs = {*zip(model.faces.reshape(-1).tolist(), model.uv_faces.reshape(-1).tolist())}
    assert len(glb.attribute("POSITION")) == len(pairs) > len(model.mean_vertices)
    faces = model.faces.reshape(-1)
    expected = normals_of(result.neutral_vertices, model.faces)
    assert np.abs(glb.attribute("NORMAL")[glb.corners()] - expected[faces]).max() < 1e-6


def test_glb_morph_normals_follow_the_expression(result, tmp_path):
    model = result.model
    glb = read_glb(export(result, tmp_path / "me.glb"))
    jaw = model.expression_names.index("jawOpen")
    moved = normals_of(result.neutral_vertices + model.expression_modes[jaw], model.faces)
    written = (glb.attribute("NORMAL") + glb.targets("NORMAL")[jaw])[glb.corners()]
    assert np.abs(written - moved[model.faces.reshape(-1)]).max() < 0.011  # half a degree is left out


def test_glb_embeds_the_texture_exactly(result, tmp_path):
    glb = read_glb(export(result, tmp_path / "me.glb"))
    material = glb.document["materials"][0]
    mime, pixels = glb.picture(material["pbrMetallicRoughness"]["baseColorTexture"])
    assert mime == "image/png" and np.array_equal(pixels, result.texture)
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert "normalTexture" not in material


def test_glb_embeds_large_textures_as_jpeg(result, tmp_path):
    large = with_other_texture(result, 1536)
    glb = read_glb(export(large, tmp_path / "me.glb"))
    mime, pixels = glb.picture(glb.document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"])
    assert mime == "image/jpeg"
    assert pixels.shape == large.texture.shape
    assert np.abs(pixels.astype(int) - large.texture).mean() < 2


def test_glb_embeds_the_normal_map(result, tmp_path):
    texels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    glb = read_glb(export(result.replace(normal_map=texels), tmp_path / "me.glb"))
    assert np.array_equal(glb.picture(glb.document["materials"][0]["normalTexture"])[1], texels)


def test_glb_normal_map_in_the_files_own_frame_gives_the_detailed_normals(result, tmp_path):
    """What a viewer computes from TANGENT, NORMAL and the picture is what `detailed_normals` says."""
    size = 128
    displacement = with_displacement(result, size)
    glb = read_glb(export(displacement, tmp_path / "me.glb"))
    bend = glb.picture(glb.document["materials"][0]["normalTexture"])[1] / 127.5 - 1
    fragments = uv_fragments(result.model, size)
    corners = glb.corners().reshape(-1, 3)[fragments.triangle[fragments.covered]]
    weights = fragments.barycentric[fragments.covered][..., None]
    normal, tangent = ((glb.attribute(name)[corners] * weights).sum(1) for name in ("NORMAL", "TANGENT"))
    bitangent = np.cross(normal, tangent[:, :3]) * tangent[:, 3:]
    x, y, z = (bend[fragments.covered][:, k : k + 1] for k in range(3))
    shown = x * tangent[:, :3] + y * bitangent + z * normal
    shown /= np.linalg.norm(shown, axis=1, keepdims=True)
    frame = TangentFrame.of(result.model, result.neutral_vertices, size)
    flat, detailed = (
        np.moveaxis(normals.numpy(), 0, 2)[fragments.covered]
        for normals in (frame.normal, detailed_normals(frame, torch.from_numpy(displacement.displacement))[0])
    )
    away, bent = (np.degrees(np.arccos((n * detailed).sum(1).clip(-1, 1))) for n in (shown, flat))
    assert np.mean(bent) > 5
    assert np.percentile(away, 90) < 1.5


@pytest.mark.parametrize("mirror", [1, -1])
def test_tangents_point_along_u_and_tell_mirrored_maps(mirror):
    # A square that faces +z; u runs along a tilted direction, and v down (or up, in a mirrored map).
    positions = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    u_axis, up = np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0]])
    uv = np.column_stack([positions @ u_axis, -mirror * (positions @ up)]).astype(np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    frame = tangents(positions, np.tile(np.float32([0, 0, 1]), (4, 1)), uv, faces)
    assert np.allclose(frame, [*u_axis, mirror], atol=1e-6)
    collapsed = tangents(positions, np.tile(np.float32([0, 0, 1]), (4, 1)), uv * 0, faces)
    assert np.allclose(np.linalg.norm(collapsed[:, :3], axis=1), 1) and np.allclose(collapsed[:, 2], 0)


def test_glb_eyes_are_glossier_than_skin(result, tmp_path):
    glb = read_glb(export(result, tmp_path / "me.glb"))
    model = result.model
    _, pixels = glb.picture(glb.document["materials"][0]["pbrMetallicRoughness"]["metallicRoughnessTexture"])

    def roughness(region):
        inside = np.isin(model.faces, model.regions[region]).all(axis=1)
        column, row = (model.uv[model.uv_faces[inside]].mean(axis=1) * pixels.shape[0]).astype(int).T
        return pixels[row, column, 1] / 255

    assert np.allclose(roughness("neck"), 0.6, atol=0.01)
    assert np.allclose(roughness("eyeballs"), 0.15, atol=0.01)
    assert not pixels[..., 2].any()


def test_glb_opens_in_trimesh(result, tmp_path):
    scene = trimesh.load(export(result, tmp_path / "me.glb"), process=False)
    (mesh,) = scene.geometry.values()
    assert len(mesh.faces) == len(result.faces)
    assert np.abs(mesh.triangles - result.neutral_vertices[result.faces]).max() < 1e-6
    assert mesh.visual.material.baseColorTexture.size == (64, 64)


@pytest.mark.parametrize("case", ["standard", "coarse", "normal map", "displacement", "jpeg", "still expression"])
def test_glb_passes_the_khronos_validator(result, tmp_path, validate_gltf, case):
    if case == "normal map":
        result = result.replace(normal_map=np.full((16, 16, 3), (128, 128, 255), np.uint8))
    elif case == "displacement":
        result = with_displacement(result, 64)
    elif case == "jpeg":
        result = with_other_texture(result, 2048)
    elif case == "still expression":
        modes = result.model.expression_modes.copy()
        modes[4] = 0
        result = result.replace(model=FaceModel(replace(result.model.data, expression_modes=modes)))
    report = validate_gltf(export(result, tmp_path / "me.glb", lod="coarse" if case == "coarse" else "standard"))
    assert report["issues"]["messages"] == []
    assert report["issues"]["numErrors"] == report["issues"]["numWarnings"] == 0
    assert report["info"]["hasMorphTargets"] and report["info"]["hasTextures"]


def test_targets_are_stored_sparse_only_where_that_is_smaller():
    generator = np.random.default_rng(0)
    count = 300
    positions = generator.random((count, 3), dtype=np.float32)
    local = np.zeros((count, 3), np.float32)
    local[[5, 17, 290]] = [[0.01, 0, 0], [0, -0.02, 0], [0, 0, 0.03]]
    turned = np.zeros((count, 3), np.float32)
    turned[[17, 200]] = [[0.1, 0, 0], [0.005, 0, 0]]  # the second by less than anybody sees
    noise = np.full((count, 3), 1e-5, np.float32)  # 10 micrometres
    offsets = {"local": local, "everywhere": positions, "nowhere": noise}
    mesh = GltfMesh(
        name="points",
        positions=positions,
        normals=np.tile(np.float32([0, 0, 1]), (count, 1)),
        uv=positions[:, :2],
        faces=np.arange(count).reshape(-1, 3),
        targets=tuple(MorphTarget(name, offset, turned) for name, offset in offsets.items()),
        weights=np.zeros(3, np.float32),
    )
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, format="PNG")
    glb = Glb(write_glb(mesh, GltfMaterial("m", picture.getvalue(), picture.getvalue()), "test"))
    normals = [glb.document["accessors"][target["NORMAL"]] for target in glb.primitive["targets"]]
    assert [entry["sparse"]["count"] for entry in normals] == [1, 1, 1]
    assert np.array_equal(np.argwhere(glb.targets("NORMAL")[0]), [[17, 0]])
    accessors = [glb.document["accessors"][target["POSITION"]] for target in glb.primitive["targets"]]
    assert accessors[0]["sparse"]["count"] == 3 and "bufferView" not in accessors[0]
    assert "sparse" not in accessors[1]
    assert accessors[2]["sparse"]["count"] == 1
    assert np.array_equal(glb.targets("POSITION"), [local, positions, np.zeros_like(noise)])


# ------------------------------------------------------------------------------------------------------- obj, ply, stl


def read_obj(path):
    """Corners of the triangles (F, 3, 3), their uv (F, 3, 2) and normals (F, 3, 3), material of each triangle."""
    rows = {"v": [], "vt": [], "vn": []}
    corners, materials, current = [], [], None
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *values = line.split()
        if word in rows:
            rows[word].append([float(v) for v in values])
        elif word == "usemtl":
            current = values[0]
        elif word == "f":
            corners.append([[int(i) - 1 for i in corner.split("/")] for corner in values])
            materials.append(current)
    corners = np.array(corners)
    return (*(np.array(rows[key])[corners[..., k]] for k, key in enumerate(rows)), np.array(materials))


def in_order(triangles):
    """Rows (F, ...) sorted, because an OBJ groups its triangles by material."""
    flat = triangles.reshape(len(triangles), -1).round(5) + 0.0
    return flat[np.lexsort(flat.T)]


def test_obj_holds_the_expression_the_flipped_uv_and_the_materials(result, tmp_path):
    path = export(result, tmp_path / "my face.obj")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my face.obj", "my_face.mtl", "my_face_texture.png"]
    model = result.model
    positions, uv, normals, materials = read_obj(path)
    order = np.concatenate([np.flatnonzero(materials == name) for name in ("skin", "lips", "mouth", "eyes")])
    assert len(order) == len(model.faces)
    assert np.allclose(in_order(positions), in_order(result.vertices[model.faces]), atol=2e-5)
    expected_uv = model.uv[model.uv_faces] * [1, -1] + [0, 1]
    together = np.concatenate([positions, uv], axis=-1)
    expected = np.concatenate([result.vertices[model.faces], expected_uv], axis=-1)
    assert np.allclose(in_order(together), in_order(expected), atol=2e-5)
    assert np.allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-3)
    eyes = np.isin(model.faces, model.regions["eyeballs"]).all(axis=1)
    assert np.allclose(
        in_order(positions[materials == "eyes"]), in_order(result.vertices[model.faces[eyes]]), atol=2e-5
    )
    assert np.array_equal(np.array(Image.open(tmp_path / "my_face_texture.png")), result.texture)


def test_obj_opens_in_trimesh_with_its_texture(result, tmp_path):
    scene = trimesh.load_scene(export(result, tmp_path / "me.obj"), process=False)
    meshes = scene.geometry.values()
    assert sum(len(mesh.faces) for mesh in meshes) == len(result.faces)
    assert np.allclose(scene.bounds, [result.vertices.min(0), result.vertices.max(0)], atol=1e-6)
    assert all(mesh.visual.material.image.size == (64, 64) for mesh in meshes)


def test_ply_carries_the_texture_as_vertex_colours(result, tmp_path):
    ramp = with_other_texture(result, 256)
    mesh = trimesh.load(export(ramp, tmp_path / "me.ply"), process=False)
    assert np.array_equal(mesh.vertices.astype(np.float32), result.vertices)
    assert np.array_equal(mesh.faces, result.faces)
    uv = result.uv[: len(result.vertices)]
    expected = np.column_stack([uv * 256 - 0.5, np.full(len(uv), 90)])
    assert np.abs(mesh.visual.vertex_colors[:, :3] - expected).max() <= 1.01


def test_stl_is_in_millimetres(result, tmp_path):
    path = export(result, tmp_path / "me.stl")
    assert not path.read_bytes().startswith(b"solid")
    mesh = trimesh.load(path, process=False)
    skin = mesh.triangles[: len(result.faces)]  # then what closes it
    assert np.allclose(skin, result.vertices[result.faces] * 1000, atol=1e-3)
    assert np.ptp(mesh.vertices[:, 1]) > 150


@pytest.mark.parametrize("suffix", [".obj", ".ply"])
def test_coarse_files_hold_the_coarse_mesh(result, tmp_path, suffix):
    scene = trimesh.load_scene(export(result, tmp_path / f"me{suffix}", lod="coarse"), process=False)
    assert sum(len(mesh.faces) for mesh in scene.geometry.values()) == len(result.model.coarse.faces)


@pytest.mark.parametrize("suffix", [".obj", ".ply"])
def test_dense_files_hold_the_displaced_mesh(result, tmp_path, suffix):
    displacement = with_displacement(result, 64)
    expected = dense_mesh(displacement, 64)
    scene = trimesh.load_scene(export(displacement, tmp_path / f"me{suffix}", lod="dense"), process=False)
    meshes = list(scene.geometry.values())
    assert sum(len(mesh.faces) for mesh in meshes) == len(expected.faces) > 2 * len(result.faces)
    triangles = np.concatenate([mesh.triangles for mesh in meshes])
    wanted = expected.vertices[expected.faces]
    assert np.allclose(np.sort(triangles, axis=0), np.sort(wanted, axis=0), atol=1e-6)
    if suffix == ".ply":
        assert np.abs(meshes[0].vertex_normals - expected.normals).max() < 1e-5
        plain = trimesh.load(export(displacement, tmp_path / "plain.ply"), process=False)
        colours = meshes[0].visual.vertex_colors[: len(result.vertices), :3].astype(int)
        seam = np.bincount(np.unique(np.stack([result.faces, result.uv_faces]).reshape(2, -1), axis=1)[0]) > 1
        assert np.array_equal(colours[~seam], plain.visual.vertex_colors[~seam, :3])


def test_dense_obj_keeps_materials_and_texture_coordinates(result, tmp_path):
    displacement = with_displacement(result, 64)
    mesh = dense_mesh(displacement, 64)
    positions, uv, normals, materials = read_obj(export(displacement, tmp_path / "me.obj", lod="dense"))
    assert set(materials) == {"skin", "lips", "mouth", "eyes"}
    together = np.concatenate([positions, uv], axis=-1)
    expected = np.concatenate([mesh.vertices[mesh.faces], mesh.uv[mesh.uv_faces] * [1, -1] + [0, 1]], axis=-1)
    assert np.allclose(np.sort(together, axis=0), np.sort(expected, axis=0), atol=2e-6)
    assert np.allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("me.glb", {}, r"cannot write me\.glb as a dense mesh: the name must end in one of \.obj \.ply \.stl \.3mf$"),
        ("me.json", {}, "the name must end in one of"),
        ("me.npy", {}, "the name must end in one of"),
        ("me.ply", {"smooth": True}, "this head has no displacement; fit its photograph with detail, or give"),
    ],
)
def test_what_cannot_be_dense_is_refused(result, tmp_path, name, options, message):
    displacement = result if options.pop("smooth", False) else with_displacement(result, 16)
    with pytest.raises(ParameterError, match=message):
        export(displacement, tmp_path / name, lod="dense", **options)
    assert not any(tmp_path.iterdir())


def test_an_unknown_level_of_detail_is_refused(result, tmp_path):
    with pytest.raises(ParameterError, match="lod must be one of coarse, standard, dense, got 'fine'"):
        export(result, tmp_path / "me.ply", lod="fine")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("old", "lod"),
    [
        ({"light": True}, "coarse"),
        ({"light": False}, "standard"),
        ({"dense": True}, "dense"),
        ({"dense": False, "light": True}, "coarse"),
    ],
)
def test_old_names_of_levels_of_detail_work_with_a_warning(result, tmp_path, old, lod):
    displacement = with_displacement(result, 16)
    with pytest.warns(DeprecationWarning, match="use lod=") as caught:
        path = export(displacement, tmp_path / "old.ply", **old)
    assert {warning.filename for warning in caught} == {__file__}
    assert path.read_bytes() == export(displacement, tmp_path / "new.ply", lod=lod).read_bytes()


def test_light_and_dense_together_are_refused(result, tmp_path):
    with pytest.warns(DeprecationWarning), pytest.raises(ParameterError, match=r"me\.ply both light and dense; choose"):
        export(with_displacement(result, 16), tmp_path / "me.ply", light=True, dense=True)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_formats_are_what_their_entries_say(result, tmp_path, name):
    """Levels of detail change the file or not, and companions lie beside it, as the table has it."""
    entry, displacement = EXPORT_FORMATS[name], with_displacement(result, 16)
    contents = {}
    for lod in ("coarse", "standard", "dense"):
        folder = tmp_path / lod
        folder.mkdir()
        if lod == "dense" and lod not in entry.levels_of_detail:
            with pytest.raises(ParameterError, match="dense"):
                export(displacement, folder / f"me.{name}", lod=lod)
            continue
        contents[lod] = export(displacement, folder / f"me.{name}", lod=lod).read_bytes()
        possible = {f"me{ending}" for ending in entry.companions}
        beside = {"me.mtl", "me_texture.png"} if name == "obj" else set()
        assert {path.name for path in folder.iterdir()} == {f"me.{name}", *beside} and beside <= possible
    assert len(set(contents.values())) == max(len(entry.levels_of_detail), 1)


# ---------------------------------------------------------------------------------------------------------- the folder


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_export_replaces_an_older_file_and_leaves_nothing_else(result, tmp_path, suffix):
    path = tmp_path / f"me{suffix.upper()}"
    path.write_text("older")
    assert export(result, str(path)) == path
    assert path.stat().st_size > 1000
    companions = {"me.mtl", "me_texture.png"} if suffix == ".obj" else set()
    assert {p.name for p in tmp_path.iterdir()} == {path.name, *companions}


@pytest.mark.parametrize("name", ["me.fbx", "me", "me.glb.zip"])
def test_unknown_suffix_is_refused_with_the_known_ones(result, tmp_path, name):
    with pytest.raises(ParameterError, match=r"me.* must end in one of \.glb \.obj \.ply \.stl \.3mf \.json \.npy$"):
        export(result, tmp_path / name)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_folder_that_cannot_be_written_is_one_line(result, tmp_path, suffix, folder):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ParameterError, match=r"cannot write .*choose a folder") as caught:
        export(result, tmp_path / folder / f"me{suffix}")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("failing_call", [1, 2, 3])
def test_a_failure_in_the_middle_leaves_no_file(result, tmp_path, monkeypatch, failing_call):
    calls = []
    real_replace = os.replace

    def fail(source, target):
        calls.append(target)
        if len(calls) == failing_call:
            raise OSError(28, "No space left on device")
        real_replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ParameterError, match="the disk is full"):
        export(result, tmp_path / "me.obj")
    assert len(calls) == failing_call
    assert not any(tmp_path.iterdir())


def test_a_companion_that_cannot_be_written_stops_all(result, tmp_path):
    (tmp_path / "me.mtl").mkdir()
    with pytest.raises(ParameterError, match=r"me\.mtl: a folder has this name"):
        export(result, tmp_path / "me.obj")
    assert [p.name for p in tmp_path.iterdir()] == ["me.mtl"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_vertices_that_are_not_finite_are_refused(result, tmp_path, suffix):
    vertices = result.vertices.copy()
    vertices[7, 1] = np.nan
    with pytest.raises(ParameterError, match="not finite"):
        export(result.replace(vertices=vertices), tmp_path / f"me{suffix}")
    assert not any(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------------------------- json


def assert_same_params(a, b):
    for name in ("identity", "expression", "albedo", "rotation", "translation", "light", "iris"):
        first, second = getattr(a, name), getattr(b, name)
        assert second.dtype == np.float32 and np.array_equal(first, second), name
    assert set(a.detail) == set(b.detail)
    assert all(np.array_equal(a.detail[key], b.detail[key]) for key in a.detail)


@pytest.mark.parametrize("lod", ["standard", "coarse"])
def test_json_restores_everything_exactly(result, tmp_path, lod):
    generator = np.random.default_rng(0)
    result = result.replace(
        normal_map=generator.integers(0, 256, (32, 32, 3), dtype=np.uint8),
        displacement=generator.integers(-20000, 20000, (20, 30)).astype(np.float32) * np.float32(1e-4),
    )
    again = load_result(export(result, tmp_path / "me.json", lod=lod), result.model)
    assert_same_params(result.params, again.params)
    for name in ("texture", "texture_confidence", "normal_map", "displacement", "landmarks_px"):
        assert np.array_equal(getattr(result, name), getattr(again, name)), name
    for name in ("vertices", "neutral_vertices", "albedo"):
        assert np.array_equal(getattr(result, name), getattr(again, name)), name
    assert again.model is result.model and again.camera == result.camera
    assert again.projected_landmarks_px is None
    assert (again.warnings, again.seconds) == (result.warnings, result.seconds)
    assert again.blendshape_scores == result.blendshape_scores
    (stage,) = again.stages
    assert np.isnan(stage.loss_terms["prior"]) and stage.loss_terms["points"] == 1.5
    assert replace(stage, loss_terms={}) == replace(result.stages[0], loss_terms={})


@pytest.mark.parametrize("largest_mm", [0.0, 0.4, 3.2767, 3.2769, 9.5])
def test_json_keeps_displacements_to_a_tenth_of_a_micrometre(result, tmp_path, largest_mm):
    """Twice that for every doubling beyond the 3.27 mm that 16 bits can hold; never clipped, and the same for good."""
    displacement = np.random.default_rng(0).uniform(-1, 1, (20, 30)).astype(np.float32) * np.float32(largest_mm)
    displacement[3, 4], displacement[3, 5] = largest_mm, -largest_mm
    again = load_result(export(result.replace(displacement=displacement), tmp_path / "me.json"), result.model)
    step = 1e-4 * max(1, 2 ** np.ceil(np.log2(largest_mm / 3.2767))) if largest_mm else 1e-4
    np.testing.assert_allclose(again.displacement, displacement, rtol=0, atol=0.5001 * step + 1e-7)
    twice = load_result(export(again, tmp_path / "me.json"), result.model)
    assert np.array_equal(twice.displacement, again.displacement)


def test_json_of_earlier_editions_is_read(result, tmp_path):
    """They kept displacements as float32, and long latents as float16."""
    generator = np.random.default_rng(0)
    displacement = generator.normal(size=(20, 30)).astype("<f4")
    noise = generator.normal(size=5000).astype("<f2")
    path = export(result, tmp_path / "me.json")
    document = json.loads(path.read_text(encoding="utf-8"))

    def packed(values):
        return base64.b64encode(zlib.compress(values.tobytes())).decode("ascii")

    document["displacement"] = {"shape": [20, 30], "float32_zlib_base64": packed(displacement)}
    document["params"]["detail"]["noise"] = {"length": 5000, "float16_zlib_base64": packed(noise)}
    path.write_text(json.dumps(document), encoding="utf-8")
    again = load_result(path, result.model)
    assert np.array_equal(again.displacement, displacement)
    assert np.array_equal(again.params.detail["noise"], noise.astype(np.float32))


def test_json_names_the_photograph_without_its_folder(result, tmp_path):
    for source in ("a/private/folder/Jürgen.jpg", "C:\\private\\Jürgen.jpg"):
        path = export(result.replace(source=source), tmp_path / "me.json")
        assert "private" not in path.read_text(encoding="utf-8")
        assert load_result(path, result.model).source == "Jürgen.jpg"


def test_json_can_be_read_by_people(result, tmp_path):
    path = export(result, tmp_path / "me.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["format"] == "faceverse-result" and document["version"] == 1
    assert document["model"] == {"name": "toy", "sha256": None}
    assert document["params"]["expression"]["jawOpen"] == pytest.approx(
        result.params.expression[ARKIT_NAMES.index("jawOpen")]
    )
    assert 20 < len(path.read_text(encoding="utf-8").splitlines()) < 100


def test_json_restores_with_the_open_model_by_default(result, tmp_path, monkeypatch):
    asked = []
    module = importlib.import_module("faceverse.formats.export")  # the attribute of that name is the function
    monkeypatch.setattr(module, "load_model", lambda source: asked.append(source) or result.model)
    assert_same_params(result.params, load_result(export(result, tmp_path / "me.json")).params)
    assert asked == ["open"]


@pytest.mark.parametrize("change", [{"name": "other"}, {"info": {"sha256": "b" * 64}}])
def test_json_of_another_model_is_refused(result, tmp_path, change):
    data = result.model.data
    mine = FaceModel(replace(data, info={"sha256": "a" * 64}))
    path = export(result.replace(model=mine), tmp_path / "me.json")
    with pytest.raises(WeightsError, match=r"me\.json belongs to the face model 'toy' \(sha256 aaaaaaaaaaaa\)"):
        load_result(path, FaceModel(replace(data, **change)))
    assert load_result(path, result.model).model is result.model


def damaged(key, value):
    """A change of the document: value put at the dotted key; Ellipsis removes it."""

    def change(document):
        *outer, last = key.split(".")
        for part in outer:
            document = document[part]
        if value is ...:
            del document[last]
        else:
            document[last] = value

    return change


def stepped(step, content):
    """A stored displacement of 2 x 2 texels."""
    packed = base64.b64encode(zlib.compress(content)).decode("ascii")
    return {"shape": [2, 2], "step": step, "int16_differences_zlib_base64": packed}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged("format", "other"), "its format is not faceverse-result"),
        (damaged("version", 2), "its version is 2"),
        (damaged("params", ...), "has no 'params'"),
        (damaged("params.light", ...), "has no 'light'"),
        (damaged("params", []), "list indices"),
        (damaged("params.identity", [0.5]), r"identity should have shape \(8,\), but has \(1,\)"),
        (damaged("params.rotation", [[1, 0], [0]]), "inhomogeneous"),
        (damaged("params.albedo", "text"), "could not convert"),
        (damaged("params.translation", [0, 0, None]), "translation has a number that is not finite"),
        (damaged("params.translation", [0, 0, 1e300]), "translation has a number that is not finite"),
        (damaged("params.iris", [0, 0, float("nan")]), "contains NaN"),
        (damaged("params.expression.jawOpen", ...), r"expressions are not the model's \(jawOpen\)"),
        (damaged("params.expression.wink", 1.0), r"expressions are not the model's \(wink\)"),
        (damaged("camera.focal_px", -1.0), "positive focal length"),
        (damaged("camera.image_size", [480]), "unpack"),
        (damaged("texture_png_base64", "!!!"), "base64"),
        (damaged("texture_png_base64", "aGVsbG8="), "texture is not a complete PNG"),
        (damaged("texture_png_base64", None), "bytes-like"),
        (damaged("landmarks_px", [[1, 2]]), r"landmarks_px should have shape \(478, 2\)"),
        (damaged("displacement", {"shape": [2, 2], "float32_zlib_base64": "aGVsbG8="}), "displacement is damaged"),
        (damaged("displacement", {"shape": [10**9, 2], "float32_zlib_base64": ""}), "displacement has a side of"),
        (damaged("displacement", stepped(1e-4, b"\0" * 7)), "displacement is damaged"),
        (damaged("displacement", stepped(1e-4, b"\0" * 9)), "displacement is damaged"),
        (damaged("displacement", stepped(1e39, b"\x01" * 8)), "displacement is damaged"),
        (damaged("displacement", stepped("fine", b"\0" * 8)), "could not convert string to float"),
        (damaged("displacement", {"shape": [2, 2]}), "has no 'float32_zlib_base64'"),
        (damaged("detail_module", {"name": "open"}), "has no 'digest'"),
        (damaged("stages", [{"name": "x"}]), "has no 'seconds'"),
    ],
)
def test_a_damaged_json_is_one_line(result, tmp_path, change, message):
    path = export(result, tmp_path / "me.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ParameterError, match=message) as caught:
        load_result(path, result.model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b"[" * 100_000, b'"faceverse-result"'])
def test_what_is_no_json_of_ours_is_refused(result, tmp_path, content):
    path = tmp_path / "me.json"
    path.write_bytes(content)
    with pytest.raises(ParameterError, match=r"cannot restore me\.json") as caught:
        load_result(path, result.model)
    assert "\n" not in str(caught.value)


def test_a_json_cut_short_anywhere_is_refused(result, tmp_path):
    path = export(result, tmp_path / "me.json")
    content = path.read_bytes()
    for fraction in np.linspace(0.02, 0.98, 25):
        path.write_bytes(content[: int(fraction * len(content))])
        with pytest.raises(ParameterError, match=r"cannot restore me\.json"):
            load_result(path, result.model)


def test_textures_of_absurd_sizes_are_refused_before_they_are_opened(result, tmp_path):
    path = export(result, tmp_path / "head.json")
    document = json.loads(path.read_text())
    content = bytearray(base64.b64decode(document["texture_png_base64"]))
    content[16:24] = (4194320).to_bytes(4, "big") + (24).to_bytes(4, "big")
    document["texture_png_base64"] = base64.b64encode(content).decode()
    path.write_text(json.dumps(document))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FaceVerseError, match="4194320 x 24"):
            load_result(path, result.model)


def test_a_texture_that_pillow_fails_on_is_refused(result, tmp_path):
    """A colour profile without content, whose length and checksum are right: Pillow raises an IndexError."""
    path = export(result, tmp_path / "me.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    content = base64.b64decode(document["texture_png_base64"])
    chunk = struct.pack(">I", 2) + b"iCCPa\0" + struct.pack(">I", zlib.crc32(b"iCCPa\0"))
    document["texture_png_base64"] = base64.b64encode(content[:33] + chunk + content[33:]).decode()
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ParameterError, match="texture is not a complete PNG"):
        load_result(path, result.model)


def test_a_truncated_texture_in_a_json_is_refused(result, tmp_path):
    path = export(result, tmp_path / "me.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    document["texture_png_base64"] = document["texture_png_base64"][:4000]
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ParameterError, match="texture is not a complete PNG"):
        load_result(path, result.model)


def test_a_missing_json_is_named(tmp_path, toy_model):
    with pytest.raises(FaceVerseError, match=r"there is no file .*me\.json"):
        load_result(tmp_path / "me.json", toy_model)


def test_parameters_that_are_not_finite_are_not_stored(result, tmp_path):
    light = np.full((9, 3), np.nan, np.float32)
    with pytest.raises(ParameterError, match="not a finite number"):
        export(result.replace(params=result.params.replace(light=light)), tmp_path / "me.json")
    assert not any(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------- with_params


def test_a_head_follows_its_parameters(result):
    model = result.model
    params = model.random(9, scale=3.0).replace(expression=np.eye(len(ARKIT_NAMES), dtype=np.float32)[24])
    before = result.vertices.copy()
    other = with_params(result, params)
    expected = model.mean_vertices + np.tensordot(params.identity, model.identity_modes, 1)
    assert np.allclose(other.neutral_vertices, expected, atol=1e-6)
    assert np.allclose(other.vertices - other.neutral_vertices, model.expression_modes[24], atol=1e-6)
    albedo = model.mean_albedo + np.tensordot(params.albedo, model.albedo_modes, 1)
    assert albedo.min() < 0 and np.allclose(other.albedo, albedo.clip(0, 1), atol=1e-6)
    assert other.params is params and other.texture is result.texture
    assert np.array_equal(result.vertices, before)


def test_coefficients_of_the_wrong_length_are_refused(result):
    with pytest.raises(ParameterError, match=r"expected coefficients of shape \(N, 8\)"):
        with_params(result, result.params.replace(identity=np.zeros(3, np.float32)))
