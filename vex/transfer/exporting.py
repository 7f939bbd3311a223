"""`vex export`: images of a registry, running or not, as an OCI image layout (image specification 1.1, "Image Layout").

Invariants: what index.json lists is there, whole: blobs are added and synced first, each compared with its digest, and
then the new index.json takes the place of the old one. Nothing is written through a link, whoever prepared the
directory. Manifests keep their bytes and their media types. A blob that the registry removes in between means that the
image was removed or replaced: it is looked up again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vex.errors import Failure
from vex.formats.compression import HEAD_BYTES, compression_of
from vex.formats.manifest import OCI_INDEX, Descriptor, parse_stored
from vex.http.forwarded import addressable
from vex.names import Digest, RepositoryName, Tag, parse_image
from vex.progress import Progress, mebibytes
from vex.storage import blob_rows, listings, manifest_rows, repository_rows
from vex.storage.blobs import BlobFiles, make_directory
from vex.storage.copying import Copier, DamagedFile, Removed, blob_folders, has_content, put_file
from vex.storage.database import Database
from vex.storage.directory import registry_in
from vex.storage.disk import FULL
from vex.storage.folders import Draft, Folder, Unsafe
from vex.storage.referrers import ReferrerRow, list_referrers
from vex.storage.schema import WITH_STATES
from vex.transfer.layout import IMAGE_NAME, INDEX_FILE, LAYOUT_FILE, REF_NAME
from vex.transfer.replies import MAX_DOCUMENT

_TEMPORARY = ".vex-export"
_ROUNDS = 20
_PAGE = 1000
_Entry = dict[str, Any]


def export(data: Path, image: str, directory: Path, progress: Progress, public_url: str) -> str:
    """Write an image, or all of a repository, to a layout, with what refers to it; returns what was done. Raises
    Failure.

    `public_url` says how the names begin that docker, podman and containerd give to what they load; "" for a registry
    that has none.
    """
    repository, tag = parse_image(image)
    scheme, _, host = public_url.partition("://")
    host = addressable(host or "localhost", scheme)
    with registry_in(data, WITH_STATES) as database, _explained(directory):
        layout = _Layout(directory)
        run = _Export(database, BlobFiles(data), layout, repository, tag, host, progress)
        references = run.references()
        with layout.held():
            return run.run(references)


class _Layout:
    """The layout that is written; nothing is written, or read, through a link that lies in the directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the directory a layout, and keep others from writing there; raises Failure and Unsafe."""
        if self.directory.is_dir() and not (self.directory / LAYOUT_FILE).exists() and any(self.directory.iterdir()):
            raise Failure(
                f"{self.directory} is not empty, and no OCI image layout; choose an empty directory or a new one"
            )
        make_directory(self.directory)
        with contextlib.ExitStack() as stack:
            self._top = stack.enter_context(contextlib.closing(Folder.open(self.directory)))
            self._folders = stack.enter_context(blob_folders(self._top))
            self.draft = Draft(self._top, _TEMPORARY)
            try:
                fcntl.flock(self._top.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Failure(
                    f"another vex exports to {self.directory}; wait for it, or choose another directory"
                ) from None
            if self._content(LAYOUT_FILE) is None:
                put_file(self.draft, self._top, LAYOUT_FILE, b'{"imageLayoutVersion":"1.0.0"}')
            yield

    def folder(self, digest: Digest) -> Folder:
        """Return the folder that the content of a digest belongs to; its name there is the encoded digest."""
        return self._folders[digest.algorithm]

    def has(self, digest: Digest, size: int) -> bool:
        """Tell whether the content of a digest is there already."""
        return has_content(self.folder(digest), digest, size)

    def put_manifest(self, digest: Digest, content: bytes) -> None:
        """Write a manifest, whole and synced."""
        put_file(self.draft, self.folder(digest), digest.encoded, content)

    def index(self) -> _Entry:
        """Read index.json; raises Failure."""
        content = self._content(INDEX_FILE)
        if content is None:
            return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(content)
            if (
                isinstance(document, dict)
                and isinstance(document.get("manifests"), list)
                and all(isinstance(entry, dict) for entry in document["manifests"])
            ):
                return document
        raise Failure(f"{self.directory / INDEX_FILE} is not the index of an image layout; choose another directory")

    def publish(self, index: _Entry) -> None:
        """Make the blobs durable, and then list them."""
        for folder in self._folders.values():
            folder.sync()
        put_file(self.draft, self._top, INDEX_FILE, json.dumps(index, indent=2).encode())
        self._top.sync()

    def _content(self, name: str) -> bytes | None:
        try:
            with self._top.open_file(name) as file:
                return file.read(MAX_DOCUMENT + 1)
        except FileNotFoundError:
            return None


class _Export:
    def __init__(
        self,
        database: Database,
        files: BlobFiles,
        layout: _Layout,
        repository: RepositoryName,
        tag: Tag | None,
        host: str,
        progress: Progress,
    ) -> None:
        self._database = database
        self._copier = Copier(database, files, progress.moved)
        self._layout = layout
        self._repository = repository
        self._tag = tag
        self._host = host
        self._progress = progress
        self._done: set[Digest] = set()
        self._told: set[Digest] = set()
        self._kept = 0

    def references(self) -> Sequence[Tag | Digest]:
        """List what is to be exported: the tag, or all that a repository has, which is its tags and what none of them
        leads to; raises Failure.
        """
        if self._tag:
            self._row(self._tag)
            return [self._tag]
        with self._database.read() as tx:
            repository = self._id(repository_rows.find_repository(tx, self._repository))
            tags = manifest_rows.list_tags(tx, repository, "", -1)
            return [*map(Tag, tags), *(entry.digest for entry in listings.list_unheld(tx, repository, 0, -1))]

    def run(self, references: Sequence[Tag | Digest]) -> str:
        """Export all of them; returns what was done. Raises Failure."""
        index = self._layout.index()
        entries: dict[tuple[str, str], _Entry] = {}
        problems = 0
        for reference in references:
            try:
                for entry in self._export(reference):
                    entries.setdefault((entry.get("annotations", {}).get(REF_NAME, ""), entry["digest"]), entry)
            except DamagedFile as damaged:
                problems += 1
                self._progress.say(f"{self._repository} {reference}: {damaged}")
        index["manifests"] = [*self._others(index["manifests"], list(entries.values())), *entries.values()]
        self._layout.publish(index)
        done = f"{self._layout.directory}: entries in {INDEX_FILE}: {len(entries)}; {self._news()}"
        if problems:
            raise Failure(
                f"{done}; not exported, because what they need is damaged: {problems}; see vex check --hash --repair"
            )
        return done

    def _id(self, found: int | None) -> int:
        if found is None:
            raise Failure(f"there is no repository {self._repository} in this registry; check the name")
        return found

    def _others(self, old: list[_Entry], new: list[_Entry]) -> Iterator[_Entry]:
        """Return what the index lists beside what was exported now."""
        digests = {_ref_name(entry): entry["digest"] for entry in new}
        untagged = {entry["digest"] for entry in new}
        for entry in old:
            name = _ref_name(entry)
            if name not in digests if name else entry.get("digest") not in untagged:
                yield entry
            elif name and digests[name] != entry.get("digest"):
                self._progress.say(f"{name}: in the layout it was {entry.get('digest')}, and is {digests[name]} now")

    def _news(self) -> str:
        return (
            f"blobs linked: {self._copier.linked}, copied: {self._copier.copied} ({mebibytes(self._copier.bytes)}),"
            f" there already: {self._kept}"
        )

    def _export(self, reference: Tag | Digest) -> list[_Entry]:
        """Export one image with what refers to it; returns what the index is to list. Raises Failure and
        DamagedFile.
        """
        for _ in range(_ROUNDS):
            try:
                repository, row = self._row(reference)
                return [] if row is None else self._with_referrers(repository, row, reference)
            except Removed:
                self._progress.say(f"{self._repository} {reference}: it was changed meanwhile; looking again")
        raise Failure(
            f"{self._repository} {reference} is pushed and removed all the while; run this again when less is going on"
        )

    def _row(self, reference: Tag | Digest) -> tuple[int, manifest_rows.ManifestRow | None]:
        """Find a manifest; raises Failure when it is the tag that was asked for, and not there."""
        with self._database.read() as tx:
            repository = self._id(repository_rows.find_repository(tx, self._repository))
            by_tag = isinstance(reference, Tag)
            row = (
                manifest_rows.find_tagged_manifest(tx, repository, Tag(reference))
                if by_tag
                else manifest_rows.find_manifest(tx, repository, Digest(reference))
            )
        if row is None and self._tag:
            raise Failure(f"there is no tag {reference} in {self._repository}; check the name")
        return repository, row

    def _with_referrers(self, repository: int, row: manifest_rows.ManifestRow, reference: Tag | Digest) -> list[_Entry]:
        entry: _Entry = {"mediaType": row.media_type, "digest": row.digest, "size": row.size}
        if isinstance(reference, Tag):
            entry["annotations"] = {IMAGE_NAME: f"{self._host}/{self._repository}:{reference}", REF_NAME: reference}
        entries = [entry]
        subjects: deque[Digest] = deque()
        seen: set[Digest] = set()
        self._manifest(repository, row.digest, subjects)
        while subjects:
            for referrer in self._referrers(repository, subjects.popleft()):
                if referrer.digest not in seen:
                    seen.add(referrer.digest)
                    artifact_type = {"artifactType": referrer.artifact_type} if referrer.artifact_type else {}
                    entries.append(
                        {
                            "mediaType": referrer.media_type,
                            "digest": referrer.digest,
                            "size": referrer.size,
                            **artifact_type,
                        }
                    )
                    self._manifest(repository, referrer.digest, subjects)
        return entries

    def _referrers(self, repository: int, subject: Digest) -> Iterator[ReferrerRow]:
        last, more = "", True
        while more:
            with self._database.read() as tx:
                rows, more = list_referrers(tx, repository, subject, "", last, _PAGE, MAX_DOCUMENT)
            yield from rows
            last = rows[-1].digest if rows else ""

    def _manifest(self, repository: int, digest: Digest, subjects: deque[Digest]) -> None:
        """Write a manifest, and before it all that it needs; raises Removed and DamagedFile."""
        with self._database.read() as tx:
            row = manifest_rows.find_manifest(tx, repository, digest)
            # Another process may have removed it between the two queries.
            content: bytes | None = None if row is None else manifest_rows.manifest_content(tx, row.id)
        if row is None or content is None:
            raise Removed
        manifest = parse_stored(content, row.media_type)
        for child in manifest.manifests:
            # BuildKit's cache images are indexes of layers.
            if self._is_manifest(repository, child.digest):
                self._manifest(repository, child.digest, subjects)
            elif child.required:
                self._blob(child.digest)
        for blob in manifest.blobs:
            self._blob(blob.digest)
        for layer in manifest.layers:
            self._tell_compression(digest, layer)
        if not self._layout.has(digest, len(content)):
            self._layout.put_manifest(digest, content)
        subjects.append(digest)

    def _tell_compression(self, manifest: Digest, layer: Descriptor) -> None:
        """Say where a manifest calls a layer plain that is compressed: it cannot be mended, since it would have another
        digest.
        """
        if not layer.required or not layer.media_type.endswith(".tar") or layer.digest in self._told:
            return
        with self._layout.folder(layer.digest).open_file(layer.digest.encoded) as file:
            compression = compression_of(file.read(HEAD_BYTES))
        if compression:
            self._told.add(layer.digest)
            advice = (
                "containerd and umoci cannot unpack it; docker, podman and skopeo can; import or push the image again"
            )
            self._progress.say(
                f"{self._repository}@{manifest}: the layer {layer.digest} is compressed with {compression}, but called"
                f" plain: {advice}"
            )

    def _is_manifest(self, repository: int, digest: Digest) -> bool:
        with self._database.read() as tx:
            return manifest_rows.find_manifest(tx, repository, digest) is not None

    def _blob(self, digest: Digest) -> None:
        """Write a blob, unless it is there; raises Removed and DamagedFile."""
        if digest in self._done:
            return
        with self._database.read() as tx:
            blob = blob_rows.find_blob(tx, digest)
        if blob is None:
            raise Removed
        if self._layout.has(digest, blob.size):
            self._kept += 1
        else:
            try:
                self._copier.copy(blob, self._layout.draft, self._layout.folder(digest), compared=True)
            except DamagedFile as damaged:
                raise DamagedFile(f"blob {digest}: {damaged}; push the image again") from None
        self._done.add(digest)
        self._progress.show(self._news())


def _ref_name(entry: _Entry) -> str:
    annotations = entry.get("annotations")
    return str(annotations.get(REF_NAME, "")) if isinstance(annotations, dict) else ""


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "free space there, or choose another" if error.errno in FULL else "check its permissions and the disk"
        raise Failure(
            f"cannot export to {directory}: {error.filename or directory}: {error.strerror}; {advice}"
        ) from error
    except Unsafe as error:
        raise Failure(f"cannot export to {directory}: {error}") from error
