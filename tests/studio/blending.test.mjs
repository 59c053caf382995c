// Blending in the browser against the library: vertices, normals, tangents, gains, colours.

import assert from "node:assert/strict";
import { test } from "node:test";

import { BlendedHead } from "../../demo/assets/blending.js";
import { readPack, unpackModel } from "../../demo/assets/files.js";
import { assertClose, bytes, floats, largestDifference, numbers } from "./numbers.mjs";

const models = new Map();

async function headOf(model, pack) {
  if (!models.has(model)) models.set(model, unpackModel(await readPack(bytes(model))));
  const head = new BlendedHead(models.get(model));
  head.setHead(await readPack(bytes(pack)));
  return head;
}

for (const example of numbers.blends) {
  test(`blending: ${example.name}`, async () => {
    const head = await headOf(example.model, example.head);
    assert.deepEqual(head.blend(example.expression, example.attributes), { moved: true, tinted: true });
    assertClose(head.base, floats(example.neutral), example.tolerance, "neutral vertices");
    assertClose(head.vertices, floats(example.vertices), example.tolerance, "vertices");
    const gains = head.model.names.map((_, k) => head.gainOf(k));
    assertClose(gains, floats(example.gains), 2e-3, "gains");
    const expected = floats(example.colours), byVertex = new Float32Array(expected.length);
    head.model.vertexOfCorner.forEach((vertex, corner) => {
      for (let c = 0; c < 3; c++) byVertex[3 * vertex + c] = head.colours[3 * corner + c];
    });
    assertClose(byVertex, expected, 0.02, "colour factors");
    const moved = largestDifference(head.vertices, head.neutral);
    assert.ok(moved > 1e-3, `the example moves vertices by ${moved} m only`);
  });
}

test("normals and tangents of the blended surface", async () => {
  const { model, head: pack, expression, attributes, normals, tangents, usable } = numbers.frames;
  const head = await headOf(model, pack);
  head.blend(expression, attributes);
  const mask = new Uint8Array(bytes(usable)), expectedNormals = floats(normals), expectedTangents = floats(tangents);
  let checked = 0;
  for (let corner = 0; corner < mask.length; corner++) {
    const normal = head.cornerNormals.subarray(3 * corner, 3 * corner + 3);
    assertClose(normal, expectedNormals.subarray(3 * corner, 3 * corner + 3), 5e-3, `normal ${corner}`);
    if (!mask[corner]) continue;
    checked++;
    const tangent = head.tangents.subarray(4 * corner, 4 * corner + 4);
    assertClose(tangent, expectedTangents.subarray(4 * corner, 4 * corner + 4), 1e-2, `tangent ${corner}`);
    assert.ok(Math.abs(tangent[0] * normal[0] + tangent[1] * normal[1] + tangent[2] * normal[2]) < 1e-5);
  }
  assert.ok(checked > 0.9 * mask.length);
});

test("each expression alone is a mode of the model", async () => {
  const { model, head: pack, modes } = numbers.modes;
  const head = await headOf(model, pack), expected = floats(modes), size = head.neutral.length;
  head.gain.fill(1);
  head.model.names.forEach((name, k) => {
    head.blend({ [name]: 1 }, {});
    const moved = head.vertices.map((value, i) => value - head.neutral[i]);
    assertClose(moved, expected.subarray(k * size, (k + 1) * size), 2.1e-5, name);
  });
});

test("the colour factor is that of the library's texture", async () => {
  const { model, head: pack, attributes, ratios, vertices } = numbers.texture;
  const head = await headOf(model, pack);
  head.blend({}, attributes);
  const cornerOf = new Map();
  head.model.vertexOfCorner.forEach((vertex, corner) => cornerOf.set(vertex, corner));
  const expected = floats(ratios);
  const differences = new Uint32Array(bytes(vertices)).reduce((all, vertex, row) => {
    for (let c = 0; c < 3; c++) all.push(Math.abs(head.colours[3 * cornerOf.get(vertex) + c] - expected[3 * row + c]));
    return all;
  }, []).sort((a, b) => a - b);
  assert.ok(differences[differences.length >> 1] < 0.03);
});

test("only changes are blended, and attributes can be taken back", async () => {
  const { model, head: pack, expression, attributes } = numbers.frames;
  const head = await headOf(model, pack);
  head.blend({}, {});
  const neutral = head.vertices.slice();
  assert.deepEqual(head.blend({}, {}), { moved: false, tinted: false });
  assert.equal(head.blend(expression, attributes).moved, true);
  assert.ok(largestDifference(head.vertices, neutral) > 1e-3);
  assert.equal(head.blend({}, {}).moved, true);
  assertClose(head.vertices, neutral, 1e-7);
  assert.ok(head.colours.every((factor) => Math.abs(factor - 1) < 1e-6));
  const { shape } = head;
  head.blend(expression, {});
  assert.equal(head.shape, shape, "an expression leaves the neutral head as it is");
  head.blend(expression, attributes);
  assert.notEqual(head.shape, shape);
});

test("weights scale expressions linearly, within the limits of the gain", async () => {
  const { model, head: pack } = numbers.frames;
  const head = await headOf(model, pack), moved = [];
  for (const weight of [0.5, 1]) {
    head.blend({ jawOpen: weight }, {});
    moved.push(head.vertices.map((value, i) => value - head.neutral[i]));
  }
  assertClose(moved[0].map((value) => 2 * value), moved[1], 1e-6);
  head.gain.fill(100);
  assert.equal(head.gainOf(0), 2);
  head.gain.fill(0);
  assert.equal(head.gainOf(0), 0.5);
});
