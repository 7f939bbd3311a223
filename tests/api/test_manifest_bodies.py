"""Large manifests that many push at once: they wait in files, and few are in memory."""

from __future__ import annotations

import json
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.in_process import directory_in_memory
from tests.support.server import OCI_MANIFEST, Server, image, running
from vex.api.manifest_bodies import ManifestBodies
from vex.errors import MANIFEST_TOO_LARGE, RegistryError
from vex.http.bodies import Input, SizedBody

MIB = 2**20
CROWD, PEAK_BYTES = 24, 160 * MIB


def body(content: bytes) -> SizedBody:
    return SizedBody(Input(lambda _: 0, content), len(content))


class Bodies(unittest.TestCase):
    """Receiving them, without a server."""

    def setUp(self) -> None:
        context = directory_in_memory()
        self.addCleanup(context.__exit__, None, None, None)
        self.directory = Path(context.__enter__())
        self.bodies = ManifestBodies(self.directory, 4 * MIB)

    def test_a_body_of_any_size_up_to_the_limit_is_what_was_sent(self) -> None:
        for size in (0, 1, 64 * 1024, 64 * 1024 + 1, MIB, 4 * MIB):
            with self.subTest(size):
                content = bytes(range(256)) * (size // 256) + bytes(size % 256)
                self.assertEqual(self.bodies.take(body(content), size, lambda read: read), content)
                self.assertEqual(self.bodies.take(body(content), None, lambda read: read), content)

    def test_what_is_larger_is_refused_before_and_while_it_is_received(self) -> None:
        for length in (4 * MIB + 1, None):
            received = body(bytes(5 * MIB))
            with self.subTest(length), self.assertRaises(RegistryError) as caught:
                self.bodies.take(received, length, lambda _: self.fail("it is used"))
            self.assertEqual(caught.exception.kind, MANIFEST_TOO_LARGE)
            self.assertLessEqual(received.received, 4 * MIB + 64 * 1024 if length is None else 0)

    def test_large_ones_are_taken_one_after_another_and_small_ones_do_not_wait(self) -> None:
        taken, go_on = threading.Event(), threading.Event()
        order: list[str] = []

        def first(_content: bytes) -> None:
            taken.set()
            go_on.wait(20)
            order.append("first")

        with ThreadPoolExecutor(2) as pool:
            one = pool.submit(self.bodies.take, body(bytes(4 * MIB)), None, first)
            self.assertTrue(taken.wait(20))
            received = body(bytes(3 * MIB))
            other = pool.submit(self.bodies.take, received, None, lambda _: order.append("second"))
            self.bodies.take(body(b"small"), 5, lambda _: order.append("small"))
            while not received.complete:
                time.sleep(0.001)
            self.assertEqual((order, list(self.directory.iterdir())), (["small"], []))
            go_on.set()
            one.result(20)
            other.result(20)
        self.assertEqual(order, ["small", "first", "second"])

    def test_one_that_fails_makes_room_for_the_next(self) -> None:
        def fail(_content: bytes) -> None:
            raise RegistryError(MANIFEST_TOO_LARGE)

        for _ in range(3):
            self.assertRaises(RegistryError, self.bodies.take, body(bytes(4 * MIB)), None, fail)
        self.assertEqual(self.bodies.take(body(bytes(4 * MIB)), None, len), 4 * MIB)

    def test_one_that_is_larger_than_what_is_shared_is_taken_alone(self) -> None:
        self.assertEqual(ManifestBodies(self.directory, 16 * MIB).take(body(bytes(16 * MIB)), None, len), 16 * MIB)


@unittest.skipUnless(Path("/proc/self/status").exists(), "needs /proc, which Linux has")
class Crowd(unittest.TestCase):
    """One server, and many pushes of 4 MiB."""

    def test_memory_stays_small_and_others_are_answered(self) -> None:
        # Escapes made it the most expensive of those that are read quickly.
        text = json.dumps({**image(), "annotations": {"text": "\u00e9" * 690_000}}).encode()
        contents = [text + b" " * number for number in range(CROWD)]
        self.assertLess(max(map(len, contents)), 4 * MIB)
        with running() as server, ThreadPoolExecutor(CROWD) as pool:
            server.auth.push_image("app", "v1")
            pushes = [pool.submit(self.push, server, content) for content in contents]
            answered = 0
            while not all(push.done() for push in pushes):
                self.assertEqual(server.public.get("/v2/app/manifests/v1", {"X-Number": str(answered)}).status, 200)
                answered += 1
            self.assertEqual([push.result() for push in pushes], [201] * CROWD)
            self.assertGreater(answered, 2)
            self.assertLess(self.peak(server), PEAK_BYTES)

    def push(self, server: Server, content: bytes) -> int:
        return server.auth.request(
            "PUT", f"/v2/app/manifests/t{len(content)}", content, {"Content-Type": OCI_MANIFEST}
        ).status

    @staticmethod
    def peak(server: Server) -> int:
        for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")


if __name__ == "__main__":
    unittest.main()
