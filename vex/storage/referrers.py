"""The query of the referrers of a manifest: as much of each as the referrers API shows."""

from __future__ import annotations

from typing import NamedTuple

from vex.names import Digest
from vex.storage.database import Transaction


class ReferrerRow(NamedTuple):
    """What the referrers API shows of a manifest; `annotations` is a JSON object."""

    digest: Digest
    size: int
    media_type: str
    artifact_type: str
    annotations: str


def list_referrers(
    tx: Transaction, repository: int, subject: Digest, artifact_type: str, last: str, limit: int, max_bytes: int
) -> tuple[list[ReferrerRow], bool]:
    """Return manifests of a repository whose subject has this digest, by digest, after `last`, and whether more follow.

    `artifact_type` "" means any. A page has at least one row, at most `limit`, and ends before types and annotations of
    `max_bytes`.
    """
    found: list[ReferrerRow] = []
    room = max_bytes
    # What is sorted are digests alone, as many as are wanted: a subject may have a hundred thousand referrers with long
    # annotations.
    rows = tx.each(
        "SELECT m.digest, m.size, r.media_type, m.artifact_type, m.annotations FROM"
        " (SELECT id, digest FROM repository_manifest INDEXED BY repository_manifest_subject JOIN manifest ON id ="
        " manifest"
        " WHERE repository = ? AND subject = ? AND state < 2 AND digest > ? AND (? = '' OR artifact_type = ?) ORDER BY"
        " digest LIMIT ?) listed"
        " CROSS JOIN manifest m ON m.id = listed.id CROSS JOIN repository_manifest r ON r.repository = ? AND r.manifest"
        " = listed.id ORDER BY listed.digest",
        (repository, subject, last, artifact_type, artifact_type, limit + 1, repository),
    )
    for row in rows:
        room -= len(row[3]) + len(row[4])
        if found and (len(found) == limit or room < 0):
            return found, True
        found.append(ReferrerRow(Digest(row[0]), *row[1:]))
    return found, False
