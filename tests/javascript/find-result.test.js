// The strip below a result: how high it is drawn, and how it is described.

import assert from "node:assert/strict";
import { test } from "node:test";
import { stripDescription, stripHeight } from "#explorer/panels/find-result.js";

test("the smallest part can be seen, and nothing is not drawn", () => {
  assert.equal(stripHeight(0), 0);
  assert.equal(stripHeight(1e-9), 5);
  assert.equal(stripHeight(0.25), 14);
  assert.equal(stripHeight(1), 28);
});

test("a strip is described by its first and last part", () => {
  assert.equal(
    stripDescription([0, 0.5, 0, 1]),
    "It lies in 2 parts of 4, between 25% and 100% of the map.",
  );
  assert.equal(
    stripDescription([0, 0.5, 0, 0]),
    "It lies in 1 part of 4, between 25% and 50% of the map.",
  );
  assert.equal(stripDescription([0, 0]), "It lies nowhere on the map.");
});
