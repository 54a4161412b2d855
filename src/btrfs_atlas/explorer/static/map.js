// The map: Leaflet with a layer of tiles, layers of marks, and the names of devices.
//
// The whole picture is a square of 256 units, the width of the only tile at zoom 0: its top left
// corner is latitude 0, longitude 0; rows grow to the south. A place is a pixel at a zoom. The map
// can be looked at closer than there are pixels; then a place is a pixel at the deepest zoom.

import * as L from "./vendor/leaflet/leaflet-src.esm.js";
import { PictureLayer } from "./pictures.js";
import { el } from "./text.js";

const SIDE = 256;
const SQUARE = L.latLngBounds([-SIDE, 0], [0, SIDE]);

/** Zooms beyond the deepest one: to point at a single sector, it has to be of some size. */
const CLOSER = 4;

/** How long a click waits for a second one, which zooms, before it counts. */
const DOUBLE_CLICK_MS = 220;

/**
 * The middle of a window lies on the border of two pixels or in the middle of one, as its size is
 * even or odd, and Leaflet moves it there. A quarter of a pixel is not moved to another pixel.
 */
const BEFORE_MIDDLE = 0.25;

/** Around the whole map, in pixels of the screen. */
const MARGIN = 8;

/** Around a place that is to be seen, in pixels of the screen. */
const FREE_AROUND = 40;

const FLASH_MS = 2400;
const FLIGHT_S = 0.9;

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Handlers, all called with what the user meant:
 *
 *     onPoint(place, event)   the mouse is over a pixel
 *     onLeave()               it is no longer
 *     onPick(place)           a pixel was clicked or tapped
 *     onMoved()               the view has moved, or zoomed
 *     onProgress(progress)    "loading"; "sketched": the whole map is to be seen, if not in full
 *                             detail; "drawn": every tile shows something; "complete": nothing
 *                             is missing
 */
export class AtlasMap {
  #source;
  #handlers;
  #map;
  #tiles = null;
  #borders = null;
  #sketch = null;
  #sketched = false;
  #found = null;
  #lit = null;
  #flash = null;
  #flashEnd = 0;
  #labels = L.layerGroup();
  #ring = null;
  #clicked = 0;
  #moving = false;
  #shown = { space: null, curve: null, colour: null };
  #maxZoom = 0;

  constructor(element, source, handlers) {
    this.#source = source;
    this.#handlers = handlers;
    this.#map = createMap(element);
    this.#resized();
    this.#labels.addTo(this.#map);
    this.#listen(element);
  }

  /**
   * Show a space on a curve in colours.
   *
   * @param {{space: string, curve: string, colour: string}} shown
   * @param {number} maxZoom the deepest zoom of the space
   * @param {{text: string, row: number, column: number}[]} labels row and column as parts, 0 to 1
   */
  show(shown, maxZoom, labels) {
    const moved = shown.space !== this.#shown.space || shown.curve !== this.#shown.curve;
    this.#dropSketch();
    this.#shown = { ...shown };
    this.#setZooms(this.#wholeZoom(), Math.max(maxZoom + CLOSER, this.#wholeZoom()));
    this.#setDeepest(maxZoom);
    this.#addLayers();
    this.#tiles.refresh();
    if (moved) {
      this.#borders.refresh();
      this.#found?.refresh();
    }
    this.#showLabels(labels);
  }

  /** Show a picture of the whole map, below the tiles, until they are there. */
  async sketch(url) {
    const sketch = L.imageOverlay(url, SQUARE, { pane: "sketch" }).addTo(this.#map);
    this.#sketch = sketch;
    await sketch.getElement().decode();
    this.#sketched = this.#sketch === sketch;
    this.#tellProgress();
  }

  /** Draw everything again, as the filesystem has changed, but for what is lit up. */
  refresh() {
    this.#dropSketch();
    this.#tiles.refresh();
    this.#borders.refresh();
  }

  /** Draw again what was not complete: more of the filesystem has been read. */
  retry() {
    this.#layers().forEach((layer) => layer.retry());
  }

  /** Light up what a query finds, above the dimmed map, or anew; null: light up nothing. */
  light(query) {
    if (query !== null && query === this.#lit) {
      this.#found.refresh();
      return;
    }
    this.#lit = query;
    this.#found?.remove();
    this.#found = null;
    this.#map.getContainer().classList.toggle("dimmed", query !== null);
    if (query !== null) {
      this.#found = this.#layer("found", (place) => this.#marks("found", place, query));
    }
  }

  /** Let the block groups that have just changed flash once. */
  flash() {
    this.#stopFlash();
    const layer = this.#layer("changed", (place) => this.#marks("changed", place));
    this.#flash = layer;
    layer.once("load", () => layer.getContainer()?.classList.add("flashing"));
    this.#flashEnd = setTimeout(() => this.#stopFlash(), FLASH_MS);
  }

  /** Put a ring around a place; null: around none. */
  ring(place) {
    this.#ring?.remove();
    this.#ring = null;
    if (place !== null) {
      const icon = L.divIcon({ className: "ring", iconSize: [22, 22] });
      const options = { icon, interactive: false, keyboard: false };
      this.#ring = L.marker(position(place), options).addTo(this.#map);
    }
  }

  /** The zoom that places are told at: that of the map, but not deeper than there are pixels. */
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

  /** Whether the map is looked at closer than as a whole. */
  get isClose() {
    return this.#map.getZoom() > this.#wholeZoom();
  }

  /** Move a place to the middle, at its zoom; null: show the whole map. At once. */
  goTo(place) {
    if (place === null || isMiddleOfWhole(place, this.#wholeZoom())) {
      this.whole(false);
    } else {
      this.#map.setView(position(place, BEFORE_MIDDLE), place.z, { animate: false });
    }
  }

  /**
   * Move a place to the middle, so that one can follow; where the whole map fits, show that.
   *
   * @param {Place} place
   * @param {number} bottom how much of the lower part of the window is covered: where the middle is
   *     not well above that, the place comes to be higher
   */
  flyTo(place, bottom = 0) {
    if (place.z <= this.#wholeZoom()) {
      this.whole();
      return;
    }
    const middle = this.#lower(position(place, BEFORE_MIDDLE), place.z, bottom);
    if (reducedMotion.matches) {
      this.#map.setView(middle, place.z, { animate: false });
    } else {
      this.#map.flyTo(middle, place.z, { duration: FLIGHT_S });
    }
  }

  /** Show the whole map. */
  whole(animate = !reducedMotion.matches) {
    const { options } = this.#map;
    // Else Leaflet rounds the zoom, and twice if it does not glide there.
    options.zoomSnap = 0;
    this.#map.setView(SQUARE.getCenter(), this.#wholeZoom(), { animate });
    options.zoomSnap = 1;
  }

  /** Move the window so far that a place is not under what covers its right and bottom edge. */
  reveal(place, right, bottom) {
    this.#map.panInside(position(place), {
      paddingTopLeft: [FREE_AROUND, FREE_AROUND],
      paddingBottomRight: [right + FREE_AROUND, bottom + FREE_AROUND],
      animate: !reducedMotion.matches,
    });
  }

  zoomBy(levels) {
    this.#map.setZoom(this.#map.getZoom() + levels, { animate: !reducedMotion.matches });
  }

  /** Move the window over the map, in pixels to the right and down. */
  pan(right, down) {
    this.#map.panBy([right, down], { animate: !reducedMotion.matches });
  }

  focus() {
    this.#map.getContainer().focus({ preventScroll: true });
  }

  #layer(pane, load) {
    const layer = new PictureLayer({
      pane,
      load,
      bounds: SQUARE,
      tileSize: SIDE,
      keepBuffer: 1,
      updateWhenIdle: false,
      updateWhenZooming: false,
      maxNativeZoom: this.#maxZoom,
      maxZoom: Infinity,
    });
    layer.on("progress", () => this.#tellProgress());
    return layer.addTo(this.#map);
  }

  #middle(zoom) {
    const { lat, lng } = this.#map.getCenter();
    const shift = BEFORE_MIDDLE / 2 ** this.#map.getZoom();
    return placeOf({ lat: lat - shift, lng: lng + shift }, zoom);
  }

  /** What must be in the middle for a position not to be under what covers the lower part. */
  #lower(latlng, zoom, covered) {
    const up = Math.max(covered + FREE_AROUND - this.#map.getSize().y / 2, 0);
    return this.#map.unproject(this.#map.project(latlng, zoom).add([0, Math.ceil(up)]), zoom);
  }

  #addLayers() {
    this.#tiles ??= this.#layer("tilePane", (place, signal) => this.#tile(place, signal));
    this.#borders ??= this.#layer("borders", (place) => this.#marks("borders", place));
  }

  #layers() {
    return [this.#tiles, this.#borders, this.#found].filter((layer) => layer !== null);
  }

  #tile({ z, row, column }, signal) {
    const { space, curve, colour } = this.#shown;
    return this.#source.tile(space, curve, colour, z, row, column, signal);
  }

  async #marks(kind, { z, row, column }, query = null) {
    const { space, curve } = this.#shown;
    const url = this.#source.marks(kind, space, curve, z, row, column, query);
    return { url, complete: true };
  }

  #setDeepest(maxZoom) {
    const before = this.zoom;
    this.#maxZoom = maxZoom;
    for (const layer of this.#layers()) {
      layer.options.maxNativeZoom = maxZoom;
      // Other tiles are needed than those that are there: only then they have to go.
      if (this.zoom !== before) {
        layer.redraw();
      }
    }
  }

  /** A single device needs no name: it would only hide what is in the middle of the map. */
  #showLabels(all) {
    this.#labels.clearLayers();
    const labels = all.length > 1 ? all : [];
    for (const { text, row, column } of labels) {
      const icon = L.divIcon({ className: "label", html: el("span", {}, text), iconSize: null });
      const options = { icon, interactive: false, keyboard: false };
      L.marker([-SIDE * row, SIDE * column], options).addTo(this.#labels);
    }
  }

  #stopFlash() {
    clearTimeout(this.#flashEnd);
    this.#flash?.remove();
    this.#flash = null;
  }

  /**
   * The zoom at which the whole map fills the window. It is the smallest, and the only one at which
   * pixels of the map are not as large as those of the screen, or a multiple of them.
   */
  #wholeZoom() {
    const { x, y } = this.#map.getSize();
    return Math.max(Math.log2((Math.min(x, y) - 2 * MARGIN) / SIDE), 0);
  }

  #resized() {
    const wasWhole = this.#map.getZoom() === this.#map.getMinZoom();
    this.#setZooms(this.#wholeZoom(), this.#map.getMaxZoom());
    if (wasWhole) {
      this.whole(false);
    }
  }

  /**
   * Set the range of zooms. What Leaflet itself has for that glides to the nearest zoom, and where
   * that glide began is shown at its end, even if the map has been moved elsewhere since.
   */
  #setZooms(smallest, largest) {
    Object.assign(this.#map.options, { minZoom: smallest, maxZoom: largest });
    const zoom = this.#map.getZoom();
    if (zoom < smallest || zoom > largest) {
      this.#map.setZoom(zoom, { animate: false });
    }
  }

  #tellProgress() {
    const progress = this.#progress();
    if (progress === "complete") {
      this.#dropSketch();
    }
    this.#handlers.onProgress(progress);
  }

  #progress() {
    if (this.#moving) {
      return "loading";
    }
    if (!this.#tiles?.isDrawn()) {
      return this.#sketched ? "sketched" : "loading";
    }
    return this.#layers().every((layer) => layer.isComplete()) ? "complete" : "drawn";
  }

  #dropSketch() {
    this.#sketch?.remove();
    this.#sketch = null;
    this.#sketched = false;
  }

  #listen(element) {
    this.#map.on("movestart zoomstart", () => this.#setMoving(true));
    this.#map.on("moveend", () => this.#moved());
    this.#map.on("zoomend", () => this.#smoothen(element));
    this.#map.on("resize", () => this.#resized());
    this.#map.on("click", ({ latlng }) => this.#click(latlng));
    this.#map.on("dblclick", () => clearTimeout(this.#clicked));
    element.addEventListener("pointermove", (event) => this.#point(event));
    element.addEventListener("pointerleave", () => this.#handlers.onLeave());
  }

  #moved() {
    this.#setMoving(false);
    // Every place can be moved to the middle, but the map cannot be lost.
    const middle = this.#map.getCenter();
    if (SQUARE.contains(middle)) {
      this.#handlers.onMoved();
    } else {
      this.#map.panTo(nearestWithin(middle), { animate: !reducedMotion.matches });
    }
  }

  /** Only where pixels of the map and of the screen do not match, they are mixed. */
  #smoothen(element) {
    element.classList.toggle("smooth", !Number.isInteger(this.#map.getZoom()));
  }

  #setMoving(moving) {
    this.#moving = moving;
    if (moving) {
      this.#handlers.onLeave();
    }
    this.#tellProgress();
  }

  #click(latlng) {
    clearTimeout(this.#clicked);
    const place = placeOf(latlng, this.zoom);
    if (SQUARE.contains(latlng)) {
      this.#clicked = setTimeout(() => this.#handlers.onPick(place), DOUBLE_CLICK_MS);
    }
  }

  #point(event) {
    const latlng = this.#map.mouseEventToLatLng(event);
    // Under a finger nothing could be read, and a pressed button drags the map.
    const pointing = event.pointerType !== "touch" && event.buttons === 0 && !this.#moving;
    if (pointing && SQUARE.contains(latlng)) {
      this.#handlers.onPoint(placeOf(latlng, this.zoom), event);
    } else {
      this.#handlers.onLeave();
    }
  }
}

function createMap(element) {
  const map = L.map(element, {
    crs: L.CRS.Simple,
    center: SQUARE.getCenter(),
    zoom: 0,
    minZoom: 0,
    maxZoom: 0,
    attributionControl: false,
    // Keys work wherever the focus is, see keys.js.
    keyboard: false,
    zoomControl: false,
    fadeAnimation: false,
    zoomAnimation: !reducedMotion.matches,
    inertia: !reducedMotion.matches,
    wheelPxPerZoomLevel: 100,
  });
  // Leaflet's own pane of tiles is at 200.
  const panes = { sketch: 100, borders: 300, found: 301, changed: 302 };
  for (const [name, zIndex] of Object.entries(panes)) {
    Object.assign(map.createPane(name).style, { zIndex, pointerEvents: "none" });
  }
  return map;
}

function nearestWithin({ lat, lng }) {
  return [Math.min(Math.max(lat, -SIDE), 0), Math.min(Math.max(lng, 0), SIDE)];
}

/** Whether a place is what an address says of the whole map: one of the pixels in its middle. */
function isMiddleOfWhole({ z, row, column }, wholeZoom) {
  const half = SIDE * 2 ** (z - 1);
  const isMiddle = (pixel) => pixel === half || pixel === half - 1;
  return z === Math.round(wholeZoom) && isMiddle(row) && isMiddle(column);
}

/** A point of a pixel: its middle, or another part of the way from its beginning to its end. */
function position({ z, row, column }, part = 0.5) {
  return L.latLng(-(row + part) / 2 ** z, (column + part) / 2 ** z);
}

/** The pixel at a position; the nearest one if that is outside of the map. */
function placeOf({ lat, lng }, z) {
  const last = SIDE * 2 ** z - 1;
  const within = (value) => Math.min(Math.max(Math.floor(value * 2 ** z), 0), last);
  return { z, row: within(-lat), column: within(lng) };
}
