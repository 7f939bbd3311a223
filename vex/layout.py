"""Images in files: OCI image layouts, in a directory or a tar archive, and the archives of `docker save` (image specification 1.1, "Image Layout").

Archives may be compressed with gzip; a part of one that is is found by unpacking what comes before it, since nothing is written
anywhere. Invariants: the names in an archive are only ever compared, never used as the names of files; a file is read in pieces
of bounded size; what a manifest or a digest says is not believed here: the registry that receives it compares.

The archives of docker have no manifest: one is made, the same each time, of their config and their layers as they are.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import posixpath
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, cast

from vex.endpoints import Document
from vex.errors import Failure, RegistryError
from vex.layers import Incomplete, headers
from vex.manifest import OCI_MANIFEST
from vex.names import Digest, RepositoryName, Tag
from vex.remote import MAX_DOCUMENT, Refused

REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT_FILE, INDEX_FILE = "oci-layout", "index.json"
# As containerd writes it, with the whole name; other writers have the tag alone in REF_NAME.
_IMAGE_NAME = "io.containerd.image.name"
_DOCKER_FILE = "manifest.json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_ENTRIES = 20_000
_MAX_NAME = 1024
_MAX_LINKS = 8
_PIECE_BYTES = 256 * 1024
_CONTENT_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_READ_ERRORS = (OSError, EOFError, zlib.error)


class Root(NamedTuple):
    """What is to be copied for its own sake; the tag is "" for none, and the digest None where it has to be asked for."""

    tag: str
    digest: Digest | None


class Files(Protocol):
    """Files by name."""

    def size(self, name: str) -> int:
        """Return the size in bytes of a file, or -1 when there is none."""

    def open(self, name: str) -> BinaryIO:
        """Open a file that is there, at its first byte."""


class DirectoryFiles:
    """The files of a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def size(self, name: str) -> int:
        """Return the size in bytes of a file, or -1 when there is none."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(self._directory / name)
            return status.st_size if stat.S_ISREG(status.st_mode) else -1
        return -1

    def open(self, name: str) -> BinaryIO:
        """Open a file that is there, at its first byte."""
        return open(self._directory / name, "rb", buffering=0)


class ArchiveFiles:
    """The files of a tar archive."""

    def __init__(self, path: Path) -> None:
        """Read all headers of the archive; raises Failure."""
        self._path = path
        self._contents: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        try:
            with self._open_archive() as file:
                for header in headers(_Seekable(file)):
                    self._add(header, file.tell())
        except (Incomplete, *_READ_ERRORS) as error:
            raise Failure(f"cannot read {path}: it is damaged, or no tar archive: {error}") from error

    def _add(self, header: tarfile.TarInfo, position: int) -> None:
        name = posixpath.normpath(header.name)
        if len(self._contents) + len(self._links) >= _MAX_ENTRIES or len(name) + len(header.linkname) > _MAX_NAME:
            raise Incomplete("it has more entries, or longer names, than archives of images have")
        if header.type in _CONTENT_TYPES:
            self._contents[name] = position, header.size
        elif header.issym() or header.islnk():
            base = posixpath.dirname(name) if header.issym() else ""
            self._links[name] = posixpath.normpath(posixpath.join(base, header.linkname))

    def size(self, name: str) -> int:
        """Return the size in bytes of a file, or -1 when there is none."""
        return self._find(name)[1]

    def open(self, name: str) -> BinaryIO:
        """Open a file that is there, at its first byte."""
        file = self._open_archive()
        file.seek(self._find(name)[0])
        return file

    def _find(self, name: str) -> tuple[int, int]:
        name = posixpath.normpath(name)
        for _ in range(_MAX_LINKS):
            name = self._links.get(name, name)
        return self._contents.get(name, (0, -1))

    def _open_archive(self) -> BinaryIO:
        with open(self._path, "rb") as file:
            packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        return cast(BinaryIO, gzip.open(self._path)) if packed else open(self._path, "rb")


class _Seekable:
    """An archive that skips without reading, where that is possible."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        return self._file.read(count)

    def skip(self, count: int) -> int:
        if count == 0:
            return 0
        self._file.seek(count - 1, os.SEEK_CUR)
        return 0 if self._file.read(1) else 1


class LocalImages:
    """The images in files, by the repository that each belongs to, and where their manifests and blobs are."""

    def __init__(self, files: Files, images: dict[RepositoryName, list[Root]], documents: dict[Digest, Document], names: dict[Digest, str]) -> None:
        self._files = files
        self._images = images
        self._documents = documents
        self._names = names

    def repositories(self) -> Iterable[RepositoryName]:
        """List the repositories."""
        return self._images

    def roots(self, repository: RepositoryName) -> Iterable[Root]:
        """List the images of a repository; what has no tag comes last, since it may be about what has one."""
        return sorted(self._images[repository], key=lambda root: not root.tag)

    def manifest(self, _repository: RepositoryName, digest: Digest) -> Document:
        """Read a manifest; raises Refused."""
        if digest in self._documents:
            return self._documents[digest]
        content = _read(self._files, _path(digest))
        if Digest.of(content, digest.algorithm) != digest:
            raise Refused(0, "the file of this manifest does not have the content of its digest")
        return Document(content, "")

    @contextlib.contextmanager
    def blob(self, _repository: RepositoryName, digest: Digest, size: int, offset: int) -> Iterator[Iterator[bytes]]:
        """Read a blob from an offset on, in pieces; raises Refused."""
        name = self._names.get(digest) or _path(digest)
        found = self._files.size(name)
        if found != size:
            raise Refused(0, "its file is missing" if found < 0 else f"its file has {found} bytes, but the manifest says {size}")
        with contextlib.closing(self._files.open(name)) as file:
            file.seek(offset, os.SEEK_CUR)
            yield _pieces(file, size - offset)

    def referrers(self, _repository: RepositoryName, _digest: Digest) -> Iterable[Digest]:
        """Return nothing: in a layout, what refers to an image is listed beside it."""
        return ()

    def resolve(self, _repository: RepositoryName, _tag: str) -> Digest:
        """Refuse: every root has its digest here."""
        raise Refused(0, "no such tag")


def open_images(path: Path, repository: str, tag: str) -> LocalImages:
    """Open a layout or an archive, whose images go to this repository and under this tag, if they are not ""; raises Failure."""
    try:
        files: Files = DirectoryFiles(path) if path.is_dir() else ArchiveFiles(path)
        documents: dict[Digest, Document] = {}
        names: dict[Digest, str] = {}
        if files.size(INDEX_FILE) >= 0 and files.size(LAYOUT_FILE) >= 0:
            images = [(name, digest) for name, digest in _layout_entries(files)]
        elif files.size(_DOCKER_FILE) >= 0:
            images = list(_docker_entries(files, documents, names))
        else:
            raise Failure(f"{path} is neither an OCI image layout (it has no {INDEX_FILE}) nor an archive of docker (it has no {_DOCKER_FILE})")
    except (Refused, RegistryError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Failure(f"{path} does not hold what an image layout or archive has to: {error}") from error
    except _READ_ERRORS as error:
        raise Failure(f"cannot read {path}: {getattr(error, 'strerror', None) or error}; check its path and permissions") from error
    return LocalImages(files, _assign(path, images, repository, tag), documents, names)


def _layout_entries(files: Files) -> Iterator[tuple[str, Digest]]:
    """List name and digest of what index.json has; the name is "" for what has none."""
    for entry in json.loads(_read(files, INDEX_FILE))["manifests"]:
        annotations = entry.get("annotations") or {}
        yield str(annotations.get(_IMAGE_NAME) or annotations.get(REF_NAME) or ""), Digest.parse(entry["digest"])


def _docker_entries(files: Files, documents: dict[Digest, Document], names: dict[Digest, str]) -> Iterator[tuple[str, Digest]]:
    """List name and digest of the images of `docker save`, and make their manifests."""
    described: dict[str, dict[str, object]] = {}

    def descriptor(name: str, media_type: str) -> dict[str, object]:
        if name not in described:
            described[name] = _describe(files, name, media_type)
            names[Digest(str(described[name]["digest"]))] = name
        return described[name]

    for entry in json.loads(_read(files, _DOCKER_FILE)):
        layers = [descriptor(name, _LAYER) for name in entry["Layers"] or []]
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(entry["Config"], _CONFIG), "layers": layers}
        content = json.dumps(document, separators=(",", ":")).encode()
        digest = Digest.of(content)
        documents[digest] = Document(content, OCI_MANIFEST)
        for name in entry.get("RepoTags") or [""]:
            yield str(name), digest


def _describe(files: Files, name: str, media_type: str) -> dict[str, object]:
    size = files.size(name)
    if size < 0:
        raise ValueError(f"{name!r} is missing")
    content_hash, first = hashlib.sha256(), b""
    with contextlib.closing(files.open(name)) as file:
        for piece in _pieces(file, size):
            first = first or piece[: len(_GZIP_MAGIC)]
            content_hash.update(piece)
    compression = "+gzip" if media_type == _LAYER and first == _GZIP_MAGIC else ""
    return {"mediaType": media_type + compression, "digest": f"sha256:{content_hash.hexdigest()}", "size": size}


def _assign(path: Path, images: list[tuple[str, Digest]], repository: str, tag: str) -> dict[RepositoryName, list[Root]]:
    """Decide where each image goes; raises Failure when that is not clear."""
    if tag:
        images = _retagged(path, images, tag)
    assigned: dict[RepositoryName, list[Root]] = {}
    for name, digest in images:
        own, own_tag = _parts(name)
        target = RepositoryName.parse(repository) if repository else own
        if not target:
            raise Failure(f"{path} does not say which repository its images are for; give it with --repository NAME")
        assigned.setdefault(target, []).append(Root(own_tag or "", digest))
    return assigned


def _retagged(path: Path, images: list[tuple[str, Digest]], tag: str) -> list[tuple[str, Digest]]:
    named = [image for image in images if image[0]] or images
    if len({digest for _, digest in named}) != 1:
        raise Failure(f"{path} holds several images ({', '.join(name for name, _ in named[:5] if name)}): --tag can name one only")
    name, digest = named[0]
    own = _parts(name)[0]
    Tag.parse(tag)
    return [(f"{own}:{tag}" if own else tag, digest), *(image for image in images if image[1] != digest)]


def _parts(name: str) -> tuple[RepositoryName | None, Tag | None]:
    """Split [HOST/]REPOSITORY:TAG, or a tag alone; None stands for what is not there, or is not valid."""
    repository, tag = ("", name) if "/" not in name and ":" not in name else name.rpartition(":")[::2]
    first, slash, rest = repository.partition("/")
    # As docker tells a host from the first part of a name.
    if slash and (first == "localhost" or "." in first or ":" in first):
        repository = rest
    found, found_tag = None, None
    with contextlib.suppress(RegistryError):
        found_tag = Tag.parse(tag)
        found = RepositoryName.parse(repository)
    return found, found_tag


def _read(files: Files, name: str) -> bytes:
    size = files.size(name)
    if not 0 <= size <= MAX_DOCUMENT:
        raise Refused(0, "its file is missing" if size < 0 else f"its file has more than {MAX_DOCUMENT} bytes")
    with contextlib.closing(files.open(name)) as file:
        return b"".join(_pieces(file, size))


def _pieces(file: BinaryIO, count: int) -> Iterator[bytes]:
    while count:
        try:
            piece = file.read(min(_PIECE_BYTES, count))
        except _READ_ERRORS as error:
            raise Refused(0, f"its file cannot be read: {getattr(error, 'strerror', None) or error}") from error
        if not piece:
            raise Refused(0, "its file ends early")
        count -= len(piece)
        yield piece


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"
