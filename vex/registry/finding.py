"""What a request names: the manifest of a reference, and whether who asks may have a blob."""

from __future__ import annotations

from typing import Callable, Union

from vex.errors import MANIFEST_UNKNOWN, RegistryError
from vex.names import Digest, RepositoryName, Tag
from vex.storage import blob_rows, manifest_rows, repository_rows
from vex.storage.database import Transaction

Reference = Union[Tag, Digest]
# Tells whether a client may pull from a repository.
MayPull = Callable[[str], bool]

# In so many repositories a blob is looked for, by one who may not pull everywhere; past it the client has to send it.
_MOST_LOOKED_AT = 200


def find_manifest(tx: Transaction, name: RepositoryName, reference: Reference) -> tuple[int, manifest_rows.ManifestRow]:
    """Return the ids of repository and manifest with what is known of it; raises MANIFEST_UNKNOWN."""
    repository = repository_rows.find_repository(tx, name)
    if repository is not None:
        by_digest = isinstance(reference, Digest)
        row = (
            manifest_rows.find_manifest(tx, repository, Digest(reference))
            if by_digest
            else manifest_rows.find_tagged_manifest(tx, repository, Tag(reference))
        )
        if row is not None:
            return repository, row
    raise RegistryError(MANIFEST_UNKNOWN)


def digest_of(tx: Transaction, repository: int, reference: Reference) -> Digest | None:
    """Return what a reference points to; None for what is not there."""
    row = (
        manifest_rows.find_manifest(tx, repository, reference)
        if isinstance(reference, Digest)
        else manifest_rows.find_tagged_manifest(tx, repository, reference)
    )
    return row and row.digest


def may_pull_blob(tx: Transaction, blob: int, now: int, may_pull: MayPull, *, leased: bool) -> bool:
    """Tell whether a client may pull from a repository whose manifests reference a blob, or, if leases count, that
    holds one on it.
    """
    holders = blob_rows.holding_repositories(tx, blob, now, _MOST_LOOKED_AT)
    return any(may_pull(name) for name, referenced in holders if referenced or leased)
