// Address lines, for a page without a server: from a pixel to what lies there.
//
// The server knows the same from explorer/lines.py and explorer/details.py, as far as it needs no
// extents. Addresses can exceed 2^53: they are BigInts here, and strings of digits outside.

/** The whole picture has 2^8 by 2^8 pixels at zoom 0. */
const TILE_ORDER = 8;

/** Bytes of a row of a chunk that lie in one stripe. */
const STRIPE_LENGTH = 65536n;

// The Hilbert curve: see heatmap/curves.py. How a square is turned is a number of two bits, one
// for each diagonal that it may be mirrored on; turns combine by exclusive or.
const QUARTER_AT = [
  [[1, 2], [0, 3]],
  [[1, 0], [2, 3]],
  [[3, 2], [0, 1]],
  [[3, 0], [2, 1]],
];
const TURN = [2, 0, 0, 1];

/**
 * Where on a curve a pixel lies.
 *
 * @param {string} curve hilbert, snake or linear
 * @param {number} order the whole picture has 2^order by 2^order pixels
 * @param {number} row counted from the top
 * @param {number} column counted from the left
 * @returns {bigint}
 */
export function position(curve, order, row, column) {
  if (curve === "hilbert") {
    return hilbert(order, row, column);
  }
  const side = 2 ** order;
  const within = curve === "snake" && row % 2 === 1 ? side - 1 - column : column;
  return (BigInt(row) << BigInt(order)) + BigInt(within);
}

function hilbert(order, row, column) {
  let found = 0n;
  let turned = 0;
  for (let bit = order - 1; bit >= 0; bit -= 1) {
    const quarter = QUARTER_AT[turned][(row >>> bit) & 1][(column >>> bit) & 1];
    found = (found << 2n) | BigInt(quarter);
    turned ^= TURN[quarter];
  }
  return found;
}

/**
 * @typedef {{vaddr: bigint, stripe: number|null, start: bigint, end: bigint}} Part a range of a
 *     line: a block group, or a stripe of one
 * @typedef {{length: bigint, isStriped: boolean, parity: number, subStripes: number,
 *     stripes: {devid: number, paddr: bigint}[]}} Chunk how a block group lies on devices
 */

/** One of the spaces of a filesystem. */
export class Line {
  #total;
  #sectorsize;
  #parts;
  #devices;
  #chunks;

  /**
   * @param {{total: bigint, sectorsize: number}} sizes in bytes
   * @param {Part[]} parts ascending
   * @param {{devid: number, start: bigint, end: bigint}[]} devices those on the line; none if it is
   *     one of virtual addresses
   * @param {Map<bigint, Chunk>} chunks by virtual address
   */
  constructor({ total, sectorsize }, parts, devices, chunks) {
    this.#total = total;
    this.#sectorsize = BigInt(sectorsize);
    this.#parts = parts;
    this.#devices = devices;
    this.#chunks = chunks;
  }

  /**
   * What a pixel is about: an address of the line, and the number of bytes that it stands for.
   *
   * @returns {{address: bigint, bytes: bigint}}
   */
  pixel(curve, zoom, row, column) {
    const order = TILE_ORDER + zoom;
    const at = position(curve, order, row, column);
    const first = least(this.#byte(at, order), this.#total - 1n);
    const behind = this.#byte(at + 1n, order);
    const bytes = behind > first ? behind - first : 1n;
    return { address: this.#sector(first, bytes), bytes };
  }

  /**
   * What a byte of the line is; null is what does not apply. The group is the virtual address of
   * its block group.
   *
   * @returns {{devid: number|null, paddr: bigint|null, vaddr: bigint|null, group: bigint|null}}
   */
  locate(address) {
    const part = this.#partAt(address);
    const device = this.#devices.find(({ start, end }) => start <= address && address < end);
    if (device === undefined) {
      return part === null ? NOWHERE : this.#firstCopy(part.vaddr, address - part.start);
    }
    const place = { devid: device.devid, paddr: address - device.start };
    if (part === null) {
      return { ...NOWHERE, ...place };
    }
    return { ...place, vaddr: this.#vaddr(part, address), group: part.vaddr };
  }

  /** The first byte of a pixel, of the one at a position of the curve. */
  #byte(at, order) {
    return ceilingOfShift(at * this.#total, 2n * BigInt(order));
  }

  /** The sector that a pixel is about: the first in it, or if it is smaller, most of what it shows. */
  #sector(first, bytes) {
    const size = this.#sectorsize;
    if (bytes < size) {
      return ((first + bytes / 2n) / size) * size;
    }
    return ((first + size - 1n) / size) * size;
  }

  #partAt(address) {
    let low = 0;
    let high = this.#parts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#parts[middle].start <= address) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    const part = this.#parts[low - 1];
    return part !== undefined && address < part.end ? part : null;
  }

  #vaddr({ vaddr, stripe, start }, address) {
    const chunk = this.#chunks.get(vaddr);
    if (chunk === undefined || stripe === null) {
      return null;
    }
    const offset = chunkOffset(chunk, stripe, address - start);
    return offset !== null && offset < chunk.length ? vaddr + offset : null;
  }

  #firstCopy(group, offset) {
    const place = { devid: null, paddr: null, vaddr: group + offset, group };
    const chunk = this.#chunks.get(group);
    if (chunk === undefined) {
      return place;
    }
    const [stripe, within] = firstStripe(chunk, offset);
    const { devid, paddr } = chunk.stripes[stripe];
    return { ...place, devid, paddr: paddr + within };
  }
}

const NOWHERE = { devid: null, paddr: null, vaddr: null, group: null };

/** Which byte of a chunk a byte of a stripe is; null where it is parity. See btrfs/stripes.py. */
function chunkOffset(chunk, stripe, offset) {
  if (!chunk.isStriped) {
    return offset;
  }
  const row = offset / STRIPE_LENGTH;
  const columns = BigInt(columnsOf(chunk));
  const column = columnOf(chunk, stripe, row);
  return column < columns ? (row * columns + column) * STRIPE_LENGTH + (offset % STRIPE_LENGTH) : null;
}

/** The first stripe that holds a byte of a chunk, and where in it the byte lies. */
function firstStripe(chunk, offset) {
  if (!chunk.isStriped) {
    return [0, offset];
  }
  const columns = BigInt(columnsOf(chunk));
  const piece = offset / STRIPE_LENGTH;
  const row = piece / columns;
  const stripe = chunk.stripes.findIndex((_, i) => columnOf(chunk, i, row) === piece % columns);
  return [stripe, row * STRIPE_LENGTH + (offset % STRIPE_LENGTH)];
}

function columnsOf({ stripes, parity, subStripes }) {
  return Math.floor((stripes.length - parity) / subStripes);
}

/** Which column of the data a stripe holds in a row; parity comes behind the columns of data. */
function columnOf({ stripes, parity, subStripes }, stripe, row) {
  if (parity === 0) {
    return BigInt(Math.floor(stripe / subStripes));
  }
  const count = BigInt(stripes.length);
  return (((BigInt(stripe) - row) % count) + count) % count;
}

function ceilingOfShift(number, bits) {
  return -(-number >> bits);
}

function least(one, other) {
  return one < other ? one : other;
}
