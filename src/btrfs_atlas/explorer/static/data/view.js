// What the user looks at, as the fragment of the page's address:
//
//     #space/curve/colour/z/row/column&q=query&p=row,column
//
// Row and column are those of the pixel in the middle, at zoom z; p is the pixel that the panel is
// about, at the same zoom, or p=z,row,column at another one.

/** @import { Pixel } from "./types.js" */

/**
 * @typedef {object} View
 * @property {string|null} space
 * @property {string|null} curve
 * @property {string|null} colour
 * @property {Pixel|null} middle null: the whole map
 * @property {string|null} query what is highlighted
 * @property {Pixel|null} picked the pixel that the panel is about
 */

const MAX_ZOOM = 48;

/**
 * Return the view that a fragment stands for; what it leaves out is null.
 *
 * @param {string} fragment
 * @returns {View}
 */
export function parseView(fragment) {
  const [path, ...options] = fragment.replace(/^#/, "").split("&");
  const [space, curve, colour, ...numbers] = path.split("/").map(decoded);
  const given = new URLSearchParams(options.join("&"));
  const middle = parsePixel(numbers);
  return {
    space: space || null,
    curve: curve || null,
    colour: colour || null,
    middle,
    query: given.get("q") || null,
    picked: parsePicked(given.get("p"), middle),
  };
}

/**
 * Return the fragment that stands for a view.
 *
 * @param {View & {space: string, curve: string, colour: string, middle: Pixel}} view
 */
export function formatView({ space, curve, colour, middle, query, picked }) {
  const path = [space, curve, colour, middle.z, middle.row, middle.column];
  let fragment = `#${path.map(encodeURIComponent).join("/")}`;
  if (query !== null) {
    fragment += `&q=${encodeURIComponent(query)}`;
  }
  if (picked !== null) {
    const zoom = picked.z === middle.z ? "" : `${picked.z},`;
    fragment += `&p=${zoom}${picked.row},${picked.column}`;
  }
  return fragment;
}

/**
 * The pixel at another zoom that a pixel lies in, or its middle.
 *
 * @param {Pixel} pixel
 * @param {number} zoom
 * @returns {Pixel}
 */
export function atZoom({ z, row, column }, zoom) {
  /** @param {number} index */
  const scaled = (index) => Math.floor((index + 0.5) * 2 ** (zoom - z));
  return { z: zoom, row: scaled(row), column: scaled(column) };
}

/**
 * Whether two pixels are the same; either may be null.
 *
 * @param {Pixel|null} one
 * @param {Pixel|null} other
 */
export function isSamePixel(one, other) {
  if (one === null || other === null) {
    return one === other;
  }
  return one.z === other.z && one.row === other.row && one.column === other.column;
}

/**
 * @param {string|null} text
 * @param {Pixel|null} middle
 */
function parsePicked(text, middle) {
  const numbers = (text ?? "").split(",");
  if (numbers.length === 2 && middle !== null) {
    numbers.unshift(String(middle.z));
  }
  return parsePixel(numbers);
}

/**
 * @param {string[]} texts
 * @returns {Pixel|null}
 */
function parsePixel(texts) {
  if (texts.length !== 3 || !texts.every((text) => /^\d{1,15}$/.test(text))) {
    return null;
  }
  const [z, row, column] = texts.map(Number);
  return z <= MAX_ZOOM ? { z, row, column } : null;
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
