// Who leaves a group or is removed from it: what Echo still brings, and what it does not.

import assert from 'node:assert/strict';
import { listen, load, open as openEcho } from '../clients/support/echo.mjs';
import { startFromEnvFile } from '../clients/support/server.mjs';
import { after, before, test } from '../clients/support/test.mjs';
import { Inbox, within } from '../clients/support/wait.mjs';
import { URL_OF_LARAVEL, install } from './support/application.mjs';
import { logIn } from './support/person.mjs';

const BROADCASTING = { url: `${URL_OF_LARAVEL}/api/broadcasting/auth` };
const ENDED = { type: 'Unsubscribed', error: 'The application has ended this subscription', status: 403 };
const Echo = await load('echo-2');

let application;
let server;
let worker;
let ana;
let ben;
let carla;

before(async () => {
  application = await install();
  await application.serve();
  [ana, ben, carla] = await Promise.all(['Ana', 'Ben', 'Carla'].map(logIn));
  server = await startFromEnvFile(application.envFile);
  worker = application.startWorker();
});

after(async () => {
  await server?.stop();
  await application?.stop();
});

async function newGroup(...others) {
  const body = { type: 'group', subject: 'Keys', user_ids: others.map(({ id }) => id) };
  const { json } = await ana.post('/api/chat/rooms', body);
  await queueIsEmpty();
  return json.data.id;
}

const participants = (group, { id } = {}) => `/api/chat/rooms/${group}/participants${id ? `/${id}` : ''}`;

const subscribed = (channel) =>
  within(`the subscription to ${channel.name}`, new Promise((resolve) => channel.subscribed(resolve)));

/** A page with a group open, and what comes there. */
async function openGroup(t, { token }, group) {
  const echo = openEcho(t, Echo, { broadcaster: 'reverb', port: 8080, auth: BROADCASTING, token });
  const errors = new Inbox('an error');
  const here = echo.join(`chat.${group}`);
  await Promise.all([subscribed(echo.join('online')), subscribed(here)]);
  here.error((error) => errors.push(['presence', error]));
  const channel = echo.private(`chat.${group}`);
  channel.error((error) => errors.push(['private', error]));
  return { echo, here, errors, messages: await listen(channel) };
}

const contentsUntil = async (messages, last) => {
  const contents = [];
  while (contents.at(-1) !== last) contents.push((await messages.next()).message.content);
  return contents;
};

async function queueIsEmpty() {
  const asking = (async () => {
    while ((await application.count('jobs')) > 0) await new Promise((resolve) => setTimeout(resolve, 100));
  })();
  await within('the queue to be empty', asking, 20_000);
}

test('who is removed hears nothing more, is told, and cannot come back before being taken in again', async (t) => {
  const group = await newGroup(ben, carla);
  const [benOpen, carlaOpen] = [await openGroup(t, ben, group), await openGroup(t, carla, group)];
  const leaving = new Inbox('a member that leaves');
  carlaOpen.here.leaving(leaving.push);
  const ofBen = benOpen.echo.private(`App.Models.User.${ben.id}`);
  const started = new Inbox('chat.started');
  ofBen.listen('.chat.started', started.push);
  await subscribed(ofBen);

  assert.equal((await ana.delete(participants(group, ben))).status, 204);
  await ana.say(group, 'Ben is gone');
  const errors = [await benOpen.errors.next(), await benOpen.errors.next()];
  assert.deepEqual(errors.sort(), [['presence', ENDED], ['private', ENDED]]);
  assert.deepEqual(await leaving.next(), { id: ben.id, name: 'Ben' });
  assert.deepEqual(await contentsUntil(carlaOpen.messages, 'Ben is gone'), ['Ana removed Ben', 'Ben is gone']);
  const heard = benOpen.messages.rest.map(({ message }) => message.content);
  assert.equal(heard.includes('Ben is gone'), false);

  for (const channel of ['private', 'presence']) {
    assert.equal((await ben.authorize(`${channel}-chat.${group}`)).status, 403);
  }
  benOpen.echo.leave(`chat.${group}`);
  const refused = new Inbox('a refusal');
  benOpen.echo.private(`chat.${group}`).error(refused.push);
  assert.equal((await refused.next()).status, 403);

  // The connection has stayed, and his other channels.
  await ana.post(participants(group), { user_ids: [ben.id] });
  assert.deepEqual(await started.next(), { chat_id: group });
  await queueIsEmpty();
  benOpen.echo.leave(`chat.${group}`);
  const again = await listen(benOpen.echo.private(`chat.${group}`));
  await ana.say(group, 'Ben is back');
  assert.equal((await again.next()).message.content, 'Ben is back');
});

test('who leaves hears nothing more in any tab', async (t) => {
  const group = await newGroup(ben);
  const tabs = [await openGroup(t, ben, group), await openGroup(t, ben, group)];
  const ofAna = await openGroup(t, ana, group);
  assert.equal((await ben.delete(participants(group))).status, 204);
  await ana.say(group, 'Alone');
  assert.deepEqual(await contentsUntil(ofAna.messages, 'Alone'), ['Ben left', 'Alone']);
  for (const { errors, messages } of tabs) {
    assert.deepEqual((await errors.next())[1], ENDED);
    assert.equal(messages.rest.some(({ message }) => message.content === 'Alone'), false);
  }
});

test('Resound is down: the worker tells it when it is back', async (t) => {
  const group = await newGroup(ben, carla);
  await server.stop();
  assert.equal((await ana.delete(participants(group, ben))).status, 204);
  server = await startFromEnvFile(application.envFile);
  await queueIsEmpty();
  assert.equal(await application.count('failed_jobs'), 0);

  // Told late, it does not take out who is back.
  await worker.stop();
  await server.stop();
  await ana.delete(participants(group, carla));
  await ana.post(participants(group), { user_ids: [carla.id] });
  server = await startFromEnvFile(application.envFile);
  const { messages, errors } = await openGroup(t, carla, group);
  worker = application.startWorker();
  await queueIsEmpty();
  await ana.say(group, 'Welcome back');
  await contentsUntil(messages, 'Welcome back');
  assert.deepEqual(errors.rest, []);
  assert.equal(await application.count('failed_jobs'), 0);
});
