"""The reference rules: what goes away when a tag, a manifest or a lease does.

A manifest stays while a tag or an index of its repository references it; one that was pushed by digest stays until it
is deleted or an index that references it goes. A referrer without a tag goes with its subject, and so do the tags of
cosign. What somebody was told of a short while ago is held first. A blob stays while a manifest references it or a
lease holds it. Each function works within the caller's transaction, and tells what lost its row, so that the caller can
log that, and remove the files of blobs, once it is committed.
"""

from __future__ import annotations

import re
import time

from vex.names import Digest, Tag, TagPatterns
from vex.registry.policies import Policies
from vex.registry.protection import check_deletion, check_move, policy_in
from vex.registry.pulls import Pulls
from vex.storage import blob_rows, manifest_rows, removal, repository_rows
from vex.storage.audit import BLOB, Actor, Told, manifest_told, tag_changed
from vex.storage.database import Transaction

NOBODY = Actor("", "")
# Processor time of one transaction of a removal; everybody waits for it.
_PIECE_SECONDS = 0.004
# How much is looked at between two looks at the clock: about a millisecond.
_PART = 64
# More are left to housekeeping.
_MOST_QUEUED = 10_000
SIGNATURE_TAG = re.compile(r"(?:sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})\.(?:sig|att|sbom)")
_TAGS_LOOKED_AT = 100


class Release:
    """A removal under way, over one transaction or several: `gone` tells what lost its row since that was taken last.

    It begins with what lost a reference, and ends with everything that this one alone kept. What is not done yet is due
    in the database.
    """

    def __init__(self, pulls: Pulls, policies: Policies, actor: Actor = NOBODY) -> None:
        self._pulls = pulls
        self.policies = policies
        self.actor = actor
        self._queue: list[tuple[int, int]] = []
        # How far the referrers of a manifest were looked at.
        self._looked: dict[tuple[int, int], int] = {}
        self._left = False
        self._touched: set[int] = set()
        self.gone: list[Told] = []

    @property
    def unfinished(self) -> bool:
        """Whether something that is due was not looked at yet."""
        return bool(self._queue) or self._left

    @property
    def pending(self) -> bool:
        """Whether there is more for this one to do."""
        return bool(self._queue)

    def take_gone(self) -> list[Told]:
        """Return what is gone since the last time."""
        gone, self.gone = self.gone, []
        return gone

    def drop(self, tx: Transaction, repository: int, manifest: int, now: int) -> None:
        """Have a manifest go that has lost a reference, if that was its last."""
        self._touched.add(repository)
        if removal.unreferenced(tx, repository, manifest, removal.KEPT, now):
            self._add(repository, manifest)

    def delete(self, tx: Transaction, repository: int, manifest: int, now: int) -> None:
        """Have a manifest that neither a tag nor a listed index references go at once: from now on it is nowhere,
        whoever was told of it.

        What it references, and what refers to it, stays as long as otherwise the manifest would have been held.
        """
        leaving = removal.find_leaving(tx, repository, manifest)
        if leaving is None or leaving.state == removal.GONE:
            return
        self._tell(tx, repository, manifest)
        for parent in removal.held_parents(tx, repository, manifest):
            # It could be fetched until now, and not any more what it lists.
            self.delete(tx, repository, parent, now)
        removal.set_state(
            tx, repository, manifest, removal.GONE, max(self._pulls.hold(repository, leaving.digest), now)
        )
        self._add(repository, manifest)

    def work(self, tx: Transaction, now: int) -> None:
        """Go on for some milliseconds; `pending` tells whether that was enough."""
        end = time.thread_time() + _PIECE_SECONDS
        self._touched.update(repository for repository, _ in self._queue)
        while self._queue:
            repository, manifest = self._queue.pop()
            if not self._advance(tx, repository, manifest, now):
                self._queue.append((repository, manifest))
            if time.thread_time() >= end:
                break
        for repository in self._touched:
            repository_rows.mark_if_empty(tx, repository, now)
        self._touched.clear()

    def work_on_due(self, tx: Transaction, now: int, limit: int) -> list[Told]:
        """Go on with whatever is due; returns what is gone."""
        if not self._queue:
            self._queue = removal.due(tx, now, limit)
        self.work(tx, now)
        return self.take_gone()

    def _add(self, repository: int, manifest: int) -> None:
        if len(self._queue) < _MOST_QUEUED:
            self._queue.append((repository, manifest))
        else:
            self._left = True

    def _advance(self, tx: Transaction, repository: int, manifest: int, now: int) -> bool:
        """Do the next step of a manifest that is due; returns whether there is nothing more to do to it for now."""
        leaving = removal.find_leaving(tx, repository, manifest)
        if leaving is None or leaving.expires is None or leaving.expires > now:
            # It was pushed again, or another removal led to it, and did it.
            return True
        if leaving.state == removal.GONE:
            return self._dissolve(tx, repository, manifest, leaving, now)
        waited_for = (
            leaving.state == removal.LIVE
            and leaving.subject is not None
            and removal.has_subject(tx, repository, leaving.subject)
        )
        if leaving.holders or waited_for:
            removal.revive(tx, repository, manifest)
            return True
        until = self._pulls.hold(repository, leaving.digest)
        if until > now:
            removal.set_state(tx, repository, manifest, removal.HELD, until)
            self._untag_signatures(tx, repository, leaving.digest, now, until)
            return True
        removal.set_state(tx, repository, manifest, removal.GONE, now)
        self._tell(tx, repository, manifest)
        tx.after_commit(lambda: self._pulls.note_lost(repository, leaving.digest))
        return False

    def _dissolve(self, tx: Transaction, repository: int, manifest: int, leaving: removal.Leaving, now: int) -> bool:
        """Take away a part of what hangs on a manifest that is gone, and at the end itself; returns whether that was
        all.
        """
        if leaving.holders:
            # An index that is gone too references it still, and has it go on.
            removal.set_state(tx, repository, manifest, removal.GONE, None)
            return True
        self._untag_signatures(tx, repository, leaving.digest, now, 0)
        if self._drop_referrers(tx, repository, manifest, leaving.digest, now):
            return False
        children = removal.take_children(tx, repository, manifest, _PART)
        for child in children:
            self.drop(tx, repository, child, now)
        blobs = removal.take_blobs(tx, repository, manifest, _PART) if not children else []
        for blob, digest in blobs:
            self._let_go(tx, repository, blob, digest)
        if children or blobs:
            return False
        self._looked.pop((repository, manifest), None)
        manifest_rows.take_out_manifest(tx, repository, manifest)
        return True

    def _drop_referrers(self, tx: Transaction, repository: int, manifest: int, digest: Digest, now: int) -> bool:
        """Have a part of the referrers go that have no tag; returns whether there may be more."""
        found = removal.referrers_after(tx, repository, digest, self._looked.get((repository, manifest), 0), _PART)
        for referrer in found:
            self.drop(tx, repository, referrer, now)
        if found:
            self._looked[repository, manifest] = found[-1]
        return len(found) == _PART

    def _untag_signatures(self, tx: Transaction, repository: int, digest: Digest, now: int, until: int) -> None:
        """Delete the tags under which cosign keeps signatures of a manifest, unless they are protected; what they point
        to is held until then, as other referrers are.
        """
        found = removal.signature_tags(tx, repository, digest)
        protected = policy_in(tx, self.policies, repository).protected if found else TagPatterns()
        for tag, target in found:
            if protected.covers(tag) or not is_signature(tx, repository, target):
                continue
            untag(tx, self, repository, tag, target, now)
            if until:
                removal.unreferenced(tx, repository, target, removal.HELD, until)
            else:
                self.drop(tx, repository, target, now)

    def _tell(self, tx: Transaction, repository: int, manifest: int) -> None:
        told = manifest_told(tx, repository, manifest)
        if told is not None:
            self.gone.append(told)

    def _let_go(self, tx: Transaction, repository: int, blob: int, digest: Digest) -> None:
        until = self._pulls.hold_blob(repository, digest)
        if until:
            blob_rows.take_lease(tx, repository, blob, until)
            return
        self.gone += drop_unheld_blobs(tx, {blob})


def holds_blob(tx: Transaction, pulls: Pulls, repository: int, blob: blob_rows.BlobRow, now: int) -> bool:
    """Tell whether a blob is in a repository: a manifest references it, or a lease holds it, or held it until somebody
    was told of it.
    """
    if blob_rows.blob_in_repository(tx, repository, blob.id, now):
        return True
    return pulls.hold_blob(repository, blob.digest) > now and blob_rows.blob_in_repository(tx, repository, blob.id, 0)


def is_signature(tx: Transaction, repository: int, manifest: int) -> bool:
    """Tell whether all tags of a manifest are those under which cosign keeps signatures."""
    return all(map(SIGNATURE_TAG.fullmatch, manifest_rows.tags_of_manifest(tx, repository, manifest, _TAGS_LOOKED_AT)))


def drop_unheld_blobs(tx: Transaction, blobs: set[int]) -> list[Told]:
    """Delete those blobs that nothing references and nothing holds; returns them."""
    gone = (blob_rows.delete_unheld_blob(tx, blob) for blob in sorted(blobs))
    return [Told(BLOB, *found) for found in gone if found is not None]


def untag(tx: Transaction, release: Release, repository: int, tag: Tag, manifest: int, now: int) -> None:
    """Delete a tag of a manifest; raises PROTECTED. What it pointed to is not released."""
    check_deletion(tx, release.policies, repository, [tag], manifest)
    manifest_rows.delete_tag(tx, repository, tag)
    tag_changed(tx, release.actor, repository, tag, manifest, None, now)


def point_tag(
    tx: Transaction,
    release: Release,
    repository: int,
    tag: Tag,
    manifest: int,
    *,
    now: int,
    keep_replaced: int,
) -> None:
    """Point a tag at a manifest; what it pointed to before is released, or kept for `keep_replaced` seconds. Raises
    IMMUTABLE.
    """
    replaced = manifest_rows.tag_target(tx, repository, tag)
    if replaced is not None and replaced != manifest:
        check_move(tx, release.policies, repository, tag, replaced)
    manifest_rows.set_tag(tx, repository, tag, manifest, now)
    if replaced == manifest:
        return
    tag_changed(tx, release.actor, repository, tag, replaced, manifest, now)
    if replaced is None:
        return
    if keep_replaced:
        removal.unreferenced(tx, repository, replaced, removal.KEPT, now + keep_replaced)
    else:
        release.drop(tx, repository, replaced, now)


def expire_leases(tx: Transaction, now: int, limit: int, pulls: Pulls) -> list[Told]:
    """Drop expired leases, at most `limit`, unless somebody relies on them; returns the blobs that are gone."""
    leases = blob_rows.expired_leases(tx, now, limit)
    dropped = set()
    for repository, blob, digest in leases:
        until = pulls.hold_blob(repository, digest)
        if until > now:
            blob_rows.take_lease(tx, repository, blob, until)
            continue
        blob_rows.drop_leases(tx, repository, [blob])
        repository_rows.mark_if_empty(tx, repository, now)
        dropped.add(blob)
    return drop_unheld_blobs(tx, dropped)
