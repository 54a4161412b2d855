// When the filesystem is asked for damage: an answer may have met some that was not known before.

const INTERVAL_MS = 5000;

/** Runs a check soon after it is asked for, but not all the time. */
export class DamageCheck {
  #check;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #timer;
  #last = -INTERVAL_MS;

  /** @param {() => Promise<void>} check */
  constructor(check) {
    this.#check = check;
  }

  runSoon() {
    clearTimeout(this.#timer);
    const wait = this.#last + INTERVAL_MS - performance.now();
    this.#timer = setTimeout(() => this.#run(), Math.max(wait, 0));
  }

  async #run() {
    this.#last = performance.now();
    try {
      await this.#check();
    } catch {
      // The user did not ask for it. What the user does ask for says what is wrong.
    }
  }
}
