"""The queries of removal: the states in which a manifest leaves a repository, and what it references, taken away a part
at a time.

| state | who can fetch it | what is listed | how it ends |
|---|---|---|---|
| LIVE | all | it, while it has no tag | `expires` is set only for a referrer whose subject is not there |
| KEPT | all | it | nothing references it: released at `expires` |
| HELD | all, by digest | nothing | somebody relies on it (`pulls.py`): released at `expires`, or held on |
| GONE | nobody | nothing | keeps all that it references until `expires`; then lets go of it, a part in each transaction
|

So what can be fetched has what it references at every moment, and a crash in between leaves rows that are due.
"""

from __future__ import annotations

from typing import NamedTuple

from vex.names import Digest, Tag
from vex.storage.database import Transaction

LIVE, KEPT, HELD, GONE = range(4)
_SIGNATURES = ("sig", "att", "sbom")
# More of them are looked at when they are due.
_REFERRERS_KEPT = 200


class Leaving(NamedTuple):
    """A manifest of a repository on its way out; `holders` counts the tags and indexes that reference it."""

    state: int
    expires: int | None
    holders: int
    digest: Digest
    subject: str | None


def find_leaving(tx: Transaction, repository: int, manifest: int) -> Leaving | None:
    """Return the state of a manifest in a repository."""
    row = tx.row(
        "SELECT state, expires, holders, digest, subject FROM repository_manifest JOIN manifest ON id = manifest WHERE"
        " repository = ? AND manifest = ?",
        (repository, manifest),
    )
    return None if row is None else Leaving(row[0], row[1], row[2], Digest(row[3]), row[4])


def due(tx: Transaction, now: int, limit: int) -> list[tuple[int, int]]:
    """Return (repository, manifest) of those whose next step is due."""
    return [
        (row[0], row[1])
        for row in tx.rows(
            "SELECT repository, manifest FROM repository_manifest WHERE expires <= ? LIMIT ?", (now, limit)
        )
    ]


def set_state(tx: Transaction, repository: int, manifest: int, state: int, expires: int | None) -> None:
    """Note how far a manifest is on its way out, and when the next step is due."""
    tx.execute(
        "UPDATE repository_manifest SET state = ?, expires = ? WHERE repository = ? AND manifest = ?",
        (state, expires, repository, manifest),
    )


def unreferenced(tx: Transaction, repository: int, manifest: int, state: int, expires: int) -> bool:
    """Put a manifest that nothing references into a state, unless it is further already; returns whether it was put
    there, or waited for this.
    """
    changed = tx.execute(
        "UPDATE repository_manifest SET state = max(state, ?), expires = ?"
        " WHERE repository = ? AND manifest = ? AND holders = 0 AND (state < 2 OR expires IS NULL)",
        (state, expires, repository, manifest),
    )
    return changed > 0


def revive(tx: Transaction, repository: int, manifest: int) -> None:
    """Have a manifest live again, since something references it."""
    tx.execute(
        "UPDATE repository_manifest SET state = 0, expires = NULL WHERE repository = ? AND manifest = ? AND expires IS"
        " NOT NULL",
        (repository, manifest),
    )


def waits_for_parent(tx: Transaction, repository: int, digest: Digest) -> bool:
    """Tell whether a manifest was pushed by digest, and no tag or index has taken it up yet."""
    row = tx.row(
        "SELECT 1 FROM manifest JOIN repository_manifest ON manifest = id AND repository = ? WHERE digest = ? AND"
        " holders = 0 AND state = 0",
        (repository, digest),
    )
    return row is not None


def has_subject(tx: Transaction, repository: int, subject: str) -> bool:
    """Tell whether a subject can be fetched in a repository."""
    row = tx.row(
        "SELECT state FROM manifest JOIN repository_manifest ON manifest = id AND repository = ? WHERE digest = ?",
        (repository, subject),
    )
    return row is not None and row[0] < GONE


def keep_waiting_referrers(tx: Transaction, repository: int, subject: Digest) -> None:
    """Have referrers stay that have waited for this subject."""
    tx.execute(
        "UPDATE repository_manifest SET expires = NULL WHERE repository = ? AND state = 0 AND manifest IN"
        " (SELECT manifest FROM repository_manifest INDEXED BY repository_manifest_waiting WHERE repository = ? AND"
        " subject = ?"
        " AND holders = 0 AND state < 2 AND subject IS NOT NULL AND expires IS NOT NULL LIMIT ?)",
        (repository, repository, subject, _REFERRERS_KEPT),
    )


def held_parents(tx: Transaction, repository: int, manifest: int) -> list[int]:
    """Return the ids of the indexes that reference a manifest, and are themselves only held."""
    rows = tx.rows(
        "SELECT parent FROM manifest_child c JOIN repository_manifest r ON r.repository = c.repository AND r.manifest ="
        " c.parent"
        " WHERE c.repository = ? AND c.child = ? AND r.state = ?",
        (repository, manifest, HELD),
    )
    return [row[0] for row in rows]


# What a manifest that is gone lets go of


def take_children(tx: Transaction, repository: int, manifest: int, limit: int) -> list[int]:
    """Delete references of an index to manifests; returns the ids of those."""
    children = [
        row[0]
        for row in tx.rows(
            "SELECT child FROM manifest_child WHERE repository = ? AND parent = ? LIMIT ?",
            (repository, manifest, limit),
        )
    ]
    for child in children:
        tx.execute(
            "DELETE FROM manifest_child WHERE repository = ? AND child = ? AND parent = ?",
            (repository, child, manifest),
        )
    return children


def take_blobs(tx: Transaction, repository: int, manifest: int, limit: int) -> list[tuple[int, Digest]]:
    """Delete references of a manifest to blobs; returns the ids and digests of those."""
    rows = tx.rows(
        "SELECT blob, digest FROM manifest_blob JOIN blob ON id = blob WHERE repository = ? AND manifest = ? LIMIT ?",
        (repository, manifest, limit),
    )
    for row in rows:
        tx.execute(
            "DELETE FROM manifest_blob WHERE repository = ? AND blob = ? AND manifest = ?",
            (repository, row[0], manifest),
        )
    return [(row[0], Digest(row[1])) for row in rows]


def referrers_after(tx: Transaction, repository: int, subject: Digest, last: int, limit: int) -> list[int]:
    """Return the ids of the manifests of a repository with this subject, ascending, after `last`."""
    rows = tx.rows(
        "SELECT manifest FROM repository_manifest INDEXED BY repository_manifest_subject"
        " WHERE repository = ? AND subject = ? AND manifest > ? ORDER BY manifest LIMIT ?",
        (repository, subject, last, limit),
    )
    return [row[0] for row in rows]


def signature_tags(tx: Transaction, repository: int, digest: Digest) -> list[tuple[Tag, int]]:
    """Return the tags under which cosign 2 keeps what it knows of a manifest, with the ids of what they point to."""
    names = [f"{digest.algorithm}-{digest.encoded}.{kind}" for kind in _SIGNATURES]
    rows = tx.rows("SELECT name, manifest FROM tag WHERE repository = ? AND name IN (?, ?, ?)", (repository, *names))
    return [(Tag(row[0]), row[1]) for row in rows]
