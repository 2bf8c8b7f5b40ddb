// The chat's HTTP API as Postman uses it: what it does, and what it refuses.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { APP, authorization } from '../clients/support/app.mjs';
import { after, before, describe, test } from '../clients/support/test.mjs';
import { EXAMPLE, URL_OF_LARAVEL, install } from './support/application.mjs';
import { Person, logIn } from './support/person.mjs';

let application;
let ana;
let ben;
let carla;
let dora;

before(async () => {
  application = await install();
  await application.serve();
  [ana, ben, carla, dora] = await Promise.all(['Ana', 'Ben', 'Carla', 'Dora'].map(logIn));
});

after(() => application?.stop());

const SEEDED_CHAT = 1;
const SEEDED_GROUP = 2;

/** A private chat of these two that nobody else uses: it is about a contact of its own. */
let contacts = 0;
async function newChat(one, other) {
  contacts += 1;
  const { status, json } = await one.post('/api/chat/rooms', { user_id: other.id, contact_id: contacts });
  assert.equal(status, 201);
  return json.data;
}

async function newGroup(founder, others) {
  const body = { type: 'group', subject: 'Keys', user_ids: others.map(({ id }) => id) };
  const { status, json } = await founder.post('/api/chat/rooms', body);
  assert.equal(status, 201);
  return json.data;
}

async function room(person, id) {
  const { json } = await person.get('/api/chat/rooms');
  return json.data.find((candidate) => candidate.id === id);
}

const contents = ({ json }) => json.data.map(({ content }) => content);

test('.env.example has the lines of the chat module, and no others of REVERB_', () => {
  const env = readFileSync(path.join(EXAMPLE, '.env.example'), 'utf8');
  const lines = [
    'BROADCAST_DRIVER=reverb',
    'QUEUE_CONNECTION=database',
    '',
    'REVERB_APP_ID=my-app-id',
    'REVERB_APP_KEY=my-app-key',
    'REVERB_APP_SECRET=my-app-secret',
    'REVERB_HOST="localhost"',
    'REVERB_PORT=8080',
    'REVERB_SCHEME=http',
  ];
  assert.ok(env.startsWith(`${lines.join('\n')}\n`));
  assert.equal(env.match(/^REVERB_/gm).length, 6);
});

describe('logging in', () => {
  test('gives a Sanctum token, which says who one is', async () => {
    assert.match(ana.token, /^\d+\|\w{40,}$/);
    const { json } = await ana.get('/api/auth/user');
    assert.deepEqual(json, { data: { id: ana.id, name: 'Ana', online: false, last_seen_at: null } });
  });

  test('with a wrong password or an unknown address is refused with 422', async () => {
    for (const email of ['ana@example.test', 'nobody@example.test']) {
      const { status, json } = await new Person().post('/api/auth/login', { email, password: 'wrong' });
      assert.equal(status, 422);
      assert.deepEqual(json.errors, { email: ['These credentials do not match our records.'] });
    }
  });

  test('logging out ends the token', async () => {
    const again = await logIn('Ana');
    assert.equal((await again.post('/api/auth/logout')).status, 204);
    assert.equal((await again.get('/api/auth/user')).status, 401);
  });
});

describe('a private chat', () => {
  test('is started once, whoever of the two starts it again', async () => {
    const first = await ana.post('/api/chat/rooms', { user_id: dora.id });
    const second = await ana.post('/api/chat/rooms', { user_id: dora.id });
    const fromTheOther = await dora.post('/api/chat/rooms', { user_id: ana.id });
    assert.deepEqual([first.status, second.status, fromTheOther.status], [201, 200, 200]);
    assert.equal(second.json.data.id, first.json.data.id);
    assert.equal(fromTheOther.json.data.id, first.json.data.id);
    assert.deepEqual([first.json.data.name, fromTheOther.json.data.name], ['Dora', 'Ana']);
  });

  test('is started once, also when both start it at the same time', async () => {
    const starting = [ben, dora, ben, dora, ben, dora, ben, dora].map((one) =>
      one.post('/api/chat/rooms', { user_id: one === ben ? dora.id : ben.id }),
    );
    const answers = await Promise.all(starting);
    assert.equal(answers.filter(({ status }) => status === 201).length, 1);
    assert.equal(answers.filter(({ status }) => status === 200).length, 7);
    assert.equal(new Set(answers.map(({ json }) => json.data.id)).size, 1);
  });

  test('about a contact is another than one about none', async () => {
    const about = await newChat(ana, dora);
    const { json } = await ana.post('/api/chat/rooms', { user_id: dora.id });
    assert.notEqual(json.data.id, about.id);
    assert.equal(json.data.contact_id, null);
  });
});

describe('messages', () => {
  test('are stored, queued for broadcasting, and read back newest first', async () => {
    const chat = await newChat(ana, ben);
    const queued = await application.count('jobs');
    const message = await ana.say(chat.id, 'Hello from Postman!');
    await ben.say(chat.id, 'Hello Ana');

    assert.deepEqual(message.sender, { id: ana.id, name: 'Ana' });
    assert.match(message.created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
    assert.equal(await application.count('jobs'), queued + 2);
    const history = await ben.get(`/api/chat/rooms/${chat.id}/messages`);
    assert.deepEqual(contents(history), ['Hello Ana', 'Hello from Postman!']);
    assert.deepEqual(history.json.data[1], message);
  });

  test('come in pages', async () => {
    const chat = await newChat(ana, ben);
    for (let n = 1; n <= 32; n += 1) await ana.say(chat.id, `message ${n}`);
    const newest = await ben.get(`/api/chat/rooms/${chat.id}/messages`);
    const older = await ben.get(newest.json.links.next);
    assert.equal(contents(newest).length, 30);
    assert.equal(contents(newest)[0], 'message 32');
    assert.deepEqual(contents(older), ['message 2', 'message 1']);
    assert.equal(older.json.links.next, null);
  });

  test('can be the address of an image or a file', async () => {
    const chat = await newChat(ana, ben);
    const body = { type: 'image', content: 'https://example.test/flat.jpg' };
    const { status, json } = await ana.post(`/api/chat/rooms/${chat.id}/messages`, body);
    assert.equal(status, 201);
    assert.equal(json.data.type, 'image');
  });
});

describe('the list of chats', () => {
  test('has the latest message, and counts what others wrote since one read', async () => {
    const chat = await newChat(ana, ben);
    await ana.say(chat.id, 'one');
    await ana.say(chat.id, 'two');
    await ben.say(chat.id, 'three');

    assert.equal((await room(ben, chat.id)).unread_count, 2);
    assert.equal((await room(ana, chat.id)).unread_count, 1);
    assert.equal((await room(ben, chat.id)).latest_message.content, 'three');

    await ben.post(`/api/chat/rooms/${chat.id}/read`);
    assert.equal((await room(ben, chat.id)).unread_count, 0);
    assert.equal((await room(ana, chat.id)).unread_count, 1);
  });

  test('has the chat with the latest message first', async () => {
    await newChat(ana, carla);
    await ana.say(SEEDED_GROUP, 'now');
    const { json } = await ana.get('/api/chat/rooms');
    assert.equal(json.data[0].id, SEEDED_GROUP);
  });

  test('says which chats are muted, to who muted them', async () => {
    const chat = await newChat(ana, ben);
    const { status, json } = await ana.patch(`/api/chat/rooms/${chat.id}`, { is_muted: true });
    assert.equal(status, 200);
    assert.equal(json.data.is_muted, true);
    assert.equal((await room(ana, chat.id)).is_muted, true);
    assert.equal((await room(ben, chat.id)).is_muted, false);
  });
});

describe('reading', () => {
  const readAt = async (chat) => {
    const rows = await application.sql(`select read_at from inmo_messages where chat_id = ${chat.id} order by id`);
    return rows.map(({ read_at: time }) => time !== null);
  };

  test('up to a message leaves the later ones unread, and never goes back', async () => {
    const chat = await newChat(ana, ben);
    const [first, second] = [await ana.say(chat.id, 'one'), await ana.say(chat.id, 'two')];
    await ana.say(chat.id, 'three');

    const { json } = await ben.post(`/api/chat/rooms/${chat.id}/read`, { message_id: second.id });
    assert.deepEqual(json.data, { user_id: ben.id, last_read_at: second.created_at });
    assert.equal((await room(ben, chat.id)).unread_count, 1);
    assert.deepEqual(await readAt(chat), [true, true, false]);

    const back = await ben.post(`/api/chat/rooms/${chat.id}/read`, { message_id: first.id });
    assert.equal(back.json.data.last_read_at, second.created_at);
  });

  test('marks a group message as read when everybody has read it', async () => {
    const group = await newGroup(ana, [ben, carla]);
    await ana.say(group.id, 'The keys are with me');
    await ben.post(`/api/chat/rooms/${group.id}/read`);
    assert.deepEqual(await readAt(group), [false, false]);
    await carla.post(`/api/chat/rooms/${group.id}/read`);
    // The first is the system's, which is nobody's to be read.
    assert.deepEqual(await readAt(group), [false, true]);
  });

  test('is broadcast once', async () => {
    const chat = await newChat(ana, ben);
    await ana.say(chat.id, 'one');
    const queued = await application.count('jobs');
    await ben.post(`/api/chat/rooms/${chat.id}/read`);
    await ben.post(`/api/chat/rooms/${chat.id}/read`);
    assert.equal(await application.count('jobs'), queued + 1);
  });
});

describe('a group', () => {
  test('tells in system messages who started it, came and left', async () => {
    const group = await newGroup(ana, [ben]);
    const added = await ben.post(`/api/chat/rooms/${group.id}/participants`, { user_ids: [carla.id, dora.id] });
    assert.deepEqual(added.json.data.participants.map(({ name }) => name), ['Ana', 'Ben', 'Carla', 'Dora']);
    assert.equal((await carla.delete(`/api/chat/rooms/${group.id}/participants`)).status, 204);

    const history = await ana.get(`/api/chat/rooms/${group.id}/messages`);
    assert.deepEqual(contents(history), ['Carla left', 'Ben added Carla and Dora', 'Ana started the group']);
    assert.deepEqual(history.json.data[0].sender, { id: null, name: 'System' });
    assert.equal((await carla.get(`/api/chat/rooms/${group.id}/messages`)).status, 403);
  });

  test('is owned by who started it, who removes others, which nobody else may', async () => {
    const group = await newGroup(ana, [ben, carla]);
    const path = `/api/chat/rooms/${group.id}/participants`;
    assert.equal(group.owner_id, ana.id);
    assert.equal((await ben.delete(`${path}/${carla.id}`)).status, 403);
    assert.equal((await ben.delete(`${path}/${ana.id}`)).status, 403);
    assert.equal((await dora.delete(`${path}/${dora.id}`)).status, 403);
    assert.equal((await ana.delete(`${path}/999`)).status, 404);

    assert.equal((await ana.delete(`${path}/${carla.id}`)).status, 204);
    assert.equal((await ana.delete(`${path}/${carla.id}`)).status, 204, 'who has gone is gone');
    assert.equal(await room(carla, group.id), undefined);
    assert.equal((await carla.authorize(`private-chat.${group.id}`)).status, 403);
    assert.equal((await ben.delete(`${path}/${ben.id}`)).status, 204);
    const history = await ana.get(`/api/chat/rooms/${group.id}/messages`);
    assert.deepEqual(contents(history), ['Ben left', 'Ana removed Carla', 'Ana started the group']);
  });

  test('is owned by who is in it the longest, when the owner has left', async () => {
    const group = await newGroup(dora, [carla]);
    await dora.post(`/api/chat/rooms/${group.id}/participants`, { user_ids: [ana.id] });
    await dora.delete(`/api/chat/rooms/${group.id}/participants`);
    assert.equal((await room(ana, group.id)).owner_id, carla.id);
    assert.equal((await newChat(ana, ben)).owner_id, null);
  });

  test('lets somebody go also while Resound is not there, and leaves it to the worker to say so', async () => {
    const group = await newGroup(ana, [ben]);
    assert.equal((await ana.delete(`/api/chat/rooms/${group.id}/participants/${ben.id}`)).status, 204);
    const [{ payload }] = await application.sql('select payload from jobs order by id desc limit 1');
    const { displayName, maxTries } = JSON.parse(payload);
    assert.deepEqual([displayName, maxTries], ['App\\Jobs\\EndSubscriptions', 3]);
    const log = readFileSync(path.join(application.folder, 'storage/logs/laravel.log'), 'utf8');
    assert.match(log, /cURL error 7: .*ApiErrorException/);
  });

  test('takes somebody in once, also when two do it at the same time', async () => {
    const group = await newGroup(ana, [ben]);
    const adding = [ana, ben, ana, ben, ana, ben].map((one) =>
      one.post(`/api/chat/rooms/${group.id}/participants`, { user_ids: [carla.id] }),
    );
    for (const { status } of await Promise.all(adding)) assert.equal(status, 200);
    const history = await ana.get(`/api/chat/rooms/${group.id}/messages`);
    assert.equal(contents(history).length, 2);
    assert.equal((await room(carla, group.id)).unread_count, 0);
  });

  test('of which the last who had not read leaves has been read', async () => {
    const group = await newGroup(ana, [ben]);
    await ana.say(group.id, 'one');
    await ben.delete(`/api/chat/rooms/${group.id}/participants`);
    const [{ read_at: readAt }] = await application.sql(
      `select read_at from inmo_messages where chat_id = ${group.id} and user_id = ${ana.id}`,
    );
    assert.notEqual(readAt, null);
  });

  test('is a new one each time', async () => {
    assert.notEqual((await newGroup(ana, [ben])).id, (await newGroup(ana, [ben])).id);
  });

  test('is not made of a private chat', async () => {
    const chat = await newChat(ana, ben);
    const path = `/api/chat/rooms/${chat.id}/participants`;
    assert.equal((await ana.post(path, { user_ids: [carla.id] })).status, 403);
    assert.equal((await ana.delete(path)).status, 403);
    assert.equal((await ana.delete(`${path}/${ben.id}`)).status, 403);
  });
});

describe('webhooks', () => {
  const TIME = Date.parse('2026-05-04T03:02:01.500Z');
  const added = (person, channel = 'presence-online') => event('member_added', person, channel);
  const removed = (person, channel = 'presence-online') => event('member_removed', person, channel);
  const event = (name, { id }, channel) => ({ name, channel, user_id: String(id), id: `${name}-${id}` });

  /** Delivers one as Resound does, and returns the status. */
  async function deliver(time, events, { key = APP.key, secret = APP.secret, sign = (body) => body } = {}) {
    const body = JSON.stringify({ time_ms: time, events });
    const signature = createHmac('sha256', secret).update(sign(body)).digest('hex');
    const headers = { 'Content-Type': 'application/json', 'X-Pusher-Key': key, 'X-Pusher-Signature': signature };
    const { status } = await fetch(`${URL_OF_LARAVEL}/api/webhooks/resound`, { method: 'POST', headers, body });
    return status;
  }

  async function seen({ id }) {
    const { json } = await ana.get('/api/chat/people');
    const { online, last_seen_at: at } = json.data.find((person) => person.id === id);
    return [online, at && Date.parse(at) - TIME];
  }

  test('say who came and who went, and the API says it in all places', async () => {
    assert.equal(await deliver(TIME, [added(ben), added(carla)]), 204);
    assert.deepEqual([await seen(ben), await seen(carla), await seen(dora)], [[true, 0], [true, 0], [false, null]]);
    assert.equal(await deliver(TIME + 1, [removed(ben)]), 204);
    assert.deepEqual([await seen(ben), await seen(carla)], [[false, 1], [true, 0]]);

    const expected = { id: ben.id, name: 'Ben', online: false, last_seen_at: '2026-05-04T03:02:01.501000Z' };
    assert.deepEqual((await ben.get('/api/auth/user')).json.data, expected);
    const { participants } = await room(ana, SEEDED_CHAT);
    assert.deepEqual(participants[1], { ...expected, last_read_at: participants[1].last_read_at });
  });

  test('that come late or twice set nothing back', async () => {
    await deliver(TIME + 10, [added(ben)]);
    await deliver(TIME + 30, [removed(ben)]);
    await deliver(TIME + 20, [added(ben)]);
    assert.deepEqual(await seen(ben), [false, 30]);
    await deliver(TIME + 30, [removed(ben)]);
    await deliver(TIME + 40, [added(ben)]);
    await deliver(TIME + 30, [removed(ben)]);
    assert.deepEqual(await seen(ben), [true, 40]);
  });

  test('have the last word in their last event', async () => {
    const reload = [removed(ben), added(ben), added(carla), removed(carla)];
    for (const _ of ['once', 'twice']) {
      await deliver(TIME + 50, reload);
      assert.deepEqual([await seen(ben), await seen(carla)], [[true, 50], [false, 50]]);
    }
  });

  test('of other channels, other events and strangers change nothing', async () => {
    const before = await application.sql('select * from users');
    const others = [
      removed(ben, 'presence-chat.1'),
      removed({ id: 999 }),
      event('client_event', ben, 'presence-online'),
      { name: 'channel_vacated', channel: 'presence-online', id: '1' },
    ];
    assert.equal(await deliver(TIME + 60, others), 204);
    assert.deepEqual(await application.sql('select * from users'), before);
  });

  test('that are forged are refused with 401', async () => {
    const before = await application.sql('select * from users');
    const forged = [
      deliver(TIME + 70, [removed(ben)], { secret: 'another' }),
      deliver(TIME + 70, [removed(ben)], { key: 'another' }),
      deliver(TIME + 70, [removed(ben)], { sign: (body) => body.replace('removed', 'added') }),
      fetch(`${URL_OF_LARAVEL}/api/webhooks/resound`, { method: 'POST', body: '{}' }).then(({ status }) => status),
    ];
    assert.deepEqual(await Promise.all(forged), [401, 401, 401, 401]);
    assert.deepEqual(await application.sql('select * from users'), before);
  });
});

describe('/api/broadcasting/auth', () => {
  test('signs the private and the presence channel for who takes part', async () => {
    const privately = await ana.authorize('private-chat.1');
    assert.equal(privately.status, 200);
    assert.deepEqual(privately.json, authorization('1234.5678', 'private-chat.1'));

    const present = await ana.authorize('presence-chat.1');
    const user = { id: String(ana.id), info: { id: ana.id, name: 'Ana' } };
    assert.deepEqual(present.json, authorization('1234.5678', 'presence-chat.1', { user }));
  });

  test('refuses who does not, and who is nobody', async () => {
    for (const channel of ['private-chat.1', 'presence-chat.1', 'private-chat.999', 'private-chat.x', 'private-other']) {
      assert.equal((await dora.authorize(channel)).status, 403, channel);
    }
    // A participant of chat 1; MySQL takes all of these for a 1.
    for (const id of ['1x', '01', '1-2', 'x']) {
      assert.equal((await ana.authorize(`private-chat.${id}`)).status, 403, id);
    }
    assert.equal((await new Person().authorize('private-chat.1')).status, 401);
  });

  test('gives everybody their own channel only', async () => {
    assert.equal((await ana.authorize(`private-App.Models.User.${ana.id}`)).status, 200);
    assert.equal((await ana.authorize(`private-App.Models.User.${ben.id}`)).status, 403);
  });

  test('signs the channel of who is online for everybody', async () => {
    const { json } = await dora.authorize('presence-online');
    const user = { id: String(dora.id), info: { id: dora.id } };
    assert.deepEqual(json, authorization('1234.5678', 'presence-online', { user }));
    assert.equal((await new Person().authorize('presence-online')).status, 401);
  });
});

test('passwords cannot be tried without end', async () => {
  const attempt = { email: 'ana@example.test', password: 'wrong' };
  const answers = await Promise.all(Array.from({ length: 12 }, () => new Person().post('/api/auth/login', attempt)));
  assert.ok(answers.some(({ status }) => status === 429));
  await application.artisan('cache:clear');
});

describe('what cannot be', () => {
  const messages = `/api/chat/rooms/${SEEDED_CHAT}/messages`;
  const cases = [
    ['empty content', 422, () => ana.post(messages, { content: '' })],
    ['content of spaces', 422, () => ana.post(messages, { content: ' \n\t' })],
    ['no content', 422, () => ana.post(messages, {})],
    ['content that is a list', 422, () => ana.post(messages, { content: ['a'] })],
    ['4001 characters', 422, () => ana.post(messages, { content: 'a'.repeat(4001) })],
    ['bytes that are no text', 422, () => ana.postForm(messages, 'content=%FFhello')],
    ['a null character', 422, () => ana.post(messages, { content: 'a\u0000b' })],
    ['a subject that is no text', 422, () =>
      ana.postForm('/api/chat/rooms', `type=group&subject=%FF&user_ids[]=${ben.id}`)],
    ['a cursor of something else', 422, () => ana.get(`${messages}?cursor=${btoa('{"x":1}')}`)],
    ['a megabyte', 422, () => ana.post(messages, { content: 'a'.repeat(1 << 20) })],
    ['more bytes than can be broadcast', 422, () => ana.post(messages, { content: '😀'.repeat(600) })],
    ['an unknown type', 422, () => ana.post(messages, { content: 'a', type: 'video' })],
    ['an image that is no address', 422, () => ana.post(messages, { content: 'a cat', type: 'image' })],
    ['an image that is a script', 422, () => ana.post(messages, { content: 'javascript://x', type: 'image' })],
    ['an unknown chat', 404, () => ana.post('/api/chat/rooms/999/messages', { content: 'a' })],
    ['a chat that is no number', 404, () => ana.post('/api/chat/rooms/x/messages', { content: 'a' })],
    ['writing where one does not take part', 403, () => dora.post(messages, { content: 'a' })],
    ['reading where one does not take part', 403, () => dora.get(messages)],
    ['marking where one does not take part', 403, () => dora.post(`/api/chat/rooms/${SEEDED_CHAT}/read`)],
    ['muting where one does not take part', 403, () => dora.patch(`/api/chat/rooms/${SEEDED_CHAT}`, { is_muted: true })],
    ['coming into a group by oneself', 403, () =>
      dora.post(`/api/chat/rooms/${SEEDED_GROUP}/participants`, { user_ids: [dora.id] })],
    ['marking up to a message of another chat', 404, () =>
      ana.post(`/api/chat/rooms/${SEEDED_CHAT}/read`, { message_id: 3 })],
    ['no token', 401, () => new Person().post(messages, { content: 'a' })],
    ['a wrong token', 401, () => new Person('1|wrong').post(messages, { content: 'a' })],
    ['a chat with oneself', 422, () => ana.post('/api/chat/rooms', { user_id: ana.id })],
    ['a chat with nobody', 422, () => ana.post('/api/chat/rooms', {})],
    ['a chat with somebody unknown', 422, () => ana.post('/api/chat/rooms', { user_id: 999 })],
    ['a group without a subject', 422, () => ana.post('/api/chat/rooms', { type: 'group', user_ids: [ben.id] })],
    ['a group of one', 422, () => ana.post('/api/chat/rooms', { type: 'group', subject: 'a', user_ids: [] })],
    ['muting by half', 422, () => ana.patch(`/api/chat/rooms/${SEEDED_CHAT}`, { is_muted: 'half' })],
  ];

  async function unchanged(attempt) {
    const tables = ['inmo_chats', 'inmo_chat_participants', 'inmo_messages', 'jobs'];
    const contents = () => Promise.all(tables.map((table) => application.sql(`select * from ${table}`)));
    const before = await contents();
    const { status, json } = await attempt();
    assert.equal(typeof json.message, 'string');
    assert.deepEqual(await contents(), before);
    return status;
  }

  for (const [what, status, attempt] of cases) {
    test(`${what}: ${status}, nothing stored, nothing broadcast`, async () => {
      assert.equal(await unchanged(attempt), status);
    });
  }

  test('an expired token: 401, nothing stored, nothing broadcast', async () => {
    const late = await logIn('Ben');
    const [id] = late.token.split('|');
    await application.sql(`update personal_access_tokens set expires_at = '2020-01-01 00:00:00' where id = ${id}`);
    assert.equal(await unchanged(() => late.post(messages, { content: 'a' })), 401);
    assert.equal((await late.authorize('private-chat.1')).status, 401);
  });

  test('a client without an Accept header is answered in JSON, too', async () => {
    const response = await fetch('http://localhost:8000/api/chat/rooms');
    assert.equal(response.status, 401);
    assert.deepEqual(await response.json(), { message: 'Unauthenticated.' });
  });
});
