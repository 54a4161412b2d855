// Address lines: the bytes that a pixel stands for, and where a byte lies.

import assert from "node:assert/strict";
import { test } from "node:test";
import { AddressLine } from "#explorer/data/address-line.js";

const MIB = 1n << 20n;

const MIRROR = {
  length: 4n * MIB,
  isStriped: false,
  parity: 0,
  subStripes: 1,
  stripes: [
    { devid: 1, paddr: 1n * MIB },
    { devid: 2, paddr: 2n * MIB },
  ],
};

const GROUP = 100n * MIB;
const CHUNKS = new Map([[GROUP, MIRROR]]);
const SIZES = { total: 16n * MIB, sectorsize: 4096 };

const PHYSICAL = new AddressLine(
  SIZES,
  [
    { vaddr: GROUP, stripe: 0, start: 1n * MIB, end: 5n * MIB },
    { vaddr: GROUP, stripe: 1, start: 10n * MIB, end: 14n * MIB },
  ],
  [
    { devid: 1, start: 0n, end: 8n * MIB },
    { devid: 2, start: 8n * MIB, end: 16n * MIB },
  ],
  CHUNKS,
);

const VIRTUAL = new AddressLine(
  SIZES,
  [{ vaddr: GROUP, stripe: null, start: 2n * MIB, end: 6n * MIB }],
  [],
  CHUNKS,
);

test("the pixels of a zoom cover the line without gaps", () => {
  // 1,000,003 is no multiple of the 65,536 pixels at zoom 0.
  const line = new AddressLine({ total: 1000003n, sectorsize: 1 }, [], [], new Map());
  let end = 0n;
  for (let row = 0; row < 256; row += 1) {
    for (let column = 0; column < 256; column += 1) {
      const { address, bytes } = line.pixel("linear", { z: 0, row, column });
      assert.equal(address, end);
      end += bytes;
    }
  }
  assert.equal(end, 1000003n);
});

test("a large pixel is about the first sector that begins in it", () => {
  const line = new AddressLine({ total: 65536n * 5000n, sectorsize: 4096 }, [], [], new Map());
  assert.deepEqual(line.pixel("linear", { z: 0, row: 0, column: 1 }), {
    address: 8192n,
    bytes: 5000n,
  });
});

test("a small pixel is about the sector in its middle", () => {
  const line = new AddressLine({ total: 65536n * 100n, sectorsize: 4096 }, [], [], new Map());
  // The middle of bytes 4000 to 4100 is in the first sector, that of 4100 to 4200 in the second.
  assert.equal(line.pixel("linear", { z: 0, row: 0, column: 40 }).address, 0n);
  assert.equal(line.pixel("linear", { z: 0, row: 0, column: 41 }).address, 4096n);
});

test("a pixel is never about what lies after the line", () => {
  const line = new AddressLine({ total: 10n, sectorsize: 1 }, [], [], new Map());
  const { address, bytes } = line.pixel("linear", { z: 4, row: 4095, column: 4095 });
  assert.equal(address, 9n);
  assert.equal(bytes, 1n);
});

test("a byte of a device in a block group", () => {
  assert.deepEqual(PHYSICAL.locate(1n * MIB + 5n), {
    devid: 1,
    paddr: 1n * MIB + 5n,
    vaddr: GROUP + 5n,
    group: GROUP,
  });
});

test("the second copy has the same virtual address on another device", () => {
  assert.deepEqual(PHYSICAL.locate(10n * MIB + 5n), {
    devid: 2,
    paddr: 2n * MIB + 5n,
    vaddr: GROUP + 5n,
    group: GROUP,
  });
});

test("a byte of a device that is not allocated", () => {
  const nowhere = { vaddr: null, group: null };
  assert.deepEqual(PHYSICAL.locate(0n), { devid: 1, paddr: 0n, ...nowhere });
  assert.deepEqual(PHYSICAL.locate(5n * MIB), { devid: 1, paddr: 5n * MIB, ...nowhere });
  assert.deepEqual(PHYSICAL.locate(16n * MIB - 1n), {
    devid: 2,
    paddr: 8n * MIB - 1n,
    ...nowhere,
  });
});

test("a virtual address is on the device of its first copy", () => {
  assert.deepEqual(VIRTUAL.locate(3n * MIB), {
    devid: 1,
    paddr: 2n * MIB,
    vaddr: GROUP + 1n * MIB,
    group: GROUP,
  });
});

test("a virtual address outside of block groups is nowhere", () => {
  const nowhere = { devid: null, paddr: null, vaddr: null, group: null };
  assert.deepEqual(VIRTUAL.locate(2n * MIB - 1n), nowhere);
  assert.deepEqual(VIRTUAL.locate(6n * MIB), nowhere);
});

test("without its chunk, a block group has addresses but no device", () => {
  const line = new AddressLine(
    SIZES,
    [{ vaddr: GROUP, stripe: null, start: 0n, end: 4n * MIB }],
    [],
    new Map(),
  );
  assert.deepEqual(line.locate(7n), {
    devid: null,
    paddr: null,
    vaddr: GROUP + 7n,
    group: GROUP,
  });
});
