// What is written and drawn onto the map: the names of devices, and a ring around a pixel.

import { el } from "../ui/elements.js";
import * as L from "../vendor/leaflet/leaflet-src.esm.js";
import { SIDE, positionOf } from "./positions.js";

/** @import { DivIconOptions, Map as LeafletMap, Marker } from "leaflet" */
/** @import { DeviceLabel, Pixel } from "../data/types.js" */

/** The names of devices, and the ring. */
export class Annotations {
  #map;
  #labels = L.layerGroup();
  /** @type {Marker|null} */
  #ring = null;

  /** @param {LeafletMap} map */
  constructor(map) {
    this.#map = map;
    this.#labels.addTo(map);
  }

  /**
   * Show the names of devices. A single device needs none: it would only hide the map's middle.
   *
   * @param {DeviceLabel[]} labels
   */
  showLabels(labels) {
    this.#labels.clearLayers();
    for (const { text, row, column } of labels.length > 1 ? labels : []) {
      const content = el("span", {}, text);
      const position = { lat: -SIDE * row, lng: SIDE * column };
      // Else it had a size of its own, and not that of its text.
      const icon = { className: "label", html: content, iconSize: undefined };
      this.#labels.addLayer(marker(position, icon));
    }
  }

  /**
   * Put a ring around a pixel.
   *
   * @param {Pixel|null} pixel null: around none
   */
  ring(pixel) {
    this.#ring?.remove();
    this.#ring = null;
    if (pixel !== null) {
      const ring = marker(positionOf(pixel), { className: "ring", iconSize: [22, 22] });
      this.#ring = ring.addTo(this.#map);
    }
  }
}

/**
 * A marker that is only looked at.
 *
 * @param {{lat: number, lng: number}} position
 * @param {DivIconOptions} icon
 */
function marker(position, icon) {
  return L.marker(position, { icon: L.divIcon(icon), interactive: false, keyboard: false });
}
