"""The queries of `vex df`: what takes the space. Functions take the transaction that they run in."""

from __future__ import annotations

from typing import NamedTuple

from vex.storage.database import Transaction


class RepositoryUsage(NamedTuple):
    """A repository, and the bytes of the blobs that it references, each counted once."""

    id: int
    name: str
    tags: int
    bytes: int


def repositories_after(tx: Transaction, last: int, limit: int) -> list[RepositoryUsage]:
    """Return repositories by ascending id, after `last`, empty ones too."""
    rows = tx.rows("SELECT id, name, tags, size FROM repository WHERE id > ? ORDER BY id LIMIT ?", (last, limit))
    return [RepositoryUsage(*row) for row in rows]


def last_blob(tx: Transaction) -> int:
    """Return the largest id of a blob."""
    last: int = tx.value("SELECT coalesce(max(id), 0) FROM blob")
    return last


def own_bytes(tx: Transaction, after: int, to: int) -> list[tuple[int, int]]:
    """Return (repository, bytes) of the blobs in this range of ids that one repository alone references."""
    rows = tx.rows(
        "SELECT o.repository, sum(b.size) FROM (SELECT blob, min(repository) AS repository FROM manifest_blob WHERE"
        " blob > ? AND blob <= ? GROUP BY blob HAVING min(repository) = max(repository)) o JOIN blob b ON b.id = o.blob"
        " GROUP BY o.repository",
        (after, to),
    )
    return [(row[0], row[1]) for row in rows]


def blob_bytes(tx: Transaction, after: int, to: int) -> tuple[int, int]:
    """Return the bytes of the blobs in this range of ids, and of those of them that no manifest references."""
    row = tx.row(
        "SELECT coalesce(sum(size), 0), coalesce(sum(CASE WHEN EXISTS (SELECT 1 FROM manifest_blob WHERE blob = id)"
        " THEN 0 ELSE size END), 0) FROM blob WHERE id > ? AND id <= ?",
        (after, to),
    )
    assert row  # noqa: S101 -- for the type checker: an aggregate always has one
    return row[0], row[1]


def database_bytes(tx: Transaction) -> int:
    """Return the size of the database."""
    return int(tx.value("PRAGMA page_count")) * int(tx.value("PRAGMA page_size"))
