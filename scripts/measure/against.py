"""Resound against Resound: this checkout and another commit, in the same repetitions.

The other commit is built in a folder of its own below target/, once; the load
generator and the rows are this checkout's for both, so that only the server differs.
What is compared is each repetition's ratio of the two, which what disturbs both
leaves alone; their spread is the noise."""

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from math import comb
from pathlib import Path

from measure.cluster import Comparison
from measure.report import FORMAT, aligned, git, machine
from measure.rows import Goal, Measurement, Row, Side
from measure.runs import Figures, shown
from measure.servers import ROOT, Failure, target_directory, tell

THIS = "this checkout"
# What is not told from nothing, whatever the repetitions say: two builds of the same
# source differ by as much, by where the linker puts things.
LEAST_DIFFERENCE = 0.02
# What is not told from nothing when there are too few repetitions to show the noise.
FEW_DIFFERENCE = 0.10
CONFIDENCE = 0.90


@dataclass(frozen=True)
class Rival:
    """The other Resound."""

    label: str
    binary: Path
    # None if it was given as a binary.
    commit: str | None = None


def rival_of_binary(path: Path) -> Rival:
    if not path.is_file() or not os.access(path, os.X_OK):
        raise Failure(f"--against-binary: {path} is no program")
    return Rival(path.name if path.name != "resound" else "that binary", path.resolve())


def rival_of_commit(name: str) -> Rival:
    """The server of a commit, as it is installed."""
    commit = resolve(name)
    return Rival(commit[:10], binary_of_commit(commit, target_directory() / "against", "release"), commit)


def binary_of_commit(commit: str, home: Path, profile: str) -> Path:
    """The server of the commit with this id, built unless that was done before. `profile`
    is `release` or `debug`, and each has a `home` of its own."""
    binary = home / commit / "resound"
    if binary.is_file():
        tell(f"{commit[:10]} was built before: {binary}")
    else:
        build(commit, home, binary, profile)
    return binary


def resolve(name: str) -> str:
    """The id of the commit that has this name: a branch, a tag, HEAD~2, a part of an id."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./^~@{}-]*", name):
        raise Failure(f"--against: {name!r} is no name of a commit")
    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}")
    if not commit:
        raise Failure(f"--against: there is no commit {name} in {ROOT}")
    return commit


def build(commit: str, home: Path, binary: Path, profile: str) -> None:
    """Builds the server of a commit out of what git has of it, which registers and
    leaves nothing; all commits share what is built of their dependencies."""
    tell(f"building {commit[:10]} in {home}")
    source = home / f"source-{commit}"
    shutil.rmtree(source, ignore_errors=True)
    try:
        unpack(commit, source)
        # With the tests' profile most of it was built for the tests. (The binary of the checkout is put back
        # by cargo when it is asked for.)
        target = target_directory() if profile == "debug" else home / "build"
        environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
        optimized = ["--release"] if profile == "release" else []
        command = ["cargo", "build", *optimized, "--locked", "--bin", "resound"]
        if subprocess.run(command, cwd=source, env=environment).returncode != 0:
            raise Failure(f"the build of {commit[:10]} failed")
        binary.parent.mkdir(parents=True, exist_ok=True)
        # A build that is broken off leaves no binary that would be taken for whole.
        partial = binary.with_name(f"resound.{os.getpid()}")
        shutil.copy2(target / profile / "resound", partial)
        os.replace(partial, binary)
    finally:
        shutil.rmtree(source, ignore_errors=True)


def unpack(commit: str, to: Path) -> None:
    command = ["git", "archive", "--format=tar", commit]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    if done.returncode != 0:
        raise Failure(f"git has not all of {commit[:10]}: {done.stderr.decode(errors='replace').strip()}")
    to.mkdir(parents=True)
    unpacked = subprocess.run(["tar", "-x", "-C", str(to)], input=done.stdout)
    if unpacked.returncode != 0:
        raise Failure(f"{commit[:10]} cannot be unpacked to {to}")


def rows_against(rival: Rival, rows: list[tuple[Measurement, Row]]) -> list[tuple[Measurement, Row]]:
    """The same rows with the other Resound in place of what they are compared with."""
    changed: dict[int, Measurement] = {}
    for measurement, _ in rows:
        own = replace(measurement.own, label=THIS)
        other = replace(measurement.own, label=rival.label, program="rival")
        # Several rows of one measurement go on sharing it.
        changed.setdefault(id(measurement), replace(measurement, own=own, other=other))
    return [(changed[id(measurement)], row) for measurement, row in rows]


def comparisons_against(rival: Rival, comparisons: list[Comparison]) -> list[Comparison]:
    """The same for rows of several nodes; those that measure no node are left out."""
    def of_rival(comparison: Comparison) -> Comparison:
        own = replace(comparison.own, label=THIS)

        def measure(stage):
            binaries = replace(stage.bench.binaries, resound=rival.binary)
            return own.measure(replace(stage, bench=replace(stage.bench, binaries=binaries)))

        row = replace(comparison.row, goal=Goal())
        return replace(comparison, row=row, own=own, other=replace(own, label=rival.label, measure=measure))

    return [of_rival(comparison) for comparison in comparisons if comparison.has_nodes]


class Difference:
    """One row: what the repetitions say of the two."""

    def __init__(self, row: Row, figures: Figures) -> None:
        self.row = row
        self.figures = figures
        pairs = list(zip(figures.own, figures.other))
        # A figure of 0 has no ratio; the two are the same then, or infinitely different.
        self.ratios = sorted(own / other if other else (1.0 if own == other else float("inf"))
                             for own, other in pairs)
        self.ratio = statistics.median(self.ratios)
        self.low, self.high = bounds(self.ratios)
        self.verdict = self.judge()

    def judge(self) -> str:
        """`better`, `worse`, or `same`: no difference that is more than noise."""
        enough = confident(len(self.ratios))
        least = LEAST_DIFFERENCE if enough else FEW_DIFFERENCE
        if self.low > 1 and self.ratio > 1 + least:
            return "better" if self.row.more_is_better else "worse"
        if self.high < 1 and self.ratio < 1 - least:
            return "worse" if self.row.more_is_better else "better"
        return "same"

    def described(self) -> dict:
        def side(figures: list[float]) -> dict:
            return {"figures": figures, "median": statistics.median(figures)}

        return {
            "name": self.row.name,
            "title": self.row.title,
            "unit": self.row.unit,
            "more_is_better": self.row.more_is_better,
            "this": side(self.figures.own),
            "other": side(self.figures.other),
            "ratio": finite(self.ratio),
            "ratio_low": finite(self.low),
            "ratio_high": finite(self.high),
            "verdict": self.verdict,
        }


def finite(number: float) -> float | None:
    """JSON has no infinity."""
    return number if number != float("inf") else None


def outside(count: int, dropped: int) -> float:
    """The chance that the true median is not between the ordered values, if so many are
    left out at each end."""
    return 2 * sum(comb(count, k) for k in range(dropped + 1)) / 2**count


def confident(count: int) -> bool:
    """Whether all values together say where the median is."""
    return outside(count, 0) <= 1 - CONFIDENCE


def bounds(ordered: list[float]) -> tuple[float, float]:
    """Between which the median is, whatever the distribution."""
    dropped = 0
    while outside(len(ordered), dropped + 1) <= 1 - CONFIDENCE:
        dropped += 1
    return ordered[dropped], ordered[-1 - dropped]


def compare(rows: list[Row], figures: dict[str, Figures]) -> list[Difference]:
    return [Difference(row, figures[row.name]) for row in rows]


def print_differences(rival: Rival, differences: list[Difference], reps: int) -> None:
    times = "once" if reps == 1 else f"{reps} times"
    print(f"Linux {platform.release()}, {os.cpu_count()} cores, each row measured {times}, "
          f"{THIS} by turns with {rival.label}")
    lines = [["row", rival.label, THIS, "ratio", "of repetitions", "verdict"]]
    for difference in differences:
        row, figures = difference.row, difference.figures
        lines.append([
            row.title,
            shown(statistics.median(figures.other), row.unit),
            shown(statistics.median(figures.own), row.unit),
            f"{difference.ratio:.3f} x",
            f"{difference.low:.3f} to {difference.high:.3f}",
            difference.verdict,
        ])
    print("\n".join(aligned(lines)))
    worse = [difference.row.name for difference in differences if difference.verdict == "worse"]
    print(f"worse than {rival.label}: {', '.join(worse) or 'none'}")
    if not confident(reps):
        print(f"too few repetitions to tell noise: what differs by less than {FEW_DIFFERENCE:.0%} counts as the same")


def write_differences(
    path: Path, rival: Rival, differences: list[Difference], reps: int, quick: bool
) -> None:
    document = {
        "format": FORMAT,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(git("status", "--porcelain")),
        "against": {"label": rival.label, "commit": rival.commit},
        "machine": machine(),
        "repetitions": reps,
        "quick": quick,
        "rows": [difference.described() for difference in differences],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
