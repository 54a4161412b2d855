// Words and elements: how sizes and numbers are written, and the only way text gets onto the page.
//
// Names come from a disk and may hold anything. `el()` turns every string into a text node; nothing
// in these modules ever makes markup of a string.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

const WHOLE = new Intl.NumberFormat("en");

/**
 * Make an element.
 *
 * @param {string} tag its name, and its classes after dots: "p.note.quiet"
 * @param {Object<string, ?>} attributes those that are functions become listeners of that event;
 *     null, undefined and false are left out
 * @param {...(Node|string|number|null|false)} children null, undefined and false are left out
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  element.classList.add(...classes);
  for (const [key, value] of Object.entries(attributes)) {
    setAttribute(element, key, value);
  }
  element.append(...children.filter(isThere).map(asNode));
  return element;
}

function setAttribute(element, key, value) {
  if (typeof value === "function") {
    element.addEventListener(key, value);
  } else if (isThere(value)) {
    element.setAttribute(key, value === true ? "" : value);
  }
}

function isThere(child) {
  return child !== null && child !== undefined && child !== false;
}

function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

/** A size in bytes, as the programs of btrfs-atlas write it: "1.50GiB". */
export function size(bytes) {
  let value = Number(bytes);
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${value}B` : `${value.toFixed(2)}${UNITS[unit]}`;
}

/** A whole number with its thousands apart: "1,234". */
export function count(number) {
  return WHOLE.format(number);
}

/** A number of things: "1 extent", "1,234 extents". */
export function counted(number, one, many = `${one}s`) {
  return `${count(number)} ${Number(number) === 1 ? one : many}`;
}

/** A part of a whole, in percent: never "0%" of something, nor "100%" of not everything. */
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

/** The same words with a capital at the beginning. */
export function capitalised(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A device, by its number and, where that is known, its path. */
export function deviceName({ devid, path }) {
  return path ? `${devid} ${path}` : String(devid);
}

/** A part of a whole, in bytes and in percent: "512.00MiB of 1.00GiB, 50%". */
export function partWords(part, whole) {
  return `${size(part)} of ${size(whole)}, ${percent(part, whole)}`;
}

/** A term and what is known about it, as a row of a list made by `facts()`. */
export function fact(term, ...values) {
  return el("div.fact", {}, el("dt", {}, term), el("dd", {}, ...values));
}

/** A list of facts; what is null is left out. */
export function facts(...rows) {
  return el("dl.facts", {}, ...rows);
}

/** A bar that is filled to a part, 0 to 1. What it says must stand beside it in words. */
export function bar(part) {
  const fill = el("span.fill");
  fill.style.width = `${100 * Math.min(Math.max(part, 0), 1)}%`;
  return el("span.bar", { "aria-hidden": "true" }, fill);
}

/** How long ago a generation was: both are strings of digits, which can exceed 2^53. */
export function age(generation, newest) {
  const ago = BigInt(newest) - BigInt(generation);
  if (ago <= 0n) {
    return `${generation}, the newest`;
  }
  return `${generation}, ${counted(ago, "generation")} ago`;
}

/** What to say about an error of a source: its words, and what may help. */
export function errorWords(error) {
  return [error.message, error.hint].filter(Boolean).join(". ");
}
