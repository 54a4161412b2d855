// The query whose result is highlighted on the map, and the card that describes it.

/** @import { FindResult, Pixel } from "../data/types.js" */
/** @import { View } from "../data/view.js" */
/** @import { Find } from "../panels/find.js" */
/** @import { Context } from "./context.js" */

/** Keeps the map and the card to one query. */
export class Search {
  #context;
  #find;
  #isCovering;

  /**
   * The query; null if nothing is highlighted.
   *
   * @type {string|null}
   */
  query = null;

  /**
   * @param {Context} context
   * @param {Find} find the field and the card
   * @param {() => boolean} isCovering whether the card covers the lower part of the window
   */
  constructor(context, find, isCovering) {
    this.#context = context;
    this.#find = find;
    this.#isCovering = isCovering;
  }

  /**
   * Show the query of a view, and follow it if the view does not say where to look.
   *
   * @param {View} view
   */
  apply({ query, middle }) {
    if (query === null) {
      this.clear();
    } else if (query !== this.query) {
      this.show(query, middle === null);
    }
  }

  /**
   * Show what a query finds.
   *
   * @param {string} query
   * @param {boolean} isFollowed whether the map moves there
   */
  async show(query, isFollowed) {
    this.query = query;
    this.#context.tooltip.hide();
    this.#context.map.highlight(null);
    const result = await this.#find.show(query, (signal) => this.#ask(query, signal));
    this.#highlight(query, result);
    if (isFollowed && result?.view) {
      this.flyTo(result.view);
    }
  }

  /** Look for the same again, if there is a query: it may lie elsewhere now, or be gone. */
  async refresh() {
    const { query } = this;
    if (query !== null) {
      const result = await this.#find.refresh((signal) => this.#ask(query, signal));
      this.#highlight(query, result);
    }
  }

  clear() {
    this.query = null;
    this.#find.clear();
    this.#context.map.highlight(null);
  }

  /**
   * Move what was found into view.
   *
   * @param {Pixel} pixel
   */
  flyTo(pixel) {
    this.#context.map.viewport.flyTo(pixel, this.#isCovering() ? this.#find.height : 0);
  }

  /**
   * @param {string} query
   * @param {AbortSignal} signal
   */
  #ask(query, signal) {
    const { source, settings } = this.#context;
    return source.find(query, settings(), signal);
  }

  /**
   * @param {string} query
   * @param {FindResult|null|undefined} result see `Find.refresh()`
   */
  #highlight(query, result) {
    this.#context.onAnswer();
    if (result !== undefined) {
      this.#context.map.highlight(result !== null && result.extents > 0 ? query : null);
    }
  }
}
