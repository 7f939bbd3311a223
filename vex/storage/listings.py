"""The queries of the web interface; what they show and sort by is stored at push time (`sql/002-web.sql`,
`sql/003-totals.sql`).

No query parses a manifest or reads a blob, and each has an index for its order.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from vex.formats.image import INDEX, Summary
from vex.names import Digest, RepositoryName, Tag
from vex.storage import manifest_rows, repository_rows
from vex.storage.database import Transaction

NAME, PUSHED, SIZE = "name", "pushed", "size"

# Entries with equal dates or sizes are in the order of their names, so that pages never overlap.
_REPOSITORY_ORDER = {
    (NAME, False): "name",
    (NAME, True): "name DESC",
    (PUSHED, False): "pushed, name",
    (PUSHED, True): "pushed DESC, name DESC",
    (SIZE, False): "size, name",
    (SIZE, True): "size DESC, name DESC",
}
# ASCII letters match in upper and lower case.
_HOLDS = "name LIKE ? ESCAPE '!'"
_TAG_ORDER = {key: order.replace("pushed", "updated") for key, order in _REPOSITORY_ORDER.items()}
# An index of a thousand platforms is legal, a list that names them all is of no use.
_MAX_PLATFORMS = 64


class View(NamedTuple):
    """Which part of a list is wanted: names that hold `text`, in this order, `limit` of them after `offset`."""

    text: str
    order: str
    descending: bool
    offset: int
    limit: int


class RepositoryEntry(NamedTuple):
    """A repository in a list; `pushed` is the time of the newest push, `size` in bytes."""

    name: RepositoryName
    tags: int
    pushed: int
    size: int


class ManifestEntry(NamedTuple):
    """A manifest in a list; `name` is a tag, or "" where it is listed for itself; `size` in bytes, of all blobs that it
    needs.
    """

    name: str
    manifest: int
    digest: Digest
    pushed: int
    size: int
    artifact_type: str
    subject: Digest | None
    summary: Summary


class NamePiece(NamedTuple):
    """A part of a list of names: how many, their characters, and the last one, "" where there is none."""

    names: int
    characters: int
    last: str


# Repositories


def count_repositories(tx: Transaction, prefix: str, text: str) -> int:
    """Count the repositories whose name starts with `prefix` and holds `text`."""
    condition, parameters = _repository_condition(prefix, text)
    counted = f"SELECT count(*) FROM repository WHERE {condition}"  # noqa: S608 -- of constants only
    count: int = tx.value(counted, parameters) if parameters else tx.value("SELECT repositories FROM total")
    return count


def repository_entries(tx: Transaction, prefix: str, view: View) -> list[RepositoryEntry]:
    """Return repositories that hold a manifest and whose name starts with `prefix`."""
    condition, parameters = _repository_condition(prefix, view.text)
    order = _REPOSITORY_ORDER[view.order, view.descending]
    # The inner query walks an index alone; what is shown is looked up for one page only. The same below.
    rows = tx.rows(
        "SELECT name, tags, pushed, size FROM repository WHERE id IN"  # noqa: S608 -- of constants only
        f" (SELECT id FROM repository WHERE {condition} ORDER BY {order} LIMIT ? OFFSET ?) ORDER BY {order}",
        (*parameters, view.limit, view.offset),
    )
    return [RepositoryEntry(RepositoryName(row[0]), *row[1:]) for row in rows]


def repositories_after(tx: Transaction, last: str, limit: int) -> list[RepositoryEntry]:
    """Return repositories that hold a manifest, in the order of their names, after `last`."""
    rows = tx.rows(
        "SELECT name, tags, pushed, size FROM repository WHERE emptied IS NULL AND name > ? ORDER BY name LIMIT ?",
        (last, limit),
    )
    return [RepositoryEntry(RepositoryName(row[0]), *row[1:]) for row in rows]


def repository_entry(tx: Transaction, name: RepositoryName) -> tuple[int, RepositoryEntry] | None:
    """Return the id of a repository that holds a manifest, and what lists show of it."""
    row = tx.row("SELECT id, tags, pushed, size FROM repository WHERE name = ? AND emptied IS NULL", (name,))
    return None if row is None else (row[0], RepositoryEntry(name, *row[1:]))


def measure_repositories(tx: Transaction, last: str, limit: int) -> NamePiece:
    """Measure what `repository_rows.list_repositories` returns."""
    return _measure(tx, repository_rows.REPOSITORY_NAMES, (last, limit))


def measure_tags(tx: Transaction, repository: int, last: str, limit: int) -> NamePiece:
    """Measure what `manifest_rows.list_tags` returns."""
    return _measure(tx, manifest_rows.TAG_NAMES, (repository, last, limit))


def _measure(tx: Transaction, names: str, parameters: Sequence[object]) -> NamePiece:
    row = tx.row(f"SELECT count(*), coalesce(sum(length(name)), 0), coalesce(max(name), '') FROM ({names})", parameters)  # noqa: S608 -- of constants only
    assert row  # noqa: S101 -- for the type checker: an aggregate always has one
    return NamePiece(*row)


def _pattern(text: str) -> str:
    for special in "!%_":
        text = text.replace(special, f"!{special}")
    return f"%{text}%"


def _repository_condition(prefix: str, text: str) -> tuple[str, list[str]]:
    condition, parameters = "emptied IS NULL", []
    if prefix:
        # The character after "/" in ASCII ends the range of names below it.
        condition += " AND name > ? AND name < ?"
        parameters += [prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)]
    if text:
        condition += f" AND {_HOLDS}"
        parameters.append(_pattern(text))
    return condition, parameters


# Manifests of a repository


def count_tags(tx: Transaction, repository: int, text: str) -> int:
    """Count the tags whose name holds `text`, in upper or lower case."""
    count: int = tx.value(f"SELECT count(*) FROM tag WHERE repository = ? AND {_HOLDS}", (repository, _pattern(text)))  # noqa: S608 -- of constants only
    return count


def tag_entries(tx: Transaction, repository: int, view: View) -> list[ManifestEntry]:
    """Return tags with what they point to."""
    condition, parameters = (f"AND {_HOLDS}", [_pattern(view.text)]) if view.text else ("", [])
    order = _TAG_ORDER[view.order, view.descending]
    rows = tx.rows(
        "SELECT t.name, t.manifest, m.digest, t.updated, t.size, substr(m.artifact_type, 1, 256), NULL, s.kind,"  # noqa: S608 -- of constants only
        " s.platforms FROM"
        f" (SELECT name FROM tag WHERE repository = ? {condition} ORDER BY {order} LIMIT ? OFFSET ?) listed"
        " CROSS JOIN tag t ON t.repository = ? AND t.name = listed.name CROSS JOIN manifest m ON m.id = t.manifest"
        " LEFT JOIN manifest_summary s ON s.manifest = t.manifest ORDER BY"
        f" {', '.join('t.' + column for column in order.split(', '))}",
        (repository, *parameters, view.limit, view.offset, repository),
    )
    return [_manifest_entry(row) for row in rows]


def tags_after(tx: Transaction, repository: int, last: str, limit: int) -> list[ManifestEntry]:
    """Return tags with what they point to, in the order of their names, after `last`."""
    rows = tx.rows(
        "SELECT t.name, t.manifest, m.digest, t.updated, t.size, substr(m.artifact_type, 1, 256), NULL, s.kind,"
        " s.platforms FROM tag t CROSS JOIN manifest m ON m.id = t.manifest LEFT JOIN manifest_summary s ON s.manifest"
        " = t.manifest WHERE t.repository = ? AND t.name > ? ORDER BY t.name LIMIT ?",
        (repository, last, limit),
    )
    return [_manifest_entry(row) for row in rows]


def count_unheld(tx: Transaction, repository: int) -> int:
    """Count the manifests that neither a tag nor an index of the repository references."""
    count: int = tx.value(
        "SELECT count(*) FROM repository_manifest INDEXED BY repository_manifest_unheld WHERE repository = ? AND"
        " holders = 0 AND state < 2",
        (repository,),
    )
    return count


def list_unheld(tx: Transaction, repository: int, offset: int, limit: int) -> list[ManifestEntry]:
    """Return the manifests that neither a tag nor an index of the repository references, newest first."""
    rows = tx.rows(
        "SELECT '', r.manifest, m.digest, r.pushed, coalesce(s.size, 0), substr(m.artifact_type, 1, 256), r.subject,"
        " s.kind, s.platforms FROM"
        " (SELECT manifest, pushed, subject FROM repository_manifest INDEXED BY repository_manifest_unheld WHERE"
        " repository = ? AND holders = 0 AND state < 2"
        " ORDER BY pushed DESC, manifest DESC LIMIT ? OFFSET ?) r"
        " CROSS JOIN manifest m ON m.id = r.manifest LEFT JOIN manifest_summary s ON s.manifest = r.manifest"
        " ORDER BY r.pushed DESC, r.manifest DESC",
        (repository, limit, offset),
    )
    return [_manifest_entry(row) for row in rows]


def manifest_entry(tx: Transaction, repository: int, digest: Digest) -> ManifestEntry | None:
    """Return what lists show of a manifest of a repository."""
    row = tx.row(
        "SELECT '', m.id, m.digest, r.pushed, coalesce(s.size, 0), substr(m.artifact_type, 1, 256), r.subject, s.kind,"
        " s.platforms FROM manifest m"
        " JOIN repository_manifest r ON r.manifest = m.id AND r.repository = ? LEFT JOIN manifest_summary s ON"
        " s.manifest = m.id WHERE m.digest = ?",
        (repository, digest),
    )
    return None if row is None else _manifest_entry(row)


def tags_with_prefix(tx: Transaction, repository: int, prefix: str, limit: int) -> list[tuple[Tag, Digest]]:
    """Return tags whose name starts with `prefix`, which ends in a full stop, with the digest that each points to."""
    rows = tx.rows(
        "SELECT t.name, m.digest FROM tag t JOIN manifest m ON m.id = t.manifest WHERE t.repository = ? AND t.name > ?"
        " AND t.name < ? ORDER BY t.name LIMIT ?",
        (repository, prefix, prefix[:-1] + "/", limit),
    )
    return [(Tag(row[0]), Digest(row[1])) for row in rows]


def _manifest_entry(row: Sequence[Any]) -> ManifestEntry:
    name, manifest, digest, pushed, size, artifact_type, subject, kind, platforms = row
    summary = Summary(kind or "", _platforms(platforms or "[]"))
    return ManifestEntry(
        name, manifest, Digest(digest), pushed, size, artifact_type, Digest(subject) if subject else None, summary
    )


# Most manifests of a list are for the same ones.
@functools.lru_cache(maxsize=64)
def _platforms(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


# Summaries


def save_summary(tx: Transaction, repository: int, manifest: int, summary: Summary) -> None:
    """Record what lists show of a manifest, whose references are recorded already; an index whose descriptors name no
    platform has those of its children.
    """
    platforms = summary.platforms
    if summary.kind == INDEX and not platforms:
        platforms = _platforms_of_children(tx, repository, manifest)
    text = json.dumps(platforms[:_MAX_PLATFORMS])
    changed = tx.execute(
        "UPDATE manifest_summary SET kind = ?, platforms = ? WHERE manifest = ?", (summary.kind, text, manifest)
    )
    if not changed:
        tx.execute(
            "INSERT INTO manifest_summary (manifest, kind, size, platforms) VALUES (?, ?, 0, ?)",
            (manifest, summary.kind, text),
        )
    tx.execute(
        "UPDATE manifest_summary SET size = ?, lifetime = ? WHERE manifest = ?",
        (_needed_bytes(tx, repository, manifest), summary.lifetime or _of_children(tx, repository, manifest), manifest),
    )


def _of_children(tx: Transaction, repository: int, manifest: int) -> int | None:
    """Return the longest time that a child of an index has by its label; None without such children."""
    lifetime: int | None = tx.value(
        "SELECT max(lifetime) FROM manifest_child c JOIN manifest_summary s ON s.manifest = c.child WHERE c.repository"
        " = ? AND c.parent = ?",
        (repository, manifest),
    )
    return lifetime


def in_repository(tx: Transaction, repository: int, manifest: int) -> bool:
    """Tell whether a repository still holds a manifest."""
    return bool(
        tx.value("SELECT 1 FROM repository_manifest WHERE repository = ? AND manifest = ?", (repository, manifest))
    )


def manifests_without_summary(tx: Transaction, last: int, limit: int) -> list[tuple[int, int, str, bytes]]:
    """Return (repository, manifest, media type, content) of manifests after `last` that nobody has looked at yet, in
    the order of their ids.
    """
    rows = tx.rows(
        "SELECT (SELECT repository FROM repository_manifest WHERE manifest = m.id LIMIT 1), m.id,"
        " (SELECT media_type FROM repository_manifest WHERE manifest = m.id LIMIT 1), m.content"
        " FROM manifest_summary s JOIN manifest m ON m.id = s.manifest WHERE s.kind = '' AND s.manifest > ? ORDER BY"
        " s.manifest LIMIT ?",
        (last, limit),
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def summaries(tx: Transaction, repository: int, digests: Iterable[Digest]) -> dict[Digest, ManifestEntry]:
    """Return what lists show of those manifests that are in the repository."""
    entries = (manifest_entry(tx, repository, digest) for digest in dict.fromkeys(digests))
    return {entry.digest: entry for entry in entries if entry}


def _platforms_of_children(tx: Transaction, repository: int, manifest: int) -> tuple[str, ...]:
    rows = tx.rows(
        "SELECT s.platforms FROM manifest_child c JOIN manifest_summary s ON s.manifest = c.child WHERE c.repository ="
        " ? AND c.parent = ?",
        (repository, manifest),
    )
    return tuple(sorted({platform for row in rows for platform in json.loads(row[0])}))


def _needed_bytes(tx: Transaction, repository: int, manifest: int) -> int:
    size: int = tx.value(
        "WITH RECURSIVE part (id) AS (SELECT ? UNION SELECT c.child FROM part JOIN manifest_child c ON c.repository = ?"
        " AND c.parent = part.id)"
        " SELECT coalesce(sum(size), 0) FROM blob WHERE id IN (SELECT b.blob FROM part JOIN manifest_blob b ON"
        " b.repository = ? AND b.manifest = part.id)",
        (manifest, repository, repository),
    )
    return size
