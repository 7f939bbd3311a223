"""The registry API: requests of the OCI distribution specification 1.1 become operations of `registry.py`, results
become answers.

A handler checks what the client sent into value types, calls one operation, and returns a Response or raises; it is
given the fields of its route, unchecked. Who may call it was decided before, in `app.py`.
"""

from __future__ import annotations

from typing import Callable

from vex.api import routes
from vex.api.blobs import Blobs
from vex.api.lists import Discovery
from vex.api.manifests import Manifests
from vex.api.routes import DELETE, GET, HEAD, PATCH, POST, PUT, PathFields
from vex.api.uploads import BlobUploads
from vex.http.message import Request, Response

Handler = Callable[[Request, PathFields], Response]


class Api:
    """The handlers of all resources, by route and method."""

    def __init__(self, lists: Discovery, manifests: Manifests, blobs: Blobs, uploads: BlobUploads) -> None:
        self._handlers: dict[tuple[str, str], Handler] = {
            (routes.MANIFEST.op, GET): manifests.get_manifest,
            (routes.MANIFEST.op, HEAD): manifests.get_manifest,
            (routes.MANIFEST.op, PUT): manifests.put_manifest,
            (routes.MANIFEST.op, DELETE): manifests.delete_manifest,
            (routes.BLOB.op, GET): blobs.get_blob,
            (routes.BLOB.op, HEAD): blobs.head_blob,
            (routes.BLOB.op, DELETE): blobs.delete_blob,
            (routes.UPLOADS.op, POST): uploads.post_upload,
            (routes.UPLOAD.op, GET): uploads.get_upload,
            (routes.UPLOAD.op, PATCH): uploads.patch_upload,
            (routes.UPLOAD.op, PUT): uploads.put_upload,
            (routes.UPLOAD.op, DELETE): uploads.delete_upload,
        }
        for route, handler in (
            (routes.VERSION, lists.get_version),
            (routes.CATALOG, lists.get_catalog),
            (routes.TAGS, lists.get_tags),
            (routes.REFERRERS, lists.get_referrers),
            (routes.PING, lists.get_ping),
            (routes.SEARCH, lists.get_search),
        ):
            self._handlers[route.op, GET] = self._handlers[route.op, HEAD] = handler

    def handle(self, route: routes.Route, request: Request, fields: PathFields) -> Response:
        """Answer a request whose method the route takes."""
        return self._handlers[route.op, request.method](request, fields)
