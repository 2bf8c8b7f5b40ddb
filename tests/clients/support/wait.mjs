// Waiting with a limit and a name, so that a failure says what did not happen.

const LIMIT_MS = 10_000;

/** The promise's value, or an error that names `what` if it takes too long. */
export function within(what, promise, limitMs = LIMIT_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${limitMs} ms for ${what}`)), limitMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** What a callback was given, to be taken one by one in the order it came. */
export class Inbox {
  #values = [];
  #takers = [];

  constructor(what) {
    this.what = what;
    this.push = (value) => {
      const taker = this.#takers.shift();
      if (taker) taker(value);
      else this.#values.push(value);
    };
  }

  /** The oldest value that was not taken yet, which may still have to come. */
  next() {
    if (this.#values.length > 0) return Promise.resolve(this.#values.shift());
    return within(this.what, new Promise((resolve) => this.#takers.push(resolve)));
  }

  /** The values that came and were not taken. */
  get rest() {
    return [...this.#values];
  }
}
