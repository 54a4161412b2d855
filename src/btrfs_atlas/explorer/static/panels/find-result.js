// What the card of Find says about a result.

import { el, fact, facts, present } from "../ui/elements.js";
import { count, counted, size } from "../ui/format.js";

/** @import { FindResult, Pixel } from "../data/types.js" */

const STRIP_HEIGHT = 28;

/** Even the smallest part of the strip has to be seen. */
const SMALLEST_HEIGHT = 5;

/** That of the marks on the map. */
const STRIP_COLOUR = "#ffe000";

/**
 * The elements that describe a result.
 *
 * @param {FindResult} result
 * @param {(pixel: Pixel) => void} onShow the user wants to see it on the map
 */
export function resultContent(result, onShow) {
  const { title, words, extents, strip, view } = result;
  return present([
    el("h2", {}, title),
    ...words.map((line) => el("p", {}, line)),
    extents > 0 && fragmentation(result),
    extents > 0 && drawnStrip(strip),
    view && showButton(view, extents, onShow),
  ]);
}

/**
 * What the strip shows, in words.
 *
 * @param {number[]} strip the address line in equal parts, and which part of each was found
 */
export function stripDescription(strip) {
  const found = strip.flatMap((part, index) => (part > 0 ? [index] : []));
  if (found.length === 0) {
    return "It lies nowhere on the map.";
  }
  /** @param {number} index */
  const percentAt = (index) => Math.round((100 * index) / strip.length);
  const parts = counted(found.length, "part");
  const last = found[found.length - 1];
  const range = `between ${percentAt(found[0])}% and ${percentAt(last + 1)}% of the map`;
  return `It lies in ${parts} of ${strip.length}, ${range}.`;
}

/**
 * How high the strip is drawn for a part, in pixels.
 *
 * @param {number} part 0 to 1
 */
export function stripHeight(part) {
  return part > 0 ? Math.max(Math.round(STRIP_HEIGHT * Math.sqrt(part)), SMALLEST_HEIGHT) : 0;
}

/** @param {FindResult} result */
function fragmentation({ kind, extents, bytes, average, pieces, truncated }) {
  const more = truncated ? " at least; the search was cut short" : "";
  return facts(
    fact("Size on disk", `${size(bytes)}${more}`),
    fact("Extents", count(extents)),
    fact("Average extent", size(average)),
    // A block group is found as a whole, with its free space.
    kind !== "group" && fact("Contiguous pieces", count(pieces)),
  );
}

/**
 * @param {Pixel} view
 * @param {number} extents
 * @param {(pixel: Pixel) => void} onShow
 */
function showButton(view, extents, onShow) {
  const label = extents > 0 ? "Show the first extent" : "Show it on the map";
  return el("button.plain", { type: "button", click: () => onShow(view) }, label);
}

/**
 * The whole address line from left to right, and which parts of it were found.
 *
 * @param {number[]} strip
 */
function drawnStrip(strip) {
  const canvas = document.createElement("canvas");
  canvas.className = "strip";
  canvas.width = strip.length;
  canvas.height = STRIP_HEIGHT;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", stripDescription(strip));
  const pen = canvas.getContext("2d");
  if (pen !== null) {
    pen.fillStyle = STRIP_COLOUR;
    strip.map(stripHeight).forEach((height, column) => {
      pen.fillRect(column, STRIP_HEIGHT - height, 1, height);
    });
  }
  const ends = el("p.ends", {}, el("span", {}, "start of the map"), el("span", {}, "end"));
  return el("div", {}, canvas, ends);
}
