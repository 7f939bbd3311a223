"""What would go with tags that are deleted, and the bytes that would really come free: what the reference rules
(`references.py`) would do, found out without doing it.

A manifest goes with the last tag or index that references it; with it go its referrers without a tag and the tags of
cosign. A blob comes free with the last manifest, in any repository, that references it: what other images share stays,
and so does what a push under way holds. What is on its way out already holds nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from vex.names import Digest, Tag
from vex.progress import UNHURRIED, Work
from vex.registry.policies import Policies
from vex.registry.protection import policy_in
from vex.registry.references import is_signature
from vex.storage import freeing, removal
from vex.storage.database import Transaction


class Freed(NamedTuple):
    """What goes with a tag: manifests, those of others that hang on them included, and bytes that come free."""

    manifests: int
    bytes: int


class Going:
    """Tags that would be deleted, one after another, in one transaction that only reads, or in several where there are
    many. Each blob comes free with the tag that is the last to need it.
    """

    def __init__(self, tx: Transaction, policies: Policies, now: int, work: Work = UNHURRIED) -> None:
        self._tx = tx
        self._policies = policies
        self._now = now
        self._work = work
        self._lost: dict[tuple[int, int], int] = {}
        self._going: set[tuple[int, int]] = set()
        self._untagged: set[tuple[int, Tag]] = set()
        self._freed: set[int] = set()

    def go_on(self, tx: Transaction) -> None:
        """Look at what is there in another transaction from now on."""
        self._tx = tx

    def drop(self, repository: int, tag: Tag, manifest: int) -> Freed:
        """Count what goes with a tag of a manifest."""
        if (repository, tag) in self._untagged:
            return Freed(0, 0)
        self._untagged.add((repository, tag))
        return self.drop_manifest(repository, manifest)

    def drop_manifest(self, repository: int, manifest: int) -> Freed:
        """Count what goes with a manifest that loses a reference, or that has none and is deleted."""
        went = self._release(repository, [manifest])
        return Freed(len(went), sum(self._free(repository, manifest) for manifest in went))

    def _release(self, repository: int, lost: list[int]) -> list[int]:
        """Take a reference from each of these manifests; returns those that go, with all that hangs on them."""
        went: list[int] = []
        while lost:
            self._work.step()
            manifest = lost.pop()
            key = (repository, manifest)
            self._lost[key] = self._lost.get(key, 0) + 1
            found = freeing.find_hanging(self._tx, repository, manifest)
            if found is None or key in self._going or found.holders > self._lost[key]:
                continue
            self._going.add(key)
            went.append(manifest)
            lost += freeing.children(self._tx, repository, manifest)
            for referrer in freeing.referrers(self._tx, repository, found.digest):
                hanging = freeing.find_hanging(self._tx, repository, referrer)
                if hanging and hanging.holders <= self._lost.get((repository, referrer), 0):
                    lost.append(referrer)
            lost += self._untag_signatures(repository, found.digest)
        return went

    def _untag_signatures(self, repository: int, digest: Digest) -> list[int]:
        """Count the tags under which cosign keeps signatures of a manifest as deleted; returns what they point to."""
        lost = []
        for tag, target in removal.signature_tags(self._tx, repository, digest):
            protected = policy_in(self._tx, self._policies, repository).protected.covers(tag)
            if (repository, tag) in self._untagged or protected or not is_signature(self._tx, repository, target):
                continue
            self._untagged.add((repository, tag))
            lost.append(target)
        return lost

    def _free(self, repository: int, manifest: int) -> int:
        """Count the bytes that come free with a manifest that goes."""
        size = 0
        for blob, count in freeing.blobs(self._tx, repository, manifest):
            self._work.step()
            if blob not in self._freed and not freeing.is_held(self._tx, blob, self._going, self._now):
                self._freed.add(blob)
                size += count
        return size
