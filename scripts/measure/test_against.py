"""What a comparison of two commits says, and how the other one is built; no figure is
measured here.

    python3 -B -m unittest discover -s scripts -t scripts -p 'test_*.py'
"""

import io
import json
import os
import subprocess
import tempfile
import unittest
from contextlib import redirect_stderr
from pathlib import Path
from unittest import mock

from measure import against
from measure.against import Difference, Rival, bounds, confident, rows_against
from measure.rows import GROUPS, Goal, Row, chosen, row_names
from measure.runs import Figures
from measure.servers import ROOT, Failure


def row(unit: str) -> Row:
    return Row("row", "a row", unit, float, Goal())


def verdict(unit: str, own: list[float], other: list[float]) -> str:
    return Difference(row(unit), Figures(other, own)).verdict


class Verdicts(unittest.TestCase):
    def test_what_all_repetitions_agree_on_is_told(self) -> None:
        self.assertEqual(verdict("/s", [115, 117, 116, 118, 114], [100] * 5), "better")
        self.assertEqual(verdict("us", [115, 117, 116, 118, 114], [100] * 5), "worse")
        self.assertEqual(verdict("/s", [85, 87, 86, 84, 83], [100] * 5), "worse")
        self.assertEqual(verdict("ms", [85, 87, 86, 84, 83], [100] * 5), "better")

    def test_what_they_do_not_agree_on_is_noise(self) -> None:
        self.assertEqual(verdict("/s", [80, 85, 90, 80, 101], [100] * 5), "same")

    def test_what_disturbs_both_disturbs_no_ratio(self) -> None:
        # The machine was half as fast in two of the repetitions.
        self.assertEqual(verdict("/s", [110, 55, 111, 54, 112], [100, 50, 100, 50, 100]), "better")

    def test_what_a_linker_can_do_is_the_same(self) -> None:
        self.assertEqual(verdict("/s", [99, 98.5, 99, 98.6, 99], [100] * 5), "same")

    def test_few_repetitions_tell_only_what_is_plain(self) -> None:
        self.assertFalse(confident(4))
        self.assertTrue(confident(5))
        self.assertEqual(verdict("/s", [92], [100]), "same")
        self.assertEqual(verdict("/s", [80], [100]), "worse")

    def test_many_repetitions_leave_out_the_odd_ones(self) -> None:
        self.assertEqual(bounds([1, 2, 3, 4, 5]), (1, 5))
        self.assertEqual(bounds(list(range(1, 11))), (2, 9))
        figures = [90, 91, 92, 90, 91, 93, 90, 91, 92, 200]
        self.assertEqual(verdict("/s", figures, [100] * 10), "worse")

    def test_nothing_to_divide_by(self) -> None:
        self.assertEqual(verdict("x", [0, 0], [0, 0]), "same")
        difference = Difference(row("x"), Figures([0, 0], [1, 1]))
        self.assertEqual(difference.verdict, "worse")
        json.dumps(difference.described(), allow_nan=False)


class Rows(unittest.TestCase):
    def test_both_sides_are_run_as_the_row_is(self) -> None:
        rival = Rival("abc", Path("/nowhere"))
        before = chosen(["slow", "latency20"], False)
        rows = rows_against(rival, before)
        self.assertEqual([of.name for _, of in rows], ["latency20-p50", "latency20-p99", "slow"])
        self.assertIs(rows[0][0], rows[1][0], "one measurement gives both")
        for (measurement, _), (was, _) in zip(rows, before):
            self.assertEqual((measurement.other.label, measurement.other.program), ("abc", "rival"))
            self.assertEqual(measurement.other.environment, was.own.environment)
            self.assertEqual(measurement.other.load, was.own.load)
            self.assertEqual(measurement.own.program, "resound")

    def test_groups_name_rows(self) -> None:
        for rows in GROUPS.values():
            self.assertLessEqual(set(rows), set(row_names()))


class Builds(unittest.TestCase):
    """With a cargo that only says what it was asked to build."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = Path(directory.name)
        self.repository = self.folder / "repository"
        self.repository.mkdir()
        self.git("init", "-q")
        self.commit("one")
        self.commit("two")
        cargo = self.folder / "bin" / "cargo"
        cargo.parent.mkdir()
        cargo.write_text('#!/bin/sh\n[ -e fails ] && exit 101\n'
                         'case "$*" in *--release*) profile=release ;; *) profile=debug ;; esac\n'
                         'mkdir -p "$CARGO_TARGET_DIR/$profile"\n'
                         'cp what "$CARGO_TARGET_DIR/$profile/resound"\necho "$*" >>"$CARGO_TARGET_DIR/asked"\n')
        cargo.chmod(0o755)
        path = f"{cargo.parent}:{os.environ['PATH']}"
        self.target = self.folder / "target"
        for patch in [
            mock.patch.dict(os.environ, {"PATH": path}),
            mock.patch.object(against, "ROOT", self.repository),
            mock.patch.object(against, "git", self.git_or_none),
            mock.patch.object(against, "target_directory", lambda: self.target),
            redirect_stderr(io.StringIO()),
        ]:
            patch.__enter__()
            self.addCleanup(patch.__exit__, None, None, None)

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
        command = ["git", *who, *arguments]
        done = subprocess.run(command, cwd=self.repository, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def git_or_none(self, *arguments: str) -> str | None:
        try:
            return self.git(*arguments)
        except subprocess.CalledProcessError:
            return None

    def commit(self, text: str, name: str = "what") -> None:
        (self.repository / name).write_text(text)
        self.git("add", ".")
        self.git("commit", "-q", "-m", text)

    def test_each_commit_is_built_once_and_its_source_is_removed(self) -> None:
        for name, text in [("HEAD", "two"), ("HEAD~1", "one"), ("HEAD", "two")]:
            rival = against.rival_of_commit(name)
            self.assertEqual(rival.binary.read_text(), text)
            self.assertEqual(rival.commit, self.git("rev-parse", name))
        home = self.target / "against"
        asked = (home / "build" / "asked").read_text().splitlines()
        self.assertEqual(asked, ["build --release --locked --bin resound"] * 2)
        self.assertEqual(list(home.glob("source-*")), [])
        self.assertEqual(len(self.git("worktree", "list").splitlines()), 1)

    def test_a_commit_can_be_built_as_tests_are(self) -> None:
        home, commit = self.target / "previous", self.git("rev-parse", "HEAD~1")
        for _ in range(2):
            self.assertEqual(against.binary_of_commit(commit, home, "debug").read_text(), "one")
        # Beside what was built for the tests.
        asked = (self.target / "asked").read_text().splitlines()
        self.assertEqual(asked, ["build --locked --bin resound"])

    def test_a_build_that_fails_leaves_nothing_to_be_taken_for_one(self) -> None:
        self.commit("three", "fails")
        for _ in range(2):
            with self.assertRaisesRegex(Failure, "the build of .* failed"):
                against.rival_of_commit("HEAD")
        self.assertEqual(list((self.target / "against").glob("source-*")), [])

    def test_names_of_nothing_are_told(self) -> None:
        for name in ["nope", "f" * 40, "HEAD:what"]:
            with self.assertRaisesRegex(Failure, "there is no commit|is no name of a commit"):
                against.rival_of_commit(name)
        for name in ["", "--all", "a b", "$(x)", "../x"]:
            with self.assertRaisesRegex(Failure, "is no name of a commit"):
                against.rival_of_commit(name)
        with self.assertRaisesRegex(Failure, "is no program"):
            against.rival_of_binary(ROOT / "Cargo.toml")


if __name__ == "__main__":
    unittest.main()
