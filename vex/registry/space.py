"""`vex df` and `vex status`: what takes the space, and how the registry is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from vex.registry.parts import Parts, Row
from vex.storage import repository_rows, usage
from vex.storage.blobs import UNKNOWN_BYTES
from vex.storage.usage import RepositoryUsage

_REPOSITORIES_AT_ONCE = 5000
# Each of them may be in every image.
_BLOBS_AT_ONCE = 2000


def df(parts: Parts) -> Iterator[Row]:
    """Tell of each repository what it references, and what of that is its own, and so comes free with it; the last row
    is the `total`.
    """
    own: Counter[int] = Counter()
    stored = unreferenced = after = 0
    with parts.storage.database.browse(parts.work) as tx:
        last, database = usage.last_blob(tx), usage.database_bytes(tx)
    while after < last:
        with parts.storage.database.browse(parts.work) as tx:
            sizes = usage.blob_bytes(tx, after, after + _BLOBS_AT_ONCE)
            own.update(dict(usage.own_bytes(tx, after, after + _BLOBS_AT_ONCE)))
        stored, unreferenced, after = stored + sizes[0], unreferenced + sizes[1], after + _BLOBS_AT_ONCE
        yield {"progress": f"looking at blobs: {min(after, last)} of {last}"}
    images = 0
    for repository in _repositories(parts):
        images += repository.bytes
        yield {
            "repository": repository.name,
            "tags": repository.tags,
            "bytes": repository.bytes,
            "own": own[repository.id],
            "shared": repository.bytes - own[repository.id],
            "quota": parts.storage.policies.of(repository.name).quota,
        }
    total = {"images": images, "bytes": stored, "unreferenced": unreferenced, "database": database}
    yield {"total": {**total, **_disk(parts)}}


def _repositories(parts: Parts) -> Iterator[RepositoryUsage]:
    last = 0
    while True:
        with parts.storage.database.browse(parts.work) as tx:
            found = usage.repositories_after(tx, last, _REPOSITORIES_AT_ONCE)
        yield from found
        if len(found) < _REPOSITORIES_AT_ONCE:
            return
        last = found[-1].id


def status(parts: Parts) -> Iterator[Row]:
    """Tell whether the registry runs, since when and where, what it holds, and what is left of its disk."""
    with parts.storage.database.browse(parts.work) as tx:
        totals = repository_rows.totals(tx)
    yield {
        "running": parts.running is not None,
        **(parts.running or {}),
        "repositories": totals.repositories,
        "tags": totals.tags,
        "blobs": totals.blobs,
        "bytes": totals.blob_bytes,
        "damaged": totals.damaged_blobs,
        **_disk(parts),
    }


def _disk(parts: Parts) -> Row:
    free = parts.storage.files.free_bytes()
    return {"free": None if free == UNKNOWN_BYTES else free, "kept": parts.storage.uploads.limits.free_bytes}
