// Whom the application takes out of a channel, and what laravel-echo and pusher-js do then.

import assert from 'node:assert/strict';
import { publisher } from './support/app.mjs';
import { startAuthEndpoint } from './support/auth-endpoint.mjs';
import { listen, load, open, VERSIONS } from './support/echo.mjs';
import { connect, reached, signIn } from './support/pusher-js.mjs';
import { startServer } from './support/server.mjs';
import { after, before, test } from './support/test.mjs';
import { Inbox } from './support/wait.mjs';

const ENDED = { type: 'Unsubscribed', error: 'The application has ended this subscription', status: 403 };
const ANA = { id: 'ana', info: { name: 'Ana' } };
const BOB = { id: 'bob', info: { name: 'Bob' } };

const channels = { ana: [], bob: [] };
let server;
let auth;
let sdk;

before(async () => {
  server = await startServer();
  auth = await startAuthEndpoint({ channels, users: { ana: ANA, bob: BOB } });
  sdk = publisher(server.port);
});

after(async () => {
  await auth?.stop();
  await server?.stop();
});

const remove = (channel, user) => sdk.post({ path: `/channels/${channel}/users/${user}/unsubscribe`, body: {} });

for (const { from, options } of VERSIONS) {
  test(`${from}: who is taken out hears nothing more, is told, and is judged anew`, async (t) => {
    const room = `removed-${from}`;
    channels.ana = channels.bob = [`presence-${room}`];
    const Echo = await load(from);
    const as = (token) => open(t, Echo, { port: server.port, auth, token, ...options });
    const [ana, bob] = [as('ana'), as('bob')];
    const [messages, others] = [await listen(ana.join(room)), await listen(bob.join(room))];
    const [errors, leaving] = [new Inbox('an error'), new Inbox('a member that leaves')];
    ana.join(room).error(errors.push);
    bob.join(room).leaving(leaving.push);

    channels.ana = [];
    const response = await remove(`presence-${room}`, 'ana');
    assert.deepEqual([response.status, await response.json()], [200, {}]);
    assert.deepEqual(await errors.next(), ENDED);
    assert.deepEqual(await leaving.next(), ANA.info);
    await sdk.trigger(`presence-${room}`, 'message.sent', { id: 1 });
    assert.deepEqual(await others.next(), { id: 1 });
    assert.deepEqual(messages.rest, []);

    // Back on the page, or with a new connection, the application is asked again.
    ana.leave(room);
    const refused = new Inbox('a refusal');
    ana.join(room).error(refused.push);
    assert.equal((await refused.next()).status, 403);
    channels.ana = [`presence-${room}`];
    ana.leave(room);
    const again = await listen(ana.join(room));
    await sdk.trigger(`presence-${room}`, 'message.sent', { id: 2 });
    assert.deepEqual(await again.next(), { id: 2 });
  });
}

for (const from of ['pusher-js', 'pusher-js-8-0']) {
  test(`${from}: reconnect=true ends the connection, and the client comes back and signs in again`, async (t) => {
    const { default: Pusher } = await import(from);
    const pusher = connect(t, Pusher, server.port, { user: ANA });
    await signIn(pusher);
    const before = pusher.connection.socket_id;
    const states = new Inbox('another state');
    pusher.connection.bind('state_change', states.push);
    const path = '/users/ana/terminate_connections';
    const response = await sdk.post({ path, params: { reconnect: 'true' }, body: {} });
    assert.equal(response.status, 200);
    assert.equal((await states.next()).current, 'connecting');
    await reached(pusher, 'connected');
    assert.notEqual(pusher.connection.socket_id, before);
    const messages = new Inbox('an event for Ana');
    pusher.user.bind('message.sent', messages.push);
    // Signing in follows by itself, and what is sent before it is over reaches nobody.
    const sending = setInterval(() => sdk.sendToUser('ana', 'message.sent', { to: 'Ana' }), 100);
    t.after(() => clearInterval(sending));
    assert.deepEqual(await messages.next(), { to: 'Ana' });
  });
}
