// What an exported page finds out from its contents.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EmbeddedSource } from "#explorer/data/embedded-source.js";
import { SourceError } from "#explorer/data/source-error.js";
import { FILESYSTEM } from "./filesystem.js";

/** @import { ExportedContents, Legend } from "#explorer/data/types.js" */

const SETTINGS = { space: "physical", curve: "linear", colour: "type" };

const GROUP = {
  vaddr: "1048576",
  length: 2 ** 17,
  type: "Data",
  profile: "RAID1",
  used: 4096,
  used_percent: 3,
};

/** @type {Legend} */
const LEGEND = { title: "type", note: "", scale: false, read: 1, entries: [] };

/** @type {ExportedContents} */
const CONTENTS = {
  filesystem: FILESYSTEM,
  groups: [
    GROUP,
    { ...GROUP, vaddr: "9437184" },
    { ...GROUP, vaddr: "10485760", length: 4096, used: 0 },
    null,
  ],
  chunks: [
    chunk(GROUP.vaddr, GROUP.length, [
      [1, "131072"],
      [2, "0"],
    ]),
    chunk("10485760", 4096, [[1, "274432"]]),
  ],
  parts: {
    physical: [
      [GROUP.vaddr, "131072", String(GROUP.length), 0],
      ["9437184", "262144", "4096", 0],
      ["77", "270336", "4096", 0],
      ["10485760", "274432", "4096", 0],
      [GROUP.vaddr, "524288", String(GROUP.length), 1],
    ],
    virtual: [],
  },
  legends: { "physical/type": [LEGEND, { ...LEGEND, note: "closer" }] },
  pictures: ["AAAA", "BBBB"],
  places: { "physical/linear/type": [[0], [null, 1, 0, 1]], "physical/linear/borders": [[null]] },
};

/**
 * @param {string} vaddr
 * @param {number} length
 * @param {[number, string][]} stripes
 */
function chunk(vaddr, length, stripes) {
  return { vaddr, length: String(length), isStriped: false, parity: 0, subStripes: 1, stripes };
}

const source = new EmbeddedSource(CONTENTS);

/**
 * A pixel at zoom 0, where each stands for 16 bytes.
 *
 * @param {number} address
 */
function pixelOf(address) {
  const position = address / 16;
  return { z: 0, row: Math.floor(position / 256), column: position % 256 };
}

test("a pixel in a block group", async () => {
  assert.deepEqual(await source.at(SETTINGS, pixelOf(131072 + 8192)), {
    address: "139264",
    bytes: 16,
    device: { devid: 1, path: "/dev/sda", paddr: "139264" },
    vaddr: "1056768",
    group: GROUP,
    extent: null,
    state: "extent",
  });
});

test("the second copy, on a device without a path", async () => {
  const info = await source.at(SETTINGS, pixelOf(524288));
  assert.deepEqual(info.device, { devid: 2, path: null, paddr: "0" });
  assert.equal(info.vaddr, GROUP.vaddr);
});

test("states of pixels without extents", async () => {
  const states = [0, 262144, 270336, 274432].map(async (address) => {
    const { state } = await source.at(SETTINGS, pixelOf(address));
    return state;
  });
  // The third is one of an unknown block group, the second one of a block group without a chunk.
  assert.deepEqual(await Promise.all(states), ["unallocated", "unread", "unread", "free"]);
});

test("details are no more than that", async () => {
  const pixel = pixelOf(131072);
  assert.deepEqual(await source.details(SETTINGS, pixel), await source.at(SETTINGS, pixel));
});

test("beyond the zooms of the file there is nothing", async () => {
  await assert.rejects(source.at(SETTINGS, { z: 3, row: 0, column: 0 }), SourceError);
});

test("tiles are found by their square", async () => {
  const tile = await source.tile(SETTINGS, { z: 1, row: 0, column: 1 });
  assert.deepEqual(tile, { url: "data:image/png;base64,BBBB", complete: true });
  const shared = await source.tile(SETTINGS, { z: 1, row: 1, column: 0 });
  assert.equal(shared.url, "data:image/png;base64,AAAA");
});

test("an empty picture, or one of which the file has none, is null", async () => {
  const empty = await source.tile(SETTINGS, { z: 1, row: 0, column: 0 });
  assert.equal(empty.url, null);
  assert.equal(source.marks("borders", SETTINGS, { z: 0, row: 0, column: 0 }), null);
  assert.equal(source.marks("found", SETTINGS, { z: 0, row: 0, column: 0 }), null);
});

test("legends are those of the space, colours and zoom", async () => {
  assert.equal((await source.legend(SETTINGS, 1)).note, "closer");
});

test("nothing can be looked for", async () => {
  assert.equal(source.can.find, false);
  await assert.rejects(source.find(), { name: "Error", hint: "btrfs-atlas serve can do that" });
});
