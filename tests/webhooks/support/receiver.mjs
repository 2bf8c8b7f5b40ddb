// A receiver of webhooks that verifies them with Pusher's SDK, and does what it is told to.

import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { sdk } from './app.mjs';
import { taken } from './answers.mjs';

/** A receiver that ends with the test. */
export async function startReceiver(t, options) {
  const receiver = new Receiver(options);
  await receiver.start();
  t.after(() => receiver.stop());
  return receiver;
}

export class Receiver {
  /** Those that were signed, in the order in which they came. */
  requests = [];

  /** Those that were not: how many. */
  forged = 0;

  #sockets = new Set();
  #server;
  #port = 0;
  #tls;

  /**
   * `answer` is what it does with a request, or returns that for each; it may be changed at any
   * time. With `tls` (`key` and `cert`, PEM, for localhost) it speaks that.
   */
  constructor({ answer = taken, tls } = {}) {
    this.answer = answer;
    this.#tls = tls;
  }

  get url() {
    const place = this.#tls ? 'https://localhost' : 'http://127.0.0.1';
    return `${place}:${this.#port}/webhooks?from=resound`;
  }

  /** Listens, after a stop on the port that it had before. */
  async start() {
    const receive = (request, response) => void this.#receive(request, response);
    this.#server = this.#tls ? createSecureServer(this.#tls, receive) : createServer(receive);
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      // Tests break connections, and servers are killed.
      socket.on('error', () => {});
      socket.on('close', () => this.#sockets.delete(socket));
    });
    await new Promise((resolve, reject) => this.#server.once('error', reject).listen(this.#port, '127.0.0.1', resolve));
    this.#port = this.#server.address().port;
  }

  /** Is not there any more. */
  async stop() {
    this.closeConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  closeConnections() {
    for (const socket of this.#sockets) socket.destroy();
  }

  async #receive(request, response) {
    const parts = [];
    try {
      for await (const part of request) parts.push(part);
    } catch {
      // Its sender is gone in the middle of it.
      return;
    }
    const rawBody = Buffer.concat(parts).toString();
    const webhook = sdk.webhook({ headers: request.headers, rawBody });
    if (!webhook.isValid()) {
      this.forged += 1;
      response.writeHead(401).end();
      return;
    }
    const answer = typeof this.answer === 'function' ? this.answer() : this.answer;
    const received = {
      method: request.method,
      target: request.url,
      headers: request.headers,
      /** As they are written. */
      headerNames: request.rawHeaders.filter((_, at) => at % 2 === 0),
      id: request.headers['x-resound-webhook-id'],
      body: rawBody,
      events: webhook.getEvents(),
      timeMs: webhook.getData().time_ms,
      isTaken: answer.takes,
      isAnswered: false,
    };
    this.requests.push(received);
    response.on('finish', () => (received.isAnswered = true));
    await answer.reply(request, response);
  }

  /** The requests that it has taken. */
  get taken() {
    return this.requests.filter(({ isTaken }) => isTaken);
  }

  /** The events that it has taken, each once however often it was delivered. */
  get events() {
    const byId = new Map();
    for (const event of this.taken.flatMap(({ events }) => events)) {
      if (!byId.has(event.id)) byId.set(event.id, event);
    }
    return [...byId.values()];
  }

  /** What it has taken of a channel, or of a user there: the names of the events. */
  namesOf(channel, user) {
    return this.events.filter((event) => event.channel === channel && event.user_id === user).map(({ name }) => name);
  }

  /** The requests that wait for its answer. */
  get waiting() {
    return this.requests.filter(({ isAnswered }) => !isAnswered);
  }
}
