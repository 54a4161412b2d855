// The bar at the top: which filesystem it is, and the lists to choose what the map shows.

import { byId, el } from "../ui/elements.js";
import { capitalised } from "../ui/format.js";

/** @import { Choice, Filesystem, MapSettings } from "../data/types.js" */

/** @type {(keyof MapSettings)[]} */
const SETTINGS = ["space", "curve", "colour"];

/** Describes the filesystem, and lets the user choose. */
export class Header {
  /** @param {(choice: Partial<MapSettings>) => void} onChoose */
  constructor(onChoose) {
    for (const name of SETTINGS) {
      const list = select(name);
      list.addEventListener("change", () => onChoose({ [name]: list.value }));
    }
  }

  /** @param {Filesystem} filesystem */
  describe({ label, path, summary, damage, notes }) {
    document.title = label || path;
    byId("label", HTMLElement).textContent = label || path;
    byId("summary", HTMLElement).textContent = summary;
    const warning = byId("warning", SVGElement);
    // Elements of SVG have no property for it.
    warning.toggleAttribute("hidden", damage === null && notes.length === 0);
    warning.setAttribute("aria-label", damage ?? "There are notes");
  }

  /** @param {Filesystem} filesystem */
  fillLists({ spaces, curves, colours }) {
    fill(select("space"), Object.keys(spaces).map(untitled));
    fill(select("curve"), curves.map(untitled));
    fill(select("colour"), colours);
  }

  /** @param {MapSettings} settings */
  showSettings(settings) {
    for (const name of SETTINGS) {
      select(name).value = settings[name];
    }
  }
}

/** @param {string} id */
function select(id) {
  return byId(id, HTMLSelectElement);
}

/**
 * @param {string} name
 * @returns {Choice}
 */
function untitled(name) {
  return { name, title: name, description: "" };
}

/**
 * Fill a list; one that leaves no choice is hidden.
 *
 * @param {HTMLSelectElement} list
 * @param {Choice[]} choices
 */
function fill(list, choices) {
  const options = choices.map(({ name, title, description }) =>
    el("option", { value: name, title: capitalised(description) }, capitalised(title)),
  );
  list.replaceChildren(...options);
  list.closest("label")?.toggleAttribute("hidden", choices.length < 2);
}
