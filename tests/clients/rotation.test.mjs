// Key and secret are replaced while the Node SDK publishes and pusher-js subscribes:
// nothing is refused and nothing is lost.

import assert from 'node:assert/strict';
import Pusher from 'pusher-js';
import { APP, publisher } from './support/app.mjs';
import { framesOf, subscribe } from './support/pusher-js.mjs';
import { startWithDotenv } from './support/server.mjs';
import { test } from './support/test.mjs';
import { within } from './support/wait.mjs';

const OLD = { key: 'old-key', secret: 'old-secret' };
const NEW = { key: 'new-key', secret: 'new-secret' };

const dotenv = ({ key, secret }, previous) =>
  [
    `REVERB_APP_ID=${APP.id}`,
    `REVERB_APP_KEY=${key}`,
    `REVERB_APP_SECRET=${secret}`,
    ...(previous ? [`RESOUND_APP_PREVIOUS_KEY=${previous.key}`, `RESOUND_APP_PREVIOUS_SECRET=${previous.secret}`] : []),
    '',
  ].join('\n');

test('credentials are replaced under traffic', async (t) => {
  const server = await startWithDotenv(dotenv(OLD));
  t.after(() => server.stop());
  const sdkOf = (credentials) => publisher(server.port, credentials);

  /** A page that was built with this key, and whose back end signs with the SDK. */
  const open = (credentials) => {
    const pusher = new Pusher(credentials.key, {
      cluster: '',
      wsHost: '127.0.0.1',
      wsPort: server.port,
      forceTLS: false,
      enabledTransports: ['ws'],
      channelAuthorization: {
        customHandler: ({ socketId, channelName }, done) =>
          done(null, sdkOf(credentials).authorizeChannel(socketId, channelName)),
      },
    });
    t.after(() => pusher.disconnect());
    return pusher;
  };

  const witness = open(OLD);
  await subscribe(witness, 'private-chat.1');
  const frames = framesOf(witness, 'private-chat.1');

  // Publishes until it is told to stop; each is to be accepted.
  let sent = 0;
  let credentials = OLD;
  let isOver = false;
  const publishing = (async () => {
    while (!isOver) {
      await sdkOf(credentials).trigger('private-chat.1', 'message.sent', { number: sent });
      sent += 1;
    }
  })();

  const pause = () => new Promise((resolve) => setTimeout(resolve, 100));
  const subscribes = async (of) => subscribe(open(of), 'private-chat.2');
  await pause();
  // First the server takes both, then everybody signs with the new ones, then only those count.
  server.writeDotenv(dotenv(NEW, OLD));
  await server.reload();
  await Promise.all([subscribes(OLD), subscribes(NEW), pause()]);
  credentials = NEW;
  await pause();
  server.writeDotenv(dotenv(NEW));
  await server.reload();
  await Promise.all([subscribes(NEW), pause()]);
  isOver = true;
  await publishing;
  assert.ok(sent > 10, `${sent} were published`);
  for (let number = 0; number < sent; number += 1) {
    assert.deepEqual((await frames.next()).data, { number });
  }

  const refused = sdkOf(OLD).trigger('private-chat.1', 'message.sent', {});
  await assert.rejects(within('the answer', refused), ({ status }) => status === 401);
  assert.equal(witness.connection.state, 'connected', 'who is connected stays');
});
