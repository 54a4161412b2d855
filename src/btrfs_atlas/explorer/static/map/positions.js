// From pixels of the map to positions in Leaflet's coordinates, and back.
//
// The map is a square of 256 units, the width of the only tile at zoom 0. Its top left corner is
// latitude 0, longitude 0; rows grow to the south.

/** @import { Pixel } from "../data/types.js" */

/** @typedef {{lat: number, lng: number}} Position */

/** Units that the map is wide and high; also pixels of a tile. */
export const SIDE = 256;

/**
 * A point of a pixel: its middle, or another part of the way from its beginning to its end.
 *
 * @param {Pixel} pixel
 * @param {number} part 0 to 1
 * @returns {Position}
 */
export function positionOf({ z, row, column }, part = 0.5) {
  return { lat: -(row + part) / 2 ** z, lng: (column + part) / 2 ** z };
}

/**
 * The pixel at a position; the nearest one if that is outside of the map.
 *
 * @param {Position} position
 * @param {number} z
 * @returns {Pixel}
 */
export function pixelAt({ lat, lng }, z) {
  const last = SIDE * 2 ** z - 1;
  /** @param {number} value */
  const index = (value) => Math.min(Math.max(Math.floor(value * 2 ** z), 0), last);
  return { z, row: index(-lat), column: index(lng) };
}

/**
 * The nearest position on the map.
 *
 * @param {Position} position
 * @returns {Position}
 */
export function nearestOnMap({ lat, lng }) {
  return { lat: Math.min(Math.max(lat, -SIDE), 0), lng: Math.min(Math.max(lng, 0), SIDE) };
}

/**
 * Whether a pixel is what an address says of the whole map: one of those in its middle.
 *
 * @param {Pixel} pixel
 * @param {number} wholeZoom at which the whole map fills the window
 */
export function isMiddleOfWhole({ z, row, column }, wholeZoom) {
  const half = SIDE * 2 ** (z - 1);
  /** @param {number} index */
  const isMiddle = (index) => index === half || index === half - 1;
  return z === Math.round(wholeZoom) && isMiddle(row) && isMiddle(column);
}
