// Signed-in users: events for them alone, who of a watchlist is online, and their end.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { publisher } from './support/app.mjs';
import { startAuthEndpoint } from './support/auth-endpoint.mjs';
import { load, open, VERSIONS } from './support/echo.mjs';
import { connect, reached, signIn, signing, subscribe } from './support/pusher-js.mjs';
import { startServer } from './support/server.mjs';
import { after, before, beforeEach, describe, test } from './support/test.mjs';
import { Inbox } from './support/wait.mjs';

let server;
let strictServer;
let auth;
let misconfiguredAuth;
let sdk;

// Users for each test, whose connections of the test before are not still ending.
let ana;
let bob;
let count = 0;
const users = {};

before(async () => {
  const channels = { ana: [], stranger: [] };
  server = await startServer();
  strictServer = await startServer({ env: { RESOUND_AUTHORIZATION_TIMEOUT: '1' } });
  auth = await startAuthEndpoint({ channels, users });
  misconfiguredAuth = await startAuthEndpoint({ channels, users, secret: 'of-another-application' });
  sdk = publisher(server.port);
});

after(async () => {
  await auth?.stop();
  await misconfiguredAuth?.stop();
  await strictServer?.stop();
  await server?.stop();
});

beforeEach(() => {
  count += 1;
  bob = { id: `bob-${count}`, info: { name: 'Bob' } };
  ana = { id: `ana-${count}`, info: { name: 'Ana', avatar: '/a/ñ.png' }, watchlist: [bob.id, 'nobody'] };
  users.ana = ana;
});

for (const { from, options } of VERSIONS) {
  test(`${from}: connector.signin() asks the endpoint and signs in`, async (t) => {
    const Echo = await load(from);
    const echo = open(t, Echo, { port: server.port, auth, token: 'ana', ...options });
    const { pusher } = echo.connector;
    const messages = new Inbox('an event for Ana');
    pusher.user.bind('message.sent', messages.push);
    await signIn(pusher);
    await sdk.sendToUser(ana.id, 'message.sent', { to: 'Ana' });
    assert.deepEqual(await messages.next(), { to: 'Ana' });
  });
}

for (const from of ['pusher-js', 'pusher-js-8-0']) {
  describe(from, () => {
    let Pusher;

    before(async () => {
      ({ default: Pusher } = await import(from));
    });

    const as = (t, user, settings) => connect(t, Pusher, server.port, { user, ...settings });
    const asking = ({ userUrl }, token = 'ana') => ({
      userAuthentication: { endpoint: userUrl, headers: { Authorization: `Bearer ${token}` } },
    });

    test('signin() asks the endpoint, and the user is known', async (t) => {
      const pusher = connect(t, Pusher, server.port, asking(auth));
      await signIn(pusher);
      assert.deepEqual(pusher.user.user_data, { id: ana.id, user_info: ana.info, watchlist: ana.watchlist });
    });

    test('an endpoint that refuses leaves the connection as it is', async (t) => {
      const pusher = connect(t, Pusher, server.port, asking(auth, 'stranger'));
      await reached(pusher, 'connected');
      pusher.signin();
      await pusher.user.signinDonePromise;
      assert.equal(pusher.user.user_data, null);
      await subscribe(pusher, 'lobby');
    });

    test('a bad signature is answered with error 4009, and nobody is signed in', async (t) => {
      const pusher = connect(t, Pusher, server.port, asking(misconfiguredAuth));
      const errors = new Inbox('a connection error');
      pusher.connection.bind('error', errors.push);
      pusher.signin();
      const { data } = await errors.next();
      assert.equal(data.code, 4009);
      assert.equal(pusher.user.user_data, null);
      await subscribe(pusher, 'lobby');
    });

    test('sendToUser reaches all connections of the user and of nobody else', async (t) => {
      const [first, second, other] = [as(t, ana), as(t, ana), as(t, bob)];
      await Promise.all([first, second, other].map(signIn));
      const inboxes = [first, second, other].map((pusher) => {
        const inbox = new Inbox('an event for the user');
        pusher.user.bind('message.sent', inbox.push);
        return inbox;
      });
      await sdk.sendToUser(ana.id, 'message.sent', { to: 'Ana' });
      await sdk.sendToUser(bob.id, 'message.sent', { to: 'Bob' });
      const received = await Promise.all(inboxes.map((inbox) => inbox.next()));
      assert.deepEqual(received, [{ to: 'Ana' }, { to: 'Ana' }, { to: 'Bob' }]);
      for (const { rest } of inboxes) assert.deepEqual(rest, []);
    });

    test('the watchlist tells who is online, comes and goes, whatever the number of tabs', async (t) => {
      const pusher = as(t, ana);
      const events = new Inbox('an event of the watchlist');
      for (const name of ['online', 'offline']) pusher.user.watchlist.bind(name, events.push);
      await signIn(pusher);
      assert.deepEqual(await events.next(), { name: 'offline', user_ids: [bob.id, 'nobody'] });
      const tabs = [as(t, bob), as(t, bob)];
      for (const tab of tabs) await signIn(tab);
      assert.deepEqual(await events.next(), { name: 'online', user_ids: [bob.id] });
      const late = as(t, ana);
      const lateEvents = new Inbox('an event of the watchlist');
      for (const name of ['online', 'offline']) late.user.watchlist.bind(name, lateEvents.push);
      await signIn(late);
      assert.deepEqual(await lateEvents.next(), { name: 'online', user_ids: [bob.id] });
      assert.deepEqual(await lateEvents.next(), { name: 'offline', user_ids: ['nobody'] });
      for (const tab of tabs) tab.disconnect();
      for (const inbox of [events, lateEvents]) {
        assert.deepEqual(await inbox.next(), { name: 'offline', user_ids: [bob.id] });
        assert.deepEqual(inbox.rest, []);
      }
    });

    test('terminateUserConnections ends all of a user for good, and nobody else', async (t) => {
      const [first, second, other] = [as(t, ana), as(t, ana), as(t, bob)];
      await Promise.all([first, second, other].map(signIn));
      // A user that only is in a presence channel is one, too.
      const member = as(t, ana);
      await subscribe(member, 'presence-chat.1');
      const response = await sdk.terminateUserConnections(ana.id);
      assert.deepEqual([response.status, await response.json()], [200, {}]);
      await Promise.all([first, second, member].map((pusher) => reached(pusher, 'disconnected')));
      // Where pusher-js does come back, it does so after one second.
      await sleep(1500);
      for (const { connection } of [first, second, member]) assert.equal(connection.state, 'disconnected');
      assert.equal(other.connection.state, 'connected');
    });

    test('a presence channel needs no channel_data of who has signed in', async (t) => {
      const witness = await subscribe(as(t, bob), `presence-${from}`);
      const added = new Inbox('member_added');
      witness.bind('pusher:member_added', added.push);
      const pusher = as(t, ana, { channelAuthorization: signing() });
      pusher.signin();
      const { members } = await subscribe(pusher, `presence-${from}`);
      assert.deepEqual(members.me, { id: ana.id, info: ana.info });
      assert.equal(members.count, 2);
      assert.deepEqual(await added.next(), { id: ana.id, info: ana.info });
    });

    test('who neither signs in nor joins a private channel in time is disconnected', async (t) => {
      const [idle, user, member] = [1, 2, 3].map(() => connect(t, Pusher, strictServer.port, { user: ana }));
      await Promise.all([subscribe(idle, 'lobby'), signIn(user), subscribe(member, 'private-chat.1')]);
      const errors = new Inbox('a connection error');
      idle.connection.bind('error', errors.push);
      const { data } = await errors.next();
      assert.equal(data.code, 4009);
      await reached(idle, 'disconnected');
      await sleep(1500);
      const states = [idle, user, member].map(({ connection }) => connection.state);
      assert.deepEqual(states, ['disconnected', 'connected', 'connected']);
    });
  });
}
