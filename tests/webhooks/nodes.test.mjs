// What several nodes tell together, while one of them is killed and the receiver is in trouble.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, status, taken } from './support/answers.mjs';
import { Client, join } from './support/client.mjs';
import { startReceiver } from './support/receiver.mjs';
import { startRedis } from './support/redis.mjs';
import { startServer } from './support/server.mjs';
import { test } from './support/test.mjs';
import { eventually } from './support/wait.mjs';

const CHANNELS = ['presence-a', 'presence-b', 'presence-c', 'presence-d'];

const ADDED = 'member_added';
const REMOVED = 'member_removed';

/**
 * What becomes of a member: the nodes of its connections, one of which is killed, and what is
 * to be told of it. Who `leaves` closes its connections on these nodes before that, and who
 * `comes` opens one on this node `when` the other is closed or killed, or its removal is told.
 */
const FATES = [
  { at: ['killed'], told: [ADDED, REMOVED] },
  { at: ['killed', 'other'], told: [ADDED] },
  { at: ['other'], told: [ADDED] },
  { at: ['third'], leaves: ['third'], told: [ADDED, REMOVED] },
  { at: ['other', 'third'], leaves: ['other', 'third'], told: [ADDED, REMOVED] },
  { at: ['other', 'third'], leaves: ['other'], told: [ADDED] },
  { at: ['killed', 'third'], leaves: ['third'], told: [ADDED, REMOVED] },
  { at: ['killed', 'third'], leaves: ['killed'], told: [ADDED] },
  { at: ['killed'], leaves: ['killed'], told: [ADDED, REMOVED] },
  { at: ['other'], leaves: ['other'], comes: 'third', when: 'closed', told: [ADDED] },
  { at: ['killed'], comes: 'third', when: 'killed', told: [ADDED] },
  { at: ['third'], leaves: ['third'], comes: 'other', when: 'removed', told: [ADDED, REMOVED, ADDED] },
];

/** Who is there before all others, on every node, to find out which one tells. */
const FIRST = { channel: 'presence-first', user: 'first', told: [ADDED] };

/** A receiver's answers: they take a while, and each fourth is that it has failed. */
function troubled(milliseconds) {
  let count = 0;
  return () => {
    count += 1;
    return after(milliseconds, count % 4 === 0 ? status(500) : taken);
  };
}

/** Three nodes on one Redis, that tell a receiver. */
async function startNodes(t) {
  const redis = await startRedis(t);
  const receiver = await startReceiver(t, { answer: troubled(50) });
  const env = {
    REVERB_SCALING_ENABLED: 'true',
    REDIS_PORT: String(redis.port),
    RESOUND_REQUIRE_REDIS: 'true',
    RESOUND_NODE_TIMEOUT: '5',
    RESOUND_WEBHOOK_BATCH_MS: '50',
    RESOUND_WEBHOOK_BATCH_EVENTS: '5',
    RESOUND_WEBHOOK_SMOOTHING_MS: '1500',
  };
  const nodes = [];
  for (let count = 0; count < 3; count += 1) nodes.push(await startServer(t, { receiver, env }));
  return { receiver, nodes };
}

/** Which of the nodes tells for all: it alone has something to show. */
async function sender(t, nodes, receiver) {
  for (const { port } of nodes) await join(t, port, FIRST.channel, FIRST.user);
  await eventually(() => assertTold(receiver, [FIRST], () => [ADDED]));
  const tails = nodes.map((node) => node.tail());
  const at = await eventually(() => {
    const found = tails.findIndex(({ lines }) => lines.length > 0);
    assert.ok(found >= 0, 'one node tells');
    return found;
  });
  await Promise.all(tails.map((tail) => tail.kill()));
  return at;
}

/** The members of the channels, with the connections that they have now. */
async function enter(t, places) {
  const members = [];
  // Each channel has one of each fate, and one more of some that are frequent.
  for (const channel of CHANNELS) {
    for (const [at, fate] of [...FATES, FATES[0], FATES[1], FATES[3]].entries()) members.push({ channel, user: `user-${at}`, ...fate });
  }
  members.push({ channel: 'presence-lost', user: 'lost', ...FATES[0] });
  members.push({ channel: 'presence-left', user: 'left', ...FATES[3] });
  const open = async (member) => {
    member.connections = {};
    for (const place of member.at) member.connections[place] = await join(t, places[place].port, member.channel, member.user);
  };
  await Promise.all(members.map(open));
  return members;
}

/** Asserts what a receiver has been told of these members and channels, and that it is told once. */
function assertTold(receiver, all, expected) {
  for (const one of all) {
    assert.deepEqual(receiver.namesOf(one.channel, one.user), expected(one), JSON.stringify({ ...one, connections: undefined }));
  }
}

async function killWhileTelling(t, choose) {
  const { receiver, nodes } = await startNodes(t);
  const victim = choose(await sender(t, nodes, receiver));
  const [killed, other, third] = [0, 1, 2].map((offset) => nodes[(victim + offset) % 3]);
  const places = { killed, other, third };

  const members = await enter(t, places);
  const everywhere = await Promise.all(['killed', 'other'].map((place) => Client.connect(t, places[place].port)));
  for (const client of everywhere) await client.subscribe('public-kept');
  await everywhere[0].subscribe('public-lost');
  await eventually(() => assertTold(receiver, members, () => [ADDED]));
  await eventually(() => {
    for (const channel of ['public-kept', 'public-lost']) assert.deepEqual(receiver.namesOf(channel), ['channel_occupied']);
  });

  const come = async (when) => {
    const coming = members.filter((member) => member.when === when);
    await Promise.all(coming.map(({ channel, user, comes }) => join(t, places[comes].port, channel, user)));
  };
  // Those who change from one node to another are back in time, also on a busy machine, since
  // they are the only ones who do anything.
  const leave = ({ connections, leaves = [] }) => Promise.all(leaves.map((place) => connections[place].close()));
  await Promise.all(members.filter(({ when }) => when === 'closed').map(leave));
  await come('closed');

  receiver.answer = troubled(200);
  const late = CHANNELS.map((channel, at) => ({ channel, user: 'late', at: [['other', 'third'][at % 2]], told: [ADDED] }));
  const leaving = members.filter(({ when }) => when !== 'closed').map(leave);
  const entering = late.map(({ channel, user, at }) => join(t, places[at[0]].port, channel, user));
  await Promise.all([...leaving, ...entering]);
  await eventually(() => assert.ok(receiver.waiting.length > 0, 'a request waits for its answer'));
  await killed.kill();
  await come('killed');

  const returning = members.filter(({ when }) => when === 'removed');
  await eventually(() => assertTold(receiver, returning, () => [ADDED, REMOVED]));
  await come('removed');
  const all = [...members, ...late, FIRST];
  const channels = [
    ...[...CHANNELS, FIRST.channel, 'public-kept'].map((channel) => ({ channel, told: ['channel_occupied'] })),
    ...['presence-lost', 'presence-left', 'public-lost'].map((channel) => ({ channel, told: ['channel_occupied', 'channel_vacated'] })),
  ];
  const assertAll = () => assertTold(receiver, [...all, ...channels], ({ told }) => told);
  await eventually(assertAll, 40_000);

  // Whoever would be told to have gone by mistake, or twice, would be by now.
  await sleep(2000);
  receiver.answer = taken;
  await join(t, other.port, 'presence-last', 'last');
  await eventually(() => assert.deepEqual(receiver.namesOf('presence-last', 'last'), [ADDED]));
  await eventually(() => assert.ok(receiver.requests.at(-1).isAnswered));
  assertAll();
  const count = [...all, ...channels].reduce((sum, { told }) => sum + told.length, 0);
  assert.equal(receiver.events.length, count + 2, 'nothing is told but this, and of the last one and its channel');
  assert.equal(receiver.forged, 0);

  const deliveries = receiver.taken.flatMap(({ events }) => events);
  for (const event of deliveries) {
    const first = receiver.events.find(({ id }) => id === event.id);
    assert.deepEqual(event, first, 'what is told again is the same');
  }
  const again = deliveries.length - receiver.events.length;
  t.diagnostic(`${receiver.events.length} events, ${again} of them told again, ${receiver.requests.length} requests`);
}

test('the node that tells for all is killed', (t) => killWhileTelling(t, (sender) => sender));

test('another node is killed', (t) => killWhileTelling(t, (sender) => (sender + 1) % 3));
