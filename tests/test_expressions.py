"""Eyes, mouths and expressions of the base model in training: lids close, lips meet, eyeballs turn, sizes follow."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from faceverse.errors import ParameterError
from faceverse.graphics.mesh import subdivide_flat, subdivide_smooth
from faceverse.model.correctives import dense_offsets
from faceverse.model.face_model import ARKIT_NAMES, FaceModel
from faceverse.model.linear import GAIN_RANGE
from faceverse.training.assembly import assemble, vertex_weights
from faceverse.training.base import file_without_landmarks
from faceverse.training.basis import shape_basis
from faceverse.training.correctives import fit_correctives
from faceverse.training.edge_loops import eye_grids, mouth_grid
from faceverse.training.expression_gains import HeadMeasures, expression_gain, measure_of
from faceverse.training.expression_metrics import (
    EYE_PARTS,
    MOUTH_PARTS,
    eye_rotation,
    lid_clearance_mm,
    mirror_error_mm,
    posed,
    region_mask,
    visible_area_mm2,
)
from faceverse.training.expressions import CLOSED, base_name, fit_expressions
from faceverse.training.eyes import EyeFitter, round_ball
from faceverse.training.figure_landmarks import landmark_matrix
from faceverse.training.head_regions import mirror_map, radius
from faceverse.training.mouth import LIP_OVERLAP_M, LipContact, MouthCorrector
from faceverse.training.self_intersection import intersecting_pairs
from faceverse.training.shape_population import draw_settings
from faceverse.training.shape_solver import ShapeSolver
from faceverse.training.surface_fit import closest_points
from faceverse.training.upper_face import TARGETS as UPPER_TARGETS
from faceverse.weights import model_data

HEADS, PEOPLE = 260, 20
FRONT = ((0, 0),)


class Built:
    """A model without skins and landmarks: shapes, expressions and gains of a small population."""

    def __init__(self, source, population):
        rng = np.random.default_rng(0)
        shapes = population.draw(draw_settings(HEADS, rng), rng)
        self.assembly = assemble(source, shapes.mean(0))
        self.shapes = shapes - self.assembly.origin.astype(np.float32)
        self.mean, modes, self.scores, _ = shape_basis(self.shapes, vertex_weights(self.assembly), 120)
        self.expressions = fit_expressions(source, self.mean, self.assembly)
        self.gain = expression_gain(self.shapes, self.scores, self.mean, self.assembly, self.expressions)
        file = file_without_landmarks(self.assembly, self.mean, modes, self.expressions)
        population = np.concatenate([self.scores, np.zeros((HEADS, 1))], axis=1).astype(np.float16)
        gain = self.gain.astype(np.float16)
        self.model = FaceModel(model_data(replace(file, population=population, expression_gain=gain)))
        self.people = [self.model.random(seed).identity for seed in range(PEOPLE)]


@pytest.fixture(scope="module")
def built(source, population):
    return Built(source, population)


@pytest.fixture(scope="module")
def base_heads(population):
    """Six heads of the targets before eyes and mouths are set right."""
    rng = np.random.default_rng(4)
    settings = draw_settings(6, rng)
    args = zip(settings.years, settings.male, settings.weight, settings.muscle, settings.ancestry, strict=True)
    return [population.macro(*values) + population.individual(rng) for values in args]


def offsets(built, name):
    return built.expressions[ARKIT_NAMES.index(name)].astype(np.float64)


# -- rings ------------------------------------------------------------------------------------------------------------
def test_grids_of_the_lids_lead_from_the_socket_to_the_face_and_mirror_each_other(source):
    head, grids = source.head, eye_grids(source.head)
    for side, grid in grids.items():
        ball = head.vertices[head.part == f"eyeball_{side}"]
        distance = np.linalg.norm(head.vertices[grid.rings] - ball.mean(0), axis=-1)
        assert len(np.unique(grid.rings)) == grid.rings.size and set(head.part[grid.rings].ravel()) == {"skin"}
        assert (np.diff(distance.mean(1)[grid.line :]) > 0).all(), "rings beyond the lids' edge move away from the ball"
    mirrored = head.vertices[grids["left"].rings] * [-1, 1, 1]
    np.testing.assert_allclose(mirrored, head.vertices[grids["right"].rings], atol=1e-7)


def test_grid_of_the_lips_starts_in_the_middle_and_goes_left(source):
    grid, vertices = mouth_grid(source.head), source.head.vertices
    line = vertices[grid.rings[grid.line]]
    assert abs(line[0, 0]) < 1e-7 and line[1, 0] > 0
    assert line[0, 1] > line[len(line) // 2, 1], "first the upper lip"
    assert np.ptp(vertices[grid.rings[-1], 1]) > 5 * np.ptp(line[:, 1]), "the lips touch at the line"


def test_rings_need_an_opening(source):
    head = replace(source.head, quads=source.head.quads[:4])
    with pytest.raises(ParameterError, match="no closed edge loop"):
        eye_grids(head)


# -- eyes of drawn heads ----------------------------------------------------------------------------------------------
def fine_balls(built_or_assembly, shape, side):
    fine = subdivide_smooth(np.asarray(shape, np.float64), built_or_assembly.topology)
    return fine[built_or_assembly.regions[f"eyeball_{side}"]]


def test_subdivided_eyeballs_are_round(built, source):
    for side in ("left", "right"):
        ball = fine_balls(built.assembly, built.shapes[3], side)
        distance = np.linalg.norm(ball - ball.mean(0), axis=1)
        assert np.ptp(distance) < 0.02 * distance.mean()
        assert radius(round_ball(source.head, side)) == pytest.approx(1, abs=0.05)


def test_seated_eyes_are_of_one_size_and_no_lid_is_inside(source, built, base_heads):
    seats, skin = EyeFitter(source.head), ~np.char.startswith(source.head.part, "eyeball")
    for shape in base_heads:
        result = seats.fit(shape)
        sizes = [radius(result[source.head.part == f"eyeball_{side}"]) for side in ("left", "right")]
        assert sizes[0] == pytest.approx(sizes[1], rel=1e-3)
        for side in ("left", "right"):
            ball = fine_balls(built.assembly, result, side)
            fine = subdivide_smooth(result, built.assembly.topology)
            outside = ~(built.assembly.regions["eyeballs"] | built.assembly.regions["teeth"])
            distance = np.linalg.norm(fine[outside] - ball.mean(0), axis=1).min()
            assert distance > np.linalg.norm(ball - ball.mean(0), axis=1).max()
        far = skin & (np.linalg.norm(result - shape, axis=1) > 0)
        assert np.linalg.norm(result - shape, axis=1)[far].max() < 0.012
        again = seats.fit(result)
        assert np.linalg.norm(again - result, axis=1).max() < 2e-3, "a head that is right stays as it is, nearly"


def test_an_eyeball_that_stands_out_is_put_back(source):
    seats, head = EyeFitter(source.head), source.head
    right = seats.fit(head.vertices)
    shape = right.copy()
    shape[np.char.startswith(head.part, "eyeball"), 2] += 0.001
    ball = head.part == "eyeball_left"
    moved = seats.fit(shape)[ball, 2].mean() - right[ball, 2].mean()
    assert 0 <= moved < 0.0006


# -- mouths of drawn heads --------------------------------------------------------------------------------------------
def test_lips_meet_wherever_they_were(source, base_heads):
    lips, setter = LipContact(source.head), MouthCorrector(source.head)
    before = np.array([lips.contact(shape)[1] for shape in base_heads])
    after = np.array([lips.contact(setter.correct(shape))[1] for shape in base_heads])
    assert np.abs(before + LIP_OVERLAP_M).max() > 0.0015, "the heads of the targets need it"
    np.testing.assert_allclose(after, -LIP_OVERLAP_M, atol=0.001)
    parted = lips.contact(setter.with_gap(base_heads[0], 0.004))[1]
    np.testing.assert_allclose(parted[3:-3], 0.004, atol=0.001)


def test_teeth_and_tongue_lie_behind_the_lips(source, base_heads):
    setter, part = MouthCorrector(source.head), source.head.part
    for shape in base_heads:
        result = setter.correct(shape)
        height = setter.lips.contact(result)[2][7]
        upper, lower, tongue = (result[part == name] for name in ("teeth_upper", "teeth_lower", "tongue"))
        front = result[setter.lips.grid.rings[setter.lips.grid.line + 3], 2].max()
        assert upper[:, 2].max() < front - 0.002 and lower[:, 2].max() < upper[:, 2].max()
        assert tongue[:, 2].max() < lower[:, 2].max() - 0.005, "the tongue rests behind the lower teeth"
        assert abs(upper[upper[:, 2] > upper[:, 2].max() - 0.003, 1].min() - height) < 0.006


def test_lips_keep_flesh_in_front_of_the_mouth(source):
    setter = MouthCorrector(source.head)
    shape = source.head.vertices.copy()
    rings, line = setter.lips.grid.rings, setter.lips.grid.line
    middle = rings.shape[1] // 2
    shape[rings[:line, middle], 2] += 0.02
    result = setter.with_thickness(shape)
    assert (result[rings[line:]] == shape[rings[line:]]).all(), "the face stays"
    moved = result[rings[:line, middle], 2] - shape[rings[:line, middle], 2]
    assert moved.min() < -0.01 and moved.max() <= 0


# -- expressions ------------------------------------------------------------------------------------------------------
def test_left_and_right_are_mirror_images(built, source):
    errors = mirror_error_mm(built.model, mirror_map(source.head.vertices))
    assert len(errors) == 20 and {"mouthSmileLeft", "jawLeft", "eyeLookInLeft"} <= set(errors)
    assert max(errors.values()) < 0.01, errors
    mirror = mirror_map(source.head.vertices)
    for name in (name for name in ARKIT_NAMES if base_name(name) == name and not name.endswith(("Left", "Right"))):
        shape = offsets(built, name)
        np.testing.assert_allclose(shape, shape[mirror] * [-1, 1, 1], atol=1e-5, err_msg=name)


def test_blinks_close_every_eye_without_piercing(built):
    model = built.model
    assert visible_area_mm2(model, posed(model, {}), EYE_PARTS, FRONT) > 200
    assert visible_area_mm2(model, posed(model, {"eyeBlink": 1}), EYE_PARTS) < 0.1
    assert lid_clearance_mm(model, posed(model, {})) > 0.2
    assert lid_clearance_mm(model, posed(model, {"eyeBlink": 0.5})) > 0.1
    assert lid_clearance_mm(model, posed(model, {"eyeBlink": 1})) > 0.1
    seen = [visible_area_mm2(model, posed(model, {"eyeBlink": 1}, person), EYE_PARTS) for person in built.people]
    assert max(seen) < 4 and np.median(seen) < 0.05, seen
    assert min(lid_clearance_mm(model, posed(model, {}, person)) for person in built.people) > -0.3


@pytest.mark.parametrize("weights", [{"eyeBlink": 0.25}, {"eyeBlink": 0.5}, {"eyeBlink": 0.75}, {"eyeLookDown": 1}])
def test_moving_lids_rest_on_the_eyeball_of_every_head(built, weights):
    clearance = [lid_clearance_mm(built.model, posed(built.model, weights, person)) for person in built.people]
    assert min(clearance) > -0.15 and np.median(clearance) > 0.1, clearance


def test_a_blink_rolls_the_lid_out_from_under_the_fold_and_leaves_the_brow(built, source):
    rows = landmark_matrix(built.assembly.topology, mirror_map(source.head.vertices))
    moved = 1e3 * np.linalg.norm(rows @ offsets(built, "eyeBlinkLeft"), axis=1)
    assert moved[22:27].max() < 0.3 and moved[[43, 44]].min() > 4
    lids = HeadMeasures(built.mean, built.assembly, built.expressions)._lids["left"]
    ways = 1e3 * np.linalg.norm(offsets(built, "eyeBlinkLeft")[lids.grid.rings[lids.grid.line :]], axis=-1)
    way = ways[:, ways[2].argmax()]
    assert (np.diff(way[2:-1]) < 0).all() and way[2] > 6 and way[-1] < 0.5, way


@pytest.mark.parametrize("name", ["eyeSquint", "eyeLookDown", "cheekSquint"])
def test_lids_that_another_expression_moves_still_close_and_do_not_overshoot(built, name):
    correctives = fit_correctives(built.mean, built.assembly, built.expressions)
    pair = [ARKIT_NAMES.index("eyeBlinkLeft"), ARKIT_NAMES.index(f"{name}Left")]
    row = correctives["corrective_pairs"].tolist().index(pair)
    sparse = (correctives[f"corrective_{key}"] for key in ("start", "vertex", "offset"))
    corrective = 1e-3 * dense_offsets(*sparse, len(built.mean))[row].astype(np.float64)
    lids = HeadMeasures(built.mean, built.assembly, built.expressions)._lids["left"]
    plain = built.mean + offsets(built, "eyeBlinkLeft") + offsets(built, f"{name}Left")
    before, after = lids.gaps(plain)[-1], lids.gaps(plain + corrective)[-1]
    assert before.min() < -0.002 < after.min() and after.max() < 0, (before, after)
    mirrored_row = correctives["corrective_pairs"].tolist().index([k + 1 for k in pair])
    sparse = (correctives[f"corrective_{key}"] for key in ("start", "vertex", "offset"))
    right = 1e-3 * dense_offsets(*sparse, len(built.mean))[mirrored_row].astype(np.float64)
    np.testing.assert_allclose(right, mirrored(built, corrective), atol=1e-5)


def test_a_smile_with_raised_cheeks_does_not_raise_them_twice(built):
    correctives = fit_correctives(built.mean, built.assembly, built.expressions)
    pair = [ARKIT_NAMES.index("mouthSmileLeft"), ARKIT_NAMES.index("cheekSquintLeft")]
    sparse = (correctives[f"corrective_{key}"] for key in ("start", "vertex", "offset"))
    dense = 1e-3 * dense_offsets(*sparse, len(built.mean)).astype(np.float64)
    corrective = dense[correctives["corrective_pairs"].tolist().index(pair)]
    both = offsets(built, "mouthSmileLeft") + offsets(built, "cheekSquintLeft")
    assert 1e-4 < np.linalg.norm(corrective, axis=1).max() < 0.003
    moved = np.linalg.norm(corrective, axis=1) > 1e-4
    assert (corrective * both).sum(axis=1)[moved].mean() < 0 and not corrective[built.mean[:, 0] < -0.01].any()


def test_closed_lids_overlap_by_a_hair(built):
    lids = HeadMeasures(built.mean, built.assembly, built.expressions)._lids["left"]
    front = lids.gaps(built.mean + offsets(built, "eyeBlinkLeft"))[-1]
    assert -0.0016 < front.min() and front.max() < 0, front


def test_closed_mouths_show_nothing_of_their_inside(built):
    model = built.model
    for weights in ({}, {"jawOpen": 1, "mouthClose": 1}, {"jawOpen": 0.5, "mouthClose": 0.5}):
        assert visible_area_mm2(model, posed(model, weights), MOUTH_PARTS) < 0.5, weights
        views = ((0, 0), (0, -15))
        seen = [visible_area_mm2(model, posed(model, weights, person), MOUTH_PARTS, views) for person in built.people]
        assert np.median(seen) < 0.5 and max(seen) < 15, (weights, seen)
    for name in CLOSED:
        assert visible_area_mm2(model, posed(model, {name: 1}), MOUTH_PARTS, FRONT) < 1, name


def test_lips_do_not_cross(built, source):
    lips = LipContact(source.head)
    combinations = [{name: 1.0} for name in ARKIT_NAMES if name not in ("mouthClose", "tongueOut")]
    combinations += [{f"{base}{side}": 1.0 for side in ("Left", "Right")} for base in ("mouthSmile", "mouthPress")]
    combinations += [{"mouthSmileLeft": 1, "mouthSmileRight": 1, "jawOpen": 0.3}, {"mouthFunnel": 1, "jawOpen": 0.5},
                     {"mouthPucker": 1, "jawOpen": 0.3}, {"jawOpen": 1, "mouthClose": 1}]  # fmt: skip
    for weights in combinations:
        shape = built.mean + sum(weight * offsets(built, name) for name, weight in weights.items())
        gap = lips.contact(shape)[1][2:-2]
        assert gap.min() > -0.0028, (weights, 1e3 * gap)


def test_smiles_lift_the_corners_and_show_teeth(built, source):
    grid = mouth_grid(source.head)
    corner = grid.rings[grid.line + 2][source.head.vertices[grid.rings[grid.line + 2], 0].argmax()]
    both = offsets(built, "mouthSmileLeft") + offsets(built, "mouthSmileRight")
    out, up, back = 1e3 * both[corner]
    assert 5 < out < 12 and 6 < up < 14 and -10 < back < -3
    assert 20 < visible_area_mm2(built.model, posed(built.model, {"mouthSmile": 1}), ("teeth",), FRONT) < 250
    # No pocket: neighbours on the cheek move nearly alike.
    edges = np.concatenate([source.head.quads[:, [0, 1]], source.head.quads[:, [1, 2]]])
    cheek = built.assembly.regions["face"][: len(built.mean)] & ~np.isin(np.arange(len(built.mean)), grid.rings)
    edges = edges[cheek[edges].all(1)]
    length = np.linalg.norm(built.mean[edges[:, 0]] - built.mean[edges[:, 1]], axis=1)
    strain = np.linalg.norm(both[edges[:, 0]] - both[edges[:, 1]], axis=1) / length
    assert strain.max() < 1.2


def test_lower_teeth_follow_the_jaw_and_stay_in_sight(built, source):
    model, part = built.model, source.head.part
    lower = part == "teeth_lower"
    before = built.mean[lower].astype(np.float64)
    after = before + offsets(built, "jawOpen")[lower]
    apart = [np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (before, after)]
    np.testing.assert_allclose(apart[0], apart[1], atol=1e-4, err_msg="teeth do not bend")
    assert (after - before)[:, 1].mean() < -0.01
    flags = np.zeros(len(part))
    flags[lower] = 1
    seen = visible_area_mm2(model, posed(model, {"jawOpen": 1}), ("teeth",), FRONT)
    hidden = posed(model, {"jawOpen": 1})
    upper_rows = region_mask(model, "teeth") & (model.mean_vertices[:, 1] > built.mean[lower, 1].max())
    hidden[upper_rows] += (0, 0, -0.2)
    assert visible_area_mm2(model, hidden, ("teeth",), FRONT) > 20 and seen > 30


@pytest.mark.parametrize("name", [name for name in ARKIT_NAMES if name.startswith("eyeLook")])
def test_eyeballs_turn_about_their_middle(built, name):
    angle, change = eye_rotation(built.model, name)
    assert 15 < angle < 35 and change < 0.02
    side = "left" if name.endswith("Left") else "right"
    ball = region_mask(built.model, f"eyeball_{side}")
    front = ball & (built.model.mean_vertices[:, 2] > np.quantile(built.model.mean_vertices[ball, 2], 0.9))
    motion = built.model.expression_modes[ARKIT_NAMES.index(name)][front].mean(0)
    outward = 1 if side == "left" else -1
    axis, sign = {"Up": (1, 1), "Do": (1, -1), "In": (0, -outward), "Ou": (0, outward)}[name[7:9]]
    assert sign * motion[axis] > 0.003


def test_lids_follow_the_gaze(built):
    model = built.model
    rest = visible_area_mm2(model, posed(model, {}), EYE_PARTS, FRONT)
    down, up = (
        visible_area_mm2(model, posed(model, {name: 1}), EYE_PARTS, FRONT) for name in ("eyeLookDown", "eyeLookUp")
    )
    assert 0.4 * rest < down < 0.9 * rest and 1.05 * rest < up < 1.7 * rest


def test_every_expression_can_be_seen(built):
    outer = built.assembly.regions["face"] | built.assembly.regions["lips"] | built.assembly.regions["eyelids"]
    outer |= built.assembly.regions["eyeballs"] | built.assembly.regions["tongue"]
    for k, name in enumerate(ARKIT_NAMES):
        largest = 1e3 * np.linalg.norm(built.expressions[k][outer[: len(built.mean)]], axis=1).max()
        assert 2.5 < largest < 60, (name, largest)  # people open their eyes by 2.6 mm


# -- sizes ------------------------------------------------------------------------------------------------------------
def test_gain_follows_the_head(built):
    ratios = HeadMeasures(built.mean, built.assembly, built.expressions).ratios(built.shapes)
    assert built.gain.shape == (52, built.scores.shape[1]) and built.gain.dtype == np.float32
    gain = built.model.gain(torch.from_numpy(built.scores.astype(np.float32))).numpy()
    for name, least in (("eyeBlinkLeft", 0.85), ("jawOpen", 0.97), ("mouthSmileRight", 0.97), ("eyeLookUpLeft", 0.97)):
        column = gain[:, ARKIT_NAMES.index(name)]
        assert np.corrcoef(column, ratios[measure_of(name)])[0, 1] > least, name
    opening = ratios["opening left"]
    blink = gain[:, ARKIT_NAMES.index("eyeBlinkLeft")]
    groups = [blink[part].mean() for part in np.array_split(np.argsort(opening), 5)]
    assert (np.diff(groups) > 0).all(), "the wider an eye, the longer the way of its lid"
    assert gain.min() >= GAIN_RANGE[0] and gain.max() <= GAIN_RANGE[1]


def test_jaw_and_closing_mouth_grow_together():
    assert measure_of("jawOpen") == measure_of("mouthClose") == "face height"
    assert measure_of("eyeBlinkRight") == "blink right" and measure_of("mouthSmileLeft") == "mouth width"
    assert measure_of("browInnerUp") == measure_of("noseSneerLeft") == "face size"


@pytest.mark.parametrize("base", UPPER_TARGETS)
def test_brows_nose_and_cheeks_reach_the_figures_of_people(built, source, base):
    solver = ShapeSolver(source.head, built.assembly.topology, 0.5 * (built.mean + mirrored(built, built.mean)))
    found = solver.figures(offsets(built, base if base in ARKIT_NAMES else f"{base}Left"))
    for name, wanted in UPPER_TARGETS[base].figures.items():
        assert found[name] == pytest.approx(wanted, abs=max(0.15 * abs(wanted), 0.4)), name


def test_brows_slide_over_the_bone(built):
    head, moved = built.assembly.head, built.mean + offsets(built, "browInnerUp")
    quads = head.quads[(head.part == "skin")[head.quads[:, 0]]]
    forehead = np.flatnonzero((built.mean[:, 1] > 0.022) & (built.mean[:, 2] > 0.04) & (head.part == "skin"))
    way = np.linalg.norm((moved - built.mean)[forehead], axis=1)
    near = closest_points(moved[forehead], built.mean, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]))
    assert way.max() > 0.004 and near.distance.max() < 0.0012
    top = built.mean[:, 1] > 0.085
    assert np.abs(offsets(built, "browInnerUp")[top]).max() < 1e-4


@pytest.mark.parametrize("name", ["browInnerUp", "browDown", "browOuterUp", "cheekSquint", "noseSneer", "eyeLookDown"])
def test_skin_does_not_cut_through_itself(built, source, name):
    touching = np.zeros((len(built.mean), 1))
    for grid in eye_grids(source.head).values():
        touching[grid.rings[: grid.line + 5]] = 1  # the margins of closed lids overlap
    regions = built.assembly.regions
    skin = (regions["face"] | regions["eyelids"]) & ~regions["lips"] & ~regions["mouth_inside"]
    skin &= subdivide_flat(touching, built.assembly.topology)[:, 0] < 0.01
    faces = built.model.faces[skin[built.model.faces].all(axis=1)]
    for person in (None, *built.people[:4]):
        assert not len(intersecting_pairs(posed(built.model, {name: 1.0}, person), faces)), name


def mirrored(built, values):
    return values[mirror_map(built.assembly.head.vertices)] * np.array([-1.0, 1.0, 1.0])
