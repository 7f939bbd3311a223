"""Rows: blobs of 256 MiB, whole images, and small requests while blobs are transferred."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

from tests.bench.amounts import Amounts
from tests.bench.clients import Clients, percentile
from tests.bench.content import Base, image_of
from tests.bench.measure import BYTES, IMAGES, LATENCY, MIB, Goal, Other, Row, Sample, Work, WrongAnswer, timed
from tests.bench.reads import BY_TAG, Reads
from tests.bench.registries import Registry
from tests.bench.sender import Job
from tests.support.server import OCI_MANIFEST

_REPOSITORY = "bench/transfers"


class Transfers:
    """The rows, and what they need to be there; `directory` is for images."""

    def __init__(self, clients: Clients, reads: Reads, amounts: Amounts, directory: Path) -> None:
        self._clients = clients
        self._amounts = amounts
        self._reads = reads
        self._base = Base.at(directory)
        self._directory = directory
        self._blob_paths: dict[Registry, tuple[str, str]] = {}
        self._new: dict[Registry, tuple[str, str]] = {}

    def rows(self) -> Iterator[Row]:
        """Make the rows."""
        blob, ready = f"{self._amounts.blob_mib} MiB", self.make_ready
        for clients in (1, 4):
            title = f"pull of a {blob} blob, {clients} client{'s' if clients > 1 else ''}"
            yield Row(f"pull-{clients}", title, BYTES, self.push_blob, self._pull(clients), Goal(1, 1))
        yield Row(
            "pull-tls", f"pull of a {blob} blob, TLS", BYTES, self.push_blob, self._pull(1), Goal(1.1, 1), pair="tls"
        )
        first = f"first pull of a {blob} blob after its push"
        yield Row("first-pull", first, BYTES, ready, self._first_pull_checked, Goal(1, always=True))
        second = Other("second pull", self._second_pull)
        yield Row("second-pull", first, BYTES, ready, self._first_pull, Goal(0.8, always=True), other=second)
        slower = Goal(0.95)
        for name, title, kind, clients, goal in (
            ("push", f"push of a {blob} blob, one PUT", "push", 1, Goal(2.5, 0.5)),
            ("push-chunked", f"push of a {blob} blob, chunked PATCH", "push-chunked", 1, Goal(2.5, 0.5)),
            ("push-4", f"4 pushes of {blob} at once, chunked PATCH", "push-chunked", 4, Goal(2)),
        ):
            yield Row(name, title, BYTES, ready, self._push(kind, clients), goal, slower)
        many = f"{self._amounts.small_images} small images"
        yield Row("images", f"{many}, one after another", IMAGES, ready, self._push_images(1), Goal(2))
        yield Row("images-8", f"{many}, 8 at once", IMAGES, ready, self._push_images(8), Goal(2.5), Goal(cpu=0.6))
        yield from self._image_rows()
        per_second = self._amounts.busy_per_second
        title = f"p99 of GET manifest, 4 pushes and 4 pulls of {blob} at once, {per_second} requests/s"
        yield Row("busy", title, LATENCY, self.make_busy, self._busy, Goal(2), lower_is_better=True)
        title = f"p99 of GET manifest with a password, 4 pushes of small blobs at once, {per_second} requests/s"
        push = self._reads.push_image
        yield Row("busy-small", title, LATENCY, push, self._busy_small, Goal(), Goal(3), lower_is_better=True)

    def _image_rows(self) -> Iterator[Row]:
        image = f"skopeo copy of a {3 * self._amounts.skopeo_layer_mib} MiB image"
        yield Row("skopeo-push", f"{image}, push", IMAGES, self.make_ready, self._skopeo_push, Goal(1))
        yield Row("skopeo-pull", f"{image}, pull", IMAGES, self.push_large_image, self._skopeo_pull, Goal(1))

    def make_ready(self, _registry: Registry) -> None:
        """Make the files that are pushed."""
        if not self._base.plain.exists():
            self._base.make(self._amounts.blob_mib)

    def push_blob(self, registry: Registry) -> None:
        """Push the blob that is pulled."""
        self.make_ready(registry)
        _, pushed = self._clients.send([self._job(registry, "push")])
        self._blob_paths[registry] = pushed[0]

    def make_busy(self, registry: Registry) -> None:
        """Push what is read while the registry is busy."""
        registry.prepare(self._reads.push_image)
        registry.prepare(self.push_blob)

    def push_large_image(self, registry: Registry) -> None:
        """Push the image that skopeo pulls."""
        self._make_layout("pulled")
        self._clients.skopeo_copy(registry, self._layout("pulled"), _image_url(registry.write, "pulled"))

    def _job(self, registry: Registry, kind: str, *, times: int = 1, path: str = "") -> Job:
        host, port = registry.read if path else registry.write
        certificate = str(registry.tls.certificate) if registry.tls else ""
        base = (str(self._base.plain), str(self._base.chunked))
        return Job(
            kind, host, port, "" if path else registry.authorization, certificate, _REPOSITORY, base, path, times
        )

    def _pull(self, clients: int) -> Callable[[Registry], Sample]:
        def measure(registry: Registry) -> Sample:
            path, digest = self._blob_paths[registry]
            sample = timed(registry, lambda: self._clients.send([self._job(registry, "pull", path=path)] * clients)[0])
            registry.check(path, digest)
            return sample

        return measure

    def _first_pull(self, registry: Registry) -> Sample:
        """Push a blob and pull it, in place of that of the last time."""
        if registry in self._new:
            registry.discard_blob(_REPOSITORY, self._new[registry][1])
        _, pushed = self._clients.send([self._job(registry, "push")])
        self._new[registry] = pushed[0]
        return self._pull_new(registry)

    def _first_pull_checked(self, registry: Registry) -> Sample:
        sample = self._first_pull(registry)
        registry.check(*self._new[registry])
        return sample

    def _second_pull(self, registry: Registry) -> Sample:
        sample = self._pull_new(registry)
        registry.check(*self._new[registry])
        return sample

    def _pull_new(self, registry: Registry) -> Sample:
        path = self._new[registry][0]
        return timed(registry, lambda: self._clients.send([self._job(registry, "pull", path=path)])[0])

    def _push(self, kind: str, clients: int) -> Callable[[Registry], Sample]:
        def measure(registry: Registry) -> Sample:
            pushed: list[tuple[str, str]] = []

            def load() -> Work:
                work, found = self._clients.send([self._job(registry, kind)] * clients)
                pushed.extend(found)
                return work

            sample = timed(registry, load)
            _check_and_discard(registry, pushed)
            return sample

        return measure

    def _push_images(self, clients: int) -> Callable[[Registry], Sample]:
        def measure(registry: Registry) -> Sample:
            pushed: list[tuple[str, str]] = []

            def load() -> Work:
                work, found = self._clients.send(
                    [self._job(registry, "images", times=self._amounts.small_images // clients)] * clients
                )
                pushed.extend(found)
                return work

            sample = timed(registry, load)
            for path, digest in pushed[:: max(len(pushed) // 8, 1)]:
                registry.check(path, digest)
            return sample

        return measure

    def _skopeo_push(self, registry: Registry) -> Sample:
        # A new image each time: skopeo does not send blobs that are there already.
        self._make_layout("pushed")
        digest = _manifest_digest(self._directory / "pushed")
        sample = timed(
            registry,
            lambda: self._clients.skopeo_copy(registry, self._layout("pushed"), _image_url(registry.write, "pushed")),
        )
        registry.check(f"/v2/{_REPOSITORY}/manifests/pushed", digest)
        return sample

    def _skopeo_pull(self, registry: Registry) -> Sample:
        target = self._directory / "copy"
        shutil.rmtree(target, ignore_errors=True)
        sample = timed(
            registry,
            lambda: self._clients.skopeo_copy(registry, _image_url(registry.read, "pulled"), f"oci:{target}:latest"),
        )
        for path in (target / "blobs/sha256").iterdir():
            if hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
                raise WrongAnswer(f"{registry.name}: skopeo pulled a blob whose digest is not {path.name}")
        return sample

    def _busy(self, registry: Registry) -> Sample:
        path = self._blob_paths[registry][0]
        jobs = [self._job(registry, "push-chunked"), self._job(registry, "pull", path=path)] * 4
        with self._clients.sending(jobs) as pushed:
            _, seconds = self._clients.hey(
                registry, "GET", BY_TAG, 4, self._amounts.busy_seconds, self._amounts.busy_per_second
            )
        _check_and_discard(registry, pushed)
        return Sample(percentile(seconds, 99) * 1000)

    def _busy_small(self, registry: Registry) -> Sample:
        """Ask where the pushes go, too."""
        amounts = self._amounts
        with self._clients.sending([self._job(registry, "small-blobs")] * 4) as pushed:
            _, seconds = self._clients.hey(
                registry, "GET", BY_TAG, 4, amounts.busy_seconds, amounts.busy_per_second, registry.authorization
            )
        for path, digest in pushed[:: max(len(pushed) // 8, 1)]:
            registry.check(path, digest)
        return Sample(percentile(seconds, 99) * 1000)

    def _layout(self, name: str) -> str:
        return f"oci:{self._directory / name}:latest"

    def _make_layout(self, name: str) -> None:
        """Write an OCI image layout with an image that nobody has seen before."""
        directory = self._directory / name
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "blobs/sha256").mkdir(parents=True)
        # Stored, not compressed: random bytes are as large as they can get already.
        image = image_of([gzip.compress(os.urandom(self._amounts.skopeo_layer_mib * MIB), 0) for _ in range(3)])
        for digest, content in {**image.blobs, image.digest: image.manifest}.items():
            (directory / "blobs/sha256" / digest.partition(":")[2]).write_bytes(content)
        entry = {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": len(image.manifest)}
        entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
        (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _check_and_discard(registry: Registry, pushed: list[tuple[str, str]]) -> None:
    for number, (path, digest) in enumerate(pushed):
        if number == 0:
            registry.check(path, digest)
        registry.discard_blob(_REPOSITORY, digest)


def _image_url(address: tuple[str, int], tag: str) -> str:
    return f"docker://{address[0]}:{address[1]}/{_REPOSITORY}:{tag}"


def _manifest_digest(layout: Path) -> str:
    digest: str = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    return digest
