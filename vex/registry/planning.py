"""Plans of what the rules remove: made, shown by their number, and applied just so; and what the rules say of one tag.

A plan is rows in the database. Applying it leaves out what has moved or was fetched since, and ends where it was
interrupted: what is done is noted in the transaction that does it, so that it can go on. Each tag is a transaction of
its own; making a plan only looks, without the lock, but for the rows that it writes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase

from vex.errors import FAILED, NAME_UNKNOWN, RegistryError
from vex.names import RepositoryName, is_repository_pattern
from vex.registry import deleting
from vex.registry.freeing import Going
from vex.registry.parts import Parts, Row
from vex.registry.policies import Policies, Policy
from vex.registry.references import Release, untag
from vex.registry.rules import UNTAGGED, Verdict, is_untagged_due, place_of, says_anything, verdicts
from vex.registry.untagging import find_tag, parse_tag
from vex.registry.writing import PAUSE_SECONDS
from vex.storage import repository_rows, rules
from vex.storage.audit import Actor
from vex.storage.database import Database, Transaction
from vex.storage.rules import PlannedTag, PlanRow, TagFacts

MOST_ROWS = 2000
# Rows that one transaction writes, in less than five milliseconds.
_BATCH = 200
# Tags that are looked at in one transaction, of some tens of milliseconds.
_PAGE = 2000
# Tags that are judged in a piece of work, of about a millisecond.
_PIECE = 100
_KEPT_PLANS = 20
_WAIT_SECONDS = 0.2
# How often what was fetched is written down while a plan is applied, so that it counts.
_FETCHES_SECONDS = 1.0


def plan(parts: Parts, repositories: list[str]) -> Iterator[Row]:
    """Make a plan for repositories, given as names or patterns, or for all; tells its number, how many tags go, and
    what is odd. Raises NAME_UNKNOWN and FAILED.
    """
    for wanted in repositories:
        if not is_repository_pattern(wanted):
            raise RegistryError(FAILED, f"{wanted} is no name of a repository, nor a pattern such as team/*")
    database, now = parts.storage.database, int(parts.storage.clock())
    _save_fetches(parts)
    with database.write() as tx:
        number = rules.begin_plan(tx, now, fingerprint(parts.storage.policies), parts.actor.user)
    _forget_plans_before(database, number - _KEPT_PLANS + 1)
    with database.browse(parts.work) as tx:
        known = rules.filled_repositories(tx)
    chosen = [one for one in known if _is_wanted(one[1], repositories)]
    if repositories and not chosen:
        raise RegistryError(NAME_UNKNOWN, f"there is no repository {', '.join(repositories)}; see vex ls")
    making = _Making(parts, number, now)
    for repository, name in chosen:
        _judge(parts, making, repository, name, now)
    making.end()
    warnings = [
        f"{clause.place} matches no repository"
        for clause in parts.storage.policies.clauses
        if not any(fnmatchcase(name, clause.pattern) for _, name in known)
    ]
    yield {"plan": number, "count": making.count, "bytes": making.bytes, "warnings": warnings}


def planned(parts: Parts, plan: int, last: int, limit: int) -> Iterator[Row]:
    """Give the tags of a plan in their order, after the one with the number `last`."""
    with parts.storage.database.browse(parts.work) as tx:
        found = rules.planned_after(tx, plan, last, max(0, min(limit, MOST_ROWS)))
    return iter([{"number": number, **_row(tag)} for number, tag in found])


def apply(parts: Parts, plan: int) -> Iterator[Row]:
    """Do what a plan says, one tag after another; what is left out is told in the `error` of its row. Raises FAILED."""
    applying = parts.registry.applying
    while not applying.acquire(timeout=_WAIT_SECONDS):
        parts.work.step()
        yield {"progress": "another plan is being applied"}
    try:
        yield from _apply(parts, _find_plan(parts, plan))
    finally:
        applying.release()


def explain(parts: Parts, image: str) -> Iterator[Row]:
    """Say what the rules make of a tag; raises MANIFEST_UNKNOWN."""
    name, wanted = parse_tag(image)
    now, policy = int(parts.storage.clock()), parts.storage.policies.of(name)
    _save_fetches(parts)
    with parts.storage.database.browse(parts.work) as tx:
        repository, _ = find_tag(tx, name, wanted)
    for tag, verdict in verdicts(_newest_first(parts, repository), policy, now):
        if tag.name == wanted:
            return iter([_explained(name, tag, verdict, policy)])
    raise RegistryError(FAILED, f"{image} was deleted a moment ago")


def fingerprint(policies: Policies) -> str:
    """Return what tells sections from others, wherever they are in the file."""
    said = [(clause.pattern, sorted(clause.settings.items())) for clause in policies.clauses]
    return hashlib.sha256(repr(said).encode()).hexdigest()


class _Making:
    """A plan that is being made: counts what comes free, and writes that, some tags at a time, each time in a
    transaction of its own.
    """

    def __init__(self, parts: Parts, plan: int, now: int) -> None:
        self._parts = parts
        self._database = parts.storage.database
        self._plan = plan
        self._now = now
        self._going: Going | None = None
        self._waiting: list[tuple[int, RepositoryName, TagFacts, str]] = []
        self.count = self.bytes = 0

    def add(self, repository: int, name: RepositoryName, tag: TagFacts, rule: str) -> None:
        """Add what goes by a rule."""
        self._waiting.append((repository, name, tag, rule))
        if len(self._waiting) == _BATCH:
            self._write(rules.MAKING)
            time.sleep(PAUSE_SECONDS)

    def end(self) -> None:
        """Have the plan ready."""
        self._write(rules.READY)

    def _write(self, state: str) -> None:
        with self._database.browse(self._parts.work) as tx:
            if self._going is None:
                self._going = Going(tx, self._parts.storage.policies, self._now, self._parts.work)
            self._going.go_on(tx)
            planned = [_planned(self._going, *waiting) for waiting in self._waiting]
        with self._database.write() as tx:
            rules.add_to_plan(tx, self._plan, self.count + 1, planned)
            rules.set_plan_state(tx, self._plan, state)
        self.count += len(planned)
        self.bytes += sum(tag.bytes for tag in planned)
        self._waiting = []


def _judge(parts: Parts, making: _Making, repository: int, name: RepositoryName, now: int) -> None:
    policy = parts.storage.policies.of(name)
    if not says_anything(policy):
        return
    for tag, verdict in verdicts(_newest_first(parts, repository), policy, now):
        if verdict.goes:
            making.add(repository, name, tag, place_of(policy, verdict.key, verdict.pattern))
    if policy.expire_untagged_after is not None:
        for tag in _untagged(parts, repository):
            if is_untagged_due(tag, policy, now):
                making.add(repository, name, tag, place_of(policy, UNTAGGED))


def _newest_first(parts: Parts, repository: int) -> Iterator[TagFacts]:
    """Give the tags of a repository from the newest to the oldest; those of one second in the order of their changes,
    the last one first.
    """
    found: list[tuple[TagFacts, int | None]] = []
    second: list[tuple[int, TagFacts]] = []
    while True:
        with parts.storage.database.browse(parts.work) as tx:
            found = rules.tags_before(tx, repository, found[-1][0] if found else None, _PAGE)
        for number, (tag, change) in enumerate(found):
            if number % _PIECE == 0:
                parts.work.step()
            if second and second[0][1].pushed != tag.pushed:
                yield from _by_change(second)
                second = []
            second.append((change or 0, tag))
        if len(found) < _PAGE:
            yield from _by_change(second)
            return


def _by_change(tags: list[tuple[int, TagFacts]]) -> Iterator[TagFacts]:
    return (tag for _, tag in sorted(tags, key=lambda one: -one[0]))


def _untagged(parts: Parts, repository: int) -> Iterator[TagFacts]:
    last: TagFacts | None = None
    while True:
        with parts.storage.database.browse(parts.work) as tx:
            found = rules.untagged_after(tx, repository, last, _PAGE)
        for number, manifest in enumerate(found):
            if number % _PIECE == 0:
                parts.work.step()
            yield manifest
        if len(found) < _PAGE:
            return
        last = found[-1]


def _planned(going: Going, repository: int, name: RepositoryName, tag: TagFacts, rule: str) -> PlannedTag:
    freed = (
        going.drop(repository, tag.name, tag.manifest) if tag.name else going.drop_manifest(repository, tag.manifest)
    )
    return PlannedTag(name, tag.name, tag.digest, rule, tag.pushed, tag.fetched, freed.bytes)


def _row(tag: PlannedTag) -> Row:
    return {**tag._asdict(), "tag": tag.tag or None}


def _save_fetches(parts: Parts) -> None:
    # On a disk that is full too: what deletes must not fail for that.
    parts.storage.delete(lambda: parts.storage.pulls.fetches.save(parts.storage.database, at_once=True))


def _is_wanted(name: str, patterns: list[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _forget_plans_before(database: Database, plan: int) -> None:
    with database.read() as tx:
        old = rules.plans_before(tx, plan)
    for number in old:
        done = False
        while not done:
            with database.write() as tx:
                done = rules.delete_plan(tx, number, _BATCH)


def _find_plan(parts: Parts, number: int) -> PlanRow:
    with parts.storage.database.read() as tx:
        found = rules.find_plan(tx, number)
    if found is None:
        raise RegistryError(FAILED, f"there is no plan {number}; vex rules plan makes one, and tells its number")
    if found.state == rules.MAKING:
        raise RegistryError(FAILED, f"plan {number} was not finished; make another with vex rules plan")
    if found.configuration != fingerprint(parts.storage.policies):
        raise RegistryError(
            FAILED,
            f"the sections of the configuration have changed since plan {number}; make another with vex rules plan",
        )
    return found


def _apply(parts: Parts, found: PlanRow) -> Iterator[Row]:
    database, last, due = parts.storage.database, 0, 0.0
    while True:
        with database.read() as tx:
            batch = rules.planned_after(tx, found.id, last, _BATCH, undone=True)
        for number, tag in batch:
            parts.work.step()
            if time.monotonic() >= due:
                _save_fetches(parts)
                due = time.monotonic() + _FETCHES_SECONDS
            error = _take(parts, found, number, tag)
            yield {**_row(tag), "error": error} if error else _row(tag)
            last = number
        if len(batch) < _BATCH:
            break
    with database.write() as tx:
        rules.set_plan_state(tx, found.id, rules.APPLIED)


def _take(parts: Parts, found: PlanRow, number: int, planned: PlannedTag) -> str:
    """Delete a tag of a plan, or say why it stays."""
    reasons: list[str] = []

    def work(tx: Transaction, release: Release) -> None:
        reasons[:] = filter(None, [_taken(tx, release, parts, found, planned)])
        rules.set_done(tx, found.id, number)

    try:
        parts.registry.writer.delete(planned.repository, Actor(f"rule {planned.rule}", parts.actor.address), work)
    except RegistryError as error:
        return error.message
    return "".join(reasons)


def _taken(tx: Transaction, release: Release, parts: Parts, found: PlanRow, planned: PlannedTag) -> str:
    repository = repository_rows.find_repository(tx, planned.repository)
    facts = None if repository is None else rules.find_planned(tx, repository, planned.tag, planned.digest)
    if repository is None or facts is None:
        return "it is gone"
    if (facts.digest, facts.pushed) != (planned.digest, planned.pushed):
        return "it was pushed again" if facts.digest == planned.digest else "it has moved"
    # What was fetched before was written down before the plan was made, but within the same second nobody knows.
    if facts.fetched is not None and facts.fetched >= found.time:
        return "it was pulled since"
    now = int(parts.storage.clock())
    if not planned.tag:
        deleting.delete_manifest(
            tx, release, planned.repository, repository, facts.manifest, parts.registry.rules.delete_untags, now
        )
        return ""
    untag(tx, release, repository, planned.tag, facts.manifest, now)
    release.drop(tx, repository, facts.manifest, now)
    return ""


def _explained(name: RepositoryName, tag: TagFacts, verdict: Verdict, policy: Policy) -> Row:
    return {
        "repository": name,
        "tag": tag.name,
        "digest": tag.digest,
        "goes": verdict.goes,
        "rule": place_of(policy, verdict.key, verdict.pattern) if verdict.key else None,
        "due": None if verdict.due is None else int(verdict.due),
        "pattern": verdict.pattern or None,
        "place": verdict.place or None,
        "pushed": tag.pushed,
        "pulled": tag.pulled,
        "asked": tag.asked,
        "settings": dict(policy.places),
    }
