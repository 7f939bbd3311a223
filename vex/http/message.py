"""Request and Response: what handlers take and give, without sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Callable

from vex.errors import MalformedRequest, RegistryError
from vex.http.answers import Admit, Basis
from vex.http.bodies import Body
from vex.http.byteranges import Part
from vex.http.fields import parse_query
from vex.http.heads import Head

JSON = "application/json"
NOSNIFF = ("X-Content-Type-Options", "nosniff")
PLAIN_TEXT = (("Content-Type", "text/plain; charset=utf-8"), NOSNIFF)


def _stays() -> bool:
    return False


class Request:
    """A request whose head was parsed and whose body has not been read.

    `listener` is `public`, `auth` or `internal`; `client` the address of the peer, or, if that is a trusted proxy
    (`proxied`), of whom it speaks for, and `vouched` says that it told scheme and host; `server_name` is what the TLS
    handshake asked for; `user` is the name that was authenticated, "" without, and `identity` what else is known of who
    that is; `left` tells whether the client has gone; `admit` says who else may have the answer, where credentials are
    needed.
    """

    __slots__ = (
        *(
            "_host",
            "_query",
            "admit",
            "body",
            "client",
            "head",
            "identity",
            "left",
            "listener",
            "method",
            "op",
            "path",
            "proxied",
            "query_text",
            "scheme",
        ),
        *("server_name", "user", "vouched"),
    )

    def __init__(
        self, listener: str, head: Head, body: Body, client: str, scheme: str = "http", server_name: str = ""
    ) -> None:
        self.listener = listener
        self.head = head
        self.method = head.method
        self.path, _, self.query_text = head.target.partition("?")
        self.body = body
        self.client = client
        self.scheme = scheme
        self.server_name = server_name
        self.proxied = self.vouched = False
        self.left: Callable[[], bool] = _stays
        self._host = ""
        self.user = ""
        self.identity: object = None
        self.op = "other"
        self.admit: Admit | None = None
        self._query: dict[str, list[str]] | None = None

    def pass_on(self, client: str, scheme: str, host: str) -> None:
        """Take over what a trusted proxy says of whom it speaks for; "" where it says nothing."""
        # Programs on the proxy's own machine may ask directly.
        self.proxied, self.vouched = bool(client or scheme or host), bool(scheme and host)
        self.client, self.scheme, self._host = client or self.client, scheme or self.scheme, host

    @property
    def host(self) -> str:
        """The host and perhaps port that the client asked, not checked."""
        return self._host or self.header("host") or ""

    @property
    def query(self) -> dict[str, list[str]]:
        """The decoded query parameters; raises BAD_REQUEST."""
        if self._query is None:
            self._query = parse_query(self.query_text)
        return self._query

    def parameter(self, name: str) -> str | None:
        """Return the first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else None

    def header(self, name: str) -> str | None:
        """Return the value of a header field; the name is given in lower case."""
        return self.head.get(name)


class Response:
    """An answer: `body`, or a part of `file` (closed by whoever sends it) or several `parts`, or pieces of a `stream`
    whose length is not known.

    `length` is the Content-Length; for a HEAD it may be given without a body. With a `basis` the answer may be given
    again. `last` closes the connection after it; `on_sent` is called once it was sent, or could not be.
    """

    __slots__ = ("basis", "body", "file", "headers", "last", "length", "offset", "on_sent", "parts", "status", "stream")

    def __init__(
        self,
        status: int,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        file: BinaryIO | None = None,
        offset: int = 0,
        parts: Sequence[Part] = (),
        length: int | None = None,
        stream: Iterator[bytes] | None = None,
        basis: Basis | None = None,
    ) -> None:
        self.status = status
        self.headers = list(headers)
        self.body = body
        self.file = file
        self.offset = offset
        self.parts = parts
        self.length = len(body) if length is None else length
        self.stream = stream
        self.basis = basis
        self.last = False
        self.on_sent: Callable[[], None] | None = None


def json_response(
    status: int,
    document: object,
    headers: Sequence[tuple[str, str]] = (),
    *,
    media_type: str = JSON,
    basis: Basis | None = None,
) -> Response:
    """Answer with a JSON document."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    return Response(status, [("Content-Type", media_type), *headers], body, basis=basis)


def error_document(error: RegistryError) -> dict[str, object]:
    """Turn an error into the document of the OCI distribution specification, "Error Codes"."""
    entry: dict[str, object] = {"code": error.kind.code, "message": error.message}
    if error.detail is not None:
        entry["detail"] = error.detail
    return {"errors": [entry]}


def error_response(error: RegistryError) -> Response:
    """Answer with the document of an error."""
    response = json_response(
        error.kind.status,
        error_document(error),
        [("Cache-Control", "no-store"), NOSNIFF, *error.headers],
    )
    response.last = isinstance(error, MalformedRequest)
    return response


def in_clear_response(address: str) -> Response:
    """Answer a request without TLS at a port that has it; `address` is where it belongs, "" where that is not known."""
    text = f"this port serves HTTPS, and the request was not encrypted; ask {address or 'with https:// in place of http://'}\n"
    headers = [
        *PLAIN_TEXT,
        ("Cache-Control", "no-store"),
    ]
    return Response(400, headers, text.encode("ascii"))
