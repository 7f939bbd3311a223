"""What is pushed and pulled: blobs that differ from each other in their last bytes only, so that each is new to a
registry and cheap to make.

A blob is BASE and then TAIL bytes. BASE is a file of random bytes, also kept the way docker sends it: in chunks of 32
KiB.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.measure import MIB
from tests.support.server import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, digest_of

TAIL_BYTES = 64
EMPTY_INDEX = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
_CHUNK_BYTES = 32 * 1024


class Base(NamedTuple):
    """The files of the base: as it is, and in chunks."""

    plain: Path
    chunked: Path

    @classmethod
    def at(cls, directory: Path) -> Base:
        """Name the files in a directory."""
        return cls(directory / "base", directory / "base.chunked")

    def make(self, mebibytes: int) -> None:
        """Write the files."""
        with open(self.plain, "wb") as plain, open(self.chunked, "wb") as chunked:
            for _ in range(mebibytes):
                piece = os.urandom(MIB)
                plain.write(piece)
                for at in range(0, MIB, _CHUNK_BYTES):
                    chunked.write(as_chunk(piece[at : at + _CHUNK_BYTES]))

    def hash(self) -> hashlib._Hash:
        """Return the hash of the base, to go on with a tail."""
        base_hash = hashlib.sha256()
        with open(self.plain, "rb") as file:
            while piece := file.read(MIB):
                base_hash.update(piece)
        return base_hash


class Image(NamedTuple):
    """A manifest and the blobs that it references, by digest."""

    manifest: bytes
    blobs: dict[str, bytes]

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return digest_of(self.manifest)


def as_chunk(data: bytes) -> bytes:
    """Frame data as one chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def small_image(layers: int = 3, layer_bytes: int = 1000) -> Image:
    """Make an image of random layers that nobody has seen before."""
    return image_of([os.urandom(layer_bytes) for _ in range(layers)])


def image_of(layers: list[bytes]) -> Image:
    """Make an image of these layers."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
    ).encode()
    described = [_descriptor(layer, OCI_LAYER) for layer in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor(config, OCI_CONFIG),
        "layers": described,
    }
    return Image(json.dumps(manifest).encode(), {digest_of(content): content for content in (config, *layers)})


def _descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}
