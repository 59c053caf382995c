// Editing state, undo history and edit requests.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { History } from "../../demo/assets/history.js";
import { EditRequests } from "../../demo/assets/requests.js";
import { complete, copy, emptyState } from "../../demo/assets/state.js";
import { FakeClock } from "./clock.mjs";

let clock;
beforeEach(() => { clock = new FakeClock(); });
afterEach(() => clock.restore());

const smile = (amount) => ({ ...emptyState(), expression: { mouthSmileLeft: amount } });

test("undo and redo walk through the states", () => {
  const history = new History(smile(0));
  for (const amount of [0.2, 0.4]) history.add(smile(amount));
  assert.ok(history.canUndo && !history.canRedo);
  assert.deepEqual(history.step(-1), smile(0.2));
  assert.deepEqual(history.step(-1), smile(0));
  assert.equal(history.step(-1), null);
  assert.ok(!history.canUndo && history.canRedo);
  assert.deepEqual(history.step(1), smile(0.2));
  assert.deepEqual(history.step(1), smile(0.4));
  assert.equal(history.step(1), null);
});

test("a new state after an undo replaces what was undone", () => {
  const history = new History(smile(0));
  for (const amount of [0.2, 0.4]) history.add(smile(amount));
  history.step(-1);
  history.add(smile(0.9));
  assert.ok(!history.canRedo);
  assert.deepEqual(history.step(-1), smile(0.2));
});

test("quick changes of one control are one step", () => {
  const history = new History(smile(0));
  for (const amount of [0.1, 0.2, 0.3]) {
    history.add(smile(amount), "smile");
    clock.advance(300);
  }
  assert.deepEqual(history.step(-1), smile(0));
  assert.deepEqual(history.step(1), smile(0.3));
});

test("slow changes, other controls and changes after an undo are steps of their own", () => {
  const history = new History(smile(0));
  history.add(smile(0.1), "smile");
  clock.advance(800);
  history.add(smile(0.2), "smile");
  history.add(smile(0.3), "jaw");
  assert.deepEqual(history.step(-1), smile(0.2));
  history.add(smile(0.4), "smile");
  assert.deepEqual(history.step(-1), smile(0.2));
  assert.deepEqual(history.step(-1), smile(0.1));
  assert.deepEqual(history.step(-1), smile(0));
});

test("the history keeps copies, and the same state is no step", () => {
  const state = smile(0.5), history = new History(smile(0));
  history.add(state);
  state.expression.mouthSmileLeft = 1;
  assert.deepEqual(history.step(-1), smile(0));
  const redone = history.step(1);
  assert.deepEqual(redone, smile(0.5));
  redone.expression.mouthSmileLeft = 7;
  history.add(smile(0.5));
  assert.deepEqual(history.step(-1), smile(0));
  history.clear(smile(1));
  assert.ok(!history.canUndo && !history.canRedo);
});

test("a partial state is completed and clamped", () => {
  const state = complete(
    { expression: { jawOpen: 2, eyeYaw: -40 }, attributes: { age: 99, gender: 0, weight: NaN }, strength: 5, pose: { yaw: 9 } },
    { age: [-10, 40], eyeYaw: [-30, 30] },
  );
  assert.deepEqual(state.expression, { jawOpen: 1, eyeYaw: -30 });
  assert.deepEqual(state.attributes, { age: 40 });
  assert.deepEqual(state.pose, { yaw: 9, pitch: 0, roll: 0 });
  assert.deepEqual([state.strength, state.skin], [2, 0]);
  assert.deepEqual(complete(null), emptyState());
  const proxied = new Proxy(smile(0.3), {});
  assert.deepEqual(copy(proxied), smile(0.3));
});

test("one edit request at a time, and the latest state is sent", () => {
  const sent = [], requests = new EditRequests(({ state }) => sent.push(state.attributes.age));
  requests.colours.add("age");
  const request = (age) => requests.request({ ...emptyState(), attributes: { age } });
  request(1);
  request(2);
  assert.deepEqual(sent, []);
  clock.advance(60);
  assert.deepEqual(sent, [2]);
  request(3);
  request(4);
  clock.advance(1000);
  assert.deepEqual(sent, [2]);
  requests.answered();
  clock.advance(60);
  assert.deepEqual(sent, [2, 4]);
  request(4);
  requests.answered();
  clock.advance(60);
  assert.deepEqual(sent, [2, 4], "the server shows this state already");
});

test("a lost answer does not block requests for ever", () => {
  const sent = [], requests = new EditRequests(({ state }) => sent.push(state.skin));
  requests.request({ ...emptyState(), skin: 1 });
  clock.advance(60);
  requests.request({ ...emptyState(), skin: 2 });
  clock.advance(2000);
  assert.deepEqual(sent, [1]);
  clock.advance(2000);
  assert.deepEqual(sent, [1, 2]);
});

test("changes that the browser shows itself are not sent", () => {
  const sent = [], requests = new EditRequests((data) => sent.push(data));
  requests.colours.add("age");
  requests.request({ ...smile(0.5), attributes: { nose_width: 3 }, pose: { yaw: 20 }, strength: 2 });
  clock.advance(5000);
  assert.deepEqual(sent, []);
  requests.request({ ...emptyState(), mix: { identity: 0.5 } });
  clock.advance(60);
  assert.equal(sent.length, 1);
  requests.reset({ ...emptyState(), skin: 3 });
  requests.request({ ...emptyState(), skin: 3 });
  clock.advance(60);
  assert.equal(sent.length, 1);
});
