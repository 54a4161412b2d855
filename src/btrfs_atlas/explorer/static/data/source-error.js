// What is wrong when a source of data has no answer, in text for the user.

/** An answer that could not be given. */
export class SourceError extends Error {
  /**
   * @param {string} message what is wrong
   * @param {string|null} hint what may help
   */
  constructor(message, hint = null) {
    super(message);
    this.hint = hint;
  }
}

/**
 * The text of any error, with a hint if there is one.
 *
 * @param {unknown} error
 */
export function errorText(error) {
  const { message, hint } = asSourceError(error);
  return [message, hint].filter(Boolean).join(". ");
}

/**
 * Any error with a message and a hint.
 *
 * @param {unknown} error
 */
export function asSourceError(error) {
  if (error instanceof SourceError) {
    return error;
  }
  return new SourceError(error instanceof Error ? error.message : String(error));
}
