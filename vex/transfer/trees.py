"""The manifests of an image that is copied: itself, the children of an index, and what these need.

Invariants: a manifest that the target has is read there. What is kept of a tree is bounded: past a number of bytes
the content of its manifests is read again when it is needed, and a number of parts ends it.
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from vex.errors import Refused, RegistryError
from vex.formats.manifest import ACCEPTED, Manifest, ManifestLimits, parse_manifest
from vex.names import Digest, RepositoryName
from vex.transfer.endpoints import Document, Endpoints
from vex.transfer.sources import Source

_MAX_DEPTH = 16
# The manifests of an image and of its parts are read twice where they have more than this together.
_MAX_KEPT_BYTES = 8 * 1024 * 1024
# Children and blobs of an image and of its parts.
_MAX_DESCRIPTORS = 60_000


class Node(NamedTuple):
    """A manifest to be copied, or there already: its blobs; its content only as long as there is room for that."""

    document: Document | None
    media_type: str
    blobs: dict[Digest, int]
    present: bool


class ManifestReader:
    """The manifests of both ends of an import."""

    def __init__(self, source: Source, target: Endpoints, limits: ManifestLimits) -> None:
        self._source = source
        self._target = target
        self._limits = limits

    def fetch(self, repository: RepositoryName, digest: Digest) -> tuple[Document, bool]:
        """Read a manifest from the registry that has it, the target if possible; and tell whether that was so."""
        try:
            return self._target.manifest(repository, digest), True
        except Refused as refused:
            if refused.status != 404:
                raise
        return self._source.manifest(repository, digest), False

    def parse(self, document: Document) -> Manifest:
        """Read what a manifest says; raises MANIFEST_INVALID."""
        return parse_manifest(document.content, document.media_type, self._limits)


class Tree:
    """A manifest with those that it needs, each behind its children, except for those that are `known`."""

    def __init__(
        self, manifests: ManifestReader, repository: RepositoryName, digest: Digest, known: Container[Digest]
    ) -> None:
        """Read all of them; raises Refused and RegistryError."""
        self._manifests = manifests
        self._repository = repository
        self._known = known
        self._room, self._descriptors = _MAX_KEPT_BYTES, 0
        self.nodes: dict[Digest, Node] = {}
        self.manifest = self._gather(digest, _MAX_DEPTH)

    def _gather(self, digest: Digest, depth: int) -> Manifest:
        if not depth:
            raise Refused(0, f"indexes in indexes, more than {_MAX_DEPTH} levels of them")
        document, present = self._manifests.fetch(self._repository, digest)
        manifest = self._manifests.parse(document)
        for child in manifest.manifests:
            if child.media_type in ACCEPTED and child.digest not in self.nodes and child.digest not in self._known:
                try:
                    self._gather(child.digest, depth - 1)
                except Refused as refused:
                    raise refused.of(f"its part {child.digest}") from refused
                except RegistryError as error:
                    raise Refused(0, f"its part {child.digest}: {error}") from error
        blobs = _blobs_of(manifest)
        self._room -= len(document.content)
        self._descriptors += len(manifest.manifests) + len(blobs)
        if self._descriptors > _MAX_DESCRIPTORS:
            raise Refused(0, f"its manifests list more than {_MAX_DESCRIPTORS:,} parts")
        self.nodes[digest] = Node(document if self._room >= 0 else None, manifest.media_type, blobs, present)
        return manifest


def _blobs_of(manifest: Manifest) -> dict[Digest, int]:
    # BuildKit's cache images are indexes of layers.
    parts = [child for child in manifest.manifests if child.required and child.media_type not in ACCEPTED]
    return {blob.digest: blob.size for blob in (*manifest.blobs, *parts)}
