"""The endpoints of the OCI distribution specification, from the side of a client: lists, manifests, referrers, blobs,
uploads.

Invariants: names, tags and digests that a registry sends are checked before they are used; a manifest that is returned
has the digest it was asked for by; lists end, whatever the registry says: at a page without anything new, after so many
pages or so long a time without anything that can be used, and at a number of entries.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Callable, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

from vex.errors import Refused, RegistryError
from vex.formats.foreign_json import Malformed, load_json
from vex.formats.manifest import ACCEPTED
from vex.names import Digest, RepositoryName, Tag
from vex.transfer.origins import resolved
from vex.transfer.remote import Remote
from vex.transfer.replies import MAX_DOCUMENT, Broken, Reply, Unreachable, pieces_of

# Schema 1, so that a registry which holds it says so, instead of converting something.
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_ACCEPT = {"Accept": ", ".join([*ACCEPTED, f"{_SCHEMA_1}prettyjws", f"{_SCHEMA_1}json", "*/*"])}
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')
_MAX_ENTRIES = 1_000_000
_MAX_BAD = 10_000
# Pages one after the other, and seconds of waiting for them, without an entry that is one and new.
_MAX_VAIN_PAGES = 100
_MAX_VAIN_SECONDS = 600.0
_MAX_LINK = 8192
_RECEIVED = re.compile(r"0-([0-9]{1,19})")


N = TypeVar("N", RepositoryName, Tag, Digest)
Bad = Callable[[str, RegistryError], None]


class Document(NamedTuple):
    """A manifest or an index, with its media type."""

    content: bytes
    media_type: str


class _Seen:
    """What a list has shown so far; raises Refused for one that does not end."""

    def __init__(self, path: str, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._good: set[str] = set()
        self._bad: set[int] = set()
        self._known = (0, 0)
        self._vain_pages = 0
        self._vain_seconds = 0.0

    @contextlib.contextmanager
    def page(self) -> Iterator[None]:
        """Note how long a page takes, and what was there before it."""
        self._known = len(self._good), len(self._bad)
        started = self._clock()
        yield
        self._vain_seconds += self._clock() - started

    def is_new(self, text: str) -> bool:
        """Tell whether an entry comes for the first time; it is bad until it is said to be good."""
        if text in self._good or hash(text) in self._bad or len(self._bad) >= _MAX_BAD:
            return False
        self._bad.add(hash(text))
        return True

    def good(self, entry: N) -> N:
        """Note that the last new entry is one."""
        self._bad.discard(hash(str(entry)))
        self._good.add(str(entry))
        if len(self._good) > _MAX_ENTRIES:
            raise Refused(200, f"the list {self._path} has more than {_MAX_ENTRIES:,} entries")
        return entry

    def goes_on(self) -> bool:
        """Tell whether there is reason to ask for another page."""
        known, bad = self._known
        if len(self._good) > known:
            self._vain_pages, self._vain_seconds = 0, 0.0
            return True
        self._vain_pages += 1
        if self._vain_pages > _MAX_VAIN_PAGES or self._vain_seconds > _MAX_VAIN_SECONDS:
            raise Refused(200, f"the list {self._path} goes on without anything that can be used")
        return len(self._bad) > bad


class Endpoints:
    """What a registry can be asked."""

    def __init__(
        self,
        remote: Remote,
        manifest_bytes: int,
        fatal: Collection[int] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask a registry; answers with one of the `fatal` statuses say that there is no use in asking for anything
        else, unless that is so for one repository alone.
        """
        self._remote = remote
        self._manifest_bytes = manifest_bytes
        self._fatal = fatal
        self._has_referrers = True
        self._clock = clock

    def _expect(self, reply: Reply, *statuses: int) -> Reply:
        if reply.status in self._fatal and not reply.concerns_one_repository:
            raise Unreachable(f"{self._remote.origin} refuses this: {reply.refusal}")
        if reply.status not in statuses:
            raise reply.refusal
        return reply

    def version(self) -> None:
        """Ask end-1 whether this is a registry, and the password right; raises Refused."""
        self._expect(self._remote.request("GET", "/v2/"), 200)

    # Lists

    def repositories(self, bad: Bad) -> Iterator[RepositoryName]:
        """List all repositories; names that are none go to `bad`. Raises Refused."""
        return self._list("/v2/_catalog", "repositories", RepositoryName.parse, bad)

    def tags(self, repository: RepositoryName, bad: Bad) -> Iterator[Tag]:
        """List the tags of a repository; names that are none go to `bad`. Raises Refused."""
        return self._list(f"/v2/{repository}/tags/list", "tags", Tag.parse, bad)

    def _list(self, path: str, field: str, parse: Callable[[str], N], bad: Bad) -> Iterator[N]:
        seen = _Seen(path, self._clock)
        target: str | None = path
        while target:
            with seen.page():
                reply = self._expect(self._remote.request("GET", target), 200)
            for entry in _items(reply.body, field):
                if seen.is_new(str(entry)):
                    try:
                        yield seen.good(parse(str(entry)))
                    except RegistryError as error:
                        bad(str(entry), error)
            target = _next_page(path, reply) if seen.goes_on() else None

    # Manifests

    def resolve(self, repository: RepositoryName, tag: str) -> Digest:
        """Find the digest that a tag points to; raises Refused."""
        path = f"/v2/{repository}/manifests/{tag}"
        reply = self._remote.request("HEAD", path, _ACCEPT)
        self._expect(reply, 200)
        with contextlib.suppress(RegistryError):
            return Digest.parse(reply.headers.get("Docker-Content-Digest", ""))
        return Digest.of(self._expect(self._remote.request("GET", path, _ACCEPT, limit=self._manifest_bytes), 200).body)

    def manifest(self, repository: RepositoryName, digest: Digest) -> Document:
        """Fetch a manifest, and compare it with its digest; raises Refused."""
        reply = self._remote.request("GET", f"/v2/{repository}/manifests/{digest}", _ACCEPT, limit=self._manifest_bytes)
        self._expect(reply, 200)
        media_type = reply.headers.get("Content-Type", "")
        if media_type.startswith(_SCHEMA_1):
            raise Refused(200, "an image of schema 1, which Vex does not take; push it again with a docker of today")
        if Digest.of(reply.body, digest.algorithm) != digest:
            raise Refused(200, "the manifest that the source sends does not have this digest")
        return Document(reply.body, media_type)

    def put_manifest(self, repository: RepositoryName, digest: Digest, tag: str, document: Document) -> None:
        """Push a manifest by its digest, and point a tag at it; raises Refused."""
        query = f"?tag={tag}" if tag else ""
        target = f"/v2/{repository}/manifests/{digest}{query}"
        self._expect(self._remote.request("PUT", target, {"Content-Type": document.media_type}, document.content), 201)

    def referrers(self, repository: RepositoryName, digest: Digest) -> Iterator[Digest]:
        """List the manifests whose subject has this digest, if the registry has an API for that; raises Refused where
        the list does not end.
        """
        path = f"/v2/{repository}/referrers/{digest}"
        seen = _Seen(path, self._clock)
        target: str | None = path
        while target and self._has_referrers:
            with seen.page():
                reply = self._remote.request("GET", target)
            if reply.status != 200:
                # A registry that has the API never answers 404.
                self._has_referrers = reply.status != 404
                return
            for item in _items(reply.body, "manifests"):
                text = str(item.get("digest", "")) if isinstance(item, dict) else ""
                if seen.is_new(text):
                    with contextlib.suppress(RegistryError):
                        yield seen.good(Digest.parse(text))
            target = _next_page(path, reply) if seen.goes_on() else None

    # Blobs

    @contextlib.contextmanager
    def blob(self, repository: RepositoryName, digest: Digest, size: int, offset: int) -> Iterator[Iterator[bytes]]:
        """Fetch a blob from an offset on, in pieces; raises Refused and Broken."""
        if 0 < offset == size:
            yield iter(())
            return
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._remote.open("GET", f"/v2/{repository}/blobs/{digest}", headers) as response:
            if response.status not in (200, 206):
                raise Reply(response.status, response.headers, response.read(MAX_DOCUMENT)).refusal
            # A registry without ranges sends all of it.
            first = offset if response.status == 206 else 0
            if response.length not in (None, size - first):
                raise Refused(
                    response.status, f"the blob has {response.length} bytes, but the manifest says {size - first}"
                )
            pieces = pieces_of(response, size - first)
            yield _without_first(pieces, offset - first)

    def begin_upload(self, repository: RepositoryName, digest: Digest) -> str:
        """Begin the upload of a blob; returns its location, "" when the registry had the blob already. Raises Refused.

        A mount rather than HEAD: it holds the blob for as long as an upload would.
        """
        path = f"/v2/{repository}/blobs/uploads/"
        reply = self._expect(self._remote.request("POST", f"{path}?mount={digest}"), 201, 202)
        return "" if reply.status == 201 else _local(resolved(path, reply.headers.get("Location", "")))

    def upload_offset(self, location: str) -> int:
        """Ask how many bytes of an upload have arrived; -1 when it has ended, or cannot be told: of no byte and of one
        the range is the same.
        """
        reply = self._remote.request("GET", location)
        received = _RECEIVED.fullmatch(reply.headers.get("Range", ""))
        if reply.status != 204 or not received or received[1] == "0":
            return -1
        return int(received[1]) + 1

    def cancel_upload(self, location: str) -> bool:
        """End an upload that cannot be finished; returns whether it has ended, which it does not while it receives."""
        return self._remote.request("DELETE", location).status in (204, 404)

    def finish_upload(self, location: str, digest: Digest, offset: int, size: int, pieces: Iterable[bytes]) -> None:
        """Send what is missing of a blob, and have the registry compare all of it with its digest; raises Refused and
        Broken.
        """
        headers = {"Content-Length": str(size - offset), "Content-Type": "application/octet-stream"}
        if 0 < offset < size:
            headers["Content-Range"] = f"{offset}-{size - 1}"
        target = f"{location}{'&' if '?' in location else '?'}digest={quote(digest, safe='')}"
        with self._remote.open("PUT", target, headers, pieces) as response:
            reply = Reply(response.status, response.headers, response.read(MAX_DOCUMENT))
        if reply.status in (404, 416):
            raise Broken(str(reply.refusal))
        self._expect(reply, 201)


def _items(body: bytes, field: str) -> list[object]:
    try:
        document = load_json(body, field, _MAX_ENTRIES)
    except Malformed:
        document = None
    if not isinstance(document, dict) or field not in document:
        raise Refused(200, "the registry answers with something that is no list")
    items = document[field]
    return items if isinstance(items, list) else []


def _next_page(path: str, reply: Reply) -> str | None:
    """Find the next page of a list (RFC 8288): of the same list, wherever the link leads; raises Refused."""
    found = _NEXT.search(reply.headers.get("Link", "")[:_MAX_LINK])
    return f"{path}?{urlsplit(resolved(path, found[1])).query}" if found else None


def _local(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _without_first(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        if len(piece) > count:
            yield piece[count:]
        count = max(0, count - len(piece))
