// The numbers of a legend.

import assert from "node:assert/strict";
import { test } from "node:test";
import { histogramRows, isDrawnAsScale, scaleParts } from "#explorer/panels/histogram.js";

/** @import { LegendEntry } from "#explorer/data/types.js" */

const FREE = entry("free", 700, { colour: "#000000" });
const LOST = entry("could not be read", 100, { hatched: true });

/**
 * @param {string} name
 * @param {number} bytes
 * @param {Partial<LegendEntry>} others
 * @returns {LegendEntry}
 */
function entry(name, bytes, others = {}) {
  return { name, bytes, used: bytes, colour: "#123456", hatched: false, ...others };
}

/**
 * @param {LegendEntry[]} entries
 * @param {boolean} scale
 */
function legend(entries, scale = true) {
  return { title: "", note: "", read: 1, scale, entries };
}

test("bars compare the colours, not what is free or could not be read", () => {
  const rows = histogramRows([entry("data", 150), entry("metadata", 50), FREE, LOST]);
  assert.deepEqual(
    rows.map(({ entry: { name }, bar, share }) => [name, bar, share]),
    [
      ["data", 1, "15%"],
      ["metadata", 1 / 3, "5.0%"],
      ["free", null, "70%"],
      ["could not be read", null, "10%"],
    ],
  );
});

test("entries without bytes have no row", () => {
  assert.deepEqual(histogramRows([entry("data", 0)]), []);
});

test("a title says how much of an entry is in use, where that is a part of it", () => {
  const titles = histogramRows([
    entry("half", 2048, { used: 1024 }),
    entry("all", 2048),
    entry("none", 2048, { used: 0 }),
  ]).map(({ title }) => title);
  assert.deepEqual(titles, ["half: 1.00KiB of it in use, 50%", "all", "none"]);
});

test("a scale of few steps is drawn as a list", () => {
  const steps = Array.from({ length: 7 }, (_, step) => entry(String(step), 1));
  assert.ok(isDrawnAsScale(legend(steps)));
  assert.ok(!isDrawnAsScale(legend(steps, false)));
  assert.ok(!isDrawnAsScale(legend(steps.slice(1))));
  assert.ok(!isDrawnAsScale(legend([...steps.slice(1), entry("empty", 0), FREE, LOST])));
});

test("a scale keeps its empty steps, and sets apart what is on no scale", () => {
  const { steps, rest } = scaleParts([entry("0", 0), entry("1", 400), FREE, entry("2", 100)]);
  assert.deepEqual(
    steps.map(({ entry: { name } }) => name),
    ["0", "1", "2"],
  );
  assert.deepEqual(
    rest.map(({ entry: { name }, bar, share }) => [name, bar, share]),
    [["free", null, "58%"]],
  );
});

test("steps are as high as the square root of their bytes", () => {
  const { steps } = scaleParts([entry("0", 0), entry("1", 400), entry("2", 100)]);
  assert.deepEqual(
    steps.map(({ height }) => height),
    [0, 1, 0.5],
  );
  assert.equal(steps[2].description, "2: 100B, 20%");
});
