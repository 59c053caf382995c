"""Scans as programs write them: indices, polygons, colours, materials and cut files, checked by their values."""

import random
import struct

import numpy as np
import pytest
from PIL import Image

from faceverse.training.scan_files import LINEAR_OF_BYTE, ScanError, load_scan

pytest.importorskip("igl")
trimesh = pytest.importorskip("trimesh")

POINTS = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0]], float)
V = "v 0 0 0\nv 2 0 0\nv 2 1 0\nv 0 1 0\n"
F = "f 1 2 3\nf 1 3 4\n"
VT = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
TEXTURED = V + VT + "usemtl skin\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
SRGB = np.array([200, 100, 0])


def load(tmp_path, content, name="a.obj"):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_scan(tmp_path / name)


def refused(tmp_path, content, words, name="a.obj"):
    with pytest.raises(ScanError, match=words) as caught:
        load(tmp_path, content, name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def triangles(scan):
    """Corners of the triangles in an order of their own."""
    return sorted(np.round(corners, 6).tolist() for corners in scan.vertices[scan.faces])


def area(scan):
    a, b, c = (scan.vertices[scan.faces[:, k]] for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2


# ----------------------------------------------------------------------------------------------------------------- OBJ


@pytest.mark.parametrize(
    "text",
    [
        V + "f -4 -3 -2\nf -4 -2 -1\n",
        "v 0 0 0\nv 2 0 0\nv 2 1 0\nf -3 -2 -1\nv 0 1 0\nf -4 -2 -1\n",
        "v 0 0 0\nv 2 0 0\nv 2 1 0\nf -3 -2 -1\nv 0 0 0\nv 2 1 0\nv 0 1 0\nf -3 -2 -1\n",
        "v 0 0 0\nv 2 0 0\nv 2 1 0\nvn 0 0 1\nf -3//-1 -2//-1 -1//-1\nv 0 1 0\nvn 0 0 1\nf 1//2 3//2 -1//-1\n",
        F + V,
        "\ufeff" + V + F,
        (V + F).replace("\n", "\r"),
        (V + F).replace(" ", "\t"),
        "  " + (V + F).replace("\n", "\n  "),
        (V + F).replace("\n", " # a comment\n").replace("v ", "v  "),
        "# usemtl none\n" + V + "o one\ng two\ns off\nf 1 2 \\\n3\nl 1 2\np 1\no next\nf 1 3 4\n",
        V.replace(" 0\n", " 0 1.0\n") + F,
        V.replace("v 2", "v 2,0") + F,
        V + "v nan(ind) 1.#QNAN -1.#IND\n" + F + "f 1 2 5\n",
        V + F + "f 1 2\n",
        V + "f 1// 2// 3//\nf 1// 3// 4//\n",
        V + VT + "vn 0 0 1\nf 1/1 2/2 3/3\nf 1//1 3//1 4//1\n",
        V + VT + "vn 0 0 1\nf 1/1/1 2/2 3\nf 1/1 3/3 4/4\n",
        V + "curv 0 1 1 2\nfoo 1 2 3\n" + F,
        V.rstrip("\n") + "\n" + F.rstrip("\n"),
    ],
    ids=str.split("""negative interleaved repeated normals faces-first mark mac tabs indented comments others weights
    decimal-commas not-finite two-corners slashes forms mixed-corners unknown no-end"""),
)
def test_forms_of_one_obj(text, tmp_path):
    scan = load(tmp_path, text)
    assert triangles(scan) == [POINTS[[0, 1, 2]].tolist(), POINTS[[0, 2, 3]].tolist()]
    np.testing.assert_allclose(scan.normals, np.tile([0.0, 0, 1], (len(scan.vertices), 1)))


@pytest.mark.parametrize("seed", range(12))
def test_random_meshes_in_random_forms(seed, tmp_path):
    """Faces stand between the points as soon as they can, absolute or relative to what was read so far."""
    rng = random.Random(seed)
    points = [[round(rng.uniform(-5, 5), 4) for _ in range(3)] for _ in range(20)]
    waiting = faces = [rng.sample(range(20), 3) for _ in range(25)]
    separator, end, relative = rng.choice((" ", "\t", "  ")), rng.choice(("\n", "\r\n", "\r")), seed % 2
    lines = []
    for count, point in enumerate(points, start=1):
        lines.append(separator.join(["v", *map(str, point)]) + rng.choice(("", " # a comment", " ")))
        if rng.random() < 0.5 or count == 20:
            for face in (face for face in waiting if max(face) < count):
                lines.append(separator.join(["f", *(str(k - count if relative else k + 1) for k in face)]))
            waiting = [face for face in waiting if max(face) >= count]
    scan = load(tmp_path, end.join(lines) + end)
    assert triangles(scan) == sorted(np.array(points)[face].tolist() for face in faces)


@pytest.mark.parametrize("begin", range(4))
def test_concave_quads(begin, tmp_path):
    corners = np.roll([1, 2, 3, 4], begin)
    scan = load(tmp_path, "v 2 0 0\nv 0.2 0.2 0\nv 0 2 0\nv 0 0 0\nf {} {} {} {}\n".format(*corners))
    assert area(scan) == pytest.approx(0.4) and len(scan.faces) == 2


def test_polygons(tmp_path):
    star = [(0, 0), (3, 1), (6, 0), (5, 3), (6, 6), (3, 5), (0, 6), (1, 3)]  # seen whole from none of its corners
    text = "".join(f"v {x} {y} 7\n" for x, y in star) + "f 1 2 3 4 5 6 7 8\n"
    scan = load(tmp_path, text)
    x, y = np.array(star).T
    shoelace = abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2
    assert area(scan) == pytest.approx(shoelace) and len(scan.faces) == 6
    np.testing.assert_allclose(scan.normals[:, 2], 1)
    pentagon = "v 0 0 0\nv 2 0 0\nv 2 2 0\nv 1 0.5 0\nv 0 2 0\n"
    assert area(load(tmp_path, pentagon + "f 1 2 3 4 5\n")) == pytest.approx(2.5)
    assert area(load(tmp_path, pentagon + "v 3 0 0\nf 1 2 3 4 5\nf 2 6 3\n")) == pytest.approx(3.5)
    assert area(load(tmp_path, V + "f 1 1 1 1\n" + F)) == pytest.approx(2)


@pytest.mark.parametrize(("scale", "form"), [(255, "{:.0f}"), (1, "{:.6f}"), (65535, "{:.0f}"), (255, "{:.2f}")])
@pytest.mark.parametrize("suffix", ["obj", "xyz"])
def test_ranges_of_colors(scale, form, suffix, tmp_path):
    colors = np.stack([SRGB, SRGB[::-1], [255, 0, 7], [1, 128, 254]])
    rows = [
        " ".join([*(f"{x:g}" for x in point), *(form.format(level / 255 * scale) for level in color)])
        for point, color in zip(POINTS, colors)
    ]
    text = "".join(f"v {row}\n" for row in rows) + F if suffix == "obj" else "\n".join(rows)
    scan = load(tmp_path, text, f"a.{suffix}")
    np.testing.assert_allclose(scan.vertices, POINTS)
    np.testing.assert_allclose(scan.colors, LINEAR_OF_BYTE[colors], atol=1e-7)


def test_colors_beside_materials_without_a_picture(tmp_path):
    (tmp_path / "a.mtl").write_text("newmtl material_0\nKd 1 1 1\n")
    rows = "".join(f"v {x} {y} {z} 0.5 0.25 0\n" for x, y, z in POINTS)
    scan = load(tmp_path, "mtllib a.mtl\nusemtl material_0\n" + rows + F)
    np.testing.assert_allclose(scan.colors, np.tile(LINEAR_OF_BYTE[[128, 64, 0]], (4, 1)))


def test_numbers_beside_points_that_are_no_colors(tmp_path):
    normals = V.replace(" 0\n", " 0 0.1 -0.7 0.7\n")
    assert not load(tmp_path, normals + F).has_color
    assert not load(tmp_path, V.replace("2 1 0", "2 1 0 1 1 1") + F).has_color


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (V + "f 1 2 3\nf 1 3", "last line is cut short"),
        (TEXTURED[:-3], "last line is cut short"),
        (V[:-3], "last line is cut short"),
        (V, "has points but no faces"),
        (V + VT, "has points but no faces"),
        (V + V + V + "f 1 2 3", "8 of 12 points belong to no face|9 of 12 points belong to no face"),
        (V + "f 1 2 9\n", "point 9 of 4"),
        (V + "f 0 1 2\n", "line 5 is 'f 0 1 2'"),
        (V + "f -9 1 2\n", "line 5 is 'f -9 1 2'"),
        (V + "f 1 2 99999999999999999999\n", "line 5 is"),
        (V + "f 1 2 one\n", "line 5 is 'f 1 2 one'"),
        (V + "v 1 2\n" + F, "line 5 is 'v 1 2'"),
        (V + "v 1 2 x\n" + F, "line 5 is 'v 1 2 x'"),
        ("# nothing\n", "holds no points"),
        (V + "f 1 1 1\n" + "v nan nan nan\nf 5 5 5\n", None),
    ],
)
def test_damaged_obj(text, words, tmp_path):
    if words is None:
        assert len(load(tmp_path, text).faces) == 1
    else:
        refused(tmp_path, text, words)


def write_picture(path):
    picture = np.full((8, 8, 3), 60, np.uint8)
    picture[:4, :4] = (255, 0, 0)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(picture).save(path)


@pytest.mark.parametrize(
    ("line", "picture", "library", "head"),
    [
        ("map_Kd t.png", "t.png", "a.mtl", "mtllib a.mtl"),
        ("map_Kd -s 1 1 1 -clamp on -o 0.5 -mm 0 1 t.png", "t.png", "a.mtl", "mtllib a.mtl"),
        ("map_Kd my t 1.png", "my t 1.png", "a.mtl", "mtllib a.mtl"),
        ('map_Kd "my t.png"', "my t.png", "a.mtl", "mtllib a.mtl"),
        ("map_Kd C:\\scans\\t.png", "t.png", "a.mtl", "mtllib a.mtl"),
        ("map_Kd maps\\t.png", "maps/t.png", "a.mtl", "mtllib a.mtl"),
        ("map_Kd ../T.PNG", "t.png", "a.mtl", "mtllib a.mtl"),
        ("map_Kd -bm 1 -t.png", "-t.png", "a.mtl", "mtllib a.mtl"),
        ("map_Kd Größe.png", "Größe.png", "a.mtl", "mtllib a.mtl"),
        ("map_Kd t.png", "t.png", "my a.mtl", "mtllib my a.mtl"),
        ("map_Kd t.png", "t.png", "a.mtl", "mtllib none.mtl\nmtllib ./A.mtl"),
        ("map_Kd t.png", "t.png", "a.mtl", "mtllib none.mtl a.mtl"),
    ],
)
def test_names_of_pictures(line, picture, library, head, tmp_path):
    (tmp_path / library).write_bytes(f"newmtl skin\nKd 1 1 1\n{line}\n".encode("cp1252"))
    write_picture(tmp_path / picture)
    scan = load(tmp_path, f"{head}\n{TEXTURED}")
    corner = np.flatnonzero((scan.vertices == [0, 1, 0]).all(1))
    np.testing.assert_allclose(scan.color_at(corner[:, None], np.ones((1, 1))), [[1, 0, 0]])


def test_pictures_that_are_not_there(tmp_path):
    assert not load(tmp_path, TEXTURED).has_color, "trimesh's grey stand-in is no colour"
    (tmp_path / "a.mtl").write_text("newmtl skin\nmap_Kd a.png\n")
    assert not load(tmp_path, "mtllib a.mtl\n" + TEXTURED).has_color
    write_picture(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    refused(tmp_path, "mtllib a.mtl\n" + TEXTURED, "truncated")
    (tmp_path / "a.png").write_bytes(b"no picture")
    refused(tmp_path, "mtllib a.mtl\n" + TEXTURED, "the picture a.png of a.obj cannot be read")


def test_pictures_of_16_bits_keep_their_levels(tmp_path):
    (tmp_path / "a.mtl").write_text("newmtl skin\nmap_Kd a.png\n")
    Image.fromarray(np.full((4, 4), 100 * 257, np.uint16)).save(tmp_path / "a.png")
    scan = load(tmp_path, "mtllib a.mtl\n" + TEXTURED)
    assert (scan.texture.rgb == 100).all() and scan.texture.rgb.shape == (4, 4, 3)


# ------------------------------------------------------------------------------------------------------ rows of points


def cloud(columns, separator=" ", first=""):
    return first + "\n".join(separator.join(f"{number:g}" for number in row) for row in columns) + "\n"


CLOUD = np.random.default_rng(0).normal(size=(40, 3)).round(4)
LEVELS = np.random.default_rng(1).integers(0, 256, (40, 3))
NORMALS = np.random.default_rng(2).normal(size=(40, 3)).round(4)
INTENSITY = np.random.default_rng(3).integers(-900, 2000, (40, 1))
SHARE = np.random.default_rng(4).random((40, 1)).round(3)


@pytest.mark.parametrize(
    ("columns", "colored"),
    [
        ((CLOUD,), False),
        ((CLOUD, NORMALS), False),
        ((CLOUD, SHARE), False),
        ((CLOUD, LEVELS), True),
        ((CLOUD, LEVELS / 255), True),
        ((CLOUD, INTENSITY, LEVELS), True),
        ((CLOUD, SHARE, LEVELS), True),
        ((CLOUD, LEVELS, np.full((40, 1), 255)), True),
        ((CLOUD, LEVELS, SHARE), True),
        ((CLOUD, LEVELS, NORMALS), True),
        ((CLOUD, NORMALS, LEVELS), True),
        ((CLOUD, LEVELS, np.full((40, 1), 255), NORMALS), True),
        ((CLOUD, INTENSITY, LEVELS, NORMALS), True),
        ((CLOUD, NORMALS, LEVELS, np.full((40, 1), 255)), True),
        ((CLOUD, NORMALS, INTENSITY, LEVELS), True),
    ],
)
def test_columns_of_rows(columns, colored, tmp_path):
    scan = load(tmp_path, cloud(np.concatenate(columns, axis=1)), "a.xyz")
    np.testing.assert_allclose(scan.vertices, CLOUD)
    assert scan.has_color == colored and scan.faces is None and scan.normals is None
    if colored:
        np.testing.assert_allclose(scan.colors, LINEAR_OF_BYTE[LEVELS])


@pytest.mark.parametrize(
    "text",
    [
        cloud(np.hstack([CLOUD, LEVELS]), "\t"),
        cloud(np.hstack([CLOUD, LEVELS]), ","),
        cloud(np.hstack([CLOUD, LEVELS]), ", "),
        cloud(np.hstack([CLOUD, LEVELS]), ";"),
        cloud(np.hstack([CLOUD, LEVELS]), ";").replace(".", ","),
        cloud(np.hstack([CLOUD, LEVELS])).replace(".", ","),
        cloud(np.hstack([CLOUD, LEVELS])).replace("\n", "\r"),
        cloud(np.hstack([CLOUD, LEVELS]), first="\ufeff40\n"),
        cloud(np.hstack([CLOUD, LEVELS]), first="# a scanner\n\n"),
        cloud(np.hstack([CLOUD, LEVELS]), ",", first="X,Y,Z,R,G,B\n"),
        cloud(np.hstack([CLOUD, LEVELS]), first="//X Y Z R G B\n40\n"),
        cloud(np.hstack([CLOUD, LEVELS]), first="40\nx y z r g b\n"),
        cloud(np.hstack([LEVELS, SHARE, CLOUD])[:, [4, 5, 6, 2, 1, 0, 3]], first="x y z blue green red s\n"),
        cloud(np.hstack([CLOUD, LEVELS])).replace("\n", " // point\n"),
    ],
    ids=str.split("""tabs commas comma-space semicolons comma-semicolon decimal mac count comment names cc count-names
    order notes"""),
)
def test_forms_of_rows(text, tmp_path):
    scan = load(tmp_path, text, "a.xyz")
    np.testing.assert_allclose(scan.vertices, CLOUD)
    np.testing.assert_allclose(scan.colors, LINEAR_OF_BYTE[LEVELS])


def test_damaged_rows(tmp_path):
    rows = cloud(np.hstack([CLOUD, LEVELS]))
    refused(tmp_path, "41\n" + rows, "announces 41 points and has 40", "a.xyz")
    refused(tmp_path, rows + "1 2 3 4", "damaged", "a.xyz")
    refused(tmp_path, cloud(CLOUD[:, :2]), "not 2 numbers", "a.xyz")
    refused(tmp_path, cloud(np.hstack([CLOUD, CLOUD[:, :2]])), "not 5 numbers", "a.xyz")
    refused(tmp_path, "# nothing\n", "holds no points", "a.xyz")
    refused(tmp_path, ",,,,\n", "holds no points", "a.xyz")


# ------------------------------------------------------------------------------------------------------------ binaries


def ply(kinds, names, colors, faces="3 0 1 2\n", announced=1):
    rows = "".join(" ".join(f"{number:g}" for number in row) + "\n" for row in np.hstack([POINTS, colors]))
    properties = [*(f"float {axis}" for axis in "xyz"), *(f"{kinds} {name}" for name in names)]
    head = "".join(f"property {entry}\n" for entry in properties)
    of_faces = f"element face {announced}\nproperty list uchar int vertex_indices\n" if announced else ""
    return f"ply\nformat ascii 1.0\nelement vertex 4\n{head}{of_faces}end_header\n{rows}{faces if announced else ''}"


@pytest.mark.parametrize("announced", [1, 0])
@pytest.mark.parametrize(
    ("kind", "prefix", "scale"),
    [
        ("uchar", "", 255), ("uchar", "diffuse_", 255), ("float", "", 1), ("float", "", 255), ("double", "diffuse_", 1),
        ("ushort", "", 65535), ("int", "", 255), ("uint", "", 65535),
    ],
)  # fmt: skip
def test_colors_of_ply(kind, prefix, scale, announced, tmp_path):
    levels = np.stack([SRGB, SRGB[::-1], [255, 0, 7], [1, 128, 254]])
    names = [prefix + name for name in ("red", "green", "blue", "alpha")]
    values = np.hstack([levels, np.full((4, 1), 9)]) * (scale / 255)
    scan = load(tmp_path, ply(kind, names, values, announced=announced), "a.ply")
    kept = [0, 1, 2] if announced else [0, 1, 2, 3]
    np.testing.assert_allclose(scan.vertices, POINTS[kept])
    np.testing.assert_allclose(scan.colors, LINEAR_OF_BYTE[levels[kept]], atol=1e-7)


def binary_ply(order, polygons):
    name = {"<": "little", ">": "big"}[order]
    head = f"ply\nformat binary_{name}_endian 1.0\ncomment caf\u00e9\nelement vertex 4\n" + "".join(
        f"property {entry}\n" for entry in ("float x", "float y", "float z", "uchar red", "uchar green", "uchar blue")
    )
    head += f"element face {len(polygons)}\nproperty uchar quality\n"
    head += "property list uchar int vertex_indices\nend_header\n"
    points = b"".join(struct.pack(order + "3f3B", *point, *SRGB) for point in POINTS)
    return head.encode("latin-1") + points + b"".join(
        struct.pack(f"{order}BB{len(polygon)}i", 5, len(polygon), *polygon) for polygon in polygons
    )  # fmt: skip


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("polygons", "faces"), [([(0, 1, 2), (0, 2, 3)], 2), ([(0, 1, 2), (0, 1, 2, 3)], 3)])
def test_binary_ply(order, polygons, faces, tmp_path):
    scan = load(tmp_path, binary_ply(order, polygons), "a.ply")
    np.testing.assert_allclose(scan.vertices, POINTS)
    assert len(scan.faces) == faces and area(scan) == pytest.approx(faces)
    np.testing.assert_allclose(scan.colors, np.tile(LINEAR_OF_BYTE[SRGB], (4, 1)))


def test_files_without_the_faces_that_they_announce(tmp_path):
    refused(tmp_path, ply("uchar", (), POINTS[:, :0], faces=""), "announces faces", "a.ply")
    refused(tmp_path, ply("uchar", (), POINTS[:, :0], faces="3 0 1"), "announces faces", "a.ply")
    whole = binary_ply("<", [(0, 1, 2), (0, 2, 3)])
    for cut in (5, 14, 28, 40):
        refused(tmp_path, whole[:-cut], "damaged", "a.ply")
    box = trimesh.creation.box()
    stl, ascii_stl = box.export(file_type="stl"), trimesh.exchange.stl.export_stl_ascii(box).encode()
    refused(tmp_path, stl[:-30], "announces 12 triangles and has 11", "a.stl")
    refused(tmp_path, stl[:40], "cut short", "a.stl")
    refused(tmp_path, ascii_stl[:-200], "cut short", "a.stl")
    assert area(load(tmp_path, stl + b"and a comment", "a.stl")) == pytest.approx(6)
    assert area(load(tmp_path, ascii_stl.replace(b"solid ", b"solid caf\xe9", 1), "a.stl")) == pytest.approx(6)
    off = "OFF # caf\u00e9\n4 2 0\n0 0 0\n2 0 0\n2 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n"
    assert area(load(tmp_path, off.encode("latin-1"), "a.off")) == pytest.approx(2)
    for cut in (4, 9, 20, 30):
        refused(tmp_path, off[:-cut], "has fewer", "a.off")


def test_gltf_places_and_colors(tmp_path):
    scene, box = trimesh.Scene(), trimesh.creation.box()
    box.visual.vertex_colors = np.tile(np.uint8([*SRGB, 255]), (8, 1))
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[:3, 3] = 5
    scene.add_geometry(box, transform=np.diag([2.0, 3, 4, 1]))
    scene.add_geometry(box, transform=mirrored)
    content = scene.export(file_type="glb")
    scan = load(tmp_path, content, "a.glb")
    far = scan.vertices[:, 0] > 4
    np.testing.assert_allclose(np.ptp(scan.vertices[~far], axis=0), [2, 3, 4])
    np.testing.assert_allclose(scan.vertices[far].mean(0), [5, 5, 5])
    assert ((scan.normals * (scan.vertices - 5 * far[:, None])).sum(1) > 0).all(), "a mirror turns nothing inside out"
    np.testing.assert_allclose(scan.colors, np.tile(LINEAR_OF_BYTE[SRGB], (16, 1)))
    # The standard has linear colours; trimesh itself writes others.
    linear = load(tmp_path, content.replace(b"mikedh/trimesh", b"mikedh/xximesh"), "a.glb")
    np.testing.assert_allclose(linear.colors, np.tile(SRGB / 255, (16, 1)), atol=1e-6)
    compressed = content.replace(b'"asset":', b'"extensionsRequired":["KHR_draco_mesh_compression"],"asset":')
    length = struct.unpack_from("<I", content, 12)[0] + len(compressed) - len(content)
    refused(tmp_path, compressed[:12] + struct.pack("<I", length) + compressed[16:], "without compression", "a.glb")
    refused(tmp_path, content[:-7], "announces more bytes than it has", "a.glb")
    place = content.index(b'"count":')
    for count, words in ((b"999999999", "arrays of more than 512 MB"), (b"1e999", "damaged"), (b'"one"', "damaged")):
        changed = content[:place] + b'"count":' + count + content[content.index(b",", place) :]
        length = struct.unpack_from("<I", content, 12)[0] + len(changed) - len(content)
        refused(tmp_path, changed[:12] + struct.pack("<I", length) + changed[16:], words, "a.glb")


def test_numbers_that_are_missing_or_not_finite(tmp_path, capfd, caplog):
    rows = ply("float", ("red", "green", "blue"), np.tile(SRGB / 255, (4, 1)))
    refused(tmp_path, rows.replace("0.392157", "", 1), "damaged", "a.ply")
    scan = load(tmp_path, rows.replace("0.392157", "nan", 1), "a.ply")
    np.testing.assert_allclose(scan.colors[0], LINEAR_OF_BYTE[[200, 0, 0]])
    (tmp_path / "a.mtl").write_text("newmtl skin\nmap_Kd a.png\n")
    write_picture(tmp_path / "a.png")
    scan = load(tmp_path, "mtllib a.mtl\n" + TEXTURED.replace("vt 1 1", "vt nan inf"))
    assert np.isfinite(scan.color_at(np.arange(4)[:, None], np.ones((4, 1)))).all()
    stl = trimesh.creation.box().export(file_type="stl")
    assert np.isfinite(load(tmp_path, stl[:96] + b"\0\0\xc0\x7f" + stl[100:], "a.stl").vertices).all()
    assert not caplog.records and not capfd.readouterr().err, "trimesh reports nothing on its own"


# ------------------------------------------------------------------------------------------------ those that went wrong


def test_scans_that_went_wrong(shared):
    folder = shared / "real" / "failing"
    if not (folder / "colors_0_1.xyz").is_file():
        pytest.skip("no such scans")
    rows = np.loadtxt(folder / "colors_0_1.xyz")
    scan = load_scan(folder / "colors_0_1.xyz")
    np.testing.assert_array_equal(scan.vertices, rows[:, :3])
    np.testing.assert_array_equal(scan.colors, LINEAR_OF_BYTE[np.round(rows[:, 3:] * 255).astype(int)])
    assert not load_scan(folder / "points_with_normals.xyz").has_color
    scan = load_scan(folder / "colors_0_255.obj")
    lines = (folder / "colors_0_255.obj").read_text().splitlines()
    rows = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    np.testing.assert_array_equal(scan.vertices, rows[:, :3])
    np.testing.assert_array_equal(scan.colors, LINEAR_OF_BYTE[rows[:, 3:].astype(int)])
    assert len(scan.faces) == 38112
