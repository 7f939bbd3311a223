"""The registry API: blobs, whole and in ranges, from here or from elsewhere (OCI distribution specification 1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vex.access.identity import identity_of
from vex.api.headers import FOREVER, REVALIDATE, content_headers, etag, not_modified
from vex.api.requests import actor_of, may_pull
from vex.api.routes import PathFields
from vex.errors import BLOB_UNKNOWN, RegistryError
from vex.http.answers import Revisions
from vex.http.byteranges import Range, content_range, multipart, parse_ranges
from vex.http.fields import if_range_matches
from vex.http.message import NOSNIFF, Request, Response
from vex.names import Digest, RepositoryName
from vex.registry.registry import Registry, StoredBlob

# As in app.py; those who may push are not sent to a mirror, which may not have what they have just pushed.
_PUBLIC = "public"
# A blob is whatever its pusher made it: a browser that is led to it shall store it, not show it.
_BLOB_TYPE = "application/octet-stream"
_BLOB_HEADERS = (
    NOSNIFF,
    ("Content-Disposition", "attachment"),
    ("Content-Security-Policy", "sandbox"),
    ("Accept-Ranges", "bytes"),
    FOREVER,
)


class Delivery(NamedTuple):
    """Who sends blobs instead: a URL template where public ones are, and the internal location of an nginx in front; ""
    for nobody.
    """

    redirect: str = ""
    accel: str = ""


class Blobs:
    """The handlers of blobs; `public` says whether everyone can read everything, without a password."""

    def __init__(self, registry: Registry, revisions: Revisions, delivery: Delivery, *, public: bool) -> None:
        self._registry = registry
        self._revisions = revisions
        self._delivery = delivery
        self._public = public

    def get_blob(self, request: Request, fields: PathFields) -> Response:
        """Answer end-2 for GET: a blob, ranges of it, 304, or where it is."""
        name, digest = RepositoryName.parse(fields["name"]), Digest.parse(fields["digest"])
        pushing = identity_of(request).may_push(name)
        if not_modified(request, digest):
            self._registry.find_blob(name, digest, pushing=pushing)
            return Response(304, content_headers(digest, FOREVER))
        blob = self._registry.open_blob(name, digest, pushing=pushing)
        if blob.file and (delivered := self._delivered(request, digest)):
            blob.file.close()
            return delivered
        try:
            ranges = (
                parse_ranges(request.header("range"), blob.size)
                if if_range_matches(request.header("if-range"), etag(digest))
                else None
            )
        except RegistryError:
            if blob.file:
                blob.file.close()
            raise
        return _ranges_response(blob, ranges or ())

    def _delivered(self, request: Request, digest: Digest) -> Response | None:
        """Answer that a blob comes from elsewhere, if it does; whoever sends it answers ranges."""
        algorithm, _, encoded = digest.partition(":")
        if self._delivery.redirect and request.listener == _PUBLIC:
            url = (
                self._delivery.redirect.replace("{digest}", digest)
                .replace("{algorithm}", algorithm)
                .replace("{encoded}", encoded)
            )
            return Response(307, [("Location", url), ("Docker-Content-Digest", digest), REVALIDATE, NOSNIFF])
        if self._delivery.accel and request.proxied:
            # nginx says by itself that it takes ranges.
            headers = [header for header in _BLOB_HEADERS if header[0] != "Accept-Ranges"]
            accel = ("X-Accel-Redirect", f"{self._delivery.accel}{algorithm}/{encoded}")
            return Response(200, [accel, ("Content-Type", _BLOB_TYPE), *headers, *content_headers(digest)])
        return None

    def head_blob(self, request: Request, fields: PathFields) -> Response:
        """Answer end-2 for HEAD; one who may push is told of, and given, a blob that another repository has."""
        name, digest = RepositoryName.parse(fields["name"]), Digest.parse(fields["digest"])
        basis, pushing = self._revisions.basis(name), identity_of(request).may_push(name)
        if pushing and not self._registry.knows(digest):
            # As nearly always, when a push asks before it sends.
            raise RegistryError(BLOB_UNKNOWN)
        try:
            size = self._registry.find_blob(name, digest, pushing=pushing)
        except RegistryError as error:
            if not pushing or error.kind is not BLOB_UNKNOWN:
                raise
            size = self._registry.hold_blob(name, digest, may_pull(request, public=self._public))
        if not_modified(request, digest):
            return Response(304, content_headers(digest, FOREVER))
        headers = [("Content-Type", _BLOB_TYPE), *_BLOB_HEADERS, *content_headers(digest)]
        # What one who may push is told is noted, or held, each time.
        return Response(200, headers, length=size, basis=None if pushing else basis)

    def delete_blob(self, request: Request, fields: PathFields) -> Response:
        """Answer end-10."""
        self._registry.delete_blob(
            RepositoryName.parse(fields["name"]), Digest.parse(fields["digest"]), actor_of(request)
        )
        return Response(202, [NOSNIFF])


def _ranges_response(blob: StoredBlob, ranges: Sequence[Range]) -> Response:
    """Answer with ranges of a blob, or without any with the whole; with several in one answer (RFC 9110 section 14.6),
    unless the whole costs less.
    """
    headers = [*_BLOB_HEADERS, *content_headers(blob.digest)]
    several = multipart(ranges, blob.size, _BLOB_TYPE) if len(ranges) > 1 else None
    if several:
        content = b"" if blob.file else b"".join(before + blob.content[slice(*part)] for before, part in several.parts)
        headers = [("Content-Type", several.media_type), *headers]
        return Response(
            206, headers, content, file=blob.file, parts=several.parts if blob.file else (), length=several.length
        )
    headers = [("Content-Type", _BLOB_TYPE), *headers]
    if len(ranges) != 1:
        return Response(200, headers, blob.content, file=blob.file, length=blob.size)
    first, end = ranges[0]
    headers.append(("Content-Range", content_range(ranges[0], blob.size)))
    return Response(206, headers, blob.content[first:end], file=blob.file, offset=first, length=end - first)
