"""What ending a node is like for its clients: two nodes and the Redis between them, and
haproxy in front, which asks /ready and sends everything to the first node while that is
ready. The first one is ended, and all of its sockets have to come to the second as an
even stream, while publishes to that one take about as long as before. They go to the node
itself, as those of an application on the same machine do: haproxy, which passes on three
times as much then, has delays of its own.

A Redis is part of it, because without one a node drains only if it is told to, and
publishes to the second node would not reach who is still on the first. Everything shares
both cores, the generator too."""

import json
import resource
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Iterator

from measure.cluster import OTHERS_SHARE, Stage, Subject
from measure.nodes import (
    PATH, POLL_SECONDS, START_SECONDS, Ground, Nodes, Program, Redis, asked, stop,
)
from measure.runs import undisturbed
from measure.servers import APP, Bench, Failure, free_port, tell

SOCKETS = 15_000
QUICK_SOCKETS = 1500
DRAIN_SECONDS = 10
# Longer than haproxy takes to notice that a node is not ready.
PAUSE_SECONDS = 2
# How long the last sockets may take to close, before a node gives up.
GRACE_SECONDS = 5
LIMIT_SECONDS = 300
# A whole second may differ from the mean by this much.
EVENNESS = 0.20
LATENCY_TIMES = 2
# Past half of the ephemeral ports of an address, each connect to the same node has the
# kernel look through all of that half first, for milliseconds; so several are used.
SOCKETS_OF_AN_ADDRESS = 7500
# Of the file descriptors that a haproxy may have, those it may use for connections,
# which take two each.
DESCRIPTOR_SHARE = 0.9
HAPROXY = """\
global
    maxconn {most}
    nbthread 1
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    # WebSockets: longer than the pings of either side are apart.
    timeout tunnel 1h
    # Without it, an answer has to come before the next check is due.
    timeout check 2s
frontend clients
    bind 127.0.0.1:{port}
    default_backend nodes
backend nodes
    option httpchk GET /ready
    http-check expect status 200
    option allbackups
    default-server check inter 200ms fall 1 rise 1
{servers}
"""


@dataclass
class Haproxy:
    """One address in front of two nodes, alive inside the `with` block. Where one process
    may not have enough file descriptors, several listen there, and the kernel spreads the
    connections."""

    ground: Ground
    sockets: int
    nodes: list[int]

    def __enter__(self) -> "Haproxy":
        self.port, self.programs = free_port(), []
        program = which("haproxy", path=PATH)
        if program is None:
            raise Failure("haproxy is missing; Debian's package has that name")
        try:
            # While one is ended, its new connection may be there before the old one is gone.
            files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            most = int(files * DESCRIPTOR_SHARE / 2) if files > 0 else 2 * self.sockets
            most = min(most, 2 * self.sockets)
            text = HAPROXY.format(port=self.port, most=most, servers="\n".join(self.servers()))
            file = self.ground.directory / "haproxy.cfg"
            file.write_text(text)
            for number in range(-(-self.sockets * 11 // 10 // most)):
                command = [program, "-db", "-f", str(file)]
                one = self.ground.start(f"haproxy {number + 1}", command, self.port)
                self.programs.append(one)
                one.wait_until("it listens", lambda: asked(self.port, "/up")[0] == 200)
        except BaseException:
            self.__exit__()
            raise
        return self

    def servers(self) -> Iterator[str]:
        for node, (port, kind) in enumerate(zip(self.nodes, ("", " backup"))):
            for number in range(-(-self.sockets // SOCKETS_OF_AN_ADDRESS)):
                yield (f"    server node-{node + 1}-{number + 1} 127.0.0.1:{port} "
                       f"source 127.0.0.{number + 2}{kind}")

    def __exit__(self, *_: object) -> None:
        stop(self.programs)


def drained(stage: Stage, sockets: int) -> dict:
    """Ends one of two nodes; the generator's report, and what the other one has then."""
    with ExitStack() as stack:
        ground = stack.enter_context(stage.ground())
        redis = stack.enter_context(Redis(ground))
        nodes = Nodes(ground, stage.bench.binaries.resound, 2, redis)
        nodes.environment |= {"RESOUND_DRAIN_SECONDS": str(DRAIN_SECONDS),
                              "RESOUND_DRAIN_PAUSE": str(PAUSE_SECONDS),
                              "RESOUND_SHUTDOWN_GRACE": str(GRACE_SECONDS)}
        stack.enter_context(nodes)
        haproxy = stack.enter_context(Haproxy(ground, sockets, nodes.ports))
        first, second = nodes.programs
        command = undelayed() + ["taskset", "-c", stage.cores(stage.bench.load_cpu), str(stage.bench.binaries.load)]
        command += ["drain", "--sockets", str(sockets), "--sources", "4", "--pid", str(first.pid)]
        command += ["--seconds", "5" if stage.quick else "10", "--addr", f"127.0.0.1:{haproxy.port}"]
        command += ["--publish-addr", f"127.0.0.1:{nodes.ports[1]}"]
        command += ["--app-id", APP["id"], "--key", APP["key"], "--secret", APP["secret"], "--json"]
        try:
            report = watched(command, first, second)
        except Failure as failure:
            words = [f"{one.name} said:\n{one.last_words()}"
                     for one in [first, second, *haproxy.programs]]
            raise Failure("\n".join([str(failure), *words])) from None
        # At SIGTERM it would drain, too.
        second.process.send_signal(signal.SIGINT)
        return report | {"exit_code": first.process.wait(POLL_SECONDS)}


def undelayed() -> list[str]:
    """What has the generator wait for no core, where that is allowed: else it measures its
    own delay, since it shares the cores with what it measures."""
    command = ["chrt", "--fifo", "1"]
    is_allowed = which(command[0]) and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if is_allowed else []


def watched(command: list[str], first: Program, second: Program) -> dict:
    """Runs the generator; asks the second node how many sockets it has when the first has
    ended, before the generator does."""
    arrived = 0
    load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + LIMIT_SECONDS
    try:
        while load.poll() is None:
            if time.monotonic() > end:
                raise Failure(f"the generator did not end in {LIMIT_SECONDS} s")
            time.sleep(POLL_SECONDS)
            if first.ended() is not None:
                status, text = asked(second.port, "/ready")
                arrived = max(arrived, json.loads(text)["connections"] if status == 200 else 0)
    finally:
        load.kill()
        said, error = load.communicate()
    # A goal that was missed ends it with 1.
    if load.returncode not in (0, 1):
        raise Failure(f"the generator: {error.strip()} {said.strip()}")
    return json.loads(said) | {"arrived": arrived}


def judge(report: dict) -> bool:
    sockets = report["sockets"]
    whole = report["reconnections_by_second"][1:-1]
    if not whole:
        raise Failure(f"too few seconds to judge: {report['reconnections_by_second']}")
    mean, least, most = sum(whole) / len(whole), min(whole), max(whole)
    idle, draining = report["idle_us"]["p99"], report["draining_us"]["p99"]
    others = report["closed"].copy()
    as_drained = others.pop("4200", 0)
    limit = PAUSE_SECONDS + DRAIN_SECONDS + GRACE_SECONDS
    exited = report["exit_seconds"]
    verdicts = [
        (f"handshakes per second: mean {mean:,.0f}, least {least:,} ({least / mean - 1:+.1%}), "
         f"most {most:,} ({most / mean - 1:+.1%}) in {len(whole)} whole seconds (+-{EVENNESS:.0%})",
         least >= mean * (1 - EVENNESS) and most <= mean * (1 + EVENNESS)),
        (f"publish p99: idle {idle / 1000:.2f} ms, draining {draining / 1000:.2f} ms, "
         f"{draining / idle:.2f} x (<= {LATENCY_TIMES:g} x)", draining <= idle * LATENCY_TIMES),
        (f"closed with 4200: {as_drained:,}; otherwise: {others or 'none'}; "
         f"lost: {report['errors']} ({report['first_error'] or 'none'})",
         as_drained == sockets and not others and report["errors"] == 0),
        (f"publishes that failed: {report['publish_errors']} "
         f"({report['first_publish_error'] or 'none'})", report["publish_errors"] == 0),
        (f"on the second node afterwards: {report['arrived']:,} of {sockets:,}, "
         f"{report['alive']:,} answer pings",
         report["arrived"] == sockets and report["alive"] == sockets),
        (f"the first node ended with {report['exit_code']} after {exited or float('nan'):.2f} s "
         f"(0, within {limit} s)", report["exit_code"] == 0 and exited is not None and exited <= limit),
    ]
    for text, met in verdicts:
        print(f"{'yes' if met else 'NO ':<4} {text}", flush=True)
    return all(met for _, met in verdicts)


def describe(report: dict) -> None:
    print(f"{report['sockets']:,} sockets in {report['channels']:,} channels, "
          f"{report['rate']} publishes/s; connected in {report['connect_seconds']:.1f} s")
    print(f"first close {report['first_close_seconds']:.2f} s after the signal, last reconnection "
          f"{report['last_reconnection_seconds']:.2f} s after it")
    print(f"reconnections by second: {' '.join(map(str, report['reconnections_by_second']))}")
    tenths = report["reconnections_by_100_ms"][:-1]
    print(f"of a tenth of a second: {min(tenths)} to {max(tenths)}")
    for name in ("idle_us", "pausing_us", "draining_us", "reconnect_us"):
        of = report[name]
        times = ", ".join(f"{part} {of[part] / 1000:.2f} ms" for part in ("p50", "p90", "p99", "max"))
        print(f"{name.removesuffix('_us'):<10} {times} ({of['samples']} samples)")
    print(f"generator: {report['generator_cpu_seconds'] / report['seconds']:.0%} of a core; "
          f"others: {report['others_wait_seconds'] / report['seconds']:.0%}", flush=True)


def drain(bench: Bench, sockets: int | None, quick: bool, file: Path | None) -> bool:
    """Whether the goals are met."""
    sockets = sockets or (QUICK_SOCKETS if quick else SOCKETS)
    stage = Stage(bench, quick, both_cores=True)
    subject = Subject("two nodes", lambda stage: drained(stage, sockets))
    report = undisturbed(lambda: subject.measure_among_others(stage), "drain", ["others"], OTHERS_SHARE)
    if report["others_wait_seconds"] > OTHERS_SHARE * report["seconds"]:
        tell("drain: others worked on this machine meanwhile; do not trust the latencies")
    if file:
        file.write_text(json.dumps(report, indent=2) + "\n")
    describe(report)
    return judge(report)
