// The application of the chat module's .env, and its back end: who signs and publishes.

import { createHash, createHmac } from 'node:crypto';
import PusherSdk from 'pusher';

export const APP = { id: 'my-app-id', key: 'my-app-key', secret: 'my-app-secret' };

/** Laravel's `encryption_master_key_base64`. The server never gets it. */
export const MASTER_KEY = Buffer.alloc(32, 'master key ').toString('base64');

/**
 * What `/broadcasting/auth` answers. `user` is needed for presence channels; without
 * it there is no `channel_data`, which is right for who has signed in.
 */
export function authorization(socketId, channel, { secret = APP.secret, user } = {}) {
  if (channel.startsWith('presence-') && user) {
    const channelData = phpJson({ user_id: user.id, user_info: user.info });
    return { auth: sign(`${socketId}:${channel}:${channelData}`, secret), channel_data: channelData };
  }
  const auth = sign(`${socketId}:${channel}`, secret);
  if (!channel.startsWith('private-encrypted-')) return { auth };
  const hash = createHash('sha256').update(channel).update(Buffer.from(MASTER_KEY, 'base64'));
  return { auth, shared_secret: hash.digest('base64') };
}

/** What `/broadcasting/user-auth` answers. */
export function authentication(socketId, { id, info, watchlist }, { secret = APP.secret } = {}) {
  const userData = phpJson({ id, user_info: info, watchlist });
  return { auth: sign(`${socketId}::user::${userData}`, secret), user_data: userData };
}

function sign(text, secret) {
  return `${APP.key}:${createHmac('sha256', secret).update(text).digest('hex')}`;
}

/** JSON as PHP's json_encode writes it, with slashes and all but ASCII escaped. */
function phpJson(value) {
  const escaped = (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return JSON.stringify(value).replaceAll('/', '\\/').replace(/[\u0080-\uffff]/g, escaped);
}

/** Pusher's server SDK, set up for the server on this port. */
export function publisher(port, { id = APP.id, key = APP.key, secret = APP.secret } = {}) {
  return new PusherSdk({
    appId: id,
    key,
    secret,
    encryptionMasterKeyBase64: MASTER_KEY,
    host: '127.0.0.1',
    port: String(port),
    useTLS: false,
    timeout: 10_000,
  });
}
