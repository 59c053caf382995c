"""Jaw and lips of the base model in training: the joint, the oval, poses that are reached, lips in front of teeth."""

import numpy as np
import pytest

from faceverse.model.face_model import ARKIT_NAMES
from faceverse.training.expression_metrics import posed
from faceverse.training.expressions import fit_expressions
from faceverse.training.head_regions import mirror_map
from faceverse.training.jaw import MOTIONS, OPEN, Jaw
from faceverse.training.lips import POSES, LipRig
from faceverse.training.mouth_metrics import CAVITY, LipSheet, outside_area_mm2
from faceverse.training.part_colours import THROAT_SHADE, throat_shade
from faceverse.training.surface_handles import SurfaceHandles
from faceverse.weights import load_parts

ONE_SIDED = ("mouthSmile", "mouthFrown", "mouthDimple", "mouthStretch", "mouthPress", "mouthUpperUp", "mouthLowerDown")


@pytest.fixture(scope="module")
def rig(source, open_assembly, model):
    mean = model.coarse.mean_vertices.astype(np.float64)
    mirrored = mean[mirror_map(source.head.vertices)] * [-1, 1, 1]
    return LipRig(source.head, 0.5 * (mean + mirrored))


@pytest.fixture(scope="module")
def shapes(source, open_assembly, rig):
    """The 52 shapes on the mean head, by name; of both sides together for those with a left and a right."""
    modes = fit_expressions(source, rig.mean, open_assembly).astype(np.float64)
    by_name = dict(zip(ARKIT_NAMES, modes, strict=True))
    return by_name | {base: by_name[f"{base}Left"] + by_name[f"{base}Right"] for base in ONE_SIDED}


# -- handles ----------------------------------------------------------------------------------------------------------
def strip(length=20, width=5):
    x, y = np.meshgrid(np.arange(length, dtype=float), np.arange(width, dtype=float))
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    a = (np.arange(width - 1)[:, None] * length + np.arange(length - 1)).ravel()
    return vertices, np.stack([a, a + 1, a + length + 1, a + length], axis=1)


def test_handles_move_as_told_and_the_rest_follows_smoothly():
    vertices, quads = strip()
    ends = vertices[:, 0] < 1.5
    surface = SurfaceHandles(vertices, quads, ends)
    handles = np.flatnonzero(vertices[:, 0] > 17.5)
    moved = surface.solve(handles, np.tile([0.0, 0.0, 1.0], (len(handles), 1)))
    np.testing.assert_allclose(moved[handles, 2], 1)
    assert not moved[ends].any()
    profile = moved[40:60, 2]
    assert (np.diff(profile) > -1e-9).all(), "no overshoot between one end and the other"
    assert np.abs(np.diff(profile, 2)).max() < 0.03, "no crease"


# -- jaw --------------------------------------------------------------------------------------------------------------
def test_jaw_turns_about_a_joint_in_front_of_the_ear(source, rig, open_assembly):
    jaw = Jaw(source.head, rig)
    ears = rig.mean[open_assembly.regions["ears"][: len(rig.mean)]]
    assert ears[:, 1].min() < jaw.joint[1] < ears[:, 1].max()
    assert 0.004 < jaw.joint[2] - ears[:, 2].max() < 0.015
    np.testing.assert_allclose(jaw.offsets(OPEN, jaw.joint), 1e-3 * np.array(OPEN.glide), atol=1e-9)


@pytest.mark.parametrize("name", ["jawOpen", *MOTIONS])
def test_lower_teeth_and_tongue_are_one_body_with_the_jaw(source, shapes, rig, name):
    part = source.head.part
    bones = (part == "teeth_lower") | (part == "tongue")
    before = rig.mean[bones][::7]
    after = before + shapes[name][bones][::7]
    apart = [np.linalg.norm(points[:, None] - points[None], axis=-1) for points in (before, after)]
    np.testing.assert_allclose(apart[0], apart[1], atol=1e-5)
    assert np.linalg.norm(after - before, axis=1).max() > 0.004
    assert not shapes[name][part == "teeth_upper"].any()


def test_open_mouth_is_an_oval(shapes, rig):
    ring = rig.grid.rings[rig.grid.line]
    opened = (rig.mean + shapes["jawOpen"])[ring]
    upper, lower = opened[~rig.below], opened[rig.below]
    x = np.linspace(-1, 1, 41) * opened[:, 0].max()
    gap = np.interp(x, *sorted_curve(upper)) - np.interp(x, *sorted_curve(lower))
    tall = gap[20]
    assert 0.025 < tall < 0.042
    assert gap[20 + 16] > 0.5 * tall, "a diamond has a fifth of its height at four fifths of its half width"
    assert gap[20 + 10] > 0.75 * tall


def sorted_curve(points):
    order = np.argsort(points[:, 0])
    return points[order, 0], points[order, 1]


# -- lips -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", POSES)
def test_corners_reach_their_poses(shapes, rig, name):
    corner = 1e3 * shapes[name][rig.grid.rings[rig.grid.line + 4, 10]]
    assert np.linalg.norm(corner - POSES[name].corner) < 2.6, corner


@pytest.mark.parametrize("weight", [0.5, 1.0])
@pytest.mark.parametrize("name", POSES)
def test_lips_stay_in_front_of_the_teeth(shapes, rig, name, weight):
    lips = rig.grid.rings[rig.grid.line - 1 : rig.grid.line + 3]
    assert 1e3 * rig._behind_teeth(rig.mean + weight * shapes[name], lips).max() < 0.9  # the clearance is 0.7


def test_a_raised_chin_lifts_the_lower_lip(shapes, rig):
    rings, line = rig.grid.rings, rig.grid.line
    shape = 1e3 * shapes["mouthShrugLower"]
    assert 4 < shape[rings[line + 6, rig.middle], 1] < 9
    assert 5 < shape[rig.chin, 1].mean() < 9


# -- what is seen -----------------------------------------------------------------------------------------------------
def test_measure_sees_teeth_in_front_of_the_lips_and_nothing_at_rest(model, source):
    library, sheet = load_parts(model), LipSheet(source.head)
    rest = posed(model, {})
    assert outside_area_mm2(model, library, sheet, rest, rest, yaws_deg=(0, 60)) == 0
    teeth = rest.copy()
    teeth[model.regions["teeth"], 2] += 0.025
    seen = outside_area_mm2(model, library, sheet, teeth, rest, slots=("teeth_upper",), yaws_deg=(0,))
    assert seen > 50
    assert outside_area_mm2(model, library, sheet, teeth, rest, slots=(CAVITY,), yaws_deg=(0,)) == 0


def test_throat_darkens_with_depth():
    shade = throat_shade(np.array([0.0, 0.02, 0.04, 0.2]))
    assert shade[0] == 1 and (np.diff(shade) < 0).all() and shade[-1] == pytest.approx(THROAT_SHADE)
