// A subscriber on a bare WebSocket.

import WebSocket from 'ws';
import { APP, sdk } from './app.mjs';
import { within } from './wait.mjs';

/** One connection, which ends with the test. */
export class Client {
  #socket;
  #frames = [];
  #look = () => {};

  /** Connects to the server on this port. */
  static async connect(t, port) {
    const client = new Client();
    client.#socket = new WebSocket(`ws://127.0.0.1:${port}/app/${APP.key}?protocol=7&client=test&version=1`);
    // Its server may be killed; what a test waits for then does not come, and it says so.
    client.#socket.on('error', () => {});
    client.#socket.on('message', (text) => {
      client.#frames.push(JSON.parse(text));
      client.#look();
    });
    client.closed = new Promise((resolve) => client.#socket.once('close', resolve));
    t.after(() => client.#socket.terminate());
    const { data } = await client.frame('pusher:connection_established');
    client.socketId = JSON.parse(data).socket_id;
    return client;
  }

  /** The next frame with this event, and of this channel if one is given. */
  frame(event, channel) {
    const take = (resolve) => {
      const is = (frame) => frame.event === event && (channel === undefined || frame.channel === channel);
      const at = this.#frames.findIndex(is);
      if (at >= 0) resolve(this.#frames.splice(at, 1)[0]);
    };
    const taken = new Promise((resolve) => {
      this.#look = () => take(resolve);
      take(resolve);
    });
    return within(`${event} of ${channel}`, taken, 20_000);
  }

  /** Subscribes, to a presence channel as this user, and is done when that is confirmed. */
  async subscribe(channel, user) {
    const data = { channel };
    if (/^(private|presence)-/.test(channel)) {
      Object.assign(data, sdk.authorizeChannel(this.socketId, channel, user !== undefined ? { user_id: user } : undefined));
    }
    this.send('pusher:subscribe', data);
    await this.frame('pusher_internal:subscription_succeeded', channel);
    return this;
  }

  /** Leaves a channel; nothing confirms it. */
  unsubscribe(channel) {
    this.send('pusher:unsubscribe', { channel });
  }

  send(event, data, channel) {
    this.#socket.send(JSON.stringify({ event, channel, data }));
  }

  /** Closes the connection, and is done when it is closed. */
  async close() {
    this.#socket.close();
    await within('the connection to be closed', this.closed);
  }
}

/** A new connection that is subscribed to a presence channel as this user. */
export async function join(t, port, channel, user) {
  const client = await Client.connect(t, port);
  return client.subscribe(channel, user);
}
