// Chromium's answers from the networks that the pages load their scripts from: the same
// files, from the npm packages. No request leaves this machine.

import { inPackage, openPage } from '../../clients/support/browser.mjs';

const JSDELIVR = 'https://cdn.jsdelivr.net/npm/';
const PACKAGES = {
  'pusher-js@8.6.0': 'pusher-js',
  'laravel-echo@2.5.0': 'echo-2',
  'laravel-echo@1.19.0': 'echo-1-19',
};

/** A page of somebody's own browser, which ends with the test. Its errors fail the test. */
export async function openWithScripts(t, browser) {
  const page = await openPage(t, browser);
  await page.route(/^https:/, (route) => route.abort());
  await page.route(`${JSDELIVR}**`, (route) => {
    const [name, file] = route.request().url().slice(JSDELIVR.length).split('/dist/');
    return PACKAGES[name] ? route.fulfill({ path: inPackage(PACKAGES[name], file) }) : route.abort();
  });
  await page.route('https://js.pusher.com/8.0.1/pusher.min.js', (route) =>
    route.fulfill({ path: inPackage('pusher-js-8-0', 'web/pusher.min.js') }),
  );
  const errors = [];
  page.on('pageerror', (error) => errors.push(error));
  t.after(() => {
    if (errors.length > 0) throw new AggregateError(errors, 'errors in the page');
  });
  return page;
}
