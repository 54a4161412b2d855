// Elements of the page: how they are made and looked up, and the only way text gets into them.
//
// Names come from a disk and may hold anything. `el()` turns every string into a text node; no
// module makes markup of a string.

/** @typedef {Node|string|number|bigint|null|undefined|false} Child */
/** @typedef {string|number|boolean|null|undefined|((event: Event) => void)} Attribute */

/**
 * Make an element.
 *
 * @param {string} tag its name, and its classes after dots: "p.note.quiet"
 * @param {Object<string, Attribute>} attributes a function becomes a listener of that event; null,
 *     undefined and false are left out
 * @param {...Child} children null, undefined and false are left out
 */
export function el(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  element.classList.add(...classes);
  for (const [key, value] of Object.entries(attributes)) {
    setAttribute(element, key, value);
  }
  element.append(...present(children).map(asNode));
  return element;
}

/**
 * A list without what `el()` leaves out.
 *
 * @template {Child} T
 * @param {T[]} children
 */
export function present(children) {
  /** @type {(child: T) => child is Exclude<T, null|undefined|false>} */
  const isPresent = (child) => child !== null && child !== undefined && child !== false;
  return children.filter(isPresent);
}

/**
 * The element with an id.
 *
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} type
 */
export function byId(id, type) {
  return checked(document.getElementById(id), type, `#${id}`);
}

/**
 * The first descendant of an element that matches a selector.
 *
 * @template {Element} T
 * @param {Element} element
 * @param {string} selector
 * @param {new () => T} type
 */
export function descendant(element, selector, type) {
  return checked(element.querySelector(selector), type, selector);
}

/**
 * The target of an event, as an element; null if it is none, such as the document.
 *
 * @param {Event} event
 */
export function targetElement({ target }) {
  return target instanceof Element ? target : null;
}

/**
 * A row of a list made by `facts()`: a term and its values.
 *
 * @param {string} term
 * @param {...Child} values
 */
export function fact(term, ...values) {
  return el("div.fact", {}, el("dt", {}, term), el("dd", {}, ...values));
}

/**
 * A list of facts; null, undefined and false are left out.
 *
 * @param {...Child} rows
 */
export function facts(...rows) {
  return el("dl.facts", {}, ...rows);
}

/**
 * A bar that is filled to a part. It is for the eye alone: its value must stand beside it in words.
 *
 * @param {number} part 0 to 1
 */
export function bar(part) {
  const fill = el("span.fill");
  fill.style.width = `${100 * Math.min(Math.max(part, 0), 1)}%`;
  return el("span.bar", { "aria-hidden": "true" }, fill);
}

/**
 * @param {HTMLElement} element
 * @param {string} name
 * @param {Attribute} value
 */
function setAttribute(element, name, value) {
  if (typeof value === "function") {
    element.addEventListener(name, value);
  } else if (value !== null && value !== undefined && value !== false) {
    element.setAttribute(name, value === true ? "" : String(value));
  }
}

/** @param {Node|string|number|bigint} child */
function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

/**
 * @template {Element} T
 * @param {Element|null} element
 * @param {new () => T} type
 * @param {string} selector
 */
function checked(element, type, selector) {
  if (!(element instanceof type)) {
    throw new TypeError(`the page has no ${type.name} at ${selector}`);
  }
  return element;
}
