"""Rows: commands of Vex beside programs that do the same: `vex import` and `skopeo sync`, `vex check --hash` and
`sha256sum`.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

from tests.bench.amounts import Amounts
from tests.bench.clients import Clients
from tests.bench.content import Image, image_of
from tests.bench.measure import BYTES, IMAGES, MIB, Goal, Other, Row, Sample, WrongAnswer
from tests.bench.registries import DebianRegistry, Registry, Vex
from tests.support.server import PASSWORD, USER, digest_of

_IMAGES_EACH, _LAYERS_EACH = 3, 3
_CHECKED = "bench/checked"
# What is the same in all blobs that are checked, but for their ends.
_TAIL_BYTES = 64


class Commands:
    """The rows, and what they need to be there; `directory` is for the registry that is imported from."""

    def __init__(self, clients: Clients, amounts: Amounts, directory: Path) -> None:
        self._clients = clients
        self._amounts = amounts
        self._directory = directory

    def rows(self) -> Iterator[Row]:
        """Make the rows."""
        count = self._amounts.import_repositories
        images = count * _IMAGES_EACH
        size = self._amounts.import_layer_bytes * images * _LAYERS_EACH / MIB
        yield Row(
            "import",
            f"vex import of {count} repositories with {images} images, {size:.0f} MiB",
            IMAGES,
            lambda _registry: None,
            self._copies(self._import),
            Goal(4),
            pair="commands",
            other=Other("skopeo sync", self._copies(self._sync)),
        )
        blobs, size = self._amounts.check_blobs, self._amounts.check_blobs * self._amounts.check_blob_bytes / MIB
        yield Row(
            "check",
            f"vex check --hash of {size:,.0f} MiB in {blobs} blobs",
            BYTES,
            self._push_checked,
            _check,
            Goal(1.7),
            pair="check",
            other=Other("sha256sum", _sha256sum),
        )

    def _copies(self, copy: Callable[[Registry, Registry, list[str]], str]) -> Callable[[Registry], Sample]:
        """Copy images that are not there yet, from a registry that is there for them alone."""

        def measure(registry: Registry) -> Sample:
            directory = self._directory / f"source-{os.urandom(8).hex()}"
            source = DebianRegistry("the registry to import from", directory)
            try:
                images = self._push_images(source)
                started = time.monotonic()
                prefix = copy(registry, source, sorted({repository for repository, _ in images}))
                seconds = time.monotonic() - started
                for (repository, tag), image in images.items():
                    registry.check(f"/v2/{prefix}{repository}/manifests/{tag}", image.digest)
                    for digest in image.blobs:
                        registry.check(f"/v2/{prefix}{repository}/blobs/{digest}", digest)
            finally:
                source.stop()
            return Sample(len(images) / seconds)

        return measure

    def _push_images(self, source: Registry) -> dict[tuple[str, str], Image]:
        images = {}
        prefix = os.urandom(4).hex()
        for number in range(self._amounts.import_repositories):
            for tag in range(_IMAGES_EACH):
                # skopeo would compress what is not.
                random = (os.urandom(self._amounts.import_layer_bytes) for _ in range(_LAYERS_EACH))
                image = image_of([gzip.compress(content, 0) for content in random])
                source.push_image(f"{prefix}-{number}", f"v{tag}", image)
                images[f"{prefix}-{number}", f"v{tag}"] = image
        return images

    def _import(self, registry: Registry, source: Registry, _repositories: list[str]) -> str:
        assert isinstance(registry, Vex)
        to = ["--username", USER, "--to", registry.write_url]
        registry.command("import", source.url, *to, text=PASSWORD + "\n")
        return ""

    def _sync(self, registry: Registry, source: Registry, repositories: list[str]) -> str:
        self._clients.skopeo_sync(registry, source, repositories, "synced")
        return "synced/"

    def _push_checked(self, registry: Registry) -> None:
        same = os.urandom(self._amounts.check_blob_bytes - _TAIL_BYTES)
        for _ in range(self._amounts.check_blobs):
            content = same + os.urandom(_TAIL_BYTES)
            registry.push_blob(_CHECKED, digest_of(content), content)


def _check(registry: Registry) -> Sample:
    assert isinstance(registry, Vex)
    files = _blobs(registry)
    started = time.monotonic()
    registry.command("check", "--hash")
    return Sample(_mebibytes(files) / (time.monotonic() - started))


def _sha256sum(registry: Registry) -> Sample:
    files = _blobs(registry)
    started = time.monotonic()
    done = subprocess.run(["sha256sum", *files], capture_output=True, text=True, check=True)
    seconds = time.monotonic() - started
    for line in done.stdout.splitlines():
        digest, path = line.split()
        if Path(path).name != digest:
            raise WrongAnswer(f"{path} has the digest {digest}")
    return Sample(_mebibytes(files) / seconds)


def _blobs(registry: Registry) -> list[Path]:
    assert isinstance(registry, Vex)
    return sorted((registry.data / "blobs/sha256").iterdir())


def _mebibytes(files: list[Path]) -> float:
    return sum(path.stat().st_size for path in files) / MIB
