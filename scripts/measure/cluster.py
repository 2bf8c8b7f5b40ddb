"""What several nodes take: how much later an event arrives that was published on
another node, how many pass from node to node, whether a node receives more than its
own sockets want, and how fast all nodes know who is there.

All nodes and their Redis share the servers' core, the generator has the other one; one
row has all of them on both cores. What they are compared with runs on the same cores, in
the same repetition: one node by itself, or Redis alone. With REVERB_SCALING_ENABLED=false in the environment one node takes the
place of them all, which shows what these measurements are worth."""

import csv
import json
import os
import resource
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Iterator

from measure.nodes import Ground, Nodes, Program, Redis, counters, program
from measure.rows import Goal, Measurement, Row, Side, of
from measure.runs import Figures, load_of, shown, undisturbed
from measure.servers import APP, Bench, Failure, tell
from measure.soak import TICKS, cpu_seconds

LIMIT_SECONDS = 300
SIZE = 200
PUBLISHERS = 16
# Messages that a node may get that belong to no channel, such as heartbeats.
HEARTBEATS = 100
MEMBERS = 2000
# Of a core that others may have; up to 0.1 is the kernel's own work.
OTHERS_SHARE = 0.15
SCALING = os.environ.get("REVERB_SCALING_ENABLED", "true").lower() not in ("false", "0", "no", "off")
P50 = of("latency_us", "p50")
INTEREST = "cluster-interest"


@dataclass(frozen=True)
class Cast:
    """Who is on the stage: the ports of the nodes, and all programs, Redis among them."""

    ports: list[int]
    programs: list[Program]

    def processor_seconds(self) -> dict[str, float]:
        return {one.name: cpu_seconds(one.pid) for one in self.programs}


@dataclass(frozen=True)
class Stage:
    """Where one repetition happens."""

    bench: Bench
    quick: bool
    # Whether everybody may use both cores.
    both_cores: bool = False

    def cores(self, own: int) -> str:
        return f"{self.bench.server_cpu},{self.bench.load_cpu}" if self.both_cores else str(own)

    def span(self) -> list[str]:
        return ["--seconds", "4" if self.quick else "10", "--warmup", "1" if self.quick else "2"]

    @contextmanager
    def ground(self) -> Iterator[Ground]:
        with tempfile.TemporaryDirectory(prefix="resound-bench-") as directory:
            yield Ground(Path(directory), self.cores(self.bench.server_cpu))

    @contextmanager
    def nodes(self, count: int) -> Iterator[Cast]:
        """So many nodes; one by itself is no part of a cluster."""
        with ExitStack() as stack:
            ground = stack.enter_context(self.ground())
            real = count if SCALING else 1
            redis = stack.enter_context(Redis(ground)) if real > 1 else None
            nodes = Nodes(ground, self.bench.binaries.resound, real, redis, ["--workers", "1"])
            stack.enter_context(nodes)
            try:
                yield Cast((nodes.ports * count)[:count], [*nodes.programs, *(redis.servers if redis else [])])
            except Failure as failure:
                words = [f"{one.name} said:\n{one.last_words()}" for one in nodes.programs]
                raise Failure("\n".join([str(failure), *words])) from None

    def load(self, *arguments: str) -> dict:
        """Runs the generator; its report."""
        command = [str(self.bench.binaries.load), *arguments, "--json"]
        return json.loads(self.run(command))

    def run(self, command: list[str]) -> str:
        """Runs what puts load on the servers; what it says."""
        what = Path(command[0]).name
        command = ["taskset", "-c", self.cores(self.bench.load_cpu), *command]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failure(f"{what} did not end in {LIMIT_SECONDS} s") from None
        if done.returncode != 0:
            said = (done.stderr.strip() + " " + done.stdout.strip()).strip()
            raise Failure(f"{' '.join(command[3:6])}: {said}")
        return done.stdout


def at(ports: list[int], publish: list[int] | None = None) -> list[str]:
    """Where subscribers connect, and where publishers do."""
    def places(ports: list[int]) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in ports)

    arguments = ["--addr", places(ports), "--publish-addr", places(publish or ports)]
    return [*arguments, "--app-id", APP["id"], "--key", APP["key"], "--secret", APP["secret"]]


def through_redis(stage: Stage) -> dict:
    with stage.ground() as ground, Redis(ground) as redis:
        address = f"127.0.0.1:{redis.servers[0].port}"
        return stage.load("redis", "--rate", "20", "--size", str(SIZE), *stage.span(), "--addr", address)


def at_a_rate(count: int) -> Callable[[Stage], dict]:
    """20 messages a second from the first of so many nodes to 1000 subscribers of the last."""
    def measure(stage: Stage) -> dict:
        with stage.nodes(count) as cluster:
            return stage.load("rate", "--subscribers", "1000", "--publishers", "4", "--rate", "20",
                              "--size", str(SIZE), "--channel", "bench", *stage.span(),
                              *at(cluster.ports[-1:], cluster.ports[:1]))

    return measure


def published(stage: Stage) -> dict:
    with stage.nodes(2) as cluster:
        before = cluster.processor_seconds()
        report = stage.load("publish", "--subscribers", "1", "--publishers", str(PUBLISHERS),
                            "--size", str(SIZE), "--channel", "bench", *stage.span(),
                            *at(cluster.ports[1:], cluster.ports[:1]))
        after = cluster.processor_seconds()
    costs = [f"{name} {(after[name] - before[name]) * 1e6 / report['published_total']:.1f} us"
             for name in after]
    tell(f"    two nodes: processor time per event: {', '.join(costs)}")
    return report


def redis_benchmark(stage: Stage) -> dict:
    """What Redis takes from as many publishers, without any subscriber."""
    tool = program("redis-benchmark", "redis-tools")
    count = 100_000 if stage.quick else 500_000
    with stage.ground() as ground, Redis(ground) as redis:
        command = [tool, "-h", "127.0.0.1", "-p", str(redis.servers[0].port), "-c", str(PUBLISHERS)]
        command += ["-P", "1", "-n", str(count), "--csv", "PUBLISH", "bench", "x" * SIZE]
        said = stage.run(command)
    try:
        return {"messages_per_second": float(list(csv.reader(said.strip().splitlines()))[-1][1])}
    except (IndexError, ValueError):
        raise Failure(f"redis-benchmark says something unknown: {said}") from None


def on_both_cores(measure: Callable[[Stage], dict]) -> Callable[[Stage], dict]:
    return lambda stage: measure(replace(stage, both_cores=True))


def interest(stage: Stage) -> dict:
    """As many messages to the channels of each of four nodes, whose subscribers are on
    that node only, published on all nodes in turn; what each node got of them."""
    with stage.nodes(4) as cluster:
        ports = cluster.ports
        before = [counters(port) for port in ports]
        report = stage.load("publish", "--subscribers", "400", "--publishers", str(PUBLISHERS),
                            "--size", str(SIZE), "--channel", "interest", *stage.span(), *at(ports))
        after = [counters(port) for port in ports]
    own = report["published_total"] / len(ports)
    names = ["published", "received", "delivered", "ignored", "missed", "dropped"]
    lines = [["node", "own", *names]]
    for number, (old, new) in enumerate(zip(before, after)):
        counted = [str(new[name] - old[name]) for name in names]
        lines.append([str(number + 1), f"{own:.0f}", *counted])
    print(f"\n{INTEREST}: messages to a node's own channels, and what the node counted of them")
    for line in lines:
        print("  ".join(cell.rjust(10) for cell in line))
    print(flush=True)
    received = max(new["received"] - old["received"] for old, new in zip(before, after))
    return report | {"share": max(received - HEARTBEATS, 0) / own}


def gathered(count: int) -> Callable[[Stage], dict]:
    def measure(stage: Stage) -> dict:
        with stage.nodes(count) as cluster:
            return stage.load("gather", "--members", str(MEMBERS), *at(cluster.ports))

    return measure


def processors_busy() -> float:
    """For how many seconds the processors have not been idle, all together."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split()[1:8]]
    user, nice, system, _idle, _waiting, irq, softirq = fields
    return (user + nice + system + irq + softirq) / TICKS


def own_seconds() -> float:
    """What this program and those that it started and waited for have used of that."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@dataclass(frozen=True)
class Subject:
    """One of those that are compared."""

    label: str
    measure: Callable[[Stage], dict]
    # Whether its figure suffers when others work on this machine; what is counted does
    # not.
    timed: bool = True

    def measure_among_others(self, stage: Stage) -> dict:
        """Adds how long others had one of the cores: here nodes wait for each other, so
        that their waiting tells nothing of others."""
        busy, own, began = processors_busy(), own_seconds(), time.monotonic()
        report = self.measure(stage)
        busy, own = processors_busy() - busy, own_seconds() - own
        share = max(busy - own, 0) / (time.monotonic() - began)
        return report | {"others_wait_seconds": share * report.get("seconds", 1)}


@dataclass(frozen=True)
class Comparison:
    """A row, whose figure it is, and what that is compared with."""

    row: Row
    own: Subject
    other: Subject | None = None
    # Whether a node is what it measures.
    has_nodes: bool = True

    def measurement(self) -> Measurement:
        """The same as those who report know it."""
        other = Side(self.other.label) if self.other else None
        return Measurement((self.row,), (), (), (), other=other, own=Side(self.own.label))


COMPARISONS = [
    Comparison(
        Row("cluster-redis", f"p50 of a message through Redis alone, {SIZE} B, 20/s", "us", P50, Goal()),
        Subject("Redis", through_redis),
        has_nodes=False,
    ),
    Comparison(
        Row("cluster-latency", "p50 at 20 messages/s to 1000 subscribers, published on another node",
            "us", P50, Goal(most_more_row=("cluster-redis", 2))),
        Subject("two nodes", at_a_rate(2)),
        Subject("one node", at_a_rate(1)),
    ),
    Comparison(
        Row("cluster-publish", f"publishes/s that arrive on another node, {PUBLISHERS} publishers, {SIZE} B",
            "/s", of("messages_per_second"), Goal(least_times=0.333)),
        Subject("two nodes", published),
        Subject("redis-benchmark", redis_benchmark),
    ),
    Comparison(
        Row("cluster-publish2", "the same, servers and publishers on both cores",
            "/s", of("messages_per_second"), Goal()),
        Subject("two nodes", on_both_cores(published)),
        Subject("redis-benchmark", on_both_cores(redis_benchmark)),
    ),
    Comparison(
        Row(INTEREST, "messages a node gets, to those of its own channels, the worst of 4 nodes",
            "x", of("share"), Goal(most=1.1)),
        Subject("four nodes", interest, timed=False),
    ),
    Comparison(
        Row("cluster-presence", f"joins/s of {MEMBERS} members until every one of 3 nodes lists them all",
            "/s", of("joins_per_second"), Goal()),
        Subject("three nodes", gathered(3)),
        Subject("one node", gathered(1)),
    ),
]
NAMES = [comparison.row.name for comparison in COMPARISONS]
# The latency is judged by what Redis takes.
GROUPS = {"cluster": NAMES, "cluster-latency": ["cluster-redis", "cluster-latency"]}


def chosen_comparisons(names: list[str]) -> list[Comparison]:
    wanted = {row for name in names for row in GROUPS.get(name, [name])}
    if not SCALING and INTEREST in wanted:
        tell(f"{INTEREST} is left out: one node alone has no others")
        wanted.remove(INTEREST)
    return [comparison for comparison in COMPARISONS if comparison.row.name in wanted]


def compare_all(
    comparisons: list[Comparison], bench: Bench, reps: int, quick: bool
) -> dict[str, Figures]:
    """The figures of each row, by its name."""
    figures = {comparison.row.name: Figures() for comparison in comparisons}
    stage = Stage(bench, quick)
    disturbed = {}
    for repetition in range(reps):
        # Whoever comes second may find a warmer machine, so they take turns.
        for comparison in comparisons if repetition % 2 == 0 else reversed(comparisons):
            row, of_row = comparison.row, figures[comparison.row.name]
            sides = [(comparison.other, of_row.other), (comparison.own, of_row.own)]
            for subject, list_of in sides if repetition % 2 == 0 else reversed(sides):
                if subject is None:
                    continue
                name = f"{row.name} {subject.label}"
                max_share = OTHERS_SHARE if subject.timed else float("inf")
                report = undisturbed(lambda: subject.measure_among_others(stage), name, ["others"], max_share)
                if report["others_wait_seconds"] > max_share * report.get("seconds", 1):
                    disturbed[row.name] = disturbed.get(row.name, 0) + 1
                list_of.append(row.figure(report))
                tell(f"{repetition + 1}/{reps} {row.name:<16} {subject.label:<16} "
                     f"{shown(list_of[-1], row.unit):>16}{load_of(report)}")
    for name, times in disturbed.items():
        tell(f"{name}: others worked on this machine in {times} of its measurements; "
             "do not trust its verdict, whichever it is")
    return figures
