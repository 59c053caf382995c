"""What the file system does to readers and writers: pipes, devices, links, names, full and read-only disks."""

import contextlib
import errno
import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from test_track_files import make_track

import faceverse as fv
import toy
from faceverse.detail.official import read_tensors
from faceverse.errors import FaceVerseError, ImageError, ParameterError
from faceverse.io.files import files_in, read_bytes, write_all, write_atomically
from faceverse.io.images import read_image
from faceverse.io.pickles import read_checkpoint, read_npy
from faceverse.model.file import read_model_file, write_model_data
from faceverse.tracking.journal import read_journal
from faceverse.training.scan_files import load_scan

POSIX = pytest.mark.skipif(os.name != "posix", reason="pipes, devices and limits of POSIX systems")


# ------------------------------------------------------------------------------------------------------------- readers


def readers(model):
    """Functions that read a path, with the suffix of their files."""
    return {
        "image": (".jpg", read_image),
        "fit": (".png", lambda path: fv.fit(path, model)),
        "result": (".json", lambda path: fv.load_result(path, model)),
        "coefficients": (".npy", lambda path: fv.load_result(path, model)),
        "model": (".safetensors", fv.load_model),
        "official model": (".npy", fv.load_model),
        "model file": (".safetensors", read_model_file),
        "array": (".npy", read_npy),
        "checkpoint": (".pt", read_checkpoint),
        "tensors": (".safetensors", lambda path: read_tensors(Path(path))),
        "video": (".mp4", lambda path: fv.track(path, model)),
        "video with a journal": (".mp4", lambda path: fv.track(path, model, journal="run.fvtrack")),
        "track json": (".json", lambda path: fv.load_track(path, model)),
        "track npz": (".npz", lambda path: fv.load_track(path, model)),
        "track csv": (".csv", lambda path: fv.load_track(path, model)),
        "journal": (".fvtrack", lambda path: fv.load_track(path, model)),
        "journal alone": (".fvtrack", lambda path: read_journal(path, model)),
        "mesh": (".obj", load_scan),
        "mesh by trimesh": (".ply", load_scan),
        "cloud": (".xyz", load_scan),
        "recording": (".rgbd.json", load_scan),
    }


READERS = tuple(readers(None))


@pytest.fixture
def pipe(tmp_path):
    """Function (name) -> path of a pipe. Whoever reads it anyway finds an empty file, and does not wait for ever."""
    made = []

    def make(name):
        path = tmp_path / name
        os.mkfifo(path)
        writer = threading.Thread(target=lambda: os.close(os.open(path, os.O_WRONLY)), daemon=True)
        writer.start()
        made.append((path, writer))
        return path

    yield make
    for path, writer in made:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        writer.join()
        os.close(reader)


@pytest.mark.parametrize("name", READERS)
@POSIX
def test_pipes_and_devices_are_refused(name, toy_model, tmp_path, pipe):
    suffix, read = readers(toy_model)[name]
    with pytest.raises(FaceVerseError) as caught:
        read(pipe(f"me{suffix}"))
    assert str(caught.value) == f"{tmp_path / f'me{suffix}'} is a pipe; give a file"
    assert caught.value.message.translated("zh") == f"{tmp_path / f'me{suffix}'} 是管道；请给出普通文件"
    link = tmp_path / f"zero{suffix}"
    link.symlink_to("/dev/zero")
    with pytest.raises(FaceVerseError) as caught:
        read(link)
    assert str(caught.value) == f"{link} is a device; give a file"


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_named(name, toy_model, tmp_path):
    suffix, read = readers(toy_model)[name]
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / "file").write_text("x")
    cases = {
        f"none{suffix}": "there is no .*file .*none",
        f"file/none{suffix}": "there is no .*file .*none",
        f"folder{suffix}": "is a folder; give a file" if not name.startswith("video") else "has no pictures",
        f"{'n' * 300}{suffix}": "cannot read .*: the name is too long; choose a shorter one",
        f"zero\0byte{suffix}": "cannot read .*: no file can have this name",
    }
    if hasattr(os, "symlink"):
        (tmp_path / f"nowhere{suffix}").symlink_to("none")
        (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
        cases |= {f"nowhere{suffix}": "there is no .*file", f"loop{suffix}": "symbolic links form a loop"}
    for path, words in cases.items():
        with pytest.raises(FaceVerseError, match=words) as caught:
            read(tmp_path / path)
        assert "\n" not in str(caught.value)


@POSIX
def test_pipes_beside_a_scan_are_passed_over_or_named(pipe, tmp_path):
    (tmp_path / "a.obj").write_text("mtllib a.mtl\nusemtl a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/1\n")
    pipe("a.mtl")
    assert len(load_scan(tmp_path / "a.obj").vertices) == 3
    (tmp_path / "b.obj").write_text((tmp_path / "a.obj").read_text().replace("a.mtl", "b.mtl"))
    (tmp_path / "b.mtl").write_text("newmtl a\nmap_Kd b.png\n")
    pipe("b.png")
    assert len(load_scan(tmp_path / "b.obj").vertices) == 3
    trimesh = pytest.importorskip("trimesh")
    for name, content in trimesh.exchange.gltf.export_gltf(trimesh.Scene(trimesh.creation.box())).items():
        (tmp_path / name).write_bytes(content)
    assert len(load_scan(tmp_path / "model.gltf").vertices) == 8
    (tmp_path / "gltf_buffer_0.bin").unlink()
    pipe("gltf_buffer_0.bin")
    with pytest.raises(FaceVerseError, match=r"model\.gltf is damaged .*gltf_buffer_0\.bin"):
        load_scan(tmp_path / "model.gltf")


@POSIX
def test_sockets_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s.json")
        with pytest.raises(ParameterError, match=r"s\.json is a socket; give a file"):
            read_bytes("s.json", ParameterError)


@pytest.mark.parametrize("address", ["http://example.org/a.mp4", "file:///videos/a.mp4", "rtsp://camera/1.mp4"])
@pytest.mark.parametrize("kind", [str, Path])
def test_addresses_are_refused_in_words(address, kind, toy_model):
    with pytest.raises(ImageError) as caught:
        fv.track(kind(address), toy_model)
    shown = address.replace("///", "//")
    assert str(caught.value) == f"{shown} is an address; give the path of a file on this computer"


def test_permission_is_named(tmp_path, monkeypatch):
    path = tmp_path / "me.jpg"
    path.write_bytes(b"x")

    def refuse(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("faceverse.io.files.open", refuse, raising=False)
    with pytest.raises(ImageError, match="cannot read .*me.jpg: permission denied$"):
        read_image(path)


def test_bytes_are_read_up_to_a_limit(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\x00content")
    assert read_bytes(path, ParameterError, limit=9) == b"\xff\x00content"
    with pytest.raises(ParameterError, match=r"a\.json has 0 MB; such files are read up to 0 MB"):
        read_bytes(path, ParameterError, limit=8)
    with open(path, "r+b") as file:
        file.truncate(2**33)  # of holes
    with pytest.raises(ParameterError, match="has 8192 MB; such files are read up to 2048 MB"):
        fv.load_result(path)


def test_files_in_a_folder(tmp_path):
    (tmp_path / "b.png").mkdir()
    for name in ("c.png", "a.png"):
        (tmp_path / name).write_bytes(b"")
    assert files_in(tmp_path, ImageError) == [tmp_path / "a.png", tmp_path / "c.png"]
    with pytest.raises(ImageError, match="cannot read the folder .*: there is no such file or folder"):
        files_in(tmp_path / "none", ImageError)


# ------------------------------------------------------------------------------------------------------------- writers


@pytest.fixture
def track(toy_model):
    return make_track(toy_model)


def writers(result, track, model):
    """Functions that write a path, with the names of the files that belong to me.SUFFIX."""
    grey = np.full((40, 40), 99, np.uint8)
    return {
        "image": (".png", lambda path: fv.save_image(path, grey), ()),
        **{f"head {name}": (f".{name}", lambda path: fv.export(result, path), entry.companions[:2])
           for name, entry in fv.EXPORT_FORMATS.items()},  # the toy has no parts
        **{f"track {name}": (f".{name}", lambda path: fv.export(track, path), ()) for name in fv.TRACK_FORMATS},
        "saved track": (".npz", track.save, ()),
        "video": (".mp4", lambda path: fv.render(track, path, size=16, fps=4), ()),
        "model": (".safetensors", lambda path: write_model_data(model.data, path), ()),
        "model of its own": (".safetensors", lambda path: toy.toy_file().write(path), ()),
    }  # fmt: skip


WRITERS = (
    "image", *(f"head {name}" for name in fv.EXPORT_FORMATS), *(f"track {name}" for name in fv.TRACK_FORMATS),
    "saved track", "video", "model", "model of its own",
)  # fmt: skip


@pytest.fixture(params=WRITERS)
def writer(request, toy_result, track, toy_model):
    return writers(toy_result, track, toy_model)[request.param]


def refused(write, path, words):
    """The error of a file that cannot be written: one line, in both languages."""
    with pytest.raises(FaceVerseError, match=words) as caught:
        write(path)
    assert "\n" not in str(caught.value)
    chinese = caught.value.message.translated("zh")
    assert str(path.with_suffix("")).replace("\0", "?") in chinese and "无法写入" in chinese


def test_read_only_disks_are_one_error(writer, disk):
    suffix, write, companions = writer
    old = disk.path / f"me{suffix}"
    old.write_bytes(b"older")
    disk.make_read_only()
    refused(write, old, "cannot write .*me.*read-only; choose another folder")
    refused(write, disk.path / f"new{suffix}", "cannot write .*new.*read-only; choose another folder")
    assert old.read_bytes() == b"older" and os.listdir(disk.path) == [old.name]


def test_full_disks_are_one_error_and_keep_the_old_file(writer, disk):
    suffix, write, companions = writer
    old = disk.path / f"me{suffix}"
    old.write_bytes(b"older")
    with open(disk.path / "filling", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    refused(write, old, "cannot write .*me.*(the disk is full|No space left)")
    assert old.read_bytes() == b"older" and sorted(os.listdir(disk.path)) == ["filling", old.name]


@POSIX
def test_limits_are_one_error_and_keep_the_old_file(writer, tmp_path, small_files):
    suffix, write, companions = writer
    old = tmp_path / f"me{suffix}"
    old.write_bytes(b"older")
    with small_files(20):
        refused(write, old, "cannot write .*me.*(larger than the system allows|the encoder stopped)")
    assert old.read_bytes() == b"older" and os.listdir(tmp_path) == [old.name]


def test_places_that_cannot_be_written(writer, tmp_path, monkeypatch):
    suffix, write, companions = writer
    (tmp_path / "file").write_text("x")
    (tmp_path / f"folder{suffix}").mkdir()
    places = [f"none/me{suffix}", f"file/me{suffix}", f"folder{suffix}", f"{'n' * 260}{suffix}", f"a\0b{suffix}"]
    if os.name == "posix":
        os.mkfifo(tmp_path / f"pipe{suffix}")
        (tmp_path / "loop").symlink_to("loop")
        places += [f"pipe{suffix}", f"loop/me{suffix}"]
    before = sorted(os.listdir(tmp_path))
    for place in places:
        refused(write, tmp_path / place, "cannot write .*: .*(folder|pipe|name)")
    assert sorted(os.listdir(tmp_path)) == before
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    refused(write, Path(f"me{suffix}"), "cannot write me.*: .*folder")


@POSIX
def test_links_are_replaced(writer, tmp_path):
    suffix, write, companions = writer
    names = [f"me{suffix}", *(f"me{ending}" for ending in companions)]
    for name, target in zip(names, (f"none{suffix}", names[-1], "none"), strict=False):
        (tmp_path / name).symlink_to(target)
    write(tmp_path / names[0])
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    for name in names:
        assert not (tmp_path / name).is_symlink() and (tmp_path / name).stat().st_size > 50


def test_what_is_written_appears_as_a_whole(tmp_path):
    path = tmp_path / "a.txt"
    assert write_atomically(path, (part for part in (b"one ", b"two")), ParameterError) == path
    assert path.read_bytes() == b"one two"
    seen = []

    def parts():
        yield b"half of"
        seen.append((path.read_bytes(), len(os.listdir(tmp_path))))
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError):
        write_atomically(path, parts(), ParameterError)
    assert seen == [(b"one two", 2)] and path.read_bytes() == b"one two" and os.listdir(tmp_path) == ["a.txt"]


def test_files_that_belong_together_appear_together(tmp_path):
    files = {tmp_path / name: name.encode() for name in ("a", "b", "c")}
    write_all(files, ParameterError)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    (tmp_path / "b").unlink()
    (tmp_path / "c").unlink()
    (tmp_path / "c").mkdir()
    with pytest.raises(ParameterError, match="cannot write .*c: a folder has this name"):
        write_all(dict.fromkeys(files, b"new"), ParameterError)
    assert sorted(os.listdir(tmp_path)) == ["a", "c"] and (tmp_path / "a").read_bytes() == b"a"


@pytest.mark.parametrize(("code", "words"), [
    (errno.ENOSPC, "the disk is full; free some space"), (errno.EDQUOT, "disk quota is used up"),
    (errno.EROFS, "read-only"), (errno.EACCES, "permission denied"), (errno.EIO, "check the disk"),
])  # fmt: skip
def test_a_clean_up_that_fails_as_well_hides_nothing(code, words, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(ParameterError, match=f"cannot write .*a.txt: .*{words}"):
        write_atomically(tmp_path / "a.txt", b"content", ParameterError)
