// The keyboard: keys work wherever the focus is, except those that the focused element needs.

import { targetElement } from "./elements.js";

const TYPING = "input, select, textarea";
const SCROLLING = "#panel, #legend, #find-results, dialog";
const STEP = 100;
const LONG_STEP = 400;

/** @type {Object<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * What the keys do. `onEscape` returns whether it has closed anything.
 *
 * @typedef {object} KeyHandlers
 * @property {(right: number, down: number) => void} onPan in pixels
 * @property {(levels: number) => void} onZoom
 * @property {() => void} onWhole show the whole map
 * @property {() => void} onFind
 * @property {() => void} onHelp
 * @property {() => void} onPick Enter on the map
 * @property {() => boolean} onEscape
 */

/** @param {KeyHandlers} handlers */
export function startKeys(handlers) {
  document.addEventListener("keydown", (event) => {
    if (isHandled(event, handlers)) {
      event.preventDefault();
    }
  });
}

/**
 * @param {KeyboardEvent} event
 * @param {KeyHandlers} handlers
 */
function isHandled(event, handlers) {
  const { key } = event;
  if (isTaken(event)) {
    return false;
  }
  if (key === "Escape") {
    return handlers.onEscape();
  }
  if (isWithin(event, TYPING)) {
    return false;
  }
  if (key in ARROWS) {
    return !isWithin(event, SCROLLING) && pan(event, handlers);
  }
  if (key === "Enter") {
    return isWithin(event, "#map") && pick(handlers);
  }
  return press(key, handlers);
}

/**
 * Whether the browser or another part of the page handles a key.
 *
 * @param {KeyboardEvent} event
 */
function isTaken({ ctrlKey, metaKey, altKey, defaultPrevented }) {
  return ctrlKey || metaKey || altKey || defaultPrevented;
}

/**
 * @param {KeyboardEvent} event
 * @param {string} selector
 */
function isWithin(event, selector) {
  return Boolean(targetElement(event)?.closest(selector));
}

/**
 * @param {KeyboardEvent} event
 * @param {KeyHandlers} handlers
 */
function pan({ key, shiftKey }, handlers) {
  const step = shiftKey ? LONG_STEP : STEP;
  const [right, down] = ARROWS[key];
  handlers.onPan(step * right, step * down);
  return true;
}

/** @param {KeyHandlers} handlers */
function pick(handlers) {
  handlers.onPick();
  return true;
}

/**
 * @param {string} key
 * @param {KeyHandlers} handlers
 */
function press(key, handlers) {
  /** @type {Object<string, () => void>} */
  const actions = {
    "+": () => handlers.onZoom(1),
    "=": () => handlers.onZoom(1),
    "-": () => handlers.onZoom(-1),
    0: () => handlers.onWhole(),
    "/": () => handlers.onFind(),
    "?": () => handlers.onHelp(),
  };
  actions[key]?.();
  return key in actions;
}
