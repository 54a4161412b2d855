// Reads chunks from standard input, each with how many sectors its stripes have, and prints which
// sector of the chunk each sector of each stripe is, -1 for parity; and the first stripe of each
// sector of the chunk with the sector in it.

import { text } from "node:stream/consumers";
import { chunkOffset, firstStripe } from "#explorer/data/chunk-geometry.js";

const SECTOR = 4096n;

/**
 * @typedef {object} Layout
 * @property {boolean} isStriped
 * @property {number} parity
 * @property {number} subStripes
 * @property {number} stripes how many
 * @property {number} sectors of each stripe
 * @property {number} length of the chunk, in sectors
 */

/** @param {Layout} layout */
function describe({ isStriped, parity, subStripes, stripes: count, sectors, length }) {
  const stripes = upTo(count).map((index) => ({ devid: index + 1, paddr: 0n }));
  const chunk = { length: BigInt(length) * SECTOR, isStriped, parity, subStripes, stripes };
  const held = upTo(count).map((stripe) =>
    upTo(sectors).map((at) => {
      const offset = chunkOffset(chunk, stripe, BigInt(at) * SECTOR);
      return offset === null ? -1 : Number(offset / SECTOR);
    }),
  );
  const first = upTo(length).map((at) => {
    const { stripe, offset } = firstStripe(chunk, BigInt(at) * SECTOR);
    return [stripe, Number(offset / SECTOR)];
  });
  return { held, first };
}

/**
 * The numbers from 0 up to, but not including, an end.
 *
 * @param {number} end
 */
function upTo(end) {
  return Array.from({ length: end }, (_, index) => index);
}

/** @type {Layout[]} */
const layouts = JSON.parse(await text(process.stdin));
process.stdout.write(JSON.stringify(layouts.map(describe)));
