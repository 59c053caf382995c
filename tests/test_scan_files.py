"""Reading scans: every kind of file, folders in the dataset's layout, depth pictures, and what is wrong with them."""

import json
import re
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from faceverse.errors import FaceVerseError
from faceverse.graphics.camera import Camera
from faceverse.training.scan_files import (
    LINEAR_OF_BYTE,
    Scan,
    ScanError,
    find_scans,
    keep_vertices,
    load_frames,
    load_scan,
    merge_scans,
    scan_from_depth,
    transformed,
)

pytest.importorskip("igl")
trimesh = pytest.importorskip("trimesh")

CAMERA = Camera(200.0, (40.0, 30.0), (60, 80))
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)


@pytest.fixture
def ball():
    """A coloured sphere of 100 units."""
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=100)
    colors = np.random.default_rng(0).integers(0, 256, (len(mesh.vertices), 3), dtype=np.uint8)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colors, process=False)


def plane_depth(distance_m=0.5):
    return np.full(CAMERA.image_size, distance_m)


# ---------------------------------------------------------------------------------------------------- meshes and clouds


@pytest.mark.parametrize("suffix", ["ply", "obj", "off", "stl", "glb"])
def test_meshes_of_all_kinds(tmp_path, ball, suffix):
    ball.export(tmp_path / f"ball.{suffix}")
    scan = load_scan(tmp_path / f"ball.{suffix}")
    assert len(scan.faces) == len(ball.faces)
    np.testing.assert_allclose(np.linalg.norm(scan.vertices, axis=1), 100, atol=1e-3)
    assert ((scan.normals * scan.vertices).sum(1) > 95).all()
    assert scan.unit_m is None


def test_vertex_colors_become_linear(tmp_path, ball):
    ball.export(tmp_path / "ball.ply")
    scan = load_scan(tmp_path / "ball.ply")
    np.testing.assert_allclose(scan.colors, LINEAR_OF_BYTE[ball.visual.vertex_colors[:, :3]])
    assert LINEAR_OF_BYTE[255] == 1 and LINEAR_OF_BYTE[128] == pytest.approx(0.2159, abs=1e-3)


def write_textured(folder, name="001_01"):
    """A square with a picture in the dataset's layout: red at the top left, green top right, blue bottom left."""
    (folder / f"{name}.obj").write_bytes(
        f"# caf\u00e9\nmtllib {name}.mtl\nusemtl skin\n".encode("latin-1")
        + b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
    )
    (folder / f"{name}.mtl").write_text(f"newmtl skin\nmap_Kd {name}.png\n")
    picture = np.full((40, 40, 3), 60, np.uint8)
    picture[:20, :20], picture[:20, 20:], picture[20:, :20] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    Image.fromarray(picture).save(folder / f"{name}.png")


def test_texture_is_read_the_right_way_up(tmp_path):
    write_textured(tmp_path)
    scan = load_scan(tmp_path / "001_01.obj")
    corner = np.argmin(np.linalg.norm(scan.vertices - [[[0, 1, 0]], [[1, 1, 0]], [[0, 0, 0]]], axis=2), axis=1)
    middle = np.argmin(np.linalg.norm(scan.vertices - [1, 0, 0], axis=1))
    corners = np.stack([corner, np.full(3, middle)], axis=1)
    color = scan.color_at(corners, np.array([[0.9, 0.1]] * 3))
    np.testing.assert_allclose(color, np.eye(3), atol=1e-6)


def test_mesh_without_its_picture_has_no_color(tmp_path):
    write_textured(tmp_path)
    (tmp_path / "001_01.png").unlink()
    scan = load_scan(tmp_path / "001_01.obj")
    assert not scan.has_color and len(scan.faces) == 2


def test_point_clouds(tmp_path):
    points = np.random.default_rng(0).normal(size=(30, 3))
    colors = np.arange(90).reshape(30, 3)
    np.savetxt(tmp_path / "a.xyz", points)
    np.savetxt(tmp_path / "b.xyz", np.concatenate([points, colors], axis=1))
    rgba = np.concatenate([colors, np.full((30, 1), 255)], axis=1).astype(np.uint8)
    trimesh.PointCloud(points, colors=rgba).export(tmp_path / "c.ply")
    for name, colored in (("a.xyz", False), ("b.xyz", True), ("c.ply", True)):
        scan = load_scan(tmp_path / name)
        assert scan.faces is None and scan.normals is None and scan.has_color == colored
        np.testing.assert_allclose(scan.vertices, points, atol=1e-5)
        if colored:
            np.testing.assert_allclose(scan.colors, LINEAR_OF_BYTE[colors])


def test_points_that_are_no_numbers_are_dropped(tmp_path):
    rows = ["0 0 0", "nan 1 1", "1 0 0", "0 1 0"]
    (tmp_path / "a.xyz").write_text("\n".join(rows))
    assert len(load_scan(tmp_path / "a.xyz").vertices) == 3
    faces = "f 1 2 3\nf 1 3 4\n"
    (tmp_path / "a.obj").write_text("".join(f"v {row}\n" for row in rows) + faces)
    scan = load_scan(tmp_path / "a.obj")
    assert len(scan.vertices) == 3 and len(scan.faces) == 1 and np.isfinite(scan.vertices).all()


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.obj", b"", "empty"),
        ("a.obj", bytes(range(256)) * 20, "empty|damaged"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 9\n", "damaged|empty"),
        ("a.ply", b"\x89PNG not a mesh", "damaged"),
        ("a.xyz", b"1 2\n3 4\n", "not 2 numbers"),
        ("a.xyz", b"one two three\n", "damaged"),
        ("a.xyz", b"nan nan nan\n", "empty"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nf 1 2 9\n", "damaged|empty"),
        ("a.jpg", b"picture", "expected one of"),
        ("a.rgbd.json", b"{}", "fx"),
        ("a.rgbd.json", b'{"fx": 1, "fy": 1, "cx": 0, "cy": 0, "frames": []}', "one frame or more"),
        ("a.rgbd.json", b'{"fx": 1, "fy": 1, "cx": 0, "cy": 0, "frames": [{"depth": "no.png"}]}', "no.png"),
        ("a.rgbd.json", b"[1", "no description"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScanError, match=words):
        load_scan(tmp_path / name)


def test_missing_file(tmp_path):
    with pytest.raises(ScanError, match="there is no file"):
        load_scan(tmp_path / "none.ply")


# -------------------------------------------------------------------------------------------------------------- folders


def test_folder_in_the_layout_of_the_dataset(tmp_path):
    for name in ("001_01.obj", "001_01.mtl", "001_01.jpg", "001_01.ply", "001_02.obj", "002_01.ply", ".003_01.ply"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    for name in ("anna_01.stl", "b.rgbd.json", "b_depth.png", "b_depth.npy", "notes.txt"):
        (tmp_path / "more" / name).touch()
    found = find_scans(tmp_path)
    rows = [(scan.name, scan.path.name, scan.identity, scan.expression) for scan in found]
    assert rows == [
        ("001_01", "001_01.obj", "001", "01"),
        ("001_02", "001_02.obj", "001", "02"),
        ("002_01", "002_01.ply", "002", "01"),
        ("more/anna_01", "anna_01.stl", "more/anna_01", None),
        ("more/b", "b.rgbd.json", "more/b", None),
    ]


def test_folders_without_scans(tmp_path):
    with pytest.raises(ScanError, match="no scans"):
        find_scans(tmp_path)
    with pytest.raises(ScanError, match="there is no folder"):
        find_scans(tmp_path / "none")


# ---------------------------------------------------------------------------------------------------------------- depth


def test_depth_becomes_points_of_the_camera(tmp_path):
    scan = scan_from_depth(plane_depth(), CAMERA)
    assert scan.unit_m == 1.0
    np.testing.assert_allclose(scan.vertices[:, 2], -0.5)
    np.testing.assert_allclose(scan.normals, np.broadcast_to([0, 0, 1], scan.normals.shape), atol=1e-9)
    # The pixel in row 10, column 50 has its centre at (50.5, 10.5): right of and above the axis at (40, 30).
    expected = np.array([(50.5 - 40) / 200 * 0.5, (30 - 10.5) / 200 * 0.5, -0.5])
    assert np.linalg.norm(scan.vertices - expected, axis=1).min() < 1e-12
    a, b, c = (scan.vertices[scan.faces[:, k]] for k in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()


def test_surfaces_apart_in_depth_are_not_joined():
    depth = plane_depth()
    depth[:, 40:] = 0.6
    depth[20:40, 10:30] = 0
    scan = scan_from_depth(depth, CAMERA)
    assert np.ptp(scan.vertices[scan.faces][:, :, 2], axis=1).max() < 1e-9
    assert 0.7 * (depth > 0).sum() < len(scan.vertices) < (depth > 0).sum()


def test_surface_seen_at_a_grazing_angle_is_left_out():
    close = Camera(2000.0, (40.0, 30.0), (60, 80))
    sideways_m = np.tile((np.arange(80) - 39.5) * 0.5 / 2000, (60, 1))
    sizes = [len(scan_from_depth(0.5 + np.tan(np.deg2rad(tilt)) * sideways_m, close).vertices) for tilt in (60, 84)]
    assert sizes[0] > 0.8 * 4800 and sizes[1] < 0.15 * 4800


def test_noise_in_depth_hardly_turns_normals():
    noisy = plane_depth() + 1e-3 * np.random.default_rng(0).standard_normal(CAMERA.image_size)
    scan = scan_from_depth(noisy, Camera(600.0, (40.0, 30.0), (60, 80)))
    assert np.mean(scan.normals[:, 2]) > 0.9
    assert np.std(scan.vertices[:, 2]) == pytest.approx(1e-3, rel=0.1)


def test_colors_of_depth_pictures():
    rgb = np.zeros((60, 80, 3), np.uint8)
    rgb[:, 40:, 0] = 255
    scan = scan_from_depth(plane_depth(), CAMERA, rgb)
    np.testing.assert_allclose(scan.colors[:, 0], scan.vertices[:, 0] > 0)


@pytest.mark.parametrize(
    "depth, rgb, words",
    [
        (np.zeros((60, 80)), None, "nothing was measured"),
        (np.full((60, 80), np.nan), None, "nothing was measured"),
        (np.ones((60, 81)), None, "expected"),
        (np.ones((60, 80)), np.zeros((30, 40, 3), np.uint8), "colours"),
    ],
)
def test_depth_pictures_that_do_not_fit(depth, rgb, words):
    with pytest.raises(ScanError, match=words):
        scan_from_depth(depth, CAMERA, rgb)


def write_recording(folder, poses=None, **changes):
    """Two frames of a plane half a metre away, in millimetres, with colours; the second one is 1 cm nearer."""
    frames = []
    for k in range(2):
        Image.fromarray(np.full((60, 80), 500 - 10 * k, np.uint16)).save(folder / f"d{k}.png")
        Image.fromarray(np.full((60, 80, 3), 100 * k, np.uint8)).save(folder / f"c{k}.png")
        frames.append(
            {"depth": f"d{k}.png", "color": f"c{k}.png"} | ({} if poses is None else {"camera_to_world": poses[k]})
        )
    entry = {"fx": 200, "fy": 210, "cx": 39.5, "cy": 29.5, "frames": frames} | changes
    (folder / "a.rgbd.json").write_text(json.dumps(entry))
    return folder / "a.rgbd.json"


def test_frames_without_poses_stay_apart(tmp_path):
    path = write_recording(tmp_path)
    first, second = load_frames(path)
    np.testing.assert_allclose(first.vertices[:, 2], -0.5)
    np.testing.assert_allclose(second.vertices[:, 2], -0.49)
    assert first.has_color and first.unit_m == 1.0
    # cx counts from the middle of the first pixel; the vertical focal length is another one.
    top = first.vertices[:, 1].max()
    row = 29.5 - top * 210 / 0.5
    assert row == pytest.approx(round(row), abs=1e-6)
    with pytest.raises(ScanError, match="2 frames"):
        load_scan(path)


def test_frames_with_poses_are_one_scan(tmp_path):
    apart = np.eye(4)
    apart[2, 3] = 0.010  # the second camera stands 1 cm nearer: both planes are one
    scan = load_scan(write_recording(tmp_path, [np.eye(4).tolist(), apart.tolist()]))
    np.testing.assert_allclose(scan.vertices[:, 2], 0.5, atol=1e-9)
    np.testing.assert_allclose(scan.normals[:, 2], -1, atol=1e-9)  # towards the cameras, whose z points away from them
    assert scan.faces.max() == len(scan.vertices) - 1


def test_poses_are_rotations_that_may_scale(tmp_path):
    pose = np.eye(4)
    pose[:3, :3] = 2.0 * np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    scan = load_scan(write_recording(tmp_path, [pose.tolist(), pose.tolist()]))
    assert scan.vertices[:, 2].max() == pytest.approx(1.0)
    for row, column, value in ((2, 0, 1e308), (0, 0, 1.3), (1, 1, -1.0)):
        bent = np.eye(4)
        bent[row, column] = value
        with pytest.raises(ScanError, match="4 x 4 matrix of a rotation"):
            load_scan(write_recording(tmp_path, [np.eye(4).tolist(), bent.tolist()]))


def test_depth_in_other_units_and_from_arrays(tmp_path):
    path = write_recording(tmp_path, depth_unit_m=0.0002)
    np.testing.assert_allclose(load_frames(path)[0].vertices[:, 2], -0.1)
    np.save(tmp_path / "d.npy", np.full((60, 80), 0.7, np.float32))
    path = write_recording(tmp_path, depth_unit_m=1.0, frames=[{"depth": "d.npy"}])
    np.testing.assert_allclose(load_scan(path).vertices[:, 2], -0.7, rtol=1e-6)


def test_recordings_with_numbers_that_no_camera_has(tmp_path):
    for changes, words in (
        ({"fx": 0}, "above 0"),
        ({"depth_unit_m": float("nan")}, "above 0"),
        ({"cx": 1e300}, "no connected surface"),
        ({"fx": 1e-30, "fy": 1e-30}, "no connected surface"),
        ({"frames": [{"depth": "d0.png", "camera_to_world": np.zeros((4, 4)).tolist()}]}, "4 x 4 matrix"),
        ({"frames": [{"depth": "d0.png", "color": 5}]}, "5"),
        ({"frames": {"depth": "d0.png"}}, "no description"),
    ):
        with pytest.raises(FaceVerseError, match=words):
            load_frames(write_recording(tmp_path, **changes))
    depth = np.full((40, 48), 0.5, np.float32)
    depth[:, :24] += 0.001 * np.arange(40, dtype=np.float32)[:, None]
    np.save(tmp_path / "d.npy", depth)
    lens = {"fx": 60.0, "fy": 2147483648, "cx": 24.0, "cy": 20.0, "depth_unit_m": 1, "frames": [{"depth": "d.npy"}]}
    with pytest.raises(ScanError, match="no connected surface"):
        load_frames(write_recording(tmp_path, **lens))
    (tmp_path / "d.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'}")
    with pytest.raises(ScanError, match="d.npy cannot be read"):
        load_frames(write_recording(tmp_path, frames=[{"depth": "d.npy"}]))


def test_recordings_that_do_not_fit(tmp_path):
    path = write_recording(tmp_path)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "c0.png")
    with pytest.raises(ScanError, match="size"):
        load_frames(path)
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "d0.png")
    with pytest.raises(ScanError, match="one channel"):
        load_frames(path)
    with pytest.raises(ScanError, match="4 x 4"):
        load_frames(write_recording(tmp_path, [[1, 2], [3, 4]]))
    path = write_recording(tmp_path)
    (tmp_path / "c1.png").unlink()
    with pytest.raises(FaceVerseError, match="c1.png"):
        load_frames(path)


# ------------------------------------------------------------------------------------------------------------- handling


def test_cut_keeps_what_belongs_together():
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    scan = Scan(SQUARE, faces, SQUARE + 1, np.arange(12.0).reshape(4, 3))
    part = keep_vertices(scan, np.array([True, False, True, True]))
    np.testing.assert_array_equal(part.vertices[part.faces], SQUARE[[[0, 2, 3]]])
    np.testing.assert_array_equal(part.colors, scan.colors[[0, 2, 3]])


def test_moved_turns_normals_without_scaling_them():
    scan = Scan(SQUARE, np.array([[0, 1, 2]]), np.tile([0.0, 0, 1], (4, 1)))
    turn = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) * 0.001
    after = transformed(scan, turn, np.array([1.0, 2, 3]))
    np.testing.assert_allclose(after.normals, np.tile([0.0, -1, 0], (4, 1)))
    np.testing.assert_allclose(after.vertices[2], [1.001, 2, 3.001])


def test_merged_scans_keep_triangles_and_colors():
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    one = Scan(SQUARE, faces, SQUARE, np.zeros((4, 3)))
    two = Scan(SQUARE + 5, faces, SQUARE, np.ones((4, 3)))
    both = merge_scans([one, two])
    np.testing.assert_array_equal(both.vertices[both.faces[2:]], two.vertices[faces])
    np.testing.assert_array_equal(both.colors[:, 0], [0] * 4 + [1] * 4)
    assert merge_scans([one, Scan(SQUARE)]).faces is None


def test_a_gltf_file_that_counts_to_infinity(tmp_path, ball):
    for name, content in ball.export(file_type="gltf").items():
        (tmp_path / name).write_bytes(content)
    path = tmp_path / "model.gltf"
    assert len(load_scan(path).vertices) == len(ball.vertices)
    path.write_text(re.sub(r'"count":\s*\d+', '"count": Infinity', path.read_text(), count=1))
    with pytest.raises(ScanError, match="model.gltf"):
        load_scan(path)


def test_texture_coordinates_of_another_type_are_damage(tmp_path):
    square = trimesh.Trimesh(SQUARE, [[0, 1, 2], [0, 2, 3]], process=False)
    square.visual = trimesh.visual.TextureVisuals(uv=SQUARE[:, :2], image=Image.new("RGB", (8, 4), "red"))
    for name, content in square.export(file_type="gltf").items():
        (tmp_path / name).write_bytes(content)
    path = tmp_path / "model.gltf"
    assert load_scan(path).texture.rgb.shape == (4, 8, 3)
    document = json.loads(path.read_text())
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    attributes["TEXCOORD_0"] = attributes["POSITION"]
    path.write_text(json.dumps(document))
    with pytest.raises(ScanError, match=r"uv must have shape \(4, 2\), got \(4, 3\)"):
        load_scan(path)


def test_depth_with_a_chunk_that_states_gigabytes(tmp_path):
    """Memory for the stated length is not reserved: the picture is read from the bytes that there are."""
    path = write_recording(tmp_path)
    whole = load_frames(path)[0].vertices
    content = (tmp_path / "d0.png").read_bytes()
    place = content.index(b"IDAT") - 4
    (tmp_path / "d0.png").write_bytes(content[:place] + b"\x7f\xff\xff\xff" + content[place + 4 :])
    tracemalloc.start()
    try:
        np.testing.assert_array_equal(load_frames(path)[0].vertices, whole)
        assert tracemalloc.get_traced_memory()[1] < 1e8
    finally:
        tracemalloc.stop()
