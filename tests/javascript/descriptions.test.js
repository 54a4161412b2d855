// How pixels, block groups, devices and generations are described.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  deviceName,
  generationAge,
  groupDescription,
  pixelTitle,
} from "#explorer/panels/descriptions.js";

const GROUP = {
  vaddr: "0",
  length: 2 ** 30,
  type: "metadata",
  profile: "DUP",
  used: 0,
  used_percent: 0,
};

const EXTENT = {
  vaddr: "0",
  length: 4096,
  generation: "1",
  refs: 1,
  kind: "extent tree",
  owner: "",
  colours: [],
};

test("a pixel is called after its extent, else after its block group, else after its state", () => {
  const pixel = { state: /** @type {const} */ ("extent"), group: GROUP, extent: EXTENT };
  assert.equal(pixelTitle(pixel), "Extent tree extent");
  assert.equal(pixelTitle({ ...pixel, extent: null }), "Metadata block group");
  assert.equal(pixelTitle({ ...pixel, extent: null, state: "free" }), "Free space");
  assert.equal(pixelTitle({ state: "unallocated", group: null, extent: null }), "Not allocated");
});

test("a block group by type, profile and size", () => {
  assert.equal(groupDescription(GROUP), "metadata, DUP, 1.00GiB");
  assert.equal(groupDescription({ ...GROUP, profile: "" }), "metadata, 1.00GiB");
});

test("a device by its number, and its path if it has one", () => {
  assert.equal(deviceName({ devid: 2, path: "/dev/sdb" }), "2 /dev/sdb");
  assert.equal(deviceName({ devid: 2, path: null }), "2");
  assert.equal(deviceName({ devid: 2, path: "" }), "2");
});

test("the age of a generation, which can exceed 2^53", () => {
  assert.equal(generationAge("9", "9"), "9, the newest");
  assert.equal(generationAge("8", "9"), "8, 1 generation ago");
  assert.equal(
    generationAge("9007199254740993", "9007199254741993"),
    "9007199254740993, 1,000 generations ago",
  );
  assert.equal(generationAge("10", "9"), "10, the newest");
});
