"""What becomes of a track: its files and those of other programs, other heads, animated models, video files."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_export import read_glb

import toy
from faceverse.errors import ImageError, ParameterError
from faceverse.formats.export import export
from faceverse.graphics.camera import default_camera, rotation_from_euler_deg
from faceverse.model.face_model import FaceModel
from faceverse.result import head_from_params
from faceverse.tracking import clips
from faceverse.tracking.clips import render_track
from faceverse.tracking.files import load_track
from faceverse.tracking.motion import export_track
from faceverse.tracking.result import Track
from faceverse.weights import model_data

FRAMES, FPS = 12, 25.0
UNSEEN_M = 2e-5  # movement below it is left out of morph targets
GAP = slice(5, 8)
FRAME_ARRAYS = ("times_s", "confidence", "rotation", "translation", "expression", "light")


def make_track(model, subject=None, frames=FRAMES):
    """A head that turns by 200 degrees, with random weights, in a picture of 120 x 90 pixels."""
    generator = np.random.default_rng(1)
    person = model.random(4) if subject is None else subject.params
    yaws = np.linspace(-100, 100, frames)
    rotation = np.stack([rotation_from_euler_deg(yaw, 10, -5).numpy() for yaw in yaws])
    translation = np.tile(np.float32([0.01, 0, -0.7]), (frames, 1)) + generator.normal(0, 0.01, (frames, 3))
    values = {
        "rotation": rotation.astype(np.float32),
        "translation": translation.astype(np.float32),
        "expression": generator.random((frames, len(model.expression_names)), dtype=np.float32),
        "light": (person.light + generator.normal(0, 0.01, (frames, 9, 3))).astype(np.float32),
    }
    confidence = np.full(frames, 0.75, np.float32)
    confidence[GAP] = 0
    for array in values.values():
        array[GAP] = array[GAP.start - 1]
    return Track(
        model=model,
        identity=person.replace(**{key: array[0].copy() for key, array in values.items()}),
        camera=default_camera((90, 120)),
        times_s=np.arange(frames) / FPS,
        confidence=confidence,
        expression_names=model.expression_names,
        subject=subject,
        warnings=("a warning",),
        **values,
    )


@pytest.fixture(scope="module")
def track(toy_model):
    return make_track(toy_model)


@pytest.fixture(scope="module")
def subject(toy_model):
    """A head with a texture that no model makes."""
    head = head_from_params(toy_model, toy_model.random(9), default_camera((64, 64)), 32, source="me.jpg")
    texture = np.random.default_rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return head.replace(texture=texture, landmarks_px=np.zeros((478, 2), np.float32))


def other_model(**changes):
    return FaceModel(dataclasses.replace(model_data(toy.toy_file()), **changes))


def column(track, name):
    return track.expression[:, track.expression_names.index(name)]


# --------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_saved_tracks_are_restored(suffix, track, tmp_path):
    read = load_track(track.save(tmp_path / f"face{suffix}"), track.model)
    for name in FRAME_ARRAYS:
        values, expected = getattr(read, name), getattr(track, name)
        assert np.array_equal(values, expected) and values.dtype == expected.dtype, name
    for name in ("identity", "albedo", "iris", "rotation", "translation", "expression", "light"):
        assert np.array_equal(getattr(read.identity, name), getattr(track.identity, name)), name
    assert read.camera == track.camera and read.expression_names == track.expression_names
    assert read.warnings == track.warnings and read.subject is None


def test_table_is_restored_on_the_given_person(track, subject, tmp_path):
    path = track.save(tmp_path / "face.csv")
    read = load_track(path, identity=subject)
    for name in ("times_s", "confidence", "rotation", "translation", "expression"):
        assert np.allclose(getattr(read, name), getattr(track, name), atol=1e-5), name
    assert read.subject is subject and read.camera == subject.camera and read.warnings == ()
    assert np.array_equal(read.identity.identity, subject.params.identity)
    assert np.array_equal(read.light[3], subject.params.light)
    assert not load_track(path, track.model).identity.identity.any()


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_track_of_another_model_is_refused(suffix, track, tmp_path):
    path = track.save(tmp_path / f"face{suffix}")
    with pytest.raises(ParameterError, match="belongs to the face model 'toy' .* not to 'else'"):
        load_track(path, other_model(name="else"))
    with pytest.raises(ParameterError, match="brings its own person"):
        load_track(path, track.model, identity=track.identity)


def change(track, tmp_path, **values):
    """A .json of the track with other values; None leaves a key out."""
    document = json.loads(track.save(tmp_path / "face.json").read_text()) | values
    path = tmp_path / "changed.json"
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    return path


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "something"}, "its format is not faceverse-track"),
        ({"version": 2}, "its version is 2 and this library reads 1"),
        ({"light": None}, "it has no 'light'"),
        ({"camera": {}}, "it has no 'focal_px'"),
        ({"confidence": [1.0]}, r"confidence has shape \(1,\) instead of \(12,\)"),
        ({"confidence": [2.0] * FRAMES}, "outside 0..1"),
        ({"times_s": [0.0] * FRAMES}, "times do not increase"),
        ({"times_s": []}, "shape"),
        ({"rotation": np.zeros((FRAMES, 3, 3)).tolist()}, "no rotations"),
        ({"identity": [float("nan")] * 8}, "identity has values that are not finite"),
        ({"identity": [0.0] * 9}, "identity has shape"),
        ({"expression_names": ["smile"]}, "not those of the model"),
        ({"translation": [["far", 0, 0]] * FRAMES}, "could not convert"),
        ({"translation": [[10**400, 0, 0]] * FRAMES}, "too large"),
        ({"camera": {"focal_px": 0, "principal_point_px": [1, 1], "image_size": [9, 9]}}, "positive focal length"),
        ({"camera": {"focal_px": 9, "principal_point_px": [1, 1], "image_size": [9, 1e9]}}, "more than 65536 pixels"),
        ({"camera": 3}, "as a track"),
        ({"expression_names": 3}, "as a track"),
        ({"version": None}, "it has no 'version'"),
        ({"version": float("inf")}, "as a track"),
    ],
)
def test_damaged_tracks(values, message, track, tmp_path):
    path = change(track, tmp_path, **values)
    with pytest.raises(ParameterError, match=message) as caught:
        load_track(path, track.model)
    assert "\n" not in str(caught.value) and "changed.json" in str(caught.value)


def test_files_that_are_no_tracks(track, tmp_path):
    whole = track.save(tmp_path / "face.npz").read_bytes()
    np.savez(tmp_path / "objects.npz", format=np.array([{}], dtype=object), allow_pickle=True)
    for name, content, message in (
        ("missing.npz", None, "there is no file"),
        ("cut.npz", whole[:-100], "as a track"),
        ("one.npz", b"\x80\x04N.", "not a NumPy archive"),
        ("list.json", b"[]", "no track"),
        ("half.json", b'{"format": ', "as a track"),
        ("bytes.json", b"\xff\xfe\x00", "not a text file"),
        ("deep.json", b"[" * 100_000, "nested too deeply"),
        ("twice.json", b'{"format": 1, "format": 2}', "two entries 'format'"),
        ("head.glb", b"", "must end in .csv, .json, .npz or .fvtrack"),
        ("bytes.csv", b"\xff\xfe\x00\xd8", "not a text file"),
        ("empty.csv", b"", "names no column time_s or Timecode"),
        ("words.csv", b"time_s,jawOpen\n0,wide\n", "line 2: jawopen is 'wide'"),
        ("short.csv", b"time_s,jawOpen\n0,1\n\n1\n", "line 4 has 1 columns instead of 2"),
        ("twice.csv", b"time_s,jawOpen,JawOpen\n0,1,1\n", "two columns jawopen"),
        ("none.csv", b"time_s,jawOpen\n", "no frames"),
        ("back.csv", b"time_s,jawOpen\n1,0\n0,0\n", "times do not increase"),
        ("other.csv", b"time_s,smirk\n0,1\n", r"has none of these expressions \(smirk\)"),
        ("clock.csv", b"Timecode,JawOpen\n1:2,0\n", "line 2: timecode is '1:2'"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ParameterError, match=message) as caught:
            load_track(tmp_path / name, track.model)
        assert "\n" not in str(caught.value)
    with pytest.raises(ParameterError, match="Object arrays cannot be loaded"):
        load_track(tmp_path / "objects.npz", track.model)


# ------------------------------------------------------------------------------------------------------ Live Link Face


def test_live_link_face_drives_a_head(toy_model, tmp_path):
    path = tmp_path / "MySlate_1.csv"
    path.write_text(
        "\ufeffTimecode,BlendshapeCount,EyeBlinkLeft,JAWOPEN,Wiggle,HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw\r\n"
        "23:59:59:58.500,61,0.25,0.5,0.1,0.3,0.1,-0.2,0.05\r\n"
        "23:59:59:59.500,61,0.5,1.25,0.1,0.2,0,0,0.05\r\n"
        "23:59:59:59.500,61,0.5,0.6,0.1,0.2,0,0,0.05\r\n"
        "00:00:00:00.500,61,0.75,-0.1,0.1,0.1,0,0,0.05\r\n"
    )
    track = load_track(path, toy_model)
    assert np.allclose(track.times_s, np.arange(3) / 60)
    assert np.allclose(column(track, "eyeBlinkLeft"), [0.25, 0.5, 0.75])
    assert np.allclose(column(track, "jawOpen"), [0.5, 1, 0])  # held to the model's limits
    moved = [track.expression_names.index(name) for name in ("eyeBlinkLeft", "jawOpen")]
    assert not np.delete(track.expression, moved, axis=1).any()
    assert np.allclose(track.euler_deg()[0], np.degrees([0.3, 0.1, -0.2]), atol=1e-4)
    assert (track.confidence == 1).all() and np.array_equal(track.translation[2], toy_model.neutral().translation)
    repeated, unknown = track.warnings
    assert repeated.startswith("1 rows") and "no expression wiggle" in unknown and "eyeyaw" not in unknown
    assert track.result(0).vertices.shape == toy_model.mean_vertices.shape


# --------------------------------------------------------------------------------------------------------- other heads


def test_result_of_a_frame(toy_model, subject):
    track = make_track(toy_model, subject)
    head = track.result(-1)
    assert np.array_equal(head.params.expression, track.expression[-1])
    assert np.array_equal(head.params.rotation, track.rotation[-1])
    assert np.array_equal(head.texture, subject.texture) and head.camera == track.camera
    assert head.landmarks_px is None and head.source == "me.jpg"
    weights = track.expression[-1] * toy_model.gain_of(subject.params.identity)
    expected = subject.neutral_vertices + np.tensordot(weights, toy_model.expression_modes, 1)
    assert np.allclose(head.vertices, expected, atol=1e-6)
    with pytest.raises(ParameterError, match="frames 0..11, got 12"):
        track.result(FRAMES)


def test_motion_on_the_own_head_changes_nothing(track):
    again = track.apply_to(track.identity, light=True)
    assert np.array_equal(again.result(4).vertices, track.result(4).vertices)
    for name in FRAME_ARRAYS:
        assert np.array_equal(getattr(again, name), getattr(track, name)), name
    assert again.camera == track.camera and again.warnings == track.warnings


def test_motion_on_another_head(track, subject):
    moved = track.apply_to(subject)
    assert moved.subject is subject and np.array_equal(moved.identity.identity, subject.params.identity)
    assert np.array_equal(moved.expression, track.expression) and np.array_equal(moved.rotation, track.rotation)
    assert (moved.light == subject.params.light).all() and moved.camera == track.camera
    assert np.array_equal(moved.result(2).texture, subject.texture)
    still = track.apply_to(subject, pose=False)
    assert (still.rotation == subject.params.rotation).all() and (still.translation == subject.params.translation).all()
    assert still.camera == subject.camera and np.array_equal(still.expression, track.expression)


def test_motion_on_another_model_goes_by_name(track):
    names = ("smirk", *track.expression_names[1:][::-1])
    model = other_model(expression_names=names, name="else")
    moved = track.apply_to(head_from_params(model, model.neutral(), track.camera, 16))
    for name in names[1:]:
        assert np.array_equal(column(moved, name), column(track, name))
    assert not column(moved, "smirk").any()
    assert moved.warnings[-1] == f"the model else has no expression {track.expression_names[0]}: left out"
    alien = other_model(expression_names=tuple(f"e{i}" for i in range(len(names))))
    with pytest.raises(ParameterError, match="has none of these expressions"):
        track.apply_to(head_from_params(alien, alien.neutral(), track.camera, 16))


def test_neutral_weights_are_subtracted(track):
    weights = np.full_like(track.expression, 0.2)
    weights[-2:, 0] = 1
    weights[:, 1] = 0.9  # held for the whole clip
    tired = dataclasses.replace(track, expression=weights, confidence=np.ones(FRAMES, np.float32))
    for neutral in ("auto", 0):
        moved = tired.apply_to(track.identity, neutral=neutral).expression
        assert np.allclose(moved[:, 0], [0] * (FRAMES - 2) + [1, 1], atol=1e-6)
        assert (moved[:, 1] > 0.7).all() and np.abs(moved[:, 2:]).max() < 1e-6
    assert np.array_equal(tired.apply_to(track.identity).expression, weights)


@pytest.mark.parametrize(
    ("who", "change", "message"),
    [
        (7, {}, "FitResult or FaceParams, got int"),
        (None, {"neutral": "first"}, "a frame's index or 'auto', got 'first'"),
        (None, {"neutral": 99}, "frames 0..11, got 99"),
        (None, {"neutral": True}, "got True"),
    ],
)
def test_wrong_retargeting(who, change, message, track):
    with pytest.raises(ParameterError, match=message):
        track.apply_to(track.identity if who is None else who, **change)


def test_person_of_another_model(track):
    with pytest.raises(ParameterError, match=r"identity.identity has shape \(3,\)"):
        track.apply_to(track.identity.replace(identity=np.zeros(3, np.float32)))


# ------------------------------------------------------------------------------------------------------ animated model


def channels(glb):
    """Keys (K,) and values (K, ...) by what they move."""
    (animation,) = glb.document["animations"]
    found = {}
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        assert channel["target"]["node"] == 0 and sampler["interpolation"] == "LINEAR"
        keys = glb.values(sampler["input"])[:, 0]
        found[channel["target"]["path"]] = keys, glb.values(sampler["output"]).reshape(len(keys), -1)
    return found


@pytest.mark.parametrize("lod", ["coarse", "standard"])
def test_glb_moves_as_the_track(lod, track, tmp_path):
    glb = read_glb(export(track, tmp_path / "talk.glb", lod=lod))
    assert glb.mesh["extras"]["targetNames"] == list(track.expression_names)
    found = channels(glb)
    seen = np.delete(np.arange(FRAMES), GAP)
    for keys, _ in found.values():
        assert np.array_equal(keys, (seen / FPS).astype(np.float32))
    weights, rotation, translation = (found[path][1] for path in ("weights", "rotation", "translation"))
    assert np.array_equal(weights, track.expression[seen])
    assert np.allclose(Rotation.from_quat(rotation).as_matrix(), track.rotation[seen], atol=1e-6)
    assert ((rotation[1:] * rotation[:-1]).sum(1) > 0).all() and np.allclose(np.linalg.norm(rotation, axis=1), 1)
    # The head of a key, put together as a player does it, is the tracked one before the camera.
    model = track.model.coarse if lod == "coarse" else track.model
    base, corners = glb.attribute("POSITION"), glb.corners()
    shape = (base + np.tensordot(weights[-1], glb.targets("POSITION"), 1))[corners]
    placed = Rotation.from_quat(rotation[-1]).apply(shape) + translation[-1]
    node, camera = glb.document["nodes"]
    head = track.result(-1)
    head_cam = (head.vertices @ head.params.rotation.T + head.params.translation)[: len(model.mean_vertices)]
    unseen = 2e-6 + UNSEEN_M * weights[-1].sum()
    assert np.allclose(placed - camera["translation"], head_cam[model.faces.reshape(-1)], atol=unseen)
    assert np.allclose(node["rotation"], rotation[0]) and not np.any(node["translation"])
    lens = glb.document["cameras"][0]["perspective"]
    assert lens["aspectRatio"] == pytest.approx(4 / 3)
    assert np.tan(lens["yfov"] / 2) == pytest.approx(45 / track.camera.focal_px)


def test_animated_glb_is_valid(track, tmp_path, validate_gltf):
    report = validate_gltf(export(track, tmp_path / "talk.glb"))
    assert (report["issues"]["numErrors"], report["issues"]["numWarnings"]) == (0, 0), report["issues"]["messages"]
    assert report["info"]["animationCount"] == 1
    one = dataclasses.replace(track, **{name: getattr(track, name)[:1] for name in FRAME_ARRAYS})
    assert validate_gltf(export(one, tmp_path / "one.glb"))["issues"]["numErrors"] == 0


def test_track_without_a_face_keeps_all_keys(track, tmp_path):
    blind = dataclasses.replace(track, confidence=np.zeros(FRAMES, np.float32))
    assert len(channels(read_glb(export(blind, tmp_path / "blind.glb")))["weights"][0]) == FRAMES


def test_times_are_counted_from_the_first_frame(track, tmp_path):
    late = dataclasses.replace(track, times_s=track.times_s + 3600, confidence=np.float32([0, *[1] * (FRAMES - 1)]))
    assert channels(read_glb(export(late, tmp_path / "late.glb")))["weights"][0][0] == pytest.approx(1 / FPS)


@pytest.mark.parametrize(("mesh", "lod"), [("light", "coarse"), ("full", "standard")])
def test_old_names_of_levels_of_detail_work_with_a_warning(mesh, lod, track, tmp_path):
    with pytest.warns(DeprecationWarning, match=f"use lod='{lod}'") as caught:
        path = export(track, tmp_path / "talk.glb", mesh=mesh)
    assert [warning.filename for warning in caught] == [__file__]
    (tmp_path / "new").mkdir()
    assert path.read_bytes() == export(track, tmp_path / "new" / "talk.glb", lod=lod).read_bytes()


def test_other_exports_of_a_track(track, tmp_path):
    for suffix in (".csv", ".json", ".npz"):
        assert load_track(export_track(track, tmp_path / f"face{suffix}"), track.model).times_s.shape == (FRAMES,)
    with pytest.raises(ParameterError, match=r"\.csv \.json \.npz \.glb; for one frame .* track.result"):
        export(track, tmp_path / "face.obj")
    with pytest.raises(ParameterError, match="lod must be one of coarse, standard for a track, got 'dense'"):
        export(track, tmp_path / "face.glb", lod="dense")
    with pytest.raises(ParameterError, match="mesh must be 'light' or 'full', got 'dense'"):
        export(track, tmp_path / "face.glb", mesh="dense")
    with pytest.raises(ParameterError, match="cannot write"):
        export(track, tmp_path / "no folder" / "face.glb")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.csv", "face.json", "face.npz"]


# --------------------------------------------------------------------------------------------------------------- clips


@pytest.fixture
def encoder():
    pytest.importorskip("imageio_ffmpeg")


@pytest.fixture(scope="module")
def source():
    """A frame of one colour for each of the track, (90, 120, 3)."""
    return [np.full((90, 120, 3), (40 + 10 * i, 120, 200 - 10 * i), np.uint8) for i in range(FRAMES)]


def read_clip(path):
    cv2 = pytest.importorskip("cv2")
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1][:, :, ::-1])
    rate = capture.get(cv2.CAP_PROP_FPS)
    code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little")
    capture.release()
    return np.stack(frames), rate, code


def near(pixels, colour):
    return np.abs(pixels.astype(int) - colour).max(-1) <= 6


def test_clip_of_the_head(track, encoder, tmp_path):
    shares = []
    path = render_track(track, tmp_path / "clay.mp4", on_progress=lambda stage, share, _: shares.append((stage, share)))
    frames, rate, code = read_clip(path)
    assert frames.shape == (FRAMES, 90, 120, 3) and rate == pytest.approx(FPS) and code in (b"avc1", b"h264")
    assert shares == [("rendering", (i + 1) / FRAMES) for i in range(FRAMES)]
    assert near(frames[:, 2, 2], (242, 242, 242)).all() and not near(frames[:, 45, 60], (242, 242, 242)).any()
    assert [file.name for file in tmp_path.iterdir()] == ["clay.mp4"]


def test_overlay_shows_the_frames_around_the_head_and_alone_in_gaps(track, source, encoder, tmp_path):
    frames, _, _ = read_clip(render_track(track, tmp_path / "o.mp4", mode="overlay", source=iter(source)))
    for index, (shown, given) in enumerate(zip(frames, source, strict=True)):
        assert near(shown[3, 3], given[0, 0]), index
        alone = near(shown, given[0, 0]).mean()
        assert alone > 0.99 if track.confidence[index] == 0 else 0.2 < alone < 0.9


def test_side_by_side_in_another_size_and_rate(track, source, encoder, tmp_path):
    path = render_track(track, tmp_path / "side.mp4", mode="side", source=source, size=61, fps=50)
    frames, rate, _ = read_clip(path)
    assert rate == pytest.approx(50) and frames.shape == (2 * (FRAMES - 1) + 1, 46, 120, 3)
    assert near(frames[0, :, :56], source[0][0, 0]).all() and near(frames[-1, :, :40], source[-1][0, 0]).mean() > 0.9
    assert near(frames[0, 2, -3], (242, 242, 242)) and not near(frames[0, :, 64:], (242, 242, 242)).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("clip.avi", {}, "must end in .mp4"),
        ("clip.mp4", {"mode": "sepia"}, "a clip has no mode 'sepia'"),
        ("clip.mp4", {"mode": "overlay"}, "pass it as source"),
        ("clip.mp4", {"size": 8}, "16..4096, got 8"),
        ("clip.mp4", {"size": "large"}, "got 'large'"),
        ("clip.mp4", {"fps": 0}, "got 0"),
        ("clip.mp4", {"fps": float("nan")}, "got nan"),
        ("no folder/clip.mp4", {}, "folder that exists"),
    ],
)
def test_wrong_clips(name, options, message, track, tmp_path):
    with pytest.raises(ParameterError, match=message) as caught:
        render_track(track, tmp_path / name, **options)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (slice(0, 7), ParameterError, "ends after 7 frames, but the track has 12"),
        (slice(0, 0), ParameterError, "ends after 0 frames"),
        (None, ImageError, "have 64 x 64 pixels, those that were tracked 120 x 90"),
    ],
)
def test_source_of_another_track(frames, error, message, track, source, encoder, tmp_path):
    given = [np.zeros((64, 64, 3), np.uint8)] if frames is None else source[frames]
    (tmp_path / "clip.mp4").write_text("what was there before")
    with pytest.raises(error, match=message):
        render_track(track, tmp_path / "clip.mp4", mode="overlay", source=given)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    assert (tmp_path / "clip.mp4").read_text() == "what was there before"


def test_encoder_that_fails_leaves_nothing(track, encoder, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(clips, "_H264", ["-c:v", "nonsense"])
    with pytest.raises(ParameterError, match=r"clip.mp4: the encoder stopped \(.*nonsense.*\)") as caught:
        render_track(track, tmp_path / "clip.mp4")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(clips, "_ffmpeg", lambda: str(tmp_path / "missing"))
    with pytest.raises(ParameterError, match="the encoder does not start"):
        render_track(track, tmp_path / "clip.mp4")


def test_interrupted_clip_leaves_nothing(track, encoder, tmp_path):
    def stop(stage, share, preview):
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_track(track, tmp_path / "clip.mp4", on_progress=stop)
    assert not list(tmp_path.iterdir())


def test_without_an_encoder(track, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ParameterError, match="pip install imageio-ffmpeg"):
        render_track(track, tmp_path / "clip.mp4")
