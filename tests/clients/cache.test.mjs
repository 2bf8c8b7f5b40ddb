// Cache channels: who comes later gets the last event first.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { publisher } from './support/app.mjs';
import { connect, framesOf } from './support/pusher-js.mjs';
import { startServer } from './support/server.mjs';
import { after, before, describe, test } from './support/test.mjs';
import { Inbox } from './support/wait.mjs';

const ANA = { id: '1', info: { name: 'Ana' } };

let server;
let forgetfulServer;

before(async () => {
  server = await startServer();
  forgetfulServer = await startServer({ env: { RESOUND_CACHE_TTL: '1' } });
});

after(async () => {
  await server?.stop();
  await forgetfulServer?.stop();
});

for (const from of ['pusher-js', 'pusher-js-8-0']) {
  describe(from, () => {
    let Pusher;

    before(async () => {
      ({ default: Pusher } = await import(from));
    });

    /** A subscription, and all that the application hears of its channel. */
    function open(t, name, port = server.port) {
      const pusher = connect(t, Pusher, port, { user: ANA });
      const heard = new Inbox(`something on ${name}`);
      const channel = pusher.subscribe(name).bind('pusher:subscription_succeeded', () => heard.push('subscribed'));
      for (const event of ['pusher:cache_miss', 'price']) {
        channel.bind(event, (data) => heard.push(typeof data === 'string' ? `${event} ${data}` : event));
      }
      return { pusher, channel, heard };
    }

    for (const kind of ['cache', 'private-cache', 'presence-cache']) {
      test(`${kind}: a miss at first, then the last event, also when all had left`, async (t) => {
        const name = `${kind}-${from}`;
        const sdk = publisher(server.port);
        const first = open(t, name);
        assert.deepEqual([await first.heard.next(), await first.heard.next()], ['subscribed', 'pusher:cache_miss']);
        await sdk.trigger(name, 'price', 'one');
        await sdk.trigger(name, 'price', 'two');
        assert.deepEqual([await first.heard.next(), await first.heard.next()], ['price one', 'price two']);
        const second = open(t, name);
        assert.deepEqual([await second.heard.next(), await second.heard.next()], ['subscribed', 'price two']);
        for (const { pusher } of [first, second]) pusher.disconnect();
        await vacant(sdk, name);
        const third = open(t, name);
        assert.deepEqual([await third.heard.next(), await third.heard.next()], ['subscribed', 'price two']);
        await sdk.trigger(name, 'price', 'three');
        assert.equal(await third.heard.next(), 'price three');
        for (const { heard } of [first, second, third]) assert.deepEqual(heard.rest, []);
      });
    }

    test('what was published to nobody is kept for who comes, and comes again', async (t) => {
      const name = `cache-early-${from}`;
      await publisher(server.port).trigger(name, 'price', 'early');
      const { heard, pusher } = open(t, name);
      assert.deepEqual([await heard.next(), await heard.next()], ['subscribed', 'price early']);
      pusher.unsubscribe(name);
      const frames = framesOf(pusher, name);
      pusher.subscribe(name);
      await frames.next();
      assert.deepEqual(await frames.next(), { event: 'price', data: 'early', channel: name });
    });

    test('an event is forgotten after its time', async (t) => {
      const name = `cache-${from}`;
      await publisher(forgetfulServer.port).trigger(name, 'price', 'old');
      await sleep(1200);
      const { heard } = open(t, name, forgetfulServer.port);
      assert.deepEqual([await heard.next(), await heard.next()], ['subscribed', 'pusher:cache_miss']);
    });
  });
}

/** Is done when the server has seen that nobody is in the channel any more. */
async function vacant(sdk, channel) {
  const occupied = async () => (await (await sdk.get({ path: `/channels/${channel}` })).json()).occupied;
  while (await occupied()) await sleep(10);
}
