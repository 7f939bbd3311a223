"""The queries of manifests, and of the tags that point to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from vex.names import Digest, Tag
from vex.storage.blob_rows import batches, marks
from vex.storage.database import Transaction
from vex.storage.repository_rows import mark_filled

# Names after one, so many of them; `listings.py` measures them too.
TAG_NAMES = "SELECT name FROM tag WHERE repository = ? AND name > ? ORDER BY name LIMIT ?"


class ManifestRow(NamedTuple):
    """A manifest in a repository, without its bytes."""

    id: int
    digest: Digest
    size: int
    media_type: str


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


def digest_of(tx: Transaction, manifest: int) -> Digest:
    """Return the digest of a manifest."""
    return Digest(tx.value("SELECT digest FROM manifest WHERE id = ?", (manifest,)))


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
    for batch in batches(blobs):
        rows = f"SELECT ?, id, ? FROM blob WHERE id IN ({marks(batch)})"  # noqa: S608 -- only marks
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


def take_out_manifest(tx: Transaction, repository: int, manifest: int) -> None:
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


def _manifest_row(row: tuple[Any, ...] | None) -> ManifestRow | None:
    return None if row is None else ManifestRow(row[0], Digest(row[1]), row[2], row[3])


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
    return [row[0] for row in tx.rows(TAG_NAMES, (repository, last, limit))]


def tags_of_manifests(tx: Transaction, repository: int, manifests: Collection[int], limit: int) -> dict[int, list[Tag]]:
    """Return the first tags that point to each of these manifests, in ASCII order."""
    if not manifests:
        return {}
    first = "SELECT name FROM tag WHERE repository = ? AND manifest = column1 ORDER BY name LIMIT ?"
    wanted = ", ".join(["(?)"] * len(manifests))
    rows = tx.rows(
        f"SELECT column1, (SELECT group_concat(name, ' ') FROM ({first})) FROM (VALUES {wanted})",  # noqa: S608 -- of constants only
        (repository, limit, *manifests),
    )
    return {row[0]: sorted(map(Tag, (row[1] or "").split())) for row in rows}


def tags_of_manifest(tx: Transaction, repository: int, manifest: int, limit: int) -> list[Tag]:
    """Return the tags that point to a manifest, in ASCII order."""
    return [
        Tag(row[0])
        for row in tx.rows(
            "SELECT name FROM tag WHERE repository = ? AND manifest = ? ORDER BY name LIMIT ?",
            (repository, manifest, limit),
        )
    ]
