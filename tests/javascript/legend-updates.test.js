// When the legend is fetched, and which answer is shown.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { setImmediate as settled } from "node:timers/promises";
import { SourceError } from "#explorer/data/source-error.js";
import { LegendUpdates } from "#explorer/panels/legend-updates.js";

const SETTINGS = { space: "physical", curve: "hilbert", colour: "age" };

/**
 * The zooms that a legend was asked for, each with what answers it.
 *
 * @type {{zoom: number, resolve: (legend: unknown) => void, reject: (error: Error) => void}[]}
 */
let asked = [];

/** @type {unknown[]} */
let shown = [];

let zoom = 0;

/** @type {LegendUpdates} */
let updates;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout"] });
  [asked, shown, zoom] = [[], [], 0];
  /** @param {unknown} _settings @param {number} at */
  const fetchLegend = (_settings, at) =>
    new Promise((resolve, reject) => {
      asked.push({ zoom: at, resolve, reject });
    });
  const source = /** @type {any} */ ({ legend: fetchLegend });
  const legend = /** @type {any} */ ({
    show: (/** @type {unknown} */ data) => shown.push(data),
    showError: (/** @type {string} */ text) => shown.push(`error: ${text}`),
  });
  updates = new LegendUpdates(source, legend, () => ({ settings: SETTINGS, zoom }));
});

afterEach(() => mock.timers.reset());

test("an answer is shown", async () => {
  updates.update();
  asked[0].resolve("legend");
  await settled();
  assert.deepEqual(shown, ["legend"]);
});

test("only the answer to the latest question is shown", async () => {
  updates.update();
  updates.update();
  asked[1].resolve("new");
  asked[0].resolve("old");
  await settled();
  assert.deepEqual(shown, ["new"]);
});

test("an error is shown, but not that of an earlier question", async () => {
  updates.update();
  updates.update();
  asked[0].reject(new Error("old"));
  asked[1].reject(new SourceError("no legend", "look up"));
  await settled();
  assert.deepEqual(shown, ["error: no legend. look up"]);
});

test("many calls in a moment lead to one question", () => {
  updates.updateSoon();
  mock.timers.tick(300);
  updates.updateSoon();
  mock.timers.tick(300);
  assert.equal(asked.length, 0);
  mock.timers.tick(100);
  assert.equal(asked.length, 1);
});

test("a question at once takes the place of one that waits", () => {
  updates.updateSoon();
  updates.update();
  mock.timers.tick(1000);
  assert.equal(asked.length, 1);
});

test("a map that moves at one zoom keeps its legend", () => {
  zoom = 3;
  updates.update();
  updates.followZoom(3);
  mock.timers.tick(1000);
  assert.equal(asked.length, 1);
  zoom = 4;
  updates.followZoom(4);
  mock.timers.tick(1000);
  assert.deepEqual(
    asked.map((question) => question.zoom),
    [3, 4],
  );
});
