"""The registry API: requests of the OCI distribution specification 1.1 become operations of `registry.py`, results become answers.

A handler checks what the client sent into value types, calls one operation, and returns a Response or raises; it is given
the fields of its route, unchecked. Who may call it was decided before, in `app.py`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple
from urllib.parse import quote

from vex import routes
from vex.answers import Revisions
from vex.audit import Actor
from vex.byteranges import Range, content_range, multipart, parse_ranges
from vex.errors import BLOB_UNKNOWN, BLOB_UPLOAD_UNKNOWN, DIGEST_INVALID, MANIFEST_TOO_LARGE, PAGINATION_NUMBER_INVALID, RegistryError
from vex.fields import etag_matches, if_range_matches, parse_content_range
from vex.message import Request, Response, json_response
from vex.names import Digest, RepositoryName, Tag, parse_algorithm
from vex.registry import Reference, Registry, StoredBlob
from vex.store import ReferrerRow
from vex.uploads import OutOfOrder, Upload, Uploads, received_range
from vex.wire import Body

Fields = dict[str, str]

_NUMBER = re.compile(r"[0-9]{1,19}")
_READ_BYTES = 64 * 1024
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


class PageLimits(NamedTuple):
    """How many entries a page has when the client does not say, and at most."""

    usual: int
    most: int


class Delivery(NamedTuple):
    """Who sends blobs instead: a URL template where public ones are, and the internal location of an nginx in front; "" for nobody."""

    redirect: str = ""
    accel: str = ""


class Api:
    """The handlers, by route and method in `HANDLERS`."""

    def __init__(
        self, registry: Registry, uploads: Uploads, revisions: Revisions, pages: PageLimits, manifest_bytes: int, delivery: Delivery | None = None
    ) -> None:
        self._registry = registry
        self._revisions = revisions
        self._uploads = uploads
        self._pages = pages
        self._manifest_bytes = manifest_bytes
        self._delivery = delivery or Delivery()

    def handle(self, route: routes.Route, request: Request, fields: Fields) -> Response:
        """Answer a request whose method the route takes."""
        return HANDLERS[route.op, request.method](self, request, fields)

    # Discovery

    def get_version(self, _request: Request, _fields: Fields) -> Response:
        """Answer end-1: this is a registry."""
        return json_response(200, {}, [_NOSNIFF])

    def get_catalog(self, request: Request, _fields: Fields) -> Response:
        """Answer Docker's catalog: the repositories that hold a manifest."""
        basis = self._revisions.basis("")
        names, link = self._page(request, routes.CATALOG.path(), self._registry.list_repositories)
        return json_response(200, {"repositories": names}, [_REVALIDATE, _NOSNIFF, *link], basis=basis)

    def get_tags(self, request: Request, fields: Fields) -> Response:
        """Answer end-8: the tags of a repository."""
        name = RepositoryName.parse(fields["name"])
        basis = self._revisions.basis(name)
        tags, link = self._page(request, routes.TAGS.path(name=name), lambda last, limit: self._registry.list_tags(name, last, limit))
        return json_response(200, {"name": name, "tags": tags}, [_REVALIDATE, _NOSNIFF, *link], basis=basis)

    def get_referrers(self, request: Request, fields: Fields) -> Response:
        """Answer end-12: an index of the manifests with this subject."""
        name, subject = RepositoryName.parse(fields["name"]), Digest.parse(fields["digest"])
        artifact_type = request.parameter("artifactType") or ""
        rows, more = self._registry.referrers(name, subject, artifact_type, request.parameter("last") or "", self._pages.usual)
        headers = [_REVALIDATE, _NOSNIFF]
        if artifact_type:
            headers.append(("OCI-Filters-Applied", "artifactType"))
        if more:
            query = f"artifactType={quote(artifact_type, safe='')}&" if artifact_type else ""
            headers.append(_link(routes.REFERRERS.path(name=name, digest=subject), f"{query}last={rows[-1].digest}"))
        # Loaded here, since it is not needed to start.
        from vex.manifest import OCI_INDEX

        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [_referrer(row) for row in rows]}
        return json_response(200, index, headers, media_type=OCI_INDEX)

    def _page(self, request: Request, path: str, load: Callable[[str, int], list[str]]) -> tuple[list[str], list[tuple[str, str]]]:
        """Load a page by `n` and `last`; the link is empty when nothing follows (OCI distribution specification, "Listing Tags")."""
        asked = request.parameter("n")
        if asked is not None and not _NUMBER.fullmatch(asked):
            raise RegistryError(PAGINATION_NUMBER_INVALID)
        limit = self._pages.usual if asked is None else min(int(asked), self._pages.most)
        entries = load(request.parameter("last") or "", limit + 1)
        if limit == 0 or len(entries) <= limit:
            return entries[:limit], []
        return entries[:limit], [_link(path, f"n={limit}&last={quote(entries[limit - 1], safe='')}")]

    # Manifests

    def get_manifest(self, request: Request, fields: Fields) -> Response:
        """Answer end-3 with the exact bytes and type that were pushed, whatever `Accept` says."""
        name, reference = RepositoryName.parse(fields["name"]), _reference(fields["reference"])
        basis, content, lifetime = self._revisions.basis(name), b"", _FOREVER if isinstance(reference, Digest) else _REVALIDATE
        if request.method == routes.HEAD:
            row = self._registry.find_manifest(name, reference)
        else:
            row, content, note = self._registry.read_manifest(name, reference)
            basis = basis._replace(on_use=note)
        headers = _content_headers(row.digest, lifetime)
        if _not_modified(request, row.digest):
            return Response(304, headers, basis=basis)
        return Response(200, [*headers, ("Content-Type", row.media_type), _NOSNIFF], content, length=row.size, basis=basis)

    def put_manifest(self, request: Request, fields: Fields) -> Response:
        """Answer end-7: store a manifest under a tag, or under its digest with the tags of the query."""
        name, reference = RepositoryName.parse(fields["name"]), _reference(fields["reference"])
        tags = [Tag.parse(tag) for tag in request.query.get("tag", [])]
        content = self._read_manifest(request)
        pushed = self._registry.put_manifest(name, reference, tags, content, request.header("content-type"), _actor(request))
        headers = [("Location", routes.MANIFEST.path(name=name, reference=pushed.digest)), ("Docker-Content-Digest", pushed.digest), _NOSNIFF]
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

    def _read_manifest(self, request: Request) -> bytes:
        too_large = RegistryError(MANIFEST_TOO_LARGE, f"the manifest is larger than the {self._manifest_bytes} bytes this registry takes")
        if (request.head.length or 0) > self._manifest_bytes:
            raise too_large
        content = bytearray()
        for piece in _pieces(request.body):
            content += piece
            if len(content) > self._manifest_bytes:
                raise too_large
        return bytes(content)

    # Blobs

    def get_blob(self, request: Request, fields: Fields) -> Response:
        """Answer end-2 for GET: a blob, ranges of it, 304, or where it is."""
        name, digest = RepositoryName.parse(fields["name"]), Digest.parse(fields["digest"])
        if _not_modified(request, digest):
            self._registry.find_blob(name, digest)
            return Response(304, _content_headers(digest, _FOREVER))
        blob = self._registry.open_blob(name, digest)
        if blob.file and (delivered := self._delivered(request, digest)):
            blob.file.close()
            return delivered
        try:
            ranges = parse_ranges(request.header("range"), blob.size) if if_range_matches(request.header("if-range"), _etag(digest)) else None
        except RegistryError:
            if blob.file:
                blob.file.close()
            raise
        return _ranges_response(blob, ranges or ())

    def _delivered(self, request: Request, digest: Digest) -> Response | None:
        """Answer that a blob comes from elsewhere, if it does; whoever sends it answers ranges."""
        algorithm, _, encoded = digest.partition(":")
        if self._delivery.redirect and request.listener == _PUBLIC:
            url = self._delivery.redirect.replace("{digest}", digest).replace("{algorithm}", algorithm).replace("{encoded}", encoded)
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
        basis = self._revisions.basis(name)
        try:
            size = self._registry.find_blob(name, digest)
        except RegistryError as error:
            if not request.identity.may_push(name) or error.kind is not BLOB_UNKNOWN:
                raise
            size = self._registry.hold_blob(name, digest)
        if _not_modified(request, digest):
            return Response(304, _content_headers(digest, _FOREVER))
        return Response(200, [("Content-Type", _BLOB_TYPE), *_BLOB_HEADERS, *_content_headers(digest)], length=size, basis=basis)

    def delete_blob(self, request: Request, fields: Fields) -> Response:
        """Answer end-10."""
        self._registry.delete_blob(RepositoryName.parse(fields["name"]), Digest.parse(fields["digest"]), _actor(request))
        return Response(202, [_NOSNIFF])

    # Uploads

    def post_upload(self, request: Request, fields: Fields) -> Response:
        """Answer end-4a, end-4b, end-4c and end-11: open a session, take a whole blob, or mount one."""
        name = RepositoryName.parse(fields["name"])
        mounted = _digest_or_none(request.parameter("mount"))
        if mounted and self._registry.mount(name, mounted):
            return _created_blob(name, mounted)
        digest = None if request.parameter("digest") is None else _digest_parameter(request)
        algorithm = digest.algorithm if digest else parse_algorithm(request.parameter("digest-algorithm") or "sha256")
        upload = self._uploads.start(name, algorithm)
        if digest is None or (not request.head.has_body and digest != Digest.of(b"", algorithm)):
            return _upload_response(202, upload)
        try:
            with self._uploads.session(name, upload.token):
                self._uploads.receive(upload, request.body, request.head.length)
                self._registry.finish_upload(upload, digest)
        finally:
            # The client was not told of this session, and cannot come back to it.
            self._uploads.cancel(upload)
        return _created_blob(name, digest)

    def patch_upload(self, request: Request, fields: Fields) -> Response:
        """Answer end-5: append a chunk, or a stream of unknown length."""
        name = RepositoryName.parse(fields["name"])
        with _resumable(), self._uploads.session(name, fields["token"]) as upload:
            self._receive(upload, request)
            return _upload_response(202, upload)

    def put_upload(self, request: Request, fields: Fields) -> Response:
        """Answer end-6: append what the body holds, and publish the blob. Repeated by a client that missed the answer, it is 201 again."""
        name, digest = RepositoryName.parse(fields["name"]), _digest_parameter(request)
        try:
            with _resumable(), self._uploads.session(name, fields["token"]) as upload:
                self._receive(upload, request)
                self._registry.finish_upload(upload, digest)
        except RegistryError as error:
            if error.kind is not BLOB_UPLOAD_UNKNOWN or not self._registry.has_blob(name, digest):
                raise
            for _ in _pieces(request.body):
                pass
        response = _created_blob(name, digest)
        response.headers.append(("Docker-Upload-UUID", fields["token"]))
        return response

    def get_upload(self, _request: Request, fields: Fields) -> Response:
        """Answer end-13: how far an upload is."""
        return _upload_response(204, self._uploads.peek(RepositoryName.parse(fields["name"]), fields["token"]))

    def delete_upload(self, _request: Request, fields: Fields) -> Response:
        """Answer end-14: cancel an upload."""
        name = RepositoryName.parse(fields["name"])
        with _resumable(), self._uploads.session(name, fields["token"]) as upload:
            self._uploads.cancel(upload)
        return Response(204, [_NOSNIFF])

    def _receive(self, upload: Upload, request: Request) -> None:
        content_range = request.header("content-range")
        try:
            part = None if content_range is None else parse_content_range(content_range)
        except RegistryError as error:
            raise OutOfOrder(upload, error.message) from None
        self._uploads.receive(upload, request.body, request.head.length, part)


HANDLERS: dict[tuple[str, str], Callable[[Api, Request, Fields], Response]] = {
    (routes.VERSION.op, routes.GET): Api.get_version,
    (routes.VERSION.op, routes.HEAD): Api.get_version,
    (routes.CATALOG.op, routes.GET): Api.get_catalog,
    (routes.CATALOG.op, routes.HEAD): Api.get_catalog,
    (routes.TAGS.op, routes.GET): Api.get_tags,
    (routes.TAGS.op, routes.HEAD): Api.get_tags,
    (routes.REFERRERS.op, routes.GET): Api.get_referrers,
    (routes.REFERRERS.op, routes.HEAD): Api.get_referrers,
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


def _digest_or_none(text: str | None) -> Digest | None:
    # A mount that is not possible is never an error: the client uploads instead.
    with contextlib.suppress(RegistryError):
        return Digest.parse(text or "")
    return None


def _etag(digest: Digest) -> str:
    return f'"{digest}"'


def _not_modified(request: Request, digest: Digest) -> bool:
    tags = request.header("if-none-match")
    return tags is not None and etag_matches(tags, _etag(digest))


def _content_headers(digest: Digest, *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [("Docker-Content-Digest", digest), ("ETag", _etag(digest)), *more]


def _ranges_response(blob: StoredBlob, ranges: Sequence[Range]) -> Response:
    """Answer with ranges of a blob, or without any with the whole; with several in one answer (RFC 9110 section 14.6), unless the whole costs less."""
    headers = [*_BLOB_HEADERS, *_content_headers(blob.digest)]
    several = multipart(ranges, blob.size, _BLOB_TYPE) if len(ranges) > 1 else None
    if several:
        content = b"" if blob.file else b"".join(before + blob.content[slice(*part)] for before, part in several.parts)
        headers = [("Content-Type", several.media_type), *headers]
        return Response(206, headers, content, file=blob.file, parts=several.parts if blob.file else (), length=several.length)
    headers = [("Content-Type", _BLOB_TYPE), *headers]
    if len(ranges) != 1:
        return Response(200, headers, blob.content, file=blob.file, length=blob.size)
    first, end = ranges[0]
    headers.append(("Content-Range", content_range(ranges[0], blob.size)))
    return Response(206, headers, blob.content[first:end], file=blob.file, offset=first, length=end - first)


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


def _created_blob(name: RepositoryName, digest: Digest) -> Response:
    return Response(201, [("Location", routes.BLOB.path(name=name, digest=digest)), ("Docker-Content-Digest", digest), _NOSNIFF])


def _upload_headers(upload: Upload) -> dict[str, str]:
    location = routes.UPLOAD.path(name=upload.repository, token=upload.token)
    return {"Location": location, "Range": received_range(upload.offset), "Docker-Upload-UUID": upload.token}


def _upload_response(status: int, upload: Upload) -> Response:
    return Response(status, [*_upload_headers(upload).items(), _NOSNIFF])


@contextlib.contextmanager
def _resumable() -> Iterator[None]:
    """Tell a client whose chunk came out of order where to go on (OCI distribution specification, "Pushing a blob in chunks")."""
    try:
        yield
    except OutOfOrder as error:
        raise RegistryError(error.kind, error.message, headers=_upload_headers(error.upload)) from error


def _pieces(body: Body) -> Iterator[memoryview]:
    view = memoryview(bytearray(_READ_BYTES))
    while count := body.read_into(view):
        yield view[:count]
