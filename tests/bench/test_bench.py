"""The rows of the benchmark work, with a little of everything; how fast something is does not matter here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.clients import PACKAGES
from tests.bench.measure import REQUESTS, Goal, Result, Row, Sample, Side
from tests.bench.report import result_table
from tests.support.programs import require
from tests.support.server import TOP

_ALL = os.environ.get("VEX_TEST_BENCH") == "all"


class Run(NamedTuple):
    """What a run printed, and the names of rows, each with those of the registries that were measured and their
    failures.
    """

    code: int
    output: str
    measured: dict[str, list[str]]
    failures: dict[str, list[str]]


def bench(only: str, *options: str) -> Run:
    """Run rows of a tiny benchmark."""
    for program, package in PACKAGES.items():
        require(program, package)
    with tempfile.TemporaryDirectory(prefix="vex-test-") as directory:
        found = Path(directory) / "found.json"
        command = [sys.executable, "-m", "tests.bench", "--tiny", "--rounds", "1", "--data-dir", directory]
        command += ["--only", only, "--json", str(found), *options]
        done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
        rows = json.loads(found.read_text())["rows"] if found.exists() else []
    measured = {row["name"]: [side["name"] for side in row["sides"] if side["samples"]] for row in rows}
    failures = {row["name"]: [side["failure"] for side in row["sides"] if side["failure"]] for row in rows}
    return Run(done.returncode, done.stdout + done.stderr, measured, failures)


class RowsTestCase(unittest.TestCase):
    """Rows that are measured in one run; all of them together take a minute."""

    only = ""
    run_of_class: Run

    @classmethod
    def setUpClass(cls) -> None:
        """Run them."""
        if not _ALL:
            raise unittest.SkipTest("VEX_TEST_BENCH is not set: all rows?")
        cls.run_of_class = bench(cls.only)

    def assert_measured(self, registries: Sequence[str], *names: str) -> None:
        """Check that these rows were measured, each on these registries, and nothing else happened."""
        run = self.run_of_class
        self.assertEqual(run.code, 0, run.output)
        for name in names:
            self.assertEqual(run.measured[name], registries, run.output)


class SmallRequests(RowsTestCase):
    only = "manifest-*,blob-head,tags*,catalog*,one-port-*,start,memory"

    def test_manifests_blobs_and_lists_are_compared_with_docker_registry(self) -> None:
        manifests = [
            f"manifest-{method}-{what}-{connections}"
            for method in ("get", "head")
            for what in ("tag", "digest")
            for connections in (1, 8, 64)
        ]
        lists = ("tags", "tags-page", "catalog", "catalog-page")
        self.assert_measured(["Vex", "docker-registry"], *manifests, "blob-head", *lists)

    def test_the_one_port_is_compared_with_the_public_port(self) -> None:
        names = (f"one-port-{who}" for who in ("anonymous", "basic", "bearer"))
        self.assert_measured(["Vex", "public port"], *names)

    def test_start_and_memory_are_told(self) -> None:
        for what in ("start until ready", "Vex after the run", "docker-registry with 20 idle connections"):
            self.assertIn(what, self.run_of_class.output)


class Transfers(RowsTestCase):
    only = "first-pull,second-pull,pull-*,push*,images*,skopeo-*,busy*"

    def test_transfers_are_compared_with_docker_registry(self) -> None:
        pulls, pushes = ("first-pull", "pull-1", "pull-4", "pull-tls"), ("push", "push-chunked", "push-4")
        others = ("images", "images-8", "skopeo-push", "skopeo-pull", "busy", "busy-small")
        self.assert_measured(["Vex", "docker-registry"], *pulls, *pushes, *others)

    def test_the_first_pull_is_compared_with_the_second(self) -> None:
        self.assert_measured(["Vex", "second pull"], "second-pull")


class BehindNginx(RowsTestCase):
    only = "nginx-*"

    def test_vex_behind_a_cache_is_compared_with_vex_alone(self) -> None:
        pulls = ("pull-1", "pull-4", "pull-tls", "skopeo-pull", "manifest-get-tag-8")
        self.assert_measured(["Vex behind nginx", "Vex alone"], *(f"nginx-{name}" for name in pulls))


class CommandsPagesAndSizes(RowsTestCase):
    only = "import,check,page-*,size-*"

    def test_an_import_is_compared_with_skopeo_sync(self) -> None:
        self.assert_measured(["Vex", "skopeo sync"], "import")

    def test_a_check_is_compared_with_sha256sum(self) -> None:
        self.assert_measured(["Vex", "sha256sum"], "check")

    def test_pages_are_measured_the_first_time_and_again(self) -> None:
        names = [f"page-{page}" for page in ("front", "tags", "image", "layer")]
        self.assert_measured(["Vex"], *(name + when for name in names for when in ("-first", "")))

    def test_a_large_registry_is_compared_with_a_small_one(self) -> None:
        names = ("manifest", "blob", "tags", "catalog", "page-repositories", "page-tags", "search", "push", "delete")
        self.assert_measured(["20 repositories", "10 repositories"], *(f"size-{name}" for name in names))


class Peers(unittest.TestCase):
    def test_a_peer_with_two_ports_and_a_user_and_another_build_are_measured(self) -> None:
        with tempfile.TemporaryDirectory(prefix="vex-test-") as directory:
            build = Path(directory) / "other.pyz"
            subprocess.run([str(TOP / "zipapp.sh"), str(build)], stdout=subprocess.DEVNULL, check=True)
            vex = f"{sys.executable} {build}"
            add = f"echo {{password}} | {vex} user add {{user}} --data-dir {{data}}"
            ports = "--public-addr 127.0.0.1:{port} --auth-addr 127.0.0.1:{write_port} --internal-addr off"
            peer = f"sh -c '{add} && exec {vex} serve --data-dir {{data}} {ports}'"
            run = bench("images,busy-small", "--peer", peer, "--baseline", str(build))
        self.assertEqual(run.code, 0, run.output)
        self.assertEqual(run.measured, {name: ["Vex", "peer", "baseline"] for name in ("images", "busy-small")})

    def test_a_peer_that_does_not_start_is_said_in_the_table(self) -> None:
        run = bench("blob-head", "--peer", "false")
        self.assertEqual((run.code, run.measured), (1, {"blob-head": ["Vex"]}), run.output)
        self.assertIn("| did not start |", run.output)
        self.assertIn("peer ended", run.failures["blob-head"][0])


class Verdicts(unittest.TestCase):
    def result(self, goal: Goal, second: Side) -> Result:
        """Give a row in which Vex had 10, 20 and 30 requests a second, each at a second of processor time."""
        row = Row("row", "work", REQUESTS, lambda _registry: None, lambda _registry: Sample(0), goal)
        return Result(row, Side("Vex", samples=[Sample(value, 1) for value in (10, 20, 30)]), second, Side())

    def test_medians_reach_a_goal_and_each_round_where_it_says_so(self) -> None:
        peer = Side("peer", samples=[Sample(20, 2)] * 3)
        for goal, verdict in (
            (Goal(), ""),
            (Goal(1), "yes"),
            (Goal(1.1), "no"),
            (Goal(1, 0.5), "yes"),
            (Goal(1, 0.4), "no"),
            (Goal(1, always=True), "no"),
            (Goal(0.5, always=True), "yes"),
        ):
            with self.subTest(goal=goal):
                self.assertEqual(self.result(goal, peer).verdict(), verdict)

    def test_a_goal_against_what_failed_is_unknown(self) -> None:
        result = self.result(Goal(1), Side("peer", "did not start: peer ended"))
        self.assertEqual(result.verdict(), "unknown")
        self.assertEqual(self.result(Goal(), Side("peer", "failed: no")).verdict(), "")
        self.assertIn("| did not start |", result_table([result]))


if __name__ == "__main__":
    unittest.main()
