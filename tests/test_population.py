"""Smooth random deformations, and sizes that follow published anthropometry."""

from __future__ import annotations

import numpy as np
import pytest

from faceverse.training.anthropometry import compare_measures, measure
from faceverse.training.calibration import calibrate, survey_statistics
from faceverse.training.deformation import KERNELS, KernelParameters, SmoothDeformation, outward_directions
from faceverse.training.head_regions import find_mouth_cavity, mirror_map
from faceverse.training.shape_population import ShapePopulation, draw_settings

MM = 1e3


@pytest.fixture(scope="module")
def raw(source):
    """Settings and heads as the targets make them, sizes not yet set right."""
    rng = np.random.default_rng(31)
    settings = draw_settings(160, rng)
    return settings, ShapePopulation(source, calibrated=False).draw(settings, rng)


def draws(deformation, count):
    return np.stack([deformation.draw(np.random.default_rng(seed)) for seed in range(count)])


# -- deformation ------------------------------------------------------------------------------------------------------
def test_no_process_moves_nothing_and_a_seed_gives_the_same(source):
    assert not SmoothDeformation(source.head, ()).draw(np.random.default_rng(0)).any()
    deformation = SmoothDeformation(source.head)
    first, again = (deformation.draw(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - deformation.draw(np.random.default_rng(6))).max() > 1e-4


def test_the_process_has_the_asked_deviations_and_is_mostly_symmetric(source):
    head = source.head
    offsets = draws(SmoothDeformation(head, (KernelParameters(0.03, 0.002, 0.0005, 1.0),)), 300)
    outward = outward_directions(head)
    # The cheeks: far from the mid-line, where a symmetric field has twice the variance of a free one.
    side = (head.part == "skin") & (np.abs(head.vertices[:, 0]) > 0.045)
    along = (offsets * outward).sum(-1)
    assert along[:, side].std() == pytest.approx(0.002, rel=0.15)
    rest = offsets - along[..., None] * outward
    assert rest[:, side].std() == pytest.approx(0.0005 * np.sqrt(2 / 3), rel=0.25)
    mirrored = along[:, mirror_map(head.vertices)]
    correlation = (along * mirrored)[:, side].mean() / (along**2)[:, side].mean()
    assert correlation == pytest.approx(2 * 0.85 - 1, abs=0.1)


def test_wrinkles_move_as_one(source):
    """What lies behind the lips moves along with them, else it would come out through the skin."""
    head = source.head
    outward = outward_directions(head)
    np.testing.assert_allclose(np.linalg.norm(outward, axis=1), 1, atol=1e-9)
    pocket = np.unique(head.quads[find_mouth_cavity(head.vertices, head.quads, head.part)])
    front = pocket[head.vertices[pocket, 2] > np.quantile(head.vertices[pocket, 2], 0.8)]
    assert outward[front, 2].min() > 0.7
    eyes = np.char.startswith(head.part, "eyeball")
    assert outward[eyes, 2].min() > 0.5


def test_fine_terms_are_weaker_at_the_eyes(source):
    head = source.head
    fine = draws(SmoothDeformation(head, KERNELS[2:]), 60)
    eyes = np.char.startswith(head.part, "eyeball")
    skin = (head.part == "skin") & (head.vertices[:, 2] > 0.08)
    assert fine[:, eyes].std() < 0.4 * fine[:, skin].std()


# -- calibration ------------------------------------------------------------------------------------------------------
def test_wanted_sizes_lie_between_sexes_and_groups():
    shares = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 1], [1, 0, 0], [0.5, 0, 0.5]], float)
    names, means, deviations = survey_statistics(np.array([0.0, 0.5, 1.0, 1.0, 1.0]), shares)
    face, nose = names.index("face_height"), names.index("nose_breadth")
    assert means[0, face] < means[1, face] < means[2, face]
    assert means[1, face] == pytest.approx((means[0, face] + means[2, face]) / 2)
    assert means[2, nose] < means[4, nose] < means[3, nose]
    assert (deviations > 0).all() and means.shape == deviations.shape == (5, len(names))


def test_calibrated_heads_have_the_sizes_of_people(source, raw):
    settings, heads = raw
    before = compare_measures(measure(heads, source.head), settings.male)
    moved = calibrate(heads, source.head, settings.male, settings.ancestry)
    rows = [
        r for r in compare_measures(measure(moved, source.head), settings.male) if r.published.name != "ear_protrusion"
    ]
    assert len(rows) > 20
    shift = [abs(r.mean - r.published.mean) / r.published.deviation for r in rows]
    old = [abs(r.mean - r.published.mean) / r.published.deviation for r in before]
    assert np.mean(shift) < 0.3 and max(shift) < 0.9, "deviations of the surveys"
    assert np.mean(shift) < 0.4 * np.mean(old)
    ratio = [r.deviation / r.published.deviation for r in rows]
    assert 0.75 < np.median(ratio) < 1.25


def test_calibrating_twice_changes_little(source, raw):
    settings, heads = raw
    once = calibrate(heads, source.head, settings.male, settings.ancestry)
    twice = calibrate(once, source.head, settings.male, settings.ancestry)
    assert once.dtype == np.float32 and np.isfinite(once).all()
    first, second = (MM * np.linalg.norm(b - a, axis=2).mean() for a, b in ((heads, once), (once, twice)))
    assert second < 0.35 * first
