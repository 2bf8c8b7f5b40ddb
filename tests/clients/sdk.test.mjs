// Pusher's server SDK for Node as the publisher, pusher-js as the witness.

import assert from 'node:assert/strict';
import Pusher from 'pusher-js';
import { publisher } from './support/app.mjs';
import { connect, framesOf, subscribe } from './support/pusher-js.mjs';
import { startServer } from './support/server.mjs';
import { after, before, test } from './support/test.mjs';

/** Bytes of an event's data that the server takes, unless its settings say otherwise. */
const MAX_EVENT_SIZE = 102400;

let server;
let sdk;

before(async () => {
  server = await startServer();
  sdk = publisher(server.port);
});

after(() => server?.stop());

/** The frames of a channel, seen by a client of its own. */
async function witness(t, channel) {
  const pusher = connect(t, Pusher, server.port);
  await subscribe(pusher, channel);
  return { frames: framesOf(pusher, channel), socketId: pusher.connection.socket_id };
}

test('trigger delivers name, data and channel', async (t) => {
  const { frames } = await witness(t, 'private-chat.1');
  const response = await sdk.trigger('private-chat.1', 'message.sent', { content: 'Hello' });
  assert.deepEqual([response.status, await response.json()], [200, {}]);
  const { event, data, channel } = await frames.next();
  assert.deepEqual({ event, data, channel }, { event: 'message.sent', data: { content: 'Hello' }, channel: 'private-chat.1' });
});

test('trigger delivers to each of several channels', async (t) => {
  const witnesses = await Promise.all(['chat.1', 'chat.2', 'chat.3'].map((name) => witness(t, name)));
  await sdk.trigger(['chat.1', 'chat.2', 'chat.3'], 'message.sent', { to: 'all three' });
  for (const { frames } of witnesses) assert.deepEqual((await frames.next()).data, { to: 'all three' });
});

test('triggerBatch delivers every event of the batch, in its order', async (t) => {
  const { frames } = await witness(t, 'chat.1');
  const { frames: other } = await witness(t, 'chat.2');
  await sdk.triggerBatch([
    { channel: 'chat.1', name: 'first', data: { n: 1 } },
    { channel: 'chat.2', name: 'second', data: { n: 2 } },
    { channel: 'chat.1', name: 'third', data: { n: 3 } },
  ]);
  const seen = [await frames.next(), await frames.next(), await other.next()];
  assert.deepEqual(seen.map(({ event, data }) => [event, data.n]), [['first', 1], ['third', 3], ['second', 2]]);
});

test('socket_id keeps an event from that socket, alone and in a batch', async (t) => {
  const { frames: own, socketId } = await witness(t, 'chat.1');
  const { frames: others } = await witness(t, 'chat.1');
  await sdk.trigger('chat.1', 'alone', {}, { socket_id: socketId });
  await sdk.triggerBatch([{ channel: 'chat.1', name: 'in a batch', data: {}, socket_id: socketId }]);
  await sdk.trigger('chat.1', 'to all', {});
  const seen = [await others.next(), await others.next(), await others.next()];
  assert.deepEqual(seen.map(({ event }) => event), ['alone', 'in a batch', 'to all']);
  assert.equal((await own.next()).event, 'to all');
});

test('a signature of authorizeChannel is accepted', async (t) => {
  const customHandler = ({ socketId, channelName }, done) => done(null, sdk.authorizeChannel(socketId, channelName));
  const pusher = connect(t, Pusher, server.port, { channelAuthorization: { customHandler } });
  await subscribe(pusher, 'private-chat.1');
});

test('text in any script arrives unchanged', async (t) => {
  const { frames } = await witness(t, 'chat.1');
  const content = 'Ñandú · 日本語 · שלום · 👩‍👩‍👧 · \u0000\u2028 · "\\/<>&\n';
  await sdk.trigger('chat.1', 'message.sent', { content });
  assert.equal((await frames.next()).data.content, content);
});

for (const size of [9 * 1024, MAX_EVENT_SIZE]) {
  test(`an event of ${size} bytes arrives whole`, async (t) => {
    const { frames } = await witness(t, 'chat.1');
    await sdk.trigger('chat.1', 'message.sent', 'x'.repeat(size));
    assert.equal((await frames.next()).data, 'x'.repeat(size));
  });
}

test('a larger event is refused with 413', async () => {
  await refused(sdk.trigger('chat.1', 'message.sent', 'x'.repeat(MAX_EVENT_SIZE + 1)), 413, /^Payload too large\./);
});

test('a wrong secret is refused with 401', async () => {
  const stranger = publisher(server.port, { secret: 'wrong' });
  await refused(stranger.trigger('chat.1', 'message.sent', {}), 401, /^Authentication signature invalid\./);
});

test('an unknown application is refused with 404', async () => {
  const stranger = publisher(server.port, { id: 'nobody' });
  await refused(stranger.trigger('chat.1', 'message.sent', {}), 404, /^No matching application for ID \[nobody\]\.$/);
});

function refused(request, status, body) {
  return assert.rejects(request, (error) => {
    assert.equal(error.status, status);
    assert.match(error.body, body);
    return true;
  });
}
