"""Layers of the rasterizer: the same cases on both backends, the nearest layer against `rasterize`, derivatives."""

import sys

import pytest
import torch

from faceverse.errors import ParameterError
from faceverse.graphics.layers import (
    LAYER_BACKENDS,
    barycentric_derivatives,
    interpolate_layers,
    rasterize_layers,
)
from faceverse.graphics.rasterize import rasterize

TRIANGLE = torch.tensor([[0, 1, 2]])
QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]])


@pytest.fixture(params=sorted(LAYER_BACKENDS))
def backend(request):
    return request.param


def sheets(*depths, dtype=torch.float64):
    """Squares over a picture of 6 x 6 pixels at these depths, one depth or one a corner: vertices (1, V, 3), faces."""
    corners = [(-1, -1), (-1, 7), (7, 7), (7, -1)]
    depths = [depth if isinstance(depth, tuple) else (depth,) * 4 for depth in depths]
    points = [(x, y, z) for depth in depths for (x, y), z in zip(corners, depth)]
    faces = torch.cat([QUAD + 4 * k for k in range(len(depths))])
    return torch.tensor([points], dtype=dtype), faces


def soup(seed, dtype=torch.float32, count=50):
    """Random triangles, half of the cases with corners on pixel centres: vertices (2, 40, 3), faces."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(2, 40, 3, generator=generator).to(dtype)
    vertices = vertices * torch.tensor([30.0, 24, 1], dtype=dtype) - torch.tensor([3.0, 2, 0.1], dtype=dtype)
    if seed % 2:
        vertices[..., :2] = vertices[..., :2].round() + 0.5
    return vertices, torch.randint(0, 40, (count, 3), generator=generator)


def squares_of(layers):
    """(K, H, W) which square of `sheets` is seen, -1 for none."""
    return torch.div(layers.images().triangle[0], 2, rounding_mode="floor")


@pytest.mark.parametrize("order", [(0.5, 0.6, 0.7), (0.7, 0.5, 0.6), (0.6, 0.7, 0.5)])
def test_layers_are_sorted_whatever_the_order_of_the_mesh(backend, order):
    vertices, faces = sheets(*order)
    layers = rasterize_layers(vertices, faces, (6, 6), layers=4, backend=backend)
    images = layers.images()
    assert (layers.hits == 3).all() and images.triangle.shape == (1, 4, 6, 6)
    for k, depth in enumerate(sorted(order)):
        assert (squares_of(layers)[k] == order.index(depth)).all()
        torch.testing.assert_close(images.depth[0, k], torch.full((6, 6), depth, dtype=torch.float64))
    torch.testing.assert_close(images.barycentric[0, :3].sum(-1), torch.ones(3, 6, 6, dtype=torch.float64))
    assert (images.triangle[0, 3] == -1).all() and not images.depth[0, 3].any() and not images.barycentric[0, 3].any()
    assert layers.pixel.tolist() == [pixel for pixel in range(36) for _ in range(3)]
    assert layers.layer.tolist() == [0, 1, 2] * 36 and layers.covered.tolist() == list(range(36))


def test_sheets_that_pass_through_each_other_are_sorted_at_each_pixel(backend):
    # 1 / depth is linear in x. The slanted sheet's is 2.5 at x = -1 and 1.5 at x = 7; the flat one's is 2, at x = 3.
    near, far = 1 / 2.5, 1 / 1.5
    vertices, faces = sheets((near, near, far, far), 0.5)
    squares = squares_of(rasterize_layers(vertices, faces, (6, 6), layers=2, backend=backend))
    expected = torch.tensor([0, 0, 0, 1, 1, 1]).expand(6, 6)
    assert torch.equal(squares[0], expected) and torch.equal(squares[1], 1 - expected)


def test_equal_depths_go_to_the_lowest_index(backend):
    vertices, faces = sheets(0.5, 0.5, 0.5)
    for times in range(3):
        shifted = torch.roll(faces, times, dims=1)
        squares = squares_of(rasterize_layers(vertices, shifted, (6, 6), layers=3, backend=backend))
        assert torch.equal(squares, torch.arange(3)[:, None, None].expand(3, 6, 6))


def test_an_opaque_surface_hides_what_is_behind_it(backend):
    vertices, faces = sheets(0.5, 0.6, 0.7, 0.8)
    opaque = torch.full((1, 6, 6), 0.65, dtype=torch.float64)
    opaque[0, :, 0], opaque[0, :, 1], opaque[0, :, 2] = 0, 0.4, 0.7
    layers = rasterize_layers(vertices, faces, (6, 6), in_front_of=opaque, backend=backend)
    assert torch.equal(layers.hits[0], torch.tensor([4, 0, 2, 2, 2, 2]).expand(6, 6))
    few = rasterize_layers(vertices, faces, (6, 6), layers=1, in_front_of=opaque.float(), backend=backend)
    assert torch.equal(few.hits, layers.hits) and torch.equal(few.incomplete[0], few.hits[0] > 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_surface_does_not_lie_in_front_of_itself(backend, dtype):
    vertices, faces = soup(4, dtype)
    opaque = rasterize(vertices, faces, (20, 24))
    assert opaque.mask.any()
    assert not rasterize_layers(vertices, faces, (20, 24), in_front_of=opaque.depth, backend=backend).hits.any()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cull_backfaces", [False, True])
def test_backends_agree_and_the_nearest_layer_is_what_rasterize_finds(seed, dtype, cull_backfaces):
    vertices, faces = soup(seed, dtype)
    opaque = torch.where(torch.rand(2, 20, 24) < 0.5, 0.5 * torch.rand(2, 20, 24), 0)
    for surface in (None, opaque):
        options = {"layers": 4, "in_front_of": surface, "cull_backfaces": cull_backfaces}
        fast, slow = (rasterize_layers(vertices, faces, (20, 24), **options, backend=name) for name in LAYER_BACKENDS)
        for name in ("hits", "pixel", "triangle", "weights", "depth"):
            assert torch.equal(getattr(fast, name), getattr(slow, name))
        assert fast.incomplete.any() or cull_backfaces
    visible = rasterize(vertices, faces, (20, 24), cull_backfaces=cull_backfaces)
    layers = rasterize_layers(vertices, faces, (20, 24), layers=1, cull_backfaces=cull_backfaces).images()
    for name in ("triangle", "barycentric", "depth"):
        assert torch.equal(getattr(layers, name)[:, 0], getattr(visible, name))


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_behind_the_last_layer(backend, seed):
    vertices, faces = soup(seed)
    whole = rasterize_layers(vertices, faces, (20, 24), layers=50, backend=backend)
    assert whole.hits.max() > 8 and not whole.incomplete.any() and len(whole.pixel) == whole.hits.sum()
    depth = whole.images().depth[:, :-1], whole.images().depth[:, 1:]
    assert (depth[0] <= depth[1] * (1 + 1e-4))[depth[1] > 0].all()
    parts = [
        rasterize_layers(vertices, faces, (20, 24), layers=count, skip=skip, backend=backend)
        for count, skip in ((3, 0), (2, 3), (45, 5))
    ]
    assert torch.equal(torch.cat([part.images().triangle for part in parts], 1), whole.images().triangle)
    assert all(torch.equal(part.hits, whole.hits) for part in parts) and parts[1].layer.unique().tolist() == [3, 4]


def test_parts_keep_pixels_together():
    layers = rasterize_layers(*soup(1), (20, 24))
    parts = list(layers.parts(200))
    assert len(parts) > 5 and all(100 < len(part.pixel) < 208 for part in parts[:-1])
    for name in ("pixel", "triangle", "depth", "layer", "covered", "counts"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(layers, name))
    assert torch.equal(torch.cat([part.weights for part in parts], 1), layers.weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_mesh_covers_each_pixel_once(backend, dtype):
    # All diagonals and borders between quads run through pixel centres.
    y, x = torch.meshgrid(torch.arange(5) * 2 - 0.5, torch.arange(5) * 2 - 0.5, indexing="ij")
    vertices = torch.stack((x, y, torch.ones(5, 5)), -1).reshape(1, -1, 3).to(dtype)
    corner = torch.arange(25).reshape(5, 5)
    a, b, c, d = (corner[i : 4 + i, j : 4 + j].reshape(-1) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1)))
    faces = torch.cat((torch.stack((a, b, c), 1), torch.stack((a, c, d), 1)))
    assert (rasterize_layers(vertices, faces, (7, 7), backend=backend).hits == 1).all()


UNSEEN = {
    "behind the camera": ((1, 1, -1), (1, 8, -1), (8, 1, -1)),
    "one corner behind": ((1, 1, 1), (1, 8, 1), (8, 1, -1)),
    "at the camera": ((1, 1, 1), (1, 8, 1), (8, 1, 1e-3)),
    "left of the image": ((-9, 1, 1), (-9, 8, 1), (-0.1, 4, 1)),
    "a line": ((1.5, 1.5, 1), (3.5, 3.5, 1), (8.5, 8.5, 1)),
    "depth is not a number": ((1, 1, float("nan")), (1, 8, 1), (8, 1, 1)),
    "x is infinite": ((float("inf"), 1, 1), (1, 8, 1), (8, 1, 1)),
}


@pytest.mark.parametrize("points", UNSEEN.values(), ids=UNSEEN.keys())
def test_unseen_triangles_leave_the_rest_intact(backend, points):
    vertices, faces = sheets(0.5)
    vertices = torch.cat((torch.tensor([points], dtype=torch.float64), vertices), 1)
    layers = rasterize_layers(vertices, torch.cat((TRIANGLE, faces + 3)), (6, 6), backend=backend)
    assert (layers.hits == 1).all() and layers.triangle.min() == 1


def test_no_triangle_and_no_picture_of_any(backend):
    vertices, faces = sheets(0.5)
    for layers in (
        rasterize_layers(vertices, faces[:0], (4, 5), backend=backend),
        rasterize_layers(vertices, faces, (4, 5), backend=backend, skip=1),
    ):
        assert len(layers.pixel) == 0 and layers.weights.shape == (3, 0) and layers.layer.shape == (0,)
        assert (layers.images().triangle == -1).all() and layers.images().depth.shape == (1, 8, 4, 5)
        assert interpolate_layers(layers, torch.rand(1, 4, 2), faces).shape == (2, 0)
    assert rasterize_layers(vertices[:0], faces, (4, 5), backend=backend).hits.shape == (0, 4, 5)


def test_values_are_those_of_rasterize_and_follow_second_faces(backend):
    from faceverse.graphics.rasterize import interpolate

    vertices, faces = soup(2)
    attributes = torch.rand(2, 40, 3)
    layers = rasterize_layers(vertices, faces, (20, 24), layers=1, backend=backend)
    visible = interpolate(rasterize(vertices, faces, (20, 24)), attributes, faces)
    torch.testing.assert_close(
        interpolate_layers(layers, attributes, faces), visible.reshape(-1, 3).t()[:, layers.pixel]
    )
    own = torch.arange(len(faces) * 3).reshape(-1, 3)
    split = interpolate_layers(layers, attributes[:1, faces.reshape(-1)], own)
    assert torch.equal(split, interpolate_layers(layers, attributes[:1], faces))


def test_derivatives_are_differences_between_pixels():
    """A slanted square, seen in perspective: the texture coordinate at 1/1000 pixel to the right and below."""
    vertices, faces = sheets((0.4, 0.5, 0.9, 0.7))
    vertices, faces = vertices + torch.tensor([0.1, 0, 0], dtype=torch.float64), faces[:1]
    uv = torch.tensor([[[0.0, 0], [0, 1], [1, 1], [1, 0]]], dtype=torch.float64)
    layers = rasterize_layers(vertices, faces, (6, 6))
    changes = barycentric_derivatives(layers, vertices, faces)
    found = [interpolate_layers(layers, uv, faces, change) for change in changes]
    assert 10 < len(layers.pixel) < 30
    for axis, change in enumerate(found):
        moved = vertices.clone()
        moved[..., axis] -= 1e-3
        after = rasterize_layers(moved, faces, (6, 6))
        assert torch.equal(after.pixel, layers.pixel)
        difference = (interpolate_layers(after, uv, faces) - interpolate_layers(layers, uv, faces)) / 1e-3
        torch.testing.assert_close(change, difference, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_the_same_with_and_without_gradients(dtype):
    vertices, faces = soup(0, dtype)
    plain = rasterize_layers(vertices, faces, (20, 24))
    tracked = rasterize_layers(vertices.clone().requires_grad_(), faces, (20, 24))
    assert not plain.weights.requires_grad and tracked.weights.requires_grad and tracked.depth.requires_grad
    tolerance = {"atol": 1e-4, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 1e-10, "rtol": 1e-9}
    torch.testing.assert_close(plain.weights, tracked.weights.detach(), **tolerance)
    torch.testing.assert_close(plain.depth, tracked.depth.detach(), **tolerance)


def test_gradcheck(backend):
    vertices, faces = sheets((0.4, 0.5, 0.9, 0.7), 0.6)
    vertices = vertices.repeat(2, 1, 1) + 0.1 * torch.rand(2, 8, 3, dtype=torch.float64)

    def values(vertices):
        layers = rasterize_layers(vertices, faces, (4, 4), backend=backend)
        changes = barycentric_derivatives(layers, vertices, faces)
        return layers.depth, interpolate_layers(layers, vertices, faces), *changes

    assert torch.autograd.gradcheck(values, (vertices.requires_grad_(),))


def test_the_variable_names_the_backend(monkeypatch):
    calls = []
    for name, function in list(LAYER_BACKENDS.items()):
        monkeypatch.setitem(LAYER_BACKENDS, name, lambda *a, name=name, f=function: calls.append(name) or f(*a))
    for name in ("", "naive", "pytorch3d"):
        monkeypatch.setenv("FACEVERSE_RASTERIZER", name)
        rasterize_layers(*sheets(0.5), (6, 6))
    assert calls == ["numba", "naive", "numba"]


def test_wrong_arguments_are_named(monkeypatch):
    vertices, faces = sheets(0.5)
    depth = torch.zeros(1, 6, 6)
    cases = [
        ({"vertices_px": vertices[0]}, "expected \\(N, V, 3\\)"),
        ({"faces": faces + 4}, "but there are 4 vertices"),
        ({"image_size": (0, 4)}, "at least 1 pixel"),
        ({"layers": 0}, "layers is 0 and skip is 0"),
        ({"skip": -1}, "skip is -1"),
        ({"in_front_of": depth[0]}, "in_front_of has shape \\(6, 6\\).*shape \\(1, 6, 6\\)"),
        ({"in_front_of": depth.long()}, "dtype torch.int64.*floating-point"),
        ({"backend": "pytorch3d"}, "backend is 'pytorch3d'; use one of 'auto', 'numba', 'naive'"),
    ]
    for options, message in cases:
        with pytest.raises(ParameterError, match=message):
            rasterize_layers(**{"vertices_px": vertices, "faces": faces, "image_size": (6, 6), **options})
    layers = rasterize_layers(vertices, faces, (6, 6))
    with pytest.raises(ParameterError, match="expected \\(1 or 1, V, C\\)"):
        interpolate_layers(layers, torch.rand(2, 4, 2), faces)
    with pytest.raises(ParameterError, match="at least 2"):
        interpolate_layers(layers, torch.rand(1, 4, 2), faces[:1])
    monkeypatch.setitem(sys.modules, "faceverse.graphics._raster_kernel", None)
    with pytest.raises(ParameterError, match="numba.*install"):
        rasterize_layers(vertices, faces, (6, 6))
