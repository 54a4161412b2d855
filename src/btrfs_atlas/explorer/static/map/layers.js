// The pictures that the map is made of: tiles, and marks above them.

import * as L from "../vendor/leaflet/leaflet-src.esm.js";
import { SQUARE } from "./leaflet-map.js";
import { PictureLayer } from "./picture-layer.js";
import { SIDE } from "./positions.js";

/** @import { ImageOverlay, Map as LeafletMap } from "leaflet" */
/** @import { MapSettings, Marks, Pixel, Source } from "../data/types.js" */
/** @import { Load } from "./picture-layer.js" */

/**
 * How far the map is. "sketched": the whole map can be seen, if not in full detail; "drawn": every
 * tile shows something; "complete": nothing is missing.
 *
 * @typedef {"loading"|"sketched"|"drawn"|"complete"} Progress
 */

const FLASH_MS = 2400;

/** The tiles of the map, the borders, what is highlighted, what flashes, and the sketch below. */
export class Layers {
  #map;
  #source;
  #onProgress;
  /** @type {PictureLayer|null} */
  #tiles = null;
  /** @type {PictureLayer|null} */
  #borders = null;
  /** @type {PictureLayer|null} */
  #found = null;
  /** @type {PictureLayer|null} */
  #flashing = null;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #flashTimer;
  /** @type {ImageOverlay|null} */
  #sketch = null;
  #isSketched = false;
  /** @type {string|null} */
  #query = null;
  /** @type {MapSettings|null} */
  #settings = null;
  #maxZoom = 0;

  /**
   * @param {LeafletMap} map
   * @param {Source} source
   * @param {() => void} onProgress something was drawn, or is needed
   */
  constructor(map, source, onProgress) {
    this.#map = map;
    this.#source = source;
    this.#onProgress = onProgress;
  }

  /** @returns {Progress} */
  get progress() {
    if (!this.#tiles?.isDrawn()) {
      return this.#isSketched ? "sketched" : "loading";
    }
    return this.#layers().every((layer) => layer.isComplete()) ? "complete" : "drawn";
  }

  /**
   * Show tiles, and marks that fit them.
   *
   * @param {MapSettings} settings
   * @param {number} maxZoom the deepest zoom of the space
   * @param {boolean} isOtherZoom whether other pictures are needed than those that are there
   */
  show(settings, maxZoom, isOtherZoom) {
    const before = this.#settings;
    const isMoved = settings.space !== before?.space || settings.curve !== before.curve;
    this.dropSketch();
    this.#settings = settings;
    this.#setMaxZoom(maxZoom, isOtherZoom);
    this.#tiles ??= this.#layer("tilePane", (square, signal) => this.#tile(square, signal));
    this.#borders ??= this.#layer("borders", (square) => this.#marks("borders", square));
    this.#tiles.refresh();
    if (isMoved) {
      this.#borders.refresh();
      this.#found?.refresh();
    }
  }

  /** Draw tiles and borders again: the filesystem has changed. */
  refresh() {
    this.dropSketch();
    this.#tiles?.refresh();
    this.#borders?.refresh();
  }

  /** Draw again what is incomplete: more of the filesystem has been read. */
  retry() {
    this.#layers().forEach((layer) => layer.retry());
  }

  /**
   * Highlight what a query finds, above the dimmed map, or draw that again.
   *
   * @param {string|null} query null: highlight nothing
   */
  highlight(query) {
    if (query !== null && query === this.#query) {
      this.#found?.refresh();
      return;
    }
    this.#query = query;
    this.#found?.remove();
    this.#found = null;
    this.#map.getContainer().classList.toggle("dimmed", query !== null);
    if (query !== null) {
      this.#found = this.#layer("found", (square) => this.#marks("found", square, query));
    }
  }

  /** Let the block groups that have just changed flash once. */
  flash() {
    this.#stopFlashing();
    const layer = this.#layer("changed", (square) => this.#marks("changed", square));
    this.#flashing = layer;
    layer.once("load", () => layer.getContainer()?.classList.add("flashing"));
    this.#flashTimer = setTimeout(() => this.#stopFlashing(), FLASH_MS);
  }

  /**
   * Show a picture of the whole map, below the tiles, until they are there.
   *
   * @param {string} url
   */
  async sketch(url) {
    const sketch = L.imageOverlay(url, SQUARE, { pane: "sketch" }).addTo(this.#map);
    this.#sketch = sketch;
    await sketch.getElement()?.decode();
    this.#isSketched = this.#sketch === sketch;
    this.#onProgress();
  }

  dropSketch() {
    this.#sketch?.remove();
    this.#sketch = null;
    this.#isSketched = false;
  }

  /**
   * @param {string} pane
   * @param {Load} load
   */
  #layer(pane, load) {
    const layer = new PictureLayer(load, {
      pane,
      bounds: SQUARE,
      tileSize: SIDE,
      keepBuffer: 1,
      updateWhenIdle: false,
      updateWhenZooming: false,
      maxNativeZoom: this.#maxZoom,
      maxZoom: Infinity,
    });
    layer.on("progress", () => this.#onProgress());
    return layer.addTo(this.#map);
  }

  #layers() {
    return [this.#tiles, this.#borders, this.#found].filter((layer) => layer !== null);
  }

  /**
   * @param {Pixel} square
   * @param {AbortSignal} signal
   */
  #tile(square, signal) {
    return this.#source.tile(this.#shownSettings(), square, signal);
  }

  /**
   * @param {Marks} kind
   * @param {Pixel} square
   * @param {string|null} query
   */
  async #marks(kind, square, query = null) {
    const url = this.#source.marks(kind, this.#shownSettings(), square, query);
    return { url, complete: true };
  }

  #shownSettings() {
    if (this.#settings === null) {
      throw new Error("a layer was made before settings were shown");
    }
    return this.#settings;
  }

  /**
   * @param {number} maxZoom
   * @param {boolean} isOtherZoom
   */
  #setMaxZoom(maxZoom, isOtherZoom) {
    this.#maxZoom = maxZoom;
    for (const layer of this.#layers()) {
      Object.assign(layer.options, { maxNativeZoom: maxZoom });
      if (isOtherZoom) {
        layer.redraw();
      }
    }
  }

  #stopFlashing() {
    clearTimeout(this.#flashTimer);
    this.#flashing?.remove();
    this.#flashing = null;
  }
}
