// A layer of pictures in a grid: the tiles of the map, and the marks above them.
//
// Leaflet decides which pictures are needed where. This layer fetches them and swaps a picture for
// a newer one only when that is decoded, so that nothing flickers.

import { GridLayer } from "../vendor/leaflet/leaflet-src.esm.js";
import { JobQueue } from "./job-queue.js";
import { loadImage } from "./load-image.js";

/** @import { Coords, DoneCallback, GridLayerOptions, TileEvent } from "leaflet" */
/** @import { Picture, Pixel } from "../data/types.js" */

/** @typedef {(square: Pixel, signal: AbortSignal) => Promise<Picture>} Load */

/**
 * A picture and how far it has come. `done` tells Leaflet that it can be seen, once.
 *
 * @typedef {object} Entry
 * @property {HTMLElement} tile
 * @property {Pixel} square row and column of the tile
 * @property {"loading"|"incomplete"|"complete"|"failed"} state
 * @property {DoneCallback|null} done
 * @property {AbortController} abort
 * @property {number} failures
 * @property {ReturnType<typeof setTimeout>} [retryTimer]
 */

const AT_ONCE = 6;
const MAX_FAILURES = 5;
const RETRY_MS = 1000;

const queue = new JobQueue(AT_ONCE);

/** Fires `progress` whenever a picture was drawn or is needed. */
export class PictureLayer extends GridLayer {
  #load;
  /** @type {Map<HTMLElement, Entry>} */
  #entries = new Map();

  /** How often `retry()` was called: what was on its way then may lack what is there now. */
  #retries = 0;

  /**
   * @param {Load} load fetches the picture of a square
   * @param {GridLayerOptions} options
   */
  constructor(load, options) {
    super(options);
    this.#load = load;
    this.on("tileunload", (event) => this.#drop(/** @type {TileEvent} */ (event).tile));
  }

  /**
   * Called by Leaflet.
   *
   * @param {Coords} coords
   * @param {DoneCallback} done
   */
  createTile({ x, y, z }, done) {
    const tile = document.createElement("div");
    /** @type {Entry} */
    const entry = {
      tile,
      square: { z, row: y, column: x },
      state: "loading",
      done,
      abort: new AbortController(),
      failures: 0,
    };
    this.#entries.set(tile, entry);
    this.#request(entry);
    return tile;
  }

  /** Fetch all pictures again; those that are there stay until the new ones are. */
  refresh() {
    this.#requestAgain([...this.#entries.values()]);
  }

  /** Fetch those pictures again that are incomplete, or failed. */
  retry() {
    this.#retries += 1;
    /** @param {Entry} entry */
    const isLacking = ({ state }) => state === "incomplete" || state === "failed";
    this.#requestAgain([...this.#entries.values()].filter(isLacking));
  }

  /** Whether every picture shows something, even if it is not complete. */
  isDrawn() {
    return this.#every(({ done }) => done === null);
  }

  /** Whether every picture is complete. */
  isComplete() {
    return this.#every(({ state }) => state === "complete");
  }

  /**
   * Whether all pictures are so. While the map moves elsewhere, there can be none.
   *
   * @param {(entry: Entry) => boolean} isSo
   */
  #every(isSo) {
    return this.#entries.size > 0 && [...this.#entries.values()].every(isSo);
  }

  /** @param {Entry[]} entries */
  #requestAgain(entries) {
    for (const entry of entries) {
      entry.failures = 0;
      this.#request(entry);
    }
  }

  /** @param {Entry} entry */
  #request(entry) {
    clearTimeout(entry.retryTimer);
    entry.abort.abort();
    entry.abort = new AbortController();
    entry.state = "loading";
    const { signal } = entry.abort;
    queue.add(() => this.#fetch(entry, signal), signal);
    this.fire("progress");
  }

  /**
   * @param {Entry} entry
   * @param {AbortSignal} signal
   */
  async #fetch(entry, signal) {
    const retries = this.#retries;
    try {
      const complete = await this.#draw(entry, signal);
      if (!signal.aborted) {
        this.#onDrawn(entry, complete, retries);
      }
    } catch {
      if (!signal.aborted) {
        this.#onFailed(entry);
      }
    }
  }

  /**
   * Show a picture. Returns whether it is complete.
   *
   * @param {Entry} entry
   * @param {AbortSignal} signal
   */
  async #draw({ tile, square }, signal) {
    const { url, complete, release } = await this.#load(square, signal);
    try {
      const images = url === null ? [] : [await loadImage(url, signal)];
      if (!signal.aborted) {
        tile.replaceChildren(...images);
      }
      return complete;
    } finally {
      release?.();
    }
  }

  /**
   * @param {Entry} entry
   * @param {boolean} complete
   * @param {number} retries how many there had been when the picture was requested
   */
  #onDrawn(entry, complete, retries) {
    entry.state = complete ? "complete" : "incomplete";
    entry.done?.(undefined, entry.tile);
    entry.done = null;
    this.fire("progress");
    if (!complete && retries !== this.#retries) {
      this.#request(entry);
    }
  }

  /** @param {Entry} entry */
  #onFailed(entry) {
    entry.state = "failed";
    entry.failures += 1;
    if (entry.failures < MAX_FAILURES) {
      entry.retryTimer = setTimeout(() => this.#request(entry), RETRY_MS * entry.failures);
    }
    this.fire("progress");
  }

  /** @param {HTMLElement} tile */
  #drop(tile) {
    const entry = this.#entries.get(tile);
    if (entry !== undefined) {
      clearTimeout(entry.retryTimer);
      entry.abort.abort();
      this.#entries.delete(tile);
      this.fire("progress");
    }
  }
}
