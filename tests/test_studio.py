"""The 3D view and its panel: the packs that feed it, and the studio alone in a browser, on a page without Gradio.

What its JavaScript computes is tested by test_studio_js.py.
"""

import gzip
import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from test_browser import PHONE, browser, canvas_pixels, changed_pixels  # noqa: F401 (a fixture)

import faceverse as fv

pytest.importorskip("gradio")
view_files = pytest.importorskip("demo.view_files")
part_files = pytest.importorskip("demo.part_files")
layout = pytest.importorskip("demo.layout")
hair_state = pytest.importorskip("demo.hair_state")
base_of, start_of = hair_state.base_of, hair_state.start_of

WINDOW = {"width": 860, "height": 480}
_persons = count(1)
SMILE = {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9}
REGIONS = [["person", ["age", "gender", "weight"]], ["nose", ["nose_width", "nose_length"]]]


def read_pack(content):
    """A reader for tests: values and arrays of a pack by name."""
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    size = int(np.frombuffer(content, "<u4", 1)[0])
    header = json.loads(content[4 : 4 + size])
    arrays = {
        name: np.frombuffer(content, entry["type"], entry["length"], 4 + size + entry["start"])
        for name, entry in header["arrays"].items()
    }
    return header["values"] | arrays


@pytest.fixture(scope="module")
def head(model):
    """Somebody who smiles, with the displacement of the skin."""
    return fv.edit(fv.head(model.random(3, hair=False), model), detail_seed=1, expression=SMILE)


@pytest.fixture(scope="module")
def packed(model):
    return view_files.model_pack(model)


@pytest.fixture(scope="module")
def pack(packed):
    return read_pack(packed)


# ----------------------------------------------------------------------------------------------------------- the packs


def test_model_pack_has_a_corner_for_each_pair_of_vertex_and_texture_coordinate(toy_model):
    pack = read_pack(view_files.model_pack(toy_model))
    assert pack["names"] == list(toy_model.expression_names)
    corners = pack["cornerFaces"]
    assert np.array_equal(pack["vertexOfCorner"][corners], toy_model.faces.reshape(-1))
    assert np.array_equal(pack["uv"].reshape(-1, 2)[corners], toy_model.uv[toy_model.uv_faces.reshape(-1)])


def test_model_pack_is_small(packed):
    assert len(packed) < 5.2e6


def test_head_pack_holds_the_neutral_head(head):
    pack = read_pack(view_files.head_pack(head))
    assert np.array_equal(pack["neutral"].reshape(-1, 3), head.neutral_vertices)
    albedo = np.clip(pack["albedo"].reshape(-1, 3) * pack["albedoScale"], 0, 1)
    np.testing.assert_allclose(albedo, head.albedo, atol=1e-4)


def test_a_model_without_attributes_has_a_pack_too(toy_model):
    bare = fv.FaceModel(replace(toy_model.data, attributes=()))
    pack = read_pack(view_files.model_pack(bare))
    assert pack["attributes"] == [] and not pack["attributeOffset"].size


# ----------------------------------------------------------------------------------------------------------- the parts


def path_of(address):
    return Path(address.removeprefix("gradio_api/file="))


def test_part_pack_holds_the_mesh_and_the_binding(model):
    for name in ("eye_left/natural", "tongue/base"):
        part = model.parts.parts[name]
        pack, binding = read_pack(view_files.part_pack(part)), part.binding
        corners = pack["cornerFaces"].astype(int)
        used = np.unique(part.faces)
        assert np.array_equal(used[pack["vertexOfCorner"][corners]], part.faces.reshape(-1))
        assert np.array_equal(pack["uv"].reshape(-1, 2)[corners], part.uv[part.uv_faces.reshape(-1)])
        assert np.array_equal(pack["reference"], binding.reference)
        assert pack["irisUv"] == part.iris_uv and (part.iris_uv is None) == (name == "tongue/base")
        if part.iris_uv is not None:
            radius = np.linalg.norm(pack["uv"].reshape(-1, 2) - 0.5, axis=1)
            assert np.isclose(radius, pack["irisUv"], atol=1e-4).sum() > 20, "a ring of vertices is the border"
        if binding.kind == "surface":
            offset = pack["offset"].reshape(-1, 3) * pack["offsetScale"]
            np.testing.assert_allclose(offset, binding.offset[used], atol=1e-6)
        else:
            made = pack["made"].reshape(-1, 3) * pack["madeScale"] + binding.reference_m.mean(0)
            np.testing.assert_allclose(made, binding.made[used], atol=2e-6)


def test_files_of_parts_are_small_shared_and_written_once(model, tmp_path):
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir(), own.mkdir()
    head = fv.head(model.random(3, hair=False), model)
    addresses, early = part_files.of_head(head, shared, own), part_files.of_model(model, shared)
    assert set(addresses) == set(early) == set(head.parts)
    assert all(addresses[slot].items() >= early[slot].items() for slot in early), "loaded early and used later"
    files = {path_of(address) for urls in addresses.values() for address in urls.values()}
    assert {*shared.iterdir(), *own.iterdir()} == files
    assert {path_of(addresses[slot]["texture"]) for slot in ("eye_left", "eye_right")} == set(own.iterdir())
    assert sum(file.stat().st_size for file in files) < 5e5
    for file in files:
        file.write_bytes(b"kept")
    part_files.of_head(head, shared, own)
    assert {file.read_bytes() for file in files} == {b"kept"}


def test_a_texture_of_ones_own_stays_in_the_visitors_folder(model, tmp_path):
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir(), own.mkdir()
    head = fv.head(model.random(3, hair=False), model)
    eye = head.parts["eye_left"]
    green = np.zeros((64, 64, 4), np.uint8) + np.uint8([0, 200, 0, 255])
    dyed = replace(eye, material=replace(eye.material, texture=green))
    head.__dict__["parts"] = {**head.parts, "eye_left": dyed}  # fills the cached property
    addresses = part_files.of_head(head, shared, own)
    texture, other = (path_of(addresses[slot]["texture"]) for slot in ("eye_left", "eye_right"))
    assert {texture, other} == set(own.iterdir()) and texture != other, "painted in the colour of the person's irises"
    np.testing.assert_allclose(np.asarray(Image.open(texture))[32, 32], [0, 200, 0], atol=8)


def test_transparent_texels_have_the_colour_of_their_neighbours():
    texture = np.zeros((1024, 1024, 4), np.uint8)
    texture[300:700, 300:700] = (200, 120, 40, 255)
    for mode, channels in (("BLEND", 4), ("OPAQUE", 3)):
        pixels = np.asarray(part_files.texture_picture(texture, mode))
        assert pixels.shape == (512, 512, channels)
        assert (pixels[..., :3] == (200, 120, 40)).all(), "filtering makes no dark rim"
    mask = np.asarray(part_files.texture_picture(texture, "MASK"))[..., 3]
    assert mask[0, 0] == 0 and mask[256, 256] == 255


def test_a_model_without_parts_has_no_files_of_parts(toy_model, tmp_path):
    assert part_files.of_head(fv.head(toy_model.random(1), toy_model), tmp_path, tmp_path) == {}
    assert part_files.of_model(toy_model, tmp_path) == {} and not list(tmp_path.iterdir())
    pack = read_pack(view_files.head_pack(fv.head(toy_model.random(1), toy_model)))
    assert np.unpackbits(pack["isSkin"])[: len(toy_model.faces)].all() and pack["edges"] == {}


# -------------------------------------------------------------------------------------------------------- the wrinkles


@pytest.fixture(scope="module")
def atlas(head):
    return view_files.wrinkle_atlas(head)


def tile(atlas, number):
    """(H, W, 2) slopes."""
    row, column = divmod(number, 4)
    part = atlas[256 * row : 256 * (row + 1), 256 * column : 256 * (column + 1), :2].astype(float)
    return (part - 128) / 127 * view_files.WRINKLE_SCALE


def slopes(picture):
    normals = picture / 127.5 - 1
    return normals[..., :2] / normals[..., 2:]


def test_wrinkles_added_to_the_neutral_displacement_are_those_of_the_expression(head, atlas):
    assert atlas.shape == (512, 1024, 3) and atlas.dtype == np.uint8
    rest = fv.edit(head, expression=np.zeros_like(head.params.expression))
    for number, result in ((0, head), (4, fv.edit(rest, expression={"mouthSmileLeft": 1, "mouthSmileRight": 1}))):
        wanted = slopes(result.normal_map) - slopes(rest.normal_map)
        wanted = wanted.reshape(256, 2, 256, 2, 2).mean((1, 3))
        assert np.abs(tile(atlas, number) - wanted).max() < 0.01
        assert np.abs(wanted).max() > 0.05, "a smile makes wrinkles"


def test_a_head_without_displacement_has_no_wrinkles(model):
    assert view_files.wrinkle_atlas(fv.head(model.random(3, hair=False), model)) is None


# ------------------------------------------------------------------------------------------------ in a browser: set-up

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>:root { --body-text-color: #222; --background-fill-primary: #fff; --block-background-fill: #fff;
--border-color-primary: #ddd; --color-accent: #2563eb; --radius-lg: 8px } body { margin: 8px }</style>
<div id="view">HTML</div><style>#view { CSS }</style>
<script type="module">
import { mount } from "./assets/studio.js";
const props = PROPS;
window.events = [];
const watch = (name, tell) => { window.give = (value) => { props.value = value; tell(); }; };
mount(document.querySelector("#view"), props, watch, (name, data) => window.events.push([name, data]));
</script></html>"""


@pytest.fixture(scope="module")
def site(model, head, packed, atlas, tmp_path_factory):
    """Address of a page with the studio, and a value of its component for the head."""
    folder = tmp_path_factory.mktemp("studio")
    rest = fv.edit(head, expression=np.zeros_like(head.params.expression))
    (folder / "model.bin").write_bytes(packed)
    for name, result in (("head", rest), ("older", fv.edit(rest, age=20))):
        (folder / f"{name}.bin").write_bytes(view_files.head_pack(result))
        Image.fromarray(result.texture).save(folder / f"{name}.jpg")
    Image.fromarray(rest.normal_map).save(folder / "normal.png")
    Image.fromarray(atlas).save(folder / "wrinkles.png")
    parts = {
        slot: {kind: path_of(address).name for kind, address in urls.items()}
        for slot, urls in part_files.of_head(rest, folder, folder).items()
    }
    props = {
        "three_url": "three.js",
        "texts": layout.STUDIO_TEXTS,
        "presets": {"neutral": {}, "wide": {"jawOpen": 1.0, "mouthSmileLeft": 0.5, "mouthSmileRight": 0.5}},
        "groups": {"expressions": [["jaw", ["jawOpen"]]], "attributes": REGIONS},
        "light": layout.light_sliders(),
        "hair": layout.hair_choices() | {"styles": [[name, None] for name in ("bald", "short03", "short04")]},
    }
    page = PAGE.replace("HTML", (layout.ASSETS / "studio.html").read_text(encoding="utf-8"), 1)
    page = page.replace("CSS", (layout.ASSETS / "studio.css").read_text(encoding="utf-8"), 1)
    page = page.replace("PROPS", json.dumps(props), 1)
    files = {"/": page.encode(), "/three.js": layout.THREE_JS.read_bytes()}

    class Answer(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):  # noqa: N802 (the name that http.server requires)
            path = urlsplit(self.path).path
            place = layout.ASSETS / path[8:] if path.startswith("/assets/") else folder / path[1:]
            content = files.get(path) or place.read_bytes()
            kinds = {
                "/": "text/html; charset=utf-8",
                ".js": "text/javascript",
                ".jpg": "image/jpeg",
                ".png": "image/png",
                ".webp": "image/webp",
            }
            self.send_response(200)
            self.send_header("Content-Type", kinds.get(path, kinds.get(place.suffix, "application/octet-stream")))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    weights = dict(zip(model.expression_names, head.params.expression.tolist()))
    unmixed = {"identity": 0, "expression": 0, "albedo": 0, "detail": 0}
    value = {
        "edition": 1, "person": 1, "model": "model.bin", "head": "head.bin", "texture": "head.jpg",
        "normal": "normal.png", "smooth": None, "wrinkles": "wrinkles.png", "donor": None, "adopt": None,
        "status": None, "parts": parts,
        "state": {"attributes": {}, "skin": 0, "mix": unmixed},
        "start": {
            "expression": weights, "attributes": {}, "skin": 0, "strength": 1, "light": {}, "mix": unmixed,
            "pose": {"yaw": 0, "pitch": 0, "roll": 0},
        },
        "limits": {"age": [-10, 40], "nose_width": [-3, 5]}, "estimates": {"age": 30},
    }  # fmt: skip
    styled = fv.edit(rest, hair="short03")
    value["styled"] = {
        slot: {kind: path_of(address).name for kind, address in urls.items()}
        for slot, urls in part_files.of_head(styled, folder, folder).items()
    }
    yield f"http://127.0.0.1:{server.server_port}/", value
    server.shutdown()


@contextmanager
def open_studio(browser, site, size=WINDOW, language="en-GB", **changes):  # noqa: F811
    """The studio with the head; at the end nothing may have gone wrong in it."""
    address, value = site
    context = browser.new_context(viewport=size, locale=language, reduced_motion="reduce", accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.requests, page.errors = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    try:
        page.goto(address)
        page.wait_for_function("() => window.give")
        give(page, value | changes)
        yield page
        assert page.errors == []
    finally:
        context.close()


def give(page, value):
    page.evaluate("(value) => window.give(value)", value)
    if value["head"] and not value["status"]:
        page.wait_for_selector(f'.fv-viewport[data-state="ready"][data-edition="{value["edition"]}"]')


@pytest.fixture(scope="module")
def shared_page(browser, site):  # noqa: F811
    with open_studio(browser, site) as page:
        yield page


@pytest.fixture
def studio(shared_page, site):
    """The studio with a person that it has not seen before; `value` is that of its component."""
    number = 100 * next(_persons)
    shared_page.value = site[1] | {"edition": number, "person": number}
    give(shared_page, shared_page.value)
    shared_page.click("[data-tab=expression]")
    shared_page.evaluate("window.events.length = 0")
    return shared_page


def answer(page, later=1, **changes):
    """The server's next answer, with another edition."""
    give(page, page.value | {"edition": page.value["edition"] + later} | changes)


def picture(page):
    """Pixels of the viewport, with the mouse over none of its buttons."""
    page.mouse.move(2, 2)
    return canvas_pixels(page)


def state(page):
    return page.evaluate("window.faceverse.state()")


def move(page, selector, value):
    """What the browser does when a handle is moved and released."""
    page.evaluate(
        """([selector, value]) => { const input = document.querySelector(selector);
        input.value = value; for (const name of ["input", "change"]) input.dispatchEvent(new Event(name)); }""",
        [selector, value],
    )


def settled_picture(page):
    """The picture once it stays the same, because files of an answer arrive when they like."""
    last = picture(page)
    for _ in range(40):
        page.wait_for_timeout(150)
        now = picture(page)
        if np.array_equal(now, last):
            return now
        last = now
    raise AssertionError("the picture never settles")


def edits(page):
    return [data["state"] for name, data in page.evaluate("window.events") if name == "edit"]


# ------------------------------------------------------------------------------------------------ in a browser: sliders


@pytest.mark.browser
def test_expression_and_shape_sliders_move_the_head_without_a_request(studio):
    requests, before = len(studio.requests), picture(studio)
    box = studio.locator("[data-names=jawOpen]").bounding_box()
    studio.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
    studio.mouse.down()
    studio.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2, steps=4)
    studio.mouse.up()
    opened = picture(studio)
    assert state(studio)["expression"]["jawOpen"] > 0.7
    assert changed_pixels(before, opened) > 1000
    studio.click("[data-tab=shape]")
    move(studio, "[data-attribute=nose_width]", 4)
    assert changed_pixels(opened, picture(studio)) > 100
    studio.wait_for_timeout(200)
    assert studio.requests[requests:] == [] and edits(studio) == []


@pytest.mark.browser
def test_age_changes_colours_at_once_and_asks_the_server(studio):
    before = picture(studio)
    move(studio, "[data-attribute=age]", 30)
    assert (np.abs(picture(studio) - before).max(axis=-1) > 3).sum() > 2000
    studio.wait_for_function("() => window.events.length")
    (asked,) = edits(studio)
    assert asked["attributes"]["age"] == pytest.approx(30, abs=0.5)


@pytest.mark.browser
def test_linked_sides_move_together_and_apart_when_they_are_not(studio):
    move(studio, '[data-names="mouthSmileLeft mouthSmileRight"]', 0.3)
    expression = state(studio)["expression"]
    assert expression["mouthSmileLeft"] == expression["mouthSmileRight"] == pytest.approx(0.3)
    assert not studio.is_visible("[data-names=mouthSmileLeft]")
    studio.uncheck("[data-link]")
    assert studio.is_visible("[data-names=mouthSmileLeft]")
    move(studio, "[data-names=mouthSmileLeft]", 0.8)
    expression = state(studio)["expression"]
    assert expression["mouthSmileLeft"] == pytest.approx(0.8) and expression["mouthSmileRight"] == pytest.approx(0.3)
    studio.check("[data-link]")


@pytest.mark.browser
def test_undo_and_redo_go_through_gestures(studio):
    start = state(studio)
    move(studio, "[data-names=jawOpen]", 0.5)
    studio.click("[data-tab=shape]")
    move(studio, "[data-attribute=nose_width]", 3)
    both = state(studio)
    studio.locator("[data-attribute=nose_width]").focus()
    studio.keyboard.press("Control+z")
    assert state(studio)["attributes"] == {} and state(studio)["expression"]["jawOpen"] == pytest.approx(0.5)
    studio.click("[data-undo]")
    assert state(studio) == start
    studio.keyboard.press("Control+y")
    studio.click("[data-redo]")
    assert state(studio) == both and studio.is_disabled("[data-redo]")
    assert float(studio.input_value("[data-attribute=nose_width]")) == pytest.approx(3)


@pytest.mark.browser
def test_presets_replace_the_expression(studio):
    studio.click("[data-preset=wide]")
    moved = {name: weight for name, weight in state(studio)["expression"].items() if weight}
    assert moved == {"jawOpen": 1, "mouthSmileLeft": 0.5, "mouthSmileRight": 0.5}
    assert studio.get_attribute("[data-preset=wide]", "aria-pressed") == "true"
    studio.click("[data-preset=photo]")
    assert state(studio)["expression"]["mouthSmileLeft"] == pytest.approx(SMILE["mouthSmileLeft"])


@pytest.mark.browser
def test_amounts_stay_within_limits_and_keys_move_by_steps(studio):
    studio.click("[data-tab=shape]")
    move(studio, "[data-attribute=nose_width]", 100)
    assert state(studio)["attributes"]["nose_width"] == 5
    studio.evaluate("window.faceverse.setState({...window.faceverse.state(), attributes: {nose_width: -50}})")
    assert state(studio)["attributes"]["nose_width"] == -3
    studio.locator("[data-attribute=age]").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "PageUp"):
        studio.keyboard.press(key)
    assert state(studio)["attributes"]["age"] == 11
    assert studio.get_attribute("[data-attribute=age]", "aria-valuetext") == "+11 years"
    studio.keyboard.press("Delete")
    assert "age" not in state(studio)["attributes"]


@pytest.mark.browser
def test_wrinkles_appear_as_sliders_move(studio):
    smiling = {"mouthSmileLeft": 1, "mouthSmileRight": 1}
    pictures = []
    studio.click("[data-mode=clay]")
    for strength in (0, 2):
        studio.evaluate(
            "(given) => window.faceverse.setState({...window.faceverse.state(), ...given})",
            {"expression": smiling, "strength": strength},
        )
        pictures.append(picture(studio))
    shares = []
    for later, wrinkles in ((1, None), (2, "wrinkles.png")):
        answer(studio, later, wrinkles=wrinkles)
        shares.append(picture(studio))
    studio.click("[data-mode=clay]")
    assert (np.abs(pictures[0] - pictures[1]).max(axis=-1) > 3).sum() > 300
    assert (np.abs(shares[0] - shares[1]).max(axis=-1) > 3).sum() > 100, "without the atlas there are no wrinkles"


@pytest.mark.browser
def test_locks_and_dice_ask_the_server_for_a_random_face(studio):
    studio.click("[data-tab=shape]")
    studio.click("[data-lock=nose]")
    studio.click(".fv-panel-bar [data-dice]")
    (name, asked), *_ = studio.evaluate("window.events")
    assert name == "randomise" and asked["region"] is None
    assert asked["keep"] == ["nose_width", "nose_length"] and asked["state"] == state(studio)
    assert studio.is_disabled("[data-dice=person]"), "until the answer is here"
    studio.click("[data-lock=nose]")


# ------------------------------------------------------------------------------------------- in a browser: the server


OLDER = {"head": "older.bin", "texture": "older.jpg"}


def shown(**state):
    """The visitor's state, as shown by the server's files."""
    return {"attributes": {}, "skin": 0, "mix": {}} | state


@pytest.mark.browser
def test_only_one_question_at_a_time_and_the_last_one_wins(studio):
    move(studio, "[data-attribute=age]", 10)
    studio.wait_for_function("() => window.events.length === 1")
    for age in (20, 30):
        move(studio, "[data-attribute=age]", age)
        studio.wait_for_timeout(120)
    assert [asked["attributes"]["age"] for asked in edits(studio)] == [10]
    answer(studio, **OLDER, state=shown(attributes={"age": 10}))
    studio.wait_for_function("() => window.events.length === 2")
    assert edits(studio)[1]["attributes"]["age"] == state(studio)["attributes"]["age"] == 30


@pytest.mark.browser
def test_an_answer_does_not_move_the_head_and_a_late_one_is_ignored(studio):
    studio.click("[data-mode=clay]")
    move(studio, "[data-attribute=age]", 20)
    before = picture(studio)
    answer(studio, 5, **OLDER, state=shown(attributes={"age": 20}))
    answered = settled_picture(studio)
    assert changed_pixels(before, answered) < 100, "the preview was the same head"
    studio.evaluate(
        "(v) => window.give(v)", studio.value | {"edition": studio.value["edition"] + 4, "head": "late.bin"}
    )
    studio.wait_for_timeout(200)
    assert np.array_equal(picture(studio), answered)
    assert not any("late.bin" in url for url in studio.requests)
    studio.click("[data-mode=clay]")


@pytest.mark.browser
def test_a_random_face_is_adopted_once_and_can_be_undone(studio):
    start = state(studio)
    drawn = {"number": studio.value["edition"], "state": {"attributes": {"nose_width": 2, "age": 99}, "skin": 12}}
    for later in (1, 2):
        answer(studio, later, adopt=drawn)
    assert state(studio)["attributes"] == {"nose_width": 2, "age": 40} and state(studio)["skin"] == 12
    studio.click("[data-undo]")
    assert state(studio) == start and studio.is_disabled("[data-undo]"), "it was taken over once"


@pytest.mark.browser
def test_a_random_face_is_not_lost_to_what_follows_it(studio):
    drawn = {"number": studio.value["edition"] + 100, "state": {"attributes": {"nose_width": 2}}}
    answer(studio, 2)
    late = studio.value | {"edition": studio.value["edition"] - 1, "adopt": drawn}
    studio.evaluate("(value) => window.give(value)", late)
    studio.wait_for_function("() => window.faceverse.state().attributes.nose_width === 2")
    other = drawn | {"number": drawn["number"] + 1, "state": {"attributes": {"nose_width": 3}}}
    shared = studio.value | {"normal": None, "wrinkles": None}
    pair = [shared | {"edition": shared["edition"] + later, "adopt": taken} for later, taken in ((3, other), (4, None))]
    studio.evaluate("(pair) => pair.forEach((value) => window.give(value))", pair)
    studio.wait_for_function("() => window.faceverse.state().attributes.nose_width === 3")


@pytest.mark.browser
def test_a_new_person_starts_afresh_and_the_same_one_goes_on(studio):
    move(studio, "[data-names=jawOpen]", 0.6)
    answer(studio, 1, normal=None, wrinkles=None)
    assert state(studio)["expression"]["jawOpen"] == pytest.approx(0.6)
    answer(studio, 2, person=studio.value["person"] + 1)
    assert not state(studio)["expression"]["jawOpen"]
    assert studio.is_disabled("[data-undo]")


STATUS = {"text": "Matching", "fraction": 0.5, "preview": None, "refining": False, "choose": None}


@pytest.mark.browser
def test_a_visitor_chooses_a_face(studio):
    photo = "data:image/svg+xml," + "<svg xmlns='http://www.w3.org/2000/svg' width='400' height='300'/>"
    choose = {"picture": photo, "boxes": [[0.1, 0.2, 0.4, 0.6], [0.6, 0.2, 0.8, 0.5]]}
    answer(studio, head=None, status=STATUS | {"choose": choose})
    studio.wait_for_function("() => document.querySelector('.fv-faces img').complete")
    second = studio.get_by_role("button", name="Face 2")
    frame, image = second.bounding_box(), studio.locator(".fv-faces img").bounding_box()
    assert frame["x"] - image["x"] == pytest.approx(0.6 * image["width"], abs=2)
    assert not studio.is_visible(".fv-panel")
    second.focus()
    studio.keyboard.press("Enter")
    assert studio.evaluate("window.events") == [["choose", {"face": 1}]]


@pytest.mark.browser
def test_progress_and_the_panel_follow_the_work(studio):
    answer(studio, 1, head=None)
    assert studio.get_attribute(".fv-viewport", "data-state") == "empty" and not studio.is_visible(".fv-panel")
    answer(studio, 2, head=None, status=STATUS)
    assert studio.get_attribute(".fv-viewport", "data-state") == "busy" and studio.inner_text(".fv-step") == "Matching"
    answer(studio, 3)
    drawn = studio.get_attribute(".fv-viewport", "data-drawn")
    answer(studio, 3, status=STATUS | {"refining": True})
    assert studio.get_attribute(".fv-viewport", "data-drawn") == drawn, "the head is not drawn for its progress"
    assert studio.get_attribute(".fv-viewport", "data-state") == "refining" and studio.is_enabled("[data-tab=shape]")
    answer(studio, 3, status=STATUS)
    assert studio.get_attribute(".fv-viewport", "data-state") == "busy"
    assert studio.evaluate("document.querySelector('.fv-panel').inert")


# --------------------------------------------------------------------------------------------- in a browser: the view


@pytest.mark.browser
def test_dragging_turns_the_head_or_moves_the_light(studio):
    def drag():
        box = studio.locator(".fv-canvas").bounding_box()
        studio.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
        studio.mouse.down()
        studio.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
        studio.mouse.up()

    front = picture(studio)
    drag()
    assert changed_pixels(front, picture(studio)) > 3000
    studio.click('[data-yaw="0"]')
    assert changed_pixels(front, picture(studio)) < 50
    studio.click("[data-follow]")
    drag()
    light = state(studio)["light"]
    assert set(light) == set(fv.LIGHT_PARAMETERS) and 0 < light["yaw"] <= fv.LIGHT_PARAMETERS["yaw"].slider[1]
    studio.click("[data-undo]")
    assert state(studio)["light"] == {}
    studio.click("[data-follow]")
    assert changed_pixels(front, picture(studio)) < 50, "the light moved, not the head"


@pytest.mark.browser
def test_pose_modes_and_comparing_change_the_picture_and_come_back(studio):
    front = picture(studio)
    for mode in ("clay", "normals", "wire", "uv"):
        studio.click(f"[data-mode={mode}]")
        assert changed_pixels(front, picture(studio)) > 3000, mode
        studio.click("[data-mode=colour]")
    move(studio, "[data-pose=yaw]", 40)
    turned = picture(studio)
    assert changed_pixels(front, turned) > 3000
    studio.locator("[data-compare]").focus()
    studio.keyboard.down(" ")
    studio.evaluate("document.querySelector('.fv-hint-line').style.visibility = 'hidden'")
    studio.evaluate("document.activeElement.blur()")
    assert changed_pixels(turned, picture(studio)) < 50
    studio.keyboard.up(" ")


@pytest.mark.browser
def test_parts_show_in_the_mouth_and_in_the_eyes_and_follow_the_sliders(studio):
    def shown(given, parts, later):
        answer(studio, later, parts=parts)
        expression = dict.fromkeys(state(studio)["expression"], 0) | given
        studio.evaluate("(e) => window.faceverse.setState({...window.faceverse.state(), expression: e})", expression)
        return settled_picture(studio)

    style = studio.add_style_tag(content=".fv-tools, .fv-side-tools { visibility: hidden }")
    for _ in range(6):
        studio.locator(".fv-canvas").press("+")
    laugh = {"mouthUpperUpLeft": 1, "mouthUpperUpRight": 1, "jawOpen": 0.6} | SMILE
    all_parts = studio.value["parts"]
    toothless = {slot: urls for slot, urls in all_parts.items() if slot.startswith(("eye", "cornea"))}
    laughing, without = shown(laugh, all_parts, 1), shown(laugh, toothless, 2)
    aside = shown(laugh | {"eyeLookOutLeft": 1, "eyeLookInRight": 1}, toothless, 3)
    bare = shown(laugh, {}, 4)
    assert changed_pixels(shown(laugh, all_parts, 5), laughing) < 50, "the parts come back"
    luminance = laughing @ (0.2126, 0.7152, 0.0722)
    half = len(luminance) // 2
    mouth = luminance[half:][np.abs(laughing - without)[half:].max(-1) > 24]
    dark, light = np.percentile(mouth, (10, 95))
    assert len(mouth) > 500 and light > 120 and dark < 0.5 * light, "teeth in the dark"
    is_eye = np.abs(without - bare)[:half].max(-1) > 24
    eyes = (without @ (0.2126, 0.7152, 0.0722))[:half][is_eye]
    assert eyes.max() > 180 and np.percentile(eyes, 5) < 45, "a highlight, and pupils"
    assert changed_pixels(without[:half], aside[:half]) > 0.2 * is_eye.sum(), "the eyes turn"
    assert changed_pixels(without[half:], aside[half:]) < 50
    studio.evaluate("document.querySelector('[data-mode=clay]').click()")
    lashes = {slot: urls for slot, urls in all_parts.items() if slot != "lashes"}
    assert changed_pixels(shown(laugh, all_parts, 6), shown(laugh, lashes, 7)) < 5, "clay has no hair"
    style.evaluate("(element) => element.remove()")
    studio.click("[data-mode=clay]")


@pytest.mark.browser
def test_a_screenshot_is_a_transparent_picture_of_the_stage(studio, tmp_path):
    with studio.expect_download() as download:
        studio.click("[data-screenshot]")
    download.value.save_as(tmp_path / "head.png")
    saved = Image.open(tmp_path / "head.png")
    assert max(saved.size) == 1600 and saved.mode == "RGBA"
    alpha = np.asarray(saved)[..., 3]
    assert alpha[:20, :20].max() == 0 and alpha[saved.height // 2, saved.width // 2] == 255
    studio.click(".fv-background")
    with studio.expect_download() as download:
        studio.evaluate("void window.faceverse.screenshot()")
    download.value.save_as(tmp_path / "white.png")
    assert np.asarray(Image.open(tmp_path / "white.png").convert("RGBA"))[5, 5].tolist() == [255, 255, 255, 255]
    for _ in range(3):
        studio.click(".fv-background")


@pytest.mark.browser
def test_on_a_phone_the_head_stays_in_sight_and_nothing_sticks_out(browser, site):  # noqa: F811
    with open_studio(browser, site, PHONE, "zh-CN") as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.inner_text("[data-tab=expression]") == "表情"
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        box = page.locator(".fv-viewport").bounding_box()
        assert -1 <= box["y"] < 20 and box["height"] < 0.5 * PHONE["height"]
        named = "(e) => e.ariaLabel || e.textContent || e.labels?.length"
        assert page.evaluate(f"[...document.querySelectorAll('button, input')].every({named})")


@pytest.mark.browser
def test_without_webgl_the_page_is_notified(browser, site):  # noqa: F811
    address, value = site
    context = browser.new_context(viewport=WINDOW, locale="en-GB")
    page = context.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(address)
    page.wait_for_function("() => window.give")
    page.evaluate("(value) => window.give(value)", value)
    page.wait_for_selector('.fv-viewport[data-state="failed"]')
    assert "WebGL is switched off" in page.inner_text(".fv-failed")
    assert page.evaluate("window.events") == [["fallback", {}]]
    page.evaluate("(value) => window.give({ ...value, edition: value.edition + 1 })", value)
    page.wait_for_timeout(200)
    assert page.evaluate("window.events.length") == 1, "the same head is no news"
    changed = value | {"edition": value["edition"] + 2, "head": value["head"] + "?other"}
    page.evaluate("(value) => window.give(value)", changed)
    page.wait_for_function("() => window.events.length === 2")
    page.evaluate("(value) => window.give(value)", changed | {"status": {"text": "Fitting", "fraction": 0.5}})
    page.wait_for_selector('.fv-viewport[data-state="busy"]')
    context.close()


def test_hair_changes_in_the_browser_and_only_its_style_needs_a_request(browser, site, head):  # noqa: F811
    styled = fv.edit(head, hair="short03")
    start = site[1]["start"] | {"hair": start_of(styled)}
    with open_studio(browser, site, parts=site[1]["styled"], hair=base_of(styled), start=start) as page:
        page.click("#fv-tab-hair")
        assert page.get_attribute("[data-hair-style=short03]", "aria-pressed") == "true"
        before = picture(page)
        page.click("[data-hair-color='#b3925f']")
        page.wait_for_timeout(300)
        dyed = picture(page)
        assert brightness(dyed) > brightness(before) + 2, "blond hair is brighter"
        page.evaluate("""() => { const state = faceverse.state();
            faceverse.setState({ ...state, hair: { ...state.hair, volume: 2.5 } }); }""")
        page.wait_for_timeout(300)
        assert np.abs(picture(page).astype(float) - dyed).mean() > 0.5, "more volume shows"
        assert page.evaluate("faceverse.state().hair.color") == "#b3925f"
        assert not [event for event in page.evaluate("events") if event[0] == "edit"], "no request so far"
        page.click("[data-hair-style=short04]")
        page.wait_for_function("events.some(([name]) => name === 'edit')")
        sent = page.evaluate("events.filter(([name]) => name === 'edit').at(-1)[1].state.hair")
        assert (sent["style"], sent["volume"], sent["color"]) == ("short04", 1, "#b3925f")


def test_without_hair_there_is_no_tab_for_it(browser, site):  # noqa: F811
    with open_studio(browser, site) as page:
        assert not page.locator("#fv-tab-hair").is_visible()


def brightness(pixels):
    return pixels[: len(pixels) // 3, ..., :3].astype(float).mean()
