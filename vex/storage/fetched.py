"""The queries of when manifests were last pulled and asked for, in seconds since 1970; NULL for never."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vex.storage.database import Transaction

# A manifest in a repository, by the ids of both.
Held = tuple[int, int]


def with_parents(tx: Transaction, times: Mapping[Held, int]) -> dict[Held, int]:
    """Return the times of manifests with those of all indexes above them, of each the latest."""
    found = dict(times)
    # The latest first: then each index is looked at once.
    for (repository, child), noted in sorted(times.items(), key=lambda entry: -entry[1]):
        above = [child]
        while above:
            for (parent,) in tx.each(
                "SELECT parent FROM manifest_child WHERE repository = ? AND child = ?", (repository, above.pop())
            ):
                if found.get((repository, parent), -1) < noted:
                    found[repository, parent] = noted
                    above.append(parent)
    return found


def set_pulled(tx: Transaction, times: Iterable[tuple[Held, int]]) -> None:
    """Write down when manifests were pulled; those that are gone are left out."""
    for held, noted in times:
        tx.execute("UPDATE repository_manifest SET pulled = ? WHERE repository = ? AND manifest = ?", (noted, *held))


def set_asked(tx: Transaction, times: Iterable[tuple[Held, int]]) -> None:
    """Write down when manifests were asked for; those that are gone are left out."""
    for held, noted in times:
        tx.execute("UPDATE repository_manifest SET asked = ? WHERE repository = ? AND manifest = ?", (noted, *held))
