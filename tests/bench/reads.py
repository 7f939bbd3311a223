"""Rows: small requests. Manifests and blobs are read on keep-alive connections; lists have 10,000 entries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Callable

from tests.bench.clients import Clients
from tests.bench.content import small_image
from tests.bench.measure import REQUESTS, Row, Sample, Work, WrongAnswer, timed
from tests.bench.registries import Registry
from tests.bench.sender import Job
from tests.support.server import OCI_MANIFEST

_REPOSITORY = "bench/reads"
_TAGS_REPOSITORY = "bench/tags"
_SECONDS = 2
_LIST_SECONDS = 4
_LIST_CONNECTIONS = 2
_MANY = 10_000
_IMAGE = small_image()
_LAYER = list(_IMAGE.blobs)[-1]
BY_TAG = f"/v2/{_REPOSITORY}/manifests/latest"
_BY_DIGEST = f"/v2/{_REPOSITORY}/manifests/{_IMAGE.digest}"
_BLOB = f"/v2/{_REPOSITORY}/blobs/{_LAYER}"
# (connections, how many times as many requests as the peer, processor time as a part of the peer's)
_GOALS = ((8, 20, 1 / 20), (64, 15, None), (1, 15, None))
_LIST_GOAL = 20


class Reads:
    """The rows, and what they need to be there."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def rows(self) -> Iterator[Row]:
        """Make the rows."""
        for connections, goal, cpu_goal in _GOALS:
            for what, path in (("tag", BY_TAG), ("digest", _BY_DIGEST)):
                for method in ("GET", "HEAD"):
                    title = f"{method} manifest by {what}, {connections} connection{'s' if connections > 1 else ''}"
                    measure = self._requests(method, path, _IMAGE.digest, connections)
                    yield Row(
                        f"manifest-{method.lower()}-{what}-{connections}",
                        title,
                        REQUESTS,
                        self.push_image,
                        measure,
                        goal,
                        cpu_goal,
                    )
        yield Row(
            "blob-head",
            "HEAD blob, 8 connections",
            REQUESTS,
            self.push_image,
            self._requests("HEAD", _BLOB, _LAYER, 8),
            10,
        )
        tags, catalog = f"/v2/{_TAGS_REPOSITORY}/tags/list", "/v2/_catalog"
        for name, title, prepare, path, entries in (
            ("tags", "tags/list, all 10,000 tags", self.push_tags, f"{tags}?n={_MANY}", _MANY),
            ("tags-page", "tags/list, 100 of 10,000 tags", self.push_tags, f"{tags}?n=100&last=tag-05000", 100),
            (
                "catalog",
                "catalog, 1,000 of 10,000 repositories",
                self.push_repositories,
                f"{catalog}?n=1000&last=many/repository-05000",
                1000,
            ),
            (
                "catalog-page",
                "catalog, 100 of 10,000 repositories",
                self.push_repositories,
                f"{catalog}?n=100&last=many/repository-05000",
                100,
            ),
        ):
            yield Row(name, title, REQUESTS, prepare, self._lists(path, entries), _LIST_GOAL)

    def push_image(self, registry: Registry) -> None:
        """Push the image that is read."""
        for digest, content in _IMAGE.blobs.items():
            location = (
                registry.expect(202, "POST", f"/v2/{_REPOSITORY}/blobs/uploads/")
                .headers["Location"]
                .replace(registry.url, "")
            )
            registry.expect(201, "PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", content)
        registry.expect(201, "PUT", BY_TAG, _IMAGE.manifest, {"Content-Type": OCI_MANIFEST})

    def push_tags(self, registry: Registry) -> None:
        """Push 10,000 tags to one repository."""
        self._clients.send(
            [
                Job(
                    "tags",
                    *registry.write,
                    authorization=registry.authorization,
                    repository=_TAGS_REPOSITORY,
                    times=_MANY,
                )
            ]
        )

    def push_repositories(self, registry: Registry) -> None:
        """Push to 10,000 repositories."""
        registry.prepare(self.push_image)
        self._clients.send(
            [
                Job(
                    "repositories",
                    *registry.write,
                    authorization=registry.authorization,
                    repository=_REPOSITORY,
                    path=_LAYER,
                    times=_MANY,
                )
            ]
        )

    def _requests(self, method: str, path: str, digest: str, connections: int) -> Callable[[Registry], Sample]:
        def load(registry: Registry) -> Work:
            if method == "GET":
                return self._clients.get(registry, [path], connections, _SECONDS)
            return self._clients.hey(registry, method, path, connections, _SECONDS)[0]

        def measure(registry: Registry) -> Sample:
            registry.check(path, digest)
            return timed(registry, lambda: load(registry))

        return measure

    def _lists(self, path: str, entries: int) -> Callable[[Registry], Sample]:
        def measure(registry: Registry) -> Sample:
            found = max(
                (
                    value
                    for value in json.loads(registry.expect(200, "GET", path).body).values()
                    if isinstance(value, list)
                ),
                key=len,
            )
            # The peer does not know pages of tags.
            if len(found) != entries and len(found) != _MANY:
                raise WrongAnswer(f"{registry.name}: GET {path}: {len(found)} entries instead of {entries}")
            return timed(registry, lambda: self._clients.get(registry, [path], _LIST_CONNECTIONS, _LIST_SECONDS))

        return measure
