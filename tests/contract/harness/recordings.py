"""The recordings on disk, and the settings that each file needs."""

import json
import re
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
DIRECTORY = HERE / "recordings"

# Recorded files that cannot be replayed, and why.
LEFT_OUT = {
    "laravel-auth.json": "answers of a Laravel application; no server of ours is asked",
    "browser-frames.json": "what a browser's page did; tests/clients drives a real one",
}

# Single cases that cannot be replayed, and why.
SKIPPED = {
    "ws-shutdown:artisan reverb:restart": "a signal through Laravel's cache; SIGTERM is its like",
    "sdk-requests:channel name refused by the SDK itself": "no request was sent",
    "sdk-requests:101 channels refused by the SDK itself": "no request was sent",
}

# Settings that the recorder put into config/reverb.php have another name in our environment.
RENAMED = {"REVERB_APP_ALLOWED_ORIGINS": "REVERB_ALLOWED_ORIGINS"}

# Seconds of the recording that one second of the replay stands for, in ws-ping.json.
PING_SCALE = 30
EXTRA_SETTINGS = {
    "ws-ping": {
        "REVERB_APP_PING_INTERVAL": "2",
        "RESOUND_PONG_TIMEOUT": "2",
    },
    "ws-shutdown": {"RESOUND_SHUTDOWN_GRACE": "1"},
}


def names():
    return sorted(path.stem for path in DIRECTORY.glob("*.json"))


def load(name):
    return json.loads((DIRECTORY / f"{name}.json").read_text())


def settings(name, recording):
    """The environment that the recording's `config` line asks for."""
    found = dict(re.findall(r"(REVERB_\w+)=(\S+)", recording["config"]))
    return {RENAMED.get(key, key): value for key, value in found.items()} | EXTRA_SETTINGS.get(
        name, {}
    )
