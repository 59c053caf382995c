// Parts in the browser against the library: how they follow a head, and which faces of the head they replace.

import assert from "node:assert/strict";
import { test } from "node:test";

import { readPack, unpackModel } from "../../demo/assets/files.js";
import { Edges, LID_SHADOWS, MOUTH_CURVE } from "../../demo/assets/occlusion.js";
import { BoundPart, rigidMotion, skinFaces, vertexNormals } from "../../demo/assets/parts.js";
import { assertClose, bytes, floats, largestDifference, numbers } from "./numbers.mjs";

const { heads, head, skin, edges, mouthCurve, lidShadows } = numbers.parts;
const model = unpackModel(await readPack(bytes(numbers.parts.model)));

function transformed(m, points) {
  const moved = new Float32Array(points.length);
  for (let i = 0; i < points.length; i++) {
    const row = i % 3, [x, y, z] = points.subarray(i - row, i - row + 3);
    moved[i] = m[row] * x + m[4 + row] * y + m[8 + row] * z + m[12 + row];
  }
  return moved;
}

const verticesOf = (part) => (part.isSurface ? part.vertices : transformed(part.matrix, part.vertices));

for (const { neutral, vertices, parts } of heads) {
  for (const { name, pack, placed, followed } of parts) {
    test(`a part follows the head: ${name}`, async () => {
      const part = new BoundPart(await readPack(bytes(pack))), start = floats(neutral);
      part.place(start);
      part.follow(start);
      assertClose(verticesOf(part), floats(placed), 5e-6, "vertices on the neutral head");
      part.follow(floats(vertices));
      assertClose(verticesOf(part), floats(followed), 5e-6, "vertices with the expression");
      part.follow(start);
      assertClose(verticesOf(part), floats(placed), 5e-6, "vertices on the neutral head again");
    });
  }
}

test("the examples move and the kinds are all there", async () => {
  const kinds = await Promise.all(heads[0].parts.map(async ({ pack }) => (await readPack(bytes(pack))).kind));
  assert.deepEqual(kinds.sort(), ["affine", "rigid", "surface"]);
  for (const { parts } of heads) {
    const moved = parts.map(({ placed, followed }) => largestDifference(floats(followed), floats(placed)));
    assert.ok(Math.max(...moved) > 2e-3, `${moved}`);
  }
});

test("a rigid motion is found, also by half a turn and of points in a plane", () => {
  const center = [0.1, -0.2, 0.3];
  for (const points of [[1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 1, 1], [1, 0, 0, 0, 2, 0, -1, 0.5, 0, 0.3, -1, 0]]) {
    for (const [w, x, y, z] of [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.6, 0.8], [0.5, 0.5, -0.5, 0.5]]) {
      const rotation = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
      ];
      const moved = points.map((_, i) => {
        const at = i - (i % 3), row = 3 * (i % 3);
        return rotation[row] * points[at] + rotation[row + 1] * points[at + 1] + rotation[row + 2] * points[at + 2]
          + center[i % 3];
      });
      const found = rigidMotion(around(points), around(moved));
      assertClose(transformed(found, Float64Array.from(points)), moved, 1e-6);
    }
  }
});

function around(points) {
  const mean = [0, 1, 2].map((axis) => points.filter((_, i) => i % 3 === axis).reduce((a, b) => a + b) / (points.length / 3));
  return { mean, offsets: points.map((value, i) => value - mean[i % 3]) };
}

test("faces that parts replace are left out", async () => {
  const { isSkin } = await readPack(bytes(head)), expected = new Uint32Array(bytes(skin));
  assert.ok(expected.length < model.cornerFaces.length - 1000);
  assert.deepEqual(Array.from(skinFaces(model.cornerFaces, isSkin), (corner) => model.vertexOfCorner[corner]), [...expected]);
});

test("the openings that let light in are edges of lips and lids", async () => {
  const found = new Edges();
  found.setHead(await readPack(bytes(head)));
  found.follow(floats(heads[1].vertices));
  for (const [name, files] of Object.entries(edges)) {
    assert.ok(found.has(name), name);
    const { upper, lower } = found.openings[name];
    [upper, lower].forEach((points, k) => assertClose(points, floats(files[k]), 1e-6, name));
  }
  assert.equal(MOUTH_CURVE, mouthCurve);
  assert.deepEqual(LID_SHADOWS, lidShadows);
});

test("normals of a corner of a cube point outwards", () => {
  const normals = vertexNormals([0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1], [0, 2, 1, 0, 1, 3, 0, 3, 2]);
  assertClose(normals.subarray(0, 3), [-1, -1, -1].map((value) => value / Math.sqrt(3)), 1e-6);
});
