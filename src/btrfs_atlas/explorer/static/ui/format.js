// How sizes, numbers and shares are written. Nothing here needs a document.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

const WHOLE = new Intl.NumberFormat("en");

/**
 * A size, as the programs of btrfs-atlas write it: "1.50GiB".
 *
 * @param {number|bigint|string} bytes
 */
export function size(bytes) {
  let value = Number(bytes);
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${value}B` : `${value.toFixed(2)}${UNITS[unit]}`;
}

/**
 * A whole number with its thousands apart: "1,234".
 *
 * @param {number|bigint} number
 */
export function count(number) {
  return WHOLE.format(number);
}

/**
 * A number of things: "1 extent", "1,234 extents".
 *
 * @param {number|bigint} number
 * @param {string} one
 * @param {string} many
 */
export function counted(number, one, many = `${one}s`) {
  return `${count(number)} ${Number(number) === 1 ? one : many}`;
}

/**
 * A part of a whole in percent: never "0%" of something, never "100%" of less than everything.
 *
 * @param {number} part
 * @param {number} whole
 */
export function percent(part, whole) {
  if (!(whole > 0) || !(part > 0)) {
    return "0%";
  }
  const value = (100 * part) / whole;
  if (value < 0.1) {
    return "<0.1%";
  }
  if (value < 10) {
    return `${value.toFixed(1)}%`;
  }
  return `${part < whole ? Math.min(Math.round(value), 99) : 100}%`;
}

/**
 * A part of a whole in bytes and in percent: "512.00MiB of 1.00GiB, 50%".
 *
 * @param {number} part
 * @param {number} whole
 */
export function sizeOfWhole(part, whole) {
  return `${size(part)} of ${size(whole)}, ${percent(part, whole)}`;
}

/**
 * The same text with a capital at the beginning.
 *
 * @param {string} text
 */
export function capitalised(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
