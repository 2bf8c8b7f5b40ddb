// node:test, with a limit on every test that leaves room for what is waited for.

import { test as limited } from '../../clients/support/test.mjs';

export const test = (name, run) => limited(name, { timeout: 90_000 }, run);
