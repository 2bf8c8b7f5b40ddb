// node:test, with a limit on every test. The runner's own option --test-timeout
// counts for a whole file, and then does not say which test was too slow.

import { test as unlimited } from 'node:test';

export { after, before, beforeEach, describe } from 'node:test';

/** `options` are those of node:test, and may be left out. */
export const test = (name, ...rest) => {
  const [run, options] = rest.reverse();
  return unlimited(name, { timeout: 30_000, ...options }, run);
};
