// Hair in the browser against the library: its shape on a head, its colour, and how it turns grey.

import assert from "node:assert/strict";
import { test } from "node:test";

import { readPack } from "../../demo/assets/files.js";
import { BoundHair, RANGES, agedGrey, hairTint, shapeOf } from "../../demo/assets/hair_shape.js";
import { assertClose, bytes, floats, largestDifference, numbers } from "./numbers.mjs";

const { shape, styles, vertices, faces, ranges, tint, grey } = numbers.hair;
const triangles = new Uint32Array(bytes(faces));

// Distances between two sets of points, from small to large.
function distances(actual, expected) {
  assert.equal(actual.length, expected.length);
  const found = [];
  for (let i = 0; i < actual.length; i += 3) {
    found.push(Math.hypot(actual[i] - expected[i], actual[i + 1] - expected[i + 1], actual[i + 2] - expected[i + 2]));
  }
  return found.sort((a, b) => a - b);
}

for (const { name, pack, head, placed, followed, normals } of styles) {
  test(`hair follows the head and its numbers: ${name}`, async () => {
    const hair = new BoundHair(await readPack(bytes(pack))), { neutral, hairWarp } = await readPack(bytes(head));
    hair.place(neutral, shape, triangles, hairWarp);
    const found = distances(hair.vertices, floats(placed));
    // Where two places of the skin are equally close, hair may leave it either way.
    assert.ok(found[Math.floor(0.995 * found.length)] < 5e-5, `all but a few: ${found[Math.floor(0.995 * found.length)]}`);
    assert.ok(found.at(-1) < 4e-3, `the farthest: ${found.at(-1)}`);
    const turned = distances(hair.normals, floats(normals));
    assert.ok(turned[Math.floor(0.98 * turned.length)] < 0.02, `normals: ${turned[Math.floor(0.98 * turned.length)]}`);
    hair.follow(floats(vertices));
    const moved = new Float32Array(hair.vertices.length), m = hair.matrix;
    for (let i = 0; i < moved.length; i++) {
      const row = i % 3, [x, y, z] = hair.vertices.subarray(i - row, i - row + 3);
      moved[i] = m[row] * x + m[4 + row] * y + m[8 + row] * z + m[12 + row];
    }
    const after = distances(moved, floats(followed));
    assert.ok(after[Math.floor(0.995 * after.length)] < 5e-5);
  });

  test(`every number of the shape moves hair: ${name}`, async () => {
    const hair = new BoundHair(await readPack(bytes(pack))), { neutral } = await readPack(bytes(head));
    const made = { length: 1, volume_top: 1, volume_sides: 1, volume_back: 1, fringe: 1, wave: 0 };
    hair.place(neutral, made, triangles);
    const start = hair.vertices.slice();
    for (const key of Object.keys(made)) {
      hair.place(neutral, { ...made, [key]: key === "wave" ? 1 : 0.5 }, triangles);
      assert.ok(largestDifference(hair.vertices, start) > 1e-3, key);
    }
    hair.place(neutral, made, triangles);
    assertClose(hair.vertices, start, 1e-7, "the shape as made again");
  });
}

test("ranges are those of the library", () => assert.deepEqual(RANGES, ranges));

test("a texture gets the mean colour of pigmented and grey hairs", () => {
  const found = hairTint(tint.color, tint.grey, "hair").map((factor) => factor * tint.luminance);
  assertClose(found, tint.mean, 1e-6);
  hairTint(tint.color, tint.grey, "scalp").forEach((factor, k) => assert.ok(factor * tint.luminance < tint.mean[k]));
});

test("hair turns grey as in the library", () => {
  for (const example of grey) {
    assertClose([agedGrey(example.grey, example.before, example.after)], [example.found], 1e-9);
  }
});

test("one slider moves the volumes of a fitted head together", () => {
  const base = { length: 0.9, fringe: 1, wave: 0.1, volume_top: 1.2, volume_sides: 0.9, volume_back: 0.9 };
  assert.deepEqual(shapeOf({ volume: 1, length: 0.9, fringe: 1, wave: 0.1 }, base), base);
  const wide = shapeOf({ volume: 2, length: 0.5, fringe: 1, wave: 0.1 }, base);
  assert.deepEqual([wide.volume_top, wide.volume_sides, wide.length], [2.4, 1.8, 0.5]);
});
