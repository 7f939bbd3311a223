"""The registry API: what a client lists and looks for (OCI distribution specification 1.1, "Content Discovery";
Docker's catalog and search).

A list without `n` is all of it, as docker-registry and others answer, since clients are built on that; up to a size,
past which it goes on behind a link. One that is long is made from the database while it is sent, in pieces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Callable, NamedTuple
from urllib.parse import quote

from vex.api import routes
from vex.api.headers import REVALIDATE
from vex.api.routes import PathFields
from vex.errors import PAGINATION_NUMBER_INVALID, Disconnected, RegistryError
from vex.formats.manifest import OCI_INDEX
from vex.http.answers import Basis, Revisions
from vex.http.message import JSON, NOSNIFF, Request, Response, json_response
from vex.http.turns import HeavyWork, Turn
from vex.names import Digest, RepositoryName
from vex.registry.listing import Extent, Lists, Names, pieces
from vex.storage.referrers import ReferrerRow

_NUMBER = re.compile(r"[0-9]{1,19}")
# A list changes with the next push.
_HEADERS = (REVALIDATE, NOSNIFF)
_LIST_BYTES = 8 * 1024 * 1024
# What is not longer is sent at once, with its length, and may be given again; some thousand names.
_SHORT_LIST_BYTES = 64 * 1024
# As Docker Hub does.
_USUAL_FOUND, _MOST_FOUND = 25, 100
_MAX_WORD = 255


class PageLimits(NamedTuple):
    """How many referrers are on a page, and how many names a client that asks for a number gets at most."""

    referrers: int
    most: int


class _List(NamedTuple):
    """A list as it is answered: the fields before the one that holds its names, that field, the path, and how names are
    loaded and measured.
    """

    fields: Mapping[str, str]
    key: str
    path: str
    load: Names
    extent: Callable[[str, int, Turn], Extent]


class Discovery:
    """The handlers of lists."""

    def __init__(self, lists: Lists, work: HeavyWork, revisions: Revisions, pages: PageLimits) -> None:
        self._lists = lists
        self._work = work
        self._revisions = revisions
        self._pages = pages

    def get_version(self, _request: Request, _fields: PathFields) -> Response:
        """Answer end-1: this is a registry."""
        return json_response(200, {}, [*_HEADERS])

    def get_catalog(self, request: Request, _fields: PathFields) -> Response:
        """Answer Docker's catalog: the repositories that hold a manifest."""
        basis = self._revisions.basis("")
        return self._names(
            request,
            _List({}, "repositories", routes.CATALOG.path(), self._lists.repositories, self._lists.repositories_extent),
            basis,
        )

    def get_tags(self, request: Request, fields: PathFields) -> Response:
        """Answer end-8: the tags of a repository."""
        name, lists = RepositoryName.parse(fields["name"]), self._lists
        basis = self._revisions.basis(name)
        listed = _List(
            {"name": name},
            "tags",
            routes.TAGS.path(name=name),
            lambda last, limit: lists.tags(name, last, limit),
            lambda last, limit, work: lists.tags_extent(name, last, limit, work),
        )
        return self._names(request, listed, basis)

    def get_referrers(self, request: Request, fields: PathFields) -> Response:
        """Answer end-12: an index of the manifests with this subject."""
        name, subject = RepositoryName.parse(fields["name"]), Digest.parse(fields["digest"])
        artifact_type = request.parameter("artifactType") or ""
        with self._work.lists.take(request.left) as turn:
            rows, more = self._lists.referrers(
                name, subject, artifact_type, request.parameter("last") or "", self._pages.referrers
            )
            manifests = [_referrer(row) for row in _paced(rows, turn.step)]
        headers = [*_HEADERS]
        if artifact_type:
            headers.append(("OCI-Filters-Applied", "artifactType"))
        if more:
            query = f"artifactType={quote(artifact_type, safe='')}&" if artifact_type else ""
            headers.append(_link(routes.REFERRERS.path(name=name, digest=subject), f"{query}last={rows[-1].digest}"))
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
        return json_response(200, index, headers, media_type=OCI_INDEX)

    def get_ping(self, _request: Request, _fields: PathFields) -> Response:
        """Answer what docker asks before it searches: a registry that speaks for itself, so that it sends credentials
        here.
        """
        return json_response(
            200,
            {"standalone": True},
            [("X-Docker-Registry-Version", "0.9.0"), ("X-Docker-Registry-Standalone", "true"), *_HEADERS],
        )

    def get_search(self, request: Request, _fields: PathFields) -> Response:
        """Answer `docker search` with the repositories that have the word in their name."""
        word = (request.parameter("q") or "").strip()
        limit = min(_number(request.parameter("n")) or _USUAL_FOUND, _MOST_FOUND)
        # A search costs as much as that of the pages, and is not to keep a list waiting that has begun.
        with self._work.pages.take(request.left) as turn:
            entries = self._lists.search(word, limit, turn) if len(word) <= _MAX_WORD else []
        found = [
            {"name": entry.name, "description": "", "star_count": 0, "is_official": False, "is_automated": False}
            for entry in entries
        ]
        return json_response(200, {"query": word, "num_results": len(found), "results": found}, [*_HEADERS])

    def _names(self, request: Request, listed: _List, basis: Basis) -> Response:
        """Answer with a page by `n` and `last`, or with all; the link is left out when nothing follows (specification,
        "Listing Tags").
        """
        last, asked = request.parameter("last") or "", request.parameter("n")
        limit = min(_number(asked), self._pages.most)
        with self._work.lists.take(request.left) as turn:
            if asked is None:
                return self._everything(request, listed, last, basis, turn)
            names = listed.load(last, limit + 1)
        headers = (
            [_link(listed.path, f"n={limit}&last={quote(names[limit - 1], safe='')}")] if 0 < limit < len(names) else []
        )
        return json_response(200, {**listed.fields, listed.key: names[:limit]}, [*_HEADERS, *headers], basis=basis)

    def _everything(self, request: Request, listed: _List, last: str, basis: Basis, turn: Turn) -> Response:
        extent = listed.extent(last, _LIST_BYTES, turn)
        if extent.bytes <= _SHORT_LIST_BYTES:
            names = [name for piece in pieces(listed.load, last, extent.end) for name in piece]
            return json_response(200, {**listed.fields, listed.key: names}, [*_HEADERS], basis=basis)
        headers = [("Content-Type", JSON), *_HEADERS]
        if extent.more:
            headers.append(_link(listed.path, f"last={quote(extent.end, safe='')}"))
        return Response(200, headers, stream=self._stream(request, listed, last, extent.end))

    def _stream(self, request: Request, listed: _List, last: str, end: str) -> Iterator[bytes]:
        """Make a list piece by piece, each in a turn of its own; raises Disconnected when that fails, since what was
        sent cannot be taken back.
        """
        between = json.dumps({**listed.fields, listed.key: []}, separators=(",", ":"))[:-2]
        made = pieces(listed.load, last, end)
        try:
            while piece := self._piece(request, made):
                yield f"{between}{piece}".encode()
                between = ","
        except RegistryError as error:
            raise Disconnected(f"in the middle of a list: {error}") from error
        # All may have been deleted since the list was measured.
        yield f"{'' if between == ',' else between}]}}\n".encode()

    def _piece(self, request: Request, made: Iterator[list[str]]) -> str:
        with self._work.lists.take(request.left) as turn:
            piece = json.dumps(next(made, []), separators=(",", ":"))[1:-1]
            turn.step()
        return piece


def _paced(rows: Iterable[ReferrerRow], step: Callable[[], None]) -> Iterator[ReferrerRow]:
    for row in rows:
        yield row
        step()


def _number(text: str | None) -> int:
    """Read a number of entries, 0 where none is asked for; raises PAGINATION_NUMBER_INVALID."""
    if text is not None and not _NUMBER.fullmatch(text):
        raise RegistryError(PAGINATION_NUMBER_INVALID)
    return int(text or 0)


def _link(path: str, query: str) -> tuple[str, str]:
    return "Link", f'<{path}?{query}>; rel="next"'


def _referrer(row: ReferrerRow) -> dict[str, object]:
    descriptor: dict[str, object] = {"mediaType": row.media_type, "size": row.size, "digest": row.digest}
    if row.artifact_type:
        descriptor["artifactType"] = row.artifact_type
    annotations = json.loads(row.annotations)
    if annotations:
        descriptor["annotations"] = annotations
    return descriptor
