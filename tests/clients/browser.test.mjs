// The chat module's own test page, word for word, in Chromium. Only what stands
// around it is ours: what its two script addresses answer, and the back end.

import assert from 'node:assert/strict';
import { publisher } from './support/app.mjs';
import { startAuthEndpoint } from './support/auth-endpoint.mjs';
import { inPackage, launch, openPage, screenshot } from './support/browser.mjs';
import { needPort, startServer } from './support/server.mjs';
import { after, before, describe, test } from './support/test.mjs';
import { Inbox } from './support/wait.mjs';

const PAGE = new URL('pages/test_chat.html', import.meta.url).href;
const PUSHER_ADDRESS = 'https://js.pusher.com/8.0.1/pusher.min.js';
// laravel-echo 1.15.3 has no broadcaster 'reverb', so that the page fails with it
// under any server, Reverb included. It works with the later releases of 1.x.
const ECHO_ADDRESS = 'https://cdnjs.cloudflare.com/ajax/libs/laravel-echo/1.15.3/echo.iife.js';
const ECHO_VERSIONS = ['echo-1-16', 'echo-1-19'];

const SERVER_PORT = 8080;
const AUTH_PORT = 8000;
const TOKEN = 'YOUR_SANCTUM_TOKEN_HERE';

/** The chat module's event, as recorded from Laravel. */
const messageSent = (content) => ({
  message: {
    id: 86,
    chat_id: 1,
    user_id: 1,
    content,
    type: 'text',
    read_at: null,
    created_at: '2026-11-22T13:23:48.000000Z',
    updated_at: '2026-11-22T13:23:48.000000Z',
    sender: { id: 1, name: 'Ana', email: 'ana@example.test' },
  },
  sender: { id: 1, name: 'Ana' },
});
const shown = (content) => `Ana: ${content} (2026-11-22T13:23:48.000000Z)`;

let server;
let auth;
let browser;
const channels = {};

before(async () => {
  await needPort(SERVER_PORT);
  await needPort(AUTH_PORT);
  server = await startServer({ port: SERVER_PORT });
  auth = await startAuthEndpoint({ channels, port: AUTH_PORT, path: '/api/broadcasting/auth' });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await auth?.stop();
  await server?.stop();
});

for (const echo of ECHO_VERSIONS) {
  describe(`test_chat.html with ${echo}`, () => {
    async function open(t, { participant = true } = {}) {
      channels[TOKEN] = participant ? ['private-chat.1'] : [];
      const page = await openPage(t, browser);
      // No request leaves this machine. Of two matching routes the later one answers.
      await page.route(/^https:/, (route) => route.abort());
      await page.route(PUSHER_ADDRESS, (route) => route.fulfill({ path: inPackage('pusher-js-8-0', 'web/pusher.min.js') }));
      await page.route(ECHO_ADDRESS, (route) => route.fulfill({ path: inPackage(echo, 'echo.iife.js') }));
      const frames = watchFrames(page);
      await page.goto(PAGE);
      return { page, frames, messages: page.locator('#messages > div') };
    }

    async function openSubscribed(t) {
      const opened = await open(t);
      await subscribed(opened.frames);
      return opened;
    }

    test('says in green that it is connected', async (t) => {
      const { page } = await open(t);
      const status = page.locator('#status', { hasText: /^Connected via Reverb$/ });
      await status.waitFor();
      assert.equal(await status.evaluate((element) => getComputedStyle(element).color), 'rgb(0, 128, 0)');
    });

    test('shows a message that the back end publishes', async (t) => {
      const { page, messages } = await openSubscribed(t);
      await publisher(SERVER_PORT).trigger('private-chat.1', 'message.sent', messageSent('Hello from Postman!'));
      await messages.first().waitFor();
      assert.deepEqual(await messages.allInnerTexts(), [shown('Hello from Postman!')]);
      await screenshot(page, `test_chat-${echo}`);
    });

    test("shows a message that another participant sent with toOthers, and not the page's own", async (t) => {
      const { page, messages } = await openSubscribed(t);
      const own = await page.evaluate('echo.socketId()');
      const sdk = publisher(SERVER_PORT);
      await sdk.trigger('private-chat.1', 'message.sent', messageSent('own'), { socket_id: own });
      await sdk.trigger('private-chat.1', 'message.sent', messageSent("another's"), { socket_id: '1.1' });
      await messages.first().waitFor();
      assert.deepEqual(await messages.allInnerTexts(), [shown("another's")]);
    });

    test('says so when the user takes no part in the chat', async (t) => {
      const { page } = await open(t, { participant: false });
      await page.locator('#status', { hasText: /^Error \(See Console\)$/ }).waitFor();
      await screenshot(page, `test_chat-refused-${echo}`);
    });

    test('exchanges the frames that were recorded with Reverb', async (t) => {
      const { frames } = await open(t);
      const expected = [
        'connect ws://localhost:8080/app/my-app-key?protocol=7&client=js&version=8.0.1&flash=false',
        String.raw`< {"event":"pusher:connection_established","data":"{\"socket_id\":\"SOCKET_ID\",\"activity_timeout\":30}"}`,
        '> {"event":"pusher:subscribe","data":{"auth":"my-app-key:SIGNATURE","channel":"private-chat.1"}}',
        '< {"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"private-chat.1"}',
      ];
      for (const frame of expected) assert.equal(await frames.next(), frame);
      const data = messageSent('Hello from Postman!');
      await publisher(SERVER_PORT).trigger('private-chat.1', 'message.sent', data);
      const text = JSON.stringify(JSON.stringify(data));
      assert.equal(await frames.next(), `< {"event":"message.sent","data":${text},"channel":"private-chat.1"}`);
    });

    test('is back after a restart of the server, and shows the next message', async (t) => {
      const { messages, frames } = await openSubscribed(t);
      await server.stop();
      server = await startServer({ port: SERVER_PORT });
      await subscribed(frames);
      await publisher(SERVER_PORT).trigger('private-chat.1', 'message.sent', messageSent('after the restart'));
      await messages.first().waitFor();
      assert.deepEqual(await messages.allInnerTexts(), [shown('after the restart')]);
    });
  });
}

/** Connections and frames of a page, with placeholders for what differs each time. */
function watchFrames(page) {
  const frames = new Inbox('a frame of the page');
  const push = (direction) => ({ payload }) => {
    const text = payload.replace(/\d+\.\d+(?=\\")/, 'SOCKET_ID').replace(/:[0-9a-f]{64}(?=")/, ':SIGNATURE');
    frames.push(`${direction} ${text}`);
  };
  page.on('websocket', (socket) => {
    frames.push(`connect ${socket.url()}`);
    socket.on('framereceived', push('<'));
    socket.on('framesent', push('>'));
  });
  return frames;
}

async function subscribed(frames) {
  while (!(await frames.next()).includes('subscription_succeeded'));
}
