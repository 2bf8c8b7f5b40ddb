"""One measurement after the other, each repetition on a fresh server."""

import json
import subprocess
from dataclasses import dataclass, field
from typing import Callable

from measure.rows import Measurement, Row, Side
from measure.servers import Bench, Failure, Server, tell

# Who waited for its core longer than this was disturbed.
DISTURBED_SHARE = 0.05
# One pause is enough to be the longest latency of all.
DISTURBED_LATENCY_SHARE = 0.01
ATTEMPTS = 4
# No run of the generator takes this long beyond its own time; the longest
# preparation is that of `presence`.
SPARE_SECONDS = 300


@dataclass
class Figures:
    """What the repetitions of a row gave, of the one it is compared with and of
    its own."""

    other: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)


def run_generator(
    bench: Bench, side: Side, server: Server, arguments: list[str], seconds: int
) -> dict:
    """Runs the generator against a server; its report."""
    what = f"{arguments[0]} on {side.label}"
    command = bench.generator(side, server, arguments)
    limit = SPARE_SECONDS + seconds
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise Failure(f"{what}: the generator did not end in {limit} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() + " " + done.stdout.strip()).strip()
        words = server.last_words()
        raise Failure(f"{what}: {said}\nthe server said: {words}")
    return json.loads(done.stdout)


def measure(measurement: Measurement, side: Side, bench: Bench, quick: bool) -> dict:
    """One repetition on a fresh server; the generator's report."""
    length = measurement.quick if quick else measurement.full
    arguments = [*measurement.arguments, *length, *side.load]
    seconds = sum(int(number) for number in length[1::2])
    with bench.server(side) as server:
        return run_generator(bench, side, server, arguments, seconds)


def measure_undisturbed(
    measurement: Measurement, side: Side, bench: Bench, quick: bool
) -> dict:
    """Measures again if another process took the generator's core meanwhile, or the
    server's where that matters."""
    watched, max_share = ["generator"], DISTURBED_SHARE
    if measurement.latency:
        watched, max_share = ["generator", "server"], DISTURBED_LATENCY_SHARE
    if not measurement.timed:
        max_share = float("inf")
    name = f"{measurement.rows[0].name} {side.label}"
    return undisturbed(lambda: measure(measurement, side, bench, quick), name, watched, max_share)


def undisturbed(
    measure_once: Callable[[], dict], name: str, watched: list[str], max_share: float
) -> dict:
    """Measures again while those who are watched waited longer for their core than
    this share of the time; on a machine that is never quiet, the last attempt counts."""
    for attempt in range(1, ATTEMPTS + 1):
        report = measure_once()
        waits = [report.get(f"{program}_wait_seconds", 0) for program in watched]
        share = max(waits) / report.get("seconds", 1)
        if share <= max_share:
            break
        again = "measuring again" if attempt < ATTEMPTS else "it counts nevertheless"
        tell(f"    {name}: other processes took {share:.0%} of a core; {again}")
    return report


def measure_all(
    rows: list[tuple[Measurement, Row]], bench: Bench, reps: int, quick: bool
) -> dict[str, Figures]:
    """The figures of each row, by its name."""
    figures = {row.name: Figures() for _, row in rows}
    # One measurement may give several rows.
    measurements = [
        measurement for number, (measurement, _) in enumerate(rows)
        if number == 0 or rows[number - 1][0] is not measurement
    ]
    for repetition in range(reps):
        for measurement in measurements:
            sides = measurement.sides()
            # Whoever comes second may find a warmer machine, so they take turns.
            if repetition % 2:
                sides.reverse()
            for side in sides:
                report = measure_undisturbed(measurement, side, bench, quick)
                for row in measurement.rows:
                    if row.name not in figures:
                        continue
                    figure = row.figure(report)
                    of = figures[row.name]
                    (of.own if side is measurement.own else of.other).append(figure)
                    tell(f"{repetition + 1}/{reps} {row.name:<14} {side.label:<12} "
                         f"{shown(figure, row.unit):>16}{load_of(report)}")
    return figures


def load_of(report: dict) -> str:
    """How busy the two cores were; a generator busier than the server is
    measuring itself."""
    if "server_cpu_seconds" not in report:
        return ""
    server = report["server_cpu_seconds"] / report["seconds"]
    generator = report["generator_cpu_seconds"] / report["seconds"]
    return f"   server {server:4.0%}, generator {generator:4.0%} of a core"


def shown(figure: float, unit: str) -> str:
    decimals = 0 if abs(figure) >= 100 else 2
    return f"{figure:,.{decimals}f} {unit}"
