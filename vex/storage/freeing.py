"""The queries of `registry/freeing.py`: what hangs on a manifest, and what else holds a blob. Nothing is changed."""

from __future__ import annotations

from typing import NamedTuple

from vex.names import Digest
from vex.storage.database import Transaction
from vex.storage.removal import GONE, HELD


class Hanging(NamedTuple):
    """A manifest of a repository; `holders` counts the tags and indexes that reference it."""

    digest: Digest
    holders: int


class Held(NamedTuple):
    """A manifest as a repository holds it: with the media type that it was pushed with, and its subject."""

    id: int
    media_type: str
    subject: Digest | None
    digest: Digest


def find_hanging(tx: Transaction, repository: int, manifest: int) -> Hanging | None:
    """Find a manifest that is not on its way out already."""
    row = tx.row(
        "SELECT digest, holders FROM repository_manifest JOIN manifest ON id = manifest WHERE repository = ? AND"
        " manifest = ? AND state < ?",
        (repository, manifest, HELD),
    )
    return None if row is None else Hanging(Digest(row[0]), row[1])


def children(tx: Transaction, repository: int, manifest: int) -> list[int]:
    """Return the ids of the manifests that an index references."""
    rows = tx.rows("SELECT child FROM manifest_child WHERE repository = ? AND parent = ?", (repository, manifest))
    return [row[0] for row in rows]


def referrers(tx: Transaction, repository: int, subject: Digest) -> list[int]:
    """Return the ids of the manifests with this subject that are not on their way out."""
    rows = tx.rows(
        "SELECT manifest FROM repository_manifest INDEXED BY repository_manifest_subject WHERE repository = ? AND"
        " subject = ? AND state < ? ORDER BY manifest",
        (repository, subject, HELD),
    )
    return [row[0] for row in rows]


def blobs(tx: Transaction, repository: int, manifest: int) -> list[tuple[int, int]]:
    """Return (id, size) of the blobs that a manifest references."""
    rows = tx.rows(
        "SELECT id, size FROM manifest_blob JOIN blob ON id = blob WHERE repository = ? AND manifest = ?",
        (repository, manifest),
    )
    return [(row[0], row[1]) for row in rows]


def is_held(tx: Transaction, blob: int, going: set[tuple[int, int]], now: int) -> bool:
    """Tell whether a lease holds a blob, or a manifest that is neither among these, (repository, manifest), nor on its
    way out already.
    """
    if tx.value("SELECT 1 FROM lease WHERE blob = ? AND expires > ? LIMIT 1", (blob, now)):
        return True
    # Of a layer that half a million images share, the first that stays is enough.
    return any(
        (repository, manifest) not in going
        for repository, manifest in tx.each(
            "SELECT b.repository, b.manifest FROM manifest_blob b CROSS JOIN repository_manifest r ON r.repository ="
            " b.repository AND r.manifest = b.manifest WHERE b.blob = ? AND r.state < ?",
            (blob, HELD),
        )
    )


def find_held(tx: Transaction, repository: int, manifest: int) -> Held | None:
    """Find what a repository holds a manifest as, if that can be fetched."""
    row = tx.row(
        "SELECT manifest, media_type, subject, digest FROM repository_manifest JOIN manifest ON id = manifest WHERE"
        " repository = ? AND manifest = ? AND state < ?",
        (repository, manifest, GONE),
    )
    return None if row is None else Held(row[0], row[1], row[2] and Digest(row[2]), Digest(row[3]))
