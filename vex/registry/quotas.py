"""How much a repository may hold: bytes of the blobs that its manifests reference, each counted once.

What is deleted does not count, also while it is kept for a while; what a pull under way still holds does. Without a
quota nothing is looked up. Deleting is never refused.
"""

from __future__ import annotations

from vex.errors import QUOTA_EXCEEDED, RegistryError
from vex.names import RepositoryName
from vex.registry.policies import Policies, Policy
from vex.registry.references import Release
from vex.storage import repository_rows
from vex.storage.blob_rows import BlobRow
from vex.storage.database import Database, Transaction

# Of so many repositories the metrics tell how full they are.
_FULLEST = 10


def held_bytes(tx: Transaction, policy: Policy, repository: int) -> int:
    """Return what a repository holds before a push, at most; 0 where there is no quota."""
    if policy.quota is None:
        return 0
    size = repository_rows.size_of(tx, repository)
    return size if size <= policy.quota else _used(tx, repository)


def check_push(
    tx: Transaction, release: Release, policy: Policy, name: RepositoryName, repository: int, held: int, now: int
) -> None:
    """Refuse a push that has brought a repository past its quota; raises QUOTA_EXCEEDED.

    One that adds nothing to what was `held` before is taken also past it.
    """
    if policy.quota is None or repository_rows.size_of(tx, repository) <= policy.quota:
        return
    # What the push has replaced makes room for it.
    release.work(tx, now)
    used = _used(tx, repository)
    if used > max(policy.quota, held):
        raise _exceeded(policy, policy.quota, name, used)


def check_mount(tx: Transaction, policy: Policy, name: RepositoryName, blob: BlobRow) -> None:
    """Refuse to mount a blob that a repository has no room for; raises QUOTA_EXCEEDED."""
    if policy.quota is None:
        return
    repository = repository_rows.find_repository(tx, name)
    used = 0 if repository is None else _used(tx, repository)
    if used + blob.size <= policy.quota:
        return
    if repository is None or not repository_rows.counts_blob(tx, repository, blob.id):
        raise _exceeded(policy, policy.quota, name, used + blob.size)


def fullest(database: Database, policies: Policies) -> list[tuple[str, int, int]]:
    """Return the fullest repositories that have a quota, by how much of it they use: name, used and allowed bytes."""
    clauses = [clause for clause in policies.clauses if "quota" in clause.settings]
    if not clauses:
        return []
    least = min(clause.settings["quota"] for clause in clauses)
    found: list[tuple[str, int, int]] = []
    with database.browse() as tx:
        # The largest first: once what is left could not be fuller with the smallest quota, nothing better comes.
        for repository, name, size in repository_rows.by_size(tx, [clause.pattern for clause in clauses]):
            if len(found) == _FULLEST and size / least <= _part(found[-1]):
                break
            quota = policies.of(name).quota
            if quota is not None and size:
                used = size - repository_rows.deleted_bytes(tx, repository)
                found = sorted([*found, (name, used, quota)], key=_part, reverse=True)[:_FULLEST]
    return found


def _part(row: tuple[str, int, int]) -> float:
    _, used, allowed = row
    return used / allowed


def _used(tx: Transaction, repository: int) -> int:
    return repository_rows.size_of(tx, repository) - repository_rows.deleted_bytes(tx, repository)


def _exceeded(policy: Policy, quota: int, name: RepositoryName, needed: int) -> RegistryError:
    place = policy.places["quota"]
    return RegistryError(
        QUOTA_EXCEEDED,
        f"{name} would hold {needed} bytes with this, and its quota is {quota} bytes, by {place}; delete tags of it"
        " that are not needed",
        detail={"needed": needed, "quota": quota, "section": place},
    )
