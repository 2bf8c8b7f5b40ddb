// Laravel's /broadcasting/auth, as recorded from Laravel 11: who presents a known
// token and takes part in the channel gets its signature. Beside it
// /broadcasting/user-auth, where a user gets the signature to sign in with.

import { createServer } from 'node:http';
import { APP, authentication, authorization } from './app.mjs';

/**
 * `channels` has, by token, the names that it may subscribe to. It may be changed
 * while the endpoint runs. `users` has, by token, whose it is: an `id`, and perhaps
 * `info` and a `watchlist`. A `secret` other than the server's makes signatures that
 * the server has to refuse.
 */
export async function startAuthEndpoint({
  channels,
  users = {},
  port = 0,
  path = '/broadcasting/auth',
  secret = APP.secret,
}) {
  const userPath = path.replace(/auth$/, 'user-auth');
  const server = createServer(async (request, response) => {
    const reply = (status, body, headers = {}) => {
      response.writeHead(status, {
        'Access-Control-Allow-Origin': '*',
        'Content-Type': 'application/json',
        ...headers,
      });
      response.end(body && JSON.stringify(body));
    };
    const parts = [];
    for await (const part of request) parts.push(part);
    const body = Buffer.concat(parts).toString();

    if (![path, userPath].includes(request.url)) return reply(404, { message: 'Not Found' });
    // The page is of another origin, and its Authorization header needs permission.
    if (request.method === 'OPTIONS') {
      return reply(204, undefined, {
        'Access-Control-Allow-Methods': 'POST',
        'Access-Control-Allow-Headers': request.headers['access-control-request-headers'] ?? '',
      });
    }
    const token = request.headers.authorization?.replace(/^Bearer /, '');
    const [allowed, user] = [channels[token], users[token]];
    if (!allowed) return reply(401, { message: 'Unauthenticated.' });
    const { socket_id: socketId, channel_name: channel } = fields(request, body);
    if (request.url === userPath) {
      return user ? reply(200, authentication(socketId, user, { secret })) : reply(403, { message: '' });
    }
    if (!allowed.includes(channel)) return reply(403, { message: '' });
    return reply(200, authorization(socketId, channel, { secret, user }));
  });
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${server.address().port}`;
  return {
    url: origin + path,
    userUrl: origin + userPath,
    stop() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

/** pusher-js sends a form; applications with an authoriser of their own send JSON. */
function fields(request, body) {
  const isJson = request.headers['content-type']?.startsWith('application/json');
  return isJson ? JSON.parse(body) : Object.fromEntries(new URLSearchParams(body));
}
