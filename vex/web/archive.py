"""An image as one tar archive, which `docker load`, `podman load` and `skopeo copy oci-archive:` take.

It is an OCI image layout (image specification 1.1, "Image Layout") with the `manifest.json` of Docker's archives beside
it, as `docker save` writes it. Manifest, config and layers are the stored bytes; the archive is made while it is sent,
in constant memory.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vex.errors import BLOB_UNKNOWN, Disconnected, RegistryError
from vex.formats.manifest import OCI_INDEX, Manifest
from vex.names import Digest, RepositoryName
from vex.registry.registry import Registry

_READ_BYTES = 256 * 1024


class ArchiveImage(NamedTuple):
    """An image of a repository; `reference` is what clients call it, such as host/name:tag, "" for nothing.

    It is held as long as the archive is read, however slowly that is, and so has no more of the manifest than digests.
    """

    name: RepositoryName
    digest: Digest
    media_type: str
    config: Digest | None
    layers: Sequence[Digest]
    reference: str


def archive_image(
    registry: Registry, name: RepositoryName, digest: Digest, manifest: Manifest, reference: str
) -> ArchiveImage:
    """Make sure that everything of an image is here; raises BLOB_UNKNOWN, naming what is not."""
    config = manifest.config
    for descriptor in (*([config] if config else []), *manifest.layers):
        if not descriptor.required:
            raise RegistryError(
                BLOB_UNKNOWN, f"the layer {descriptor.digest} is not here: clients fetch it from elsewhere"
            )
        registry.find_blob(name, descriptor.digest)
    return ArchiveImage(
        name,
        digest,
        manifest.media_type,
        config.digest if config else None,
        [layer.digest for layer in manifest.layers],
        reference,
    )


def image_archive(registry: Registry, image: ArchiveImage) -> Iterator[bytes]:
    """Make the archive piece by piece; raises MANIFEST_UNKNOWN at once.

    The pieces raise Disconnected when a blob goes away meanwhile, since what was sent cannot be taken back.
    """
    # As a pull, so that a removal meanwhile leaves the blobs for `pull-grace`.
    return _pieces(registry, image, registry.read_manifest(image.name, image.digest).content)


def _pieces(registry: Registry, image: ArchiveImage, content: bytes) -> Iterator[bytes]:
    blobs = list(dict.fromkeys([*([image.config] if image.config else []), *image.layers]))
    for directory in ("blobs", *sorted({f"blobs/{digest.algorithm}" for digest in (image.digest, *blobs)})):
        yield _header(directory, 0, tarfile.DIRTYPE)
    yield from _file("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    yield from _file("index.json", _json(_index(image, len(content))))
    yield from _file("manifest.json", _json([_docker_manifest(image)]))
    yield from _file(_path(image.digest), content)
    # Not needed while the blobs are read.
    del content
    for digest in blobs:
        yield from _blob(registry, image.name, digest)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _index(image: ArchiveImage, size: int) -> dict[str, object]:
    descriptor: dict[str, object] = {"mediaType": image.media_type, "digest": image.digest, "size": size}
    if image.reference:
        tag = image.reference.rpartition(":")[2]
        descriptor["annotations"] = {
            "io.containerd.image.name": image.reference,
            "org.opencontainers.image.ref.name": tag,
        }
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor]}


def _docker_manifest(image: ArchiveImage) -> dict[str, object]:
    return {
        "Config": _path(image.config) if image.config else "",
        "RepoTags": [image.reference] if image.reference else None,
        "Layers": [_path(layer) for layer in image.layers],
    }


def _blob(registry: Registry, name: RepositoryName, digest: Digest) -> Iterator[bytes]:
    try:
        blob = registry.open_blob(name, digest)
    except RegistryError as error:
        raise Disconnected(f"in the middle of an archive: {error}") from error
    if blob.file is None:
        yield from _file(_path(digest), blob.content)
        return
    with blob.file as file:
        yield _header(_path(digest), blob.size)
        left = blob.size
        while left and (piece := file.read(min(_READ_BYTES, left))):
            left -= len(piece)
            yield piece
        if left:
            raise Disconnected("in the middle of an archive: the file of a blob is shorter than it was")
        yield _padding(blob.size)


def _file(path: str, content: bytes) -> Iterator[bytes]:
    yield _header(path, len(content)) + content + _padding(len(content))


def _header(path: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo(path)
    entry.size, entry.type, entry.mode = size, kind, 0o755 if kind == tarfile.DIRTYPE else 0o644
    return entry.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
