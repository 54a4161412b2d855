// Images that are shown only when they are decoded.

/**
 * Load an image; stop when the signal says so.
 *
 * @param {string} url
 * @param {AbortSignal} signal
 */
export async function loadImage(url, signal) {
  const image = new Image();
  image.alt = "";
  image.draggable = false;
  image.src = url;
  await unlessAborted(image.decode(), signal, () => image.removeAttribute("src"));
  return image;
}

/**
 * Wait for a promise that knows nothing of the signal, and may never settle once it is stopped.
 *
 * @param {Promise<void>} promise
 * @param {AbortSignal} signal
 * @param {() => void} stop
 */
async function unlessAborted(promise, signal, stop) {
  let abort = () => {};
  const aborted = new Promise((_, reject) => {
    abort = () => {
      stop();
      reject(signal.reason);
    };
  });
  signal.addEventListener("abort", abort);
  try {
    await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
