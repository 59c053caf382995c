"""Displacement in texture space: against formulas, against the displaced mesh, and against differences."""

import numpy as np
import pytest
import torch

from faceverse.detail.dense import MAX_DENSE_FACES, dense_mesh
from faceverse.detail.displacement import (
    TangentFrame,
    compression,
    condition_maps,
    detailed_normals,
    displacement_weight,
    expression_strain,
    normal_map,
    position_map,
    sample_bilinear,
    split_bands,
    surface_strain,
    vertex_values,
)
from faceverse.edit import head
from faceverse.errors import ParameterError
from faceverse.graphics.mesh import vertex_normals
from faceverse.model.face_model import FaceModel, Landmarks, ModelData
from faceverse.model.texture_maps import uv_fragments

PLANE_M = 0.1


def plane(shape=((1.0, 0.0), (0.0, 1.0)), count=9, **regions):
    """A square of 10 cm, sheared by `shape` (2, 2), that fills the middle of its texture; its normal is +z."""
    grid = np.linspace(0, 1, count, dtype=np.float32)
    across, down = np.meshgrid(grid, grid)
    square = np.stack([across - 0.5, 0.5 - down], axis=-1).reshape(-1, 2) * PLANE_M
    vertices = np.pad(square @ np.float32(shape).T, ((0, 0), (0, 1))).astype(np.float32)
    uv = (0.05 + 0.9 * np.stack([across, down], axis=-1).reshape(-1, 2)).astype(np.float32)
    corner = (np.arange(count - 1)[:, None] * count + np.arange(count - 1)).reshape(-1)
    a, b, c, d = corner, corner + 1, corner + count + 1, corner + count
    faces = np.concatenate([np.stack([a, d, c], 1), np.stack([a, c, b], 1)])
    modes, grey = np.zeros((1, len(vertices), 3), np.float32), np.full((len(vertices), 3), 0.5, np.float32)
    landmarks = Landmarks(np.zeros(1, np.int64), np.float32([[1, 0, 0]]), np.ones(1, np.float32))
    data = ModelData(vertices, modes, modes, grey, modes, faces, uv, faces, ("a",), regions, landmarks, landmarks)
    return FaceModel(data)


def waves(size, depth=0.2, period=0.11):
    """A displacement (size, size) mm and its slopes along u and v per unit of UV."""
    v, u = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2, indexing="ij")
    k = 2 * np.pi / period
    height = depth * (np.sin(k * u) + np.cos(k * v + 1))
    return height.astype(np.float32), depth * k * np.cos(k * u), -depth * k * np.sin(k * v + 1)


# ------------------------------------------------------------------------------------------------------ mesh and maps


def test_position_map_is_the_surface_at_texel_centres(model):
    size = 256
    positions = position_map(model, model.mean_vertices, size)
    assert positions.shape == (size, size, 3) and positions.dtype == np.float32
    fragments = uv_fragments(model, size)
    row, column = (index[::97] for index in np.nonzero(fragments.covered))
    triangle, weights = fragments.triangle[row, column], fragments.barycentric[row, column]
    uv = (model.uv[model.uv_faces[triangle]] * weights[..., None]).sum(1)
    np.testing.assert_allclose(uv * size, np.stack([column, row], 1) + 0.5, atol=2e-3)
    points = (model.mean_vertices[model.faces[triangle]] * weights[..., None]).sum(1)
    np.testing.assert_allclose(positions[row, column], points, atol=1e-6)


@pytest.mark.parametrize(("size", "typical_mm", "most_mm"), [(256, 0.1, 1.5), (512, 0.05, 0.5), (1024, 0.025, 0.25)])
def test_positions_come_back_from_their_map(model, size, typical_mm, most_mm):
    """On the face; where triangles are smaller than texels, as between the lips, no map can hold them."""
    face = model.regions["face"]
    found = vertex_values(model, position_map(model, model.mean_vertices, size))
    away_mm = 1000 * np.linalg.norm(found - model.mean_vertices, axis=1)[face]
    assert np.median(away_mm) < typical_mm and np.percentile(away_mm, 95) < most_mm


def test_vertex_values_of_a_smooth_map_are_its_formula(toy_model):
    size = 128
    v, u = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2, indexing="ij")
    linear = (2 * u - 3 * v + 1).astype(np.float32)
    count = len(toy_model.mean_vertices)
    owner = np.zeros(len(toy_model.uv), np.int64)
    owner[toy_model.uv_faces] = toy_model.faces
    places = np.flatnonzero(np.isin(np.arange(len(owner)), toy_model.uv_faces))
    at_places = toy_model.uv[places] @ [2, -3] + 1
    expected = np.bincount(owner[places], at_places, count) / np.maximum(np.bincount(owner[places], minlength=count), 1)
    used = np.isin(np.arange(count), toy_model.faces)
    assert np.bincount(owner[places]).max() > 1  # vertices on a seam, which have their mean
    np.testing.assert_allclose(vertex_values(toy_model, linear)[used], expected[used], atol=1e-5)
    both = vertex_values(toy_model, np.stack([linear, -linear], axis=-1))
    assert both.shape == (count, 2)
    np.testing.assert_allclose(both[:, 1], -both[:, 0], atol=1e-6)


@pytest.mark.parametrize("values", [np.zeros((3, 4)), np.zeros(5), np.zeros((0, 0))])
def test_maps_must_be_square(toy_model, values):
    with pytest.raises(ParameterError, match="a map must have shape"):
        vertex_values(toy_model, values)


def test_bands_add_up_and_part_by_size():
    size = 512
    column = np.arange(size)
    for wavelength_mm, strongest in ((30, 0), (8, 1), (2.5, 2)):
        wave = np.tile(np.sin(2 * np.pi * column * 0.58 / wavelength_mm), (size, 1)).astype(np.float32)
        bands = split_bands(wave)
        assert bands.dtype == np.float32
        np.testing.assert_allclose(bands.sum(0), wave, atol=1e-5)
        assert bands.std((1, 2)).argmax() == strongest
    half = split_bands(np.tile(np.sin(2 * np.pi * np.arange(256) * 1.16 / 8), (256, 1)))
    whole = split_bands(np.tile(np.sin(2 * np.pi * column * 0.58 / 8), (size, 1)))
    np.testing.assert_allclose(half.std((1, 2)), whole.std((1, 2)), rtol=0.15)  # the same skin at half the size


def test_condition_maps_are_albedo_and_neutral_position(toy_model):
    params = toy_model.random(2)
    maps = condition_maps(toy_model, params.replace(expression=params.expression + 0.7), 48)
    assert maps.shape == (6, 48, 48) and maps.dtype == np.float32
    np.testing.assert_array_equal(maps, condition_maps(toy_model, params, 48))
    result = head(params, toy_model)
    centre = toy_model.mean_vertices[toy_model.regions.get("face", slice(None))].mean(0)
    covered = uv_fragments(toy_model, 48).covered
    positions = position_map(toy_model, result.neutral_vertices, 48)[covered]
    np.testing.assert_allclose(maps[3:, covered].T * 0.1 + centre, positions, atol=1e-5)
    albedo = position_map(toy_model, result.albedo, 48)[covered]
    np.testing.assert_allclose(maps[:3, covered].T * 0.25 + 0.35, albedo, atol=1e-5)


def test_displacement_ends_softly_at_the_edge_of_a_chart_and_spares_eyes(model):
    weight = displacement_weight(model, 256)
    fragments = uv_fragments(model, 256)
    assert (weight[~fragments.covered] == 0).all()
    eyes = np.isin(model.faces[fragments.triangle], model.regions["eyeballs"]).all(-1) & fragments.covered
    assert eyes.any() and (weight[eyes] == 0).all()
    assert (weight[fragments.covered & (np.indices((256, 256))[0] < 215)] == 1).mean() > 0.85
    steps = np.abs(np.diff(weight, axis=0)).max(), np.abs(np.diff(weight, axis=1)).max()
    assert max(steps) < 0.75


# ------------------------------------------------------------------------------------------------------------ normals


@pytest.mark.parametrize("shape", [((1, 0), (0, 1)), ((1.5, 0), (0, 0.5)), ((1, 0.6), (0, 0.8)), ((-1, 0), (0, -1))])
def test_normals_of_a_displaced_plane(shape):
    """Stretched, sheared and turned: the slopes on the surface follow from those in the texture by the chain rule."""
    size = 256
    model = plane(shape)
    height, by_u, by_v = waves(size)
    frame = TangentFrame.of(model, model.mean_vertices, size)
    found = detailed_normals(frame, torch.from_numpy(height))[0].numpy()
    # x and y in millimetres of a point (u, v), and from there the gradient of the height.
    to_surface = 1000 * PLANE_M / 0.9 * np.array(shape) @ np.diag([1.0, -1.0])
    gradient = np.stack([by_u, by_v], axis=-1) @ np.linalg.inv(to_surface)
    expected = np.stack([-gradient[..., 0], -gradient[..., 1], np.ones((size, size))])
    expected /= np.linalg.norm(expected, axis=0)
    inside = displacement_weight(model, size) == 1
    inside[:20], inside[-20:], inside[:, :20], inside[:, -20:] = False, False, False, False
    assert np.abs(expected[:2, inside]).max() > 0.08
    assert np.abs(found - expected)[:, inside].max() < 0.005
    texels = np.hypot(*to_surface) / size
    np.testing.assert_allclose(frame.texel_u_mm[128, 128], texels[0], rtol=1e-4)
    np.testing.assert_allclose(frame.texel_v_mm[128, 128], texels[1], rtol=1e-4)


def test_frame_is_orthonormal_and_as_gltf_wants_it(toy_model):
    from faceverse.graphics.mesh import tangents

    size = 128
    vertices = toy_model.mean_vertices
    frame = TangentFrame.of(toy_model, vertices, size)
    axes = torch.stack([frame.tangent_u, frame.tangent_v, frame.normal])
    products = torch.einsum("iahw,jahw->hwij", axes, axes)[torch.tensor(uv_fragments(toy_model, size).covered)]
    torch.testing.assert_close(products, torch.eye(3).expand_as(products), atol=1e-4, rtol=0)
    owner = np.zeros(len(toy_model.uv), np.int64)
    owner[toy_model.uv_faces] = toy_model.faces
    normals = vertex_normals(torch.from_numpy(vertices), torch.from_numpy(toy_model.faces)).numpy()
    gltf = tangents(vertices[owner], normals[owner], toy_model.uv, toy_model.uv_faces)
    fragments = uv_fragments(toy_model, size)
    corners, weights = toy_model.uv_faces[fragments.triangle], fragments.barycentric[..., None]
    blended = (gltf[corners][..., :3] * weights).sum(2)
    inside = fragments.covered
    cosine = (blended * np.moveaxis(frame.tangent_u.numpy(), 0, 2)).sum(-1)[inside] / np.linalg.norm(blended, axis=-1)[
        inside
    ]
    assert np.median(cosine) > 0.999
    against_v = np.cross(np.moveaxis(frame.normal.numpy(), 0, 2), blended) * gltf[corners[..., 0]][..., 3:]
    assert ((against_v * np.moveaxis(frame.tangent_v.numpy(), 0, 2)).sum(-1)[inside] > 0).mean() > 0.999


def test_normals_are_differentiable(toy_model):
    size = 8
    frame = TangentFrame.of(toy_model, toy_model.mean_vertices, size).to(torch.float64)
    assert frame.weight.max() > 0
    displacement = torch.randn(2, size, size, dtype=torch.float64, requires_grad=True)
    normals = detailed_normals(frame, displacement)
    assert normals.shape == (2, 3, size, size) and normals.dtype == torch.float64
    assert torch.autograd.gradcheck(lambda d: detailed_normals(frame, d), displacement)


def test_normal_map_is_the_normals_in_their_frame(toy_model):
    size = 64
    height, _, _ = waves(size, 0.5, 0.3)
    encoded = normal_map(toy_model, toy_model.mean_vertices, height)
    assert encoded.shape == (size, size, 3) and encoded.dtype == np.uint8
    frame = TangentFrame.of(toy_model, toy_model.mean_vertices, size)
    bend = torch.from_numpy(encoded).float().movedim(2, 0) / 127.5 - 1
    normals = bend[0] * frame.tangent_u + bend[1] * frame.tangent_v + bend[2] * frame.normal
    covered = torch.tensor(uv_fragments(toy_model, size).covered)
    expected = detailed_normals(frame, torch.from_numpy(height))[0]
    assert (normals - expected)[:, covered].abs().max() < 0.02
    flat = normal_map(toy_model, toy_model.mean_vertices, np.zeros((size, size)))
    assert set(np.unique(flat[..., :2])) <= {127, 128} and (flat[..., 2] == 255).all()


@pytest.mark.parametrize(
    ("displacement", "message"),
    [
        (np.zeros((4, 5)), r"shape \(S, S\), got \(4, 5\)"),
        (np.zeros((4, 4, 1)), r"shape \(S, S\)"),
        (np.full((4, 4), np.nan), "not finite"),
    ],
)
def test_what_is_no_displacement_is_refused(toy_model, displacement, message):
    with pytest.raises(ParameterError, match=message):
        normal_map(toy_model, toy_model.mean_vertices, displacement)


def test_other_sizes_than_the_frame_and_other_meshes_are_refused(toy_model):
    frame = TangentFrame.of(toy_model, toy_model.mean_vertices, 16)
    with pytest.raises(ParameterError, match="like its frame, got"):
        detailed_normals(frame, torch.zeros(1, 8, 8))
    with pytest.raises(ParameterError, match="vertices must have shape"):
        TangentFrame.of(toy_model, toy_model.mean_vertices[:-1], 16)


# --------------------------------------------------------------------------------------------------------- dense mesh


@pytest.fixture(scope="module")
def rough(model):
    """A head with smooth random displacement."""
    noise = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    displacement = split_bands(noise)[:2].sum(0)
    return head(model.random(3), model, texture_size=64).replace(displacement=0.15 * displacement / displacement.std())


@pytest.fixture(scope="module")
def dense(rough):
    return dense_mesh(rough, 256)


def border_edges(faces):
    sides = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2), axis=1)
    edges, count = np.unique(sides, axis=0, return_counts=True)
    assert count.max() <= 2
    return edges[count == 1]


def test_dense_mesh_has_no_cracks(rough, dense):
    """Its only borders are those of the head, whose edges have been halved."""
    assert 2e5 < len(dense.faces) < 1.1 * MAX_DENSE_FACES
    assert np.array_equal(np.unique(dense.faces), np.unique(dense.faces.clip(0, len(dense.vertices) - 1)))
    before, after = border_edges(rough.faces), border_edges(dense.faces)
    assert len(before) <= len(after) < 8 * len(before)
    assert set(before.ravel()) <= set(after.ravel())
    corners = dense.vertices[dense.faces]
    assert np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).min() > 0


def test_dense_mesh_moves_vertices_by_the_displacement_at_their_place(rough, dense):
    model, count = rough.model, len(rough.vertices)
    normals = vertex_normals(torch.from_numpy(rough.vertices), torch.from_numpy(rough.faces)).numpy()
    moved_mm = 1000 * ((dense.vertices[:count] - rough.vertices) * normals).sum(1)
    expected = vertex_values(model, rough.displacement * displacement_weight(model, 256))
    np.testing.assert_allclose(moved_mm, expected, atol=2e-3)
    hard = np.concatenate([model.regions["eyeballs"], model.regions["teeth"]])
    np.testing.assert_allclose(dense.vertices[hard], rough.vertices[hard], atol=1e-7)
    assert np.abs(moved_mm[model.regions["face"]]).mean() > 0.03


def test_normals_agree_with_those_of_the_dense_mesh(rough, dense):
    model = rough.model
    frame = TangentFrame.of(model, rough.vertices, 256)
    at_vertices = {}
    for name, normals in (
        ("plain", frame.normal),
        ("bent", detailed_normals(frame, torch.tensor(rough.displacement))[0]),
    ):
        found = sample_bilinear(np.ascontiguousarray(normals.movedim(0, 2).numpy()), dense.vertex_uv)
        at_vertices[name] = found / np.linalg.norm(found, axis=1, keepdims=True)
    on_face = np.unique(dense.faces[np.isin(model.faces, model.regions["face"]).all(1)[dense.source_face]])
    on_face = on_face[sample_bilinear(displacement_weight(model, 256), dense.vertex_uv[on_face]) > 0.99]
    away = {
        name: np.degrees(np.arccos((n * dense.normals).sum(1).clip(-1, 1)))[on_face] for name, n in at_vertices.items()
    }
    assert np.median(away["plain"]) > 2
    assert np.median(away["bent"]) < 0.35 * np.median(away["plain"])


def test_dense_mesh_keeps_the_texture_in_its_place(rough, dense):
    """Each part of a triangle lies in that triangle, on the head and in the texture."""
    model = rough.model
    corners = model.uv[model.uv_faces[dense.source_face]]
    parts = dense.uv[dense.uv_faces]
    assert (parts.min(1) >= corners.min(1) - 1e-6).all() and (parts.max(1) <= corners.max(1) + 1e-6).all()
    a, b, c = parts.astype(float).transpose(1, 0, 2)
    area = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    a, b, c = model.uv[model.uv_faces].astype(float).transpose(1, 0, 2)
    whole = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    np.testing.assert_allclose(np.bincount(dense.source_face, area), whole, rtol=1e-3, atol=1e-8)


def test_halved_edges_follow_the_curve(toy_model):
    """Without displacement the mesh is not flatter than the head: middles of edges lie off their chords, outwards."""
    smooth = head(toy_model.neutral(), toy_model, texture_size=16).replace(displacement=np.zeros((64, 64), np.float32))
    mesh = dense_mesh(smooth, 64)
    count = len(smooth.vertices)
    np.testing.assert_allclose(mesh.vertices[:count], smooth.vertices, atol=1e-7)
    longest = np.linalg.norm(
        smooth.vertices[smooth.faces] - np.roll(smooth.vertices[smooth.faces], 1, 1), axis=-1
    ).max()
    corners = smooth.vertices[smooth.faces[mesh.source_face]]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    above = ((mesh.vertices[mesh.faces].mean(1) - corners[:, 0]) * normal).sum(1)
    assert np.abs(above).max() < 0.25 * longest and above.mean() > 0


def test_a_head_without_displacement_has_no_dense_mesh(rough):
    with pytest.raises(ParameterError, match="has no displacement"):
        dense_mesh(rough.replace(displacement=None))


# ------------------------------------------------------------------------------------------------------------- strain


def test_strain_of_a_stretched_plane():
    model = plane(count=17)
    before = model.mean_vertices.astype(float)
    stretch = np.array([[1.2, 0.1, 0], [0.0, 0.9, 0], [0, 0, 1]])
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    frame = TangentFrame.of(model, model.mean_vertices, 128)
    strain = surface_strain(model, before, before @ stretch.T @ turn.T + 0.3, frame)
    expected = (stretch.T @ stretch - np.eye(3)) / 2
    middle = strain[:, 40:-40, 40:-40]
    np.testing.assert_allclose(middle[0], expected[0, 0], atol=1e-4)
    np.testing.assert_allclose(middle[1], expected[0, 1], atol=1e-4)
    np.testing.assert_allclose(middle[2], expected[1, 1], atol=1e-4)
    magnitude, angle = compression(strain)
    values, vectors = np.linalg.eigh(expected[:2, :2])
    np.testing.assert_allclose(magnitude[64, 64], -values[0], atol=1e-4)
    direction = np.array([np.cos(angle[64, 64]), np.sin(angle[64, 64])])
    assert abs(direction @ vectors[:, 0]) == pytest.approx(1, abs=1e-4)


def test_turning_the_head_strains_nothing_and_stretching_compresses_nothing():
    model = plane()
    before = model.mean_vertices.astype(float)
    frame = TangentFrame.of(model, model.mean_vertices, 32)
    turned = surface_strain(model, before, before[:, [1, 2, 0]] + 0.1, frame)
    assert np.abs(turned).max() < 1e-6
    assert (compression(surface_strain(model, before, 1.3 * before, frame))[0] < 1e-6).all()
    assert np.abs(surface_strain(model, before, 3 * before, frame)).max() == pytest.approx(0.6)


def test_expressions_compress_the_skin_where_faces_wrinkle(model):
    def pressed(*names):
        weights = np.float32([name in names for name in model.expression_names])
        strain = expression_strain(model, model.neutral().replace(expression=weights), 128)
        assert strain.shape == (3, 128, 128) and strain.dtype == np.float32 and np.abs(strain).max() <= 0.6
        assert (strain[:, displacement_weight(model, 128) == 0] == 0).all()
        return compression(strain)

    assert (pressed()[0] == 0).all()
    raised, angle = pressed("browInnerUp", "browOuterUpLeft", "browOuterUpRight")
    forehead, cheek = (slice(18, 36), slice(50, 78)), (slice(62, 74), slice(28, 40))
    assert raised[forehead].max() > 0.1 and raised[cheek].max() < 0.02
    strongest = np.unravel_index(np.where(raised == raised[forehead].max(), 1, 0).argmax(), raised.shape)
    assert abs(np.sin(angle[strongest])) > 0.95  # shortened upwards: the lines run from side to side
    frown, angle = pressed("browDownLeft", "browDownRight")
    glabella = frown[36:44, 60:68]
    assert glabella.max() > 0.08
    row, column = np.unravel_index(glabella.argmax(), glabella.shape)
    assert abs(np.cos(angle[36 + row, 60 + column])) > 0.8  # shortened sideways: the lines are upright
    smile = pressed("mouthSmileLeft", "mouthSmileRight")[0]
    assert smile[cheek].max() > 0.1 and smile[forehead].max() < 0.02


def test_strain_has_two_like_sides(model):
    """A head that is alike on both sides wrinkles alike on both sides."""
    weights = np.float32([name.startswith("mouthSmile") for name in model.expression_names])
    strain = expression_strain(model, model.neutral().replace(expression=weights), 128)
    mirrored = strain[:, :, ::-1] * np.float32([1, -1, 1])[:, None, None]
    assert np.abs(strain - mirrored).mean() < 0.1 * np.abs(strain).mean()
