// pusher-js against a server on this machine.

import { APP, sign } from './app.mjs';
import { Inbox, within } from './wait.mjs';

/** Where the server is, in the words of both pusher-js and laravel-echo. */
export function address(port) {
  return {
    wsHost: '127.0.0.1',
    wsPort: port,
    wssPort: port,
    forceTLS: false,
    enabledTransports: ['ws', 'wss'],
  };
}

/** Signs private channels without an endpoint. */
export const signing = (secret) => ({
  customHandler: ({ socketId, channelName }, done) => done(null, { auth: sign(socketId, channelName, secret) }),
});

/** A client that ends with the test. */
export function connect(t, Pusher, port, { key = APP.key, ...options } = {}) {
  const pusher = new Pusher(key, {
    cluster: '',
    channelAuthorization: signing(APP.secret),
    ...address(port),
    ...options,
  });
  t.after(() => pusher.disconnect());
  return pusher;
}

/** Is done when the connection is in this state. */
export function reached(pusher, state) {
  const { connection } = pusher;
  if (connection.state === state) return Promise.resolve();
  const change = new Promise((resolve) => connection.bind(state, resolve));
  return within(`the connection to be ${state}`, change);
}

/** Subscribes and is done when the server has confirmed it. */
export async function subscribe(pusher, name) {
  const channel = pusher.subscribe(name);
  const confirmed = new Promise((resolve) => channel.bind('pusher:subscription_succeeded', resolve));
  await within(`the subscription to ${name}`, confirmed);
  return channel;
}

/**
 * Every frame of a channel that arrives from now on. Listeners of a channel would
 * not show what the server goes on sending after the client has left it.
 */
export function framesOf(pusher, channel) {
  const frames = new Inbox(`a frame of ${channel}`);
  pusher.connection.bind('message', (frame) => frame.channel === channel && frames.push(frame));
  return frames;
}
