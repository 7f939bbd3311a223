"""Memory does not depend on the size of a blob, on how many clients push and pull at once beyond a limit, or on what
was asked for.

VEX_TEST_BLOB_GIB says how large the large blob is, VEX_TEST_PATHS how many random paths are asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import random
import time
import tracemalloc
import unittest
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.memory import peak_bytes, status_bytes
from tests.support.raw import basic
from tests.support.server import Client, Server, digest_of, running
from vex.http.answers import Answer, Answers, Basis, Revisions

BLOCK = random.Random(1).getrandbits(8 * 2**20).to_bytes(2**20, "little")
BLOCKS = int(float(os.environ.get("VEX_TEST_BLOB_GIB") or 1) * 1024)
PATHS = int(os.environ.get("VEX_TEST_PATHS") or 5000)
PEAK_BYTES = 96 * 2**20
CROWD, CROWD_BLOCKS, CROWD_PEAK_BYTES = 64, 3, 192 * 2**20
# answers.py keeps at most 8 MiB of what was answered.
GROWTH_BYTES = (8 + 4) * 2**20
_SHAPES = (
    "/{0}",
    "/v2/{0}/manifests/{0}",
    "/v2/{0}/tags/list",
    f"/v2/{{0}}/blobs/sha256:{'0' * 48}{{0:0>16}}",
    "/v2/_catalog?last={0}",
)


@unittest.skipUnless(Path("/proc/self/status").exists(), "needs /proc, which Linux has")
class MemoryTest(unittest.TestCase):
    """One server, which is pushed and pulled the same blob again and again."""

    def test_a_large_blob_is_streamed_both_ways(self) -> None:
        digest = _digest()
        headers = {"Content-Length": str(BLOCKS * len(BLOCK))}
        with running() as server:
            auth = server.auth
            self.assertEqual(
                auth.request("PUT", f"{self._start(auth)}?digest={digest}", _blocks(), headers).status, 201
            )
            location = self._start(auth)
            answer = auth.request("PATCH", location, _blocks(), {"Transfer-Encoding": "chunked"}, chunked=True)
            self.assertEqual((answer.status, answer.headers["Range"]), (202, f"0-{BLOCKS * len(BLOCK) - 1}"))
            self.assertEqual(auth.request("PUT", f"{location}?digest={digest}").status, 201)
            self._pull(server, f"/v2/app/blobs/{digest}")
            self.assertLess(peak_bytes(server), PEAK_BYTES)

    def test_a_crowd_pushes_and_pulls_at_once(self) -> None:
        """Half of them push, half of them pull, each a blob of its own."""
        contents = [b"%d " % number + BLOCK * CROWD_BLOCKS for number in range(CROWD)]
        with running() as server, ThreadPoolExecutor(2 * CROWD) as pool:
            for content in contents[: CROWD // 2]:
                server.auth.push_blob("app", content)
            pushes = [pool.submit(server.auth.push_blob, "app", content) for content in contents]
            pulls = [
                pool.submit(server.public.get, f"/v2/app/blobs/{digest_of(content)}")
                for content in contents[: CROWD // 2] * 2
            ]
            self.assertEqual([push.result() for push in pushes], [digest_of(content) for content in contents])
            for pull, content in zip(pulls, contents[: CROWD // 2] * 2):
                self.assertTrue(pull.result().body == content)
            self.assertLess(peak_bytes(server), CROWD_PEAK_BYTES)

    def test_what_nobody_has_leaves_nothing_behind(self) -> None:
        with running() as server:
            asked = sum(_ask_at_random(server, listener, PATHS // 10) for listener in server.addresses)
            series, resident = _series(server, asked), _resident(server)
            asked += sum(_ask_at_random(server, listener, PATHS // 3) for listener in server.addresses)
            self.assertEqual(_series(server, asked), series)
            self.assertLess(_resident(server) - resident, GROWTH_BYTES)

    def _start(self, auth: Client) -> str:
        answer = auth.request("POST", "/v2/app/blobs/uploads/")
        self.assertEqual(answer.status, 202)
        return answer.headers["Location"]

    def _pull(self, server: Server, path: str) -> None:
        """Compare what comes with what was sent, block by block."""
        with contextlib.closing(http.client.HTTPConnection(*server.addresses["public"], timeout=60)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            self.assertEqual((response.status, response.length), (200, BLOCKS * len(BLOCK)))
            for number in range(BLOCKS):
                self.assertTrue(response.read(len(BLOCK)) == BLOCK, f"block {number} differs")


class CacheTest(unittest.TestCase):
    """Answers that are kept for requests that come again."""

    def test_the_oldest_make_room_for_new_ones(self) -> None:
        answers = Answers(Revisions())
        heads = [b"GET /v2/_catalog?last=%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(20 * PATHS)]
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        for head in heads:
            answers.keep(
                head,
                Answer(
                    b"HTTP/1.1 200 OK\r\n" * 5, bytes(len(head)), "GET", "/v2/_catalog", "catalog", 200, 20, Basis(0, 0)
                ),
            )
        self.assertLess(tracemalloc.get_traced_memory()[0] - before, GROWTH_BYTES)
        self.assertIsNotNone(answers.find(heads[-1]))
        self.assertIsNone(answers.find(heads[0]))

    def test_an_answer_that_would_displace_many_is_not_kept(self) -> None:
        answers = Answers(Revisions())
        answers.keep(b"large", Answer(b"", bytes(2**20), "GET", "/", "", 200, 2**20, Basis(0, 0)))
        self.assertIsNone(answers.find(b"large"))


def _blocks() -> Iterator[bytes]:
    for _ in range(BLOCKS):
        yield BLOCK


def _digest() -> str:
    content = hashlib.sha256()
    for block in _blocks():
        content.update(block)
    return f"sha256:{content.hexdigest()}"


def _ask_at_random(server: Server, listener: str, count: int) -> int:
    """Ask a listener for things that it does not have, of every shape, on one connection; returns how many times."""
    choose = random.Random(count)
    headers = {"Authorization": basic()} if listener == "auth" else {}
    with contextlib.closing(http.client.HTTPConnection(*server.addresses[listener], timeout=60)) as connection:
        for _ in range(count):
            word = f"{choose.getrandbits(64):x}"
            path = choose.choice(_SHAPES).format(word)
            connection.request(choose.choice(("GET", "HEAD")), path, headers=headers)
            connection.getresponse().read()
    return count


def _series(server: Server, asked: int) -> set[str]:
    """Name all series once that many requests are counted, and one for metrics: each is when its answer was sent."""
    deadline = time.monotonic() + 20
    while True:
        lines = server.internal.get("/metrics").body.decode().splitlines()
        values = {
            series: float(value)
            for series, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
        }
        counts = {
            series: value for series, value in values.items() if series.startswith("vex_request_duration_seconds_count")
        }
        of_metrics = [value for series, value in counts.items() if 'op="metrics"' in series]
        if of_metrics and sum(counts.values()) - sum(of_metrics) >= asked:
            return set(values)
        assert time.monotonic() < deadline, counts


def _resident(server: Server) -> int:
    return status_bytes(server, "VmRSS")
