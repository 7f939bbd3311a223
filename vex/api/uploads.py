"""The registry API: uploads of blobs, whole or in chunks (OCI distribution specification 1.1, "Pushing Blobs")."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vex.access.identity import identity_of
from vex.api import routes
from vex.api.locations import Locations
from vex.api.requests import digest_parameter, may_pull, sent_range
from vex.api.routes import PathFields
from vex.errors import BLOB_UPLOAD_UNKNOWN, RegistryError
from vex.http.message import NOSNIFF, Request, Response
from vex.names import ALGORITHMS, Digest, RepositoryName, parse_algorithm
from vex.registry.registry import Registry
from vex.registry.uploads import OutOfOrder, Uploads, received_range
from vex.storage.upload_files import Upload

_READ_BYTES = 64 * 1024
_OPEN = "state=open"


class BlobUploads:
    """The handlers of uploads; `public` says whether everyone can read everything, without a password."""

    def __init__(self, registry: Registry, uploads: Uploads, locations: Locations, *, public: bool) -> None:
        self._registry = registry
        self._uploads = uploads
        self._locations = locations
        self._public = public

    def post_upload(self, request: Request, fields: PathFields) -> Response:
        """Answer end-4a, end-4b, end-4c and end-11: open a session, take a whole blob, or mount one."""
        name = RepositoryName.parse(fields["name"])
        mounted = _mounted(request.parameter("mount"))
        if mounted and self._registry.mount(name, mounted, may_pull(request, public=self._public)):
            return self._created_blob(request, name, mounted)
        digest = None if request.parameter("digest") is None else digest_parameter(request)
        algorithm = digest.algorithm if digest else parse_algorithm(request.parameter("digest-algorithm") or "sha256")
        if digest is None or (not request.head.has_body and digest != Digest.of(b"", algorithm)):
            return self._upload_response(202, request, self._uploads.start(name, algorithm, identity_of(request).owner))
        with self._uploads.single(name, algorithm) as upload:
            self._uploads.receive(upload, request.body, request.head.length)
            self._registry.finish_upload(upload, digest)
        return self._created_blob(request, name, digest)

    def patch_upload(self, request: Request, fields: PathFields) -> Response:
        """Answer end-5: append a chunk, or a stream of unknown length."""
        name = RepositoryName.parse(fields["name"])
        chunk = sent_range(request)
        with (
            self._resumable(request),
            self._uploads.session(name, fields["token"], identity_of(request).owner) as upload,
        ):
            self._uploads.receive(upload, request.body, request.head.length, *chunk)
            return self._upload_response(202, request, upload)

    def put_upload(self, request: Request, fields: PathFields) -> Response:
        """Answer end-6: append what the body holds, and publish the blob. Repeated by a client that missed the answer,
        it is 201 again.
        """
        # Clients append `?digest=` to the location, whatever query it has.
        request.query_text = request.query_text.replace("?", "&")
        name, digest, (first, _) = (
            RepositoryName.parse(fields["name"]),
            digest_parameter(request),
            sent_range(request),
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

    def get_upload(self, request: Request, fields: PathFields) -> Response:
        """Answer end-13: how far an upload is."""
        return self._upload_response(
            204,
            request,
            self._uploads.peek(RepositoryName.parse(fields["name"]), fields["token"], identity_of(request).owner),
        )

    def delete_upload(self, request: Request, fields: PathFields) -> Response:
        """Answer end-14: cancel an upload."""
        name = RepositoryName.parse(fields["name"])
        with (
            self._resumable(request),
            self._uploads.session(name, fields["token"], identity_of(request).owner) as upload,
        ):
            self._uploads.cancel(upload)
        return Response(204, [NOSNIFF])

    def _created_blob(self, request: Request, name: RepositoryName, digest: Digest) -> Response:
        location = self._locations.of(request, routes.BLOB.path(name=name, digest=digest))
        return Response(201, [("Location", location), ("Docker-Content-Digest", digest), NOSNIFF])

    def _upload_headers(self, request: Request, upload: Upload) -> dict[str, str]:
        # With a query, as clients expect that append `&digest=` without looking.
        path = f"{routes.UPLOAD.path(name=upload.repository, token=upload.token)}?{_OPEN}"
        return {
            "Location": self._locations.of(request, path),
            "Range": received_range(upload.durable.size),
            "Docker-Upload-UUID": upload.token,
        }

    def _upload_response(self, status: int, request: Request, upload: Upload) -> Response:
        return Response(status, [*self._upload_headers(request, upload).items(), NOSNIFF])

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


def _mounted(text: str | None) -> Digest | None:
    # A mount that is not possible is no error: the client uploads instead. A digest that is none is one, as everywhere.
    known = (text or "").partition(":")[0] in ALGORITHMS
    return Digest.parse(text or "") if known else None
