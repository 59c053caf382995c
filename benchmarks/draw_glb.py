"""Draws heads by this library and, from the GLB that it exports, by three.js, side by side in one picture.

Run: python benchmarks/draw_glb.py -o glb.png --three node_modules/three [--result head.json] [--lod coarse]
Both use the same camera and the same spherical-harmonics light, so that what differs is the file. three.js is the npm
package of that name (`npm install three`); the browser is Chromium through playwright.
"""

import argparse
import base64
import io
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import labelled, save, sheet
from PIL import Image
from playwright.sync_api import Page, Route, sync_playwright

import faceverse as fv
from faceverse.graphics.camera import rotation_from_euler_deg
from faceverse.graphics.lighting import directed_light

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
ORIGIN = "http://glb.invalid"
DISTANCE_M = 0.6
LIGHT = (-40.0, 30.0, 0.85)
WAIT_MS = 120_000
KINDS = {".js": "text/javascript", ".glb": "model/gltf-binary"}
PAGE = """<!doctype html><body style="margin:0"><script type="importmap">
{"imports": {"three": "/three/build/three.module.js", "three/addons/": "/three/examples/jsm/"}}
</script><script type="module">
import * as THREE from "three";
import {GLTFLoader} from "three/addons/loaders/GLTFLoader.js";
window.draw = async (view) => {
  const [height, width] = view.size;
  const renderer = new THREE.WebGLRenderer({antialias: true, preserveDrawingBuffer: true});
  renderer.setSize(width, height);
  renderer.setClearColor(0xffffff);
  const gltf = await new GLTFLoader().loadAsync(view.file);
  const scene = new THREE.Scene(), holder = new THREE.Group();
  holder.matrixAutoUpdate = false;
  holder.matrix.set(...view.pose);
  holder.add(gltf.scene);
  scene.add(holder, new THREE.LightProbe(new THREE.SphericalHarmonics3().fromArray(view.light)));
  if (view.highlight) {
    const sun = new THREE.DirectionalLight(0xffffff, view.highlight);
    sun.position.set(-0.6, 0.6, 1);
    scene.add(sun);
  }
  gltf.scene.traverse((object) => {
    for (const [slot, turn] of Object.entries(view.turns)) if (object.name === slot) object.rotation.set(...turn);
    for (const [name, weight] of Object.entries(view.weights))
      if (object.morphTargetDictionary) object.morphTargetInfluences[object.morphTargetDictionary[name]] = weight;
  });
  if (view.time_s !== null) {
    const mixer = new THREE.AnimationMixer(gltf.scene);
    mixer.clipAction(gltf.animations[0]).play();
    mixer.setTime(view.time_s);
  }
  const camera = new THREE.PerspectiveCamera(view.fov_deg, width / height, 0.01, 10);
  renderer.render(scene, camera);
  const picture = renderer.domElement.toDataURL("image/png");
  renderer.dispose();
  return picture;
};
window.ready = true;
</script>"""


@dataclass(frozen=True)
class View:
    """What one pair of pictures shows.

    Attributes:
        name: below the pictures.
        weights: expression of the head.
        yaw_deg: rotation of the head.
        height_m: of the picture at the middle.
        middle: (3,) metres, the point of head space in the middle of the picture.
    """

    name: str
    weights: dict[str, float]
    yaw_deg: float = 0.0
    height_m: float = 0.3
    middle: tuple[float, float, float] = (0.0, -0.01, 0.0)


SMILE = {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "cheekSquintLeft": 0.5, "cheekSquintRight": 0.5, "jawOpen": 0.2}
LOOK = {"eyeLookOutLeft": 0.8, "eyeLookInRight": 0.8, "eyeLookUpLeft": 0.3, "eyeLookUpRight": 0.3}
EYES, MOUTH = (0.0, 0.005, 0.06), (0.0, -0.075, 0.07)
VIEWS = (
    View("at rest", {}),
    View("smile", SMILE, 35),
    View("jaw open", {"jawOpen": 0.9, "tongueOut": 0.3}, -25),
    View("profile", {}, 85),
    View("eyes", LOOK, 0, 0.085, EYES),
    View("eyes half closed", {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5}, 30, 0.085, EYES),
    View("mouth", SMILE, 0, 0.09, MOUTH),
    View("mouth open", {"jawOpen": 0.9}, 25, 0.1, MOUTH),
)


def pair(page: Page, folder: Path, head: fv.FitResult, view: View, side_px: int, lod: str) -> list[np.ndarray]:
    """The head by this library and by three.js, (side, side, 3) uint8 each."""
    rotation = rotation_from_euler_deg(view.yaw_deg, 0, 0).numpy()
    translation = np.array([0, 0, -DISTANCE_M]) - rotation @ np.array(view.middle)
    light = directed_light(*LIGHT).numpy()
    posed = head.params.replace(rotation=rotation, translation=translation.astype(np.float32), light=light)
    neutral = head.replace(params=posed.replace(expression=np.zeros_like(posed.expression)))
    posed_head = fv.edit(neutral, expression=view.weights)
    camera = fv.Camera(side_px * DISTANCE_M / view.height_m, (side_px / 2, side_px / 2), (side_px, side_px))
    fv.export(posed_head, folder / "head.glb", lod=lod)
    ours = fv.render(posed_head, camera=camera).rgb
    pose = np.vstack([np.column_stack([rotation, translation]), [0, 0, 0, 1]])
    fov_deg = float(np.degrees(2 * np.arctan(side_px / 2 / camera.focal_px)))
    theirs = drawn(page, "/file/head.glb", pose=pose.ravel().tolist(), light=light.ravel().tolist(),
                   size=(side_px, side_px), fov_deg=fov_deg)  # fmt: skip
    return [labelled(ours, f"{view.name}: faceverse.render"), labelled(theirs, f"{view.name}: three.js")]


def drawn(page: Page, file: str, **view) -> np.ndarray:
    """(H, W, 3) uint8: a .glb by three.js.

    Args:
        file: address of the .glb.
        view: pose (16,) of the scene, row by row; light (27,); size (height, width); fov_deg; optionally turns, Euler
            angles in radians by node; weights by target; time_s of the animation; highlight, strength of a lamp.
    """
    defaults = {"turns": {}, "weights": {}, "time_s": None, "highlight": 0}
    address = page.evaluate("view => draw(view)", {"file": file, **defaults, **view})
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1]))).convert("RGB"))


def open_page(browser, three: Path, folder: Path) -> Page:
    """A page that offers `draw`, with three.js at /three/ and the files of the folder at /file/."""

    def answer(route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN)
        if path == "/":
            return route.fulfill(body=PAGE, content_type="text/html")
        root, _, name = path.lstrip("/").partition("/")
        file = {"three": three, "file": folder}.get(root, folder) / name
        if not file.is_file():
            return route.fulfill(status=404)
        return route.fulfill(body=file.read_bytes(), content_type=KINDS.get(file.suffix, "application/octet-stream"))

    page = browser.new_page()
    page.on("pageerror", lambda error: print(f"page: {error}"))
    page.on("console", lambda message: print(f"page: {message.text}") if message.type in ("error", "warning") else None)
    page.route(f"{ORIGIN}/**", answer)
    page.goto(f"{ORIGIN}/")
    page.wait_for_function("window.ready", timeout=WAIT_MS)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture to write")
    parser.add_argument("--three", type=Path, required=True, help="folder of the npm package three")
    parser.add_argument("--result", type=Path, help="JSON of a head (default: a random person)")
    parser.add_argument("--seed", type=int, default=3, help="of the random person")
    parser.add_argument("--lod", choices=("coarse", "standard"), default="coarse")
    parser.add_argument("--side", type=int, default=480, help="pixels of a picture")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser (default: from PATH)")
    options = parser.parse_args()
    model = fv.load_model()
    head = fv.load_result(options.result) if options.result else fv.head(model.random(options.seed), model)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=FLAGS)
        page = open_page(browser, options.three, Path(folder))
        pictures = [
            picture for view in VIEWS for picture in pair(page, Path(folder), head, view, options.side, options.lod)
        ]
        browser.close()
    save(sheet(pictures, 4), options.output)


if __name__ == "__main__":
    main()
