// Receivers that fail, in all ways that they can, and servers that stop.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  after,
  breaksOff,
  breaksOffBody,
  closes,
  dribbles,
  endlessBody,
  endlessHead,
  garbage,
  hangs,
  hangsInBody,
  redirect,
  status,
  taken,
} from './support/answers.mjs';
import { Client, join } from './support/client.mjs';
import { freePort } from './support/program.mjs';
import { startReceiver } from './support/receiver.mjs';
import { settingsFile, startServer } from './support/server.mjs';
import { test } from './support/test.mjs';
import { eventually } from './support/wait.mjs';

const HASTY = {
  RESOUND_WEBHOOK_BATCH_MS: '20',
  RESOUND_WEBHOOK_SMOOTHING_MS: '200',
  RESOUND_WEBHOOK_TIMEOUT: '1',
};

/** A name that has no address, on any network. */
const NOWHERE = 'http://nothing.invalid/';

/** Waits until a receiver has taken just this of a user. */
const toldOf = (receiver, user, ...names) =>
  eventually(() => assert.deepEqual(receiver.namesOf('presence-room', user), names));

/** What is said again is the same: its id and its body, byte for byte. */
function assertSame(tries) {
  const [{ id, body }] = tries;
  for (const again of tries) assert.deepEqual([again.id, again.body], [id, body]);
}

/** The tries of what a receiver was asked first. */
const firstTries = ({ requests }) => requests.filter(({ id }) => id === requests[0]?.id);

test('whatever a receiver does, it is told in the end, and another one meanwhile', async (t) => {
  const elsewhere = await startReceiver(t);
  const faults = {
    hangs,
    'answers 500': status(500),
    'answers 404': status(404),
    redirects: redirect(elsewhere.url),
    'redirects with its method': status(308, { Location: elsewhere.url }),
    'speaks no HTTP': garbage,
    'closes without an answer': closes,
    'breaks off': breaksOff,
    'sends headers without end': endlessHead,
    'sends headers now and then': dribbles,
  };
  const failing = {};
  for (const [what, answer] of Object.entries(faults)) failing[what] = await startReceiver(t, { answer });
  const sound = await startReceiver(t);
  const closed = `http://127.0.0.1:${await freePort()}/`;
  const urls = [closed, NOWHERE, ...Object.values(failing).map(({ url }) => url), sound.url];
  const server = await startServer(t, { file: settingsFile(urls.map((url) => ({ url }))), env: HASTY });
  const tail = server.tail('--json');

  const ana = await join(t, server.port, 'presence-room', 'ana');
  await toldOf(sound, 'ana', 'member_added');
  await ana.close();
  await toldOf(sound, 'ana', 'member_added', 'member_removed');
  await eventually(() => assert.deepEqual(sound.namesOf('presence-room'), ['channel_occupied', 'channel_vacated']));
  for (const [what, receiver] of Object.entries(failing)) {
    await eventually(() => assert.ok(firstTries(receiver).length >= 2, `who ${what} is asked again`));
    assert.deepEqual(receiver.events, [], what);
  }

  for (const receiver of Object.values(failing)) receiver.answer = taken;
  for (const [what, receiver] of Object.entries(failing)) {
    await toldOf(receiver, 'ana', 'member_added', 'member_removed');
    assert.deepEqual(receiver.namesOf('presence-room'), ['channel_occupied', 'channel_vacated'], what);
    assertSame(firstTries(receiver));
    assert.equal(receiver.forged, 0, what);
  }
  assert.deepEqual(elsewhere.requests, [], 'redirects are not followed');

  // Those that cannot be reached go on failing, and nobody suffers from it.
  const deliveries = () => tail.lines.map((line) => JSON.parse(line));
  const outcomes = (url) => new Set(deliveries().filter((it) => url.startsWith(it.url)).map(({ outcome }) => outcome));
  for (const url of [closed, NOWHERE]) await eventually(() => assert.deepEqual([...outcomes(url)], ['failed'], url));
  await eventually(() => assert.deepEqual([...outcomes(sound.url)], ['delivered']));
  await join(t, server.port, 'presence-room', 'ben');
  for (const receiver of [sound, ...Object.values(failing)]) await toldOf(receiver, 'ben', 'member_added');
});

test('a receiver that hangs delays no other one', async (t) => {
  const hanging = await startReceiver(t, { answer: hangs });
  const sound = await startReceiver(t);
  const file = settingsFile([{ url: hanging.url }, { url: sound.url }, { url: hanging.url.replace('?', '/2?') }]);
  // Whoever waited for it would wait for longer than this test.
  const { port } = await startServer(t, { file, env: { ...HASTY, RESOUND_WEBHOOK_TIMEOUT: '120' } });
  for (const user of ['ana', 'ben', 'cleo', 'dan', 'eve']) {
    await join(t, port, 'presence-room', user);
    await toldOf(sound, user, 'member_added');
  }
  await eventually(() => assert.ok(hanging.waiting.length >= 2, 'both webhooks wait for the one that hangs'));
});

const TAKING = {
  'an answer without end': endlessBody,
  'an answer whose body does not come': hangsInBody,
  'an answer whose body breaks off': breaksOffBody,
  'an answer without a body': { ...status(204), takes: true },
};

for (const [what, answer] of Object.entries(TAKING)) {
  test(`of ${what} the status counts`, async (t) => {
    const receiver = await startReceiver(t, { answer });
    const { port } = await startServer(t, { receiver, env: HASTY });
    await join(t, port, 'presence-room', 'ana');
    await toldOf(receiver, 'ana', 'member_added');
    // Told in order: what was said before is not said any more.
    await join(t, port, 'presence-room', 'ben');
    await toldOf(receiver, 'ben', 'member_added');
    const ids = receiver.requests.map(({ id }) => id);
    assert.equal(new Set(ids).size, ids.length, 'nothing is told twice');
  });
}

test('a receiver that was away is told what happened meanwhile', async (t) => {
  const receiver = await startReceiver(t, { answer: status(503) });
  const { port } = await startServer(t, { receiver, env: HASTY });
  const ana = await join(t, port, 'presence-room', 'ana');
  await eventually(() => assert.ok(receiver.requests.length > 0, 'it is asked'));
  await receiver.stop();
  await join(t, port, 'presence-room', 'ben');
  await ana.close();
  await sleep(3000);
  receiver.answer = taken;
  await receiver.start();
  await toldOf(receiver, 'ana', 'member_added', 'member_removed');
  await toldOf(receiver, 'ben', 'member_added');
  const tries = firstTries(receiver);
  assert.ok(tries.at(-1).isTaken, 'the first request is taken in the end');
  assertSame(tries);
  assert.deepEqual(receiver.namesOf('presence-room'), ['channel_occupied']);

  // Connections that it has closed meanwhile are no failure.
  await eventually(() => assert.ok(receiver.requests.at(-1).isAnswered));
  receiver.closeConnections();
  const before = receiver.requests.length;
  await join(t, port, 'presence-room', 'cleo');
  await toldOf(receiver, 'cleo', 'member_added');
  assert.equal(receiver.requests.length, before + 1);
});

test('what is too old is given up, and the next is told', async (t) => {
  const receiver = await startReceiver(t, { answer: status(500) });
  const { port } = await startServer(t, { receiver, env: { ...HASTY, RESOUND_WEBHOOK_RETRY_SECONDS: '1' } });
  await join(t, port, 'presence-room', 'ana');
  await eventually(() => assert.ok(receiver.requests.length > 0, 'it is asked'));
  await sleep(4000);
  receiver.answer = taken;
  await join(t, port, 'presence-room', 'ben');
  await toldOf(receiver, 'ben', 'member_added');
  assert.deepEqual(receiver.namesOf('presence-room', 'ana'), []);
  assert.deepEqual(receiver.namesOf('presence-room'), []);
});

test('a server that stops tells what waits, and who was there', async (t) => {
  const receiver = await startReceiver(t, { answer: after(300, taken) });
  // Nothing is due within this test unless the server stops.
  const env = {
    RESOUND_WEBHOOK_BATCH_MS: '60000',
    RESOUND_WEBHOOK_BATCH_EVENTS: '1000',
    RESOUND_WEBHOOK_SMOOTHING_MS: '60000',
    RESOUND_SHUTDOWN_GRACE: '20',
    RESOUND_WEBHOOK_EVENTS: 'channel_occupied,channel_vacated,member_added,member_removed,client_event',
  };
  const server = await startServer(t, { receiver, env });
  const [ana] = await Promise.all(['ana', 'ben', 'cleo'].map((user) => join(t, server.port, 'presence-room', user)));
  ana.send('client-bye', 'hello', 'presence-room');
  await ana.close();
  const lobby = await Client.connect(t, server.port);
  await lobby.subscribe('lobby');
  assert.deepEqual(receiver.requests, [], 'nothing is due yet');
  await server.stop();
  for (const user of ['ana', 'ben', 'cleo']) {
    const names = receiver.namesOf('presence-room', user).filter((name) => name !== 'client_event');
    assert.deepEqual(names, ['member_added', 'member_removed'], user);
  }
  for (const channel of ['presence-room', 'lobby']) {
    assert.deepEqual(receiver.namesOf(channel), ['channel_occupied', 'channel_vacated']);
  }
  assert.equal(receiver.events.find(({ name }) => name === 'client_event')?.data, 'hello');
  assert.equal(receiver.forged, 0);
});

test('a receiver that fails does not keep a server from stopping', async (t) => {
  const [hanging, failing] = [await startReceiver(t, { answer: hangs }), await startReceiver(t, { answer: status(500) })];
  const file = settingsFile([{ url: hanging.url }, { url: failing.url }, { url: NOWHERE }]);
  const env = { ...HASTY, RESOUND_WEBHOOK_TIMEOUT: '60', RESOUND_SHUTDOWN_GRACE: '2' };
  const server = await startServer(t, { file, env });
  await join(t, server.port, 'presence-room', 'ana');
  await eventually(() => assert.ok(hanging.requests.length > 0 && failing.requests.length > 0, 'both are asked'));
  await server.stop(20_000);
});

test('webhooks tail shows what has failed and what was delivered', async (t) => {
  const receiver = await startReceiver(t);
  await receiver.stop();
  const server = await startServer(t, { receiver, env: HASTY });
  const early = server.tail();
  await join(t, server.port, 'presence-room', 'ana');
  const line = (tail, outcome) =>
    eventually(() => {
      const found = tail.lines.find((text) => text.includes(outcome) && text.includes(new URL(receiver.url).origin));
      assert.ok(found, `${outcome} is not in:\n${tail.out}${tail.err}`);
      return found;
    });
  await line(early, 'failed');
  await receiver.start();
  const delivered = await line(early, 'delivered');
  await toldOf(receiver, 'ana', 'member_added');
  assert.ok(delivered.includes(receiver.requests[0].id), `${receiver.requests[0].id} is not in: ${delivered}`);
  for (const text of early.lines) assert.ok(!text.includes('from=resound'), `a query may be secret: ${text}`);
  // Whoever looks later sees the same.
  const late = server.tail();
  for (const outcome of ['failed', 'delivered']) await line(late, outcome);
});

test('a receiver on the machine itself has to be allowed', async (t) => {
  const receiver = await startReceiver(t);
  for (const url of [receiver.url, receiver.url.replace('127.0.0.1', '[::1]'), receiver.url.replace('127.0.0.1', 'localhost')]) {
    const env = { RESOUND_WEBHOOK_URL: url, RESOUND_WEBHOOK_ALLOW_LOCAL: 'false' };
    await assert.rejects(startServer(t, { env }), /RESOUND_WEBHOOK_ALLOW_LOCAL/, url);
  }
  assert.deepEqual(receiver.requests, []);
});
