// Find: the field at the top for a query, and the card with the answer.

import { asSourceError } from "../data/source-error.js";
import { descendant, el, fact, facts, present } from "../ui/elements.js";
import { resultContent } from "./find-result.js";

/** @import { FindResult, Pixel } from "../data/types.js" */

/**
 * @typedef {object} FindHandlers
 * @property {(query: string) => void} onFind the user has entered a query
 * @property {(pixel: Pixel) => void} onShow the user wants to see what was found again
 * @property {() => void} onClear the user wants to see the map without it
 */

const EXAMPLES = [
  ["home/fred/notes.txt", "a file, by its path"],
  ["inode 257 in 256", "a file, by its inode and subvolume"],
  ["vaddr 30408704", "the extent at a virtual address"],
  ["group 30408704", "the block group at a virtual address"],
  ["subvolume home/fred", "all that a subvolume holds"],
];

/** The form at the top and the card with the results. */
export class Find {
  #input;
  #card;
  #body;
  #handlers;
  #abort = new AbortController();

  /**
   * @param {HTMLElement} form with one input
   * @param {HTMLElement} card for the results, with a button .close and a .body
   * @param {FindHandlers} handlers
   */
  constructor(form, card, handlers) {
    this.#input = descendant(form, "input", HTMLInputElement);
    this.#card = card;
    this.#body = descendant(card, ".body", HTMLElement);
    this.#handlers = handlers;
    form.addEventListener("submit", (event) => this.#onSubmit(event));
    form.addEventListener("focusout", (event) => this.#onFocusOut(event));
    this.#input.addEventListener("focus", () => this.#showExamples());
    descendant(card, ".close", HTMLElement).addEventListener("click", handlers.onClear);
  }

  get isOpen() {
    return !this.#card.hidden;
  }

  /** How high the card is, in pixels of the screen; 0 if it is not open. */
  get height() {
    return this.#card.offsetHeight;
  }

  focus() {
    this.#input.focus();
    this.#input.select();
  }

  /**
   * Ask, and show the answer. Until it is there, the card says that the search runs.
   *
   * @param {string} query
   * @param {(signal: AbortSignal) => Promise<FindResult>} ask
   */
  show(query, ask) {
    this.#input.value = query;
    this.#fill("busy", el("p.quiet", {}, `Looking for ${query} …`));
    return this.refresh(ask);
  }

  /**
   * Ask, and show the answer in place of an earlier one.
   *
   * @param {(signal: AbortSignal) => Promise<FindResult>} ask
   * @returns {Promise<FindResult|null|undefined>} what was found; null if nothing was; undefined if
   *     something else has been asked since
   */
  async refresh(ask) {
    this.#abort.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    try {
      const result = await ask(signal);
      if (signal.aborted) {
        return undefined;
      }
      this.#fill("results", ...resultContent(result, this.#handlers.onShow));
      return result;
    } catch (error) {
      if (signal.aborted) {
        return undefined;
      }
      this.#showError(error);
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

  /** @param {Event} event */
  #onSubmit(event) {
    event.preventDefault();
    const query = this.#input.value.trim();
    if (query === "") {
      this.#handlers.onClear();
    } else {
      this.#handlers.onFind(query);
    }
  }

  #showExamples() {
    if (this.#card.hidden) {
      const rows = EXAMPLES.map(([query, description]) => fact(query, description));
      this.#fill("help", el("p.quiet", {}, "What to look for:"), facts(...rows));
    }
  }

  /** @param {FocusEvent} event */
  #onFocusOut({ relatedTarget }) {
    const isInCard = relatedTarget instanceof Node && this.#card.contains(relatedTarget);
    if (this.#card.dataset.shows === "help" && !isInCard) {
      this.clear();
    }
  }

  /** @param {unknown} error */
  #showError(error) {
    const { message, hint } = asSourceError(error);
    this.#fill("failed", el("p.error", {}, message), hint !== null && el("p.quiet", {}, hint));
  }

  /**
   * @param {"busy"|"help"|"results"|"failed"} shows
   * @param {...(HTMLElement|false)} content
   */
  #fill(shows, ...content) {
    this.#card.dataset.shows = shows;
    this.#card.hidden = false;
    this.#body.replaceChildren(...present(content));
  }
}
