"""Where the commands read and write: names of all kinds, disks that fill up, folders that vanish."""

import contextlib
import csv
import os
import shutil
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_export import read_glb
from test_track_files import make_track

import faceverse as fv
from faceverse.__main__ import main
from faceverse.commands.names import distinct_names, longest_name, shortened
from faceverse.detail.official import read_tensors
from faceverse.fitting.state import FaceState
from faceverse.io.images import read_image
from faceverse.io.pickles import read_checkpoint, read_npy
from faceverse.model.file import write_model_data
from faceverse.tracking.frame_solver import SolvedFrame
from faceverse.tracking.frames import open_source
from faceverse.tracking.journal import Journal, Record, read_journal
from faceverse.tracking.person import TrackedPerson
from faceverse.training.scan_files import load_scan

POSIX = pytest.mark.skipif(os.name != "posix", reason="names of POSIX systems")
NOT_TEXT = os.fsdecode(b"caf\xe9")  # Latin-1, as old cameras and archives have it


def write_photo(path):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (120, 160), (128, 100, 90)).save(path, format="png")
    return path


def written(folder):
    return sorted(os.listdir(folder))


# ---------------------------------------------------------------------------------------------------------- long names


@pytest.mark.parametrize("letter", ["n", "é", "脸", "😀"])
def test_long_names_are_shortened_and_stay_distinct(letter):
    size = len(letter.encode())
    name = letter * (100 // size)
    most = len(name) * size - 1
    assert shortened(name, most + 1) == name
    short = shortened(name, most)
    kept, mark = short.rsplit("~", 1)
    assert most - size < len(short.encode()) <= most and name.startswith(kept)
    assert len(mark) == 8 and int(mark, 16) >= 0
    assert shortened(name + "a", 99) != shortened(name + "b", 99)


def test_names_without_text_are_shortened():
    name = os.fsdecode(b"\xe9" * 50)
    short = shortened(name, 40)
    assert os.fsencode(short) == b"\xe9" * 31 + os.fsencode(short)[31:] and len(os.fsencode(short)) == 40


def test_the_longest_name_leaves_space_for_each_ending(tmp_path):
    most = longest_name(tmp_path, [".glb", "_texture.png", ""])
    (tmp_path / ("n" * most + "_texture.png")).touch()
    if most == 255 - len("_texture.png"):
        with pytest.raises(OSError):
            (tmp_path / ("n" * (most + 1) + "_texture.png")).touch()
    assert longest_name(tmp_path / "none", ["1234"]) == 251


@pytest.mark.parametrize(
    ("files", "endings", "names"),
    [
        (["a b.jpg", "a_b.jpg", "a  b.jpg"], (".mtl",), ["a b", "a_b_jpg", "a  b_jpg_2"]),
        (["me.jpg", "me_texture.jpg"], (".png", "_texture.png"), ["me", "me_texture_jpg"]),
        (["me.jpg", "me_texture.jpg"], (".glb", ".json"), ["me", "me_texture"]),
        (["straße.jpg", "STRASSE.png"], (".glb",), ["straße", "STRASSE_png"]),
        ([unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.png")], (".glb",), None),
    ],
)
def test_no_file_of_a_photograph_replaces_that_of_another(files, endings, names):
    found = distinct_names(files, endings)
    if names is None:
        assert found[1] == unicodedata.normalize("NFD", "é") + "_png"
    else:
        assert found == names


@pytest.mark.parametrize("letter", ["n", "脸"])
@POSIX
def test_photographs_with_long_names_are_fitted_like_others(letter, toy_fit, tmp_path, capsys):
    stem = letter * (250 // len(letter.encode()))
    photos = tmp_path / "photos"
    for name in ("a.jpg", f"{stem}.jpg", f"{stem[:-1]}x.jpg"):
        write_photo(photos / name)
    out = tmp_path / "out"
    assert main(["fit", str(photos), "-o", str(out), "--format", "json,obj"]) == 0
    assert capsys.readouterr().err == ""
    names = sorted({path.stem for path in out.glob("*.json")})
    assert len(names) == 3 and names[0] == "a" and all("~" in name for name in names[1:])
    files = [f"{name}{ending}" for name in names for ending in (".json", ".obj", ".mtl", "_texture.png")]
    assert written(out) == sorted([*files, "summary.csv"])
    for name in names:
        assert (out / f"{name}.obj").read_text().splitlines()[1] == f"mtllib {name}.mtl"
        assert f"map_Kd {name}_texture.png" in (out / f"{name}.mtl").read_text()
    with open(out / "summary.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert {row["warnings"] for row in rows[1:]} == {
        f"the face is small; the name of the photograph is too long for the names of its results; they are named {name}"
        for name in names[1:]
    }


@POSIX
def test_one_photograph_with_a_long_name(toy_fit, tmp_path, capsys):
    photo = write_photo(tmp_path / ("n" * 251 + ".jpg"))
    assert main(["fit", str(photo), "-o", str(tmp_path / "out"), "--format", "json"]) == 0
    (made,) = written(tmp_path / "out")
    assert made.startswith("n" * 241 + "~") and len(made) == 255
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"too long for the names of its results; they are named {made[:-5]}")


def test_a_path_that_is_too_long_stops_this_photograph_only(toy_fit, tmp_path, capsys):
    photo = write_photo(tmp_path / "a.jpg")
    out = tmp_path / "out"
    assert main(["fit", str(photo), "n" * 300 + ".jpg", "-o", str(out), "--format", "json"]) == 1
    assert written(out) == ["a.json", "summary.csv"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("the name is too long; choose a shorter one")


# ----------------------------------------------------------------------------------------------------------- odd names


ODD = ("a:b", "-o", "100%", "frame_%03d", "what?", "#1", "two\nlines", " spaces ", "http:", "file:me", "concat:a|b",
       "pipe:0", "*", "[a]", "C:", "~", "a\\b", NOT_TEXT)  # fmt: skip
# What material and texture of an .obj are called, where its own name means something else in the format.
BESIDE = {"-o": "_o", "#1": "_1", "two\nlines": "two_lines", " spaces ": "_spaces_", "a\\b": "a_b", NOT_TEXT: "caf_"}


@pytest.mark.parametrize("name", ODD)
@POSIX
def test_photographs_of_any_name_are_fitted(name, toy_fit, toy_result, tmp_path, monkeypatch, capsys):
    write_photo(tmp_path / "photos" / f"{name}.png")
    fv.export(toy_result, tmp_path / "me.obj")
    monkeypatch.chdir(tmp_path / "photos")
    for number, argument in enumerate((f"./{name}.png", ".")):
        out = tmp_path / str(number)
        assert main(["fit", argument, "-o", str(out), "--format", "json,obj"]) == 0
        beside = BESIDE.get(name, name)
        files = [f"{name}.json", f"{name}.obj", f"{beside}.mtl", f"{beside}_texture.png"]
        assert written(out) == sorted(files + ["summary.csv"] * number)
        scan, expected = load_scan(out / f"{name}.obj"), load_scan(tmp_path / "me.obj")
        assert np.array_equal(scan.colors, expected.colors), "material and texture are found"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("folder", ["", "./"])
@pytest.mark.parametrize("name", ODD)
@POSIX
def test_files_of_any_name_are_written_and_read(name, folder, toy_model, toy_result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, track = folder + name, make_track(toy_model)
    shade = np.full((40, 40, 3), 77, np.uint8)
    fv.save_image(f"{path}.png", shade)
    assert np.array_equal(read_image(f"{path}.png").rgb, shade)
    fv.export(toy_result, f"{path}.json")
    assert np.array_equal(fv.load_result(f"{path}.json", toy_model).params.identity, toy_result.params.identity)
    for suffix in (".npz", ".csv"):
        track.save(f"{path}{suffix}")
        assert np.allclose(fv.load_track(f"{path}{suffix}", toy_model).times_s, track.times_s)
    data = write_model_data(toy_model.data, f"{path}.safetensors")
    assert np.array_equal(fv.load_model(data).mean_vertices, toy_model.mean_vertices)
    assert np.array_equal(read_tensors(Path(data))[0]["uv"].numpy(), toy_model.uv)
    np.save(f"{path}.npy", np.arange(5))
    assert read_npy(f"{path}.npy").tolist() == [0, 1, 2, 3, 4]
    for legacy in (False, True):
        with open(f"{path}.pt", "wb") as file:
            torch.save({"w": torch.arange(3)}, file, _use_new_zipfile_serialization=not legacy)
        assert read_checkpoint(f"{path}.pt")["w"].tolist() == [0, 1, 2]
    suffixes = (".csv", ".json", ".npy", ".npz", ".png", ".pt", ".safetensors")
    assert written(tmp_path) == sorted(f"{name}{suffix}" for suffix in suffixes)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video of five grey frames, 48 x 64, whose brightness rises."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path_factory.mktemp("video") / "x.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write an MP4")
    for shade in range(0, 200, 40):
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()
    return path


def shades(source):
    frames, _ = open_source(source, 25)
    return [int(np.median(rgb)) for _, rgb in frames]


@pytest.mark.parametrize("name", ODD)
@POSIX
def test_videos_of_any_name_are_read(name, video, tmp_path, monkeypatch):
    expected = shades(video)
    assert np.abs(np.subtract(expected, range(0, 200, 40))).max() <= 4
    (tmp_path / f"{name}.mp4").symlink_to(video)
    monkeypatch.chdir(tmp_path)
    assert shades(f"{name}.mp4") == shades(f"./{name}.mp4") == shades(tmp_path / f"{name}.mp4") == expected
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    (tmp_path / name / "x.mp4").symlink_to(video)
    assert shades(f"../{name}/x.mp4") == expected
    assert written(tmp_path) == sorted([name, f"{name}.mp4"])


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_whose_name_looks_like_a_pattern_is_itself(suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, shade in (("f_1", 50), ("f_2", 60), ("f_%d", 200)):
        Image.new("RGB", (64, 64), (shade,) * 3).save(f"{name}.{suffix}")
    assert shades(f"f_%d.{suffix}") == [200] and shades(f"f_2.{suffix}") == [60]
    assert shades(".") == [50, 60, 200]


@POSIX
def test_pipes_in_a_folder_of_pictures_are_passed_over(tmp_path):
    write_photo(tmp_path / "1.png")
    os.mkfifo(tmp_path / "2.png")
    assert len(shades(tmp_path)) == 1


@pytest.mark.parametrize("name", ODD)
@POSIX
def test_videos_of_any_name_are_written(name, toy_model, tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    track = make_track(toy_model, frames=9)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    for path in (Path(f"{name}.mp4"), Path(name) / f"{name}.mp4"):
        assert fv.render(track, path, size=32) == path
        assert len(shades(path)) == 9
    assert written(tmp_path) == sorted([name, f"{name}.mp4"]) and written(tmp_path / name) == [f"{name}.mp4"]


# ------------------------------------------------------------------------------------------------- disks, while fitting


def test_a_folder_that_vanishes_fails_each_photograph_and_prints_the_summary(toy_fit, tmp_path, capsys, monkeypatch):
    photos = [str(write_photo(tmp_path / name)) for name in ("a.jpg", "b.jpg", "c.jpg")]
    out, working = tmp_path / "out", fv.commands.batch.fit

    def fit(photo, model, **options):
        if photo.name == "b":
            shutil.rmtree(out)
        return working(photo, model, **options)

    monkeypatch.setattr("faceverse.commands.batch.fit", fit)
    assert main(["fit", *photos, "-o", str(out), "--format", "json"]) == 1
    output = capsys.readouterr()
    errors = output.err.splitlines()
    assert len(errors) == 3 and all("there is no such folder" in line for line in errors)
    assert "b.json" in errors[0] and "c.json" in errors[1] and "summary.csv" in errors[2]
    rows = list(csv.DictReader(output.out.splitlines()[1:]))
    assert [(row["file"], row["status"]) for row in rows] == [("a.jpg", "ok"), ("b.jpg", "failed"), ("c.jpg", "failed")]


def test_a_summary_that_cannot_be_written_keeps_the_older_one(toy_fit, tmp_path, capsys, small_files):
    photos = [str(write_photo(tmp_path / name)) for name in ("a.jpg", "b.jpg")]
    out = tmp_path / "out"
    assert main(["fit", *photos, "-o", str(out), "--format", "npy"]) == 0
    before = (out / "summary.csv").read_bytes()
    capsys.readouterr()
    with small_files(20):
        assert main(["fit", *photos, "-o", str(out), "--format", "npy"]) == 1
    output = capsys.readouterr()
    assert (out / "summary.csv").read_bytes() == before and written(out) == ["a.npy", "b.npy", "summary.csv"]
    rows = list(csv.DictReader(output.out.splitlines()))
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert all("larger than the system allows" in row["error"] for row in rows)
    assert len(output.err.splitlines()) == 3 and "Traceback" not in output.err


def test_a_read_only_folder_is_one_line_before_the_fit(toy_fit, tmp_path, disk, capsys):
    photo = write_photo(tmp_path / "a.jpg")
    disk.make_read_only()
    for out in (disk.path, disk.path / "new"):
        assert main(["fit", str(photo), "-o", str(out)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"cannot write into {out} (option -o): the file system is read-only" in line
    assert toy_fit == [] and written(disk.path) == []


@pytest.mark.parametrize("place", ["file", "file/out", "loop", "n" * 300])
@POSIX
def test_a_folder_that_cannot_be_made_is_one_line_before_the_fit(place, toy_fit, tmp_path, capsys):
    photo = write_photo(tmp_path / "a.jpg")
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert main(["fit", str(photo), "-o", str(tmp_path / place)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot write into" in line and any(words in line for words in ("a file", "a folder", "too long", "loop"))
    assert toy_fit == [] and written(tmp_path) == ["a.jpg", "file", "loop"]


def test_a_full_disk_fails_a_photograph_and_not_the_next(toy_fit, tmp_path, disk, capsys):
    photos = [str(write_photo(tmp_path / name)) for name in ("a.jpg", "b.jpg", "c.jpg")]
    (disk.path / "filling").write_bytes(bytes(200_000))
    working = fv.commands.batch.fit

    def fit(photo, model, **options):
        if photo.name == "c":
            (disk.path / "filling").unlink()
        return working(photo, model, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faceverse.commands.batch.fit", fit)
        assert main(["fit", *photos, "-o", str(disk.path / "out"), "--format", "obj,json"]) == 1
    assert written(disk.path / "out") == ["c.json", "c.mtl", "c.obj", "c_texture.png", "summary.csv"]
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all("the disk is full; free some space" in line for line in errors)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_an_output_that_cannot_be_printed_is_one_line(toy_fit, tmp_path, capsys, monkeypatch):
    photo = write_photo(tmp_path / "a.jpg")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["fit", str(photo), "-o", str(tmp_path / "out"), "--format", "json"]) == 1
        monkeypatch.undo()
    assert capsys.readouterr().err == "faceverse: the output cannot be written: the disk is full; " + (
        "free some space or choose another folder\n"
    )
    assert written(tmp_path / "out") == ["a.json"]


# ----------------------------------------------------------------------------------------------- disks, while tracking


@pytest.fixture
def found(toy_model):
    return make_track(toy_model)


@pytest.fixture
def journal_of(toy_model, found):
    """Function (path) -> journal of the run that `found` came from, with `add(count)`."""
    person = TrackedPerson(found.identity, found.camera)
    record = Record(len(toy_model.expression_names))

    def make(path):
        journal = Journal(path, {"name": "clip.mp4"})
        journal.open(person, None)

        def add(count):
            for index in range(count):
                state = FaceState.from_params(found.params(index))
                journal.add(record.add(SolvedFrame(found.times_s[index], state, 0.75)))

        def finish(keep):
            journal.finish(person, record.frames, keep)

        return journal, add, finish

    return make


def test_a_journal_loses_no_frame_and_stops_with_a_warning(journal_of, tmp_path, toy_model, small_files, recwarn):
    path = tmp_path / "clip.fvtrack"
    journal, add, finish = journal_of(path)
    add(3)
    size = path.stat().st_size
    assert len(read_journal(path, toy_model).frames) == 3
    with small_files(size + 100):
        add(5)
    (warning,) = recwarn.list
    assert str(warning.message) == f"the journal {path} stops here, and tracking goes on without it: " + (
        "the disk is full; free some space or choose another folder"
    )
    assert len(read_journal(path, toy_model).frames) == 3
    add(2)
    assert len(read_journal(path, toy_model).frames) == 3
    finish(keep=True)
    assert len(read_journal(path, toy_model).frames) == 10, "the disk has space again"
    assert written(tmp_path) == ["clip.fvtrack"] and len(recwarn.list) == 1
    finish(keep=False)
    assert written(tmp_path) == []


def test_a_journal_that_cannot_begin_does_not_end_the_run(journal_of, tmp_path, small_files):
    path = tmp_path / "clip.fvtrack"
    path.write_bytes(b"older")
    with small_files(20), pytest.warns(UserWarning, match="stops here"):
        journal, add, finish = journal_of(path)
        add(4)
        finish(keep=True)
    assert path.read_bytes() == b"older" and written(tmp_path) == ["clip.fvtrack"]


@pytest.mark.parametrize("place", ["none/x.fvtrack", "file/x.fvtrack", "folder.fvtrack"])
def test_a_journal_is_tried_before_the_run(place, toy_model, tmp_path):
    write_photo(tmp_path / "frames" / "1.png")
    (tmp_path / "file").touch()
    (tmp_path / "folder.fvtrack").mkdir()
    with pytest.raises(fv.ParameterError, match="cannot write .*x?.fvtrack: .*folder"):
        fv.track(tmp_path / "frames", toy_model, journal=tmp_path / place)


@pytest.fixture
def toy_track(monkeypatch, toy_commands, found, journal_of):
    """Replaces `track` by one that knows the answer and writes a journal: its sources, and what happens at its end."""
    run = SimpleNamespace(sources=[], at_end=lambda: None)

    def track(source, model, *, journal, keep_journal, **options):
        run.sources.append(source)
        _, add, finish = journal_of(Path(journal))
        add(len(found))
        finish(keep_journal)
        run.at_end()
        return found

    monkeypatch.setattr("faceverse.commands.track.track", track)
    return run


def test_a_track_that_is_written_leaves_no_journal(toy_track, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["track", "clip.mp4", "-o", str(out), "--format", "csv,npz"]) == 0
    assert written(out) == ["clip.csv", "clip.npz"]
    assert capsys.readouterr().err == ""


def test_one_file_that_cannot_be_written_keeps_the_others_and_the_journal(toy_track, found, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "clip.json").mkdir(parents=True)
    assert main(["track", "clip.mp4", "-o", str(out), "--format", "csv,json,npz"]) == 1
    assert written(out) == ["clip.csv", "clip.fvtrack", "clip.json", "clip.npz"]
    output = capsys.readouterr()
    assert output.out.splitlines() == [str(out / "clip.csv"), str(out / "clip.npz")]
    assert output.err == (
        f"faceverse: cannot write {out / 'clip.json'}: a folder has this name; {out / 'clip.fvtrack'} keeps the "
        "tracked frames, so the same command writes the files without tracking again\n"
    )
    kept = fv.load_track(out / "clip.fvtrack", found.model)
    assert np.array_equal(kept.times_s, found.times_s)
    (out / "clip.json").rmdir()
    assert main(["track", "clip.mp4", "-o", str(out), "--format", "csv,json,npz"]) == 0
    assert written(out) == ["clip.csv", "clip.json", "clip.npz"]


def test_a_full_disk_keeps_a_finished_track(toy_track, found, tmp_path, disk, capsys, monkeypatch):
    """Nothing fits on the disk, not even the journal: the track is kept in the temporary folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open(disk.path / "filling", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert main(["track", "clip.mp4", "-o", str(disk.path), "--format", "csv,json"]) == 1
    assert written(disk.path) == ["filling"]
    warning, error = capsys.readouterr().err.splitlines()
    assert "warning: the journal" in warning and "the disk is full" in warning
    assert error.count("the disk is full") == 2 and "clip.csv" in error and "clip.json" in error
    assert "; the track is kept in" in error
    (place,) = tmp_path.glob("faceverse-*/clip.npz")
    assert error.endswith(f"the track is kept in {place}; read it with faceverse.load_track")
    kept = fv.load_track(place, found.model)
    for name in ("times_s", "rotation", "expression", "confidence"):
        assert np.array_equal(getattr(kept, name), getattr(found, name)), name


def test_a_file_that_was_written_keeps_the_track_too(toy_track, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "clip.csv").mkdir(parents=True)
    toy_track.at_end = lambda: (out / "clip.fvtrack").write_bytes(b"no journal")
    assert main(["track", "clip.mp4", "-o", str(out), "--format", "csv,json"]) == 1
    assert capsys.readouterr().err.endswith(f"the track is kept in {out / 'clip.json'}; read it with "
                                            "faceverse.load_track\n")  # fmt: skip


def test_a_track_that_nothing_keeps_is_said_to_be_lost(toy_track, tmp_path, disk, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(disk.path))

    def damage():
        (disk.path / "out" / "clip.fvtrack").write_bytes(b"no journal")
        disk.make_read_only()

    toy_track.at_end = damage
    assert main(["track", "clip.mp4", "-o", str(disk.path / "out"), "--format", "csv"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith("the track could not be kept elsewhere either (the file system is read-only; "
                          "choose another folder)")  # fmt: skip


def test_the_animation_has_a_name_that_is_text(found, tmp_path):
    if os.name != "posix":
        pytest.skip("names of POSIX systems")
    path = fv.export(found, tmp_path / f"{NOT_TEXT}.glb")
    assert read_glb(path).document["animations"][0]["name"] == "caf?"


@pytest.mark.parametrize(("given", "name"), [(".", "my clip"), ("../my clip", "my clip"), ("a:b.mp4", "a:b")])
def test_results_are_named_after_the_source(given, name, toy_track, tmp_path, monkeypatch):
    (tmp_path / "my clip").mkdir()
    monkeypatch.chdir(tmp_path / "my clip")
    assert main(["track", given, "-o", str(tmp_path / "out"), "--format", "csv"]) == 0
    assert toy_track.sources == [given] and written(tmp_path / "out") == [f"{name}.csv"]


@pytest.mark.parametrize("letter", ["n", "脸"])
@POSIX
def test_long_names_of_videos_are_shortened(letter, toy_track, tmp_path, capsys):
    stem = letter * (251 // len(letter.encode()))
    assert main(["track", f"{stem}.mp4", "-o", str(tmp_path / "out"), "--format", "csv,json"]) == 0
    names = written(tmp_path / "out")
    short = names[0].removesuffix(".csv")
    assert names == [f"{short}.csv", f"{short}.json"] and "~" in short
    assert capsys.readouterr().err.endswith(f"they are named {short}\n")
