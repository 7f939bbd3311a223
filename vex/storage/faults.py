"""The queries of `vex check`, which look for what must not be there."""

from __future__ import annotations

from typing import NamedTuple

from vex.names import Digest, RepositoryName
from vex.storage.database import Transaction


class HeldManifest(NamedTuple):
    """A manifest and the repository that holds it, with the ids and the names of both."""

    repository: int
    name: RepositoryName
    manifest: int
    digest: Digest
    media_type: str


class Counter(NamedTuple):
    """A column that repeats what other tables say: `right` is what it should be, `wrong` the condition of a row where
    it is not that.
    """

    what: str
    table: str
    column: str
    right: str
    wrong: str = "{column} <> ({right})"


COUNTERS = (
    Counter("numbers of tags", "repository", "tags", "SELECT count(*) FROM tag WHERE repository = repository.id"),
    Counter(
        "sizes of repositories",
        "repository",
        "size",
        "SELECT coalesce(sum(size), 0) FROM blob WHERE id IN (SELECT blob FROM manifest_blob WHERE repository ="
        " repository.id)",
    ),
    Counter(
        "times of the newest push",
        "repository",
        "pushed",
        "SELECT coalesce(max(pushed), 0) FROM repository_manifest WHERE repository = repository.id",
        # That of a push that was deleted since stays.
        "{column} < ({right})",
    ),
    Counter(
        "sizes of tags",
        "tag",
        "size",
        "SELECT coalesce(sum(size), 0) FROM manifest_summary WHERE manifest = tag.manifest",
    ),
    Counter(
        "numbers of what holds a manifest",
        "repository_manifest",
        "holders",
        "(SELECT count(*) FROM tag WHERE repository = repository_manifest.repository AND manifest ="
        " repository_manifest.manifest)"
        " + (SELECT count(*) FROM manifest_child WHERE repository = repository_manifest.repository AND child ="
        " repository_manifest.manifest)",
    ),
    Counter("number of repositories", "total", "repositories", "SELECT count(*) FROM repository WHERE emptied IS NULL"),
)


def wrong_counters(tx: Transaction, counter: Counter) -> int:
    """Count the rows in which a counter is wrong."""
    count: int = tx.value(f"SELECT count(*) FROM {counter.table} WHERE {_wrong(counter)}")  # noqa: S608 -- of constants only
    return count


def recount(tx: Transaction, counter: Counter) -> None:
    """Set a counter right where it is wrong."""
    tx.execute(f"UPDATE {counter.table} SET {counter.column} = ({counter.right}) WHERE {_wrong(counter)}")  # noqa: S608 -- of constants only


def _wrong(counter: Counter) -> str:
    return counter.wrong.format(column=f"{counter.table}.{counter.column}", right=counter.right)


def integrity_faults(tx: Transaction) -> list[str]:
    """Let SQLite check the database's own structure; returns what is wrong with it."""
    return [row[0] for row in tx.rows("PRAGMA integrity_check") if row[0] != "ok"]


def dangling_rows(tx: Transaction) -> list[tuple[str, str, int]]:
    """Count the rows that refer to what is not there; returns (table, table that it refers to, rows)."""
    rows = tx.rows('SELECT "table", parent, count(*) FROM pragma_foreign_key_check GROUP BY 1, 2 ORDER BY 1, 2')
    return [(row[0], row[1], row[2]) for row in rows]


def held_manifests_after(tx: Transaction, repository: int, manifest: int, limit: int) -> list[HeldManifest]:
    """Return manifests with the repositories that hold them, by their ids, after these two."""
    rows = tx.rows(
        "SELECT repository, name, manifest, digest, media_type FROM repository_manifest"
        " JOIN repository ON repository.id = repository JOIN manifest ON manifest.id = manifest"
        " WHERE (repository, manifest) > (?, ?) ORDER BY repository, manifest LIMIT ?",
        (repository, manifest, limit),
    )
    return [HeldManifest(row[0], RepositoryName(row[1]), row[2], Digest(row[3]), row[4]) for row in rows]


def can_be_fetched(tx: Transaction, held: HeldManifest) -> bool:
    """Tell whether a repository holds a manifest still, which is whole then; in a schema without states all are that
    are held.
    """
    states = tx.value("SELECT count(*) FROM pragma_table_info('repository_manifest') WHERE name = 'state'")
    found = "SELECT 1 FROM repository_manifest WHERE repository = ? AND manifest = ?"
    return tx.value(f"{found} AND state < 3" if states else found, (held.repository, held.manifest)) is not None


def recorded_references(tx: Transaction, repository: int, manifest: int) -> set[Digest]:
    """Return the digests of the blobs and the manifests that a manifest of a repository holds there."""
    rows = tx.rows(
        "SELECT digest FROM manifest_blob JOIN blob ON id = blob WHERE repository = ? AND manifest = ?"
        " UNION SELECT digest FROM manifest_child JOIN manifest ON id = child WHERE repository = ? AND parent = ?",
        (repository, manifest, repository, manifest),
    )
    return {Digest(row[0]) for row in rows}


def blob_repositories(tx: Transaction, blob: int, limit: int) -> list[RepositoryName]:
    """Return names of repositories in which a manifest references a blob, or a lease holds it."""
    rows = tx.rows(
        "SELECT name FROM repository WHERE id IN"
        " (SELECT repository FROM manifest_blob WHERE blob = ? UNION SELECT repository FROM lease WHERE blob = ?) ORDER"
        " BY name LIMIT ?",
        (blob, blob, limit),
    )
    return [RepositoryName(row[0]) for row in rows]


def unheld_blobs(tx: Transaction) -> list[tuple[int, Digest]]:
    """Return (id, digest) of the blobs that no manifest references and no lease holds."""
    rows = tx.rows(
        "SELECT id, digest FROM blob WHERE NOT EXISTS (SELECT 1 FROM manifest_blob WHERE blob = blob.id)"
        " AND NOT EXISTS (SELECT 1 FROM lease WHERE blob = blob.id)"
    )
    return [(row[0], Digest(row[1])) for row in rows]


def unheld_manifests(tx: Transaction) -> list[tuple[int, Digest]]:
    """Return (id, digest) of the manifests that no repository holds."""
    rows = tx.rows(
        "SELECT id, digest FROM manifest WHERE NOT EXISTS (SELECT 1 FROM repository_manifest WHERE manifest ="
        " manifest.id)"
    )
    return [(row[0], Digest(row[1])) for row in rows]
