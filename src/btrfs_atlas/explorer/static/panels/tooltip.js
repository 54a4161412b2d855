// The tooltip: what is at the pixel under the mouse.

import { isSamePixel } from "../data/view.js";
import { el, fact, facts } from "../ui/elements.js";
import { capitalised, size, sizeOfWhole } from "../ui/format.js";
import { deviceName, generationAge, groupDescription, pixelTitle } from "./descriptions.js";

/** @import { Extent, Pixel, PixelInfo } from "../data/types.js" */

const DELAY_MS = 40;
const GAP = 16;

/** Follows the mouse and asks for the pixel under it; only the latest answer counts. */
export class Tooltip {
  #element;
  #ask;
  #rightEdge;
  #newest = "0";
  /** @type {Pixel|null} */
  #pixel = null;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #timer;
  #abort = new AbortController();
  #pointer = { x: 0, y: 0 };

  /**
   * @param {HTMLElement} element
   * @param {(pixel: Pixel, signal: AbortSignal) => Promise<PixelInfo>} ask
   * @param {() => number} rightEdge how far to the right of the window it may reach
   */
  constructor(element, ask, rightEdge) {
    this.#element = element;
    this.#ask = ask;
    this.#rightEdge = rightEdge;
  }

  /** The generation of the filesystem, from which the age of extents is counted. */
  set newest(/** @type {string} */ generation) {
    this.#newest = generation;
  }

  /**
   * @param {Pixel} pixel
   * @param {PointerEvent} event
   */
  point(pixel, { clientX, clientY }) {
    this.#pointer = { x: clientX, y: clientY };
    if (isSamePixel(pixel, this.#pixel)) {
      this.settle();
      return;
    }
    this.#stop();
    this.#pixel = pixel;
    this.#timer = setTimeout(() => this.#show(pixel), DELAY_MS);
  }

  hide() {
    this.#stop();
    this.#pixel = null;
    this.#element.hidden = true;
  }

  /** Move beside the pointer, to the side that has room. */
  settle() {
    const { x, y } = this.#pointer;
    const { offsetWidth: width, offsetHeight: height, style } = this.#element;
    const left = x + GAP + width > this.#rightEdge() ? x - GAP - width : x + GAP;
    const top = y + GAP + height > innerHeight ? y - GAP - height : y + GAP;
    style.transform = `translate(${Math.max(left, 4)}px, ${Math.max(top, 4)}px)`;
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#abort.abort();
    this.#abort = new AbortController();
  }

  /** @param {Pixel} pixel */
  async #show(pixel) {
    const { signal } = this.#abort;
    try {
      const info = await this.#ask(pixel, signal);
      if (!signal.aborted) {
        this.#element.replaceChildren(heading(info), description(info, this.#newest));
        this.#element.hidden = false;
        this.settle();
      }
    } catch {
      // A click on the same pixel opens the panel, which says what is wrong.
      if (!signal.aborted) {
        this.#element.hidden = true;
      }
    }
  }
}

/** @param {PixelInfo} info */
function heading(info) {
  const bytes = el("span.quiet", {}, ` ${size(info.bytes)} from here`);
  return el("p.state", {}, el("strong", {}, pixelTitle(info)), bytes);
}

/**
 * @param {PixelInfo} info
 * @param {string} newest
 */
function description({ device, vaddr, group, extent }, newest) {
  return facts(
    device && fact("Device", deviceName(device)),
    device && fact("Physical", device.paddr),
    vaddr && fact("Virtual", vaddr),
    group && fact("Block group", groupDescription(group)),
    group && fact("Used", sizeOfWhole(group.used, group.length)),
    ...(extent ? extentFacts(extent, newest) : []),
  );
}

/**
 * @param {Extent} extent
 * @param {string} newest
 */
function extentFacts(extent, newest) {
  return [
    fact("Extent", `${size(extent.length)} at ${extent.vaddr}`),
    fact("Generation", generationAge(extent.generation, newest)),
    fact("References", extent.refs),
    fact("Owner", extent.owner),
    ...extent.colours.map(({ title, name }) => fact(capitalised(title), name)),
  ];
}
