// The map of Leaflet that everything here is drawn on.

import * as L from "../vendor/leaflet/leaflet-src.esm.js";
import { SIDE } from "./positions.js";

/** What Leaflet calls the whole map. */
export const SQUARE = L.latLngBounds([-SIDE, 0], [0, SIDE]);

export const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

/** Above one another; Leaflet's own pane of tiles is at 200. */
const PANES = { sketch: 100, borders: 300, found: 301, changed: 302 };

/**
 * Make the map, without anything on it.
 *
 * @param {HTMLElement} element
 */
export function createMap(element) {
  const map = L.map(element, {
    crs: L.CRS.Simple,
    center: SQUARE.getCenter(),
    zoom: 0,
    minZoom: 0,
    maxZoom: 0,
    attributionControl: false,
    // Keys work wherever the focus is, see ui/keyboard.js.
    keyboard: false,
    zoomControl: false,
    fadeAnimation: false,
    zoomAnimation: !reducedMotion.matches,
    inertia: !reducedMotion.matches,
    wheelPxPerZoomLevel: 100,
  });
  for (const [name, zIndex] of Object.entries(PANES)) {
    Object.assign(map.createPane(name).style, { zIndex, pointerEvents: "none" });
  }
  return map;
}
