// laravel-echo on pusher-js 8 in Node: what an application's own code sees.

import assert from 'node:assert/strict';
import { publisher } from './support/app.mjs';
import { startAuthEndpoint } from './support/auth-endpoint.mjs';
import { listen, load, open as openEcho, VERSIONS } from './support/echo.mjs';
import { framesOf, reached } from './support/pusher-js.mjs';
import { startServer } from './support/server.mjs';
import { after, before, describe, test } from './support/test.mjs';
import { Inbox } from './support/wait.mjs';

let server;
let auth;
let misconfiguredAuth;

before(async () => {
  const channels = { participant: ['private-chat.1', 'private-chat.2'], stranger: [] };
  server = await startServer();
  auth = await startAuthEndpoint({ channels });
  misconfiguredAuth = await startAuthEndpoint({ channels, secret: 'of-another-application' });
});

after(async () => {
  await auth?.stop();
  await misconfiguredAuth?.stop();
  await server?.stop();
});

for (const { from, options } of VERSIONS) {
  describe(from, () => {
    let Echo;

    before(async () => {
      Echo = await load(from);
    });

    function open(t, { token = 'participant', endpoint = auth, port = server.port } = {}) {
      return openEcho(t, Echo, { port, auth: endpoint, token, ...options });
    }

    test('connects and knows its socket id', async (t) => {
      const echo = open(t);
      await reached(echo.connector.pusher, 'connected');
      assert.match(echo.socketId(), /^\d+\.\d+$/);
    });

    test('a participant receives what is published to a private channel', async (t) => {
      const messages = await listen(open(t).private('chat.1'));
      await publisher(server.port).trigger('private-chat.1', 'message.sent', { message: { content: 'Hello' } });
      assert.deepEqual(await messages.next(), { message: { content: 'Hello' } });
    });

    test('anybody receives what is published to a public channel', async (t) => {
      const messages = await listen(open(t, { token: 'unknown' }).channel('lobby'));
      await publisher(server.port).trigger('lobby', 'message.sent', { open: true });
      assert.deepEqual(await messages.next(), { open: true });
    });

    test('a channel that was left is silent', async (t) => {
      const echo = open(t);
      await listen(echo.private('chat.1'));
      const frames = framesOf(echo.connector.pusher, 'private-chat.1');
      echo.leave('chat.1');
      // Frames of one socket are handled in order: once the next subscription is
      // confirmed, the server has seen that the first channel was left.
      const stillHeard = await listen(echo.private('chat.2'));
      const sdk = publisher(server.port);
      await sdk.trigger('private-chat.1', 'message.sent', 'not for who left');
      await sdk.trigger('private-chat.2', 'message.sent', 'afterwards');
      assert.equal(await stillHeard.next(), 'afterwards');
      assert.deepEqual(frames.rest, []);
    });

    test('error() is called when the endpoint refuses a private channel', async (t) => {
      const errors = new Inbox('the call of error()');
      open(t, { token: 'stranger' }).private('chat.1').error(errors.push);
      const { type, status } = await errors.next();
      assert.deepEqual({ type, status }, { type: 'AuthError', status: 403 });
    });

    test('error() is called when the server refuses the signature', async (t) => {
      const errors = new Inbox('the call of error()');
      const echo = open(t, { endpoint: misconfiguredAuth });
      echo.private('chat.1').error(errors.push);
      const { type, status } = await errors.next();
      assert.deepEqual({ type, status }, { type: 'AuthError', status: 401 });
      assert.equal(echo.connector.pusher.connection.state, 'connected');
    });

    test('toOthers: an event sent with a socket id reaches all but that socket', async (t) => {
      const sender = open(t);
      const own = await listen(sender.private('chat.1'));
      const others = await listen(open(t).private('chat.1'));
      const sdk = publisher(server.port);
      await sdk.trigger('private-chat.1', 'message.sent', 'to others', { socket_id: sender.socketId() });
      await sdk.trigger('private-chat.1', 'message.sent', 'to all');
      assert.deepEqual([await others.next(), await others.next()], ['to others', 'to all']);
      assert.equal(await own.next(), 'to all');
    });

    test('a whisper reaches the other participants and not who whispers', async (t) => {
      const [ana, bob] = [open(t).private('chat.1'), open(t).private('chat.1')];
      const [toAna, toBob] = [new Inbox('a whisper to Ana'), new Inbox('a whisper to Bob')];
      await Promise.all([listen(ana), listen(bob)]);
      ana.listenForWhisper('typing', toAna.push);
      bob.listenForWhisper('typing', toBob.push);
      ana.whisper('typing', { name: 'Ana' });
      assert.deepEqual(await toBob.next(), { name: 'Ana' });
      // An echo to Ana would have come before the answer.
      bob.whisper('typing', { name: 'Bob' });
      assert.deepEqual(await toAna.next(), { name: 'Bob' });
      assert.deepEqual(toAna.rest, []);
    });

    test('after a restart of the server it reconnects, subscribes again and receives', async (t) => {
      let own = await startServer();
      t.after(() => own.stop());
      const subscriptions = new Inbox('a confirmed subscription');
      const channel = open(t, { port: own.port }).private('chat.1').subscribed(subscriptions.push);
      const messages = new Inbox('message.sent');
      channel.listen('.message.sent', messages.push);
      await subscriptions.next();
      await own.stop();
      own = await startServer({ port: own.port });
      await subscriptions.next();
      await publisher(own.port).trigger('private-chat.1', 'message.sent', 'I am back');
      assert.equal(await messages.next(), 'I am back');
    });
  });
}
