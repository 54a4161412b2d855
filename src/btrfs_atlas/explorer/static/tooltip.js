// The tooltip: what there is at the pixel under the mouse.

import { age, deviceName, fact, facts, partWords, size } from "./text.js";
import { groupWords, stateWords } from "./words.js";

const DELAY_MS = 40;
const GAP = 16;

/** Follows the mouse and asks for the pixel under it; only the latest answer counts. */
export class Tooltip {
  #element;
  #ask;
  #rightEdge;
  #newest = "0";
  #place = "";
  #timer = 0;
  #abort = new AbortController();
  #pointer = { x: 0, y: 0 };

  /**
   * @param {HTMLElement} element
   * @param {function(Place, AbortSignal): Promise<object>} ask for what there is at a pixel
   * @param {function(): number} rightEdge how far to the right of the window it may reach
   */
  constructor(element, ask, rightEdge) {
    this.#element = element;
    this.#ask = ask;
    this.#rightEdge = rightEdge;
  }

  /** The generation of the filesystem, to which the age of extents is told. */
  set newest(generation) {
    this.#newest = generation;
  }

  point(place, { clientX, clientY }) {
    this.#pointer = { x: clientX, y: clientY };
    const key = `${place.z}/${place.row}/${place.column}`;
    if (key === this.#place) {
      this.settle();
      return;
    }
    this.#stop();
    this.#place = key;
    this.#timer = setTimeout(() => this.#tell(place), DELAY_MS);
  }

  hide() {
    this.#stop();
    this.#place = "";
    this.#element.hidden = true;
  }

  /** Go beside the pointer, where there is room. */
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

  async #tell(place) {
    const { signal } = this.#abort;
    try {
      const found = await this.#ask(place, signal);
      if (!signal.aborted) {
        this.#element.replaceChildren(...tooltipContent(found, this.#newest));
        this.#element.hidden = false;
        this.settle();
      }
    } catch {
      // Whoever wants to know can click, and is told what is wrong there.
      if (!signal.aborted) {
        this.#element.hidden = true;
      }
    }
  }
}

function tooltipContent(found, newest) {
  const { device, vaddr, group, extent } = found;
  return [
    stateWords(found),
    facts(
      device && fact("Device", deviceName(device)),
      device && fact("Physical", device.paddr),
      vaddr && fact("Virtual", vaddr),
      group && fact("Block group", groupWords(group)),
      group && fact("Used", partWords(group.used, group.length)),
      extent && fact("Extent", `${size(extent.length)} at ${extent.vaddr}`),
      extent && fact("Generation", age(extent.generation, newest)),
      extent && fact("References", extent.refs),
      extent && fact("Owner", extent.owner),
    ),
  ];
}
