"""The metrics of a registry in use: the table of them, the manual, what Prometheus's own checker says, the dashboard,
and that counts are right.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import json
import re
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Callable

from tests.support.manual import TEXT
from tests.support.programs import require
from tests.support.raw import connected
from tests.support.registries import run
from tests.support.server import USER, Client, ServerTestCase, digest_of, running, vex
from tests.support.uploads import begin_upload
from vex.metrics import Metrics
from vex.service.measures import MEASURES
from vex.storage.database import Database

KIB = 2**10
# What only Linux tells.
LINUX = sys.platform.startswith("linux")
_SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? \S+")
_SUFFIX = re.compile(r"_(?:bucket|sum|count)$")
_LABEL = re.compile(r'([a-z_]+)="[^"]*"')


def table() -> str:
    """Write the table of metrics as it stands in the manual."""
    rows = (
        f"| `{one.name}` | {one.kind} | {' '.join(f'`{label}`' for label in one.labels)} | {one.help} |\n"
        for one in MEASURES
    )
    return "| metric | type | labels | meaning |\n|---|---|---|---|\n" + "".join(rows).replace("|  |", "| |")


def await_equal(ask: Callable[[], Any], expected: Any) -> None:
    """Ask until it is so: a request is counted a moment after its client has the answer."""
    until = time.monotonic() + 20
    while (found := ask()) != expected and time.monotonic() < until:
        time.sleep(0.02)
    assert found == expected, found


def requests(**labels: str) -> str:
    """Name the series that counts these requests."""
    listed = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
    return f"vex_request_duration_seconds_count{{{listed}}}"


class TableTest(ServerTestCase):
    """A registry that has done a bit of everything."""

    text: str

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server.auth.push_image("app", "v1", b"layer")
        for _ in range(2):
            cls.server.public.get("/v2/app/manifests/v1")
        cls.server.auth.request("DELETE", "/v2/app/manifests/v1")
        Client(cls.server.addresses["auth"], USER, "wrong password").get("/v2/")
        cls.server.public.request("BREW", "/")
        with connected(cls.server.addresses["public"]) as wire:
            wire.send(b"GET / HTTP/1.1\n\n")
            wire.rest()
        cls.server.wait_for_housekeeping()
        cls.text = cls.server.internal.get("/metrics").body.decode()

    def test_the_manual_shows_the_table(self) -> None:
        self.assertIn(f"\n{table()}", TEXT)

    @unittest.skipUnless(LINUX, "other systems tell less")
    def test_what_is_exposed_is_the_table(self) -> None:
        exposed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", self.text, re.MULTILINE))
        # Without HTTPS there is no certificate, and without a section no quota; tests.service.test_reload and
        # tests.registry.test_quotas look at those.
        absent = ("vex_tls_certificate_expiry_timestamp_seconds", "vex_quota_used_bytes", "vex_quota_allowed_bytes")
        expected = [one for one in MEASURES if one.name not in absent]
        self.assertEqual(exposed, {one.name: one.kind for one in expected})
        self.assertEqual(
            dict(re.findall(r"^# HELP (\S+) (.+)$", self.text, re.MULTILINE)), {one.name: one.help for one in expected}
        )

    def test_labels_and_their_values_are_those_of_the_table(self) -> None:
        known = {one.name: one for one in MEASURES}
        seen = set()
        for line in self.text.splitlines():
            match = _SAMPLE.fullmatch(line)
            if match is None:
                self.assertTrue(line.startswith("# "), line)
                continue
            measure = known.get(match[1]) or known[_SUFFIX.sub("", match[1])]
            labels = [name for name in _LABEL.findall(match[2] or "") if name != "le"]
            self.assertEqual(labels, list(measure.labels), line)
            seen.add(measure.name)
        self.assertIn("vex_requests_refused_total", seen)

    def test_promtool_has_no_complaint(self) -> None:
        checked = run(require("promtool", "prometheus"), "check", "metrics", text=self.text)
        self.assertEqual((checked.stdout, checked.stderr), ("", ""))

    def test_requests_are_told_apart_by_listener(self) -> None:
        for series, expected in (
            (requests(listener="auth", method="PUT", op="manifest", code="201"), 1),
            (requests(listener="public", method="GET", op="manifest", code="200"), 2),
            (requests(listener="public", method="other", op="other", code="501"), 1),
        ):
            await_equal(lambda series=series: self.server.metric(series), expected)  # type: ignore[misc]


class DashboardTest(unittest.TestCase):
    dashboard: dict[str, Any]
    panels: list[dict[str, Any]]
    queries: list[str]
    variables: list[str]

    @classmethod
    def setUpClass(cls) -> None:
        cls.dashboard = json.loads(vex("describe", "--grafana").stdout)
        cls.panels = [panel for panel in cls.dashboard["panels"] if panel["type"] != "row"]
        cls.queries = [target["expr"] for panel in cls.panels for target in panel["targets"]]
        cls.variables = [str(variable["query"]) for variable in cls.dashboard["templating"]["list"]]

    def test_its_queries_have_only_metrics_and_labels_that_exist(self) -> None:
        known = {one.name: one for one in MEASURES}
        used = set()
        for query in (*self.queries, *self.variables):
            for name in re.findall(r"\b(?:vex|process)_[a-z_]+", query):
                base = name if name in known else _SUFFIX.sub("", name)
                self.assertIn(base, known, query)
                self.assertEqual(
                    base != name, known[base].kind == "histogram", f"{name}: histograms have suffixes, others have none"
                )
                used.add(base)
            for labels in re.findall(r"by \(([^)]*)\)", query):
                allowed = {
                    "le",
                    "instance",
                    *(label for name in re.findall(r"[a-z_]+", query) if name in known for label in known[name].labels),
                }
                allowed |= {
                    label
                    for name in re.findall(r"[a-z_]+", query)
                    for label in getattr(known.get(_SUFFIX.sub("", name)), "labels", ())
                }
                self.assertLessEqual(set(labels.split(", ")), allowed, query)
        self.assertLessEqual(
            {one.name for one in MEASURES if one.name.startswith("vex_")}, used, "every metric of Vex is on a panel"
        )

    def test_its_queries_are_queries(self) -> None:
        rules = [
            {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")}
            for number, query in enumerate(self.queries)
        ]
        with tempfile.TemporaryDirectory() as directory:
            # JSON is YAML too.
            path = Path(directory, "rules.yaml")
            path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}).replace("panel:", "panel_"))
            checked = run(require("promtool", "prometheus"), "check", "rules", str(path))
        self.assertIn(f"SUCCESS: {len(self.queries)} rules found", checked.stdout)

    def test_panels_have_their_own_number_and_place(self) -> None:
        numbers = [panel["id"] for panel in self.dashboard["panels"]]
        self.assertEqual(len(numbers), len(set(numbers)))
        taken: set[tuple[int, int]] = set()
        for place in (panel["gridPos"] for panel in self.dashboard["panels"]):
            cells = set(
                itertools.product(
                    range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
                )
            )
            self.assertFalse(cells & taken, place)
            self.assertLessEqual(place["x"] + place["w"], 24)
            taken |= cells
        for panel in self.panels:
            letters = [target["refId"] for target in panel["targets"]]
            self.assertEqual(len(letters), len(set(letters)))


class CountsTest(ServerTestCase):
    flags = ("--public-connections", "8", "--pull-grace", "0", "--free-space", "7MiB")

    def test_hits_of_the_answer_cache_are_exact_whatever_threads_do(self) -> None:
        self.server.auth.push_image("hits", "v1", b"layer")
        request = b"GET /v2/hits/manifests/v1 HTTP/1.1\r\nHost: a\r\n\r\n"

        def pull(times: int) -> None:
            with connected(self.server.addresses["public"]) as wire:
                for _ in range(times):
                    wire.send(request)
                    self.assertEqual(wire.answer().status, 200)

        hits, misses = self.cache()
        # The first answer is kept a moment after it was given, but before the next one on its connection.
        pull(2)
        await_equal(self.cache, (hits + 1, misses + 1))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(pull, [250] * 4))
        await_equal(self.cache, (hits + 1001, misses + 1))
        pulls = self.server.metric(
            'vex_request_duration_seconds_count{listener="public",method="GET",op="manifest",code="200"}'
        )
        self.assertEqual(pulls, 1002)
        self.server.public.get("/v2/hits/tags/list")
        await_equal(self.cache, (hits + 1001, misses + 2))

    def cache(self) -> tuple[float, float]:
        """Return hits and misses."""
        hits, misses = (
            self.server.metric(f'vex_answer_cache_{name}_total{{listener="public"}}') for name in ("hits", "misses")
        )
        return hits, misses

    def test_uploads_and_removals_are_counted_with_their_bytes(self) -> None:
        names = [
            f"vex_blobs_{name}"
            for name in ("uploaded_total", "uploaded_bytes_total", "removed_total", "removed_bytes_total")
        ]
        before = [self.server.metric(name) for name in names]
        self.server.auth.push_image("counted", "v1", b"a layer of 20 bytes.", bytes(KIB))
        location = self.server.auth.request("POST", "/v2/counted/blobs/uploads/").headers["Location"]
        self.assertEqual(self.server.auth.request("DELETE", location).status, 204)
        wrong = f"/v2/counted/blobs/uploads/?digest={digest_of(b'another')}"
        self.assertEqual(self.server.auth.request("POST", wrong, b"one").status, 400)
        self.assertEqual(self.change(names, before), [3, 20 + KIB + 2, 0, 0])
        self.assertEqual(self.server.auth.request("DELETE", "/v2/counted/manifests/v1").status, 202)
        self.assertEqual(self.change(names, before), [3, 20 + KIB + 2, 2, 20 + KIB])

    def change(self, names: list[str], before: list[float]) -> list[float]:
        return [self.server.metric(name) - value for name, value in zip(names, before)]

    def test_a_request_in_flight_and_its_connection_are_seen_until_they_end(self) -> None:
        names = [
            f'vex_{name}{{listener="auth"}}' for name in ("requests_in_flight", "connections_open", "connections_limit")
        ]
        await_equal(lambda: [self.server.metric(name) for name in names], [0, 0, 128])
        with contextlib.closing(begin_upload(self.server)):
            await_equal(lambda: [self.server.metric(name) for name in names], [1, 1, 128])
        await_equal(lambda: [self.server.metric(name) for name in names], [0, 0, 128])

    @unittest.skipUnless(LINUX, "other systems do not tell")
    def test_connections_past_the_limit_are_seen_waiting(self) -> None:
        waiting, opened = (f'vex_connections_{name}{{listener="public"}}' for name in ("waiting", "open"))
        await_equal(lambda: self.server.metric(waiting), 0)
        with contextlib.ExitStack() as stack:
            for number in range(11):
                stack.enter_context(connected(self.server.addresses["public"])).send(b"GET / HTTP/1.1\r\n")
                await_equal(lambda: self.server.metric(opened), min(number + 1, 8))
            await_equal(lambda: self.server.metric(waiting), 3)
        await_equal(lambda: self.server.metric(waiting), 0)

    def test_the_disk_is_that_of_the_data(self) -> None:
        self.assertEqual(self.server.metric("vex_disk_kept_bytes"), 7 * KIB * KIB)
        self.assertGreater(self.server.metric("vex_disk_free_bytes"), 0)


class DatabaseTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.database = Database(Path(directory.name, "vex.db"))
        self.addCleanup(self.database.close)

    def rendered(self) -> dict[str, float]:
        metrics = Metrics()
        metrics.hold("waits", "W.", self.database.waits)
        metrics.hold("commits", "C.", self.database.commits)
        return {
            name: float(value)
            for name, value in (line.rsplit(" ", 1) for line in metrics.render().splitlines() if line[0] != "#")
        }

    def test_a_transaction_that_waits_for_another_is_counted_with_its_time(self) -> None:
        with self.database.read():
            waiting = threading.Thread(target=self.read)
            waiting.start()
            # From then on it waits; whoever is somewhere before that may be kept there for any time.
            await_equal(lambda: "started" in sys._current_frames()[waiting.ident or 0].f_locals, True)
            time.sleep(0.03)
        waiting.join()
        rendered = self.rendered()
        self.assertEqual(
            (rendered["waits_count"], rendered['waits_bucket{le="0.0001"}'], rendered['waits_bucket{le="0.025"}']),
            (2, 1, 1),
        )
        self.assertTrue(0.025 < rendered["waits_sum"] < 20)

    def read(self) -> None:
        with self.database.read():
            pass

    def test_commits_are_counted_and_what_was_rolled_back_is_not(self) -> None:
        for _ in range(3):
            with self.database.write() as tx:
                tx.execute("INSERT INTO repository (name, emptied) VALUES (hex(randomblob(8)), 1)")
        with contextlib.suppress(ValueError), self.database.write():
            raise ValueError
        self.read()
        rendered = self.rendered()
        self.assertEqual((rendered["commits_count"], rendered["waits_count"]), (3, 5))
        self.assertGreater(rendered["commits_sum"], 0)


class LabelsTest(unittest.TestCase):
    def test_what_clients_send_adds_no_series(self) -> None:
        with running() as server:
            server.public.request("BREW", "/0")
            server.public.get("/0")
            server.internal.get("/metrics")
            for labels in (("public", "other", "other", "501"), ("public", "GET", "other", "404")):
                counted = requests(**dict(zip(("listener", "method", "op", "code"), labels)))
                await_equal(functools.partial(server.metric, counted), 1)

            def series() -> int:
                return len(
                    re.findall(
                        r"^vex_request_duration_seconds_count",
                        server.internal.get("/metrics").body.decode(),
                        re.MULTILINE,
                    )
                )

            before = series()
            for number in range(1, 40):
                server.public.request(f"BREW{number}", f"/{number}")
                server.public.get(f"/{number}", {"Host": f"host-{number}"})
            self.assertEqual(series(), before)


if __name__ == "__main__":
    unittest.main()
