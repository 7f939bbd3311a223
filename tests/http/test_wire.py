"""Bytes and HTTP/1.1: RFC 9112, and stricter where two readers could disagree about where a request ends.

Each head and each body is fed whole, byte by byte, and with bytes behind it.
"""

from __future__ import annotations

import unittest
from collections.abc import Iterable
from typing import Any

from vex.errors import (
    BAD_REQUEST,
    HEADERS_TOO_LARGE,
    URI_TOO_LONG,
    VERSION_NOT_SUPPORTED,
    Disconnected,
    Kind,
    MalformedRequest,
)
from vex.http.bodies import Body, ChunkedBody, Input, NoBody, SizedBody, body_of
from vex.http.heads import Head, HeadLimits, encode_head, head_end, parse_head

LIMITS = HeadLimits()
BEHIND = b"GET /v2/ HTTP/1.1\r\nHost: next\r\n\r\n"
ENDLESS_BYTES = 64 * 1024
FULL_WIDTH_FIVE = "\uff15".encode()


class Incomplete(Exception):
    """All bytes were given, and more were wanted."""


def read_head(pieces: Iterable[bytes], limits: HeadLimits = LIMITS) -> tuple[Head, bytes]:
    """Read a head as a connection does; returns what was given behind it."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        end = head_end(buffer, limits)
        if end >= 0:
            return parse_head(bytes(buffer[:end]), limits), bytes(buffer[end:])
    raise Incomplete


def single_bytes(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def head_of(*fields: str, line: str = "GET /v2/ HTTP/1.1", host: str = "Host: registry.example") -> bytes:
    """Write a head; with an empty `host`, one without Host."""
    lines = [line, *([host] if host else []), *fields]
    return "".join(f"{text}\r\n" for text in lines).encode("latin-1") + b"\r\n"


def head(*fields: str, line: str = "GET /v2/ HTTP/1.1", host: str = "Host: registry.example") -> Head:
    return read_head([head_of(*fields, line=line, host=host)])[0]


class Stream:
    """A peer that sends pieces, and then closes; counts the receives, and their sizes in bytes."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self.received: list[int] = []

    def recv_into(self, view: memoryview) -> int:
        if not self._pieces:
            return 0
        piece = self._pieces.pop(0)
        count = min(len(view), len(piece))
        view[:count] = piece[:count]
        if piece[count:]:
            self._pieces.insert(0, piece[count:])
        self.received.append(count)
        return count


def source_of(*pieces: bytes, buffered: bytes = b"") -> Input:
    return Input(Stream(*pieces).recv_into, buffered)


def read_body(body: Body, view_bytes: int = 4096) -> bytes:
    content = b""
    view = memoryview(bytearray(view_bytes))
    while count := body.read_into(view):
        content += view[:count]
    return content


def ways_to_feed(data: bytes) -> dict[str, Input]:
    """All of it at once, byte by byte, received together with the head, and half with the head."""
    return {
        "whole": source_of(data),
        "byte by byte": source_of(*single_bytes(data)),
        "behind the head": source_of(buffered=data),
        "half behind the head": source_of(data[len(data) // 2 :], buffered=data[: len(data) // 2]),
    }


class WireCase(unittest.TestCase):
    """Assertions about what is refused."""

    def assert_refused(self, kind: Kind, function: Any, *arguments: Any) -> None:
        with self.assertRaises(MalformedRequest) as caught:
            function(*arguments)
        self.assertEqual(caught.exception.kind, kind)


VALID_HEADS: dict[str, tuple[bytes, dict[str, object]]] = {
    "get": (
        head_of(),
        {
            "method": "GET",
            "target": "/v2/",
            "minor": 1,
            "length": None,
            "chunked": False,
            "keep_alive": True,
            "has_body": False,
        },
    ),
    "query": (head_of(line="GET /v2/_catalog?n=10&last=a%2Fb HTTP/1.1"), {"target": "/v2/_catalog?n=10&last=a%2Fb"}),
    "absolute-form": (head_of(line="GET http://registry.example/v2/?n=1 HTTP/1.1"), {"target": "/v2/?n=1"}),
    "absolute-form in capitals, with a port": (
        head_of(line="GET HTTPS://A.B:8200/v2/ HTTP/1.1", host="Host: a.b:8200"),
        {"target": "/v2/"},
    ),
    "absolute-form without a path": (head_of(line="GET http://registry.example HTTP/1.1"), {"target": "/"}),
    "absolute-form of an IPv6 address": (
        head_of(line="GET http://[::1]:8200/ HTTP/1.1", host="Host: [::1]:8200"),
        {"target": "/"},
    ),
    "one empty line before it": (b"\r\n" + head_of(), {"method": "GET", "target": "/v2/"}),
    "target of every visible character": (
        head_of(line='GET /%00..//\\"<>^`{|}~#? HTTP/1.1'),
        {"target": '/%00..//\\"<>^`{|}~#?'},
    ),
    "trace": (head_of(line="TRACE / HTTP/1.1"), {"method": "TRACE"}),
    "unknown method": (head_of(line="M-SEARCH / HTTP/1.1"), {"method": "M-SEARCH"}),
    "method in lower case": (head_of(line="get / HTTP/1.1"), {"method": "get"}),
    "method of 32 characters": (head_of(line="A" * 32 + " / HTTP/1.1"), {"method": "A" * 32}),
    "later minor version": (head_of(line="GET / HTTP/1.2"), {"minor": 1, "keep_alive": True}),
    "1.0 without Host": (head_of(line="GET / HTTP/1.0", host=""), {"minor": 0, "keep_alive": False}),
    "1.0 with Host": (head_of(line="GET / HTTP/1.0"), {"minor": 0}),
    "empty Host": (head_of(host="Host:"), {"method": "GET"}),
    "Host without a space": (head_of(host="Host:localhost:8200"), {"method": "GET"}),
    "Host with space around it": (head_of(host="Host: \t localhost:8200 \t "), {"method": "GET"}),
    "Host in capitals": (head_of(host="HOST: LOCALHOST"), {"method": "GET"}),
    "Host IPv6": (head_of(host="Host: [::1]:8200"), {"method": "GET"}),
    "length": (head_of("Content-Length: 5", line="PUT / HTTP/1.1"), {"length": 5, "chunked": False, "has_body": True}),
    "length 0": (head_of("content-length: 0"), {"length": 0, "has_body": False}),
    "length of 19 digits": (head_of("CONTENT-LENGTH: 9223372036854775807"), {"length": 2**63 - 1}),
    "length with leading zeros": (head_of("Content-Length: 0005"), {"length": 5}),
    "chunked": (
        head_of("Transfer-Encoding: chunked", line="PATCH / HTTP/1.1"),
        {"length": None, "chunked": True, "has_body": True},
    ),
    "chunked in capitals": (head_of("TRANSFER-ENCODING: Chunked"), {"chunked": True}),
    "close": (head_of("Connection: close"), {"keep_alive": False}),
    "close in capitals": (head_of("Connection: CLOSE"), {"keep_alive": False}),
    "close among others": (head_of("Connection: foo, close"), {"keep_alive": False}),
    "close on a second line": (head_of("Connection: foo", "Connection: close"), {"keep_alive": False}),
    "not quite close": (head_of("Connection: closed, disclose"), {"keep_alive": True}),
    "1.0 keep-alive": (head_of("Connection: Keep-Alive", line="GET / HTTP/1.0"), {"keep_alive": True}),
    "1.0 keep-alive and close": (
        head_of("Connection: keep-alive, close", line="GET / HTTP/1.0"),
        {"keep_alive": False},
    ),
    "continue": (head_of("Expect: 100-Continue", "Content-Length: 5"), {"expects_continue": True}),
    "continue before chunks": (
        head_of("Expect: 100-continue", "Transfer-Encoding: chunked"),
        {"expects_continue": True},
    ),
    "continue without a body": (head_of("Expect: 100-continue"), {"expects_continue": False}),
    "continue on 1.0": (
        head_of("Expect: 100-continue", "Content-Length: 5", line="PUT / HTTP/1.0"),
        {"expects_continue": False},
    ),
    "another expectation": (head_of("Expect: 200-ok", "Content-Length: 5"), {"expects_continue": False}),
    "no expectation": (head_of("Content-Length: 5"), {"expects_continue": False}),
    "names that only look like framing": (
        head_of("X-Content-Length: 7", "Content-Length-: 7", "X: Content-Length: 7"),
        {"length": None},
    ),
}

BAD_HEADS: dict[str, bytes] = {
    # Content-Length
    "two lengths": head_of("Content-Length: 5", "Content-Length: 5"),
    "two lengths that differ": head_of("Content-Length: 5", "Content-Length: 6"),
    "length list": head_of("Content-Length: 5,5"),
    "length +5": head_of("Content-Length: +5"),
    "length -1": head_of("Content-Length: -1"),
    "length -0": head_of("Content-Length: -0"),
    "length 1_0": head_of("Content-Length: 1_0"),
    "length 0x5": head_of("Content-Length: 0x5"),
    "length with a space in it": head_of("Content-Length: 1 0"),
    "length in full-width digits": head_of("Content-Length: ").replace(b"h: \r", b"h: " + FULL_WIDTH_FIVE + b"\r"),
    "length in superscript": head_of("Content-Length: \xb2"),
    "length with a vertical tab": head_of("Content-Length: 5\x0b"),
    "length with a no-break space": head_of("Content-Length: 5\xa0"),
    "length of 20 digits": head_of("Content-Length: 1" + "0" * 19),
    "length of 4301 digits": head_of("Content-Length: " + "1" * 4301),
    "empty length": head_of("Content-Length:"),
    # Transfer-Encoding
    "length and chunked": head_of("Content-Length: 5", "Transfer-Encoding: chunked"),
    "chunked and length": head_of("Transfer-Encoding: chunked", "Content-Length: 0"),
    "gzip, chunked": head_of("Transfer-Encoding: gzip, chunked"),
    "chunked, chunked": head_of("Transfer-Encoding: chunked, chunked"),
    "chunked twice": head_of("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "identity": head_of("Transfer-Encoding: identity"),
    "xchunked": head_of("Transfer-Encoding: xchunked"),
    "chunked with a parameter": head_of("Transfer-Encoding: chunked;q=1"),
    "chunked with a vertical tab": head_of("Transfer-Encoding: \x0bchunked"),
    "empty coding": head_of("Transfer-Encoding:"),
    "chunked on 1.0": head_of("Transfer-Encoding: chunked", line="PUT / HTTP/1.0"),
    # field lines
    "bare CR in a value": head_of("X: a\rb"),
    "bare LF in a value": head_of("X: a\nContent-Length: 5"),
    "bare CR in a name": head_of("X\r: a"),
    "NUL in a value": head_of("X: a\0b"),
    "NUL in a name": head_of("X\0: a"),
    "escape in a value": head_of("X: \x1b[0m"),
    "DEL in a value": head_of("X: \x7f"),
    "folded line": head_of("X: a", " b"),
    "folded with a tab": head_of("X: a", "\tb"),
    "space before the first field": head_of(host=" Host: x"),
    "space before the colon": head_of("Content-Length : 5"),
    "tab before the colon": head_of("Content-Length\t: 5"),
    "no colon": head_of("Content-Length"),
    "no name": head_of(": 5"),
    "space in a name": head_of("Content Length: 5"),
    "non-ASCII name": head_of("X\xe9: 5"),
    "no Host": head_of(host=""),
    "two Hosts": head_of("Host: registry.example"),
    "two Hosts that differ": head_of("host: b"),
    "two Hosts on 1.0": head_of("Host: b", line="GET / HTTP/1.0"),
    "Host list": head_of(host="Host: a, b"),
    "Host with a path": head_of(host="Host: a/b"),
    "Host with a user": head_of(host="Host: user@a"),
    "Host with a port that is no number": head_of(host="Host: [::1]:http"),
    # request lines
    "leading space": b" " + head_of(),
    "leading tab": b"\t" + head_of(),
    "leading LF": b"\n" + head_of(),
    "leading CR": b"\r" + head_of(),
    "two empty lines before it": b"\r\n\r\n" + head_of(),
    "tabs between the parts": head_of(line="GET\t/v2/\tHTTP/1.1"),
    "two spaces after the method": head_of(line="GET  /v2/ HTTP/1.1"),
    "two spaces before the version": head_of(line="GET /v2/  HTTP/1.1"),
    "trailing space": head_of(line="GET /v2/ HTTP/1.1 "),
    "space in the target": head_of(line="GET /v2/ x HTTP/1.1"),
    "no method": head_of(line="/v2/ HTTP/1.1"),
    "method of 33 characters": head_of(line="A" * 33 + " / HTTP/1.1"),
    "method that is no token": head_of(line="G(T / HTTP/1.1"),
    "no target": head_of(line="GET HTTP/1.1"),
    "absolute-form of another host": head_of(line="GET http://evil/v2/ HTTP/1.1"),
    "absolute-form of another port": head_of(line="GET http://registry.example:1/v2/ HTTP/1.1"),
    "absolute-form with a user": head_of(line="GET http://a@registry.example/v2/ HTTP/1.1"),
    "absolute-form without Host": head_of(line="GET http://registry.example/v2/ HTTP/1.0", host=""),
    "absolute-form with a query alone": head_of(line="GET http://registry.example?n=1 HTTP/1.1"),
    "absolute-form of nobody": head_of(line="GET http:///v2/ HTTP/1.1", host="Host:"),
    "absolute-form of another scheme": head_of(line="GET ftp://registry.example/v2/ HTTP/1.1"),
    "authority-form": head_of(line="CONNECT evil:443 HTTP/1.1"),
    "asterisk-form": head_of(line="OPTIONS * HTTP/1.1"),
    "relative target": head_of(line="GET v2/ HTTP/1.1"),
    "raw UTF-8 in the target": head_of(line="GET /\xc3\xa9 HTTP/1.1"),
    "NUL in the target": head_of(line="GET /\0 HTTP/1.1"),
    "DEL in the target": head_of(line="GET /\x7f HTTP/1.1"),
    "bare CR in the target": head_of(line="GET /\r HTTP/1.1"),
    "no version": head_of(line="GET /"),
    "version 0.9": head_of(line="GET / HTTP/0.9"),
    "version 1.1_1": head_of(line="GET / HTTP/1.1_1"),
    "version +1.+1": head_of(line="GET / HTTP/+1.+1"),
    "version 1.\xb2": head_of(line="GET / HTTP/1.\xb2"),
    "version 11": head_of(line="GET / HTTP/11"),
    "version 1": head_of(line="GET / HTTP/1"),
    "version 1.": head_of(line="GET / HTTP/1."),
    "version 1.10": head_of(line="GET / HTTP/1.10"),
    "version 01.1": head_of(line="GET / HTTP/01.1"),
    "version in lower case": head_of(line="GET / http/1.1"),
    "another protocol": head_of(line="GET / ICAP/1.1"),
}

# What a client may send and then wait for an answer, without ever sending CR LF CR LF.
BAD_BEGINNINGS: dict[str, bytes] = {
    "HTTP/0.9": b"GET /\r\n",
    "HTTP/0.9 with LF": b"GET /\n",
    "LF line ends": b"GET / HTTP/1.1\nHost: a\n\n",
    "LF line ends after the first": b"GET / HTTP/1.1\r\nHost: a\n\n",
    "LF behind a good line": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a word": b"EHLO\r\n",
}


class HeadTest(WireCase):
    def test_valid_heads_are_understood_however_they_arrive(self) -> None:
        for name, (data, expected) in VALID_HEADS.items():
            ways = {
                "whole": ([data], b""),
                "byte by byte": (single_bytes(data), b""),
                "with bytes behind it": ([data + BEHIND], BEHIND),
            }
            for way, (pieces, rest) in ways.items():
                with self.subTest(name, way=way):
                    parsed, behind = read_head(pieces)
                    self.assertEqual({field: getattr(parsed, field) for field in expected}, expected)
                    self.assertEqual(behind, rest)

    def test_malformed_heads_are_refused_however_they_arrive(self) -> None:
        for name, data in BAD_HEADS.items():
            for way, pieces in {
                "whole": [data],
                "byte by byte": single_bytes(data),
                "with bytes behind it": [data + BEHIND],
            }.items():
                with self.subTest(name, way=way):
                    self.assert_refused(BAD_REQUEST, read_head, pieces)

    def test_no_beginning_of_a_valid_head_is_refused(self) -> None:
        for name, (data, _) in VALID_HEADS.items():
            for size in range(len(data)):
                with self.subTest(name, size=size):
                    self.assertEqual(head_end(bytearray(data[:size]), LIMITS), -1)

    def test_what_waits_for_an_answer_without_a_whole_head_is_refused(self) -> None:
        for name, data in BAD_BEGINNINGS.items():
            for way, pieces in {"whole": [data], "byte by byte": single_bytes(data)}.items():
                with self.subTest(name, way=way):
                    self.assert_refused(BAD_REQUEST, read_head, pieces)

    def test_later_major_versions_are_not_supported(self) -> None:
        for data in (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            head_of(line="GET / HTTP/2.0"),
            head_of(line="GET / HTTP/3.1"),
        ):
            with self.subTest(data):
                self.assert_refused(VERSION_NOT_SUPPORTED, read_head, [data])

    def test_pipelined_heads_are_found_one_after_another(self) -> None:
        first, rest = read_head([head_of(line="GET /a HTTP/1.1") + head_of(line="GET /b HTTP/1.1") + b"GET /c"])
        second, rest = read_head([rest])
        self.assertEqual((first.target, second.target, rest), ("/a", "/b", b"GET /c"))

    def test_nothing_of_the_request_is_repeated_in_the_error(self) -> None:
        for data in (
            head_of("<script>alert(1)"),
            head_of(line="<script> / HTTP/1.1"),
            head_of("Content-Length: <script>"),
        ):
            with self.subTest(data), self.assertRaises(MalformedRequest) as caught:
                read_head([data])
            self.assertNotIn("script", caught.exception.message)


class FieldTest(WireCase):
    def test_a_field_is_found_by_its_name_in_lower_case(self) -> None:
        parsed = head("ACCEPT: text/HTML", "X-Empty:", "Last:z")
        found = {name: parsed.get(name) for name in ("accept", "x-empty", "last", "host")}
        self.assertEqual(found, {"accept": "text/HTML", "x-empty": "", "last": "z", "host": "registry.example"})

    def test_a_field_that_is_not_there_is_none(self) -> None:
        parsed = head("X-Range: bytes=0-1", "Range-X: 1", "X: Range: 1", line="GET /Range:1 HTTP/1.1")
        self.assertIsNone(parsed.get("range"))

    def test_space_around_a_value_is_not_part_of_it(self) -> None:
        self.assertEqual(head("Range: \t bytes=0-1 \t ").get("range"), "bytes=0-1")

    def test_lines_of_one_name_are_joined_in_their_order(self) -> None:
        self.assertEqual(head("Accept: a", "X: y", "accept: b, c", "ACCEPT:d").get("accept"), "a, b, c, d")

    def test_bytes_beyond_ascii_in_values_are_latin_1(self) -> None:
        self.assertEqual(head("X: caf\xe9\x80\xff").get("x"), "caf\xe9\x80\xff")


class HeadLimitsTest(WireCase):
    def assert_limit(self, kind: Kind, within: bytes, past: bytes, limits: HeadLimits) -> None:
        """The first is taken; the second refused, whole and byte by byte."""
        for pieces in ([within], single_bytes(within)):
            self.assertEqual(read_head(pieces, limits)[0].method, "GET")
        for pieces in ([past], single_bytes(past)):
            self.assert_refused(kind, read_head, pieces, limits)

    def test_a_request_line_past_the_limit_is_too_long(self) -> None:
        line = "GET /aaaaa HTTP/1.1"
        self.assert_limit(
            URI_TOO_LONG,
            head_of(line=line),
            head_of(line=line.replace("/", "/a", 1)),
            HeadLimits(request_line=len(line)),
        )

    def test_header_bytes_past_the_limit_are_too_large(self) -> None:
        within, past = head_of("X: aaa"), head_of("X: aaaa")
        self.assert_limit(
            HEADERS_TOO_LARGE, within, past, HeadLimits(header_bytes=len("Host: registry.example\r\nX: aaa\r\n"))
        )

    def test_more_fields_than_the_limit_are_too_many(self) -> None:
        self.assert_limit(
            HEADERS_TOO_LARGE, head_of("A: 1", "B: 2"), head_of("A: 1", "B: 2", "C: 3"), HeadLimits(fields=3)
        )

    def test_too_many_fields_are_refused_before_the_head_ends(self) -> None:
        begun = bytearray(head_of("A: 1", "B: 2", "C: 3").rstrip() + b"\r\n")
        self.assertEqual(head_end(begun, HeadLimits(fields=4)), -1)
        self.assert_refused(HEADERS_TOO_LARGE, head_end, begun, HeadLimits(fields=3))

    def test_the_limits_are_8_kib_64_fields_and_32_kib(self) -> None:
        self.assertEqual(LIMITS, (8192, 64, 32768))

    def test_a_head_without_end_is_refused_before_it_fills_the_memory(self) -> None:
        lines = b"GET / HTTP/1.1\r\n"
        endless = {
            "method": (BAD_REQUEST, b"A" * ENDLESS_BYTES),
            "target": (URI_TOO_LONG, b"GET /" + b"a" * ENDLESS_BYTES),
            "name": (HEADERS_TOO_LARGE, lines + b"a" * ENDLESS_BYTES),
            "value": (HEADERS_TOO_LARGE, lines + b"a:" + b"a" * ENDLESS_BYTES),
            "lines": (HEADERS_TOO_LARGE, lines + b"a:a\r\n" * (ENDLESS_BYTES // 5)),
        }
        for name, (kind, data) in endless.items():
            with self.subTest(name):
                self.assert_refused(kind, read_head, [data[at : at + 1000] for at in range(0, len(data), 1000)])

    def test_a_long_line_that_is_also_malformed_is_too_long(self) -> None:
        self.assert_refused(URI_TOO_LONG, read_head, [head_of(line="GET http://" + "a" * 9000 + " HTTP/1.1")])


class InputTest(WireCase):
    def test_buffered_bytes_come_before_received_ones(self) -> None:
        source = source_of(b"cd", buffered=b"ab")
        view = memoryview(bytearray(3))
        pieces = [bytes(view[: source.read_into(view)]) for _ in range(3)]
        self.assertEqual(pieces, [b"ab", b"cd", b""])

    def test_large_reads_go_straight_into_the_view(self) -> None:
        stream = Stream(b"x" * 1_000_000)
        source = Input(stream.recv_into)
        self.assertEqual(source.read_into(memoryview(bytearray(300_000))), 300_000)
        self.assertEqual((stream.received, source.rest()), ([300_000], b""))

    def test_lines_and_bytes_can_be_read_in_turn(self) -> None:
        for pieces in ([b"one\r\ntwo\r\nthree"], single_bytes(b"one\r\ntwo\r\nthree")):
            source = source_of(*pieces)
            view = memoryview(bytearray(1))
            self.assertEqual(
                (source.read_line(10), source.read_into(view), bytes(view), source.read_line(4)),
                (b"one\r\n", 1, b"t", b"wo\r\n"),
            )

    def test_what_was_not_read_is_the_rest(self) -> None:
        source = source_of(b"one\r\ntwo")
        self.assertEqual(source.rest(), b"")
        source.read_line(10)
        self.assertEqual((source.rest(), source.rest()), (b"two", b"two"))

    def test_a_line_may_be_as_long_as_the_limit(self) -> None:
        for pieces in ([b"abc\r\n"], single_bytes(b"abc\r\n")):
            self.assertEqual(source_of(*pieces).read_line(5), b"abc\r\n")
            self.assert_refused(BAD_REQUEST, source_of(*pieces).read_line, 4)

    def test_a_line_past_the_limit_is_refused_before_its_end_comes(self) -> None:
        self.assert_refused(HEADERS_TOO_LARGE, source_of(b"abcde").read_line, 5, HEADERS_TOO_LARGE)

    def test_bare_line_ends_are_refused(self) -> None:
        for data in (b"a\n", b"\n", b"a\rb\r\n", b"a\r\r\n", b"\r\r\n", b"a\n\r\n"):
            for pieces in ([data], single_bytes(data)):
                with self.subTest(data, pieces=len(pieces)):
                    self.assert_refused(BAD_REQUEST, source_of(*pieces).read_line, 10)

    def test_a_stream_that_ends_within_a_line_is_a_disconnection(self) -> None:
        for data in (b"", b"a", b"a\r"):
            with self.subTest(data), self.assertRaises(Disconnected):
                source_of(data).read_line(10)


class SizedBodyTest(WireCase):
    def test_a_sized_body_ends_at_its_length(self) -> None:
        for way, source in ways_to_feed(b"hello" + BEHIND).items():
            with self.subTest(way):
                body = SizedBody(source, 5)
                self.assertFalse(body.complete)
                self.assertEqual(read_body(body), b"hello")
                self.assertEqual((body.complete, body.received), (True, 5))

    def test_bytes_behind_it_are_left_for_the_next_request(self) -> None:
        source = source_of(buffered=b"hello" + BEHIND)
        read_body(SizedBody(source, 5), view_bytes=3)
        self.assertEqual(source.rest(), BEHIND)

    def test_bytes_behind_it_are_not_even_received(self) -> None:
        stream = Stream(b"hello" + BEHIND)
        read_body(SizedBody(Input(stream.recv_into), 5))
        self.assertEqual(sum(stream.received), 5)

    def test_a_body_is_complete_as_soon_as_its_last_byte_was_read(self) -> None:
        body = SizedBody(source_of(b"ab", b"cd"), 4)
        view = memoryview(bytearray(10))
        states = [(body.read_into(view), body.complete, body.received) for _ in range(3)]
        self.assertEqual(states, [(2, False, 2), (2, True, 4), (0, True, 4)])

    def test_a_stream_that_ends_early_is_a_disconnection(self) -> None:
        for name, source in {
            "in a piece": source_of(b"hell"),
            "at once": source_of(),
            "behind the head": source_of(buffered=b"h"),
        }.items():
            body = SizedBody(source, 5)
            with self.subTest(name), self.assertRaises(Disconnected):
                read_body(body)
            self.assertFalse(body.complete)

    def test_a_body_of_no_bytes_is_complete_at_once(self) -> None:
        body = SizedBody(source_of(BEHIND), 0)
        self.assertEqual((body.complete, read_body(body), body.received), (True, b"", 0))


VALID_CHUNKS: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"0\r\n\r\n", b""),
    "one chunk": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "several chunks": (b"5\r\nhello\r\n1\r\n,\r\n6\r\n world\r\n0\r\n\r\n", b"hello, world"),
    "hex in both cases": (b"a\r\n0123456789\r\nB\r\n0123456789x\r\n0\r\n\r\n", b"01234567890123456789x"),
    "leading zeros": (b"0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n", b"hello"),
    "content that looks like chunks": (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    "extension": (b"5;a=b\r\nhello\r\n0;last\r\n\r\n", b"hello"),
    "extension with quotes": (b'5 ; a="x y;\t\xff"\r\nhello\r\n0\r\n\r\n', b"hello"),
    "extension of 256 bytes": (b"5;" + b"a" * 255 + b"\r\nhello\r\n0\r\n\r\n", b"hello"),
    "longest size and extension": (b"0000000000000005;" + b"a" * 255 + b"\r\nhello\r\n0\r\n\r\n", b"hello"),
    "trailers": (b"5\r\nhello\r\n0\r\nDigest: x\r\nContent-Length: 99\r\n\r\n", b"hello"),
    "64 trailers": (b"5\r\nhello\r\n0\r\n" + b"a: b\r\n" * 64 + b"\r\n", b"hello"),
    "32 KiB of trailers": (b"5\r\nhello\r\n0\r\na:" + b"b" * (32768 - 4) + b"\r\n\r\n", b"hello"),
}

BAD_CHUNKS: dict[str, tuple[Kind, bytes]] = {
    name: (BAD_REQUEST, data)
    for name, data in {
        "size 0x5": b"0x5\r\nhello\r\n0\r\n\r\n",
        "size +5": b"+5\r\nhello\r\n0\r\n\r\n",
        "size -5": b"-5\r\nhello\r\n0\r\n\r\n",
        "size 0_5": b"0_5\r\nhello\r\n0\r\n\r\n",
        "size with a space before it": b" 5\r\nhello\r\n0\r\n\r\n",
        "size with a space behind it": b"5 \r\nhello\r\n0\r\n\r\n",
        "empty size": b"\r\nhello\r\n0\r\n\r\n",
        "only an extension": b";a=b\r\nhello\r\n0\r\n\r\n",
        "size that is no number": b"g\r\nhello\r\n0\r\n\r\n",
        "size in full-width digits": FULL_WIDTH_FIVE + b"\r\nhello\r\n0\r\n\r\n",
        "size of 17 digits": b"0" * 16 + b"5\r\nhello\r\n0\r\n\r\n",
        "size without end": b"0" * 1000,
        "LF behind the size": b"5\nhello\r\n0\r\n\r\n",
        "CR within the size line": b"5\r;\r\nhello\r\n0\r\n\r\n",
        "LF behind the data": b"5\r\nhello\n0\r\n\r\n",
        "LF behind the last size": b"5\r\nhello\r\n0\n\r\n",
        "LF at the end": b"5\r\nhello\r\n0\r\n\n",
        "wrong bytes behind the data": b"5\r\nhelloXX0\r\n\r\n",
        "more data than the size": b"5\r\nhello!\r\n0\r\n\r\n",
        "less data than the size": b"7\r\nhello\r\n0\r\n\r\n",
        "extension of 257 bytes": b"5;" + b"a" * 256 + b"\r\nhello\r\n0\r\n\r\n",
        "extension without end": b"5;" + b"a" * 1000,
        "NUL in an extension": b"5;\0\r\nhello\r\n0\r\n\r\n",
        "trailer without a colon": b"0\r\nX\r\n\r\n",
        "trailer with a space before the colon": b"0\r\nX : y\r\n\r\n",
        "trailer that is folded": b"0\r\nX: y\r\n z\r\n\r\n",
        "trailer with NUL": b"0\r\nX: \0\r\n\r\n",
        "trailer with LF": b"0\r\nX: y\n\r\n",
        "request behind a missing end": b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    }.items()
}
BAD_CHUNKS["65 trailers"] = HEADERS_TOO_LARGE, b"0\r\n" + b"a: b\r\n" * 65 + b"\r\n"
BAD_CHUNKS["over 32 KiB of trailers"] = HEADERS_TOO_LARGE, b"0\r\na:" + b"b" * (32768 - 3) + b"\r\n\r\n"
BAD_CHUNKS["over 32 KiB in two trailers"] = HEADERS_TOO_LARGE, b"0\r\n" + (b"a:" + b"b" * 16384 + b"\r\n") * 2 + b"\r\n"


class ChunkedBodyTest(WireCase):
    def test_valid_chunks_are_decoded_however_they_arrive(self) -> None:
        for name, (data, content) in VALID_CHUNKS.items():
            for way, source in ways_to_feed(data).items():
                with self.subTest(name, way=way):
                    body = ChunkedBody(source)
                    self.assertEqual(read_body(body), content)
                    self.assertEqual((body.complete, body.received, source.rest()), (True, len(content), b""))

    def test_bytes_behind_the_last_chunk_are_left_for_the_next_request(self) -> None:
        for name, (data, content) in VALID_CHUNKS.items():
            for way, source in {
                "received": source_of(data + BEHIND),
                "behind the head": source_of(buffered=data + BEHIND),
            }.items():
                with self.subTest(name, way=way):
                    self.assertEqual((read_body(ChunkedBody(source), view_bytes=3), source.rest()), (content, BEHIND))

    def test_malformed_chunks_are_refused_however_they_arrive(self) -> None:
        for name, (kind, data) in BAD_CHUNKS.items():
            for way, source in ways_to_feed(data).items():
                with self.subTest(name, way=way):
                    body = ChunkedBody(source)
                    self.assert_refused(kind, read_body, body)
                    self.assertFalse(body.complete)

    def test_after_a_malformed_chunk_nothing_more_is_read(self) -> None:
        body = ChunkedBody(source_of(b"zz\r\n5\r\nhello\r\n0\r\n\r\n"))
        for _ in range(3):
            self.assert_refused(BAD_REQUEST, read_body, body)
        self.assertEqual((body.complete, body.received), (False, 0))

    def test_no_beginning_of_a_chunked_body_is_complete(self) -> None:
        for name in ("several chunks", "extension", "trailers"):
            data = VALID_CHUNKS[name][0]
            for size in range(len(data)):
                body = ChunkedBody(source_of(data[:size]))
                with self.subTest(name, size=size), self.assertRaises(Disconnected):
                    read_body(body)
                self.assertFalse(body.complete)

    def test_data_that_came_before_a_disconnection_is_given_out(self) -> None:
        body = ChunkedBody(source_of(b"5\r\nhello"))
        view = memoryview(bytearray(10))
        self.assertEqual((body.read_into(view), bytes(view[:5])), (5, b"hello"))
        self.assertRaises(Disconnected, body.read_into, view)

    def test_large_chunks_are_received_straight_into_the_view(self) -> None:
        stream = Stream(b"f4240\r\n", b"x" * 1_000_000, b"\r\n0\r\n\r\n")
        body = ChunkedBody(Input(stream.recv_into))
        self.assertEqual(body.read_into(memoryview(bytearray(2_000_000))), 1_000_000)
        self.assertEqual(stream.received, [7, 1_000_000])

    def test_a_size_of_16_digits_is_read_as_far_as_there_is_data(self) -> None:
        body = ChunkedBody(source_of(b"ffffffffffffffff\r\nhello"))
        self.assertEqual(body.read_into(memoryview(bytearray(10))), 5)
        self.assertEqual((body.complete, body.received), (False, 5))


class BodyOfTest(WireCase):
    def test_the_head_decides_how_the_body_is_framed(self) -> None:
        cases = {
            "no length": (head(), NoBody, b""),
            "length 0": (head("Content-Length: 0"), NoBody, b""),
            "length": (head("Content-Length: 3"), SizedBody, b"5\r\n"),
            "chunked": (head("Transfer-Encoding: chunked"), ChunkedBody, b"hello"),
        }
        for name, (parsed, framing, content) in cases.items():
            with self.subTest(name):
                body = body_of(parsed, source_of(b"5\r\nhello\r\n0\r\n\r\n"))
                self.assertIs(type(body), framing)
                self.assertEqual((read_body(body), body.complete, body.received), (content, True, len(content)))

    def test_without_a_body_all_that_was_received_is_the_next_request(self) -> None:
        source = source_of(buffered=BEHIND)
        body = body_of(head(), source)
        self.assertTrue(body.complete)
        self.assertEqual((read_body(body), source.rest()), (b"", BEHIND))


class EncodeHeadTest(unittest.TestCase):
    def test_a_head_is_a_status_line_and_the_fields_in_order(self) -> None:
        encoded = encode_head(200, [("Content-Type", "text/plain"), ("Link", "<a>"), ("Link", "<b>"), ("X", "caf\xe9")])
        self.assertEqual(
            encoded, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nLink: <a>\r\nLink: <b>\r\nX: caf\xe9\r\n\r\n"
        )

    def test_a_head_without_fields_is_a_status_line(self) -> None:
        self.assertEqual(encode_head(404, []), b"HTTP/1.1 404 Not Found\r\n\r\n")

    def test_every_status_of_the_error_table_can_be_written(self) -> None:
        for status in (
            200,
            201,
            202,
            204,
            206,
            301,
            304,
            400,
            401,
            403,
            404,
            405,
            408,
            413,
            414,
            416,
            429,
            431,
            500,
            501,
            503,
            505,
            507,
        ):
            with self.subTest(status):
                self.assertRegex(encode_head(status, ()), rb"\AHTTP/1\.1 %d [A-Za-z -]+\r\n\r\n\Z" % status)

    def test_a_field_cannot_split_the_answer(self) -> None:
        for text in ("a\r\nSet-Cookie: x", "a\nb", "a\rb", "a\0b", "\r\n", "a\r\n\r\n<html>"):
            with self.subTest(text):
                self.assertRaises(ValueError, encode_head, 200, [("X", text)])
                self.assertRaises(ValueError, encode_head, 200, [(text, "x")])

    def test_a_value_beyond_latin_1_is_refused(self) -> None:
        self.assertRaises(ValueError, encode_head, 200, [("X", "\u2028")])
