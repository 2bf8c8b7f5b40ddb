"""A WebSocket client over a plain socket, and plain HTTP exchanges.

A library would hide what is compared here: headers, close codes, and whether the
connection ended with or without a close frame.
"""

import select
import socket
import time

from . import frames, normal

HANDSHAKE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
IO_S = 5
PROMISED_S = 2


class Peer:
    """One client connection. `events` holds what came, in order, as (kind, ...) tuples."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=IO_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.events = []
        self.answers_pings = True
        self.ended = False
        self._closing = False
        self._told_close = False
        self._barriers = 0
        self._passed = 0

    def handshake(self, path, extra=None):
        """Asks for a WebSocket; returns the response's code, header lines and body."""
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: localhost",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {HANDSHAKE_KEY}",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in (extra or {}).items()),
        ]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        data = b""
        while normal.split_response(data) is None:
            piece = self.socket.recv(65536)
            if not piece:
                return 0, [], ""
            data += piece
        code, header_lines, rest = normal.split_response(data)
        if code == 101:
            self.buffer = rest
            self._parse()
            return code, header_lines, ""
        length = normal.content_length(header_lines)
        while length is None or len(rest) < length:
            piece = self.socket.recv(65536)
            if not piece:
                break
            rest += piece
        self.end()
        return code, header_lines, rest.decode()

    def send(self, opcode, payload):
        self.send_raw(frames.encode(opcode, payload))

    def send_raw(self, data):
        """Sends unless the connection has ended, as a client's library would."""
        if self.ended:
            return
        try:
            self.socket.sendall(data)
        except OSError:
            self.pump(0)

    def close(self, code, reason=""):
        self._closing = True
        self.send(frames.CLOSE, code.to_bytes(2, "big") + reason.encode())

    def barrier(self):
        """Sends a ping whose pong will tell that all before it has been handled."""
        if self._closing or self.ended:
            return
        self._barriers += 1
        self.send(frames.PING, b"barrier%d" % self._barriers)

    def settled(self):
        return self.ended or self._closing or self._passed >= self._barriers

    def end(self):
        self.ended = True
        self.socket.close()

    def pump(self, wait_s):
        """Reads what has come within the time, and takes it apart."""
        if self.ended:
            return
        readable, _, _ = select.select([self.socket], [], [], wait_s)
        if not readable:
            return
        try:
            piece = self.socket.recv(1 << 20)
        except OSError:
            piece = b""
        if not piece:
            if not self._told_close:
                self.events.append(("close", 1006, ""))
            self.end()
            return
        self.buffer += piece
        self._parse()

    def _parse(self):
        while (found := frames.decode(self.buffer)) is not None:
            opcode, payload, self.buffer = found
            self._take(opcode, payload)

    def _take(self, opcode, payload):
        if opcode == frames.PONG and payload.startswith(b"barrier"):
            self._passed += 1
        elif opcode == frames.PONG:
            self.events.append(("pong", payload.decode("latin1")))
        elif opcode == frames.PING:
            self.events.append(("ping", payload.decode("latin1")))
            if self.answers_pings:
                self.send(frames.PONG, payload)
        elif opcode == frames.CLOSE:
            self._told_close = True
            self.events.append(("close", *frames.close_payload(payload)))
            if not self._closing:
                self._closing = True
                self.send(frames.CLOSE, payload[:2])
        else:
            self.events.append(("text", payload.decode("utf-8", "replace")))


def exchange(port, pieces, linger_s=0.15, empty_s=0.5):
    """Sends raw bytes and returns all that came back, and whether the server closed.

    A piece that is a number is a pause in seconds. Without an answer at all the server is
    given `empty_s`; after one, `linger_s` to close or to add something, and longer if the
    answer says that it closes, or is not complete.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=IO_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b""
        try:
            for piece in pieces:
                if isinstance(piece, bytes):
                    connection.sendall(piece)
                else:
                    time.sleep(piece)
        except OSError:
            pass  # The server may have answered and closed before it had everything.
        while True:
            wait_s = linger_s if data else empty_s
            if _goes_on(data):
                wait_s = max(wait_s, PROMISED_S)
            readable, _, _ = select.select([connection], [], [], wait_s)
            if not readable:
                return data, False
            try:
                piece = connection.recv(1 << 20)
            except OSError:
                piece = b""
            if not piece:
                return data, True
            data += piece


def _goes_on(data):
    """Whether the first answer says that more comes: its body, or the connection's end."""
    found = normal.split_response(data) if data.startswith(b"HTTP/") else None
    if found is None:
        return data.startswith(b"HTTP/")
    code, header_lines, rest = found
    if any(line.lower().split() == ["connection:", "close"] for line in header_lines):
        return True
    return code >= 200 and len(rest) < (normal.content_length(header_lines) or 0)


def request(port, method, target, body=None, extra=None):
    """One HTTP request on a connection of its own; returns the bytes and who closed."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    given = {"Content-Type": "application/json"} if body is not None else {}
    given |= extra or {}
    lines += [f"{name}: {value}" for name, value in given.items() if value is not None]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return exchange(port, [head + (body or b"")], linger_s=0.04, empty_s=3)
