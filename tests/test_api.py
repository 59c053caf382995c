"""The page's HTTP interface, as a program on another machine sees it: a running server and Gradio's client."""

import json
import re
import time
import zipfile

import httpx
import numpy as np
import pytest
import trimesh
from PIL import Image

import faceverse as fv

pytest.importorskip("gradio")
api = pytest.importorskip("demo.api")
from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from demo import gate, page  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A page without detail: its address, its folder for uploads and its sessions."""
    folder = tmp_path_factory.mktemp("uploads")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(folder))
    patch.setenv("GRADIO_HEARTBEAT_INTERVAL", "0.2")  # a client that has left is noticed with the next one
    patch.setattr(api, "UPLOAD_STAYS_S", 2.0)  # longer than requests of one client are apart on a busy machine
    built = page.build(folder / "faceverse", detail=False)
    _, address, _ = built.demo.launch(prevent_thread_lock=True, quiet=True, **page.launch_options())
    yield address, folder, built.sessions
    built.demo.close(verbose=False)
    patch.undo()


@pytest.fixture(scope="module")
def connect(server, tmp_path_factory):
    """Function () -> a client of its own session."""
    clients = []

    def new():
        downloads = tmp_path_factory.mktemp("downloads")
        clients.append(Client(server[0], download_files=downloads, verbose=False))
        return clients[-1]

    yield new
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def client(connect):
    return connect()


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "selfie.jpg"
    Image.fromarray(pytest.importorskip("skimage.data").astronaut()).save(path)
    return path


@pytest.fixture(scope="module")
def head(client, photo):
    """File of the fitted head."""
    return client.predict(handle_file(photo), api_name="/fit")


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def age_of(file):
    """Years that the model estimates."""
    result = fv.load_result(file)
    return result.model.attributes(result.params)["age"]


def uploads(folder):
    """Files that lie outside the visitors' folders."""
    return [path for path in folder.rglob("*") if path.is_file() and "faceverse" not in path.parts[-4:-1]]


def test_the_lines_of_the_readme_make_an_older_head(server, root, photo, monkeypatch, capsys):
    """Five lines of README.md, with this server's address."""
    (snippet,) = [
        block
        for block in re.findall(r"^```python\n(.*?)^```$", (root / "README.md").read_text(), re.MULTILINE | re.DOTALL)
        if "gradio_client" in block
    ]
    monkeypatch.chdir(photo.parent)
    names = {}
    exec(compile(snippet.replace("http://127.0.0.1:7860", server[0]), "README.md", "exec"), names)
    names["client"].close()
    file = capsys.readouterr().out.splitlines()[-1]
    first, second = fv.load_result(names["head"]), fv.load_result(names["older"])
    assert age_of(names["older"]) > age_of(names["head"]) + 10
    assert first.source == photo.stem
    mesh = trimesh.load(file, force="mesh", process=False)
    expected = np.concatenate([second.neutral_vertices, *second.neutral_part_vertices.values()])
    assert np.allclose(mesh.bounds, [expected.min(0), expected.max(0)], atol=1e-4)


def test_the_result_is_that_of_the_library(head, photo):
    wanted = fv.fit(photo, detail=False)
    np.testing.assert_allclose(fv.load_result(head).params.identity, wanted.params.identity, atol=1e-5)


def test_only_these_endpoints_are_public(client):
    described = client.view_api(return_format="dict")
    names = {name: [each["parameter_name"] for each in entry["parameters"]]
             for name, entry in described["named_endpoints"].items()}  # fmt: skip
    assert names == {
        "/fit": ["photo", "face", "detail", "seed", "others"],
        "/edit": ["result", "edits", "donor", "take"],
        "/render": ["result", "size", "mode", "rotation"],
        "/export": ["result", "format", "dense", "lod", "hair"],
    }
    assert not described["unnamed_endpoints"] and set(names) == {f"/{name}" for name in gate.ENDPOINTS}
    for entry in described["named_endpoints"].values():
        assert entry["description"] and all(each["python_type"]["description"] for each in entry["parameters"])


def test_hair_is_edited_and_taken_from_a_donor(client, head, tmp_path):
    worn = client.predict(handle_file(head), {"hair_color": "#5a3825", "hair_length": 0.7}, api_name="/edit")
    hair = fv.load_result(worn).params.hair
    assert np.allclose(hair.color, np.array([90, 56, 37]) / 255) and hair.length == 0.7
    taken = client.predict(handle_file(head), {}, handle_file(worn), "hair", api_name="/edit")
    assert fv.load_result(taken).params.hair == hair
    for edits, take, words in (({}, "ears", "ake is one of detail, hair, both"), ({"hair_from": 1}, "hair", "files")):
        with pytest.raises(Exception, match=words):
            client.predict(handle_file(head), edits, handle_file(worn), take, api_name="/edit")


def test_render_draws_the_turned_head(client, head):
    clay = client.predict(handle_file(head), 96, "clay", [40, 0, 0], api_name="/render")
    wanted = fv.render(fv.load_result(head), 96, "clay", rotation=(40, 0, 0)).rgb
    assert np.abs(np.asarray(Image.open(clay), int) - wanted).mean() < 1
    assert Image.open(client.predict(handle_file(head), api_name="/render")).size == (512, 512)


@pytest.mark.parametrize("kind", api.FORMATS)
def test_exports_hold_the_head(client, head, kind, tmp_path):
    path = client.predict(handle_file(head), kind, api_name="/export")
    wanted = fv.load_result(head)
    if kind == "json":
        assert np.allclose(fv.load_result(path).vertices, wanted.vertices, atol=1e-6)
        return
    if kind == "npy":
        np.testing.assert_allclose(fv.load_result(path).params.identity, wanted.params.identity, atol=1e-5)
        return
    if kind == "obj":
        with zipfile.ZipFile(path) as archive:
            named = {"selfie.mtl", "selfie.obj"}
            materials = archive.read("selfie.mtl").decode().splitlines()
            named |= {line.split()[1] for line in materials if line.startswith("map_")}
            assert set(archive.namelist()) == named and {"selfie_texture.png", "selfie_teeth_upper.png"} <= named
            archive.extractall(tmp_path)
        path = tmp_path / "selfie.obj"
    if kind == "3mf":
        assert zipfile.ZipFile(path).testzip() is None  # tests/test_printing.py reads such files
        return
    mesh = trimesh.load(path, force="mesh", process=False)
    is_neutral = kind == "glb"
    worn = wanted.neutral_part_vertices if is_neutral else wanted.part_vertices
    expected = np.concatenate([wanted.neutral_vertices if is_neutral else wanted.vertices, *worn.values()])
    scale = 1000 if kind == "stl" else 1
    tolerance = 8e-3 if kind in ("ply", "stl") else 1e-4  # hair is a solid there, which leaves out single strands
    bounds = np.stack([expected.min(0), expected.max(0)])
    bounds[0, 1] -= 0.003 * (kind == "stl")  # the base
    assert np.allclose(mesh.bounds, bounds * scale, atol=tolerance * scale)


def test_requests_with_the_same_file_do_not_disturb_each_other(client, head):
    ages = [-10, 5, 20]
    jobs = [client.submit(handle_file(head), {"age": age}, api_name="/edit") for age in ages]
    found = [age_of(job.result()) for job in jobs]
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize(
    ("endpoint", "arguments", "words"),
    [
        ("/edit", ({"agee": 3},), "did you mean 'age'"),
        ("/edit", ("older",), "must be an object"),
        ("/edit", ({"detail_from": 1},), "third"),
        ("/edit", ({"age": [1]},), "age must be a finite number"),
        ("/render", (100_000,), "in 1..2048"),
        ("/render", (64, "oil"), "mode"),
        ("/render", (64, "color", ["left"]), "rotation must be"),
        ("/export", ("exe",), "must be one of glb"),
        ("/export", ("glb", True), "dense"),
        ("/export", ("ply", False, "fine"), "lod"),
    ],
)
def test_mistakes_come_back_in_words(client, head, endpoint, arguments, words):
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(head), *arguments, api_name=endpoint)
    sentence = str(caught.value)
    assert words in sentence.lower() and "\n" not in sentence and "Traceback" not in sentence


@pytest.mark.parametrize("what", ["grey.png", "text.jpg", "text.json", "other.json", "list.json"])
def test_files_that_are_something_else_are_refused_in_words(client, head, tmp_path, what):
    path = tmp_path / what
    if what == "grey.png":
        Image.new("RGB", (200, 200), "grey").save(path)
    elif what == "other.json":
        document = json.loads(open(head, encoding="utf-8").read())
        path.write_text(json.dumps(document | {"model": {"name": "other-model", "sha256": "0" * 64}}))
    else:
        path.write_text("[]" if what == "list.json" else "dear diary")
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(path), api_name="/export" if path.suffix == ".json" else "/fit")
    sentence = str(caught.value)
    words = {"grey.png": "No face", "text.jpg": "text.jpg", "other.json": "other-model"}.get(what, "cannot restore")
    assert words.lower() in sentence.lower() and "\n" not in sentence and "/" not in sentence.replace("/fit", "")


def test_a_parameter_that_is_no_file_is_named(client):
    with pytest.raises(AppError, match="must be a file"):
        client.predict("selfie.jpg", api_name="/fit")


def test_requests_that_fit_no_endpoint_are_answered_in_one_sentence(server):
    api_address = f"{server[0]}gradio_api"
    forged = {"path": "x.jpg", "meta": {"_type": "gradio.FileData"}}
    for path, body, status, words in (
        ("call/nothing", {"data": []}, 404, "There is no endpoint 'nothing'"),
        ("call/v2/nothing", {}, 404, "There is no endpoint"),
        ("call/render", {"data": [forged, 64, "color", None]}, 400, "not an upload of yours"),
        ("call/render", {"data": [1]}, 400, "not the parameters of this endpoint"),
        ("call/render", {"data": ["x" * 1_000_000, 64, "color", None]}, 413, "at most 1 MB"),
    ):
        answer = httpx.post(f"{api_address}/{path}", json=body)
        assert answer.status_code == status and words in answer.json()["detail"], (path, answer.text)
        assert "x.jpg" not in answer.text and "object at" not in answer.text, "neither folders nor objects"


def test_faults_of_the_program_are_not_shown(client, head, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("secret")

    monkeypatch.setattr(fv, "edit", broken)
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(head), {"age": 1}, api_name="/edit")
    assert "secret" not in str(caught.value) and "went wrong" in str(caught.value)


def test_nothing_stays_of_a_client_that_has_left(server, connect, photo, head):
    address, folder, sessions = server
    client = connect()
    before = {path for path in sessions.root.iterdir() if path.is_dir()}
    client.predict(handle_file(head), api_name="/render")
    (mine,) = {path for path in sessions.root.iterdir() if path.is_dir()} - before
    assert [path.suffix for path in mine.rglob("*") if path.is_file()] == [".png"], "the upload is not kept"
    assert wait_for(lambda: not uploads(folder)), f"still there: {uploads(folder)}"
    client.close()
    assert wait_for(lambda: not mine.exists())


def test_a_client_reaches_nothing_of_another(server, client, head):
    address, _, sessions = server
    client.predict(handle_file(head), api_name="/edit")
    secret = next(path for path in sessions.root.rglob("answer-*/selfie.json"))
    forged = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    asked = httpx.post(f"{address}gradio_api/call/render", json={"data": [forged, 64, "clay", None]}).json()
    answer = httpx.get(f"{address}gradio_api/call/render/{asked['event_id']}", timeout=30).text
    assert answer.startswith("event: error") and "not an upload of yours" in answer and "selfie" not in answer
    for path in (sessions.root, secret.parent, secret.parent / ".." / ".." / "..", "/etc/hostname"):
        answer = httpx.get(f"{address}gradio_api/file={path}")
        assert answer.status_code in (403, 404), path


def test_old_answers_make_room(connect, head, server, monkeypatch):
    monkeypatch.setattr(api, "KEPT_ANSWERS", 3)
    client, before = connect(), set(server[2].root.iterdir())
    last = [client.predict(handle_file(head), 16 + number, api_name="/render") for number in range(5)][-1]
    (mine,) = (path for path in set(server[2].root.iterdir()) - before if path.is_dir())
    kept = sorted(mine.glob("answer-*/*"))
    assert len(kept) == 3 and Image.open(kept[-1]).size == Image.open(last).size == (20, 20)


@pytest.mark.parametrize(
    ("wanted", "installed", "options"), [("", True, {}), ("1", True, {"mcp_server": True}), ("1", False, {})]
)
def test_tools_for_language_models_are_asked_for(monkeypatch, caplog, wanted, installed, options):
    monkeypatch.setenv("FACEVERSE_MCP", wanted)
    monkeypatch.setattr(api.importlib.util, "find_spec", lambda name: object() if installed else None)
    assert api.mcp_options() == options
    assert ("pip install" in caplog.text) == (wanted == "1" and not installed)
