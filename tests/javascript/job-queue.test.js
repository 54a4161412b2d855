// The order in which jobs run, and how many at a time.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as settled } from "node:timers/promises";
import { JobQueue } from "#explorer/map/job-queue.js";

/** A queue of two at a time, which notes what it starts, and lets a test end jobs. */
class Recorder {
  queue = new JobQueue(2);
  /** @type {string[]} */
  started = [];
  /** @type {Map<string, () => void>} */
  #ends = new Map();

  /**
   * @param {string} name
   * @param {AbortSignal} signal
   */
  add(name, signal = new AbortController().signal) {
    /** @returns {Promise<void>} */
    const job = () =>
      new Promise((resolve) => {
        this.started.push(name);
        this.#ends.set(name, resolve);
      });
    this.queue.add(job, signal);
  }

  /** @param {string} name */
  async end(name) {
    this.#ends.get(name)?.();
    await settled();
  }
}

test("only so many jobs run at a time, in their order", async () => {
  const recorder = new Recorder();
  ["a", "b", "c", "d"].forEach((name) => recorder.add(name));
  assert.deepEqual(recorder.started, []);
  await settled();
  assert.deepEqual(recorder.started, ["a", "b"]);
  await recorder.end("b");
  assert.deepEqual(recorder.started, ["a", "b", "c"]);
});

test("what is added later comes before what still waits", async () => {
  const recorder = new Recorder();
  ["a", "b", "c"].forEach((name) => recorder.add(name));
  await settled();
  ["x", "y"].forEach((name) => recorder.add(name));
  await settled();
  for (const name of ["a", "b", "x", "y"]) {
    await recorder.end(name);
  }
  assert.deepEqual(recorder.started, ["a", "b", "x", "y", "c"]);
});

test("what was aborted before it started never runs", async () => {
  const recorder = new Recorder();
  const abort = new AbortController();
  ["a", "b"].forEach((name) => recorder.add(name));
  recorder.add("dropped", abort.signal);
  recorder.add("c");
  await settled();
  abort.abort();
  await recorder.end("a");
  assert.deepEqual(recorder.started, ["a", "b", "c"]);
});
