// Where a page without a server gets what it shows: from itself.
//
// `btrfs-atlas export-html` writes the page into one file, with the tiles of the first zooms and
// what there is to know about each block group. The methods are those of LiveSource (source.js).

import { Line } from "./lines.js";
import { SourceError } from "./source.js";

/** What explorer/export.py puts into the page. */
export class EmbeddedSource {
  can = { find: false, details: false, live: false, deep: false };

  /** There is no need for one: all tiles are at hand. */
  sketch = null;

  #data;
  #groups;
  #chunks;
  #paths;
  #lines = new Map();

  /** @param {object} data see `contents()` in explorer/export.py */
  constructor(data) {
    const { filesystem, groups, chunks, parts } = data;
    this.first = filesystem;
    this.#data = data;
    this.#chunks = new Map(chunks.map((chunk) => [BigInt(chunk.vaddr), readChunk(chunk)]));
    this.#groups = new Map(groups.map((group) => [group.vaddr, group]));
    this.#paths = new Map(filesystem.devices.map(({ devid, path }) => [devid, path]));
    for (const [space, { total }] of Object.entries(filesystem.spaces)) {
      const devices = space === "physical" ? filesystem.devices.map(readDevice) : [];
      const sizes = { total: BigInt(total), sectorsize: filesystem.sectorsize };
      this.#lines.set(space, new Line(sizes, parts[space].map(readPart), devices, this.#chunks));
    }
  }

  async filesystem() {
    return this.first;
  }

  async tile(space, curve, colour, z, row, column) {
    return { url: this.#picture(`${space}/${curve}/${colour}`, z, row, column), complete: true };
  }

  marks(kind, space, curve, z, row, column) {
    return this.#picture(`${space}/${curve}/${kind}`, z, row, column);
  }

  async legend(space, colour, z) {
    return this.#data.legends[`${space}/${colour}`][z];
  }

  /** What there is at a pixel, but for extents: the block group that it belongs to. */
  async at(space, curve, z, row, column) {
    if (z > this.#data.filesystem.spaces[space].max_zoom) {
      throw new SourceError("This file has no such place", "It has the first zooms only");
    }
    const line = this.#lines.get(space);
    const { address, bytes } = line.pixel(curve, z, row, column);
    const found = line.locate(address);
    const group = found.group === null ? null : (this.#groups.get(String(found.group)) ?? null);
    return {
      address: String(address),
      bytes: Number(bytes),
      device: this.#device(found),
      vaddr: found.vaddr === null ? null : String(found.vaddr),
      group,
      extent: null,
      state: this.#state(found, group),
    };
  }

  /** What takes the names of files, or extents, is not in the file. */
  async find() {
    throw new SourceError("Nothing can be found in this file", "btrfs-atlas serve can do that");
  }

  #state({ group: allocated, vaddr }, group) {
    if (allocated === null) {
      return "unallocated";
    }
    if (group === null || (vaddr === null && !this.#chunks.has(allocated))) {
      return "unread";
    }
    if (vaddr === null) {
      return "parity";
    }
    return group.used > 0 ? "extent" : "free";
  }

  #device({ devid, paddr }) {
    if (devid === null) {
      return null;
    }
    return { devid, path: this.#paths.get(devid) ?? null, paddr: String(paddr) };
  }

  /** The address of a picture; null if there is none, or nothing is to be seen on it. */
  #picture(name, z, row, column) {
    const number = this.#data.places[name]?.[z]?.[row * 2 ** z + column] ?? null;
    return number === null ? null : `data:image/png;base64,${this.#data.pictures[number]}`;
  }
}

function readDevice({ devid, start, size }) {
  return { devid, start: BigInt(start), end: BigInt(start) + BigInt(size) };
}

function readPart([vaddr, start, length, stripe]) {
  return {
    vaddr: BigInt(vaddr),
    stripe,
    start: BigInt(start),
    end: BigInt(start) + BigInt(length),
  };
}

function readChunk({ length, isStriped, parity, subStripes, stripes }) {
  const places = stripes.map(([devid, paddr]) => ({ devid, paddr: BigInt(paddr) }));
  return { length: BigInt(length), isStriped, parity, subStripes, stripes: places };
}
