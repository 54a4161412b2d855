// The panel: opens at the right, on a phone at the bottom, with what is known about something.

import { errorText } from "../data/source-error.js";
import { descendant, el } from "../ui/elements.js";

/**
 * What the panel shows.
 *
 * @typedef {{title: string, content: HTMLElement[]}} PanelPage
 */

/** Shows one page at a time; only the latest one counts. */
export class Panel {
  #element;
  #title;
  #body;
  #abort = new AbortController();

  /**
   * @param {HTMLElement} element with a heading, a button .close and a .body
   * @param {() => void} onClose the user has closed it
   */
  constructor(element, onClose) {
    this.#element = element;
    this.#title = descendant(element, "h2", HTMLElement);
    this.#body = descendant(element, ".body", HTMLElement);
    descendant(element, ".close", HTMLElement).addEventListener("click", onClose);
  }

  get isOpen() {
    return !this.#element.inert;
  }

  get hasFocus() {
    return this.#element.contains(document.activeElement);
  }

  /** How wide and high it is, in pixels of the screen. */
  get size() {
    const { offsetWidth: width, offsetHeight: height } = this.#element;
    return { width, height };
  }

  /**
   * Open with a page that is still being read.
   *
   * @param {(signal: AbortSignal) => Promise<PanelPage>} read
   */
  async open(read) {
    this.#show({ title: "Reading …", content: [el("p.quiet", {}, "Reading …")] });
    await this.refresh(read);
  }

  /**
   * Open, or stay as it is, until a page has been read.
   *
   * @param {(signal: AbortSignal) => Promise<PanelPage>} read
   */
  async refresh(read) {
    this.#abort.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    this.#element.inert = false;
    this.#element.classList.add("open");
    const page = await read(signal).catch(errorPage);
    if (!signal.aborted) {
      this.#show(page);
    }
  }

  close() {
    this.#abort.abort();
    this.#element.classList.remove("open");
    // Closed, it is out of sight but still there: the Tab key must not lead into it.
    this.#element.inert = true;
  }

  /** Move the focus to the heading, from where a screen reader reads on. */
  focus() {
    this.#title.focus();
  }

  /** @param {PanelPage} page */
  #show({ title, content }) {
    // The heading is live for screen readers, and should not be read again without need.
    if (this.#title.textContent !== title) {
      this.#title.textContent = title;
    }
    this.#body.replaceChildren(...content);
  }
}

/** @param {unknown} error */
function errorPage(error) {
  return { title: "This could not be read", content: [el("p.error", {}, errorText(error))] };
}
