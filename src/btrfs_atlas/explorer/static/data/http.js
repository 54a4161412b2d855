// Requests to the server that the page came from. All paths are relative to the page's own.

import { SourceError } from "./source-error.js";

const BUSY = 503;
const BUSY_RETRIES = 8;

/**
 * Fetch a path; while the server is busy, again after the time that it names.
 *
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @throws {SourceError} The server refused, or did not answer.
 */
export async function request(path, signal) {
  for (let retries = 0; ; retries += 1) {
    const response = await fetched(path, signal);
    if (response.ok) {
      return response;
    }
    if (response.status !== BUSY || retries >= BUSY_RETRIES) {
      throw await refusal(response);
    }
    await pause(Number(response.headers.get("Retry-After")) || 1, signal);
  }
}

/**
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
async function fetched(path, signal) {
  try {
    return await fetch(path, { signal });
  } catch (error) {
    if (signal?.aborted) {
      throw error;
    }
    throw new SourceError("The server does not answer", "Is btrfs-atlas serve still running?");
  }
}

/** @param {Response} response */
async function refusal(response) {
  const answer = await response.json().catch(() => ({}));
  const message = answer.error ?? `The server refused (HTTP ${response.status})`;
  return new SourceError(message, answer.hint ?? null);
}

/**
 * @param {number} seconds
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
