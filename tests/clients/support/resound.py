"""Starts and stops the Resound binary, and listens to it."""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

import websocket

# Pusher's SDK for Python takes no id but a number; `reverb:install` makes such ones.
APP_ID, KEY, SECRET = "123456", "my-app-key", "my-app-secret"

BUILT = Path(__file__).resolve().parents[3] / "target/release/resound"
BINARY = Path(os.environ.get("RESOUND_BIN") or BUILT).resolve()

LIMIT_S = 10


class Server:
    """`resound start` with one application, until `stop`."""

    def __init__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="resound-clients-")
        # An empty directory and environment: no setting of this machine reaches the server.
        self._process = subprocess.Popen(
            [BINARY, "start", "--host", "127.0.0.1", "--port", "0"]
            + ["--app-id", APP_ID, "--app-key", KEY, "--app-secret", SECRET],
            cwd=self._directory.name,
            env={},
            stderr=subprocess.PIPE,
            text=True,
        )
        log = ""
        for line in self._process.stderr:
            log += line
            if found := re.search(r"Starting server on 127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return
        raise RuntimeError(f"resound ended with {self._process.wait()} at its start:\n{log}")

    def stop(self):
        """Stops it as a service manager does; the exit status."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=LIMIT_S)
        finally:
            self._process.kill()
            self._directory.cleanup()
        return self._process.returncode


class Subscriber:
    """A connection that is subscribed to channels, for which an SDK signs."""

    def __init__(self, port, *channels, sdk=None, user=None):
        self._sdk = sdk
        url = f"ws://127.0.0.1:{port}/app/{KEY}?protocol=7"
        self._socket = websocket.create_connection(url, timeout=LIMIT_S)
        self.socket_id = json.loads(self._frame()["data"])["socket_id"]
        for channel in channels:
            self.subscribe(channel, user)

    def subscribe(self, channel, user=None):
        """Subscribes, to a presence channel as this user; what the answer holds."""
        data = {"channel": channel}
        if channel.startswith(("private-", "presence-")):
            custom_data = user and {"user_id": user, "user_info": {"name": user}}
            data |= self._sdk.authenticate(channel, self.socket_id, custom_data)
            # This one is for the client alone.
            data.pop("shared_secret", None)
        return json.loads(self._ask("pusher:subscribe", data, "pusher_internal:subscription_succeeded")["data"])

    def sign_in(self, user):
        """Signs in, and subscribes to the user's own channel."""
        data = self._sdk.authenticate_user(self.socket_id, {"id": user})
        self._ask("pusher:signin", data, "pusher:signin_success")
        self.subscribe(f"#server-to-user-{user}")

    def _ask(self, event, data, answer):
        self._socket.send(json.dumps({"event": event, "data": data}))
        while (frame := self._frame())["event"] != answer:
            # Who was there before hears of those who come.
            assert frame["event"].startswith("pusher_internal:member_"), frame
        return frame

    def _frame(self):
        return json.loads(self._socket.recv())

    def next(self):
        """The next event: its channel, its name and its decoded data."""
        frame = self._frame()
        return frame["channel"], frame["event"], json.loads(frame["data"])

    def end(self):
        """The code with which the server closes it. What comes before is passed over."""
        opcode = None
        while opcode != websocket.ABNF.OPCODE_CLOSE:
            opcode, data = self._socket.recv_data()
        # It has answered the close frame, and takes itself for closed.
        self._socket.shutdown()
        return int.from_bytes(data[:2], "big")

    def close(self):
        self._socket.close()
