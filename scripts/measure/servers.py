"""The programs that are measured: where they are, how they start and end, and the
certificate for those that speak TLS."""

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from measure.rows import Side

ROOT = Path(__file__).resolve().parent.parent.parent
APP = {"id": "my-app-id", "key": "my-app-key", "secret": "my-app-secret"}
OPEN_FILES = 65_536
START_SECONDS = 10
STOP_SECONDS = 5


class Failure(Exception):
    """Something could not be measured."""


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Binaries:
    """Where the build left the three programs."""

    load: Path
    ceiling: Path
    resound: Path
    # The Resound that it is compared with, if it is.
    rival: Path | None = None

    @staticmethod
    def locate() -> "Binaries":
        release = target_directory() / "release"
        found = Binaries(
            load=release / "examples" / "load",
            ceiling=release / "examples" / "ceiling",
            resound=release / "resound",
        )
        for path in (found.load, found.ceiling, found.resound):
            if not os.access(path, os.X_OK):
                raise Failure(f"{path} is not there; build first")
        return found


def target_directory() -> Path:
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target")


def build() -> None:
    # Not at once: the examples switch features of dependencies on that the server, as
    # it is installed, does not have.
    for targets in (["--bin", "resound"], ["--example", "load", "--example", "ceiling"]):
        command = ["cargo", "build", "--release", "--locked", *targets]
        if subprocess.run(command, cwd=ROOT).returncode != 0:
            raise Failure("the build failed")


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 and its key, for as long as the measurements last."""

    certificate: Path
    key: Path

    @staticmethod
    def make(directory: Path) -> "Certificate":
        made = Certificate(directory / "cert.pem", directory / "key.pem")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
        command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=resound bench"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
        command += ["-keyout", str(made.key), "-out", str(made.certificate)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            raise Failure(f"openssl cannot make a certificate: {error}") from None
        if done.returncode != 0:
            raise Failure(f"openssl cannot make a certificate: {done.stderr.strip()}")
        return made


@dataclass(frozen=True)
class Bench:
    """What every measurement needs."""

    binaries: Binaries
    certificate: Certificate
    server_cpu: int
    load_cpu: int

    def server(self, side: Side) -> "Server":
        port = free_port()
        if side.program == "ceiling":
            command = [str(self.binaries.ceiling), "--addr", f"127.0.0.1:{port}", *side.server]
        else:
            resound = self.binaries.rival if side.program == "rival" else self.binaries.resound
            command = [str(resound), "start", "--host", "127.0.0.1"]
            command += ["--port", str(port), *side.server, "--app-id", APP["id"]]
            command += ["--app-key", APP["key"], "--app-secret", APP["secret"]]
        if side.tls:
            command += ["--tls-cert", str(self.certificate.certificate)]
            command += ["--tls-key", str(self.certificate.key)]
        cpus = f"{self.server_cpu},{self.load_cpu}" if side.both_cores else str(self.server_cpu)
        receiver = Receiver(self.load_cpu) if side.webhooks else None
        return Server(["taskset", "-c", cpus, *command], port, dict(side.environment), receiver)

    def generator(self, side: Side, server: "Server", arguments: list[str]) -> list[str]:
        """The command that runs the generator against a server of this side."""
        command = ["taskset", "-c", str(self.load_cpu), str(self.binaries.load), *arguments]
        command += ["--addr", f"127.0.0.1:{server.port}", "--pid", str(server.process.pid)]
        command += ["--json", "--app-id", APP["id"], "--key", APP["key"], "--secret", APP["secret"]]
        if side.tls:
            command += ["--tls", str(self.certificate.certificate)]
        return command


class Server:
    """A server under test, alive inside the `with` block and not after it."""

    def __init__(
        self, command: list[str], port: int, environment: dict[str, str],
        receiver: "Receiver | None" = None,
    ) -> None:
        self.command = command
        self.port = port
        self.environment = environment
        self.receiver = receiver

    def __enter__(self) -> "Server":
        self.log = tempfile.TemporaryFile()
        if self.receiver:
            self.environment = {**self.environment, **self.receiver.start()}
        # taskset becomes the server, so this process id is the server's own.
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            env={**os.environ, **self.environment},
        )
        try:
            self.await_accept()
        except BaseException:
            self.__exit__()
            raise
        return self

    def await_accept(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failure(f"{self.command[3]} ended at its start: {self.last_words()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
                continue
            # The server should have forgotten this visit before it is measured.
            time.sleep(0.3)
            return
        raise Failure(f"{self.command[3]} does not accept connections: {self.last_words()}")

    def last_words(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace").strip()[-2000:] or "(it said nothing)"

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.receiver:
            self.receiver.stop()
        self.log.close()


# All kinds that there are.
TOLD = (
    "channel_occupied,channel_vacated,member_added,member_removed,client_event,cache_miss,"
    "subscription_count,connection_established,connection_closed,subscription_refused"
)


class Receiver:
    """A receiver of webhooks that counts, on a core of its own choice."""

    def __init__(self, cpu: int, milliseconds: int = 0) -> None:
        self.command = ["taskset", "-c", str(cpu), sys.executable, "-B",
                        str(Path(__file__).with_name("receiver.py")), str(milliseconds)]

    def start(self, events: str = TOLD) -> dict[str, str]:
        """The settings of a server that tells it."""
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        port = int(self.process.stdout.readline())
        return {
            "RESOUND_WEBHOOK_URL": f"http://127.0.0.1:{port}/", "RESOUND_WEBHOOK_EVENTS": events,
            "RESOUND_WEBHOOK_ALLOW_LOCAL": "true", "RESOUND_SUBSCRIPTION_COUNT": "false",
        }

    def counts(self) -> tuple[int, int]:
        """How many events and requests it got."""
        print(file=self.process.stdin, flush=True)
        events, requests = self.process.stdout.readline().split()
        return int(events), int(requests)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def prepare(*cpus: int) -> None:
    """Makes sure of the cores, of open files, and of an end that leaves nothing."""
    allowed = os.sched_getaffinity(0)
    for cpu in cpus:
        if cpu not in allowed:
            raise Failure(f"core {cpu} is not available; these are: {sorted(allowed)}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > OPEN_FILES:
        soft = OPEN_FILES
    else:
        soft = hard
    # The children inherit it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # A polite end must pass through the `with` blocks too.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: sys.exit(2))
