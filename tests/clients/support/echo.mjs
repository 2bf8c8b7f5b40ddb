// laravel-echo on pusher-js in Node, in the releases that are in use.

import Pusher from 'pusher-js';
import { APP } from './app.mjs';
import { address } from './pusher-js.mjs';
import { Inbox, within } from './wait.mjs';

export const VERSIONS = [
  { from: 'echo-2', options: { broadcaster: 'reverb' } },
  { from: 'echo-1-19', options: { broadcaster: 'reverb' } },
  { from: 'echo-1-16', options: { broadcaster: 'reverb' } },
  // This one does not know the broadcaster 'reverb', and pusher-js wants a cluster.
  { from: 'echo-1-15', options: { broadcaster: 'pusher', cluster: 'mt1' } },
];

/** The class that a release exports. */
export async function load(from) {
  const { default: exported } = await import(from);
  return exported.default ?? exported;
}

/** An Echo that ends with the test. `auth` is the endpoint, `token` who asks there. */
export function open(t, Echo, { port, auth, token, ...options }) {
  const headers = { Authorization: `Bearer ${token}`, Accept: 'application/json' };
  const echo = new Echo({
    ...address(port),
    Pusher,
    key: APP.key,
    authEndpoint: auth.url,
    auth: { headers },
    userAuthentication: { endpoint: auth.userUrl, headers },
    ...options,
  });
  t.after(() => echo.disconnect());
  return echo;
}

/** What `message.sent` brings on a channel, once its subscription is confirmed. */
export async function listen(channel) {
  const messages = new Inbox(`message.sent on ${channel.name}`);
  channel.listen('.message.sent', messages.push);
  await within(`the subscription to ${channel.name}`, new Promise((resolve) => channel.subscribed(resolve)));
  return messages;
}
