"""Tests of faceverse.tracking: a head of the model is rendered over time, and tracking has to recover its motion."""

import csv
import json
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from faceverse.edit import edit, head
from faceverse.errors import ImageError, NoFaceError, ParameterError, WeightsError
from faceverse.graphics.camera import default_camera, rotation_from_euler_deg
from faceverse.graphics.lighting import default_light, linear_from_srgb, shading, srgb_from_linear
from faceverse.rendering.render import render, render_head
from faceverse.result import FitResult
from faceverse.tracking import LiveTracker, Track, load_track, track
from faceverse.tracking.result import gaze_deg
from faceverse.tracking.smoothing import smooth_rotations, smooth_values
from faceverse.weights import load_model

FRAMES, SIZE, FPS = 40, 320, 30.0
BLINKS = (8, 20)
BLANK = slice(24, 29)


# ------------------------------------------------------------------------------------------------------------ fixtures


class Scene:
    """A head that turns, opens its jaw twice and blinks twice, and the truth about it.

    Args:
        lens: factor on the usual focal length; the head is as much nearer.
    """

    def __init__(self, model, lens=1.0):
        self.model, self.person, self.lens = model, model.random(3), lens
        seconds = np.arange(FRAMES) / FPS
        turn = zip(25 * np.sin(4.7 * seconds), 8 * np.sin(7 * seconds), 4 * np.sin(6.3 * seconds))
        self.rotation = np.stack([rotation_from_euler_deg(*angles).numpy() for angles in turn])
        self.translation = np.stack(
            [0.03 * np.sin(3 * seconds), 0 * seconds, -0.5 + 0.03 * np.cos(4 * seconds)], axis=1
        ).astype(np.float32) * np.float32([1, 1, lens])
        self.expression = np.zeros((FRAMES, len(model.expression_names)), dtype=np.float32)
        self.weight("jawOpen")[:] = 0.35 * (1 - np.cos(2 * np.pi * seconds / 0.66))
        blink = sum(np.exp(-(((np.arange(FRAMES) - at) / 1.6) ** 2)) for at in BLINKS)
        self.weight("eyeBlinkLeft")[:] = self.weight("eyeBlinkRight")[:] = np.minimum(blink, 1)
        self.frames = [self.render(i) for i in range(FRAMES)]

    def weight(self, name):
        """(T,) view of the true weights of that name."""
        return self.expression[:, self.model.expression_names.index(name)]

    def render(self, index):
        return self.render_of(self.expression[index], index)

    def render_of(self, expression, index=0):
        vertices = self.model.vertices(row(self.person.identity), row(expression))
        albedo = self.model.albedo(row(self.person.albedo)).clamp(0, 1)
        pose = torch.from_numpy(self.rotation[index])[None], torch.from_numpy(self.translation[index])[None]
        camera = default_camera((2 * SIZE, 2 * SIZE))
        camera = replace(camera, focal_px=self.lens * camera.focal_px)
        drawn = render_head(vertices, albedo, self.model.tensor("faces"), *pose, default_light()[None], camera)
        linear = torch.where(drawn.mask[..., None], drawn.rgb, torch.tensor(0.5))
        linear = torch.nn.functional.avg_pool2d(linear.permute(0, 3, 1, 2), 2)[0].permute(1, 2, 0)
        return (srgb_from_linear(linear) * 255 + 0.5).to(torch.uint8).numpy()


def row(values):
    return torch.from_numpy(np.asarray(values, dtype=np.float32))[None]


@pytest.fixture(scope="module")
def scene():
    try:
        return Scene(load_model())
    except WeightsError as error:
        pytest.skip(f"the open model is not installed: {error}")


@pytest.fixture(scope="module")
def near():
    """What a wide lens sees from near."""
    try:
        return Scene(load_model(), lens=0.65)
    except WeightsError as error:
        pytest.skip(f"the open model is not installed: {error}")


@pytest.fixture(scope="module")
def tracked(scene):
    return track(scene.frames, scene.model)


@pytest.fixture(scope="module")
def raw(scene):
    return track(scene.frames, scene.model, smooth=False)


@pytest.fixture(scope="module")
def gap(scene):
    """Track of the scene with blank frames at the start and in the middle."""
    frames = [np.full_like(frame, 128) if i < 2 or BLANK.start <= i < BLANK.stop else frame
              for i, frame in enumerate(scene.frames)]
    return track(frames, scene.model, smooth=False)


def weight(result, name):
    return result.expression[:, result.expression_names.index(name)]


def angle_deg(first, second):
    """(T,) degrees between rotations (T, 3, 3)."""
    return np.degrees((Rotation.from_matrix(first).inv() * Rotation.from_matrix(second)).magnitude())


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


# ------------------------------------------------------------------------------------------------- pose and weights


@pytest.mark.parametrize("which", ["tracked", "raw"])
def test_recovers_pose(which, scene, request):
    result = request.getfixturevalue(which)
    assert rms(angle_deg(result.rotation, scene.rotation)) < 4.5
    # Distance and size of a head are nearly ambiguous, so distances are compared in units of the head's size.
    size = np.median(result.translation[:, 2] / scene.translation[:, 2])
    assert 0.85 < size < 1.15
    assert rms(np.linalg.norm(result.translation - size * scene.translation, axis=1)) < 0.012
    # A constant pose would have a much larger error.
    assert rms(angle_deg(scene.rotation, scene.rotation[:1])) > 12


@pytest.mark.parametrize("which", ["tracked", "raw"])
@pytest.mark.parametrize("name", ["jawOpen", "eyeBlinkLeft", "eyeBlinkRight"])
def test_weights_follow_the_face(which, name, scene, request):
    found = weight(request.getfixturevalue(which), name)
    assert np.corrcoef(found, scene.weight(name))[0, 1] > 0.8
    assert found.min() >= 0 and found.max() <= 1


def test_blinks_survive_smoothing(tracked, raw):
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        for at in BLINKS:
            near = slice(at - 2, at + 3)
            assert weight(tracked, name)[near].max() > 0.8 * weight(raw, name)[near].max()


def test_smoothing_reduces_the_jitter_of_a_still_head(scene):
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 8, (24, *scene.frames[0].shape))
    frames = np.clip(scene.frames[0] + noise, 0, 255).astype(np.uint8)
    raw, smoothed = (track(frames, scene.model, smooth=smooth) for smooth in (False, True))
    for name in ("expression", "translation", "rotation"):
        # The detector itself takes a few frames to settle.
        before, after = (rms(np.diff(getattr(result, name)[8:], axis=0)) for result in (raw, smoothed))
        assert 0 < after < 0.7 * before


def test_arrays_fit_together(tracked, scene):
    assert isinstance(tracked, Track) and len(tracked) == FRAMES
    weights = len(scene.model.expression_names)
    assert tracked.expression.shape == (FRAMES, weights) and tracked.light.shape == (FRAMES, 9, 3)
    assert np.allclose(tracked.times_s, np.arange(FRAMES) / FPS)
    assert np.allclose(tracked.rotation @ tracked.rotation.transpose(0, 2, 1), np.eye(3), atol=1e-5)
    assert tracked.confidence.min() > 0.5 and tracked.confidence.max() <= 1
    assert str(FRAMES) in repr(tracked)


def test_params_of_a_frame(tracked, scene):
    params = tracked.params(12)
    assert np.array_equal(params.identity, tracked.identity.identity)
    assert np.array_equal(params.expression, tracked.expression[12])
    assert np.array_equal(tracked.params(-1).rotation, tracked.rotation[-1])
    params.expression[:] = 9
    assert tracked.expression[12].max() <= 1
    for index in (FRAMES, -FRAMES - 1):
        with pytest.raises(ParameterError, match="frames 0..39"):
            tracked.params(index)
    vertices = scene.model.vertices(row(tracked.params(0).identity), row(tracked.params(0).expression))
    assert torch.isfinite(vertices).all()


def test_same_video_same_track(tracked, scene):
    again = track(scene.frames, scene.model)
    for name in ("rotation", "translation", "expression", "light", "confidence"):
        assert np.array_equal(getattr(tracked, name), getattr(again, name)), name


# ---------------------------------------------------------------------------------------------------- identity, light


def test_given_identity_is_kept(scene):
    result = track(scene.frames[:6], scene.model, identity=scene.person)
    assert np.array_equal(result.identity.identity, scene.person.identity)
    assert np.array_equal(result.params(3).albedo, scene.person.albedo)


def test_identity_from_a_fit(scene):
    nothing = np.zeros((1, 1, 3), np.uint8)
    camera = default_camera((SIZE, SIZE))
    shape = np.zeros((1, 3), np.float32)
    fitted = FitResult(scene.model, scene.person, camera, shape, shape, shape, nothing, nothing[..., 0])
    result = track(scene.frames[:3], identity=fitted)
    assert result.model is scene.model
    assert np.array_equal(result.identity.identity, scene.person.identity)


def test_eyes_have_the_colour_that_the_frames_show(scene):
    person, found = head(scene.person, scene.model), {}
    for name, colour in (("blue", (70, 110, 150)), ("brown", (90, 55, 35))):
        picture = render(edit(person, eye_color=colour), size=512).rgb
        blink = render(edit(person, expression={"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}), size=512).rgb
        found[name] = track([blink, picture, blink, picture, picture], scene.model).identity.iris
    assert found["blue"][2] > 1.5 * found["blue"][0] and found["brown"][0] > 1.5 * found["brown"][2]
    eyes_closed = track([blink, blink], scene.model).identity.iris
    assert np.array_equal(eyes_closed, scene.model.neutral().iris), "that of the model where no eye is seen"


def test_focal_length_is_estimated_with_the_person(tracked, scene, near):
    usual = default_camera((SIZE, SIZE)).focal_px
    found = track(near.frames, near.model)
    assert 0.8 < tracked.camera.focal_px / usual < 1.25
    assert 0.5 < found.camera.focal_px / usual < 0.85
    kept = track(near.frames, near.model, focal_px=usual)
    assert kept.camera.focal_px == usual
    assert rms(angle_deg(found.rotation, near.rotation)) < rms(angle_deg(kept.rotation, near.rotation))


def test_light_follows_the_brightness(scene):
    linear = linear_from_srgb(torch.arange(256) / 255)
    half = (srgb_from_linear(linear / 2) * 255 + 0.5).to(torch.uint8).numpy()
    frames = [scene.frames[i] if i < 5 else half[scene.frames[i]] for i in range(10)]
    result = track(frames, scene.model, identity=scene.person, smooth=False)
    # What a white surface returns that faces the camera; single coefficients are not well determined by a face.
    towards = torch.tensor([[0.0, 0.0, 1.0]])
    found = shading(towards, torch.from_numpy(result.light))[:, 0].mean(1)
    true = float(shading(towards, default_light()).mean())
    assert np.allclose(found, [true] * 5 + [true / 2] * 5, rtol=0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": "me"}, "FitResult or FaceParams, got str"),
        ({"fps": 0}, "above 0"),
        ({"focal_px": float("nan")}, "above 0"),
    ],
)
def test_wrong_arguments(change, message, toy_model):
    with pytest.raises(ParameterError, match=message):
        track([], toy_model, **change)


def test_identity_of_another_model(toy_model):
    alien = toy_model.neutral()
    with pytest.raises(ParameterError, match=r"identity.identity has shape \(9,\)"):
        track([], toy_model, identity=alien.replace(identity=np.zeros(len(alien.identity) + 1, np.float32)))


# ---------------------------------------------------------------------------------------------------------------- gaps


def test_short_gaps_are_marked_and_interpolated(gap):
    blank = np.zeros(FRAMES, dtype=bool)
    blank[:2] = blank[BLANK] = True
    assert np.array_equal(gap.confidence == 0, blank)
    before, after = BLANK.start - 1, BLANK.stop
    halfway = gap.translation[(before + after) // 2]
    assert np.allclose(halfway, (gap.translation[before] + gap.translation[after]) / 2, atol=1e-6)
    turns = angle_deg(gap.rotation[before:after], gap.rotation[before + 1 : after + 1])
    assert turns[0] > 0 and np.allclose(turns, turns[0], atol=1e-3)
    assert np.array_equal(gap.expression[:2], np.repeat(gap.expression[2][None], 2, axis=0))
    assert len(gap) == FRAMES


def test_long_gaps_are_held(scene):
    frames = [(i / FPS, scene.frames[10]) for i in range(3)]
    frames += [(0.1 + 0.1 * i, np.full_like(scene.frames[0], 128)) for i in range(1, 6)]
    frames += [(1 + i / FPS, scene.frames[20]) for i in range(3)]
    found = track(frames, scene.model, identity=scene.person, smooth=False)
    assert np.array_equal(found.confidence == 0, [False] * 3 + [True] * 5 + [False] * 3)
    assert np.array_equal(found.rotation[3:8], np.repeat(found.rotation[2][None], 5, axis=0))


def test_tracking_continues_after_a_gap(gap, scene):
    after = slice(BLANK.stop, None)
    assert rms(angle_deg(gap.rotation[after], scene.rotation[after])) < 5


def test_no_face(toy_model):
    with pytest.raises(NoFaceError, match="no face was found in any of 3 frames"):
        track([np.full((120, 160, 3), 90, np.uint8)] * 3, toy_model)


# ------------------------------------------------------------------------------------------------------------- sources


def test_frames_are_not_kept(scene):
    alive, references = [], []

    def frames():
        for i in range(16):
            frame = scene.frames[i].copy()
            references.append(weakref.ref(frame))
            alive.append(sum(reference() is not None for reference in references))
            yield frame

    track(frames(), scene.model)
    assert len(alive) == 16 and max(alive) <= 3


def test_pairs_bring_their_own_times(scene):
    times = [5.0, 5.0001, 5.2, 6.0]
    result = track(zip(times, scene.frames), scene.model)
    assert result.times_s.tolist() == times


def test_folder_of_pictures(scene, tmp_path, raw):
    for i in range(12):
        Image.fromarray(scene.frames[i]).save(tmp_path / f"frame_{i}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".frame_3.png").write_text("a hidden file")
    shares = []
    result = track(
        tmp_path, scene.model, fps=10, smooth=False, on_progress=lambda stage, share, preview: shares.append(share)
    )
    assert np.allclose(result.times_s, np.arange(12) / 10)
    orders = np.arange(12), np.array([0, 1, 10, 11, *range(2, 10)])  # 10 after 9, or as text, after 1
    right, wrong = (angle_deg(result.rotation, raw.rotation[order]).mean() for order in orders)
    assert right < 3 and wrong > 2 * right
    assert np.allclose(shares, np.arange(1, 13) / 12)


def test_video_file(scene, tmp_path, tracked):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (SIZE, SIZE))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write an MP4")
    for frame in scene.frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    result = track(path, scene.model)
    assert np.allclose(result.times_s, np.arange(FRAMES) / FPS, atol=2e-3)
    assert rms(angle_deg(result.rotation, tracked.rotation)) < 2
    # Red and blue in the right order: skin is redder than it is blue.
    assert np.allclose(result.light[:, 0].mean(0), tracked.light[:, 0].mean(0), rtol=0.1)


def test_one_frame(scene):
    result = track([scene.frames[0]], scene.model)
    assert len(result) == 1 and result.confidence[0] > 0.5


def test_unusable_sources(tmp_path, toy_model, capfd):
    (tmp_path / "clip.mp4").write_bytes(b"no video at all" * 20)
    (tmp_path / "empty").mkdir()
    frame = np.zeros((64, 64, 3), np.uint8)
    for source, message in (
        (tmp_path / "missing.mp4", "there is no file"),
        (tmp_path / "clip.mp4", "clip.mp4 is not a video"),
        (tmp_path / "empty", "has no pictures"),
        ([], "no frames"),
        (7, "camera 7 cannot be opened"),
        (7.5, "an iterable of frames, got float"),
        ([frame, frame[:32]], "frame 1 has 64 x 32 pixels, those before 64 x 64"),
        ([frame.astype(float)], "frame 0: expected .* got .* float64"),
        (frame, "frame 0: expected"),
    ):
        with pytest.raises(ImageError, match=message) as caught:
            track(source, toy_model)
        assert "\n" not in str(caught.value)
    assert "clip.mp4" not in capfd.readouterr().err  # messages of OpenCV and FFmpeg are silenced


def test_times_must_increase(toy_model):
    frame = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ParameterError, match="frame 1 is at 1.0 s, the one before at 1.0 s"):
        track([(1.0, frame), (1.0, frame)], toy_model)


# --------------------------------------------------------------------------------------------------------------- files


def test_csv(tracked, tmp_path):
    with open(tracked.save(tmp_path / "face.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == FRAMES
    read = np.array([[float(line[name]) for name in tracked.expression_names] for line in rows])
    assert np.allclose(read, tracked.expression, atol=1e-5)
    yaw, pitch, roll = (float(rows[9][f"{name}_deg"]) for name in ("yaw", "pitch", "roll"))
    assert np.allclose(rotation_from_euler_deg(yaw, pitch, roll).numpy(), tracked.rotation[9], atol=1e-4)
    assert np.allclose([float(rows[9][f"{axis}_m"]) for axis in "xyz"], tracked.translation[9], atol=1e-5)
    assert float(rows[9]["time_s"]) == pytest.approx(tracked.times_s[9], abs=1e-6)


def test_json(tracked, tmp_path):
    document = json.loads(tracked.save(tmp_path / "face.json").read_text())
    assert document["expression_names"] == list(tracked.expression_names)
    for name in ("times_s", "rotation", "translation", "expression", "light", "confidence"):
        assert np.allclose(document[name], getattr(tracked, name)), name
    assert np.allclose(document["identity"], tracked.identity.identity)
    assert document["camera"]["focal_px"] == tracked.camera.focal_px


def test_npz(tracked, tmp_path):
    with np.load(tracked.save(tmp_path / "face.npz"), allow_pickle=False) as arrays:
        assert arrays["expression_names"].tolist() == list(tracked.expression_names)
        for name in ("times_s", "rotation", "translation", "expression", "light", "confidence"):
            assert np.array_equal(arrays[name], getattr(tracked, name)), name


def test_save_is_atomic(tracked, tmp_path):
    with pytest.raises(ParameterError, match="must end in one of .csv .json .npz"):
        tracked.save(tmp_path / "face.fbx")
    with pytest.raises(ParameterError, match="cannot write"):
        tracked.save(tmp_path / "no folder" / "face.csv")
    (tmp_path / "face.csv").mkdir()
    with pytest.raises(ParameterError, match="cannot write"):
        tracked.save(tmp_path / "face.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["face.csv"]


# ----------------------------------------------------------------------------------------------------------- smoothing


def test_filters_keep_what_is_constant_and_do_not_lag():
    times = np.cumsum(np.random.default_rng(1).uniform(0.01, 0.05, 60))
    assert np.allclose(smooth_values(np.full((60, 2), 0.3), times, 1.0, 2.0), 0.3)
    bump = np.exp(-(((times - times[30]) / 0.2) ** 2))[:, None]
    for beta in (0.5, 8.0):
        smoothed = smooth_values(bump, times, 1.0, beta)[:, 0]
        assert abs(float((smoothed * times).sum() / smoothed.sum()) - times[30]) < 0.02


def test_rotations_are_smoothed_as_rotations():
    times = np.arange(50) / 30
    generator = np.random.default_rng(2)
    # About 180 degrees, where Euler angles and quaternions' signs jump.
    turned = Rotation.from_euler("y", 180) * Rotation.from_rotvec(generator.normal(0, 0.02, (50, 3)))
    clean = Rotation.from_euler("y", 180)
    smoothed = smooth_rotations(turned, times, 1.0, 1.0)
    before, after = ((clean.inv() * noisy).magnitude() for noisy in (turned, smoothed))
    assert rms(after) < 0.6 * rms(before)
    matrices = smoothed.as_matrix()
    assert np.allclose(matrices @ matrices.transpose(0, 2, 1), np.eye(3), atol=1e-9)


# ---------------------------------------------------------------------------------------------------------------- live


def test_live_frames_follow_the_head(scene):
    with LiveTracker(scene.model, identity=scene.person) as live:
        answers = [live(frame, i / FPS) for i, frame in enumerate(scene.frames)]
        blank = live(np.full_like(scene.frames[0], 128), 2.0)
        recorded = live.track()
        live.clear()
        with pytest.raises(ParameterError, match="no face has been recorded"):
            live.track()
    assert rms(angle_deg(np.stack([a.rotation for a in answers]), scene.rotation)) < 4.5
    jaw = scene.model.expression_names.index("jawOpen")
    assert np.corrcoef([a.expression[jaw] for a in answers], scene.weight("jawOpen"))[0, 1] > 0.8
    assert blank.confidence == 0 and np.array_equal(blank.rotation, answers[-1].rotation)
    assert len(recorded) == FRAMES + 1 and np.allclose(recorded.rotation[5], answers[5].rotation)
    with pytest.raises(ParameterError, match="closed"):
        live(scene.frames[0], 9.0)


def test_live_heads_move_away_when_the_focal_length_is_known_better(near, monkeypatch):
    monkeypatch.setattr("faceverse.tracking.live.ESTIMATE_AFTER_FACES", (20,))
    with LiveTracker(near.model, smooth=False) as live:
        first = [live(frame, i / FPS) for i, frame in enumerate(near.frames[:20])]
        found = live.track()
        for frame in range(20, 400):  # the estimate runs in the background; a frame after its end adopts it
            if found.camera.focal_px != default_camera((SIZE, SIZE)).focal_px:
                break
            time.sleep(0.1)
            live(near.frames[20], frame / FPS)
            found = live.track()
    factor = found.camera.focal_px / default_camera((SIZE, SIZE)).focal_px
    assert factor < 0.9
    np.testing.assert_allclose(found.translation[:20, 2], [factor * one.translation[2] for one in first], rtol=1e-4)


def test_live_calibration_makes_the_face_neutral(scene):
    smile = scene.model.neutral().replace(identity=scene.person.identity, albedo=scene.person.albedo)
    names = scene.model.expression_names
    scene_smile = np.zeros(len(names), np.float32)
    scene_smile[[names.index("mouthSmileLeft"), names.index("mouthSmileRight")]] = 0.7
    frame = scene.render_of(scene_smile)
    with LiveTracker(scene.model, identity=smile, smooth=False) as live:
        before = [live(frame, i / FPS) for i in range(6)][-1]
        live.calibrate()
        after = [live(frame, 1 + i / FPS) for i in range(3)][-1]
    assert before.expression[names.index("mouthSmileLeft")] > 0.3
    assert after.expression[names.index("mouthSmileLeft")] < 0.15


def test_live_wants_frames_of_one_size_in_order(toy_model):
    with LiveTracker(toy_model) as live:
        assert live(np.full((120, 160, 3), 90, np.uint8), 0.0).confidence == 0
        with pytest.raises(ParameterError, match="times must increase"):
            live(np.full((120, 160, 3), 90, np.uint8), 0.0)
        with pytest.raises(ImageError, match="one size"):
            live(np.full((100, 160, 3), 90, np.uint8), 1.0)


# ------------------------------------------------------------------------------------------------------------- journal


class _Stop(Exception):  # noqa: N818
    pass


def test_an_aborted_run_leaves_a_journal_and_is_continued(scene, tmp_path, monkeypatch):
    monkeypatch.setattr("faceverse.tracking.PERSON_FACES", (8, 8))
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, frame in enumerate(scene.frames[:24]):
        Image.fromarray(frame).save(folder / f"{i}.png")
    journal, whole = tmp_path / "run.fvtrack", track(folder, scene.model, identity=scene.person, smooth=False)
    seen = []

    def stop(stage, share, preview):
        seen.append(share)
        if share > 0.6:
            raise _Stop

    with pytest.raises(_Stop):
        track(folder, scene.model, identity=scene.person, smooth=False, journal=journal, on_progress=stop)
    partial = load_track(journal, scene.model)
    assert 10 <= len(partial) < 24 and np.allclose(partial.rotation[:10], whole.rotation[:10], atol=1e-5)
    journal.write_bytes(journal.read_bytes()[:-7])  # an incomplete record
    first = []
    again = track(
        folder, scene.model, identity=scene.person, smooth=False, journal=journal,
        on_progress=lambda stage, share, preview: first.append(share),
    )  # fmt: skip
    assert not journal.exists() and len(again) == 24
    assert first[0] > 0.4, "it continued and did not start anew"
    assert rms(angle_deg(again.rotation, whole.rotation)) < 1


def test_journals_are_for_files(toy_model, tmp_path):
    with pytest.raises(ParameterError, match="video file or a folder only"):
        track([], toy_model, journal=tmp_path / "x.fvtrack")
    (tmp_path / "x.fvtrack").write_bytes(b"what is this")
    with pytest.raises(ParameterError, match="journal of a track"):
        load_track(tmp_path / "x.fvtrack", toy_model)


def test_quality_has_a_name(toy_model):
    with pytest.raises(ParameterError, match="fast, high"):
        track([], toy_model, quality="best")


# ---------------------------------------------------------------------------------------------------------------- gaze


def test_gaze_in_degrees(scene):
    names = scene.model.expression_names
    weights = np.zeros((2, len(names)), np.float32)
    weights[0, [names.index("eyeLookOutLeft"), names.index("eyeLookInRight")]] = 1
    weights[1, [names.index("eyeLookDownLeft"), names.index("eyeLookDownRight")]] = 0.5
    assert np.allclose(gaze_deg(weights, names), [[25, 0], [0, -12.5]])
