"""Where a request ends: hostile bytes over a socket to each listener of the real server, and what must come out.

Every hostile request has a well-formed one behind it on the same connection, which must never be taken for a request,
and is followed by a well-formed one on a fresh connection, which must be answered. RFC 9112, and stricter where two
readers could disagree.
"""

from __future__ import annotations

import json

from tests.support.raw import basic, connected
from tests.support.server import Answer, ServerTestCase, digest_of

LISTENERS = ("public", "auth", "internal")
# A well-formed request that each listener answers with 200.
TARGETS = {"public": "/v2/", "auth": "/v2/", "internal": "/healthz"}
FULL_WIDTH_FIVE = "\uff15".encode()


def head(*fields: str | bytes, line: str | bytes = "GET /v2/ HTTP/1.1", host: str = "Host: registry.example") -> bytes:
    """Write a head with credentials; with an empty `host`, one without Host."""
    lines = [line, *([host] if host else []), f"Authorization: {basic()}", *fields]
    return (
        b"".join(text + b"\r\n" for text in (text if isinstance(text, bytes) else text.encode() for text in lines))
        + b"\r\n"
    )


def post(*fields: str | bytes) -> bytes:
    """Write the head of a request with a body; where it is refused does not depend on its path."""
    return head(*fields, line="POST /v2/a/blobs/uploads/ HTTP/1.1")


HEADS: dict[str, bytes] = {
    "Content-Length twice": post("Content-Length: 5", "Content-Length: 5") + b"01234",
    "two Content-Lengths": post("Content-Length: 5", "Content-Length: 6") + b"01234",
    "Content-Length list": post("Content-Length: 5,5") + b"01234",
    "Content-Length list with a space": post("Content-Length: 5, 5") + b"01234",
    "Content-Length +5": post("Content-Length: +5") + b"01234",
    "Content-Length -1": post("Content-Length: -1"),
    "Content-Length -0": post("Content-Length: -0"),
    "Content-Length 1_0": post("Content-Length: 1_0") + b"0123456789",
    "Content-Length in full-width digits": post(b"Content-Length: " + FULL_WIDTH_FIVE) + b"01234",
    "Content-Length with vertical tab": post("Content-Length: 5\x0b") + b"01234",
    "Content-Length of 20 digits": post("Content-Length: " + "0" * 19 + "5") + b"01234",
    "Content-Length of 4301 digits": post("Content-Length: " + "0" * 4300 + "5") + b"01234",
    "Content-Length empty": post("Content-Length:"),
    "Content-Length 0x5": post("Content-Length: 0x5") + b"01234",
    "Content-Length 5.0": post("Content-Length: 5.0") + b"01234",
    "Content-Length with Transfer-Encoding": post("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "Transfer-Encoding with Content-Length": post("Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n",
    "Transfer-Encoding gzip, chunked": post("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "Transfer-Encoding chunked, chunked": post("Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n",
    "Transfer-Encoding chunked twice": post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "Transfer-Encoding identity": post("Transfer-Encoding: identity"),
    "Transfer-Encoding xchunked": post("Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "Transfer-Encoding quoted": post('Transfer-Encoding: "chunked"') + b"0\r\n\r\n",
    "Transfer-Encoding with vertical tab": post("Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n",
    "Transfer-Encoding empty": post("Transfer-Encoding:"),
    "chunked on HTTP/1.0": head("Transfer-Encoding: chunked", line="POST /v2/a/blobs/uploads/ HTTP/1.0") + b"0\r\n\r\n",
    "bare CR in a value": head("X: a\rb"),
    "bare CR before a field": head("\rX: a"),
    "bare LF in a value": head("X: a\nb: c"),
    "bare LF as line end": head().replace(b"\r\nHost", b"\nHost"),
    "only bare LFs": head().replace(b"\r\n", b"\n"),
    "NUL in a value": head("X: a\0b"),
    "NUL in a name": head("X\0: a"),
    "obs-fold": head("X: a", " b"),
    "obs-fold with a tab": head("X: a", "\tb"),
    "obs-fold first": head(host=" Host: a"),
    "space before the colon": head("X : a"),
    "tab before the colon": head("X\t: a"),
    "space before the colon of Content-Length": post("Content-Length : 5") + b"01234",
    "space before a name": head(" X: a"),
    "line without a colon": head("nothing"),
    "empty name": head(": a"),
    "name that is no token": head("X(y): a"),
    "no Host": head(host=""),
    "two Hosts": head("Host: other"),
    "two equal Hosts": head("Host: registry.example"),
    "Host with a space": head(host="Host: a b"),
    "Host with a path": head(host="Host: a/b"),
    "Host with a user": head(host="Host: a@b"),
    "leading space": head(line=" GET /v2/ HTTP/1.1"),
    "two spaces": head(line="GET  /v2/ HTTP/1.1"),
    "trailing space": head(line="GET /v2/ HTTP/1.1 "),
    "tabs": head(line="GET\t/v2/\tHTTP/1.1"),
    "no version": head(line="GET /v2/"),
    "HTTP/0.9 with fields": head(line="GET /v2/ HTTP/0.9"),
    "version 1.1_1": head(line="GET /v2/ HTTP/1.1_1"),
    "version +1.+1": head(line="GET /v2/ HTTP/+1.+1"),
    "version \u00b2": head(line="GET /v2/ HTTP/\u00b2.1"),
    "version without a minor": head(line="GET /v2/ HTTP/1"),
    "version in lower case": head(line="GET /v2/ http/1.1"),
    "version 1.10": head(line="GET /v2/ HTTP/1.10"),
    "space in the target": head(line="GET /v2/ x HTTP/1.1"),
    "raw UTF-8 in the target": head(line="GET /v2/\u00e9 HTTP/1.1"),
    "control character in the target": head(line="GET /v2/\x7f HTTP/1.1"),
    "NUL in the target": head(line="GET /v2/\0 HTTP/1.1"),
    "method that is no token": head(line="G(T /v2/ HTTP/1.1"),
    "no method": head(line="/v2/ HTTP/1.1"),
    "absolute target": head(line="GET http://evil/v2/ HTTP/1.1"),
    "asterisk": head(line="OPTIONS * HTTP/1.1"),
    "authority": head(line="CONNECT evil:80 HTTP/1.1"),
    "no slash": head(line="GET v2/ HTTP/1.1"),
    "two empty lines": b"\r\n\r\n" + head(),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
}

TOO_LARGE: dict[str, tuple[bytes, int, str]] = {
    "request line": (head(line=f"GET /v2/{'a' * 8192} HTTP/1.1"), 414, "URI_TOO_LONG"),
    "request line without end": (b"GET /v2/" + b"a" * 9000, 414, "URI_TOO_LONG"),
    "header bytes": (head("X: " + "a" * 32768), 431, "HEADERS_TOO_LARGE"),
    "header bytes without end": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 33000, 431, "HEADERS_TOO_LARGE"),
    "header fields": (head(*[f"X{number}: a" for number in range(64)]), 431, "HEADERS_TOO_LARGE"),
}

# Chunked bodies that are refused; the request itself is one that reads its body.
CHUNKS: dict[str, bytes] = {
    "size 0x5": b"0x5\r\n01234\r\n0\r\n\r\n",
    "size +5": b"+5\r\n01234\r\n0\r\n\r\n",
    "size -5": b"-5\r\n01234\r\n0\r\n\r\n",
    "size 1_0": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "size in full-width digits": FULL_WIDTH_FIVE + b"\r\n01234\r\n0\r\n\r\n",
    "empty size": b"\r\n01234\r\n0\r\n\r\n",
    "size with a space before it": b" 5\r\n01234\r\n0\r\n\r\n",
    "size of 17 digits": b"0" * 16 + b"5\r\n01234\r\n0\r\n\r\n",
    "LF behind the size": b"5\n01234\r\n0\r\n\r\n",
    "LF behind the data": b"5\r\n01234\n0\r\n\r\n",
    "CR in the size's line": b"5\r;x\r\n01234\r\n0\r\n\r\n",
    "extension over 256 bytes": b"5;" + b"x" * 257 + b"\r\n01234\r\n0\r\n\r\n",
    "NUL in an extension": b"5;\0\r\n01234\r\n0\r\n\r\n",
    "wrong bytes behind a chunk": b"5\r\n01234XX0\r\n\r\n",
    "chunk longer than its size": b"5\r\n0123456\r\n0\r\n\r\n",
    "trailer without a colon": b"5\r\n01234\r\n0\r\nnothing\r\n\r\n",
    "trailer with a bare LF": b"5\r\n01234\r\n0\r\nX: a\n\r\n",
    "trailer folded": b"5\r\n01234\r\n0\r\nX: a\r\n b\r\n\r\n",
}

TRAVERSALS = (
    "/v2/../../etc/passwd",
    "/v2/a/../manifests/v1",
    "/v2/%2e%2e/manifests/v1",
    "/v2/a%2fb/manifests/v1",
    "/v2/a%00/manifests/v1",
    "/v2/a/manifests/%0d%0aSet-Cookie:x",
    "/v2/a%0d%0aSet-Cookie:x/manifests/v1",
    "/v2/a/blobs/..%2f..%2fvex.db",
    "/v2/a/blobs/sha256:../../vex.db",
    f"/v2/a/blobs/{digest_of(b'')}%0a",
    f"/v2/a/blobs/{digest_of(b'')}/",
    "/v2/a/manifests/v1%0a",
    "/v2/a/manifests/",
    "/v2//manifests/v1",
    f"/v2/{'a' * 256}/manifests/v1",
    "/v2/TEAM/manifests/v1",
    "//evil/v2/",
    "/\\evil",
    "/v2\\evil",
    "//evil",
    "/%2e%2e/",
    "/v2/%ff/manifests/v1",
    "/static/../vex.py",
    "/static/..%2f..%2fvex.py",
    "/v3/",
    "/v2/_catalog/",
)


class FramingCase(ServerTestCase):
    """Raw requests, and what must hold after each."""

    def send(self, listener: str, data: bytes) -> tuple[Answer, bytes]:
        """Send bytes with a well-formed request behind them; returns the first answer and what came after it until the
        server closed.
        """
        with connected(self.server.addresses[listener]) as wire:
            wire.send(data + head(line=f"GET {TARGETS[listener]} HTTP/1.1"))
            answer = wire.answer()
            wire.end()
            return answer, wire.rest()

    def assert_refused(self, listener: str, data: bytes, status: int = 400, code: str = "BAD_REQUEST") -> None:
        answer, rest = self.send(listener, data)
        self.assert_error(answer, status, code)
        self.assertEqual(answer.headers["Connection"], "close")
        self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
        self.assertEqual(rest, b"", "what follows a refused request is no request")
        self.assert_plain(answer)
        self.assert_serving(listener)

    def assert_plain(self, answer: Answer) -> None:
        """Check that an error gives nothing of the server away."""
        for secret in (b"Traceback", b"SELECT", str(self.server.data).encode(), b"/vex/", b".py", b"Errno"):
            self.assertNotIn(secret, answer.body)

    def assert_serving(self, listener: str) -> None:
        with connected(self.server.addresses[listener]) as wire:
            wire.send(head(line=f"GET {TARGETS[listener]} HTTP/1.1"))
            self.assertEqual(wire.answer().status, 200)


class Heads(FramingCase):
    """Heads that are refused, on each listener."""

    def test_what_can_be_read_in_two_ways_is_400_and_the_connection_is_closed(self) -> None:
        for listener in LISTENERS:
            for name, data in HEADS.items():
                with self.subTest(listener=listener, name=name):
                    self.assert_refused(listener, data)

    def test_what_is_too_large_is_414_or_431(self) -> None:
        for listener in LISTENERS:
            for name, (data, status, code) in TOO_LARGE.items():
                with self.subTest(listener=listener, name=name):
                    self.assert_refused(listener, data, status, code)

    def test_later_versions_are_505(self) -> None:
        for listener in LISTENERS:
            for line in ("GET /v2/ HTTP/2.0", "GET /v2/ HTTP/3.0", "PRI * HTTP/2.0"):
                with self.subTest(listener=listener, line=line):
                    self.assert_refused(listener, head(line=line), 505, "VERSION_NOT_SUPPORTED")

    def test_a_request_of_http_0_9_is_not_answered_with_content(self) -> None:
        for listener in LISTENERS:
            self.assert_refused(listener, b"GET /v2/\r\n")

    def test_as_much_as_the_limits_allow_is_taken(self) -> None:
        line = "GET /v2/?x={} HTTP/1.1"
        for name, data in (
            ("request line", head(line=line.format("a" * (8192 - len(line) + 2)))),
            ("header fields", head(*[f"X{number}: a" for number in range(62)])),
            ("header bytes", head("X: " + "a" * (32768 - 200))),
        ):
            with self.subTest(name), connected(self.server.addresses["auth"]) as wire:
                wire.send(data)
                self.assertEqual(wire.answer().status, 200)

    def test_one_empty_line_before_a_request_is_tolerated(self) -> None:
        for listener in LISTENERS:
            with connected(self.server.addresses[listener]) as wire:
                for _ in range(2):
                    wire.send(b"\r\n" + head(line=f"GET {TARGETS[listener]} HTTP/1.1"))
                    self.assertEqual(wire.answer().status, 200)

    def test_names_of_fields_are_taken_in_any_case(self) -> None:
        with connected(self.server.addresses["auth"]) as wire:
            wire.send(f"GET /v2/ HTTP/1.1\r\nhOST:a\r\naUTHORIZATION:\t{basic()} \r\n\r\n".encode())
            self.assertEqual(wire.answer().status, 200)

    def test_methods_that_nobody_knows_are_refused_and_not_echoed(self) -> None:
        for listener in LISTENERS:
            for method in ("TRACE", "BREW", "get", "M-SEARCH"):
                with self.subTest(listener=listener, method=method), connected(self.server.addresses[listener]) as wire:
                    wire.send(head("X-Secret: mirror", line=f"{method} {TARGETS[listener]} HTTP/1.1"))
                    answer = wire.answer()
                    self.assertIn(answer.status, (405, 501))
                    for echo in (method.encode(), b"mirror"):
                        self.assertNotIn(echo, answer.body)


class Chunks(FramingCase):
    """Chunked bodies on the auth listener, the one that reads bodies."""

    def patch(self, body: bytes, *fields: str) -> bytes:
        answer = self.server.auth.request("POST", "/v2/chunks/blobs/uploads/")
        self.location = str(answer.headers["Location"])
        return head("Transfer-Encoding: chunked", *fields, line=f"PATCH {self.location} HTTP/1.1") + body

    def test_bodies_that_are_not_well_formed_are_400_and_leave_nothing(self) -> None:
        for name, body in CHUNKS.items():
            with self.subTest(name):
                self.assert_refused("auth", self.patch(body))
                self.assertEqual(self.server.auth.get(self.location).headers["Range"], "0-0")
                self.server.auth.request("DELETE", self.location)

    def test_too_many_or_too_large_trailers_are_431(self) -> None:
        many = b"".join(b"X%d: a\r\n" % number for number in range(100))
        for trailers in (many, b"X: " + b"a" * 33000 + b"\r\n"):
            self.assert_refused(
                "auth", self.patch(b"5\r\n01234\r\n0\r\n" + trailers + b"\r\n"), 431, "HEADERS_TOO_LARGE"
            )
            self.server.auth.request("DELETE", self.location)

    def test_bodies_that_are_well_formed_are_taken_whole(self) -> None:
        for name, body in {
            "one chunk": b"a\r\n0123456789\r\n0\r\n\r\n",
            "two chunks": b"5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n",
            "leading zeros": b"000000000000000A\r\n0123456789\r\n000\r\n\r\n",
            "extensions": b"a;x=y\r\n0123456789\r\n0;z\r\n\r\n",
            "trailers": b"a\r\n0123456789\r\n0\r\nX: a\r\nContent-Length: 5\r\n\r\n",
        }.items():
            with self.subTest(name), connected(self.server.addresses["auth"]) as wire:
                wire.send(self.patch(body) + head())
                answer = wire.answer()
                self.assertEqual((answer.status, answer.headers["Range"]), (202, "0-9"))
                self.assertEqual(wire.answer().status, 200, "the request behind the body")
                done = self.server.auth.request("PUT", f"{self.location}?digest={digest_of(b'0123456789')}", b"")
                self.assertEqual(done.status, 201)


class Targets(FramingCase):
    """Targets that lead nowhere."""

    def test_targets_outside_of_the_grammar_are_400_or_404(self) -> None:
        for listener in LISTENERS:
            for target in TRAVERSALS:
                with self.subTest(listener=listener, target=target), connected(self.server.addresses[listener]) as wire:
                    wire.send(head(line=f"GET {target} HTTP/1.1"))
                    answer = wire.answer()
                    self.assertIn(answer.status, (400, 404))
                    for field in ("Location", "Set-Cookie"):
                        self.assertNotIn(field, answer.headers)
                    self.assert_plain(answer)
                    self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
                    if target.startswith("/v2/") or listener != "public":
                        self.assertTrue(answer.codes)
                self.assert_serving(listener)

    def test_targets_outside_of_the_grammar_are_never_written_to(self) -> None:
        names = ("..", "../a", "%2e%2e", "A", "a%252fb", "a%2f%2fb", "a//b", "a" * 256)
        for target in (
            *(f"/v2/{name}/blobs/uploads/" for name in names),
            "//evil/v2/a/blobs/uploads/",
            "/v2/a/blobs/uploads/%2e%2e/",
        ):
            with self.subTest(target), connected(self.server.addresses["auth"]) as wire:
                wire.send(head("Content-Length: 0", line=f"POST {target} HTTP/1.1"))
                answer = wire.answer("POST")
                self.assertIn(answer.status, (400, 404, 405))
                self.assertNotIn("Location", answer.headers)

    def test_queries_that_are_not_well_formed_are_400_where_they_count(self) -> None:
        for query in ("last=%", "last=%zz", "last=%ff", "last=%00", "last=%0d%0aX:y", "&".join(["a=b"] * 1000)):
            with self.subTest(query[:20]):
                answer = self.server.public.get(f"/v2/_catalog?{query}")
                self.assertEqual(answer.status, 400)
                self.assert_plain(answer)


class Pipelines(FramingCase):
    """Several requests on one connection."""

    def test_requests_in_one_packet_are_answered_in_order(self) -> None:
        for listener, paths in (
            ("public", ("/v2/", "/v2/nothing/here", "/v2/_catalog")),
            ("internal", ("/healthz", "/nothing", "/readyz")),
        ):
            with connected(self.server.addresses[listener]) as wire:
                wire.send(b"".join(head(line=f"GET {path} HTTP/1.1") for path in paths))
                self.assertEqual([wire.answer().status for _ in paths], [200, 404, 200])

    def test_a_connection_is_kept_for_many_requests(self) -> None:
        with connected(self.server.addresses["auth"]) as wire:
            for _ in range(50):
                wire.send(head())
                answer = wire.answer()
                self.assertEqual(answer.status, 200)
                self.assertNotIn("Connection", answer.headers)

    def test_what_follows_a_body_is_the_next_request(self) -> None:
        push = (
            head("Content-Length: 5", line=f"POST /v2/next/blobs/uploads/?digest={digest_of(b'01234')} HTTP/1.1")
            + b"01234"
        )
        with connected(self.server.addresses["auth"]) as wire:
            wire.send(push + head() + push)
            self.assertEqual([wire.answer().status for _ in range(3)], [201, 200, 201])

    def test_the_unread_body_of_a_denied_request_is_never_taken_for_a_request(self) -> None:
        smuggled = head(line="DELETE /v2/next/manifests/v1 HTTP/1.1")
        for listener, credentials in (("public", True), ("auth", False), ("internal", True)):
            for framing, body in (
                (f"Content-Length: {len(smuggled)}", smuggled),
                ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(smuggled), smuggled)),
            ):
                with (
                    self.subTest(listener=listener, framing=framing),
                    connected(self.server.addresses[listener]) as wire,
                ):
                    first = head(framing, line="POST /v2/next/blobs/uploads/ HTTP/1.1")
                    first = first if credentials else first.replace(b"Authorization", b"X-Nothing")
                    wire.send(first + body + head(line=f"GET {TARGETS[listener]} HTTP/1.1"))
                    refused = wire.answer()
                    self.assertIn(refused.status, (401, 404, 405))
                    if refused.headers["Connection"] != "close":
                        self.assertEqual(wire.answer().status, 200)
                    wire.end()
                    self.assertEqual(wire.rest(), b"", "the body was taken for a request")

    def test_a_large_unread_body_closes_the_connection(self) -> None:
        with connected(self.server.addresses["public"]) as wire:
            wire.send(head("Content-Length: 1000000", line="PUT /v2/next/manifests/v1 HTTP/1.1"))
            answer = wire.answer()
            self.assertEqual((answer.status, answer.headers["Connection"]), (405, "close"))
            wire.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertEqual(wire.rest(), b"")

    def test_a_get_with_a_body_is_answered(self) -> None:
        smuggled = head(line="GET /v2/_catalog HTTP/1.1")
        for listener in LISTENERS:
            with self.subTest(listener), connected(self.server.addresses[listener]) as wire:
                wire.send(head(f"Content-Length: {len(smuggled)}", line=f"GET {TARGETS[listener]} HTTP/1.1") + smuggled)
                wire.send(head(line=f"GET {TARGETS[listener]} HTTP/1.1"))
                answer = wire.answer()
                self.assertEqual(answer.status, 200)
                if answer.headers["Connection"] != "close":
                    self.assertEqual(wire.answer().body, answer.body)
                wire.end()
                self.assertEqual(wire.rest(), b"")

    def test_close_is_honoured_in_any_company(self) -> None:
        for field in ("close", "Close", "foo, close", "close, foo", "keep-alive, close"):
            with self.subTest(field), connected(self.server.addresses["public"]) as wire:
                wire.send(head(f"Connection: {field}") + head())
                answer = wire.answer()
                self.assertEqual((answer.status, answer.headers["Connection"]), (200, "close"))
                self.assertEqual(wire.rest(), b"")

    def test_http_1_0_is_closed_unless_it_asks_to_be_kept(self) -> None:
        line = "GET /v2/ HTTP/1.0"
        with connected(self.server.addresses["public"]) as wire:
            wire.send(head(line=line, host="") + head())
            answer = wire.answer()
            self.assertEqual((answer.status, answer.headers["Connection"]), (200, "close"))
            self.assertEqual(wire.rest(), b"")
        with connected(self.server.addresses["public"]) as wire:
            for _ in range(2):
                wire.send(head("Connection: Keep-Alive", line=line))
                answer = wire.answer()
                self.assertEqual((answer.status, answer.headers["Connection"]), (200, "keep-alive"))

    def test_head_has_the_length_of_get_and_no_body(self) -> None:
        self.server.auth.push_image("head", "v1", b"layer")
        for listener, paths in (
            (
                "public",
                (
                    "/v2/",
                    "/v2/_catalog",
                    "/v2/head/manifests/v1",
                    f"/v2/head/blobs/{digest_of(b'layer')}",
                    "/v2/head/tags/list",
                    "/v2/head/nothing",
                ),
            ),
            ("internal", ("/healthz", "/readyz", "/nothing")),
        ):
            for path in paths:
                with self.subTest(path), connected(self.server.addresses[listener]) as wire:
                    wire.send(head(line=f"HEAD {path} HTTP/1.1") + head(line=f"GET {path} HTTP/1.1"))
                    answer, got = wire.answer("HEAD"), wire.answer()
                    self.assertEqual(answer.status, got.status)
                    self.assertEqual(answer.headers["Content-Length"], str(len(got.body)))

    def test_answers_without_a_body_have_no_length(self) -> None:
        with connected(self.server.addresses["public"]) as wire:
            wire.send(head(line="OPTIONS /v2/ HTTP/1.1") + head())
            answer = wire.answer()
            self.assertEqual((answer.status, answer.headers["Content-Length"]), (204, None))
            self.assertEqual(json.loads(wire.answer().body), {})


class Continue(FramingCase):
    """Expect: 100-continue: who asks, how much and where to is checked first (curl, for larger bodies)."""

    flags = ("--blob-limit", "10")

    def begin(self) -> str:
        return str(self.server.auth.request("POST", "/v2/expect/blobs/uploads/").headers["Location"])

    def test_100_comes_before_the_body_and_the_answer_after_it(self) -> None:
        with connected(self.server.addresses["auth"]) as wire:
            wire.send(head("Content-Length: 5", "Expect: 100-continue", line=f"PATCH {self.begin()} HTTP/1.1"))
            self.assertEqual(wire.answer().status, 100)
            wire.send(b"01234")
            self.assertEqual(wire.answer().status, 202)
            wire.send(head())
            self.assertEqual(wire.answer().status, 200)

    def test_100_comes_for_chunks_too(self) -> None:
        with connected(self.server.addresses["auth"]) as wire:
            wire.send(head("Transfer-Encoding: chunked", "Expect: 100-Continue", line=f"PATCH {self.begin()} HTTP/1.1"))
            self.assertEqual(wire.answer().status, 100)
            wire.send(b"5\r\n01234\r\n0\r\n\r\n")
            self.assertEqual(wire.answer().status, 202)

    def test_what_is_refused_is_refused_without_100_and_closed(self) -> None:
        location = self.begin()
        nobody = head("Content-Length: 5", "Expect: 100-continue", line=f"PATCH {location} HTTP/1.1").replace(
            b"Authorization", b"X-Nothing"
        )
        for name, listener, request, status in (
            ("no credentials", "auth", nobody, 401),
            (
                "too large",
                "auth",
                head("Content-Length: 11", "Expect: 100-continue", line=f"PATCH {location} HTTP/1.1"),
                413,
            ),
            (
                "no such session",
                "auth",
                head("Content-Length: 5", "Expect: 100-continue", line="PATCH /v2/expect/blobs/uploads/0 HTTP/1.1"),
                404,
            ),
            (
                "read-only",
                "public",
                head("Content-Length: 5", "Expect: 100-continue", line="PUT /v2/expect/manifests/v1 HTTP/1.1"),
                405,
            ),
            (
                "other digest",
                "auth",
                head("Content-Length: 5", "Expect: 100-continue", line=f"PUT {location}?digest=md5:00 HTTP/1.1"),
                400,
            ),
        ):
            with self.subTest(name), connected(self.server.addresses[listener]) as wire:
                wire.send(request)
                answer = wire.answer()
                self.assertEqual((answer.status, answer.headers["Connection"]), (status, "close"))
                wire.end()
                self.assertEqual(wire.rest(), b"")

    def test_a_body_that_comes_at_once_is_taken_without_waiting(self) -> None:
        with connected(self.server.addresses["auth"]) as wire:
            wire.send(
                head("Content-Length: 5", "Expect: 100-continue", line=f"PATCH {self.begin()} HTTP/1.1") + b"01234"
            )
            answer = wire.answer()
            answer = wire.answer() if answer.status == 100 else answer
            self.assertEqual(answer.status, 202)

    def test_http_1_0_and_requests_without_a_body_get_no_100(self) -> None:
        for request in (
            head("Expect: 100-continue"),
            head("Content-Length: 0", "Expect: 100-continue"),
            head("Content-Length: 5", "Expect: 100-continue", line=f"PATCH {self.begin()} HTTP/1.0") + b"01234",
        ):
            with connected(self.server.addresses["auth"]) as wire:
                wire.send(request)
                self.assertIn(wire.answer().status, (200, 202))


class Deadlines(FramingCase):
    """Clients that say nothing, or not enough."""

    flags = ("--head-timeout", "0.3s", "--idle-timeout", "0.3s", "--stall-timeout", "0.3s", "--upload-timeout", "0.3s")

    def test_half_a_head_is_408(self) -> None:
        for data in (b"GET", head()[:-2]):
            with self.subTest(data[:3]), connected(self.server.addresses["public"]) as wire:
                wire.send(data)
                self.assert_error(wire.answer(), 408, "REQUEST_TIMEOUT")
                self.assertEqual(wire.rest(), b"")

    def test_a_connection_that_idles_is_closed_in_silence(self) -> None:
        with connected(self.server.addresses["public"]) as wire:
            wire.send(head())
            self.assertEqual(wire.answer().status, 200)
            self.assertEqual(wire.rest(), b"")

    def test_a_body_that_stalls_is_408_and_the_session_stays(self) -> None:
        location = str(self.server.auth.request("POST", "/v2/stall/blobs/uploads/").headers["Location"])
        with connected(self.server.addresses["auth"]) as wire:
            wire.send(head("Content-Length: 10", line=f"PATCH {location} HTTP/1.1") + b"01234")
            self.assert_error(wire.answer(), 408, "REQUEST_TIMEOUT")
            self.assertEqual(wire.rest(), b"")
        self.assertEqual(self.server.auth.get(location).headers["Range"], "0-4")
        self.assertGreaterEqual(self.server.metric('vex_connections_ended_total{listener="auth",reason="stall"}'), 1)


class Crowds(FramingCase):
    """More connections than a listener takes."""

    flags = ("--public-connections", "2")

    def test_idle_connections_make_room_for_new_ones(self) -> None:
        with connected(self.server.addresses["public"]) as first, connected(self.server.addresses["public"]) as second:
            for wire in (first, second):
                wire.send(head())
                self.assertEqual(wire.answer().status, 200)
            self.assert_serving("public")
            self.assertEqual(self.server.internal.get("/healthz").status, 200)
