"""The queries of blobs, and of what holds them: manifests, and leases."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from vex.names import Digest
from vex.storage.database import Transaction

# SQLite took at most 999 parameters in a statement once.
_BATCH = 500
T = TypeVar("T")


class BlobRow(NamedTuple):
    """A blob; `size` in bytes."""

    id: int
    digest: Digest
    size: int
    damaged: bool


def find_blob(tx: Transaction, digest: Digest) -> BlobRow | None:
    """Find a blob anywhere in the registry."""
    row = tx.row("SELECT id, digest, size, damaged FROM blob WHERE digest = ?", (digest,))
    return None if row is None else BlobRow(row[0], Digest(row[1]), row[2], bool(row[3]))


def is_known(tx: Transaction, digest: Digest) -> bool:
    """Tell whether a blob or a manifest has this digest, in one query."""
    return bool(
        tx.value(
            "SELECT EXISTS (SELECT 1 FROM blob WHERE digest = ?) OR EXISTS (SELECT 1 FROM manifest WHERE digest = ?)",
            (digest, digest),
        )
    )


def find_with_presence(
    tx: Transaction, repository: int, digests: Iterable[Digest], now: int
) -> Iterator[tuple[BlobRow, bool]]:
    """Find several blobs, and tell of each whether it is in a repository, as `blob_in_repository`."""
    for batch in batches(digests):
        rows = tx.rows(
            "SELECT id, digest, size, damaged, EXISTS (SELECT 1 FROM manifest_blob WHERE repository = ? AND blob = id)"  # noqa: S608 -- only marks
            " OR EXISTS (SELECT 1 FROM lease WHERE repository = ? AND blob = id AND expires > ?)"
            f" FROM blob WHERE digest IN ({marks(batch)})",
            (repository, repository, now, *batch),
        )
        for row in rows:
            yield BlobRow(row[0], Digest(row[1]), row[2], bool(row[3])), bool(row[4])


def save_blob(tx: Transaction, digest: Digest, size: int, now: int) -> tuple[int, bool]:
    """Record a blob whose file is in place, or that it is sound again; returns its id, and whether it is new."""
    blob = find_blob(tx, digest)
    if blob is None:
        return tx.insert("INSERT INTO blob (digest, size, created) VALUES (?, ?, ?)", (digest, size, now)), True
    if blob.damaged:
        tx.execute("UPDATE blob SET damaged = 0 WHERE id = ?", (blob.id,))
    return blob.id, False


def mark_damaged(tx: Transaction, digest: Digest) -> None:
    """Note that a blob's file is missing or short."""
    tx.execute("UPDATE blob SET damaged = 1 WHERE digest = ?", (digest,))


def blobs_after(tx: Transaction, last: int, limit: int) -> list[BlobRow]:
    """Return blobs by ascending id, after `last`."""
    rows = tx.rows("SELECT id, digest, size, damaged FROM blob WHERE id > ? ORDER BY id LIMIT ?", (last, limit))
    return [BlobRow(row[0], Digest(row[1]), row[2], bool(row[3])) for row in rows]


def blob_in_repository(tx: Transaction, repository: int, blob: int, now: int) -> bool:
    """Tell whether a manifest of the repository references the blob, or an unexpired lease holds it there."""
    return bool(
        tx.value(
            "SELECT EXISTS (SELECT 1 FROM manifest_blob WHERE repository = ? AND blob = ?)"
            " OR EXISTS (SELECT 1 FROM lease WHERE repository = ? AND blob = ? AND expires > ?)",
            (repository, blob, repository, blob, now),
        )
    )


def referencing_manifests(tx: Transaction, repository: int, blob: int, limit: int) -> list[Digest]:
    """Return digests of the repository's manifests that reference a blob."""
    rows = tx.rows(
        "SELECT digest FROM manifest_blob JOIN manifest ON manifest.id = manifest_blob.manifest WHERE repository = ?"
        " AND blob = ? LIMIT ?",
        (repository, blob, limit),
    )
    return [Digest(row[0]) for row in rows]


def delete_unheld_blob(tx: Transaction, blob: int) -> tuple[Digest, int] | None:
    """Delete a blob that no manifest references and no lease holds; returns its digest and size if it was one."""
    row = tx.row(
        "SELECT digest, size FROM blob WHERE id = ? AND NOT EXISTS (SELECT 1 FROM manifest_blob WHERE blob = blob.id)"
        " AND NOT EXISTS (SELECT 1 FROM lease WHERE blob = blob.id)",
        (blob,),
    )
    if row is None:
        return None
    tx.execute("DELETE FROM blob WHERE id = ?", (blob,))
    return Digest(row[0]), row[1]


# Leases


def is_leased(tx: Transaction, repository: int, blob: int, now: int) -> bool:
    """Tell whether an unexpired lease holds a blob in a repository."""
    return bool(
        tx.value(
            "SELECT EXISTS (SELECT 1 FROM lease WHERE repository = ? AND blob = ? AND expires > ?)",
            (repository, blob, now),
        )
    )


def take_lease(tx: Transaction, repository: int, blob: int, expires: int) -> None:
    """Hold a blob in a repository until then, or until later if it is held until later already."""
    tx.execute(
        "INSERT INTO lease (repository, blob, expires) VALUES (?, ?, ?)"
        " ON CONFLICT (repository, blob) DO UPDATE SET expires = excluded.expires WHERE expires < excluded.expires",
        (repository, blob, expires),
    )


def drop_leases(tx: Transaction, repository: int, blobs: Iterable[int]) -> None:
    """Let go of blobs in a repository."""
    for batch in batches(blobs):
        tx.execute(f"DELETE FROM lease WHERE repository = ? AND blob IN ({marks(batch)})", (repository, *batch))  # noqa: S608 -- only marks


def expired_leases(tx: Transaction, now: int, limit: int) -> list[tuple[int, int, Digest]]:
    """Return (repository, blob, digest) of leases that have expired."""
    rows = tx.rows(
        "SELECT repository, blob, digest FROM lease JOIN blob ON id = blob WHERE expires <= ? LIMIT ?", (now, limit)
    )
    return [(row[0], row[1], Digest(row[2])) for row in rows]


def holding_repositories(tx: Transaction, blob: int, now: int, limit: int) -> Iterator[tuple[str, bool]]:
    """Give the names of repositories that a blob is in, and whether a manifest there references it; at most `limit`,
    each at most twice.
    """
    for table, condition, referenced in (("manifest_blob", "", True), ("lease", f" AND expires > {now:d}", False)):
        last = 0
        for _ in range(limit):
            # From one repository to the next, however many manifests of each reference it.
            row = tx.row(
                f"SELECT repository, name FROM {table} JOIN repository ON id = repository"  # noqa: S608 -- of constants and a number
                f" WHERE blob = ? AND repository > ?{condition} ORDER BY repository LIMIT 1",
                (blob, last),
            )
            if row is None:
                break
            last = row[0]
            yield row[1], referenced


# Many at once


def batches(keys: Iterable[T]) -> Iterator[list[T]]:
    """Give keys in as many pieces as a statement takes."""
    # A statement for each of thousands takes several times as long, while the lock is held.
    rest = iter(keys)
    while batch := list(itertools.islice(rest, _BATCH)):
        yield batch


def marks(values: Sequence[object]) -> str:
    """Write a placeholder for each value."""
    return ", ".join("?" * len(values))
