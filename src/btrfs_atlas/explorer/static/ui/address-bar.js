// The fragment of the page's address, which says what the page shows.

const REPLACE_MS = 150;

/** Writes the fragment, and follows it when the user goes back or edits it. */
export class AddressBar {
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #timer;

  /** @param {(fragment: string) => void} onFollow the user has changed the fragment */
  constructor(onFollow) {
    const follow = () => {
      clearTimeout(this.#timer);
      onFollow(this.fragment);
    };
    addEventListener("popstate", follow);
    addEventListener("hashchange", follow);
  }

  get fragment() {
    return location.hash;
  }

  /**
   * Write a new entry of the history: the browser's Back leads to the one before.
   *
   * @param {string} fragment
   */
  push(fragment) {
    this.#write("pushState", fragment);
  }

  /**
   * Replace the entry of the history, once there are no more calls for a moment.
   *
   * @param {() => string} fragment called at that time
   */
  replaceSoon(fragment) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#write("replaceState", fragment()), REPLACE_MS);
  }

  /**
   * @param {"pushState"|"replaceState"} method
   * @param {string} fragment
   */
  #write(method, fragment) {
    clearTimeout(this.#timer);
    if (fragment !== location.hash) {
      history[method](null, "", fragment);
    }
  }
}
