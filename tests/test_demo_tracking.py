"""Videos, motions and webcams of the web page without a browser; trackers and encoders are replaced by fakes."""

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
fit_jobs = pytest.importorskip("demo.fit_jobs")
from starlette.applications import Starlette  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from demo import hosting, pictures, tracking_jobs  # noqa: E402
from demo.heads import EditableHead  # noqa: E402
from demo.job_queue import JobQueue  # noqa: E402
from demo.session_states import Event  # noqa: E402
from demo.sessions import Sessions  # noqa: E402
from demo.tracking_jobs import Motion, TrackingJob, UploadedVideo  # noqa: E402
from demo.view_files import motion_row  # noqa: E402
from demo.webcam import MAX_FRAME_BYTES, Closed, WebcamStreams, decode_frame  # noqa: E402
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
    return Page(Sessions(tmp_path / "sessions"), detail=False)


def endless(*args, on_progress, **options):
    while True:
        on_progress("tracking", 0.5, None)
        time.sleep(0.005)


def take(page, upload, request, whose="current"):
    return page.tracking.take_video({"path": str(upload)}, whose, "fast", request)


# ----------------------------------------------------------------------------------------------------------- the videos


def test_a_video_moves_into_the_sessions_folder(upload, folder):
    video = tracking_jobs.claim(upload, folder, show_s=0)
    assert video.frames == FRAMES and folder in video.path.parents and video.path.name == "clip.mp4"
    assert wait_for(lambda: not upload.exists())
    other = write_video(upload, 3)
    assert tracking_jobs.claim(other, folder).frames == 3 and not video.path.exists(), "one at a time"


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
        tracking_jobs.claim(path, folder)
    assert re.search("[\u4e00-\u9fff]", fit_jobs.explain(caught.value, "zh"))
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("limit", "value"), [("MAX_VIDEO_S", -1), ("MAX_VIDEO_BYTES", 100), ("MAX_VIDEO_PX", 50)])
def test_long_and_large_videos_are_refused(upload, folder, monkeypatch, limit, value):
    monkeypatch.setattr(tracking_jobs, limit, value)
    with pytest.raises(fv.ImageError, match="clip.mp4 (is|has) .* more than .*; (cut|film)") as caught:
        tracking_jobs.claim(upload, folder)
    assert "clip.mp4" in fit_jobs.explain(caught.value, "zh") != fit_jobs.explain(caught.value)
    assert not list(folder.iterdir())


def test_tracking_reports_progress(upload, folder, monkeypatch, toy_model):
    asked = []

    def track(path, identity, quality, on_progress):
        asked.append((path, identity, quality))
        for number in range(FRAMES):
            on_progress("tracking", (number + 1) / FRAMES, None)
        return track_of(toy_model)

    monkeypatch.setattr(fv, "track", track)
    video = tracking_jobs.claim(upload, folder)
    *steps, found = tracking_jobs.track_video(TrackingJob(video, "somebody", quality="high"))
    assert asked == [(video.path, "somebody", "high")] and len(found) == FRAMES
    assert "1 of 5 frames" in steps[0].text and steps[-1].fraction == 1
    for step in steps:
        assert re.search("[\u4e00-\u9fff]", say(step.text, "zh"))


def test_tracking_stops_when_it_is_cancelled(upload, folder, monkeypatch):
    monkeypatch.setattr(fv, "track", endless)
    wanted = [True]
    run = tracking_jobs.track_video(TrackingJob(tracking_jobs.claim(upload, folder)), lambda: wanted[0])
    next(run)
    wanted[0] = False
    with pytest.raises(fit_jobs.Stopped):
        list(run)


def test_a_video_of_unknown_length_has_an_end(folder, monkeypatch):
    monkeypatch.setattr(fv, "track", endless)
    monkeypatch.setattr(tracking_jobs, "MAX_VIDEO_S", 0.1)
    with pytest.raises(fv.ImageError, match="longer than"):
        list(tracking_jobs.track_video(TrackingJob(UploadedVideo(folder / "video" / "clip.webm", None))))


def test_fits_do_not_wait_for_videos():
    queue, order = JobQueue(), []
    with queue.enter(is_deferred=True) as video:
        assert not video.blocks_first_run

        def fit():
            with queue.enter() as entry:
                entry.wait()
                order.append("fit")

        other = threading.Thread(target=fit)
        other.start()
        assert wait_for(lambda: video.blocks_first_run)
        video.defer()
        order.append("video")
        assert not video.blocks_first_run
        other.join()
    assert order == ["fit", "video"]
    with queue.enter(), queue.enter(is_deferred=True) as video, queue.enter() as first:
        assert first.ahead == 1 and video.ahead == 2, "a later first run passes"


# ------------------------------------------------------------------------------------------------------------- the page


def test_a_tracked_video_animates_the_head(page, upload, monkeypatch, toy_model):
    asked = []

    def track(path, identity, **options):
        asked.append(identity)
        return track_of(toy_model)

    monkeypatch.setattr(fv, "track", track)
    request = request_of()
    session = page.sessions.of("a visitor")
    session.head = head = EditableHead.of(result_of(toy_model), 7)
    assert take(page, upload, request)[page.layout.view]["status"]["text"]
    *_, moved = page.tracking.track(request)
    assert asked == [head.fitted] and session.head is head, "the head is the visitor's own"
    assert moved[page.layout.view]["motion"]["number"] and moved[page.layout.view]["status"] is None
    assert "clip.mp4" in moved[page.layout.motion_note] and "5 frames" in moved[page.layout.motion_note]
    state = '{"attributes": {}, "expression": {"jawOpen": 0.4}}'
    for kind in fv.TRACK_FORMATS:
        assert f"motion.{kind}" in page.tracking.motion_download_handler(kind)(state, request), kind
    again = fv.load_track(session.folder / "motion.npz", toy_model)
    np.testing.assert_allclose(again.expression, session.motion.track.expression)
    assert (session.folder / "motion.glb").read_bytes()[:4] == b"glTF"
    page.tracking.track_again("other", "fast", request)
    list(page.tracking.track(request))
    assert asked[-1] is None and session.head is head and session.motion, "the head moves like another person"
    page.tracking.track_again("video", "fast", request)
    *_, moved, pictured = page.tracking.track(request)
    assert asked[-1] is None and session.head is not head, "somebody else was found"
    assert moved[page.layout.view]["person"] == session.head.person
    folder = session.folder
    page.close_session(request)
    assert not folder.exists() and session.motion is None


def test_the_person_of_a_sample_is_not_the_visitor(page, upload, monkeypatch, toy_model):
    asked = []
    monkeypatch.setattr(fv, "detect", lambda image: [face_at(0, 100)])
    monkeypatch.setattr(fv, "fit", lambda image, **options: result_of(toy_model))
    monkeypatch.setattr(fv, "track", lambda path, identity, **options: asked.append(identity) or track_of(toy_model))
    request = request_of()
    session = page.sessions.of("a visitor")
    page.fits.take_sample(request, event_of(index=0))
    list(page.fits.fit(request))
    head = session.head
    take(page, upload, request)
    list(page.tracking.track(request))
    assert asked == [None] and session.head is head and session.motion


def test_a_cancelled_video_leaves_nothing(page, upload, monkeypatch):
    monkeypatch.setattr(fv, "track", endless)
    monkeypatch.setattr(fit_jobs, "delete_later", lambda path, seconds: path.unlink(missing_ok=True))
    request = request_of()
    session = page.sessions.of("a visitor")
    take(page, upload, request)
    run = page.tracking.track(request)
    assert "frames" in next(run)[page.layout.view]["status"]["text"]
    assert page.tracking.cancel_tracking(request)[page.layout.view]["status"] is None
    list(run)
    assert wait_for(lambda: not page.services.queue.entries)
    assert [path for path in session.folder.rglob("*") if path.is_file()] == []
    assert page.tracking.track_again("current", "fast", request)[page.layout.message]


@pytest.mark.parametrize(("language", "words"), [("en", "No face was found"), ("zh-CN", "人脸")])
def test_a_video_without_a_face_is_explained(page, upload, language, words):
    request = request_of(language=language)
    take(page, upload, request)
    *_, last = page.tracking.track(request)
    assert words in last[page.layout.message] and "fv-error" in last[page.layout.message]
    assert last[page.layout.view]["status"] is None
    assert not list(page.sessions.of("a visitor").folder.glob("video-*"))


def test_a_head_on_its_way_is_not_disturbed(page, upload):
    request = request_of()
    session = page.sessions.of("a visitor")
    page.fits.take_sample(request, event_of(index=0))
    session.apply(Event.BASE_HEAD, text="Estimating the skin detail", fraction=0.5)
    run = session.run_id
    assert "One thing after the other" in take(page, upload, request)[page.layout.message]
    assert session.run_id == run and not list(session.folder.glob("video-*"))


def test_a_new_head_ends_the_motion(page, upload, monkeypatch, toy_model):
    request = request_of()
    session = page.sessions.of("a visitor")
    session.head = EditableHead.of(result_of(toy_model), 7)
    video = tracking_jobs.claim(upload, session.folder)
    page.services.set_motion(session, Motion.of(track_of(toy_model), "clip.mp4", session.folder, video))
    monkeypatch.setattr(fv, "detect", lambda image: [face_at(0, 100)])
    monkeypatch.setattr(fv, "fit", lambda image, **options: result_of(toy_model))
    page.fits.take_sample(request, event_of(index=0))
    answers = list(page.fits.fit(request))
    assert any(answer.get(page.layout.view, {}).get("head") for answer in answers)
    assert session.motion is None and session.view["motion"] is None and not video.path.exists()


def test_a_cancelled_overlay_leaves_no_file(page, upload, monkeypatch, toy_model):
    request = request_of()
    session = page.sessions.of("a visitor")
    session.head = EditableHead.of(result_of(toy_model), 7)
    video = tracking_jobs.claim(upload, session.folder)
    page.services.set_motion(session, Motion.of(track_of(toy_model), "clip.mp4", session.folder, video))
    monkeypatch.setattr(fv, "render", endless)
    run = page.tracking.draw_overlay("", request)
    next(run)
    assert "%" in next(run)[page.layout.view]["status"]["text"]
    page.tracking.cancel_tracking(request)
    list(run)
    assert not list(session.folder.glob("overlay*")) and video.path.exists(), "it may be asked for again"
    monkeypatch.setattr(fv, "render", lambda track, path, **options: path.write_bytes(b"mp4") and path)
    *_, drawn, last = page.tracking.draw_overlay("", request)
    assert "<video" in drawn[page.layout.overlay_video] and last[page.layout.view]["status"] is None
    video.delete()
    (answer,) = page.tracking.draw_overlay("", request)
    assert "no video any more" in answer[page.layout.message]


@pytest.mark.parametrize("kind", ["csv", "json", "npz"])
def test_a_motion_comes_back_from_a_file(page, tmp_path, monkeypatch, toy_model, kind):
    monkeypatch.setattr(tracking_jobs, "average_head", lambda: result_of(toy_model, seed=5))
    monkeypatch.setattr(fv, "load_model", lambda *args: toy_model)
    path = track_of(toy_model).save(tmp_path / f"dance.{kind}")
    if kind == "json":
        monkeypatch.setattr(tracking_jobs.fv, "load_track", lambda path, model=None, **given: track_of(toy_model))
    request = request_of()
    session = page.sessions.of("a visitor")
    moved, _ = page.tracking.take_motion({"path": str(path)}, request)
    assert f"dance.{kind}" in moved[page.layout.motion_note] and not path.exists()
    assert session.motion.track.subject is session.head.fitted, "the average head moves"
    assert session.average_person == session.head.person and page.tracking.visitor_head(session) is None


def test_a_file_that_is_no_motion_is_explained(page, tmp_path):
    path = tmp_path / "dance.csv"
    path.write_text("one,two\n1,2\n")
    (answer,) = page.tracking.take_motion({"path": str(path)}, request_of(language="zh"))
    assert "dance.csv" in answer[page.layout.message] and "动作" in answer[page.layout.message] and not path.exists()
    assert page.sessions.of("a visitor").head is None


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
    return WebcamStreams(2, lambda head: Follower(toy_model, head), idle_s=60)


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


def with_size(content, size):
    """The frame with another height and width in its header."""
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + size + content[place + 4 :]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda content: content[:200], "webcam.no_jpeg"),
        (lambda content: b"\xff\xd8\xff\xe0\x00\x10", "webcam.no_jpeg"),
        (lambda content: with_size(content, b"\x08\x00\x08\x00"), "webcam.wide_frame"),
        # Pillow refuses a picture of 4 gigapixels by an exception of its own.
        (lambda content: with_size(content, b"\xff\xff\xff\xff"), "webcam.no_jpeg"),
    ],
)
def test_damaged_frames_are_one_sentence(change, code):
    assert decode_frame(jpeg()).shape[2] == 3
    with pytest.raises(fv.ImageError) as caught:
        decode_frame(change(jpeg()))
    assert caught.value.code == code


def test_the_number_of_streams_is_limited(live):
    first, second = (live.open(None, lambda: True) for _ in range(2))
    with pytest.raises(fv.FaceVerseError, match="all 2 places for cameras") as caught:
        live.open(None, lambda: True)
    assert "2" in fit_jobs.explain(caught.value, "zh")
    first.close()
    assert wait_for(lambda: len(live) == 1)
    live.open(None, lambda: True).close()
    second.close()
    assert wait_for(lambda: len(live) == 0)


def test_a_cancelled_request_does_no_harm(live, monkeypatch):
    started, go_on, track_frame = threading.Event(), threading.Event(), Follower.__call__

    def slow(self, rgb, seconds):
        started.set()
        go_on.wait(5)
        return track_frame(self, rgb, seconds)

    monkeypatch.setattr(Follower, "__call__", slow)
    stream = live.open(None, lambda: True)
    first = stream.frame(jpeg(), 0.1)
    assert started.wait(5)
    cancelled = stream.frame(jpeg(), 0.2)
    assert cancelled.cancel()
    go_on.set()
    assert len(first.result(5)) > 32 and len(stream.frame(jpeg(), 0.3).result(5)) > 32
    assert Follower.made[0].frames == 2, "the cancelled frame was not tracked"
    stream.close()


def test_a_camera_without_frames_is_closed(toy_model):
    live = WebcamStreams(1, lambda head: Follower(toy_model, head), idle_s=0.2)
    camera = live.open(None, lambda: True)
    camera.frame(jpeg(), 0.1).result(5)
    follower = Follower.made[-1]
    assert wait_for(lambda: len(live) == 0) and follower.closed
    with pytest.raises(Closed):
        camera.frame(jpeg(), 0.2).result(5)


def test_a_stream_is_closed_with_its_session(live, tmp_path):
    sessions = Sessions(tmp_path)
    session = sessions.of("one")
    session.webcam = live.open(None, lambda: not session.closed)
    session.webcam.frame(jpeg(), 0.1).result(5)
    sessions.close("one")
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


def test_a_recording_animates_the_head(page, live, monkeypatch, toy_model):
    page.filming.webcams = live
    monkeypatch.setattr(tracking_jobs, "average_head", lambda: result_of(toy_model))
    request = request_of()
    session = page.sessions.of("a visitor")
    first, _ = page.filming.answer_webcam("current", request, event_of(do="start"))
    webcam = first[page.layout.view]["webcam"]
    assert webcam["address"] == f"live/{session.webcam.token}" and webcam["person"] == session.head.person
    camera = session.webcam
    camera.frame(jpeg(), 0.1).result(5)
    assert Follower.made[0].identity is None, "the average head is nobody"
    camera.record().result(5)
    camera.frame(jpeg(), 0.2).result(5)
    (moved,) = page.filming.answer_webcam("current", request, event_of(do="keep"))
    assert (
        moved[page.layout.view]["motion"]["number"] == session.motion.shown["number"] and len(session.motion.track) == 1
    )
    assert session.webcam is None and wait_for(lambda: len(live) == 0)
    (failed,) = page.filming.answer_webcam("current", request, event_of(do="keep"))
    assert "start it again" in failed[page.layout.message]


def test_a_full_server_says_so_beside_the_camera(page, live):
    page.filming.webcams = live
    live.limit = 0
    (answer,) = page.filming.answer_webcam("current", request_of(), event_of(do="start"))
    assert (
        "places for cameras" in answer[page.layout.view]["webcam"]["error"]
        and page.sessions.of("a visitor").head is None
    )


@pytest.mark.parametrize(("value", "count"), [(None, 2), ("5", 5), ("0", 0), ("-1", 0), ("many", 2)])
def test_the_limit_of_streams_is_an_environment_variable(monkeypatch, value, count):
    monkeypatch.delenv("FACEVERSE_LIVE", raising=False)
    if value is not None:
        monkeypatch.setenv("FACEVERSE_LIVE", value)
    assert hosting.webcam_limit() == count


def test_photographs_have_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_jobs, "MAX_PHOTO_BYTES", 10)
    path = tmp_path / "huge.jpg"
    path.write_bytes(bytes(100))
    with pytest.raises(fv.ImageError, match="huge.jpg has"):
        fit_jobs.claim([path], tmp_path)
