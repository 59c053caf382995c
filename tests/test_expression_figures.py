"""Figures of expressions on the 68 landmarks."""

import csv

import numpy as np
import pytest

from faceverse.training.expression_figures import FIGURES, Figure, expression_figures, landmark_points, outside


def test_a_displacement_is_the_mean_of_its_points_along_its_axis():
    neutral = np.random.default_rng(0).standard_normal((68, 3))
    moved = neutral.copy()
    moved[[21, 22], 1] += (2.0, 4.0)
    moved[[21, 22], 0] += (1.5, -0.5)
    assert FIGURES["inner brows up"].value(neutral, moved) == pytest.approx(3.0)
    assert FIGURES["brows together"].value(neutral, moved) == pytest.approx(2.0)
    assert FIGURES["chin down"].value(neutral, moved) == 0


def test_a_distance_counts_in_all_directions():
    neutral = np.zeros((68, 3))
    moved = neutral.copy()
    neutral[62, 1], moved[62] = 1.0, (0.0, 3.0, 4.0)
    assert FIGURES["lip gap"].value(neutral, moved) == pytest.approx(4.0)


@pytest.mark.parametrize("name", FIGURES)
def test_gradients_are_those_of_finite_differences(name):
    rng, figure = np.random.default_rng(3), FIGURES[name]
    neutral, moved, step = rng.standard_normal((3, 68, 3))
    change = (figure.value(neutral, moved + 1e-5 * step) - figure.value(neutral, moved - 1e-5 * step)) / 2e-5
    assert (figure.gradient(moved) * step).sum() == pytest.approx(change, abs=1e-6)


def test_coinciding_points_have_a_finite_gradient():
    assert np.isfinite(Figure(pairs=((1, 2),)).gradient(np.zeros((68, 3)))).all()


def test_figures_of_the_open_model_have_the_directions_of_their_names(model):
    figures = expression_figures(model)
    assert figures["jawOpen"]["chin down"] > 15 and figures["jawOpen"]["lip gap"] > 20
    assert figures["eyeBlinkLeft"]["left eye opening"] < -4 < figures["eyeBlinkRight"]["left eye opening"]
    assert figures["mouthSmileLeft"]["left corner up"] > 5 and figures["mouthPucker"]["mouth width"] < -5
    assert figures["browInnerUp"]["inner brows up"] > 3


def test_figures_reproduce_the_published_table(model, shared):
    """The table beside the reference was measured on version 0.2 of the open model."""
    if model.info.get("version") != "0.2":
        pytest.skip("the table's second column is of version 0.2 of the open model")
    figures = expression_figures(model)
    with open(shared / "reference/expression_ranges.csv", newline="") as lines:
        rows = list(csv.reader(lines))[1:]
    assert len(rows) > 150
    assert max(abs(figures[name][key] - float(mm)) for name, key, _, mm in rows) < 0.06


def test_landmarks_lie_on_the_mesh(model):
    points = landmark_points(model, model.mean_vertices)
    assert points.shape == (68, 3) and np.linalg.norm(points[36] - points[45]) == pytest.approx(0.089, abs=0.01)


@pytest.mark.parametrize("found, reference, missed", [(2.0, 4.0, True), (-3.0, -4.0, False), (5.5, 4.0, True),
                                                      (0.0, 1.9, False), (-4.0, 4.0, True)])  # fmt: skip
def test_only_main_figures_can_miss(found, reference, missed):
    assert outside(found, reference) is missed
