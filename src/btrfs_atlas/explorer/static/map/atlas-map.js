// The map: tiles, marks and names in a window, and what the user does with the mouse on it.

import { Annotations } from "./annotations.js";
import { Layers } from "./layers.js";
import { SQUARE, createMap } from "./leaflet-map.js";
import { pixelAt } from "./positions.js";
import { Viewport } from "./viewport.js";

/** @import { LeafletMouseEvent } from "leaflet" */
/** @import { DeviceLabel, MapSettings, Pixel, Source } from "../data/types.js" */
/** @import { Progress } from "./layers.js" */

/**
 * @typedef {object} MapHandlers
 * @property {(pixel: Pixel, event: PointerEvent) => void} onPoint the mouse is over a pixel
 * @property {() => void} onLeave it is no longer
 * @property {(pixel: Pixel) => void} onPick a pixel was clicked or tapped
 * @property {() => void} onMove the view has moved, or zoomed
 * @property {(progress: Progress) => void} onProgress
 */

/** How long a click waits for a second one, which zooms, before it counts. */
const DOUBLE_CLICK_MS = 220;

/** The map of a filesystem. */
export class AtlasMap {
  #map;
  #handlers;
  #layers;
  #annotations;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #clickTimer;
  #isMoving = false;

  /**
   * @param {HTMLElement} element
   * @param {Source} source
   * @param {MapHandlers} handlers
   */
  constructor(element, source, handlers) {
    this.#map = createMap(element);
    this.#handlers = handlers;
    this.viewport = new Viewport(this.#map);
    this.#layers = new Layers(this.#map, source, () => this.#tellProgress());
    this.#annotations = new Annotations(this.#map);
    this.#listen(element);
  }

  /**
   * Show a space on a curve in colours.
   *
   * @param {MapSettings} settings
   * @param {number} maxZoom the deepest zoom of the space
   * @param {DeviceLabel[]} labels
   */
  show(settings, maxZoom, labels) {
    const isOtherZoom = this.viewport.setMaxZoom(maxZoom);
    this.#layers.show(settings, maxZoom, isOtherZoom);
    this.#annotations.showLabels(labels);
  }

  /**
   * Show a picture of the whole map until there are tiles.
   *
   * @param {string} url
   */
  sketch(url) {
    this.#layers.sketch(url);
  }

  /** Draw everything again, except what is highlighted: the filesystem has changed. */
  refresh() {
    this.#layers.refresh();
  }

  /** Draw again what is incomplete: more of the filesystem has been read. */
  retry() {
    this.#layers.retry();
  }

  /**
   * Highlight what a query finds.
   *
   * @param {string|null} query null: highlight nothing
   */
  highlight(query) {
    this.#layers.highlight(query);
  }

  /** Let the block groups that have just changed flash once. */
  flash() {
    this.#layers.flash();
  }

  /**
   * Put a ring around a pixel.
   *
   * @param {Pixel|null} pixel null: around none
   */
  ring(pixel) {
    this.#annotations.ring(pixel);
  }

  #tellProgress() {
    const progress = this.#isMoving ? "loading" : this.#layers.progress;
    if (progress === "complete") {
      this.#layers.dropSketch();
    }
    this.#handlers.onProgress(progress);
  }

  /** @param {HTMLElement} element */
  #listen(element) {
    this.#map.on("movestart zoomstart", () => this.#setMoving(true));
    this.#map.on("moveend", () => this.#onMoveEnd());
    this.#map.on("zoomend", () => this.#smoothen(element));
    this.#map.on("click", (event) => this.#onClick(event));
    this.#map.on("dblclick", () => clearTimeout(this.#clickTimer));
    element.addEventListener("pointermove", (event) => this.#onPointerMove(event));
    element.addEventListener("pointerleave", () => this.#handlers.onLeave());
  }

  #onMoveEnd() {
    this.#setMoving(false);
    // Every pixel can be moved to the middle, but the map cannot be lost.
    if (this.viewport.keepOnMap()) {
      this.#handlers.onMove();
    }
  }

  /**
   * Only where pixels of the map and of the screen do not match, they are mixed.
   *
   * @param {HTMLElement} element
   */
  #smoothen(element) {
    element.classList.toggle("smooth", !Number.isInteger(this.#map.getZoom()));
  }

  /** @param {boolean} isMoving */
  #setMoving(isMoving) {
    this.#isMoving = isMoving;
    if (isMoving) {
      this.#handlers.onLeave();
    }
    this.#tellProgress();
  }

  /** @param {LeafletMouseEvent} event */
  #onClick({ latlng }) {
    clearTimeout(this.#clickTimer);
    const pixel = pixelAt(latlng, this.viewport.zoom);
    if (SQUARE.contains(latlng)) {
      this.#clickTimer = setTimeout(() => this.#handlers.onPick(pixel), DOUBLE_CLICK_MS);
    }
  }

  /** @param {PointerEvent} event */
  #onPointerMove(event) {
    const latlng = this.#map.mouseEventToLatLng(event);
    // Under a finger nothing could be read, and a pressed button drags the map.
    const isPointing = event.pointerType !== "touch" && event.buttons === 0 && !this.#isMoving;
    if (isPointing && SQUARE.contains(latlng)) {
      this.#handlers.onPoint(pixelAt(latlng, this.viewport.zoom), event);
    } else {
      this.#handlers.onLeave();
    }
  }
}
