"""Detail modules: what each file holds is recognised, what is wrong is named, what is written comes back."""

import os
from dataclasses import fields

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from faceverse.detail.file import has_open_detail, load_detail, save_detail
from faceverse.detail.module import DetailLayout, DetailModule
from faceverse.detail.official import load_detail_layout, load_generator
from faceverse.detail.stylegan import ConditionalGenerator
from faceverse.errors import ParameterError, WeightsError

VERTICES, FACES = 70, 40


def generator(image_channels=6, size=16, condition_channels=6, seed=0):
    torch.manual_seed(seed)
    widths = {2**level: 2 for level in range(2, size.bit_length())}
    options = {"image_channels": image_channels, "condition_channels": condition_channels, "channels": widths}
    return ConditionalGenerator(size, style_dim=3, mapping_layers=1, **options)


def checkpoint(path, image_channels=6, size=16, **options):
    """A file as training leaves it, with the generator that was trained beside its average."""
    averaged = generator(image_channels, size, **options).state_dict()
    torch.save({"g": generator(image_channels, size, seed=9).state_dict(), "g_ema": averaged, "step": 7}, path)
    return path


def layout_arrays(side=1024):
    draw = np.random.default_rng(0)
    return {
        "uv": draw.integers(0, side, (VERTICES, 2)),
        "uvmask": draw.random((side, side)).astype(np.float32),
        "tri": draw.integers(0, VERTICES, (FACES, 3)),
        "point_buf": draw.integers(0, FACES, (VERTICES, 8)),
        "keypoints": draw.integers(0, VERTICES, 66),
    }


def layout_file(path, **changes):
    np.save(path, layout_arrays() | changes)
    return path


def small_layout(side=16):
    arrays = layout_arrays(side)
    keys = ("uv", "uvmask", "tri", "point_buf", "keypoints")
    return DetailLayout(*(arrays[key] for key in keys))


def assert_same_weights(found, expected):
    state, wanted = found.state_dict(), expected.state_dict()
    assert list(state) == list(wanted)
    for key, value in wanted.items():
        assert torch.equal(state[key], value) and state[key].dtype == value.dtype, key


def assert_same_layout(found, expected):
    for one in fields(DetailLayout):
        value, wanted = getattr(found, one.name), getattr(expected, one.name)
        assert value.dtype == wanted.dtype and np.array_equal(value, wanted), one.name


# ------------------------------------------------------------------------------------------------------- generators


def test_generators_from_files_and_dictionaries(tmp_path):
    expected = generator()
    state = expected.state_dict()
    plain = tmp_path / "plain.pt"
    torch.save(state, plain)
    save_file(state, tmp_path / "plain.safetensors")
    for source in (checkpoint(tmp_path / "a.pt"), str(plain), tmp_path / "plain.safetensors", state, {"g_ema": state}):
        found = load_generator(source)
        assert_same_weights(found, expected)
        z, condition = torch.randn(1, 3), torch.randn(1, 6, 16, 16)
        image, latents = found(z, condition, found.make_noise(0))
        assert image.shape == (1, 6, 16, 16) and latents.shape == (1, 6, 3)
        assert not image.requires_grad  # frozen, unless something is asked for
        assert found(z.requires_grad_(), condition)[0].requires_grad


def test_generators_of_saved_modules(tmp_path):
    path = save_detail(DetailModule(expression=generator(3), layout=small_layout()), tmp_path / "one.safetensors")
    assert_same_weights(load_generator(path), generator(3))
    path = save_detail(DetailModule(detail=generator(6), expression=generator(3)), tmp_path / "two.safetensors")
    with pytest.raises(WeightsError, match="holds the generators detail and expression: open it with load_detail"):
        load_generator(path)


def test_what_is_no_generator_is_named(tmp_path):
    torch.save({"model": {"a": 1}, "step": 3}, tmp_path / "other.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    (tmp_path / "damaged.safetensors").write_bytes(b"1234567890")
    for source, message in [
        (tmp_path / "none.pt", "there is no model file"),
        (tmp_path / "none.safetensors", "there is no model file"),
        (tmp_path / "damaged.safetensors", "damaged, cut short or not a .safetensors file"),
        (tmp_path / "other.pt", 'other.pt holds no generator: neither a state dict nor one under "g_ema", but model'),
        (tmp_path / "tensor.pt", "not a dictionary of tensors"),
        (tmp_path / "generator.npy", "expected a checkpoint .pt or a .safetensors file"),
        ({"g_ema": 3}, "the state dict holds no generator"),
        ({"g_ema": {"a": torch.zeros(1)}}, "the state dict is no conditional StyleGAN2 generator"),
    ]:
        with pytest.raises(WeightsError, match=message):
            load_generator(source)
    with pytest.raises(ParameterError, match="expected a path or a dictionary, got int"):
        load_generator(3)


def test_no_code_of_a_checkpoint_runs(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it_ran"),)

    torch.save({"g_ema": generator().state_dict(), "args": Hostile()}, tmp_path / "hostile.pt")
    np.save(tmp_path / "hostile.npy", {**layout_arrays(), "more": Hostile()})
    for path in (tmp_path / "hostile.pt", tmp_path / "hostile.npy"):
        with pytest.raises(WeightsError, match="it tries to call .*mkdir"):
            load_detail(path)
    with pytest.raises(WeightsError, match="it tries to call .*mkdir"):
        load_detail(tmp_path)
    assert not (tmp_path / "it_ran").exists()


# ----------------------------------------------------------------------------------------------------------- layout


def test_layouts_of_all_shapes(tmp_path):
    arrays = layout_arrays()
    found = load_detail_layout(layout_file(tmp_path / "a.npy"))
    for key, official in [("uv_texels", "uv"), ("faces", "tri"), ("point_faces", "point_buf")]:
        value = getattr(found, key)
        assert value.dtype == np.int64 and np.array_equal(value, arrays[official])
    assert found.mask.dtype == np.float32 and np.array_equal(found.mask, arrays["uvmask"])
    assert np.array_equal(found.keypoints, arrays["keypoints"])
    others = {
        "uv": arrays["uv"].reshape(-1).astype(np.uint16),
        "uvmask": arrays["uvmask"].astype(np.float64)[None, :, :, None],
        "tri": arrays["tri"].astype(np.float32)[None],
        "point_buf": arrays["point_buf"].astype(np.int32).reshape(-1),
        "keypoints": arrays["keypoints"].reshape(1, 66, 1),
    }
    assert_same_layout(load_detail_layout(others), found)
    assert_same_layout(load_detail_layout({**arrays, "keypoints": arrays["keypoints"].tolist()}), found)


def test_all_that_is_wrong_with_a_layout_is_in_one_message(tmp_path):
    arrays = layout_arrays() | {
        "tri": np.full((FACES, 3), VERTICES),
        "point_buf": np.zeros((VERTICES, 7), int),
        "uv": layout_arrays()["uv"].T,
        "extra": np.zeros(3),
    }
    del arrays["uvmask"]
    np.save(tmp_path / "wrong.npy", arrays)
    with pytest.raises(WeightsError) as caught:
        load_detail_layout(tmp_path / "wrong.npy")
    text = str(caught.value)
    assert "wrong.npy does not fit the layout of a detail module" in text and "\n" not in text
    assert "missing: uvmask" in text and "not expected: extra" in text
    assert "uv must be finite numbers (any, 2), got int64 (2, 70)" in text
    assert "point_buf must be finite numbers (any, 8), got int64 (70, 7)" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tri": np.full((FACES, 3), VERTICES)}, "tri must index 0..69, got 70..70"),
        ({"tri": np.full((FACES, 3), -1)}, "tri must index 0..69, got -1..-1"),
        ({"tri": np.full((FACES, 3), 0.5)}, "tri must be whole numbers"),
        ({"tri": np.zeros((0, 3))}, r"tri must be finite numbers \(any, 3\), got float64 \(0, 3\)"),
        ({"uv": np.full((VERTICES, 2), 1024)}, "uv must index 0..1023, got 1024..1024"),
        ({"point_buf": np.full((VERTICES, 8), FACES)}, "point_buf must index 0..39, got 40..40"),
        ({"point_buf": np.zeros((VERTICES + 1, 8))}, "a row for each of the 70 vertices, got 71"),
        ({"keypoints": np.full(66, VERTICES)}, "keypoints must index 0..69, got 70..70"),
        ({"keypoints": np.zeros(65)}, r"keypoints must be finite numbers \(66\), got float64 \(65,\)"),
        ({"keypoints": [[1], [1, 2]]}, "keypoints must be finite numbers"),
        ({"uvmask": np.full((1024, 1024), np.nan)}, "uvmask must be finite numbers"),
        ({"uvmask": np.full((1024, 1024), "1")}, "uvmask must be finite numbers"),
        ({"uvmask": np.zeros((512, 512))}, r"uvmask must be finite numbers \(1024, 1024\), got float64 \(512, 512\)"),
    ],
)
def test_wrong_arrays_of_a_layout_are_named(changes, message):
    with pytest.raises(WeightsError, match=message):
        load_detail_layout(layout_arrays() | changes)


def test_an_array_is_no_layout(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros((2, 3)))
    with pytest.raises(WeightsError, match=r"holds an array of shape \(2, 3\), not the dictionary of a detail layout"):
        load_detail_layout(tmp_path / "array.npy")


# ---------------------------------------------------------------------------------------------------------- modules


def test_files_are_recognised_by_their_content(tmp_path):
    checkpoint(tmp_path / "b.pt", 6, 1024)
    checkpoint(tmp_path / "a.PT", 3, 1024)
    layout_file(tmp_path / "c.npy")
    np.save(tmp_path / "base.npy", {"meanshape": np.zeros(3)})  # files of other kinds are passed over in a folder
    np.save(tmp_path / "coefficients.npy", np.zeros(3))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "regressor.pth")
    (tmp_path / "notes.txt").write_text("nothing to read here")
    given = load_detail(tmp_path / "c.npy", str(tmp_path / "b.pt"), tmp_path / "a.PT")
    for module in (given, load_detail(tmp_path)):
        assert_same_weights(module.detail, generator(6, 1024))
        assert_same_weights(module.expression, generator(3, 1024))
        assert_same_layout(module.layout, load_detail_layout(layout_arrays()))
        assert module.info["files"] == {"detail": "b.pt", "expression": "a.PT", "layout": "c.npy"}
    assert given.name == "c"
    only = load_detail(tmp_path / "a.PT")
    assert only.detail is None and only.layout is None and only.expression.image_channels == 3


def test_without_a_source_the_message_is_honest(monkeypatch):
    monkeypatch.setattr("faceverse.detail.file.find_companion_file", lambda name: None)
    assert not has_open_detail()
    for sources in ((), ("open",)):
        with pytest.raises(WeightsError, match=r"the open detail weights \(open_detail.*\) are not installed"):
            load_detail(*sources)


def test_two_of_a_kind_are_refused(tmp_path):
    one, two = checkpoint(tmp_path / "v0.pt"), checkpoint(tmp_path / "v1.pt")
    for sources in ((one, two), (tmp_path,), (one, one)):
        with pytest.raises(WeightsError, match=r"two parts of one kind, detail: .*v0\.pt and .*\.pt; pass the files"):
            load_detail(*sources)


def test_what_is_no_part_is_named(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(WeightsError, match="folder holds no part of a detail module.* Found: no such file"):
        load_detail(folder)
    checkpoint(folder / "four.pt", image_channels=4)
    np.save(folder / "base.npy", {"meanshape": np.zeros(3), "idBase": np.zeros(3)})
    np.save(folder / "array.npy", np.zeros((2, 3)))
    save_file({"a": torch.zeros(1)}, folder / "other.safetensors")
    torch.save({"epoch": 3}, folder / "state.pth")
    for name, what in [
        ("four.pt", "four.pt: a generator with 4 image channels"),
        ("base.npy", "base.npy: a dictionary with meanshape, idBase"),
        ("array.npy", r"array.npy: an array of shape \(2, 3\)"),
        ("other.safetensors", "other.safetensors: tensors a"),
        ("state.pth", "state.pth: a dictionary with epoch"),
    ]:
        for source in (folder / name, folder):
            with pytest.raises(WeightsError, match=f"holds no part of a detail module.* Found: .*{what}"):
                load_detail(source)
    for source, message in [
        (tmp_path / "none.pt", "there is no model file"),
        (tmp_path / "none", "none holds no part of a detail module"),
        (tmp_path / "none.txt", "none.txt holds no part of a detail module"),
    ]:
        with pytest.raises(WeightsError, match=message):
            load_detail(source)
    with pytest.raises(ParameterError, match="sources are paths of files or folders, got int"):
        load_detail(3)


def test_damaged_parts_are_named(tmp_path):
    state = generator().state_dict()
    del state["conv1.conv.weight"], state["convs.0.noise.weight"]
    torch.save(state, tmp_path / "cut.pt")
    with pytest.raises(WeightsError, match=r"cut\.pt does not fit .*missing: conv1.conv.weight, convs.0.noise.weight"):
        load_detail(tmp_path / "cut.pt")
    path = layout_file(tmp_path / "layout.npy", keypoints=np.zeros(3))
    with pytest.raises(WeightsError, match=r"layout\.npy does not fit the layout"):
        load_detail(path)


def test_parts_must_fit_together(tmp_path):
    paths = [checkpoint(tmp_path / "a.pt", 6, 16), checkpoint(tmp_path / "b.pt", 3, 32)]
    with pytest.raises(
        WeightsError, match=r"a\.pt, .*b\.pt: .* one size in texels, these have: detail 16, expression 32"
    ):
        load_detail(*paths)
    with pytest.raises(WeightsError, match="these have: detail 16, layout 1024"):
        load_detail(paths[0], layout_file(tmp_path / "c.npy"))
    with pytest.raises(
        ParameterError, match="expression generator must turn 6 channels into 3, this one turns 6 into 6"
    ):
        DetailModule(expression=generator(6))
    with pytest.raises(WeightsError, match="detail generator must turn 6 channels into 6, this one turns 4 into 6"):
        load_detail(checkpoint(tmp_path / "d.pt", 6, condition_channels=4))


@pytest.mark.parametrize(
    "kinds", [("detail",), ("layout",), ("expression", "layout"), ("detail", "expression", "layout")]
)
def test_saved_modules_come_back(tmp_path, kinds):
    parts = {"detail": generator(6), "expression": generator(3).double(), "layout": small_layout()}
    parts = {kind: parts[kind] for kind in kinds}
    module = DetailModule(**parts, name="sculpted", info={"steps": 3, "sources": ["ä"]})
    path = save_detail(module, tmp_path / "saved.safetensors")
    for found in (load_detail(path), load_detail(tmp_path)):
        assert (found.name, found.info) == ("sculpted", module.info)
        for kind in ("detail", "expression"):
            assert (getattr(found, kind) is None) == (kind not in parts)
            if kind in parts:
                assert_same_weights(getattr(found, kind), parts[kind])
        assert (found.layout is None) == ("layout" not in parts)
        if "layout" in parts:
            assert_same_layout(found.layout, parts["layout"])


def test_a_saved_module_takes_further_parts(tmp_path):
    path = save_detail(DetailModule(detail=generator(6), name="first"), tmp_path / "saved.safetensors")
    module = load_detail(path, checkpoint(tmp_path / "second.pt", 3))
    assert_same_weights(module.detail, generator(6))
    assert_same_weights(module.expression, generator(3))
    assert module.info == {"files": {"detail": "saved.safetensors", "expression": "second.pt"}}


def test_modules_that_cannot_be_saved(tmp_path):
    module = DetailModule(detail=generator())
    with pytest.raises(WeightsError, match="written to a .safetensors file, not to detail.pt"):
        save_detail(module, tmp_path / "detail.pt")
    with pytest.raises(WeightsError, match="cannot write"):
        save_detail(module, tmp_path / "nowhere" / "detail.safetensors")
    with pytest.raises(ParameterError, match="no parts: there is nothing to save"):
        save_detail(DetailModule(), tmp_path / "detail.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_damaged_saved_modules_are_named(tmp_path):
    path = tmp_path / "saved.safetensors"
    tensors = {"layout.mask": torch.zeros(()), "layout.extra": torch.zeros(1)}
    good = {"format": "faceverse-detail", "format_version": "1", "name": "a", "info": "{}"}
    for metadata, content, message in [
        (good | {"format_version": "2"}, tensors, "has format version '2', this version of faceverse reads 1"),
        (good | {"info": "[]"}, tensors, "metadata entry info is missing or not a JSON dict"),
        (good | {"info": "{"}, tensors, "metadata entry info is missing or not a JSON dict"),
        (
            good,
            tensors,
            "saved.safetensors does not fit the layout.*missing: uv, tri.*not expected: extra.*uvmask must",
        ),
        (good, {"teeth.a": torch.zeros(1)}, "parts that a detail module does not have: teeth"),
        (good, {"detail.a": torch.zeros(1)}, "saved.safetensors is no conditional StyleGAN2 generator"),
    ]:
        save_file(content, path, metadata)
        with pytest.raises(WeightsError, match=message):
            load_detail(path)
