"""The face tracker, cameras as sources, and the filter of live tracking; with stand-ins for the detector."""

import struct
import sys
import types

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from faceverse.__main__ import main
from faceverse.errors import ImageError
from faceverse.fitting.state import FaceState
from faceverse.landmarks import DetectedFace, VideoDetector
from faceverse.tracking import frame_observation as module
from faceverse.tracking.frame_observation import FACES, FaceTracker, observe_frames
from faceverse.tracking.frame_solver import subtract_neutral
from faceverse.tracking.frames import open_source
from faceverse.tracking.smoothing import LiveFilter
from faceverse.tracking.timeline import ROTATION_FILTER, TRANSLATION_FILTER, WEIGHT_FILTER

HEIGHT, WIDTH = 360, 640


def face_at(x, y, wide):
    corners = np.float32([[x - wide / 2, y - wide / 2], [x + wide / 2, y + wide / 2]])
    points = np.linspace(*corners, 478).astype(np.float32)
    return DetectedFace(corners.reshape(-1), points, np.zeros(478, np.float32), {}, None)


class Detector:
    """Stand-in: detects prepared faces at their place in the given part of a frame, if large enough there."""

    def __init__(self, *frames):
        self.frames, self.sizes, self.place = list(frames), [], (0, 0)

    def __call__(self, rgb, milliseconds):
        self.sizes.append(rgb.shape[:2])
        mark = np.argwhere((rgb == 255).all(-1))  # the frame's corner of reference, painted by `frame`
        corner = np.float32(mark[0][::-1]) - np.float32(REFERENCE) if len(mark) else np.zeros(2, np.float32)
        found = [f for f in self.frames.pop(0) if f.box_px[2] - f.box_px[0] >= max(rgb.shape[:2]) / 8]
        return [
            DetectedFace(f.box_px + np.tile(corner, 2), f.landmarks_px + corner, f.landmarks_depth, {}, None)
            for f in found
        ]  # fmt: skip


REFERENCE = (300, 150)  # x, y of a white pixel that tells the stand-in which part of the frame it is given


def frame():
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[REFERENCE[1], REFERENCE[0]] = 255
    return rgb


def boxes(tracker, count):
    faces = [tracker(k / 30, frame()).face for k in range(count)]
    return [None if face is None else face.box_px[0] for face in faces]


@pytest.fixture
def no_search(monkeypatch):
    monkeypatch.setattr(module, "detect_faces", lambda rgb, max_faces=10: [])


# ---------------------------------------------------------------------------------------------------------- the target


def test_the_target_is_kept_while_another_face_is_larger(no_search):
    # A larger face comes in, then the detector finds only that one for two frames, then both again.
    own, other = face_at(150, 180, 100), face_at(480, 180, 160)
    tracker = FaceTracker(Detector([own], [other, own], [other], [other], [own, other]), 32)
    assert boxes(tracker, 5) == [100, 100, None, None, 100]


def test_an_occluded_target_is_searched_for_at_its_last_place_and_tracked_there(monkeypatch):
    own, others, shown = face_at(150, 180, 100), [face_at(380, 180, 160), face_at(550, 180, 120)], []
    answers = [[], [face_at(150, 175, 100)]]

    def search(rgb, max_faces=10):
        shown.append(rgb.shape[:2])
        return answers.pop(0)

    monkeypatch.setattr(module, "detect_faces", search)
    detector = Detector([own], *[others] * 4, [own], [own])
    # The window is 350 wide, clipped to the frame: from x = 0 and y = 5, where the second answer is meant.
    # A search takes time, and so there is none in the two frames after the first.
    assert boxes(FaceTracker(detector, 32), 7) == [100, None, None, None, 100, 100, 100]
    assert shown == [(350, 325)] * 2 and detector.sizes == [(HEIGHT, WIDTH)] * 5 + [(350, 325)] * 2


def test_there_is_no_search_while_the_detector_tracks_fewer_faces_than_it_can(monkeypatch):
    monkeypatch.setattr(module, "detect_faces", lambda *arguments, **options: pytest.fail("a search"))
    own, other = face_at(150, 180, 100), face_at(480, 180, 160)
    assert boxes(FaceTracker(Detector([own], [other], [other], [own]), 32), 4) == [100, None, None, 100]


def test_after_a_while_any_face_becomes_the_target(no_search):
    own, other = face_at(150, 180, 100), face_at(480, 180, 160)
    tracker = FaceTracker(Detector([own], *[[other]] * 30), 32)
    found = boxes(tracker, 31)
    assert found[1] is None and found[-1] == 400


def test_crops_show_the_face(no_search):
    rgb = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    rgb[130:230, 100:200] = 200
    seen = FaceTracker(Detector([face_at(150, 180, 100)]), 64)(0.0, rgb)
    assert seen.picture.shape == (64, 64, 3) and seen.inside.all()
    assert seen.picture[24:40, 24:40].min() > 190 and seen.picture[0].max() < 60


def test_a_face_outside_the_frame_is_none(no_search):
    assert boxes(FaceTracker(Detector([face_at(-900, 180, 100)], [face_at(480, 180, 160)]), 32), 2) == [None, None]


@pytest.mark.parametrize("hidden", [2, 8])
@pytest.mark.parametrize("others, side", [(1, 300), (2, 300), (2, 200), (3, 200)])
def test_a_briefly_occluded_target_is_tracked_again(astronaut, others, side, hidden):
    """Faces of more and of less than an eighth of the frame."""
    middle = (240 - side // 2, 150 - side // 2)
    portrait = Image.fromarray(astronaut).crop((*middle, middle[0] + side, middle[1] + side))
    smaller = round(0.8 * side)
    group = np.full((side, side + (smaller + 10) * others, 3), 120, np.uint8)
    group[:, :side] = portrait
    for k in range(others):
        x = side + 10 + (smaller + 10) * k
        group[20 : 20 + smaller, x : x + smaller] = np.asarray(portrait.resize((smaller, smaller)))[:, ::-1]
    gone = group.copy()
    gone[:, :side] = 120
    with VideoDetector(FACES) as detector:
        tracker = FaceTracker(detector, 32)
        frames = [group] * 5 + [gone] * hidden + [group] * 15
        faces = [tracker(k / 30, rgb).face for k, rgb in enumerate(frames)]
    sides = ["-" if face is None else "AB"[int(face.box_px[0] > side)] for face in faces]
    assert "".join(sides[:5]) == "AAAAA", "the larger one"
    assert "B" not in sides and sides[-10:] == ["A"] * 10


# --------------------------------------------------------------------------------------------------------- small faces


def test_a_small_face_is_searched_for_and_tracked_in_a_window(monkeypatch):
    searched = []

    def search(rgb, max_faces):
        searched.append(max_faces)
        return [face_at(320, 180, 50)]

    monkeypatch.setattr(module, "detect_faces", search)
    moving = [[face_at(320 + 4 * k, 180, 50)] for k in range(12)]
    detector = Detector(*moving)
    found = boxes(FaceTracker(detector, 32), 12)
    assert searched == [1] and detector.sizes[0] == (HEIGHT, WIDTH)
    assert all(max(size) < 200 for size in detector.sizes[1:])
    np.testing.assert_allclose(found[1:], [295 + 4 * k for k in range(1, 12)])


def test_a_face_that_comes_near_is_tracked_in_the_whole_frame(monkeypatch):
    monkeypatch.setattr(module, "detect_faces", lambda rgb, max_faces: [face_at(320, 180, 50)])
    detector = Detector(*[[face_at(320, 180, 50 + 15 * k)] for k in range(8)])
    found = boxes(FaceTracker(detector, 32), 8)
    assert None not in found and detector.sizes[-1] == (HEIGHT, WIDTH)


def test_an_empty_frame_is_not_searched_all_the_time(monkeypatch):
    searched = []
    monkeypatch.setattr(module, "detect_faces", lambda rgb, max_faces: searched.append(0) or [])
    assert boxes(FaceTracker(Detector(*[[]] * 65), 32), 65) == [None] * 65
    assert len(searched) == 3


# ---------------------------------------------------------------------------------------------------- frames and thread


def test_errors_of_the_thread_are_raised(no_search):
    def frames():
        yield 0.0, frame()
        raise ImageError("the film is torn")

    observations = observe_frames(frames(), Detector([face_at(150, 180, 100)]), 32)
    assert next(observations).face is not None
    with pytest.raises(ImageError, match="torn"):
        list(observations)


def test_closing_the_observations_ends_the_thread(no_search):
    closed = []

    def frames():
        try:
            for k in range(10_000):
                yield k / 30, frame()
        finally:
            closed.append(k)

    observations = observe_frames(frames(), Detector(*[[]] * 10_000), 32)
    next(observations)
    observations.close()
    assert closed and closed[0] < 500


# --------------------------------------------------------------------------------------------------------------- camera


class Capture:
    """OpenCV's reader of a camera that shows three frames; number 7 is not there."""

    released = 0

    def __init__(self, source, backend):
        self.number, self.left = source, 3

    def isOpened(self):  # noqa: N802
        return self.number != 7

    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((24, 32, 3), (10, 20, 30), np.uint8)

    def release(self):
        Capture.released += 1


@pytest.fixture
def camera(monkeypatch):
    import cv2

    log = types.SimpleNamespace(setLogLevel=lambda level: level, LOG_LEVEL_SILENT=0)
    stand_in = types.SimpleNamespace(
        VideoCapture=Capture, CAP_ANY=0, COLOR_BGR2RGB=cv2.COLOR_BGR2RGB, cvtColor=cv2.cvtColor,
        utils=types.SimpleNamespace(logging=log),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "cv2", stand_in)
    Capture.released = 0


def test_a_camera_is_a_source(camera):
    frames, total = open_source(0, 30.0)
    taken = list(frames)
    assert total is None and len(taken) == 3 and Capture.released == 1
    times = [seconds for seconds, _ in taken]
    assert times[0] == 0 and times == sorted(times)
    assert taken[0][1][0, 0].tolist() == [30, 20, 10]  # RGB


def test_frames_of_absurd_size_are_refused_before_they_are_decoded(tmp_path):
    """A GIF of a few bytes can announce a picture that takes gigabytes."""
    path = tmp_path / "clip.gif"
    first, second = (Image.fromarray(np.full((40, 48, 3), value, np.uint8)) for value in (0, 200))
    first.save(path, save_all=True, append_images=[second], duration=100)
    frames, _ = open_source(path, 30.0)
    assert [rgb.shape for _, rgb in frames][0] == (40, 48, 3)
    content = path.read_bytes()
    path.write_bytes(content[:6] + struct.pack("<HH", 12000, 9000) + content[10:])
    with pytest.raises(ImageError, match="clip.gif has frames of 12000 x 9000 pixels; at most 100 megapixels"):
        open_source(path, 30.0)


def test_a_missing_camera_is_named(camera):
    with pytest.raises(ImageError, match="camera 7 cannot be opened"):
        open_source(7, 30.0)


def test_webcam_on_the_command_line(camera, tmp_path, toy_model, monkeypatch, capsys):
    lenses = []

    class Live:
        def __init__(self, model, identity, smooth, focal_px):
            self.taken = []
            lenses.append(focal_px)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def __call__(self, rgb, seconds):
            self.taken.append(seconds)
            weights = np.zeros(len(toy_model.expression_names))
            weights[toy_model.expression_names.index("jawOpen")] = 0.6
            return types.SimpleNamespace(expression=weights)

        def track(self):
            return types.SimpleNamespace(taken=self.taken)

    monkeypatch.setattr("faceverse.commands.track.LiveTracker", Live)
    monkeypatch.setattr("faceverse.commands.track.load_model", lambda source: toy_model)
    written = []

    def export(found, path):
        written.append((len(found.taken), path))
        return path

    monkeypatch.setattr("faceverse.commands.track.export", export)
    line = ["track", "--webcam", "-o", str(tmp_path / "out"), "--format", "csv", "--focal-px", "800"]
    assert main(line) == 0 and lenses == [800]
    assert written == [(3, tmp_path / "out" / "webcam.csv")]
    output = capsys.readouterr()
    assert "Ctrl+C" in output.err and "jawOpen" in output.err and "0.60" in output.err
    assert main(["track", "clip.mp4", "--webcam", "-o", str(tmp_path)]) == 1
    assert "give a video, or --webcam" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------------- filter


def state_at(rotation, translation, weights):
    return FaceState(
        rotation=rotation, translation=np.asarray(translation, float), expression=np.asarray(weights, float)
    )


def filtered(angles_deg, weights, step_s=1 / 30):
    live, limits, answers = LiveFilter(ROTATION_FILTER, TRANSLATION_FILTER, WEIGHT_FILTER), np.float64([[0, 1]]), []
    for k, (angle, weight) in enumerate(zip(angles_deg, weights, strict=True)):
        turn = Rotation.from_euler("y", angle, degrees=True).as_matrix()
        answers.append(live(state_at(turn, [0, 0, -0.5], [weight]), k * step_s, limits))
    found = [Rotation.from_matrix(state.rotation).as_euler("yxz", degrees=True)[0] for state in answers]
    return np.array(found), np.array([state.expression[0] for state in answers])


def test_live_filter_reduces_the_jitter_of_a_still_head():
    rng = np.random.default_rng(0)
    noise, weights = rng.normal(0, 0.2, 120), np.full(120, 0.4) + rng.normal(0, 0.01, 120)
    angles, expression = filtered(noise, weights)
    assert angles[20:].std() < 0.6 * noise[20:].std() and expression[20:].std() < 0.6 * weights[20:].std()


def test_live_filter_lags_by_a_frame_at_most():
    seconds = np.arange(90) / 30
    true = 30 * np.sin(2 * seconds)
    angles, _ = filtered(true, np.zeros(90))
    lags = [np.abs(angles[30:80] - true[30 - k : 80 - k]).mean() for k in range(4)]
    assert int(np.argmin(lags)) <= 1 and np.abs(angles - true)[30:].max() < 3


def test_live_filter_keeps_a_blink():
    blink = np.zeros(40)
    blink[15:19] = (0.6, 1.0, 1.0, 0.5)
    assert filtered(np.zeros(40), blink)[1].max() > 0.9


def test_live_filter_is_reset():
    live, limits = LiveFilter(ROTATION_FILTER, TRANSLATION_FILTER, WEIGHT_FILTER), np.float64([[0, 1]])
    first, second = state_at(np.eye(3), np.zeros(3), [0]), state_at(np.eye(3), np.ones(3), [1])
    live(first, 0.0, limits)
    assert live(second, 0.03, limits).translation[0] < 1
    live.reset()
    assert np.array_equal(live(second, 0.06, limits).translation, second.translation)


# -------------------------------------------------------------------------------------------------------- neutral face


def test_weights_are_counted_from_the_neutral_face():
    state, limits = state_at(np.eye(3), np.zeros(3), [0.1, 0.55, 1.0]), np.float64([[0, 1]] * 3)
    np.testing.assert_array_equal(subtract_neutral(state, np.zeros(3), limits).expression, state.expression)
    np.testing.assert_allclose(subtract_neutral(state, np.full(3, 0.1), limits).expression, [0, 0.5, 1])
