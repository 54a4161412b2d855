// Find: a question, what was found, and where on the address line it lies.

import { count, counted, el, fact, facts, size } from "./text.js";

const EXAMPLES = [
  ["home/fred/notes.txt", "a file, by its path"],
  ["inode 257 in 256", "a file, by its inode and subvolume"],
  ["vaddr 30408704", "the extent at a virtual address"],
  ["group 30408704", "the block group at a virtual address"],
  ["subvolume home/fred", "all that a subvolume holds"],
];

const STRIP_HEIGHT = 28;

/** That of the marks on the map. */
const STRIP_COLOUR = "#ffe000";

/** The form at the top and the card with the results. */
export class Find {
  #input;
  #card;
  #body;
  #handlers;
  #abort = new AbortController();

  /**
   * @param {HTMLFormElement} form with one input
   * @param {HTMLElement} card for the results, with a button .close and a .body
   * @param {{onFind: function(string): void, onShow: function(object): void,
   *          onClear: function(): void}} handlers the user asks; wants to see the place again;
   *     wants to see the map without it
   */
  constructor(form, card, handlers) {
    this.#input = form.querySelector("input");
    this.#card = card;
    this.#body = card.querySelector(".body");
    this.#handlers = handlers;
    form.addEventListener("submit", (event) => this.#submit(event));
    form.addEventListener("focusout", (event) => this.#left(event));
    this.#input.addEventListener("focus", () => this.#help());
    card.querySelector(".close").addEventListener("click", () => handlers.onClear());
  }

  get isOpen() {
    return !this.#card.hidden;
  }

  focus() {
    this.#input.focus();
    this.#input.select();
  }

  /**
   * Ask, and show the answer.
   *
   * @param {string} query
   * @param {function(AbortSignal): Promise<object>} ask
   * @param {boolean} refreshed the earlier answer stays until there is a new one
   * @returns {Promise<object|null|undefined>} what was found; null if nothing was; undefined if
   *     something else has been asked since
   */
  async show(query, ask, refreshed) {
    this.#abort.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    if (!refreshed) {
      this.#input.value = query;
      this.#fill("busy", el("p.quiet", {}, `Looking for ${query} …`));
    }
    try {
      const found = await ask(signal);
      if (signal.aborted) {
        return undefined;
      }
      this.#fill("results", ...this.#results(found));
      return found;
    } catch (error) {
      if (signal.aborted) {
        return undefined;
      }
      this.#fill("failed", el("p.error", {}, error.message), hint(error));
      return null;
    }
  }

  clear() {
    this.#abort.abort();
    this.#card.hidden = true;
    this.#card.dataset.shows = "";
    this.#input.value = "";
    this.#body.replaceChildren();
  }

  #submit(event) {
    event.preventDefault();
    const query = this.#input.value.trim();
    if (query === "") {
      this.#handlers.onClear();
    } else {
      this.#handlers.onFind(query);
    }
  }

  #help() {
    if (this.#card.hidden) {
      const lines = EXAMPLES.map(([query, words]) => fact(query, words));
      this.#fill("help", el("p.quiet", {}, "What to look for:"), facts(...lines));
    }
  }

  #left({ relatedTarget }) {
    if (this.#card.dataset.shows === "help" && !this.#card.contains(relatedTarget)) {
      this.clear();
    }
  }

  #fill(shows, ...content) {
    this.#card.dataset.shows = shows;
    this.#card.hidden = false;
    this.#body.replaceChildren(...content.filter((part) => part !== null));
  }

  #results(found) {
    const { title, words, strip, view } = found;
    const show = () => this.#handlers.onShow(found);
    const label = found.extents > 0 ? "Show the first extent" : "Show the place";
    return [
      el("h2", {}, title),
      ...words.map((line) => el("p", {}, line)),
      found.extents > 0 ? fragmentation(found) : null,
      found.extents > 0 ? drawnStrip(strip) : null,
      view && el("button.plain", { type: "button", click: show }, label),
    ].filter((part) => part !== null && part !== undefined);
  }
}

function hint(error) {
  return error.hint ? el("p.quiet", {}, error.hint) : null;
}

function fragmentation({ kind, extents, bytes, average, pieces, truncated }) {
  const more = truncated ? " at least; the search was cut short" : "";
  return facts(
    fact("Size on disk", `${size(bytes)}${more}`),
    fact("Extents", count(extents)),
    fact("Average extent", size(average)),
    // A block group is found as a whole, with what is free in it.
    kind !== "group" && fact("Contiguous pieces", count(pieces)),
  );
}

/** The whole address line from left to right, and what of it was found. */
function drawnStrip(strip) {
  const canvas = el("canvas.strip", {
    width: strip.length,
    height: STRIP_HEIGHT,
    role: "img",
    "aria-label": stripWords(strip),
  });
  const pen = canvas.getContext("2d");
  pen.fillStyle = STRIP_COLOUR;
  strip.forEach((part, index) => {
    if (part > 0) {
      // Even the smallest part has to be seen.
      const height = Math.max(Math.round(STRIP_HEIGHT * Math.sqrt(part)), 5);
      pen.fillRect(index, STRIP_HEIGHT - height, 1, height);
    }
  });
  const ends = el("p.ends", {}, el("span", {}, "start of the map"), el("span", {}, "end"));
  return el("div", {}, canvas, ends);
}

function stripWords(strip) {
  const hit = strip.flatMap((part, index) => (part > 0 ? [index] : []));
  if (hit.length === 0) {
    return "It lies nowhere on the map.";
  }
  const percentOf = (index) => Math.round((100 * index) / strip.length);
  const parts = counted(hit.length, "part");
  const range = `between ${percentOf(hit[0])}% and ${percentOf(hit.at(-1) + 1)}% of the map`;
  return `It lies in ${parts} of ${strip.length}, ${range}.`;
}
