"""A folder of scans becomes a model: the arithmetic on the toy head, the folder with a stand-in for registration, and
whole scans with the open model."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

import toy
from faceverse.errors import WeightsError
from faceverse.model.face_model import FaceModel
from faceverse.model.file import content_hash
from faceverse.training import collection
from faceverse.training.collection import load_outcome, register_file, train_from_scans
from faceverse.training.registration import Registration, RegistrationReport
from faceverse.training.scan_files import Scan, ScanError, find_scans
from faceverse.training.scan_model import BASE_HEADS, merge_basis, model_from_scans, neutral_control
from faceverse.weights import load_model, model_data

pytest.importorskip("igl")
trimesh = pytest.importorskip("trimesh")

FIGURES = RegistrationReport(0.1, 0.09, 0.3, 0.2, 4.0, 0.1, 0.8, 0.001, 50_000, 1, 0.2, 5.0)


def registration(seed, colored=True):
    """A head registered to the toy: random coefficients, a displacement that the toy's modes do not have, a tint."""
    rng = np.random.default_rng(seed)
    model, file = toy.toy_model(), toy.toy_file()
    params = model.neutral().replace(identity=0.7 * rng.standard_normal(toy.IDENTITY).astype(np.float32))
    wave = 0.002 * rng.standard_normal() * np.sin(file.mean_vertices[:, [1]] / 15) * [0, 0, 1]
    tint = model.mean_albedo * (0.8 + 0.3 * rng.random(3)).astype(np.float32)
    tint[model.regions["teeth"]] = np.nan
    return Registration(
        model.mean_vertices, wave.astype(np.float32), params, np.eye(3), np.zeros(3), tint if colored else None,
        np.ones(len(model.mean_vertices), np.float32), FIGURES,
    )  # fmt: skip


@pytest.fixture(scope="module")
def heads():
    return [registration(seed) for seed in range(60)]


# ----------------------------------------------------------------------------------------------------------- arithmetic


def test_merged_mean_and_covariance_are_the_mixture():
    rng = np.random.default_rng(0)
    base = (rng.standard_normal((5, 3)), rng.standard_normal((4, 5, 3)))
    examples = rng.standard_normal((7, 5, 3)) + 3
    merged = merge_basis(examples, base, np.full(5, 0.2), 15, 1e-6)
    share = 7 / (7 + BASE_HEADS)
    own = examples.mean(0)
    np.testing.assert_allclose(merged.mean, share * own + (1 - share) * base[0])
    flat = (examples - own).reshape(7, -1)
    between = (own - base[0]).reshape(-1)
    old = base[1].reshape(4, -1)
    expected = share * flat.T @ flat / 7 + (1 - share) * old.T @ old + share * (1 - share) * np.outer(between, between)
    modes = merged.modes.reshape(len(merged.modes), -1)
    np.testing.assert_allclose(modes.T @ modes, expected, atol=1e-5)


def test_coefficients_are_carried_there_and_back():
    rng = np.random.default_rng(1)
    base = (rng.standard_normal((6, 3)), rng.standard_normal((4, 6, 3)))
    merged = merge_basis(rng.standard_normal((5, 6, 3)), base, np.full(6, 1 / 6), 10, 1e-6)
    old = rng.standard_normal(4)
    new = merged.to_merged @ old + merged.to_merged_offset
    head = base[0] + np.tensordot(old, base[1], axes=1)
    np.testing.assert_allclose(merged.mean + np.tensordot(new, merged.modes, axes=1), head, atol=1e-4)
    np.testing.assert_allclose(merged.from_merged @ new + merged.from_merged_offset, old, atol=1e-4)


def test_more_scans_count_more(heads):
    base = toy.toy_file()
    own = np.mean([neutral_control(base, head) for head in heads], axis=0)
    distance = [np.abs(model_from_scans(base, heads[:n]).mean_vertices - own).mean() for n in (2, 20, 60)]
    assert distance[0] > distance[1] > distance[2]


def test_new_model_reaches_what_the_base_model_does_not(heads):
    base = toy.toy_file()
    file = model_from_scans(base, heads[:40], modes=12)
    target = neutral_control(base, heads[50])
    left = []
    for one in (base, file):
        modes = one.identity_modes.reshape(len(one.identity_modes), -1).astype(np.float64)
        difference = (target - one.mean_vertices).reshape(-1)
        left.append(np.abs(difference - np.linalg.lstsq(modes.T, difference, rcond=None)[0] @ modes).mean())
    assert left[1] < 0.2 * left[0]


def test_expression_is_no_part_of_the_neutral_head(heads):
    base = toy.toy_file()
    smiling = replace(heads[0], params=heads[0].params.replace(expression=np.ones(52, np.float32)))
    np.testing.assert_array_equal(neutral_control(base, smiling), neutral_control(base, heads[0]))


def params_of(model, coefficients):
    """Parameters from a row of the population."""
    count = len(model.identity_modes)
    return model.neutral().replace(identity=coefficients[:count], albedo=coefficients[count:])


def test_attributes_say_the_same_of_the_same_head(heads):
    base = toy.toy_file()
    population = np.random.default_rng(3).standard_normal((10, toy.IDENTITY + toy.ALBEDO)).astype(np.float16)
    base = replace(base, population=population)
    file = model_from_scans(base, heads[:6], modes=14)
    old, new = FaceModel(model_data(base)), FaceModel(model_data(file))
    for before, after in zip(population, new.data.population, strict=True):
        params = [params_of(m, c.astype(np.float32)) for m, c in ((old, before), (new, after))]
        shapes = [m.vertices(torch.from_numpy(p.identity)[None])[0] for m, p in zip((old, new), params, strict=True)]
        assert (shapes[0] - shapes[1]).norm(dim=1).mean() < 5e-4
        values = [m.attributes(p) for m, p in zip((old, new), params, strict=True)]
        assert values[1]["age"] == pytest.approx(values[0]["age"], abs=2.0)
    age = new.data.attributes[0]
    assert age.step @ age.estimator[:-1] == pytest.approx(1, abs=0.1)


def test_expressions_keep_their_size_on_the_same_head(heads):
    gain = np.zeros((52, toy.IDENTITY), np.float16)
    gain[:, 0] = 0.1
    base = replace(toy.toy_file(), expression_gain=gain)
    old = FaceModel(model_data(base))
    new = FaceModel(model_data(model_from_scans(base, heads[:6])))
    mean = new.expression_modes_of(np.zeros(toy.IDENTITY, np.float32))
    ratio = np.linalg.norm(mean, axis=2).max(1) / np.linalg.norm(old.expression_modes, axis=2).max(1)
    own = np.mean([head.params.identity[0] for head in heads[:6]]) * 6 / (6 + BASE_HEADS)
    np.testing.assert_allclose(ratio, 1 + 0.1 * own, atol=0.02)


def test_colors_of_the_scans_are_learned_where_there_are_any(heads):
    base = toy.toy_file()
    plain = model_from_scans(base, [replace(head, albedo=None) for head in heads[:5]])
    np.testing.assert_array_equal(plain.mean_albedo, base.mean_albedo)
    np.testing.assert_array_equal(plain.albedo_modes, base.albedo_modes)
    tinted = model_from_scans(base, heads)
    model = FaceModel(model_data(tinted))
    face = toy.toy_model().regions["face"]
    wanted = np.mean([head.albedo[face].mean(0) for head in heads], axis=0)
    before, after = (np.abs(m.mean_albedo[face].mean(0) - wanted).mean() for m in (toy.toy_model(), model))
    assert after < 0.6 * before
    assert np.isfinite(model.albedo_modes).all()


# ----------------------------------------------------------------------------------------------------------- the folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Five scans and two that cannot be used; registering them is replaced by toy registrations, and counted."""
    scans = tmp_path / "scans"
    scans.mkdir()
    names = [f"00{k}_01" for k in range(1, 6)] + ["001_02", "006_01", "007_01"]
    for name in names:
        (scans / f"{name}.xyz").write_text("0 0 0\n1 1 1\n")
    (scans / "007_01.xyz").write_text("")
    toy.toy_file().write(tmp_path / "toy.safetensors")
    calls = []

    def fake(frames, model):
        number = len(calls)
        calls.append(frames[0])
        if len(frames[0].vertices) == 3:
            raise ScanError("no face was found in it")
        return registration(number)

    (scans / "006_01.xyz").write_text("0 0 0\n1 1 1\n2 2 2\n")
    monkeypatch.setattr(collection, "register", fake)
    return scans, tmp_path / "toy.safetensors", calls


def train(folder, base, **options):
    lines = []
    path = train_from_scans(
        folder, base.parent / "new.safetensors", model=str(base), jobs=1, report=lines.append, **options
    )
    return path, lines


def rows(base):
    with open(base.parent / "new.scans" / "report.csv", newline="") as opened:
        return {row["scan"]: row for row in csv.DictReader(opened)}


def test_folder_becomes_a_model(folder):
    scans, base, calls = folder
    seen = []
    path, lines = train(scans, base, on_progress=lambda name, share: seen.append(share))
    model = load_model(path)
    assert model.name == "new" and len(model.identity_modes) == toy.IDENTITY
    assert model.info["sources"] == {"base model": content_hash(base), "scans": 5, "scans with colour": 5}
    assert len(calls) == 6 and seen[0] == 0 and seen[-1] == 1 and seen == sorted(seen)
    assert any("006_01 is set aside: no face" in line for line in lines)
    assert any("007_01 is set aside: 007_01.xyz is empty" in line for line in lines)
    table = rows(base)
    assert [table[name]["status"] for name in ("001_01", "001_02", "006_01", "007_01")] == [
        "used", "other expression", "set aside", "set aside",
    ]  # fmt: skip
    assert table["001_01"]["mean_mm"] == "0.1" and table["001_01"]["expression"] == "01"
    assert "no face" in table["006_01"]["reason"]


def test_stopped_run_goes_on_where_it_was(folder):
    scans, base, calls = folder

    def stop(name, share):
        if share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(scans, base, on_progress=stop)
    done = len(calls)
    assert 0 < done < 6 and sum(row["status"] == "used" for row in rows(base).values()) == done
    train(scans, base)
    assert len(calls) == 6
    train(scans, base)
    assert len(calls) == 6  # those that were set aside are not tried again either
    (scans / "002_01.xyz").write_text("0 0 0\n1 1 1\n1 1 1\n1 1 2\n")
    train(scans, base)
    assert len(calls) == 7
    (base.parent / "new.scans" / "003_01.npz").write_bytes(b"rubbish")
    train(scans, base)
    assert len(calls) == 8
    replace(toy.toy_file(), name="another").write(base)
    train(scans, base)
    assert len(calls) == 14


def test_kept_registration_is_the_registration(folder):
    scans, base, _ = folder
    work, sha256 = base.parent / "work", content_hash(base)
    file = find_scans(scans)[0]
    assert load_outcome(file, work, "key") is None
    assert register_file(file, work=work, base=base, sha256=sha256) == (True, "")
    kept = load_outcome(file, work, collection.outcome_key(file, sha256)).registration
    expected = registration(0)
    np.testing.assert_array_equal(kept.displacement, expected.displacement)
    np.testing.assert_array_equal(kept.params.identity, expected.params.identity)
    np.testing.assert_allclose(kept.albedo, expected.albedo, atol=1e-3)
    assert kept.report == expected.report
    assert load_outcome(file, work, "another key") is None


def test_fault_of_the_library_is_not_kept(folder, monkeypatch, capsys):
    scans, base, calls = folder
    good, broken = collection.register, [True]

    def fault(frames, model):
        if broken:
            raise RuntimeError("a fault")
        return good(frames, model)

    monkeypatch.setattr(collection, "register", fault)
    with pytest.raises(ScanError, match="0 of 7 scans can be used"):
        train(scans, base)
    assert "RuntimeError: a fault" in rows(base)["001_01"]["reason"]
    assert "Traceback" in capsys.readouterr().err
    broken.clear()
    train(scans, base)
    assert len(calls) == 6


def test_neutral_expression_can_be_another_or_all(folder):
    scans, base, calls = folder
    with pytest.raises(ScanError, match="1 of 1 scans can be used, a model needs 2"):
        train(scans, base, neutral="02")
    with pytest.raises(ScanError, match="no neutral scan '05'; its expressions are 01, 02"):
        train(scans, base, neutral="05")
    path, _ = train(scans, base, neutral="all")
    assert load_model(path).info["sources"]["scans"] == 6


def test_output_must_not_be_the_base_model(folder):
    scans, base, _ = folder
    with pytest.raises(WeightsError, match="base model itself"):
        train_from_scans(scans, base, model=str(base), jobs=1)


# ----------------------------------------------------------------------------------------------------------- real scans


@pytest.mark.slow
def test_scans_become_a_model_that_fits_a_photograph(model, tmp_path, astronaut):
    import faceverse as fv
    from benchmarks.bm_registration import synthetic_scan
    from faceverse.graphics.lighting import srgb_from_linear
    from faceverse.weights import find_weights

    scans, output = tmp_path / "scans", tmp_path / "new.safetensors"
    scans.mkdir()
    for seed in (1, 2):
        person = model.random(seed)
        head = model.vertices(torch.from_numpy(person.identity)[None])[0].numpy().astype(np.float64)
        color = model.albedo(torch.from_numpy(person.albedo)[None])[0].clamp(0.003, 1).numpy()
        scan: Scan = synthetic_scan(model, head, seed, color=color).scan
        rgb = (srgb_from_linear(torch.from_numpy(scan.colors)).numpy() * 255).round().astype(np.uint8)
        mesh = trimesh.Trimesh(scan.vertices, scan.faces, vertex_colors=rgb, process=False)
        mesh.export(scans / f"00{seed}_01.ply")
    (scans / "003_01.obj").write_bytes(bytes(range(256)))
    lines = []
    train_from_scans(scans, output, model=str(find_weights()), jobs=2, report=lines.append)
    assert any("003_01 is set aside" in line for line in lines)
    new = load_model(output)
    assert new.info["sources"]["scans with colour"] == 2 and new.info["mean_distance_mm"] < 0.3
    assert new.attribute_names == model.attribute_names
    times = [path.stat().st_mtime_ns for path in (tmp_path / "new.scans").glob("*.npz")]
    train_from_scans(scans, output, model=str(find_weights()), jobs=2, report=lines.append)
    assert times == [path.stat().st_mtime_ns for path in (tmp_path / "new.scans").glob("*.npz")]
    result = fv.fit(astronaut, new, detail=False)
    assert np.linalg.norm(result.landmarks_px - result.projected_landmarks_px, axis=1).mean() < 6
    assert fv.render(result, 96).mask.mean() > 0.2
