"""What is reported at the end: a table for people, and a file for programs."""

import json
import os
import platform
import statistics
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from measure.rows import Measurement, Row
from measure.runs import Figures, shown
from measure.servers import ROOT

# Counts up when a member of the file changes its meaning or goes away.
FORMAT = 1


class Result:
    """One row with its medians."""

    def __init__(self, measurement: Measurement, row: Row, figures: Figures) -> None:
        self.measurement = measurement
        self.row = row
        self.figures = figures
        self.own = statistics.median(figures.own)
        self.other = statistics.median(figures.other) if figures.other else None
        self.ratio = self.own / self.other if self.other else None
        self.met = True


def judge(
    rows: list[tuple[Measurement, Row]], figures: dict[str, Figures]
) -> list[Result]:
    results = [Result(measurement, row, figures[row.name]) for measurement, row in rows]
    medians = {result.row.name: result.own for result in results}
    for result in results:
        result.met = result.row.goal.met(result.ratio, result.own, medians)
    return results


def print_table(results: list[Result], reps: int) -> None:
    times = "once" if reps == 1 else f"{reps} times"
    print(f"Linux {platform.release()}, {os.cpu_count()} cores, each row measured {times}")
    lines = [["row", "compared with", "median", "resound median", "ratio", "goal", "met?"]]
    for result in results:
        unit, other = result.row.unit, result.measurement.other
        goal = result.row.goal.text(unit)
        lines.append([
            result.row.title,
            other.label if other else "-",
            shown(result.other, unit) if result.other is not None else "-",
            shown(result.own, unit),
            f"{result.ratio:.2f} x" if result.ratio is not None else "-",
            goal,
            "-" if goal == "-" else "yes" if result.met else "NO",
        ])
    print("\n".join(aligned(lines)))


def aligned(lines: list[list[str]]) -> list[str]:
    """A table's lines, the first of which is its head."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return [
        " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in ruled
    ]


def write_json(path: Path, results: list[Result], reps: int, quick: bool) -> None:
    options = (" --quick" if quick else "") + f" --reps {reps}"
    document = {
        "format": FORMAT,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(git("status", "--porcelain")),
        "machine": machine(),
        "repetitions": reps,
        "quick": quick,
        "rows": [described(result, options) for result in results],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def described(result: Result, options: str) -> dict:
    row, measurement = result.row, result.measurement
    other = None
    if measurement.other is not None:
        figures = result.figures.other
        other = side(measurement.other.label, figures)
    goal = row.goal
    return {
        "name": row.name,
        "title": row.title,
        "unit": row.unit,
        "ceiling": other,
        "resound": side(measurement.own.label, result.figures.own),
        "ratio": result.ratio,
        "goal": {
            "text": goal.text(row.unit),
            "least_times": goal.least_times,
            "most_times": goal.most_times,
            "most": goal.most,
            "most_times_row": goal.most_times_row,
            "most_more_row": goal.most_more_row,
        },
        "met": result.met,
        "command": f"scripts/bench {row.name}{options}",
    }


def side(label: str, figures: list[float]) -> dict:
    return {
        "label": label,
        "figures": figures,
        "median": statistics.median(figures),
        "mean": statistics.mean(figures),
    }


def machine() -> dict:
    return {
        "system": f"Linux {platform.release()}",
        "architecture": platform.machine(),
        "processor": first_of("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory": first_of("/proc/meminfo", "MemTotal"),
    }


def first_of(path: str, name: str) -> str | None:
    """The first value of this name in a file of lines like `name: value`."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def git(*arguments: str) -> str | None:
    """What git says; None if this is not a checkout or there is no git."""
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
