// When somebody was last seen: from a page that is closed, through Resound's webhook, to
// the API and to others' pages.

import assert from 'node:assert/strict';
import { launch, screenshot } from '../clients/support/browser.mjs';
import { startFromEnvFile } from '../clients/support/server.mjs';
import { after, before, test } from '../clients/support/test.mjs';
import { within } from '../clients/support/wait.mjs';
import { install } from './support/application.mjs';
import { openChat } from './support/page.mjs';
import { logIn } from './support/person.mjs';

const CHAT = 1;

let application;
let server;
let browser;
let ana;
let ben;

before(async () => {
  application = await install();
  await application.serve();
  server = await startFromEnvFile(application.envFile);
  browser = await launch();
  [ana, ben] = await Promise.all(['Ana', 'Ben'].map(logIn));
});

after(async () => {
  await browser?.close();
  // While its webhooks have a receiver.
  await server?.stop();
  await application?.stop();
});

/** What the API says of Ben, once it says this of `online`. */
async function saysOfBen(online) {
  const asking = async () => {
    for (;;) {
      const { json } = await ana.get('/api/chat/people');
      const said = json.data.find(({ id }) => id === ben.id);
      if (said.online === online) return said;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  };
  return within(`Ben to be ${online ? 'online' : 'gone'}`, asking());
}

test('the API says who is online, and within seconds who has gone and when', async (t) => {
  const opened = Date.now();
  const [first, second] = [await openChat(t, browser, 'Ben'), await openChat(t, browser, 'Ben')];
  const cameAt = Date.parse((await saysOfBen(true)).last_seen_at);
  assert.ok(cameAt >= opened && cameAt <= Date.now(), `came at ${cameAt}`);

  await first.close();
  await new Promise((resolve) => setTimeout(resolve, 1500));
  assert.equal(Date.parse((await saysOfBen(true)).last_seen_at), cameAt, 'another page of his is open');

  const closed = Date.now();
  await second.close();
  const wentAt = Date.parse((await saysOfBen(false)).last_seen_at);
  assert.ok(wentAt >= closed && wentAt <= Date.now(), `went at ${wentAt}`);

  // A page that was not there when he went has it from the API.
  const page = await openChat(t, browser, 'Ana', CHAT);
  await page.locator('#seen', { hasText: 'Ben was last seen at ' }).waitFor();
  await screenshot(page, 'laravel-chat-last-seen');
});

test('reloading a page leaves somebody online', async (t) => {
  const page = await openChat(t, browser, 'Ben');
  await saysOfBen(true);
  for (let n = 0; n < 3; n += 1) {
    await page.reload();
    await page.locator('#connection[data-state=connected]').waitFor({ state: 'attached' });
  }
  await new Promise((resolve) => setTimeout(resolve, 4500));
  await saysOfBen(true);
});
