// What is looked at, as the fragment of the page's address:
//
//     #space/curve/colour/z/row/column&q=what was found&p=row,column
//
// Row and column are those of the pixel in the middle, at zoom z; p is the pixel that the panel
// tells about, at the same zoom, or p=z,row,column at another one.

/**
 * @typedef {{z: number, row: number, column: number}} Place a pixel at a zoom
 * @typedef {{space: string, curve: string, colour: string, middle: Place|null,
 *            query: string|null, picked: Place|null}} View
 */

const MAX_ZOOM = 48;

/** Return the view that a fragment tells of; what it does not tell is null. */
export function parseView(fragment) {
  const [path, ...options] = fragment.replace(/^#/, "").split("&");
  const [space, curve, colour, ...middle] = path.split("/").map(decoded);
  const given = new URLSearchParams(options.join("&"));
  return {
    space: space || null,
    curve: curve || null,
    colour: colour || null,
    middle: place(middle),
    query: given.get("q") || null,
    picked: pickedPlace(given.get("p"), place(middle)),
  };
}

/** Return the fragment that tells of a view. */
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

/** The pixel at another zoom that a place lies in, or its middle. */
export function atZoom({ z, row, column }, zoom) {
  const scaled = (pixel) => Math.floor((pixel + 0.5) * 2 ** (zoom - z));
  return { z: zoom, row: scaled(row), column: scaled(column) };
}

/** Whether two places are the same; either may be null. */
export function samePlace(one, other) {
  return one === other || (one !== null && other !== null && key(one) === key(other));
}

function key({ z, row, column }) {
  return `${z}/${row}/${column}`;
}

function pickedPlace(text, middle) {
  const numbers = (text ?? "").split(",");
  if (numbers.length === 2 && middle !== null) {
    numbers.unshift(String(middle.z));
  }
  return place(numbers);
}

function place(texts) {
  if (texts.length !== 3 || !texts.every((text) => /^\d{1,15}$/.test(text))) {
    return null;
  }
  const [z, row, column] = texts.map(Number);
  return z <= MAX_ZOOM ? { z, row, column } : null;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
