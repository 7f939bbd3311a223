"""Every limit of the registry: what is at it is taken, what is one over gets the answer that it should, and a metric
counts it.

Limits of requests are those of the defaults; of blobs, sessions, connections and times, small ones that flags set.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import ssl
import tempfile
import threading
import time
import unittest
from collections.abc import Iterable
from typing import Callable

from tests.support.raw import basic, connected
from tests.support.server import (
    OCI_INDEX,
    OCI_MANIFEST,
    PASSWORD,
    USER,
    Answer,
    Client,
    ServerTestCase,
    digest_of,
    image,
    running,
    write_certificate,
)
from vex.errors import Kind, RegistryError
from vex.http.heads import HeadLimits
from vex.http.message import Request, Response, error_response
from vex.http.observer import Observer
from vex.http.server import Listener, ListenerLimits, Timeouts
from vex.http.sockets import listen
from vex.settings.values import Address

KIB, MIB = 2**10, 2**20
CONFIG = b"{}"


class LimitCase(ServerTestCase):
    """A server with small limits, and what it has counted."""

    def refused(self, reason: str, listener: str = "auth") -> float:
        return self.server.metric(f'vex_requests_refused_total{{listener="{listener}",reason="{reason}"}}')

    def assert_ended(self, reason: str, listener: str = "public") -> None:
        """Check that one connection was ended for a reason, which may be counted a moment after its client sees it."""
        series = f'vex_connections_ended_total{{listener="{listener}",reason="{reason}"}}'
        _wait_until(lambda: self.server.metric(series) >= 1)
        self.assertEqual(self.server.metric(series), 1)

    def assert_limit(
        self, reason: str, at: Iterable[Answer], over: Callable[[], Answer], status: int, code: str
    ) -> None:
        """Check that what is at a limit was taken, and that what is over it is refused and counted."""
        for answer in at:
            self.assertIn(answer.status, (200, 201, 202), answer)
        before = self.refused(reason)
        self.assert_error(over(), status, code)
        self.assertEqual(self.refused(reason) - before, 1)


class Heads(LimitCase):
    """Request line, number of fields, and bytes of fields."""

    def send(self, line: str = "GET /v2/ HTTP/1.1", *fields: str) -> Answer:
        with connected(self.server.addresses["auth"]) as wire:
            wire.send("\r\n".join([line, "Host: a", f"Authorization: {basic()}", *fields, "", ""]).encode())
            return wire.answer()

    def test_a_request_line_has_at_most_8_kib(self) -> None:
        line = "GET /v2/?x={} HTTP/1.1"
        room = 8 * KIB - len(line) + 2
        at = self.send(line.format("a" * room))
        self.assert_limit("request_line", [at], lambda: self.send(line.format("a" * (room + 1))), 414, "URI_TOO_LONG")

    def test_a_request_has_at_most_64_fields(self) -> None:
        fields = [f"X{number}: a" for number in range(63)]
        self.assert_limit(
            "header",
            [self.send("GET /v2/ HTTP/1.1", *fields[:62])],
            lambda: self.send("GET /v2/ HTTP/1.1", *fields),
            431,
            "HEADERS_TOO_LARGE",
        )

    def test_fields_have_at_most_32_kib(self) -> None:
        room = 32 * KIB - len(f"Host: a\r\nAuthorization: {basic()}\r\nX: \r\n")
        at = self.send("GET /v2/ HTTP/1.1", "X: " + "a" * room)
        self.assert_limit(
            "header", [at], lambda: self.send("GET /v2/ HTTP/1.1", "X: " + "a" * (room + 1)), 431, "HEADERS_TOO_LARGE"
        )


class Manifests(LimitCase):
    """Bytes, descriptors and nesting of a manifest."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server.auth.push_blob("app", CONFIG)
        cls.server.auth.push_blob("app", b"layer")

    def push(self, content: bytes, media_type: str = OCI_MANIFEST, *, chunked: bool = False) -> Answer:
        body = iter([content]) if chunked else content
        return self.server.auth.request(
            "PUT", "/v2/app/manifests/v1", body, {"Content-Type": media_type}, chunked=chunked
        )

    def test_a_manifest_has_at_most_4_mib(self) -> None:
        content = json.dumps(image()).encode().ljust(4 * MIB)

        def over() -> Answer:
            # http.client loses the answer when the server closes before it has taken everything.
            with connected(self.server.addresses["auth"]) as wire:
                wire.send(
                    f"PUT /v2/app/manifests/v1 HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\nContent-Length:"
                    f" {len(content) + 1}\r\n\r\n".encode()
                )
                return wire.answer()

        self.assert_limit("manifest_size", [self.push(content)], over, 413, "MANIFEST_INVALID")

    def test_a_manifest_in_chunks_has_at_most_4_mib(self) -> None:
        content = json.dumps(image()).encode().ljust(4 * MIB)
        self.assert_limit(
            "manifest_size",
            [self.push(content, chunked=True)],
            lambda: self.push(content + b" ", chunked=True),
            413,
            "MANIFEST_INVALID",
        )

    def test_a_manifest_has_at_most_20000_descriptors(self) -> None:
        at, over = (json.dumps(image(*[b"layer"] * (count - 1))).encode() for count in (20_000, 20_001))
        self.assert_limit("manifest_complexity", [self.push(at)], lambda: self.push(over), 400, "MANIFEST_INVALID")

    def test_an_index_has_at_most_20000_descriptors(self) -> None:
        self.push(json.dumps(image()).encode())
        child = json.dumps(image()).encode()
        entry = {"mediaType": OCI_MANIFEST, "digest": digest_of(child), "size": len(child)}
        at, over = (
            json.dumps({"schemaVersion": 2, "manifests": [entry] * count}).encode() for count in (20_000, 20_001)
        )
        self.assert_limit(
            "manifest_complexity",
            [self.push(at, OCI_INDEX)],
            lambda: self.push(over, OCI_INDEX),
            400,
            "MANIFEST_INVALID",
        )

    def test_a_manifest_is_nested_at_most_64_levels(self) -> None:
        # The manifest itself is the first.
        at, over = (
            json.dumps(image()).encode()[:-1] + b', "x": ' + b"[" * levels + b"]" * levels + b"}" for levels in (63, 64)
        )
        self.assert_limit("manifest_complexity", [self.push(at)], lambda: self.push(over), 400, "MANIFEST_INVALID")


class Uploads(LimitCase):
    """Bytes of a blob, and open sessions."""

    # One identity may have half of them.
    flags = ("--blob-limit", "100000", "--upload-sessions", "6")

    def push(self, length: int, *, chunked: bool = False) -> Answer:
        content = bytes(length)
        body = iter([content[:50_000], content[50_000:]]) if chunked else content
        return self.server.auth.request(
            "POST", f"/v2/app/blobs/uploads/?digest={digest_of(content)}", body, chunked=chunked
        )

    def test_a_blob_has_at_most_so_many_bytes(self) -> None:
        self.assert_limit("blob_size", [self.push(100_000)], lambda: self.push(100_001), 413, "SIZE_INVALID")

    def test_a_blob_in_chunks_has_at_most_so_many_bytes(self) -> None:
        self.assert_limit(
            "blob_size",
            [self.push(100_000, chunked=True)],
            lambda: self.push(100_001, chunked=True),
            413,
            "SIZE_INVALID",
        )

    def test_there_are_at_most_so_many_sessions_and_one_that_ends_makes_room(self) -> None:
        opened = [self.server.auth.request("POST", "/v2/app/blobs/uploads/") for _ in range(3)]
        answer = self.server.auth.request("POST", "/v2/app/blobs/uploads/")
        self.assertGreater(int(answer.headers["Retry-After"]), 0)
        self.assert_limit(
            "upload_sessions",
            opened,
            lambda: self.server.auth.request("POST", "/v2/app/blobs/uploads/"),
            429,
            "TOOMANYREQUESTS",
        )
        for session in opened:
            self.assertEqual(self.server.auth.request("DELETE", session.headers["Location"]).status, 204)
        self.assertEqual(self.push(1).status, 201)


class Space(LimitCase):
    """Half of the space that is free is to stay free: how much that is changes all the time, so what is far from it is
    tried.
    """

    flags = (
        "--blob-limit",
        "1024TiB",
        "--free-space",
        str(os.statvfs("/tmp").f_bavail * os.statvfs("/tmp").f_frsize // 2),
    )

    def test_what_would_leave_too_little_space_is_507_before_its_body_is_read(self) -> None:
        free = os.statvfs(self.server.data).f_bavail * os.statvfs(self.server.data).f_frsize
        pushed = self.server.auth.request("POST", f"/v2/app/blobs/uploads/?digest={digest_of(b'a')}", b"a")
        before = self.refused("free_space")
        with connected(self.server.addresses["auth"]) as wire:
            path = f"/v2/app/blobs/uploads/?digest={digest_of(b'b')}"
            wire.send(
                f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\nContent-Length:"
                f" {free * 9 // 10}\r\n\r\n".encode()
            )
            self.assert_error(wire.answer(), 507, "INSUFFICIENT_STORAGE")
        self.assertEqual((pushed.status, self.refused("free_space") - before), (201, 1))


class Pages(LimitCase):
    """Entries on a page: fewer than asked for, and a link to the rest."""

    flags = ("--page-size", "2", "--page-limit", "3")

    def test_a_page_has_as_many_entries_as_the_limit_and_a_link_to_the_rest(self) -> None:
        for tag in "abcd":
            self.server.auth.push_image("app", tag, b"layer")
        for query, tags in (
            ("", "abcd"),
            ("?n=1", "a"),
            ("?n=3", "abc"),
            ("?n=4", "abc"),
            ("?n=1000000", "abc"),
            ("?n=3&last=a", "bcd"),
        ):
            with self.subTest(query):
                answer = self.server.public.get(f"/v2/app/tags/list{query}")
                self.assertEqual((answer.status, answer.json["tags"]), (200, [*tags]))
                self.assertEqual("Link" in answer.headers, not tags.endswith("d"))


class Logins(LimitCase):
    """Failed logins of a name from an address."""

    def test_after_ten_failures_in_a_minute_more_are_429_and_the_right_password_is_not(self) -> None:
        self.assertEqual(self.server.auth.get("/v2/").status, 200)
        wrong = Client(self.server.addresses["auth"], USER, "wrong password")
        before = self.server.metric("vex_logins_refused_total")
        answers = [wrong.get("/v2/")]
        # While they are sent, one in six seconds is forgotten.
        while answers[-1].status == 401 and len(answers) < 30:
            answers.append(wrong.get("/v2/"))
        over = answers[-1]
        self.assert_error(over, 429, "TOOMANYREQUESTS")
        self.assertGreaterEqual(len(answers), 11)
        self.assertTrue(1 <= int(over.headers["Retry-After"]) <= 60, over)
        self.assertEqual(
            (self.refused("failed_logins"), self.server.metric("vex_logins_refused_total") - before), (1, len(answers))
        )
        self.assertEqual(Client(self.server.addresses["auth"], "another", PASSWORD).get("/v2/").status, 401)
        self.assertEqual(self.server.auth.get("/v2/").status, 200)


class Failures(LimitCase):
    """A registry that cannot look up users."""

    def test_a_login_that_failed_by_itself_is_none_that_was_refused(self) -> None:
        with contextlib.closing(sqlite3.connect(self.server.data / "vex.db")) as connection:
            connection.execute("ALTER TABLE user RENAME TO lost")
        self.assertIn(self.server.auth.get("/v2/").status, (500, 503))
        self.assertEqual(self.server.metric("vex_logins_refused_total"), 0)


class Times(LimitCase):
    """Deadlines that are absolute, whatever trickles in."""

    # At this rate, what fits into the buffers of both sides is read in less than a second.
    flags = (
        "--head-timeout",
        "1s",
        "--idle-timeout",
        "1s",
        "--stall-timeout",
        "1s",
        "--upload-timeout",
        "1s",
        "--minimum-rate",
        "4MiB",
    )

    def test_a_head_that_does_not_end_is_408(self) -> None:
        before = self.refused("head_timeout", "public")
        with connected(self.server.addresses["public"]) as wire:
            wire.send(b"GET /v2/ HTTP/1.1\r\n")
            self.assert_error(wire.answer(), 408, "REQUEST_TIMEOUT")
            self.assertEqual(wire.rest(), b"")
        self.assertEqual(self.refused("head_timeout", "public") - before, 1)
        self.assert_ended("head")

    def test_an_idle_connection_is_closed(self) -> None:
        with connected(self.server.addresses["public"]) as wire:
            wire.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertEqual((wire.answer().status, wire.rest()), (200, b""))
        self.assert_ended("idle")

    def test_an_answer_that_nobody_reads_is_closed(self) -> None:
        # More than fits in the buffers of both sides.
        digest = self.server.auth.push_blob("app", bytes(32 * MIB))
        with connected(self.server.addresses["public"]) as wire:
            wire.send(f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            self.assert_ended("stall")
            self.assertLess(len(wire.rest()), 32 * MIB)

    def test_a_body_that_stalls_is_408_and_its_connection_closed(self) -> None:
        before = self.refused("body_timeout")
        with connected(self.server.addresses["auth"]) as wire:
            path = f"/v2/app/blobs/uploads/?digest={digest_of(b'')}"
            wire.send(
                f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\nContent-Length: 5\r\n\r\n".encode()
            )
            answer = wire.answer()
            self.assert_error(answer, 408, "REQUEST_TIMEOUT")
            self.assertEqual((answer.headers["Connection"], wire.rest()), ("close", b""))
        self.assertEqual(self.refused("body_timeout") - before, 1)
        self.assert_ended("stall", "auth")


class Crowds(LimitCase):
    """Two connections at once to each listener, and one more."""

    flags = (
        "--public-connections",
        "2",
        "--auth-connections",
        "2",
        "--internal-connections",
        "2",
        "--head-timeout",
        "5s",
    )

    def test_one_more_than_the_limit_waits_until_another_ends_and_idle_ones_make_room(self) -> None:
        paths = {"public": "/v2/", "auth": "/v2/", "internal": "/healthz"}
        for listener, address in self.server.addresses.items():
            request = f"GET {paths[listener]} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\n\r\n".encode()
            with (
                self.subTest(listener),
                connected(address) as busy,
                connected(address) as idle,
                connected(address) as third,
            ):
                busy.send(request[:-2])
                idle.send(request)
                self.assertEqual(idle.answer().status, 200)
                third.send(request)
                self.assertEqual(third.answer().status, 200)
                self.assertEqual(idle.rest(), b"")
                busy.send(request[-2:])
                self.assertEqual(busy.answer().status, 200)
            series = f'vex_connections_ended_total{{listener="{listener}",reason="limit"}}'
            # At least one: those that ask for the metric are such connections too.
            _wait_until(lambda series=series: self.server.metric(series) >= 1)  # type: ignore[misc]

    def test_what_is_past_the_limit_is_answered_as_soon_as_there_is_room(self) -> None:
        request = b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"
        address = self.server.addresses["public"]
        with connected(address) as first, connected(address) as second, connected(address) as third:
            first.send(request[:-2])
            second.send(request[:-2])
            third.send(request)
            self.assertFalse(third.ready(0.5), "it was answered, past the limit")
            first.close()
            self.assertEqual(third.answer().status, 200)


class Handshakes(LimitCase):
    """A second for a handshake."""

    flags: tuple[str, ...] = ("--handshake-timeout", "1s")
    context: ssl.SSLContext

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        cls.addClassCleanup(directory.cleanup)
        certificate, key = write_certificate(directory.name)
        cls.flags = (*Handshakes.flags, "--public-tls-cert", str(certificate), "--public-tls-key", str(key))
        cls.context = ssl.create_default_context(cafile=str(certificate))
        super().setUpClass()

    def test_a_handshake_in_time_is_taken_and_one_that_does_not_end_is_closed(self) -> None:
        address = self.server.addresses["public"]
        with connected(address) as silent, connected(address) as half:
            half.send(b"\x16\x03\x01")
            taken = Client(("localhost", address[1]), context=self.context).get("/v2/")
            self.assertEqual((taken.status, silent.rest(), half.rest()), (200, b"", b""))
        series = 'vex_connections_ended_total{listener="public",reason="handshake"}'
        _wait_until(lambda: self.server.metric(series) == 2)


class Shutdown(unittest.TestCase):
    """What is under way when the server is stopped."""

    def test_requests_under_way_are_closed_after_the_timeout(self) -> None:
        with running("--shutdown-timeout", "1s") as server, connected(server.addresses["auth"]) as wire:
            path = f"/v2/app/blobs/uploads/?digest={digest_of(b'')}"
            wire.send(
                f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\nExpect:"
                " 100-continue\r\nContent-Length: 5\r\n\r\n".encode()
            )
            self.assertEqual(wire.answer().status, 100)
            started = time.monotonic()
            self.assertEqual(server.stop(), 0)
            self.assertTrue(0.9 < time.monotonic() - started < 10, "not before the timeout, and not long after it")
            self.assertEqual(wire.rest(), b"")


class Reasons:
    """Remembers why connections were ended."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def request_done(self, *_what: object) -> None:
        """Not what is remembered."""

    def request_refused(self, listener: str, kind: Kind) -> None:
        """Not what is remembered."""

    def connection_ended(self, listener: str, reason: str) -> None:
        self.reasons.append(reason)

    def connection_refused(self, listener: str) -> None:
        self.reasons.append(f"{listener}: no thread")


class Threads(unittest.TestCase):
    def test_a_connection_for_which_there_is_no_thread_is_answered_503_and_counted(self) -> None:
        reasons = Reasons()
        listener = _listener(reasons)
        self.addCleanup(listener.server_close)
        # No address space has room for such a stack.
        self.addCleanup(threading.stack_size, threading.stack_size(2**47))
        with (
            socket.create_connection(("127.0.0.1", listener.server_address[1]), timeout=20) as client,
            self.assertLogs("vex", "WARNING"),
        ):
            listener.handle_request()
            self.assertTrue(client.recv(100).startswith(b"HTTP/1.1 503 "))
        self.assertEqual(reasons.reasons, ["auth: no thread"])


class Rates(unittest.TestCase):
    """A body of one kibibyte a second, over a minute that the test makes pass."""

    def test_a_body_slower_than_the_rate_over_a_minute_is_closed(self) -> None:
        self.assertEqual(self._after_a_minute(60 * KIB - 1), ["rate"])

    def test_a_body_of_the_rate_goes_on(self) -> None:
        self.assertEqual(self._after_a_minute(60 * KIB), [])

    def _after_a_minute(self, length: int) -> list[str]:
        """Send so many bytes of a body within a minute; returns why the connection was ended."""
        reasons = Reasons()
        listener = _listener(reasons)
        with socket.create_connection(("127.0.0.1", listener.server_address[1]), timeout=20) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (length + 1))
            listener.handle_request()
            _wait_until(lambda: [connection.phase for connection in listener.connections] == ["receiving"])
            (connection,) = listener.connections
            listener.reap(time.monotonic())
            start = connection.pace.window_at
            client.sendall(bytes(length))
            _wait_until(lambda: connection.received >= length and connection.phase == "receiving")
            # As long as some come within the time for a stall, only the rate counts.
            listener.reap(start + 29)
            # A little more than a minute: the sum may be rounded down.
            listener.reap(start + 60.001)
            if connection.reason:
                self.assertEqual(client.recv(12), b"HTTP/1.1 408")
            else:
                client.sendall(b"a")
                self.assertEqual(client.recv(12), b"HTTP/1.1 200")
        listener.server_close()
        _wait_until(lambda: not listener.connections)
        return reasons.reasons


def _listener(observer: Observer) -> Listener:
    return Listener(
        "auth",
        listen("auth", Address("127.0.0.1", 0), 1),
        _read_body,
        _read_body,
        ListenerLimits(
            HeadLimits(), Timeouts(handshake=5, head=10, idle=60, stall=40, rate=KIB, shutdown=30, upload=300), 1, 1
        ),
        observer,
        tls_context=lambda: None,
        answers=None,
    )


def _wait_until(condition: Callable[[], bool]) -> None:
    patience = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < patience, "it never came"
        time.sleep(0.01)


def _read_body(request: Request) -> Response:
    try:
        while request.body.read_into(memoryview(bytearray(KIB))):
            pass
    except RegistryError as error:
        return error_response(error)
    return Response(200)


if __name__ == "__main__":
    unittest.main()
