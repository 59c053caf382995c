"""Videos, motions and cameras of the web page, without a browser: trackers and encoders are stand-ins here."""

import io
import re
import threading
import time

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation
from test_demo import event_of, face_at, request_of, result_of, wait_for
from test_studio import read_pack

import faceverse as fv

pytest.importorskip("gradio")
handlers = pytest.importorskip("demo.handlers")
from starlette.applications import Starlette  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from demo import hosting, motions, pictures  # noqa: E402
from demo.heads import Head  # noqa: E402
from demo.line import Line  # noqa: E402
from demo.live import MAX_FRAME_BYTES, Closed, Live  # noqa: E402
from demo.motions import Motion, Task, Video  # noqa: E402
from demo.viewer import motion_row  # noqa: E402
from demo.visits import Visits  # noqa: E402
from demo.words import say  # noqa: E402
from faceverse.graphics.camera import default_camera  # noqa: E402

FRAMES, FPS = 5, 10


def write_video(path, frames=FRAMES):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (64, 48))
    for shade in range(frames):
        writer.write(np.full((48, 64, 3), 20 * shade, np.uint8))
    writer.release()
    return path


def track_of(model, frames=FRAMES):
    """A head that rolls by 3 degrees a frame and opens its mouth."""
    weights = np.zeros((frames, len(model.expression_names)), np.float32)
    weights[:, model.expression_names.index("jawOpen")] = np.arange(frames) / frames
    rotation = Rotation.from_euler("z", 3 * np.arange(frames)[:, None], degrees=True).as_matrix()
    return fv.Track(
        model=model,
        identity=model.random(3),
        camera=default_camera((48, 64)),
        times_s=np.arange(frames) / FPS,
        rotation=rotation.astype(np.float32),
        translation=np.tile(np.float32([0, 0, -0.5]), (frames, 1)),
        expression=weights,
        light=np.tile(model.neutral().light, (frames, 1, 1)),
        confidence=np.ones(frames, np.float32),
        expression_names=model.expression_names,
    )


@pytest.fixture
def upload(tmp_path):
    place = tmp_path / "upload"
    place.mkdir()
    return write_video(place / "clip.mp4")


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "visitor"
    place.mkdir()
    return place


@pytest.fixture
def page(tmp_path, monkeypatch, no_network):
    from demo.page import Page

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    nothing = pictures.Pictures(None, None, {}, {})
    monkeypatch.setattr(pictures, "of_fit", lambda result, photo, folder: nothing)
    return Page(Visits(tmp_path / "visits"), detail=False)


def endless(*args, on_progress, **options):
    while True:
        on_progress("tracking", 0.5, None)
        time.sleep(0.005)


def take(page, upload, request, whose="stage"):
    return page.take_video({"path": str(upload)}, whose, "fast", request)


# ----------------------------------------------------------------------------------------------------------- the videos


def test_a_video_moves_into_the_visitors_folder(upload, folder):
    video = motions.claim(upload, folder, show_s=0)
    assert video.frames == FRAMES and folder in video.path.parents and video.path.name == "clip.mp4"
    assert wait_for(lambda: not upload.exists())
    other = write_video(upload, 3)
    assert motions.claim(other, folder).frames == 3 and not video.path.exists(), "one at a time"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"dear diary", "not a video"),
        (b"", "not a video"),
        (b"#EXTM3U\n#EXTINF:1,\nother.mp4\n", "not a video"),
        (b"\0\0\0\x18ftypisom and no more", "not a video"),
        (None, "choose the video again"),
    ],
)
def test_what_is_no_video_becomes_a_sentence(tmp_path, folder, content, words):
    path = tmp_path / "diary.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(fv.ImageError, match=words) as caught:
        motions.claim(path, folder)
    assert re.search("[\u4e00-\u9fff]", say(handlers.explain(caught.value), "zh"))
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("limit", "value"), [("MAX_VIDEO_S", -1), ("MAX_VIDEO_BYTES", 100), ("MAX_VIDEO_PX", 50)])
def test_long_and_large_videos_are_refused(upload, folder, monkeypatch, limit, value):
    monkeypatch.setattr(motions, limit, value)
    with pytest.raises(fv.ImageError, match="clip.mp4 (is|has) .* more than .*; (cut|film)") as caught:
        motions.claim(upload, folder)
    assert "clip.mp4" in say(handlers.explain(caught.value), "zh") != handlers.explain(caught.value)
    assert not list(folder.iterdir())


def test_tracking_tells_how_far_it_is(upload, folder, monkeypatch, toy_model):
    asked = []

    def track(path, identity, quality, on_progress):
        asked.append((path, identity, quality))
        for number in range(FRAMES):
            on_progress("tracking", (number + 1) / FRAMES, None)
        return track_of(toy_model)

    monkeypatch.setattr(fv, "track", track)
    video = motions.claim(upload, folder)
    *steps, found = motions.follow(Task(video, "somebody", quality="high"))
    assert asked == [(video.path, "somebody", "high")] and len(found) == FRAMES
    assert "1 of 5 frames" in steps[0].text and steps[-1].fraction == 1
    for step in steps:
        assert re.search("[\u4e00-\u9fff]", say(step.text, "zh"))


def test_tracking_stops_when_nobody_wants_it(upload, folder, monkeypatch):
    monkeypatch.setattr(fv, "track", endless)
    wanted = [True]
    run = motions.follow(Task(motions.claim(upload, folder)), lambda: wanted[0])
    next(run)
    wanted[0] = False
    with pytest.raises(handlers.Stopped):
        list(run)


def test_a_video_of_unknown_length_has_an_end(folder, monkeypatch):
    monkeypatch.setattr(fv, "track", endless)
    monkeypatch.setattr(motions, "MAX_VIDEO_S", 0.1)
    with pytest.raises(fv.ImageError, match="longer than"):
        list(motions.follow(Task(Video(folder / "video" / "clip.webm", None))))


def test_who_waits_for_a_head_does_not_wait_for_videos():
    line, order = Line(), []
    with line.place(is_aside=True) as video:
        assert not video.is_waited_for

        def fit():
            with line.place() as place:
                place.wait()
                order.append("fit")

        other = threading.Thread(target=fit)
        other.start()
        assert wait_for(lambda: video.is_waited_for)
        video.step_aside()
        order.append("video")
        assert not video.is_waited_for
        other.join()
    assert order == ["fit", "video"]
    with line.place(), line.place(is_aside=True) as video, line.place() as first:
        assert first.ahead == 1 and video.ahead == 2, "whoever comes later for a head passes"


# ------------------------------------------------------------------------------------------------------------- the page


def test_a_tracked_video_moves_the_head_on_the_stage(page, upload, monkeypatch, toy_model):
    asked = []

    def track(path, identity, **options):
        asked.append(identity)
        return track_of(toy_model)

    monkeypatch.setattr(fv, "track", track)
    request = request_of()
    visit = page.visits.of("a visitor")
    visit.head = head = Head.of(result_of(toy_model), 7)
    assert take(page, upload, request)[page.view]["status"]["text"]
    *_, moved, last = page.track(request)
    assert asked == [head.fitted] and visit.head is head, "it is his own"
    assert moved[page.view]["motion"]["number"] and moved[page.view]["status"] is None
    assert "clip.mp4" in moved[page.motion_note] and "5 frames" in moved[page.motion_note]
    state = '{"attributes": {}, "expression": {"jawOpen": 0.4}}'
    for kind in motions.FORMATS.values():
        assert f"motion.{kind}" in page._motion_saver(kind)(state, request), kind
    again = fv.load_track(visit.folder / "motion.npz", toy_model)
    np.testing.assert_allclose(again.expression, visit.motion.track.expression)
    assert (visit.folder / "motion.glb").read_bytes()[:4] == b"glTF"
    page.track_again("other", "fast", request)
    list(page.track(request))
    assert asked[-1] is None and visit.head is head and visit.motion, "his head moves as somebody else does"
    page.track_again("video", "fast", request)
    *_, moved, pictured, last = page.track(request)
    assert asked[-1] is None and visit.head is not head, "somebody else was found"
    assert moved[page.view]["person"] == visit.head.person
    folder = visit.folder
    page.leave(request)
    assert not folder.exists() and visit.motion is None


def test_nobody_is_a_picture_to_try(page, upload, monkeypatch, toy_model):
    asked = []
    monkeypatch.setattr(fv, "detect", lambda image: [face_at(0, 100)])
    monkeypatch.setattr(fv, "fit", lambda image, **options: result_of(toy_model))
    monkeypatch.setattr(fv, "track", lambda path, identity, **options: asked.append(identity) or track_of(toy_model))
    request = request_of()
    visit = page.visits.of("a visitor")
    page.take_sample(request, event_of(index=0))
    list(page.fit(request))
    head = visit.head
    take(page, upload, request)
    list(page.track(request))
    assert asked == [None] and visit.head is head and visit.motion


def test_a_cancelled_video_leaves_nothing(page, upload, monkeypatch):
    monkeypatch.setattr(fv, "track", endless)
    monkeypatch.setattr(handlers, "delete_later", lambda path, seconds: path.unlink(missing_ok=True))
    request = request_of()
    visit = page.visits.of("a visitor")
    take(page, upload, request)
    run = page.track(request)
    assert "frames" in next(run)[page.view]["status"]["text"]
    assert page.give_up_motion(request)[page.view]["status"] is None
    list(run)
    assert wait_for(lambda: not page.line.places)
    assert [path for path in visit.folder.rglob("*") if path.is_file()] == []
    assert page.track_again("stage", "fast", request)[page.message]


@pytest.mark.parametrize(("language", "words"), [("en", "No face was found"), ("zh-CN", "人脸")])
def test_a_video_without_a_face_is_explained(page, upload, language, words):
    request = request_of(language=language)
    take(page, upload, request)
    *_, last = page.track(request)
    assert words in last[page.message] and "fv-error" in last[page.message]
    assert last[page.view]["status"] is None
    assert not list(page.visits.of("a visitor").folder.glob("video-*"))


def test_a_head_on_its_way_is_not_disturbed(page, upload):
    request = request_of()
    visit = page.visits.of("a visitor")
    page.take_sample(request, event_of(index=0))
    visit.status = {"text": "Reading the skin", "fraction": 0.5}
    run = visit.run
    assert "One thing after the other" in take(page, upload, request)[page.message]
    assert visit.run == run and not list(visit.folder.glob("video-*"))


def test_a_new_head_ends_the_motion(page, upload, monkeypatch, toy_model):
    request = request_of()
    visit = page.visits.of("a visitor")
    visit.head = Head.of(result_of(toy_model), 7)
    video = motions.claim(upload, visit.folder)
    page._move(visit, Motion.of(track_of(toy_model), "clip.mp4", visit.folder, video))
    monkeypatch.setattr(fv, "detect", lambda image: [face_at(0, 100)])
    monkeypatch.setattr(fv, "fit", lambda image, **options: result_of(toy_model))
    page.take_sample(request, event_of(index=0))
    answers = list(page.fit(request))
    assert any(answer.get(page.view, {}).get("head") for answer in answers)
    assert visit.motion is None and visit.view["motion"] is None and not video.path.exists()


def test_the_overlay_is_drawn_or_not_at_all(page, upload, monkeypatch, toy_model):
    request = request_of()
    visit = page.visits.of("a visitor")
    visit.head = Head.of(result_of(toy_model), 7)
    video = motions.claim(upload, visit.folder)
    page._move(visit, Motion.of(track_of(toy_model), "clip.mp4", visit.folder, video))
    monkeypatch.setattr(fv, "render", endless)
    run = page.draw_overlay("", request)
    next(run)
    assert "%" in next(run)[page.view]["status"]["text"]
    page.give_up_motion(request)
    list(run)
    assert not list(visit.folder.glob("overlay*")) and video.path.exists(), "it may be asked for again"
    monkeypatch.setattr(fv, "render", lambda track, path, **options: path.write_bytes(b"mp4") and path)
    *_, drawn, last = page.draw_overlay("", request)
    assert "<video" in drawn[page.overlay_clip] and last[page.view]["status"] is None
    video.forget()
    (answer,) = page.draw_overlay("", request)
    assert "no video any more" in answer[page.message]


@pytest.mark.parametrize("kind", ["csv", "json", "npz"])
def test_a_motion_comes_back_from_a_file(page, tmp_path, monkeypatch, toy_model, kind):
    monkeypatch.setattr(motions, "average_head", lambda: result_of(toy_model, seed=5))
    monkeypatch.setattr(fv, "load_model", lambda *args: toy_model)
    path = track_of(toy_model).save(tmp_path / f"dance.{kind}")
    if kind == "json":
        monkeypatch.setattr(motions.fv, "load_track", lambda path, model=None, **given: track_of(toy_model))
    request = request_of()
    visit = page.visits.of("a visitor")
    moved, _ = page.take_motion({"path": str(path)}, request)
    assert f"dance.{kind}" in moved[page.motion_note] and not path.exists()
    assert visit.motion.track.subject is visit.head.fitted, "the average head moves"
    assert visit.stand_in == visit.head.person and page._person(visit) is None


def test_a_file_that_is_no_motion_is_explained(page, tmp_path):
    path = tmp_path / "dance.csv"
    path.write_text("one,two\n1,2\n")
    (answer,) = page.take_motion({"path": str(path)}, request_of(language="zh"))
    assert "dance.csv" in answer[page.message] and "动作" in answer[page.message] and not path.exists()
    assert page.visits.of("a visitor").head is None


def test_the_pack_of_a_motion_holds_its_rows(toy_model, folder):
    track = track_of(toy_model)
    motion = Motion.of(track, "clip.mp4", folder)
    pack = read_pack((folder / f"motion-{motion.shown['number']}.bin").read_bytes())
    rows = pack["rows"].reshape(pack["frames"], -1)
    assert pack["names"] == list(toy_model.expression_names)
    np.testing.assert_allclose(rows[:, 0], track.times_s, atol=1e-6)
    np.testing.assert_allclose(rows[:, 2:5], track.euler_deg(), atol=1e-4)
    frame = fv.TrackedFrame(0.2, 1.0, track.rotation[2], track.translation[2], track.expression[2], None, None)
    np.testing.assert_allclose(motion_row(frame), rows[2], atol=1e-4)


# -------------------------------------------------------------------------------------------------------------- cameras


class Follower:
    """A tracker that sees the mean shade of a frame as the mouth's opening."""

    made: list = []

    def __init__(self, model, identity):
        self.model, self.identity, self.frames, self.closed, self.calibrated = model, identity, 0, False, False
        Follower.made.append(self)

    def __call__(self, rgb, seconds):
        if not seconds > 0:
            raise fv.ParameterError("times must increase")
        self.frames += 1
        weights = np.zeros(len(self.model.expression_names), np.float32)
        weights[self.model.expression_names.index("jawOpen")] = rgb.mean() / 255
        return fv.TrackedFrame(seconds, 0.9, np.eye(3), np.float32([0, 0, -0.5]), weights, np.zeros(2), None)

    def calibrate(self):
        self.calibrated = True

    def clear(self):
        self.frames = 0

    def track(self):
        if not self.frames:
            raise fv.ParameterError("no face has been recorded yet; look into the camera first")
        return track_of(self.model, self.frames)

    def close(self):
        self.closed = True


@pytest.fixture
def live(toy_model):
    Follower.made = []
    return Live(2, lambda head: Follower(toy_model, head), idle_s=5)


@pytest.fixture
def client(live):
    return TestClient(Starlette(routes=live.routes()))


def jpeg(shade=128, size=(64, 48)):
    stream = io.BytesIO()
    Image.new("RGB", size, (shade,) * 3).save(stream, "JPEG")
    return stream.getvalue()


def test_a_frame_comes_back_as_a_row(live, client, toy_model):
    camera = live.open("somebody", lambda: True)
    answer = client.post(f"/live/{camera.token}?t=0.5", content=jpeg(204))
    row = np.frombuffer(answer.content, "<f4")
    assert answer.status_code == 200 and "dur=" in answer.headers["server-timing"]
    assert row[:2].tolist() == pytest.approx([0.5, 0.9])
    assert row[8 + toy_model.expression_names.index("jawOpen")] == pytest.approx(0.8, abs=0.01)
    assert Follower.made[0].identity == "somebody"
    assert client.post(f"/live/{camera.token}/calibrate").status_code == 204 and Follower.made[0].calibrated
    assert client.post(f"/live/{camera.token}/close").status_code == 204
    assert wait_for(lambda: len(live) == 0) and Follower.made[0].closed
    assert client.post(f"/live/{camera.token}?t=1", content=jpeg()).status_code == 410


@pytest.mark.parametrize(
    ("seconds", "content", "words"),
    [
        ("0.1", b"no picture", "no JPEG"),
        ("0.1", bytes(MAX_FRAME_BYTES + 1), "bytes"),
        ("0.1", jpeg(size=(2000, 20)), "pixels"),
        ("soon", jpeg(), "float"),
        ("nan", jpeg(), "increase"),
    ],
)
def test_other_frames_are_refused(live, client, seconds, content, words):
    camera = live.open(None, lambda: True)
    answer = client.post(f"/live/{camera.token}?t={seconds}", content=content)
    assert answer.status_code == 400 and words in answer.text
    assert client.post(f"/live/{camera.token}?t=1", content=jpeg()).status_code == 200, "the camera goes on"
    camera.close()


def test_faults_of_the_tracker_stay_on_the_server(live, client, monkeypatch, caplog):
    def broken(self, rgb, seconds):
        raise RuntimeError("a secret")

    monkeypatch.setattr(Follower, "__call__", broken)
    camera = live.open(None, lambda: True)
    answer = client.post(f"/live/{camera.token}?t=1", content=jpeg())
    assert answer.status_code == 500 and "secret" not in answer.text and "secret" in caplog.text
    camera.close()


def test_there_are_so_many_places(live):
    first, second = (live.open(None, lambda: True) for _ in range(2))
    with pytest.raises(fv.FaceVerseError, match="all 2 places for cameras") as caught:
        live.open(None, lambda: True)
    assert "2" in say(handlers.explain(caught.value), "zh")
    first.close()
    assert wait_for(lambda: len(live) == 1)
    live.open(None, lambda: True).close()
    second.close()
    assert wait_for(lambda: len(live) == 0)


def test_an_answer_that_nobody_waits_for_any_more_does_no_harm(live):
    camera, busy = live.open(None, lambda: True), threading.Event()
    blocked = camera._ask(lambda: busy.wait(5))
    given_up = camera.frame(jpeg(), 0.1)
    assert given_up.cancel()
    busy.set()
    assert blocked.result(5) and len(camera.frame(jpeg(), 0.2).result(5)) > 32
    camera.close()


def test_a_camera_without_frames_is_closed(toy_model):
    live = Live(1, lambda head: Follower(toy_model, head), idle_s=0.2)
    camera = live.open(None, lambda: True)
    camera.frame(jpeg(), 0.1).result(5)
    follower = Follower.made[-1]
    assert wait_for(lambda: len(live) == 0) and follower.closed
    with pytest.raises(Closed):
        camera.frame(jpeg(), 0.2).result(5)


def test_a_camera_leaves_with_its_visitor(live, tmp_path):
    visits = Visits(tmp_path)
    visit = visits.of("one")
    visit.camera = live.open(None, lambda: not visit.gone)
    visit.camera.frame(jpeg(), 0.1).result(5)
    visits.leave("one")
    assert wait_for(lambda: len(live) == 0) and Follower.made[0].closed


def test_only_recordings_are_kept(live):
    camera = live.open(None, lambda: True)
    with pytest.raises(fv.ParameterError, match="nothing has been recorded"):
        camera.recorded().result(5)
    for number in range(1, 303):
        camera.frame(jpeg(), number / 30).result(5)
    assert Follower.made[0].frames < 10, "forgotten from time to time"
    camera.record().result(5)
    for number in range(400, 403):
        camera.frame(jpeg(), number).result(5)
    assert len(camera.recorded().result(5)) == 3
    camera.close()


def test_a_recording_plays_on_the_stage(page, live, monkeypatch, toy_model):
    page.live = live
    monkeypatch.setattr(motions, "average_head", lambda: result_of(toy_model))
    request = request_of()
    visit = page.visits.of("a visitor")
    first, _ = page.answer_camera("stage", request, event_of(do="start"))
    film = first[page.view]["film"]
    assert film["address"] == f"live/{visit.camera.token}" and film["person"] == visit.head.person
    camera = visit.camera
    camera.frame(jpeg(), 0.1).result(5)
    assert Follower.made[0].identity is None, "the average head is nobody"
    camera.record().result(5)
    camera.frame(jpeg(), 0.2).result(5)
    (moved,) = page.answer_camera("stage", request, event_of(do="keep"))
    assert moved[page.view]["motion"]["number"] == visit.motion.shown["number"] and len(visit.motion.track) == 1
    assert visit.camera is None and wait_for(lambda: len(live) == 0)
    (failed,) = page.answer_camera("stage", request, event_of(do="keep"))
    assert "start it again" in failed[page.message]


def test_a_full_server_says_so_beside_the_camera(page, live):
    page.live = live
    live.most = 0
    (answer,) = page.answer_camera("stage", request_of(), event_of(do="start"))
    assert "places for cameras" in answer[page.view]["film"]["error"] and page.visits.of("a visitor").head is None


@pytest.mark.parametrize(("value", "count"), [(None, 2), ("5", 5), ("0", 0), ("-1", 0), ("many", 2)])
def test_places_for_cameras_are_the_owners_choice(monkeypatch, value, count):
    monkeypatch.delenv("FACEVERSE_LIVE", raising=False)
    if value is not None:
        monkeypatch.setenv("FACEVERSE_LIVE", value)
    assert hosting.live_cameras() == count


def test_photographs_have_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr(handlers, "MAX_PHOTO_BYTES", 10)
    path = tmp_path / "huge.jpg"
    path.write_bytes(bytes(100))
    with pytest.raises(fv.ImageError, match="huge.jpg has"):
        handlers.claim([path], tmp_path)
