// What receivers are told, and that those of Pusher's SDKs take it.

import assert from 'node:assert/strict';
import { request } from 'node:http';
import Pusher from 'pusher-js';
import { APP, sdk, signature } from './support/app.mjs';
import { Client, join } from './support/client.mjs';
import { certificate } from './support/certificate.mjs';
import { startReceiver } from './support/receiver.mjs';
import { SDKS } from './support/sdk-receivers.mjs';
import { ALL_EVENTS, settingsFile, startServer } from './support/server.mjs';
import { test } from './support/test.mjs';
import { eventually, within } from './support/wait.mjs';

/** Settings with which nothing is waited for longer than a test needs. */
const HASTY = { RESOUND_WEBHOOK_BATCH_MS: '20', RESOUND_WEBHOOK_SMOOTHING_MS: '200' };

/** Sends a receiver a request. Its status. */
async function post(url, body, { key = APP.key, secret = APP.secret } = {}) {
  const headers = {
    'Content-Type': 'application/json',
    'X-Pusher-Key': key,
    'X-Pusher-Signature': signature(body, secret),
  };
  // fetch() would write their names in small letters, which is not how Pusher does.
  const answer = new Promise((resolve, reject) => {
    request(url, { method: 'POST', headers, agent: false }, (response) => {
      response.resume();
      response.once('end', () => resolve(response.statusCode));
    })
      .once('error', reject)
      .end(body);
  });
  return within(`the answer of ${url}`, answer);
}

for (const [name, start] of Object.entries(SDKS)) {
  test(`the SDK for ${name} refuses what was forged`, async (t) => {
    const receiver = await start(t);
    const event = { name: 'channel_occupied', channel: 'news', id: 'made-by-hand' };
    const body = (events) => JSON.stringify({ time_ms: Date.now(), events });
    const signed = body([event]);
    assert.equal(await post(receiver.url, signed), 200);
    await eventually(() => assert.deepEqual(receiver.events, [event]));
    assert.equal(await post(receiver.url, signed, { secret: 'another' }), 401);
    assert.equal(await post(receiver.url, signed, { key: 'another' }), 401);
    const forged = post(receiver.url, body([{ ...event, channel: 'other' }]), { secret: `${APP.secret} ` });
    assert.equal(await forged, 401);
    assert.equal(await post(receiver.url, body([])), 200);
    assert.deepEqual(receiver.events, [event]);
  });

  test(`the SDK for ${name} takes events of all kinds`, async (t) => {
    const receiver = await start(t);
    const env = { ...HASTY, RESOUND_WEBHOOK_EVENTS: ALL_EVENTS, RESOUND_SUBSCRIPTION_COUNT: 'true' };
    const { port } = await startServer(t, { receiver, env });
    const client = await join(t, port, 'presence-room', 'ana');
    await client.subscribe('lobby');
    await client.subscribe('cache-news');
    // Signed is what is sent, byte for byte.
    const data = 'e\u0301 日本 "\u2028" \\ / 😀 </script>';
    client.send('client-typing', data, 'presence-room');
    client.send('pusher:subscribe', { channel: 'private-secret', auth: `${APP.key}:wrong` });
    await client.close();
    const kinds = () => [...new Set(receiver.events.map((event) => event.name))].sort();
    await eventually(() => assert.deepEqual(kinds(), ALL_EVENTS.split(',').sort()));
    assert.equal(receiver.events.find((event) => event.name === 'client_event').data, data);
  });
}

test('a receiver may speak TLS, with a certificate that is trusted', async (t) => {
  const tls = certificate(t, 'localhost');
  const receiver = await startReceiver(t, { tls });
  const env = { ...HASTY, SSL_CERT_FILE: tls.path };
  const { port } = await startServer(t, { receiver, env });
  const client = await join(t, port, 'presence-room', 'ana');
  await eventually(() => assert.deepEqual(receiver.namesOf('presence-room', 'ana'), ['member_added']));
  await client.close();
  await eventually(() => assert.deepEqual(receiver.namesOf('presence-room', 'ana'), ['member_added', 'member_removed']));
});

for (const [what, isTrusted, name] of [
  ['that nobody trusts', false, 'localhost'],
  ['of another host', true, 'example.com'],
]) {
  test(`a receiver with a certificate ${what} is told nothing`, async (t) => {
    const tls = certificate(t, name);
    const receiver = await startReceiver(t, { tls });
    const trusted = isTrusted ? tls : certificate(t, 'localhost');
    const env = { ...HASTY, SSL_CERT_FILE: trusted.path };
    const server = await startServer(t, { receiver, env });
    await join(t, server.port, 'presence-room', 'ana');
    await server.tail().said(/failed .*no TLS with localhost/);
    assert.equal(receiver.requests.length, 0);
  });
}

test('each kind of event has its fields', async (t) => {
  const receiver = await startReceiver(t);
  const env = { ...HASTY, RESOUND_WEBHOOK_EVENTS: ALL_EVENTS, RESOUND_SUBSCRIPTION_COUNT: 'true' };
  const { port } = await startServer(t, { receiver, env });
  /** The fields of the first event like this one, but for its id. */
  const told = (like) =>
    eventually(() => {
      const isLike = (event) => Object.entries(like).every(([name, value]) => event[name] === value);
      const found = receiver.events.find(isLike);
      assert.ok(found, `${JSON.stringify(like)} is not among ${JSON.stringify(receiver.events)}`);
      const { id, ...fields } = found;
      return fields;
    });

  const ana = await Client.connect(t, port);
  const { socketId } = ana;
  const established = { name: 'connection_established', channel: '', socket_id: socketId };
  assert.deepEqual(await told(established), established);

  // A number in the channel data, and a text in what is told, as Pusher has it.
  const channel = 'presence-room';
  await ana.subscribe(channel, 7);
  const occupied = { name: 'channel_occupied', channel };
  assert.deepEqual(await told(occupied), occupied);
  const added = { name: 'member_added', channel, user_id: '7' };
  assert.deepEqual(await told(added), added);

  const typing = { name: 'client_event', channel, event: 'client-typing', data: 'hello', socket_id: socketId, user_id: '7' };
  ana.send('client-typing', 'hello', channel);
  assert.deepEqual(await told({ event: 'client-typing' }), typing);
  ana.send('client-moved', { to: [1, 'two'] }, channel);
  const moved = await told({ event: 'client-moved' });
  assert.deepEqual(JSON.parse(moved.data), { to: [1, 'two'] });
  assert.deepEqual({ ...moved, data: '' }, { ...typing, event: 'client-moved', data: '' });
  await ana.subscribe('private-room');
  ana.send('client-alone', 'hello', 'private-room');
  const alone = { name: 'client_event', channel: 'private-room', event: 'client-alone', data: 'hello', socket_id: socketId };
  assert.deepEqual(await told({ event: 'client-alone' }), alone);

  await ana.subscribe('cache-news');
  const miss = { name: 'cache_miss', channel: 'cache-news' };
  assert.deepEqual(await told(miss), miss);

  await ana.subscribe('lobby');
  const ben = await Client.connect(t, port);
  await ben.subscribe('lobby');
  const count = { name: 'subscription_count', channel: 'lobby', subscription_count: 2 };
  assert.deepEqual(await told(count), count);

  ben.send('pusher:subscribe', { channel: 'private-secret', auth: `${APP.key}:wrong` });
  const { reason, ...refused } = await told({ name: 'subscription_refused' });
  assert.deepEqual(refused, { name: 'subscription_refused', channel: 'private-secret', socket_id: ben.socketId });
  assert.match(reason, /\w/);

  // The one is closed by the server, for it has sent too much; the other closes itself.
  ben.send('client-large', 'x'.repeat(20_000), 'lobby');
  const byServer = await told({ name: 'connection_closed', socket_id: ben.socketId });
  assert.deepEqual(Object.keys(byServer).sort(), ['channel', 'code', 'name', 'reason', 'seconds', 'socket_id']);
  assert.deepEqual([byServer.channel, byServer.code], ['', 1009]);
  await ana.close();
  const byClient = await told({ name: 'connection_closed', socket_id: socketId });
  assert.equal(byClient.channel, '');
  for (const { reason, seconds } of [byServer, byClient]) {
    assert.match(reason, /\w/);
    assert.ok(Number.isInteger(seconds) && seconds >= 0 && seconds < 300, `seconds: ${seconds}`);
  }
  const removed = { name: 'member_removed', channel, user_id: '7' };
  assert.deepEqual(await told(removed), removed);
  const vacated = { name: 'channel_vacated', channel };
  assert.deepEqual(await told(vacated), vacated);

  assert.equal(receiver.forged, 0);
  for (const { method, target, headers, headerNames, id, timeMs, events } of receiver.requests) {
    assert.deepEqual([method, target], ['POST', '/webhooks?from=resound']);
    assert.equal(headers['content-type'], 'application/json');
    assert.equal(headers['x-pusher-key'], APP.key);
    // PHP's SDK looks for them by these names, and PHP has them as they were sent.
    for (const name of ['X-Pusher-Key', 'X-Pusher-Signature']) assert.ok(headerNames.includes(name), headerNames.join());
    assert.match(id, /^\S+$/);
    assert.ok(Math.abs(Date.now() - timeMs) < 300_000, `time_ms: ${timeMs}`);
    for (const event of events) {
      assert.equal(typeof event.channel, 'string', JSON.stringify(event));
      assert.match(event.id, /\w/, JSON.stringify(event));
    }
  }
  const distinct = (ids, what) => assert.equal(new Set(ids).size, ids.length, `${what} are told apart by their ids`);
  distinct(receiver.requests.flatMap(({ events }) => events.map(({ id }) => id)), 'events');
  distinct(receiver.requests.map(({ id }) => id), 'requests');
});

test('each webhook of an application has its events, channels and headers', async (t) => {
  const [members, orders, news] = await Promise.all([startReceiver(t), startReceiver(t), startReceiver(t)]);
  const file = settingsFile([
    { url: members.url, events: ['member_added', 'member_removed'], channels: ['presence-*'], headers: { 'X-Team': 'chat', Authorization: 'Bearer it is me' } },
    { url: orders.url, channels: ['*-orders'] },
    { url: news.url, events: ['channel_occupied', 'client_event'], channels: ['news', 'private-news'] },
  ]);
  const { port } = await startServer(t, { file, env: HASTY });
  const client = await Client.connect(t, port);
  for (const channel of ['news', 'news-2', 'my-news', 'eu-orders', 'orders', 'private-news']) await client.subscribe(channel);
  client.send('client-a', 'hello', 'private-news');
  await client.subscribe('presence-orders', 'ana');
  await client.subscribe('presence-room', 'ana');
  await client.close();

  const names = (receiver) => {
    const isLater = ({ channel, user_id: user }) => channel === 'presence-later-orders' || user === 'ben';
    return receiver.events.filter((event) => !isLater(event)).map(({ name, channel }) => `${name} ${channel}`).sort();
  };
  const of = (channel, ...names) => names.map((name) => `${name} ${channel}`);
  const expected = new Map([
    [members, [...of('presence-orders', 'member_added', 'member_removed'), ...of('presence-room', 'member_added', 'member_removed')]],
    [orders, [
      ...of('eu-orders', 'channel_occupied', 'channel_vacated'),
      ...of('presence-orders', 'channel_occupied', 'channel_vacated', 'member_added', 'member_removed'),
    ]],
    [news, [...of('news', 'channel_occupied'), ...of('private-news', 'channel_occupied', 'client_event')]],
  ]);
  for (const [receiver, all] of expected) await eventually(() => assert.deepEqual(names(receiver), all.sort()));
  for (const { headers } of members.requests) {
    assert.deepEqual([headers['x-team'], headers.authorization], ['chat', 'Bearer it is me']);
  }
  for (const { headers } of orders.requests) assert.equal(headers['x-team'], undefined);
  for (const [receiver] of expected) assert.equal(receiver.forged, 0);

  // What somebody was told too much would have come before this.
  const later = await join(t, port, 'presence-later-orders', 'ben');
  await later.subscribe('presence-room', 'ben');
  for (const receiver of [members, orders]) {
    await eventually(() => assert.deepEqual(receiver.namesOf('presence-later-orders', 'ben'), ['member_added']));
  }
  for (const [receiver, all] of expected) assert.deepEqual(names(receiver), all.sort());
});

test('nothing but occupancy and members is told unless it is asked for, in the channels of a list', async (t) => {
  const receiver = await startReceiver(t);
  const env = { ...HASTY, RESOUND_WEBHOOK_CHANNELS: 'presence-*, *-orders,news', RESOUND_SUBSCRIPTION_COUNT: 'true' };
  const { port } = await startServer(t, { receiver, env });
  const client = await Client.connect(t, port);
  for (const channel of ['news', 'old-news', 'cache-orders', 'orders']) await client.subscribe(channel);
  await client.subscribe('presence-room', 'ana');
  client.send('client-typing', 'hello', 'presence-room');
  await client.close();
  const expected = [
    'channel_occupied cache-orders',
    'channel_occupied news',
    'channel_occupied presence-room',
    'channel_vacated cache-orders',
    'channel_vacated news',
    'channel_vacated presence-room',
    'member_added presence-room',
    'member_removed presence-room',
  ];
  await eventually(() => assert.deepEqual(receiver.events.map(({ name, channel }) => `${name} ${channel}`).sort(), expected));
});

/** A page: pusher-js in a presence channel. */
async function open(t, port, channel, user) {
  const pusher = new Pusher(APP.key, {
    cluster: '',
    wsHost: '127.0.0.1',
    wsPort: port,
    forceTLS: false,
    enabledTransports: ['ws'],
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) => done(null, sdk.authorizeChannel(socketId, channelName, { user_id: user })),
    },
  });
  t.after(() => pusher.disconnect());
  const subscription = pusher.subscribe(channel);
  await within(`${user} to be in ${channel}`, new Promise((resolve) => subscription.bind('pusher:subscription_succeeded', resolve)));
  return pusher;
}

test('a page that is loaded anew causes neither event', async (t) => {
  const receiver = await startReceiver(t);
  const env = { RESOUND_WEBHOOK_BATCH_MS: '20', RESOUND_WEBHOOK_SMOOTHING_MS: '3000' };
  const { port } = await startServer(t, { receiver, env });
  const watcher = await join(t, port, 'presence-room', 'cleo');
  const isGone = async () => {
    const { data } = await watcher.frame('pusher_internal:member_removed', 'presence-room');
    assert.equal(JSON.parse(data).user_id, 'ana');
  };
  const page = await open(t, port, 'presence-room', 'ana');
  await eventually(() => assert.deepEqual(receiver.namesOf('presence-room', 'ana'), ['member_added']));
  page.disconnect();
  await isGone();
  const again = await open(t, port, 'presence-room', 'ana');
  again.unsubscribe('presence-room');
  await isGone();
  await open(t, port, 'presence-room', 'ana');
  // Whoever leaves after her is told to have gone after she would have been.
  const ben = await join(t, port, 'presence-room', 'ben');
  await ben.close();
  await eventually(() => assert.deepEqual(receiver.namesOf('presence-room', 'ben'), ['member_added', 'member_removed']));
  assert.deepEqual(receiver.namesOf('presence-room', 'ana'), ['member_added']);
  assert.deepEqual(receiver.namesOf('presence-room'), ['channel_occupied']);
});

test('a channel that is left and entered at once was never vacated', async (t) => {
  const receiver = await startReceiver(t);
  const env = { RESOUND_WEBHOOK_BATCH_MS: '20', RESOUND_WEBHOOK_SMOOTHING_MS: '3000' };
  const { port } = await startServer(t, { receiver, env });
  const client = await Client.connect(t, port);
  await client.subscribe('news');
  await client.subscribe('sports');
  client.unsubscribe('news');
  await client.subscribe('news');
  client.unsubscribe('sports');
  await eventually(() => assert.deepEqual(receiver.namesOf('sports'), ['channel_occupied', 'channel_vacated']));
  assert.deepEqual(receiver.namesOf('news'), ['channel_occupied']);
});

test('who comes back later than that has left', async (t) => {
  const receiver = await startReceiver(t);
  const { port } = await startServer(t, { receiver, env: HASTY });
  const told = ['member_added', 'member_removed', 'member_added', 'member_removed'];
  for (const count of [2, 4]) {
    const client = await join(t, port, 'presence-room', 'ana');
    await client.close();
    await eventually(() => assert.deepEqual(receiver.namesOf('presence-room', 'ana'), told.slice(0, count)));
  }
  const ofChannel = ['channel_occupied', 'channel_vacated', 'channel_occupied', 'channel_vacated'];
  await eventually(() => assert.deepEqual(receiver.namesOf('presence-room'), ofChannel));
});

test('a user with several connections comes with the first and leaves with the last', async (t) => {
  const receiver = await startReceiver(t);
  const { port } = await startServer(t, { receiver, env: HASTY });
  const ana = [];
  for (let count = 0; count < 3; count += 1) ana.push(await join(t, port, 'presence-room', 'ana'));
  await ana.pop().close();
  ana.pop().unsubscribe('presence-room');
  const ben = await join(t, port, 'presence-room', 'ben');
  await ben.close();
  await eventually(() => assert.deepEqual(receiver.namesOf('presence-room', 'ben'), ['member_added', 'member_removed']));
  assert.deepEqual(receiver.namesOf('presence-room', 'ana'), ['member_added']);
  await ana.pop().close();
  await eventually(() => assert.deepEqual(receiver.namesOf('presence-room', 'ana'), ['member_added', 'member_removed']));
  await eventually(() => assert.deepEqual(receiver.namesOf('presence-room'), ['channel_occupied', 'channel_vacated']));
});
