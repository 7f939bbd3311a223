"""Large manifests and many who read them slowly: one copy for all, and a limit on what is different."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import unittest

from tests.support.server import ServerTestCase, digest_of, image
from vex.errors import BUSY, RegistryError
from vex.http.large import LARGE_BYTES, LargeAnswers
from vex.http.message import Response

MIB = 2**20
READERS = 60


def body(letter: str) -> bytes:
    """Make a body that is a little too large to go unnoticed, in a new object each time."""
    return letter.encode() * (LARGE_BYTES + 1)


class Admission(unittest.TestCase):
    def setUp(self) -> None:
        self.answers = LargeAnswers(limit=2 * LARGE_BYTES + 2, patience=0.01)

    def take(self, letter: str) -> Response:
        return self.answers.admit(lambda: Response(200, body=body(letter)))

    def test_equal_answers_share_their_bytes(self) -> None:
        first, second = self.take("a"), self.take("a")
        self.assertIs(first.body, second.body)
        self.assertEqual(first.body, body("a"))

    def test_what_is_past_the_limit_is_refused_and_taken_once_one_was_sent(self) -> None:
        taken = [self.take("a"), self.take("b"), self.take("b")]
        with self.assertRaises(RegistryError) as caught:
            self.take("c")
        self.assertEqual((caught.exception.kind, caught.exception.headers), (BUSY, (("Retry-After", "10"),)))
        for response in taken:
            assert response.on_sent
            response.on_sent()
        self.assertEqual([len(self.take(letter).body) for letter in "cd"], [LARGE_BYTES + 1] * 2)

    def test_who_waits_gets_an_answer_made_anew(self) -> None:
        answers = LargeAnswers(limit=LARGE_BYTES + 1, patience=20)
        first = answers.admit(lambda: Response(200, body=body("a")))
        made: list[str] = []

        def make() -> Response:
            made.append("again")
            if len(made) == 1:
                assert first.on_sent
                threading.Timer(0.05, first.on_sent).start()
            return Response(200, body=body("b"))

        self.assertEqual(answers.admit(make).body, body("b"))
        self.assertEqual(len(made), 2)

    def test_small_answers_files_and_streams_do_not_count(self) -> None:
        for response in (
            Response(200, body=bytes(LARGE_BYTES)),
            Response(200, length=2**40),
            Response(200, stream=iter([body("a")])),
        ):
            self.assertIs(self.answers.admit(lambda response=response: response), response)  # type: ignore[misc]
            self.assertIsNone(response.on_sent)


@unittest.skipUnless(os.path.exists("/proc/self/statm"), "needs /proc, which Linux has")
class SlowReaders(ServerTestCase):
    flags = ("--debug",)

    def test_sixty_slow_readers_of_a_large_manifest_cost_one_copy(self) -> None:
        auth = self.server.auth
        auth.push_blob("large", b"{}")
        auth.push_blob("large", b"layer")
        digest = auth.push_manifest("large", "v1", image(b"layer", annotations={"a": "b" * (4 * MIB - 1000)}))
        for path in ("/v2/large/manifests/v1", f"/v2/large/blobs/{digest}"):
            with self.subTest(path), contextlib.ExitStack() as stack:
                self.assertEqual(digest_of(self.server.public.get(path).body), digest)
                before = self.server.metric("process_resident_memory_bytes")
                for _ in range(READERS):
                    sock = stack.enter_context(socket.socket())
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    sock.settimeout(20)
                    sock.connect(self.server.addresses["public"])
                    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    self.assertEqual(sock.recv(15), b"HTTP/1.1 200 OK")
                deadline = time.monotonic() + 20
                grown = MIB * 1000.0
                while grown > 48 * MIB and time.monotonic() < deadline:
                    grown = self.server.metric("process_resident_memory_bytes") - before
                self.assertLess(grown, 48 * MIB)


if __name__ == "__main__":
    unittest.main()
