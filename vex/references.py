"""The reference rules: what goes away when a tag, a manifest or a lease does.

A manifest stays while a tag or an index of its repository references it; one that was pushed by digest stays until it is
deleted or an index that references it goes. A blob stays while a manifest references it or a lease holds it. Each function
works within the caller's transaction, and tells what lost its row, so that the caller can log that, and remove the files of
blobs, once it is committed.
"""

from __future__ import annotations

from typing import Callable

from vex import store
from vex.audit import BLOB, Actor, Told, manifest_told, tag_changed
from vex.database import Transaction
from vex.names import Tag

# Tells until when (seconds since 1970) the blobs of a removed manifest, (repository, manifest), must stay; 0 for not at all.
Grace = Callable[[int, int], int]


def release_manifest(tx: Transaction, repository: int, manifest: int, *, now: int, grace: Grace) -> list[Told]:
    """Remove a manifest that no tag and no index references any more, and what it alone referenced; returns what is gone."""
    gone: list[Told] = []
    candidates: set[int] = set()
    queue = [manifest]
    while queue:
        current = queue.pop()
        if store.manifest_referenced(tx, repository, current):
            continue
        told = manifest_told(tx, repository, current)
        if told is None:
            # Two of those that are gone led to it.
            continue
        gone.append(told)
        queue += store.manifest_children(tx, repository, current)
        queue += store.referrer_ids(tx, repository, current)
        blobs = store.manifest_blobs(tx, repository, current)
        candidates.update(blobs)
        hold_until = grace(repository, current)
        if hold_until:
            for blob in blobs:
                store.take_lease(tx, repository, blob, hold_until)
        store.delete_manifest(tx, repository, current)
    store.mark_if_empty(tx, repository, now)
    return gone + drop_unheld_blobs(tx, candidates)


def drop_unheld_blobs(tx: Transaction, blobs: set[int]) -> list[Told]:
    """Delete those blobs that nothing references and nothing holds; returns them."""
    gone = (store.delete_unheld_blob(tx, blob) for blob in sorted(blobs))
    return [Told(BLOB, *found) for found in gone if found is not None]


def point_tag(tx: Transaction, actor: Actor, repository: int, tag: Tag, manifest: int, *, now: int, keep_replaced: int, grace: Grace) -> list[Told]:
    """Point a tag at a manifest; what it pointed to before is released, or kept for `keep_replaced` seconds; returns what is gone."""
    replaced = store.tag_target(tx, repository, tag)
    store.set_tag(tx, repository, tag, manifest, now)
    if replaced == manifest:
        return []
    tag_changed(tx, actor, repository, tag, replaced, manifest, now)
    if replaced is None:
        return []
    if not keep_replaced:
        return release_manifest(tx, repository, replaced, now=now, grace=grace)
    if not store.manifest_referenced(tx, repository, replaced):
        store.expire_manifest(tx, repository, replaced, now + keep_replaced)
    return []


def expire_leases(tx: Transaction, now: int, limit: int) -> list[Told]:
    """Drop expired leases, at most `limit`; returns the blobs that are gone."""
    leases = store.expired_leases(tx, now, limit)
    for repository, blob in leases:
        store.drop_leases(tx, repository, [blob])
        store.mark_if_empty(tx, repository, now)
    return drop_unheld_blobs(tx, {blob for _, blob in leases})


def expire_manifests(tx: Transaction, now: int, limit: int, grace: Grace) -> list[Told]:
    """Release replaced manifests whose time is up, at most `limit`; returns what is gone."""
    gone: list[Told] = []
    for repository, manifest in store.expired_manifests(tx, now, limit):
        store.keep_manifest(tx, repository, manifest)
        gone += release_manifest(tx, repository, manifest, now=now, grace=grace)
    return gone
