// The legend: what the colours mean, and a histogram of how many bytes have each of them.

import { bar, capitalised, el, percent, size } from "./text.js";

const NOTHING = "#000000";

/** So few steps of a scale are a list that can be read; more are a band of colours. */
const FEW_STEPS = 6;

/** Fills the legend; remembers nothing but whether it is folded. */
export class Legend {
  #element;
  #title;
  #body;
  #toggle;

  constructor(element) {
    this.#element = element;
    this.#title = element.querySelector("h2 .title");
    this.#body = element.querySelector(".body");
    this.#toggle = element.querySelector("h2 button");
    this.#toggle.addEventListener("click", () => this.fold(!this.isFolded));
  }

  get isFolded() {
    return this.#element.classList.contains("folded");
  }

  fold(folded) {
    this.#element.classList.toggle("folded", folded);
    this.#toggle.setAttribute("aria-expanded", String(!folded));
  }

  /** Show a legend of a source. */
  show({ title, note, scale, entries, read }) {
    this.#title.textContent = capitalised(title);
    const drawn = scale && !areFew(entries) ? scaleOf(entries) : histogram(entries);
    const words = note ? el("p.note", {}, note) : null;
    this.#body.replaceChildren(...[progress(read), drawn, words].filter(Boolean));
  }

  /** Say why there is none. */
  fail(words) {
    this.#body.replaceChildren(el("p.error", {}, words));
  }
}

function progress(read) {
  if (read >= 1) {
    return null;
  }
  const words = `Reading extents: ${Math.floor(100 * read)}%`;
  return el("p.progress", {}, el("span", {}, words), bar(read));
}

/** What is black or hatched is no colour of its own: where there is nothing, or nobody can tell. */
function isRest({ colour, hatched }) {
  return hatched || colour === NOTHING;
}

function areFew(entries) {
  return entries.filter((entry) => entry.bytes > 0 && !isRest(entry)).length <= FEW_STEPS;
}

function histogram(entries) {
  const shown = entries.filter(({ bytes }) => bytes > 0);
  return el("ul.histogram", {}, ...rows(shown, sumOf(shown)));
}

/** The bars compare the colours with each other; where there is nothing would dwarf them all. */
function rows(entries, total) {
  const most = Math.max(...entries.filter((entry) => !isRest(entry)).map(({ bytes }) => bytes));
  return entries.map((entry) => {
    const part = isRest(entry) ? null : bar(entry.bytes / most);
    return histogramRow(entry, total, part);
  });
}

function sumOf(entries) {
  return entries.reduce((sum, { bytes }) => sum + bytes, 0);
}

function histogramRow(entry, total, part) {
  const { name, bytes, used } = entry;
  const amount = el("span.amount", {}, size(bytes), el("span.quiet", {}, percent(bytes, total)));
  const title = [name, usedWords(bytes, used)].filter(Boolean).join(": ");
  return el("li", { title }, swatch(entry), el("span.name", {}, name), amount, part);
}

function usedWords(bytes, used) {
  const isPart = used > 0 && used < bytes;
  return isPart ? `${size(used)} of it in use, ${percent(used, bytes)}` : null;
}

function swatch({ colour, hatched }) {
  const square = el("span.swatch", { "aria-hidden": "true" });
  square.classList.toggle("hatched", hatched);
  square.style.setProperty("--colour", colour);
  return square;
}

/** Steps of a scale as columns, above their colours as one band; below it what is on no scale. */
function scaleOf(entries) {
  const steps = entries.filter((entry) => !isRest(entry));
  const rest = entries.filter((entry) => isRest(entry) && entry.bytes > 0);
  const most = Math.max(...steps.map(({ bytes }) => bytes));
  const total = sumOf(entries);
  const ends = steps.length > 1 ? [steps[0], steps.at(-1)] : steps;
  return el(
    "div.scale",
    {},
    el("ol", {}, ...steps.map((step) => column(step, most, total))),
    el("p.ends", {}, ...ends.map(({ name }) => el("span", {}, name))),
    el("ul.histogram", {}, ...rows(rest, total)),
  );
}

function column(entry, most, total) {
  const { name, bytes, colour } = entry;
  const words = `${name}: ${size(bytes)}, ${percent(bytes, total)}`;
  const height = el("span.height", { "aria-hidden": "true" });
  // As long as its square root, so that one large step does not make all others vanish.
  height.style.height = bytes > 0 ? `max(2px, ${100 * Math.sqrt(bytes / most)}%)` : "0";
  const step = el("span.step", { "aria-hidden": "true" });
  step.style.background = colour;
  return el("li", { title: words }, el("span.for-readers", {}, words), height, step);
}
