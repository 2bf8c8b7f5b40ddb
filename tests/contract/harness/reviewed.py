"""The reviewed list of differences, expected.json.

An entry explains single lines wherever they occur (`everywhere`, for what is the same in
many answers) or the exact difference of a case (`cases`). `patterns` tell --update which
new cases belong to the entry, `owns` which lines of them if several entries share a case.
"""

import json
import re
from pathlib import Path

from . import compare

PATH = Path(__file__).resolve().parents[1] / "expected.json"
UNREVIEWED = "UNREVIEWED"
GROUPS = {"websocket": "WebSocket", "http": "HTTP API", "settings": "Settings"}


def matches(pattern, text):
    """Only `*` is special: case names contain brackets and question marks."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None


class Reviewed:
    def __init__(self, path=PATH):
        self.path = path
        self.entries = json.loads(path.read_text())["entries"] if path.exists() else []
        self._seen_everywhere = set()

    def everywhere(self, name, line):
        """Whether the line is explained in all cases of the file."""
        text = compare.bare(line)
        found = False
        for entry in self.entries:
            for rule in entry.get("everywhere", []):
                if text in rule["lines"] and any(matches(p, name) for p in rule["files"]):
                    self._seen_everywhere.add((entry["id"], text))
                    found = True
        return found

    def particular(self, name, lines):
        """A difference without the lines that are explained everywhere."""
        return [line for line in lines if not self.everywhere(name, line)]

    def listed(self, key):
        """The lines that reviewed entries have for a case, or None."""
        lists = [e["cases"][key] for e in self.entries if key in e.get("cases", {})]
        if not lists:
            return None
        return [line for lines in lists for line in lines]

    def verdict(self, name, key, lines):
        """How a case went: a word for the summary, and what is wrong, if anything."""
        rest = self.particular(name, lines)
        listed = self.listed(key)
        if self._is_unreviewed(key):
            return "failing", f"listed under {UNREVIEWED}"
        if listed is None:
            if not rest:
                return ("equal" if not lines else "general"), None
            return "failing", "not in the list"
        if sorted(rest) == sorted(listed):
            return "explained", None
        if not rest:
            return "failing", "stale: the listed difference no longer occurs"
        return "failing", "another difference than the listed one"

    def _is_unreviewed(self, key):
        return any(e["id"] == UNREVIEWED and key in e.get("cases", {}) for e in self.entries)

    def stale(self, known, whole):
        """Listed cases that do not exist, and, after a whole run, lines that never occurred."""
        problems = []
        for entry in self.entries:
            shown = entry.get("cases") or entry.get("everywhere") or entry.get("unrecorded")
            if not shown:
                problems.append(f"{entry['id']}: no case shows it")
            if entry["id"] != UNREVIEWED and entry.get("group") not in GROUPS:
                problems.append(f"{entry['id']}: has no group")
            for key in entry.get("cases", {}):
                if key not in known:
                    problems.append(f"{entry['id']}: there is no case {key}")
            for rule in entry.get("everywhere", []) if whole else []:
                for line in rule["lines"]:
                    if (entry["id"], line) not in self._seen_everywhere:
                        problems.append(f"{entry['id']}: never occurred: {line}")
        return problems

    def update(self, results):
        """Takes over the differences of a run: {key: (file, lines)}.

        A case whose difference the entries do not explain as a whole goes to UNREVIEWED as a
        whole: half an explanation would hide that something new came.
        """
        pending = next((e for e in self.entries if e["id"] == UNREVIEWED), {})
        unreviewed = {k: v for k, v in pending.get("cases", {}).items() if k not in results}
        self.entries = [e for e in self.entries if e["id"] != UNREVIEWED]
        for key, (name, lines) in results.items():
            left = rest = self.particular(name, lines)
            shares = []
            for entry in self.entries:
                if key in entry.get("cases", {}) or self._concerns(entry, key):
                    mine = [line for line in left if self._owns(entry, line)]
                    left = [line for line in left if line not in mine]
                    shares.append((entry, mine))
                entry.get("cases", {}).pop(key, None)
            if left:
                unreviewed[key] = rest
                continue
            for entry, mine in shares:
                if mine:
                    entry.setdefault("cases", {})[key] = mine
        if unreviewed:
            self.entries.append({"id": UNREVIEWED, "cases": unreviewed})
        for entry in self.entries:
            if "cases" in entry:
                entry["cases"] = dict(sorted(entry["cases"].items()))
        self.save()

    def _concerns(self, entry, key):
        return any(matches(pattern, key) for pattern in entry.get("patterns", []))

    def _owns(self, entry, line):
        owned = entry.get("owns")
        return owned is None or any(re.search(pattern, line) for pattern in owned)

    def save(self):
        text = json.dumps({"entries": self.entries}, ensure_ascii=False, indent=1)
        self.path.write_text(text + "\n")

    def docs(self):
        """The machine-made part of docs/differences.md: a table for each group."""
        return "\n\n".join(self._table(group) for group in GROUPS)

    def _table(self, group):
        lines = [f"## {GROUPS[group]}", "", "| | Reverb | Resound | why |", "|---|---|---|---|"]
        for entry in self.entries:
            if entry.get("group") == group:
                cells = (entry[name] for name in ("title", "reverb", "resound", "reason"))
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return "\n".join(lines)
