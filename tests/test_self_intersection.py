"""Triangles that cut through each other."""

import numpy as np
import pytest

from faceverse.graphics.mesh import triangles_from_quads
from faceverse.training.self_intersection import intersecting_pairs

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], float)


def sheet(size, height):
    """A square of `size` x `size` vertices 1 apart, lifted by height(x, y)."""
    x, y = np.meshgrid(np.arange(size, dtype=float), np.arange(size, dtype=float), indexing="ij")
    vertices = np.stack([x, y, height(x, y)], axis=-1).reshape(-1, 3)
    first = (np.arange(size - 1)[:, None] * size + np.arange(size - 1)).reshape(-1)
    quads = np.stack([first, first + size, first + size + 1, first + 1], axis=1)
    return vertices, triangles_from_quads(quads)


def test_a_triangle_through_another_is_found_once():
    through = np.array([[0.2, 0.2, -1], [0.3, 0.2, 1], [0.2, 0.3, 1]])
    vertices = np.concatenate([SQUARE, through])
    assert intersecting_pairs(vertices, np.array([[0, 1, 2], [3, 4, 5]])).tolist() == [[0, 1]]
    assert intersecting_pairs(vertices, np.array([[3, 4, 5], [0, 1, 2]])).tolist() == [[0, 1]]


@pytest.mark.parametrize("shift", [(0, 0, 0.01), (2, 0, 0), (0.7, 0.7, 0)])
def test_triangles_apart_are_not_found(shift):
    turned = np.array([[0.2, 0.2, 0.0], [0.2, 0.2, 1], [0.3, 0.2, 1]]) + shift
    assert not len(intersecting_pairs(np.concatenate([SQUARE, turned]), np.array([[0, 1, 2], [3, 4, 5]])))


def test_neighbours_do_not_count_and_neither_do_folds_without_contact():
    vertices, faces = sheet(9, lambda x, y: np.abs(x - 4))
    assert not len(intersecting_pairs(vertices, faces))


def test_a_sheet_through_another_is_cut_along_a_line():
    flat, faces = sheet(9, lambda x, y: 0 * x)
    slope, _ = sheet(9, lambda x, y: x - 3.9)
    pairs = intersecting_pairs(np.concatenate([flat, slope + (0, 0.3, 0)]), np.concatenate([faces, faces + len(flat)]))
    assert len(np.unique(pairs[:, 0])) >= 8 and (pairs[:, 0] < len(faces)).all() and (pairs[:, 1] >= len(faces)).all()
    centre = flat[faces[np.unique(pairs[:, 0])]].mean(axis=1)
    assert np.abs(centre[:, 0] - 3.9).max() < 1.1


def test_one_large_triangle_among_small_ones_is_found():
    vertices, faces = sheet(30, lambda x, y: 0 * x)
    large = np.array([[-50, 10.3, -40], [80, 10.4, -40], [10, 10.5, 60]], float)
    both = np.concatenate([vertices, large]), np.concatenate([faces, len(vertices) + np.array([[0, 1, 2]])])
    pairs = intersecting_pairs(*both)
    assert len(pairs) >= 29 and (pairs[:, 1] == len(faces)).all()


def test_meshes_of_one_face_or_none_are_fine():
    assert intersecting_pairs(SQUARE, np.array([[0, 1, 2]])).shape == (0, 2)
    assert intersecting_pairs(SQUARE, np.zeros((0, 3), int)).shape == (0, 2)
