"""What the web page does, without a browser: its handlers as functions, its visitors, the files of its 3D view."""

import json
import os
import threading
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from PIL import Image
from test_skin_detail import module_of

import faceverse as fv

pytest.importorskip("gradio")
handlers = pytest.importorskip("demo.handlers")
from demo import viewer  # noqa: E402
from demo.visits import MAX_IDLE_S, Visits  # noqa: E402
from faceverse.camera import default_camera  # noqa: E402
from faceverse.result import FitResult, with_params  # noqa: E402


def result_of(model, seed=1, **expression):
    weights = np.array([expression.get(name, 0) for name in model.expression_names], np.float32)
    params = model.random(seed).replace(expression=weights)
    blank = FitResult(
        model=model,
        params=params,
        camera=default_camera((64, 64)),
        vertices=model.mean_vertices,
        neutral_vertices=model.mean_vertices,
        albedo=model.mean_albedo,
        texture=np.full((64, 64, 3), 150, np.uint8),
        texture_confidence=np.zeros((64, 64), np.uint8),
    )
    return with_params(blank, params)


@pytest.fixture
def head(toy_model):
    result = result_of(toy_model, jawOpen=0.3, mouthSmileLeft=0.2, mouthSmileRight=0.4, noseSneerLeft=0.5)
    return handlers.Head(result, result, 7, 1, None)


@pytest.fixture
def skinned(toy_model):
    """A result with detail, of the same person as `result_of(toy_model)`."""
    return fv.edit(result_of(toy_model).replace(detail_module=module_of(toy_model)), detail_seed=5)


@pytest.fixture
def two_stages(monkeypatch, toy_model, skinned):
    """A fit that tells of the base head, waits in the detail stage for `set`, and ends with the skinned one."""
    go_on = threading.Event()

    def fit(image, on_progress, on_base, **options):
        on_progress("landmarks", 0.2, None)
        on_base(result_of(toy_model))
        while not go_on.wait(0.01):
            on_progress("detail", 0.5, None)
        return skinned

    monkeypatch.setattr(fv, "detect", lambda image: [None])
    monkeypatch.setattr(fv, "fit", fit)
    return go_on


@pytest.fixture
def photo(astronaut, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(astronaut).save(path)
    return path


def read_pack(content):
    """A reader for tests: values and arrays of a pack by name."""
    size = int(np.frombuffer(content, "<u4", 1)[0])
    header = json.loads(content[4 : 4 + size])
    arrays = {
        name: np.frombuffer(content, entry["type"], entry["length"], 4 + size + entry["start"])
        for name, entry in header["arrays"].items()
    }
    return header["values"] | arrays


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


# ------------------------------------------------------------------------------------------------------ the photograph


def test_an_upload_moves_into_the_visitors_folder(tmp_path):
    upload, folder = tmp_path / "Me.JPG", tmp_path / "visitor"
    folder.mkdir()
    (tmp_path / "other.png").write_bytes(b"earlier")
    earlier = handlers.claim(tmp_path / "other.png", folder)
    upload.write_bytes(b"now")
    claimed = handlers.claim(upload, folder, show_s=0)
    assert claimed.read_bytes() == b"now" and claimed.name == "Me.JPG"
    assert folder in claimed.parents and not earlier.exists()
    assert wait_for(lambda: not upload.exists())


def test_an_upload_that_is_gone_is_reported(tmp_path):
    with pytest.raises(fv.ImageError, match="choose the photograph again"):
        handlers.claim(tmp_path / "gone.jpg", tmp_path)


@pytest.fixture(scope="module")
def sample_fit(tmp_path_factory):
    """Events of the sample photograph's fit, and the file that it started from."""
    pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("sample")
    path = handlers.claim(handlers.sample_photo(folder), folder, show_s=None)
    return list(handlers.fit(path, detail=False)), path


def test_fit_reports_progress_and_deletes_the_photograph(sample_fit, astronaut):
    (*steps, fitted), photo = sample_fit
    assert all(isinstance(step, handlers.Step) for step in steps)
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] <= 1
    assert any((step.preview or "").startswith("data:image/jpeg;base64,") for step in steps)
    assert not {step.text for step in steps} & set(handlers._STEPS), "stages are named in words"
    assert fitted.head.face_count == 1 and fitted.head.photo is None
    assert np.array_equal(fitted.photo_rgb, astronaut)
    assert not photo.exists()
    assert "Done in" in handlers.summary(fitted.head.fitted)


def test_a_photograph_of_several_faces_is_kept_for_the_choice(photo, toy_model, monkeypatch):
    asked = []
    monkeypatch.setattr(fv, "detect", lambda image: [None, None])
    monkeypatch.setattr(fv, "fit", lambda image, face, **options: asked.append(face) or result_of(toy_model))
    *_, fitted = handlers.fit(photo, face=1)
    assert asked == [1]
    assert fitted.head.face_count == 2
    assert fitted.head.photo == photo and photo.exists()


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (np.full((200, 200, 3), 128, np.uint8), fv.NoFaceError, "No face"),
        (np.zeros((1, 1, 3), np.uint8), fv.ImageError, "1 x 1"),
        (b"dear diary, this is not a picture", fv.ImageError, "photo.jpg"),
    ],
)
def test_what_cannot_be_fitted_becomes_a_sentence(tmp_path, content, error, words):
    path = tmp_path / "photo.jpg"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Image.fromarray(content).save(path)
    with pytest.raises(error) as caught:
        list(handlers.fit(path))
    sentence = handlers.explain(caught.value)
    assert words.lower() in sentence.lower()
    assert (sentence[0].isupper() or sentence.startswith(path.name)) and sentence.endswith(".") and "\n" not in sentence
    assert str(tmp_path) not in sentence, "a visitor has no use for folders of the server"
    assert not path.exists()


def test_faults_of_the_program_are_not_shown():
    assert "secret" not in handlers.explain(RuntimeError("secret"))


@pytest.mark.parametrize("how", ["closed", "unwanted"])
def test_a_fit_stops_when_nobody_wants_it(photo, monkeypatch, how):
    ended = threading.Event()
    wanted = [True]

    def endless(image, face, on_progress, **options):
        try:
            while True:
                on_progress("landmarks", 0.5, None)
                time.sleep(0.01)
        finally:
            ended.set()

    monkeypatch.setattr(fv, "detect", lambda image: [None])
    monkeypatch.setattr(fv, "fit", endless)
    run = handlers.fit(photo, is_wanted=lambda: wanted[0])
    assert [next(run).text for _ in range(3)][-1] == "Finding the shape of the head"
    if how == "closed":
        run.close()
    else:
        wanted[0] = False
        with pytest.raises(handlers.Stopped):
            list(run)
    assert ended.wait(10)
    assert not photo.exists()


def test_the_base_head_comes_before_the_final_one(photo, two_stages, skinned):
    before, base, after, final = [], None, [], None
    for event in handlers.fit(photo):
        if isinstance(event, handlers.Step):
            (before if base is None else after).append(event)
            two_stages.set() if base and len(after) == 2 else None
        elif event.whole:
            final = event
        else:
            base = event
    assert before and not any(step.refining for step in before)
    assert after and all(step.refining and step.text == "Reading the skin" for step in after)
    assert not base.head.has_detail and final.head.has_detail
    assert base.head.person == final.head.person and final.head.fitted is skinned
    assert "Done" not in handlers.summary(base.head.fitted, whole=False) and not photo.exists()


# ---------------------------------------------------------------------------------------------------------- the 3D view


def test_model_pack_blends_like_the_model(toy_model):
    pack = read_pack(viewer.model_pack(toy_model))
    assert pack["names"] == list(toy_model.expression_names)
    for number in (0, pack["names"].index("jawOpen"), len(pack["names"]) - 1):
        vertices = np.zeros_like(toy_model.mean_vertices)
        part = slice(*pack["offsetStart"][number : number + 2])
        offsets = pack["offset"].reshape(-1, 3)[part] * pack["offsetScale"][number]
        vertices[pack["offsetVertex"][part]] = offsets
        assert np.abs(vertices - toy_model.expression_modes[number]).max() < 2.1e-5
    corners = pack["cornerFaces"]
    assert np.array_equal(pack["vertexOfCorner"][corners], toy_model.faces.reshape(-1))
    assert np.array_equal(pack["uv"].reshape(-1, 2)[corners], toy_model.uv[toy_model.uv_faces.reshape(-1)])


def test_head_pack_holds_the_neutral_head(head):
    pack = read_pack(viewer.head_pack(head.fitted))
    assert np.array_equal(pack["neutral"].reshape(-1, 3), head.fitted.neutral_vertices)


def test_view_points_to_files_and_keeps_only_the_latest(head, tmp_path):
    model = tmp_path / "model.bin"
    for _ in range(4):
        value = handlers.view(head, tmp_path, model)
    assert len(list(tmp_path.glob("head-*.bin"))) == 2
    for name in ("head", "texture"):
        address = value[name].removeprefix("gradio_api/file=")
        assert os.path.exists(address) and address.startswith(str(tmp_path))
    assert value["person"] == 7
    assert value["expression"]["jawOpen"] == pytest.approx(0.3)
    json.dumps(value)


def test_relief_has_a_file_that_loses_nothing(head, skinned, tmp_path):
    plain = handlers.view(head, tmp_path, tmp_path / "model.bin")
    detailed = handlers.Head(skinned, skinned, 8, 1, None)
    value, again = (handlers.view(detailed, tmp_path, tmp_path / "model.bin") for _ in range(2))
    assert plain["normal"] is plain["smooth"] is None
    assert plain["edition"] < value["edition"] < again["edition"]
    assert value["normal"] == again["normal"] and value["texture"] == again["texture"], "no file is sent twice"
    stored = np.asarray(Image.open(value["normal"].removeprefix("gradio_api/file=")))
    assert np.array_equal(stored, skinned.normal_map)
    smooth = np.asarray(Image.open(value["smooth"].removeprefix("gradio_api/file=")), int)
    wanted = fv.edit(skinned, detail=0).texture.astype(int)
    assert 2 * np.abs(smooth - wanted).mean() < np.abs(wanted - skinned.texture).mean()


# -------------------------------------------------------------------------------------------------------------- editing


def test_sliders_start_at_the_fitted_expression(head):
    values = handlers.slider_values(head.fitted)
    assert values["Open mouth"] == pytest.approx(0.3)
    assert values["Smile"] == pytest.approx(0.3), "the mean of left and right"


def test_age_changes_the_head_and_zero_brings_it_back(head):
    older = handlers.edit(head, handlers.Changes(age=30))
    assert np.abs(older.edited.neutral_vertices - head.fitted.neutral_vertices).max() > 0
    assert older.fitted is head.fitted and older.person == head.person
    assert handlers.edit(older, handlers.Changes()).edited is head.fitted


def test_only_sliders_that_moved_change_the_expression(head):
    values = handlers.slider_values(head.fitted)
    assert handlers.as_shown(head, values) is head.edited
    weights = handlers._expression(handlers.as_shown(head, values | {"Open mouth": 0.9}))
    assert weights["jawOpen"] == pytest.approx(0.9)
    assert weights["mouthSmileLeft"] == pytest.approx(0.2), "the fitted asymmetry stays"
    assert weights["noseSneerLeft"] == pytest.approx(0.5)
    weights = handlers._expression(handlers.as_shown(head, values | {"Smile": 0.8}))
    assert weights["mouthSmileLeft"] == weights["mouthSmileRight"] == pytest.approx(0.8)


@pytest.mark.parametrize("kind", handlers.DOWNLOADS.values())
def test_downloads_hold_the_head_of_the_sliders(head, kind, tmp_path, toy_model):
    values = handlers.slider_values(head.fitted) | {"Open mouth": 1.0}
    path = handlers.download(handlers.edit(head, handlers.Changes(age=20)), kind, values, tmp_path)
    assert path.parent == tmp_path
    wanted = handlers.as_shown(handlers.edit(head, handlers.Changes(age=20)), values)
    if kind == "json":
        assert np.allclose(fv.load_result(path, toy_model).vertices, wanted.vertices, atol=1e-6)
        return
    if kind == "obj":
        with zipfile.ZipFile(path) as archive:
            assert sorted(archive.namelist()) == ["head.mtl", "head.obj", "head_texture.png"]
            archive.extractall(tmp_path / "unpacked")
        path = tmp_path / "unpacked" / "head.obj"
    mesh = trimesh.load(path, force="mesh", process=False)
    expected = wanted.neutral_vertices if kind == "glb" else wanted.vertices  # a GLB holds its expression as weights
    scale = 1000 if kind == "stl" else 1
    assert np.allclose(mesh.bounds, np.stack([expected.min(0), expected.max(0)]) * scale, atol=1e-4 * scale)


def test_strength_of_the_detail_reaches_the_files(skinned, tmp_path, toy_model):
    detailed = handlers.Head(skinned, skinned, 8, 1, None)
    values = handlers.slider_values(skinned)
    assert handlers.as_shown(detailed, values, 1.0) is skinned
    for strength in (0.0, 2.0):
        path = handlers.download(detailed, "json", values, tmp_path, strength)
        assert fv.load_result(path, toy_model).params.detail["strength"] == strength
        relief = handlers.as_shown(detailed, values, strength).displacement
        np.testing.assert_allclose(relief, strength * skinned.displacement, atol=1e-5)
    smooth = result_of(toy_model)
    assert handlers.as_shown(handlers.Head(smooth, smooth, 8, 1, None), values, 0.5) is smooth


def test_other_skin_and_the_way_back(skinned, head):
    detailed = handlers.Head(skinned, skinned, 8, 1, None)
    first, second = (handlers.edit(detailed, handlers.Changes(skin=number)) for number in (1, 2))
    assert np.abs(first.edited.displacement - skinned.displacement).max() > 1e-3
    assert np.abs(first.edited.displacement - second.edited.displacement).max() > 1e-3
    assert handlers.edit(second, handlers.Changes()).edited is skinned
    assert handlers.edit(head, handlers.Changes(skin=1)).edited is head.fitted, "no skin where there is no detail"


def test_pictures_are_of_one_size(sample_fit, tmp_path):
    fitted = sample_fit[0][-1]
    files = handlers.pictures(fitted.head, fitted.photo_rgb, tmp_path)
    sizes = {Image.open(path).size for path in (files.photo, files.overlay, files.clay, files.texture)}
    assert len(sizes) == 1
    difference = np.asarray(Image.open(files.photo), int) - np.asarray(Image.open(files.overlay), int)
    assert 0.1 < (np.abs(difference).max(-1) > 8).mean() < 0.9, "the head covers a part of the photograph"


# ------------------------------------------------------------------------------------------------------------- visitors


def test_visitors_have_folders_of_their_own_that_go_with_them(tmp_path):
    visits = Visits(tmp_path)
    first, second = visits.of("one"), visits.of("two")
    assert visits.of("one") is first
    assert first.folder != second.folder
    assert "one" not in first.folder.name
    assert Visits(tmp_path).of("one").folder != first.folder, "names do not follow from the session alone"
    (first.folder / "head.glb").write_bytes(b"x")
    visits.leave("one")
    assert first.gone and not first.folder.exists()
    assert second.folder.exists() and not second.gone
    visits.leave("never came")


def test_visitors_are_forgotten_when_idle(tmp_path):
    visits = Visits(tmp_path)
    visit = visits.of("one")
    visits.forget_idle()
    assert not visit.gone
    visit.last_seen_s -= MAX_IDLE_S + 1
    assert visits.of("one") is not visit
    assert visit.gone


def test_folders_of_an_earlier_run_are_deleted(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "photo.jpg").write_bytes(b"x")
    past = time.time() - MAX_IDLE_S - 60
    os.utime(old, (past, past))
    Visits(tmp_path)
    assert not old.exists() and new.exists()


# ------------------------------------------------------------------------------------------------------------- the page


@pytest.fixture
def page(tmp_path, monkeypatch, no_network):
    from demo.page import Page

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return Page(Visits(tmp_path / "visits"), detail=False)


def test_page_of_a_photograph_without_a_face(page, tmp_path):
    request = SimpleNamespace(session_hash="a visitor")
    upload = tmp_path / "grey.png"
    Image.fromarray(np.full((100, 100, 3), 90, np.uint8)).save(upload)
    started = page.take({"path": str(upload)}, request)
    assert started[page.view]["status"]["text"]
    *_, last = page.fit(0, request)
    assert "No face was found" in last[page.message] and "fv-error" in last[page.message]
    assert last[page.view]["status"] is None and "head" not in last[page.view]
    visit = page.visits.of("a visitor")
    assert visit.photo is None
    assert [path for path in visit.folder.rglob("*") if path.is_file()] == []


def test_page_stops_a_fit_that_was_cancelled(page, monkeypatch, toy_model):
    request = SimpleNamespace(session_hash="a visitor")

    def endless(image, face, on_progress, **options):
        while True:
            on_progress("landmarks", 0.5, None)
            time.sleep(0.01)

    monkeypatch.setattr(fv, "fit", endless)
    assert page.take_sample(request)[page.ticket] != page.take_sample(request)[page.ticket], "each one starts a fit"
    run = page.fit(0, request)
    assert next(run)[page.view]["status"]
    assert page.give_up(request)[page.view]["status"] is None
    assert list(run) == [{page.message: ""}], "what was shown by the cancelling stays"
    assert page.visits.of("a visitor").photo is None
    assert list(page.fit(0, request)) == [{page.message: ""}], "one that waited does not begin"


def test_page_offers_other_faces(page, monkeypatch, toy_model):
    request = SimpleNamespace(session_hash="a visitor")
    asked = []
    monkeypatch.setattr(fv, "detect", lambda image: [None, None])
    monkeypatch.setattr(fv, "fit", lambda image, face, **options: asked.append(face) or result_of(toy_model))
    monkeypatch.setattr(handlers, "pictures", lambda head, photo, folder: handlers.Pictures(*[folder] * 4))
    page.take_sample(request)
    first = next(answer for answer in page.fit(0, request) if page.face in answer)
    assert first[page.face].visible and len(first[page.face].choices) == 2
    page.begin(request)
    list(page.fit(1, request))
    assert asked == [0, 1]


def test_page_takes_only_uploads(page):
    owner, thief = SimpleNamespace(session_hash="one"), SimpleNamespace(session_hash="two")
    secret = page.visits.of("one").folder / "photo.png"
    secret.write_bytes(b"x")
    answer = page.take({"path": str(secret)}, thief)
    assert "fv-error" in answer[page.message]
    assert page.visits.of("two").photo is None
    assert secret.exists()
    assert page.take(None, owner) == {page.message: ""}


def test_page_escapes_what_it_shows():
    from demo.page import _error_line

    assert "<script>" not in _error_line("<script>")


def test_page_from_sample_to_head_and_away(page, tmp_path):
    request = SimpleNamespace(session_hash="a visitor")
    page.take_sample(request)
    answers = list(page.fit(0, request))
    shown = {key: value for answer in answers for key, value in answer.items()}
    assert shown[page.view]["head"] and shown[page.view]["status"] is None
    assert os.path.exists(shown[page.clay])
    link = page._saver("stl")(request, 1.0, *[0.0] * len(page.expressions))
    assert 'download="head.stl"' in link
    older = page.change(20, 0, request)[page.view]
    assert older["head"] != shown[page.view]["head"] and older["person"] == shown[page.view]["person"]
    folder = page.visits.of("a visitor").folder
    page.leave(request)
    assert not folder.exists()
    assert "Choose the photograph again" in page.change(10, 0, request)[page.message]


def skip_to(run, key):
    """The next answer that holds a component."""
    return next(answer for answer in run if key in answer)


def test_page_keeps_an_edit_of_the_base_head_when_the_detail_arrives(page, two_stages, monkeypatch):
    request = SimpleNamespace(session_hash="a visitor")
    monkeypatch.setattr(handlers, "pictures", lambda head, photo, folder: handlers.Pictures(*[folder] * 4))
    page.take_sample(request)
    run = page.fit(0, request)
    base = skip_to(run, page.results)
    assert base[page.view]["status"]["refining"] and base[page.view]["normal"] is None
    assert base[page.cancel].visible and not base[page.skin].visible and page.age in base
    older = page.change(10, 0, request)[page.view]
    assert older["status"]["refining"] and older["person"] == base[page.view]["person"]
    edited = page.visits.of("a visitor").head.edited
    two_stages.set()
    final = skip_to(run, page.results)
    head = page.visits.of("a visitor").head
    assert head.changes.age == 10 and head.has_detail
    np.testing.assert_array_equal(head.edited.neutral_vertices, edited.neutral_vertices)
    assert final[page.view]["status"] is None and final[page.view]["normal"]
    assert final[page.view]["edition"] > older["edition"] and final[page.view]["person"] == older["person"]
    moved_by_the_visitor = {*page.expressions.values(), page.age, page.gender, page.strength}
    assert not moved_by_the_visitor & set(final), "sliders stay where he has put them"
    assert final[page.skin].visible and not final[page.cancel].visible
    assert page.change_skin(request)[page.own_skin].interactive
    assert not page.restore_skin(request)[page.own_skin].interactive
    assert page.visits.of("a visitor").head.changes == handlers.Changes(age=10)
    link = page._saver("json")(request, 2.0, *[0.0] * len(page.expressions))
    stored = page.visits.of("a visitor").folder / "head.json"
    assert stored.name in link and fv.load_result(stored, head.fitted.model).params.detail["strength"] == 2


def test_page_keeps_the_base_head_when_the_detail_is_cancelled(page, two_stages, monkeypatch):
    request = SimpleNamespace(session_hash="a visitor")
    monkeypatch.setattr(handlers, "pictures", lambda head, photo, folder: handlers.Pictures(*[folder] * 4))
    page.take_sample(request)
    run = page.fit(0, request)
    base = skip_to(run, page.results)[page.view]
    cancelled = page.give_up(request)
    assert cancelled[page.view] == {**base, "status": None}
    assert "Done in" in cancelled[page.report]
    assert page.results not in {key for answer in run for key in answer}
    visit = page.visits.of("a visitor")
    assert visit.head.person == base["person"] and not visit.head.has_detail and visit.photo is None
    assert page.change(5, 0, request)[page.view]["status"] is None
