"""The web page in a real browser: Debian's Chromium driven by Playwright, against a server of its own."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest
import trimesh
from PIL import Image

import faceverse as fv

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
FIT_MS = 240_000
PHOTO_INPUT = "#fv-photo input[type=file]"


@pytest.fixture(scope="module")
def server(root, tmp_path_factory):
    """Address of app.py in a process of its own, and the folder of its files."""
    folder = tmp_path_factory.mktemp("gradio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder),
        "FACEVERSE_WARM_UP": "0",  # a fit that nobody waits for
    }
    log = folder / "server.log"
    with open(log, "wb") as output:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=root, env=environment, stdout=output, stderr=output)
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_for_first_byte(address, process, log)
        yield address, folder
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def wait_for_first_byte(address, process, log, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5).read(1)
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no answer from the app:\n{log.read_text()}")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(data.astronaut()).save(folder / "astronaut.jpg", quality=95)
    Image.fromarray(data.coffee()).save(folder / "coffee.jpg")
    face = data.astronaut()[0:300, 100:350]
    Image.fromarray(np.hstack([face, face[:, ::-1]])).save(folder / "twins.png")
    (folder / "diary.jpg").write_text("dear diary, this is not a picture")
    return folder


@contextmanager
def open_page(browser, address, size=DESKTOP, theme="light", language="en-GB", **options):
    """A page of a new visitor, ready for a photograph; at the end nothing may have gone wrong in it."""
    options.setdefault("reduced_motion", "reduce")  # transitions are drawn in software here
    context = browser.new_context(
        viewport=size, color_scheme=theme, accept_downloads=True, locale=language, **options
    )
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.requests, page.errors = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("response", lambda answer: page.errors.append(answer.url) if answer.status >= 500 else None)
    try:
        page.goto(address)
        page.wait_for_selector(PHOTO_INPUT, state="attached")
        page.wait_for_selector(".fv-viewport")
        yield page
        assert page.errors == []
        hosts = {urlsplit(url).netloc for url in page.requests if not url.startswith(("data:", "blob:"))}
        assert hosts == {urlsplit(address).netloc}, "the page talks to its own server only"
    finally:
        context.close()


def wait_for_head(page):
    """The head is there, with its detail or before it."""
    page.wait_for_selector('.fv-viewport:is([data-state="ready"], [data-state="refining"])[data-drawn]', timeout=FIT_MS)


def wait_for_end(page):
    """The head is there with its detail, if it has some, and so are the pictures of it: nothing more is to come."""
    page.wait_for_selector('.fv-viewport[data-state="ready"][data-drawn]', timeout=FIT_MS)
    times = 2 if any("/normal-" in url for url in page.requests) else 1
    end = time.monotonic() + FIT_MS / 1000
    while len({url for url in page.requests if "/stage-final-" in url}) < times and time.monotonic() < end:
        page.wait_for_timeout(100)
    page.wait_for_timeout(500)


def open_tab(page, name):
    page.click(f"[data-tab={name}]")


def range_of(page, name):
    """The slider of an expression, an attribute or another part of the state."""
    places = ("names~=", "attribute=", "pose=", "light=", "mix=")
    found = page.locator(", ".join(f'input[data-{place}"{name}"]' for place in places))
    return found.locator("visible=true").first


def canvas_pixels(page):
    """(H, W, 3) int of the 3D view as it is on the screen."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    picture = page.locator(".fv-viewport").screenshot()
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), int)


def changed_pixels(before, after):
    return int((np.abs(after - before).max(axis=-1) > 24).sum())


CONTRASTS = """() => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, k) => sum + [0.2126, 0.7152, 0.0722][k] * v, 0.05);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!["rgba(0, 0, 0, 0)", "transparent"].includes(colour)) return colour;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  const ratio = (a, b) => Math.max(light(a), light(b)) / Math.min(light(a), light(b));
  const ratios = (selector, property) => [...document.querySelectorAll(selector)].filter((node) => node.offsetParent)
    .map((node) => ratio(getComputedStyle(node)[property], behind(node.parentElement)));
  return { boxes: ratios("input:is([type=checkbox], [type=radio])", "borderTopColor"),
    tabs: ratios("[role=tab][aria-selected=true]", "color") };
}"""
SMALL_TARGETS = """() => [...document.querySelectorAll("#fv-columns button")].filter((button) => button.offsetParent)
  .map((button) => [button, button.getBoundingClientRect()])
  .filter(([button, { width, height }]) => width > 0 && getComputedStyle(button).visibility !== "hidden"
    && (height < 44 || width < 44) && !button.closest(".tab-container, .overflow-menu"))
  .map(([button, { width, height }]) => `${button.outerHTML.slice(0, 120)} ${width} x ${height}`)"""


def check_contrasts(page):
    """Boxes have a contrast of 3:1, the chosen tabs one of 4.5:1, as WCAG asks."""
    found = page.evaluate(CONTRASTS)
    assert len(found["boxes"]) >= 2 and min(found["boxes"]) >= 3, found
    assert len(found["tabs"]) >= 3 and min(found["tabs"]) >= 4.5, found


def drag(page, slider, fraction):
    """Moves the handle of a slider to a fraction of its width."""
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.1 * box["width"], y)
    page.mouse.down()
    for part in np.linspace(0.1, fraction, 6):
        page.mouse.move(box["x"] + part * box["width"], y)
    page.mouse.up()


@pytest.fixture(scope="module")
def fitted(browser, server, photos):
    """The page of a visitor who has uploaded the astronaut's photograph."""
    with open_page(browser, server[0]) as page:
        page.set_input_files(PHOTO_INPUT, photos / "astronaut.jpg")
        page.wait_for_selector('.fv-viewport[data-state="busy"] .fv-bar', timeout=FIT_MS)
        wait_for_end(page)
        yield page


def test_a_photograph_becomes_a_head_in_skin_colours(fitted):
    pixels = canvas_pixels(fitted)
    height, width, _ = pixels.shape
    middle = pixels[int(0.3 * height) : int(0.6 * height), int(0.45 * width) : int(0.55 * width)]
    assert middle.std(axis=(0, 1)).max() > 8, "a face has features"
    assert middle[..., 0].mean() > middle[..., 2].mean() + 15, "skin is redder than blue"
    corner = pixels[20:80, 20:80].reshape(-1, 3)
    assert np.ptp(corner, axis=0).max() < 30, "the background is even"
    assert "Done in" in fitted.inner_text("#fv-report")


def test_pictures_of_the_fit_are_shown(fitted):
    fitted.wait_for_selector("#fv-overlay img")
    for tab, selector, least in (("Stages", "#fv-stages img", 4), ("Maps", "#fv-maps img", 2)):
        fitted.get_by_role("tab", name=tab, exact=True).click()
        fitted.wait_for_function(
            f"() => [...document.querySelectorAll('{selector}')].filter((i) => i.naturalWidth > 0).length >= {least}"
        )
    fitted.get_by_role("tab", name="Losses").click()
    fitted.wait_for_selector("#fv-losses .js-plotly-plot")
    fitted.get_by_role("tab", name="Estimates").click()
    assert fitted.locator("#fv-about dt").count() == 38
    fitted.get_by_role("tab", name="Photograph and head").click()


def test_expression_slider_moves_the_head_without_a_request(fitted):
    before = canvas_pixels(fitted)
    requests = len(fitted.requests)
    drag(fitted, range_of(fitted, "jawOpen"), 0.9)
    fitted.wait_for_timeout(300)
    assert fitted.requests[requests:] == []
    assert changed_pixels(before, canvas_pixels(fitted)) > 1000, "the mouth opens"
    fitted.click("[data-undo]")
    fitted.wait_for_timeout(300)
    assert changed_pixels(before, canvas_pixels(fitted)) < 200, "and closes again"


def test_strength_slider_moves_the_displacement_without_a_request(fitted):
    open_tab(fitted, "skin")
    slider = fitted.locator("input[data-strength]")
    if slider.is_disabled():
        pytest.skip("there are no open detail weights")
    fitted.click("[data-clay]")
    before = canvas_pixels(fitted)
    requests = len(fitted.requests)
    drag(fitted, slider, 0.98)
    fitted.wait_for_timeout(300)
    assert fitted.requests[requests:] == []
    assert (np.abs(canvas_pixels(fitted) - before).max(axis=-1) > 3).sum() > 200, "clay shows more displacement"
    fitted.click("[data-clay]")


def test_dragging_turns_the_head_and_an_edit_keeps_the_view(fitted):
    front = canvas_pixels(fitted)
    box = fitted.locator(".fv-canvas").bounding_box()
    fitted.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    fitted.mouse.down()
    fitted.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.5 * box["height"], steps=4)
    fitted.mouse.up()
    turned = canvas_pixels(fitted)
    assert changed_pixels(front, turned) > 5000
    open_tab(fitted, "shape")
    with fitted.expect_response(lambda response: "head-" in response.url, timeout=FIT_MS):
        drag(fitted, range_of(fitted, "age"), 0.95)
    fitted.wait_for_timeout(1500)
    older = canvas_pixels(fitted)
    assert 200 < changed_pixels(turned, older) < changed_pixels(front, older), "older, seen from the same side"


def test_the_view_moves_and_comes_back_to_the_front(fitted):
    fitted.click('.fv-tools [data-yaw="0"]')
    front = canvas_pixels(fitted)
    box = fitted.locator(".fv-canvas").bounding_box()
    middle = box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"]
    fitted.mouse.move(*middle)
    fitted.mouse.down(button="right")
    fitted.mouse.move(middle[0] + 60, middle[1], steps=2)
    fitted.mouse.up(button="right")
    moved = canvas_pixels(fitted)
    inner = slice(int(0.3 * front.shape[0]), int(0.7 * front.shape[0])), slice(300, -300)
    assert np.abs(np.roll(front, 60, axis=1) - moved)[inner].mean() < 0.5 * np.abs(front - moved)[inner].mean()
    fitted.mouse.wheel(0, -600)
    fitted.click('.fv-tools [data-yaw="0"]')
    assert changed_pixels(front, canvas_pixels(fitted)) < 200, "not turned, not moved, not zoomed"


def test_boxes_and_tabs_are_visible_and_values_have_units(fitted):
    open_tab(fitted, "expression")
    check_contrasts(fitted)
    assert fitted.locator('.fv-slider:has([data-names="jawOpen"]) output').inner_text().endswith("%")
    fitted.evaluate("document.querySelector('.fv-panels').scrollTop = 400")
    open_tab(fitted, "shape")
    assert fitted.evaluate("document.querySelector('.fv-panels').scrollTop") == 0


def test_downloaded_glb_opens_and_has_its_expressions(fitted, tmp_path):
    with fitted.expect_download(timeout=60_000) as download:
        fitted.click("#fv-download-glb")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    mesh = trimesh.load(path, force="mesh")
    assert 0.2 < mesh.extents[1] < 0.4, "metres"
    assert mesh.visual.uv is not None
    assert b'"jawOpen"' in path.read_bytes()
    assert "MB" in fitted.inner_text("#fv-saved")
    fitted.evaluate("window.faceverse.setExpression('jawOpen', 0.3)")
    assert not fitted.is_visible("#fv-saved"), "the link is of an earlier state"
    fitted.click("[data-undo]")


def test_a_random_face_is_drawn_and_taken_back(fitted):
    open_tab(fitted, "shape")
    before = fitted.evaluate("window.faceverse.state().attributes")
    fitted.click('[data-dice="nose"]')
    names = list(fv.ATTRIBUTE_REGIONS["nose"])
    fitted.wait_for_function("(names) => names.some((n) => window.faceverse.state().attributes[n])", arg=names)
    after = fitted.evaluate("window.faceverse.state().attributes")
    assert {name for name in after if after[name] != before.get(name)} <= set(fv.ATTRIBUTE_REGIONS["nose"])
    fitted.click("[data-undo]")
    assert fitted.evaluate("window.faceverse.state().attributes") == before


def changes(page, before, count, seconds=60):
    """Whether the picture comes to differ from `before` in more than `count` pixels within a while."""
    end = time.monotonic() + seconds
    while changed_pixels(before, canvas_pixels(page)) <= count:
        if time.monotonic() > end:
            return False
        page.wait_for_timeout(250)
    return True


def test_a_saved_head_comes_back(fitted, browser, server, tmp_path):
    with fitted.expect_download(timeout=60_000) as download:
        fitted.click("#fv-download-json")
    path = tmp_path / "me.json"
    download.value.save_as(path)
    state = fitted.evaluate("window.faceverse.state()")
    with open_page(browser, server[0]) as page:
        with page.expect_file_chooser() as chooser:
            page.click("#fv-open")
        chooser.value.set_files(path)
        wait_for_head(page)
        page.get_by_role("tab", name="Stages", exact=True).click()
        page.wait_for_selector("#fv-stages img")
        assert page.evaluate("window.faceverse.state().expression.jawOpen") == pytest.approx(
            state["expression"]["jawOpen"], abs=1e-3
        )
        page.get_by_role("tab", name="Another person").click()
        page.click("#fv-random-donor")
        page.wait_for_selector("[data-tab=mix]")
        before = canvas_pixels(page)
        open_tab(page, "mix")
        with page.expect_response(lambda response: "head-" in response.url, timeout=FIT_MS):
            drag(page, range_of(page, "identity"), 0.95)
        # The first answers may be for where the hand was on its way.
        assert changes(page, before, 500), "somebody else's shape"
        page.check("#fv-keep input")
        page.wait_for_function("() => sessionStorage.getItem('faceverse-visit')")
        page.evaluate("window.faceverse.setExpression('jawOpen', 0.77)")
        page.reload()
        wait_for_head(page)
        page.wait_for_function("() => window.faceverse.state().expression.jawOpen === 0.77")
        assert page.is_checked("#fv-keep input") and page.is_visible("#fv-results")
        page.errors[:] = [text for text in page.errors if "abort" not in text and "Connection errored" not in text]


def test_a_face_is_chosen_by_a_click(browser, server, photos):
    with open_page(browser, server[0]) as page:
        page.set_input_files(PHOTO_INPUT, photos / "twins.png")
        page.wait_for_selector("[data-face='1']", timeout=FIT_MS)
        assert page.locator("[data-face]").count() == 2
        page.click("[data-face='1']")
        page.wait_for_selector('.fv-viewport[data-state="busy"]')
        wait_for_head(page)


def test_without_webgl_there_are_pictures(browser, server, photos):
    flags = ["--no-sandbox", "--disable-gpu", "--disable-3d-apis"]
    blind = browser.browser_type.launch(executable_path=CHROMIUM, args=flags)
    try:
        page = blind.new_page()
        page.goto(server[0])
        page.wait_for_selector(PHOTO_INPUT, state="attached")
        page.set_input_files(PHOTO_INPUT, photos / "astronaut.jpg")
        page.wait_for_selector("#fv-fallback img", timeout=FIT_MS)
        assert page.is_visible(".fv-failed") and page.is_visible("#fv-download-glb")
    finally:
        blind.close()


def test_chinese_visitors_read_chinese(browser, server, photos):
    with open_page(browser, server[0], language="zh-CN") as page:
        assert "照片" in page.inner_text("#fv-input")
        page.set_input_files(PHOTO_INPUT, photos / "coffee.jpg")
        assert "人脸" in page.inner_text("#fv-message .fv-error")


def test_a_second_visitor_sees_nothing_of_the_first(fitted, browser, server):
    with open_page(browser, server[0]) as page:
        page.wait_for_timeout(500)
        assert page.get_attribute(".fv-viewport", "data-state") == "empty"
        assert not page.is_visible("#fv-results")


def test_photographs_without_a_face_and_no_photographs_are_explained(browser, server, photos):
    with open_page(browser, server[0]) as page:
        page.set_input_files(PHOTO_INPUT, photos / "coffee.jpg")
        assert "No face was found" in page.inner_text("#fv-message .fv-error")
        assert page.get_attribute(".fv-viewport", "data-state") == "empty"
        assert "Traceback" not in page.content()
    with open_page(browser, server[0]) as page:
        page.set_input_files(PHOTO_INPUT, photos / "diary.jpg")
        assert page.inner_text("#fv-message .fv-error").startswith("diary.jpg is not a picture")


def test_phone_and_dark_theme_cancel_and_leave(browser, server):
    address, folder = server

    def visitors():
        return {path.parent for path in (folder / "faceverse").glob("*/head-*.bin")}

    others = visitors()
    with open_page(browser, address, PHONE, "dark", has_touch=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.click("[data-sample='0']")
        page.click("#fv-cancel")
        page.wait_for_selector('.fv-viewport[data-state="empty"]', state="attached")
        page.click("[data-sample='0']")
        wait_for_head(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        top = "document.querySelector('.fv-viewport').getBoundingClientRect().top"
        page.wait_for_function(f"() => {top} < 0.6 * window.innerHeight")  # the head comes into sight
        page.wait_for_selector("#fv-downloads")
        check_contrasts(page)
        assert page.evaluate(SMALL_TARGETS) == [], "a finger needs 44 pixels"
        bottom = page.locator("#fv-download-glb").bounding_box()
        assert bottom["y"] + bottom["height"] <= PHONE["height"], "what is saved is at hand"
        dark = canvas_pixels(page)[20:60, 20:60].mean()
        assert dark < 110
        own = visitors() - others
        assert own
    end = time.monotonic() + 40
    while any(place.exists() for place in own) and time.monotonic() < end:
        time.sleep(0.5)
    assert not any(place.exists() for place in own), "the files of a session are deleted with it"
