r"""Hostile requests and the answers that they must get: the documents in `tests/support/data/hostile/`, and connections
that send such bytes.

A document holds cases. A case is a name in brackets, lines that say what must come out, and behind `> ` what goes in:

    [Host with a port is taken]
    public,auth 200 - open
    internal 404 NOT_FOUND open
    > GET /v2/ HTTP/1.1\r\n
    > Host: registry.test:8200\r\n
    > \r\n

What must come out: listeners (or `all`); statuses, or `none`; the code of the OCI error document, `page` for one in
HTML, `*` for whatever code, `-` for no error; and how it goes on. A well-formed request follows each on the same
connection: after `close` it is never answered, after `open` it is; with `end` none follows, and the client ends its
side. Then perhaps `no-echo`, for which nothing of the request that says `echo-me` may come back, or a header field that
must be there.

What goes in: all lines together, with `\r`, `\n`, `\t`, `\0`, `\xNN` and `\\`; `<<a*100>>` is a hundred times `a`,
`<<length>>` the length of what follows the first empty line, and `<<basic>>` (its `<<basic64>>` alone), `<<blob>>`,
`<<layer>>` and `<<config>>` are credentials and digests.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.raw import basic
from tests.support.server import TOP, Client, digest_of

LISTENERS = ("public", "auth", "internal")
LAYER, CONFIG = b"0123456789", b"{}"
# However hostile a request is, it is answered or its connection closed within this.
PATIENCE_SECONDS = 15
_RECV_BYTES = 64 * 1024
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)")
_ESCAPED = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}
_REPEATED = re.compile(rb"<<((?:(?!<<).)+?)\*([0-9]+)>>", re.DOTALL)
_NAMED = {
    b"<<basic>>": basic().encode(),
    b"<<basic64>>": basic().partition(" ")[2].encode(),
    b"<<blob>>": digest_of(LAYER).encode(),
    b"<<layer>>": digest_of(LAYER).encode(),
    b"<<config>>": digest_of(CONFIG).encode(),
}
_EXPECTED = re.compile(
    r"(?P<listeners>[a-z,]+) (?P<statuses>[0-9|]+|none)(?: (?P<code>[A-Z_]+|page|\*|-))?"
    r" (?P<then>open|close|end)(?P<echo> no-echo)?(?: (?P<field>[A-Z].*))?"
)


class Expected(NamedTuple):
    """What must come out at one listener; no status stands for a connection that is closed without an answer."""

    statuses: tuple[int, ...]
    code: str
    then: str
    echo: bool
    field: str


class Case(NamedTuple):
    """A request, and what it must get at each listener."""

    name: str
    data: bytes
    expected: Mapping[str, Expected]


class Received(NamedTuple):
    """An answer as it came over the wire."""

    status: int
    fields: dict[str, str]
    body: bytes


def cases() -> list[Case]:
    """Read all documents."""
    return [
        case for path in sorted((TOP / "tests" / "support" / "data" / "hostile").glob("*.txt")) for case in _read(path)
    ]


def seed(client: Client) -> None:
    """Push what the cases refer to."""
    client.push_image("hostile", "v1", LAYER, config=CONFIG)


def well_formed(listener: str, path: str = "") -> bytes:
    """Write the request that follows a hostile one, after which the server is to close; each listener answers 200."""
    path = path or ("/healthz" if listener == "internal" else "/v2/")
    return (
        f"GET {path} HTTP/1.1\r\nHost: registry.test\r\nAuthorization: {basic()}\r\nConnection: close\r\n\r\n".encode()
    )


def exchange(
    address: tuple[str, int], data: bytes, context: ssl.SSLContext | None = None, *, end: bool = False
) -> bytes:
    """Send bytes on a new connection, end this side of it if asked to, and return all that comes until the server
    closes its side.
    """
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection(address, timeout=PATIENCE_SECONDS))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = stack.enter_context(context.wrap_socket(plain)) if context else plain
        # A server that has refused the request may close before it has taken all of it.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            connection.sendall(data)
            if end:
                socket.socket.shutdown(connection, socket.SHUT_WR)
        received = bytearray()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while piece := connection.recv(_RECV_BYTES):
                received += piece
        return bytes(received)


def answers(received: bytes, *, head: bool = False) -> list[Received]:
    """Split what came into answers; the first is one to HEAD if `head`. Raises ValueError for what is not
    well-formed.
    """
    found = []
    while received:
        top, blank, received = received.partition(b"\r\n\r\n")
        line, *lines = top.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 ([1-5][0-9]{2}) [\x20-\x7e]+", line)
        if not match or not blank:
            raise ValueError(f"not the head of an answer: {top[:200]!r}")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(match[1])
        length = 0 if head or status in (204, 304) or status < 200 else int(fields["content-length"])
        if len(received) < length:
            raise ValueError(f"only {len(received)} of {length} bytes came: {top[:200]!r}")
        found.append(Received(status, fields, received[:length]))
        received, head = received[length:], False
    return found


def _read(path: Path) -> Iterator[Case]:
    for block in re.split(r"\n(?=\[)", path.read_text(encoding="ascii"))[1:]:
        name, *lines = block.rstrip("\n").split("\n")
        data = _decode("".join(line[2:] for line in lines if line.startswith("> ")))
        expected: dict[str, Expected] = {}
        for line in filter(None, lines):
            if not line.startswith("> "):
                expected.update(_expected(line))
        assert expected.keys() == set(LISTENERS), (path, name)
        yield Case(f"{path.stem}: {name[1:-1]}", data, expected)


def _expected(line: str) -> dict[str, Expected]:
    match = _EXPECTED.fullmatch(line)
    assert match, line
    statuses = () if match["statuses"] == "none" else tuple(map(int, match["statuses"].split("|")))
    expected = Expected(statuses, match["code"] or "-", match["then"], not match["echo"], match["field"] or "")
    return dict.fromkeys(LISTENERS if match["listeners"] == "all" else match["listeners"].split(","), expected)


def _decode(text: str) -> bytes:
    data = _ESCAPE.sub(
        lambda found: bytes.fromhex(found[1][1:].decode()) if found[1][:1] == b"x" else _ESCAPED[found[1]],
        text.encode(),
    )
    for name, value in _NAMED.items():
        data = data.replace(name, value)
    data = _REPEATED.sub(lambda found: found[1] * int(found[2]), data)
    return data.replace(b"<<length>>", b"%d" % len(data.partition(b"\r\n\r\n")[2]))
