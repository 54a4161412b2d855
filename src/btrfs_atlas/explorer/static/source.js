// Where the page gets what it shows: from the server that it came from.
//
// The exported file has another source with the same methods (embedded.js). `can` tells what a
// source is able to do; the page does not show controls that would be of no use.

const NOT_FOUND = 404;
const BUSY = 503;
const BUSY_RETRIES = 8;
const RECONNECT_MS = 2000;

/** An answer that says no, in words for people. */
export class SourceError extends Error {
  /**
   * @param {string} message what is wrong
   * @param {string|null} hint what may help
   * @param {number} status of HTTP, 0 if there was no answer
   */
  constructor(message, hint = null, status = 0) {
    super(message);
    this.hint = hint;
    this.status = status;
  }
}

/** The HTTP interface of `btrfs-atlas serve`. All addresses are relative to the page's own. */
export class LiveSource {
  can = { find: true, details: true, live: true, deep: true };

  #generation;
  #before;

  /**
   * @param {object} filesystem as it was when the page was sent
   * @param {{space: string, curve: string, colour: string, url: string}} sketch a picture of the
   *     whole map, to be seen until there are tiles
   */
  constructor({ filesystem, sketch }) {
    this.first = filesystem;
    this.sketch = sketch;
    this.#generation = filesystem.generation;
    this.#before = filesystem.generation;
  }

  async filesystem() {
    const answer = await this.#ask("filesystem");
    if (answer.generation !== this.#generation) {
      this.#before = this.#generation;
      this.#generation = answer.generation;
    }
    return answer;
  }

  /**
   * A tile of the map.
   *
   * @returns {Promise<{url: string, complete: boolean, release: function(): void}>} call `release`
   *     when the image is loaded: it frees the memory behind the url
   */
  async tile(space, curve, colour, z, row, column, signal) {
    const path = `tile/${space}/${curve}/${colour}/${z}/${row}/${column}.png`;
    const response = await request(`${path}?g=${this.#generation}`, signal);
    const complete = response.headers.get("X-Complete") !== "0";
    const url = URL.createObjectURL(await response.blob());
    return { url, complete, release: () => URL.revokeObjectURL(url) };
  }

  /** The address of a transparent picture of marks. */
  marks(kind, space, curve, z, row, column, query = null) {
    const path = `marks/${kind}/${space}/${curve}/${z}/${row}/${column}.png`;
    const found = query === null ? "" : `&q=${encodeURIComponent(query)}`;
    const changed = kind === "changed" ? `&since=${this.#before}` : "";
    return `${path}?g=${this.#generation}${found}${changed}`;
  }

  legend(space, colour, z, signal) {
    return this.#ask(`legend/${space}/${colour}?z=${z}`, signal);
  }

  at(space, curve, z, row, column, signal) {
    return this.#ask(`at/${space}/${curve}/${z}/${row}/${column}`, signal);
  }

  details(space, curve, z, row, column, signal) {
    return this.#ask(`details/${space}/${curve}/${z}/${row}/${column}`, signal);
  }

  find(query, space, curve, signal) {
    return this.#ask(`find?${new URLSearchParams({ q: query, space, curve })}`, signal);
  }

  /**
   * Hear about what happens to the filesystem, for as long as the page is looked at.
   *
   * @param {function(object): void} callback gets {type: "changed", generation, groups},
   *     {type: "loaded"}, {type: "lost"} when the connection broke, {type: "back"} when it is there
   *     again, before which any number of changes may have been missed, and {type: "gone"} when
   *     there is another server now, which does not know this page
   */
  events(callback) {
    new Events(() => this.#eventsPath(), callback);
  }

  /** A server that has moved on since says so at once. */
  #eventsPath() {
    return `events?g=${this.#generation}`;
  }

  async #ask(path, signal) {
    const response = await request(path, signal);
    return response.json();
  }
}

async function request(path, signal) {
  for (let retries = 0; ; retries += 1) {
    const response = await reach(path, signal);
    if (response.ok) {
      return response;
    }
    if (response.status !== BUSY || retries >= BUSY_RETRIES) {
      throw await refusal(response);
    }
    await pause(Number(response.headers.get("Retry-After")) || 1, signal);
  }
}

async function reach(path, signal) {
  try {
    return await fetch(path, { signal });
  } catch (error) {
    if (signal?.aborted) {
      throw error;
    }
    throw new SourceError("The server does not answer", "Is btrfs-atlas serve still running?");
  }
}

async function refusal(response) {
  const words = await response.json().catch(() => ({}));
  const message = words.error ?? `The server refused (HTTP ${response.status})`;
  return new SourceError(message, words.hint ?? null, response.status);
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

/**
 * The stream of events. A browser has few connections to one server for all its tabs together, and
 * a stream holds one: a tab that is not looked at gives its own back.
 */
class Events {
  #stream = null;
  #timer = 0;
  #broken = false;

  constructor(path, callback) {
    this.path = path;
    this.callback = callback;
    document.addEventListener("visibilitychange", () => this.#follow());
    this.#follow();
  }

  #follow() {
    clearTimeout(this.#timer);
    if (!document.hidden) {
      this.#open();
    } else if (this.#stream !== null) {
      this.#stream.close();
      this.#stream = null;
      this.#broken = true;
    }
  }

  #open() {
    this.#stream?.close();
    const stream = new EventSource(this.path());
    this.#stream = stream;
    stream.addEventListener("open", () => this.#opened());
    stream.addEventListener("error", () => this.#lost(stream));
    for (const type of ["changed", "loaded"]) {
      stream.addEventListener(type, ({ data }) => this.callback({ type, ...JSON.parse(data) }));
    }
  }

  #opened() {
    if (this.#broken) {
      this.#broken = false;
      this.callback({ type: "back" });
    }
  }

  #lost(stream) {
    if (!this.#broken) {
      this.#broken = true;
      this.callback({ type: "lost" });
    }
    // The browser itself tries again after a broken connection, but not after a refusal.
    if (stream.readyState === EventSource.CLOSED) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#follow(), RECONNECT_MS);
      this.#tellIfGone();
    }
  }

  /** Another server has another token in its addresses: to it, this page is a stranger. */
  async #tellIfGone() {
    const answer = await fetch("events", { method: "HEAD" }).catch(() => null);
    if (answer?.status === NOT_FOUND) {
      clearTimeout(this.#timer);
      this.callback({ type: "gone" });
    }
  }
}
