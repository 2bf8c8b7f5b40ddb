"""Several nodes on one machine: a Redis of their own, the nodes, and what they say of
each other. scripts/cluster shows them, measure.cluster measures them.

Every program has a session of its own, so that a Ctrl-C reaches it through us and
not at once, and a log in the one directory that they all share."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from measure.servers import APP, Failure, free_port, tell

START_SECONDS = 30
# Longer than a node's own grace (RESOUND_SHUTDOWN_GRACE).
STOP_SECONDS = 8
POLL_SECONDS = 0.05
# Where Debian has programs that are not for everybody.
PATH = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
MASTER = "mymaster"
TOPOLOGIES = ("single", "cluster", "sentinel")


def program(name: str, package: str) -> str:
    """Where a program is; its Debian package is installed if it is nowhere."""
    found = shutil.which(name, path=PATH)
    if found is None:
        install(name, package)
        found = shutil.which(name, path=PATH)
    if found is None:
        raise Failure(f"there is no {name}, not even after installing {package}")
    return found


def install(name: str, package: str) -> None:
    if shutil.which("apt-get") is None:
        raise Failure(f"{name} is missing, and this is not Debian: install {package} by other means")
    tell(f"Installing {package}, for {name}")
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y"]
    steps = [[*quiet, "update"], [*quiet, "install", "--no-install-recommends", package]]
    for step in steps:
        try:
            done = subprocess.run([*as_root, *step], stdout=subprocess.DEVNULL, timeout=600)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failure(f"{name} is missing, and {package} cannot be installed: {error}") from None
        if done.returncode != 0:
            raise Failure(f"{name} is missing, and {' '.join(step[2:])} failed")


class Program:
    """One running program."""

    def __init__(self, name: str, command: list[str], port: int, log: Path,
                 environment: dict[str, str] | None = None) -> None:
        self.name = name
        self.port = port
        self.log = log
        with log.open("wb") as file:
            try:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=log.parent,
                    env=environment, start_new_session=True,
                )
            except OSError as error:
                raise Failure(f"{name} cannot be started: {error}") from None

    @property
    def pid(self) -> int:
        return self.process.pid

    def ended(self) -> str | None:
        """How it has ended; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    def last_words(self) -> str:
        return self.log.read_text(errors="replace").strip()[-2000:] or "(it said nothing)"

    def wait_until(self, what: str, done: Callable[[], bool]) -> None:
        """Waits for something that this program has to do."""
        end = time.monotonic() + START_SECONDS
        while not done():
            if (ended := self.ended()) is not None:
                raise Failure(f"{self.name} {ended} before {what}; it said:\n{self.last_words()}")
            if time.monotonic() > end:
                raise Failure(f"{self.name}: it took more than {START_SECONDS} s until {what}; "
                              f"it said:\n{self.last_words()}")
            time.sleep(POLL_SECONDS)


def stop(programs: list[Program]) -> None:
    """Ends them all at the same time, and waits."""
    for one in programs:
        if one.ended() is None:
            one.process.terminate()
    for one in programs:
        try:
            one.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            tell(f"{one.name} does not end; it is killed")
            one.process.kill()
            one.process.wait()


@dataclass(frozen=True)
class Ground:
    """Where programs run: with their logs and data in a directory, and on some cores."""

    directory: Path
    cpus: str | None = None

    def start(self, name: str, command: list[str], port: int,
              environment: dict[str, str] | None = None) -> Program:
        pinned = ["taskset", "-c", self.cpus] if self.cpus else []
        log = self.directory / f"{name.replace(' ', '-')}.log"
        return Program(name, [*pinned, *command], port, log, environment)


@dataclass
class Redis:
    """A Redis of one or several servers, alive inside the `with` block."""

    ground: Ground
    topology: str = "single"
    servers: list[Program] = field(default_factory=list)
    # How a node finds it.
    environment: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> "Redis":
        self.server = program("redis-server", "redis-server")
        self.cli = program("redis-cli", "redis-tools")
        try:
            {"single": self.start_single, "cluster": self.start_cluster,
             "sentinel": self.start_sentinel}[self.topology]()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop(self.servers)

    def start(self, name: str, *options: str) -> Program:
        port = free_port()
        data = self.ground.directory / name.replace(" ", "-")
        data.mkdir()
        command = [self.server, *options, "--port", str(port), "--bind", "127.0.0.1"]
        command += ["--dir", str(data)]
        started = self.ground.start(name, command, port)
        self.servers.append(started)
        started.wait_until("it answers", lambda: self.ask(port, "PING") == "PONG")
        return started

    def ask(self, port: int, *words: str) -> str:
        """What a server answers, as redis-cli shows it."""
        command = [self.cli, "-h", "127.0.0.1", "-p", str(port), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS)
        return (done.stdout + done.stderr).strip()

    def start_single(self) -> None:
        only = self.start("redis", "--save", "")
        self.environment = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(only.port)}

    def start_cluster(self) -> None:
        """Three masters; the option for the second port of each came with Redis 7."""
        for number in range(3):
            self.start(f"redis {number + 1}", "--save", "", "--cluster-enabled", "yes",
                       "--cluster-port", str(free_port()), "--cluster-node-timeout", "2000")
        places = [f"127.0.0.1:{one.port}" for one in self.servers]
        said = self.ask(self.servers[0].port, "--cluster", "create", *places, "--cluster-yes")
        if "All 16384 slots covered" not in said:
            raise Failure(f"the Redis Cluster cannot be made: {said}")
        for one in self.servers:
            one.wait_until("the Redis Cluster is well",
                           lambda: "cluster_state:ok" in self.ask(one.port, "CLUSTER", "INFO"))
        self.environment = {"RESOUND_REDIS_CLUSTER": ",".join(places)}

    def start_sentinel(self) -> None:
        """A master, its replica, and three sentinels of which two have to agree."""
        # No replica need be waited for that might come with the first one.
        quick = ("--save", "", "--repl-diskless-sync-delay", "0")
        master = self.start("redis 1", *quick)
        self.start("redis 2", *quick, "--replicaof", "127.0.0.1", str(master.port))
        sentinels = []
        for number in range(3):
            # It writes what it learns into its file.
            file = self.ground.directory / f"sentinel-{number + 1}.conf"
            file.write_text(f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 2\n"
                            f"sentinel down-after-milliseconds {MASTER} 2000\n"
                            f"sentinel failover-timeout {MASTER} 6000\n")
            sentinels.append(self.start(f"sentinel {number + 1}", str(file), "--sentinel"))
        for one in sentinels:
            one.wait_until("it knows the others and the replica",
                           lambda: self.sentinel_knows_all(one.port))
        places = [f"127.0.0.1:{one.port}" for one in sentinels]
        self.environment = {"RESOUND_REDIS_SENTINELS": ",".join(places),
                            "RESOUND_REDIS_SENTINEL_MASTER": MASTER}

    def sentinel_knows_all(self, port: int) -> bool:
        lines = self.ask(port, "SENTINEL", "MASTER", MASTER).splitlines()
        master = dict(zip(lines[::2], lines[1::2]))
        return master.get("num-other-sentinels") == "2" and master.get("num-slaves") == "1"


@dataclass
class Nodes:
    """Nodes that know each other, alive inside the `with` block; without a Redis, they
    are servers that know nothing of each other."""

    ground: Ground
    binary: Path
    count: int
    redis: Redis | None
    flags: list[str] = field(default_factory=list)
    # The environment that the settings of the nodes' own are added to.
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    ports: list[int] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ports = [free_port() for _ in range(self.count)]

    def __enter__(self) -> "Nodes":
        try:
            for number, port in enumerate(self.ports):
                command = [str(self.binary), "start", "--host", "127.0.0.1", "--port", str(port)]
                command += self.flags
                one = self.ground.start(f"node {number + 1}", command, port, self.settings())
                self.programs.append(one)
            self.await_each_other()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop(self.programs)

    def settings(self) -> dict[str, str]:
        # A Redis that the environment names for something else is none of ours.
        foreign = ("REDIS_", "RESOUND_REDIS_")
        own = {name: value for name, value in self.environment.items()
               if not name.startswith(foreign) or name == "REDIS_PREFIX"}
        for name in APP:
            own.setdefault(f"REVERB_APP_{name.upper()}", APP[name])
        # The default port is for one node of a machine.
        own.setdefault("RESOUND_METRICS_PORT", "0")
        own["REVERB_SCALING_ENABLED"] = "true" if self.redis else "false"
        return own | (self.redis.environment if self.redis else {})

    def await_each_other(self) -> None:
        for one in self.programs:
            # Alone, all that a node can say is that it is up.
            if self.redis is None:
                one.wait_until("it is up", lambda: asked(one.port, "/up")[0] == 200)
                continue
            try:
                one.wait_until(f"it knows of {self.count} nodes", lambda: self.knows_all(one.port))
            except Failure as failure:
                answer = "" if one.ended() else f"\n/ready answers {asked(one.port, '/ready')}"
                raise Failure(f"{failure}{answer}") from None

    def knows_all(self, port: int) -> bool:
        status, text = asked(port, "/ready")
        return status == 200 and json.loads(text)["nodes"] == self.count


def asked(port: int, path: str) -> tuple[int, str]:
    """The status and the body of an answer; 0 if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def counters(port: int) -> dict:
    """What a node counts."""
    status, text = asked(port, "/ready")
    if status != 200:
        raise Failure(f"the node on port {port} is not ready: {status} {text}")
    return json.loads(text)
