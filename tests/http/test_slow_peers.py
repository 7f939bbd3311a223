"""Peers that read or send slowly, and steadily enough: they get all of it. And peers that speak no TLS where they
should.

`VEX_TEST_SLOW` is for how many seconds each reads slowly; the times that the server allows are far shorter.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator

from tests.support.raw import basic, connected
from tests.support.server import (
    USER,
    Client,
    ServerTestCase,
    digest_of,
    image,
    running,
    tls_flags,
    trusting,
    write_certificate,
)

KIB, MIB = 2**10, 2**20
SECONDS = float(os.environ.get("VEX_TEST_SLOW", "4"))
STALL_SECONDS = 1
RATES = (2 * KIB, 16 * KIB, 64 * KIB, 200 * KIB)
# More than the buffers of both sides take at once.
LAYER = os.urandom(16 * MIB)
MANIFEST_BYTES = 4 * MIB


class SlowReaders(ServerTestCase):
    """Readers at several rates, all at once, of what goes out with sendfile, as a stream, and from memory."""

    flags: tuple[str, ...] = ("--stall-timeout", f"{STALL_SECONDS}s", "--minimum-rate", "1KiB")
    context: ssl.SSLContext | None = None
    paths: tuple[str, ...]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        client = Client(cls.server.addresses["auth"], USER, context=cls.context)
        digest = client.push_image("slow", "v1", LAYER)
        large = client.push_manifest("slow", "large", image(LAYER, annotations={"a": "b" * (MANIFEST_BYTES - 1000)}))
        cls.paths = (
            f"/v2/slow/blobs/{digest_of(LAYER)}",
            f"/r/slow/m/{digest}/image.tar",
            f"/v2/slow/manifests/{large}",
        )

    def test_who_reads_slowly_gets_all_of_it(self) -> None:
        problems: list[str] = []
        threads = [
            threading.Thread(target=self.read, args=(path, rate, problems)) for path in self.paths for rate in RATES
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(problems, [])

    def read(self, path: str, rate: int, problems: list[str]) -> None:
        """Read slowly for a while, and then what is left; notes what went wrong."""
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.create_connection(self.server.addresses["public"], timeout=20))
            if self.context:
                sock = stack.enter_context(self.context.wrap_socket(sock))
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            response = http.client.HTTPResponse(sock)
            response.begin()
            received = self.slowly(response, rate)
            received += len(response.read())
            expected = int(response.headers["Content-Length"] or 0)
            if response.status != 200 or received < (expected or len(LAYER)):
                problems.append(f"{path} at {rate} bytes a second: {response.status}, {received} of {expected} bytes")

    def slowly(self, response: http.client.HTTPResponse, rate: int) -> int:
        received, piece, until = 0, rate // 8, time.monotonic() + SECONDS
        while time.monotonic() < until:
            received += len(response.read(piece))
            time.sleep(piece / rate)
        return received


class SlowReadersOverTls(SlowReaders):
    """Over TLS."""

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        cls.addClassCleanup(directory.cleanup)
        certificate, key = write_certificate(directory.name)
        cls.flags = (*SlowReaders.flags, *tls_flags(certificate, key, "public", "auth"))
        cls.context = trusting(certificate)
        super().setUpClass()


class SlowReadersOfUnixSockets(unittest.TestCase):
    """A Unix socket, where the system tells less."""

    def test_who_reads_slowly_gets_all_of_it(self) -> None:
        with tempfile.TemporaryDirectory(prefix="vex-", dir="/tmp") as directory:
            path = f"{directory}/public.sock"
            with running("--public-addr", f"unix:{path}", *SlowReaders.flags) as server:
                digest = server.auth.push_blob("slow", LAYER)
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(20)
                    sock.connect(path)
                    sock.sendall(
                        f"GET /v2/slow/blobs/{digest} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
                    )
                    response = http.client.HTTPResponse(sock)
                    response.begin()
                    received, until = 0, time.monotonic() + SECONDS
                    while time.monotonic() < until:
                        received += len(response.read(16 * KIB))
                        time.sleep(0.25)
                    self.assertEqual(received + len(response.read()), len(LAYER))


class QuietSenders(ServerTestCase):
    """Bodies that pause."""

    flags = ("--stall-timeout", "0.3s", "--upload-timeout", "2.5s", "--anonymous-read", "yes")

    def begin(self, authorization: str, path: str) -> bytes:
        fields = f"Authorization: {authorization}\r\n" if authorization else ""
        return f"POST {path} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 10\r\n\r\n01234".encode()

    def test_who_logged_in_may_pause_for_longer_and_is_told_when_it_was_too_long(self) -> None:
        path = f"/v2/quiet/blobs/uploads/?digest={digest_of(b'0123456789')}"
        with connected(self.server.addresses["auth"]) as pausing, connected(self.server.addresses["auth"]) as gone:
            for wire in (pausing, gone):
                wire.send(self.begin(basic(), path))
            # Nothing is answered while it pauses, for three times as long as others may.
            self.assertFalse(pausing.ready(1))
            pausing.send(b"56789")
            self.assertEqual(pausing.answer().status, 201)
            answer = gone.answer()
            self.assert_error(answer, 408, "REQUEST_TIMEOUT")
            self.assertIn("go on with the upload", answer.json["errors"][0]["message"])
            self.assertEqual((answer.headers["Connection"], gone.rest()), ("close", b""))

    def test_a_session_goes_on_where_its_quiet_client_stopped(self) -> None:
        location = self.server.auth.request("POST", "/v2/quiet/blobs/uploads/").headers["Location"]
        with connected(self.server.addresses["auth"]) as wire:
            wire.send(
                f"PATCH {location} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\nTransfer-Encoding:"
                " chunked\r\n\r\n5\r\n01234\r\n".encode()
            )
            self.assertEqual(wire.answer().status, 408)
        self.assertEqual(self.server.auth.get(location).headers["Range"], "0-4")
        self.assertEqual(
            self.server.auth.request("PUT", f"{location}?digest={digest_of(b'0123456789')}", b"56789").status, 201
        )

    def test_who_did_not_log_in_may_not_pause_for_long(self) -> None:
        started = time.monotonic()
        with connected(self.server.addresses["auth"]) as wire:
            wire.send(self.begin("", "/v2/_token"))
            self.assertEqual(wire.answer().status, 408)
        self.assertLess(time.monotonic() - started, 2.5)


class UnwantedBodies(ServerTestCase):
    """Bodies of requests that were refused."""

    def test_the_rest_of_one_is_waited_for_a_second_at_most(self) -> None:
        cases = (
            ("auth", "POST", "/v2/a/blobs/uploads/", 401),
            ("public", "PUT", "/v2/a/manifests/v1", 405),
            ("public", "GET", "/v2/", 200),
        )
        for listener, method, path, status in cases:
            for framing in ("Content-Length: 60000", "Transfer-Encoding: chunked"):
                with self.subTest(listener=listener, framing=framing):
                    request = f"{method} {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode()
                    # Another program may have needed the processor for a while.
                    self.assertTrue(any(self.wait_after(listener, request, status) < 1.5 for _ in range(3)))

    def wait_after(self, listener: str, request: bytes, status: int) -> float:
        """Send a request without its body; returns how many seconds after the answer the connection was closed."""
        with connected(self.server.addresses[listener]) as wire:
            wire.send(request)
            self.assertEqual(wire.answer().status, status)
            answered = time.monotonic()
            self.assertEqual(wire.rest(), b"")
            return time.monotonic() - answered

    def test_one_that_comes_at_once_is_read_and_the_connection_goes_on(self) -> None:
        with connected(self.server.addresses["public"]) as wire:
            for _ in range(2):
                wire.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n01234")
                self.assertEqual(wire.answer().status, 200)


class InTheClear(unittest.TestCase):
    """Requests without TLS at ports that have it."""

    @contextlib.contextmanager
    def serving(self) -> Iterator[tuple[dict[str, tuple[str, int]], ssl.SSLContext]]:
        with tempfile.TemporaryDirectory(prefix="vex-test-") as directory:
            certificate, key = write_certificate(directory)
            with running(*tls_flags(certificate, key, "public", "auth", "internal")) as server:
                yield server.addresses, trusting(certificate)
                assert "Traceback" not in server.log.read_text()

    def test_they_are_told_so_and_pages_are_where_they_can_be_read(self) -> None:
        with self.serving() as (addresses, context):
            no_pages = (
                ("public", "/v2/"),
                ("public", "/healthz"),
                ("auth", "/v2/a/manifests/v1"),
                ("auth", "/"),
                ("internal", "/metrics"),
            )
            for listener, path in no_pages:
                url = f"https://127.0.0.1:{addresses[listener][1]}{path}"
                for method in ("GET", "HEAD", "PUT"):
                    answer = Client(addresses[listener]).request(method, path)
                    self.assertEqual((answer.status, answer.headers["Connection"]), (400, "close"), (listener, path))
                    self.assertEqual(answer.headers["Content-Type"], "text/plain; charset=utf-8")
                    if method != "HEAD":
                        self.assertEqual(
                            answer.body.decode(),
                            f"this port serves HTTPS, and the request was not encrypted; ask {url}\n",
                        )
            for listener, path in (
                ("public", "/"),
                ("public", "/r/app/?n=1"),
                ("public", "/r/a%2Fb/"),
                ("internal", "/"),
            ):
                for method in ("GET", "HEAD"):
                    answer = Client(addresses[listener]).request(method, path)
                    self.assertEqual(
                        (answer.status, answer.headers["Location"]),
                        (308, f"https://127.0.0.1:{addresses[listener][1]}{path}"),
                    )
                self.assertEqual(Client(addresses[listener]).request("POST", path).status, 400)
            self.assertEqual(Client(addresses["public"], context=context).get("/v2/").status, 200)

    def test_what_is_not_well_formed_is_told_so_too_and_leads_nowhere_else(self) -> None:
        with self.serving() as (addresses, _):
            hosts = (b"", b"Host: a/b\r\n", b"Host: \r\n")
            for request in (
                *(b"GET /v2/ HTTP/1.1\r\n%b\r\n" % host for host in hosts),
                b"SSH-2.0-OpenSSH_9.2\r\n",
                b"\r\nGET\r\n\r\n",
            ):
                with self.subTest(request), connected(addresses["public"]) as wire:
                    wire.send(request)
                    answer = wire.answer()
                    self.assertEqual((answer.status, answer.headers["Location"]), (400, None))
                    self.assertIn(b"this port serves HTTPS", answer.body)
            with connected(addresses["public"]) as wire:
                wire.send(b"\x00\x01\x02\x03garbage")
                self.assertNotIn(b"HTTP", wire.rest())


if __name__ == "__main__":
    unittest.main()
