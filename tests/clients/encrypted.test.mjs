// End-to-end encrypted channels: the server passes on what it cannot read.

import assert from 'node:assert/strict';
import { publisher } from './support/app.mjs';
import { startAuthEndpoint } from './support/auth-endpoint.mjs';
import { inPackage, launch, openPage } from './support/browser.mjs';
import { listen, load, open, VERSIONS } from './support/echo.mjs';
import { address, connect, framesOf, signing, subscribe } from './support/pusher-js.mjs';
import { startServer } from './support/server.mjs';
import { after, before, describe, test } from './support/test.mjs';
import { Inbox } from './support/wait.mjs';

const SECRET = { content: 'Meet me at the old bridge · 日本語' };

let server;
let auth;
let browser;
let sdk;

before(async () => {
  server = await startServer();
  auth = await startAuthEndpoint({ channels: { participant: ['private-encrypted-chat.1'], stranger: [] } });
  browser = await launch();
  sdk = publisher(server.port);
});

after(async () => {
  await browser?.close();
  await auth?.stop();
  await server?.stop();
});

for (const { from, options } of VERSIONS) {
  describe(from, () => {
    let Echo;

    before(async () => {
      Echo = await load(from);
    });

    test('encryptedPrivate receives the message, of which the wire has only the ciphertext', async (t) => {
      const echo = open(t, Echo, { port: server.port, auth, token: 'participant', ...options });
      const frames = framesOf(echo.connector.pusher, 'private-encrypted-chat.1');
      const messages = await listen(echo.encryptedPrivate('chat.1'));
      await sdk.trigger('private-encrypted-chat.1', 'message.sent', SECRET);
      assert.deepEqual(await messages.next(), SECRET);
      await frames.next();
      encrypted(await frames.next());
    });

    test('error() is called when the endpoint refuses', async (t) => {
      const errors = new Inbox('the call of error()');
      const echo = open(t, Echo, { port: server.port, auth, token: 'stranger', ...options });
      echo.encryptedPrivate('chat.1').error(errors.push);
      const { type, status } = await errors.next();
      assert.deepEqual({ type, status }, { type: 'AuthError', status: 403 });
    });
  });
}

for (const from of ['pusher-js', 'pusher-js-8-0']) {
  describe(from, () => {
    let Pusher;

    before(async () => {
      ({ default: Pusher } = await import(from));
    });

    test('decrypts single events and those of a batch', async (t) => {
      const channel = await subscribe(connect(t, Pusher, server.port), 'private-encrypted-chat.1');
      const messages = new Inbox('a message');
      channel.bind('message.sent', messages.push);
      await sdk.trigger('private-encrypted-chat.1', 'message.sent', SECRET);
      await sdk.triggerBatch([
        { channel: 'private-encrypted-chat.1', name: 'message.sent', data: { n: 1 } },
        { channel: 'private-encrypted-chat.1', name: 'message.sent', data: 'x'.repeat(9 * 1024) },
      ]);
      assert.deepEqual(await messages.next(), SECRET);
      assert.deepEqual(await messages.next(), { n: 1 });
      assert.equal(await messages.next(), 'x'.repeat(9 * 1024));
    });

    test('decrypts the last event of a cache channel', async (t) => {
      const name = `private-encrypted-cache-${from}`;
      await sdk.trigger(name, 'message.sent', SECRET);
      const pusher = connect(t, Pusher, server.port);
      const frames = framesOf(pusher, name);
      const messages = new Inbox('the last message');
      pusher.subscribe(name).bind('message.sent', messages.push);
      assert.deepEqual(await messages.next(), SECRET);
      await frames.next();
      encrypted(await frames.next());
    });

    test('without a valid signature there is not even the ciphertext', async (t) => {
      const pusher = connect(t, Pusher, server.port, { channelAuthorization: signing('a wrong secret') });
      const errors = new Inbox('subscription_error');
      const frames = framesOf(pusher, 'private-encrypted-chat.1');
      pusher.subscribe('private-encrypted-chat.1').bind('pusher:subscription_error', errors.push);
      assert.equal((await errors.next()).status, 401);
      await frames.next();
      await sdk.trigger('private-encrypted-chat.1', 'message.sent', SECRET);
      await subscribe(pusher, 'lobby');
      assert.deepEqual(frames.rest, []);
    });

    // 'pusher-js/with-encryption' is a build for pages.
    test('its build for pages decrypts, under laravel-echo', async (t) => {
      const page = await openPage(t, browser);
      const wire = new Inbox('a frame of the page');
      page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => wire.push(payload)));
      await page.addScriptTag({ path: inPackage(from, 'web/pusher-with-encryption.min.js') });
      await page.addScriptTag({ path: inPackage('echo-2', 'echo.iife.js') });
      const settings = {
        ...address(server.port),
        broadcaster: 'reverb',
        key: 'my-app-key',
        authEndpoint: auth.url,
        auth: { headers: { Authorization: 'Bearer participant' } },
      };
      const messages = new Inbox('a message');
      await page.exposeFunction('received', messages.push);
      await page.evaluate((settings) => {
        const { default: Echo } = window.Echo;
        const channel = new Echo(settings).encryptedPrivate('chat.1').listen('.message.sent', window.received);
        return new Promise((resolve) => channel.subscribed(resolve));
      }, settings);
      await sdk.trigger('private-encrypted-chat.1', 'message.sent', SECRET);
      assert.deepEqual(await messages.next(), SECRET);
      const { event, data } = JSON.parse([await wire.next(), await wire.next(), await wire.next()][2]);
      encrypted({ event, data: JSON.parse(data) });
    });
  });
}

/** Of the message this frame has its name, and nothing of what it says. */
function encrypted(frame) {
  assert.equal(frame.event, 'message.sent');
  assert.deepEqual(Object.keys(frame.data).sort(), ['ciphertext', 'nonce']);
  assert.doesNotMatch(JSON.stringify(frame), /content|bridge/);
}
