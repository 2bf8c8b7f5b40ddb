// `resound demo`: what somebody sees who tries Resound for the first time.

import assert from 'node:assert/strict';
import { launch, openPage, screenshot } from './support/browser.mjs';
import { startDemo } from './support/server.mjs';
import { after, before, test } from './support/test.mjs';

let server;
let browser;

before(async () => {
  server = await startDemo();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** The page, once it says that it is subscribed. */
async function open(t) {
  const page = await openPage(t, browser);
  await page.setViewportSize({ width: 1280, height: 900 });
  const faults = [];
  page.on('pageerror', (error) => faults.push(error.message));
  page.on('console', (message) => message.type() === 'error' && faults.push(message.text()));
  t.after(() => assert.deepEqual(faults, [], 'errors in the console'));
  await page.goto(`http://127.0.0.1:${server.port}/demo`);
  await page.locator('#status', { hasText: 'Subscribed' }).waitFor();
  return page;
}

async function send(page, name, content) {
  await page.fill('#name', name);
  await page.fill('#content', content);
  await page.click('#send');
}

const message = (page, content) => page.locator('#messages .message', { hasText: content });

test('a message that is sent appears as a message and as a frame', async (t) => {
  const page = await open(t);
  await send(page, 'Ana', 'Hello from the demo');
  await message(page, 'Hello from the demo').waitFor();
  assert.match(await message(page, 'Hello from the demo').innerText(), /Ana/);
  const received = page.locator('#frames .frame.in', { hasText: 'message.sent' });
  assert.match(await received.innerText(), /Hello from the demo/);
  assert.equal(await page.locator('#error').isVisible(), false);
});

test('a message to others appears on their page and not on the own', async (t) => {
  const [own, others] = [await open(t), await open(t)];
  await own.check('#to-others');
  await send(own, 'Ana', 'only for others');
  await message(others, 'only for others').waitFor();
  await own.uncheck('#to-others');
  await send(own, 'Ana', 'for all');
  await message(own, 'for all').waitFor();
  await message(others, 'for all').waitFor();
  assert.equal(await message(own, 'only for others').count(), 0);
});

test('a message is text, whatever is in it', async (t) => {
  const page = await open(t);
  const content = '<img src=x onerror="document.title=1"> & 👩‍👩‍👧';
  await send(page, '<b>Ana</b>', content);
  await message(page, content).waitFor();
  assert.equal(await page.locator('#messages img').count(), 0);
});

test('the .env to paste is for the port of this demo', async (t) => {
  const page = await open(t);
  const env = await page.locator('#env').textContent();
  assert.match(env, new RegExp(`^REVERB_PORT=${server.port}$`, 'm'));
  assert.match(env, new RegExp(`^REVERB_SERVER_PORT=${server.port}$`, 'm'));
  assert.doesNotMatch(env, /QUEUE_CONNECTION/);
});

for (const [width, height] of [[1280, 900], [390, 844]]) {
  test(`fits a window of ${width}x${height}`, async (t) => {
    const [page, other] = [await open(t), await open(t)];
    await page.setViewportSize({ width, height });
    await send(other, 'Bruno', 'Is the flat on Calle Mayor still free?');
    await message(page, 'Calle Mayor').waitFor();
    await send(page, 'Ana', 'It is. Would Thursday at six suit you for a visit?');
    await message(page, 'Thursday').waitFor();
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `${overflow} px are cut off at the right`);
    await screenshot(page, `demo-${width}x${height}`);
  });
}
