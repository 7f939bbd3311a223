"""What the registry API lists: repositories, tags and referrers, in pieces, and without the lock that pulls and pushes
need.

A list may have a million names: each piece is a query of its own, and between two of them nothing is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable, NamedTuple

from vex.errors import NAME_UNKNOWN, RegistryError
from vex.names import Digest, RepositoryName
from vex.progress import UNHURRIED, Work
from vex.storage import listings, manifest_rows, repository_rows
from vex.storage.database import Database, Transaction
from vex.storage.listings import NAME, RepositoryEntry, View
from vex.storage.referrers import ReferrerRow, list_referrers

# Names of a usual length are some tens of KiB.
_PIECE = 1000
# Clients take an index of up to 4 MiB; a page of referrers ends before its annotations reach that.
_REFERRERS_BYTES = 3 * 1024 * 1024

# Loads the names after one, at most so many.
Names = Callable[[str, int], "list[str]"]


class Extent(NamedTuple):
    """How far a page of a list goes: the last name on it, the bytes of all its names in JSON, and whether more
    follow.
    """

    end: str
    bytes: int
    more: bool


class Lists:
    """Reads of lists; any thread may use it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def repositories(self, last: str, limit: int) -> list[str]:
        """Return the names of repositories that hold a manifest, in ASCII order, after `last`."""
        with self._database.browse() as tx:
            return repository_rows.list_repositories(tx, last, limit)

    def tags(self, name: RepositoryName, last: str, limit: int) -> list[str]:
        """Return the tags of a repository in ASCII order, after `last`; raises NAME_UNKNOWN."""
        with self._database.browse() as tx:
            return manifest_rows.list_tags(tx, _find(tx, name), last, limit)

    def repositories_extent(self, last: str, max_bytes: int, work: Work = UNHURRIED) -> Extent:
        """Tell how far the list of repositories goes in so many bytes."""
        with self._database.browse(work) as tx:
            return _extent(lambda end: listings.measure_repositories(tx, end, _PIECE), last, max_bytes)

    def tags_extent(self, name: RepositoryName, last: str, max_bytes: int, work: Work = UNHURRIED) -> Extent:
        """Tell how far the list of tags of a repository goes in so many bytes; raises NAME_UNKNOWN."""
        with self._database.browse(work) as tx:
            repository = _find(tx, name)
            return _extent(lambda end: listings.measure_tags(tx, repository, end, _PIECE), last, max_bytes)

    def referrers(
        self, name: RepositoryName, subject: Digest, artifact_type: str, last: str, limit: int
    ) -> tuple[list[ReferrerRow], bool]:
        """Return a page of the manifests of a repository with this subject, by digest, after `last`, and whether more
        follow; `artifact_type` "" means any.

        What clients left under the fallback tag of the referrers tag schema needs no merging: what such an index lists
        is in the repository, by the rule for references, and so is found here by its own `subject`.
        """
        with self._database.browse() as tx:
            repository = repository_rows.find_repository(tx, name)
            if repository is None:
                return [], False
            return list_referrers(tx, repository, subject, artifact_type, last, limit, _REFERRERS_BYTES)

    def search(self, text: str, limit: int, work: Work = UNHURRIED) -> list[RepositoryEntry]:
        """Return the first repositories, by name, that hold a manifest and have the text in their name."""
        with self._database.browse(work) as tx:
            return listings.repository_entries(tx, "", View(text, NAME, descending=False, offset=0, limit=limit))


def pieces(load: Names, last: str, end: str) -> Iterator[list[str]]:
    """Give the names after `last` up to `end`, some at a time."""
    while last < end:
        names = [name for name in load(last, _PIECE) if name <= end]
        if not names:
            return
        yield names
        last = names[-1]


def _find(tx: Transaction, name: RepositoryName) -> int:
    repository = repository_rows.find_repository(tx, name)
    if repository is None:
        raise RegistryError(NAME_UNKNOWN)
    return repository


def _extent(measure: Callable[[str], listings.NamePiece], last: str, max_bytes: int) -> Extent:
    end, size = last, 0
    while True:
        piece = measure(end)
        # A comma and two quotation marks for each.
        count = piece.characters + 3 * piece.names
        if size + count > max_bytes:
            return Extent(end, size, more=True)
        size += count
        end = piece.last or end
        if piece.names < _PIECE:
            return Extent(end, size, more=False)
