// Jobs of which only so many run at a time.

/** @typedef {{job: () => Promise<void>, signal: AbortSignal}} Entry */

/**
 * Runs what was added together in that order, and what was added last before everything else: it
 * is what the user looks at now.
 */
export class JobQueue {
  #atOnce;
  /** @type {Entry[][]} */
  #batches = [];
  /** @type {Entry[]|null} */
  #openBatch = null;
  #running = 0;

  /** @param {number} atOnce how many jobs may run at a time */
  constructor(atOnce) {
    this.#atOnce = atOnce;
  }

  /**
   * Add a job to the batch of this moment.
   *
   * @param {() => Promise<void>} job must not fail
   * @param {AbortSignal} signal drops the job if it has not started
   */
  add(job, signal) {
    if (this.#openBatch === null) {
      this.#openBatch = [];
      queueMicrotask(() => this.#closeBatch());
    }
    this.#openBatch.push({ job, signal });
  }

  #closeBatch() {
    this.#batches.push(this.#openBatch ?? []);
    this.#openBatch = null;
    this.#start();
  }

  #start() {
    while (this.#running < this.#atOnce) {
      const entry = this.#next();
      if (entry === undefined) {
        return;
      }
      if (!entry.signal.aborted) {
        this.#run(entry.job);
      }
    }
  }

  #next() {
    const newest = this.#batches.at(-1);
    const entry = newest?.shift();
    if (newest?.length === 0) {
      this.#batches.pop();
    }
    return entry;
  }

  /** @param {() => Promise<void>} job */
  async #run(job) {
    this.#running += 1;
    await job();
    this.#running -= 1;
    this.#start();
  }
}
