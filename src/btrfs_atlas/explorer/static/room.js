// The left side of the map: what was found at the top, the legend at the bottom. Where there is no
// room for both, the legend is folded for as long as it takes. On a phone what was found lies at
// the bottom, and the legend and the buttons above it.

/** Keeps the two from covering each other. */
export class LeftSide {
  #found;
  #element;
  #legend;
  #isFoldedForRoom = false;

  /** The user has folded or unfolded it beside what was found now, and that holds. */
  #isChosen = false;

  /**
   * @param {HTMLElement} found the card with what was found
   * @param {HTMLElement} element that of the legend
   * @param {Legend} legend
   */
  constructor(found, element, legend) {
    this.#found = found;
    this.#element = element;
    this.#legend = legend;
  }

  /** Begin. */
  watch() {
    // In the next frame: an observer that resizes what it observes is an error.
    const observer = new ResizeObserver(() => requestAnimationFrame(() => this.#settle()));
    [this.#found, this.#element, this.#element.parentElement].forEach((part) =>
      observer.observe(part),
    );
    this.#element.querySelector("h2 button").addEventListener("click", () => this.#choose());
  }

  #choose() {
    this.#isFoldedForRoom = false;
    this.#isChosen = !this.#found.hidden;
  }

  #settle() {
    const main = this.#element.parentElement;
    main.style.setProperty("--found-height", `${this.#found.offsetHeight}px`);
    if (this.#found.hidden) {
      this.#isChosen = false;
    }
    if (!this.#isChosen) {
      this.#fold();
    }
  }

  /** Fold the legend if both do not fit, and unfold it if they do, and it was folded for that. */
  #fold() {
    if (this.#isFoldedForRoom) {
      this.#legend.fold(false);
    }
    this.#isFoldedForRoom = !this.#legend.isFolded && this.#overlap();
    if (this.#isFoldedForRoom) {
      this.#legend.fold(true);
    }
  }

  #overlap() {
    if (this.#found.hidden) {
      return false;
    }
    const [one, other] = [this.#found, this.#element].map((part) => part.getBoundingClientRect());
    const isBeside = one.right <= other.left || other.right <= one.left;
    return !isBeside && one.bottom > other.top && other.bottom > one.top;
  }
}
