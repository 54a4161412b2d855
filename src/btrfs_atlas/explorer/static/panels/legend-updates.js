// When the legend is fetched: at once for other colours, later and less often while the map moves.

import { errorText } from "../data/source-error.js";

/** @import { MapSettings, Source } from "../data/types.js" */
/** @import { Legend } from "./legend.js" */

const DELAY_MS = 400;

/** Keeps the legend up to date; only the latest answer counts. */
export class LegendUpdates {
  #source;
  #legend;
  #mapState;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #timer;
  #abort = new AbortController();
  #zoom = -1;

  /**
   * @param {Source} source
   * @param {Legend} legend
   * @param {() => {settings: MapSettings, zoom: number}} mapState what the map shows
   */
  constructor(source, legend, mapState) {
    this.#source = source;
    this.#legend = legend;
    this.#mapState = mapState;
  }

  /** Fetch the legend now. */
  async update() {
    clearTimeout(this.#timer);
    this.#abort.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    const { settings, zoom } = this.#mapState();
    this.#zoom = zoom;
    try {
      const legend = await this.#source.legend(settings, zoom, signal);
      if (!signal.aborted) {
        this.#legend.show(legend);
      }
    } catch (error) {
      if (!signal.aborted) {
        this.#legend.showError(errorText(error));
      }
    }
  }

  /** Fetch the legend once there are no more calls for a moment. */
  updateSoon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.update(), DELAY_MS);
  }

  /**
   * The map has moved: soon fetch the legend if it is that of another zoom.
   *
   * @param {number} zoom
   */
  followZoom(zoom) {
    if (zoom !== this.#zoom) {
      this.updateSoon();
    }
  }
}
