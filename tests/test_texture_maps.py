"""Maps in texture space, against the vertices' own texture coordinates."""

import numpy as np
import pytest

from faceverse.errors import ParameterError
from faceverse.model.texture_maps import PADDING_TEXELS, bake_vertices, uv_coverage, uv_fragments


def test_fragments_point_at_the_texel_itself(toy_model):
    size = 96
    fragments = uv_fragments(toy_model, size)
    corners = toy_model.uv[toy_model.uv_faces[fragments.triangle[fragments.covered]]]
    uv = (corners * fragments.barycentric[fragments.covered][..., None]).sum(1)
    row, column = np.nonzero(fragments.covered)
    assert len(row) > size * size / 4
    np.testing.assert_allclose(uv, (np.stack([column, row], 1) + 0.5) / size, atol=1e-5)


def test_coverage_is_the_area_of_the_triangles(toy_model):
    a, b, c = toy_model.uv[toy_model.uv_faces].astype(float).transpose(1, 0, 2)
    area = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).sum() / 2
    coverage = uv_coverage(toy_model, 256)
    assert coverage.shape == (256, 256) and coverage.dtype == bool
    assert coverage.mean() == pytest.approx(area, abs=0.01)


def test_padding_repeats_the_nearest_covered_texel(toy_model):
    size = 128
    fragments = uv_fragments(toy_model, size)
    inside = np.argwhere(fragments.covered)
    outside = np.argwhere(~fragments.covered)
    for place in outside[:: max(1, len(outside) // 200)]:
        distance = np.hypot(*(inside - place).T)
        if distance.min() > PADDING_TEXELS:
            assert fragments.triangle[tuple(place)] == -1
            assert (fragments.barycentric[tuple(place)] == 0).all()
        else:
            nearest = inside[distance == distance.min()]
            candidates = [fragments.triangle[tuple(n)] for n in nearest]
            assert fragments.triangle[tuple(place)] in candidates


def test_a_constant_fills_the_whole_map(toy_model):
    values = np.tile([0.25, -3.0], (len(toy_model.mean_vertices), 1))
    baked = bake_vertices(toy_model, values, 64)
    assert baked.shape == (64, 64, 2) and baked.dtype == np.float32
    np.testing.assert_allclose(baked, np.broadcast_to([0.25, -3.0], baked.shape), atol=1e-5)


def test_bilinear_lookup_gives_the_vertices_back(toy_model):
    """On both sides of every seam: each texture coordinate finds its own vertex's value."""
    size = 512
    values = toy_model.mean_vertices
    baked = bake_vertices(toy_model, values, size)
    owner = np.zeros(len(toy_model.uv), int)
    owner[toy_model.uv_faces] = toy_model.faces
    x, y = (toy_model.uv * size - 0.5).T
    j, i = np.floor(x).astype(int), np.floor(y).astype(int)
    s, t = (x - j)[:, None], (y - i)[:, None]
    top = (1 - s) * baked[i, j] + s * baked[i, j + 1]
    bottom = (1 - s) * baked[i + 1, j] + s * baked[i + 1, j + 1]
    found = (1 - t) * top + t * bottom
    used = np.isin(np.arange(len(owner)), toy_model.uv_faces)
    assert np.linalg.norm(found - values[owner], axis=1)[used].max() < 0.004


def test_map_is_computed_once_and_cannot_be_changed(toy_model):
    assert uv_fragments(toy_model, 32) is uv_fragments(toy_model, 32)
    with pytest.raises(ValueError, match="read-only"):
        uv_fragments(toy_model, 32).triangle[0, 0] = 1


@pytest.mark.parametrize("size", [0, -1, 10000, 3.5, "64", True, None])
def test_silly_sizes(toy_model, size):
    with pytest.raises(ParameterError, match="size must be an integer"):
        uv_fragments(toy_model, size)


@pytest.mark.parametrize("shape", [(3,), (5, 3)])
def test_values_of_the_wrong_shape(toy_model, shape):
    with pytest.raises(ParameterError, match="values must have shape"):
        bake_vertices(toy_model, np.zeros(shape), 32)
