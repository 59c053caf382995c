"""Corrective shapes: products of two weights, in the model, its files, its coarse mesh and what is exported."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import faceverse as fv
from faceverse.errors import WeightsError
from faceverse.io.files import read_bytes
from faceverse.model.correctives import corrective_weights, dense_offsets, sparse_offsets
from faceverse.model.face_model import ARKIT_NAMES, FaceModel
from faceverse.model.file import read_model_file, read_stored_model, write_model_data
from faceverse.result import with_params
from faceverse.weights import model_data
from toy import toy_file

JAW, SMILE, TONGUE = (ARKIT_NAMES.index(name) for name in ("jawOpen", "mouthSmileLeft", "tongueOut"))


@pytest.fixture(scope="module")
def file():
    plain, random = toy_file(), np.random.default_rng(1)
    modes = 4 * random.standard_normal((2, len(plain.mean_vertices), 3))
    modes[:, random.random(len(plain.mean_vertices)) < 0.6] = 0
    start, vertex, offset = sparse_offsets(modes, 0.01)
    gain = 0.1 * random.standard_normal((52, 8))
    return replace(
        plain,
        expression_gain=gain.astype(np.float16),
        corrective_pairs=np.array([[JAW, SMILE], [SMILE, TONGUE]], np.int32),
        corrective_start=start,
        corrective_vertex=vertex,
        corrective_offset=offset.astype(np.float16),
    )


@pytest.fixture(scope="module")
def corrected(file):
    return FaceModel(model_data(file))


@pytest.fixture(scope="module")
def plain(file):
    keys = ("corrective_pairs", "corrective_start", "corrective_vertex", "corrective_offset")
    return FaceModel(model_data(replace(file, **dict.fromkeys(keys))))


def row(**weights):
    values = torch.zeros(1, 52)
    for name, weight in weights.items():
        values[0, ARKIT_NAMES.index(name)] = weight
    return values


def identity(seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((1, 8)).astype(np.float32))


def test_sparse_offsets_come_back():
    modes = np.random.default_rng(0).standard_normal((4, 30, 3))
    modes[1] = 0
    modes[2, 5:] = 0
    np.testing.assert_array_equal(dense_offsets(*sparse_offsets(modes, 0), 30), modes)
    start, vertex, offset = sparse_offsets(np.zeros((0, 30, 3)), 0)
    assert start.tolist() == [0] and dense_offsets(start, vertex, offset, 30).shape == (0, 30, 3)


def test_weights_are_products_and_never_negative():
    pairs = np.array([[0, 1], [2, 1]])
    expression = torch.tensor([[0.5, 0.4, -1.0], [1.0, 1.0, 0.3]])
    weights = corrective_weights(pairs, expression, None)
    torch.testing.assert_close(weights, torch.tensor([[0.2, 0.0], [1.0, 0.3]]))
    gain = torch.tensor([[4.0, 1.0, 1.0]])
    torch.testing.assert_close(corrective_weights(pairs, expression, gain), weights * torch.tensor([2.0, 1.0]))


def test_two_expressions_together_get_their_corrective(corrected, plain):
    both, who = row(jawOpen=0.5, mouthSmileLeft=0.8), identity()
    gain = corrected.gain(who)[0]
    weight = 0.4 * float((gain[JAW] * gain[SMILE]).sqrt())
    added = corrected.vertices(who, both) - plain.vertices(who, both)
    expected = weight * np.asarray(corrected.data.corrective_modes)[0]
    np.testing.assert_allclose(added[0].numpy(), expected, atol=1e-6)
    assert np.abs(expected).max() > 1e-3
    for alone in (row(jawOpen=1.0), row(mouthSmileLeft=1.0), row(jawOpen=1.0, tongueOut=1.0), None):
        torch.testing.assert_close(corrected.vertices(who, alone), plain.vertices(who, alone), atol=1e-7, rtol=0)


def test_results_tracks_and_the_coarse_mesh_have_them_too(corrected):
    weights = row(jawOpen=0.7, mouthSmileLeft=0.6, tongueOut=1.0)
    params = corrected.neutral().replace(expression=weights[0].numpy(), identity=identity()[0].numpy())
    vertices = corrected.vertices(identity(), weights)[0].numpy()
    result = with_params(fv.head(corrected.neutral(), corrected, texture_size=64), params)
    np.testing.assert_allclose(result.vertices, vertices, atol=1e-6)
    coarse = corrected.coarse.vertices(identity(), weights)[0].numpy()
    np.testing.assert_allclose(coarse, vertices[corrected.data.coarse_vertices], atol=1e-6)


def test_gradients_flow_through_the_product(corrected):
    weights = row(jawOpen=0.5, mouthSmileLeft=0.5).requires_grad_()
    corrected.vertices(identity(), weights).square().sum().backward()
    assert np.isfinite(weights.grad.numpy()).all() and weights.grad[0, SMILE] != 0


def test_a_glb_shows_the_corrected_head_with_its_own_weights(corrected, tmp_path):
    import trimesh

    params = corrected.neutral().replace(expression=row(jawOpen=0.7, mouthSmileLeft=0.6)[0].numpy())
    result = fv.head(params, corrected, texture_size=64)
    fv.export(result, tmp_path / "head.glb")
    loaded = trimesh.load(tmp_path / "head.glb", process=False)
    positions = next(iter(loaded.geometry.values())).vertices
    pairs = np.unique(
        np.stack([corrected.faces.reshape(-1), corrected.uv_faces.reshape(-1)], axis=1), axis=0
    )
    modes = corrected.expression_modes_of(result.params.identity)
    shown = positions + np.tensordot(result.params.expression, modes, 1)[pairs[:, 0]]
    np.testing.assert_allclose(shown, result.vertices[pairs[:, 0]], atol=2e-6)
    assert len(read_bytes(tmp_path / "head.glb", fv.FaceVerseError)) > 1000


# -- files ------------------------------------------------------------------------------------------------------------
def test_files_keep_them(file, corrected, tmp_path):
    again = read_model_file(file.write(tmp_path / "model.safetensors"))
    for key in ("corrective_pairs", "corrective_start", "corrective_vertex", "corrective_offset"):
        np.testing.assert_array_equal(getattr(again, key), getattr(file, key))
    stored = read_stored_model(write_model_data(corrected.data, tmp_path / "arrays.safetensors"))
    np.testing.assert_array_equal(stored.corrective_pairs, corrected.data.corrective_pairs)
    np.testing.assert_allclose(stored.corrective_modes, np.asarray(corrected.data.corrective_modes))


def test_files_without_them_load_as_before(tmp_path):
    data = model_data(read_model_file(toy_file().write(tmp_path / "model.safetensors")))
    assert data.corrective_pairs is None and data.corrective_modes is None


@pytest.mark.parametrize(
    "change, words",
    [
        ({"corrective_start": None}, "all there or all missing"),
        ({"corrective_pairs": np.array([[0, 52], [0, 1]], np.int32)}, "corrective_pairs must index 0..51"),
        ({"corrective_pairs": np.array([[0, 1]], np.int32)}, "corrective_start"),
        ({"corrective_start": np.array([0, 99999, 3], np.int32)}, "corrective_start has to rise"),
        ({"corrective_vertex": -1}, "corrective_vertex"),
        ({"corrective_offset": np.nan}, "corrective_offset"),
    ],
)
def test_damaged_correctives_are_named(file, tmp_path, change, words):
    ((key, value),) = change.items()
    if isinstance(value, (int, float)):
        value = np.full_like(getattr(file, key), value)
    with pytest.raises(WeightsError, match=words):
        replace(file, **{key: value}).write(tmp_path / "bad.safetensors")
    assert not (tmp_path / "bad.safetensors").exists()
