"""Model files: what is written comes back, what is wrong is named, what is looked for is found, without a network."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from faceverse import weights
from faceverse.errors import WeightsError
from faceverse.graphics.mesh import triangles_from_quads
from faceverse.model.face_model import FaceModel
from faceverse.model.file import ModelFile, content_hash, read_model_file
from faceverse.weights import find_weights, load_model, model_data
from toy import REGIONS, toy_file, toy_model

METADATA = {"format": "faceverse-model", "format_version": "2", "name": "toy"}


@pytest.fixture
def path(tmp_path):
    return toy_file().write(tmp_path / "toy.safetensors")


@pytest.fixture
def unset(monkeypatch):
    """No weights anywhere: neither in the environment nor beside the package."""

    def elsewhere(folder):
        for variable in ("FACEVERSE_WEIGHTS", "FACEVERSE_HUB"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(weights, "_PACKAGE", folder / "faceverse")

    return elsewhere


def rewrite(path, arrays=None, metadata=None):
    """The toy's file again with arrays or metadata exchanged; None removes one."""
    file = toy_file()
    stored = METADATA | {
        key: json.dumps(getattr(file, key)) for key in ("expression_names", "region_names", "attributes", "info")
    }
    stored = {k: v for k, v in (stored | (metadata or {})).items() if v is not None}
    tensors = {k: np.ascontiguousarray(v) for k, v in (file.arrays() | (arrays or {})).items() if v is not None}
    save_file(tensors, path, stored)
    return path


def plain_file():
    """The toy's fine mesh as a file without subdivision."""
    model = toy_model()
    return replace(
        toy_file(),
        mean_vertices=(model.mean_vertices * 1000).astype(np.float32),
        identity_modes=(model.identity_modes * 1000).astype(np.float16),
        expression_modes=(model.expression_modes * 1000).astype(np.float16),
        uv=model.uv,
        quads=None,
        uv_quads=None,
        faces=model.faces.astype(np.int32),
        uv_faces=model.uv_faces.astype(np.int32),
    )


# -- round trip -------------------------------------------------------------------------------------------------------
def test_what_is_written_comes_back(path):
    file, again = toy_file(), read_model_file(path)
    assert set(again.arrays()) == set(file.arrays())
    for key, value in file.arrays().items():
        np.testing.assert_array_equal(getattr(again, key), value)
        assert getattr(again, key).dtype == value.dtype
    for key in ("name", "expression_names", "region_names", "attributes", "info"):
        assert getattr(again, key) == getattr(file, key)


def test_arrays_that_are_not_contiguous_are_written_right(tmp_path):
    file = toy_file()
    turned = np.asfortranarray(file.identity_modes)
    replace(file, identity_modes=turned).write(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(read_model_file(tmp_path / "m.safetensors").identity_modes, turned)


def test_loading_gives_the_model_that_was_saved(path):
    loaded, toy = load_model(path), toy_model()
    np.testing.assert_array_equal(loaded.mean_vertices, toy.mean_vertices)
    np.testing.assert_array_equal(loaded.albedo_modes, toy.albedo_modes)
    np.testing.assert_array_equal(loaded.faces, toy.faces)
    assert loaded.name == "toy" and loaded.attribute_names == ("age", "gender")
    assert loaded.info["licence"] == "CC0-1.0"
    assert loaded.info["sha256"] == content_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_positions_become_metres_and_modes_are_refined_like_positions():
    file, data = toy_file(), model_data(toy_file())
    assert data.mean_vertices.dtype == data.identity_modes.dtype == data.albedo_modes.dtype == np.float32
    assert data.faces.dtype == data.landmarks_478.triangle.dtype == np.int64
    assert np.ptp(data.mean_vertices, axis=0)[1] == pytest.approx(0.23, abs=1e-5)
    moved = file.mean_vertices + 2 * file.identity_modes[3].astype(np.float32)
    expected = model_data(replace(file, mean_vertices=moved)).mean_vertices
    np.testing.assert_allclose(data.mean_vertices + 2 * data.identity_modes[3], expected, atol=1e-7)


def test_regions_are_the_vertices_whose_bit_is_set():
    file, data = toy_file(), model_data(toy_file())
    for vertex in range(0, len(data.mean_vertices), 7):
        for bit, name in enumerate(REGIONS):
            assert (vertex in data.regions[name]) == bool(int(file.region_bits[vertex]) & (1 << bit))


def test_a_file_without_subdivision_is_the_same_head(tmp_path):
    plain_file().write(tmp_path / "plain.safetensors")
    plain, toy = load_model(tmp_path / "plain.safetensors"), toy_model()
    np.testing.assert_allclose(plain.mean_vertices, toy.mean_vertices, atol=1e-7)
    np.testing.assert_allclose(plain.identity_modes, toy.identity_modes, atol=1e-5)
    np.testing.assert_array_equal(plain.uv_faces, toy.uv_faces)
    assert plain.coarse is plain


def test_a_population_is_optional_and_comes_back(tmp_path):
    population = np.random.default_rng(0).normal(size=(20, 13)).astype(np.float16)
    replace(toy_file(), population=population).write(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(load_model(tmp_path / "m.safetensors").data.population, population)
    assert model_data(toy_file()).population is None
    path = rewrite(tmp_path / "x.safetensors", {"population": population[:, 1:]})
    refused(path, "population must be float16 (20, 13)")


# -- texture coordinates ----------------------------------------------------------------------------------------------
def backwards():
    """The toy with its quads in reverse order, so that copies at seams come before the vertices' own rows."""
    return replace(toy_file(), quads=toy_file().quads[::-1], uv_quads=toy_file().uv_quads[::-1])


@pytest.mark.parametrize("make", [toy_file, backwards])
def test_fine_uv_is_the_bilinear_refinement_of_every_quad(make):
    file, data = make(), model_data(make())
    corners = file.uv[file.uv_quads]
    centre, following = corners.mean(1), np.roll(corners, -1, axis=1)
    fine = [
        np.stack([corners[:, k], (corners + following)[:, k] / 2, centre, (corners + following)[:, k - 1] / 2], axis=1)
        for k in range(4)
    ]
    quads = np.stack(fine, axis=1).reshape(-1, 4, 2)
    expected = np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], axis=1).reshape(-1, 3, 2)
    np.testing.assert_allclose(data.uv[data.uv_faces], expected, atol=1e-6)


@pytest.mark.parametrize("make", [toy_file, backwards])
def test_every_vertex_has_its_first_uv_among_its_own_corners(make):
    data = model_data(make())
    vertex_count = len(data.mean_vertices)
    assert len(data.uv) >= vertex_count
    mine = np.zeros(vertex_count, dtype=bool)
    mine[data.faces[data.uv_faces == data.faces]] = True
    assert mine.all()
    assert ((data.uv_faces == data.faces) | (data.uv_faces >= vertex_count)).all()
    assert np.array_equal(np.unique(data.uv_faces), np.arange(len(data.uv)))


@pytest.mark.parametrize("make", [toy_file, backwards])
def test_the_coarse_mesh_shares_the_uv(make):
    file, data = make(), model_data(make())
    np.testing.assert_array_equal(data.uv[data.coarse_uv_faces], file.uv[triangles_from_quads(file.uv_quads)])
    np.testing.assert_array_equal(data.uv[data.coarse_vertices], file.uv[data.coarse_vertices])
    own = data.coarse_uv_faces < len(data.mean_vertices)
    np.testing.assert_array_equal(data.coarse_uv_faces[own], data.coarse_faces[own])


# -- refusals ---------------------------------------------------------------------------------------------------------
def refused(path, *words):
    with pytest.raises(WeightsError) as caught:
        read_model_file(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.01, 0.5, 0.9, 0.9999])
def test_a_file_that_was_cut_short_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "damaged, cut short or not a .safetensors file")


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 4096, b"\x80\x04\x95" + b"numpy" * 50])
def test_something_else_under_that_name_is_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    refused(path, "not a .safetensors file")


def test_another_kind_of_safetensors_file_is_refused(tmp_path):
    save_file({"weight": np.zeros(3)}, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", "is not a face model", "faceverse-model")


def test_another_format_version_is_refused(tmp_path):
    refused(rewrite(tmp_path / "x.safetensors", metadata={"format_version": "3"}), "'3'", "faceverse reads 2")


def test_missing_and_extra_arrays_are_listed_together(tmp_path):
    changed = {"uv": None, "albedo_modes": None, "hair": np.zeros(2)}
    path = rewrite(tmp_path / "x.safetensors", changed)
    refused(path, "missing albedo_modes, uv;", "not expected hair")


def test_quads_and_faces_together_are_refused(tmp_path):
    faces = {"faces": toy_model().faces.astype(np.int32)}
    refused(rewrite(tmp_path / "x.safetensors", faces), "not expected faces")
    with pytest.raises(WeightsError, match="either quads and uv_quads or faces and uv_faces"):
        replace(toy_file(), **faces).write(tmp_path / "y.safetensors")


@pytest.mark.parametrize("key", sorted(toy_file().arrays()))
def test_every_array_of_a_wrong_shape_or_type_is_named(tmp_path, key):
    value = toy_file().arrays()[key]
    refused(rewrite(tmp_path / "x.safetensors", {key: value[..., None]}), f"{key} must be {value.dtype}")
    refused(rewrite(tmp_path / "x.safetensors", {key: value.astype(np.float64)}), f"{key} must be", "float64")
    if key not in ("quads", "uv_quads", "mean_vertices", "identity_modes", "albedo_modes", "uv"):
        refused(rewrite(tmp_path / "x.safetensors", {key: value[:-1]}), f"{key} must be", f"{value[:-1].shape}")


def test_all_wrong_arrays_are_in_one_message(tmp_path):
    file = toy_file()
    changed = {"landmarks_68_sigma": file.landmarks_68_sigma[:5], "mean_albedo": file.mean_albedo[:-2]}
    refused(rewrite(tmp_path / "x.safetensors", changed), "landmarks_68_sigma must be", "mean_albedo must be")


def changed_copy(key, index, value):
    array = toy_file().arrays()[key].copy()
    array[index] = value
    return {key: array}


@pytest.mark.parametrize(
    "arrays, words",
    [
        (changed_copy("quads", (3, 1), 180), "quads must index 0..179"),
        (changed_copy("quads", (3, 1), -1), "quads must index 0..179"),
        (changed_copy("uv_quads", (0, 0), 100000), "uv_quads must index"),
        (changed_copy("uv_quads", (3, 1), 0), "uv must start with one row per vertex"),
        (changed_copy("landmarks_478_triangle", 5, 1296), "landmarks_478_triangle must index 0..1295"),
        (changed_copy("landmarks_68_barycentric", (5, 0), 3.0), "landmarks_68_barycentric must be rows of weights"),
        (changed_copy("landmarks_478_barycentric", 5, (1.5, -0.5, 0)), "478_barycentric must be rows of weights"),
        (changed_copy("mean_vertices", (7, 2), np.nan), "mean_vertices has values that are not finite"),
        (changed_copy("albedo_scale", 3, 8e36), "albedo_scale has numbers beyond a million"),
        (changed_copy("mean_albedo", (7, 2), np.inf), "mean_albedo has values that are not finite"),
        (changed_copy("region_bits", 7, 1 << 12), "region_bits uses more bits than the 10 region names"),
    ],
)
def test_values_out_of_range_are_named(tmp_path, arrays, words):
    if "quads" in arrays:
        arrays = shaped_for(arrays)
    refused(rewrite(tmp_path / "x.safetensors", arrays), words)


def shaped_for(arrays):
    """Other quads have other edges: give the fine arrays the length that goes with them."""
    file = toy_file()
    sides = np.stack([arrays["quads"], np.roll(arrays["quads"], -1, axis=1)], axis=-1).reshape(-1, 2)
    count = len(file.mean_vertices) + len(np.unique(np.sort(sides, axis=1), axis=0)) + len(file.quads)
    return arrays | {
        "mean_albedo": np.zeros((count, 3), np.float16),
        "albedo_modes": np.zeros((5, count, 3), np.int8),
        "region_bits": np.zeros(count, np.uint16),
    }


@pytest.mark.parametrize(
    "metadata, words",
    [
        ({"expression_names": None}, "metadata entry expression_names is missing or not a JSON list"),
        ({"info": "[1]"}, "metadata entry info is missing or not a JSON dict"),
        ({"region_names": "{broken"}, "metadata entry region_names"),
        ({"expression_names": '["jawOpen"]'}, "expression_modes must be float16 (1, 180, 3)"),
        ({"expression_names": json.dumps(["same"] * 52)}, "expression_names must be different strings"),
        ({"attributes": '[{"name": "age"}, 3]'}, "each attribute must be name, unit"),
    ],
)
def test_wrong_metadata_is_named(tmp_path, metadata, words):
    refused(rewrite(tmp_path / "x.safetensors", metadata=metadata), words)


def test_a_wrong_model_is_not_written_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(WeightsError, match="uv must be float32"):
        replace(toy_file(), uv=toy_file().uv.astype(np.float64)).write(tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(path, monkeypatch):
    before = path.read_bytes()

    def refuse(source, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(WeightsError, match="cannot write .*permission denied"):
        replace(toy_file(), name="new").write(path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_an_unwritable_folder_is_one_error(tmp_path):
    with pytest.raises(WeightsError, match="cannot write"):
        toy_file().write(tmp_path / "missing" / "m.safetensors")


# -- finding ----------------------------------------------------------------------------------------------------------
def test_loading_twice_gives_the_same_object_until_the_file_changes(path):
    first = load_model(path)
    assert load_model(str(path)) is first
    replace(toy_file(), name="TOY").write(path)
    os.utime(path, ns=(1, 1))
    assert load_model(path).name == "TOY"


@pytest.mark.parametrize(
    "source, words",
    [
        ("nowhere/model.safetensors", "there is no model file nowhere/model.safetensors"),
        ("nowhere/faceverse_v3.npy", "there is no model file nowhere/faceverse_v3.npy"),
        ("close", 'expected "open", a .safetensors file, an official .npy file or "hf://'),
        ("close", 'got "close"'),
        ("hf://justarepo", 'expected "hf://owner/repo@revision"'),
        ("hf://a/b@main/weights.bin", "does not name a .safetensors or .npy file"),
    ],
)
def test_sources_that_cannot_be_are_refused(source, words):
    with pytest.raises(WeightsError) as caught:
        load_model(source)
    assert words in str(caught.value)


def test_a_folder_is_no_model(tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(WeightsError, match="is a folder; give a file"):
        load_model(tmp_path / "x.safetensors")


def test_the_open_model_is_looked_for_in_the_documented_order(tmp_path, unset, monkeypatch):
    unset(tmp_path)
    installed = tmp_path / "faceverse" / "_weights" / "open_base.safetensors"
    repository = tmp_path / "weights" / "open_base.safetensors"
    chosen = tmp_path / "chosen" / "open_base.safetensors"
    for place in (installed, repository, chosen):
        place.parent.mkdir(parents=True)
        toy_file().write(place)
        if place is not chosen:
            assert find_weights() == place
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(chosen.parent))
    assert find_weights() == chosen
    other = toy_file().write(tmp_path / "other.safetensors")
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(other))
    assert find_weights("open") == other
    assert load_model().name == "toy"
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(tmp_path / "typo"))
    with pytest.warns(UserWarning, match="typo .no such file.: using"):
        assert find_weights() == repository


def test_a_failed_search_says_everything_that_was_tried(tmp_path, unset, monkeypatch):
    unset(tmp_path)
    with pytest.raises(WeightsError) as caught:
        load_model()
    for place in ("FACEVERSE_WEIGHTS (not set)", "weights", "_weights", "FACEVERSE_HUB (not set)"):
        assert place in str(caught.value)
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(tmp_path / "empty"))
    monkeypatch.setenv("FACEVERSE_HUB", "not a repository")
    with pytest.raises(WeightsError) as caught:
        load_model()
    assert f"FACEVERSE_WEIGHTS={tmp_path / 'empty'}" in str(caught.value)
    assert "FACEVERSE_HUB=not a repository" in str(caught.value)


def test_a_damaged_file_is_not_skipped_silently(tmp_path, unset, monkeypatch):
    unset(tmp_path)
    (tmp_path / "open_base.safetensors").write_bytes(b"damaged")
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="damaged"):
        load_model()


# -- the hub, from a local cache with the network cut -----------------------------------------------------------------
HUB_SCRIPT = """
import json, socket, sys
from pathlib import Path

attempts = []

def blocked(*arguments, **keywords):
    attempts.append(repr(arguments[1:]))
    raise OSError("the network is cut")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = blocked
from faceverse import weights
from faceverse.errors import WeightsError

weights._PACKAGE = Path(sys.argv[1])
answers = {}
for source in sys.argv[2:]:
    try:
        model = weights.load_model(source)
        answers[source] = [model.name, model.info["sha256"], len(attempts)]
    except WeightsError as error:
        answers[source] = str(error)
print(json.dumps(answers))
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path):
    repo = tmp_path / "cache" / "models--someone--faces"
    snapshot = repo / "snapshots" / COMMIT
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    snapshot.mkdir(parents=True)
    toy_file().write(snapshot / "open_base.safetensors")
    (snapshot / "other").mkdir()
    replace(toy_file(), name="other").write(snapshot / "other" / "m.safetensors")
    return tmp_path / "cache"


def ask_hub(hub_cache, offline, *sources):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "FACEVERSE_"))}
    environment |= {"HF_HUB_CACHE": str(hub_cache), "HF_HUB_OFFLINE": offline, "FACEVERSE_HUB": "someone/faces@main"}
    answer = subprocess.run(
        [sys.executable, "-c", HUB_SCRIPT, str(hub_cache.parent / "faceverse"), *sources],
        cwd=Path(weights.__file__).parents[1], env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.mark.parametrize("offline", ["0", "1"])
def test_the_hub_cache_is_enough(hub_cache, offline):
    main, commit = "hf://someone/faces@main", f"hf://someone/faces@{COMMIT}/other/m.safetensors"
    missing = "hf://someone/faces@main/absent.safetensors"
    sources = [main, commit, "hf://someone/faces", "open"] + [missing] * (offline == "1")
    answers = ask_hub(hub_cache, offline, *sources)
    digest = content_hash(hub_cache / "models--someone--faces" / "snapshots" / COMMIT / "open_base.safetensors")
    for source in (main, "hf://someone/faces", "open"):
        assert answers[source] == ["toy", digest, 0]
    assert answers[commit][0] == "other"
    if offline == "1":
        for word in ("absent.safetensors", "the local cache (not there)", "the network ("):
            assert word in answers[missing]
        assert "\n" not in answers[missing]


def test_model_files_hold_no_code(path):
    """Only arrays and text come out of a file; the model is built by us."""
    stored = load_file(path)
    assert all(isinstance(v, np.ndarray) and v.dtype != object for v in stored.values())
    names = {"expression_names": toy_file().expression_names, "region_names": REGIONS}
    file = ModelFile(**stored, **names, attributes=toy_file().attributes)
    assert isinstance(FaceModel(model_data(file)).tensor("mean_vertices"), torch.Tensor)
