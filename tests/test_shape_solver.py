"""Smallest smooth changes of expressions that reach given figures."""

import numpy as np
import pytest

from faceverse.errors import ParameterError
from faceverse.graphics.mesh import subdivision, unique_edges
from faceverse.training.figure_landmarks import OPPOSITE, landmark_matrix
from faceverse.training.head_regions import mirror_map
from faceverse.training.shape_solver import ALL_FIGURES, ShapeSolver

MIRRORED = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def solver(source):
    head = source.head
    return ShapeSolver(head, subdivision(head.quads, len(head.vertices)), head.vertices)


@pytest.fixture(scope="module")
def everywhere(solver):
    return np.ones(len(solver.mean))


def test_landmarks_mirror_each_other_and_lie_where_the_open_model_has_them(model, source, solver):
    assert (OPPOSITE[OPPOSITE] == np.arange(68)).all()
    np.testing.assert_allclose(solver.neutral[OPPOSITE] * MIRRORED, solver.neutral, atol=1e-9)
    head = source.head
    rows = landmark_matrix(subdivision(head.quads, len(head.vertices)), mirror_map(head.vertices))
    here = rows @ model.data.mean_vertices[: len(head.vertices)]
    landmarks = model.landmarks_68
    there = (model.mean_vertices[model.faces[landmarks.triangle]] * landmarks.barycentric[..., None]).sum(1)
    assert np.abs(here - there).max() < 0.003, "the coarse vertices of the model are those of the source, smoothed"


def test_figures_are_reached_and_the_others_hardly_move(solver, everywhere):
    nothing = np.zeros_like(solver.mean)
    targets = {"left outer brow up": 6.0, "lip gap": 4.0, "upper lip up": 2.0}
    shape = solver.reach(nothing, targets, everywhere)
    found = solver.figures(shape)
    assert all(found[name] == pytest.approx(value, abs=0.02) for name, value in targets.items())
    assert abs(found["chin down"]) < 0.5 and abs(found["nose wing up"]) < 1.2
    assert not shape[~solver.skin].any()


def test_the_change_is_smooth_and_as_large_as_it_must_be(solver, everywhere, source):
    shape = solver.reach(np.zeros_like(solver.mean), {"left outer brow up": 6.0}, everywhere)
    edges = unique_edges(source.head.quads)
    length = np.linalg.norm(np.subtract(*solver.mean[edges.T]), axis=1)
    slope = np.linalg.norm(np.subtract(*shape[edges.T]), axis=1) / np.maximum(length, 1e-4)
    assert slope[length > 5e-4].max() < 0.8, "6 mm over a length of 12 mm"
    assert 0.006 <= np.linalg.norm(shape, axis=1).max() < 0.0075
    wider = solver.reach(np.zeros_like(solver.mean), {"left outer brow up": 6.0}, everywhere, length_m=0.03)
    assert (np.linalg.norm(wider, axis=1) > 1e-3).sum() > 1.5 * (np.linalg.norm(shape, axis=1) > 1e-3).sum()


def test_a_central_shape_stays_symmetric(solver, everywhere):
    targets = {"left outer brow up": 3.0, "left corner up": -2.0, "mouth width": 1.0}
    shape = solver.reach(np.zeros_like(solver.mean), targets, everywhere, symmetric=True)
    np.testing.assert_allclose(shape[solver.mirror] * MIRRORED, shape, atol=1e-12)
    found = solver.figures(shape)
    assert all(found[name] == pytest.approx(value, abs=0.02) for name, value in targets.items())


def test_a_shape_that_has_its_figures_is_kept(solver, everywhere):
    shape = solver.reach(np.zeros_like(solver.mean), {"left corner up": 5.0}, everywhere)
    again = solver.reach(shape, {"left corner up": 5.0, "left corner back": 0.0}, everywhere)
    np.testing.assert_allclose(again, shape, atol=2e-5)


def test_held_vertices_stay(solver):
    mobility = (solver.mean[:, 0] > 0).astype(float)
    shape = solver.reach(np.zeros_like(solver.mean), {"inner brows up": 2.0}, mobility)
    assert not shape[mobility == 0].any() and solver.figures(shape)["left inner brow up"] == pytest.approx(4, abs=0.1)


def test_impossible_requests_are_refused(solver, everywhere):
    nothing = np.zeros_like(solver.mean)
    with pytest.raises(ParameterError, match="ears up"):
        solver.reach(nothing, {"ears up": 1.0}, everywhere)
    with pytest.raises(ParameterError, match="chin down"):
        solver.reach(nothing, {"chin down": 1.0}, 0 * everywhere)
    with pytest.raises(ParameterError, match="chin down"):
        solver.reach(nothing, {"chin down": 1.0}, (solver.mean[:, 1] > solver.neutral[30, 1]).astype(float))


def test_names_of_figures_are_different_things():
    assert len(set(ALL_FIGURES.values())) == len(ALL_FIGURES)
