"""Settings that `resound import` has taken from a Laravel project, instead of variables.

With CONTRACT_PROJECT, the folder of a project whose config/reverb.php has the names of
tests/laravel/support/reverb.php, all that Reverb knows is said in the project's .env, and
the server gets the file that was imported.
"""

import os
import subprocess
import tempfile
import threading
from pathlib import Path

PROJECT = os.environ.get("CONTRACT_PROJECT")

# What config/reverb.php calls otherwise.
RENAMED = {"REVERB_ALLOWED_ORIGINS": "REVERB_APP_ALLOWED_ORIGINS"}

_files = {}
_lock = threading.Lock()
_directory = tempfile.TemporaryDirectory(prefix="imported-")


def arguments(binary, wanted):
    """What the server is started with, and which of its settings are variables still."""
    ours = {name: value for name, value in wanted.items() if name.startswith("RESOUND_")}
    reverbs = tuple(sorted(wanted.items() - ours.items()))
    with _lock:
        if reverbs not in _files:
            _files[reverbs] = _import(binary, dict(reverbs), len(_files))
    return ["--config", _files[reverbs], "--env-file", "/dev/null"], ours


def _import(binary, variables, number):
    env_file = Path(PROJECT) / ".env"
    before = env_file.read_text()
    names = {RENAMED.get(name, name): value for name, value in variables.items()}
    # Of a variable that is set twice, the first one counts.
    env_file.write_text("".join(f"{name}={value}\n" for name, value in names.items()) + before)
    output = f"{_directory.name}/{number}.toml"
    try:
        subprocess.run(
            [binary, "import", PROJECT, "--output", output],
            check=True,
            capture_output=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{variables} cannot be imported: {error.stderr}") from error
    finally:
        env_file.write_text(before)
    return output
