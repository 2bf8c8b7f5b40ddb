"""Starts and ends the server under test.

Every case of a WebSocket file gets a server of its own: it starts in milliseconds,
and what one case leaves in a channel cannot reach another.
"""

import os
import re
import subprocess
import tempfile
import threading
from pathlib import Path

from . import imported, signing

ROOT = Path(__file__).resolve().parents[3]
START_S = 10


def binary():
    return os.environ.get("RESOUND_BIN") or str(ROOT / "target" / "release" / "resound")


class Server:
    """A running server on a free port of the loopback address."""

    def __init__(self, settings=None):
        self.directory = tempfile.TemporaryDirectory(prefix="contract-")
        # Nothing of the caller's environment may change the settings.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("REVERB_", "RESOUND_"))
        }
        wanted = {
            "REVERB_APP_ID": signing.APP_ID,
            "REVERB_APP_KEY": signing.KEY,
            "REVERB_APP_SECRET": signing.SECRET,
        }
        wanted |= settings or {}
        arguments = []
        if imported.PROJECT:
            arguments, wanted = imported.arguments(binary(), wanted)
        # One worker makes the order of frames on different sockets repeatable.
        environment |= wanted | {"RESOUND_WORKERS": "1"}
        self.log = []
        self.process = subprocess.Popen(
            [binary(), "start", "--host", "127.0.0.1", "--port", "0", *arguments],
            cwd=self.directory.name,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.port = None
        self._started = threading.Event()
        threading.Thread(target=self._read_log, daemon=True).start()
        if not self._started.wait(START_S) or self.port is None:
            self.kill()
            raise RuntimeError("the server did not start:\n" + "".join(self.log))

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(r"Starting server on 127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found[1])
                self._started.set()
        self._started.set()

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """Ends the server at once; a graceful end would wait for sockets still open."""
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        self.directory.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
