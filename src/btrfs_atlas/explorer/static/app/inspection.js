// What the panel is about: a pixel, which has a ring on the map, or the filesystem.

import { isSamePixel } from "../data/view.js";
import { filesystemPage } from "../panels/filesystem-page.js";
import { pixelPage } from "../panels/pixel-page.js";

/** @import { Pixel } from "../data/types.js" */
/** @import { Panel } from "../panels/panel.js" */
/** @import { Context } from "./context.js" */

/** Keeps the map and the panel to one pixel. */
export class Inspection {
  #context;
  #panel;
  #isAtBottom;
  #onFind;

  /**
   * The pixel; null if the panel is closed, or is about the filesystem.
   *
   * @type {Pixel|null}
   */
  pixel = null;

  /**
   * @param {Context} context
   * @param {Panel} panel
   * @param {() => boolean} isAtBottom whether the panel opens at the bottom of the window
   * @param {(query: string) => void} onFind the user wants to see all of a file
   */
  constructor(context, panel, isAtBottom, onFind) {
    this.#context = context;
    this.#panel = panel;
    this.#isAtBottom = isAtBottom;
    this.#onFind = onFind;
  }

  /** How much of the right and bottom of the window the panel covers, in pixels of the screen. */
  get covered() {
    const { width, height } = this.#panel.size;
    if (!this.#panel.isOpen) {
      return { right: 0, bottom: 0 };
    }
    return this.#isAtBottom() ? { right: 0, bottom: height } : { right: width, bottom: 0 };
  }

  /**
   * Show the pixel of a view.
   *
   * @param {Pixel|null} pixel null: close the panel
   */
  apply(pixel) {
    if (pixel === null) {
      this.#clear();
    } else if (!isSamePixel(pixel, this.pixel)) {
      this.open(pixel);
    }
  }

  /**
   * Open the panel with what is known about a pixel.
   *
   * @param {Pixel} pixel
   */
  open(pixel) {
    const { map, tooltip } = this.#context;
    this.pixel = pixel;
    map.ring(pixel);
    this.#panel.open((signal) => this.#read(pixel, signal));
    tooltip.settle();
    map.viewport.reveal(pixel, this.covered);
  }

  /** Read what is known about the pixel again, if there is one. */
  refresh() {
    const { pixel } = this;
    if (pixel !== null) {
      this.#panel.refresh((signal) => this.#read(pixel, signal));
      this.#context.tooltip.settle();
    }
  }

  /**
   * Open the panel with what is known about the filesystem.
   *
   * @param {() => Promise<void>} update reads that again
   */
  openFilesystem(update) {
    this.#clear();
    this.#panel.open(async () => {
      await update();
      return filesystemPage(this.#context.filesystem());
    });
    this.#panel.focus();
    this.#context.tooltip.settle();
  }

  /** Close the panel; if it has the focus, the map gets it. */
  close() {
    const { hasFocus } = this.#panel;
    this.#clear();
    if (hasFocus) {
      this.#context.map.viewport.focus();
    }
  }

  #clear() {
    this.pixel = null;
    this.#panel.close();
    this.#context.map.ring(null);
  }

  /**
   * @param {Pixel} pixel
   * @param {AbortSignal} signal
   */
  async #read(pixel, signal) {
    const { source, settings, filesystem, onAnswer } = this.#context;
    try {
      const info = await source.details(settings(), pixel, signal);
      return pixelPage(info, filesystem().generation, source.can.find ? this.#onFind : null);
    } finally {
      onAnswer();
    }
  }
}
