"""Images in files: OCI image layouts, in a directory or a tar archive, and the archives of `docker save` (image
specification 1.1, "Image Layout").

Beside these, the directories that `skopeo copy` writes to `dir:`. Invariants: names in them go through `Files`, which
checks them; what a manifest or a digest says is not believed here: the registry that receives it compares.

The archives of docker have no manifest: one is made, the same each time, of their config and their layers as they are;
the media type of a layer says how its bytes are compressed. An archive of docker may be a layout too, which lacks what
docker does not have.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vex.errors import Failure, Refused, RegistryError
from vex.formats.compression import GZIP, HEAD_BYTES, ZSTD, compression_of
from vex.formats.foreign_json import Fields, Malformed, check_values, items_of, load_json
from vex.formats.manifest import OCI_MANIFEST
from vex.names import Digest, RepositoryName, Tag
from vex.storage.folders import Unsafe
from vex.transfer.endpoints import Document
from vex.transfer.image_files import READ_ERRORS, ArchiveFiles, DirectoryFiles, Files, Missing, pieces_of_file, reason

REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT_FILE, INDEX_FILE = "oci-layout", "index.json"
# As containerd writes it, with the whole name; other writers have the tag alone in REF_NAME.
IMAGE_NAME = "io.containerd.image.name"
MAX_INDEX_BYTES = 8 * 1024 * 1024
_DOCKER_FILE = "manifest.json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_SUFFIXES = {GZIP: "+gzip", ZSTD: "+zstd"}
_DOCKER_HUB = ("docker.io", "index.docker.io")
_OFFICIAL = "library/"


class Root(NamedTuple):
    """What is to be copied for its own sake; the tag is "" for none, and the digest None where it has to be asked for.

    Of an index that is not all there, the image with one of these configs is meant.
    """

    tag: str
    digest: Digest | None
    configs: frozenset[Digest] = frozenset()


class _Image(NamedTuple):
    name: str
    digest: Digest
    configs: frozenset[Digest] = frozenset()


class LocalImages:
    """The images in files, by the repository that each belongs to, and where their manifests and blobs are."""

    def __init__(self, files: Files, images: dict[RepositoryName, list[Root]], contents: _Contents) -> None:
        self._files = files
        self._images = images
        self._contents = contents

    def repositories(self) -> Iterable[RepositoryName]:
        """List the repositories."""
        return self._images

    def roots(self, repository: RepositoryName) -> Iterable[Root]:
        """List the images of a repository; what has no tag comes last, since it may be about what has one."""
        return sorted(self._images[repository], key=lambda root: not root.tag)

    def manifest(self, _repository: RepositoryName, digest: Digest) -> Document:
        """Read a manifest; raises Refused, and Missing."""
        if digest in self._contents.documents:
            return self._contents.documents[digest]
        content = _read(self._files, self._contents.name(digest))
        if Digest.of(content, digest.algorithm) != digest:
            raise Refused(0, "the file of this manifest does not have the content of its digest")
        return Document(content, "")

    @contextlib.contextmanager
    def blob(self, _repository: RepositoryName, digest: Digest, size: int, offset: int) -> Iterator[Iterator[bytes]]:
        """Read a blob from an offset on, in pieces; raises Refused, and Missing."""
        with _opened(self._files, self._contents.name(digest)) as (file, found):
            if found != size:
                raise Refused(0, f"its file has {found} bytes, but the manifest says {size}")
            file.seek(offset, os.SEEK_CUR)
            yield pieces_of_file(file, size - offset)

    def referrers(self, _repository: RepositoryName, _digest: Digest) -> Iterable[Digest]:
        """Return nothing: in a layout, what refers to an image is listed beside it."""
        return ()

    def resolve(self, _repository: RepositoryName, _tag: str) -> Digest:
        """Refuse: every root has its digest here."""
        raise Refused(0, "no such tag")


class _Contents:
    """What is where, if it is not where a layout has it: manifests that were made here, and names of files."""

    def __init__(self) -> None:
        self.documents: dict[Digest, Document] = {}
        self.names: dict[Digest, str] = {}

    def name(self, digest: Digest) -> str:
        """Return the name of the file with the content of a digest."""
        return self.names.get(digest) or f"blobs/{digest.algorithm}/{digest.encoded}"

    def add(self, content: bytes, media_type: str) -> Digest:
        """Keep a manifest."""
        digest = Digest.of(content)
        self.documents[digest] = Document(content, media_type)
        return digest


def open_images(path: Path, repository: str, tag: str) -> LocalImages:
    """Open a layout or an archive, whose images go to this repository and under this tag, if they are not ""; raises
    Failure.
    """
    contents = _Contents()
    try:
        files: Files = DirectoryFiles(path) if path.is_dir() else ArchiveFiles(path)
        images = _images(files, contents)
    except (Refused, RegistryError, Unsafe, Malformed) as error:
        raise Failure(f"{path} does not hold what an image layout or archive has to: {error}") from error
    except READ_ERRORS as error:
        raise Failure(f"cannot read {path}: {reason(error)}; check its path and permissions") from error
    if images is None:
        raise Failure(
            f"{path} is neither an OCI image layout (it has no {INDEX_FILE}) nor an archive of docker (it has no"
            f" {_DOCKER_FILE})"
        )
    return LocalImages(files, _assign(path, images, repository, tag), contents)


def _images(files: Files, contents: _Contents) -> list[_Image] | None:
    """List the images; None where nothing lists them."""
    listed = load_json(_read(files, _DOCKER_FILE), _DOCKER_FILE) if files.size(_DOCKER_FILE) >= 0 else None
    if files.size(INDEX_FILE) >= 0 and files.size(LAYOUT_FILE) >= 0:
        configs = frozenset(_configs(listed))
        return [_Image(name, digest, configs) for name, digest in _layout_entries(files)]
    if isinstance(listed, dict):
        return [_Image("", _skopeo_image(files, contents))]
    return None if listed is None else list(_docker_images(files, listed, contents))


def _layout_entries(files: Files) -> Iterator[tuple[str, Digest]]:
    """List name and digest of what index.json has; the name is "" for what has none."""
    for entry in Fields(load_json(_read(files, INDEX_FILE), INDEX_FILE), INDEX_FILE).items("manifests"):
        annotations = entry.fields("annotations")
        yield annotations.text(IMAGE_NAME) or annotations.text(REF_NAME), Digest.parse(entry.text("digest"))


def _configs(listed: object) -> Iterator[Digest]:
    """List the configs of the images that docker has, of a layout that docker wrote."""
    for entry in items_of(listed or [], _DOCKER_FILE):
        algorithm, _, encoded = entry.text("Config").removeprefix("blobs/").partition("/")
        with contextlib.suppress(RegistryError):
            yield Digest.parse(f"{algorithm}:{encoded}")


def _skopeo_image(files: Files, contents: _Contents) -> Digest:
    """Find what `skopeo copy` wrote to a directory: blobs by their digits, and the children of an index as manifests of
    their own.
    """
    content = _read(files, _DOCKER_FILE)
    queue = deque([content])
    while queue:
        document = Fields(load_json(queue.popleft(), "a manifest"), "a manifest")
        for blob in (document.fields("config"), *document.items("layers")):
            with contextlib.suppress(RegistryError):
                digest = Digest.parse(blob.text("digest"))
                contents.names[digest] = digest.encoded
        for child in document.items("manifests"):
            digest = Digest.parse(child.text("digest"))
            if digest not in contents.names:
                contents.names[digest] = f"{digest.encoded}.manifest.json"
                with contextlib.suppress(Missing):
                    queue.append(_read(files, contents.names[digest]))
    return contents.add(content, "")


def _docker_images(files: Files, listed: object, contents: _Contents) -> Iterator[_Image]:
    """List name and digest of the images of `docker save`, and make their manifests."""
    described: dict[str, dict[str, object]] = {}

    def descriptor(name: str, media_type: str) -> dict[str, object]:
        if name not in described:
            described[name] = _describe(files, name, media_type)
            contents.names[Digest(str(described[name]["digest"]))] = name
        return described[name]

    for entry in items_of(listed, _DOCKER_FILE):
        layers = [descriptor(name, _LAYER) for name in entry.texts("Layers")]
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(entry.text("Config"), _CONFIG),
            "layers": layers,
        }
        digest = contents.add(json.dumps(document, separators=(",", ":")).encode(), OCI_MANIFEST)
        for name in entry.texts("RepoTags") or [""]:
            yield _Image(name, digest)


def _describe(files: Files, name: str, media_type: str) -> dict[str, object]:
    content_hash, head = hashlib.sha256(), b""
    try:
        with _opened(files, name) as (file, size):
            for piece in pieces_of_file(file, size):
                head = head or piece[:HEAD_BYTES]
                content_hash.update(piece)
    except Refused as refused:
        raise refused.of(ascii(name)) from refused
    suffix = _SUFFIXES.get(compression_of(head), "") if media_type == _LAYER else ""
    return {"mediaType": media_type + suffix, "digest": f"sha256:{content_hash.hexdigest()}", "size": size}


def _assign(path: Path, images: list[_Image], repository: str, tag: str) -> dict[RepositoryName, list[Root]]:
    """Decide where each image goes; raises Failure when that is not clear."""
    if tag:
        images = _retagged(path, images, tag)
    assigned: dict[RepositoryName, list[Root]] = {}
    for image in images:
        own, own_tag = parse_reference(image.name)
        target = RepositoryName.parse(repository) if repository else own
        if not target:
            raise Failure(f"{path} does not say which repository its images are for; give it with --repository NAME")
        assigned.setdefault(target, []).append(Root(own_tag or "", image.digest, image.configs))
    return assigned


def _retagged(path: Path, images: list[_Image], tag: str) -> list[_Image]:
    named = [image for image in images if image.name] or images
    if len({image.digest for image in named}) != 1:
        raise Failure(
            f"{path} holds several images ({', '.join(image.name for image in named[:5] if image.name)}): --tag can"
            " name one only"
        )
    own = parse_reference(named[0].name)[0]
    Tag.parse(tag)
    return [
        named[0]._replace(name=f"{own}:{tag}" if own else tag),
        *(image for image in images if image.digest != named[0].digest),
    ]


def parse_reference(name: str) -> tuple[RepositoryName | None, Tag | None]:
    """Split [HOST/]REPOSITORY:TAG, or a tag alone; None stands for what is not there, or is not valid.

    An official image of Docker Hub loses the `library/` that it has in full (distribution/reference, FamiliarName).
    """
    repository, tag = ("", name) if "/" not in name and ":" not in name else name.rpartition(":")[::2]
    first, slash, rest = repository.partition("/")
    # As docker tells a host from the first part of a name.
    host = first if slash and (first == "localhost" or "." in first or ":" in first) else ""
    repository = rest if host else repository
    if (
        (not host or host in _DOCKER_HUB)
        and repository.startswith(_OFFICIAL)
        and "/" not in repository[len(_OFFICIAL) :]
    ):
        repository = repository[len(_OFFICIAL) :]
    found, found_tag = None, None
    with contextlib.suppress(RegistryError):
        found_tag = Tag.parse(tag)
        found = RepositoryName.parse(repository)
    return found, found_tag


@contextlib.contextmanager
def _opened(files: Files, name: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file that a manifest names, and give its size too; raises Refused, and Missing."""
    try:
        size = files.size(name)
        if size < 0:
            raise Missing(0, "its file is missing")
        file = files.open(name)
    except Unsafe as error:
        raise Refused(0, str(error)) from error
    with contextlib.closing(file):
        yield file, size


def _read(files: Files, name: str) -> bytes:
    """Read a document that takes a bounded amount of memory when it is parsed; raises Refused, and Missing."""
    with _opened(files, name) as (file, size):
        if size > MAX_INDEX_BYTES:
            raise Refused(0, f"its file has more than {MAX_INDEX_BYTES} bytes")
        content = b"".join(pieces_of_file(file, size))
    # Python keeps all characters of a text in four bytes each when one of them needs that.
    if not content.isascii() and 4 * size > MAX_INDEX_BYTES:
        raise Refused(0, f"its file has more than {MAX_INDEX_BYTES // 4} bytes, and not all of them are ASCII")
    try:
        check_values(content, name)
    except Malformed as error:
        raise Refused(0, str(error)) from error
    return content
