// The left side of the map: the results of Find at the top, the legend at the bottom. Where both do
// not fit, the legend is folded. On a phone the results lie at the bottom, and the legend and the
// buttons above them.

import { descendant } from "../ui/elements.js";

/** @import { Legend } from "./legend.js" */

/** Keeps the results and the legend from covering each other. */
export class SideLayout {
  #results;
  #element;
  #main;
  #legend;

  /** Whether the legend is folded to make room, and not by the user. */
  #isFoldedForRoom = false;

  /** Whether the user has folded or unfolded it beside these results: then it stays so. */
  #isChosen = false;

  /**
   * @param {HTMLElement} results the card of Find
   * @param {HTMLElement} element that of the legend
   * @param {Legend} legend
   */
  constructor(results, element, legend) {
    this.#results = results;
    this.#element = element;
    this.#main = element.parentElement ?? element;
    this.#legend = legend;
    // In the next frame: an observer that resizes what it observes is an error.
    const observer = new ResizeObserver(() => requestAnimationFrame(() => this.#settle()));
    [results, element, this.#main].forEach((part) => observer.observe(part));
    const toggle = descendant(element, "h2 button", HTMLElement);
    toggle.addEventListener("click", () => this.#onToggle());
  }

  #onToggle() {
    this.#isFoldedForRoom = false;
    this.#isChosen = !this.#results.hidden;
  }

  #settle() {
    this.#main.style.setProperty("--results-height", `${this.#results.offsetHeight}px`);
    if (this.#results.hidden) {
      this.#isChosen = false;
    }
    if (!this.#isChosen) {
      this.#makeRoom();
    }
  }

  /** Fold the legend if both do not fit; unfold it if they do, and it was folded for that. */
  #makeRoom() {
    if (this.#isFoldedForRoom) {
      this.#legend.fold(false);
    }
    this.#isFoldedForRoom = !this.#legend.isFolded && this.#isOverlapping();
    if (this.#isFoldedForRoom) {
      this.#legend.fold(true);
    }
  }

  #isOverlapping() {
    if (this.#results.hidden) {
      return false;
    }
    const one = this.#results.getBoundingClientRect();
    const other = this.#element.getBoundingClientRect();
    const isBeside = one.right <= other.left || other.right <= one.left;
    return !isBeside && one.bottom > other.top && other.bottom > one.top;
  }
}
