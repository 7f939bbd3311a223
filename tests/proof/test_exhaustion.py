"""Out of file descriptors, threads, memory, or of the room that a limit or a quota leaves: refused with 503 or 507, and
over when the want is over.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import resource
import select
import socket
import time
import unittest
from pathlib import Path

from tests.proof.crash.points import Trap
from tests.proof.crash.server import TrapServer
from tests.support.in_process import directory_in_memory
from tests.support.raw import basic
from tests.support.server import Answer, Server, digest_of, running
from tests.support.uploads import MIB, UploadTestCase, received

LAYER = b"layer"
_GET = f"GET /v2/app/blobs/{digest_of(LAYER)} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
_CONNECTIONS = 40


@unittest.skipUnless(hasattr(resource, "prlimit"), "needs prlimit, which Linux has")
class ExhaustionTestCase(UploadTestCase):
    """A server with one image, some of whose resources are taken away."""

    def setUp(self) -> None:
        context = running("--debug")
        self.server = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.server.wait_for_housekeeping()
        self.server.auth.push_image("app", "1", LAYER)

    def limit(self, what: int, value: int) -> None:
        """Set a limit of the server, which can be raised again."""
        hard = resource.prlimit(self.server.process.pid, what)[1]
        resource.prlimit(self.server.process.pid, what, (value if value >= 0 else hard, hard))

    def crowd(self, stack: contextlib.ExitStack, request: bytes = _GET) -> list[socket.socket]:
        """Connect many clients, and have each send a request."""
        connections = [
            stack.enter_context(socket.create_connection(self.server.addresses["public"], timeout=20))
            for _ in range(_CONNECTIONS)
        ]
        for connection in connections:
            connection.sendall(request)
        return connections

    def assert_works(self) -> None:
        """Pull and push."""
        self.wait_for(lambda: _pull(self.server) == LAYER, "it did not recover")
        self.server.auth.push_image("app", "2", os.urandom(3 * MIB))
        self.assertNotIn("Traceback", self.server.log.read_text())


class DescriptorsTest(ExhaustionTestCase):
    """No file descriptor is left."""

    def test_requests_wait_or_are_503_without_haste_and_it_recovers_by_itself(self) -> None:
        # Less than there are connections, and some of those have no file.
        self.limit(resource.RLIMIT_NOFILE, len(os.listdir(f"/proc/{self.server.process.pid}/fd")) + _CONNECTIONS // 2)
        with contextlib.ExitStack() as stack:
            connections = self.crowd(stack)
            answers = _answers(connections)
            self.assertLess(len(answers), _CONNECTIONS)
            before = _processor_seconds(self.server)
            time.sleep(1)
            self.assertLess(_processor_seconds(self.server) - before, 0.15, "it spins")
            # One connection that ends leaves one that waits its descriptor, and none for its file.
            connections[0].close()
            answers += _answers(connections[1:])
            refused = [answer for answer in answers if answer.status != 200]
            self.assertTrue(refused)
            for answer in refused:
                self.assert_refused(answer)
        self.assert_works()

    def assert_refused(self, answer: Answer) -> None:
        self.assertEqual((answer.status, answer.codes), (503, ["UNAVAILABLE"]), answer)
        self.assertEqual(answer.headers["Retry-After"], "1")


class MemoryTest(ExhaustionTestCase):
    """No address space is left: neither for the stack of a thread nor for a buffer."""

    def test_connections_without_a_thread_are_503_and_it_recovers_by_itself(self) -> None:
        with contextlib.closing(http.client.HTTPConnection(*self.server.addresses["auth"], timeout=20)) as pusher:
            self.push(pusher, os.urandom(3 * MIB))
            self.limit(resource.RLIMIT_AS, _address_space(self.server) + 2 * MIB)
            with contextlib.ExitStack() as stack:
                answers = _answers(self.crowd(stack))
                self.assertLessEqual({answer.status for answer in answers}, {200, 503})
                refused = [answer for answer in answers if answer.status == 503]
                self.assertTrue(refused)
                for answer in refused:
                    self.assertEqual((answer.codes, answer.headers["Retry-After"]), (["UNAVAILABLE"], "1"))
                    self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
                # A connection that has its thread goes on, though no second one can be had to hash with.
                self.push(pusher, os.urandom(3 * MIB))
            self.wait_for(lambda: _pull(self.server) == LAYER, "it did not recover")
            self.limit(resource.RLIMIT_AS, -1)
        self.assert_works()
        self.assertGreaterEqual(self.server.metric('vex_connections_refused_total{listener="public"}'), len(refused))

    def push(self, connection: http.client.HTTPConnection, content: bytes) -> None:
        connection.request(
            "POST", f"/v2/app/blobs/uploads/?digest={digest_of(content)}", content, {"Authorization": basic()}
        )
        response = connection.getresponse()
        body = response.read()
        self.assertEqual(response.status, 201, body)


class RoomTest(ExhaustionTestCase):
    """Files that may not grow, while the disk has room."""

    def test_a_file_larger_than_the_process_may_write_is_507(self) -> None:
        self.limit(resource.RLIMIT_FSIZE, 2 * MIB)
        location = self.start(self.server.auth)
        self.assert_full(self.server.auth.request("PATCH", location, bytes(3 * MIB)))
        self.assertEqual(received(self.server.auth, location), 0)
        self.assertEqual(_pull(self.server), LAYER)
        self.assertEqual(
            self.server.auth.request("PUT", f"{location}?digest={digest_of(bytes(MIB))}", bytes(MIB)).status, 201
        )
        self.limit(resource.RLIMIT_FSIZE, -1)
        self.assert_works()

    def test_a_quota_that_is_used_up_is_507(self) -> None:
        with directory_in_memory() as directory, contextlib.ExitStack() as ending:
            server = TrapServer(Path(directory))
            ending.callback(server.kill)
            location = self.start(server.auth)
            server.points.arm(Trap("write uploads", "EDQUOT", forever=True))
            self.assert_full(server.auth.request("PATCH", location, b"more"))
            server.points.disarm()
            self.assertEqual(received(server.auth, location), 0)
            self.assertEqual(server.auth.request("PUT", f"{location}?digest={digest_of(b'more')}", b"more").status, 201)

    def assert_full(self, answer: Answer) -> None:
        self.assertEqual((answer.status, answer.codes), (507, ["INSUFFICIENT_STORAGE"]), answer)


def _pull(server: Server) -> bytes:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return server.public.get(f"/v2/app/blobs/{digest_of(LAYER)}").body
    return b""


def _answers(connections: list[socket.socket]) -> list[Answer]:
    """Read the answers that come until none has come for half a second."""
    answers = []
    waiting = set(connections)
    while ready := select.select(waiting, [], [], 0.5)[0]:
        for connection in ready:
            waiting.discard(connection)
            with contextlib.suppress(ConnectionError, http.client.HTTPException):
                response = http.client.HTTPResponse(connection)
                response.begin()
                answers.append(Answer(response.status, response.headers, response.read()))
    return answers


def _processor_seconds(server: Server) -> float:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _address_space(server: Server) -> int:
    found = re.search(r"^VmSize:\s+(\d+) kB$", Path(f"/proc/{server.process.pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


if __name__ == "__main__":
    unittest.main()
