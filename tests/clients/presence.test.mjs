// Presence channels in laravel-echo: who is here, who joins and leaves, who whispers.

import assert from 'node:assert/strict';
import { publisher } from './support/app.mjs';
import { startAuthEndpoint } from './support/auth-endpoint.mjs';
import { listen, load, open as openEcho, VERSIONS } from './support/echo.mjs';
import { startServer } from './support/server.mjs';
import { after, before, beforeEach, describe, test } from './support/test.mjs';
import { Inbox } from './support/wait.mjs';

// Laravel makes a text of every id; other back ends also sign numbers.
const ANA = { id: '1', info: { name: 'Ana', avatar: '/a/1.png' } };
const BOB = { id: 2, info: { name: 'Ñandú · 日本語 · 👩‍👩‍👧 · "\\' } };
const CAROL = { id: 'c0ffee-c0de', info: { name: 'Carol' } };

const channels = { ana: [], bob: [], carol: [], stranger: [] };

let server;
let auth;
let misconfiguredAuth;

before(async () => {
  const users = { ana: ANA, bob: BOB, carol: CAROL, stranger: { id: '4', info: {} } };
  server = await startServer();
  auth = await startAuthEndpoint({ channels, users });
  misconfiguredAuth = await startAuthEndpoint({ channels, users, secret: 'of-another-application' });
});

after(async () => {
  await auth?.stop();
  await misconfiguredAuth?.stop();
  await server?.stop();
});

// A chat for each test, which nobody is still leaving.
let chat;
let count = 0;

beforeEach(() => {
  count += 1;
  chat = `chat.${count}`;
  for (const user of ['ana', 'bob', 'carol']) channels[user] = [`presence-${chat}`, `private-${chat}`];
});

for (const { from, options } of VERSIONS) {
  describe(from, () => {
    let Echo;

    before(async () => {
      Echo = await load(from);
    });

    function open(t, token, { endpoint = auth, port = server.port } = {}) {
      return openEcho(t, Echo, { port, auth: endpoint, token, ...options });
    }

    /** Joins, and is done when it knows who is here. */
    async function join(t, token, settings) {
      const echo = open(t, token, settings);
      const [here, joining, leaving] = ['here', 'joining', 'leaving'].map((what) => new Inbox(`${what} of ${token}`));
      const channel = echo.join(chat).here(here.push).joining(joining.push).leaving(leaving.push);
      const first = await here.next();
      const { members } = echo.connector.pusher.channel(channel.name);
      return { echo, channel, first, here, joining, leaving, members };
    }

    test('here, joining and leaving tell who is there, comes and goes', async (t) => {
      const ana = await join(t, 'ana');
      assert.deepEqual(ana.first, [ANA.info]);
      const bob = await join(t, 'bob');
      assert.deepEqual(sorted(bob.first), sorted([ANA.info, BOB.info]));
      assert.deepEqual(await ana.joining.next(), BOB.info);
      bob.echo.leave(chat);
      assert.deepEqual(await ana.leaving.next(), BOB.info);
      // And when the connection ends without a word.
      const carol = await join(t, 'carol');
      assert.deepEqual(sorted(carol.first), sorted([ANA.info, CAROL.info]));
      assert.deepEqual(await ana.joining.next(), CAROL.info);
      carol.echo.disconnect();
      assert.deepEqual(await ana.leaving.next(), CAROL.info);
      for (const { here, joining, leaving } of [ana, bob, carol]) {
        assert.deepEqual([here.rest, joining.rest, leaving.rest], [[], [], []]);
      }
    });

    test('members are known by their ids, whether texts or numbers', async (t) => {
      const ana = await join(t, 'ana');
      const bob = await join(t, 'bob');
      await ana.joining.next();
      for (const { members } of [ana, bob]) {
        assert.equal(members.count, 2);
        assert.deepEqual(members.get(ANA.id), ANA);
        assert.deepEqual(members.get(BOB.id), BOB);
      }
      assert.deepEqual([ana.members.me, bob.members.me], [ANA, BOB]);
    });

    test('two tabs of a user count once', async (t) => {
      const ana = await join(t, 'ana');
      const tabs = [await join(t, 'bob'), await join(t, 'bob')];
      for (const { first, members } of tabs) {
        assert.deepEqual(sorted(first), sorted([ANA.info, BOB.info]));
        assert.equal(members.count, 2);
      }
      assert.deepEqual(await ana.joining.next(), BOB.info);
      tabs[0].echo.leave(chat);
      // Frames of one socket are handled in order: once the next subscription is
      // confirmed, the server has seen that the tab has left.
      await listen(tabs[0].echo.private(chat));
      const carol = await join(t, 'carol');
      assert.deepEqual(sorted(carol.first), sorted([ANA.info, BOB.info, CAROL.info]));
      assert.deepEqual(await ana.joining.next(), CAROL.info);
      assert.deepEqual(ana.leaving.rest, []);
      assert.equal(ana.members.count, 3);
      tabs[1].echo.leave(chat);
      assert.deepEqual(await ana.leaving.next(), BOB.info);
      assert.equal(ana.members.count, 2);
    });

    test('a whisper reaches the other members, and tells whose it is', async (t) => {
      const ana = await join(t, 'ana');
      const bob = await join(t, 'bob');
      const [toAna, toBob] = ['Ana', 'Bob'].map((name) => new Inbox(`a whisper to ${name}`));
      ana.channel.listenForWhisper('typing', (...whisper) => toAna.push(whisper));
      bob.channel.listenForWhisper('typing', (...whisper) => toBob.push(whisper));
      ana.channel.whisper('typing', { chars: 3 });
      assert.deepEqual(await toBob.next(), [{ chars: 3 }, { user_id: ANA.id }]);
      // An echo to Ana would have come before the answer.
      bob.channel.whisper('typing', { chars: 5 });
      assert.deepEqual(await toAna.next(), [{ chars: 5 }, { user_id: BOB.id }]);
      assert.deepEqual([toAna.rest, toBob.rest], [[], []]);
    });

    test('members receive what is published, with toOthers all but the sender', async (t) => {
      const sender = open(t, 'ana');
      const own = await listen(sender.join(chat));
      const others = await listen(open(t, 'bob').join(chat));
      const sdk = publisher(server.port);
      await sdk.trigger(`presence-${chat}`, 'message.sent', 'to others', { socket_id: sender.socketId() });
      await sdk.trigger(`presence-${chat}`, 'message.sent', 'to all');
      assert.deepEqual([await others.next(), await others.next()], ['to others', 'to all']);
      assert.equal(await own.next(), 'to all');
    });

    for (const { token, expected } of [
      { token: 'unknown', expected: 401 },
      { token: 'stranger', expected: 403 },
    ]) {
      test(`error() is called when the endpoint refuses with ${expected}`, async (t) => {
        const { joining } = await join(t, 'ana');
        const errors = new Inbox('the call of error()');
        open(t, token).join(chat).error(errors.push);
        const { type, status } = await errors.next();
        assert.deepEqual({ type, status }, { type: 'AuthError', status: expected });
        assert.deepEqual(joining.rest, []);
      });
    }

    test('error() is called when the server refuses the signature, and nobody joins', async (t) => {
      const ana = await join(t, 'ana');
      const errors = new Inbox('the call of error()');
      const echo = open(t, 'bob', { endpoint: misconfiguredAuth });
      echo.join(chat).error(errors.push);
      const { type, status } = await errors.next();
      assert.deepEqual({ type, status }, { type: 'AuthError', status: 401 });
      assert.equal(echo.connector.pusher.connection.state, 'connected');
      const carol = await join(t, 'carol');
      assert.deepEqual(sorted(carol.first), sorted([ANA.info, CAROL.info]));
      assert.deepEqual(await ana.joining.next(), CAROL.info);
    });

    test('after a restart of the server the members are there again', async (t) => {
      let own = await startServer();
      t.after(() => own.stop());
      const settings = { port: own.port };
      const [ana, bob] = [await join(t, 'ana', settings), await join(t, 'bob', settings)];
      await ana.joining.next();
      await own.stop();
      own = await startServer(settings);
      const again = await Promise.all([ana.here.next(), bob.here.next()]);
      // Who came back first saw the other one come.
      const [alone, both] = again.sort((one, other) => one.length - other.length);
      assert.deepEqual([alone.length, sorted(both)], [1, sorted([ANA.info, BOB.info])]);
      const [first, second] = alone[0].name === ANA.info.name ? [ana, BOB] : [bob, ANA];
      assert.deepEqual(await first.joining.next(), second.info);
      assert.deepEqual([ana.members.count, bob.members.count], [2, 2]);
    });
  });
}

/** The order of members is the client's affair: objects put numbers first. */
function sorted(infos) {
  return infos.toSorted((one, other) => (one.name < other.name ? -1 : 1));
}
