// What a receiver does with a request. `takes` says whether that means that it has its events.

import { Readable, pipeline } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

const ignore = () => {};

/** Takes it. */
export const taken = { takes: true, reply: (request, response) => response.writeHead(200).end('thank you') };

/** Answers so much later. */
export const after = (milliseconds, answer) => ({
  takes: answer.takes,
  async reply(request, response) {
    await sleep(milliseconds);
    answer.reply(request, response);
  },
});

/** Has a status that means that it was not taken. */
export const status = (code, headers = {}) => ({
  takes: false,
  reply: (request, response) => response.writeHead(code, headers).end(),
});

/** Sends the sender elsewhere. */
export const redirect = (url) => status(301, { Location: url });

/** Never answers. */
export const hangs = { takes: false, reply: ignore };

/** Answers in another protocol. */
export const garbage = { takes: false, reply: ({ socket }) => socket.end('SSH-2.0-OpenSSH_9.2p1\r\n\0\xff') };

/** Closes the connection without a word. */
export const closes = { takes: false, reply: ({ socket }) => socket.destroy() };

/** Closes the connection in the middle of the head of its answer. */
export const breaksOff = { takes: false, reply: ({ socket }) => socket.end('HTTP/1.1 200 OK\r\nContent-Len') };

/** Sends headers without end, as fast as they are read. */
export const endlessHead = {
  takes: false,
  reply: ({ socket }) => pipeline(Readable.from(endless('HTTP/1.1 200 OK\r\n', `X-Filler: ${'x'.repeat(1000)}\r\n`)), socket, ignore),
};

/** Sends a header now and then, so that the answer's head has no end. */
export const dribbles = {
  takes: false,
  async reply({ socket }) {
    socket.write('HTTP/1.1 200 OK\r\n');
    while (!socket.destroyed) {
      socket.write('X-Filler: x\r\n');
      await sleep(200);
    }
  },
};

/** Takes it, with an answer that has no end. */
export const endlessBody = {
  takes: true,
  reply(request, response) {
    response.writeHead(200);
    pipeline(Readable.from(endless('x'.repeat(10_000), 'x'.repeat(10_000))), response, ignore);
  },
};

/** Takes it, with an answer whose body does not come. */
export const hangsInBody = {
  takes: true,
  reply(request, response) {
    response.writeHead(200, { 'Content-Length': 100 });
    response.write('thank');
  },
};

/** Takes it, and closes the connection in the middle of the answer's body. */
export const breaksOffBody = {
  takes: true,
  reply: ({ socket }) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthank'),
};

function* endless(first, next) {
  yield first;
  for (;;) yield next;
}
