"""What the operator forbids of tags: to point an immutable one elsewhere, and to delete a protected one.

These are two things: an immutable tag can be deleted and then set anew, and a protected one can be moved, unless it is
both. Whoever moves or deletes a tag does it with `point_tag` and `untag` (`references.py`), which ask here in the
transaction that does it.
"""

from __future__ import annotations

from collections.abc import Iterable

from vex.errors import IMMUTABLE, PROTECTED, RegistryError
from vex.names import Digest, RepositoryName, Tag
from vex.registry.policies import NOTHING, Policies, Policy
from vex.storage import manifest_rows, repository_rows
from vex.storage.database import Transaction


def policy_in(tx: Transaction, policies: Policies, repository: int) -> Policy:
    """Return what holds for a repository of which only the id is known."""
    return policies.of(repository_rows.name_of(tx, repository)) if policies.clauses else NOTHING


def check_move(tx: Transaction, policies: Policies, repository: int, tag: Tag, manifest: int) -> None:
    """Refuse to point a tag of this manifest elsewhere, if it is immutable; raises IMMUTABLE."""
    policy = policy_in(tx, policies, repository)
    if policy.immutable.covers(tag):
        raise _immutable(policy, tag, manifest_rows.digest_of(tx, manifest))


def check_moves(tx: Transaction, policy: Policy, name: RepositoryName, tags: Iterable[Tag], digest: Digest) -> None:
    """Refuse to point any of some immutable tags elsewhere than at this digest; raises IMMUTABLE."""
    repository = repository_rows.find_repository(tx, name)
    for tag in tags:
        found = None if repository is None else manifest_rows.find_tagged_manifest(tx, repository, tag)
        if found is not None and found.digest != digest:
            raise _immutable(policy, tag, found.digest)


def check_deletion(tx: Transaction, policies: Policies, repository: int, tags: Iterable[Tag], manifest: int) -> None:
    """Refuse to delete tags of a manifest, if one of them is protected; raises PROTECTED."""
    policy = policy_in(tx, policies, repository)
    for tag in filter(policy.protected.covers, tags):
        digest, place = manifest_rows.digest_of(tx, manifest), policy.places["protected"]
        raise RegistryError(
            PROTECTED,
            f"the tag {tag}, which points to {digest}, is protected by {place}; nothing was deleted",
            detail={"tag": tag, "digest": digest, "section": place},
        )


def _immutable(policy: Policy, tag: Tag, digest: Digest) -> RegistryError:
    place = policy.places["immutable"]
    return RegistryError(
        IMMUTABLE,
        f"the tag {tag} is immutable by {place}, and stays at {digest}; push this under another tag",
        detail={"tag": tag, "digest": digest, "section": place},
    )
