"""What the web interface looks at: parts of lists, a manifest with everything around it, the config of an image.

Nothing here changes anything; looking at a manifest is no pull. Names come in checked; errors are those of `errors.py`.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import heapq
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Callable, Generic, NamedTuple, TypeVar

from vex.errors import MANIFEST_UNKNOWN, NAME_UNKNOWN, RegistryError
from vex.formats.image import IMAGE, KNOWN_ANNOTATIONS, MAX_CONFIG_BYTES, ImageConfig, platform_name, read_config
from vex.formats.layer import Limits
from vex.formats.manifest import Descriptor, Manifest, parse_stored
from vex.http.turns import Turns
from vex.names import Digest, RepositoryName, Tag
from vex.progress import UNHURRIED, Work
from vex.registry.registry import Registry
from vex.storage import audit, listings, manifest_rows, repository_rows
from vex.storage.database import Database, Transaction
from vex.storage.listings import PUSHED, ManifestEntry, RepositoryEntry, View
from vex.storage.referrers import ReferrerRow, list_referrers
from vex.web.layer_lists import LayerList, LayerLists, make_list

Entry = TypeVar("Entry")

# What a page names of the tags, indexes and referrers of one manifest.
MOST_NAMED = 100
_NAMED_IN_LIST = 6
_SIGNATURE_TAGS = 20
_REFERRERS_BYTES = 256 * 1024
_READ_BYTES = 64 * 1024
_LARGE = 256 * 1024
# An index of a thousand platforms is legal, a page that names them all is of no use.
_MOST_CHILDREN = 1000
_MOST_ANNOTATIONS = 200
_MAX_DOCUMENT = 256 * 1024
_NO_ANNOTATIONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Listing(Generic[Entry]):
    """A part of a list; `offset` is where it really starts, `total` how many entries there are."""

    entries: Sequence[Entry]
    offset: int
    total: int


class Parent(NamedTuple):
    """An index that lists a manifest, with some of its tags."""

    digest: Digest
    tags: Sequence[Tag]


class ManifestView(NamedTuple):
    """A manifest with everything around it; `children` is what is known of the first children of an index.

    Of annotations, of which there can be 300,000, `manifest` has none and its descriptors those that pages look at;
    `annotations` are the first of them by name, and there are `annotation_count`.
    """

    entry: ManifestEntry
    media_type: str
    manifest: Manifest
    annotations: Sequence[tuple[str, str]]
    annotation_count: int
    tags: Sequence[Tag]
    parents: Sequence[Parent]
    referrers: Sequence[ReferrerRow]
    more_referrers: bool
    signature_tags: Sequence[tuple[Tag, Digest]]
    children: dict[Digest, ManifestEntry]

    @property
    def images(self) -> Sequence[tuple[str, Digest]]:
        """The images of an index, each with its platform, "" where that is not known."""
        found = ((child, self.children.get(child.digest)) for child in self.manifest.manifests)
        return [
            (platform_name(child.platform) or ", ".join(entry.summary.platforms), child.digest)
            for child, entry in found
            if entry and entry.summary.kind == IMAGE
        ]


class ConfigView(NamedTuple):
    """The config of an image, or why it cannot be shown."""

    config: ImageConfig | None
    problem: str = ""


class Browsing:
    """Reads of the web interface; any thread may use it. Who reads a large manifest takes one of `large`."""

    def __init__(self, database: Database, registry: Registry, large: Turns) -> None:
        self._database = database
        self._registry = registry
        self._layers = LayerLists()
        self._large = large
        self._work = UNHURRIED

    def during(self, work: Work) -> Browsing:
        """Return the same for one piece of work, which is told of what is read, and ends it."""
        mine = copy.copy(self)
        mine._work = work
        return mine

    def repositories(self, prefix: str, view: View) -> Listing[RepositoryEntry]:
        """List repositories whose name starts with `prefix`, from the last page when the one asked for is past it."""
        with self._database.browse(self._work) as tx:
            return _listing(
                view,
                lambda: listings.count_repositories(tx, prefix, view.text),
                lambda part: listings.repository_entries(tx, prefix, part),
            )

    def repository(self, name: RepositoryName) -> RepositoryEntry | None:
        """Return what lists show of a repository; None when it holds nothing."""
        with self._database.browse(self._work) as tx:
            found = listings.repository_entry(tx, name)
        return found[1] if found else None

    def tags(self, name: RepositoryName, view: View) -> tuple[Listing[ManifestEntry], dict[int, list[Tag]]]:
        """List tags, and by manifest the first few tags of each; raises NAME_UNKNOWN."""
        with self._database.browse(self._work) as tx:
            repository, entry = _find(tx, name)
            listing = _listing(
                view,
                lambda: listings.count_tags(tx, repository, view.text) if view.text else entry.tags,
                lambda part: listings.tag_entries(tx, repository, part),
            )
            manifests = {entry.manifest for entry in listing.entries}
            return listing, manifest_rows.tags_of_manifests(tx, repository, manifests, _NAMED_IN_LIST)

    def newest_tags(self, name: RepositoryName, limit: int) -> list[ManifestEntry]:
        """List the tags that were pushed last; raises NAME_UNKNOWN."""
        with self._database.browse(self._work) as tx:
            repository, _ = _find(tx, name)
            return listings.tag_entries(tx, repository, View("", PUSHED, descending=True, offset=0, limit=limit))

    def unheld(self, name: RepositoryName, offset: int, limit: int) -> Listing[ManifestEntry]:
        """List the manifests that neither a tag nor an index references, newest first; raises NAME_UNKNOWN."""
        with self._database.browse(self._work) as tx:
            repository, _ = _find(tx, name)
            total = listings.count_unheld(tx, repository)
            offset = _last_offset(offset, limit, total)
            return Listing(listings.list_unheld(tx, repository, offset, limit), offset, total)

    def manifest(self, name: RepositoryName, digest: Digest) -> ManifestView:
        """Return a manifest with everything around it; raises MANIFEST_UNKNOWN."""
        with self._database.browse(self._work) as tx:
            repository = repository_rows.find_repository(tx, name)
            entry = listings.manifest_entry(tx, repository, digest) if repository is not None else None
            row = manifest_rows.find_manifest(tx, repository, digest) if repository is not None else None
            if repository is None or entry is None or row is None:
                raise RegistryError(MANIFEST_UNKNOWN)
            content = None if row.size > _LARGE else self._loaded(tx, row)
            tags = manifest_rows.tags_of_manifest(tx, repository, row.id, MOST_NAMED)
            parents = [
                _parent(tx, repository, parent)
                for parent in manifest_rows.manifest_parents(tx, repository, row.id, MOST_NAMED)
            ]
            referrers, more = list_referrers(tx, repository, digest, "", "", MOST_NAMED, _REFERRERS_BYTES)
            # cosign 2 attaches signatures, attestations and SBOMs by tag.
            signature_tags = listings.tags_with_prefix(
                tx, repository, f"{digest.algorithm}-{digest.encoded}.", _SIGNATURE_TAGS
            )
        with self._reading(row):
            manifest = parse_stored(content or self._content(row), row.media_type)
            annotations = heapq.nsmallest(_MOST_ANNOTATIONS, manifest.annotations.items())
            count, manifest = len(manifest.annotations), _without_annotations(manifest)
        children = self._children(repository, manifest.manifests[:_MOST_CHILDREN])
        return ManifestView(
            entry,
            row.media_type,
            manifest,
            annotations,
            count,
            tags,
            parents,
            referrers,
            more,
            signature_tags,
            children,
        )

    def document(self, name: RepositoryName, digest: Digest) -> tuple[str, bool]:
        """Return the JSON of a manifest, formatted and as far as it is not too long, and whether that is all of it;
        raises MANIFEST_UNKNOWN.
        """
        with self._database.browse(self._work) as tx:
            repository = repository_rows.find_repository(tx, name)
            row = manifest_rows.find_manifest(tx, repository, digest) if repository is not None else None
        if row is None:
            raise RegistryError(MANIFEST_UNKNOWN)
        pieces, left = [], _MAX_DOCUMENT
        with self._reading(row):
            # The encoder is part of a cycle, which would keep what it remembers in order to find cycles, all of the
            # document.
            encoder = json.JSONEncoder(indent=2, ensure_ascii=False, check_circular=False)
            # Piece by piece: white space can make a small document large, and one string can be all of it.
            for piece in encoder.iterencode(json.loads(self._content(row))):
                pieces.append(piece[: max(left, 0)])
                left -= len(piece)
                if left < 0:
                    break
        return "".join(pieces), left >= 0

    def history(
        self, name: RepositoryName, tag: Tag, offset: int, limit: int
    ) -> tuple[Listing[audit.Change], set[Digest]]:
        """List changes of a tag, the newest first, and which of their digests the repository still holds."""
        with self._database.browse(self._work) as tx:
            total = audit.count_changes(tx, name, tag)
            offset = _last_offset(offset, limit, total)
            changes = audit.latest_changes(tx, name, tag, offset, limit)
            repository = repository_rows.find_repository(tx, name)
            digests = {digest for change in changes for digest in (change.before, change.after) if digest}
            held = {
                digest
                for digest in digests
                if repository is not None and manifest_rows.find_manifest(tx, repository, digest)
            }
        return Listing(changes, offset, total), held

    def resolve(self, name: RepositoryName, tag: Tag) -> Digest:
        """Return the digest of the manifest that a tag points to; raises MANIFEST_UNKNOWN."""
        with self._database.browse(self._work) as tx:
            repository = repository_rows.find_repository(tx, name)
            row = manifest_rows.find_tagged_manifest(tx, repository, tag) if repository is not None else None
        if row is None:
            raise RegistryError(MANIFEST_UNKNOWN)
        return row.digest

    def config(self, name: RepositoryName, descriptor: Descriptor) -> ConfigView:
        """Read the config of an image, as far as that is possible."""
        if descriptor.size > MAX_CONFIG_BYTES:
            return ConfigView(
                None, f"The config of this image has {descriptor.size:,} bytes, too many to be shown here."
            )
        try:
            content = self.blob(name, descriptor.digest)
        except RegistryError as error:
            return ConfigView(None, f"The config of this image cannot be read: {error.message}.")
        config = read_config(content)
        return ConfigView(
            config, "" if config else "The config of this image is not a JSON object, and cannot be shown."
        )

    def blob(self, name: RepositoryName, digest: Digest) -> bytes:
        """Read a small blob; raises BLOB_UNKNOWN."""
        blob = self._registry.open_blob(name, digest)
        if blob.file is None:
            return blob.content
        with blob.file as file:
            content = bytearray()
            while len(content) < MAX_CONFIG_BYTES and (piece := file.read(_READ_BYTES)):
                content += piece
            return bytes(content)

    def files(self, name: RepositoryName, layer: Digest, rows: int) -> LayerList:
        """List the files of a layer, so many rows a page; raises BLOB_UNKNOWN."""

        def make() -> LayerList:
            blob = self._registry.open_blob(name, layer)
            with blob.file or io.BytesIO(blob.content) as file:
                return make_list(file, Limits(), self._work, rows)

        return self._layers.get(layer, make, self._work)

    def _reading(self, row: manifest_rows.ManifestRow) -> contextlib.AbstractContextManager[object]:
        """Wait until a manifest can be read: one that is large alone; raises BUSY."""
        return self._large.take(self._work.left) if row.size > _LARGE else contextlib.nullcontext()

    def _content(self, row: manifest_rows.ManifestRow) -> bytes:
        with self._database.browse(self._work) as tx:
            return self._loaded(tx, row)

    def _loaded(self, tx: Transaction, row: manifest_rows.ManifestRow) -> bytes:
        content: bytes | None = manifest_rows.manifest_content(tx, row.id)
        if content is None:
            # Deleted a moment ago.
            raise RegistryError(MANIFEST_UNKNOWN)
        return content

    def _children(self, repository: int, descriptors: Sequence[Descriptor]) -> dict[Digest, ManifestEntry]:
        if not descriptors:
            return {}
        with self._database.browse(self._work) as tx:
            return listings.summaries(tx, repository, (descriptor.digest for descriptor in descriptors))


def _without_annotations(manifest: Manifest) -> Manifest:
    return dataclasses.replace(
        manifest,
        layers=tuple(map(_with_known_annotations, manifest.layers)),
        manifests=tuple(map(_with_known_annotations, manifest.manifests)),
        annotations=_NO_ANNOTATIONS,
    )


def _with_known_annotations(descriptor: Descriptor) -> Descriptor:
    if not descriptor.annotations:
        return descriptor
    return dataclasses.replace(
        descriptor,
        annotations={key: descriptor.annotations[key] for key in KNOWN_ANNOTATIONS if key in descriptor.annotations},
    )


def _find(tx: Transaction, name: RepositoryName) -> tuple[int, RepositoryEntry]:
    found = listings.repository_entry(tx, name)
    if found is None:
        raise RegistryError(NAME_UNKNOWN)
    return found


def _parent(tx: Transaction, repository: int, digest: Digest) -> Parent:
    row = manifest_rows.find_manifest(tx, repository, digest)
    return Parent(digest, manifest_rows.tags_of_manifest(tx, repository, row.id, _NAMED_IN_LIST) if row else ())


def _listing(view: View, count: Callable[[], int], load: Callable[[View], Sequence[Entry]]) -> Listing[Entry]:
    """Load a part of a list; what is not longer than its first page is not counted: to search once more takes as long
    as the first time.
    """
    if view.offset == 0:
        entries = load(view)
        return Listing(entries, 0, len(entries) if len(entries) < view.limit else count())
    total = count()
    view = view._replace(offset=_last_offset(view.offset, view.limit, total))
    return Listing(load(view), view.offset, total)


def _last_offset(offset: int, limit: int, total: int) -> int:
    """Start no later than the last page."""
    return min(offset, max(total - 1, 0) // limit * limit)
