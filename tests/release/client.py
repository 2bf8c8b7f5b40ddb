#!/usr/bin/env python3
"""A client of the Pusher protocol and of its HTTP API, of nothing but Python.

    client.py PORT     connects, subscribes, publishes an event and gets it; then prints `ready`, answers
                       each line of its standard input with `alive` after a ping and a pong, and prints
                       `closed CODE` when the server closes
"""

import base64
import hashlib
import hmac
import json
import os
import select
import socket
import struct
import sys
import time
import urllib.error
import urllib.request

APP = ("my-app-id", "my-app-key", "a-secret-of-its-own")


class Closed(Exception):
    """The server has closed, with this code; None without a close frame."""

    def __init__(self, code):
        super().__init__(f"closed with {code}")
        self.code = code


class Client:
    def __init__(self, port, host="127.0.0.1", app=APP, patience=10):
        self.host, self.port, self.app = host, port, app
        self.socket = socket.create_connection((host, port), patience)
        self.read = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /app/{app[1]}?protocol=7&client=js&version=8.4.0 HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self.read:
            self.fill()
        head, self.read = self.read.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(head.decode())
        self.expect("pusher:connection_established")

    def fill(self):
        more = self.socket.recv(65536)
        if not more:
            raise Closed(None)
        self.read += more

    def take(self, count):
        while len(self.read) < count:
            self.fill()
        taken, self.read = self.read[:count], self.read[count:]
        return taken

    def frame(self):
        first, length = self.take(2)
        if length == 126:
            (length,) = struct.unpack(">H", self.take(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self.take(8))
        return first & 15, self.take(length)

    def write(self, opcode, payload):
        length = len(payload)
        assert length < 65536
        size = bytes([128 | length]) if length < 126 else b"\xfe" + struct.pack(">H", length)
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self.socket.sendall(bytes([128 | opcode]) + size + mask + masked)

    def send(self, event, data):
        self.write(1, json.dumps({"event": event, "data": data}).encode())

    def receive(self):
        """The next message. Raises `Closed`."""
        while True:
            opcode, payload = self.frame()
            if opcode == 9:
                self.write(10, payload)
            elif opcode == 8:
                code = struct.unpack(">H", payload[:2])[0] if payload else None
                self.write(8, payload[:2])
                raise Closed(code)
            elif opcode == 1:
                return json.loads(payload)

    def expect(self, event):
        message = self.receive()
        if message["event"] != event:
            raise ConnectionError(f"{message} instead of {event}")
        return message

    def subscribe(self, channel):
        self.send("pusher:subscribe", {"channel": channel})
        self.expect("pusher_internal:subscription_succeeded")

    def is_alive(self):
        self.send("pusher:ping", {})
        self.expect("pusher:pong")

    def publish(self, channel, event, data):
        publish(self.port, channel, event, data, host=self.host, app=self.app)


def publish(port, channel, event, data, host="127.0.0.1", app=APP):
    """Publishes as Laravel does. Raises `urllib.error.HTTPError` if it is refused."""
    body = json.dumps({"name": event, "channels": [channel], "data": data}).encode()
    path = f"/apps/{app[0]}/events"
    query = (
        f"auth_key={app[1]}&auth_timestamp={int(time.time())}&auth_version=1.0&body_md5={hashlib.md5(body).hexdigest()}"
    )
    signature = hmac.new(app[2].encode(), f"POST\n{path}\n{query}".encode(), hashlib.sha256).hexdigest()
    request = urllib.request.Request(
        f"http://{host}:{port}{path}?{query}&auth_signature={signature}", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def main():
    client = Client(int(sys.argv[1]))
    client.subscribe("chat")
    client.publish("chat", "message.sent", '{"text":"hello"}')
    message = client.expect("message.sent")
    assert message["data"] == '{"text":"hello"}', message
    print("ready", flush=True)
    # What is to be waited for is in one of them.
    client.socket.settimeout(None)
    while True:
        readable, _, _ = select.select([client.socket, sys.stdin], [], [])
        try:
            if sys.stdin in readable:
                if not sys.stdin.readline():
                    return
                client.is_alive()
                print("alive", flush=True)
            else:
                client.receive()
        except Closed as closed:
            print("closed", closed.code, flush=True)
            return


if __name__ == "__main__":
    main()
