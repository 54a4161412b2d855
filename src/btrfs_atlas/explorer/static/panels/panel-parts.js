// What pages of the panel are made of.

import { bar, el } from "../ui/elements.js";
import { sizeOfWhole } from "../ui/format.js";

/** @import { Child } from "../ui/elements.js" */

/**
 * A section, with a heading or without one.
 *
 * @param {string|null} heading
 * @param {...Child} content
 */
export function section(heading, ...content) {
  return el("section", {}, heading && el("h3", {}, heading), ...content);
}

/**
 * A bar of how much of something is in use: "Data, single, 1.00GiB  512.00MiB of 1.00GiB, 50%".
 *
 * @param {string} name
 * @param {number} used
 * @param {number} total
 */
export function usageBar(name, used, total) {
  return namedBar(name, sizeOfWhole(used, total), used / total);
}

/**
 * A bar with text above it.
 *
 * @param {string} name
 * @param {string} value
 * @param {number} part 0 to 1
 */
export function namedBar(name, value, part) {
  const line = el("p", {}, el("span", {}, name), el("span.quiet", {}, value));
  return el("div.part", {}, line, bar(part));
}
