// What the map can show of a filesystem, and what it shows where an address leaves that open.

/** @import { Filesystem, MapSettings } from "./types.js" */

/**
 * The settings of a view; what it leaves out or does not exist is the first choice.
 *
 * @param {Filesystem} filesystem
 * @param {{space: string|null, curve: string|null, colour: string|null}} view
 * @returns {MapSettings}
 */
export function settingsOf({ spaces, curves, colours }, view) {
  return {
    space: knownOrFirst(view.space, Object.keys(spaces)),
    curve: knownOrFirst(view.curve, curves),
    colour: knownOrFirst(view.colour, colours.map(({ name }) => name)),
  };
}

/**
 * Whether two settings show the same line at the same places.
 *
 * @param {MapSettings} one
 * @param {MapSettings} other
 */
export function isSameLine(one, other) {
  return one.space === other.space && one.curve === other.curve;
}

/**
 * @param {MapSettings} one
 * @param {MapSettings} other
 */
export function isSameSettings(one, other) {
  return isSameLine(one, other) && one.colour === other.colour;
}

/**
 * @param {string|null} name
 * @param {string[]} names
 */
function knownOrFirst(name, names) {
  return name !== null && names.includes(name) ? name : names[0];
}
