"""Every query of the registry's tables; see `sql/001-registry.sql` for what they mean.

Functions take the transaction that they run in, never commit, and decide nothing: the rules are in `references.py` and
`registry.py`. Ids are the integer keys of the tables, times are seconds since 1970.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from vex.names import Digest, RepositoryName, Tag
from vex.storage.database import Transaction

# Names after one, so many of them; `listings.py` measures them too.
REPOSITORIES = "SELECT name FROM repository WHERE emptied IS NULL AND name > ? ORDER BY name LIMIT ?"
TAGS = "SELECT name FROM tag WHERE repository = ? AND name > ? ORDER BY name LIMIT ?"
# SQLite took at most 999 parameters in a statement once.
_BATCH = 500


class BlobRow(NamedTuple):
    """A blob; `size` in bytes."""

    id: int
    digest: Digest
    size: int
    damaged: bool


class ManifestRow(NamedTuple):
    """A manifest in a repository, without its bytes."""

    id: int
    digest: Digest
    size: int
    media_type: str


class Totals(NamedTuple):
    """What the registry holds; `blob_bytes` counts each blob once."""

    repositories: int
    tags: int
    manifests: int
    blobs: int
    blob_bytes: int
    damaged_blobs: int
    leases: int


# Repositories


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


def list_repositories(tx: Transaction, last: str, limit: int) -> list[str]:
    """Return the names of repositories that hold a manifest, in ASCII order, after `last`."""
    return [row[0] for row in tx.rows(REPOSITORIES, (last, limit))]


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


# Blobs and leases


def find_blob(tx: Transaction, digest: Digest) -> BlobRow | None:
    """Find a blob anywhere in the registry."""
    row = tx.row("SELECT id, digest, size, damaged FROM blob WHERE digest = ?", (digest,))
    return None if row is None else BlobRow(row[0], Digest(row[1]), row[2], bool(row[3]))


def save_blob(tx: Transaction, digest: Digest, size: int, now: int) -> int:
    """Record a blob whose file is in place, or that it is sound again; returns its id."""
    blob = find_blob(tx, digest)
    if blob is None:
        return tx.insert("INSERT INTO blob (digest, size, created) VALUES (?, ?, ?)", (digest, size, now))
    if blob.damaged:
        tx.execute("UPDATE blob SET damaged = 0 WHERE id = ?", (blob.id,))
    return blob.id


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
    for batch in _batches(blobs):
        tx.execute(f"DELETE FROM lease WHERE repository = ? AND blob IN ({_marks(batch)})", (repository, *batch))  # noqa: S608 -- only marks


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


# Manifests


def find_manifest(tx: Transaction, repository: int, digest: Digest) -> ManifestRow | None:
    """Find a manifest of a repository that can be fetched by its digest."""
    return _manifest_row(
        tx.row(
            "SELECT id, digest, size, media_type FROM manifest JOIN repository_manifest ON manifest = id AND repository"
            " = ? WHERE digest = ? AND state < 3",
            (repository, digest),
        )
    )


def find_child(tx: Transaction, repository: int, digest: Digest, now: int) -> ManifestRow | None:
    """Find a manifest of a repository that an index may reference: also one that was deleted, as long as it keeps all
    that it needs.
    """
    return _manifest_row(
        tx.row(
            "SELECT id, digest, size, media_type FROM manifest JOIN repository_manifest ON manifest = id AND repository"
            " = ?"
            " WHERE digest = ? AND (state < 3 OR expires > ?)",
            (repository, digest, now),
        )
    )


def find_tagged_manifest(tx: Transaction, repository: int, tag: Tag) -> ManifestRow | None:
    """Find the manifest that a tag points to."""
    return _manifest_row(
        tx.row(
            "SELECT m.id, m.digest, m.size, r.media_type FROM tag t JOIN manifest m ON m.id = t.manifest"
            " JOIN repository_manifest r ON r.repository = t.repository AND r.manifest = t.manifest WHERE t.repository"
            " = ? AND t.name = ?",
            (repository, tag),
        )
    )


def manifest_content(tx: Transaction, manifest: int) -> bytes:
    """Return the bytes of a manifest."""
    content: bytes = tx.value("SELECT content FROM manifest WHERE id = ?", (manifest,))
    return content


def save_manifest(tx: Transaction, digest: Digest, content: bytes, artifact_type: str, annotations: str) -> int:
    """Record the bytes of a manifest, if they are new; returns its id."""
    found: int | None = tx.value("SELECT id FROM manifest WHERE digest = ?", (digest,))
    if found is not None:
        return found
    return tx.insert(
        "INSERT INTO manifest (digest, size, artifact_type, annotations, content) VALUES (?, ?, ?, ?, ?)",
        (digest, len(content), artifact_type, annotations, content),
    )


def add_manifest(
    tx: Transaction,
    repository: int,
    manifest: int,
    media_type: str,
    subject: Digest | None,
    now: int,
    expires: int | None = None,
) -> None:
    """Put a manifest into a repository, or note that it was pushed there again; `expires` is until when a referrer
    waits for its subject.
    """
    tx.execute(
        "INSERT INTO repository_manifest (repository, manifest, media_type, subject, pushed, expires) VALUES (?, ?, ?,"
        " ?, ?, ?)"
        " ON CONFLICT (repository, manifest)"
        " DO UPDATE SET media_type = excluded.media_type, pushed = excluded.pushed, expires = excluded.expires, state ="
        " 0",
        (repository, manifest, media_type, subject, now, expires),
    )
    mark_filled(tx, repository)


def add_references(
    tx: Transaction, repository: int, manifest: int, blobs: Iterable[int], children: Iterable[int]
) -> None:
    """Record what a manifest of a repository references; what is recorded already stays."""
    for batch in _batches(blobs):
        rows = f"SELECT ?, id, ? FROM blob WHERE id IN ({_marks(batch)})"  # noqa: S608 -- only marks
        tx.execute(
            f"INSERT OR IGNORE INTO manifest_blob (repository, blob, manifest) {rows}", (repository, manifest, *batch)
        )
    for child in children:
        tx.execute(
            "INSERT OR IGNORE INTO manifest_child (repository, child, parent) VALUES (?, ?, ?)",
            (repository, child, manifest),
        )


def manifest_parents(tx: Transaction, repository: int, manifest: int, limit: int) -> list[Digest]:
    """Return digests of the repository's indexes that reference a manifest, without those that are only held."""
    rows = tx.rows(
        "SELECT digest FROM manifest_child c JOIN repository_manifest r ON r.repository = c.repository AND r.manifest ="
        " c.parent"
        " JOIN manifest ON id = c.parent WHERE c.repository = ? AND c.child = ? AND r.state < 2 LIMIT ?",
        (repository, manifest, limit),
    )
    return [Digest(row[0]) for row in rows]


def delete_manifest(tx: Transaction, repository: int, manifest: int) -> None:
    """Take a manifest out of a repository with its references, and delete its bytes if no repository holds it any
    more.
    """
    tx.execute("DELETE FROM repository_manifest WHERE repository = ? AND manifest = ?", (repository, manifest))
    delete_unheld_manifest(tx, manifest)


def delete_unheld_manifest(tx: Transaction, manifest: int) -> int:
    """Delete the bytes of a manifest that no repository holds; returns 0 if one does."""
    return tx.execute(
        "DELETE FROM manifest WHERE id = ? AND NOT EXISTS (SELECT 1 FROM repository_manifest WHERE manifest ="
        " manifest.id)",
        (manifest,),
    )


# Tags


def tag_target(tx: Transaction, repository: int, tag: Tag) -> int | None:
    """Return the id of the manifest that a tag points to."""
    target: int | None = tx.value("SELECT manifest FROM tag WHERE repository = ? AND name = ?", (repository, tag))
    return target


def set_tag(tx: Transaction, repository: int, tag: Tag, manifest: int, now: int) -> None:
    """Create a tag, or point it elsewhere."""
    tx.execute(
        "INSERT INTO tag (repository, name, manifest, updated) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (repository, name) DO UPDATE SET manifest = excluded.manifest, updated = excluded.updated",
        (repository, tag, manifest, now),
    )


def delete_tag(tx: Transaction, repository: int, tag: Tag) -> None:
    """Delete a tag."""
    tx.execute("DELETE FROM tag WHERE repository = ? AND name = ?", (repository, tag))


def list_tags(tx: Transaction, repository: int, last: str, limit: int) -> list[str]:
    """Return the tags of a repository in ASCII order, after `last`."""
    return [row[0] for row in tx.rows(TAGS, (repository, last, limit))]


def tags_of_manifest(tx: Transaction, repository: int, manifest: int, limit: int) -> list[Tag]:
    """Return the tags that point to a manifest, in ASCII order."""
    return [
        Tag(row[0])
        for row in tx.rows(
            "SELECT name FROM tag WHERE repository = ? AND manifest = ? ORDER BY name LIMIT ?",
            (repository, manifest, limit),
        )
    ]


# All of it


def totals(tx: Transaction) -> Totals:
    """Count what the registry holds."""
    blobs, blob_bytes = tx.row("SELECT count(*), coalesce(sum(size), 0) FROM blob") or (0, 0)
    return Totals(
        repositories=tx.value("SELECT repositories FROM total"),
        tags=tx.value("SELECT count(*) FROM tag"),
        manifests=tx.value("SELECT count(*) FROM manifest"),
        blobs=blobs,
        blob_bytes=blob_bytes,
        damaged_blobs=tx.value("SELECT count(*) FROM blob WHERE damaged"),
        leases=tx.value("SELECT count(*) FROM lease"),
    )


def _manifest_row(row: tuple[Any, ...] | None) -> ManifestRow | None:
    return None if row is None else ManifestRow(row[0], Digest(row[1]), row[2], row[3])


def _batches(ids: Iterable[int]) -> Iterator[list[int]]:
    # A statement for each of thousands takes several times as long, while the lock is held.
    rest = iter(ids)
    while batch := list(itertools.islice(rest, _BATCH)):
        yield batch


def _marks(values: list[int]) -> str:
    return ", ".join("?" * len(values))
