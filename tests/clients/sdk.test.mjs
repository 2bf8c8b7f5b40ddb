// Pusher's server SDK for Node as the publisher, pusher-js as the witness.

import assert from 'node:assert/strict';
import Pusher from 'pusher-js';
import { publisher } from './support/app.mjs';
import { connect, framesOf, reached, signIn, subscribe } from './support/pusher-js.mjs';
import { startServer } from './support/server.mjs';
import { after, before, beforeEach, test } from './support/test.mjs';
import { Inbox } from './support/wait.mjs';

/** Bytes of an event's data that the server takes, unless its settings say otherwise. */
const MAX_EVENT_SIZE = 102400;

const ANA = { id: '1', info: { name: 'Ana' } };
const BOB = { id: '2', info: { name: 'Bob' } };

let server;
let sdk;

// Of the names with this prefix nobody of the test before is still a subscriber.
let prefix;
let count = 0;

beforeEach(() => {
  count += 1;
  prefix = `test-${count}`;
});

before(async () => {
  server = await startServer();
  sdk = publisher(server.port);
});

after(() => server?.stop());

/** The frames of a channel, seen by a client of its own. */
async function witness(t, channel) {
  const pusher = connect(t, Pusher, server.port);
  await subscribe(pusher, channel);
  return { pusher, frames: framesOf(pusher, channel), socketId: pusher.connection.socket_id };
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

test('what authorizeChannel and authenticateUser sign is accepted', async (t) => {
  const authorize = ({ socketId, channelName }, done) => {
    const data = channelName.startsWith('presence-') ? { user_id: ANA.id, user_info: ANA.info } : undefined;
    done(null, sdk.authorizeChannel(socketId, channelName, data));
  };
  const authenticate = ({ socketId }, done) => done(null, sdk.authenticateUser(socketId, { id: ANA.id }));
  const pusher = connect(t, Pusher, server.port, {
    channelAuthorization: { customHandler: authorize },
    userAuthentication: { customHandler: authenticate },
  });
  await subscribe(pusher, 'private-chat.1');
  await subscribe(pusher, 'private-encrypted-chat.1');
  const { members } = await subscribe(pusher, `presence-${prefix}`);
  assert.deepEqual(members.me, ANA);
  await signIn(pusher);
  assert.deepEqual(pusher.user.user_data, { id: ANA.id });
});

test('sendToUser reaches the user', async (t) => {
  const pusher = connect(t, Pusher, server.port, { user: ANA });
  const events = new Inbox('an event for the user');
  pusher.user.bind('message.sent', events.push);
  await signIn(pusher);
  const response = await sdk.sendToUser(ANA.id, 'message.sent', { content: 'Hello' });
  assert.deepEqual([response.status, await response.json()], [200, {}]);
  assert.deepEqual(await events.next(), { content: 'Hello' });
});

test('terminateUserConnections ends the connections of the user', async (t) => {
  const [pusher, other] = [ANA, BOB].map((user) => connect(t, Pusher, server.port, { user }));
  await Promise.all([signIn(pusher), signIn(other)]);
  const response = await sdk.terminateUserConnections(ANA.id);
  assert.deepEqual([response.status, await response.json()], [200, {}]);
  await reached(pusher, 'disconnected');
  assert.equal(other.connection.state, 'connected');
});

test('an event on an encrypted channel arrives as the SDK encrypted it', async (t) => {
  const { frames, pusher } = await witness(t, 'private-encrypted-chat.1');
  const messages = new Inbox('a decrypted event');
  pusher.channel('private-encrypted-chat.1').bind('message.sent', messages.push);
  await sdk.trigger('private-encrypted-chat.1', 'message.sent', { content: 'Hello' });
  assert.deepEqual(Object.keys((await frames.next()).data).sort(), ['ciphertext', 'nonce']);
  assert.deepEqual(await messages.next(), { content: 'Hello' });
});

/** Ana twice and Bob once in a presence channel, one of them in a public one, too. */
async function populate(t) {
  const [publicName, presence, empty] = [prefix, `presence-${prefix}`, `${prefix}-empty`];
  for (const user of [ANA, ANA, BOB]) {
    const pusher = connect(t, Pusher, server.port, { user });
    await subscribe(pusher, presence);
    if (user === BOB) await subscribe(pusher, publicName);
  }
  return { publicName, presence, empty };
}

async function get(path, params) {
  return (await sdk.get({ path, params })).json();
}

test('trigger tells what info asks of the channels', async (t) => {
  const { publicName, presence, empty } = await populate(t);
  const info = 'user_count,subscription_count';
  const response = await sdk.trigger([publicName, presence, empty], 'message.sent', {}, { info });
  assert.deepEqual(await response.json(), {
    channels: { [publicName]: { subscription_count: 1 }, [presence]: { user_count: 2 }, [empty]: {} },
  });
});

test('triggerBatch tells what info asks, event by event', async (t) => {
  const { publicName, presence } = await populate(t);
  const response = await sdk.triggerBatch([
    { channel: presence, name: 'message.sent', data: {}, info: 'user_count' },
    { channel: publicName, name: 'message.sent', data: {} },
    { channel: publicName, name: 'message.sent', data: {}, info: 'subscription_count' },
  ]);
  assert.deepEqual(await response.json(), { batch: [{ user_count: 2 }, {}, { subscription_count: 1 }] });
});

test('GET /channels lists those that are occupied, by prefix and with counts', async (t) => {
  const { publicName, presence } = await populate(t);
  const { channels } = await get('/channels');
  assert.deepEqual([channels[publicName], channels[presence]], [{}, {}]);
  for (const [params, expected] of [
    [{ filter_by_prefix: presence, info: 'user_count' }, { [presence]: { user_count: 2 } }],
    [{ filter_by_prefix: publicName, info: 'subscription_count' }, { [publicName]: { subscription_count: 1 } }],
    [{ filter_by_prefix: 'nobody' }, {}],
  ]) {
    assert.deepEqual(await get('/channels', params), { channels: expected });
  }
});

test('GET /channels/{name} tells whether it is occupied, and what info asks', async (t) => {
  const { publicName, presence, empty } = await populate(t);
  const info = 'user_count,subscription_count';
  for (const [name, params, expected] of [
    [publicName, undefined, { occupied: true }],
    [publicName, { info }, { occupied: true, subscription_count: 1 }],
    [presence, { info }, { occupied: true, user_count: 2 }],
    [empty, { info }, { occupied: false }],
  ]) {
    assert.deepEqual(await get(`/channels/${name}`, params), expected, name);
  }
});

test('GET /channels/{name} tells the last event of a cache channel', async () => {
  const name = `cache-${prefix}`;
  await sdk.trigger(name, 'message.sent', { content: 'Hello' }, { info: 'cache' });
  const { occupied, cache } = await get(`/channels/${name}`, { info: 'cache' });
  assert.deepEqual([occupied, cache.data], [false, '{"content":"Hello"}']);
  assert.ok(cache.ttl > 1700 && cache.ttl <= 1800, `ttl ${cache.ttl}`);
});

test('GET /channels/{name}/users tells each user of a presence channel once', async (t) => {
  const { publicName, presence } = await populate(t);
  const { users } = await get(`/channels/${presence}/users`);
  assert.deepEqual(users.map(({ id }) => id).sort(), [ANA.id, BOB.id]);
  await refused(get(`/channels/${publicName}/users`), 400);
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

function refused(request, status, body = /./) {
  return assert.rejects(request, (error) => {
    assert.equal(error.status, status);
    assert.match(error.body, body);
    return true;
  });
}
