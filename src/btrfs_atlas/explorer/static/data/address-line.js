// Address lines, for a page without a server: from a pixel to the bytes that it stands for, and to
// where they lie. On the server, model/lines.py and search/details.py do the same.
//
// Addresses can exceed 2^53. Here they are BigInts.

import { chunkOffset, firstStripe } from "./chunk-geometry.js";
import { positionAt } from "./curves.js";

/** @import { Chunk } from "./chunk-geometry.js" */
/** @import { Pixel } from "./types.js" */

/**
 * A range of a line: a block group, or a stripe of one.
 *
 * @typedef {object} Part
 * @property {bigint} vaddr of the block group
 * @property {number|null} stripe
 * @property {bigint} start
 * @property {bigint} end
 */

/** @typedef {{devid: number, start: bigint, end: bigint}} DeviceRange */

/**
 * What a byte of a line is; null is what does not apply.
 *
 * @typedef {object} Location
 * @property {number|null} devid
 * @property {bigint|null} paddr
 * @property {bigint|null} vaddr
 * @property {bigint|null} group virtual address of its block group
 */

/** The map has 2^8 by 2^8 pixels at zoom 0. */
const TILE_ORDER = 8;

/** @type {Location} */
const NOWHERE = { devid: null, paddr: null, vaddr: null, group: null };

/** One of the spaces of a filesystem. */
export class AddressLine {
  #total;
  #sectorsize;
  #parts;
  #devices;
  #chunks;

  /**
   * @param {{total: bigint, sectorsize: number}} sizes in bytes
   * @param {Part[]} parts ascending
   * @param {DeviceRange[]} devices those on the line; none if it is one of virtual addresses
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
   * @param {string} curve
   * @param {Pixel} pixel
   */
  pixel(curve, { z, row, column }) {
    const order = TILE_ORDER + z;
    const position = positionAt(curve, order, row, column);
    const start = least(this.#startOf(position, order), this.#total - 1n);
    const end = this.#startOf(position + 1n, order);
    const bytes = end > start ? end - start : 1n;
    return { address: this.#sector(start, bytes), bytes };
  }

  /**
   * What a byte of the line is.
   *
   * @param {bigint} address
   * @returns {Location}
   */
  locate(address) {
    const part = this.#partAt(address);
    const device = this.#devices.find(({ start, end }) => start <= address && address < end);
    if (device === undefined) {
      return part === null ? NOWHERE : this.#firstCopy(part.vaddr, address - part.start);
    }
    const { devid } = device;
    const paddr = address - device.start;
    if (part === null) {
      return { ...NOWHERE, devid, paddr };
    }
    return { devid, paddr, vaddr: this.#vaddr(part, address), group: part.vaddr };
  }

  /**
   * The first byte of the pixel at a position of the curve.
   *
   * @param {bigint} position
   * @param {number} order
   */
  #startOf(position, order) {
    return shiftedUp(position * this.#total, 2n * BigInt(order));
  }

  /**
   * The sector that a pixel is about: the first that begins in it; if the pixel is smaller than a
   * sector, the one in its middle.
   *
   * @param {bigint} start
   * @param {bigint} bytes
   */
  #sector(start, bytes) {
    const size = this.#sectorsize;
    if (bytes < size) {
      return ((start + bytes / 2n) / size) * size;
    }
    return ((start + size - 1n) / size) * size;
  }

  /** @param {bigint} address */
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

  /**
   * @param {Part} part
   * @param {bigint} address
   */
  #vaddr({ vaddr, stripe, start }, address) {
    const chunk = this.#chunks.get(vaddr);
    if (chunk === undefined || stripe === null) {
      return null;
    }
    const offset = chunkOffset(chunk, stripe, address - start);
    return offset !== null && offset < chunk.length ? vaddr + offset : null;
  }

  /**
   * @param {bigint} group
   * @param {bigint} offset
   * @returns {Location}
   */
  #firstCopy(group, offset) {
    const vaddr = group + offset;
    const chunk = this.#chunks.get(group);
    if (chunk === undefined) {
      return { ...NOWHERE, vaddr, group };
    }
    const first = firstStripe(chunk, offset);
    const { devid, paddr } = chunk.stripes[first.stripe];
    return { devid, paddr: paddr + first.offset, vaddr, group };
  }
}

/**
 * A number divided by 2^bits, rounded up.
 *
 * @param {bigint} number
 * @param {bigint} bits
 */
function shiftedUp(number, bits) {
  return -(-number >> bits);
}

/**
 * @param {bigint} one
 * @param {bigint} other
 */
function least(one, other) {
  return one < other ? one : other;
}
