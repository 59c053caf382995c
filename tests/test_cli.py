"""The command line: what it writes, what it says when something is wrong, and the exit codes."""

import csv
import dataclasses
import json
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_skin_detail import module_of

import faceverse as fv
from faceverse.__main__ import main
from faceverse.commands.batch import SUMMARY_COLUMNS
from faceverse.commands.names import distinct_names
from faceverse.weights import find_weights


@pytest.fixture
def stored(toy_commands, tmp_path, toy_result):
    """Path of the toy result as JSON; the commands load the toy model."""
    return fv.export(toy_result, tmp_path / "me.json")


@pytest.fixture
def photo(tmp_path):
    return write_photo(tmp_path / "selfie.jpg")


def write_photo(path, size=(120, 160), shade=128):
    Image.new("RGB", size, (shade, 100, 90)).save(path)
    return path


def write_photos(folder, *names):
    folder.mkdir(exist_ok=True)
    return [write_photo(folder / name) for name in names]


def error_line(capsys, code, argv):
    """Run a command that must fail with this code and one line on stderr; return the line."""
    if code == 2:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in argv])
        assert stopped.value.code == 2
    else:
        assert main([str(argument) for argument in argv]) == code
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("faceverse") and "Traceback" not in output.err
    assert output.out == ""
    return lines[0]


def contents(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# ------------------------------------------------------------------------------------------------------- one photograph


def test_fit_writes_head_parameters_and_overview(toy_fit, photo, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert main(["fit", str(photo), "-o", str(out)]) == 0
    assert contents(out) == ["selfie.glb", "selfie.json", "selfie.png"]
    with Image.open(out / "selfie.png") as overview:
        assert overview.size[0] == 4 * overview.size[1]
    assert json.loads((out / "selfie.json").read_text(encoding="utf-8"))["source"] == "selfie"
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert lines[:3] == [str(out / name) for name in contents(out)]
    assert lines[3].startswith("selfie: ") and lines[3].endswith(" s")
    assert lines[4] == "selfie: warning: the face is small"
    assert output.err == ""


def test_fit_passes_its_options_on(toy_fit, photo, tmp_path):
    options = ["--no-detail", "--seed", "7", "--focal-px", "900.5", "--format", "json"]
    assert main(["fit", str(photo), "-o", str(tmp_path / "out"), *options]) == 0
    ((read, options),) = toy_fit
    assert read.rgb.shape == (160, 120, 3) and read.name == "selfie"
    wanted = {"face": 0, "detail": False, "seed": 7, "focal_px": 900.5}
    assert {key: options[key] for key in wanted} == wanted
    assert contents(tmp_path / "out") == ["selfie.json"]


def test_fit_writes_every_format(toy_fit, photo, tmp_path):
    formats = [*fv.EXPORT_FORMATS, "png"]
    assert main(["fit", str(photo), "-o", str(tmp_path / "out"), "--format", ",".join(formats)]) == 0
    wanted = {"selfie.mtl", "selfie_texture.png", *(f"selfie.{suffix}" for suffix in formats)}
    assert set(contents(tmp_path / "out")) == wanted


def test_progress_is_drawn_on_a_terminal_and_wiped(toy_fit, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["fit", str(photo), "-o", str(tmp_path / "out")]) == 0
    output = capsys.readouterr()
    assert "landmarks" in output.err and "#" in output.err and "landmarks" not in output.out
    assert output.err.endswith("\r\033[K")


def test_fit_knows_the_sample_photograph(toy_fit, tmp_path, astronaut):
    assert main(["fit", "sample", "-o", str(tmp_path)]) == 0
    np.testing.assert_array_equal(toy_fit[0][0].rgb, astronaut)
    assert contents(tmp_path) == ["sample.glb", "sample.json", "sample.png"]


def test_missing_scikit_image_is_named(toy_fit, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert "pip install scikit-image" in error_line(capsys, 1, ["fit", "sample", "-o", tmp_path / "out"])


def test_a_second_fit_replaces_the_first(toy_fit, photo, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "selfie.json").write_text("old")
    (tmp_path / "out" / "other.txt").write_text("stays")
    assert main(["fit", str(photo), "-o", str(tmp_path / "out")]) == 0
    assert contents(tmp_path / "out") == ["other.txt", "selfie.glb", "selfie.json", "selfie.png"]
    assert (tmp_path / "out" / "selfie.json").read_text() != "old"


# --------------------------------------------------------------------------------------------------------- bad pictures


def huge_png(path):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))


def truncated_jpeg(path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:20_000])


BAD_PICTURES = {
    "text.jpg": (lambda path: path.write_text("Dear diary, this is no picture."), "is not a picture"),
    "cut.jpg": (truncated_jpeg, "cut short"),
    "dot.png": (lambda path: Image.new("RGB", (1, 1)).save(path), "too small"),
    "huge.png": (huge_png, "too many pixels"),
    "empty.jpg": (lambda path: path.write_bytes(b""), "empty"),
    "missing.jpg": (lambda path: None, "there is no file"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_bad_pictures_are_one_line(name, toy_fit, tmp_path, capsys):
    make, words = BAD_PICTURES[name]
    make(tmp_path / name)
    line = error_line(capsys, 1, ["fit", tmp_path / name, "-o", tmp_path / "out"])
    assert name in line and words in line
    assert not (tmp_path / "out").exists() and toy_fit == []


def test_no_such_face_is_one_line_and_leaves_nothing(toy_fit, photo, tmp_path, capsys):
    line = error_line(capsys, 1, ["fit", photo, "-o", tmp_path / "a" / "b", "--face", "5"])
    assert line == "faceverse: 1 face was found, face=5 requires another"
    assert contents(tmp_path) == ["selfie.jpg"]


def test_errors_of_several_lines_become_one(toy_fit, photo, tmp_path, capsys, monkeypatch):
    def fit(*arguments, **options):
        raise fv.WeightsError("first\nsecond")

    monkeypatch.setattr("faceverse.commands.batch.fit", fit)
    assert error_line(capsys, 1, ["fit", photo, "-o", tmp_path / "out"]) == "faceverse: first second"


# ------------------------------------------------------------------------------------------------------- output folders


def test_output_folder_is_tried_before_the_fit(toy_fit, photo, tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    for out in ("file/out", "file"):
        line = error_line(capsys, 1, ["fit", photo, "-o", tmp_path / out])
        assert "cannot write into" in line and "-o" in line
    assert toy_fit == [] and contents(tmp_path) == ["file", "selfie.jpg"]


def test_nothing_half_written_when_writing_fails(toy_fit, photo, tmp_path, capsys, monkeypatch):
    def overview(*arguments):
        raise fv.ParameterError("no picture today")

    monkeypatch.setattr("faceverse.commands.batch.overview", overview)
    argv = ["fit", photo, "-o", tmp_path / "out", "--format", "glb,json,png"]
    assert "no picture today" in error_line(capsys, 1, argv)
    assert contents(tmp_path) == ["selfie.jpg"]


def test_a_folder_in_the_way_is_named_and_nothing_is_moved(toy_fit, photo, tmp_path, capsys):
    (tmp_path / "out" / "selfie.json").mkdir(parents=True)
    line = error_line(capsys, 1, ["fit", photo, "-o", tmp_path / "out"])
    assert "selfie.json" in line and "folder" in line
    assert contents(tmp_path / "out") == ["selfie.json"]


def test_the_photograph_is_never_replaced(toy_fit, tmp_path, capsys):
    photo = write_photo(tmp_path / "me.png")
    before = photo.read_bytes()
    assert "would replace the photograph" in error_line(capsys, 1, ["fit", photo, "-o", tmp_path])
    assert photo.read_bytes() == before and toy_fit == []
    assert main(["fit", str(photo), "-o", str(tmp_path), "--format", "glb"]) == 0


def test_unknown_formats_are_wrong_arguments(toy_fit, photo, tmp_path, capsys):
    line = error_line(capsys, 2, ["fit", photo, "-o", tmp_path / "out", "--format", "glb,fbx"])
    assert "fbx" in line and "glb,obj,ply,stl,3mf,json" in line and not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------------- batch


def summary(folder):
    with open(folder / "summary.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_batch_goes_on_after_a_bad_photograph(toy_fit, tmp_path, capsys):
    photos = tmp_path / "photos"
    (photos / "deeper").mkdir(parents=True)
    write_photo(photos / "a.jpg")
    (photos / "b.jpg").write_text("no picture")
    write_photo(photos / "c.PNG")
    (photos / "notes.txt").write_text("not a photograph")
    write_photo(photos / ".hidden.jpg")
    write_photo(photos / "deeper" / "d.jpg")
    out = tmp_path / "out"
    assert main(["fit", str(photos), "-o", str(out), "--format", "json"]) == 1
    assert contents(out) == ["a.json", "c.json", "summary.csv"]
    rows = summary(out)
    assert tuple(rows[0]) == SUMMARY_COLUMNS == ("file", "status", "seconds", "warnings", "error")
    assert [(row["file"], row["status"]) for row in rows] == [("a.jpg", "ok"), ("b.jpg", "failed"), ("c.PNG", "ok")]
    assert rows[0]["warnings"] == "the face is small" and rows[0]["error"] == ""
    assert "is not a picture" in rows[1]["error"] and all(float(row["seconds"]) >= 0 for row in rows)
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and output.err.startswith("faceverse: b.jpg: ")
    assert output.out.splitlines()[-2:] == [str(out / "summary.csv"), "2 of 3 photographs fitted"]


def test_batch_without_failures_returns_zero(toy_fit, tmp_path):
    (tmp_path / "photos").mkdir()
    write_photo(tmp_path / "photos" / "a.jpg")
    assert main(["fit", str(tmp_path / "photos"), "-o", str(tmp_path / "out")]) == 0


def test_batch_survives_a_fault_of_the_library(toy_fit, tmp_path, capsys, monkeypatch):
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        write_photo(tmp_path / "photos" / name)
    import faceverse.commands.batch

    working = faceverse.commands.batch.fit

    def fit(photo, model, **options):
        if photo.name == "a":
            raise IndexError("a fault")
        return working(photo, model, **options)

    monkeypatch.setattr("faceverse.commands.batch.fit", fit)
    assert main(["fit", str(tmp_path / "photos"), "-o", str(tmp_path / "out"), "--format", "json"]) == 1
    assert [row["error"] for row in summary(tmp_path / "out")] == ["IndexError: a fault", ""]
    assert "Traceback" in capsys.readouterr().err  # so that it can be reported


def test_an_interrupted_batch_keeps_what_is_done(toy_fit, tmp_path, capsys, monkeypatch):
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        write_photo(tmp_path / "photos" / name)
    import faceverse.commands.batch

    working = faceverse.commands.batch.fit

    def fit(photo, model, **options):
        if photo.name == "b":
            raise KeyboardInterrupt
        return working(photo, model, **options)

    monkeypatch.setattr("faceverse.commands.batch.fit", fit)
    assert main(["fit", str(tmp_path / "photos"), "-o", str(tmp_path / "out"), "--format", "json"]) == 130
    assert contents(tmp_path / "out") == ["a.json", "summary.csv"]
    assert [row["file"] for row in summary(tmp_path / "out")] == ["a.jpg"]
    assert capsys.readouterr().err == "faceverse: interrupted\n"


def test_batch_refuses_useless_folders(toy_fit, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    assert "no photographs" in error_line(capsys, 1, ["fit", photos, "-o", tmp_path / "out"])
    write_photo(photos / "a.jpg")
    assert "choose another" in error_line(capsys, 1, ["fit", photos, "-o", photos])
    assert contents(photos) == ["a.jpg"] and not (tmp_path / "out").exists()


def test_batch_needs_a_model_before_it_starts(toy_fit, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    write_photo(tmp_path / "photos" / "a.jpg")
    argv = ["fit", tmp_path / "photos", "-o", tmp_path / "out", "--model", "no.safetensors"]
    assert "no model file no.safetensors" in error_line(capsys, 1, argv)
    assert toy_fit == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["me.jpg", "me.png", "ME.webp"], ["me", "me_png", "ME_webp"]),
        (["a.jpg", "a.png", "a_png.jpg"], ["a", "a_png", "a_png_jpg"]),
        (["a.jpg", "a_png.jpg", "a.png"], ["a", "a_png", "a_png_2"]),
        (["x/me.jpg", "y/me.jpg", "z/ME.JPG", "x/me.png"], ["me", "y_me", "z_ME", "me_png"]),
        (["x/me.jpg", "y_me.jpg", "y/me.jpg", "me.jpg"], ["me", "y_me", "me_jpg", "me_jpg_2"]),
        (["sample", "a/sample.jpg", "b/sample"], ["sample", "sample_jpg", "b_sample"]),
    ],
)
def test_photographs_of_one_name_get_different_results(files, names):
    assert distinct_names([Path(file) for file in files]) == names


# ---------------------------------------------------------------------------------------------------- several inputs


@pytest.mark.parametrize(
    ("given", "face"),
    [
        ([], 0),
        (["--face", "1"], 1),
        (["--face", "largest"], "largest"),
        (["--face", "40,25.5"], (40, 25.5)),
        (["--face=-3,1e2"], (-3, 100)),
    ],
)
def test_a_face_is_chosen_by_number_size_or_place(given, face, toy_fit, photo, tmp_path):
    assert main(["fit", str(photo), "-o", str(tmp_path / "out"), "--format", "json", *given]) == 0
    assert toy_fit[0][1]["face"] == face


@pytest.mark.parametrize("face", ["two", "-1", "1.5", "3,", "1,2,3", "nan,1", "0,inf", "", "1e3"])
def test_what_names_no_face_is_a_wrong_argument(face, toy_fit, photo, capsys):
    line = error_line(capsys, 2, ["fit", photo, f"--face={face}"])
    assert "expected 0 (the largest), 1, 2 ..., largest, or a place X,Y in pixels" in line and toy_fit == []


def test_several_photographs_are_fitted_one_by_one(toy_fit, tmp_path, capsys):
    first, second = write_photos(tmp_path, "b.jpg", "a.jpg")
    (tmp_path / "bad.jpg").write_text("no picture")
    inputs = [str(first), str(tmp_path / "bad.jpg"), str(tmp_path / "gone.jpg"), str(second), "sample"]
    out = tmp_path / "out"
    assert main(["fit", *inputs, "-o", str(out), "--format", "json"]) == 1
    assert contents(out) == ["a.json", "b.json", "sample.json", "summary.csv"]
    rows = [(row["file"], row["status"]) for row in summary(out)]
    files = ["b.jpg", "bad.jpg", "gone.jpg", "a.jpg", "sample"]
    assert rows == list(zip(files, ["ok", "failed", "failed", "ok", "ok"], strict=True))
    assert [source.name for source, _ in toy_fit] == ["b", "a", "sample"]
    output = capsys.readouterr()
    assert output.out.splitlines()[-2:] == [str(out / "summary.csv"), "3 of 5 photographs fitted"]
    assert [line.split(":")[1] for line in output.err.splitlines()] == [" bad.jpg", " gone.jpg"]


def test_folders_and_files_can_be_mixed_and_share_names(toy_fit, tmp_path):
    write_photos(tmp_path / "x", "me.jpg", "you.jpg")
    write_photos(tmp_path / "y", "me.jpg")
    out = tmp_path / "out"
    assert main(["fit", str(tmp_path / "y" / "me.jpg"), str(tmp_path / "x"), "-o", str(out), "--format", "json"]) == 0
    assert contents(out) == ["me.json", "summary.csv", "x_me.json", "you.json"]
    twins = [str(tmp_path / folder / "me.jpg") for folder in "yx"]
    assert [row["file"] for row in summary(out)] == [*twins, "you.jpg"]
    assert [source.name for source, _ in toy_fit] == ["me", "me", "you"]


def test_each_photograph_can_have_its_own_face(toy_fit, tmp_path, capsys):
    photos = write_photos(tmp_path / "photos", "a.jpg", "b.jpg")
    argv = ["fit", *map(str, photos), "-o", str(tmp_path / "out"), "--format", "json"]
    assert main([*argv, "--face", "1", "--face", "20,30"]) == 0
    assert main([*argv, "--face", "1"]) == 0
    assert [options["face"] for _, options in toy_fit] == [1, (20, 30), 1, 1]
    capsys.readouterr()
    line = error_line(capsys, 1, [*argv, "--face", "0", "--face", "0", "--face", "0"])
    assert line == "faceverse: --face is given 3 times for 2 photographs; give it once, or once for each"
    line = error_line(capsys, 1, ["fit", photos[0], "-o", tmp_path / "new", "--face", "0", "--face", "1"])
    assert "2 times for 1 photograph;" in line and not (tmp_path / "new").exists()


def test_photographs_of_one_person_make_one_head(toy_fit, tmp_path, capsys):
    photos = write_photos(tmp_path, "front.jpg", "left.jpg", "right.png")
    out = tmp_path / "out"
    assert main(["fit", *map(str, photos), "--together", "-o", str(out), "--seed", "3"]) == 0
    assert contents(out) == ["front.glb", "front.json", "front.png"]
    ((sources, options),) = toy_fit
    assert [one.name for one in sources] == ["front", "left", "right"]
    assert options["face"] == 0 and options["seed"] == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [str(out / name) for name in contents(out)]
    assert lines[3].startswith("front: ") and lines[4:] == ["front: warning: the face is small"]


def test_a_folder_can_be_one_person(toy_fit, tmp_path):
    write_photos(tmp_path / "me", "c.jpg", "a.jpg", "b.jpg")
    faces = ["--face", "largest", "--face", "1", "--face", "5,6"]
    argv = ["fit", str(tmp_path / "me"), "--together", "-o", str(tmp_path / "out"), "--format", "json", *faces]
    assert main(argv) == 0
    assert contents(tmp_path / "out") == ["a.json"]
    ((sources, options),) = toy_fit
    assert [one.name for one in sources] == ["a", "b", "c"] and options["face"] == ["largest", 1, (5, 6)]


def test_together_with_one_photograph_is_an_ordinary_fit(toy_fit, photo, tmp_path):
    assert main(["fit", str(photo), "--together", "-o", str(tmp_path / "out")]) == 0
    ((source, options),) = toy_fit
    assert source.name == "selfie" and options["face"] == 0
    assert contents(tmp_path / "out") == ["selfie.glb", "selfie.json", "selfie.png"]


def test_one_bad_photograph_of_a_person_stops_the_fit(toy_fit, photo, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_text("no picture")
    line = error_line(capsys, 1, ["fit", photo, tmp_path / "bad.jpg", "--together", "-o", tmp_path / "out"])
    assert "bad.jpg is not a picture" in line and toy_fit == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize("together", [[], ["--together"]])
def test_a_photograph_given_twice_is_refused(together, toy_fit, photo, tmp_path, capsys):
    argv = ["fit", photo, tmp_path / "." / "x" / ".." / "selfie.jpg", "-o", tmp_path / "out", *together]
    assert error_line(capsys, 1, argv).endswith("is given twice; give each photograph once") and toy_fit == []


@pytest.mark.parametrize("together", [[], ["--together"]])
def test_no_photograph_of_several_is_replaced(together, toy_fit, tmp_path, capsys):
    other, photo = write_photos(tmp_path / "x", "me.jpg")[0], write_photo(tmp_path / "me.png")
    before = photo.read_bytes()
    line = error_line(capsys, 1, ["fit", other, photo, "-o", tmp_path, *together])
    assert f"would replace the photograph {photo}" in line and photo.read_bytes() == before and toy_fit == []


def test_the_texture_of_an_obj_does_not_replace_a_photograph(toy_fit, tmp_path, capsys):
    photos = write_photos(tmp_path, "me.jpg", "me_texture.png")
    argv = ["fit", *photos, "-o", tmp_path, "--format", "obj"]
    assert "would replace the photograph" in error_line(capsys, 1, argv) and toy_fit == []


# ------------------------------------------------------------------------------------------------- edit, render, export


def test_edit_applies_the_given_changes(stored, toy_model, tmp_path, capsys):
    out = tmp_path / "older.json"
    options = ["--age", "+20", "--expression", "jawOpen=0.8", "--expression", "mouthSmileLeft=0"]
    assert main(["edit", str(stored), "-o", str(out), *options]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    before, after = fv.load_result(stored, toy_model), fv.load_result(out, toy_model)
    weights = dict(zip(toy_model.expression_names, after.params.expression))
    assert weights["jawOpen"] == pytest.approx(0.8) and weights["mouthSmileLeft"] == 0
    age = toy_model.attributes(after.params)["age"] - toy_model.attributes(before.params)["age"]
    assert age == pytest.approx(20, abs=1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--age", "-10"], {"age": -10}),
        (["--age", "+20"], {"age": 20}),
        (["--age=-1.5", "--gender", "0"], {"age": -1.5, "gender": 0}),
        (["--set", "age=-2", "--set", "gender=+1e-1"], {"age": -2, "gender": 0.1}),
        (["--target", "age=30", "--target", "gender=-5e-1"], {"targets": {"age": 30, "gender": -0.5}}),
        (["--age-years", "70", "--expression", "smile"], {"age_years": 70, "expression": {"smile": 1}}),
        (["--expression", "smile=-.5", "--light", "yaw=-30,warmth=.3"],
         {"expression": {"smile": -0.5}, "light": {"yaw": -30, "warmth": 0.3}}),
        (["--expression", "jawOpen=1"], {"expression": {"jawOpen": 1}}),
        (["--yaw", "-30"], {"rotation": (-30, 0, 0)}),
        (["--detail", "0.7", "--pitch", ".5", "--roll", "-2"], {"detail": 0.7, "rotation": (0, 0.5, -2)}),
        (["--detail-seed", "0", "--detail", "0"], {"detail_seed": 0, "detail": 0}),
        ([], {}),
    ],
)
def test_edit_understands_signs(given, expected, stored, toy_result, tmp_path, monkeypatch):
    changes = []
    monkeypatch.setattr("faceverse.commands.edit.edit", lambda result, **kwargs: changes.append(kwargs) or result)
    assert main(["edit", str(stored), "-o", str(tmp_path / "new.json"), *given]) == 0
    assert changes == [expected]


@pytest.mark.parametrize("pair", ["jawOpen", "jawOpen=wide", "=1", "jawOpen="])
def test_edit_refuses_pairs_without_a_number(pair, stored, capsys):
    assert "NAME=VALUE" in error_line(capsys, 2, ["edit", stored, "-o", "x.json", "--expression", pair])


@pytest.mark.parametrize("given", [["--expression", "mouthSmile=1"], ["--target", "beauty=1"], ["--set", "result=1"],
                                   ["--expression", "smil=1"], ["--light", "colour=1"]])
def test_edit_refuses_unknown_names(given, stored, tmp_path, capsys):
    line = error_line(capsys, 1, ["edit", stored, "-o", tmp_path / "x.json", *given])
    assert given[1].split("=")[0] in line and not (tmp_path / "x.json").exists()


def test_edit_tells_what_it_could_not_do(stored, tmp_path, capsys):
    assert main(["edit", str(stored), "-o", str(tmp_path / "x.json"), "--age", "500"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("x: warning: age: ")


@pytest.fixture
def skins(stored, toy_model, tmp_path, monkeypatch):
    """Two files of the toy result with detail, of seeds 3 and 4; a small module stands for the open one."""
    module = module_of(toy_model)
    for place in (sys.modules["faceverse.edit"], sys.modules["faceverse.formats.store"]):
        monkeypatch.setattr(place, "load_detail", lambda: module)
    monkeypatch.setattr("faceverse.formats.store.has_open_detail", lambda: True)
    paths = [tmp_path / f"seed{seed}.json" for seed in (3, 4)]
    for seed, path in zip((3, 4), paths, strict=True):
        assert main(["edit", str(stored), "-o", str(path), "--detail-seed", str(seed)]) == 0
    return paths


def test_edit_gives_other_skin(skins, toy_model, tmp_path):
    mine, other = skins
    before, giver = (fv.load_result(path, toy_model) for path in skins)
    assert before.displacement.any() and not np.array_equal(before.displacement, giver.displacement)
    for layers, rows in (("all", slice(None)), ("coarse", slice(0, -3)), ("fine", slice(-3, None))):
        out = tmp_path / f"{layers}.json"
        assert main(["edit", str(mine), "-o", str(out), "--detail-from", str(other), "--detail-layers", layers]) == 0
        wanted = before.params.detail["w"].copy()
        wanted[rows] = giver.params.detail["w"][rows]
        np.testing.assert_array_equal(fv.load_result(out, toy_model).params.detail["w"], wanted)
    assert main(["edit", str(mine), "-o", str(tmp_path / "b.json"), "--detail-from", str(other)]) == 0
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "all.json").read_bytes()


def test_edit_refuses_skin_that_makes_no_sense(stored, skins, tmp_path, capsys):
    capsys.readouterr()
    argv = ["edit", skins[0], "-o", tmp_path / "x.json"]
    for wrong, code, words in (
        (["--detail-layers", "fine"], 1, "--detail-from"),
        (["--detail-layers", "fine", "--detail-seed", "1"], 1, "--detail-from"),
        (["--detail-seed", "1", "--detail-from", skins[1]], 2, "not allowed with"),
        (["--detail-from", skins[1], "--detail-layers", "middle"], 2, "invalid choice"),
        (["--detail-seed", "1.5"], 2, "--detail-seed"),
        (["--detail-seed", "-1"], 1, "whole number in 0"),
        (["--detail-from", tmp_path / "none.json"], 1, "there is no file"),
        (["--detail-from", stored], 1, "carries no detail"),
    ):
        assert words in error_line(capsys, code, [*argv, *wrong])
    line = error_line(capsys, 1, ["edit", stored, *argv[2:], "--detail-from", skins[1], "--detail-layers", "fine"])
    assert "single layers" in line and not (tmp_path / "x.json").exists()


def test_edit_reaches_values_and_whole_expressions(stored, toy_model, tmp_path):
    out = tmp_path / "x.json"
    given = ["--age-years", "60", "--target", "gender=0.4", "--expression", "laugh", "--expression", "jawOpen=0.1"]
    assert main(["edit", str(stored), "-o", str(out), *given, "--light", "yaw=90,intensity=0.5"]) == 0
    after = fv.load_result(out, toy_model)
    assert toy_model.attributes(after.params) == pytest.approx({"age": 60, "gender": 0.4}, abs=0.01)
    weights = dict(zip(toy_model.expression_names, after.params.expression))
    assert weights["jawOpen"] == pytest.approx(0.1) and weights["mouthSmileLeft"] > 0.5
    assert after.params.light[3].min() > 0.1


def test_blend_mixes_two_files(skins, toy_model, tmp_path):
    first, second = (fv.load_result(path, toy_model) for path in skins)
    shares = ["--identity", "1", "--albedo", "0", "--detail", "1"]
    assert main(["blend", *map(str, skins), "-o", str(tmp_path / "c.json"), *shares]) == 0
    mixed = fv.load_result(tmp_path / "c.json", toy_model)
    np.testing.assert_array_equal(mixed.params.detail["w"], second.params.detail["w"])
    np.testing.assert_array_equal(mixed.params.rotation, first.params.rotation)


def test_randomize_keeps_the_named_parts(stored, toy_model, tmp_path):
    before = toy_model.attributes(fv.load_result(stored, toy_model).params)
    for name in ("a", "b"):
        argv = ["randomize", str(stored), "-o", str(tmp_path / name) + ".json", "--seed", "3", "--keep", "age,skin"]
        assert main(argv) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    after = toy_model.attributes(fv.load_result(tmp_path / "a.json", toy_model).params)
    assert after["age"] == pytest.approx(before["age"], abs=0.01)
    assert abs(after["gender"] - before["gender"]) > 0.01


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (["edit", "--light", "yaw"], 2, "NAME=VALUE"),
        (["edit", "--age", "1", "--age-years", "40"], 2, "not allowed with"),
        (["edit", "--target", "age=40", "--age", "1"], 1, "give one of them"),
        (["randomize", "--region", "noze"], 1, "did you mean 'nose'"),
        (["randomize", "--strength", "3"], 1, "strength must be in 0..2"),
        (["blend", "{stored}", "--albedo", "1.5"], 1, "albedo must be in 0..1"),
    ],
)
def test_editing_commands_refuse(given, code, words, stored, tmp_path, capsys):
    command, *rest = (str(stored) if word == "{stored}" else word for word in given)
    assert words in error_line(capsys, code, [command, stored, *rest, "-o", tmp_path / "x.json"])
    assert not (tmp_path / "x.json").exists()


def test_render_draws_a_picture(stored, tmp_path):
    first, second, wide = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    assert main(["render", str(stored), "-o", str(first), "--mode", "clay", "--size", "64"]) == 0
    argv = ["render", stored, "-o", second, "--mode", "clay", "--size", "64", "--yaw", "-40", "--background", "00ff00"]
    assert main([str(argument) for argument in argv]) == 0
    assert main(["render", str(stored), "-o", str(wide), "--size", "32", "--turntable"]) == 0
    with Image.open(first) as a, Image.open(second) as b, Image.open(wide) as c:
        assert a.size == b.size == (64, 64) and c.size == (160, 32)
        assert a.getpixel((0, 0)) == (255, 255, 255) and b.getpixel((0, 0)) == (0, 255, 0)
        assert np.abs(np.asarray(a, float) - np.asarray(b, float)).max() > 50


def test_render_refuses_what_it_cannot_do(stored, tmp_path, capsys):
    assert "invalid choice" in error_line(capsys, 2, ["render", stored, "-o", "a.png", "--mode", "xray"])
    assert "six hexadecimal" in error_line(capsys, 2, ["render", stored, "-o", "a.png", "--background", "red"])
    assert "size must be" in error_line(capsys, 1, ["render", stored, "-o", tmp_path / "a.png", "--size", "0"])
    assert ".png" in error_line(capsys, 1, ["render", stored, "-o", tmp_path / "a.bmp", "--size", "16"])
    assert contents(tmp_path) == ["me.json"]


def test_export_writes_other_formats(stored, tmp_path, capsys):
    assert main(["export", str(stored), str(tmp_path / "full.stl")]) == 0
    assert main(["export", str(stored), str(tmp_path / "coarse.stl"), "--lod", "coarse"]) == 0
    assert (tmp_path / "coarse.stl").stat().st_size < (tmp_path / "full.stl").stat().st_size
    output = capsys.readouterr()
    assert output.out.splitlines() == [str(tmp_path / "full.stl"), str(tmp_path / "coarse.stl")] and output.err == ""


@pytest.mark.parametrize(("old", "lod"), [("--light", "coarse"), ("--dense", "dense")])
def test_export_understands_its_old_flags(old, lod, skins, tmp_path, capsys):
    capsys.readouterr()
    assert main(["export", str(skins[0]), str(tmp_path / "a.ply"), old]) == 0
    assert capsys.readouterr().err == f"faceverse: {old} is deprecated, use --lod {lod}\n"
    assert main(["export", str(skins[0]), str(tmp_path / "b.ply"), "--lod", lod]) == 0
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert old not in capsys.readouterr().out


def test_a_new_format_is_known_to_all_commands(stored, toy_fit, photo, tmp_path, capsys, monkeypatch):
    """One entry in the table, and every command that writes heads takes it."""
    made = dataclasses.replace(fv.EXPORT_FORMATS["json"], content=lambda result, path, lod: {path: b"made"})
    monkeypatch.setitem(fv.EXPORT_FORMATS, "xyz", made)
    assert main(["export", str(stored), str(tmp_path / "me.xyz")]) == 0
    assert main(["edit", str(stored), "-o", str(tmp_path / "older.xyz"), "--age", "5"]) == 0
    assert main(["fit", str(photo), "-o", str(tmp_path), "--format", "xyz"]) == 0
    assert {(tmp_path / f"{name}.xyz").read_bytes() for name in ("me", "older", "selfie")} == {b"made"}
    capsys.readouterr()
    for command in ("export", "edit", "fit"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "xyz" in capsys.readouterr().out, command


def test_help_lists_modes_and_light_as_the_library_has_them(capsys):
    for command, tables in (
        ("render", (fv.RENDER_MODES,)), ("track", (fv.CLIP_MODES, fv.TRACK_FORMATS)), ("edit", (fv.LIGHT_PARAMETERS,)),
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            main([command, "--help"])
        output = capsys.readouterr().out
        assert [name for table in tables for name in table if name not in output] == [], command


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl"])
def test_export_writes_detail_as_geometry(suffix, skins, tmp_path):
    plain, dense = (tmp_path / f"{name}.{suffix}" for name in ("plain", "dense"))
    assert main(["export", str(skins[0]), str(plain)]) == 0
    assert main(["export", str(skins[0]), str(dense), "--lod", "dense"]) == 0
    assert dense.stat().st_size > 10 * plain.stat().st_size


def test_export_refuses_dense_meshes_that_make_no_sense(stored, skins, tmp_path, capsys):
    capsys.readouterr()
    dense = ["--lod", "dense"]
    assert ".obj .ply .stl .3mf" in error_line(capsys, 1, ["export", skins[0], tmp_path / "x.glb", *dense])
    assert "invalid choice" in error_line(capsys, 2, ["export", skins[0], tmp_path / "x.ply", "--lod", "fine"])
    assert "no displacement" in error_line(capsys, 1, ["export", stored, tmp_path / "x.ply", *dense])
    with pytest.raises(SystemExit):
        main(["export", str(skins[0]), str(tmp_path / "x.ply"), "--dense", "--light"])
    assert "not allowed with" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob("x.*"))


def test_export_refuses_unknown_suffixes_and_files(stored, tmp_path, capsys):
    assert ".glb .obj" in error_line(capsys, 1, ["export", stored, tmp_path / "me.fbx"])
    assert "cannot write" in error_line(capsys, 1, ["export", stored, tmp_path / "no" / "me.glb"])
    assert "there is no file" in error_line(capsys, 1, ["export", tmp_path / "none.json", tmp_path / "me.glb"])
    (tmp_path / "other.json").write_text("{}")
    assert "other.json" in error_line(capsys, 1, ["export", tmp_path / "other.json", tmp_path / "me.glb"])
    assert contents(tmp_path) == ["me.json", "other.json"]


# ----------------------------------------------------------------------------------- track, weights, train, bench, rest


def test_track_writes_a_table_and_passes_its_options(stored, tmp_path, toy_model, monkeypatch, capsys):
    calls = []

    class Found:
        def save(self, path):
            Path(path).write_text("frames")
            return Path(path)

    def track(source, model, *, identity, smooth, focal_px, quality, on_progress, journal, keep_journal):
        on_progress("frames", 0.5, None)
        assert quality == "fast" and journal == out / "clip.fvtrack" and keep_journal
        calls.append((source, model, identity, smooth, focal_px))
        return Found()

    monkeypatch.setattr("faceverse.commands.track.track", track)
    monkeypatch.setattr("faceverse.commands.track.export", lambda found, path: found.save(path))
    out = tmp_path / "out"
    line = ["track", "clips/clip.mp4", "-o", str(out), "--identity", str(stored), "--no-smooth", "--focal-px", "900"]
    assert main(line) == 0
    assert contents(out) == ["clip.csv", "clip.json"]
    ((source, model, identity, smooth, focal_px),) = calls
    assert source == "clips/clip.mp4" and model is toy_model and smooth is False and focal_px == 900
    assert isinstance(identity, fv.FitResult)
    assert capsys.readouterr().out.splitlines()[:2] == [str(out / "clip.csv"), str(out / "clip.json")]


@pytest.fixture
def toy_weights(tmp_path, monkeypatch):
    import toy

    path = toy.toy_file().write(tmp_path / "toy.safetensors")
    monkeypatch.setenv("FACEVERSE_WEIGHTS", str(path))
    return path


def test_weights_says_what_is_used(toy_weights, capsys):
    assert main(["weights", "path"]) == 0
    assert capsys.readouterr().out == f"{toy_weights}\n"
    assert main(["weights", "info"]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["name"] == "toy" and lines["licence"] == "CC0-1.0" and len(lines["sha256"]) == 64
    assert "formulas of the tests" in lines["sources"] and "age (years" in lines["attributes"]
    assert lines["coarse"].startswith("mesh ") and "triangles" in lines["coarse"]
    assert main(["weights", "verify"]) == 0
    assert lines["sha256"] in capsys.readouterr().out


def test_weights_verify_finds_damage(toy_weights, capsys):
    toy_weights.write_bytes(toy_weights.read_bytes()[:-100])
    assert "damaged" in error_line(capsys, 1, ["weights", "verify"])


def test_weights_says_where_it_looked(tmp_path, capsys):
    missing = tmp_path / "none.safetensors"
    assert str(missing) in error_line(capsys, 1, ["weights", "info", "--model", missing])


def test_library_warnings_are_one_line(toy_weights, capsys, monkeypatch):
    def find_weights(source):
        warnings.warn("using another file instead", stacklevel=1)
        return toy_weights

    monkeypatch.setattr("faceverse.commands.weights.find_weights", find_weights)
    assert main(["weights", "path"]) == 0
    assert capsys.readouterr().err == "faceverse: warning: using another file instead\n"


def test_train_passes_its_options(tmp_path, monkeypatch, capsys):
    calls = []

    def train_base(output, skins, *, heads, seed, report):
        calls.append((output, skins, heads, seed))
        report("a step")
        return output

    monkeypatch.setattr("faceverse.training.base.train_base", train_base)
    out = tmp_path / "made" / "m.safetensors"
    assert main(["train", "base", "--skins", "skins.tgz", "-o", str(out), "--heads", "12", "--seed", "3"]) == 0
    assert calls == [(out, Path("skins.tgz"), 12, 3)]
    output = capsys.readouterr()
    assert output.out == f"{out}\n" and output.err == "a step\n"
    assert ".safetensors" in error_line(capsys, 1, ["train", "base", "--skins", "s", "-o", tmp_path / "m.npy"])


def test_bench_hands_over_to_the_script(capfd):
    if not Path(fv.__file__).resolve().parent.parent.joinpath("benchmarks", "bm_rasterize.py").is_file():
        pytest.skip("no benchmarks beside the package")
    assert main(["bench", "rasterize", "--help"]) == 0
    assert "--repeats" in capfd.readouterr().out


def test_the_old_name_of_a_benchmark_is_deprecated(capfd):
    if not Path(fv.__file__).resolve().parent.parent.joinpath("benchmarks", "bm_displacement.py").is_file():
        pytest.skip("no benchmarks beside the package")
    assert main(["bench", "relief", "--help"]) == 0
    printed = capfd.readouterr()
    assert "--photos" in printed.out and "bench relief is deprecated, use bench displacement" in printed.err


def test_bench_says_where_benchmarks_are(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("faceverse.commands.bench.REPOSITORY", tmp_path)
    assert "source repository" in error_line(capsys, 1, ["bench", "fit"])
    assert main(["bench", "relief"]) == 1
    note, line = capsys.readouterr().err.splitlines()
    assert note == "faceverse: bench relief is deprecated, use bench displacement" and "bm_displacement.py" in line


@pytest.mark.parametrize("argv", [[], ["paint"], ["fit"], ["fit", "a.jpg", "--face", "two"], ["weights", "burn"]])
def test_wrong_arguments_are_one_line(argv, capsys):
    assert "--help" in error_line(capsys, 2, argv)


def test_help_and_version(capsys):
    for argv, words in ((["--version"], fv.__version__), (["--help"], "track"), (["fit", "--help"], "--focal-px")):
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        assert stopped.value.code == 0 and words in capsys.readouterr().out


def test_a_fault_of_the_library_is_not_hidden(toy_fit, photo, tmp_path, monkeypatch):
    def fit(*arguments, **options):
        raise IndexError("a fault")

    monkeypatch.setattr("faceverse.commands.batch.fit", fit)
    with pytest.raises(IndexError):
        main(["fit", str(photo), "-o", str(tmp_path / "out")])
    assert contents(tmp_path) == ["selfie.jpg"]


# ---------------------------------------------------------------------------------------------------- as a real process


def run(*argv, **options):
    folder = str(Path(fv.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": folder} | options.pop("env", {})
    command = [sys.executable, "-m", "faceverse", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, **options)


def test_process_with_a_bad_picture(tmp_path):
    (tmp_path / "fake.jpg").write_text("no picture")
    done = run("fit", "fake.jpg", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "fake.jpg is not a picture" in done.stderr
    assert contents(tmp_path) == ["fake.jpg"]


def test_process_whose_reader_has_gone(toy_weights):
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONPATH": str(Path(fv.__file__).parent.parent)}
    command = [sys.executable, "-m", "faceverse", "weights", "path"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300, env=environment)
    os.close(writing)
    assert done.returncode == 1 and done.stderr == ""


def has_open_model():
    try:
        find_weights()
    except fv.WeightsError:
        return False
    return True


needs_open_model = pytest.mark.skipif(not has_open_model(), reason="weights/open_base.safetensors is not there")


@needs_open_model
def test_weights_info_of_the_open_model(capsys):
    assert main(["weights", "info"]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert "CC0" in lines["licence"] and "52 expressions" in lines["modes"] and float(lines["size"].split()[0]) < 10


@needs_open_model
def test_no_face_is_said_in_one_line(tmp_path, capsys):
    photo = write_photo(tmp_path / "wall.jpg", (640, 480))
    line = error_line(capsys, 1, ["fit", photo, "-o", tmp_path / "out"])
    assert "no face" in line.lower() and contents(tmp_path) == ["wall.jpg"]


@needs_open_model
def test_two_faces_but_the_sixth_is_wanted(tmp_path, astronaut, capsys):
    face = astronaut[:330, 90:380]
    Image.fromarray(np.concatenate([face, face[:, ::-1]], axis=1)).save(tmp_path / "two.png")
    line = error_line(capsys, 1, ["fit", tmp_path / "two.png", "-o", tmp_path / "out", "--face", "5"])
    assert "2 faces" in line and "face=5" in line and contents(tmp_path) == ["two.png"]


@needs_open_model
def test_process_fits_edits_and_renders(tmp_path, astronaut):
    Image.fromarray(astronaut).save(tmp_path / "selfie.png")
    done = run("fit", "selfie.png", "-o", "out", "--no-detail", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "out") == ["selfie.glb", "selfie.json", "selfie.png"]
    done = run("edit", "out/selfie.json", "-o", "older.json", "--age", "+20", "--expression", "jawOpen=1", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "older.json\n", "")
    assert main(["render", str(tmp_path / "older.json"), "-o", str(tmp_path / "older.png"), "--size", "128"]) == 0
    with Image.open(tmp_path / "older.png") as picture:
        assert np.asarray(picture).std() > 10
