// Events of the filesystem, as the server sends them (web/live.py).

/** @import { AtlasEvent } from "./types.js" */

const NOT_FOUND = 404;
const RECONNECT_MS = 2000;

/**
 * A stream of events that is opened again when it breaks.
 *
 * A browser has few connections to one server for all its tabs together, and a stream holds one. A
 * hidden tab closes its stream.
 */
export class EventStream {
  #path;
  #callback;
  /** @type {EventSource|null} */
  #stream = null;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #timer;
  #isBroken = false;

  /**
   * @param {() => string} path of the stream, asked for each time that it is opened
   * @param {(event: AtlasEvent) => void} callback
   */
  constructor(path, callback) {
    this.#path = path;
    this.#callback = callback;
    document.addEventListener("visibilitychange", () => this.#update());
    this.#update();
  }

  #update() {
    clearTimeout(this.#timer);
    if (!document.hidden) {
      this.#open();
    } else if (this.#stream !== null) {
      this.#stream.close();
      this.#stream = null;
      this.#isBroken = true;
    }
  }

  #open() {
    this.#stream?.close();
    const stream = new EventSource(this.#path());
    this.#stream = stream;
    stream.addEventListener("open", () => this.#onOpen());
    stream.addEventListener("error", () => this.#onError(stream));
    for (const type of ["changed", "loaded"]) {
      stream.addEventListener(type, ({ data }) => this.#callback({ type, ...JSON.parse(data) }));
    }
  }

  #onOpen() {
    if (this.#isBroken) {
      this.#isBroken = false;
      this.#callback({ type: "back" });
    }
  }

  /** @param {EventSource} stream */
  #onError(stream) {
    if (!this.#isBroken) {
      this.#isBroken = true;
      this.#callback({ type: "lost" });
    }
    // The browser itself reconnects after a broken connection, but not after a refusal.
    if (stream.readyState === EventSource.CLOSED) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#update(), RECONNECT_MS);
      this.#checkServer();
    }
  }

  /** Another server has another token in its addresses, and finds nothing at this page's. */
  async #checkServer() {
    const answer = await fetch("events", { method: "HEAD" }).catch(() => null);
    if (answer?.status === NOT_FOUND) {
      clearTimeout(this.#timer);
      this.#callback({ type: "gone" });
    }
  }
}
