// What part of the map is in the window, and how it gets there.
//
// The map can be looked at closer than there are pixels. What is pointed at is then a pixel at the
// deepest zoom.

import { SQUARE, reducedMotion } from "./leaflet-map.js";
import { SIDE, isMiddleOfWhole, nearestOnMap, pixelAt, positionOf } from "./positions.js";

/** @import { LatLngExpression, Map as LeafletMap } from "leaflet" */
/** @import { Pixel } from "../data/types.js" */

/** Zooms beyond the deepest one: to point at a single sector, it has to be of some size. */
const CLOSER = 4;

/**
 * The middle of a window lies on the border of two pixels or in the middle of one, as its size is
 * even or odd, and Leaflet moves it there. A quarter of a pixel is not moved to another pixel.
 */
const BEFORE_MIDDLE = 0.25;

/** Around the whole map, in pixels of the screen. */
const MARGIN = 8;

/** Around a pixel that is to be seen, in pixels of the screen. */
const FREE_AROUND = 40;

const FLIGHT_S = 0.9;

/** Moves the map in its window. */
export class Viewport {
  #map;
  #maxZoom = 0;

  /** @param {LeafletMap} map */
  constructor(map) {
    this.#map = map;
    this.#onResize();
    map.on("resize", () => this.#onResize());
  }

  /** The zoom of the map, but not deeper than there are pixels. */
  get zoom() {
    return Math.min(Math.round(this.#map.getZoom()), this.#maxZoom);
  }

  /** The pixel in the middle of the window, at the zoom of the map. */
  get middle() {
    return this.#middle(Math.round(this.#map.getZoom()));
  }

  /** The pixel in the middle of the window, not deeper than there are pixels. */
  get target() {
    return this.#middle(this.zoom);
  }

  /** Whether only a part of the map fits into the window. */
  get isClose() {
    return this.#map.getZoom() > this.#wholeZoom();
  }

  /**
   * Set the deepest zoom that there are pixels for. Returns whether `zoom` is another one now.
   *
   * @param {number} maxZoom
   */
  setMaxZoom(maxZoom) {
    const before = this.zoom;
    this.#setZoomRange(this.#wholeZoom(), Math.max(maxZoom + CLOSER, this.#wholeZoom()));
    this.#maxZoom = maxZoom;
    return this.zoom !== before;
  }

  /**
   * Move a pixel to the middle, at its zoom, at once.
   *
   * @param {Pixel|null} pixel null: show the whole map
   */
  goTo(pixel) {
    if (pixel === null || isMiddleOfWhole(pixel, this.#wholeZoom())) {
      this.showWhole(false);
    } else {
      this.#map.setView(positionOf(pixel, BEFORE_MIDDLE), pixel.z, { animate: false });
    }
  }

  /**
   * Move a pixel to the middle so that the eye can follow; where the whole map fits, show that.
   *
   * @param {Pixel} pixel
   * @param {number} covered height of what covers the lower part of the window: where the middle is
   *     not well above it, the pixel comes to be higher
   */
  flyTo(pixel, covered = 0) {
    if (pixel.z <= this.#wholeZoom()) {
      this.showWhole();
      return;
    }
    const middle = this.#middleFor(pixel, covered);
    if (reducedMotion.matches) {
      this.#map.setView(middle, pixel.z, { animate: false });
    } else {
      this.#map.flyTo(middle, pixel.z, { duration: FLIGHT_S });
    }
  }

  /** Show the whole map. */
  showWhole(animate = !reducedMotion.matches) {
    const { options } = this.#map;
    // Else Leaflet rounds the zoom, and twice if it does not glide there.
    options.zoomSnap = 0;
    this.#map.setView(SQUARE.getCenter(), this.#wholeZoom(), { animate });
    options.zoomSnap = 1;
  }

  /**
   * Move the window so far that a pixel is not under what covers its right and bottom edge.
   *
   * @param {Pixel} pixel
   * @param {{right: number, bottom: number}} covered in pixels of the screen
   */
  reveal(pixel, { right, bottom }) {
    this.#map.panInside(positionOf(pixel), {
      paddingTopLeft: [FREE_AROUND, FREE_AROUND],
      paddingBottomRight: [right + FREE_AROUND, bottom + FREE_AROUND],
      animate: !reducedMotion.matches,
    });
  }

  /** @param {number} levels */
  zoomBy(levels) {
    this.#map.setZoom(this.#map.getZoom() + levels, { animate: !reducedMotion.matches });
  }

  /**
   * Move the window over the map.
   *
   * @param {number} right in pixels of the screen
   * @param {number} down
   */
  pan(right, down) {
    this.#map.panBy([right, down], { animate: !reducedMotion.matches });
  }

  /** Return to the map if the middle of the window has left it. Returns whether it has not. */
  keepOnMap() {
    const middle = this.#map.getCenter();
    if (SQUARE.contains(middle)) {
      return true;
    }
    this.#map.panTo(nearestOnMap(middle), { animate: !reducedMotion.matches });
    return false;
  }

  focus() {
    this.#map.getContainer().focus({ preventScroll: true });
  }

  /** @param {number} zoom */
  #middle(zoom) {
    const { lat, lng } = this.#map.getCenter();
    const shift = BEFORE_MIDDLE / 2 ** this.#map.getZoom();
    return pixelAt({ lat: lat - shift, lng: lng + shift }, zoom);
  }

  /**
   * What must be in the middle for a pixel not to be under what covers the lower part.
   *
   * @param {Pixel} pixel
   * @param {number} covered
   * @returns {LatLngExpression}
   */
  #middleFor(pixel, covered) {
    const up = Math.max(covered + FREE_AROUND - this.#map.getSize().y / 2, 0);
    const point = this.#map.project(positionOf(pixel, BEFORE_MIDDLE), pixel.z);
    return this.#map.unproject(point.add([0, Math.ceil(up)]), pixel.z);
  }

  /**
   * The zoom at which the whole map fills the window. It is the smallest, and the only one at which
   * pixels of the map are not as large as those of the screen, or a multiple of them.
   */
  #wholeZoom() {
    const { x, y } = this.#map.getSize();
    return Math.max(Math.log2((Math.min(x, y) - 2 * MARGIN) / SIDE), 0);
  }

  #onResize() {
    const wasWhole = this.#map.getZoom() === this.#map.getMinZoom();
    this.#setZoomRange(this.#wholeZoom(), this.#map.getMaxZoom());
    if (wasWhole) {
      this.showWhole(false);
    }
  }

  /**
   * Set the range of zooms. What Leaflet itself has for that glides to the nearest zoom, and where
   * that glide began is shown at its end, even if the map has been moved elsewhere since.
   *
   * @param {number} smallest
   * @param {number} largest
   */
  #setZoomRange(smallest, largest) {
    Object.assign(this.#map.options, { minZoom: smallest, maxZoom: largest });
    const zoom = this.#map.getZoom();
    if (zoom < smallest || zoom > largest) {
      this.#map.setZoom(zoom, { animate: false });
    }
  }
}
