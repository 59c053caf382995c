// What a tab remembers of a visit.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Visit } from "../../demo/assets/visit.js";

function storage() {
  const entries = new Map();
  return {
    entries, getItem: (name) => entries.get(name) ?? null, setItem: (name, value) => { entries.set(name, value); },
    removeItem: (name) => { entries.delete(name); },
  };
}

test("nothing is remembered unless the visitor wants it", () => {
  const place = storage(), visit = new Visit(place);
  visit.remember(7, { skin: 3 });
  assert.equal(place.entries.size, 0);
  assert.equal(visit.stateOf(7), null);
});

test("the sliders come back once, for the same person", () => {
  const place = storage();
  new Visit(place).token = "secret";
  new Visit(place).remember(7, { skin: 3 });
  assert.equal(new Visit(place).token, "secret");
  assert.deepEqual(new Visit(place).stateOf(7), { skin: 3 });
  assert.equal(new Visit(place).stateOf(7), null);
  new Visit(place).remember(7, { skin: 3 });
  assert.equal(new Visit(place).stateOf(8), null);
});

test("an empty token forgets all", () => {
  const place = storage(), visit = new Visit(place);
  visit.token = "secret";
  visit.remember(7, {});
  visit.token = "";
  assert.equal(place.entries.size, 0);
});
