// Headless Chromium, the one of the system.

import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const output = fileURLToPath(new URL('../.output/screenshots/', import.meta.url));

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    timeout: 20_000,
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

/** A page with storage of its own, which ends with the test. */
export async function openPage(t, browser) {
  const context = await browser.newContext();
  t.after(() => context.close());
  context.setDefaultTimeout(10_000);
  return context.newPage();
}

/** For people to look at, animations at their end; the next run overwrites it. */
export function screenshot(page, name) {
  return page.screenshot({ path: `${output}${name}.png`, animations: 'disabled' });
}

/** A file of a package's dist/, also where its "exports" do not name it. */
export function inPackage(name, file) {
  const entry = createRequire(import.meta.url).resolve(name);
  const [root] = entry.split(`${path.sep}dist${path.sep}`);
  return path.join(root, 'dist', file);
}
