"""`vex log`: the audit trail, a line for each change of a tag, oldest first, so that the newest is above the next
prompt.

Lines for people have local times and the beginnings of digests; those for programs have all of both.

It reads in batches, so that neither a long trail nor a pager that waits holds the database.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NamedTuple

from vex.logs import escaped, utc
from vex.names import RepositoryName, Tag, parse_image
from vex.storage import audit
from vex.storage.audit import Change
from vex.storage.database import Database
from vex.storage.directory import registry_in
from vex.storage.schema import WITH_TRAIL

_BATCH = 500
_SHOWN_DIGITS = 12


class Wanted(NamedTuple):
    """Which changes are wanted: of all tags, those of a repository, or one tag; from `since` on, in seconds since
    1970.
    """

    repository: RepositoryName | None = None
    tag: Tag | None = None
    since: int = 0


def wanted(text: str, seconds: float, now: float) -> Wanted:
    """Read REPOSITORY[:TAG], "" for all, of the last seconds, 0 for any; raises NAME_INVALID and TAG_INVALID."""
    since = int(now - seconds) if seconds else 0
    return Wanted(*parse_image(text), since=since) if text else Wanted(since=since)


def show(directory: Path, what: Wanted, *, as_json: bool, say: Callable[[str], None] = print) -> int:
    """Say a line for each change, and return how many those were; the registry may be running. Raises Failure."""
    count = 0
    with registry_in(directory, WITH_TRAIL) as database:
        for change in _each(database, what):
            say(_json(change) if as_json else _text(change))
            count += 1
    return count


def _each(database: Database, what: Wanted) -> Iterator[Change]:
    last = 0
    while True:
        with database.read() as tx:
            changes = audit.changes_after(tx, last, _BATCH, name=what.repository, tag=what.tag, since=what.since)
        yield from changes
        if len(changes) < _BATCH:
            return
        last = changes[-1].id


def _text(change: Change) -> str:
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(change.time))
    digests = " -> ".join(_shortened(digest) for digest in (change.before, change.after) if digest)
    return escaped(
        f"{moment} {change.user or '-'} {change.address or '-'} {change.what} {change.repository}:{change.tag}"
        f" {digests}"
    )


def _shortened(digest: str) -> str:
    """Cut a digest to what docker shows of one, since lines with two whole ones wrap on every terminal."""
    return digest.partition(":")[2][:_SHOWN_DIGITS]


def _json(change: Change) -> str:
    fields = change._asdict()
    del fields["id"]
    return json.dumps({**fields, "time": utc(change.time), "change": change.what}).replace("\x7f", "\\u007f")
