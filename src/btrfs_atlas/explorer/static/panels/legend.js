// The legend: what the colours mean, and a histogram of how many bytes have each of them.

import { bar, descendant, el, present } from "../ui/elements.js";
import { capitalised, size } from "../ui/format.js";
import { histogramRows, isDrawnAsScale, scaleParts } from "./histogram.js";

/** @import { Legend as LegendData, LegendEntry } from "../data/types.js" */
/** @import { Row, Step } from "./histogram.js" */

/** Shows legends, and can be folded. */
export class Legend {
  #element;
  #title;
  #body;
  #toggle;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
    this.#title = descendant(element, "h2 .title", HTMLElement);
    this.#body = descendant(element, ".body", HTMLElement);
    this.#toggle = descendant(element, "h2 button", HTMLElement);
    this.#toggle.addEventListener("click", () => this.fold(!this.isFolded));
  }

  get isFolded() {
    return this.#element.classList.contains("folded");
  }

  /** @param {boolean} isFolded */
  fold(isFolded) {
    this.#element.classList.toggle("folded", isFolded);
    this.#toggle.setAttribute("aria-expanded", String(!isFolded));
  }

  /** @param {LegendData} legend */
  show(legend) {
    const { title, note, entries, read } = legend;
    this.#title.textContent = capitalised(title);
    const drawn = isDrawnAsScale(legend) ? scale(entries) : histogram(histogramRows(entries));
    const parts = [read < 1 && progress(read), drawn, note !== "" && el("p.note", {}, note)];
    this.#body.replaceChildren(...present(parts));
  }

  /**
   * Say why there is none.
   *
   * @param {string} text
   */
  showError(text) {
    this.#body.replaceChildren(el("p.error", {}, text));
  }
}

/** @param {number} read */
function progress(read) {
  const text = `Reading extents: ${Math.floor(100 * read)}%`;
  return el("p.progress", {}, el("span", {}, text), bar(read));
}

/** @param {Row[]} rows */
function histogram(rows) {
  return el("ul.histogram", {}, ...rows.map(histogramRow));
}

/** @param {Row} row */
function histogramRow({ entry, share, title, bar: length }) {
  const amount = el("span.amount", {}, size(entry.bytes), el("span.quiet", {}, share));
  const name = el("span.name", {}, entry.name);
  return el("li", { title }, swatch(entry), name, amount, length !== null && bar(length));
}

/** @param {LegendEntry} entry */
function swatch({ colour, hatched }) {
  const square = el("span.swatch", { "aria-hidden": "true" });
  square.classList.toggle("hatched", hatched);
  square.style.setProperty("--colour", colour);
  return square;
}

/**
 * The steps of a scale as columns, above their colours as one band; below it what is on no scale.
 *
 * @param {LegendEntry[]} entries
 */
function scale(entries) {
  const { steps, rest } = scaleParts(entries);
  const ends = steps.length > 1 ? [steps[0], steps[steps.length - 1]] : steps;
  return el(
    "div.scale",
    {},
    el("ol", {}, ...steps.map(column)),
    el("p.ends", {}, ...ends.map(({ entry }) => el("span", {}, entry.name))),
    histogram(rest),
  );
}

/** @param {Step} step */
function column({ entry, description, height }) {
  const above = el("span.height", { "aria-hidden": "true" });
  above.style.height = height > 0 ? `max(2px, ${100 * height}%)` : "0";
  const band = el("span.step", { "aria-hidden": "true" });
  band.style.background = entry.colour;
  return el("li", { title: description }, el("span.for-readers", {}, description), above, band);
}
