"""Requests that were changed at random, well-formed ones and hostile ones: no failure, no traceback, no hang, and
nothing is ever answered that was not asked.

A request with a path of its own follows each changed one on the same connection. A reader of RFC 9112 that shares
nothing with Vex says whether it is one; the server's log says which requests it took. VEX_TEST_FUZZ is the number of
inputs, VEX_TEST_SEED the seed.
"""

from __future__ import annotations

import os
import random
import re
import unittest
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.support.hostile_requests import LISTENERS, answers, cases, exchange, seed, well_formed
from tests.support.server import ServerTestCase, digest_of

INPUTS = int(os.environ.get("VEX_TEST_FUZZ", "2000"))
SEED = int(os.environ.get("VEX_TEST_SEED", "5"))
_THREADS = 4
# Longer cases are about their length, and cost more than they find.
_MAX_SEED_BYTES = 20_000
# Said on purpose: a method that nobody knows, and a version of HTTP that is not spoken.
_ALLOWED_5XX = {501, 505}

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# RFC 9112 sections 3.2.1 and 3.2.2.
_AUTHORITY = rb"[Hh][Tt][Tt][Pp][Ss]?://(?P<authority>[\x21-\x2e\x30-\x3e\x40-\x7e]+)"
_TARGET = rb"(?:" + _AUTHORITY + rb")?(?P<target>(?(authority)(?:/[\x21-\x7e]*)?|/[\x21-\x7e]*))"
_LINE = re.compile(rb"(?P<method>" + _TOKEN + rb") " + _TARGET + rb" HTTP/1\.(?P<minor>[0-9])")
_FIELD = re.compile(rb"(?P<name>" + _TOKEN + rb"):[ \t]*(?P<value>[\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_PIECES = (
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"/",
        b"..",
        b"%0d%0a",
        b"%00",
        b"?",
        b"\xff",
        b"\x0b",
        b"\x85",
    ),
    *(
        b"0",
        b"+",
        b"-",
        b"_",
        b"99999999999999999999",
        b"\xef\xbc\x95",
        b'{"a":',
        b"[[[[",
        b"sha256:",
        b"chunked",
        b"HTTP/1.0",
        b"HTTP/1.1",
        b"HTTP/2.0",
    ),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(
        b"Host: a\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"Range: bytes=0-1\r\n",
        b"X: y\r\n",
        b" folded\r\n",
    ),
    *(b"GET /v2/ HTTP/1.1\r\n", b"5\r\n01234\r\n", b"0\r\n\r\n"),
)


class Sent(NamedTuple):
    """One input: what goes to a listener, and the name in the path of the request at its end."""

    listener: str
    data: bytes
    marker: str


class Request(NamedTuple):
    """What a strict reader finds: a request line, and whether all that belongs to it is there and well-formed."""

    method: bytes
    target: bytes
    taken: bool


class Fuzz(ServerTestCase):
    """Each input on a connection of its own."""

    flags = ("--debug", "--failed-logins", "1000000", "--upload-sessions", "1000000")

    def test_nothing_fails_and_nothing_is_answered_that_was_not_asked(self) -> None:
        seed(self.server.auth)
        inputs = list(_inputs(random.Random(SEED), INPUTS))
        with ThreadPoolExecutor(_THREADS) as pool:
            received = list(pool.map(self.send, inputs))
        log = self.server.log.read_text()
        taken = set(re.findall(r"/(marker-[0-9]+)", log))
        begun = 0
        for sent, came in zip(inputs, received):
            with self.subTest(sent.marker, listener=sent.listener, data=sent.data):
                asked = any(
                    request.taken and sent.marker.encode() in request.target for request in _requests(sent.data)
                )
                begun += asked
                if sent.marker in taken:
                    self.assertTrue(asked, "what is no request was taken for one")
                self.assertEqual(self.problem(sent, came), "")
        self.assertNotIn("Traceback", log)
        # Were there none of either kind, nothing would have been shown.
        self.assertGreater(begun, INPUTS // 20)
        self.assertLess(begun, INPUTS)
        self.assertGreater(len(taken), INPUTS // 20)

    def send(self, sent: Sent) -> bytes:
        """Send an input; returns what came, or says in its place what went wrong."""
        try:
            return exchange(self.server.addresses[sent.listener], sent.data, end=True)
        except OSError as error:
            return repr(error).encode()

    def problem(self, sent: Sent, received: bytes) -> str:
        """Say what is wrong with what came; "" if nothing is."""
        requests = _requests(sent.data)
        try:
            statuses = _statuses(received, [request.method == b"HEAD" for request in requests])
        except (ValueError, KeyError) as error:
            return f"{error!r}: {received[:300]!r}"
        failed = [status for status in statuses if status >= 500 and status not in _ALLOWED_5XX]
        if failed:
            return f"the server failed: {statuses}"
        # One more than there are requests: that which is refused.
        return "" if len(statuses) <= len(requests) + 1 else f"{len(requests)} requests got {len(statuses)} answers"


def _statuses(received: bytes, heads: list[bool]) -> list[int]:
    """Return the statuses of answers that are no interim ones, knowing which are to HEAD."""
    statuses: list[int] = []
    while received:
        end = received.find(b"\r\n\r\n") + 4
        head = len(statuses) < len(heads) and heads[len(statuses)]
        # A HEAD that is refused as malformed may have a body, since what it is cannot be trusted; the connection is
        # then closed.
        head = head and (b"\r\nConnection: close\r\n" not in received[:end] or len(received) == end)
        found = answers(received[:end] if head else _one(received, end), head=head)[0]
        received = received[end + len(found.body) :]
        if found.status >= 200:
            statuses.append(found.status)
    return statuses


def _one(received: bytes, end: int) -> bytes:
    """Cut one answer, whose head ends there, from what came."""
    length = re.search(rb"\r\nContent-Length: ([0-9]+)\r\n", received[:end])
    return received[: end + int(length[1])] if length else received[:end]


def _inputs(dice: random.Random, count: int) -> Iterator[Sent]:
    seeds = [case.data for case in cases() if len(case.data) <= _MAX_SEED_BYTES] + _well_formed()
    for number in range(count):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 5))):
            dice.choice(_CHANGES)(dice, data, seeds)
        listener, marker = dice.choice(LISTENERS), f"marker-{number}"
        yield Sent(listener, bytes(data) + well_formed(listener, f"/v2/{marker}/tags/list"), marker)


def _well_formed() -> list[bytes]:
    """Write requests that any client may send, as often as there are hostile ones."""
    fields = b"Host: registry.test\r\n" + well_formed("auth").split(b"\r\n")[2] + b"\r\n"
    blob = b"0123456789"
    post = b"POST /v2/fuzz/blobs/uploads/?digest=%b HTTP/1.1\r\n" % digest_of(blob).encode()
    paths = (b"/v2/", b"/v2/hostile/manifests/v1", b"/", b"/metrics")
    plain = [b"%b %b HTTP/1.1\r\n%b\r\n" % (method, path, fields) for method in (b"GET", b"HEAD") for path in paths]
    bodies = [
        post + fields + b"Content-Length: 10\r\n\r\n" + blob,
        post + fields + b"Transfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\nX: y\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n" + fields + b"Content-Length: 27\r\n\r\nGET /v2/body HTTP/1.1\r\n\r\n\r\n",
    ]
    return (plain + bodies) * 30


def _flip(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _insert(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    at = dice.randrange(len(data) + 1)
    data[at:at] = dice.choice(_PIECES)


def _remove(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    at = dice.randrange(len(data) + 1)
    del data[at : at + dice.choice((1, 1, 2, 10))]


def _cut(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    del data[dice.randrange(len(data) + 1) :]


def _repeat_line(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    lines = bytes(data).split(b"\r\n")
    lines.insert(dice.randrange(len(lines) + 1), dice.choice(lines))
    data[:] = b"\r\n".join(lines)


def _drop_line(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    lines = bytes(data).split(b"\r\n")
    del lines[dice.randrange(len(lines))]
    data[:] = b"\r\n".join(lines)


def _insert_line(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    lines = bytes(data).split(b"\r\n")
    lines.insert(dice.randrange(1, len(lines) + 1), dice.choice(_PIECES).rstrip(b"\r\n"))
    data[:] = b"\r\n".join(lines)


def _change_number(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    found = list(re.finditer(rb"[0-9]+", data))
    if found:
        at = dice.choice(found)
        data[at.start() : at.end()] = b"%d" % (int(at[0][:18]) + dice.choice((-1, 1, 2, 10)))


def _join(dice: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    other = dice.choice(seeds)
    data += other[dice.choice((0, dice.randrange(len(other) + 1))) :]


_CHANGES = (_flip, _insert, _insert, _remove, _cut, _repeat_line, _drop_line, _insert_line, _change_number, _join)


# A second reader of RFC 9112, strict and slow


def _requests(data: bytes) -> list[Request]:
    """Return the requests that a strict reader finds, up to one that it does not take."""
    found: list[Request] = []
    position, kept = 0, True
    while kept and position < len(data):
        start = position + 2 if data.startswith(b"\r\n", position) else position
        end = data.find(b"\r\n\r\n", start)
        line, *lines = data[start : max(end, start)].split(b"\r\n")
        request = _LINE.fullmatch(line)
        position, kept = _read_fields(data, end + 4, lines, request) if request and end >= 0 else (-1, False)
        if request is None:
            break
        found.append(Request(request["method"], request["target"], taken=position >= 0))
    return found


def _read_fields(data: bytes, position: int, lines: list[bytes], request: re.Match[bytes]) -> tuple[int, bool]:
    """Return where the request ends and whether another may follow; -1 if it is not well-formed or not complete."""
    old = request["minor"] == b"0"
    values: dict[bytes, list[bytes]] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            return -1, False
        values.setdefault(field["name"].lower(), []).append(field["value"])
    options = [option.strip(b" \t").lower() for value in values.get(b"connection", []) for option in value.split(b",")]
    kept = b"close" not in options and (not old or b"keep-alive" in options)
    if not (len(values.get(b"host", [])) == 1 or (old and b"host" not in values)):
        return -1, False
    # RFC 9112 section 3.2.2: the two are the same, or one of them is not what the client meant.
    if request["authority"] is not None and [request["authority"].lower()] != [
        value.lower() for value in values.get(b"host", [])
    ]:
        return -1, False
    return _body_end(data, position, values, old), kept


def _body_end(data: bytes, position: int, values: dict[bytes, list[bytes]], old: bool) -> int:
    lengths, codings = values.get(b"content-length", []), values.get(b"transfer-encoding", [])
    if codings:
        right = not lengths and not old and [coding.lower() for coding in codings] == [b"chunked"]
        return _chunks_end(data, position) if right else -1
    if not lengths:
        return position
    if len(lengths) > 1 or not re.fullmatch(rb"[0-9]{1,19}", lengths[0]):
        return -1
    end = position + int(lengths[0])
    return end if end <= len(data) else -1


def _chunks_end(data: bytes, position: int) -> int:
    while chunk := _CHUNK.match(data, position):
        size, position = int(chunk[1], 16), chunk.end()
        if size == 0:
            return _trailers_end(data, position)
        if data[position + size : position + size + 2] != b"\r\n":
            break
        position += size + 2
    return -1


def _trailers_end(data: bytes, position: int) -> int:
    while (end := data.find(b"\r\n", position)) > position:
        if not _FIELD.fullmatch(data, position, end):
            return -1
        position = end + 2
    return end + 2 if end == position else -1


if __name__ == "__main__":
    unittest.main()
