"""A receiver of webhooks that only counts: run as a program, it prints its port, takes what comes,
each request after so many milliseconds, and prints how many events it got when its input ends."""

import asyncio
import sys

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
# Every event has one, and no data of the generator's has it.
MARK = b'"id":"'


class Receiver(asyncio.Protocol):
    """One connection."""

    events = 0
    requests = 0
    seconds = 0.0

    def connection_made(self, transport):
        self.transport, self.received = transport, bytearray()

    def data_received(self, data):
        self.received += data
        while True:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.received[:end].lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            whole = end + 4 + length
            if len(self.received) < whole:
                return
            Receiver.events += self.received.count(MARK, end, whole)
            Receiver.requests += 1
            del self.received[:whole]
            if Receiver.seconds:
                asyncio.get_running_loop().call_later(Receiver.seconds, self.transport.write, ANSWER)
            else:
                self.transport.write(ANSWER)


async def main():
    Receiver.seconds = float(sys.argv[1]) / 1000
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Receiver, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Asked with a line, it answers with a line.
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(Receiver.events, Receiver.requests, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
