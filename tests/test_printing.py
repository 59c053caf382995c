"""Files for 3D printing: closed bodies, a base, millimetres, textures of a 3MF; read by other readers."""

import io
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
import trimesh
from PIL import Image

import faceverse as fv
from faceverse.detail.dense import DenseMesh
from faceverse.formats.export import coarse_head
from faceverse.formats.printing import _closed, printed_bodies
from faceverse.formats.solid_hair import surface_net, without_diagonals

CORE = "{http://schemas.microsoft.com/3dmanufacturing/core/2015/02}"
MATERIALS = "{http://schemas.microsoft.com/3dmanufacturing/material/2015/02}"
LAUGH = {"jawOpen": 0.5, "mouthSmileLeft": 0.8, "mouthSmileRight": 0.8}


@pytest.fixture(scope="module")
def head(model):
    """A laughing man with a beard on the coarse mesh of the open model."""
    return coarse_head(fv.edit(fv.head(model.random(3), model, texture_size=64), expression=LAUGH, beard="goatee"))


@pytest.fixture(scope="module")
def bodies(head):
    return {body.name: body for body in printed_bodies(head, "standard")}


def lowest_of(head, bodies):
    """Height of the lowest point of a head before it gets a base."""
    others = (body.vertices[:, 1].min() for name, body in bodies.items() if name != "head")
    return min(head.vertices[:, 1].min(), *others)


def solid(body):
    return trimesh.Trimesh(body.vertices, body.faces, process=False)


def read_3mf(path):
    """The parts of a 3MF by name: mesh, corners of the triangles in the texture (F, 3, 2), picture."""
    with zipfile.ZipFile(path) as archive:
        types = archive.read("[Content_Types].xml").decode()
        relations = ElementTree.fromstring(archive.read("_rels/.rels"))
        start = relations[0].get("Target").lstrip("/")
        root = ElementTree.fromstring(archive.read(start))
        folder, _, name = start.rpartition("/")
        textures = ElementTree.fromstring(archive.read(f"{folder}/_rels/{name}.rels"))
        known = {entry.get("Target") for entry in textures}
        assert all(f'Extension="{ending}"' in types for ending in ("rels", "model", "png"))
        pictures = {
            entry.get("id"): (entry.get("path"), Image.open(io.BytesIO(archive.read(entry.get("path").lstrip("/")))))
            for entry in root.iter(f"{MATERIALS}texture2d")
        }
    assert root.get("unit") == "millimeter" and {path for path, _ in pictures.values()} == known
    groups = {
        group.get("id"): (group.get("texid"), np.array([[float(c.get("u")), float(c.get("v"))] for c in group]))
        for group in root.iter(f"{MATERIALS}texture2dgroup")
    }
    found, objects = {}, {entry.get("id"): entry for entry in root.iter(f"{CORE}object")}
    (item,) = root.iter(f"{CORE}item")
    for component in objects[item.get("objectid")].iter(f"{CORE}component"):
        entry = objects[component.get("objectid")]
        vertices = [[float(v.get(axis)) for axis in "xyz"] for v in entry.iter(f"{CORE}vertex")]
        triangles = list(entry.iter(f"{CORE}triangle"))
        faces = [[int(t.get(f"v{k}")) for k in (1, 2, 3)] for t in triangles]
        corners = np.array([[int(t.get(f"p{k}")) for k in (1, 2, 3)] for t in triangles])
        texture, uv = groups[entry.get("pid")]
        mesh = trimesh.Trimesh(vertices, faces, process=False)
        found[entry.get("name")] = (mesh, uv[corners], np.array(pictures[texture][1].convert("RGB")))
    return found


# --------------------------------------------------------------------------------------------------------------- bodies


def test_all_bodies_are_closed(head, bodies):
    opaque = [slot for slot, part in head.parts.items() if part.material.alpha_mode == "OPAQUE"]
    assert list(bodies) == ["head", *opaque, "hair", "beard"] and {"teeth_upper", "eye_left"} <= set(opaque)
    for name, body in bodies.items():
        mesh = solid(body)
        assert mesh.is_watertight and mesh.is_winding_consistent, name
        assert all(piece.volume > 0 for piece in mesh.split()), name
        assert body.uv_faces.shape == body.faces.shape and body.uv_faces.max() < len(body.uv)


def test_heads_of_other_people_are_closed(model):
    person = coarse_head(fv.head(model.random(5, age=8), model, texture_size=64))
    assert all(solid(body).is_watertight for body in printed_bodies(person, "standard"))


def test_the_skin_is_that_of_the_head(head, bodies):
    """All triangles that can be seen are there, unchanged; fragments behind the lids are not."""
    body = bodies["head"]
    seen = {tuple(row) for row in head.vertices[head.faces[head.is_skin]].astype(np.float64).reshape(-1, 9).tolist()}
    written = {tuple(row) for row in body.vertices[body.faces].reshape(-1, 9).tolist()}
    assert len(seen & written) > 0.97 * len(seen)
    missing = np.array(sorted(seen - written)).reshape(-1, 3)
    eyes = np.concatenate([head.part_vertices[slot] for slot in ("eye_left", "eye_right")])
    assert all(np.linalg.norm(eyes - point, axis=1).min() < 0.006 for point in missing)


def test_the_base_is_flat_and_below_collar_and_hair(head, bodies):
    vertices, faces = bodies["head"].vertices, bodies["head"].faces
    low = vertices[:, 1].min()
    assert low == pytest.approx(lowest_of(head, bodies) - 0.003, abs=1e-6)
    base = np.abs(vertices[:, 1] - low) < 1e-9
    normals, areas = solid(bodies["head"]).face_normals, solid(bodies["head"]).area_faces
    bottom = base[faces].all(axis=1)
    assert base.sum() > 40 and (normals[bottom][:, 1] < -0.999).all() and areas[bottom].sum() > 0.004


def test_caps_stay_behind_the_eyes(head, bodies):
    """What closes the sockets nowhere covers the front of an eyeball."""
    added = bodies["head"].vertices[np.isin(bodies["head"].vertices, np.float64(head.vertices)).all(axis=1) == 0]
    eyes = head.part_vertices["eye_left"], head.part_vertices["eye_right"]
    for eye in eyes:
        near = added[np.linalg.norm(added - eye.mean(axis=0), axis=1) < 0.02]
        assert len(near) == 1 and near[0, 2] < eye[:, 2].max() - 0.008


def test_a_hole_that_is_a_point_and_one_that_is_not():
    """A box without its top, whose bottom is a ring of no width."""
    ring = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]]) / 10
    vertices = np.concatenate([ring + (0, 0.1, 0), np.full((4, 3), 0.05) * (1, 0, 1)]).astype(np.float32)
    sides = [[k, (k + 1) % 4, 4 + k] for k in range(4)] + [[(k + 1) % 4, 4 + (k + 1) % 4, 4 + k] for k in range(4)]
    faces = np.array(sides)
    mesh = DenseMesh(vertices, vertices, faces, np.zeros((8, 2), np.float32), faces, np.arange(8))
    closed = _closed("pyramid", mesh, np.zeros((1, 1, 3), np.uint8))
    assert len(closed.faces) == 4 + 4 and solid(closed).is_watertight
    assert abs(solid(closed).volume) == pytest.approx(0.1**3 / 3, rel=0.5)


def test_solids_do_not_touch_themselves():
    """Two samples that meet only in an edge would give an edge with four triangles."""
    field = np.full((5, 5, 5), -1.0)
    field[2, 2, 2] = field[2, 3, 3] = 1.0
    assert not trimesh.Trimesh(*surface_net(field)).is_watertight
    mended = without_diagonals(field)
    assert trimesh.Trimesh(*surface_net(mended)).is_watertight
    assert (mended >= field).all() and ((mended > 0).sum(), (field > 0).sum()) == (4, 2)


# ---------------------------------------------------------------------------------------------------------------- files


def test_the_head_stands_on_its_base_whatever_hangs(model):
    bearded = coarse_head(fv.edit(fv.head(model.random(3), model, texture_size=64), beard="full_long"))
    printed = {body.name: body.vertices[:, 1].min() for body in printed_bodies(bearded, "standard")}
    assert printed["beard"] < bearded.vertices[:, 1].min()
    assert printed["head"] == pytest.approx(printed["beard"] - 0.003)


def test_an_stl_is_closed_and_in_millimetres(head, bodies, tmp_path):
    mesh = trimesh.load(fv.export(head, tmp_path / "me.stl"))
    assert mesh.is_watertight and mesh.volume > 3e6
    assert mesh.bounds[0, 1] == pytest.approx(1000 * lowest_of(head, bodies) - 3, abs=0.01)


@pytest.fixture(scope="module")
def found(head, tmp_path_factory):
    return read_3mf(fv.export(head, tmp_path_factory.mktemp("print") / "me.3mf"))


def test_a_3mf_stands_on_the_plate_with_its_face_to_the_front(found, bodies):
    assert list(found) == list(bodies)
    everything = np.concatenate([mesh.vertices for mesh, _, _ in found.values()])
    assert everything[:, 2].min() == 0 and np.abs(everything[:, :2].min(0) + everything[:, :2].max(0)).max() < 0.01
    for name, (mesh, _, _) in found.items():
        assert mesh.is_watertight and mesh.volume == pytest.approx(1e9 * solid(bodies[name]).volume, rel=1e-3)
    eyes = np.stack([found[name][0].vertices.mean(0) for name in ("eye_left", "eye_right")])
    assert (eyes[:, 1] < -30).all() and eyes[0, 0] > eyes[1, 0] + 40 and 100 < eyes[0, 2] < 250


def test_a_3mf_has_the_colours_of_the_textures(found, bodies):
    for name, body in bodies.items():
        _, corners, picture = found[name]
        assert np.array_equal(picture, body.texture)
        assert np.abs(corners * (1, -1) + (0, 1) - body.uv[body.uv_faces]).max() < 1e-5
    assert found["hair"][2].shape == (1, 1, 3)


def test_collars_keep_the_colours_beside_them(bodies):
    """No triangle of the base reaches over the seam of the texture."""
    body = bodies["head"]
    uv = body.uv[body.uv_faces]
    low = body.vertices[body.faces][..., 1].min(axis=1) < body.vertices[:, 1].min() + 1e-6
    assert low.sum() > 80 and np.ptp(uv[low], axis=1).max() < 0.05


def test_the_same_head_gives_the_same_bytes(toy_result, tmp_path):
    first = fv.export(toy_result, tmp_path / "me.3mf").read_bytes()
    assert fv.export(toy_result, tmp_path / "me.3mf").read_bytes() == first


def test_names_with_signs_of_xml(toy_result, tmp_path):
    path = fv.export(toy_result, tmp_path / "me <\"&'>.3mf")
    with zipfile.ZipFile(path) as archive:
        root = ElementTree.fromstring(archive.read("3D/3dmodel.model"))
    assert [entry.get("name") for entry in root.iter(f"{CORE}object")][-1] == "me <\"&'>"


def test_dense_files_have_the_displaced_skin(toy_result, tmp_path):
    bumpy = toy_result.replace(displacement=np.full((64, 64), 0.5, np.float32))
    sizes = {}
    for lod in ("standard", "dense"):
        ((mesh, _, _),) = read_3mf(fv.export(bumpy, tmp_path / "me.3mf", lod=lod)).values()
        assert mesh.is_watertight
        sizes[lod] = len(mesh.faces), mesh.volume
    assert sizes["dense"][0] > 2 * sizes["standard"][0] and sizes["dense"][1] > sizes["standard"][1]
