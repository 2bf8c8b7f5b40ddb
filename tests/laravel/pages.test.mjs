// The two pages in Chromium: the document's, and the chat, in two browsers.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { launch, screenshot } from '../clients/support/browser.mjs';
import { startFromEnvFile } from '../clients/support/server.mjs';
import { after, before, beforeEach, describe, test } from '../clients/support/test.mjs';
import { EXAMPLE, URL_OF_LARAVEL, install } from './support/application.mjs';
import { openWithScripts } from './support/cdn.mjs';
import { enter, openChat } from './support/page.mjs';
import { logIn } from './support/person.mjs';

const CHAT = 1;
const GROUP = 2;
const PHONE = { width: 390, height: 844 };

let application;
let server;
let browser;
let ana;

before(async () => {
  application = await install();
  await application.serve();
  server = await startFromEnvFile(application.envFile);
  application.startWorker();
  browser = await launch();
  ana = await logIn('Ana');
});

after(async () => {
  await browser?.close();
  // While its webhooks have a receiver.
  await server?.stop();
  await application?.stop();
});

describe('test_chat.html', () => {
  const file = 'test_chat.html';

  async function openFromDisk(t, token) {
    const page = await openWithScripts(t, browser);
    const html = readFileSync(path.join(application.folder, file), 'utf8');
    const onDesktop = path.join(application.folder, 'test_chat_with_token.html');
    writeFileSync(onDesktop, html.replace('YOUR_SANCTUM_TOKEN_HERE', token));
    const authorized = page.waitForResponse(`${URL_OF_LARAVEL}/api/broadcasting/auth`);
    await page.goto(pathToFileURL(onDesktop).href);
    return { page, authorized: (await authorized).status() };
  }

  test("is the document's, but for an Echo that knows reverb", () => {
    const documents = readFileSync(new URL('../clients/pages/test_chat.html', import.meta.url), 'utf8').split('\n');
    const ours = readFileSync(path.join(EXAMPLE, file), 'utf8').split('\n');
    assert.equal(ours.length, documents.length);
    const changed = ours.filter((line, n) => line !== documents[n]);
    assert.deepEqual(changed, [
      '    <script src="https://cdn.jsdelivr.net/npm/laravel-echo@1.19.0/dist/echo.iife.js"></script>',
    ]);
  });

  test('opened from disk with a token, shows what is POSTed', async (t) => {
    const { page, authorized } = await openFromDisk(t, ana.token);
    assert.equal(authorized, 200);
    await page.getByText('Connected via Reverb').waitFor();
    await subscribed(page);

    const { sender, content, created_at: time } = await ana.say(CHAT, 'Hello from Postman!');
    const shown = page.locator('#messages > div');
    await shown.first().waitFor();
    assert.deepEqual(await shown.allInnerTexts(), [`${sender.name}: ${content} (${time})`]);
    await screenshot(page, 'laravel-test_chat');
  });

  test('says so when the token is nobody', async (t) => {
    const { page, authorized } = await openFromDisk(t, 'nobody');
    assert.equal(authorized, 401);
    await page.getByText('Error (See Console)').waitFor();
  });

  /** The page's own `echo`, until its channel is confirmed. */
  const subscribed = (page) =>
    page.waitForFunction((id) => echo.connector.channels[`private-chat.${id}`].subscription.subscribed, CHAT);
});

describe('the chat', () => {
  // Ten logins a minute are allowed; here everybody logs in again for each test.
  beforeEach(() => application.artisan('cache:clear'));

  const open = (t, name, chat, viewport) => openChat(t, browser, name, chat, viewport);

  async function say(page, content) {
    await page.fill('#content', content);
    await page.press('#content', 'Enter');
    await said(page, content);
  }

  const message = (page, content) => page.locator('#messages .message', { hasText: content });
  const said = (page, content) => message(page, content).waitFor();

  /** Both are in the chat and see each other there, so that whispers and events arrive. */
  async function two(t, chat, [oneName, otherName] = ['Ana', 'Ben']) {
    const one = await open(t, oneName, chat);
    const other = await open(t, otherName, chat);
    for (const [page, name] of [[one, otherName], [other, oneName]]) {
      await page.locator('#here', { hasText: name }).waitFor();
    }
    return [one, other];
  }

  test('brings what one writes to the other, once each', async (t) => {
    const [ana, ben] = await two(t, CHAT);
    await say(ana, 'Is Thursday fine?');
    await said(ben, 'Is Thursday fine?');
    await say(ben, 'Thursday it is');
    await said(ana, 'Thursday it is');
    // The page would show a message once even if it came twice, or came to its sender.
    const came = (page, content) => page.frames.filter((frame) => frame.includes(content)).length;
    assert.deepEqual([came(ana, 'Is Thursday fine?'), came(ben, 'Is Thursday fine?')], [0, 1]);
    assert.deepEqual([came(ana, 'Thursday it is'), came(ben, 'Thursday it is')], [1, 0]);
    await screenshot(ana, 'laravel-chat');
  });

  test('shows who is typing and who has gone', async (t) => {
    const [ana, ben] = await two(t, CHAT);
    await ana.locator('#content').pressSequentially('Well');
    await ben.locator('#typing', { hasText: 'Ana is typing' }).waitFor();
    await screenshot(ben, 'laravel-chat-typing');
    await ana.close();
    await ben.waitForFunction(() => !document.querySelector('#here').textContent.includes('Ana'));
    await ben.waitForFunction(() => !document.querySelector('#typing').textContent.includes('Ana'));
  });

  test('believes the server, and not a whisper, who is typing', async (t) => {
    const [ana, ben] = await two(t, GROUP);
    const carla = await logIn('Carla');
    await ben.evaluate(
      async ([id, chat]) => {
        const { default: Echo } = await import('laravel-echo');
        const { key, host, port } = window.reverb;
        const auth = { headers: { Authorization: `Bearer ${sessionStorage.getItem('token')}`, Accept: 'application/json' } };
        const echo = new Echo({ broadcaster: 'reverb', key, wsHost: host, wsPort: port, forceTLS: false,
          enabledTransports: ['ws'], authEndpoint: '/api/broadcasting/auth', auth });
        const channel = echo.join(`chat.${chat}`);
        await new Promise((resolve) => channel.here(resolve));
        channel.whisper('typing', { id, user_id: id, name: 'Carla' });
        channel.whisper('typing', null);
      },
      [carla.id, GROUP],
    );
    await ana.locator('#typing', { hasText: 'Ben is typing' }).waitFor();
    assert.equal((await ana.locator('#typing').innerText()).includes('Carla'), false);
  });

  test('shows that the other has read', async (t) => {
    const ana = await open(t, 'Ana', CHAT);
    await say(ana, 'Read me');
    const receipt = message(ana, 'Read me').locator('.receipt');
    assert.equal(await receipt.getAttribute('data-state'), 'sent');
    await open(t, 'Ben', CHAT);
    await message(ana, 'Read me').locator('.receipt[data-state=read]').waitFor();
  });

  test('counts what is unread in the other chats, and does not call for a muted one', async (t) => {
    const carla = await logIn('Carla');
    const page = await open(t, 'Ben', CHAT);
    const room = page.locator(`#rooms [data-room-id="${GROUP}"]`);
    const before = Number(await room.locator('.unread').innerText().catch(() => 0));
    await carla.say(GROUP, 'The keys, please');
    await room.locator('.unread', { hasText: String(before + 1) }).waitFor();
    await page.waitForFunction((n) => document.title.startsWith(`(${n})`), before + 1);

    await enter(page, GROUP);
    await room.locator('.unread').waitFor({ state: 'detached' });
    await page.click('#mute');
    await page.locator('#mute[aria-pressed=true]').waitFor();
    await enter(page, CHAT);
    await carla.say(GROUP, 'Hello?');
    await room.locator('.unread', { hasText: '1' }).waitFor();
    assert.equal((await page.title()).startsWith('('), false);
  });

  test("counts nothing as unread when one's own message is the latest", async (t) => {
    const [carla, ben] = [await logIn('Carla'), await logIn('Ben')];
    const page = await open(t, 'Ben', CHAT);
    const room = page.locator(`#rooms [data-room-id="${GROUP}"]`);
    await carla.say(GROUP, 'Where are you?');
    await room.locator('.unread').waitFor();
    // From another device, and in another second, for times are stored in seconds.
    await new Promise((resolve) => setTimeout(resolve, 1100));
    await ben.say(GROUP, 'On my way');
    await page.locator('#rooms [data-room-id]', { hasText: 'On my way' }).waitFor();
    await enter(page, GROUP);
    await said(page, 'On my way');
    await room.locator('.unread').waitFor({ state: 'detached' });
  });

  for (const [name, pattern] of [
    ['laravel-echo', '**/laravel-echo@*/**'],
    ['pusher-js', '**/pusher-js@*/**'],
    ['every script of others', 'https://cdn.jsdelivr.net/**'],
  ]) {
    test(`says what is missing when ${name} is blocked`, async (t) => {
      const page = await openWithScripts(t, browser);
      await page.route(pattern, (route) => route.abort());
      await page.goto(URL_OF_LARAVEL);
      await page.locator('#starting', { hasText: 'a script is missing' }).waitFor();
      assert.match(await page.locator('#starting').innerText(), /cdn\.jsdelivr\.net/);
      assert.equal(await page.locator('#login').isVisible(), false);
    });
  }

  test('starts a chat, which appears at the other at once', async (t) => {
    const [dora, carla] = [await open(t, 'Dora'), await open(t, 'Carla')];
    await dora.click('#new-chat-button');
    await dora.locator('#new-chat').getByRole('button', { name: 'Carla' }).click();
    await dora.locator('#room-title', { hasText: 'Carla' }).waitFor();
    await say(dora, 'Hello Carla');
    const room = carla.locator('#rooms [data-room-id]', { hasText: 'Dora' });
    await room.click();
    await said(carla, 'Hello Carla');
  });

  test('tells who is removed from a group so, and shows nothing more of it', async (t) => {
    const [{ id: benId }, carla] = [await logIn('Ben'), await logIn('Carla')];
    const body = { type: 'group', subject: 'Open house', user_ids: [benId, carla.id] };
    const { json } = await ana.post('/api/chat/rooms', body);
    const group = json.data.id;
    const [owner, ben] = await two(t, group);

    await ben.click('#group-button');
    assert.equal(await ben.locator('#members button:visible').count(), 0);
    await owner.click('#group-button');
    await owner.locator('#members .person', { hasText: 'Ben' }).getByText('Online').waitFor();
    await screenshot(owner, 'laravel-chat-members');
    await owner.locator('#members .person', { hasText: 'Ben' }).getByRole('button', { name: 'Remove' }).click();
    await ben.locator('#notice', { hasText: 'You are no longer in “Open house”.' }).waitFor();
    await screenshot(ben, 'laravel-chat-removed');
    await owner.locator('#members .person', { hasText: 'Ben' }).waitFor({ state: 'detached' });
    await ben.locator('#conversation').waitFor({ state: 'hidden' });
    assert.equal(await ben.locator(`#rooms [data-room-id="${group}"]`).count(), 0);
    assert.equal(await ben.locator('dialog[open]').count(), 0);

    await owner.keyboard.press('Escape');
    await say(owner, 'Between us');
    await carla.say(group, 'Between us, indeed');
    await said(owner, 'Between us, indeed');
    assert.deepEqual(ben.frames.filter((frame) => frame.includes('Between us')), []);
    // He goes on in other chats.
    await enter(ben, CHAT);
    await ana.say(CHAT, 'See you elsewhere');
    await said(ben, 'See you elsewhere');
  });

  test('leaves a group, also in another tab', async (t) => {
    const ben = await logIn('Ben');
    const { json } = await ana.post('/api/chat/rooms', { type: 'group', subject: 'Attic', user_ids: [ben.id] });
    const [page, other] = [await open(t, 'Ben', json.data.id), await open(t, 'Ben', json.data.id)];
    await page.click('#group-button');
    await page.click('#leave');
    await other.locator('#notice', { hasText: 'You are no longer in “Attic”.' }).waitFor();
    await page.locator('#conversation').waitFor({ state: 'hidden' });
    assert.equal(await page.locator('#notice').isVisible(), false);
  });

  test('shows who is online, and when who has gone was last seen', async (t) => {
    const page = await open(t, 'Ana', CHAT);
    const ben = await open(t, 'Ben');
    await page.locator('#seen', { hasText: 'Ben is online' }).waitFor();
    await enter(ben, CHAT);
    await page.locator('#here', { hasText: 'Ben' }).waitFor();
    assert.equal(await page.locator('#seen').innerText(), '');
    await ben.close();
    await page.locator('#seen', { hasText: 'Ben was last seen at ' }).waitFor();
    await page.click('#new-chat-button');
    await page.locator('#people .person', { hasText: 'Ben' }).getByText('Last seen at').waitFor();
  });

  test('shows text as text', async (t) => {
    const [ana, ben] = await two(t, CHAT);
    const text = '<img src=x onerror="document.title=1"> & <b id=bold>bold</b>';
    await say(ana, text);
    await said(ben, text);
    for (const page of [ana, ben]) assert.equal(await page.locator('img, #bold').count(), 0);
  });

  test('keeps what was typed when it is refused, and says why', async (t) => {
    const page = await open(t, 'Ana', CHAT);
    await page.fill('#content', '😀'.repeat(600));
    await page.press('#content', 'Enter');
    await page.locator('#composer-error', { hasText: 'too long' }).waitFor();
    assert.equal(await page.inputValue('#content'), '😀'.repeat(600));
  });

  test('is back after a restart of Resound, with what was missed', async (t) => {
    const [one, other] = await two(t, CHAT);
    await server.stop();
    await ana.say(CHAT, 'Can you hear me?');
    server = await startFromEnvFile(application.envFile);
    // pusher-js tries again after a second, and if that fails after fifteen.
    const connected = (page) => page.locator('#connection[data-state=connected]').waitFor({ timeout: 25_000 });
    await Promise.all([connected(one), connected(other)]);
    await said(other, 'Can you hear me?');
    await say(one, 'And now?');
    await said(other, 'And now?');
  });

  test('fits a phone', async (t) => {
    const page = await open(t, 'Ana', undefined, PHONE);
    await screenshot(page, 'laravel-chat-phone-list');
    await enter(page, CHAT);
    await screenshot(page, 'laravel-chat-phone');
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(overflow <= 0, `${overflow} pixels stand out`);
    await page.click('#back');
    await page.locator(`#rooms [data-room-id="${GROUP}"]`).waitFor({ state: 'visible' });
  });

  test('goes back to the login when the token has expired', async (t) => {
    const page = await open(t, 'Ana', CHAT);
    await page.fill('#content', 'too late');
    await application.sql("delete from personal_access_tokens where tokenable_id = 1");
    // Whatever it asks first is refused; the composer may be hidden by then.
    await page.evaluate(() => document.querySelector('#composer').requestSubmit());
    await page.locator('#login #email').waitFor({ state: 'visible' });
  });
});
