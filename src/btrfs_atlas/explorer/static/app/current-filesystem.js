// What is known about the filesystem as a whole, and when that is read again.

import { DamageCheck } from "./damage-check.js";

/** @import { Filesystem, Source } from "../data/types.js" */

/** The latest answer about the filesystem. */
export class CurrentFilesystem {
  #source;
  #onRead;
  #onChange;
  #damageCheck = new DamageCheck(() => this.update());

  /**
   * @param {Source} source
   * @param {() => void} onRead there is a new answer
   * @param {(before: Filesystem) => void} onChange it is about another generation
   */
  constructor(source, onRead, onChange) {
    this.#source = source;
    this.#onRead = onRead;
    this.#onChange = onChange;
    this.latest = source.first;
  }

  /** Read it again. */
  async update() {
    const before = await this.replace();
    if (this.latest.generation !== before.generation) {
      this.#onChange(before);
    }
  }

  /** Read it again, without a word about changes. Returns what it was before. */
  async replace() {
    const before = this.latest;
    this.latest = await this.#source.filesystem();
    this.#onRead();
    return before;
  }

  /** While it is mounted, the kernel reads the filesystem, and does not say what is damaged. */
  checkDamageSoon() {
    if (this.#source.can.events && !this.latest.mounted) {
      this.#damageCheck.runSoon();
    }
  }
}
