// Where an exported page gets its data: from itself.
//
// `btrfs-atlas export-html` writes the page into one file, with the tiles of the first zooms and
// with what is known about each block group.

import { AddressLine } from "./address-line.js";
import { SourceError } from "./source-error.js";

/** @import { Location } from "./address-line.js" */
/** @import { Chunk } from "./chunk-geometry.js" */
/** @import { BlockGroup, Device, ExportedChunk, ExportedContents, FindResult, MapSettings, Marks, Picture, Pixel, PixelInfo, PixelState, Source } from "./types.js" */

/**
 * The contents of an exported page.
 *
 * @implements {Source}
 */
export class EmbeddedSource {
  can = { find: false, details: false, events: false };

  /** None is needed: all tiles are at hand. */
  sketch = null;

  #contents;
  #groups;
  #chunks;
  #paths;
  /** @type {Map<string, AddressLine>} */
  #lines = new Map();

  /** @param {ExportedContents} contents */
  constructor(contents) {
    const { filesystem, groups, chunks, parts } = contents;
    this.first = filesystem;
    this.#contents = contents;
    this.#chunks = new Map(chunks.map((chunk) => [BigInt(chunk.vaddr), readChunk(chunk)]));
    this.#groups = new Map(groups.flatMap((group) => (group ? [[group.vaddr, group]] : [])));
    this.#paths = new Map(filesystem.devices.map(({ devid, path }) => [devid, path]));
    for (const [space, { total }] of Object.entries(filesystem.spaces)) {
      const devices = space === "physical" ? filesystem.devices.map(readDevice) : [];
      const sizes = { total: BigInt(total), sectorsize: filesystem.sectorsize };
      const line = new AddressLine(sizes, parts[space].map(readPart), devices, this.#chunks);
      this.#lines.set(space, line);
    }
  }

  async filesystem() {
    return this.first;
  }

  /**
   * @param {MapSettings} settings
   * @param {Pixel} square
   * @returns {Promise<Picture>}
   */
  async tile({ space, curve, colour }, square) {
    return { url: this.#picture(`${space}/${curve}/${colour}`, square), complete: true };
  }

  /**
   * @param {Marks} kind
   * @param {MapSettings} settings
   * @param {Pixel} square
   */
  marks(kind, { space, curve }, square) {
    return this.#picture(`${space}/${curve}/${kind}`, square);
  }

  /**
   * @param {MapSettings} settings
   * @param {number} zoom
   */
  async legend({ space, colour }, zoom) {
    return this.#contents.legends[`${space}/${colour}`][zoom];
  }

  /**
   * What a pixel shows, as the block group that it belongs to: extents are not in the file.
   *
   * @param {MapSettings} settings
   * @param {Pixel} pixel
   * @returns {Promise<PixelInfo>}
   */
  async at({ space, curve }, pixel) {
    const line = this.#lines.get(space);
    if (line === undefined || pixel.z > this.first.spaces[space].max_zoom) {
      throw new SourceError("This file does not have that zoom", "It has the first zooms only");
    }
    const { address, bytes } = line.pixel(curve, pixel);
    const location = line.locate(address);
    const group = this.#groups.get(String(location.group)) ?? null;
    return {
      address: String(address),
      bytes: Number(bytes),
      device: this.#deviceAddress(location),
      vaddr: location.vaddr === null ? null : String(location.vaddr),
      group,
      extent: null,
      state: this.#state(location, group),
    };
  }

  /**
   * @param {MapSettings} settings
   * @param {Pixel} pixel
   */
  details(settings, pixel) {
    return this.at(settings, pixel);
  }

  /** @returns {Promise<FindResult>} never: names and extents are not in the file */
  async find() {
    throw new SourceError("Nothing can be found in this file", "btrfs-atlas serve can do that");
  }

  events() {
    // A file does not change.
  }

  /**
   * @param {Location} location
   * @param {BlockGroup|null} group
   * @returns {PixelState}
   */
  #state({ group: vaddrOfGroup, vaddr }, group) {
    if (vaddrOfGroup === null) {
      return "unallocated";
    }
    if (group === null || (vaddr === null && !this.#chunks.has(vaddrOfGroup))) {
      return "unread";
    }
    if (vaddr === null) {
      return "parity";
    }
    return group.used > 0 ? "extent" : "free";
  }

  /** @param {Location} location */
  #deviceAddress({ devid, paddr }) {
    if (devid === null) {
      return null;
    }
    return { devid, path: this.#paths.get(devid) ?? null, paddr: String(paddr) };
  }

  /**
   * The URL of a picture; null if the file has none, because nothing is to be seen on it.
   *
   * @param {string} name
   * @param {Pixel} square
   */
  #picture(name, { z, row, column }) {
    const number = this.#contents.places[name]?.[z]?.[row * 2 ** z + column] ?? null;
    return number === null ? null : `data:image/png;base64,${this.#contents.pictures[number]}`;
  }
}

/** @param {Device} device */
function readDevice({ devid, start, size }) {
  return { devid, start: BigInt(start), end: BigInt(start) + BigInt(size) };
}

/** @param {ExportedContents["parts"][string][number]} part */
function readPart([vaddr, start, length, stripe]) {
  return {
    vaddr: BigInt(vaddr),
    stripe,
    start: BigInt(start),
    end: BigInt(start) + BigInt(length),
  };
}

/**
 * @param {ExportedChunk} chunk
 * @returns {Chunk}
 */
function readChunk({ length, isStriped, parity, subStripes, stripes }) {
  const starts = stripes.map(([devid, paddr]) => ({ devid, paddr: BigInt(paddr) }));
  return { length: BigInt(length), isStriped, parity, subStripes, stripes: starts };
}
