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
    """A connection that is subscribed to public channels."""

    def __init__(self, port, *channels):
        url = f"ws://127.0.0.1:{port}/app/{KEY}?protocol=7"
        self._socket = websocket.create_connection(url, timeout=LIMIT_S)
        self.socket_id = json.loads(self._frame()["data"])["socket_id"]
        for channel in channels:
            frame = {"event": "pusher:subscribe", "data": {"channel": channel}}
            self._socket.send(json.dumps(frame))
            assert self._frame()["event"] == "pusher_internal:subscription_succeeded"

    def _frame(self):
        return json.loads(self._socket.recv())

    def next(self):
        """The next event: its channel, its name and its decoded data."""
        frame = self._frame()
        return frame["channel"], frame["event"], json.loads(frame["data"])

    def close(self):
        self._socket.close()
