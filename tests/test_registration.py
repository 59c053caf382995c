"""Registration: the parts on the toy head, and whole scans of known truth on the open model."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import faceverse as fv
from faceverse.graphics.mesh import subdivide_smooth, subdivision
from faceverse.training import scan_landmarks
from faceverse.training.nonrigid import (
    NonrigidSolver,
    bending_energy,
    fit_nonrigid,
    subdivision_matrix,
    vertex_areas,
    vertex_residuals,
    with_parts,
)
from faceverse.training.registration import (
    RegistrationReport,
    align_to_head,
    check_quality,
    fill_albedo,
    head_points,
    read_albedo,
    register,
    roughness,
)
from faceverse.training.scan_files import Scan, ScanError, keep_vertices
from faceverse.training.scan_landmarks import SURFACE_POINTS, find_face
from faceverse.training.surface_fit import (
    FitTask,
    ModelSurface,
    SurfacePoints,
    align_landmarks,
    closest_points,
    fit_model,
    fit_to_surface,
    mesh_normals,
)

igl = pytest.importorskip("igl")
trimesh = pytest.importorskip("trimesh")

GOOD = RegistrationReport(0.1, 0.1, 0.3, 0.2, 4.0, 0.1, 0.8, 0.001, 50_000, 1, 0.0, 5.0)
TURN = Rotation.from_euler("xyz", (3, -4, 5), degrees=True).as_matrix()
SHIFT = np.array([0.004, -0.003, 0.005])


def person(model, seed, scale=1.0):
    """(V, 3) float64 head of a model's random person."""
    identity = model.random(seed, scale=scale).identity
    return model.vertices(torch.from_numpy(identity)[None])[0].numpy().astype(np.float64)


def surface_samples(model, head):
    """The head's skin as points with normals."""
    keep = ModelSurface(model).vertex_weights > 0
    return SurfacePoints(head[keep], mesh_normals(head, model.faces)[keep])


# ---------------------------------------------------------------------------------------------------------------- maths


def grid(size):
    number = np.arange(size * size).reshape(size, size)
    return np.stack([number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]], axis=-1).reshape(-1, 4)


@pytest.mark.parametrize("shape", ["border", "toy"])
def test_subdivision_matrix_is_the_subdivision(shape, toy_model):
    if shape == "border":
        quads, count = grid(4), 18  # two vertices in no quad
    else:
        halves = toy_model.data.coarse_faces.reshape(-1, 2, 3)
        quads, count = np.concatenate([halves[:, 0], halves[:, 1, 2:]], axis=1), len(toy_model.data.coarse_vertices)
    topology = subdivision(quads, count)
    values = np.random.default_rng(0).standard_normal((count, 3))
    np.testing.assert_allclose(subdivision_matrix(topology) @ values, subdivide_smooth(values, topology), atol=1e-12)


def test_bender_knows_the_control_mesh(toy_model):
    solver = NonrigidSolver(toy_model)
    from toy import toy_file

    fine = solver.matrix @ toy_file().mean_vertices
    np.testing.assert_allclose(1e-3 * fine, toy_model.mean_vertices, atol=1e-6)
    skin = np.flatnonzero(solver.parts == 0)
    assert set(toy_model.regions["face"][toy_model.regions["face"] < len(solver.parts)]) <= set(skin)
    assert len(np.unique(solver.parts)) == 6  # head, two eyeballs, teeth, tongue, inside of the mouth


def test_bending_energy_is_that_of_a_bent_plate():
    side = np.linspace(0, 1, 41)
    x, y = (axis.reshape(-1) for axis in np.meshgrid(side, side, indexing="ij"))
    faces = np.concatenate([grid(41)[:, [0, 1, 2]], grid(41)[:, [0, 2, 3]]])
    plate = np.stack([x, y, 0 * x], axis=1)
    energy = bending_energy(plate, faces)
    inner = np.minimum.reduce([x, y, 1 - x, 1 - y]) > 0.01
    bowl = 0.5 * (x**2 + y**2)
    curvature = igl.cotmatrix(plate, faces.astype(np.int64)) @ bowl / vertex_areas(plate, faces)
    np.testing.assert_allclose(np.abs(curvature[inner]), 2, rtol=1e-6)
    assert abs(energy @ np.ones(len(x))).max() < 1e-8
    assert vertex_areas(plate, faces).sum() == pytest.approx(1)


def test_touch_measures_along_the_surface(toy_model):
    head = toy_model.mean_vertices.astype(np.float64)
    face = ModelSurface(toy_model).face_triangles
    middle = head[toy_model.faces[face]].mean(1)
    normal = np.cross(*(head[toy_model.faces[face]][:, k] - head[toy_model.faces[face]][:, 0] for k in (1, 2)))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    contact = closest_points(middle + 1e-4 * normal, head, toy_model.faces)
    same = contact.triangle == np.flatnonzero(face)  # where the toy wrinkles, another triangle may be nearer
    assert same.mean() > 0.98
    np.testing.assert_allclose(contact.distance[same], 1e-4, atol=1e-9)
    assert (contact.offset[same] > 0.8e-4).mean() > 0.9 and (contact.offset <= contact.distance + 1e-12).all()


# ------------------------------------------------------------------------------------------------------------------ fit


def test_fit_to_surface_finds_a_head_of_the_model(toy_model):
    head = person(toy_model, 3, 0.7)
    scan = (head @ TURN.T * 1.02 + SHIFT) * 100
    fitted, distance = fit_to_surface(toy_model, scan, toy_model.faces, np.eye(3) / 100, np.zeros(3))
    face = ModelSurface(toy_model).face_vertices
    assert distance < 1e-4
    assert np.linalg.norm(fitted - scan, axis=1)[face].mean() / 100 < 1.5e-3
    _, alone = fit_to_surface(toy_model, scan, toy_model.faces, np.eye(3) / 100, np.zeros(3), scale=False)
    assert alone > distance


def test_a_scan_that_the_model_cannot_reach_keeps_its_size():
    """Making both the scan and the head small makes all distances small: no fit, and no figure of reach."""
    open_model = fv.load_model()
    surface = ModelSurface(open_model)
    head = person(open_model, 3, 0.7)
    lumps = 0.002 * np.sin(500 * head).sum(axis=1, keepdims=True)
    scan = head + lumps * mesh_normals(head, open_model.faces)
    faces, rows = open_model.faces[surface.face_triangles], surface.face_vertices
    fitted, distance = fit_to_surface(open_model, 100 * scan, faces, np.eye(3) / 100, np.zeros(3))
    np.testing.assert_allclose(np.ptp(fitted[rows], axis=0), 100 * np.ptp(scan[rows], axis=0), rtol=0.1)
    direct = closest_points(scan[rows], fitted / 100, open_model.faces).distance.mean()
    assert distance == pytest.approx(direct, rel=0.2)


def test_fit_finds_the_expression_and_keeps_it_in_bounds(toy_model):
    names = toy_model.expression_names
    expression = np.zeros(len(names))
    expression[names.index("jawOpen")] = 0.8
    head = toy_model.mean_vertices + np.tensordot(expression, toy_model.expression_modes, axes=1)
    nothing = np.zeros(len(names))
    free = np.where(np.isin(names, ["jawOpen", "mouthSmileLeft", "cheekPuff"]), 0.3, 0.0)
    task = FitTask(nothing, free, points=5000)
    fit = fit_model(ModelSurface(toy_model), surface_samples(toy_model, head), np.eye(3), np.zeros(3), task)
    assert fit.expression[names.index("jawOpen")] == pytest.approx(0.8, abs=0.1)
    assert (fit.expression[free == 0] == 0).all() and fit.expression.min() >= 0 and fit.expression.max() <= 1


def test_what_is_not_the_head_does_not_count(toy_model):
    head = person(toy_model, 1, 0.5)
    points = surface_samples(toy_model, head)
    rng = np.random.default_rng(0)
    junk = points.points[rng.choice(len(points.points), 300)] * rng.uniform(1.15, 1.6, (300, 1))
    mixed = SurfacePoints(
        np.concatenate([points.points, junk]), np.concatenate([points.normals, rng.standard_normal((300, 3))])
    )
    nothing = np.zeros(len(toy_model.expression_names))
    surface, task = ModelSurface(toy_model), FitTask(nothing, nothing)
    clean, dirty = (fit_model(surface, p, np.eye(3), np.zeros(3), task) for p in (points, mixed))
    assert np.linalg.norm(clean.vertices - dirty.vertices, axis=1)[surface.face_vertices].mean() < 1e-3


def test_landmarks_align_in_spite_of_wild_ones(toy_model):
    places = toy_model.landmarks_478
    points = (toy_model.mean_vertices[toy_model.faces[places.triangle]] * places.barycentric[..., None]).sum(1)
    scan = (points @ TURN.T + SHIFT) * 1000
    scan[::9] += 60
    scan[1::9] = np.nan
    matrix, translation, error = align_landmarks(toy_model, scan, SURFACE_POINTS)
    assert error < 1e-6
    np.testing.assert_allclose(scan[2] @ matrix.T + translation, points[2], atol=1e-6)


def test_frames_settle_on_a_head(toy_model):
    head = toy_model.mean_vertices.astype(np.float64)
    points = surface_samples(toy_model, head)
    off = points.transformed(Rotation.from_euler("y", 1.5, degrees=True).as_matrix(), np.array([0.001, 0, -0.001]))
    rotation, translation = align_to_head(ModelSurface(toy_model), off, head, rounds=12)
    back = off.transformed(rotation, translation)
    assert np.linalg.norm(back.points - points.points, axis=1).mean() < 3e-4


# -------------------------------------------------------------------------------------------------------------- bending


def test_bending_follows_a_smooth_deformation(toy_model):
    solver, head = NonrigidSolver(toy_model), toy_model.mean_vertices.astype(np.float64)
    wave = 0.002 * np.sin(head[:, 1:2] / 0.04) * head / np.linalg.norm(head, axis=1, keepdims=True)
    target = head + wave
    dense = trimesh.Trimesh(target, toy_model.faces, process=False).subdivide().subdivide()
    points = SurfacePoints(
        np.asarray(dense.vertices), mesh_normals(np.asarray(dense.vertices), np.asarray(dense.faces))
    )
    bent = fit_nonrigid(solver, head, points)
    face = solver.surface.face_vertices
    before, after = (closest_points(target[face], v, toy_model.faces).distance.mean() for v in (head, bent.vertices))
    assert after < 0.15 * before
    assert np.linalg.norm(bent.vertices - target, axis=1)[face].mean() < 1e-3
    assert bent.weights[face].mean() > 0.6
    smooth = fit_nonrigid(solver, head, points, finest_m=0.5)  # stiffer than the head is wide: it hardly bends
    assert np.ptp(smooth.vertices - head, axis=0).max() < 0.5 * np.ptp(wave, axis=0).max()


def test_holes_are_not_seen(toy_model):
    head = toy_model.mean_vertices.astype(np.float64)
    points = surface_samples(toy_model, head)
    hole = np.linalg.norm(points.points - head[toy_model.regions["face"][0]], axis=1) < 0.03
    surface = ModelSurface(toy_model)
    seen, offset = vertex_residuals(surface, head, points.select(~hole), 0.005)
    inside = np.linalg.norm(head - head[toy_model.regions["face"][0]], axis=1) < 0.02
    assert seen[inside].max() == 0
    assert seen[surface.face_vertices & ~inside].mean() > 0.5
    assert np.abs(offset).max() < 1e-9


def test_eyes_move_as_a_whole_with_the_skin(toy_model):
    solver = NonrigidSolver(toy_model)
    coarse = np.zeros((solver.coarse_count, 3))
    coarse[solver.parts == 0] = (0.001, 0, 0.002)
    moved = with_parts(solver, coarse)
    np.testing.assert_allclose(moved, np.broadcast_to([0.001, 0, 0.002], moved.shape), atol=1e-12)


# ---------------------------------------------------------------------------------------------------- points and colour


@pytest.mark.parametrize("noise_m", [1e-4, 1e-3])
def test_roughness_is_the_noise(noise_m):
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-0.06, 0.06, (30_000, 2)), np.full((30_000, 1), 0.08)], axis=1)
    points[:, 2] += noise_m * rng.standard_normal(len(points))
    noise, spacing = roughness(Scan(points))
    assert noise == pytest.approx(noise_m, rel=0.15)
    assert spacing == pytest.approx(0.12 / np.sqrt(30_000), rel=0.15)


def test_points_are_spread_by_area_and_look_outwards():
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.1)
    inside_out = np.asarray(ball.faces)[:, ::-1]
    scan = Scan(np.asarray(ball.vertices), inside_out, mesh_normals(np.asarray(ball.vertices), inside_out))
    points = head_points(scan, 4000)
    assert ((points.normals * points.points).sum(1) > 0.099).all()
    np.testing.assert_allclose(points.points.mean(0), 0, atol=1e-3)
    with pytest.raises(ScanError, match="too few points"):
        head_points(Scan(ball.vertices + 1.0, ball.faces), 100)


def test_colors_are_read_where_the_scan_shows_skin(toy_model):
    solver, head = NonrigidSolver(toy_model), toy_model.mean_vertices.astype(np.float64)
    keep = solver.surface.vertex_weights > 0
    colors = (0.5 + 2 * head).clip(0, 1).astype(np.float32)
    front = head[:, 2] > 0
    scan = keep_vertices(Scan(head, toy_model.faces, mesh_normals(head, toy_model.faces), colors), keep & front)
    bent = fit_nonrigid(solver, head, SurfacePoints(scan.vertices, scan.normals))
    albedo = read_albedo(solver.surface, scan, bent)
    known = np.isfinite(albedo).all(1)
    assert not known[~keep].any() and not known[head[:, 2] < -0.02].any()
    assert known[solver.surface.face_vertices & (head[:, 2] > 0.05)].mean() > 0.5
    assert np.abs(albedo - colors)[known].mean() < 0.01


def test_gaps_in_the_color_are_filled_with_the_same_skin(toy_model):
    coefficients = toy_model.random(5).albedo
    truth = toy_model.albedo(torch.from_numpy(coefficients)[None])[0].numpy().clip(0, 1)
    gaps = truth.copy()
    gaps[toy_model.mean_vertices[:, 2] < 0.05] = np.nan
    filled, _ = fill_albedo(toy_model, gaps)
    known = np.isfinite(gaps).all(1)
    np.testing.assert_array_equal(filled[known], truth[known])
    assert np.abs(filled - truth)[~known].mean() < 0.5 * np.abs(toy_model.mean_albedo - truth)[~known].mean()


# -------------------------------------------------------------------------------------------------------------- verdict


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"coverage": 0.2}, "20 % of the face"),
        ({"model_mm": 5.0}, "fitted model lies 5.00 mm"),
        ({"mean_mm": 1.5}, "registered head lies 1.50 mm"),
    ],
)
def test_what_cannot_be_trusted_is_said(changes, words):
    check_quality(GOOD)
    with pytest.raises(ScanError, match=words):
        check_quality(replace(GOOD, **changes))


def test_noise_excuses_distance():
    check_quality(replace(GOOD, mean_mm=1.5, noise_mm=1.0))


def test_too_few_points(model):
    scan = Scan(np.random.default_rng(0).normal(size=(50, 3)), np.arange(48).reshape(-1, 3))
    with pytest.raises(ScanError, match="too few points: 50"):
        register(scan, model)


def test_no_face(model, monkeypatch):
    around = scan_landmarks.candidate_views
    monkeypatch.setattr(scan_landmarks, "candidate_views", lambda scan: islice(around(scan), 12))
    ball = trimesh.creation.icosphere(subdivisions=4, radius=100)
    with pytest.raises(ScanError, match="no face"):
        register(Scan(np.asarray(ball.vertices), np.asarray(ball.faces)), model)


# ---------------------------------------------------------------------------------------------------------- whole scans


def bumpy_person(model, seed):
    """A head that the model cannot reach: a random person with smooth bumps of a millimetre."""
    rng = np.random.default_rng(seed)
    head = person(model, seed)
    bumps = np.zeros_like(head)
    for _ in range(12):
        wave = rng.standard_normal(3) * 2 * np.pi / 0.08
        bumps += 4e-4 * np.sin(head @ wave + rng.uniform(0, 6))[:, None] * rng.standard_normal(3)
    return head + bumps


@pytest.fixture(scope="module")
def synthetic_scan(model):
    from benchmarks.bm_registration import synthetic_scan

    color = model.albedo(torch.from_numpy(model.random(4).albedo)[None])[0].numpy().clip(0, 1)
    return synthetic_scan(model, bumpy_person(model, 4), 4, color=color), color


def test_a_scan_is_registered(model, synthetic_scan):
    from benchmarks.bm_registration import synthetic_scan_figures

    made, color = synthetic_scan
    found = register(made.scan, model)
    figures = synthetic_scan_figures(model, made, found)
    assert figures["scan to surface"] < 0.3 and figures["truth to surface"] < 0.4
    assert figures["correspondence"] < 2.0
    assert figures["scan to surface"] < figures["scan to model"]
    report = found.report
    assert report.unit_m == 0.001 and report.frames == 1 and report.coverage > 0.5
    assert report.noise_mm == pytest.approx(0.15, abs=0.06)
    assert np.cbrt(np.linalg.det(found.matrix)) == pytest.approx(0.001, rel=1e-6)
    known = np.isfinite(found.albedo).all(1)
    face = ModelSurface(model).face_vertices
    assert known[face].mean() > 0.5
    assert np.abs(found.albedo - color)[known & face].mean() < 0.02
    hidden = model.regions["teeth"]
    assert found.weights[hidden].max() == 0 and not known[hidden].any()
    assert set(report.row()) >= {"mean_mm", "coverage", "unit_m"}


def test_scans_in_no_known_unit_keep_their_shape(model, synthetic_scan):
    made = synthetic_scan[0]
    odd = replace(made.scan, vertices=made.scan.vertices * 0.0137)
    found = find_face(odd, model)
    assert found.unit_m is None and found.error_m < 0.008
    assert np.cbrt(np.linalg.det(found.matrix)) == pytest.approx(0.001 / 0.0137, rel=0.1)


def test_face_upside_down_is_turned_upright(model):
    head, color = person(model, 5), model.albedo(torch.from_numpy(model.random(5).albedo)[None])[0].numpy().clip(0, 1)
    over = Rotation.from_euler("xz", (20, 180), degrees=True).as_matrix()
    found = find_face(Scan(head @ over.T, model.faces, colors=color), model)
    turn = Rotation.from_matrix(found.matrix @ over / found.unit_m)
    assert np.rad2deg(turn.magnitude()) < 8


def test_a_cloud_shows_its_face(model, synthetic_scan):
    made = synthetic_scan[0]
    found = find_face(Scan(made.scan.vertices / 10), model)
    assert found.unit_m == 0.01
    true = made.matrix.T / made.matrix[0].dot(made.matrix[0]) ** 0.5
    turn = Rotation.from_matrix(found.matrix / 0.01 @ true.T)
    assert np.rad2deg(turn.magnitude()) < 8


def test_each_detected_face_is_refined_once(model, synthetic_scan, monkeypatch):
    """Other views of the search show the same face: they are passed over, but not one that stands upside down."""
    matrices, closer = [], scan_landmarks.refine_detection

    def counted(scan, model, matrix, translation):
        matrices.append(matrix)
        found = closer(scan, model, matrix, translation)
        return None if found is None else replace(found, error_m=0.006)  # found, but not surely

    monkeypatch.setattr(scan_landmarks, "refine_detection", counted)
    found = find_face(synthetic_scan[0].scan, model)
    assert found.error_m == 0.006
    upright = found.matrix / np.cbrt(np.linalg.det(found.matrix))
    turns = [
        Rotation.from_matrix(matrix / np.cbrt(np.linalg.det(matrix)) @ upright.T).magnitude() for matrix in matrices
    ]
    assert (np.rad2deg(turns) < 20).sum() == 1
    assert scan_landmarks.is_same_pose(found, found.matrix, found.translation)
    assert not scan_landmarks.is_same_pose(found, found.matrix, found.translation + 0.03)
    over = np.diag([-1.0, -1.0, 1.0])
    assert not scan_landmarks.is_same_pose(found, over @ found.matrix, over @ found.translation)


@pytest.mark.parametrize("count", [1, 2])
def test_depth_frames_give_the_head(model, count, monkeypatch):
    from benchmarks.bm_registration import depth_figures, depth_frame

    monkeypatch.setattr("faceverse.training.registration.FRAME_ROUNDS", 3)
    head = person(model, 3)
    frames = [depth_frame(model, head, yaw, number) for number, yaw in enumerate((0, -30)[:count])]
    found = register([scan for scan, _ in frames], model)
    seen = np.any([visible for _, visible in frames], axis=0)
    figures = depth_figures(model, head, seen, found)
    assert figures["truth to surface"] < 0.5 and figures["correspondence"] < 1.5
    assert found.report.frames == count and found.report.unit_m == 1.0
