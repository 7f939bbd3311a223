"""`vex tag`: one more tag for an image, in its repository or in another, with all that belongs to it; no bytes move.

What belongs to an image: the manifests of an index, the referrers of each, their referrers, and the tags under which
cosign keeps signatures. States that a crash can find, of a copy to another repository:

1. some referrers are there, and wait for their subject: they go after a day, as those of a push that was given up;
2. all is there: the image, its tag and the tags of cosign come last, in one transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vex.errors import MANIFEST_UNKNOWN, PRECONDITION_FAILED, UNSUPPORTED, RegistryError
from vex.names import Digest, RepositoryName, Tag
from vex.registry import quotas
from vex.registry.parts import Parts, Row
from vex.registry.references import Release, point_tag
from vex.registry.untagging import find_tag, parse_tag
from vex.storage import blob_rows, freeing, manifest_rows, removal, repository_rows
from vex.storage.audit import manifest_pushed
from vex.storage.database import Transaction

_Tree = list[int]
# So many manifests in one transaction, but for those of an image itself.
_PIECE = 64
# An index of a thousand platforms, each of them signed and attested, has some thousands.
_MOST = 20_000


class _Belongings(NamedTuple):
    """What is to be copied: the image with all that it lists, what is under tags of cosign, and the referrers, each
    with what it lists. By the ids of manifests.
    """

    image: _Tree
    signatures: dict[Tag, int]
    referrers: list[_Tree]


def tag(parts: Parts, source: str, target: str) -> Iterator[Row]:
    """Point the tag `target` at the image `source`, REPOSITORY:TAG or REPOSITORY@DIGEST; raises MANIFEST_UNKNOWN,
    IMMUTABLE, QUOTA_EXCEEDED, and PRECONDITION_FAILED where the source moves meanwhile.
    """
    (name, reference), (to, to_tag) = _parse_source(source), parse_tag(target)
    with parts.storage.database.browse(parts.work) as tx:
        found = _find(tx, name, reference)
        # In one repository, all is there that the tag needs.
        belongings = _Belongings([], {}, []) if name == to else _collect(tx, parts, *found)
        digest = manifest_rows.digest_of(tx, found[1])
    # Before anything is copied; what counts is decided below, where the tag is set.
    parts.registry.check_tags(to, [to_tag], digest)
    for piece in _pieces(belongings.referrers):
        parts.work.step()
        with _pushing(parts, to) as (tx, _, there):
            _copy(tx, parts, found[0], there, piece)
    with _pushing(parts, to) as (tx, release, there):
        if _find(tx, name, reference) != found:
            raise RegistryError(PRECONDITION_FAILED, f"{source} was pointed elsewhere just now; try again")
        _copy(tx, parts, found[0], there, {*belongings.image, *belongings.signatures.values()})
        before = manifest_rows.find_tagged_manifest(tx, there, to_tag)
        # Those that are there may hold more signatures, of other people.
        new = {one: at for one, at in belongings.signatures.items() if not manifest_rows.tag_target(tx, there, one)}
        if name != to:
            manifest_pushed(tx, parts.actor, there, found[1], [to_tag])
        removal.revive(tx, there, found[1])
        now, keep = int(parts.storage.clock()), parts.registry.rules.keep_replaced
        for one, at in {to_tag: found[1], **new}.items():
            point_tag(tx, release, there, one, at, now=now, keep_replaced=keep)
    yield {
        "repository": to,
        "tag": to_tag,
        "digest": digest,
        "before": before and before.digest,
        "referrers": sum(map(len, belongings.referrers)),
        "signatures": list(new),
        "kept": [one for one in belongings.signatures if one not in new],
    }


def _parse_source(source: str) -> tuple[RepositoryName, Tag | Digest]:
    name, at, digest = source.partition("@")
    return (RepositoryName.parse(name), Digest.parse(digest)) if at else parse_tag(source)


def _find(tx: Transaction, name: RepositoryName, reference: Tag | Digest) -> tuple[int, int]:
    """Return the ids of a repository and a manifest in it."""
    if isinstance(reference, Tag):
        repository, found = find_tag(tx, name, reference)
        return repository, found.id
    known = repository_rows.find_repository(tx, name)
    by_digest = None if known is None else manifest_rows.find_manifest(tx, known, reference)
    if known is None or by_digest is None:
        raise RegistryError(MANIFEST_UNKNOWN, f"there is no {name}@{reference}")
    return known, by_digest.id


@contextlib.contextmanager
def _pushing(parts: Parts, name: RepositoryName) -> Iterator[tuple[Transaction, Release, int]]:
    """Run a transaction that adds to a repository, which has to have room for that; gives its id."""
    with parts.registry.writer.writing(name, parts.actor) as (tx, release):
        now, policy = int(parts.storage.clock()), parts.storage.policies.of(name)
        repository = repository_rows.ensure_repository(tx, name, now)
        held = quotas.held_bytes(tx, policy, repository)
        yield tx, release, repository
        quotas.check_push(tx, release, policy, name, repository, held, now)


def _collect(tx: Transaction, parts: Parts, repository: int, manifest: int) -> _Belongings:
    """Find all that belongs to an image."""
    found = _Belongings(_tree(tx, repository, manifest), {}, [])
    waiting, seen = list(found.image), set(found.image)
    while waiting:
        parts.work.step()
        digest = manifest_rows.digest_of(tx, waiting.pop())
        signed = removal.signature_tags(tx, repository, digest)
        found.signatures.update(signed)
        trees = [
            _tree(tx, repository, referrer)
            for referrer in freeing.referrers(tx, repository, digest)
            if referrer not in seen
        ]
        found.referrers.extend(trees)
        new = {*(one for tree in trees for one in tree), *(at for _, at in signed)} - seen
        seen |= new
        waiting += new
        if len(seen) > _MOST:
            raise RegistryError(UNSUPPORTED, f"more than {_MOST} manifests belong to this image; copy it with oras")
    return found


def _tree(tx: Transaction, repository: int, manifest: int) -> _Tree:
    """Return a manifest, and all that it lists."""
    found, waiting = {manifest}, [manifest]
    while waiting:
        new = set(freeing.children(tx, repository, waiting.pop())) - found
        found |= new
        waiting += new
    return list(found)


def _pieces(trees: Iterable[_Tree]) -> Iterator[set[int]]:
    piece: set[int] = set()
    for tree in trees:
        piece.update(tree)
        if len(piece) >= _PIECE:
            yield piece
            piece = set()
    if piece:
        yield piece


def _copy(tx: Transaction, parts: Parts, source: int, target: int, manifests: Iterable[int]) -> None:
    """Put manifests of a repository into another, with what they reference, as a push of each would."""
    now, wait = int(parts.storage.clock()), parts.registry.rules.upload_lease
    # A referrer may have gone since it was found.
    held = list(filter(None, (freeing.find_held(tx, source, manifest) for manifest in manifests)))
    for manifest, media_type, subject, _ in held:
        waits = subject is not None and not removal.has_subject(tx, target, subject)
        manifest_rows.add_manifest(tx, target, manifest, media_type, subject, now, now + wait if waits else None)
    for manifest, _, _, digest in held:
        blobs = [blob for blob, _ in freeing.blobs(tx, source, manifest)]
        children = freeing.children(tx, source, manifest)
        manifest_rows.add_references(tx, target, manifest, blobs, children)
        for child in children:
            removal.revive(tx, target, child)
        removal.keep_waiting_referrers(tx, target, digest)
        blob_rows.drop_leases(tx, target, blobs)
