// pusher-js against a server on this machine.

import { APP, authentication, authorization } from './app.mjs';
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

/** Signs channels without an endpoint, presence channels for this user. */
export const signing = (secret, user) => ({
  customHandler: ({ socketId, channelName }, done) => done(null, authorization(socketId, channelName, { secret, user })),
});

/** A client that ends with the test, of a user if one is given. */
export function connect(t, Pusher, port, { key = APP.key, user, ...options } = {}) {
  const pusher = new Pusher(key, {
    cluster: '',
    channelAuthorization: signing(APP.secret, user),
    userAuthentication: { customHandler: ({ socketId }, done) => done(null, authentication(socketId, user)) },
    ...address(port),
    ...options,
  });
  let socket;
  pusher.connection.bind('connected', () => {
    ({ socket } = pusher.connection.connection.transport);
  });
  t.after(() => {
    pusher.disconnect();
    // Refused by the server, pusher-js closes again what is closed, and waits for the
    // answer for 30 s, in which the process of the tests would not end.
    clearTimeout(socket?._closeTimer);
  });
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

/** Signs in and is done when the user's own channel is confirmed. */
export async function signIn(pusher) {
  const confirmed = new Promise((resolve) => {
    pusher.connection.bind('message', ({ event, channel }) => {
      if (channel?.startsWith('#server-to-user-') && event.endsWith(':subscription_succeeded')) resolve();
    });
  });
  pusher.signin();
  await within('the sign-in', confirmed);
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
