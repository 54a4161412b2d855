// Where a served page gets its data: from the server that it came from (web/server.py).

import { EventStream } from "./event-stream.js";
import { request } from "./http.js";

/** @import { AtlasEvent, Filesystem, FindResult, Legend, MapSettings, Marks, Picture, Pixel, PixelDetails, PixelInfo, ServedContents, Source } from "./types.js" */

/**
 * The HTTP interface of `btrfs-atlas serve`.
 *
 * @implements {Source}
 */
export class ServerSource {
  can = { find: true, details: true, events: true };

  #generation;

  /** The generation before that: the marks of what has changed begin there. */
  #previous;

  /** @param {ServedContents} contents */
  constructor({ filesystem, sketch }) {
    this.first = filesystem;
    this.sketch = sketch;
    this.#generation = filesystem.generation;
    this.#previous = filesystem.generation;
  }

  /** @returns {Promise<Filesystem>} */
  async filesystem() {
    const answer = await ask("filesystem");
    if (answer.generation !== this.#generation) {
      this.#previous = this.#generation;
      this.#generation = answer.generation;
    }
    return answer;
  }

  /**
   * @param {MapSettings} settings
   * @param {Pixel} square
   * @param {AbortSignal} signal
   * @returns {Promise<Picture>}
   */
  async tile({ space, curve, colour }, square, signal) {
    const path = `tile/${space}/${curve}/${colour}/${pathOf(square)}.png?g=${this.#generation}`;
    const response = await request(path, signal);
    const complete = response.headers.get("X-Complete") !== "0";
    const url = URL.createObjectURL(await response.blob());
    return { url, complete, release: () => URL.revokeObjectURL(url) };
  }

  /**
   * @param {Marks} kind
   * @param {MapSettings} settings
   * @param {Pixel} square
   * @param {string|null} query
   */
  marks(kind, { space, curve }, square, query) {
    const path = `marks/${kind}/${space}/${curve}/${pathOf(square)}.png`;
    const found = query === null ? "" : `&q=${encodeURIComponent(query)}`;
    const changed = kind === "changed" ? `&since=${this.#previous}` : "";
    return `${path}?g=${this.#generation}${found}${changed}`;
  }

  /**
   * @param {MapSettings} settings
   * @param {number} zoom
   * @param {AbortSignal} signal
   * @returns {Promise<Legend>}
   */
  legend({ space, colour }, zoom, signal) {
    return ask(`legend/${space}/${colour}?z=${zoom}`, signal);
  }

  /**
   * @param {MapSettings} settings
   * @param {Pixel} pixel
   * @param {AbortSignal} [signal]
   * @returns {Promise<PixelInfo>}
   */
  at({ space, curve }, pixel, signal) {
    return ask(`at/${space}/${curve}/${pathOf(pixel)}`, signal);
  }

  /**
   * @param {MapSettings} settings
   * @param {Pixel} pixel
   * @param {AbortSignal} [signal]
   * @returns {Promise<PixelDetails>}
   */
  details({ space, curve }, pixel, signal) {
    return ask(`details/${space}/${curve}/${pathOf(pixel)}`, signal);
  }

  /**
   * @param {string} query
   * @param {MapSettings} settings
   * @param {AbortSignal} [signal]
   * @returns {Promise<FindResult>}
   */
  find(query, { space, curve }, signal) {
    return ask(`find?${new URLSearchParams({ q: query, space, curve })}`, signal);
  }

  /** @param {(event: AtlasEvent) => void} callback */
  events(callback) {
    // A server that shows a newer generation says so at once.
    new EventStream(() => `events?g=${this.#generation}`, callback);
  }
}

/**
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
async function ask(path, signal) {
  const response = await request(path, signal);
  return response.json();
}

/** @param {Pixel} pixel */
function pathOf({ z, row, column }) {
  return `${z}/${row}/${column}`;
}
