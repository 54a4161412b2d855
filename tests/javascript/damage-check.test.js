// How often a check for damage runs.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { DamageCheck } from "#explorer/app/damage-check.js";

let now = 0;

beforeEach(() => {
  now = 1000;
  mock.timers.enable({ apis: ["setTimeout"] });
  mock.method(performance, "now", () => now);
});

afterEach(() => {
  mock.timers.reset();
  mock.restoreAll();
});

/** @param {number} milliseconds */
function pass(milliseconds) {
  now += milliseconds;
  mock.timers.tick(milliseconds);
}

test("the first check runs at once, the next one not before five seconds have passed", () => {
  const check = mock.fn(async () => {});
  const damage = new DamageCheck(check);
  damage.runSoon();
  damage.runSoon();
  pass(0);
  assert.equal(check.mock.callCount(), 1);
  pass(2000);
  damage.runSoon();
  pass(2999);
  assert.equal(check.mock.callCount(), 1);
  pass(1);
  assert.equal(check.mock.callCount(), 2);
});

test("a check that fails is no error, and does not stop later ones", async () => {
  const check = mock.fn(async () => {
    throw new Error("the server does not answer");
  });
  const damage = new DamageCheck(check);
  damage.runSoon();
  pass(0);
  await Promise.resolve();
  pass(6000);
  damage.runSoon();
  pass(0);
  assert.equal(check.mock.callCount(), 2);
});
