// A layer of pictures in a grid: the tiles of the map, and the marks above them.
//
// Leaflet decides which pictures are needed where. This layer fetches them, at most so many at a
// time and newest view first, and swaps a picture for a newer one only when that is ready to be
// shown: there is no flicker.

import { GridLayer } from "./vendor/leaflet/leaflet-src.esm.js";

const AT_ONCE = 6;
const MAX_FAILURES = 5;
const RETRY_MS = 1000;

/**
 * Jobs, of which only so many run at a time. What is added together is done in that order; what is
 * added later comes first, because it is what is looked at now.
 */
class Queue {
  #batches = [];
  #open = null;
  #running = 0;

  add(job, signal) {
    if (this.#open === null) {
      this.#open = [];
      queueMicrotask(() => this.#close());
    }
    this.#open.push({ job, signal });
  }

  #close() {
    this.#batches.push(this.#open);
    this.#open = null;
    this.#start();
  }

  #start() {
    while (this.#running < AT_ONCE && this.#batches.length > 0) {
      const newest = this.#batches.at(-1);
      const { job, signal } = newest.shift();
      if (newest.length === 0) {
        this.#batches.pop();
      }
      if (!signal.aborted) {
        this.#run(job);
      }
    }
  }

  async #run(job) {
    this.#running += 1;
    await job();
    this.#running -= 1;
    this.#start();
  }
}

const queue = new Queue();

/**
 * Options beside those of Leaflet's GridLayer:
 *
 *     load({z, row, column}, signal)  promises {url, complete, release}: the picture's address,
 *                                     null if it is empty; whether it is all there is to show;
 *                                     what to call when it is loaded (may be left out)
 *
 * Fires `progress` whenever a picture was drawn or is needed.
 */
export const PictureLayer = GridLayer.extend({
  initialize(options) {
    GridLayer.prototype.initialize.call(this, options);
    this._pictures = new Map();
    this._loadedEvents = 0;
    this.on("tileunload", ({ tile }) => this._drop(tile));
  },

  createTile({ x, y, z }, done) {
    const tile = document.createElement("div");
    const picture = { tile, done, place: { z, row: y, column: x }, failures: 0, retry: 0 };
    this._pictures.set(tile, picture);
    this._request(picture);
    return tile;
  },

  /** Fetch all pictures again; those that are there stay until the new ones are. */
  refresh() {
    this._again(() => true);
  },

  /** Fetch those pictures again that have not shown all there is, or failed. */
  retry() {
    this._loadedEvents += 1;
    this._again(({ state }) => state === "incomplete" || state === "failed");
  },

  /** Whether there is something to see of all pictures, even if it is not complete. */
  isDrawn() {
    return this._are(({ done }) => done === null);
  },

  /** Whether all pictures are there and complete. */
  isComplete() {
    return this._are(({ state }) => state === "complete");
  },

  /** Whether all pictures are like that. While the map moves elsewhere, there can be none. */
  _are(like) {
    return this._pictures.size > 0 && [...this._pictures.values()].every(like);
  },

  _again(which) {
    for (const picture of this._pictures.values()) {
      if (which(picture)) {
        picture.failures = 0;
        this._request(picture);
      }
    }
  },

  _request(picture) {
    clearTimeout(picture.retry);
    picture.abort?.abort();
    picture.abort = new AbortController();
    picture.state = "loading";
    const { signal } = picture.abort;
    queue.add(() => this._fetch(picture, signal), signal);
    this.fire("progress");
  },

  async _fetch(picture, signal) {
    const before = this._loadedEvents;
    try {
      const complete = await this._draw(picture, signal);
      if (!signal.aborted) {
        this._drawn(picture, complete, before);
      }
    } catch {
      if (!signal.aborted) {
        this._failed(picture);
      }
    }
  },

  /** Show a picture. Returns whether it is complete. */
  async _draw({ tile, place }, signal) {
    const { url, complete, release } = await this.options.load(place, signal);
    try {
      const images = url === null ? [] : [await loadedImage(url, signal)];
      if (!signal.aborted) {
        tile.replaceChildren(...images);
      }
      return complete;
    } finally {
      release?.();
    }
  },

  _drawn(picture, complete, before) {
    picture.state = complete ? "complete" : "incomplete";
    this._ready(picture);
    this.fire("progress");
    // What it lacked may have been loaded while it was on its way.
    if (!complete && before !== this._loadedEvents) {
      this._request(picture);
    }
  },

  _failed(picture) {
    picture.state = "failed";
    picture.failures += 1;
    if (picture.failures < MAX_FAILURES) {
      picture.retry = setTimeout(() => this._request(picture), RETRY_MS * picture.failures);
    }
    this.fire("progress");
  },

  _ready(picture) {
    picture.done?.(null, picture.tile);
    picture.done = null;
  },

  _drop(tile) {
    const picture = this._pictures.get(tile);
    clearTimeout(picture.retry);
    picture.abort.abort();
    this._pictures.delete(tile);
    this.fire("progress");
  },
});

async function loadedImage(url, signal) {
  const image = new Image();
  image.alt = "";
  image.draggable = false;
  image.src = url;
  await unlessAborted(image.decode(), signal, () => image.removeAttribute("src"));
  return image;
}

/** Wait for a promise that knows nothing about a signal, and may never settle when stopped. */
async function unlessAborted(promise, signal, stop) {
  let abort;
  const aborted = new Promise((_, reject) => {
    abort = () => {
      stop();
      reject(signal.reason);
    };
  });
  signal.addEventListener("abort", abort);
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
