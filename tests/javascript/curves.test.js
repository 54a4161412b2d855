// Curves: each pixel has a position of its own, and neighbours on the curve touch each other.
// tests/test_cli_export_html.py compares the positions with those of heatmap/curves.py.

import assert from "node:assert/strict";
import { test } from "node:test";
import { positionAt } from "#explorer/data/curves.js";

const ORDER = 4;
const SIDE = 2 ** ORDER;

/**
 * The pixels in the order of their positions on a curve.
 *
 * @param {string} curve
 */
function pixelsInOrder(curve) {
  /** @type {[number, number][]} */
  const pixels = [];
  for (let row = 0; row < SIDE; row += 1) {
    for (let column = 0; column < SIDE; column += 1) {
      pixels[Number(positionAt(curve, ORDER, row, column))] = [row, column];
    }
  }
  return pixels;
}

for (const curve of ["hilbert", "snake", "linear"]) {
  test(`${curve} leads through every pixel once`, () => {
    const pixels = pixelsInOrder(curve);
    assert.equal(pixels.length, SIDE * SIDE);
    assert.equal(new Set(pixels.map(String)).size, SIDE * SIDE);
  });
}

for (const curve of ["hilbert", "snake"]) {
  test(`${curve} never jumps`, () => {
    const pixels = pixelsInOrder(curve);
    pixels.slice(1).forEach(([row, column], index) => {
      const [before, beside] = pixels[index];
      assert.equal(Math.abs(row - before) + Math.abs(column - beside), 1, `after ${index}`);
    });
  });
}

test("positions can exceed 2^53", () => {
  const last = 2 ** 31 - 1;
  assert.equal(positionAt("linear", 31, last, last), (1n << 62n) - 1n);
  assert.equal(positionAt("snake", 31, last, 0), (1n << 62n) - 1n);
});
