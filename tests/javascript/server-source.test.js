// What a served page asks the server for, and what it makes of the answers.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { ServerSource } from "#explorer/data/server-source.js";
import { errorText } from "#explorer/data/source-error.js";
import { FILESYSTEM } from "./filesystem.js";

const SETTINGS = { space: "physical", curve: "hilbert", colour: "age" };
const PIXEL = { z: 2, row: 3, column: 4 };
const { signal } = new AbortController();

/** @type {string[]} */
let asked = [];

/** @type {(Response|Error)[]} */
let answers = [];

/** @type {ServerSource} */
let source;

beforeEach(() => {
  asked = [];
  answers = [];
  mock.method(globalThis, "fetch", async (/** @type {string} */ path) => {
    asked.push(path);
    const answer = answers.shift();
    if (!(answer instanceof Response)) {
      throw answer ?? new Error("no answer is left");
    }
    return answer;
  });
  const sketch = { ...SETTINGS, url: "data:" };
  source = new ServerSource({ filesystem: FILESYSTEM, sketch });
});

afterEach(() => mock.restoreAll());

test("questions are paths relative to the page", async () => {
  answers = Array.from({ length: 4 }, () => Response.json({}));
  await source.at(SETTINGS, PIXEL);
  await source.details(SETTINGS, PIXEL);
  await source.legend(SETTINGS, 2, signal);
  await source.find("a&b c", SETTINGS);
  assert.deepEqual(asked, [
    "at/physical/hilbert/2/3/4",
    "details/physical/hilbert/2/3/4",
    "legend/physical/age?z=2",
    "find?q=a%26b+c&space=physical&curve=hilbert",
  ]);
});

test("a tile may be incomplete, and its URL is released", async () => {
  answers = [
    new Response("png", { headers: { "X-Complete": "0" } }),
    new Response("png", { headers: { "X-Complete": "1" } }),
  ];
  const first = await source.tile(SETTINGS, PIXEL, signal);
  const second = await source.tile(SETTINGS, PIXEL, signal);
  assert.equal(asked[0], "tile/physical/hilbert/age/2/3/4.png?g=9");
  assert.deepEqual([first.complete, second.complete], [false, true]);
  assert.match(String(first.url), /^blob:/);
  first.release?.();
  await assert.rejects(fetchBlob(String(first.url)));
  second.release?.();
});

/** @param {string} url */
async function fetchBlob(url) {
  const { resolveObjectURL } = await import("node:buffer");
  assert.ok(resolveObjectURL(url), "it is gone");
}

test("marks say the generation, what was found, and since when something has changed", async () => {
  assert.equal(
    source.marks("borders", SETTINGS, PIXEL, null),
    "marks/borders/physical/hilbert/2/3/4.png?g=9",
  );
  assert.match(source.marks("found", SETTINGS, PIXEL, "a&b"), /\?g=9&q=a%26b$/);
  answers = [Response.json({ ...FILESYSTEM, generation: "12" })];
  await source.filesystem();
  assert.match(source.marks("changed", SETTINGS, PIXEL, null), /\?g=12&since=9$/);
});

test("the same generation again is no change", async () => {
  answers = [
    Response.json({ ...FILESYSTEM, generation: "12" }),
    Response.json({ ...FILESYSTEM, generation: "12" }),
  ];
  await source.filesystem();
  await source.filesystem();
  assert.match(source.marks("changed", SETTINGS, PIXEL, null), /\?g=12&since=9$/);
});

test("a busy server is asked again", async () => {
  const busy = () => new Response("{}", { status: 503, headers: { "Retry-After": "0.001" } });
  answers = [busy(), busy(), Response.json({ state: "free" })];
  assert.deepEqual(await source.at(SETTINGS, PIXEL), { state: "free" });
  assert.equal(asked.length, 3);
});

test("a server that stays busy is given up", async () => {
  answers = Array.from(
    { length: 20 },
    () => new Response("{}", { status: 503, headers: { "Retry-After": "0.001" } }),
  );
  await assert.rejects(source.at(SETTINGS, PIXEL), { message: "The server refused (HTTP 503)" });
  assert.equal(asked.length, 9);
});

test("a refusal has the message of the server", async () => {
  answers = [Response.json({ error: "there is no such file", hint: "look up" }, { status: 404 })];
  const error = await source.find("x", SETTINGS).catch((reason) => reason);
  assert.equal(errorText(error), "there is no such file. look up");
});

test("a server that does not answer", async () => {
  answers = [new TypeError("fetch failed")];
  const error = await source.at(SETTINGS, PIXEL).catch((reason) => reason);
  assert.equal(
    errorText(error),
    "The server does not answer. Is btrfs-atlas serve still running?",
  );
});

test("what the page itself has aborted is no error of the server", async () => {
  const abort = new AbortController();
  const reason = new DOMException("", "AbortError");
  abort.abort(reason);
  answers = [reason];
  await assert.rejects(source.at(SETTINGS, PIXEL, abort.signal), (error) => error === reason);
});
