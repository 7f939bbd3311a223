"""Who changed what: the log lines of pushes, changes of tags and removals, and the audit trail, which keeps the changes
of tags.

A change of a tag is written to the trail in the transaction that makes it; what was removed, and that line of the log,
is told once that is committed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from vex.logs import event
from vex.names import Digest, RepositoryName, Tag
from vex.storage.database import Transaction


class Actor(NamedTuple):
    """Who asks for a change, and from which address."""

    user: str
    address: str


class Change(NamedTuple):
    """A change of a tag; `before` is None where the tag was new, `after` where it was deleted."""

    id: int
    time: int
    user: str
    address: str
    repository: RepositoryName
    tag: Tag
    before: Digest | None
    after: Digest | None

    @property
    def what(self) -> str:
        """The change in a word."""
        return "deleted" if self.after is None else "moved" if self.before else "set"


class Told(NamedTuple):
    """A manifest of a repository, or a blob, as the log tells of it; `repository` "" where it is not known."""

    what: str
    digest: Digest
    size: int
    repository: str = ""


MANIFEST, BLOB = "manifest", "blob"


def manifest_told(tx: Transaction, repository: int, manifest: int) -> Told | None:
    """Return what the log tells of a manifest; None where the repository does not hold it."""
    row = tx.row(
        "SELECT digest, manifest.size, name FROM repository_manifest JOIN repository ON repository.id = repository JOIN"
        " manifest ON manifest.id = manifest"
        " WHERE repository = ? AND manifest = ?",
        (repository, manifest),
    )
    return None if row is None else Told(MANIFEST, Digest(row[0]), row[1], row[2])


def tag_changed(
    tx: Transaction, actor: Actor, repository: int, tag: Tag, before: int | None, after: int | None, now: int
) -> None:
    """Record that a tag that pointed to one manifest points to another, None for none, and log it once that is
    committed.
    """
    old = None if before is None else manifest_told(tx, repository, before)
    new = None if after is None else manifest_told(tx, repository, after)
    last = new or old
    assert last  # noqa: S101 -- for the type checker: one of the two is given
    change = Change(0, now, *actor, RepositoryName(last.repository), tag, old and old.digest, new and new.digest)
    tx.execute(
        "INSERT INTO tag_change (time, user, address, repository, tag, before, after) VALUES (?, ?, ?, ?, ?, ?, ?)",
        change[1:],
    )
    fields = {
        "repository": last.repository,
        "tag": tag,
        "digest": last.digest,
        "before": old.digest if old and new else None,
        "size": last.size,
    }
    tx.after_commit(lambda: event(f"tag {change.what}", **actor._asdict(), **fields))


def manifest_pushed(tx: Transaction, actor: Actor, repository: int, manifest: int, tags: Iterable[Tag]) -> None:
    """Log a push once it is committed."""
    told = manifest_told(tx, repository, manifest)
    assert told  # noqa: S101 -- for the type checker: it was just pushed
    fields = {"repository": told.repository, "tag": ",".join(tags) or None, "digest": told.digest, "size": told.size}
    tx.after_commit(lambda: event("manifest pushed", **actor._asdict(), **fields))


def log_removals(removed: Iterable[Told], actor: Actor | None, repository: str = "") -> None:
    """Log what was removed; without an actor it was due."""
    by = actor._asdict() if actor else {}
    for row in removed:
        event(
            f"{row.what} removed",
            **by,
            repository=row.repository or repository or None,
            digest=row.digest,
            size=row.size,
        )


def changes_after(
    tx: Transaction, last: int, limit: int, *, name: RepositoryName | None, tag: Tag | None, since: int
) -> list[Change]:
    """Return changes by ascending id, after `last`, of a repository or a tag of it, or all, since then."""
    condition, parameters = "", tuple(filter(None, (name, tag)))
    if tag:
        condition = " AND repository = ? AND tag = ?"
    elif name:
        # The ids are walked, once: with the index, each batch would sort all that the repository has.
        condition = " AND +repository = ?"
    rows = tx.rows(
        "SELECT id, time, user, address, repository, tag, before, after FROM tag_change"  # noqa: S608 -- of constants only
        f" WHERE id > ?{condition} AND +time >= ? ORDER BY id LIMIT ?",
        (last, *parameters, since, limit),
    )
    return [_change(row) for row in rows]


def latest_changes(tx: Transaction, name: RepositoryName, tag: Tag, offset: int, limit: int) -> list[Change]:
    """Return changes of a tag, the newest first."""
    rows = tx.rows(
        "SELECT id, time, user, address, repository, tag, before, after FROM tag_change"
        " WHERE repository = ? AND tag = ? ORDER BY id DESC LIMIT ? OFFSET ?",
        (name, tag, limit, offset),
    )
    return [_change(row) for row in rows]


def count_changes(tx: Transaction, name: RepositoryName, tag: Tag) -> int:
    """Count the changes of a tag."""
    count: int = tx.value("SELECT count(*) FROM tag_change WHERE repository = ? AND tag = ?", (name, tag))
    return count


def has_changes_before(tx: Transaction, time: int) -> bool:
    """Tell whether there are changes from then or before."""
    return tx.value("SELECT 1 FROM tag_change WHERE time <= ? LIMIT 1", (time,)) is not None


def delete_changes_before(tx: Transaction, time: int, limit: int) -> None:
    """Forget changes from then or before, at most `limit`."""
    tx.execute(
        "DELETE FROM tag_change WHERE id IN (SELECT id FROM tag_change WHERE time <= ? ORDER BY time LIMIT ?)",
        (time, limit),
    )


def _change(row: tuple[object, ...]) -> Change:
    number, time, user, address, repository, tag, before, after = row
    digests = (Digest(before) if before else None, Digest(after) if after else None)
    return Change(
        int(str(number)), int(str(time)), str(user), str(address), RepositoryName(repository), Tag(tag), *digests
    )
