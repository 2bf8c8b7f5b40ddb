"""How many events reach one receiver of webhooks: as fast as it can take them, and one that takes
20 ms for each request. A goal is an absolute number here, since there is nothing else to compare
with; both servers and the receiver share what cores there are."""

import subprocess
import time

from measure.rows import Side
from measure.servers import Bench, Failure, Receiver, Server, tell

# Milliseconds of the receiver, and events a second that have to reach it.
GOALS = ((0, 10_000), (20, 5_000))
WARMUP, SECONDS = 2, 8
# A client event each, which is told; to one other only, so that little else is measured.
GENERATOR = ["whisper", "--rooms", "200", "--members", "2", "--window", "2",
             "--seconds", str(WARMUP + SECONDS + 4), "--warmup", "0"]


def webhooks(bench: Bench, reps: int) -> bool:
    """Whether the median of the repetitions reaches each goal."""
    all_met = True
    for milliseconds, goal in GOALS:
        figures = [measure(bench, milliseconds) for _ in range(reps)]
        median = sorted(figures)[len(figures) // 2]
        is_met = median >= goal
        all_met = all_met and is_met
        verdict = "ok" if is_met else "MISSED"
        print(f"events/s that reach a receiver of {milliseconds} ms: {median:,.0f} "
              f"(goal >= {goal:,}): {verdict}")
    return all_met


def measure(bench: Bench, milliseconds: int) -> float:
    receiver = Receiver(bench.load_cpu, milliseconds)
    environment = receiver.start("client_event")
    side = Side("resound", environment=tuple(environment.items()))
    try:
        with bench.server(side) as server:
            return rate(bench, side, server, receiver)
    finally:
        receiver.stop()


def rate(bench: Bench, side: Side, server: Server, receiver: Receiver) -> float:
    command = bench.generator(side, server, GENERATOR)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as generator:
        time.sleep(WARMUP)
        (before, requests), began = receiver.counts(), time.monotonic()
        time.sleep(SECONDS)
        (after, more), seconds = receiver.counts(), time.monotonic() - began
        if generator.poll() is not None:
            raise Failure(f"the generator has ended: {generator.stderr.read()}")
        generator.kill()
    events = after - before
    tell(f"{events} events in {more - requests} requests in {seconds:.1f} s")
    return events / seconds
