"""Draws the pictures of the web page that README shows, with Chromium: page.png, phone.png, page.webp.

Run: python benchmarks/draw_page.py -o docs [--chromium /usr/bin/chromium]
"""

import argparse
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
READY = '.fv-viewport[data-state="ready"][data-drawn]'
WAIT_MS = 240_000
FRAME_MS = 70
WARM_UP_S = 30  # the page fits a sample first
# Keyframes of the animation: (state, frames of the transition, frames of the hold).
SCRIPT = (
    ({}, 0, 8),
    ({"preset": "neutral"}, 8, 3),
    ({"preset": "surprise"}, 8, 6),
    ({"preset": "laugh"}, 8, 6),
    ({"preset": "neutral", "yaw": 32}, 10, 3),
    ({"preset": "neutral", "yaw": 32, "age": 0.6}, 10, 8),
    ({"preset": "neutral", "yaw": -20, "age": 0.6, "light": 55}, 10, 3),
    ({"preset": "neutral", "yaw": 0, "age": 0.0, "light": -27}, 10, 2),
    ({"preset": "photo"}, 8, 4),
)


@contextmanager
def server():
    """Address of app.py in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": folder}
        root = Path(__file__).resolve().parent.parent
        process = subprocess.Popen([sys.executable, "app.py"], cwd=root, env=environment, stdout=subprocess.DEVNULL)
        address = f"http://127.0.0.1:{port}/"
        try:
            for _ in range(1200):
                try:
                    urllib.request.urlopen(address, timeout=5).read(1)
                    break
                except OSError:
                    time.sleep(0.3)
            time.sleep(WARM_UP_S)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def fitted_page(browser, address: str, width: int, height: int, theme: str, scale: float = 1.0) -> Page:
    """The page with the fitted sample photograph."""
    page = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, device_scale_factor=scale, locale="en-GB"
    ).new_page()
    page.goto(address)
    page.click("[data-sample='0']")
    page.wait_for_selector('.fv-viewport[data-state="busy"]')
    page.wait_for_selector(READY, timeout=WAIT_MS)
    page.wait_for_timeout(8000)  # detail and pictures follow the head
    return page


def shot(page: Page, selector: str | None = None) -> Image.Image:
    target = page.locator(selector) if selector else page
    return Image.open(io.BytesIO(target.screenshot())).convert("RGB")


def middle(picture: Image.Image) -> Image.Image:
    """The square in the middle."""
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    return picture.crop((left, top, left + side, top + side))


def animation(page: Page, presets: dict) -> list[Image.Image]:
    """Frames of the 3D view while expressions, turn, age and light change."""
    start = page.evaluate("window.faceverse.state()")
    oldest = page.evaluate("Number(document.querySelector('input[data-attribute=age]').max)")
    presets = presets | {"photo": start["expression"]}
    frames, before = [], {"weights": start["expression"], "yaw": 0.0, "age": 0.0, "light": -27.0}
    for wanted, way, stay in SCRIPT:
        weights = presets[wanted["preset"]] if "preset" in wanted else before["weights"]
        after = {"weights": weights, **{k: wanted.get(k, before[k]) for k in ("yaw", "age", "light")}}
        for step in [*range(1, way + 1), *[way] * stay] or [0]:
            part = step / way if way else 1.0
            part = part * part * (3 - 2 * part)
            names = {*before["weights"], *after["weights"]}
            mixed = {n: (1 - part) * before["weights"].get(n, 0) + part * after["weights"].get(n, 0) for n in names}
            yaw, age, light = ((1 - part) * before[k] + part * after[k] for k in ("yaw", "age", "light"))
            state = start | {
                "expression": dict.fromkeys(start["expression"], 0) | mixed,
                "attributes": {"age": age * oldest} if age else {},
                "pose": start["pose"] | {"yaw": yaw},
                "light": start["light"] | {"yaw": light},
            }
            page.evaluate("(state) => window.faceverse.setState(state)", state)
            page.wait_for_timeout(700 if step == way and stay and age != before["age"] else 350)
            frames.append(shot(page, ".fv-viewport"))
        before = after
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("docs"), help="folder of the pictures (default: docs)")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser (default: from PATH)")
    names = ("page", "phone", "animation")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="some of the pictures (default: all)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    import faceverse as fv

    presets = {name: dict(weights) for name, weights in fv.EXPRESSION_PRESETS.items()}
    with server() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=FLAGS)
        if "page" in options.only:
            page = fitted_page(browser, address, 1440, 900, "light")
            page.click("[data-yaw='40']")
            page.wait_for_timeout(1500)
            shot(page).save(options.out / "page.png", optimize=True)
            page.context.close()
        if "phone" in options.only:
            phone = fitted_page(browser, address, 390, 844, "dark", scale=2)
            phone.click("[data-tab=shape]")
            phone.wait_for_timeout(1500)
            shot(phone).save(options.out / "phone.png", optimize=True)
            phone.context.close()
        if "animation" in options.only:
            small = fitted_page(browser, address, 1180, 760, "dark")
            small.add_style_tag(content=".fv-tools, .fv-side-tools { visibility: hidden }")
            frames = [middle(frame).resize((440, 440), Image.Resampling.LANCZOS) for frame in animation(small, presets)]
            path = options.out / "page.webp"
            frames[0].save(
                path, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, quality=82, method=6
            )
            print(f"{path}: {len(frames)} frames, {path.stat().st_size / 1e6:.1f} MB")
        browser.close()


if __name__ == "__main__":
    main()
