"""What the operator wants of each repository: which tags are immutable, protected or expire, and how much it may hold.

It comes from clauses, in their order: of those that match a repository, the first that has a setting gives it. All of
it is in memory, so that a push asks no database; without a clause it costs nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Callable, NamedTuple

from vex.names import TagPatterns

# Of so many repositories it is remembered what was found.
_REMEMBERED = 1000
_NO_TAGS = TagPatterns()


class Clause(NamedTuple):
    """What one section of the configuration says of the repositories that a pattern matches; `place` is its header and
    line, for people.
    """

    pattern: str
    place: str
    settings: Mapping[str, Any]


class Policy(NamedTuple):
    """What holds for a repository, times in seconds; None, or no patterns, where nobody says anything. `places` tells
    which section each setting is from.
    """

    immutable: TagPatterns = _NO_TAGS
    protected: TagPatterns = _NO_TAGS
    expire: TagPatterns = _NO_TAGS
    expire_after: float | None = None
    keep_newest: int | None = None
    expire_untagged_after: float | None = None
    expire_label: bool = False
    quota: int | None = None
    places: Mapping[str, str] = {}


NOTHING = Policy()


class Policies:
    """The policies of all repositories; any thread may use it, also while it changes."""

    def __init__(self, clauses: Iterable[Clause] = ()) -> None:
        self.replace(clauses)

    def replace(self, clauses: Iterable[Clause]) -> None:
        """Have other clauses count from now on."""
        self.clauses = tuple(clauses)
        # One assignment, so that no thread sees something of both.
        self._of: Callable[[str], Policy] = (
            functools.lru_cache(_REMEMBERED)(functools.partial(_policy, self.clauses)) if self.clauses else _nothing
        )

    def of(self, repository: str) -> Policy:
        """Return what holds for a repository."""
        return self._of(repository)


def _nothing(_repository: str) -> Policy:
    return NOTHING


def _policy(clauses: tuple[Clause, ...], repository: str) -> Policy:
    settings: dict[str, Any] = {}
    places: dict[str, str] = {}
    for clause in clauses:
        if fnmatchcase(repository, clause.pattern):
            for name in clause.settings.keys() - settings.keys():
                settings[name], places[name] = clause.settings[name], clause.place
    return Policy(**settings, places=places) if settings else NOTHING
