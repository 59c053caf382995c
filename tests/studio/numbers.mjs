// Numbers that tests/test_studio_js.py exports with the library, in the folder of FACEVERSE_STUDIO_NUMBERS.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const folder = process.env.FACEVERSE_STUDIO_NUMBERS;
if (!folder) throw new Error("run these tests by pytest tests/test_studio_js.py, which exports their numbers");

export const numbers = JSON.parse(readFileSync(join(folder, "numbers.json"), "utf8"));

// Contents of a file as an ArrayBuffer.
export function bytes(name) {
  const content = readFileSync(join(folder, name));
  return content.buffer.slice(content.byteOffset, content.byteOffset + content.byteLength);
}

export const floats = (name) => new Float32Array(bytes(name));

export function largestDifference(actual, expected) {
  assert.equal(actual.length, expected.length);
  let largest = 0;
  for (let i = 0; i < actual.length; i++) {
    const difference = Math.abs(actual[i] - expected[i]);
    if (!(difference <= largest)) largest = difference; // a NaN stays
  }
  return largest;
}

export function assertClose(actual, expected, tolerance, what = "values") {
  const largest = largestDifference(actual, expected);
  assert.ok(largest <= tolerance, `${what} differ by ${largest}, more than ${tolerance}`);
}
