"""Normals and subdivision against oracles, loops and properties."""

import numpy as np
import pytest
import torch

from faceverse.graphics.mesh import (
    face_normals,
    subdivide_flat,
    subdivide_smooth,
    subdivision,
    triangles_from_quads,
    unique_edges,
    vertex_normals,
)
from toy import toy_file

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
CUBE_QUADS = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])


def grid(rows, columns):
    row, column = np.indices((rows - 1, columns - 1)).reshape(2, -1)
    first = row * columns + column
    quads = np.stack([first, first + 1, first + columns + 1, first + columns], axis=1)
    y, x = np.indices((rows, columns)).reshape(2, -1)
    return np.stack([x, y, 0 * x], axis=1).astype(float), quads


def volume(vertices, quads):
    a, b, c = (vertices[triangles_from_quads(quads)[:, k]] for k in range(3))
    return (a * np.cross(b, c)).sum() / 6


def catmull_clark_by_loops(vertices, quads):
    """The published rules, vertex by vertex, in the order corners, edges (sorted), faces."""
    edges = sorted({tuple(sorted((q[k], q[k - 1]))) for q in quads.tolist() for k in range(4)})
    face_points = [vertices[q].mean(0) for q in quads]
    owners = {e: [f for f, q in enumerate(quads.tolist()) if set(e) <= set(q)] for e in edges}
    edge_points = []
    for a, b in edges:
        middle = (vertices[a] + vertices[b]) / 2
        faces = [face_points[f] for f in owners[a, b]]
        edge_points.append((middle + np.mean(faces, axis=0)) / 2 if len(faces) == 2 else middle)
    corners = []
    for v, point in enumerate(vertices):
        mine = [e for e in edges if v in e]
        rim = [e for e in mine if len(owners[e]) == 1]
        around = [face_points[f] for f, q in enumerate(quads) if v in q]
        if not around:
            corners.append(point)
        elif rim:
            others = [vertices[a if b == v else b] for a, b in rim]
            corners.append(0.75 * point + 0.125 * sum(others))
        else:
            n = len(around)
            middles = np.mean([(vertices[a] + vertices[b]) / 2 for a, b in mine], axis=0)
            corners.append((np.mean(around, axis=0) + 2 * middles + (n - 3) * point) / n)
    return np.array(corners + edge_points + face_points)


def test_subdivision_follows_the_published_rules():
    file = toy_file()
    vertices, quads = file.mean_vertices.astype(float), file.quads
    topology = subdivision(quads, len(vertices))
    expected = catmull_clark_by_loops(vertices, quads)
    np.testing.assert_allclose(subdivide_smooth(vertices, topology), expected, atol=1e-10)


def test_subdivided_cube_stays_closed_and_converges_to_its_limit():
    vertices, quads = CUBE, CUBE_QUADS
    steps = []
    for _ in range(5):
        topology = subdivision(quads, len(vertices))
        vertices, quads = subdivide_smooth(vertices, topology), topology.quads
        assert len(vertices) - len(unique_edges(quads)) + len(quads) == 2
        assert volume(vertices, quads) > 0
        steps.append(vertices[:8])
    # Halstead, Kass, DeRose 1993: (n^2 v + 4 sum of edge neighbours + sum of diagonals) / (n (n + 5)) = v / 2 here.
    errors = [np.abs(s - CUBE / 2).max() for s in steps]
    assert all(b < 0.5 * a for a, b in zip(errors, errors[1:]))
    assert errors[-1] < 2e-3


def test_fine_quads_come_in_fours_with_the_coarse_corner_first():
    topology = subdivision(CUBE_QUADS, 8)
    np.testing.assert_array_equal(topology.quads[:, 0], CUBE_QUADS.reshape(-1))
    np.testing.assert_array_equal(topology.quads[:, 2], np.repeat(8 + 12 + np.arange(6), 4))
    middles = topology.edges[topology.quads[:, 1] - 8]
    following = np.roll(CUBE_QUADS, -1, axis=1).reshape(-1)
    np.testing.assert_array_equal(middles, np.sort(np.stack([CUBE_QUADS.reshape(-1), following], 1), axis=1))


def test_border_depends_on_the_border_alone():
    vertices, quads = grid(4, 5)
    topology = subdivision(quads, len(vertices))
    moved = vertices.copy()
    moved[[6, 7, 8, 11, 12, 13]] += [0.3, -0.2, 5.0]
    before, after = subdivide_smooth(vertices, topology), subdivide_smooth(moved, topology)
    rim = np.flatnonzero(topology.edge_faces[:, 1] < 0)
    outer = np.unique(topology.edges[rim])
    np.testing.assert_array_equal(before[outer], after[outer])
    np.testing.assert_array_equal(before[len(vertices) + rim], after[len(vertices) + rim])
    np.testing.assert_allclose(before[2], [2, 0, 0])
    np.testing.assert_allclose(before[0], [0.125, 0.125, 0])


def test_regular_interior_of_a_plane_stays_where_it_is():
    vertices, quads = grid(5, 5)
    fine = subdivide_smooth(vertices, subdivision(quads, 25))
    np.testing.assert_allclose(fine[[6, 7, 8, 11, 12, 13, 16, 17, 18]], vertices[[6, 7, 8, 11, 12, 13, 16, 17, 18]])
    assert np.abs(fine[:, 2]).max() == 0


def test_subdivision_is_linear_and_keeps_constants():
    topology = subdivision(CUBE_QUADS, 9)
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 9, 4))
    for rule in (subdivide_smooth, subdivide_flat):
        np.testing.assert_allclose(rule(2 * a - 3 * b, topology), 2 * rule(a, topology) - 3 * rule(b, topology))
        np.testing.assert_allclose(rule(np.ones((9, 1)), topology), 1)


def test_a_vertex_without_quads_stays():
    vertices = np.vstack([CUBE, [7.0, 8.0, 9.0]])
    np.testing.assert_array_equal(subdivide_smooth(vertices, subdivision(CUBE_QUADS, 9))[8], [7, 8, 9])


def test_flat_rule_takes_midpoints():
    vertices, quads = grid(2, 2)
    fine = subdivide_flat(vertices, subdivision(quads, 4))
    np.testing.assert_array_equal(fine[:4], vertices)
    np.testing.assert_array_equal(sorted(map(tuple, fine[4:8, :2])), [(0, 0.5), (0.5, 0), (0.5, 1), (1, 0.5)])
    np.testing.assert_array_equal(fine[8, :2], [0.5, 0.5])


def test_triangles_of_a_quad_are_neighbours_with_its_winding():
    triangles = triangles_from_quads(np.array([[0, 1, 2, 3], [4, 5, 6, 7]]))
    np.testing.assert_array_equal(triangles[2:], [[4, 5, 6], [4, 6, 7]])
    assert volume(CUBE, CUBE_QUADS) == pytest.approx(8)


def sphere(steps=4):
    vertices, quads = CUBE, CUBE_QUADS
    for _ in range(steps):
        topology = subdivision(quads, len(vertices))
        vertices, quads = subdivide_flat(vertices, topology), topology.quads
        vertices = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    return torch.from_numpy(vertices), torch.from_numpy(triangles_from_quads(quads))


def test_normals_of_a_sphere_point_outward():
    vertices, faces = sphere()
    normals = vertex_normals(vertices, faces)
    assert (normals * vertices).sum(-1).min() > np.cos(np.deg2rad(3))
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(vertices), dtype=torch.float64))
    torch.testing.assert_close(vertex_normals(vertices, faces.flip(1)), -normals)
    assert face_normals(vertices, faces).norm(dim=-1).sum() / 2 == pytest.approx(4 * np.pi, rel=0.02)


def test_normals_take_batches_and_survive_degenerate_triangles():
    vertices, faces = sphere(1)
    batch = torch.stack([vertices, 2 * vertices + 1, vertices * 0])
    normals = vertex_normals(batch, faces)
    torch.testing.assert_close(normals[1], normals[0])
    assert normals[2].abs().max() == 0


def test_normals_have_the_right_gradient():
    vertices, faces = sphere(1)
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, faces), vertices.requires_grad_(), fast_mode=True)


def test_unique_edges_of_a_cube():
    edges = unique_edges(CUBE_QUADS)
    assert len(edges) == 12 and (edges[:, 0] < edges[:, 1]).all()


def slow_normals(vertices, faces):
    total = torch.zeros_like(vertices)
    for a, b, c in faces.tolist():
        normal = torch.linalg.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
        for corner in (a, b, c):
            total = total.index_add(0, torch.tensor([corner]), normal[None])
    return torch.nn.functional.normalize(total, dim=-1, eps=1e-12)


@pytest.mark.parametrize("fan", [5, 40])
def test_vertex_normals_and_their_gradients_equal_adding_one_by_one(fan):
    """A narrow fan is gathered, a wide one added up; a vertex of no triangle has no normal."""
    generator = torch.Generator().manual_seed(fan)
    ring = torch.arange(1, fan + 1)
    faces = torch.stack([torch.zeros_like(ring), ring, ring.roll(-1)], dim=1)
    vertices = torch.randn(fan + 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(fan + 2, 3, generator=generator, dtype=torch.float64)
    found, wanted = vertex_normals(vertices, faces), slow_normals(vertices, faces)
    torch.testing.assert_close(found, wanted)
    assert not found[-1].any()
    gradients = [torch.autograd.grad((n * weights).sum(), vertices)[0] for n in (found, wanted)]
    torch.testing.assert_close(*gradients)
    batch = torch.stack([vertices, vertices * 2 + 1])
    torch.testing.assert_close(vertex_normals(batch, faces), torch.stack([wanted, wanted]))


def test_vertex_normals_follow_faces_that_change():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    faces = torch.tensor([[0, 1, 2]])
    assert vertex_normals(vertices, faces)[0, 2] == 1
    faces.copy_(torch.tensor([[0, 2, 1]]))
    assert vertex_normals(vertices, faces)[0, 2] == -1
