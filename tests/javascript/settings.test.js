// Which settings a view leads to, and which settings are alike.

import assert from "node:assert/strict";
import { test } from "node:test";
import { isSameLine, isSameSettings, settingsOf } from "#explorer/data/settings.js";
import { FILESYSTEM } from "./filesystem.js";

const FIRST = { space: "physical", curve: "hilbert", colour: "type" };

test("what a view leaves open is the first choice", () => {
  const view = { space: null, curve: null, colour: null };
  assert.deepEqual(settingsOf(FILESYSTEM, view), FIRST);
  assert.deepEqual(settingsOf(FILESYSTEM, { ...view, curve: "snake" }), {
    ...FIRST,
    curve: "snake",
  });
});

test("what the filesystem does not have is the first choice", () => {
  const view = { space: "virtual", curve: "spiral", colour: "heat" };
  assert.deepEqual(settingsOf(FILESYSTEM, view), { ...FIRST, space: "virtual" });
});

test("a line is a space on a curve, in any colours", () => {
  assert.ok(isSameLine(FIRST, { ...FIRST, colour: "age" }));
  assert.ok(!isSameLine(FIRST, { ...FIRST, curve: "snake" }));
  assert.ok(!isSameLine(FIRST, { ...FIRST, space: "virtual" }));
  assert.ok(isSameSettings(FIRST, { ...FIRST }));
  assert.ok(!isSameSettings(FIRST, { ...FIRST, colour: "age" }));
});
