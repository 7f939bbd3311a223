"""The queries of repositories, and of the totals of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vex.names import RepositoryName
from vex.storage.database import Transaction

# Names after one, so many of them; `listings.py` measures them too.
REPOSITORY_NAMES = "SELECT name FROM repository WHERE emptied IS NULL AND name > ? ORDER BY name LIMIT ?"

_COUNTS = (
    "EXISTS (SELECT 1 FROM manifest_blob b CROSS JOIN repository_manifest r ON r.repository = b.repository AND"
    " r.manifest = b.manifest WHERE b.repository = ? AND b.blob = blob.id AND r.state < 3)"
)

# Of so many rows, and so many patterns, a query is.
_BATCH = 500


class Totals(NamedTuple):
    """What the registry holds; `blob_bytes` counts each blob once."""

    repositories: int
    tags: int
    manifests: int
    blobs: int
    blob_bytes: int
    damaged_blobs: int
    leases: int


def find_repository(tx: Transaction, name: RepositoryName) -> int | None:
    """Return the id of a repository."""
    found: int | None = tx.value("SELECT id FROM repository WHERE name = ?", (name,))
    return found


def ensure_repository(tx: Transaction, name: RepositoryName, now: int) -> int:
    """Return the id of a repository; one that is new is empty."""
    found = find_repository(tx, name)
    return (
        found if found is not None else tx.insert("INSERT INTO repository (name, emptied) VALUES (?, ?)", (name, now))
    )


def name_of(tx: Transaction, repository: int) -> RepositoryName:
    """Return the name of a repository."""
    return RepositoryName(tx.value("SELECT name FROM repository WHERE id = ?", (repository,)))


def list_repositories(tx: Transaction, last: str, limit: int) -> list[str]:
    """Return the names of repositories that hold a manifest, in ASCII order, after `last`."""
    return [row[0] for row in tx.rows(REPOSITORY_NAMES, (last, limit))]


def mark_filled(tx: Transaction, repository: int) -> None:
    """Note that the repository holds a manifest."""
    tx.execute("UPDATE repository SET emptied = NULL WHERE id = ? AND emptied IS NOT NULL", (repository,))


def mark_if_empty(tx: Transaction, repository: int, now: int) -> None:
    """Start the time after which a repository is removed, if it holds no manifest but those that are only held."""
    tx.execute(
        "UPDATE repository SET emptied = ? WHERE id = ? AND NOT EXISTS (SELECT 1 FROM tag WHERE repository ="
        " repository.id)"
        # All that has neither a tag nor an index above it, but referrers, which hang on their subjects; and those that
        # wait for one.
        " AND NOT EXISTS (SELECT 1 FROM repository_manifest INDEXED BY repository_manifest_root"
        " WHERE repository = repository.id AND holders = 0 AND state < 2 AND subject IS NULL)"
        " AND NOT EXISTS (SELECT 1 FROM repository_manifest INDEXED BY repository_manifest_waiting"
        " WHERE repository = repository.id AND holders = 0 AND state < 2 AND subject IS NOT NULL AND expires IS NOT"
        " NULL)",
        (now, repository),
    )


def empty_repositories(tx: Transaction, emptied_before: int, limit: int) -> list[tuple[int, RepositoryName]]:
    """Return repositories that have held neither manifest nor lease since before then."""
    rows = tx.rows(
        "SELECT id, name FROM repository WHERE emptied <= ? AND NOT EXISTS (SELECT 1 FROM lease WHERE repository ="
        " repository.id)"
        " AND NOT EXISTS (SELECT 1 FROM repository_manifest WHERE repository = repository.id) LIMIT ?",
        (emptied_before, limit),
    )
    return [(row[0], RepositoryName(row[1])) for row in rows]


def delete_repository(tx: Transaction, repository: int) -> None:
    """Delete a repository that nothing hangs on."""
    tx.execute("DELETE FROM repository WHERE id = ?", (repository,))


# Sizes


def size_of(tx: Transaction, repository: int) -> int:
    """Return the bytes of the blobs that manifests of a repository reference, each counted once."""
    size: int = tx.value("SELECT size FROM repository WHERE id = ?", (repository,))
    return size


def deleted_bytes(tx: Transaction, repository: int) -> int:
    """Return how many of these bytes are referenced by manifests alone that are deleted, and kept for a while."""
    size: int = tx.value(
        "SELECT coalesce(sum(size), 0) FROM blob WHERE id IN"  # noqa: S608 -- of constants only
        " (SELECT b.blob FROM repository_manifest r INDEXED BY repository_manifest_gone CROSS JOIN manifest_blob b"
        " ON b.repository = r.repository AND b.manifest = r.manifest WHERE r.repository = ? AND r.state = 3)"
        " AND NOT " + _COUNTS,
        (repository, repository),
    )
    return size


def counts_blob(tx: Transaction, repository: int, blob: int) -> bool:
    """Tell whether a manifest of a repository references a blob that is not deleted."""
    return bool(tx.value("SELECT " + _COUNTS + " FROM blob WHERE id = ?", (repository, blob)))  # noqa: S608 -- of constants only


def by_size(tx: Transaction, patterns: Sequence[str]) -> Iterator[tuple[int, str, int]]:
    """Give the id, name and size of repositories that hold a manifest and match one of some patterns, the largest
    first.
    """
    last: tuple[int, str] = (2**62, "")
    # To SQLite, patterns of repositories mean the same as elsewhere; more of them than it takes stand for all.
    matched = " OR ".join(["name GLOB ?"] * len(patterns)) if len(patterns) <= _BATCH else "?"
    while rows := tx.rows(
        "SELECT size, name, id FROM repository WHERE emptied IS NULL AND (size < ? OR size = ? AND name < ?)"  # noqa: S608 -- of constants only
        f" AND ({matched}) ORDER BY size DESC, name DESC LIMIT {_BATCH}",
        (last[0], *last, *(patterns if len(patterns) <= _BATCH else [True])),
    ):
        for size, name, repository in rows:
            yield repository, name, size
        last = rows[-1][:2]


def blob_bytes(tx: Transaction) -> int:
    """Add up the sizes of all blobs; in a database of any age."""
    size: int = tx.value("SELECT coalesce(sum(size), 0) FROM blob")
    return size


def totals(tx: Transaction) -> Totals:
    """Count what the registry holds."""
    return Totals(
        repositories=tx.value("SELECT repositories FROM total"),
        tags=tx.value("SELECT count(*) FROM tag"),
        manifests=tx.value("SELECT count(*) FROM manifest"),
        blobs=tx.value("SELECT count(*) FROM blob"),
        blob_bytes=blob_bytes(tx),
        damaged_blobs=tx.value("SELECT count(*) FROM blob WHERE damaged"),
        leases=tx.value("SELECT count(*) FROM lease"),
    )
