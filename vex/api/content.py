"""The registry API: requests of the OCI distribution specification 1.1 become operations of `registry.py`, results
become answers.

A handler checks what the client sent into value types, calls one operation, and returns a Response or raises; it is
given the fields of its route, unchecked. Who may call it was decided before, in `app.py`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple

from vex.access.identity import PULL, identity_of
from vex.api import routes
from vex.api.lists import Discovery, PageLimits
from vex.api.locations import Locations
from vex.api.manifest_bodies import ManifestBodies
from vex.errors import BLOB_UNKNOWN, BLOB_UPLOAD_UNKNOWN, DIGEST_INVALID, RegistryError
from vex.http.answers import Revisions
from vex.http.byteranges import Range, content_range, multipart, parse_ranges
from vex.http.fields import Preconditions, etag_matches, if_range_matches, parse_content_range
from vex.http.message import Request, Response
from vex.http.turns import HeavyWork
from vex.names import ALGORITHMS, Digest, RepositoryName, Tag, parse_algorithm
from vex.registry.listing import Lists
from vex.registry.registry import Condition, MayPull, PushedManifest, Reference, Registry, StoredBlob
from vex.registry.uploads import OutOfOrder, Uploads, received_range
from vex.storage.audit import Actor
from vex.storage.upload_files import Upload

Fields = dict[str, str]

_NUMBER = re.compile(r"[0-9]{1,19}")
_READ_BYTES = 64 * 1024
_OPEN = "state=open"
# As in app.py; those who may push are not sent to a mirror, which may not have what they have just pushed.
_PUBLIC = "public"
_NOSNIFF = ("X-Content-Type-Options", "nosniff")
_FOREVER = ("Cache-Control", "public, max-age=31536000, immutable")
_REVALIDATE = ("Cache-Control", "no-cache")
# A blob is whatever its pusher made it: a browser that is led to it shall store it, not show it.
_BLOB_TYPE = "application/octet-stream"
_BLOB_HEADERS = (
    _NOSNIFF,
    ("Content-Disposition", "attachment"),
    ("Content-Security-Policy", "sandbox"),
    ("Accept-Ranges", "bytes"),
    _FOREVER,
)


class Delivery(NamedTuple):
    """Who sends blobs instead: a URL template where public ones are, and the internal location of an nginx in front; ""
    for nobody.
    """

    redirect: str = ""
    accel: str = ""


class Api(Discovery):
    """The handlers, by route and method in `HANDLERS`; those of lists are of the class above.

    `public` says whether everyone can read everything, without a password.
    """

    def __init__(
        self,
        registry: Registry,
        uploads: Uploads,
        revisions: Revisions,
        lists: Lists,
        work: HeavyWork,
        pages: PageLimits,
        manifest_bytes: int,
        delivery: Delivery | None = None,
        locations: Locations | None = None,
        *,
        public: bool = True,
    ) -> None:
        super().__init__(lists, work, revisions, pages)
        self._registry = registry
        self._public = public
        self._uploads = uploads
        self._manifests = ManifestBodies(uploads.directory, manifest_bytes)
        self._delivery = delivery or Delivery()
        self._locations = locations or Locations()

    def handle(self, route: routes.Route, request: Request, fields: Fields) -> Response:
        """Answer a request whose method the route takes."""
        return HANDLERS[route.op, request.method](self, request, fields)

    # Manifests

    def get_manifest(self, request: Request, fields: Fields) -> Response:
        """Answer end-3 with the exact bytes and type that were pushed, whatever `Accept` says."""
        name, reference = RepositoryName.parse(fields["name"]), _reference(fields["reference"])
        basis, lifetime = self._revisions.basis(name), _FOREVER if isinstance(reference, Digest) else _REVALIDATE
        wanted, pushing = request.method != routes.HEAD, identity_of(request).may_push(name)
        row, content, note = self._registry.read_manifest(name, reference, content=wanted, pushing=pushing)
        basis = basis._replace(on_use=note)
        headers = _content_headers(row.digest, lifetime)
        if _not_modified(request, row.digest):
            return Response(304, headers, basis=basis)
        return Response(
            200, [*headers, ("Content-Type", row.media_type), _NOSNIFF], content, length=row.size, basis=basis
        )

    def put_manifest(self, request: Request, fields: Fields) -> Response:
        """Answer end-7: store a manifest under a tag, or under its digest with the tags of the query."""
        name, reference = RepositoryName.parse(fields["name"]), _reference(fields["reference"])
        tags = [Tag.parse(tag) for tag in request.query.get("tag", [])]
        condition = _condition(request)

        def push(content: bytes) -> PushedManifest:
            return self._registry.put_manifest(
                name, reference, tags, content, request.header("content-type"), _actor(request), condition
            )

        pushed = self._manifests.take(request.body, request.head.length, push)
        location = self._locations.of(request, routes.MANIFEST.path(name=name, reference=pushed.digest))
        headers = [("Location", location), ("Docker-Content-Digest", pushed.digest), _NOSNIFF]
        if pushed.subject:
            headers.append(("OCI-Subject", pushed.subject))
        headers += [("OCI-Tag", tag) for tag in tags]
        return Response(201, headers)

    def delete_manifest(self, request: Request, fields: Fields) -> Response:
        """Answer end-9 for a tag or a digest."""
        name, reference = RepositoryName.parse(fields["name"]), _reference(fields["reference"])
        if isinstance(reference, Digest):
            self._registry.delete_manifest(name, reference, _actor(request))
        else:
            self._registry.delete_tag(name, reference, _actor(request))
        return Response(202, [_NOSNIFF])

    # Blobs

    def get_blob(self, request: Request, fields: Fields) -> Response:
        """Answer end-2 for GET: a blob, ranges of it, 304, or where it is."""
        name, digest = RepositoryName.parse(fields["name"]), Digest.parse(fields["digest"])
        pushing = identity_of(request).may_push(name)
        if _not_modified(request, digest):
            self._registry.find_blob(name, digest, pushing=pushing)
            return Response(304, _content_headers(digest, _FOREVER))
        blob = self._registry.open_blob(name, digest, pushing=pushing)
        if blob.file and (delivered := self._delivered(request, digest)):
            blob.file.close()
            return delivered
        try:
            ranges = (
                parse_ranges(request.header("range"), blob.size)
                if if_range_matches(request.header("if-range"), _etag(digest))
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
            return Response(307, [("Location", url), ("Docker-Content-Digest", digest), _REVALIDATE, _NOSNIFF])
        if self._delivery.accel and request.proxied:
            # nginx says by itself that it takes ranges.
            headers = [header for header in _BLOB_HEADERS if header[0] != "Accept-Ranges"]
            accel = ("X-Accel-Redirect", f"{self._delivery.accel}{algorithm}/{encoded}")
            return Response(200, [accel, ("Content-Type", _BLOB_TYPE), *headers, *_content_headers(digest)])
        return None

    def head_blob(self, request: Request, fields: Fields) -> Response:
        """Answer end-2 for HEAD; one who may push is told of, and given, a blob that another repository has."""
        name, digest = RepositoryName.parse(fields["name"]), Digest.parse(fields["digest"])
        basis, pushing = self._revisions.basis(name), identity_of(request).may_push(name)
        try:
            size = self._registry.find_blob(name, digest, pushing=pushing)
        except RegistryError as error:
            if not pushing or error.kind is not BLOB_UNKNOWN:
                raise
            size = self._registry.hold_blob(name, digest, self._may_pull(request))
        if _not_modified(request, digest):
            return Response(304, _content_headers(digest, _FOREVER))
        return Response(
            200, [("Content-Type", _BLOB_TYPE), *_BLOB_HEADERS, *_content_headers(digest)], length=size, basis=basis
        )

    def _may_pull(self, request: Request) -> MayPull:
        """Say which repositories a client may pull from, at this listener or where nobody is asked who they are."""
        return lambda repository: self._public or not identity_of(request).denial(repository, PULL)

    def delete_blob(self, request: Request, fields: Fields) -> Response:
        """Answer end-10."""
        self._registry.delete_blob(
            RepositoryName.parse(fields["name"]), Digest.parse(fields["digest"]), _actor(request)
        )
        return Response(202, [_NOSNIFF])

    # Uploads

    def post_upload(self, request: Request, fields: Fields) -> Response:
        """Answer end-4a, end-4b, end-4c and end-11: open a session, take a whole blob, or mount one."""
        name = RepositoryName.parse(fields["name"])
        mounted = _mounted(request.parameter("mount"))
        if mounted and self._registry.mount(name, mounted, self._may_pull(request)):
            return self._created_blob(request, name, mounted)
        digest = None if request.parameter("digest") is None else _digest_parameter(request)
        algorithm = digest.algorithm if digest else parse_algorithm(request.parameter("digest-algorithm") or "sha256")
        if digest is None or (not request.head.has_body and digest != Digest.of(b"", algorithm)):
            return self._upload_response(202, request, self._uploads.start(name, algorithm, identity_of(request).owner))
        with self._uploads.single(name, algorithm) as upload:
            self._uploads.receive(upload, request.body, request.head.length)
            self._registry.finish_upload(upload, digest)
        return self._created_blob(request, name, digest)

    def patch_upload(self, request: Request, fields: Fields) -> Response:
        """Answer end-5: append a chunk, or a stream of unknown length."""
        name = RepositoryName.parse(fields["name"])
        chunk = _content_range(request)
        with (
            self._resumable(request),
            self._uploads.session(name, fields["token"], identity_of(request).owner) as upload,
        ):
            self._uploads.receive(upload, request.body, request.head.length, *chunk)
            return self._upload_response(202, request, upload)

    def put_upload(self, request: Request, fields: Fields) -> Response:
        """Answer end-6: append what the body holds, and publish the blob. Repeated by a client that missed the answer,
        it is 201 again.
        """
        # Clients append `?digest=` to the location, whatever query it has.
        request.query_text = request.query_text.replace("?", "&")
        name, digest, (first, _) = (
            RepositoryName.parse(fields["name"]),
            _digest_parameter(request),
            _content_range(request),
        )
        try:
            with (
                self._resumable(request),
                self._uploads.session(name, fields["token"], identity_of(request).owner) as upload,
            ):
                # Clients count the last offset in more than one way; whether all has arrived is for the digest to tell.
                self._uploads.receive(upload, request.body, request.head.length, first)
                self._registry.finish_upload(upload, digest)
        except RegistryError as error:
            if error.kind is not BLOB_UPLOAD_UNKNOWN or not self._registry.has_blob(name, digest):
                raise
            view = memoryview(bytearray(_READ_BYTES))
            while request.body.read_into(view):
                pass
        response = self._created_blob(request, name, digest)
        response.headers.append(("Docker-Upload-UUID", fields["token"]))
        return response

    def get_upload(self, request: Request, fields: Fields) -> Response:
        """Answer end-13: how far an upload is."""
        return self._upload_response(
            204,
            request,
            self._uploads.peek(RepositoryName.parse(fields["name"]), fields["token"], identity_of(request).owner),
        )

    def delete_upload(self, request: Request, fields: Fields) -> Response:
        """Answer end-14: cancel an upload."""
        name = RepositoryName.parse(fields["name"])
        with (
            self._resumable(request),
            self._uploads.session(name, fields["token"], identity_of(request).owner) as upload,
        ):
            self._uploads.cancel(upload)
        return Response(204, [_NOSNIFF])

    def _created_blob(self, request: Request, name: RepositoryName, digest: Digest) -> Response:
        location = self._locations.of(request, routes.BLOB.path(name=name, digest=digest))
        return Response(201, [("Location", location), ("Docker-Content-Digest", digest), _NOSNIFF])

    def _upload_headers(self, request: Request, upload: Upload) -> dict[str, str]:
        # With a query, as clients expect that append `&digest=` without looking.
        path = f"{routes.UPLOAD.path(name=upload.repository, token=upload.token)}?{_OPEN}"
        return {
            "Location": self._locations.of(request, path),
            "Range": received_range(upload.durable.size),
            "Docker-Upload-UUID": upload.token,
        }

    def _upload_response(self, status: int, request: Request, upload: Upload) -> Response:
        return Response(status, [*self._upload_headers(request, upload).items(), _NOSNIFF])

    @contextlib.contextmanager
    def _resumable(self, request: Request) -> Iterator[None]:
        """Tell a client whose chunk came out of order where to go on (OCI distribution specification, "Pushing a blob
        in chunks").
        """
        try:
            yield
        except OutOfOrder as error:
            raise RegistryError(
                error.kind, error.message, headers=self._upload_headers(request, error.upload)
            ) from error


HANDLERS: dict[tuple[str, str], Callable[[Api, Request, Fields], Response]] = {
    (routes.VERSION.op, routes.GET): Discovery.get_version,
    (routes.VERSION.op, routes.HEAD): Discovery.get_version,
    (routes.CATALOG.op, routes.GET): Discovery.get_catalog,
    (routes.CATALOG.op, routes.HEAD): Discovery.get_catalog,
    (routes.TAGS.op, routes.GET): Discovery.get_tags,
    (routes.TAGS.op, routes.HEAD): Discovery.get_tags,
    (routes.REFERRERS.op, routes.GET): Discovery.get_referrers,
    (routes.REFERRERS.op, routes.HEAD): Discovery.get_referrers,
    (routes.PING.op, routes.GET): Discovery.get_ping,
    (routes.PING.op, routes.HEAD): Discovery.get_ping,
    (routes.SEARCH.op, routes.GET): Discovery.get_search,
    (routes.SEARCH.op, routes.HEAD): Discovery.get_search,
    (routes.MANIFEST.op, routes.GET): Api.get_manifest,
    (routes.MANIFEST.op, routes.HEAD): Api.get_manifest,
    (routes.MANIFEST.op, routes.PUT): Api.put_manifest,
    (routes.MANIFEST.op, routes.DELETE): Api.delete_manifest,
    (routes.BLOB.op, routes.GET): Api.get_blob,
    (routes.BLOB.op, routes.HEAD): Api.head_blob,
    (routes.BLOB.op, routes.DELETE): Api.delete_blob,
    (routes.UPLOADS.op, routes.POST): Api.post_upload,
    (routes.UPLOAD.op, routes.GET): Api.get_upload,
    (routes.UPLOAD.op, routes.PATCH): Api.patch_upload,
    (routes.UPLOAD.op, routes.PUT): Api.put_upload,
    (routes.UPLOAD.op, routes.DELETE): Api.delete_upload,
}


def _actor(request: Request) -> Actor:
    return Actor(request.user, request.client)


def _reference(text: str) -> Reference:
    # A tag has no colon, a digest has one.
    return Digest.parse(text) if ":" in text else Tag.parse(text)


def _digest_parameter(request: Request) -> Digest:
    text = request.parameter("digest")
    if text is None:
        raise RegistryError(DIGEST_INVALID, "the query needs digest=, the digest of the whole blob")
    return Digest.parse(text)


def _content_range(request: Request) -> tuple[int, int] | tuple[None, None]:
    value = request.header("content-range")
    return (None, None) if value is None else parse_content_range(value)


def _mounted(text: str | None) -> Digest | None:
    # A mount that is not possible is no error: the client uploads instead. A digest that is none is one, as everywhere.
    known = (text or "").partition(":")[0] in ALGORITHMS
    return Digest.parse(text or "") if known else None


def _etag(digest: Digest) -> str:
    return f'"{digest}"'


def _not_modified(request: Request, digest: Digest) -> bool:
    tags = request.header("if-none-match")
    return tags is not None and etag_matches(tags, _etag(digest))


def _condition(request: Request) -> Condition | None:
    if_match, if_none_match = request.header("if-match"), request.header("if-none-match")
    if if_match is None and if_none_match is None:
        return None
    preconditions = Preconditions(if_match, if_none_match)
    return lambda before: preconditions.hold(*(digest and _etag(digest) for digest in before))


def _content_headers(digest: Digest, *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [("Docker-Content-Digest", digest), ("ETag", _etag(digest)), *more]


def _ranges_response(blob: StoredBlob, ranges: Sequence[Range]) -> Response:
    """Answer with ranges of a blob, or without any with the whole; with several in one answer (RFC 9110 section 14.6),
    unless the whole costs less.
    """
    headers = [*_BLOB_HEADERS, *_content_headers(blob.digest)]
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
