// What a legend says with numbers: which entries are shown, how long their bars are, and what text
// stands beside them. Nothing here needs a document.

import { percent, size } from "../ui/format.js";

/** @import { Legend, LegendEntry } from "../data/types.js" */

/**
 * A row of a histogram.
 *
 * @typedef {object} Row
 * @property {LegendEntry} entry
 * @property {string} share of all bytes, in percent
 * @property {string} title the whole text
 * @property {number|null} bar its length, 0 to 1; null if it has none
 */

/**
 * A step of a scale.
 *
 * @typedef {object} Step
 * @property {LegendEntry} entry
 * @property {string} description
 * @property {number} height 0 to 1
 */

const BLACK = "#000000";

/** So few steps of a scale are shown as a list that can be read, more as a band of colours. */
const FEW_STEPS = 6;

/**
 * Whether a legend is drawn as a scale rather than as a list.
 *
 * @param {Legend} legend
 */
export function isDrawnAsScale({ scale, entries }) {
  const steps = entries.filter((entry) => entry.bytes > 0 && !isRest(entry));
  return scale && steps.length > FEW_STEPS;
}

/**
 * The rows of a histogram of all entries that have bytes.
 *
 * @param {LegendEntry[]} entries
 */
export function histogramRows(entries) {
  const present = entries.filter(({ bytes }) => bytes > 0);
  return rows(present, sumOf(present));
}

/**
 * The steps of a scale, and the rows of what is on no scale.
 *
 * @param {LegendEntry[]} entries
 */
export function scaleParts(entries) {
  const steps = entries.filter((entry) => !isRest(entry));
  const rest = entries.filter((entry) => isRest(entry) && entry.bytes > 0);
  const largest = Math.max(...steps.map(({ bytes }) => bytes));
  const total = sumOf(entries);
  return { steps: steps.map((entry) => step(entry, largest, total)), rest: rows(rest, total) };
}

/**
 * Black stands for free space and hatching for what could not be read: neither is a colour of the
 * colouring.
 *
 * @param {LegendEntry} entry
 */
function isRest({ colour, hatched }) {
  return hatched || colour === BLACK;
}

/**
 * The bars compare the colours with each other; one of free space would dwarf them all.
 *
 * @param {LegendEntry[]} entries
 * @param {number} total
 * @returns {Row[]}
 */
function rows(entries, total) {
  const coloured = entries.filter((entry) => !isRest(entry));
  const largest = Math.max(...coloured.map(({ bytes }) => bytes));
  return entries.map((entry) => ({
    entry,
    share: percent(entry.bytes, total),
    title: [entry.name, usedText(entry)].filter(Boolean).join(": "),
    bar: isRest(entry) ? null : entry.bytes / largest,
  }));
}

/**
 * @param {LegendEntry} entry
 * @param {number} largest
 * @param {number} total
 * @returns {Step}
 */
function step(entry, largest, total) {
  const { name, bytes } = entry;
  const description = `${name}: ${size(bytes)}, ${percent(bytes, total)}`;
  // The square root keeps one large step from making all others invisible.
  return { entry, description, height: bytes > 0 ? Math.sqrt(bytes / largest) : 0 };
}

/** @param {LegendEntry} entry */
function usedText({ bytes, used }) {
  const isPart = used > 0 && used < bytes;
  return isPart ? `${size(used)} of it in use, ${percent(used, bytes)}` : null;
}

/** @param {LegendEntry[]} entries */
function sumOf(entries) {
  return entries.reduce((sum, { bytes }) => sum + bytes, 0);
}
