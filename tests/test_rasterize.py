"""The rasterizer: the same cases on every backend, values against oracles, gradients, and messages."""

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import pytorch3d_stand_in
import torch

from faceverse.errors import ParameterError
from faceverse.graphics.rasterize import (
    BACKENDS,
    Fragments,
    choose_backend,
    interpolate,
    pytorch3d_works_on,
    rasterize,
)

ROOT = Path(__file__).resolve().parent.parent
HAS_PYTORCH3D = importlib.util.find_spec("pytorch3d") is not None
needs_pytorch3d = pytest.mark.skipif(not HAS_PYTORCH3D, reason="pytorch3d is not installed (docs/backends.md)")
TRIANGLE = torch.tensor([[0, 1, 2]])


@pytest.fixture
def stand_in(monkeypatch):
    """`import pytorch3d` gives the stand-in."""
    names = {"pytorch3d": None, "pytorch3d.renderer": "rasterize_meshes", "pytorch3d.structures": "Meshes"}
    for name, attribute in names.items():
        module = types.ModuleType(name)
        if attribute:
            setattr(module, attribute, getattr(pytorch3d_stand_in, attribute))
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(params=["naive", "numba", "stand-in", pytest.param("pytorch3d", marks=needs_pytorch3d)])
def backend(request):
    """Every backend by name; pytorch3d twice, as a stand-in that every machine has, and the real one."""
    if request.param != "stand-in":
        return request.param
    request.getfixturevalue("stand_in")
    return "pytorch3d"


def scene(*points, dtype=torch.float64):
    """Vertices (1, V, 3) from (x_px, y_px, depth) points."""
    return torch.tensor([points], dtype=dtype)


def rotate_corners(faces, times):
    return torch.roll(faces, times, dims=1)


def patch(rows, columns, size_px, depth, dtype=torch.float64):
    """A jittered grid of triangles over [-size/4, 5/4 size] pixels: vertices (1, V, 3), faces (F, 3)."""
    generator = torch.Generator().manual_seed(0)
    span = torch.linspace(-0.25, 1.25, rows, dtype=dtype) * size_px, torch.linspace(-0.25, 1.25, columns) * size_px
    y, x = torch.meshgrid(span[0], span[1].to(dtype), indexing="ij")
    jitter = (torch.rand(2, rows, columns, generator=generator, dtype=dtype) - 0.5) * 0.3 * size_px / rows
    vertices = torch.stack((x + jitter[0], y + jitter[1], torch.full_like(x, depth)), -1).reshape(1, -1, 3)
    corner = torch.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]
    faces = torch.cat((torch.stack((a, b, c), -1).reshape(-1, 3), torch.stack((a, c, d), -1).reshape(-1, 3)))
    return vertices, faces


@pytest.mark.parametrize("image_size", [(12, 12), (9, 17), (17, 9)])
def test_single_triangle_matches_a_linear_solve(backend, image_size):
    points = np.array([[1.3, 0.7, 0.5], [2.1, 8.2, 0.9], [8.4, 4.9, 1.7]])
    fragments = rasterize(torch.tensor(points)[None], TRIANGLE, image_size, backend=backend)
    system = np.vstack((points[:, :2].T, np.ones(3)))
    for i in range(image_size[0]):
        for j in range(image_size[1]):
            flat = np.linalg.solve(system, (j + 0.5, i + 0.5, 1))
            assert np.abs(flat).min() > 1e-6, "the oracle needs pixel centres off the edges"
            weights = flat / points[:, 2] / (flat / points[:, 2]).sum()
            inside = flat.min() > 0
            assert fragments.triangle[0, i, j] == (0 if inside else -1)
            expected = weights if inside else np.zeros(3)
            np.testing.assert_allclose(fragments.barycentric[0, i, j], expected, atol=1e-9)
            np.testing.assert_allclose(fragments.depth[0, i, j], expected @ points[:, 2], atol=1e-9)
    assert 20 < fragments.mask.sum() < 40


def test_top_left_rule_on_edges_through_pixel_centres(backend):
    square = scene((0.5, 0.5, 1), (8.5, 0.5, 1), (8.5, 8.5, 1), (0.5, 8.5, 1))
    expected = torch.zeros(10, 10, dtype=torch.int64)
    expected[:8, :8] = 1
    for faces in ([[0, 1, 2], [0, 2, 3]], [[2, 1, 0], [0, 2, 3]], [[0, 1, 3], [3, 1, 2]], [[1, 3, 0], [1, 3, 2]]):
        hits = sum(rasterize(square, torch.tensor([face]), (10, 10), backend=backend).mask[0].long() for face in faces)
        assert torch.equal(hits, expected)


def test_fan_around_a_pixel_centre_hits_it_once(backend):
    angles = torch.linspace(0, 2 * torch.pi, 8)[:-1]
    ring = torch.stack((5.5 + 4 * angles.cos(), 5.5 + 4 * angles.sin(), torch.ones(7)), 1)
    vertices = torch.cat((torch.tensor([[5.5, 5.5, 1.0]]), ring))[None]
    faces = [[0, i + 1, (i + 1) % 7 + 1] for i in range(7)]
    hits = sum(rasterize(vertices, torch.tensor([face]), (11, 11), backend=backend).mask[0].long() for face in faces)
    assert hits[5, 5] == 1 and hits.max() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mesh_has_no_hole_and_no_double_hit(backend, dtype):
    vertices, faces = patch(6, 6, 16, 1.0, dtype)
    hits = sum(rasterize(vertices, face[None], (16, 16), backend=backend).mask[0].long() for face in faces)
    assert torch.equal(hits, torch.ones(16, 16, dtype=torch.int64))
    assert rasterize(vertices, faces, (16, 16), backend=backend).mask.all()


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_nearer_triangle_hides_the_farther(backend, order):
    vertices = scene((-9, -9, 2), (-9, 40, 2), (40, -9, 2), (2.2, 2.3, 1), (2.2, 7.1, 1), (7.3, 2.2, 1))
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])[order]
    fragments = rasterize(vertices, faces, (10, 10), backend=backend)
    assert fragments.triangle[0, 3, 3] == order.index(1) and fragments.triangle[0, 9, 9] == order.index(0)
    assert fragments.depth[0, 3, 3] == pytest.approx(1) and fragments.depth[0, 9, 9] == pytest.approx(2)


def test_intersecting_triangles_are_split_where_their_depths_cross(backend):
    vertices = scene((-50, -50, 1), (-50, 100, 1), (100, -50, 1), (-50, -50, 0.8), (-50, 100, 0.8), (100, -50, 1.4))
    fragments = rasterize(vertices, torch.tensor([[0, 1, 2], [3, 4, 5]]), (6, 6), backend=backend)
    # 1 / depth of the tilted one is linear in x: 1 / 0.8 at x = -50, 1 / 1.4 at x = 100; it is 1 at x = 20.
    assert (fragments.triangle == 1).all()
    moved = vertices - torch.tensor([17.0, 0, 0], dtype=torch.float64)
    fragments = rasterize(moved, torch.tensor([[0, 1, 2], [3, 4, 5]]), (6, 6), backend=backend)
    assert (fragments.triangle[..., :3] == 1).all() and (fragments.triangle[..., 3:] == 0).all()


@pytest.mark.parametrize("times", [0, 1, 2])
def test_equal_depth_goes_to_the_lowest_index(backend, times):
    vertices = scene((0.3, 0.4, 0.5), (9.7, 0.9, 0.8), (3.3, 8.8, 1.1))
    for second in (rotate_corners(TRIANGLE, times), rotate_corners(TRIANGLE.flip(1), times)):
        fragments = rasterize(vertices, torch.cat((TRIANGLE, second)), (10, 10), backend=backend)
        assert (fragments.triangle[fragments.mask] == 0).all() and fragments.mask.any()


def test_attributes_are_perspective_correct(backend):
    # A strip that recedes from depth 1 at x = 0 to depth 3 at x = 8. At the pixel centre x = 4.5 the share of the far
    # side is (4.5 / 8 / 3) / (3.5 / 8 / 1 + 4.5 / 8 / 3) = 0.3, not 4.5 / 8.
    vertices = scene((0, -20, 1), (0, 20, 1), (8, -20, 3), (8, 20, 3))
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]])
    share = torch.tensor([[0.0], [0], [1], [1]], dtype=torch.float64)[None]
    fragments = rasterize(vertices, faces, (8, 9), backend=backend)
    image = interpolate(fragments, share, faces)
    assert image.shape == (1, 8, 9, 1)
    torch.testing.assert_close(image[0, :, 4, 0], torch.full((8,), 0.3, dtype=torch.float64))
    torch.testing.assert_close(fragments.depth[0, :, 4], torch.full((8,), 1.6, dtype=torch.float64))
    assert not image[0, :, 8].any() and not fragments.mask[0, :, 8].any()


def test_batch_equals_one_by_one(backend):
    generator = torch.Generator().manual_seed(3)
    vertices = torch.rand(3, 12, 3, generator=generator) * torch.tensor([14.0, 10, 1]) + torch.tensor([0, 0, 0.5])
    faces = torch.randint(0, 12, (9, 3), generator=generator)
    attributes = torch.rand(3, 12, 2, generator=generator)
    together = rasterize(vertices, faces, (10, 14), backend=backend)
    image = interpolate(together, attributes, faces)
    shared = interpolate(together, attributes[:1], faces)
    for n in range(3):
        alone = rasterize(vertices[n : n + 1], faces, (10, 14), backend=backend)
        assert alone.mask.any()
        for name in ("triangle", "barycentric", "depth"):
            assert torch.equal(getattr(together, name)[n], getattr(alone, name)[0])
        assert torch.equal(image[n], interpolate(alone, attributes[n : n + 1], faces)[0])
        assert torch.equal(shared[n], interpolate(alone, attributes[:1], faces)[0])


UNSEEN = {
    "left of the image": ((-9, 1, 1), (-9, 8, 1), (-0.1, 4, 1)),
    "below the image": ((1, 10.1, 1), (8, 10.1, 1), (4, 90, 1)),
    "between pixel centres": ((3.6, 3.6, 1), (3.6, 4.4, 1), (4.4, 3.6, 1)),
    "behind the camera": ((1, 1, -1), (1, 8, -1), (8, 1, -1)),
    "one corner behind": ((1, 1, 1), (1, 8, 1), (8, 1, -1)),
    "at the camera": ((1, 1, 1), (1, 8, 1), (8, 1, 1e-3)),
    "a point": ((5.5, 5.5, 1), (5.5, 5.5, 1), (5.5, 5.5, 1)),
    "a line": ((1.5, 1.5, 1), (3.5, 3.5, 1), (8.5, 8.5, 1)),
    "nearly a line": ((1.5, 1.5, 1), (3.5, 3.5 + 1e-8, 1), (8.5, 8.5, 1)),
    "x is not a number": ((float("nan"), 1, 1), (1, 8, 1), (8, 1, 1)),
    "depth is not a number": ((1, 1, float("nan")), (1, 8, 1), (8, 1, 1)),
    "y is infinite": ((1, 1, 1), (1, float("inf"), 1), (8, 1, 1)),
    "x is minus infinite": ((float("-inf"), 1, 1), (1, 8, 1), (8, 1, 1)),
    "depth is infinite": ((1, 1, float("inf")), (1, 8, 1), (8, 1, 1)),
    "area overflows": ((-1e200, -1e200, 1), (0, 1e200, 1), (1e200, 0, 1)),
}


@pytest.mark.parametrize("points", UNSEEN.values(), ids=UNSEEN.keys())
def test_unseen_triangles_leave_the_rest_intact(backend, points):
    fragments = rasterize(scene(*points), TRIANGLE, (10, 10), backend=backend)
    assert not fragments.mask.any() and not fragments.barycentric.any() and not fragments.depth.any()
    with_backdrop = scene(*points, (-50, -50, 4), (-50, 90, 4), (90, -50, 4))
    with_backdrop.requires_grad_()
    fragments = rasterize(with_backdrop, torch.tensor([[0, 1, 2], [3, 4, 5]]), (10, 10), backend=backend)
    assert (fragments.triangle == 1).all()
    fragments.barycentric.square().sum().backward()
    assert torch.isfinite(with_backdrop.grad).all() and with_backdrop.grad.any()


def test_backfaces_are_drawn_unless_culled(backend):
    # Counter-clockwise on the screen (y down): from the top to the bottom left to the bottom right.
    vertices = scene((5.1, 1.2, 1), (1.3, 8.1, 1), (8.7, 8.4, 1))
    seen = rasterize(vertices, TRIANGLE, (10, 10), backend=backend).mask
    assert torch.equal(rasterize(vertices, TRIANGLE.flip(1), (10, 10), backend=backend).mask, seen) and seen.any()
    assert torch.equal(rasterize(vertices, TRIANGLE, (10, 10), backend=backend, cull_backfaces=True).mask, seen)
    assert not rasterize(vertices, TRIANGLE.flip(1), (10, 10), backend=backend, cull_backfaces=True).mask.any()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("cull_backfaces", [False, True])
def test_backends_agree_on_random_meshes(backend, seed, cull_backfaces):
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(2, 40, 3, generator=generator) * torch.tensor([30.0, 24, 1]) - torch.tensor([3.0, 2, 0.1])
    if seed % 2:
        vertices[..., :2] = vertices[..., :2].round() + 0.5
    faces = torch.randint(0, 40, (50, 3), generator=generator)
    image_size = [(20, 24), (24, 20), (22, 22)][seed % 3]
    ours, slow = (rasterize(vertices, faces, image_size, backend=name, cull_backfaces=cull_backfaces)
                  for name in (backend, "naive"))
    assert torch.equal(ours.triangle, slow.triangle) and ours.mask.any() and not ours.mask.all()
    torch.testing.assert_close(ours.barycentric.sum(-1), ours.mask.float())
    assert ours.barycentric.min() > -1e-4


@pytest.mark.parametrize("image_size", [(16, 40), (40, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backends_agree_on_thousands_of_small_triangles(backend, image_size, dtype):
    vertices, faces = patch(40, 40, 40, 1.0, dtype)
    vertices[..., 2] += 0.2 * torch.sin(vertices[..., 0] / 3) * torch.cos(vertices[..., 1] / 4)
    vertices = torch.cat((vertices, vertices + torch.tensor([0.3, 0.2, 0.01], dtype=dtype)), 1)
    faces = torch.cat((faces, faces + vertices.shape[1] // 2))
    ours, numba = (rasterize(vertices, faces, image_size, backend=name) for name in (backend, "numba"))
    assert len(faces) > 6000 and ours.mask.all() and torch.equal(ours.triangle, numba.triangle)


@pytest.mark.parametrize("far_px", [1e2, 1e4, 1e6])
def test_triangles_far_wider_than_the_picture(backend, far_px):
    far = [(-far_px, -far_px, 1), (far_px, -far_px, 1), (far_px, far_px, 1), (-far_px, far_px, 1)]
    vertices = scene(*far, (8.3, 7.7, 0.8))
    faces = torch.tensor([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
    ours, slow = (rasterize(vertices, faces, (16, 17), backend=name) for name in (backend, "naive"))
    assert ours.mask.all() and torch.equal(ours.triangle, slow.triangle) and len(ours.triangle.unique()) == 4


def test_a_quad_has_no_gap_along_its_diagonal(backend):
    # Every pixel centre of the diagonal lies exactly on the shared edge.
    vertices = scene((0, 0, 1), (16, 0, 1), (16, 16, 1), (0, 16, 1), dtype=torch.float32)
    fragments = rasterize(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), (16, 16), backend=backend)
    row, column = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    assert torch.equal(fragments.triangle[0], (column < row).long())


@needs_pytorch3d
@pytest.mark.parametrize("image_size", [(20, 20), (20, 31), (31, 20)])
def test_stand_in_answers_like_pytorch3d(image_size):
    from pytorch3d.renderer import rasterize_meshes
    from pytorch3d.structures import Meshes

    vertices = torch.rand(40, 3) * torch.tensor([3.0, 3, 1]) + torch.tensor([-1.5, -1.5, 0.5])
    faces = torch.randint(0, 40, (30, 3))
    options = {"blur_radius": 1e-3, "faces_per_pixel": 5, "perspective_correct": True, "clip_barycentric_coords": True}
    options["max_faces_per_bin"] = 30
    theirs = rasterize_meshes(Meshes([vertices], [faces]), image_size, **options)
    ours = pytorch3d_stand_in.rasterize_meshes(pytorch3d_stand_in.Meshes([vertices], [faces]), image_size, **options)
    assert torch.equal(ours[0], theirs[0]) and (ours[0] >= 0).any() and (ours[0] < 0).any()
    assert (ours[3] > 0).any() and (ours[3] < 0).any()
    for mine, real in zip(ours[1:], theirs[1:]):
        torch.testing.assert_close(mine, real, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("device_type", "variable", "works", "expected"),
    [
        ("cpu", "", True, "numba"),
        ("cpu", "pytorch3d", False, "pytorch3d"),
        ("gpu", "", True, "pytorch3d"),
        ("gpu", "", False, "numba"),
        ("gpu", "auto", True, "pytorch3d"),
        ("gpu", "numba", True, "numba"),
        ("gpu", " naive ", True, "naive"),
    ],
)
def test_auto_is_the_variable_or_what_suits_the_device(device_type, variable, works, expected):
    asked = []
    assert choose_backend(device_type, variable, lambda kind: asked.append(kind) or works) == expected
    # Asking imports pytorch3d, so it is not asked for nothing.
    assert asked == (["gpu"] if device_type == "gpu" and variable in ("", "auto") else [])


def test_variable_with_a_wrong_name_lists_the_right_ones(monkeypatch):
    monkeypatch.setenv("FACEVERSE_RASTERIZER", "opengl")
    square = scene((1, 1, 1), (1, 8, 1), (8, 1, 1)), TRIANGLE, (4, 4)
    names = "FACEVERSE_RASTERIZER is 'opengl'; use one of 'auto', 'numba', 'naive', 'pytorch3d'"
    with pytest.raises(ParameterError, match=names):
        rasterize(*square)
    assert rasterize(*square, backend="numba").mask.any()


def test_variable_reaches_render_head(monkeypatch, toy_model):
    from faceverse.graphics.camera import default_camera
    from faceverse.rendering.render import render_head

    monkeypatch.delenv("FACEVERSE_RASTERIZER", raising=False)
    calls = []

    def spy(vertices_px, faces, size, cull_backfaces):
        calls.append(size)
        return torch.zeros(len(vertices_px), *size, dtype=torch.int64)

    monkeypatch.setitem(BACKENDS, "pytorch3d", spy)
    vertices, faces = torch.tensor(toy_model.mean_vertices)[None], torch.tensor(toy_model.faces).long()
    pose = torch.eye(3)[None], torch.tensor([[0, 0, -0.6]]), torch.ones(1, 9, 3), default_camera((6, 8))
    render_head(vertices, torch.ones_like(vertices), faces, *pose)
    assert not calls
    render_head(vertices, torch.ones_like(vertices), faces, *pose, backend="pytorch3d")
    monkeypatch.setenv("FACEVERSE_RASTERIZER", "pytorch3d")
    render_head(vertices, torch.ones_like(vertices), faces, *pose)
    assert calls == [(6, 8), (6, 8)]


@pytest.fixture
def fresh_probe():
    pytorch3d_works_on.cache_clear()
    yield
    pytorch3d_works_on.cache_clear()


def test_one_triangle_tells_whether_pytorch3d_works(monkeypatch, fresh_probe, stand_in):
    assert pytorch3d_works_on("cpu") and not pytorch3d_works_on("meta")
    pytorch3d_works_on.cache_clear()
    monkeypatch.setitem(sys.modules, "pytorch3d.renderer", None)
    assert not pytorch3d_works_on("cpu")


@pytest.mark.parametrize("error", ["Not compiled with GPU support", "out of memory"])
def test_build_without_the_device_says_so(monkeypatch, fresh_probe, stand_in, error):
    def refuse(*arguments, **options):
        raise RuntimeError(error)

    monkeypatch.setattr(sys.modules["pytorch3d.renderer"], "rasterize_meshes", refuse)
    assert not pytorch3d_works_on("cpu")
    kind, message = (ParameterError, "build of pytorch3d.*numba") if "GPU" in error else (RuntimeError, error)
    with pytest.raises(kind, match=message):
        rasterize(scene((1, 1, 1), (1, 8, 1), (8, 1, 1)), TRIANGLE, (4, 4), backend="pytorch3d")


def test_auto_is_numba_and_int32_faces_are_the_same(backend):
    vertices, faces = patch(5, 5, 12, 0.6)
    first = rasterize(vertices, faces, (12, 12))
    for name, indices in (("numba", faces), (backend, faces.int()), ("auto", faces.int())):
        other = rasterize(vertices, indices, (12, 12), backend=name)
        assert torch.equal(first.triangle, other.triangle)
        torch.testing.assert_close(first.barycentric, other.barycentric)
    image = interpolate(first, vertices, faces)
    assert torch.equal(image, interpolate(first, vertices, faces.int()))


def test_interpolated_screen_positions_are_the_pixel_centres():
    # x / depth and 1 / depth interpolate to x / depth and 1 / depth of the pixel: an identity over the whole chain.
    generator = torch.Generator().manual_seed(5)
    vertices, faces = patch(7, 7, 16, 1.0)
    vertices[..., 2] += torch.rand(vertices.shape[:2], generator=generator, dtype=torch.float64)
    fragments = rasterize(vertices, faces, (16, 16))
    position = interpolate(fragments, torch.cat((vertices[..., :2] * vertices[..., 2:], vertices[..., 2:]), -1), faces)
    centre = torch.arange(16, dtype=torch.float64) + 0.5
    torch.testing.assert_close(position[..., 0] / position[..., 2], centre.expand(1, 16, 16))
    torch.testing.assert_close(position[..., 1] / position[..., 2], centre[:, None].expand(1, 16, 16))
    torch.testing.assert_close(position[..., 2], fragments.depth)


def test_interpolate_takes_a_second_index_array():
    vertices, faces = patch(5, 5, 12, 0.6)
    fragments = rasterize(vertices, faces, (12, 12))
    values = torch.rand(1, len(faces) * 3, 2, dtype=torch.float64)
    own_corners = torch.arange(len(faces) * 3).reshape(-1, 3)
    image = interpolate(fragments, values, own_corners)
    expected = (values[0][own_corners[fragments.triangle]] * fragments.barycentric[..., None]).sum(-2)
    torch.testing.assert_close(image, expected)


def test_no_triangle_and_no_picture_of_any(backend):
    vertices = scene((1, 1, 1), (1, 8, 1), (8, 1, 1))
    none = torch.zeros(0, 3, dtype=torch.int64)
    fragments = rasterize(vertices, none, (4, 5), backend=backend)
    assert not fragments.mask.any() and fragments.depth.shape == (1, 4, 5)
    assert interpolate(fragments, torch.rand(1, 3, 2), none).shape == (1, 4, 5, 2)
    assert rasterize(vertices[:0], TRIANGLE, (4, 5), backend=backend).barycentric.shape == (0, 4, 5, 3)


@pytest.mark.parametrize("batch", [1, 2])
def test_gradcheck(backend, batch):
    generator = torch.Generator().manual_seed(1)
    vertices, faces = patch(4, 4, 5, 0.7)
    vertices = vertices + 0.2 * torch.rand(batch, *vertices.shape[1:], generator=generator, dtype=torch.float64)
    attributes = torch.rand(batch, vertices.shape[1], 2, generator=generator, dtype=torch.float64)

    def image_and_depth(vertices, attributes):
        fragments = rasterize(vertices, faces, (5, 6), backend=backend)
        return interpolate(fragments, attributes, faces), fragments.depth

    assert rasterize(vertices, faces, (5, 6), backend=backend).mask.sum() > 20
    assert torch.autograd.gradcheck(image_and_depth, (vertices.requires_grad_(), attributes.requires_grad_()))
    shared = attributes[:1].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda value: image_and_depth(vertices.detach(), value)[0], (shared,))


def test_no_graph_without_gradients():
    vertices, faces = patch(4, 4, 5, 0.7)
    assert not rasterize(vertices, faces, (5, 5)).barycentric.requires_grad
    assert rasterize(vertices.requires_grad_(), faces, (5, 5)).barycentric.requires_grad


def test_gradient_descent_recovers_a_translation():
    vertices, faces = patch(14, 14, 32, 0.6, torch.float32)
    phase = vertices[..., :2] * (2 * torch.pi / 24)
    texture = torch.cat((phase.sin(), phase.cos()), -1)
    truth = torch.tensor([2.3, -1.7, 0.0])

    def photograph(shift):
        return interpolate(rasterize(vertices + shift, faces, (32, 32)), texture, faces)

    target = photograph(truth)
    shift = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([shift], lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        (photograph(shift) - target).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(shift.detach()[:2], truth[:2], atol=0.02, rtol=0)


def test_wrong_arguments_are_named():
    vertices, faces = scene((1, 1, 1), (1, 8, 1), (8, 1, 1)), TRIANGLE
    cases = [
        ((vertices[0], faces, (4, 4)), r"shape \(3, 3\); expected \(N, V, 3\)"),
        ((vertices[..., :2], faces, (4, 4)), r"shape \(1, 3, 2\)"),
        ((vertices.half(), faces, (4, 4)), "float16; expected float32 or float64"),
        ((vertices, faces[0], (4, 4)), r"faces have shape \(3,\); expected \(F, 3\)"),
        ((vertices, faces.double(), (4, 4)), "float64; expected int64 or int32"),
        ((vertices, faces + 1, (4, 4)), "indices 1..3, but there are 3 vertices"),
        ((vertices, faces - 1, (4, 4)), "indices -1..1"),
        ((vertices, faces, 4), "image_size is 4; expected"),
        ((vertices, faces, (4, 4, 3)), "image_size is"),
        ((vertices, faces, (0, 4)), "at least 1 pixel"),
    ]
    for arguments, message in cases:
        with pytest.raises(ParameterError, match=message):
            rasterize(*arguments)
    with pytest.raises(ParameterError, match='backend is .opengl.; use one of .auto., .numba., .naive., .pytorch3d.'):
        rasterize(vertices, faces, (4, 4), backend="opengl")
    fragments = rasterize(vertices.expand(2, -1, -1), faces, (4, 4))
    for attributes in (torch.rand(3, 3, 2), torch.rand(3, 2)):
        with pytest.raises(ParameterError, match=r"expected \(2 or 1, V, C\)"):
            interpolate(fragments, attributes, faces)
    with pytest.raises(ParameterError, match="but there are 2 vertices"):
        interpolate(fragments, torch.rand(1, 2, 2), faces)
    other = Fragments(fragments.triangle + 1, fragments.barycentric, fragments.depth)
    with pytest.raises(ParameterError, match="1 triangles.*at least 2"):
        interpolate(other, torch.rand(1, 3, 2), faces)


@pytest.mark.parametrize(
    ("name", "module"), [("numba", "faceverse.graphics._raster_kernel"), ("pytorch3d", "pytorch3d.structures")]
)
def test_missing_backend_says_what_to_install(monkeypatch, stand_in, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ParameterError, match=f"(?i){name}.*install"):
        rasterize(scene((1, 1, 1), (1, 8, 1), (8, 1, 1)), TRIANGLE, (4, 4), backend=name)


@pytest.mark.parametrize(
    "code",
    [
        'raise ImportError("libc10_gpu.so: cannot open shared object file")',
        'raise ImportError("_C.so: undefined symbol:\\n  _ZN3c10")',
        'raise OSError("libcudart.so.13: cannot open shared object file")',
        "import a_package_that_is_not_there",
    ],
)
def test_pytorch3d_that_does_not_load_says_so_in_one_line(monkeypatch, tmp_path, code):
    for name in [name for name in sys.modules if name.split(".")[0] == "pytorch3d"]:
        monkeypatch.delitem(sys.modules, name)
    package = tmp_path / "pytorch3d"
    package.mkdir()
    (package / "__init__.py").write_text(code + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ParameterError, match="installed but does not load.*docs/backends.md.*numba") as caught:
        rasterize(scene((1, 1, 1), (1, 8, 1), (8, 1, 1)), TRIANGLE, (4, 4), backend="pytorch3d")
    assert "\n" not in str(caught.value)


def test_only_what_is_used_is_imported(tmp_path):
    (tmp_path / "pytorch3d.py").write_text("raise SystemExit('pytorch3d was imported')\n")
    code = (
        "import sys, torch; from faceverse.graphics.rasterize import rasterize; assert 'numba' not in sys.modules;"
        "rasterize(torch.ones(1, 3, 3), torch.tensor([[0, 1, 2]]), (4, 4))"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]), FACEVERSE_RASTERIZER="")
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr


def test_kernel_compiles_without_a_writable_cache_folder(monkeypatch):
    import numba

    from faceverse.graphics import _raster_kernel

    compile_plainly = numba.njit

    def refuse_cache(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return compile_plainly(**options)

    monkeypatch.setattr(numba, "njit", refuse_cache)
    assert _raster_kernel.compile_kernel(abs_difference)(2, 5) == 3


def abs_difference(a, b):
    return abs(a - b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_places_are_the_same_with_and_without_gradients(dtype):
    """Without gradients the kernel computes the weights, with them torch does."""
    generator = torch.Generator().manual_seed(5)
    vertices = torch.rand(2, 60, 3, generator=generator, dtype=dtype) * torch.tensor([40.0, 30.0, 1.0], dtype=dtype)
    vertices[..., 2] += 0.3
    faces = torch.randint(0, 60, (50, 3), generator=generator)
    plain = rasterize(vertices, faces, (30, 40))
    tracked = rasterize(vertices.clone().requires_grad_(), faces, (30, 40))
    assert not plain.barycentric.requires_grad and tracked.barycentric.requires_grad and plain.mask.any()
    torch.testing.assert_close(plain.triangle, tracked.triangle)
    tolerance = {"atol": 1e-4, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 1e-10, "rtol": 1e-9}
    torch.testing.assert_close(plain.barycentric, tracked.barycentric.detach(), **tolerance)
    torch.testing.assert_close(plain.depth, tracked.depth.detach(), **tolerance)
