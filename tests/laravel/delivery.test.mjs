// From the controller through queue and worker to Echo: what arrives, and what becomes
// of messages while a part of the chain is not there.

import assert from 'node:assert/strict';
import { APP } from '../clients/support/app.mjs';
import { listen, load, open as openEcho } from '../clients/support/echo.mjs';
import { startFromEnvFile } from '../clients/support/server.mjs';
import { after, before, describe, test } from '../clients/support/test.mjs';
import { within } from '../clients/support/wait.mjs';
import { URL_OF_LARAVEL, install } from './support/application.mjs';
import { logIn } from './support/person.mjs';

const CHAT = 1;
const BROADCASTING = { url: `${URL_OF_LARAVEL}/api/broadcasting/auth` };
// The page has the same Echo.
const Echo = await load('echo-2');

let application;
let server;
let worker;
let ana;
let ben;

before(async () => {
  application = await install();
  await application.serve();
  [ana, ben] = await Promise.all(['Ana', 'Ben'].map(logIn));
  server = await startFromEnvFile(application.envFile);
  worker = application.startWorker();
});

after(async () => {
  await application?.stop();
  await server?.stop();
});

/** Echo in somebody's hands, as the document's page sets it up. */
const open = (t, { token }) => openEcho(t, Echo, { broadcaster: 'reverb', port: 8080, auth: BROADCASTING, token });

const watch = (t, person) => listen(open(t, person).private(`chat.${CHAT}`));
const next = async (messages) => (await messages.next()).message;
const failedJobs = () => application.sql('select exception from failed_jobs');

/** Asks until the answer is true. */
async function until(what, isTrue) {
  const asking = (async () => {
    while (!(await isTrue())) await new Promise((resolve) => setTimeout(resolve, 100));
  })();
  await within(what, asking, 20_000);
}

const queueIsEmpty = () => until('the queue to be empty', async () => (await application.count('jobs')) === 0);

test('a message that is POSTed arrives at Echo, as it was stored', async (t) => {
  const messages = await watch(t, ben);
  const stored = await ana.say(CHAT, 'Hello «Ben», ¿qué tal? 👋 </script>');
  assert.deepEqual(await messages.next(), { message: stored });
  assert.equal(stored.sender.name, 'Ana');
});

test('the longest content that is accepted arrives', async (t) => {
  const messages = await watch(t, ben);
  for (const content of ['a'.repeat(4000), '😀'.repeat(428), '"'.repeat(1498), '\\'.repeat(1498)]) {
    await ana.say(CHAT, content);
    assert.equal((await next(messages)).content, content);
  }
});

test('the sender does not get its own event back, its second tab and the others do', async (t) => {
  const echo = open(t, ana);
  const own = await listen(echo.private(`chat.${CHAT}`));
  const [secondTab, others] = [await watch(t, ana), await watch(t, ben)];
  await ana.say(CHAT, 'not to me', { socketId: echo.socketId() });
  await ana.say(CHAT, 'to all');
  assert.equal((await next(others)).content, 'not to me');
  assert.equal((await next(secondTab)).content, 'not to me');
  assert.equal((await next(own)).content, 'to all');
});

test('reading is told to the others', async (t) => {
  const channel = open(t, ana).private(`chat.${CHAT}`);
  await listen(channel);
  const read = new Promise((resolve) => channel.listen('.messages.read', resolve));
  const message = await ana.say(CHAT, 'Read this');
  await ben.post(`/api/chat/rooms/${CHAT}/read`, { message_id: message.id });
  assert.deepEqual(await within('messages.read', read), {
    chat_id: CHAT,
    user: { id: ben.id, name: 'Ben' },
    last_read_at: message.created_at,
  });
});

test('who is taken into a chat is told on a channel of their own', async (t) => {
  const [carla, dora] = await Promise.all(['Carla', 'Dora'].map(logIn));
  const channel = open(t, dora).private(`App.Models.User.${dora.id}`);
  await listen(channel);
  const started = new Promise((resolve) => channel.listen('.chat.started', resolve));
  const { json } = await carla.post('/api/chat/rooms', { user_id: dora.id });
  assert.deepEqual(await within('chat.started', started), { chat_id: json.data.id });
});

describe('when a part is not there', () => {
  test('a worker that starts late delivers what was queued, in order', async (t) => {
    const messages = await watch(t, ben);
    await queueIsEmpty();
    await worker.stop();
    await ana.say(CHAT, 'while the worker sleeps');
    await ana.say(CHAT, 'and again');
    assert.equal(await application.count('jobs'), 2);
    assert.deepEqual(messages.rest, []);

    worker = application.startWorker();
    assert.equal((await next(messages)).content, 'while the worker sleeps');
    assert.equal((await next(messages)).content, 'and again');
  });

  test('Resound restarts: Echo connects and subscribes again, and later messages arrive', async (t) => {
    const echo = open(t, ben);
    const channel = echo.private(`chat.${CHAT}`);
    const messages = await listen(channel);
    await ana.say(CHAT, 'before');
    assert.equal((await next(messages)).content, 'before');

    const again = new Promise((resolve) => channel.subscribed(resolve));
    await queueIsEmpty();
    await server.stop();
    server = await startFromEnvFile(application.envFile);
    await within('the subscription after the restart', again, 20_000);
    await ana.say(CHAT, 'after');
    assert.equal((await next(messages)).content, 'after');
  });

  test('Resound is down: the job fails and says why, a retry delivers, no message is lost', async (t) => {
    await queueIsEmpty();
    await server.stop();
    const sent = await ana.say(CHAT, 'Is anybody there?');
    await until('the job to have failed', async () => (await failedJobs()).length === 1);
    const [{ exception }] = await failedJobs();
    assert.match(exception, /BroadcastException: Pusher error: cURL error 7: Failed to connect to localhost port 8080/);
    assert.match(worker.output(), /MessageSent/);
    const [stored] = await application.sql(`select content from inmo_messages where id = ${sent.id}`);
    assert.equal(stored.content, 'Is anybody there?');

    server = await startFromEnvFile(application.envFile);
    const messages = await watch(t, ben);
    await application.artisan('queue:retry', 'all');
    assert.deepEqual((await messages.next()).message, sent);
    await queueIsEmpty();
    assert.deepEqual(await failedJobs(), []);
  });

  test('receipts and news of chats have as many tries as messages', async () => {
    await queueIsEmpty();
    await worker.stop();
    const message = await ana.say(CHAT, 'Read this, too');
    await ben.post(`/api/chat/rooms/${CHAT}/read`, { message_id: message.id });
    await ana.post('/api/chat/rooms', { type: 'group', subject: 'News', user_ids: [ben.id] });
    const jobs = await application.sql('select payload from jobs order by id');
    const tries = jobs.map(({ payload }) => JSON.parse(payload)).map((job) => [job.displayName, job.maxTries]);
    assert.deepEqual(tries, [
      ['App\\Events\\MessageSent', 3],
      ['App\\Events\\MessagesRead', 3],
      ['App\\Events\\ChatStarted', 3],
    ]);
    worker = application.startWorker();
    await queueIsEmpty();
    assert.deepEqual(await failedJobs(), []);
  });

  test('wrong credentials in .env: the job says so', async () => {
    await queueIsEmpty();
    await worker.stop();
    application.set({ REVERB_APP_SECRET: 'another' });
    worker = application.startWorker();
    await ana.say(CHAT, 'with a wrong signature');
    await until('the job to have failed', async () => (await failedJobs()).length === 1);
    const [{ exception }] = await failedJobs();
    assert.match(exception, /BroadcastException: Pusher error: .*signature/i);

    await queueIsEmpty();
    await worker.stop();
    application.set({ REVERB_APP_SECRET: APP.secret });
    worker = application.startWorker();
    await application.artisan('queue:retry', 'all');
    await until('the job to have succeeded', async () => (await failedJobs()).length === 0);
    await queueIsEmpty();
  });
});

/** Laravel and Resound read one .env, so each takes both secrets before the other signs anew. */
test('the secret is replaced while messages are sent, and none is refused', async (t) => {
  const messages = await watch(t, ben);
  const NEW = 'another-secret';
  let number = 0;
  const say = async () => {
    number += 1;
    await ana.say(CHAT, `rotation ${number}`);
    assert.equal((await next(messages)).content, `rotation ${number}`);
  };
  await say();
  application.set({ RESOUND_APP_PREVIOUS_SECRET: NEW });
  await server.reload();
  await say();
  application.set({ REVERB_APP_SECRET: NEW, RESOUND_APP_PREVIOUS_SECRET: APP.secret });
  await say();
  await server.reload();
  // Endpoint and worker are restarted one after the other, and sign with different ones.
  await say();
  await watch(t, ana);
  await application.serveAnew();
  await watch(t, ana);
  await say();
  await queueIsEmpty();
  await worker.stop();
  worker = application.startWorker();
  await say();
  application.set({ RESOUND_APP_PREVIOUS_SECRET: '' });
  await server.reload();
  await say();
  await watch(t, ana);
  assert.deepEqual(await failedJobs(), []);
});
