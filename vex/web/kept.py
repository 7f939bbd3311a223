"""Pages that were made before, given again until what they show has changed.

A page is kept under all that it depends on: its address with the query, how commands address this registry, and its
encoding. It counts as long as nothing was written to what it was made from (`http/answers.py`), and what it says of
time is right. Bounded in bytes; those that were not used for the longest time make room. What is kept is the same for
everyone, as all pages are: nobody logs in to see them. Errors, redirects and archives are not kept.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from vex.http.answers import Basis, Revisions
from vex.http.fields import etag_matches, takes_gzip
from vex.http.message import Request, Response
from vex.web.moment import Moment
from vex.web.visit import Visit

_ALL_BYTES = 2 * 1024 * 1024
# One page must not take the place of all others.
_PAGE_BYTES = 512 * 1024
# What a page costs besides its body.
_ENTRY_BYTES = 2048
# What is not longer fits in a packet as it is.
_SHORT_BYTES = 1024
# RFC 1952 section 2.3: with zlib's own header, which has no time and no name.
_GZIP_WINDOW = 31
# Level 6 makes a page of 100 tags a tenth smaller, in twice the time.
_LEVEL = 1
_VARY = ("Vary", "Accept-Encoding")
# RFC 9110 section 15.4.5: what a 304 repeats.
_REPEATED = frozenset({"ETag", "Cache-Control", "Vary"})


class PageKey(NamedTuple):
    """What a page depends on."""

    op: str
    path: str
    query: str
    host: str
    plain: bool
    gzip: bool


class _Kept(NamedTuple):
    headers: Sequence[tuple[str, str]]
    body: bytes
    basis: Basis | None
    since: float
    until: float
    bytes: int


def key_of(seen: Visit, op: str) -> PageKey:
    """Say what the page that is asked for depends on."""
    request = seen.request
    gzip = takes_gzip(request.header("accept-encoding"))
    return PageKey(op, request.path, request.query_text, seen.host, seen.plain, gzip)


def finished(response: Response, *, gzip: bool) -> Response:
    """Compress a page where that is worth it, and name just these bytes."""
    if response.status == 304:
        response.headers.append(_VARY)
    if response.status != 200 or response.stream is not None or len(response.body) <= _SHORT_BYTES:
        return response
    headers = dict(response.headers)
    headers.setdefault("ETag", f'"{hashlib.sha256(response.body).hexdigest()[:32]}"')
    headers.update((_VARY,))
    body = response.body
    if gzip:
        packer = zlib.compressobj(_LEVEL, wbits=_GZIP_WINDOW)
        body = packer.compress(body) + packer.flush()
        # The same page in other bytes (RFC 9110 section 8.8.1).
        headers.update({"ETag": f"W/{headers['ETag']}", "Content-Encoding": "gzip"})
    return Response(200, [*headers.items()], body)


def as_asked(request: Request, response: Response) -> Response:
    """Tell a client that has a page already that it is the same (RFC 9110 section 13.1.2)."""
    known = request.header("if-none-match")
    etag = dict(response.headers).get("ETag", "") if known and response.status == 200 else ""
    if known and etag and etag_matches(known, etag):
        return Response(304, [field for field in response.headers if field[0] in _REPEATED])
    return response


class KeptPages:
    """The pages that are kept; any thread may ask."""

    def __init__(self, revisions: Revisions, most_bytes: int = _ALL_BYTES) -> None:
        self._revisions = revisions
        self._most_bytes = most_bytes
        self._kept: dict[PageKey, _Kept] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def basis(self, repository: str) -> Basis:
        """Return what a page about a repository, or with "" about all of them, is made from; to be taken before
        reading.
        """
        return self._revisions.basis(repository)

    def find(self, key: PageKey, now: float) -> Response | None:
        """Return a page that was made before, if it is still right."""
        with self._lock:
            found = self._kept.pop(key, None)
            if found is None:
                return None
            # The clock may be set back.
            if found.since <= now < found.until and (found.basis is None or self._revisions.counts(found.basis)):
                # Now the one that was used last.
                self._kept[key] = found
                return Response(200, found.headers, found.body)
            self._bytes -= found.bytes
        return None

    def keep(self, key: PageKey, response: Response, basis: Basis | None, moment: Moment) -> None:
        """Keep a page that was just made from what `basis` says, None for what never changes; those that were not used
        for the longest time make room for it.
        """
        # A copy: whoever sends the response adds to its own.
        size = len(response.body) + len(key.path) + len(key.query) + len(key.host) + _ENTRY_BYTES
        made = _Kept(tuple(response.headers), response.body, basis, moment.time, moment.until, size)
        if response.status != 200 or response.stream is not None or made.bytes > _PAGE_BYTES or not moment.until:
            return
        with self._lock:
            before = self._kept.pop(key, None)
            self._bytes += made.bytes - (before.bytes if before else 0)
            self._kept[key] = made
            while self._bytes > self._most_bytes:
                self._bytes -= self._kept.pop(next(iter(self._kept))).bytes
