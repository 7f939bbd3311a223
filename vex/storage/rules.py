"""The queries of the rules: what decides over tags, and the plans that were made of it. Times in seconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vex.names import Digest, RepositoryName, Tag
from vex.storage.database import Transaction

MAKING, READY, APPLIED = "making", "ready", "applied"


class TagFacts(NamedTuple):
    """What decides over a tag, "" for a manifest without one: since when it points to a manifest, when that was last
    pulled and asked for, and how many seconds its label gives it; None for never, and without one.
    """

    name: Tag
    manifest: int
    digest: Digest
    pushed: int
    pulled: int | None
    asked: int | None
    lifetime: int | None

    @property
    def fetched(self) -> int | None:
        """When it was last pulled or asked for, None for never."""
        return max(filter(None, (self.pulled, self.asked)), default=None)

    @property
    def used(self) -> int:
        """Since when it has an age: since it was pushed or last fetched."""
        return max(self.pushed, self.fetched or 0)


class PlanRow(NamedTuple):
    """A plan; `configuration` is a digest of the sections that it was made with."""

    id: int
    time: int
    configuration: str
    state: str
    user: str


class PlannedTag(NamedTuple):
    """A tag that goes by a plan, "" for a manifest without one, and the bytes that come free with it."""

    repository: RepositoryName
    tag: Tag
    digest: Digest
    rule: str
    pushed: int
    pulled: int | None
    bytes: int


_TAG_FIELDS = "t.name, t.manifest, m.digest, t.updated, r.pulled, r.asked, s.lifetime"
_TAG_FROM = (
    " FROM tag t CROSS JOIN repository_manifest r ON r.repository = t.repository AND r.manifest = t.manifest"
    " CROSS JOIN manifest m ON m.id = t.manifest LEFT JOIN manifest_summary s ON s.manifest = t.manifest"
)
_TAG = f"SELECT {_TAG_FIELDS}{_TAG_FROM}"
_LAST_CHANGE = "(SELECT max(c.id) FROM tag_change c WHERE c.repository = n.name AND c.tag = t.name)"
_TAG_CHANGED = f"SELECT {_TAG_FIELDS}, {_LAST_CHANGE}{_TAG_FROM} CROSS JOIN repository n ON n.id = t.repository"
# Later than all.
_NO_TIME = 2**62
_UNTAGGED = (
    "SELECT r.manifest, m.digest, r.pushed, r.pulled, r.asked FROM repository_manifest r CROSS JOIN manifest m ON m.id"
    " = r.manifest WHERE r.repository = ? AND r.holders = 0 AND r.state < 2 AND r.state = 0 AND r.subject IS NULL"
)


# What decides


def filled_repositories(tx: Transaction) -> list[tuple[int, RepositoryName]]:
    """Return (id, name) of all repositories that hold something, by name."""
    return [
        (row[0], RepositoryName(row[1]))
        for row in tx.rows("SELECT id, name FROM repository WHERE emptied IS NULL ORDER BY name")
    ]


def tags_before(
    tx: Transaction, repository: int, last: TagFacts | None, limit: int
) -> list[tuple[TagFacts, int | None]]:
    """Return tags of a repository with the numbers of their last changes, by descending time and name, after `last`."""
    rows = tx.rows(
        f"{_TAG_CHANGED} WHERE t.repository = ? AND (t.updated, t.name) < (?, ?) ORDER BY t.updated DESC, t.name DESC"
        " LIMIT ?",
        (repository, last.pushed if last else _NO_TIME, last.name if last else "", limit),
    )
    return [(TagFacts(Tag(row[0]), row[1], Digest(row[2]), *row[3:7]), row[7]) for row in rows]


def find_planned(tx: Transaction, repository: int, tag: Tag, digest: Digest) -> TagFacts | None:
    """Find what decides now over a tag, or over a manifest without one."""
    if tag:
        row = tx.row(f"{_TAG} WHERE t.repository = ? AND t.name = ?", (repository, tag))
        return None if row is None else TagFacts(Tag(row[0]), row[1], Digest(row[2]), *row[3:])
    return next(_untagged(tx, f"{_UNTAGGED} AND m.digest = ?", repository, digest), None)


def untagged_after(tx: Transaction, repository: int, last: TagFacts | None, limit: int) -> list[TagFacts]:
    """Return manifests that were pushed by digest, and that since then no tag and no index had, without referrers, by
    time, after `last`: what has lost its last reference is on its way out.
    """
    place = (last.pushed, last.manifest) if last else (-1, -1)
    return list(
        _untagged(
            tx,
            f"{_UNTAGGED} AND (r.pushed, r.manifest) > (?, ?) ORDER BY r.pushed, r.manifest LIMIT ?",
            repository,
            *place,
            limit,
        )
    )


def _untagged(tx: Transaction, query: str, *parameters: object) -> Iterator[TagFacts]:
    for row in tx.each(query, parameters):
        yield TagFacts(Tag(""), row[0], Digest(row[1]), row[2], row[3], row[4], None)


# Plans


def begin_plan(tx: Transaction, time: int, configuration: str, user: str) -> int:
    """Record a plan that is being made; returns its number."""
    return tx.insert(
        "INSERT INTO rule_plan (time, configuration, state, user) VALUES (?, ?, ?, ?)",
        (time, configuration, MAKING, user),
    )


def add_to_plan(tx: Transaction, plan: int, first: int, tags: Iterable[PlannedTag]) -> None:
    """Add tags to a plan, numbered from `first` on."""
    for number, tag in enumerate(tags, first):
        tx.execute(
            "INSERT INTO rule_plan_tag (plan, number, repository, tag, digest, rule, pushed, pulled, bytes)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (plan, number, *tag),
        )


def set_plan_state(tx: Transaction, plan: int, state: str) -> None:
    """Note how far a plan is."""
    tx.execute("UPDATE rule_plan SET state = ? WHERE id = ?", (state, plan))


def find_plan(tx: Transaction, plan: int) -> PlanRow | None:
    """Find a plan."""
    row = tx.row("SELECT id, time, configuration, state, user FROM rule_plan WHERE id = ?", (plan,))
    return None if row is None else PlanRow(*row)


def planned_after(
    tx: Transaction, plan: int, last: int, limit: int, *, undone: bool = False
) -> list[tuple[int, PlannedTag]]:
    """Return the tags of a plan with their numbers, after `last`, perhaps only those that are not done."""
    rows = tx.rows(
        "SELECT number, repository, tag, digest, rule, pushed, pulled, bytes FROM rule_plan_tag WHERE plan = ?"
        " AND number > ? AND done <= ? ORDER BY number LIMIT ?",
        (plan, last, not undone, limit),
    )
    return [(row[0], PlannedTag(RepositoryName(row[1]), Tag(row[2]), Digest(row[3]), *row[4:])) for row in rows]


def set_done(tx: Transaction, plan: int, number: int) -> None:
    """Note that a tag of a plan has gone, or was left out."""
    tx.execute("UPDATE rule_plan_tag SET done = 1 WHERE plan = ? AND number = ?", (plan, number))


def plans_before(tx: Transaction, plan: int) -> list[int]:
    """Return the numbers of all plans before one."""
    return [row[0] for row in tx.rows("SELECT id FROM rule_plan WHERE id < ?", (plan,))]


def delete_plan(tx: Transaction, plan: int, limit: int) -> bool:
    """Delete so many tags of a plan, and with the last of them the plan; returns whether that was all."""
    tags = tx.execute(
        "DELETE FROM rule_plan_tag WHERE plan = ? AND number IN (SELECT number FROM rule_plan_tag WHERE plan = ?"
        " LIMIT ?)",
        (plan, plan, limit),
    )
    return tags < limit and bool(tx.execute("DELETE FROM rule_plan WHERE id = ?", (plan,)))
