"""The registry API: manifests and tags (OCI distribution specification 1.1)."""

from __future__ import annotations

from vex.access.identity import identity_of
from vex.api import routes
from vex.api.headers import FOREVER, REVALIDATE, content_headers, not_modified
from vex.api.locations import Locations
from vex.api.manifest_bodies import ManifestBodies
from vex.api.requests import actor_of, condition_of, reference_of
from vex.api.routes import PathFields
from vex.http.answers import Revisions
from vex.http.message import NOSNIFF, Request, Response
from vex.names import Digest, RepositoryName, Tag
from vex.registry.registry import PushedManifest, Registry


class Manifests:
    """The handlers of manifests."""

    def __init__(self, registry: Registry, revisions: Revisions, bodies: ManifestBodies, locations: Locations) -> None:
        self._registry = registry
        self._revisions = revisions
        self._bodies = bodies
        self._locations = locations

    def get_manifest(self, request: Request, fields: PathFields) -> Response:
        """Answer end-3 with the exact bytes and type that were pushed, whatever `Accept` says."""
        name, reference = RepositoryName.parse(fields["name"]), reference_of(fields["reference"])
        basis, lifetime = self._revisions.basis(name), FOREVER if isinstance(reference, Digest) else REVALIDATE
        wanted, identity = request.method != routes.HEAD, identity_of(request)
        row, content, note, note_push = self._registry.read_manifest(
            name, reference, content=wanted, pushing=identity.may_push(name), counted=identity.counted
        )
        basis = basis._replace(on_use=note, on_push=note_push)
        headers = content_headers(row.digest, lifetime)
        if not_modified(request, row.digest):
            return Response(304, headers, basis=basis)
        return Response(
            200, [*headers, ("Content-Type", row.media_type), NOSNIFF], content, length=row.size, basis=basis
        )

    def put_manifest(self, request: Request, fields: PathFields) -> Response:
        """Answer end-7: store a manifest under a tag, or under its digest with the tags of the query."""
        name, reference = RepositoryName.parse(fields["name"]), reference_of(fields["reference"])
        tags = [Tag.parse(tag) for tag in request.query.get("tag", [])]
        condition = condition_of(request)
        if isinstance(reference, Digest):
            self._registry.check_tags(name, tags, reference)

        def push(content: bytes) -> PushedManifest:
            return self._registry.put_manifest(
                name, reference, tags, content, request.header("content-type"), actor_of(request), condition
            )

        pushed = self._bodies.take(request.body, request.head.length, push)
        location = self._locations.of(request, routes.MANIFEST.path(name=name, reference=pushed.digest))
        headers = [("Location", location), ("Docker-Content-Digest", pushed.digest), NOSNIFF]
        if pushed.subject:
            headers.append(("OCI-Subject", pushed.subject))
        headers += [("OCI-Tag", tag) for tag in tags]
        return Response(201, headers)

    def delete_manifest(self, request: Request, fields: PathFields) -> Response:
        """Answer end-9 for a tag or a digest."""
        name, reference = RepositoryName.parse(fields["name"]), reference_of(fields["reference"])
        if isinstance(reference, Digest):
            self._registry.delete_manifest(name, reference, actor_of(request))
        else:
            self._registry.delete_tag(name, reference, actor_of(request))
        return Response(202, [NOSNIFF])
