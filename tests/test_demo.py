"""The web page without a browser: fit jobs, edits, downloads, sessions, the job queue, event handlers."""

import json
import os
import shutil
import threading
import time
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from PIL import Image
from test_skin_detail import module_of

import faceverse as fv

pytest.importorskip("gradio")
fit_jobs = pytest.importorskip("demo.fit_jobs")
from demo import heads, markup, pictures  # noqa: E402
from demo.edit_state import BlendWeights, EditState  # noqa: E402
from demo.heads import EditableHead  # noqa: E402
from demo.job_queue import JobQueue  # noqa: E402
from demo.sessions import MAX_IDLE_S, Sessions  # noqa: E402
from faceverse.graphics.camera import default_camera  # noqa: E402
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
    return EditableHead.of(result, 7)


@pytest.fixture
def skinned(toy_model):
    """A result with detail, of the same person as `result_of(toy_model)`."""
    return fv.edit(result_of(toy_model).replace(detail_module=module_of(toy_model)), detail_seed=5)


@pytest.fixture
def two_stages(monkeypatch, toy_model, skinned):
    """A fit that reports the base head, waits in the detail stage for `set`, and ends with the skinned one."""
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


@pytest.fixture
def job(photo):
    return fit_jobs.FitJob((photo,))


def face_at(x, width):
    """What a detector finds."""
    return SimpleNamespace(box_px=np.array([x, 10, x + width, 10 + width], float))


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
    (earlier,) = fit_jobs.claim([tmp_path / "other.png"], folder).photos
    upload.write_bytes(b"now")
    (claimed,) = fit_jobs.claim([upload], folder, show_s=0).photos
    assert claimed.read_bytes() == b"now" and claimed.name == "Me.JPG"
    assert folder in claimed.parents and not earlier.exists()
    assert wait_for(lambda: not upload.exists())


def test_an_upload_that_is_gone_is_reported(tmp_path):
    with pytest.raises(fv.ImageError, match="choose the photograph again"):
        fit_jobs.claim([tmp_path / "gone.jpg"], tmp_path)


def test_several_uploads_of_one_name_are_kept_apart(tmp_path):
    uploads = []
    for number in range(2):
        uploads.append(tmp_path / str(number) / "image.jpg")
        uploads[-1].parent.mkdir()
        uploads[-1].write_bytes(bytes([number]))
    folder = tmp_path / "visitor"
    folder.mkdir()
    job = fit_jobs.claim(uploads, folder, show_s=None)
    assert [photo.read_bytes() for photo in job.photos] == [b"\0", b"\1"]
    job.delete_photos()
    assert not any(photo.exists() for photo in job.photos)
    with pytest.raises(fv.ImageError, match="at most 12"):
        fit_jobs.claim(uploads * 7, folder)


@pytest.fixture(scope="module")
def sample_fit(tmp_path_factory):
    """Events of the sample photograph's fit, and the file that it started from."""
    pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("sample")
    job = fit_jobs.claim(fit_jobs.samples(folder)[:1], folder, show_s=None)
    return list(fit_jobs.fit(job, detail=False)), job.photos[0]


def test_fit_reports_progress_and_deletes_the_photograph(sample_fit, astronaut):
    (*steps, fitted), photo = sample_fit
    assert all(isinstance(step, fit_jobs.Progress) for step in steps)
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] <= 1
    assert any((step.preview or "").startswith("data:image/jpeg;base64,") for step in steps)
    assert not {step.text for step in steps} & set(fit_jobs.STEPS), "stages are named in words"
    assert fitted.face_count == 1 and fitted.is_final
    assert np.abs(fitted.photo_rgb.astype(int) - astronaut).mean() < 3, "a JPEG of it"
    assert not photo.exists()
    assert "Done in" in markup.report(fitted.result, True, "en")


def test_the_warm_up_draws_what_a_visitor_sees_and_leaves_the_sample(sample_fit, tmp_path, monkeypatch):
    drawn, view, pictures = [], fit_jobs.heads.view, fit_jobs.pictures.of_fit
    monkeypatch.setattr(fit_jobs, "fit", lambda job, detail: iter(sample_fit[0]))
    monkeypatch.setattr(fit_jobs.heads, "view", lambda *given: drawn.append(view(*given)))
    monkeypatch.setattr(fit_jobs.pictures, "of_fit", lambda *given: drawn.append(pictures(*given)))
    shared = tmp_path / "shared"
    shared.mkdir()
    fit_jobs.warm_up_fit(tmp_path, shared / "model.bin", detail=False)
    assert len(drawn) == 2 and all(drawn)
    assert {path.name for path in tmp_path.iterdir()} == {"astronaut.jpg", "shared"}
    assert all(path.name.startswith("part-") for path in shared.iterdir()), "what visitors will share"


def test_a_photograph_of_several_people_is_a_question(job, toy_model, monkeypatch):
    asked = []
    monkeypatch.setattr(fv, "detect", lambda image: [face_at(200, 100), face_at(10, 60)])
    monkeypatch.setattr(fv, "fit", lambda image, face, **options: asked.append(face) or result_of(toy_model))
    *_, choice = fit_jobs.fit(job)
    assert isinstance(choice, fit_jobs.FaceChoice) and not asked
    assert np.allclose(choice.boxes[0], np.array([200, 10, 300, 110]) / 512, atol=1e-3)
    assert os.path.exists(choice.picture.removeprefix("gradio_api/file="))
    *_, fitted = fit_jobs.fit(replace(job, face=1))
    assert asked == [1] and fitted.face_count == 2
    assert job.photos[0].exists(), "the visitor may choose the other face as well"


def test_faces_in_the_background_are_no_question(job, toy_model, monkeypatch):
    asked = []
    monkeypatch.setattr(fv, "detect", lambda image: [face_at(200, 100), face_at(10, 20)])
    monkeypatch.setattr(fv, "fit", lambda image, face, **options: asked.append(face) or result_of(toy_model))
    *_, fitted = fit_jobs.fit(job)
    assert asked == [0] and fitted.face_count == 2
    *_, choice = fit_jobs.fit(replace(job, always_ask=True))
    assert isinstance(choice, fit_jobs.FaceChoice) and len(choice.boxes) == 2, "unless the visitor asks for them"


def test_several_photographs_become_one_head(photo, toy_model, monkeypatch):
    given = []
    monkeypatch.setattr(fv, "detect", lambda image: [face_at(0, 100), face_at(100, 100)])
    monkeypatch.setattr(fv, "fit", lambda images, **options: given.append(images) or result_of(toy_model))
    second = photo.with_name("second.png")
    shutil.copyfile(photo, second)
    *_, fitted = fit_jobs.fit(fit_jobs.FitJob((photo, second)))
    assert [image.name for image in given[0]] == ["photo", "second"] and fitted.is_final
    assert not photo.exists() and not second.exists()


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
        list(fit_jobs.fit(fit_jobs.FitJob((path,))))
    sentence = fit_jobs.explain(caught.value)
    assert words.lower() in sentence.lower()
    assert (sentence[0].isupper() or sentence.startswith(path.name)) and sentence.endswith(".") and "\n" not in sentence
    assert str(tmp_path) not in sentence, "a visitor has no use for folders of the server"
    assert not path.exists()


def test_faults_of_the_program_are_not_shown():
    assert "secret" not in fit_jobs.explain(RuntimeError("secret"))


@pytest.mark.parametrize("how", ["closed", "unwanted"])
def test_a_fit_stops_when_it_is_cancelled(job, monkeypatch, how):
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
    run = fit_jobs.fit(job, is_active=lambda: wanted[0])
    assert [next(run).text for _ in range(3)][-1] == "Estimating the shape of the head"
    if how == "closed":
        run.close()
    else:
        wanted[0] = False
        with pytest.raises(fit_jobs.Stopped):
            list(run)
    assert ended.wait(10)
    assert not job.photos[0].exists()


def test_the_base_head_comes_before_the_final_one(job, two_stages, skinned):
    before, base, after, final = [], None, [], None
    for event in fit_jobs.fit(job):
        if isinstance(event, fit_jobs.Progress):
            (before if base is None else after).append(event)
            two_stages.set() if base and len(after) == 2 else None
        elif event.is_final:
            final = event
        else:
            base = event
    assert before and not any(step.refining for step in before)
    assert after and all(step.refining and step.text == "Estimating the skin detail" for step in after)
    assert base.result.normal_map is None and final.result is skinned and base.person == final.person
    assert "Done" not in markup.report(base.result, False, "en") and not job.photos[0].exists()


# ---------------------------------------------------------------------------------------------------------- the 3D view


def test_view_points_to_files_and_keeps_only_the_latest(head, tmp_path):
    model = tmp_path / "model.bin"
    for _ in range(4):
        value = heads.view(head, tmp_path, model)
    assert len(list(tmp_path.glob("head-*.bin"))) == 2
    for name in ("head", "texture"):
        address = value[name].removeprefix("gradio_api/file=")
        assert os.path.exists(address) and address.startswith(str(tmp_path))
    assert value["person"] == 7
    assert value["start"]["expression"]["jawOpen"] == pytest.approx(0.3)
    assert EditState.from_json(value["start"], head.neutral.model).to_json() == value["start"], (
        "the browser sends the same back"
    )
    assert set(value["limits"]) == set(value["estimates"]) == set(head.neutral.model.attribute_names)
    json.dumps(value)


def test_displacement_has_a_file_that_loses_nothing(head, skinned, tmp_path):
    plain = heads.view(head, tmp_path, tmp_path / "model.bin")
    detailed = EditableHead.of(skinned, 8)
    value, again = (heads.view(detailed, tmp_path, tmp_path / "model.bin") for _ in range(2))
    assert plain["normal"] is plain["smooth"] is None
    assert plain["edition"] < value["edition"] < again["edition"]
    assert value["normal"] == again["normal"] and value["texture"] == again["texture"], "no file is sent twice"
    stored = np.asarray(Image.open(value["normal"].removeprefix("gradio_api/file=")))
    assert np.array_equal(stored, skinned.normal_map)
    smooth = np.asarray(Image.open(value["smooth"].removeprefix("gradio_api/file=")), int)
    wanted = fv.edit(skinned, detail=0).texture.astype(int)
    assert 2 * np.abs(smooth - wanted).mean() < np.abs(wanted - skinned.texture).mean()


# -------------------------------------------------------------------------------------------------------------- editing


def test_age_changes_the_head_and_zero_brings_it_back(head):
    older = heads.edit(head, EditState(attributes={"age": 20.0}))
    assert np.abs(older.edited.neutral_vertices - head.fitted.neutral_vertices).max() > 0
    assert older.fitted is head.fitted and older.person == head.person
    assert heads.edit(older, EditState()).edited is head.neutral


def test_only_sliders_that_moved_change_the_expression(head):
    start = heads.initial_state(head)
    names = head.fitted.model.expression_names

    def shown(**moved):
        state = start | {"expression": start["expression"] | moved}
        result = heads.with_state(head, EditState.from_json(state, head.neutral.model))
        return dict(zip(names, result.params.expression))

    assert heads.with_state(head, EditState.from_json(start, head.neutral.model)) is head.fitted
    weights = shown(jawOpen=0.9)
    assert weights["jawOpen"] == pytest.approx(0.9)
    assert weights["mouthSmileLeft"] == head.fitted.params.expression[names.index("mouthSmileLeft")]
    assert shown(jawOpen=0.0)["jawOpen"] == 0


def test_pose_and_light_reach_the_files(head):
    changes = EditState(pose={"yaw": 30.0, "pitch": 0.0, "roll": 0.0}, light={"yaw": 60.0, "intensity": 1.5})
    shown = heads.with_state(head, changes)
    assert not np.allclose(shown.params.rotation, head.fitted.params.rotation)
    assert not np.allclose(shown.params.light, head.fitted.params.light)


@pytest.mark.parametrize("kind", heads.download_labels())
@pytest.mark.parametrize("lod", fv.LEVELS_OF_DETAIL)
def test_downloads_hold_the_head_of_the_sliders(head, kind, lod, tmp_path, toy_model):
    changes = EditState(attributes={"age": 20.0}, expression={"jawOpen": 1.0})
    path = heads.download(head, kind, changes, tmp_path, lod)
    assert path.parent == tmp_path
    wanted = heads.with_state(head, changes)
    assert wanted.params.expression[toy_model.expression_names.index("jawOpen")] == 1
    if kind == "json":
        assert np.allclose(fv.load_result(path, toy_model).vertices, wanted.vertices, atol=1e-6)
        return
    if kind == "obj":
        with zipfile.ZipFile(path) as archive:
            assert sorted(archive.namelist()) == ["head.mtl", "head.obj", "head_texture.png"]
            archive.extractall(tmp_path / "unpacked")
        path = tmp_path / "unpacked" / "head.obj"
    if kind == "3mf":
        assert zipfile.ZipFile(path).testzip() is None  # tests/test_printing.py reads such files
        return
    loaded = trimesh.load(path, force="mesh", process=False)
    if lod == "coarse":
        closing = len(loaded.faces) - len(toy_model.coarse.faces)
        assert 0 < closing < 100 if kind == "stl" else closing == 0
        return
    expected = wanted.neutral_vertices if kind == "glb" else wanted.vertices  # a GLB holds its expression as weights
    scale = 1000 if kind == "stl" else 1
    bounds = np.stack([expected.min(0), expected.max(0)])
    bounds[0, 1] -= 0.003 * (kind == "stl")  # the base
    assert np.allclose(loaded.bounds, bounds * scale, atol=1e-4 * scale)


def test_dice_stay_near_the_person_unless_they_are_wild(model):
    head = EditableHead.of(fv.head(model.random(3), model, texture_size=8), 1)
    present = model.attributes(head.neutral.params)

    def moved(is_wild):
        drawn = heads.random_changes(head, EditState(), None, ("skin", "hair"), 5, is_wild)
        found = model.attributes(heads.edit(head, drawn).edited.params)
        return np.array([found[name] - present[name] for name in model.attribute_names])

    near, far = moved(False), moved(True)
    assert np.linalg.norm(near) < 0.7 * np.linalg.norm(far)


def test_a_saved_head_names_its_photograph_only_where_the_visitor_wants_it(head, tmp_path, toy_model):
    named = replace(head, fitted=head.fitted.replace(source="../My secret.jpg"))
    named = replace(named, neutral=named.fitted, edited=named.fitted)
    assert heads.file_stem(named, False) == heads.file_stem(head, True) == "head"
    path = heads.download(named, "json", EditState(), tmp_path, stem=heads.file_stem(named, True))
    assert path.name == "My_secret.json" and b"secret" not in path.read_bytes()
    assert fv.load_result(path, toy_model).source == ""
    assert heads.download(named, "obj", EditState(), tmp_path, stem="My_secret").name == "My_secret_obj.zip"


def test_the_page_and_the_interface_offer_what_the_tables_of_the_library_have(tmp_path, monkeypatch):
    """A format, a mode or a light parameter that is added to its table shows up without another edit."""
    monkeypatch.setitem(fv.EXPORT_FORMATS, "xyz", replace(fv.EXPORT_FORMATS["ply"], label="XYZ"))
    monkeypatch.setitem(fv.TRACK_FORMATS, "abc", replace(fv.TRACK_FORMATS["csv"], label="ABC"))
    monkeypatch.setitem(fv.RENDER_MODES, "sketch", fv.RENDER_MODES["clay"])
    from demo.page import Page

    page = Page(Sessions(tmp_path / "visits"), detail=False)
    assert {"xyz", "glb"} <= set(page.layout.download_buttons) and "npy" not in page.layout.download_buttons
    assert "abc" in page.layout.motion_download_buttons
    schemas = json.dumps(page.demo.get_api_info(), default=str)
    assert '"xyz"' in schemas and '"sketch"' in schemas
    light = {entry["name"]: entry for entry in page.layout.view.props["light"]}
    assert set(light) == set(fv.LIGHT_PARAMETERS)
    for name, entry in fv.LIGHT_PARAMETERS.items():
        low, high = light[name]["range"]
        assert entry.minimum <= low <= light[name]["start"] <= high <= entry.maximum
        far = EditState.from_json({"light": {name: 1e6}}, fv.load_model()).light[name]
        assert far == entry.maximum, "the browser's values are clamped to the table's range"


def test_a_dense_download_has_its_detail_as_geometry(skinned, tmp_path):
    head = EditableHead.of(skinned, 8)
    for name in ("standard", "dense"):
        (tmp_path / name).mkdir()
    plain, dense = (heads.download(head, "ply", EditState(), tmp_path / name, name) for name in ("standard", "dense"))
    counts = [len(trimesh.load(path, process=False).faces) for path in (plain, dense)]
    assert counts[1] > 2 * counts[0]
    assert "dense" in markup.download(dense, "ply", skinned, "dense", "en")
    assert f"{counts[0]:,} triangles" in markup.download(plain, "ply", skinned, "standard", "en")


def test_strength_of_the_detail_reaches_the_files(skinned, tmp_path, toy_model):
    detailed = EditableHead.of(skinned, 8)
    assert heads.with_state(detailed, EditState()) is skinned
    for strength in (0.0, 2.0):
        path = heads.download(detailed, "json", EditState(strength=strength), tmp_path)
        assert fv.load_result(path, toy_model).params.detail["strength"] == strength
        displacement = heads.with_state(detailed, EditState(strength=strength)).displacement
        np.testing.assert_allclose(displacement, strength * skinned.displacement, atol=1e-5)
    smooth = result_of(toy_model)
    assert heads.with_state(EditableHead.of(smooth, 8), EditState(strength=0.5)) is smooth


def test_sampled_skin_and_the_way_back(skinned, head):
    detailed = EditableHead.of(skinned, 8)
    first, second = (heads.edit(detailed, EditState(skin=number)) for number in (1, 2))
    assert np.abs(first.edited.displacement - detailed.neutral.displacement).max() > 1e-3
    assert np.abs(first.edited.displacement - second.edited.displacement).max() > 1e-3
    assert heads.edit(second, EditState()).edited is detailed.neutral
    assert heads.edit(head, EditState(skin=1)).edited is head.neutral, "no skin where there is no detail"


def test_mixing_with_a_second_person(head, toy_model):
    other = result_of(toy_model, seed=9, jawOpen=0.8)
    mixed = heads.with_donor(heads.edit(head, EditState(mix=BlendWeights(identity=0.5))), other, "somebody")
    half = (head.neutral.neutral_vertices + other.neutral_vertices) / 2
    np.testing.assert_allclose(mixed.edited.neutral_vertices, half, atol=1e-6)
    assert mixed.state.mix.identity == 0.5, "the sliders keep their places when a person comes"
    assert heads.mixed_expression(mixed, 0.5)["jawOpen"] == pytest.approx(0.55)
    assert heads.edit(mixed, EditState()).edited is head.neutral
    assert heads.edit(head, EditState(mix=BlendWeights(identity=0.5))).edited is head.neutral, "nobody to mix with"


def test_random_faces_keep_what_is_locked(head):
    present = EditState(attributes={"age": 10.0})
    drawn = heads.random_changes(head, present, None, ("age",), seed=5)
    assert drawn.attributes["age"] == 10 and len(drawn.attributes) > 1 and drawn.skin == 5
    assert heads.random_changes(head, present, None, ("skin",), seed=5).skin == 0
    again = heads.random_changes(head, present, None, ("age",), seed=5)
    assert again == drawn
    assert heads.edit(head, drawn).edited.warnings == head.neutral.warnings, "nothing had to be clamped"


@pytest.mark.parametrize(
    "state",
    ["text", {"attributes": {"no_such": 1}}, {"expression": {"jawOpen": float("nan")}}, {"skin": True}, {"mix": [1]}],
)
def test_forged_states_are_refused(toy_model, state):
    with pytest.raises(fv.ParameterError, match="reload"):
        EditState.from_json(state, toy_model)


def test_states_are_kept_within_their_ranges(toy_model):
    state = {"strength": 99, "skin": 10**400, "expression": {"jawOpen": -3}, "mix": {"identity": 7}}
    state |= {"pose": {"yaw": 999}}
    read = EditState.from_json(state, toy_model)
    assert (read.strength, read.skin, read.expression["jawOpen"], read.mix.identity) == (2, 2**24 - 1, 0, 1)
    assert read.pose["yaw"] == 180
    assert EditState.from_json(None, toy_model) == EditState()


# --------------------------------------------------------------------------------------------------------- the pictures


def test_pictures_of_a_fit(sample_fit, tmp_path):
    fitted = sample_fit[0][-1]
    files = pictures.of_fit(fitted.result, fitted.photo_rgb, tmp_path)
    assert list(files.stages) == ["photo", "landmarks", "base", "final"]
    assert list(files.maps) == ["texture", "confidence"]
    sizes = {Image.open(path).size for path in files.stages.values()}
    assert len(sizes) == 1
    difference = np.asarray(Image.open(files.photo), int) - np.asarray(Image.open(files.overlay), int)
    assert 0.1 < (np.abs(difference).max(-1) > 8).mean() < 0.9, "the head covers a part of the photograph"
    shown = markup.figures(files.stages, markup.STAGES, "en")
    assert shown.count("<img") == 4 and "Landmarks" in shown


def test_pictures_of_a_head_from_a_file(skinned, tmp_path):
    files = pictures.of_fit(skinned, None, tmp_path)
    assert files.photo is files.overlay is None
    assert list(files.stages) == ["base", "detail", "final"]
    assert list(files.maps) == ["texture", "smooth", "normal", "displacement", "confidence"]


def test_times_of_the_stages_are_listed(sample_fit):
    result = sample_fit[0][-1].result
    english, chinese = (markup.stage_times(result, language) for language in ("en", "zh"))
    assert english.count("<dt>") == chinese.count("<dt>") == len(result.stages)
    assert "photometric fine" in english and "photometric" not in chinese
    assert markup.stage_times(result.replace(stages=()), "en") == ""


def test_curves_of_the_losses_start_at_one(sample_fit):
    figure = pictures.loss_figure(sample_fit[0][-1].result, {"step": "Step", "loss": "Loss"})
    assert {trace.name for trace in figure.data} >= {"landmarks", "photometric coarse"}
    for trace in figure.data:
        assert trace.y[0] == 1 and trace.y[-1] < 1


def test_the_table_of_attributes_names_each(head):
    table = markup.about(head.fitted, "en")
    shares = [attribute.name for attribute in head.fitted.model.data.attributes if attribute.unit == "share"]
    assert table.count("<dt>") == len(head.fitted.model.attribute_names) - len(shares)
    assert "years" in table and not any(name.capitalize() in table for name in shares)


# ------------------------------------------------------------------------------------------------------------- visitors


def test_sessions_have_folders_that_are_deleted_with_them(tmp_path):
    sessions = Sessions(tmp_path)
    first, second = sessions.of("one"), sessions.of("two")
    assert sessions.of("one") is first
    assert first.folder != second.folder
    assert "one" not in first.folder.name
    assert Sessions(tmp_path).of("one").folder != first.folder, "names do not follow from the session alone"
    (first.folder / "head.glb").write_bytes(b"x")
    sessions.close("one")
    assert first.closed and not first.folder.exists()
    assert second.folder.exists() and not second.closed
    sessions.close("never came")


def test_idle_sessions_are_closed(tmp_path):
    sessions = Sessions(tmp_path)
    session = sessions.of("one")
    sessions.close_idle()
    assert not session.closed
    session.last_seen_s -= MAX_IDLE_S + 1
    assert sessions.of("one") is not session
    assert session.closed


def test_folders_of_an_earlier_run_are_deleted(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "photo.jpg").write_bytes(b"x")
    past = time.time() - MAX_IDLE_S - 60
    os.utime(old, (past, past))
    Sessions(tmp_path)
    assert not old.exists() and new.exists()


# ------------------------------------------------------------------------------------------------------------- the page


@pytest.fixture
def page(tmp_path, monkeypatch, no_network):
    from demo.page import Page

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return Page(Sessions(tmp_path / "sessions"), detail=False)


def request_of(name="a visitor", language="en"):
    return SimpleNamespace(session_hash=name, headers={"accept-language": language})


def event_of(**data):
    return SimpleNamespace(_data=data)


@pytest.fixture
def no_pictures(monkeypatch):
    nothing = pictures.Pictures(None, None, {}, {})
    monkeypatch.setattr(pictures, "of_fit", lambda result, photo, folder: nothing)


def take_sample(page, request):
    return page.fits.take_sample(request, event_of(index=0))


@pytest.mark.parametrize(("language", "words"), [("en", "No face was found"), ("zh-CN,zh;q=0.9", "人脸")])
def test_page_of_a_photograph_without_a_face(page, tmp_path, language, words):
    request = request_of(language=language)
    upload = tmp_path / "grey.png"
    Image.fromarray(np.full((100, 100, 3), 90, np.uint8)).save(upload)
    started = page.fits.take({"path": str(upload)}, request)
    assert started[page.layout.view]["status"]["text"]
    *_, last = page.fits.fit(request)
    assert words in last[page.layout.message] and "fv-error" in last[page.layout.message]
    assert last[page.layout.view]["status"] is None and "head" not in last[page.layout.view]
    session = page.sessions.of("a visitor")
    assert session.fit_job is None
    assert [path for path in session.folder.rglob("*") if path.is_file()] == []


def test_page_stops_a_fit_that_was_cancelled(page, monkeypatch, toy_model):
    request = request_of()

    def endless(image, face, on_progress, **options):
        while True:
            on_progress("landmarks", 0.5, None)
            time.sleep(0.01)

    monkeypatch.setattr(fv, "fit", endless)
    assert take_sample(page, request)[page.layout.fit_ticket] != take_sample(page, request)[page.layout.fit_ticket], (
        "each one starts a fit"
    )
    run = page.fits.fit(request)
    assert next(run)[page.layout.view]["status"]
    assert page.fits.cancel_fit(request)[page.layout.view]["status"] is None
    assert list(run) == [], "what was shown by the cancelling stays"
    assert page.sessions.of("a visitor").fit_job is None
    assert list(page.fits.fit(request)) == [], "one that waited does not begin"


def test_page_reports_the_number_of_jobs_ahead(page, monkeypatch, toy_model, no_pictures):
    monkeypatch.setattr(fv, "detect", lambda image: [face_at(0, 100)])
    monkeypatch.setattr(fv, "fit", lambda image, **options: result_of(toy_model))
    request = request_of()
    take_sample(page, request)
    with page.services.queue.enter():
        run = page.fits.fit(request)
        assert "1 before you" in next(run)[page.layout.view]["status"]["text"]
    answers = {key: value for answer in run for key, value in answer.items()}
    assert answers[page.layout.view]["head"] and page.services.queue.entries == []
    take_sample(page, request)
    with page.services.queue.enter():
        run = page.fits.fit(request)
        next(run)
        page.fits.cancel_fit(request)
        assert list(run) == [], "a cancelled job leaves the queue at once"
        assert len(page.services.queue.entries) == 1


def test_a_queue_runs_jobs_in_order():
    queue, served = JobQueue(), []
    with queue.enter() as first:
        assert first.ahead == 0 and first.wait()

        def come(number):
            with queue.enter() as entry:
                arrived.set()
                entry.wait()
                served.append(number)

        threads = []
        for number in range(5):
            arrived = threading.Event()
            threads.append(threading.Thread(target=come, args=(number,)))
            threads[-1].start()
            assert arrived.wait(10)
        assert queue.entries[3].ahead == 3 and not queue.entries[3].wait(0.01)
    for thread in threads:
        thread.join(10)
    assert served == [0, 1, 2, 3, 4] and queue.entries == []


def test_base_heads_come_before_the_detail_of_others():
    queue, order = JobQueue(), []

    def come(name, started, go_on):
        with queue.enter() as entry:
            started.set()
            entry.wait()
            order.append(f"{name} base")
            go_on.wait(10)
            entry.defer()
            order.append(f"{name} detail")

    events = {name: (threading.Event(), threading.Event()) for name in "ABC"}
    threads = {name: threading.Thread(target=come, args=(name, *events[name])) for name in "ABC"}
    for name in "AB":
        threads[name].start()
        assert events[name][0].wait(10)
    assert wait_for(lambda: order == ["A base"])
    events["A"][1].set()
    assert wait_for(lambda: order == ["A base", "B base"])
    threads["C"].start()  # comes while A waits for its detail
    assert events["C"][0].wait(10) and queue.entries[1].is_deferred is False
    for name in "BC":
        events[name][1].set()
    for thread in threads.values():
        thread.join(10)
    assert order == ["A base", "B base", "C base", "A detail", "B detail", "C detail"]


def test_a_deferred_job_can_be_cancelled():
    queue = JobQueue()
    with queue.enter() as first, queue.enter():
        first.defer(lambda: False)
        assert first.ahead == 1
    first.defer()
    assert first.ahead == 0, "an entry that left the queue does not wait"


def test_page_defers_detail_to_first_runs(page, two_stages, no_pictures):
    request = request_of()
    take_sample(page, request)
    run = page.fits.fit(request)
    assert next(run)[page.layout.view]["status"]
    with page.services.queue.enter() as other:
        assert other.ahead == 1
        assert skip_to(run, page.layout.results)[page.layout.view]["head"]
        assert wait_for(lambda: other.ahead == 0), "the base head is shown, the other job's turn has come"
        two_stages.set()
    assert skip_to(run, page.layout.results)[page.layout.view]["normal"]


def test_page_asks_which_face_is_meant(page, monkeypatch, toy_model, no_pictures):
    request, asked = request_of(), []
    monkeypatch.setattr(fv, "detect", lambda image: [face_at(200, 100), face_at(10, 80)])
    monkeypatch.setattr(fv, "fit", lambda image, face, **options: asked.append(face) or result_of(toy_model))
    take_sample(page, request)
    question = [answer for answer in page.fits.fit(request) if page.layout.view in answer][-1]
    assert len(question[page.layout.view]["status"]["choose"]["boxes"]) == 2 and not asked
    assert page.fits.choose(request, event_of(face=1))[page.layout.fit_ticket]
    answers = {key: value for answer in page.fits.fit(request) for key, value in answer.items()}
    assert asked == [1] and answers[page.layout.other_face_button].visible
    page.fits.ask_again(request)
    question = [answer for answer in page.fits.fit(request) if page.layout.view in answer][-1]
    assert question[page.layout.view]["status"]["choose"] and question[page.layout.view]["head"], (
        "the first head is there still"
    )
    assert "fv-error" in page.fits.choose(request, event_of(face="x"))[page.layout.message]


def test_page_takes_only_uploads(page):
    owner, thief = request_of("one"), request_of("two")
    secret = page.sessions.of("one").folder / "photo.png"
    secret.write_bytes(b"x")
    answer = page.fits.take({"path": str(secret)}, thief)
    assert "fv-error" in answer[page.layout.message]
    assert page.sessions.of("two").fit_job is None
    *_, answer = page.fits.take_saved({"path": str(secret)}, thief)
    assert "fv-error" in answer[page.layout.message]
    assert secret.exists()
    assert page.fits.take(None, owner) == {page.layout.message: ""}


def test_page_escapes_what_it_shows():
    assert "<script>" not in markup.error_line("<script>")


def test_page_from_sample_to_head_to_the_end_of_the_session(page, tmp_path):
    request = request_of()
    take_sample(page, request)
    answers = list(page.fits.fit(request))
    shown = {key: value for answer in answers for key, value in answer.items()}
    value = shown[page.layout.view]
    assert value["head"] and value["status"] is None
    assert (
        all(os.path.exists(path) for path in shown[page.layout.overlay]) and "<img" in shown[page.layout.stage_pictures]
    )
    assert 'download="head.stl"' in page.edits.download_handler("stl")(
        json.dumps(value["start"]), "coarse", False, request
    )
    assert "fv-error" in page.edits.download_handler("stl")('{"skin": "x"}', "coarse", False, request)
    (older,) = page.edits.change(request, event_of(state=value["start"] | {"attributes": {"age": 20}}))
    assert older[page.layout.view]["head"] != value["head"] and older[page.layout.view]["person"] == value["person"]
    assert older[page.layout.view]["state"]["attributes"] == {"age": 20}
    drawn = next(page.edits.randomise(request, event_of(state=value["start"], region="nose", keep=[])))
    adopted = drawn[page.layout.view]["adopt"]["state"]["attributes"]
    assert set(adopted) == set(fv.ATTRIBUTE_REGIONS["nose"])
    refused = next(page.edits.randomise(request, event_of(state=value["start"], region="nse", keep=[])))
    assert "nose" in refused[page.layout.message] and refused[page.layout.view]["head"], "an answer comes in any case"
    plain = page.edits.show_fallback(request)
    assert (
        plain[page.layout.fallback].visible
        and os.path.exists(plain[page.layout.simple_viewer])
        and "<img" in plain[page.layout.turntable]
    )
    folder = page.sessions.of("a visitor").folder
    page.close_session(request)
    assert not folder.exists()
    gone = next(page.edits.change(request, event_of(state=value["start"])))
    assert "Choose the photograph again" in gone[page.layout.message]


def test_page_opens_a_downloaded_head(page, toy_model, monkeypatch, tmp_path, skinned):
    monkeypatch.setattr(fv, "load_result", lambda path: skinned if path.read_bytes() == b"head" else fail())

    def fail():
        raise fv.ParameterError("this is no head")

    request = request_of()
    (tmp_path / "me.json").write_bytes(b"head")
    shown = {}
    for answer in page.fits.take_saved({"path": str(tmp_path / "me.json")}, request):
        shown |= answer
    assert (
        shown[page.layout.view]["normal"] and shown[page.layout.results].visible and shown[page.layout.overlay] is None
    )
    assert shown[page.layout.view]["wrinkles"], "wrinkles of expressions come a little later"
    (tmp_path / "no.json").write_bytes(b"other")
    *_, answer = page.fits.take_saved({"path": str(tmp_path / "no.json")}, request)
    assert "no head" in answer[page.layout.message] and answer[page.layout.view]["head"], "the first one stays"
    assert wait_for(lambda: not (tmp_path / "me.json").exists()), "uploads are not kept"


def test_page_mixes_with_a_second_person(page, toy_model, monkeypatch, no_pictures):
    request = request_of()
    assert "fv-error" in page.edits.take_random_donor(request)[page.layout.message], "there is no head yet"
    early = page.fits.take_donor({"path": "other.jpg"}, request_of(language="zh"))
    assert "请先" in early[page.layout.message] and list(early) == [page.layout.message]
    monkeypatch.setattr(fv, "load_model", lambda: toy_model)
    monkeypatch.setattr(fv, "detect", lambda image: [face_at(0, 100)])
    people = [result_of(toy_model, 1), result_of(toy_model, 2, jawOpen=0.6)]
    monkeypatch.setattr(fv, "fit", lambda image, **options: people.pop(0))
    take_sample(page, request)
    first = [answer for answer in page.fits.fit(request) if page.layout.results in answer][0][page.layout.view]
    upload = fit_jobs.samples(page.sessions.root)[0]
    copy = upload.parent.parent / "second.jpg"
    shutil.copyfile(upload, copy)
    assert page.fits.take_donor({"path": str(copy)}, request)[page.layout.view]["status"]["refining"], (
        "the head stays in use"
    )
    joined = [answer for answer in page.fits.fit(request) if page.layout.donor_note in answer][0]
    assert joined[page.layout.view]["donor"] and joined[page.layout.view]["person"] == first["person"]
    state = first["start"] | {"mix": {"identity": 1, "expression": 1, "albedo": 0, "detail": 0}}
    mixed = next(page.edits.change(request, event_of(state=state)))[page.layout.view]
    assert mixed["adopt"]["state"]["expression"]["jawOpen"] == pytest.approx(0.6)
    second = result_of(toy_model, 2)
    np.testing.assert_allclose(
        page.sessions.of("a visitor").head.edited.neutral_vertices, second.neutral_vertices, atol=1e-6
    )
    random_person = page.edits.take_random_donor(request)[page.layout.view]
    assert random_person["donor"]["name"].startswith("random person")
    assert random_person["adopt"]["state"]["mix"]["identity"] == 0.5, "something is seen at once"


def skip_to(run, key):
    """The next answer that holds a component."""
    return next(answer for answer in run if key in answer)


def test_page_keeps_an_edit_of_the_base_head_when_the_detail_arrives(page, two_stages, no_pictures):
    request = request_of()
    take_sample(page, request)
    run = page.fits.fit(request)
    base = skip_to(run, page.layout.results)
    value = base[page.layout.view]
    assert value["status"]["refining"] and value["normal"] is None and base[page.layout.cancel_button].visible
    state = value["start"] | {"attributes": {"age": 10}}
    (older,) = page.edits.change(request, event_of(state=state))
    older = older[page.layout.view]
    assert older["status"]["refining"] and older["person"] == value["person"]
    edited = page.sessions.of("a visitor").head.edited
    two_stages.set()
    final = skip_to(run, page.layout.results)
    head = page.sessions.of("a visitor").head
    assert head.state.attributes == {"age": 10} and head.has_detail
    np.testing.assert_array_equal(head.edited.neutral_vertices, edited.neutral_vertices)
    assert final[page.layout.view]["status"] is None and final[page.layout.view]["normal"]
    assert (
        final[page.layout.view]["edition"] > older["edition"] and final[page.layout.view]["person"] == older["person"]
    )
    assert not final[page.layout.cancel_button].visible
    assert skip_to(run, page.layout.view)[page.layout.view]["wrinkles"]
    answers = list(page.edits.change(request, event_of(state=state | {"skin": 3})))
    assert [page.layout.view in answer for answer in answers] == [True, True], "new wrinkles follow a sampled detail"
    link = page.edits.download_handler("json")(json.dumps(state | {"strength": 2}), "standard", False, request)
    stored = page.sessions.of("a visitor").folder / "head.json"
    assert stored.name in link and fv.load_result(stored, head.fitted.model).params.detail["strength"] == 2


def test_page_keeps_the_base_head_when_the_detail_is_cancelled(page, two_stages, no_pictures):
    request = request_of()
    take_sample(page, request)
    run = page.fits.fit(request)
    base = skip_to(run, page.layout.results)[page.layout.view]
    cancelled = page.fits.cancel_fit(request)
    assert cancelled[page.layout.view] == {**base, "status": None}
    assert "Done in" in cancelled[page.layout.fit_report]
    assert page.layout.results not in {key for answer in run for key in answer}
    session = page.sessions.of("a visitor")
    assert session.head.person == base["person"] and not session.head.has_detail and session.fit_job is None
    (changed,) = page.edits.change(request, event_of(state=base["start"] | {"attributes": {"age": 5}}))
    assert changed[page.layout.view]["status"] is None
