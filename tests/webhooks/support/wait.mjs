// Waiting for what is to become so.

import { setTimeout as sleep } from 'node:timers/promises';

export { within } from '../../clients/support/wait.mjs';

// Machines may be busy: only what never comes is waited for so long.
const LIMIT_MS = 20_000;

/** Asserts again and again until it holds; if it never does, fails as it did last. */
export async function eventually(assertion, limitMs = LIMIT_MS) {
  const deadline = Date.now() + limitMs;
  for (;;) {
    try {
      return assertion();
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    await sleep(25);
  }
}
