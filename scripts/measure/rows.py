"""Every row of the table: how it is measured, and what it has to reach."""

from dataclasses import dataclass
from typing import Callable, Mapping


@dataclass(frozen=True)
class Goal:
    """What a row has to reach; without any bound, it is only reported."""

    # Bounds of the ratio to the other side.
    least_times: float | None = None
    most_times: float | None = None
    # A bound of the figure itself, in the row's unit.
    most: float | None = None
    # A bound of the ratio to another row's figure, if that was measured too.
    most_times_row: tuple[str, float] | None = None
    # A bound of what the figure is more than the other side's, as a multiple of another
    # row's figure, if that was measured too.
    most_more_row: tuple[str, float] | None = None

    def text(self, unit: str) -> str:
        parts = []
        if self.least_times is not None:
            parts.append(f">= {self.least_times:g} x")
        if self.most_times is not None:
            parts.append(f"<= {self.most_times:g} x")
        if self.most is not None:
            parts.append(f"<= {self.most:g} {unit}")
        if self.most_times_row is not None:
            name, factor = self.most_times_row
            parts.append(f"<= {factor:g} x {name}")
        if self.most_more_row is not None:
            name, factor = self.most_more_row
            parts.append(f"<= other + {factor:g} x {name}")
        return ", ".join(parts) or "-"

    def met(self, ratio: float | None, own: float, medians: Mapping[str, float]) -> bool:
        """Whether the medians reach it; a ratio there is not is not reached."""
        if self.least_times is not None and (ratio is None or ratio < self.least_times):
            return False
        if self.most_times is not None and (ratio is None or ratio > self.most_times):
            return False
        if self.most is not None and own > self.most:
            return False
        if self.most_times_row is not None:
            name, factor = self.most_times_row
            if name in medians and own > medians[name] * factor:
                return False
        if self.most_more_row is not None:
            name, factor = self.most_more_row
            if ratio is None or name in medians and own - own / ratio > medians[name] * factor:
                return False
        return True


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: a server, and what is special about it."""

    label: str
    # Or `ceiling`, or `rival`: the Resound of another commit.
    program: str = "resound"
    server: tuple[str, ...] = ("--workers", "1")
    environment: tuple[tuple[str, str], ...] = ()
    # What only this side's generator is passed.
    load: tuple[str, ...] = ()
    tls: bool = False
    # Whether the server has the generator's core too.
    both_cores: bool = False
    # Whether it tells a receiver, on the generator's core, of all that can be told.
    webhooks: bool = False


CEILING = Side("ceiling", "ceiling", ())
RESOUND = Side("resound")


@dataclass(frozen=True)
class Row:
    """One figure of a measurement, from the generator's report."""

    name: str
    title: str
    unit: str
    figure: Callable[[dict], float]
    goal: Goal

    @property
    def more_is_better(self) -> bool:
        """Rates are to be high; times, memory and processor time are to be low."""
        return self.unit == "/s"


@dataclass(frozen=True)
class Measurement:
    """How the generator is run, and the rows that this gives."""

    rows: tuple[Row, ...]
    arguments: tuple[str, ...]
    full: tuple[str, ...]
    quick: tuple[str, ...]
    # None if there is nothing to compare with.
    other: Side | None = CEILING
    own: Side = RESOUND
    # Whether --quick measures it without being asked for it.
    in_quick: bool = False
    # Whether its figures suffer when the generator has to wait for its core; memory
    # and counted processor time do not.
    timed: bool = True
    # Whether they suffer when the server has to wait for its core, too. One that is
    # busy throughout is measured by what it gets done in its own time; a single long
    # latency cannot be told from one that another process has caused.
    latency: bool = False

    def sides(self) -> list[Side]:
        return [side for side in (self.other, self.own) if side is not None]


def of(*path: str) -> Callable[[dict], float]:
    """What stands in a report under these names."""

    def figure(report: dict) -> float:
        for name in path:
            report = report[name]
        return report

    return figure


def server_us_per_delivery(report: dict) -> float:
    return report["server_cpu_seconds"] * 1e6 / report["deliveries"]


def worst_ms(report: dict) -> float:
    return report["latency_us"]["max"] / 1000


THOUSAND = ("--subscribers", "1000")
FOUR = ("--publishers", "4")
SMALL = ("--size", "200")
LARGE = ("--size", "2000")
LONG = ("--seconds", "10", "--warmup", "2")
SHORT = ("--seconds", "3", "--warmup", "1")
DELIVERIES = of("deliveries_per_second")
FANOUT = ("fanout", *FOUR, "--window", "32")


def fanout(name: str, title: str, factor: float, *arguments: str, quick: bool = False) -> Measurement:
    row = Row(name, f"deliveries/s, {title}", "/s", DELIVERIES, Goal(least_times=factor))
    return Measurement((row,), (*FANOUT, *arguments), LONG, SHORT, in_quick=quick)


def latency(rate: int, quick: bool = False) -> Measurement:
    def row(quantile: str, factor: float) -> Row:
        title = f"{quantile} at {rate} messages/s to 1000 subscribers"
        figure = of("latency_us", quantile)
        return Row(f"latency{rate}-{quantile}", title, "us", figure, Goal(most_times=factor))

    return Measurement(
        (row("p50", 1.2), row("p99", 1.5)),
        ("rate", *THOUSAND, *SMALL, *FOUR, "--rate", str(rate)),
        LONG, ("--seconds", "4", "--warmup", "1"), in_quick=quick, latency=True,
    )


def idle(name: str, connections: int, goal: Goal, own: Side = RESOUND, quick: bool = False) -> Measurement:
    over = " over TLS" if own.tls else ""
    title = f"resident memory per idle connection{over}, {connections:,}".replace(",000", " 000")
    row = Row(name, title, "B", of("bytes_per_connection"), goal)
    return Measurement(
        (row,), ("idle", "--subscribers", str(connections), "--sources", "4"),
        ("--silence", "3"), ("--silence", "1"), other=None, own=own, in_quick=quick, timed=False,
    )


def workers(name: str, title: str, *arguments: str) -> Measurement:
    row = Row(name, f"server CPU per delivery {title}, two workers to one, both cores",
              "us", server_us_per_delivery, Goal(most_times=1.15))
    return Measurement(
        (row,), (*arguments, *THOUSAND, *SMALL, "--channel", "bench"), LONG, SHORT,
        other=Side("one worker", both_cores=True),
        own=Side("two workers", server=("--workers", "2"), both_cores=True),
        # A server that has the generator's core is bound to take it.
        timed=False,
    )


def floods(name: str, what: str, kind: str, count: int, max_ms: float, quick: bool = False) -> Measurement:
    """A quiet client's ping while so many others flood the one worker."""
    def row(quantile: str, goal: Goal) -> Row:
        flood = "one client floods" if count == 1 else f"{count} clients flood"
        title = f"{quantile} of a quiet client's ping, {flood} with {what}"
        figure = of("round_trip_us", quantile)
        return Row(f"{name}{count}-{quantile}", title, "ms", lambda report: figure(report) / 1000, goal)

    return Measurement(
        (row("p50", Goal()), row("p99", Goal(most=max_ms))),
        ("floods", "--floods", str(count), "--kind", kind), LONG, SHORT,
        other=None, in_quick=quick, latency=True,
    )


def worst_latency(name: str, title: str, *arguments: str) -> Measurement:
    row = Row(name, f"longest delivery at 20/s to one subscriber, {title}", "ms", worst_ms, Goal(most=100))
    return Measurement(
        (row,), arguments, LONG, ("--seconds", "6", "--warmup", "1"), other=None, latency=True,
    )


def webhooks(name: str, title: str, figure: Callable[[dict], float], *arguments: str) -> Measurement:
    row = Row(name, f"server CPU per {title}, everything told to a webhook to nothing", "us", figure, Goal(most_times=1.05))
    return Measurement(
        (row,), arguments, LONG, SHORT,
        other=Side("nothing told"), own=Side("all told", webhooks=True),
        # The receiver shares the generator's core.
        timed=False,
    )


def once(name: str, title: str, own: Side) -> Measurement:
    row = Row(name, f"publishes/server s, {title}", "/s", of("messages_per_server_second"), Goal(least_times=0.97))
    return Measurement(
        (row,), ("publish", *THOUSAND, *SMALL, "--publishers", "16"), LONG, SHORT,
        other=Side("without"), own=own,
    )


IDLE = Goal(most=2560)
# So small that it is full within seconds: what is measured is that one who does
# not read is closed and harms nobody, and not how much is kept for it.
BACKLOG = (("RESOUND_MAX_BACKLOG", "524288"),)

MEASUREMENTS = [
    fanout("fanout", "1000 subscribers, 200 B", 10, *THOUSAND, *SMALL, "--channel", "bench", quick=True),
    fanout("fanout2k", "1000 subscribers, 2 KB", 4, *THOUSAND, *LARGE, "--channel", "bench"),
    fanout("fanout10k", "10 000 subscribers, 200 B", 10,
           "--subscribers", "10000", *SMALL, "--channel", "bench"),
    fanout("private", "private channel of 1000, 200 B", 9, *THOUSAND, *SMALL, "--channel", "private-bench"),
    fanout("presencefan", "presence channel of 1000, 200 B", 9,
           *THOUSAND, *SMALL, "--channel", "presence-bench"),
    Measurement(
        (Row("tls", "deliveries/server s over TLS, ceiling over TCP, 1000 subscribers, 200 B",
             "/s", of("deliveries_per_server_second"), Goal(least_times=2)),),
        (*FANOUT, *THOUSAND, *SMALL, "--channel", "bench"), LONG, SHORT,
        own=Side("resound", tls=True),
    ),
    workers("workers", "at full speed", *FANOUT),
    # At full speed, a server that is faster than the generator has smaller batches.
    workers("workers100", "at 100 messages/s", "rate", *FOUR, "--rate", "100"),
    latency(20, quick=True),
    latency(100),
    idle("idle5k", 5_000, IDLE),
    idle("idle10k", 10_000, IDLE, quick=True),
    idle("idle19k", 19_000, Goal(most=2560, most_times_row=("idle5k", 1.05))),
    idle("idletls", 5_000, Goal(most=4096), own=Side("resound", tls=True)),
    Measurement(
        (Row("burst", "resident memory after a burst to 10 000 connections, to before",
             "x", of("resident_ratio"), Goal(most=1.10)),),
        ("burst", "--subscribers", "10000", "--size", "1000", *FOUR, "--messages", "200"),
        ("--quiet", "3", "--silence", "10"), ("--quiet", "1", "--silence", "10"), other=None, timed=False,
    ),
    Measurement(
        (Row("large-peak", "resident memory at its peak, more than before, one event of 100 kB to 2000 subscribers",
             "MB", lambda report: report["resident_peak_more_bytes"] / 1e6, Goal(most=20)),
         Row("large-after", "resident memory after that event, to before", "x",
             of("resident_ratio"), Goal(most=1.25))),
        ("burst", "--subscribers", "2000", "--size", "100000", "--publishers", "1", "--messages", "1"),
        ("--quiet", "3", "--silence", "10"), ("--quiet", "1", "--silence", "10"), other=None, timed=False,
    ),
    Measurement(
        (Row("publish", "publishes/server s, 16 publishers, 1000 channels", "/s",
             of("messages_per_server_second"), Goal(least_times=0.6)),),
        ("publish", *THOUSAND, *SMALL, "--publishers", "16"), LONG, SHORT, in_quick=True,
    ),
    once("idempotency-key", "each with an Idempotency-Key, to none", Side("keys", load=("--keys",))),
    once("duplicate-window", "known again for 5 s by their signature, to not",
         Side("window", environment=(("RESOUND_DUPLICATE_WINDOW", "5"),))),
    Measurement(
        (Row("publish1000", "publishes/server s, 1000 publishers, 1000 channels", "/s",
             of("messages_per_server_second"), Goal(least_times=0.6)),),
        ("publish", *THOUSAND, *SMALL, "--publishers", "1000"), LONG, SHORT,
    ),
    Measurement(
        (Row("whisper", "whispers delivered/s, 50 rooms of 20, 200 B", "/s",
             DELIVERIES, Goal(least_times=1)),),
        ("whisper", "--rooms", "50", "--members", "20"), LONG, SHORT, in_quick=True,
    ),
    Measurement(
        (Row("churn", "connect, subscribe, close/server s, 64 at a time", "/s",
             of("cycles_per_server_second"), Goal(least_times=0.75)),),
        ("churn", "--visitors", "64", "--channels", "100"), LONG, SHORT,
    ),
    Measurement(
        (Row("resubscribe", "subscribes and unsubscribes/s, 200 sockets", "/s",
             of("operations_per_second"), Goal(least_times=0.6)),),
        ("resubscribe", "--sockets", "200", "--pipeline", "16"), LONG, SHORT,
    ),
    Measurement(
        (Row("presence", "presence told/s, joins and leaves among 10 000", "/s",
             DELIVERIES, Goal(least_times=0.6)),),
        ("presence", "--members", "10000"), LONG, SHORT,
        # All members would be sent all others by one system call each.
        other=Side("ceiling", "ceiling", ("--quiet-members", "10000")),
    ),
    Measurement(
        (Row("disconnect", "longest ping while 10 000 connections close", "ms",
             lambda report: report["worst_us"]["max"] / 1000, Goal(most=100)),),
        ("disconnect", "--subscribers", "10000"), (), (), other=None,
    ),
    webhooks("webhooks-fanout", "delivery", server_us_per_delivery,
             *FANOUT, *THOUSAND, *SMALL, "--channel", "bench"),
    webhooks("webhooks-churn", "connect, subscribe, close", lambda report: 1e6 / report["cycles_per_server_second"],
             "churn", "--visitors", "64", "--channels", "100", "--keeps", "16"),
    webhooks("webhooks-presence", "presence told, joins and leaves among 10 000", server_us_per_delivery,
             "presence", "--members", "10000"),
    worst_latency("fairness", "a flood and 4000 of 6000 members killed", "fairness"),
    worst_latency("greedy", "one client pings and whispers at full speed", "greedy"),
    *(floods(name, what, kind, count, max_ms, quick=(name, count) == ("greedy", 4))
      for name, what, kind in [("greedy", "refused subscribes", "subscribes"), ("pongs", "pongs", "pongs")]
      for count, max_ms in [(1, 20), (4, 20), (16, 80)]),
    Measurement(
        (Row("slow", "p99 at 100/s of 2 KB, one of 1000 does not read, to all do", "us",
             of("latency_us", "p99"), Goal(most_times=1.5)),),
        ("rate", "--subscribers", "999", *LARGE, *FOUR, "--rate", "100"), LONG, LONG,
        other=Side("all read", environment=BACKLOG),
        own=Side("one does not", environment=BACKLOG, load=("--stalled", "1")),
        latency=True,
    ),
]

# Names for several rows.
GROUPS = {
    "latency": ["latency20-p50", "latency20-p99", "latency100-p50", "latency100-p99"],
    "latency20": ["latency20-p50", "latency20-p99"],
    "latency100": ["latency100-p50", "latency100-p99"],
    "large": ["large-peak", "large-after"],
    "greedy1": ["greedy1-p50", "greedy1-p99"],
    "greedy4": ["greedy4-p50", "greedy4-p99"],
    "greedy16": ["greedy16-p50", "greedy16-p99"],
    "pongs1": ["pongs1-p50", "pongs1-p99"],
    "pongs4": ["pongs4-p50", "pongs4-p99"],
    "pongs16": ["pongs16-p50", "pongs16-p99"],
    "floods": [f"{name}{count}-{quantile}" for name in ("greedy", "pongs")
               for count in (1, 4, 16) for quantile in ("p50", "p99")],
    "once": ["idempotency-key", "duplicate-window"],
    "webhooks": ["webhooks-fanout", "webhooks-churn", "webhooks-presence"],
    "idle": ["idle5k", "idle10k", "idle19k"],
}


def row_names() -> list[str]:
    return [row.name for measurement in MEASUREMENTS for row in measurement.rows]


def chosen(names: list[str], quick: bool) -> list[tuple[Measurement, Row]]:
    """The rows of these names in the table's order, with how each is measured; the
    usual ones if none is named."""
    wanted = {row for name in names for row in GROUPS.get(name, [name])}
    return [
        (measurement, row)
        for measurement in MEASUREMENTS
        for row in measurement.rows
        if row.name in wanted or (not names and (measurement.in_quick or not quick))
    ]
