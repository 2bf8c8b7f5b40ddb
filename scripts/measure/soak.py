"""The long run: presence churn, mass disconnects and bursts against one server,
which has to be after it what it was before.

Memory is compared with what was resident after the first round. What is kept from
then on is no leak, and how much that is, compared with the idle server at the start, is
reported for itself. Open files have to be exactly as many as before."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from measure.rows import RESOUND
from measure.runs import run_generator
from measure.servers import Bench, Failure, Server

SILENCE_SECONDS = 10
# Between two rounds: long enough for the server to have forgotten the last one.
PAUSE_SECONDS = 3
# What memory may have grown by at the end, and how much busier an idle server may be.
GROWTH = 1.10
# What an idle server has kept differed by 4 MB from round to round, up and down.
ALLOWANCE = 4_000_000
CPU_SHARE = 0.01
TICKS = os.sysconf("SC_CLK_TCK")

# One round: what the generator does, and how many seconds beyond its preparation.
ROUND = [
    (["presence", "--members", "2000", "--visitors", "8", "--seconds", "8", "--warmup", "1"], 9),
    (["churn", "--visitors", "64", "--seconds", "4", "--warmup", "1"], 5),
    (["disconnect", "--subscribers", "10000", "--sources", "4"], 2),
    (["burst", "--subscribers", "5000", "--size", "1000", "--messages", "200",
      "--quiet", "1", "--silence", "1"], 2),
]


@dataclass(frozen=True)
class Sample:
    """What an idle server has and does."""

    resident: int
    open_files: int
    # Processor time over elapsed time.
    cpu: float

    def __str__(self) -> str:
        return (f"{self.resident / 1e6:7.1f} MB resident, {self.open_files:4} open files, "
                f"{self.cpu:5.1%} of a core while idle")


def sample(pid: int, seconds: float) -> Sample:
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    busy = (cpu_seconds(pid) - before) / (time.monotonic() - began)
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return Sample(pages * os.sysconf("SC_PAGE_SIZE"), files, busy)


def settled(pid: int) -> Sample:
    """After a silence in which memory can be given back."""
    time.sleep(SILENCE_SECONDS)
    return sample(pid, SILENCE_SECONDS)


def cpu_seconds(pid: int) -> float:
    # The name before the last parenthesis may hold anything, spaces too.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def soak(bench: Bench, minutes: float) -> bool:
    """Runs rounds for so long, at least two; whether the server stayed as it was."""
    with bench.server(RESOUND) as server:
        return soak_server(bench, server, minutes * 60)


def soak_server(bench: Bench, server: Server, seconds: float) -> bool:
    pid = server.process.pid
    try:
        start = sample(pid, SILENCE_SECONDS)
        print(f"start       {start}", flush=True)
        began, rounds = time.monotonic(), []
        while len(rounds) < 2 or time.monotonic() - began < seconds:
            for arguments, length in ROUND:
                run_generator(bench, RESOUND, server, list(arguments), length)
            # The first and the last are compared, and so wait as long.
            rounds.append(sample(pid, PAUSE_SECONDS) if rounds else settled(pid))
            print(f"round {len(rounds):<5} {rounds[-1]}", flush=True)
        end = settled(pid)
    except OSError as error:
        raise Failure(f"the server is gone: {error}; it said: {server.last_words()}") from None
    print(f"end         {end}", flush=True)
    return judge(start, rounds[0], end)


def judge(start: Sample, first: Sample, end: Sample) -> bool:
    kept = end.resident / start.resident
    print(f"kept since the start: {(end.resident - start.resident) / 1e6:.1f} MB "
          f"({kept:.2f} x of the start's; told, not judged)")
    verdicts = [
        (f"resident memory is {end.resident / first.resident:.3f} x of that after the first "
         f"round (<= {GROWTH:g} x, or {ALLOWANCE / 1e6:.0f} MB more)",
         end.resident <= max(first.resident * GROWTH, first.resident + ALLOWANCE)),
        (f"{end.open_files} open files, {start.open_files} at the start (the same)",
         end.open_files == start.open_files),
        (f"idle processor time {end.cpu:.2%}, {start.cpu:.2%} at the start "
         f"(<= {CPU_SHARE:.0%} more)", end.cpu <= start.cpu + CPU_SHARE),
    ]
    for text, met in verdicts:
        print(f"{'yes' if met else 'NO ':<4} {text}")
    return all(met for _, met in verdicts)
