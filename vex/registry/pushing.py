"""What a push of a manifest adds: its checked fields, its row, its references, its summary."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import NamedTuple

from vex.errors import MANIFEST_BLOB_UNKNOWN, MANIFEST_INVALID, RegistryError
from vex.formats.image import Summary
from vex.formats.manifest import Descriptor, Manifest, ManifestLimits, parse_manifest
from vex.names import Digest
from vex.registry.pulls import Pulls
from vex.registry.references import holds_blob
from vex.registry.summaries import read_summary
from vex.storage import blob_rows, listings, manifest_rows, removal
from vex.storage.blobs import BlobFiles
from vex.storage.database import Transaction

__all__ = ["CheckedManifest", "ManifestLimits", "Push", "check_manifest", "put_manifest_content"]

# How many references an error names.
_NAMED = 10
_ENCODED_AT_ONCE = 1000


class CheckedManifest(NamedTuple):
    """A manifest that was checked, its summary, and its annotations as JSON."""

    manifest: Manifest
    summary: Summary
    annotations: str

    @property
    def subject(self) -> Digest | None:
        """The digest of what it refers to."""
        return self.manifest.subject.digest if self.manifest.subject else None


def check_manifest(
    content: bytes, content_type: str | None, limits: ManifestLimits, files: BlobFiles
) -> CheckedManifest:
    """Check a pushed manifest, as `parse_manifest`, and summarise it; may read a file, and take its time."""
    manifest = parse_manifest(content, content_type, limits)
    return CheckedManifest(manifest, read_summary(manifest, files), _encode(manifest.annotations))


class Push(NamedTuple):
    """A push of a manifest to a repository at a time; `wait` is how long a referrer waits for its subject, in
    seconds.
    """

    repository: int
    now: int
    wait: int
    pulls: Pulls


def put_manifest_content(tx: Transaction, push: Push, digest: Digest, content: bytes, checked: CheckedManifest) -> int:
    """Store a manifest in a repository with its references; returns its row's id. Raises MANIFEST_BLOB_UNKNOWN and
    MANIFEST_INVALID.
    """
    manifest, repository, subject = checked.manifest, push.repository, checked.subject
    row = manifest_rows.save_manifest(tx, digest, content, manifest.artifact_type, checked.annotations)
    blobs, children = _resolve(tx, push, manifest)
    waits = subject is not None and not removal.has_subject(tx, repository, subject)
    manifest_rows.add_manifest(
        tx, repository, row, manifest.media_type, subject, push.now, push.now + push.wait if waits else None
    )
    manifest_rows.add_references(tx, repository, row, blobs, children)
    for child in children:
        removal.revive(tx, repository, child)
    removal.keep_waiting_referrers(tx, repository, digest)
    listings.save_summary(tx, repository, row, checked.summary)
    blob_rows.drop_leases(tx, repository, blobs)
    return row


def _encode(annotations: Mapping[str, str]) -> str:
    # In pieces: the encoder does not let go of the interpreter lock, and hundreds of thousands of them would keep
    # everybody else waiting.
    items = iter(annotations.items())
    pieces = []
    while piece := dict(itertools.islice(items, _ENCODED_AT_ONCE)):
        pieces.append(json.dumps(piece)[1:-1])
    return f"{{{', '.join(pieces)}}}"


def _resolve(tx: Transaction, push: Push, manifest: Manifest) -> tuple[set[int], set[int]]:
    """Return the ids of the blobs and the manifests that a manifest references; raises MANIFEST_BLOB_UNKNOWN and
    MANIFEST_INVALID.
    """
    blobs: set[int] = set()
    children: set[int] = set()
    missing: list[Digest] = []
    needed: dict[Digest, Descriptor] = {}
    for descriptor in filter(None, (*manifest.manifests, manifest.config, *manifest.layers)):
        # Thousands of layers may be one; their sizes are equal, but not each of them may have to be here.
        if descriptor.required or descriptor.digest not in needed:
            needed[descriptor.digest] = descriptor
    if manifest.is_index:
        for descriptor in list(needed.values()):
            child = manifest_rows.find_child(tx, push.repository, descriptor.digest, push.now)
            if child is not None:
                _check_size(descriptor, child.size)
                children.add(child.id)
                del needed[descriptor.digest]
    # BuildKit's cache images are indexes of layers: a child that is no manifest may be a blob.
    found = {
        blob.digest: (blob, here)
        for blob, here in blob_rows.find_with_presence(tx, push.repository, needed, push.now)
        if not blob.damaged
    }
    for descriptor in needed.values():
        blob, here = found.get(descriptor.digest, (None, False))
        if blob and (here or holds_blob(tx, push.pulls, push.repository, blob, push.now)):
            _check_size(descriptor, blob.size)
            blobs.add(blob.id)
        elif descriptor.required:
            missing.append(descriptor.digest)
    if missing:
        message = (
            f"the manifest references content that is not in this repository: {', '.join(missing[:_NAMED])}; push that"
            " first"
        )
        raise RegistryError(MANIFEST_BLOB_UNKNOWN, message, detail={"missing": missing})
    return blobs, children


def _check_size(descriptor: Descriptor, size: int) -> None:
    if descriptor.size != size:
        raise RegistryError(
            MANIFEST_INVALID,
            f"the manifest says that {descriptor.digest} has {descriptor.size} bytes, but it has {size}",
        )
