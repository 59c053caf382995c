"""A video and a webcam that animate the head, in a real browser whose webcam shows a film."""

import numpy as np
import pytest
from test_browser import CHROMIUM, FLAGS, open_page, server  # noqa: F401 (a fixture)

cv2 = pytest.importorskip("cv2")
imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")

pytestmark = pytest.mark.browser

SIZE, FPS = (480, 360), 10
EYES_PX = (226, 110)  # middle of the astronaut's face
LEFT_DEG, RIGHT_DEG = 18.0, -6.0  # rolls of the clip; unlike, so that a wrong sign is seen


def film(path, rolls_deg, picture, *codec):
    """The astronaut, nearer and rolled counter-clockwise by so much in each frame."""
    arguments = {"fps": FPS, "codec": codec[0], "pix_fmt_out": codec[1], "output_params": list(codec[2:])}
    writer = imageio_ffmpeg.write_frames(str(path), SIZE, quality=None, macro_block_size=1, **arguments)
    writer.send(None)
    for roll in rolls_deg:
        move = cv2.getRotationMatrix2D(EYES_PX, roll, 1.4)
        move[:, 2] += np.array(SIZE) / 2 - EYES_PX
        writer.send(np.ascontiguousarray(cv2.warpAffine(picture, move, SIZE, borderMode=cv2.BORDER_REFLECT)))
    writer.close()
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A video that goes from one roll to the other, and a film for the camera that stays a while at each."""
    picture = pytest.importorskip("skimage.data").astronaut()
    folder = tmp_path_factory.mktemp("clips")
    way = np.linspace(LEFT_DEG, RIGHT_DEG, 16)
    stays = np.repeat([LEFT_DEG, RIGHT_DEG], 25)
    return (
        film(folder / "clip.mp4", way, picture, "libx264", "yuv420p"),
        film(folder / "camera.mjpeg", stays, picture, "mjpeg", "yuvj420p", "-q:v", "4", "-f", "mjpeg"),
    )


@pytest.fixture(scope="module")
def webcam_browser(clips):
    """A browser whose camera shows the film."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    camera += [f"--use-file-for-fake-video-capture={clips[1]}"]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS + camera)
        yield started
        started.close()


def test_the_head_moves_with_a_video_and_with_a_camera(webcam_browser, server, clips):  # noqa: F811
    size = {"width": 820, "height": 640}
    with open_page(webcam_browser, server[0], size, reduced_motion="no-preference") as page:
        page.get_by_role("tab", name="Video", exact=True).click()
        page.set_input_files("#fv-video-upload input[type=file]", clips[0])
        page.wait_for_selector(".fv-player:not([hidden])", timeout=120_000)
        page.click("[data-play]")  # it plays by itself: this halts it
        roll = "window.faceverse.state().pose.roll"
        place = "(share) => { const bar = document.querySelector('[data-scrub]'); bar.value = share * bar.max;"
        place += " bar.dispatchEvent(new Event('input')); return " + roll + "; }"
        assert page.evaluate(place, 0) == pytest.approx(LEFT_DEG, abs=6)
        assert page.evaluate(place, 1) == pytest.approx(RIGHT_DEG, abs=6)
        assert page.evaluate("window.faceverse.state().expression.mouthSmileLeft") > 0.2
        slider = "document.querySelector('input[data-pose=roll]').value"
        assert float(page.evaluate(slider)) == pytest.approx(page.evaluate(roll), abs=1), "sliders show the frame"
        with page.expect_download() as download:
            page.click("#fv-motion-csv")
        assert download.value.suggested_filename == "motion.csv"
        page.click("[data-leave]")
        page.wait_for_function(f"() => {roll} === 0")

        page.click("#fv-open-webcam")
        page.wait_for_selector('.fv-webcam[data-state="tracked"]')
        page.wait_for_function(f"() => {roll} > {0.6 * LEFT_DEG}")
        page.wait_for_function(f"() => {roll} < {0.3 * RIGHT_DEG} && {roll} > {2.5 * RIGHT_DEG}")
        page.click("[data-record]")
        page.wait_for_timeout(1500)
        page.click("[data-record]")
        page.wait_for_selector(".fv-player:not([hidden])")
        assert "camera" in page.inner_text("#fv-motion-note")
        assert not page.is_visible(".fv-webcam")
