// Where the bytes of a chunk lie in its stripes: both ways agree, for every profile.

import assert from "node:assert/strict";
import { test } from "node:test";
import { chunkOffset, firstStripe } from "#explorer/data/chunk-geometry.js";

const LENGTH = 65536n;

/**
 * @param {number} count of stripes
 * @param {boolean} isStriped
 * @param {number} parity
 * @param {number} subStripes
 */
function chunk(count, isStriped, parity, subStripes) {
  const stripes = Array.from({ length: count }, (_, index) => ({ devid: index + 1, paddr: 0n }));
  return { length: 64n * LENGTH, isStriped, parity, subStripes, stripes };
}

const CHUNKS = {
  single: chunk(1, false, 0, 1),
  raid1: chunk(2, false, 0, 1),
  raid0: chunk(3, true, 0, 1),
  raid10: chunk(4, true, 0, 2),
  raid5: chunk(4, true, 1, 1),
  raid6: chunk(5, true, 2, 1),
};

for (const [profile, layout] of Object.entries(CHUNKS)) {
  test(`${profile}: the first stripe of a byte leads back to it`, () => {
    for (let element = 0n; element < 24n; element += 1n) {
      for (const within of [0n, 4096n, LENGTH - 1n]) {
        const offset = element * LENGTH + within;
        const found = firstStripe(layout, offset);
        assert.equal(chunkOffset(layout, found.stripe, found.offset), offset);
      }
    }
  });
}

for (const profile of /** @type {const} */ (["raid5", "raid6"])) {
  test(`${profile}: each row has its parity on other stripes than the one before`, () => {
    const layout = CHUNKS[profile];
    /** @param {bigint} row */
    const parityOf = (row) =>
      layout.stripes.flatMap((_, stripe) =>
        chunkOffset(layout, stripe, row * LENGTH) === null ? [stripe] : [],
      );
    for (let row = 0n; row < 10n; row += 1n) {
      assert.equal(parityOf(row).length, layout.parity);
      assert.notDeepEqual(parityOf(row), parityOf(row + 1n));
      assert.deepEqual(parityOf(row), parityOf(row + BigInt(layout.stripes.length)));
    }
  });
}

test("raid5: the second row begins on the second stripe, and has its parity on the first", () => {
  assert.deepEqual(firstStripe(CHUNKS.raid5, 3n * LENGTH), { stripe: 1, offset: LENGTH });
  assert.equal(chunkOffset(CHUNKS.raid5, 0, LENGTH), null);
});

test("raid0: elements go round the stripes", () => {
  const stripes = [0n, 1n, 2n, 3n].map((element) => firstStripe(CHUNKS.raid0, element * LENGTH));
  assert.deepEqual(stripes, [
    { stripe: 0, offset: 0n },
    { stripe: 1, offset: 0n },
    { stripe: 2, offset: 0n },
    { stripe: 0, offset: LENGTH },
  ]);
});

test("raid10: both copies hold the same bytes", () => {
  for (const offset of [0n, 5n * LENGTH + 17n]) {
    assert.equal(chunkOffset(CHUNKS.raid10, 2, offset), chunkOffset(CHUNKS.raid10, 3, offset));
    assert.notEqual(chunkOffset(CHUNKS.raid10, 1, offset), chunkOffset(CHUNKS.raid10, 2, offset));
  }
});
