// Mixing of expression wrinkles: weights of the atlas' tiles, and the slopes that they add up to.

import assert from "node:assert/strict";
import { test } from "node:test";

import { wrinkleWeights } from "../../demo/assets/wrinkles.js";
import { assertClose, bytes, floats, numbers } from "./numbers.mjs";

const model = {
  names: ["browInnerUp", "mouthSmileLeft", "mouthSmileRight", "jawOpen"],
  wrinkles: [{ browInnerUp: 0.5 }, { mouthSmileLeft: 1, mouthSmileRight: 1 }, {}],
};

test("the fitted expression shows its own wrinkles and no others", () => {
  const fitted = { mouthSmileLeft: 0.9, mouthSmileRight: 0.7 };
  assert.deepEqual(wrinkleWeights(fitted, fitted, model), { own: 1, left: [0, 0, 0], right: [0, 0, 0] });
});

test("a neutral fit has no wrinkles of its own", () => {
  const weights = wrinkleWeights({ browInnerUp: 0.25 }, {}, model);
  assert.deepEqual(weights, { own: 0, left: [0.5, 0, 0], right: [0.5, 0, 0] });
});

test("each side of the face has the wrinkles of its own expressions", () => {
  const { left, right } = wrinkleWeights({ mouthSmileLeft: 0.8 }, {}, model);
  assertClose([left[1], right[1]], [0.8, 0], 1e-9);
});

test("own wrinkles fade out with the distance from the fitted expression", () => {
  const fitted = { jawOpen: 1 };
  const own = [1, 0.9, 0.5, 0].map((jawOpen) => wrinkleWeights({ jawOpen }, fitted, model).own);
  assertClose(own, [1, 0.99, 0.75, 0], 1e-9);
  assert.equal(wrinkleWeights({ jawOpen: 1, mouthSmileLeft: 1 }, fitted, model).own, 0);
});

test("the mixed tiles are the wrinkles that the library computes", () => {
  const { atlas, tilePx, scale, names, wrinkles, fitted, examples } = numbers.wrinkles;
  const texels = new Uint8Array(bytes(atlas));
  const slope = (tile, texel, axis) => {
    const column = (tile % 4) * tilePx + (texel % tilePx), row = Math.floor(tile / 4) * tilePx + Math.floor(texel / tilePx);
    return ((texels[3 * (row * 4 * tilePx + column) + axis] - 128) / 127) * scale;
  };
  for (const { name, expression, slopes } of examples) {
    const { own, left, right } = wrinkleWeights(expression, fitted, { names, wrinkles });
    assertClose(left, right, 1e-9, `sides of ${name}`);
    const expected = floats(slopes), mixed = new Float32Array(expected.length);
    for (let texel = 0; texel < tilePx * tilePx; texel++) {
      for (let axis = 0; axis < 2; axis++) {
        let sum = own * slope(0, texel, axis);
        left.forEach((weight, k) => { sum += weight * slope(k + 1, texel, axis); });
        mixed[2 * texel + axis] = sum;
      }
    }
    assertClose(mixed, expected, 0.01, name);
    assert.ok(expected.some((value) => Math.abs(value) > 0.02), `${name} has wrinkles`);
  }
});
