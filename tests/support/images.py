"""Small images that real programs accept, in an OCI image layout, made without them and without network."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.server import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, descriptor, digest_of

SINGLE, INDEX = "single", "index"
ARCHITECTURES = ("amd64", "arm64")


class Layout(NamedTuple):
    """An OCI image layout with an INDEX of two images, which share a layer, and of these the first under the name
    SINGLE.
    """

    directory: Path
    blobs: dict[str, set[str]]
    """The digests of configs and layers, by name."""


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """Make a tar file, the same each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def docker_archive(name: str, *layers: bytes) -> tuple[bytes, str]:
    """Make what `docker load` takes, with an image of these layers, each a tar file; returns it, and the id of the
    image, the digest of its config.
    """
    config = json.dumps(_config("amd64", layers)).encode()
    files = {f"{number}.tar": layer for number, layer in enumerate(layers)}
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": [*files]}]
    return tar_of({**files, "config.json": config, "manifest.json": json.dumps(manifest).encode()}), digest_of(config)


def write_layout(directory: Path) -> Layout:
    """Write the layout into a new directory."""
    shared = tar_of({"motd": b"shared by both images\n"})
    blobs: list[set[str]] = []
    children: list[dict[str, Any]] = []
    for architecture in ARCHITECTURES:
        own = tar_of({"architecture": architecture.encode()})
        manifest, digests = _write_image(directory, architecture, [shared, own])
        blobs.append(digests)
        children.append({**manifest, "platform": {"os": "linux", "architecture": architecture}})
    index = _write_document(directory, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}, OCI_INDEX)
    named = [
        {**document, "annotations": {"org.opencontainers.image.ref.name": name}}
        for name, document in ((SINGLE, children[0]), (INDEX, index))
    ]
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": named}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return Layout(directory, {SINGLE: blobs[0], INDEX: set.union(*blobs)})


def _write_image(directory: Path, architecture: str, layers: list[bytes]) -> tuple[dict[str, Any], set[str]]:
    packed = [gzip.compress(layer, mtime=0) for layer in layers]
    config = _write_document(directory, _config(architecture, layers), OCI_CONFIG)
    entries = [config, *(_write_blob(directory, layer, OCI_LAYER) for layer in packed)]
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entries[0], "layers": entries[1:]}
    return _write_document(directory, manifest, OCI_MANIFEST), {entry["digest"] for entry in entries}


def _config(architecture: str, layers: Sequence[bytes]) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/none"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        "history": [{"created_by": "a test"} for _ in layers],
    }


def _write_document(directory: Path, document: dict[str, Any], media_type: str) -> dict[str, Any]:
    return _write_blob(directory, json.dumps(document).encode(), media_type)


def _write_blob(directory: Path, content: bytes, media_type: str) -> dict[str, Any]:
    path = _path(directory, digest_of(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return descriptor(content, media_type)


def _path(directory: Path, digest: str) -> Path:
    return directory / "blobs" / digest.replace(":", "/")
