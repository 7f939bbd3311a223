"""What is in the registry, for the command line."""

from __future__ import annotations

from collections.abc import Iterator

from vex.errors import NAME_INVALID, NAME_UNKNOWN, RegistryError
from vex.names import RepositoryName, parse_image
from vex.registry.parts import Parts, Row
from vex.storage import listings
from vex.storage.listings import ManifestEntry, RepositoryEntry

# The rows of one answer; more are asked for with the last name.
MOST_ROWS = 5000


def ls(parts: Parts, repository: str, last: str, limit: int) -> Iterator[Row]:
    """List repositories, or the tags of one, by name, after `last`; raises NAME_INVALID and NAME_UNKNOWN."""
    limit = max(0, min(limit, MOST_ROWS))
    with parts.storage.database.browse(parts.work) as tx:
        if not repository:
            return map(_repository_row, listings.repositories_after(tx, last, limit))
        found = listings.repository_entry(tx, _repository(repository))
        if found is None:
            raise RegistryError(NAME_UNKNOWN, f"there is no repository {repository}; see vex ls")
        return map(_tag_row, listings.tags_after(tx, found[0], last, limit))


def _repository(text: str) -> RepositoryName:
    name, tag = parse_image(text)
    if tag is not None:
        raise RegistryError(NAME_INVALID, f"{text} names a tag, and ls lists those of a repository: write {name}")
    return name


def _repository_row(entry: RepositoryEntry) -> Row:
    return {"repository": entry.name, "tags": entry.tags, "bytes": entry.size, "pushed": entry.pushed}


def _tag_row(entry: ManifestEntry) -> Row:
    return {
        "tag": entry.name,
        "digest": entry.digest,
        "kind": entry.summary.kind,
        "type": entry.artifact_type,
        "platforms": list(entry.summary.platforms),
        "bytes": entry.size,
        "pushed": entry.pushed,
    }
