// The application of the chat module's .env, and its back end: who signs and publishes.

import { createHmac } from 'node:crypto';
import PusherSdk from 'pusher';

export const APP = { id: 'my-app-id', key: 'my-app-key', secret: 'my-app-secret' };

/** What `/broadcasting/auth` puts into `auth` for a private channel. */
export function sign(socketId, channel, secret = APP.secret) {
  const signature = createHmac('sha256', secret).update(`${socketId}:${channel}`).digest('hex');
  return `${APP.key}:${signature}`;
}

/** Pusher's server SDK, set up for the server on this port. */
export function publisher(port, { id = APP.id, secret = APP.secret } = {}) {
  return new PusherSdk({
    appId: id,
    key: APP.key,
    secret,
    host: '127.0.0.1',
    port: String(port),
    useTLS: false,
    timeout: 10_000,
  });
}
