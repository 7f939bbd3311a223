"""What a person deletes: which deletions are refused, with what to do instead, and what begins with those that are
not.
"""

from __future__ import annotations

from collections.abc import Sequence

from vex.errors import REFERENCED, RegistryError
from vex.names import RepositoryName, Tag
from vex.registry.protection import check_deletion
from vex.registry.references import Release, drop_unheld_blobs, untag
from vex.storage import blob_rows, manifest_rows, repository_rows
from vex.storage.audit import BLOB, Actor, Told, log_removals
from vex.storage.database import Transaction

# How many tags, indexes or manifests an error names.
_NAMED = 10


def delete_manifest(
    tx: Transaction,
    release: Release,
    name: RepositoryName,
    repository: int,
    manifest: int,
    delete_untags: str,
    now: int,
) -> None:
    """Delete a manifest, with its tags if `delete_untags` allows that; raises REFERENCED while an index or a tag needs
    it, and PROTECTED.
    """
    parents = manifest_rows.manifest_parents(tx, repository, manifest, _NAMED)
    if parents:
        message = f"the manifest is part of {_named('index', 'indexes', parents)}; delete that first"
        raise RegistryError(REFERENCED, message, detail={"indexes": parents})
    tags = manifest_rows.tags_of_manifest(tx, repository, manifest, -1 if delete_untags == "yes" else _NAMED)
    # First: what is said below, that its tags can be deleted, would not be true.
    check_deletion(tx, release.policies, repository, tags, manifest)
    if tags and delete_untags != "yes" and (delete_untags == "no" or len(tags) > 1):
        raise RegistryError(REFERENCED, _still_tagged(name, tags), detail={"tags": tags})
    for tag in tags:
        untag(tx, release, repository, tag, manifest, now)
    release.delete(tx, repository, manifest, now)


def delete_blob(
    tx: Transaction,
    release: Release,
    actor: Actor,
    name: RepositoryName,
    repository: int,
    blob: blob_rows.BlobRow,
    now: int,
) -> None:
    """Let go of a blob that was uploaded and not used; raises REFERENCED while a manifest needs it."""
    manifests = blob_rows.referencing_manifests(tx, repository, blob.id, _NAMED)
    if manifests:
        message = (
            f"the blob is part of {_named('manifest', 'manifests', manifests)}; it goes away with the last of them"
        )
        raise RegistryError(REFERENCED, message, detail={"manifests": manifests})
    blob_rows.drop_leases(tx, repository, [blob.id])
    repository_rows.mark_if_empty(tx, repository, now)
    gone = drop_unheld_blobs(tx, {blob.id})
    release.gone += gone
    if not gone:
        # Another repository needs it; here, it is removed.
        tx.after_commit(lambda: log_removals([Told(BLOB, blob.digest, blob.size)], actor, name))


def _still_tagged(name: RepositoryName, tags: Sequence[Tag]) -> str:
    return (
        f"the manifest still has {_named('tag', 'tags', tags)}; delete each tag (DELETE"
        f" /v2/{name}/manifests/{tags[0]}), and the manifest goes with the last"
        " one; or set delete-untags in the registry's configuration: one lets a manifest with one tag be deleted with"
        " it, yes with all its tags"
    )


def _named(one: str, several: str, names: Sequence[str]) -> str:
    listed = ", ".join(names)
    return f"the {one} {listed}" if len(names) == 1 else f"the {several} {listed}"
