// Where the bytes of a chunk lie in its stripes, and the way back. The same as
// btrfs/ondisk/geometry.py, for a page without a server.

/** Bytes of a row of a chunk that lie in one stripe (BTRFS_STRIPE_LEN). */
const STRIPE_LENGTH = 65536n;

/**
 * How a chunk lies on devices.
 *
 * @typedef {object} Chunk
 * @property {bigint} length of the chunk, in virtual addresses
 * @property {boolean} isStriped
 * @property {number} parity how many stripes of a row hold parity
 * @property {number} subStripes how many stripes hold the same bytes of a striped chunk
 * @property {{devid: number, paddr: bigint}[]} stripes where each begins
 */

/**
 * The offset in a chunk of a byte of a stripe; null where that is parity.
 *
 * @param {Chunk} chunk
 * @param {number} stripe
 * @param {bigint} offset in the stripe
 */
export function chunkOffset(chunk, stripe, offset) {
  if (!chunk.isStriped) {
    return offset;
  }
  const row = offset / STRIPE_LENGTH;
  const columns = BigInt(columnsOf(chunk));
  const column = columnOf(chunk, stripe, row);
  if (column >= columns) {
    return null;
  }
  return (row * columns + column) * STRIPE_LENGTH + (offset % STRIPE_LENGTH);
}

/**
 * The first stripe that holds a byte of a chunk, and the offset of the byte in it.
 *
 * @param {Chunk} chunk
 * @param {bigint} offset in the chunk
 */
export function firstStripe(chunk, offset) {
  if (!chunk.isStriped) {
    return { stripe: 0, offset };
  }
  const columns = BigInt(columnsOf(chunk));
  const element = offset / STRIPE_LENGTH;
  const row = element / columns;
  const column = element % columns;
  const stripe = chunk.stripes.findIndex((_, index) => columnOf(chunk, index, row) === column);
  return { stripe, offset: row * STRIPE_LENGTH + (offset % STRIPE_LENGTH) };
}

/**
 * How many columns of data a row has.
 *
 * @param {Chunk} chunk
 */
function columnsOf({ stripes, parity, subStripes }) {
  return Math.floor((stripes.length - parity) / subStripes);
}

/**
 * The column of a row that a stripe holds; the columns of parity come after those of data.
 *
 * @param {Chunk} chunk
 * @param {number} stripe
 * @param {bigint} row
 */
function columnOf({ stripes, parity, subStripes }, stripe, row) {
  if (parity === 0) {
    return BigInt(Math.floor(stripe / subStripes));
  }
  const count = BigInt(stripes.length);
  return (((BigInt(stripe) - row) % count) + count) % count;
}
