// pusher-js itself, in the newest release and in the one that the chat module loads.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { publisher } from './support/app.mjs';
import { connect, framesOf, reached, signing, subscribe } from './support/pusher-js.mjs';
import { startServer } from './support/server.mjs';
import { after, before, describe, test } from './support/test.mjs';
import { Inbox } from './support/wait.mjs';

let server;
let pingingServer;
let countingServer;
// The two limits that a client may hit: of all messages, of client events.
const limitedServers = {};

before(async () => {
  server = await startServer();
  // Pings after a second of silence, and gives up a second later.
  const env = { REVERB_APP_PING_INTERVAL: '1', RESOUND_PONG_TIMEOUT: '1' };
  pingingServer = await startServer({ env });
  countingServer = await startServer({ env: { RESOUND_SUBSCRIPTION_COUNT: 'true' } });
  limitedServers.messages = await startServer({
    env: { REVERB_APP_RATE_LIMITING_ENABLED: 'true', REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS: '5' },
  });
  limitedServers['client events'] = await startServer({ env: { RESOUND_CLIENT_EVENT_MAX_PER_SECOND: '5' } });
});

after(async () => {
  const servers = [server, pingingServer, countingServer, ...Object.values(limitedServers)];
  for (const started of servers) await started?.stop();
});

for (const from of ['pusher-js', 'pusher-js-8-0']) {
  describe(from, () => {
    let Pusher;

    before(async () => {
      ({ default: Pusher } = await import(from));
    });

    test('goes from connecting to connected to disconnected', async (t) => {
      const pusher = connect(t, Pusher, server.port);
      const states = statesOf(pusher);
      await reached(pusher, 'connected');
      assert.match(pusher.connection.socket_id, /^\d+\.\d+$/);
      pusher.disconnect();
      assert.deepEqual(states, ['connecting -> connected', 'connected -> disconnected']);
    });

    test('public and signed private channels raise subscription_succeeded', async (t) => {
      const pusher = connect(t, Pusher, server.port);
      for (const name of ['lobby', 'private-chat.1']) {
        const channel = await subscribe(pusher, name);
        assert.equal(channel.subscribed, true, name);
      }
    });

    test('a bad signature raises subscription_error on its channel and harms no other', async (t) => {
      const pusher = connect(t, Pusher, server.port, { channelAuthorization: signing('a wrong secret') });
      const errors = new Inbox('subscription_error');
      const channel = pusher.subscribe('private-chat.1').bind('pusher:subscription_error', errors.push);
      const { type, status } = await errors.next();
      assert.deepEqual({ type, status }, { type: 'AuthError', status: 401 });
      assert.equal(channel.subscribed, false);
      await subscribe(pusher, 'lobby');
      assert.equal(pusher.connection.state, 'connected');
    });

    test('an unknown key ends with error 4001, and the client does not come back', async (t) => {
      const pusher = connect(t, Pusher, server.port, { key: 'no-such-key' });
      const errors = new Inbox('a connection error');
      pusher.connection.bind('error', errors.push);
      const { error } = await errors.next();
      assert.equal(error.data.code, 4001);
      await reached(pusher, 'disconnected');
      const states = statesOf(pusher);
      // Where pusher-js does come back, it does so after one second.
      await sleep(1500);
      assert.deepEqual(states, []);
    });

    test("the client's pings are answered and keep the connection", async (t) => {
      const pusher = connect(t, Pusher, server.port, { activityTimeout: 300, pongTimeout: 1000 });
      const pongs = new Inbox('a pong');
      pusher.connection.bind('message', ({ event }) => event === 'pusher:pong' && pongs.push(event));
      await reached(pusher, 'connected');
      const states = statesOf(pusher);
      for (let count = 0; count < 5; count += 1) await pongs.next();
      assert.deepEqual(states, []);
    });

    test("a client that only listens keeps its connection under the server's pings", async (t) => {
      const pusher = connect(t, Pusher, pingingServer.port);
      await reached(pusher, 'connected');
      const states = statesOf(pusher);
      // Without an answer the server would have closed after two seconds of silence.
      await sleep(4000);
      assert.deepEqual(states, []);
      await subscribe(pusher, 'lobby');
    });

    test('nothing arrives on a channel after unsubscribe', async (t) => {
      const pusher = connect(t, Pusher, server.port);
      await subscribe(pusher, 'lobby');
      const frames = framesOf(pusher, 'lobby');
      pusher.unsubscribe('lobby');
      // Frames of one socket are handled in order: this answer comes after the unsubscription.
      await subscribe(pusher, 'news');
      const news = framesOf(pusher, 'news');
      const sdk = publisher(server.port);
      await sdk.trigger('lobby', 'message.sent', 'not for who left');
      await sdk.trigger('news', 'message.sent', 'afterwards');
      assert.equal((await news.next()).data, 'afterwards');
      assert.deepEqual(frames.rest, []);
    });

    test('subscription_count tells subscribers how many they are, where it is switched on', async (t) => {
      const open = () => {
        const pusher = connect(t, Pusher, countingServer.port);
        const counts = new Inbox('subscription_count');
        const name = `private-${from}`;
        const channel = pusher.subscribe(name).bind('pusher:subscription_count', counts.push);
        return { pusher, name, channel, counts };
      };
      const first = open();
      assert.deepEqual(await first.counts.next(), { subscription_count: 1 });
      const second = open();
      for (const { counts, channel } of [first, second]) {
        assert.deepEqual(await counts.next(), { subscription_count: 2 });
        assert.equal(channel.subscriptionCount, 2);
      }
      second.pusher.unsubscribe(second.name);
      assert.deepEqual(await first.counts.next(), { subscription_count: 1 });
      assert.equal(first.channel.subscriptionCount, 1);
      assert.deepEqual([first.counts.rest, second.counts.rest], [[], []]);
    });

    for (const limited of ['messages', 'client events']) {
      test(`too many ${limited} are answered with error 4301, and the connection goes on`, async (t) => {
        const { port } = limitedServers[limited];
        const [pusher, other] = [connect(t, Pusher, port), connect(t, Pusher, port)];
        const name = `private-${from}`;
        const [own, others] = await Promise.all([pusher, other].map((each) => subscribe(each, name)));
        const errors = new Inbox('an error');
        const [toOwn, toOthers] = [own, others].map((channel) => {
          const inbox = new Inbox(`an event on ${name}`);
          for (const event of ['client-typing', 'message.sent']) channel.bind(event, inbox.push);
          return inbox;
        });
        pusher.connection.bind('error', errors.push);
        const states = statesOf(pusher);
        for (let n = 1; n <= 6; n += 1) own.trigger('client-typing', n);
        const { type, data } = await errors.next();
        assert.deepEqual([type, data.code], ['PusherError', 4301]);
        await publisher(port).trigger(name, 'message.sent', 'still heard');
        assert.equal(await toOwn.next(), 'still heard');
        // What was over the limit was dropped, and nothing else was. The subscription
        // is a message, too.
        const delivered = [1, 2, 3, 4, 5].slice(0, limited === 'messages' ? 4 : 5);
        for (const expected of [...delivered, 'still heard']) assert.equal(await toOthers.next(), expected);
        assert.deepEqual(states, []);
      });
    }
  });
}

/** The changes of state from now on. */
function statesOf(pusher) {
  const changes = [];
  pusher.connection.bind('state_change', ({ previous, current }) => changes.push(`${previous} -> ${current}`));
  return changes;
}
