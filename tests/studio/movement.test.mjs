// What moves: transitions between states, the orbit camera, motions, the light.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { readPack } from "../../demo/assets/files.js";
import { lightColour, lightDirection } from "../../demo/assets/lighting.js";
import { Motion, ROW, clock as clockText } from "../../demo/assets/motion.js";
import { FIELD_OF_VIEW_DEG, OrbitCamera, cameraOffset, fieldOfView, shortestTurn } from "../../demo/assets/orbit.js";
import { rowsOf } from "../../demo/assets/panel.js";
import { Transition, interpolate } from "../../demo/assets/transition.js";
import { FakeClock } from "./clock.mjs";
import { assertClose, bytes, floats, numbers } from "./numbers.mjs";

let clock;
beforeEach(() => { clock = new FakeClock(); });
afterEach(() => clock.restore());

const state = (jawOpen, yaw = 0) => ({ expression: { jawOpen }, attributes: {}, pose: { yaw }, strength: jawOpen });

function transition() {
  const drawn = [];
  return { drawn, moving: new Transition((shown) => drawn.push(structuredClone(shown))) };
}

test("a transition passes through the states between and ends exactly at its target", () => {
  const { drawn, moving } = transition();
  moving.show(state(0.1));
  moving.to(state(0.7, 30));
  assert.ok(moving.isRunning);
  clock.advance(1000);
  assert.ok(!moving.isRunning);
  const jaw = drawn.map((shown) => shown.expression.jawOpen);
  assert.ok(jaw.length > 10);
  assert.deepEqual([jaw[0], jaw.at(-1)], [0.1, 0.7]);
  assert.ok(jaw.every((value, k) => k === 0 || value >= jaw[k - 1]));
  assert.ok(jaw.slice(2, -1).every((value) => value > 0.1 && value < 0.7));
  assert.deepEqual(drawn.at(-1), state(0.7, 30));
});

test("a transition that is interrupted starts from where the head is", () => {
  const { drawn, moving } = transition();
  moving.show(state(0));
  moving.to(state(1));
  clock.advance(130);
  const middle = drawn.at(-1).expression.jawOpen;
  assert.ok(middle > 0.3 && middle < 0.7);
  moving.to(state(0));
  clock.advance(17);
  assert.ok(Math.abs(drawn.at(-1).expression.jawOpen - middle) < 0.1);
  clock.advance(1000);
  assert.deepEqual(drawn.at(-1), state(0));
  moving.to(state(1));
  moving.stop();
  clock.advance(1000);
  assert.deepEqual(drawn.at(-1), state(0));
});

test("the first state, and reduced motion, are shown at once", () => {
  const { drawn, moving } = transition();
  moving.to(state(0.5));
  clock.reducedMotion = true;
  moving.to(state(1));
  assert.deepEqual(drawn, [state(0.5), state(1)]);
  assert.ok(!moving.isRunning);
});

test("names that only one state has fade in and out", () => {
  assert.deepEqual(interpolate({ a: 1 }, { b: 2 }, 0.25), { a: 0.75, b: 0.5 });
});

test("a turn takes the shorter way round", () => {
  for (const [from, to, expected] of [[0, 1, 1], [3, -3, 2 * Math.PI - 6], [-3, 3, 6 - 2 * Math.PI], [0, 7, 7 - 2 * Math.PI]]) {
    assertClose([shortestTurn(from, to)], [expected], 1e-9);
  }
});

test("the head fits into a frame of any aspect", () => {
  const visible = (aspect) => {
    const height = 2 * cameraOffset(0, 0, aspect)[2] * Math.tan((FIELD_OF_VIEW_DEG * Math.PI) / 360);
    return [height, height * aspect];
  };
  assertClose(visible(2), [0.34, 0.68], 1e-9);
  assertClose([visible(0.5)[1]], [0.34 * 0.78], 1e-9);
  const [x, y, z] = cameraOffset(Math.PI / 2, 0.3, 1);
  assertClose([Math.hypot(x, y, z)], [cameraOffset(0, 0, 1)[2]], 1e-9, "the distance stays");
  assert.ok(x > 0 && y > 0 && Math.abs(z) < 1e-9, "yaw to the head's left, pitch upwards");
  const half = (zoom) => Math.tan((fieldOfView(zoom) * Math.PI) / 360);
  assertClose([fieldOfView(1), half(1) / half(4)], [FIELD_OF_VIEW_DEG, 4], 1e-9, "zoom 4 shows a quarter");
});

function orbit(grab = () => false) {
  const listeners = {}, size = { width: 400, height: 300 };
  const canvas = {
    clientWidth: size.width, clientHeight: size.height, setPointerCapture: () => {},
    addEventListener: (name, run) => { listeners[name] = run; },
    getBoundingClientRect: () => ({ left: 10, top: 20, ...size }),
  };
  const camera = new OrbitCamera(canvas, { onChange: () => {}, grab });
  const send = (name, event) => listeners[name]({ preventDefault: () => {}, ...event });
  return { camera, send };
}

// Where a camera draws a point, given from the head's centre in metres: (right, down) from the middle, pixels.
function drawn(camera, point) {
  const view = { aspect: 400 / 300, position: {}, updateProjectionMatrix: () => {}, lookAt(...at) { this.at = at; } };
  camera.updateCamera(view, { x: 0, y: 0, z: 0 });
  const eye = [view.position.x, view.position.y, view.position.z];
  const minus = (a, b) => a.map((value, k) => value - b[k]), dot = (a, b) => a.reduce((sum, value, k) => sum + value * b[k], 0);
  const cross = ([a, b, c], [x, y, z]) => [b * z - c * y, c * x - a * z, a * y - b * x];
  const unit = (a) => a.map((value) => value / Math.hypot(...a));
  const ahead = unit(minus(view.at, eye)), right = unit(cross(ahead, [0, 1, 0])), up = cross(right, ahead);
  const from = minus(point, eye), depth = dot(from, ahead), scale = 150 / Math.tan((view.fov * Math.PI) / 360) / depth;
  return { place: [dot(from, right) * scale, -dot(from, up) * scale], depth };
}

test("dragging turns the camera, and two fingers zoom and move", () => {
  const { camera, send } = orbit();
  send("pointerdown", { pointerId: 1, clientX: 100, clientY: 100 });
  send("pointermove", { pointerId: 1, clientX: 200, clientY: 50 });
  assertClose([camera.yaw, camera.pitch], [-1, -0.5], 1e-9);
  send("pointerdown", { pointerId: 2, clientX: 200, clientY: 150 });
  send("pointermove", { pointerId: 2, clientX: 200, clientY: 250 });
  assertClose([camera.zoom], [2], 1e-9);
  assertClose([camera.yaw], [-1], 1e-9);
  const { place } = drawn(camera, [0, 0, 0]);
  send("pointermove", { pointerId: 1, clientX: 220, clientY: 60 });
  send("pointermove", { pointerId: 2, clientX: 220, clientY: 260 });
  const moved = drawn(camera, [0, 0, 0]).place;
  assertClose([moved[0] - place[0], moved[1] - place[1]], [20, 10], 1, "both fingers by (20, 10)");
});

test("the right button, and Shift, move the head with the pointer", () => {
  for (const how of [{ button: 2 }, { shiftKey: true }]) {
    const { camera, send } = orbit();
    camera.turnTo(0.7, 0.4);
    const { place } = drawn(camera, [0, 0, 0]);
    send("pointerdown", { pointerId: 1, clientX: 100, clientY: 100, ...how });
    send("pointermove", { pointerId: 1, clientX: 130, clientY: 80 });
    const moved = drawn(camera, [0, 0, 0]).place;
    assertClose([moved[0] - place[0], moved[1] - place[1]], [30, -20], 0.1);
    assertClose([camera.yaw, camera.pitch], [0.7, 0.4], 1e-9);
  }
  const { camera, send } = orbit();
  send("keydown", { key: "ArrowLeft", shiftKey: true });
  assertClose(drawn(camera, [0, 0, 0]).place, [-24, 0], 0.1);
});

test("the wheel zooms to the cursor", () => {
  const { camera, send } = orbit();
  const point = [0.05, 0.04, 0], cursor = drawn(camera, point).place;
  send("wheel", { deltaY: -500, clientX: 10 + 200 + cursor[0], clientY: 20 + 150 + cursor[1] });
  assert.ok(camera.zoom > 1.5);
  assertClose(drawn(camera, point).place, cursor, 1e-6, "the point stays below the cursor");
});

test("a double click centres what it hits, and beside the head shows the whole head", () => {
  const { camera, send } = orbit(), point = [0.05, 0.04, 0], [right, down] = drawn(camera, point).place;
  send("dblclick", { clientX: 210 + right, clientY: 170 + down });
  clock.advance(1000);
  assertClose(drawn(camera, point).place, [0, 0], 1e-6);
  camera.zoomBy(2);
  camera.moveTo({ pan: [0.17, 0, 0] });
  send("dblclick", { clientX: 405, clientY: 170 });
  clock.advance(1000);
  assert.deepEqual([camera.zoom, ...camera.pan], [1, 0, 0, 0]);
});

test("no view comes close enough to cut the nose off", () => {
  const { camera } = orbit(), near = 0.02;
  for (const yaw of [-3, -1.5, 0, 0.8]) {
    for (const pitch of [-1.3, 0, 1.3]) {
      for (const pan of [[1, 1, 1], [-1, -1, -1], [0, 0, -1]]) {
        camera.moveTo({ yaw, pitch, zoom: 100, pan });
        assert.ok(drawn(camera, [0, -0.03, 0.15]).depth > 4 * near, `${yaw} ${pitch} ${pan}`);
      }
    }
  }
});

test("a drag that something else handles does not turn the camera", () => {
  const grabbed = [], { camera, send } = orbit((dx, dy, isLast) => grabbed.push([dx, dy, isLast]));
  send("pointerdown", { pointerId: 1, clientX: 0, clientY: 0 });
  send("pointermove", { pointerId: 1, clientX: 100, clientY: 0 });
  send("pointerup", { pointerId: 1 });
  assert.deepEqual(grabbed, [[1, 0, false], [0, 0, true]]);
  assert.equal(camera.yaw, 0);
});

test("wheel, keys and reset stay within the camera's range", () => {
  const { camera, send } = orbit();
  send("wheel", { deltaY: -10_000, clientX: 0, clientY: 0 });
  assert.equal(camera.zoom, 8);
  for (let k = 0; k < 50; k++) send("keydown", { key: "ArrowUp" });
  assert.equal(camera.pitch, 1.3);
  camera.turnTo(5, 0.5);
  camera.reset();
  clock.advance(1000);
  assert.deepEqual([camera.yaw, camera.pitch, camera.zoom, ...camera.pan], [0, 0, 1, 0, 0, 0]);
});

test("a motion gives back its frames, and interpolates between them", async () => {
  const { pack, times, angles, expression, translation } = numbers.motion;
  const motion = new Motion(await readPack(bytes(pack)));
  const seconds = floats(times), yaw = floats(angles), weights = floats(expression), width = motion.names.length;
  assertClose([motion.seconds], [seconds.at(-1) - seconds[0]], 1e-6);
  for (let frame = 0; frame < motion.frames; frame++) {
    const row = motion.at(seconds[frame] - seconds[0]);
    assertClose(row.slice(ROW.yaw, ROW.roll + 1), yaw.slice(3 * frame, 3 * frame + 3), 1e-3, "angles");
    assertClose(row.slice(ROW.weights), weights.slice(width * frame, width * (frame + 1)), 1e-5, "weights");
  }
  const [first, second] = [0, 1].map((frame) => motion.at(seconds[frame] - seconds[0]));
  const between = motion.at(0.75 * (seconds[1] - seconds[0]));
  assertClose(between, first.map((value, k) => 0.25 * value + 0.75 * second[k]), 1e-5);
  assert.deepEqual(motion.at(1e6), motion.at(motion.seconds));
  assert.deepEqual(motion.at(-1), motion.at(0));
  assertClose(motion.restPosition, translation, 1e-6, "the median of the translation");
});

test("a time is written as minutes and seconds", () => {
  assert.deepEqual([0, 5.04, 59.99, 62.5, 600].map(clockText), ["0:00.0", "0:05.0", "0:59.9", "1:02.5", "10:00.0"]);
});

test("the key light comes from where the library lights a head", () => {
  for (const { yaw, pitch, direction } of numbers.lights) {
    assertClose(lightDirection(yaw, pitch), direction, 1e-5, `light at ${yaw}, ${pitch}`);
  }
  assert.deepEqual(lightColour(0), [1, 1, 1]);
  const [red, , blue] = lightColour(1), [coldRed, , coldBlue] = lightColour(-1);
  assert.ok(red > blue && coldBlue > coldRed);
  assertClose(lightColour(0.5), lightColour(1).map((channel) => (1 + channel) / 2), 1e-9);
});

test("sliders pair the sides of the face, but not directions", () => {
  const names = ["jawLeft", "jawRight", "mouthSmileLeft", "mouthSmileRight", "eyeLookInRight", "eyeLookOutLeft", "cheekPuff"];
  const rows = rowsOf(names);
  assert.deepEqual(rows.filter(([, , kind]) => kind !== "half"), [
    ["jawLeft", ["jawLeft"], "single"], ["jawRight", ["jawRight"], "single"],
    ["mouthSmile", ["mouthSmileLeft", "mouthSmileRight"], "pair"],
    ["lookLeft", ["eyeLookInRight", "eyeLookOutLeft"], "pair"], ["cheekPuff", ["cheekPuff"], "single"],
  ]);
  assert.deepEqual(rows.filter(([, , kind]) => kind === "half").map(([name]) => name),
    ["mouthSmileLeft", "mouthSmileRight", "eyeLookInRight", "eyeLookOutLeft"]);
});
