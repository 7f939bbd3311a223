"""`vex rm`: what would go with tags, and their deletion, if each is still what was shown.

An image is written REPOSITORY:TAG, or REPOSITORY:TAG@DIGEST where it has to be that one.
"""

from __future__ import annotations

from collections.abc import Iterator

from vex.errors import MANIFEST_UNKNOWN, TAG_INVALID, RegistryError
from vex.names import Digest, RepositoryName, Tag, parse_image
from vex.registry.freeing import Going
from vex.registry.parts import Parts, Row
from vex.registry.protection import check_deletion
from vex.storage import manifest_rows, repository_rows
from vex.storage.database import Transaction

# Of the other tags of a manifest, so many are named.
_NAMED = 10


def plan(parts: Parts, images: list[str]) -> Iterator[Row]:
    """Tell of each tag what goes with it, in this order, and the bytes that come free; raises what is wrong with any of
    them.
    """
    wanted = [parse_tag(image) for image in images]
    with parts.storage.database.browse(parts.work) as tx:
        going = Going(tx, parts.storage.policies, int(parts.storage.clock()), parts.work)
        return iter([_planned(tx, parts, going, name, tag) for name, tag in dict.fromkeys(wanted)])


def _planned(tx: Transaction, parts: Parts, going: Going, name: RepositoryName, tag: Tag) -> Row:
    repository, found = find_tag(tx, name, tag)
    check_deletion(tx, parts.storage.policies, repository, [tag], found.id)
    others = [other for other in manifest_rows.tags_of_manifest(tx, repository, found.id, _NAMED + 1) if other != tag]
    freed = going.drop(repository, tag, found.id)
    return {
        "repository": name,
        "tag": tag,
        "digest": found.digest,
        "tags": others[:_NAMED],
        "manifests": freed.manifests,
        "bytes": freed.bytes,
    }


def remove(parts: Parts, images: list[str]) -> Iterator[Row]:
    """Delete tags one after another; what cannot be done is told in the `error` of its row, and the rest is done."""
    wanted = [(parse_tag(image), Digest.parse(digest)) for image, _, digest in (one.partition("@") for one in images)]
    for (name, tag), digest in wanted:
        parts.work.step()
        row: Row = {"repository": name, "tag": tag, "digest": digest}
        try:
            parts.registry.delete_tag(name, tag, parts.actor, expected=digest)
        except RegistryError as error:
            yield {**row, "error": error.message}
        else:
            yield row


def parse_tag(image: str) -> tuple[RepositoryName, Tag]:
    """Read REPOSITORY:TAG; raises NAME_INVALID and TAG_INVALID."""
    name, tag = parse_image(image)
    if tag is None:
        raise RegistryError(TAG_INVALID, f"{image} names no tag: write {image}:TAG; vex ls {image} lists them")
    return name, tag


def find_tag(tx: Transaction, name: RepositoryName, tag: Tag) -> tuple[int, manifest_rows.ManifestRow]:
    """Return the id of a repository and what a tag of it points to; raises MANIFEST_UNKNOWN."""
    repository = repository_rows.find_repository(tx, name)
    found = None if repository is None else manifest_rows.find_tagged_manifest(tx, repository, tag)
    if repository is None or found is None:
        raise RegistryError(MANIFEST_UNKNOWN, f"there is no {name}:{tag}; vex ls lists what there is")
    return repository, found
